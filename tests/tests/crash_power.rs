//! The disk under a daemon loses what was not flushed, in any order, while programs write; and what
//! was promised to be durable is there each time.
//!
//! `KITH_CRASH_POWER_SEEDS` names other installations than the usual few, by their seeds.

use kith_tests::crash::leaf::Loss;
use kith_tests::crash::{live_all, seeds};

#[test]
fn what_was_fsynced_survives_every_power_cut() {
    let seeds = seeds("KITH_CRASH_POWER_SEEDS", 0..3);
    let Some(total) = live_all(&seeds, Loss::Power) else { return };
    if seeds.len() >= 3 {
        assert!(total.crashes >= 60 && total.syncs > total.crashes, "{total:?}");
    }
}
