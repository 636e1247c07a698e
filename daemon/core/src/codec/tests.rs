//! Registers and values come back from their encoding; nothing else is taken for one.

use super::*;
use crate::clock::{Hlc, Stamp};
use crate::content::{INLINE_PIECES_MAX, Layout, NodeRef, Piece};
use crate::id::{ChunkId, Dot, EntryId, InodeId, WriterId};
use crate::name::EntryName;
use crate::register::{Kind, Mark, Owner, Parted, Replaced, UnixTime};
use alloc::string::ToString;
use alloc::{format, vec};
use core::fmt::Debug;

const fn dot(writer: u64, number: u64) -> Dot {
    Dot { writer: WriterId(writer), number }
}

const fn stamp(hlc: u64, writer: u64) -> Stamp {
    Stamp { hlc: Hlc(hlc), writer: WriterId(writer) }
}

fn attributes() -> Attributes {
    Attributes {
        stamp: stamp(5, 1),
        dot: dot(1, 2),
        mode: 0o644,
        user: Owner::Person,
        group: Owner::Number(100),
        mtime: Some(UnixTime { seconds: -1, nanoseconds: 999_999_999 }),
        xattrs: [(b"user.a"[..].into(), b""[..].into()), (b"user.b"[..].into(), b"x"[..].into())]
            .into(),
        // Between, below and above the numbers that are known.
        unread: [(0, b"\x01"[..].into()), (9, b"\x82\x01\x40"[..].into())].into(),
    }
}

fn version(writer: u64, number: u64) -> Version {
    let pieces = vec![
        Piece::Chunk { id: ChunkId([7; 32]), len_bytes: 4096 },
        Piece::Hole { len_bytes: 8192 },
    ];
    Version {
        stamp: stamp(u64::MAX, writer + 1),
        dot: dot(writer, number),
        context: [dot(1, 1), dot(u64::MAX, u64::MAX)].into_iter().collect(),
        parents: vec![dot(1, 1)],
        author: "Bücherregal".to_string(),
        mtime: UnixTime::default(),
        content: Content { size_bytes: 12_288, layout: Layout::Inline(pieces) },
        mark: Mark::Synced,
        unread: [(1000, b"\xa0"[..].into())].into(),
    }
}

fn inode(kind: Kind) -> Inode {
    let versions = [version(2, 2), version(2, 9), version(3, 1)];
    let versions = if kind == Kind::File { &versions[..] } else { &[] };
    Inode {
        id: InodeId(dot(1, 1)),
        kind,
        attributes: attributes(),
        versions: versions.iter().map(|version| (version.dot, version.clone())).collect(),
        parted: Parted {
            dots: [dot(3, 4)].into_iter().collect(),
            versions: [dot(2, 1), dot(5, 6)].into_iter().collect(),
        },
        unread: [(77, b"\xf6"[..].into())].into(),
    }
}

fn entry() -> Entry {
    Entry {
        id: EntryId(dot(3, 3)),
        inode: InodeId(dot(3, 2)),
        place: Place {
            stamp: stamp(1, 2),
            dot: dot(2, 7),
            parent: InodeId::ROOT,
            name: EntryName::new(b"\xff name").unwrap(),
            replaced: Some(Replaced {
                inode: InodeId(dot(4, 1)),
                dot: dot(4, 2),
                last: InodeId(dot(5, 1)),
                last_dot: dot(5, 3),
            }),
            carried: Some(dot(2, 6)),
            author: "a".to_string(),
            unread: [(9, b"\x18\xff"[..].into())].into(),
        },
        removal: Some(Removal {
            author: Some("desktop".into()),
            stamp: stamp(9, 9),
            dots: [dot(9, 1), dot(10, 1)].into_iter().collect(),
            saw_place: stamp(1, 2),
            saw_content: VersionVector::new(),
            last_link: true,
            unread: Default::default(),
        }),
        unread: Default::default(),
    }
}

fn comes_back<T: PartialEq + Debug>(
    value: &T,
    encode: fn(&T) -> Vec<u8>,
    decode: fn(&[u8]) -> Result<T, DecodeError>,
) {
    let bytes = encode(value);
    let back = decode(&bytes);
    assert_eq!(back.as_ref(), Ok(value));
    assert_eq!(encode(&back.unwrap()), bytes);
    for cut in 0..bytes.len() {
        assert!(decode(&bytes[..cut]).is_err(), "cut at {cut}");
    }
    let mut longer = bytes;
    longer.push(0);
    assert_eq!(decode(&longer), Err(DecodeError::Trailing));
}

