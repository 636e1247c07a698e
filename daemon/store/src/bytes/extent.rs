//! Where the bytes of a file that is being written are.

use kith_core::content::Content;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// A sparse file that holds written bytes at the offsets they have in the share's file.
#[derive(Debug)]
pub(crate) struct Staging {
    /// The segment that it is.
    pub(crate) segment: u64,
    sealed: AtomicBool,
}

impl Staging {
    pub(crate) fn new(segment: u64, sealed: bool) -> Arc<Self> {
        Arc::new(Staging { segment, sealed: AtomicBool::new(sealed) })
    }

    /// Whether it has become a whole file, which chunks are named in.
    pub(crate) fn is_sealed(&self) -> bool {
        self.sealed.load(Ordering::Acquire)
    }

    pub(crate) fn seal(&self) {
        self.sealed.store(true, Ordering::Release);
    }
}

/// Where an extent's bytes are.
#[derive(Clone, Debug)]
pub(crate) enum Data {
    /// In memory: exactly the extent's bytes.
    Memory(Arc<Vec<u8>>),
    /// In a staging file, at the same offset.
    File(Arc<Staging>),
    /// They are zeros.
    Zero,
    /// In a version, from this offset of it on.
    Content(Arc<Content>, u64),
}

/// A run of bytes that were written, or otherwise changed, since the base.
#[derive(Clone, Debug)]
pub(crate) struct Extent {
    pub(crate) len_bytes: u64,
    /// How many freezes came before it.
    pub(crate) generation: u32,
    pub(crate) data: Data,
}

impl Extent {
    fn slice(&self, range: Range<u64>) -> Extent {
        let data = match &self.data {
            Data::Memory(bytes) => {
                // A copy, so that a small rest doesn't keep a large write in memory.
                Data::Memory(Arc::new(bytes[range.start as usize..range.end as usize].to_vec()))
            }
            Data::Content(content, from) => Data::Content(Arc::clone(content), from + range.start),
            other => other.clone(),
        };
        Extent { len_bytes: range.end - range.start, generation: self.generation, data }
    }

    fn memory_bytes(&self) -> usize {
        if let Data::Memory(bytes) = &self.data { bytes.len() } else { 0 }
    }

    /// Takes in what follows directly, if it is of the same kind.
    fn absorb(&mut self, next: &Extent) -> bool {
        if self.generation != next.generation {
            return false;
        }
        let joined = match (&mut self.data, &next.data) {
            (Data::Memory(bytes), Data::Memory(more)) => match Arc::get_mut(bytes) {
                Some(bytes) => {
                    bytes.extend_from_slice(more);
                    true
                }
                None => false,
            },
            (Data::File(a), Data::File(b)) => Arc::ptr_eq(a, b),
            (Data::Zero, Data::Zero) => true,
            (Data::Content(a, from), Data::Content(b, more)) => {
                *more == *from + self.len_bytes && (Arc::ptr_eq(a, b) || a == b)
            }
            _ => false,
        };
        if joined {
            self.len_bytes += next.len_bytes;
        }
        joined
    }
}

/// The changed runs of a file, by their offsets; they don't overlap.
#[derive(Clone, Debug, Default)]
pub(crate) struct Extents {
    runs: BTreeMap<u64, Extent>,
    memory_bytes: usize,
}

/// A part of a range: where it is, and the extent, if it was changed, with how far into it.
pub(crate) type Part = (Range<u64>, Option<(Data, u64)>);

