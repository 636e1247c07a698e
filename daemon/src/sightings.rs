//! When each of the other devices was last heard of, remembered over restarts.

use kith_control::moment::Moment;
use kith_core::id::DeviceId;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The largest file that is read: more devices than a circle can have.
const FILE_MAX_BYTES: u64 = 64 << 10;

/// When devices were last heard of. It is only told to people: a file that is lost or damaged
/// is begun anew.
pub(crate) struct Sightings {
    path: PathBuf,
    seen: Mutex<BTreeMap<DeviceId, Moment>>,
}

impl Sightings {
    /// What the file at `path` remembers; one line a device: its id and the milliseconds.
    pub(crate) fn open(path: &Path) -> Self {
        let known = std::fs::metadata(path).is_ok_and(|found| found.len() <= FILE_MAX_BYTES);
        let text =
            if known { std::fs::read_to_string(path).unwrap_or_default() } else { String::new() };
        let seen = text.lines().filter_map(|line| {
            let (id, ms) = line.split_once(' ')?;
            Some((id.parse().ok()?, Moment::from_unix_ms(ms.parse().ok()?)))
        });
        Sightings { path: path.to_owned(), seen: Mutex::new(seen.collect()) }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<DeviceId, Moment>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The device was heard of just now. Kept in the file by [`Sightings::save`].
    pub(crate) fn note(&self, device: DeviceId) {
        self.lock().insert(device, Moment::now());
    }

    /// When the device was last heard of.
    pub(crate) fn last(&self, device: DeviceId) -> Option<Moment> {
        self.lock().get(&device).copied()
    }

    /// Writes the file.
    pub(crate) fn save(&self) {
        let lines: String =
            self.lock().iter().map(|(id, seen)| format!("{id} {}\n", seen.unix_ms())).collect();
        if let Err(error) = crate::identity::write_private(&self.path, lines.as_bytes()) {
            tracing::debug!(%error, "when devices were last seen can't be written down");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_seen_is_remembered_and_damage_is_passed_over() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("seen");
        let sightings = Sightings::open(&path);
        let (known, stranger) = (DeviceId([7; 32]), DeviceId([8; 32]));
        sightings.note(known);
        sightings.save();
        let again = Sightings::open(&path);
        assert_eq!(again.last(known), sightings.last(known));
        assert_eq!(again.last(stranger), None);
        std::fs::write(&path, "nonsense\n\u{0} 5\n").unwrap();
        assert_eq!(Sightings::open(&path).last(known), None);
    }
}
