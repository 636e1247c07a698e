//! What must hold once everything is healed.

use super::person::reachable;
use super::replica::{Act, Replica, Saved, saved};
use super::world::World;
use crate::memory_index::MemoryIndex;
use kith_core::index::{EntryState, IndexRead, Node, Register};
use kith_core::register::Inode;
use kith_core::view;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

pub(super) fn check(world: &World) -> Result<(), String> {
    for replica in &world.replicas {
        view_is_kept_up(replica)?;
        everything_is_reachable(replica)?;
    }
    let (first, others) = world.replicas.split_first().ok_or("there are no replicas")?;
    for other in others {
        same(first, other, "registers", registers)?;
        same(first, other, "trees", tree)?;
    }
    nothing_is_lost(world)
}

fn same(
    one: &Replica,
    other: &Replica,
    what: &str,
    list: fn(&Replica) -> Vec<String>,
) -> Result<(), String> {
    let (ours, theirs) = (list(one), list(other));
    if ours == theirs {
        return Ok(());
    }
    let (ours, theirs): (BTreeSet<_>, BTreeSet<_>) =
        (ours.into_iter().collect(), theirs.into_iter().collect());
    let mut text = format!("two devices end with different {what}:");
    for (device, only) in [(one, ours.difference(&theirs)), (other, theirs.difference(&ours))] {
        for line in only {
            let _ = write!(text, "\n  only on {:?}: {line}", device.device);
        }
    }
    Err(text)
}

fn registers(replica: &Replica) -> Vec<String> {
    let mut lines: Vec<String> = replica
        .index
        .registers()
        .into_iter()
        .map(|register| match register {
            Register::Inode(inode) => format!("{inode:?}"),
            Register::Entry(entry) => format!("{entry:?}"),
        })
        .collect();
    lines.sort();
    lines
}

/// Each name with all that a person sees of what it leads to.
fn tree(replica: &Replica) -> Vec<String> {
    let line = |shown: kith_core::index::Shown| {
        let Ok(state) = replica.index.inode(shown.node.inode());
        let inode = state.expect("what is shown is there").inode;
        let version = match shown.node {
            Node::Inode(_) => inode.latest(),
            Node::Copy { version, .. } => inode.versions.get(&version),
        };
        let version = version.map(|version| (&version.content, version.mtime));
        format!("{shown:?} {:?} {:?} {version:?}", inode.kind, inode.attributes)
    };
    let mut lines: Vec<String> = reachable(replica).into_iter().map(line).collect();
    lines.sort();
    lines
}

/// The view that was kept up is the one that is computed anew.
fn view_is_kept_up(replica: &Replica) -> Result<(), String> {
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

fn kept_up(index: &MemoryIndex) -> view::Whole {
    let place = |state: &EntryState| (state.entry.id, (state.shown_parent, state.present));
    view::Whole {
        shown: index.view().cloned().collect(),
        entries: index.entries().map(place).collect(),
        unions: index.unions().collect(),
    }
}

fn lines(whole: &view::Whole) -> Vec<String> {
    let shown = whole.shown.iter().map(|shown| format!("{shown:?}"));
    let entries = whole.entries.iter().map(|entry| format!("{entry:?}"));
    let unions = whole.unions.iter().map(|union| format!("{union:?}"));
    shown.chain(entries).chain(unions).collect()
}

fn everything_is_reachable(replica: &Replica) -> Result<(), String> {
    let (all, found) = (replica.index.view().count(), reachable(replica).len());
    if all == found {
        return Ok(());
    }
    Err(format!("{all} names are shown, but {found} can be reached from the root"))
}

/// Every version that was saved is shown, unless a person who saw it replaced or removed it.
fn nothing_is_lost(world: &World) -> Result<(), String> {
    let acts = || world.replicas.iter().flat_map(|replica| &replica.acts);
    let ended: BTreeSet<Saved> = acts().flat_map(|act: &Act| &act.ended).copied().collect();
    for replica in &world.replicas {
        let shown: BTreeSet<Saved> =
            reachable(replica).into_iter().filter_map(|name| content(replica, name.node)).collect();
        for act in acts() {
            if let Some(saved) = act.saved.filter(|saved| !shown.contains(saved))
                && !ended.contains(&saved)
            {
                return Err(format!(
                    "a version disappeared on {:?} that nobody replaced or removed: {saved:?}",
                    replica.device
                ));
            }
        }
    }
    Ok(())
}

fn content(replica: &Replica, node: Node) -> Option<Saved> {
    let Ok(state) = replica.index.inode(node.inode());
    let inode = state?.inode;
    let version = match node {
        Node::Inode(_) => inode.latest(),
        Node::Copy { version, .. } => inode.versions.get(&version),
    };
    saved(&version?.content)
}

/// How often each rule of the view repaired something in a replica's tree.
pub(super) fn repairs(replica: &Replica) -> BTreeMap<&'static str, u64> {
    let mut repairs = BTreeMap::new();
    let mut count = |rule, by: usize| {
        *repairs.entry(rule).or_default() += u64::try_from(by).unwrap_or(u64::MAX);
    };
    let index = &replica.index;
    let copies = index.view().filter(|shown| matches!(shown.node, Node::Copy { .. }));
    count("conflict copies", copies.count());
    let beside =
        index.view().filter(|shown| matches!(shown.node, Node::Inode(_)) && shown.wanted.is_some());
    count("names beside", beside.count());
    count("united directories", index.unions().count());
    let cut = index.entries().filter(|state| state.shown_parent != state.entry.place.parent);
    count("cut cycles", cut.count());
    let kept = |state: &&EntryState| {
        state.present && state.entry.removal.is_some() && !state.entry.outlives_removal()
    };
    count("survivors of removals", index.entries().filter(kept).count());
    count("shown as repaired", index.view().filter(|shown| shown.repaired).count());
    repairs
}
