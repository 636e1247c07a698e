//! What a person sees: plain words, aligned columns, and colours where there is a terminal.

use anstyle::{AnsiColor, Effects, Style};
use bytesize::ByteSize;
use indicatif::{ProgressBar, ProgressStyle};
use kith_control::moment::Moment;
use serde::Serialize;
use std::io::{self, IsTerminal, Write};
use std::time::Duration;
use unicode_width::UnicodeWidthStr;

pub(crate) const GOOD: Style = AnsiColor::Green.on_default();
pub(crate) const BUSY: Style = AnsiColor::Yellow.on_default();
pub(crate) const BAD: Style = AnsiColor::Red.on_default().effects(Effects::BOLD);
pub(crate) const DIM: Style = Style::new().effects(Effects::DIMMED);
pub(crate) const STRONG: Style = Style::new().effects(Effects::BOLD);
pub(crate) const PLAIN: Style = Style::new();

/// What stands where there is nothing to say.
pub(crate) const NONE: &str = "-";

/// Writes a line to stdout, at once. Styles are taken out unless it is a terminal.
///
/// A reader that has gone away (`kith events | head`) ends the program without a word.
pub(crate) fn say(line: &str) {
    let mut out = anstream::stdout().lock();
    if let Err(error) = writeln!(out, "{line}").and_then(|()| out.flush()) {
        std::process::exit(if error.kind() == io::ErrorKind::BrokenPipe { 0 } else { 1 });
    }
}

/// Writes a line to stderr.
pub(crate) fn complain(line: &str) {
    // There is nowhere left to tell that it can't be written.
    let _ = writeln!(anstream::stderr().lock(), "{line}");
}

/// Writes `value` to stdout as one line of JSON, at once.
pub(crate) fn say_json(value: &impl Serialize) {
    say(&serde_json::to_string(value).expect("facts have string keys and no failing parts"));
}

/// Whether a person looks at stdout.
pub(crate) fn is_terminal() -> bool {
    io::stdout().is_terminal()
}

/// `text` without anything that a terminal would obey: names come from other devices.
pub(crate) fn plain(text: &str) -> String {
    text.chars()
        .map(|character| {
            let hidden = matches!(character,
                '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
            if character.is_control() || hidden { '\u{fffd}' } else { character }
        })
        .collect()
}

/// A moving sign, while a person waits on a terminal; nothing elsewhere.
pub(crate) fn waiting(what: &str, json: bool) -> ProgressBar {
    if json || !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new_spinner().with_message(plain(what));
    if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} {elapsed}") {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(120));
    bar
}

/// A size, as people read it: `1.5 GiB`.
pub(crate) fn size(bytes: u64) -> String {
    ByteSize::b(bytes).display().iec().to_string()
}

/// A size of which there may be none.
pub(crate) fn size_or_none(bytes: u64) -> String {
    if bytes == 0 { NONE.into() } else { size(bytes) }
}

/// A number with its thousands set apart.
pub(crate) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut grouped = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// `number` of something that is called `one` alone and `one` + s otherwise.
pub(crate) fn several(number: u64, one: &str) -> String {
    format!("{} {one}{}", count(number), if number == 1 { "" } else { "s" })
}

/// A span of time in its largest unit.
pub(crate) fn span(seconds: u64) -> String {
    match seconds {
        0..60 => several(seconds, "second"),
        60..3_600 => several(seconds / 60, "minute"),
        3_600..86_400 => several(seconds / 3_600, "hour"),
        _ => several(seconds / 86_400, "day"),
    }
}

/// How long before `now` something was.
pub(crate) fn ago(then: Moment, now: Moment) -> String {
    let seconds = u64::try_from((now.unix_ms() - then.unix_ms()) / 1_000).unwrap_or(0);
    if seconds < 10 { "now".into() } else { format!("{} ago", span(seconds)) }
}

