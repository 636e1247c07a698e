//! Tests of links and pairing between networks on the loopback, without mDNS.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use quinn::{Connection, Endpoint, RecvStream, SendStream};
use tempfile::TempDir;
use tokio::sync::mpsc;

use super::link::{open_bi, open_uni};
use super::*;
use crate::transport::endpoint::{member_client, pairing_client};
use crate::transport::{frame, tls};

/// What a test waits for no longer than: far more than anything takes.
const PATIENCE: Duration = Duration::from_secs(20);

#[derive(Debug)]
enum Event {
    Connected(Link),
    Disconnected(DeviceId, String),
    Joined(Member),
    Cloned,
    MemberChanged,
}

struct Events(mpsc::UnboundedSender<Event>);

impl Peers for Events {
    fn connected(&self, link: Link) {
        let _ = self.0.send(Event::Connected(link));
    }
    fn disconnected(&self, device: DeviceId, reason: String) {
        let _ = self.0.send(Event::Disconnected(device, reason));
    }
    fn joined(&self, member: Member) {
        let _ = self.0.send(Event::Joined(member));
    }
    fn cloned(&self) {
        let _ = self.0.send(Event::Cloned);
    }
    fn member_changed(&self) {
        let _ = self.0.send(Event::MemberChanged);
    }
}

/// A device with its network, as a test sees it.
struct Device {
    home: TempDir,
    identity: Arc<Identity>,
    circle: Arc<Circle>,
    network: Network,
    events: mpsc::UnboundedReceiver<Event>,
    links: BTreeMap<DeviceId, Link>,
    clock: Arc<AtomicU64>,
}

fn open(home: &Path, name: &str) -> (Arc<Identity>, Arc<Circle>) {
    let identity = Arc::new(Identity::load_or_create(&home.join("identity")).unwrap());
    let circle = Circle::open(&home.join("circle"), identity.clone(), name).unwrap();
    (identity, Arc::new(circle))
}

impl Device {
    async fn start(name: &str) -> Device {
        Device::start_in(tempfile::tempdir().unwrap(), name).await
    }

    async fn start_in(home: TempDir, name: &str) -> Device {
        let (identity, circle) = open(home.path(), name);
        let (sender, events) = mpsc::unbounded_channel();
        let clock = Arc::new(AtomicU64::new(1_000_000));
        let mut config = NetworkConfig::new(identity.clone(), circle.clone(), Port::Preferred(0));
        config.discovery = false;
        let time = clock.clone();
        config.clock = Arc::new(move || WallMs(time.load(Ordering::Relaxed)));
        let network = start(config, Arc::new(Events(sender))).await.unwrap();
        Device { home, identity, circle, network, events, links: BTreeMap::new(), clock }
    }

    fn id(&self) -> DeviceId {
        self.identity.device()
    }

    fn address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.network.local_addr().unwrap().port()))
    }

    /// The next event, of which links are kept.
    async fn next(&mut self) -> String {
        let event = timeout(PATIENCE, self.events.recv()).await.expect("nothing happens").unwrap();
        match event {
            Event::Connected(link) => {
                let text = format!("connected {}", link.name);
                assert!(self.links.insert(link.device, link).is_none(), "two links at once");
                text
            }
            Event::Disconnected(device, reason) => {
                assert!(self.links.remove(&device).is_some(), "the end of no link");
                format!("disconnected: {reason}")
            }
            Event::Joined(member) => format!("joined {}", member.name),
            Event::Cloned => "cloned".to_owned(),
            Event::MemberChanged => "changed".to_owned(),
        }
    }

    async fn wait_for(&mut self, expected: &str) -> String {
        loop {
            let event = self.next().await;
            if event.starts_with(expected) {
                return event;
            }
        }
    }

    async fn wait_until(&mut self, condition: impl Fn(&Device) -> bool) {
        while !condition(self) {
            self.next().await;
        }
    }

    async fn join(&self, code: &str, other: &Device) -> Result<Joined, JoinError> {
        let address = other.address().to_string();
        timeout(PATIENCE, self.network.join(code, Some(&address))).await.expect("joining hangs")
    }
}

