//! One daemon, from its start to its end.

use crate::caretaker::Caretaker;
use crate::circle::Circle;
use crate::config::Config;
use crate::continuity::{ClockOffset, Continuity};
use crate::control::{ControlServer, ControlSocket};
use crate::events::Events;
use crate::handover::{self, Handover};
use crate::identity::Identity;
use crate::network::{DEFAULT_PORT, Network, NetworkConfig, Port};
use crate::paths::Paths;
use crate::peer::{Peers, ask_for_chunks};
use crate::service::Notifier;
use crate::share::{OpenLeft, Share, Size, context, kith_error_chain, new_writer};
use crate::sightings::Sightings;
use kith_control::event::Happening;
use kith_core::clock::WallMs;
use kith_core::id::DeviceId;
use kith_fs::{KeptMount, MountError, MountOptions, Mounted};
use kith_store::{Founding, OpenError, Store};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

/// How long a stop may take until what was written last is no longer waited for.
const STOP_WITHIN: Duration = Duration::from_millis(4500);
/// How long it is listened for a signal that came while a daemon made ready to start again.
const SIGNAL_PATIENCE: Duration = Duration::from_millis(1);
/// How often the upkeep looks around.
const UPKEEP_EVERY: Duration = Duration::from_secs(5);
/// How often garbage is collected, and how often where the disk is all but full.
const COLLECT_EVERY: Duration = Duration::from_secs(6 * 3600);
const COLLECT_EVERY_PRESSED: Duration = Duration::from_secs(60);
/// Room below which superseded and removed versions are let go earlier.
const PRESSED_BYTES: u64 = 1 << 30;
const HOUR_MS: u64 = 3600 * 1000;
/// How long superseded and removed versions are kept at most: with little room, and with none. With
/// room it is for as long as the settings say.
const RETENTION_MS: [u64; 2] = [7 * 24 * HOUR_MS, HOUR_MS / 6];
/// How often what was removed is forgotten, if all devices know; and how often where nothing is kept.
const FORGET_EVERY: Duration = Duration::from_secs(600);
const FORGET_EVERY_AT_ONCE: Duration = Duration::from_secs(5);
/// How often at most listeners are told of a share's progress.
const TELL_EVERY: Duration = Duration::from_millis(500);

/// What a daemon is started with.
pub struct RunOptions {
    /// Where everything is kept.
    pub paths: Paths,
    /// A person's settings.
    pub config: Config,
    /// Where to mount, if a person said so with this start.
    pub mount: Option<PathBuf>,
    /// Do not mount.
    pub no_mount: bool,
    /// What the daemon before left, whose place this one takes.
    pub handover: Option<Handover>,
}

/// Why a daemon did not start, or ended before it was told to.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{sentence}")]
pub struct RunError {
    /// What happened, in one line.
    pub sentence: String,
    /// What to try next, in one line.
    pub hint: String,
}

