//! A volume in memory, for tests of the mount: simple, and with handles to pull.
#![expect(clippy::unwrap_used, reason = "a test fails where it unwraps")]

use kith_core::clock::WallMs;
use kith_core::name::EntryName;
use kith_core::register::{Kind, Owner, UnixTime};
use kith_fs::volume::{
    Access, Allocation, ChangeError, FileError, Handle, Ino, Listed, LookupError, NewNode,
    NodeChange, NodeInfo, Outdated, Renaming, Room, Sought, StorageError, Volume, XattrError,
    XattrMode,
};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Condvar, Mutex, MutexGuard};
use std::time::{Duration, SystemTime};

const PAGE: usize = 4096;
/// Looking this name up panics.
pub(crate) const BROKEN: &[u8] = b"broken";

struct Node {
    info: NodeInfo,
    parent: Ino,
    names: BTreeMap<EntryName, Ino>,
    pages: BTreeMap<u64, Box<[u8; PAGE]>>,
    xattrs: BTreeMap<Box<[u8]>, Box<[u8]>>,
    handles: usize,
    stale: bool,
}

#[derive(Default)]
struct State {
    nodes: BTreeMap<Ino, Node>,
    handles: BTreeMap<Handle, (Ino, Access)>,
    last_ino: u64,
    last_handle: u64,
    outdated: VecDeque<Outdated>,
    absent: BTreeSet<Ino>,
    calls: BTreeMap<&'static str, u64>,
    closing: bool,
}

/// A volume in memory.
#[derive(Default)]
pub(crate) struct MemoryVolume {
    state: Mutex<State>,
    changed: Condvar,
}

impl State {
    fn node(&mut self, ino: Ino) -> Result<&mut Node, LookupError> {
        self.nodes.get_mut(&ino).ok_or(LookupError::Stale)
    }

    fn directory(&mut self, ino: Ino) -> Result<&mut Node, ChangeError> {
        let node = self.nodes.get_mut(&ino).ok_or(ChangeError::Stale)?;
        if node.info.kind == Kind::Directory { Ok(node) } else { Err(ChangeError::NotDirectory) }
    }

    fn add(&mut self, parent: Ino, new: &NewNode) -> Ino {
        self.last_ino += 1;
        let ino = Ino(self.last_ino);
        let size = if let Kind::Symlink(target) = &new.kind { target.len() as u64 } else { 0 };
        let info = NodeInfo {
            ino,
            links: if new.kind == Kind::Directory { 2 } else { 1 },
            kind: new.kind.clone(),
            mode: new.mode,
            user: new.user,
            group: new.group,
            size_bytes: size,
            stored_bytes: 0,
            modified: now(),
            changed: now(),
            accessed: None,
            has_lists: new.xattrs.iter().any(|(name, _)| name.starts_with(b"system.")),
        };
        let node = Node {
            info,
            parent,
            names: BTreeMap::new(),
            pages: BTreeMap::new(),
            xattrs: new.xattrs.iter().cloned().collect(),
            handles: 0,
            stale: false,
        };
        self.nodes.insert(ino, node);
        ino
    }

    fn make(&mut self, parent: Ino, name: &EntryName, new: &NewNode) -> Result<Ino, ChangeError> {
        if self.directory(parent)?.names.contains_key(name) {
            return Err(ChangeError::Exists);
        }
        let ino = self.add(parent, new);
        let directory = self.directory(parent)?;
        directory.names.insert(name.clone(), ino);
        directory.info.modified = now();
        Ok(ino)
    }

    fn forget_name(&mut self, ino: Ino) {
        let Some(node) = self.nodes.get_mut(&ino) else { return };
        node.info.links = node.info.links.saturating_sub(1);
        node.info.changed = now();
        if node.info.kind == Kind::Directory {
            node.info.links = 0;
        }
        self.drop_if_unused(ino);
    }

    fn drop_if_unused(&mut self, ino: Ino) {
        if self.nodes.get(&ino).is_some_and(|node| node.info.links == 0 && node.handles == 0) {
            self.nodes.remove(&ino);
        }
    }

