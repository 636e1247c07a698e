//! What the kernel must still be told to forget.

use kith_fs::volume::Outdated;
use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How many notices one call hands over.
const BATCH_MAX: usize = 512;

/// A queue from the transactions that change the view to the thread that tells the kernel.
///
/// It isn't cut short: a notice that was dropped would leave the kernel showing what is no longer
/// true. It is bounded by the transactions' own size and by the thread's speed, a microsecond each.
#[derive(Default)]
pub(crate) struct OutdatedQueue {
    outdated: Mutex<Queue>,
    arrived: Condvar,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Outdated>,
    closed: bool,
}

impl OutdatedQueue {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        // A panic elsewhere can't leave the queue half changed: every change is one call.
        self.outdated.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds notices, in order.
    pub(crate) fn push(&self, notices: Vec<Outdated>) {
        if notices.is_empty() {
            return;
        }
        self.lock().waiting.extend(notices);
        self.arrived.notify_one();
    }

    /// No more notices will be wanted.
    pub(crate) fn close(&self) {
        self.lock().closed = true;
        self.arrived.notify_all();
    }

    /// All notices that nobody has taken.
    pub(crate) fn left(&self) -> Vec<Outdated> {
        self.lock().waiting.drain(..).collect()
    }

    /// The next notices; none if nothing came in time, `None` once the queue is closed.
    pub(crate) fn next(&self, patience: Duration) -> Option<Vec<Outdated>> {
        let queue = self.lock();
        let (mut queue, _) = self
            .arrived
            .wait_timeout_while(queue, patience, |queue| queue.waiting.is_empty() && !queue.closed)
            .unwrap_or_else(PoisonError::into_inner);
        if queue.closed {
            return None;
        }
        let count = queue.waiting.len().min(BATCH_MAX);
        Some(queue.waiting.drain(..count).collect())
    }
}
