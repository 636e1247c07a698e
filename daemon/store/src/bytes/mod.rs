//! The bytes of the share's files: chunks in segments, overlays, and what cuts and collects them.

use crate::StoreError;
use crate::database::Database;
use kith_core::id::ChunkId;
use rusqlite::Connection;
use std::path::Path;

/// The bytes' part of an open store.
pub(crate) struct Bytes {}

impl Bytes {
    /// Opens the segments in `directory`. After an unclean stop they are verified where needed.
    pub(crate) fn open(
        _directory: &Path,
        _database: &Database,
        _unclean: bool,
    ) -> Result<Bytes, StoreError> {
        Ok(Bytes {})
    }

    /// Makes all bytes durable that were stored before the call, and records it in a transaction
    /// of its own. A failed fdatasync must come back as [`StoreError::Io`].
    pub(crate) fn sync_segments(&self, _database: &Database) -> Result<(), StoreError> {
        Ok(())
    }
}

/// Whether the bytes of this name are here.
pub(crate) fn has_chunk(_sql: &Connection, _id: ChunkId) -> Result<bool, StoreError> {
    Ok(false)
}
