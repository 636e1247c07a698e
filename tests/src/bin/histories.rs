//! Plays random histories on three real devices until one breaks a promise.
//!
//! `histories --histories 1000 --first 0` plays that many, ten at a time.

use kith_tests::histories::play_all;
use std::process::ExitCode;
use std::time::Instant;

const USAGE: &str = "usage: histories [--histories N] [--first SEED]";

fn options() -> Option<(u64, u64)> {
    let (mut first, mut histories) = (0, 100);
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let value = arguments.next()?.parse().ok()?;
        match argument.as_str() {
            "--histories" => histories = value,
            "--first" => first = value,
            _ => return None,
        }
    }
    Some((first, histories))
}

fn main() -> ExitCode {
    let Some((first, histories)) = options() else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    let begun = Instant::now();
    let told = |total: &kith_tests::histories::Total| {
        println!(
            "{} histories, {} operations, {} stops, {} repairs, {:.1} s",
            total.histories,
            total.operations,
            total.stops,
            total.repairs,
            begun.elapsed().as_secs_f64()
        );
    };
    match play_all(first, histories, told) {
        Some(_) => ExitCode::SUCCESS,
        None => ExitCode::FAILURE,
    }
}