impl RunError {
    fn new(error: &(impl std::error::Error + 'static), hint: &str) -> Self {
        RunError { sentence: kith_error_chain(error), hint: hint.to_owned() }
    }
}

/// Runs a daemon until it is told to stop, by a signal or through its control socket. Told to start
/// again, it ends by becoming the program that is in its place then.
///
/// # Errors
/// If it can't start or can't go on.
pub fn run(options: RunOptions) -> Result<(), RunError> {
    let notifier = Notifier::from_environment();
    let result = start(options, &notifier).and_then(|daemon| daemon.run(&notifier));
    if let Err(error) = &result {
        notifier.failed(&error.sentence, &error.hint);
    }
    result
}

/// A daemon that has started.
struct Daemon {
    caretaker: Arc<Caretaker>,
    share: Arc<Share>,
    mounted: Option<Mounted>,
    control: ControlServer,
    network: NetworkThread,
    workers: Vec<JoinHandle<()>>,
    stopping: watch::Receiver<bool>,
    continuity: Continuity,
    _claim: crate::paths::DataClaim,
}

/// The thread that the network lives on.
struct NetworkThread {
    stop: watch::Sender<bool>,
    thread: JoinHandle<()>,
}

fn start(options: RunOptions, notifier: &Notifier) -> Result<Daemon, RunError> {
    let RunOptions { paths, config, mount, no_mount, handover } = options;
    let started = Instant::now();
    notifier.status("starting");
    let claim =
        paths.claim().map_err(|error| RunError::new(&error, "Stop it with 'kith down'."))?;
    let socket = ControlSocket::bind(&paths).map_err(|error| {
        RunError::new(&error, "Stop whatever uses it, or choose another --home.")
    })?;
    let keep_hint = "Nothing was changed. Restore it from a copy, or move it away to begin anew.";
    let identity = Identity::load_or_create(&paths.data.join("identity"))
        .map_err(|error| RunError::new(&error, keep_hint))?;
    let identity = Arc::new(identity);
    let name = device_name(&config);
    let circle = Circle::open(&paths.data.join("circle"), Arc::clone(&identity), &name)
        .map_err(|error| RunError::new(&error, keep_hint))?;
    let circle = Arc::new(circle);
    let events = Events::new();
    let continuity = Continuity::of(&paths);
    let (kept, open) = handover
        .map_or_else(Default::default, |left| (Some((left.mount, left.connection)), left.open));
    let share = open_share((&paths, &config), &circle, &events, &continuity, open)?;

    let peers = Arc::new(Peers::new(Arc::clone(&circle)));
    let sightings = Arc::new(Sightings::open(&paths.data.join("seen")));
    let (stop, stopping) = watch::channel(false);
    let workers = start_workers(&share, &circle, config.history_ms(), &stopping)?;
    let hooks = DaemonHooks {
        share: Arc::clone(&share),
        peers: Arc::clone(&peers),
        sightings: Arc::clone(&sightings),
        events: events.clone(),
    };
    let port = config.port.map_or(Port::Preferred(DEFAULT_PORT), Port::Only);
    let mut network_config = NetworkConfig::new(identity, Arc::clone(&circle), port);
    network_config.discovery = config.mdns;
    let hooks = Arc::new(hooks);
    let (network, runtime, network_thread) =
        start_network(network_config, hooks, (Arc::clone(&share), Arc::clone(&peers)))?;
    runtime.spawn(hint_at(network.clone(), config.peers.clone()));

    let mount_point =
        if no_mount { None } else { Some(choose_mount(&paths, &config, mount.as_deref())?) };
    // The settings may name another place by now.
    let kept = kept.filter(|(kept, _)| {
        let stays = mount_point.as_deref().is_some_and(|point| kept.is_at(point));
        if !stays {
            kept.take_away();
        }
        stays
    });
    let went_on = kept.is_some();
    let mounted = match (&mount_point, kept) {
        (None, _) => None,
        (Some(_), Some((kept, connection))) => {
            let taken = kith_fs::take_up(Arc::clone(&share) as _, &kept, connection);
            Some(taken.map_err(|error| mount_error(&error))?)
        }
        (Some(point), None) => Some(mount_share(&share, &circle, point)?),
    };
    if let (Some(given), Some(_)) = (&mount, &mounted) {
        paths.remember_mount(given).map_err(|error| RunError::new(&error, "Look at the disk."))?;
    }
    let caretaker = Arc::new(Caretaker {
        circle,
        share: Arc::clone(&share),
        peers,
        sightings,
        events,
        network,
        runtime,
        mount: Mutex::new(mount_point),
        stop,
        start_again: AtomicBool::new(false),
        run: new_writer().0,
        went_on,
        started,
    });
    let control = ControlServer::start(socket, Arc::clone(&caretaker) as _)
        .map_err(|error| RunError::new(&error, "Look at the limits on threads and open files."))?;
    Ok(Daemon {
        caretaker,
        share,
        mounted,
        control,
        network: network_thread,
        workers,
        stopping,
        continuity,
        _claim: claim,
    })
}

fn device_name(config: &Config) -> String {
    let host = || hostname::get().ok().and_then(|name| name.into_string().ok());
    let name = config.name.clone().or_else(host).unwrap_or_default();
    let name: String = name.chars().filter(|c| !c.is_control() && *c != '/').take(40).collect();
    if name.trim().is_empty() { "device".to_owned() } else { name.trim().to_owned() }
}

fn open_share(
    (paths, config): (&Paths, &Config),
    circle: &Circle,
    events: &Events,
    continuity: &Continuity,
    open: OpenLeft,
) -> Result<Arc<Share>, RunError> {
    let directory = paths.data.join("store");
    let chance = context();
    let founding = Founding {
        share: circle.share().id,
        device: circle.own(),
        writer: new_writer(),
        author: circle.name_of(circle.own()),
        now: chance.now,
        tag: chance.tag,
    };
    let store = Store::open(&directory, &founding).map_err(|error| {
        let hint = match &error {
            OpenError::Newer { .. } => "Update Kith on this device.",
            OpenError::InUse { .. } => "Stop the other one with 'kith down'.",
            _ => "Nothing was changed. Copy it somewhere safe, then look at the disk's health.",
        };
        RunError::new(&error, hint)
    })?;
    let share = Arc::new(Share::new(store, config, events.clone(), &circle.share().name));
    let store_hint = "Look at the room and the health of the disk under Kith's data.";
    // Before anything new gets a number.
    let proven = continuity.take(share.store.continuity());
    share.begin(circle.own(), proven).map_err(|error| RunError::new(&error, store_hint))?;
    share.adopt(circle.share().id).map_err(|error| RunError::new(&error, store_hint))?;
    share
        .set_author(&circle.name_of(circle.own()))
        .map_err(|error| RunError::new(&error, store_hint))?;
    let recovery = share.recover(open).map_err(|error| RunError::new(&error, store_hint))?;
    if recovery != crate::share::Recovery::default() {
        tracing::warn!(
            published = recovery.published,
            beside = recovery.beside,
            waiting = recovery.waiting,
            "the last stop left changes behind; they were recovered"
        );
    }
    Ok(share)
}

fn start_workers(
    share: &Arc<Share>,
    circle: &Arc<Circle>,
    history_ms: u64,
    stopping: &watch::Receiver<bool>,
) -> Result<Vec<JoinHandle<()>>, RunError> {
    let mut workers = Vec::new();
    for (name, size) in [("kith-publish", Size::Small), ("kith-publish-big", Size::Large)] {
        let share = Arc::clone(share);
        workers.push(thread(name, move || share.publish_all(size))?);
    }
    let merging = Arc::clone(share);
    workers.push(thread("kith-merge", move || merging.merge_all())?);
    let (share, circle, stopping) = (Arc::clone(share), Arc::clone(circle), stopping.clone());
    // Not waited for at the end: what it does may be given up at any time.
    let _ = thread("kith-upkeep", move || upkeep(&share, &circle, history_ms, &stopping))?;
    Ok(workers)
}

fn upkeep(share: &Share, circle: &Circle, history_ms: u64, stopping: &watch::Receiver<bool>) {
    let begun = (context().now, Instant::now());
    let (mut collected, mut forgot) = (begun.1, begun.1);
    let mut clock = ClockOffset::now();
    while !*stopping.borrow() {
        std::thread::park_timeout(UPKEEP_EVERY);
        let before = std::mem::replace(&mut clock, ClockOffset::now());
        if clock.jumped(before)
            && let Err(error) = share.succeed()
        {
            tracing::error!(cause = %kith_error_chain(&error), "the index can't go on under a new writer");
        }
        share.publish_idle();
        if let Err(error) = share.store.sync() {
            tracing::error!(cause = %kith_error_chain(&error), "what was written can't be made durable");
        }
        match share.store.doubt_damaged() {
            Ok(0) => {}
            Ok(files) => {
                tracing::warn!(files, "files with damaged bytes are fetched again");
                share.fetches.look_again();
            }
            Err(error) => {
                tracing::error!(cause = %kith_error_chain(&error), "damage can't be mended");
            }
        }
        // A wall clock that leaps ahead ends no retention: not more time passes than has passed.
        let passed_ms = u64::try_from(begun.1.elapsed().as_millis()).unwrap_or(u64::MAX);
        let now = context().now.min(WallMs(begun.0.0.saturating_add(passed_ms)));
        let free_bytes = share.store.room().map_or(u64::MAX, |room| room.free_bytes);
        let (every, retention_ms) = match free_bytes {
            0 => (COLLECT_EVERY_PRESSED, history_ms.min(RETENTION_MS[1])),
            1..PRESSED_BYTES => (COLLECT_EVERY_PRESSED, history_ms.min(RETENTION_MS[0])),
            _ => (COLLECT_EVERY, history_ms),
        };
        let often = if history_ms == 0 { FORGET_EVERY_AT_ONCE } else { FORGET_EVERY };
        if forgot.elapsed() >= often {
            forgot = Instant::now();
            match share.forget(&circle.others(), now, retention_ms) {
                Ok(0) => {}
                Ok(registers) => tracing::info!(registers, "what was removed is forgotten"),
                Err(error) => {
                    tracing::error!(cause = %kith_error_chain(&error), "what was removed can't be forgotten");
                }
            }
        }
        if collected.elapsed() >= every {
            collected = Instant::now();
            match share.store.collect(now, retention_ms) {
                Ok(found) => tracing::info!(?found, "garbage was collected"),
                Err(error) => {
                    tracing::error!(cause = %kith_error_chain(&error), "garbage can't be collected");
                }
            }
        }
    }
}

fn thread(name: &str, work: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, RunError> {
    let spawned = std::thread::Builder::new().name(name.to_owned()).spawn(work);
    spawned.map_err(|error| RunError::new(&error, "Look at the limit on threads."))
}

/// Starts the network on a thread of its own, with a runtime of one thread: that is faster than
/// more, for one endpoint.
fn start_network(
    config: NetworkConfig,
    hooks: Arc<DaemonHooks>,
    (share, peers): (Arc<Share>, Arc<Peers>),
) -> Result<(Network, tokio::runtime::Handle, NetworkThread), RunError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(16)
        .build()
        .map_err(|error| RunError::new(&error, "Look at the limits on threads and open files."))?;
    let handle = runtime.handle().clone();
    let (stop, mut stopped) = watch::channel(false);
    let (ready, started) = std::sync::mpsc::sync_channel(1);
    let thread = thread("kith-network", move || {
        runtime.block_on(async move {
            match crate::network::start(config, hooks).await {
                Err(error) => {
                    let hint =
                        "Stop what uses the UDP port, or set another `port` in the settings.";
                    let _ = ready.send(Err(RunError::new(&error, hint)));
                }
                Ok(network) => {
                    let _ = ready.send(Ok(network.clone()));
                    tokio::spawn(ask_for_chunks(Arc::clone(&share), peers));
                    tokio::spawn(Arc::clone(&share).fill());
                    // An error means that the daemon is gone, which is as good as being told.
                    let _ = stopped.wait_for(|stop| *stop).await;
                    network.shutdown().await;
                }
            }
        });
        // Store calls under way end by themselves; none waits for another device.
        runtime.shutdown_timeout(Duration::from_millis(500));
    })?;
    let network = started.recv().map_err(|_| RunError {
        sentence: "the network thread ended early".to_owned(),
        hint: "Look at the daemon's log.".to_owned(),
    })??;
    Ok((network, handle, NetworkThread { stop, thread }))
}

/// Names the addresses of a person's settings to the network, once they are resolved.
async fn hint_at(network: Network, addresses: Vec<String>) {
    for address in addresses {
        match tokio::net::lookup_host(&address).await {
            Ok(found) => found.for_each(|found| network.connect_hint(found)),
            Err(error) => tracing::warn!(%address, %error, "an address in `peers` leads nowhere"),
        }
    }
}

fn choose_mount(paths: &Paths, config: &Config, given: Option<&Path>) -> Result<PathBuf, RunError> {
    paths
        .mount_point(given, config.mount.as_deref())
        .map_err(|error| RunError::new(&error, "Name another directory with --mount."))
}

fn mount_share(share: &Arc<Share>, circle: &Circle, point: &Path) -> Result<Mounted, RunError> {
    let (user, group) = (rustix::process::getuid(), rustix::process::getgid());
    let options = MountOptions {
        point: point.to_owned(),
        owner: (user.as_raw(), group.as_raw()),
        name: circle.share().name,
        // The kernel checks permissions, and only root may let others in without being asked.
        allow_other: user.is_root(),
    };
    kith_fs::mount(Arc::clone(share) as _, &options).map_err(|error| mount_error(&error))
}

fn mount_error(error: &MountError) -> RunError {
    RunError { sentence: error.to_string(), hint: error.hint().to_owned() }
}

impl Daemon {
    fn run(self, notifier: &Notifier) -> Result<(), RunError> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| RunError::new(&error, "Look at the limits on open files."))?;
        if let Some(mount) =
            self.caretaker.mount.lock().unwrap_or_else(PoisonError::into_inner).as_ref()
        {
            self.caretaker.events.send(Happening::Mounted {
                share: self.caretaker.circle.share().name,
                mount: mount.display().to_string(),
            });
            tracing::info!(mount = %mount.display(), "mounted");
        }
        notifier.ready("running");
        tracing::info!(port = self.caretaker.port(), "ready");
        let mut stopping = self.stopping.clone();
        let caretaker = Arc::clone(&self.caretaker);
        let mut signals = None;
        runtime.block_on(async {
            let signals = signals.insert(Signals::listen());
            tokio::select! {
                () = signals.any() => caretaker.start_again.store(false, Ordering::SeqCst),
                () = told(&mut stopping) => {}
                () = watch_over(&caretaker, notifier) => {}
            }
        });
        let start_again = caretaker.start_again.load(Ordering::SeqCst);
        drop(caretaker);
        let handover = self.stop(notifier, start_again);
        if !start_again {
            return Ok(());
        }
        // Somebody may have wanted it to end after all.
        let told_to_end = runtime.block_on(async {
            let signals = signals.as_mut().expect("they have been listened for above");
            tokio::time::timeout(SIGNAL_PATIENCE, signals.any()).await.is_ok()
        });
        if told_to_end {
            if let Some(handover) = handover {
                handover.give_up();
            }
            return Ok(());
        }
        let started = handover::start_again(handover);
        started
            .map(|never| match never {})
            .map_err(|error| RunError::new(&error, "Start it with 'kith up'."))
    }

    /// Ends everything. If it is to start again, the mount stays if that is possible, and what the next
    /// daemon needs for it is answered.
    fn stop(self, notifier: &Notifier, start_again: bool) -> Option<Handover> {
        if start_again {
            notifier.status("starting again");
            tracing::info!("stopping, to start again");
        } else {
            notifier.stopping();
            tracing::info!("stopping");
        }
        self.caretaker.events.send(Happening::Stopping);
        self.caretaker.stop.send_replace(true);
        // All within the five seconds that a stop may take, unless the mount stays: the network and the
        // control server end while the kernel hands over what it still holds and the share takes it.
        let mut deadline = Instant::now() + STOP_WITHIN;
        self.network.stop.send_replace(true);
        let control = self.control;
        let control = std::thread::spawn(move || control.stop());
        let kept = self.mounted.and_then(|mounted| end_mount(mounted, start_again));
        if kept.is_some() {
            deadline = Instant::now() + STOP_WITHIN;
        }
        if !self.share.close(deadline) {
            tracing::warn!("some files could not be published yet; they will be at the next start");
        }
        let _ = self.network.thread.join();
        let _ = control.join();
        for worker in self.workers {
            if worker.is_finished() {
                let _ = worker.join();
            }
        }
        for peer in self.caretaker.peers.all() {
            self.caretaker.sightings.note(peer.device);
        }
        self.caretaker.sightings.save();
        let kept = kept.map(|kept| (kept, self.share.keep_open()));
        let number = self.continuity.draw();
        if self.share.store.close_with(number)
            && let Some(number) = number
        {
            self.continuity.leave(number);
        }
        tracing::info!("stopped");
        kept.map(|((mount, connection), open)| Handover {
            mount,
            connection,
            open: self.share.leave_open(&open),
        })
    }
}

