//! `kith doctor`: looks at whatever could keep Kith from working, with a daemon or without.

use crate::failure::{Failure, sentence_of};
use crate::running::client;
use crate::screen::{BAD, BUSY, DIM, GOOD, plain, say, say_json, several, size};
use kith_control::diagnosis::{Check, DoctorReport, Outcome};
use kith_control::moment::Moment;
use kith_control::status::Status;
use kith_daemon::config::{Config, ConfigError, DEFAULT_PORT};
use kith_daemon::handover::place_of_replaced;
use kith_daemon::paths::Paths;
use std::fs::{self, OpenOptions};
use std::io;
use std::net::UdpSocket;
use std::path::Path;

/// Less room than this is worth a word.
const LITTLE_ROOM_BYTES: u64 = 1 << 30;
/// With less room than this nothing new can be taken in.
const NO_ROOM_BYTES: u64 = 64 << 20;
/// 2026-01-01T00:00:00Z: no clock that is right shows less.
const YOUNGEST_CLOCK_MS: i64 = 1_767_225_600_000;

/// `kith doctor`.
pub(crate) fn examine(paths: &Paths, json: bool) -> Result<(), Failure> {
    let report = report(paths);
    if json {
        say_json(&report);
    } else {
        say(render(&report).trim_end());
    }
    let bad = report.checks.iter().filter(|check| check.outcome == Outcome::Bad).count();
    if bad == 0 {
        return Ok(());
    }
    let what = several(u64::try_from(bad).unwrap_or(u64::MAX), "check");
    Err(Failure::new(format!("{what} failed"), "The lines above say what to do."))
}

fn report(paths: &Paths) -> DoctorReport {
    let asked = client(paths).status();
    let config = Config::load(&paths.config);
    let mut checks = vec![settings(paths, &config)];
    checks.push(match &asked {
        Ok(status) => {
            let runs = format!("Kith {} runs as {}.", status.device.version, status.device.name);
            match paths.holder().flatten() {
                Some(process) if is_replaced(process) => Check::warn(
                    "daemon",
                    format!("{runs} Another program has taken its place on the disk."),
                    "`kith restart` starts that one; the folder stays mounted.",
                ),
                _ => Check::ok("daemon", runs),
            }
        }
        Err(error) if error.is_not_running() => match paths.holder() {
            None => Check::warn("daemon", "Kith is not running.", "Start it with `kith up`."),
            Some(_) => Check::bad(
                "daemon",
                "Kith runs, but does not answer.",
                "`kith down` and `kith up`; its log may say why.",
            ),
        },
        Err(error) => Check::bad("daemon", error.to_string(), error.hint()),
    });
    checks.extend([fuse_device(), fusermount(), disk(&paths.data), clock()]);
    match &asked {
        Ok(status) => checks.push(mounted(status)),
        Err(_) => {
            let config = config.unwrap_or_default();
            checks.push(not_mounted(paths, &config));
            checks.push(port(config.port.unwrap_or(DEFAULT_PORT)));
        }
    }
    let told = asked.ok().and_then(|_| client(paths).doctor().ok()).unwrap_or_default();
    // The daemon sees more: what it says of the same thing counts.
    checks.retain(|check| told.checks.iter().all(|better| better.name != check.name));
    checks.extend(told.checks);
    DoctorReport { checks }
}

/// Whether another program lies where the one that a process runs was.
fn is_replaced(process: u32) -> bool {
    let running = fs::read_link(format!("/proc/{process}/exe")).unwrap_or_default();
    place_of_replaced(&running).is_some_and(|place| place.is_file())
}

