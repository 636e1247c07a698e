//! One replica: an index, what its disk has of it, and what the person at it is doing.

use super::story;
use crate::memory_index::MemoryIndex;
use kith_core::clock::WallMs;
use kith_core::content::{Content, Layout, Piece};
use kith_core::id::{ChunkId, DeviceId, Dot, InodeId, ShareId, Tag, WriterId};
use kith_core::index::{IndexRead, Node};
use kith_core::operation::{
    Applied, Context, Operation, OperationError, apply as apply_operation, found,
};
use kith_core::register::{Kind, Mark, UnixTime};
use kith_core::vector::VersionVector;
use std::collections::BTreeSet;
use std::convert::Infallible;

/// A version's bytes, as people would recognise them: different saves have different ones.
pub(super) type Saved = ChunkId;

/// What somebody did that the checks must know of.
#[derive(Clone, Debug, Default)]
pub(super) struct Act {
    /// What was saved.
    pub(super) saved: Option<Saved>,
    /// What a person saw and replaced or removed: it may be gone from the tree.
    pub(super) ended: BTreeSet<Saved>,
}

/// A file that is open for writing, and what it was opened on.
#[derive(Clone, Debug)]
pub(super) struct Handle {
    pub(super) inode: InodeId,
    pub(super) context: VersionVector,
    pub(super) parents: Vec<Dot>,
    pub(super) sees: BTreeSet<Saved>,
}

/// One replica.
pub(super) struct Replica {
    pub(super) device: DeviceId,
    pub(super) index: MemoryIndex,
    pub(super) acts: Vec<Act>,
    pub(super) handles: Vec<Handle>,
    pub(super) off_ms: i64,
    durable: MemoryIndex,
    durable_acts: usize,
    dirty: bool,
    tags: u64,
    saves: u64,
}

/// The one share of all simulations.
const SHARE: ShareId = ShareId([0x5a; 16]);

impl Replica {
    pub(super) fn new(number: u8, now: WallMs) -> Self {
        let mut index = MemoryIndex::new();
        let device = DeviceId([number + 1; 32]);
        let writer = WriterId(0x1000 + u64::from(number));
        let author = format!("device {}", char::from(b'A' + number));
        let Ok(()) = found(&mut index, SHARE, device, writer, author, now, Tag(u64::from(number)));
        Replica {
            device,
            durable: index.clone(),
            index,
            acts: Vec::new(),
            handles: Vec::new(),
            off_ms: 0,
            durable_acts: 0,
            dirty: false,
            tags: u64::from(number) << 48,
            saves: u64::from(number) << 48,
        }
    }

    /// Time and randomness of a transaction.
    pub(super) fn context(&mut self, now: WallMs) -> Context {
        self.tags += 1;
        let now = WallMs(now.0.saturating_add_signed(self.off_ms));
        Context { now, tag: Tag(self.tags) }
    }

    /// Does one transaction: all of it, or nothing.
    pub(super) fn transact<T, E>(
        &mut self,
        work: impl FnOnce(&mut MemoryIndex) -> Result<T, E>,
    ) -> Result<T, E> {
        let before = self.index.clone();
        let result = work(&mut self.index);
        match &result {
            Ok(_) => self.dirty = true,
            Err(_) => self.index = before,
        }
        result
    }

    /// Does one operation.
    pub(super) fn apply(
        &mut self,
        now: WallMs,
        operation: Operation,
    ) -> Result<Applied, OperationError<Infallible>> {
        let context = self.context(now);
        let text = story::is_heard().then(|| format!("{operation:?}"));
        let result = self.transact(|index| apply_operation(index, context, operation));
        story::tell(|| format!("{:?}: {} -> {result:?}", self.device, text.unwrap_or_default()));
        result
    }

    /// The disk has everything.
    pub(super) fn sync(&mut self) {
        if self.dirty {
            self.durable = self.index.clone();
            self.dirty = false;
        }
        self.durable_acts = self.acts.len();
    }

