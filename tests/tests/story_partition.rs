//! Cables are cut, both sides go on, and end the same.
#![expect(clippy::unwrap_used, reason = "a test fails where it unwraps")]

use kith_tests::circle::{Circle, PATIENCE};
use kith_tests::device::{Device, settled};
use kith_tests::pulse;
use kith_tests::tree::{Kind, Tree};
use std::fs;
use std::io::Write as _;
use std::path::Path;

/// Waits until a device is connected to as many others.
fn connected(device: &Device, peers: usize) {
    pulse::until(PATIENCE, &format!("{} is connected to {peers}", device.name()), || {
        let (_, connected) = device.share()?;
        if connected == peers { Ok(()) } else { Err(format!("it is to {connected}")) }
    });
}

/// The names in a tree's root that begin and end so, without the plain one.
fn beside(tree: &Tree, begin: &str, end: &str) -> Vec<String> {
    let names = tree.nodes.keys().filter(|path| path.components().count() == 1);
    let names = names.map(|path| path.to_string_lossy().into_owned());
    let plain = format!("{begin}{end}");
    names.filter(|n| n.starts_with(begin) && n.ends_with(end) && *n != plain).collect()
}

fn plant(at: &Path) {
    for directory in ["dir", "moved by both", "emptied"] {
        fs::create_dir(at.join(directory)).unwrap();
    }
    for file in [
        "both.txt",
        "edited and removed.txt",
        "removed and renamed.txt",
        "dir/file",
        "emptied/file",
    ] {
        fs::write(at.join(file), format!("the first {file}")).unwrap();
    }
}

fn change(devices: [&Device; 2]) {
    let [laptop, desktop] = devices;
    for device in devices {
        fs::write(device.path("both.txt"), format!("from {}", device.name())).unwrap();
        fs::write(device.path("twin.txt"), format!("a twin of {}", device.name())).unwrap();
        fs::write(device.path("equal.txt"), "the same idea").unwrap();
        fs::create_dir(device.path("same dir")).unwrap();
        fs::write(device.path("same dir").join(device.name()), "in one directory").unwrap();
    }
    fs::rename(laptop.path("dir"), laptop.path("renamed dir")).unwrap();
    fs::write(desktop.path("dir/new"), "put where it was").unwrap();
    fs::remove_file(laptop.path("edited and removed.txt")).unwrap();
    fs::write(desktop.path("edited and removed.txt"), "an edit survives").unwrap();
    fs::rename(laptop.path("removed and renamed.txt"), laptop.path("renamed.txt")).unwrap();
    fs::remove_file(desktop.path("removed and renamed.txt")).unwrap();
    fs::remove_dir_all(laptop.path("emptied")).unwrap();
    fs::write(desktop.path("emptied/late"), "somebody works in it").unwrap();
    fs::rename(laptop.path("moved by both"), laptop.path("moved by laptop")).unwrap();
    fs::rename(desktop.path("moved by both"), desktop.path("moved by desktop")).unwrap();
}

fn check(circle: &Circle) {
    let tree = circle.settle();
    let read = |name: &str| fs::read_to_string(circle[0].path(name)).unwrap();
    let mut versions = vec![read("both.txt")];
    let copies = beside(&tree, "both", ".txt");
    assert_eq!(copies.len(), 1, "one conflict is kept beside: {copies:?}");
    let (begins, ends) = (copies[0].starts_with("both (conflict "), copies[0].ends_with(").txt"));
    assert!(begins && ends, "{copies:?}");
    versions.push(read(&copies[0]));
    versions.sort();
    assert_eq!(versions, ["from desktop", "from laptop"]);

    let twins = beside(&tree, "twin", ".txt");
    assert_eq!(twins.len(), 1, "{twins:?}");
    let mut contents = [read("twin.txt"), read(&twins[0])];
    contents.sort();
    assert_eq!(contents, ["a twin of desktop", "a twin of laptop"]);
    assert!(
        ["twin (laptop).txt", "twin (desktop).txt"].contains(&twins[0].as_str()),
        "it is named by who made it: {twins:?}"
    );

    assert_eq!(beside(&tree, "equal", ".txt"), Vec::<String>::new());
    assert_eq!(read("equal.txt"), "the same idea");
    assert_eq!(read("same dir/laptop"), read("same dir/desktop"));
    assert_eq!(read("renamed dir/new"), "put where it was");
    assert!(!tree.has(Path::new("dir")));
    assert_eq!(read("edited and removed.txt"), "an edit survives");
    assert_eq!(read("renamed.txt"), "the first removed and renamed.txt");
    assert_eq!(read("emptied/late"), "somebody works in it");
    let moved = tree.nodes.iter().filter(|(path, node)| {
        node.kind == Kind::Directory && path.to_string_lossy().starts_with("moved by")
    });
    assert_eq!(moved.count(), 1, "a directory has one name");
    for device in &circle.devices {
        let status = device.status().unwrap();
        assert!(status["shares"][0]["conflicts"].as_u64().unwrap() >= 1, "{status}");
    }
}

