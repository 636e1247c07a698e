//! Measures what people wait for, between two hosts on one machine: `measure [CASE]...`, with
//! the cases `big`, `small`, `edit` and `memory`, or all of them. Prints a table, and last one
//! line of JSON.

use kith_tests::circle::Circle;
use kith_tests::device::Device;
use kith_tests::tree::hash;
use kith_tests::{binary, grove, pulse};
use serde_json::{Value, json};
use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

/// How long any one step may take.
const PATIENCE: Duration = Duration::from_secs(1800);
/// The size of the large file.
const BIG_BYTES: u64 = 2 << 30;
/// How many small files there are.
const SMALL_FILES: u64 = 20_000;
/// How many saves are timed.
const EDITS: usize = 100;
/// How many files an idle daemon holds.
const IDLE_FILES: u64 = 100_000;

type Case = fn(&Circle) -> Vec<(&'static str, f64, &'static str)>;

const CASES: &[(&str, Case)] =
    &[("big", big), ("small", small), ("edit", edit), ("memory", memory)];

fn main() -> ExitCode {
    let wanted: Vec<String> = std::env::args().skip(1).collect();
    if let Some(unknown) = wanted.iter().find(|name| CASES.iter().all(|(case, _)| case != name)) {
        eprintln!("There is no case `{unknown}`; the cases are big, small, edit and memory.");
        return ExitCode::from(2);
    }
    println!("kith at {}", binary::kith().display());
    let mut figures = serde_json::Map::new();
    for (name, case) in CASES {
        if !wanted.is_empty() && !wanted.iter().any(|wanted| wanted == name) {
            continue;
        }
        let Some(circle) = Circle::or_skip(&["laptop", "desktop"]) else {
            return ExitCode::FAILURE;
        };
        for (what, figure, unit) in case(&circle) {
            println!("{what:<58} {figure:>10.2} {unit}");
            figures.insert(format!("{what}, {unit}"), json!((figure * 100.0).round() / 100.0));
        }
    }
    println!("{}", Value::Object(figures));
    ExitCode::SUCCESS
}

/// Copies with `cp -r`, as a person would.
fn copy(from: &Path, to: &Path) {
    let copied = Command::new("cp").arg("-r").arg(from).arg(to).status().expect("cp runs");
    assert!(copied.success(), "cp failed");
}

/// Waits until a device holds all the bytes of so many entries.
fn arrive(device: &Device, entries: u64, bytes: u64) {
    pulse::until(PATIENCE, &format!("{} has all bytes", device.name()), || {
        let (share, _) = device.share()?;
        let there = share["entries"].as_u64() >= Some(entries)
            && share["bytes"].as_u64() >= Some(bytes)
            && share["missing_bytes"] == 0;
        if there { Ok(()) } else { Err(share.to_string()) }
    });
}

fn big(circle: &Circle) -> Vec<(&'static str, f64, &'static str)> {
    let source = circle.scratch.path().join("big");
    grove::noise(&source, 1, BIG_BYTES).expect("the disk has room");
    rustix::fs::sync();
    let before = circle.lab.traffic(1).sent_bytes;
    let since = Instant::now();
    copy(&source, circle[0].mount());
    let copied = since.elapsed().as_secs_f64();
    arrive(&circle[1], 1, BIG_BYTES);
    let arrived = since.elapsed().as_secs_f64();
    let sent = circle.lab.traffic(1).sent_bytes - before;
    let (source, shown) = (hash(&source), hash(&circle[1].path("big")));
    assert!(source.is_ok() && source.ok() == shown.ok(), "the bytes are others");
    vec![
        ("one file of 2 GiB: cp into the folder", copied, "s"),
        ("one file of 2 GiB: from the start of cp to all bytes there", arrived, "s"),
        ("one file of 2 GiB: on the wire for each byte", ratio(sent, BIG_BYTES), "bytes"),
    ]
}

fn small(circle: &Circle) -> Vec<(&'static str, f64, &'static str)> {
    let source = circle.scratch.path().join("small");
    let bytes = plant(&source, SMALL_FILES, 1024, 16 * 1024);
    rustix::fs::sync();
    let since = Instant::now();
    copy(&source, circle[0].mount());
    let copied = since.elapsed().as_secs_f64();
    arrive(&circle[1], SMALL_FILES, bytes);
    let arrived = since.elapsed().as_secs_f64();
    let same = Command::new("diff").arg("-r").arg(&source).arg(circle[1].path("small")).status();
    assert!(same.is_ok_and(|status| status.success()), "the trees differ");
    vec![
        ("20,000 files of 1 to 16 KiB: cp into the folder", copied, "s"),
        ("20,000 files of 1 to 16 KiB: from the start of cp", arrived, "s"),
    ]
}

