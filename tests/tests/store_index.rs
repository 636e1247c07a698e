//! The index on disk against the index in memory: the same changes, the same answers.

#![expect(clippy::unwrap_used, reason = "the helpers of tests are tests too")]

use kith_core::clock::{Hlc, Stamp, WallMs};
use kith_core::content::{Content, Layout, NodeRef, Piece};
use kith_core::id::{
    ChunkId, Cursor, DeviceId, Dot, EntryId, InodeId, Reached, ShareId, Tag, WriterId,
};
use kith_core::index::{
    EntryState, Index, IndexRead, InodeState, Node, ReplicaState, Retired, Shown,
};
use kith_core::name::EntryName;
use kith_core::register::{
    Attributes, Entry, Inode, Kind, Mark, Owner, Parted, Place, Removal, UnixTime, Version,
};
use kith_core::vector::VersionVector;
use kith_store::{Founding, NodeRead, Store, StoreError};
use kith_tests::memory_index::MemoryIndex;
use kith_tests::random::Random;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;

const WRITERS: [u64; 3] = [3, 7, u64::MAX];

fn name(number: u64) -> EntryName {
    EntryName::new(format!("name-{number}").as_bytes()).unwrap()
}

fn dots() -> Vec<Dot> {
    let numbers = [1, 2, 3, 4, u64::from(u32::MAX) + 2];
    let dot = |writer: u64, number| Dot { writer: WriterId(writer), number };
    WRITERS.iter().flat_map(|writer| numbers.map(|number| dot(*writer, number))).collect()
}

/// What an inode of this id is: a function of the id, because it never changes.
fn kind(id: InodeId) -> Kind {
    match (id == InodeId::ROOT, id.0.number % 4) {
        (true, _) | (false, 1) => Kind::Directory,
        (false, 2 | 3) => Kind::File,
        (false, _) => Kind::Symlink(b"target".as_slice().into()),
    }
}

fn size(version: Dot) -> u64 {
    version.number % 5 * 1000
}

fn content(version: Dot) -> Content {
    let id = ChunkId::of(&version.number.to_le_bytes());
    let size_bytes = size(version);
    let len_bytes = u32::try_from(size_bytes).unwrap();
    let layout = match version.number % 3 {
        _ if size_bytes == 0 => Layout::Inline(Vec::new()),
        0 => Layout::Tree {
            height: 0,
            nodes: vec![NodeRef { id, len_bytes: 40, span_bytes: size_bytes }],
        },
        1 => Layout::Inline(vec![Piece::Chunk { id, len_bytes }]),
        _ => Layout::Inline(vec![Piece::Hole { len_bytes: size_bytes }]),
    };
    Content { size_bytes, layout }
}

fn lacks_bytes(version: Dot) -> bool {
    size(version) > 0 && version.number % 3 != 2
}

#[derive(Clone, Debug)]
enum Change {
    State(ReplicaState),
    Tag(u64, Tag),
    Reached(DeviceId, Reached),
    Inode(Box<InodeState>),
    Entry(Box<EntryState>),
    ForgetInode(InodeId),
    ForgetEntry(EntryId),
    Representative(InodeId, InodeId),
    Shown(Shown),
    Hidden(InodeId, EntryName),
    Retired(InodeId, Version),
}

fn perform<I: Index>(index: &mut I, change: &Change) -> Result<(), I::Error> {
    match change {
        Change::State(state) => index.put_state(state),
        Change::Tag(last, tag) => index.put_tag(*last, *tag),
        Change::Reached(device, reached) => index.put_reached(*device, *reached),
        Change::Inode(state) => index.put_inode(state),
        Change::Entry(state) => index.put_entry(state),
        Change::ForgetInode(id) => index.forget_inode(*id),
        Change::ForgetEntry(id) => index.forget_entry(*id),
        Change::Representative(directory, shown_as) => {
            index.put_representative(*directory, *shown_as)
        }
        Change::Shown(shown) => index.put_shown(shown),
        Change::Hidden(parent, name) => index.remove_shown(*parent, name),
        Change::Retired(inode, version) => {
            index.retire(*inode, version, Retired::Superseded, WallMs(1))
        }
    }
}

