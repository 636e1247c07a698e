//! Names and attributes: what `ls`, `mkdir`, `mv`, `rm`, `chmod` and `setfattr` come to.

use super::describe::{describe, directory, find, numbered, version_of};
use super::open_files::OpenFile;
use super::{Origin, Share, WriteError, context, now, storage};
use kith_core::content::Content;
use kith_core::effect::Effect;
use kith_core::id::{Dot, InodeId};
use kith_core::index::{IndexRead, InodeState, Node};
use kith_core::name::EntryName;
use kith_core::operation::{self, AttributeChange, Operation, OperationError, RenameMode};
use kith_core::register::{Kind, Mark, Owner, UnixTime};
use kith_core::vector::VersionVector;
use kith_fs::volume::{
    Access, ChangeError, Handle, Ino, Listed, LookupError, NewNode, NodeChange, NodeInfo, Renaming,
    Room, StorageError, XattrError, XattrMode,
};
use kith_store::{Base, DiskRoom, NodeRead, NodeRow, StoreError, Transaction};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// How long a rename waits for what it replaces to become a version.
const REPLACED_PATIENCE: Duration = Duration::from_secs(1);
/// The most bytes that all extended attributes of a node take together, names included.
const XATTRS_MAX_BYTES: usize = 128 << 10;

/// The extended attributes of a node, by name.
type Xattrs = BTreeMap<Box<[u8]>, Box<[u8]>>;

impl Share {
    pub(super) fn look_up_name(
        &self,
        parent: Ino,
        name: &EntryName,
    ) -> Result<NodeInfo, LookupError> {
        self.glancing(|glance| {
            let parent = directory(glance, parent)?;
            let found = glance.look_up(parent, name).map_err(|error| storage(&error))?;
            let (_, row, state) = found.ok_or(LookupError::NotFound)?;
            describe(glance, &row, &state).map_err(|error| storage(&error).into())
        })
    }

    pub(super) fn parent_of(&self, ino: Ino) -> Result<Ino, LookupError> {
        Ok(self.place_of(ino)?.map_or(Ino::ROOT, |(parent, _)| parent))
    }

    pub(super) fn place_of(&self, ino: Ino) -> Result<Option<(Ino, EntryName)>, LookupError> {
        self.looking(|snapshot| {
            let directory = directory(snapshot, ino)?;
            let shown = snapshot.shown_of(directory).map_err(|error| storage(&error))?;
            let Some(shown) = shown.into_iter().next() else { return Ok(None) };
            let row = snapshot.node_of(shown.parent).map_err(|error| storage(&error))?;
            Ok(row.map(|row| (Ino(row.ino), shown.name)))
        })
    }

    pub(super) fn list_names(
        &self,
        ino: Ino,
        after: Option<&EntryName>,
        limit: usize,
    ) -> Result<Vec<Listed>, LookupError> {
        self.looking(|snapshot| {
            let parent = directory(snapshot, ino)?;
            let nodes =
                snapshot.list_nodes(parent, after, limit).map_err(|error| storage(&error))?;
            let listed = nodes.into_iter().map(|(shown, row, state)| {
                let info = self.shown_info(snapshot, &row, &state)?;
                Ok(Listed { name: shown.name, info })
            });
            listed.collect()
        })
    }

    pub(super) fn link_target(&self, ino: Ino) -> Result<Box<[u8]>, LookupError> {
        let snapshot = self.store.snapshot().map_err(|error| storage(&error))?;
        match find(&snapshot, ino)?.1.inode.kind {
            Kind::Symlink(target) => Ok(target),
            _ => Err(LookupError::NotSymlink),
        }
    }

    /// The directory's id, for a change in it.
    fn parent_id(&self, ino: Ino) -> Result<InodeId, ChangeError> {
        let glance = self.store.glance().map_err(|error| storage(&error))?;
        directory(&glance, ino).map_err(not_found)
    }

