//! Has the disk begin on a long file while it is still being written, so that its sync has little
//! left to wait for.

use std::fs::File;
use std::num::NonZeroU64;
use std::ops::Range;

/// How much is written before the disk is told to begin.
const STEP_BYTES: u64 = 8 << 20;
/// Files up to here are left to the kernel: many are gone again before it writes them.
const LEFT_ALONE_BYTES: u64 = 32 << 20;

/// What was written and not yet begun on.
#[derive(Default)]
pub(super) struct Flow {
    /// The disk was told of everything up to here. What is written there again is left alone.
    begun_bytes: u64,
    written: Range<u64>,
    written_bytes: u64,
}

impl Flow {
    /// Notes a write, and answers what the disk is to begin on. Writes come in about their order.
    pub(super) fn wrote(&mut self, at: Range<u64>) -> Option<Range<u64>> {
        if at.start < self.begun_bytes {
            return None;
        }
        self.written_bytes += at.end - at.start;
        self.written = match self.written.is_empty() {
            true => at,
            false => self.written.start.min(at.start)..self.written.end.max(at.end),
        };
        if self.written_bytes < STEP_BYTES {
            return None;
        }
        let written = std::mem::take(&mut self.written);
        let dense = written.end - written.start <= 2 * std::mem::take(&mut self.written_bytes);
        if !dense || written.end < LEFT_ALONE_BYTES {
            return None;
        }
        self.begun_bytes = written.end;
        Some(written)
    }
}

/// Has the kernel begin to write a part of a file to the disk, and doesn't wait for it.
pub(super) fn begin(file: &File, part: Range<u64>) {
    // For Linux that is what to do with dirty pages that aren't needed. They stay readable, and
    // those under way stay in memory.
    let len = NonZeroU64::new(part.end - part.start);
    if let Err(cause) = rustix::fs::fadvise(file, part.start, len, rustix::fs::Advice::DontNeed) {
        tracing::debug!(%cause, "the disk could not be told to begin");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    /// What the disk is told of, in MiB.
    fn begun(writes: impl IntoIterator<Item = Range<u64>>) -> Vec<(u64, u64)> {
        let mut flow = Flow::default();
        let begun = writes.into_iter().filter_map(|at| flow.wrote(at));
        begun.map(|part| (part.start / MIB, part.end / MIB)).collect()
    }

    #[test]
    fn the_disk_begins_on_what_grows_and_on_nothing_else() {
        let pieces = |range: Range<u64>| range.map(|at| at * MIB..(at + 1) * MIB);
        assert_eq!(begun(pieces(0..31)), []);
        assert_eq!(begun(pieces(0..33)), [(24, 32)]);
        // Two threads hand them over, now and then in another order.
        let swapped = (0..48).map(|at| at ^ 1).map(|at| at * MIB..(at + 1) * MIB);
        assert_eq!(begun(swapped), [(24, 32), (32, 40), (40, 48)]);
        // Here and there in a large file.
        assert_eq!(begun((0..64).map(|at| at * 50 * MIB..(at * 50 + 1) * MIB)), []);
        // Again where it has begun.
        assert_eq!(begun(pieces(0..40).chain(pieces(24..40))).len(), 2);
    }
}
