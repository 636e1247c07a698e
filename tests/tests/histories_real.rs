//! A hundred random histories on three real devices with real mounts.
//!
//! `KITH_HISTORIES` says how many, `KITH_HISTORIES_FIRST` which is the first.

use kith_tests::histories::{Total, play_all};

fn number(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).map_or(otherwise, |given| given.parse().expect("it is a number"))
}

#[test]
fn three_devices_agree_and_lose_nothing_whatever_happened() {
    let (first, histories) = (number("KITH_HISTORIES_FIRST", 0), number("KITH_HISTORIES", 100));
    let Some(total) = play_all(first, histories, |_: &Total| {}) else { return };
    assert_eq!(total.histories, histories);
    if histories >= 100 {
        assert!(total.operations > 2000 && total.stops >= 10 && total.repairs > 50, "{total:?}");
    }
}
