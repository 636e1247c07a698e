//! A volume in memory, really mounted, and used as programs use a folder.
#![expect(clippy::unwrap_used, reason = "a test fails where it unwraps")]

#[expect(unreachable_pub, reason = "other tests share it from their library")]
mod access_list;
mod memory;

use access_list::{NOBODY, encoded};
use kith_core::name::EntryName;
use kith_fs::volume::{Ino, Outdated};
use kith_fs::{MountOptions, Mounted, mount};
use memory::MemoryVolume;
use rustix::fs::{AtFlags, CWD, FallocateFlags, Mode, OFlags, RenameFlags, SeekFrom, Timespec};
use rustix::io::Errno;
use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

/// One mounted folder.
struct Folder {
    mounted: Option<Mounted>,
    volume: Arc<MemoryVolume>,
    directory: tempfile::TempDir,
}

impl Folder {
    /// Mounts, or says why it can't.
    fn mount() -> Option<Folder> {
        if !rustix::process::geteuid().is_root() || !Path::new("/dev/fuse").exists() {
            eprintln!("SKIPPED: mounting needs root and /dev/fuse");
            return None;
        }
        let directory = tempfile::tempdir().unwrap();
        let volume = Arc::new(MemoryVolume::new());
        let mounted = mount(volume.clone(), &options(&directory.path().join("kith"))).unwrap();
        Some(Folder { mounted: Some(mounted), volume, directory })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join("kith").join(name)
    }

    fn unmount(&mut self) {
        self.mounted.take().unwrap().unmount().unwrap();
    }
}

fn options(point: &Path) -> MountOptions {
    MountOptions { point: point.into(), owner: (0, 0), name: "kith".into(), allow_other: true }
}

fn errno<T: std::fmt::Debug>(result: std::io::Result<T>) -> Option<i32> {
    result.unwrap_err().raw_os_error()
}

fn number(errno: Errno) -> Option<i32> {
    Some(errno.raw_os_error())
}

