//! `kith status`, `kith shares` and `kith devices`: how everything stands.

use crate::argument::{Devices, Shares};
use crate::failure::Failure;
use crate::meant::{happened, held};
use crate::running::client;
use crate::screen::{
    BAD, BUSY, Columns, DIM, GOOD, NONE, PLAIN, STRONG, Side, ago, count, is_terminal, plain, say,
    say_json, short_id, size, size_or_none, span,
};
use anstyle::Style;
use kith_control::client::Client;
use kith_control::moment::Moment;
use kith_control::status::{DeviceList, DeviceStatus, ShareState, ShareStatus, Status};
use kith_daemon::paths::Paths;
use std::fmt::Write as _;
use std::io::{BufRead, IsTerminal, Write as _};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

/// The shortest time between two pictures.
const FRAME: Duration = Duration::from_millis(250);
/// The longest time that a picture stands: times in it grow old.
const REFRESH: Duration = Duration::from_secs(10);

/// The width of a progress bar.
const BAR: u128 = 30;

/// `kith status`.
pub(crate) fn show(paths: &Paths, watch: bool, json: bool) -> Result<(), Failure> {
    let client = client(paths);
    let status = client.status()?;
    if watch {
        return follow(&client, status, json);
    }
    tell(&status, json);
    Ok(())
}

fn tell(status: &Status, json: bool) {
    if json {
        say_json(status);
    } else {
        say(render(status, Moment::now()).trim_end());
    }
}

/// Shows the status again whenever something has happened, until the daemon stops.
fn follow(client: &Client, first: Status, json: bool) -> Result<(), Failure> {
    let events = client.events()?;
    // Room for one: whatever happens before the next picture is in the next picture.
    let (happened, happening) = mpsc::sync_channel(1);
    thread::spawn(move || {
        for event in events {
            let ended = event.is_err();
            match happened.try_send(()) {
                Err(mpsc::TrySendError::Disconnected(())) => return,
                _ if ended => return,
                _ => {}
            }
        }
    });
    let mut status = first;
    loop {
        if !json && is_terminal() {
            // From the top, and nothing below it.
            let mut out = anstream::stdout().lock();
            let _ = write!(out, "\x1b[H\x1b[2J").and_then(|()| out.flush());
        }
        tell(&status, json);
        if !json {
            say("");
            status.shares.iter().filter_map(progress).for_each(|line| say(&line));
        }
        thread::sleep(FRAME);
        if happening.recv_timeout(REFRESH) == Err(RecvTimeoutError::Disconnected) {
            return match client.status() {
                Err(error) if error.is_not_running() => {
                    Err(Failure::new("Kith has stopped", "Start it with `kith up`."))
                }
                Err(error) => Err(error.into()),
                Ok(_) => Err(Failure::new("The stream of events broke off", "Try again.")),
            };
        }
        status = match client.status() {
            Ok(status) => status,
            Err(error) if error.is_not_running() => continue,
            Err(error) => return Err(error.into()),
        };
    }
}

/// Everything about a device, for a person.
fn render(status: &Status, now: Moment) -> String {
    let device = &status.device;
    let mut text = format!("{STRONG}{}{STRONG:#}", plain(&device.name));
    let mut facts = vec![short_id(&device.id)];
    facts.extend(device.port.map(|port| format!("UDP port {port}")));
    facts.push(format!("running for {}", span(device.uptime_seconds)));
    let _ = writeln!(text, "{DIM}   {}{DIM:#}", facts.join("   "));

    if let Some(when) = device.cloned {
        let _ = writeln!(
            text,
            "{BAD}Another machine has this device's identity{BAD:#} (seen {}): `kith doctor` says what to do.",
            ago(when, now)
        );
    }
    text.push('\n');
    text.push_str(&render_shares(&status.shares, now));
    text.push('\n');
    if status.devices.is_empty() {
        let _ = writeln!(text, "No other devices yet: `kith invite` shows a code for one.");
        return text;
    }
    let mut table = Columns::new(&[
        ("Device", Side::Left),
        ("State", Side::Left),
        ("To fetch", Side::Right),
        ("Last seen", Side::Left),
        ("Address", Side::Left),
    ]);
    for device in &status.devices {
        let missing = match device.missing_bytes {
            Some(bytes) => size_or_none(bytes),
            None => "?".into(),
        };
        table.row(vec![
            (device.name.clone(), PLAIN),
            connection(device.connected),
            (missing, PLAIN),
            (last_seen(device, now), PLAIN),
            (device.address.clone().unwrap_or_else(|| NONE.into()), DIM),
        ]);
    }
    let _ = write!(text, "{table}");
    text
}

