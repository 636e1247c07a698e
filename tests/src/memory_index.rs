//! An index in memory: what the simulator and the tests of the replicated tree run on.
//!
//! A transaction is the owner's affair: clone the index before, put the clone back to roll back.

use kith_core::clock::WallMs;
use kith_core::id::{Cursor, DeviceId, Dot, EntryId, InodeId, Tag};
use kith_core::index::{
    CloneSigns, EntryState, FORMER_WRITERS_MAX, FormerWriter, Index, IndexRead, InodeState, Named,
    Register, ReplicaState, Retired, STRANGERS_MAX, Shown, Stranger,
};
use kith_core::name::EntryName;
use kith_core::register::Version;
use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::ops::Bound;

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Logged {
    Inode(InodeId),
    Entry(EntryId),
}

/// An index in memory. [`kith_core::operation::found`] must be its first transaction.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct MemoryIndex {
    state: Option<ReplicaState>,
    tags: BTreeMap<u64, Tag>,
    cursors: BTreeMap<DeviceId, Cursor>,
    former_writers: Vec<FormerWriter>,
    strangers: Vec<Stranger>,
    named: BTreeMap<DeviceId, Named>,
    clone_signs: Option<CloneSigns>,
    inodes: BTreeMap<InodeId, InodeState>,
    entries: BTreeMap<EntryId, EntryState>,
    retired: BTreeMap<(InodeId, Dot), Version>,
    representatives: BTreeMap<InodeId, InodeId>,
    shown: BTreeMap<(InodeId, EntryName), Shown>,
    // Derived, for look-ups.
    log: BTreeMap<u64, Logged>,
    by_inode: BTreeSet<(InodeId, EntryId)>,
    by_place: BTreeSet<(InodeId, EntryName, EntryId)>,
    present_in: BTreeSet<(InodeId, EntryName, EntryId)>,
    waiting: BTreeSet<(InodeId, EntryId)>,
    members: BTreeMap<InodeId, BTreeSet<InodeId>>,
    shown_from: BTreeSet<(InodeId, EntryName, EntryName)>,
    shown_wanting: BTreeSet<(InodeId, EntryName, InodeId, EntryName)>,
    shown_of: BTreeSet<(InodeId, InodeId, EntryName)>,
}

const FIRST: EntryId = EntryId(Dot { writer: kith_core::id::WriterId(0), number: 0 });

impl MemoryIndex {
    /// An index without a share.
    #[must_use]
    pub fn new() -> Self {
        MemoryIndex::default()
    }

    /// All inodes, in the ids' order.
    pub fn inodes(&self) -> impl Iterator<Item = &InodeState> {
        self.inodes.values()
    }

    /// All entries, in the ids' order.
    pub fn entries(&self) -> impl Iterator<Item = &EntryState> {
        self.entries.values()
    }

    /// The whole view, in the order of parents and names. Includes what is in directories that
    /// can't be reached from the root.
    pub fn view(&self) -> impl Iterator<Item = &Shown> {
        self.shown.values()
    }

    /// All directories that are shown as another one, with that one.
    pub fn unions(&self) -> impl Iterator<Item = (InodeId, InodeId)> {
        self.representatives.iter().map(|(directory, shown_as)| (*directory, *shown_as))
    }

    /// The versions in history, with their inodes.
    pub fn retired(&self) -> impl Iterator<Item = (InodeId, &Version)> {
        self.retired.iter().map(|((inode, _), version)| (*inode, version))
    }

    /// All registers that others may see, in the order of the log.
    #[must_use]
    pub fn registers(&self) -> Vec<Register> {
        self.log.values().map(|logged| self.register(*logged)).collect()
    }

    fn register(&self, logged: Logged) -> Register {
        match logged {
            Logged::Inode(id) => Register::Inode(self.inodes[&id].inode.clone()),
            Logged::Entry(id) => Register::Entry(self.entries[&id].entry.clone()),
        }
    }

