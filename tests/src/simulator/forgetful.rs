//! What a history has in which devices forget: sweeps here and there, all together, while somebody
//! is away for long, and while somebody has left the circle who comes back, perhaps to one who knows
//! less than he does.

use super::doing::{Doing, Theme};
use super::history::{Back, History, Step, Topology};
use crate::random::Random;

const DAY_MS: u64 = 86_400_000;

/// Adds it to a history. All chance is drawn here, so that the other steps stay what they were.
pub(super) fn add(history: &mut History) {
    let random = &mut Random::new(history.seed ^ 0x666f_7267_6574);
    // Only who has heard from all others can forget.
    if random.chance(80) {
        history.topology = Topology::Full;
    }
    let begin = history.steps.len() / 4;
    for _ in 0..1 + random.index(2) {
        match random.below(8) {
            0 | 1 => insert(history, begin, random, together),
            2..=4 => absence(history, begin, random),
            5 => year(history, begin, random),
            _ => hearsay(history, begin, random),
        }
    }
    for _ in 0..random.index(4) {
        insert(history, begin, random, |history, random| {
            let replica = random.index(history.replicas);
            vec![sweep(random, replica)]
        });
    }
}

fn insert(
    history: &mut History,
    begin: usize,
    random: &mut Random,
    what: impl FnOnce(&History, &mut Random) -> Vec<Step>,
) {
    let at = begin + random.index(history.steps.len() + 1 - begin);
    let steps = what(history, random);
    history.steps.splice(at..at, steps);
}

fn sweep(random: &mut Random, replica: usize) -> Step {
    let kept_ms = *random.pick(&[0, 0, 0, 1000, 30 * DAY_MS]);
    Step::Sweep { replica, kept_ms, limit: 1 + random.index(8), most: 1 + random.index(20) }
}

fn remove(random: &mut Random, replica: usize) -> Step {
    let doing = *random.pick(&[Doing::Remove, Doing::Remove, Doing::RemoveTree]);
    Step::Operate { replica, doing, chance: random.draw() }
}

/// Everybody tells everybody, and forgets.
fn together(history: &History, random: &mut Random) -> Vec<Step> {
    let mut steps = Vec::new();
    for _ in 0..random.index(4) {
        let replica = random.index(history.replicas);
        steps.push(remove(random, replica));
    }
    let links = history.links().len();
    // What one knows of a third it may say only in the second round.
    for link in 0..2 * links {
        steps.push(Step::Meet { link: link % links, most: 40 });
    }
    steps.push(Step::Wait { ms: 1 });
    for replica in 0..history.replicas {
        if random.chance(80) {
            let (kept_ms, limit) = (0, 1 + random.index(12));
            steps.push(Step::Sweep { replica, kept_ms, limit, most: 40 });
        }
        if random.chance(30) {
            steps.push(Step::Meet { link: random.index(links), most: 1 + random.index(12) });
        }
    }
    steps
}

/// Somebody leaves the circle, the others remove and forget, perhaps he changes something, and
/// comes back.
fn absence(history: &mut History, begin: usize, random: &mut Random) {
    let replica = random.index(history.replicas);
    let mut at = begin + random.index(history.steps.len() + 1 - begin);
    let mut put = |history: &mut History, steps: Vec<Step>, random: &mut Random| {
        let count = steps.len();
        history.steps.splice(at..at, steps);
        let left = (history.steps.len() - at - count).min(12);
        at += count + random.index(left + 1);
    };
    put(history, vec![Step::Leave { replica }], random);
    for _ in 0..1 + random.index(2) {
        let steps = together(history, random);
        put(history, steps, random);
    }
    let theme = Theme::draw(random);
    for _ in 0..random.index(4) {
        let (doing, chance) = (theme.pick(random), random.draw());
        put(history, vec![Step::Operate { replica, doing, chance }], random);
    }
    if random.chance(25) {
        let alone = sweep(random, replica);
        put(history, vec![alone], random);
    }
    if random.chance(85) {
        let back = match random.below(8) {
            0 => Back::Empty,
            1 | 2 => Back::Older { chance: random.draw() },
            _ => Back::AsItWas,
        };
        put(history, vec![Step::Rejoin { replica, back }], random);
    }
    if random.chance(50) {
        let steps = together(history, random);
        put(history, steps, random);
    }
}

/// Somebody is away while the others remove and forget. Another one begins anew with nothing, hears what
/// is forgotten, and little else, and then meets the one who was away.
fn hearsay(history: &mut History, begin: usize, random: &mut Random) {
    let away = random.index(history.replicas);
    let links = history.links();
    let theirs = |replica: usize| {
        let with =
            links.iter().enumerate().filter(move |(_, (a, b))| *a == replica || *b == replica);
        with.map(|(link, _)| link).collect::<Vec<_>>()
    };
    let others: Vec<usize> = (0..history.replicas).filter(|replica| *replica != away).collect();
    let new = *random.pick(&others);
    let (of_away, of_new) = (theirs(away), theirs(new));
    insert(history, begin, random, |history, random| {
        let mut steps: Vec<_> =
            (0..links.len()).map(|link| Step::Meet { link, most: 40 }).collect();
        steps.push(Step::Leave { replica: away });
        let theme = Theme::draw(random);
        for _ in 0..random.index(3) {
            let (doing, chance) = (theme.pick(random), random.draw());
            steps.push(Step::Operate { replica: away, doing, chance });
        }
        for _ in 0..1 + random.index(2) {
            steps.push(remove(random, new));
        }
        steps.extend(together(history, random));
        steps.extend([
            Step::Leave { replica: new },
            Step::Rejoin { replica: new, back: Back::Empty },
        ]);
        for link in of_new.iter().filter(|link| !of_away.contains(link)) {
            steps.push(Step::Meet { link: *link, most: 2 + random.index(6) });
        }
        steps.push(Step::Rejoin { replica: away, back: Back::AsItWas });
        for link in of_new.iter().filter(|link| of_away.contains(link)) {
            steps.push(Step::Meet { link: *link, most: 40 });
        }
        steps
    });
}

/// Somebody is away for a year, and is waited for.
fn year(history: &mut History, begin: usize, random: &mut Random) {
    let replica = random.index(history.replicas);
    let links = history.links().into_iter().enumerate();
    let apart = links.filter(|(_, (a, b))| *a != replica && *b != replica);
    let apart = apart.fold(0, |bits, (at, _)| bits | 1 << at);
    insert(history, begin, random, |history, random| {
        let mut steps = vec![Step::Part { links: apart }];
        steps.extend(together(history, random));
        steps.push(Step::Wait { ms: 400 * DAY_MS });
        steps.extend(together(history, random));
        for _ in 0..random.index(3) {
            let (doing, chance) = (Theme::draw(random).pick(random), random.draw());
            steps.push(Step::Operate { replica, doing, chance });
        }
        steps.push(Step::Part { links: u32::MAX });
        steps.extend(together(history, random));
        steps
    });
}
