//! Merging registers is a join, whatever their states: order, repetition and detours do not
//! matter.
#![expect(clippy::unwrap_used, reason = "a test fails where it unwraps")]

use kith_core::clock::{Hlc, Stamp};
use kith_core::codec;
use kith_core::content::Content;
use kith_core::id::{Dot, EntryId, InodeId, WriterId};
use kith_core::name::EntryName;
use kith_core::register::{
    Attributes, Entry, Inode, Kind, Mark, Owner, Parted, Place, Removal, UnixTime, Unread, Version,
};
use kith_core::vector::VersionVector;
use proptest::prelude::*;
use std::collections::BTreeMap;

const ID: Dot = Dot { writer: WriterId(9), number: 1 };

fn stamp() -> impl Strategy<Value = Stamp> {
    (0..4_u64, 1..3_u64)
        .prop_map(|(time, writer)| Stamp { hlc: Hlc(time), writer: WriterId(writer) })
}

fn dot() -> impl Strategy<Value = Dot> {
    (1..4_u64, 1..4_u64).prop_map(|(writer, number)| Dot { writer: WriterId(writer), number })
}

fn vector() -> impl Strategy<Value = VersionVector> {
    proptest::collection::vec(dot(), 0..3).prop_map(|dots| dots.into_iter().collect())
}

fn unread() -> impl Strategy<Value = Unread> {
    proptest::option::of(0..3_u8)
        .prop_map(|it| it.map(|byte| (40, Box::from([byte]))).into_iter().collect())
}

fn attributes() -> impl Strategy<Value = Attributes> {
    (stamp(), dot(), 0..2_u16, unread()).prop_map(|(stamp, dot, mode, unread)| Attributes {
        stamp,
        dot,
        mode,
        user: Owner::Person,
        group: Owner::Person,
        mtime: None,
        xattrs: BTreeMap::new(),
        unread,
    })
}

/// All versions of a history in which each step makes one from some that are known at its place.
/// What is drawn is, for each version, its writer and which of the earlier ones it was made from.
fn history() -> impl Strategy<Value = Vec<Version>> {
    proptest::collection::vec((1..4_u64, any::<u16>()), 1..8).prop_map(|steps| {
        let mut made: Vec<Version> = Vec::new();
        for (at, (writer, from)) in steps.into_iter().enumerate() {
            let dot = Dot { writer: WriterId(writer), number: at as u64 + 1 };
            let mut context = VersionVector::new();
            for (earlier, version) in made.iter().enumerate() {
                if from >> earlier & 1 == 1 || version.dot.writer == dot.writer {
                    context.join(&version.context);
                    context.include(version.dot);
                }
            }
            // What covers a version covers the same writer's earlier ones too.
            for version in &made {
                if context.covers(version.dot) {
                    context.join(&version.context);
                }
            }
            made.push(Version {
                stamp: Stamp { hlc: Hlc(at as u64), writer: dot.writer },
                dot,
                context,
                parents: Vec::new(),
                author: String::new(),
                mtime: UnixTime::default(),
                content: Content::empty(),
                mark: Mark::Closed,
                unread: Unread::new(),
            });
        }
        made
    })
}

/// Versions that no honest device would make: contexts that lack what they were made from, that
/// cover one another in a circle, and different values under one dot.
fn any_version() -> impl Strategy<Value = Version> {
    (stamp(), dot(), vector(), 0..2_u8).prop_map(|(stamp, dot, context, mark)| Version {
        stamp,
        dot,
        context,
        parents: Vec::new(),
        author: String::new(),
        mtime: UnixTime::default(),
        content: Content::empty(),
        mark: if mark == 0 { Mark::Closed } else { Mark::Idle },
        unread: Unread::new(),
    })
}

fn parted() -> impl Strategy<Value = Parted> {
    (vector(), vector()).prop_map(|(dots, versions)| Parted { dots, versions })
}

/// Any states at all, in the form that a device keeps them in.
fn any_inode() -> impl Strategy<Value = Inode> {
    let versions = proptest::collection::vec(any_version(), 0..5);
    (0..5_u8, attributes(), versions, parted(), unread()).prop_map(
        |(kind, attributes, versions, parted, unread)| {
            let kind = if kind == 0 { Kind::Fifo } else { Kind::File };
            let versions = versions.into_iter().map(|version| (version.dot, version)).collect();
            let mut inode = Inode { id: InodeId(ID), kind, attributes, versions, parted, unread };
            inode.drop_covered();
            inode
        },
    )
}

/// Some states that devices may come to have of one file.
fn inodes() -> impl Strategy<Value = [Inode; 3]> {
    let state = || (attributes(), any::<u16>(), unread());
    (history(), [state(), state(), state()]).prop_map(|(history, states)| {
        states.map(|(attributes, known, unread)| {
            let versions = history.iter().enumerate().filter(|(at, _)| known >> at & 1 == 1);
            let versions = versions.map(|(_, version)| (version.dot, version.clone())).collect();
            let (kind, parted) = (Kind::File, Parted::default());
            let mut inode = Inode { id: InodeId(ID), kind, attributes, versions, parted, unread };
            inode.drop_covered();
            inode
        })
    })
}

