//! Lines that were changed apart, in one text, on devices that could not reach one another.
#![expect(clippy::unwrap_used, reason = "a test fails where it unwraps")]

use kith_tests::circle::{Circle, PATIENCE};
use kith_tests::device::Device;
use kith_tests::pulse;
use std::fs;
use std::io::{Read as _, Write as _};

const BEFORE: &str = "one\ntwo\nthree\nfour\nfive\n";
const FIRST: &str = "ONE\ntwo\nthree\nfour\nfive\n";
const SECOND: &str = "one\ntwo\nthree\nfour\nFIVE\n";
const BOTH: &str = "ONE\ntwo\nthree\nfour\nFIVE\n";

/// As most editors save: a new file beside it, renamed over it.
fn save_over(device: &Device, name: &str, text: impl AsRef<[u8]>) {
    let beside = device.path(format!(".{name}.new"));
    let mut file = fs::File::create(&beside).unwrap();
    file.write_all(text.as_ref()).unwrap();
    file.sync_all().unwrap();
    drop(file);
    fs::rename(beside, device.path(name)).unwrap();
}

fn save(device: &Device, name: &str, text: impl AsRef<[u8]>) {
    fs::write(device.path(name), text).unwrap();
}

fn apart(circle: &Circle, act: impl FnOnce()) {
    circle.settle();
    circle.lab.cut(1);
    for device in &circle.devices {
        pulse::until(PATIENCE, &format!("{} is alone", device.name()), || {
            let (_, connected) = device.share()?;
            if connected == 0 { Ok(()) } else { Err(format!("{connected} connected")) }
        });
    }
    act();
    circle.lab.join(1);
}

/// Waits until every device shows just these files of the root, with these texts.
fn shows(circle: &Circle, expected: &[(&str, &str)]) {
    let sees = |device: &Device| {
        let mut names = Vec::new();
        for entry in fs::read_dir(device.mount()).map_err(|error| error.to_string())? {
            let entry = entry.map_err(|error| error.to_string())?;
            let name = entry.file_name().into_string().unwrap();
            let text = fs::read_to_string(entry.path()).map_err(|error| error.to_string())?;
            names.push((name, text));
        }
        names.sort();
        Ok::<_, String>(names)
    };
    for device in &circle.devices {
        pulse::until(PATIENCE, &format!("{} shows what was merged", device.name()), || {
            let found = sees(device)?;
            let found: Vec<(&str, &str)> =
                found.iter().map(|(name, text)| (&**name, &**text)).collect();
            if found == expected { Ok(()) } else { Err(format!("{found:?}")) }
        });
    }
    circle.settle();
}

/// Waits until all is settled, and demands that a name is there in this many forms.
fn kept(circle: &Circle, name: &str, forms: usize) {
    let tree = circle.settle();
    let begin = name.split('.').next().unwrap();
    let names = tree.nodes.keys().filter(|path| path.to_string_lossy().starts_with(begin));
    let names: Vec<_> = names.collect();
    assert_eq!(names.len(), forms, "{names:?}");
}

#[test]
fn lines_changed_apart_are_merged_on_all_devices() {
    let Some(circle) = Circle::or_skip(&["laptop", "desktop"]) else { return };
    let [laptop, desktop] = [&circle[0], &circle[1]];
    let names = ["in place.txt", "in two ways.txt", "other way round.txt", "renamed.txt"];
    for name in names {
        save(laptop, name, BEFORE);
    }
    let events = laptop.events();
    apart(&circle, || {
        save(laptop, "in place.txt", FIRST);
        save(desktop, "in place.txt", SECOND);
        save_over(laptop, "renamed.txt", FIRST);
        // Saved more than once.
        save_over(desktop, "renamed.txt", "one\ntwo\nthree\nfour\n5\n");
        save_over(desktop, "renamed.txt", SECOND);
        save(laptop, "in two ways.txt", FIRST);
        save_over(desktop, "in two ways.txt", SECOND);
        save_over(laptop, "other way round.txt", FIRST);
        save(desktop, "other way round.txt", SECOND);
        // Whoever has read it before sees the new bytes.
        for name in names {
            fs::read(laptop.path(name)).unwrap();
            fs::read(desktop.path(name)).unwrap();
        }
    });
    shows(&circle, &names.map(|name| (name, BOTH)));
    for device in &circle.devices {
        let status = device.status().unwrap();
        assert_eq!(status["shares"][0]["conflicts"], 0, "{status}");
    }
    // What goes on from there is an ordinary change.
    for name in names {
        save(laptop, name, "over");
    }
    shows(&circle, &names.map(|name| (name, "over")));
    drop(events);
}

