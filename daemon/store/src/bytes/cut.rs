//! Making a version's description from a frozen overlay: only what changed is cut again.

use super::ReadError;
use super::cutter::{Cutter, HOLE_MIN_BYTES, Source};
use super::extent::Staging;
use super::file::failed;
use super::frozen::{Frozen, Known};
use super::gate::Hold;
use super::list::{CutList, ListBuilder, Pieces};
use super::read::StoredLists;
use super::record::{Place, manifest};
use super::table::{self, Kind, Location};
use crate::{Store, StoreError};
use kith_core::content::{Content, HOLE_ALIGN_BYTES, Piece, Profile};
use kith_core::id::ChunkId;
use std::collections::BTreeSet;
use std::convert::Infallible;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

/// How much is read at a time where all is new, and where most of it may not even be here.
const AHEAD_BYTES: usize = 1 << 20;
const AHEAD_OF_CHANGE_BYTES: usize = 64 << 10;
/// Chunks are appended in batches of about this many bytes, or so many chunks.
const BATCH_BYTES: usize = 4 << 20;
const BATCH_CHUNKS: usize = 256;
/// What a staging file must at least hold to become a segment as it lies.
const WHOLE_MIN_BYTES: u64 = 256 << 10;
/// How many rows one transaction inserts, so that nobody waits for it for long.
const ROWS: usize = 2048;

/// A version's content, all of whose new chunks are stored. Nothing of it is collected as long as
/// this lives: publish the content before it is dropped.
pub struct Cut {
    /// The description.
    pub content: Content,
    _hold: Hold,
}

/// Why a frozen state can't be cut.
#[derive(Debug, thiserror::Error)]
pub enum CutError {
    /// These chunks of the base, with their lengths, are around what changed and not here. Once
    /// they are, more may turn out to be needed.
    #[error("{} chunks around what changed are not on this device", .0.len())]
    Absent(Vec<(ChunkId, u32)>),
    /// The chunk was damaged on the disk. It counts as absent from now on: cut again to learn what
    /// is needed.
    #[error("the chunk {0} was damaged on the disk")]
    Damaged(ChunkId),
    /// The disk or the index failed, or is full.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<ReadError> for CutError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Absent(chunks) => CutError::Absent(chunks),
            ReadError::Damaged(id) => CutError::Damaged(id),
            ReadError::Store(cause) => CutError::Store(cause),
        }
    }
}

impl Store {
    /// Describes a frozen state, and stores what of it is new. Where it comes from versions, their
    /// pieces are used again, and only the chunks around what changed are read and cut.
    ///
    /// The description depends on the bytes alone, not on how they came to be.
    ///
    /// This takes as long as reading what is new. No lock is held meanwhile.
    ///
    /// # Errors
    /// A [`CutError`]; the overlay stays as it is.
    pub fn cut(&self, frozen: &Frozen) -> Result<Cut, CutError> {
        let hold = self.inner.bytes.gate.hold();
        let known = frozen.known();
        if let [all] = &known[..]
            && all.range == (0..frozen.size_bytes)
            && all.from == 0
            && all.content.size_bytes == frozen.size_bytes
        {
            return Ok(Cut { content: (*all.content).clone(), _hold: hold });
        }
        let mut cutting = Cutting {
            frozen,
            description: ListBuilder::default(),
            sink: Sink::new(self, frozen),
            lists: Vec::new(),
        };
        cutting.run(&known)?;
        let Cutting { description, mut sink, mut lists, .. } = cutting;
        let content = description.finish(&mut |list| lists.push(list));
        for (id, bytes) in lists {
            sink.append(id, bytes)?;
        }
        sink.finish()?;
        Ok(Cut { content, _hold: hold })
    }
}

/// Bytes in memory.
struct Memory<'a>(&'a [u8]);

impl Source for Memory<'_> {
    type Error = Infallible;

    fn size_bytes(&self) -> u64 {
        self.0.len() as u64
    }

    fn read_exact_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), Infallible> {
        let from = usize::try_from(offset).expect("the range lies within what is in memory");
        buffer.copy_from_slice(&self.0[from..from + buffer.len()]);
        Ok(())
    }

    fn zeros_until(&self, offset: u64) -> u64 {
        offset
    }
}

