//! The circle's list as a value: which statements count, and who is a member by them.
//!
//! Each device keeps at most one statement of a kind about a subject. Whom it has once taken in
//! stays in until removed: when a signer is removed, what rests on its word is signed anew by this
//! device, so that everybody's set can be understood by whoever receives it, from its sender's
//! word alone.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use kith_core::id::DeviceId;

use super::statement::{CircleId, Claim, Role, Signed, Statement, StatementError};
use crate::identity::{Identity, PublicKey};

/// The most devices that are in a circle at a time.
pub(super) const MEMBERS_MAX: usize = 64;
/// The most devices, with the removed ones, that a circle ever knows.
pub(super) const DEVICES_MAX: usize = 320;
/// The most statements in a message: four kinds for each device.
pub(super) const STATEMENTS_MAX: usize = 4 * DEVICES_MAX;

/// What is known of one device.
#[derive(Clone, Debug)]
struct Entry {
    key: PublicKey,
    /// Whether it was taken in. It stays so after a removal.
    accepted: bool,
    addition: Option<Statement>,
    removal: Option<Statement>,
    label: Option<Statement>,
    addresses: Option<Statement>,
}

impl Entry {
    fn new(key: PublicKey) -> Entry {
        Entry { key, accepted: false, addition: None, removal: None, label: None, addresses: None }
    }

    fn is_member(&self) -> bool {
        self.accepted && self.removal.is_none()
    }

    fn statements(&self) -> impl Iterator<Item = &Statement> {
        [&self.addition, &self.removal, &self.label, &self.addresses].into_iter().flatten()
    }
}

/// The list as this device sees it.
#[derive(Clone, Debug)]
pub(super) struct Roster {
    circle: CircleId,
    own: DeviceId,
    entries: BTreeMap<DeviceId, Entry>,
}

/// What a merge changed.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Changes {
    /// Anything at all.
    pub(super) any: bool,
    /// Who is a member and wasn't.
    pub(super) added: Vec<DeviceId>,
    /// Who was a member and isn't.
    pub(super) removed: Vec<DeviceId>,
}

impl Roster {
    /// The list of a new circle: this device alone.
    pub(super) fn found(circle: CircleId, own: PublicKey) -> Roster {
        let mut entry = Entry::new(own);
        entry.accepted = true;
        let entries = BTreeMap::from([(own.device(), entry)]);
        Roster { circle, own: own.device(), entries }
    }

    /// The list from statements this device kept, of which it had taken in `accepted`; or from
    /// those of a member it trusts, all of whose members it takes in.
    pub(super) fn restore(
        circle: CircleId,
        own: PublicKey,
        accepted: &[PublicKey],
        statements: Vec<Signed>,
    ) -> Result<Roster, StatementError> {
        let mut roster = Roster::found(circle, own);
        let verified = roster.verify(statements)?;
        for key in accepted {
            roster.entry(*key).accepted = true;
        }
        for statement in &verified {
            if statement.claim == Claim::Addition {
                roster.entry(statement.subject).accepted = true;
            }
        }
        for statement in verified {
            let entry = roster.entry(statement.subject);
            let place = match statement.claim {
                Claim::Addition => &mut entry.addition,
                Claim::Removal => &mut entry.removal,
                Claim::Label { .. } => &mut entry.label,
                Claim::Addresses(_) => &mut entry.addresses,
            };
            *place = Some(statement);
        }
        roster.entries.retain(|_, entry| entry.accepted || entry.removal.is_some());
        if roster.entries.len() > DEVICES_MAX || roster.members().count() > MEMBERS_MAX {
            return Err(StatementError::TooLong);
        }
        Ok(roster)
    }

    fn verify(&self, statements: Vec<Signed>) -> Result<Vec<Statement>, StatementError> {
        if statements.len() > STATEMENTS_MAX {
            return Err(StatementError::TooLong);
        }
        let verified: Result<Vec<_>, _> =
            statements.into_iter().map(|signed| self.verified(signed)).collect();
        Ok(verified?.into_iter().flatten().collect())
    }

