//! Measures a mount against the disk under it: `bench [--only ROW,...] [--user NAME] [--scale F]
//! [--rounds N] [--directory DIR] [--floor] [--json]`. As root, all is done as root and as `nobody`, unless
//! `--user` names one. Prints a table, and with `--json` one line of JSON instead.
//!
//! The work is done by a child process under the user's id, with a daemon of that user. Dropping
//! the kernel's caches needs root, which the child asks its parent for; without root what is to be
//! cold is not measured.
//!
//! With `--floor` there is no daemon: the same filesystem shows a volume in memory. What a mount
//! takes then, no work on the store can spare.

use kith_tests::bench::{COURSES, Caches, Course, Measured, Stage, Subject, measure, table};
use kith_tests::binary;
use serde_json::{Value, json};
use std::fs::{self, Permissions};
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::Arc;

const USAGE: &str = "usage: bench [--only ROW,...] [--user NAME] [--scale F] [--rounds N] \
[--directory DIR] [--floor] [--json]";

/// The first argument of the process that does the work.
const CHILD: &str = "--child";

#[derive(Clone, Debug)]
struct Options {
    only: Vec<String>,
    user: Option<String>,
    scale: f64,
    rounds: usize,
    directory: PathBuf,
    floor: bool,
    json: bool,
}

impl Options {
    fn parse(mut words: impl Iterator<Item = String>) -> Result<Options, String> {
        let mut options = Options {
            only: Vec::new(),
            user: None,
            scale: 1.0,
            rounds: 3,
            directory: PathBuf::from("/var/tmp"),
            floor: false,
            json: false,
        };
        while let Some(word) = words.next() {
            let flag = match word.as_str() {
                "--json" => Some(&mut options.json),
                "--floor" => Some(&mut options.floor),
                _ => None,
            };
            if let Some(flag) = flag {
                *flag = true;
                continue;
            }
            let value = words.next().ok_or_else(|| format!("{word} needs a value"))?;
            let wrong = || format!("{word} can't be {value}");
            match word.as_str() {
                "--only" => options.only = value.split(',').map(str::to_owned).collect(),
                "--user" => options.user = Some(value),
                "--scale" => options.scale = value.parse().map_err(|_| wrong())?,
                "--rounds" => options.rounds = value.parse().map_err(|_| wrong())?,
                "--directory" => options.directory = value.into(),
                _ => return Err(format!("{word} means nothing")),
            }
        }
        let known = |name: &String| COURSES.iter().any(|course| has(course, name));
        if let Some(unknown) = options.only.iter().find(|name| !known(name)) {
            let rows = COURSES.iter().flat_map(|course| course.rows).map(|row| row.name);
            let rows = rows.collect::<Vec<_>>().join(", ");
            return Err(format!("there is no row {unknown}; the rows are {rows}"));
        }
        let misses = |name: &&String| !COURSES.iter().any(|it| it.floor && has(it, name));
        if options.floor
            && let Some(other) = options.only.iter().find(misses)
        {
            return Err(format!("{other} has no floor"));
        }
        if options.scale <= 0.0 || options.scale > 4.0 || options.rounds == 0 {
            return Err("the scale is above 0 and at most 4, and there is at least a round".into());
        }
        Ok(options)
    }

    fn wants(&self, course: &Course) -> bool {
        if self.floor && !course.floor {
            return false;
        }
        self.only.is_empty() || self.only.iter().any(|name| has(course, name))
    }
}

fn has(course: &Course, name: &str) -> bool {
    course.rows.iter().any(|row| row.name == name)
}

