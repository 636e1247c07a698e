//! The exchange of the tree with one device: its session, between two streams and the store.

use super::{Peer, Peers};
use crate::events::Events;
use crate::network::StreamKind;
use crate::share::{Origin, Share, context, new_writer};
use kith_control::event::Happening;
use kith_core::effect::Effect;
use kith_core::exchange::{ReceiveError, Session};
use kith_core::wire::{self, ANNOUNCE_CHUNKS_MAX, FRAME_HEAD_BYTES, Message, WireError};
use kith_store::StoreError;
use quinn::{RecvStream, SendStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::mpsc;

/// How often at most a device is told how much is missing here.
const STATUS_EVERY: Duration = Duration::from_millis(250);
/// How often at most the log is looked through for what is new.
const ROUND_EVERY: Duration = Duration::from_millis(10);
/// How long a device may take to open its stream.
const OPENING: Duration = Duration::from_secs(10);

/// Why the exchange with a device ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum ExchangeError {
    /// The connection broke.
    #[error("the connection broke: {0}")]
    Broken(String),
    /// It sent what can't be decoded.
    #[error("it sent a malformed message: {0}")]
    Malformed(#[from] WireError),
    /// It sent a message that isn't due.
    #[error("it broke the protocol: {0}")]
    Protocol(String),
    /// It didn't open its stream in time.
    #[error("it did not begin the exchange")]
    Silent,
    /// This device's store failed.
    #[error("this device's store failed: {0}")]
    Store(#[from] StoreError),
    /// This device goes on under a new writer; the exchange begins again.
    #[error("this device goes on under a new writer")]
    Reincarnated,
}

/// A session, used by the task that reads and the one that writes.
type SharedSession = Arc<Mutex<Session>>;

fn lock(session: &SharedSession) -> MutexGuard<'_, Session> {
    session.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Exchanges the tree with a device until the connection ends.
pub(super) async fn exchange(
    peer: Arc<Peer>,
    share: Arc<Share>,
    uni: mpsc::Receiver<(StreamKind, RecvStream)>,
    peers: Arc<Peers>,
    tell: Events,
) -> Result<(), ExchangeError> {
    let (session, hello) = {
        let (share, device) = (Arc::clone(&share), peer.device);
        // A device that has just joined may be linked before whoever asked for it hears of it.
        let circle_share = peers.circle.share().id;
        blocking(move || {
            share.adopt(circle_share)?;
            let snapshot = share.store.snapshot()?;
            let opened = Session::open(&snapshot, device)?;
            share.store.sync()?;
            Ok(opened)
        })
        .await?
    };
    let session = Arc::new(Mutex::new(session));
    let mut send = crate::network::link::open_uni(&peer.connection, StreamKind::Tree)
        .await
        .map_err(|error| ExchangeError::Broken(error.to_string()))?;
    // A small edit goes before the bytes of a large file.
    let _ = send.set_priority(1);
    write(&mut send, &hello).await?;
    let reading = read_all(&peer, &share, &session, uni, &peers, &tell);
    let writing = write_all(&peer, &share, &session, send);
    tokio::select! {
        ended = reading => ended,
        ended = writing => ended,
    }
}

async fn write_all(
    peer: &Arc<Peer>,
    share: &Arc<Share>,
    session: &SharedSession,
    mut send: SendStream,
) -> Result<(), ExchangeError> {
    let mut changed = share.watch();
    let mut told = None;
    let mut untold = true;
    let mut tick = tokio::time::interval(STATUS_EVERY);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        // What changes in quick succession goes together.
        let round = tokio::time::Instant::now() + ROUND_EVERY;
        // A change may also have come while the last status was on its way.
        untold |= changed.has_changed().unwrap_or(true);
        changed.mark_unchanged();
        loop {
            let (share, session) = (Arc::clone(share), Arc::clone(session));
            let next = blocking(move || {
                let snapshot = share.store.snapshot()?;
                let mut session = lock(&session);
                if session.is_over(&snapshot)? {
                    return Ok(Err(ExchangeError::Reincarnated));
                }
                let message = session.next(&snapshot)?;
                drop((session, snapshot));
                // Whatever leaves for another device is on this disk first.
                if message.is_some() {
                    share.store.sync()?;
                }
                Ok(Ok(message))
            })
            .await?;
            let Some(message) = next? else { break };
            write(&mut send, &message).await?;
        }
        for chunks in announcements(peer) {
            write(&mut send, &Message::Announce { chunks }).await?;
        }
        tokio::time::sleep_until(round).await;
        tokio::select! {
            changed = changed.changed() => {
                if changed.is_err() {
                    return Ok(());
                }
                untold = true;
            }
            () = peer.wake.notified() => untold = true,
            _ = tick.tick(), if untold => {
                untold = false;
                let share = Arc::clone(share);
                let status = blocking(move || share.progress()).await?;
                if told.as_ref() != Some(&status) {
                    write(&mut send, &status).await?;
                    told = Some(status);
                }
            }
        }
    }
}

fn announcements(peer: &Peer) -> Vec<Vec<kith_core::id::ChunkId>> {
    let chunks = std::mem::take(&mut peer.view().to_announce);
    chunks.chunks(ANNOUNCE_CHUNKS_MAX).map(<[_]>::to_vec).collect()
}

async fn read_all(
    peer: &Arc<Peer>,
    share: &Arc<Share>,
    session: &SharedSession,
    mut uni: mpsc::Receiver<(StreamKind, RecvStream)>,
    peers: &Peers,
    tell: &Events,
) -> Result<(), ExchangeError> {
    let opened = tokio::time::timeout(OPENING, async {
        while let Some((kind, recv)) = uni.recv().await {
            if kind == StreamKind::Tree {
                return Some(recv);
            }
        }
        None
    });
    let Ok(Some(mut recv)) = opened.await else { return Err(ExchangeError::Silent) };
    while let Some(message) = read(&mut recv).await? {
        match &message {
            Message::Status { absent_bytes, knowledge, .. } => {
                let mut view = peer.view();
                view.absent_bytes = Some(*absent_bytes);
                view.knowledge = Some(knowledge.clone());
            }
            Message::Knowledge { knowledge, .. } | Message::Forgotten { knowledge, .. } => {
                peer.view().knowledge = Some(knowledge.clone());
            }
            Message::Announce { chunks } => share.fetches.announced(peer.device, chunks),
            Message::Hello { .. } | Message::Batch { .. } => {}
        }
        let learnt = matches!(
            message,
            Message::Batch { .. } | Message::Knowledge { .. } | Message::Forgotten { .. }
        );
        let changes = match &message {
            Message::Batch { registers, .. } => registers.len() as u64,
            _ => 0,
        };
        let effects = {
            let (share, session) = (Arc::clone(share), Arc::clone(session));
            let received = tokio::task::spawn_blocking(move || {
                let mut session = lock(&session);
                share.commit(&Origin::Elsewhere, |tx| {
                    let effects = session.receive(tx, context(), new_writer(), message)?;
                    Ok::<_, ReceiveError<StoreError>>((effects.clone(), effects))
                })
            });
            received.await.map_err(|error| ExchangeError::Broken(error.to_string()))??
        };
        if effects.contains(&Effect::Reincarnated) {
            return Err(ExchangeError::Reincarnated);
        }
        if changes > 0 && !effects.is_empty() {
            tell.send(Happening::ChangesReceived {
                share: peers.circle.share().name,
                from: peer.name.clone(),
                changes,
            });
        }
        // What it said may let more be sent to it, and changes what `status` shows; what was learnt
        // is told to the others.
        if learnt {
            share.announce();
        }
        peer.wake.notify_one();
        peers.note_change();
    }
    Ok(())
}

impl From<ReceiveError<StoreError>> for ExchangeError {
    fn from(error: ReceiveError<StoreError>) -> Self {
        match error {
            ReceiveError::Storage(error) => ExchangeError::Store(error),
            other => ExchangeError::Protocol(other.to_string()),
        }
    }
}

async fn write(send: &mut SendStream, message: &Message) -> Result<(), ExchangeError> {
    let frame = wire::encode_frame(message);
    let written = send.write_chunk(frame.into()).await;
    written.map_err(|error| ExchangeError::Broken(error.to_string()))
}

/// The next message; `None` at the stream's end.
async fn read(recv: &mut RecvStream) -> Result<Option<Message>, ExchangeError> {
    loop {
        let broken = |error: quinn::ReadExactError| ExchangeError::Broken(error.to_string());
        let mut head = [0; FRAME_HEAD_BYTES];
        match recv.read_exact(&mut head).await {
            Ok(()) => {}
            Err(quinn::ReadExactError::FinishedEarly(0)) => return Ok(None),
            Err(error) => return Err(broken(error)),
        }
        let mut frame = vec![0; wire::frame_len(head)?];
        recv.read_exact(&mut frame).await.map_err(broken)?;
        // A kind of message that this version doesn't know is passed over.
        if let Some(message) = wire::decode(&frame)? {
            return Ok(Some(message));
        }
    }
}

/// Runs what uses the disk where it may wait.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, ExchangeError> {
    let done = tokio::task::spawn_blocking(work).await;
    Ok(done.map_err(|error| ExchangeError::Broken(error.to_string()))??)
}
