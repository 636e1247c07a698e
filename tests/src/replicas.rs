//! Replicas of one share in memory, for tests of the tree's rules alone: what one has reaches the
//! other as registers, without sessions and messages.
#![expect(clippy::unwrap_used, reason = "a test fails where it unwraps")]

use crate::memory_index::MemoryIndex;
use kith_core::clock::WallMs;
use kith_core::content::{Content, Layout, Piece};
use kith_core::id::{ChunkId, DeviceId, Dot, InodeId, ShareId, Tag, WriterId};
use kith_core::index::{EntryState, IndexRead, Node, Register, Shown};
use kith_core::name::EntryName;
use kith_core::operation::{Applied, Context, Operation, OperationError, RenameMode, apply, found};
use kith_core::receive::receive;
use kith_core::register::{Inode, Kind, Mark, Owner, UnixTime};
use kith_core::vector::VersionVector;
use kith_core::view::{Whole, compute};
use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;

/// Content whose bytes are told apart by a number; 0 is empty.
pub fn content(number: u8) -> Content {
    if number == 0 {
        return Content::empty();
    }
    let id = ChunkId::of(&[number]);
    let pieces = vec![Piece::Chunk { id, len_bytes: u32::from(number) }];
    Content { size_bytes: u64::from(number), layout: Layout::Inline(pieces) }
}

/// A name.
pub fn name(text: &str) -> EntryName {
    EntryName::new(text.as_bytes()).unwrap()
}

/// One device.
#[derive(Clone)]
pub struct Replica {
    /// What it holds.
    pub index: MemoryIndex,
    /// Its clock, in milliseconds since 1970.
    pub now: u64,
    tag: u64,
    /// What an open file would have been made from.
    pub bases: BTreeMap<InodeId, VersionVector>,
}

impl Replica {
    /// A device with an empty share, whose clock says `now`.
    pub fn new(number: u64, now: u64) -> Replica {
        let mut index = MemoryIndex::new();
        let device = DeviceId([number as u8; 32]);
        let author = ["desk", "lap", "box", "pad"][number as usize % 4].to_owned();
        let writer = WriterId(number + 1);
        found(&mut index, ShareId([7; 16]), device, writer, author, WallMs(now), Tag(0)).unwrap();
        Replica { index, now, tag: number << 32, bases: BTreeMap::new() }
    }

    /// Time and randomness for a transaction.
    pub fn context(&mut self) -> Context {
        self.now += 1000;
        self.tag += 1;
        Context { now: WallMs(self.now), tag: Tag(self.tag) }
    }

    /// Does an operation; one that is refused changes nothing.
    pub fn apply(&mut self, operation: Operation) -> Result<Applied, OperationError<Infallible>> {
        let before = self.index.clone();
        let context = self.context();
        let applied = apply(&mut self.index, context, operation);
        if applied.is_err() {
            self.index = before;
        }
        applied
    }

    /// Takes in what another device has.
    pub fn receive(&mut self, registers: Vec<Register>) {
        let context = self.context();
        receive(&mut self.index, context, registers).unwrap();
    }

    /// Gives a file a version with the bytes of a number.
    pub fn publish(
        &mut self,
        inode: InodeId,
        context: VersionVector,
        number: u8,
    ) -> Result<Applied, OperationError<Infallible>> {
        let operation = Operation::Publish {
            inode,
            parents: context.dots().collect(),
            context,
            content: content(number),
            mtime: UnixTime::default(),
            mark: Mark::Closed,
        };
        self.apply(operation)
    }

    /// Makes a node that isn't complete yet, if it is a file.
    pub fn create(&mut self, parent: InodeId, at: &str, kind: Kind) -> InodeId {
        let (user, group) = (Owner::Person, Owner::Person);
        let operation =
            Operation::Create { parent, name: name(at), kind, mode: 0o644, user, group };
        self.apply(operation).unwrap().node.unwrap().key()
    }

    /// A file of its own, complete.
    pub fn write(&mut self, parent: InodeId, at: &str, number: u8) {
        let inode = self.create(parent, at, Kind::File);
        self.publish(inode, VersionVector::new(), number).unwrap();
    }

