//! Reading bytes by description and by name, and taking in what other devices sent.

use super::Bytes;
use super::list::{Lists, Pieces};
use super::table::{self, Located, Location};
use crate::snapshot::Snapshot;
use crate::{Store, StoreError};
use kith_core::codec::{List, decode_list};
use kith_core::content::{CHUNK_MAX_BYTES, Content, NodeRef, Piece};
use kith_core::id::ChunkId;
use rusqlite::Connection;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, PoisonError};

/// How many damaged chunks are remembered until [`Store::doubt_damaged`] is called.
const DAMAGED_MAX: usize = 4096;

/// Why bytes can't be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// These chunks, with their lengths, are not here; if lists are among them, more may turn out
    /// to be absent once those are here.
    #[error("{} chunks are not on this device", .0.len())]
    Absent(Vec<(ChunkId, u32)>),
    /// The chunk was damaged on the disk. It counts as absent from now on.
    #[error("the chunk {0} was damaged on the disk")]
    Damaged(ChunkId),
    /// The disk or the index failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why chunks from elsewhere were not taken in. None of them was.
#[derive(Debug, thiserror::Error)]
pub enum AddError {
    /// The bytes are not those of this name.
    #[error("the bytes are not those of the chunk {0}")]
    Wrong(ChunkId),
    /// The disk or the index failed, or is full.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Reads through one connection.
pub(crate) struct Reader<'a> {
    bytes: &'a Bytes,
    sql: &'a Connection,
}

/// What was read of a chunk that turned out to be damaged, so that it can be forgotten.
enum ChunkError {
    Damaged(Located),
    Store(StoreError),
}

impl Lists for Reader<'_> {
    fn list(&self, node: &NodeRef, height: u8) -> Result<Arc<List>, ReadError> {
        let cache = &self.bytes.lists;
        let cached = cache.lock().unwrap_or_else(PoisonError::into_inner).get(node, height);
        if let Some(list) = cached {
            return Ok(list);
        }
        let absent = || ReadError::Absent(vec![(node.id, node.len_bytes)]);
        let at = table::find_chunk(self.sql, &node.id)?.ok_or_else(absent)?;
        let bytes = match self.bytes.whole_chunk(&(node.id, at)) {
            Ok(bytes) => bytes,
            Err(ChunkError::Damaged((id, _))) => return Err(ReadError::Damaged(id)),
            Err(ChunkError::Store(cause)) => return Err(cause.into()),
        };
        let list = decode_list(&bytes, height, node.span_bytes).map_err(StoreError::Record)?;
        let list = Arc::new(list);
        cache.lock().unwrap_or_else(PoisonError::into_inner).insert(node, height, &list);
        Ok(list)
    }
}

impl Bytes {
    /// What reads through `sql`, which may be a transaction's connection.
    pub(crate) fn reader<'a>(&'a self, sql: &'a Connection) -> Reader<'a> {
        Reader { bytes: self, sql }
    }

    /// All of a chunk, verified.
    fn whole_chunk(&self, located: &Located) -> Result<Vec<u8>, ChunkError> {
        let (id, at) = located;
        let mut bytes = vec![0; at.len_bytes as usize];
        self.read_segment(located, 0, &mut bytes)?;
        if ChunkId::of(&bytes) != *id {
            return Err(ChunkError::Damaged(*located));
        }
        let mut verified = self.verified.lock().unwrap_or_else(PoisonError::into_inner);
        verified.insert(id, at.segment, at.offset);
        Ok(bytes)
    }

    /// Bytes of a chunk from `skip` on, verified if that wasn't done since the store was opened.
    fn part_of_chunk(
        &self,
        located: &Located,
        skip: usize,
        buffer: &mut [u8],
    ) -> Result<(), ChunkError> {
        let (id, at) = located;
        let verified = self.verified.lock().unwrap_or_else(PoisonError::into_inner);
        let known = verified.contains(id, at.segment, at.offset);
        drop(verified);
        if known {
            return self.read_segment(located, skip, buffer);
        }
        let whole = self.whole_chunk(located)?;
        buffer.copy_from_slice(&whole[skip..skip + buffer.len()]);
        Ok(())
    }