fn names(directory: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(directory).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn files_are_made_read_changed_moved_and_removed() {
    let Some(folder) = Folder::mount() else { return };
    let (a, b) = (folder.path("a"), folder.path("d/b"));
    fs::write(&a, "hello").unwrap();
    assert_eq!(fs::read(&a).unwrap(), b"hello");
    fs::create_dir(folder.path("d")).unwrap();
    fs::rename(&a, &b).unwrap();
    assert_eq!(errno(fs::metadata(&a)), number(Errno::NOENT));
    assert_eq!(fs::read(&b).unwrap(), b"hello");
    fs::hard_link(&b, &a).unwrap();
    assert_eq!(fs::metadata(&b).unwrap().nlink(), 2);
    assert_eq!(fs::metadata(&a).unwrap().ino(), fs::metadata(&b).unwrap().ino());
    assert_eq!(errno(fs::remove_dir(folder.path("d"))), number(Errno::NOTEMPTY));
    fs::remove_file(&b).unwrap();
    fs::remove_dir(folder.path("d")).unwrap();
    assert_eq!(names(&folder.path("")), BTreeSet::from(["a".to_owned()]));
    std::os::unix::fs::symlink("over/there", folder.path("s")).unwrap();
    assert_eq!(fs::read_link(folder.path("s")).unwrap(), Path::new("over/there"));
    fs::write(&a, "shorter and then longer").unwrap();
    fs::write(&a, "short").unwrap();
    assert_eq!(fs::read(&a).unwrap(), b"short");
    assert_eq!(errno(fs::write(folder.path(&"x".repeat(256)), "")), number(Errno::NAMETOOLONG));
}

#[test]
fn a_file_that_lost_its_name_lives_as_long_as_it_is_open() {
    let Some(mut folder) = Folder::mount() else { return };
    let path = folder.path("a");
    let mut file = OpenOptions::new().read(true).write(true).create_new(true).open(&path).unwrap();
    file.write_all(b"before").unwrap();
    fs::remove_file(&path).unwrap();
    file.write_all(b" and after").unwrap();
    file.sync_all().unwrap();
    let mut text = String::new();
    file.rewind().unwrap();
    file.read_to_string(&mut text).unwrap();
    assert_eq!(text, "before and after");
    assert_eq!(file.metadata().unwrap().nlink(), 0);
    drop(file);
    folder.unmount();
}

#[test]
fn what_was_written_is_with_the_volume_after_an_unmount_and_appends_go_to_the_end() {
    let Some(mut folder) = Folder::mount() else { return };
    let path = folder.path("log");
    let bytes: Vec<u8> = (0..3_000_000u32).map(|at| (at / 7) as u8).collect();
    fs::write(&path, &bytes).unwrap();
    let mut log = OpenOptions::new().append(true).open(&path).unwrap();
    for _ in 0..100 {
        log.write_all(b"line\n").unwrap();
    }
    // A part of a page, through a handle that can't read.
    let part = OpenOptions::new().write(true).open(&path).unwrap();
    part.write_all_at(b"PART", 1_000_001).unwrap();
    let number = fs::metadata(&path).unwrap().ino();
    drop((log, part));
    folder.unmount();
    let mut expected = bytes;
    expected.extend_from_slice(&b"line\n".repeat(100));
    expected[1_000_001..1_000_005].copy_from_slice(b"PART");
    use kith_fs::volume::{Access, Volume};
    let read = Access { read: true, ..Access::default() };
    let handle = folder.volume.open(Ino(number), read).unwrap();
    assert!(folder.volume.read(handle, 0, 4_000_000).unwrap() == expected);
}

#[test]
fn a_listing_of_ten_thousand_names_is_complete_while_names_come_and_go() {
    let Some(folder) = Folder::mount() else { return };
    let directory = folder.path("many");
    fs::create_dir(&directory).unwrap();
    for at in 0..10_000 {
        File::create(directory.join(format!("file-{at:05}"))).unwrap();
    }
    assert_eq!(names(&directory).len(), 10_000);
    // Again, from the kernel's own cache.
    let before = folder.volume.calls("list");
    assert_eq!(names(&directory).len(), 10_000);
    assert_eq!(folder.volume.calls("list"), before, "a listing that is true is kept");
    // Removing while reading neither skips nor repeats.
    let mut seen = BTreeSet::new();
    for entry in fs::read_dir(&directory).unwrap() {
        let entry = entry.unwrap();
        assert!(seen.insert(entry.file_name()), "{entry:?} is listed twice");
        fs::remove_file(entry.path()).unwrap();
    }
    assert_eq!(seen.len(), 10_000);
    fs::remove_dir(&directory).unwrap();
}

#[test]
fn renames_keep_to_their_flags() {
    let Some(folder) = Folder::mount() else { return };
    let (a, b) = (folder.path("a"), folder.path("b"));
    fs::write(&a, "a").unwrap();
    fs::write(&b, "b").unwrap();
    let rename = |flags| rustix::fs::renameat_with(CWD, &a, CWD, &b, flags);
    assert_eq!(rename(RenameFlags::NOREPLACE), Err(Errno::EXIST));
    rename(RenameFlags::EXCHANGE).unwrap();
    assert_eq!((fs::read(&a).unwrap(), fs::read(&b).unwrap()), (b"b".to_vec(), b"a".to_vec()));
    assert_eq!(rename(RenameFlags::WHITEOUT), Err(Errno::INVAL));
    rename(RenameFlags::empty()).unwrap();
    assert_eq!(fs::read(&b).unwrap(), b"b");
    assert!(!a.exists());
    fs::create_dir(folder.path("d")).unwrap();
    let inside = folder.path("d/e");
    assert_eq!(errno(fs::rename(folder.path("d"), inside)), number(Errno::INVAL));
}

#[test]
fn attributes_of_ones_own_are_kept_and_the_system_s_are_not() {
    let Some(folder) = Folder::mount() else { return };
    let path = folder.path("a");
    fs::write(&path, "").unwrap();
    xattr::set(&path, "user.colour", b"green").unwrap();
    assert_eq!(xattr::get(&path, "user.colour").unwrap().unwrap(), b"green");
    xattr::set(&path, "user.shape", &vec![7; 60_000]).unwrap();
    assert_eq!(xattr::get(&path, "user.shape").unwrap().unwrap().len(), 60_000);
    let list: Vec<_> = xattr::list(&path).unwrap().collect();
    assert_eq!(list, ["user.colour", "user.shape"]);
    xattr::remove(&path, "user.colour").unwrap();
    assert_eq!(xattr::get(&path, "user.colour").unwrap(), None);
    assert_eq!(errno(xattr::remove(&path, "user.colour")), number(Errno::NODATA));
    for name in ["security.x", "trusted.x", "system.x", "other"] {
        assert_eq!(errno(xattr::set(&path, name, b"x")), number(Errno::OPNOTSUPP), "{name}");
    }
}

#[test]
fn an_access_control_list_and_the_mode_are_one_and_directories_hand_theirs_down() {
    let Some(folder) = Folder::mount() else { return };
    let (path, access) = (folder.path("a"), "system.posix_acl_access");
    fs::write(&path, "").unwrap();
    let mode = |path: &Path| fs::symlink_metadata(path).unwrap().mode() & 0o7777;
    let of = |path: &Path, name: &str| xattr::get(path, name).unwrap();
    assert_eq!(of(&path, access), None);
    let shared = |mask| {
        let named = [(2, 6, 0), (2, 7, 1000), (4, 4, NOBODY), (16, mask, NOBODY)];
        encoded(&[&[(1, 6, NOBODY)], &named[..], &[(32, 0, NOBODY)]].concat())
    };
    xattr::set(&path, access, &shared(6)).unwrap();
    assert_eq!((mode(&path), of(&path, access)), (0o660, Some(shared(6))));
    assert_eq!(xattr::list(&path).unwrap().collect::<Vec<_>>(), [access]);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    assert_eq!((mode(&path), of(&path, access)), (0o640, Some(shared(4))));
    // One that a mode can say is a mode.
    let plain = encoded(&[(1, 7, NOBODY), (4, 5, NOBODY), (32, 1, NOBODY)]);
    xattr::set(&path, access, &plain).unwrap();
    assert_eq!((mode(&path), of(&path, access)), (0o751, None));
    xattr::remove(&path, access).unwrap();

    let (directory, default) = (folder.path("d"), "system.posix_acl_default");
    fs::create_dir(&directory).unwrap();
    xattr::set(&directory, default, &shared(6)).unwrap();
    assert_eq!(errno(xattr::set(&path, default, &shared(6))), number(Errno::ACCESS));
    // Neither the umask nor anything else takes more away than the program did.
    fs::write(directory.join("file"), "").unwrap();
    assert_eq!(mode(&directory.join("file")), 0o660);
    assert_eq!(of(&directory.join("file"), access), Some(shared(6)));
    fs::create_dir(directory.join("inner")).unwrap();
    assert_eq!(of(&directory.join("inner"), default), Some(shared(6)));
    xattr::remove(&directory, default).unwrap();
    assert_eq!(of(&directory, default), None);
}

#[test]
fn holes_are_found_also_before_the_kernel_has_written_back() {
    let Some(folder) = Folder::mount() else { return };
    let path = folder.path("sparse");
    let file = OpenOptions::new().read(true).write(true).create_new(true).open(&path).unwrap();
    file.write_all_at(b"data", 1 << 20).unwrap();
    let seek = |from| rustix::fs::seek(&file, from);
    assert_eq!(seek(SeekFrom::Data(0)), Ok(1 << 20));
    assert_eq!(seek(SeekFrom::Hole(1 << 20)), Ok((1 << 20) + 4));
    assert_eq!(seek(SeekFrom::Hole(0)), Ok(0));
    assert_eq!(seek(SeekFrom::Data((1 << 20) + 4)), Err(Errno::NXIO));
    file.write_all_at(&[1; 1 << 16], 0).unwrap();
    let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    rustix::fs::fallocate(&file, punch, 4096, 8192).unwrap();
    assert_eq!(seek(SeekFrom::Hole(0)), Ok(4096));
    assert_eq!(seek(SeekFrom::Data(4096)), Ok(12_288));
    rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, 2 << 20).unwrap();
    assert_eq!(file.metadata().unwrap().len(), 2 << 20);
    let collapse = FallocateFlags::COLLAPSE_RANGE;
    assert_eq!(rustix::fs::fallocate(&file, collapse, 0, 4096), Err(Errno::OPNOTSUPP));
    drop(file);
    assert!(fs::metadata(&path).unwrap().blocks() * 512 < 1 << 20);
}

