//! A file of the share that is being written: what was changed, over the version it is based on.

mod flow;
mod noted;

use super::ReadError;
use super::extent::{Data, Extent, Extents, Part, Staging};
use super::file::failed;
use super::frozen::Frozen;
use super::journal::Entry;
use super::spill_record::Record;
use super::table::{self, Kind};
use crate::{Store, StoreError};
use kith_core::content::{Content, FILE_MAX_BYTES, HOLE_ALIGN_BYTES};
use kith_core::id::{Dot, InodeId};
use kith_core::register::UnixTime;
use kith_core::vector::VersionVector;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What one overlay holds in memory before it is given a file.
const MEMORY_MAX_BYTES: usize = 128 << 10;
/// What all overlays together hold in memory.
const MEMORY_TOTAL_MAX_BYTES: usize = 64 << 20;

/// What an overlay is based on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Base {
    /// The bytes.
    pub content: Content,
    /// All versions that a version made from the overlay replaces.
    pub context: VersionVector,
    /// Those it is directly made from.
    pub parents: Vec<Dot>,
}

/// The staging of one file: written ranges, holes and references over a base.
///
/// Clones are the same overlay. All calls may come from several threads at once. None may come
/// from within a transaction of the same store, except where it says so.
#[derive(Clone)]
pub struct Overlay {
    pub(crate) shared: Arc<Shared>,
}

pub(crate) struct Shared {
    pub(crate) store: Store,
    pub(crate) id: u64,
    pub(crate) state: Mutex<State>,
}

/// How the state that an overlay begins with was kept.
#[derive(Clone, Copy, Default)]
pub(crate) struct Kept {
    /// The index has a state as of an fsync.
    pub(crate) synced: bool,
    /// And it is this one.
    pub(crate) as_synced: bool,
    /// Nobody wrote to it any more.
    pub(crate) closed: Option<UnixTime>,
    /// The spill log that has its last whole state.
    pub(crate) in_log: Option<u64>,
}

pub(crate) struct State {
    owner: InodeId,
    pub(crate) base: Arc<Base>,
    /// How much of the base, from its start, shows where nothing was changed.
    pub(crate) base_bytes: u64,
    pub(crate) size_bytes: u64,
    pub(crate) extents: Extents,
    /// The file that is written to. It is seen by no frozen state.
    staging: Option<Arc<Staging>>,
    generation: u32,
    /// The generation that the last freeze ended, until the base is replaced.
    frozen: Option<u32>,
    /// The smallest size since that freeze.
    least_bytes: u64,
    /// Changes since the last sync may be lost in a crash.
    unsynced: bool,
    /// The index has a state as of an fsync.
    kept: bool,
    /// Counts changes; tells whether there were any during a sync.
    edits: u64,
    /// Counts replacements of the base, after which what was encoded before is out of date.
    epoch: u64,
    /// What of it is counted among the memory of all overlays.
    accounted_bytes: usize,
    /// Nobody has written to it since somebody said that nobody would, and of what time it is.
    closed: Option<UnixTime>,
    /// The version that the last frozen state is about to become.
    publishing: Option<Arc<Base>>,
    /// The spill log that has its last whole state.
    pub(crate) in_log: Option<u64>,
    /// What the disk was told to begin on.
    flow: flow::Flow,
}

impl State {
    pub(crate) fn contents(&self) -> Vec<Content> {
        self.entry().contents()
    }

    fn entry(&self) -> Entry {
        Entry {
            owner: self.owner,
            base: Arc::clone(&self.base),
            size_bytes: self.size_bytes,
            base_bytes: self.base_bytes,
            extents: self.extents.clone(),
            staging: self.staging.as_ref().map(|staging| staging.segment),
        }
    }

    /// Whether an orderly stop would lose nothing of it.
    pub(crate) fn is_kept(&self) -> bool {
        !self.unsynced || self.is_published()
    }

    /// Whether it needs no state of its own in the index.
    fn is_published(&self) -> bool {
        !self.is_changed() && !self.kept && !self.is_first()
    }

    fn is_changed(&self) -> bool {
        !self.extents.is_empty()
            || self.size_bytes != self.base.content.size_bytes
            || self.base_bytes != self.size_bytes
    }

