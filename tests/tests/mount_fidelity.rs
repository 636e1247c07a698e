//! What programs rely on and what trips other filesystems, tried on the mount of a real daemon.
#![expect(clippy::unwrap_used, reason = "a test fails where it unwraps")]

use kith_tests::access_list::{NOBODY, encoded};
use kith_tests::folder::Folder;
use kith_tests::pulse;
use rustix::fs::{
    AtFlags, CWD, FileType, FlockOperation, Mode, OFlags, Timespec, Timestamps, XattrFlags,
};
use rustix::io::Errno;
use rustix::mount::MountFlags;
use rustix::process::{Resource, Rlimit};
use std::fs::{self, File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, PermissionsExt as _};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(30);

/// Holds a node without opening it.
fn hold(path: &Path) -> OwnedFd {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty()).expect("it is there")
}

fn errno<T: std::fmt::Debug>(result: std::io::Result<T>) -> Option<Errno> {
    result.err().as_ref().and_then(Errno::from_io_error)
}

#[test]
fn what_is_held_without_being_open_is_there_after_its_name() {
    let Some(folder) = Folder::or_skip() else { return };
    let path = |name: &str| folder.path(name);
    rustix::fs::mknodat(CWD, path("pipe"), FileType::Fifo, Mode::from_raw_mode(0o640), 0).unwrap();
    let pipe = OpenOptions::new().read(true).write(true).open(path("pipe")).unwrap();
    fs::write(path("file"), "bytes").unwrap();
    fs::create_dir(path("directory")).unwrap();
    std::os::unix::fs::symlink("nowhere", path("link")).unwrap();
    let held = ["file", "directory", "link"].map(|name| hold(&path(name)));
    assert_eq!(fs::metadata(path("directory")).unwrap().nlink(), 2);
    for name in ["pipe", "file", "link"] {
        fs::remove_file(path(name)).unwrap();
    }
    fs::remove_dir(path("directory")).unwrap();
    for (held, kind) in
        held.iter().zip([FileType::RegularFile, FileType::Directory, FileType::Symlink])
    {
        let stat = rustix::fs::fstat(held).unwrap();
        assert_eq!((FileType::from_raw_mode(stat.st_mode), stat.st_nlink), (kind, 0));
    }
    // Times of what is gone are nobody's business, and nobody's error.
    let gone = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&held[0]));
    let time = Timespec { tv_sec: 5, tv_nsec: 6 };
    let times = Timestamps { last_access: time, last_modification: time };
    rustix::fs::utimensat(CWD, gone, &times, AtFlags::empty()).unwrap();
    let root = File::open(folder.mount()).unwrap();
    rustix::fs::syncfs(&root).unwrap();
    let stat = rustix::fs::fstat(&pipe).unwrap();
    assert_eq!((stat.st_mode, stat.st_nlink), (0o010_640, 0));
    let mut through = &pipe;
    through.write_all(b"still").unwrap();
    let mut read = [0; 5];
    through.read_exact(&mut read).unwrap();
    assert_eq!(&read, b"still");
}

#[test]
fn times_are_kept_to_the_ends_of_time_and_reading_changes_none() {
    let Some(folder) = Folder::or_skip() else { return };
    let path = folder.path("file");
    fs::write(&path, "bytes").unwrap();
    let set = |read: i64, written: i64| {
        let time = |tv_sec| Timespec { tv_sec, tv_nsec: 5 };
        let times = Timestamps { last_access: time(read), last_modification: time(written) };
        rustix::fs::utimensat(CWD, &path, &times, AtFlags::empty()).unwrap();
    };
    for seconds in [i64::MIN, -3_000_000_000, -1, 0, 4_294_967_296, 90_000_000_000, i64::MAX] {
        set(seconds, 7);
        set(7, seconds);
        let stat = rustix::fs::stat(&path).unwrap();
        assert_eq!((stat.st_atime, stat.st_mtime), (7, seconds));
    }
    set(1_900_000_000, 1_950_000_000);
    let before = rustix::fs::stat(&path).unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"bytes");
    let after = rustix::fs::stat(&path).unwrap();
    assert_eq!((after.st_atime, after.st_atime_nsec), (1_900_000_000, 5));
    assert_eq!((after.st_ctime, after.st_ctime_nsec), (before.st_ctime, before.st_ctime_nsec));
    // Only what was asked for changes with a mode, also of what has no versions.
    let fifo = folder.path("fifo");
    rustix::fs::mknodat(CWD, &fifo, FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
    let made = rustix::fs::stat(&fifo).unwrap();
    fs::set_permissions(&fifo, fs::Permissions::from_mode(0o644)).unwrap();
    fs::rename(&fifo, folder.path("moved")).unwrap();
    let moved = rustix::fs::stat(folder.path("moved")).unwrap();
    assert_eq!((moved.st_mtime, moved.st_mtime_nsec), (made.st_mtime, made.st_mtime_nsec));
    assert!((moved.st_ctime, moved.st_ctime_nsec) > (made.st_ctime, made.st_ctime_nsec));
}

