//! The socket on which the control API is asked, for its owner only.

use crate::paths::{Paths, PathsError};
use axum::serve::Listener;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long accepting pauses when the system has no more descriptors.
const PAUSE: Duration = Duration::from_millis(250);

/// Why the control socket can't be had.
#[derive(Debug, thiserror::Error)]
pub enum ControlSocketError {
    /// Its directory can't be used.
    #[error(transparent)]
    Paths(#[from] PathsError),
    /// Somebody answers on it.
    #[error("another program already listens on {path}")]
    Taken {
        /// The socket.
        path: PathBuf,
    },
    /// It can't be made.
    #[error("the control socket {path} cannot be made: {cause}")]
    Unusable {
        /// The socket.
        path: PathBuf,
        /// Why.
        cause: io::Error,
    },
}

/// The bound control socket. Its file goes away with it.
#[derive(Debug)]
pub struct ControlSocket {
    pub(super) listener: UnixListener,
    file: SocketFile,
}

impl ControlSocket {
    /// Binds the socket of `paths` with mode 0600 in a directory that only its owner may enter.
    /// A file that a dead daemon left is replaced; where somebody answers, nothing is touched.
    ///
    /// # Errors
    /// See [`ControlSocketError`].
    pub fn bind(paths: &Paths) -> Result<ControlSocket, ControlSocketError> {
        paths.make_runtime()?;
        let path = paths.socket();
        let unusable = |cause| ControlSocketError::Unusable { path: path.clone(), cause };
        let listener = match UnixListener::bind(&path) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                if UnixStream::connect(&path).is_ok() {
                    return Err(ControlSocketError::Taken { path });
                }
                fs::remove_file(&path).map_err(unusable)?;
                UnixListener::bind(&path)
            }
            bound => bound,
        }
        .map_err(unusable)?;
        let file = SocketFile { path: path.clone() };
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).map_err(unusable)?;
        listener.set_nonblocking(true).map_err(unusable)?;
        Ok(ControlSocket { listener, file })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.file.path
    }

    /// Takes it apart; the file goes away when the second part is dropped.
    pub(super) fn split(self) -> (UnixListener, SocketFile) {
        (self.listener, self.file)
    }
}

/// The file of a socket, removed on drop.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.path) {
            tracing::debug!(path = %self.path.display(), %error, "the control socket stays behind");
        }
    }
}

/// Accepts this user and root, and nobody else, whatever the file's mode has become.
pub(super) struct OwnListener(pub(super) tokio::net::UnixListener);

impl Listener for OwnListener {
    type Io = tokio::net::UnixStream;
    type Addr = tokio::net::unix::SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            match self.0.accept().await {
                Ok((stream, address)) => match stream.peer_cred() {
                    Ok(peer) if may_ask(peer.uid()) => return (stream, address),
                    Ok(peer) => {
                        tracing::warn!(user = peer.uid(), "a stranger was turned away");
                    }
                    Err(error) => tracing::debug!(%error, "a caller without credentials"),
                },
                Err(error) => {
                    tracing::warn!(%error, "the control socket accepts nobody for a moment");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.0.local_addr()
    }
}

fn may_ask(user: u32) -> bool {
    user == 0 || user == rustix::process::geteuid().as_raw()
}
