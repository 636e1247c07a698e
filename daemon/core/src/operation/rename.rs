//! Moving names: one write to one register, however much is below.

use super::{OperationError, RenameMode};
use crate::id::InodeId;
use crate::index::{EntryState, Index, Node, Shown};
use crate::register::{Removal, Replaced};
use crate::transaction::{Heard, Transaction};
use crate::view::At;

impl<I: Index> Transaction<'_, I> {
    pub(super) fn rename(
        &mut self,
        from: At,
        to: At,
        mode: RenameMode,
    ) -> Result<Node, OperationError<I::Error>> {
        let from = (self.open_directory(from.0)?, from.1);
        let to = (self.open_directory(to.0)?, to.1);
        self.settled_row(&from)?.ok_or(OperationError::NotFound)?;
        let target = self.settled_row(&to)?;
        self.settle_heirs(&from)?;
        // Settling the target may have settled the source with it.
        let source = self.index.shown(from.0, &from.1)?.ok_or(OperationError::NotFound)?;
        match (mode, &target) {
            (RenameMode::NoReplace, Some(_)) => return Err(OperationError::Exists),
            (RenameMode::Exchange, None) => return Err(OperationError::NotFound),
            _ => {}
        }
        self.refuse_into_itself(&source, to.0)?;
        if let Some(target) = target {
            if target.node == source.node {
                // POSIX: two names of one file both stay.
                return Ok(source.node);
            }
            if mode == RenameMode::Exchange {
                self.refuse_into_itself(&target, from.0)?;
                self.move_row(&target, &from, None)?;
                self.move_row(&source, &to, None)?;
            } else {
                let replaced = self.replace(&source, &target)?;
                self.move_row(&source, &to, replaced)?;
            }
        } else {
            self.move_row(&source, &to, None)?;
        }
        Ok(source.node)
    }

    fn move_row(
        &mut self,
        row: &Shown,
        to: &At,
        replaced: Option<Replaced>,
    ) -> Result<(), I::Error> {
        for entry in self.entries_behind(row)? {
            self.place_entry(entry, to.clone(), replaced)?;
        }
        Ok(())
    }

    /// Walks up from `to`. On the way, what a cycle shows in the root is put there, so that the
    /// move is not one into the hidden part of the cycle.
    fn refuse_into_itself(
        &mut self,
        row: &Shown,
        to: InodeId,
    ) -> Result<(), OperationError<I::Error>> {
        let moving = row.node.inode();
        if !self.is_directory(moving)? {
            return Ok(());
        }
        let mut at = to;
        while at != InodeId::ROOT {
            if self.representative(at)? == moving {
                return Err(OperationError::IntoItself);
            }
            let Some(entry) = self.entry_of(at)? else { break };
            at = entry.shown_parent;
            if at != entry.entry.place.parent {
                let name = entry.entry.place.name.clone();
                self.settle_entry(entry, (at, name), None)?;
            }
        }
        Ok(())
    }

    /// Removes what the source is renamed onto. While the source is withheld, so is the removal.
    fn replace(
        &mut self,
        source: &Shown,
        target: &Shown,
    ) -> Result<Option<Replaced>, OperationError<I::Error>> {
        let (file, old) = (source.node.inode(), target.node.inode());
        match (self.is_directory(file)?, self.is_directory(old)?) {
            (true, true) => {
                self.remove_row(target)?;
                return Ok(None);
            }
            (true, false) => return Err(OperationError::NotDirectory),
            (false, true) => return Err(OperationError::IsDirectory),
            (false, false) => {}
        }
        let source = self.inode(file)?.ok_or(OperationError::NotFound)?;
        let replaced = self.inode(old)?.ok_or(OperationError::NotFound)?;
        let entry = self.entry(target.entry)?.ok_or(OperationError::NotFound)?;
        let first = entry.entry.place.replaced;
        match (source.inode.is_withheld(), replaced.inode.is_withheld()) {
            (true, false) => self.withhold_removal(entry, file)?,
            (true, true) => {
                // What waited for the one that goes waits for the one that comes.
                for waiting in self.index.waiting_for(old)? {
                    let mut now = waiting.clone();
                    now.withheld = now.withheld.map(|(removal, _)| (removal, file));
                    self.write_entry(Some(waiting), now, Heard::Here)?;
                }
                self.remove_entry(entry)?;
            }
            (false, _) => self.remove_entry(entry)?,
        }
        // What took the name over before is only a step on the way from what had it first.
        let latest = replaced.inode.latest().map(|version| version.dot);
        let dot = latest.unwrap_or(replaced.inode.attributes.dot);
        let just = Replaced { inode: old, dot, last: old, last_dot: dot };
        Ok(Some(first.map_or(just, |first| Replaced { last: old, last_dot: dot, ..first })))
    }

    /// Removes an entry here, and elsewhere once `file` is published.
    fn withhold_removal(&mut self, entry: EntryState, file: InodeId) -> Result<(), I::Error> {
        let removal = self.removal_of(&entry)?;
        let mut now = entry.clone();
        let mut joined = now.withheld.take().map(|(removal, _)| removal);
        Removal::merge_into(&mut joined, Some(removal));
        now.withheld = joined.map(|removal| (removal, file));
        self.write_entry(Some(entry), now, Heard::Here)
    }
}