    fn read_segment(
        &self,
        located: &Located,
        skip: usize,
        buffer: &mut [u8],
    ) -> Result<(), ChunkError> {
        use std::io::ErrorKind::{NotFound, UnexpectedEof};
        let at = &located.1;
        let read = self
            .files
            .get(at.segment)
            .and_then(|file| file.read_exact_at(buffer, at.offset + skip as u64));
        read.map_err(|cause| match cause.raw_os_error().map(rustix::io::Errno::from_raw_os_error) {
            // A bad sector: what was there is lost, and is to be fetched again.
            Some(rustix::io::Errno::IO) => ChunkError::Damaged(*located),
            _ if matches!(cause.kind(), NotFound | UnexpectedEof) => ChunkError::Damaged(*located),
            _ => ChunkError::Store(StoreError::Io(cause)),
        })
    }

    /// Chunks that `content` needs for `range` and that are not here, each once and at most
    /// `limit`, with their lengths. Of a list that isn't here, or is damaged, the list itself.
    pub(crate) fn absent(
        &self,
        sql: &Connection,
        content: &Content,
        range: Range<u64>,
        limit: usize,
    ) -> Result<Vec<(ChunkId, u32)>, StoreError> {
        let reader = self.reader(sql);
        let mut pieces = Pieces::new(content, &reader);
        let mut absent = Vec::new();
        let mut named = std::collections::BTreeSet::new();
        let mut at = range.start;
        while absent.len() < limit && at < range.end {
            let found = match pieces.seek(at).and_then(|()| pieces.next()) {
                Ok(None) => break,
                Ok(Some((begin, piece))) => {
                    at = begin + piece.len_bytes();
                    match piece {
                        Piece::Chunk { id, len_bytes } if begin < range.end => {
                            table::find_chunk(sql, &id)?.is_none().then_some((id, len_bytes))
                        }
                        _ => None,
                    }
                }
                Err(ReadError::Store(cause)) => return Err(cause),
                Err(ReadError::Absent(_) | ReadError::Damaged(_)) => {
                    let list = pieces.skip_list();
                    at = pieces.at();
                    list.map(|node| (node.id, node.len_bytes))
                }
            };
            absent.extend(found.filter(|(id, _)| named.insert(*id)));
        }
        Ok(absent)
    }
}

impl Store {
    /// Up to `len` bytes of a version from `offset` on; fewer only at its end.
    ///
    /// Every chunk is verified against its name when it is first read after a start.
    ///
    /// # Errors
    /// A [`ReadError`]: all chunks of the range that are absent, or what failed.
    pub fn read(&self, content: &Content, offset: u64, len: usize) -> Result<Vec<u8>, ReadError> {
        let rest = content.size_bytes.saturating_sub(offset);
        let mut buffer = vec![0; usize::try_from(rest).unwrap_or(usize::MAX).min(len)];
        self.read_into(content, offset, &mut buffer)?;
        Ok(buffer)
    }

    /// Fills `buffer`, which lies within the content.
    pub(crate) fn read_into(
        &self,
        content: &Content,
        offset: u64,
        buffer: &mut [u8],
    ) -> Result<(), ReadError> {
        let Some(damaged) = self.read_once(content, offset, buffer)? else { return Ok(()) };
        // A chunk that is just being moved looks as if it were damaged: look again.
        match self.read_once(content, offset, buffer)? {
            None => Ok(()),
            Some(again) if again != damaged => Err(ReadError::Damaged(again.0)),
            Some(again) => Err(self.forget_damaged(&again)?),
        }
    }