fn main() -> ExitCode {
    let mut words = std::env::args().skip(1).peekable();
    let child = words.next_if(|word| word == CHILD).is_some();
    let options = match Options::parse(words) {
        Ok(options) => options,
        Err(mistake) => {
            eprintln!("bench: {mistake}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    if child {
        work(&options);
        return ExitCode::SUCCESS;
    }
    match run(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("bench: {failure}");
            ExitCode::FAILURE
        }
    }
}

/// What the child does: each course, a line of JSON for every row.
fn work(options: &Options) {
    let caches: Caches = Arc::new(|which| {
        println!("{}", json!({ "drop": which }));
        let mut answer = String::new();
        let read = std::io::stdin().read_line(&mut answer);
        read.is_ok() && answer == "done\n"
    });
    for course in COURSES.iter().filter(|course| options.wants(course)) {
        let subject = if options.floor { Subject::Memory } else { Subject::Daemon };
        let stage = Stage::new(subject, Arc::clone(&caches), options.scale);
        for measured in measure(course, &stage, options.rounds) {
            println!("{}", measured.json());
        }
    }
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn run(options: &Options) -> Result<(), String> {
    let own = word_of(Command::new("id").arg("-un"))?;
    let users = match &options.user {
        Some(user) => vec![user.clone()],
        None if is_root() => vec![own, "nobody".to_owned()],
        None => vec![own],
    };
    let kernel = word_of(Command::new("uname").arg("-r"))?;
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let disk = word_of(Command::new("stat").args(["-f", "-c", "%T"]).arg(&options.directory))?;
    if !options.json {
        println!("{cores} cores, Linux {kernel}, {disk} at {}", options.directory.display());
        println!("scale {}, medians of {} rounds", options.scale, options.rounds);
        if options.floor {
            println!("the mount is of a volume in memory, without a daemon");
        }
    }
    let mut figures = serde_json::Map::new();
    let mut failure = Ok(());
    for user in &users {
        let rows = match run_as(user, options) {
            Ok(rows) => rows,
            // What another user may not do says nothing against what was measured.
            Err(cause) => {
                failure = Err(cause);
                continue;
            }
        };
        if !options.json {
            print!("\n{}", table(user, &rows));
        }
        figures.insert(user.clone(), rows.iter().map(Measured::json).collect());
    }
    if options.json {
        let machine = json!({ "cores": cores, "kernel": kernel, "disk": disk });
        let (scale, users) = (options.scale, Value::Object(figures));
        println!(
            "{}",
            json!({
                "machine": machine, "scale": scale, "floor": options.floor, "users": users
            })
        );
    }
    failure
}

fn word_of(command: &mut Command) -> Result<String, String> {
    let output = command.output().map_err(|error| format!("{command:?}: {error}"))?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).trim().to_owned());
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Does all of it in a process of that user.
fn run_as(user: &str, options: &Options) -> Result<Vec<Measured>, String> {
    let id = |which: &str| {
        let word = word_of(Command::new("id").args([which, user]))?;
        word.parse::<u32>().map_err(|error| error.to_string())
    };
    // Where everybody may run them, wherever they were built.
    let programs = tempfile::tempdir_in(&options.directory).map_err(|error| error.to_string())?;
    let lent = |program: &Path, name: &str| -> std::io::Result<PathBuf> {
        let to = programs.path().join(name);
        fs::copy(program, &to)?;
        fs::set_permissions(&to, Permissions::from_mode(0o755))?;
        Ok(to)
    };
    let copied = || -> std::io::Result<_> {
        fs::set_permissions(programs.path(), Permissions::from_mode(0o755))?;
        Ok((lent(&std::env::current_exe()?, "bench")?, lent(binary::kith(), "kith")?))
    };
    let (bench, kith) = copied().map_err(|error| error.to_string())?;
    let mut command = Command::new(bench);
    command.arg(CHILD).arg("--scale").arg(options.scale.to_string());
    command.arg("--rounds").arg(options.rounds.to_string());
    if options.floor {
        command.arg("--floor");
    }
    if !options.only.is_empty() {
        command.arg("--only").arg(options.only.join(","));
    }
    if id("-u")? != rustix::process::geteuid().as_raw() {
        command.uid(id("-u")?).gid(id("-g")?);
    }
    command.env("KITH_BINARY", kith).env("TMPDIR", &options.directory);
    command.env("HOME", &options.directory).current_dir(&options.directory);
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().map_err(|error| format!("as {user}: {error}"))?;
    let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
    let mut answers = stdin.expect("it is piped");
    let mut rows = Vec::new();
    for line in BufReader::new(stdout.expect("it is piped")).lines().map_while(Result::ok) {
        let Ok(said) = serde_json::from_str::<Value>(&line) else { continue };
        if let Some(which) = said["drop"].as_u64() {
            rustix::fs::sync();
            let dropped = fs::write("/proc/sys/vm/drop_caches", which.to_string()).is_ok();
            let answer = if dropped { "done" } else { "no" };
            // If it ended meanwhile, that is seen below.
            let _ended = writeln!(answers, "{answer}");
        } else if let Some(measured) = Measured::from_json(&said) {
            eprintln!("{user}: {} done", measured.row.name);
            rows.push(measured);
        }
    }
    let ended = child.wait().map_err(|error| error.to_string())?;
    if ended.success() { Ok(rows) } else { Err(format!("the work as {user} ended with {ended}")) }
}
