//! What the folder refuses, and with which error: the second table of `docs/filesystem.md`.
#![expect(clippy::unwrap_used, reason = "a test fails where it unwraps")]

use kith_tests::access_list::{NOBODY, encoded};
use kith_tests::folder::Folder;
use rustix::fs::{
    CWD, FallocateFlags, FileType, IFlags, Mode, OFlags, RenameFlags, SeekFrom, StatVfsMountFlags,
    XattrFlags,
};
use rustix::io::Errno;
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

/// What a program asks for, and which error it may get; a kernel may know better than another.
struct Refused {
    what: &'static str,
    ask: fn(&Path) -> Result<(), Errno>,
    with: &'static [Errno],
}

/// A file that is there with some bytes in it.
fn file(at: &Path) -> File {
    OpenOptions::new().read(true).write(true).open(at.join("file")).unwrap()
}

fn allocate(at: &Path, mode: FallocateFlags) -> Result<(), Errno> {
    rustix::fs::fallocate(file(at), mode, 0, 4096)
}

fn set(at: &Path, name: &str, value: &[u8]) -> Result<(), Errno> {
    rustix::fs::setxattr(at, name, value, XattrFlags::empty())
}

fn make(at: &Path, name: &str) -> Result<(), Errno> {
    rustix::fs::mkdir(at.join(name), Mode::RWXU)
}

const REFUSED: &[Refused] = &[
    Refused {
        what: "a file without a name (O_TMPFILE)",
        ask: |at| rustix::fs::open(at, OFlags::TMPFILE | OFlags::RDWR, Mode::RWXU).map(drop),
        with: &[Errno::OPNOTSUPP],
    },
    Refused {
        what: "collapsing a range",
        ask: |at| allocate(at, FallocateFlags::COLLAPSE_RANGE),
        with: &[Errno::OPNOTSUPP],
    },
    Refused {
        what: "inserting a range",
        ask: |at| allocate(at, FallocateFlags::INSERT_RANGE),
        with: &[Errno::OPNOTSUPP],
    },
    Refused {
        what: "unsharing a range",
        ask: |at| allocate(at, FallocateFlags::UNSHARE_RANGE),
        with: &[Errno::OPNOTSUPP],
    },
    Refused {
        what: "punching a hole that changes the size",
        ask: |at| allocate(at, FallocateFlags::PUNCH_HOLE),
        with: &[Errno::OPNOTSUPP],
    },
    Refused {
        what: "a rename that leaves a whiteout",
        ask: |at| {
            let (from, to) = (at.join("file"), at.join("new"));
            rustix::fs::renameat_with(CWD, from, CWD, to, RenameFlags::WHITEOUT)
        },
        with: &[Errno::INVAL],
    },
    Refused {
        what: "a clone of a file (FICLONE)",
        ask: |at| rustix::fs::ioctl_ficlone(File::create(at.join("clone")).unwrap(), file(at)),
        with: &[Errno::OPNOTSUPP, Errno::NOTTY],
    },
    Refused {
        what: "the flags of a file (lsattr)",
        ask: |at| rustix::fs::ioctl_getflags(file(at)).map(drop),
        with: &[Errno::NOTTY],
    },
    Refused {
        what: "to set the flags of a file (chattr)",
        ask: |at| rustix::fs::ioctl_setflags(file(at), IFlags::IMMUTABLE),
        with: &[Errno::NOTTY],
    },
    Refused {
        what: "an attribute of security modules",
        ask: |at| set(&at.join("file"), "security.x", b"x"),
        with: &[Errno::OPNOTSUPP],
    },
    Refused {
        what: "an attribute for the trusted",
        ask: |at| set(&at.join("file"), "trusted.x", b"x"),
        with: &[Errno::OPNOTSUPP],
    },
    Refused {
        what: "an attribute of the system's that is no list",
        ask: |at| set(&at.join("file"), "system.x", b"x"),
        with: &[Errno::OPNOTSUPP],
    },
    Refused {
        what: "an attribute that is larger than the kernel takes",
        ask: |at| set(&at.join("file"), "user.x", &vec![0; 65_537]),
        with: &[Errno::TOOBIG],
    },
    Refused {
        what: "more attributes than a file may have",
        ask: |at| {
            let three = ["user.a", "user.b", "user.c"];
            three.iter().try_for_each(|name| set(&at.join("file"), name, &vec![0; 60_000]))
        },
        with: &[Errno::NOSPC],
    },
    Refused {
        what: "a default list on a file",
        ask: |at| {
            let list = encoded(&[(1, 6, NOBODY), (4, 4, NOBODY), (32, 4, NOBODY)]);
            set(&at.join("file"), "system.posix_acl_default", &list)
        },
        with: &[Errno::ACCESS],
    },
    Refused {
        what: "a list that is none",
        ask: |at| set(&at.join("file"), "system.posix_acl_access", b"nonsense"),
        with: &[Errno::INVAL, Errno::OPNOTSUPP],
    },
    Refused {
        what: "opening a device node",
        ask: |at| {
            let zero = rustix::fs::makedev(1, 5);
            let kind = FileType::CharacterDevice;
            rustix::fs::mknodat(CWD, at.join("zero"), kind, Mode::RWXU, zero)?;
            rustix::fs::open(at.join("zero"), OFlags::RDONLY, Mode::empty()).map(drop)
        },
        with: &[Errno::ACCESS],
    },
    Refused {
        what: "a name of 256 bytes",
        ask: |at| make(at, &"x".repeat(256)),
        with: &[Errno::NAMETOOLONG],
    },
    Refused {
        what: "bytes beyond the largest offset",
        ask: |at| rustix::io::pwrite(file(at), b"xx", i64::MAX as u64).map(drop),
        with: &[Errno::FBIG, Errno::INVAL],
    },
    Refused {
        what: "a size beyond what a file can have",
        ask: |at| rustix::fs::ftruncate(file(at), i64::MAX as u64 + 1),
        with: &[Errno::INVAL],
    },
    Refused {
        what: "data behind the end",
        ask: |at| rustix::fs::seek(file(at), SeekFrom::Data(100)).map(drop),
        with: &[Errno::NXIO],
    },
    Refused {
        what: "a hard link to a directory",
        ask: |at| rustix::fs::link(at.join("directory"), at.join("other")),
        with: &[Errno::PERM],
    },
    Refused {
        what: "a directory in itself",
        ask: |at| rustix::fs::rename(at.join("directory"), at.join("directory/inner")),
        with: &[Errno::INVAL],
    },
    Refused {
        what: "removing a directory that isn't empty",
        ask: |at| {
            make(at, "directory/inner")?;
            rustix::fs::rmdir(at.join("directory"))
        },
        with: &[Errno::NOTEMPTY],
    },
    Refused {
        what: "a link to another filesystem",
        ask: |at| rustix::fs::link(at.join("file"), at.join("../outside")),
        with: &[Errno::XDEV],
    },
    Refused {
        what: "a rename to another filesystem",
        ask: |at| rustix::fs::rename(at.join("file"), at.join("../outside")),
        with: &[Errno::XDEV],
    },
];

