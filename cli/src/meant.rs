//! `kith meant`, and what a mass change is called in words.

use crate::failure::Failure;
use crate::running::client;
use crate::screen::{count, plain, say, say_json};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use kith_control::moment::Moment;
use kith_control::status::{MassChange, Mean};
use kith_daemon::paths::Paths;

/// `kith meant [DEVICE]`.
pub(crate) fn mean(paths: &Paths, device: Option<String>, json: bool) -> Result<(), Failure> {
    let answer = client(paths).mean(&Mean { device })?;
    if json {
        say_json(&answer);
        return Ok(());
    }
    if answer.meant.is_empty() {
        say("Nothing waits for your word.");
    }
    for change in &answer.meant {
        say(&format!("Meant: {}.", plain(&happened(change, Moment::now()))));
    }
    if !answer.meant.is_empty() {
        say("The old versions stay as long as any others. All your devices hear of it.");
    }
    Ok(())
}

/// What a device did, in one sentence with the times of this place.
pub(crate) fn happened(change: &MassChange, now: Moment) -> String {
    let MassChange { device, removed, overwritten, files, from, to, .. } = change;
    let did = match (removed, overwritten) {
        (removed, 0) => format!("removed {}", count(*removed)),
        (0, overwritten) => format!("overwrote {}", count(*overwritten)),
        (removed, overwritten) => {
            format!("removed {} and overwrote {}", count(*removed), count(*overwritten))
        }
    };
    let times = times(*from, *to, now, &TimeZone::system());
    format!("{device} {did} of {} files {times}", count(*files))
}

/// What that means for this device, and what to do.
pub(crate) fn held(change: &MassChange) -> String {
    let touched = match (change.removed, change.overwritten) {
        (_, 0) => "removed",
        (0, _) => "overwrote",
        _ => "removed or overwrote",
    };
    format!(
        "Nothing that it {touched} is let go here. If it was meant: kith meant {}",
        quoted(&change.device)
    )
}

fn times(from: Moment, to: Moment, now: Moment, zone: &TimeZone) -> String {
    let local = |moment: Moment, format: &str| match Timestamp::from_millisecond(moment.unix_ms()) {
        Ok(time) => time.to_zoned(zone.clone()).strftime(format).to_string(),
        Err(_) => moment.to_string(),
    };
    let (day, time) = ("%Y-%m-%d", "%H:%M");
    let (first, last) = (local(from, day), local(to, day));
    let on = if first == local(now, day) { String::new() } else { format!("on {first} ") };
    let (begin, end) = (local(from, time), local(to, time));
    if first != last {
        format!("between {first} {begin} and {last} {end}")
    } else if begin == end {
        format!("{on}at {begin}")
    } else {
        format!("{on}between {begin} and {end}")
    }
}

/// A device's name as a shell takes it for one word.
fn quoted(name: &str) -> String {
    let is_plain = |it: char| it.is_alphanumeric() || matches!(it, '-' | '_' | '.');
    if !name.is_empty() && name.chars().all(is_plain) && !name.starts_with('-') {
        name.to_owned()
    } else {
        format!("'{}'", name.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(minutes: i64) -> i64 {
        1_795_651_200_000 + minutes * 60_000
    }

    fn change(removed: u64, overwritten: u64) -> MassChange {
        MassChange {
            device: "laptop".into(),
            removed,
            overwritten,
            bytes: 5,
            files: 20_000,
            from: Moment::from_unix_ms(at(2)),
            to: Moment::from_unix_ms(at(4)),
        }
    }

    #[test]
    fn a_mass_change_is_told_in_words() {
        for (removed, overwritten, did, held_words) in [
            (12_304, 0, "laptop removed 12,304 of 20,000 files ", "Nothing that it removed is"),
            (0, 5_000, "laptop overwrote 5,000 of 20,000 files ", "Nothing that it overwrote is"),
            (
                1,
                4_000,
                "laptop removed 1 and overwrote 4,000 of 20,000 files ",
                "Nothing that it removed or overwrote is",
            ),
        ] {
            let change = change(removed, overwritten);
            let told = happened(&change, Moment::from_unix_ms(at(10)));
            assert!(told.starts_with(did), "{told}");
            let told = held(&change);
            assert!(told.starts_with(held_words), "{told}");
            assert!(told.ends_with("If it was meant: kith meant laptop"), "{told}");
        }
    }

    #[test]
    fn times_are_as_short_as_they_are_clear() {
        for (from, to, now, expected) in [
            (2, 4, 10, "between 00:02 and 00:04"),
            (2, 2, 10, "at 00:02"),
            (2, 4, 2_000, "on 2026-11-26 between 00:02 and 00:04"),
            (-5, 4, 10, "between 2026-11-25 23:55 and 2026-11-26 00:04"),
        ] {
            let [from, to, now] = [from, to, now].map(|it| Moment::from_unix_ms(at(it)));
            assert_eq!(times(from, to, now, &TimeZone::UTC), expected);
        }
    }

    #[test]
    fn a_name_is_one_word_of_a_shell() {
        for (name, word) in [
            ("laptop", "laptop"),
            ("Küche-2", "Küche-2"),
            ("anna's laptop", r"'anna'\''s laptop'"),
            ("-n", "'-n'"),
            ("", "''"),
        ] {
            assert_eq!(quoted(name), word);
        }
    }
}
