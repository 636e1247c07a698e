//! The plan of what to fetch from whom: what is wanted, who may have it, what is asked for.
//!
//! Pure: the driver says what happened and when, and asks for the [`next`](FetchPlan::next)
//! requests. A source that is up may have any chunk until it says that it hasn't. What a program
//! waits for comes first, then what comes after it, then everything else, the rarest first.
//! Requests without progress are given up and asked of another source. What a source denied is asked of
//! it again when it announces it, and after [`DENIED_MS`] in any case.
//!
//! Bounded: [`WANTED_MAX`] chunks, [`SOURCES_MAX`] sources, and what is in flight from each.

mod queue;

use crate::id::{ChunkId, DeviceId};
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use queue::{Queue, Rank};

/// The most chunks that are wanted at once. What a program waits for may exceed it twofold.
pub const WANTED_MAX: usize = 32_768;
/// The most sources.
pub const SOURCES_MAX: usize = 64;
/// The most bytes in flight from one source in requests that nobody waits for.
pub const IN_FLIGHT_MAX_BYTES: u64 = 16 << 20;
/// The most requests in flight to one source that nobody waits for.
pub const IN_FLIGHT_MAX_REQUESTS: usize = 32;
/// How many bytes more may be in flight from one source for what a program waits for.
pub const FOREGROUND_EXTRA_BYTES: u64 = 8 << 20;
/// How many requests more may be in flight to one source for what a program waits for.
pub const FOREGROUND_EXTRA_REQUESTS: usize = 32;
/// A request without progress for so long is given up.
pub const STALL_MS: u64 = 10_000;
/// A request that a program waits for, without progress for so long, is given up.
pub const FOREGROUND_STALL_MS: u64 = 3_000;
/// A denial counts no longer than this, and perhaps less: a source announces what it denied when it
/// gets it from elsewhere, not when it makes it itself, and doesn't remember all that it denied.
pub const DENIED_MS: u64 = 60_000;
/// A source that sent wrong bytes isn't asked again for so long.
pub const WRONG_PAUSE_MS: u64 = 10 * 60 * 1000;

const PAUSE_FIRST_MS: u64 = 100;
const PAUSE_MAX_MS: u64 = 10_000;

/// How urgent a chunk is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub enum Priority {
    /// It is to be here some time.
    Background,
    /// A program will probably ask for it soon.
    Ahead,
    /// A program waits for it.
    Foreground,
}

/// Names a request. Never used twice by one plan.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub struct RequestId(pub u64);

/// Chunks to ask a source for, in one go.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Request {
    /// Its name.
    pub id: RequestId,
    /// Whom to ask.
    pub source: DeviceId,
    /// What to ask for, with the lengths in bytes.
    pub chunks: Vec<(ChunkId, u32)>,
    /// The priority of all of them.
    pub priority: Priority,
}

impl Priority {
    /// The most bytes and chunks of one request; one chunk of any length may always be asked for.
    const fn request_max(self) -> (u64, usize) {
        match self {
            Priority::Foreground => (256 << 10, 16),
            Priority::Ahead | Priority::Background => (1 << 20, 256),
        }
    }

    const fn stall_ms(self) -> u64 {
        match self {
            Priority::Foreground => FOREGROUND_STALL_MS,
            Priority::Ahead | Priority::Background => STALL_MS,
        }
    }
}

/// A chunk that is wanted.
#[derive(Debug)]
struct Wanted {
    len_bytes: u32,
    priority: Priority,
    order: u64,
    /// The requests it was asked for in. It waits in the queues only while there is none, or none
    /// that is urgent enough.
    flights: Vec<RequestId>,
    /// The sources that said they don't have it.
    absent: BTreeSet<DeviceId>,
    /// The sources that announced it while they were asked for it: their answer may be older.
    announced: BTreeSet<DeviceId>,
    /// Sources that let a request for it lapse. They come again when there is no other.
    slow: BTreeSet<DeviceId>,
    /// Its place in the queues, if it waits there.
    rank: Option<Rank>,
}

