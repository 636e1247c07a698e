//! One replica: an index, what its disk has of it, and what the person at it is doing.

use super::history::Back;
use super::story;
use super::timeline::{Heard, Moment, Timeline};
use crate::memory_index::{Mark, MemoryIndex};
use kith_core::clock::WallMs;
use kith_core::content::{Content, Layout, Piece};
use kith_core::id::{ChunkId, DeviceId, Dot, InodeId, ShareId, Tag, WriterId};
use kith_core::index::{Index, IndexRead, Node};
use kith_core::operation::{
    Applied, Context, Operation, OperationError, apply as apply_operation, found,
};
use kith_core::register::{Kind, Mark as Why, UnixTime};
use kith_core::succession::{change_identity, succeed};
use kith_core::vector::VersionVector;
use std::collections::BTreeSet;
use std::convert::Infallible;

/// What somebody saved, as people would recognise it: different saves have different ones.
pub(super) type Saved = ChunkId;

/// How long it is.
const SAVED_BYTES: u32 = 100;

/// What somebody did that the checks must know of.
#[derive(Clone, Debug)]
pub(super) struct Act {
    pub(super) when: Moment,
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

/// One committed transaction.
struct Commit {
    timeline: Timeline,
    before: Mark,
    heard_before: Heard,
}

/// What an operation wrote something of, and the first and the last number that it gave out.
pub(super) struct Touch {
    pub(super) inode: InodeId,
    pub(super) first: Dot,
    pub(super) last: Dot,
}

/// One replica.
pub(super) struct Replica {
    pub(super) device: DeviceId,
    pub(super) index: MemoryIndex,
    pub(super) acts: Vec<Act>,
    pub(super) handles: Vec<Handle>,
    pub(super) off_ms: i64,
    pub(super) timeline: Timeline,
    pub(super) heard: Heard,
    /// What each operation touched, if anybody wants to know.
    pub(super) touches: Vec<Touch>,
    pub(super) keeps_touches: bool,
    author: String,
    commits: Vec<Commit>,
    /// How many commits the disk has for certain.
    durable: usize,
    /// How many commits there were when it last started.
    kept: usize,
    /// After how many commits the disk once had everything.
    syncs: Vec<usize>,
    tags: u64,
    saves: u64,
}

/// The circle's share.
const SHARE: ShareId = ShareId([0x5a; 16]);

impl Replica {
    /// A replica of the circle, or of one device alone with a share of its own.
    pub(super) fn new(number: u8, alone: bool, now: WallMs) -> Self {
        let author = format!("device {}", char::from(b'A' + number));
        let mut replica = Replica {
            device: DeviceId([number + 1; 32]),
            index: MemoryIndex::new(),
            acts: Vec::new(),
            handles: Vec::new(),
            off_ms: 0,
            timeline: Timeline::first(number),
            heard: Heard::default(),
            touches: Vec::new(),
            keeps_touches: false,
            author,
            commits: Vec::new(),
            durable: 0,
            kept: 0,
            syncs: vec![0],
            tags: u64::from(number) << 48,
            saves: u64::from(number) << 48,
        };
        replica.found(if alone { ShareId([number; 16]) } else { SHARE }, now);
        replica
    }

    fn found(&mut self, share: ShareId, now: WallMs) {
        let context = self.context(now);
        let writer = self.writer();
        let author = self.author.clone();
        self.index = MemoryIndex::new();
        let index = &mut self.index;
        let Ok(()) = found(index, share, self.device, writer, author, context.now, context.tag);
        self.index.keep_journal();
    }

    /// Time and randomness of a transaction.
    pub(super) fn context(&mut self, now: WallMs) -> Context {
        self.tags += 1;
        let now = WallMs(now.0.saturating_add_signed(self.off_ms));
        Context { now, tag: Tag(self.tags) }
    }

    /// A writer that nobody ever was.
    pub(super) fn writer(&mut self) -> WriterId {
        self.tags += 1;
        WriterId(0x1000_0000_0000_0000 | self.tags)
    }

    /// The present, in the order of this replica's commits.
    pub(super) fn present(&self) -> Moment {
        Moment { timeline: self.timeline, commits: self.commits.len() }
    }

    /// How many commits there were when it last started.
    pub(super) fn kept_commits(&self) -> usize {
        self.kept
    }