    /// Checks one statement, unless it is one that was checked before.
    fn verified(&self, signed: Signed) -> Result<Option<Statement>, StatementError> {
        Statement::verify(signed, self.circle)
    }

    fn entry(&mut self, key: PublicKey) -> &mut Entry {
        self.entries.entry(key.device()).or_insert_with(|| Entry::new(key))
    }

    fn is_accepted(&self, key: PublicKey) -> bool {
        self.entries.get(&key.device()).is_some_and(|entry| entry.accepted)
    }

    pub(super) fn circle(&self) -> CircleId {
        self.circle
    }

    /// Whether `device` is a member.
    pub(super) fn contains(&self, device: DeviceId) -> bool {
        self.entries.get(&device).is_some_and(Entry::is_member)
    }

    /// Whether `device` was removed.
    pub(super) fn is_removed(&self, device: DeviceId) -> bool {
        self.entries.get(&device).is_some_and(|entry| entry.removal.is_some())
    }

    /// The members, this device among them unless it was removed.
    pub(super) fn members(&self) -> impl Iterator<Item = DeviceId> {
        self.entries.iter().filter(|(_, entry)| entry.is_member()).map(|(device, _)| *device)
    }

    /// Every device that is or was a member, or of which a removal is known.
    pub(super) fn devices(&self) -> impl Iterator<Item = DeviceId> {
        self.entries.keys().copied()
    }

    /// The keys of all that were ever taken in.
    pub(super) fn accepted(&self) -> Vec<PublicKey> {
        self.entries.values().filter(|entry| entry.accepted).map(|entry| entry.key).collect()
    }

    /// A device's key.
    pub(super) fn key(&self, device: DeviceId) -> Option<PublicKey> {
        self.entries.get(&device).map(|entry| entry.key)
    }

    /// A device's name and role.
    pub(super) fn label(&self, device: DeviceId) -> Option<(&str, Role)> {
        match &self.entries.get(&device)?.label.as_ref()?.claim {
            Claim::Label { name, role } => Some((name, *role)),
            _ => None,
        }
    }

    /// Where a device says that it listens.
    pub(super) fn addresses(&self, device: DeviceId) -> &[SocketAddr] {
        let entry = self.entries.get(&device);
        match entry.and_then(|entry| entry.addresses.as_ref()).map(|statement| &statement.claim) {
            Some(Claim::Addresses(addresses)) => addresses,
            _ => &[],
        }
    }

    /// Who took a device in.
    pub(super) fn added_by(&self, device: DeviceId) -> Option<DeviceId> {
        Some(self.entries.get(&device)?.addition.as_ref()?.signer.device())
    }

    /// Everything that counts, for another device or for the disk.
    pub(super) fn statements(&self) -> Vec<Signed> {
        let entries = self.entries.values();
        entries.flat_map(Entry::statements).map(|statement| statement.signed.clone()).collect()
    }

    /// A stamp later than all that is known, and not before `now_ms`.
    fn stamp(&self, now_ms: u64) -> u64 {
        let known = self.entries.values().flat_map(Entry::statements);
        let latest = known.map(|statement| statement.stamp).max().unwrap_or(0);
        now_ms.max(latest + 1)
    }

    /// States something of `subject` as this device, which is to be a member.
    pub(super) fn state(
        &mut self,
        identity: &Identity,
        now_ms: u64,
        subject: PublicKey,
        claim: Claim,
    ) -> Changes {
        let stamp = self.stamp(now_ms);
        let statement = Statement::sign(identity, self.circle, subject, stamp, claim);
        self.count(identity, now_ms, &[statement])
    }

    /// Takes in what another member sent.
    ///
    /// # Errors
    /// A statement that is malformed or falsely signed. Nothing is changed then.
    pub(super) fn merge(
        &mut self,
        identity: &Identity,
        now_ms: u64,
        statements: Vec<Signed>,
    ) -> Result<Changes, StatementError> {
        let unknown = {
            let known: Vec<&Signed> = self
                .entries
                .values()
                .flat_map(Entry::statements)
                .map(|statement| &statement.signed)
                .collect();
            if statements.len() > STATEMENTS_MAX {
                return Err(StatementError::TooLong);
            }
            statements.into_iter().filter(|signed| !known.contains(&signed)).collect()
        };
        let verified = self.verify(unknown)?;
        Ok(self.count(identity, now_ms, &verified))
    }

