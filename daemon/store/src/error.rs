//! What goes wrong with this device's disk.

use std::path::PathBuf;

/// Why the store can't do what it was asked. The transaction in question has been rolled back.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The disk is full.
    #[error("no room is left on the disk")]
    Full,
    /// The index contradicts itself. What exactly is wrong is named.
    #[error("the index is damaged: {0}")]
    Damaged(&'static str),
    /// A record of the index can't be decoded.
    #[error("the index is damaged: {0}")]
    Record(#[from] kith_core::codec::DecodeError),
    /// The store has been closed.
    #[error("the store is closed")]
    Closed,
    /// An earlier sync failed. Linux forgets what it then failed to write, so that nothing can be
    /// promised until the store has been opened, and with it verified, again.
    #[error("an earlier sync to the disk failed; Kith has to be restarted")]
    SyncFailed,
    /// SQLite failed.
    #[error("the index failed")]
    Index(#[source] rusqlite::Error),
    /// A system call failed.
    #[error("the disk failed")]
    Io(#[from] std::io::Error),
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(rusqlite::ErrorCode::DiskFull) => StoreError::Full,
            _ => StoreError::Index(error),
        }
    }
}

impl From<rustix::io::Errno> for StoreError {
    fn from(errno: rustix::io::Errno) -> Self {
        match errno {
            rustix::io::Errno::NOSPC | rustix::io::Errno::DQUOT => StoreError::Full,
            _ => StoreError::Io(errno.into()),
        }
    }
}

/// Why a store can't be opened. Nothing in its directory has been changed.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it open.
    #[error("{} is in use by another process", .directory.display())]
    InUse {
        /// The store's directory.
        directory: PathBuf,
    },
    /// A newer version of Kith made it.
    #[error("{} was made by a newer version of Kith; update Kith on this device", .directory.display())]
    Newer {
        /// The store's directory.
        directory: PathBuf,
    },
    /// It isn't an index of Kith's, or it is damaged.
    #[error("{} is not a readable index: {reason}", .directory.join("index.db").display())]
    Corrupt {
        /// The store's directory.
        directory: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The disk or the index failed.
    #[error("{} can't be opened", .directory.display())]
    Store {
        /// The store's directory.
        directory: PathBuf,
        /// Why.
        #[source]
        cause: StoreError,
    },
}
