//! Merges what several devices changed in one text, where their changes don't overlap.
//!
//! A thread of its own looks at each name beside which a conflict is shown, once it appears and
//! whenever something of it changes. What can't be merged yet is looked at again later; what can't
//! be merged at all, when it changes.

use super::ancestry::{Ancestry, Related};
use super::fetches::Urgency;
use super::text_merge::{self, TEXT_MAX_BYTES};
use super::{Origin, Share, WriteError, context, kith_error_chain, random};
use kith_control::event::Happening;
use kith_core::content::Content;
use kith_core::id::{Dot, InodeId};
use kith_core::index::{IndexRead, Node};
use kith_core::name::EntryName;
use kith_core::operation::{self, Operation, OperationError};
use kith_core::register::Kind;
use kith_store::{ReadError, Snapshot, StoreError, Transaction};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How long a device at most leaves a merge to the one whose version is the latest.
const TURN_MAX: Duration = Duration::from_secs(4);
/// How long a name rests that can't be merged yet, at first and at most.
const REST: Duration = Duration::from_millis(500);
const REST_MAX: Duration = Duration::from_secs(60);
/// The most names that wait. More are found at the next start.
const WAITING_MAX: usize = 100_000;
/// How many names are read from the index at once.
const NAMES_A_READ: usize = 256;
/// How many files that took over one another's name are looked at.
const FILES_MAX: usize = 64;

/// A directory, as it is shown, and a name in it that something is labelled from.
type At = (InodeId, EntryName);

/// The names that are to be looked at.
#[derive(Default)]
pub(crate) struct MergeQueue {
    names: Mutex<Names>,
    changed: Condvar,
}

#[derive(Default)]
struct Names {
    waiting: BTreeMap<At, Waiting>,
    closed: bool,
}

/// When a name is looked at next.
#[derive(Clone, Copy)]
struct Waiting {
    at: Instant,
    rest: Duration,
    /// Until when the merge is left to the device whose version is the latest.
    turn: Instant,
}

impl Waiting {
    fn now() -> Waiting {
        let turn = TURN_MAX.mul_f64(0.25 + 0.75 * (random() >> 11) as f64 / (1_u64 << 53) as f64);
        let now = Instant::now();
        Waiting { at: now, rest: REST, turn: now + turn }
    }
}

