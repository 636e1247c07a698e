//! Collecting garbage.

use super::*;
use crate::bytes::Collected;
use kith_core::index::{IndexRead, Node};
use kith_core::name::EntryName;
use kith_core::operation::{Context, Operation, apply};
use std::sync::mpsc;

const NOW: WallMs = WallMs(1_000_000_000);
const DAY_MS: u64 = 86_400_000;

fn collect(store: &Store) -> Collected {
    store.collect(NOW, DAY_MS).unwrap()
}

fn cut(store: &Store, bytes: &[u8]) -> Cut {
    let overlay = overlay_with(store, bytes);
    let cut = store.cut(&overlay.freeze()).unwrap();
    overlay.discard().unwrap();
    cut
}

#[test]
fn what_nothing_names_is_given_back() {
    let scratch = Scratch::new();
    let store = &scratch.store;
    publish(store, 1, &cut(store, &noise(1, 6 << 20)));
    let named = described(&noise(1, 6 << 20));
    let unnamed = cut(store, &noise(2, 6 << 20)).content.clone();
    let collected = collect(store);
    assert_eq!(collected.segments, 1);
    assert!(collected.freed_bytes >= 6 << 20 && collected.chunk_bytes >= 6 << 20);
    assert_eq!(read_all(store, &named), noise(1, 6 << 20));
    assert!(!store.absent(&unnamed, 0..u64::MAX, 1).unwrap().is_empty());
    let scratch = scratch.killed();
    assert_eq!(read_all(&scratch.store, &named), noise(1, 6 << 20));
    assert_eq!(collect(&scratch.store), Collected::default(), "nothing is left to collect");
}

#[test]
fn overlays_keep_what_they_refer_to() {
    let scratch = Scratch::new();
    let store = &scratch.store;
    let (bytes, copied) = (noise(1, 3 << 20), noise(2, 3 << 20));
    let based = cut(store, &bytes).content.clone();
    let referred = cut(store, &copied).content.clone();
    let overlay = store.overlay(InodeId(dot(1)), base(based)).unwrap();
    overlay.copy_content(1 << 20, &referred, 0, 1 << 20).unwrap();
    assert_eq!(collect(store).chunks, 0);
    overlay.sync().unwrap();
    drop(overlay);
    let scratch = scratch.killed();
    assert_eq!(collect(&scratch.store).chunks, 0, "as those that a crash left do");
    let recovered = scratch.store.recovered().unwrap().pop().unwrap();
    let mut model = bytes;
    model[1 << 20..2 << 20].copy_from_slice(&copied[..1 << 20]);
    assert!(recovered.overlay.read(0, 3 << 20).unwrap() == model);
    recovered.overlay.discard().unwrap();
    drop(recovered);
    assert!(collect(&scratch.store).chunks > 0);
}

#[test]
fn superseded_versions_stay_as_long_as_their_retention() {
    let scratch = Scratch::new();
    let store = &scratch.store;
    let content = cut(store, &noise(1, 1 << 20)).content.clone();
    let version = file(1, content.clone()).inode.versions.into_values().next().unwrap();
    store
        .write(|transaction| {
            let superseded = kith_core::index::Retired::Superseded;
            transaction.retire(InodeId(dot(1)), &version, superseded, NOW)
        })
        .unwrap();
    assert_eq!(store.collect(WallMs(NOW.0 + DAY_MS), DAY_MS).unwrap().chunks, 0);
    assert_eq!(read_all(store, &content), noise(1, 1 << 20));
    assert!(store.collect(WallMs(NOW.0 + DAY_MS + 1), DAY_MS).unwrap().chunks > 0);
}

/// Does something to a store.
fn does(store: &Store, operation: Operation) -> Option<InodeId> {
    let context = Context { now: NOW, tag: Tag(1) };
    let done = store.write(|transaction| apply(transaction, context, operation)).unwrap();
    done.node.map(Node::key)
}

fn photo() -> (InodeId, EntryName) {
    (InodeId::ROOT, EntryName::new(b"photo").unwrap())
}

/// Makes a file with a name and a version.
fn photographed(store: &Store, content: Content) -> InodeId {
    let ((parent, name), user, group) = (photo(), Owner::Person, Owner::Person);
    let create = Operation::Create { parent, name, kind: Kind::File, mode: 0o644, user, group };
    let inode = does(store, create).unwrap();
    revise(store, inode, content);
    inode
}