fn render(report: &DoctorReport) -> String {
    use std::fmt::Write as _;
    let width = report.checks.iter().map(|check| plain(&check.name).chars().count()).max();
    let width = width.unwrap_or(0);
    let mut text = String::new();
    for check in &report.checks {
        let (word, style) = match check.outcome {
            Outcome::Ok => ("ok  ", GOOD),
            Outcome::Warn => ("warn", BUSY),
            Outcome::Bad => ("bad ", BAD),
        };
        let (name, detail) = (plain(&check.name), plain(&sentence_of(&check.detail)));
        let _ = writeln!(text, "{style}{word}{style:#}  {name:<width$}  {detail}");
        if !check.hint.is_empty() {
            let _ = writeln!(
                text,
                "{:>1$}{DIM}{2}{DIM:#}",
                "",
                width + 8,
                plain(&sentence_of(&check.hint))
            );
        }
    }
    text
}

fn settings(paths: &Paths, config: &Result<Config, ConfigError>) -> Check {
    match config {
        Ok(_) if paths.config.exists() => {
            Check::ok("settings", format!("{} is understood.", paths.config.display()))
        }
        Ok(_) => Check::ok("settings", "There are none; nothing needs any."),
        Err(error) => {
            let failure = Failure::new(error.to_string(), "Correct the file, or move it away.");
            Check::bad("settings", failure.sentence, failure.hint)
        }
    }
}

fn fuse_device() -> Check {
    let name = "fuse";
    match OpenOptions::new().read(true).write(true).open("/dev/fuse") {
        Ok(_) => Check::ok(name, "/dev/fuse can be opened."),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Check::bad(
            name,
            "/dev/fuse is not there.",
            "Load the kernel's module with `sudo modprobe fuse`; in a container, pass the device in.",
        ),
        Err(error) => Check::bad(
            name,
            format!("/dev/fuse cannot be opened: {error}."),
            "Ask for access to it, or run Kith as root.",
        ),
    }
}

