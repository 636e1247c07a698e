//! What the spill log brings back.

use super::*;
use crate::bytes::Recovered;
use crate::bytes::spill::{logs_in, path_of};
use crate::bytes::spill_record::log_head;
use proptest::prelude::*;
use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;

const TIME: UnixTime = UnixTime { seconds: 1_700_000_000, nanoseconds: 5 };

impl Scratch {
    fn logs(&self) -> Vec<PathBuf> {
        let directory = self.directory.path();
        logs_in(directory).unwrap().into_iter().map(|log| path_of(directory, log)).collect()
    }

    /// Opens the store again after what looks like a power cut: the log is of another boot.
    pub(super) fn rebooted(self) -> Self {
        for log in self.logs() {
            let log = OpenOptions::new().write(true).open(log).unwrap();
            log.write_all_at(&log_head(&[7; 16]), 0).unwrap();
        }
        self.killed()
    }

    fn one_recovered(&self) -> Recovered {
        let mut all = self.store.recovered().unwrap();
        assert_eq!(all.len(), 1);
        all.pop().unwrap()
    }
}

fn all_of(overlay: &Overlay) -> Vec<u8> {
    overlay.read(0, usize::MAX >> 1).unwrap()
}

#[test]
fn what_was_only_in_memory_comes_back_after_a_kill() {
    let scratch = Scratch::new();
    let overlay = overlay_with(&scratch.store, b"closed");
    overlay.note_closed(TIME).unwrap();
    let open = overlay_with(&scratch.store, b"open");
    open.note_closed(TIME).unwrap();
    open.write(4, b" still").unwrap();
    let empty = scratch.store.overlay(InodeId(dot(7)), base(Content::empty())).unwrap();
    empty.note_closed(TIME).unwrap();
    drop((overlay, open, empty));
    let scratch = scratch.killed();
    let all = scratch.store.recovered().unwrap();
    let seen: Vec<_> =
        all.iter().map(|left| (left.synced, left.closed, all_of(&left.overlay))).collect();
    let expected: [(bool, Option<UnixTime>, &[u8]); 3] =
        [(false, Some(TIME), b"closed"), (false, None, b"open still"), (false, Some(TIME), b"")];
    assert_eq!(seen.len(), 3);
    for (seen, expected) in seen.iter().zip(expected) {
        assert_eq!((seen.0, seen.1, &seen.2[..]), expected);
    }
    assert_eq!(all[2].owner, InodeId(dot(7)));
    assert!(scratch.store.recovered().unwrap().is_empty(), "taken over already");
    // A second kill changes nothing.
    drop(all);
    let scratch = scratch.killed();
    let all = scratch.store.recovered().unwrap();
    assert_eq!(all.len(), 3);
    all.iter().for_each(|left| left.overlay.discard().unwrap());
    drop(all);
    assert!(scratch.killed().store.recovered().unwrap().is_empty());
}

#[test]
fn the_log_is_of_one_boot_and_of_no_orderly_stop() {
    let scratch = Scratch::new();
    drop(overlay_with(&scratch.store, b"in memory"));
    let scratch = scratch.rebooted();
    assert!(scratch.store.recovered().unwrap().is_empty());
    assert!(scratch.logs().is_empty(), "it is removed");
    drop(overlay_with(&scratch.store, b"in memory"));
    assert_eq!(scratch.logs().len(), 1);
    let scratch = scratch.restarted();
    assert!(scratch.store.recovered().unwrap().is_empty());
    assert!(scratch.logs().is_empty());
}

#[test]
fn a_stop_that_could_not_keep_what_was_written_is_none() {
    let scratch = Scratch::new();
    let overlay = overlay_with(&scratch.store, b"in memory");
    scratch.store.close();
    drop(overlay);
    let left = scratch.killed().one_recovered();
    assert_eq!(all_of(&left.overlay), b"in memory");
}

#[test]
fn what_ended_does_not_come_back_and_leaves_an_empty_log() {
    let scratch = Scratch::new();
    for round in 0..100 {
        let overlay = overlay_with(&scratch.store, &noise(round, 100_000));
        overlay.note_closed(TIME).unwrap();
        overlay.discard().unwrap();
    }
    let [log] = &scratch.logs()[..] else { panic!() };
    let len = log.metadata().unwrap().len();
    assert!(len < 2 << 20, "{len}");
    let kept = overlay_with(&scratch.store, b"kept");
    drop(kept);
    assert_eq!(all_of(&scratch.killed().one_recovered().overlay), b"kept");
}

