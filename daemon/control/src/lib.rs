//! The control API of a running daemon: what is asked and answered, and a client that asks.
//!
//! The daemon answers HTTP/1.1 with JSON on a Unix socket, so that `curl --unix-socket` is enough
//! to use it. Fields are only ever added: a reader ignores those that it does not know.

pub mod client;
pub mod diagnosis;
pub mod event;
pub mod interrupt;
pub mod moment;
pub mod pairing;
pub mod refusal;
pub mod status;
