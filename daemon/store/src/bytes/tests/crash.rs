//! What survives a crash, and what damage costs.

use super::*;
use crate::bytes::ReadError;
use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;

#[test]
fn chunks_whose_bytes_never_reached_the_disk_are_forgotten() {
    let scratch = Scratch::new();
    let safe = scratch.keep(&noise(1, 50_000));
    scratch.store.sync().unwrap();
    let torn = scratch.keep(&noise(2, 50_000));
    let [pack] = &data_files(&scratch)[..] else { panic!() };
    let len = pack.metadata().unwrap().len();
    OpenOptions::new().write(true).open(pack).unwrap().set_len(len - 100).unwrap();
    let scratch = scratch.killed();
    assert!(scratch.store.was_unclean());
    assert_eq!(read_all(&scratch.store, &safe), noise(1, 50_000));
    let absent = scratch.store.absent(&torn, 0..u64::MAX, 10).unwrap();
    assert_eq!(absent.len(), 1, "only the last chunk was torn");
    assert_eq!(scratch.store.lost_chunks(), [absent[0].0]);
    // It can be stored again, and survives an orderly stop.
    assert_eq!(scratch.keep(&noise(2, 50_000)), torn);
    let scratch = scratch.restarted();
    assert!(!scratch.store.was_unclean());
    assert_eq!(read_all(&scratch.store, &torn), noise(2, 50_000));
}

#[test]
fn versions_that_name_lost_chunks_lack_bytes_again() {
    let scratch = Scratch::new();
    let bytes = noise(1, 6 << 20);
    let cut = scratch.store.cut(&overlay_with(&scratch.store, &bytes).freeze()).unwrap();
    publish(&scratch.store, 1, &cut);
    publish(
        &scratch.store,
        11,
        &scratch.store.cut(&overlay_with(&scratch.store, b"x").freeze()).unwrap(),
    );
    drop(cut);
    let files = data_files(&scratch);
    let whole = files.iter().find(|path| path.metadata().unwrap().len() >= 6 << 20).unwrap();
    OpenOptions::new().write(true).open(whole).unwrap().set_len(5 << 20).unwrap();
    let scratch = scratch.killed();
    let lost: std::collections::BTreeSet<_> = scratch.store.lost_chunks().iter().copied().collect();
    assert!(!lost.is_empty());
    let versions = scratch.store.versions_with(&lost).unwrap();
    assert_eq!(versions, [(InodeId(dot(1)), dot(2))]);
}

#[test]
fn a_torn_whole_file_is_found_too() {
    let scratch = Scratch::new();
    let content = scratch.keep(&noise(1, 2 << 20));
    let files = data_files(&scratch);
    let whole = files.iter().find(|path| path.metadata().unwrap().len() >= 2 << 20).unwrap();
    let file = OpenOptions::new().write(true).open(whole).unwrap();
    file.write_all_at(&[0; 4096], 1 << 20).unwrap();
    let scratch = scratch.killed();
    assert!(matches!(scratch.store.lost_chunks().len(), 1 | 2));
    assert!(matches!(scratch.store.read(&content, 0, 2 << 20), Err(ReadError::Absent(_))));
}

#[test]
fn a_flipped_bit_is_found_at_the_first_read_and_mended_from_elsewhere() {
    let scratch = Scratch::new();
    let bytes = noise(1, 30_000);
    let content = scratch.keep(&bytes);
    let scratch = scratch.restarted();
    let [pack] = &data_files(&scratch)[..] else { panic!() };
    let file = OpenOptions::new().read(true).write(true).open(pack).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, 20_000).unwrap();
    file.write_all_at(&[byte[0] ^ 1], 20_000).unwrap();
    let Layout::Inline(pieces) = &content.layout else { panic!() };
    let Piece::Chunk { id, .. } = pieces[0] else { panic!() };
    // A part that isn't damaged itself isn't answered either.
    let read = scratch.store.read(&content, 0, 10);
    assert!(matches!(read, Err(ReadError::Damaged(damaged)) if damaged == id));
    assert!(matches!(scratch.store.read(&content, 0, 10), Err(ReadError::Absent(_))));
    assert_eq!(scratch.store.chunk(id).unwrap(), None);
    scratch.store.add_chunks(&[(id, &bytes)]).unwrap();
    assert_eq!(read_all(&scratch.store, &content), bytes);
}

