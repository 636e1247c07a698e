//! What becomes of changes when an index is lost, put back to an earlier state or copied to another
//! machine: none is mistaken for another, none is skipped, and a copy that lives is noticed.

use kith_core::clock::WallMs;
use kith_core::content::{Content, Layout, Piece};
use kith_core::exchange::full_knowledge;
use kith_core::id::{ChunkId, Dot, WriterId};
use kith_core::index::{FORMER_WRITERS_MAX, IndexRead, Register};
use kith_core::register::Kind;
use kith_core::vector::VersionVector;
use kith_tests::conversation::{Device, NOW, registers, talk};
use std::collections::BTreeMap;

const MINUTE: u64 = 60_000;

fn content(number: u8) -> Content {
    let id = ChunkId::of(&[number]);
    let pieces = vec![Piece::Chunk { id, len_bytes: u32::from(number) }];
    Content { size_bytes: u64::from(number), layout: Layout::Inline(pieces) }
}

/// A file with a version of its own.
fn write(device: &mut Device, name: &str, number: u8) {
    let inode = device.make(name, Kind::File);
    device.publish(inode, VersionVector::new(), content(number));
}

/// Demands that devices have the same registers, know the same, and take no change for another.
fn equal(devices: &[&Device]) {
    let sorted = |device: &Device| {
        let mut all: Vec<String> =
            device.index.registers().iter().map(|register| format!("{register:?}")).collect();
        all.sort();
        all
    };
    let mut made: BTreeMap<Dot, String> = BTreeMap::new();
    for device in devices {
        for register in device.index.registers() {
            let Register::Inode(inode) = register else { continue };
            for (dot, version) in inode.versions {
                let text = format!("{:?} {version:?}", inode.id);
                assert_eq!(*made.entry(dot).or_insert_with(|| text.clone()), text, "one name");
            }
        }
        assert_eq!(sorted(device), sorted(devices[0]));
        assert_eq!(device.names(), devices[0].names());
        assert_eq!(full_knowledge(&device.state()), full_knowledge(&devices[0].state()));
    }
}

/// Has everybody talk to everybody.
fn meet(devices: &mut [&mut Device]) {
    for _ in 0..3 {
        for one in 0..devices.len() {
            for other in one + 1..devices.len() {
                let (left, right) = devices.split_at_mut(other);
                talk(left[one], right[0]);
            }
        }
    }
}

#[test]
fn a_restart_keeps_the_places_of_others_in_the_log() {
    let (mut a, mut b) = (Device::new(1), Device::new(2));
    a.directories("a", 100);
    talk(&mut a, &mut b);
    for round in 0..5 {
        a.restart();
        assert_eq!(registers(&talk(&mut a, &mut b)), 0, "nothing is sent again");
        b.restart();
        a.restart();
        a.directories(&format!("later {round} "), 1);
        assert_eq!(registers(&talk(&mut b, &mut a)), 2, "an inode and an entry");
    }
    equal(&[&a, &b]);
    assert_eq!(a.index.former_writers().unwrap().len(), 10);
}

#[test]
fn a_place_from_before_what_is_remembered_costs_a_walk_and_nothing_else() {
    let (mut a, mut b) = (Device::new(1), Device::new(2));
    a.directories("a", 3);
    talk(&mut a, &mut b);
    for _ in 0..FORMER_WRITERS_MAX {
        a.restart();
    }
    a.directories("b", 1);
    talk(&mut a, &mut b);
    equal(&[&a, &b]);
    assert_eq!(a.index.former_writers().unwrap().len(), FORMER_WRITERS_MAX);
    assert_eq!(a.index.clone_signs().unwrap(), None);
}

