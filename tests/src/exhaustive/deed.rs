//! What a person can do next on a device, in a tree with few names.

use crate::memory_index::MemoryIndex;
use crate::replicas::{content, name};
use kith_core::clock::WallMs;
use kith_core::id::{DeviceId, InodeId, ShareId, Tag, WriterId};
use kith_core::index::{IndexRead, Node, Shown};
use kith_core::name::EntryName;
use kith_core::operation::{
    Applied, AttributeChange, Context, Operation, RenameMode, apply, found,
};
use kith_core::register::{Kind, Mark, Owner, UnixTime};
use kith_core::vector::VersionVector;

/// A kind of operation.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Sort {
    /// A new file, complete.
    Create,
    /// A new file that isn't complete, and its completion.
    Withhold,
    /// A new directory.
    Mkdir,
    /// A new symbolic link.
    Symlink,
    /// A file is opened, changed and closed.
    Edit,
    /// The same, to bytes that others write too.
    Same,
    /// A file is opened, and closed later.
    Open,
    /// A name goes that leads to no directory.
    Remove,
    /// An empty directory goes.
    Rmdir,
    /// A name moves to where none is.
    Rename,
    /// A name moves to where one is.
    Over,
    /// Two names change places.
    Exchange,
    /// One more name.
    Link,
    /// Another mode.
    Chmod,
    /// What a repair shows becomes ordinary.
    Settle,
}

impl Sort {
    /// All of them.
    pub const ALL: [Sort; 15] = [
        Sort::Create,
        Sort::Withhold,
        Sort::Mkdir,
        Sort::Symlink,
        Sort::Edit,
        Sort::Same,
        Sort::Open,
        Sort::Remove,
        Sort::Rmdir,
        Sort::Rename,
        Sort::Over,
        Sort::Exchange,
        Sort::Link,
        Sort::Chmod,
        Sort::Settle,
    ];
}

type At = (InodeId, EntryName);

#[derive(Clone, Debug)]
enum Act {
    Make { at: At, kind: Kind, complete: bool },
    Edit { node: Node, same: bool },
    Open(Node),
    Close,
    Finish(InodeId),
    Remove { at: At, directory: bool },
    Rename { from: At, to: At, mode: RenameMode },
    Link { node: Node, at: At },
    Chmod(Node),
    Settle(Node),
}

/// Something to do, and how it is told. Of what can be done at a time each is told differently.
#[derive(Clone, Debug)]
pub(super) struct Deed {
    pub(super) text: String,
    act: Act,
}

/// A file that is open, what it was opened at, and what that showed.
#[derive(Clone, Debug)]
pub(super) struct Handle {
    pub(super) inode: InodeId,
    pub(super) context: VersionVector,
    pub(super) sees: Option<u8>,
}

/// One device.
#[derive(Clone)]
pub(super) struct Device {
    pub(super) index: MemoryIndex,
    pub(super) handle: Option<Handle>,
}

/// The time, and which bytes were saved, by number, and of which somebody who saw them replaced or
/// removed them.
#[derive(Clone, Debug, Default)]
pub(super) struct Tally {
    pub(super) steps: u64,
    pub(super) saves: u8,
    pub(super) saved: u64,
    pub(super) ended: u64,
}

/// The number of bytes that several save.
const SAME: u8 = 200;
/// 2023-11-14 11.00.00, UTC. All happens within one second, so that labels meet.
const BEGIN_MS: u64 = 1_699_959_600_000;

impl Tally {
    fn context(&mut self) -> Context {
        self.steps += 1;
        Context { now: WallMs(BEGIN_MS + self.steps), tag: Tag(self.steps) }
    }

    fn save(&mut self) -> u8 {
        self.saves += 1;
        self.saved |= 1 << self.saves;
        self.saves
    }

    fn end(&mut self, bytes: Option<u8>) {
        self.ended |= bytes.filter(|bytes| *bytes < 64).map_or(0, |bytes| 1 << bytes);
    }

    /// What must be seen in the end.
    pub(super) fn due(&self) -> u64 {
        self.saved & !self.ended
    }
}

impl Device {
    pub(super) fn new(number: u64) -> Device {
        let mut index = MemoryIndex::new();
        let author = ["desk", "lap"][number as usize].to_owned();
        let (device, writer) = (DeviceId([number as u8 + 1; 32]), WriterId(number + 1));
        let now = WallMs(BEGIN_MS);
        let Ok(()) = found(&mut index, ShareId([7; 16]), device, writer, author, now, Tag(0));
        Device { index, handle: None }
    }

    fn apply(&mut self, tally: &mut Tally, operation: Operation) -> Option<Applied> {
        apply(&mut self.index, tally.context(), operation).ok()
    }

    /// What a node shows, and from which versions one that replaces it is made.
    fn opened(&self, node: Node) -> Option<Handle> {
        let Ok(state) = self.index.inode(node.inode());
        let inode = state?.inode;
        let version = match node {
            Node::Inode(_) => inode.latest(),
            Node::Copy { version, .. } => inode.versions.get(&version),
        };
        let mut context = VersionVector::new();
        if let Some(version) = version {
            context.join(&version.context);
            context.include(version.dot);
        }
        let sees = version.map(|version| version.content.size_bytes as u8);
        Some(Handle { inode: inode.id, context, sees })
    }