#[test]
fn a_damaged_chunk_never_leaves_for_another_device() {
    let scratch = Scratch::new();
    let bytes = noise(1, 30_000);
    scratch.keep(&bytes);
    let id = ChunkId::of(&bytes);
    assert_eq!(scratch.store.chunk(id).unwrap().as_deref(), Some(&bytes[..]));
    let [pack] = &data_files(&scratch)[..] else { panic!() };
    OpenOptions::new().write(true).open(pack).unwrap().write_all_at(b"?", 1000).unwrap();
    assert_eq!(scratch.store.chunk(id).unwrap(), None);
    assert!(!scratch.store.has_chunk(id).unwrap());
}

#[test]
fn an_fsynced_overlay_comes_back_as_of_its_fsync() {
    for len in [3000, 500_000] {
        let scratch = Scratch::new();
        let content = scratch.keep(&noise(9, 400_000));
        let mut context = VersionVector::new();
        context.include(dot(5));
        let base = Base { content, context, parents: vec![dot(5)] };
        let overlay = scratch.store.overlay(InodeId(dot(4)), base.clone()).unwrap();
        let mut model = noise(9, 400_000);
        model.truncate(350_000);
        overlay.truncate(350_000).unwrap();
        overlay.write(1000, &noise(1, len)).unwrap();
        overlay.punch(200, 300).unwrap();
        overlay.sync().unwrap();
        overlay.write(340_000, b"after the fsync, and lost").unwrap();
        drop(overlay);
        if model.len() < 1000 + len {
            model.resize(1000 + len, 0);
        }
        model[1000..1000 + len].copy_from_slice(&noise(1, len));
        model[200..500].fill(0);
        let scratch = scratch.rebooted();
        let all = scratch.store.recovered().unwrap();
        let [recovered] = &all[..] else { panic!("{}", all.len()) };
        assert!(recovered.synced);
        assert_eq!((recovered.owner, &recovered.base), (InodeId(dot(4)), &base));
        let mut read = recovered.overlay.read(0, model.len() + 1).unwrap();
        if len > 128 << 10 {
            // What was written over the same file later may be there or not.
            let at = 340_000;
            read[at..at + 25].copy_from_slice(&model[at..at + 25]);
        }
        assert!(read == model);
        assert!(scratch.store.recovered().unwrap().is_empty(), "taken over already");
        recovered.overlay.discard().unwrap();
        drop(all);
        let scratch = scratch.killed();
        assert!(scratch.store.recovered().unwrap().is_empty());
    }
}

#[test]
fn an_overlay_that_was_never_fsynced_comes_back_as_far_as_its_file_shows() {
    let scratch = Scratch::new();
    let overlay = overlay_with(&scratch.store, &noise(1, 900_000));
    let small = overlay_with(&scratch.store, b"never left memory");
    // A whole block later, so that the sparse file shows where it begins.
    overlay.write(2 << 20, &noise(2, 8192)).unwrap();
    drop((overlay, small));
    let scratch = scratch.rebooted();
    let recovered = scratch.store.recovered().unwrap();
    let [recovered] = &recovered[..] else { panic!("{}", recovered.len()) };
    assert!(!recovered.synced);
    let overlay = &recovered.overlay;
    assert_eq!(overlay.size_bytes(), (2 << 20) + 8192);
    assert_eq!(overlay.read(0, 900_000).unwrap(), noise(1, 900_000));
    assert_eq!(overlay.read(2 << 20, 9000).unwrap(), noise(2, 8192));
    let cut = scratch.store.cut(&overlay.freeze()).unwrap();
    let mut model = noise(1, 900_000);
    model.resize(2 << 20, 0);
    model.extend(noise(2, 8192));
    assert_eq!(cut.content, described(&model));
}

