//! Crashes: writers on the mount of a real daemon that is killed, or whose disk loses power, again
//! and again; and after each start every acknowledged promise is looked for.

pub mod book;
pub mod forgetful;
pub mod layer;
pub mod leaf;
pub mod writer;

use crate::device::Device;
use crate::lab::{self, Lab};
use crate::random::Random;
use crate::scratch::Scratch;
use crate::{notice, pulse};
use book::Book;
use layer::Disk;
use leaf::Loss;
use rustix::process::{Pid, Signal, kill_process};
use std::fs::{self, File};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use writer::{BRANCHES, Fate, Writer};

/// How many programs write at once.
const WRITERS: usize = 3;
/// How many crashes one installation lives through: a failure is replayed from its first.
pub const ROUNDS: u64 = 20;
/// After how many acknowledged calls at most a round ends.
const CALLS_MAX: u64 = 160;
/// After how many changes at most a disk loses its power, in a round and in a start.
const CHANGES_MAX: u64 = 700;
const CHANGES_OF_START_MAX: u64 = 400;
/// How long one step of a test may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// The length of a spill log's head.
const SPILL_HEAD_BYTES: usize = 40;
/// Another start of the machine, as the head of a spill log names it.
const OTHER_BOOT: [u8; 16] = [7; 16];

/// What was lived through.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Total {
    /// Crashes.
    pub crashes: u64,
    /// Calls that were acknowledged.
    pub calls: u64,
    /// Calls among them that promise to be durable.
    pub syncs: u64,
}

/// When a round ends.
#[derive(Default)]
struct Switch {
    daemon: Mutex<Option<Pid>>,
    calls: AtomicU64,
    calls_max: AtomicU64,
    come: AtomicBool,
}

impl Switch {
    fn arm(&self, daemon: Option<Pid>, calls_max: u64) {
        *self.daemon.lock().unwrap_or_else(PoisonError::into_inner) = daemon;
        self.calls.store(0, Ordering::SeqCst);
        self.calls_max.store(calls_max, Ordering::SeqCst);
        self.come.store(false, Ordering::SeqCst);
    }

    /// The end: whoever is asked from now on says that it has come.
    fn turn(&self) {
        self.come.store(true, Ordering::SeqCst);
        if let Some(daemon) = *self.daemon.lock().unwrap_or_else(PoisonError::into_inner) {
            let _ended_already = kill_process(daemon, Signal::KILL);
        }
        pulse::beat();
    }
}

impl Fate for Switch {
    fn acknowledged(&self) {
        let calls = self.calls.fetch_add(1, Ordering::SeqCst) + 1;
        if calls == self.calls_max.load(Ordering::SeqCst) {
            self.turn();
        }
    }

    fn has_come(&self) -> bool {
        self.come.load(Ordering::SeqCst)
    }
}

/// One installation. The device goes before what it stands on.
struct Life {
    seed: u64,
    loss: Loss,
    device: Device,
    disk: Option<Disk>,
    switch: Arc<Switch>,
    books: Vec<Book>,
    total: Total,
    _lab: Lab,
    _scratch: Scratch,
}

/// Lives through crashes from the beginning of an installation; `None` with a visible notice
/// where this machine can't have one.
///
/// # Panics
/// If something that was promised is lost. The message says what, and how to do the same again.
pub fn live(seed: u64, crashes: u64, loss: Loss) -> Option<Total> {
    let lab = lab::or_skip(1)?;
    let mut life = Life::begin(seed, loss, lab);
    for round in 0..crashes {
        life.round(round);
    }
    let complaints = life.device.complaints();
    // A disk without power is complained of.
    assert!(loss == Loss::Power || complaints.is_empty(), "seed {seed}: {complaints:#?}");
    Some(life.total)
}

impl Life {
    fn begin(seed: u64, loss: Loss, lab: Lab) -> Life {
        let scratch = Scratch::new();
        let device = Device::stopped(&scratch, Some((&lab, 1)), "laptop");
        let switch = Arc::new(Switch::default());
        let disk = (loss == Loss::Power).then(|| {
            let data = device.home().join("data");
            fs::create_dir_all(&data).expect("a scratch directory can be filled");
            Disk::mount(&data, cutter(&switch)).expect("root may mount")
        });
        let books = (0..WRITERS).map(|_| Book::of_directories(&BRANCHES)).collect();
        let total = Total::default();
        let mut life =
            Life { seed, loss, device, disk, switch, books, total, _lab: lab, _scratch: scratch };
        life.device.run();
        for writer in 0..WRITERS {
            for branch in BRANCHES {
                fs::create_dir_all(life.root(writer).join(branch)).expect("the mount is writable");
            }
        }
        life.settle();
        life
    }

    fn root(&self, writer: usize) -> PathBuf {
        self.device.path(format!("writer {writer}"))
    }

    /// Checks all books, and makes what was found durable.
    fn settle(&mut self) {
        for writer in 0..WRITERS {
            let root = self.root(writer);
            if let Err(wrong) = self.books[writer].check(&root) {
                self.fail(writer, &wrong);
            }
        }
        let root = File::open(self.device.mount()).expect("the mount can be opened");
        root.sync_all().expect("the mount can be synced");
    }

