//! Which chunks have been read and found good since the store was opened.

use kith_core::id::ChunkId;
use std::collections::HashSet;

/// How many are remembered: some 4 MiB.
const KEPT: usize = 1 << 18;

/// A bounded memory of chunks that were verified. Forgetting one costs no more than verifying it
/// again.
#[derive(Default)]
pub(crate) struct Verified(HashSet<u64>);

fn short(id: &ChunkId, segment: u64, offset: u64) -> u64 {
    let mut first = [0; 8];
    first.copy_from_slice(&id.0[..8]);
    // Mixed so that a chunk that was moved is verified where it is now.
    u64::from_le_bytes(first) ^ (segment << 40 ^ offset).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

impl Verified {
    /// Whether the chunk was found good at this place.
    pub(crate) fn contains(&self, id: &ChunkId, segment: u64, offset: u64) -> bool {
        self.0.contains(&short(id, segment, offset))
    }

    /// Remembers that it was.
    pub(crate) fn insert(&mut self, id: &ChunkId, segment: u64, offset: u64) {
        if self.0.len() >= KEPT {
            self.0.clear();
        }
        self.0.insert(short(id, segment, offset));
    }
}
