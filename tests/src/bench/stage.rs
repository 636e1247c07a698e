//! What a course is run on: a directory, a daemon with a mount beside it, and the machine's caches.

use super::Side;
use crate::device::Device;
use crate::scratch::Scratch;
use kith_control::client::{Client, Lines};
use kith_control::event::{Event, Happening};
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

/// A directory of the disk, and a mount whose store is beside it.
pub struct Stage {
    device: Device,
    disk: PathBuf,
    mount: PathBuf,
    caches: Caches,
    scale: f64,
    happening: RefCell<Lines<Event>>,
    // Last, so that it is still there when the daemon ends.
    scratch: Scratch,
}

impl std::fmt::Debug for Stage {
    fn fmt(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        to.debug_struct("Stage").field("scratch", &self.scratch).finish_non_exhaustive()
    }
}

impl Stage {
    /// A new store with a running daemon.
    ///
    /// # Panics
    /// If the daemon can't be started.
    pub fn new(caches: Caches, scale: f64) -> Stage {
        let scratch = Scratch::new();
        let mut device = Device::stopped(&scratch, None, "b");
        fs::create_dir_all(device.home()).expect("a scratch directory can be filled");
        fs::write(device.home().join("config.toml"), "mdns = false\n").expect("it can be written");
        device.live_longer(LIFE);
        device.run();
        let (disk, mount) = (scratch.path().join("disk"), device.path("work"));
        for directory in [&disk, &mount] {
            fs::create_dir(directory).expect("both sides can be written");
        }
        let events = Client::new(device.home().join("run/control.sock")).events();
        let happening = RefCell::new(events.expect("a daemon tells what happens"));
        Stage { device, disk, mount, caches, scale, happening, scratch }
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

    /// What the daemon has used of the processors so far.
    ///
    /// # Panics
    /// If the daemon has ended.
    pub fn processor_seconds(&self) -> f64 {
        let path = format!("/proc/{}/stat", self.device.process().as_raw_nonzero());
        let stat = fs::read_to_string(path).expect("the daemon runs");
        // What follows the name, which may have blanks in it: the 12th and 13th are user and system.
        let after = stat.rsplit_once(')').map_or("", |(_, after)| after);
        let ticks = after.split_whitespace().skip(11).take(2);
        ticks.filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>() / 100.0
    }

    /// Waits until a version of so many bytes is published that was not waited for before.
    ///
    /// # Panics
    /// If the daemon ends.
    pub fn published(&self, wanted: u64) {
        loop {
            let next = self.happening.borrow_mut().next();
            let event = next.expect("the daemon runs").expect("the daemon answers");
            match event.what {
                Happening::FilePublished { bytes, .. } if bytes == wanted => return,
                _ => {}
            }
        }
    }
}
