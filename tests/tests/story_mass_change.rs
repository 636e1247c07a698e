//! One device takes a large part of the folder away; the others keep it and say so.
#![expect(clippy::unwrap_used, reason = "a test fails where it unwraps")]

use kith_tests::circle::{Circle, PATIENCE};
use kith_tests::device::Device;
use kith_tests::pulse;
use serde_json::Value;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::process::{Child, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

/// How long a listener that has just been started is given to hear something.
const GLANCE: Duration = Duration::from_millis(500);

/// The mass changes that a device's status shows.
fn mass_changes(device: &Device) -> Result<Vec<Value>, String> {
    let (share, _) = device.share()?;
    Ok(share["mass_changes"].as_array().cloned().unwrap_or_default())
}

fn shows(device: &Device, removed: u64, overwritten: u64) {
    let what = format!("{} shows {removed} removed, {overwritten} overwritten", device.name());
    pulse::until(PATIENCE, &what, || match mass_changes(device)?.as_slice() {
        [change] if change["removed"] == removed && change["overwritten"] == overwritten => Ok(()),
        others => Err(format!("it shows {others:?}")),
    });
}

fn shows_none(device: &Device) {
    pulse::until(PATIENCE, &format!("{} shows no mass change", device.name()), || {
        let changes = mass_changes(device)?;
        if changes.is_empty() { Ok(()) } else { Err(format!("it shows {changes:?}")) }
    });
}

/// A listener to a device's events.
struct Listener(Child, Receiver<String>);

impl Listener {
    fn to(device: &Device) -> Listener {
        let mut command = device.kith();
        let mut child = command.args(["events", "--json"]).stdout(Stdio::piped()).spawn().unwrap();
        let (tell, lines) = channel();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        std::thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                let _nobody_listens = tell.send(line);
            }
        });
        // It hears what happens once it listens, so something happens until it hears.
        for number in 0.. {
            fs::write(device.path("heard"), format!("{} {number}", device.name())).unwrap();
            match lines.recv_timeout(GLANCE) {
                Ok(_) => break,
                Err(RecvTimeoutError::Timeout) => {}
                Err(gone) => panic!("{} has no events: {gone}", device.name()),
            }
        }
        Listener(child, lines)
    }

    /// The next event of a type.
    fn next(&self, kind: &str) -> Value {
        loop {
            let line = self.1.recv_timeout(PATIENCE).expect("the event comes");
            let event: Value = serde_json::from_str(&line).unwrap();
            if event["type"] == kind {
                return event;
            }
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

#[test]
fn a_wrong_rm_is_told_on_the_other_devices_until_one_of_them_is_told_that_it_was_meant() {
    let Some(mut circle) = Circle::or_skip(&["laptop", "desktop", "nas"]) else { return };
    fs::create_dir(circle[0].path("photos")).unwrap();
    for number in 0..300 {
        fs::write(circle[0].path(format!("photos/{number}")), format!("photo {number}")).unwrap();
    }
    fs::write(circle[0].path("keep"), "kept").unwrap();
    circle.settle();
    let events = Listener::to(&circle[1]);
    fs::remove_dir_all(circle[0].path("photos")).unwrap();
    let event = events.next("mass_change");
    assert_eq!((&event["device"], &event["files"]), (&"laptop".into(), &302.into()), "{event}");
    for device in &circle.devices[1..] {
        shows(device, 300, 0);
    }
    assert_eq!(mass_changes(&circle[0]), Ok(Vec::new()), "a person did it there");
    drop(events);
    circle[1].kill();
    circle[1].run();
    shows(&circle[1], 300, 0);
    let text = circle[1].ask(&["status"]).stdout;
    assert!(text.contains("laptop removed 300 of 302 files"), "{text}");
    assert!(text.contains("If it was meant: kith meant laptop"), "{text}");

    let events = Listener::to(&circle[2]);
    assert_eq!(circle[1].ask(&["meant", "phone"]).code, Some(1));
    let meant = circle[1].ask(&["meant", "laptop", "--json"]);
    assert_eq!(meant.code, Some(0), "{meant:?}");
    let meant: Value = serde_json::from_str(&meant.stdout).unwrap();
    assert_eq!(meant["meant"][0]["removed"], 300, "{meant}");
    assert_eq!(events.next("mass_change_meant")["device"], "laptop");
    circle.devices.iter().for_each(shows_none);
    let again = circle[2].ask(&["meant"]);
    assert_eq!((again.code, again.stdout.as_str()), (Some(0), "Nothing waits for your word.\n"));
}

#[test]
fn a_rewriting_of_everything_made_offline_is_told_when_it_comes_also_through_a_third_device() {
    let Some(mut circle) = Circle::or_skip(&["laptop", "desktop", "nas"]) else { return };
    for number in 0..150 {
        fs::write(circle[1].path(format!("letter {number}")), "a letter").unwrap();
    }
    circle.settle();
    circle[1].kill();
    for number in 0..150 {
        let (path, locked) = (format!("letter {number}"), format!("letter {number}.locked"));
        fs::write(circle[0].path(&path), "scrambled").unwrap();
        fs::rename(circle[0].path(&path), circle[0].path(locked)).unwrap();
    }
    shows(&circle[2], 0, 150);
    circle[0].kill();
    circle[1].run();
    shows(&circle[1], 0, 150);
}