fn removal() -> impl Strategy<Value = Removal> {
    let author = proptest::option::of((0..3_u8).prop_map(|number| format!("device {number}")));
    (stamp(), vector(), stamp(), vector(), any::<bool>(), author, unread()).prop_map(
        |(stamp, dots, saw_place, saw_content, last_link, author, unread)| Removal {
            stamp,
            dots,
            saw_place,
            saw_content,
            last_link,
            author,
            unread,
        },
    )
}

fn entry() -> impl Strategy<Value = Entry> {
    let place = (stamp(), dot(), dot(), 0..2_usize, unread());
    (place, proptest::option::of(removal()), 0..5_u64, unread()).prop_map(
        |((stamp, dot, parent, name, place_unread), removal, inode, unread)| Entry {
            id: EntryId(ID),
            // A device that lies about the inode now and then.
            inode: InodeId(Dot { writer: WriterId(1), number: inode / 4 + 1 }),
            place: Place {
                stamp,
                dot,
                parent: InodeId(parent),
                name: EntryName::new([b"a", b"b"][name]).unwrap(),
                replaced: None,
                carried: (name == 1).then_some(dot),
                author: String::new(),
                unread: place_unread,
            },
            removal,
            unread,
        },
    )
}

fn merged<T: Clone>(merge: fn(&mut T, T) -> bool, a: &T, b: &T) -> T {
    let mut merged = a.clone();
    merge(&mut merged, b.clone());
    merged
}

fn join_holds<T: Clone + PartialEq + std::fmt::Debug>(
    merge: fn(&mut T, T) -> bool,
    [a, b, c]: &[T; 3],
) -> Result<(), TestCaseError> {
    let two = |a: &T, b: &T| merged(merge, a, b);
    prop_assert_eq!(two(a, b), two(b, a), "order matters");
    prop_assert_eq!(two(&two(a, b), c), two(a, &two(b, c)), "detours matter");
    prop_assert_eq!(two(a, a), a.clone(), "repetition matters");
    let both = two(a, b);
    prop_assert_eq!(two(&both, a), both.clone(), "what was known is known no more");
    prop_assert_eq!(merge(&mut a.clone(), b.clone()), &both != a, "the change is told wrong");
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn merging_inodes_is_a_join(states in inodes()) {
        join_holds(|mine, other| mine.merge(other).changed, &states)?;
    }

    #[test]
    fn merging_inodes_is_a_join_whatever_their_states(
        states in [any_inode(), any_inode(), any_inode()],
    ) {
        join_holds(|mine, other| mine.merge(other).changed, &states)?;
    }

    #[test]
    fn a_file_with_versions_never_is_without_one(states in [any_inode(), any_inode()]) {
        let [mut mine, other] = states;
        let latest = mine.latest().max(other.latest()).map(|version| version.stamp);
        mine.merge(other);
        prop_assert_eq!(mine.latest().map(|version| version.stamp), latest);
    }

    #[test]
    fn what_left_a_file_never_comes_back(states in [any_inode(), any_inode()]) {
        let [mine, other] = states;
        let both = merged(|mine: &mut Inode, other| mine.merge(other).changed, &mine, &other);
        for state in [mine, other] {
            let covered = state.covered_versions();
            prop_assert!(both.covered_versions().covers_all(&covered));
            prop_assert!(both.known_versions().covers_all(&state.known_versions()));
            let back = both.versions.keys().find(|dot| {
                covered.covers(**dot) && both.latest().is_some_and(|latest| latest.dot != **dot)
            });
            prop_assert_eq!(back, None);
        }
    }

    #[test]
    fn vectors_are_a_lattice(vectors in [vector(), vector(), vector()], of in dot()) {
        let join = |mine: &mut VersionVector, other: VersionVector| {
            let before = mine.clone();
            mine.join(&other);
            *mine != before
        };
        join_holds(join, &vectors)?;
        let [a, b, _] = vectors;
        let both = merged(join, &a, &b);
        prop_assert!(both.covers_all(&a) && both.covers_all(&b));
        prop_assert_eq!(both.covers(of), a.covers(of) || b.covers(of));
        prop_assert_eq!(a.covers_all(&b), both == a);
        let rest = both.beyond(&b);
        prop_assert!(rest.dots().all(|dot| !b.covers(dot)));
        prop_assert_eq!(merged(join, &rest, &b), both);
    }

    #[test]
    fn registers_come_back_from_their_encoding(inode in any_inode(), entry in entry()) {
        prop_assert_eq!(codec::decode_entry(&codec::encode_entry(&entry)), Ok(entry));
        // A version's context that covers itself is refused.
        let encoded = codec::encode_inode(&inode);
        match codec::decode_inode(&encoded) {
            Ok(back) => prop_assert_eq!(back, inode),
            Err(_) => prop_assert!(inode.versions.values().any(|it| it.context.covers(it.dot))),
        }
    }

    #[test]
    fn merging_entries_is_a_join(states in [entry(), entry(), entry()]) {
        join_holds(Entry::merge, &states)?;
    }

    #[test]
    fn merging_removals_is_a_join(states in [removal(), removal(), removal()]) {
        join_holds(Removal::merge, &states)?;
    }

    #[test]
    fn a_merge_tells_which_versions_it_superseded(states in inodes()) {
        let [mut mine, other, _] = states;
        let before = mine.clone();
        let told = mine.merge(other).superseded;
        let gone = before.versions.values().filter(|it| !mine.versions.contains_key(&it.dot));
        prop_assert_eq!(told, gone.cloned().collect::<Vec<_>>());
    }
}