#[test]
fn a_range_is_copied_within_the_volume() {
    let Some(folder) = Folder::mount() else { return };
    let (a, b) = (folder.path("a"), folder.path("b"));
    let bytes: Vec<u8> = (0..200_000u32).map(|at| (at / 3) as u8).collect();
    fs::write(&a, &bytes).unwrap();
    let from = File::open(&a).unwrap();
    let to = File::create(&b).unwrap();
    let copied = rustix::fs::copy_file_range(&from, None, &to, None, bytes.len()).unwrap();
    drop(to);
    assert_eq!(copied, bytes.len());
    assert!(fs::read(&b).unwrap() == bytes);
    assert!(folder.volume.calls("copy_range") > 0);
}

#[test]
fn modes_owners_and_times_are_what_was_set() {
    let Some(folder) = Folder::mount() else { return };
    let path = folder.path("a");
    fs::write(&path, "x").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o6751)).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().mode(), 0o10_6751);
    std::os::unix::fs::chown(&path, Some(1234), None).unwrap();
    let shown = fs::metadata(&path).unwrap();
    assert_eq!((shown.uid(), shown.gid()), (1234, 0));
    assert_eq!(shown.mode(), 0o10_0751, "a new owner doesn't get the old one's set-id bits");
    for (seconds, nanoseconds) in [(1_000_000_000, 123_456_789), (-1, 800_000_000), (-12, 0)] {
        let time = Timespec { tv_sec: seconds, tv_nsec: nanoseconds };
        let times = rustix::fs::Timestamps { last_access: time, last_modification: time };
        rustix::fs::utimensat(CWD, &path, &times, AtFlags::empty()).unwrap();
        // Told anew by the volume.
        folder.volume.outdate(Outdated::Name {
            parent: Ino::ROOT,
            name: name("a"),
            replaced: false,
        });
        folder.volume.let_call_back();
        let shown = fs::metadata(&path).unwrap();
        assert_eq!((shown.mtime(), shown.mtime_nsec()), (seconds, nanoseconds));
    }
    let before = fs::metadata(&path).unwrap().mtime();
    fs::write(&path, "changed").unwrap();
    assert!(fs::metadata(&path).unwrap().mtime() > before, "writing sets the time");
    fs::create_dir(folder.path("shared")).unwrap();
    std::os::unix::fs::chown(folder.path("shared"), None, Some(77)).unwrap();
    fs::set_permissions(folder.path("shared"), fs::Permissions::from_mode(0o2775)).unwrap();
    fs::create_dir(folder.path("shared/below")).unwrap();
    let below = fs::metadata(folder.path("shared/below")).unwrap();
    assert_eq!((below.gid(), below.mode() & 0o2000), (77, 0o2000));
}

