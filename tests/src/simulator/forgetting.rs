//! Forgetting in a simulation: what each sweep may let go, and that nothing of it comes back.

use super::replica::{Act, Replica, Saved, Touch, saved};
use crate::memory_index::Mark;
use kith_core::clock::WallMs;
use kith_core::exchange::full_knowledge;
use kith_core::forget::{IdKind, Page, Sweep, Swept, renewed, successor, sweep};
use kith_core::id::{DeviceId, Dot, EntryId, InodeId};
use kith_core::index::{EntryState, IndexRead, InodeState};
use kith_core::register::Inode;
use kith_core::vector::VersionVector;
use std::collections::{BTreeMap, BTreeSet};

/// A slice of a sweep, as who keeps nothing longer than `kept_ms` makes it.
#[derive(Clone, Copy)]
pub(super) struct Slice<'a> {
    /// The other devices of the circle.
    pub(super) members: &'a [DeviceId],
    pub(super) kept_ms: u64,
    pub(super) after: Option<EntryId>,
    pub(super) limit: usize,
}

/// An object that a sweep forgot.
struct Gone {
    inode: InodeId,
    /// Where, and after how many commits there.
    at: (usize, usize),
    /// What people saved in it.
    saved: BTreeSet<Saved>,
    /// What the device knew that forgot it.
    known: VersionVector,
}

/// What was forgotten in a history, and what was ever known and done.
#[derive(Default)]
pub(super) struct Oblivion {
    gone: Vec<Gone>,
    /// All that was saved in what anybody ever forgot.
    saved: BTreeSet<Saved>,
    /// What each device knew before its disk lost anything.
    knew: BTreeMap<DeviceId, VersionVector>,
    registers: u64,
}

impl Oblivion {
    /// How many registers went.
    pub(super) fn registers(&self) -> u64 {
        self.registers
    }

    /// Whether somebody forgot what was saved.
    pub(super) fn has(&self, saved: Saved) -> bool {
        self.saved.contains(&saved)
    }

    /// A disk has only so many commits left: what was forgotten in later ones was not.
    pub(super) fn cut(&mut self, at: usize, commits: usize) {
        self.gone.retain(|gone| gone.at.0 != at || gone.at.1 <= commits);
    }

    /// Remembers what a device knows that is about to lose some of it, or its identity.
    pub(super) fn note_knowledge(&mut self, replica: &Replica) {
        let Ok(state) = replica.index.state();
        self.knew.entry(replica.device).or_default().join(&full_knowledge(&state));
    }