    fn node_id(&self, ino: Ino) -> Result<Node, ChangeError> {
        let glance = self.store.glance().map_err(|error| storage(&error))?;
        Ok(find(&glance, ino).map_err(not_found)?.0.node)
    }

    pub(super) fn make_node(
        &self,
        parent: Ino,
        name: &EntryName,
        new: NewNode,
    ) -> Result<NodeInfo, ChangeError> {
        let parent = self.parent_id(parent)?;
        let own = [(parent, name.clone())];
        let file = new.kind == Kind::File;
        let info = self.commit(&Origin::Mount(&own), |tx| {
            let (key, mut effects) = create(tx, parent, name, new)?;
            if file {
                let publish = publish(key, (VersionVector::new(), None), Content::empty(), now().1);
                effects.extend(operation::apply(tx, context(), publish)?.effects);
            }
            Ok::<_, WriteError>((described(tx, key)?, effects))
        })?;
        Ok(info)
    }

    pub(super) fn create_file(
        &self,
        parent: Ino,
        name: &EntryName,
        new: NewNode,
        access: Access,
    ) -> Result<(NodeInfo, Handle), ChangeError> {
        // As in `open_file`; and what the kernel has cached for files that are open goes first.
        if self.disk_room()?.free_bytes == 0 {
            return Err(StorageError::Full.into());
        }
        let parent = self.parent_id(parent)?;
        let own = [(parent, name.clone())];
        let (info, key) = self.commit(&Origin::Mount(&own), |tx| {
            let (key, effects) = create(tx, parent, name, new)?;
            Ok::<_, WriteError>(((described(tx, key)?, key), effects))
        })?;
        let base =
            Base { content: Content::empty(), context: VersionVector::new(), parents: Vec::new() };
        let opened = self.files.open(info.ino.0, access, || {
            Ok(OpenFile::new(info.ino.0, key, base, info.modified, true))
        });
        let (_, handle) = opened.expect("a file that was just made needs no loading");
        Ok((info, handle))
    }

    pub(super) fn link_node(
        &self,
        node: Ino,
        parent: Ino,
        name: &EntryName,
    ) -> Result<NodeInfo, ChangeError> {
        let (node, parent) = (self.node_id(node)?, self.parent_id(parent)?);
        let own = [(parent, name.clone())];
        let link = Operation::Link { node, parent, name: name.clone() };
        let ino = self.operate(link, &own, |tx, _| {
            Ok(tx.node_of(node.key())?.expect("a linked node is shown").ino)
        })?;
        if let Some(file) = self.files.find(ino) {
            file.set_nameless(false);
            file.set_removed(false);
        }
        self.info_of(Ino(ino)).map_err(not_found)
    }

    pub(super) fn remove_name(
        &self,
        parent: Ino,
        name: &EntryName,
        directory: bool,
    ) -> Result<(), ChangeError> {
        let parent = self.parent_id(parent)?;
        let own = [(parent, name.clone())];
        let remove = Operation::Remove { parent, name: name.clone(), directory };
        let removed = self.commit(&Origin::Mount(&own), |tx| {
            let gone = if directory { directory_at(tx, &own[0])? } else { None };
            let applied = operation::apply(tx, context(), remove)?;
            part_with(tx, gone)?;
            Ok::<_, WriteError>(((), applied.effects))
        });
        Ok(removed?)
    }

