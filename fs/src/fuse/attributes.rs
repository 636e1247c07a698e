//! A node's attributes, between the volume's words and the kernel's.

use crate::volume::NodeInfo;
use fuser::{FileAttr, FileType, INodeNo};
use kith_core::register::{Kind, Owner, UnixTime};
use std::time::{Duration, SystemTime};

/// How a root of another device is shown: it has no say here.
const NOBODY: u32 = 65_534;

/// Who mounts the share: the share's person is shown as this user and group.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Ownership {
    /// The user's number.
    pub(super) user: u32,
    /// The group's number.
    pub(super) group: u32,
}

fn shown(owner: Owner, person: u32) -> u32 {
    match owner {
        Owner::Person => person,
        Owner::Number(0) => NOBODY,
        Owner::Number(number) => number,
    }
}

fn recorded(number: u32, person: u32) -> Owner {
    if number == person { Owner::Person } else { Owner::Number(number) }
}

impl Ownership {
    /// The owner that a user's number stands for.
    pub(super) fn user(self, number: u32) -> Owner {
        recorded(number, self.user)
    }

    /// The owner that a group's number stands for.
    pub(super) fn group(self, number: u32) -> Owner {
        recorded(number, self.group)
    }

    /// The number that a user is shown as.
    pub(super) fn shown_user(self, user: Owner) -> u32 {
        shown(user, self.user)
    }

    /// The number that a group is shown as.
    pub(super) fn shown_group(self, group: Owner) -> u32 {
        shown(group, self.group)
    }

    /// What `stat` shows of a node.
    pub(super) fn attributes(self, info: &NodeInfo) -> FileAttr {
        let modified = system_time(info.modified);
        FileAttr {
            ino: INodeNo(info.ino.0),
            size: info.size_bytes,
            blocks: info.stored_bytes.div_ceil(512),
            // Reading doesn't set it, as if it were mounted with `noatime`.
            atime: info.accessed.map_or(modified, system_time),
            mtime: modified,
            ctime: system_time(info.changed),
            crtime: modified,
            kind: file_type(&info.kind),
            perm: info.mode & 0o7777,
            nlink: info.links,
            uid: self.shown_user(info.user),
            gid: self.shown_group(info.group),
            rdev: device_number(&info.kind),
            blksize: 4096,
            flags: 0,
        }
    }
}

/// The type that the kernel knows a kind by.
pub(super) fn file_type(kind: &Kind) -> FileType {
    match kind {
        Kind::Directory => FileType::Directory,
        Kind::File => FileType::RegularFile,
        Kind::Symlink(_) => FileType::Symlink,
        Kind::Fifo => FileType::NamedPipe,
        Kind::Socket => FileType::Socket,
        Kind::CharDevice(..) => FileType::CharDevice,
        Kind::BlockDevice(..) => FileType::BlockDevice,
    }
}

/// A device's number as the protocol packs it: 12 bits of major, 20 of minor.
fn device_number(kind: &Kind) -> u32 {
    match *kind {
        Kind::CharDevice(major, minor) | Kind::BlockDevice(major, minor) => {
            (minor & 0xff) | ((major & 0xfff) << 8) | ((minor & 0xf_ff00) << 12)
        }
        _ => 0,
    }
}

/// The kind that `mknod` asks for; `None` for what has no node of its own.
pub(super) fn kind_of_mode(mode: u32, device: u32) -> Option<Kind> {
    let major = (device >> 8) & 0xfff;
    let minor = (device & 0xff) | ((device >> 12) & 0xf_ff00);
    match mode & 0o170_000 {
        0o100_000 | 0 => Some(Kind::File),
        0o010_000 => Some(Kind::Fifo),
        0o140_000 => Some(Kind::Socket),
        0o020_000 => Some(Kind::CharDevice(major, minor)),
        0o060_000 => Some(Kind::BlockDevice(major, minor)),
        _ => None,
    }
}

