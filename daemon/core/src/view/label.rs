//! The labels of what stands beside another at its name.

use crate::clock::Hlc;
use crate::register::Version;
use alloc::string::String;

/// The label of a version shown beside another of the same file.
pub(crate) fn conflict(version: &Version) -> String {
    conflict_of(&version.author, version.stamp.hlc)
}

/// The label of what was made at `when` on the device called `author`.
pub(crate) fn conflict_of(author: &str, when: Hlc) -> String {
    alloc::format!("conflict {author} {}", time_of_day(when.wall().0 / 1000))
}

/// Seconds since 1970 as `2026-11-25 22.31.05`, UTC: a colon can't stand in names everywhere.
#[must_use]
pub fn time_of_day(seconds: u64) -> String {
    let (year, month, day) = civil_from_days(seconds / 86_400);
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    alloc::format!("{year:04}-{month:02}-{day:02} {hour:02}.{minute:02}.{second:02}")
}

/// Year, month and day of the days since 1970, in the Gregorian calendar (Howard Hinnant,
/// "chrono-compatible low-level date algorithms", 2013): in years that begin in March the lengths
/// of months follow a line, and the leap day comes last.
const fn civil_from_days(days: u64) -> (u64, u64, u64) {
    const DAYS_OF_400_YEARS: u64 = 146_097;
    // From 0000-03-01.
    let days = days + 719_468;
    let (era, day) = (days / DAYS_OF_400_YEARS, days % DAYS_OF_400_YEARS);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (month, next) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    (era * 400 + year + next, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_those_of_the_calendar() {
        let cases = [
            (0, "1970-01-01 00.00.00"),
            (951_782_399, "2000-02-28 23.59.59"),
            (951_782_400, "2000-02-29 00.00.00"),
            (1_709_251_199, "2024-02-29 23.59.59"),
            (1_795_645_865, "2026-11-25 22.31.05"),
            (4_107_542_400, "2100-03-01 00.00.00"),
        ];
        for (seconds, expected) in cases {
            assert_eq!(time_of_day(seconds), expected);
        }
    }
}