#[test]
fn directories_count_the_directories_in_them() {
    let Some(folder) = Folder::or_skip() else { return };
    let path = |name: &str| folder.path(name);
    let links = |name: &str| fs::metadata(path(name)).unwrap().nlink();
    fs::create_dir_all(path("a/b")).unwrap();
    fs::create_dir(path("c")).unwrap();
    assert_eq!((links("."), links("a"), links("a/b"), links("c")), (4, 3, 2, 2));
    fs::rename(path("a/b"), path("c/b")).unwrap();
    assert_eq!((links("a"), links("c")), (2, 3));
    fs::remove_dir(path("c/b")).unwrap();
    fs::write(path("c/file"), "").unwrap();
    assert_eq!(links("c"), 2);
}

#[test]
fn a_folder_is_made_read_only_and_writable_again() {
    let Some(folder) = Folder::or_skip() else { return };
    let path = folder.path("file");
    fs::write(&path, "before").unwrap();
    let remount = |flags| {
        // The kernel tells of a closed file only later, and may still call it busy.
        pulse::until(PATIENCE, "it is mounted anew", || {
            let flags = MountFlags::NOSUID | MountFlags::NODEV | flags;
            rustix::mount::mount_remount(folder.mount(), flags, c"")
                .map_err(|errno| errno.to_string())
        });
    };
    remount(MountFlags::RDONLY);
    assert_eq!(errno(fs::write(&path, "after")), Some(Errno::ROFS));
    assert_eq!(errno(fs::remove_file(&path)), Some(Errno::ROFS));
    assert_eq!(fs::read(&path).unwrap(), b"before");
    remount(MountFlags::empty());
    fs::write(&path, "after").unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"after");
}

#[test]
fn many_files_are_open_at_once_though_the_daemon_may_open_few() {
    let Some(folder) = Folder::or_skip() else { return };
    let count = std::env::var("KITH_OPEN_FILES").map_or(2_000, |count| count.parse().unwrap());
    // Where one process may have no more than that many, some are another's.
    let here = count - count / 10;
    let own = Rlimit { current: Some(here + 500), maximum: Some((here + 500).max(4_096)) };
    if rustix::process::setrlimit(Resource::Nofile, own).is_err() {
        return kith_tests::notice::skip("this process may not open so many files");
    }
    let few = Rlimit { current: Some(256), maximum: Some(256) };
    rustix::process::prlimit(Some(folder.device.process()), Resource::Nofile, few).unwrap();
    let directory = folder.path("many");
    fs::create_dir(&directory).unwrap();
    let mut files = Vec::new();
    for number in 0..here {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create_new(true);
        let file = options.open(directory.join(number.to_string())).unwrap();
        file.write_all_at(&number.to_le_bytes(), number * 3).unwrap();
        // Some are too large to be kept in memory.
        if number % 8 == 0 {
            file.write_all_at(&[7; 400_000], 1 << 20).unwrap();
        }
        files.push(file);
    }
    let program = "import sys\n\
        files = [open(f'{sys.argv[1]}/{n}', 'x+b') for n in range(*map(int, sys.argv[2:]))]\n\
        for n, f in enumerate(files, int(sys.argv[2])): f.write(n.to_bytes(8, 'little')); f.flush()\n\
        print('open', flush=True)\n\
        sys.stdin.read()\n";
    let mut other = Command::new("python3");
    other.args(["-c", program]).arg(&directory).args([here, count].map(|n| n.to_string()));
    let mut other = other.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    other.stdout.as_mut().unwrap().read_exact(&mut [0; 5]).unwrap();
    rustix::fs::syncfs(&files[0]).unwrap();
    for (number, file) in files.iter().enumerate() {
        if number % 16 == 0 {
            fs::remove_file(directory.join(number.to_string())).unwrap();
        }
        let mut bytes = [0; 8];
        file.read_exact_at(&mut bytes, number as u64 * 3).unwrap();
        assert_eq!(u64::from_le_bytes(bytes), number as u64);
    }
    for number in here..count {
        assert_eq!(fs::read(directory.join(number.to_string())).unwrap(), number.to_le_bytes());
    }
    let inodes: std::collections::BTreeSet<u64> =
        files.iter().map(|file| file.metadata().unwrap().ino()).collect();
    assert_eq!(inodes.len(), files.len());
    drop(files);
    drop(other.stdin.take());
    assert!(other.wait().unwrap().success());
    assert_eq!(fs::read_dir(&directory).unwrap().count() as u64, count - here.div_ceil(16));
}

