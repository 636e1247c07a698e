//! What must hold once everything is healed.

use super::person::reachable;
use super::replica::{Act, Replica, Saved, saved};
use super::timeline::Moment;
use super::watch::{kept_up, lines, view_is_kept_up};
use super::world::World;
use kith_core::id::{EntryId, InodeId};
use kith_core::index::{IndexRead, Shown};
use kith_core::register::{Entry, Inode, Version};
use kith_core::view;
use std::collections::BTreeSet;
use std::fmt::{Debug, Write};

/// Looks at the end of a history; and again once all have forgotten what they can.
pub(super) fn check_all(world: &mut World) -> Result<(), String> {
    check(world)?;
    if world.forget_all()? {
        check(world)?;
        world.healed().try_for_each(nothing_forgotten_is_shown)?;
    }
    world.copies_are_noticed()
}

fn nothing_forgotten_is_shown(replica: &Replica) -> Result<(), String> {
    let is_over = |name: &&Shown| {
        is_forgotten(replica, name.node.inode()) || is_forgotten_name(replica, name.entry)
    };
    match replica.index.view().find(is_over) {
        Some(name) => Err(format!("what is forgotten is shown on {:?}: {name:?}", replica.device)),
        None => Ok(()),
    }
}

fn is_forgotten(replica: &Replica, inode: InodeId) -> bool {
    let Ok(forgotten) = replica.index.is_forgotten_inode(inode);
    forgotten
}

fn is_forgotten_name(replica: &Replica, entry: EntryId) -> bool {
    let Ok(forgotten) = replica.index.is_forgotten_entry(entry);
    forgotten
}

fn check(world: &World) -> Result<(), String> {
    let mut replicas = world.healed();
    let first = replicas.next().ok_or("there are no replicas")?;
    view_is_kept_up(first)?;
    let (all, reached) = (first.index.view().count(), reachable(first).len());
    if all != reached {
        return Err(format!("{all} names are shown, but {reached} can be reached"));
    }
    let whole = remembered(first);
    for other in replicas {
        let pages = |replica: &Replica| replica.index.pages().cloned().collect::<Vec<_>>();
        same(first, other, "forgotten ids", &pages(first), &pages(other))?;
        same(first, other, "inodes", &inodes(first), &inodes(other))?;
        same(first, other, "entries", &entries(first), &entries(other))?;
        let theirs = remembered(other);
        if theirs != whole {
            same(first, other, "trees", &lines(&whole), &lines(&theirs))?;
        }
    }
    nothing_is_lost(world)?;
    world.healed().try_for_each(no_merge_outlives_what_follows)?;
    let healed: Vec<&Replica> = world.healed().collect();
    let all = world.places.iter().map(|place| &place.replica);
    world.oblivion.nothing_came_back(all, &healed)
}

fn same<T: PartialEq + Debug>(
    one: &Replica,
    other: &Replica,
    what: &str,
    ours: &[T],
    theirs: &[T],
) -> Result<(), String> {
    if ours == theirs {
        return Ok(());
    }
    let text = |list: &[T]| list.iter().map(|it| format!("{it:?}")).collect::<BTreeSet<_>>();
    let (ours, theirs) = (text(ours), text(theirs));
    let mut text = format!("two devices end with different {what}:");
    for (device, only) in [(one, ours.difference(&theirs)), (other, theirs.difference(&ours))] {
        for line in only {
            let _ = write!(text, "\n  only on {:?}: {line}", device.device);
        }
    }
    Err(text)
}

/// The view, without what is forgotten and isn't shown.
fn remembered(replica: &Replica) -> view::Whole {
    let mut whole = kept_up(&replica.index);
    whole.entries.retain(|id, (_, present)| {
        let of = replica.index.held_entry(*id).map(|state| state.entry.inode);
        let is_over =
            is_forgotten_name(replica, *id) || of.is_some_and(|inode| is_forgotten(replica, inode));
        *present || !is_over
    });
    // Where a removed one would be shown depends on the cycles that it is part of, and so on removed
    // directories that some still have.
    let Ok(forgets) = replica.index.forgets();
    for (id, (shown_parent, present)) in whole.entries.iter_mut().filter(|_| forgets) {
        if let Some(state) = replica.index.held_entry(*id).filter(|_| !*present) {
            *shown_parent = state.entry.place.parent;
        }
    }
    whole
}

fn inodes(replica: &Replica) -> Vec<&Inode> {
    // What is forgotten stays where its time is not over.
    let logged = replica.index.inodes().filter(|state| state.logged != 0);
    let logged = logged.filter(|state| !is_forgotten(replica, state.inode.id));
    logged.map(|state| &state.inode).collect()
}

fn entries(replica: &Replica) -> Vec<&Entry> {
    let logged = replica.index.entries().filter(|state| state.logged != 0);
    let logged = logged.filter(|state| {
        !is_forgotten_name(replica, state.entry.id) && !is_forgotten(replica, state.entry.inode)
    });
    logged.map(|state| &state.entry).collect()
}

/// No version that a device made of others stands beside a later one that has all that went into it.
fn no_merge_outlives_what_follows(replica: &Replica) -> Result<(), String> {
    for state in replica.index.inodes().filter(|state| state.inode.versions.len() > 1) {
        let versions = || state.inode.versions.values();
        for merged in versions().filter(|version| version.is_merged()) {
            let follows = |other: &&Version| {
                other.stamp > merged.stamp && other.context.covers_all(&merged.context)
            };
            if let Some(later) = versions().find(follows) {
                let (dot, later) = (merged.dot, later.dot);
                return Err(format!("{:?} has {dot:?} beside {later:?}", state.inode.id));
            }
        }
    }
    Ok(())
}

/// Every version that anybody still knows of is shown, unless a person who saw it replaced or
/// removed it, and that is known of too.
fn nothing_is_lost(world: &World) -> Result<(), String> {
    let known = |when: Moment| {
        let is_own = |replica: &Replica| {
            let present = replica.present();
            present.timeline == when.timeline && when.commits <= present.commits
        };
        world.healed().any(|replica| is_own(replica) || replica.heard.has(when))
    };
    let acts = || world.places.iter().flat_map(|place| &place.replica.acts);
    let ended = acts().filter(|act: &&Act| known(act.when)).flat_map(|act| &act.ended);
    let ended: BTreeSet<Saved> = ended.copied().collect();
    for replica in world.healed() {
        let shown: BTreeSet<Saved> =
            replica.index.view().flat_map(|name| replica.shows(name.node)).collect();
        let standing = replica.index.inodes().flat_map(|state| state.inode.versions.values());
        let retired = replica.index.retired().map(|(_, version)| version);
        let held: BTreeSet<Saved> =
            standing.chain(retired).flat_map(|version| saved(&version.content)).collect();
        if let Some(lost) = held.difference(&shown).find(|saved| !ended.contains(saved)) {
            return Err(format!(
                "a version disappeared on {:?} that nobody replaced or removed: {lost:?}",
                replica.device
            ));
        }
        let present = replica.present();
        let own = replica.acts.iter().filter(|act| {
            act.when.timeline == present.timeline && act.when.commits <= present.commits
        });
        if let Some(lost) = own.filter_map(|act| act.saved).find(|saved| {
            // What a person ended may be forgotten.
            !(held.contains(saved) || (ended.contains(saved) && world.oblivion.has(*saved)))
        }) {
            return Err(format!("{:?} saved a version and lost it: {lost:?}", replica.device));
        }
    }
    Ok(())
}
