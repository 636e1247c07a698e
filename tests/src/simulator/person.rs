//! What people do in a simulation: random operations in a small tree with few names, so that they
//! meet.

use super::doing::Doing;
use super::replica::{Replica, Saved, saved, whole};
use crate::random::Random;
use kith_core::clock::WallMs;
use kith_core::content::{Content, Layout, Piece};
use kith_core::id::InodeId;
use kith_core::index::{IndexRead, Node, Shown};
use kith_core::name::EntryName;
use kith_core::operation::{AttributeChange, Operation, RenameMode};
use kith_core::register::{Kind, Owner, UnixTime};
use std::collections::BTreeSet;

const NAMES: [&str; 5] = ["a", "a", "b.txt", "c", "d"];

/// Does something at a replica. Says whether it succeeded.
pub(super) fn operate(replica: &mut Replica, now: WallMs, doing: Doing, chance: u64) -> bool {
    let random = &mut Random::new(chance);
    match doing {
        Doing::Create => create(replica, now, random),
        Doing::MakeDirectory => make(replica, now, random, Kind::Directory).is_some(),
        Doing::MakeSymlink => make(replica, now, random, Kind::Symlink(b"a"[..].into())).is_some(),
        Doing::Open => open(replica, random),
        Doing::Close => close(replica, now, random),
        Doing::Flush => flush(replica, now, random),
        Doing::Edit => edit(replica, now, random),
        Doing::SaveOver => save_over(replica, now, random),
        Doing::Link => link(replica, now, random),
        Doing::Rename => rename(replica, now, random),
        Doing::MoveDirectory => move_directory(replica, now, random),
        Doing::Remove => remove(replica, now, random),
        Doing::RemoveTree => remove_tree(replica, now, random),
        Doing::SetAttributes => set_attributes(replica, now, random),
        Doing::Settle => settle(replica, now, random),
        Doing::Merge => merge(replica, now, random),
    }
}

/// Names such as repairs give, which people give too.
const LABELLED: [&str; 4] = ["a (device A)", "a (device B)", "a (device A) 2", "a (device B) 2"];

fn name(random: &mut Random) -> EntryName {
    let name = if random.chance(14) { random.pick(&LABELLED) } else { random.pick(&NAMES) };
    EntryName::new(name.as_bytes()).expect("these are names")
}

/// All names that can be reached from the root.
pub(super) fn reachable(replica: &Replica) -> Vec<&Shown> {
    let mut found = Vec::new();
    let mut open = vec![InodeId::ROOT];
    while let Some(directory) = open.pop() {
        for shown in replica.index.view_of(directory) {
            if replica.kind(shown.node) == Some(&Kind::Directory) {
                open.push(shown.node.key());
            }
            found.push(shown);
        }
    }
    found
}

fn directories(replica: &Replica) -> Vec<InodeId> {
    let names = reachable(replica).into_iter();
    let directories = names.filter(|shown| replica.kind(shown.node) == Some(&Kind::Directory));
    core::iter::once(InodeId::ROOT).chain(directories.map(|shown| shown.node.key())).collect()
}

/// A directory: often the root, so that people meet there.
fn place(replica: &Replica, random: &mut Random) -> InodeId {
    if random.chance(40) { InodeId::ROOT } else { *random.pick(&directories(replica)) }
}

fn pick(replica: &Replica, random: &mut Random, want: impl Fn(&Kind) -> bool) -> Option<Shown> {
    let mut names = reachable(replica);
    names.retain(|shown| replica.kind(shown.node).is_some_and(&want));
    // What a repair shows is rare and interesting.
    let repaired: Vec<&Shown> = names.iter().filter(|shown| shown.repaired).copied().collect();
    let names = if !repaired.is_empty() && random.chance(40) { repaired } else { names };
    (!names.is_empty()).then(|| (*random.pick(&names)).clone())
}

fn is_file(kind: &Kind) -> bool {
    *kind == Kind::File
}

fn is_directory(kind: &Kind) -> bool {
    *kind == Kind::Directory
}

fn make(replica: &mut Replica, now: WallMs, random: &mut Random, kind: Kind) -> Option<InodeId> {
    let parent = place(replica, random);
    let operation = Operation::Create {
        parent,
        name: name(random),
        kind,
        mode: 0o644,
        user: Owner::Person,
        group: Owner::Person,
    };
    let applied = replica.apply(now, operation).ok()?;
    Some(applied.node.expect("what was made is a node").key())
}

/// Bytes to save: mostly new ones, sometimes such as others save too.
fn bytes(replica: &mut Replica, random: &mut Random) -> Content {
    if random.chance(76) {
        return replica.fresh_content();
    }
    let size_bytes = 4096 * (1 + random.below(2));
    Content { size_bytes, layout: Layout::Inline(vec![Piece::Hole { len_bytes: size_bytes }]) }
}

fn create(replica: &mut Replica, now: WallMs, random: &mut Random) -> bool {
    let Some(inode) = make(replica, now, random, Kind::File) else { return false };
    let handle = replica.open(Node::Inode(inode)).expect("it was just made");
    if random.chance(15) {
        replica.handles.push(handle);
        return true;
    }
    let content = bytes(replica, random);
    replica.publish(now, &handle, content).is_ok()
}

