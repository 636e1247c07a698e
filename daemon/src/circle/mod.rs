//! The circle: the devices that trust one another, as this device keeps and shares the list.

pub mod file;
mod roster;
pub mod statement;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{SystemTime, UNIX_EPOCH};

use kith_core::id::{DeviceId, ShareId};
use tokio::sync::watch;

use self::file::{FileError, Kept};
use self::roster::{Changes, Roster};
use self::statement::{ADDRESSES_MAX, CircleId, Claim, Role, Signed, StatementError, to_name};
use crate::identity::{Identity, PublicKey};

/// How many addresses at which a device was reached are remembered.
const REMEMBERED_MAX: usize = 4;
/// The name of a new circle's share.
const FIRST_SHARE: &str = "Kith";

/// One device of the circle, or one that was removed from it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Which device.
    pub device: DeviceId,
    /// Its name, for people.
    pub name: String,
    /// Where it may be reached: where it was last, then where it says it listens.
    pub addresses: Vec<SocketAddr>,
    /// What it is in the circle.
    pub role: Role,
    /// Who took it in, as far as this device knows.
    pub added_by: Option<DeviceId>,
    /// Whether it was removed.
    pub removed: bool,
    /// Whether it is this device.
    pub own: bool,
}

/// The share that a circle has from its founding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CircleShare {
    /// Which tree.
    pub id: ShareId,
    /// Its name, for people.
    pub name: String,
}

/// What the inviter gives a device that joins.
#[derive(Clone, Debug)]
pub(crate) struct Welcome {
    pub(crate) circle: CircleId,
    pub(crate) share: CircleShare,
    pub(crate) statements: Vec<Signed>,
}

/// The circle as it is now. Replaced as a whole, so that who reads never waits for the disk.
#[derive(Clone, Debug)]
struct State {
    roster: Roster,
    share: CircleShare,
    remembered: BTreeMap<DeviceId, Vec<SocketAddr>>,
}

/// The circle's list: kept in one file, the same for all its devices in the end.
#[derive(Debug)]
pub struct Circle {
    path: PathBuf,
    identity: Arc<Identity>,
    /// Held while a change is written down. Nobody who only reads takes it.
    writing: Mutex<()>,
    state: RwLock<Arc<State>>,
    changes: watch::Sender<u64>,
}

impl Circle {
    /// The circle kept in the file at `path`; without one, a new circle of this device alone,
    /// which is called `own_name`.
    ///
    /// # Errors
    /// A file that can't be read, is damaged, from a newer Kith, or of another identity is refused
    /// and left as it is.
    pub fn open(
        path: &Path,
        identity: Arc<Identity>,
        own_name: &str,
    ) -> Result<Circle, CircleError> {
        let own = identity.public();
        let kept = file::read(path)?;
        let new = kept.is_none();
        let state = match kept {
            Some(kept) => {
                if kept.own != own {
                    return Err(FileError::OtherIdentity { path: path.to_owned() }.into());
                }
                let roster = Roster::restore(kept.circle, own, &kept.accepted, kept.statements)
                    .map_err(|_| FileError::Corrupt { path: path.to_owned() })?;
                State { roster, share: kept.share, remembered: kept.remembered }
            }
            None => {
                let share = CircleShare { id: ShareId(random()?), name: FIRST_SHARE.to_owned() };
                let roster = Roster::found(CircleId(random()?), own);
                State { roster, share, remembered: BTreeMap::new() }
            }
        };
        let circle = Circle {
            path: path.to_owned(),
            identity,
            writing: Mutex::new(()),
            state: RwLock::new(Arc::new(state)),
            changes: watch::Sender::new(0),
        };
        if new {
            circle.rename(own.device(), own_name)?;
        }
        Ok(circle)
    }

    fn state(&self) -> Arc<State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Changes the circle: on disk first, then for everybody who looks.
    fn change<T>(
        &self,
        change: impl FnOnce(&mut State) -> Result<(T, bool), CircleError>,
    ) -> Result<T, CircleError> {
        let writing: MutexGuard<'_, ()> =
            self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut state = State::clone(&self.state());
        let (answer, changed) = change(&mut state)?;
        if changed {
            let kept = Kept {
                circle: state.roster.circle(),
                share: state.share.clone(),
                own: self.identity.public(),
                accepted: state.roster.accepted(),
                statements: state.roster.statements(),
                remembered: state.remembered.clone(),
            };
            file::write(&self.path, &kept)?;
            *self.state.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(state);
            drop(writing);
            self.changes.send_modify(|count| *count += 1);
        }
        Ok(answer)
    }

    /// This device's id.
    #[must_use]
    pub fn own(&self) -> DeviceId {
        self.identity.device()
    }

