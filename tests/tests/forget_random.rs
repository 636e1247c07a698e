//! Random histories with devices that forget, leave the circle, and come back: with and without
//! changes of their own. A failure names its seed; `FORGET_SEED` runs that one alone.
#![expect(clippy::unwrap_used, reason = "a test fails where it unwraps")]

use kith_core::id::DeviceId;
use kith_core::index::IndexRead;
use kith_tests::random::Random;
use kith_tests::replicas::Replica;
use kith_tests::village::{
    Acts, act, begin_to_talk, device, forget, rename_device, settle, shows, talk, walk,
};
use std::collections::BTreeSet;

fn seeds(count: u64) -> Vec<u64> {
    match std::env::var("FORGET_SEED") {
        Ok(seed) => vec![seed.parse().unwrap()],
        Err(_) => (0..count).collect(),
    }
}

fn replicas(count: u64) -> Vec<Replica> {
    (0..count).map(|number| Replica::new(number, 1_700_000_000_000)).collect()
}

fn visible(replica: &Replica) -> BTreeSet<u32> {
    walk(replica).values().filter_map(|row| shows(replica, row)).collect()
}

fn others(replicas: &[Replica], present: &[bool], at: usize) -> Vec<DeviceId> {
    let of = |other: &usize| *other != at && present[*other];
    (0..replicas.len()).filter(of).map(|other| device(&replicas[other])).collect()
}

fn talk_between(replicas: &mut [Replica], one: usize, other: usize) {
    let (low, high) = (one.min(other), one.max(other));
    let (left, right) = replicas.split_at_mut(high);
    talk(&mut left[low], &mut right[0]);
}

/// One device is away while the others go on, remove things and perhaps forget them. Answers what all
/// show in the end, and what a file has that lives.
fn absence(seed: u64, forgets: bool, changes: u64) -> (Vec<String>, BTreeSet<u32>, usize, Acts) {
    let mut random = Random::new(seed);
    let mut acts = Acts::default();
    let mut all = replicas(3);
    // So that what else goes on doesn't change who was later.
    let mut now = all[0].now;
    let mut next = || {
        now += 1 << 24;
        now
    };
    for _ in 0..random.between(4, 20) {
        let at = random.index(3);
        all[at].now = next();
        act(&mut all[at], &mut acts, &mut random);
        if random.chance(40) {
            let other = (at + 1 + random.index(2)) % 3;
            talk_between(&mut all, at, other);
        }
    }
    settle(&mut all);
    let mut forgotten = 0;
    for _ in 0..random.between(2, 20) {
        let at = random.index(2);
        all[at].now = next();
        act(&mut all[at], &mut acts, &mut random);
        if random.chance(60) {
            talk_between(&mut all, 0, 1);
            if forgets {
                let ids = [device(&all[0]), device(&all[1])];
                forgotten += forget(&mut all[0], &ids[1..]);
                forgotten += forget(&mut all[1], &ids[..1]);
            }
        }
    }
    for _ in 0..changes {
        all[2].now = next();
        act(&mut all[2], &mut acts, &mut random);
    }
    rename_device(&mut all[2], 77);
    let first = random.index(2);
    talk_between(&mut all, 2, first);
    settle(&mut all);
    for other in &all[1..] {
        assert_eq!(all[0].lines(), other.lines(), "all show the same");
    }
    (all[0].lines(), visible(&all[0]), forgotten, acts)
}

#[test]
fn who_comes_back_unchanged_finds_what_it_would_have_found_had_nobody_forgotten() {
    let mut forgotten = 0;
    for seed in seeds(150) {
        println!("FORGET_SEED={seed}");
        let with = absence(seed, true, 0);
        let without = absence(seed, false, 0);
        assert_eq!(with.0, without.0);
        forgotten += with.2;
    }
    assert!(forgotten > 100 || std::env::var("FORGET_SEED").is_ok(), "{forgotten}");
}