/// Publishes a version of a file that was made from all before it.
fn revise(store: &Store, inode: InodeId, content: Content) {
    let state = store.snapshot().unwrap().inode(inode).unwrap().unwrap();
    let context = state.inode.known_versions();
    let (parents, mtime, mark) = (Vec::new(), UnixTime::default(), Mark::Closed);
    does(store, Operation::Publish { inode, context, parents, content, mtime, mark });
}

/// Says when a file went.
fn went(store: &Store, inode: InodeId, at: WallMs) {
    let at = UnixTime { seconds: (at.0 / 1000).cast_signed(), nanoseconds: 0 };
    store.write(|transaction| transaction.touch_node(inode, at, None)).unwrap();
}

fn unname(store: &Store) {
    let (parent, name) = photo();
    does(store, Operation::Remove { parent, name, directory: false });
}

#[test]
fn removed_files_stay_as_long_as_their_retention() {
    let scratch = Scratch::new();
    let store = &scratch.store;
    let cut = cut(store, &noise(1, 1 << 20));
    let content = cut.content.clone();
    let inode = photographed(store, content.clone());
    drop(cut);
    let late = WallMs(NOW.0 + 100 * DAY_MS);
    assert_eq!(store.collect(late, DAY_MS).unwrap().chunks, 0, "it has its name");
    unname(store);
    // Whoever removed it has a slow clock: here it went just now.
    went(store, inode, late);
    assert_eq!(store.collect(late, DAY_MS).unwrap().chunks, 0);
    went(store, inode, NOW);
    assert_eq!(store.collect(WallMs(NOW.0 + DAY_MS), DAY_MS).unwrap().chunks, 0);
    assert_eq!(read_all(store, &content), noise(1, 1 << 20));
    assert!(store.collect(late, DAY_MS).unwrap().freed_bytes >= 1 << 20);
}

#[test]
fn what_is_here_stays_until_what_took_its_place_is() {
    let late = WallMs(NOW.0 + 100 * DAY_MS);
    let (before, after) = (noise(1, 1 << 20), noise(2, 1 << 20));
    for saved_by_a_rename in [false, true] {
        let scratch = Scratch::new();
        let store = &scratch.store;
        let cut_before = cut(store, &before);
        let mut inode = photographed(store, cut_before.content.clone());
        drop(cut_before);
        if saved_by_a_rename {
            unname(store);
            went(store, inode, NOW);
            inode = photographed(store, described(&after));
        } else {
            revise(store, inode, described(&after));
        }
        assert_eq!(store.collect(late, DAY_MS).unwrap().chunks, 0, "{saved_by_a_rename}");
        assert_eq!(read_all(store, &described(&before)), before);
        let cut_after = cut(store, &after);
        let state = store.snapshot().unwrap().inode(inode).unwrap().unwrap();
        let version = state.inode.latest().unwrap().dot;
        store.write(|transaction| transaction.mark_complete(inode, version)).unwrap();
        drop(cut_after);
        assert!(store.collect(late, DAY_MS).unwrap().freed_bytes >= 1 << 20, "{saved_by_a_rename}");
        assert_eq!(read_all(store, &described(&after)), after);
    }
}

#[test]
fn a_segment_with_little_alive_is_rewritten() {
    let scratch = Scratch::new();
    let store = &scratch.store;
    let mut bytes = noise(1, 8 << 20);
    drop(cut(store, &bytes));
    // The first part stays, as another file.
    bytes.truncate(1 << 20);
    publish(store, 1, &cut(store, &bytes));
    let collected = collect(store);
    assert_eq!(collected.segments, 1, "{collected:?}");
    assert!(collected.freed_bytes >= 8 << 20);
    assert_eq!(read_all(store, &described(&bytes)), bytes);
    let scratch = scratch.killed();
    assert_eq!(read_all(&scratch.store, &described(&bytes)), bytes);
}

#[test]
fn nothing_is_collected_between_a_cut_and_its_publication() {
    let scratch = Scratch::new();
    let store = &scratch.store;
    let cut = cut(store, &noise(1, 1 << 20));
    let (started, starts) = mpsc::channel();
    let collector = {
        let store = store.clone();
        std::thread::spawn(move || {
            started.send(()).unwrap();
            collect(&store)
        })
    };
    starts.recv().unwrap();
    publish(store, 1, &cut);
    let content = cut.content.clone();
    drop(cut);
    assert_eq!(collector.join().unwrap().chunks, 0);
    assert_eq!(read_all(store, &content), noise(1, 1 << 20));
}
