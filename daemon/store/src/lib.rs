//! This device's disk: the index of a share in SQLite, and the bytes of its files.
//!
//! Everything here is synchronous and knows no network. `docs/disk.md` describes what is where.

pub mod bytes;
mod checkpoint;
mod database;
mod error;
mod guard;
mod handle;
mod index;
mod node;
mod round;
mod snapshot;
mod store;
mod transaction;

pub use bytes::{
    AddError, Base, Collected, Cut, CutError, DiskRoom, Frozen, Overlay, ReadError, Recovered,
};
pub use error::{OpenError, StoreError};
pub use guard::{GuardNews, MassChange};
pub use index::incomplete::Incomplete;
pub use index::replica::Totals;
pub use node::{NodeRead, NodeRow, ROOT_INO};
pub use snapshot::Snapshot;
pub use store::{Founding, Store};
pub use transaction::Transaction;
