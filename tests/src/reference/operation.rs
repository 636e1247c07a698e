//! What a program may ask of a filesystem, drawn at random.

use crate::random::Random;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};

/// How many files may be open at once.
pub const SLOTS: usize = 4;
/// The largest offset that is written to.
const FARTHEST: u64 = 6 << 20;

/// How a file is opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Opening {
    /// Reading is possible.
    pub read: bool,
    /// Writing is possible.
    pub write: bool,
    /// `O_APPEND`.
    pub append: bool,
    /// `O_TRUNC`.
    pub truncate: bool,
    /// `O_CREAT`, with this mode.
    pub create: Option<u32>,
    /// `O_EXCL`.
    pub exclusive: bool,
}

/// What a rename does with a name that is taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Renaming {
    /// Takes it over.
    Replace,
    /// `RENAME_NOREPLACE`.
    NoReplace,
    /// `RENAME_EXCHANGE`.
    Exchange,
}

/// What is done with a range of an open file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ranged {
    /// Reads it.
    Read,
    /// Writes bytes made from this seed.
    Write(u64),
    /// Reserves it; the file may grow.
    Reserve,
    /// Reserves it; the file may not grow.
    ReserveKeeping,
    /// Turns it into a hole.
    Punch,
    /// Turns it into zeros.
    Zero,
}

/// What `flock` is asked for; never to wait.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Lock {
    /// To hold it with others.
    Shared,
    /// To hold it alone.
    Exclusive,
    /// To let it go.
    Unlock,
}

/// Where an open file's own position goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Move {
    /// To an offset.
    To(u64),
    /// Forwards or backwards.
    By(i64),
    /// To before or beyond the end.
    FromEnd(i64),
}