/// Ends a mount, or makes it ready for the next daemon.
fn end_mount(mut mounted: Mounted, start_again: bool) -> Option<(KeptMount, OwnedFd)> {
    if start_again {
        match mounted.hand_over() {
            Ok(kept) => return Some(kept),
            Err(error) => {
                tracing::warn!(%error, "the folder is mounted anew; what is open in it ends");
            }
        }
    }
    if let Err(error) = mounted.unmount() {
        tracing::warn!(%error, "the folder could not be unmounted");
    }
    None
}

/// The signals that end a daemon.
struct Signals(Option<[Signal; 2]>);

impl Signals {
    fn listen() -> Signals {
        let listen = || Ok([signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?]);
        Signals(
            listen()
                .inspect_err(|error: &std::io::Error| {
                    tracing::error!(%error, "signals can't be waited for");
                })
                .ok(),
        )
    }

    /// Waits for one.
    async fn any(&mut self) {
        let Some([terminate, interrupt]) = &mut self.0 else {
            return std::future::pending().await;
        };
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    }
}

async fn told(stopping: &mut watch::Receiver<bool>) {
    // An error means that nobody is left to tell, which can't be while the caretaker lives.
    let _ = stopping.wait_for(|stop| *stop).await;
}

/// Tells listeners how the share stands, and systemd that the daemon is alive.
async fn watch_over(caretaker: &Arc<Caretaker>, notifier: &Notifier) {
    let mut changed = caretaker.share.watch();
    let mut peers = caretaker.peers.watch();
    let mut told = None;
    let mut conflicts = None;
    let mut alive =
        tokio::time::interval(notifier.watchdog_interval().unwrap_or(Duration::from_secs(30)));
    loop {
        let caretaker = Arc::clone(caretaker);
        let looked = tokio::task::spawn_blocking(move || {
            use crate::steward::Steward;
            caretaker.shares().map(|shares| (caretaker, shares))
        });
        if let Ok(Ok((caretaker, shares))) = looked.await {
            for share in shares {
                let now = (share.state, share.missing_bytes);
                if told != Some(now) {
                    caretaker.events.send(Happening::ShareStateChanged {
                        share: share.name.clone(),
                        state: share.state,
                        missing_bytes: share.missing_bytes,
                    });
                    told = Some(now);
                }
                if conflicts.is_some_and(|count| count != share.conflicts) {
                    caretaker.events.send(Happening::ConflictsChanged {
                        share: share.name,
                        conflicts: share.conflicts,
                    });
                }
                conflicts = Some(share.conflicts);
            }
        }
        tokio::time::sleep(TELL_EVERY).await;
        let waited = async {
            tokio::select! {
                _ = changed.changed() => {}
                _ = peers.changed() => {}
            }
        };
        tokio::pin!(waited);
        loop {
            tokio::select! {
                () = &mut waited => break,
                _ = alive.tick() => notifier.alive(),
            }
        }
    }
}

/// What the network tells the daemon.
struct DaemonHooks {
    share: Arc<Share>,
    peers: Arc<Peers>,
    sightings: Arc<Sightings>,
    events: Events,
}

impl crate::network::Peers for DaemonHooks {
    fn connected(&self, link: crate::network::Link) {
        self.sightings.note(link.device);
        let peers = Arc::clone(&self.peers);
        tokio::spawn(peers.serve(link, Arc::clone(&self.share), self.events.clone()));
    }

    fn disconnected(&self, device: DeviceId, _reason: String) {
        self.sightings.note(device);
        self.sightings.save();
    }

    fn joined(&self, member: crate::circle::Member) {
        self.events
            .send(Happening::DeviceJoined { id: member.device.to_string(), name: member.name });
    }

    fn cloned(&self) {
        let share = Arc::clone(&self.share);
        drop(tokio::task::spawn_blocking(move || {
            if let Err(error) = share.note_clone() {
                tracing::error!(cause = %kith_error_chain(&error), "a sign of a copied identity can't be kept");
            }
        }));
    }

    fn member_changed(&self) {}
}
