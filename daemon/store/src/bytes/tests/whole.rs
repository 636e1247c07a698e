//! Storing, describing and reading back.

use super::*;
use crate::bytes::{AddError, CutError, ReadError};

#[test]
fn what_was_kept_reads_back_in_every_shape() {
    let scratch = Scratch::new();
    let mut holed = noise(1, 700_000);
    holed[200_000..400_000].fill(0);
    let cases = [
        ("nothing", Vec::new()),
        ("one byte", vec![7]),
        ("small", noise(2, 5000)),
        ("in memory", noise(3, 100_000)),
        ("a whole file", noise(4, 5 << 20)),
        ("with a hole", holed),
        ("zeros", vec![0; 3 << 20]),
        ("repeated", noise(5, 50_000).repeat(20)),
    ];
    for (name, bytes) in &cases {
        let content = scratch.keep(bytes);
        assert_eq!(content, described(bytes), "{name}");
        assert_eq!(&read_all(&scratch.store, &content), bytes, "{name}");
        for (offset, len) in [(0, 10), (199_990, 20), (399_000, 100_000), (4_900_000, 1 << 20)] {
            let from = bytes.len().min(offset);
            let to = bytes.len().min(offset + len);
            let read = scratch.store.read(&content, offset as u64, len).unwrap();
            assert_eq!(read, &bytes[from..to], "{name} at {offset}");
        }
    }
    let scratch = scratch.restarted();
    for (name, bytes) in &cases {
        assert_eq!(&read_all(&scratch.store, &described(bytes)), bytes, "{name}");
    }
}

#[test]
fn whoever_is_about_to_read_while_a_file_is_published_reads_it() {
    let scratch = Scratch::new();
    let bytes = noise(1, 300_000);
    let overlay = overlay_with(&scratch.store, &bytes);
    let held = overlay.clone();
    let content = scratch.store.cut(&overlay.freeze()).unwrap().content.clone();
    overlay.rebase(base(content));
    assert!(!overlay.is_changed());
    overlay.discard().unwrap();
    assert_eq!(held.read(0, bytes.len()).unwrap(), bytes);
    assert_eq!(held.size_bytes(), bytes.len() as u64);
    assert_eq!(held.next_data(10).unwrap(), Some(10));
}

#[test]
fn a_long_file_is_described_by_lists() {
    let scratch = Scratch::new();
    let bytes = noise(1, 6 << 20);
    let content = scratch.keep(&bytes);
    assert!(pieces(&bytes, false, 1 << 20).len() > INLINE_PIECES_MAX);
    assert!(matches!(content.layout, Layout::Tree { height: 0, .. }));
    assert_eq!(scratch.store.absent(&content, 0..u64::MAX, 10).unwrap(), []);
    assert_eq!(read_all(&scratch.store, &content), bytes);
}

#[test]
fn chunks_arrive_from_elsewhere_one_by_one() {
    let (here, there) = (Scratch::new(), Scratch::new());
    let bytes = noise(1, 6 << 20);
    let content = there.keep(&bytes);
    let mut rounds = 0;
    loop {
        let absent = here.store.absent(&content, 0..u64::MAX, 50).unwrap();
        if absent.is_empty() {
            break;
        }
        rounds += 1;
        assert!(
            matches!(here.store.read(&content, 0, 10), Err(ReadError::Absent(_))) || rounds > 1
        );
        for (id, len) in absent {
            let chunk = there.store.chunk(id).unwrap().unwrap();
            assert_eq!(chunk.len(), len as usize);
            here.store.add_chunks(&[(id, &chunk)]).unwrap();
            // Repetition does no harm.
            here.store.add_chunks(&[(id, &chunk)]).unwrap();
        }
    }
    assert!(rounds > 2);
    assert_eq!(read_all(&here.store, &content), bytes);
}

