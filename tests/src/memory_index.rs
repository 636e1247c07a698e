//! An index in memory: what the simulator and the tests of the replicated tree run on.
//!
//! A transaction is the owner's affair: take a [`mark`](MemoryIndex::mark) before, and
//! [`go_back`](MemoryIndex::go_back) to it to roll back. Every state since the journal was begun
//! can be had again, so a crash or an old copy of a disk costs only what it undoes.

use kith_core::clock::WallMs;
use kith_core::forget::{Hearsay, IdKind, Page, PageId};
use kith_core::id::{DeviceId, Dot, EntryId, InodeId, Reached, Tag};
use kith_core::index::{
    CloneSigns, EntryState, FORMER_WRITERS_MAX, FormerWriter, Index, IndexRead, InodeState, Named,
    Register, ReplicaState, Retired, STRANGERS_MAX, Shown, Stranger,
};
use kith_core::name::EntryName;
use kith_core::register::Version;
use kith_core::vector::VersionVector;
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::ops::Bound;

/// What the index remembers of its device's writers. It rarely changes.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
struct Writers {
    former: Vec<FormerWriter>,
    strangers: Vec<Stranger>,
    named: BTreeMap<DeviceId, Named>,
    clone_signs: Option<CloneSigns>,
}

/// A state of an index that can be had again.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Mark(usize);

/// What a row was before a change: what undoes it.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Before {
    State(Option<Box<ReplicaState>>),
    Tag(u64),
    Tags(BTreeMap<u64, Tag>),
    Reached(DeviceId, Option<Reached>),
    Writers(Box<Writers>),
    Inode(InodeId, Option<Box<InodeState>>),
    Entry(EntryId, Option<Box<EntryState>>),
    Retired(InodeId, Dot, Option<Box<Version>>),
    Representative(InodeId, InodeId),
    Shown(InodeId, EntryName, Option<Box<Shown>>),
    Forgotten(PageId, Option<Box<(u64, Page)>>),
    Stated(DeviceId, Option<VersionVector>),
    Hearsay(Vec<Hearsay>),
}

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
    reached: BTreeMap<DeviceId, Reached>,
    writers: Writers,
    inodes: BTreeMap<InodeId, InodeState>,
    entries: BTreeMap<EntryId, EntryState>,
    retired: BTreeMap<(InodeId, Dot), Version>,
    representatives: BTreeMap<InodeId, InodeId>,
    shown: BTreeMap<(InodeId, EntryName), Shown>,
    forgotten: BTreeMap<PageId, (u64, Page)>,
    stated: BTreeMap<DeviceId, VersionVector>,
    hearsay: Vec<Hearsay>,
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
    /// What undoes the changes, in their order; `None` as long as nobody wants it.
    journal: Option<Vec<Before>>,
    forgotten_log: BTreeMap<u64, PageId>,
}

const FIRST: EntryId = EntryId(Dot { writer: kith_core::id::WriterId(0), number: 0 });

impl MemoryIndex {
    /// An index without a share.
    #[must_use]
    pub fn new() -> Self {
        MemoryIndex::default()
    }

    /// Begins to keep what undoes changes.
    pub fn keep_journal(&mut self) {
        self.journal.get_or_insert_default();
    }

    /// A copy of the index as it is, with a journal that begins now.
    #[must_use]
    pub fn fork(&mut self) -> MemoryIndex {
        let journal = self.journal.take();
        let mut copy = self.clone();
        self.journal = journal;
        copy.keep_journal();
        copy
    }

    /// The present state, to go back to.
    #[must_use]
    pub fn mark(&self) -> Mark {
        Mark(self.journal.as_ref().map_or(0, Vec::len))
    }

    /// Undoes everything since `mark`, which must not lie ahead.
    ///
    /// # Panics
    /// If no journal was kept.
    pub fn go_back(&mut self, mark: Mark) {
        let mut journal = self.journal.take().expect("whoever goes back has kept a journal");
        for before in journal.drain(mark.0..).rev() {
            self.undo(before);
        }
        self.journal = Some(journal);
    }

    fn set_forgotten(&mut self, id: PageId, page: Option<(u64, Page)>) -> Option<(u64, Page)> {
        let old = match page {
            Some((logged, page)) => {
                self.forgotten_log.insert(logged, id);
                self.forgotten.insert(id, (logged, page))
            }
            None => self.forgotten.remove(&id),
        };
        if let Some((logged, _)) = &old {
            self.forgotten_log.remove(logged);
        }
        old
    }

