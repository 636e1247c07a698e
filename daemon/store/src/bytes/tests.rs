//! Tests of the bytes as a whole.

mod collection;
mod crash;
mod model;
mod spill;
mod whole;

use super::cutter::tests::{noise, pieces};
use super::{Base, Cut, Overlay};
use crate::{Founding, Store};
use kith_core::clock::{Hlc, Stamp, WallMs};
use kith_core::content::{Content, INLINE_PIECES_MAX, Layout, Piece};
use kith_core::id::{ChunkId, DeviceId, Dot, InodeId, ShareId, Tag, WriterId};
use kith_core::index::{Index, InodeState};
use kith_core::register::{Attributes, Inode, Kind, Mark, Owner, UnixTime, Version};
use kith_core::vector::VersionVector;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// A store in a directory of its own.
struct Scratch {
    directory: TempDir,
    store: Store,
}

impl Scratch {
    fn new() -> Self {
        let directory = TempDir::new().unwrap();
        let store = open(directory.path());
        Scratch { directory, store }
    }

    /// Opens the store again after what looks like `kill -9`.
    fn killed(self) -> Self {
        drop(self.store);
        let store = open(self.directory.path());
        Scratch { directory: self.directory, store }
    }

    /// Opens the store again after an orderly stop.
    fn restarted(self) -> Self {
        self.store.close();
        self.killed()
    }

    /// Stores bytes as a version's content, through an overlay.
    fn keep(&self, bytes: &[u8]) -> Content {
        let overlay = overlay_with(&self.store, bytes);
        let content = self.store.cut(&overlay.freeze()).unwrap().content.clone();
        overlay.discard().unwrap();
        content
    }
}

fn open(directory: &Path) -> Store {
    let founding = Founding {
        share: ShareId([1; 16]),
        device: DeviceId([2; 32]),
        writer: WriterId(3),
        author: "laptop".into(),
        now: WallMs(1_000_000),
        tag: Tag(4),
    };
    Store::open(directory, &founding).unwrap()
}

fn dot(number: u64) -> Dot {
    Dot { writer: WriterId(3), number }
}

fn base(content: Content) -> Base {
    Base { content, context: VersionVector::new(), parents: Vec::new() }
}

fn overlay_with(store: &Store, bytes: &[u8]) -> Overlay {
    let overlay = store.overlay(InodeId(dot(9)), base(Content::empty())).unwrap();
    for (number, slice) in bytes.chunks(300_000).enumerate() {
        overlay.write(number as u64 * 300_000, slice).unwrap();
    }
    overlay
}

/// The canonical description of bytes, cut in memory.
fn described(bytes: &[u8]) -> Content {
    let mut builder = super::list::ListBuilder::default();
    for piece in pieces(bytes, false, 1 << 20) {
        builder.push(piece, &mut |_| {});
    }
    builder.finish(&mut |_| {})
}

fn read_all(store: &Store, content: &Content) -> Vec<u8> {
    store.read(content, 0, content.size_bytes as usize).unwrap()
}

/// A file with one version, as the index keeps it.
fn file(number: u64, content: Content) -> InodeState {
    let stamp = Stamp { hlc: Hlc(number), writer: WriterId(3) };
    let attributes = Attributes {
        stamp,
        dot: dot(number),
        mode: 0o644,
        user: Owner::Person,
        group: Owner::Person,
        mtime: None,
        xattrs: std::collections::BTreeMap::new(),
        unread: std::collections::BTreeMap::new(),
    };
    let version = Version {
        stamp,
        dot: dot(number + 1),
        context: VersionVector::new(),
        parents: Vec::new(),
        author: "laptop".into(),
        mtime: UnixTime::default(),
        content,
        mark: Mark::Closed,
        unread: std::collections::BTreeMap::new(),
    };
    let inode = Inode {
        id: InodeId(dot(number)),
        kind: Kind::File,
        attributes,
        versions: [(version.dot, version)].into(),
        parted: kith_core::register::Parted::default(),
        unread: std::collections::BTreeMap::new(),
    };
    InodeState { inode, logged: number + 1 }
}

fn publish(store: &Store, number: u64, cut: &Cut) {
    let state = file(number, cut.content.clone());
    store.write(|transaction| transaction.put_inode(&state)).unwrap();
}

/// The segments that hold anything.
fn data_files(scratch: &Scratch) -> Vec<PathBuf> {
    std::fs::read_dir(scratch.directory.path().join("data"))
        .unwrap()
        .flat_map(|directory| std::fs::read_dir(directory.unwrap().path()).unwrap())
        .map(|file| file.unwrap().path())
        .filter(|path| path.metadata().unwrap().len() > 0)
        .collect()
}
