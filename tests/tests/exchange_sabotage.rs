//! The simulator finds what is broken on purpose. A process of its own, because a fault is
//! everywhere in it.

use kith_core::sabotage::{Fault, activate};
use kith_tests::simulator::{History, play};

/// How many seeds may pass before a fault is found.
const SEEDS: u64 = 10_000;

#[test]
fn every_fault_is_found_by_some_history() {
    std::panic::set_hook(Box::new(|_| {}));
    let mut missed = Vec::new();
    for fault in Fault::ALL {
        activate(Some(*fault));
        let fails = |seed| play(&History::draw(seed)).violation.is_some();
        if !(0..SEEDS).any(fails) {
            missed.push(fault.name());
        }
    }
    activate(None);
    assert!(missed.is_empty(), "nobody noticed: {missed:?}");
}
