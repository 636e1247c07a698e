//! The control API's server: a Unix socket, the routes on it, and the streams among their answers.

mod route;
mod server;
mod socket;
mod stream;

pub use server::{ControlServer, STOP_GRACE};
pub use socket::{ControlSocket, ControlSocketError};

#[cfg(test)]
mod tests;
