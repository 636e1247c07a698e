//! What happens around the histories: cables that are pulled, daemons that end and start again.

use crate::random::Random;

/// How many devices there are.
pub const DEVICES: usize = 3;

/// One turn of the weather.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Turn {
    /// A device's cable is pulled.
    Cut(usize),
    /// A device's cable is plugged in again.
    Join(usize),
    /// A device's daemon ends without warning.
    Kill(usize),
    /// A device's daemon is asked to end, and does.
    End(usize),
    /// A device's daemon starts again.
    Run(usize),
    /// Those that are plugged in hear of one another's changes.
    Meet,
    /// All are plugged in, and wait until they agree.
    Settle,
}

/// A stretch of time: how it begins, and then how many operations each history has in it.
#[derive(Clone, Debug)]
pub struct Phase {
    /// What happens at its beginning.
    pub turns: Vec<Turn>,
    /// How many operations follow.
    pub operations: usize,
}

/// Draws the weather of a play. After it everything heals.
pub fn draw(random: &mut Random) -> Vec<Phase> {
    // What all begin with.
    let mut phases = vec![Phase { turns: Vec::new(), operations: 8 }];
    let mut down = [false; DEVICES];
    let parted = 2 + random.index(3);
    for number in 0..parted {
        let mut turns = Vec::new();
        if number == 0 || random.chance(25) {
            turns.push(Turn::Settle);
            down = [false; DEVICES];
        } else if random.chance(25) {
            turns.push(Turn::Meet);
        }
        // Mostly all are apart, or two are together without the third.
        let together = *random.pick(&[0, 0, 0, 1, 2, 3, 7]);
        for device in 0..DEVICES {
            let cut = together & (1 << device) == 0;
            turns.push(if cut { Turn::Cut(device) } else { Turn::Join(device) });
        }
        for (device, is_down) in down.iter_mut().enumerate() {
            if *is_down {
                if random.chance(70) {
                    turns.push(Turn::Run(device));
                    *is_down = false;
                }
            } else if random.chance(14) {
                turns.push(if random.chance(65) { Turn::Kill(device) } else { Turn::End(device) });
                *is_down = random.chance(30);
                if !*is_down {
                    turns.push(Turn::Run(device));
                }
            }
        }
        phases.push(Phase { turns, operations: 5 + random.index(8) });
    }
    phases
}
