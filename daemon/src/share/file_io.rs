//! Bytes of files: opening, reading, writing, syncing.

use super::describe::{find, version_of};
use super::fetches::Urgency;
use super::open_files::{FileState, OpenFile, Shape};
use super::{Share, WriteError, kith_error_chain, now, storage};
use kith_core::content::{Content, FILE_MAX_BYTES};
use kith_core::index::Node;
use kith_core::operation::Operation;
use kith_core::register::{Kind, UnixTime};
use kith_core::vector::VersionVector;
use kith_fs::volume::{
    Access, Allocation, ChangeError, FileError, Handle, Ino, LookupError, Sought, StorageError,
};
use kith_store::{Base, Overlay, ReadError, StoreError};
use std::sync::{Arc, PoisonError, RwLockReadGuard, RwLockWriteGuard};
use std::time::{Duration, Instant};

/// How far ahead of a read that had to wait the next bytes are asked for.
const AHEAD_BYTES: u64 = 8 << 20;
/// How many chunks are asked for ahead at most.
const AHEAD_CHUNKS: usize = 256;
/// How much one call copies of bytes that have no description yet.
const COPY_STEP_BYTES: u64 = 8 << 20;
/// How often at most a file that stays open is published as of its fsyncs.
pub(super) const SYNCED_EVERY: Duration = Duration::from_secs(15);

impl OpenFile {
    fn reading(&self) -> RwLockReadGuard<'_, FileState> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }
    pub(super) fn writing(&self) -> RwLockWriteGuard<'_, FileState> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps what was written to it for the next start, as if it had been fsynced.
    pub(super) fn keep(&self) -> Result<(), StoreError> {
        let _kept = self.keeping.lock().unwrap_or_else(PoisonError::into_inner);
        let overlay = self.writing().overlay.clone();
        overlay.map_or(Ok(()), |overlay| overlay.sync())
    }
}

impl Share {
    pub(super) fn open_file(&self, ino: Ino, access: Access) -> Result<Handle, FileError> {
        // Who opens it to write hears here that there is no room: the kernel caches writes, and many
        // programs don't look at what closing the file says. Who may only read it can.
        let only_writes = access.write && (access.truncate || !access.read);
        if only_writes && self.disk_room()?.writable_bytes == 0 {
            return Err(StorageError::Full.into());
        }
        if access.write {
            self.settle_copy(ino)?;
        }
        let (file, handle) = self.files.open(ino.0, access, || self.load(ino))?;
        if access.truncate && access.write {
            let emptied = self.overlaid(&file, |overlay| overlay.truncate(0));
            if let Err(error) = emptied {
                self.release_file(handle);
                return Err(error);
            }
        }
        Ok(handle)
    }

    /// A conflict copy becomes a file of its own before somebody writes to it.
    fn settle_copy(&self, ino: Ino) -> Result<(), FileError> {
        let snapshot = self.store.snapshot().map_err(|error| storage(&error))?;
        let (row, _) = find(&snapshot, ino).map_err(not_there)?;
        drop(snapshot);
        if matches!(row.node, Node::Copy { .. }) {
            self.operate(Operation::Settle { node: row.node }, &[], |_, _| Ok(()))?;
        }
        Ok(())
    }

    /// A file that nobody has open, as the index has it now.
    fn load(&self, ino: Ino) -> Result<OpenFile, FileError> {
        let snapshot = self.store.snapshot().map_err(|error| storage(&error))?;
        let (row, state) = find(&snapshot, ino).map_err(not_there)?;
        match state.inode.kind {
            Kind::File => {}
            Kind::Directory => return Err(FileError::IsDirectory),
            _ => return Err(FileError::NotFile),
        }
        if !row.current {
            return Err(FileError::Stale);
        }
        let (base, mtime) = match version_of(row.node, &state) {
            Some(version) => {
                let mut context = version.context.clone();
                context.include(version.dot);
                let parents = vec![version.dot];
                (Base { content: version.content.clone(), context, parents }, version.mtime)
            }
            None => (empty(), row.modified),
        };
        Ok(OpenFile::new(ino.0, row.node.key(), base, mtime, state.inode.is_withheld()))
    }