    /// A new version of the file, made from the one that is shown.
    pub fn edit(&mut self, inode: InodeId, number: u8) {
        let context = self.shown_context(inode);
        self.publish(inode, context, number).unwrap();
    }

    /// Removes a name, of whatever kind.
    pub fn remove(&mut self, parent: InodeId, at: &str) {
        let row = self.index.shown(parent, &name(at)).unwrap().expect("the name is shown");
        let directory = self.kind(row.node) == Kind::Directory;
        self.apply(Operation::Remove { parent, name: name(at), directory }).unwrap();
    }

    /// Renames, over what may have the name.
    pub fn rename(&mut self, from: (InodeId, &str), to: (InodeId, &str)) {
        let (from, to) = ((from.0, name(from.1)), (to.0, name(to.1)));
        self.apply(Operation::Rename { from, to, mode: RenameMode::Replace }).unwrap();
    }

    /// What the shown version of a file was made from, itself included.
    pub fn shown_context(&self, inode: InodeId) -> VersionVector {
        let state = self.index.inode(inode).unwrap().unwrap();
        let mut context = VersionVector::new();
        if let Some(latest) = state.inode.latest() {
            context.join(&latest.context);
            context.include(latest.dot);
        }
        context
    }

    /// What a node is.
    pub fn kind(&self, node: Node) -> Kind {
        self.index.inode(node.inode()).unwrap().unwrap().inode.kind
    }

    /// The tree, a line for each name that can be reached: directories end in `/`, files have the
    /// number of their bytes.
    pub fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        self.list(InodeId::ROOT, "", &mut lines);
        lines
    }

    fn list(&self, directory: InodeId, prefix: &str, lines: &mut Vec<String>) {
        for row in self.index.list(directory, None, usize::MAX).unwrap() {
            let path = format!("{prefix}{}", row.name);
            let inode = self.index.inode(row.node.inode()).unwrap().unwrap().inode;
            match inode.kind {
                Kind::Directory => {
                    lines.push(format!("{path}/"));
                    self.list(inode.id, &format!("{path}/"), lines);
                }
                Kind::File => lines.push(match size(&inode, row.node) {
                    Some(size) => format!("{path}={size}"),
                    None => format!("{path}=?"),
                }),
                _ => lines.push(path),
            }
        }
    }

    /// Demands that the view that was kept up is the one that the registers make.
    pub fn check(&self) {
        let inodes: Vec<Inode> = self.index.inodes().map(|state| state.inode.clone()).collect();
        let entries: Vec<EntryState> = self.index.entries().cloned().collect();
        let kept = Whole {
            shown: self.index.view().cloned().collect(),
            entries: entries
                .iter()
                .map(|state| (state.entry.id, (state.shown_parent, state.present)))
                .collect(),
            unions: self.index.unions().collect(),
        };
        let anew = compute(&inodes, &entries);
        assert_eq!(kept.entries, anew.entries, "presence");
        assert_eq!(kept.unions, anew.unions, "unions");
        let (kept, anew): (BTreeSet<String>, BTreeSet<String>) =
            (kept.shown.iter().map(line).collect(), anew.shown.iter().map(line).collect());
        let (missing, extra) = (anew.difference(&kept), kept.difference(&anew));
        assert_eq!(
            (missing.collect::<Vec<_>>(), extra.collect::<Vec<_>>()),
            (vec![], vec![]),
            "names that are missing, and names too many"
        );
        for shown in self.index.view() {
            assert!(shown.wanted.is_some() || shown.name == shown.base);
        }
    }
}

fn line(row: &Shown) -> String {
    format!("{row:?}")
}

fn size(inode: &Inode, node: Node) -> Option<u64> {
    let version = match node {
        Node::Inode(_) => inode.latest(),
        Node::Copy { version, .. } => inode.versions.get(&version),
    };
    version.map(|version| version.content.size_bytes)
}

/// Some devices, and all versions that were ever published.
pub struct World {
    /// The devices.
    pub replicas: Vec<Replica>,
    /// The versions: of which file, and with which bytes.
    pub published: BTreeSet<(InodeId, Dot, Content)>,
}

impl World {
    /// Devices that know nothing of one another yet.
    pub fn new(count: usize) -> World {
        let replicas = (0..count as u64).map(|number| Replica::new(number, 1_700_000_000_000));
        World { replicas: replicas.collect(), published: BTreeSet::new() }
    }