#[test]
fn three_hundred_attributes_stand_on_one_file() {
    let Some(folder) = Folder::or_skip() else { return };
    let path = folder.path("file");
    fs::write(&path, "").unwrap();
    for number in 0..300 {
        let (name, value) = (format!("user.attribute-{number:03}"), format!("{number}").repeat(20));
        rustix::fs::lsetxattr(&path, &name, value.as_bytes(), XattrFlags::CREATE).unwrap();
    }
    assert_eq!(xattr::list(&path).unwrap().count(), 300);
    for number in (0..300).step_by(3) {
        xattr::remove(&path, format!("user.attribute-{number:03}")).unwrap();
    }
    assert_eq!(xattr::list(&path).unwrap().count(), 200);
    let value = xattr::get(&path, "user.attribute-299").unwrap().unwrap();
    assert_eq!(value, "299".repeat(20).as_bytes());
    let large = vec![1; 60_000];
    xattr::set(&path, "user.large", &large).unwrap();
    let all =
        xattr::set(&path, "user.larger", &large).and_then(|()| xattr::set(&path, "user.z", &large));
    assert_eq!(errno(all), Some(Errno::NOSPC));
}

#[test]
fn locks_hold_between_processes() {
    let Some(folder) = Folder::or_skip() else { return };
    let path = folder.path("locked");
    let file = OpenOptions::new().read(true).write(true).create_new(true).open(&path).unwrap();
    let program = "import fcntl, sys\n\
        f = open(sys.argv[2], 'r+b')\n\
        lock = fcntl.flock if sys.argv[1] == 'flock' else fcntl.lockf\n\
        try: lock(f, fcntl.LOCK_EX | fcntl.LOCK_NB); print('free')\n\
        except BlockingIOError: print('taken')\n";
    let other = |kind: &str| {
        let mut command = Command::new("python3");
        let output = command.args(["-c", program, kind]).arg(&path).output().ok()?;
        Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    if other("flock").is_none() {
        return kith_tests::notice::lacks("python3");
    }
    let said = |text: &str| Some(text.to_owned());
    rustix::fs::flock(&file, FlockOperation::LockShared).unwrap();
    assert_eq!((other("flock"), other("fcntl")), (said("taken"), said("free")));
    rustix::fs::flock(&file, FlockOperation::Unlock).unwrap();
    rustix::fs::fcntl_lock(&file, FlockOperation::LockExclusive).unwrap();
    assert_eq!((other("flock"), other("fcntl")), (said("free"), said("taken")));
    drop(file);
    assert_eq!((other("flock"), other("fcntl")), (said("free"), said("free")));
}

#[test]
fn appends_and_writes_of_handles_that_can_not_read_meet_in_one_file() {
    let Some(folder) = Folder::or_skip() else { return };
    let path = folder.path("log");
    fs::write(&path, [b'.'; 5_000]).unwrap();
    std::thread::scope(|scope| {
        for name in *b"ab" {
            let path = &path;
            scope.spawn(move || {
                let mut log = OpenOptions::new().append(true).open(path).unwrap();
                for number in 0..500 {
                    log.write_all(format!("{} {number:03}\n", char::from(name)).as_bytes())
                        .unwrap();
                }
            });
        }
        let path = &path;
        scope.spawn(move || {
            let part = OpenOptions::new().write(true).open(path).unwrap();
            for at in 0..500 {
                part.write_all_at(b"#", at * 9 + 4).unwrap();
            }
        });
    });
    let bytes = fs::read(&path).unwrap();
    assert_eq!(bytes.len(), 5_000 + 2 * 500 * 6);
    for (at, byte) in bytes[..5_000].iter().enumerate() {
        let written = at >= 4 && (at - 4).is_multiple_of(9) && at < 4_500;
        assert_eq!(*byte, if written { b'#' } else { b'.' }, "at {at}");
    }
    for name in ["a", "b"] {
        let text = String::from_utf8_lossy(&bytes[5_000..]);
        let lines: Vec<_> = text.lines().filter(|line| line.starts_with(name)).collect();
        let expected: Vec<_> = (0..500).map(|number| format!("{name} {number:03}")).collect();
        assert_eq!(lines, expected);
    }
}

#[test]
fn whoever_opens_a_name_that_is_renamed_over_gets_one_file_or_the_other() {
    let Some(folder) = Folder::or_skip() else { return };
    let path = |name: &str| folder.path(name);
    let content = |number: u32| format!("{number:08}").repeat(1_000);
    fs::write(path("name"), content(0)).unwrap();
    std::thread::scope(|scope| {
        let saving = scope.spawn(|| {
            for number in 1..=200 {
                fs::write(path("new"), content(number)).unwrap();
                fs::rename(path("new"), path("name")).unwrap();
            }
        });
        while !saving.is_finished() {
            let text = fs::read_to_string(path("name")).unwrap();
            let number = text[..8].parse().unwrap();
            assert_eq!(text, content(number));
        }
    });
    assert_eq!(fs::read_to_string(path("name")).unwrap(), content(200));
    assert!(!path("new").exists());
}

/// Runs a shell's line as another user, and says whether it succeeded.
fn succeeds(user: u32, line: &str, path: &Path) -> bool {
    let mut command = Command::new("sh");
    command.arg("-c").arg(line).arg("sh").arg(path).uid(user).gid(user);
    command.current_dir("/").stdout(Stdio::null()).stderr(Stdio::null());
    command.status().unwrap().success()
}

#[test]
fn files_belong_to_whom_made_them_and_lists_let_others_in() {
    let Some(mut folder) = Folder::or_skip() else { return };
    let directory = folder.path("shared");
    fs::create_dir(&directory).unwrap();
    fs::set_permissions(&directory, fs::Permissions::from_mode(0o1777)).unwrap();
    let path = directory.join("file");
    assert!(succeeds(1000, "umask 027; echo text > \"$1\"", &path));
    let metadata = fs::metadata(&path).unwrap();
    assert_eq!((metadata.uid(), metadata.gid(), metadata.mode() & 0o7777), (1000, 1000, 0o640));
    assert!(!succeeds(1001, "cat \"$1\"", &path));
    assert!(!succeeds(1001, "rm -f \"$1\"", &path), "the directory is sticky");
    let access = [(1, 6, NOBODY), (2, 4, 1001), (4, 0, NOBODY), (16, 4, NOBODY), (32, 0, NOBODY)];
    xattr::set(&path, "system.posix_acl_access", &encoded(&access)).unwrap();
    assert!(succeeds(1001, "cat \"$1\"", &path));
    assert!(!succeeds(1001, "echo more >> \"$1\"", &path));
    assert!(!succeeds(1002, "cat \"$1\"", &path));
    // Taking the mask away takes away what it let through; the owner alone may.
    assert!(!succeeds(1001, "chmod 666 \"$1\"", &path));
    assert!(succeeds(1000, "chmod g-r \"$1\"", &path));
    assert!(!succeeds(1001, "cat \"$1\"", &path));
    assert!(succeeds(1000, "chmod g+r \"$1\"", &path));
    // And all of it outlives the daemon.
    assert_eq!(folder.device.terminate(PATIENCE).code(), Some(0));
    folder.device.run();
    assert!(succeeds(1001, "cat \"$1\"", &path));
    assert!(!succeeds(1002, "cat \"$1\"", &path));
    assert_eq!(xattr::get(&path, "system.posix_acl_access").unwrap(), Some(encoded(&access)));
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o640);
    drop(File::open(&path).unwrap());
}

