//! What a course is run on: a directory, a mount beside it, and the machine's caches.

#[expect(dead_code, reason = "the tests of the mount need more of it")]
#[path = "../../../fs/tests/memory/mod.rs"]
mod memory;

use super::Side;
use crate::device::Device;
use crate::scratch::Scratch;
use kith_control::client::{Client, Lines};
use kith_control::event::{Event, Happening};
use kith_fs::{MountOptions, Mounted};
use memory::MemoryVolume;
use rustix::process::{getegid, geteuid};
use std::cell::RefCell;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long a daemon may be busy after a piece of work.
const PATIENCE: Duration = Duration::from_secs(300);
/// How long it must do nothing to be taken for idle.
const QUIET: Duration = Duration::from_millis(150);
/// How long all of a course may take.
const LIFE: Duration = Duration::from_secs(3600);

/// Drops the kernel's caches as `/proc/sys/vm/drop_caches` counts them, and says whether it did.
pub type Caches = Arc<dyn Fn(u8) -> bool>;

/// What is mounted beside the directory of the disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Subject {
    /// A daemon's folder.
    Daemon,
    /// The same filesystem over a volume in memory: what of a mount's time isn't the daemon's work.
    Memory,
}

/// Who answers for the mount.
enum Served {
    Daemon { device: Device, happening: RefCell<Lines<Event>> },
    Memory { _mounted: Mounted },
}

/// A directory of the disk, and a mount whose store is beside it.
pub struct Stage {
    served: Served,
    disk: PathBuf,
    mount: PathBuf,
    caches: Caches,
    scale: f64,
    // Last, so that it is still there when the daemon ends.
    scratch: Scratch,
}

impl std::fmt::Debug for Stage {
    fn fmt(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        to.debug_struct("Stage").field("scratch", &self.scratch).finish_non_exhaustive()
    }
}

impl Stage {
    /// A new mount.
    ///
    /// # Panics
    /// If the daemon can't be started, or nothing can be mounted.
    pub fn new(subject: Subject, caches: Caches, scale: f64) -> Stage {
        let scratch = Scratch::new();
        let (served, folder) = match subject {
            Subject::Daemon => Served::daemon(&scratch),
            Subject::Memory => Served::memory(scratch.path()),
        };
        let (disk, mount) = (scratch.path().join("disk"), folder.join("work"));
        for directory in [&disk, &mount] {
            fs::create_dir(directory).expect("both sides can be written");
        }
        Stage { served, disk, mount, caches, scale, scratch }
    }

    /// The directory to work in.
    pub fn at(&self, side: Side) -> &Path {
        match side {
            Side::Disk => &self.disk,
            Side::Mount => &self.mount,
        }
    }

    /// A place on the disk for what neither side is measured by.
    pub fn aside(&self) -> &Path {
        self.scratch.path()
    }

    /// So many, or so much, at this scale; a multiple of `unit`, and at least one.
    pub fn scaled(&self, whole: u64, unit: u64) -> u64 {
        // Counts and sizes of a benchmark: far below where a double loses whole numbers.
        let scaled = (whole as f64 * self.scale) as u64;
        (scaled / unit).max(1) * unit
    }

    /// Drops caches: 2 for names and attributes, 3 for pages too. Says whether it could.
    pub fn drop_caches(&self, which: u8) -> bool {
        (self.caches)(which)
    }

    /// Has everything written to the disk, so that what is timed doesn't wait for what came before.
    ///
    /// # Panics
    /// If it can't be.
    pub fn write_back(&self) {
        for directory in [&self.mount, &self.disk] {
            let directory = fs::File::open(directory).expect("it is there");
            rustix::fs::syncfs(&directory).expect("what was written can be synced");
        }
    }

    /// Waits until the daemon has nothing to do.
    ///
    /// # Panics
    /// If it doesn't come to rest.
    pub fn settle(&self) {
        let since = Instant::now();
        let mut before = f64::NEG_INFINITY;
        loop {
            let used = self.processor_seconds();
            if used - before < 0.02 {
                return;
            }
            before = used;
            assert!(since.elapsed() < PATIENCE, "the daemon does not come to rest");
            // Nothing tells when a process becomes idle.
            std::thread::park_timeout(QUIET);
        }
    }

    /// What the daemon has used of the processors so far; 0 if there is none.
    ///
    /// # Panics
    /// If the daemon has ended.
    pub fn processor_seconds(&self) -> f64 {
        let Served::Daemon { device, .. } = &self.served else { return 0.0 };
        let path = format!("/proc/{}/stat", device.process().as_raw_nonzero());
        let stat = fs::read_to_string(path).expect("the daemon runs");
        // What follows the name, which may have blanks in it: the 12th and 13th are user and system.
        let after = stat.rsplit_once(')').map_or("", |(_, after)| after);
        let ticks = after.split_whitespace().skip(11).take(2);
        ticks.filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>() / 100.0
    }

    /// Waits until a version of so many bytes is published that was not waited for before.
    ///
    /// # Panics
    /// If the daemon ends, or there is none.
    pub fn published(&self, wanted: u64) {
        let Served::Daemon { happening, .. } = &self.served else {
            panic!("nothing in memory is published");
        };
        loop {
            let next = happening.borrow_mut().next();
            let event = next.expect("the daemon runs").expect("the daemon answers");
            match event.what {
                Happening::FilePublished { bytes, .. } if bytes == wanted => return,
                _ => {}
            }
        }
    }
}

impl Served {
    /// A new store with a running daemon, and its folder.
    fn daemon(scratch: &Scratch) -> (Served, PathBuf) {
        let mut device = Device::stopped(scratch, None, "b");
        fs::create_dir_all(device.home()).expect("a scratch directory can be filled");
        fs::write(device.home().join("config.toml"), "mdns = false\n").expect("it can be written");
        device.live_longer(LIFE);
        device.run();
        let events = Client::new(device.home().join("run/control.sock")).events();
        let happening = RefCell::new(events.expect("a daemon tells what happens"));
        let folder = device.path("");
        (Served::Daemon { device, happening }, folder)
    }

    fn memory(scratch: &Path) -> (Served, PathBuf) {
        let owner = (geteuid().as_raw(), getegid().as_raw());
        let point = scratch.join("memory");
        let options =
            MountOptions { point: point.clone(), owner, name: "memory".into(), allow_other: false };
        let mounted = kith_fs::mount(Arc::new(MemoryVolume::new()), &options);
        (Served::Memory { _mounted: mounted.expect("it can be mounted") }, point)
    }
}