    fn file(&mut self, handle: Handle, write: bool) -> Result<&mut Node, FileError> {
        let (ino, access) = *self.handles.get(&handle).ok_or(FileError::BadHandle)?;
        if (write && !access.write) || (!write && !access.read) {
            return Err(FileError::NotFile);
        }
        self.nodes.get_mut(&ino).ok_or(FileError::Stale)
    }

    fn open(&mut self, ino: Ino, access: Access) -> Handle {
        self.last_handle += 1;
        let handle = Handle(self.last_handle);
        self.handles.insert(handle, (ino, access));
        self.nodes.get_mut(&ino).unwrap().handles += 1;
        handle
    }

    fn is_below(&self, mut ino: Ino, ancestor: Ino) -> bool {
        loop {
            if ino == ancestor {
                return true;
            }
            if ino == Ino::ROOT {
                return false;
            }
            ino = self.nodes[&ino].parent;
        }
    }
}

impl Node {
    fn resize(&mut self, size: u64) {
        if size < self.info.size_bytes {
            self.pages.retain(|at, _| *at * (PAGE as u64) < size);
            if let Some(last) = self.pages.get_mut(&(size / PAGE as u64)) {
                last[(size % PAGE as u64) as usize..].fill(0);
            }
        }
        self.info.size_bytes = size;
        self.info.stored_bytes = (self.pages.len() * PAGE) as u64;
    }

    fn read(&self, offset: u64, len: usize) -> Vec<u8> {
        let end = (offset + len as u64).min(self.info.size_bytes);
        let mut bytes = Vec::new();
        let mut at = offset;
        while at < end {
            let inside = (at % PAGE as u64) as usize;
            let count = (PAGE - inside).min((end - at) as usize);
            match self.pages.get(&(at / PAGE as u64)) {
                Some(page) => bytes.extend_from_slice(&page[inside..inside + count]),
                None => bytes.resize(bytes.len() + count, 0),
            }
            at += count as u64;
        }
        bytes
    }

    fn write(&mut self, offset: u64, bytes: &[u8]) {
        let mut at = offset;
        let mut rest = bytes;
        while !rest.is_empty() {
            let inside = (at % PAGE as u64) as usize;
            let count = (PAGE - inside).min(rest.len());
            let page = self.pages.entry(at / PAGE as u64).or_insert_with(|| Box::new([0; PAGE]));
            page[inside..inside + count].copy_from_slice(&rest[..count]);
            rest = &rest[count..];
            at += count as u64;
        }
        self.info.size_bytes = self.info.size_bytes.max(at);
        self.info.stored_bytes = (self.pages.len() * PAGE) as u64;
    }

    fn punch(&mut self, offset: u64, end: u64) {
        for (at, page) in &mut self.pages {
            let start = at * PAGE as u64;
            let from = offset.clamp(start, start + PAGE as u64) - start;
            let to = end.clamp(start, start + PAGE as u64) - start;
            page[from as usize..to as usize].fill(0);
        }
        self.pages.retain(|at, _| {
            at * PAGE as u64 >= end.next_multiple_of(PAGE as u64)
                || (at + 1) * PAGE as u64 <= offset
                || at * (PAGE as u64) < offset
                || (at + 1) * PAGE as u64 > end
        });
        self.info.stored_bytes = (self.pages.len() * PAGE) as u64;
    }
}

fn now() -> UnixTime {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    UnixTime { seconds: since.as_secs() as i64, nanoseconds: since.subsec_nanos() }
}

fn as_change(error: LookupError) -> ChangeError {
    match error {
        LookupError::NotFound => ChangeError::NotFound,
        LookupError::Stale => ChangeError::Stale,
        LookupError::NotDirectory | LookupError::NotSymlink => ChangeError::NotDirectory,
        LookupError::Storage(storage) => storage.into(),
    }
}

