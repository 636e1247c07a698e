//! The spill log: what overlays hold in memory is also in a file, which outlives the process.
//!
//! Every change of an overlay is appended, with one write(2) and without a sync: what the kernel
//! has survives `kill -9`. A log that was written before this machine last started is of no use.
//! It lacks an unknown part, and what is in it may long have been superseded.
//!
//! A log that has grown is followed by another, which begins anew with the state of each overlay
//! that is changed. The earlier ones go, from the first on, once no overlay needs them.

use super::file::failed;
use super::overlay::Shared;
use super::spill_record::{Boot, LOG_HEAD_BYTES, Record, log_head};
use crate::StoreError;
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, Weak};
use std::time::{SystemTime, UNIX_EPOCH};

/// How long a log gets, whole states left out, before another follows it.
const LOG_MAX_BYTES: u64 = 64 << 20;
/// How much room an empty log may keep.
const KEPT_MAX_BYTES: u64 = 1 << 20;
const PREFIX: &str = "spill-";

/// The spill logs of a store.
pub(crate) struct Spill {
    directory: PathBuf,
    logs: Mutex<Logs>,
    /// A log was ended, and overlays have yet to move on to the next.
    lagging: AtomicBool,
}

struct Logs {
    /// How many overlays need each.
    needed: BTreeMap<u64, usize>,
    /// The one that is appended to.
    current: Option<Current>,
    next_log: u64,
    next_sequence: u64,
    max_bytes: u64,
}

struct Current {
    log: u64,
    file: File,
    len_bytes: u64,
    /// What of it are whole states.
    state_bytes: u64,
    /// How long the file is: what comes after `len_bytes` is old.
    file_bytes: u64,
}

/// The kernel's present start; `None` if it doesn't say.
pub(crate) fn boot() -> Option<Boot> {
    let id = std::fs::read("/proc/sys/kernel/random/boot_id").ok()?;
    blake3::hash(&id).as_bytes()[..16].try_into().ok()
}

/// The logs in a directory, in their order.
pub(crate) fn logs_in(directory: &Path) -> Result<Vec<u64>, StoreError> {
    let mut logs = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name();
        let number = name.to_str().and_then(|name| name.strip_prefix(PREFIX));
        logs.extend(number.and_then(|number| u64::from_str_radix(number, 16).ok()));
    }
    logs.sort_unstable();
    Ok(logs)
}

/// Where a log is.
pub(crate) fn path_of(directory: &Path, log: u64) -> PathBuf {
    directory.join(format!("{PREFIX}{log:x}"))
}

fn unlink(directory: &Path, log: u64) {
    if let Err(cause) = std::fs::remove_file(path_of(directory, log))
        && cause.kind() != std::io::ErrorKind::NotFound
    {
        tracing::warn!(%cause, log, "a spill log that nobody needs could not be removed");
    }
}