#[test]
fn what_is_not_supported_says_so_with_the_right_error() {
    let Some(folder) = Folder::or_skip() else { return };
    fs::create_dir(folder.path("directory")).unwrap();
    for Refused { what, ask, with } in REFUSED {
        fs::write(folder.path("file"), "some bytes").unwrap();
        match ask(folder.mount()) {
            Err(error) if with.contains(&error) => {}
            other => panic!("{what}: {other:?}, not {with:?}"),
        }
        assert_eq!(fs::read(folder.path("file")).unwrap(), b"some bytes", "{what}");
    }
}

#[test]
fn the_mount_says_itself_that_devices_and_set_id_bits_have_no_effect() {
    let Some(folder) = Folder::or_skip() else { return };
    let room = rustix::fs::statvfs(folder.mount()).unwrap();
    let without = StatVfsMountFlags::NOSUID | StatVfsMountFlags::NODEV;
    assert!(room.f_flag.contains(without), "{:?}", room.f_flag);
    // A program of root's with the bit runs as whoever started it.
    let Ok(id) = fs::read("/usr/bin/id") else { return kith_tests::notice::lacks("id") };
    fs::write(folder.path("id"), id).unwrap();
    fs::set_permissions(folder.path("id"), fs::Permissions::from_mode(0o4755)).unwrap();
    let mut command = Command::new(folder.path("id"));
    let output = command.arg("-u").uid(1000).gid(1000).current_dir("/").output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "1000\n");
    // What it says of the disk is what the disk says, less a reserve.
    let disk = rustix::fs::statvfs(folder.scratch.path()).unwrap();
    let (all, of) = (room.f_blocks * room.f_frsize, disk.f_blocks * disk.f_frsize);
    assert!(all <= of && all > of / 2, "{all} of {of} bytes");
    assert!(room.f_bavail * room.f_frsize <= disk.f_bavail * disk.f_frsize + (64 << 20));
    assert!(room.f_bavail > 0 && room.f_ffree > 0);
    assert_eq!(room.f_namemax, 255);
}