/// A device that chunks can be asked of.
#[derive(Debug, Default)]
struct Source {
    /// What can be asked of it and isn't asked of anybody.
    queue: Queue,
    requests: BTreeSet<RequestId>,
    bytes: u64,
    /// It isn't asked before this time.
    paused_until_ms: u64,
    failures: u32,
}

/// A request that is in flight.
#[derive(Debug)]
struct Flight {
    source: DeviceId,
    priority: Priority,
    deadline_ms: u64,
    /// What hasn't come yet, with lengths.
    open: BTreeMap<ChunkId, u32>,
}

/// What to fetch from whom.
#[derive(Debug, Default)]
pub struct FetchPlan {
    wanted: BTreeMap<ChunkId, Wanted>,
    sources: BTreeMap<DeviceId, Source>,
    flights: BTreeMap<RequestId, Flight>,
    orders: u64,
    requests: u64,
    /// When all denials lapse.
    denied_until_ms: u64,
}

impl FetchPlan {
    /// A plan without wants and sources.
    #[must_use]
    pub fn new() -> Self {
        FetchPlan::default()
    }

    /// Wants a chunk of `len_bytes`, or makes one that is wanted more urgent; never less. Answers
    /// whether it is wanted now: not, if too many are.
    pub fn want(&mut self, chunk: ChunkId, len_bytes: u32, priority: Priority) -> bool {
        let most = if priority == Priority::Foreground { 2 * WANTED_MAX } else { WANTED_MAX };
        let is_full = self.wanted.len() >= most;
        self.orders += 1;
        match self.wanted.get_mut(&chunk) {
            Some(wanted) if wanted.priority >= priority => return true,
            Some(wanted) => {
                wanted.priority = priority;
                wanted.order = self.orders;
            }
            None if is_full => return false,
            None => {
                let wanted = Wanted {
                    len_bytes,
                    priority,
                    order: self.orders,
                    flights: Vec::new(),
                    absent: BTreeSet::new(),
                    announced: BTreeSet::new(),
                    slow: BTreeSet::new(),
                    rank: None,
                };
                self.wanted.insert(chunk, wanted);
            }
        }
        self.requeue(chunk);
        true
    }

    /// Doesn't want a chunk any more. If it comes all the same, nobody minds.
    pub fn unwant(&mut self, chunk: ChunkId) {
        self.take_out(chunk);
        self.wanted.remove(&chunk);
    }

    /// How many chunks are wanted.
    #[must_use]
    pub fn wanted_len(&self) -> usize {
        self.wanted.len()
    }

    /// Whether a chunk is wanted.
    #[must_use]
    pub fn is_wanted(&self, chunk: ChunkId) -> bool {
        self.wanted.contains_key(&chunk)
    }

    /// Whether a chunk is wanted and no source is up that could have it.
    #[must_use]
    pub fn is_hopeless(&self, chunk: ChunkId) -> bool {
        self.wanted.get(&chunk).is_some_and(|wanted| {
            wanted.flights.is_empty()
                && self.sources.keys().all(|source| wanted.absent.contains(source))
        })
    }

    /// How many bytes are asked for and haven't come.
    #[must_use]
    pub fn in_flight_bytes(&self) -> u64 {
        self.sources.values().map(|source| source.bytes).sum()
    }

    /// A device can be asked. Answers whether it will be: not, if there are too many. Known ones
    /// stay as they are.
    pub fn source_up(&mut self, device: DeviceId) -> bool {
        if self.sources.contains_key(&device) {
            return true;
        }
        if self.sources.len() >= SOURCES_MAX {
            return false;
        }
        let mut source = Source::default();
        for (chunk, wanted) in &self.wanted {
            if let Some(rank) = wanted.rank {
                source.queue.insert(rank, *chunk);
            }
        }
        self.sources.insert(device, source);
        true
    }