fn system_time(time: UnixTime) -> SystemTime {
    let whole = Duration::from_secs(time.seconds.unsigned_abs());
    let seconds = if time.seconds < 0 {
        SystemTime::UNIX_EPOCH.checked_sub(whole)
    } else {
        SystemTime::UNIX_EPOCH.checked_add(whole)
    };
    let rest = Duration::from_nanos(u64::from(time.nanoseconds.min(999_999_999)));
    seconds.and_then(|seconds| seconds.checked_add(rest)).unwrap_or(SystemTime::UNIX_EPOCH)
}

/// The time that the kernel sent. fuser 0.18 takes the nanoseconds of a time before 1970 from it
/// where they are to be added, which is undone here.
pub(super) fn unix_time(time: SystemTime) -> UnixTime {
    match time.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(after) => UnixTime {
            seconds: i64::try_from(after.as_secs()).unwrap_or(i64::MAX),
            nanoseconds: after.subsec_nanos(),
        },
        Err(before) => UnixTime {
            seconds: 0i64.saturating_sub_unsigned(before.duration().as_secs()),
            nanoseconds: before.duration().subsec_nanos(),
        },
    }
}

/// What a name that isn't there is answered with: the kernel remembers that it isn't.
pub(super) fn absence() -> FileAttr {
    let never = SystemTime::UNIX_EPOCH;
    FileAttr {
        ino: INodeNo(0),
        size: 0,
        blocks: 0,
        atime: never,
        mtime: never,
        ctime: never,
        crtime: never,
        kind: FileType::RegularFile,
        perm: 0,
        nlink: 0,
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: 0,
        flags: 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_person_is_whoever_mounts_and_a_foreign_root_is_nobody() {
        let of_user = Ownership { user: 1000, group: 100 };
        assert_eq!(of_user.user(1000), Owner::Person);
        assert_eq!(of_user.group(100), Owner::Person);
        assert_eq!(of_user.user(0), Owner::Number(0));
        assert_eq!(shown(Owner::Person, 1000), 1000);
        assert_eq!(shown(Owner::Number(7), 1000), 7);
        assert_eq!(shown(Owner::Number(0), 1000), NOBODY);
        let of_root = Ownership { user: 0, group: 0 };
        assert_eq!(of_root.user(0), Owner::Person);
        assert_eq!(shown(Owner::Person, 0), 0);
        assert_eq!(shown(Owner::Number(0), 0), NOBODY);
    }

    #[test]
    fn a_device_number_comes_back_as_it_went() {
        for (major, minor) in [(0, 0), (8, 1), (0xfff, 0xf_ffff), (259, 65_537)] {
            let kind = Kind::CharDevice(major, minor);
            let packed = device_number(&kind);
            assert_eq!(kind_of_mode(0o020_644, packed), Some(kind));
        }
    }

    #[test]
    fn times_before_1970_keep_their_fraction() {
        for (seconds, nanoseconds) in [(-2, 800_000_000), (-1, 1), (0, 5), (12, 0), (i64::MIN, 0)] {
            let time = UnixTime { seconds, nanoseconds };
            // What fuser makes of the pair that the kernel sends.
            let decoded = if seconds >= 0 {
                SystemTime::UNIX_EPOCH + Duration::new(seconds.unsigned_abs(), nanoseconds)
            } else {
                SystemTime::UNIX_EPOCH - Duration::new(seconds.unsigned_abs(), nanoseconds)
            };
            assert_eq!(unix_time(decoded), time);
            let truly = SystemTime::UNIX_EPOCH.checked_add(Duration::new(1, 0));
            assert!(system_time(time) < truly.unwrap() || seconds > 0);
        }
        assert_eq!(
            system_time(UnixTime { seconds: -2, nanoseconds: 800_000_000 }),
            SystemTime::UNIX_EPOCH - Duration::from_millis(1200)
        );
    }
}
