//! The replicated tree in SQL. Reads and writes are methods of [`Handle`](crate::handle::Handle),
//! so that transactions and snapshots share them.

mod forgotten;
pub(crate) mod incomplete;
pub(crate) mod key;
pub(crate) mod names;
pub(crate) mod rare;
mod reads;
pub(crate) mod record;
pub(crate) mod registers;
pub(crate) mod replica;
pub(crate) mod view;
mod watched;
mod writers;
