//! One transaction on the tree: the numbers and stamps it gives out, the registers it writes, and
//! what it touched of the view.

use crate::clock::{DRIFT_MAX_MS, Hlc, Stamp, WallMs};
use crate::effect::Effect;
use crate::id::{Dot, EntryId, InodeId, WriterId};
use crate::index::{EntryState, Index, InodeState, ReplicaState, Retired};
use crate::name::EntryName;
use crate::operation::Context;
use crate::register::{Kind, Version};
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::rc::Rc;
use alloc::vec::Vec;

/// An entry that was changed and isn't in the index yet, because the view's part of it is derived
/// once for the whole transaction.
pub(crate) struct Staged {
    /// As the index has it.
    pub(crate) before: Option<EntryState>,
    /// As it is to be.
    pub(crate) now: EntryState,
}

/// Who hears of a change to an entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Heard {
    /// All devices.
    ByAll,
    /// This one only, because a file is withheld.
    Here,
}

/// A transaction in progress. Entries that were written are in the index only after
/// [`refresh`](Transaction::refresh); everything else at once.
pub(crate) struct Transaction<'a, I: Index> {
    pub(crate) index: &'a mut I,
    pub(crate) state: ReplicaState,
    begun: ReplicaState,
    context: Context,
    pub(crate) effects: BTreeSet<Effect>,
    /// Inodes that this transaction made or heard of for the first time.
    pub(crate) fresh: BTreeSet<InodeId>,
    inodes: BTreeMap<InodeId, Option<Rc<InodeState>>>,
    representatives: BTreeMap<InodeId, InodeId>,
    staged: BTreeMap<EntryId, Staged>,
    staged_of: BTreeSet<(InodeId, EntryId)>,
    /// Inodes of which an entry, or whether anything of them lives, may have changed.
    pub(crate) touched: BTreeSet<InodeId>,
    /// Of those, the ones whose versions or kind changed.
    pub(crate) revised: BTreeSet<InodeId>,
    /// Directories whose way up, or that of a cycle they were in, changed.
    pub(crate) moved: BTreeSet<InodeId>,
    /// Directories that were seen to live on their own, whatever is in them.
    pub(crate) living: BTreeSet<InodeId>,
    /// Inodes made here of which nothing is in the index but themselves.
    made: BTreeSet<InodeId>,
    /// The groups of the view to be arranged anew: a directory as it is shown, and an own name.
    pub(crate) dirty: BTreeSet<(InodeId, EntryName)>,
}

impl<'a, I: Index> Transaction<'a, I> {
    /// Begins.
    pub(crate) fn begin(index: &'a mut I, context: Context) -> Result<Self, I::Error> {
        let state = index.state()?;
        Ok(Transaction {
            index,
            begun: state.clone(),
            state,
            context,
            effects: BTreeSet::new(),
            fresh: BTreeSet::new(),
            inodes: BTreeMap::new(),
            representatives: BTreeMap::new(),
            staged: BTreeMap::new(),
            staged_of: BTreeSet::new(),
            touched: BTreeSet::new(),
            revised: BTreeSet::new(),
            moved: BTreeSet::new(),
            living: BTreeSet::from([InodeId::ROOT]),
            made: BTreeSet::new(),
            dirty: BTreeSet::new(),
        })
    }

    /// Brings the view up to date, keeps the replica's state and answers what changed.
    pub(crate) fn finish(mut self) -> Result<Vec<Effect>, I::Error> {
        self.refresh()?;
        if self.state.number != self.begun.number {
            self.index.put_tag(self.state.number, self.context.tag)?;
        }
        if self.state != self.begun {
            self.index.put_state(&self.state)?;
        }
        Ok(self.effects.into_iter().collect())
    }

    /// When the transaction happens.
    pub(crate) fn now(&self) -> WallMs {
        self.context.now
    }

    /// The next number of this writer.
    pub(crate) fn number(&mut self) -> u64 {
        self.state.number += 1;
        self.state.number
    }

    /// The name of a new change.
    pub(crate) fn dot(&mut self) -> Dot {
        Dot { writer: self.state.writer, number: self.number() }
    }

    /// A stamp later than all given out or caught up with before, and than `seen`: so that a
    /// device with a slow clock still overrides what it has seen.
    pub(crate) fn stamp_after(&mut self, seen: Hlc) -> Stamp {
        let next = self.state.hlc.next(self.context.now);
        let seen = if sabotaged!(SlowClockLoses) { Hlc::default() } else { seen };
        let hlc = next.max(Hlc(seen.0.saturating_add(1)));
        // What lies too far ahead is overridden without being caught up with.
        self.state.hlc = next.max(hlc.min(self.drift_limit()));
        Stamp { hlc, writer: self.state.writer }
    }

