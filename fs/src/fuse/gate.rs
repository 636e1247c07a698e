//! The gate that requests pass on their way in and out, and that closes when another process is to
//! answer from then on.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Lets requests pass until it is closed. Who comes then waits, and answers nobody: what has been
/// read and not answered the kernel gives to the next process.
#[derive(Default)]
pub(super) struct Gate {
    inside: AtomicUsize,
    closed: AtomicBool,
    /// Guards nothing but the waiting.
    turn: Mutex<()>,
    changed: Condvar,
    calls: Mutex<()>,
}

/// A request that has passed, until it is answered.
pub(super) struct Passing<'a>(&'a Gate);

impl Gate {
    /// Passes, or waits for as long as the gate is closed. Nobody may pass twice at once.
    pub(super) fn pass(&self) -> Passing<'_> {
        loop {
            self.inside.fetch_add(1, Ordering::SeqCst);
            if !self.closed.load(Ordering::SeqCst) {
                return Passing(self);
            }
            drop(Passing(self));
            let turn = self.turn();
            let is_closed = |(): &mut ()| self.closed.load(Ordering::SeqCst);
            drop(self.changed.wait_while(turn, is_closed).unwrap_or_else(PoisonError::into_inner));
        }
    }

    /// To be held over a call into the kernel that returns only once others have passed: the gate
    /// isn't closed meanwhile.
    pub(super) fn call(&self) -> MutexGuard<'_, ()> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Closes, and waits until everybody is out again. Answers false, and is open, if that takes
    /// longer than `patience`.
    pub(super) fn close(&self, patience: Duration) -> bool {
        let _no_calls = self.call();
        self.closed.store(true, Ordering::SeqCst);
        let is_inside = |(): &mut ()| self.inside.load(Ordering::SeqCst) > 0;
        let (turn, waited) = self
            .changed
            .wait_timeout_while(self.turn(), patience, is_inside)
            .unwrap_or_else(PoisonError::into_inner);
        drop(turn);
        if waited.timed_out() {
            self.closed.store(false, Ordering::SeqCst);
            self.tell();
        }
        !waited.timed_out()
    }

    fn turn(&self) -> MutexGuard<'_, ()> {
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes those who wait. Under the lock, so that nobody is between looking and waiting.
    fn tell(&self) {
        let _turn = self.turn();
        self.changed.notify_all();
    }
}

impl Drop for Passing<'_> {
    fn drop(&mut self) {
        let last = self.0.inside.fetch_sub(1, Ordering::SeqCst) == 1;
        if last && self.0.closed.load(Ordering::SeqCst) {
            self.0.tell();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;
    use std::thread;

    const LONG: Duration = Duration::from_secs(20);

    #[test]
    fn it_closes_behind_the_last_and_who_comes_then_waits() {
        let gate = Gate::default();
        let inside = gate.pass();
        assert!(!gate.close(Duration::ZERO), "somebody is inside");
        drop(gate.pass());
        thread::scope(|scope| {
            let closing = scope.spawn(|| gate.close(LONG));
            while !gate.closed.load(Ordering::SeqCst) {
                thread::yield_now();
            }
            let (passed, told) = mpsc::channel();
            let late = &gate;
            scope.spawn(move || {
                let _passing = late.pass();
                passed.send(()).unwrap();
            });
            drop(inside);
            assert!(closing.join().unwrap());
            assert!(told.try_recv().is_err(), "it is closed");
            gate.closed.store(false, Ordering::SeqCst);
            gate.tell();
            told.recv_timeout(LONG).unwrap();
        });
    }

    #[test]
    fn it_stays_open_during_a_call_that_others_must_answer() {
        let gate = Gate::default();
        thread::scope(|scope| {
            let call = gate.call();
            let closing = scope.spawn(|| gate.close(LONG));
            // What the call waits for.
            drop(gate.pass());
            drop(call);
            assert!(closing.join().unwrap());
        });
    }
}
