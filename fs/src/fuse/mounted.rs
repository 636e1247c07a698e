//! A mounted volume, from the mounting to the end of its threads.

use super::attributes::Ownership;
use super::gate::Gate;
use super::handover::{self, HandOverError, KeptMount};
use super::herald::Herald;
use super::home::Home;
use super::layer::{Agreed, Answering, Layer, Openings};
use super::listing::Listings;
use super::lookout::Lookout;
use super::mount_error::MountError;
use super::mount_table::{self, KIND, Mount};
use super::outdated;
use super::route::{Request, Route};
use super::stage::Stage;
use super::unsafe_calls::leave_descriptors;
use super::writers::Writers;
use crate::volume::Volume;
use fuser::{Config, Notifier, Session, SessionACL};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
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
/// How long it may before the mount goes to another process: programs work on meanwhile.
const WRITE_BACK_HAND_OVER_PATIENCE: Duration = Duration::from_secs(30);
/// And how long, then, the threads that call the kernel and the requests under way may take to end:
/// an fsync is among them.
const HAND_OVER_PATIENCE: Duration = Duration::from_secs(10);
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
    owner: (u32, u32),
    served: Served,
    /// The connection to the kernel once more, for whoever is to go on with it.
    connection: Option<OwnedFd>,
    threads: Vec<JoinHandle<()>>,
    ending: Arc<Ending>,
    unmounted: bool,
}

/// What the threads of a mount share with it.
struct Served {
    gate: Arc<Gate>,
    answering: Arc<Answering>,
    notifier: Arc<OnceLock<Notifier>>,
    stage: Arc<Stage>,
    agreed: Arc<OnceLock<Agreed>>,
    listings: Arc<Listings>,
    writers: Arc<Writers>,
}

impl Served {
    fn of(layer: &Layer) -> Served {
        Served {
            gate: Arc::clone(&layer.gate),
            answering: Arc::clone(&layer.answering),
            notifier: Arc::clone(&layer.notifier),
            stage: Arc::clone(&layer.stage),
            agreed: Arc::clone(&layer.agreed),
            listings: Arc::clone(&layer.listings),
            writers: Arc::clone(&layer.writers),
        }
    }
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

    /// Waits until no more than `left` threads run.
    fn wait_for(&self, left: usize, patience: Duration) -> bool {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let (running, _) = self
            .changed
            .wait_timeout_while(running, patience, |running| *running > left)
            .unwrap_or_else(PoisonError::into_inner);
        *running <= left
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
    let place = Place { point, route, device };
    let connect = |layer: Layer, connection: OwnedFd| {
        Session::from_fd(layer, connection, SessionACL::All, config())
    };
    let mounted =
        Mounted::serve((volume, options.owner, place), Openings::default(), connection, connect)?;
    if let Some(device) = device {
        raise_read_ahead(device);
    }
    Ok(mounted)
}

/// Goes on with a mount that another process has handed over, and with its connection to the kernel:
/// nobody who works in it notices. The volume must know what was open in it.
///
/// # Errors
/// A [`MountError`]; nothing is mounted then.
pub fn take_up(
    volume: Arc<dyn Volume>,
    kept: &KeptMount,
    connection: OwnedFd,
) -> Result<Mounted, MountError> {
    let place = Place { point: kept.point.clone(), route: kept.route(), device: kept.device };
    let open = Openings {
        listings: kept.listings.clone().into(),
        writers: kept.writers.iter().copied().collect(),
    };
    let connect =
        |layer: Layer, connection: OwnedFd| handover::resume(layer, config(), kept, &connection);
    Mounted::serve((volume, kept.owner, place), open, connection, connect)
}

impl KeptMount {
    /// Takes the mount out of the tree, where nobody goes on with it. Whoever works in it gets errors.
    pub fn take_away(&self) {
        if let Err(error) = self.route().detach_busy(&self.point, true) {
            tracing::warn!(%error, point = %self.point.display(), "it can't be unmounted");
        }
    }

    /// Whether it is at `point`. Nothing of it is looked at: nobody would answer.
    #[must_use]
    pub fn is_at(&self, point: &Path) -> bool {
        let above = point.parent().and_then(|above| fs::canonicalize(above).ok());
        above.zip(point.file_name()).is_some_and(|(above, name)| above.join(name) == self.point)
    }

