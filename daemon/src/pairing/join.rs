//! The joiner's side of pairing.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use kith_core::id::{DeviceId, ShareId};
use quinn::{Connection, ConnectionError};
use tokio::net::lookup_host;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep_until, timeout};

use super::code::{Code, CodeError};
use super::exchange::{
    Answer, EARLY_MAX, Farewell, Hello, Introduction, LATE_MAX, No, Part, Parties, Proof,
    Reception, Sealed, Start,
};
use super::invite::to_line;
use crate::circle::statement::{CircleId, to_name};
use crate::circle::{CircleError, CircleShare, Welcome};
use crate::network::DEFAULT_PORT;
use crate::network::dialer::dial;
use crate::network::shared::Shared;
use crate::transport::close::{Close, explain};
use crate::transport::endpoint::{canonical, pairing_client};
use crate::transport::frame::{self, FrameError};
use crate::transport::tls;

/// How long the other device may take for one attempt.
const ATTEMPT_WAIT: Duration = Duration::from_secs(15);
/// How long devices are looked for by mDNS.
const SEARCH_WAIT: Duration = Duration::from_secs(12);
/// After so long devices are asked too that don't say that an invitation is open: they know why.
const SHY_AFTER: Duration = Duration::from_secs(4);
/// Devices to which the code is shown wrong before the search is given up: each may be somebody
/// who guesses.
const WRONG_MAX: u32 = 3;
/// The weight of an error after which nobody else is waited for.
const ANSWER: u8 = 4;
/// The most devices that are asked in a search.
const ASKED_MAX: usize = 64;

/// A circle that was joined.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Joined {
    /// The device that took this one in.
    pub device: DeviceId,
    /// Its name.
    pub name: String,
    /// The circle's share, which this device has from now on.
    pub share: CircleShare,
}

/// Why nothing was joined.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// The text is no code.
    #[error(transparent)]
    Code(#[from] CodeError),
    /// A device that shares a circle with others leaves it first.
    #[error(
        "this device is in a circle with others already; remove it there first, or begin with \
         another --home"
    )]
    AlreadyInCircle,
    /// Nobody was found.
    #[error(
        "no device with an open invitation was found on this network; check that both are on \
         the same network, or add --addr HOST:PORT as shown by `kith invite`"
    )]
    NotFound,
    /// The address leads nowhere.
    #[error("can't reach {address}: {reason}; check the address, and that Kith runs there")]
    Unreachable {
        /// The address that was given.
        address: String,
        /// Why.
        reason: String,
    },
    /// Nobody is invited there.
    #[error("no invitation is open there; run `kith invite` there and use the code it prints")]
    NoInvitation,
    /// The code is another's.
    #[error(
        "that is not the code; compare it with the other device's screen (guesses left: {left})"
    )]
    WrongCode {
        /// Wrong guesses until the code is burned.
        left: u8,
    },
    /// The code was guessed wrong too often.
    #[error("the code is void after three wrong guesses; run `kith invite` again for a new one")]
    Burned,
    /// The code is too old.
    #[error("the code has expired; run `kith invite` again for a new one")]
    Expired,
    /// Others are joining at this moment.
    #[error("the other device is busy pairing; try again in a moment")]
    Busy,
    /// The other device couldn't.
    #[error("the other device couldn't take this one in: {0}")]
    Refused(String),
    /// The other side is not what it seems, or the line broke.
    #[error("pairing broke off: {0}; run `kith invite` again for a new code")]
    Broken(String),
    /// This device couldn't keep what it joined.
    #[error(transparent)]
    Circle(CircleError),
    /// The daemon stops.
    #[error("Kith stops; nothing was joined")]
    Stopping,
}

impl JoinError {
    /// How much it tells of the device that was meant. Anybody may answer a search: who has an
    /// invitation with the code's number was most likely meant, who breaks off is likely another.
    fn weight(&self) -> u8 {
        match self {
            JoinError::NotFound => 0,
            JoinError::Unreachable { .. } => 1,
            JoinError::NoInvitation => 2,
            JoinError::Broken(_) | JoinError::Busy => 3,
            _ => ANSWER,
        }
    }

    fn from_connection(error: &ConnectionError) -> JoinError {
        match Close::by_peer(error) {
            Some(Close::NoInvitation) => JoinError::NoInvitation,
            Some(Close::Expired) => JoinError::Expired,
            Some(Close::Burned) => JoinError::Burned,
            Some(Close::Busy) => JoinError::Busy,
            _ => JoinError::Broken(explain(error)),
        }
    }
}