    /// Whether it is of a file that has never had a version: its being there is a change too.
    pub(crate) fn is_first(&self) -> bool {
        let Base { content, context, parents } = &*self.base;
        content.size_bytes == 0 && parents.is_empty() && context.dots().next().is_none()
    }

    fn edited(&mut self) {
        self.closed = None;
        self.unsynced = true;
        self.edits += 1;
    }

    /// What stays changed once the frozen state is the base.
    fn newer(&self) -> Extents {
        self.frozen.map_or_else(|| self.extents.clone(), |frozen| self.extents.newer_than(frozen))
    }

    /// Puts a run over whatever is there; answers how the spill log has it.
    fn put(&mut self, offset: u64, len_bytes: u64, data: Data) -> Record {
        let extent = Extent { len_bytes, generation: self.generation, data };
        self.extents.insert(offset, extent.clone());
        self.size_bytes = self.size_bytes.max(offset + len_bytes);
        self.edited();
        Record::Run(offset, extent)
    }
}

fn too_large() -> StoreError {
    StoreError::Io(rustix::io::Errno::FBIG.into())
}

fn end_of(offset: u64, len_bytes: u64) -> Result<u64, StoreError> {
    offset.checked_add(len_bytes).filter(|end| *end <= FILE_MAX_BYTES).ok_or_else(too_large)
}

impl Store {
    /// Begins an overlay for `owner` over `base`. It costs nothing until something is written.
    ///
    /// # Errors
    /// None at present; the index may have to be asked one day.
    pub fn overlay(&self, owner: InodeId, base: Base) -> Result<Overlay, StoreError> {
        let size_bytes = base.content.size_bytes;
        let entry = Entry {
            owner,
            base: Arc::new(base),
            size_bytes,
            base_bytes: size_bytes,
            extents: Extents::default(),
            staging: None,
        };
        let id = self.inner.bytes.next_overlay.fetch_add(1, Ordering::Relaxed);
        Ok(self.overlay_from(id, entry, Kept::default()))
    }

    /// An overlay with a state that may have been kept.
    pub(crate) fn overlay_from(&self, id: u64, entry: Entry, from: Kept) -> Overlay {
        let state = State {
            owner: entry.owner,
            base: entry.base,
            base_bytes: entry.base_bytes,
            size_bytes: entry.size_bytes,
            extents: entry.extents,
            // Never one from before a crash: a frozen state may have become a segment.
            staging: None,
            generation: 1,
            frozen: None,
            least_bytes: entry.size_bytes,
            unsynced: !from.as_synced,
            kept: from.synced,
            edits: 0,
            epoch: 0,
            accounted_bytes: 0,
            closed: from.closed,
            publishing: None,
            in_log: from.in_log,
            flow: flow::Flow::default(),
        };
        let shared = Arc::new(Shared { store: self.clone(), id, state: Mutex::new(state) });
        shared.account(&mut shared.state());
        let overlays = &self.inner.bytes.overlays;
        let mut overlays = overlays.lock().unwrap_or_else(PoisonError::into_inner);
        overlays.insert(id, Arc::downgrade(&shared));
        Overlay { shared }
    }
}

impl Shared {
    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn account(&self, state: &mut State) {
        let total = &self.store.inner.bytes.memory_bytes;
        let now = state.extents.memory_bytes();
        total.fetch_add(now, Ordering::Relaxed);
        total.fetch_sub(state.accounted_bytes, Ordering::Relaxed);
        state.accounted_bytes = now;
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        let accounted = self.state().accounted_bytes;
        let bytes = &self.store.inner.bytes;
        bytes.memory_bytes.fetch_sub(accounted, Ordering::Relaxed);
        bytes.overlays.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.id);
    }
}

