//! Asks other devices for the chunks that are missing here.

use super::{Peer, Peers};
use crate::network::StreamKind;
use crate::network::link::open_bi;
use crate::share::{Planned, Share};
use kith_core::codec::DecodeError;
use kith_core::id::ChunkId;
use kith_core::wire::{FETCH_HEAD_BYTES, FetchHead, FetchRequest};
use kith_store::AddError;
use quinn::RecvStream;
use std::sync::Arc;
use std::time::Duration;

/// How long an answer may make no progress.
const STALLED: Duration = Duration::from_secs(8);
/// How often requests that are overdue are looked for.
const OVERDUE_EVERY: Duration = Duration::from_secs(1);
/// How many bytes are kept before they are written to the disk together.
const STEP_BYTES: usize = 1 << 20;

/// Why a request wasn't answered.
#[derive(Debug, thiserror::Error)]
enum AskError {
    /// The stream broke or made no progress.
    #[error("the answer broke off: {0}")]
    Broken(String),
    /// It isn't an answer to what was asked.
    #[error("it sent a malformed answer: {0}")]
    Malformed(#[from] DecodeError),
    /// The bytes of a chunk don't match its name.
    #[error("it sent wrong bytes")]
    Wrong(ChunkId),
    /// This device can't store them.
    #[error("the bytes can't be stored: {0}")]
    Store(String),
}

/// Sends what the plan says, for as long as the daemon runs.
pub(crate) async fn ask_for_chunks(share: Arc<Share>, peers: Arc<Peers>) {
    let mut tick = tokio::time::interval(OVERDUE_EVERY);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        for planned in share.fetches.plan() {
            let Some(peer) = peers.find(planned.source) else {
                share.fetches.ended(&planned);
                continue;
            };
            tokio::spawn(ask(Arc::clone(&share), Arc::clone(&peers), peer, planned));
        }
        tokio::select! {
            () = share.fetches.work() => {}
            _ = tick.tick() => {}
        }
    }
}

async fn ask(share: Arc<Share>, peers: Arc<Peers>, peer: Arc<Peer>, planned: Planned) {
    match exchange(&share, &peers, &peer, &planned).await {
        Ok(()) => {}
        Err(error @ (AskError::Wrong(_) | AskError::Malformed(_))) => {
            tracing::warn!(device = %peer.name, %error, "the connection is closed");
            if let AskError::Wrong(chunk) = error {
                share.fetches.wrong(&planned, chunk);
            }
            peer.connection.close(quinn::VarInt::from_u32(2), b"wrong bytes");
        }
        Err(error) => {
            tracing::debug!(device = %peer.name, %error, "a request for bytes failed");
        }
    }
    // What it didn't answer is asked for again, here or elsewhere.
    share.fetches.ended(&planned);
}

async fn exchange(
    share: &Arc<Share>,
    peers: &Arc<Peers>,
    peer: &Peer,
    planned: &Planned,
) -> Result<(), AskError> {
    let request = FetchRequest { chunks: planned.chunks.clone(), foreground: planned.foreground };
    let broken = |error: &dyn std::fmt::Display| AskError::Broken(error.to_string());
    let (mut send, mut recv) =
        open_bi(&peer.connection, StreamKind::Fetch).await.map_err(|error| broken(&error))?;
    let _ = send.set_priority(1);
    send.write_all(&request.encode_frame()).await.map_err(|error| broken(&error))?;
    send.finish().map_err(|error| broken(&error))?;

    let mut arrived: Vec<(ChunkId, Vec<u8>)> = Vec::new();
    let mut arrived_bytes = 0;
    for _ in 0..request.chunks.len() {
        let mut head = [0; FETCH_HEAD_BYTES];
        read(&mut recv, &mut head).await?;
        let head = FetchHead::decode(head, &request)?;
        let (chunk, _) = request.chunks[usize::from(head.index)];
        let Some(len_bytes) = head.len_bytes else {
            share.fetches.absent(planned, chunk);
            continue;
        };
        let mut bytes = vec![0; len_bytes as usize];
        read(&mut recv, &mut bytes).await?;
        arrived_bytes += bytes.len();
        arrived.push((chunk, bytes));
        if arrived_bytes >= STEP_BYTES {
            store(share, peers, planned, std::mem::take(&mut arrived)).await?;
            arrived_bytes = 0;
        }
    }
    store(share, peers, planned, arrived).await
}

async fn read(recv: &mut RecvStream, bytes: &mut [u8]) -> Result<(), AskError> {
    match tokio::time::timeout(STALLED, recv.read_exact(bytes)).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(AskError::Broken(error.to_string())),
        Err(_) => Err(AskError::Broken("no progress".to_owned())),
    }
}

async fn store(
    share: &Arc<Share>,
    peers: &Arc<Peers>,
    planned: &Planned,
    arrived: Vec<(ChunkId, Vec<u8>)>,
) -> Result<(), AskError> {
    if arrived.is_empty() {
        return Ok(());
    }
    let keep = Arc::clone(share);
    let added = tokio::task::spawn_blocking(move || {
        let chunks: Vec<(ChunkId, &[u8])> =
            arrived.iter().map(|(chunk, bytes)| (*chunk, bytes.as_slice())).collect();
        keep.store.add_chunks(&chunks)?;
        Ok::<_, AddError>(arrived.into_iter().map(|(chunk, _)| chunk).collect::<Vec<_>>())
    });
    let chunks = match added.await.map_err(|error| AskError::Broken(error.to_string()))? {
        Ok(chunks) => chunks,
        Err(AddError::Wrong(chunk)) => return Err(AskError::Wrong(chunk)),
        Err(AddError::Store(error)) => {
            share.fetches.disk_failed(&error);
            return Err(AskError::Store(error.to_string()));
        }
    };
    share.fetches.arrived(planned, &chunks);
    peers.announce(&chunks);
    Ok(())
}