/// Two devices that have paired and are linked.
async fn pair() -> (Device, Device) {
    let (mut one, mut two) = (Device::start("one").await, Device::start("two").await);
    let invitation = one.network.invite().unwrap();
    two.join(&invitation.code, &one).await.unwrap();
    one.wait_for("connected two").await;
    two.wait_for("connected one").await;
    (one, two)
}

/// A code that differs from the right one in its words.
fn wrong(code: &str) -> String {
    let (number, words) = code.split_once('-').unwrap();
    let other = if words == "mango-elephant" { "mango-lemon" } else { "mango-elephant" };
    format!("{number}-{other}")
}

/// A connection made by hand, with a key and for a protocol of one's choice.
async fn connect(identity: &Identity, to: &Device, protocol: &[u8]) -> (Endpoint, Connection) {
    let endpoint = endpoint::open(identity, Port::Preferred(0)).unwrap();
    let config = if protocol == tls::ALPN_MEMBER {
        member_client(identity, to.id()).unwrap()
    } else {
        pairing_client(identity).unwrap()
    };
    let connection =
        endpoint.connect_with(config, to.address(), tls::SERVER_NAME).unwrap().await.unwrap();
    (endpoint, connection)
}

async fn closed(connection: &Connection) -> Option<Close> {
    let reason = timeout(PATIENCE, connection.closed()).await.expect("it stays open");
    Close::by_peer(&reason)
}

#[tokio::test]
async fn a_code_makes_two_devices_one_circle() {
    let (mut one, mut two) = (Device::start("one").await, Device::start("two").await);
    assert_ne!(one.circle.share(), two.circle.share());
    let mut invitation = one.network.invite().unwrap();
    assert!(one.network.is_inviting());
    let joined = two.join(&invitation.code.to_uppercase(), &one).await.unwrap();
    let expected = Joined { device: one.id(), name: "one".into(), share: one.circle.share() };
    assert_eq!(joined, expected);
    assert_eq!(two.circle.share(), one.circle.share());
    let event = timeout(PATIENCE, invitation.outcome.recv()).await.unwrap();
    assert_eq!(event, Some(InviteEvent::Joined { device: two.id(), name: "two".into() }));
    assert!(!one.network.is_inviting(), "a code is good for one device");
    // The joiner may be linked before its inviter knows that it has kept the circle.
    let (mut joined, mut linked) = (false, false);
    while !(joined && linked) {
        let event = one.next().await;
        joined |= event == "joined two";
        linked |= event == "connected two";
    }
    two.wait_for("connected one").await;
    assert_eq!(one.circle.members().len(), 2);
    // What one side opens the other gets, with its kind.
    let link = &two.links[&one.id()];
    let (mut send, mut recv) = link.open_bi(StreamKind::Fetch).await.unwrap();
    send.write_all(b"ping").await.unwrap();
    send.finish().unwrap();
    let (kind, mut back, mut asked) =
        one.links.get_mut(&two.id()).unwrap().bi.recv().await.unwrap();
    assert_eq!(kind, StreamKind::Fetch);
    assert_eq!(asked.read_to_end(10).await.unwrap(), b"ping");
    back.write_all(b"pong").await.unwrap();
    back.finish().unwrap();
    assert_eq!(recv.read_to_end(10).await.unwrap(), b"pong");
    let mut tree = link.open_uni(StreamKind::Tree).await.unwrap();
    tree.finish().unwrap();
    let (kind, _) = one.links.get_mut(&two.id()).unwrap().uni.recv().await.unwrap();
    assert_eq!(kind, StreamKind::Tree);
}