    pub(super) fn rename_name(
        &self,
        from: (Ino, &EntryName),
        to: (Ino, &EntryName),
        renaming: Renaming,
    ) -> Result<(), ChangeError> {
        let from = (self.parent_id(from.0)?, from.1.clone());
        let to = (self.parent_id(to.0)?, to.1.clone());
        let mode = match renaming {
            Renaming::Replace => RenameMode::Replace,
            Renaming::NoReplace => RenameMode::NoReplace,
            Renaming::Exchange => RenameMode::Exchange,
        };
        if mode == RenameMode::Replace && self.is_withheld(&from)? && self.is_withheld(&to)? {
            // What was closed there is to be a version before a file without one takes its name:
            // that one may never get any, and the other has to be there then.
            self.queue.drained(Instant::now() + REPLACED_PATIENCE);
        }
        let own = [from.clone(), to.clone()];
        let rename = Operation::Rename { from: from.clone(), to, mode };
        let renamed = self.commit(&Origin::Mount(&own), |tx| {
            let replaced = directory_at(tx, &own[1])?;
            let applied = operation::apply(tx, context(), rename)?;
            part_with(tx, replaced)?;
            let (_, at) = now();
            let node = applied.node.expect("a rename names its node");
            tx.touch_node(node.key(), at, None)?;
            if mode == RenameMode::Exchange
                && let Some((other, ..)) = tx.look_up(from.0, &from.1)?
            {
                tx.touch_node(other.node.key(), at, None)?;
            }
            Ok::<_, WriteError>(((), applied.effects))
        });
        Ok(renamed?)
    }

    /// Whether a name leads to a file without a version.
    fn is_withheld(&self, at: &(InodeId, EntryName)) -> Result<bool, WriteError> {
        let found = self.store.snapshot()?.look_up(at.0, &at.1)?;
        Ok(found.is_some_and(|(.., state)| state.inode.is_withheld()))
    }

    pub(super) fn change_node(
        &self,
        ino: Ino,
        change: &NodeChange,
    ) -> Result<NodeInfo, ChangeError> {
        match self.change_present(ino, change) {
            // The kernel hands over times of files that are gone; there is nobody to see them, and
            // an error would be one of whoever syncs next.
            Err(ChangeError::Stale | ChangeError::NotFound) if *change == times_of(change) => {
                self.gone_info(ino)
            }
            changed => changed,
        }
    }

    fn change_present(&self, ino: Ino, change: &NodeChange) -> Result<NodeInfo, ChangeError> {
        if let Some(size_bytes) = change.size_bytes {
            self.info_of(ino).map_err(not_found)?;
            self.resize(ino, size_bytes)?;
        }
        let mut info = None;
        if of_register(change) != NodeChange::default() {
            info = Some(self.change_register(ino, change)?);
        }
        if let Some(modified) = change.modified
            && info.as_ref().is_none_or(|info| info.kind == Kind::File)
        {
            info = Some(match self.set_times(ino, modified, change.changed)? {
                Some(info) => info,
                None => self.change_register(ino, change)?,
            });
        }
        match info {
            Some(info) => Ok(info),
            None => self.info_of(ino).map_err(not_found),
        }
    }

