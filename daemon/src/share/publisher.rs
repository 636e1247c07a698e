//! Turns what was written into versions: cuts frozen overlays, and publishes them.

use super::fetches::Urgency;
use super::open_files::{OpenFile, Released};
use super::{Origin, Share, WriteError, context, kith_error_chain, now, storage};
use kith_control::event::Happening;
use kith_core::content::Content;
use kith_core::id::{Dot, InodeId};
use kith_core::index::IndexRead;
use kith_core::operation::{self, Operation, OperationError};
use kith_core::register::{Mark, UnixTime};
use kith_store::{Base, Cut, CutError, Frozen, NodeRead, StoreError, Transaction};
use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Files up to this size are published by a thread that never waits for a larger one.
const SMALL_MAX_BYTES: u64 = 4 << 20;
/// How many small files one transaction publishes at most.
const BATCH_MAX: usize = 64;
/// How long after a batch of small files the next one begins, unless it is full: many that come one
/// after the other then share a transaction, and one that comes alone waits for nothing.
const BATCH_EVERY: Duration = Duration::from_millis(10);
/// How long a publication waits for bytes of its base from other devices before it is put off.
const BASE_DEADLINE: Duration = Duration::from_secs(20);
/// How long a file that was never fsynced goes unwritten before it is published though it is open.
const IDLE_AFTER: Duration = Duration::from_secs(60);

/// The files that wait to be published, the small ones apart from the large ones.
#[derive(Default)]
pub(crate) struct PublishQueue {
    waiting: Mutex<Waiting>,
    arrived: Condvar,
    /// Told of when a batch is full that is still being gathered.
    full: Condvar,
}

#[derive(Default)]
struct Waiting {
    small: VecDeque<Arc<OpenFile>>,
    large: VecDeque<Arc<OpenFile>>,
    busy: usize,
    closed: bool,
    /// A publisher lets small files gather.
    gathering: bool,
    /// When the last batch of small files began.
    began: Option<Instant>,
}

/// Which of the two queues a publisher serves.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Size {
    Small,
    Large,
}

impl PublishQueue {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a file that was claimed for publishing.
    pub(super) fn push(&self, file: Arc<OpenFile>) {
        let small = file.shape().size_bytes <= SMALL_MAX_BYTES;
        let mut waiting = self.lock();
        if small {
            waiting.small.push_back(file);
            if waiting.gathering {
                if waiting.small.len() >= BATCH_MAX {
                    self.full.notify_all();
                }
                return;
            }
        } else {
            waiting.large.push_back(file);
        }
        drop(waiting);
        self.arrived.notify_all();
    }

    /// Publishes what is waiting, then no more.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.arrived.notify_all();
        self.full.notify_all();
    }

    /// Waits for more small files, if the last batch of them began just now.
    fn gather<'a>(&self, mut waiting: MutexGuard<'a, Waiting>) -> MutexGuard<'a, Waiting> {
        let left = |waiting: &Waiting| {
            let since = waiting.began.map_or(BATCH_EVERY, |began| began.elapsed());
            BATCH_EVERY.saturating_sub(since)
        };
        waiting.gathering = true;
        while waiting.small.len() < BATCH_MAX && !waiting.closed && !left(&waiting).is_zero() {
            let left = left(&waiting);
            (waiting, _) =
                self.full.wait_timeout(waiting, left).unwrap_or_else(PoisonError::into_inner);
        }
        waiting.gathering = false;
        waiting
    }

    fn next(&self, size: Size) -> Option<Vec<Arc<OpenFile>>> {
        let pick = |waiting: &mut Waiting| match size {
            Size::Small => {
                let count = waiting.small.len().min(BATCH_MAX);
                waiting.small.drain(..count).collect::<Vec<_>>()
            }
            Size::Large => waiting.large.pop_front().into_iter().collect(),
        };
        let mut waiting = self.lock();
        loop {
            if size == Size::Small && !waiting.small.is_empty() {
                waiting = self.gather(waiting);
                waiting.began = Some(Instant::now());
            }
            let files = pick(&mut waiting);
            if !files.is_empty() {
                waiting.busy += 1;
                return Some(files);
            }
            if waiting.closed {
                return None;
            }
            waiting = self.arrived.wait(waiting).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn done(&self) {
        self.lock().busy -= 1;
        self.arrived.notify_all();
    }

    /// Waits until nothing is waiting or under way, at most until the deadline.
    pub(super) fn drained(&self, deadline: Instant) -> bool {
        let mut waiting = self.lock();
        while waiting.busy > 0 || !waiting.small.is_empty() || !waiting.large.is_empty() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            (waiting, _) =
                self.arrived.wait_timeout(waiting, left).unwrap_or_else(PoisonError::into_inner);
        }
        true
    }
}

