//! The bytes of the share's files: chunks in segments, overlays, and what cuts and collects them.

mod collect;
mod cut;
mod cutter;
mod extent;
mod file;
mod frozen;
mod gate;
mod journal;
mod list;
mod list_cache;
mod open;
mod overlay;
mod pack;
mod read;
mod record;
mod room;
mod salvage;
mod seek;
mod spill;
mod spill_record;
mod spill_replay;
mod table;
#[cfg(test)]
mod tests;
mod verified;

pub use collect::Collected;
pub use cut::{Cut, CutError};
pub use frozen::Frozen;
pub use open::Recovered;
pub use overlay::{Base, Overlay};
pub use read::{AddError, ReadError};
pub use room::DiskRoom;
pub use salvage::chunks_in;

use crate::StoreError;
use crate::database::Database;
use extent::Staging;
use file::Files;
use gate::Gate;
use kith_core::id::ChunkId;
use list_cache::ListCache;
use overlay::Shared;
use pack::Pack;
use rusqlite::Connection;
use spill::Spill;
use spill_replay::Left;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, AtomicUsize};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use verified::Verified;

/// The bytes' part of an open store.
///
/// Locks are taken in this order, and none of them by anybody who waits for the network: pack,
/// pool, the index's writer, an overlay's state, and then the small ones.
pub(crate) struct Bytes {
    files: Files,
    /// The pack that chunks are appended to.
    pack: Mutex<Option<Pack>>,
    /// Segments with bytes that are not durable yet, and how far they go.
    written: Mutex<BTreeMap<u64, u64>>,
    discarded: Mutex<Discarded>,
    verified: Mutex<Verified>,
    lists: Mutex<ListCache>,
    gate: Arc<Gate>,
    overlays: Mutex<BTreeMap<u64, Weak<Shared>>>,
    /// What overlays hold in memory, where it outlives the process.
    pub(crate) spill: Spill,
    /// What a former process left there, until somebody takes it over.
    left: Mutex<BTreeMap<u64, Left>>,
    next_overlay: AtomicU64,
    /// What all overlays hold in memory.
    memory_bytes: AtomicUsize,
    /// More reserve than the disk's size asks for; tests make disks look full with it.
    more_reserve_bytes: AtomicU64,
    /// Chunks that were found damaged when the store was opened, and forgotten.
    lost: Vec<ChunkId>,
    /// Chunks that were found damaged since, and that the versions which name them don't know of.
    damaged: Mutex<BTreeSet<ChunkId>>,
}

/// Staging files that nothing needs any more.
#[derive(Default)]
struct Discarded {
    /// Their rows are still there.
    staging: Vec<Arc<Staging>>,
    /// Their rows are gone, which the sync that now runs, or the last one, makes durable.
    segments: Vec<u64>,
}

impl Bytes {
    /// Makes all bytes durable that were stored before the call, and records it in a transaction
    /// of its own. A failed fdatasync comes back as [`StoreError::Io`].
    ///
    /// The log has been synced since the last call, or there is none after it.
    pub(crate) fn sync_segments(&self, database: &Database) -> Result<(), StoreError> {
        let written = self.written.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for segment in written.keys() {
            self.files.sync(*segment)?;
        }
        let (idle, unlinked) = self.take_discarded();
        for segment in &unlinked {
            self.files.unlink(*segment)?;
        }
        if written.is_empty() && idle.is_empty() {
            return Ok(());
        }
        let forgotten: Vec<u64> =
            idle.iter().filter(|staging| !staging.is_sealed()).map(|s| s.segment).collect();
        let recorded = database.write(|handle| {
            for (segment, len_bytes) in &written {
                table::set_durable(handle.sql(), *segment, *len_bytes)?;
            }
            forgotten.iter().try_for_each(|id| table::delete_segment(handle.sql(), *id))
        });
        let mut discarded = self.discarded.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(cause) = recorded {
            discarded.staging.extend(idle);
            return Err(cause);
        }
        discarded.segments.extend(forgotten);
        drop(discarded);
        let mut left = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        left.retain(|segment, len_bytes| written.get(segment) != Some(len_bytes));
        Ok(())
    }

    /// Makes all bytes durable that were stored before the call, and records nothing of it.
    pub(crate) fn flush_segments(&self) -> Result<(), StoreError> {
        let written = self.written.lock().unwrap_or_else(PoisonError::into_inner).clone();
        written.into_keys().try_for_each(|segment| self.files.sync(segment))
    }

    /// Moves overlays on to the present spill log, if another has just been ended. To be called
    /// while no overlay is locked.
    fn follow_spill(&self) -> Result<(), StoreError> {
        if !self.spill.is_lagging() {
            return Ok(());
        }
        self.spill.catch_up(self.overlays())
    }

    fn overlays(&self) -> Vec<Weak<Shared>> {
        let overlays = self.overlays.lock().unwrap_or_else(PoisonError::into_inner);
        overlays.values().cloned().collect()
    }

    /// Whether all overlays that are in use are in the index as they are.
    pub(crate) fn is_kept(&self) -> bool {
        let mut overlays = self.overlays().into_iter().filter_map(|overlay| overlay.upgrade());
        overlays.all(|overlay| overlay.state().is_kept())
    }

    /// The staging files that nobody reads any more, and those whose rows are durably gone.
    fn take_discarded(&self) -> (Vec<Arc<Staging>>, Vec<u64>) {
        let mut discarded = self.discarded.lock().unwrap_or_else(PoisonError::into_inner);
        let staging = std::mem::take(&mut discarded.staging);
        let (idle, used) = staging.into_iter().partition(|file| Arc::strong_count(file) == 1);
        discarded.staging = used;
        (idle, std::mem::take(&mut discarded.segments))
    }

    /// Lets go of staging files; they are removed once that can't lose anything.
    fn discard(&self, staging: impl IntoIterator<Item = Arc<Staging>>) {
        let mut discarded = self.discarded.lock().unwrap_or_else(PoisonError::into_inner);
        discarded.staging.extend(staging.into_iter().filter(|file| !file.is_sealed()));
    }
}

/// Whether the bytes of this name are here.
pub(crate) fn has_chunk(sql: &Connection, id: ChunkId) -> Result<bool, StoreError> {
    Ok(table::find_chunk(sql, &id)?.is_some())
}
