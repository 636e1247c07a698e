//! Appending chunks to a shared file.

use super::Bytes;
use super::file::failed;
use super::record::{CHUNK_HEAD_BYTES, PACK_HEAD_BYTES, chunk_head, pack_head};
use super::table::{self, Kind, Located, Location};
use crate::StoreError;
use crate::database::Database;
use kith_core::id::ChunkId;
use std::os::unix::fs::FileExt;
use std::sync::PoisonError;

/// A pack that has this many bytes is closed, and a new one begun.
const PACK_MAX_BYTES: u64 = 128 << 20;

/// The pack that chunks are appended to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pack {
    pub(crate) segment: u64,
    pub(crate) len_bytes: u64,
}

impl Bytes {
    /// Appends chunks with one write, and answers where each is. Nothing names them yet.
    ///
    /// Not to be called within a transaction.
    pub(crate) fn append(
        &self,
        database: &Database,
        chunks: &[(ChunkId, &[u8])],
    ) -> Result<Vec<Located>, StoreError> {
        let bytes: u64 = chunks.iter().map(|(_, b)| b.len() as u64 + CHUNK_HEAD_BYTES).sum();
        self.make_sure_of_room(bytes)?;
        let mut open = self.pack.lock().unwrap_or_else(PoisonError::into_inner);
        let pack = match *open {
            Some(pack) if pack.len_bytes < PACK_MAX_BYTES => pack,
            full => self.begin_pack(database, full)?,
        };
        *open = Some(pack);
        let mut buffer = Vec::with_capacity(bytes as usize);
        let mut located = Vec::with_capacity(chunks.len());
        for (id, chunk) in chunks {
            let len_bytes = u32::try_from(chunk.len()).expect("a chunk has at most 4 MiB");
            buffer.extend_from_slice(&chunk_head(id, len_bytes));
            let offset = pack.len_bytes + buffer.len() as u64;
            buffer.extend_from_slice(chunk);
            located.push((*id, Location { segment: pack.segment, offset, len_bytes }));
        }
        let file = self.files.get(pack.segment).map_err(failed)?;
        file.write_all_at(&buffer, pack.len_bytes).map_err(failed)?;
        let len_bytes = pack.len_bytes + buffer.len() as u64;
        *open = Some(Pack { len_bytes, ..pack });
        // Before any row names what was written, so that a sync of the row syncs it too.
        self.note_written(pack.segment, len_bytes);
        Ok(located)
    }

    fn begin_pack(&self, database: &Database, full: Option<Pack>) -> Result<Pack, StoreError> {
        let segment = self.files.take(database)?;
        let head = pack_head(segment);
        let begun = self
            .files
            .get(segment)
            .and_then(|file| file.write_all_at(&head, 0))
            .map_err(failed)
            .and_then(|()| {
                database.write(|handle| {
                    if let Some(full) = full {
                        table::set_kind(handle.sql(), full.segment, Kind::Pack)?;
                    }
                    table::set_kind(handle.sql(), segment, Kind::OpenPack)
                })
            });
        if let Err(cause) = begun {
            self.files.give_back(segment);
            return Err(cause);
        }
        Ok(Pack { segment, len_bytes: PACK_HEAD_BYTES })
    }

    /// Remembers that a segment has bytes up to `len_bytes` which are not durable yet.
    pub(crate) fn note_written(&self, segment: u64, len_bytes: u64) {
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        let known = written.entry(segment).or_default();
        *known = len_bytes.max(*known);
    }
}
