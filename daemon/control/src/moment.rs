//! A point in time, written as RFC 3339 in UTC.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::str::FromStr;
use std::time::{SystemTime, UNIX_EPOCH};

const DAY_MS: i64 = 86_400_000;
/// 9999-12-31T23:59:59.999Z, the last that RFC 3339 can write.
const LAST_MS: i64 = 253_402_300_799_999;
/// 0000-01-01T00:00:00Z, the first that RFC 3339 can write.
const FIRST_MS: i64 = -62_167_219_200_000;

/// Milliseconds since 1970-01-01T00:00:00Z, leap seconds left out, within the years 0 to 9999.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Moment(i64);

/// A text that is not a time in UTC as RFC 3339 writes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a time like 2026-11-25T20:15:00Z")]
pub struct ParseMomentError;

impl Moment {
    /// The time that the system's clock shows.
    #[must_use]
    pub fn now() -> Self {
        SystemTime::now().into()
    }

    /// From milliseconds since 1970, moved into the range that can be written.
    #[must_use]
    pub fn from_unix_ms(ms: i64) -> Self {
        Moment(ms.clamp(FIRST_MS, LAST_MS))
    }

    /// Milliseconds since 1970.
    #[must_use]
    pub fn unix_ms(self) -> i64 {
        self.0
    }
}

impl From<SystemTime> for Moment {
    fn from(time: SystemTime) -> Self {
        let ms = match time.duration_since(UNIX_EPOCH) {
            Ok(after) => i64::try_from(after.as_millis()).unwrap_or(i64::MAX),
            Err(before) => i64::try_from(before.duration().as_millis()).map_or(i64::MIN, |ms| -ms),
        };
        Moment::from_unix_ms(ms)
    }
}

/// Year, month and day of a number of days since 1970, in the proleptic Gregorian calendar.
/// (Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms".)
fn civil(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

/// The reverse of [`civil`].
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let month_from_march = (month + 9) % 12;
    let day_of_year = (153 * month_from_march + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (year, month, day) = civil(self.0.div_euclid(DAY_MS));
        let ms = self.0.rem_euclid(DAY_MS);
        let (hour, minute) = (ms / 3_600_000, ms / 60_000 % 60);
        let (second, fraction) = (ms / 1_000 % 60, ms % 1_000);
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{fraction:03}Z")
    }
}

impl FromStr for Moment {
    type Err = ParseMomentError;

    fn from_str(text: &str) -> Result<Self, ParseMomentError> {
        let text = text.strip_suffix('Z').ok_or(ParseMomentError)?;
        let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
        let shape = |at: usize, byte: u8| whole.as_bytes().get(at) == Some(&byte);
        let separated = [(4, b'-'), (7, b'-'), (10, b'T'), (13, b':'), (16, b':')];
        if whole.len() != 19 || !separated.iter().all(|&(at, byte)| shape(at, byte)) {
            return Err(ParseMomentError);
        }
        let number = |text: Option<&str>, low: i64, high: i64| {
            let text = text.filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
            let number: i64 = text.and_then(|text| text.parse().ok()).ok_or(ParseMomentError)?;
            if (low..=high).contains(&number) { Ok(number) } else { Err(ParseMomentError) }
        };
        let year = number(whole.get(0..4), 0, 9999)?;
        let month = number(whole.get(5..7), 1, 12)?;
        let day = number(whole.get(8..10), 1, 31)?;
        let hour = number(whole.get(11..13), 0, 23)?;
        let minute = number(whole.get(14..16), 0, 59)?;
        let second = number(whole.get(17..19), 0, 59)?;
        let day_count = days(year, month, day);
        if civil(day_count) != (year, month, day) {
            return Err(ParseMomentError);
        }
        let nanoseconds = format!("{fraction:0<9}");
        let fraction = number(Some(nanoseconds.as_str()), 0, 999_999_999)? / 1_000_000;
        let seconds = hour * 3_600 + minute * 60 + second;
        Ok(Moment(day_count * DAY_MS + seconds * 1_000 + fraction))
    }
}

impl Serialize for Moment {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Moment {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_times_are_written_and_read_back() {
        for (ms, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_399_999, "2000-02-28T23:59:59.999Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (1_795_637_700_123, "2026-11-25T20:15:00.123Z"),
            (-1, "1969-12-31T23:59:59.999Z"),
            (i64::MAX, "9999-12-31T23:59:59.999Z"),
            (i64::MIN, "0000-01-01T00:00:00.000Z"),
        ] {
            let moment = Moment::from_unix_ms(ms);
            assert_eq!(moment.to_string(), text);
            assert_eq!(text.parse(), Ok(moment));
        }
    }

    #[test]
    fn every_day_of_eight_centuries_comes_back() {
        for day in (-150_000..150_000).step_by(7) {
            let (year, month, day_of_month) = civil(day);
            assert_eq!(days(year, month, day_of_month), day);
        }
    }

    #[test]
    fn what_is_not_a_time_is_refused() {
        for text in [
            "",
            "Z",
            "2026-11-25",
            "2026-11-25T20:15:00",
            "2026-11-25T20:15:00+01:00",
            "2026-02-30T00:00:00Z",
            "2026-13-01T00:00:00Z",
            "2026-11-25T24:00:00Z",
            "2026-11-25T20:15:00.Z0Z",
            "2026-11-25T20:15:00.1234567890Z",
            "+026-11-25T20:15:00Z",
            "２026-11-25T20:15:00Z",
        ] {
            assert_eq!(text.parse::<Moment>(), Err(ParseMomentError), "{text}");
        }
    }
}
