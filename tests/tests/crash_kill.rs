//! A daemon is killed two hundred times while programs write, and keeps what it promised each time.
//!
//! `KITH_CRASH_KILL_SEEDS` names other installations than the usual ten, by their seeds.

use kith_tests::crash::leaf::Loss;
use kith_tests::crash::{live_all, seeds};

#[test]
fn what_was_acknowledged_survives_every_kill() {
    let seeds = seeds("KITH_CRASH_KILL_SEEDS", 0..10);
    let Some(total) = live_all(&seeds, Loss::Process) else { return };
    if seeds.len() >= 10 {
        assert!(total.crashes >= 200 && total.syncs > total.crashes, "{total:?}");
    }
}
