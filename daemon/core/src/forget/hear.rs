//! Hearing that another device has forgotten.
//!
//! It has merged all that it knows, and everybody in its circle knew of the removal. So of an object
//! that lives here there are two kinds: one of which it knows every change was removed with that
//! in view, and is removed here too; one that was changed where it doesn't know of goes on as a
//! new object.

use super::{IdKind, Page, hearsay, inode_dots, is_over};
use crate::effect::Effect;
use crate::id::{EntryId, InodeId};
use crate::index::{EntryState, Index, Register};
use crate::operation::Context;
use crate::register::{Inode, Kind};
use crate::transaction::Transaction;
use crate::vector::VersionVector;
use crate::view::outlives;
use alloc::collections::BTreeSet;
use alloc::vec::Vec;

/// What became of pages that were heard.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Heard {
    /// What changed for those who look.
    pub(crate) effects: Vec<Effect>,
    /// Inodes that are still shown under something forgotten: what the other device has in their
    /// stead comes with its registers. If not, [`take_up`] is for them.
    pub(crate) waiting: BTreeSet<InodeId>,
}

/// Takes in what another device has forgotten, which knows what `known` covers or has it from others
/// that did, in the transaction that `index` is.
pub(crate) fn hear<I: Index>(
    index: &mut I,
    context: Context,
    pages: Vec<Page>,
    known: &VersionVector,
) -> Result<Heard, I::Error> {
    let mut ear = Ear {
        transaction: Transaction::begin(index, context)?,
        known,
        directories: BTreeSet::new(),
        waiting: BTreeSet::new(),
    };
    let (mut inodes, mut entries) = (Vec::new(), Vec::new());
    let (mut told, mut fresh) = (Vec::new(), Vec::new());
    for page in pages {
        let page = ear.without_wrong(page);
        fresh.push(ear.remember_heard(&page, &mut inodes, &mut entries)?);
        told.push(page);
    }
    if sabotaged!(HeardIgnored) {
        (inodes, entries) = (Vec::new(), Vec::new());
    }
    // What goes on as new may move others aside: what they were before counts.
    let seen = ear.seen(&entries)?;
    let mut changed = Vec::new();
    for id in inodes {
        changed.extend(ear.hear_inode(id)?);
    }
    ear.transaction.refresh()?;
    for id in changed {
        ear.renew_inode(id)?;
    }
    ear.transaction.refresh()?;
    for id in entries {
        ear.hear_entry(id, seen.contains(&id))?;
    }
    ear.transaction.refresh()?;
    ear.hear_directories()?;
    let heard = ear.finish()?;
    hearsay::note(index, &told, &fresh, known)?;
    Ok(heard)
}

/// Makes what is still shown under something forgotten go on as new: the device that has forgotten
/// it has told all that it knows, and it was not moved away.
pub(crate) fn take_up<I: Index>(
    index: &mut I,
    context: Context,
    waiting: BTreeSet<InodeId>,
) -> Result<Vec<Effect>, I::Error> {
    let mut transaction = Transaction::begin(index, context)?;
    for id in waiting {
        transaction.take_up_inode(id)?;
    }
    transaction.finish()
}

struct Ear<'a, 'k, I: Index> {
    transaction: Transaction<'a, I>,
    known: &'k VersionVector,
    /// Forgotten directories that are to be looked at once all files are done.
    directories: BTreeSet<InodeId>,
    waiting: BTreeSet<InodeId>,
}

impl<I: Index> Ear<'_, '_, I> {
    /// Nobody forgets the root, or what this device hasn't made yet.
    fn without_wrong(&self, mut page: Page) -> Page {
        let state = &self.transaction.state;
        let unmade = |dot: &crate::id::Dot| dot.writer == state.writer && dot.number > state.number;
        let wrong: Vec<_> =
            page.dots().filter(|dot| *dot == InodeId::ROOT.0 || unmade(dot)).collect();
        wrong.into_iter().for_each(|dot| page.remove(dot));
        page
    }

    /// Answers those ids of a page that weren't forgotten here.
    fn remember_heard(
        &mut self,
        page: &Page,
        inodes: &mut Vec<InodeId>,
        entries: &mut Vec<EntryId>,
    ) -> Result<Page, I::Error> {
        match page.id.kind {
            IdKind::Inode => {
                let here = self.transaction.index.inodes_on(page.id)?;
                inodes.extend(here.into_iter().filter(|id| page.contains(id.0)));
            }
            IdKind::Entry => {
                let here = self.transaction.index.entries_on(page.id)?;
                entries.extend(here.into_iter().filter(|id| page.contains(id.0)));
            }
        }
        let known = self.transaction.index.forgotten(page.id)?;
        let mut all = known.unwrap_or_else(|| Page::new(page.id));
        let fresh = page.clone().without(&all);
        if all.join(page) {
            let logged = self.transaction.number();
            self.transaction.index.put_forgotten(&all, logged)?;
        }
        Ok(fresh)
    }

    /// Which of these entries are where the other device knows them to be.
    fn seen(&mut self, entries: &[EntryId]) -> Result<BTreeSet<EntryId>, I::Error> {
        let mut seen = BTreeSet::new();
        for id in entries {
            let state = self.transaction.entry(*id)?;
            if state.is_some_and(|state| self.known.covers(state.entry.place.moved_by())) {
                seen.insert(*id);
            }
        }
        Ok(seen)
    }