/// Opens a file for writing, and keeps it open.
fn open(replica: &mut Replica, random: &mut Random) -> bool {
    let Some(shown) = pick(replica, random, is_file) else { return false };
    // Only one thing is written from each file at a time, as in one overlay.
    let is_this = |inode| replica.goes_on_as(inode) == shown.node.inode();
    let taken = replica.handles.iter().any(|handle| is_this(handle.inode));
    if taken || matches!(shown.node, Node::Copy { .. }) {
        return false;
    }
    let handle = replica.open(shown.node);
    replica.handles.extend(handle);
    true
}

/// Closes a file that is open, which publishes it.
fn close(replica: &mut Replica, now: WallMs, random: &mut Random) -> bool {
    if replica.handles.is_empty() {
        return false;
    }
    let handle = replica.handles.swap_remove(random.index(replica.handles.len()));
    let content = bytes(replica, random);
    replica.publish(now, &handle, content).is_ok()
}

/// Publishes a file that stays open.
fn flush(replica: &mut Replica, now: WallMs, random: &mut Random) -> bool {
    if replica.handles.is_empty() {
        return false;
    }
    let at = random.index(replica.handles.len());
    let handle = replica.handles[at].clone();
    let content = replica.fresh_content();
    let made = saved(&content).next();
    let Ok(applied) = replica.publish(now, &handle, content) else { return false };
    let inode = applied.node.expect("what was written is a node").inode();
    let held = replica.index.held_inode(inode).expect("it was just written");
    let version =
        held.inode.versions.values().find(|version| saved(&version.content).next() == made);
    let version = version.expect("what was published stands");
    let mut context = version.context.clone();
    context.include(version.dot);
    let (parents, sees) = (vec![version.dot], made.into_iter().collect());
    replica.handles[at] = super::replica::Handle { inode, context, parents, sees };
    true
}

/// Opens a file, changes it and closes it.
fn edit(replica: &mut Replica, now: WallMs, random: &mut Random) -> bool {
    let Some(shown) = pick(replica, random, is_file) else { return false };
    let mut node = shown.node;
    if let Node::Copy { .. } = node {
        let Ok(applied) = replica.apply(now, Operation::Settle { node }) else { return false };
        let Some(settled) = applied.node else { return false };
        node = settled;
    }
    let is_this = |inode| replica.goes_on_as(inode) == node.inode();
    let handle = replica.handles.iter().position(|handle| is_this(handle.inode));
    // Handles on one file share one overlay on one base.
    let handle = match handle {
        Some(at) => Some(replica.handles.swap_remove(at)),
        None => replica.open(node),
    };
    let Some(handle) = handle else { return false };
    let content = bytes(replica, random);
    replica.publish(now, &handle, content).is_ok()
}

/// As editors save: a new file, renamed over the old one; before or after it is closed.
fn save_over(replica: &mut Replica, now: WallMs, random: &mut Random) -> bool {
    let Some(target) = pick(replica, random, is_file) else { return false };
    let temporary = EntryName::new(b".tmp").expect("it is a name");
    let operation = Operation::Create {
        parent: target.parent,
        name: temporary.clone(),
        kind: Kind::File,
        mode: 0o600,
        user: Owner::Person,
        group: Owner::Person,
    };
    let Ok(applied) = replica.apply(now, operation) else { return false };
    let node = applied.node.expect("what was made is a node");
    let handle = replica.open(node).expect("it was just made");
    let early = random.chance(60);
    if early {
        let content = bytes(replica, random);
        if replica.publish(now, &handle, content).is_err() {
            return false;
        }
    }
    let from = (target.parent, temporary);
    let renamed = move_name(replica, now, from, (target.parent, target.name), RenameMode::Replace);
    if !early && random.chance(50) {
        let content = bytes(replica, random);
        return replica.publish(now, &handle, content).is_ok() && renamed;
    }
    if !early {
        replica.handles.push(handle);
    }
    renamed
}

/// What ends when a name is removed: what it shows, if no other name leads there.
fn ends(replica: &Replica, parent: InodeId, name: &EntryName) -> BTreeSet<Saved> {
    // What came before may have made the directory go on as a new one.
    let Ok(parent) = kith_core::forget::successor(&replica.index, parent);
    let Ok(shown) = replica.index.shown(parent, name);
    match shown {
        Some(shown) if replica.names(shown.node.key()).len() == 1 => {
            replica.shows(shown.node).collect()
        }
        _ => BTreeSet::new(),
    }
}

fn move_name(
    replica: &mut Replica,
    now: WallMs,
    from: (InodeId, EntryName),
    to: (InodeId, EntryName),
    mode: RenameMode,
) -> bool {
    let ended = match mode {
        RenameMode::Replace => ends(replica, to.0, &to.1),
        RenameMode::NoReplace | RenameMode::Exchange => BTreeSet::new(),
    };
    let done = replica.apply(now, Operation::Rename { from, to, mode }).is_ok();
    if done {
        replica.note(None, ended);
    }
    done
}