    /// The stamp of what settles a repair: the next after `seen`, whoever writes it and when. So
    /// two devices that settle the same write the same, and what a person does meanwhile, who
    /// saw as much, is later.
    pub(crate) fn stamp_settled(seen: Hlc) -> Stamp {
        Stamp { hlc: Hlc(seen.0.saturating_add(1)), writer: WriterId(0) }
    }

    /// Catches up with a time from elsewhere. Where it agrees with this device's clock, and what
    /// this device gave out before doesn't, the clock was wrong then and is right now.
    pub(crate) fn catch_up(&mut self, seen: Hlc) {
        let limit = self.drift_limit();
        let agreed = Hlc::at(WallMs(self.context.now.0.saturating_sub(DRIFT_MAX_MS)))..=limit;
        if self.state.hlc > limit && agreed.contains(&seen) {
            self.state.hlc = seen;
        }
        self.state.hlc = self.state.hlc.max(seen.min(limit));
    }

    fn drift_limit(&self) -> Hlc {
        Hlc::at(WallMs(self.context.now.0.saturating_add(DRIFT_MAX_MS)))
    }

    /// An inode as it is now.
    pub(crate) fn inode(&mut self, id: InodeId) -> Result<Option<Rc<InodeState>>, I::Error> {
        if let Some(known) = self.inodes.get(&id) {
            return Ok(known.clone());
        }
        let state = self.index.inode(id)?.map(Rc::new);
        self.inodes.insert(id, state.clone());
        Ok(state)
    }

    /// Whether the inode is known to be a directory.
    pub(crate) fn is_directory(&mut self, id: InodeId) -> Result<bool, I::Error> {
        Ok(self.inode(id)?.is_some_and(|state| state.inode.kind == Kind::Directory))
    }

    /// An entry as it is now.
    pub(crate) fn entry(&self, id: EntryId) -> Result<Option<EntryState>, I::Error> {
        match self.staged.get(&id) {
            Some(staged) => Ok(Some(staged.now.clone())),
            None => self.index.entry(id),
        }
    }

    /// The entries of an inode as they are now, in the ids' order.
    pub(crate) fn entries_of(&self, inode: InodeId) -> Result<Vec<EntryState>, I::Error> {
        let mut entries = match self.made.contains(&inode) {
            true => Vec::new(),
            false => self.index.entries_of(inode)?,
        };
        if self.staged.is_empty() {
            return Ok(entries);
        }
        entries.retain(|entry| !self.staged.contains_key(&entry.entry.id));
        let least = EntryId(InodeId::ROOT.0);
        let staged = self.staged_of.range((inode, least)..).take_while(|(of, _)| *of == inode);
        entries.extend(staged.map(|(_, id)| self.staged[id].now.clone()));
        entries.sort_by_key(|entry| entry.entry.id);
        Ok(entries)
    }

    /// The one entry of a directory that counts: the one with the smallest id.
    pub(crate) fn entry_of(&self, directory: InodeId) -> Result<Option<EntryState>, I::Error> {
        if directory == InodeId::ROOT {
            return Ok(None);
        }
        Ok(self.entries_of(directory)?.into_iter().next())
    }

    /// Notes that an inode with this id is being made, so that nobody looks for it.
    pub(crate) fn making(&mut self, id: InodeId) {
        self.inodes.insert(id, None);
        self.made.insert(id);
    }

    /// Writes an inode. `logged` is given to it here, unless it is withheld.
    pub(crate) fn write_inode(&mut self, mut state: InodeState) -> Result<(), I::Error> {
        let id = state.inode.id;
        let before = self.inode(id)?;
        state.logged = if state.inode.is_withheld() { 0 } else { self.number() };
        self.index.put_inode(&state)?;
        let state = Rc::new(state);
        self.inodes.insert(id, Some(state.clone()));
        let Some(before) = before else {
            self.fresh.insert(id);
            self.touched.insert(id);
            self.revised.insert(id);
            if state.inode.kind == Kind::Directory {
                self.moved.insert(id);
            }
            return Ok(());
        };
        self.report(&before, &state);
        if before.inode.kind != state.inode.kind {
            self.moved.insert(id);
        }
        if before.inode.kind != state.inode.kind || before.inode.versions != state.inode.versions {
            self.touched.insert(id);
            self.revised.insert(id);
        }
        Ok(())
    }

