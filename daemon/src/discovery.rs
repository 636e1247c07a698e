//! Finding devices on the local network by mDNS.
//!
//! What is announced says nothing to strangers but that Kith runs here: names are random and drawn
//! anew at each start, and the id is a hash that only those can check who know the device.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr, SocketAddrV6};

use kith_core::id::DeviceId;
use mdns_sd::{
    DaemonEvent, IfKind, Receiver, ResolvedService, ScopedIp, ServiceDaemon, ServiceEvent,
    ServiceInfo,
};

/// The service under which Kith is found.
const SERVICE: &str = "_kith._udp.local.";
/// The version of what is announced.
const VERSION: &str = "1";
/// The most instances that are kept in mind.
const SIGHTINGS_MAX: usize = 256;
/// The most addresses of one instance.
const ADDRESSES_MAX: usize = 8;

/// The id that a device announces from one start to the next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Beacon {
    nonce: [u8; 8],
    id: [u8; 8],
}

impl Beacon {
    /// The beacon of `device` for a random nonce.
    #[must_use]
    pub fn new(device: DeviceId, nonce: [u8; 8]) -> Beacon {
        let hash = blake3::keyed_hash(&device.0, &[&b"kith beacon 1"[..], &nonce].concat());
        let mut id = [0; 8];
        id.copy_from_slice(&hash.as_bytes()[..8]);
        Beacon { nonce, id }
    }

    /// Whether this is a beacon of `device`. A hint only: the handshake proves it.
    #[must_use]
    pub fn is_of(&self, device: DeviceId) -> bool {
        *self == Beacon::new(device, self.nonce)
    }

    fn to_text(self) -> String {
        let bytes = self.nonce.iter().chain(&self.id);
        bytes.map(|byte| format!("{byte:02x}")).collect()
    }

    fn from_text(text: &str) -> Option<Beacon> {
        if text.len() != 32 || !text.is_ascii() {
            return None;
        }
        let number = u128::from_str_radix(text, 16).ok()?;
        let (mut nonce, mut id) = ([0; 8], [0; 8]);
        nonce.copy_from_slice(&number.to_be_bytes()[..8]);
        id.copy_from_slice(&number.to_be_bytes()[8..]);
        Some(Beacon { nonce, id })
    }
}

/// One instance of Kith that was seen.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Sighting {
    /// Whose it is, for those who know that device.
    pub beacon: Beacon,
    /// Whether it says that an invitation is open.
    pub inviting: bool,
    /// Where it listens.
    pub addresses: Vec<SocketAddr>,
}

impl Sighting {
    /// What a resolved service says, if it is one that this version understands.
    fn from_service(service: &ResolvedService) -> Option<Sighting> {
        if service.get_property_val_str("v") != Some(VERSION) || service.get_port() == 0 {
            return None;
        }
        let beacon = Beacon::from_text(service.get_property_val_str("id")?)?;
        let inviting = service.get_property_val_str("inv") == Some("1");
        let mut addresses: Vec<SocketAddr> =
            service.get_addresses().iter().map(|ip| address(ip, service.get_port())).collect();
        // IPv4 first: on a local network it is what works most often.
        addresses.sort_by_key(|address| (address.is_ipv6(), *address));
        addresses.retain(|address| !address.ip().is_loopback() && !address.ip().is_unspecified());
        addresses.truncate(ADDRESSES_MAX);
        Some(Sighting { beacon, inviting, addresses })
    }
}

fn address(ip: &ScopedIp, port: u16) -> SocketAddr {
    match ip {
        ScopedIp::V6(v6) if v6.addr().is_unicast_link_local() => {
            SocketAddrV6::new(*v6.addr(), port, 0, v6.scope_id().index).into()
        }
        other => SocketAddr::new(other.to_ip_addr(), port),
    }
}

/// The instances that are there now, by their full names.
#[derive(Debug, Default)]
pub struct Sightings(BTreeMap<String, Sighting>);

