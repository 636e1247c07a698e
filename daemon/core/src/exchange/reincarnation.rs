//! Going on under a new writer when the present one turns out not to be this index's alone.
//!
//! That is the last resort. It takes two processes that go on from one memory, such as those of a
//! virtual machine that was copied while it ran: every other start has a writer of its own
//! ([`succeed`](crate::succession::succeed)).

use crate::id::{Dot, EntryId, InodeId, WriterId};
use crate::index::{EntryState, FormerWriter, Index, InodeState, Register, ReplicaState};
use crate::operation::Context;
use crate::register::{Inode, Removal};
use crate::vector::VersionVector;
use crate::view;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

const SLICE: usize = 512;

/// Goes on under `new_writer`. The device's own changes above the number `confirmed`, of which
/// others may hold different ones under the same numbers, get new dots; their stamps stay. What
/// the former writer made above it is no longer claimed to be known, so that others send it.
///
/// The numbers of the log go on, with all tags forgotten. The ids of objects that were made above
/// `confirmed` stay: if the other process made one of the same id, the two are merged.
///
/// # Errors
/// The storage's.
pub fn reincarnate<I: Index>(
    index: &mut I,
    context: Context,
    new_writer: WriterId,
    confirmed: u64,
) -> Result<(), I::Error> {
    let mut state = index.state()?;
    let former = Former { writer: state.writer, confirmed };
    let (inodes, mut entries) = former.changes(index, state.number)?;
    index.put_former_writer(FormerWriter {
        last: Dot { writer: state.writer, number: confirmed },
        ended: state.hlc.wall(),
        succeeded: context.now,
    })?;
    let knowledge = state.knowledge.dots().filter(|dot| dot.writer != former.writer);
    state.knowledge = knowledge.collect();
    state.knowledge.include(Dot { writer: former.writer, number: confirmed });
    state.writer = new_writer;

    let mut renamed = Renamed::new();
    for id in inodes {
        let Some(mut inode) = index.inode(id)? else { continue };
        former.renew_inode(&mut inode, &mut state, &mut renamed);
        index.put_inode(&inode)?;
    }
    // Also those whose doubtful removal nobody sees yet.
    for id in renamed.keys() {
        entries.extend(index.entries_of(*id)?.into_iter().map(|held| held.entry.id));
    }
    let mut rewritten: BTreeSet<InodeId> = renamed.keys().copied().collect();
    for id in entries {
        let Some(mut entry) = index.entry(id)? else { continue };
        rewritten.insert(entry.entry.inode);
        former.renew_entry(&mut entry, &mut state, &renamed);
        index.put_entry(&entry)?;
    }
    // A number of its own for the new writer's beginning, so that its log is never empty.
    state.number += 1;
    index.clear_tags()?;
    index.put_state(&state)?;
    index.put_tag(state.number, context.tag)?;
    // A copy's node is named by its version's dot, and what removals saw may be less now.
    view::renew(index, context, rewritten)
}

/// The new dots of versions, by inode and former dot.
type Renamed = BTreeMap<InodeId, BTreeMap<Dot, Dot>>;

/// The writer that is given up, and how much of what it made stays.
struct Former {
    writer: WriterId,
    confirmed: u64,
}

fn next(state: &mut ReplicaState) -> Dot {
    state.number += 1;
    Dot { writer: state.writer, number: state.number }
}

impl Former {
    fn is_doubtful(&self, dot: Dot) -> bool {
        dot.writer == self.writer && dot.number > self.confirmed
    }

    /// The ids of all registers up to `end` that hold doubtful values.
    fn changes<I: Index>(
        &self,
        index: &I,
        end: u64,
    ) -> Result<(Vec<InodeId>, BTreeSet<EntryId>), I::Error> {
        let (mut inodes, mut entries) = (Vec::new(), BTreeSet::new());
        let mut after = 0;
        while after < end {
            let changes = index.changes_after(after, SLICE)?;
            after = changes.last().map_or(end, |(place, _)| *place);
            for (_, register) in changes {
                if !super::dots(&register).into_iter().any(|dot| self.is_doubtful(dot)) {
                    continue;
                }
                match register {
                    Register::Inode(inode) => inodes.push(inode.id),
                    Register::Entry(entry) => drop(entries.insert(entry.id)),
                }
            }
        }
        Ok((inodes, entries))
    }

    fn renew_inode(&self, held: &mut InodeState, state: &mut ReplicaState, renamed: &mut Renamed) {
        let Inode { id, attributes, versions, parted, .. } = &mut held.inode;
        if self.is_doubtful(attributes.dot) {
            attributes.dot = next(state);
        }
        // In the order of the former numbers, so that a vector which covered one of two former
        // dots can cover the new one without the other.
        for (dot, mut version) in core::mem::take(versions) {
            if self.is_doubtful(dot) {
                version.dot = next(state);
                version.context = self.confirmed_part(&version.context);
                renamed.entry(*id).or_default().insert(dot, version.dot);
            }
            versions.insert(version.dot, version);
        }
        if parted.dots.dots().any(|dot| self.is_doubtful(dot)) {
            let seen = core::mem::take(&mut parted.versions);
            parted.versions = self.confirmed_part(&seen);
            let versions = renamed.get(id).into_iter().flatten();
            let seen = versions.filter(|(former, _)| seen.covers(**former));
            seen.for_each(|(_, new)| parted.versions.include(*new));
            parted.dots = parted.dots.dots().filter(|dot| dot.writer != self.writer).collect();
            parted.dots.include(next(state));
        }
        state.number += 1;
        held.logged = state.number;
    }

    fn renew_entry(&self, held: &mut EntryState, state: &mut ReplicaState, renamed: &Renamed) {
        let place = &mut held.entry.place;
        if self.is_doubtful(place.dot) {
            place.dot = next(state);
        }
        place.carried = place.carried.filter(|dot| !self.is_doubtful(*dot));
        if let Some(replaced) = &mut place.replaced
            && let Some(dot) = renamed.get(&replaced.inode).and_then(|dots| dots.get(&replaced.dot))
        {
            replaced.dot = *dot;
        }
        let versions = renamed.get(&held.entry.inode);
        let withheld = held.withheld.as_mut().map(|(removal, _)| removal);
        for removal in held.entry.removal.iter_mut().chain(withheld) {
            self.renew_removal(removal, state, versions);
        }
        // A withheld entry has no place in the log.
        if held.logged != 0 {
            state.number += 1;
            held.logged = state.number;
        }
    }

    fn renew_removal(
        &self,
        removal: &mut Removal,
        state: &mut ReplicaState,
        versions: Option<&BTreeMap<Dot, Dot>>,
    ) {
        if !removal.dots.dots().any(|dot| self.is_doubtful(dot)) {
            return;
        }
        removal.dots = removal.dots.dots().filter(|dot| dot.writer != self.writer).collect();
        removal.dots.include(next(state));
        let seen = core::mem::take(&mut removal.saw_content);
        removal.saw_content = self.confirmed_part(&seen);
        let seen = versions.into_iter().flatten().filter(|(former, _)| seen.covers(**former));
        seen.for_each(|(_, new)| removal.saw_content.include(*new));
    }

    /// A vector without what it claims of the former writer's doubtful changes: others may hold
    /// different ones under the same numbers, and those were never seen.
    fn confirmed_part(&self, vector: &VersionVector) -> VersionVector {
        vector
            .dots()
            .map(|dot| match self.is_doubtful(dot) {
                true => Dot { number: self.confirmed, ..dot },
                false => dot,
            })
            .collect()
    }
}
