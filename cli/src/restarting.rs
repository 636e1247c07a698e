//! Lets a running daemon start again, and waits until it has.

use crate::failure::Failure;
use crate::running::{client, hung};
use crate::screen::{STRONG, plain, say, say_json, waiting};
use kith_control::client::ClientError;
use kith_control::status::Status;
use kith_daemon::config::Config;
use kith_daemon::paths::Paths;
use std::thread;
use std::time::{Duration, Instant};

/// How long it may take: it publishes what was written last, and may have a large index to look after.
const PATIENCE: Duration = Duration::from_secs(90);
/// How often it is asked whether it is there again.
const GLANCE: Duration = Duration::from_millis(50);

/// `kith restart`.
pub(crate) fn restart(paths: &Paths, json: bool) -> Result<(), Failure> {
    let before = client(paths).status().map_err(|error| match error {
        error if error.is_not_running() => {
            Failure::new("Kith is not running", "`kith up` starts it.")
        }
        error => error.into(),
    })?;
    // A mistake in the settings would keep it from starting.
    Config::load(&paths.config)?;
    client(paths).restart()?;
    let wait = waiting("Starting Kith again", json);
    let after = another_run(paths, &before);
    wait.finish_and_clear();
    let after = after?;
    let mount = after.shares.iter().find_map(|share| share.mount.as_deref());
    let stayed = mount.filter(|_| after.device.went_on);
    if json {
        say_json(&serde_json::json!({
            "version": after.device.version,
            "mount": mount,
            "stayed_mounted": stayed.is_some(),
        }));
        return Ok(());
    }
    say(&format!("Kith {} is running again.", plain(&after.device.version)));
    match (mount, stayed) {
        (Some(mount), Some(_)) => {
            say(&format!("{STRONG}{}{STRONG:#} stayed mounted.", plain(mount)));
        }
        (Some(mount), None) => {
            say(&format!("{STRONG}{}{STRONG:#} was mounted anew.", plain(mount)));
            say("What was open in it has to be opened again.");
        }
        (None, _) => say("Your folder is not mounted."),
    }
    Ok(())
}

/// The status of the next run, once it answers.
fn another_run(paths: &Paths, before: &Status) -> Result<Status, Failure> {
    let begun = Instant::now();
    loop {
        match client(paths).status() {
            Ok(status) if status.device.run != before.device.run => return Ok(status),
            Ok(_) | Err(ClientError::Broken(_) | ClientError::TooSlow(_)) => {}
            Err(error) if error.is_not_running() => {}
            Err(error) => return Err(error.into()),
        }
        // Between the two it doesn't hold its data, for a moment.
        if begun.elapsed() > PATIENCE {
            return Err(match paths.holder() {
                Some(process) => hung(process),
                None => Failure::new(
                    "Kith has not started again",
                    format!("See why in {}; `kith up` starts it.", paths.log().display()),
                ),
            });
        }
        thread::sleep(GLANCE);
    }
}
