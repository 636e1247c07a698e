//! A client of the control API: blocking calls, and lines of the answers that go on.

use crate::diagnosis::DoctorReport;
use crate::event::Event;
use crate::pairing::{InviteLine, Join, Joined};
use crate::refusal::ErrorBody;
use crate::status::{DeviceList, DeviceRef, Mean, Meant, Rename, ShareList, Status};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::{Method, Request, Response, StatusCode, header};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::VecDeque;
use std::io;
use std::marker::PhantomData;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::net::UnixStream;
use tokio::runtime::Runtime;

/// How long an answer may take that needs nobody else.
const PATIENCE: Duration = Duration::from_secs(15);
/// How long joining may take: finding the other device, and talking to it.
const JOIN_PATIENCE: Duration = Duration::from_secs(120);
/// The largest answer that is read whole.
const ANSWER_BYTES: usize = 16 << 20;
/// The longest line of an answer that goes on.
const LINE_BYTES: usize = 1 << 20;

/// Why a call to the daemon failed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens on the socket.
    #[error("Kith is not running here.")]
    NotRunning(#[source] io::Error),
    /// The daemon answered, and refused.
    #[error("{}", .0.error)]
    Refused(ErrorBody),
    /// The daemon took too long.
    #[error("Kith did not answer within {} seconds.", .0.as_secs())]
    TooSlow(Duration),
    /// The connection broke off: the daemon has ended, or is about to.
    #[error("Kith went away before it had answered.")]
    Broken(#[source] hyper::Error),
    /// What came back is not what this version of Kith understands.
    #[error("Kith's answer could not be read: {0}")]
    Unreadable(String),
    /// This process lacks something that a call needs.
    #[error("This program could not talk to Kith: {0}")]
    Local(#[source] io::Error),
}

impl ClientError {
    /// What to try next, in one line; empty if there is nothing to add.
    #[must_use]
    pub fn hint(&self) -> &str {
        match self {
            ClientError::NotRunning(cause) if cause.kind() == io::ErrorKind::PermissionDenied => {
                "Its socket belongs to another user: run this as the user who started Kith."
            }
            ClientError::NotRunning(_) => "Start it with `kith up`.",
            ClientError::Refused(body) => &body.hint,
            ClientError::TooSlow(_) => "Try again; if it stays so, `kith down` and `kith up`.",
            ClientError::Broken(_) => "`kith up` starts it again; its log may say why it ended.",
            ClientError::Unreadable(_) => {
                "If Kith was updated, restart it: `kith down` and then `kith up`."
            }
            ClientError::Local(_) => "",
        }
    }

    /// Nobody listens on the socket, or nobody does any more.
    #[must_use]
    pub fn is_not_running(&self) -> bool {
        matches!(self, ClientError::NotRunning(_) | ClientError::Broken(_))
    }
}

/// Asks one daemon. Each call is a connection of its own.
#[derive(Clone, Debug)]
pub struct Client {
    socket: PathBuf,
}

impl Client {
    /// A client of the daemon that listens on `socket`. Nothing happens until the first call.
    #[must_use]
    pub fn new(socket: PathBuf) -> Self {
        Client { socket }
    }

    /// The socket that it asks.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// `GET /v1/status`.
    ///
    /// # Errors
    /// Every call fails as [`ClientError`] says.
    pub fn status(&self) -> Result<Status, ClientError> {
        self.ask(Method::GET, "/v1/status", None::<&()>, PATIENCE)
    }

    /// `GET /v1/devices`.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn devices(&self) -> Result<DeviceList, ClientError> {
        self.ask(Method::GET, "/v1/devices", None::<&()>, PATIENCE)
    }

    /// `PATCH /v1/devices/DEVICE`: `device` is a name, an id, or the beginning of one.
    ///
    /// # Errors
    /// See [`ClientError`]; refused if no device or several match.
    pub fn rename_device(&self, device: &str, name: &str) -> Result<DeviceRef, ClientError> {
        let path = format!("/v1/devices/{}", segment(device));
        self.ask(Method::PATCH, &path, Some(&Rename { name: name.to_owned() }), PATIENCE)
    }

    /// `DELETE /v1/devices/DEVICE`: `device` is a name, an id, or the beginning of one.
    ///
    /// # Errors
    /// See [`ClientError`]; refused if no device or several match.
    pub fn remove_device(&self, device: &str) -> Result<DeviceRef, ClientError> {
        let path = format!("/v1/devices/{}", segment(device));
        self.ask(Method::DELETE, &path, None::<&()>, PATIENCE)
    }

    /// `GET /v1/shares`.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn shares(&self) -> Result<ShareList, ClientError> {
        self.ask(Method::GET, "/v1/shares", None::<&()>, PATIENCE)
    }

    /// `POST /v1/meant`: a person meant what a device, or all of them, removed or overwrote.
    ///
    /// # Errors
    /// See [`ClientError`]; refused if there is no such device.
    pub fn mean(&self, mean: &Mean) -> Result<Meant, ClientError> {
        self.ask(Method::POST, "/v1/meant", Some(mean), PATIENCE)
    }

    /// `GET /v1/doctor`.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn doctor(&self) -> Result<DoctorReport, ClientError> {
        self.ask(Method::GET, "/v1/doctor", None::<&()>, PATIENCE)
    }

    /// `POST /v1/join`. May take many seconds.
    ///
    /// # Errors
    /// See [`ClientError`]; refused with the reason if nothing was joined.
    pub fn join(&self, join: &Join) -> Result<Joined, ClientError> {
        self.ask(Method::POST, "/v1/join", Some(join), JOIN_PATIENCE)
    }

    /// `POST /v1/stop`: the daemon begins to stop. It is gone a little later.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn stop(&self) -> Result<(), ClientError> {
        self.ask::<serde_json::Value>(Method::POST, "/v1/stop", None::<&()>, PATIENCE).map(drop)
    }

    /// `POST /v1/restart`: the daemon begins to start again. It answers under another
    /// [`run`](crate::status::ThisDevice::run) a little later.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn restart(&self) -> Result<(), ClientError> {
        self.ask::<serde_json::Value>(Method::POST, "/v1/restart", None::<&()>, PATIENCE).map(drop)
    }

    /// `POST /v1/invite`: the code, and then what becomes of it. Dropping the lines withdraws it.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn invite(&self) -> Result<Lines<InviteLine>, ClientError> {
        self.follow(Method::POST, "/v1/invite")
    }

    /// `GET /v1/events`: what happens from now on.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn events(&self) -> Result<Lines<Event>, ClientError> {
        self.follow(Method::GET, "/v1/events")
    }

    fn ask<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&impl Serialize>,
        patience: Duration,
    ) -> Result<T, ClientError> {
        let request = request(method, path, body)?;
        runtime()?.block_on(async {
            let answer = async {
                let response = send(&self.socket, request).await?;
                let status = response.status();
                let bytes = whole(response.into_body()).await?;
                read(status, &bytes)
            };
            tokio::time::timeout(patience, answer)
                .await
                .unwrap_or(Err(ClientError::TooSlow(patience)))
        })
    }

    fn follow<T>(&self, method: Method, path: &str) -> Result<Lines<T>, ClientError> {
        let request = request(method, path, None::<&()>)?;
        let runtime = runtime()?;
        let body = runtime.block_on(async {
            let begin = async {
                let response = send(&self.socket, request).await?;
                if response.status().is_success() {
                    return Ok(response.into_body());
                }
                let status = response.status();
                let bytes = whole(response.into_body()).await?;
                read::<serde_json::Value>(status, &bytes)
                    .and(Err(ClientError::Unreadable(format!("status {status}"))))
            };
            tokio::time::timeout(PATIENCE, begin)
                .await
                .unwrap_or(Err(ClientError::TooSlow(PATIENCE)))
        })?;
        Ok(Lines {
            runtime,
            body,
            begun: Vec::new(),
            ready: VecDeque::new(),
            ended: false,
            of: PhantomData,
        })
    }
}

