//! Holds the collection of garbage off while somebody names chunks that nothing durable names yet.

use std::sync::{Arc, Condvar, Mutex, PoisonError};

/// Between those who name chunks and the one who collects what is unnamed.
#[derive(Default)]
pub(crate) struct Gate {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    holders: usize,
    collecting: bool,
}

/// No chunk is collected as long as this lives.
pub(crate) struct Hold(Arc<Gate>);

/// A moment in which nobody holds the collection off.
pub(crate) struct Collecting<'a>(&'a Gate);

impl Gate {
    /// Holds the collection off, after at most one slice of it.
    pub(crate) fn hold(self: &Arc<Self>) -> Hold {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        while state.collecting {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.holders += 1;
        Hold(Arc::clone(self))
    }

    /// Waits until nobody holds the collection off.
    pub(crate) fn collect(&self) -> Collecting<'_> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        while state.collecting || state.holders > 0 {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.collecting = true;
        Collecting(self)
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        let mut state = self.0.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.holders -= 1;
        self.0.changed.notify_all();
    }
}

impl Drop for Collecting<'_> {
    fn drop(&mut self) {
        let mut state = self.0.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.collecting = false;
        self.0.changed.notify_all();
    }
}