    fn publish(&mut self, tally: &mut Tally, handle: &Handle, bytes: u8) -> Option<()> {
        let operation = Operation::Publish {
            inode: handle.inode,
            context: handle.context.clone(),
            parents: Vec::new(),
            content: content(bytes),
            mtime: UnixTime::default(),
            mark: Mark::Closed,
        };
        self.apply(tally, operation)?;
        tally.end(handle.sees);
        Some(())
    }

    /// What is no more to be seen once the name is gone.
    fn ends(&self, at: &At) -> Option<u8> {
        let Ok(row) = self.index.shown(at.0, &at.1);
        let node = row?.node;
        let Ok(names) = self.index.shown_of(node.key());
        (names.len() == 1).then(|| self.opened(node)?.sees).flatten()
    }

    fn settled(&mut self, tally: &mut Tally, node: Node) -> Option<Node> {
        match node {
            Node::Inode(_) => Some(node),
            Node::Copy { .. } => self.apply(tally, Operation::Settle { node })?.node,
        }
    }

    /// Does it, or says that it can't be done, and is then no use any more.
    pub(super) fn perform(&mut self, tally: &mut Tally, deed: &Deed) -> Option<()> {
        match deed.act.clone() {
            Act::Make { at: (parent, name), kind, complete } => {
                let (user, group) = (Owner::Person, Owner::Person);
                let operation = Operation::Create { parent, name, kind, mode: 0o644, user, group };
                let node = self.apply(tally, operation)?.node?;
                if complete {
                    let handle = self.opened(node)?;
                    let bytes = tally.save();
                    self.publish(tally, &handle, bytes)?;
                }
            }
            Act::Edit { node, same } => {
                let node = self.settled(tally, node)?;
                let handle = self.opened(node)?;
                let bytes = if same { SAME } else { tally.save() };
                self.publish(tally, &handle, bytes)?;
            }
            Act::Open(node) => {
                let node = self.settled(tally, node)?;
                self.handle = self.opened(node);
            }
            Act::Close => {
                let handle = self.handle.take()?;
                let bytes = tally.save();
                self.publish(tally, &handle, bytes)?;
            }
            Act::Finish(inode) => {
                let handle = self.opened(Node::Inode(inode))?;
                let bytes = tally.save();
                self.publish(tally, &handle, bytes)?;
            }
            Act::Remove { at: (parent, name), directory } => {
                let ended = self.ends(&(parent, name.clone()));
                self.apply(tally, Operation::Remove { parent, name, directory })?;
                tally.end(ended);
            }
            Act::Rename { from, to, mode } => {
                let Ok(source) = self.index.shown(from.0, &from.1);
                let Ok(target) = self.index.shown(to.0, &to.1);
                let same = source.map(|row| row.node) == target.map(|row| row.node);
                let ended = self.ends(&to).filter(|_| mode == RenameMode::Replace && !same);
                self.apply(tally, Operation::Rename { from, to, mode })?;
                tally.end(ended);
            }
            Act::Link { node, at: (parent, name) } => {
                self.apply(tally, Operation::Link { node, parent, name })?;
            }
            Act::Chmod(node) => {
                let change = AttributeChange { mode: Some(0o600), ..AttributeChange::default() };
                self.apply(tally, Operation::SetAttributes { node, change })?;
            }
            Act::Settle(node) => drop(self.apply(tally, Operation::Settle { node })?),
        }
        Some(())
    }

    /// Finishes what is open.
    pub(super) fn finish(&mut self, tally: &mut Tally) {
        if let Some(handle) = self.handle.take() {
            let bytes = tally.save();
            let published = self.publish(tally, &handle, bytes);
            if published.is_none() {
                // It was removed while it was open.
                tally.saved &= !(1 << bytes);
            }
        }
        let withheld = self.index.inodes().filter(|state| state.inode.is_withheld());
        let withheld: Vec<InodeId> = withheld.map(|state| state.inode.id).collect();
        for inode in withheld {
            let handle = Handle { inode, context: VersionVector::new(), sees: None };
            let bytes = tally.save();
            if self.publish(tally, &handle, bytes).is_none() {
                tally.saved &= !(1 << bytes);
                self.apply(tally, Operation::Abandon { inode });
            }
        }
    }

    /// Everything shown, from the root on, with its path.
    pub(super) fn rows(&self) -> Vec<(String, Shown, Kind)> {
        let mut rows = Vec::new();
        let mut open = vec![(InodeId::ROOT, String::new())];
        while let Some((directory, prefix)) = open.pop() {
            let Ok(names) = self.index.list(directory, None, usize::MAX);
            for row in names {
                let Ok(state) = self.index.inode(row.node.inode());
                let kind = state.expect("what is shown is there").inode.kind;
                let path = format!("{prefix}{}", row.name);
                if kind == Kind::Directory {
                    open.push((row.node.key(), format!("{path}/")));
                }
                rows.push((path, row, kind));
            }
        }
        rows
    }