impl Sightings {
    /// Takes note of an event. Says whose beacon was seen, if one was.
    pub fn note(&mut self, event: &ServiceEvent, own: &str) -> Option<Beacon> {
        match event {
            ServiceEvent::ServiceResolved(service) => {
                let name = service.get_fullname().to_lowercase();
                let full = self.0.len() >= SIGHTINGS_MAX && !self.0.contains_key(&name);
                if full || name == own {
                    return None;
                }
                let sighting = Sighting::from_service(service)?;
                let beacon = sighting.beacon;
                tracing::debug!("mDNS: {name} at {:?}", sighting.addresses);
                self.0.insert(name, sighting);
                Some(beacon)
            }
            ServiceEvent::ServiceRemoved(_, name) => {
                self.0.remove(&name.to_lowercase());
                None
            }
            _ => None,
        }
    }

    /// The instances with their names.
    pub fn iter(&self) -> impl Iterator<Item = (&String, &Sighting)> {
        self.0.iter()
    }

    /// Where `device` was seen.
    #[must_use]
    pub fn addresses_of(&self, device: DeviceId) -> Vec<SocketAddr> {
        let seen = self.0.values().filter(|sighting| sighting.beacon.is_of(device));
        seen.flat_map(|sighting| sighting.addresses.iter().copied()).collect()
    }
}

/// This device's presence in mDNS. It has a thread of its own.
pub struct Discovery {
    daemon: ServiceDaemon,
    instance: String,
    beacon: Beacon,
    port: u16,
}

impl Discovery {
    /// Announces `device` on every interface but the loopback, and looks for others.
    ///
    /// # Errors
    /// If mDNS can't be had, in words for a log.
    pub fn start(device: DeviceId, port: u16) -> Result<Discovery, DiscoveryError> {
        let mut random = [0; 16];
        getrandom::fill(&mut random).map_err(|_| DiscoveryError::NoRandomness)?;
        let (nonce, name) = random.split_at(8);
        let nonce = nonce.try_into().expect("half of sixteen bytes");
        let daemon = ServiceDaemon::new()?;
        daemon.disable_interface(vec![IfKind::LoopbackV4, IfKind::LoopbackV6])?;
        let instance = name.iter().map(|byte| format!("{byte:02x}")).collect();
        let discovery = Discovery { daemon, instance, beacon: Beacon::new(device, nonce), port };
        discovery.announce(false)?;
        Ok(discovery)
    }

    /// The full name of this device's own instance.
    #[must_use]
    pub fn own_name(&self) -> String {
        format!("{}.{SERVICE}", self.instance)
    }

    /// Announces this device, and whether an invitation is open.
    ///
    /// # Errors
    /// If mDNS has stopped.
    pub fn announce(&self, inviting: bool) -> Result<(), DiscoveryError> {
        let id = self.beacon.to_text();
        let invitation = if inviting { "1" } else { "0" };
        let properties = [("v", VERSION), ("id", &id), ("inv", invitation)];
        let host = format!("{}.local.", self.instance);
        let mut service =
            ServiceInfo::new(SERVICE, &self.instance, &host, "", self.port, &properties[..])?
                .enable_addr_auto();
        // The name is random: nobody else has it, and probing would cost the better part of a second.
        service.set_requires_probe(false);
        Ok(self.daemon.register(service)?)
    }

    /// What is seen from now on.
    ///
    /// # Errors
    /// If mDNS has stopped.
    pub fn browse(&self) -> Result<Receiver<ServiceEvent>, DiscoveryError> {
        Ok(self.daemon.browse(SERVICE)?)
    }

    /// What happens to the interfaces from now on.
    ///
    /// # Errors
    /// If mDNS has stopped.
    pub fn monitor(&self) -> Result<Receiver<DaemonEvent>, DiscoveryError> {
        Ok(self.daemon.monitor()?)
    }