/// Joins by `code`, at `address` or wherever mDNS finds the device.
pub(crate) async fn join(
    shared: &Arc<Shared>,
    code: &Code,
    address: Option<&str>,
) -> Result<Joined, JoinError> {
    if !shared.circle.is_alone() {
        return Err(JoinError::AlreadyInCircle);
    }
    match address {
        Some(address) => {
            let unreachable =
                |reason| JoinError::Unreachable { address: address.to_owned(), reason };
            let found = resolve(address).await.map_err(unreachable)?;
            attempt(shared, code, found).await.map_err(|error| match error {
                JoinError::Unreachable { reason, .. } => unreachable(reason),
                other => other,
            })
        }
        None => search(shared, code).await,
    }
}

/// The addresses that `text` names: `host`, `host:port`, `1.2.3.4`, `1.2.3.4:5484`, `::1`,
/// `[::1]:5484`.
async fn resolve(text: &str) -> Result<Vec<SocketAddr>, String> {
    if let Ok(address) = text.parse() {
        return Ok(vec![address]);
    }
    if let Ok(ip) = text.trim_matches(['[', ']']).parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(ip, DEFAULT_PORT)]);
    }
    let named = if text.contains(':') { text.to_owned() } else { format!("{text}:{DEFAULT_PORT}") };
    let found: Vec<_> = lookup_host(named).await.map_err(|error| error.to_string())?.collect();
    if found.is_empty() { Err("the name has no address".to_owned()) } else { Ok(found) }
}

/// Asks whoever mDNS finds, first those that say that an invitation is open.
async fn search(shared: &Arc<Shared>, code: &Code) -> Result<Joined, JoinError> {
    let start = Instant::now();
    let mut seen = shared.seen.subscribe();
    // The same device is asked again once it says that an invitation is open.
    let mut asked: BTreeSet<(String, bool)> = BTreeSet::new();
    let mut wrong = 0;
    let mut last = JoinError::NotFound;
    loop {
        seen.mark_unchanged();
        let next = {
            let sightings = shared.sightings();
            let shy = start.elapsed() >= SHY_AFTER;
            let mut new = sightings.iter().filter(|(name, sighting)| {
                (shy || sighting.inviting)
                    && !sighting.addresses.is_empty()
                    && !asked.contains(&((*name).clone(), sighting.inviting))
            });
            new.next().map(|(name, sighting)| {
                ((name.clone(), sighting.inviting), sighting.addresses.clone())
            })
        };
        if let Some((name, addresses)) = next.filter(|_| asked.len() < ASKED_MAX) {
            asked.insert(name);
            match attempt(shared, code, addresses).await {
                Ok(joined) => return Ok(joined),
                Err(error) => {
                    tracing::debug!("a device that was found: {error}");
                    wrong += u32::from(matches!(error, JoinError::WrongCode { .. }));
                    if error.weight() >= last.weight() {
                        last = error;
                    }
                }
            }
            if wrong < WRONG_MAX {
                continue;
            }
        }
        // Whoever was found has been asked, and one of them has given an answer.
        if last.weight() >= ANSWER || wrong >= WRONG_MAX || start.elapsed() >= SEARCH_WAIT {
            return Err(last);
        }
        let until = if start.elapsed() < SHY_AFTER { SHY_AFTER } else { SEARCH_WAIT };
        tokio::select! {
            _ = seen.changed() => {}
            () = sleep_until(start + until) => {}
        }
    }
}

/// Makes one attempt with one device.
async fn attempt(
    shared: &Arc<Shared>,
    code: &Code,
    addresses: Vec<SocketAddr>,
) -> Result<Joined, JoinError> {
    if shared.is_closing() {
        return Err(JoinError::Stopping);
    }
    let config =
        pairing_client(&shared.identity).map_err(|error| JoinError::Broken(error.to_string()))?;
    let shown = addresses.first().map(ToString::to_string).unwrap_or_default();
    let connection = dial(shared, &config, addresses)
        .await
        .map_err(|reason| JoinError::Unreachable { address: shown, reason })?;
    let result = timeout(ATTEMPT_WAIT, pair(shared, code, &connection)).await;
    let result = match result {
        Ok(result) => result,
        Err(_) => Err(JoinError::Broken("the other device didn't answer in time".to_owned())),
    };
    Close::Done.close(&connection);
    result
}

/// What a broken stream means: the connection may know better.
fn broken(connection: &Connection, error: &FrameError) -> JoinError {
    match connection.close_reason() {
        Some(reason) => JoinError::from_connection(&reason),
        None => JoinError::Broken(error.to_string()),
    }
}

