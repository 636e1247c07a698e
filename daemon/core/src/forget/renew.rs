//! What is done to something that lives here and that others have forgotten: it is removed here
//! alone, or goes on as a new object.

use super::{Over, is_over};
use crate::id::InodeId;
use crate::index::{EntryState, Index, Node, Register};
use crate::operation::Operation;
use crate::register::{Attributes, Entry, Inode, Parted, Place, Removal, Version};
use crate::transaction::{Heard, Transaction};
use crate::vector::VersionVector;
use crate::view::outlives;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec;
use alloc::vec::Vec;

impl<I: Index> Transaction<'_, I> {
    /// Removes all names of a forgotten inode here. Its registers stay until this device's own time
    /// for them is over, and are shown to nobody.
    pub(super) fn remove_here(&mut self, id: InodeId) -> Result<(), I::Error> {
        let seen = self.inode(id)?.map(|state| state.inode.known_versions()).unwrap_or_default();
        let entries = self.entries_of(id)?;
        let mut over = Over::default();
        over.add_object(id, &entries);
        for state in entries {
            if state.present || outlives(&state) || state.withheld.is_some() {
                self.write_removal_here(state, &seen, true)?;
            }
        }
        self.remember(over)
    }

    /// Removes one name here, and doesn't count it as a last one: the others come.
    pub(super) fn remove_name_here(&mut self, state: EntryState) -> Result<(), I::Error> {
        self.write_removal_here(state, &VersionVector::new(), false)
    }

    fn write_removal_here(
        &mut self,
        state: EntryState,
        seen: &VersionVector,
        last_link: bool,
    ) -> Result<(), I::Error> {
        let removal = Removal {
            stamp: self.stamp_after(state.entry.latest_hlc()),
            // Nobody is told of it, and it isn't this device's person who did it.
            dots: VersionVector::new(),
            author: Some(self.state.author.clone()),
            saw_place: state.entry.place.stamp,
            saw_content: seen.clone(),
            last_link,
            unread: crate::register::Unread::new(),
        };
        let mut now = state.clone();
        Removal::merge_into(&mut now.entry.removal, Some(removal));
        now.withheld = None;
        self.write_entry(Some(state), now, Heard::Here)
    }

    /// Makes a forgotten inode that is no directory go on as a new one, under all names that are
    /// shown. Answers the directories that these are in.
    pub(super) fn renew_inode(&mut self, id: InodeId) -> Result<Vec<InodeId>, I::Error> {
        self.settle_versions(id)?;
        let Some(state) = self.inode(id)? else { return Ok(Vec::new()) };
        let mut entries = self.entries_of(id)?;
        entries.retain(|entry| entry.present);
        if entries.is_empty() {
            return Ok(Vec::new());
        }
        let new = self.renewed_inode(id)?;
        let version = state.inode.latest().map(|version| {
            let mut context = version.context.clone();
            // So that whoever has the file open still stands on what it is now.
            context.include(version.dot);
            let (dot, parents) = (self.dot(), vec![version.dot]);
            Version { dot, context, parents, ..version.clone() }
        });
        self.write_renewed_inode(&state.inode, new, version)?;
        let mut above = Vec::new();
        for entry in entries {
            above.push(self.write_renewed_entry(&entry, new)?);
        }
        self.remove_here(id)?;
        Ok(above)
    }

    /// Makes files of their own of the versions that stand beside a file: a new object has one
    /// version, as all that this device makes at once of one file cover one another.
    fn settle_versions(&mut self, id: InodeId) -> Result<(), I::Error> {
        self.drop_forgotten_copies(id)?;
        let several = self.inode(id)?.is_some_and(|state| state.inode.versions.len() > 1);
        let first = self.entries_of(id)?.into_iter().find(|entry| entry.present);
        let Some(first) = first.filter(|_| several) else { return Ok(()) };
        self.refresh()?;
        let parent = self.representative(first.shown_parent)?;
        self.settle_shown(&(parent, first.entry.place.name))?;
        self.refresh()
    }

    /// A version that others made a file of, and forgot that, goes from beside the others.
    fn drop_forgotten_copies(&mut self, id: InodeId) -> Result<(), I::Error> {
        let Some(state) = self.inode(id)? else { return Ok(()) };
        let mut gone = Vec::new();
        for version in state.inode.versions.values() {
            if self.index.is_forgotten_inode(InodeId(version.dot))? {
                gone.push(version.clone());
            }
        }
        if gone.is_empty() || gone.len() == state.inode.versions.len() {
            return Ok(());
        }
        let mut now = (*state).clone();
        for version in &gone {
            now.inode.versions.remove(&version.dot);
        }
        self.retire(id, &gone)?;
        self.write_inode(now)
    }

    fn write_renewed_inode(
        &mut self,
        old: &Inode,
        id: InodeId,
        version: Option<Version>,
    ) -> Result<(), I::Error> {
        let attributes = Attributes { dot: self.dot(), ..old.attributes.clone() };
        let versions: BTreeMap<_, _> = version.map(|it| (it.dot, it)).into_iter().collect();
        let (kind, parted, unread) = (old.kind.clone(), Parted::default(), old.unread.clone());
        self.receive_inode(Inode { id, kind, attributes, versions, parted, unread })
    }

    /// Writes the entry that goes on for another, where that is shown. Answers the directory.
    fn write_renewed_entry(
        &mut self,
        old: &EntryState,
        inode: InodeId,
    ) -> Result<InodeId, I::Error> {
        let id = self.renewed_entry(old.entry.id)?;
        let fresh = if sabotaged!(RenewedKeepsDots) { old.entry.place.dot } else { self.dot() };
        let parent = old.shown_parent;
        let place = Place { dot: fresh, parent, carried: None, ..old.entry.place.clone() };
        let unread = old.entry.unread.clone();
        let entry = Entry { id, inode, place, removal: None, unread };
        self.receive_entry(entry, &mut BTreeSet::new())?;
        Ok(old.shown_parent)
    }

    /// Makes a forgotten entry of an inode that isn't forgotten go on as a new one. Answers the
    /// directory that it is in.
    pub(super) fn renew_entry(&mut self, state: EntryState) -> Result<InodeId, I::Error> {
        let above = self.write_renewed_entry(&state, state.entry.inode)?;
        self.remove_name_here(state)?;
        Ok(above)
    }

    /// Makes a forgotten name that is removed go on as a new one that is, unless it does already.
    pub(super) fn renew_removed(
        &mut self,
        state: &EntryState,
        removal: &Removal,
    ) -> Result<(), I::Error> {
        let id = self.renewed_entry(state.entry.id)?;
        let said = self.entry(id)?.and_then(|state| state.entry.removal);
        let is_said = |said: Removal| {
            said.last_link == removal.last_link && said.saw_content.covers_all(&removal.saw_content)
        };
        if said.is_some_and(is_said) {
            return Ok(());
        }
        let place = Place { dot: self.dot(), carried: None, ..state.entry.place.clone() };
        let dots = VersionVector::from_iter([self.dot()]);
        let removal = Some(Removal { dots, ..removal.clone() });
        let entry = Entry { id, place, removal, ..state.entry.clone() };
        self.receive_entry(entry, &mut BTreeSet::new())
    }

    /// Makes a forgotten directory go on as a new one with these children. Answers the directory
    /// that it is in.
    pub(super) fn renew_directory(
        &mut self,
        id: InodeId,
        children: Vec<EntryState>,
    ) -> Result<InodeId, I::Error> {
        let (Some(state), Some(entry)) = (self.inode(id)?, self.entry_of(id)?) else {
            return Ok(InodeId::ROOT);
        };
        let new = self.renewed_inode(id)?;
        self.write_renewed_inode(&state.inode, new, None)?;
        let above = self.write_renewed_entry(&entry, new)?;
        for child in children {
            self.carry_entry(child, new)?;
        }
        self.remove_here(id)?;
        Ok(above)
    }

    /// Makes an inode go on as a new one as far as it is shown under something forgotten, with all
    /// that is in it, and what it is in. Answers what it is then.
    pub(super) fn take_up_inode(&mut self, id: InodeId) -> Result<InodeId, I::Error> {
        let mut answer = None;
        let mut open = BTreeSet::from([id]);
        while let Some(at) = open.pop_first() {
            self.refresh()?;
            let entries = self.entries_of(at)?;
            let present = entries.iter().filter(|entry| entry.present);
            let mut above: Vec<InodeId> = present.map(|entry| entry.shown_parent).collect();
            if above.is_empty() {
                self.move_out(at)?;
                continue;
            }
            if self.has_no_version(at)? {
                // It goes on as new when it is published.
            } else if self.index.is_forgotten_inode(at)? {
                let new = self.renewed_inode(at)?;
                if self.is_directory(at)? {
                    let mut children = Vec::new();
                    for child in self.index.entries_in(at)?.into_iter().filter(|it| it.present) {
                        // What is forgotten itself is taken up by itself.
                        if !is_over(self.index, &Register::Entry(child.entry.clone()))? {
                            children.push(child);
                        }
                    }
                    above = vec![self.renew_directory(at, children)?];
                } else {
                    above = self.renew_inode(at)?;
                }
                answer.get_or_insert(new);
            } else {
                for entry in self.entries_of(at)?.into_iter().filter(|entry| entry.present) {
                    if self.index.is_forgotten_entry(entry.entry.id)? {
                        above.push(self.renew_entry(entry)?);
                    }
                }
                self.refresh()?;
                self.purge(at, false)?;
            }
            answer.get_or_insert(at);
            for directory in above {
                if directory != at && self.index.is_forgotten_inode(directory)? {
                    open.insert(directory);
                }
            }
        }
        self.refresh()?;
        Ok(answer.unwrap_or(id))
    }

    /// Moves what is shown in a forgotten directory of which nothing is left here to where that goes on,
    /// or into the root: another device, which still has the directory, may show it elsewhere.
    fn move_out(&mut self, directory: InodeId) -> Result<(), I::Error> {
        if self.inode(directory)?.is_some() {
            return Ok(());
        }
        let next = super::successor(self.index, directory)?;
        let to = if next == directory { InodeId::ROOT } else { next };
        for child in self.index.entries_in(directory)?.into_iter().filter(|child| child.present) {
            self.carry_entry(child, to)?;
        }
        Ok(())
    }

    /// Makes what an operation is about go on as new, if it is shown here under something that is
    /// forgotten; and has the operation mean that.
    pub(crate) fn take_up_operands(&mut self, operation: Operation) -> Result<Operation, I::Error> {
        if !self.index.forgets()? {
            return Ok(operation);
        }
        let mut operation = operation;
        match &mut operation {
            Operation::Create { parent, .. } => *parent = self.take_up_directory(*parent)?,
            Operation::Link { node, parent, .. } => {
                *parent = self.take_up_directory(*parent)?;
                *node = self.take_up_node(*node)?;
            }
            Operation::Remove { parent, name, .. } => {
                *parent = self.take_up_directory(*parent)?;
                self.take_up_name(*parent, name)?;
            }
            Operation::Rename { from, to, .. } => {
                from.0 = self.take_up_directory(from.0)?;
                to.0 = self.take_up_directory(to.0)?;
                self.take_up_name(from.0, &from.1)?;
                self.take_up_name(to.0, &to.1)?;
            }
            Operation::SetAttributes { node, .. } | Operation::Settle { node } => {
                *node = self.take_up_node(*node)?;
            }
            Operation::Publish { inode, context, .. } => {
                let now = self.take_up_node(Node::Inode(*inode))?.key();
                if now != *inode
                    && let Some(state) = self.inode(now)?
                {
                    *inode = now;
                    // What was made from the file as it was is made from it as it goes on.
                    let versions = state.inode.versions.values();
                    let same = versions.filter(|version| context.covers_all(&version.context));
                    let same: Vec<_> = same.map(|version| version.dot).collect();
                    same.into_iter().for_each(|dot| context.include(dot));
                }
            }
            // None of these makes anything live that doesn't.
            Operation::Merge { .. } | Operation::Abandon { .. } | Operation::Withdraw { .. } => {}
        }
        Ok(operation)
    }

    /// Makes an inode go on as new if it is shown here under something that is forgotten, or just
    /// came to live there. Answers what it is then.
    pub(crate) fn take_up(&mut self, id: InodeId) -> Result<InodeId, I::Error> {
        if !self.index.forgets()? {
            return Ok(id);
        }
        self.refresh()?;
        if self.is_up(id)? { Ok(id) } else { self.take_up_inode(id) }
    }

    fn take_up_directory(&mut self, id: InodeId) -> Result<InodeId, I::Error> {
        let id = super::successor(self.index, self.index.representative(id)?)?;
        self.take_up(id)
    }

    fn take_up_node(&mut self, node: Node) -> Result<Node, I::Error> {
        let Node::Inode(id) = node else { return Ok(node) };
        let id = super::successor(self.index, id)?;
        self.take_up(id).map(Node::Inode)
    }

    fn take_up_name(
        &mut self,
        parent: InodeId,
        name: &crate::name::EntryName,
    ) -> Result<(), I::Error> {
        let row = self.index.shown(parent, name)?;
        row.map_or(Ok(()), |row| self.take_up(row.node.inode()).map(drop))
    }

    fn has_no_version(&self, id: InodeId) -> Result<bool, I::Error> {
        Ok(self.index.inode(id)?.is_some_and(|state| state.inode.is_withheld()))
    }

    /// Whether nothing forgotten is what an inode is shown by.
    fn is_up(&self, id: InodeId) -> Result<bool, I::Error> {
        if id == InodeId::ROOT || !self.index.forgets()? {
            return Ok(true);
        }
        let entries = self.index.entries_of(id)?;
        let present: Vec<_> = entries.iter().filter(|entry| entry.present).collect();
        if present.is_empty() {
            return Ok(true);
        }
        // Of what is still being made the ids may be forgotten: it goes on as new when it is published.
        let is_being_made = self.has_no_version(id)?;
        let mut is_up = is_being_made || !self.index.is_forgotten_inode(id)?;
        for entry in present {
            is_up &= !self.index.is_forgotten_inode(entry.shown_parent)?
                && (is_being_made || !self.index.is_forgotten_entry(entry.entry.id)?);
        }
        Ok(is_up)
    }
}
