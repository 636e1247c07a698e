//! The inviter's side of pairing.

use std::sync::Arc;
use std::time::Duration;

use quinn::{Connection, RecvStream, SendStream};
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use super::exchange::{
    Answer, Channel, EARLY_MAX, Farewell, Hello, Introduction, LATE_MAX, No, Part, Parties, Proof,
    Reception, Sealed, Start,
};
use super::invitation::{InviteEvent, Refusal, Verdict};
use crate::circle::Welcome;
use crate::circle::statement::to_name;
use crate::identity::PublicKey;
use crate::network::shared::Shared;
use crate::transport::close::Close;
use crate::transport::endpoint::canonical;
use crate::transport::frame::{self, FrameError};

/// How long an attempt may take until the code is confirmed.
const EARLY_WAIT: Duration = Duration::from_secs(10);
/// How long a joiner may take for the rest.
const LATE_WAIT: Duration = Duration::from_secs(20);
/// How long the last answer may take to arrive.
const LINGER: Duration = Duration::from_secs(2);

/// Why an attempt ended without anybody being to blame for a wrong code.
#[derive(Debug, thiserror::Error)]
enum Broken {
    #[error("{0}")]
    Frame(#[from] FrameError),
    #[error("the connection ended")]
    Ended,
    #[error("a message that isn't authentic")]
    Forged,
}

impl From<quinn::WriteError> for Broken {
    fn from(_: quinn::WriteError) -> Broken {
        Broken::Ended
    }
}

impl From<quinn::ConnectionError> for Broken {
    fn from(_: quinn::ConnectionError) -> Broken {
        Broken::Ended
    }
}

/// A joiner that has shown that it knows the code.
struct Guest {
    send: SendStream,
    recv: RecvStream,
    channel: Channel,
    events: mpsc::Sender<InviteEvent>,
}

/// Serves one attempt to join.
pub(crate) async fn serve(shared: &Arc<Shared>, connection: &Connection, key: PublicKey) {
    let address = canonical(connection.remote_address());
    match timeout(EARLY_WAIT, prove(shared, connection, key)).await {
        Ok(Ok(Some(guest))) => {
            shared.invitation_changed.notify_one();
            receive(shared, connection, key, guest).await;
        }
        Ok(Ok(None)) => {
            shared.invitation_changed.notify_one();
            // The other side closes once it has read why.
            let _ = timeout(LINGER, connection.closed()).await;
            Close::Done.close(connection);
        }
        Ok(Err(broken)) => {
            tracing::info!("pairing with {address} failed: {broken}");
            connection.close(Close::Protocol.code(), broken.to_string().as_bytes());
        }
        Err(_) => {
            tracing::info!("pairing with {address} failed: no answer in time");
            Close::Slow.close(connection);
        }
    }
}

/// Lets a joiner make its one guess. `None`: it was told no.
async fn prove(
    shared: &Arc<Shared>,
    connection: &Connection,
    key: PublicKey,
) -> Result<Option<Guest>, Broken> {
    let (mut send, mut recv) = connection.accept_bi().await?;
    let hello: Hello = frame::read(&mut recv, EARLY_MAX).await?.ok_or(Broken::Ended)?;
    let begun = shared.invitations().begin(hello.nameplate, shared.now());
    let guess = match begun {
        Ok(guess) => guess,
        Err(refusal) => {
            refuse(&mut send, no(refusal), 0).await?;
            return Ok(None);
        }
    };
    let own = shared.identity.public();
    let parties = Parties::of(connection, Part::Inviter, own, key).ok_or(Broken::Ended)?;
    let (start, half) = Start::new(Part::Inviter, parties, &guess.code);
    let mut channel = start.finish(&hello.share).ok_or(Broken::Forged)?;
    frame::write(&mut send, &Answer::Go { bytes: half }).await?;
    // The joiner proves first: what it would need to try another guess has not left yet.
    let proof: Proof = frame::read(&mut recv, EARLY_MAX).await?.ok_or(Broken::Ended)?;
    let right = channel.proves(&proof.code);
    let verdict = shared.invitations().end(&guess, right, shared.now());
    let address = canonical(connection.remote_address());
    match verdict {
        Verdict::Right(events) => {
            let bytes = channel.proof().to_vec();
            let guest = Guest { send, recv, channel, events };
            let mut guest = guest;
            if frame::write(&mut guest.send, &Answer::Go { bytes }).await.is_err() {
                guest.fail("the other device went away");
                return Err(Broken::Ended);
            }
            Ok(Some(guest))
        }
        Verdict::Wrong { left } => {
            tracing::warn!("a device at {address} gave a wrong code; guesses left: {left}");
            refuse(&mut send, No::Wrong, left).await?;
            Ok(None)
        }
        Verdict::Refused(refusal) => {
            refuse(&mut send, no(refusal), 0).await?;
            Ok(None)
        }
    }
}

fn no(refusal: Refusal) -> No {
    match refusal {
        Refusal::None => No::None,
        Refusal::OtherNumber => No::OtherNumber,
        Refusal::Expired => No::Expired,
        Refusal::Burned => No::Burned,
    }
}

async fn refuse(send: &mut SendStream, why: No, left: u8) -> Result<(), Broken> {
    frame::write(send, &Answer::No { why: why as u8, left }).await?;
    // It was finished or reset before only if the connection ended.
    let _ = send.finish();
    Ok(())
}

impl Guest {
    fn fail(&self, reason: &str) {
        tracing::warn!("a device had the code and didn't join: {reason}");
        // Whoever made the invitation may have gone.
        let _ = self.events.try_send(InviteEvent::Failed { reason: reason.to_owned() });
    }
}

/// Takes a joiner in: first here, then there. If it breaks off between, the joiner is a member
/// that knows nothing of it, and may join again with another code.
async fn receive(shared: &Arc<Shared>, connection: &Connection, key: PublicKey, mut guest: Guest) {
    let address = canonical(connection.remote_address());
    let outcome = timeout(LATE_WAIT, take_in(shared, connection, key, &mut guest)).await;
    match outcome {
        Ok(Ok(name)) => {
            tracing::info!("{name} at {address} has joined the circle");
            let device = key.device();
            let _ = guest.events.try_send(InviteEvent::Joined { device, name });
            if let Some(member) = shared.circle.member(device) {
                shared.peers.joined(member);
            }
            Close::Done.close(connection);
        }
        Ok(Err(reason)) => {
            guest.fail(&reason);
            let _ = timeout(LINGER, connection.closed()).await;
            Close::Done.close(connection);
        }
        Err(_) => {
            guest.fail("the other device didn't answer in time; invite it again");
            Close::Slow.close(connection);
        }
    }
}

/// The joiner's name, or why it isn't in.
async fn take_in(
    shared: &Arc<Shared>,
    connection: &Connection,
    key: PublicKey,
    guest: &mut Guest,
) -> Result<String, String> {
    let gone = |_| "the other device went away; invite it again".to_owned();
    let introduction: Introduction = hear(guest).await.map_err(gone)?;
    let name = to_name(&introduction.name);
    let circle = shared.circle.clone();
    let (admitted, address) = (name.clone(), canonical(connection.remote_address()));
    shared.expect_guest(key.device());
    let admission = spawn_blocking(move || circle.admit(key, &admitted, address)).await;
    let reception = match admission {
        Ok(Ok(Welcome { circle, share, statements })) => Reception::Welcome {
            circle: circle.0,
            share: share.id.0,
            share_name: share.name,
            name: shared.circle.name_of(shared.identity.device()),
            statements,
        },
        Ok(Err(error)) => Reception::Sorry { reason: error.to_string() },
        Err(_) => Reception::Sorry { reason: "the other device stops".to_owned() },
    };
    let sealed = guest.channel.seal(&reception);
    frame::write(&mut guest.send, &sealed).await.map_err(|error| gone(error.into()))?;
    if let Reception::Sorry { reason } = reception {
        let _ = guest.send.finish();
        return Err(reason);
    }
    match hear::<Farewell>(guest).await.map_err(gone)? {
        Farewell::Kept => Ok(name),
        Farewell::Sorry { reason } => Err(to_line(&reason)),
    }
}

/// A reason from elsewhere, as one line of a bearable length.
pub(super) fn to_line(reason: &str) -> String {
    reason.chars().map(|c| if c.is_control() { ' ' } else { c }).take(200).collect()
}

async fn hear<T>(guest: &mut Guest) -> Result<T, Broken>
where
    T: for<'b> minicbor::Decode<'b, ()>,
{
    let sealed: Sealed = frame::read(&mut guest.recv, LATE_MAX).await?.ok_or(Broken::Ended)?;
    guest.channel.open(&sealed).ok_or(Broken::Forged)
}
