//! Lists that were read and decoded a short while ago.

use kith_core::codec::List;
use kith_core::content::NodeRef;
use kith_core::id::ChunkId;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The room for lists, by their encoded lengths; decoded they take about as much again.
const KEPT_BYTES: usize = 4 << 20;
/// And the most lists, since small ones take more than their bytes.
const KEPT: usize = 1024;

/// A bounded cache of lists.
#[derive(Default)]
pub(crate) struct ListCache {
    lists: BTreeMap<ChunkId, Cached>,
    bytes: usize,
    uses: u64,
}

struct Cached {
    list: Arc<List>,
    /// What the list was decoded as: another description may claim otherwise.
    decoded: (u8, NodeRef),
    used: u64,
}

impl ListCache {
    /// The list, if it is here and was decoded as just this.
    pub(crate) fn get(&mut self, node: &NodeRef, height: u8) -> Option<Arc<List>> {
        self.uses += 1;
        let cached = self.lists.get_mut(&node.id)?;
        cached.used = self.uses;
        (cached.decoded == (height, *node)).then(|| Arc::clone(&cached.list))
    }

    /// Keeps a list, in the place of those that weren't used for longest.
    pub(crate) fn insert(&mut self, node: &NodeRef, height: u8, list: &Arc<List>) {
        let cached = Cached { list: Arc::clone(list), decoded: (height, *node), used: self.uses };
        self.bytes += node.len_bytes as usize;
        if let Some(old) = self.lists.insert(node.id, cached) {
            self.bytes -= old.decoded.1.len_bytes as usize;
        }
        while self.bytes > KEPT_BYTES || self.lists.len() > KEPT {
            let oldest = self.lists.iter().min_by_key(|(_, cached)| cached.used);
            let Some(id) = oldest.map(|(id, _)| *id) else { return };
            if let Some(old) = self.lists.remove(&id) {
                self.bytes -= old.decoded.1.len_bytes as usize;
            }
        }
    }
}
