//! What all tasks of the network share.

use std::collections::BTreeSet;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kith_core::clock::WallMs;
use kith_core::id::DeviceId;
use quinn::Endpoint;
use tokio::runtime::Handle;
use tokio::sync::{Notify, Semaphore, watch};

use super::links::{Candidate, Links};
use super::{Clock, Link, Peers};
use crate::circle::Circle;
use crate::discovery::{Discovery, Sightings};
use crate::identity::Identity;
use crate::pairing::invitation::Invitations;
use crate::transport::close::Close;

/// The most addresses that people give by hand.
const HINTS_MAX: usize = 16;

/// The state of a network. Locks are held for a few instructions, and never over the network.
pub(crate) struct Shared {
    pub(crate) identity: Arc<Identity>,
    pub(crate) circle: Arc<Circle>,
    pub(crate) peers: Arc<dyn Peers>,
    pub(crate) endpoint: Endpoint,
    pub(crate) discovery: Option<Discovery>,
    /// Another number after each start.
    pub(crate) instance: u64,
    /// Pairings that may go on at once.
    pub(crate) attempts: Arc<Semaphore>,
    /// Told when the invitation was opened or closed.
    pub(crate) invitation_changed: Notify,
    pub(super) clock: Clock,
    pub(super) runtime: Handle,
    /// True once the network is to stop.
    pub(super) closing: watch::Sender<bool>,
    /// Counts changes of the links.
    pub(super) links_changed: watch::Sender<u64>,
    /// Counts reasons to dial at once whoever isn't linked.
    pub(super) wake: watch::Sender<u64>,
    /// Counts sightings.
    pub(crate) seen: watch::Sender<u64>,
    links: Mutex<Links>,
    /// Held while links change and that is told, so that it is told in order.
    announcing: Mutex<()>,
    sightings: Mutex<Sightings>,
    hints: Mutex<Vec<SocketAddr>>,
    /// Who was taken in since the start: they dial first.
    guests: Mutex<BTreeSet<DeviceId>>,
    invitations: Mutex<Invitations>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a network is made of.
pub(super) struct Parts {
    pub(super) identity: Arc<Identity>,
    pub(super) circle: Arc<Circle>,
    pub(super) peers: Arc<dyn Peers>,
    pub(super) endpoint: Endpoint,
    pub(super) discovery: Option<Discovery>,
    pub(super) clock: Clock,
    pub(super) instance: u64,
    /// Pairings that may go on at once.
    pub(super) attempts: usize,
}

impl Shared {
    pub(super) fn new(parts: Parts) -> Shared {
        Shared {
            identity: parts.identity,
            circle: parts.circle,
            peers: parts.peers,
            endpoint: parts.endpoint,
            discovery: parts.discovery,
            instance: parts.instance,
            attempts: Arc::new(Semaphore::new(parts.attempts)),
            invitation_changed: Notify::new(),
            clock: parts.clock,
            runtime: Handle::current(),
            closing: watch::Sender::new(false),
            links_changed: watch::Sender::new(0),
            wake: watch::Sender::new(0),
            seen: watch::Sender::new(0),
            links: Mutex::default(),
            announcing: Mutex::default(),
            sightings: Mutex::default(),
            hints: Mutex::default(),
            guests: Mutex::default(),
            invitations: Mutex::new(Invitations::new()),
        }
    }

    /// Starts a task that ends with the network.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let mut closing = self.closing.subscribe();
        self.runtime.spawn(async move {
            tokio::select! {
                _ = closing.wait_for(|closing| *closing) => {}
                () = task => {}
            }
        });
    }

    /// Whether the network stops.
    pub(crate) fn is_closing(&self) -> bool {
        *self.closing.borrow()
    }

    pub(crate) fn now(&self) -> WallMs {
        (self.clock)()
    }

    pub(super) fn links(&self) -> MutexGuard<'_, Links> {
        lock(&self.links)
    }

    pub(crate) fn sightings(&self) -> MutexGuard<'_, Sightings> {
        lock(&self.sightings)
    }

    pub(crate) fn invitations(&self) -> MutexGuard<'_, Invitations> {
        lock(&self.invitations)
    }

    /// Takes a connection into use and tells of the link, and of the end of the one before.
    pub(super) fn admit(&self, candidate: Candidate, link: Link) -> Result<(), ()> {
        let device = link.device;
        let announcing = lock(&self.announcing);
        let admitted = self.links().admit(self.identity.device(), device, candidate);
        let replaced = admitted.inspect_err(|()| {
            // It may have been the proof that there are two of it, which the other one is told.
            self.links_changed.send_modify(|count| *count += 1);
        })?;
        if let Some(old) = replaced {
            Close::Replaced.close(&old);
            self.peers.disconnected(device, Close::Replaced.text().to_owned());
        }
        tracing::info!("connected to {} at {}", link.name, link.address);
        let connection = link.connection.clone();
        self.peers.connected(link);
        drop(announcing);
        // It may have been removed while it said hello.
        if !self.circle.contains(device) {
            Close::Removed.close(&connection);
        }
        self.links_changed.send_modify(|count| *count += 1);
        Ok(())
    }

    /// Tells of a link's end, unless another has taken its place.
    pub(super) fn ended(&self, device: DeviceId, id: u64, reason: &str) {
        let announcing = lock(&self.announcing);
        if self.links().drop_ended(device, id) {
            tracing::info!("disconnected from {}: {reason}", self.circle.name_of(device));
            self.peers.disconnected(device, reason.to_owned());
        }
        drop(announcing);
        self.links_changed.send_modify(|count| *count += 1);
    }

    /// Closes the links to all who aren't members any more.
    pub(super) fn close_removed(&self) {
        for (device, connection) in self.links().iter() {
            if !self.circle.contains(device) {
                Close::Removed.close(connection);
            }
        }
    }

    /// Remembers an address that somebody gave by hand, until the network stops.
    pub(super) fn hint(&self, address: SocketAddr) {
        let mut hints = lock(&self.hints);
        hints.retain(|known| *known != address);
        hints.insert(0, address);
        hints.truncate(HINTS_MAX);
        drop(hints);
        self.wake_all();
    }

    /// Where a member may be reached, the likeliest first.
    pub(super) fn candidates(&self, device: DeviceId) -> Vec<SocketAddr> {
        let mut all = self.sightings().addresses_of(device);
        let member = self.circle.member(device);
        all.extend(member.map(|member| member.addresses).unwrap_or_default());
        all.extend(lock(&self.hints).iter().copied());
        let mut addresses = Vec::with_capacity(all.len());
        for address in all {
            if !addresses.contains(&address) {
                addresses.push(address);
            }
        }
        addresses
    }

    /// Lets a device that is about to be taken in dial first.
    pub(crate) fn expect_guest(&self, device: DeviceId) {
        lock(&self.guests).insert(device);
    }

    pub(super) fn is_guest(&self, device: DeviceId) -> bool {
        lock(&self.guests).contains(&device)
    }

    /// Dials at once whoever isn't linked.
    pub(super) fn wake_all(&self) {
        self.wake.send_modify(|count| *count += 1);
    }
}
