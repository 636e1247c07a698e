//! What is missing here: versions whose bytes are fetched in the background, and how many.

use super::fetches::Urgency;
use super::{Share, kith_error_chain};
use kith_control::event::Happening;
use kith_core::content::Content;
use kith_core::exchange::full_knowledge;
use kith_core::id::{ChunkId, Dot, InodeId};
use kith_core::index::IndexRead;
use kith_core::wire::Message;
use kith_store::StoreError;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How many chunks are wanted in the background before more versions are looked at.
const LOW_WATER: usize = 2_048;
/// How many chunks may be wanted in the background.
const HIGH_WATER: usize = 8_192;
/// How many chunks of one version are wanted at once.
const CHUNKS_A_VERSION: usize = 1_024;
/// How many versions are read from the index at once.
const VERSIONS_A_READ: usize = 256;

/// How often the index is told how much of the versions under way is still missing.
const RECOUNT_EVERY: Duration = Duration::from_millis(400);

/// A version, and the file that it is one of.
type VersionKey = (InodeId, Dot);

/// The versions that are being completed.
#[derive(Default)]
pub(crate) struct Backlog {
    active: Mutex<Active>,
}

#[derive(Default)]
struct Active {
    /// For each version, the chunks that were asked for and haven't arrived.
    left: BTreeMap<VersionKey, Outstanding>,
    /// The versions that wait for a chunk.
    waiting: HashMap<ChunkId, Vec<VersionKey>>,
    /// Up to where the index's list was read.
    after: u64,
    /// When the index was last told how much is still missing.
    recounted_at: Option<Instant>,
}

/// What one version lacks.
struct Outstanding {
    content: Arc<Content>,
    /// The chunks that were asked for and haven't arrived, with their lengths.
    chunks: BTreeMap<ChunkId, u32>,
    /// How many bytes it lacks, as far as the index has been told.
    told_bytes: u64,
    /// How many have arrived since.
    arrived_bytes: u64,
    /// Whether any of it came from elsewhere.
    fetched: bool,
}

impl Active {
    /// Takes note of chunks that arrived, and answers the versions that now lack none of those
    /// that were asked for.
    fn take_in(&mut self, chunks: Vec<ChunkId>) -> Vec<VersionKey> {
        let mut ready = Vec::new();
        for chunk in chunks {
            for version in self.waiting.remove(&chunk).unwrap_or_default() {
                let Some(left) = self.left.get_mut(&version) else { continue };
                left.arrived_bytes += left.chunks.remove(&chunk).map_or(0, u64::from);
                left.fetched = true;
                if left.chunks.is_empty() {
                    ready.push(version);
                }
            }
        }
        ready
    }

    /// How much each version still lacks of which some has arrived since the index was last told.
    fn counts(&mut self) -> Vec<(VersionKey, u64)> {
        if self.recounted_at.is_some_and(|at| at.elapsed() < RECOUNT_EVERY) {
            return Vec::new();
        }
        self.recounted_at = Some(Instant::now());
        let moved = self.left.iter_mut().filter(|(_, left)| left.arrived_bytes > 0);
        let counts = moved.map(|(version, left)| {
            // A version isn't done before it was found to be.
            left.told_bytes = left.told_bytes.saturating_sub(left.arrived_bytes).max(1);
            left.arrived_bytes = 0;
            (*version, left.told_bytes)
        });
        counts.collect()
    }
}

impl Share {
    /// Looks through what is missing, for as long as the daemon runs.
    pub(crate) async fn fill(self: Arc<Self>) {
        loop {
            let share = Arc::clone(&self);
            let looked = tokio::task::spawn_blocking(move || share.look_through()).await;
            match looked {
                Ok(Ok(())) => {}
                Ok(Err(error)) => {
                    tracing::error!(cause = %kith_error_chain(&error), "the list of missing bytes can't be read");
                }
                Err(_) => return,
            }
            self.fetches.backlog().await;
        }
    }

    fn look_through(&self) -> Result<(), StoreError> {
        let mut active = self.backlog.active.lock().unwrap_or_else(PoisonError::into_inner);
        let active = &mut *active;
        let mut done = Vec::new();
        for version in active.take_in(self.fetches.take_finished()) {
            let Some(left) = active.left.get(&version) else { continue };
            let content = Arc::clone(&left.content);
            self.look_at(active, version, &content, &mut done)?;
        }
        if active.left.is_empty() {
            // Whatever was added or dropped meanwhile is found by reading the list from its start.
            active.after = 0;
        }
        while self.fetches.wanted() < LOW_WATER && active.waiting.len() < HIGH_WATER {
            let rows = self.store.incomplete(active.after, VERSIONS_A_READ)?;
            let Some(last) = rows.last() else { break };
            active.after = last.order;
            for row in rows {
                let version = (row.inode, row.version);
                if active.left.contains_key(&version) {
                    continue;
                }
                let content = Arc::new(row.content);
                let left = Outstanding {
                    content: Arc::clone(&content),
                    chunks: BTreeMap::new(),
                    told_bytes: row.absent_bytes,
                    arrived_bytes: 0,
                    fetched: false,
                };
                active.left.insert(version, left);
                self.look_at(active, version, &content, &mut done)?;
            }
        }
        let counts = active.counts();
        if done.is_empty() && counts.is_empty() {
            return Ok(());
        }
        let arrived = !done.is_empty();
        self.store.write(|tx| {
            done.iter().try_for_each(|(inode, version)| tx.mark_complete(*inode, *version))?;
            counts
                .iter()
                .try_for_each(|((inode, version), left)| tx.recount(*inode, *version, *left))
        })?;
        if arrived {
            self.hurry_merging();
        }
        self.announce();
        Ok(())
    }

    /// Wants what a version still lacks, or finds it done.
    fn look_at(
        &self,
        active: &mut Active,
        version: VersionKey,
        content: &Content,
        done: &mut Vec<VersionKey>,
    ) -> Result<(), StoreError> {
        let absent = self.store.absent(content, 0..content.size_bytes, CHUNKS_A_VERSION)?;
        if absent.is_empty() {
            let left = active.left.remove(&version);
            if left.is_some_and(|left| left.fetched) {
                let (share, bytes) = (self.name.clone(), content.size_bytes);
                self.events.send(Happening::FileFetched { share, bytes });
            }
            done.push(version);
            return Ok(());
        }
        if let Some(left) = active.left.get_mut(&version) {
            left.chunks = absent.iter().copied().collect();
        }
        for (chunk, _) in &absent {
            let waiting = active.waiting.entry(*chunk).or_default();
            if !waiting.contains(&version) {
                waiting.push(version);
            }
        }
        self.fetches.want(&absent, Urgency::Background);
        Ok(())
    }

    /// How many bytes this device still wants.
    pub(crate) fn missing_bytes(&self) -> Result<u64, StoreError> {
        self.store.absent_bytes()
    }

    /// What other devices are told of how this one is doing.
    pub(crate) fn progress(&self) -> Result<Message, StoreError> {
        let snapshot = self.store.snapshot()?;
        let knowledge = full_knowledge(&snapshot.state()?);
        drop(snapshot);
        let free_bytes = self.store.room()?.free_bytes;
        // Rounded, so that it isn't told anew for every byte that is written.
        let free_bytes = free_bytes >> 28 << 28;
        let (absent_bytes, meant) = (self.missing_bytes()?, self.store.meant()?);
        Ok(Message::Status { absent_bytes, free_bytes, knowledge, meant })
    }
}
