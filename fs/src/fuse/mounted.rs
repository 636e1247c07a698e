//! A mounted volume, from the mounting to the end of its threads.

use super::attributes::Ownership;
use super::herald::Herald;
use super::layer::{Answering, Layer};
use super::mount_error::MountError;
use super::mount_table::{self, KIND, Mount};
use super::outdated;
use super::route::{Request, Route};
use super::stage::Stage;
use crate::volume::Volume;
use fuser::{Config, Session, SessionACL};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, OnceLock, PoisonError, mpsc};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// One more or one less costs throughput: most of a request's time is waking a thread.
const THREADS: usize = 2;
/// How many dead mounts on top of one another are taken away.
const STALE_MAX: usize = 16;
/// How long the kernel may take to write back what it holds before a mount is taken away.
const WRITE_BACK_PATIENCE: Duration = Duration::from_secs(2);
/// How long the threads may take to end once it is.
const ENDING_PATIENCE: Duration = Duration::from_secs(1);
/// How long another daemon may take to show that it lives.
const PROBE_PATIENCE: Duration = Duration::from_secs(2);
/// What the kernel reads ahead, where it lets itself be told.
const READ_AHEAD_KIB: u32 = 1024;
/// How many handfuls of news those who watch may be behind.
const NEWS_MAX: usize = 256;

/// How a volume is mounted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MountOptions {
    /// Where. It is made if it is missing, and must be empty.
    pub point: PathBuf,
    /// The user and group that the share's person is shown as, and who may look in.
    pub owner: (u32, u32),
    /// What `df` shows before it; anything but letters, digits and `.-_` becomes `_`.
    pub name: String,
    /// Whether other users may look in, as far as the permissions of the files let them.
    pub allow_other: bool,
}

/// A mounted volume. Dropping it unmounts it.
pub struct Mounted {
    place: Place,
    threads: Vec<JoinHandle<()>>,
    ending: Arc<Ending>,
    unmounted: bool,
}

/// Where something is mounted, and how it got there.
#[derive(Clone)]
struct Place {
    point: PathBuf,
    route: Route,
    device: Option<(u32, u32)>,
}

/// What says that a mount's threads are to end, and that they have.
#[derive(Default)]
struct Ending {
    wanted: AtomicBool,
    /// Nobody answers the kernel any more.
    deaf: AtomicBool,
    running: Mutex<usize>,
    changed: Condvar,
}

impl Ending {
    fn is_deaf(&self) -> bool {
        self.deaf.load(Ordering::Acquire)
    }

    fn wait(&self, patience: Duration) -> bool {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let (running, _) = self
            .changed
            .wait_timeout_while(running, patience, |running| *running > 0)
            .unwrap_or_else(PoisonError::into_inner);
        *running == 0
    }
}

/// Counts a thread out, also when it panicked.
struct Running {
    ending: Arc<Ending>,
    answers: bool,
}

impl Running {
    fn begin(ending: &Arc<Ending>, answers: bool) -> Running {
        *ending.running.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        Running { ending: Arc::clone(ending), answers }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.answers {
            // Nobody is left to call back for.
            self.ending.deaf.store(true, Ordering::Release);
            self.ending.wanted.store(true, Ordering::Release);
        }
        *self.ending.running.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        self.ending.changed.notify_all();
    }
}

