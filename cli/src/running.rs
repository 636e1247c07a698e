//! Makes sure that the daemon runs, or that it doesn't.

use crate::argument::{Foreground, Mounting};
use crate::failure::Failure;
use crate::launch::launch;
use crate::meant::{happened, held};
use crate::screen::{DIM, STRONG, plain, say, say_json, waiting};
use kith_control::client::Client;
use kith_control::moment::Moment;
use kith_control::status::Status;
use kith_daemon::config::Config;
use kith_daemon::handover::Handover;
use kith_daemon::paths::Paths;
use kith_daemon::service::Notifier;
use kith_daemon::{RunOptions, run};
use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

/// How long a daemon may take to go away: it publishes what was written last, and unmounts.
const STOP_PATIENCE: Duration = Duration::from_secs(20);
/// How often a daemon that is coming or going is asked which.
const GLANCE: Duration = Duration::from_millis(200);
/// The name of the user unit.
const UNIT: &str = "kith.service";

/// A client of the daemon of this installation, whether it runs or not.
pub(crate) fn client(paths: &Paths) -> Client {
    Client::new(paths.running_socket())
}

/// `kith up`.
pub(crate) fn up(paths: &Paths, mounting: &Mounting, json: bool) -> Result<(), Failure> {
    let (status, started) = make_sure(paths, mounting, json)?;
    let mount = status.shares.iter().find_map(|share| share.mount.as_deref());
    if json {
        say_json(&serde_json::json!({
            "device": { "id": status.device.id, "name": status.device.name },
            "mount": mount,
            "started": started,
        }));
        return Ok(());
    }
    let verb = if started { "is running" } else { "was already running" };
    say(&format!("Kith {verb} on {STRONG}{}{STRONG:#}.", plain(&status.device.name)));
    match mount {
        Some(mount) => say(&format!("Your folder is {STRONG}{}{STRONG:#}", plain(mount))),
        None => say("Your folder is not mounted."),
    }
    for problem in status.shares.iter().filter_map(|share| share.problem.as_deref()) {
        say(&format!("But: {}", plain(problem)));
    }
    for change in status.shares.iter().flat_map(|share| &share.mass_changes) {
        say(&format!("But: {}.", plain(&happened(change, Moment::now()))));
        say(&plain(&held(change)));
    }
    if status.devices.is_empty() {
        say(&format!("{DIM}Next: `kith invite` shows a code for another device.{DIM:#}"));
    } else {
        say(&format!("{DIM}`kith status` shows how it stands.{DIM:#}"));
    }
    Ok(())
}

/// The running daemon's status, and whether it had to be started.
pub(crate) fn make_sure(
    paths: &Paths,
    mounting: &Mounting,
    json: bool,
) -> Result<(Status, bool), Failure> {
    let mounting = Mounting {
        mount: mounting.mount.as_deref().map(|at| paths.mount_point(Some(at), None)).transpose()?,
        no_mount: mounting.no_mount,
    };
    if let Some(status) = answering(paths)? {
        fits(&status, &mounting)?;
        return Ok((status, false));
    }
    // A mistake in the settings is better told from here than by a daemon in the background.
    Config::load(&paths.config)?;
    let wait = waiting("Starting Kith", json);
    let started = if !mounting.no_mount && paths.home.is_none() && unit_is_enabled() {
        start_unit(paths, &mounting)
    } else {
        launch(paths, &mounting).map(drop)
    };
    wait.finish_and_clear();
    started?;
    Ok((client(paths).status()?, true))
}

/// The status of a daemon that runs; nothing if none does. Waits for one that is about to be
/// ready, or about to be gone.
fn answering(paths: &Paths) -> Result<Option<Status>, Failure> {
    let begun = Instant::now();
    let mut gone = None;
    loop {
        match client(paths).status() {
            Ok(status) => return Ok(Some(status)),
            Err(error) if error.is_not_running() => {}
            Err(error) => return Err(error.into()),
        }
        let Some(process) = paths.holder() else { return Ok(None) };
        let gone = gone.get_or_insert_with(|| when_free(paths));
        if gone.recv_timeout(GLANCE).is_err() && begun.elapsed() > STOP_PATIENCE {
            return Err(hung(process));
        }
    }
}

pub(crate) fn hung(process: Option<u32>) -> Failure {
    match process {
        Some(process) => Failure::new(
            format!("Kith runs as process {process}, but does not answer"),
            format!("End it with `kill {process}`; what is saved stays saved"),
        ),
        None => Failure::new("Kith runs, but does not answer", "End its process and try again"),
    }
}

/// Whether a running daemon does what was asked of a new one.
fn fits(status: &Status, mounting: &Mounting) -> Result<(), Failure> {
    let mounted = status.shares.iter().find_map(|share| share.mount.as_deref());
    let where_now = match mounted {
        Some(mount) => format!("with the folder at {mount}"),
        None => "without mounting the folder".to_owned(),
    };
    let wrong = match (&mounting.mount, mounted) {
        (Some(wanted), Some(mount)) => wanted.to_string_lossy() != mount,
        (Some(_), None) => true,
        (None, Some(_)) => mounting.no_mount,
        (None, None) => false,
    };
    if wrong {
        return Err(Failure::new(
            format!("Kith is already running, {where_now}"),
            "`kith down` first, then start it as you want it.",
        ));
    }
    Ok(())
}

