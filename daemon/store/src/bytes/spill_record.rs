//! The records of the spill log: every change of an overlay, as it is made.
//!
//! All numbers are little-endian. A log begins with a head of 40 bytes: magic (8), version (4), zero
//! (4), the boot in which it was written (16), checksum (8). A record is a head of 40 bytes and a
//! payload: magic (4), version (4), kind (4), the payload's length (4), sequence (8), overlay (8),
//! checksum of all before and of the payload (8). Payloads:
//!
//! | kind | payload |
//! | --- | --- |
//! | 1: state | the overlay without its runs (length, CBOR as in `journal.rs`), the smallest size since the last freeze (8), closed (flag, and if it is 1 as in kind 4), publishing (flag, and if it is 1 as in kind 5), number of runs (4), runs |
//! | 2: run | one run |
//! | 3: resize | the new size (8) |
//! | 4: closed | the time of modification: seconds (8), nanoseconds (4) |
//! | 5: publishing | generation (4), smallest size since (8), the version as a base (length, CBOR) |
//! | 6: end | nothing |
//!
//! A run is its start (8), length (8), generation (4), kind (1), and by that: 0 its bytes, 1 the
//! staging file's segment (8), 2 nothing for zeros, 3 an offset (8) and a content (length, core's
//! encoding). Lengths have 4 bytes.

use super::extent::{Data, Extent, Staging};
use super::journal::Entry;
use kith_core::codec::{decode_content, encode_content};
use kith_core::content::FILE_MAX_BYTES;
use kith_core::register::UnixTime;
use std::sync::Arc;

const LOG_MAGIC: [u8; 8] = *b"KITHSPIL";
const MAGIC: [u8; 4] = *b"KSPL";
const VERSION: u32 = 1;

/// The length of a log's head.
pub(crate) const LOG_HEAD_BYTES: usize = 40;
/// The length of a record's head.
pub(crate) const HEAD_BYTES: usize = 40;

/// Which start of this machine the log belongs to.
pub(crate) type Boot = [u8; 16];

/// A version that the state after a freeze was about to become.
#[derive(Clone)]
pub(crate) struct Publishing {
    /// The generation that the freeze ended.
    pub(crate) generation: u32,
    /// The smallest size of the file since.
    pub(crate) least_bytes: u64,
    /// The version is its base; the rest is of no meaning.
    pub(crate) version: Entry,
}

/// All of an overlay.
#[derive(Clone)]
pub(crate) struct State {
    pub(crate) entry: Entry,
    pub(crate) least_bytes: u64,
    pub(crate) closed: Option<UnixTime>,
    pub(crate) publishing: Option<Publishing>,
}

/// One change.
pub(crate) enum Record {
    /// The overlay is this; what was recorded of it before counts no more.
    State(Box<State>),
    /// A run was put over whatever was there.
    Run(u64, Extent),
    /// The file was cut or made longer.
    Resize(u64),
    /// Nobody writes to the file any more; it has this time of modification.
    Closed(UnixTime),
    /// The transaction that makes a version of it is about to be committed.
    Publishing(Publishing),
    /// The overlay is no more.
    End,
}

fn check(parts: [&[u8]; 2]) -> [u8; 8] {
    let mut hasher = blake3::Hasher::new();
    parts.iter().for_each(|part| {
        hasher.update(part);
    });
    let mut check = [0; 8];
    check.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
    check
}

/// The head of a log.
pub(crate) fn log_head(boot: &Boot) -> [u8; LOG_HEAD_BYTES] {
    let mut head = [0; LOG_HEAD_BYTES];
    head[..8].copy_from_slice(&LOG_MAGIC);
    head[8..12].copy_from_slice(&VERSION.to_le_bytes());
    head[16..32].copy_from_slice(boot);
    let check = check([&head[..32], &[]]);
    head[32..].copy_from_slice(&check);
    head
}