/// What is about to be published of one file.
struct Candidate {
    file: Arc<OpenFile>,
    inode: InodeId,
    base: Base,
    mtime: UnixTime,
    changed: Option<UnixTime>,
    mark: Mark,
    /// `None` if only the time changed.
    cut: Option<(Frozen, Cut)>,
}

/// Why there is nothing to publish of a file yet.
enum Unready {
    /// It is being written, and what there is of it is no version.
    Written,
    /// Something failed, or bytes are missing.
    Failed,
}

/// What became of one publication.
enum Published {
    /// The version is there.
    Version { inode: InodeId, base: Base },
    /// The file has no name any more, and nobody has it open: it is gone.
    Nameless,
    /// The file has no name any more, but somebody has it open.
    StillOpen,
    /// Its name was taken by a file that has no version yet, and may come back.
    Hidden,
}

impl Candidate {
    fn content(&self) -> &Content {
        self.cut.as_ref().map_or(&self.base.content, |(_, cut)| &cut.content)
    }
}

impl Share {
    /// Publishes files until the queue is closed.
    pub(crate) fn publish_all(&self, size: Size) {
        while let Some(files) = self.queue.next(size) {
            self.publish(files);
            self.queue.done();
        }
    }

    fn publish(&self, files: Vec<Arc<OpenFile>>) {
        let mut candidates = Vec::new();
        for file in files {
            match self.prepare(&file) {
                Ok(candidate) => candidates.push(candidate),
                Err(Unready::Written) => self.settle_release(self.files.published(&file, true)),
                Err(Unready::Failed) => self.put_off(&file),
            }
        }
        // One transaction for all; if that fails, one for each, so that no file holds up another.
        if candidates.len() > 1 && self.commit_candidates(&candidates).is_ok() {
            return;
        }
        for candidate in &candidates {
            if let Err(error) = self.commit_candidates(std::slice::from_ref(candidate)) {
                tracing::error!(cause = %kith_error_chain(&error), "a file could not be published");
                self.put_off(&candidate.file);
            }
        }
    }

    /// Freezes a file and cuts what is frozen.
    fn prepare(&self, file: &Arc<OpenFile>) -> Result<Candidate, Unready> {
        let (frozen, mut candidate) = {
            let mut state = file.writing();
            // Somebody may have opened it again since it was closed, and written a part.
            let as_closed = state.overlay.as_ref().is_some_and(kith_store::Overlay::is_closed);
            let closed = as_closed || !self.files.is_written(file);
            if !closed && !state.synced && state.written_at.elapsed() < IDLE_AFTER {
                return Err(Unready::Written);
            }
            let candidate = Candidate {
                file: Arc::clone(file),
                inode: state.inode,
                base: state.base.clone(),
                mtime: state.mtime,
                changed: state.changed,
                mark: state.mark(closed),
                cut: None,
            };
            file.set_dirty(false);
            state.synced = false;
            (state.overlay.as_ref().map(kith_store::Overlay::freeze), candidate)
        };
        let Some(frozen) = frozen else { return Ok(candidate) };
        let deadline = Instant::now() + BASE_DEADLINE;
        loop {
            match self.store.cut(&frozen) {
                Ok(cut) => {
                    candidate.cut = Some((frozen, cut));
                    return Ok(candidate);
                }
                Err(CutError::Absent(absent)) => {
                    self.fetches.want(&absent, Urgency::Ahead);
                    if !self.fetches.wait(&absent, deadline) {
                        tracing::warn!(
                            "a changed file waits for bytes that no reachable device has"
                        );
                        return Err(Unready::Failed);
                    }
                }
                // The damaged chunk was dropped, so that the next try finds it absent.
                Err(CutError::Damaged(chunk)) => {
                    tracing::warn!(%chunk, "a changed file stands on bytes that were damaged on the disk");
                    if Instant::now() >= deadline {
                        return Err(Unready::Failed);
                    }
                }
                Err(CutError::Store(error)) => {
                    storage(&error);
                    return Err(Unready::Failed);
                }
            }
        }
    }

