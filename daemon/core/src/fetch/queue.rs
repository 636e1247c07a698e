//! What waits to be asked of one source, in the order in which it should be.

use super::Priority;
use crate::id::ChunkId;
use alloc::collections::BTreeSet;
use core::cmp::Reverse;

/// A chunk's place in the order: the most urgent first, then in the background the rarest, then
/// the one that was wanted first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Rank(Reverse<Priority>, Reverse<usize>, u64);

impl Rank {
    /// The more sources deny a chunk, the rarer it is.
    pub(super) fn new(priority: Priority, denials: usize, order: u64) -> Self {
        let rarity = if priority == Priority::Background { denials } else { 0 };
        Rank(Reverse(priority), Reverse(rarity), order)
    }
}

/// Chunks in the order of their ranks.
#[derive(Debug, Default)]
pub(super) struct Queue(BTreeSet<(Rank, ChunkId)>);

impl Queue {
    pub(super) fn insert(&mut self, rank: Rank, chunk: ChunkId) {
        self.0.insert((rank, chunk));
    }

    pub(super) fn remove(&mut self, rank: Rank, chunk: ChunkId) {
        self.0.remove(&(rank, chunk));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The priority of what stands first.
    pub(super) fn first_priority(&self) -> Option<Priority> {
        self.0.first().map(|(rank, _)| rank.0.0)
    }

    /// What stands first, if it has this priority.
    pub(super) fn first(&self, priority: Priority) -> Option<ChunkId> {
        self.0.first().filter(|(rank, _)| rank.0.0 == priority).map(|(_, chunk)| *chunk)
    }
}

#[cfg(test)]
impl Queue {
    pub(super) fn holds(&self, rank: Rank, chunk: ChunkId) -> bool {
        self.0.contains(&(rank, chunk))
    }
}