fn rename(replica: &mut Replica, now: WallMs, random: &mut Random) -> bool {
    let Some(from) = pick(replica, random, |_| true) else { return false };
    let modes = [RenameMode::Replace, RenameMode::NoReplace, RenameMode::Exchange];
    let mode = *random.pick(&modes);
    let to = match pick(replica, random, |_| true) {
        Some(to) if random.chance(50) => (to.parent, to.name),
        _ => (place(replica, random), name(random)),
    };
    move_name(replica, now, (from.parent, from.name), to, mode)
}

/// Moves a directory into another, mostly under its own name.
fn move_directory(replica: &mut Replica, now: WallMs, random: &mut Random) -> bool {
    let Some(from) = pick(replica, random, is_directory) else { return false };
    let into = *random.pick(&directories(replica));
    let name = if random.chance(70) { from.name.clone() } else { name(random) };
    move_name(replica, now, (from.parent, from.name), (into, name), RenameMode::Replace)
}

fn link(replica: &mut Replica, now: WallMs, random: &mut Random) -> bool {
    let Some(shown) = pick(replica, random, is_file) else { return false };
    let parent = place(replica, random);
    let operation = Operation::Link { node: shown.node, parent, name: name(random) };
    replica.apply(now, operation).is_ok()
}

fn remove(replica: &mut Replica, now: WallMs, random: &mut Random) -> bool {
    let not_directory = |kind: &Kind| *kind != Kind::Directory;
    let Some(shown) = pick(replica, random, not_directory) else { return false };
    let ended = ends(replica, shown.parent, &shown.name);
    let operation = Operation::Remove { parent: shown.parent, name: shown.name, directory: false };
    let done = replica.apply(now, operation).is_ok();
    if done {
        replica.note(None, ended);
    }
    done
}

fn remove_tree(replica: &mut Replica, now: WallMs, random: &mut Random) -> bool {
    let Some(shown) = pick(replica, random, is_directory) else { return false };
    // Mostly with everything in it, as `rm -r` does.
    let mut inside = Vec::new();
    let mut open = vec![shown.node.key()];
    while let Some(directory) = open.pop().filter(|_| random.chance(80)) {
        let Ok(names) = replica.index.list(directory, None, usize::MAX);
        for name in names {
            if replica.kind(name.node) == Some(&Kind::Directory) {
                open.push(name.node.key());
            }
            inside.push(name);
        }
    }
    inside.insert(0, shown);
    let mut done = false;
    for shown in inside.into_iter().rev() {
        let directory = replica.kind(shown.node) == Some(&Kind::Directory);
        let ended = ends(replica, shown.parent, &shown.name);
        let operation = Operation::Remove { parent: shown.parent, name: shown.name, directory };
        done = replica.apply(now, operation).is_ok();
        if done {
            replica.note(None, ended);
        }
    }
    done
}

fn set_attributes(replica: &mut Replica, now: WallMs, random: &mut Random) -> bool {
    let Some(shown) = pick(replica, random, |_| true) else { return false };
    let mut change = AttributeChange::default();
    if random.chance(70) {
        change.mode = Some(*random.pick(&[0o600, 0o640, 0o755, 0o4755]));
    }
    if random.chance(30) {
        let value = random.chance(70).then(|| b"x"[..].into());
        change.set_xattrs.push((b"user.tag"[..].into(), value));
    }
    replica.apply(now, Operation::SetAttributes { node: shown.node, change }).is_ok()
}

fn settle(replica: &mut Replica, now: WallMs, random: &mut Random) -> bool {
    let Some(shown) = pick(replica, random, |_| true) else { return false };
    replica.apply(now, Operation::Settle { node: shown.node }).is_ok()
}

/// Makes one version of all that stand beside one another, of one file or of several at one name.
fn merge(replica: &mut Replica, now: WallMs, random: &mut Random) -> bool {
    let beside = |shown: &&Shown| shown.wanted.is_some() && shown.node.key() != InodeId::ROOT;
    let candidates: Vec<&Shown> = reachable(replica).into_iter().filter(beside).collect();
    if candidates.is_empty() {
        return false;
    }
    let chosen = *random.pick(&candidates);
    let mut files = vec![chosen.node.inode()];
    if let Some(holder) = replica.index.row_at(chosen.parent, &chosen.base)
        && holder.node.inode() != files[0]
    {
        files.push(holder.node.inode());
    }
    let mut inputs = Vec::new();
    let mut all = BTreeSet::new();
    for file in files {
        let Some(held) = replica.index.held_inode(file) else { return false };
        for version in held.inode.versions.values() {
            inputs.push((file, version.dot));
            all.extend(saved(&version.content));
        }
    }
    if all.is_empty() {
        return false;
    }
    // The same bytes wherever the same versions are merged. A person's save is no less there.
    let content = whole(all);
    let mtime = UnixTime { seconds: 1_700_000_000, nanoseconds: 0 };
    replica.apply(now, Operation::Merge { inputs, content, mtime }).is_ok()
}