    /// Reads; answers a damaged chunk if there is one.
    fn read_once(
        &self,
        content: &Content,
        offset: u64,
        buffer: &mut [u8],
    ) -> Result<Option<Located>, ReadError> {
        let bytes = &self.inner.bytes;
        let snapshot = self.snapshot()?;
        let reader = bytes.reader(snapshot.sql());
        let end = offset + buffer.len() as u64;
        let mut pieces = Pieces::new(content, &reader);
        let mut absent = Vec::new();
        let mut parts = Vec::new();
        let mut next = offset;
        while next < end {
            match pieces.seek(next).and_then(|()| pieces.next()) {
                Ok(None) => break,
                Ok(Some((begin, piece))) => {
                    next = begin + piece.len_bytes();
                    let Piece::Chunk { id, len_bytes } = piece else { continue };
                    match table::find_chunk(snapshot.sql(), &id)? {
                        Some(at) if at.len_bytes == len_bytes => parts.push((begin, (id, at))),
                        Some(_) => return Err(StoreError::Damaged("a chunk's length").into()),
                        None => absent.push((id, len_bytes)),
                    }
                }
                Err(ReadError::Absent(list)) => {
                    absent.extend(list);
                    pieces.skip_list();
                    next = pieces.at();
                }
                Err(ReadError::Damaged(id)) => {
                    let at = table::find_chunk(snapshot.sql(), &id)?;
                    return Ok(at.map(|at| (id, at)));
                }
                Err(cause) => return Err(cause),
            }
        }
        if !absent.is_empty() {
            return Err(ReadError::Absent(absent));
        }
        // Bulk reads hold no snapshot, so that the index's log can shrink.
        drop(snapshot);
        let mut filled = offset;
        let zero = |buffer: &mut [u8], range: Range<u64>| {
            buffer[(range.start - offset) as usize..(range.end - offset) as usize].fill(0);
        };
        for (begin, located) in parts {
            let from = begin.max(offset);
            let to = (begin + u64::from(located.1.len_bytes)).min(end);
            zero(buffer, filled..from);
            let part = &mut buffer[(from - offset) as usize..(to - offset) as usize];
            match bytes.part_of_chunk(&located, (from - begin) as usize, part) {
                Ok(()) => {}
                Err(ChunkError::Damaged(located)) => return Ok(Some(located)),
                Err(ChunkError::Store(cause)) => return Err(cause.into()),
            }
            filled = to;
        }
        zero(buffer, filled..end);
        Ok(None)
    }

    fn forget_damaged(&self, located: &Located) -> Result<ReadError, StoreError> {
        tracing::warn!(chunk = %located.0, segment = located.1.segment,
            "bytes were damaged on the disk and will be fetched again");
        self.inner.database.write(|handle| table::delete_chunk(handle.sql(), located))?;
        let mut damaged = self.inner.bytes.damaged.lock().unwrap_or_else(PoisonError::into_inner);
        if damaged.len() < DAMAGED_MAX {
            damaged.insert(located.0);
        }
        Ok(ReadError::Damaged(located.0))
    }

    /// Makes the versions that name chunks found damaged count as incomplete again, so that they
    /// are fetched. Answers how many versions those are. Looks at every file if there was damage.
    ///
    /// # Errors
    /// A [`StoreError`] if the disk or the index fails.
    pub fn doubt_damaged(&self) -> Result<usize, StoreError> {
        let damaged = {
            let damaged = &self.inner.bytes.damaged;
            std::mem::take(&mut *damaged.lock().unwrap_or_else(PoisonError::into_inner))
        };
        if damaged.is_empty() {
            return Ok(0);
        }
        self.doubt(&damaged)
    }

    /// A chunk's bytes, verified against its name, for other devices. One that is damaged is
    /// forgotten, and `None`.
    ///
    /// # Errors
    /// A [`StoreError`] if the disk or the index fails.
    pub fn chunk(&self, id: ChunkId) -> Result<Option<Vec<u8>>, StoreError> {
        let find = || -> Result<Option<Location>, StoreError> {
            table::find_chunk(self.snapshot()?.sql(), &id)
        };
        let mut before = None;
        loop {
            let Some(at) = find()? else { return Ok(None) };
            match self.inner.bytes.whole_chunk(&(id, at)) {
                Ok(bytes) => return Ok(Some(bytes)),
                Err(ChunkError::Store(cause)) => return Err(cause),
                Err(ChunkError::Damaged(located)) if before == Some(at) => {
                    self.forget_damaged(&located)?;
                    return Ok(None);
                }
                Err(ChunkError::Damaged(_)) => before = Some(at),
            }
        }
    }

    /// Whether the chunk is here.
    ///
    /// # Errors
    /// A [`StoreError`] if the index fails.
    pub fn has_chunk(&self, id: ChunkId) -> Result<bool, StoreError> {
        super::has_chunk(self.snapshot()?.sql(), id)
    }

