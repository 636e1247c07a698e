//! What a former process left: finding, verifying and tidying it when the store is opened.

use super::extent::{Data, Extent, Staging};
use super::file::{Files, failed};
use super::journal::Entry;
use super::list::visit;
use super::overlay::{Base, Kept, Overlay};
use super::pack::Pack;
use super::record::PACK_HEAD_BYTES;
use super::spill::{Spill, logs_in};
use super::spill_replay::{Left, Replayed, replay};
use super::table::{self, Kind, Located, SegmentRow};
use super::{Bytes, ReadError};
use crate::database::Database;
use crate::index::key::blob;
use crate::index::record;
use crate::{Snapshot, Store, StoreError};
use kith_core::content::FILE_MAX_BYTES;
use kith_core::id::{ChunkId, Dot, InodeId};
use kith_core::index::IndexRead;
use kith_core::register::UnixTime;
use rustix::fs::SeekFrom;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::Path;
use std::sync::atomic::{AtomicU64, AtomicUsize};
use std::sync::{Arc, Mutex, PoisonError};

/// How many chunks are looked at in one go.
const SLICE: usize = 2048;
/// And how many inodes.
const INODES: usize = 256;

/// An overlay that a crash left.
pub struct Recovered {
    /// The file it belongs to.
    pub owner: InodeId,
    /// What it is based on.
    pub base: Base,
    /// Whether it is as of an fsync, or later, and so to be published.
    pub synced: bool,
    /// The time of modification that was noted when nobody wrote to it any more: it is whole, and
    /// to be published. If it is neither, it holds whatever was written or had reached the disk,
    /// and is to be put beside the file.
    pub closed: Option<UnixTime>,
    /// The overlay, to be published and then discarded.
    pub overlay: Overlay,
}

impl Bytes {
    /// Opens the segments in `directory`. After an unclean stop every chunk whose bytes may not
    /// have reached the disk is verified, and forgotten if it is damaged.
    pub(crate) fn open(
        directory: &Path,
        database: &Database,
        unclean: bool,
    ) -> Result<Bytes, StoreError> {
        let files = Files::open(directory)?;
        let (segments, overlays) = database
            .write(|handle| Ok((table::segments(handle.sql())?, table::overlays(handle.sql())?)))?;
        let mut used = BTreeSet::new();
        for (_, _, state) in &overlays {
            let entry = Entry::decode(state, |_| false)?;
            used.extend(entry.staging);
            used.extend(entry.extents.staging().into_keys());
        }
        let replayed = if unclean {
            let mut known = BTreeMap::new();
            let whole =
                |id: u64| segments.iter().any(|row| row.id == id && row.kind == Kind::Whole);
            replay(directory, &mut |id| {
                let made = known.entry(id);
                Arc::clone(made.or_insert_with(|| Staging::new(id, whole(id))))
            })?
        } else {
            let needed = logs_in(directory)?.into_iter().map(|log| (log, 0)).collect();
            Replayed { needed, ..Replayed::default() }
        };
        for left in replayed.left.values() {
            used.extend(left.entry.extents.staging().into_keys());
        }
        let last_overlay = overlays.last().map_or(0, |(id, _, _)| *id).max(replayed.last_overlay);
        let left = |row: &SegmentRow| row.kind == Kind::Staging && !used.contains(&row.id);
        let (unused, segments): (Vec<_>, Vec<_>) = segments.into_iter().partition(left);
        database.write(|handle| {
            unused.iter().try_for_each(|row| table::delete_segment(handle.sql(), row.id))
        })?;
        // Nothing durable names them any more, or the former process would not have left them.
        unused.iter().try_for_each(|row| files.unlink(row.id))?;
        let of_kind = |kind: Kind| segments.iter().filter(move |row| row.kind == kind);
        files.adopt(of_kind(Kind::Free).map(|row| row.id).collect())?;
        let mut bytes = Bytes {
            files,
            pack: Mutex::default(),
            written: Mutex::default(),
            discarded: Mutex::default(),
            verified: Mutex::default(),
            lists: Mutex::default(),
            gate: Arc::default(),
            overlays: Mutex::default(),
            spill: Spill::new(directory, replayed.needed),
            left: Mutex::new(replayed.left),
            next_overlay: AtomicU64::new(last_overlay + 1),
            memory_bytes: AtomicUsize::new(0),
            more_reserve_bytes: AtomicU64::new(0),
            lost: Vec::new(),
            damaged: Mutex::default(),
        };
        let open_pack = of_kind(Kind::OpenPack).next().copied();
        match open_pack {
            Some(pack) if !unclean && pack.durable_bytes >= PACK_HEAD_BYTES => {
                let file = bytes.files.get(pack.id).map_err(failed)?;
                file.set_len(pack.durable_bytes).map_err(failed)?;
                let pack = Pack { segment: pack.id, len_bytes: pack.durable_bytes };
                bytes.pack = Mutex::new(Some(pack));
            }
            Some(pack) => {
                // Whatever its end looks like, nothing is written over it.
                database.write(|handle| table::set_kind(handle.sql(), pack.id, Kind::Pack))?;
            }
            None => {}
        }
        if unclean {
            let known: BTreeSet<u64> = segments.iter().map(|row| row.id).collect();
            bytes.files.sweep(|segment| known.contains(&segment))?;
            bytes.lost = bytes.verify_undurable(database, &segments)?;
        }
        Ok(bytes)
    }

