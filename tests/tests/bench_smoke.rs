//! The benchmark does all of its work, on a scale at which its times say nothing.

use kith_tests::bench::{COURSES, Course, Stage, Subject, measure};
use kith_tests::lab;
use std::sync::Arc;

fn measures_every_row_but_the_cold_ones(course: &Course, subject: Subject) {
    let stage = Stage::new(subject, Arc::new(|_| false), 0.001);
    for measured in measure(course, &stage, 2) {
        let cold = ["read-cold", "stat-first"].contains(&measured.row.name);
        let (name, rounds) = (measured.row.name, measured.rounds.len());
        assert_eq!(rounds, if cold { 0 } else { 2 }, "{name} on {subject:?}");
        assert_eq!(measured.ratio().is_some(), !cold, "{name} on {subject:?}");
    }
}

#[test]
fn the_benchmark_measures_every_row_of_a_daemon_but_the_cold_ones() {
    let Some(_possible) = lab::or_skip(1) else { return };
    COURSES.iter().for_each(|it| measures_every_row_but_the_cold_ones(it, Subject::Daemon));
}

#[test]
fn the_benchmark_measures_what_has_a_floor_on_a_volume_in_memory() {
    let Some(_possible) = lab::or_skip(1) else { return };
    let floored = COURSES.iter().filter(|course| course.floor);
    floored.for_each(|it| measures_every_row_but_the_cold_ones(it, Subject::Memory));
}
