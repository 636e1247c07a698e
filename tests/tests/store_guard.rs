//! What another device takes away in a mass change stays on this one's disk, and can be found.
#![expect(clippy::unwrap_used, reason = "the helpers of tests are tests too")]

use kith_core::clock::{Stamp, WallMs};
use kith_core::content::Content;
use kith_core::id::{DeviceId, Dot, InodeId, ShareId, Tag, WriterId};
use kith_core::index::{IndexRead, Register};
use kith_core::name::EntryName;
use kith_core::operation::{Context, Operation, apply};
use kith_core::receive::receive;
use kith_core::register::{Kind, Mark, Owner, UnixTime};
use kith_core::vector::VersionVector;
use kith_store::{Base, Founding, MassChange, Store, StoreError};
use std::collections::BTreeMap;

const NOW: WallMs = WallMs(1_795_651_200_000);
const YEAR_MS: u64 = 365 * 24 * 3600 * 1000;
const FILES: u64 = 150;
const LAPTOP: WriterId = WriterId(1);

struct Device {
    _directory: tempfile::TempDir,
    store: Store,
    passed: u64,
}

impl Device {
    fn new(writer: WriterId, author: &str) -> Device {
        let directory = tempfile::tempdir().unwrap();
        let founding = Founding {
            share: ShareId([7; 16]),
            device: DeviceId([u8::try_from(writer.0).unwrap(); 32]),
            writer,
            author: author.into(),
            now: NOW,
            tag: Tag(1),
        };
        let store = Store::open(directory.path(), &founding).unwrap();
        Device { _directory: directory, store, passed: 0 }
    }

    fn does(&self, now: WallMs, operation: Operation) -> Option<InodeId> {
        let context = Context { now, tag: Tag(2) };
        let applied = self.store.write(|tx| apply(tx, context, operation));
        applied
            .map_err(|error: kith_core::operation::OperationError<StoreError>| error)
            .unwrap()
            .node
            .map(kith_core::index::Node::key)
    }

    fn publishes(&self, now: WallMs, inode: InodeId, parents: Vec<Dot>, content: Content) {
        let context: VersionVector = parents.iter().copied().collect();
        let (mtime, mark) = (UnixTime::default(), Mark::Closed);
        self.does(now, Operation::Publish { inode, context, parents, content, mtime, mark });
    }

    /// Stores bytes without naming them.
    fn keeps(&self, bytes: &[u8]) -> Content {
        let base =
            Base { content: Content::empty(), context: VersionVector::new(), parents: Vec::new() };
        let nobody = InodeId(Dot { writer: WriterId(99), number: 1 });
        let overlay = self.store.overlay(nobody, base).unwrap();
        overlay.write(0, bytes).unwrap();
        let content = self.store.cut(&overlay.freeze()).unwrap().content.clone();
        overlay.discard().unwrap();
        content
    }

    /// Passes on what it hasn't passed on yet.
    fn tells(&mut self, other: &Device, now: WallMs) {
        loop {
            let changes = self.store.snapshot().unwrap().changes_after(self.passed, 64).unwrap();
            let Some((last, _)) = changes.last() else { return };
            self.passed = *last;
            let registers = changes.into_iter().map(|(_, register)| register).collect();
            let context = Context { now, tag: Tag(3) };
            other.store.write(|tx| receive(tx, context, registers)).unwrap();
        }
    }

    fn alarm(&self) -> MassChange {
        let mut changes = self.store.mass_changes().unwrap();
        assert_eq!(changes.len(), 1, "{changes:?}");
        changes.remove(0)
    }
}

fn name(number: u64) -> EntryName {
    EntryName::new(format!("file {number}").as_bytes()).unwrap()
}

fn bytes_of(number: u64) -> Vec<u8> {
    format!("what is in file {number} ").repeat(20).into_bytes()
}

