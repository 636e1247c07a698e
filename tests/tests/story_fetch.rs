//! Bytes that are not here yet: fetched when they are opened, before everything else.

use kith_tests::circle::{Circle, PATIENCE};
use kith_tests::{grove, pulse};
use std::fs;
use std::os::unix::fs::FileExt as _;

#[test]
fn a_file_opened_at_once_is_fetched_at_once() {
    let Some(circle) = Circle::or_skip(&["laptop", "desktop"]) else { return };
    // 300 MB take a long time at this rate: whatever comes before they have all come has overtaken.
    circle.lab.shape("80mbit");
    fs::create_dir(circle[0].path("background")).unwrap();
    for number in 0..15 {
        let path = circle[0].path(format!("background/{number:02}"));
        grove::noise(&path, number, 20_000_000).unwrap();
    }
    grove::noise(&circle[0].path("wanted"), 99, 1_000_000).unwrap();
    let (wanted, last) = (circle[1].path("wanted"), circle[1].path("background/14"));
    for path in [&wanted, &last] {
        pulse::until(PATIENCE, &format!("the desktop lists {}", path.display()), || {
            fs::metadata(path).map(drop).map_err(|error| error.to_string())
        });
    }
    assert!(circle[1].missing_bytes().unwrap() > 100_000_000, "there is nothing to overtake");
    let read = fs::read(&wanted).unwrap();
    assert!(circle[1].missing_bytes().unwrap() > 0, "it came after everything else");
    assert!(read == fs::read(circle[0].path("wanted")).unwrap());

    // So is the middle of the last file in the queue.
    let last = fs::File::open(last).unwrap();
    let mut piece = [0; 4096];
    last.read_exact_at(&mut piece, 10_000_000).unwrap();
    assert!(circle[1].missing_bytes().unwrap() > 0, "it came after everything else");
    let mut original = [0; 4096];
    let file = fs::File::open(circle[0].path("background/14")).unwrap();
    file.read_exact_at(&mut original, 10_000_000).unwrap();
    assert!(piece == original);
    circle.settle();
}

#[test]
fn a_small_edit_is_not_delayed_by_a_large_transfer() {
    let Some(circle) = Circle::or_skip(&["laptop", "desktop"]) else { return };
    circle.lab.shape("100mbit");
    grove::noise(&circle[0].path("large"), 1, 250_000_000).unwrap();
    pulse::until(PATIENCE, "the transfer goes on", || {
        let missing = circle[1].missing_bytes()?;
        if missing > 0 { Ok(()) } else { Err("nothing is missing".into()) }
    });
    for round in 0..5 {
        fs::write(circle[0].path("edit.txt"), format!("edit {round}")).unwrap();
        pulse::until(PATIENCE, "the edit arrives", || {
            match fs::read_to_string(circle[1].path("edit.txt")) {
                Ok(text) if text == format!("edit {round}") => Ok(()),
                other => Err(format!("{other:?}")),
            }
        });
    }
    assert!(circle[1].missing_bytes().unwrap() > 0, "the edits came after everything else");
    circle.settle();
}

#[test]
fn a_read_of_bytes_that_cannot_come_ends_with_an_error() {
    let Some(mut circle) = Circle::or_skip(&["laptop", "desktop"]) else { return };
    circle[1].terminate(PATIENCE);
    fs::write(circle[1].home().join("config.toml"), "read_deadline_seconds = 2\n").unwrap();
    circle[1].run();
    circle.lab.shape("20mbit");
    grove::noise(&circle[0].path("far away"), 1, 30_000_000).unwrap();
    let path = circle[1].path("far away");
    pulse::until(PATIENCE, "the desktop lists it", || {
        fs::metadata(&path).map(drop).map_err(|error| error.to_string())
    });
    let file = fs::File::open(&path).unwrap();
    circle.lab.cut(1);
    let mut last = [0; 4096];
    file.read_exact_at(&mut last, 29_000_000).unwrap_err();
    // All names are still there.
    assert_eq!(fs::metadata(&path).unwrap().len(), 30_000_000);
    assert_eq!(fs::read_dir(circle[1].mount()).unwrap().count(), 1);
    circle.lab.join(1);
    circle.settle();
    file.read_exact_at(&mut last, 29_000_000).unwrap();
}