impl Store {
    /// Describes bytes that no program wrote, and stores what of them is new. At most 4 MiB: for
    /// more there are overlays.
    ///
    /// # Errors
    /// A [`StoreError`] if the disk or the index fails, or is full.
    ///
    /// # Panics
    /// If there are more.
    pub fn cut_bytes(&self, bytes: &[u8]) -> Result<Cut, StoreError> {
        assert!(bytes.len() <= BATCH_BYTES, "bytes in memory are few");
        let hold = self.inner.bytes.gate.hold();
        let source = Memory(bytes);
        let mut cutter = Cutter::new(&source, AHEAD_BYTES);
        let (mut description, mut lists) = (ListBuilder::default(), Vec::new());
        let mut chunks = Vec::new();
        loop {
            let at = usize::try_from(cutter.at()).expect("it is within the bytes");
            let Ok(piece) = cutter.next();
            let Some(piece) = piece else { break };
            if let Piece::Chunk { id, len_bytes } = piece {
                chunks.push((id, &bytes[at..at + len_bytes as usize]));
            }
            description.push(piece, &mut |list| lists.push(list));
        }
        let content = description.finish(&mut |list| lists.push(list));
        chunks.extend(lists.iter().map(|(id, bytes)| (*id, &bytes[..])));
        let mut named = BTreeSet::new();
        chunks.retain(|(id, _)| named.insert(*id));
        self.store_chunks(&chunks)?;
        Ok(Cut { content, _hold: hold })
    }
}

/// One cut in progress.
struct Cutting<'a> {
    frozen: &'a Frozen,
    description: ListBuilder,
    sink: Sink<'a>,
    /// Lists that were cut and are not yet stored.
    lists: Vec<CutList>,
}

/// Where, in the file, pieces of a version end that can be used again: what comes later in the
/// version may be cut otherwise here, since what follows the run is another.
fn reusable_end(known: &Known, size_bytes: u64) -> u64 {
    let end = known.range.end;
    let ends_version = known.from + (end - known.range.start) == known.content.size_bytes;
    if end == size_bytes && ends_version {
        return end;
    }
    // A hole may begin that far before the run's end.
    (end - end % HOLE_ALIGN_BYTES).saturating_sub(HOLE_MIN_BYTES)
}

impl Cutting<'_> {
    /// Walks through the file, over the runs that come from versions with the same profile and at
    /// a distance that keeps blocks aligned: other runs are cut anew.
    fn run(&mut self, known: &[Known]) -> Result<(), CutError> {
        let size = self.frozen.size_bytes;
        let profile = Profile::for_size(size);
        let ahead = if known.is_empty() { AHEAD_BYTES } else { AHEAD_OF_CHANGE_BYTES };
        let mut cutter = Cutter::new(self.frozen, ahead);
        let mut runs = known.iter().filter(|run| {
            Profile::for_size(run.content.size_bytes) == profile
                && run.range.start.abs_diff(run.from).is_multiple_of(HOLE_ALIGN_BYTES)
        });
        let mut run = runs.next();
        let lists = StoredLists(self.sink.store);
        let mut walk = run.map(|run| Pieces::new(&run.content, &lists));
        while cutter.at() < size {
            let at = cutter.at();
            if let (Some(known), Some(pieces)) = (run, &mut walk) {
                let end = reusable_end(known, size);
                if at >= end {
                    run = runs.next();
                    walk = run.map(|run| Pieces::new(&run.content, &lists));
                    continue;
                }
                // The first block may hold other bytes too.
                if at >= known.range.start.next_multiple_of(HOLE_ALIGN_BYTES) {
                    let next = self.reuse(known, pieces, at, end)?;
                    if next > at {
                        cutter.seek(next);
                        continue;
                    }
                }
            }
            let Some(piece) = cutter.next()? else { break };
            if let Piece::Chunk { id, .. } = piece {
                self.sink.chunk(self.frozen, at, id, cutter.bytes())?;
            }
            self.push(piece)?;
        }
        Ok(())
    }

    /// Takes over the version's pieces from `at` up to `end`, if one begins just there. Answers
    /// where the last of them ends.
    fn reuse(
        &mut self,
        known: &Known,
        pieces: &mut Pieces<'_, &StoredLists<'_>>,
        mut at: u64,
        end: u64,
    ) -> Result<u64, CutError> {
        pieces.seek(at - known.range.start + known.from)?;
        while pieces.at() + known.range.start == at + known.from {
            let Some((_, piece)) = pieces.next()? else { break };
            if at + piece.len_bytes() > end {
                break;
            }
            at += piece.len_bytes();
            self.push(piece)?;
        }
        Ok(at)
    }

    fn push(&mut self, piece: Piece) -> Result<(), StoreError> {
        self.description.push(piece, &mut |list| self.lists.push(list));
        for (id, bytes) in self.lists.drain(..) {
            self.sink.append(id, bytes)?;
        }
        Ok(())
    }
}

/// Stores what was cut.
struct Sink<'a> {
    store: &'a Store,
    /// The file that may become a segment as it lies.
    staging: Option<Arc<Staging>>,
    /// Its chunks.
    places: Vec<Place>,
    batch: Vec<(ChunkId, Vec<u8>)>,
    batch_bytes: usize,
}

