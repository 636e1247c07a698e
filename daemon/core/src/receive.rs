//! What arrives from other devices.
//!
//! Nothing here trusts what arrives beyond its form: what no honest device would send is left out
//! or cut down alike on every device.

use crate::alarm::{Loss, Taken, is_soon_after};
use crate::clock::{Hlc, Stamp};
use crate::effect::Effect;
use crate::id::{EntryId, InodeId};
use crate::index::{EntryState, Index, InodeState, Register};
use crate::merge::Merged;
use crate::operation::Context;
use crate::register::{Entry, Inode, Kind, Parted};
use crate::transaction::{Heard, Transaction};
use crate::vector::VersionVector;
use alloc::collections::BTreeSet;
use alloc::vec::Vec;

/// Merges registers of other devices, in the transaction that `index` is.
///
/// # Errors
/// The storage's.
pub fn receive<I: Index>(
    index: &mut I,
    context: Context,
    registers: Vec<Register>,
) -> Result<Vec<Effect>, I::Error> {
    let mut transaction = Transaction::begin(index, context)?;
    let mut removed = BTreeSet::new();
    for register in registers {
        match register {
            Register::Inode(inode) => transaction.receive_inode(inode)?,
            Register::Entry(entry) => transaction.receive_entry(entry, &mut removed)?,
        }
    }
    transaction.refresh()?;
    for entry in removed {
        transaction.note_removed(entry)?;
    }
    transaction.finish()
}

