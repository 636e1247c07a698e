//! All histories of two devices, as long as they are short. `exhaust` follows longer ones.

use kith_tests::exhaustive::{BEGINNINGS, Plan, Sort, every_kind, explore};

fn follows(plan: &Plan, histories: u128) {
    let report = explore(plan);
    if let Some(violation) = report.violation {
        panic!("{}\n{}: {:#?}", violation.problem, plan.given, violation.history);
    }
    assert!(!report.given_up);
    assert!(report.histories >= histories, "only {} histories", report.histories);
}

#[test]
fn one_operation_of_every_kind_on_each_device_breaks_no_promise() {
    for given in &BEGINNINGS[..3] {
        follows(&every_kind(given, [1, 1], false), 300);
    }
}

#[test]
fn messages_in_pieces_break_no_promise() {
    let sorts = vec![Sort::Edit, Sort::Over, Sort::Remove, Sort::Withhold, Sort::Settle];
    let (given, most) = ("write a, write b", [1, 1]);
    follows(&Plan { given, sorts, most, crossing: true, cuts: true, limit: u64::MAX }, 500);
}

#[test]
fn edits_and_removals_on_both_devices_break_no_promise() {
    let sorts = vec![Sort::Edit, Sort::Remove, Sort::Settle];
    let (given, most) = ("write a, ln a b", [2, 1]);
    follows(&Plan { given, sorts, most, crossing: true, cuts: false, limit: u64::MAX }, 200);
}