    /// Tells of what changed for those who look at the file.
    fn report(&mut self, before: &InodeState, now: &InodeState) {
        let key = now.inode.id;
        if before.inode.attributes != now.inode.attributes {
            self.effects.insert(Effect::Attributes { key });
        }
        let (old, new) = (before.inode.latest(), now.inode.latest());
        let (Some(new), false) = (new, old.map(|old| old.dot) == new.map(|new| new.dot)) else {
            return;
        };
        let here = new.dot.writer == self.state.writer;
        // A version that only says that others went into it is the same file to a reader. Another
        // time is another file: a mount's kernel takes no time of a file that it caches.
        let same = |old: &Version| old.content == new.content && old.mtime == new.mtime;
        if here || !old.is_some_and(same) {
            self.effects.insert(Effect::Content { key, here });
        }
    }

    /// Puts versions that are no longer the state of their file into history.
    pub(crate) fn retire(&mut self, inode: InodeId, versions: &[Version]) -> Result<(), I::Error> {
        let now = self.now();
        versions
            .iter()
            .try_for_each(|version| self.index.retire(inode, version, Retired::Superseded, now))
    }

    /// Writes an entry that is, or was, `before`. It gets a new place in the log if others are to
    /// hear of the change, and else keeps the one it has.
    pub(crate) fn write_entry(
        &mut self,
        before: Option<EntryState>,
        mut now: EntryState,
        heard: Heard,
    ) -> Result<(), I::Error> {
        let moves = before.as_ref().map(|state| &state.entry.place) != Some(&now.entry.place)
            || before.as_ref().is_some_and(|state| state.entry.inode != now.entry.inode);
        if moves {
            let mut inodes: Vec<InodeId> = before.iter().map(|state| state.entry.inode).collect();
            inodes.push(now.entry.inode);
            inodes.dedup();
            for inode in inodes {
                if self.is_directory(inode)? {
                    // The cycle it leaves has to be shown otherwise.
                    let cycle = self.cycle_through(inode)?;
                    self.moved.extend(cycle.into_iter().map(|(member, _)| member));
                    self.moved.insert(inode);
                }
            }
        }
        if heard == Heard::ByAll {
            now.logged = self.number();
        }
        self.touched.extend(before.iter().map(|state| state.entry.inode));
        self.touched.insert(now.entry.inode);
        self.stage(before, now);
        Ok(())
    }

    /// Writes an entry that was just made, of an inode that was just made too. Nothing can be in
    /// a directory so fresh, so there is no cycle to look for.
    pub(crate) fn write_fresh(&mut self, mut now: EntryState, heard: Heard) {
        if heard == Heard::ByAll {
            now.logged = self.number();
        }
        self.touched.insert(now.entry.inode);
        self.moved.remove(&now.entry.inode);
        self.stage(None, now);
    }

    fn stage(&mut self, before: Option<EntryState>, now: EntryState) {
        let before = match self.unstage(now.entry.id) {
            Some(staged) => staged.before,
            None => before,
        };
        self.staged_of.insert((now.entry.inode, now.entry.id));
        self.staged.insert(now.entry.id, Staged { before, now });
    }

    /// Takes a staged entry out, to put it into the index.
    pub(crate) fn unstage(&mut self, id: EntryId) -> Option<Staged> {
        let staged = self.staged.remove(&id)?;
        self.made.remove(&staged.now.entry.inode);
        self.staged_of.remove(&(staged.now.entry.inode, id));
        Some(staged)
    }

    /// Drops what never left this device.
    pub(crate) fn forget_inode(&mut self, id: InodeId) -> Result<(), I::Error> {
        self.inodes.insert(id, None);
        self.index.forget_inode(id)
    }

    /// The directory that one is shown as.
    pub(crate) fn representative(&mut self, directory: InodeId) -> Result<InodeId, I::Error> {
        if let Some(known) = self.representatives.get(&directory) {
            return Ok(*known);
        }
        let representative = self.index.representative(directory)?;
        self.representatives.insert(directory, representative);
        Ok(representative)
    }

    /// Shows a directory as another, or as itself. All names in it are to be arranged anew.
    pub(crate) fn set_representative(
        &mut self,
        directory: InodeId,
        representative: InodeId,
    ) -> Result<(), I::Error> {
        let before = self.representative(directory)?;
        if before == representative {
            return Ok(());
        }
        self.index.put_representative(directory, representative)?;
        self.representatives.insert(directory, representative);
        for name in self.index.names_present_in(directory)? {
            self.dirty.insert((before, name.clone()));
            self.dirty.insert((representative, name));
        }
        Ok(())
    }

    /// Has a group of the view arranged anew.
    pub(crate) fn mark(&mut self, entry: &EntryState) -> Result<(), I::Error> {
        let parent = self.representative(entry.shown_parent)?;
        self.dirty.insert((parent, entry.entry.place.name.clone()));
        Ok(())
    }
}