    /// Verifies all chunks that no fdatasync is known to have covered, and forgets damaged ones.
    fn verify_undurable(
        &self,
        database: &Database,
        segments: &[SegmentRow],
    ) -> Result<Vec<ChunkId>, StoreError> {
        let mut doubtful = BTreeMap::new();
        for row in segments {
            if !matches!(row.kind, Kind::OpenPack | Kind::Pack | Kind::Whole) {
                continue;
            }
            let len = match std::fs::metadata(self.files.path(row.id)) {
                Ok(data) => data.len(),
                Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => 0,
                Err(cause) => return Err(failed(cause)),
            };
            if len != row.durable_bytes {
                doubtful.insert(row.id, (len, len.min(row.durable_bytes)));
            }
        }
        let mut lost = Vec::new();
        let mut after = ChunkId([0; 32]);
        while !doubtful.is_empty() {
            let chunks =
                database.write(|handle| table::chunks_after(handle.sql(), &after, SLICE))?;
            let Some((last, _)) = chunks.last() else { break };
            after = *last;
            let in_doubt = |(_, at): &Located| {
                let end = at.offset.saturating_add(u64::from(at.len_bytes));
                doubtful.get(&at.segment).is_some_and(|(_, durable)| end > *durable)
            };
            let mut damaged = Vec::new();
            for located in chunks.into_iter().filter(in_doubt) {
                if !self.is_good(&located)? {
                    damaged.push(located);
                }
            }
            if !damaged.is_empty() {
                database.write(|handle| {
                    damaged
                        .iter()
                        .try_for_each(|row| table::delete_chunk(handle.sql(), row).map(drop))
                })?;
                lost.extend(damaged.into_iter().map(|(id, _)| id));
            }
        }
        for (segment, (len, _)) in &doubtful {
            if *len > 0 {
                self.files.sync(*segment)?;
            }
        }
        database.write(|handle| {
            doubtful
                .iter()
                .try_for_each(|(id, (len, _))| table::set_durable(handle.sql(), *id, *len))
        })?;
        if !lost.is_empty() {
            tracing::warn!(chunks = lost.len(), "bytes had not reached the disk before the stop");
        }
        Ok(lost)
    }
}

impl Store {
    /// The chunks that were found damaged when the store was opened after an unclean stop. They
    /// count as absent; versions that name them lack bytes again.
    #[must_use]
    pub fn lost_chunks(&self) -> &[ChunkId] {
        &self.inner.bytes.lost
    }

    /// The versions of files, whether a name leads to them or not, that consist of any of these
    /// chunks. Looks at every file.
    ///
    /// # Errors
    /// A [`StoreError`] if the disk or the index fails.
    pub fn versions_with(
        &self,
        chunks: &BTreeSet<ChunkId>,
    ) -> Result<Vec<(InodeId, Dot)>, StoreError> {
        let mut found = Vec::new();
        let mut after = i64::MIN;
        loop {
            let snapshot = self.snapshot()?;
            let handle = snapshot.handle();
            let sql = "SELECT id, register FROM inodes
                       WHERE kind = 1 AND id > ? ORDER BY id LIMIT ?";
            let inodes = handle.all(sql, (after, INODES as i64), |row| {
                let key = row.get(0)?;
                let id = handle.inode_id(key)?;
                Ok((key, record::read_inode(id, blob(row.get_ref(1)?)?)?))
            })?;
            let Some((last, _)) = inodes.last() else { return Ok(found) };
            after = *last;
            let reader = self.inner.bytes.reader(snapshot.sql());
            for (_, inode) in inodes {
                for (dot, version) in &inode.versions {
                    let mut named = false;
                    let seen = &mut |id: &ChunkId| named |= chunks.contains(id);
                    match visit(&version.content, &reader, seen) {
                        Ok(()) => {}
                        Err(ReadError::Store(cause)) => return Err(cause),
                        // A list that can't be read: nobody knows what it names.
                        Err(_) => named = true,
                    }
                    if named {
                        found.push((inode.id, *dot));
                    }
                }
            }
        }
    }

    /// Makes versions that name chunks lost by an unclean stop count as incomplete again.
    pub(crate) fn doubt_lost(&self) -> Result<(), StoreError> {
        let lost: BTreeSet<ChunkId> = self.lost_chunks().iter().copied().collect();
        if lost.is_empty() { Ok(()) } else { self.doubt(&lost).map(drop) }
    }

