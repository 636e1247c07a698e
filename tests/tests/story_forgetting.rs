//! Removed files are forgotten once every device knows; whoever was away brings none of them back.
#![expect(clippy::unwrap_used, reason = "a test fails where it unwraps")]

use kith_tests::circle::{Circle, PATIENCE};
use kith_tests::device::Device;
use kith_tests::pulse;
use std::fs;

/// What a daemon notes when something went.
const FORGOT: &str = "what was removed is forgotten";

/// Three devices that keep nothing that was removed, and the third of which has been cut off.
fn two_of_three() -> Option<Circle> {
    let mut circle = Circle::or_skip(&["laptop", "desktop", "nas"])?;
    for device in &mut circle.devices {
        device.terminate(PATIENCE);
        fs::write(device.home().join("config.toml"), "history_days = 0\n").unwrap();
        device.run();
    }
    fs::create_dir(circle[0].path("papers")).unwrap();
    for name in ["papers/letter", "papers/bill", "list", "kept"] {
        fs::write(circle[0].path(name), format!("{name} of the laptop")).unwrap();
    }
    circle.settle();
    circle.lab.cut(3);
    for (device, peers) in circle.devices.iter().zip([1, 1, 0]) {
        connected(device, peers);
    }
    Some(circle)
}

fn connected(device: &Device, peers: usize) {
    pulse::until(PATIENCE, &format!("{} has {peers} peers", device.name()), || {
        let (_, connected) = device.share()?;
        if connected == peers { Ok(()) } else { Err(format!("{connected}")) }
    });
}

/// The laptop removes all but one file, and the third device changes one of them.
fn remove_and_change(circle: &Circle) {
    fs::remove_dir_all(circle[0].path("papers")).unwrap();
    fs::remove_file(circle[0].path("list")).unwrap();
    fs::write(circle[2].path("list"), "longer, on the nas").unwrap();
    fs::write(circle[2].path("new"), "made on the nas").unwrap();
    pulse::until(PATIENCE, "the desktop hears of it", || {
        let is_there = circle[1].path("list").exists() || circle[1].path("papers").exists();
        if is_there { Err("it still has them".into()) } else { Ok(()) }
    });
}

/// What the third device changed came, and nothing else.
fn check(circle: &Circle) {
    let tree = circle.settle();
    let names: Vec<String> = tree.nodes.keys().map(|path| path.display().to_string()).collect();
    assert_eq!(names, ["kept", "list", "new"]);
    for device in &circle.devices {
        assert_eq!(fs::read_to_string(device.path("list")).unwrap(), "longer, on the nas");
        assert_eq!(fs::read_to_string(device.path("new")).unwrap(), "made on the nas");
    }
}

/// Waits until a device has forgotten something.
fn forgets(device: &Device) {
    pulse::until(PATIENCE, &format!("{} forgets", device.name()), || {
        if device.logged(FORGOT) { Ok(()) } else { Err("it hasn't".into()) }
    });
}

#[test]
fn a_member_that_was_away_is_waited_for_and_brings_nothing_back() {
    let Some(circle) = two_of_three() else { return };
    remove_and_change(&circle);
    assert!(!circle[0].logged(FORGOT) && !circle[1].logged(FORGOT), "the nas may not know");
    circle.lab.join(3);
    check(&circle);
    circle.devices.iter().for_each(forgets);
    check(&circle);
}

#[test]
fn who_was_removed_and_joins_again_brings_back_its_changes_and_nothing_else() {
    let Some(mut circle) = two_of_three() else { return };
    remove_and_change(&circle);
    let removed = circle[0].ask(&["devices", "remove", "nas", "--yes"]);
    assert_eq!(removed.code, Some(0), "{removed:?}");
    forgets(&circle[0]);
    forgets(&circle[1]);
    // It can come back only as a new device, with the folder that it has.
    let nas = &mut circle[2];
    nas.terminate(PATIENCE);
    for identity in ["identity", "circle"] {
        let data = nas.home().join("data");
        fs::rename(data.join(identity), data.join(format!("former {identity}"))).unwrap();
    }
    nas.run();
    circle.lab.join(3);
    circle[2].pair(&circle[0]);
    check(&circle);
}
