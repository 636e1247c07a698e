//! The network: links to the circle's devices, kept up by themselves, and pairing with new ones.

mod acceptor;
pub(crate) mod dialer;
pub mod link;
mod links;
mod session;
pub(crate) mod shared;
mod twins;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use kith_core::clock::WallMs;
use kith_core::id::DeviceId;
use tokio::task::spawn_blocking;
use tokio::time::{sleep, timeout};

pub use self::link::{Link, StreamKind};
use self::shared::{Parts, Shared};
use crate::circle::{Circle, Member};
use crate::discovery::{Discovery, own_addresses};
use crate::identity::Identity;
use crate::pairing::code::Code;
use crate::pairing::invitation::Invitation;
pub use crate::pairing::invitation::InviteEvent;
use crate::pairing::join;
pub use crate::pairing::join::{JoinError, Joined};
use crate::transport::close::Close;
pub use crate::transport::endpoint::Port;
use crate::transport::endpoint::{self, EndpointError, canonical};

/// The UDP port that is used unless it is taken.
pub const DEFAULT_PORT: u16 = 5484;

/// Pairings that go on at once.
const ATTEMPTS_MAX: usize = 2;
/// How often this device looks which addresses it has, where nothing else tells it.
const ADDRESS_CHECK: Duration = Duration::from_secs(30);
/// How long saying goodbye may take, by mDNS and to the links.
const GOODBYE: Duration = Duration::from_millis(300);

/// Tells the time: milliseconds since 1970.
pub type Clock = Arc<dyn Fn() -> WallMs + Send + Sync>;

/// What a network is to be.
#[derive(Clone)]
pub struct NetworkConfig {
    /// This device.
    pub identity: Arc<Identity>,
    /// Whom it trusts.
    pub circle: Arc<Circle>,
    /// The UDP port to listen on.
    pub port: Port,
    /// Whether to find and be found by mDNS.
    pub discovery: bool,
    /// The time, for invitations.
    pub clock: Clock,
}

impl NetworkConfig {
    /// A network with mDNS and the system's clock.
    #[must_use]
    pub fn new(identity: Arc<Identity>, circle: Arc<Circle>, port: Port) -> NetworkConfig {
        let clock = Arc::new(|| {
            let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            WallMs(u64::try_from(since.as_millis()).unwrap_or(0))
        });
        NetworkConfig { identity, circle, port, discovery: true, clock }
    }
}

/// Who is told what happens. The calls come from the network's own thread and must not block;
/// those about one device come in order.
pub trait Peers: Send + Sync {
    /// A member is linked. Until `disconnected`, this is the one connection to it.
    fn connected(&self, link: Link);
    /// The link is over.
    fn disconnected(&self, device: DeviceId, reason: String);
    /// A device is a member that wasn't, by this device's invitation or another's.
    fn joined(&self, member: Member);
    /// There is a sign that another machine has this device's identity.
    fn cloned(&self);
    /// Names, addresses, roles or members have changed.
    fn member_changed(&self);
}

/// A running network. Clones are the same one.
#[derive(Clone)]
pub struct Network {
    shared: Arc<Shared>,
}

/// Starts the network on the runtime from which it is called. A single-threaded one is fastest.
///
/// # Errors
/// If there is no UDP socket to be had. Without mDNS it starts all the same, and says so in the log.
pub async fn start(config: NetworkConfig, peers: Arc<dyn Peers>) -> Result<Network, NetworkError> {
    let NetworkConfig { identity, circle, port, discovery, clock } = config;
    let endpoint = endpoint::open(&identity, port)?;
    let port = endpoint.local_addr().map_err(EndpointError::Socket)?.port();
    let discovery = if discovery {
        Discovery::start(identity.device(), port)
            .inspect_err(|error| tracing::warn!("devices won't find one another: {error}"))
            .ok()
    } else {
        None
    };
    let mut instance = [0; 8];
    getrandom::fill(&mut instance).map_err(|_| NetworkError::NoRandomness)?;
    let shared = Arc::new(Shared::new(Parts {
        identity,
        circle,
        peers,
        endpoint,
        discovery,
        clock,
        instance: u64::from_le_bytes(instance),
        attempts: ATTEMPTS_MAX,
    }));
    shared.spawn(acceptor::accept_all(shared.clone()));
    shared.spawn(dialer::dial_all(shared.clone()));
    shared.spawn(watch_circle(shared.clone()));
    shared.spawn(watch_addresses(shared.clone()));
    shared.spawn(watch_invitation(shared.clone()));
    shared.spawn(browse(shared.clone()));
    Ok(Network { shared })
}

impl Network {
    /// Opens an invitation. One that was open before is withdrawn.
    ///
    /// # Errors
    /// If the system gives no random numbers, or this device was removed from its circle.
    pub fn invite(&self) -> Result<Invitation, NetworkError> {
        if self.shared.circle.is_removed(self.shared.identity.device()) {
            return Err(NetworkError::Removed);
        }
        let code = Code::generate().ok_or(NetworkError::NoRandomness)?;
        let (_, invitation) = self.shared.invitations().open(code, self.shared.now());
        self.shared.invitation_changed.notify_one();
        Ok(invitation)
    }

    /// Withdraws the invitation that is open, if one is. Says whether one was.
    #[must_use = "there may have been none"]
    pub fn withdraw_invitation(&self) -> bool {
        let was_open = self.shared.invitations().withdraw(None);
        self.shared.invitation_changed.notify_one();
        was_open
    }

    /// Whether an invitation is open.
    #[must_use]
    pub fn is_inviting(&self) -> bool {
        let now = self.shared.now();
        self.shared.invitations().is_open(now)
    }