/// Fills `buffer` with the range of a file that begins at `offset` and consists of `parts`.
pub(crate) fn read_parts(
    store: &Store,
    base: &Content,
    base_bytes: u64,
    parts: Vec<Part>,
    buffer: &mut [u8],
) -> Result<(), ReadError> {
    let mut absent = Vec::new();
    let mut buffer = buffer;
    for (range, data) in parts {
        let (part, rest) = buffer.split_at_mut((range.end - range.start) as usize);
        buffer = rest;
        let read = match data {
            Some((Data::Memory(held), skip)) => {
                part.copy_from_slice(&held[skip as usize..][..part.len()]);
                Ok(())
            }
            Some((Data::Zero, _)) => {
                part.fill(0);
                Ok(())
            }
            Some((Data::File(staging), _)) => {
                let file = store.inner.bytes.files.get(staging.segment).map_err(failed)?;
                fill_from(&file, range.start, part).map_err(failed)?;
                Ok(())
            }
            Some((Data::Content(content, from), skip)) => {
                read_or_zeros(store, &content, from + skip, content.size_bytes, part)
            }
            None => read_or_zeros(store, base, range.start, base_bytes, part),
        };
        match read {
            Err(ReadError::Absent(chunks)) => absent.extend(chunks),
            other => other?,
        }
    }
    if absent.is_empty() { Ok(()) } else { Err(ReadError::Absent(absent)) }
}

fn read_or_zeros(
    store: &Store,
    content: &Content,
    offset: u64,
    visible_bytes: u64,
    part: &mut [u8],
) -> Result<(), ReadError> {
    let visible = visible_bytes.min(content.size_bytes).saturating_sub(offset);
    let (bytes, zeros) = part.split_at_mut((part.len() as u64).min(visible) as usize);
    zeros.fill(0);
    if bytes.is_empty() { Ok(()) } else { store.read_into(content, offset, bytes) }
}

/// Reads what is there, and zeros where the file ends before the buffer does.
fn fill_from(file: &std::fs::File, offset: u64, buffer: &mut [u8]) -> std::io::Result<()> {
    let mut done = 0;
    while done < buffer.len() {
        match file.read_at(&mut buffer[done..], offset + done as u64) {
            Ok(0) => break,
            Ok(count) => done += count,
            Err(cause) if cause.kind() == std::io::ErrorKind::Interrupted => {}
            Err(cause) => return Err(cause),
        }
    }
    buffer[done..].fill(0);
    Ok(())
}

impl Overlay {
    /// Its number, which it has again when it is [recovered](crate::bytes::Recovered).
    #[must_use]
    pub fn number(&self) -> u64 {
        self.shared.id
    }

    /// The file's size, in bytes.
    #[must_use]
    pub fn size_bytes(&self) -> u64 {
        self.shared.state().size_bytes
    }

    /// Whether the file differs, as far as is known, from its base.
    #[must_use]
    pub fn is_changed(&self) -> bool {
        self.shared.state().is_changed()
    }

    /// What the overlay is based on.
    #[must_use]
    pub fn base(&self) -> Arc<Base> {
        Arc::clone(&self.shared.state().base)
    }

    /// The file it belongs to.
    #[must_use]
    pub fn owner(&self) -> InodeId {
        self.shared.state().owner
    }

    /// About how many bytes on the disk or in memory the file takes, holes left out.
    #[must_use]
    pub fn stored_bytes(&self) -> u64 {
        let state = self.shared.state();
        let parts = state.extents.parts(0..state.size_bytes);
        let stored = |(range, data): &Part| match data {
            Some((Data::Zero, _)) => 0,
            Some(_) => range.end - range.start,
            None => range.end.min(state.base_bytes).saturating_sub(range.start),
        };
        parts.iter().map(stored).sum()
    }

    /// Up to `len` bytes from `offset` on; fewer only at the end.
    ///
    /// # Errors
    /// As [`Store::read`].
    pub fn read(&self, offset: u64, len: usize) -> Result<Vec<u8>, ReadError> {
        let state = self.shared.state();
        let end = offset.saturating_add(len as u64).min(state.size_bytes);
        if offset >= end {
            return Ok(Vec::new());
        }
        let parts = state.extents.parts(offset..end);
        let (base, base_bytes) = (Arc::clone(&state.base), state.base_bytes);
        drop(state);
        let mut buffer = vec![0; (end - offset) as usize];
        read_parts(&self.shared.store, &base.content, base_bytes, parts, &mut buffer)?;
        Ok(buffer)
    }