#[test]
fn a_restored_index_loses_and_mixes_up_nothing_whomever_it_meets_first() {
    // How many changes the copy makes before it meets anybody: fewer than were lost, as many (an
    // inode and its entry draw several numbers each), and more.
    for since in [0, 1, 5, 6, 7, 40] {
        for first in 0..4 {
            let (mut d, mut b, mut c) = (Device::new(1), Device::new(2), Device::new(3));
            write(&mut d, "early", 1);
            talk(&mut d, &mut b);
            d.directories("middle", 2);
            write(&mut d, "open then", 2);
            let mut restored = d.copied();
            // What is lost with the disk, except for what c has.
            write(&mut d, "lost", 3);
            d.directories("lost", 5);
            talk(&mut d, &mut c);
            d.directories("never told", 3);
            for n in 0..since {
                write(&mut restored, &format!("new {n}"), 4 + n);
            }
            let d = &mut restored;
            match first {
                0 => drop((talk(d, &mut b), talk(&mut b, &mut c), talk(d, &mut c))),
                1 => drop((talk(d, &mut c), talk(d, &mut b), talk(&mut b, &mut c))),
                2 => drop((talk(&mut b, &mut c), talk(d, &mut b))),
                _ => drop((talk(d, &mut b), talk(d, &mut c))),
            }
            meet(&mut [d, &mut b, &mut c]);
            equal(&[d, &b, &c]);
            let count = 1 + 2 + 1 + 1 + 5 + usize::from(since);
            assert_eq!(d.names().len(), count, "{since} {first}: {:?}", d.names());
            assert_eq!(d.index.clone_signs().unwrap(), None, "a restore is no clone");
        }
    }
}

#[test]
fn an_index_that_is_lost_comes_back_from_the_others() {
    let (mut d, mut b) = (Device::new(1), Device::new(2));
    d.directories("d", 4);
    talk(&mut d, &mut b);
    // The same device with an empty index, and the writer that a founding draws.
    let mut founded = Device::new(9);
    founded.id = d.id;
    let mut state = founded.state();
    state.device = d.id;
    kith_core::index::Index::put_state(&mut founded.index, &state).unwrap();
    write(&mut founded, "new", 5);
    talk(&mut founded, &mut b);
    meet(&mut [&mut founded, &mut b]);
    equal(&[&founded, &b]);
    assert_eq!(founded.names(), ["d0", "d1", "d2", "d3", "new"]);
    assert_eq!(founded.index.clone_signs().unwrap(), None);
}

#[test]
fn a_file_that_was_withheld_when_the_copy_was_made_is_not_hidden_by_that() {
    for entry_first in [false, true] {
        let (mut d, mut b) = (Device::new(1), Device::new(2));
        write(&mut d, "old.txt", 1);
        let file = d.make("new.txt", Kind::File);
        let name = |name: &str| kith_core::name::EntryName::new(name.as_bytes()).unwrap();
        let root = kith_core::id::InodeId::ROOT;
        let rename = kith_core::operation::Operation::Rename {
            from: (root, name("new.txt")),
            to: (root, name("old.txt")),
            mode: kith_core::operation::RenameMode::Replace,
        };
        d.apply(rename);
        let mut restored = d.copied();
        d.publish(file, VersionVector::new(), content(2));
        if !entry_first {
            // The inode comes after its entry in the log.
            let state = d.index.inode(file).unwrap().unwrap();
            let latest = state.inode.latest().unwrap();
            let seen = VersionVector::from_iter([latest.dot]);
            d.publish(file, seen, content(3));
        }
        talk(&mut d, &mut b);
        talk(&mut restored, &mut b);
        equal(&[&restored, &b]);
        assert_eq!(b.names(), ["old.txt"]);
        let shown = restored.index.inode(file).unwrap().unwrap();
        let size = shown.inode.latest().unwrap().content.size_bytes;
        assert_eq!(size, if entry_first { 2 } else { 3 });
        assert!(restored.index.waiting_for(file).unwrap().is_empty(), "nothing waits for it");
        // And what is written to it there goes on from there.
        restored.publish(file, VersionVector::new(), content(4));
        talk(&mut restored, &mut b);
        equal(&[&restored, &b]);
        assert_eq!(b.index.inode(file).unwrap().unwrap().inode.versions.len(), 2);
    }
}

#[test]
fn two_machines_with_one_identity_both_notice_through_a_third_device() {
    let (mut one, mut c) = (Device::new(1), Device::new(3));
    one.directories("shared", 2);
    talk(&mut one, &mut c);
    let mut two = one.copied();
    for round in 0..3 {
        one.directories(&format!("one {round} "), 2);
        two.directories(&format!("two {round} "), 2);
        talk(&mut one, &mut c);
        talk(&mut two, &mut c);
    }
    for machine in [&one, &two] {
        assert!(machine.index.clone_signs().unwrap().is_some());
    }
    assert_eq!(c.index.clone_signs().unwrap(), None, "it is not c that was cloned");
    meet(&mut [&mut one, &mut c]);
    meet(&mut [&mut two, &mut c]);
    talk(&mut one, &mut c);
    equal(&[&one, &two, &c]);
    assert_eq!(one.names().len(), 14);
}

