//! Tests of who counts as a member, whatever the order in which devices hear of it.

use super::*;

const CIRCLE: CircleId = CircleId([1; 16]);

/// One device of a test: its key and the list as it sees it.
struct Device {
    identity: Identity,
    roster: Roster,
}

impl Device {
    fn found() -> Device {
        let identity = Identity::ephemeral();
        let roster = Roster::found(CIRCLE, identity.public());
        Device { identity, roster }
    }

    fn id(&self) -> DeviceId {
        self.identity.device()
    }

    fn state(&mut self, subject: &Identity, claim: Claim) -> Changes {
        self.roster.state(&self.identity, 1000, subject.public(), claim)
    }

    /// What an invitation by this device makes.
    fn invite(&mut self) -> Device {
        let identity = Identity::ephemeral();
        self.state(&identity, Claim::Addition);
        let statements = self.roster.statements();
        let accepted = [self.identity.public()];
        let mut roster = Roster::restore(CIRCLE, identity.public(), &accepted, statements).unwrap();
        roster.repeat(&identity, 1000);
        Device { identity, roster }
    }

    fn remove(&mut self, other: &Device) {
        let key = other.identity.public();
        self.roster.state(&self.identity, 1000, key, Claim::Removal);
    }

    fn hear(&mut self, other: &Device) -> Changes {
        self.roster.merge(&self.identity, 1000, other.roster.statements()).unwrap()
    }

    fn sees(&self, other: &Device) -> bool {
        self.roster.contains(other.id())
    }
}

#[test]
fn a_newcomer_is_known_to_all_who_hear_of_it() {
    let mut a = Device::found();
    let mut b = a.invite();
    let c = b.invite();
    assert!(b.sees(&a) && b.sees(&c) && c.sees(&a) && c.sees(&b));
    assert!(!a.sees(&c));
    assert_eq!(a.hear(&b).added, [c.id()]);
    assert!(!a.hear(&b).any && !b.hear(&a).any, "there is an end to what is to say");
}

#[test]
fn a_removal_counts_and_is_for_ever() {
    let mut a = Device::found();
    let mut b = a.invite();
    let mut c = a.invite();
    b.hear(&a);
    a.remove(&b);
    assert!(!a.sees(&b));
    assert_eq!(c.hear(&a).removed, [b.id()]);
    assert!(!a.state(&b.identity, Claim::Addition).any);
    assert!(!a.sees(&b));
    // Not even its own word, nor that of somebody who didn't know, brings it back.
    a.hear(&b);
    c.hear(&b);
    assert!(!a.sees(&b) && !c.sees(&b));
}

#[test]
fn mutual_removals_both_count() {
    let mut a = Device::found();
    let mut b = a.invite();
    let mut c = a.invite();
    b.hear(&a);
    a.remove(&b);
    b.remove(&a);
    c.hear(&a);
    c.hear(&b);
    assert!(!c.sees(&a) && !c.sees(&b));
    let mut d = c.invite();
    assert!(!d.sees(&a) && !d.sees(&b) && d.sees(&c));
    d.hear(&a);
    assert!(!d.sees(&a));
}

#[test]
fn an_addition_by_a_member_removed_before_it_was_seen_is_void_until_repeated() {
    let mut a = Device::found();
    let mut b = a.invite();
    let mut c = a.invite();
    b.hear(&a);
    let d = b.invite();
    a.remove(&b);
    a.hear(&b);
    assert!(!a.sees(&d), "a knew of b's removal before it heard of d");
    // c hears of d first, then of the removal, and so repeats the addition.
    c.hear(&b);
    assert!(c.sees(&d));
    c.hear(&a);
    assert!(c.sees(&d) && !c.sees(&b));
    assert_eq!(a.hear(&c).added, [d.id()]);
}

#[test]
fn who_knows_of_its_removal_stays_out_also_where_others_do_not_count_it() {
    let mut a = Device::found();
    let mut b = a.invite();
    let mut c = b.invite();
    a.hear(&b);
    let mut d = b.invite();
    c.hear(&b);
    a.remove(&b);
    d.remove(&c);
    c.hear(&d);
    // For a, that d was added is void, and so is its word; c had taken it in before.
    a.hear(&c);
    c.hear(&a);
    assert!(a.sees(&c) && !a.sees(&d) && !c.sees(&c) && c.sees(&d));
    // It says nothing that would bring others to its side, or itself back.
    assert!(!c.roster.repeat(&c.identity, 1000));
    a.hear(&c);
    assert!(a.sees(&c) && !a.sees(&d));
    a.remove(&c);
    assert!(!a.sees(&c));
}

