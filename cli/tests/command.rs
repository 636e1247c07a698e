//! The program as others call it: exit codes, what goes where, and the facts it prints.

use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Output, Stdio};

fn kith(home: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kith"));
    command.arg("--home").arg(home).env_remove("KITH_HOME").stdin(Stdio::null());
    command
}

fn ran(home: &Path, arguments: &[&str]) -> Output {
    kith(home).args(arguments).output().expect("the program runs")
}

fn json(output: &Output) -> Value {
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice(&output.stdout).expect("one JSON value")
}

/// A home whose daemon bothers nobody on the network, and which is stopped at the end.
struct Home(tempfile::TempDir);

impl Home {
    fn new() -> Home {
        let home = tempfile::tempdir().expect("a directory");
        std::fs::write(home.path().join("config.toml"), "name = \"tester\"\nmdns = false\n")
            .expect("a writable directory");
        Home(home)
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        ran(self.0.path(), &["down"]);
    }
}

#[test]
fn wrong_usage_exits_with_2_and_help_with_0() {
    let home = tempfile::tempdir().unwrap();
    for (arguments, code) in [
        (&["fly"][..], 2),
        (&[][..], 2),
        (&["join"][..], 2),
        (&["up", "--mount", "/x", "--no-mount"][..], 2),
        (&["--help"][..], 0),
        (&["--version"][..], 0),
        (&["completions", "fish"][..], 0),
        (&["man"][..], 0),
    ] {
        assert_eq!(ran(home.path(), arguments).status.code(), Some(code), "{arguments:?}");
    }
}

#[test]
fn a_failure_exits_with_1_and_says_what_to_do() {
    let home = tempfile::tempdir().unwrap();
    for command in
        [&["status"][..], &["invite"], &["events"], &["devices", "list"], &["shares", "list"]]
    {
        let output = ran(home.path(), command);
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        assert!(output.stdout.is_empty(), "{output:?}");
        let told = String::from_utf8(output.stderr).unwrap();
        assert_eq!(told, "error: Kith is not running here.\n hint: Start it with `kith up`.\n");
    }
    let output = ran(home.path(), &["status", "--json"]);
    assert_eq!(output.status.code(), Some(1));
    let told: Value = serde_json::from_slice(&output.stderr).unwrap();
    assert_eq!(told["error"], "Kith is not running here.");
    assert_eq!(told["hint"], "Start it with `kith up`.");
    assert!(ran(home.path(), &["down"]).status.success());
}

#[test]
fn wrong_settings_are_named_by_file_and_line() {
    let home = tempfile::tempdir().unwrap();
    std::fs::write(home.path().join("config.toml"), "\nport = true\n").unwrap();
    for command in ["up", "daemon"] {
        let output = ran(home.path(), &[command, "--no-mount"]);
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        let told = String::from_utf8(output.stderr).unwrap();
        assert!(told.contains("config.toml are not right, line 2: "), "{told}");
        assert_eq!(told.lines().count(), 2, "{told}");
    }
    assert!(!home.path().join("data").exists());
}

#[test]
fn a_daemon_is_started_asked_and_stopped() {
    let home = Home::new();
    let home = home.0.path();
    let started = json(&ran(home, &["up", "--no-mount", "--json"]));
    assert_eq!(started["started"], true);
    assert_eq!(started["device"]["name"], "tester");
    assert_eq!(json(&ran(home, &["up", "--json"]))["started"], false);
    assert_eq!(ran(home, &["up", "--mount", "/nowhere"]).status.code(), Some(1));

    let status = json(&ran(home, &["status", "--json"]));
    assert_eq!(status["device"]["id"].as_str().unwrap().len(), 64);
    let share = &status["shares"][0];
    assert_eq!(share["state"], "synced");
    assert!(share["mount"].is_null());
    assert!(share["name"].is_string());
    for number in ["entries", "bytes", "missing_bytes", "conflicts"] {
        assert_eq!(share[number], 0, "{number}");
    }
    assert_eq!(status["devices"], serde_json::json!([]));

    // The code is the first line, at once, while the command goes on.
    let mut invite = kith(home).args(["invite", "--json"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(invite.stdout.take().unwrap()).lines();
    let first: Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
    assert!(first["code"].as_str().unwrap().contains('-'), "{first}");
    assert_eq!(ran(home, &["join", "1-abacus", "--addr", "here"]).status.code(), Some(1));

    // Stopping ends it, with a reason.
    assert_eq!(json(&ran(home, &["down", "--json"]))["stopped"], true);
    assert!(lines.next().is_none());
    assert_eq!(invite.wait().unwrap().code(), Some(1));
    assert_eq!(json(&ran(home, &["down", "--json"]))["stopped"], false);
}

#[test]
fn a_daemon_that_cannot_start_says_why_through_up() {
    let home = Home::new();
    let home = home.0.path();
    let mine = home.join("Kith/mine");
    std::fs::create_dir(home.join("Kith")).unwrap();
    std::fs::write(&mine, "mine").unwrap();
    let output = ran(home, &["up"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(told.contains("is not empty"), "{told}");
    assert!(told.contains(" hint: "), "{told}");
    assert_eq!(std::fs::read(&mine).unwrap(), b"mine");
}