    /// A new version from what the file was opened at, or from what is shown.
    pub fn publish(&mut self, at: usize, file: InodeId, number: u8) {
        let replica = &mut self.replicas[at];
        let inode = replica.index.inode(file).unwrap().unwrap().inode;
        let base = replica.bases.get(&file).cloned();
        let context = base.unwrap_or_else(|| replica.shown_context(file));
        let writer = replica.index.state().unwrap().writer;
        if replica.publish(file, context.clone(), number).is_err() {
            return;
        }
        let now = replica.index.inode(file).unwrap().unwrap().inode;
        let own = |dot: &&Dot| dot.writer == writer && !inode.versions.contains_key(*dot);
        let dot = *now.versions.keys().filter(own).max().expect("the version stands");
        assert_eq!(now.latest().unwrap().dot, dot, "what was saved last is the file");
        self.published.insert((file, dot, content(number)));
        replica.bases.insert(file, VersionVector::from_iter(context.dots().chain([dot])));
        for (old, version) in &inode.versions {
            let (old, version) = (*old, version);
            let twin = |of: &kith_core::register::Version| {
                context.covers(of.dot) && version.is_twin_of(of)
            };
            let merged = version.is_within(&context) || inode.versions.values().any(twin);
            let apart = replica.index.inode(InodeId(old)).unwrap();
            assert!(
                now.versions.contains_key(&old)
                    || context.covers(old)
                    || merged
                    || version.content == content(number)
                    || apart.is_some_and(|it| it.inode.versions.contains_key(&old)),
                "{old:?} of {file:?} was covered by one that was not made from it"
            );
        }
    }

    /// Finishes what is withheld, and has everybody hear of everything.
    pub fn heal(&mut self) {
        for at in 0..self.replicas.len() {
            let withheld = |replica: &Replica| {
                let files = replica.index.inodes().filter(|state| state.inode.is_withheld());
                files.map(|state| state.inode.id).collect::<Vec<_>>()
            };
            for file in withheld(&self.replicas[at]) {
                self.publish(at, file, 1);
                self.replicas[at].apply(Operation::Abandon { inode: file }).unwrap();
            }
            assert_eq!(withheld(&self.replicas[at]), []);
            self.replicas[at].check();
        }
        for _ in 0..2 {
            for to in 0..self.replicas.len() {
                for from in 0..self.replicas.len() {
                    let registers = self.replicas[from].index.registers();
                    self.replicas[to].receive(registers);
                    self.replicas[to].check();
                }
            }
        }
    }

    /// Demands that all devices show the same, and that nothing that was saved is lost.
    pub fn check_healed(&self) {
        let first = &self.replicas[0];
        for other in &self.replicas[1..] {
            assert_eq!(first.lines(), other.lines());
            let view = |replica: &Replica| replica.index.view().map(line).collect::<Vec<_>>();
            assert_eq!(view(first), view(other));
        }
        let reachable = first.lines().len();
        assert_eq!(first.index.view().count(), reachable, "everything can be reached");
        let mut shown = BTreeSet::new();
        for row in first.index.view() {
            let inode = first.index.inode(row.node.inode()).unwrap().unwrap().inode;
            let version = match row.node {
                Node::Inode(_) => inode.latest(),
                Node::Copy { version, .. } => inode.versions.get(&version),
            };
            shown.extend(version.map(|version| version.content.clone()));
        }
        for (inode, dot, content) in &self.published {
            let register = first.index.inode(*inode).unwrap().expect("the file is known").inode;
            let Some(version) = register.versions.get(dot) else {
                assert!(register.covered_versions().covers(*dot), "{dot:?} went without a cover");
                continue;
            };
            assert_eq!(version.content, *content);
            if shown.contains(content) {
                continue;
            }
            let entries = first.index.entries_of(*inode).unwrap();
            assert!(entries.iter().all(|state| !state.present), "{dot:?} is not shown");
            let removals = || entries.iter().filter_map(|state| state.entry.removal.as_ref());
            assert!(removals().any(|removal| removal.last_link));
            assert!(removals().any(|removal| removal.saw_content.covers(*dot)), "{dot:?} unseen");
        }
    }
}
