//! The real client against the real server, with a steward that has nothing behind it.

use super::*;
use crate::paths::Paths;
use crate::steward::{ControlError, ControlErrorKind, InviteStream, Joining, Steward};
use kith_control::client::{Client, ClientError};
use kith_control::diagnosis::{Check, DoctorReport};
use kith_control::event::{Event, Happening};
use kith_control::moment::Moment;
use kith_control::pairing::{Invitation, InviteLine, Join, Joined};
use kith_control::status::{
    DeviceList, DeviceRef, DeviceStatus, MassChange, Mean, Member, ShareState, ShareStatus, Status,
    ThisDevice,
};
use kith_core::id::DeviceId;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, mpsc as channel};
use std::time::Instant;
use tokio::sync::{broadcast, mpsc};

const OTHER: DeviceId = DeviceId([0xab; 32]);

/// Answers with fixed facts, and tells the test what it was asked to do.
struct Fixed {
    events: broadcast::Sender<Event>,
    outcome: Mutex<Option<mpsc::Receiver<InviteLine>>>,
    told: channel::Sender<String>,
}

fn other() -> DeviceRef {
    DeviceRef { id: OTHER.to_string(), name: "desktop".into() }
}

fn shares() -> Vec<ShareStatus> {
    vec![ShareStatus {
        name: "Kith".into(),
        id: "00".repeat(16),
        mount: Some("/home/anna/Kith".into()),
        state: ShareState::Syncing,
        entries: 3,
        bytes: 4096,
        missing_bytes: 1024,
        conflicts: 0,
        problem: None,
        mass_changes: Vec::new(),
    }]
}

fn mass_change() -> MassChange {
    MassChange {
        device: "desktop".into(),
        removed: 300,
        overwritten: 0,
        bytes: 4096,
        files: 303,
        from: Moment::from_unix_ms(0),
        to: Moment::from_unix_ms(60_000),
    }
}

impl Steward for Fixed {
    fn status(&self) -> Result<Status, ControlError> {
        Ok(Status {
            device: ThisDevice {
                cloned: None,
                id: "cd".repeat(32),
                name: "laptop".into(),
                version: "0.1.0".into(),
                port: Some(5484),
                addresses: vec!["192.0.2.1:5484".into()],
                uptime_seconds: 1,
                run: "1f".into(),
                went_on: false,
            },
            shares: shares(),
            devices: vec![DeviceStatus {
                id: other().id,
                name: other().name,
                connected: true,
                address: Some("192.0.2.2:5484".into()),
                missing_bytes: Some(0),
                last_seen: None,
            }],
        })
    }

    fn devices(&self) -> DeviceList {
        DeviceList {
            devices: vec![Member {
                id: other().id,
                name: other().name,
                this: false,
                connected: true,
                address: None,
                last_seen: None,
            }],
        }
    }

    fn shares(&self) -> Result<Vec<ShareStatus>, ControlError> {
        Ok(shares())
    }

    fn invite(&self) -> Result<InviteStream, ControlError> {
        let outcome = self.outcome.lock().unwrap().take().ok_or_else(|| {
            ControlError::new(ControlErrorKind::Refused, "An invitation is open.", "Wait.")
        })?;
        let invitation =
            Invitation { code: "7-mango-elephant".into(), addresses: Vec::new(), expires: None };
        Ok(InviteStream { invitation, outcome })
    }

    fn join<'a>(&'a self, code: &'a str, addresses: &'a [String]) -> Joining<'a> {
        Box::pin(async move {
            self.told.send(format!("join {code} {addresses:?}")).unwrap();
            if code == "7-mango-elephant" {
                Ok(Joined { device: other(), mount: None })
            } else {
                Err(ControlError::new(ControlErrorKind::Peer, "The code is wrong.", "Ask again."))
            }
        })
    }

    fn rename_device(&self, id: DeviceId, name: &str) -> Result<DeviceRef, ControlError> {
        assert_eq!(id, OTHER);
        Ok(DeviceRef { id: id.to_string(), name: name.into() })
    }

    fn remove_device(&self, id: DeviceId) -> Result<DeviceRef, ControlError> {
        assert_eq!(id, OTHER);
        Ok(other())
    }

    fn mean(&self, device: Option<&str>) -> Result<Vec<MassChange>, ControlError> {
        let known = device.is_none_or(|device| device == "desktop");
        Ok(if known { vec![mass_change()] } else { Vec::new() })
    }

    fn events(&self) -> broadcast::Receiver<Event> {
        self.events.subscribe()
    }

    fn doctor(&self) -> DoctorReport {
        DoctorReport { checks: vec![Check::ok("port", "UDP 5484 is open.")] }
    }

    fn stop(&self) {
        self.told.send("stop".into()).unwrap();
    }

    fn start_again(&self) {
        self.told.send("start again".into()).unwrap();
    }
}

