//! The work itself, as programs do it.

use super::{Bar, Course, Row, Side, Stage, Turn};
use crate::random::Random;
use std::fs::{self, File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

const MIB: u64 = 1 << 20;
const PAGE: u64 = 4096;

const fn row(name: &'static str, what: &'static str, bar: Bar) -> Row {
    Row { name, what, bar }
}

/// All that is measured.
pub const COURSES: &[Course] = &[
    Course {
        rows: &[row("write", "write 2 GiB and fsync", Bar::Ratio(1.6))],
        prepare: |_, _| {},
        floor: false,
        run: write,
    },
    Course {
        rows: &[
            row("read-cold", "read 2 GiB, cold", Bar::Ratio(1.2)),
            row("read-warm", "read 2 GiB, warm", Bar::Ratio(1.25)),
            row("random-read", "100,000 random reads of 4 KiB, warm", Bar::Ratio(1.4)),
        ],
        prepare: |stage, at| fill(&at.join("file"), stage.scaled(2 << 30, MIB), MIB, 1),
        floor: false,
        run: read,
    },
    Course {
        rows: &[
            row("write-4k", "write 256 MiB, 4 KiB at a time", Bar::Ratio(1.4)),
            row("write-4k-close", "the same, and its close", Bar::None),
        ],
        prepare: |_, _| {},
        floor: false,
        run: write_small,
    },
    Course {
        rows: &[
            row("random-write", "20,000 random writes of 4 KiB", Bar::Ratio(1.4)),
            row("random-write-fsync", "the same, fsync and close", Bar::None),
        ],
        prepare: |stage, at| fill(&at.join("file"), stage.scaled(1 << 30, MIB), MIB, 2),
        floor: false,
        run: write_randomly,
    },
    Course {
        rows: &[row("create", "create 10,000 files of 4 KiB", Bar::Ratio(3.0))],
        prepare: |_, _| {},
        floor: true,
        run: create,
    },
    Course {
        rows: &[
            row("stat-first", "stat walk of 20,000 files, first", Bar::Ratio(5.0)),
            row("stat-again", "stat walk of 20,000 files, again", Bar::Ratio(2.5)),
        ],
        prepare: |stage, at| plant(&at.join("tree"), stage.scaled(20_000, 1), 16),
        floor: true,
        run: walk_twice,
    },
    Course {
        rows: &[row("git-status", "git status again, of 5,000 files", Bar::Ratio(2.0))],
        prepare: |stage, at| repository(&at.join("repository"), stage.scaled(5_000, 1)),
        floor: true,
        run: git_status,
    },
    Course {
        rows: &[row("git-clone", "git clone of 5,000 files", Bar::None)],
        prepare: |stage, _| {
            let origin = stage.aside().join("origin");
            if !origin.exists() {
                repository(&origin, stage.scaled(5_000, 1));
            }
        },
        floor: true,
        run: git_clone,
    },
    Course {
        rows: &[
            row("tar", "tar x of 10,000 files", Bar::Ratio(1.0)),
            row("rm", "rm -rf of 10,000 files", Bar::Ratio(3.0)),
        ],
        prepare: archive,
        floor: true,
        run: extract_and_remove,
    },
    Course {
        rows: &[row("edit", "4 KiB changed in 4 GiB, until published", Bar::Seconds(0.05))],
        prepare: |stage, at| {
            let len_bytes = stage.scaled(4 << 30, MIB);
            fill(&at.join("file"), len_bytes, MIB, 3);
            if at == stage.at(Side::Mount) {
                stage.published(len_bytes);
            }
        },
        floor: false,
        run: edit,
    },
    Course {
        rows: &[row("cp", "cp of 1 GiB inside", Bar::Ratio(0.05))],
        prepare: |stage, at| fill(&at.join("file"), stage.scaled(1 << 30, MIB), MIB, 4),
        floor: false,
        run: copy,
    },
];

fn seconds(work: impl FnOnce()) -> Option<f64> {
    let since = Instant::now();
    work();
    Some(since.elapsed().as_secs_f64())
}

/// Bytes of which no two pages are equal in any file of any seed.
struct Noise {
    bytes: Vec<u8>,
    seed: u64,
    pages: u64,
}

impl Noise {
    fn new(len: u64, seed: u64) -> Noise {
        let len = usize::try_from(len).expect("a buffer's length");
        Noise { bytes: Random::new(seed).bytes(len), seed, pages: 0 }
    }

    fn next(&mut self) -> &[u8] {
        for page in self.bytes.chunks_mut(4096) {
            self.pages += 1;
            page[..8].copy_from_slice(&self.pages.to_le_bytes());
            page[8..16].copy_from_slice(&self.seed.to_le_bytes());
        }
        &self.bytes
    }
}

/// Writes into a new file, `piece` bytes at a time.
fn pour(path: &Path, len_bytes: u64, piece: u64, seed: u64) -> File {
    let mut noise = Noise::new(piece, seed);
    let mut file = File::create(path).expect("a file can be made");
    for _ in 0..len_bytes / piece {
        file.write_all(noise.next()).expect("a file can be written");
    }
    file
}

fn fill(path: &Path, len_bytes: u64, piece: u64, seed: u64) {
    drop(pour(path, len_bytes, piece, seed));
}

fn write(stage: &Stage, turn: Turn<'_>) -> Vec<Option<f64>> {
    let path = turn.at.join("file");
    stage.write_back();
    let taken = seconds(|| {
        let file = pour(&path, stage.scaled(2 << 30, MIB), MIB, turn.number);
        file.sync_all().expect("a file can be synced");
    });
    fs::remove_file(&path).expect("it is there");
    vec![taken]
}

fn read_all(path: &Path) {
    let mut buffer = vec![0; 128 << 10];
    let mut file = File::open(path).expect("it is there");
    while file.read(&mut buffer).expect("it can be read") > 0 {}
}

fn read(stage: &Stage, turn: Turn<'_>) -> Vec<Option<f64>> {
    let path = turn.at.join("file");
    let cold = stage.drop_caches(3);
    let first = seconds(|| read_all(&path));
    let again = seconds(|| read_all(&path));
    let pages = fs::metadata(&path).expect("it is there").len() / PAGE;
    let mut random = Random::new(turn.number / 2);
    let mut page = vec![0; 4096];
    let randomly = seconds(|| {
        let file = File::open(&path).expect("it is there");
        for _ in 0..stage.scaled(100_000, 1) {
            let at = random.below(pages) * PAGE;
            file.read_exact_at(&mut page, at).expect("it can be read");
        }
    });
    vec![first.filter(|_| cold), again, randomly]
}

fn write_small(stage: &Stage, turn: Turn<'_>) -> Vec<Option<f64>> {
    let path = turn.at.join("file");
    let len_bytes = stage.scaled(256 << 20, PAGE);
    let since = Instant::now();
    let file = pour(&path, len_bytes, PAGE, turn.number);
    let written = since.elapsed().as_secs_f64();
    drop(file);
    let closed = since.elapsed().as_secs_f64();
    fs::remove_file(&path).expect("it is there");
    vec![Some(written), Some(closed)]
}

fn write_randomly(stage: &Stage, turn: Turn<'_>) -> Vec<Option<f64>> {
    let path = turn.at.join("file");
    // On both sides pages that are there: else the mount would have to read what the disk has.
    read_all(&path);
    stage.write_back();
    let pages = fs::metadata(&path).expect("it is there").len() / PAGE;
    let (mut random, mut noise) = (Random::new(turn.number / 2), Noise::new(PAGE, turn.number));
    let since = Instant::now();
    let file = OpenOptions::new().write(true).open(&path).expect("it is there");
    for _ in 0..stage.scaled(20_000, 1) {
        let at = random.below(pages) * PAGE;
        file.write_all_at(noise.next(), at).expect("it can be written");
    }
    let written = since.elapsed().as_secs_f64();
    file.sync_all().expect("a file can be synced");
    drop(file);
    let closed = since.elapsed().as_secs_f64();
    vec![Some(written), Some(closed)]
}

fn create(stage: &Stage, turn: Turn<'_>) -> Vec<Option<f64>> {
    let directory = turn.at.join("many");
    let mut noise = Noise::new(PAGE, turn.number);
    let taken = seconds(|| {
        fs::create_dir(&directory).expect("a directory can be made");
        for number in 0..stage.scaled(10_000, 1) {
            fs::write(directory.join(format!("file-{number}")), noise.next())
                .expect("a file can be written");
        }
    });
    fs::remove_dir_all(&directory).expect("it is there");
    vec![taken]
}

/// Makes a tree of files of different sizes, a hundred a directory.
fn plant(at: &Path, files: u64, most_bytes: u64) {
    let mut random = Random::new(files);
    for number in 0..files {
        let directory = at.join(format!("directory-{}", number / 100));
        if number % 100 == 0 {
            fs::create_dir_all(&directory).expect("a directory can be made");
        }
        let len = usize::try_from(random.between(1, most_bytes + 1)).expect("it is small");
        fs::write(directory.join(format!("file-{number}.txt")), random.bytes(len))
            .expect("a file can be written");
    }
}

/// Asks for the attributes of everything below, and answers how much there is.
fn walk(at: &Path) -> u64 {
    let mut seen = 0;
    for entry in fs::read_dir(at).expect("it is there") {
        let entry = entry.expect("a directory can be read");
        seen += 1;
        if entry.metadata().expect("it is there").is_dir() {
            seen += walk(&entry.path());
        }
    }
    seen
}

fn walk_twice(stage: &Stage, turn: Turn<'_>) -> Vec<Option<f64>> {
    let tree = turn.at.join("tree");
    // Names and attributes only: with its pages in memory the disk is at its fastest.
    let dropped = stage.drop_caches(2);
    let files = stage.scaled(20_000, 1);
    let first = seconds(|| assert!(walk(&tree) > files));
    let again = seconds(|| assert!(walk(&tree) > files));
    vec![first.filter(|_| dropped), again]
}

fn git(at: &Path, arguments: &[&str]) {
    let mut command = Command::new("git");
    command.current_dir(at).args(arguments).stdout(Stdio::null()).stderr(Stdio::null());
    command.env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_CONFIG_NOSYSTEM", "1");
    for role in ["AUTHOR", "COMMITTER"] {
        command
            .env(format!("GIT_{role}_NAME"), "a")
            .env(format!("GIT_{role}_EMAIL"), "a@b.example");
    }
    let ended = command.status();
    let ended = ended.unwrap_or_else(|error| {
        // Of a directory that isn't there the error is the same as of a program.
        panic!("git can't be started in {} ({:?}): {error}", at.display(), at.try_exists())
    });
    assert!(ended.success(), "git {arguments:?} failed in {}", at.display());
}

fn repository(at: &Path, files: u64) {
    plant(&at.join("source"), files, 8192);
    git(at, &["init", "--quiet"]);
    git(at, &["add", "."]);
    git(at, &["commit", "--quiet", "--message", "all"]);
    git(at, &["gc", "--quiet"]);
    git(at, &["status"]);
}

fn git_status(stage: &Stage, turn: Turn<'_>) -> Vec<Option<f64>> {
    let repository = turn.at.join("repository");
    git(&repository, &["status"]);
    stage.settle();
    vec![seconds(|| git(&repository, &["status"]))]
}

fn git_clone(stage: &Stage, turn: Turn<'_>) -> Vec<Option<f64>> {
    let origin = format!("file://{}", stage.aside().join("origin").display());
    let taken = seconds(|| git(turn.at, &["clone", "--quiet", &origin, "clone"]));
    fs::remove_dir_all(turn.at.join("clone")).expect("it is there");
    vec![taken]
}

fn run(program: &str, arguments: &[&Path]) {
    let ended = Command::new(program).args(arguments).status().expect("the program is installed");
    assert!(ended.success(), "{program} {arguments:?} failed");
}

fn archive(stage: &Stage, _at: &Path) {
    let packed = stage.aside().join("packed.tar");
    if !packed.exists() {
        let tree = stage.aside().join("packed");
        plant(&tree, stage.scaled(10_000, 1), 8192);
        run("tar", &["-cf".as_ref(), &packed, "-C".as_ref(), stage.aside(), "packed".as_ref()]);
        fs::remove_dir_all(&tree).expect("it is there");
    }
}

fn extract_and_remove(stage: &Stage, turn: Turn<'_>) -> Vec<Option<f64>> {
    let packed = stage.aside().join("packed.tar");
    let extracted = seconds(|| run("tar", &["-xf".as_ref(), &packed, "-C".as_ref(), turn.at]));
    stage.settle();
    let removed = seconds(|| run("rm", &["-rf".as_ref(), &turn.at.join("packed")]));
    vec![extracted, removed]
}

fn edit(stage: &Stage, turn: Turn<'_>) -> Vec<Option<f64>> {
    let path = turn.at.join("file");
    let len_bytes = fs::metadata(&path).expect("it is there").len();
    let at = Random::new(turn.number / 2).below(len_bytes / PAGE) * PAGE;
    let mut noise = Noise::new(PAGE, turn.number + 100);
    let file = OpenOptions::new().write(true).open(&path).expect("it is there");
    file.write_all_at(noise.next(), at).expect("it can be written");
    let taken = seconds(|| {
        drop(file);
        if turn.side == Side::Mount {
            stage.published(len_bytes);
        }
    });
    vec![taken]
}

fn copy(_stage: &Stage, turn: Turn<'_>) -> Vec<Option<f64>> {
    let (from, to) = (turn.at.join("file"), turn.at.join("copy"));
    read_all(&from);
    let taken = seconds(|| run("cp", &[&from, &to]));
    fs::remove_file(&to).expect("it is there");
    vec![taken]
}
