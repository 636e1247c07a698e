//! The proof that a start goes on where the last stop was, and not from a copy of the data.
//!
//! An orderly stop leaves one random number in the index and one in a file that lives no longer than
//! the machine runs, outside of the data. The next start takes both. Equal ones prove that nothing
//! else went on from the same index in between: whoever did would have taken the file.

use crate::identity::write_private;
use crate::paths::Paths;
use rustix::time::{ClockId, clock_gettime};
use std::ffi::OsString;
use std::fs;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// A jump of the wall clock by more than this shows that the machine may have been put back to
/// an earlier state while it ran.
const JUMP_MS: u64 = 60_000;
/// The type of a filesystem in memory, from `linux/magic.h`.
const TMPFS_MAGIC: u64 = 0x0102_1994;
/// The longest file that is read.
const FILE_MAX_BYTES: u64 = 256;

/// How far the wall clock is ahead of the time since the machine was started, in milliseconds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct ClockOffset(i64);

impl ClockOffset {
    /// What it is now.
    pub(crate) fn now() -> Self {
        let ms = |clock| {
            let time = clock_gettime(clock);
            time.tv_sec.saturating_mul(1000).saturating_add(time.tv_nsec / 1_000_000)
        };
        ClockOffset(ms(ClockId::Realtime).saturating_sub(ms(ClockId::Boottime)))
    }

    /// Whether the wall clock was set between the two, or the machine was put back.
    pub(crate) fn jumped(self, since: ClockOffset) -> bool {
        self.0.abs_diff(since.0) > JUMP_MS
    }
}

/// Where the number outside of the index is kept.
pub(crate) struct Continuity {
    /// Nothing where no directory is known to be in memory.
    file: Option<PathBuf>,
}

impl Continuity {
    /// The place for this installation.
    pub(crate) fn of(paths: &Paths) -> Self {
        Self::within(paths, std::env::var_os("XDG_RUNTIME_DIR"))
    }

    fn within(paths: &Paths, session: Option<OsString>) -> Self {
        let user = rustix::process::getuid().as_raw();
        let session = session.map_or_else(|| format!("/run/user/{user}").into(), PathBuf::from);
        let mut copied = std::iter::once(&paths.data).chain(&paths.home);
        let usable =
            lives_with_the_machine(&session) && !copied.any(|place| session.starts_with(place));
        let hash = blake3::hash(paths.data.as_os_str().as_bytes()).to_hex();
        let name = format!("kith-{}.continuity", &hash[..16]);
        Continuity { file: usable.then(|| session.join(name)) }
    }

    /// Takes the number away, and says whether it proves that the index, closed with `closed`, is
    /// where the last stop left it.
    pub(crate) fn take(&self, closed: Option<u64>) -> bool {
        let Some(path) = &self.file else { return false };
        let mut text = String::new();
        let read = fs::File::open(path)
            .and_then(|file| file.take(FILE_MAX_BYTES).read_to_string(&mut text));
        // What can't be taken away could prove something twice.
        if read.is_err() || fs::remove_file(path).is_err() {
            return false;
        }
        let mut lines = text.lines();
        let number = lines.next().and_then(|line| line.parse::<u64>().ok());
        let offset = lines.next().and_then(|line| line.parse().ok()).map(ClockOffset);
        number.is_some()
            && number == closed
            && offset.is_some_and(|then| !ClockOffset::now().jumped(then))
    }

    /// A number to close the index with, where there is a place for it.
    pub(crate) fn draw(&self) -> Option<u64> {
        self.file.as_ref().and_then(|_| getrandom::u64().ok())
    }

    /// Leaves the number that the index was closed with.
    pub(crate) fn leave(&self, number: u64) {
        let Some(path) = &self.file else { return };
        let text = format!("{number}\n{}\n", ClockOffset::now().0);
        if let Err(error) = write_private(path, text.as_bytes()) {
            tracing::debug!(%error, "the next start will be under a new writer");
        }
    }
}

/// Whether a directory is this user's, and in memory.
fn lives_with_the_machine(directory: &Path) -> bool {
    let mine = fs::metadata(directory)
        .is_ok_and(|found| found.is_dir() && found.uid() == rustix::process::getuid().as_raw());
    let in_memory = rustix::fs::statfs(directory)
        .is_ok_and(|found| u64::try_from(found.f_type).is_ok_and(|kind| kind == TMPFS_MAGIC));
    directory.is_absolute() && mine && in_memory
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(directory: &Path) -> Continuity {
        Continuity { file: Some(directory.join("continuity")) }
    }

    #[test]
    fn only_the_number_that_the_last_stop_left_proves_anything_and_only_once() {
        let directory = tempfile::tempdir().unwrap();
        let place = at(directory.path());
        assert!(!place.take(None) && !place.take(Some(7)), "there is none");
        for (closed, proven) in [(Some(7), true), (Some(8), false), (None, false)] {
            place.leave(7);
            assert_eq!(place.take(closed), proven, "{closed:?}");
            assert!(!place.take(closed), "it is taken");
        }
        // The machine was put back since, or its clock was set.
        let long_ago = ClockOffset::now().0 - 3_600_000;
        fs::write(directory.path().join("continuity"), format!("7\n{long_ago}\n")).unwrap();
        assert!(!place.take(Some(7)));
        for damaged in ["", "7", "7\nx", "\n\n"] {
            fs::write(directory.path().join("continuity"), damaged).unwrap();
            assert!(!place.take(Some(7)), "{damaged:?}");
        }
    }

    #[test]
    fn what_outlives_the_machine_or_is_copied_with_the_data_proves_nothing() {
        let home = tempfile::tempdir().unwrap();
        let paths = Paths::find(Some(home.path())).unwrap();
        fs::create_dir_all(paths.data.join("run")).unwrap();
        for session in [paths.data.join("run"), PathBuf::from("relative"), "/proc".into()] {
            let place = Continuity::within(&paths, Some(session.clone().into()));
            assert_eq!(place.draw(), None, "{session:?}");
        }
    }

    #[test]
    fn a_clock_that_goes_its_way_has_not_jumped() {
        let now = ClockOffset::now();
        assert!(!ClockOffset::now().jumped(now));
        assert!(now.jumped(ClockOffset(now.0 + 61_000)) && now.jumped(ClockOffset(now.0 - 61_000)));
        assert!(!now.jumped(ClockOffset(now.0 + 59_000)));
    }
}
