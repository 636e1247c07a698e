//! The one UDP socket of a daemon, and QUIC on it, tuned as measured (two hosts, MTU 1500: 9
//! Gbit/s without a lost packet, where the defaults lose thousands).

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use kith_core::id::DeviceId;
use quinn::congestion::CubicConfig;
use quinn::{
    ClientConfig, Endpoint, EndpointConfig, IdleTimeout, MtuDiscoveryConfig, ServerConfig,
    TokioRuntime, TransportConfig, VarInt,
};
use rustix::net::sockopt;
use socket2::{Domain, Protocol, Socket, Type};

use super::tls;
use crate::identity::Identity;

/// How many streams the other device may have open in each direction, and how much it may send
/// before it is read.
#[derive(Clone, Copy, Debug)]
pub struct Allowance {
    /// Streams that are answered.
    pub bi: u32,
    /// Streams that are not.
    pub uni: u32,
    /// Bytes on the connection.
    pub window: u32,
}

/// What a device of the circle may do.
pub const MEMBER: Allowance = Allowance { bi: 64, uni: 16, window: 32 << 20 };
/// What a device may do of which nothing is known yet.
pub const STRANGER: Allowance = Allowance { bi: 1, uni: 1, window: 64 << 10 };

impl Allowance {
    /// Lets the other end of `connection` do as much as this from now on.
    pub fn grant(self, connection: &quinn::Connection) {
        connection.set_receive_window(VarInt::from_u32(self.window));
        connection.set_max_concurrent_bi_streams(VarInt::from_u32(self.bi));
        connection.set_max_concurrent_uni_streams(VarInt::from_u32(self.uni));
    }
}

/// The window of one stream.
const STREAM_WINDOW: u32 = 16 << 20;
/// What is sent before it is acknowledged.
const SEND_WINDOW: u64 = 32 << 20;
const SOCKET_BUFFER: usize = 8 << 20;
/// Beyond this ten segments of one send no longer fit a datagram of the kernel, and all collapses.
const MTU_MAX: u16 = 6500;
/// Silence after which a connection is given up.
pub const IDLE: Duration = Duration::from_secs(8);
const KEEP_ALIVE: Duration = Duration::from_secs(2);
/// The network is local: half a second and more until a lost first packet is sent again is long.
const INITIAL_RTT: Duration = Duration::from_millis(100);
/// Handshakes that wait to be looked at.
const INCOMING_MAX: usize = 64;

fn transport(allowance: Allowance) -> Arc<TransportConfig> {
    let mut mtu = MtuDiscoveryConfig::default();
    mtu.upper_bound(MTU_MAX);
    let mut config = TransportConfig::default();
    config
        .max_concurrent_bidi_streams(VarInt::from_u32(allowance.bi))
        .max_concurrent_uni_streams(VarInt::from_u32(allowance.uni))
        .receive_window(VarInt::from_u32(allowance.window))
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW))
        .send_window(SEND_WINDOW)
        .datagram_receive_buffer_size(None)
        .congestion_controller_factory(Arc::new(CubicConfig::default()))
        .mtu_discovery_config(Some(mtu))
        .keep_alive_interval(Some(KEEP_ALIVE))
        .initial_rtt(INITIAL_RTT)
        .max_idle_timeout(Some(IdleTimeout::try_from(IDLE).expect("seconds fit")));
    Arc::new(config)
}

/// How to connect as a member to the device `expected`.
///
/// # Errors
/// If the identity's key isn't one that TLS can use.
pub fn member_client(
    identity: &Identity,
    expected: DeviceId,
) -> Result<ClientConfig, rustls::Error> {
    let tls = tls::client(identity, tls::ALPN_MEMBER, Some(expected))?;
    let mut config = ClientConfig::new(Arc::new(tls));
    config.transport_config(transport(MEMBER));
    Ok(config)
}

/// How to connect to a device that isn't known, to pair.
///
/// # Errors
/// If the identity's key isn't one that TLS can use.
pub fn pairing_client(identity: &Identity) -> Result<ClientConfig, rustls::Error> {
    let tls = tls::client(identity, tls::ALPN_PAIRING, None)?;
    let mut config = ClientConfig::new(Arc::new(tls));
    config.transport_config(transport(Allowance { bi: 0, uni: 0, window: 256 << 10 }));
    Ok(config)
}

/// A UDP port to listen on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Port {
    /// This one, or any other if it is taken; 0 is any.
    Preferred(u16),
    /// This one and no other: a person named it, and may have opened a firewall for it.
    Only(u16),
}

/// Opens the endpoint on `port`. Must be called on the runtime that is to drive it.
///
/// # Errors
/// If there is no UDP socket to be had, or the identity's key isn't one that TLS can use.
pub fn open(identity: &Identity, port: Port) -> Result<Endpoint, EndpointError> {
    let (Port::Preferred(number) | Port::Only(number)) = port;
    let socket = match bind(number) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse && port == Port::Only(number) => {
            return Err(EndpointError::Taken(number));
        }
        Err(error) if error.kind() == io::ErrorKind::AddrInUse && number != 0 => {
            let socket = bind(0).map_err(EndpointError::Socket)?;
            let other = socket.local_addr().map_err(EndpointError::Socket)?.port();
            tracing::warn!("UDP port {number} is taken; using {other}");
            socket
        }
        other => other.map_err(EndpointError::Socket)?,
    };
    let mut server = ServerConfig::with_crypto(Arc::new(tls::server(identity)?));
    server.transport_config(transport(STRANGER)).max_incoming(INCOMING_MAX);
    let mut config = EndpointConfig::default();
    config.max_udp_payload_size(MTU_MAX).expect("the bound is within what UDP carries");
    Endpoint::new(config, Some(server), socket, Arc::new(TokioRuntime))
        .map_err(EndpointError::Socket)
}

/// A socket for both versions of IP, or for IPv4 where there is no other.
fn bind(port: u16) -> io::Result<UdpSocket> {
    let any6 = SocketAddr::from((Ipv6Addr::UNSPECIFIED, port));
    let any4 = SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
    let socket = match dual(any6) {
        Err(error) if error.kind() != io::ErrorKind::AddrInUse => {
            let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
            socket.bind(&any4.into())?;
            socket
        }
        other => other?,
    };
    // Best effort: the system may allow less. Root may exceed its limit.
    if sockopt::set_socket_recv_buffer_size_force(&socket, SOCKET_BUFFER).is_err() {
        let _ = socket.set_recv_buffer_size(SOCKET_BUFFER);
    }
    if sockopt::set_socket_send_buffer_size_force(&socket, SOCKET_BUFFER).is_err() {
        let _ = socket.set_send_buffer_size(SOCKET_BUFFER);
    }
    Ok(socket.into())
}

fn dual(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::IPV6, Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_only_v6(false)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

/// An address as people write it: an IPv4 address that arrived through an IPv6 socket is one.
#[must_use]
pub fn canonical(address: SocketAddr) -> SocketAddr {
    match address.ip().to_canonical() {
        ip @ std::net::IpAddr::V4(_) => SocketAddr::new(ip, address.port()),
        std::net::IpAddr::V6(_) => address,
    }
}

/// Why there is no endpoint.
#[derive(Debug, thiserror::Error)]
pub enum EndpointError {
    /// The port that a person named is another program's.
    #[error("UDP port {0} is in use by another program")]
    Taken(u16),
    /// No socket.
    #[error("can't open a UDP socket: {0}")]
    Socket(#[source] io::Error),
    /// No TLS.
    #[error("TLS can't use this device's key: {0}")]
    Tls(#[from] rustls::Error),
}
