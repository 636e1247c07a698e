//! A consistent state of the index, to read from.

use crate::StoreError;
use crate::database::Database;
use crate::handle::Handle;
use rusqlite::Connection;
use std::sync::Arc;

/// One state of the index: that of the moment in which it was begun. Keep it for moments, not for
/// minutes: as long as it lives, the index's log can't shrink.
pub struct Snapshot {
    /// Only `drop` takes it.
    handle: Option<Handle>,
    database: Arc<Database>,
}

impl Snapshot {
    pub(crate) fn begin(database: &Arc<Database>) -> Result<Self, StoreError> {
        Ok(Snapshot { handle: Some(database.reader()?), database: Arc::clone(database) })
    }

    pub(crate) fn handle(&self) -> &Handle {
        self.handle.as_ref().expect("the connection is there until the snapshot is dropped")
    }

    /// The connection, for the tables of bytes.
    pub(crate) fn sql(&self) -> &Connection {
        self.handle().sql()
    }
}

impl Drop for Snapshot {
    fn drop(&mut self) {
        if let Some(handle) = self.handle.take() {
            self.database.put_back(handle);
        }
    }
}