#[test]
fn who_changes_a_program_of_another_takes_its_set_id_bits() {
    let Some(folder) = Folder::mount() else { return };
    let path = folder.path("program");
    let others = |script: &str| {
        let mut shell = Command::new("setpriv");
        shell.args(["--reuid=65534", "--regid=65534", "--clear-groups", "sh", "-c", script]);
        shell.arg("sh").arg(&path);
        shell.current_dir("/").stderr(Stdio::null());
        match shell.status() {
            Ok(status) => assert!(status.success(), "{script}"),
            Err(error) => eprintln!("SKIPPED: setpriv can't be run: {error}"),
        }
        fs::metadata(&path).unwrap().mode() & 0o7777
    };
    fs::set_permissions(folder.directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
    // A write, a truncation at opening, and one later.
    for script in ["echo x >> $1", "echo x > $1", "truncate -s 1 $1"] {
        fs::write(&path, "a program").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o6777)).unwrap();
        assert_eq!(others(script), 0o777, "{script}");
    }
    // Root keeps them.
    fs::set_permissions(&path, fs::Permissions::from_mode(0o6777)).unwrap();
    OpenOptions::new().append(true).open(&path).unwrap().write_all(b"x").unwrap();
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o6777);
}

fn name(name: &str) -> EntryName {
    EntryName::new(name.as_bytes()).unwrap()
}