fn fusermount() -> Check {
    let name = "fusermount3";
    if rustix::process::geteuid().is_root() {
        return Check::ok(name, "Not needed: root mounts by itself.");
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    match std::env::split_paths(&path).map(|at| at.join(name)).find(|at| at.is_file()) {
        Some(found) => Check::ok(name, format!("{} is there.", found.display())),
        None => Check::bad(
            name,
            "fusermount3 is not installed, and only root mounts without it.",
            "On Debian and Ubuntu: `sudo apt install fuse3`.",
        ),
    }
}

fn disk(data: &Path) -> Check {
    let name = "disk";
    let existing = data.ancestors().find(|path| path.is_dir()).unwrap_or(Path::new("/"));
    match rustix::fs::statvfs(existing) {
        Ok(room) => {
            let free = room.f_bavail.saturating_mul(room.f_frsize);
            let detail = format!("{} free at {}.", size(free), existing.display());
            let hint = "Make room on that disk.";
            match free {
                0..NO_ROOM_BYTES => Check::bad(name, detail, hint),
                NO_ROOM_BYTES..LITTLE_ROOM_BYTES => Check::warn(name, detail, hint),
                _ => Check::ok(name, detail),
            }
        }
        Err(error) => Check::warn(
            name,
            format!("The room at {} is unknown: {error}.", existing.display()),
            "",
        ),
    }
}

fn clock() -> Check {
    let now = Moment::now();
    if now.unix_ms() < YOUNGEST_CLOCK_MS {
        return Check::bad(
            "clock",
            format!("The clock shows {now}."),
            "Set it: the later of two changes wins.",
        );
    }
    Check::ok("clock", format!("{now}."))
}

fn mounted(status: &Status) -> Check {
    let name = "mount";
    let Some(share) = status.shares.first() else {
        return Check::warn(name, "There is no folder.", "");
    };
    let problem = share.problem.as_deref();
    match (&share.mount, problem) {
        (Some(mount), None) if is_mount(Path::new(mount)) => {
            Check::ok(name, format!("The folder is at {mount}."))
        }
        (Some(mount), None) => Check::bad(
            name,
            format!("Nothing is mounted at {mount} as this program sees it."),
            "`kith down` and `kith up`; a service must not have a mount namespace of its own.",
        ),
        (_, Some(problem)) => Check::warn(name, problem, ""),
        (None, None) => {
            Check::warn(name, "The folder is not mounted.", "`kith down`, then `kith up`.")
        }
    }
}

fn not_mounted(paths: &Paths, config: &Config) -> Check {
    let name = "mount";
    let place = match paths.mount_point(None, config.mount.as_deref()) {
        Ok(place) => place,
        Err(error) => {
            let failure = Failure::from(error);
            return Check::bad(name, failure.sentence, failure.hint);
        }
    };
    let shown = place.display();
    if is_mount(&place) {
        return Check::warn(
            name,
            format!("Something is mounted at {shown}, though Kith is not running."),
            "If a dead Kith left it there, `kith up` puts it right.",
        );
    }
    match fs::read_dir(&place).map(|mut entries| entries.next().is_none()) {
        Ok(true) => Check::ok(name, format!("{shown} is free.")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Check::ok(name, format!("{shown} will be made."))
        }
        Ok(false) => Check::bad(
            name,
            format!("{shown} is not empty."),
            "Move what is in it away, or mount elsewhere with `kith up --mount DIR`.",
        ),
        Err(error) => Check::bad(
            name,
            format!("{shown} cannot be read: {error}."),
            "Mount elsewhere with `kith up --mount DIR`.",
        ),
    }
}

/// Whether a filesystem is mounted at `path`, from the kernel's table: asking the filesystem
/// itself could wait for a daemon that is dead.
pub(crate) fn is_mount(path: &Path) -> bool {
    mount_points().iter().any(|mounted| Path::new(mounted) == path)
}

/// Every mount point that this process sees.
pub(crate) fn mount_points() -> Vec<String> {
    let table = fs::read("/proc/self/mountinfo").unwrap_or_default();
    let table = String::from_utf8_lossy(&table).into_owned();
    table.lines().filter_map(|line| line.split(' ').nth(4)).map(unescape).collect()
}

/// Spaces, tabs, line ends and backslashes are written as octal numbers there.
fn unescape(text: &str) -> String {
    [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")]
        .iter()
        .fold(text.to_owned(), |text, (escaped, plain)| text.replace(escaped, plain))
}

fn port(number: u16) -> Check {
    match UdpSocket::bind(("0.0.0.0", number)) {
        Ok(_) => Check::ok("port", format!("UDP port {number} is free.")),
        Err(error) => Check::warn(
            "port",
            format!("UDP port {number} cannot be had: {error}."),
            "Kith will take another one, which a firewall may not let through.",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_lines_up_with_each_hint_under_its_check() {
        let report = DoctorReport {
            checks: vec![
                Check::ok("fuse", "/dev/fuse can be opened."),
                Check::warn("mdns", "nobody answers", "use --addr"),
                Check::bad("fusermount3", "It is not installed.", "Install fuse3."),
            ],
        };
        assert_eq!(
            anstream::adapter::strip_str(&render(&report)).to_string(),
            "\
ok    fuse         /dev/fuse can be opened.
warn  mdns         Nobody answers.
                   Use --addr.
bad   fusermount3  It is not installed.
                   Install fuse3.
"
        );
    }

    #[test]
    fn the_kernels_table_of_mounts_is_read() {
        assert!(is_mount(Path::new("/proc")));
        assert!(!is_mount(Path::new("/proc/self")));
        assert_eq!(unescape("/mnt/a\\040b\\134"), "/mnt/a b\\");
    }

    #[test]
    fn a_place_that_is_not_empty_is_found_before_the_start() {
        let home = tempfile::tempdir().unwrap();
        let paths = Paths::find(Some(home.path())).unwrap();
        let outcome = || not_mounted(&paths, &Config::default()).outcome;
        assert_eq!(outcome(), Outcome::Ok);
        fs::create_dir(&paths.default_mount).unwrap();
        assert_eq!(outcome(), Outcome::Ok);
        fs::write(paths.default_mount.join("mine"), "").unwrap();
        assert_eq!(outcome(), Outcome::Bad);
    }
}