#[test]
fn every_value_comes_back_as_it_was_and_never_from_less_or_more() {
    let kinds = [
        Kind::Directory,
        Kind::File,
        Kind::Symlink(b"../there"[..].into()),
        Kind::Fifo,
        Kind::Socket,
        Kind::CharDevice(1, 3),
        Kind::BlockDevice(8, u32::MAX),
    ];
    for kind in kinds {
        comes_back(&inode(kind), encode_inode, decode_inode);
    }
    comes_back(&entry(), encode_entry, decode_entry);
    comes_back(&Entry { removal: None, ..entry() }, encode_entry, decode_entry);
    comes_back(&version(1, 2), encode_version, decode_version);
    comes_back(&attributes(), encode_attributes, decode_attributes);
    comes_back(&version(1, 2).context, encode_vector, decode_vector);
    let node = NodeRef { id: ChunkId([1; 32]), len_bytes: 9, span_bytes: 1 << 40 };
    let tree = Layout::Tree { height: 4, nodes: vec![node; INLINE_PIECES_MAX] };
    let contents = [
        Content::empty(),
        Content { size_bytes: (1 << 40) * INLINE_PIECES_MAX as u64, layout: tree },
    ];
    for content in contents {
        comes_back(&content, encode_content, decode_content);
    }
}

/// The format is what is stored and exchanged: a change of these bytes is a change of the format.
#[test]
fn the_encoding_does_not_change_by_accident() {
    let mut version = version(1, 2);
    version.context = [dot(1, 1)].into_iter().collect();
    version.stamp = stamp(3, 1);
    let hex: alloc::string::String =
        encode_version(&version).iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(
        hex,
        "a8018303010202a101010381820101046c42c3bc63686572726567616c05820000068219300082825820070707070707070707070707070707070707070707070707070707070707070719100019200007011903e8a0"
    );
}

#[test]
fn what_breaks_a_bound_is_refused() {
    use DecodeError::Bounds;
    let broken = |change: fn(&mut Inode)| {
        let mut inode = inode(Kind::File);
        change(&mut inode);
        decode_inode(&encode_inode(&inode))
    };

    type Change = fn(&mut Inode);
    let cases: [(Change, DecodeError); 9] = [
        (|inode| inode.attributes.mode = 0o10000, Bounds("a mode")),
        (
            |inode| {
                inode.versions.clear();
                inode.kind = Kind::Symlink(b""[..].into());
            },
            Bounds("a link's target"),
        ),
        (
            |inode| {
                inode.attributes.mtime = Some(UnixTime { seconds: 0, nanoseconds: 1_000_000_000 });
            },
            Bounds("a time's nanoseconds"),
        ),
        (
            |inode| {
                let long = alloc::vec::Vec::from([0; XATTR_VALUE_MAX_BYTES + 1]);
                inode.attributes.xattrs = [(b"a"[..].into(), long.into())].into();
            },
            Bounds("extended attributes"),
        ),
        (
            |inode| {
                let value = alloc::vec::Vec::from([0; XATTR_VALUE_MAX_BYTES]);
                let names = (0..5).map(|n| alloc::vec![b'a' + n].into());
                inode.attributes.xattrs = names.map(|name| (name, value.clone().into())).collect();
            },
            Bounds("extended attributes"),
        ),
        (
            |inode| {
                let version = inode.versions.values_mut().next().unwrap();
                version.author = "x".repeat(65);
            },
            Bounds("an author"),
        ),
        (
            |inode| inode.versions.values_mut().next().unwrap().content.size_bytes += 1,
            Bounds("the sum of a content's pieces"),
        ),
        (
            |inode| {
                let version = inode.versions.values_mut().next().unwrap();
                version.content.layout = Layout::Inline(vec![
                    Piece::Hole { len_bytes: u64::MAX },
                    Piece::Hole { len_bytes: 2 },
                ]);
            },
            Bounds("a piece's length"),
        ),
        (
            |inode| {
                let version = inode.versions.values_mut().next().unwrap();
                version.context.include(version.dot);
            },
            Bounds("a version's context"),
        ),
    ];
    for (change, error) in cases {
        assert_eq!(broken(change), Err(error));
    }
}

