//! What two joint states have in common that go on alike: a hash in which dots and stamps are only
//! what they are to one another. The view that was kept up is in it, so that one is checked for each.
//!
//! Dots count by their order among those of their writer, vectors by which versions they cover.
//! Stamps count by their order among those that they are ever compared with, and by whether they
//! are next to one another, because what settles a repair is stamped next to what it saw. The dots
//! of places, attributes and removals count for nothing: only sessions look at them. Bytes count by
//! the order in which they were saved.

use super::deed::{Device, Handle};
use kith_core::clock::Stamp;
use kith_core::id::{Dot, InodeId, WriterId};
use kith_core::index::IndexRead;
use kith_core::register::{Kind, Removal};
use kith_core::vector::VersionVector;
use std::collections::BTreeMap;

/// Which stamps are ever compared with which.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Class {
    /// Places and removals of what is no directory, and versions: which of several at one name is
    /// earlier.
    Files,
    /// Places and removals of directories: where a cycle is cut.
    Directories,
    /// Attributes of one inode.
    Attributes(InodeId),
}

#[derive(Clone, Copy, Debug)]
enum Token {
    Byte(u8),
    Dot(Dot),
    /// Which versions of a writer are covered.
    Upto(Dot),
    Stamp(Class, Stamp),
    Bytes(u8),
}

/// What is in a device, in an order of its own.
#[derive(Clone, Debug, Default)]
pub(super) struct Tokens {
    tokens: Vec<Token>,
    versions: Vec<Dot>,
}

impl Tokens {
    pub(super) fn of(device: &Device) -> Tokens {
        let mut all = Tokens::default();
        for state in device.index.inodes() {
            let inode = &state.inode;
            all.byte(1);
            all.dot(inode.id.0);
            all.byte(match inode.kind {
                Kind::Directory => 0,
                Kind::File => 1,
                _ => 2,
            });
            all.byte((inode.attributes.mode >> 6) as u8);
            all.stamp(Class::Attributes(inode.id), inode.attributes.stamp);
            for version in inode.versions.values() {
                all.byte(2);
                all.dot(version.dot);
                all.versions.push(version.dot);
                all.stamp(Class::Files, version.stamp);
                all.vector(&version.context);
                all.byte(version.author.as_bytes()[0]);
                all.tokens.push(Token::Bytes(version.content.size_bytes as u8));
            }
            all.vector(&inode.parted.versions);
        }
        for state in device.index.entries() {
            let (entry, place) = (&state.entry, &state.entry.place);
            let Ok(inode) = device.index.inode(entry.inode);
            let directory = inode.is_none_or(|state| state.inode.kind == Kind::Directory);
            let class = if directory { Class::Directories } else { Class::Files };
            all.byte(3);
            all.dot(entry.id.0);
            all.dot(entry.inode.0);
            all.stamp(class, place.stamp);
            all.dot(place.parent.0);
            place.name.as_bytes().iter().for_each(|byte| all.byte(*byte));
            all.byte(0);
            all.byte(place.author.as_bytes()[0]);
            if let Some(replaced) = place.replaced {
                all.dot(replaced.inode.0);
            }
            all.byte(u8::from(state.logged == 0));
            all.dot(state.shown_parent.0);
            all.byte(u8::from(state.present));
            if let Some(removal) = &entry.removal {
                all.removal(class, removal);
            }
            if let Some((removal, file)) = &state.withheld {
                all.byte(4);
                all.removal(class, removal);
                all.dot(file.0);
            }
        }
        for (directory, shown_as) in device.index.unions() {
            all.byte(9);
            all.dot(directory.0);
            all.dot(shown_as.0);
        }
        for row in device.index.view() {
            all.byte(15);
            all.dot(row.parent.0);
            row.name.as_bytes().iter().for_each(|byte| all.byte(*byte));
            all.dot(row.node.key().0);
            all.dot(row.entry.0);
            all.byte(u8::from(row.repaired) + 2 * u8::from(row.wanted.is_some()));
        }
        if let Some(Handle { inode, context, sees }) = &device.handle {
            all.byte(5);
            all.dot(inode.0);
            all.vector(context);
            all.tokens.push(Token::Bytes(sees.unwrap_or(0)));
        }
        all
    }

