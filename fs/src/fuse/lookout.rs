//! Stays awake for a moment after an answer: the program that got it often asks again at once, and
//! to wake a thread takes longer than many an answer.

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::hint;
use std::os::fd::OwnedFd;
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

/// How long a thread stays awake: a little longer than programs take from an answer to the next
/// request where they do little else.
const MOMENT: Duration = Duration::from_micros(50);
/// After so many moments in vain it doesn't become rarer: one in 64 answers.
const VAIN_MAX: u32 = 6;
const AT_ONCE: Timespec = Timespec { tv_sec: 0, tv_nsec: 0 };

/// Looks out for the kernel's next request.
pub(super) struct Lookout {
    /// The connection to the kernel once more. None where staying awake is of no use: the program
    /// can't ask while the only processor is taken.
    connection: Option<OwnedFd>,
    /// Locked by the one thread that looks out; the others go to sleep.
    patience: Mutex<Patience>,
}

/// Looks out once when it is dropped, after an answer.
pub(super) struct Watch<'a>(&'a Lookout);

impl Lookout {
    pub(super) fn over(connection: &OwnedFd) -> Lookout {
        let alone = thread::available_parallelism().map_or(1, usize::from) == 1;
        // Without a descriptor to spare it only is slower.
        let connection = if alone { None } else { connection.try_clone().ok() };
        Lookout { connection, patience: Mutex::default() }
    }

    pub(super) fn after(&self) -> Watch<'_> {
        Watch(self)
    }

    fn look(&self) {
        if let Some(connection) = &self.connection
            && let Ok(mut patience) = self.patience.try_lock()
            && patience.is_due()
        {
            let found = appears(connection);
            patience.learn(found);
        }
    }
}

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        self.0.look();
    }
}

/// Whether there is something to read within a moment.
fn appears(connection: &OwnedFd) -> bool {
    let since = Instant::now();
    loop {
        let ready = poll(&mut [PollFd::new(connection, PollFlags::IN)], Some(&AT_ONCE));
        // What shows up only after the moment came while this thread was not running: it stood in
        // the way of whoever asks.
        if since.elapsed() > MOMENT {
            return false;
        }
        if ready != Ok(0) {
            return true;
        }
        hint::spin_loop();
    }
}

/// Looks out after each answer as long as that pays, and ever more rarely where it doesn't: where
/// programs ask now and then, or where they wait for this processor.
#[derive(Default)]
struct Patience {
    vain: u32,
    skip: u32,
}

impl Patience {
    fn is_due(&mut self) -> bool {
        let due = self.skip == 0;
        self.skip = self.skip.saturating_sub(1);
        due
    }

    fn learn(&mut self, found: bool) {
        self.vain = if found { 0 } else { (self.vain + 1).min(VAIN_MAX) };
        self.skip = (1 << self.vain) - 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Write as _, pipe};

    #[test]
    fn moments_in_vain_become_rare_and_one_that_pays_brings_them_back() {
        let mut patience = Patience::default();
        let between = |patience: &mut Patience, found| {
            let skipped = (0..).take_while(|_| !patience.is_due()).count();
            patience.learn(found);
            skipped
        };
        let vain: Vec<_> = (0..8).map(|_| between(&mut patience, false)).collect();
        assert_eq!(vain, [0, 1, 3, 7, 15, 31, 63, 63]);
        let paying: Vec<_> = (0..3).map(|_| between(&mut patience, true)).collect();
        assert_eq!(paying, [63, 0, 0]);
    }

    #[test]
    fn an_answer_without_another_request_is_followed_by_one_moment_only() {
        let (reader, mut writer) = pipe().unwrap();
        let lookout =
            Lookout { connection: Some(OwnedFd::from(reader)), patience: Mutex::default() };
        drop(lookout.after());
        assert_eq!(lookout.patience.lock().unwrap().vain, 1);
        writer.write_all(b"request").unwrap();
        drop(lookout.after());
        let patience = lookout.patience.lock().unwrap();
        assert_eq!((patience.vain, patience.skip), (1, 0), "it is skipped, whatever is there");
    }

    #[test]
    fn who_finds_another_looking_out_goes_to_sleep() {
        let (reader, _writer) = pipe().unwrap();
        let lookout =
            Lookout { connection: Some(OwnedFd::from(reader)), patience: Mutex::default() };
        let looking = lookout.patience.lock().unwrap();
        drop(lookout.after());
        assert_eq!(looking.vain, 0);
    }
}
