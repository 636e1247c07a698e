//! The state of an overlay at one moment, which nothing changes any more.

use super::ReadError;
use super::cutter::Source;
use super::extent::{Data, Extents, Staging};
use super::overlay::{Base, Shared, read_parts};
use super::seek::zeros_of;
use kith_core::content::{Content, HOLE_ALIGN_BYTES};
use std::ops::Range;
use std::sync::Arc;

/// A frozen state of an overlay, to be cut.
pub struct Frozen {
    pub(crate) overlay: Arc<Shared>,
    pub(crate) base: Arc<Base>,
    pub(crate) base_bytes: u64,
    pub(crate) size_bytes: u64,
    pub(crate) extents: Extents,
    pub(crate) generation: u32,
}

/// A run of bytes that comes from a version as it is.
pub(crate) struct Known {
    /// Where it is in the file.
    pub(crate) range: Range<u64>,
    /// The version.
    pub(crate) content: Arc<Content>,
    /// Where the run begins in it.
    pub(crate) from: u64,
}

impl Frozen {
    /// The size of the file, in bytes.
    #[must_use]
    pub fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// What the state is based on.
    #[must_use]
    pub fn base(&self) -> &Base {
        &self.base
    }

    /// The runs that come from versions, in order.
    pub(crate) fn known(&self) -> Vec<Known> {
        let mut base = None;
        let mut known = Vec::new();
        for (range, source) in self.extents.parts(0..self.size_bytes) {
            match source {
                Some((Data::Content(content, from), skip)) => {
                    known.push(Known { range, content, from: from + skip });
                }
                None if range.start < self.base_bytes => {
                    let content = base.get_or_insert_with(|| Arc::new(self.base.content.clone()));
                    let range = range.start..range.end.min(self.base_bytes);
                    let from = range.start;
                    known.push(Known { range, content: Arc::clone(content), from });
                }
                _ => {}
            }
        }
        known
    }

    /// The staging file that holds most of what was written, and how much that is.
    pub(crate) fn largest_staging(&self) -> Option<(Arc<Staging>, u64)> {
        let mut sizes = std::collections::BTreeMap::new();
        for (_, extent) in self.extents.iter() {
            if let Data::File(staging) = &extent.data {
                let size = sizes.entry(staging.segment).or_insert((Arc::clone(staging), 0));
                size.1 += extent.len_bytes;
            }
        }
        sizes.into_values().max_by_key(|(_, size)| *size)
    }

    /// Whether the whole range lies in the staging file.
    pub(crate) fn lies_in(&self, range: Range<u64>, staging: &Arc<Staging>) -> bool {
        let inside = |source: &Option<(Data, u64)>| matches!(source, Some((Data::File(file), _)) if Arc::ptr_eq(file, staging));
        self.extents.parts(range).iter().all(|(_, source)| inside(source))
    }
}

impl Source for Frozen {
    type Error = ReadError;

    fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    fn read_exact_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), ReadError> {
        let parts = self.extents.parts(offset..offset + buffer.len() as u64);
        read_parts(&self.overlay.store, &self.base.content, self.base_bytes, parts, buffer)
    }

    fn zeros_until(&self, offset: u64) -> u64 {
        let mut end = offset;
        // Most often the answer is no, and found in the first block.
        let block = offset.saturating_add(HOLE_ALIGN_BYTES).min(self.size_bytes);
        if let [part] = &self.extents.parts(offset..block)[..] {
            let store = &self.overlay.store;
            match zeros_of(store, &self.base.content, self.base_bytes, part) {
                Ok(zeros) if zeros == block => {}
                _ => return offset,
            }
        }
        for part in self.extents.parts(offset..self.size_bytes) {
            let range_end = part.0.end;
            match zeros_of(&self.overlay.store, &self.base.content, self.base_bytes, &part) {
                Ok(zeros) => end = zeros,
                // Reading will say what is wrong.
                Err(_) => return end,
            }
            if end < range_end {
                break;
            }
        }
        end
    }
}
