//! Looks after the daemon on a person's behalf: answers what the control API asks.

use crate::circle::{Circle, CircleError};
use crate::events::Events;
use crate::network::{InviteEvent, JoinError, Network, NetworkError};
use crate::peer::Peers;
use crate::share::{CLONE_HINT, Share, context, kith_error_chain};
use crate::sightings::Sightings;
use crate::steward::{ControlError, ControlErrorKind, InviteStream, Joining, Steward};
use kith_control::diagnosis::{Check, DoctorReport};
use kith_control::event::{Event, Happening};
use kith_control::moment::Moment;
use kith_control::pairing::{Invitation, InviteLine, Joined};
use kith_control::status::{
    DeviceList, DeviceRef, DeviceStatus, MassChange, Member, ShareState, ShareStatus, Status,
    ThisDevice,
};
use kith_core::exchange::full_knowledge;
use kith_core::id::DeviceId;
use kith_core::index::IndexRead;
use kith_store::{NodeRead, StoreError};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};
use tokio::runtime::Handle;
use tokio::sync::{broadcast, mpsc, watch};

/// What to do about a damaged index.
const INDEX_HINT: &str = "Your other devices have what they have got of it. 'kith down', copy Kith's data \
                          somewhere safe, and see to the disk; then move the data away, 'kith up', \
                          and join again.";
/// A clock that is this far off makes the later of two changes hard to tell.
const CLOCK_FIRST_YEAR_SECONDS: u64 = 1_700_000_000;
/// How long a sign that another machine has this device's identity counts: both give new ones
/// whenever they meet anybody.
const CLONE_SIGN_COUNTS_MS: u64 = 24 * 3600 * 1000;
/// Free room below which a person is warned.
const ROOM_WARN_BYTES: u64 = 2 << 30;

/// Everything that an answer may need to look at.
pub(crate) struct Caretaker {
    pub(crate) circle: Arc<Circle>,
    pub(crate) share: Arc<Share>,
    pub(crate) peers: Arc<Peers>,
    pub(crate) sightings: Arc<Sightings>,
    pub(crate) events: Events,
    pub(crate) network: Network,
    /// The runtime that the network lives on.
    pub(crate) runtime: Handle,
    pub(crate) mount: Mutex<Option<PathBuf>>,
    pub(crate) stop: watch::Sender<bool>,
    /// Whether the daemon is to start again once it has stopped.
    pub(crate) start_again: AtomicBool,
    /// What tells this run of the daemon from every other.
    pub(crate) run: u64,
    /// Whether it went on with the mount of the run before.
    pub(crate) went_on: bool,
    pub(crate) started: Instant,
}

impl Caretaker {
    /// How the share stands between the connected devices.
    pub(crate) fn state(&self, missing_bytes: u64) -> Result<ShareState, StoreError> {
        let connected = self.peers.all();
        if connected.is_empty() {
            let alone = self.circle.is_alone();
            return Ok(if alone && self.share.unpublished() == 0 {
                ShareState::Synced
            } else if alone {
                ShareState::Syncing
            } else {
                ShareState::Offline
            });
        }
        let own = full_knowledge(&self.share.store.snapshot()?.state()?);
        let same = connected.iter().all(|peer| {
            peer.knowledge().is_some_and(|theirs| theirs == own) && peer.absent_bytes() == Some(0)
        });
        let synced = same && missing_bytes == 0 && self.share.unpublished() == 0;
        Ok(if synced { ShareState::Synced } else { ShareState::Syncing })
    }

    fn share_status(&self) -> Result<ShareStatus, StoreError> {
        let missing_bytes = self.share.missing_bytes()?;
        let totals = self.share.store.snapshot()?.totals()?;
        let share = self.circle.share();
        let mount = self.mount.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Ok(ShareStatus {
            name: share.name,
            id: share.id.to_string(),
            mount: mount.map(|path| path.display().to_string()),
            state: self.state(missing_bytes)?,
            entries: totals.entries,
            bytes: totals.bytes,
            missing_bytes,
            conflicts: totals.conflicts,
            problem: self.problem()?,
            mass_changes: self.share.mass_changes()?,
        })
    }

    /// What keeps the share from working as it should.
    fn problem(&self) -> Result<Option<String>, StoreError> {
        let full = self.share.store.room()?.free_bytes == 0;
        let what = "The disk is full: nothing more is taken in or published until there is room.";
        Ok(full.then(|| what.to_owned()))
    }