    /// Removes a forgotten inode, unless it was changed: then it is answered.
    fn hear_inode(&mut self, id: InodeId) -> Result<Option<InodeId>, I::Error> {
        let Some(state) = self.transaction.inode(id)? else { return Ok(None) };
        if state.logged == 0 {
            // Withheld, in an index that was put back to before it wasn't: it goes on as new when
            // it is published.
            return Ok(None);
        }
        if state.inode.kind == Kind::Directory {
            self.directories.insert(id);
            return Ok(None);
        }
        let entries = self.transaction.entries_of(id)?;
        if self.is_known(&state.inode, &entries) {
            self.transaction.remove_here(id)?;
            return Ok(None);
        }
        Ok(Some(id))
    }

    fn renew_inode(&mut self, id: InodeId) -> Result<(), I::Error> {
        for above in self.transaction.renew_inode(id)? {
            self.look_above(above)?;
        }
        Ok(())
    }

    /// Whether the other device knows every change of an object that makes anything of it live. That
    /// somebody else removed it too, unheard of there, is no reason to keep it.
    fn is_known(&self, inode: &Inode, entries: &[EntryState]) -> bool {
        let mut made = inode_dots(inode);
        made.extend(entries.iter().map(|state| state.entry.place.moved_by()));
        let is_known = made.into_iter().all(|dot| self.known.covers(dot));
        if sabotaged!(KnownComesBack) {
            return false;
        }
        is_known || sabotaged!(ChangedIsRemoved)
    }

    /// Has a directory looked at, if it is forgotten: something new is in it.
    fn look_above(&mut self, directory: InodeId) -> Result<(), I::Error> {
        if self.transaction.index.is_forgotten_inode(directory)? {
            self.directories.insert(directory);
        }
        Ok(())
    }

    /// An entry, perhaps of an inode that lives on.
    fn hear_entry(&mut self, id: EntryId, is_seen: bool) -> Result<(), I::Error> {
        let Some(state) = self.transaction.entry(id)? else { return Ok(()) };
        let inode = state.entry.inode;
        if state.logged == 0 || self.transaction.index.is_forgotten_inode(inode)? {
            return Ok(());
        }
        if state.present && !self.transaction.is_directory(inode)? {
            if is_seen {
                self.transaction.remove_name_here(state)?;
            } else {
                let above = self.transaction.renew_entry(state)?;
                self.look_above(above)?;
            }
            self.transaction.refresh()?;
        } else if !state.present {
            self.pass_on(&state)?;
        }
        self.transaction.purge(inode, false)?;
        let left = self.transaction.index.entry(id)?;
        if left.is_some_and(|left| left.present) {
            self.waiting.insert(inode);
        }
        Ok(())
    }

    /// Has a name that is forgotten go on as a new one that is removed, if it was taken for the last one
    /// where the other device doesn't know of it: of the old one nobody is told any more.
    fn pass_on(&mut self, state: &EntryState) -> Result<(), I::Error> {
        let removal = state.entry.removal.as_ref().filter(|removal| removal.last_link);
        let Some(last) = removal else { return Ok(()) };
        if last.dots.dots().all(|dot| self.known.covers(dot)) {
            return Ok(());
        }
        self.transaction.renew_removed(state, last)
    }

    /// Directories, until none of them is left that something new is in.
    fn hear_directories(&mut self) -> Result<(), I::Error> {
        while let Some(id) = self.directories.pop_first() {
            let Some(state) = self.transaction.inode(id)? else { continue };
            let entries = self.transaction.entries_of(id)?;
            let Some(first) = entries.first() else { continue };
            let mut fresh = Vec::new();
            let mut inside = self.transaction.index.entries_in(id)?;
            let cycle = self.transaction.cycle_through(id)?.into_iter().map(|(_, entry)| entry);
            inside.extend(cycle.filter(|it| it.entry.place.parent == id && it.shown_parent != id));
            for child in inside {
                let is_here = child.present || child.entry.outlives_removal();
                if is_here
                    && !self.known.covers(child.entry.place.dot)
                    && !is_over(self.transaction.index, &Register::Entry(child.entry.clone()))?
                {
                    fresh.push(child);
                }
            }
            let is_known = self.is_known(&state.inode, &entries);
            if !fresh.is_empty() || (outlives(first) && !is_known) {
                let above = self.transaction.renew_directory(id, fresh)?;
                self.look_above(above)?;
            } else if outlives(first) || first.withheld.is_some() {
                self.transaction.remove_here(id)?;
            }
            self.transaction.refresh()?;
            if self.transaction.index.entries_of(id)?.iter().any(|entry| entry.present) {
                self.waiting.insert(id);
            }
        }
        Ok(())
    }

    fn finish(mut self) -> Result<Heard, I::Error> {
        // What came to wait first may have gone meanwhile.
        let mut waiting = BTreeSet::new();
        for id in core::mem::take(&mut self.waiting) {
            if self.transaction.index.entries_of(id)?.iter().any(|entry| entry.present) {
                waiting.insert(id);
            }
        }
        Ok(Heard { effects: self.transaction.finish()?, waiting })
    }
}
