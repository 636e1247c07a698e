//! Plays random histories on simulated replicas until one breaks a promise.
//!
//! `simulate --seeds 10000` plays that many seeds on all cores. What fails is shortened and printed
//! with the command that plays it again. Progress is told on stderr; stdout ends with one line,
//! or with `--json` holds one object and nothing else.

use kith_core::sabotage::{Fault, activate};
use kith_tests::simulator::{History, Outcome, narrate, play, shrink};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::IsTerminal as _;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

const USAGE: &str = "usage: simulate [--seeds N] [--first SEED] [--sabotage NAME|all] [--json]";
/// How many histories are played to shorten one.
const SHRINK_PLAYS: usize = 4000;

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
    forgotten: u64,
    violations: u64,
    repairs: BTreeMap<&'static str, u64>,
    failed: Option<u64>,
}

impl Total {
    fn add(&mut self, seed: u64, outcome: &Outcome) {
        self.played += 1;
        self.operations += outcome.operations;
        self.messages += outcome.messages;
        self.forgotten += outcome.forgotten;
        for (rule, count) in &outcome.repairs {
            *self.repairs.entry(rule).or_default() += count;
        }
        if outcome.violation.is_some() {
            self.violations += 1;
            // The same seed fails first, whatever the threads' order.
            self.failed = Some(self.failed.map_or(seed, |failed| failed.min(seed)));
        }
    }
}

/// Tells now and then how far the seeds are.
struct Progress {
    begun: Instant,
    told: Option<Instant>,
    redraws: bool,
    what: &'static str,
}

impl Progress {
    fn new(what: &'static str) -> Self {
        let redraws = std::io::stderr().is_terminal();
        Progress { begun: Instant::now(), told: None, redraws, what }
    }

    fn tell(&mut self, total: &Total, seeds: u64) {
        let every = Duration::from_secs(if self.redraws { 1 } else { 10 });
        if self.told.unwrap_or(self.begun).elapsed() < every {
            return;
        }
        self.told = Some(Instant::now());
        let rate = rate(total.played, self.begun);
        let text = format!("{} {} of {seeds} seeds, {rate:.0} a second", self.what, total.played);
        if self.redraws {
            eprint!("\r\x1b[2K{text}");
        } else {
            eprintln!("{text}");
        }
    }

    fn end(&self) {
        if self.redraws && self.told.is_some() {
            eprint!("\r\x1b[2K");
        }
    }
}

fn rate(played: u64, begun: Instant) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
    let played = played as f64;
    played / begun.elapsed().as_secs_f64().max(0.001)
}

/// Plays all seeds, or until one fails.
fn run(options: &Options, what: &'static str) -> Total {
    let total = Mutex::new((Total::default(), Progress::new(what)));
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
                    let (total, progress) = &mut *total.lock().expect("no thread panics with it");
                    total.add(seed, &outcome);
                    progress.tell(total, options.seeds);
                }
            });
        }
    });
    let (total, progress) = total.into_inner().expect("no thread panics with it");
    progress.end();
    total
}

/// A violation, with all that is needed to follow it and to play it again.
struct Report {
    seed: u64,
    violation: String,
    history: History,
    story: Vec<String>,
}

impl Report {
    fn new(seed: u64) -> Report {
        let history = shrink(&History::draw(seed), SHRINK_PLAYS);
        let (outcome, story) = narrate(&history);
        let violation = outcome.violation.unwrap_or_default();
        Report { seed, violation, history, story }
    }

    fn replay(&self) -> String {
        format!(
            "cargo run --release -p kith-tests --bin simulate -- --seeds 1 --first {}",
            self.seed
        )
    }

    fn text(&self) -> String {
        let history = &self.history;
        let mut lines: Vec<String> = self.story.iter().map(|line| format!("  {line}")).collect();
        lines.push(format!("seed {}: {}", self.seed, self.violation));
        lines.push(format!(
            "{} replicas of which {} join late, {:?}, {} steps:",
            history.replicas,
            history.late,
            history.topology,
            history.steps.len()
        ));
        lines.extend(history.steps.iter().map(|step| format!("  {step:?}")));
        lines.push(format!("again: {}", self.replay()));
        lines.join("\n")
    }

    fn json(&self) -> Value {
        let history = &self.history;
        let steps: Vec<String> = history.steps.iter().map(|step| format!("{step:?}")).collect();
        json!({
            "seed": self.seed,
            "violation": self.violation,
            "replicas": history.replicas,
            "late": history.late,
            "topology": format!("{:?}", history.topology),
            "steps": steps,
            "story": self.story,
            "replay": self.replay(),
        })
    }
}

/// Breaks one line after the other, and says which of them the seeds find.
fn sabotage(options: &Options) -> ExitCode {
    let mut found = Vec::new();
    let mut caught = 0;
    for fault in &options.sabotage {
        activate(Some(*fault));
        let name = fault.name();
        let total = run(options, name);
        let needed = total.failed.map(|seed| seed - options.first + 1);
        let line = match total.failed.zip(needed) {
            Some((seed, needed)) => format!("{name}: caught by seed {seed}, after {needed} seeds"),
            None => format!("{name}: NOT caught by {} seeds", total.played),
        };
        if options.json {
            eprintln!("{line}");
        } else {
            println!("{line}");
        }
        found.push(json!({ "name": name, "seed": total.failed, "seeds": needed }));
        caught += usize::from(total.failed.is_some());
    }
    activate(None);
    let count = options.sabotage.len();
    if options.json {
        println!("{}", json!({ "sabotages": count, "caught": caught, "faults": found }));
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
    let total = run(&options, "played");
    let rate = rate(total.played, begun);
    let report = total.failed.map(Report::new);
    if options.json {
        println!(
            "{}",
            json!({
                "seeds": total.played,
                "seeds_per_second": rate,
                "operations": total.operations,
                "messages": total.messages,
                "forgotten": total.forgotten,
                "violations": total.violations,
                "repairs": total.repairs,
                "violation": report.as_ref().map(Report::json),
            })
        );
    } else {
        if let Some(report) = &report {
            println!("{}", report.text());
        }
        let repairs = total.repairs.iter().map(|(rule, count)| format!("{count} {rule}"));
        let repairs: Vec<String> = repairs.collect();
        println!(
            "seeds {}, seeds_per_second {rate:.1}, operations {}, messages {}, forgotten {}, violations {}, \
             repairs: {}",
            total.played,
            total.operations,
            total.messages,
            total.forgotten,
            total.violations,
            repairs.join("; "),
        );
    }
    if total.violations == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