impl MergeQueue {
    fn lock(&self) -> MutexGuard<'_, Names> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, at: At) {
        let mut names = self.lock();
        if names.waiting.len() < WAITING_MAX || names.waiting.contains_key(&at) {
            names.waiting.insert(at, Waiting::now());
            drop(names);
            self.changed.notify_all();
        }
    }

    /// Has a name looked at again, unless it was added anew meanwhile.
    fn put_back(&self, at: At, waiting: Waiting) {
        self.lock().waiting.entry(at).or_insert(waiting);
    }

    /// The next name, once it is time to look at it; `None` at the end.
    fn next(&self) -> Option<(At, Waiting)> {
        let mut names = self.lock();
        loop {
            if names.closed {
                return None;
            }
            let first = names.waiting.iter().min_by_key(|(_, waiting)| waiting.at);
            let Some((at, waiting)) = first.map(|(at, waiting)| (at.clone(), *waiting)) else {
                names = self.changed.wait(names).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            let left = waiting.at.saturating_duration_since(Instant::now());
            if left.is_zero() {
                names.waiting.remove(&at);
                return Some((at, waiting));
            }
            (names, _) =
                self.changed.wait_timeout(names, left).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// What became of a look at a name.
enum Looked {
    /// There is nothing to be merged, or it can't be.
    Nothing,
    /// It was merged; there may be more.
    Merged,
    /// It can't be merged yet, and why.
    Later(&'static str),
    /// It is another device's turn until then.
    Turn(Instant),
}

impl Share {
    /// Adds names at which something changed, for them to be looked at.
    pub(super) fn look_at_conflicts(&self, names: BTreeSet<At>) {
        if let Some(queue) = &self.merges {
            names.into_iter().for_each(|at| queue.add(at));
        }
    }

    /// Bytes have arrived: whatever waited for them is looked at now.
    pub(super) fn hurry_merging(&self) {
        let Some(queue) = &self.merges else { return };
        let now = Instant::now();
        queue.lock().waiting.values_mut().for_each(|waiting| waiting.at = waiting.at.min(now));
        queue.changed.notify_all();
    }

    /// Ends the merging. What isn't merged is found at the next start.
    pub(super) fn end_merging(&self) {
        if let Some(queue) = &self.merges {
            queue.lock().closed = true;
            queue.changed.notify_all();
        }
    }

    /// Merges until the end.
    pub(crate) fn merge_all(&self) {
        let Some(queue) = &self.merges else { return };
        if let Err(error) = self.find_conflicts() {
            tracing::error!(cause = %kith_error_chain(&error), "the conflicts can't be listed");
        }
        while let Some((at, mut waiting)) = queue.next() {
            match self.merge_at(&at, waiting.turn) {
                Ok(Looked::Nothing) => {}
                Ok(Looked::Merged) => queue.put_back(at, Waiting::now()),
                Ok(Looked::Turn(turn)) => queue.put_back(at, Waiting { at: turn, ..waiting }),
                Ok(Looked::Later(why)) => {
                    tracing::debug!(name = %at.1, why, "versions can't be merged yet");
                    waiting.at = Instant::now() + waiting.rest;
                    waiting.rest = (waiting.rest * 2).min(REST_MAX);
                    queue.put_back(at, waiting);
                }
                Err(error) => {
                    tracing::error!(cause = %kith_error_chain(&error), "versions can't be merged");
                    waiting.at = Instant::now() + REST_MAX;
                    queue.put_back(at, waiting);
                }
            }
        }
    }

    /// Adds all names beside which something is shown.
    fn find_conflicts(&self) -> Result<(), StoreError> {
        let mut after = None;
        loop {
            let names = self.store.labelled(after.as_ref(), NAMES_A_READ)?;
            let Some(last) = names.last() else { return Ok(()) };
            after = Some(last.clone());
            self.look_at_conflicts(names.into_iter().collect());
        }
    }

    fn merge_at(&self, at: &At, turn: Instant) -> Result<Looked, WriteError> {
        let snapshot = self.store.snapshot()?;
        let (ancestry, standing) = self.ancestry_at(&snapshot, at)?;
        let state = snapshot.state()?;
        let mut looked = Looked::Nothing;
        for related in ancestry.related(&standing) {
            if !is_whole(&snapshot, at, &related, &standing)? {
                continue;
            }
            let inodes: BTreeSet<InodeId> =
                related.versions.iter().map(|(inode, _)| *inode).collect();
            looked = if self.is_unsettled(&inodes) {
                Looked::Later("somebody has it open for writing")
            } else if related.versions.last().is_some_and(|(_, it)| it.dot.writer != state.writer)
                && Instant::now() < turn
            {
                Looked::Turn(turn)
            } else {
                self.merge_related(at, &related)?
            };
            if matches!(looked, Looked::Merged) {
                break;
            }
        }
        Ok(looked)
    }

    /// What is known of the files at a name, and the versions of theirs that stand.
    fn ancestry_at(
        &self,
        snapshot: &Snapshot,
        at: &At,
    ) -> Result<(Ancestry, Vec<Dot>), StoreError> {
        let mut files = BTreeSet::new();
        for parent in snapshot.members(at.0)? {
            let entries = snapshot.entries_at(parent, &at.1)?;
            files.extend(entries.iter().filter(|it| it.present).map(|it| it.entry.inode));
        }
        let (mut ancestry, mut standing) = (Ancestry::default(), Vec::new());
        let mut open: Vec<InodeId> = files.iter().copied().collect();
        let mut known = BTreeSet::new();
        while let Some(id) = open.pop() {
            if known.len() >= FILES_MAX || !known.insert(id) {
                continue;
            }
            let Some(state) = snapshot.inode(id)?.filter(|it| it.inode.kind == Kind::File) else {
                continue;
            };
            for (_, version) in self.store.history_of(id)? {
                ancestry.add(id, version);
            }
            for (dot, version) in state.inode.versions {
                ancestry.add(id, version);
                if files.contains(&id) {
                    standing.push(dot);
                }
            }
            for entry in snapshot.entries_of(id)? {
                if let Some(replaced) = entry.entry.place.replaced {
                    ancestry.add_replaced(id, [replaced.dot, replaced.last_dot]);
                    open.extend([replaced.inode, replaced.last]);
                }
            }
        }
        standing.sort_unstable();
        standing.dedup();
        Ok((ancestry, standing))
    }

    /// Whether somebody here writes to one of the files, or what was written isn't published.
    fn is_unsettled(&self, inodes: &BTreeSet<InodeId>) -> bool {
        let files = self.files.unsettled();
        files.iter().any(|file| inodes.contains(&file.writing().inode))
    }

    fn merge_related(&self, at: &At, related: &Related) -> Result<Looked, WriteError> {
        let Some(base) = &related.base else { return Ok(Looked::Nothing) };
        let contents = || related.texts.iter().chain([&base.content]);
        if contents().any(|content| content.size_bytes > TEXT_MAX_BYTES) {
            return Ok(Looked::Nothing);
        }
        let mut texts = Vec::new();
        for content in contents() {
            match self.text_of(content)? {
                Some(text) => texts.push(text),
                None => return Ok(Looked::Later("bytes of it are not here")),
            }
        }
        let versions: Vec<&[u8]> = texts.iter().map(Vec::as_slice).collect();
        let Some((base, versions)) = versions.split_last() else { return Ok(Looked::Nothing) };
        let merged = match text_merge::merge(base, versions) {
            Ok(merged) => merged,
            Err(why) => {
                tracing::debug!(name = %at.1, %why, "versions stay side by side");
                return Ok(Looked::Nothing);
            }
        };
        let cut = self.store.cut_bytes(&merged)?;
        self.store.flush_bytes()?;
        let mtime = related.versions.iter().map(|(_, version)| version.mtime).max();
        let operation = Operation::Merge {
            inputs: related.versions.iter().map(|(inode, version)| (*inode, version.dot)).collect(),
            content: cut.content.clone(),
            mtime: mtime.unwrap_or_default(),
        };
        // As a version from elsewhere: no program wrote it, and the kernel must hear of it.
        let done = self.commit(&Origin::Elsewhere, |tx| {
            let applied = operation::apply(tx, context(), operation)?;
            if let Some(inode) = applied.node.map(Node::key)
                && let Some(version) = latest(tx, inode)?
            {
                tx.mark_complete(inode, version)?;
            }
            Ok(((), applied.effects))
        });
        match done {
            Ok(()) => {}
            Err(WriteError::Operation(OperationError::Outdated)) => {
                return Ok(Looked::Later("something of it has just changed"));
            }
            Err(WriteError::Operation(OperationError::NotFound | OperationError::NotPermitted)) => {
                return Ok(Looked::Nothing);
            }
            Err(error) => return Err(error),
        }
        drop(cut);
        let versions = related.versions.len() as u64;
        tracing::info!(name = %at.1, versions, "versions were merged");
        self.events.send(Happening::FileMerged {
            share: self.name.clone(),
            name: at.1.to_string(),
            versions,
            bytes: merged.len() as u64,
        });
        Ok(Looked::Merged)
    }

    /// All bytes of a content, if they are here; else they are asked for.
    fn text_of(&self, content: &Content) -> Result<Option<Vec<u8>>, StoreError> {
        let len = usize::try_from(content.size_bytes).unwrap_or(usize::MAX);
        match self.store.read(content, 0, len) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(ReadError::Absent(absent)) => {
                self.fetches.want(&absent, Urgency::Background);
                Ok(None)
            }
            Err(ReadError::Damaged(_)) => Ok(None),
            Err(ReadError::Store(error)) => Err(error),
        }
    }
}

fn latest(tx: &Transaction<'_>, inode: InodeId) -> Result<Option<Dot>, StoreError> {
    Ok(tx.inode(inode)?.and_then(|state| state.inode.latest().map(|version| version.dot)))
}

/// Whether versions may be merged: they are all that stands of their files, several files have no
/// other names, and none of what they have in common has become a file of its own, which somebody
/// meant to be kept apart.
fn is_whole(
    snapshot: &Snapshot,
    at: &At,
    related: &Related,
    standing: &[Dot],
) -> Result<bool, StoreError> {
    let dots: BTreeSet<Dot> = related.versions.iter().map(|(_, version)| version.dot).collect();
    let inodes: BTreeSet<InodeId> = related.versions.iter().map(|(inode, _)| *inode).collect();
    for inode in &inodes {
        let state = snapshot.inode(*inode)?;
        let all = state.iter().flat_map(|state| state.inode.versions.keys());
        if !all.clone().all(|dot| dots.contains(dot) && standing.contains(dot)) {
            return Ok(false);
        }
        let present = snapshot.entries_of(*inode)?;
        let mut present = present.iter().filter(|entry| entry.present);
        let is_here = |entry: &kith_core::index::EntryState| entry.entry.place.name == at.1;
        if inodes.len() > 1 && !(present.next().is_some_and(is_here) && present.next().is_none()) {
            return Ok(false);
        }
    }
    let versions = related.versions.iter().map(|(inode, version)| (version.dot, *inode));
    for (dot, inode) in versions.chain(related.common.iter().map(|(dot, inode)| (*dot, *inode))) {
        if InodeId(dot) != inode && snapshot.inode(InodeId(dot))?.is_some() {
            return Ok(false);
        }
    }
    Ok(true)
}
