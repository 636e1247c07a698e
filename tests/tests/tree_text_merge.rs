//! Versions that a device merges: two devices may do so at once, and a third may go on meanwhile.
#![expect(clippy::unwrap_used, reason = "a test fails where it unwraps")]

use kith_core::exchange::full_knowledge;
use kith_core::id::{Dot, InodeId};
use kith_core::index::{Index, IndexRead};
use kith_core::operation::{Operation, OperationError};
use kith_core::register::{Kind, UnixTime};
use kith_core::vector::VersionVector;
use kith_tests::replicas::{Replica, World, content, name};
use proptest::prelude::*;
use std::collections::BTreeSet;

const ROOT: InodeId = InodeId::ROOT;

/// All versions of the files at a name of the root, with the numbers of their bytes.
fn standing(replica: &Replica, at: &str) -> Vec<(InodeId, Dot, u64)> {
    let entries = replica.index.entries_at(ROOT, &name(at)).unwrap();
    let mut versions = Vec::new();
    for entry in entries.iter().filter(|entry| entry.present) {
        let inode = replica.index.inode(entry.entry.inode).unwrap().unwrap().inode;
        let all = inode.versions.values();
        versions.extend(all.map(|version| (inode.id, version.dot, version.content.size_bytes)));
    }
    versions
}

/// Merges what stands at a name: the bytes are a function of those of the inputs.
fn merge(replica: &mut Replica, at: &str) -> Result<(), OperationError<std::convert::Infallible>> {
    let versions = standing(replica, at);
    let numbers: BTreeSet<u64> = versions.iter().map(|(_, _, number)| *number).collect();
    let number = u8::try_from(100 + numbers.iter().sum::<u64>() % 150).unwrap();
    let operation = Operation::Merge {
        inputs: versions.into_iter().map(|(inode, dot, _)| (inode, dot)).collect(),
        content: content(number),
        mtime: UnixTime::default(),
    };
    let merged = replica.apply(operation).map(drop);
    replica.check();
    merged
}

fn send(world: &mut World, from: usize, to: usize) {
    let registers = world.replicas[from].index.registers();
    let theirs = full_knowledge(&world.replicas[from].index.state().unwrap());
    let replica = &mut world.replicas[to];
    replica.receive(registers);
    let mut state = replica.index.state().unwrap();
    state.knowledge.join(&theirs);
    replica.index.put_state(&state).unwrap();
    replica.check();
}

/// Everybody hears of everything.
fn meet(world: &mut World) {
    for _ in 0..2 {
        for to in 0..world.replicas.len() {
            for from in (0..world.replicas.len()).filter(|from| *from != to) {
                send(world, from, to);
            }
        }
    }
}

fn agree(world: &World) -> Vec<String> {
    world.check_healed();
    world.replicas[0].lines()
}

fn file(replica: &Replica, at: &str) -> InodeId {
    replica.index.shown(ROOT, &name(at)).unwrap().expect("the name is shown").node.key()
}

/// Saves as editors do: a new file, renamed over the old one.
fn save_over(replica: &mut Replica, at: &str, number: u8) {
    replica.write(ROOT, "tmp~", number);
    replica.rename((ROOT, "tmp~"), (ROOT, at));
}

/// Three devices, of which two have changed a file, the one in one way and the other in another.
fn changed(change: [Save; 2]) -> World {
    let mut world = World::new(3);
    world.replicas[0].write(ROOT, "a", 1);
    meet(&mut world);
    for (at, change) in change.into_iter().enumerate() {
        world.replicas[at].now += 60_000 * at as u64;
        change(&mut world.replicas[at], 2 + at as u8);
    }
    meet(&mut world);
    world
}

fn in_place(replica: &mut Replica, number: u8) {
    replica.edit(file(replica, "a"), number);
}

fn renamed_over(replica: &mut Replica, number: u8) {
    save_over(replica, "a", number);
}

/// A way to save, and the number of what is saved.
type Save = fn(&mut Replica, u8);

const WAYS: [[Save; 2]; 4] = [
    [in_place, in_place],
    [renamed_over, renamed_over],
    [in_place, renamed_over],
    [renamed_over, in_place],
];

#[test]
fn two_devices_that_merge_at_once_end_with_one_version() {
    for way in WAYS {
        let mut world = changed(way);
        assert_eq!(world.replicas[2].lines().len(), 2);
        merge(&mut world.replicas[0], "a").unwrap();
        assert_eq!(world.replicas[0].lines(), ["a=105"]);
        merge(&mut world.replicas[1], "a").unwrap();
        meet(&mut world);
        assert_eq!(agree(&world), ["a=105"]);
        assert!(world.replicas[2].index.view().all(|row| row.name == name("a")));
    }
}

