//! The life of a connection between two members: hello, the circle's list, the other side's
//! streams, and the end.

use std::sync::Arc;
use std::time::Duration;

use kith_core::id::DeviceId;
use minicbor::{Decode, Encode};
use quinn::{Connection, ConnectionError, RecvStream, SendStream};
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, timeout};

use super::link::{Link, StreamKind, open_uni};
use super::links::Candidate;
use super::shared::Shared;
use crate::circle::CircleError;
use crate::circle::statement::Signed;
use crate::transport::close::{Close, UNKNOWN_STREAM, explain};
use crate::transport::endpoint::canonical;
use crate::transport::frame::{self, FrameError};

/// The version of what members speak with one another.
const VERSION: u16 = 1;
/// How long the other side may take to say hello, or to say what a stream is for.
const HELLO_WAIT: Duration = Duration::from_secs(5);
/// How many streams the side that was dialed may open before it says hello.
const EARLY_MAX: usize = 2;
/// The longest hello.
const HELLO_MAX: usize = 256;
/// The longest list of a circle: as many statements as there may be.
const LIST_MAX: usize = 512 << 10;
/// Streams that wait until they are taken.
const STREAMS_WAITING: usize = 16;
/// The label under which TLS gives out the number of a link.
const EXPORTER: &[u8] = b"EXPORTER-kith-link-1";

/// The first message of each side, on its stream for the circle's list.
#[derive(Debug, Encode, Decode)]
#[cbor(map)]
struct Hello {
    #[n(0)]
    version: u16,
    /// Another number after each start.
    #[n(1)]
    instance: u64,
    /// The last link between the two that has ended, as this side sees it.
    #[n(2)]
    ended: Option<u64>,
}

/// All that a member may know of the circle.
#[derive(Debug, Encode, Decode)]
#[cbor(map)]
struct List {
    #[n(0)]
    statements: Vec<Signed>,
    /// Another start of the device that this is sent to, which goes on at once with the one that
    /// gets it: on another machine, with the same identity.
    #[n(1)]
    twin: Option<u64>,
}

