//! How often each rule of the view changed what is shown. The rules are those of `docs/sync.md`.

use super::replica::Replica;
use super::watch::{Seen, Watch};
use kith_core::id::{Dot, InodeId};
use kith_core::index::{EntryState, Node};
use kith_core::register::Kind;
use std::collections::{BTreeMap, BTreeSet};

/// A repair that a tree shows.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Found {
    rule: usize,
    /// What it repairs.
    what: Dot,
}

/// The rules, in the order of `docs/sync.md`.
const RULES: [&str; 14] = [
    "1 lives on by an unseen move",
    "1 lives on by an unseen version",
    "1 lives on by another name",
    "2 cut out of a cycle",
    "3 kept for what lives in it",
    "4 directories united",
    "4 beside a directory",
    "5 replaced by the same save",
    "6 later at the name",
    "7 version beside the file",
    "8 equal bytes of files",
    "8 equal bytes of versions",
    "8 names of one file at one name",
    "9 numbered",
];

/// How often each rule began to repair something somewhere.
#[derive(Default)]
pub(super) struct Repairs([u64; RULES.len()]);

impl Repairs {
    /// Counts what is repaired at a replica and wasn't when it was last looked at.
    pub(super) fn note(&mut self, replica: &Replica, _seen: &Seen, watch: &mut Watch) {
        let now = find(replica);
        for found in now.difference(&watch.repairs) {
            self.0[found.rule] += 1;
        }
        watch.repairs = now;
    }

    pub(super) fn counts(&self) -> BTreeMap<&'static str, u64> {
        RULES.iter().copied().zip(self.0).collect()
    }
}

fn find(replica: &Replica) -> BTreeSet<Found> {
    let mut found = BTreeSet::new();
    let mut add = |rule, what| {
        found.insert(Found { rule, what });
    };
    let index = &replica.index;
    for state in index.entries().filter(|state| state.present) {
        let is_directory = kind(replica, state) == Some(&Kind::Directory);
        if state.entry.removal.is_some() || state.withheld.is_some() {
            add_life(replica, state, is_directory, &mut add);
        }
        if state.shown_parent != state.entry.place.parent {
            add(3, state.entry.id.0);
        }
        if !is_directory {
            let inode = Node::Inode(state.entry.inode);
            let rows = || index.rows_of(state.entry.inode);
            if !rows().any(|row| row.node == inode && row.entry == state.entry.id) {
                let place = &state.entry.place;
                let twin = rows().any(|row| row.base == place.name);
                add(if twin { 12 } else { 10 }, state.entry.id.0);
            }
        }
    }
    for (directory, _) in index.unions() {
        add(5, directory.0);
    }
    for row in index.view() {
        let Some(wanted) = &row.wanted else { continue };
        let key = row.node.key().0;
        if row.name != *wanted {
            add(13, key);
        }
        match row.node {
            Node::Copy { .. } => add(9, key),
            Node::Inode(_) if is_conflict(wanted.as_bytes()) => add(7, key),
            Node::Inode(_) => {
                let holder = index.row_at(row.parent, &row.base);
                let directory = holder.and_then(|row| replica.kind(row.node));
                add(if directory == Some(&Kind::Directory) { 6 } else { 8 }, key);
            }
        }
    }
    for state in index.inodes().filter(|state| state.inode.versions.len() > 1) {
        let inode = state.inode.id;
        let latest = state.inode.latest().map(|version| version.dot);
        if index.rows_of(inode).next().is_none() {
            continue;
        }
        for dot in state.inode.versions.keys().filter(|dot| Some(**dot) != latest) {
            if index.rows_of(InodeId(*dot)).next().is_none() {
                add(11, *dot);
            }
        }
    }
    found
}

fn kind<'a>(replica: &'a Replica, state: &EntryState) -> Option<&'a Kind> {
    replica.kind(Node::Inode(state.entry.inode))
}

/// Why something lives that was removed.
fn add_life(
    replica: &Replica,
    state: &EntryState,
    is_directory: bool,
    add: &mut impl FnMut(usize, Dot),
) {
    let id = state.entry.id.0;
    let Some(removal) = &state.entry.removal else { return };
    if state.entry.outlives_removal() {
        // A place that was given after the removal may be one that somebody settled.
        if state.entry.place.stamp < removal.stamp {
            add(0, id);
        }
        return;
    }
    if is_directory {
        add(4, id);
        return;
    }
    let names = || replica.index.entries().filter(|it| it.entry.inode == state.entry.inode);
    let last = names().filter_map(|it| it.entry.removal.as_ref()).any(|it| it.last_link);
    add(if last { 1 } else { 2 }, id);
}

/// Whether a name is labelled as a conflict copy is, and not only with a device's name.
fn is_conflict(name: &[u8]) -> bool {
    const LABEL: &[u8] = b" (conflict ";
    name.windows(LABEL.len()).any(|window| window == LABEL)
}