/// Draws changes that keep to what the index asks of its callers.
struct Source {
    random: Random,
    dots: Vec<Dot>,
    logged: u64,
    version: u64,
}

impl Source {
    fn dot(&mut self) -> Dot {
        *self.random.pick(&self.dots)
    }

    fn directory(&mut self) -> InodeId {
        loop {
            let id = if self.random.chance(30) { InodeId::ROOT } else { InodeId(self.dot()) };
            if kind(id) == Kind::Directory {
                return id;
            }
        }
    }

    fn name(&mut self) -> EntryName {
        name(self.random.below(4))
    }

    fn stamp(&mut self) -> Stamp {
        let writer = WriterId(*self.random.pick(&WRITERS));
        Stamp { hlc: Hlc(self.random.draw() >> 20), writer }
    }

    fn log(&mut self) -> u64 {
        if self.random.chance(20) {
            return 0;
        }
        self.logged += 1;
        self.logged
    }

    fn inode(&mut self, memory: &MemoryIndex) -> InodeState {
        let id = InodeId(self.dot());
        let mut versions = BTreeMap::new();
        let had_some = memory.inode(id).unwrap().is_some_and(|old| !old.inode.versions.is_empty());
        if kind(id) == Kind::File {
            for _ in u64::from(!had_some)..self.random.between(1, 4) {
                self.version += 1;
                let dot = Dot { writer: WriterId(9), number: 100 + self.version };
                let version = Version {
                    stamp: self.stamp(),
                    dot,
                    context: VersionVector::new(),
                    parents: vec![self.dot()],
                    author: "desk".into(),
                    mtime: UnixTime { seconds: -3, nanoseconds: 5 },
                    content: content(dot),
                    mark: Mark::Closed,
                    unread: BTreeMap::new(),
                };
                versions.insert(dot, version);
            }
        }
        let attributes = Attributes {
            stamp: self.stamp(),
            dot: self.dot(),
            mode: 0o644,
            user: Owner::Person,
            group: Owner::Number(7),
            mtime: None,
            xattrs: BTreeMap::new(),
            unread: BTreeMap::new(),
        };
        let (parted, unread) = (Parted::default(), BTreeMap::new());
        let inode = Inode { id, kind: kind(id), attributes, versions, parted, unread };
        InodeState { inode, logged: self.log() }
    }

    fn entry(&mut self) -> EntryState {
        let id = EntryId(self.dot());
        let shown_parent = self.directory();
        let parent = if self.random.chance(80) { shown_parent } else { self.directory() };
        let removal = Removal {
            stamp: self.stamp(),
            dots: [self.dot()].into_iter().collect(),
            saw_place: self.stamp(),
            saw_content: VersionVector::new(),
            last_link: self.random.chance(50),
            author: self.random.chance(50).then(|| "lap".into()),
            unread: BTreeMap::new(),
        };
        let place = Place {
            stamp: self.stamp(),
            dot: self.dot(),
            parent,
            name: self.name(),
            replaced: None,
            carried: self.random.chance(10).then(|| self.dot()),
            author: "lap".into(),
            unread: BTreeMap::new(),
        };
        let inode = InodeId(Dot { number: id.0.number % 4 + 1, ..id.0 });
        let withheld = self.random.chance(10).then(|| (removal.clone(), InodeId(self.dot())));
        let removal = self.random.chance(20).then_some(removal);
        EntryState {
            entry: Entry { id, inode, place, removal, unread: BTreeMap::new() },
            withheld,
            logged: self.log(),
            shown_parent,
            present: self.random.chance(80),
        }
    }