/// Mounts a volume, and answers the kernel from threads of its own from now on.
///
/// As root it asks the kernel itself, else `fusermount3`. A mount that a dead Kith left at the
/// point is taken away first; nothing else is.
///
/// # Errors
/// A [`MountError`] that says what is in the way; nothing is mounted then.
pub fn mount(volume: Arc<dyn Volume>, options: &MountOptions) -> Result<Mounted, MountError> {
    let route = Route::open();
    let point = prepare(&options.point, route)?;
    let name: String = options
        .name
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || ".-_".contains(c) { c } else { '_' })
        .collect();
    let request = Request {
        point: &point,
        name: if name.is_empty() { "kith" } else { &name },
        owner: options.owner,
        allow_other: options.allow_other,
    };
    let (connection, route) = route.attach(&request)?;
    let device = mount_table::topmost(&point)
        .ok()
        .flatten()
        .filter(|mount| mount.kind == KIND)
        .map(|mount| mount.device);
    let mut mounted = Mounted {
        place: Place { point, route, device },
        threads: Vec::new(),
        ending: Arc::default(),
        unmounted: false,
    };
    // From here on `mounted` unmounts if anything fails.
    let (user, group) = options.owner;
    let answering = Arc::new(Answering::default());
    let notifier = Arc::new(OnceLock::new());
    let stage = Arc::new(Stage::default());
    let layer = Layer::new(
        Arc::clone(&volume),
        Ownership { user, group },
        Arc::clone(&answering),
        Arc::clone(&notifier),
        Arc::clone(&stage),
    );
    let mut config = Config::default();
    config.n_threads = Some(THREADS);
    // The kernel itself keeps out whom `allow_other` doesn't let in.
    let session =
        Session::from_fd(layer, connection, SessionACL::All, config).map_err(MountError::Kernel)?;
    let callback = session.notifier();
    let _ = notifier.set(callback.clone());
    if let Some(device) = device {
        raise_read_ahead(device);
    }

    let (place, ending) = (mounted.place.clone(), Arc::clone(&mounted.ending));
    mounted.spawn("kith-mount", true, move || match session.run() {
        Ok(()) => tracing::debug!(point = %place.point.display(), "the mount ended"),
        // Unmounting aborts the connection where a program still holds it.
        Err(error) if ending.wanted.load(Ordering::Acquire) => {
            tracing::debug!(%error, point = %place.point.display(), "the mount was ended");
        }
        Err(error) => {
            // fuser reports at once that its first thread panicked; the others still answer.
            tracing::error!(%error, point = %place.point.display(), "the mount failed");
            place.take_away_lost();
        }
    })?;
    let (told, news) = mpsc::sync_channel(NEWS_MAX);
    if let Some(device) = device {
        let (volume, notifier) = (Arc::clone(&volume), callback.clone());
        let point = mounted.place.point.clone();
        let herald = Herald { volume, notifier, stage, point, device };
        let ending = Arc::clone(&mounted.ending);
        mounted.spawn("kith-herald", false, move || {
            herald.tell(&news, || !ending.wanted.load(Ordering::Acquire));
        })?;
    }
    let (place, ending) = (mounted.place.clone(), Arc::clone(&mounted.ending));
    mounted.spawn("kith-callback", false, move || {
        let mut lost: Option<Instant> = None;
        outdated::call_back(volume.as_ref(), &answering, &callback, &told, || {
            if answering.sentry.is_lost() && !ending.is_deaf() {
                // They end together, unless one panicked: then nobody must be left waiting.
                if lost.get_or_insert_with(Instant::now).elapsed() > ENDING_PATIENCE {
                    tracing::error!("a thread of the mount was lost; the folder is unmounted");
                    place.take_away_lost();
                    return false;
                }
            }
            !ending.wanted.load(Ordering::Acquire)
        });
    })?;
    Ok(mounted)
}

/// Makes the point ready: there, empty, and nothing mounted on it. Answers its absolute path.
fn prepare(point: &Path, route: Route) -> Result<PathBuf, MountError> {
    let failed = |cause| MountError::Point { point: point.into(), cause };
    let absolute = match fs::canonicalize(point) {
        Ok(absolute) => absolute,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            fs::create_dir_all(point).map_err(failed)?;
            fs::canonicalize(point).map_err(failed)?
        }
        // A dead mount can't be looked into, but its parent can.
        Err(error) => match (point.parent(), point.file_name()) {
            (Some(parent), Some(name)) => {
                let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
                fs::canonicalize(parent).map_err(failed)?.join(name)
            }
            _ => return Err(failed(error)),
        },
    };
    for _ in 0..STALE_MAX {
        match mount_table::topmost(&absolute).map_err(failed)? {
            None => {
                let metadata = fs::metadata(&absolute).map_err(failed)?;
                if !metadata.is_dir() {
                    return Err(MountError::NotDirectory { point: absolute });
                }
                if fs::read_dir(&absolute).map_err(failed)?.next().is_some() {
                    return Err(MountError::NotEmpty { point: absolute });
                }
                return Ok(absolute);
            }
            Some(Mount { kind, .. }) if kind != KIND => {
                return Err(MountError::Foreign { point: absolute, kind });
            }
            Some(_) if is_dead(&absolute) => {
                route.detach_busy(&absolute, false).map_err(|error| MountError::Stale {
                    point: absolute.clone(),
                    reason: error.to_string(),
                })?;
                tracing::info!(
                    point = %absolute.display(),
                    "removed the mount that an earlier daemon left behind"
                );
            }
            Some(_) => return Err(MountError::InUse { point: absolute }),
        }
    }
    Err(MountError::Stale { point: absolute, reason: "there are too many".into() })
}

/// Whether nobody answers for what is mounted there any more. Who doesn't answer in time is alive.
fn is_dead(point: &Path) -> bool {
    let point = point.to_path_buf();
    let (done, answer) = mpsc::channel();
    let spawned = thread::Builder::new().name("kith-probe".into()).spawn(move || {
        // Unlike attributes, the room on the disk is never answered from a cache.
        let dead = matches!(rustix::fs::statfs(&point), Err(Errno::NOTCONN | Errno::CONNABORTED));
        let _ = done.send(dead);
    });
    spawned.is_ok() && answer.recv_timeout(PROBE_PATIENCE).unwrap_or(false)
}

