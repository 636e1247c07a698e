//! When things changed, as programs are shown it: on the mount, after a restart, on other devices.
#![expect(clippy::unwrap_used, reason = "a test fails where it unwraps")]

use kith_tests::circle::{Circle, PATIENCE};
use kith_tests::folder::Folder;
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, XattrFlags};
use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::Path;

/// Something that programs do to a file that was there before.
struct Deed {
    what: &'static str,
    done: fn(&Path),
}

const DEEDS: &[Deed] = &[
    Deed { what: "nothing", done: |_| {} },
    Deed { what: "written anew", done: |at| fs::write(at, "anew").unwrap() },
    Deed {
        what: "written within",
        done: |at| {
            let file = OpenOptions::new().write(true).open(at).unwrap();
            file.write_all_at(b"W", 1).unwrap();
        },
    },
    Deed {
        what: "written and synced",
        done: |at| {
            let mut file = OpenOptions::new().append(true).open(at).unwrap();
            file.write_all(b"more").unwrap();
            file.sync_all().unwrap();
        },
    },
    Deed {
        what: "written and renamed",
        done: |at| {
            let other = at.with_extension("other");
            fs::write(&other, "other").unwrap();
            fs::rename(&other, at).unwrap();
        },
    },
    Deed {
        what: "renamed while open",
        done: |at| {
            let other = at.with_extension("other");
            let file = File::open(at).unwrap();
            fs::rename(at, &other).unwrap();
            fs::rename(&other, at).unwrap();
            drop(file);
        },
    },
    Deed {
        what: "cut",
        done: |at| OpenOptions::new().write(true).open(at).unwrap().set_len(2).unwrap(),
    },
    Deed {
        what: "given another mode",
        done: |at| fs::set_permissions(at, fs::Permissions::from_mode(0o640)).unwrap(),
    },
    Deed {
        what: "given another mode while written",
        done: |at| {
            let file = OpenOptions::new().write(true).open(at).unwrap();
            file.write_all_at(b"W", 1).unwrap();
            file.set_permissions(fs::Permissions::from_mode(0o640)).unwrap();
        },
    },
    Deed {
        what: "given another owner",
        done: |at| std::os::unix::fs::chown(at, Some(1234), Some(1234)).unwrap(),
    },
    Deed { what: "given a time", done: |at| date(at) },
    Deed {
        what: "given an attribute",
        done: |at| rustix::fs::setxattr(at, "user.note", b"x", XattrFlags::empty()).unwrap(),
    },
    Deed {
        what: "linked",
        done: |at| {
            let other = at.with_extension("other");
            fs::hard_link(at, other).unwrap();
        },
    },
    Deed {
        what: "linked and unlinked",
        done: |at| {
            let other = at.with_extension("other");
            fs::hard_link(at, &other).unwrap();
            fs::remove_file(&other).unwrap();
        },
    },
];

/// When a person last worked on something: in 2002.
const DATED: i64 = 1_012_608_000;

fn date(at: &Path) {
    let time = Timespec { tv_sec: DATED, tv_nsec: 7 };
    let times = Timestamps { last_access: time, last_modification: time };
    rustix::fs::utimensat(CWD, at, &times, AtFlags::empty()).unwrap();
}

/// When anything about each of the files last changed, and when its bytes did.
fn changes(folder: &Folder) -> Vec<(&'static str, [i64; 4])> {
    let of = |deed: &Deed| {
        let stat = fs::metadata(folder.path(deed.what)).unwrap();
        (deed.what, [stat.ctime(), stat.ctime_nsec(), stat.mtime(), stat.mtime_nsec()])
    };
    DEEDS.iter().map(of).collect()
}

#[test]
fn when_something_changed_is_the_same_once_the_kernel_has_forgotten_it() {
    let Some(mut folder) = Folder::or_skip() else { return };
    for deed in DEEDS {
        fs::write(folder.path(deed.what), "bytes").unwrap();
    }
    folder.device.synced(PATIENCE);
    for deed in DEEDS {
        (deed.done)(&folder.path(deed.what));
    }
    let shown = changes(&folder);
    folder.device.synced(PATIENCE);
    assert_eq!(changes(&folder), shown, "once it is published");
    assert_eq!(folder.device.terminate(PATIENCE).code(), Some(0));
    folder.device.run();
    assert_eq!(changes(&folder), shown, "after a restart");
}

/// Something that a person does to a directory, and whether it then has the time that was set.
struct Dating {
    what: &'static str,
    done: fn(&Path),
    dated: bool,
}

const DATINGS: &[Dating] = &[
    Dating { what: "dated", done: date, dated: true },
    Dating {
        what: "filled, dated",
        done: |at| {
            fs::write(at.join("small"), "small").unwrap();
            // It takes longer to be published than the directory to be dated.
            fs::write(at.join("large"), vec![b'l'; 6 << 20]).unwrap();
            fs::create_dir(at.join("directory")).unwrap();
            date(at);
        },
        dated: true,
    },
    Dating {
        what: "filled, emptied, dated",
        done: |at| {
            fs::write(at.join("file"), "file").unwrap();
            fs::create_dir(at.join("directory")).unwrap();
            fs::remove_file(at.join("file")).unwrap();
            fs::remove_dir(at.join("directory")).unwrap();
            date(at);
        },
        dated: true,
    },
    Dating {
        what: "dated, filled",
        done: |at| {
            date(at);
            fs::write(at.join("file"), "file").unwrap();
        },
        dated: false,
    },
    Dating {
        what: "dated, filled, given another mode",
        done: |at| {
            date(at);
            fs::create_dir(at.join("directory")).unwrap();
            fs::set_permissions(at, fs::Permissions::from_mode(0o700)).unwrap();
        },
        dated: false,
    },
    Dating {
        what: "dated, filled, given an attribute",
        done: |at| {
            date(at);
            fs::create_dir(at.join("directory")).unwrap();
            rustix::fs::setxattr(at, "user.note", b"x", XattrFlags::empty()).unwrap();
        },
        dated: false,
    },
    Dating {
        what: "dated, filled, dated",
        done: |at| {
            date(at);
            fs::write(at.join("file"), "file").unwrap();
            date(at);
        },
        dated: true,
    },
];

#[test]
fn a_directory_shows_everywhere_what_came_last_a_time_that_was_set_or_a_change_in_it() {
    const TIMES: usize = 10;
    let Some(circle) = Circle::or_skip(&["laptop", "desktop"]) else { return };
    let name = |dating: &Dating, time: usize| format!("{} ({time})", dating.what);
    for time in 0..TIMES {
        for dating in DATINGS {
            let at = circle[0].path(name(dating, time));
            fs::create_dir(&at).unwrap();
            (dating.done)(&at);
        }
    }
    circle.settle();
    for device in &circle.devices {
        for time in 0..TIMES {
            for dating in DATINGS {
                let name = name(dating, time);
                let stat = fs::metadata(device.path(&name)).unwrap();
                let dated = (stat.mtime(), stat.mtime_nsec()) == (DATED, 7);
                assert_eq!(dated, dating.dated, "{name} on {}: {}", device.name(), stat.mtime());
            }
        }
    }
}
