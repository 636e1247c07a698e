//! What must hold after every step.

use super::person::reachable;
use super::replica::{Act, Replica, Saved};
use super::rules::Found;
use crate::memory_index::{Mark, MemoryIndex};
use kith_core::id::InodeId;
use kith_core::index::EntryState;
use kith_core::register::Inode;
use kith_core::view;
use std::collections::BTreeSet;
use std::fmt::Write;

/// What is seen of one replica at one time.
pub(super) struct Seen {
    /// The versions that its tree shows.
    pub(super) saved: BTreeSet<Saved>,
}

/// What was seen of a replica before.
#[derive(Default)]
pub(super) struct Watch {
    saved: BTreeSet<Saved>,
    pub(super) repairs: BTreeSet<Found>,
}

/// Looks at a replica: everything is reachable and, if one looks `closely`, the view that was kept
/// up is the one computed anew.
pub(super) fn see(replica: &Replica, closely: bool) -> Result<Seen, String> {
    if closely {
        view_is_kept_up(replica)?;
    }
    everything_is_reachable(replica)?;
    let saved = replica.index.view().flat_map(|name| replica.shows(name.node)).collect();
    Ok(Seen { saved })
}

/// Every name can be reached from the root, unless it is in a directory that isn't known yet.
fn everything_is_reachable(replica: &Replica) -> Result<(), String> {
    let found = reachable(replica);
    let all = replica.index.view().count();
    if all == found.len() {
        return Ok(());
    }
    for name in replica.index.view().filter(|name| !found.contains(name)) {
        let mut at = name.parent;
        let mut steps = 0..=all;
        while steps.next().is_some() && at != InodeId::ROOT {
            let above = replica.index.entries().find(|state| state.entry.inode == at);
            let Some(above) = above.filter(|_| replica.index.held_inode(at).is_some()) else {
                break;
            };
            at = above.shown_parent;
        }
        if at == InodeId::ROOT || steps.is_empty() {
            return Err(format!("on {:?} {name:?} can't be reached", replica.device));
        }
    }
    Ok(())
}

/// A version leaves a file only for its history.
pub(super) fn no_version_vanishes(replica: &Replica, before: Mark) -> Result<(), String> {
    let mut versions = replica.index.versions_before(before);
    match versions.find(|(inode, version)| !replica.index.keeps_version(*inode, version.dot)) {
        Some((inode, version)) => Err(format!(
            "on {:?} {inode:?} lost its version {:?}, and history doesn't have it",
            replica.device, version.dot
        )),
        None => Ok(()),
    }
}

impl Watch {
    /// What was shown is shown, unless somebody who saw it replaced or removed it.
    pub(super) fn nothing_disappears<'a>(
        &self,
        replica: &Replica,
        seen: &Seen,
        acts: &(impl Iterator<Item = &'a Act> + Clone),
    ) -> Result<(), String> {
        for gone in self.saved.difference(&seen.saved) {
            if !acts.clone().any(|act| act.ended.contains(gone)) {
                return Err(format!(
                    "a version went from {:?} that nobody replaced or removed: {gone:?}",
                    replica.device
                ));
            }
        }
        Ok(())
    }

    pub(super) fn keep(&mut self, seen: Seen) {
        self.saved = seen.saved;
    }
}

/// The view that was kept up is the one that is computed anew.
pub(super) fn view_is_kept_up(replica: &Replica) -> Result<(), String> {
    let inodes: Vec<Inode> = replica.index.inodes().map(|state| state.inode.clone()).collect();
    let entries: Vec<EntryState> = replica.index.entries().cloned().collect();
    let anew = view::compute(&inodes, &entries);
    let kept = kept_up(&replica.index);
    if anew == kept {
        return Ok(());
    }
    let mut text = String::from("the view that was kept up isn't the one computed anew:");
    let (old, new): (BTreeSet<_>, BTreeSet<_>) =
        (lines(&kept).into_iter().collect(), lines(&anew).into_iter().collect());
    for (title, only) in [("kept up", old.difference(&new)), ("anew", new.difference(&old))] {
        for line in only {
            let _ = write!(text, "\n  only {title}: {line}");
        }
    }
    Err(text)
}

pub(super) fn kept_up(index: &MemoryIndex) -> view::Whole {
    let place = |state: &EntryState| (state.entry.id, (state.shown_parent, state.present));
    view::Whole {
        shown: index.view().cloned().collect(),
        entries: index.entries().map(place).collect(),
        unions: index.unions().collect(),
    }
}

pub(super) fn lines(whole: &view::Whole) -> Vec<String> {
    let shown = whole.shown.iter().map(|shown| format!("{shown:?}"));
    let entries = whole.entries.iter().map(|entry| format!("{entry:?}"));
    let unions = whole.unions.iter().map(|union| format!("{union:?}"));
    shown.chain(entries).chain(unions).collect()
}