    /// Makes the part of a change that isn't about a file's bytes, of which its size and its time of
    /// modification are.
    fn change_register(&self, ino: Ino, change: &NodeChange) -> Result<NodeInfo, ChangeError> {
        let at = change.changed.unwrap_or_else(|| now().1);
        let changed = |tx: &mut Transaction<'_>| {
            let (row, state) = match self.present(tx, ino) {
                Ok(found) => found,
                Err(error) => return Ok((Err(error), Vec::new())),
            };
            let modified = change.modified.filter(|_| state.inode.kind != Kind::File);
            let mut attributes = AttributeChange {
                mode: change.mode,
                user: change.user,
                group: change.group,
                mtime: modified,
                set_xattrs: change.xattrs.clone(),
            };
            let mut effects = Vec::new();
            if attributes != AttributeChange::default() {
                attributes.mtime = modified.or_else(|| names_changed(&row, &state));
                let set = Operation::SetAttributes { node: row.node, change: attributes };
                effects = operation::apply(tx, context(), set)?.effects;
                tx.touch_node(row.node.key(), at, modified)?;
            }
            if let Some(accessed) = change.accessed {
                tx.set_accessed(ino.0, accessed, at)?;
            }
            Ok::<_, WriteError>((Ok(()), effects))
        };
        let epoch = self.files.epoch();
        let described = self.commit_and_look(&Origin::Mount(&[]), at, changed, |tx, found| {
            found?;
            let (row, state) = self.present(tx, ino)?;
            numbered(tx, &row, &state)
        });
        let mut info = described?.map_err(not_found)?;
        if change.changed.is_some()
            && let Some(file) = self.files.find(ino.0)
        {
            // Its next version isn't to take along what the kernel said before.
            file.writing().changed = change.changed;
        }
        self.lay_open_over(&mut info);
        if self.files.epoch() == epoch { Ok(info) } else { self.info_of(ino).map_err(not_found) }
    }

    /// What a file was that no name leads to any more, and that nobody has open: as far as the
    /// index still knows it.
    fn gone_info(&self, ino: Ino) -> Result<NodeInfo, ChangeError> {
        let glance = self.store.glance().map_err(|error| storage(&error))?;
        match find(&glance, ino) {
            Ok((row, state)) => {
                Ok(describe(&glance, &row, &state).map_err(|error| storage(&error))?)
            }
            Err(LookupError::Stale) => Ok(forgotten(ino)),
            Err(error) => Err(not_found(error)),
        }
    }

    /// Sets a file's time of modification: through the open file if it is open, else by a version of
    /// its own with the same bytes; and when it was changed, if that is known. Does nothing, and
    /// answers nothing, if it isn't a file.
    fn set_times(
        &self,
        ino: Ino,
        mtime: UnixTime,
        changed: Option<UnixTime>,
    ) -> Result<Option<NodeInfo>, ChangeError> {
        let node = loop {
            let epoch = self.files.epoch();
            let file = self.files.find(ino.0);
            let glance = self.store.glance().map_err(|error| storage(&error))?;
            let (row, state) = self.present(&glance, ino).map_err(not_found)?;
            if state.inode.kind != Kind::File {
                return Ok(None);
            }
            let mut info = numbered(&glance, &row, &state).map_err(not_found)?;
            drop(glance);
            let Some(file) = file else {
                if self.files.epoch() != epoch {
                    continue;
                }
                // As the kernel does with each file that is removed or no longer needed.
                if version_of(row.node, &state).is_none_or(|version| version.mtime == mtime) {
                    if let Some(changed) = changed.filter(|at| *at != row.changed && info.links > 0)
                    {
                        self.note_changed(ino, changed);
                        info.changed = changed;
                    }
                    return Ok(Some(info));
                }
                break row.node;
            };
            // The kernel hands over times of what was superseded; nobody looks for them.
            let unwanted = !row.current && !file.is_dirty();
            if !unwanted && row.current && matches!(row.node, Node::Copy { .. }) {
                self.operate(Operation::Settle { node: row.node }, &[], |_, _| Ok(()))?;
            }
            if unwanted || self.set_open_times(&file, mtime, changed) {
                self.lay_open_over(&mut info);
                return Ok(Some(info));
            }
        };
        let at = changed.unwrap_or_else(|| now().1);
        let published = self.commit(&Origin::Publishers(&[(ino.0, at)]), |tx| {
            let mut effects = Vec::new();
            if matches!(node, Node::Copy { .. }) {
                effects = operation::apply(tx, context(), Operation::Settle { node })?.effects;
            }
            let state = tx.inode(node.key())?;
            let latest =
                state.as_ref().and_then(|state| version_of(Node::Inode(node.key()), state));
            if let Some(latest) = latest
                && latest.mtime != mtime
            {
                let mut made_from = latest.context.clone();
                made_from.include(latest.dot);
                let publish = publish(
                    node.key(),
                    (made_from, Some(latest.dot)),
                    latest.content.clone(),
                    mtime,
                );
                effects.extend(operation::apply(tx, context(), publish)?.effects);
            }
            Ok::<_, WriteError>(((), effects))
        });
        published?;
        self.info_of(ino).map(Some).map_err(not_found)
    }

    pub(super) fn xattrs_of(&self, ino: Ino) -> Result<Xattrs, XattrError> {
        let glance = self.store.glance().map_err(|error| storage(&error))?;
        let (_, state) = find(&glance, ino).map_err(xattr_lookup)?;
        Ok(state.inode.attributes.xattrs)
    }

    pub(super) fn put_xattr(
        &self,
        ino: Ino,
        name: &[u8],
        value: Option<(&[u8], XattrMode)>,
    ) -> Result<(), XattrError> {
        let snapshot = self.store.snapshot().map_err(|error| storage(&error))?;
        let (row, state) = find(&snapshot, ino).map_err(xattr_lookup)?;
        drop(snapshot);
        let present = &state.inode.attributes.xattrs;
        match (present.contains_key(name), value) {
            (true, Some((_, XattrMode::Create))) => return Err(XattrError::Exists),
            (false, None | Some((_, XattrMode::Replace))) => return Err(XattrError::NoAttribute),
            _ => {}
        }
        let others = present.iter().filter(|(other, _)| ***other != *name);
        let total: usize = others.map(|(other, value)| other.len() + value.len()).sum();
        if value.is_some_and(|(value, _)| total + name.len() + value.len() > XATTRS_MAX_BYTES) {
            return Err(XattrError::TooLarge);
        }
        let set_xattrs = vec![(name.into(), value.map(|(value, _)| value.into()))];
        let mtime = names_changed(&row, &state);
        let change = AttributeChange { set_xattrs, mtime, ..AttributeChange::default() };
        let set =
            self.operate(Operation::SetAttributes { node: row.node, change }, &[], |tx, _| {
                tx.touch_node(row.node.key(), now().1, None)
            });
        set.map_err(|error| match ChangeError::from(error) {
            ChangeError::Storage(cause) => XattrError::Storage(cause),
            _ => XattrError::Stale,
        })
    }
}

