//! Pairing: how a device joins a circle by a short code.

pub mod code;
pub(crate) mod exchange;
pub mod invitation;
pub(crate) mod invite;
pub mod join;
