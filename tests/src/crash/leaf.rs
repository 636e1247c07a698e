//! What may be found in one file after a crash, by what was done with it and acknowledged.

/// Contents that a file may have: a known one, over any part of which later changes may lie.
#[derive(Clone, Debug)]
pub struct Mix {
    base: Vec<u8>,
    writes: Vec<(usize, Vec<u8>)>,
    /// From here on zeros may lie: something was cut off, or turned into zeros.
    zeros_from: usize,
    least_len: usize,
    most_len: usize,
}

impl Mix {
    /// Just these bytes, until something is written over them.
    pub fn new(base: &[u8]) -> Mix {
        let (base, len) = (base.to_vec(), base.len());
        Mix { base, writes: Vec::new(), zeros_from: len, least_len: len, most_len: len }
    }

    fn write(&mut self, offset: usize, bytes: &[u8]) {
        self.writes.push((offset, bytes.to_vec()));
        self.most_len = self.most_len.max(offset + bytes.len());
    }

    fn resize(&mut self, len: usize) {
        self.zeros_from = self.zeros_from.min(len);
        self.least_len = self.least_len.min(len);
        self.most_len = self.most_len.max(len);
    }

    fn zero(&mut self, offset: usize) {
        self.zeros_from = self.zeros_from.min(offset);
    }

    /// Whether the file may have these bytes.
    pub fn allows(&self, found: &[u8]) -> bool {
        if found.len() < self.least_len || found.len() > self.most_len {
            return false;
        }
        let mut explained = vec![false; found.len()];
        for (at, byte) in found.iter().enumerate() {
            explained[at] = self.base.get(at).map_or(*byte == 0, |base| base == byte)
                || (at >= self.zeros_from && *byte == 0);
        }
        for (offset, bytes) in &self.writes {
            for (at, byte) in bytes.iter().enumerate() {
                if found.get(offset + at) == Some(byte) {
                    explained[offset + at] = true;
                }
            }
        }
        explained.into_iter().all(|explained| explained)
    }
}

/// How much a crash may take.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Loss {
    /// The daemon alone: what the kernel has stays.
    Process,
    /// All that was not flushed to the disk.
    Power,
}

/// One file.
#[derive(Clone, Debug)]
pub struct Leaf {
    /// What programs see.
    pub now: Vec<u8>,
    /// Whole contents that may be in its place, the one that can't be lost first.
    whole: Vec<Vec<u8>>,
    /// The content as of the last fsync of this round, with what was written since.
    synced: Option<Mix>,
    /// What must be found in its place or beside it.
    due: Option<Mix>,
    /// It has a version that can't be lost.
    sure: bool,
    /// It was closed, as far as the daemon can see, and not changed since.
    closed: bool,
}

impl Leaf {
    /// A file that was just made.
    pub fn made() -> Leaf {
        Leaf {
            now: Vec::new(),
            whole: Vec::new(),
            synced: None,
            due: None,
            sure: false,
            closed: false,
        }
    }

    /// A file that was found after a crash, and is durable.
    pub fn found(bytes: Vec<u8>) -> Leaf {
        Leaf {
            whole: vec![bytes.clone()],
            now: bytes,
            synced: None,
            due: None,
            sure: true,
            closed: false,
        }
    }

    fn mixes(&mut self) -> impl Iterator<Item = &mut Mix> {
        self.synced.iter_mut().chain(&mut self.due)
    }

    /// Bytes are about to be written.
    pub fn write(&mut self, offset: usize, bytes: &[u8]) {
        self.closed = false;
        if self.now.len() < offset + bytes.len() {
            self.now.resize(offset + bytes.len(), 0);
        }
        self.now[offset..offset + bytes.len()].copy_from_slice(bytes);
        self.mixes().for_each(|mix| mix.write(offset, bytes));
    }

    /// The size is about to be set.
    pub fn resize(&mut self, len: usize) {
        self.closed = false;
        self.now.resize(len, 0);
        self.mixes().for_each(|mix| mix.resize(len));
    }

    /// A range within the file is about to be turned into zeros.
    pub fn zero(&mut self, offset: usize, len: usize) {
        self.closed = false;
        self.now[offset..offset + len].fill(0);
        self.mixes().for_each(|mix| mix.zero(offset));
    }

    /// An fsync is about to be asked for: the state of now may come back, and what is written later.
    pub fn syncing(&mut self) {
        self.whole.push(self.now.clone());
        if self.synced.is_none() {
            self.synced = Some(Mix::new(&self.now));
            // Whatever was before may still be what is found, in case the fsync never got there.
        }
    }

