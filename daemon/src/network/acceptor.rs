//! Connections from others: who they are is looked at before anything they say is.

use std::sync::Arc;
use std::time::Duration;

use quinn::{Connection, Incoming};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::session;
use super::shared::Shared;
use crate::identity::PublicKey;
use crate::pairing::invitation::Refusal;
use crate::pairing::invite;
use crate::transport::close::{Close, explain};
use crate::transport::endpoint::{MEMBER, canonical};
use crate::transport::tls;

/// Handshakes that go on at once.
const HANDSHAKES_MAX: usize = 64;
/// From here on only those get a handshake that have shown that they are where they claim to be.
const HANDSHAKES_FREE: usize = 16;
/// How long a handshake may take.
const HANDSHAKE_WAIT: Duration = Duration::from_secs(5);

/// Takes connections until the endpoint is closed.
pub(super) async fn accept_all(shared: Arc<Shared>) {
    let slots = Arc::new(Semaphore::new(HANDSHAKES_MAX));
    while let Some(incoming) = shared.endpoint.accept().await {
        let busy = slots.available_permits() < HANDSHAKES_MAX - HANDSHAKES_FREE;
        if busy && incoming.may_retry() {
            // Fails only for one that was told to retry before, which `may_retry` rules out.
            let _ = incoming.retry();
            continue;
        }
        let Ok(slot) = slots.clone().try_acquire_owned() else {
            incoming.refuse();
            continue;
        };
        let task = shared.clone();
        shared.spawn(async move {
            let Some((connection, key, protocol)) = shake_hands(incoming).await else {
                return;
            };
            drop(slot);
            if key == task.identity.public() {
                // This device itself, at an address that was another's; or another machine.
                if protocol == tls::ALPN_MEMBER {
                    MEMBER.grant(&connection);
                    session::meet_own_key(&task, connection, false).await;
                } else {
                    Close::Stranger.close(&connection);
                }
                return;
            }
            match &protocol[..] {
                tls::ALPN_MEMBER => serve_member(&task, connection, key).await,
                tls::ALPN_PAIRING => serve_joiner(&task, connection, key).await,
                _ => Close::Protocol.close(&connection),
            }
        });
    }
}

async fn shake_hands(incoming: Incoming) -> Option<(Connection, PublicKey, Vec<u8>)> {
    let address = canonical(incoming.remote_address());
    let connecting = match incoming.accept() {
        Ok(connecting) => connecting,
        Err(error) => {
            tracing::debug!("a connection from {address} failed: {}", explain(&error));
            return None;
        }
    };
    let connection = match timeout(HANDSHAKE_WAIT, connecting).await {
        Ok(Ok(connection)) => connection,
        Ok(Err(error)) => {
            tracing::debug!("a connection from {address} failed: {}", explain(&error));
            return None;
        }
        Err(_) => return None,
    };
    let known = tls::peer_key(&connection).zip(tls::protocol(&connection));
    let Some((key, protocol)) = known else {
        Close::Stranger.close(&connection);
        return None;
    };
    Some((connection, key, protocol))
}

async fn serve_member(shared: &Arc<Shared>, connection: Connection, key: PublicKey) {
    let (device, address) = (key.device(), canonical(connection.remote_address()));
    if !shared.circle.contains(device) {
        let close = if shared.circle.is_removed(device) { Close::Removed } else { Close::Stranger };
        tracing::info!("refused a connection from {address}: {}", close.text());
        close.close(&connection);
        return;
    }
    MEMBER.grant(&connection);
    if let Err(error) = session::establish(shared, connection, device, false).await
        && !error.is_duplicate()
    {
        let name = shared.circle.name_of(device);
        tracing::info!("a connection from {name} at {address} failed: {error}");
    }
}

async fn serve_joiner(shared: &Arc<Shared>, connection: Connection, key: PublicKey) {
    let now = shared.now();
    let refusal = shared.invitations().refusal(now);
    let close = match refusal {
        None => match shared.attempts.clone().try_acquire_owned() {
            Ok(slot) => {
                invite::serve(shared, &connection, key).await;
                drop(slot);
                return;
            }
            Err(_) => Close::Busy,
        },
        Some(Refusal::Expired) => Close::Expired,
        Some(Refusal::Burned) => Close::Burned,
        Some(Refusal::None | Refusal::OtherNumber) => Close::NoInvitation,
    };
    let address = canonical(connection.remote_address());
    tracing::info!("refused to pair with {address}: {}", close.text());
    close.close(&connection);
}
