//! Real trees and everyday changes, from either side to the other.
#![expect(clippy::unwrap_used, reason = "a test fails where it unwraps")]

use kith_tests::circle::{Circle, PATIENCE};
use kith_tests::tree::Tree;
use kith_tests::{grove, pulse};
use rustix::fs::{AtFlags, CWD, FileType, Mode, RenameFlags, Timespec, Timestamps};
use std::fs;
use std::io::{Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

fn copy(from: &Path, to: &Path) {
    let copied = Command::new("cp").arg("-a").arg(from).arg(to).output().unwrap();
    assert!(copied.status.success(), "{}", String::from_utf8_lossy(&copied.stderr));
}

/// What `diff -r` says about two trees.
fn diff(one: &Path, other: &Path) -> String {
    let mut diff = Command::new("diff");
    let said = diff.args(["-r", "--no-dereference"]).arg(one).arg(other).output().unwrap();
    format!("{}{}", String::from_utf8_lossy(&said.stdout), String::from_utf8_lossy(&said.stderr))
}

/// The time of modification of everything in a tree, to the nanosecond.
fn times(root: &Path) -> Vec<(PathBuf, i64, i64)> {
    let tree = Tree::read(root).unwrap();
    let paths = tree.nodes.into_keys().map(|path| {
        let metadata = fs::symlink_metadata(root.join(&path)).unwrap();
        (path, metadata.mtime(), metadata.mtime_nsec())
    });
    paths.collect()
}

#[test]
fn a_real_tree_goes_both_ways() {
    let Some(circle) = Circle::or_skip(&["laptop", "desktop"]) else { return };
    let (sources, photos) =
        (circle.scratch.path().join("src"), circle.scratch.path().join("photos"));
    for (directory, seed, files) in [(&sources, 1, 5_200), (&photos, 2, 5_000)] {
        fs::create_dir(directory).unwrap();
        grove::plant(directory, seed, files).unwrap();
    }
    copy(&sources, circle[0].mount());
    copy(&photos, circle[1].mount());
    let tree = circle.settle();
    assert!(tree.nodes.len() > 10_200, "{} nodes", tree.nodes.len());
    for device in &circle.devices {
        for (original, name) in [(&sources, "src"), (&photos, "photos")] {
            assert_eq!(diff(original, &device.path(name)), "", "{name} on {}", device.name());
            let (original, shown) = (Tree::read(original), Tree::read(&device.path(name)));
            let differences = original.unwrap().differences(&shown.unwrap(), 10);
            assert!(differences.is_empty(), "{name} on {}: {differences:#?}", device.name());
        }
        for (original, name) in [(&sources, "src"), (&photos, "photos")] {
            let (original, shown) = (times(original), times(&device.path(name)));
            let differ = original.iter().zip(&shown).filter(|(original, shown)| original != shown);
            let differ: Vec<_> = differ.take(10).collect();
            assert_eq!(original.len(), shown.len(), "{name} on {}", device.name());
            assert!(differ.is_empty(), "times on {}: {differ:#?}", device.name());
        }
        let status = device.status().unwrap();
        assert_eq!(status["shares"][0]["entries"], tree.nodes.len(), "{status}");
        assert_eq!(status["shares"][0]["conflicts"], 0, "{status}");
    }
}

/// A change that a person makes, and how the other side is to look afterwards.
struct Change {
    what: &'static str,
    make: fn(&Path),
    seen: fn(&Path) -> bool,
}

fn holds(path: PathBuf, bytes: &[u8]) -> bool {
    fs::read(path).is_ok_and(|held| held == bytes)
}

fn absent(path: PathBuf) -> bool {
    fs::symlink_metadata(path).is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound)
}

fn append(path: PathBuf, bytes: &[u8]) {
    fs::OpenOptions::new().append(true).open(path).unwrap().write_all(bytes).unwrap();
}

