//! Registers that no honest device would make: cycles, directories with two names, nodes of two
//! kinds, parents that nobody knows. Whatever arrives, in whatever order, nothing panics, the view
//! that is kept up is the one that the registers make, and all devices agree on it.

use kith_core::clock::{Hlc, Stamp};
use kith_core::id::{Dot, EntryId, InodeId, WriterId};
use kith_core::index::Register;
use kith_core::register::{
    Attributes, Entry, Inode, Kind, Owner, Parted, Place, Removal, Replaced, Unread,
};
use kith_core::vector::VersionVector;
use kith_tests::replicas::{Replica, name};
use proptest::prelude::*;
use std::collections::BTreeMap;

const WRITER: WriterId = WriterId(50);

/// One of few, so that they meet. 0 is the root.
fn inode_id(number: u64) -> InodeId {
    if number == 0 { InodeId::ROOT } else { InodeId(Dot { writer: WRITER, number }) }
}

fn stamp() -> impl Strategy<Value = Stamp> {
    (0..40_u64).prop_map(|time| Stamp { hlc: Hlc(time), writer: WRITER })
}

fn inode() -> impl Strategy<Value = Register> {
    (0..7_u64, 0..8_u8, stamp()).prop_map(|(id, kind, stamp)| {
        let kind = match kind {
            0..6 => Kind::Directory,
            6 => Kind::Symlink(Box::new([b'x'])),
            _ => Kind::File,
        };
        let attributes = Attributes {
            stamp,
            dot: Dot { writer: WRITER, number: stamp.hlc.0 + 1 },
            mode: 0o755,
            user: Owner::Person,
            group: Owner::Person,
            mtime: None,
            xattrs: BTreeMap::new(),
            unread: Unread::new(),
        };
        let (id, versions, parted) = (inode_id(id), BTreeMap::new(), Parted::default());
        Register::Inode(Inode { id, kind, attributes, versions, parted, unread: Unread::new() })
    })
}

fn removal() -> impl Strategy<Value = Removal> {
    (stamp(), stamp(), any::<bool>()).prop_map(|(stamp, saw_place, last_link)| Removal {
        stamp,
        dots: VersionVector::new(),
        saw_place,
        saw_content: VersionVector::new(),
        last_link,
        author: None,
        unread: Unread::new(),
    })
}

fn entry() -> impl Strategy<Value = Register> {
    let place = (stamp(), 0..8_u64, 0..2_usize, proptest::option::of(0..8_u64));
    // Mostly one entry for an inode; else of any.
    (1..7_u64, proptest::option::weighted(0.2, 0..7_u64), place, proptest::option::of(removal()))
        .prop_map(|(id, inode, (stamp, parent, at, replaced), removal)| {
            let dot = Dot { writer: WRITER, number: 100 + stamp.hlc.0 };
            let place = Place {
                stamp,
                dot,
                parent: inode_id(parent),
                name: name(["a", "b"][at]),
                replaced: replaced.map(|of| {
                    let inode = inode_id(of);
                    Replaced { inode, dot, last: inode, last_dot: dot }
                }),
                carried: None,
                author: "x".to_owned(),
                unread: Unread::new(),
            };
            Register::Entry(Entry {
                id: EntryId(Dot { writer: WRITER, number: 60 + id }),
                inode: inode_id(inode.unwrap_or(id)),
                place,
                removal,
                unread: Unread::new(),
            })
        })
}

proptest! {
    #[test]
    fn whatever_arrives_all_devices_show_the_same(
        batches in proptest::collection::vec(
            proptest::collection::vec(prop_oneof![1 => inode(), 2 => entry()], 1..5),
            1..14,
        ),
    ) {
        let mut forwards = Replica::new(0, 1_700_000_000_000);
        let mut backwards = Replica::new(1, 1_700_000_000_000);
        let mut at_once = Replica::new(2, 1_700_000_000_000);
        for batch in &batches {
            forwards.receive(batch.clone());
            forwards.check();
        }
        for register in batches.iter().flatten().rev() {
            backwards.receive(vec![register.clone()]);
            backwards.check();
        }
        at_once.receive(batches.concat());
        at_once.check();
        let view = |replica: &Replica| replica.index.view().cloned().collect::<Vec<_>>();
        prop_assert_eq!(view(&forwards), view(&backwards));
        prop_assert_eq!(view(&forwards), view(&at_once));
    }
}