    /// Makes versions that name any of `chunks` count as incomplete again.
    pub(crate) fn doubt(&self, chunks: &BTreeSet<ChunkId>) -> Result<usize, StoreError> {
        let versions = self.versions_with(chunks)?;
        self.write(|transaction| {
            versions
                .iter()
                .try_for_each(|(inode, version)| transaction.mark_doubtful(*inode, *version))
        })?;
        Ok(versions.len())
    }

    /// The overlays that a former process left and nobody has taken over yet, in the order in
    /// which they were begun. If the process was killed and the machine went on, they are as they
    /// were. Else those that were fsynced come back as of their last fsync; of those that weren't,
    /// what had reached the disk.
    ///
    /// # Errors
    /// A [`StoreError`] if the disk or the index fails.
    pub fn recovered(&self) -> Result<Vec<Recovered>, StoreError> {
        let snapshot = self.snapshot()?;
        let mut rows = BTreeMap::new();
        for (id, synced, state) in table::overlays(snapshot.sql())? {
            rows.insert(id, (synced, state));
        }
        let segments = table::segments(snapshot.sql())?;
        let whole = segments.iter().filter(|row| row.kind == Kind::Whole);
        let whole: BTreeSet<u64> = whole.map(|row| row.id).collect();
        let bytes = &self.inner.bytes;
        bytes
            .overlays
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .keys()
            .for_each(|taken| drop(rows.remove(taken)));
        let mut recovered = BTreeMap::new();
        let left = std::mem::take(&mut *bytes.left.lock().unwrap_or_else(PoisonError::into_inner));
        for (id, left) in left {
            let synced = rows.remove(&id).is_some_and(|(synced, _)| synced);
            let published = is_published(&snapshot, &left)?;
            let left = left.settle(published);
            let kept =
                Kept { synced, as_synced: false, closed: left.closed, in_log: Some(left.log) };
            recovered.insert(id, self.recovered_from(id, left.entry, kept));
        }
        drop(snapshot);
        for (id, (synced, state)) in rows {
            let mut entry = Entry::decode(&state, |segment| whole.contains(&segment))?;
            if let (false, Some(segment)) = (synced, entry.staging) {
                self.find_written(&mut entry, segment)?;
            }
            let kept = Kept { synced, as_synced: synced, ..Kept::default() };
            recovered.insert(id, self.recovered_from(id, entry, kept));
        }
        let mut all = Vec::new();
        for recovered in recovered.into_values() {
            // What was published as it is, but for the note of it.
            let first = recovered.synced && recovered.overlay.shared.state().is_first();
            if recovered.closed.is_none() && !first && !recovered.overlay.is_changed() {
                recovered.overlay.discard()?;
            } else {
                all.push(recovered);
            }
        }
        Ok(all)
    }

    fn recovered_from(&self, id: u64, entry: Entry, kept: Kept) -> Recovered {
        let (owner, base) = (entry.owner, (*entry.base).clone());
        let overlay = self.overlay_from(id, entry, kept);
        Recovered { owner, base, synced: kept.synced, closed: kept.closed, overlay }
    }

    /// Adds what a staging file shows to have been written to it.
    fn find_written(&self, entry: &mut Entry, segment: u64) -> Result<(), StoreError> {
        let file = match self.inner.bytes.files.get(segment) {
            Ok(file) => file,
            Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(cause) => return Err(failed(cause)),
        };
        let staging = Staging::new(segment, false);
        let mut at = 0;
        while let Some((start, end)) = next_written(&file, at)? {
            let data = Data::File(Arc::clone(&staging));
            let end = end.min(FILE_MAX_BYTES);
            entry.extents.insert(start, Extent { len_bytes: end - start, generation: 0, data });
            entry.size_bytes = entry.size_bytes.max(end);
            at = end;
        }
        Ok(())
    }
}

/// Whether the transaction that was to make a version of an overlay was committed.
fn is_published(snapshot: &Snapshot, left: &Left) -> Result<bool, StoreError> {
    let Some(publishing) = &left.publishing else { return Ok(false) };
    let base = &publishing.version.base;
    let owner = left.entry.owner;
    let history = snapshot.handle().history_of(owner)?.into_iter().map(|(_, version)| version);
    let shown = snapshot.inode(owner)?.into_iter().flat_map(|state| state.inode.versions);
    let mut versions = shown.map(|(_, version)| version).chain(history);
    Ok(versions.any(|it| base.parents == [it.dot] && base.content == it.content))
}

/// The next run of a sparse file that holds data.
fn next_written(file: &File, from: u64) -> Result<Option<(u64, u64)>, StoreError> {
    let start = match rustix::fs::seek(file, SeekFrom::Data(from)) {
        Ok(start) => start,
        Err(rustix::io::Errno::NXIO) => return Ok(None),
        Err(errno) => return Err(errno.into()),
    };
    Ok(Some((start, rustix::fs::seek(file, SeekFrom::Hole(start))?)))
}
