//! Random operations on an overlay, compared with bytes in memory.

use super::*;
use proptest::prelude::*;

#[derive(Clone, Debug)]
enum Step {
    Write {
        offset: usize,
        len: usize,
        seed: u64,
    },
    WriteZeros {
        offset: usize,
        len: usize,
    },
    Truncate(usize),
    Punch {
        offset: usize,
        len: usize,
    },
    Zero {
        offset: usize,
        len: usize,
        grow: bool,
    },
    CopyBase {
        offset: usize,
        from: usize,
        len: usize,
    },
    CopyOther {
        offset: usize,
        from: usize,
        len: usize,
        aligned: bool,
    },
    Freeze,
    /// Cut what was frozen last, and make it the base.
    Rebase,
    Sync,
    Read {
        offset: usize,
        len: usize,
    },
}

const SPAN: usize = 1_200_000;

/// Offsets and lengths that meet blocks, holes and chunks at their borders more often than chance
/// would.
fn place() -> impl Strategy<Value = usize> {
    prop_oneof![0..SPAN, (0..SPAN / 4096).prop_map(|block| block * 4096), 0..70_000_usize]
}

fn length() -> impl Strategy<Value = usize> {
    prop_oneof![1..100_usize, 1..300_000_usize, (1..60_usize).prop_map(|blocks| blocks * 4096)]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        5 => (place(), length(), any::<u64>())
            .prop_map(|(offset, len, seed)| Step::Write { offset, len, seed }),
        2 => (place(), length()).prop_map(|(offset, len)| Step::WriteZeros { offset, len }),
        2 => place().prop_map(Step::Truncate),
        2 => (place(), length()).prop_map(|(offset, len)| Step::Punch { offset, len }),
        1 => (place(), length(), any::<bool>())
            .prop_map(|(offset, len, grow)| Step::Zero { offset, len, grow }),
        1 => (place(), place(), length())
            .prop_map(|(offset, from, len)| Step::CopyBase { offset, from, len }),
        2 => (place(), place(), length(), any::<bool>())
            .prop_map(|(offset, from, len, aligned)| Step::CopyOther { offset, from, len, aligned }),
        2 => Just(Step::Freeze),
        2 => Just(Step::Rebase),
        1 => Just(Step::Sync),
        2 => (place(), length()).prop_map(|(offset, len)| Step::Read { offset, len }),
    ]
}

fn put(model: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
    if model.len() < offset + bytes.len() {
        model.resize(offset + bytes.len(), 0);
    }
    model[offset..offset + bytes.len()].copy_from_slice(bytes);
}

fn run(steps: &[Step], start: &[u8]) {
    let scratch = Scratch::new();
    let store = &scratch.store;
    let mut other = noise(77, 900_000);
    other[300_000..500_000].fill(0);
    other[600_000..620_000].fill(0);
    let other_content = scratch.keep(&other);
    let start_content = scratch.keep(start);
    let overlay = store.overlay(InodeId(dot(1)), base(start_content)).unwrap();
    let mut model = start.to_vec();
    let mut based = model.clone();
    let mut frozen = None;
    for step in steps {
        match *step {
            Step::Write { offset, len, seed } => {
                let bytes = noise(seed, len);
                overlay.write(offset as u64, &bytes).unwrap();
                put(&mut model, offset, &bytes);
            }
            Step::WriteZeros { offset, len } => {
                overlay.write(offset as u64, &vec![0; len]).unwrap();
                put(&mut model, offset, &vec![0; len]);
            }
            Step::Truncate(size) => {
                overlay.truncate(size as u64).unwrap();
                model.resize(size, 0);
            }
            Step::Punch { offset, len } => {
                overlay.punch(offset as u64, len as u64).unwrap();
                let end = model.len().min(offset + len);
                model[offset.min(end)..end].fill(0);
            }
            Step::Zero { offset, len, grow } => {
                overlay.zero(offset as u64, len as u64, grow).unwrap();
                let end = if grow { offset + len } else { model.len().min(offset + len) };
                if end > offset {
                    put(&mut model, offset, &vec![0; end - offset]);
                }
            }
            Step::CopyBase { offset, from, len } => {
                let source = overlay.base();
                overlay
                    .copy_content(offset as u64, &source.content, from as u64, len as u64)
                    .unwrap();
                let end = based.len().min(from + len);
                if from < end {
                    put(&mut model, offset, &based[from..end]);
                }
            }
            Step::CopyOther { offset, from, len, aligned } => {
                let offset = if aligned { offset - offset % 4096 + from % 4096 } else { offset };
                let copied =
                    overlay.copy_content(offset as u64, &other_content, from as u64, len as u64);
                let end = other.len().min(from + len);
                assert_eq!(copied.unwrap() as usize, end.saturating_sub(from));
                if from < end {
                    put(&mut model, offset, &other[from..end]);
                }
            }
            Step::Freeze => frozen = Some((overlay.freeze(), model.clone())),
            Step::Rebase => {
                if let Some((frozen, bytes)) = frozen.take() {
                    let cut = store.cut(&frozen).unwrap();
                    assert_eq!(cut.content, described(&bytes), "the description is canonical");
                    let next = base(cut.content.clone());
                    store
                        .write(|transaction| transaction.overlay_published(&frozen, &next))
                        .unwrap();
                    overlay.rebase(next);
                    based = bytes;
                }
            }
            Step::Sync => overlay.sync().unwrap(),
            Step::Read { offset, len } => {
                let (from, to) = (model.len().min(offset), model.len().min(offset + len));
                assert_eq!(overlay.read(offset as u64, len).unwrap(), &model[from..to]);
            }
        }
        assert_eq!(overlay.size_bytes(), model.len() as u64, "{step:?}");
    }
    assert!(overlay.read(0, model.len()).unwrap() == model, "all bytes");
    let cut = store.cut(&overlay.freeze()).unwrap();
    assert_eq!(cut.content, described(&model));
    assert!(read_all(store, &cut.content) == model, "all bytes, once published");
    drop(cut);
    overlay.sync().unwrap();
    drop((overlay, frozen));
    let scratch = scratch.killed();
    if let [recovered] = &scratch.store.recovered().unwrap()[..] {
        assert!(recovered.synced);
        assert!(recovered.overlay.read(0, model.len()).unwrap() == model, "after a crash");
        assert_eq!(recovered.overlay.size_bytes(), model.len() as u64);
    } else {
        assert_eq!(described(&model), described(&based), "an unchanged overlay needs no journal");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 20, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn an_overlay_is_what_its_file_would_be(
        steps in proptest::collection::vec(step(), 1..25),
        hole in any::<bool>(),
        len in 0..SPAN,
    ) {
        let mut start = noise(1, len);
        if hole {
            let (from, to) = (len / 3, len / 3 * 2);
            start[from..to].fill(0);
        }
        run(&steps, &start);
    }
}
