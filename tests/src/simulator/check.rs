//! What must hold once everything is healed.

use super::person::reachable;
use super::replica::{Act, Replica, Saved, saved};
use super::timeline::Moment;
use super::watch::{kept_up, lines, view_is_kept_up};
use super::world::World;
use kith_core::register::{Entry, Inode};
use std::collections::BTreeSet;
use std::fmt::{Debug, Write};

pub(super) fn check(world: &World) -> Result<(), String> {
    let mut replicas = world.healed();
    let first = replicas.next().ok_or("there are no replicas")?;
    view_is_kept_up(first)?;
    let (all, reached) = (first.index.view().count(), reachable(first).len());
    if all != reached {
        return Err(format!("{all} names are shown, but {reached} can be reached"));
    }
    let whole = kept_up(&first.index);
    for other in replicas {
        same(first, other, "inodes", &inodes(first), &inodes(other))?;
        same(first, other, "entries", &entries(first), &entries(other))?;
        let theirs = kept_up(&other.index);
        if theirs != whole {
            same(first, other, "trees", &lines(&whole), &lines(&theirs))?;
        }
    }
    nothing_is_lost(world)
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

fn inodes(replica: &Replica) -> Vec<&Inode> {
    let logged = replica.index.inodes().filter(|state| state.logged != 0);
    logged.map(|state| &state.inode).collect()
}

fn entries(replica: &Replica) -> Vec<&Entry> {
    let logged = replica.index.entries().filter(|state| state.logged != 0);
    logged.map(|state| &state.entry).collect()
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
        if let Some(lost) = own.filter_map(|act| act.saved).find(|saved| !held.contains(saved)) {
            return Err(format!("{:?} saved a version and lost it: {lost:?}", replica.device));
        }
    }
    Ok(())
}