    /// An fsync was acknowledged.
    pub fn was_synced(&mut self) {
        self.whole = vec![self.now.clone()];
        self.synced = Some(Mix::new(&self.now));
        self.due = None;
        self.sure = true;
    }

    /// The last handle that writes is about to be closed.
    pub fn closing(&mut self) {
        self.whole.push(self.now.clone());
    }

    /// It was closed.
    pub fn was_closed(&mut self, loss: Loss) {
        // A file that was emptied may be about to be written by somebody else, such as a shell's child.
        let emptied = self.now.is_empty() && self.whole.iter().any(|whole| !whole.is_empty());
        if loss == Loss::Process && !emptied {
            self.due = Some(Mix::new(&self.now));
            self.closed = true;
        }
    }

    /// All that was written so far was handed to the daemon.
    pub fn was_handed(&mut self, loss: Loss) {
        if loss == Loss::Process && !self.now.is_empty() {
            self.due = Some(Mix::new(&self.now));
        }
    }

    /// Whether these bytes may be found under its name.
    pub fn allows(&self, found: &[u8]) -> bool {
        if self.closed {
            return self.now == found;
        }
        self.whole.iter().any(|whole| whole == found)
            || self.synced.as_ref().is_some_and(|mix| mix.allows(found))
    }

    /// Whether it has a version that can't be lost.
    pub fn is_sure(&self) -> bool {
        self.sure || self.closed
    }

    /// Whether it was closed in this round, and neither found before nor fsynced.
    pub fn is_unsynced(&self) -> bool {
        !self.sure
    }

    /// What is missing of what has to be found in its place or beside it, if anything.
    pub fn lacks(&self, found: Option<&[u8]>, beside: &[Vec<u8>]) -> bool {
        // Of a file that may be empty there may be nothing to bring back.
        let Some(due) = self.due.as_ref().filter(|due| !due.allows(&[])) else { return false };
        let mut all = found.into_iter().chain(beside.iter().map(Vec::as_slice));
        !all.any(|bytes| due.allows(bytes))
    }

    /// What may be there, in a few words.
    pub fn told(&self) -> String {
        let lens: Vec<usize> = self.whole.iter().map(Vec::len).collect();
        let mix = |mix: &Option<Mix>| {
            mix.as_ref().map(|mix| (mix.least_len, mix.most_len, mix.writes.len()))
        };
        format!(
            "whole with {lens:?} bytes, synced {:?}, due {:?}, sure {}, now {}",
            mix(&self.synced),
            mix(&self.due),
            self.sure,
            self.now.len()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_whole_until_it_is_fsynced() {
        let mut leaf = Leaf::found(b"before".to_vec());
        leaf.write(2, b"XX");
        leaf.closing();
        for (found, allowed) in [(b"before", true), (b"beXXre", true), (b"beXore", false)] {
            assert_eq!(leaf.allows(found), allowed);
        }
        leaf.was_closed(Loss::Power);
        assert!(!leaf.lacks(Some(b"before"), &[]));
        leaf.was_closed(Loss::Process);
        assert!(!leaf.allows(b"before") && leaf.allows(b"beXXre"));
        leaf.write(0, b"Y");
        assert!(leaf.allows(b"before") && leaf.allows(b"beXXre") && !leaf.allows(b"YeXXre"));
        assert!(leaf.lacks(Some(b"before"), &[]));
        assert!(!leaf.lacks(Some(b"before"), &[b"YeXXre".to_vec()]));
    }

    #[test]
    fn what_is_written_after_an_fsync_may_be_there_in_any_part() {
        let mut leaf = Leaf::made();
        leaf.write(0, b"abcdef");
        leaf.syncing();
        leaf.was_synced();
        leaf.write(4, b"XYZ");
        for (found, allowed) in [
            (&b"abcdef"[..], true),
            (b"abcdXf", true),
            (b"abcdXYZ", true),
            (b"abcdef\0", true),
            (b"abcde", false),
            (b"XbcdXYZ", false),
            (b"abcdefgh", false),
        ] {
            assert_eq!(leaf.allows(found), allowed, "{found:?}");
        }
    }

    #[test]
    fn what_was_handed_over_is_due_in_its_place_or_beside() {
        let mut leaf = Leaf::found(b"old".to_vec());
        leaf.write(0, b"new");
        leaf.was_handed(Loss::Process);
        assert!(leaf.lacks(Some(b"old"), &[]));
        assert!(!leaf.lacks(Some(b"old"), &[b"new".to_vec()]));
        leaf.was_synced();
        assert!(!leaf.lacks(Some(b"new"), &[]));
    }
}