#[test]
fn every_kind_of_node_can_be_made() {
    let Some(folder) = Folder::mount() else { return };
    use rustix::fs::FileType;
    let make = |name: &str, kind, device| {
        rustix::fs::mknodat(CWD, folder.path(name), kind, Mode::from_raw_mode(0o640), device)
    };
    make("fifo", FileType::Fifo, 0).unwrap();
    make("socket", FileType::Socket, 0).unwrap();
    make("null", FileType::CharacterDevice, rustix::fs::makedev(1, 3)).unwrap();
    make("disk", FileType::BlockDevice, rustix::fs::makedev(259, 70_000)).unwrap();
    make("file", FileType::RegularFile, 0).unwrap();
    let kind = |name: &str| fs::symlink_metadata(folder.path(name)).unwrap().file_type();
    assert!(kind("fifo").is_fifo());
    assert!(kind("socket").is_socket());
    assert!(kind("null").is_char_device());
    assert!(kind("disk").is_block_device());
    assert!(kind("file").is_file());
    let disk = fs::symlink_metadata(folder.path("disk")).unwrap();
    assert_eq!(disk.rdev(), rustix::fs::makedev(259, 70_000));
    let opened = OpenOptions::new().write(true).open(folder.path("null"));
    assert_eq!(errno(opened), number(Errno::ACCESS), "a device in the folder has no effect");
}

#[test]
fn what_another_device_changes_is_seen_at_once() {
    let Some(folder) = Folder::mount() else { return };
    let path = folder.path("a");
    assert!(!path.exists(), "now the kernel remembers that it isn't there");
    assert!(names(&folder.path("")).is_empty(), "and that nothing is");
    let asked = folder.volume.calls("lookup");
    assert!(!path.exists());
    assert_eq!(folder.volume.calls("lookup"), asked);

    let first = folder.volume.arrive(Ino::ROOT, "a", b"one");
    folder.volume.let_call_back();
    assert_eq!(fs::read(&path).unwrap(), b"one");
    assert_eq!(names(&folder.path("")), BTreeSet::from(["a".to_owned()]));
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o644);
    folder.volume.set_mode(first, 0o600);
    folder.volume.let_call_back();
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);

    let mut old = File::open(&path).unwrap();
    folder.volume.arrive(Ino::ROOT, "a", b"two, and longer");
    folder.volume.let_call_back();
    assert_eq!(fs::read(&path).unwrap(), b"two, and longer");
    let mut text = String::new();
    old.read_to_string(&mut text).unwrap();
    assert_eq!(text, "one", "who had it open goes on with what it was");

    folder.volume.arrive(Ino::ROOT, "b", b"three");
    folder.volume.let_call_back();
    assert_eq!(names(&folder.path("")), BTreeSet::from(["a".to_owned(), "b".to_owned()]));
}

#[test]
fn a_name_that_is_superseded_unheard_is_looked_up_again() {
    let Some(folder) = Folder::mount() else { return };
    let path = folder.path("a");
    let old = folder.volume.arrive(Ino::ROOT, "a", b"one");
    folder.volume.let_call_back();
    assert_eq!(fs::metadata(&path).unwrap().ino(), old.0);
    // The kernel opens the node that it remembers before it is told.
    folder.volume.arrive(Ino::ROOT, "a", b"two");
    assert_eq!(fs::read(&path).unwrap(), b"two");
    // And makes what it thinks isn't there.
    assert!(!folder.path("b").exists());
    folder.volume.arrive(Ino::ROOT, "b", b"there already");
    let file = OpenOptions::new().append(true).create(true).open(folder.path("b"));
    file.unwrap().write_all(b"!").unwrap();
    assert_eq!(fs::read(folder.path("b")).unwrap(), b"there already!");
    let new = OpenOptions::new().write(true).create_new(true).open(folder.path("b"));
    assert_eq!(errno(new), number(Errno::EXIST));
}

