//! What is replicated: the registers of inodes and entries.
//!
//! A register is a set of values, each with the dot of the change that made it and with its
//! stamp. How two states of a register merge is in [`crate::merge`].

use crate::clock::{Hlc, Stamp};
use crate::content::Content;
use crate::id::{Dot, EntryId, InodeId};
use crate::name::EntryName;
use crate::vector::VersionVector;
use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;

/// Seconds and nanoseconds since 1970, UTC; the seconds may be negative.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default, Hash)]
pub struct UnixTime {
    /// Whole seconds, rounded towards the past.
    pub seconds: i64,
    /// The rest, below 1,000,000,000.
    pub nanoseconds: u32,
}

/// Fields that a newer version of Kith added to a value: kept and passed on unread.
///
/// Each is a field's number and its encoded CBOR item.
pub type Unread = BTreeMap<u32, Box<[u8]>>;

/// The name a device had when it made a change; shown in the names of conflict copies.
pub type Author = String;

/// The longest author, in bytes.
pub const AUTHOR_MAX_BYTES: usize = 64;

/// What an inode is. It never changes.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub enum Kind {
    /// A directory.
    Directory,
    /// A regular file, the only kind with versions.
    File,
    /// A symbolic link, with its target: 1 to 4,095 bytes without NUL.
    Symlink(Box<[u8]>),
    /// A named pipe.
    Fifo,
    /// A socket's name.
    Socket,
    /// A character device's node, without effect: its major and minor number.
    CharDevice(u32, u32),
    /// A block device's node, without effect: its major and minor number.
    BlockDevice(u32, u32),
}

/// Who owns an inode.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub enum Owner {
    /// The share's person: shown as whoever mounts it.
    Person,
    /// A number.
    Number(u32),
}

/// Everything about an inode but its kind, names and bytes. One value: the later stamp wins.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Attributes {
    /// Orders it among concurrent values.
    pub stamp: Stamp,
    /// The change that made it.
    pub dot: Dot,
    /// Permissions, set-id and sticky bits: the lower 12 bits.
    pub mode: u16,
    /// The owning user.
    pub user: Owner,
    /// The owning group.
    pub group: Owner,
    /// The time of modification, for what has no versions to carry one, if a person set it.
    pub mtime: Option<UnixTime>,
    /// Extended attributes: names of 1 to 255 bytes, values up to 64 KiB.
    pub xattrs: BTreeMap<Box<[u8]>, Box<[u8]>>,
    /// What a newer version of Kith added.
    pub unread: Unread,
}

/// What made a version of a file be published.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub enum Mark {
    /// The last writable handle was released.
    Closed,
    /// The file was fsynced and stays open.
    Synced,
    /// The file stays open, was never fsynced, and nobody had written to it for a minute.
    Idle,
    /// A device made it of all its parents, with nothing of a person's own in it.
    Merged,
    /// The same of versions of several files at one name, of which this one stayed. Its context
    /// covers only those of this file.
    Gathered,
}

/// One immutable state of a file's bytes.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Version {
    /// Orders it among concurrent versions.
    pub stamp: Stamp,
    /// The change that made it.
    pub dot: Dot,
    /// What it was made from: all earlier versions of this file that it replaces.
    pub context: VersionVector,
    /// The versions it was directly made from.
    pub parents: Vec<Dot>,
    /// The name of the device that made it.
    pub author: Author,
    /// The time of modification.
    pub mtime: UnixTime,
    /// The bytes.
    pub content: Content,
    /// Why it was published.
    pub mark: Mark,
    /// What a newer version of Kith added.
    pub unread: Unread,
}

/// What left a file otherwise than by a version that was made from it and stands: it became a file
/// of its own. Two such states join.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct Parted {
    /// The changes that said so.
    pub dots: VersionVector,
    /// What is covered by that, as far as the contexts of the versions that stand don't.
    pub versions: VersionVector,
}

/// A file, a directory or another object itself, apart from its names.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Inode {
    /// Its id.
    pub id: InodeId,
    /// What it is.
    pub kind: Kind,
    /// Mode, owner and extended attributes.
    pub attributes: Attributes,
    /// The versions that no other covers: none for anything but a published file, one for most
    /// files, several after concurrent changes.
    pub versions: BTreeMap<Dot, Version>,
    /// What left it otherwise.
    pub parted: Parted,
    /// What a newer version of Kith added.
    pub unread: Unread,
}