fn plant(at: &Path) {
    for directory in ["docs/old", "trash/deep/deeper", "empty"] {
        fs::create_dir_all(at.join(directory)).unwrap();
    }
    for number in 0..40 {
        fs::write(at.join(format!("docs/old/page {number}.md")), format!("page {number}")).unwrap();
    }
    for file in ["edit.txt", "save.txt", "cut.txt", "link.txt", "gone.txt", "mode.sh", "move.txt"] {
        fs::write(at.join(file), format!("this is {file}")).unwrap();
    }
    for file in ["left", "right", "trash/deep/file", "trash/deep/deeper/file"] {
        fs::write(at.join(file), file).unwrap();
    }
}

const CHANGES: &[Change] = &[
    Change {
        what: "an edit in place",
        make: |at| append(at.join("edit.txt"), b", edited"),
        seen: |at| holds(at.join("edit.txt"), b"this is edit.txt, edited"),
    },
    Change {
        what: "a second edit, by an editor that saves beside and renames",
        make: |at| {
            fs::write(at.join(".save.txt.swp"), "saved").unwrap();
            fs::rename(at.join(".save.txt.swp"), at.join("save.txt")).unwrap();
        },
        seen: |at| holds(at.join("save.txt"), b"saved") && absent(at.join(".save.txt.swp")),
    },
    Change {
        what: "a truncation",
        make: |at| {
            fs::OpenOptions::new()
                .write(true)
                .open(at.join("cut.txt"))
                .unwrap()
                .set_len(4)
                .unwrap();
        },
        seen: |at| holds(at.join("cut.txt"), b"this"),
    },
    Change {
        what: "a directory's new name",
        make: |at| fs::rename(at.join("docs"), at.join("papers")).unwrap(),
        seen: |at| holds(at.join("papers/old/page 7.md"), b"page 7") && absent(at.join("docs")),
    },
    Change {
        what: "a directory's new place",
        make: |at| fs::rename(at.join("papers/old"), at.join("empty/older")).unwrap(),
        seen: |at| {
            holds(at.join("empty/older/page 9.md"), b"page 9") && absent(at.join("papers/old"))
        },
    },
    Change {
        what: "a file's new place",
        make: |at| fs::rename(at.join("move.txt"), at.join("empty/moved.txt")).unwrap(),
        seen: |at| {
            holds(at.join("empty/moved.txt"), b"this is move.txt") && absent(at.join("move.txt"))
        },
    },
    Change {
        what: "a hard link",
        make: |at| fs::hard_link(at.join("link.txt"), at.join("empty/same.txt")).unwrap(),
        seen: |at| {
            let inode = |name: &str| fs::metadata(at.join(name)).map(|m| (m.ino(), m.nlink())).ok();
            inode("link.txt").is_some_and(|(_, links)| links == 2)
                && inode("link.txt") == inode("empty/same.txt")
        },
    },
    Change {
        what: "an edit through the other hard link",
        make: |at| append(at.join("empty/same.txt"), b" and that"),
        seen: |at| holds(at.join("link.txt"), b"this is link.txt and that"),
    },
    Change {
        what: "a symbolic link",
        make: |at| symlink("empty/nowhere", at.join("pointer")).unwrap(),
        seen: |at| {
            fs::read_link(at.join("pointer")).is_ok_and(|to| to == Path::new("empty/nowhere"))
        },
    },
    Change {
        what: "a removal",
        make: |at| fs::remove_file(at.join("gone.txt")).unwrap(),
        seen: |at| absent(at.join("gone.txt")),
    },
    Change {
        what: "a removal of a whole tree",
        make: |at| fs::remove_dir_all(at.join("trash")).unwrap(),
        seen: |at| absent(at.join("trash")),
    },
    Change {
        what: "a mode",
        make: |at| {
            fs::set_permissions(at.join("mode.sh"), fs::Permissions::from_mode(0o750)).unwrap();
        },
        seen: |at| fs::metadata(at.join("mode.sh")).is_ok_and(|m| m.mode() & 0o7777 == 0o750),
    },
    Change {
        what: "a time",
        make: |at| {
            let time = Timespec { tv_sec: 1_000_000_000, tv_nsec: 123_456_789 };
            let times = Timestamps { last_access: time, last_modification: time };
            rustix::fs::utimensat(CWD, at.join("mode.sh"), &times, AtFlags::empty()).unwrap();
        },
        seen: |at| {
            let metadata = fs::metadata(at.join("mode.sh"));
            metadata.is_ok_and(|m| (m.mtime(), m.mtime_nsec()) == (1_000_000_000, 123_456_789))
        },
    },
    Change {
        what: "an extended attribute",
        make: |at| xattr::set(at.join("mode.sh"), "user.colour", b"blue").unwrap(),
        seen: |at| matches!(xattr::get(at.join("mode.sh"), "user.colour"), Ok(Some(v)) if v == b"blue"),
    },
    Change {
        what: "two names exchanged",
        make: |at| {
            let (left, right) = (at.join("left"), at.join("right"));
            rustix::fs::renameat_with(CWD, left, CWD, right, RenameFlags::EXCHANGE).unwrap();
        },
        seen: |at| holds(at.join("left"), b"right") && holds(at.join("right"), b"left"),
    },
    Change {
        what: "a sparse file",
        make: |at| {
            let mut file = fs::File::create(at.join("sparse")).unwrap();
            file.seek(SeekFrom::Start(64 << 20)).unwrap();
            file.write_all(b"the end").unwrap();
        },
        seen: |at| {
            let metadata = fs::metadata(at.join("sparse"));
            metadata.is_ok_and(|m| m.len() == (64 << 20) + 7 && m.blocks() * 512 < 1 << 20)
        },
    },
    Change {
        what: "a fifo",
        make: |at| {
            let mode = Mode::from_raw_mode(0o640);
            rustix::fs::mknodat(CWD, at.join("fifo"), FileType::Fifo, mode, 0).unwrap();
        },
        seen: |at| {
            use std::os::unix::fs::FileTypeExt as _;
            fs::symlink_metadata(at.join("fifo")).is_ok_and(|m| m.file_type().is_fifo())
        },
    },
    Change {
        what: "a file where a tree was",
        make: |at| fs::write(at.join("trash"), "tidy").unwrap(),
        seen: |at| holds(at.join("trash"), b"tidy"),
    },
];

