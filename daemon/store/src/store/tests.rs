//! Transactions, snapshots and what is incomplete, in a store as callers see it.

use super::*;
use kith_core::content::{Content, Layout, NodeRef};
use kith_core::id::ChunkId;
use kith_core::index::{Index, IndexRead, Node};
use kith_core::name::EntryName;
use kith_core::operation::{Applied, Context, Operation, OperationError, apply};
use kith_core::register::{Kind, Mark, Owner, UnixTime};
use kith_core::vector::VersionVector;

fn founding(share: u8) -> Founding {
    Founding {
        share: ShareId([share; 16]),
        device: DeviceId([2; 32]),
        writer: WriterId(7),
        author: "desk".into(),
        now: WallMs(1000),
        tag: Tag(1),
    }
}

fn store() -> (tempfile::TempDir, Store) {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path(), &founding(1)).unwrap();
    (directory, store)
}

fn name(text: &str) -> EntryName {
    EntryName::new(text.as_bytes()).unwrap()
}

fn creation(text: &str, kind: Kind) -> Operation {
    let (user, group) = (Owner::Person, Owner::Person);
    Operation::Create { parent: InodeId::ROOT, name: name(text), kind, mode: 0o644, user, group }
}

fn done(store: &Store, operation: Operation) -> Applied {
    let context = Context { now: WallMs(2000), tag: Tag(2) };
    let done: Result<Applied, OperationError<StoreError>> =
        store.write(|transaction| apply(transaction, context, operation));
    done.unwrap()
}

fn created(store: &Store, text: &str) -> InodeId {
    done(store, creation(text, Kind::File)).node.unwrap().inode()
}

/// A long file of which no list is here.
fn long() -> Content {
    let id = ChunkId::of(b"nowhere");
    let node = NodeRef { id, len_bytes: 5000, span_bytes: 1 << 30 };
    Content { size_bytes: 1 << 30, layout: Layout::Tree { height: 0, nodes: vec![node] } }
}

fn publication(inode: InodeId, content: Content) -> Operation {
    Operation::Publish {
        inode,
        context: VersionVector::new(),
        parents: Vec::new(),
        content,
        mtime: UnixTime::default(),
        mark: Mark::Closed,
    }
}

fn latest(store: &Store, inode: InodeId) -> Dot {
    let state = store.snapshot().unwrap().inode(inode).unwrap().unwrap();
    state.inode.latest().unwrap().dot
}

#[test]
fn an_existing_store_is_not_founded_again() {
    let (directory, store) = store();
    created(&store, "kept");
    store.close();
    drop(store);
    let store = Store::open(directory.path(), &founding(9)).unwrap();
    assert!(!store.was_unclean());
    let snapshot = store.snapshot().unwrap();
    assert_eq!(snapshot.state().unwrap().share, founding(1).share);
    assert!(snapshot.shown(InodeId::ROOT, &name("kept")).unwrap().is_some());
}

#[test]
fn a_snapshot_sees_what_was_committed_before_it_began() {
    let (_directory, store) = store();
    created(&store, "before");
    let snapshot = store.snapshot().unwrap();
    created(&store, "after");
    let after = store.snapshot().unwrap();
    for (text, seen) in [("before", true), ("after", false)] {
        let shown = snapshot.shown(InodeId::ROOT, &name(text)).unwrap();
        assert_eq!(shown.is_some(), seen, "{text}");
        assert!(after.shown(InodeId::ROOT, &name(text)).unwrap().is_some());
    }
    assert_eq!(snapshot.totals().unwrap().entries + 1, after.totals().unwrap().entries);
}

#[test]
fn a_failed_transaction_leaves_nothing() {
    let (_directory, store) = store();
    let before = store.snapshot().unwrap().state().unwrap();
    let failed = store.write(|transaction| {
        let mut state = transaction.state()?;
        state.number += 100;
        state.knowledge.include(Dot { writer: WriterId(99), number: 4 });
        transaction.put_state(&state)?;
        Err::<(), _>(StoreError::Closed)
    });
    assert!(failed.is_err());
    assert_eq!(store.snapshot().unwrap().state().unwrap(), before);
    let kept = store.write(|transaction| transaction.state());
    assert_eq!(kept.unwrap(), before);
}