    /// All devices of the circle, this one and the removed ones included, in the order of ids.
    #[must_use]
    pub fn members(&self) -> Vec<Member> {
        let state = self.state();
        state.roster.devices().map(|device| self.describe(&state, device)).collect()
    }

    /// One device, if it is known.
    #[must_use]
    pub fn member(&self, device: DeviceId) -> Option<Member> {
        let state = self.state();
        state.roster.key(device)?;
        Some(self.describe(&state, device))
    }

    fn describe(&self, state: &State, device: DeviceId) -> Member {
        let label = state.roster.label(device);
        let mut addresses = state.remembered.get(&device).cloned().unwrap_or_default();
        for address in state.roster.addresses(device) {
            if !addresses.contains(address) {
                addresses.push(*address);
            }
        }
        Member {
            device,
            name: label.map_or_else(|| short(device), |(name, _)| name.to_owned()),
            addresses,
            role: label.map_or(Role::Full, |(_, role)| role),
            added_by: state.roster.added_by(device),
            removed: state.roster.is_removed(device),
            own: device == self.own(),
        }
    }

    /// Whether a device is a member now.
    #[must_use]
    pub fn contains(&self, device: DeviceId) -> bool {
        self.state().roster.contains(device)
    }

    /// Whether this device was removed from its circle.
    #[must_use]
    pub fn is_removed(&self, device: DeviceId) -> bool {
        self.state().roster.is_removed(device)
    }

    /// Whether there is no other member.
    #[must_use]
    pub fn is_alone(&self) -> bool {
        self.others().is_empty()
    }

    /// The members except this device.
    #[must_use]
    pub fn others(&self) -> Vec<DeviceId> {
        let state = self.state();
        state.roster.members().filter(|device| *device != self.own()).collect()
    }

    /// A device's name; the beginning of its id if it has none.
    #[must_use]
    pub fn name_of(&self, device: DeviceId) -> String {
        let state = self.state();
        state.roster.label(device).map_or_else(|| short(device), |(name, _)| name.to_owned())
    }

    /// The circle's first share.
    #[must_use]
    pub fn share(&self) -> CircleShare {
        self.state().share.clone()
    }

    /// Which circle this is.
    #[must_use]
    pub fn id(&self) -> CircleId {
        self.state().roster.circle()
    }

    /// Counts changes. The receiver is told of each, or of several at once.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Gives a member another name, everywhere. Names are cut to [`statement::NAME_MAX`] bytes.
    ///
    /// # Errors
    /// An unknown or removed device; a disk that doesn't take it.
    pub fn rename(&self, device: DeviceId, name: &str) -> Result<(), CircleError> {
        let name = to_name(name);
        self.change(|state| {
            let role = match state.roster.label(device) {
                Some((known, _)) if known == name => return Ok(((), false)),
                Some((_, role)) => role,
                None => Role::Full,
            };
            self.say(state, device, Claim::Label { name, role })
        })
    }

    /// Gives a member another role, everywhere.
    ///
    /// # Errors
    /// An unknown or removed device; a disk that doesn't take it.
    pub fn assign(&self, device: DeviceId, role: Role) -> Result<(), CircleError> {
        self.change(|state| {
            let name = match state.roster.label(device) {
                Some((_, known)) if known == role => return Ok(((), false)),
                Some((name, _)) => name.to_owned(),
                None => short(device),
            };
            self.say(state, device, Claim::Label { name, role })
        })
    }

    /// Removes a device from the circle, for ever: it can come back only under a new identity.
    ///
    /// # Errors
    /// An unknown device or this one; a disk that doesn't take it.
    pub fn remove(&self, device: DeviceId) -> Result<(), CircleError> {
        if device == self.own() {
            return Err(CircleError::Own);
        }
        self.change(|state| {
            if state.roster.is_removed(device) {
                return Ok(((), false));
            }
            state.remembered.remove(&device);
            self.say(state, device, Claim::Removal)
        })
    }

    fn say(
        &self,
        state: &mut State,
        device: DeviceId,
        claim: Claim,
    ) -> Result<((), bool), CircleError> {
        let own = self.own();
        let known = device == own || state.roster.contains(device);
        let key = state.roster.key(device).filter(|_| known);
        let key = key.ok_or(CircleError::Unknown(device))?;
        if !state.roster.contains(own) {
            return Err(CircleError::Removed);
        }
        let changes = state.roster.state(&self.identity, now_ms(), key, claim);
        Ok(((), changes.any))
    }