    /// Does one transaction: all of it, or nothing.
    pub(super) fn transact<T, E>(
        &mut self,
        work: impl FnOnce(&mut MemoryIndex) -> Result<T, E>,
    ) -> Result<T, E> {
        let before = self.index.mark();
        let result = work(&mut self.index);
        match &result {
            Ok(_) => {
                let (timeline, heard_before) = (self.timeline, self.heard.clone());
                self.commits.push(Commit { timeline, before, heard_before });
            }
            Err(_) => self.index.go_back(before),
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
        let (mark, Ok(before)) = (self.index.mark(), self.index.state());
        let result = self.transact(|index| apply_operation(index, context, operation));
        if self.keeps_touches && result.is_ok() {
            self.note_touches(mark, before.number);
        }
        story::tell(|| format!("{:?}: {} -> {result:?}", self.device, text.unwrap_or_default()));
        result
    }

    /// Notes what a person just did.
    pub(super) fn note(&mut self, saved: Option<Saved>, ended: BTreeSet<Saved>) {
        if saved.is_some() || !ended.is_empty() {
            self.acts.push(Act { when: self.present(), saved, ended });
        }
    }

    /// The disk has everything.
    pub(super) fn sync(&mut self) {
        if self.durable != self.commits.len() {
            self.durable = self.commits.len();
            self.syncs.push(self.durable);
        }
    }

    /// Stops without warning, with some of what the disk may lack, and starts again.
    pub(super) fn crash(&mut self, now: WallMs, chance: u64) {
        let open = self.commits.len() - self.durable;
        let kept = self.durable + index_below(chance, open + 1);
        self.restart(now, kept);
    }

    /// Gets back what the disk once had.
    pub(super) fn roll_back(&mut self, now: WallMs, chance: u64) {
        let kept = self.older(chance);
        self.restart(now, kept);
    }

    /// What the disk once had, as a number of commits.
    fn older(&self, chance: u64) -> usize {
        // Mostly a recent state.
        let back = 1 + index_below(chance, self.syncs.len().min(1 + index_below(chance >> 32, 6)));
        self.syncs[self.syncs.len().saturating_sub(back)]
    }

    /// Takes another identity, with an index that is as it was, or gone, or an older one.
    pub(super) fn become_another(&mut self, device: DeviceId, now: WallMs, back: Back) {
        match back {
            Back::AsItWas => self.kept = self.commits.len(),
            Back::Older { chance } => {
                let kept = self.older(chance);
                self.go_back(kept);
            }
            Back::Empty => {
                self.device = device;
                return self.lose(now);
            }
        }
        self.device = device;
        self.handles.clear();
        let (context, writer) = (self.context(now), self.writer());
        let Ok(_) = self.transact(|index| change_identity(index, context, writer, device));
        self.recover(now);
    }

    fn restart(&mut self, now: WallMs, kept: usize) {
        self.go_back(kept);
        self.handles.clear();
        self.start(now);
    }

    fn go_back(&mut self, kept: usize) {
        story::tell(|| format!("{:?} starts with {kept} of {}", self.device, self.commits.len()));
        if let Some(commit) = self.commits.get(kept) {
            self.index.go_back(commit.before);
            self.heard = commit.heard_before.clone();
            self.commits.truncate(kept);
        }
        self.syncs.retain(|at| *at <= kept);
        self.kept = kept;
        self.durable = kept;
        for (at, commit) in self.commits.iter().enumerate() {
            self.heard.hear(Moment { timeline: commit.timeline, commits: at + 1 });
        }
        self.timeline = self.timeline.next();
    }

    /// Loses everything, and begins again.
    pub(super) fn lose(&mut self, now: WallMs) {
        let Ok(state) = self.index.state();
        self.commits.clear();
        self.syncs = vec![0];
        (self.durable, self.kept) = (0, 0);
        self.heard = Heard::default();
        self.timeline = self.timeline.next();
        self.handles.clear();
        self.found(state.share, now);
    }

    /// A copy on another machine, which is the same device to everybody.
    pub(super) fn fork(&mut self, number: u8, now: WallMs) -> Replica {
        let mut heard = self.heard.clone();
        for (at, commit) in self.commits.iter().enumerate() {
            heard.hear(Moment { timeline: commit.timeline, commits: at + 1 });
        }
        let mut copy = Replica {
            device: self.device,
            index: self.index.fork(),
            acts: Vec::new(),
            handles: Vec::new(),
            off_ms: self.off_ms,
            timeline: Timeline::first(number),
            heard,
            touches: Vec::new(),
            keeps_touches: self.keeps_touches,
            author: self.author.clone(),
            commits: Vec::new(),
            durable: 0,
            kept: 0,
            syncs: vec![0],
            tags: u64::from(number) << 48,
            saves: u64::from(number) << 48,
        };
        copy.start(now);
        copy
    }

    /// Begins with an index of which it isn't certain that nobody else goes on with it.
    fn start(&mut self, now: WallMs) {
        let (context, writer) = (self.context(now), self.writer());
        let Ok(_) = self.transact(|index| succeed(index, context, writer));
        self.recover(now);
    }

    /// Takes part in the circle's share with what it has.
    pub(super) fn join(&mut self) {
        let Ok(state) = self.index.state();
        if state.share == SHARE {
            return;
        }
        let Ok(()) = self.transact(|index| {
            let mut state = index.state()?;
            state.share = SHARE;
            index.put_state(&state)
        });
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
        let saved = saved(&content).next();
        let operation = Operation::Publish {
            inode: handle.inode,
            context: handle.context.clone(),
            parents: handle.parents.clone(),
            content,
            mtime: UnixTime { seconds: i64::try_from(now.0 / 1000).unwrap_or(0), nanoseconds: 0 },
            mark: Why::Closed,
        };
        let applied = self.apply(now, operation)?;
        self.note(saved, handle.sees.clone());
        Ok(applied)
    }

    /// Bytes that nobody ever saved before.
    pub(super) fn fresh_content(&mut self) -> Content {
        self.saves += 1;
        let mut id = [0; 32];
        let [_, replica, .., a, b] = self.saves.to_be_bytes();
        id[..3].copy_from_slice(&[replica, a, b]);
        whole([ChunkId(id)])
    }

    /// The names of a node.
    pub(super) fn names(&self, key: InodeId) -> Vec<kith_core::index::Shown> {
        let Ok(names) = self.index.shown_of(key);
        names
    }

    /// The kind of a node.
    pub(super) fn kind(&self, node: Node) -> Option<&Kind> {
        self.index.held_inode(node.inode()).map(|state| &state.inode.kind)
    }

    /// Opens a node that is a file for writing: what it shows is what will be replaced.
    pub(super) fn open(&self, node: Node) -> Option<Handle> {
        let inode = &self.index.held_inode(node.inode())?.inode;
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
    pub(super) fn shows(&self, node: Node) -> impl Iterator<Item = Saved> + '_ {
        let held = self.index.held_inode(node.inode());
        let version = held.and_then(|held| match node {
            Node::Inode(_) => held.inode.latest(),
            Node::Copy { version, .. } => held.inode.versions.get(&version),
        });
        version.into_iter().flat_map(|version| saved(&version.content))
    }
}

/// A number below `end` drawn from some chance.
fn index_below(chance: u64, end: usize) -> usize {
    usize::try_from((chance & 0xffff_ffff) % end.max(1) as u64).expect("it is below a usize")
}

/// The content of a file that has these bytes, each of which somebody saved.
pub(super) fn whole(saved: impl IntoIterator<Item = Saved>) -> Content {
    let pieces = saved.into_iter().map(|id| Piece::Chunk { id, len_bytes: SAVED_BYTES });
    let pieces: Vec<Piece> = pieces.collect();
    Content {
        size_bytes: pieces.iter().map(Piece::len_bytes).sum(),
        layout: Layout::Inline(pieces),
    }
}

/// What people saved of a content: one thing, or several that were merged. Nothing where it can't
/// be told from what others save.
pub(super) fn saved(content: &Content) -> impl Iterator<Item = Saved> + '_ {
    let pieces = match &content.layout {
        Layout::Inline(pieces) => pieces.as_slice(),
        Layout::Tree { .. } => &[],
    };
    pieces.iter().filter_map(|piece| match piece {
        Piece::Chunk { id, .. } => Some(*id),
        Piece::Hole { .. } => None,
    })
}