#[tokio::test]
async fn three_wrong_codes_burn_the_invitation() {
    let (one, two) = (Device::start("one").await, Device::start("two").await);
    let mut invitation = one.network.invite().unwrap();
    let bad = wrong(&invitation.code);
    for left in [2, 1] {
        let error = two.join(&bad, &one).await.unwrap_err();
        assert!(matches!(error, JoinError::WrongCode { left: l } if l == left), "{error}");
        assert_eq!(invitation.outcome.recv().await, Some(InviteEvent::WrongCode { left }));
    }
    let error = two.join(&bad, &one).await.unwrap_err();
    assert!(matches!(error, JoinError::Burned), "{error}");
    assert_eq!(invitation.outcome.recv().await, Some(InviteEvent::WrongCode { left: 0 }));
    assert_eq!(invitation.outcome.recv().await, Some(InviteEvent::Burned));
    let error = two.join(&invitation.code, &one).await.unwrap_err();
    assert!(matches!(error, JoinError::Burned), "{error}");
    assert!(one.circle.is_alone() && two.circle.is_alone());
}

#[tokio::test]
async fn a_code_expires() {
    let (one, two) = (Device::start("one").await, Device::start("two").await);
    let mut invitation = one.network.invite().unwrap();
    one.clock.store(invitation.expires_ms, Ordering::Relaxed);
    let error = two.join(&invitation.code, &one).await.unwrap_err();
    assert!(matches!(error, JoinError::Expired), "{error}");
    assert_eq!(invitation.outcome.recv().await, Some(InviteEvent::Expired));
    assert!(one.circle.is_alone() && two.circle.is_alone());
}

#[tokio::test]
async fn a_code_with_another_number_is_no_guess() {
    let (one, two) = (Device::start("one").await, Device::start("two").await);
    let mut invitation = one.network.invite().unwrap();
    let (number, words) = invitation.code.split_once('-').unwrap();
    let number = number.parse::<u8>().unwrap() % 99 + 1;
    for _ in 0..5 {
        let error = two.join(&format!("{number}-{words}"), &one).await.unwrap_err();
        assert!(matches!(error, JoinError::NoInvitation), "{error}");
    }
    assert!(invitation.outcome.try_recv().is_err());
    two.join(&invitation.code, &one).await.unwrap();
}

#[tokio::test]
async fn joining_without_hope_says_why() {
    let (one, two) = (Device::start("one").await, Device::start("two").await);
    let error = two.join("7-mango-elephant", &one).await.unwrap_err();
    assert!(matches!(error, JoinError::NoInvitation), "{error}");
    let error = two.network.join("mango", None).await.unwrap_err();
    assert!(matches!(error, JoinError::Code(_)), "{error}");
    let error = two.network.join("7-mango-elephant", Some("127.0.0.1:1")).await.unwrap_err();
    assert!(matches!(error, JoinError::Unreachable { .. }), "{error}");
    let invitation = one.network.invite().unwrap();
    let _ = one.network.withdraw_invitation();
    let error = two.join(&invitation.code, &one).await.unwrap_err();
    assert!(matches!(error, JoinError::NoInvitation), "{error}");
}

#[tokio::test]
async fn a_device_in_a_circle_joins_no_other() {
    let (_one, two) = pair().await;
    let three = Device::start("three").await;
    let invitation = three.network.invite().unwrap();
    let error = two.join(&invitation.code, &three).await.unwrap_err();
    assert!(matches!(error, JoinError::AlreadyInCircle), "{error}");
    assert!(three.circle.is_alone());
}

#[tokio::test]
async fn a_third_device_is_known_to_all_and_linked_with_all() {
    let (mut one, mut two) = pair().await;
    let mut three = Device::start("three").await;
    let invitation = two.network.invite().unwrap();
    three.join(&invitation.code, &two).await.unwrap();
    one.wait_until(|one| one.links.len() == 2).await;
    two.wait_until(|two| two.links.len() == 2).await;
    three.wait_until(|three| three.links.len() == 2).await;
    assert_eq!(one.circle.name_of(three.id()), "three");
    // A name given anywhere is known everywhere.
    three.circle.rename(one.id(), "laptop").unwrap();
    two.wait_until(|two| two.circle.name_of(one.id()) == "laptop").await;
    one.wait_until(|one| one.circle.name_of(one.id()) == "laptop").await;
}

