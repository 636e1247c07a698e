//! The daemon: transport, discovery, pairing, the control server, and the driver that ties them
//! to the core and the store.

mod caretaker;
pub mod circle;
pub mod config;
mod continuity;
pub mod control;
pub mod discovery;
mod events;
pub mod handover;
pub mod identity;
pub mod network;
pub mod pairing;
pub mod paths;
mod peer;
pub mod run;
pub mod service;
mod share;
mod sightings;
pub mod steward;
pub mod transport;

pub use run::{RunError, RunOptions, run};