    fn undo(&mut self, before: Before) {
        match before {
            Before::State(state) => self.state = state.map(|state| *state),
            Before::Tag(number) => drop(self.tags.remove(&number)),
            Before::Tags(tags) => self.tags = tags,
            Before::Reached(device, Some(reached)) => drop(self.reached.insert(device, reached)),
            Before::Reached(device, None) => drop(self.reached.remove(&device)),
            Before::Writers(writers) => self.writers = *writers,
            Before::Inode(id, inode) => drop(self.set_inode(id, inode.map(|inode| *inode))),
            Before::Entry(id, entry) => drop(self.set_entry(id, entry.map(|entry| *entry))),
            Before::Retired(inode, dot, Some(version)) => {
                self.retired.insert((inode, dot), *version);
            }
            Before::Retired(inode, dot, None) => drop(self.retired.remove(&(inode, dot))),
            Before::Representative(directory, representative) => {
                self.set_representative(directory, representative);
            }
            Before::Shown(parent, name, Some(row)) => {
                self.unlink_shown(parent, &name);
                self.link_shown(*row);
            }
            Before::Shown(parent, name, None) => drop(self.unlink_shown(parent, &name)),
            Before::Forgotten(id, page) => drop(self.set_forgotten(id, page.map(|page| *page))),
            Before::Stated(device, Some(known)) => drop(self.stated.insert(device, known)),
            Before::Stated(device, None) => drop(self.stated.remove(&device)),
            Before::Hearsay(hearsay) => self.hearsay = hearsay,
        }
    }

    /// The versions, with their inodes, of all inodes changed since `mark`, as they were before.
    pub fn versions_before(&self, mark: Mark) -> impl Iterator<Item = (InodeId, &Version)> {
        let changed = self.since(mark).iter().filter_map(|before| match before {
            Before::Inode(_, Some(state)) => Some(&state.inode),
            _ => None,
        });
        changed.flat_map(|inode| inode.versions.values().map(|version| (inode.id, version)))
    }

    fn since(&self, mark: Mark) -> &[Before] {
        self.journal.as_ref().map_or(&[][..], |journal| &journal[mark.0..])
    }

    /// The inodes of which an inode or an entry was written, or dropped, since `mark`.
    #[must_use]
    pub fn written_since(&self, mark: Mark) -> BTreeSet<InodeId> {
        let inodes = self.since(mark).iter().filter_map(|before| match before {
            Before::Inode(id, _) => Some(*id),
            Before::Entry(_, Some(state)) => Some(state.entry.inode),
            Before::Entry(id, None) => self.entries.get(id).map(|state| state.entry.inode),
            _ => None,
        });
        inodes.collect()
    }

    /// The inodes that were dropped since `mark`.
    pub fn inodes_gone_since(&self, mark: Mark) -> impl Iterator<Item = &InodeState> {
        self.since(mark).iter().filter_map(|before| match before {
            Before::Inode(id, Some(state)) if !self.inodes.contains_key(id) => Some(&**state),
            _ => None,
        })
    }

    /// The entries that were dropped since `mark`.
    pub fn entries_gone_since(&self, mark: Mark) -> impl Iterator<Item = &EntryState> {
        self.since(mark).iter().filter_map(|before| match before {
            Before::Entry(id, Some(state)) if !self.entries.contains_key(id) => Some(&**state),
            _ => None,
        })
    }

    /// Whether an id was forgotten at `mark`.
    #[must_use]
    pub fn was_forgotten(&self, mark: Mark, kind: IdKind, id: Dot) -> bool {
        let at = PageId::of(kind, id);
        let before = self.since(mark).iter().find_map(|before| match before {
            Before::Forgotten(page, old) if *page == at => Some(old.as_ref().map(|old| &old.1)),
            _ => None,
        });
        let page = before.unwrap_or_else(|| self.forgotten.get(&at).map(|(_, page)| page));
        page.is_some_and(|page| page.contains(id))
    }

    /// Whether a name of the view is another than at `mark`.
    #[must_use]
    pub fn shows_other_than(&self, mark: Mark) -> bool {
        self.since(mark).iter().any(|before| match before {
            Before::Shown(parent, name, old) => {
                self.shown.get(&(*parent, name.clone())) != old.as_deref()
            }
            _ => false,
        })
    }

    /// All pages of forgotten ids, in the ids' order.
    pub fn pages(&self) -> impl Iterator<Item = &Page> {
        self.forgotten.values().map(|(_, page)| page)
    }