#[tokio::test]
async fn a_stranger_gets_no_further_than_the_handshake() {
    let one = Device::start("one").await;
    let stranger = Identity::ephemeral();
    let (_endpoint, connection) = connect(&stranger, &one, tls::ALPN_MEMBER).await;
    assert_eq!(closed(&connection).await, Some(Close::Stranger));
    let (_endpoint, connection) = connect(&stranger, &one, tls::ALPN_PAIRING).await;
    assert_eq!(closed(&connection).await, Some(Close::NoInvitation));
    // Nor does it while an invitation is open, but to pair.
    let _invitation = one.network.invite().unwrap();
    let (_endpoint, connection) = connect(&stranger, &one, tls::ALPN_MEMBER).await;
    assert_eq!(closed(&connection).await, Some(Close::Stranger));
}

#[tokio::test]
async fn who_is_not_the_expected_device_is_not_spoken_to() {
    let (one, other) = (Device::start("one").await, Identity::ephemeral());
    let own = Identity::ephemeral();
    let endpoint = endpoint::open(&own, Port::Preferred(0)).unwrap();
    let config = member_client(&own, other.device()).unwrap();
    let connecting = endpoint.connect_with(config, one.address(), tls::SERVER_NAME).unwrap();
    assert!(connecting.await.is_err());
}

#[tokio::test]
async fn a_removed_device_is_out_at_once_and_for_ever() {
    let (mut one, mut two) = pair().await;
    one.circle.remove(two.id()).unwrap();
    let event = one.wait_for("disconnected").await;
    assert!(event.contains("removed from the circle"), "{event}");
    let event = two.wait_for("disconnected").await;
    assert!(event.contains("removed from the circle"), "{event}");
    let (_endpoint, connection) = connect(&two.identity, &one, tls::ALPN_MEMBER).await;
    assert_eq!(closed(&connection).await, Some(Close::Removed));
    let mut invitation = one.network.invite().unwrap();
    // It believes to be in a circle still. Even with a fresh list it doesn't get in with its key.
    let home = tempfile::tempdir().unwrap();
    std::fs::create_dir(home.path().join("identity")).unwrap();
    let key = "identity/key.der";
    std::fs::copy(two.home.path().join(key), home.path().join(key)).unwrap();
    let again = Device::start_in(home, "two again").await;
    let error = again.join(&invitation.code, &one).await.unwrap_err();
    assert!(matches!(error, JoinError::Refused(_)), "{error}");
    let event = invitation.outcome.recv().await;
    assert!(matches!(event, Some(InviteEvent::Failed { .. })), "{event:?}");
    assert!(one.circle.is_alone() && again.circle.is_alone());
}

#[tokio::test]
async fn a_restarted_device_is_linked_again() {
    let (mut one, two) = pair().await;
    two.network.shutdown().await;
    one.wait_for("disconnected").await;
    let home = two.home;
    let mut two = Device::start_in(home, "ignored").await;
    one.wait_for("connected two").await;
    two.wait_for("connected one").await;
}

/// The first bytes of a member's first stream: its hello, as a device in its `instance`th start.
fn greeting(instance: u8) -> Vec<u8> {
    let hello = [8, 0, 0, 0, 0xbf, 0x00, 0x01, 0x01, instance, 0x02, 0xf6, 0xff];
    [&[StreamKind::Circle as u8][..], &hello].concat()
}

