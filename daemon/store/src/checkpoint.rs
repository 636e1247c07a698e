//! Moves the index's log into its file from a thread of its own, so that no writer waits for the
//! disk while it holds the index.

use rusqlite::Connection;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;

/// After how many commits the log is moved, and after how many bytes that it grew.
const COMMITS: u64 = 512;
const GROWN_BYTES: u64 = 4 << 20;

/// The thread, and what it is told.
pub(crate) struct Checkpointer {
    orders: Arc<Orders>,
    due: Mutex<Due>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Due {
    commits: u64,
    log_bytes: u64,
}

#[derive(Default)]
struct Orders {
    next: Mutex<Next>,
    given: Condvar,
}

#[derive(Clone, Copy, PartialEq, Eq, Default)]
enum Next {
    #[default]
    Wait,
    Move,
    Stop,
}

impl Orders {
    fn give(&self, order: Next) {
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        if *next != Next::Stop {
            *next = order;
        }
        self.given.notify_one();
    }

    /// Waits until there is something to do; false if that is to stop.
    fn wait(&self) -> bool {
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        while *next == Next::Wait {
            next = self.given.wait(next).unwrap_or_else(PoisonError::into_inner);
        }
        if *next == Next::Move {
            *next = Next::Wait;
            return true;
        }
        false
    }
}

impl Checkpointer {
    /// Starts the thread, with a connection of its own.
    ///
    /// # Errors
    /// If no thread can be started.
    pub(crate) fn start(sql: Connection) -> std::io::Result<Self> {
        let orders = Arc::new(Orders::default());
        let own = Arc::clone(&orders);
        let thread = std::thread::Builder::new()
            .name("kith-checkpoint".into())
            .spawn(move || while own.wait() && move_log(&sql) {})?;
        Ok(Checkpointer { orders, due: Mutex::default(), thread: Some(thread) })
    }

    /// Counts a commit, after which the log's file has `log_bytes`.
    pub(crate) fn note_commit(&self, log_bytes: u64) {
        let mut due = self.due.lock().unwrap_or_else(PoisonError::into_inner);
        due.commits += 1;
        // The file shrinks when the log begins anew.
        due.log_bytes = due.log_bytes.min(log_bytes);
        if due.commits >= COMMITS || log_bytes - due.log_bytes >= GROWN_BYTES {
            *due = Due { commits: 0, log_bytes };
            self.orders.give(Next::Move);
        }
    }
}

impl Drop for Checkpointer {
    fn drop(&mut self) {
        self.orders.give(Next::Stop);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread that moves the index's log ended by a panic");
        }
    }
}

/// Moves what no reader needs in the log. False if the disk fails: the writer then finds out
/// by itself, because it moves the log once that is too long.
fn move_log(sql: &Connection) -> bool {
    let moved = sql.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()));
    if let Err(cause) = &moved {
        tracing::error!(%cause, "the index's log could not be moved into its file");
    }
    moved.is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_is_moved_after_many_commits_or_much_growth() {
        let cases: [(&str, u64, u64, bool); 4] = [
            ("few small commits", COMMITS - 1, 100, false),
            ("many small commits", COMMITS, 100, true),
            ("few large commits", 10, GROWN_BYTES / 8, true),
            ("one that grows it little", 1, GROWN_BYTES - 1, false),
        ];
        for (what, commits, each, moved) in cases {
            let checkpointer =
                Checkpointer { orders: Arc::default(), due: Mutex::default(), thread: None };
            let mut log_bytes = 0;
            for _ in 0..commits {
                log_bytes += each;
                checkpointer.note_commit(log_bytes);
            }
            let next = *checkpointer.orders.next.lock().unwrap();
            assert_eq!(next == Next::Move, moved, "{what}");
        }
    }
}
