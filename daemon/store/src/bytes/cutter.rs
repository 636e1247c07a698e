//! Cuts a file's bytes into chunks and holes: a function of the bytes alone.

use fastcdc::v2020::{Normalization, cut, select_masks};
use kith_core::content::{HOLE_ALIGN_BYTES, Piece, Profile};
use kith_core::id::ChunkId;

/// The shortest hole. Shorter runs of zeros are data like any other.
pub(crate) const HOLE_MIN_BYTES: u64 = 64 << 10;

const BLOCK: usize = HOLE_ALIGN_BYTES as usize;
const ZEROS: [u8; BLOCK] = [0; BLOCK];

/// Bytes that can be cut.
pub(crate) trait Source {
    /// Why reading failed.
    type Error;
    /// How many bytes there are.
    fn size_bytes(&self) -> u64;
    /// Fills `buffer` from `offset`; the range lies within the size.
    fn read_exact_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), Self::Error>;
    /// The end of a range from `offset` on that is known to be zeros without being read;
    /// `offset` itself if none is.
    fn zeros_until(&self, offset: u64) -> u64;
}

/// Walks over a source and cuts one piece after the other.
///
/// The file is seen as blocks of [`HOLE_ALIGN_BYTES`], the last of which may be shorter. A longest
/// run of zero blocks that has at least [`HOLE_MIN_BYTES`] is a hole. What lies between holes is
/// cut by FastCDC, anew after each.
pub(crate) struct Cutter<'a, S> {
    source: &'a S,
    profile: Profile,
    strict: u64,
    relaxed: u64,
    ahead: usize,
    buffer: Vec<u8>,
    /// Where in the file the buffer begins.
    start: u64,
    /// Where the next piece begins.
    at: u64,
    /// The piece before it.
    last: (u64, usize),
    /// How far blocks have been looked at: a multiple of the block, or the end.
    scanned: u64,
    /// Where the run of zero blocks that ends at `scanned` begins.
    zero_from: Option<u64>,
    /// Where the next hole begins, once it is known.
    hole: Option<u64>,
}

fn is_zero(block: &[u8]) -> bool {
    block == &ZEROS[..block.len()]
}

impl<'a, S: Source> Cutter<'a, S> {
    /// A cutter at the source's first byte, which reads `ahead` bytes at a time.
    pub(crate) fn new(source: &'a S, ahead: usize) -> Self {
        let profile = Profile::for_size(source.size_bytes());
        let (strict, relaxed) = select_masks(profile.average_bytes as usize, Normalization::Level2);
        Cutter {
            source,
            profile,
            strict,
            relaxed,
            ahead,
            buffer: Vec::new(),
            start: 0,
            at: 0,
            last: (0, 0),
            scanned: 0,
            zero_from: None,
            hole: None,
        }
    }

    /// Where the next piece begins.
    pub(crate) fn at(&self) -> u64 {
        self.at
    }

    /// Goes on at `offset`, which must be where a piece of the source begins, and not after the
    /// first [`HOLE_MIN_BYTES`] of a hole.
    pub(crate) fn seek(&mut self, offset: u64) {
        self.buffer.clear();
        self.start = offset;
        self.at = offset;
        // A run of zeros that reaches back before a piece's begin is no hole, or it would have
        // begun the piece; so it doesn't matter that its first blocks aren't counted.
        self.scanned = offset.next_multiple_of(HOLE_ALIGN_BYTES).min(self.source.size_bytes());
        self.zero_from = None;
        self.hole = None;
    }

    /// The next piece; `None` at the end.
    pub(crate) fn next(&mut self) -> Result<Option<Piece>, S::Error> {
        let size = self.source.size_bytes();
        if self.at >= size {
            return Ok(None);
        }
        let reach = self.at.saturating_add(u64::from(self.profile.max_bytes));
        self.look_for_hole(reach)?;
        let begin = self.at;
        if self.hole == Some(begin) {
            self.at = self.hole_end()?;
            self.last = (begin, 0);
            return Ok(Some(Piece::Hole { len_bytes: self.at - begin }));
        }
        let end = reach.min(self.hole.unwrap_or(size)).min(size);
        self.fill(end)?;
        let from = self.index(begin);
        let window = &self.buffer[from..self.index(end)];
        let (_, len) = cut(
            window,
            self.profile.min_bytes as usize,
            self.profile.average_bytes as usize,
            self.profile.max_bytes as usize,
            self.strict,
            self.relaxed,
            self.strict << 1,
            self.relaxed << 1,
        );
        let id = ChunkId::of(&window[..len]);
        self.at += len as u64;
        self.last = (begin, len);
        Ok(Some(Piece::Chunk { id, len_bytes: len as u32 }))
    }