    /// When there was the first and the last sign that another machine has this device's identity,
    /// if that is lately.
    fn cloned(&self) -> Result<Option<(Moment, Moment)>, StoreError> {
        let signs = self.share.store.snapshot()?.clone_signs()?;
        let moment = |ms: u64| Moment::from_unix_ms(i64::try_from(ms).unwrap_or(i64::MAX));
        let oldest = context().now.0.saturating_sub(CLONE_SIGN_COUNTS_MS);
        let signs = signs.filter(|signs| signs.last.0 >= oldest);
        Ok(signs.map(|signs| (moment(signs.first.0), moment(signs.last.0))))
    }

    /// The UDP port that the network listens on; 0 if it has none any more.
    pub(crate) fn port(&self) -> u16 {
        self.network.local_addr().map_or(0, |address| address.port())
    }

    /// Whether the index is as it was written.
    fn check_index(&self) -> Check {
        let damage = match self.share.store.damage() {
            Ok(None) => return Check::ok("index", "the index is sound"),
            Ok(Some(damage)) => damage,
            Err(error) => kith_error_chain(&error),
        };
        Check::bad("index", format!("The index is damaged: {damage}"), INDEX_HINT)
    }

    /// Whether this device is the only one with its identity.
    fn check_identity(&self) -> Check {
        match self.cloned() {
            Ok(None) => Check::ok("identity", "no other machine has this device's identity"),
            Ok(Some((first, last))) => Check::bad(
                "identity",
                format!(
                    "Another machine has the identity of {}: Kith's data was copied. No file is lost \
                     by that, but only one of the two is connected at a time. First seen {first}, \
                     last seen {last}",
                    self.own_name()
                ),
                CLONE_HINT,
            ),
            Err(error) => Check::bad(
                "identity",
                kith_error_chain(&error),
                "Look at the disk under Kith's data, and at the daemon's log.",
            ),
        }
    }

    fn own_name(&self) -> String {
        self.circle.name_of(self.circle.own())
    }

    fn address_of(&self, device: DeviceId) -> Option<String> {
        if let Some(peer) = self.peers.find(device) {
            return Some(peer.address.to_string());
        }
        let member = self.circle.member(device)?;
        member.addresses.first().map(SocketAddr::to_string)
    }

    fn last_seen(&self, device: DeviceId) -> Option<Moment> {
        if self.peers.find(device).is_some() {
            Some(Moment::now())
        } else {
            self.sightings.last(device)
        }
    }

    fn known(&self, id: DeviceId) -> Result<DeviceRef, ControlError> {
        let member = self.circle.member(id).filter(|member| !member.removed);
        let member = member.ok_or_else(|| {
            let hint = "List the devices with 'kith devices'.";
            ControlError::new(ControlErrorKind::NotFound, "There is no such device.", hint)
        })?;
        Ok(DeviceRef { id: id.to_string(), name: member.name })
    }
}

impl Steward for Caretaker {
    fn status(&self) -> Result<Status, ControlError> {
        let others =
            self.circle.members().into_iter().filter(|member| !member.own && !member.removed);
        let devices = others.map(|member| {
            let peer = self.peers.find(member.device);
            DeviceStatus {
                id: member.device.to_string(),
                name: member.name,
                connected: peer.is_some(),
                address: self.address_of(member.device),
                missing_bytes: peer.and_then(|peer| peer.absent_bytes()),
                last_seen: self.last_seen(member.device),
            }
        });
        Ok(Status {
            device: ThisDevice {
                id: self.circle.own().to_string(),
                name: self.own_name(),
                version: env!("CARGO_PKG_VERSION").to_owned(),
                port: Some(self.port()).filter(|port| *port > 0),
                addresses: self.network.addresses().iter().map(SocketAddr::to_string).collect(),
                cloned: self.cloned().map_err(|error| failed(&error))?.map(|(_, last)| last),
                uptime_seconds: self.started.elapsed().as_secs(),
                run: format!("{:016x}", self.run),
                went_on: self.went_on,
            },
            devices: devices.collect(),
            shares: self.shares()?,
        })
    }