/// Writes files of sizes from `least` to `most` bytes, a hundred a directory; answers their sum.
fn plant(at: &Path, files: u64, least: u64, most: u64) -> u64 {
    let mut random = kith_tests::random::Random::new(2);
    let mut sum = 0;
    for number in 0..files {
        let directory = at.join((number / 100).to_string());
        if number % 100 == 0 {
            fs::create_dir_all(&directory).expect("the disk has room");
        }
        let len = random.between(least, most + 1);
        let bytes = random.bytes(usize::try_from(len).expect("it is small"));
        fs::write(directory.join(format!("{number}.dat")), bytes).expect("the disk has room");
        sum += len;
    }
    sum
}

/// From the close of a file that is then renamed over the one before, to its bytes being read on
/// the other side.
fn edit(circle: &Circle) -> Vec<(&'static str, f64, &'static str)> {
    let (saved, beside) = (circle[0].path("note.txt"), circle[0].path(".note.txt.swp"));
    let seen = circle[1].path("note.txt");
    let mut times = Vec::with_capacity(EDITS);
    for number in 0..EDITS {
        let text = format!("{number}: {}", "a line of text\n".repeat(200));
        let mut file = fs::File::create(&beside).expect("the mount can be written");
        file.write_all(text.as_bytes()).expect("the mount can be written");
        let since = Instant::now();
        drop(file);
        fs::rename(&beside, &saved).expect("the mount can be written");
        while fs::read_to_string(&seen).map_or(true, |seen| seen != text) {
            assert!(since.elapsed() < PATIENCE, "edit {number} does not arrive");
            // Nothing tells when a mount changes; asking more often would disturb the figure.
            std::thread::park_timeout(Duration::from_micros(250));
        }
        times.push(since.elapsed().as_secs_f64() * 1000.0);
        // So that each is a save by itself, and not one of a burst.
        std::thread::park_timeout(Duration::from_millis(30));
    }
    times.sort_by(f64::total_cmp);
    vec![
        ("a save: from close to readable on the other side, p50", times[EDITS / 2], "ms"),
        ("a save: from close to readable on the other side, p95", times[EDITS * 95 / 100], "ms"),
    ]
}

fn memory(circle: &Circle) -> Vec<(&'static str, f64, &'static str)> {
    let source = circle.scratch.path().join("idle");
    let bytes = plant(&source, IDLE_FILES, 16, 512);
    copy(&source, circle[0].mount());
    arrive(&circle[1], IDLE_FILES, bytes);
    circle.settle();
    let resident = |device: usize, line| mebibytes(&circle[device], line);
    let used = |device: usize| {
        let (before, since) = (processor_seconds(&circle[device]), Instant::now());
        std::thread::park_timeout(Duration::from_secs(20));
        (processor_seconds(&circle[device]) - before) / since.elapsed().as_secs_f64() * 100.0
    };
    vec![
        ("100,000 files, idle, the device that wrote them: resident", resident(0, "VmRSS"), "MiB"),
        ("100,000 files, idle, the other one: resident", resident(1, "VmRSS"), "MiB"),
        ("100,000 files, the device that wrote them: at most", resident(0, "VmHWM"), "MiB"),
        ("100,000 files, the other one: at most", resident(1, "VmHWM"), "MiB"),
        ("100,000 files, idle, the device that wrote them: processor", used(0), "% of a core"),
        ("100,000 files, idle, the other one: processor", used(1), "% of a core"),
    ]
}

fn mebibytes(device: &Device, line: &str) -> f64 {
    let path = format!("/proc/{}/status", device.process().as_raw_nonzero());
    let status = fs::read_to_string(path).expect("the daemon runs");
    let line = status.lines().find(|found| found.starts_with(line)).expect("the kernel says so");
    let kibibytes = line.split_whitespace().nth(1).and_then(|number| number.parse::<f64>().ok());
    kibibytes.expect("the kernel says how many") / 1024.0
}

fn processor_seconds(device: &Device) -> f64 {
    let path = format!("/proc/{}/stat", device.process().as_raw_nonzero());
    let stat = fs::read_to_string(path).expect("the daemon runs");
    // What follows the name, which may have blanks in it: the 12th and 13th are user and system.
    let after = stat.rsplit_once(')').map_or("", |(_, after)| after);
    let ticks = after.split_whitespace().skip(11).take(2).filter_map(|n| n.parse::<f64>().ok());
    ticks.sum::<f64>() / 100.0
}

fn ratio(part: u64, whole: u64) -> f64 {
    // Bytes of files: far below where a double loses whole numbers.
    part as f64 / whole as f64
}