#[test]
fn everyday_changes_arrive_on_the_other_side() {
    let Some(circle) = Circle::or_skip(&["laptop", "desktop"]) else { return };
    // Once from each side, in a directory of its own.
    for (maker, seer, name) in [(0, 1, "from laptop"), (1, 0, "from desktop")] {
        let (made, seen) = (circle[maker].path(name), circle[seer].path(name));
        plant(&made);
        circle.settle();
        for change in CHANGES {
            (change.make)(&made);
            pulse::until(PATIENCE, &format!("{} arrives {name}", change.what), || {
                if (change.seen)(&seen) { Ok(()) } else { Err("not yet".into()) }
            });
            assert!((change.seen)(&made), "{} does not last where it was made", change.what);
        }
        circle.settle();
    }
}

#[test]
fn both_sides_work_at_once() {
    let Some(circle) = Circle::or_skip(&["laptop", "desktop"]) else { return };
    fs::create_dir(circle[0].path("shared")).unwrap();
    circle.settle();
    std::thread::scope(|scope| {
        for device in &circle.devices {
            scope.spawn(move || {
                let own = device.path(format!("shared/{}", device.name()));
                fs::create_dir(&own).unwrap();
                for number in 0..300 {
                    let path = own.join(format!("{number}.txt"));
                    fs::write(&path, format!("{number} of {}", device.name())).unwrap();
                    match number % 3 {
                        0 => fs::rename(&path, own.join(format!("{number}.md"))).unwrap(),
                        1 => fs::remove_file(&path).unwrap(),
                        _ => append(path, b", twice"),
                    }
                }
            });
        }
    });
    let tree = circle.settle();
    assert_eq!(tree.files(), 400);
    assert!(holds(circle[0].path("shared/desktop/299.txt"), b"299 of desktop, twice"));
    let status = circle[0].status().unwrap();
    assert_eq!(status["shares"][0]["conflicts"], 0, "{status}");
}
