//! A disk that is full takes nothing of what was saved before.
#![expect(clippy::unwrap_used, reason = "a test fails where it unwraps")]

use kith_tests::circle::{Circle, PATIENCE};
use kith_tests::device::Device;
use std::fs;
use std::io::Write as _;
use std::path::PathBuf;

/// The reserve of such a small disk.
const RESERVE_BYTES: u64 = 64 << 20;

/// Starts a device anew, with a disk of its own under its data.
fn on_a_small_disk(device: &mut Device) {
    device.kill();
    let flags = rustix::mount::MountFlags::empty();
    rustix::mount::mount("tmpfs", device.home(), "tmpfs", flags, Some(c"size=300M")).unwrap();
    device.run();
}

/// Somebody else fills the disk but for some bytes.
fn fill(device: &Device, left_bytes: u64) -> PathBuf {
    let disk = rustix::fs::statvfs(device.home()).unwrap();
    let filler = device.home().join("filler");
    let file = fs::File::create(&filler).unwrap();
    let len_bytes = disk.f_bavail * disk.f_frsize - left_bytes;
    rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, len_bytes).unwrap();
    filler
}

/// What the files hold that were saved, and the one that was being written.
fn check(device: &Device, when: &str) {
    for (name, text) in [("new", "whole"), ("replaced", "after"), ("changed", "longer than before")]
    {
        assert_eq!(fs::read_to_string(device.path(name)).unwrap(), text, "{name}, {when}");
    }
    let names = fs::read_dir(device.mount()).unwrap().map(|entry| entry.unwrap().file_name());
    let mut names: Vec<_> = names.map(|name| name.into_string().unwrap()).collect();
    names.sort();
    let [_, beside, _, _] = &names[..] else { panic!("{names:?}, {when}") };
    assert!(beside.starts_with("half (recovered "), "{names:?}, {when}");
    assert_eq!(fs::read_to_string(device.path(beside)).unwrap(), "a half", "{when}");
}

#[test]
fn what_was_saved_when_the_disk_became_full_outlives_restarts() {
    let Some(mut circle) = Circle::strangers_or_skip(&["laptop"]) else { return };
    let device = &mut circle[0];
    on_a_small_disk(device);
    fs::write(device.path("replaced"), "before").unwrap();
    fs::write(device.path("changed"), "before").unwrap();
    device.synced(PATIENCE);
    let written = [("new", "whole"), ("draft", "after"), ("half", "a half")].map(|(name, text)| {
        let mut file = fs::File::create(device.path(name)).unwrap();
        file.write_all(text.as_bytes()).unwrap();
        file
    });
    let mut changed = fs::OpenOptions::new().write(true).open(device.path("changed")).unwrap();
    changed.write_all(b"longer than before").unwrap();
    // Out of the kernel's cache, which dies with the mount.
    rustix::fs::syncfs(&changed).unwrap();
    let filler = fill(device, RESERVE_BYTES / 4);
    let [new, draft, half] = written;
    drop((new, draft, changed));
    fs::rename(device.path("draft"), device.path("replaced")).unwrap();
    device.kill();
    drop(half);
    device.run();
    check(device, "after a kill");
    device.terminate(PATIENCE);
    device.run();
    check(device, "after a stop");
    device.kill();
    device.run();
    check(device, "after another kill");
    fs::remove_file(filler).unwrap();
    device.synced(PATIENCE);
    check(device, "with room");
    device.kill();
    device.run();
    check(device, "at the end");
}

#[test]
fn a_full_disk_refuses_new_files_and_takes_what_programs_believe_to_be_written() {
    let Some(mut circle) = Circle::strangers_or_skip(&["laptop"]) else { return };
    let device = &mut circle[0];
    on_a_small_disk(device);
    let (existing, new) = (device.path("existing"), device.path("new"));
    fs::write(&existing, "before").unwrap();
    let mut open = fs::File::create(device.path("open")).unwrap();
    let filler = fill(device, RESERVE_BYTES * 3 / 4);
    let full = |error: std::io::Error| assert_eq!(error.kind(), std::io::ErrorKind::StorageFull);
    full(fs::write(&new, "text").unwrap_err());
    assert!(!new.exists());
    // As a shell does, which doesn't look at what close says.
    fs::write(&existing, "after").unwrap();
    open.write_all(&vec![1; 1 << 20]).unwrap();
    open.sync_all().unwrap();
    device.kill();
    device.run();
    assert_eq!(fs::read_to_string(&existing).unwrap(), "after");
    assert!(fs::read(device.path("open")).unwrap() == vec![1; 1 << 20]);
    // Nothing is left to write to, and everything can be tidied.
    open = fs::File::options().append(true).open(device.path("open")).unwrap();
    full(open.write_all(&vec![2; 32 << 20]).and_then(|()| open.sync_all()).unwrap_err());
    fs::create_dir(device.path("directory")).unwrap();
    fs::rename(&existing, device.path("directory/moved")).unwrap();
    fs::remove_file(device.path("open")).unwrap();
    fs::remove_file(filler).unwrap();
    fs::write(&new, "text").unwrap();
    drop(open);
    device.synced(PATIENCE);
}
