//! Answers one request for chunks.

use super::Peer;
use crate::share::Share;
use kith_core::id::ChunkId;
use kith_core::wire::{
    FETCH_REQUEST_MAX_BYTES, FRAME_HEAD_BYTES, FetchHead, FetchRequest, WireError,
};
use kith_store::StoreError;
use quinn::{RecvStream, SendStream};
use std::sync::Arc;
use std::time::Duration;

/// How long a device may take to say what it wants.
const ASKING: Duration = Duration::from_secs(10);
/// How many bytes are read from the disk at a time.
const STEP_BYTES: u32 = 1 << 20;

/// Why a request wasn't answered to its end.
#[derive(Debug, thiserror::Error)]
pub(super) enum ServeError {
    /// It didn't arrive in time.
    #[error("the request did not arrive in time")]
    Slow,
    /// The stream broke.
    #[error("the stream broke: {0}")]
    Broken(String),
    /// It can't be decoded.
    #[error(transparent)]
    Malformed(#[from] WireError),
    /// It is longer than any request.
    #[error("a request of {0} bytes is out of bounds")]
    Oversized(usize),
    /// The store failed.
    #[error("this device's store failed: {0}")]
    Store(#[from] StoreError),
}

/// Reads a request and answers it, chunk by chunk, each verified before it leaves.
pub(super) async fn answer(
    share: &Arc<Share>,
    peer: &Arc<Peer>,
    mut send: SendStream,
    mut recv: RecvStream,
) -> Result<(), ServeError> {
    let request = tokio::time::timeout(ASKING, read_request(&mut recv)).await;
    let request = request.map_err(|_| ServeError::Slow)??;
    // Streams of one priority share the link; what somebody waits for goes before the rest.
    let _ = send.set_priority(if request.foreground { 0 } else { -1 });
    let mut next = 0;
    while next < request.chunks.len() {
        let from = next;
        let mut step_bytes = 0;
        while next < request.chunks.len() && (next == from || step_bytes < STEP_BYTES) {
            step_bytes += request.chunks[next].1;
            next += 1;
        }
        let wanted: Vec<(ChunkId, u32)> = request.chunks[from..next].to_vec();
        let (share, peer) = (Arc::clone(share), Arc::clone(peer));
        let found = tokio::task::spawn_blocking(move || {
            let found = wanted.iter().map(|(chunk, _)| find(&share, &peer, *chunk));
            found.collect::<Result<Vec<_>, _>>()
        });
        let found = found.await.map_err(|error| ServeError::Broken(error.to_string()))??;
        for (offset, bytes) in found.into_iter().enumerate() {
            let place = from + offset;
            let (_, len_bytes) = request.chunks[place];
            let bytes = bytes.filter(|bytes| bytes.len() == len_bytes as usize);
            let index = u16::try_from(place).expect("a request has at most 512 chunks");
            let head = FetchHead { index, len_bytes: bytes.as_ref().map(|_| len_bytes) };
            let broken = |error: quinn::WriteError| ServeError::Broken(error.to_string());
            send.write_all(&head.encode()).await.map_err(broken)?;
            if let Some(bytes) = bytes {
                send.write_chunk(bytes.into()).await.map_err(broken)?;
            }
        }
    }
    send.finish().map_err(|error| ServeError::Broken(error.to_string()))
}

/// A chunk's bytes, or `None` and a note that they are to be announced.
fn find(share: &Share, peer: &Peer, chunk: ChunkId) -> Result<Option<Vec<u8>>, StoreError> {
    let found = share.store.chunk(chunk)?;
    if found.is_some() {
        return Ok(found);
    }
    // What arrives between two looks is announced, or found by the second.
    peer.asked_in_vain(chunk);
    share.store.chunk(chunk)
}

async fn read_request(recv: &mut RecvStream) -> Result<FetchRequest, ServeError> {
    let broken = |error: quinn::ReadExactError| ServeError::Broken(error.to_string());
    let mut head = [0; FRAME_HEAD_BYTES];
    recv.read_exact(&mut head).await.map_err(broken)?;
    let len = u32::from_le_bytes(head) as usize;
    if len > FETCH_REQUEST_MAX_BYTES {
        return Err(ServeError::Oversized(len));
    }
    let mut frame = vec![0; len];
    recv.read_exact(&mut frame).await.map_err(broken)?;
    Ok(FetchRequest::decode(&frame)?)
}
