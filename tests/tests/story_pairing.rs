//! Two devices become one circle: the two commands, and what a wrong code gets.

use kith_tests::circle::{Circle, PATIENCE};
use kith_tests::device::Device;
use kith_tests::lab;
use kith_tests::pulse;
use kith_tests::scratch::{Scratch, is_mounted};
use std::fs;

#[test]
fn two_devices_pair_and_show_everything() {
    let names = ["laptop", "desktop"];
    let Some(circle) = Circle::strangers_or_skip(&names) else { return };
    for number in 0..200 {
        fs::write(circle[0].path(format!("photo {number}.jpg")), vec![7; 40_000]).unwrap();
    }
    fs::write(circle[1].path("already here.txt"), "on the desktop before").unwrap();
    circle[1].pair(&circle[0]);
    pulse::until(PATIENCE, "the desktop lists everything", || {
        let names = fs::read_dir(circle[1].mount()).unwrap().count();
        if names == 201 { Ok(()) } else { Err(format!("{names} names")) }
    });
    let tree = circle.settle();
    assert_eq!(tree.files(), 201, "joining merges what either side had");
    let before = fs::read_to_string(circle[0].path("already here.txt")).unwrap();
    assert_eq!(before, "on the desktop before");

    for (device, other) in [(0, 1), (1, 0)] {
        let status = circle[device].status().unwrap();
        assert_eq!(status["device"]["name"], names[device], "{status}");
        assert_eq!(status["devices"][0]["name"], names[other], "{status}");
        assert_eq!(status["devices"][0]["connected"], true, "{status}");
        let address = status["devices"][0]["address"].as_str().unwrap();
        assert!(address.starts_with(&circle.lab.address(other + 1)), "{status}");
        assert!(status["devices"][0]["last_seen"].is_string(), "{status}");
        let share = &status["shares"][0];
        assert_eq!(share["entries"], 201, "{status}");
        assert_eq!(share["bytes"], 200 * 40_000 + 21, "{status}");
        assert_eq!(share["conflicts"], 0, "{status}");
        assert_eq!(share["mount"], circle[device].mount().to_str().unwrap(), "{status}");
    }
}

#[test]
fn events_are_one_object_a_line() {
    let Some(circle) = Circle::or_skip(&["laptop", "desktop"]) else { return };
    let events = circle[0].events();
    // The stream may begin a little after the command does, so there is more than one to hear.
    let mut written = 0;
    let mut heard = None;
    pulse::until(PATIENCE, "an event is heard", || {
        fs::write(circle[1].path(format!("{written}.txt")), "news").unwrap();
        written += 1;
        heard = events.try_recv().ok();
        if heard.is_some() { Ok(()) } else { Err("nothing".into()) }
    });
    let line = heard.unwrap();
    let event: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert!(event["type"].is_string() && event["time"].is_string(), "{line}");
}

/// A code with the number of one and the words of another: never right.
fn wrong(code: &str, other: &str) -> String {
    let (number, _) = code.split_once('-').expect("a code begins with its number");
    let (_, words) = other.split_once('-').expect("a code ends with its words");
    let wrong = format!("{number}-{words}");
    assert_ne!(wrong, code, "two invitations have the same words");
    wrong
}

#[test]
fn a_code_is_burned_by_three_wrong_guesses() {
    let Some(circle) = Circle::strangers_or_skip(&["laptop", "desktop"]) else { return };
    let other = circle[0].invite().code.clone();
    let mut invitation = circle[0].invite();
    let guess = wrong(&invitation.code, &other);
    for attempt in 1..=3 {
        let refused = circle[1].join(&guess);
        assert_eq!(refused.code, Some(1), "attempt {attempt}: {refused:?}");
        assert!(!refused.stderr.trim().is_empty(), "attempt {attempt}: {refused:?}");
        // What the inviting side complains of goes to the device's log.
        let left = format!("{} attempt", 3 - attempt);
        pulse::until(PATIENCE, "the inviting side says so", || {
            let said = attempt == 3 || circle[0].logged(&left);
            if said { Ok(()) } else { Err(format!("no {left:?}")) }
        });
    }
    assert_eq!(invitation.end(PATIENCE), Some(1));
    let late = circle[1].join(&invitation.code);
    assert_eq!(late.code, Some(1), "a burned code still works: {late:?}");
    for device in &circle.devices {
        let status = device.status().unwrap();
        assert_eq!(status["devices"], serde_json::json!([]), "{status}");
    }
    // Nothing is broken by it: the next invitation works.
    circle[1].pair(&circle[0]);
    circle.settle();
}

#[test]
fn a_withdrawn_code_is_refused() {
    let Some(circle) = Circle::strangers_or_skip(&["laptop", "desktop"]) else { return };
    let code = circle[0].invite().code.clone();
    let refused = circle[1].join(&code);
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(!refused.stderr.trim().is_empty(), "{refused:?}");
}

#[test]
fn a_device_that_nobody_invited_sees_nothing() {
    let Some(circle) = Circle::strangers_or_skip(&["laptop", "desktop", "stranger"]) else {
        return;
    };
    circle[1].pair(&circle[0]);
    fs::write(circle[0].path("private.txt"), "for the circle").unwrap();
    pulse::until(PATIENCE, "the desktop has it", || {
        fs::read(circle[1].path("private.txt")).map(drop).map_err(|error| error.to_string())
    });
    let status = circle[2].status().unwrap();
    assert_eq!(status["devices"], serde_json::json!([]), "{status}");
    assert_eq!(fs::read_dir(circle[2].mount()).unwrap().count(), 0);
    for member in [0, 1] {
        let status = circle[member].status().unwrap();
        assert_eq!(status["devices"].as_array().unwrap().len(), 1, "{status}");
    }
}

#[test]
fn up_mounts_and_down_unmounts() {
    let Some(lab) = lab::or_skip(1) else { return };
    let scratch = Scratch::new();
    let device = Device::stopped(&scratch, Some((&lab, 1)), "laptop");
    let mut up = device.kith();
    up.args(["up", "--mount"]).arg(device.mount());
    let up = device.outcome(up, PATIENCE);
    assert_eq!(up.code, Some(0), "{up:?}");
    assert!(is_mounted(device.mount()), "{up:?}");
    fs::write(device.path("note.txt"), "kept").unwrap();
    let mut again = device.kith();
    again.args(["up", "--mount"]).arg(device.mount());
    let again = device.outcome(again, PATIENCE);
    assert_eq!(again.code, Some(0), "a second `up` finds it running: {again:?}");
    let down = device.ask(&["down"]);
    assert_eq!(down.code, Some(0), "{down:?}");
    pulse::until(PATIENCE, "it is unmounted", || {
        if is_mounted(device.mount()) { Err("mounted".into()) } else { Ok(()) }
    });
    assert_eq!(fs::read_dir(device.mount()).unwrap().count(), 0);
}