    /// What the disk doesn't have is lost, and what was open is closed.
    pub(super) fn crash(&mut self, now: WallMs) {
        self.index = self.durable.clone();
        self.dirty = false;
        self.acts.truncate(self.durable_acts);
        self.handles.clear();
        self.recover(now);
    }

    /// Files that were being written for the first time are published as they are, and those
    /// without a name are dropped.
    pub(super) fn recover(&mut self, now: WallMs) {
        let withheld = self.index.inodes().filter(|state| state.inode.is_withheld());
        let withheld: Vec<InodeId> = withheld.map(|state| state.inode.id).collect();
        for inode in withheld {
            if self.names(inode).is_empty() {
                let _ = self.apply(now, Operation::Abandon { inode });
            } else {
                let empty = VersionVector::new();
                let handle =
                    Handle { inode, context: empty, parents: Vec::new(), sees: BTreeSet::new() };
                let content = self.fresh_content();
                let _ = self.publish(now, &handle, content);
            }
        }
    }

    /// Gives a file a new version, and notes what it ended.
    pub(super) fn publish(
        &mut self,
        now: WallMs,
        handle: &Handle,
        content: Content,
    ) -> Result<Applied, OperationError<Infallible>> {
        let saved = saved(&content);
        let operation = Operation::Publish {
            inode: handle.inode,
            context: handle.context.clone(),
            parents: handle.parents.clone(),
            content,
            mtime: UnixTime { seconds: i64::try_from(now.0 / 1000).unwrap_or(0), nanoseconds: 0 },
            mark: Mark::Closed,
        };
        let applied = self.apply(now, operation)?;
        self.acts.push(Act { saved, ended: handle.sees.clone() });
        Ok(applied)
    }

    /// Bytes that nobody ever saved before.
    pub(super) fn fresh_content(&mut self) -> Content {
        self.saves += 1;
        let id = ChunkId::of(&self.saves.to_le_bytes());
        let layout = Layout::Inline(vec![Piece::Chunk { id, len_bytes: 100 }]);
        Content { size_bytes: 100, layout }
    }

    /// The names of a node.
    pub(super) fn names(&self, key: InodeId) -> Vec<kith_core::index::Shown> {
        let Ok(names) = self.index.shown_of(key);
        names
    }

    /// The kind of a node.
    pub(super) fn kind(&self, node: Node) -> Option<Kind> {
        let Ok(state) = self.index.inode(node.inode());
        state.map(|state| state.inode.kind)
    }

    /// Opens a node that is a file for writing: what it shows is what will be replaced.
    pub(super) fn open(&self, node: Node) -> Option<Handle> {
        let Ok(state) = self.index.inode(node.inode());
        let inode = state?.inode;
        let version = match node {
            Node::Inode(_) => inode.latest(),
            Node::Copy { version, .. } => inode.versions.get(&version),
        };
        let mut handle = Handle {
            inode: inode.id,
            context: VersionVector::new(),
            parents: Vec::new(),
            sees: BTreeSet::new(),
        };
        if let Some(version) = version {
            handle.context = version.context.clone();
            handle.context.include(version.dot);
            handle.parents.push(version.dot);
            handle.sees.extend(saved(&version.content));
        }
        Some(handle)
    }

    /// What a node shows.
    pub(super) fn shows(&self, node: Node) -> BTreeSet<Saved> {
        self.open(node).map(|handle| handle.sees).unwrap_or_default()
    }
}

/// What tells a version's bytes from all others, unless they are of a kind that several save.
pub(super) fn saved(content: &Content) -> Option<Saved> {
    match &content.layout {
        Layout::Inline(pieces) => match pieces.as_slice() {
            [Piece::Chunk { id, len_bytes: 100 }] => Some(*id),
            _ => None,
        },
        Layout::Tree { .. } => None,
    }
}