#[test]
fn reads_that_wait_for_bytes_keep_nobody_else_waiting() {
    let Some(folder) = Folder::mount() else { return };
    let mut waiting = Vec::new();
    for at in 0..6 {
        let ino = folder.volume.arrive(Ino::ROOT, &format!("far-{at}"), b"arrived");
        folder.volume.set_absent(ino, true);
        waiting.push(ino);
    }
    folder.volume.let_call_back();
    let (done, finished) = mpsc::channel();
    for at in 0..6 {
        let (path, done) = (folder.path(&format!("far-{at}")), done.clone());
        thread::spawn(move || done.send(fs::read(path).unwrap()).unwrap());
    }
    folder.volume.wait_for_calls("read", 6);
    fs::write(folder.path("near"), "near").unwrap();
    File::open(folder.path("near")).unwrap().sync_all().unwrap();
    assert_eq!(fs::read(folder.path("near")).unwrap(), b"near");
    assert!(finished.try_recv().is_err());
    for ino in waiting {
        folder.volume.set_absent(ino, false);
    }
    for _ in 0..6 {
        assert_eq!(finished.recv_timeout(Duration::from_secs(20)).unwrap(), b"arrived");
    }
}

#[test]
fn bytes_that_never_come_are_an_error_that_programs_understand() {
    let Some(folder) = Folder::mount() else { return };
    let ino = folder.volume.arrive(Ino::ROOT, "far", b"never");
    folder.volume.set_absent(ino, true);
    folder.volume.close();
    assert_eq!(errno(fs::read(folder.path("far"))), number(Errno::TIMEDOUT));
}

#[test]
fn a_mapped_page_is_written_back() {
    let Some(mut folder) = Folder::mount() else { return };
    let path = folder.path("mapped");
    fs::write(&path, vec![b'.'; 10_000]).unwrap();
    let program = "import mmap,sys\n\
        f=open(sys.argv[1],'r+b')\n\
        m=mmap.mmap(f.fileno(),0)\n\
        m[4090:4100]=b'0123456789'\n\
        m.flush(); m[9000:9001]=b'!'\n\
        m.close(); f.close()\n";
    match Command::new("python3").arg("-c").arg(program).arg(&path).status() {
        Ok(status) => assert!(status.success()),
        Err(error) => return eprintln!("SKIPPED: python3 can't be run: {error}"),
    }
    let bytes = fs::read(&path).unwrap();
    assert_eq!((&bytes[4088..4102], bytes[9000]), (b"..0123456789..".as_slice(), b'!'));
    folder.unmount();
}

#[test]
fn a_busy_folder_is_unmounted_and_what_was_written_is_kept() {
    let Some(mut folder) = Folder::mount() else { return };
    let path = folder.path("open");
    let mut file = File::create(&path).unwrap();
    file.write_all(b"written, not closed").unwrap();
    let number = file.metadata().unwrap().ino();
    // And somebody waits for bytes that never come.
    let far = folder.volume.arrive(Ino::ROOT, "far", b"never");
    folder.volume.set_absent(far, true);
    folder.volume.let_call_back();
    let far = folder.path("far");
    let reader = thread::spawn(move || fs::read(far));
    folder.volume.wait_for_calls("read", 1);
    folder.unmount();
    reader.join().unwrap().unwrap_err();
    // The kernel takes the bytes, but has nobody to give them to.
    let kept = file.write_all(b"more").and_then(|()| file.sync_all());
    kept.unwrap_err();
    assert!(names(&folder.path("")).is_empty(), "the folder underneath is seen again");
    use kith_fs::volume::Volume;
    assert_eq!(folder.volume.info(Ino(number)).unwrap().size_bytes, 19);
    // Also the same folder can be mounted again at once.
    let again = mount(folder.volume.clone(), &options(&folder.path(""))).unwrap();
    again.unmount().unwrap();
    folder.volume.close();
}

#[test]
fn a_mount_that_somebody_took_away_is_noticed_and_what_came_after_is_left() {
    let Some(mut folder) = Folder::mount() else { return };
    let point = folder.path("");
    let first = folder.mounted.take().unwrap();
    rustix::mount::unmount(&point, rustix::mount::UnmountFlags::empty()).unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    while !first.has_ended() {
        assert!(Instant::now() < deadline);
        thread::yield_now();
    }
    let second = mount(Arc::new(MemoryVolume::new()), &options(&point)).unwrap();
    fs::write(folder.path("a"), "x").unwrap();
    first.unmount().unwrap();
    assert_eq!(fs::read(folder.path("a")).unwrap(), b"x");
    second.unmount().unwrap();
}