fn render_shares(shares: &[ShareStatus], now: Moment) -> String {
    let mut table = Columns::new(&[
        ("Folder", Side::Left),
        ("State", Side::Left),
        ("Names", Side::Right),
        ("Size", Side::Right),
        ("To fetch", Side::Right),
        ("Conflicts", Side::Right),
        ("Mounted at", Side::Left),
    ]);
    for share in shares {
        let conflicts = if share.conflicts == 0 { DIM } else { BUSY };
        let number = if share.conflicts == 0 { NONE.into() } else { count(share.conflicts) };
        table.row(vec![
            (share.name.clone(), PLAIN),
            state(share.state),
            (count(share.entries), PLAIN),
            (size(share.bytes), PLAIN),
            (size_or_none(share.missing_bytes), PLAIN),
            (number, conflicts),
            (share.mount.clone().unwrap_or_else(|| NONE.into()), PLAIN),
        ]);
    }
    let mut text = table.to_string();
    for share in shares {
        if let Some(problem) = &share.problem {
            let (name, problem) = (plain(&share.name), plain(problem));
            let _ = writeln!(text, "{BAD}{name}:{BAD:#} {problem}");
        }
        for change in &share.mass_changes {
            let (name, happened) = (plain(&share.name), plain(&happened(change, now)));
            let _ = writeln!(text, "{BAD}{name}:{BAD:#} {happened}.");
            let _ = writeln!(text, "{}", plain(&held(change)));
        }
    }
    text
}

/// How much of a share is here, as long as something is missing.
fn progress(share: &ShareStatus) -> Option<String> {
    if share.missing_bytes == 0 {
        return None;
    }
    // What is missing may be counted a moment later than the rest.
    let whole = u128::from(share.bytes.max(share.missing_bytes));
    let here = whole - u128::from(share.missing_bytes);
    let part = |of: u128| usize::try_from(here * of / whole).unwrap_or(0);
    let (done, left) = (part(BAR), usize::try_from(BAR).unwrap_or(0) - part(BAR));
    let bar = format!("{GOOD}{}{GOOD:#}{DIM}{}{DIM:#}", "━".repeat(done), "━".repeat(left));
    Some(format!("{}   {bar} {:>3} % is here", plain(&share.name), part(100)))
}

fn state(state: ShareState) -> (String, Style) {
    let style = match state {
        ShareState::Synced => GOOD,
        ShareState::Syncing => BUSY,
        ShareState::Offline => DIM,
    };
    (state_name(state).into(), style)
}

/// A share's state, in a word.
pub(crate) fn state_name(state: ShareState) -> &'static str {
    match state {
        ShareState::Synced => "synced",
        ShareState::Syncing => "syncing",
        ShareState::Offline => "offline",
    }
}

fn connection(connected: bool) -> (String, Style) {
    if connected { ("connected".into(), GOOD) } else { ("offline".into(), DIM) }
}

fn last_seen(device: &DeviceStatus, now: Moment) -> String {
    if device.connected {
        return "now".into();
    }
    device.last_seen.map_or_else(|| "never".into(), |then| ago(then, now))
}

/// `kith shares`.
pub(crate) fn shares(paths: &Paths, command: &Shares, json: bool) -> Result<(), Failure> {
    let Shares::List = command;
    let list = client(paths).shares()?;
    if json {
        say_json(&list);
    } else {
        say(render_shares(&list.shares, Moment::now()).trim_end());
    }
    Ok(())
}

/// `kith devices`.
pub(crate) fn devices(paths: &Paths, command: &Devices, json: bool) -> Result<(), Failure> {
    let client = client(paths);
    match command {
        Devices::List => {
            let list = client.devices()?;
            if json {
                say_json(&list);
            } else {
                say(render_devices(&list, Moment::now()).trim_end());
            }
        }
        Devices::Rename { device, name } => {
            let renamed = client.rename_device(device, name)?;
            if json {
                say_json(&renamed);
            } else {
                say(&format!("It is called {} now.", plain(&renamed.name)));
            }
        }
        Devices::Remove { device, yes } => {
            if !yes && !json && !agreed(device)? {
                return Err(Failure::new("Nothing was removed", ""));
            }
            let removed = client.remove_device(device)?;
            if json {
                say_json(&removed);
            } else {
                say(&format!("{} is removed.", plain(&removed.name)));
            }
        }
    }
    Ok(())
}

