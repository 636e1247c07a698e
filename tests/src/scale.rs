//! A share with very many entries: made in one store, opened again, listed, looked up, and brought
//! to another store over a session.
#![expect(clippy::unwrap_used, reason = "a measurement ends where it unwraps")]

use crate::random::Random;
use kith_core::clock::WallMs;
use kith_core::content::{Content, Layout, Piece};
use kith_core::exchange::{ReceiveError, Session};
use kith_core::id::{DeviceId, InodeId, ShareId, Tag, WriterId};
use kith_core::index::IndexRead;
use kith_core::name::EntryName;
use kith_core::operation::{Context, Operation, OperationError, apply};
use kith_core::register::{Kind, Mark, Owner, UnixTime};
use kith_core::vector::VersionVector;
use kith_core::wire;
use kith_store::{Founding, NodeRead, Store, StoreError};
use std::fs;
use std::path::Path;
use std::time::Instant;

/// How many files there are in a directory.
const WIDTH: u64 = 1000;
const NOW: u64 = 1_700_000_000_000;

/// What a step took.
#[derive(Clone, Debug)]
pub struct Step {
    /// What was done.
    pub what: &'static str,
    /// How long it took.
    pub seconds: f64,
    /// The most memory that the process ever had until then, if the system tells.
    pub most_resident_bytes: Option<u64>,
}

/// All that was measured.
#[derive(Clone, Debug)]
pub struct Measured {
    /// The steps, in order.
    pub steps: Vec<Step>,
    /// How many entries the second store shows.
    pub entries: u64,
    /// What the first store takes on disk.
    pub bytes: u64,
}

fn open(directory: &Path, number: u8) -> Store {
    let founding = Founding {
        share: ShareId([9; 16]),
        device: DeviceId([number; 32]),
        writer: WriterId(u64::from(number)),
        author: format!("device {number}"),
        now: WallMs(NOW),
        tag: Tag(u64::from(number)),
    };
    Store::open(directory, &founding).unwrap()
}

fn name(text: &str) -> EntryName {
    EntryName::new(text.as_bytes()).unwrap()
}

/// Makes `files` files below `directory`, and answers how all of it went.
pub fn measure(directory: &Path, files: u64) -> Measured {
    let (one, two) = (directory.join("one"), directory.join("two"));
    let mut steps = Vec::new();
    let mut since = Instant::now();
    let mut done = |what| {
        let seconds = since.elapsed().as_secs_f64();
        steps.push(Step { what, seconds, most_resident_bytes: most_resident_bytes() });
        since = Instant::now();
    };

    let store = open(&one, 1);
    let directories = make(&store, files);
    store.sync().unwrap();
    done("made, durably");
    store.close();
    drop(store);
    done("closed");
    let store = open(&one, 1);
    let totals = store.snapshot().unwrap().totals().unwrap();
    assert_eq!(totals.entries, files + directories.len() as u64);
    done("opened, and counted");
    let mut listed = 0;
    for directory in &directories {
        listed += store.snapshot().unwrap().list_nodes(*directory, None, 2000).unwrap().len();
    }
    assert_eq!(listed as u64, files);
    done("listed whole");
    let mut random = Random::new(1);
    for _ in 0..10_000 {
        let at = random.below(files);
        let parent = directories[usize::try_from(at / WIDTH).unwrap()];
        let found: Result<_, StoreError> =
            store.snapshot().unwrap().look_up(parent, &name(&format!("file {at}")));
        assert!(found.unwrap().is_some());
    }
    done("looked up 10,000 times");
    let other = open(&two, 2);
    exchange(&store, &other);
    done("brought to another store");
    exchange(&store, &other);
    done("nothing new, in a new session");
    let entries = other.snapshot().unwrap().totals().unwrap().entries;
    store.close();
    other.close();
    let bytes = size_bytes(&one);
    Measured { steps, entries, bytes }
}

fn make(store: &Store, files: u64) -> Vec<InodeId> {
    let (user, group) = (Owner::Person, Owner::Person);
    let mut directories = Vec::new();
    let mut tick = 0_u64;
    for first in (0..files).step_by(usize::try_from(WIDTH).unwrap()) {
        let parent = store
            .write(|tx| {
                let mut context = || {
                    tick += 1;
                    Context { now: WallMs(NOW + tick), tag: Tag(tick) }
                };
                let create = |parent, name: &str, kind| {
                    let name = EntryName::new(name.as_bytes()).unwrap();
                    Operation::Create { parent, name, kind, mode: 0o644, user, group }
                };
                let within = create(InodeId::ROOT, &format!("directory {first}"), Kind::Directory);
                let parent = apply(tx, context(), within)?.node.unwrap().key();
                for at in first..files.min(first + WIDTH) {
                    let file = create(parent, &format!("file {at}"), Kind::File);
                    let inode = apply(tx, context(), file)?.node.unwrap().key();
                    let size_bytes = 4096 * (1 + at % 1000);
                    let pieces = vec![Piece::Hole { len_bytes: size_bytes }];
                    let publish = Operation::Publish {
                        inode,
                        context: VersionVector::new(),
                        parents: Vec::new(),
                        content: Content { size_bytes, layout: Layout::Inline(pieces) },
                        mtime: UnixTime { seconds: 1_700_000_000, nanoseconds: 0 },
                        mark: Mark::Closed,
                    };
                    apply(tx, context(), publish)?;
                }
                Ok::<_, OperationError<StoreError>>(parent)
            })
            .unwrap();
        directories.push(parent);
    }
    directories
}

/// Brings each up to date with the other, message by message.
fn exchange(one: &Store, other: &Store) {
    let stores = [one, other];
    let opened = [0, 1].map(|at: usize| {
        let peer = stores[1 - at].snapshot().unwrap().state().unwrap().device;
        Session::open(&stores[at].snapshot().unwrap(), peer).unwrap()
    });
    let [(first, hello), (second, answer)] = opened;
    let mut sessions = [first, second];
    let mut tick = 1 << 40;
    let mut deliver = |session: &mut Session, to: &Store, message: &wire::Message| {
        let frame = wire::encode_frame(message);
        let message = wire::decode(&frame[wire::FRAME_HEAD_BYTES..]).unwrap().unwrap();
        tick += 1;
        let context = Context { now: WallMs(NOW + 86_400_000), tag: Tag(tick) };
        to.write(|tx| {
            session.receive(tx, context, WriterId(99), message)?;
            Ok::<_, ReceiveError<StoreError>>(())
        })
        .unwrap();
    };
    deliver(&mut sessions[1], other, &hello);
    deliver(&mut sessions[0], one, &answer);
    loop {
        let mut quiet = true;
        for at in [0, 1] {
            loop {
                let message = sessions[at].next(&stores[at].snapshot().unwrap()).unwrap();
                let Some(message) = message else { break };
                deliver(&mut sessions[1 - at], stores[1 - at], &message);
                quiet = false;
            }
        }
        if quiet {
            return;
        }
    }
}

fn most_resident_bytes() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM"))?;
    let kibibytes: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kibibytes * 1024)
}

fn size_bytes(directory: &Path) -> u64 {
    let mut sum = 0;
    for entry in fs::read_dir(directory).unwrap() {
        let entry = entry.unwrap();
        let metadata = entry.metadata().unwrap();
        sum += if metadata.is_dir() { size_bytes(&entry.path()) } else { metadata.len() };
    }
    sum
}