    /// Says goodbye and stops. Waits for neither longer than the caller does.
    pub async fn stop(&self) {
        if let Ok(done) = self.daemon.unregister(&self.own_name()) {
            let _ = done.recv_async().await;
        }
        if let Ok(done) = self.daemon.shutdown() {
            let _ = done.recv_async().await;
        }
    }
}

/// The addresses of this device's interfaces that others may reach.
#[must_use]
pub fn own_addresses(port: u16) -> Vec<SocketAddr> {
    let interfaces = if_addrs::get_if_addrs().unwrap_or_default();
    let mut addresses: Vec<SocketAddr> = interfaces
        .into_iter()
        .filter(|interface| !interface.is_loopback() && !interface.is_link_local())
        .map(|interface| SocketAddr::new(interface.ip(), port))
        .filter(|address| match address.ip() {
            IpAddr::V4(ip) => !ip.is_unspecified(),
            IpAddr::V6(ip) => !ip.is_unspecified() && !ip.is_unicast_link_local(),
        })
        .collect();
    addresses.sort_by_key(|address| (address.is_ipv6(), *address));
    addresses.dedup();
    addresses
}

/// Why there is no discovery.
#[derive(Debug, thiserror::Error)]
pub enum DiscoveryError {
    /// mDNS.
    #[error("mDNS: {0}")]
    Mdns(#[from] mdns_sd::Error),
    /// The system gives no random numbers.
    #[error("the system gives no random numbers")]
    NoRandomness,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolved(properties: &[(&str, &str)], addresses: &str) -> ServiceEvent {
        let info = ServiceInfo::new(SERVICE, "other", "other.local.", addresses, 5484, properties);
        ServiceEvent::ServiceResolved(Box::new(info.unwrap().as_resolved_service()))
    }

    #[test]
    fn a_beacon_is_known_to_those_who_know_the_device() {
        let (one, other) = (DeviceId([1; 32]), DeviceId([2; 32]));
        let beacon = Beacon::new(one, [7; 8]);
        assert!(beacon.is_of(one) && !beacon.is_of(other));
        assert_eq!(Beacon::from_text(&beacon.to_text()), Some(beacon));
        assert_ne!(beacon, Beacon::new(one, [8; 8]), "another start, another id");
        for text in ["", "zz", &"g".repeat(32), &"0".repeat(33), &"é".repeat(16)] {
            assert_eq!(Beacon::from_text(text), None);
        }
    }

    #[test]
    fn what_is_seen_leads_to_addresses() {
        let device = DeviceId([1; 32]);
        let id = Beacon::new(device, [7; 8]).to_text();
        let mut sightings = Sightings::default();
        let event = resolved(&[("v", "1"), ("id", &id), ("inv", "1")], "10.0.0.9,127.0.0.1");
        assert!(sightings.note(&event, "own").unwrap().is_of(device));
        assert_eq!(sightings.addresses_of(device), ["10.0.0.9:5484".parse().unwrap()]);
        assert!(sightings.addresses_of(DeviceId([2; 32])).is_empty());
        assert!(sightings.iter().all(|(_, sighting)| sighting.inviting));
        let name = "other._kith._udp.local.".to_owned();
        sightings.note(&ServiceEvent::ServiceRemoved(SERVICE.into(), name), "own");
        assert!(sightings.addresses_of(device).is_empty());
    }

    #[test]
    fn what_is_not_understood_or_ones_own_is_not_seen() {
        let id = Beacon::new(DeviceId([1; 32]), [7; 8]).to_text();
        let mut sightings = Sightings::default();
        for properties in
            [&[("v", "2"), ("id", &*id)][..], &[("v", "1")], &[("v", "1"), ("id", "x")], &[]]
        {
            assert!(sightings.note(&resolved(properties, "10.0.0.9"), "own").is_none());
        }
        let own = resolved(&[("v", "1"), ("id", &id)], "10.0.0.9");
        assert!(sightings.note(&own, "other._kith._udp.local.").is_none());
    }
}