    /// Whether a version stands, or is in history.
    #[must_use]
    pub fn keeps_version(&self, inode: InodeId, dot: Dot) -> bool {
        self.retired.contains_key(&(inode, dot))
            || self.held_inode(inode).is_some_and(|held| held.inode.versions.contains_key(&dot))
    }

    fn change_writers(&mut self) -> &mut Writers {
        let before = Box::new(self.writers.clone());
        self.note(|| Before::Writers(before));
        &mut self.writers
    }

    fn note(&mut self, before: impl FnOnce() -> Before) {
        if let Some(journal) = &mut self.journal {
            journal.push(before());
        }
    }

    /// All inodes, in the ids' order.
    pub fn inodes(&self) -> impl Iterator<Item = &InodeState> {
        self.inodes.values()
    }

    /// An inode.
    #[must_use]
    pub fn held_inode(&self, id: InodeId) -> Option<&InodeState> {
        self.inodes.get(&id)
    }

    /// An entry.
    #[must_use]
    pub fn held_entry(&self, id: EntryId) -> Option<&EntryState> {
        self.entries.get(&id)
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

    /// The names of one directory of the view, in order.
    pub fn view_of(&self, parent: InodeId) -> impl Iterator<Item = &Shown> {
        let range = self.shown.range((parent, least_name())..);
        range.take_while(move |((at, _), _)| *at == parent).map(|(_, shown)| shown)
    }

    /// The names of the node with this key, in the order of parent and name.
    pub fn rows_of(&self, key: InodeId) -> impl Iterator<Item = &Shown> {
        let range = self.shown_of.range((key, InodeId(FIRST.0), least_name())..);
        let here = range.take_while(move |(of, _, _)| *of == key);
        here.map(|(_, parent, name)| &self.shown[&(*parent, name.clone())])
    }

    /// What a name of the view leads to.
    #[must_use]
    pub fn row_at(&self, parent: InodeId, name: &EntryName) -> Option<&Shown> {
        self.shown.get(&(parent, name.clone()))
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

    /// Puts an inode in the place of another, or takes it out, and answers the other.
    fn set_inode(&mut self, id: InodeId, state: Option<InodeState>) -> Option<InodeState> {
        let logged = state.as_ref().map_or(0, |state| state.logged);
        let old = match state {
            Some(state) => self.inodes.insert(id, state),
            None => self.inodes.remove(&id),
        };
        self.unlog(old.as_ref().map_or(0, |old| old.logged));
        self.log_at(logged, Logged::Inode(id));
        old
    }

    /// Puts an entry in the place of another, or takes it out, and answers the other.
    fn set_entry(&mut self, id: EntryId, state: Option<EntryState>) -> Option<EntryState> {
        let old = self.entries.remove(&id);
        if let Some(old) = &old {
            let at = (old.shown_parent, old.entry.place.name.clone(), id);
            self.by_inode.remove(&(old.entry.inode, id));
            self.by_place.remove(&at);
            self.present_in.remove(&at);
            if let Some((_, file)) = old.withheld {
                self.waiting.remove(&(file, id));
            }
            self.unlog(old.logged);
        }
        if let Some(state) = state {
            let at = (state.shown_parent, state.entry.place.name.clone(), id);
            self.by_inode.insert((state.entry.inode, id));
            if state.present {
                self.present_in.insert(at.clone());
            }
            self.by_place.insert(at);
            if let Some((_, file)) = &state.withheld {
                self.waiting.insert((*file, id));
            }
            self.log_at(state.logged, Logged::Entry(id));
            self.entries.insert(id, state);
        }
        old
    }

    fn unlog(&mut self, at: u64) {
        if at != 0 {
            self.log.remove(&at);
        }
    }

    fn log_at(&mut self, at: u64, what: Logged) {
        if at != 0 {
            let before = self.log.insert(at, what);
            assert_eq!(before, None, "each place in the log is given out once");
        }
    }

    /// Shows a directory as another, and answers what it was shown as.
    fn set_representative(&mut self, directory: InodeId, representative: InodeId) -> InodeId {
        let old = self.representatives.remove(&directory);
        if let Some(members) = old.and_then(|old| self.members.get_mut(&old)) {
            members.remove(&directory);
        }
        if directory != representative {
            self.representatives.insert(directory, representative);
            self.members.entry(representative).or_default().insert(directory);
        }
        old.unwrap_or(directory)
    }

    fn link_shown(&mut self, shown: Shown) {
        let (parent, name) = (shown.parent, shown.name.clone());
        self.shown_from.insert((parent, shown.base.clone(), name.clone()));
        self.shown_of.insert((shown.node.key(), parent, name.clone()));
        if let Some(wanted) = &shown.wanted {
            self.shown_wanting.insert((parent, wanted.clone(), shown.node.key(), name.clone()));
        }
        self.shown.insert((parent, name), shown);
    }

    fn unlink_shown(&mut self, parent: InodeId, name: &EntryName) -> Option<Shown> {
        let old = self.shown.remove(&(parent, name.clone()))?;
        self.shown_from.remove(&(parent, old.base.clone(), name.clone()));
        self.shown_of.remove(&(old.node.key(), parent, name.clone()));
        if let Some(wanted) = &old.wanted {
            self.shown_wanting.remove(&(parent, wanted.clone(), old.node.key(), name.clone()));
        }
        Some(old)
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

    fn reached(&self, device: DeviceId) -> Result<Option<Reached>, Infallible> {
        Ok(self.reached.get(&device).copied())
    }

    fn former_writers(&self) -> Result<Vec<FormerWriter>, Infallible> {
        Ok(self.writers.former.clone())
    }

    fn strangers(&self) -> Result<Vec<Stranger>, Infallible> {
        Ok(self.writers.strangers.clone())
    }

    fn named(&self, device: DeviceId) -> Result<Option<Named>, Infallible> {
        Ok(self.writers.named.get(&device).copied())
    }

    fn clone_signs(&self) -> Result<Option<CloneSigns>, Infallible> {
        Ok(self.writers.clone_signs)
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

    fn entries_in(&self, shown_parent: InodeId) -> Result<Vec<EntryState>, Infallible> {
        let range = self.by_place.range((shown_parent, least_name(), FIRST)..);
        let here = range.take_while(|(parent, _, _)| *parent == shown_parent);
        let mut entries: Vec<EntryState> =
            here.map(|(_, _, id)| self.entries[id].clone()).collect();
        entries.sort_by_key(|state| state.entry.id);
        Ok(entries)
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

    fn removed_after(
        &self,
        after: Option<EntryId>,
        limit: usize,
    ) -> Result<Vec<EntryState>, Infallible> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let range = self.entries.range((from, Bound::Unbounded)).map(|(_, state)| state);
        Ok(range.filter(|state| !state.present).take(limit).cloned().collect())
    }

    fn forgets(&self) -> Result<bool, Infallible> {
        Ok(!self.forgotten.is_empty())
    }

    fn forgotten(&self, id: PageId) -> Result<Option<Page>, Infallible> {
        Ok(self.forgotten.get(&id).map(|(_, page)| page.clone()))
    }

    fn forgotten_after(&self, after: u64, limit: usize) -> Result<Vec<(u64, Page)>, Infallible> {
        let range = self.forgotten_log.range((Bound::Excluded(after), Bound::Unbounded));
        Ok(range.take(limit).map(|(at, id)| (*at, self.forgotten[id].1.clone())).collect())
    }

    fn inodes_on(&self, page: PageId) -> Result<Vec<InodeId>, Infallible> {
        let at = |number| InodeId(Dot { writer: page.writer, number });
        Ok(self.inodes.range(at(page.first())..=at(page.last())).map(|(id, _)| *id).collect())
    }

    fn entries_on(&self, page: PageId) -> Result<Vec<EntryId>, Infallible> {
        let at = |number| EntryId(Dot { writer: page.writer, number });
        Ok(self.entries.range(at(page.first())..=at(page.last())).map(|(id, _)| *id).collect())
    }

    fn stated(&self, device: DeviceId) -> Result<Option<VersionVector>, Infallible> {
        Ok(self.stated.get(&device).cloned())
    }

    fn hearsay(&self) -> Result<Vec<Hearsay>, Infallible> {
        Ok(self.hearsay.clone())
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
        let old = self.state.replace(state.clone());
        self.note(|| Before::State(old.map(Box::new)));
        Ok(())
    }

    fn put_tag(&mut self, last: u64, tag: Tag) -> Result<(), Infallible> {
        if let Entry::Vacant(vacant) = self.tags.entry(last) {
            vacant.insert(tag);
            self.note(|| Before::Tag(last));
        }
        Ok(())
    }

    fn clear_tags(&mut self) -> Result<(), Infallible> {
        let old = core::mem::take(&mut self.tags);
        self.note(|| Before::Tags(old));
        Ok(())
    }

    fn put_reached(&mut self, device: DeviceId, reached: Reached) -> Result<(), Infallible> {
        let old = self.reached.insert(device, reached);
        self.note(|| Before::Reached(device, old));
        Ok(())
    }

    fn put_former_writer(&mut self, former: FormerWriter) -> Result<(), Infallible> {
        let all = &mut self.change_writers().former;
        all.push(former);
        all.drain(..all.len().saturating_sub(FORMER_WRITERS_MAX));
        Ok(())
    }

    fn put_stranger(&mut self, stranger: Stranger) -> Result<(), Infallible> {
        let all = &mut self.change_writers().strangers;
        all.push(stranger);
        all.drain(..all.len().saturating_sub(STRANGERS_MAX));
        Ok(())
    }

    fn put_named(&mut self, device: DeviceId, named: Named) -> Result<(), Infallible> {
        self.change_writers().named.insert(device, named);
        Ok(())
    }

    fn put_clone_signs(&mut self, signs: CloneSigns) -> Result<(), Infallible> {
        self.change_writers().clone_signs = Some(signs);
        Ok(())
    }

    fn forget_strangers(&mut self) -> Result<(), Infallible> {
        let former = core::mem::take(&mut self.change_writers().former);
        self.writers = Writers { former, ..Writers::default() };
        Ok(())
    }

    fn put_inode(&mut self, state: &InodeState) -> Result<(), Infallible> {
        let id = state.inode.id;
        let old = self.set_inode(id, Some(state.clone()));
        self.note(|| Before::Inode(id, old.map(Box::new)));
        Ok(())
    }

    fn put_entry(&mut self, state: &EntryState) -> Result<(), Infallible> {
        let id = state.entry.id;
        let old = self.set_entry(id, Some(state.clone()));
        self.note(|| Before::Entry(id, old.map(Box::new)));
        Ok(())
    }

    fn forget_inode(&mut self, id: InodeId) -> Result<(), Infallible> {
        let old = self.set_inode(id, None);
        self.note(|| Before::Inode(id, old.map(Box::new)));
        Ok(())
    }

    fn forget_entry(&mut self, id: EntryId) -> Result<(), Infallible> {
        let old = self.set_entry(id, None);
        self.note(|| Before::Entry(id, old.map(Box::new)));
        Ok(())
    }

    fn put_forgotten(&mut self, page: &Page, logged: u64) -> Result<(), Infallible> {
        let old = self.set_forgotten(page.id, Some((logged, page.clone())));
        self.note(|| Before::Forgotten(page.id, old.map(Box::new)));
        Ok(())
    }

    fn put_stated(
        &mut self,
        device: DeviceId,
        knowledge: Option<&VersionVector>,
    ) -> Result<(), Infallible> {
        let old = match knowledge {
            Some(knowledge) => self.stated.insert(device, knowledge.clone()),
            None => self.stated.remove(&device),
        };
        self.note(|| Before::Stated(device, old));
        Ok(())
    }

    fn put_hearsay(&mut self, hearsay: &[Hearsay]) -> Result<(), Infallible> {
        let old = std::mem::replace(&mut self.hearsay, hearsay.to_vec());
        self.note(|| Before::Hearsay(old));
        Ok(())
    }

    fn retire(
        &mut self,
        inode: InodeId,
        version: &Version,
        _why: Retired,
        _at: WallMs,
    ) -> Result<(), Infallible> {
        let old = self.retired.insert((inode, version.dot), version.clone());
        self.note(|| Before::Retired(inode, version.dot, old.map(Box::new)));
        Ok(())
    }

    fn put_representative(
        &mut self,
        directory: InodeId,
        representative: InodeId,
    ) -> Result<(), Infallible> {
        let old = self.set_representative(directory, representative);
        self.note(|| Before::Representative(directory, old));
        Ok(())
    }

    fn put_shown(&mut self, shown: &Shown) -> Result<(), Infallible> {
        let old = self.unlink_shown(shown.parent, &shown.name);
        self.link_shown(shown.clone());
        self.note(|| Before::Shown(shown.parent, shown.name.clone(), old.map(Box::new)));
        Ok(())
    }

    fn remove_shown(&mut self, parent: InodeId, name: &EntryName) -> Result<(), Infallible> {
        let old = self.unlink_shown(parent, name);
        self.note(|| Before::Shown(parent, name.clone(), old.map(Box::new)));
        Ok(())
    }
}