/// The boot in a log's head; `None` if the bytes are none.
pub(crate) fn read_log_head(head: &[u8; LOG_HEAD_BYTES]) -> Option<Boot> {
    let (head, sum) = head.split_at(32);
    let is_head = head[..8] == LOG_MAGIC && head[8..12] == VERSION.to_le_bytes();
    if is_head && sum == check([head, &[]]) { head[16..32].try_into().ok() } else { None }
}

/// What a record's head says.
pub(crate) struct Head {
    kind: u32,
    pub(crate) len_bytes: u32,
    pub(crate) sequence: u64,
    pub(crate) overlay: u64,
}

/// Reads a record's head, whose checksum is yet to be compared.
pub(crate) fn read_head(head: &[u8; HEAD_BYTES]) -> Option<Head> {
    let mut bytes = Bytes(head);
    if bytes.take(4)? != MAGIC || bytes.u32()? != VERSION {
        return None;
    }
    let (kind, len_bytes) = (bytes.u32()?, bytes.u32()?);
    Some(Head { kind, len_bytes, sequence: bytes.u64()?, overlay: bytes.u64()? })
}

/// Reads a whole record; `None` if it is damaged.
pub(crate) fn read(
    head: &[u8; HEAD_BYTES],
    payload: &[u8],
    file: &mut impl FnMut(u64) -> Arc<Staging>,
) -> Option<Record> {
    let Head { kind, .. } = read_head(head)?;
    if check([&head[..32], payload]) != head[32..] {
        return None;
    }
    let mut bytes = Bytes(payload);
    let record = match kind {
        1 => {
            let mut entry = bytes.entry()?;
            let least_bytes = bytes.u64()?;
            let closed = if bytes.flag()? { Some(bytes.time()?) } else { None };
            let publishing = if bytes.flag()? { Some(bytes.publishing()?) } else { None };
            for _ in 0..bytes.u32()? {
                let (start, extent) = bytes.run(file)?;
                entry.extents.insert(start, extent);
            }
            Record::State(Box::new(State { entry, least_bytes, closed, publishing }))
        }
        2 => {
            let (start, extent) = bytes.run(file)?;
            Record::Run(start, extent)
        }
        3 => Record::Resize(bytes.u64().filter(|size| *size <= FILE_MAX_BYTES)?),
        4 => Record::Closed(bytes.time()?),
        5 => Record::Publishing(bytes.publishing()?),
        6 => Record::End,
        _ => return None,
    };
    bytes.0.is_empty().then_some(record)
}

impl Record {
    /// The record as it is written.
    pub(crate) fn encode(&self, sequence: u64, overlay: u64) -> Vec<u8> {
        let mut out = vec![0; HEAD_BYTES];
        let kind: u32 = match self {
            Record::State(state) => {
                put_state(&mut out, state);
                1
            }
            Record::Run(start, extent) => {
                put_run(&mut out, *start, extent);
                2
            }
            Record::Resize(size_bytes) => {
                out.extend_from_slice(&size_bytes.to_le_bytes());
                3
            }
            Record::Closed(mtime) => {
                put_time(&mut out, *mtime);
                4
            }
            Record::Publishing(publishing) => {
                put_publishing(&mut out, publishing);
                5
            }
            Record::End => 6,
        };
        let (head, payload) = out.split_at_mut(HEAD_BYTES);
        head[..4].copy_from_slice(&MAGIC);
        head[4..8].copy_from_slice(&VERSION.to_le_bytes());
        head[8..12].copy_from_slice(&kind.to_le_bytes());
        let len_bytes =
            u32::try_from(payload.len()).expect("an overlay's state is far below 4 GiB");
        head[12..16].copy_from_slice(&len_bytes.to_le_bytes());
        head[16..24].copy_from_slice(&sequence.to_le_bytes());
        head[24..32].copy_from_slice(&overlay.to_le_bytes());
        let sum = check([&head[..32], payload]);
        head[32..].copy_from_slice(&sum);
        out
    }
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    let len_bytes = u32::try_from(bytes.len()).expect("an overlay's parts are far below 4 GiB");
    out.extend_from_slice(&len_bytes.to_le_bytes());
    out.extend_from_slice(bytes);
}

