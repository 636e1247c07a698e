//! A home is copied: put back later, or run on another machine at the same time.
#![expect(clippy::unwrap_used, reason = "a test fails where it unwraps")]

use kith_tests::circle::{Circle, PATIENCE};
use kith_tests::device::Device;
use kith_tests::lab;
use kith_tests::pulse;
use kith_tests::scratch::Scratch;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

const STOP: Duration = Duration::from_secs(30);

/// Copies a home as people do.
fn copy(from: &Path, to: &Path) {
    if to.exists() {
        fs::remove_dir_all(to).unwrap();
    }
    let copied = Command::new("cp").arg("-a").arg(from).arg(to).status().unwrap();
    assert!(copied.success());
}

/// What `doctor` says of the identity: whether it failed, and its text.
fn identity(device: &Device) -> (bool, String) {
    let outcome = device.ask(&["doctor", "--json"]);
    let report: serde_json::Value = serde_json::from_str(&outcome.stdout).unwrap();
    let checks = report["checks"].as_array().unwrap();
    let check = checks.iter().find(|check| check["name"] == "identity").unwrap();
    (check["outcome"] == "bad", check["detail"].as_str().unwrap().to_owned())
}

/// Waits until `doctor` names a copied identity.
fn noticed(device: &Device) {
    pulse::until(PATIENCE, &format!("{} notices its copy", device.name()), || {
        let (bad, text) = identity(device);
        if bad && text.contains("Another machine has the identity") { Ok(()) } else { Err(text) }
    });
    let status = device.status().unwrap();
    assert!(status["device"]["cloned"].is_string(), "{status}");
    assert!(device.logged("another machine has this device's identity"));
}

#[test]
fn a_restored_home_loses_nothing_of_either_history() {
    let Some(mut circle) = Circle::or_skip(&["laptop", "desktop", "box"]) else { return };
    for device in &circle.devices {
        fs::write(device.path(format!("from {}", device.name())), "early").unwrap();
    }
    fs::write(circle[0].path("edited"), "once").unwrap();
    circle.settle();
    assert!(circle[0].terminate(STOP).success());
    let backup = circle.scratch.path().join("backup");
    copy(&circle[0].home(), &backup);
    // What is lost with the disk: some of it everybody has, some of it only one.
    circle[0].run();
    fs::write(circle[0].path("edited"), "twice, and lost").unwrap();
    for n in 0..20 {
        fs::write(circle[0].path(format!("lost {n}")), format!("lost {n}")).unwrap();
    }
    circle.settle();
    assert!(circle[2].terminate(STOP).success());
    fs::write(circle[0].path("late"), "only the desktop has it").unwrap();
    kith_tests::device::settled(&[(&circle[0], 1), (&circle[1], 1)], PATIENCE);
    assert!(circle[0].terminate(STOP).success());
    copy(&backup, &circle[0].home());
    // Offline, and further in number than what was lost.
    circle.lab.cut(1);
    circle[0].run();
    for n in 0..60 {
        fs::write(circle[0].path(format!("new {n}")), format!("new {n}")).unwrap();
    }
    fs::write(circle[0].path("edited"), "twice, anew").unwrap();
    // The one that knows less comes first.
    assert!(circle[1].terminate(STOP).success());
    circle[2].run();
    circle.lab.join(1);
    kith_tests::device::settled(&[(&circle[0], 1), (&circle[2], 1)], PATIENCE);
    circle[1].run();
    let tree = circle.settle();
    let read = |name: &str| fs::read_to_string(circle[2].path(name)).unwrap();
    for n in 0..20 {
        assert_eq!(read(&format!("lost {n}")), format!("lost {n}"));
    }
    for n in 0..60 {
        assert_eq!(read(&format!("new {n}")), format!("new {n}"));
    }
    assert_eq!(read("late"), "only the desktop has it");
    let edits = tree.nodes.keys().filter(|path| path.to_string_lossy().starts_with("edited"));
    let mut edits: Vec<String> = edits.map(|path| read(&path.to_string_lossy())).collect();
    edits.sort();
    assert_eq!(edits, ["twice, and lost", "twice, anew"]);
    assert_eq!(tree.nodes.len(), 3 + 2 + 20 + 1 + 60, "{:?}", tree.nodes.keys());
    for device in &circle.devices {
        assert!(!identity(device).0, "a restore is no second machine");
    }
}

/// Two devices of a circle, and a third host on which a copy of the first one's home is run.
fn cloned() -> Option<(Circle, Device)> {
    let lab = lab::or_skip(3)?;
    let scratch = Scratch::new();
    let laptop = Device::start(&scratch, &lab, 1, "laptop");
    let desktop = Device::start(&scratch, &lab, 2, "desktop");
    let mut circle = Circle { devices: vec![laptop, desktop], lab, scratch };
    circle[1].pair(&circle[0]);
    fs::write(circle[0].path("shared"), "before").unwrap();
    circle.settle();
    assert!(circle[0].terminate(STOP).success());
    let copied = Device::stopped(&circle.scratch, Some((&circle.lab, 3)), "copy");
    copy(&circle[0].home(), &copied.home());
    circle[0].run();
    Some((circle, copied))
}

/// What the advice that `doctor` prints comes to.
fn give_new_identity(device: &mut Device, inviter: &Device) {
    assert!(device.terminate(STOP).success());
    for file in ["identity", "circle"] {
        let data = device.home().join("data");
        fs::rename(data.join(file), data.join(format!("{file}.old"))).unwrap();
    }
    device.run();
    device.pair(inviter);
}

#[test]
fn two_machines_with_one_identity_both_say_so_and_can_be_told_apart_again() {
    let Some((circle, mut copied)) = cloned() else { return };
    copied.run();
    fs::write(circle[0].path("of the one"), "one").unwrap();
    fs::write(copied.path("of the other"), "other").unwrap();
    noticed(&circle[0]);
    noticed(&copied);
    assert!(!identity(&circle[1]).0, "it is not the desktop that was copied");
    give_new_identity(&mut copied, &circle[1]);
    let devices = [(&circle[0], 2), (&circle[1], 2), (&copied, 2)];
    let tree = kith_tests::device::settled(&devices, PATIENCE);
    let names: Vec<_> = tree.nodes.keys().map(|path| path.to_string_lossy()).collect();
    assert_eq!(names, ["of the one", "of the other", "shared"]);
    assert!(!identity(&copied).0, "it has another identity now");
}

#[test]
fn two_machines_that_never_meet_notice_by_a_third_and_both_make_progress() {
    let Some((circle, mut copied)) = cloned() else { return };
    circle.lab.isolate(1);
    circle.lab.isolate(3);
    copied.run();
    fs::write(circle[0].path("of the one"), "one").unwrap();
    fs::write(copied.path("of the other"), "other").unwrap();
    noticed(&circle[0]);
    noticed(&copied);
    for device in [&circle[0], &circle[1], &copied] {
        pulse::until(PATIENCE, &format!("{} has all", device.name()), || {
            for name in ["of the one", "of the other"] {
                fs::read(device.path(name)).map_err(|error| format!("{name}: {error}"))?;
            }
            Ok(())
        });
    }
}