fn systemctl(arguments: &[&str]) -> Option<std::process::Output> {
    Command::new("systemctl").arg("--user").args(arguments).stdin(Stdio::null()).output().ok()
}

/// Whether this user's systemd starts Kith at login.
fn unit_is_enabled() -> bool {
    systemctl(&["is-enabled", "--quiet", UNIT]).is_some_and(|output| output.status.success())
}

fn start_unit(paths: &Paths, mounting: &Mounting) -> Result<(), Failure> {
    if let Some(mount) = &mounting.mount {
        paths.remember_mount(mount)?;
    }
    let output = systemctl(&["start", UNIT]);
    if output.as_ref().is_some_and(|output| output.status.success()) {
        return Ok(());
    }
    let told = systemctl(&["show", "--property=StatusText", "--value", UNIT])
        .map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned())
        .filter(|text| !text.is_empty())
        .unwrap_or_else(|| "systemd could not start Kith".into());
    Err(Failure::new(told, format!("`journalctl --user -u {UNIT} -n 20` tells more")))
}

/// `kith down`.
pub(crate) fn down(paths: &Paths, json: bool) -> Result<(), Failure> {
    let stopped = match client(paths).stop() {
        Ok(()) => true,
        Err(error) if error.is_not_running() => match paths.holder() {
            None => false,
            Some(process) => {
                // It may be on its way already.
                if when_free(paths).recv_timeout(STOP_PATIENCE).is_err() {
                    return Err(hung(process));
                }
                true
            }
        },
        Err(error) => return Err(error.into()),
    };
    if stopped {
        let wait = waiting("Stopping Kith", json);
        let gone = when_free(paths).recv_timeout(STOP_PATIENCE);
        wait.finish_and_clear();
        if gone.is_err() {
            return Err(hung(paths.holder().flatten()));
        }
    }
    if json {
        say_json(&serde_json::json!({ "stopped": stopped }));
    } else if stopped {
        say("Kith has stopped.");
    } else {
        say("Kith was not running.");
    }
    Ok(())
}

/// Tells when no daemon holds the data any more.
fn when_free(paths: &Paths) -> Receiver<()> {
    let (tell, told) = mpsc::channel();
    let paths = paths.clone();
    thread::spawn(move || {
        if paths.wait_until_free().is_ok() {
            // Whoever asked may have given up.
            let _ = tell.send(());
        }
    });
    told
}

/// `kith daemon`.
pub(crate) fn foreground(paths: Paths, arguments: Foreground) -> Result<(), Failure> {
    let Foreground { mounting, detached, handover } = arguments;
    if detached {
        // A process group's leader can't, and needn't: then nobody will hang it up either.
        let _ = rustix::process::setsid();
    }
    log_to_stderr();
    // Whatever else goes wrong, nobody but this process may hold it.
    let handover = handover.and_then(Handover::take);
    let options = options(paths, mounting);
    let outcome = options.and_then(|options| Ok(run(RunOptions { handover, ..options })?));
    if let Err(failure) = &outcome {
        Notifier::from_environment().failed(&failure.sentence, &failure.hint);
    }
    outcome
}

fn options(paths: Paths, mounting: Mounting) -> Result<RunOptions, Failure> {
    let config = Config::load(&paths.config)?;
    let mount: Option<PathBuf> = mounting.mount;
    Ok(RunOptions { paths, config, mount, no_mount: mounting.no_mount, handover: None })
}

/// `KITH_LOG` says how much, in the syntax of `tracing`: `debug`, or `kith_daemon=trace,info`.
fn log_to_stderr() {
    let wanted = std::env::var("KITH_LOG").unwrap_or_default();
    let wanted = if wanted.is_empty() { "info,mdns_sd=error" } else { &wanted };
    let filter = tracing_subscriber::EnvFilter::builder().parse_lossy(wanted);
    let terminal = std::io::stderr().is_terminal();
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(terminal)
        .with_target(false)
        .init();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::tests::status;

    #[test]
    fn a_running_daemon_is_taken_as_it_is_unless_something_else_was_asked_for() {
        let mut status = status();
        status.shares[0].mount = Some("/home/anna/Kith".into());
        let at = |mount: &str| Mounting { mount: Some(mount.into()), no_mount: false };
        let nowhere = Mounting { mount: None, no_mount: true };
        assert!(fits(&status, &Mounting::default()).is_ok());
        assert!(fits(&status, &at("/home/anna/Kith")).is_ok());
        assert_eq!(
            fits(&status, &at("/mnt")).unwrap_err().sentence,
            "Kith is already running, with the folder at /home/anna/Kith."
        );
        assert!(fits(&status, &nowhere).is_err());
        status.shares[0].mount = None;
        assert!(fits(&status, &nowhere).is_ok());
        assert!(fits(&status, &at("/mnt")).is_err());
    }
}
