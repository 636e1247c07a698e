//! Identities: of devices, shares, writers, changes and chunks.

use core::fmt;

/// One incarnation of a device's index. Drawn at random; a device whose index was lost, rolled
/// back or cloned goes on under a new one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WriterId(pub u64);

/// The name of one change: who made it, and its number among that writer's changes.
///
/// Numbers begin at 1 and only grow. A dot names at most one change, and also serves as the id of
/// the inode or the entry that the change created.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Dot {
    /// Who made the change.
    pub writer: WriterId,
    /// Its number among the writer's changes, from 1.
    pub number: u64,
}

/// A file, a directory or another object itself, apart from its names.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InodeId(pub Dot);

/// One name of an inode in a directory.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EntryId(pub Dot);

/// One replicated tree.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShareId(pub [u8; 16]);

/// A device: the BLAKE3 hash of its public key (the DER of its SubjectPublicKeyInfo).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeviceId(pub [u8; 32]);

/// A piece of bytes, named by its BLAKE3 hash.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChunkId(pub [u8; 32]);

/// Random bits given to each transaction, which tell it from another of the same number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Tag(pub u64);

/// A place in one device's log of transactions.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Cursor {
    /// The incarnation whose log this is.
    pub writer: WriterId,
    /// The last transaction that the cursor has passed.
    pub number: u64,
    /// That transaction's tag.
    pub tag: Tag,
}

/// How far a device has come in another's log: it has had everything up to a number, as that log was
/// when it ended at `head`. A register that changes moves to the log's end, so what lies up to the
/// number is no more the same where `head` is not in the log's history.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Reached {
    /// The last number that it has passed, at most that of `head`.
    pub number: u64,
    /// Where the log ended.
    pub head: Cursor,
}

impl Reached {
    /// All of a log that ended there.
    #[must_use]
    pub fn all(head: Cursor) -> Reached {
        Reached { number: head.number, head }
    }
}

impl InodeId {
    /// The root directory of every share. No writer ever draws the number 0.
    pub const ROOT: InodeId = InodeId(Dot { writer: WriterId(0), number: 0 });
}

impl ChunkId {
    /// The name of `bytes`.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        ChunkId(*blake3::hash(bytes).as_bytes())
    }
}

fn hex(f: &mut fmt::Formatter<'_>, bytes: &[u8]) -> fmt::Result {
    bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
}

/// Reads exactly `N` bytes of lowercase or uppercase hexadecimal.
fn unhex<const N: usize>(text: &str) -> Option<[u8; N]> {
    if text.len() != 2 * N || !text.is_ascii() {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks(2)) {
        *byte = u8::from_str_radix(core::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(bytes)
}

macro_rules! hexadecimal {
    ($($name:ident: $len:literal),*) => {$(
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                hex(f, &self.0)
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                hex(f, &self.0[..4])
            }
        }
        impl core::str::FromStr for $name {
            type Err = ParseIdError;
            fn from_str(text: &str) -> Result<Self, ParseIdError> {
                unhex::<$len>(text).map($name).ok_or(ParseIdError)
            }
        }
    )*};
}
hexadecimal!(ShareId: 16, DeviceId: 32, ChunkId: 32);

/// A text that is not an id in hexadecimal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an id in hexadecimal")]
pub struct ParseIdError;

impl fmt::Debug for WriterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}", self.0)
    }
}
impl fmt::Debug for Dot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}:{}", self.writer, self.number)
    }
}
impl fmt::Debug for InodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "i{:?}", self.0)
    }
}
impl fmt::Debug for EntryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "e{:?}", self.0)
    }
}