impl MemoryVolume {
    pub(crate) fn new() -> Self {
        let volume = MemoryVolume::default();
        let root = NewNode {
            kind: Kind::Directory,
            mode: 0o755,
            user: Owner::Person,
            group: Owner::Person,
            xattrs: Vec::new(),
        };
        volume.state().add(Ino::ROOT, &root);
        volume
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    fn called(&self, what: &'static str) -> MutexGuard<'_, State> {
        let mut state = self.state();
        *state.calls.entry(what).or_default() += 1;
        state
    }

    /// How often a call was made.
    pub(crate) fn calls(&self, what: &str) -> u64 {
        self.state().calls.get(what).copied().unwrap_or(0)
    }

    /// What another device's change makes the kernel forget.
    pub(crate) fn outdate(&self, what: Outdated) {
        self.state().outdated.push_back(what);
        self.changed.notify_all();
    }

    /// Waits until the kernel was told everything and something else was asked for.
    pub(crate) fn let_call_back(&self) {
        let seen = self.calls("outdated");
        let state = self.state();
        let _unused = self
            .changed
            .wait_while(state, |state| {
                !state.outdated.is_empty()
                    || state.calls.get("outdated").copied().unwrap_or(0) < seen + 2
            })
            .unwrap();
    }

    /// Makes a node's bytes absent, or lets them arrive.
    pub(crate) fn set_absent(&self, ino: Ino, absent: bool) {
        let mut state = self.state();
        if absent {
            state.absent.insert(ino);
        } else {
            state.absent.remove(&ino);
        }
        self.changed.notify_all();
    }

    /// Waits until a call was made so often.
    pub(crate) fn wait_for_calls(&self, what: &str, count: u64) {
        let state = self.state();
        let (state, timeout) = self
            .changed
            .wait_timeout_while(state, Duration::from_secs(20), |state| {
                state.calls.get(what).copied().unwrap_or(0) < count
            })
            .unwrap();
        assert!(!timeout.timed_out(), "{what} was called {:?} times", state.calls.get(what));
    }

    /// What another device does: makes a file with some bytes, or gives a name a new version.
    pub(crate) fn arrive(&self, parent: Ino, name: &str, bytes: &[u8]) -> Ino {
        let name = EntryName::new(name.as_bytes()).unwrap();
        let mut state = self.state();
        let new = NewNode {
            kind: Kind::File,
            mode: 0o644,
            user: Owner::Person,
            group: Owner::Person,
            xattrs: Vec::new(),
        };
        let ino = state.add(parent, &new);
        state.node(ino).unwrap().write(0, bytes);
        let old = state.directory(parent).unwrap().names.insert(name.clone(), ino);
        state.directory(parent).unwrap().info.modified = now();
        if let Some(old) = old {
            state.nodes.get_mut(&old).unwrap().stale = true;
        }
        drop(state);
        self.outdate(Outdated::Name { parent, name, replaced: old.is_some() });
        ino
    }

    /// What another device does: changes a mode.
    pub(crate) fn set_mode(&self, ino: Ino, mode: u16) {
        self.state().node(ino).unwrap().info.mode = mode;
        self.outdate(Outdated::Attributes(ino));
    }

    /// Answers no more of what is outdated.
    pub(crate) fn close(&self) {
        self.state().closing = true;
        self.changed.notify_all();
    }
}

impl Volume for MemoryVolume {
    fn lookup(&self, parent: Ino, name: &EntryName) -> Result<NodeInfo, LookupError> {
        assert_ne!(name.as_bytes(), BROKEN, "an invariant that a test breaks");
        let mut state = self.called("lookup");
        let directory = state.node(parent)?;
        if directory.info.kind != Kind::Directory {
            return Err(LookupError::NotDirectory);
        }
        let ino = *directory.names.get(name).ok_or(LookupError::NotFound)?;
        Ok(state.node(ino)?.info.clone())
    }

    fn parent(&self, directory: Ino) -> Result<Ino, LookupError> {
        Ok(self.state().node(directory)?.parent)
    }

    fn place(&self, directory: Ino) -> Result<Option<(Ino, EntryName)>, LookupError> {
        let mut state = self.state();
        let parent = state.node(directory)?.parent;
        let names = &state.node(parent)?.names;
        let name = names.iter().find(|(_, node)| **node == directory);
        Ok(name.map(|(name, _)| (parent, name.clone())))
    }

    fn info(&self, node: Ino) -> Result<NodeInfo, LookupError> {
        let mut state = self.called("info");
        Ok(state.node(node)?.info.clone())
    }

    fn list(
        &self,
        directory: Ino,
        after: Option<&EntryName>,
        limit: usize,
    ) -> Result<Vec<Listed>, LookupError> {
        use std::ops::Bound;
        let mut state = self.called("list");
        let from = after.map_or(Bound::Unbounded, |name| Bound::Excluded(name.clone()));
        let names: Vec<(EntryName, Ino)> = state
            .node(directory)?
            .names
            .range((from, Bound::Unbounded))
            .take(limit)
            .map(|(name, ino)| (name.clone(), *ino))
            .collect();
        let listed = names
            .into_iter()
            .map(|(name, ino)| Ok(Listed { name, info: state.node(ino)?.info.clone() }));
        listed.collect()
    }

    fn read_link(&self, node: Ino) -> Result<Box<[u8]>, LookupError> {
        match &self.called("read_link").node(node)?.info.kind {
            Kind::Symlink(target) => Ok(target.clone()),
            _ => Err(LookupError::NotSymlink),
        }
    }

    fn make(&self, parent: Ino, name: &EntryName, new: NewNode) -> Result<NodeInfo, ChangeError> {
        let mut state = self.called("make");
        let ino = state.make(parent, name, &new)?;
        Ok(state.node(ino).map_err(as_change)?.info.clone())
    }

    fn create(
        &self,
        parent: Ino,
        name: &EntryName,
        new: NewNode,
        access: Access,
    ) -> Result<(NodeInfo, Handle), ChangeError> {
        let mut state = self.called("create");
        let ino = state.make(parent, name, &new)?;
        let handle = state.open(ino, access);
        Ok((state.node(ino).map_err(as_change)?.info.clone(), handle))
    }

    fn link(&self, node: Ino, parent: Ino, name: &EntryName) -> Result<NodeInfo, ChangeError> {
        let mut state = self.called("link");
        if state.node(node).map_err(as_change)?.info.kind == Kind::Directory {
            return Err(ChangeError::NotPermitted);
        }
        if state.directory(parent)?.names.contains_key(name) {
            return Err(ChangeError::Exists);
        }
        state.directory(parent)?.names.insert(name.clone(), node);
        let linked = state.node(node).map_err(as_change)?;
        linked.info.links += 1;
        linked.info.changed = now();
        Ok(linked.info.clone())
    }

    fn unlink(&self, parent: Ino, name: &EntryName) -> Result<(), ChangeError> {
        let mut state = self.called("unlink");
        let ino = *state.directory(parent)?.names.get(name).ok_or(ChangeError::NotFound)?;
        if state.node(ino).map_err(as_change)?.info.kind == Kind::Directory {
            return Err(ChangeError::IsDirectory);
        }
        state.directory(parent)?.names.remove(name);
        state.forget_name(ino);
        Ok(())
    }

    fn remove_directory(&self, parent: Ino, name: &EntryName) -> Result<(), ChangeError> {
        let mut state = self.called("remove_directory");
        let ino = *state.directory(parent)?.names.get(name).ok_or(ChangeError::NotFound)?;
        if !state.directory(ino)?.names.is_empty() {
            return Err(ChangeError::NotEmpty);
        }
        state.directory(parent)?.names.remove(name);
        state.forget_name(ino);
        Ok(())
    }

    fn rename(
        &self,
        from: (Ino, &EntryName),
        to: (Ino, &EntryName),
        renaming: Renaming,
    ) -> Result<(), ChangeError> {
        let mut state = self.called("rename");
        let moved = *state.directory(from.0)?.names.get(from.1).ok_or(ChangeError::NotFound)?;
        let taken = state.directory(to.0)?.names.get(to.1).copied();
        if state.is_below(to.0, moved) {
            return Err(ChangeError::IntoItself);
        }
        match (renaming, taken) {
            (Renaming::NoReplace, Some(_)) => return Err(ChangeError::Exists),
            (Renaming::Exchange, None) => return Err(ChangeError::NotFound),
            (Renaming::Exchange, Some(other)) => {
                state.directory(from.0)?.names.insert(from.1.clone(), other);
                state.nodes.get_mut(&other).unwrap().parent = from.0;
            }
            (Renaming::Replace, Some(other)) if other == moved => return Ok(()),
            (Renaming::Replace, Some(other)) => {
                let is_directory = state.nodes[&moved].info.kind == Kind::Directory;
                let there = &state.nodes[&other];
                match (is_directory, there.info.kind == Kind::Directory) {
                    (true, false) => return Err(ChangeError::NotDirectory),
                    (false, true) => return Err(ChangeError::IsDirectory),
                    (true, true) if !there.names.is_empty() => return Err(ChangeError::NotEmpty),
                    _ => {}
                }
                state.directory(from.0)?.names.remove(from.1);
                state.forget_name(other);
            }
            (_, None) => {
                state.directory(from.0)?.names.remove(from.1);
            }
        }
        state.directory(to.0)?.names.insert(to.1.clone(), moved);
        state.nodes.get_mut(&moved).unwrap().parent = to.0;
        Ok(())
    }

    fn change(&self, node: Ino, change: NodeChange) -> Result<NodeInfo, ChangeError> {
        let mut state = self.called("change");
        let node = state.node(node).map_err(as_change)?;
        if let Some(size) = change.size_bytes {
            node.resize(size);
            node.info.modified = now();
        }
        let info = &mut node.info;
        info.mode = change.mode.unwrap_or(info.mode);
        info.user = change.user.unwrap_or(info.user);
        info.group = change.group.unwrap_or(info.group);
        info.modified = change.modified.unwrap_or(info.modified);
        info.accessed = change.accessed.or(info.accessed);
        info.changed = change.changed.unwrap_or_else(now);
        for (name, value) in change.xattrs {
            match value {
                Some(value) => drop(node.xattrs.insert(name, value)),
                None => drop(node.xattrs.remove(&name)),
            }
        }
        node.info.has_lists = node.xattrs.keys().any(|name| name.starts_with(b"system."));
        Ok(node.info.clone())
    }

    fn xattr(&self, node: Ino, name: &[u8]) -> Result<Box<[u8]>, XattrError> {
        let mut state = self.called("xattr");
        let node = state.node(node).map_err(|_| XattrError::Stale)?;
        node.xattrs.get(name).cloned().ok_or(XattrError::NoAttribute)
    }

    fn xattrs(&self, node: Ino) -> Result<Vec<Box<[u8]>>, XattrError> {
        let mut state = self.called("xattrs");
        let node = state.node(node).map_err(|_| XattrError::Stale)?;
        Ok(node.xattrs.keys().cloned().collect())
    }

    fn set_xattr(
        &self,
        node: Ino,
        name: &[u8],
        value: &[u8],
        mode: XattrMode,
    ) -> Result<(), XattrError> {
        let mut state = self.called("set_xattr");
        let node = state.node(node).map_err(|_| XattrError::Stale)?;
        match (mode, node.xattrs.contains_key(name)) {
            (XattrMode::Create, true) => Err(XattrError::Exists),
            (XattrMode::Replace, false) => Err(XattrError::NoAttribute),
            _ => {
                node.xattrs.insert(name.into(), value.into());
                Ok(())
            }
        }
    }

    fn remove_xattr(&self, node: Ino, name: &[u8]) -> Result<(), XattrError> {
        let mut state = self.called("remove_xattr");
        let node = state.node(node).map_err(|_| XattrError::Stale)?;
        node.xattrs.remove(name).map(drop).ok_or(XattrError::NoAttribute)
    }

    fn open(&self, node: Ino, access: Access) -> Result<Handle, FileError> {
        let mut state = self.called("open");
        let file = state.node(node).map_err(|_| FileError::Stale)?;
        if file.stale {
            return Err(FileError::Stale);
        }
        if access.truncate {
            file.resize(0);
        }
        Ok(state.open(node, access))
    }

    fn read_here(
        &self,
        handle: Handle,
        offset: u64,
        len: usize,
    ) -> Result<Option<Vec<u8>>, FileError> {
        let mut state = self.called("read_here");
        let file = state.file(handle, false)?;
        let (ino, bytes) = (file.info.ino, file.read(offset, len));
        Ok((!state.absent.contains(&ino)).then_some(bytes))
    }

    fn read(&self, handle: Handle, offset: u64, len: usize) -> Result<Vec<u8>, FileError> {
        let mut state = self.called("read");
        self.changed.notify_all();
        let ino = state.file(handle, false)?.info.ino;
        let (mut state, timeout) = self
            .changed
            .wait_timeout_while(state, Duration::from_secs(20), |state| {
                state.absent.contains(&ino) && !state.closing
            })
            .unwrap();
        if timeout.timed_out() || state.absent.contains(&ino) {
            return Err(FileError::Unreachable);
        }
        Ok(state.file(handle, false)?.read(offset, len))
    }

    fn write(&self, handle: Handle, offset: u64, bytes: &[u8]) -> Result<(), FileError> {
        let mut state = self.called("write");
        state.file(handle, true)?.write(offset, bytes);
        Ok(())
    }

    fn closing(&self, _handle: Handle) {}

    fn fsync(&self, handle: Handle) -> Result<(), FileError> {
        let state = self.called("fsync");
        if state.handles.contains_key(&handle) { Ok(()) } else { Err(FileError::BadHandle) }
    }

    fn sync_names(&self) -> Result<(), StorageError> {
        drop(self.called("sync_names"));
        Ok(())
    }

    fn release(&self, handle: Handle) {
        let mut state = self.called("release");
        if let Some((ino, _)) = state.handles.remove(&handle) {
            state.nodes.get_mut(&ino).unwrap().handles -= 1;
            state.drop_if_unused(ino);
        }
        drop(state);
        self.changed.notify_all();
    }

    fn allocate(
        &self,
        handle: Handle,
        offset: u64,
        len: u64,
        allocation: Allocation,
    ) -> Result<(), FileError> {
        let mut state = self.called("allocate");
        let file = state.file(handle, true)?;
        let end = offset + len;
        match allocation {
            Allocation::Punch => file.punch(offset, end),
            Allocation::Zero { grow } | Allocation::Reserve { grow } => {
                if matches!(allocation, Allocation::Zero { .. }) {
                    file.punch(offset, end);
                }
                if grow {
                    file.resize(file.info.size_bytes.max(end));
                }
            }
        }
        Ok(())
    }

    fn seek(&self, handle: Handle, offset: u64, sought: Sought) -> Result<u64, FileError> {
        let mut state = self.called("seek");
        let file = state.file(handle, false)?;
        let size = file.info.size_bytes;
        if offset >= size {
            return Err(FileError::NothingSought);
        }
        let pages = offset / PAGE as u64..size.div_ceil(PAGE as u64);
        let wanted = sought == Sought::Data;
        let mut found = pages.into_iter().filter(|at| file.pages.contains_key(at) == wanted);
        match found.next() {
            Some(at) => Ok((at * PAGE as u64).max(offset).min(size)),
            None if wanted => Err(FileError::NothingSought),
            None => Ok(size),
        }
    }

    fn copy_range(
        &self,
        from: (Handle, u64),
        to: (Handle, u64),
        len: u64,
    ) -> Result<u64, FileError> {
        let mut state = self.called("copy_range");
        let bytes = state.file(from.0, false)?.read(from.1, len as usize);
        state.file(to.0, true)?.write(to.1, &bytes);
        Ok(bytes.len() as u64)
    }

    fn room(&self) -> Result<Room, StorageError> {
        Ok(Room {
            total_bytes: 1 << 40,
            free_bytes: 1 << 39,
            free_nodes: 1 << 20,
            total_nodes: 1 << 21,
        })
    }

    fn outdated(&self, patience: Duration) -> Option<Vec<Outdated>> {
        let state = self.called("outdated");
        self.changed.notify_all();
        let (mut state, _) = self
            .changed
            .wait_timeout_while(state, patience.min(Duration::from_millis(20)), |state| {
                state.outdated.is_empty() && !state.closing
            })
            .unwrap();
        if state.closing { None } else { Some(state.outdated.drain(..).collect()) }
    }

    fn now(&self) -> (WallMs, UnixTime) {
        let now = now();
        (WallMs(now.seconds as u64 * 1000), now)
    }
}