    /// All that can be done next, of these sorts.
    pub(super) fn deeds(&self, sorts: &[Sort]) -> Vec<Deed> {
        let rows = self.rows();
        let mut places = vec![(InodeId::ROOT, String::new(), vec!["a", "b", "d"])];
        for (path, row, kind) in &rows {
            if *kind == Kind::Directory && row.parent == InodeId::ROOT {
                places.push((row.node.key(), format!("{path}/"), vec!["a"]));
            }
        }
        let mut free: Vec<(String, At)> = Vec::new();
        for (directory, prefix, names) in places {
            for text in names {
                let at = (directory, name(text));
                if self.index.shown(at.0, &at.1) == Ok(None) {
                    free.push((format!("{prefix}{text}"), at));
                }
            }
        }
        let mut found = Found { deeds: Vec::new(), sorts };
        found.makings(&free);
        for (path, row, kind) in &rows {
            found.on(path, row, kind, &free, self);
            for (other, target, target_kind) in &rows {
                found.on_two((path, row, kind), (other, target, target_kind));
            }
        }
        if self.handle.is_some() {
            found.add(Sort::Open, "close".to_owned(), Act::Close);
        }
        found.deeds
    }
}

struct Found<'a> {
    deeds: Vec<Deed>,
    sorts: &'a [Sort],
}

impl Found<'_> {
    fn add(&mut self, sort: Sort, text: String, act: Act) {
        if self.sorts.contains(&sort) {
            self.deeds.push(Deed { text, act });
        }
    }

    fn makings(&mut self, free: &[(String, At)]) {
        for (path, at) in free {
            let make = |kind, complete| Act::Make { at: at.clone(), kind, complete };
            if path != "d" {
                self.add(Sort::Create, format!("write {path}"), make(Kind::File, true));
            }
            if matches!(path.as_str(), "a" | "b") {
                self.add(Sort::Withhold, format!("create {path}"), make(Kind::File, false));
            }
            if matches!(path.as_str(), "b" | "d") {
                self.add(Sort::Mkdir, format!("mkdir {path}"), make(Kind::Directory, false));
            }
            if path == "b" {
                let kind = Kind::Symlink(b"x"[..].into());
                self.add(Sort::Symlink, format!("symlink {path}"), make(kind, false));
            }
        }
    }

    fn on(&mut self, path: &str, row: &Shown, kind: &Kind, free: &[(String, At)], on: &Device) {
        let (node, at) = (row.node, (row.parent, row.name.clone()));
        let Ok(state) = on.index.inode(node.inode());
        let inode = state.expect("what is shown is there").inode;
        if *kind == Kind::File && inode.is_withheld() {
            self.add(Sort::Withhold, format!("finish {path}"), Act::Finish(inode.id));
        } else if *kind == Kind::File {
            self.add(Sort::Edit, format!("edit {path}"), Act::Edit { node, same: false });
            self.add(Sort::Same, format!("edit same {path}"), Act::Edit { node, same: true });
            if on.handle.is_none() {
                self.add(Sort::Open, format!("open {path}"), Act::Open(node));
            }
        }
        let directory = *kind == Kind::Directory;
        let remove = Act::Remove { at: at.clone(), directory };
        if directory {
            self.add(Sort::Rmdir, format!("rmdir {path}"), remove);
        } else {
            self.add(Sort::Remove, format!("rm {path}"), remove);
            for (to, place) in free.iter().filter(|(to, _)| to != "d") {
                let act = Act::Link { node, at: place.clone() };
                self.add(Sort::Link, format!("ln {path} {to}"), act);
            }
        }
        if inode.attributes.mode != 0o600 {
            self.add(Sort::Chmod, format!("chmod {path}"), Act::Chmod(node));
        }
        if row.repaired {
            self.add(Sort::Settle, format!("settle {path}"), Act::Settle(node));
        }
        for (to, place) in free {
            let (from, to_at, mode) = (at.clone(), place.clone(), RenameMode::NoReplace);
            let act = Act::Rename { from, to: to_at, mode };
            self.add(Sort::Rename, format!("mv {path} {to}"), act);
        }
    }

    fn on_two(&mut self, one: (&str, &Shown, &Kind), other: (&str, &Shown, &Kind)) {
        let ((path, row, kind), (to, target, target_kind)) = (one, other);
        if path == to {
            return;
        }
        let at = |row: &Shown| (row.parent, row.name.clone());
        if (*kind == Kind::Directory) == (*target_kind == Kind::Directory) {
            let act = Act::Rename { from: at(row), to: at(target), mode: RenameMode::Replace };
            self.add(Sort::Over, format!("mv {path} over {to}"), act);
        }
        if path < to {
            let act = Act::Rename { from: at(row), to: at(target), mode: RenameMode::Exchange };
            self.add(Sort::Exchange, format!("swap {path} {to}"), act);
        }
    }
}
