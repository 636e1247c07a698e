//! The files that programs have open, and those whose last version is still being published.

use kith_core::content::Content;
use kith_core::id::InodeId;
use kith_core::register::{Mark, UnixTime};
use kith_fs::volume::{Access, FileError, Handle};
use kith_store::{Base, Overlay};
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Instant;

/// One open file: all handles of a node share it.
pub(crate) struct OpenFile {
    /// The node's number in the mount.
    pub(crate) ino: u64,
    /// Whether anything was changed that no version holds yet.
    dirty: AtomicBool,
    /// It was to be published, and had no name.
    nameless: AtomicBool,
    /// Its last name was taken here, under an earlier writer.
    removed: AtomicBool,
    /// Held by an fsync, and by a publication from its transaction until its version is the base:
    /// the one keeps what the other is about to replace.
    pub(crate) keeping: Mutex<()>,
    /// Its bytes.
    pub(crate) state: RwLock<FileState>,
}

/// The bytes of an open file.
pub(crate) struct FileState {
    /// The inode that its versions are published to.
    pub(crate) inode: InodeId,
    /// The version that the overlay stands on, or that is read where there is none.
    pub(crate) base: Base,
    /// What was written over it.
    pub(crate) overlay: Option<Overlay>,
    /// The time of modification.
    pub(crate) mtime: UnixTime,
    /// When anything about it last changed, where the kernel said that and the index doesn't have it
    /// yet: a version takes it along, so that no transaction is needed for it alone. What none took is
    /// kept when the file is closed for good.
    pub(crate) changed: Option<UnixTime>,
    /// Whether the file has never had a version.
    pub(crate) fresh: bool,
    /// When it was last written to.
    pub(crate) written_at: Instant,
    /// When a version was last published.
    pub(crate) published_at: Option<Instant>,
    /// Whether it was fsynced since then.
    pub(crate) synced: bool,
}

/// An open file from outside.
pub(crate) struct Shape {
    /// The size.
    pub(crate) size_bytes: u64,
    /// The time of modification.
    pub(crate) modified: UnixTime,
    /// When anything about it last changed, where the index doesn't have that yet.
    pub(crate) changed: Option<UnixTime>,
    /// Its bytes, if nothing was written over a version.
    pub(crate) published: Option<Content>,
}

/// The table of open files.
#[derive(Default)]
pub(crate) struct OpenFiles {
    files: Mutex<Table>,
    /// Grows when a file leaves the table, so that whoever read the index before looks again.
    epoch: AtomicU64,
}

#[derive(Default)]
struct Table {
    slots: HashMap<u64, Slot>,
    handles: HashMap<u64, (Arc<OpenFile>, Access)>,
    last_handle: u64,
}

/// The openings of one file.
pub(crate) type Handles = Vec<(Handle, Access)>;

struct Slot {
    file: Arc<OpenFile>,
    opens: u32,
    writers: u32,
    publishing: bool,
}

/// What is to be done with a file whose handle was released.
pub(crate) enum Released {
    /// Nothing: others have it open, or nothing was changed.
    Nothing,
    /// A version is to be published.
    Publish(Arc<OpenFile>),
    /// Nobody writes to it any more, and what was written is to be published once what now is
    /// being published is.
    Closed(Arc<OpenFile>),
    /// Nobody needs it any more: it has left the table, and its overlay is to be discarded.
    Done(Arc<OpenFile>),
}

impl OpenFile {
    pub(crate) fn new(ino: u64, key: InodeId, base: Base, mtime: UnixTime, fresh: bool) -> Self {
        let state = FileState {
            inode: key,
            base,
            overlay: None,
            mtime,
            changed: None,
            fresh,
            written_at: Instant::now(),
            published_at: None,
            synced: false,
        };
        Self::with(ino, state)
    }

    pub(crate) fn with(ino: u64, state: FileState) -> Self {
        // A new file has a version to publish even if nobody writes to it.
        let dirty = AtomicBool::new(state.fresh);
        OpenFile {
            ino,
            dirty,
            nameless: AtomicBool::default(),
            removed: AtomicBool::default(),
            keeping: Mutex::default(),
            state: RwLock::new(state),
        }
    }

    pub(crate) fn is_dirty(&self) -> bool {
        self.dirty.load(Ordering::SeqCst)
    }

    pub(crate) fn set_dirty(&self, dirty: bool) {
        self.dirty.store(dirty, Ordering::SeqCst);
    }

    /// Whether it was found to have no name when it was to be published.
    pub(crate) fn is_nameless(&self) -> bool {
        self.nameless.load(Ordering::SeqCst)
    }

