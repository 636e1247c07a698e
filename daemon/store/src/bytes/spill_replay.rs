//! Reading the spill logs that a former process left.

use super::extent::{Extent, Extents, Staging};
use super::file::failed;
use super::journal::Entry;
use super::spill::{boot, logs_in, path_of};
use super::spill_record::{
    HEAD_BYTES, LOG_HEAD_BYTES, Publishing, Record, State, read, read_head, read_log_head,
};
use crate::StoreError;
use kith_core::register::UnixTime;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;
use std::sync::Arc;

/// An overlay as the logs have it.
pub(crate) struct Left {
    /// The log that has its last whole state.
    pub(crate) log: u64,
    pub(crate) entry: Entry,
    /// Nobody wrote to it any more, and it had this time of modification.
    pub(crate) closed: Option<UnixTime>,
    /// A version that a part of it may have become.
    pub(crate) publishing: Option<Publishing>,
}

/// What the logs hold.
#[derive(Default)]
pub(crate) struct Replayed {
    /// The overlays that haven't ended.
    pub(crate) left: BTreeMap<u64, Left>,
    /// All logs, and how many overlays need each.
    pub(crate) needed: BTreeMap<u64, usize>,
    /// The highest number that an overlay has had.
    pub(crate) last_overlay: u64,
}

/// Replays the logs in `directory`. `file` answers the staging file that is a segment.
pub(crate) fn replay(
    directory: &Path,
    file: &mut impl FnMut(u64) -> Arc<Staging>,
) -> Result<Replayed, StoreError> {
    let mut replayed = Replayed::default();
    for log in logs_in(directory)? {
        replayed.needed.insert(log, 0);
        let path = path_of(directory, log);
        replayed.read_log(log, File::open(path).map_err(failed)?, file)?;
    }
    for left in replayed.left.values() {
        *replayed.needed.entry(left.log).or_default() += 1;
    }
    Ok(replayed)
}

/// Fills the buffer, or answers false where the file ends before.
fn fill(from: &mut impl Read, buffer: &mut [u8]) -> Result<bool, StoreError> {
    match from.read_exact(buffer) {
        Ok(()) => Ok(true),
        Err(cause) if cause.kind() == std::io::ErrorKind::UnexpectedEof => Ok(false),
        Err(cause) => Err(failed(cause)),
    }
}

impl Replayed {
    /// Reads a log up to the first record that isn't whole.
    fn read_log(
        &mut self,
        log: u64,
        from: File,
        file: &mut impl FnMut(u64) -> Arc<Staging>,
    ) -> Result<(), StoreError> {
        let mut left_bytes = from.metadata().map_err(failed)?.len();
        let mut from = BufReader::with_capacity(1 << 20, from);
        let mut log_head = [0; LOG_HEAD_BYTES];
        if !fill(&mut from, &mut log_head)? {
            return Ok(());
        }
        let written = read_log_head(&log_head);
        if written.is_none() || written != boot() {
            tracing::info!(log, "a spill log from before this machine last started is left aside");
            return Ok(());
        }
        left_bytes -= LOG_HEAD_BYTES as u64;
        let mut expected = None;
        loop {
            let mut head = [0; HEAD_BYTES];
            if !fill(&mut from, &mut head)? {
                return Ok(());
            }
            left_bytes -= HEAD_BYTES as u64;
            let Some(read_head) = read_head(&head) else { return Ok(()) };
            if u64::from(read_head.len_bytes) > left_bytes
                || expected.is_some_and(|expected| read_head.sequence != expected)
            {
                return Ok(());
            }
            let mut payload = vec![0; read_head.len_bytes as usize];
            if !fill(&mut from, &mut payload)? {
                return Ok(());
            }
            left_bytes -= payload.len() as u64;
            let Some(record) = read(&head, &payload, file) else { return Ok(()) };
            expected = Some(read_head.sequence.wrapping_add(1));
            self.apply(log, read_head.overlay, record);
        }
    }

    fn apply(&mut self, log: u64, overlay: u64, record: Record) {
        self.last_overlay = self.last_overlay.max(overlay);
        match record {
            Record::State(state) => {
                let State { entry, least_bytes, closed, mut publishing } = *state;
                if let Some(publishing) = &mut publishing {
                    publishing.least_bytes = least_bytes;
                }
                self.left.insert(overlay, Left { log, entry, closed, publishing });
            }
            Record::End => {
                self.left.remove(&overlay);
            }
            change => {
                if let Some(left) = self.left.get_mut(&overlay) {
                    left.apply(change);
                }
            }
        }
    }
}

impl Left {
    fn apply(&mut self, change: Record) {
        let entry = &mut self.entry;
        match change {
            Record::Run(start, extent) => {
                entry.size_bytes = entry.size_bytes.max(start + extent.len_bytes);
                entry.extents.insert(start, extent);
                self.closed = None;
            }
            Record::Resize(size_bytes) => {
                entry.extents.remove(size_bytes..entry.size_bytes.max(size_bytes));
                entry.base_bytes = entry.base_bytes.min(size_bytes);
                entry.size_bytes = size_bytes;
                if let Some(publishing) = &mut self.publishing {
                    publishing.least_bytes = publishing.least_bytes.min(size_bytes);
                }
                self.closed = None;
            }
            Record::Closed(mtime) => self.closed = Some(mtime),
            Record::Publishing(publishing) => self.publishing = Some(publishing),
            Record::State(_) | Record::End => {}
        }
    }

    /// Takes out what has become a version, if it has, and forgets when the rest was written.
    pub(crate) fn settle(mut self, published: bool) -> Left {
        let entry = &mut self.entry;
        if let (true, Some(publishing)) = (published, self.publishing.take()) {
            entry.base = publishing.version.base;
            entry.base_bytes = entry.base.content.size_bytes.min(publishing.least_bytes);
            entry.extents = entry.extents.newer_than(publishing.generation);
        }
        let mut extents = Extents::default();
        for (start, extent) in entry.extents.iter() {
            extents.insert(start, Extent { generation: 0, ..extent.clone() });
        }
        entry.extents = extents;
        self
    }
}
