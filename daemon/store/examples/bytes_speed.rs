//! How fast bytes are written, cut, read and changed: `cargo run --release -p kith-store
//! --example bytes_speed [MIB]`.

use kith_core::clock::WallMs;
use kith_core::content::Content;
use kith_core::id::{DeviceId, Dot, InodeId, ShareId, Tag, WriterId};
use kith_core::register::UnixTime;
use kith_core::vector::VersionVector;
use kith_store::bytes::Base;
use kith_store::{Founding, Store};
use std::error::Error;
use std::time::Instant;

fn timed<T, E>(what: &str, mib: f64, run: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
    let begin = Instant::now();
    let done = run()?;
    let seconds = begin.elapsed().as_secs_f64();
    println!("{what:32} {:8.1} ms {:8.0} MiB/s", seconds * 1e3, mib / seconds);
    Ok(done)
}

fn main() -> Result<(), Box<dyn Error>> {
    let mib: usize = std::env::args().nth(1).map_or(Ok(512), |text| text.parse())?;
    let directory = tempfile::tempdir_in(".")?;
    let founding = Founding {
        share: ShareId([1; 16]),
        device: DeviceId([2; 32]),
        writer: WriterId(3),
        author: "laptop".into(),
        now: WallMs(1_000_000),
        tag: Tag(4),
    };
    let store = Store::open(directory.path(), &founding)?;
    let base = |content| Base { content, context: VersionVector::new(), parents: Vec::new() };
    let owner = InodeId(Dot { writer: WriterId(3), number: 9 });

    let mut block = vec![0; 1 << 20];
    let mut noise = blake3::Hasher::new().finalize_xof();
    let blocks: Vec<Vec<u8>> = (0..16)
        .map(|_| {
            noise.fill(&mut block);
            block.clone()
        })
        .collect();
    let overlay = store.overlay(owner, base(Content::empty()))?;
    timed("write", mib as f64, || {
        (0..mib).try_for_each(|number| {
            let mut block = blocks[number % 16].clone();
            block[..8].copy_from_slice(&(number as u64).to_le_bytes());
            overlay.write((number as u64) << 20, &block)
        })
    })?;
    let frozen = overlay.freeze();
    let cut = timed("cut, hash and seal", mib as f64, || store.cut(&frozen))?;
    timed("sync", mib as f64, || store.sync())?;
    let content = cut.content.clone();
    drop(cut);
    overlay.rebase(base(content.clone()));
    for pass in ["read and verify", "read again"] {
        timed(pass, mib as f64, || {
            (0..mib as u64)
                .try_for_each(|number| store.read(&content, number << 20, 1 << 20).map(drop))
        })?;
    }
    overlay.write((mib as u64) << 19, &[7; 4096])?;
    let frozen = overlay.freeze();
    timed("cut 4 KiB in the middle anew", 0.004, || store.cut(&frozen).map(drop))?;

    let small = 2000;
    timed("small files of 8 KiB", f64::from(small) / 128.0, || -> Result<(), Box<dyn Error>> {
        for number in 0..small {
            let overlay = store.overlay(owner, base(Content::empty()))?;
            noise.fill(&mut block[..8192]);
            overlay.write(0, &block[..8192])?;
            drop(store.cut(&overlay.freeze())?);
            overlay.discard()?;
            if number == small - 1 {
                store.sync()?;
            }
        }
        Ok(())
    })?;
    // Of which the spill log is most.
    timed("10,000 writes of 4 KiB to memory", 10_000.0 / 256.0, || {
        (0..10_000).try_for_each(|_| {
            let overlay = store.overlay(owner, base(Content::empty()))?;
            overlay.write(0, &block[..4096])?;
            overlay.note_closed(UnixTime::default())?;
            overlay.discard()
        })
    })?;
    Ok(())
}
