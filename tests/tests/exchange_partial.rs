//! What a device has of another that it was told half of, when the connection breaks and the other
//! never comes back, or comes back as it was before.
#![expect(clippy::unwrap_used, reason = "a test fails where it unwraps")]

use kith_core::content::{Content, Layout, Piece};
use kith_core::exchange::full_knowledge;
use kith_core::id::{ChunkId, DeviceId, InodeId};
use kith_core::index::{Index, IndexRead, Register};
use kith_core::name::EntryName;
use kith_core::operation::{Operation, RenameMode};
use kith_core::register::{Kind, Owner};
use kith_core::vector::VersionVector;
use kith_tests::conversation::{Device, End, greet, talk};
use std::collections::BTreeSet;

fn name(text: &str) -> EntryName {
    EntryName::new(text.as_bytes()).unwrap()
}

fn save(device: &mut Device, parent: InodeId, text: &str, number: u8) {
    let (user, group) = (Owner::Person, Owner::Person);
    let (kind, mode, name) = (Kind::File, 0o644, name(text));
    let inode = device.apply(Operation::Create { parent, name, kind, mode, user, group });
    let id = ChunkId::of(&[number]);
    let layout = Layout::Inline(vec![Piece::Chunk { id, len_bytes: 1 }]);
    device.publish(inode, VersionVector::new(), Content { size_bytes: 1, layout });
}

fn rename(device: &mut Device, from: &str, to: &str) {
    let (from, to) = ((InodeId::ROOT, name(from)), (InodeId::ROOT, name(to)));
    device.apply(Operation::Rename { from, to, mode: RenameMode::Replace });
}

/// The files that can be reached from the root.
fn reachable(device: &Device) -> BTreeSet<InodeId> {
    let (mut waiting, mut found) = (vec![InodeId::ROOT], BTreeSet::new());
    while let Some(directory) = waiting.pop() {
        for shown in device.index.list(directory, None, usize::MAX).unwrap() {
            let inode = device.index.inode(shown.node.inode()).unwrap().unwrap().inode;
            match inode.kind {
                Kind::Directory => waiting.push(inode.id),
                _ => drop(found.insert(inode.id)),
            }
        }
    }
    found
}

fn files(device: &Device) -> BTreeSet<InodeId> {
    let registers = device.index.registers().into_iter();
    let inodes = registers.filter_map(|register| match register {
        Register::Inode(inode) => Some(inode),
        Register::Entry(_) => None,
    });
    inodes.filter(|inode| inode.kind == Kind::File).map(|inode| inode.id).collect()
}

/// Passes up to `most` messages of one side, with batches of one register each.
fn pass_some(
    from: &mut (&mut Device, &mut End),
    to: &mut (&mut Device, &mut End),
    most: usize,
) -> usize {
    from.1.session.limit_batches(1);
    for passed in 0..most {
        let Some(message) = from.1.session.next(&from.0.index).unwrap() else { return passed };
        to.1.take(to.0, message).unwrap();
    }
    most
}

#[test]
fn every_file_that_came_can_be_reached_wherever_the_connection_breaks() {
    let mut a = Device::new(1);
    let (user, group) = (Owner::Person, Owner::Person);
    let old = a.make("old", Kind::Directory);
    let (kind, mode) = (Kind::Directory, 0o755);
    let create =
        |parent, text| Operation::Create { parent, name: name(text), kind, mode, user, group };
    let deep = a.apply(create(old, "deep"));
    for number in 0..4 {
        save(&mut a, deep, &format!("photo {number}"), number);
    }
    save(&mut a, InodeId::ROOT, "draft", 9);
    let node = a.index.list(InodeId::ROOT, None, 9).unwrap()[0].node;
    a.apply(Operation::Link { node, parent: old, name: name("second name") });
    // The names of what all of it is in, and of one file, come last in the log.
    rename(&mut a, "old", "new");
    rename(&mut a, "draft", "text");
    let all = files(&a).len();
    for most in 0.. {
        let mut b = Device::new(2);
        let mut a = a.clone();
        let (mut here, mut there) = greet(&mut a, &mut b);
        let passed = pass_some(&mut (&mut a, &mut here), &mut (&mut b, &mut there), most);
        assert_eq!(reachable(&b), files(&b), "after {most} messages");
        if passed < most {
            assert_eq!(files(&b).len(), all);
            return;
        }
    }
}

#[test]
fn what_was_sent_ahead_is_not_sent_again() {
    let (mut a, mut b) = (Device::new(1), Device::new(2));
    a.directories("a", 20);
    for number in 0..20 {
        rename(&mut a, &format!("a{number}"), &format!("b{number}"));
    }
    assert_eq!(kith_tests::conversation::registers(&talk(&mut a, &mut b)), 40);
    assert_eq!(a.names(), b.names());
}

#[test]
fn what_returns_to_its_earlier_place_with_an_old_copy_of_the_index_is_not_skipped() {
    // How much of a's log c had when the connection broke.
    for most in 0..12 {
        let (mut a, mut b, mut c) = (Device::new(1), Device::new(2), Device::new(3));
        for number in 0..3 {
            save(&mut a, InodeId::ROOT, &format!("file {number}"), number);
        }
        talk(&mut a, &mut b);
        let backup = a.clone();
        let removed =
            Operation::Remove { parent: InodeId::ROOT, name: name("file 0"), directory: false };
        b.apply(removed);
        talk(&mut a, &mut b);
        let (mut here, mut there) = greet(&mut a, &mut c);
        pass_some(&mut (&mut a, &mut here), &mut (&mut c, &mut there), most);
        // The disk is put back; and the one that removed the file is gone for good.
        let mut a = backup.copied();
        talk(&mut a, &mut c);
        talk(&mut a, &mut c);
        assert_eq!(a.names(), c.names(), "after {most} messages");
        assert_eq!(full_knowledge(&a.state()), full_knowledge(&c.state()));
        let sorted = |device: &Device| {
            let all = device.index.registers();
            all.iter().map(|register| format!("{register:?}")).collect::<BTreeSet<_>>()
        };
        assert_eq!(sorted(&a), sorted(&c), "after {most} messages");
    }
}

#[test]
fn how_far_a_device_has_come_is_kept_for_each_device() {
    let (mut a, mut b) = (Device::new(1), Device::new(2));
    a.directories("a", 3);
    talk(&mut a, &mut b);
    let reached = b.index.reached(a.id).unwrap().unwrap();
    assert_eq!((reached.number, reached.head.number), (a.state().number, a.state().number));
    assert_eq!(b.index.reached(DeviceId([9; 32])).unwrap(), None);
    b.index.put_reached(DeviceId([9; 32]), reached).unwrap();
    assert_eq!(b.index.reached(DeviceId([9; 32])).unwrap(), Some(reached));
}