#[test]
fn counts_are_believed_only_within_their_bounds() {
    // A map of 2^32 fields, of 65 fields, an array of 2^60 versions, an endless map.
    for bytes in [
        &b"\xba\xff\xff\xff\xff"[..],
        &b"\xb8\x41"[..],
        &b"\xa1\x04\x9b\x10\x00\x00\x00\x00\x00\x00\x00"[..],
        &b"\xbf\xff"[..],
    ] {
        assert!(decode_inode(bytes).is_err(), "{bytes:x?}");
    }
    let large = [(99, alloc::vec::Vec::from([0xf6; UNREAD_MAX_BYTES + 1]))];
    let large = large.map(|(number, mut bytes)| {
        // One byte string of that length in all.
        bytes[..3].copy_from_slice(b"\x59\x3f\xfe");
        (number, bytes.into())
    });
    let attributes = Attributes { unread: large.into(), ..attributes() };
    assert!(decode_attributes(&encode_attributes(&attributes)).is_err());
}

#[test]
fn keys_that_do_not_ascend_are_refused() {
    assert_eq!(decode_vector(b"\xa2\x02\x01\x01\x01"), Err(DecodeError::Order("a version vector")));
    assert_eq!(decode_vector(b"\xa2\x01\x01\x01\x02"), Err(DecodeError::Order("a version vector")));
    assert_eq!(decode_attributes(b"\xa2\x02\x01\x02\x01"), Err(DecodeError::Order("attributes")));
}

#[test]
fn nesting_without_end_does_not_overflow_the_stack() {
    let mut bytes = vec![0xa1, 0x18, 0x63];
    bytes.extend(core::iter::repeat_n(0x81, UNREAD_MAX_BYTES - 1));
    bytes.push(0);
    assert!(decode_attributes(&bytes).is_err());
}

#[test]
fn damaged_bytes_are_refused_or_are_another_value_but_never_a_panic() {
    let originals = [encode_inode(&inode(Kind::File)), encode_entry(&entry())];
    for original in originals {
        for at in 0..original.len() {
            for flip in 0..=255 {
                let mut bytes = original.clone();
                bytes[at] ^= flip;
                if let Ok(inode) = decode_inode(&bytes) {
                    assert_eq!(decode_inode(&encode_inode(&inode)), Ok(inode));
                }
                if let Ok(entry) = decode_entry(&bytes) {
                    assert_eq!(decode_entry(&encode_entry(&entry)), Ok(entry));
                }
            }
        }
    }
}

#[test]
fn a_list_comes_back_and_is_held_to_its_description() {
    let pieces =
        vec![Piece::Chunk { id: ChunkId([3; 32]), len_bytes: 5 }, Piece::Hole { len_bytes: 4096 }];
    let bytes = encode_list(&List::Pieces(pieces.clone()));
    assert_eq!(bytes.len(), list_size_bytes(&pieces));
    assert_eq!(decode_list(&bytes, 0, 4101), Ok(List::Pieces(pieces)));
    assert_eq!(decode_list(&bytes, 0, 4102), Err(DecodeError::Bounds("a list's span")));
    assert_eq!(decode_list(&bytes, 1, 4101), Err(DecodeError::Bounds("a list's height")));
    let node = NodeRef { id: ChunkId([4; 32]), len_bytes: 8, span_bytes: 10 };
    let list = List::Nodes { height: 2, nodes: vec![node; 3] };
    let bytes = encode_list(&list);
    assert_eq!(decode_list(&bytes, 2, 30), Ok(list));
    for cut in 0..bytes.len() {
        assert!(decode_list(&bytes[..cut], 2, 30).is_err());
    }
    let mut longer = bytes.clone();
    longer.push(0);
    assert_eq!(decode_list(&longer, 2, 30), Err(DecodeError::Trailing));
    let mut newer = bytes;
    newer[2] = 2;
    assert_eq!(decode_list(&newer, 2, 30), Err(DecodeError::Unknown("version of a list")));
}