    /// Looks at what a slice did: it let go only what may go, and changed nothing that is shown.
    pub(super) fn look<'a>(
        &mut self,
        replicas: &[&Replica],
        at: usize,
        (slice, before, mark): (Slice<'_>, WallMs, Mark),
        acts: &(impl Iterator<Item = &'a Act> + Clone),
    ) -> Result<(), String> {
        let replica = replicas[at];
        let index = &replica.index;
        if index.shows_other_than(mark) {
            return Err(format!("forgetting changed what is shown on {:?}", replica.device));
        }
        let shown: BTreeSet<Saved> =
            index.view().flat_map(|name| replica.shows(name.node)).collect();
        let known = |device: &DeviceId| {
            let mut known = self.knew.get(device).cloned().unwrap_or_default();
            for other in replicas.iter().filter(|other| other.device == *device) {
                let Ok(state) = other.index.state();
                known.join(&full_knowledge(&state));
            }
            known
        };
        let known: Vec<VersionVector> = slice.members.iter().map(known).collect();
        let knows_all =
            |dots: &[Dot]| known.iter().all(|known| dots.iter().all(|dot| known.covers(*dot)));
        for state in index.entries_gone_since(mark) {
            self.registers += 1;
            let (id, inode) = (state.entry.id, state.entry.inode);
            // What another device has forgotten counts no more, whoever would keep it.
            let heard = |kind, id| index.was_forgotten(mark, kind, id);
            if heard(IdKind::Entry, id.0) && !heard(IdKind::Inode, inode.0) {
                continue;
            }
            let removal = state.entry.removal.as_ref();
            let is_old = removal.is_some_and(|removal| removal.stamp.hlc.wall() < before);
            let is_over = heard(IdKind::Entry, id.0) || heard(IdKind::Inode, inode.0);
            let is_known = is_over || knows_all(&entry_dots(state));
            if !is_old || !is_known {
                return Err(format!(
                    "{:?} forgot {id:?} of {inode:?} too early: removed long enough ago {is_old}, \
                     known to all {is_known}",
                    replica.device
                ));
            }
        }
        let Ok(state) = index.state();
        for InodeState { inode, .. } in index.inodes_gone_since(mark) {
            self.registers += 1;
            if replica.handles.iter().any(|handle| handle.inode == inode.id) {
                return Err(format!("{:?} forgot {:?}, which is open", replica.device, inode.id));
            }
            let Ok(inside) = index.entries_in(inode.id);
            if let Some(child) = inside.first() {
                return Err(format!("{:?} forgot the directory of {child:?}", replica.device));
            }
            let heard = index.was_forgotten(mark, IdKind::Inode, inode.id.0);
            if !heard && !knows_all(&inode_dots(inode)) {
                return Err(format!(
                    "{:?} forgot {:?}, and not all know of it",
                    replica.device, inode.id
                ));
            }
            let standing = inode.versions.values().flat_map(|version| saved(&version.content));
            let standing: BTreeSet<Saved> = standing.filter(|it| !shown.contains(it)).collect();
            let ended = |it: &Saved| acts.clone().any(|act| act.ended.contains(it));
            if let Some(lost) = standing.iter().find(|it| !ended(it)) {
                return Err(format!(
                    "{:?} forgot a version that nobody replaced or removed: {lost:?}",
                    replica.device
                ));
            }
            let retired = index.retired().filter(|(of, _)| *of == inode.id);
            let retired = retired.flat_map(|(_, version)| saved(&version.content));
            let mut all: BTreeSet<Saved> = retired.filter(|it| !shown.contains(it)).collect();
            all.extend(standing);
            self.saved.extend(&all);
            let at = (at, replica.present().commits);
            self.gone.push(Gone { inode: inode.id, at, saved: all, known: full_knowledge(&state) });
        }
        Ok(())
    }

    /// What was forgotten is shown nowhere, unless somebody did something to it that a device which
    /// forgot it didn't know of, and that came to the others.
    pub(super) fn nothing_came_back<'a>(
        &self,
        all: impl Iterator<Item = &'a Replica>,
        healed: &[&Replica],
    ) -> Result<(), String> {
        if self.gone.is_empty() {
            return Ok(());
        }
        let mut touches: BTreeMap<InodeId, Vec<&Touch>> = BTreeMap::new();
        for touch in all.flat_map(|replica| &replica.touches) {
            // Also of the new one that goes on for it, and for that one.
            let next = renewed(touch.inode.0);
            for inode in [touch.inode.0, next, renewed(next), renewed(renewed(next))] {
                touches.entry(InodeId(inode)).or_default().push(touch);
            }
        }
        let mut known = VersionVector::new();
        for replica in healed {
            let Ok(state) = replica.index.state();
            known.join(&full_knowledge(&state));
            // Of a device whose connection broke for good there may be changes that nobody could be told
            // are all up to there.
            let inodes = replica.index.inodes().flat_map(|state| inode_dots(&state.inode));
            let entries = replica.index.entries().flat_map(entry_dots);
            let forgotten = replica.index.pages().flat_map(Page::dots);
            inodes.chain(entries).chain(forgotten).for_each(|dot| known.include(dot));
        }
        let Some(first) = healed.first() else { return Ok(()) };
        for name in first.index.view() {
            for it in first.shows(name.node) {
                // A copy is shown because its file lives.
                let nodes = [name.node.key(), name.node.inode()];
                let of_node = nodes.iter().filter_map(|node| touches.get(node));
                // What was merged is in several files.
                let files = self.gone.iter().filter(|gone| gone.saved.contains(&it));
                let touched = files.filter_map(|gone| touches.get(&gone.inode)).chain(of_node);
                let touched: Vec<&Touch> = touched.flatten().copied().collect();
                let unknown = |gone: &Gone| {
                    let mut came = touched.iter().filter(|touch| known.covers(touch.first));
                    came.any(|touch| !gone.known.covers(touch.last))
                };
                // What was forgotten may have been forgotten on a disk that was lost.
                let is_over = |gone: &&Gone| {
                    let Ok(forgotten) = first.index.is_forgotten_inode(gone.inode);
                    forgotten && gone.saved.contains(&it)
                };
                let over = self.gone.iter().filter(is_over).map(|gone| gone.inode);
                // Where several forgot it, it counts who is heard first.
                let is_seen = |inode| {
                    let mut all = self.gone.iter().filter(|gone| gone.inode == inode);
                    all.all(|gone| !unknown(gone))
                };
                if over.collect::<BTreeSet<_>>().into_iter().any(is_seen) {
                    return Err(format!("what was removed and forgotten came back: {name:?}"));
                }
            }
        }
        Ok(())
    }
}

impl Replica {
    /// Forgets what it can of one slice. Answers also what was removed before when.
    pub(super) fn sweep(&mut self, now: WallMs, slice: Slice<'_>) -> (Swept, WallMs) {
        let context = self.context(now);
        let before = WallMs(context.now.0.saturating_sub(slice.kept_ms));
        let open: BTreeSet<InodeId> = self.handles.iter().map(|handle| handle.inode).collect();
        let Slice { members, after, limit, .. } = slice;
        let in_use = |inode| open.contains(&inode);
        let what = Sweep { members, before, in_use: &in_use, after, limit };
        let Ok(swept) = self.transact(|index| sweep(index, context, &what));
        (swept, before)
    }

    /// The inode that goes on for one that others have forgotten.
    pub(super) fn goes_on_as(&self, inode: InodeId) -> InodeId {
        let Ok(successor) = successor(&self.index, inode);
        successor
    }

    /// Notes of which inodes anything was written since `mark`, when the last number was `before`.
    pub(super) fn note_touches(&mut self, mark: Mark, before: u64) {
        let Ok(state) = self.index.state();
        let dot = |number| Dot { writer: state.writer, number };
        let (first, last) = (dot(state.number.min(before + 1)), dot(state.number));
        let touched = self.index.written_since(mark).into_iter();
        self.touches.extend(touched.map(|inode| Touch { inode, first, last }));
    }
}

/// The changes that made an entry's values what they are.
fn entry_dots(state: &EntryState) -> Vec<Dot> {
    let removal = state.entry.removal.iter().flat_map(|removal| removal.dots.dots());
    removal.chain([state.entry.place.dot]).collect()
}

/// The changes that made an inode's values what they are.
fn inode_dots(inode: &Inode) -> Vec<Dot> {
    let versions = inode.versions.keys().copied();
    versions.chain(inode.parted.dots.dots()).chain([inode.attributes.dot]).collect()
}