    fn round(&mut self, round: u64) {
        let mut random = Random::new(self.seed.wrapping_mul(0x1_0000).wrapping_add(round));
        let calls_max = random.between(1, CALLS_MAX);
        let daemon = (self.loss == Loss::Process).then(|| self.device.process());
        self.switch.arm(daemon, calls_max);
        if let Some(disk) = &self.disk {
            disk.cut_after(random.between(1, CHANGES_MAX));
        }
        let roots: Vec<PathBuf> = (0..WRITERS).map(|writer| self.root(writer)).collect();
        let seeds: Vec<u64> = roots.iter().map(|_| random.draw()).collect();
        let (switch, loss) = (&*self.switch, self.loss);
        let left: Vec<_> = std::thread::scope(|scope| {
            let begun: Vec<_> = self
                .books
                .iter_mut()
                .zip(roots.iter().zip(seeds))
                .map(|(book, (root, seed))| {
                    let writer = Writer::new(seed, root, book, switch, loss);
                    scope.spawn(move || writer.go())
                })
                .collect();
            let ended = begun.into_iter().map(std::thread::ScopedJoinHandle::join);
            ended
                .map(|ended| ended.unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
                .collect()
        });
        self.total.calls += self.switch.calls.load(Ordering::SeqCst);
        self.total.syncs += self.books.iter().map(|book| book.syncs).sum::<u64>();
        self.total.crashes += 1;
        if !self.switch.has_come() {
            let errors: Vec<_> = left.iter().map(|(_, error)| error.to_string()).collect();
            self.fail(0, &format!("a writer failed before the end: {errors:?}"));
        }
        self.device.kill();
        // A dead mount is cleaned up whether somebody still holds files of it or not.
        let held = if random.chance(50) { Some(left) } else { None };
        self.restart(&mut random);
        drop(held);
        self.settle();
    }

    /// Starts the daemon again, and now and then kills it, or cuts its disk's power, meanwhile.
    fn restart(&mut self, random: &mut Random) {
        for _ in 0..random.below(3) {
            self.power_up(random);
            if !random.chance(30) {
                break;
            }
            let changes = random.between(1, CHANGES_OF_START_MAX);
            self.switch.arm(None, 0);
            if let Some(disk) = &self.disk {
                disk.cut_after(changes);
            }
            self.device.spawn();
            if self.disk.is_some() {
                // Either comes first.
                pulse::until(PATIENCE, "the start is cut short, or over", || {
                    let over = self.switch.has_come()
                        || self
                            .device
                            .lines_since_start()
                            .iter()
                            .any(|line| line.contains("mounted"));
                    if over { Ok(()) } else { Err("neither".into()) }
                });
            } else {
                let lines = usize::try_from(random.below(4)).expect("it is small");
                pulse::until(PATIENCE, "the start is under way", || {
                    let said = self.device.lines_since_start().len();
                    if said >= lines { Ok(()) } else { Err(format!("it said {said} lines")) }
                });
            }
            self.device.kill();
            self.total.crashes += 1;
        }
        self.power_up(random);
        self.switch.arm(None, 0);
        self.device.run();
    }

    /// The disk is started again, as on a machine that is.
    fn power_up(&mut self, random: &mut Random) {
        let Some(disk) = &mut self.disk else { return };
        disk.restart(random, cutter(&self.switch)).expect("nobody uses the disk");
        // What the head of a spill log says of the machine's start (docs/disk.md).
        disk.each_called("spill-", |bytes| {
            if bytes.len() >= SPILL_HEAD_BYTES {
                bytes[16..32].copy_from_slice(&OTHER_BOOT);
                let sum = blake3::hash(&bytes[..32]);
                bytes[32..SPILL_HEAD_BYTES].copy_from_slice(&sum.as_bytes()[..8]);
            }
        });
    }

    fn fail(&self, writer: usize, wrong: &str) -> ! {
        let story =
            self.books[writer].story.iter().fold(String::new(), |all, line| all + "\n  " + line);
        let (name, flag) = match self.loss {
            Loss::Process => ("crash_kill", "KITH_CRASH_KILL_SEEDS"),
            Loss::Power => ("crash_power", "KITH_CRASH_POWER_SEEDS"),
        };
        panic!(
            "seed {}, crash {}, writer {writer} did{story}\nand then {wrong}\n\
             Again: {flag}={} cargo test -p kith-tests --test {name}",
            self.seed, self.total.crashes, self.seed
        );
    }
}

/// What a disk does when its power is cut.
fn cutter(switch: &Arc<Switch>) -> Arc<dyn Fn() + Send + Sync> {
    let switch = Arc::clone(switch);
    Arc::new(move || switch.turn())
}

/// The numbers that a variable names, or these.
///
/// # Panics
/// If it names anything else.
pub fn seeds(variable: &str, otherwise: std::ops::Range<u64>) -> Vec<u64> {
    match std::env::var(variable) {
        Ok(given) => {
            given.split_whitespace().map(|seed| seed.parse().expect("a seed is a number")).collect()
        }
        Err(_) => otherwise.collect(),
    }
}

/// Lives with each seed; `None` where this machine can't.
pub fn live_all(seeds: &[u64], loss: Loss) -> Option<Total> {
    let mut all = Total::default();
    for seed in seeds {
        let total = live(*seed, ROUNDS, loss)?;
        all.crashes += total.crashes;
        all.calls += total.calls;
        all.syncs += total.syncs;
    }
    notice::say(&format!("{loss:?}: {all:?}, seeds {seeds:?}"));
    Some(all)
}
