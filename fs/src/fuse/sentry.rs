//! Notices that a thread which answers the kernel is gone.
//!
//! A broken invariant panics. Two threads answer, so the mount would go on with one, and hang
//! with none; and fuser reports a thread that panicked only when all have ended.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Set once the first of the threads that stand guard has ended.
#[derive(Clone, Default)]
pub(super) struct Sentry(Arc<AtomicBool>);

impl Sentry {
    /// Makes the calling thread stand guard until it ends, however it does.
    pub(super) fn post(&self) {
        POSTED.with_borrow_mut(|posted| {
            posted.get_or_insert_with(|| Posted(self.clone()));
        });
    }

    /// Whether a thread that stood guard has ended.
    pub(super) fn is_lost(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

struct Posted(Sentry);

impl Drop for Posted {
    fn drop(&mut self) {
        self.0.0.store(true, Ordering::Release);
    }
}

thread_local! {
    static POSTED: RefCell<Option<Posted>> = const { RefCell::new(None) };
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;

    #[test]
    fn a_thread_that_ends_or_panics_is_missed() {
        for panics in [false, true] {
            let sentry = Sentry::default();
            let there = sentry.clone();
            let ended = thread::spawn(move || {
                there.post();
                there.post();
                assert!(!panics, "as the test wants");
            });
            assert_eq!(ended.join().is_err(), panics);
            assert!(sentry.is_lost());
        }
    }
}