    /// States where this device listens, if that has changed. At most [`ADDRESSES_MAX`] are kept.
    ///
    /// # Errors
    /// This device was removed; a disk that doesn't take it.
    pub fn state_addresses(&self, addresses: &[SocketAddr]) -> Result<(), CircleError> {
        let addresses = &addresses[..addresses.len().min(ADDRESSES_MAX)];
        self.change(|state| {
            if state.roster.addresses(self.own()) == addresses {
                return Ok(((), false));
            }
            self.say(state, self.own(), Claim::Addresses(addresses.to_vec()))
        })
    }

    /// Remembers where a member was reached, for this device only.
    ///
    /// # Errors
    /// A disk that doesn't take it.
    pub fn remember_address(
        &self,
        device: DeviceId,
        address: SocketAddr,
    ) -> Result<(), CircleError> {
        self.change(|state| {
            if !state.roster.contains(device) {
                return Ok(((), false));
            }
            let known = state.remembered.entry(device).or_default();
            if known.first() == Some(&address) {
                return Ok(((), false));
            }
            known.retain(|other| *other != address);
            known.insert(0, address);
            known.truncate(REMEMBERED_MAX);
            Ok(((), true))
        })
    }

    /// Takes a device in that has proved to know an invitation's code, and says what it is to know.
    pub(crate) fn admit(
        &self,
        joiner: PublicKey,
        name: &str,
        address: SocketAddr,
    ) -> Result<Welcome, CircleError> {
        let device = joiner.device();
        self.change(|state| {
            if state.roster.is_removed(device) {
                return Err(CircleError::WasRemoved);
            }
            if !state.roster.contains(self.own()) {
                return Err(CircleError::Removed);
            }
            let (identity, now) = (&self.identity, now_ms());
            state.roster.state(identity, now, joiner, Claim::Addition);
            if !state.roster.contains(device) {
                return Err(CircleError::Full);
            }
            let role = state.roster.label(device).map_or(Role::Full, |(_, role)| role);
            let label = Claim::Label { name: to_name(name), role };
            state.roster.state(identity, now, joiner, label);
            state.remembered.insert(device, vec![address]);
            let welcome = Welcome {
                circle: state.roster.circle(),
                share: state.share.clone(),
                statements: state.roster.statements(),
            };
            Ok((welcome, true))
        })
    }

    /// Becomes a member of the circle into which `inviter` took this device. The own circle, of
    /// this device alone, is given up.
    pub(crate) fn adopt(
        &self,
        inviter: PublicKey,
        welcome: Welcome,
        address: SocketAddr,
    ) -> Result<CircleShare, CircleError> {
        let own = self.identity.public();
        self.change(|state| {
            if state.roster.members().any(|device| device != own.device()) {
                return Err(CircleError::AlreadyInCircle);
            }
            let name = state.roster.label(own.device()).map(|(name, _)| name.to_owned());
            let addresses = state.roster.addresses(own.device()).to_vec();
            let Welcome { circle, share, statements } = welcome;
            let mut roster = Roster::restore(circle, own, &[inviter], statements)?;
            if !roster.contains(own.device()) || !roster.contains(inviter.device()) {
                return Err(CircleError::WasRemoved);
            }
            roster.repeat(&self.identity, now_ms());
            if let Some(name) = name {
                let known = roster.label(own.device());
                if known.is_none_or(|(known, _)| known != name) {
                    let role = known.map_or(Role::Full, |(_, role)| role);
                    let label = Claim::Label { name, role };
                    roster.state(&self.identity, now_ms(), own, label);
                }
            }
            if !addresses.is_empty() && roster.addresses(own.device()) != addresses {
                let claim = Claim::Addresses(addresses);
                roster.state(&self.identity, now_ms(), own, claim);
            }
            let remembered = BTreeMap::from([(inviter.device(), vec![address])]);
            *state = State { roster, share: share.clone(), remembered };
            Ok((share, true))
        })
    }

    /// Everything that another member is to know.
    pub(crate) fn statements(&self) -> Vec<Signed> {
        self.state().roster.statements()
    }

    /// Takes in what another member sent. Says who joined by it.
    pub(crate) fn merge(&self, statements: Vec<Signed>) -> Result<Vec<Member>, CircleError> {
        let Changes { added, .. } = self.change(|state| {
            let changes = state.roster.merge(&self.identity, now_ms(), statements)?;
            for device in &changes.removed {
                state.remembered.remove(device);
            }
            let any = changes.any;
            Ok((changes, any))
        })?;
        Ok(added.into_iter().filter_map(|device| self.member(device)).collect())
    }
}

/// The beginning of an id, where there is no name.
fn short(device: DeviceId) -> String {
    format!("{device:?}")
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(0)
}

fn random() -> Result<[u8; 16], CircleError> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|_| CircleError::NoRandomness)?;
    Ok(bytes)
}