/// A running server, and what a test holds of it.
struct Running {
    home: tempfile::TempDir,
    server: ControlServer,
    client: Client,
    events: broadcast::Sender<Event>,
    outcome: mpsc::Sender<InviteLine>,
    told: channel::Receiver<String>,
}

fn running() -> Running {
    let home = tempfile::tempdir().unwrap();
    let paths = Paths::find(Some(home.path())).unwrap();
    let (events, _) = broadcast::channel(4);
    let (outcome, lines) = mpsc::channel(4);
    let (told, heard) = channel::channel();
    let steward = Fixed { events: events.clone(), outcome: Mutex::new(Some(lines)), told };
    let socket = ControlSocket::bind(&paths).unwrap();
    let client = Client::new(socket.path().to_owned());
    let server = ControlServer::start(socket, Arc::new(steward)).unwrap();
    Running { home, server, client, events, outcome, told: heard }
}

fn refused(error: ClientError) -> (String, String) {
    let ClientError::Refused(body) = error else { panic!("not a refusal: {error:?}") };
    (body.error, body.hint)
}

#[test]
fn every_question_has_its_answer() {
    let running = running();
    let client = &running.client;
    assert_eq!(client.status().unwrap().shares, shares());
    assert_eq!(client.shares().unwrap().shares, shares());
    assert_eq!(client.devices().unwrap().devices[0].name, "desktop");
    assert_eq!(client.doctor().unwrap().checks[0].name, "port");
    assert_eq!(client.rename_device("DESKTOP", "tower of ü").unwrap().name, "tower of ü");
    assert_eq!(client.remove_device("abab").unwrap(), other());
    client.stop().unwrap();
    assert_eq!(running.told.recv().unwrap(), "stop");
    client.restart().unwrap();
    assert_eq!(running.told.recv().unwrap(), "start again");
}