/// A file that the index knows nothing of any more.
fn forgotten(ino: Ino) -> NodeInfo {
    let never = UnixTime { seconds: 0, nanoseconds: 0 };
    NodeInfo {
        ino,
        kind: Kind::File,
        mode: 0,
        user: Owner::Person,
        group: Owner::Person,
        links: 0,
        size_bytes: 0,
        stored_bytes: 0,
        modified: never,
        changed: never,
        accessed: None,
        has_lists: false,
    }
}

/// The directory that a name leads to.
fn directory_at(
    tx: &Transaction<'_>,
    (parent, name): &(InodeId, EntryName),
) -> Result<Option<InodeId>, StoreError> {
    let found = tx.look_up(*parent, name)?;
    let found = found.filter(|(_, _, state)| state.inode.kind == Kind::Directory);
    Ok(found.map(|(_, row, _)| row.node.key()))
}

/// Gives a directory another number once it is removed. For the kernel the one under the old number
/// is dead as long as anything holds it, a file that is open in it or a program that works in it;
/// and the directory comes back if somebody else did something in it.
fn part_with(tx: &mut Transaction<'_>, directory: Option<InodeId>) -> Result<(), StoreError> {
    if let Some(key) = directory
        && tx.shown_of(key)?.is_empty()
        && tx.node_of(key)?.is_some()
    {
        tx.renew_node(key, now().1)?;
    }
    Ok(())
}

/// The time of a directory whose names have changed since a person set it: with any later change of
/// its attributes, others would take what was set to be the later one.
fn names_changed(row: &NodeRow, state: &InodeState) -> Option<UnixTime> {
    let set = state.inode.attributes.mtime.filter(|_| state.inode.kind == Kind::Directory);
    set.filter(|set| *set != row.modified).map(|_| row.modified)
}

/// The part of a change that is about a node of any kind.
fn of_register(change: &NodeChange) -> NodeChange {
    NodeChange { size_bytes: None, modified: None, changed: None, ..change.clone() }
}