    /// Writes all of `bytes` at `offset`. The file grows where need be; a gap reads as zeros.
    ///
    /// # Errors
    /// [`StoreError::Full`] if only half of the disk's reserve is left; an input/output error, of the
    /// kind "file too large", beyond what a file can have.
    pub fn write(&self, offset: u64, bytes: &[u8]) -> Result<(), StoreError> {
        let end = end_of(offset, bytes.len() as u64)?;
        if bytes.is_empty() {
            return Ok(());
        }
        let store = &self.shared.store.inner.bytes;
        store.follow_spill()?;
        loop {
            let mut state = self.shared.state();
            if let Some(staging) = state.staging.clone() {
                store.make_sure_of_room_to_write(bytes.len() as u64)?;
                let file = store.files.get(staging.segment).map_err(failed)?;
                file.write_all_at(bytes, offset).map_err(failed)?;
                let put = state.put(offset, bytes.len() as u64, Data::File(staging));
                self.shared.account(&mut state);
                let begun = state.flow.wrote(offset..end);
                let noted = self.shared.note(&mut state, Some(put));
                drop(state);
                if let Some(part) = begun {
                    flow::begin(&file, part);
                }
                return noted;
            }
            // It goes to the spill log too.
            store.make_sure_of_room_to_write(bytes.len() as u64)?;
            let generation = state.generation;
            if state.extents.overwrite(offset, bytes, generation) {
                state.edited();
                let data = Data::Memory(Arc::new(bytes.to_vec()));
                let put = Record::Run(offset, Extent { len_bytes: end - offset, generation, data });
                return self.shared.note(&mut state, Some(put));
            }
            let total = store.memory_bytes.load(Ordering::Relaxed);
            if state.extents.memory_bytes() + bytes.len() <= MEMORY_MAX_BYTES
                && total + bytes.len() <= MEMORY_TOTAL_MAX_BYTES
            {
                let held = Data::Memory(Arc::new(bytes.to_vec()));
                let put = state.put(offset, end - offset, held);
                self.shared.account(&mut state);
                return self.shared.note(&mut state, Some(put));
            }
            drop(state);
            self.give_staging()?;
        }
    }

    /// Gives the overlay a file, and moves to it what is in memory.
    fn give_staging(&self) -> Result<(), StoreError> {
        let inner = &self.shared.store.inner;
        let (bytes, database) = (&inner.bytes, &inner.database);
        bytes.make_sure_of_room_to_write(0)?;
        let segment = bytes.files.take(database)?;
        let given = database.write(|handle| {
            let mut state = self.shared.state();
            if state.staging.is_some() {
                return Ok(false);
            }
            table::set_kind(handle.sql(), segment, Kind::Staging)?;
            state.staging = Some(Staging::new(segment, false));
            let entry = Entry { extents: Extents::default(), ..state.entry() };
            table::put_overlay(handle.sql(), self.shared.id, false, &entry.encode())?;
            Ok(true)
        });
        match given {
            Ok(true) => {}
            Ok(false) => {
                bytes.files.give_back(segment);
                return Ok(());
            }
            Err(cause) => {
                let mut state = self.shared.state();
                state.staging.take_if(|staging| staging.segment == segment);
                bytes.files.give_back(segment);
                return Err(cause);
            }
        }
        let mut state = self.shared.state();
        let Some(staging) = state.staging.clone() else { return Ok(()) };
        let file = bytes.files.get(staging.segment).map_err(failed)?;
        for (offset, held) in state.extents.in_memory() {
            file.write_all_at(&held, offset).map_err(failed)?;
        }
        state.extents.move_to(&staging);
        self.shared.account(&mut state);
        // All of it: where its runs are has changed.
        if state.in_log.is_some() { self.shared.note(&mut state, None) } else { Ok(()) }
    }