#[test]
fn both_inputs_are_in_history_or_with_the_file_that_went() {
    for way in WAYS {
        let mut world = changed(way);
        merge(&mut world.replicas[0], "a").unwrap();
        let index = &world.replicas[0].index;
        let retired = index.retired().map(|(_, version)| version.content.size_bytes);
        let kept = index.inodes().flat_map(|state| state.inode.versions.values());
        let all: BTreeSet<u64> =
            retired.chain(kept.map(|version| version.content.size_bytes)).collect();
        assert!(all.is_superset(&[2, 3].into()), "{all:?}");
    }
}

#[test]
fn what_is_made_from_one_of_two_merged_versions_covers_the_other() {
    for (number, way) in WAYS.into_iter().enumerate() {
        for heard_first in [false, true] {
            let mut world = changed(way);
            merge(&mut world.replicas[0], "a").unwrap();
            merge(&mut world.replicas[1], "a").unwrap();
            if heard_first {
                send(&mut world, 1, 0);
            }
            in_place(&mut world.replicas[0], 7);
            meet(&mut world);
            let lines = agree(&world);
            // Of versions of several files that is known only to who has heard of both.
            if heard_first || number == 0 {
                assert_eq!(lines, ["a=7"], "heard first: {heard_first}");
            } else {
                assert!(lines.contains(&"a=7".to_owned()), "{lines:?}");
            }
        }
    }
}

#[test]
fn an_own_version_that_was_merged_stays_when_its_maker_goes_on_from_another() {
    let mut world = World::new(3);
    world.replicas[0].write(ROOT, "a", 1);
    meet(&mut world);
    in_place(&mut world.replicas[0], 2);
    in_place(&mut world.replicas[1], 3);
    send(&mut world, 0, 1);
    merge(&mut world.replicas[1], "a").unwrap();
    world.replicas[2].now += 60_000;
    in_place(&mut world.replicas[2], 4);
    send(&mut world, 1, 0);
    send(&mut world, 2, 0);
    // Its new version is made of the third device's alone, but follows its own of before.
    in_place(&mut world.replicas[0], 5);
    meet(&mut world);
    let lines = agree(&world);
    assert_eq!(lines[0], "a=5");
    assert!(lines.iter().any(|line| line.ends_with("=105")), "{lines:?}");
}

#[test]
fn both_may_go_on_from_a_merged_version_of_their_own() {
    for way in WAYS {
        let mut world = changed(way);
        for at in [0, 1] {
            merge(&mut world.replicas[at], "a").unwrap();
            in_place(&mut world.replicas[at], 7 + at as u8);
        }
        meet(&mut world);
        let lines = agree(&world);
        assert_eq!(lines.len(), 2, "{lines:?}");
        merge(&mut world.replicas[2], "a").unwrap();
        meet(&mut world);
        assert_eq!(agree(&world), ["a=115"]);
    }
}

#[test]
fn an_edit_that_nobody_saw_survives_a_merge() {
    for way in WAYS {
        for late in [in_place, renamed_over] {
            let mut world = changed(way);
            late(&mut world.replicas[2], 9);
            merge(&mut world.replicas[0], "a").unwrap();
            merge(&mut world.replicas[1], "a").unwrap();
            meet(&mut world);
            let lines = agree(&world);
            assert!(lines.iter().any(|line| line.ends_with("=9")), "{lines:?}");
            // Whoever saves where a conflict is shown has settled it, which counts before a merge.
            let settled = lines.iter().any(|line| line.ends_with(")=2"));
            let merged = lines.iter().any(|line| line.ends_with("=105"));
            assert!(settled || merged, "{lines:?}");
            if !settled {
                merge(&mut world.replicas[0], "a").unwrap();
                meet(&mut world);
                assert_eq!(agree(&world).len(), 1);
            }
        }
    }
}

#[test]
fn an_edit_of_the_copy_survives_a_merge() {
    for way in WAYS {
        let mut world = changed(way);
        let row = world.replicas[2].index.view().find(|row| row.wanted.is_some()).unwrap().clone();
        let node = world.replicas[2].apply(Operation::Settle { node: row.node }).unwrap().node;
        world.replicas[2].edit(node.unwrap().key(), 9);
        merge(&mut world.replicas[0], "a").unwrap();
        meet(&mut world);
        let lines = agree(&world);
        assert!(lines.iter().any(|line| line.ends_with("=9")), "{lines:?}");
    }
}

