//! The benchmark does all of its work, on a scale at which its times say nothing.

use kith_tests::bench::{COURSES, measure};
use kith_tests::lab;
use std::sync::Arc;

#[test]
fn the_benchmark_measures_every_row_but_the_cold_ones() {
    let Some(_possible) = lab::or_skip(1) else { return };
    for course in COURSES {
        for measured in measure(course, Arc::new(|_| false), 0.001, 2) {
            let cold = ["read-cold", "stat-first"].contains(&measured.row.name);
            let (name, rounds) = (measured.row.name, measured.rounds.len());
            assert_eq!(rounds, if cold { 0 } else { 2 }, "{name}");
            assert_eq!(measured.ratio().is_some(), !cold, "{name}");
        }
    }
}