fn put_time(out: &mut Vec<u8>, time: UnixTime) {
    out.extend_from_slice(&time.seconds.to_le_bytes());
    out.extend_from_slice(&time.nanoseconds.to_le_bytes());
}

fn put_publishing(out: &mut Vec<u8>, publishing: &Publishing) {
    out.extend_from_slice(&publishing.generation.to_le_bytes());
    out.extend_from_slice(&publishing.least_bytes.to_le_bytes());
    put_bytes(out, &publishing.version.encode());
}

fn put_state(out: &mut Vec<u8>, state: &State) {
    put_bytes(out, &state.entry.without_extents().encode());
    out.extend_from_slice(&state.least_bytes.to_le_bytes());
    out.push(u8::from(state.closed.is_some()));
    if let Some(mtime) = state.closed {
        put_time(out, mtime);
    }
    out.push(u8::from(state.publishing.is_some()));
    if let Some(publishing) = &state.publishing {
        put_publishing(out, publishing);
    }
    let count = u32::try_from(state.entry.extents.iter().count()).expect("runs fit in memory");
    out.extend_from_slice(&count.to_le_bytes());
    for (start, extent) in state.entry.extents.iter() {
        put_run(out, start, extent);
    }
}

fn put_run(out: &mut Vec<u8>, start: u64, extent: &Extent) {
    out.extend_from_slice(&start.to_le_bytes());
    out.extend_from_slice(&extent.len_bytes.to_le_bytes());
    out.extend_from_slice(&extent.generation.to_le_bytes());
    match &extent.data {
        Data::Memory(held) => {
            out.push(0);
            out.extend_from_slice(held);
        }
        Data::File(staging) => {
            out.push(1);
            out.extend_from_slice(&staging.segment.to_le_bytes());
        }
        Data::Zero => out.push(2),
        Data::Content(content, from) => {
            out.push(3);
            out.extend_from_slice(&from.to_le_bytes());
            put_bytes(out, &encode_content(content));
        }
    }
}

/// What is left of a payload.
struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    fn take(&mut self, len_bytes: usize) -> Option<&'a [u8]> {
        let (taken, left) = self.0.split_at_checked(len_bytes)?;
        self.0 = left;
        Some(taken)
    }

    fn u8(&mut self) -> Option<u8> {
        self.take(1).map(|bytes| bytes[0])
    }

    fn u32(&mut self) -> Option<u32> {
        self.take(4)?.try_into().ok().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.take(8)?.try_into().ok().map(u64::from_le_bytes)
    }

    fn flag(&mut self) -> Option<bool> {
        match self.u8()? {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        }
    }

    fn bytes(&mut self) -> Option<&'a [u8]> {
        let len_bytes = self.u32()?;
        self.take(len_bytes as usize)
    }

    fn time(&mut self) -> Option<UnixTime> {
        let seconds = self.u64()?.cast_signed();
        let nanoseconds = self.u32().filter(|part| *part < 1_000_000_000)?;
        Some(UnixTime { seconds, nanoseconds })
    }

    fn entry(&mut self) -> Option<Entry> {
        Entry::decode(self.bytes()?, |_| false).ok()
    }

    fn publishing(&mut self) -> Option<Publishing> {
        let (generation, least_bytes) = (self.u32()?, self.u64()?);
        Some(Publishing { generation, least_bytes, version: self.entry()? })
    }

    fn run(&mut self, file: &mut impl FnMut(u64) -> Arc<Staging>) -> Option<(u64, Extent)> {
        let (start, len_bytes, generation) = (self.u64()?, self.u64()?, self.u32()?);
        start.checked_add(len_bytes).filter(|end| *end <= FILE_MAX_BYTES)?;
        let data = match self.u8()? {
            0 => Data::Memory(Arc::new(self.take(usize::try_from(len_bytes).ok()?)?.to_vec())),
            1 => Data::File(file(self.u64()?)),
            2 => Data::Zero,
            3 => {
                let from = self.u64()?;
                Data::Content(Arc::new(decode_content(self.bytes()?).ok()?), from)
            }
            _ => return None,
        };
        Some((start, Extent { len_bytes, generation, data }))
    }
}