    /// Reads what is here. `None` if some of it is not.
    pub(super) fn read_present(
        &self,
        handle: Handle,
        offset: u64,
        len: usize,
    ) -> Result<Option<Vec<u8>>, FileError> {
        let (file, _) = self.files.handle(handle)?;
        match self.read_file(&file, offset, len) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(ReadError::Absent(_) | ReadError::Damaged(_)) => Ok(None),
            Err(ReadError::Store(error)) => Err(storage(&error).into()),
        }
    }

    /// Reads, and fetches what is not here, within the deadline.
    pub(super) fn read_fetching(
        &self,
        handle: Handle,
        offset: u64,
        len: usize,
    ) -> Result<Vec<u8>, FileError> {
        let (file, _) = self.files.handle(handle)?;
        let deadline = Instant::now() + self.read_deadline;
        loop {
            let absent = match self.read_file(&file, offset, len) {
                Ok(bytes) => return Ok(bytes),
                Err(ReadError::Absent(absent)) => absent,
                // The damaged chunk was dropped, so that the next look finds it absent.
                Err(ReadError::Damaged(_)) => Vec::new(),
                Err(ReadError::Store(error)) => return Err(storage(&error).into()),
            };
            // What can't be kept isn't waited for.
            if !absent.is_empty() && self.disk_room()?.free_bytes == 0 {
                return Err(StorageError::Full.into());
            }
            self.fetches.want(&absent, Urgency::Foreground);
            self.fetch_ahead(&file, offset.saturating_add(len as u64));
            if !self.fetches.wait(&absent, deadline) {
                return Err(FileError::Unreachable);
            }
        }
    }

    fn read_file(&self, file: &OpenFile, offset: u64, len: usize) -> Result<Vec<u8>, ReadError> {
        let state = file.reading();
        let (overlay, content) = (state.overlay.clone(), state.base.content.clone());
        drop(state);
        match overlay {
            Some(overlay) => overlay.read(offset, len),
            None => self.store.read(&content, offset, len),
        }
    }

    fn fetch_ahead(&self, file: &OpenFile, offset: u64) {
        let content = file.reading().base.content.clone();
        let end = offset.saturating_add(AHEAD_BYTES).min(content.size_bytes);
        if offset < end
            && let Ok(absent) = self.store.absent(&content, offset..end, AHEAD_CHUNKS)
        {
            self.fetches.want(&absent, Urgency::Ahead);
        }
    }

    pub(super) fn write_bytes(
        &self,
        handle: Handle,
        offset: u64,
        bytes: &[u8],
    ) -> Result<(), FileError> {
        let (file, access) = self.files.handle(handle)?;
        if !access.write {
            return Err(FileError::NotFile);
        }
        if offset.checked_add(bytes.len() as u64).is_none_or(|end| end > FILE_MAX_BYTES) {
            return Err(FileError::TooLarge);
        }
        self.overlaid(&file, |overlay| overlay.write(offset, bytes))
    }

    /// Changes a file's overlay, which is laid over its version first if there is none.
    fn overlaid<T>(
        &self,
        file: &OpenFile,
        change: impl FnOnce(&Overlay) -> Result<T, StoreError>,
    ) -> Result<T, FileError> {
        let mut state = file.writing();
        let overlay = match &state.overlay {
            Some(overlay) => overlay.clone(),
            None => {
                let overlay = self.store.overlay(state.inode, state.base.clone());
                state.overlay.insert(overlay.map_err(|error| storage(&error))?).clone()
            }
        };
        let changed = change(&overlay).map_err(|error| storage(&error))?;
        if !file.is_dirty() {
            // The kernel sets the time itself; this one holds until it does.
            state.mtime = now().1;
        }
        state.written_at = Instant::now();
        file.set_dirty(true);
        Ok(changed)
    }

    /// `truncate`, by name or by handle.
    pub(super) fn resize(&self, ino: Ino, size_bytes: u64) -> Result<(), ChangeError> {
        if size_bytes > FILE_MAX_BYTES {
            return Err(ChangeError::TooLarge);
        }
        let access = Access { read: true, write: true, truncate: false };
        let handle = self.open_file(ino, access).map_err(changing)?;
        let (file, _) = self.files.handle(handle).expect("the handle was opened just above");
        let resized = if file.shape().size_bytes == size_bytes {
            Ok(())
        } else {
            self.overlaid(&file, |overlay| overlay.truncate(size_bytes))
        };
        self.release_file(handle);
        resized.map_err(changing)
    }

    /// Sets the times of an open file: its next version has them, also one that is made for a time
    /// of modification alone. A version made past the open file would be one that its next one
    /// doesn't know of. Answers false if the file was closed for good meanwhile.
    pub(super) fn set_open_times(
        &self,
        file: &Arc<OpenFile>,
        mtime: UnixTime,
        changed: Option<UnixTime>,
    ) -> bool {
        let anew = {
            let mut state = file.writing();
            state.changed = changed.or(state.changed);
            let anew = state.mtime != mtime;
            if anew {
                state.mtime = mtime;
                file.set_dirty(true);
            }
            anew
        };
        if anew && !self.files.is_written(file) && self.files.claim(file) {
            self.queue.push(Arc::clone(file));
        }
        self.files.find(file.ino).is_some_and(|found| Arc::ptr_eq(&found, file))
    }

    /// Tells the index when a file changed where no version did, as the file is open no more.
    pub(super) fn settle_changed(&self, file: &OpenFile) {
        let changed = file.writing().changed.take();
        if let Some(changed) = changed {
            self.note_changed(Ino(file.ino), changed);
        }
    }

    /// Keeps when a node changed. Where that fails the index has another time, which costs whoever
    /// relies on it a second look at most: no reason to tell a program that its bytes are lost.
    pub(super) fn note_changed(&self, ino: Ino, changed: UnixTime) {
        if let Err(error) = self.store.write(|tx| tx.set_changed(ino.0, changed)) {
            storage(&error);
        }
    }

    /// Notes that a file is whole, once nobody can write to it any more: a crash before it is
    /// published then costs nothing.
    pub(super) fn note_closed(&self, file: &OpenFile) {
        let mut state = file.writing();
        if !self.files.is_written(file) {
            self.note_whole(&mut state);
        }
    }

    /// The same when the last program that can write is about to close the file, as far as can be
    /// seen from here, so that it finds that noted when it goes on. A file that was emptied is
    /// about to be written by whoever has another descriptor of the same opening, as shells have.
    pub(super) fn note_closing(&self, handle: Handle) {
        let Ok((file, access)) = self.files.handle(handle) else { return };
        if !access.write || !file.is_dirty() {
            return;
        }
        let mut state = file.writing();
        let size_bytes = state.overlay.as_ref().map_or(0, Overlay::size_bytes);
        if self.files.writers(&file) == 1 && (size_bytes > 0 || state.fresh) {
            self.note_whole(&mut state);
        }
    }

    fn note_whole(&self, state: &mut FileState) {
        let overlay = match &state.overlay {
            Some(overlay) => Ok(overlay.clone()),
            None => self.store.overlay(state.inode, state.base.clone()),
        };
        let mtime = state.mtime;
        let noted = overlay.and_then(|overlay| {
            let overlay = state.overlay.insert(overlay);
            overlay.note_closed(mtime)
        });
        // Then it comes back beside the file.
        if let Err(error) = noted {
            tracing::warn!(cause = %kith_error_chain(&error), "that a file is whole could not be noted");
        }
    }

    pub(super) fn sync_file(&self, handle: Handle) -> Result<(), FileError> {
        let (file, _) = self.files.handle(handle)?;
        {
            let _kept = file.keeping.lock().unwrap_or_else(PoisonError::into_inner);
            let overlay = {
                let mut state = file.writing();
                if state.overlay.is_none() && state.fresh {
                    // Of a file without a version its name alone is kept by nothing else.
                    let overlay = self.store.overlay(state.inode, state.base.clone());
                    state.overlay = Some(overlay.map_err(|error| storage(&error))?);
                }
                state.overlay.clone()
            };
            if let Some(overlay) = overlay {
                overlay.sync().map_err(|error| storage(&error))?;
            }
        }
        let due = {
            let mut state = file.writing();
            state.synced = file.is_dirty();
            state.synced && state.published_at.is_none_or(|at| at.elapsed() >= SYNCED_EVERY)
        };
        if due && self.files.claim(&file) {
            self.queue.push(Arc::clone(&file));
        }
        self.store.sync().map_err(|error| storage(&error).into())
    }

    pub(super) fn release_file(&self, handle: Handle) {
        self.settle_release(self.files.release(handle));
    }

    pub(super) fn allocate_range(
        &self,
        handle: Handle,
        offset: u64,
        len: u64,
        allocation: Allocation,
    ) -> Result<(), FileError> {
        let (file, access) = self.files.handle(handle)?;
        if !access.write {
            return Err(FileError::NotFile);
        }
        let end = offset.checked_add(len).filter(|end| *end <= FILE_MAX_BYTES);
        let end = end.ok_or(FileError::TooLarge)?;
        let size_bytes = file.shape().size_bytes;
        match allocation {
            Allocation::Reserve { grow } if grow && end > size_bytes => {
                self.overlaid(&file, |overlay| overlay.reserve(offset, len, true))
            }
            Allocation::Reserve { .. } => {
                if len > self.disk_room()?.free_bytes {
                    Err(StorageError::Full.into())
                } else {
                    Ok(())
                }
            }
            Allocation::Punch => self.overlaid(&file, |overlay| overlay.punch(offset, len)),
            Allocation::Zero { grow } => {
                self.overlaid(&file, |overlay| overlay.zero(offset, len, grow))
            }
        }
    }

    pub(super) fn seek_in(
        &self,
        handle: Handle,
        offset: u64,
        sought: Sought,
    ) -> Result<u64, FileError> {
        let (file, _) = self.files.handle(handle)?;
        let state = file.reading();
        let (overlay, inode, base) = (state.overlay.clone(), state.inode, state.base.clone());
        drop(state);
        // Nothing is written to a plain one: it only knows where data and holes are.
        let overlay = match overlay {
            Some(overlay) => overlay,
            None => self.store.overlay(inode, base).map_err(|error| storage(&error))?,
        };
        let found = match sought {
            Sought::Data => overlay.next_data(offset),
            Sought::Hole => overlay.next_hole(offset),
        };
        found.map_err(|error| storage(&error))?.ok_or(FileError::NothingSought)
    }

    pub(super) fn copy_bytes(
        &self,
        (from, from_offset): (Handle, u64),
        (to, to_offset): (Handle, u64),
        len: u64,
    ) -> Result<u64, FileError> {
        let (source, _) = self.files.handle(from)?;
        let (target, access) = self.files.handle(to)?;
        if !access.write {
            return Err(FileError::NotFile);
        }
        let Shape { size_bytes, published, .. } = source.shape();
        let len = len.min(size_bytes.saturating_sub(from_offset));
        if len == 0 {
            return Ok(0);
        }
        if to_offset.checked_add(len).is_none_or(|end| end > FILE_MAX_BYTES) {
            return Err(FileError::TooLarge);
        }
        if let Some(content) = published {
            return self.overlaid(&target, |overlay| {
                overlay.copy_content(to_offset, &content, from_offset, len)
            });
        }
        let step = len.min(COPY_STEP_BYTES);
        let bytes =
            self.read_fetching(from, from_offset, usize::try_from(step).unwrap_or(usize::MAX))?;
        self.overlaid(&target, |overlay| overlay.write(to_offset, &bytes))?;
        Ok(bytes.len() as u64)
    }
}

/// What a file without a version stands on.
pub(super) fn empty() -> Base {
    Base { content: Content::empty(), context: VersionVector::new(), parents: Vec::new() }
}

fn not_there(error: LookupError) -> FileError {
    match error {
        LookupError::Storage(cause) => FileError::Storage(cause),
        LookupError::NotFound
        | LookupError::Stale
        | LookupError::NotDirectory
        | LookupError::NotSymlink => FileError::Stale,
    }
}

/// What `truncate` says of an error on the way.
fn changing(error: FileError) -> ChangeError {
    match error {
        FileError::Stale | FileError::BadHandle => ChangeError::Stale,
        FileError::IsDirectory => ChangeError::IsDirectory,
        FileError::NotFile | FileError::NothingSought => ChangeError::NotPermitted,
        FileError::Unreachable => ChangeError::Unreachable,
        FileError::TooLarge => ChangeError::TooLarge,
        FileError::Storage(cause) => ChangeError::Storage(cause),
    }
}

impl From<WriteError> for FileError {
    fn from(error: WriteError) -> Self {
        match ChangeError::from(error) {
            ChangeError::Storage(cause) => FileError::Storage(cause),
            _ => FileError::Stale,
        }
    }
}