/// One operation. Paths are relative to the root, slots are places for open files.
#[derive(Clone, PartialEq, Eq, Debug)]
#[expect(missing_docs, reason = "each is named for the call it makes")]
pub enum Operation {
    Open { slot: usize, path: PathBuf, opening: Opening },
    Close { slot: usize },
    Range { slot: usize, what: Ranged, offset: u64, len: u64 },
    SetLen { slot: usize, len: u64 },
    Sync { slot: usize },
    Segments { slot: usize },
    Lock { slot: usize, lock: Lock },
    LockRecords { slot: usize, lock: Lock },
    TryRecords { path: PathBuf, offset: u64, len: u64, shared: bool },
    ReadOn { slot: usize, len: u64 },
    WriteOn { slot: usize, seed: u64, len: u64 },
    Move { slot: usize, to: Move },
    ReadDirectly { path: PathBuf, block: u64, blocks: u64 },
    WriteDirectly { path: PathBuf, block: u64, blocks: u64, seed: u64 },
    Map { path: PathBuf, offset: u64, len: u64, byte: u8 },
    CopyRange { from: usize, at: u64, to: usize, offset: u64, len: u64 },
    Save { path: PathBuf, seed: u64, len: u64 },
    Truncate { path: PathBuf, len: u64 },
    Rename { from: PathBuf, to: PathBuf, renaming: Renaming },
    Link { from: PathBuf, to: PathBuf },
    Unlink { path: PathBuf },
    MakeDirectory { path: PathBuf, mode: u32 },
    RemoveDirectory { path: PathBuf },
    Symlink { target: PathBuf, path: PathBuf },
    Fifo { path: PathBuf },
    SetMode { path: PathBuf, mode: u32 },
    SetOwner { path: PathBuf, user: u32, group: u32 },
    SetTime { path: PathBuf, seconds: i64, nanoseconds: i64 },
    SetXattr { path: PathBuf, name: &'static str, value: Vec<u8>, create: bool, replace: bool },
    RemoveXattr { path: PathBuf, name: &'static str },
    List { path: PathBuf },
}

const XATTRS: &[&str] = &["user.colour", "user.größe", "user.x"];

impl Operation {
    /// The next operation on a tree that has these paths, the root not among them.
    pub fn draw(random: &mut Random, paths: &[PathBuf], privileged: bool) -> Operation {
        let slot = random.index(SLOTS);
        // A tree that has grown large is cut back.
        let crowded = paths.len() > 40;
        match random.below(if crowded { 126 } else { 110 }) {
            0..12 => Operation::Open { slot, path: any(random, paths), opening: opening(random) },
            12..14 => Operation::Close { slot },
            14..34 => {
                let what = match random.below(20) {
                    0..8 => Ranged::Write(random.draw()),
                    8..14 => Ranged::Read,
                    14..16 => Ranged::Punch,
                    16 => Ranged::Zero,
                    17 => Ranged::Reserve,
                    18 => Ranged::ReserveKeeping,
                    _ => Ranged::Write(0),
                };
                Operation::Range { slot, what, offset: offset(random), len: len(random) }
            }
            34..37 => Operation::SetLen { slot, len: offset(random) },
            37..39 => Operation::Sync { slot },
            39 => Operation::Segments { slot },
            40 => {
                let lock = *random.pick(&[Lock::Shared, Lock::Exclusive, Lock::Unlock]);
                Operation::Lock { slot, lock }
            }
            41..44 => Operation::CopyRange {
                from: slot,
                at: offset(random),
                to: random.index(SLOTS),
                offset: offset(random),
                len: len(random),
            },
            44 => {
                let (path, byte) = (known(random, paths), random.below(256).to_le_bytes()[0]);
                Operation::Map { path, offset: offset(random), len: len(random), byte }
            }
            45..54 => {
                let (path, seed) = (any(random, paths), random.draw());
                Operation::Save { path, seed, len: len(random) }
            }
            54..56 => Operation::Truncate { path: known(random, paths), len: offset(random) },
            56..66 => {
                let renaming = match random.below(6) {
                    0 => Renaming::NoReplace,
                    1 => Renaming::Exchange,
                    _ => Renaming::Replace,
                };
                Operation::Rename { from: known(random, paths), to: any(random, paths), renaming }
            }
            66..70 => Operation::Link { from: known(random, paths), to: fresh(random, paths) },
            70..75 | 110..122 => Operation::Unlink { path: known(random, paths) },
            75..81 => {
                let mode = *random.pick(&[0o755, 0o700, 0o777, 0o1777]);
                Operation::MakeDirectory { path: fresh(random, paths), mode }
            }
            81..84 | 122.. => Operation::RemoveDirectory { path: known(random, paths) },
            84..87 => {
                let target = PathBuf::from(name(random));
                Operation::Symlink { target, path: fresh(random, paths) }
            }
            87 => Operation::Fifo { path: fresh(random, paths) },
            88..91 => {
                let mode = *random.pick(&[0o644, 0o600, 0o755, 0o444, 0o4755, 0o777]);
                Operation::SetMode { path: known(random, paths), mode }
            }
            91 if privileged => {
                let owner = [0, 1000, 65_534];
                let (user, group) = (*random.pick(&owner), *random.pick(&owner));
                Operation::SetOwner { path: known(random, paths), user, group }
            }
            91..93 => {
                let (path, nanoseconds) = (known(random, paths), random.below(1_000_000_000));
                let seconds = i64::try_from(random.below(4_000_000_000)).expect("it is small");
                let nanoseconds = i64::try_from(nanoseconds).expect("it is small");
                Operation::SetTime { path, seconds, nanoseconds }
            }
            93..96 => {
                let (path, name) = (known(random, paths), *random.pick(XATTRS));
                let len = random.index(200);
                let (create, replace) = (random.chance(20), random.chance(20));
                let value = random.bytes(len);
                Operation::SetXattr { path, name, value, create, replace: replace && !create }
            }
            96..98 => Operation::RemoveXattr {
                path: known(random, paths),
                name: random.pick::<&str>(XATTRS),
            },
            98..100 => Operation::List { path: known(random, paths) },
            100 => {
                let lock = *random.pick(&[Lock::Shared, Lock::Exclusive, Lock::Unlock]);
                Operation::LockRecords { slot, lock }
            }
            101 => Operation::TryRecords {
                path: known(random, paths),
                offset: offset(random),
                len: 1 + len(random),
                shared: random.chance(50),
            },
            102 => Operation::Move { slot, to: movement(random) },
            103..105 => Operation::ReadOn { slot, len: len(random) },
            105..108 => Operation::WriteOn { slot, seed: random.draw(), len: len(random) },
            108 => Operation::ReadDirectly {
                path: known(random, paths),
                block: random.below(200),
                blocks: random.between(1, 40),
            },
            _ => Operation::WriteDirectly {
                path: known(random, paths),
                block: random.below(200),
                blocks: random.between(1, 40),
                seed: random.draw(),
            },
        }
    }
}

fn opening(random: &mut Random) -> Opening {
    let write = random.chance(75);
    Opening {
        read: !write || random.chance(70),
        write,
        append: write && random.chance(20),
        truncate: write && random.chance(20),
        create: random.chance(50).then(|| *random.pick(&[0o644, 0o600, 0o755])),
        exclusive: random.chance(10),
    }
}

fn movement(random: &mut Random) -> Move {
    let step = i64::try_from(random.below(200_000)).expect("it is small") - 100_000;
    match random.below(4) {
        0..2 => Move::To(offset(random)),
        2 => Move::By(step),
        _ => Move::FromEnd(step / 10),
    }
}

/// A path that is there, but in a few cases.
fn known(random: &mut Random, paths: &[PathBuf]) -> PathBuf {
    if paths.is_empty() || random.chance(8) {
        return fresh(random, paths);
    }
    random.pick(paths).clone()
}

/// A path that is not there, but in a few cases; mostly in a directory that is.
fn fresh(random: &mut Random, paths: &[PathBuf]) -> PathBuf {
    if !paths.is_empty() && random.chance(8) {
        return random.pick(paths).clone();
    }
    let parent = match paths.is_empty() || random.chance(30) {
        true => Path::new(""),
        // The parent of a path is a directory; the path itself often isn't.
        false if random.chance(85) => random.pick(paths).parent().unwrap_or(Path::new("")),
        false => random.pick(paths),
    };
    parent.join(name(random))
}

/// Either.
fn any(random: &mut Random, paths: &[PathBuf]) -> PathBuf {
    if random.chance(50) { known(random, paths) } else { fresh(random, paths) }
}

fn name(random: &mut Random) -> OsString {
    match random.below(40) {
        0 => OsString::from("x".repeat(255)),
        1 => OsString::from("x".repeat(256)),
        2 => OsString::from_vec(vec![b'n', 0xff, 0xfe]),
        3 => OsString::from("a name\nof two lines"),
        4 => OsString::from("größe 測試"),
        _ => OsString::from(
            *random.pick(&["a", "b", "c", "d", "e", "f.txt", "g.txt", "h", "i", "j.rs", "k", "l"]),
        ),
    }
}

fn offset(random: &mut Random) -> u64 {
    match random.below(10) {
        0..3 => 0,
        3..6 => random.below(5_000),
        6..8 => random.below(300_000),
        8 => random.below(64) * 65_536,
        _ => random.below(FARTHEST),
    }
}

fn len(random: &mut Random) -> u64 {
    match random.below(10) {
        0 => 0,
        1..5 => random.below(4_000),
        5..8 => random.below(100_000),
        8 => random.below(16) * 16_384,
        _ => random.below(600_000),
    }
}