#[test]
fn both_sides_change_everything_while_the_cable_is_cut() {
    let Some(circle) = Circle::or_skip(&["laptop", "desktop"]) else { return };
    plant(circle[0].mount());
    circle.settle();
    circle.lab.cut(1);
    for device in &circle.devices {
        connected(device, 0);
        assert_eq!(device.status().unwrap()["shares"][0]["state"], "offline");
    }
    change([&circle[0], &circle[1]]);
    circle.lab.join(1);
    check(&circle);
}

#[test]
fn both_sides_change_everything_in_a_gap_that_nobody_notices() {
    let Some(circle) = Circle::or_skip(&["laptop", "desktop"]) else { return };
    plant(circle[0].mount());
    circle.settle();
    circle.lab.cut(2);
    change([&circle[0], &circle[1]]);
    circle.lab.join(2);
    check(&circle);
}

#[test]
fn a_conflict_is_settled_by_saving_and_removing() {
    let Some(circle) = Circle::or_skip(&["laptop", "desktop"]) else { return };
    fs::write(circle[0].path("plan.txt"), "the plan").unwrap();
    circle.settle();
    circle.lab.cut(1);
    for device in &circle.devices {
        fs::write(device.path("plan.txt"), format!("as {} wants it", device.name())).unwrap();
    }
    circle.lab.join(1);
    let tree = circle.settle();
    let copies = beside(&tree, "plan", ".txt");
    assert_eq!(copies.len(), 1, "{copies:?}");
    // The copy goes while the file is being written, which is settled by that too.
    let mut plan = fs::File::create(circle[1].path("plan.txt")).unwrap();
    fs::remove_file(circle[1].path(&copies[0])).unwrap();
    plan.write_all(b"as both want it").unwrap();
    drop(plan);
    let tree = circle.settle();
    assert_eq!(tree.nodes.len(), 1, "{:?}", tree.nodes.keys());
    assert_eq!(fs::read_to_string(circle[0].path("plan.txt")).unwrap(), "as both want it");
    for device in &circle.devices {
        assert_eq!(device.status().unwrap()["shares"][0]["conflicts"], 0);
    }
}

#[test]
fn a_directory_that_was_removed_here_comes_back_alive() {
    let Some(circle) = Circle::or_skip(&["laptop", "desktop"]) else { return };
    for name in ["removed", "replaced"] {
        fs::create_dir(circle[0].path(name)).unwrap();
        fs::write(circle[0].path(name).join("file"), "first").unwrap();
    }
    fs::create_dir(circle[0].path("over")).unwrap();
    circle.settle();
    circle.lab.cut(1);
    // Programs have something open in both, so that the kernel can't forget them.
    let mut open = Vec::new();
    for name in ["removed", "replaced"] {
        open.push(fs::File::open(circle[0].path(name).join("file")).unwrap());
        open.push(fs::File::open(circle[0].path(name)).unwrap());
        fs::remove_file(circle[0].path(name).join("file")).unwrap();
        fs::write(circle[1].path(name).join("new"), "second").unwrap();
    }
    fs::remove_dir(circle[0].path("removed")).unwrap();
    fs::rename(circle[0].path("over"), circle[0].path("replaced")).unwrap();
    assert!(open.iter().all(|file| file.metadata().is_ok()), "what is open can be asked");
    circle.lab.join(1);
    let tree = circle.settle();
    for name in ["removed", "replaced"] {
        assert!(tree.has(&Path::new(name).join("new")), "{:?}", tree.nodes.keys());
        fs::write(circle[0].path(name).join("here"), "third").unwrap();
    }
    circle.settle();
}