#[tokio::test]
async fn a_device_that_vanished_without_a_word_is_linked_again_at_once() {
    let (mut one, two) = pair().await;
    two.network.shutdown().await;
    one.wait_for("disconnected").await;
    let mut held: Vec<(Endpoint, Connection, SendStream)> = Vec::new();
    // After a restart, and again from the same start.
    for instance in [7, 8, 8] {
        let (endpoint, connection) = connect(&two.identity, &one, tls::ALPN_MEMBER).await;
        let mut stream = connection.open_uni().await.unwrap();
        stream.write_all(&greeting(instance)).await.unwrap();
        if let Some((_, old, _)) = held.last() {
            one.wait_for("disconnected: a newer connection").await;
            assert_eq!(closed(old).await, Some(Close::Replaced));
        }
        one.wait_for("connected two").await;
        held.push((endpoint, connection, stream));
    }
}

#[tokio::test]
async fn who_dials_at_once_ends_with_one_connection() {
    for _ in 0..10 {
        let (home_one, home_two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        {
            let (identity_one, one) = open(home_one.path(), "one");
            let (identity_two, two) = open(home_two.path(), "two");
            let nowhere = SocketAddr::from(([127, 0, 0, 1], 9));
            let welcome = one.admit(identity_two.public(), "two", nowhere).unwrap();
            two.adopt(identity_one.public(), welcome, nowhere).unwrap();
        }
        let mut one = Device::start_in(home_one, "one").await;
        let mut two = Device::start_in(home_two, "two").await;
        // No courtesy: both begin in the same moment.
        let dial = |from: &Device, to: &Device| {
            let (shared, config) =
                (from.network.shared.clone(), member_client(&from.identity, to.id()).unwrap());
            let (device, addresses) = (to.id(), vec![to.address()]);
            async move {
                let connection = dialer::dial(&shared, &config, addresses).await.unwrap();
                let _ = session::establish(&shared, connection, device, true).await;
            }
        };
        tokio::join!(dial(&one, &two), dial(&two, &one));
        let number = |link: &Link| {
            let mut bytes = [0; 8];
            link.connection.export_keying_material(&mut bytes, b"test", b"").unwrap();
            bytes
        };
        loop {
            let settled = match (one.links.get(&two.id()), two.links.get(&one.id())) {
                (Some(a), Some(b)) => {
                    number(a) == number(b)
                        && a.connection.close_reason().is_none()
                        && b.connection.close_reason().is_none()
                }
                _ => false,
            };
            if settled {
                break;
            }
            tokio::select! {
                _ = one.next() => {}
                _ = two.next() => {}
            }
        }
        let smaller_dialed = one.links[&two.id()].initiator == (one.id() < two.id());
        assert!(smaller_dialed, "the smaller id's connection is the one that stays");
    }
}

#[tokio::test]
async fn garbage_while_pairing_ends_the_attempt_and_not_the_invitation() {
    let (one, two) = (Device::start("one").await, Device::start("two").await);
    let invitation = one.network.invite().unwrap();
    let oversize = [&u32::MAX.to_le_bytes()[..], &[0; 64]].concat();
    let other_form = frame::encode(&"hello");
    // The right number with something that is no half of SPAKE2.
    let number = invitation.code.split_once('-').unwrap().0.parse::<u8>().unwrap();
    let hello = crate::pairing::exchange::Hello { nameplate: number, share: vec![0x41; 33] };
    let mut no_half = frame::encode(&hello);
    no_half[10..].fill(0xff);
    let cut_off = [200, 0, 0, 0, 1, 2, 3].to_vec();
    for bytes in [oversize, other_form, no_half, cut_off, vec![0; 3], vec![0xff; 4000]] {
        let stranger = Identity::ephemeral();
        let (_endpoint, connection) = connect(&stranger, &one, tls::ALPN_PAIRING).await;
        let (mut send, _recv) = connection.open_bi().await.unwrap();
        let _ = send.write_all(&bytes).await;
        let _ = send.finish();
        assert_eq!(closed(&connection).await, Some(Close::Protocol), "{bytes:?}");
    }
    assert!(one.network.is_inviting());
    two.join(&invitation.code, &one).await.unwrap();
}

#[tokio::test]
async fn only_a_few_pair_at_once() {
    let one = Device::start("one").await;
    let _invitation = one.network.invite().unwrap();
    let mut held = Vec::new();
    for _ in 0..ATTEMPTS_MAX {
        let (endpoint, connection) = connect(&Identity::ephemeral(), &one, tls::ALPN_PAIRING).await;
        let (mut send, recv) = connection.open_bi().await.unwrap();
        // The first bytes of a frame that doesn't come.
        send.write_all(&[9, 0, 0, 0]).await.unwrap();
        held.push((endpoint, connection, send, recv));
    }
    let (_endpoint, connection) = connect(&Identity::ephemeral(), &one, tls::ALPN_PAIRING).await;
    assert_eq!(closed(&connection).await, Some(Close::Busy));
}

/// Passes frames on from one stream to another until either ends.
async fn relay(mut from: RecvStream, mut to: SendStream) {
    while let Ok(Some(bytes)) = from.read_chunk(4096, true).await {
        if to.write_chunk(bytes.bytes).await.is_err() {
            break;
        }
    }
    let _ = to.finish();
}

#[tokio::test]
async fn nobody_can_stand_between_two_that_pair() {
    let (one, two) = (Device::start("one").await, Device::start("two").await);
    let mut invitation = one.network.invite().unwrap();
    let between = Identity::ephemeral();
    let (endpoint, to_one) = connect(&between, &one, tls::ALPN_PAIRING).await;
    let address = format!("127.0.0.1:{}", endpoint.local_addr().unwrap().port());
    let middle = tokio::spawn(async move {
        let from_two = endpoint.accept().await.unwrap().await.unwrap();
        let (send_two, recv_two) = from_two.accept_bi().await.unwrap();
        let (send_one, recv_one) = to_one.open_bi().await.unwrap();
        tokio::join!(relay(recv_two, send_one), relay(recv_one, send_two));
    });
    let error = two.network.join(&invitation.code, Some(&address)).await.unwrap_err();
    assert!(matches!(error, JoinError::WrongCode { left: 2 }), "{error}");
    assert_eq!(invitation.outcome.recv().await, Some(InviteEvent::WrongCode { left: 2 }));
    assert!(one.circle.is_alone() && two.circle.is_alone());
    middle.abort();
}

#[tokio::test]
async fn a_member_that_breaks_the_protocol_loses_that_connection_only() {
    let (mut one, two) = pair().await;
    two.network.shutdown().await;
    one.wait_for("disconnected").await;
    let greeting = |then: &[u8]| [&greeting(7), then].concat();
    let oversize = greeting(&u32::MAX.to_le_bytes());
    let malformed = greeting(&[2, 0, 0, 0, 0xff, 0xff]);
    let other_list = greeting(&frame::encode(&"list"));
    for bytes in [oversize, malformed, other_list] {
        let (_endpoint, connection) = connect(&two.identity, &one, tls::ALPN_MEMBER).await;
        let mut stream = connection.open_uni().await.unwrap();
        stream.write_all(&bytes).await.unwrap();
        assert_eq!(closed(&connection).await, Some(Close::Protocol), "{bytes:?}");
        one.wait_for("connected").await;
        one.wait_for("disconnected").await;
    }
    let no_greeting = [vec![99, 0, 0, 0, 0], vec![StreamKind::Tree as u8], vec![1, 1, 0, 0, 0, 0]];
    for bytes in no_greeting {
        let (_endpoint, connection) = connect(&two.identity, &one, tls::ALPN_MEMBER).await;
        let mut stream = connection.open_uni().await.unwrap();
        stream.write_all(&bytes).await.unwrap();
        assert_eq!(closed(&connection).await, Some(Close::Protocol), "{bytes:?}");
    }
    // One goes on as if nothing had been.
    let mut two = Device::start_in(two.home, "two").await;
    one.wait_for("connected two").await;
    two.wait_for("connected one").await;
}

#[tokio::test]
async fn streams_of_unknown_kind_are_refused_and_the_link_stays() {
    let (mut one, two) = pair().await;
    let link = &two.links[&one.id()];
    let (mut send, mut recv) = link.connection.open_bi().await.unwrap();
    send.write_all(&[200]).await.unwrap();
    assert!(recv.read_to_end(1).await.is_err());
    let mut uni = link.connection.open_uni().await.unwrap();
    uni.write_all(&[StreamKind::Circle as u8]).await.unwrap();
    assert!(uni.stopped().await.unwrap().is_some());
    let _uni = open_uni(&link.connection, StreamKind::Tree).await.unwrap();
    let _bi = open_bi(&link.connection, StreamKind::Fetch).await.unwrap();
    let link = one.links.get_mut(&two.id()).unwrap();
    assert_eq!(link.uni.recv().await.unwrap().0, StreamKind::Tree);
    assert_eq!(link.bi.recv().await.unwrap().0, StreamKind::Fetch);
}

#[tokio::test]
async fn a_member_may_send_much_before_it_is_read() {
    let (one, two) = pair().await;
    // Without the larger windows this would wait for ever, in one direction or the other.
    for (from, to) in [(&one, &two), (&two, &one)] {
        let link = &from.links[&to.id()];
        let mut stream = link.open_uni(StreamKind::Tree).await.unwrap();
        let much = vec![7; 15 << 20];
        timeout(PATIENCE, stream.write_all(&much)).await.expect("it waits").unwrap();
    }
}

#[tokio::test]
async fn a_taken_port_is_no_obstacle() {
    let one = Device::start("one").await;
    let taken = one.network.local_addr().unwrap().port();
    let endpoint = endpoint::open(&Identity::ephemeral(), Port::Preferred(taken)).unwrap();
    assert_ne!(endpoint.local_addr().unwrap().port(), taken);

    let named = endpoint::open(&Identity::ephemeral(), Port::Only(taken));
    let Err(EndpointError::Taken(port)) = named else {
        panic!("a port that a person named is kept to")
    };
    assert_eq!(port, taken);
}

/// A copy of a home whose device may be running, by the names of what it keeps: each is replaced
/// as a whole, and what it is replaced with stands beside it for a moment.
fn copied(home: &Path) -> TempDir {
    let copy = tempfile::tempdir().unwrap();
    let kept = ["identity", "circle"].map(|name| home.join(name));
    let done = std::process::Command::new("cp").arg("-a").args(kept).arg(copy.path()).status();
    assert!(done.unwrap().success());
    copy
}

#[tokio::test]
async fn two_machines_with_one_identity_are_both_told_by_a_third_device() {
    let (mut one, mut two) = pair().await;
    // Another home with what the second has.
    let mut twin = Device::start_in(copied(two.home.path()), "two").await;
    twin.network.connect_hint(one.address());
    twin.wait_for("connected one").await;
    // Each takes its turn, so that both hear of the other.
    two.network.connect_hint(one.address());
    two.wait_for("cloned").await;
    twin.wait_for("cloned").await;
    assert!(one.network.is_linked(two.id()));
    one.wait_for("connected two").await;
}

#[tokio::test]
async fn a_device_that_meets_its_own_key_tells_itself_from_another_machine() {
    let mut one = Device::start("one").await;
    // Its own process, at an address that it takes for another's: nothing comes of it.
    let shared = &one.network.shared;
    let dial = async |device: &Device| {
        let config = member_client(&one.identity, one.id()).unwrap();
        let (endpoint, to) = (&shared.endpoint, device.address());
        endpoint.connect_with(config, to, tls::SERVER_NAME).unwrap().await.unwrap()
    };
    super::session::meet_own_key(shared, dial(&one).await, true).await;
    let mut twin = Device::start_in(copied(one.home.path()), "one").await;
    super::session::meet_own_key(shared, dial(&twin).await, true).await;
    one.wait_for("cloned").await;
    twin.wait_for("cloned").await;
    assert!(one.events.try_recv().is_err(), "once, and not for itself");
}