#[test]
fn what_was_published_does_not_come_back() {
    let scratch = Scratch::new();
    let overlay = overlay_with(&scratch.store, &noise(1, 400_000));
    overlay.sync().unwrap();
    let frozen = overlay.freeze();
    overlay.write(10, &noise(2, 200_000)).unwrap();
    let cut = scratch.store.cut(&frozen).unwrap();
    let next = base(cut.content.clone());
    scratch.store.write(|transaction| transaction.overlay_published(&frozen, &next)).unwrap();
    overlay.rebase(next);
    let mut model = noise(1, 400_000);
    model[10..200_010].copy_from_slice(&noise(2, 200_000));
    assert!(overlay.read(0, 400_000).unwrap() == model);
    overlay.sync().unwrap();
    drop((overlay, frozen, cut));
    let scratch = scratch.killed();
    let all = scratch.store.recovered().unwrap();
    let [recovered] = &all[..] else { panic!("{}", all.len()) };
    assert_eq!(recovered.base.content, described(&noise(1, 400_000)));
    assert!(recovered.overlay.read(0, 400_000).unwrap() == model);
    let frozen = recovered.overlay.freeze();
    let cut = scratch.store.cut(&frozen).unwrap();
    let next = base(cut.content.clone());
    scratch.store.write(|transaction| transaction.overlay_published(&frozen, &next)).unwrap();
    recovered.overlay.rebase(next);
    scratch.store.sync().unwrap();
    drop((frozen, cut, all));
    let scratch = scratch.killed();
    assert!(scratch.store.recovered().unwrap().is_empty());
    assert!(read_all(&scratch.store, &described(&model)) == model);
}

#[test]
fn an_fsync_that_nothing_preceded_keeps_no_journal() {
    let scratch = Scratch::new();
    let content = scratch.keep(b"bytes");
    let overlay = scratch.store.overlay(InodeId(dot(1)), base(content)).unwrap();
    overlay.sync().unwrap();
    drop(overlay);
    assert!(scratch.killed().store.recovered().unwrap().is_empty());
}

#[test]
fn discarded_staging_files_are_removed() {
    let scratch = Scratch::new();
    let overlay = overlay_with(&scratch.store, &noise(1, 900_000));
    assert_eq!(data_files(&scratch).len(), 1);
    overlay.discard().unwrap();
    drop(overlay);
    // The first makes it durable that nothing names the file, the second removes it.
    scratch.store.sync().unwrap();
    overlay_with(&scratch.store, b"something to sync").sync().unwrap();
    assert_eq!(data_files(&scratch).len(), 0);
}

#[test]
fn what_was_cut_off_and_fsynced_while_a_version_was_published_stays_cut_off() {
    for len in [0, 1000] {
        let scratch = Scratch::new();
        let overlay = overlay_with(&scratch.store, &noise(1, 40_000));
        let frozen = overlay.freeze();
        let cut = scratch.store.cut(&frozen).unwrap();
        overlay.truncate(len).unwrap();
        overlay.sync().unwrap();
        let next = base(cut.content.clone());
        scratch.store.write(|transaction| transaction.overlay_published(&frozen, &next)).unwrap();
        overlay.rebase(next);
        drop((overlay, frozen, cut));
        let scratch = scratch.rebooted();
        let all = scratch.store.recovered().unwrap();
        let [recovered] = &all[..] else { panic!("{} are left", all.len()) };
        assert!(recovered.synced);
        assert_eq!(recovered.overlay.size_bytes(), len);
    }
}

#[test]
fn an_fsynced_file_without_a_version_comes_back_though_it_is_empty() {
    let scratch = Scratch::new();
    let none = Base { parents: Vec::new(), ..base(Content::empty()) };
    scratch.store.overlay(InodeId(dot(7)), none).unwrap().sync().unwrap();
    let scratch = scratch.rebooted();
    let all = scratch.store.recovered().unwrap();
    let [recovered] = &all[..] else { panic!("{} are left", all.len()) };
    assert!(recovered.synced);
    assert_eq!((recovered.owner, recovered.overlay.size_bytes()), (InodeId(dot(7)), 0));
}