    /// Joins the circle of the device that shows `code`, which is looked for by mDNS, or at
    /// `address`: a host or address, with or without a port.
    ///
    /// # Errors
    /// In any case in which nothing was joined; the error says what to try next.
    pub async fn join(&self, code: &str, address: Option<&str>) -> Result<Joined, JoinError> {
        let code = code.parse()?;
        let (shared, address) = (self.shared.clone(), address.map(str::to_owned));
        // On the network's own runtime, whichever the caller's is.
        let task = async move { join::join(&shared, &code, address.as_deref()).await };
        self.shared.runtime.spawn(task).await.unwrap_or(Err(JoinError::Stopping))
    }

    /// The socket's own address. Its port is the one that others reach.
    ///
    /// # Errors
    /// As the system reports them.
    pub fn local_addr(&self) -> std::io::Result<SocketAddr> {
        self.shared.endpoint.local_addr().map(canonical)
    }

    /// Where others may reach this device.
    #[must_use]
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.local_addr().map(|address| own_addresses(address.port())).unwrap_or_default()
    }

    /// Whether there is a link to `device`.
    #[must_use]
    pub fn is_linked(&self, device: DeviceId) -> bool {
        self.shared.links().is_linked(device)
    }

    /// Tries to find members at `address` too, until the network stops.
    pub fn connect_hint(&self, address: SocketAddr) {
        self.shared.hint(address);
    }

    /// Ends all links and stops, within a second whatever the others do. The links' ends aren't
    /// told to [`Peers`].
    pub async fn shutdown(&self) {
        let shared = &self.shared;
        shared.closing.send_replace(true);
        shared.endpoint.close(Close::Stopping.code(), Close::Stopping.text().as_bytes());
        if let Some(discovery) = &shared.discovery {
            let _ = timeout(GOODBYE, discovery.stop()).await;
        }
        let _ = timeout(GOODBYE, shared.endpoint.wait_idle()).await;
    }
}

/// Tells of changes of the circle, and ends the links to those who were removed.
async fn watch_circle(shared: Arc<Shared>) {
    let mut changes = shared.circle.subscribe();
    while changes.changed().await.is_ok() {
        shared.close_removed();
        shared.peers.member_changed();
    }
}

/// Keeps the circle informed of this device's own addresses.
async fn watch_addresses(shared: Arc<Shared>) {
    let events = shared.discovery.as_ref().and_then(|discovery| discovery.monitor().ok());
    let Ok(port) = shared.endpoint.local_addr().map(|address| address.port()) else { return };
    let mut known = Vec::new();
    loop {
        let circle = shared.circle.clone();
        let looked = spawn_blocking(move || {
            let addresses = own_addresses(port);
            let stated = circle.state_addresses(&addresses);
            (addresses, stated)
        });
        let Ok((addresses, stated)) = looked.await else { return };
        if let Err(error) = stated {
            tracing::debug!("own addresses: {error}");
        }
        if addresses != known {
            known = addresses;
            shared.wake_all();
        }
        let interface_changed = async {
            use mdns_sd::DaemonEvent::{IpAdd, IpDel};
            let Some(events) = &events else { return std::future::pending().await };
            loop {
                match events.recv_async().await {
                    Ok(IpAdd(_) | IpDel(_)) => return,
                    Ok(_) => {}
                    Err(_) => return std::future::pending().await,
                }
            }
        };
        tokio::select! {
            () = interface_changed => {}
            () = sleep(ADDRESS_CHECK) => {}
        }
    }
}

/// Announces whether an invitation is open, and closes it when its time is over.
async fn watch_invitation(shared: Arc<Shared>) {
    let mut announced = false;
    loop {
        let now = shared.now();
        let expires = shared.invitations().expire(now);
        let open = expires.is_some();
        if open != announced {
            announced = open;
            if let Some(discovery) = &shared.discovery
                && let Err(error) = discovery.announce(open)
            {
                tracing::warn!("the invitation isn't announced: {error}");
            }
        }
        let over = async {
            match expires {
                Some(expires) => sleep(Duration::from_millis(expires.0 - now.0)).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = shared.invitation_changed.notified() => {}
            () = over => {}
        }
    }
}

/// Takes note of who is seen by mDNS.
async fn browse(shared: Arc<Shared>) {
    let Some(discovery) = &shared.discovery else { return };
    let own = discovery.own_name();
    let mut meeting = shared.runtime.spawn(std::future::ready(()));
    loop {
        let events = match discovery.browse() {
            Ok(events) => events,
            Err(error) => {
                tracing::warn!("devices aren't found any more: {error}");
                return;
            }
        };
        while let Ok(event) = events.recv_async().await {
            let seen = shared.sightings().note(&event, &own);
            let Some(beacon) = seen else { continue };
            shared.seen.send_modify(|count| *count += 1);
            if beacon.is_of(shared.identity.device()) && meeting.is_finished() {
                meeting = shared.runtime.spawn(dialer::meet_twin(shared.clone()));
            }
            // Anybody can be seen. Only a member is a reason to dial.
            if shared.circle.others().into_iter().any(|device| beacon.is_of(device)) {
                shared.wake_all();
            }
        }
        // A receiver that lags is dropped: look again.
        sleep(GOODBYE).await;
    }
}

/// Why there is no network, or no invitation.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// No endpoint.
    #[error(transparent)]
    Endpoint(#[from] EndpointError),
    /// The system gives no random numbers.
    #[error("the system gives no random numbers")]
    NoRandomness,
    /// Who was removed can't invite.
    #[error("this device was removed from its circle; it can invite nobody")]
    Removed,
}

#[cfg(test)]
mod tests;
