//! The view computed anew from all registers, by other means than it is kept up by: the measure
//! that tests hold the kept-up one to.

use super::group::{Member, arrange};
use super::lives;
use super::naming::{At, Rows, give_out};
use crate::id::{EntryId, InodeId};
use crate::index::{EntryState, InodeState, Shown};
use crate::name::EntryName;
use crate::register::{Inode, Kind};
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::rc::Rc;
use alloc::vec::Vec;
use core::convert::Infallible;

/// A whole view.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Whole {
    /// All names, in the order of directories and names.
    pub shown: Vec<Shown>,
    /// For each entry, the directory it is shown in, and whether it is present.
    pub entries: BTreeMap<EntryId, (InodeId, bool)>,
    /// The directories that are shown as another, with that one.
    pub unions: BTreeMap<InodeId, InodeId>,
}

/// Computes the view of these registers. What the view had derived for the entries before isn't
/// looked at.
#[must_use]
pub fn compute(inodes: &[Inode], entries: &[EntryState]) -> Whole {
    let inodes: BTreeMap<InodeId, &Inode> = inodes.iter().map(|inode| (inode.id, inode)).collect();
    let mut entries: BTreeMap<EntryId, EntryState> =
        entries.iter().map(|entry| (entry.entry.id, entry.clone())).collect();
    let directories = directories(&inodes, &entries);
    show_in(&mut entries, &directories);
    find_present(&mut entries, &inodes, &directories);
    let (groups, unions) = unite(&entries, &inodes);
    let shown = name(&groups, &entries, &inodes);
    let entries = entries.into_iter().map(|(id, it)| (id, (it.shown_parent, it.present))).collect();
    Whole { shown, entries, unions }
}

/// Each directory with the one entry of it that counts.
fn directories(
    inodes: &BTreeMap<InodeId, &Inode>,
    entries: &BTreeMap<EntryId, EntryState>,
) -> BTreeMap<InodeId, EntryId> {
    let mut directories = BTreeMap::new();
    for (id, state) in entries {
        let inode = inodes.get(&state.entry.inode);
        let is_directory = inode.is_some_and(|inode| inode.kind == Kind::Directory);
        if is_directory && state.entry.inode != InodeId::ROOT {
            directories.entry(state.entry.inode).or_insert(*id);
        }
    }
    directories
}

fn show_in(entries: &mut BTreeMap<EntryId, EntryState>, directories: &BTreeMap<InodeId, EntryId>) {
    let mut cut = BTreeSet::new();
    for start in directories.keys() {
        // After as many steps as there are directories, one is in the cycle, if there is one.
        let mut at = *start;
        let up = |at: InodeId| directories.get(&at).map(|id| entries[id].entry.place.parent);
        let steps = directories.keys().try_for_each(|_| {
            at = up(at)?;
            Some(())
        });
        if steps.is_none() || !directories.contains_key(&at) {
            continue;
        }
        let mut cycle = alloc::vec![at];
        while let Some(next) = up(cycle[cycle.len() - 1]).filter(|next| *next != at) {
            cycle.push(next);
        }
        let ids = cycle.iter().map(|directory| directories[directory]);
        cut.extend(ids.max_by_key(|id| (entries[id].entry.place.stamp, *id)));
    }
    for (id, state) in entries {
        let parent = state.entry.place.parent;
        state.shown_parent = if cut.contains(id) { InodeId::ROOT } else { parent };
    }
}

fn find_present(
    entries: &mut BTreeMap<EntryId, EntryState>,
    inodes: &BTreeMap<InodeId, &Inode>,
    directories: &BTreeMap<InodeId, EntryId>,
) {
    let mut of_inode: BTreeMap<InodeId, Vec<EntryState>> = BTreeMap::new();
    for state in entries.values_mut() {
        state.present = false;
        of_inode.entry(state.entry.inode).or_default().push(state.clone());
    }
    for (inode, states) in of_inode.iter().filter(|(inode, _)| **inode != InodeId::ROOT) {
        let Some(register) = inodes.get(inode) else { continue };
        for (state, lives) in states.iter().zip(lives(register, states)) {
            let id = state.entry.id;
            if !lives || directories.get(inode).is_some_and(|counts| *counts != id) {
                continue;
            }
            // It, and all directories above it.
            let mut next = Some(id);
            while let Some(id) = next {
                let state = entries.get_mut(&id).expect("the entry is one of these");
                state.present = true;
                next = directories.get(&state.shown_parent).copied();
            }
        }
    }
}

type Groups = BTreeMap<At, Vec<EntryId>>;

/// Unites directories at one name, and therefore what is in them, until nothing changes.
fn unite(
    entries: &BTreeMap<EntryId, EntryState>,
    inodes: &BTreeMap<InodeId, &Inode>,
) -> (Groups, BTreeMap<InodeId, InodeId>) {
    let mut unions: BTreeMap<InodeId, InodeId> = BTreeMap::new();
    loop {
        let mut groups = Groups::new();
        for (id, state) in entries.iter().filter(|(_, state)| state.present) {
            let parent = state.shown_parent;
            let parent = unions.get(&parent).copied().unwrap_or(parent);
            groups.entry((parent, state.entry.place.name.clone())).or_default().push(*id);
        }
        let mut next = BTreeMap::new();
        for ids in groups.values() {
            let inodes = ids.iter().map(|id| inodes[&entries[id].entry.inode]);
            let directories = inodes.filter(|inode| inode.kind == Kind::Directory);
            let directories: BTreeSet<InodeId> = directories.map(|inode| inode.id).collect();
            for directory in directories.iter().skip(1) {
                next.insert(*directory, *directories.first().expect("one was skipped"));
            }
        }
        if next == unions {
            return (groups, unions);
        }
        unions = next;
    }
}

fn name(
    groups: &Groups,
    entries: &BTreeMap<EntryId, EntryState>,
    inodes: &BTreeMap<InodeId, &Inode>,
) -> Vec<Shown> {
    let mut first: BTreeMap<InodeId, EntryId> = BTreeMap::new();
    for (id, state) in entries.iter().filter(|(_, state)| state.present) {
        first.entry(state.entry.inode).or_insert(*id);
    }
    let mut shown: BTreeMap<At, Shown> = BTreeMap::new();
    let mut wanting: BTreeMap<At, Vec<Shown>> = BTreeMap::new();
    for (at, ids) in groups {
        let member = |id: &EntryId| {
            let entry = entries[id].clone();
            let inode = inodes[&entry.entry.inode].clone();
            let copies_here = inode.versions.len() > 1 && first.get(&inode.id) == Some(id);
            Member { entry, inode: Rc::new(InodeState { inode, logged: 0 }), copies_here }
        };
        let members: Vec<Member> = ids.iter().map(member).collect();
        let rows = Rows::new(at, arrange(&members));
        shown.extend(rows.plain.map(|row| (at.clone(), row)));
        for row in rows.labelled {
            wanting.entry((at.0, row.name.clone())).or_default().push(row);
        }
    }
    let mut named = shown.clone();
    for (at, rows) in &wanting {
        let is_free = |name: &EntryName| {
            let at = (at.0, name.clone());
            Ok::<_, Infallible>(!shown.contains_key(&at) && !wanting.contains_key(&at))
        };
        let Ok(rows) = give_out(rows.clone(), shown.contains_key(at), is_free);
        for row in rows {
            let before = named.insert((at.0, row.name.clone()), row);
            assert_eq!(before, None, "each name is given out once");
        }
    }
    named.into_values().collect()
}