#[test]
fn a_panic_in_a_transaction_leaves_nothing() {
    let (_directory, store) = store();
    let before = store.snapshot().unwrap().state().unwrap();
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let _: Result<(), StoreError> = store.write(|transaction| {
            let mut state = transaction.state()?;
            state.number += 1;
            transaction.put_state(&state)?;
            panic!("in the middle");
        });
    }));
    assert!(panicked.is_err());
    assert_eq!(store.snapshot().unwrap().state().unwrap(), before);
    created(&store, "goes on");
}

#[test]
fn what_was_committed_is_there_after_an_unclean_stop() {
    let (directory, store) = store();
    let inode = created(&store, "kept");
    store.sync().unwrap();
    drop(store);
    let store = Store::open(directory.path(), &founding(1)).unwrap();
    assert!(store.was_unclean());
    let found = store.snapshot().unwrap().look_up(InodeId::ROOT, &name("kept")).unwrap();
    let (shown, node, _) = found.unwrap();
    assert_eq!((shown.node, node.current), (Node::Inode(inode), true));
    assert!(node.ino > crate::ROOT_INO);
}

#[test]
fn a_long_version_is_incomplete_until_somebody_says_otherwise() {
    let (_directory, store) = store();
    let inode = created(&store, "long");
    assert_eq!(store.incomplete(0, 10).unwrap(), []);
    done(&store, publication(inode, long()));
    let lacking = store.incomplete(0, 10).unwrap();
    assert_eq!(lacking.len(), 1);
    assert_eq!((lacking[0].inode, lacking[0].absent_bytes), (inode, 1 << 30));
    let version = latest(&store, inode);
    store.recount(inode, version, 77).unwrap();
    assert_eq!(store.absent_bytes().unwrap(), 77);
    // A later change of the file forgets neither count.
    let change =
        Operation::Link { node: Node::Inode(inode), parent: InodeId::ROOT, name: name("link") };
    done(&store, change);
    assert_eq!(store.absent_bytes().unwrap(), 77);
    store.complete(inode, version).unwrap();
    let rename = Operation::Rename {
        from: (InodeId::ROOT, name("link")),
        to: (InodeId::ROOT, name("renamed")),
        mode: kith_core::operation::RenameMode::Replace,
    };
    done(&store, rename);
    assert_eq!((store.incomplete(0, 10).unwrap(), store.absent_bytes().unwrap()), (vec![], 0));
    // Its bytes were damaged: it is looked for again, at a place later than all before.
    store.write(|transaction| transaction.mark_doubtful(inode, version)).unwrap();
    let again = store.incomplete(lacking[0].order, 10).unwrap();
    assert_eq!(again.len(), 1);
}

#[test]
fn what_no_name_leads_to_is_not_fetched() {
    let (_directory, store) = store();
    let inode = created(&store, "long");
    done(&store, publication(inode, long()));
    assert_eq!(store.absent_bytes().unwrap(), 1 << 30);
    let (parent, name) = (InodeId::ROOT, name("long"));
    done(&store, Operation::Remove { parent, name, directory: false });
    assert_eq!((store.incomplete(0, 10).unwrap(), store.absent_bytes().unwrap()), (vec![], 0));
}

#[test]
fn a_renewed_node_supersedes_the_old_one() {
    let (_directory, store) = store();
    let inode = created(&store, "file");
    let at = UnixTime { seconds: 5, nanoseconds: 6 };
    let (old, new) = store.write(|transaction| transaction.renew_node(inode, at)).unwrap();
    let snapshot = store.snapshot().unwrap();
    let (_, node, _) = snapshot.look_up(InodeId::ROOT, &name("file")).unwrap().unwrap();
    assert_eq!((node.ino, node.changed, node.current), (new, at, true));
    let superseded = snapshot.node(old).unwrap().unwrap();
    assert_eq!((superseded.node, superseded.current), (Node::Inode(inode), false));
}