#[test]
fn a_stranger_has_no_say() {
    let mut a = Device::found();
    let mut stranger = Device::found();
    let other = stranger.invite();
    stranger.remove(&a);
    let changes = a.hear(&stranger);
    assert_eq!(changes, Changes::default());
    assert!(!a.sees(&other) && a.sees(&a));
}

#[test]
fn the_founder_can_be_removed() {
    let mut a = Device::found();
    let mut b = a.invite();
    let mut c = b.invite();
    c.remove(&a);
    b.hear(&c);
    let d = b.invite();
    assert!(d.sees(&b) && d.sees(&c) && !d.sees(&a));
    c.hear(&d);
    assert!(c.sees(&d));
}

#[test]
fn the_newest_name_wins_everywhere() {
    let label = |name: &str| Claim::Label { name: name.into(), role: Role::Full };
    let mut a = Device::found();
    let mut b = a.invite();
    let own = Identity::ephemeral();
    assert!(!a.state(&own, label("nobody")).any, "only members have names");
    a.roster.state(&a.identity, 1000, b.identity.public(), label("first"));
    b.hear(&a);
    b.roster.state(&b.identity, 5, b.identity.public(), label("second"));
    a.hear(&b);
    for device in [&a, &b] {
        assert_eq!(device.roster.label(b.id()), Some(("second", Role::Full)));
    }
}

#[test]
fn a_list_survives_being_written_down() {
    let mut a = Device::found();
    let mut b = a.invite();
    let c = a.invite();
    b.hear(&a);
    b.remove(&c);
    let again =
        Roster::restore(CIRCLE, b.identity.public(), &b.roster.accepted(), b.roster.statements())
            .unwrap();
    assert_eq!(again.members().collect::<Vec<_>>(), b.roster.members().collect::<Vec<_>>());
    assert!(again.is_removed(c.id()));
}

#[test]
fn a_circle_has_an_upper_size() {
    let mut a = Device::found();
    for _ in 0..MEMBERS_MAX + 3 {
        a.state(&Identity::ephemeral(), Claim::Addition);
    }
    assert_eq!(a.roster.members().count(), MEMBERS_MAX);
}

#[test]
fn devices_agree_whatever_they_hear_in_which_order() {
    use proptest::prelude::*;
    proptest!(ProptestConfig::with_cases(40), |(steps in
        proptest::collection::vec((0u8..4, 0usize..8, 0usize..8), 1..60))| {
        let mut devices = vec![Device::found()];
        for (what, one, other) in steps {
            let (one, other) = (one % devices.len(), other % devices.len());
            match what {
                // Whoever was removed and knows it invites nobody.
                0 if devices.len() < 8 && devices[one].sees(&devices[one]) => {
                    let new = devices[one].invite();
                    devices.push(new);
                }
                1 if one != other => {
                    let key = devices[other].identity.public();
                    devices[one].state_removal(key);
                }
                // Only who trusts the other listens to it.
                _ if one != other && devices[one].roster.contains(devices[other].id()) => {
                    let statements = devices[other].roster.statements();
                    let device = &mut devices[one];
                    device.roster.merge(&device.identity, 1000, statements).unwrap();
                }
                _ => {}
            }
        }
        // Those who still trust one another talk until nothing changes.
        loop {
            let mut any = false;
            for one in 0..devices.len() {
                for other in 0..devices.len() {
                    let trusted = devices[one].roster.contains(devices[other].id())
                        && devices[other].roster.contains(devices[one].id());
                    if one != other && trusted {
                        let statements = devices[other].roster.statements();
                        let device = &mut devices[one];
                        any |= device.roster.merge(&device.identity, 1000, statements)
                            .unwrap().any;
                    }
                }
            }
            if !any {
                break;
            }
        }
        for one in &devices {
            for other in &devices {
                // Who knows of its own removal has no say any more, and others may not count it.
                let trusted = one.sees(other) && other.sees(one);
                if trusted && one.sees(one) && other.sees(other) {
                    prop_assert_eq!(
                        one.roster.members().collect::<Vec<_>>(),
                        other.roster.members().collect::<Vec<_>>()
                    );
                }
            }
        }
    });
}

impl Device {
    fn state_removal(&mut self, subject: PublicKey) {
        if self.roster.contains(subject.device()) && self.sees(self) {
            self.roster.state(&self.identity, 1000, subject, Claim::Removal);
        }
    }
}
