//! What programs have open, told by one daemon to the next, which goes on with it.

use super::open_files::{FileState, Handles, OpenFile};
use super::{Share, WriteError, kith_error_chain, note_removed};
use kith_core::id::{Dot, InodeId, WriterId};
use kith_core::name::EntryName;
use kith_core::register::UnixTime;
use kith_fs::volume::{Access, Handle, Ino, Outdated};
use kith_store::{Base, Overlay, Recovered};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, PoisonError};
use std::time::Instant;

/// Everything that is open in a share, and what the kernel has yet to be told.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub(crate) struct OpenLeft {
    files: Vec<FileLeft>,
    last_handle: u64,
    outdated: Vec<OutdatedLeft>,
}

/// What is open, and kept for the next daemon.
pub(crate) struct KeptOpen {
    files: Vec<(Arc<OpenFile>, Handles)>,
    last_handle: u64,
}

/// An open file.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
struct FileLeft {
    ino: Ino,
    /// The writer and the number of the inode.
    inode: (u64, u64),
    /// The handles, and whether each can write.
    handles: Vec<(Handle, bool)>,
    /// The version that it stands on, as the store encodes it.
    base: Vec<u8>,
    /// What was written over it, which the store has kept.
    overlay: Option<OverlayLeft>,
    /// The time of modification: seconds and nanoseconds.
    mtime: (i64, u32),
    /// When it last changed, where the kernel said that and the index doesn't have it.
    #[serde(default)]
    changed: Option<(i64, u32)>,
    fresh: bool,
    dirty: bool,
    nameless: bool,
    removed: bool,
    synced: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
struct OverlayLeft {
    number: u64,
    /// Whether it says anything that the base doesn't.
    changed: bool,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
enum OutdatedLeft {
    Name { parent: Ino, name: Vec<u8>, replaced: bool },
    Attributes(Ino),
}

impl Share {
    /// Keeps what was written to open files for the next daemon, once the share is closed. A file of
    /// which that fails is left out, and whoever has it open gets errors.
    pub(crate) fn keep_open(&self) -> KeptOpen {
        // The next daemon may be another writer.
        let noted = self.store.snapshot().and_then(|it| note_removed(&it, &self.files.all()));
        if let Err(error) = noted {
            tracing::error!(cause = %kith_error_chain(&error), "open files that were removed may come back");
        }
        let (last_handle, mut files) = self.files.left();
        files.retain(|(file, _)| {
            let kept = file.keep().inspect_err(|error| {
                tracing::error!(cause = %kith_error_chain(error), "an open file can't go on");
            });
            kept.is_ok()
        });
        KeptOpen { files, last_handle }
    }

    /// Tells what is open, once the store is closed: what still was being published then, is or isn't.
    pub(crate) fn leave_open(&self, kept: &KeptOpen) -> OpenLeft {
        let files = kept.files.iter().map(|(file, handles)| leave_file(file, handles)).collect();
        let outdated = self.outdated.left().into_iter().map(OutdatedLeft::from).collect();
        OpenLeft { files, last_handle: kept.last_handle, outdated }
    }

    /// Opens again what was open, with what was written to it: that is taken from `recovered`, where
    /// each overlay is under its number. Answers the files.
    pub(super) fn take_up_open(
        &self,
        left: OpenLeft,
        recovered: &mut BTreeMap<u64, Recovered>,
    ) -> Result<BTreeSet<InodeId>, WriteError> {
        let mut inodes = BTreeSet::new();
        let mut open = Vec::new();
        for file in left.files {
            let base = Base::decode(&file.base)?;
            let mut overlay = None;
            if let Some(OverlayLeft { number, changed }) = file.overlay {
                overlay = recovered.remove(&number).map(|recovered| recovered.overlay);
                if changed && overlay.is_none() {
                    tracing::error!("what was written to an open file is missing; it can't go on");
                    continue;
                }
            }
            let access = |write| Access { read: true, write, truncate: false };
            let handles = file.handles.iter().map(|(handle, write)| (*handle, access(*write)));
            let handles = handles.collect();
            let inode = InodeId(Dot { writer: WriterId(file.inode.0), number: file.inode.1 });
            inodes.insert(inode);
            open.push((file.open(inode, base, overlay), handles));
        }
        self.files.restore(left.last_handle, open);
        self.outdated.push(left.outdated.into_iter().filter_map(OutdatedLeft::notice).collect());
        Ok(inodes)
    }
}

fn leave_file(file: &OpenFile, handles: &Handles) -> FileLeft {
    let _kept = file.keeping.lock().unwrap_or_else(PoisonError::into_inner);
    let state = file.state.read().unwrap_or_else(PoisonError::into_inner);
    let InodeId(Dot { writer, number }) = state.inode;
    FileLeft {
        ino: Ino(file.ino),
        inode: (writer.0, number),
        handles: handles.iter().map(|(handle, access)| (*handle, access.write)).collect(),
        base: state.base.encode(),
        overlay: state
            .overlay
            .as_ref()
            .map(|overlay| OverlayLeft { number: overlay.number(), changed: overlay.is_changed() }),
        mtime: (state.mtime.seconds, state.mtime.nanoseconds),
        changed: state.changed.map(|at| (at.seconds, at.nanoseconds)),
        fresh: state.fresh,
        dirty: file.is_dirty(),
        nameless: file.is_nameless(),
        removed: file.is_removed(),
        synced: state.synced,
    }
}

impl FileLeft {
    fn open(&self, inode: InodeId, base: Base, overlay: Option<Overlay>) -> OpenFile {
        let state = FileState {
            inode,
            base,
            overlay,
            mtime: time(self.mtime),
            changed: self.changed.map(time),
            fresh: self.fresh,
            written_at: Instant::now(),
            published_at: None,
            synced: self.synced,
        };
        let file = OpenFile::with(self.ino.0, state);
        file.set_dirty(self.dirty);
        file.set_nameless(self.nameless);
        file.set_removed(self.removed);
        file
    }
}

fn time((seconds, nanoseconds): (i64, u32)) -> UnixTime {
    UnixTime { seconds, nanoseconds }
}

impl From<Outdated> for OutdatedLeft {
    fn from(outdated: Outdated) -> Self {
        match outdated {
            Outdated::Name { parent, name, replaced } => {
                OutdatedLeft::Name { parent, name: name.as_bytes().to_vec(), replaced }
            }
            Outdated::Attributes(node) => OutdatedLeft::Attributes(node),
        }
    }
}

impl OutdatedLeft {
    /// The notice, unless it is of something that can't be a name.
    fn notice(self) -> Option<Outdated> {
        Some(match self {
            OutdatedLeft::Name { parent, name, replaced } => {
                Outdated::Name { parent, name: EntryName::new(&name).ok()?, replaced }
            }
            OutdatedLeft::Attributes(node) => Outdated::Attributes(node),
        })
    }
}