    /// A device can't be asked any more. Answers the requests that are void; what they asked for
    /// is asked of others.
    pub fn source_down(&mut self, device: DeviceId) -> Vec<RequestId> {
        let void = self.give_up_all(device);
        self.sources.remove(&device);
        let mut changed = Vec::new();
        for (chunk, wanted) in &mut self.wanted {
            wanted.announced.remove(&device);
            // Where others were passed over for this one, it may be their turn again.
            if wanted.absent.remove(&device) || !wanted.slow.is_empty() {
                wanted.slow.remove(&device);
                changed.push(*chunk);
            }
        }
        changed.into_iter().for_each(|chunk| self.requeue(chunk));
        void
    }

    /// A source has these chunks now. What isn't wanted is not remembered: a source may have
    /// anything that it didn't deny.
    pub fn announced(&mut self, device: DeviceId, chunks: &[ChunkId]) {
        for chunk in chunks {
            let Some(wanted) = self.wanted.get_mut(chunk) else { continue };
            if wanted.absent.remove(&device) {
                self.requeue(*chunk);
            } else if wanted.flights.iter().any(|id| self.flights[id].source == device) {
                wanted.announced.insert(device);
            }
        }
    }

    /// A chunk is here, verified; `request` brought it. Whatever else asked for it is left to run.
    pub fn arrived(&mut self, now_ms: u64, request: RequestId, chunk: ChunkId) {
        self.settle(request, chunk);
        if let Some(flight) = self.flights.get_mut(&request) {
            flight.deadline_ms = now_ms + flight.priority.stall_ms();
        }
        self.unwant(chunk);
        self.end_if_done(request);
    }

    /// The source of `request` doesn't have a chunk.
    pub fn absent(&mut self, request: RequestId, chunk: ChunkId) {
        let Some(source) = self.flights.get(&request).map(|flight| flight.source) else { return };
        self.settle(request, chunk);
        if let Some(wanted) = self.wanted.get_mut(&chunk) {
            if !wanted.announced.remove(&source) {
                wanted.absent.insert(source);
            }
            self.requeue(chunk);
        }
        self.end_if_done(request);
    }

    /// A source sent bytes that are not the chunk's. It isn't asked for anything for ten minutes.
    /// Answers the requests that are void.
    pub fn wrong(&mut self, now_ms: u64, device: DeviceId, chunk: ChunkId) -> Vec<RequestId> {
        let void = self.give_up_all(device);
        let Some(source) = self.sources.get_mut(&device) else { return void };
        source.paused_until_ms = now_ms + WRONG_PAUSE_MS;
        if let Some(wanted) = self.wanted.get_mut(&chunk) {
            wanted.absent.insert(device);
            self.requeue(chunk);
        }
        void
    }

    /// A request failed as a whole. What it asked for is asked again; its source after a pause
    /// that grows with each failure in a row.
    pub fn failed(&mut self, now_ms: u64, request: RequestId) {
        let Some(device) = self.flights.get(&request).map(|flight| flight.source) else { return };
        self.give_up(request, true);
        if let Some(source) = self.sources.get_mut(&device) {
            source.pause(now_ms);
        }
    }

    /// A request's answer has ended. What it left open counts as failed.
    pub fn ended(&mut self, now_ms: u64, request: RequestId) {
        if self.flights.get(&request).is_some_and(|flight| !flight.open.is_empty()) {
            self.failed(now_ms, request);
        }
    }

    /// Gives up the requests that made no progress for too long, and answers them: their streams
    /// are to be closed. Lets denials lapse.
    pub fn expire(&mut self, now_ms: u64) -> Vec<RequestId> {
        if now_ms >= self.denied_until_ms {
            self.denied_until_ms = now_ms + DENIED_MS;
            self.let_denials_lapse();
        }
        let due = self.flights.iter().filter(|(_, flight)| flight.deadline_ms <= now_ms);
        let due: Vec<RequestId> = due.map(|(id, _)| *id).collect();
        for request in &due {
            self.failed(now_ms, *request);
        }
        due
    }