impl Spill {
    /// The logs of the store in `directory`. `needed` says how many overlays a former process left
    /// in each; those with none are removed as soon as none before them is needed.
    pub(crate) fn new(directory: &Path, needed: BTreeMap<u64, usize>) -> Spill {
        // So that nothing that an earlier log left in the place of this one is taken for a part.
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let mut logs = Logs {
            next_log: needed.keys().last().map_or(1, |last| last + 1),
            needed,
            current: None,
            next_sequence: u64::try_from(since.as_nanos()).unwrap_or(1),
            max_bytes: LOG_MAX_BYTES,
        };
        logs.prune(directory);
        Spill {
            directory: directory.into(),
            logs: Mutex::new(logs),
            lagging: AtomicBool::new(false),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Logs> {
        self.logs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Appends a change of an overlay, or its whole state if it isn't in the present log yet. `in_log` is
    /// the one that has its last state.
    pub(crate) fn append(
        &self,
        overlay: u64,
        in_log: &mut Option<u64>,
        change: Option<Record>,
        state: impl FnOnce() -> Record,
    ) -> Result<(), StoreError> {
        let mut logs = self.lock();
        let (log, sequence) = (logs.current(&self.directory)?.log, logs.next_sequence);
        let known = *in_log == Some(log);
        let (bytes, state_bytes) = match change.filter(|_| known) {
            Some(change) => (change.encode(sequence, overlay), 0),
            None => {
                let bytes = state().encode(sequence, overlay);
                let len_bytes = bytes.len() as u64;
                (bytes, len_bytes)
            }
        };
        let max_bytes = logs.max_bytes;
        let current = logs.current(&self.directory)?;
        current.put(&bytes).map_err(failed)?;
        current.state_bytes += state_bytes;
        let full = current.len_bytes > max_bytes + current.state_bytes;
        logs.next_sequence += 1;
        if !known {
            *logs.needed.entry(log).or_default() += 1;
            if let Some(before) = in_log.replace(log) {
                logs.release(&self.directory, before);
            }
        }
        if full {
            logs.current = None;
            self.lagging.store(true, Ordering::Release);
        }
        Ok(())
    }

    /// Says that an overlay is no more.
    pub(crate) fn end(&self, overlay: u64, in_log: &mut Option<u64>) {
        let Some(log) = in_log.take() else { return };
        let mut logs = self.lock();
        let sequence = logs.next_sequence;
        let ended = logs.current(&self.directory).and_then(|current| {
            current.put(&Record::End.encode(sequence, overlay)).map_err(failed)
        });
        logs.next_sequence += 1;
        if let Err(cause) = ended {
            tracing::warn!(%cause, "the end of a file's changes could not be noted");
        }
        logs.release(&self.directory, log);
    }

    /// Whether overlays have yet to move on; answers so once.
    pub(crate) fn is_lagging(&self) -> bool {
        self.lagging.load(Ordering::Acquire) && self.lagging.swap(false, Ordering::AcqRel)
    }

    /// Moves overlays on to the present log. None of them may be locked.
    pub(crate) fn catch_up(&self, overlays: Vec<Weak<Shared>>) -> Result<(), StoreError> {
        for overlay in overlays.into_iter().filter_map(|it| it.upgrade()) {
            let mut state = overlay.state();
            let behind = {
                let logs = self.lock();
                let current = logs.current.as_ref().map(|current| current.log);
                state.in_log.is_some() && state.in_log != current
            };
            if behind {
                overlay.note(&mut state, None)?;
            }
        }
        Ok(())
    }

    /// Removes all logs, after an orderly stop: what overlays still hold is in the index.
    pub(crate) fn clear(&self) {
        let mut logs = self.lock();
        logs.current = None;
        for log in std::mem::take(&mut logs.needed).into_keys() {
            unlink(&self.directory, log);
        }
    }

    #[cfg(test)]
    pub(crate) fn limit(&self, max_bytes: u64) {
        self.lock().max_bytes = max_bytes;
    }
}

impl Current {
    /// Writes at the end. What is torn off is written over by the next.
    fn put(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.file.write_all_at(bytes, self.len_bytes)?;
        self.len_bytes += bytes.len() as u64;
        self.file_bytes = self.file_bytes.max(self.len_bytes);
        Ok(())
    }
}

impl Logs {
    fn current(&mut self, directory: &Path) -> Result<&mut Current, StoreError> {
        let current = match self.current.take() {
            Some(current) => current,
            None => {
                let log = self.next_log;
                let mut options = OpenOptions::new();
                let options = options.read(true).write(true).create(true).truncate(true);
                let file = options.open(path_of(directory, log)).map_err(failed)?;
                let head = log_head(&boot().unwrap_or_default());
                file.write_all_at(&head, 0).map_err(failed)?;
                self.next_log += 1;
                self.needed.insert(log, 0);
                let len_bytes = LOG_HEAD_BYTES as u64;
                Current { log, file, len_bytes, state_bytes: 0, file_bytes: len_bytes }
            }
        };
        Ok(self.current.insert(current))
    }

    fn release(&mut self, directory: &Path, log: u64) {
        if let Some(needed) = self.needed.get_mut(&log) {
            *needed -= 1;
            if *needed == 0 {
                self.prune(directory);
            }
        }
    }

    /// Removes what nobody needs. Never a log before one that goes before it: that an overlay has
    /// ended may be written in the later one.
    fn prune(&mut self, directory: &Path) {
        let current = self.current.as_ref().map(|current| current.log);
        while let Some(first) = self.needed.first_entry() {
            if *first.get() > 0 {
                return;
            }
            if current != Some(*first.key()) {
                unlink(directory, first.remove_entry().0);
                continue;
            }
            let Some(current) = &mut self.current else { return };
            // Whatever still lies behind has lower sequences, and is of overlays that have ended.
            current.len_bytes = LOG_HEAD_BYTES as u64;
            current.state_bytes = 0;
            if current.file_bytes > KEPT_MAX_BYTES
                && current.file.set_len(current.len_bytes).is_ok()
            {
                current.file_bytes = current.len_bytes;
            }
            return;
        }
    }
}