#[test]
fn joining_answers_with_who_was_joined_or_why_not() {
    let running = running();
    let join = |code: &str, addresses: &[&str]| {
        let addresses = addresses.iter().map(ToString::to_string).collect();
        running.client.join(&Join { code: code.into(), addresses })
    };
    let joined = join(" 7-mango-elephant\n", &["192.0.2.1:5484"]).unwrap();
    assert_eq!(joined.device, other());
    assert_eq!(running.told.recv().unwrap(), r#"join 7-mango-elephant ["192.0.2.1:5484"]"#);

    let wrong = refused(join("1-a-b", &[]).unwrap_err());
    assert_eq!(wrong, ("The code is wrong.".into(), "Ask again.".into()));
    assert!(refused(join("", &[]).unwrap_err()).0.contains("not an invitation code"));
    assert!(refused(join("1-a-b", &["here"]).unwrap_err()).0.contains("is not HOST:PORT"));
    assert!(refused(join("1-a-b", &["a:1"; 17]).unwrap_err()).0.contains("More than 16"));
}

#[test]
fn what_was_meant_is_said_by_a_device_s_name_or_id_or_of_all() {
    let running = running();
    let mean = |device: Option<&str>| running.client.mean(&Mean { device: device.map(Into::into) });
    for device in [None, Some("desktop"), Some("DESKTOP"), Some("abab")] {
        assert_eq!(mean(device).unwrap().meant, [mass_change()], "{device:?}");
    }
    let (error, _) = refused(mean(Some("phone")).unwrap_err());
    assert_eq!(error, "No device is called \"phone\".");
}

#[test]
fn an_unknown_device_or_name_is_refused_in_words() {
    let running = running();
    let (error, hint) = refused(running.client.remove_device("phone").unwrap_err());
    assert_eq!(error, "No device is called \"phone\".");
    assert!(hint.contains("kith devices list"));
    let (error, _) = refused(running.client.rename_device("desktop", "a/b").unwrap_err());
    assert_eq!(error, "A device's name must be one line without / and without spaces around it.");
}

#[test]
fn an_invitation_tells_its_code_at_once_and_then_who_joined() {
    let running = running();
    let mut lines = running.client.invite().unwrap();
    let first = lines.next().unwrap().unwrap();
    let InviteLine::Code(invitation) = first else { panic!("{first:?}") };
    assert_eq!(invitation.code, "7-mango-elephant");

    let (error, _) = refused(running.client.invite().map(drop).unwrap_err());
    assert_eq!(error, "An invitation is open.");

    running.outcome.blocking_send(InviteLine::WrongGuess { guesses_left: 2 }).unwrap();
    running.outcome.blocking_send(InviteLine::Joined { joined: other() }).unwrap();
    assert_eq!(lines.next().unwrap().unwrap(), InviteLine::WrongGuess { guesses_left: 2 });
    assert_eq!(lines.next().unwrap().unwrap(), InviteLine::Joined { joined: other() });
    assert!(lines.next().is_none());
}

#[test]
fn an_invitation_ends_when_nobody_listens_any_more() {
    let running = running();
    let mut lines = running.client.invite().unwrap();
    lines.next().unwrap().unwrap();
    drop(lines);
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(running.outcome.closed());
}

#[test]
fn events_arrive_and_a_slow_listener_is_told_what_it_missed() {
    let running = running();
    let mut events = running.client.events().unwrap();
    let joined = |name: &str| {
        Event::now(Happening::DeviceJoined { id: OTHER.to_string(), name: name.into() })
    };
    running.events.send(joined("desktop")).unwrap();
    let Happening::DeviceJoined { name, .. } = events.next().unwrap().unwrap().what else {
        panic!("another event")
    };
    assert_eq!(name, "desktop");

    // Nobody reads meanwhile: what doesn't fit on the way is counted.
    let long = "x".repeat(100_000);
    let mut sent = 0;
    for _ in 0..100 {
        running.events.send(joined(&long)).unwrap();
        sent += 1;
    }
    let mut seen = 0;
    let mut missed = 0;
    while seen + missed < sent {
        match events.next().unwrap().unwrap().what {
            Happening::DeviceJoined { .. } => seen += 1,
            Happening::Lagged { missed: count } => missed += count,
            other => panic!("{other:?}"),
        }
    }
    assert!(missed > 0);
}

#[test]
fn stopping_ends_open_streams_within_a_second_and_removes_the_socket() {
    let Running { home, server, client, outcome: _outcome, .. } = running();
    let mut events = client.events().unwrap();
    let mut lines = client.invite().unwrap();
    lines.next().unwrap().unwrap();
    // A caller that never finishes its question, and one that never begins.
    let mut half = UnixStream::connect(client.socket()).unwrap();
    half.write_all(b"POST /v1/join HTTP/1.1\r\nHost: kith\r\nContent-Length: 10\r\n\r\n{").unwrap();
    let _silent = UnixStream::connect(client.socket()).unwrap();
    client.status().unwrap();

    let begun = Instant::now();
    server.stop();
    assert!(begun.elapsed() < STOP_GRACE * 2, "{:?}", begun.elapsed());
    assert_eq!(events.next().unwrap().unwrap().what, Happening::Stopping);
    assert!(matches!(lines.next().unwrap().unwrap(), InviteLine::Failed { .. }));
    assert!(!client.socket().exists());
    assert!(client.status().unwrap_err().is_not_running());
    drop(home);
}

#[test]
fn the_socket_is_its_owners_alone() {
    let running = running();
    let mode = |path: &std::path::Path| {
        std::fs::symlink_metadata(path).unwrap().permissions().mode() & 0o777
    };
    assert_eq!(mode(running.client.socket()), 0o600);
    assert_eq!(mode(running.client.socket().parent().unwrap()), 0o700);
    assert!(running.client.socket().starts_with(running.home.path().canonicalize().unwrap()));
}

#[test]
fn a_dead_daemons_socket_is_replaced_and_a_living_ones_is_not() {
    let home = tempfile::tempdir().unwrap();
    let paths = Paths::find(Some(home.path())).unwrap();
    paths.make_runtime().unwrap();
    drop(std::os::unix::net::UnixListener::bind(paths.socket()).unwrap());
    assert!(paths.socket().exists());
    let _living = ControlSocket::bind(&paths).unwrap();
    assert!(matches!(ControlSocket::bind(&paths), Err(ControlSocketError::Taken { .. })));
    assert!(paths.socket().exists());
}

#[test]
fn plain_http_gets_plain_answers() {
    let running = running();
    let long = format!(
        "POST /v1/join HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: {}\r\n{}",
        100_000, "Connection: close\r\nHost: x\r\n\r\n"
    );
    for (request, status, part) in [
        ("GET /v1/status HTTP/1.0\r\n\r\n", "200 OK", "\"state\":\"syncing\""),
        ("GET /v2 HTTP/1.0\r\n\r\n", "404 Not Found", "There is nothing here to ask."),
        ("POST /v1/status HTTP/1.0\r\n\r\n", "405 Method Not Allowed", "\"error\":"),
        ("POST /v1/join HTTP/1.0\r\n\r\n", "400 Bad Request", "\"hint\":"),
        (
            "POST /v1/join HTTP/1.0\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n{\"x\": 12}",
            "400 Bad Request",
            "unknown field",
        ),
        (long.as_str(), "400 Bad Request", "\"error\":"),
    ] {
        let mut stream = UnixStream::connect(running.client.socket()).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        if request == long {
            // The server may hang up before it has read everything.
            let _ = stream.write_all(&[b'x'; 100_000]);
        }
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let first = answer.lines().next().unwrap();
        assert!(first.ends_with(status), "{request}: {answer}");
        assert!(answer.contains(part), "{request}: {answer}");
    }
}