/// The kernel starts at 128 KiB, and lets root alone raise it.
fn raise_read_ahead((major, minor): (u32, u32)) {
    let path = format!("/sys/class/bdi/{major}:{minor}/read_ahead_kb");
    if let Err(error) = fs::write(path, READ_AHEAD_KIB.to_string()) {
        tracing::debug!(%error, "read-ahead stays as it is");
    }
}

impl Mounted {
    /// Where it is mounted, without symbolic links.
    #[must_use]
    pub fn point(&self) -> &Path {
        &self.place.point
    }

    /// Whether the mount is over, because somebody unmounted it or its threads failed.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.ending.is_deaf()
    }

    /// Unmounts: what programs have written is handed to the volume, and the threads end. It takes
    /// no longer than 5 seconds whatever programs and peers do: a mount that is busy is taken out
    /// of the tree, and the programs that still work in it get errors.
    ///
    /// A read that waits for absent bytes may hold the volume until its own deadline.
    ///
    /// # Errors
    /// What kept the mount in the tree.
    pub fn unmount(mut self) -> io::Result<()> {
        self.end()
    }

    fn spawn(
        &mut self,
        name: &str,
        answers: bool,
        work: impl FnOnce() + Send + 'static,
    ) -> Result<(), MountError> {
        let running = Running::begin(&self.ending, answers);
        let spawned = thread::Builder::new().name(name.into()).spawn(move || {
            let _running = running;
            work();
        });
        self.threads.push(spawned.map_err(MountError::Failed)?);
        Ok(())
    }

    fn is_served(&self) -> bool {
        !self.threads.is_empty() && !self.has_ended()
    }

    fn end(&mut self) -> io::Result<()> {
        if std::mem::replace(&mut self.unmounted, true) {
            return Ok(());
        }
        let mut result = Ok(());
        if self.place.is_taken(self.is_served()) {
            let gone = self.is_served() && self.place.detach_in_time();
            if !gone && self.place.is_taken(self.is_served()) {
                result = self.place.route.detach_busy(&self.place.point, true);
            }
        }
        self.ending.wanted.store(true, Ordering::Release);
        if !self.ending.wait(ENDING_PATIENCE) {
            self.place.abort();
            if !self.ending.wait(ENDING_PATIENCE) {
                tracing::warn!(
                    point = %self.place.point.display(),
                    "programs still work in the unmounted folder; they end with the daemon"
                );
                self.threads.clear();
            }
        }
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a thread of the mount panicked");
            }
        }
        result
    }
}

impl Place {
    /// Whether what one sees at the point is this mount, and not one that came after.
    fn is_taken(&self, served: bool) -> bool {
        match mount_table::topmost(&self.point) {
            // Device numbers are used again, but not while this mount is alive.
            Ok(Some(mount)) if served => Some(mount.device) == self.device,
            Ok(Some(mount)) => mount.kind == KIND && is_dead(&self.point),
            _ => false,
        }
    }

    /// Takes a mount that lost a thread out of the tree, and fails what is under way in it.
    fn take_away_lost(&self) {
        if !self.is_taken(true) {
            return;
        }
        self.abort();
        if let Err(error) = self.route.detach_busy(&self.point, true) {
            tracing::error!(%error, point = %self.point.display(), "it can't be unmounted");
        }
    }

    /// Lets the kernel write back and unmounts, if nobody works in it. Says whether it is gone.
    fn detach_in_time(&self) -> bool {
        let (point, route) = (self.point.clone(), self.route);
        let (done, gone) = mpsc::channel();
        let spawned = thread::Builder::new().name("kith-unmount".into()).spawn(move || {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let written = rustix::fs::open(&point, flags, Mode::empty())
                .and_then(|root| rustix::fs::syncfs(&root));
            if let Err(error) = written {
                tracing::warn!(%error, "not everything could be written back");
            }
            let _ = done.send(route.detach(&point).is_ok());
        });
        spawned.is_ok() && gone.recv_timeout(WRITE_BACK_PATIENCE).unwrap_or(false)
    }

    /// Ends what an unprivileged lazy unmount leaves running, where the kernel offers it. Only
    /// while the connection lives: then its number is used by no other.
    fn abort(&self) {
        if let Some((_, minor)) = self.device {
            let path = format!("/sys/fs/fuse/connections/{minor}/abort");
            if let Err(error) = fs::write(path, "1") {
                tracing::debug!(%error, "the connection could not be aborted");
            }
        }
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            tracing::warn!(%error, point = %self.place.point.display(), "could not unmount");
        }
    }
}