#[test]
fn bytes_that_are_not_what_their_name_says_are_refused() {
    let scratch = Scratch::new();
    let id = ChunkId::of(b"right");
    let other = ChunkId::of(b"other");
    let large = vec![1; (4 << 20) + 1];
    let mixed = [(id, &b"right"[..]), (other, b"wrong")];
    let cases = [
        ("wrong bytes after right ones", &mixed[..]),
        ("no bytes", &[(ChunkId::of(b""), b"")]),
        ("too many bytes", &[(ChunkId::of(&large), &large)]),
    ];
    for (name, chunks) in cases {
        let added = scratch.store.add_chunks(chunks);
        assert!(matches!(added, Err(AddError::Wrong(_))), "{name}");
        assert!(!scratch.store.has_chunk(chunks[0].0).unwrap(), "{name}: all or nothing");
    }
}

#[test]
fn a_range_names_all_its_absent_chunks() {
    let (here, there) = (Scratch::new(), Scratch::new());
    let bytes = noise(1, 1 << 20);
    let content = there.keep(&bytes);
    let Layout::Inline(pieces) = &content.layout else { panic!("{content:?}") };
    let Err(ReadError::Absent(absent)) = here.store.read(&content, 0, 1 << 20) else { panic!() };
    assert_eq!(absent.len(), pieces.len());
    let Err(ReadError::Absent(absent)) = here.store.read(&content, 10, 10) else { panic!() };
    assert!(matches!(pieces[0], Piece::Chunk { id, len_bytes } if absent == [(id, len_bytes)]));
    assert_eq!(here.store.absent(&content, 10..20, 9).unwrap(), absent);
}

#[test]
fn a_change_needs_only_the_chunks_around_it() {
    let (here, there) = (Scratch::new(), Scratch::new());
    let mut bytes = noise(1, 8 << 20);
    let content = there.keep(&bytes);
    let overlay = here.store.overlay(InodeId(dot(1)), base(content)).unwrap();
    overlay.write(4 << 20, b"a small change").unwrap();
    bytes[4 << 20..][..14].copy_from_slice(b"a small change");
    let frozen = overlay.freeze();
    let mut fetched = 0;
    let content = loop {
        match here.store.cut(&frozen) {
            Ok(cut) => break cut.content.clone(),
            Err(CutError::Absent(absent)) => {
                for (id, len) in absent {
                    fetched += len;
                    let chunk = there.store.chunk(id).unwrap().unwrap();
                    here.store.add_chunks(&[(id, &chunk)]).unwrap();
                }
            }
            Err(cause) => panic!("{cause}"),
        }
    };
    assert_eq!(content, described(&bytes));
    assert!(fetched < 800_000, "{fetched}");
}

#[test]
fn a_copy_within_the_share_reads_nothing() {
    let (here, there) = (Scratch::new(), Scratch::new());
    let content = there.keep(&noise(1, 8 << 20));
    // None of the bytes is here.
    let copy = here.store.overlay(InodeId(dot(1)), base(Content::empty())).unwrap();
    for offset in (0..8 << 20).step_by(1 << 20) {
        assert_eq!(copy.copy_content(offset, &content, offset, 1 << 20).unwrap(), 1 << 20);
    }
    assert_eq!(copy.copy_content(8 << 20, &content, 8 << 20, 99).unwrap(), 0, "past its end");
    assert_eq!(here.store.cut(&copy.freeze()).unwrap().content, content);
}

#[test]
fn a_large_file_becomes_a_segment_without_being_copied() {
    let scratch = Scratch::new();
    let bytes = noise(1, 4 << 20);
    let content = scratch.keep(&bytes);
    scratch.store.sync().unwrap();
    scratch.store.sync().unwrap();
    let files = data_files(&scratch);
    let sizes: Vec<u64> = files.iter().map(|path| path.metadata().unwrap().len()).collect();
    // The whole file, and a pack with its list.
    assert_eq!(sizes.iter().filter(|len| **len >= 4 << 20).count(), 1, "{sizes:?}");
    assert!(sizes.iter().sum::<u64>() < (4 << 20) + 100_000, "{sizes:?}");
    // Stored once more, nothing is added.
    assert_eq!(scratch.keep(&bytes), content);
}