    fn let_denials_lapse(&mut self) {
        let denied = self.wanted.iter_mut().filter(|(_, wanted)| !wanted.absent.is_empty());
        let denied: Vec<ChunkId> = denied
            .map(|(chunk, wanted)| {
                wanted.absent.clear();
                *chunk
            })
            .collect();
        denied.into_iter().for_each(|chunk| self.requeue(chunk));
    }

    /// When to call [`expire`](Self::expire) and [`next`](Self::next) again if nothing else
    /// happens before.
    #[must_use]
    pub fn wake_ms(&self, now_ms: u64) -> Option<u64> {
        let deadlines = self.flights.values().map(|flight| flight.deadline_ms);
        let waiting = self.sources.values().filter(|source| !source.queue.is_empty());
        let pauses = waiting.map(|source| source.paused_until_ms).filter(|until| *until > now_ms);
        let is_any_denied = self.wanted.values().any(|wanted| !wanted.absent.is_empty());
        let denials = is_any_denied.then_some(self.denied_until_ms);
        deadlines.chain(pauses).chain(denials).min()
    }

    /// What is to be asked now. Counts as asked from here on.
    pub fn next(&mut self, now_ms: u64) -> Vec<Request> {
        let mut requests = Vec::new();
        loop {
            // The most urgent first, and each time of the source that has the least to do, so
            // that work spreads.
            let able = self.sources.iter().filter_map(|(device, source)| {
                let priority = source.next_priority(now_ms)?;
                Some((core::cmp::Reverse(priority), source.bytes, source.requests.len(), *device))
            });
            let Some((priority, _, _, device)) = able.min() else { return requests };
            requests.push(self.ask(now_ms, device, priority.0));
        }
    }

    /// Makes one request of what stands first in a source's queue.
    fn ask(&mut self, now_ms: u64, device: DeviceId, priority: Priority) -> Request {
        self.requests += 1;
        let id = RequestId(self.requests);
        let (most_bytes, most_chunks) = priority.request_max();
        let mut bytes = 0;
        let mut chunks: Vec<(ChunkId, u32)> = Vec::new();
        while let Some(chunk) = self.sources[&device].queue.first(priority) {
            let len_bytes = self.wanted[&chunk].len_bytes;
            let more = bytes + u64::from(len_bytes);
            if !chunks.is_empty() && (more > most_bytes || chunks.len() >= most_chunks) {
                break;
            }
            bytes = more;
            chunks.push((chunk, len_bytes));
            self.take_out(chunk);
            let wanted = self.wanted.get_mut(&chunk).expect("what is queued is wanted");
            wanted.flights.push(id);
            wanted.announced.remove(&device);
        }
        let source = self.sources.get_mut(&device).expect("it was just looked at");
        source.requests.insert(id);
        source.bytes += bytes;
        let open = chunks.iter().copied().collect();
        let deadline_ms = now_ms + priority.stall_ms();
        self.flights.insert(id, Flight { source: device, priority, deadline_ms, open });
        Request { id, source: device, chunks, priority }
    }

    /// Takes a chunk off what a request still has open.
    fn settle(&mut self, request: RequestId, chunk: ChunkId) {
        let Some(flight) = self.flights.get_mut(&request) else { return };
        let Some(len_bytes) = flight.open.remove(&chunk) else { return };
        let source = self.sources.get_mut(&flight.source).expect("flights end with their source");
        source.bytes -= u64::from(len_bytes);
        source.failures = 0;
        if let Some(wanted) = self.wanted.get_mut(&chunk) {
            wanted.flights.retain(|other| *other != request);
        }
    }