    /// The bytes of the chunk that [`next`](Self::next) has just cut.
    pub(crate) fn bytes(&self) -> &[u8] {
        let from = self.index(self.last.0);
        &self.buffer[from..from + self.last.1]
    }

    fn index(&self, offset: u64) -> usize {
        usize::try_from(offset - self.start).expect("the buffer was filled up to here")
    }

    /// Looks at blocks until a hole is found or none can begin before `reach`.
    fn look_for_hole(&mut self, reach: u64) -> Result<(), S::Error> {
        let size = self.source.size_bytes();
        let last = reach.saturating_add(HOLE_MIN_BYTES).min(size);
        while self.hole.is_none() && self.scanned < last {
            let end = (self.scanned + HOLE_ALIGN_BYTES).min(size);
            self.fill(end)?;
            let zero = is_zero(&self.buffer[self.index(self.scanned)..self.index(end)]);
            let from = self.scanned;
            self.scanned = end;
            if zero {
                let from = *self.zero_from.get_or_insert(from);
                if end - from >= HOLE_MIN_BYTES {
                    self.hole = Some(from);
                }
            } else {
                self.zero_from = None;
            }
        }
        Ok(())
    }

    /// The end of the hole that begins at `at` and is known up to `scanned`.
    fn hole_end(&mut self) -> Result<u64, S::Error> {
        let size = self.source.size_bytes();
        let mut end = self.scanned;
        while end < size {
            let known = self.source.zeros_until(end).min(size);
            let known = if known == size { size } else { known - known % HOLE_ALIGN_BYTES };
            if known > end {
                end = known;
                continue;
            }
            self.at = end;
            let next = (end + HOLE_ALIGN_BYTES).min(size);
            self.fill(next)?;
            if !is_zero(&self.buffer[self.index(end)..self.index(next)]) {
                break;
            }
            end = next;
        }
        self.scanned = end;
        self.zero_from = None;
        self.hole = None;
        Ok(end)
    }

    /// Reads so that the buffer holds the bytes from `at` to `end`.
    fn fill(&mut self, end: u64) -> Result<(), S::Error> {
        let have = self.start + self.buffer.len() as u64;
        if end <= have && self.at >= self.start {
            return Ok(());
        }
        if self.at > have || self.at < self.start {
            self.buffer.clear();
            self.start = self.at;
        } else {
            // What was cut already makes room for what comes.
            self.buffer.drain(..usize::try_from(self.at - self.start).expect("within the buffer"));
            self.start = self.at;
        }
        let have = self.start + self.buffer.len() as u64;
        let to = end.max(have.saturating_add(self.ahead as u64)).min(self.source.size_bytes());
        let old = self.buffer.len();
        self.buffer.resize(old + (to - have) as usize, 0);
        let read = self.source.read_exact_at(have, &mut self.buffer[old..]);
        if read.is_err() {
            self.buffer.truncate(old);
        }
        read
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use kith_core::content::CHUNK_MAX_BYTES;
    use proptest::prelude::*;

    /// Bytes in memory, of which some zeros may be known without reading.
    pub(crate) struct Plain<'a> {
        pub(crate) bytes: &'a [u8],
        pub(crate) tell_zeros: bool,
    }

