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
        let reached = latest();
        let synced = sync();
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.running = false;
        match &synced {
            Ok(()) => state.durable = state.durable.max(reached),
            // Nothing was to be synced yet: there was no room to record what is to be.
            Err(StoreError::Full) => {}
            Err(_) => state.failed = true,
        }
        self.ended.notify_all();
        synced
    }
}