/// All that a mass change took, as a restoring would find it: names in the root, and contents.
fn found(store: &Store, change: &MassChange) -> BTreeMap<String, Content> {
    let snapshot = store.snapshot().unwrap();
    let (begin, end) = (change.alarm.begin, change.alarm.end);
    let is_its = |stamp: Stamp| stamp.writer == change.writer && (begin..=end).contains(&stamp.hlc);
    let mut found = BTreeMap::new();
    for (_, register) in snapshot.changes_after(0, usize::MAX).unwrap() {
        match register {
            Register::Entry(entry) if entry.removal.as_ref().is_some_and(|it| is_its(it.stamp)) => {
                assert_eq!(entry.place.parent, InodeId::ROOT);
                let inode = snapshot.inode(entry.inode).unwrap().unwrap().inode;
                let content = inode.latest().unwrap().content.clone();
                found.insert(entry.place.name.to_string(), content);
            }
            Register::Inode(inode) if inode.versions.values().any(|it| is_its(it.stamp)) => {
                let history = store.history_of(inode.id).unwrap();
                let before = history.into_iter().map(|(_, version)| version);
                let before = before.filter(|version| version.stamp.hlc < begin);
                let before = before.max_by_key(|version| version.stamp).unwrap();
                let entries = snapshot.entries_of(inode.id).unwrap();
                found.insert(entries[0].entry.place.name.to_string(), before.content);
            }
            _ => {}
        }
    }
    found
}

#[test]
fn collection_lets_go_of_nothing_that_a_mass_change_took_until_it_was_meant() {
    let mut laptop = Device::new(LAPTOP, "laptop");
    let desktop = Device::new(WriterId(2), "desktop");
    let mut inodes = Vec::new();
    for number in 0..FILES {
        let content = desktop.keeps(&bytes_of(number));
        let create = Operation::Create {
            parent: InodeId::ROOT,
            name: name(number),
            kind: Kind::File,
            mode: 0o644,
            user: Owner::Person,
            group: Owner::Person,
        };
        let inode = laptop.does(NOW, create).unwrap();
        laptop.publishes(NOW, inode, Vec::new(), content);
        inodes.push(inode);
    }
    laptop.tells(&desktop, NOW);
    assert_eq!(desktop.store.snapshot().unwrap().state().unwrap().author, "desktop");

    // A week later one half is removed and the other overwritten, while nobody else is there.
    let week = WallMs(NOW.0 + 7 * 24 * 3600 * 1000);
    for (number, inode) in (0..).zip(&inodes) {
        if number % 2 == 0 {
            let (parent, name) = (InodeId::ROOT, name(number));
            laptop.does(week, Operation::Remove { parent, name, directory: false });
        } else {
            let state = laptop.store.snapshot().unwrap().inode(*inode).unwrap().unwrap();
            let parents = state.inode.versions.keys().copied().collect();
            laptop.publishes(week, *inode, parents, desktop.keeps(b"scrambled"));
        }
    }
    let heard = WallMs(week.0 + YEAR_MS);
    laptop.tells(&desktop, heard);
    let change = desktop.alarm();
    assert_eq!((change.writer, change.device.as_deref()), (LAPTOP, Some("laptop")));
    assert_eq!((change.alarm.removed, change.alarm.overwritten), (FILES / 2, FILES / 2));
    assert_eq!(change.alarm.files, FILES);
    assert_eq!(desktop.store.take_guard_news().raised.len(), 1);
    assert_eq!(laptop.store.mass_changes().unwrap(), [], "who did it raises no alarm");

    let late = WallMs(heard.0 + 5 * YEAR_MS);
    assert_eq!(desktop.store.held_since(late).unwrap(), Some(week));
    assert_eq!(desktop.store.collect(late, 0).unwrap().chunks, 0, "as where the disk is full");
    let taken = found(&desktop.store, &change);
    assert_eq!(taken.len() as u64, FILES);
    for number in 0..FILES {
        let content = &taken[&format!("file {number}")];
        let bytes = desktop.store.read(content, 0, 10_000).unwrap();
        assert!(bytes == bytes_of(number), "file {number}");
    }

    let upto = change.alarm.end;
    let means = || {
        use kith_core::index::Index;
        desktop.store.write(|tx| tx.note_meant(LAPTOP, upto)).unwrap();
        desktop.store.take_guard_news()
    };
    let news = means();
    assert_eq!((news.meant, news.ended.len()), (true, 1));
    assert_eq!(means(), kith_store::GuardNews::default(), "saying it again changes nothing");
    assert_eq!(desktop.store.meant().unwrap(), BTreeMap::from([(LAPTOP, upto)]));
    assert_eq!(desktop.store.held_since(late).unwrap(), None);
    assert_eq!(desktop.store.collect(late, 6 * YEAR_MS).unwrap().chunks, 0, "for its time");
    assert_eq!(desktop.store.collect(late, 0).unwrap().chunks, FILES);
}