#[test]
fn a_large_directory_is_listed_whole_while_it_changes() {
    let Some(folder) = Folder::or_skip() else { return };
    let count = std::env::var("KITH_ENTRIES").map_or(5_000, |count| count.parse().unwrap());
    let directory = folder.path("many");
    fs::create_dir(&directory).unwrap();
    for number in 0..count {
        let (path, mode) = (directory.join(format!("stays-{number}")), Mode::from_raw_mode(0o644));
        rustix::fs::mknodat(CWD, path, FileType::RegularFile, mode, 0).unwrap();
    }
    // While three read, one makes, moves and removes other names among these.
    std::thread::scope(|scope| {
        let reading: Vec<_> = (0..3)
            .map(|_| {
                scope.spawn(|| {
                    let mut stay = std::collections::BTreeSet::new();
                    for entry in fs::read_dir(&directory).unwrap() {
                        let name = entry.unwrap().file_name().into_string().unwrap();
                        if name.starts_with("stays-") {
                            assert!(stay.insert(name.clone()), "{name} is listed twice");
                        }
                    }
                    assert_eq!(stay.len() as u64, count);
                })
            })
            .collect();
        let mut number = 0;
        while reading.iter().any(|thread| !thread.is_finished()) {
            let [one, other] =
                ["comes", "moves"].map(|name| directory.join(format!("{name}-{number}")));
            fs::write(&one, "").unwrap();
            fs::rename(&one, &other).unwrap();
            if number % 3 != 0 {
                fs::remove_file(&other).unwrap();
            }
            number += 1;
        }
        for thread in reading {
            thread.join().unwrap();
        }
    });
}