#[test]
fn a_broken_invariant_ends_the_mount_and_hangs_nobody() {
    let Some(mut folder) = Folder::mount() else { return };
    let broken = folder.path(std::str::from_utf8(memory::BROKEN).unwrap());
    assert_eq!(errno(fs::metadata(broken)), number(Errno::IO));
    let deadline = Instant::now() + Duration::from_secs(20);
    while !folder.mounted.as_ref().unwrap().has_ended() {
        assert!(Instant::now() < deadline);
        thread::yield_now();
    }
    assert!(names(&folder.path("")).is_empty(), "the folder underneath is seen");
    folder.mounted.take().unwrap().unmount().unwrap();
    let again = mount(folder.volume.clone(), &options(&folder.path(""))).unwrap();
    fs::write(folder.path("a"), "x").unwrap();
    again.unmount().unwrap();
}

#[test]
fn a_point_that_is_not_free_is_refused_with_what_to_do() {
    let Some(folder) = Folder::mount() else { return };
    let try_at = |point: &Path| match mount(Arc::new(MemoryVolume::new()), &options(point)) {
        Ok(_) => panic!("mounted at {}", point.display()),
        Err(error) => {
            assert!(!error.hint().is_empty());
            error.to_string()
        }
    };
    assert!(try_at(&folder.path("")).contains("another Kith is mounted at"));
    let full = folder.directory.path().join("full");
    fs::create_dir(&full).unwrap();
    fs::write(full.join("file"), "x").unwrap();
    assert!(try_at(&full).contains("is not empty"));
    assert!(try_at(&full.join("file")).contains("is not a folder"));
    assert!(try_at(Path::new("/proc")).contains("something else (proc) is mounted at /proc"));
    assert_eq!(fs::read(full.join("file")).unwrap(), b"x");
}

const CHILD: &str = "KITH_TEST_MOUNT_POINT";

/// Not a test: what the tests below run in a process of its own. It mounts, says so, and waits.
#[test]
fn serve_until_killed() {
    let Some(point) = std::env::var_os(CHILD) else { return };
    let (user, group) = (rustix::process::getuid(), rustix::process::getgid());
    let options = MountOptions {
        owner: (user.as_raw(), group.as_raw()),
        allow_other: false,
        ..options(Path::new(&point))
    };
    match mount(Arc::new(MemoryVolume::new()), &options) {
        Ok(mounted) => {
            println!("MOUNTED");
            std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
            mounted.unmount().unwrap();
            println!("UNMOUNTED");
        }
        Err(error) => println!("FAILED {error} | {}", error.hint()),
    }
}

/// Runs a copy of this test in a process of its own, and waits for what it says first.
fn serve(command: &mut Command, point: &Path) -> (std::process::Child, String) {
    command.args(["--exact", "serve_until_killed", "--nocapture"]).env(CHILD, point);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let said = line(&mut child, &["MOUNTED", "FAILED"]);
    (child, said)
}

fn line(child: &mut std::process::Child, starts: &[&str]) -> String {
    let mut text = Vec::new();
    let mut byte = [0];
    while child.stdout.as_mut().unwrap().read(&mut byte).unwrap() == 1 {
        if byte[0] != b'\n' {
            text.push(byte[0]);
            continue;
        }
        let line = String::from_utf8(std::mem::take(&mut text)).unwrap();
        // The test harness writes its own words before ours on the same line.
        if let Some(at) = starts.iter().find_map(|start| line.find(start)) {
            return line[at..].to_owned();
        }
    }
    panic!("the other process said nothing of {starts:?}");
}

#[test]
fn the_mount_of_a_killed_process_is_cleaned_up() {
    let Some(mut folder) = Folder::mount() else { return };
    folder.unmount();
    let point = folder.path("");
    for _ in 0..2 {
        let mut command = Command::new(std::env::current_exe().unwrap());
        let (mut child, said) = serve(&mut command, &point);
        assert_eq!(said, "MOUNTED");
        fs::write(folder.path("a"), "x").unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(errno(fs::metadata(&point)), number(Errno::NOTCONN));
    }
    let mounted = mount(Arc::new(MemoryVolume::new()), &options(&point)).unwrap();
    assert!(names(&point).is_empty());
    fs::write(folder.path("a"), "y").unwrap();
    mounted.unmount().unwrap();
    assert!(names(&point).is_empty(), "nothing is left mounted underneath");
}