    fn devices(&self) -> DeviceList {
        let mut members = self.circle.members();
        members.retain(|member| !member.removed);
        members.sort_by_key(|member| !member.own);
        let devices = members.into_iter().map(|member| Member {
            id: member.device.to_string(),
            this: member.own,
            connected: member.own || self.peers.find(member.device).is_some(),
            address: if member.own { None } else { self.address_of(member.device) },
            last_seen: if member.own { Some(Moment::now()) } else { self.last_seen(member.device) },
            name: member.name,
        });
        DeviceList { devices: devices.collect() }
    }

    fn shares(&self) -> Result<Vec<ShareStatus>, ControlError> {
        Ok(vec![self.share_status().map_err(|error| failed(&error))?])
    }

    fn invite(&self) -> Result<InviteStream, ControlError> {
        let mut invitation = self.network.invite().map_err(|error| network_error(&error))?;
        let expires = i64::try_from(invitation.expires_ms).unwrap_or(i64::MAX);
        let first = Invitation {
            code: invitation.code.clone(),
            addresses: self.network.addresses().iter().map(SocketAddr::to_string).collect(),
            expires: Some(Moment::from_unix_ms(expires)),
        };
        let (tell, outcome) = mpsc::channel(8);
        let network = self.network.clone();
        self.runtime.spawn(async move {
            loop {
                let event = tokio::select! {
                    event = invitation.outcome.recv() => event,
                    () = tell.closed() => {
                        // Whoever asked for the code waits no more.
                        let _ = network.withdraw_invitation();
                        return;
                    }
                };
                let line = invite_line(event);
                let last = !matches!(line, InviteLine::WrongGuess { .. });
                if tell.send(line).await.is_err() || last {
                    return;
                }
            }
        });
        Ok(InviteStream { invitation: first, outcome })
    }

    fn join<'a>(&'a self, code: &'a str, addresses: &'a [String]) -> Joining<'a> {
        Box::pin(async move {
            let mut joined = match addresses.first() {
                None => self.network.join(code, None).await,
                Some(address) => self.network.join(code, Some(address)).await,
            };
            for address in addresses.iter().skip(1) {
                if !matches!(joined, Err(JoinError::Unreachable { .. } | JoinError::NoInvitation)) {
                    break;
                }
                joined = self.network.join(code, Some(address)).await;
            }
            let joined = joined.map_err(|error| join_error(&error))?;
            let adopted = {
                let (share, id) = (Arc::clone(&self.share), joined.share.id);
                tokio::task::spawn_blocking(move || share.adopt(id)).await
            };
            adopted.map_err(|error| failed(&error))?.map_err(|error| failed(&error))?;
            let mount = self.mount.lock().unwrap_or_else(PoisonError::into_inner).clone();
            Ok(Joined {
                device: DeviceRef { id: joined.device.to_string(), name: joined.name },
                mount: mount.map(|path| path.display().to_string()),
            })
        })
    }

    fn rename_device(&self, id: DeviceId, name: &str) -> Result<DeviceRef, ControlError> {
        self.known(id)?;
        self.circle.rename(id, name).map_err(|error| circle_error(&error))?;
        if id == self.circle.own() {
            self.share.set_author(name).map_err(|error| failed(&error))?;
        }
        self.events.send(Happening::DeviceRenamed { id: id.to_string(), name: name.to_owned() });
        self.known(id)
    }

    fn remove_device(&self, id: DeviceId) -> Result<DeviceRef, ControlError> {
        let device = self.known(id)?;
        self.circle.remove(id).map_err(|error| circle_error(&error))?;
        self.events
            .send(Happening::DeviceRemoved { id: device.id.clone(), name: device.name.clone() });
        Ok(device)
    }

    fn mean(&self, device: Option<&str>) -> Result<Vec<MassChange>, ControlError> {
        self.share.mean(device).map_err(|error| failed(&error))
    }

    fn events(&self) -> broadcast::Receiver<Event> {
        self.events.subscribe()
    }

    fn doctor(&self) -> DoctorReport {
        let mut checks = Vec::new();
        let port = self.port();
        let wanted = crate::network::DEFAULT_PORT;
        checks.push(if port == wanted {
            Check::ok("port", format!("listening on UDP port {port}"))
        } else {
            let hint = format!("Nothing, unless a firewall lets only UDP port {wanted} through.");
            Check::warn("port", format!("listening on UDP port {port}: {wanted} was taken"), hint)
        });
        match self.share.store.room() {
            Ok(room) if room.free_bytes < ROOM_WARN_BYTES => checks.push(Check::warn(
                "disk",
                format!("only {} MiB are free", room.free_bytes >> 20),
                "Make room on the disk under Kith's data: intake stops when it is full.",
            )),
            Ok(room) => {
                checks.push(Check::ok("disk", format!("{} GiB free", room.free_bytes >> 30)));
            }
            Err(error) => checks.push(Check::bad(
                "disk",
                kith_error_chain(&error),
                "Look at the disk under Kith's data, and at the daemon's log.",
            )),
        }
        checks.push(self.check_index());
        let now =
            SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
        checks.push(if now.as_secs() > CLOCK_FIRST_YEAR_SECONDS {
            Check::ok("clock", "the clock is set")
        } else {
            let hint = "Set the clock: the later of two changes is told by it.";
            Check::warn("clock", "the clock shows a time long past", hint)
        });
        checks.push(self.check_identity());
        for member in
            self.circle.members().into_iter().filter(|member| !member.own && !member.removed)
        {
            checks.push(match self.peers.find(member.device) {
                Some(peer) => Check::ok("device", format!("{} is connected at {}", member.name, peer.address)),
                None => Check::warn(
                    "device",
                    format!("{} is not connected", member.name),
                    "Is it on, on this network, and does Kith run there? Else try 'kith join' with --addr.",
                ),
            });
        }
        DoctorReport { checks }
    }

    fn stop(&self) {
        self.stop.send_replace(true);
    }

    fn start_again(&self) {
        self.start_again.store(true, Ordering::SeqCst);
        self.stop.send_replace(true);
    }
}