    fn of_inode(&self, inode: InodeId) -> impl Iterator<Item = &EntryState> {
        let range = self.by_inode.range((inode, FIRST)..);
        range.take_while(move |(of, _)| *of == inode).map(|(_, id)| &self.entries[id])
    }

    fn unlink_entry(&mut self, id: EntryId) {
        let Some(old) = self.entries.remove(&id) else { return };
        let at = (old.shown_parent, old.entry.place.name.clone(), id);
        self.by_inode.remove(&(old.entry.inode, id));
        self.by_place.remove(&at);
        self.present_in.remove(&at);
        if let Some((_, file)) = old.withheld {
            self.waiting.remove(&(file, id));
        }
        self.log.remove(&old.logged);
    }

    fn unlink_shown(&mut self, parent: InodeId, name: &EntryName) {
        let Some(old) = self.shown.remove(&(parent, name.clone())) else { return };
        self.shown_from.remove(&(parent, old.base, name.clone()));
        self.shown_of.remove(&(old.node.key(), parent, name.clone()));
        if let Some(wanted) = old.wanted {
            self.shown_wanting.remove(&(parent, wanted, old.node.key(), name.clone()));
        }
    }
}

impl IndexRead for MemoryIndex {
    type Error = Infallible;

    fn state(&self) -> Result<ReplicaState, Infallible> {
        Ok(self.state.clone().expect("an index is founded before it is used"))
    }

    fn tag(&self, number: u64) -> Result<Option<Tag>, Infallible> {
        Ok(self.tags.range(number..).next().map(|(_, tag)| *tag))
    }

    fn cursor(&self, device: DeviceId) -> Result<Option<Cursor>, Infallible> {
        Ok(self.cursors.get(&device).copied())
    }

    fn former_writers(&self) -> Result<Vec<FormerWriter>, Infallible> {
        Ok(self.former_writers.clone())
    }

    fn strangers(&self) -> Result<Vec<Stranger>, Infallible> {
        Ok(self.strangers.clone())
    }

    fn named(&self, device: DeviceId) -> Result<Option<Named>, Infallible> {
        Ok(self.named.get(&device).copied())
    }

    fn clone_signs(&self) -> Result<Option<CloneSigns>, Infallible> {
        Ok(self.clone_signs)
    }

    fn changes_after(&self, after: u64, limit: usize) -> Result<Vec<(u64, Register)>, Infallible> {
        let range = self.log.range((Bound::Excluded(after), Bound::Unbounded)).take(limit);
        Ok(range.map(|(at, logged)| (*at, self.register(*logged))).collect())
    }

    fn inode(&self, id: InodeId) -> Result<Option<InodeState>, Infallible> {
        Ok(self.inodes.get(&id).cloned())
    }

    fn entry(&self, id: EntryId) -> Result<Option<EntryState>, Infallible> {
        Ok(self.entries.get(&id).cloned())
    }

    fn entries_of(&self, inode: InodeId) -> Result<Vec<EntryState>, Infallible> {
        Ok(self.of_inode(inode).cloned().collect())
    }

    fn entries_at(
        &self,
        shown_parent: InodeId,
        name: &EntryName,
    ) -> Result<Vec<EntryState>, Infallible> {
        let range = self.by_place.range((shown_parent, name.clone(), FIRST)..);
        let here = range.take_while(|(parent, at, _)| *parent == shown_parent && at == name);
        Ok(here.map(|(_, _, id)| self.entries[id].clone()).collect())
    }

    fn any_present_in(&self, shown_parent: InodeId) -> Result<bool, Infallible> {
        let from = (shown_parent, least_name(), FIRST);
        Ok(self.present_in.range(from..).next().is_some_and(|(at, _, _)| *at == shown_parent))
    }

