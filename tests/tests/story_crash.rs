//! Daemons are killed at the worst moment, and nothing but time is lost.
#![expect(clippy::unwrap_used, reason = "a test fails where it unwraps")]

use kith_tests::circle::{Circle, PATIENCE};
use kith_tests::device::Device;
use kith_tests::scratch::is_mounted;
use kith_tests::tree::Tree;
use kith_tests::{grove, pulse};
use std::fs;
use std::io::{Read as _, Seek as _, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// What is sent while somebody is killed, over a slow link: 40 MB in 20 files, and small ones.
fn plant(at: &Path) {
    fs::create_dir(at).unwrap();
    for number in 0..20 {
        grove::noise(&at.join(format!("noise {number}")), number, 2_000_000).unwrap();
    }
    fs::create_dir(at.join("small")).unwrap();
    grove::plant(&at.join("small"), 9, 400).unwrap();
}

/// Waits until a device has got some of what it is being sent, but not all.
fn midway(device: &Device, total: u64) {
    pulse::until(PATIENCE, &format!("{} is in the middle", device.name()), || {
        let (share, _) = device.share()?;
        let (bytes, missing) = (share["bytes"].as_u64(), share["missing_bytes"].as_u64());
        match (bytes, missing) {
            (Some(bytes), Some(missing)) if bytes > total / 2 && missing < bytes * 9 / 10 => {
                assert!(missing > 0, "the transfer was over before it could be broken off");
                Ok(())
            }
            _ => Err(share.to_string()),
        }
    });
}

fn killed_in_the_middle(killed: usize) {
    let Some(mut circle) = Circle::or_skip(&["laptop", "desktop"]) else { return };
    circle.lab.shape("50mbit");
    let source = circle[0].path("source");
    plant(&source);
    let before = Tree::read(&source).unwrap();
    midway(&circle[1], 40_000_000);
    circle[killed].kill();
    circle[killed].run();
    circle.settle();
    let differences = before.differences(&Tree::read(&circle[1].path("source")).unwrap(), 10);
    assert!(differences.is_empty(), "{differences:#?}");
}

#[test]
fn a_receiver_killed_in_the_middle_of_a_transfer_goes_on() {
    killed_in_the_middle(1);
}

#[test]
fn a_sender_killed_in_the_middle_of_a_transfer_goes_on() {
    killed_in_the_middle(0);
}

/// Writes files in a directory until it fails: every third is fsynced, every fifth renamed over
/// the one before. Answers the names whose fsync or rename was confirmed, with their bytes.
fn burst(at: &Path, started: &AtomicUsize) -> Vec<(PathBuf, Vec<u8>)> {
    let mut confirmed = Vec::new();
    for number in 0..20_000_usize {
        let path = at.join(format!("{number}.dat"));
        let bytes = vec![u8::try_from(number % 251).unwrap(); 1 + number * 37 % 20_000];
        let Ok(mut file) = fs::File::create(&path) else { break };
        if file.write_all(&bytes).is_err() {
            break;
        }
        if number % 3 == 0 {
            if file.sync_all().is_err() {
                break;
            }
            confirmed.push((path, bytes));
        }
        started.fetch_add(1, Ordering::Relaxed);
        pulse::beat();
    }
    confirmed
}

#[test]
fn what_was_fsynced_before_a_crash_in_a_burst_of_writes_is_on_both() {
    let Some(mut circle) = Circle::or_skip(&["laptop", "desktop"]) else { return };
    let at = circle[0].path("burst");
    fs::create_dir(&at).unwrap();
    circle.settle();
    let mut confirmed = Vec::new();
    for round in 0..3 {
        let at = at.join(round.to_string());
        fs::create_dir(&at).unwrap();
        let started = AtomicUsize::new(0);
        confirmed.extend(std::thread::scope(|scope| {
            let writer = scope.spawn(|| burst(&at, &started));
            pulse::until(PATIENCE, "the burst goes on", || {
                let written = started.load(Ordering::Relaxed);
                if written >= 60 { Ok(()) } else { Err(format!("{written} files")) }
            });
            circle[0].kill();
            writer.join().unwrap()
        }));
        circle[0].run();
    }
    let tree = circle.settle();
    assert!(confirmed.len() >= 60, "{} were confirmed", confirmed.len());
    for (path, bytes) in confirmed {
        let name = path.strip_prefix(circle[0].mount()).unwrap();
        for device in &circle.devices {
            let held = fs::read(device.path(name));
            assert!(
                held.as_ref().is_ok_and(|held| *held == bytes),
                "{} on {}: {:?}",
                name.display(),
                device.name(),
                held.map(|held| held.len())
            );
        }
    }
    // Whole files only, under their names: what a crash cut short stands beside.
    for (path, node) in &tree.nodes {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let number = name.strip_suffix(".dat").and_then(|name| name.parse::<usize>().ok());
        if let (Some(number), kith_tests::tree::Kind::File(size, _)) = (number, &node.kind) {
            assert_eq!(*size, 1 + number as u64 * 37 % 20_000, "{}", path.display());
        }
    }
}

#[test]
fn a_file_that_was_cut_short_to_be_written_anew_is_not_replaced_by_a_crash() {
    let Some(mut circle) = Circle::strangers_or_skip(&["laptop"]) else { return };
    for len in [0, 4] {
        let path = circle[0].path(format!("cut to {len}"));
        fs::write(&path, "what was saved").unwrap();
        circle[0].synced(PATIENCE);
        let open = fs::OpenOptions::new().write(true).open(&path).unwrap();
        open.set_len(len).unwrap();
        circle[0].kill();
        drop(open);
        circle[0].run();
        assert_eq!(fs::read_to_string(&path).unwrap(), "what was saved", "{}", path.display());
    }
}

#[test]
fn a_restart_keeps_the_circle_and_the_tree() {
    let Some(mut circle) = Circle::or_skip(&["laptop", "desktop"]) else { return };
    fs::create_dir(circle[0].path("tree")).unwrap();
    grove::plant(&circle[0].path("tree"), 3, 300).unwrap();
    let before = circle.settle();
    for device in &mut circle.devices {
        let status = device.terminate(Duration::from_secs(10));
        assert_eq!(status.code(), Some(0));
        assert!(!is_mounted(device.mount()), "it unmounts");
    }
    circle[1].run();
    fs::write(circle[1].path("alone.txt"), "written alone").unwrap();
    circle[0].run();
    let mut after = circle.settle();
    assert!(after.nodes.remove(Path::new("alone.txt")).is_some());
    let differences = before.differences(&after, 10);
    assert!(differences.is_empty(), "{differences:#?}");
}

#[test]
fn a_daemon_ends_when_asked_whatever_the_network_does() {
    let Some(mut circle) = Circle::or_skip(&["laptop", "desktop"]) else { return };
    circle.lab.shape("20mbit");
    grove::noise(&circle[0].path("big"), 1, 20_000_000).unwrap();
    midway(&circle[1], 10_000_000);
    circle.lab.cut(2);
    // Somebody waits for bytes that can't come, and holds a file and a directory open.
    let path = circle[1].path("big");
    let held = fs::File::open(&path).unwrap();
    let reader = std::thread::spawn(move || fs::read(path));
    for device in &mut circle.devices {
        let status = device.terminate(PATIENCE);
        assert_eq!(status.code(), Some(0), "{}", device.name());
        assert!(!is_mounted(device.mount()), "{} is still mounted", device.name());
    }
    assert!(reader.join().unwrap().is_err(), "the bytes were nowhere");
    drop(held);
    circle.lab.join(2);
    for device in &mut circle.devices {
        device.run();
    }
    circle.settle();
}

#[test]
fn what_was_fsynced_to_a_file_that_another_device_removed_comes_back() {
    let Some(mut circle) = Circle::or_skip(&["laptop", "desktop"]) else { return };
    let path = circle[0].path("notes.txt");
    fs::write(&path, "before").unwrap();
    circle.settle();
    let mut file = fs::OpenOptions::new().append(true).open(&path).unwrap();
    // The next fsync soon after this one publishes nothing.
    file.write_all(b", during").unwrap();
    file.sync_all().unwrap();
    let other = circle[1].path("notes.txt");
    pulse::until(PATIENCE, "the other device has it", || match fs::read_to_string(&other) {
        Ok(text) if text == "before, during" => Ok(()),
        text => Err(format!("{text:?}")),
    });
    fs::remove_file(other).unwrap();
    pulse::until(PATIENCE, "its removal arrives", || match path.exists() {
        false => Ok(()),
        true => Err("it is there".into()),
    });
    file.write_all(b", after").unwrap();
    file.sync_all().unwrap();
    circle[0].kill();
    drop(file);
    circle[0].run();
    circle.settle();
    assert_eq!(fs::read_to_string(&path).unwrap(), "before, during, after");
}

#[test]
fn what_was_half_written_to_a_file_that_another_device_removed_comes_back_beside() {
    let Some(mut circle) = Circle::or_skip(&["laptop", "desktop"]) else { return };
    let names = ["loose.txt", "kept/deep/in it.txt", "replaced.txt"];
    fs::create_dir_all(circle[0].path("kept/deep")).unwrap();
    for name in names {
        fs::write(circle[0].path(name), "before").unwrap();
    }
    fs::write(circle[0].path("kept/other"), "stays").unwrap();
    xattr::set(circle[0].path(names[0]), "user.colour", b"green").unwrap();
    circle.settle();
    let open = names.map(|name| {
        let file = fs::OpenOptions::new().write(true).open(circle[0].path(name)).unwrap();
        file.write_all_at(b"half", 0).unwrap();
        file
    });
    // Out of the kernel's cache, which dies with the mount.
    rustix::fs::syncfs(&open[0]).unwrap();
    fs::remove_file(circle[1].path(names[0])).unwrap();
    fs::remove_dir_all(circle[1].path("kept/deep")).unwrap();
    fs::write(circle[1].path("new"), "from elsewhere").unwrap();
    fs::rename(circle[1].path("new"), circle[1].path(names[2])).unwrap();
    pulse::until(PATIENCE, "all of that arrives", || {
        let gone = !circle[0].path(names[0]).exists() && !circle[0].path("kept/deep").exists();
        match fs::read_to_string(circle[0].path(names[2])) {
            Ok(text) if gone && text == "from elsewhere" => Ok(()),
            text => Err(format!("gone: {gone}, {text:?}")),
        }
    });
    circle[0].kill();
    drop(open);
    circle[0].run();
    let tree = circle.settle();
    assert_eq!(fs::read_to_string(circle[0].path(names[2])).unwrap(), "from elsewhere");
    for start in ["loose (recovered ", "kept/in it (recovered ", "replaced (recovered "] {
        let found: Vec<_> =
            tree.nodes.keys().filter(|it| it.to_string_lossy().starts_with(start)).collect();
        let [path] = &found[..] else { panic!("{start}: {found:?} of {:?}", tree.nodes.keys()) };
        let path = circle[1].path(path);
        assert_eq!(fs::read_to_string(&path).unwrap(), "halfre", "{}", path.display());
        let colour = xattr::get(&path, "user.colour").unwrap();
        assert_eq!(colour.is_some(), start.starts_with("loose"), "{}", path.display());
    }
    assert!(!circle[0].path(names[0]).exists() && !circle[0].path("kept/deep").exists());
}

#[test]
fn what_was_written_amid_bytes_that_are_out_of_reach_outlives_restarts() {
    let Some(mut circle) = Circle::or_skip(&["laptop", "desktop"]) else { return };
    circle.lab.shape("20mbit");
    grove::noise(&circle[0].path("far away"), 1, 30_000_000).unwrap();
    let original = circle[1].path("far away");
    pulse::until(PATIENCE, "the desktop lists it", || {
        fs::metadata(&original).map(drop).map_err(|error| error.to_string())
    });
    circle.lab.cut(1);
    // Copies of the description, and a page of each that needs no other to be written.
    let (original, at, page) = (fs::File::open(original).unwrap(), 29_999_104 - 4096, [7; 4096]);
    let copies: Vec<_> = (0..8).map(|number| format!("copy {number}")).collect();
    for copy in &copies {
        let mut options = fs::File::options();
        let copy = options.read(true).write(true).create_new(true).open(circle[1].path(copy));
        let mut file = copy.unwrap();
        let copied = std::io::copy(&mut (&original).take(30_000_000), &mut file).unwrap();
        assert_eq!(copied, 30_000_000);
        (&original).rewind().unwrap();
        file.write_all_at(&page, at).unwrap();
    }
    drop(original);
    for stop in ["a stop", "a kill", "another stop"] {
        match stop {
            "a kill" => circle[1].kill(),
            _ => drop(circle[1].terminate(PATIENCE)),
        }
        circle[1].run();
        for copy in &copies {
            let mut found = [0; 4096];
            let file = fs::File::open(circle[1].path(copy)).unwrap();
            assert_eq!(file.metadata().unwrap().len(), 30_000_000, "{copy} after {stop}");
            file.read_exact_at(&mut found, at).unwrap();
            assert!(found == page, "{copy} after {stop}");
        }
    }
    circle.lab.join(1);
    circle.lab.shape("1gbit");
    circle.settle();
    let mut expected = fs::read(circle[0].path("far away")).unwrap();
    expected[usize::try_from(at).unwrap()..][..4096].copy_from_slice(&page);
    for device in &circle.devices {
        for copy in &copies {
            let found = fs::read(device.path(copy)).unwrap();
            assert!(found == expected, "{copy} on {}", device.name());
        }
    }
}

#[test]
fn a_closed_version_outlives_a_file_that_took_its_name_and_was_never_closed() {
    let Some(mut circle) = Circle::strangers_or_skip(&["laptop"]) else { return };
    // Whether it is published by then or not.
    for round in 0..10 {
        let (name, other) = (circle[0].path(format!("kept {round}")), circle[0].path("draft"));
        fs::write(&name, "before").unwrap();
        circle[0].synced(PATIENCE);
        fs::write(&name, "whole").unwrap();
        let draft = fs::File::create(&other).unwrap();
        // Whatever a program starts closes what that has open, on its way.
        std::process::Command::new("true").status().unwrap();
        fs::rename(&other, &name).unwrap();
        circle[0].kill();
        drop(draft);
        circle[0].run();
        assert_eq!(fs::read_to_string(&name).unwrap(), "whole", "{}", name.display());
        assert!(!other.exists());
    }
}

#[test]
fn a_file_without_a_name_that_is_still_open_keeps_nobody_waiting() {
    let Some(circle) = Circle::strangers_or_skip(&["laptop"]) else { return };
    let path = circle[0].path("scratch");
    let mut file = fs::File::create(&path).unwrap();
    fs::remove_file(&path).unwrap();
    file.write_all(b"bytes").unwrap();
    file.sync_all().unwrap();
    circle[0].synced(PATIENCE);
    assert_eq!(file.metadata().unwrap().len(), 5);
}

#[test]
fn a_stale_mount_of_a_dead_daemon_is_cleaned_up() {
    let Some(mut circle) = Circle::strangers_or_skip(&["laptop"]) else { return };
    let mut file = fs::File::create(circle[0].path("kept.txt")).unwrap();
    file.write_all(b"kept").unwrap();
    file.sync_all().unwrap();
    // A program holds the file open, and works in a directory of the folder.
    let inside = circle[0].path("inside");
    fs::create_dir(&inside).unwrap();
    let mut program = std::process::Command::new("cat");
    program.current_dir(&inside).stdin(std::process::Stdio::piped());
    let mut program = program.spawn().unwrap();
    circle[0].kill();
    let stale = fs::read_dir(circle[0].mount());
    assert!(stale.is_err(), "the mount of a dead daemon is dead");
    circle[0].run();
    assert!(
        file.write_all(b"more").and_then(|()| file.sync_all()).is_err(),
        "it is of the dead mount"
    );
    assert!(circle[0].path("inside").is_dir());
    drop(program.stdin.take());
    assert!(program.wait().unwrap().success());
    pulse::until(PATIENCE, "the file is back", || {
        fs::read_to_string(circle[0].path("kept.txt")).map(drop).map_err(|error| error.to_string())
    });
}