    /// Sets the size. What is cut off is gone; what is added reads as zeros.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    pub fn truncate(&self, size_bytes: u64) -> Result<(), StoreError> {
        end_of(size_bytes, 0)?;
        let mut state = self.shared.state();
        if size_bytes == state.size_bytes {
            return Ok(());
        }
        if size_bytes < state.size_bytes {
            let old = state.size_bytes;
            state.extents.remove(size_bytes..old);
            state.base_bytes = state.base_bytes.min(size_bytes);
            state.least_bytes = state.least_bytes.min(size_bytes);
            // An fsynced state that a crash may have to bring back keeps its bytes.
            if let Some(staging) = state.staging.clone()
                && !state.kept
            {
                let file = self.shared.store.inner.bytes.files.get(staging.segment);
                let cut = file.and_then(|file| match file.metadata()?.len() > size_bytes {
                    true => file.set_len(size_bytes),
                    false => Ok(()),
                });
                cut.map_err(failed)?;
            }
        }
        state.size_bytes = size_bytes;
        state.edited();
        self.shared.account(&mut state);
        self.shared.note(&mut state, Some(Record::Resize(size_bytes)))
    }

    /// Turns a range, as far as it lies within the file, into a hole.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    pub fn punch(&self, offset: u64, len_bytes: u64) -> Result<(), StoreError> {
        self.zero(offset, len_bytes, false)
    }

    /// Turns a range into zeros. The file grows to the range's end if `grow`; else what lies
    /// beyond the file's end is left alone.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    pub fn zero(&self, offset: u64, len_bytes: u64, grow: bool) -> Result<(), StoreError> {
        let end = if grow { end_of(offset, len_bytes)? } else { offset.saturating_add(len_bytes) };
        let mut state = self.shared.state();
        let inside = end.min(state.size_bytes);
        state.edited();
        if offset < inside {
            let put = state.put(offset, inside - offset, Data::Zero);
            self.free_range(&state, offset..inside);
            self.shared.account(&mut state);
            self.shared.note(&mut state, Some(put))?;
        }
        if grow && end > state.size_bytes {
            state.size_bytes = end;
            self.shared.note(&mut state, Some(Record::Resize(end)))?;
        }
        Ok(())
    }

    /// Gives room on the disk back, where that loses nothing that a crash may bring back.
    fn free_range(&self, state: &State, range: Range<u64>) {
        let range = range.start.next_multiple_of(HOLE_ALIGN_BYTES)
            ..range.end - range.end % HOLE_ALIGN_BYTES;
        let Some(staging) = state.staging.as_ref().filter(|_| !state.kept) else { return };
        if range.is_empty() {
            return;
        }
        use rustix::fs::FallocateFlags as Flags;
        let flags = Flags::PUNCH_HOLE | Flags::KEEP_SIZE;
        let (start, len) = (range.start, range.end - range.start);
        let punched =
            self.shared.store.inner.bytes.files.get(staging.segment).and_then(|file| {
                rustix::fs::fallocate(&*file, flags, start, len).map_err(Into::into)
            });
        if let Err(cause) = punched {
            // The range reads as zeros all the same; it only takes room until it is published.
            tracing::debug!(%cause, "a range of a staging file could not be freed");
        }
    }

    /// Makes sure that a range can be written. Fails if there is no room for it now; the file
    /// grows to the range's end if `grow`.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    pub fn reserve(&self, offset: u64, len_bytes: u64, grow: bool) -> Result<(), StoreError> {
        let end = end_of(offset, len_bytes)?;
        self.shared.store.inner.bytes.make_sure_of_room(len_bytes)?;
        let mut state = self.shared.state();
        if grow && end > state.size_bytes {
            state.size_bytes = end;
            state.edited();
            self.shared.note(&mut state, Some(Record::Resize(end)))?;
        }
        Ok(())
    }

    /// Puts a range of a version at `offset`, without copying a byte. The range is cut off at the
    /// version's end; answers how many bytes it has.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    pub fn copy_content(
        &self,
        offset: u64,
        source: &Content,
        source_offset: u64,
        len_bytes: u64,
    ) -> Result<u64, StoreError> {
        let len_bytes = len_bytes.min(source.size_bytes.saturating_sub(source_offset));
        end_of(offset, len_bytes)?;
        if len_bytes > 0 {
            let mut state = self.shared.state();
            let data = Data::Content(Arc::new(source.clone()), source_offset);
            let put = state.put(offset, len_bytes, data);
            self.shared.account(&mut state);
            self.shared.note(&mut state, Some(put))?;
        }
        Ok(len_bytes)
    }

    /// Makes the file's present state durable on this device: after a crash it comes back.
    ///
    /// # Errors
    /// As [`Store::sync`].
    pub fn sync(&self) -> Result<(), StoreError> {
        let store = &self.shared.store;
        loop {
            let state = self.shared.state();
            if !state.unsynced {
                return Ok(());
            }
            let (entry, edits, epoch) = (state.entry(), state.edits, state.epoch);
            let published = state.is_published();
            drop(state);
            if published {
                return self.synced(edits, epoch);
            }
            for segment in entry.extents.staging().keys() {
                store.inner.bytes.files.sync(*segment)?;
            }
            let encoded = entry.encode();
            let kept = store.inner.database.write(|handle| {
                let mut state = self.shared.state();
                if state.epoch != epoch {
                    return Ok(false);
                }
                table::put_overlay(handle.sql(), self.shared.id, true, &encoded)?;
                state.kept = true;
                Ok(true)
            })?;
            if !kept {
                continue;
            }
            return self.synced(edits, epoch);
        }
    }

    fn synced(&self, edits: u64, epoch: u64) -> Result<(), StoreError> {
        self.shared.store.sync()?;
        let mut state = self.shared.state();
        if state.edits == edits && state.epoch == epoch {
            state.unsynced = false;
        }
        Ok(())
    }

    /// The present state, which later writes don't change. It is to be cut, published, and then
    /// made the base with [`rebase`](Self::rebase).
    #[must_use]
    pub fn freeze(&self) -> Frozen {
        let mut state = self.shared.state();
        let frozen = Frozen {
            overlay: Arc::clone(&self.shared),
            base: Arc::clone(&state.base),
            base_bytes: state.base_bytes,
            size_bytes: state.size_bytes,
            extents: state.extents.clone(),
            generation: state.generation,
        };
        state.frozen = Some(state.generation);
        state.generation += 1;
        state.least_bytes = state.size_bytes;
        // Later writes go elsewhere: this file may become a segment.
        state.staging = None;
        state.publishing = None;
        frozen
    }

    /// Puts the version that the last frozen state has become under what was written since.
    pub fn rebase(&self, base: Base) {
        let mut state = self.shared.state();
        let newer = state.newer();
        let before = state.extents.staging();
        let after = newer.staging();
        let writing = state.staging.as_ref().map(|staging| staging.segment);
        state.base_bytes = match state.frozen {
            Some(_) => base.content.size_bytes.min(state.least_bytes),
            None => base.content.size_bytes.min(state.base_bytes),
        };
        state.extents = newer;
        state.base = Arc::new(base);
        state.frozen = None;
        state.epoch += 1;
        state.unsynced = true;
        if !state.is_changed() {
            state.kept = false;
        }
        state.publishing = None;
        self.shared.account(&mut state);
        if !state.is_changed() {
            self.shared.note_end(&mut state);
        } else if state.in_log.is_some()
            && let Err(cause) = self.shared.note(&mut state, None)
        {
            tracing::warn!(%cause, "what was written since could not be noted");
        }
        drop(state);
        let left = |(segment, staging): (u64, Arc<Staging>)| {
            (!after.contains_key(&segment) && writing != Some(segment)).then_some(staging)
        };
        self.shared.store.inner.bytes.discard(before.into_iter().filter_map(left));
    }

    /// Ends the overlay: what was written and is not in a version is gone. Later calls are of no
    /// use, but reading goes on where everything is in a version: somebody may be about to read who
    /// got hold of the overlay before.
    ///
    /// # Errors
    /// A [`StoreError`] if the index fails; the overlay may then come back after a crash.
    pub fn discard(&self) -> Result<(), StoreError> {
        let store = &self.shared.store;
        // First, so that it can't be what a crash in between leaves.
        self.shared.note_end(&mut self.shared.state());
        let mut staging = store.inner.database.write(|handle| {
            table::delete_overlay(handle.sql(), self.shared.id)?;
            let mut state = self.shared.state();
            state.epoch += 1;
            let mut staging = state.extents.staging();
            if let Some(writing) = state.staging.take() {
                staging.insert(writing.segment, writing);
            }
            if state.is_changed() {
                state.extents = Extents::default();
                state.base_bytes = 0;
                state.size_bytes = 0;
            }
            state.unsynced = false;
            self.shared.account(&mut state);
            Ok(staging)
        })?;
        store.inner.bytes.discard(std::mem::take(&mut staging).into_values());
        Ok(())
    }
}