    /// A name that is an entry where it is, or one that repairs made.
    fn shown(&mut self, memory: &MemoryIndex) -> Option<Shown> {
        let entries: Vec<&EntryState> = memory.entries().filter(|state| state.present).collect();
        if entries.is_empty() {
            return None;
        }
        let state = *self.random.pick(&entries);
        let inode = memory.inode(state.entry.inode).unwrap()?.inode;
        let base = state.entry.place.name.clone();
        let mut shown = Shown {
            parent: state.shown_parent,
            name: base.clone(),
            node: Node::Inode(inode.id),
            entry: state.entry.id,
            base,
            wanted: None,
            repaired: false,
        };
        if self.random.chance(40) {
            let latest = inode.latest().map(|version| version.dot);
            let others: Vec<Dot> =
                inode.versions.keys().copied().filter(|dot| Some(*dot) != latest).collect();
            shown.parent = self.directory();
            shown.name = self.name();
            shown.wanted = self.random.chance(50).then(|| self.name());
            shown.repaired = self.random.chance(50);
            if !others.is_empty() && self.random.chance(70) {
                let version = *self.random.pick(&others);
                shown.node = Node::Copy { inode: inode.id, version };
            }
        }
        Some(shown)
    }

    fn change(&mut self, memory: &MemoryIndex) -> Option<Change> {
        Some(match self.random.below(20) {
            0 => {
                let mut state = memory.state().unwrap();
                state.number += 1;
                state.hlc = self.stamp().hlc;
                if self.random.chance(20) {
                    state.knowledge.include(self.dot());
                    state.author = "other".into();
                }
                Change::State(state)
            }
            1 => {
                let head = Cursor {
                    writer: WriterId(self.random.draw()),
                    number: self.random.draw(),
                    tag: Tag(self.random.draw()),
                };
                let reached = Reached { number: self.random.draw(), head };
                Change::Reached(DeviceId([self.random.below(3) as u8; 32]), reached)
            }
            2..6 => Change::Inode(Box::new(self.inode(memory))),
            6..10 => Change::Entry(Box::new(self.entry())),
            10 => {
                let id = InodeId(self.dot());
                let state = memory.inode(id).unwrap()?;
                let unseen = memory.view().all(|shown| shown.node.inode() != id);
                (state.inode.is_withheld() && unseen).then_some(Change::ForgetInode(id))?
            }
            11 => Change::ForgetEntry(EntryId(self.dot())),
            12 => Change::Representative(self.directory(), self.directory()),
            13..17 => Change::Shown(self.shown(memory)?),
            17 | 18 => {
                let view: Vec<&Shown> = memory.view().collect();
                if view.is_empty() {
                    return None;
                }
                let shown = *self.random.pick(&view);
                Change::Hidden(shown.parent, shown.name.clone())
            }
            _ => {
                let state = memory.inode(InodeId(self.dot())).unwrap()?.inode;
                let version = state.versions.values().next()?.clone();
                Change::Retired(state.id, version)
            }
        })
    }
}

#[track_caller]
fn same<T: PartialEq + Debug>(disk: Result<T, StoreError>, memory: &T) {
    assert_eq!(&disk.unwrap(), memory);
}

