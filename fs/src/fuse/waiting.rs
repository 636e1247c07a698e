//! The waiting room: threads for the few requests that may wait, so that the rest never do.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

/// How long a thread without work stays.
const IDLE: Duration = Duration::from_secs(10);
/// The most requests that wait for a thread; what comes on top fails with an I/O error.
const QUEUE_MAX: usize = 4096;

type Task = Box<dyn FnOnce() + Send>;

/// A bounded set of threads, made on demand.
pub(super) struct WaitingRoom {
    shared: Arc<Shared>,
}

struct Shared {
    name: &'static str,
    threads_max: usize,
    state: Mutex<State>,
    arrived: Condvar,
}

#[derive(Default)]
struct State {
    tasks: VecDeque<Task>,
    idle: usize,
    threads: usize,
    closed: bool,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        // Tasks run outside the lock, so what it guards is whole even after a panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn work(&self) {
        let mut state = self.state();
        loop {
            if let Some(task) = state.tasks.pop_front() {
                drop(state);
                task();
                state = self.state();
                continue;
            }
            if state.closed {
                break;
            }
            state.idle += 1;
            let (woken, timeout) =
                self.arrived.wait_timeout(state, IDLE).unwrap_or_else(PoisonError::into_inner);
            state = woken;
            state.idle -= 1;
            if timeout.timed_out() && state.tasks.is_empty() {
                break;
            }
        }
    }
}

/// Counts a thread out, also when its task panicked.
struct Leaving(Arc<Shared>);

impl Drop for Leaving {
    fn drop(&mut self) {
        self.0.state().threads -= 1;
    }
}

impl WaitingRoom {
    /// A room for up to `threads_max` threads called `name`.
    pub(super) fn new(name: &'static str, threads_max: usize) -> Self {
        let shared =
            Shared { name, threads_max, state: Mutex::default(), arrived: Condvar::default() };
        WaitingRoom { shared: Arc::new(shared) }
    }

    /// Runs `task` on one of the threads. A task that finds no place is dropped.
    pub(super) fn enter(&self, task: impl FnOnce() + Send + 'static) {
        let mut state = self.shared.state();
        if state.closed || state.tasks.len() >= QUEUE_MAX {
            drop(state);
            tracing::warn!(room = self.shared.name, "too many requests wait; one was refused");
            return;
        }
        state.tasks.push_back(Box::new(task));
        if state.idle >= state.tasks.len() {
            self.shared.arrived.notify_one();
            return;
        }
        if state.threads < self.shared.threads_max {
            state.threads += 1;
            let leaving = Leaving(Arc::clone(&self.shared));
            drop(state);
            let spawned = thread::Builder::new()
                .name(self.shared.name.into())
                .spawn(move || leaving.0.work());
            if let Err(error) = spawned {
                // `leaving` was dropped with the closure; a thread that lives takes the task.
                tracing::warn!(%error, room = self.shared.name, "no thread could be started");
            }
        }
    }
}

impl Drop for WaitingRoom {
    /// Lets the threads go; what waits for the network ends by its own deadline.
    fn drop(&mut self) {
        let mut state = self.shared.state();
        state.closed = true;
        let unanswered = std::mem::take(&mut state.tasks);
        drop(state);
        self.shared.arrived.notify_all();
        drop(unanswered);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    #[test]
    fn as_many_wait_at_once_as_there_are_threads() {
        let room = WaitingRoom::new("test", 4);
        let (done, finished) = mpsc::channel();
        let meeting = Arc::new(std::sync::Barrier::new(4));
        for _ in 0..4 {
            let (meeting, done) = (Arc::clone(&meeting), done.clone());
            room.enter(move || {
                meeting.wait();
                done.send(()).unwrap();
            });
        }
        for _ in 0..4 {
            finished.recv_timeout(Duration::from_secs(20)).unwrap();
        }
        assert!(room.shared.state().threads <= 4);
    }

    #[test]
    fn a_task_that_panics_costs_one_thread_and_no_more() {
        let room = WaitingRoom::new("test", 1);
        let (done, finished) = mpsc::channel();
        let ended = done.clone();
        room.enter(move || {
            let _told = Told(ended);
            panic!("a broken task");
        });
        finished.recv_timeout(Duration::from_secs(20)).unwrap();
        while room.shared.state().threads > 0 {
            thread::yield_now();
        }
        room.enter(move || done.send(()).unwrap());
        finished.recv_timeout(Duration::from_secs(20)).unwrap();
    }

    struct Told(mpsc::Sender<()>);

    impl Drop for Told {
        fn drop(&mut self) {
            self.0.send(()).unwrap();
        }
    }
}