#[test]
fn merges_of_different_versions_come_together() {
    for way in WAYS {
        let mut world = changed(way);
        merge(&mut world.replicas[0], "a").unwrap();
        // The third device heard of all, and has something of its own.
        world.replicas[2].now += 600_000;
        save_over(&mut world.replicas[2], "a", 9);
        let alone = standing(&world.replicas[2], "a").len() < 2;
        assert_eq!(merge(&mut world.replicas[2], "a").is_err(), alone);
        meet(&mut world);
        let after = agree(&world);
        if standing(&world.replicas[1], "a").len() > 1 {
            merge(&mut world.replicas[1], "a").unwrap();
            meet(&mut world);
        }
        assert_eq!(standing(&world.replicas[1], "a").len(), 1, "{after:?}");
        agree(&world);
    }
}

#[test]
fn a_removal_that_saw_a_merged_version_saw_its_twin() {
    let mut world = changed([in_place, in_place]);
    merge(&mut world.replicas[0], "a").unwrap();
    merge(&mut world.replicas[1], "a").unwrap();
    world.replicas[0].remove(ROOT, "a");
    meet(&mut world);
    assert_eq!(agree(&world), Vec::<String>::new());
}

#[test]
fn an_edit_that_does_not_know_of_a_merge_of_files_never_takes_its_place() {
    let mut world = changed([renamed_over, renamed_over]);
    // Both wrote to the file that is shown, and the one had written the other file.
    let [first, second] = [0, 1].map(|at| file(&world.replicas[at], "a"));
    assert_eq!(first, second);
    merge(&mut world.replicas[2], "a").unwrap();
    for at in [0, 1] {
        let seen = world.replicas[at].shown_context(first);
        world.replicas[at].publish(first, seen, 8 + at as u8).unwrap();
    }
    meet(&mut world);
    let lines = agree(&world);
    for number in ["=105", "=8", "=9"] {
        assert!(lines.iter().any(|line| line.ends_with(number)), "{number}: {lines:?}");
    }
}

#[test]
fn an_edit_of_an_input_survives_the_removal_of_the_merged_version() {
    for way in WAYS {
        let mut world = changed(way);
        merge(&mut world.replicas[0], "a").unwrap();
        world.replicas[0].remove(ROOT, "a");
        in_place(&mut world.replicas[2], 9);
        meet(&mut world);
        let lines = agree(&world);
        assert!(lines.iter().any(|line| line.ends_with("=9")), "{lines:?}");
    }
}

#[test]
fn only_exactly_what_stands_is_merged() {
    for way in WAYS {
        let mut world = changed(way);
        let versions = standing(&world.replicas[0], "a");
        let merging = |inputs: Vec<(InodeId, Dot)>| Operation::Merge {
            inputs,
            content: content(5),
            mtime: UnixTime::default(),
        };
        let all = || versions.iter().map(|(inode, dot, _)| (*inode, *dot));
        for inputs in [all().take(1).collect(), Vec::new()] {
            let refused = world.replicas[0].apply(merging(inputs)).unwrap_err();
            assert_eq!(refused, OperationError::Outdated);
        }
        in_place(&mut world.replicas[0], 6);
        let refused = world.replicas[0].apply(merging(all().collect())).unwrap_err();
        assert_eq!(refused, OperationError::Outdated);
    }
}

#[test]
fn a_file_with_a_name_elsewhere_is_not_merged_away() {
    let mut world = World::new(2);
    world.replicas[0].write(ROOT, "a", 1);
    meet(&mut world);
    save_over(&mut world.replicas[0], "a", 2);
    let node = world.replicas[0].index.shown(ROOT, &name("a")).unwrap().unwrap().node;
    let link = Operation::Link { node, parent: ROOT, name: name("b") };
    world.replicas[0].apply(link).unwrap();
    save_over(&mut world.replicas[1], "a", 3);
    meet(&mut world);
    assert_eq!(merge(&mut world.replicas[0], "a"), Err(OperationError::Outdated));
}

#[test]
fn a_withheld_file_is_not_merged() {
    let mut world = changed([renamed_over, renamed_over]);
    let replica = &mut world.replicas[0];
    let inode = replica.create(ROOT, "new~", Kind::File);
    replica.rename((ROOT, "new~"), (ROOT, "a"));
    let before = replica.lines();
    assert!(merge(replica, "a").is_err());
    assert_eq!(replica.lines(), before);
    replica.publish(inode, VersionVector::new(), 8).unwrap();
    meet(&mut world);
    agree(&world);
}