#[test]
fn a_torn_log_holds_what_came_before() {
    for torn in [1, 10, 40, 47, 48, 60] {
        let scratch = Scratch::new();
        let overlay = overlay_with(&scratch.store, b"first ");
        overlay.write(6, b"second").unwrap();
        let [log] = &scratch.logs()[..] else { panic!() };
        let log = OpenOptions::new().write(true).read(true).open(log).unwrap();
        let before = log.metadata().unwrap().len();
        overlay.write(12, &[b'x'; 20]).unwrap();
        let len = log.metadata().unwrap().len();
        assert!(len - before > 60);
        log.set_len(len - torn).unwrap();
        drop(overlay);
        let scratch = scratch.killed();
        let left = scratch.one_recovered();
        assert_eq!(all_of(&left.overlay), b"first second", "{torn}");
    }
    for damaged in [0, 5, 9, 13, 17, 25, 33, 41, 50] {
        let scratch = Scratch::new();
        let overlay = overlay_with(&scratch.store, b"first");
        let [log] = &scratch.logs()[..] else { panic!() };
        let log = OpenOptions::new().write(true).read(true).open(log).unwrap();
        let at = log.metadata().unwrap().len() + damaged;
        overlay.write(5, b" and second").unwrap();
        overlay.write(0, b"FIRST").unwrap();
        let mut byte = [0];
        log.read_exact_at(&mut byte, at).unwrap();
        log.write_all_at(&[byte[0] ^ 4], at).unwrap();
        drop(overlay);
        let scratch = scratch.killed();
        let left = scratch.one_recovered();
        assert_eq!(all_of(&left.overlay), b"first", "{damaged}");
    }
}

/// A version of the file whose overlays `overlay_with` makes.
fn publish_of(store: &Store, overlay: &Overlay, commit: bool) -> Base {
    let frozen = overlay.freeze();
    overlay.write(1, b"newer").unwrap();
    let cut = store.cut(&frozen).unwrap();
    let mut state = file(9, cut.content.clone());
    state.inode.id = overlay.owner();
    let next = Base { parents: vec![dot(10)], ..base(cut.content.clone()) };
    let written = store.write(|transaction| {
        transaction.put_inode(&state)?;
        transaction.overlay_published(&frozen, &next)?;
        if commit { Ok(()) } else { Err(crate::StoreError::Full) }
    });
    assert_eq!(written.is_ok(), commit);
    next
}

#[test]
fn a_kill_between_publication_and_its_note_brings_no_duplicate() {
    for commit in [true, false] {
        let scratch = Scratch::new();
        let overlay = overlay_with(&scratch.store, b"a version");
        let next = publish_of(&scratch.store, &overlay, commit);
        drop(overlay);
        let scratch = scratch.killed();
        let left = scratch.one_recovered();
        assert_eq!(left.base == next, commit);
        assert_eq!(all_of(&left.overlay), b"anewerion");
    }
    // And if nothing was written since, nothing comes back at all.
    let scratch = Scratch::new();
    let overlay = overlay_with(&scratch.store, b"a version");
    let frozen = overlay.freeze();
    let cut = scratch.store.cut(&frozen).unwrap();
    let mut state = file(9, cut.content.clone());
    state.inode.id = overlay.owner();
    let next = Base { parents: vec![dot(10)], ..base(cut.content.clone()) };
    scratch
        .store
        .write(|transaction| {
            transaction.put_inode(&state)?;
            transaction.overlay_published(&frozen, &next)
        })
        .unwrap();
    drop((overlay, frozen, cut));
    assert!(scratch.killed().store.recovered().unwrap().is_empty());
}

#[test]
fn a_long_log_is_followed_by_another_and_goes() {
    let scratch = Scratch::new();
    scratch.store.inner.bytes.spill.limit(10_000);
    let idle = overlay_with(&scratch.store, b"idle");
    let busy = overlay_with(&scratch.store, &[0; 1000]);
    let mut model = vec![0; 1000];
    for round in 0..200_u64 {
        let bytes = noise(round, 700);
        busy.write(round, &bytes).unwrap();
        model[round as usize..][..700].copy_from_slice(&bytes);
        assert!(scratch.logs().len() <= 2, "{:?}", scratch.logs());
        model.truncate(1000);
    }
    drop((idle, busy));
    let scratch = scratch.killed();
    let all = scratch.store.recovered().unwrap();
    let [idle, busy] = &all[..] else { panic!("{}", all.len()) };
    assert_eq!(all_of(&idle.overlay), b"idle");
    assert!(all_of(&busy.overlay) == model);
}

