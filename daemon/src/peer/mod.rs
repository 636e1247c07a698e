//! The other devices that are connected: what each knows and lacks, and the tasks that serve it.

mod ask;
mod serve;
mod tree;

pub(crate) use ask::ask_for_chunks;

use crate::circle::Circle;
use crate::network::{Link, StreamKind};
use crate::share::Share;
use kith_control::event::Happening;
use kith_core::id::{ChunkId, DeviceId};
use kith_core::vector::VersionVector;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{Notify, Semaphore, watch};

/// How many chunks that a device asked for in vain are remembered, to be announced on arrival.
const ASKED_MAX: usize = 65_536;
/// How many requests of one device are answered at once.
const SERVED_AT_ONCE: usize = 32;

/// The connected devices.
pub(crate) struct Peers {
    circle: Arc<Circle>,
    connected: Mutex<BTreeMap<DeviceId, Arc<Peer>>>,
    /// Grows whenever something that `status` shows of them changes.
    changed: watch::Sender<u64>,
}

/// One connected device.
pub(crate) struct Peer {
    pub(crate) device: DeviceId,
    pub(crate) name: String,
    pub(crate) address: SocketAddr,
    pub(crate) connection: quinn::Connection,
    view: Mutex<View>,
    /// Wakes the task that writes to it.
    wake: Notify,
}

/// What a device said of itself, and what it asked for in vain.
#[derive(Default)]
struct View {
    absent_bytes: Option<u64>,
    knowledge: Option<VersionVector>,
    asked: BTreeSet<ChunkId>,
    to_announce: Vec<ChunkId>,
}

impl Peers {
    /// None yet, of this circle.
    pub(crate) fn new(circle: Arc<Circle>) -> Self {
        Peers { circle, connected: Mutex::default(), changed: watch::Sender::new(0) }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<DeviceId, Arc<Peer>>> {
        self.connected.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The connected devices, in the order of their ids.
    pub(crate) fn all(&self) -> Vec<Arc<Peer>> {
        self.lock().values().cloned().collect()
    }

    /// A connected device.
    pub(crate) fn find(&self, device: DeviceId) -> Option<Arc<Peer>> {
        self.lock().get(&device).cloned()
    }

    /// Tells of every change that `status` may show.
    pub(crate) fn watch(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    fn note_change(&self) {
        self.changed.send_modify(|count| *count += 1);
    }

    /// Tells those who asked for them in vain that chunks have arrived.
    pub(crate) fn announce(&self, chunks: &[ChunkId]) {
        for peer in self.all() {
            peer.announce(chunks);
        }
    }

    /// Serves one connection until it ends.
    pub(crate) async fn serve(
        self: Arc<Self>,
        link: Link,
        share: Arc<Share>,
        tell: crate::events::Events,
    ) {
        let Link { device, name, address, connection, uni, mut bi, .. } = link;
        let peer = Arc::new(Peer {
            device,
            name: name.clone(),
            address,
            connection: connection.clone(),
            view: Mutex::default(),
            wake: Notify::new(),
        });
        self.lock().insert(device, Arc::clone(&peer));
        share.fetches.source_up(device);
        tell.send(Happening::DeviceConnected {
            id: device.to_string(),
            name: name.clone(),
            address: Some(address.to_string()),
        });
        self.note_change();

        let tree = tree::exchange(
            Arc::clone(&peer),
            Arc::clone(&share),
            uni,
            Arc::clone(&self),
            tell.clone(),
        );
        let serving = async {
            let slots = Arc::new(Semaphore::new(SERVED_AT_ONCE));
            while let Some((kind, send, recv)) = bi.recv().await {
                if kind != StreamKind::Fetch {
                    continue;
                }
                let Ok(slot) = Arc::clone(&slots).acquire_owned().await else { break };
                let (share, peer) = (Arc::clone(&share), Arc::clone(&peer));
                tokio::spawn(async move {
                    if let Err(error) = serve::answer(&share, &peer, send, recv).await {
                        tracing::debug!(device = %peer.name, %error, "a request for bytes ended early");
                    }
                    drop(slot);
                });
            }
        };
        tokio::pin!(tree, serving);
        let reason = tokio::select! {
            ended = &mut tree => match ended {
                Ok(()) => "the other side ended the exchange".to_owned(),
                Err(error) => error.to_string(),
            },
            error = connection.closed() => error.to_string(),
            () = &mut serving => connection.closed().await.to_string(),
        };
        // Whatever it was, a new connection begins from what both sides have on disk.
        connection.close(quinn::VarInt::from_u32(1), clipped(&reason).as_bytes());
        share.fetches.source_down(device);
        {
            let mut connected = self.lock();
            if connected.get(&device).is_some_and(|current| Arc::ptr_eq(current, &peer)) {
                connected.remove(&device);
            } else if connected.contains_key(&device) {
                share.fetches.source_up(device);
            }
        }
        tracing::debug!(device = %name, %reason, "the exchange ended");
        tell.send(Happening::DeviceDisconnected { id: device.to_string(), name, reason });
        self.note_change();
    }
}

/// What fits a connection's last frame.
fn clipped(reason: &str) -> &str {
    let mut end = reason.len().min(200);
    while !reason.is_char_boundary(end) {
        end -= 1;
    }
    &reason[..end]
}

impl Peer {
    fn view(&self) -> MutexGuard<'_, View> {
        self.view.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many bytes it said that it lacks, if it said.
    pub(crate) fn absent_bytes(&self) -> Option<u64> {
        self.view().absent_bytes
    }

    /// What it said that it knows, if it said.
    pub(crate) fn knowledge(&self) -> Option<VersionVector> {
        self.view().knowledge.clone()
    }

    /// Remembers that it asked for a chunk that isn't here.
    fn asked_in_vain(&self, chunk: ChunkId) {
        let mut view = self.view();
        if view.asked.len() < ASKED_MAX {
            view.asked.insert(chunk);
        }
    }

    fn announce(&self, chunks: &[ChunkId]) {
        let mut view = self.view();
        let view = &mut *view;
        let before = view.to_announce.len();
        view.to_announce.extend(chunks.iter().filter(|chunk| view.asked.remove(chunk)));
        if view.to_announce.len() > before {
            self.wake.notify_one();
        }
    }
}
