//! Making what a repair shows ordinary, before the first operation on it.

use super::OperationError;
use crate::id::{EntryId, InodeId};
use crate::index::{EntryState, Index, InodeState, Node, Shown};
use crate::register::{Attributes, Entry, Inode, Kind, Parted, Place, Unread, Version};
use crate::transaction::{Heard, Transaction};
use crate::vector::VersionVector;
use crate::view::{At, Member, arrange, outlives};
use alloc::collections::{BTreeMap, BTreeSet};

/// Whether the copies of a group's files become files of their own.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Copies {
    /// They do.
    Settle,
    /// They stay what they are, if their files do.
    Leave,
}

/// Whether an entry isn't where its register says, or isn't gone as its register says.
fn is_repaired(state: &EntryState) -> bool {
    !outlives(state) || state.shown_parent != state.entry.place.parent
}

impl<I: Index> Transaction<'_, I> {
    /// The directory that is shown for `id`, settled, for names in it to be changed.
    pub(super) fn open_directory(
        &mut self,
        id: InodeId,
    ) -> Result<InodeId, OperationError<I::Error>> {
        let id = self.representative(id)?;
        if id == InodeId::ROOT {
            return Ok(id);
        }
        if !self.is_directory(id)? {
            let exists = self.inode(id)?.is_some();
            return Err(if exists {
                OperationError::NotDirectory
            } else {
                OperationError::NotFound
            });
        }
        let entry = self.entry_of(id)?.filter(|entry| entry.present);
        if is_repaired(&entry.ok_or(OperationError::NotFound)?) {
            self.settle_upwards(id)?;
            self.refresh()?;
        }
        self.living.insert(id);
        Ok(id)
    }

    /// Gives a directory its shown place, and the ones above it, as far as they are repaired too.
    fn settle_upwards(&mut self, mut directory: InodeId) -> Result<(), I::Error> {
        while let Some(entry) = self.entry_of(directory)?.filter(is_repaired) {
            directory = entry.shown_parent;
            let at = (entry.shown_parent, entry.entry.place.name.clone());
            self.settle_entry(entry, at, None)?;
        }
        Ok(())
    }

    /// What a name leads to, once whatever stands there is ordinary.
    pub(super) fn settled_row(&mut self, at: &At) -> Result<Option<Shown>, I::Error> {
        let row = match self.index.shown(at.0, &at.1)? {
            Some(row) if row.repaired => row,
            ordinary => return Ok(ordinary),
        };
        self.settle_group(&(row.parent, row.base), Copies::Settle)?;
        self.refresh()?;
        self.index.shown(at.0, &at.1)
    }

    /// Settles those who would come into a name, once it is vacated: else `rm -r` would see what
    /// it has listed change its name.
    pub(super) fn settle_heirs(&mut self, at: &At) -> Result<(), I::Error> {
        let mut groups = BTreeSet::new();
        for wanted in [Some(at.1.clone()), at.1.unnumbered()].into_iter().flatten() {
            let rows = self.index.shown_wanting(at.0, &wanted)?;
            groups.extend(rows.into_iter().map(|row| (row.parent, row.base)));
        }
        if groups.is_empty() {
            return Ok(());
        }
        for group in groups {
            self.settle_group(&group, Copies::Settle)?;
        }
        self.refresh()
    }

    /// Makes all names of a node ordinary, and answers the node that it is then.
    pub(super) fn settle_node(&mut self, node: Node) -> Result<Node, OperationError<I::Error>> {
        self.settle_names(node, Copies::Settle)?;
        let Node::Copy { version, .. } = node else { return Ok(node) };
        let id = InodeId(self.copy_id(version)?);
        match self.inode(id)? {
            Some(_) => Ok(Node::Inode(id)),
            None => Err(OperationError::NotFound),
        }
    }

    /// Makes all names of a node ordinary, and answers how many there are if they all were.
    pub(super) fn settle_names(&mut self, node: Node, copies: Copies) -> Result<usize, I::Error> {
        let rows = self.index.shown_of(node.key())?;
        let names = rows.len();
        let repaired = rows.into_iter().filter(|row| row.repaired);
        let groups: BTreeSet<At> = repaired.map(|row| (row.parent, row.base)).collect();
        if groups.is_empty() {
            return Ok(names);
        }
        for group in groups {
            self.settle_group(&group, copies)?;
        }
        self.refresh()?;
        Ok(0)
    }

    /// Writes what stands at a name as ordinary changes, copies too.
    pub(crate) fn settle_shown(&mut self, at: &At) -> Result<(), I::Error> {
        self.settle_group(at, Copies::Settle)
    }

    /// Writes what a group shows as ordinary changes: each thing at the name it is shown under,
    /// and what isn't shown because another shows the same, removed.
    fn settle_group(&mut self, at: &At, copies: Copies) -> Result<(), I::Error> {
        let members = self.members_at(at)?;
        let group = arrange(&members);
        let hidden: BTreeSet<EntryId> = group.hidden.into_iter().collect();
        // What stays a copy would go with the entry of its file.
        let has_own = |entry: &EntryId| copies == Copies::Settle || hidden.contains(entry);
        let mut rows = self.index.shown_from(at.0, &at.1)?;
        rows.retain(|row| row.wanted.is_some());
        let by_entry: BTreeMap<EntryId, &Member> =
            members.iter().map(|member| (member.entry.entry.id, member)).collect();
        let mut moved = BTreeSet::new();
        for row in rows {
            let here = (at.0, row.name);
            match (row.node, by_entry.get(&row.entry)) {
                (Node::Inode(_), Some(member)) => {
                    moved.insert(row.entry);
                    self.settle_entry(member.entry.clone(), here, None)?;
                }
                (Node::Copy { version, .. }, Some(member)) if has_own(&row.entry) => {
                    if let Some(version) = member.inode.inode.versions.get(&version) {
                        self.found_copy(&member.inode.inode, version, here)?;
                    }
                }
                _ => {}
            }
        }
        for member in &members {
            let id = member.entry.entry.id;
            if has_own(&id) && member.copies_here {
                self.part_versions(member)?;
            }
            if hidden.contains(&id) {
                self.remove_entry(member.entry.clone())?;
            } else if is_repaired(&member.entry) && !moved.contains(&id) {
                let parent = member.entry.shown_parent;
                let replaced = member.entry.entry.place.replaced;
                self.settle_entry(member.entry.clone(), (parent, at.1.clone()), replaced)?;
                self.settle_upwards(parent)?;
            }
        }
        Ok(())
    }

    /// Makes a version a file of its own. Its ids are the version's dot, so that two devices which
    /// do so at once make the same file.
    pub(super) fn found_copy(
        &mut self,
        of: &Inode,
        version: &Version,
        (parent, name): At,
    ) -> Result<(), I::Error> {
        let id = self.copy_id(version.dot)?;
        let (id, entry_id) = (InodeId(id), EntryId(id));
        if self.inode(id)?.is_some() || self.entry(entry_id)?.is_some() {
            return Ok(());
        }
        let attributes = Attributes { dot: self.dot(), ..of.attributes.clone() };
        let versions = BTreeMap::from([(version.dot, version.clone())]);
        let (kind, parted, unread) = (Kind::File, Parted::default(), Unread::new());
        let inode = Inode { id, kind, attributes, versions, parted, unread };
        self.write_inode(InodeState { inode, logged: 0 })?;
        let place = Place {
            stamp: Self::stamp_settled(version.stamp.hlc),
            dot: self.dot(),
            parent,
            name,
            replaced: None,
            carried: None,
            author: version.author.clone(),
            unread: Unread::new(),
        };
        let entry = Entry { id: entry_id, inode: id, place, removal: None, unread: Unread::new() };
        let state =
            EntryState { entry, withheld: None, logged: 0, shown_parent: parent, present: true };
        self.write_fresh(state, Heard::ByAll);
        Ok(())
    }

    /// Lets go of the versions of a file that aren't the latest.
    fn part_versions(&mut self, member: &Member) -> Result<(), I::Error> {
        let mut now = (*member.inode).clone();
        let latest = now.inode.latest().map(|version| version.dot);
        let others = now.inode.versions.keys().filter(|dot| Some(**dot) != latest);
        let others: VersionVector = others.copied().collect();
        if others.is_empty() {
            return Ok(());
        }
        now.inode.parted.versions.join(&others);
        now.inode.parted.dots.include(self.dot());
        let parted = now.inode.drop_covered();
        self.retire(now.inode.id, &parted)?;
        self.write_inode(now)
    }
}