#[test]
fn names_of_any_bytes_and_deep_paths_are_kept() {
    use std::os::unix::ffi::OsStrExt as _;
    let Some(mut folder) = Folder::or_skip() else { return };
    let mut names: Vec<Vec<u8>> =
        (1..=255).filter(|byte| *byte != b'/').map(|byte| vec![b'n', byte]).collect();
    names.extend([vec![0xff; 255], "é".repeat(127).into_bytes(), b" ".to_vec(), b"...".to_vec()]);
    names.push((1..=255).filter(|byte| *byte != b'/').collect());
    let path = |folder: &Folder, name: &[u8]| folder.path(std::ffi::OsStr::from_bytes(name));
    for name in &names {
        fs::write(path(&folder, name), name).unwrap();
    }
    // Deeper than a path can say: step by step, with a file at the end.
    const DEPTH: usize = 60;
    let step = "d".repeat(250);
    let flags = OFlags::DIRECTORY | OFlags::CLOEXEC;
    let mut directory = rustix::fs::open(folder.mount(), flags, Mode::empty()).unwrap();
    for _ in 0..DEPTH {
        rustix::fs::mkdirat(&directory, &step, Mode::RWXU).unwrap();
        directory = rustix::fs::openat(&directory, &step, flags, Mode::empty()).unwrap();
    }
    let new = OFlags::CREATE | OFlags::WRONLY | OFlags::CLOEXEC;
    let deep = rustix::fs::openat(&directory, "deep", new, Mode::RUSR | Mode::WUSR).unwrap();
    File::from(deep).write_all(b"down here").unwrap();
    drop(directory);
    assert_eq!(folder.device.terminate(PATIENCE).code(), Some(0));
    folder.device.run();
    let mut listed: Vec<Vec<u8>> = fs::read_dir(folder.mount())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().as_bytes().to_vec())
        .filter(|name| *name != step.as_bytes())
        .collect();
    for name in &names {
        assert_eq!(fs::read(path(&folder, name)).unwrap(), *name);
    }
    listed.sort();
    names.sort();
    assert!(listed == names, "{} names are listed of {}", listed.len(), names.len());
    let mut directory = rustix::fs::open(folder.mount(), flags, Mode::empty()).unwrap();
    for _ in 0..DEPTH {
        directory = rustix::fs::openat(&directory, &step, flags, Mode::empty()).unwrap();
    }
    let deep = rustix::fs::openat(&directory, "deep", OFlags::RDONLY, Mode::empty()).unwrap();
    let mut text = String::new();
    File::from(deep).read_to_string(&mut text).unwrap();
    assert_eq!(text, "down here");
}