/// An answer that goes on, one value a line, until the daemon ends it or this is dropped.
pub struct Lines<T> {
    runtime: Runtime,
    body: Incoming,
    begun: Vec<u8>,
    ready: VecDeque<String>,
    ended: bool,
    of: PhantomData<fn() -> T>,
}

impl<T: DeserializeOwned> Iterator for Lines<T> {
    type Item = Result<T, ClientError>;

    /// Waits for the next value.
    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(line) = self.ready.pop_front() {
                let value = serde_json::from_str(&line);
                return Some(value.map_err(|error| ClientError::Unreadable(error.to_string())));
            }
            if self.ended {
                return None;
            }
            match self.runtime.block_on(self.body.frame()) {
                None => self.ended = true,
                Some(Err(error)) => {
                    self.ended = true;
                    return Some(Err(ClientError::Broken(error)));
                }
                Some(Ok(frame)) => {
                    if let Some(data) = frame.data_ref() {
                        self.take(data);
                    }
                    if self.begun.len() > LINE_BYTES {
                        self.ended = true;
                        return Some(Err(ClientError::Unreadable("a line is too long".into())));
                    }
                }
            }
        }
    }
}

impl<T> Lines<T> {
    /// Cuts what arrived into lines, and keeps those that carry a value: a line of JSON, or the
    /// `data:` line of a server-sent event.
    fn take(&mut self, mut data: &[u8]) {
        while let Some(end) = data.iter().position(|&byte| byte == b'\n') {
            self.begun.extend_from_slice(&data[..end]);
            data = &data[end + 1..];
            let line = std::mem::take(&mut self.begun);
            let line = String::from_utf8_lossy(&line);
            let line = line.trim();
            let value = line.strip_prefix("data:").unwrap_or(line).trim_start();
            if value.starts_with('{') {
                self.ready.push_back(value.to_owned());
            }
        }
        self.begun.extend_from_slice(data);
    }
}