impl Extents {
    /// How many bytes are held in memory.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.memory_bytes
    }

    /// Whether nothing was changed.
    pub(crate) fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// All runs, in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u64, &Extent)> {
        self.runs.iter().map(|(start, extent)| (*start, extent))
    }

    fn add(&mut self, start: u64, extent: Extent) {
        self.memory_bytes += extent.memory_bytes();
        self.runs.insert(start, extent);
    }

    fn take(&mut self, start: u64) -> Option<Extent> {
        let extent = self.runs.remove(&start)?;
        self.memory_bytes -= extent.memory_bytes();
        Some(extent)
    }

    /// Forgets what was changed in the range.
    pub(crate) fn remove(&mut self, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        let before = self.runs.range(..range.start).next_back();
        let first = before.filter(|(start, extent)| *start + extent.len_bytes > range.start);
        let mut starts: Vec<u64> = first.map(|(start, _)| *start).into_iter().collect();
        starts.extend(self.runs.range(range.clone()).map(|(start, _)| *start));
        for start in starts {
            let Some(extent) = self.take(start) else { continue };
            let end = start + extent.len_bytes;
            if start < range.start {
                self.add(start, extent.slice(0..range.start - start));
            }
            if end > range.end {
                self.add(range.end, extent.slice(range.end - start..extent.len_bytes));
            }
        }
    }

    /// Puts a run in place of whatever was in its range.
    pub(crate) fn insert(&mut self, start: u64, extent: Extent) {
        if extent.len_bytes == 0 {
            return;
        }
        self.remove(start..start + extent.len_bytes);
        let before = self.runs.range_mut(..start).next_back();
        let joined = before
            .filter(|(begin, before)| **begin + before.len_bytes == start)
            .is_some_and(|(_, before)| before.absorb(&extent));
        if joined {
            self.memory_bytes += extent.memory_bytes();
        } else {
            self.add(start, extent);
        }
    }

    /// Overwrites bytes in memory that nobody else sees; `false` if they don't lie in one such run.
    pub(crate) fn overwrite(&mut self, start: u64, bytes: &[u8], generation: u32) -> bool {
        let Some((begin, extent)) = self.runs.range_mut(..=start).next_back() else {
            return false;
        };
        let from = start - begin;
        if extent.generation != generation || from + bytes.len() as u64 > extent.len_bytes {
            return false;
        }
        let Data::Memory(held) = &mut extent.data else { return false };
        let Some(held) = Arc::get_mut(held) else { return false };
        held[from as usize..][..bytes.len()].copy_from_slice(bytes);
        true
    }

    /// The parts of a range in order: changed ones, and what lies between them.
    pub(crate) fn parts(&self, range: Range<u64>) -> Vec<Part> {
        let mut parts = Vec::new();
        let mut at = range.start;
        let before = self.runs.range(..range.start).next_back();
        let first = before.filter(|(start, extent)| *start + extent.len_bytes > range.start);
        for (start, extent) in first.into_iter().chain(self.runs.range(range.clone())) {
            let from = (*start).max(range.start);
            let to = (start + extent.len_bytes).min(range.end);
            if from >= to {
                continue;
            }
            if at < from {
                parts.push((at..from, None));
            }
            parts.push((from..to, Some((extent.data.clone(), from - start))));
            at = to;
        }
        if at < range.end {
            parts.push((at..range.end, None));
        }
        parts
    }

    /// Forgets what was changed before the freeze after `generation`; answers what is newer.
    pub(crate) fn newer_than(&self, generation: u32) -> Extents {
        let mut newer = Extents::default();
        for (start, extent) in self.iter().filter(|(_, extent)| extent.generation > generation) {
            newer.add(start, extent.clone());
        }
        newer
    }

    /// The runs in memory, by offset.
    pub(crate) fn in_memory(&self) -> Vec<(u64, Arc<Vec<u8>>)> {
        let memory = |(start, extent): (u64, &Extent)| match &extent.data {
            Data::Memory(bytes) => Some((start, Arc::clone(bytes))),
            _ => None,
        };
        self.iter().filter_map(memory).collect()
    }

    /// Says that all that was in memory is now in `staging`.
    pub(crate) fn move_to(&mut self, staging: &Arc<Staging>) {
        for extent in self.runs.values_mut() {
            if matches!(extent.data, Data::Memory(_)) {
                extent.data = Data::File(Arc::clone(staging));
            }
        }
        self.memory_bytes = 0;
    }

    /// The staging files that are used, each once.
    pub(crate) fn staging(&self) -> BTreeMap<u64, Arc<Staging>> {
        let file = |(_, extent): (u64, &Extent)| match &extent.data {
            Data::File(staging) => Some((staging.segment, Arc::clone(staging))),
            _ => None,
        };
        self.iter().filter_map(file).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn memory(bytes: &[u8], generation: u32) -> Extent {
        Extent {
            len_bytes: bytes.len() as u64,
            generation,
            data: Data::Memory(Arc::new(bytes.to_vec())),
        }
    }

    #[test]
    fn appended_bytes_make_one_run() {
        let mut extents = Extents::default();
        for at in 0..1000 {
            extents.insert(at, memory(&[at as u8], 0));
        }
        assert_eq!(extents.iter().count(), 1);
        assert_eq!(extents.memory_bytes(), 1000);
        extents.remove(10..20);
        assert_eq!(extents.iter().count(), 2);
        assert_eq!(extents.memory_bytes(), 990);
    }

    #[test]
    fn frozen_bytes_are_never_overwritten() {
        let mut extents = Extents::default();
        extents.insert(0, memory(b"frozen", 0));
        let frozen = extents.clone();
        assert!(!extents.overwrite(2, b"xx", 1), "another generation");
        assert!(!extents.overwrite(2, b"xx", 0), "shared");
        drop(frozen);
        assert!(extents.overwrite(2, b"xx", 0));
        assert!(!extents.overwrite(5, b"xx", 0), "beyond its end");
    }
}
