//! A consistent state of the index, to read from.

use crate::StoreError;
use crate::database::{Database, Writing};
use crate::handle::Handle;
use kith_core::id::InodeId;
use rusqlite::Connection;
use std::sync::Arc;

/// One state of the index: that of the moment in which it was begun. Keep it for moments, not for
/// minutes: as long as it lives, the index's log can't shrink.
pub struct Snapshot {
    held: Held,
    database: Arc<Database>,
}

/// The connection that a snapshot reads through.
enum Held {
    /// One of its own. Only `drop` takes it.
    Own(Option<Handle>),
    /// The one that writes, which meanwhile nobody can.
    Writer(Writing),
}

impl Snapshot {
    pub(crate) fn begin(database: &Arc<Database>) -> Result<Self, StoreError> {
        let held = Held::Own(Some(database.reader()?));
        Ok(Snapshot { held, database: Arc::clone(database) })
    }

    pub(crate) fn glance(database: &Arc<Database>) -> Result<Self, StoreError> {
        match database.idle_writer()? {
            Some(handle) => {
                Ok(Snapshot { held: Held::Writer(handle), database: Arc::clone(database) })
            }
            None => Snapshot::begin(database),
        }
    }

    pub(crate) fn handle(&self) -> &Handle {
        match &self.held {
            Held::Own(handle) => {
                handle.as_ref().expect("the connection is there until the snapshot is dropped")
            }
            Held::Writer(handle) => handle,
        }
    }

    /// Whether a file that was removed is what this device has in the place of another: of one that
    /// has its name now, and lacks bytes.
    ///
    /// # Errors
    /// A [`StoreError`] if the index fails.
    pub fn stands_in(&self, file: InodeId) -> Result<bool, StoreError> {
        self.handle().stands_in(&self.handle().entries_of(file)?)
    }

    /// The connection, for the tables of bytes.
    pub(crate) fn sql(&self) -> &Connection {
        self.handle().sql()
    }
}

impl Drop for Snapshot {
    fn drop(&mut self) {
        match &mut self.held {
            Held::Own(handle) => {
                if let Some(handle) = handle.take() {
                    self.database.put_back(handle);
                }
            }
            Held::Writer(handle) => {
                if let Err(cause) = handle.run("COMMIT", []) {
                    tracing::warn!(%cause, "a look at the index could not be ended");
                    handle.rollback();
                }
            }
        }
    }
}
