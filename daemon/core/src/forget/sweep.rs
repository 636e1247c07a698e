//! Forgetting here.

use super::{Hearsay, IdKind, Over, entry_dots, inode_dots};
use crate::clock::WallMs;
use crate::exchange::full_knowledge;
use crate::id::{DeviceId, Dot, EntryId, InodeId};
use crate::index::{EntryState, Index};
use crate::operation::Context;
use crate::register::Kind;
use crate::transaction::Transaction;
use crate::vector::VersionVector;
use crate::view::outlives;
use alloc::vec::Vec;

/// What is to be forgotten.
pub struct Sweep<'a> {
    /// All other devices of the circle. What one of them isn't known to know stays; none: this
    /// device is alone.
    pub members: &'a [DeviceId],
    /// What was removed at this time or later stays.
    pub before: WallMs,
    /// Whether somebody has an inode open, which then stays.
    pub in_use: &'a dyn Fn(InodeId) -> bool,
    /// Where to go on: what the last call answered.
    pub after: Option<EntryId>,
    /// How many removed names to look at, at most.
    pub limit: usize,
}

/// How far a sweep came.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Swept {
    /// How many registers went.
    pub forgotten: usize,
    /// Where to go on. None: everything was looked at.
    pub after: Option<EntryId>,
}

/// Forgets removed objects, and removed names of objects that live, in the transaction that `index`
/// is: those that every other device of the circle is known to know of, of which this device
/// knows all that the others did, and that were removed long enough ago. Works in slices; an object
/// that can't go yet is looked at again by the next sweep.
///
/// # Errors
/// The storage's.
pub fn sweep<I: Index>(
    index: &mut I,
    context: Context,
    sweep: &Sweep<'_>,
) -> Result<Swept, I::Error> {
    let removed = index.removed_after(sweep.after, sweep.limit.max(1))?;
    let is_all = removed.len() < sweep.limit.max(1);
    let after = removed.last().map(|state| state.entry.id).filter(|_| !is_all);
    let own = full_knowledge(&index.state()?);
    // It may hold changes of which it has not said yet that it knows them. Whoever hears that they are
    // forgotten would take them for ones that weren't seen.
    let mut known = Some(alloc::vec![own.clone()]);
    for member in sweep.members {
        // What this device has not heard of yet may still change what was removed.
        let stated = index.stated(*member)?.filter(|stated| own.covers_all(stated));
        if stated.is_none() && sabotaged!(UnheardCounts) {
            continue;
        }
        known = known.zip(stated).map(|(mut known, stated)| {
            known.push(stated);
            known
        });
    }
    let transaction = Transaction::begin(index, context)?;
    let hearsay = transaction.index.hearsay()?;
    let mut broom =
        Broom { transaction, sweep, known, hearsay, over: Over::default(), forgotten: 0 };
    for state in removed {
        broom.consider_name(&state)?;
    }
    let Broom { mut transaction, over, forgotten, .. } = broom;
    transaction.remember(over)?;
    transaction.finish()?;
    Ok(Swept { forgotten, after })
}

struct Broom<'a, 's, I: Index> {
    transaction: Transaction<'a, I>,
    sweep: &'s Sweep<'s>,
    /// What this device knows, and what each other one has said that it does. None: one hasn't.
    known: Option<Vec<VersionVector>>,
    /// What this device heard to be forgotten from others that knew more.
    hearsay: Vec<Hearsay>,
    over: Over,
    forgotten: usize,
}

impl<I: Index> Broom<'_, '_, I> {
    fn is_known(&self, dots: &[Dot]) -> bool {
        if sabotaged!(ForgotTooEarly) {
            return true;
        }
        let known = self.known.as_ref();
        known.is_some_and(|all| all.iter().all(|of| dots.iter().all(|dot| of.covers(*dot))))
    }

    fn is_old(&self, state: &EntryState) -> bool {
        let removal = state.entry.removal.as_ref();
        let is_old = |at: WallMs| at < self.sweep.before || sabotaged!(YoungIsForgotten);
        removal.is_some_and(|removal| is_old(removal.stamp.hlc.wall()))
    }

