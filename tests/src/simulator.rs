//! The simulator: several replicas over indexes in memory, a network that parts, delays and cuts,
//! disks that lose what wasn't synced, roll back, are lost or copied, clocks that jump, and a random
//! history, all from one seed. What must always hold is looked at after every step. In the end
//! everything is healed, and all replicas must show the same tree, with every version that nobody
//! removed or replaced.
//!
//! It runs the real operations, merge, view, exchange and wire format; only disks, networks,
//! clocks and people are made up.

mod check;
mod clones;
mod doing;
mod forgetful;
mod forgetting;
mod history;
mod person;
mod replica;
mod rules;
mod shrink;
mod story;
mod timeline;
mod watch;
mod world;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

pub use doing::Doing;
pub use history::{Back, History, Step, Topology};
pub use shrink::shrink;

/// What one history came to.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// How many operations succeeded.
    pub operations: u64,
    /// How many messages were taken.
    pub messages: u64,
    /// How often each rule of the view began to repair something on some replica.
    pub repairs: BTreeMap<&'static str, u64>,
    /// How many registers of removed objects were forgotten.
    pub forgotten: u64,
    /// What was found wrong, if anything.
    pub violation: Option<String>,
}

/// Plays a history, heals, and checks.
#[must_use]
pub fn play(history: &History) -> Outcome {
    let played = catch_unwind(AssertUnwindSafe(|| {
        let mut world = world::World::new(history);
        let result = history.steps.iter().try_for_each(|step| world.step(step));
        let result = result.and_then(|()| world.heal()).and_then(|()| check::check_all(&mut world));
        let mut outcome = world.outcome();
        outcome.violation = result.err();
        outcome
    }));
    played.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_string()));
        let text = format!("a panic: {}", text.unwrap_or_default());
        Outcome { violation: Some(text), ..Outcome::default() }
    })
}

/// Plays a history, and tells what happens in it.
#[must_use]
pub fn narrate(history: &History) -> (Outcome, Vec<String>) {
    story::listen(|| play(history))
}