    fn route(&self) -> Route {
        if self.direct { Route::Direct } else { Route::Helper }
    }
}

fn config() -> Config {
    let mut config = Config::default();
    config.n_threads = Some(THREADS);
    // The kernel itself keeps out whom `allow_other` doesn't let in.
    config
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
    /// Answers the kernel for what is mounted at a place. It is unmounted if that fails.
    fn serve(
        (volume, owner, place): (Arc<dyn Volume>, (u32, u32), Place),
        open: Openings,
        connection: OwnedFd,
        connect: impl FnOnce(Layer, OwnedFd) -> io::Result<Session<Layer>>,
    ) -> Result<Mounted, MountError> {
        let ownership = Ownership { user: owner.0, group: owner.1 };
        let lookout = Lookout::over(&connection);
        let layer = Layer::new(Arc::clone(&volume), ownership, open, lookout);
        let mut mounted = Mounted {
            place,
            owner,
            served: Served::of(&layer),
            connection: None,
            threads: Vec::new(),
            ending: Arc::default(),
            unmounted: false,
        };
        // From here on `mounted` unmounts if anything fails.
        let kept = connection.try_clone().map_err(MountError::Failed)?;
        let session = connect(layer, connection).map_err(MountError::Kernel)?;
        mounted.connection = Some(kept);
        mounted.begin(volume, session)?;
        Ok(mounted)
    }

    /// Starts the threads.
    fn begin(
        &mut self,
        volume: Arc<dyn Volume>,
        session: Session<Layer>,
    ) -> Result<(), MountError> {
        let callback = session.notifier();
        let _ = self.served.notifier.set(callback.clone());
        let (place, ending) = (self.place.clone(), Arc::clone(&self.ending));
        self.spawn("kith-mount", true, move || match session.run() {
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
        if let Some(device) = self.place.device {
            let (volume, notifier) = (Arc::clone(&volume), callback.clone());
            let (stage, point) = (Arc::clone(&self.served.stage), self.place.point.clone());
            let (home, asked) = Home::new();
            let herald = Herald { home, stage, point, device };
            self.spawn("kith-prompter", false, move || asked.answer(volume.as_ref(), &notifier))?;
            let ending = Arc::clone(&self.ending);
            self.spawn("kith-herald", false, move || {
                leave_descriptors();
                herald.tell(&news, || !ending.wanted.load(Ordering::Acquire));
            })?;
        }
        let (place, ending) = (self.place.clone(), Arc::clone(&self.ending));
        let answering = Arc::clone(&self.served.answering);
        self.spawn("kith-callback", false, move || {
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
        })
    }

    /// Ends everything but the mount: what another process needs to go on with it, and the
    /// connection to the kernel. From then on programs wait until that one does, and this process
    /// must not look into the folder any more: it would wait too, and could not be ended.
    ///
    /// # Errors
    /// A [`HandOverError`]; then the mount is to be unmounted.
    pub fn hand_over(&mut self) -> Result<(KeptMount, OwnedFd), HandOverError> {
        let left = self.leave()?;
        self.unmounted = true;
        Ok(left)
    }

    fn leave(&mut self) -> Result<(KeptMount, OwnedFd), HandOverError> {
        let agreed = self.served.agreed.get().copied().filter(|agreed| agreed.resends);
        let agreed = agreed.ok_or(HandOverError::TooOld)?;
        if !self.is_served() {
            return Err(HandOverError::Ended);
        }
        // So that nothing depends on the next process that doesn't have to.
        if !self.place.write_back_in_time() {
            return Err(HandOverError::Busy);
        }
        self.ending.wanted.store(true, Ordering::Release);
        // They call the kernel, which may answer them only once somebody has answered it.
        if !self.ending.wait_for(1, HAND_OVER_PATIENCE)
            || !self.served.gate.close(HAND_OVER_PATIENCE)
        {
            return Err(HandOverError::Busy);
        }
        let connection = self.connection.take().ok_or(HandOverError::Ended)?;
        let kept = KeptMount {
            point: self.place.point.clone(),
            owner: self.owner,
            direct: self.place.route == Route::Direct,
            device: self.place.device,
            capabilities: agreed.capabilities.bits(),
            minor: agreed.minor,
            listings: self.served.listings.left(),
            writers: self.served.writers.left(),
        };
        Ok((kept, connection))
    }

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
        if !self.ending.wait_for(0, ENDING_PATIENCE) {
            self.place.abort();
            if !self.ending.wait_for(0, ENDING_PATIENCE) {
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
        self.in_time("kith-unmount", WRITE_BACK_PATIENCE, move |written| {
            if let Err(error) = written {
                tracing::warn!(%error, "not everything could be written back");
            }
            route.detach(&point).is_ok()
        })
    }

    /// Lets the kernel write back. Says whether all of it was, and nobody is left doing it.
    fn write_back_in_time(&self) -> bool {
        self.in_time("kith-writeback", WRITE_BACK_HAND_OVER_PATIENCE, |written| written.is_ok())
    }

    /// Does something on a thread of its own once the kernel has written back.
    fn in_time(
        &self,
        name: &str,
        patience: Duration,
        then: impl FnOnce(Result<(), Errno>) -> bool + Send + 'static,
    ) -> bool {
        let point = self.point.clone();
        let (done, gone) = mpsc::channel();
        let spawned = thread::Builder::new().name(name.into()).spawn(move || {
            leave_descriptors();
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let written = rustix::fs::open(&point, flags, Mode::empty())
                .and_then(|root| rustix::fs::syncfs(&root));
            let _ = done.send(then(written));
        });
        spawned.is_ok() && gone.recv_timeout(patience).unwrap_or(false)
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