/// Why the circle isn't as it was asked to be.
#[derive(Debug, thiserror::Error)]
pub enum CircleError {
    /// Its file.
    #[error(transparent)]
    File(#[from] FileError),
    /// What another device stated.
    #[error(transparent)]
    Statement(#[from] StatementError),
    /// There is no such member.
    #[error("no device {0:?} in this circle")]
    Unknown(DeviceId),
    /// A device doesn't remove itself.
    #[error("a device can't remove itself; remove it from another device of the circle")]
    Own,
    /// This device was removed from the circle.
    #[error("this device was removed from its circle; it can come back only as a new device")]
    Removed,
    /// The device that wants to join was removed once.
    #[error("that device was removed from this circle; it can come back only as a new device")]
    WasRemoved,
    /// Too many devices.
    #[error("the circle is full: it has {} devices", roster::MEMBERS_MAX)]
    Full,
    /// A device that shares a circle with others can't join another.
    #[error("this device is in a circle with others already")]
    AlreadyInCircle,
    /// The system gives no random numbers.
    #[error("the system gives no random numbers")]
    NoRandomness,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn circle(directory: &Path, name: &str) -> (Arc<Identity>, Circle) {
        let identity = Arc::new(Identity::load_or_create(&directory.join("identity")).unwrap());
        let path = directory.join("circle");
        let circle = Circle::open(&path, identity.clone(), name).unwrap();
        (identity, circle)
    }

    fn pair(inviter: &Circle, joiner: &Circle, address: SocketAddr) -> Result<(), CircleError> {
        let key = joiner.identity.public();
        let welcome = inviter.admit(key, &joiner.name_of(joiner.own()), address)?;
        joiner.adopt(inviter.identity.public(), welcome, address)?;
        Ok(())
    }

    #[test]
    fn a_circle_is_the_same_after_a_restart() {
        let address: SocketAddr = "10.0.0.2:5484".parse().unwrap();
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (_, a) = circle(one.path(), "laptop");
        let (_, b) = circle(two.path(), "desktop");
        assert!(a.is_alone() && b.is_alone());
        b.state_addresses(&["10.0.0.7:1".parse().unwrap()]).unwrap();
        let founded = a.share();
        pair(&a, &b, address).unwrap();
        assert!(!a.is_alone() && !b.is_alone());
        assert_eq!(b.share(), founded);
        for (directory, old) in [(&one, &a), (&two, &b)] {
            let (_, again) = circle(directory.path(), "other name");
            assert_eq!(again.members(), old.members());
            assert_eq!(again.share(), founded);
            assert_eq!(again.name_of(a.own()), "laptop");
            assert_eq!(again.name_of(b.own()), "desktop");
        }
        assert_eq!(a.member(b.own()).unwrap().addresses, [address]);
        a.merge(b.statements()).unwrap();
        let listens: SocketAddr = "10.0.0.7:1".parse().unwrap();
        assert_eq!(a.member(b.own()).unwrap().addresses, [address, listens]);
    }

    #[test]
    fn only_a_device_alone_joins() {
        let address: SocketAddr = "10.0.0.2:5484".parse().unwrap();
        let homes: Vec<_> = (0..3).map(|_| tempfile::tempdir().unwrap()).collect();
        let circles: Vec<_> = homes.iter().map(|home| circle(home.path(), "x").1).collect();
        pair(&circles[0], &circles[1], address).unwrap();
        let error = pair(&circles[2], &circles[1], address).unwrap_err();
        assert!(matches!(error, CircleError::AlreadyInCircle), "{error}");
    }

    #[test]
    fn a_removed_device_is_not_admitted_again() {
        let address: SocketAddr = "10.0.0.2:5484".parse().unwrap();
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (_, a) = circle(one.path(), "a");
        let (identity, b) = circle(two.path(), "b");
        pair(&a, &b, address).unwrap();
        let mut changes = a.subscribe();
        a.remove(b.own()).unwrap();
        assert!(changes.has_changed().unwrap());
        changes.mark_unchanged();
        a.remove(b.own()).unwrap();
        assert!(!changes.has_changed().unwrap(), "twice is once");
        assert!(a.is_alone() && a.is_removed(b.own()));
        let error = a.admit(identity.public(), "b", address).unwrap_err();
        assert!(matches!(error, CircleError::WasRemoved), "{error}");
        assert!(matches!(a.rename(b.own(), "c"), Err(CircleError::Unknown(_))));
        assert!(matches!(a.remove(a.own()), Err(CircleError::Own)));
        b.merge(a.statements()).unwrap();
        assert!(b.is_removed(b.own()));
        assert!(matches!(b.rename(b.own(), "c"), Err(CircleError::Removed)));
    }
}