#[test]
fn every_kind_of_node_has_its_number_and_its_effect_after_a_restart() {
    use std::os::unix::net::{UnixListener, UnixStream};
    let Some(mut folder) = Folder::or_skip() else { return };
    let node = |name: &str, kind, device| {
        rustix::fs::mknodat(CWD, folder.path(name), kind, Mode::from_raw_mode(0o620), device)
            .unwrap();
    };
    fs::write(folder.path("file"), "bytes").unwrap();
    fs::hard_link(folder.path("file"), folder.path("again")).unwrap();
    fs::create_dir(folder.path("directory")).unwrap();
    std::os::unix::fs::symlink("file", folder.path("link")).unwrap();
    node("pipe", FileType::Fifo, 0);
    node("disk", FileType::BlockDevice, rustix::fs::makedev(8, 1));
    node("zero", FileType::CharacterDevice, rustix::fs::makedev(1, 5));
    drop(UnixListener::bind(folder.path("socket")).unwrap());
    let seen = |folder: &Folder| {
        let names = ["file", "again", "directory", "link", "pipe", "disk", "zero", "socket"];
        names.map(|name| {
            let metadata = fs::symlink_metadata(folder.path(name)).unwrap();
            (metadata.ino(), metadata.mode(), metadata.nlink(), metadata.rdev(), metadata.mtime())
        })
    };
    let before = seen(&folder);
    assert_eq!((before[0].0, before[0].2), (before[1].0, 2));
    assert_eq!(folder.device.terminate(PATIENCE).code(), Some(0));
    folder.device.run();
    assert_eq!(seen(&folder), before);
    for device in ["disk", "zero"] {
        assert_eq!(errno(File::open(folder.path(device))), Some(Errno::ACCESS));
    }
    // The socket of a program that is gone refuses; a new one under the name connects.
    let socket = folder.path("socket");
    assert_eq!(errno(UnixStream::connect(&socket)), Some(Errno::CONNREFUSED));
    fs::remove_file(&socket).unwrap();
    let listener = UnixListener::bind(&socket).unwrap();
    let mut here = UnixStream::connect(&socket).unwrap();
    let (mut there, _) = listener.accept().unwrap();
    here.write_all(b"hello").unwrap();
    drop(here);
    let mut text = String::new();
    there.read_to_string(&mut text).unwrap();
    assert_eq!(text, "hello");
    // And the pipe joins two processes.
    let mut writer = Command::new("sh");
    writer.args(["-c", "echo through > \"$1\"", "sh"]).arg(folder.path("pipe"));
    let mut writer = writer.spawn().unwrap();
    assert_eq!(fs::read_to_string(folder.path("pipe")).unwrap(), "through\n");
    assert!(writer.wait().unwrap().success());
}

#[test]
fn who_reads_past_the_cache_while_a_file_is_published_reads_all_of_it() {
    use std::os::unix::fs::OpenOptionsExt as _;
    const LEN: usize = 64 << 10;
    let Some(folder) = Folder::or_skip() else { return };
    let path = folder.path("file");
    fs::write(&path, vec![7; LEN]).unwrap();
    std::thread::scope(|scope| {
        // Each of these is closed, and so published.
        let saving = scope.spawn(|| {
            for number in 0..1_500_u32 {
                let file = OpenOptions::new().write(true).open(&path).unwrap();
                file.write_all_at(&number.to_le_bytes(), LEN as u64 - 4).unwrap();
            }
        });
        let direct = i32::try_from(OFlags::DIRECT.bits()).unwrap();
        let file = OpenOptions::new().read(true).custom_flags(direct).open(&path).unwrap();
        let mut bytes = vec![0; LEN];
        while !saving.is_finished() {
            assert_eq!(file.read_at(&mut bytes, 0).unwrap(), LEN);
            assert!(bytes[..LEN - 4].iter().all(|byte| *byte == 7));
        }
    });
}
