//! What Kith refuses, and that it says so and touches nothing.
#![expect(clippy::unwrap_used, reason = "a test fails where it unwraps")]

use kith_tests::circle::{Circle, PATIENCE};
use kith_tests::device::{Device, Outcome};
use kith_tests::lab;
use kith_tests::random::Random;
use kith_tests::scratch::{Scratch, is_mounted};
use std::fs;
use std::net::UdpSocket;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::time::Duration;

/// Runs `kith daemon` where it can't start, to its end.
fn refused(device: &Device) -> Outcome {
    let mut command = device.kith();
    command.arg("daemon").arg("--mount").arg(device.mount());
    let outcome = device.outcome(command, Duration::from_secs(30));
    assert_eq!(outcome.code, Some(1), "{outcome:?}");
    assert!(!outcome.stderr.contains("panicked"), "{outcome:?}");
    assert!(!is_mounted(device.mount()), "{outcome:?}");
    outcome
}

#[test]
fn a_mount_point_that_is_not_empty_is_left_alone() {
    let Some(lab) = lab::or_skip(1) else { return };
    let scratch = Scratch::new();
    let device = Device::stopped(&scratch, Some((&lab, 1)), "laptop");
    fs::write(device.path("my file.txt"), "mine").unwrap();
    let outcome = refused(&device);
    assert!(outcome.stderr.contains("empty"), "{outcome:?}");
    assert!(outcome.stderr.contains(device.mount().to_str().unwrap()), "{outcome:?}");
    assert_eq!(fs::read_to_string(device.path("my file.txt")).unwrap(), "mine");
}

#[test]
fn a_second_daemon_on_the_same_data_is_refused() {
    let Some(circle) = Circle::strangers_or_skip(&["laptop"]) else { return };
    let mut second = circle[0].kith();
    second.args(["daemon", "--mount"]).arg(circle.scratch.path().join("elsewhere"));
    fs::create_dir(circle.scratch.path().join("elsewhere")).unwrap();
    let outcome = circle[0].outcome(second, Duration::from_secs(30));
    assert_eq!(outcome.code, Some(1), "{outcome:?}");
    assert!(outcome.stderr.contains("running"), "{outcome:?}");
    fs::write(circle[0].path("still.txt"), "here").unwrap();
    circle[0].status().unwrap();
}

/// All regular files below a directory.
fn files(directory: PathBuf) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut waiting = vec![directory];
    while let Some(directory) = waiting.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let entry = entry.unwrap();
            match entry.file_type().unwrap() {
                kind if kind.is_dir() => waiting.push(entry.path()),
                kind if kind.is_file() => found.push(entry.path()),
                _ => {}
            }
        }
    }
    found
}

#[test]
fn a_damaged_index_or_identity_is_refused_and_left_as_it_is() {
    let Some(lab) = lab::or_skip(1) else { return };
    let scratch = Scratch::new();
    let mut device = Device::stopped(&scratch, Some((&lab, 1)), "laptop");
    device.run();
    fs::write(device.path("kept.txt"), "kept").unwrap();
    device.terminate(PATIENCE);
    let kept = files(device.home().join("data"));
    let databases = kept
        .iter()
        .filter(|path| fs::read(path).is_ok_and(|bytes| bytes.starts_with(b"SQLite format 3\0")));
    let keys = kept.iter().filter(|path| {
        let mode = fs::metadata(path).unwrap().permissions().mode() & 0o777;
        mode == 0o600 && path.to_string_lossy().contains("identity")
    });
    let damaged: Vec<&PathBuf> = databases.chain(keys).collect();
    assert!(damaged.len() >= 2, "an index and an identity are to be found: {kept:?}");
    for path in damaged {
        let whole = fs::read(path).unwrap();
        let mut broken = whole.clone();
        broken[..whole.len().min(64)].fill(0xa5);
        fs::write(path, &broken).unwrap();
        refused(&device);
        assert!(fs::read(path).unwrap() == broken, "{} was touched", path.display());
        fs::write(path, whole).unwrap();
    }
    device.run();
    assert_eq!(fs::read_to_string(device.path("kept.txt")).unwrap(), "kept");
}

#[test]
fn settings_that_are_wrong_are_named() {
    let Some(lab) = lab::or_skip(1) else { return };
    let scratch = Scratch::new();
    let device = Device::stopped(&scratch, Some((&lab, 1)), "laptop");
    fs::create_dir_all(device.home()).unwrap();
    fs::write(device.home().join("config.toml"), "mdns = true\ncolour = 3\n").unwrap();
    let outcome = refused(&device);
    assert!(outcome.stderr.contains("colour"), "{outcome:?}");
}

#[test]
fn garbage_from_the_network_does_no_harm() {
    let Some(circle) = Circle::or_skip(&["laptop", "desktop"]) else { return };
    let status = circle[0].status().unwrap();
    let port = u16::try_from(status["device"]["port"].as_u64().unwrap()).unwrap();
    let target = (circle.lab.address(1), port);
    let socket = circle.lab.on(2, || UdpSocket::bind(("0.0.0.0", 0)).unwrap());
    let mut random = Random::new(5);
    for _ in 0..2_000 {
        let mut datagram = random.bytes(1200);
        datagram.truncate(random.index(1200));
        if random.chance(50)
            && let Some(first) = datagram.first_mut()
        {
            *first |= 0xc0; // A long header: the beginning of a handshake.
        }
        // A full queue drops it, as any network may.
        let _dropped = socket.send_to(&datagram, (target.0.as_str(), target.1));
    }
    fs::write(circle[1].path("after.txt"), "unharmed").unwrap();
    circle.settle();
}

#[test]
fn a_port_that_is_taken_is_avoided() {
    let Some(lab) = lab::or_skip(2) else { return };
    let scratch = Scratch::new();
    let taken = lab.on(1, || UdpSocket::bind(("0.0.0.0", 5484)).unwrap());
    let laptop = Device::start(&scratch, &lab, 1, "laptop");
    let desktop = Device::start(&scratch, &lab, 2, "desktop");
    let status = laptop.status().unwrap();
    assert_ne!(status["device"]["port"], 5484, "{status}");
    desktop.pair(&laptop);
    drop(taken);
}

#[test]
fn wrong_usage_is_told_from_failure() {
    let scratch = Scratch::new();
    let device = Device::stopped(&scratch, None, "laptop");
    for (arguments, code) in [
        (&["frobnicate"][..], 2),
        (&["join"], 2),
        (&["status", "--json"], 1),
        (&["events", "--json"], 1),
        (&["invite", "--json"], 1),
    ] {
        let outcome = device.ask(arguments);
        assert_eq!(outcome.code, Some(code), "{arguments:?}: {outcome:?}");
        assert!(!outcome.stderr.is_empty(), "{arguments:?}: {outcome:?}");
    }
}
