//! What a test has to say even when it succeeds.

use std::io::Write as _;

/// Writes a line to the terminal, past the test harness's capture.
pub fn say(line: &str) {
    let _closed = std::io::stderr().write_all(format!("{line}\n").as_bytes());
}

/// Says visibly that a test can't run on this machine, and why.
///
/// # Panics
/// If `KITH_TESTS_MUST_RUN` is set: then nothing may be skipped.
pub fn skip(reason: &str) {
    let test = std::thread::current().name().unwrap_or("a test").to_owned();
    assert!(
        std::env::var_os("KITH_TESTS_MUST_RUN").is_none(),
        "{test} can't run, and KITH_TESTS_MUST_RUN is set: {reason}"
    );
    say(&format!("SKIPPED: {test}: {reason}"));
}

/// Says visibly that a test can't run because somebody else's program is not installed. That is no
/// failure anywhere: a machine may be unable to get it.
pub fn lacks(program: &str) {
    let test = std::thread::current().name().unwrap_or("a test").to_owned();
    say(&format!("SKIPPED: {test}: {program} is not installed"));
}
