//! Histories: what happens in a simulation, step by step, drawn from a seed.
//!
//! Each step carries all its chance with it, and does nothing where it doesn't apply. So any part
//! of a history is a history too, and one that fails can be shortened.

use crate::random::Random;

/// One step. Numbers of replicas and links are taken modulo how many there are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    /// Somebody does something; what exactly is drawn from `chance` and what is there.
    Operate {
        /// The replica.
        replica: usize,
        /// What kind of operation, and on what.
        chance: u64,
    },
    /// A connection begins, if there is none.
    Connect {
        /// Which pair.
        link: usize,
    },
    /// A connection breaks, and what is under way is lost.
    Cut {
        /// Which pair.
        link: usize,
    },
    /// One side sends its next messages.
    Send {
        /// Which pair.
        link: usize,
        /// Whether the second of the pair sends.
        back: bool,
        /// How many messages at most.
        most: usize,
    },
    /// Messages that are under way arrive.
    Deliver {
        /// Which pair.
        link: usize,
        /// Whether the first of the pair receives.
        back: bool,
        /// How many at most.
        most: usize,
    },
    /// A replica's disk has everything that was committed.
    Sync {
        /// The replica.
        replica: usize,
    },
    /// A replica stops without warning, loses what its disk doesn't have, and starts again.
    Crash {
        /// The replica.
        replica: usize,
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
    /// How many replicas there are: 3 to 5.
    pub replicas: usize,
    /// Who can talk to whom.
    pub topology: Topology,
    /// What happens.
    pub steps: Vec<Step>,
}

impl History {
    /// Draws a history.
    #[must_use]
    pub fn draw(seed: u64) -> History {
        let mut random = Random::new(seed ^ 0x6b69_7468_5f73_696d);
        let replicas = 3 + random.index(3);
        let topology = *random.pick(&[Topology::Full, Topology::Chain, Topology::Star]);
        // Some histories are dense with operations and rarely talk, others the other way round.
        let (talk, trouble) = (5 + random.below(55), random.below(12));
        let count = 100 + random.index(150);
        let mut steps = Vec::with_capacity(count);
        while steps.len() < count {
            let replica = random.index(replicas);
            if random.chance(trouble) {
                steps.push(match random.below(6) {
                    0 | 1 => Step::Crash { replica },
                    2 => Step::SetClock { replica, off_ms: skew(&mut random) },
                    3 => Step::Wait { ms: random.below(3_600_000) },
                    _ => Step::Cut { link: random.index(16) },
                });
            } else if random.chance(talk) {
                talk_once(&mut random, &mut steps);
            } else if random.chance(12) {
                steps.push(Step::Sync { replica });
            } else {
                steps.push(Step::Wait { ms: random.below(50) });
                steps.push(Step::Operate { replica, chance: random.draw() });
            }
        }
        History { seed, replicas, topology, steps }
    }

    /// The pairs that can talk.
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

fn skew(random: &mut Random) -> i64 {
    let off = i64::try_from(random.below(7_200_000)).expect("two hours fit");
    off - 3_600_000
}

fn talk_once(random: &mut Random, steps: &mut Vec<Step>) {
    let (link, back, most) = (random.index(16), random.chance(50), 1 + random.index(4));
    match random.below(8) {
        0 => steps.push(Step::Connect { link }),
        1 | 2 => steps.push(Step::Send { link, back, most }),
        3 | 4 => steps.push(Step::Deliver { link, back, most }),
        // A short conversation.
        _ => {
            steps.push(Step::Connect { link });
            for back in [back, !back] {
                steps.push(Step::Deliver { link, back: !back, most });
                steps.push(Step::Send { link, back, most });
                steps.push(Step::Deliver { link, back: !back, most });
            }
        }
    }
}