/// The next answer, unless it is no.
async fn answer(
    connection: &Connection,
    recv: &mut quinn::RecvStream,
) -> Result<Vec<u8>, JoinError> {
    let read = frame::read::<Answer>(recv, EARLY_MAX).await;
    match read.map_err(|error| broken(connection, &error))? {
        Some(Answer::Go { bytes }) => Ok(bytes),
        Some(Answer::No { why, left }) => Err(match No::from_number(why) {
            Some(No::Expired) => JoinError::Expired,
            Some(No::Burned) => JoinError::Burned,
            Some(No::Wrong) if left == 0 => JoinError::Burned,
            Some(No::Wrong) => JoinError::WrongCode { left },
            Some(No::Busy) => JoinError::Busy,
            Some(No::None | No::OtherNumber) | None => JoinError::NoInvitation,
        }),
        None => Err(JoinError::Broken("the other device broke off".to_owned())),
    }
}

async fn pair(
    shared: &Arc<Shared>,
    code: &Code,
    connection: &Connection,
) -> Result<Joined, JoinError> {
    let lost = || match connection.close_reason() {
        Some(reason) => JoinError::from_connection(&reason),
        None => JoinError::Broken("the connection ended".to_owned()),
    };
    let forged = || JoinError::Broken("a message that isn't authentic".to_owned());
    let inviter = tls::peer_key(connection).ok_or_else(forged)?;
    let own = shared.identity.public();
    let parties = Parties::of(connection, Part::Joiner, own, inviter).ok_or_else(lost)?;
    let opened = connection.open_bi().await;
    let (mut send, mut recv) = opened.map_err(|error| JoinError::from_connection(&error))?;

    let (start, share) = Start::new(Part::Joiner, parties, code);
    let hello = Hello { nameplate: code.nameplate(), share };
    frame::write(&mut send, &hello).await.map_err(|_| lost())?;
    let half = answer(connection, &mut recv).await?;
    let mut channel = start.finish(&half).ok_or_else(forged)?;
    let proof = Proof { code: channel.proof() };
    frame::write(&mut send, &proof).await.map_err(|_| lost())?;
    let theirs = answer(connection, &mut recv).await?;
    if !channel.proves(&theirs) {
        // It went on with a key that isn't the code's: whoever that is, it doesn't know the code.
        return Err(JoinError::Broken("the other device doesn't know the code".to_owned()));
    }

    let name = shared.circle.name_of(shared.identity.device());
    let introduction = channel.seal(&Introduction { name });
    frame::write(&mut send, &introduction).await.map_err(|_| lost())?;
    let sealed: Option<Sealed> =
        frame::read(&mut recv, LATE_MAX).await.map_err(|error| broken(connection, &error))?;
    let reception: Reception = channel.open(&sealed.ok_or_else(lost)?).ok_or_else(forged)?;
    let (welcome, name) = match reception {
        Reception::Welcome { circle, share, share_name, name, statements } => {
            let share = CircleShare { id: ShareId(share), name: to_name(&share_name) };
            (Welcome { circle: CircleId(circle), share, statements }, to_name(&name))
        }
        Reception::Sorry { reason } => return Err(JoinError::Refused(to_line(&reason))),
    };
    let circle = shared.circle.clone();
    let address = canonical(connection.remote_address());
    let adopted = spawn_blocking(move || circle.adopt(inviter, welcome, address)).await;
    let (farewell, result) = match adopted {
        Ok(Ok(share)) => (Farewell::Kept, Ok(Joined { device: inviter.device(), name, share })),
        Ok(Err(CircleError::AlreadyInCircle)) => (
            Farewell::Sorry { reason: "it is in another circle".to_owned() },
            Err(JoinError::AlreadyInCircle),
        ),
        Ok(Err(error)) => {
            (Farewell::Sorry { reason: error.to_string() }, Err(JoinError::Circle(error)))
        }
        Err(_) => return Err(JoinError::Stopping),
    };
    // This device is in or not whether or not its last word arrives; the inviter closes on it.
    let farewell = channel.seal(&farewell);
    if frame::write(&mut send, &farewell).await.is_ok() {
        let _ = send.finish();
        let _ = timeout(Duration::from_secs(2), connection.closed()).await;
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn addresses_are_read_as_people_write_them() {
        for (text, address) in [
            ("10.0.0.1", "10.0.0.1:5484"),
            ("10.0.0.1:99", "10.0.0.1:99"),
            ("::1", "[::1]:5484"),
            ("[::1]", "[::1]:5484"),
            ("[::1]:99", "[::1]:99"),
        ] {
            assert_eq!(resolve(text).await, Ok(vec![address.parse().unwrap()]), "{text}");
        }
        assert!(resolve("no such host.invalid").await.is_err());
    }
}