/// What whoever asked for a code is told of it.
fn invite_line(event: Option<InviteEvent>) -> InviteLine {
    match event {
        Some(InviteEvent::Joined { device, name }) => {
            InviteLine::Joined { joined: DeviceRef { id: device.to_string(), name } }
        }
        Some(InviteEvent::WrongCode { left }) => {
            InviteLine::WrongGuess { guesses_left: u32::from(left) }
        }
        Some(InviteEvent::Failed { reason }) => {
            ended(&format!("A device had the code, but did not join: {reason}."))
        }
        Some(InviteEvent::Burned) => {
            ended("The code was guessed wrong three times and is burned; nobody joined.")
        }
        Some(InviteEvent::Expired) => ended("The code has expired; nobody joined."),
        Some(InviteEvent::Withdrawn) | None => {
            ended("The invitation was withdrawn; nobody joined.")
        }
    }
}

fn ended(error: &str) -> InviteLine {
    InviteLine::Failed {
        error: error.to_owned(),
        hint: "Run 'kith invite' for a new code.".to_owned(),
    }
}

fn failed(error: &(impl std::error::Error + 'static)) -> ControlError {
    ControlError::new(
        ControlErrorKind::Internal,
        kith_error_chain(error),
        "Look at the daemon's log, and at 'kith doctor'.",
    )
}

fn network_error(error: &NetworkError) -> ControlError {
    ControlError::new(
        ControlErrorKind::Refused,
        sentence(&kith_error_chain(error)),
        "Look at 'kith devices', and at the daemon's log.",
    )
}

fn join_error(error: &JoinError) -> ControlError {
    let text = error.to_string();
    // What happened, then what to try next.
    let (what, next) = text.split_once("; ").unwrap_or((&text, ""));
    let kind = match error {
        JoinError::Code(_) => ControlErrorKind::Invalid,
        JoinError::AlreadyInCircle => ControlErrorKind::Refused,
        JoinError::Circle(_) | JoinError::Stopping => ControlErrorKind::Internal,
        _ => ControlErrorKind::Peer,
    };
    ControlError::new(kind, sentence(what), sentence(next))
}

/// A text as a sentence: with a capital and a full stop.
fn sentence(text: &str) -> String {
    let mut letters = text.chars();
    let Some(first) = letters.next() else { return String::new() };
    let mut sentence: String = first.to_uppercase().chain(letters).collect();
    if !sentence.ends_with(['.', '!', '?']) {
        sentence.push('.');
    }
    sentence
}

fn circle_error(error: &CircleError) -> ControlError {
    ControlError::new(
        ControlErrorKind::Refused,
        kith_error_chain(error),
        "List the devices with 'kith devices'.",
    )
}