    /// Takes in chunks from elsewhere, with one write and one transaction. Those that are here
    /// already are passed over.
    ///
    /// # Errors
    /// An [`AddError`]; nothing has been taken in then.
    pub fn add_chunks(&self, chunks: &[(ChunkId, &[u8])]) -> Result<(), AddError> {
        for (id, bytes) in chunks {
            let fits = !bytes.is_empty() && bytes.len() <= CHUNK_MAX_BYTES as usize;
            if !fits || ChunkId::of(bytes) != *id {
                return Err(AddError::Wrong(*id));
            }
        }
        Ok(self.store_chunks(chunks)?)
    }

    /// Stores chunks that are known to be what their names say.
    pub(crate) fn store_chunks(&self, chunks: &[(ChunkId, &[u8])]) -> Result<(), StoreError> {
        let mut new = Vec::with_capacity(chunks.len());
        let snapshot: Snapshot = self.glance()?;
        for (id, bytes) in chunks {
            if table::find_chunk(snapshot.sql(), id)?.is_none() {
                new.push((*id, *bytes));
            }
        }
        drop(snapshot);
        if new.is_empty() {
            return Ok(());
        }
        let mut located = self.inner.bytes.append(&self.inner.database, &new)?;
        located.sort_unstable_by_key(|(id, _)| *id);
        self.inner.database.write(|handle| {
            located.iter().try_for_each(|row| table::insert_chunk(handle.sql(), row))
        })
    }

    /// Chunks that `content` needs for `range` and that are not here, each once and at most
    /// `limit`, with their lengths. Of a list that isn't here, the list itself: what it names is
    /// known only once it is.
    ///
    /// # Errors
    /// A [`StoreError`] if the disk or the index fails.
    pub fn absent(
        &self,
        content: &Content,
        range: Range<u64>,
        limit: usize,
    ) -> Result<Vec<(ChunkId, u32)>, StoreError> {
        let snapshot = self.snapshot()?;
        let absent = self.inner.bytes.absent(snapshot.sql(), content, range, limit)?;
        drop(snapshot);
        for (id, _) in &absent {
            // A damaged list counts as absent, and has to be forgotten to be taken in again.
            self.chunk(*id)?;
        }
        Ok(absent)
    }
}

/// Lists, loaded one by one.
pub(crate) struct StoredLists<'a>(pub(crate) &'a Store);

impl Lists for StoredLists<'_> {
    fn list(&self, node: &NodeRef, height: u8) -> Result<Arc<List>, ReadError> {
        let snapshot = self.0.snapshot()?;
        let found = self.0.inner.bytes.reader(snapshot.sql()).list(node, height);
        drop(snapshot);
        if let Err(ReadError::Damaged(id)) = &found {
            // Looks once more, and forgets it if it really is.
            self.0.chunk(*id)?;
        }
        found
    }
}

impl super::Bytes {
    /// Whether the chunk's bytes are what they should be.
    pub(crate) fn is_good(&self, located: &Located) -> Result<bool, StoreError> {
        match self.whole_chunk(located) {
            Ok(_) => Ok(true),
            Err(ChunkError::Damaged(_)) => Ok(false),
            Err(ChunkError::Store(cause)) => Err(cause),
        }
    }
}

impl Store {
    /// Moves chunks to the open pack; damaged ones are forgotten.
    pub(crate) fn move_to_pack(&self, chunks: &[Located]) -> Result<(), StoreError> {
        let mut good = Vec::with_capacity(chunks.len());
        for located in chunks {
            match self.inner.bytes.whole_chunk(located) {
                Ok(bytes) => good.push((located, bytes)),
                Err(ChunkError::Damaged(located)) => {
                    self.forget_damaged(&located)?;
                }
                Err(ChunkError::Store(cause)) => return Err(cause),
            }
        }
        let batch: Vec<(ChunkId, &[u8])> =
            good.iter().map(|((id, _), bytes)| (*id, &bytes[..])).collect();
        let moved = self.inner.bytes.append(&self.inner.database, &batch)?;
        self.inner.database.write(|handle| {
            good.iter().zip(&moved).try_for_each(|(((id, from), _), (_, to))| {
                table::move_chunk(handle.sql(), id, from, to)
            })
        })
    }
}