/// One random step. Numbers choose among what there is.
#[derive(Clone, Copy, Debug)]
enum Step {
    Edit { at: usize, name: usize, number: u8 },
    SaveOver { at: usize, name: usize, number: u8 },
    Open { at: usize, name: usize },
    Close { at: usize, file: usize, number: u8 },
    Remove { at: usize, name: usize },
    Rename { at: usize, name: usize },
    Merge { at: usize, name: usize },
    Send { from: usize, to: usize },
    Clock { at: usize, ahead_ms: u64 },
}

const NAMES: [&str; 2] = ["a", "b"];

fn take(world: &mut World, step: Step) {
    let shown = |replica: &Replica, name_at: usize| {
        replica.index.shown(ROOT, &name(NAMES[name_at])).unwrap().map(|row| row.node.key())
    };
    match step {
        Step::Edit { at, name, number } => {
            if let Some(file) = shown(&world.replicas[at], name) {
                world.replicas[at].bases.remove(&file);
                world.publish(at, file, number);
            }
        }
        Step::SaveOver { at, name: to, number } => {
            let replica = &mut world.replicas[at];
            let file = replica.create(ROOT, "tmp~", Kind::File);
            world.publish(at, file, number);
            world.replicas[at].rename((ROOT, "tmp~"), (ROOT, NAMES[to]));
        }
        Step::Open { at, name } => {
            if let Some(file) = shown(&world.replicas[at], name) {
                let context = world.replicas[at].shown_context(file);
                world.replicas[at].bases.insert(file, context);
            }
        }
        Step::Close { at, file, number } => {
            let files: Vec<InodeId> = world.replicas[at].bases.keys().copied().collect();
            if !files.is_empty() {
                world.publish(at, files[file % files.len()], number);
            }
        }
        Step::Remove { at, name: gone } => {
            if shown(&world.replicas[at], gone).is_some() {
                world.replicas[at].remove(ROOT, NAMES[gone]);
            }
        }
        Step::Rename { at, name: from } => {
            if shown(&world.replicas[at], from).is_some() {
                world.replicas[at].rename((ROOT, NAMES[from]), (ROOT, NAMES[1 - from]));
            }
        }
        Step::Merge { at, name } => drop(merge(&mut world.replicas[at], NAMES[name])),
        Step::Send { from, to } if from != to => send(world, from, to),
        Step::Send { .. } => {}
        Step::Clock { at, ahead_ms } => world.replicas[at].now += ahead_ms,
    }
    world.replicas.iter().for_each(Replica::check);
}

fn step() -> impl Strategy<Value = Step> {
    let (at, name, number) = (0..3_usize, 0..2_usize, 1..90_u8);
    prop_oneof![
        4 => (at.clone(), name.clone(), number.clone())
            .prop_map(|(at, name, number)| Step::Edit { at, name, number }),
        4 => (at.clone(), name.clone(), number.clone())
            .prop_map(|(at, name, number)| Step::SaveOver { at, name, number }),
        1 => (at.clone(), name.clone()).prop_map(|(at, name)| Step::Open { at, name }),
        1 => (at.clone(), any::<usize>(), number)
            .prop_map(|(at, file, number)| Step::Close { at, file, number }),
        1 => (at.clone(), name.clone()).prop_map(|(at, name)| Step::Remove { at, name }),
        1 => (at.clone(), name.clone()).prop_map(|(at, name)| Step::Rename { at, name }),
        6 => (at.clone(), name).prop_map(|(at, name)| Step::Merge { at, name }),
        8 => (at.clone(), at.clone()).prop_map(|(from, to)| Step::Send { from, to }),
        1 => (at, 0..2_000_000_u64).prop_map(|(at, ahead_ms)| Step::Clock { at, ahead_ms }),
    ]
}

proptest! {
    #[test]
    fn devices_that_merge_at_any_time_end_up_with_the_same_tree(
        steps in proptest::collection::vec(step(), 1..60)
    ) {
        let mut world = World::new(3);
        for at in NAMES {
            world.replicas[0].write(ROOT, at, 1);
        }
        meet(&mut world);
        for step in steps {
            take(&mut world, step);
        }
        meet(&mut world);
        world.check_healed();
        // Where nobody does anything else, merging comes to an end.
        for at in NAMES {
            for _ in 0..3 {
                for device in 0..3 {
                    let _merged = merge(&mut world.replicas[device], at);
                }
                meet(&mut world);
            }
        }
        world.check_healed();
    }
}