/// Why a connection didn't become a link.
#[derive(Debug, thiserror::Error)]
pub(super) enum SessionError {
    #[error("{}", explain(.0))]
    Connection(#[from] ConnectionError),
    #[error("there is another connection")]
    Duplicate,
    #[error("no answer in time")]
    Slow,
    #[error("{0}")]
    Protocol(String),
}

impl SessionError {
    /// Whether the device is reachable all the same.
    pub(super) fn is_duplicate(&self) -> bool {
        match self {
            SessionError::Duplicate => true,
            SessionError::Connection(error) => Close::by_peer(error) == Some(Close::Duplicate),
            _ => false,
        }
    }
}

/// Makes a link of a connection to a member, and tells everybody. The link then lives on in a task
/// of its own.
pub(super) async fn establish(
    shared: &Arc<Shared>,
    connection: Connection,
    device: DeviceId,
    initiator: bool,
) -> Result<(), SessionError> {
    let greeting = greet(shared, &connection, device, initiator);
    let error = match timeout(HELLO_WAIT, greeting).await {
        Ok(Ok(session)) => {
            shared.spawn(session.live(shared.clone()));
            return Ok(());
        }
        Ok(Err(error)) => error,
        Err(_) => SessionError::Slow,
    };
    match &error {
        SessionError::Duplicate => Close::Duplicate.close(&connection),
        SessionError::Protocol(reason) => {
            connection.close(Close::Protocol.code(), reason.as_bytes());
        }
        SessionError::Slow | SessionError::Connection(_) => Close::Slow.close(&connection),
    }
    Err(error)
}

/// Both sides say hello. The side that was dialed decides first whether this connection is the
/// one to use; its hello is its consent.
async fn greet(
    shared: &Arc<Shared>,
    connection: &Connection,
    device: DeviceId,
    initiator: bool,
) -> Result<Session, SessionError> {
    let mut id = [0; 8];
    connection
        .export_keying_material(&mut id, EXPORTER, b"")
        .map_err(|_| SessionError::Protocol("no keying material".to_owned()))?;
    let ours =
        Hello { version: VERSION, instance: shared.instance, ended: shared.links().ended(device) };
    let said = if initiator { Some(say(connection, &ours).await?) } else { None };
    let early = if initiator { EARLY_MAX } else { 0 };
    let (hello, heard, early) = hear(connection, early).await?;
    let candidate = Candidate {
        id: u64::from_le_bytes(id),
        connection: connection.clone(),
        initiator,
        instance: hello.instance,
        ended: hello.ended,
        since: Instant::now(),
    };
    let (uni, unis) = mpsc::channel(STREAMS_WAITING);
    let (bi, bis) = mpsc::channel(STREAMS_WAITING);
    for stream in early {
        uni.try_send(stream).expect("the channel is empty, and holds more than come early");
    }
    let link = Link {
        device,
        name: shared.circle.name_of(device),
        address: canonical(connection.remote_address()),
        connection: connection.clone(),
        initiator,
        uni: unis,
        bi: bis,
    };
    let id = candidate.id;
    shared.admit(candidate, link).map_err(|()| SessionError::Duplicate)?;
    let (connection, instance) = (connection.clone(), hello.instance);
    Ok(Session { connection, device, id, instance, ours, said, heard, uni, bi })
}

/// Both sides of a connection whose other end has this device's own key say hello: if it isn't this
/// very process, the identity is on two machines.
pub(super) async fn meet_own_key(shared: &Shared, connection: Connection, initiator: bool) {
    let ours = Hello { version: VERSION, instance: shared.instance, ended: None };
    let both = async {
        let mut said = None;
        if initiator {
            said = Some(say(&connection, &ours).await?);
        }
        let (theirs, heard, _) = hear(&connection, 0).await?;
        if !initiator {
            said = Some(say(&connection, &ours).await?);
        }
        // Whoever dialed has heard enough, and ends it.
        if !initiator {
            connection.closed().await;
        }
        drop((said, heard));
        Ok::<_, SessionError>(theirs.instance)
    };
    let met = timeout(HELLO_WAIT, both).await;
    Close::Done.close(&connection);
    if let Ok(Ok(instance)) = met
        && instance != shared.instance
    {
        shared.peers.cloned();
    }
}

/// Opens this side's stream for the circle's list.
async fn say(connection: &Connection, hello: &Hello) -> Result<SendStream, SessionError> {
    let mut stream = open_uni(connection, StreamKind::Circle).await?;
    let broken = |error: quinn::WriteError| match error {
        quinn::WriteError::ConnectionLost(error) => SessionError::Connection(error),
        other => SessionError::Protocol(other.to_string()),
    };
    frame::write(&mut stream, hello).await.map_err(broken)?;
    Ok(stream)
}

/// Waits for the other side's stream for the circle's list. Up to `early_max` others may come
/// before, from a side that was dialed; they are handed on.
async fn hear(
    connection: &Connection,
    early_max: usize,
) -> Result<(Hello, RecvStream, Vec<(StreamKind, RecvStream)>), SessionError> {
    let lost = |error: FrameError| match connection.close_reason() {
        Some(reason) => SessionError::Connection(reason),
        None => SessionError::Protocol(format!("the greeting: {error}")),
    };
    let mut early = Vec::new();
    let mut stream = loop {
        let mut stream = connection.accept_uni().await?;
        let mut kind = [0];
        stream.read_exact(&mut kind).await.map_err(|error| lost(error.into()))?;
        match StreamKind::from_byte(kind[0]) {
            Some(StreamKind::Circle) => break stream,
            Some(kind) if early.len() < early_max => early.push((kind, stream)),
            _ => return Err(SessionError::Protocol("the greeting is missing".to_owned())),
        }
    };
    let hello: Option<Hello> = frame::read(&mut stream, HELLO_MAX).await.map_err(lost)?;
    let hello = hello.ok_or_else(|| SessionError::Protocol("no greeting".to_owned()))?;
    if hello.version != VERSION {
        let reason = format!("it speaks version {}, this is version {VERSION}", hello.version);
        return Err(SessionError::Protocol(reason));
    }
    Ok((hello, stream, early))
}

/// A link as the network serves it.
struct Session {
    connection: Connection,
    device: DeviceId,
    id: u64,
    instance: u64,
    ours: Hello,
    said: Option<SendStream>,
    heard: RecvStream,
    uni: mpsc::Sender<(StreamKind, RecvStream)>,
    bi: mpsc::Sender<(StreamKind, SendStream, RecvStream)>,
}

impl Session {
    /// Serves the link until its connection has ended.
    async fn live(self, shared: Arc<Shared>) {
        let Session { connection, device, id, instance, ours, said, heard, uni, bi } = self;
        let address = canonical(connection.remote_address());
        let circle = shared.circle.clone();
        let remembered = spawn_blocking(move || circle.remember_address(device, address));
        let serve = async {
            // None of these ends unless the connection does, or the other side broke the protocol.
            let violation = tokio::select! {
                _ = connection.closed() => None,
                violation = listen(&shared, heard) => violation,
                () = speak(&shared, &connection, (device, instance), &ours, said) => None,
                () = take_unis(&shared, &connection, uni) => None,
                () = take_bis(&shared, &connection, bi) => None,
            };
            let stopped = || "the list of the circle was stopped".to_owned();
            if let Some(reason) = connection.close_reason() {
                return violation.unwrap_or_else(|| explain(&reason));
            }
            let violation = violation.unwrap_or_else(stopped);
            connection.close(Close::Protocol.code(), violation.as_bytes());
            violation
        };
        let mut reason = serve.await;
        if let Ok(Err(error)) = remembered.await {
            tracing::warn!("{error}");
        }
        if !shared.circle.contains(device) {
            Close::Removed.text().clone_into(&mut reason);
        }
        shared.ended(device, id, &reason);
    }
}

/// Sends the circle's list, and again whenever it changes.
async fn speak(
    shared: &Arc<Shared>,
    connection: &Connection,
    (device, instance): (DeviceId, u64),
    hello: &Hello,
    said: Option<SendStream>,
) {
    let mut changes = shared.circle.subscribe();
    let mut links = shared.links_changed.subscribe();
    let mut stream = match said {
        Some(stream) => stream,
        None => match say(connection, hello).await {
            Ok(stream) => stream,
            Err(_) => return,
        },
    };
    let mut sent = (Vec::new(), None);
    loop {
        changes.mark_unchanged();
        links.mark_unchanged();
        let statements = shared.circle.statements();
        let twin = shared.links().twin_of(device, instance);
        let said = (statements, twin);
        if said != sent {
            sent.clone_from(&said);
            let (statements, twin) = said;
            if frame::write(&mut stream, &List { statements, twin }).await.is_err() {
                return;
            }
        }
        let changed = tokio::select! {
            changed = changes.changed() => changed,
            changed = links.changed() => changed,
        };
        if changed.is_err() {
            return;
        }
    }
}

/// Takes in the other side's list of the circle. Says how the other side broke the protocol;
/// `None` if the connection ended.
async fn listen(shared: &Arc<Shared>, mut stream: RecvStream) -> Option<String> {
    loop {
        let list: List = match frame::read(&mut stream, LIST_MAX).await {
            Ok(Some(list)) => list,
            Ok(None) => return Some("the list of the circle ended".to_owned()),
            Err(error) if error.is_violation() => return Some(error.to_string()),
            Err(_) => return None,
        };
        if list.twin.is_some_and(|twin| twin != shared.instance) {
            shared.peers.cloned();
        }
        let circle = shared.circle.clone();
        match spawn_blocking(move || circle.merge(list.statements)).await {
            Ok(Ok(joined)) => {
                for member in joined {
                    tracing::info!("{} is a device of the circle now", member.name);
                    shared.peers.joined(member);
                }
            }
            Ok(Err(CircleError::Statement(error))) => return Some(error.to_string()),
            Ok(Err(error)) => tracing::error!("{error}"),
            Err(_) => return None,
        }
    }
}

/// Hands on the streams that the other side opens and that aren't answered.
async fn take_unis(
    shared: &Arc<Shared>,
    connection: &Connection,
    taker: mpsc::Sender<(StreamKind, RecvStream)>,
) {
    while let Ok(mut recv) = connection.accept_uni().await {
        let taker = taker.clone();
        // Not one after the other: who doesn't say what a stream is for holds up no other. There
        // are only as many of these as streams that the other side may open.
        shared.spawn(async move {
            match kind_of(&mut recv).await {
                Some(kind) => drop(taker.send((kind, recv)).await),
                None => drop(recv.stop(UNKNOWN_STREAM)),
            }
        });
    }
}

/// Hands on the streams that the other side opens and that are answered.
async fn take_bis(
    shared: &Arc<Shared>,
    connection: &Connection,
    taker: mpsc::Sender<(StreamKind, SendStream, RecvStream)>,
) {
    while let Ok((mut send, mut recv)) = connection.accept_bi().await {
        let taker = taker.clone();
        shared.spawn(async move {
            match kind_of(&mut recv).await {
                Some(kind) => drop(taker.send((kind, send, recv)).await),
                None => {
                    let _ = send.reset(UNKNOWN_STREAM);
                    let _ = recv.stop(UNKNOWN_STREAM);
                }
            }
        });
    }
}

/// What a stream is for; `None` if that isn't known here, or isn't said in time.
async fn kind_of(stream: &mut RecvStream) -> Option<StreamKind> {
    let mut byte = [0];
    timeout(HELLO_WAIT, stream.read_exact(&mut byte)).await.ok()?.ok()?;
    // There is one stream of the circle's list on each side, and it is the first.
    StreamKind::from_byte(byte[0]).filter(|kind| *kind != StreamKind::Circle)
}
