//! What is being fetched: the core's plan, shared by those who wait and by the network.

use kith_core::fetch::{FetchPlan, Priority, RequestId};
use kith_core::id::{ChunkId, DeviceId};
use kith_store::StoreError;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// How long somebody waits though no device is connected that may have the bytes: a device that
/// was just cut off is often back at once.
const HOPELESS_GRACE: Duration = Duration::from_secs(3);
/// How long fetching rests after the disk refused to take bytes.
const DISK_REST: Duration = Duration::from_secs(10);

/// How much somebody needs some bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Urgency {
    /// A program waits for them.
    Foreground,
    /// A program will probably ask for them next.
    Ahead,
    /// They are missing.
    Background,
}

/// A request as the plan wants it sent.
pub(crate) struct Planned {
    id: RequestId,
    /// The device to ask.
    pub(crate) source: DeviceId,
    /// The chunks, and their lengths in bytes.
    pub(crate) chunks: Vec<(ChunkId, u32)>,
    /// Whether a program waits for them.
    pub(crate) foreground: bool,
}

/// The plan, and those who wait for what it brings.
pub(crate) struct Fetches {
    fetch: Mutex<Fetching>,
    /// Something arrived, or a device came or went.
    arrived: Condvar,
    /// Something can be asked for.
    work: Notify,
    /// The backlog is to be looked through.
    backlog: Notify,
    started: Instant,
}

struct Fetching {
    plan: FetchPlan,
    rest_until: Option<Instant>,
    /// The disk took no bytes when it was given some last.
    refused: bool,
    finished: Vec<ChunkId>,
}

impl Default for Fetches {
    fn default() -> Self {
        Fetches {
            fetch: Mutex::new(Fetching {
                plan: FetchPlan::new(),
                rest_until: None,
                refused: false,
                finished: Vec::new(),
            }),
            arrived: Condvar::new(),
            work: Notify::new(),
            backlog: Notify::new(),
            started: Instant::now(),
        }
    }
}

impl Fetches {
    fn lock(&self) -> MutexGuard<'_, Fetching> {
        self.fetch.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Wants chunks. What is wanted already may only become more urgent.
    pub(crate) fn want(&self, chunks: &[(ChunkId, u32)], urgency: Urgency) {
        if chunks.is_empty() {
            return;
        }
        let priority = match urgency {
            Urgency::Foreground => Priority::Foreground,
            Urgency::Ahead => Priority::Ahead,
            Urgency::Background => Priority::Background,
        };
        let mut fetch = self.lock();
        for (chunk, len_bytes) in chunks {
            fetch.plan.want(*chunk, *len_bytes, priority);
        }
        drop(fetch);
        self.work.notify_one();
    }

    /// Waits until none of the chunks is wanted any more. Answers false at the deadline, or when no
    /// connected device can have them.
    pub(crate) fn wait(&self, chunks: &[(ChunkId, u32)], deadline: Instant) -> bool {
        let mut fetch = self.lock();
        let mut hopeless_since = None;
        loop {
            let mut wanted =
                chunks.iter().filter(|(chunk, _)| fetch.plan.is_wanted(*chunk)).peekable();
            if wanted.peek().is_none() {
                return true;
            }
            let now = Instant::now();
            let mut until = deadline;
            if wanted.any(|(chunk, _)| fetch.plan.is_hopeless(*chunk)) {
                let since = *hopeless_since.get_or_insert(now);
                until = until.min(since + HOPELESS_GRACE);
            } else {
                hopeless_since = None;
            }
            let left = until.saturating_duration_since(now);
            if left.is_zero() {
                return false;
            }
            (fetch, _) =
                self.arrived.wait_timeout(fetch, left).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// A device is connected.
    pub(crate) fn source_up(&self, device: DeviceId) {
        self.lock().plan.source_up(device);
        self.work.notify_one();
        self.arrived.notify_all();
    }

    /// A device is connected no more.
    pub(crate) fn source_down(&self, device: DeviceId) {
        self.lock().plan.source_down(device);
        self.work.notify_one();
        self.arrived.notify_all();
    }

    /// A device has chunks now.
    pub(crate) fn announced(&self, device: DeviceId, chunks: &[ChunkId]) {
        self.lock().plan.announced(device, chunks);
        self.work.notify_one();
    }

    /// What is to be asked for now.
    pub(crate) fn plan(&self) -> Vec<Planned> {
        let now_ms = self.now_ms();
        let mut fetch = self.lock();
        if fetch.rest_until.is_some_and(|until| Instant::now() < until) {
            return Vec::new();
        }
        fetch.rest_until = None;
        // The streams of requests that are overdue end by themselves.
        fetch.plan.expire(now_ms);
        let requests = fetch.plan.next(now_ms);
        requests
            .into_iter()
            .map(|request| Planned {
                id: request.id,
                source: request.source,
                chunks: request.chunks,
                foreground: request.priority == Priority::Foreground,
            })
            .collect()
    }

    /// Waits until something can be asked for.
    pub(crate) async fn work(&self) {
        self.work.notified().await;
    }

    /// Chunks of a request have arrived and are stored.
    pub(crate) fn arrived(&self, planned: &Planned, chunks: &[ChunkId]) {
        let now_ms = self.now_ms();
        let mut fetch = self.lock();
        fetch.refused = false;
        for chunk in chunks {
            fetch.plan.arrived(now_ms, planned.id, *chunk);
        }
        fetch.finished.extend_from_slice(chunks);
        drop(fetch);
        self.arrived.notify_all();
        self.work.notify_one();
        self.backlog.notify_one();
    }

    /// The device doesn't have a chunk.
    pub(crate) fn absent(&self, planned: &Planned, chunk: ChunkId) {
        self.lock().plan.absent(planned.id, chunk);
        self.arrived.notify_all();
        self.work.notify_one();
    }

    /// The device sent other bytes under a chunk's name: it is asked for nothing more.
    pub(crate) fn wrong(&self, planned: &Planned, chunk: ChunkId) {
        self.lock().plan.wrong(self.now_ms(), planned.source, chunk);
        self.work.notify_one();
    }

    /// A request's answer has ended: what it didn't bring is asked for again.
    pub(crate) fn ended(&self, planned: &Planned) {
        self.lock().plan.ended(self.now_ms(), planned.id);
        self.work.notify_one();
    }

    /// The disk took no bytes; fetching rests for a while.
    pub(crate) fn disk_failed(&self, error: &StoreError) {
        let mut fetch = self.lock();
        fetch.rest_until = Some(Instant::now() + DISK_REST);
        if !std::mem::replace(&mut fetch.refused, true) {
            tracing::warn!(%error, "fetching rests: the disk takes no bytes");
        }
    }

    /// Has the backlog looked through again.
    pub(crate) fn look_again(&self) {
        self.backlog.notify_one();
    }

    /// Waits until the backlog is to be looked through.
    pub(crate) async fn backlog(&self) {
        self.backlog.notified().await;
    }

    /// The chunks that arrived since the last call.
    pub(crate) fn take_finished(&self) -> Vec<ChunkId> {
        std::mem::take(&mut self.lock().finished)
    }

    /// How many chunks are wanted.
    pub(crate) fn wanted(&self) -> usize {
        self.lock().plan.wanted_len()
    }
}