#[test]
fn a_full_disk_refuses_bytes_and_keeps_what_there_is() {
    let scratch = Scratch::new();
    let small = overlay_with(&scratch.store, b"fits into memory");
    let large = overlay_with(&scratch.store, &noise(1, 1 << 20));
    let reserve = &scratch.store.inner.bytes.more_reserve_bytes;
    reserve.store(u64::MAX >> 1, std::sync::atomic::Ordering::Relaxed);
    assert_eq!(scratch.store.room().unwrap().free_bytes, 0);
    assert!(matches!(large.write(0, &noise(2, 1000)), Err(crate::StoreError::Full)));
    assert!(matches!(
        scratch.store.cut(&small.freeze()),
        Err(CutError::Store(crate::StoreError::Full))
    ));
    let chunk = (ChunkId::of(b"x"), &b"x"[..]);
    assert!(matches!(
        scratch.store.add_chunks(&[chunk]),
        Err(AddError::Store(crate::StoreError::Full))
    ));
    assert_eq!(large.read(0, 1 << 20).unwrap(), noise(1, 1 << 20));
    reserve.store(0, std::sync::atomic::Ordering::Relaxed);
    assert_eq!(scratch.store.cut(&small.freeze()).unwrap().content, described(b"fits into memory"));
}

#[test]
fn holes_and_data_are_told_apart() {
    let scratch = Scratch::new();
    let mut bytes = noise(1, 1 << 20);
    bytes[256 << 10..512 << 10].fill(0);
    let content = scratch.keep(&bytes);
    let overlay = scratch.store.overlay(InodeId(dot(1)), base(content)).unwrap();
    let kib = |n: u64| n << 10;
    assert_eq!(overlay.next_hole(0).unwrap(), Some(kib(256)));
    assert_eq!(overlay.next_data(kib(300)).unwrap(), Some(kib(512)));
    overlay.punch(kib(600), kib(10)).unwrap();
    overlay.write(kib(320), b"data").unwrap();
    overlay.truncate(kib(2048)).unwrap();
    let cases = [
        (true, kib(300), Some(kib(320))),
        (false, kib(320), Some(kib(320) + 4)),
        (true, kib(321), Some(kib(512))),
        (false, kib(512), Some(kib(600))),
        (true, kib(600), Some(kib(610))),
        (false, kib(610), Some(kib(1024))),
        (true, kib(1024), None),
        (false, kib(1500), Some(kib(1500))),
        (false, kib(2048), None),
        (true, kib(2048), None),
    ];
    for (data, offset, expected) in cases {
        let found = if data { overlay.next_data(offset) } else { overlay.next_hole(offset) };
        assert_eq!(found.unwrap(), expected, "data {data} from {offset}");
    }
}

#[test]
fn chunks_are_found_again_without_the_index() {
    let scratch = Scratch::new();
    for bytes in [noise(1, 6 << 20), noise(2, 50_000), vec![9; 20]] {
        scratch.keep(&bytes);
    }
    let mut found = std::collections::BTreeSet::new();
    for path in data_files(&scratch) {
        let bytes = std::fs::read(&path).unwrap();
        for (id, range) in crate::bytes::chunks_in(&path).unwrap() {
            assert_eq!(ChunkId::of(&bytes[range.start as usize..range.end as usize]), id);
            found.insert(id);
        }
    }
    let snapshot = scratch.store.snapshot().unwrap();
    let all = crate::bytes::table::chunks_after(snapshot.sql(), &ChunkId([0; 32]), 10_000).unwrap();
    assert!(all.len() > 100 && all.iter().all(|(id, _)| found.contains(id)));
}

#[test]
fn bytes_in_memory_are_described_as_if_they_had_been_written() {
    let scratch = Scratch::new();
    for len in [0, 1, 5_000, 100_000, 1 << 20, 4 << 20] {
        let bytes = noise(len as u64, len);
        let cut = scratch.store.cut_bytes(&bytes).unwrap();
        assert_eq!(read_all(&scratch.store, &cut.content), bytes);
        assert_eq!(cut.content, scratch.keep(&bytes), "{len}");
    }
    let zeros = vec![0; 1 << 20];
    assert_eq!(scratch.store.cut_bytes(&zeros).unwrap().content, scratch.keep(&zeros));
}
