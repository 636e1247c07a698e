//! Which connections are in use: one between two devices, and which of two it is.

use std::collections::BTreeMap;
use std::time::Duration;

use kith_core::id::DeviceId;
use quinn::Connection;
use tokio::time::Instant;

use super::twins::Twins;

/// How long one of two machines with one identity keeps its link before the other gets its turn: long
/// enough to walk a log of millions.
const TURN: Duration = Duration::from_secs(15);

/// A connection on which both sides have said hello.
#[derive(Clone, Debug)]
pub(super) struct Candidate {
    /// The same number on both sides, from the TLS session.
    pub(super) id: u64,
    pub(super) connection: Connection,
    /// Whether this device made it.
    pub(super) initiator: bool,
    /// The other side's start: another number after each.
    pub(super) instance: u64,
    /// The link that ended last, as the other side sees it.
    pub(super) ended: Option<u64>,
    /// When both sides had said hello.
    pub(super) since: Instant,
}

/// The connection of each device.
#[derive(Debug, Default)]
pub(super) struct Links {
    current: BTreeMap<DeviceId, Candidate>,
    ended: BTreeMap<DeviceId, u64>,
    twins: Twins,
}

/// What a decision is made from.
#[derive(Clone, Copy, Debug)]
struct Facts {
    id: u64,
    initiator: bool,
    instance: u64,
    ended: Option<u64>,
}

/// Whether a new connection takes the place of the one in use. Both sides come to the same answer.
fn replaces(own: DeviceId, other: DeviceId, current: Facts, new: Facts) -> bool {
    // The other side was started anew, or says that it has lost the one that seems in use here.
    if current.instance != new.instance || new.ended == Some(current.id) {
        return true;
    }
    // A device dials only while it has no link: the later dial is the one it means.
    if current.initiator == new.initiator {
        return true;
    }
    // Both dialed at once: the connection made by the device with the smaller id stays.
    let dialer = if new.initiator { own } else { other };
    dialer == own.min(other)
}

impl Links {
    /// Takes a new connection into use, unless the one in use stays. Gives back the one whose
    /// place it took.
    pub(super) fn admit(
        &mut self,
        own: DeviceId,
        device: DeviceId,
        new: Candidate,
    ) -> Result<Option<Connection>, ()> {
        let facts = |candidate: &Candidate| Facts {
            id: candidate.id,
            initiator: candidate.initiator,
            instance: candidate.instance,
            ended: candidate.ended,
        };
        let current = self.current.get(&device);
        self.twins.note(device, new.instance);
        let twin = self.twins.of(device, new.instance);
        let live = current.filter(|current| current.connection.close_reason().is_none());
        if live.is_some_and(|current| !replaces(own, device, facts(current), facts(&new))) {
            return Err(());
        }
        let in_turn =
            |current: &Candidate| twin == Some(current.instance) && current.since.elapsed() < TURN;
        if live.is_some_and(in_turn) {
            return Err(());
        }
        let old = self.current.insert(device, new);
        if let Some(old) = &old {
            self.ended.insert(device, old.id);
        }
        Ok(old.map(|old| old.connection))
    }

    /// Takes a connection that has ended out of use. Says whether it was in use.
    pub(super) fn drop_ended(&mut self, device: DeviceId, id: u64) -> bool {
        let in_use = self.current.get(&device).is_some_and(|current| current.id == id);
        if in_use {
            self.current.remove(&device);
            self.ended.insert(device, id);
        }
        in_use
    }

    /// The other start of a device that goes on at once with this one, on another machine.
    pub(super) fn twin_of(&self, device: DeviceId, instance: u64) -> Option<u64> {
        self.twins.of(device, instance)
    }

    /// Whether there is a link to `device`.
    pub(super) fn is_linked(&self, device: DeviceId) -> bool {
        self.current.get(&device).is_some_and(|link| link.connection.close_reason().is_none())
    }

    /// The link to `device` that ended last.
    pub(super) fn ended(&self, device: DeviceId) -> Option<u64> {
        self.ended.get(&device).copied()
    }

    /// All links.
    pub(super) fn iter(&self) -> impl Iterator<Item = (DeviceId, &Connection)> {
        self.current.iter().map(|(device, link)| (*device, &link.connection))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: DeviceId = DeviceId([1; 32]);
    const LARGE: DeviceId = DeviceId([2; 32]);

    fn facts(id: u64, initiator: bool) -> Facts {
        Facts { id, initiator, instance: 1, ended: None }
    }

    #[test]
    fn of_two_dialed_at_once_both_sides_keep_the_smaller_devices() {
        // (whose connection is in use, whose is new) → whether the new one wins.
        for (current, new, wins) in [(SMALL, LARGE, false), (LARGE, SMALL, true)] {
            for own in [SMALL, LARGE] {
                let other = if own == SMALL { LARGE } else { SMALL };
                let answer = replaces(own, other, facts(1, current == own), facts(2, new == own));
                assert_eq!(answer, wins, "{own:?} has {current:?}'s and gets {new:?}'s");
            }
        }
    }

    #[test]
    fn a_dead_connection_gives_way_whoever_made_it() {
        let current = facts(1, true);
        let restarted = Facts { instance: 2, ..facts(2, false) };
        assert!(replaces(SMALL, LARGE, current, restarted));
        let lost = Facts { ended: Some(1), ..facts(2, false) };
        assert!(replaces(SMALL, LARGE, current, lost));
        let other = Facts { ended: Some(9), ..facts(2, false) };
        assert!(!replaces(SMALL, LARGE, current, other));
        assert!(replaces(SMALL, LARGE, current, facts(2, true)));
    }
}