impl<'a> Sink<'a> {
    fn new(store: &'a Store, frozen: &Frozen) -> Self {
        let staging = frozen.largest_staging();
        let staging = staging.filter(|(file, size)| *size >= WHOLE_MIN_BYTES && !file.is_sealed());
        let staging = staging.map(|(file, _)| file);
        Sink { store, staging, places: Vec::new(), batch: Vec::new(), batch_bytes: 0 }
    }

    fn chunk(
        &mut self,
        frozen: &Frozen,
        offset: u64,
        id: ChunkId,
        bytes: &[u8],
    ) -> Result<(), StoreError> {
        let end = offset + bytes.len() as u64;
        if let Some(staging) = &self.staging
            && frozen.lies_in(offset..end, staging)
        {
            let len_bytes = u32::try_from(bytes.len()).expect("a chunk has at most 4 MiB");
            self.places.push(Place { id, offset, len_bytes });
            return Ok(());
        }
        self.append(id, bytes.to_vec())
    }

    fn append(&mut self, id: ChunkId, bytes: Vec<u8>) -> Result<(), StoreError> {
        self.batch_bytes += bytes.len();
        self.batch.push((id, bytes));
        if self.batch_bytes >= BATCH_BYTES || self.batch.len() >= BATCH_CHUNKS {
            self.flush()?;
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), StoreError> {
        let mut named = BTreeSet::new();
        let chunks = self.batch.iter().filter(|(id, _)| named.insert(*id));
        let chunks: Vec<(ChunkId, &[u8])> = chunks.map(|(id, bytes)| (*id, &bytes[..])).collect();
        self.store.store_chunks(&chunks)?;
        self.batch.clear();
        self.batch_bytes = 0;
        Ok(())
    }

    fn finish(mut self) -> Result<(), StoreError> {
        if let Some(staging) = self.staging.take() {
            let all = std::mem::take(&mut self.places);
            let all_bytes: u64 = all.iter().map(|place| u64::from(place.len_bytes)).sum();
            let new = self.new_places(all)?;
            let new_bytes: u64 = new.iter().map(|place| u64::from(place.len_bytes)).sum();
            if new_bytes >= WHOLE_MIN_BYTES && new_bytes >= all_bytes / 4 {
                self.seal(&staging, &new)?;
            } else {
                self.copy(&staging, &new)?;
            }
        }
        self.flush()
    }

    /// Those that are not here yet, each once, in the ids' order.
    fn new_places(&self, mut places: Vec<Place>) -> Result<Vec<Place>, StoreError> {
        places.sort_unstable_by_key(|place| (place.id, place.offset));
        places.dedup_by_key(|place| place.id);
        let mut new = Vec::with_capacity(places.len());
        for slice in places.chunks(ROWS) {
            let snapshot = self.store.snapshot()?;
            for place in slice {
                if table::find_chunk(snapshot.sql(), &place.id)?.is_none() {
                    new.push(*place);
                }
            }
        }
        Ok(new)
    }

    /// Makes the staging file a segment, as it lies.
    fn seal(&self, staging: &Arc<Staging>, places: &[Place]) -> Result<(), StoreError> {
        let segment = staging.segment;
        let inner = &self.store.inner;
        let file = inner.bytes.files.get(segment).map_err(failed)?;
        let offset = file.metadata().map_err(failed)?.len().next_multiple_of(8);
        let mut by_offset = places.to_vec();
        by_offset.sort_unstable_by_key(|place| place.offset);
        let manifest = manifest(&by_offset, offset);
        inner.bytes.make_sure_of_room(manifest.len() as u64)?;
        file.write_all_at(&manifest, offset).map_err(failed)?;
        // Before any row names what it holds, so that a sync of the row syncs it too.
        inner.bytes.note_written(segment, offset + manifest.len() as u64);
        inner.database.write(|handle| table::set_kind(handle.sql(), segment, Kind::Whole))?;
        staging.seal();
        for slice in places.chunks(ROWS) {
            inner.database.write(|handle| {
                slice.iter().try_for_each(|place| {
                    let Place { id, offset, len_bytes } = *place;
                    table::insert_chunk(
                        handle.sql(),
                        &(id, Location { segment, offset, len_bytes }),
                    )
                })
            })?;
        }
        Ok(())
    }

    /// Appends chunks of a staging file that isn't worth keeping to a pack.
    fn copy(&mut self, staging: &Arc<Staging>, places: &[Place]) -> Result<(), StoreError> {
        let file = self.store.inner.bytes.files.get(staging.segment).map_err(failed)?;
        for place in places {
            let mut bytes = vec![0; place.len_bytes as usize];
            file.read_exact_at(&mut bytes, place.offset).map_err(failed)?;
            self.append(place.id, bytes)?;
        }
        Ok(())
    }
}