/// The part of a change that is about times.
fn times_of(change: &NodeChange) -> NodeChange {
    let NodeChange { modified, accessed, changed, .. } = *change;
    NodeChange { modified, accessed, changed, ..NodeChange::default() }
}

/// Makes a node within a transaction: its key, and what came of it.
fn create(
    tx: &mut Transaction<'_>,
    parent: InodeId,
    name: &EntryName,
    new: NewNode,
) -> Result<(InodeId, Vec<Effect>), WriteError> {
    let NewNode { kind, mode, user, group, xattrs } = new;
    let create = Operation::Create { parent, name: name.clone(), kind, mode, user, group };
    let applied = operation::apply(tx, context(), create)?;
    let (node, mut effects) = (applied.node.expect("a creation names its node"), applied.effects);
    if !xattrs.is_empty() {
        let set_xattrs = xattrs.into_iter().map(|(name, value)| (name, Some(value))).collect();
        let change = AttributeChange { set_xattrs, ..AttributeChange::default() };
        let set = Operation::SetAttributes { node, change };
        effects.extend(operation::apply(tx, context(), set)?.effects);
    }
    Ok((node.key(), effects))
}

fn publish(
    inode: InodeId,
    (context, parent): (VersionVector, Option<Dot>),
    content: Content,
    mtime: UnixTime,
) -> Operation {
    let parents = parent.into_iter().collect();
    Operation::Publish { inode, context, parents, content, mtime, mark: Mark::Closed }
}

/// A node within the transaction that made or changed it.
fn described(tx: &Transaction<'_>, key: InodeId) -> Result<NodeInfo, StoreError> {
    let row = tx.node_of(key)?.expect("a node that was just made is shown");
    let state = tx.inode(row.node.inode())?.expect("a shown node has a register");
    describe(tx, &row, &state)
}

fn xattr_lookup(error: LookupError) -> XattrError {
    match error {
        LookupError::Storage(cause) => XattrError::Storage(cause),
        _ => XattrError::Stale,
    }
}

/// What the mount shows of the room on the disk. Nodes aren't scarce: they are rows of the index.
pub(super) fn shown_room(disk: DiskRoom) -> Room {
    const BYTES_A_NODE: u64 = 512;
    let total_nodes = disk.total_bytes / BYTES_A_NODE;
    let free_nodes = disk.free_bytes / BYTES_A_NODE;
    Room { total_bytes: disk.total_bytes, free_bytes: disk.free_bytes, free_nodes, total_nodes }
}

impl From<WriteError> for ChangeError {
    fn from(error: WriteError) -> Self {
        match error {
            WriteError::Store(cause) | WriteError::Operation(OperationError::Storage(cause)) => {
                ChangeError::Storage(storage(&cause))
            }
            WriteError::Operation(OperationError::NotFound) => ChangeError::NotFound,
            WriteError::Operation(OperationError::Exists) => ChangeError::Exists,
            WriteError::Operation(OperationError::NotDirectory) => ChangeError::NotDirectory,
            WriteError::Operation(OperationError::IsDirectory) => ChangeError::IsDirectory,
            WriteError::Operation(OperationError::NotEmpty) => ChangeError::NotEmpty,
            WriteError::Operation(OperationError::IntoItself) => ChangeError::IntoItself,
            WriteError::Operation(OperationError::NotPermitted | OperationError::Outdated) => {
                ChangeError::NotPermitted
            }
        }
    }
}

/// What a program is told when a directory or a node that it names can't be found.
pub(super) fn not_found(error: LookupError) -> ChangeError {
    match error {
        LookupError::NotFound => ChangeError::NotFound,
        LookupError::Stale => ChangeError::Stale,
        LookupError::NotDirectory => ChangeError::NotDirectory,
        LookupError::NotSymlink => ChangeError::NotPermitted,
        LookupError::Storage(cause) => ChangeError::Storage(cause),
    }
}