    impl Source for Plain<'_> {
        type Error = std::convert::Infallible;
        fn size_bytes(&self) -> u64 {
            self.bytes.len() as u64
        }
        fn read_exact_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), Self::Error> {
            buffer.copy_from_slice(&self.bytes[offset as usize..][..buffer.len()]);
            Ok(())
        }
        fn zeros_until(&self, offset: u64) -> u64 {
            let rest = &self.bytes[offset as usize..];
            match self.tell_zeros {
                true => offset + rest.iter().take_while(|byte| **byte == 0).count() as u64,
                false => offset,
            }
        }
    }

    /// Pseudo-random bytes that are the same everywhere.
    pub(crate) fn noise(seed: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        let mut hasher = blake3::Hasher::new();
        hasher.update(&seed.to_le_bytes());
        hasher.finalize_xof().fill(&mut bytes);
        bytes
    }

    pub(crate) fn pieces(bytes: &[u8], tell_zeros: bool, ahead: usize) -> Vec<Piece> {
        let source = Plain { bytes, tell_zeros };
        let mut cutter = Cutter::new(&source, ahead);
        let mut pieces = Vec::new();
        while let Some(piece) = cutter.next().unwrap() {
            if let Piece::Chunk { id, len_bytes } = piece {
                assert_eq!(cutter.bytes().len(), len_bytes as usize);
                assert_eq!(ChunkId::of(cutter.bytes()), id);
            }
            pieces.push(piece);
        }
        pieces
    }

    fn rebuild(bytes: &[u8], pieces: &[Piece]) {
        let mut at = 0;
        for piece in pieces {
            let range = &bytes[at..at + piece.len_bytes() as usize];
            match piece {
                Piece::Chunk { id, .. } => assert_eq!(*id, ChunkId::of(range)),
                Piece::Hole { .. } => assert!(range.iter().all(|byte| *byte == 0)),
            }
            at += range.len();
        }
        assert_eq!(at, bytes.len());
    }

    fn lengths(pieces: &[Piece]) -> Vec<i64> {
        let signed = |piece: &Piece| match piece {
            Piece::Chunk { len_bytes, .. } => i64::from(*len_bytes),
            Piece::Hole { len_bytes } => -(*len_bytes as i64),
        };
        pieces.iter().map(signed).collect()
    }

    #[test]
    fn cut_points_stay_what_they_were_for_ever() {
        // Chunks are positive, holes negative. If this fails, files on all devices would be cut
        // anew: the change needs a version of the format.
        let mut holed = noise(2, 400_000);
        holed[100_000..250_000].fill(0);
        let cases: [(&[u8], &[i64]); 4] = [
            (b"", &[]),
            (b"one small file", &[14]),
            (&noise(1, 300_000), GOLDEN_NOISE),
            (&holed, GOLDEN_HOLED),
        ];
        for (bytes, expected) in cases {
            assert_eq!(lengths(&pieces(bytes, false, 1 << 20)), expected, "{}", bytes.len());
        }
    }

    const GOLDEN_NOISE: &[i64] = &[34_830, 41_830, 50_121, 40_288, 46_651, 60_605, 25_675];
    const GOLDEN_HOLED: &[i64] =
        &[46_048, 53_347, 3005, -147_456, 36_493, 28_345, 46_929, 24_847, 13_530];

    #[test]
    fn a_hole_is_a_whole_run_of_zero_blocks_of_64_kib() {
        let kib = 1 << 10;
        let cases: [(&str, usize, std::ops::Range<usize>, &[i64]); 7] = [
            ("all zeros", 200 * kib, 0..200 * kib, &[-(200 << 10)]),
            ("just long enough", 96 * kib, 4 * kib..68 * kib, &[4 << 10, -(64 << 10), 28 << 10]),
            ("a byte short", 8 * kib + 65_536, 4 * kib..4 * kib + 65_535, &[8 * 1024 + 65_536]),
            ("misaligned", 76 * kib, 5 * kib..71 * kib, &[76 << 10]),
            ("up to the end", 68 * kib + 1, 4 * kib..68 * kib + 1, &[4 << 10, -(65_537)]),
            ("short at the end", 68 * kib - 1, 4 * kib..68 * kib - 1, &[68 * 1024 - 1]),
            ("short file", 60 * kib, 0..60 * kib, &[60 << 10]),
        ];
        for (name, len, zeros, expected) in cases {
            let mut bytes = vec![7; len];
            bytes[zeros].fill(0);
            assert_eq!(lengths(&pieces(&bytes, false, 1 << 20)), expected, "{name}");
        }
    }

    #[test]
    fn chunks_keep_within_their_profile() {
        let bytes = noise(3, 3 << 20);
        let cut = pieces(&bytes, false, 1 << 20);
        let profile = Profile::for_size(bytes.len() as u64);
        let (_, most) = cut.split_last().unwrap();
        for piece in most {
            let len = piece.len_bytes();
            assert!(len >= u64::from(profile.min_bytes) && len <= u64::from(profile.max_bytes));
        }
        let average = bytes.len() / cut.len();
        assert!((20_000..60_000).contains(&average), "{average}");
        for size in [0, 1 << 26, 1 << 29, 1 << 36, u64::MAX] {
            assert!(Profile::for_size(size).max_bytes <= CHUNK_MAX_BYTES);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]
        #[test]
        fn how_bytes_are_read_does_not_matter(
            seed in any::<u64>(),
            runs in proptest::collection::vec((any::<bool>(), 1_usize..50), 0..8),
            odd in 0_usize..5000,
            ahead in prop_oneof![Just(1_usize), Just(5000), Just(70_000), Just(1 << 20)],
        ) {
            let mut bytes = Vec::new();
            for (data, blocks) in runs {
                let len = blocks * BLOCK;
                bytes.extend(if data { noise(seed, len) } else { vec![0; len] });
            }
            bytes.extend(noise(seed ^ 1, odd));
            let known = pieces(&bytes, true, 1 << 20);
            prop_assert_eq!(&known, &pieces(&bytes, false, ahead));
            rebuild(&bytes, &known);
        }
    }
}
