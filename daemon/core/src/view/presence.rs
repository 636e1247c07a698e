//! Which entries are there, and in which directory each is shown.

use crate::id::InodeId;
use crate::index::{EntryState, Index};
use crate::register::{Inode, Kind, Version};
use crate::transaction::{Staged, Transaction};
use crate::vector::VersionVector;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

/// Whether an entry's place is later than the one that its removals saw, withheld ones too.
pub(crate) fn outlives(state: &EntryState) -> bool {
    let withheld = state.withheld.as_ref();
    state.entry.outlives_removal()
        && withheld.is_none_or(|(removal, _)| state.entry.place.stamp > removal.saw_place)
}

/// Which of an inode's entries live: those that outlive their removals. If none does, but the
/// inode has a version that no remover saw, or nobody removed what he took for the last name, the
/// latest-removed one.
pub(crate) fn lives(inode: &Inode, entries: &[EntryState]) -> Vec<bool> {
    let mut lives: Vec<bool> = entries.iter().map(outlives).collect();
    if lives.contains(&true) || entries.is_empty() {
        return lives;
    }
    let mut seen = VersionVector::new();
    let mut last_link = false;
    for entry in entries {
        for removal in removals(entry) {
            seen.join(&removal.saw_content);
            last_link |= removal.last_link;
        }
    }
    let is_seen = |version: &Version| version.is_within(&seen) || sabotaged!(RemovalSeesAll);
    if last_link && inode.versions.values().all(is_seen) {
        return lives;
    }
    let removed = |entry: &EntryState| removals(entry).map(|removal| removal.stamp).max();
    let latest =
        (0..entries.len()).max_by_key(|at| (removed(&entries[*at]), entries[*at].entry.id));
    lives[latest.expect("there is an entry")] = true;
    lives
}

fn removals(state: &EntryState) -> impl Iterator<Item = &crate::register::Removal> {
    state.entry.removal.iter().chain(state.withheld.iter().map(|(removal, _)| removal))
}