    fn byte(&mut self, byte: u8) {
        self.tokens.push(Token::Byte(byte));
    }

    fn dot(&mut self, dot: Dot) {
        self.tokens.push(Token::Dot(dot));
    }

    fn stamp(&mut self, class: Class, stamp: Stamp) {
        self.tokens.push(Token::Stamp(class, stamp));
    }

    fn vector(&mut self, vector: &VersionVector) {
        vector.dots().for_each(|dot| self.tokens.push(Token::Upto(dot)));
        self.byte(6);
    }

    fn removal(&mut self, class: Class, removal: &Removal) {
        self.byte(7 + u8::from(removal.last_link));
        self.stamp(class, removal.stamp);
        self.stamp(class, removal.saw_place);
        self.vector(&removal.saw_content);
    }
}

/// The hash of several devices' states together, with what else counts and with the bytes that are
/// due in the end.
pub(super) fn hash(parts: &[(&[u8], &Tokens)], due: u64) -> u128 {
    let all = || parts.iter().flat_map(|(_, tokens)| &tokens.tokens);
    let mut dots: Vec<Dot> = Vec::new();
    let mut stamps: Vec<(Class, Stamp)> = Vec::new();
    let mut bytes: Vec<u8> = (0..64).filter(|bit| due >> bit & 1 == 1).collect();
    for token in all() {
        match token {
            Token::Dot(dot) => dots.push(*dot),
            Token::Stamp(class, stamp) => stamps.push((*class, *stamp)),
            Token::Bytes(number) => bytes.push(*number),
            Token::Byte(_) | Token::Upto(_) => {}
        }
    }
    let mut versions: Vec<Dot> = Vec::new();
    parts.iter().for_each(|(_, tokens)| versions.extend(&tokens.versions));
    for list in [&mut dots, &mut versions] {
        list.sort_unstable();
        list.dedup();
    }
    stamps.sort_unstable();
    stamps.dedup();
    bytes.sort_unstable();
    bytes.dedup();
    let mut first: BTreeMap<Class, usize> = BTreeMap::new();
    for (at, (class, _)) in stamps.iter().enumerate() {
        first.entry(*class).or_insert(at);
    }
    let rank = |list: &[Dot], dot: Dot| {
        let begin = list.partition_point(|other| other.writer < dot.writer);
        (list.partition_point(|other| *other <= dot) - begin) as u8
    };
    let writer = |writer: WriterId| writer.0 as u8;
    let mut out = blake3::Hasher::new();
    let mut line = Vec::with_capacity(1024);
    for (class, stamps) in stamps.chunk_by(|a, b| a.0 == b.0).map(|run| (run[0].0, run)) {
        let gap = |pair: &[(Class, Stamp)]| (pair[1].1.hlc.0 - pair[0].1.hlc.0).min(3) as u8;
        if matches!(class, Class::Files | Class::Directories) {
            line.extend(stamps.windows(2).map(gap));
        }
    }
    line.extend(bytes.iter().map(|number| 2 + u8::from(*number < 64 && due >> number & 1 == 1)));
    for (head, tokens) in parts {
        line.push(255);
        line.extend_from_slice(head);
        for token in &tokens.tokens {
            match token {
                Token::Byte(byte) => line.extend([10, *byte]),
                Token::Dot(dot) => line.extend([11, writer(dot.writer), rank(&dots, *dot)]),
                Token::Upto(dot) => match rank(&versions, *dot) {
                    0 => {}
                    upto => line.extend([12, writer(dot.writer), upto]),
                },
                Token::Stamp(class, stamp) => {
                    let at = stamps.binary_search(&(*class, *stamp)).expect("it was collected");
                    line.extend([13, (at - first[class]) as u8, writer(stamp.writer)]);
                }
                Token::Bytes(number) => {
                    let at = bytes.binary_search(number).expect("it was collected");
                    line.extend([14, at as u8, u8::from(*number == 200)]);
                }
            }
        }
    }
    out.update(&line);
    let hash = out.finalize();
    u128::from_le_bytes(hash.as_bytes()[..16].try_into().expect("a hash has 32 bytes"))
}