/// What an entry took its name over from, when it was renamed onto another file.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub struct Replaced {
    /// The inode that had the name first, before those that only replaced one another.
    pub inode: InodeId,
    /// Its latest version then; for what has no versions, its attributes' dot.
    pub dot: Dot,
    /// The inode that had the name just before.
    pub last: InodeId,
    /// Its latest version then, or its attributes' dot.
    pub last_dot: Dot,
}

/// Where an entry is. One value: the later stamp wins.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Place {
    /// Orders it among concurrent places.
    pub stamp: Stamp,
    /// The change that made it.
    pub dot: Dot,
    /// The directory.
    pub parent: InodeId,
    /// The name in it.
    pub name: EntryName,
    /// What had the name before, if this took it over.
    pub replaced: Option<Replaced>,
    /// The place that it had, if it was only taken along from there into what its directory goes on
    /// as: by nobody's act.
    pub carried: Option<Dot>,
    /// The name of the device that put it here.
    pub author: Author,
    /// What a newer version of Kith added.
    pub unread: Unread,
}

impl Place {
    /// The last change that was somebody's act.
    #[must_use]
    pub fn moved_by(&self) -> Dot {
        self.carried.unwrap_or(self.dot)
    }
}

/// That somebody removed an entry, and what they had seen. Two removals join: what either saw
/// was seen.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Removal {
    /// When: the latest of the joined removals.
    pub stamp: Stamp,
    /// The changes that made it.
    pub dots: VersionVector,
    /// The stamp of the place that was removed. A later place lives.
    pub saw_place: Stamp,
    /// The versions of the inode that the remover knew, if it was the last name; none if not. A
    /// version outside lives.
    pub saw_content: VersionVector,
    /// Whether it was the inode's last name, as far as the remover knew.
    pub last_link: bool,
    /// The name of the device that removed it, of the latest of the joined removals.
    pub author: Option<Author>,
    /// What a newer version of Kith added.
    pub unread: Unread,
}

/// One name for an inode in a directory.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    /// Its id.
    pub id: EntryId,
    /// What it names. It never changes.
    pub inode: InodeId,
    /// Where it is.
    pub place: Place,
    /// Whether it was removed, by somebody who had seen what.
    pub removal: Option<Removal>,
    /// What a newer version of Kith added.
    pub unread: Unread,
}

impl Inode {
    /// The version that is the file: of the versions that no other covers, the latest.
    #[must_use]
    pub fn latest(&self) -> Option<&Version> {
        self.versions.values().max_by(|a, b| (a.stamp, a.dot).cmp(&(b.stamp, b.dot)))
    }

    /// Whether it is a file that nobody has published a version of: it is known to its own
    /// device only, and neither it nor its entries leave it.
    #[must_use]
    pub fn is_withheld(&self) -> bool {
        self.kind == Kind::File && self.versions.is_empty()
    }

    /// All versions known here to have been made: those that stand and those that left.
    #[must_use]
    pub fn known_versions(&self) -> VersionVector {
        let mut known = self.covered_versions();
        self.versions.keys().for_each(|dot| known.include(*dot));
        known
    }

    /// All versions that left: what others were made from, and what became a file of its own.
    #[must_use]
    pub fn covered_versions(&self) -> VersionVector {
        let mut covered = self.parted.versions.clone();
        self.versions.values().for_each(|version| covered.join(&version.context));
        covered
    }

    /// When the latest change of any value here was made.
    #[must_use]
    pub fn latest_hlc(&self) -> Hlc {
        let versions = self.versions.values().map(|version| version.stamp.hlc);
        versions.max().unwrap_or_default().max(self.attributes.stamp.hlc)
    }
}

impl Entry {
    /// Whether nobody who removed it had seen its present place.
    #[must_use]
    pub fn outlives_removal(&self) -> bool {
        self.removal.as_ref().is_none_or(|removal| self.place.stamp > removal.saw_place)
    }

    /// When the latest change of any value here was made.
    #[must_use]
    pub fn latest_hlc(&self) -> Hlc {
        let removed = |removal: &Removal| removal.stamp.hlc.max(removal.saw_place.hlc);
        self.removal.as_ref().map_or(Hlc::default(), removed).max(self.place.stamp.hlc)
    }
}
