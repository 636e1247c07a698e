//! Syncs shared by everybody who waits for one.

use crate::StoreError;
use std::sync::{Condvar, Mutex, PoisonError};

/// Syncs in rounds: whoever comes during one waits for the next, which serves all of them.
#[derive(Default)]
pub(crate) struct Rounds {
    state: Mutex<State>,
    ended: Condvar,
}

#[derive(Default)]
struct State {
    /// Everything up to this ticket is durable.
    durable: u64,
    running: bool,
    failed: bool,
}

impl Rounds {
    /// Returns once everything up to `ticket` is durable. `latest` gives the latest ticket, and
    /// `sync` makes everything durable that was done before it was called.
    pub(crate) fn reach(
        &self,
        ticket: u64,
        latest: impl Fn() -> u64,
        sync: impl FnOnce() -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if state.failed {
                return Err(StoreError::SyncFailed);
            }
            if state.durable >= ticket {
                return Ok(());
            }
            if !state.running {
                break;
            }
            state = self.ended.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.running = true;
        drop(state);
        let mut round = Round { rounds: self, reached: latest(), outcome: Outcome::Failed };
        let synced = sync();
        round.outcome = match &synced {
            Ok(()) => Outcome::Durable,
            // Nothing was to be synced yet: there was no room to record what is to be.
            Err(StoreError::Full) => Outcome::Nothing,
            Err(_) => Outcome::Failed,
        };
        synced
    }
}

impl Rounds {
    /// Runs a part of a sync by itself. If it fails, no sync after it promises anything.
    pub(crate) fn part(
        &self,
        sync: impl FnOnce() -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let state = || self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state().failed {
            return Err(StoreError::SyncFailed);
        }
        let synced = sync();
        if synced.is_err() {
            state().failed = true;
        }
        synced
    }
}

enum Outcome {
    Durable,
    Nothing,
    Failed,
}

/// A round in progress. It ends also by a panic, so that nobody waits for ever.
struct Round<'a> {
    rounds: &'a Rounds,
    reached: u64,
    outcome: Outcome,
}

impl Drop for Round<'_> {
    fn drop(&mut self) {
        let mut state = self.rounds.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.running = false;
        match self.outcome {
            Outcome::Durable => state.durable = state.durable.max(self.reached),
            Outcome::Nothing => {}
            Outcome::Failed => state.failed = true,
        }
        self.rounds.ended.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::sync::mpsc;

    fn failure() -> StoreError {
        StoreError::Io(std::io::Error::other("the disk is gone"))
    }

    #[test]
    fn what_is_durable_is_not_synced_again() {
        let rounds = Rounds::default();
        let count = AtomicU64::new(0);
        let sync = || {
            count.fetch_add(1, Ordering::Relaxed);
            Ok(())
        };
        for (ticket, latest, syncs) in [(0, 0, 0), (1, 3, 1), (3, 3, 1), (4, 4, 2), (2, 4, 2)] {
            rounds.reach(ticket, || latest, sync).unwrap();
            assert_eq!(count.load(Ordering::Relaxed), syncs, "ticket {ticket}");
        }
    }

    #[test]
    fn nothing_is_promised_after_a_failed_sync() {
        let rounds = Rounds::default();
        assert!(matches!(rounds.reach(1, || 1, || Err(StoreError::Full)), Err(StoreError::Full)));
        rounds.reach(1, || 1, || Ok(())).unwrap();
        assert!(matches!(rounds.reach(2, || 2, || Err(failure())), Err(StoreError::Io(_))));
        for ticket in [1, 2, 3] {
            let later = rounds.reach(ticket, || 3, || Ok(()));
            assert!(matches!(later, Err(StoreError::SyncFailed)));
        }
        let rounds = Rounds::default();
        rounds.part(|| Ok(())).unwrap();
        assert!(matches!(rounds.part(|| Err(failure())), Err(StoreError::Io(_))));
        assert!(matches!(rounds.part(|| Ok(())), Err(StoreError::SyncFailed)));
        assert!(matches!(rounds.reach(1, || 1, || Ok(())), Err(StoreError::SyncFailed)));
    }

    #[test]
    fn who_comes_during_a_round_waits_for_one_that_covers_it() {
        let rounds = Rounds::default();
        let latest = AtomicU64::new(1);
        let now = || latest.load(Ordering::SeqCst);
        let (running, runs) = mpsc::channel();
        let (release, released) = mpsc::channel::<()>();
        let synced = AtomicU64::new(0);
        let late = |ticket| {
            rounds.reach(ticket, now, || {
                synced.fetch_add(1, Ordering::SeqCst);
                Ok(())
            })
        };
        std::thread::scope(|scope| {
            let first = scope.spawn(|| {
                rounds.reach(1, now, move || {
                    running.send(()).unwrap();
                    released.recv().unwrap();
                    Ok(())
                })
            });
            runs.recv().unwrap();
            // Done after the first round began: that one doesn't cover it.
            latest.store(2, Ordering::SeqCst);
            let waiters: Vec<_> = (0..4).map(|_| scope.spawn(|| late(2))).collect();
            release.send(()).unwrap();
            first.join().unwrap().unwrap();
            waiters.into_iter().for_each(|waiter| waiter.join().unwrap().unwrap());
            assert_eq!(synced.load(Ordering::SeqCst), 1);
        });
    }
}
