//! The pure heart of Kith: names, stamps, the replicated tree and its merge, the exchange
//! between devices, the fetch plan and the wire format.
//!
//! Nothing here reads a clock, draws a random number, starts a thread or touches a disk: time,
//! randomness and storage are arguments, and what is to happen outside is returned as values.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

#[macro_use]
mod sabotaged;

pub mod alarm;
pub mod clock;
pub mod codec;
pub mod content;
pub mod effect;
pub mod exchange;
pub mod fetch;
pub mod forget;
pub mod id;
pub mod index;
pub mod merge;
pub mod name;
pub mod operation;
pub mod receive;
pub mod register;
#[cfg(feature = "sabotage")]
pub mod sabotage;
pub mod succession;
mod transaction;
pub mod vector;
pub mod view;
pub mod wire;