/// The time of day here.
pub(crate) fn clock(moment: Moment) -> String {
    match jiff::Timestamp::from_millisecond(moment.unix_ms()) {
        Ok(time) => time.to_zoned(jiff::tz::TimeZone::system()).strftime("%H:%M:%S").to_string(),
        Err(_) => moment.to_string(),
    }
}

/// The first digits of an id, enough to tell a few devices apart.
pub(crate) fn short_id(id: &str) -> String {
    plain(id).chars().take(8).collect()
}

/// On which side a column's cells end.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Left,
    Right,
}

/// A table without lines: as wide as what is in it.
pub(crate) struct Columns {
    heads: Vec<(&'static str, Side)>,
    rows: Vec<Vec<(String, Style)>>,
}

impl Columns {
    pub(crate) fn new(heads: &[(&'static str, Side)]) -> Self {
        Columns { heads: heads.to_vec(), rows: Vec::new() }
    }

    pub(crate) fn row(&mut self, cells: Vec<(String, Style)>) {
        self.rows.push(cells.into_iter().map(|(text, style)| (plain(&text), style)).collect());
    }
}

impl std::fmt::Display for Columns {
    /// One line a row, each with its line end.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let head = self.heads.iter().map(|(text, _)| ((*text).to_owned(), DIM)).collect();
        let lines: Vec<&Vec<_>> = std::iter::once(&head).chain(&self.rows).collect();
        let width = |at: usize| {
            lines.iter().filter_map(|line| line.get(at)).map(|(text, _)| text.width()).max()
        };
        let widths: Vec<usize> = (0..self.heads.len()).map(|at| width(at).unwrap_or(0)).collect();
        for line in &lines {
            let mut owed = 0;
            for (at, (text, style)) in line.iter().enumerate() {
                let gap = if at == 0 { 0 } else { 3 };
                let room = widths[at] - text.width();
                let (before, after) =
                    if self.heads[at].1 == Side::Left { (0, room) } else { (room, 0) };
                // Spaces are written only once something follows them.
                let blank = owed + gap + before;
                write!(f, "{:blank$}{style}{text}{style:#}", "")?;
                owed = after;
            }
            writeln!(f)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_as_people_write_them() {
        assert_eq!(
            [0, 999, 1_000, 1_234_567].map(count),
            ["0", "999", "1,000", "1,234,567"].map(str::to_owned)
        );
        assert_eq!(size(0), "0 B");
        assert_eq!(size(1536), "1.5 KiB");
        assert_eq!(size_or_none(0), "-");
        assert_eq!(
            [59, 60, 7_200, 90_000].map(span),
            ["59 seconds", "1 minute", "2 hours", "1 day"].map(str::to_owned)
        );
        let now = Moment::from_unix_ms(1_000_000);
        assert_eq!(ago(Moment::from_unix_ms(995_000), now), "now");
        assert_eq!(ago(Moment::from_unix_ms(2_000_000), now), "now");
        assert_eq!(ago(Moment::from_unix_ms(700_000), now), "5 minutes ago");
    }

    #[test]
    fn a_foreign_name_cannot_command_the_terminal() {
        assert_eq!(plain("a\x1b[2Jb\u{202e}c\n"), "a\u{fffd}[2Jb\u{fffd}c\u{fffd}");
        assert_eq!(plain("küche 台所"), "küche 台所");
    }

    #[test]
    fn columns_line_up_whatever_is_in_them() {
        let mut table =
            Columns::new(&[("Name", Side::Left), ("Size", Side::Right), ("Note", Side::Left)]);
        table.row(vec![("台所".into(), PLAIN), ("5 B".into(), GOOD), ("x".into(), PLAIN)]);
        table.row(vec![
            ("laptop".into(), PLAIN),
            ("1,000 B".into(), PLAIN),
            (String::new(), PLAIN),
        ]);
        let text = anstream::adapter::strip_str(&table.to_string()).to_string();
        assert_eq!(text, "Name        Size   Note\n台所         5 B   x\nlaptop   1,000 B   \n");
    }
}