#[test]
fn what_is_written_to_an_open_file_survives_that_it_is_removed_elsewhere() {
    let Some(circle) = Circle::or_skip(&["laptop", "desktop"]) else { return };
    for name in ["removed there.txt", "removed here.txt"] {
        fs::write(circle[0].path(name), "first").unwrap();
    }
    circle.settle();
    let mut open = fs::OpenOptions::new();
    let open = open.append(true);
    let mut there = open.open(circle[0].path("removed there.txt")).unwrap();
    let mut here = open.open(circle[0].path("removed here.txt")).unwrap();
    there.write_all(b", second").unwrap();
    here.write_all(b", second").unwrap();
    fs::remove_file(circle[0].path("removed here.txt")).unwrap();
    fs::remove_file(circle[1].path("removed there.txt")).unwrap();
    pulse::until(PATIENCE, "the removal arrives", || {
        match fs::symlink_metadata(circle[0].path("removed there.txt")) {
            Err(_) => Ok(()),
            Ok(_) => Err("the file is there".into()),
        }
    });
    there.write_all(b", third").unwrap();
    drop(there);
    drop(here);
    let tree = circle.settle();
    assert_eq!(tree.nodes.len(), 1, "{:?}", tree.nodes.keys());
    let read = fs::read_to_string(circle[1].path("removed there.txt")).unwrap();
    assert_eq!(read, "first, second, third");
}

#[test]
fn two_devices_that_only_ever_meet_a_third_agree() {
    let Some(circle) = Circle::strangers_or_skip(&["outer", "middle", "other"]) else { return };
    circle.lab.isolate(1);
    circle.lab.isolate(3);
    circle[0].pair(&circle[1]);
    circle[2].pair(&circle[1]);
    fs::create_dir(circle[0].path("relayed")).unwrap();
    fs::write(circle[0].path("relayed/outer"), vec![1; 3_000_000]).unwrap();
    fs::write(circle[2].path("other"), vec![2; 3_000_000]).unwrap();
    let devices = [(&circle[0], 1), (&circle[1], 2), (&circle[2], 1)];
    let tree = settled(&devices, PATIENCE);
    assert_eq!(tree.nodes.len(), 3, "{:?}", tree.nodes.keys());
    fs::rename(circle[2].path("relayed"), circle[2].path("renamed")).unwrap();
    fs::write(circle[0].path("other"), "replaced").unwrap();
    let tree = settled(&devices, PATIENCE);
    assert!(tree.has(Path::new("renamed/outer")));
    assert_eq!(fs::read_to_string(circle[2].path("other")).unwrap(), "replaced");
}

#[test]
fn changes_pass_through_a_third_device_though_never_all_are_online() {
    let Some(circle) = Circle::or_skip(&["middle", "outer", "other"]) else { return };
    fs::write(circle[0].path("story.txt"), "once").unwrap();
    circle.settle();
    circle.lab.cut(3);
    for device in [0, 1] {
        connected(&circle[device], 1);
    }
    for round in 0..2 {
        // The outer two take turns; what one writes reaches the other by the middle alone.
        for (online, offline) in [(1, 2), (2, 1)] {
            let writer = &circle[online];
            let name = format!("{round} of {}", writer.name());
            let story = fs::read_to_string(writer.path("story.txt")).unwrap();
            fs::write(writer.path("story.txt"), format!("{story}, {name}")).unwrap();
            fs::write(writer.path(&name), vec![3; 500_000]).unwrap();
            settled(&[(&circle[0], 1), (writer, 1)], PATIENCE);
            circle.lab.cut(online + 1);
            connected(&circle[0], 0);
            circle.lab.join(offline + 1);
            settled(&[(&circle[0], 1), (&circle[offline], 1)], PATIENCE);
        }
    }
    circle.lab.join(3);
    let tree = circle.settle();
    let story = fs::read_to_string(circle[1].path("story.txt")).unwrap();
    assert_eq!(story, "once, 0 of outer, 0 of other, 1 of outer, 1 of other");
    assert_eq!(tree.nodes.len(), 5, "no conflict: {:?}", tree.nodes.keys());
}