/// Demands that every question has the same answer.
fn compare(disk: &(impl IndexRead<Error = StoreError> + NodeRead), memory: &MemoryIndex) {
    same(disk.state(), &memory.state().unwrap());
    for number in 0..20 {
        same(disk.tag(number), &memory.tag(number).unwrap());
    }
    for device in 0..3 {
        let device = DeviceId([device; 32]);
        same(disk.reached(device), &memory.reached(device).unwrap());
    }
    for after in [0, 1, 5, 20, u64::MAX] {
        for limit in [1, 3, 1000] {
            same(disk.changes_after(after, limit), &memory.changes_after(after, limit).unwrap());
        }
    }
    let names: Vec<EntryName> = (0..5).map(name).collect();
    for dot in dots().into_iter().chain([InodeId::ROOT.0]) {
        let inode = InodeId(dot);
        same(disk.inode(inode), &memory.inode(inode).unwrap());
        same(disk.entry(EntryId(dot)), &memory.entry(EntryId(dot)).unwrap());
        same(disk.entries_of(inode), &memory.entries_of(inode).unwrap());
        same(disk.any_present_in(inode), &memory.any_present_in(inode).unwrap());
        same(disk.names_present_in(inode), &memory.names_present_in(inode).unwrap());
        same(disk.waiting_for(inode), &memory.waiting_for(inode).unwrap());
        same(disk.representative(inode), &memory.representative(inode).unwrap());
        same(disk.members(inode), &memory.members(inode).unwrap());
        same(disk.shown_of(inode), &memory.shown_of(inode).unwrap());
        for after in [None, Some(&names[1])] {
            for limit in [1, 2, 100] {
                let listed = memory.list(inode, after, limit).unwrap();
                let nodes = disk.list_nodes(inode, after, limit).unwrap();
                let nodes: Vec<Shown> = nodes.into_iter().map(|(shown, ..)| shown).collect();
                assert_eq!(nodes, listed);
                same(disk.list(inode, after, limit), &listed);
            }
        }
        for name in &names {
            same(disk.entries_at(inode, name), &memory.entries_at(inode, name).unwrap());
            let shown = memory.shown(inode, name).unwrap();
            let found = disk.look_up(inode, name).unwrap();
            assert_eq!(found.as_ref().map(|(shown, ..)| shown), shown.as_ref());
            if let Some((shown, node, state)) = found {
                assert_eq!(node.node, shown.node);
                assert_eq!(Some(state), memory.inode(shown.node.inode()).unwrap());
            }
            same(disk.shown(inode, name), &shown);
            same(disk.shown_from(inode, name), &memory.shown_from(inode, name).unwrap());
            same(disk.shown_wanting(inode, name), &memory.shown_wanting(inode, name).unwrap());
        }
    }
    compare_counters(disk, memory);
}

fn compare_counters(disk: &(impl IndexRead<Error = StoreError> + NodeRead), memory: &MemoryIndex) {
    let mut bytes = 0;
    let mut subdirectories: BTreeMap<InodeId, u32> = BTreeMap::new();
    for shown in memory.view() {
        let state = memory.inode(shown.node.inode()).unwrap().unwrap();
        bytes += match shown.node {
            Node::Inode(_) => state.inode.latest().map_or(0, |version| size(version.dot)),
            Node::Copy { version, .. } => size(version),
        };
        if kind(shown.node.key()) == Kind::Directory && shown.node == Node::Inode(state.inode.id) {
            *subdirectories.entry(shown.parent).or_default() += 1;
        }
        let links = memory.shown_of(shown.node.key()).unwrap().len();
        assert_eq!(disk.links(shown.node.key()).unwrap() as usize, links);
    }
    for dot in dots() {
        let expected = subdirectories.get(&InodeId(dot)).copied().unwrap_or(0);
        same(disk.subdirectories(InodeId(dot)), &expected);
    }
    let totals = disk.totals().unwrap();
    assert_eq!(totals.entries as usize, memory.view().count());
    assert_eq!(totals.bytes, bytes);
    let labelled = memory.view().filter(|shown| shown.wanted.is_some()).count();
    assert_eq!(totals.conflicts as usize, labelled);
}