    /// Lets statements count until none of them changes anything, and signs anew what lost its
    /// signer.
    fn count(&mut self, identity: &Identity, now_ms: u64, statements: &[Statement]) -> Changes {
        let before: Vec<DeviceId> = self.members().collect();
        let mut any = false;
        loop {
            // Removals first: an addition by a member whose removal is known is void.
            let mut changed = false;
            for statement in statements.iter().filter(|s| s.claim == Claim::Removal) {
                changed |= self.count_removal(statement);
            }
            for statement in statements.iter().filter(|s| s.claim == Claim::Addition) {
                changed |= self.count_addition(statement);
            }
            any |= changed;
            if !changed {
                break;
            }
        }
        for statement in statements {
            any |= self.count_detail(statement);
        }
        any |= self.repeat(identity, now_ms);
        let added = self.members().filter(|device| !before.contains(device)).collect();
        let removed = before.into_iter().filter(|device| !self.contains(*device)).collect();
        Changes { any, added, removed }
    }

    fn count_removal(&mut self, statement: &Statement) -> bool {
        // The word of a member that was itself removed counts too: a mutual removal is one.
        if !self.is_accepted(statement.signer) {
            return false;
        }
        if self.entries.len() >= DEVICES_MAX
            && !self.entries.contains_key(&statement.subject.device())
        {
            return false;
        }
        let entry = self.entry(statement.subject);
        let first = entry.removal.is_none();
        if first {
            entry.removal = Some(statement.clone());
        }
        first
    }

    fn count_addition(&mut self, statement: &Statement) -> bool {
        let device = statement.subject.device();
        if !self.contains(statement.signer.device())
            || self.is_accepted(statement.subject)
            || self.is_removed(device)
            || self.members().count() >= MEMBERS_MAX
            || self.entries.len() >= DEVICES_MAX
        {
            return false;
        }
        let entry = self.entry(statement.subject);
        entry.accepted = true;
        entry.addition = Some(statement.clone());
        true
    }

    fn count_detail(&mut self, statement: &Statement) -> bool {
        if !self.is_accepted(statement.signer) || !self.contains(statement.subject.device()) {
            return false;
        }
        let entry = self.entry(statement.subject);
        let place = match statement.claim {
            Claim::Label { .. } => &mut entry.label,
            Claim::Addresses(_) => &mut entry.addresses,
            Claim::Addition | Claim::Removal => return false,
        };
        let newer = place.as_ref().is_none_or(|kept| statement.supersedes(kept));
        if newer {
            *place = Some(statement.clone());
        }
        newer
    }

    /// Signs anew what rests on the word of nobody, or of a device that is no member any more.
    pub(super) fn repeat(&mut self, identity: &Identity, now_ms: u64) -> bool {
        if !self.contains(self.own) {
            return false;
        }
        let stamp = self.stamp(now_ms);
        let members: Vec<DeviceId> = self.members().collect();
        let speaks = |statement: &Statement| members.contains(&statement.signer.device());
        let circle = self.circle;
        let mut any = false;
        for (device, entry) in &mut self.entries {
            let mut renew = |place: &mut Option<Statement>, stamp, claim| {
                *place = Some(Statement::sign(identity, circle, entry.key, stamp, claim));
                any = true;
            };
            if entry.removal.as_ref().is_some_and(|removal| !speaks(removal)) {
                renew(&mut entry.removal, stamp, Claim::Removal);
            }
            if entry.removal.is_some() || *device == self.own {
                continue;
            }
            if !entry.addition.as_ref().is_some_and(speaks) {
                renew(&mut entry.addition, stamp, Claim::Addition);
            }
            if let Some(label) = entry.label.as_ref().filter(|label| !speaks(label)) {
                let (stamp, claim) = (label.stamp, label.claim.clone());
                renew(&mut entry.label, stamp, claim);
            }
        }
        any
    }
}

#[cfg(test)]
mod tests;
