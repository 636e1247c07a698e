//! A daemon is killed right after somebody's last file was closed: the files are all there.
#![expect(clippy::unwrap_used, reason = "a test fails where it unwraps")]

use kith_tests::circle::Circle;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;

/// Files by their names.
fn files_in(at: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(at).unwrap().map(|entry| entry.unwrap());
    let file = |entry: fs::DirEntry| {
        let name = entry.file_name().into_string().unwrap();
        (name, fs::read(entry.path()).unwrap())
    };
    entries.map(file).collect()
}

#[test]
fn files_that_were_closed_just_before_a_kill_are_whole_and_in_their_places() {
    let Some(mut circle) = Circle::strangers_or_skip(&["laptop"]) else { return };
    for round in 0..4_u8 {
        let at = circle[0].path(format!("round {round}"));
        fs::create_dir(&at).unwrap();
        let mut expected = BTreeMap::new();
        for number in 0..40 {
            let name = format!("empty {number}");
            File::create(at.join(&name)).unwrap();
            expected.insert(name, Vec::new());
        }
        // Some are there already, so that what comes takes the place of a version.
        for number in 0..20 {
            fs::write(at.join(format!("small {number}")), "before").unwrap();
        }
        for number in 0..200_usize {
            let name = format!("small {number}");
            let bytes = vec![b'a' + round; 1 + number * 389 % 30_000];
            let mut file = File::create(at.join(&name)).unwrap();
            file.write_all(&bytes).unwrap();
            drop(file);
            expected.insert(name, bytes);
        }
        circle[0].kill();
        circle[0].run();
        let found = files_in(&at);
        let names = |files: &BTreeMap<String, Vec<u8>>| files.keys().cloned().collect::<Vec<_>>();
        assert_eq!(names(&found), names(&expected), "in round {round}");
        for (name, bytes) in expected {
            assert!(found[&name] == bytes, "{name} in round {round}");
        }
    }
}