    fn names_present_in(&self, shown_parent: InodeId) -> Result<Vec<EntryName>, Infallible> {
        let range = self.present_in.range((shown_parent, least_name(), FIRST)..);
        let here = range.take_while(|(parent, _, _)| *parent == shown_parent);
        let mut names: Vec<EntryName> = here.map(|(_, name, _)| name.clone()).collect();
        names.dedup();
        Ok(names)
    }

    fn waiting_for(&self, file: InodeId) -> Result<Vec<EntryState>, Infallible> {
        let range = self.waiting.range((file, FIRST)..).take_while(|(of, _)| *of == file);
        Ok(range.map(|(_, id)| self.entries[id].clone()).collect())
    }

    fn representative(&self, directory: InodeId) -> Result<InodeId, Infallible> {
        Ok(self.representatives.get(&directory).copied().unwrap_or(directory))
    }

    fn members(&self, representative: InodeId) -> Result<Vec<InodeId>, Infallible> {
        let mut members: BTreeSet<InodeId> =
            self.members.get(&representative).cloned().unwrap_or_default();
        if !self.representatives.contains_key(&representative) {
            members.insert(representative);
        }
        Ok(members.into_iter().collect())
    }

    fn shown(&self, parent: InodeId, name: &EntryName) -> Result<Option<Shown>, Infallible> {
        Ok(self.shown.get(&(parent, name.clone())).cloned())
    }

    fn shown_from(&self, parent: InodeId, base: &EntryName) -> Result<Vec<Shown>, Infallible> {
        let range = self.shown_from.range((parent, base.clone(), least_name())..);
        let here = range.take_while(|(at, of, _)| *at == parent && of == base);
        Ok(here.map(|(_, _, name)| self.shown[&(parent, name.clone())].clone()).collect())
    }

    fn shown_wanting(&self, parent: InodeId, wanted: &EntryName) -> Result<Vec<Shown>, Infallible> {
        let from = (parent, wanted.clone(), InodeId(FIRST.0), least_name());
        let range = self.shown_wanting.range(from..);
        let here = range.take_while(|(at, of, _, _)| *at == parent && of == wanted);
        Ok(here.map(|(_, _, _, name)| self.shown[&(parent, name.clone())].clone()).collect())
    }

    fn shown_of(&self, key: InodeId) -> Result<Vec<Shown>, Infallible> {
        let range = self.shown_of.range((key, InodeId(FIRST.0), least_name())..);
        let here = range.take_while(|(of, _, _)| *of == key);
        Ok(here.map(|(_, parent, name)| self.shown[&(*parent, name.clone())].clone()).collect())
    }

    fn list(
        &self,
        parent: InodeId,
        after: Option<&EntryName>,
        limit: usize,
    ) -> Result<Vec<Shown>, Infallible> {
        let from = match after {
            Some(name) => Bound::Excluded((parent, name.clone())),
            None => Bound::Included((parent, least_name())),
        };
        let range = self.shown.range((from, Bound::Unbounded));
        let here = range.take_while(|((at, _), _)| *at == parent).take(limit);
        Ok(here.map(|(_, shown)| shown.clone()).collect())
    }
}

/// The first name in the order of bytes.
fn least_name() -> EntryName {
    EntryName::new(&[1]).expect("a byte of 1 is a name")
}

impl Index for MemoryIndex {
    fn put_state(&mut self, state: &ReplicaState) -> Result<(), Infallible> {
        self.state = Some(state.clone());
        Ok(())
    }

    fn put_tag(&mut self, last: u64, tag: Tag) -> Result<(), Infallible> {
        self.tags.entry(last).or_insert(tag);
        Ok(())
    }

    fn clear_tags(&mut self) -> Result<(), Infallible> {
        self.tags.clear();
        Ok(())
    }

    fn put_cursor(&mut self, device: DeviceId, cursor: Cursor) -> Result<(), Infallible> {
        self.cursors.insert(device, cursor);
        Ok(())
    }