fn compare_incomplete(store: &Store, memory: &MemoryIndex) {
    let nodes: BTreeSet<Node> = memory.view().map(|shown| shown.node).collect();
    let mut lacking = BTreeMap::new();
    for state in memory.inodes() {
        let latest = state.inode.latest().map(|version| version.dot);
        for dot in state.inode.versions.keys().filter(|dot| lacks_bytes(**dot)) {
            let node = match latest == Some(*dot) {
                true => Node::Inode(state.inode.id),
                false => Node::Copy { inode: state.inode.id, version: *dot },
            };
            if nodes.contains(&node) {
                lacking.insert((state.inode.id, *dot), size(*dot));
            }
        }
    }
    let found = store.incomplete(0, usize::MAX).unwrap();
    assert!(found.is_sorted_by_key(|incomplete| incomplete.order));
    for incomplete in &found {
        assert_eq!(incomplete.content, content(incomplete.version));
    }
    let found: BTreeMap<(InodeId, Dot), u64> =
        found.into_iter().map(|one| ((one.inode, one.version), one.absent_bytes)).collect();
    assert_eq!(found, lacking);
    assert_eq!(store.absent_bytes().unwrap(), lacking.values().sum::<u64>());
}

fn founding() -> Founding {
    Founding {
        share: ShareId([5; 16]),
        device: DeviceId([6; 32]),
        writer: WriterId(WRITERS[1]),
        author: "desk".into(),
        now: WallMs(1000),
        tag: Tag(u64::MAX),
    }
}

/// Why a transaction is given up in this test.
enum GivenUp {
    OnPurpose,
    Failed(StoreError),
}

impl From<StoreError> for GivenUp {
    fn from(error: StoreError) -> Self {
        GivenUp::Failed(error)
    }
}

fn run(seed: u64) {
    let directory = tempfile::tempdir().unwrap();
    let mut store = Store::open(directory.path(), &founding()).unwrap();
    let mut memory = MemoryIndex::new();
    let Founding { share, device, writer, author, now, tag } = founding();
    kith_core::operation::found(&mut memory, share, device, writer, author, now, tag).unwrap();
    let mut source = Source { random: Random::new(seed), dots: dots(), logged: 100, version: 0 };
    let mut numbers: BTreeMap<InodeId, u64> = BTreeMap::new();
    for step in 0..60 {
        let before = memory.clone();
        let (given_up, compared) = (source.random.chance(15), source.random.chance(30));
        let changes = source.random.between(1, 8);
        let done = store.write(|transaction| {
            for _ in 0..changes {
                let Some(change) = source.change(&memory) else { continue };
                perform(&mut memory, &change).unwrap();
                perform(transaction, &change)?;
                if let Change::ForgetInode(id) = change {
                    numbers.remove(&id);
                }
            }
            let last = memory.state().unwrap().number;
            perform(&mut memory, &Change::Tag(last, Tag(step))).unwrap();
            perform(transaction, &Change::Tag(last, Tag(step)))?;
            if compared {
                compare(transaction, &memory);
            }
            if given_up { Err(GivenUp::OnPurpose) } else { Ok(()) }
        });
        match done {
            Ok(()) => {}
            Err(GivenUp::OnPurpose) => memory = before,
            Err(GivenUp::Failed(error)) => panic!("seed {seed}, step {step}: {error:?}"),
        }
        if source.random.chance(5) {
            store.close();
            drop(store);
            store = Store::open(directory.path(), &founding()).unwrap();
            assert!(!store.was_unclean());
        }
        let snapshot = store.snapshot().unwrap();
        if source.random.chance(30) {
            compare(&snapshot, &memory);
        }
        compare_incomplete(&store, &memory);
        for shown in memory.view() {
            let node = snapshot.node_of(shown.node.key()).unwrap().unwrap();
            assert_eq!(snapshot.node(node.ino).unwrap(), Some(node));
            let first = *numbers.entry(shown.node.key()).or_insert(node.ino);
            assert!(given_up || first == node.ino, "a node keeps its number");
        }
        let distinct: BTreeSet<u64> = numbers.values().copied().collect();
        assert_eq!(distinct.len(), numbers.len(), "no two nodes have one number");
    }
}

#[test]
fn the_index_on_disk_answers_as_the_one_in_memory() {
    for seed in 0..10 {
        run(seed);
    }
}
