//! Histories: what happens in a simulation, step by step, drawn from a seed.
//!
//! Each step carries all its chance with it, and does nothing where it doesn't apply. So any part
//! of a history is a history too, and one that fails can be shortened.

use super::doing::{Doing, Theme};
use super::forgetful;
use crate::random::Random;

/// One step. Numbers of replicas, links and connections are taken modulo how many there are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    /// Somebody does something; to what exactly is drawn from `chance` and what is there.
    Operate {
        /// The replica.
        replica: usize,
        /// What.
        doing: Doing,
        /// On what.
        chance: u64,
    },
    /// A connection begins, if there is none; or `beside` an older one, whose frames still arrive.
    Connect {
        /// Which pair.
        link: usize,
        /// Whether there may be an older one.
        beside: bool,
    },
    /// A connection breaks, and what is under way is lost.
    Cut {
        /// Which pair.
        link: usize,
        /// Which of its connections.
        which: usize,
    },
    /// One side of a connection is gone: it sends and takes nothing more, but what it has sent may
    /// still arrive.
    Fade {
        /// Which pair.
        link: usize,
        /// Which of its connections.
        which: usize,
        /// Whether the second of the pair is gone.
        back: bool,
    },
    /// One side sends its next messages.
    Send {
        /// Which pair.
        link: usize,
        /// Which of its connections.
        which: usize,
        /// Whether the second of the pair sends.
        back: bool,
        /// How many messages at most.
        most: usize,
    },
    /// Messages that are under way arrive.
    Deliver {
        /// Which pair.
        link: usize,
        /// Which of its connections.
        which: usize,
        /// Whether the first of the pair receives.
        back: bool,
        /// How many at most.
        most: usize,
    },
    /// Two replicas talk until they have said `most` messages, or have nothing more to say.
    Meet {
        /// Which pair.
        link: usize,
        /// How many messages each sends at most.
        most: usize,
    },
    /// The network lets only those pairs talk whose bits are set.
    Part {
        /// A bit for each pair.
        links: u32,
    },
    /// A replica's disk has everything that was committed.
    Sync {
        /// The replica.
        replica: usize,
    },
    /// A replica stops without warning and starts again, with a prefix of what it committed since
    /// its disk had everything.
    Crash {
        /// The replica.
        replica: usize,
        /// Which prefix.
        chance: u64,
    },
    /// A replica stops, gets back an older state of its disk, and starts again.
    RollBack {
        /// The replica.
        replica: usize,
        /// Which state.
        chance: u64,
    },
    /// A replica loses its index and begins a new one.
    Lose {
        /// The replica.
        replica: usize,
    },
    /// A replica is copied to another machine, and both go on as one device.
    Clone {
        /// The replica.
        replica: usize,
        /// Whether the copy never takes part in the healing.
        stray: bool,
    },
    /// A replica leaves the circle, or comes back to it under another identity.
    Leave {
        /// The replica.
        replica: usize,
    },
    /// A replica takes another identity, outside of the circle or having left it, and joins it.
    Rejoin {
        /// The replica.
        replica: usize,
        /// With what.
        back: Back,
    },
    /// A replica forgets what it can, in slices.
    Sweep {
        /// The replica.
        replica: usize,
        /// How long it keeps what was removed, in milliseconds.
        kept_ms: u64,
        /// How many removed names a slice looks at.
        limit: usize,
        /// How many slices there are at most.
        most: usize,
    },
    /// A replica's clock is set off by so much.
    SetClock {
        /// The replica.
        replica: usize,
        /// How far off it is from then on, in milliseconds.
        off_ms: i64,
    },
    /// Time passes everywhere.
    Wait {
        /// How much, in milliseconds.
        ms: u64,
    },
}

/// What a device comes back with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Back {
    /// The index that it had.
    AsItWas,
    /// An older state of its disk.
    Older {
        /// Which.
        chance: u64,
    },
    /// Nothing.
    Empty,
}

/// Which replicas can ever talk to one another.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Topology {
    /// All.
    Full,
    /// Each only with its neighbours: all news passes through third devices.
    Chain,
    /// All only with the first.
    Star,
}

/// A whole history.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct History {
    /// Where it was drawn from.
    pub seed: u64,
    /// How many replicas there are at first: 2 to 5.
    pub replicas: usize,
    /// How many of them, the last ones, join later with what they already have.
    pub late: usize,
    /// Who can talk to whom.
    pub topology: Topology,
    /// Whether the view is computed anew after every step, not only now and then.
    pub careful: bool,
    /// What happens.
    pub steps: Vec<Step>,
}