#[test]
fn who_comes_back_with_changes_keeps_all_that_it_would_have_kept_had_nobody_forgotten() {
    for seed in seeds(150) {
        println!("FORGET_SEED={seed}");
        let with = absence(seed, true, 1 + seed % 6);
        let without = absence(seed, false, 1 + seed % 6);
        // What somebody removed may come back with another's change where its register is still there.
        let lost: BTreeSet<_> = without.1.difference(&with.1).copied().collect();
        let lost: Vec<_> = lost.difference(&with.3.ended).collect();
        assert!(lost.is_empty(), "lost {lost:?} of {:?}, kept {:?}", without.0, with.0);
    }
}

/// Everything at once: four devices that come and go, talk by halves, and forget.
fn turmoil(seed: u64) -> usize {
    let mut random = Random::new(seed);
    let mut acts = Acts::default();
    let mut all = replicas(4);
    let mut present = [true; 4];
    let mut forgotten = 0;
    let mut number = 100;
    for _ in 0..random.between(10, 120) {
        let at = random.index(4);
        let other = (at + 1 + random.index(3)) % 4;
        match random.below(100) {
            0..45 => act(&mut all[at], &mut acts, &mut random),
            45..60 if present[at] && present[other] => talk_between(&mut all, at, other),
            60..70 if present[at] && present[other] => {
                let ids: Vec<DeviceId> = all.iter().map(device).collect();
                let (low, high) = (at.min(other), at.max(other));
                let (left, right) = all.split_at_mut(high);
                begin_to_talk([&mut left[low], &mut right[0]], &mut random, |replica, _| {
                    let own = device(replica);
                    let members = (0..4).filter(|one| present[*one] && ids[*one] != own);
                    let members: Vec<_> = members.map(|one| ids[one]).collect();
                    forgotten += forget(replica, &members);
                });
            }
            70..90 => {
                let members = match present[at] {
                    true => others(&all, &present, at),
                    false => Vec::new(),
                };
                forgotten += forget(&mut all[at], &members);
            }
            90..95 if present.iter().filter(|here| **here).count() > 2 => present[at] = false,
            95..98 if !present[at] => {
                present[at] = true;
                number += 1;
                rename_device(&mut all[at], number);
            }
            _ => {}
        }
    }
    for at in 0..4 {
        if !present[at] {
            number += 1;
            rename_device(&mut all[at], number);
        }
    }
    settle(&mut all);
    for other in &all[1..] {
        assert_eq!(all[0].lines(), other.lines(), "all show the same");
        assert_eq!(all[0].index.view().count(), other.index.view().count());
    }
    assert_eq!(all[0].index.view().count(), all[0].lines().len(), "everything can be reached");
    let shown = visible(&all[0]);
    for saved in acts.saved.difference(&acts.ended) {
        assert!(shown.contains(saved), "{saved} was saved, and is lost: {:?}", all[0].lines());
    }
    let ids: Vec<DeviceId> = all.iter().map(device).collect();
    for at in 0..4 {
        let members: Vec<_> = ids.iter().copied().filter(|id| *id != ids[at]).collect();
        forgotten += forget(&mut all[at], &members);
    }
    settle(&mut all);
    for other in &all[1..] {
        assert_eq!(all[0].lines(), other.lines(), "and still do");
    }
    for replica in &all {
        let over = |id| replica.index.is_forgotten_inode(id).unwrap();
        let shown = replica.index.view().filter(|row| over(row.node.inode())).count();
        assert_eq!(shown, 0, "nothing that is forgotten is shown");
    }
    forgotten
}

#[test]
fn devices_that_come_and_go_and_forget_end_with_one_tree_and_lose_nothing() {
    let mut forgotten = 0;
    for seed in seeds(150) {
        println!("FORGET_SEED={seed}");
        forgotten += turmoil(seed);
    }
    assert!(forgotten > 100 || std::env::var("FORGET_SEED").is_ok(), "{forgotten}");
}
