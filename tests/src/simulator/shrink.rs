//! Makes a history that fails shorter, so that a person can follow it.

use super::history::History;
use super::play;

/// Leaves out steps as long as the history still fails, first in large runs and then one by one.
/// Plays at most `plays` histories.
#[must_use]
pub fn shrink(history: &History, plays: usize) -> History {
    let mut shortest = history.clone();
    let mut left = plays;
    // Where it fails as soon as one looks closely, that is nearer to the cause.
    let careful = History { careful: true, ..history.clone() };
    if play(&careful).violation.is_some() {
        shortest = careful;
    }
    let mut run = (shortest.steps.len() / 2).max(1);
    loop {
        let mut changed = false;
        let mut at = 0;
        while at < shortest.steps.len() && left > 0 {
            left -= 1;
            let mut shorter = shortest.clone();
            shorter.steps.drain(at..(at + run).min(shorter.steps.len()));
            if play(&shorter).violation.is_some() {
                shortest = shorter;
                changed = true;
            } else {
                at += run;
            }
        }
        if left == 0 || (run == 1 && !changed) {
            return shortest;
        }
        run = (run / 2).max(1);
    }
}