/// Asks on a terminal; elsewhere, whoever wrote the command has thought about it.
fn agreed(device: &str) -> Result<bool, Failure> {
    let input = std::io::stdin();
    if !input.is_terminal() || !is_terminal() {
        return Ok(true);
    }
    let failed = |error: std::io::Error| Failure::new(format!("no answer: {error}"), "Use --yes.");
    let mut out = anstream::stdout().lock();
    let question =
        format!("Remove {} for good? It can come back only as a new device. [y/N] ", plain(device));
    write!(out, "{question}").and_then(|()| out.flush()).map_err(failed)?;
    let mut answer = String::new();
    input.lock().read_line(&mut answer).map_err(failed)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

fn render_devices(list: &DeviceList, now: Moment) -> String {
    let mut table = Columns::new(&[
        ("Device", Side::Left),
        ("Id", Side::Left),
        ("State", Side::Left),
        ("Last seen", Side::Left),
        ("Address", Side::Left),
    ]);
    for device in &list.devices {
        let (state, seen) = match (device.this, device.connected) {
            (true, _) => (("this device".into(), STRONG), "now".into()),
            (false, true) => (connection(true), "now".into()),
            (false, false) => (
                connection(false),
                device.last_seen.map_or_else(|| "never".into(), |then| ago(then, now)),
            ),
        };
        table.row(vec![
            (device.name.clone(), PLAIN),
            (short_id(&device.id), DIM),
            state,
            (seen, PLAIN),
            (device.address.clone().unwrap_or_else(|| NONE.into()), DIM),
        ]);
    }
    table.to_string()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use kith_control::status::{Member, ThisDevice};

    /// A device with one share and no other devices.
    pub(crate) fn status() -> Status {
        Status {
            device: ThisDevice {
                cloned: None,
                id: "0123456789abcdef".repeat(4),
                name: "laptop".into(),
                version: "0.1.0".into(),
                port: Some(5484),
                addresses: Vec::new(),
                uptime_seconds: 7_500,
                run: "1f".into(),
                went_on: false,
            },
            shares: vec![ShareStatus {
                name: "Kith".into(),
                id: "00".repeat(16),
                mount: Some("/home/anna/Kith".into()),
                state: ShareState::Syncing,
                entries: 5_321,
                bytes: 2_254_857_830,
                missing_bytes: 104_857_600,
                conflicts: 2,
                problem: None,
                mass_changes: Vec::new(),
            }],
            devices: Vec::new(),
        }
    }

    fn stripped(text: &str) -> String {
        anstream::adapter::strip_str(text).to_string()
    }

    #[test]
    fn one_device_alone_is_told_what_to_do_next() {
        let mut status = status();
        status.shares[0].state = ShareState::Synced;
        status.shares[0].missing_bytes = 0;
        status.shares[0].conflicts = 0;
        assert_eq!(
            stripped(&render(&status, Moment::from_unix_ms(0))),
            "\
laptop   01234567   UDP port 5484   running for 2 hours

Folder   State    Names      Size   To fetch   Conflicts   Mounted at
Kith     synced   5,321   2.1 GiB          -           -   /home/anna/Kith

No other devices yet: `kith invite` shows a code for one.
"
        );
    }

    #[test]
    fn a_circle_is_a_table_of_devices() {
        let mut status = status();
        status.shares[0].problem = Some("The disk is full.".into());
        let device = |name: &str, connected, missing_bytes, last_seen| DeviceStatus {
            id: "ef".repeat(32),
            name: name.into(),
            connected,
            address: connected.then(|| "192.0.2.7:5484".into()),
            missing_bytes,
            last_seen,
        };
        let now = Moment::from_unix_ms(1_795_637_700_000);
        status.devices = vec![
            device("desktop", true, Some(0), None),
            device("phone\x1b[2J", false, None, Some(Moment::from_unix_ms(1_795_626_900_000))),
            device("nas", false, Some(1_610_612_736), None),
        ];
        assert_eq!(
            stripped(&render(&status, now)),
            "\
laptop   01234567   UDP port 5484   running for 2 hours

Folder   State     Names      Size    To fetch   Conflicts   Mounted at
Kith     syncing   5,321   2.1 GiB   100.0 MiB           2   /home/anna/Kith
Kith: The disk is full.

Device      State       To fetch   Last seen     Address
desktop     connected          -   now           192.0.2.7:5484
phone\u{fffd}[2J   offline            ?   3 hours ago   -
nas         offline      1.5 GiB   never         -
"
        );
    }

    #[test]
    fn progress_is_shown_while_something_is_missing() {
        let mut share = status().shares.remove(0);
        for (bytes, missing, end) in [
            (1000, 250, Some(" 75 % is here")),
            (1000, 1000, Some("  0 % is here")),
            (0, 10, Some("  0 % is here")),
            (u64::MAX, 1, Some(" 99 % is here")),
            (1000, 0, None),
        ] {
            (share.bytes, share.missing_bytes) = (bytes, missing);
            let line = progress(&share).map(|line| stripped(&line));
            assert_eq!(line.is_some(), end.is_some());
            if let (Some(line), Some(end)) = (line, end) {
                assert!(line.ends_with(end), "{line}");
                assert_eq!(line.matches('━').count(), 30, "{line}");
            }
        }
    }

    #[test]
    fn the_list_of_devices_begins_with_this_one() {
        let member = |name: &str, this| Member {
            id: "0123456789abcdef".repeat(4),
            name: name.into(),
            this,
            connected: this,
            address: None,
            last_seen: None,
        };
        let list = DeviceList { devices: vec![member("laptop", true), member("desktop", false)] };
        assert_eq!(
            stripped(&render_devices(&list, Moment::from_unix_ms(0))),
            "\
Device    Id         State         Last seen   Address
laptop    01234567   this device   now         -
desktop   01234567   offline       never       -
"
        );
    }
}