    pub(crate) fn set_nameless(&self, nameless: bool) {
        self.nameless.store(nameless, Ordering::SeqCst);
    }

    /// Whether its last name was taken here, under an earlier writer: where it still has none, a
    /// version of it comes too late.
    pub(crate) fn is_removed(&self) -> bool {
        self.removed.load(Ordering::SeqCst)
    }

    pub(crate) fn set_removed(&self, removed: bool) {
        self.removed.store(removed, Ordering::SeqCst);
    }

    /// What `stat` shows of it, and what reading it takes.
    pub(crate) fn shape(&self) -> Shape {
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        let (size_bytes, published) = match &state.overlay {
            Some(overlay) => (overlay.size_bytes(), None),
            None => (state.base.content.size_bytes, Some(state.base.content.clone())),
        };
        Shape { size_bytes, modified: state.mtime, changed: state.changed, published }
    }
}

impl FileState {
    /// Why a version published now would be published.
    pub(crate) fn mark(&self, closed: bool) -> Mark {
        match (closed, self.synced) {
            (true, _) => Mark::Closed,
            (false, true) => Mark::Synced,
            (false, false) => Mark::Idle,
        }
    }
}

impl OpenFiles {
    fn lock(&self) -> MutexGuard<'_, Table> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes whenever a file leaves the table.
    pub(crate) fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::SeqCst)
    }

    /// The open file with this number.
    pub(crate) fn find(&self, ino: u64) -> Option<Arc<OpenFile>> {
        self.lock().slots.get(&ino).map(|slot| Arc::clone(&slot.file))
    }

    /// Opens a file, which `load` describes if it isn't open yet. `load` runs under the table's
    /// lock, so that no version is published and dropped from the table between its look and ours;
    /// it must be short.
    pub(crate) fn open(
        &self,
        ino: u64,
        access: Access,
        load: impl FnOnce() -> Result<OpenFile, FileError>,
    ) -> Result<(Arc<OpenFile>, Handle), FileError> {
        let mut table = self.lock();
        let slot = match table.slots.entry(ino) {
            Entry::Occupied(slot) => slot.into_mut(),
            Entry::Vacant(vacant) => {
                let file = Arc::new(load()?);
                vacant.insert(Slot { file, opens: 0, writers: 0, publishing: false })
            }
        };
        slot.opens += 1;
        slot.writers += u32::from(access.write);
        let file = Arc::clone(&slot.file);
        table.last_handle += 1;
        let handle = table.last_handle;
        table.handles.insert(handle, (Arc::clone(&file), access));
        Ok((file, Handle(handle)))
    }

    /// The file behind a handle.
    pub(crate) fn handle(&self, handle: Handle) -> Result<(Arc<OpenFile>, Access), FileError> {
        self.lock().handles.get(&handle.0).cloned().ok_or(FileError::BadHandle)
    }

    /// Ends an opening.
    pub(crate) fn release(&self, handle: Handle) -> Released {
        let mut table = self.lock();
        let Some((file, access)) = table.handles.remove(&handle.0) else {
            return Released::Nothing;
        };
        let slot = table.slots.get_mut(&file.ino).expect("a handle's file is in the table");
        slot.opens -= 1;
        slot.writers -= u32::from(access.write);
        if slot.writers == 0 && file.is_dirty() {
            let waits = std::mem::replace(&mut slot.publishing, true);
            return if waits { Released::Closed(file) } else { Released::Publish(file) };
        }
        self.drop_if_done(&mut table, file.ino)
    }

    /// Claims a file for publishing while it is open. Answers false if it is being published.
    pub(crate) fn claim(&self, file: &OpenFile) -> bool {
        let mut table = self.lock();
        match table.slots.get_mut(&file.ino) {
            Some(slot) if !slot.publishing => {
                slot.publishing = true;
                true
            }
            _ => false,
        }
    }

    /// Ends a claim. If `again`, and the file changed meanwhile and nobody has it open for writing
    /// any more, it stays claimed and is to be published once more.
    pub(crate) fn published(&self, file: &OpenFile, again: bool) -> Released {
        let mut table = self.lock();
        let Some(slot) = table.slots.get_mut(&file.ino) else { return Released::Nothing };
        if again && slot.writers == 0 && file.is_dirty() {
            return Released::Publish(Arc::clone(&slot.file));
        }
        slot.publishing = false;
        self.drop_if_done(&mut table, file.ino)
    }

    /// Whether anybody has the file open for writing.
    pub(crate) fn is_written(&self, file: &OpenFile) -> bool {
        self.writers(file) > 0
    }

    /// How many openings of the file can write.
    pub(crate) fn writers(&self, file: &OpenFile) -> u32 {
        self.lock().slots.get(&file.ino).map_or(0, |slot| slot.writers)
    }

    /// Whether anybody has the file open.
    pub(crate) fn is_open(&self, file: &OpenFile) -> bool {
        self.lock().slots.get(&file.ino).is_some_and(|slot| slot.opens > 0)
    }

    /// All files that are open, or not published yet, and the inode of each.
    pub(crate) fn all(&self) -> Vec<(Arc<OpenFile>, InodeId)> {
        let files: Vec<_> = self.lock().slots.values().map(|slot| Arc::clone(&slot.file)).collect();
        let inode =
            |file: &Arc<OpenFile>| file.state.read().unwrap_or_else(PoisonError::into_inner).inode;
        files.into_iter().map(|file| (Arc::clone(&file), inode(&file))).collect()
    }

    /// All files that somebody writes to, or whose changes no version holds yet.
    pub(crate) fn unsettled(&self) -> Vec<Arc<OpenFile>> {
        let table = self.lock();
        let unsettled = |slot: &&Slot| slot.writers > 0 || slot.publishing || slot.file.is_dirty();
        table.slots.values().filter(unsettled).map(|slot| Arc::clone(&slot.file)).collect()
    }

    /// All files with changes that no version holds yet.
    pub(crate) fn dirty(&self) -> Vec<Arc<OpenFile>> {
        let table = self.lock();
        table
            .slots
            .values()
            .filter(|slot| slot.file.is_dirty())
            .map(|slot| Arc::clone(&slot.file))
            .collect()
    }

    /// Everything that is open, and the last handle that was given.
    pub(crate) fn left(&self) -> (u64, Vec<(Arc<OpenFile>, Handles)>) {
        let table = self.lock();
        let mut open: HashMap<u64, Handles> = HashMap::new();
        for (handle, (file, access)) in &table.handles {
            open.entry(file.ino).or_default().push((Handle(*handle), *access));
        }
        let file = |ino| Arc::clone(&table.slots[&ino].file);
        let left = open.into_iter().map(|(ino, handles)| (file(ino), handles)).collect();
        (table.last_handle, left)
    }

    /// Opens again what [was open](Self::left), before anything else is.
    pub(crate) fn restore(&self, last_handle: u64, left: Vec<(OpenFile, Handles)>) {
        let mut table = self.lock();
        table.last_handle = last_handle;
        for (file, handles) in left {
            let file = Arc::new(file);
            let writers = handles.iter().filter(|(_, access)| access.write).count();
            let slot = Slot {
                file: Arc::clone(&file),
                opens: u32::try_from(handles.len()).expect("each handle was counted in 32 bits"),
                writers: u32::try_from(writers).expect("no more than there are handles"),
                publishing: false,
            };
            table.slots.insert(file.ino, slot);
            let handles = handles.into_iter();
            table
                .handles
                .extend(handles.map(|(Handle(at), access)| (at, (Arc::clone(&file), access))));
        }
    }

    /// Takes in a file that nobody has open and that has changes to be published, as if it had just been
    /// closed. The table must not have it.
    pub(crate) fn adopt(&self, file: OpenFile) {
        file.set_dirty(true);
        let ino = file.ino;
        let slot = Slot { file: Arc::new(file), opens: 0, writers: 0, publishing: false };
        let before = self.lock().slots.insert(ino, slot);
        assert!(before.is_none(), "a file that is open has its changes already");
    }

    /// How many files have changes that no version holds yet, or are being published; without those
    /// that are to have none, because they lost their names.
    pub(crate) fn pending(&self) -> usize {
        let pending =
            |slot: &&Slot| slot.publishing || (slot.file.is_dirty() && !slot.file.is_nameless());
        self.lock().slots.values().filter(pending).count()
    }

    fn drop_if_done(&self, table: &mut Table, ino: u64) -> Released {
        // What could not be published stays, and is tried again.
        let done = table
            .slots
            .get(&ino)
            .is_some_and(|slot| slot.opens == 0 && !slot.publishing && !slot.file.is_dirty());
        match done.then(|| table.slots.remove(&ino)).flatten() {
            Some(slot) => {
                self.epoch.fetch_add(1, Ordering::SeqCst);
                Released::Done(slot.file)
            }
            None => Released::Nothing,
        }
    }
}
