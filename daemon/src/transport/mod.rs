//! QUIC between devices: who may speak, how fast, and how a stream's bytes are framed.

pub mod close;
pub mod endpoint;
pub mod frame;
pub mod tls;
