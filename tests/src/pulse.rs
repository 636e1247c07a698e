//! Waiting for something to become true, woken by whatever the daemons say meanwhile.

use std::sync::{Condvar, Mutex};
use std::time::{Duration, Instant};

/// How long a condition goes unasked when nothing at all was heard.
const QUIET: Duration = Duration::from_millis(100);

static BEATS: Mutex<u64> = Mutex::new(0);
static BEAT: Condvar = Condvar::new();

/// Something was heard from a daemon: whoever waits asks its condition again.
pub fn beat() {
    *BEATS.lock().expect("nothing panics while it counts") += 1;
    BEAT.notify_all();
}

/// Waits until `condition` holds.
///
/// # Panics
/// If it doesn't within `patience`; the message says what was waited for, and `condition` may add
/// what it saw last by its error.
pub fn until(patience: Duration, what: &str, mut condition: impl FnMut() -> Result<(), String>) {
    let deadline = Instant::now() + patience;
    let mut seen = *BEATS.lock().expect("nothing panics while it counts");
    loop {
        let Err(missing) = condition() else { return };
        let left = deadline.saturating_duration_since(Instant::now());
        assert!(!left.is_zero(), "after {patience:?}, still waiting until {what}: {missing}");
        let beats = BEATS.lock().expect("nothing panics while it counts");
        let (beats, _) = BEAT
            .wait_timeout_while(beats, left.min(QUIET), |beats| *beats == seen)
            .expect("nothing panics while it counts");
        seen = *beats;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_beat_wakes_who_waits() {
        let mut asked = 0;
        std::thread::scope(|scope| {
            scope.spawn(beat);
            until(Duration::from_secs(10), "it was asked twice", || {
                asked += 1;
                if asked >= 2 { Ok(()) } else { Err(format!("asked {asked} times")) }
            });
        });
    }

    #[test]
    #[should_panic(expected = "still waiting until the moon is blue: it is white")]
    fn what_does_not_come_is_said() {
        until(Duration::ZERO, "the moon is blue", || Err("it is white".into()));
    }
}