impl<I: Index> Transaction<'_, I> {
    /// Puts all staged entries into the index, with what the view derives for each alone, and
    /// follows what changes by them upwards.
    pub(crate) fn derive_presence(&mut self) -> Result<(), I::Error> {
        let shown_in = self.break_cycles()?;
        let mut touched = core::mem::take(&mut self.touched);
        touched.extend(shown_in.keys());
        let revised = core::mem::take(&mut self.revised);
        let mut unsure = Vec::new();
        for inode in touched {
            self.derive_entries(inode, &shown_in, revised.contains(&inode), &mut unsure)?;
        }
        while let Some(directory) = unsure.pop() {
            if self.living.contains(&directory) {
                continue;
            }
            self.derive_entries(directory, &BTreeMap::new(), false, &mut unsure)?;
        }
        self.part_absent()
    }

    /// Shows directories that went as themselves again.
    fn part_absent(&mut self) -> Result<(), I::Error> {
        for directory in core::mem::take(&mut self.moved) {
            if sabotaged!(UnionsStay) {
                continue;
            }
            if self.representative(directory)? == directory {
                continue;
            }
            let entry = self.entry_of(directory)?;
            if !self.is_directory(directory)? || !entry.is_some_and(|entry| entry.present) {
                self.set_representative(directory, directory)?;
            }
        }
        Ok(())
    }

    /// The directories of the cycle that `directory` is in, each with its entry. Empty if it is in
    /// none.
    pub(crate) fn cycle_through(
        &mut self,
        directory: InodeId,
    ) -> Result<Vec<(InodeId, EntryState)>, I::Error> {
        let mut path = Vec::new();
        let mut seen = BTreeSet::new();
        let mut at = directory;
        while seen.insert(at) {
            if !self.is_directory(at)? {
                return Ok(Vec::new());
            }
            let Some(entry) = self.entry_of(at)? else { return Ok(Vec::new()) };
            let parent = entry.entry.place.parent;
            path.push((at, entry));
            at = parent;
        }
        Ok(if at == directory { path } else { Vec::new() })
    }

    /// For each directory whose way up may have changed, the directory it is shown in.
    fn break_cycles(&mut self) -> Result<BTreeMap<InodeId, InodeId>, I::Error> {
        let mut shown_in = BTreeMap::new();
        // They are kept until it is known which of them are present.
        for directory in self.moved.clone() {
            if shown_in.contains_key(&directory) {
                continue;
            }
            let cycle = self.cycle_through(directory)?;
            let mut latest = cycle.iter().max_by_key(|(_, entry)| cut_order(entry));
            if sabotaged!(CycleCutAnywhere) {
                latest = cycle.iter().min_by_key(|(_, entry)| cut_order(entry));
            }
            let latest = latest.map(|(member, _)| *member);
            for (member, entry) in &cycle {
                let cut = latest == Some(*member);
                let parent = if cut { InodeId::ROOT } else { entry.entry.place.parent };
                shown_in.insert(*member, parent);
            }
            if !cycle.is_empty() {
                continue;
            }
            if let Some(entry) = self.entry_of(directory)? {
                shown_in.insert(directory, entry.entry.place.parent);
            }
        }
        Ok(shown_in)
    }

    /// Derives what the view has of an inode's entries, and puts those that changed.
    fn derive_entries(
        &mut self,
        inode: InodeId,
        shown_in: &BTreeMap<InodeId, InodeId>,
        revised: bool,
        unsure: &mut Vec<InodeId>,
    ) -> Result<(), I::Error> {
        let entries = self.entries_of(inode)?;
        let state = self.inode(inode)?;
        let known = state.as_deref().filter(|_| inode != InodeId::ROOT).map(|state| &state.inode);
        let is_directory = known.is_some_and(|inode| inode.kind == Kind::Directory);
        let lives = known.map_or(Vec::new(), |known| lives(known, &entries));
        let several = known.is_some_and(|inode| inode.versions.len() > 1);
        for (at, mut entry) in entries.into_iter().enumerate() {
            let staged = self.unstage(entry.entry.id);
            let changed = staged.is_some();
            let before = staged.map_or_else(|| Some(entry.clone()), |Staged { before, .. }| before);
            let counts = !is_directory || at == 0;
            let cut = shown_in.get(&inode).filter(|_| is_directory && counts);
            match cut {
                Some(parent) => entry.shown_parent = *parent,
                // The way up of a directory that isn't in the map is what it was.
                None if is_directory && counts => {}
                None => entry.shown_parent = entry.entry.place.parent,
            }
            let alive = lives.get(at).copied().unwrap_or(false);
            entry.present =
                counts && (alive || (is_directory && self.index.any_present_in(inode)?));
            if sabotaged!(KeptDirectoriesGone) && is_directory {
                entry.present = counts && alive;
            }
            if is_directory && at == 0 {
                if alive {
                    self.living.insert(inode);
                } else {
                    self.living.remove(&inode);
                }
            }
            if changed || before.as_ref() != Some(&entry) {
                self.put_derived(before.as_ref(), &entry, unsure)?;
            }
            // The copies stand beside the first present entry, which may be another one now.
            if entry.present && (revised || several) {
                self.mark(&entry)?;
            }
        }
        Ok(())
    }

    fn put_derived(
        &mut self,
        before: Option<&EntryState>,
        now: &EntryState,
        unsure: &mut Vec<InodeId>,
    ) -> Result<(), I::Error> {
        self.index.put_entry(now)?;
        let was = before.filter(|before| before.present);
        let is = Some(now).filter(|now| now.present);
        for state in [was, is].into_iter().flatten() {
            self.mark(state)?;
        }
        let (left, came) = (was.map(|it| it.shown_parent), is.map(|it| it.shown_parent));
        if left != came {
            unsure.extend(left.into_iter().chain(came));
        }
        if let Some(was) = was
            && self.is_directory(was.entry.inode)?
        {
            self.moved.insert(was.entry.inode);
        }
        Ok(())
    }
}

/// In a cycle, the last of this order is shown in the root.
fn cut_order(entry: &EntryState) -> (crate::clock::Stamp, crate::id::EntryId) {
    (entry.entry.place.stamp, entry.entry.id)
}
