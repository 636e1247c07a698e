//! The replicated tree in SQL.

pub(crate) mod key;