    fn put_former_writer(&mut self, former: FormerWriter) -> Result<(), Infallible> {
        self.former_writers.push(former);
        let beyond = self.former_writers.len().saturating_sub(FORMER_WRITERS_MAX);
        self.former_writers.drain(..beyond);
        Ok(())
    }

    fn put_stranger(&mut self, stranger: Stranger) -> Result<(), Infallible> {
        self.strangers.push(stranger);
        let beyond = self.strangers.len().saturating_sub(STRANGERS_MAX);
        self.strangers.drain(..beyond);
        Ok(())
    }

    fn put_named(&mut self, device: DeviceId, named: Named) -> Result<(), Infallible> {
        self.named.insert(device, named);
        Ok(())
    }

    fn put_clone_signs(&mut self, signs: CloneSigns) -> Result<(), Infallible> {
        self.clone_signs = Some(signs);
        Ok(())
    }

    fn forget_strangers(&mut self) -> Result<(), Infallible> {
        self.strangers.clear();
        self.named.clear();
        self.clone_signs = None;
        Ok(())
    }

    fn put_inode(&mut self, state: &InodeState) -> Result<(), Infallible> {
        let id = state.inode.id;
        if let Some(old) = self.inodes.insert(id, state.clone()) {
            self.log.remove(&old.logged);
        }
        if state.logged != 0 {
            let before = self.log.insert(state.logged, Logged::Inode(id));
            assert_eq!(before, None, "each place in the log is given out once");
        }
        Ok(())
    }

    fn put_entry(&mut self, state: &EntryState) -> Result<(), Infallible> {
        let id = state.entry.id;
        self.unlink_entry(id);
        let at = (state.shown_parent, state.entry.place.name.clone(), id);
        self.by_inode.insert((state.entry.inode, id));
        if state.present {
            self.present_in.insert(at.clone());
        }
        self.by_place.insert(at);
        if let Some((_, file)) = &state.withheld {
            self.waiting.insert((*file, id));
        }
        if state.logged != 0 {
            let before = self.log.insert(state.logged, Logged::Entry(id));
            assert_eq!(before, None, "each place in the log is given out once");
        }
        self.entries.insert(id, state.clone());
        Ok(())
    }

    fn forget_inode(&mut self, id: InodeId) -> Result<(), Infallible> {
        if let Some(old) = self.inodes.remove(&id) {
            self.log.remove(&old.logged);
        }
        Ok(())
    }

    fn forget_entry(&mut self, id: EntryId) -> Result<(), Infallible> {
        self.unlink_entry(id);
        Ok(())
    }

    fn retire(
        &mut self,
        inode: InodeId,
        version: &Version,
        _why: Retired,
        _at: WallMs,
    ) -> Result<(), Infallible> {
        self.retired.insert((inode, version.dot), version.clone());
        Ok(())
    }

    fn put_representative(
        &mut self,
        directory: InodeId,
        representative: InodeId,
    ) -> Result<(), Infallible> {
        if let Some(old) = self.representatives.remove(&directory)
            && let Some(members) = self.members.get_mut(&old)
        {
            members.remove(&directory);
        }
        if directory != representative {
            self.representatives.insert(directory, representative);
            self.members.entry(representative).or_default().insert(directory);
        }
        Ok(())
    }

    fn put_shown(&mut self, shown: &Shown) -> Result<(), Infallible> {
        self.unlink_shown(shown.parent, &shown.name);
        let (parent, name) = (shown.parent, shown.name.clone());
        self.shown_from.insert((parent, shown.base.clone(), name.clone()));
        self.shown_of.insert((shown.node.key(), parent, name.clone()));
        if let Some(wanted) = &shown.wanted {
            self.shown_wanting.insert((parent, wanted.clone(), shown.node.key(), name.clone()));
        }
        self.shown.insert((parent, name), shown.clone());
        Ok(())
    }

    fn remove_shown(&mut self, parent: InodeId, name: &EntryName) -> Result<(), Infallible> {
        self.unlink_shown(parent, name);
        Ok(())
    }
}