    fn commit_candidates(&self, candidates: &[Candidate]) -> Result<(), WriteError> {
        // A version takes the place of another, or of another file: its bytes must not be lost where
        // that is not.
        if candidates.iter().any(|candidate| candidate.cut.is_some()) {
            self.store.flush_bytes()?;
        }
        let kept: Vec<_> = candidates
            .iter()
            .map(|candidate| candidate.file.keeping.lock().unwrap_or_else(PoisonError::into_inner))
            .collect();
        let results = self.store_versions(candidates)?;
        for (candidate, published) in candidates.iter().zip(&results) {
            self.rebase(candidate, published);
        }
        drop(kept);
        for (candidate, published) in candidates.iter().zip(&results) {
            if matches!(published, Published::Version { .. }) {
                let bytes = candidate.content().size_bytes;
                self.events.send(Happening::FilePublished { share: self.name.clone(), bytes });
            }
            let again = !matches!(published, Published::StillOpen | Published::Hidden);
            self.settle_release(self.files.published(&candidate.file, again));
        }
        Ok(())
    }

    fn store_versions(&self, candidates: &[Candidate]) -> Result<Vec<Published>, WriteError> {
        let (_, now) = now();
        let origin = |candidate: &Candidate| (candidate.file.ino, candidate.changed.unwrap_or(now));
        let origins: Vec<_> = candidates.iter().map(origin).collect();
        self.commit(&Origin::Publishers(&origins), |tx| {
            let mut effects = Vec::new();
            let mut published = Vec::new();
            for candidate in candidates {
                let open = self.files.is_open(&candidate.file);
                published.push(publish_one(tx, candidate, open, &mut effects)?);
            }
            Ok((published, effects))
        })
    }

    /// Puts the new version under what was written meanwhile.
    fn rebase(&self, candidate: &Candidate, published: &Published) {
        let file = &candidate.file;
        let mut state = file.writing();
        match published {
            Published::Version { inode, base } => {
                state.inode = *inode;
                state.base = base.clone();
                state.fresh = false;
                if state.changed == candidate.changed {
                    state.changed = None;
                }
                state.published_at = Some(Instant::now());
                if let Some(overlay) = &state.overlay {
                    overlay.set_owner(*inode);
                    overlay.rebase(base.clone());
                    if !overlay.is_changed() {
                        discard(&mut state.overlay);
                    }
                }
            }
            // Whoever still has it open goes on reading what was written.
            Published::StillOpen => {
                file.set_nameless(true);
                file.set_dirty(true);
            }
            Published::Hidden => file.set_dirty(true),
            Published::Nameless => {
                discard(&mut state.overlay);
                file.set_dirty(false);
            }
        }
    }

    /// Does what a release or the end of a publication asks for.
    pub(super) fn settle_release(&self, released: Released) {
        match released {
            Released::Nothing => {}
            Released::Publish(file) => {
                self.note_closed(&file);
                self.queue.push(file);
            }
            Released::Closed(file) => self.note_closed(&file),
            Released::Done(file) => {
                discard(&mut file.writing().overlay);
                self.settle_changed(&file);
            }
        }
    }

    /// Leaves a file as it is, to be tried again by the upkeep.
    fn put_off(&self, file: &OpenFile) {
        file.set_dirty(true);
        self.settle_release(self.files.published(file, false));
    }