fn runtime() -> Result<Runtime, ClientError> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(ClientError::Local)
}

fn request(
    method: Method,
    path: &str,
    body: Option<&impl Serialize>,
) -> Result<Request<Full<Bytes>>, ClientError> {
    let unfit = |error: &dyn std::error::Error| {
        ClientError::Local(io::Error::new(io::ErrorKind::InvalidInput, error.to_string()))
    };
    let body = match body {
        Some(body) => serde_json::to_vec(body).map_err(|error| unfit(&error))?,
        None => Vec::new(),
    };
    Request::builder()
        .method(method)
        .uri(path)
        .header(header::HOST, "kith")
        .header(header::CONTENT_TYPE, "application/json")
        .body(Full::new(Bytes::from(body)))
        .map_err(|error| unfit(&error))
}

async fn send(
    socket: &Path,
    request: Request<Full<Bytes>>,
) -> Result<Response<Incoming>, ClientError> {
    let stream = UnixStream::connect(socket).await.map_err(ClientError::NotRunning)?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(ClientError::Broken)?;
    // It ends with the answer, or with the runtime of this call.
    tokio::spawn(connection);
    sender.send_request(request).await.map_err(ClientError::Broken)
}

async fn whole(body: Incoming) -> Result<Bytes, ClientError> {
    let body = Limited::new(body, ANSWER_BYTES).collect().await;
    match body {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) => Err(match error.downcast::<hyper::Error>() {
            Ok(error) => ClientError::Broken(*error),
            Err(error) => ClientError::Unreadable(error.to_string()),
        }),
    }
}

fn read<T: DeserializeOwned>(status: StatusCode, bytes: &[u8]) -> Result<T, ClientError> {
    if status.is_success() {
        return serde_json::from_slice(bytes)
            .map_err(|error| ClientError::Unreadable(error.to_string()));
    }
    Err(match serde_json::from_slice(bytes) {
        Ok(body) => ClientError::Refused(body),
        Err(_) => ClientError::Unreadable(format!("status {status}")),
    })
}

/// One segment of a path, everything but letters, digits and `-_.` escaped.
fn segment(text: &str) -> String {
    let mut escaped = String::new();
    for byte in text.bytes() {
        // A segment of dots alone would be read as a step in the path.
        let dots = text.bytes().all(|byte| byte == b'.');
        if byte.is_ascii_alphanumeric() || b"-_.".contains(&byte) && !dots {
            escaped.push(char::from(byte));
        } else {
            escaped.push_str(&format!("%{byte:02X}"));
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_name_fits_into_a_path() {
        for (name, path) in [
            ("desktop", "desktop"),
            ("Anna's phone", "Anna%27s%20phone"),
            ("a/b?c#d", "a%2Fb%3Fc%23d"),
            ("..", "%2E%2E"),
            ("küche", "k%C3%BCche"),
        ] {
            assert_eq!(segment(name), path);
        }
    }

    #[test]
    fn a_socket_without_a_daemon_says_how_to_start_it() {
        let client = Client::new(PathBuf::from("/nonexistent/kith.sock"));
        let error = client.status().unwrap_err();
        assert!(error.is_not_running());
        assert_eq!(error.to_string(), "Kith is not running here.");
        assert_eq!(error.hint(), "Start it with `kith up`.");
    }

    #[test]
    fn a_daemon_that_dies_before_it_answers_is_not_running() {
        let name = format!("kith-dies-{}.sock", std::process::id());
        let socket = std::env::temp_dir().join(name);
        let listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        let dying = std::thread::spawn(move || drop(listener.accept().unwrap()));
        let error = Client::new(socket.clone()).status().unwrap_err();
        dying.join().unwrap();
        std::fs::remove_file(socket).unwrap();
        assert!(matches!(error, ClientError::Broken(_)), "{error:?}");
        assert!(error.is_not_running());
    }

    #[test]
    fn a_refusal_without_a_body_is_named_by_its_status() {
        let error = read::<Status>(StatusCode::BAD_GATEWAY, b"<html>").unwrap_err();
        assert!(error.to_string().contains("502"), "{error}");
    }
}