impl History {
    /// Draws a history.
    #[must_use]
    pub fn draw(seed: u64) -> History {
        let mut random = Random::new(seed ^ 0x6b69_7468_5f73_696d);
        let replicas = *random.pick(&[2, 2, 3, 3, 3, 3, 4, 4, 5]);
        let late = if random.chance(15) { 1 } else { 0 };
        let topology = *random.pick(&[Topology::Full, Topology::Chain, Topology::Star]);
        let mut history =
            History { seed, replicas, late, topology, careful: false, steps: Vec::new() };
        // Some histories are dense with operations and rarely talk, others the other way round.
        let (talk, trouble) = (15 + random.below(45), random.below(16));
        let themes = [Theme::draw(&mut random), Theme::draw(&mut random)];
        let count = if random.chance(10) { 100 } else { 20 + random.index(40) };
        if random.chance(30) {
            let clocks = 0..replicas;
            history.steps.extend(
                clocks.map(|replica| Step::SetClock { replica, off_ms: skew(&mut random) }),
            );
        }
        // Something that everybody knows, for all to change.
        let first = random.index(replicas);
        for _ in 0..2 + random.index(6) {
            let (doing, chance) = (Theme::Founding.pick(&mut random), random.draw());
            history.steps.push(Step::Operate { replica: first, doing, chance });
        }
        let links = history.links().len();
        let rounds = links * replicas.div_ceil(2);
        history.steps.extend((0..rounds).map(|link| Step::Meet { link: link % links, most: 8 }));
        while history.steps.len() < count {
            let replica = random.index(replicas + 1);
            if random.chance(trouble) {
                history.steps.push(trouble_once(&mut random, replica));
            } else if random.chance(talk) {
                talk_once(&mut random, links, &mut history.steps);
            } else if random.chance(8) {
                history.steps.push(Step::Sync { replica });
            } else {
                history.steps.push(Step::Wait { ms: random.below(50) });
                let (doing, chance) = (random.pick(&themes).pick(&mut random), random.draw());
                history.steps.push(Step::Operate { replica, doing, chance });
            }
        }
        // Sweeps and whoever is told of them double what a history costs.
        if seed % 5 == 1 {
            forgetful::add(&mut history);
        }
        history
    }

    /// Whether anybody forgets anything in it.
    #[must_use]
    pub fn forgets(&self) -> bool {
        self.steps.iter().any(|step| matches!(step, Step::Sweep { .. }))
    }

    /// Whether all clocks go right in it.
    #[must_use]
    pub fn keeps_time(&self) -> bool {
        !self.steps.iter().any(|step| matches!(step, Step::SetClock { .. }))
    }

    /// The pairs of the first replicas that can talk.
    #[must_use]
    pub fn links(&self) -> Vec<(usize, usize)> {
        let all = (0..self.replicas).flat_map(|a| (a + 1..self.replicas).map(move |b| (a, b)));
        all.filter(|(a, b)| match self.topology {
            Topology::Full => true,
            Topology::Chain => a + 1 == *b,
            Topology::Star => *a == 0,
        })
        .collect()
    }
}

fn trouble_once(random: &mut Random, replica: usize) -> Step {
    let (link, which) = (random.index(64), random.index(4));
    match random.below(24) {
        0..=5 => Step::Crash { replica, chance: random.draw() },
        6..=8 => Step::SetClock { replica, off_ms: skew(random) },
        9 | 10 => Step::Wait { ms: random.below(3_600_000) },
        11 => Step::Wait { ms: random.below(400 * 86_400_000) },
        12..=14 => Step::Cut { link, which },
        15 | 16 => Step::Fade { link, which, back: random.chance(50) },
        17 | 18 => Step::Part { links: u32::try_from(random.below(1 << 16)).expect("16 bits fit") },
        19 => Step::Leave { replica },
        20 => Step::Lose { replica },
        21 | 22 => Step::RollBack { replica, chance: random.draw() },
        _ => Step::Clone { replica, stray: random.chance(40) },
    }
}

/// How far off a clock is: by seconds, by hours or by years.
fn skew(random: &mut Random) -> i64 {
    let most: i64 = *random.pick(&[5_000, 7_200_000, 7_200_000, 20 * 365 * 86_400_000]);
    let off = random.below(most.unsigned_abs() * 2);
    i64::try_from(off).expect("forty years fit") - most
}

fn talk_once(random: &mut Random, links: usize, steps: &mut Vec<Step>) {
    let (link, which) = (random.index(links + 3), random.index(4));
    let (back, most) = (random.chance(50), 1 + random.index(4));
    match random.below(10) {
        0 => steps.push(Step::Connect { link, beside: random.chance(50) }),
        1 | 2 => steps.push(Step::Send { link, which, back, most }),
        3 | 4 => steps.push(Step::Deliver { link, which, back, most }),
        5 | 6 => steps.push(Step::Meet { link, most: 1 + random.index(12) }),
        // A short conversation.
        _ => {
            steps.push(Step::Connect { link, beside: false });
            for back in [back, !back] {
                steps.push(Step::Deliver { link, which, back: !back, most });
                steps.push(Step::Send { link, which, back, most });
                steps.push(Step::Deliver { link, which, back: !back, most });
            }
        }
    }
}