    fn consider_name(&mut self, state: &EntryState) -> Result<(), I::Error> {
        let id = state.entry.id;
        // An object that went before may have taken it along.
        if self.transaction.index.entry(id)?.is_none() {
            return Ok(());
        }
        let inode = state.entry.inode;
        let entries = self.transaction.index.entries_of(inode)?;
        if entries.iter().all(|entry| !entry.present) {
            return self.consider(inode, entries);
        }
        let index = &self.transaction.index;
        if index.is_forgotten_inode(inode)? {
            return Ok(());
        }
        if index.is_forgotten_entry(id)? {
            return self.transaction.purge(inode, false);
        }
        let stays = |other: &&EntryState| other.entry.id != id && other.present && outlives(other);
        let mut is_kept = false;
        for other in entries.iter().filter(stays) {
            is_kept |= !index.is_forgotten_entry(other.entry.id)?;
        }
        // That a name was taken for the last one counts for the other names too.
        let was_last = state.entry.removal.as_ref().is_none_or(|removal| removal.last_link);
        let goes = is_kept
            && !was_last
            && state.logged != 0
            && state.withheld.is_none()
            && self.is_old(state)
            && self.is_known(&entry_dots(&state.entry))
            && !self.transaction.is_directory(inode)?;
        if goes {
            self.over.add(IdKind::Entry, id.0);
            self.transaction.index.forget_entry(id)?;
            self.forgotten += 1;
        }
        Ok(())
    }

    /// Forgets an inode of which no name is there, and then what was above it, if it can.
    fn consider(&mut self, id: InodeId, entries: Vec<EntryState>) -> Result<(), I::Error> {
        let mut next = Some((id, entries));
        while let Some((id, entries)) = next.take() {
            if !self.can_go(id, &entries)? {
                break;
            }
            self.over.add_object(id, &entries);
            for state in &entries {
                self.transaction.index.forget_entry(state.entry.id)?;
            }
            self.transaction.forget_inode(id)?;
            self.forgotten += entries.len() + 1;
            let parents = entries.iter().map(|state| state.entry.place.parent);
            for parent in parents.filter(|parent| *parent != InodeId::ROOT) {
                let above = self.transaction.index.entries_of(parent)?;
                if !above.is_empty() && above.iter().all(|entry| !entry.present) {
                    next = Some((parent, above));
                }
            }
        }
        Ok(())
    }

    fn can_go(&mut self, id: InodeId, entries: &[EntryState]) -> Result<bool, I::Error> {
        let Some(state) = self.transaction.inode(id)? else { return Ok(false) };
        let is_whole = |entry: &EntryState| {
            !entry.present && entry.withheld.is_none() && entry.logged != 0 && self.is_old(entry)
        };
        let is_open = (self.sweep.in_use)(id) && !sabotaged!(OpenIsForgotten);
        if state.logged == 0 || !entries.iter().all(is_whole) || is_open {
            return Ok(false);
        }
        let index = &self.transaction.index;
        if state.inode.kind == Kind::Directory && !sabotaged!(DirectoriesFirst) {
            // What was cut out of a cycle has its place in here, and is shown elsewhere.
            let is_empty = index.entries_in(id)?.is_empty();
            if !is_empty || !self.transaction.cycle_through(id)?.is_empty() {
                return Ok(false);
            }
        }
        let index = &self.transaction.index;
        // Of what another device has forgotten only this one's own time counts, once it has all else that
        // the other knew: some of it may have gone on as something that is still to come.
        if index.is_forgotten_inode(id)? {
            return Ok(!self.hearsay.iter().any(|heard| heard.contains(IdKind::Inode, id.0)));
        }
        let mut dots = inode_dots(&state.inode);
        dots.extend(entries.iter().flat_map(|entry| entry_dots(&entry.entry)));
        Ok(self.is_known(&dots))
    }
}