    /// Publishes what has been lying for a while: files that stay open, and those that could not be
    /// published before. Called every few seconds.
    pub(crate) fn publish_idle(&self) {
        for file in self.files.dirty() {
            // Nothing can be published of what has no name, until it is closed or gets one.
            let due = !file.is_nameless() && {
                let state = file.writing();
                let since_published = state.published_at.map_or(Duration::MAX, |at| at.elapsed());
                !self.files.is_written(&file)
                    || state.written_at.elapsed() >= IDLE_AFTER
                    || (state.synced && since_published >= super::file_io::SYNCED_EVERY)
            };
            if due && self.files.claim(&file) {
                self.queue.push(Arc::clone(&file));
            }
        }
    }

    /// Publishes everything that nobody is writing to, then ends the publishers. Answers whether
    /// all was published by the deadline.
    pub(crate) fn close(&self, deadline: Instant) -> bool {
        for file in self.files.dirty() {
            if self.files.claim(&file) {
                self.queue.push(file);
            }
        }
        let drained = self.queue.drained(deadline);
        // What could not be published, or still is being published, is kept as if it had been fsynced,
        // and published at the next start.
        for file in self.files.unsettled() {
            if let Err(error) = file.keep() {
                storage(&error);
            }
        }
        for (file, _) in self.files.all() {
            // The others take it along, to the next daemon if need be.
            if !file.is_dirty() {
                self.settle_changed(&file);
            }
        }
        self.queue.close();
        self.end_merging();
        self.outdated.close();
        drained
    }
}

fn publish_one(
    tx: &mut Transaction<'_>,
    candidate: &Candidate,
    open: bool,
    effects: &mut Vec<kith_core::effect::Effect>,
) -> Result<Published, WriteError> {
    // Others may have forgotten it while it was open here.
    let inode = kith_core::forget::successor(tx, candidate.inode)?;
    // Times alone bring nothing back, and what is known to have been removed here stays so.
    if (candidate.cut.is_none() || candidate.file.is_removed()) && tx.links(inode)? == 0 {
        return nameless(tx, candidate, open, effects);
    }
    let publish = Operation::Publish {
        inode,
        context: candidate.base.context.clone(),
        parents: candidate.base.parents.clone(),
        content: candidate.content().clone(),
        mtime: candidate.mtime,
        mark: candidate.mark,
    };
    let applied = match operation::apply(tx, context(), publish) {
        Ok(applied) => applied,
        Err(OperationError::NotFound) => return nameless(tx, candidate, open, effects),
        Err(error) => return Err(error.into()),
    };
    effects.extend(applied.effects);
    let inode = applied.node.map_or(inode, kith_core::index::Node::key);
    let dot = own_latest(tx, inode)?;
    let mut context = candidate.base.context.clone();
    context.include(dot);
    let base = Base { content: candidate.content().clone(), context, parents: vec![dot] };
    if let Some((frozen, _)) = &candidate.cut {
        tx.mark_complete(inode, dot)?;
        tx.overlay_published(frozen, &base)?;
    }
    Ok(Published::Version { inode, base })
}

/// What becomes of a file without a name: whoever has it open goes on with it.
fn nameless(
    tx: &mut Transaction<'_>,
    candidate: &Candidate,
    open: bool,
    effects: &mut Vec<kith_core::effect::Effect>,
) -> Result<Published, WriteError> {
    if open {
        return Ok(Published::StillOpen);
    }
    let inode = candidate.inode;
    if tx.entries_of(inode)?.iter().any(|entry| entry.withheld.is_some()) {
        return Ok(Published::Hidden);
    }
    let withheld = tx.inode(inode)?.is_some_and(|state| state.inode.is_withheld());
    if withheld {
        effects.extend(operation::apply(tx, context(), Operation::Abandon { inode })?.effects);
    }
    Ok(Published::Nameless)
}

/// The version of an inode that this device published last.
fn own_latest(tx: &Transaction<'_>, inode: InodeId) -> Result<Dot, StoreError> {
    let writer = tx.state()?.writer;
    let state = tx.inode(inode)?.expect("an inode that was just published to is there");
    let own = state.inode.versions.keys().filter(|dot| dot.writer == writer).max();
    Ok(*own.expect("a version that was just published stands"))
}

fn discard(overlay: &mut Option<kith_store::Overlay>) {
    if let Some(overlay) = overlay.take()
        && let Err(error) = overlay.discard()
    {
        storage(&error);
    }
}