#[test]
fn a_directory_knows_when_its_names_changed() {
    let (_directory, store) = store();
    let directory = done(&store, creation("directory", Kind::Directory)).node.unwrap().key();
    assert_eq!(store.snapshot().unwrap().subdirectories(InodeId::ROOT).unwrap(), 1);
    let [first, second] = [1, 2].map(|seconds| UnixTime { seconds, nanoseconds: 0 });
    store
        .write(|transaction| {
            transaction.touch_node(directory, first, Some(first))?;
            transaction.touch_node(directory, second, None)
        })
        .unwrap();
    let node = store.snapshot().unwrap().node_of(directory).unwrap().unwrap();
    assert_eq!((node.changed, node.modified), (second, first));
}

#[test]
fn history_keeps_what_was_superseded() {
    let (_directory, store) = store();
    let inode = created(&store, "file");
    done(&store, publication(inode, long()));
    let first = latest(&store, inode);
    let covering = Operation::Publish {
        inode,
        context: [first].into_iter().collect(),
        parents: vec![first],
        content: Content::empty(),
        mtime: UnixTime::default(),
        mark: Mark::Closed,
    };
    done(&store, covering);
    let history = store.history_of(inode).unwrap();
    let dots: Vec<Dot> = history.iter().map(|(_, version)| version.dot).collect();
    assert_eq!(dots, [first]);
    assert_eq!(store.absent_bytes().unwrap(), 0);
}

#[test]
fn a_glance_sees_what_is_committed_also_while_somebody_writes() {
    let (_directory, store) = store();
    let inode = created(&store, "first");
    let seen = |store: &Store, text| {
        store.glance().unwrap().look_up(InodeId::ROOT, &name(text)).unwrap().is_some()
    };
    assert!(seen(&store, "first"));
    let written = store.write(|transaction| {
        let context = Context { now: WallMs(3000), tag: Tag(3) };
        apply(transaction, context, creation("second", Kind::File))?;
        let (first, second) = std::thread::scope(|scope| {
            // It takes another connection rather than wait.
            scope.spawn(|| (seen(&store, "first"), seen(&store, "second"))).join().unwrap()
        });
        assert!(first && !second);
        Ok::<_, OperationError<StoreError>>(())
    });
    written.unwrap();
    assert!(seen(&store, "second"));
    // A glance keeps writers out until it is dropped, and leaves nothing open.
    let glance = store.glance().unwrap();
    let (done, finished) = std::sync::mpsc::channel();
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            created(&store, "third");
            done.send(()).unwrap();
        });
        assert!(glance.look_up(InodeId::ROOT, &name("third")).unwrap().is_none());
        assert!(finished.try_recv().is_err());
        drop(glance);
        writer.join().unwrap();
    });
    assert!(seen(&store, "third"));
    assert!(store.snapshot().unwrap().inode(inode).unwrap().is_some());
}

#[test]
fn what_a_panic_in_a_transaction_left_is_undone_before_a_glance() {
    let (_directory, store) = store();
    let writing = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let _: Result<(), StoreError> = store.write(|transaction| {
            let context = Context { now: WallMs(3000), tag: Tag(3) };
            apply(transaction, context, creation("half", Kind::File)).unwrap();
            panic!("as the test wants");
        });
    }));
    assert!(writing.is_err());
    assert!(store.glance().unwrap().look_up(InodeId::ROOT, &name("half")).unwrap().is_none());
    created(&store, "whole");
}

#[test]
fn a_damaged_index_is_told_from_a_sound_one() {
    let (directory, store) = store();
    for number in 0..300 {
        created(&store, &format!("file {number}"));
    }
    assert_eq!(store.damage().unwrap(), None);
    store.close();
    drop(store);
    let index = directory.path().join("index.db");
    let mut bytes = std::fs::read(&index).unwrap();
    let middle = bytes.len() / 4096 / 2 * 4096;
    bytes[middle..][..4096].fill(0);
    std::fs::write(&index, bytes).unwrap();
    let store = Store::open(directory.path(), &founding(1)).unwrap();
    assert!(!matches!(store.damage(), Ok(None)));
}