impl<I: Index> Transaction<'_, I> {
    pub(crate) fn receive_inode(&mut self, mut inode: Inode) -> Result<(), I::Error> {
        let id = inode.id;
        let is_rootless = id == InodeId::ROOT && inode.kind != Kind::Directory;
        // A file leaves its device with a version, or not at all.
        if is_rootless || inode.is_withheld() || inode.latest_hlc() > Hlc::LAST {
            return Ok(());
        }
        if inode.kind != Kind::File {
            inode.versions.clear();
            inode.parted = Parted::default();
        }
        inode.drop_covered();
        self.catch_up(inode.latest_hlc());
        let Some(mine) = self.inode(id)? else {
            return self.write_inode(InodeState { inode, logged: 0 });
        };
        if mine.inode.is_withheld() {
            return self.meet_withheld(&mine, inode);
        }
        self.purge(id, true)?;
        let mut merged = (*mine).clone();
        let change = merged.inode.merge(inode);
        if merged.inode.kind != Kind::File {
            merged.inode.versions.clear();
            merged.inode.parted = Parted::default();
        }
        if merged.inode != mine.inode {
            if !sabotaged!(SupersededDropped) {
                self.retire(id, &change.superseded)?;
            }
            self.note_overwritten(&merged.inode, &change)?;
            self.write_inode(merged)?;
        }
        Ok(())
    }

    /// A file that is withheld here arrives, though it never left: it did before this index was put
    /// back to an earlier state. So it is published, with whatever was done to it here since.
    fn meet_withheld(&mut self, mine: &InodeState, inode: Inode) -> Result<(), I::Error> {
        let id = inode.id;
        let theirs = inode.attributes.clone();
        let mut merged = mine.clone();
        merged.inode.merge(inode);
        if merged.inode.attributes != theirs {
            merged.inode.attributes.dot = self.dot();
        }
        self.write_inode(merged)?;
        self.show_others(id, true)?;
        self.release(id)
    }

    /// Adds the entry to `removed` if somebody may have taken it out of the view.
    pub(crate) fn receive_entry(
        &mut self,
        entry: Entry,
        removed: &mut BTreeSet<EntryId>,
    ) -> Result<(), I::Error> {
        if entry.inode == InodeId::ROOT || entry.latest_hlc() > Hlc::LAST {
            return Ok(());
        }
        self.catch_up(entry.latest_hlc());
        self.purge(entry.inode, true)?;
        let Some(mine) = self.entry(entry.id)? else {
            let (inode, shown_parent) = (entry.inode, entry.place.parent);
            let state =
                EntryState { entry, withheld: None, logged: 0, shown_parent, present: false };
            self.write_entry(None, state, Heard::ByAll)?;
            return self.purge(inode, true);
        };
        let mut merged = mine.clone();
        if mine.logged == 0 {
            // The name of a file that is withheld here, and known elsewhere. What others have of it
            // counts as it is: a value of this device's own is told of only under a new dot, which
            // at an equal time could be the lesser one.
            if entry.place.stamp >= mine.entry.place.stamp {
                merged.entry.place = entry.place.clone();
            } else {
                merged.entry.place.dot = self.dot();
            }
            if let Some(own) = &mut merged.entry.removal {
                own.dots = VersionVector::from_iter([self.dot()]);
            }
        }
        if merged.entry.merge(entry) || mine.logged == 0 {
            if mine.present && mine.entry.removal != merged.entry.removal {
                removed.insert(merged.entry.id);
            }
            self.write_entry(Some(mine), merged, Heard::ByAll)?;
        }
        Ok(())
    }

    /// Tells of a file whose bytes another device replaced.
    fn note_overwritten(&mut self, inode: &Inode, change: &Merged) -> Result<(), I::Error> {
        for version in &change.superseded {
            // What left otherwise became a file of its own, or is in another that was merged.
            let mut later = inode.versions.values();
            let Some(by) = later.find(|by| by.context.covers(version.dot)) else { continue };
            // A version made from several brings them together, and takes nothing away.
            let keeps = by.is_merged() || by.parents.len() > 1 || by.content == version.content;
            // One file counts once, however often it is saved.
            let counted = version.stamp.writer == by.stamp.writer
                && is_soon_after(version.stamp.hlc, by.stamp.hlc)
                && !version.parents.is_empty();
            if keeps || counted || by.stamp.writer == self.state.writer {
                continue;
            }
            return self.index.note_loss(&Loss {
                writer: by.stamp.writer,
                author: Some(by.author.clone()),
                at: by.stamp.hlc,
                heard: self.now(),
                taken: Taken::Overwritten,
                bytes: version.content.size_bytes,
            });
        }
        Ok(())
    }

    /// Tells of a file if with this entry, which another device removed, its last name went.
    fn note_removed(&mut self, id: EntryId) -> Result<(), I::Error> {
        let Some(EntryState { entry, present: false, shown_parent, .. }) = self.index.entry(id)?
        else {
            return Ok(());
        };
        let (Some(removal), Some(state)) = (&entry.removal, self.inode(entry.inode)?) else {
            return Ok(());
        };
        let (writer, at) = (removal.stamp.writer, removal.stamp.hlc);
        let Some(latest) = state.inode.latest().filter(|_| writer != self.state.writer) else {
            return Ok(());
        };
        let is_recent = |stamp: Stamp| stamp.writer == writer && is_soon_after(stamp.hlc, at);
        let young = is_recent(latest.stamp);
        // What was overwritten just before, by either way of saving, has been counted.
        let counted = (young && !latest.parents.is_empty())
            || (entry.place.replaced.is_some() && is_recent(entry.place.stamp));
        if counted || self.index.entries_of(entry.inode)?.iter().any(|other| other.present) {
            return Ok(());
        }
        let parent = self.representative(shown_parent)?;
        let taken = match self.index.shown(parent, &entry.place.name)? {
            None if young => Taken::RemovedYoung,
            None => Taken::Removed,
            Some(shown) => {
                let taker = self.index.entry(shown.entry)?.and_then(|it| it.entry.place.replaced);
                let is_renamed_over = taker.is_some_and(|it| it.last == entry.inode);
                // A file of its own making that a program makes anew, again and again.
                if young && !is_renamed_over {
                    return Ok(());
                }
                Taken::Overwritten
            }
        };
        self.index.note_loss(&Loss {
            writer,
            author: removal.author.clone(),
            at,
            heard: self.now(),
            taken,
            bytes: latest.content.size_bytes,
        })
    }
}
