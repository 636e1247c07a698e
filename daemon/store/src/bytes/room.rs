//! The room on the disk, and the reserve that intake leaves alone.

use super::Bytes;
use super::file::failed;
use crate::{Store, StoreError};
use std::sync::atomic::Ordering;

const RESERVE_MIN_BYTES: u64 = 64 << 20;
const RESERVE_MAX_BYTES: u64 = 1 << 30;
/// The reserve's part of the disk, between its bounds: one in 200.
const RESERVE_DIVISOR: u64 = 200;

/// The room on the disk under the store, the reserve left out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DiskRoom {
    /// In all.
    pub total_bytes: u64,
    /// What new bytes can take.
    pub free_bytes: u64,
    /// What can be written to files that were opened before that was used up: half of the reserve
    /// too. The kernel caches writes, and tells programs that they are done before they are.
    pub writable_bytes: u64,
    /// Files in all, where the filesystem counts them.
    pub total_nodes: u64,
    /// Files that could still be made.
    pub free_nodes: u64,
}

impl Bytes {
    pub(crate) fn room(&self) -> Result<DiskRoom, StoreError> {
        let disk = rustix::fs::statvfs(self.files.directory()).map_err(|e| failed(e.into()))?;
        let total_bytes = disk.f_blocks.saturating_mul(disk.f_frsize);
        let available_bytes = disk.f_bavail.saturating_mul(disk.f_frsize);
        let reserve = (total_bytes / RESERVE_DIVISOR).clamp(RESERVE_MIN_BYTES, RESERVE_MAX_BYTES);
        let more = self.more_reserve_bytes.load(Ordering::Relaxed);
        let less = |reserve: u64| available_bytes.saturating_sub(reserve.saturating_add(more));
        Ok(DiskRoom {
            total_bytes: total_bytes.saturating_sub(reserve.saturating_add(more)),
            free_bytes: less(reserve),
            writable_bytes: less(reserve / 2),
            total_nodes: disk.f_files,
            free_nodes: disk.f_favail,
        })
    }

    /// Fails with [`StoreError::Full`] if `len_bytes` more would touch the reserve.
    pub(crate) fn make_sure_of_room(&self, len_bytes: u64) -> Result<(), StoreError> {
        if self.room()?.free_bytes < len_bytes { Err(StoreError::Full) } else { Ok(()) }
    }

    /// Fails with [`StoreError::Full`] if `len_bytes` that a program has written are more than
    /// [may be](DiskRoom::writable_bytes).
    pub(crate) fn make_sure_of_room_to_write(&self, len_bytes: u64) -> Result<(), StoreError> {
        if self.room()?.writable_bytes < len_bytes { Err(StoreError::Full) } else { Ok(()) }
    }
}

impl Store {
    /// The room on the disk, less the reserve: half a percent of the disk, at least 64 MiB and at
    /// most 1 GiB.
    ///
    /// # Errors
    /// A [`StoreError`] if the disk can't be asked.
    pub fn room(&self) -> Result<DiskRoom, StoreError> {
        self.inner.bytes.room()
    }
}
