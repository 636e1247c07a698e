//! Follows all histories of two devices over tiny trees: `exhaust [kinds N M | pairs N M]...`, without
//! arguments `kinds 1 1 kinds 2 1 kinds 1 2 pairs 4 4`. `kinds` has every kind of operation, from
//! each beginning, `pairs` each two kinds, from the first; N and M say how many operations each
//! device does at most. Prints a line for each plan. A pair that has too many states
//! is followed with one operation less on each device, and its line says so.
//!
//! A history that breaks a promise is printed, shortened; the exit code is then 1.

use kith_tests::exhaustive::{BEGINNINGS, Plan, Report, every_kind, explore, pairs};
use std::process::ExitCode;
use std::time::Instant;

/// How many states of one pair are followed.
const PAIR_STATES_MAX: u64 = 60_000;

fn main() -> ExitCode {
    let mut words: Vec<String> = std::env::args().skip(1).collect();
    if words.is_empty() {
        let all = "kinds 1 1 kinds 2 1 kinds 1 2 pairs 4 4";
        words = all.split(' ').map(str::to_owned).collect();
    }
    let since = Instant::now();
    let mut sum = Report::default();
    for part in words.chunks(3) {
        let numbers: Vec<usize> = part[1..].iter().filter_map(|word| word.parse().ok()).collect();
        let [desk, lap] = numbers[..] else {
            eprintln!("What to follow is `kinds N M` or `pairs N M`.");
            return ExitCode::from(2);
        };
        let violated = match part[0].as_str() {
            "kinds" => kinds([desk, lap], &mut sum),
            "pairs" => all_pairs([desk, lap], &mut sum),
            what => {
                eprintln!("There are `kinds` and `pairs`, but no `{what}`.");
                return ExitCode::from(2);
            }
        };
        if violated {
            return ExitCode::FAILURE;
        }
    }
    let seconds = since.elapsed().as_secs_f64();
    println!("{}; 0 violations, {seconds:.1} s", counts(&sum));
    ExitCode::SUCCESS
}

fn counts(report: &Report) -> String {
    let Report { states, steps, histories, endings, .. } = report;
    format!("{states} states, {steps} steps, {histories} histories, {endings} endings")
}

/// Follows a plan, and says whether it breaks a promise.
fn follow(what: &str, plan: &Plan, sum: &mut Report) -> Option<Report> {
    let since = Instant::now();
    let report = explore(plan);
    if report.given_up {
        return Some(report);
    }
    let seconds = since.elapsed().as_secs_f64();
    println!("{what}: {}, {seconds:.1} s", counts(&report));
    sum.states += report.states;
    sum.steps += report.steps;
    sum.endings += report.endings;
    sum.histories = sum.histories.saturating_add(report.histories);
    if let Some(violation) = &report.violation {
        println!("violation: {}", violation.problem);
        println!("  given: {}", plan.given);
        violation.history.iter().for_each(|step| println!("  {step}"));
        return None;
    }
    Some(report)
}

fn kinds(most: [usize; 2], sum: &mut Report) -> bool {
    BEGINNINGS.iter().any(|given| {
        // All ways to cut messages are only few enough where there are few.
        let cuts = most == [1, 1];
        let what = format!("every kind, {} and {} operations, after {given}", most[0], most[1]);
        follow(&what, &every_kind(given, most, cuts), sum).is_none()
    })
}

fn all_pairs(most: [usize; 2], sum: &mut Report) -> bool {
    pairs().into_iter().any(|sorts| {
        let mut most = most;
        loop {
            let what = format!("{sorts:?}, {} and {} operations", most[0], most[1]);
            let (given, limit) = (BEGINNINGS[0], PAIR_STATES_MAX);
            let sorts = sorts.clone();
            let plan = Plan { given, sorts, most, crossing: true, cuts: false, limit };
            match follow(&what, &plan, sum) {
                None => return true,
                Some(report) if !report.given_up || most == [0, 0] => return false,
                Some(_) => most = most.map(|most| most.saturating_sub(1)),
            }
        }
    })
}