    fn end_if_done(&mut self, request: RequestId) {
        if self.flights.get(&request).is_some_and(|flight| flight.open.is_empty()) {
            self.give_up(request, false);
        }
    }

    /// Ends a request and asks again for what it left open, of others if it was `slow`.
    fn give_up(&mut self, request: RequestId, slow: bool) {
        let Some(flight) = self.flights.remove(&request) else { return };
        if let Some(source) = self.sources.get_mut(&flight.source) {
            source.requests.remove(&request);
            source.bytes -= flight.open.values().map(|len| u64::from(*len)).sum::<u64>();
        }
        for chunk in flight.open.into_keys() {
            if let Some(wanted) = self.wanted.get_mut(&chunk) {
                wanted.flights.retain(|other| *other != request);
                if slow {
                    wanted.slow.insert(flight.source);
                }
                self.requeue(chunk);
            }
        }
    }

    fn give_up_all(&mut self, device: DeviceId) -> Vec<RequestId> {
        let Some(source) = self.sources.get(&device) else { return Vec::new() };
        let void: Vec<RequestId> = source.requests.iter().copied().collect();
        for request in &void {
            self.give_up(*request, true);
        }
        void
    }

    /// Takes a chunk out of all queues.
    fn take_out(&mut self, chunk: ChunkId) {
        if let Some(rank) = self.wanted.get_mut(&chunk).and_then(|wanted| wanted.rank.take()) {
            for source in self.sources.values_mut() {
                source.queue.remove(rank, chunk);
            }
        }
    }

    /// Puts a chunk where it belongs in the queues of all that may have it.
    fn requeue(&mut self, chunk: ChunkId) {
        self.take_out(chunk);
        let Some(wanted) = self.wanted.get_mut(&chunk) else { return };
        // One request is enough, but for a program that would wait behind background work.
        let urgent = |id: &RequestId| self.flights[id].priority == Priority::Foreground;
        let asked = match wanted.priority {
            Priority::Foreground => wanted.flights.iter().any(urgent),
            Priority::Ahead | Priority::Background => !wanted.flights.is_empty(),
        };
        if asked {
            return;
        }
        let mut able: Vec<DeviceId> = self.sources.keys().copied().collect();
        able.retain(|device| !wanted.absent.contains(device));
        if able.iter().any(|device| !wanted.slow.contains(device)) {
            able.retain(|device| !wanted.slow.contains(device));
        } else {
            wanted.slow.clear();
        }
        let rank = Rank::new(wanted.priority, wanted.absent.len(), wanted.order);
        wanted.rank = Some(rank);
        for device in able {
            if let Some(source) = self.sources.get_mut(&device) {
                source.queue.insert(rank, chunk);
            }
        }
    }
}

impl Source {
    /// The priority of what can be asked of it now, if anything can.
    fn next_priority(&self, now_ms: u64) -> Option<Priority> {
        if self.paused_until_ms > now_ms {
            return None;
        }
        let priority = self.queue.first_priority()?;
        let (bytes, requests) = match priority {
            Priority::Foreground => (
                IN_FLIGHT_MAX_BYTES + FOREGROUND_EXTRA_BYTES,
                IN_FLIGHT_MAX_REQUESTS + FOREGROUND_EXTRA_REQUESTS,
            ),
            Priority::Ahead | Priority::Background => (IN_FLIGHT_MAX_BYTES, IN_FLIGHT_MAX_REQUESTS),
        };
        (self.bytes < bytes && self.requests.len() < requests).then_some(priority)
    }

    fn pause(&mut self, now_ms: u64) {
        let pause_ms = PAUSE_FIRST_MS << self.failures.min(7);
        self.failures = self.failures.saturating_add(1);
        self.paused_until_ms = self.paused_until_ms.max(now_ms + pause_ms.min(PAUSE_MAX_MS));
    }
}

#[cfg(test)]
mod tests;