#[test]
fn an_ordinary_user_mounts_through_the_helper() {
    if !rustix::process::geteuid().is_root() {
        return eprintln!("SKIPPED: becoming another user needs root");
    }
    let there = |program: &str| Command::new(program).arg("--version").output().is_ok();
    if !there("fusermount3") || !there("setpriv") || !Path::new("/dev/fuse").exists() {
        return eprintln!("SKIPPED: fusermount3, setpriv or /dev/fuse is missing");
    }
    if fs::metadata("/dev/fuse").unwrap().mode() & 0o6 != 0o6 {
        return with_the_usual_device("an_ordinary_user_mounts_through_the_helper");
    }
    let directory = tempfile::tempdir().unwrap();
    let (point, program) = (directory.path().join("kith"), directory.path().join("test"));
    fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let as_user = |program: &Path| {
        let mut command = Command::new("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(program);
        command.current_dir(directory.path());
        command
    };
    // Killed, mounted again over what is left, and ended properly.
    let (mut child, said) = serve(&mut as_user(&program), &point);
    assert_eq!(said, "MOUNTED");
    let mut shell = as_user(Path::new("sh"));
    shell.args([
        "-c",
        "cd kith && echo hello > a && mkdir d && mv a d && cat d/a && stat -c %u d/a",
    ]);
    let output = shell.output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "hello\n65534\n", "{output:?}");
    assert_eq!(errno(fs::metadata(&point)), number(Errno::ACCESS), "others are kept out");
    child.kill().unwrap();
    child.wait().unwrap();
    let (mut child, said) = serve(&mut as_user(&program), &point);
    assert_eq!(said, "MOUNTED");
    drop(child.stdin.take());
    assert_eq!(line(&mut child, &["UNMOUNTED"]), "UNMOUNTED");
    assert!(child.wait().unwrap().success());
    assert!(names(&point).is_empty());
}

/// Runs a test where `/dev/fuse` has the mode that every distribution gives it: in a mount
/// namespace of its own.
fn with_the_usual_device(test: &str) {
    let directory = tempfile::tempdir().unwrap();
    let device = directory.path().join("fuse");
    let number = fs::metadata("/dev/fuse").unwrap().rdev();
    let kind = rustix::fs::FileType::CharacterDevice;
    if let Err(error) = rustix::fs::mknodat(CWD, &device, kind, Mode::empty(), number) {
        return eprintln!("SKIPPED: no device can be made: {error}");
    }
    fs::set_permissions(&device, fs::Permissions::from_mode(0o666)).unwrap();
    let mut command = Command::new("unshare");
    command
        .args(["--mount", "sh", "-c"])
        .arg("mount --bind \"$1\" /dev/fuse || exit 99; shift; exec \"$@\"");
    command.arg("sh").arg(&device).arg(std::env::current_exe().unwrap());
    command.args(["--exact", test, "--nocapture"]);
    match command.status().unwrap().code() {
        Some(0) => {}
        Some(99) => eprintln!("SKIPPED: only root may open /dev/fuse here"),
        code => panic!("the test failed in its namespace: {code:?}"),
    }
}

#[test]
fn files_opened_directly_are_read_and_written_past_the_cache() {
    let Some(folder) = Folder::mount() else { return };
    let path = folder.path("direct");
    fs::write(&path, vec![1u8; 16_384]).unwrap();
    let flags = OFlags::DIRECT.bits() as i32;
    let file = OpenOptions::new().read(true).write(true).custom_flags(flags).open(&path).unwrap();
    file.write_all_at(&[2u8; 4096], 4096).unwrap();
    drop(file);
    let bytes = fs::read(&path).unwrap();
    assert_eq!((bytes[4095], bytes[4096], bytes[8191], bytes[8192]), (1, 2, 2, 1));
}
