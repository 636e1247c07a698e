//! A transaction that changes the index.

use crate::StoreError;
use crate::handle::Handle;
use rusqlite::Connection;

/// What the one writer knows without reading, as of the last commit.
#[derive(Default)]
pub(crate) struct Memory {}

/// A transaction of [`Store::write`](crate::Store::write). It reads what it wrote.
pub struct Transaction<'a> {
    handle: &'a Handle,
    memory: &'a mut Memory,
    open: bool,
}

impl<'a> Transaction<'a> {
    pub(crate) fn begin(handle: &'a Handle, memory: &'a mut Memory) -> Result<Self, StoreError> {
        handle.begin()?;
        Ok(Transaction { handle, memory, open: true })
    }

    pub(crate) fn commit(mut self) -> Result<(), StoreError> {
        self.handle.commit()?;
        self.open = false;
        Ok(())
    }

    /// The connection, for the tables of bytes.
    pub(crate) fn sql(&self) -> &Connection {
        self.handle.sql()
    }
}

impl Drop for Transaction<'_> {
    fn drop(&mut self) {
        if self.open {
            self.handle.rollback();
            *self.memory = Memory::default();
        }
    }
}
