//! Plays random histories on simulated replicas until one breaks a promise.
//!
//! `simulate --seeds 10000` plays that many seeds on all cores. What fails is shortened and printed
//! with the command that plays it again.

use kith_core::sabotage::{Fault, activate};
use kith_tests::simulator::{History, Outcome, narrate, play, shrink};
use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

const USAGE: &str = "usage: simulate [--seeds N] [--first SEED] [--sabotage NAME|all] [--json]";

struct Options {
    seeds: u64,
    first: u64,
    json: bool,
    sabotage: Vec<Fault>,
}

fn options() -> Option<Options> {
    let mut options = Options { seeds: 1000, first: 0, json: false, sabotage: Vec::new() };
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--seeds" => options.seeds = arguments.next()?.parse().ok()?,
            "--first" => options.first = arguments.next()?.parse().ok()?,
            "--sabotage" => options.sabotage = faults(&arguments.next()?)?,
            "--json" => options.json = true,
            _ => return None,
        }
    }
    Some(options)
}

/// The faults of this name, or all.
fn faults(name: &str) -> Option<Vec<Fault>> {
    let wanted = |fault: &&Fault| name == "all" || fault.name() == name;
    let faults: Vec<Fault> = Fault::ALL.iter().filter(wanted).copied().collect();
    if faults.is_empty() {
        let names: Vec<&str> = Fault::ALL.iter().map(|fault| fault.name()).collect();
        eprintln!("there is no fault {name}; there are: {}", names.join(", "));
        return None;
    }
    Some(faults)
}

#[derive(Default)]
struct Total {
    played: u64,
    operations: u64,
    messages: u64,
    repairs: BTreeMap<&'static str, u64>,
    failed: Option<u64>,
}

impl Total {
    fn add(&mut self, seed: u64, outcome: &Outcome) {
        self.played += 1;
        self.operations += outcome.operations;
        self.messages += outcome.messages;
        for (rule, count) in &outcome.repairs {
            *self.repairs.entry(rule).or_default() += count;
        }
        if outcome.violation.is_some() {
            // The same seed fails first, whatever the threads' order.
            self.failed = Some(self.failed.map_or(seed, |failed| failed.min(seed)));
        }
    }
}

fn run(options: &Options) -> Total {
    let total = Mutex::new(Total::default());
    let (next, stop) = (AtomicU64::new(options.first), AtomicBool::new(false));
    let end = options.first.saturating_add(options.seeds);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= end {
                        return;
                    }
                    let outcome = play(&History::draw(seed));
                    stop.fetch_or(outcome.violation.is_some(), Ordering::Relaxed);
                    total.lock().expect("no thread panics with it").add(seed, &outcome);
                }
            });
        }
    });
    total.into_inner().expect("no thread panics with it")
}

fn explain(seed: u64) {
    let history = History::draw(seed);
    let shortest = shrink(&history, 3000);
    let (outcome, story) = narrate(&shortest);
    story.iter().for_each(|line| println!("  {line}"));
    println!("seed {seed}: {}", outcome.violation.unwrap_or_default());
    println!(
        "{} replicas, {:?}, {} steps:",
        shortest.replicas,
        shortest.topology,
        shortest.steps.len()
    );
    for step in &shortest.steps {
        println!("  {step:?}");
    }
    println!("again: cargo run --release -p kith-tests --bin simulate -- --seeds 1 --first {seed}");
}

/// Breaks one line after the other, and says which of them the seeds find.
fn sabotage(options: &Options) -> ExitCode {
    let mut caught = 0;
    for fault in &options.sabotage {
        activate(Some(*fault));
        let total = run(options);
        let name = fault.name();
        match total.failed {
            Some(seed) => println!("{name}: caught by seed {seed}, after {} seeds", total.played),
            None => println!("{name}: NOT caught by {} seeds", total.played),
        }
        caught += usize::from(total.failed.is_some());
    }
    activate(None);
    let count = options.sabotage.len();
    if options.json {
        println!("{}", serde_json::json!({ "sabotages": count, "caught": caught }));
    } else {
        println!("sabotages {count}, caught {caught}");
    }
    if caught == count { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn main() -> ExitCode {
    let Some(options) = options() else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    // A panic is a violation like others, and told with its history.
    std::panic::set_hook(Box::new(|_| {}));
    if !options.sabotage.is_empty() {
        return sabotage(&options);
    }
    let begun = Instant::now();
    let total = run(&options);
    let seconds = begun.elapsed().as_secs_f64().max(0.001);
    if let Some(seed) = total.failed {
        explain(seed);
    }
    #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
    let rate = total.played as f64 / seconds;
    let violations = u64::from(total.failed.is_some());
    if options.json {
        let line = serde_json::json!({
            "seeds": total.played,
            "seeds_per_second": rate,
            "operations": total.operations,
            "messages": total.messages,
            "violations": violations,
            "repairs": total.repairs,
        });
        println!("{line}");
    } else {
        let repairs = total.repairs.iter().map(|(rule, count)| format!("{count} {rule}"));
        let repairs: Vec<String> = repairs.collect();
        println!(
            "seeds {}, seeds_per_second {rate:.1}, operations {}, messages {}, violations \
             {violations}, repairs: {}",
            total.played,
            total.operations,
            total.messages,
            repairs.join(", "),
        );
    }
    if violations == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