#[derive(Clone, Debug)]
enum Step {
    Write(usize, usize, u64),
    Truncate(usize),
    Zero(usize, usize, bool),
    Copy(usize, usize, usize),
    Publish,
    Sync,
    Close,
    Kill,
}

fn step() -> impl Strategy<Value = Step> {
    let at = || 0..200_000_usize;
    let len = || prop_oneof![3 => 1..2000_usize, 1 => 1..100_000_usize];
    prop_oneof![
        6 => (at(), len(), any::<u64>()).prop_map(|(at, len, seed)| Step::Write(at, len, seed)),
        2 => at().prop_map(Step::Truncate),
        1 => (at(), len(), any::<bool>()).prop_map(|(at, len, grow)| Step::Zero(at, len, grow)),
        1 => (at(), at(), len()).prop_map(|(to, from, len)| Step::Copy(to, from, len)),
        1 => Just(Step::Publish),
        1 => Just(Step::Sync),
        1 => Just(Step::Close),
        2 => Just(Step::Kill),
    ]
}

fn put(model: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
    model.resize(model.len().max(offset + bytes.len()), 0);
    model[offset..offset + bytes.len()].copy_from_slice(bytes);
}

/// After each kill the overlay is what it was before.
fn run(steps: &[Step]) {
    let mut scratch = Scratch::new();
    let other = noise(77, 150_000);
    let other_content = scratch.keep(&other);
    let mut model = noise(1, 50_000);
    let content = scratch.keep(&model);
    let mut overlay = scratch.store.overlay(InodeId(dot(9)), base(content)).unwrap();
    let (mut closed, mut changed) = (None, false);
    for step in steps {
        match *step {
            Step::Write(at, len, seed) => {
                overlay.write(at as u64, &noise(seed, len)).unwrap();
                put(&mut model, at, &noise(seed, len));
            }
            Step::Truncate(size) => {
                if size == model.len() {
                    continue;
                }
                overlay.truncate(size as u64).unwrap();
                model.resize(size, 0);
            }
            Step::Zero(at, len, grow) => {
                overlay.zero(at as u64, len as u64, grow).unwrap();
                let end = if grow { at + len } else { model.len().min(at + len) };
                if at >= end {
                    continue;
                }
                put(&mut model, at, &vec![0; end - at]);
            }
            Step::Copy(to, from, len) => {
                let copied =
                    overlay.copy_content(to as u64, &other_content, from as u64, len as u64);
                let copied = copied.unwrap() as usize;
                if copied == 0 {
                    continue;
                }
                put(&mut model, to, &other[from..from + copied]);
            }
            Step::Publish => {
                let frozen = overlay.freeze();
                let cut = scratch.store.cut(&frozen).unwrap();
                let next = base(cut.content.clone());
                let publish =
                    |tx: &mut crate::Transaction<'_>| tx.overlay_published(&frozen, &next);
                scratch.store.write(publish).unwrap();
                overlay.rebase(next);
                changed = false;
                continue;
            }
            Step::Sync => {
                overlay.sync().unwrap();
                continue;
            }
            Step::Close => {
                overlay.note_closed(TIME).unwrap();
                (closed, changed) = (Some(TIME), true);
                continue;
            }
            Step::Kill => {
                drop(overlay);
                scratch = scratch.killed();
                let mut all = scratch.store.recovered().unwrap();
                let Some(left) = all.pop() else {
                    assert!(!changed);
                    let content = described(&model);
                    overlay = scratch.store.overlay(InodeId(dot(9)), base(content)).unwrap();
                    continue;
                };
                assert!(all.is_empty());
                assert_eq!(left.closed, closed);
                overlay = left.overlay;
                assert!(all_of(&overlay) == model);
                continue;
            }
        }
        (closed, changed) = (None, true);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 20, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn an_overlay_outlives_a_kill(steps in proptest::collection::vec(step(), 1..25)) {
        run(&steps);
    }
}
