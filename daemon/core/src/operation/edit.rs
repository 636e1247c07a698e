//! Making, linking and removing nodes, and changing their attributes.

use super::{AttributeChange, OperationError};
use crate::clock::{Hlc, Stamp};
use crate::id::{Dot, EntryId, InodeId};
use crate::index::{EntryState, Index, InodeState, Node, Shown};
use crate::register::{
    Attributes, Entry, Inode, Kind, Owner, Parted, Place, Removal, Replaced, Unread,
};
use crate::transaction::{Heard, Transaction};
use crate::vector::VersionVector;
use crate::view::{At, outlives};
use alloc::collections::BTreeMap;
use alloc::vec::Vec;

/// When the latest of what is known of an entry's place and removal was done.
fn latest_seen(state: &EntryState) -> Hlc {
    let withheld = state.withheld.as_ref().map(|(removal, _)| removal);
    let removals = state.entry.removal.iter().chain(withheld);
    let seen = removals.map(|removal| removal.saw_place.hlc.max(removal.stamp.hlc)).max();
    seen.unwrap_or_default().max(state.entry.place.stamp.hlc)
}

impl<I: Index> Transaction<'_, I> {
    pub(super) fn create(
        &mut self,
        (parent, name): At,
        kind: Kind,
        mode: u16,
        user: Owner,
        group: Owner,
    ) -> Result<Node, OperationError<I::Error>> {
        let parent = self.open_directory(parent)?;
        if self.index.shown(parent, &name)?.is_some() {
            return Err(OperationError::Exists);
        }
        let dot = self.dot();
        let id = InodeId(dot);
        self.making(id);
        let attributes = Attributes {
            stamp: self.stamp_after(crate::clock::Hlc::default()),
            dot,
            mode: mode & 0o7777,
            user,
            group,
            mtime: None,
            xattrs: BTreeMap::new(),
            unread: Unread::new(),
        };
        let (versions, parted) = (BTreeMap::new(), Parted::default());
        let inode = Inode { id, kind, attributes, versions, parted, unread: Unread::new() };
        let heard = if inode.is_withheld() { Heard::Here } else { Heard::ByAll };
        self.write_inode(InodeState { inode, logged: 0 })?;
        let entry = self.write_new_entry(id, (parent, name.clone()), heard);
        if name.unnumbered().is_none() {
            // Nothing is shown under the name, so nothing else has it or wants it.
            self.derive_presence()?;
            let node = Node::Inode(id);
            let base = name.clone();
            let row = Shown { parent, name, node, entry, base, wanted: None, repaired: false };
            self.show_fresh(&row)?;
        }
        Ok(Node::Inode(id))
    }

    /// Writes one more entry of an inode.
    fn write_new_entry(&mut self, inode: InodeId, at: At, heard: Heard) -> EntryId {
        let id = EntryId(self.dot());
        let stamp = self.stamp_after(crate::clock::Hlc::default());
        let author = self.state.author.clone();
        let (parent, name) = at;
        let unread = Unread::new();
        let place =
            Place { stamp, dot: id.0, parent, name, replaced: None, carried: None, author, unread };
        let entry = Entry { id, inode, place, removal: None, unread: Unread::new() };
        let state =
            EntryState { entry, withheld: None, logged: 0, shown_parent: parent, present: true };
        self.write_fresh(state, heard);
        id
    }

    pub(super) fn link(&mut self, node: Node, at: At) -> Result<Node, OperationError<I::Error>> {
        let node = self.settle_node(node)?;
        let parent = self.open_directory(at.0)?;
        let state = self.inode(node.inode())?.ok_or(OperationError::NotFound)?;
        if state.inode.kind == Kind::Directory {
            return Err(OperationError::NotPermitted);
        }
        if !self.entries_of(node.inode())?.iter().any(|entry| entry.present) {
            return Err(OperationError::NotFound);
        }
        if self.index.shown(parent, &at.1)?.is_some() {
            return Err(OperationError::Exists);
        }
        let heard = if state.inode.is_withheld() { Heard::Here } else { Heard::ByAll };
        self.write_new_entry(node.inode(), (parent, at.1), heard);
        Ok(node)
    }

    pub(super) fn remove(
        &mut self,
        (parent, name): At,
        directory: bool,
    ) -> Result<(), OperationError<I::Error>> {
        let parent = self.open_directory(parent)?;
        let at = (parent, name);
        let row = self.settled_row(&at)?.ok_or(OperationError::NotFound)?;
        self.settle_heirs(&at)?;
        match (directory, self.is_directory(row.node.inode())?) {
            (true, false) => return Err(OperationError::NotDirectory),
            (false, true) => return Err(OperationError::IsDirectory),
            _ => self.remove_row(&row)?,
        }
        if !row.repaired && at.1.unnumbered().is_none() {
            // Nothing else has the name, and nothing wants it.
            self.derive_presence()?;
            self.hide(&row)?;
        }
        Ok(())
    }

    /// Removes what a settled name leads to.
    pub(super) fn remove_row(&mut self, row: &Shown) -> Result<(), OperationError<I::Error>> {
        let directory = row.node.inode();
        if self.is_directory(directory)? && !self.index.list(directory, None, 1)?.is_empty() {
            return Err(OperationError::NotEmpty);
        }
        for entry in self.entries_behind(row)? {
            self.remove_entry(entry)?;
        }
        Ok(())
    }

    /// The entries that a settled name stands for: those of all directories shown as one, or one.
    pub(super) fn entries_behind(&mut self, row: &Shown) -> Result<Vec<EntryState>, I::Error> {
        if !self.is_directory(row.node.inode())? {
            return Ok(self.entry(row.entry)?.into_iter().collect());
        }
        let mut entries = Vec::new();
        for member in self.index.members(row.node.inode())? {
            entries.extend(self.entry_of(member)?);
        }
        Ok(entries)
    }

    /// What a remover of the entry has seen.
    pub(super) fn removal_of(&mut self, state: &EntryState) -> Result<Removal, I::Error> {
        let inode = self.inode(state.entry.inode)?;
        let entries = self.entries_of(state.entry.inode)?;
        let mut others = entries.iter().filter(|other| other.entry.id != state.entry.id);
        let last_link = sabotaged!(LastNameForgotten) || !others.any(outlives);
        // Who leaves another name in place means to keep the content: what he saw of it doesn't
        // count when somebody else, who saw less, removes that name.
        let seen = inode.filter(|_| last_link);
        Ok(Removal {
            stamp: self.stamp_after(state.entry.latest_hlc()),
            dots: VersionVector::from_iter([self.dot()]),
            saw_place: state.entry.place.stamp,
            saw_content: seen.map_or_else(VersionVector::new, |it| it.inode.known_versions()),
            last_link,
            author: Some(self.state.author.clone()),
            unread: Unread::new(),
        })
    }

    /// Removes an entry. One of a withheld file is gone without anybody else's hearing of it.
    pub(super) fn remove_entry(&mut self, state: EntryState) -> Result<(), I::Error> {
        let removal = self.removal_of(&state)?;
        let (inode, last_link) = (state.entry.inode, removal.last_link);
        let is_withheld = self.inode(inode)?.is_some_and(|it| it.inode.is_withheld());
        let mut now = state.clone();
        Removal::merge_into(&mut now.entry.removal, Some(removal));
        now.withheld = None;
        let heard = if state.logged == 0 { Heard::Here } else { Heard::ByAll };
        self.write_entry(Some(state), now, heard)?;
        if is_withheld && last_link {
            self.release(inode)?;
        }
        Ok(())
    }

    /// Gives an entry a place that outlives all that was seen of it.
    pub(crate) fn place_entry(
        &mut self,
        state: EntryState,
        at: At,
        replaced: Option<Replaced>,
    ) -> Result<(), I::Error> {
        let stamp = self.stamp_after(latest_seen(&state));
        self.write_place(state, at, (replaced, None), stamp)
    }

    /// Takes an entry along into what its directory goes on as.
    pub(crate) fn carry_entry(
        &mut self,
        state: EntryState,
        directory: InodeId,
    ) -> Result<(), I::Error> {
        let Place { name, replaced, .. } = state.entry.place.clone();
        let carried = Some(state.entry.place.moved_by());
        let stamp = self.stamp_after(latest_seen(&state));
        self.write_place(state, (directory, name), (replaced, carried), stamp)
    }

    /// Gives an entry the place at which a repair shows it.
    pub(super) fn settle_entry(
        &mut self,
        state: EntryState,
        at: At,
        replaced: Option<Replaced>,
    ) -> Result<(), I::Error> {
        let stamp = Self::stamp_settled(latest_seen(&state));
        self.write_place(state, at, (replaced, None), stamp)
    }

    fn write_place(
        &mut self,
        state: EntryState,
        (parent, name): At,
        (replaced, carried): (Option<Replaced>, Option<Dot>),
        stamp: Stamp,
    ) -> Result<(), I::Error> {
        let mut now = state.clone();
        now.entry.place = Place {
            stamp,
            dot: self.dot(),
            parent,
            name,
            replaced,
            carried,
            author: self.state.author.clone(),
            unread: Unread::new(),
        };
        let heard = if state.logged == 0 { Heard::Here } else { Heard::ByAll };
        self.write_entry(Some(state), now, heard)
    }

    pub(super) fn set_attributes(
        &mut self,
        node: Node,
        change: AttributeChange,
    ) -> Result<Node, OperationError<I::Error>> {
        let node = self.settle_node(node)?;
        let state = self.inode(node.inode())?.ok_or(OperationError::NotFound)?;
        let mut now = (*state).clone();
        let attributes = &mut now.inode.attributes;
        attributes.mode = change.mode.map_or(attributes.mode, |mode| mode & 0o7777);
        attributes.user = change.user.unwrap_or(attributes.user);
        attributes.group = change.group.unwrap_or(attributes.group);
        attributes.mtime = change.mtime.or(attributes.mtime);
        for (name, value) in change.set_xattrs {
            match value {
                Some(value) => drop(attributes.xattrs.insert(name, value)),
                None => drop(attributes.xattrs.remove(&name)),
            }
        }
        // The time of a directory also says which changes of names it came after.
        let dated = change.mtime.is_some() && state.inode.kind == Kind::Directory;
        if *attributes == state.inode.attributes && !dated {
            return Ok(node);
        }
        attributes.stamp = self.stamp_after(attributes.stamp.hlc);
        attributes.dot = self.dot();
        attributes.unread = Unread::new();
        self.write_inode(now)?;
        Ok(node)
    }
}