#[test]
fn machines_that_are_never_on_at_once_notice_by_what_was_made_meanwhile() {
    let (mut one, mut c) = (Device::new(1), Device::new(3));
    one.directories("shared", 2);
    talk(&mut one, &mut c);
    let mut two = one.copied();
    let at = |minute: u64| WallMs(NOW.0 + minute * MINUTE);
    // Each starts anew for each of its turns, and what one writes is in the middle of the other's
    // lives at the latest when that has come and gone.
    for turn in 1..=4 {
        for (machine, minute) in [(&mut one, 100 * turn), (&mut two, 100 * turn + 50)] {
            machine.now = at(minute);
            machine.restart();
            machine.directories(&format!("{minute} early "), 1);
            talk(machine, &mut c);
            // Somebody works on, and shuts it after the other was last seen.
            machine.now = at(minute + 60);
            machine.directories(&format!("{minute} late "), 1);
        }
    }
    for machine in [&one, &two] {
        let signs = machine.index.clone_signs().unwrap().unwrap();
        assert!(signs.first >= at(100) && signs.last <= at(600), "{signs:?}");
    }
}

#[test]
fn a_device_that_is_restored_again_and_again_is_not_taken_for_two() {
    let (mut b, mut c) = (Device::new(2), Device::new(3));
    let mut d = Device::new(1);
    d.directories("first", 2);
    talk(&mut d, &mut c);
    let mut backups = vec![d.clone()];
    let mut minute = 0;
    for round in 0..8 {
        minute += 30;
        d.now = WallMs(NOW.0 + minute * MINUTE);
        d.restart();
        d.directories(&format!("{round} early "), 1);
        talk(&mut d, if round % 2 == 0 { &mut b } else { &mut c });
        backups.push(d.clone());
        minute += 30;
        d.now = WallMs(NOW.0 + minute * MINUTE);
        d.directories(&format!("{round} late "), 1);
        talk(&mut d, &mut c);
        talk(&mut b, &mut c);
        // The disk is put back to one of the states it had.
        let back = &backups[(round * 5) % backups.len()];
        d = Device { tags: d.tags + 1000, ..back.clone() };
        d.now = WallMs(NOW.0 + (minute + 1) * MINUTE);
        d.restart();
        talk(&mut d, if round % 3 == 0 { &mut b } else { &mut c });
    }
    meet(&mut [&mut d, &mut b, &mut c]);
    equal(&[&d, &b, &c]);
    assert_eq!(d.names().len(), 2 + 16);
    assert_eq!(d.index.clone_signs().unwrap(), None);
    assert!(!d.index.strangers().unwrap().is_empty(), "what was lost has writers");
}

#[test]
fn a_device_that_lost_its_index_is_not_taken_for_two_because_another_was_restored() {
    let (mut d, mut b, mut c) = (Device::new(1), Device::new(2), Device::new(3));
    d.directories("first", 1);
    talk(&mut d, &mut c);
    let backup = c.clone();
    d.directories("second", 1);
    talk(&mut d, &mut c);
    talk(&mut c, &mut b);
    d = Device { tags: d.tags + 1000, ..Device::new(1) };
    d.restart();
    talk(&mut d, &mut c);
    // What it lost it hears of from others, and names the place that it had reached before.
    c = Device { tags: c.tags + 1000, ..backup };
    c.restart();
    talk(&mut c, &mut b);
    talk(&mut d, &mut c);
    meet(&mut [&mut d, &mut b, &mut c]);
    equal(&[&d, &b, &c]);
    assert_eq!(d.index.clone_signs().unwrap(), None);
}

#[test]
fn two_processes_from_one_memory_part_as_soon_as_they_meet_the_same_device() {
    let (mut one, mut c) = (Device::new(1), Device::new(3));
    one.directories("shared", 2);
    talk(&mut one, &mut c);
    // No start, no jump of the clock: both believe that the writer is theirs.
    let mut two = Device { tags: one.tags + (1 << 24), ..one.clone() };
    one.directories("one ", 2);
    two.directories("two ", 3);
    talk(&mut one, &mut c);
    let writer = two.state().writer;
    let (mut here, there) = (
        kith_tests::conversation::End::open(&two, &c),
        kith_tests::conversation::End::open(&c, &two),
    );
    here.take(&mut two, there.hello).unwrap();
    assert_ne!(two.state().writer, writer);
    assert_eq!(writer, WriterId(1));
    talk(&mut two, &mut c);
    assert!(c.names().iter().any(|name| name == "two 2"), "{:?}", c.names());
}
