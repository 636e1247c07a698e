//! A link: the one connection to another device of the circle, and the streams on it.

use std::net::SocketAddr;

use kith_core::id::DeviceId;
use quinn::{Connection, ConnectionError, RecvStream, SendStream};
use tokio::sync::mpsc;

/// What a stream is for. The first byte of each stream says so.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StreamKind {
    /// The circle's list. The network itself takes these.
    Circle = 1,
    /// Changes of a share's tree.
    Tree = 2,
    /// Bytes that are asked for.
    Fetch = 3,
}

impl StreamKind {
    /// The kind that a stream's first byte stands for.
    #[must_use]
    pub fn from_byte(byte: u8) -> Option<StreamKind> {
        [StreamKind::Circle, StreamKind::Tree, StreamKind::Fetch]
            .into_iter()
            .find(|kind| *kind as u8 == byte)
    }
}

/// A connection to another device of the circle.
#[derive(Debug)]
pub struct Link {
    /// Which device.
    pub device: DeviceId,
    /// Its name when the link came to be.
    pub name: String,
    /// Where it is.
    pub address: SocketAddr,
    /// The connection. Whoever closes it ends the link.
    pub connection: Connection,
    /// Whether this device made the connection.
    pub initiator: bool,
    /// Streams that the other device opened, and that aren't answered. The first byte is read.
    pub uni: mpsc::Receiver<(StreamKind, RecvStream)>,
    /// Streams that the other device opened, and that are answered. The first byte is read.
    pub bi: mpsc::Receiver<(StreamKind, SendStream, RecvStream)>,
}

impl Link {
    /// Opens a stream that isn't answered.
    ///
    /// # Errors
    /// If the connection has ended.
    pub async fn open_uni(&self, kind: StreamKind) -> Result<SendStream, ConnectionError> {
        open_uni(&self.connection, kind).await
    }

    /// Opens a stream that is answered.
    ///
    /// # Errors
    /// If the connection has ended.
    pub async fn open_bi(
        &self,
        kind: StreamKind,
    ) -> Result<(SendStream, RecvStream), ConnectionError> {
        open_bi(&self.connection, kind).await
    }
}

/// Opens a stream that isn't answered. Waits while as many are open as the other device allows.
///
/// # Errors
/// If the connection has ended.
pub async fn open_uni(
    connection: &Connection,
    kind: StreamKind,
) -> Result<SendStream, ConnectionError> {
    let mut stream = connection.open_uni().await?;
    // The byte is only queued here; it fails only if the connection has ended, as later writes do.
    let _ = stream.write_all(&[kind as u8]).await;
    Ok(stream)
}

/// Opens a stream that is answered. Waits while as many are open as the other device allows.
///
/// # Errors
/// If the connection has ended.
pub async fn open_bi(
    connection: &Connection,
    kind: StreamKind,
) -> Result<(SendStream, RecvStream), ConnectionError> {
    let (mut send, recv) = connection.open_bi().await?;
    let _ = send.write_all(&[kind as u8]).await;
    Ok((send, recv))
}