#[test]
fn what_can_not_be_merged_is_kept_twice() {
    let Some(circle) = Circle::or_skip(&["laptop", "desktop"]) else { return };
    let [laptop, desktop] = [&circle[0], &circle[1]];
    save(laptop, "lines.txt", BEFORE);
    save(laptop, "binary.bin", "one\ntwo\0\nthree\nfour\nfive\n");
    save(laptop, "merged.txt", BEFORE);
    apart(&circle, || {
        save(laptop, "lines.txt", FIRST);
        save(desktop, "lines.txt", "1\ntwo\nthree\nfour\nfive\n");
        save(laptop, "binary.bin", "ONE\ntwo\0\nthree\nfour\nfive\n");
        save(desktop, "binary.bin", "one\ntwo\0\nthree\nfour\nFIVE\n");
        save(laptop, "merged.txt", FIRST);
        save(desktop, "merged.txt", SECOND);
    });
    // Names are looked at in turn, so the others were looked at when this one is merged everywhere.
    for device in &circle.devices {
        pulse::until(PATIENCE, "the one that can be merged is", || {
            let text =
                fs::read_to_string(device.path("merged.txt")).map_err(|it| it.to_string())?;
            if text == BOTH { Ok(()) } else { Err(text) }
        });
    }
    kept(&circle, "merged.txt", 1);
    kept(&circle, "lines.txt", 2);
    kept(&circle, "binary.bin", 2);
    // An overlap that somebody resolves in one of the versions is none any more.
    save(laptop, "lines.txt", BEFORE);
    circle.settle();
}

#[test]
fn nothing_is_merged_where_it_is_switched_off() {
    let Some(mut circle) = Circle::or_skip(&["laptop", "desktop"]) else { return };
    save(&circle[0], "lines.txt", BEFORE);
    circle.settle();
    for device in &mut circle.devices {
        device.terminate(PATIENCE);
        let settings = "[shares.Kith]\nmerge_text = false\n";
        fs::write(device.home().join("config.toml"), settings).unwrap();
        device.run();
    }
    apart(&circle, || {
        save(&circle[0], "lines.txt", FIRST);
        save(&circle[1], "lines.txt", SECOND);
    });
    kept(&circle, "lines.txt", 2);
    // And where it is switched on again, what was left is merged.
    circle[0].terminate(PATIENCE);
    fs::write(circle[0].home().join("config.toml"), "").unwrap();
    circle[0].run();
    shows(&circle, &[("lines.txt", BOTH)]);
}

#[test]
fn a_file_that_is_open_for_writing_is_merged_once_it_is_closed() {
    let Some(circle) = Circle::or_skip(&["laptop", "desktop"]) else { return };
    let [laptop, desktop] = [&circle[0], &circle[1]];
    save(laptop, "lines.txt", BEFORE);
    circle.settle();
    let mut reading = fs::File::open(laptop.path("lines.txt")).unwrap();
    let mut writing = fs::OpenOptions::new().write(true).open(laptop.path("lines.txt")).unwrap();
    save(desktop, "lines.txt", SECOND);
    circle.settle();
    writing.write_all(b"ONE").unwrap();
    drop(writing);
    shows(&circle, &[("lines.txt", BOTH)]);
    let mut text = String::new();
    reading.read_to_string(&mut text).unwrap();
    assert_eq!(text, FIRST, "who has it open goes on with what was opened");
}
