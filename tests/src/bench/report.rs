//! What was measured: medians, ratios, and whether they are within their bars.

use super::{Bar, Row};
use serde_json::{Value, json};
use std::fmt::Write as _;

/// The times of one row.
#[derive(Clone, Debug)]
pub struct Measured {
    /// The row.
    pub row: Row,
    /// For each round the seconds on the disk, on the mount, and of the daemon's processor time in
    /// the whole of its course.
    pub rounds: Vec<(f64, f64, f64)>,
}

impl Measured {
    /// A row without any times yet.
    pub fn new(row: &Row) -> Measured {
        Measured { row: *row, rounds: Vec::new() }
    }

    /// Adds a round.
    pub fn add(&mut self, disk: f64, mount: f64, processor: f64) {
        self.rounds.push((disk, mount, processor));
    }

    /// The median of something of each round; nothing without rounds.
    fn median(&self, of: impl Fn(&(f64, f64, f64)) -> f64) -> Option<f64> {
        let mut all: Vec<f64> = self.rounds.iter().map(of).collect();
        all.sort_by(f64::total_cmp);
        let half = all.len() / 2;
        match all.len() {
            0 => None,
            len if len % 2 == 1 => Some(all[half]),
            _ => Some(f64::midpoint(all[half - 1], all[half])),
        }
    }

    /// The median of the rounds' ratios.
    pub fn ratio(&self) -> Option<f64> {
        self.median(|(disk, mount, _)| mount / disk)
    }

    /// Whether it is within its bar; nothing if there is none.
    pub fn is_met(&self) -> Option<bool> {
        match self.row.bar {
            Bar::None => None,
            Bar::Ratio(most) => self.ratio().map(|ratio| ratio <= most),
            Bar::Seconds(most) => self.median(|(_, mount, _)| *mount).map(|mount| mount <= most),
        }
    }

    /// Everything, with all times.
    pub fn json(&self) -> Value {
        let rounded = |value: f64| (value * 1e6).round() / 1e6;
        let list = |of: fn(&(f64, f64, f64)) -> f64| {
            self.rounds.iter().map(|round| rounded(of(round))).collect::<Vec<_>>()
        };
        json!({
            "row": self.row.name,
            "what": self.row.what,
            "disk_seconds": list(|round| round.0),
            "mount_seconds": list(|round| round.1),
            "daemon_processor_seconds": list(|round| round.2),
            "ratio": self.ratio().map(rounded),
            "bar_ratio": if let Bar::Ratio(most) = self.row.bar { Some(most) } else { None },
            "bar_seconds": if let Bar::Seconds(most) = self.row.bar { Some(most) } else { None },
            "met": self.is_met(),
        })
    }

    /// Reads what [`json`](Measured::json) made; nothing if it is of no row.
    pub fn from_json(value: &Value) -> Option<Measured> {
        let mut rows = super::COURSES.iter().flat_map(|course| course.rows);
        let mut measured = Measured::new(rows.find(|row| value["row"] == row.name)?);
        let list = |name: &str| {
            let list = value[name].as_array()?;
            list.iter().map(Value::as_f64).collect::<Option<Vec<f64>>>()
        };
        let (disk, mount) = (list("disk_seconds")?, list("mount_seconds")?);
        let processor = list("daemon_processor_seconds")?;
        for ((disk, mount), processor) in disk.into_iter().zip(mount).zip(processor) {
            measured.add(disk, mount, processor);
        }
        Some(measured)
    }
}

/// All rows of one user, for a person.
pub fn table(user: &str, rows: &[Measured]) -> String {
    let mut text = format!(
        "as {user:<56} {:>10} {:>10} {:>7} {:>8} {:>7}\n",
        "disk, s", "mount, s", "ratio", "bar", "cpu, s"
    );
    for measured in rows {
        let row = &measured.row;
        let number = |value: Option<f64>, digits: usize| {
            value.map_or_else(|| "-".to_owned(), |value| format!("{value:.digits$}"))
        };
        let bar = match row.bar {
            Bar::None => String::new(),
            Bar::Ratio(most) => format!("{most:.2}"),
            Bar::Seconds(most) => format!("{:.0} ms", most * 1000.0),
        };
        let _ = writeln!(
            text,
            "{:<18} {:<40} {:>10} {:>10} {:>7} {bar:>8} {:>7} {}",
            row.name,
            row.what,
            number(measured.median(|round| round.0), 4),
            number(measured.median(|round| round.1), 4),
            number(measured.ratio(), 2),
            number(measured.median(|round| round.2), 2),
            if measured.is_met() == Some(false) { "above" } else { "" },
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(bar: Bar, rounds: &[(f64, f64)]) -> Measured {
        let mut measured = Measured::new(&Row { bar, ..super::super::COURSES[0].rows[0] });
        rounds.iter().for_each(|(disk, mount)| measured.add(*disk, *mount, 0.5));
        measured
    }

    type Case = (Bar, &'static [(f64, f64)], Option<f64>, Option<bool>);

    #[test]
    fn ratios_are_medians_of_rounds() {
        let cases: [Case; 5] = [
            (Bar::Ratio(2.0), &[], None, None),
            (Bar::Ratio(2.0), &[(1.0, 3.0), (2.0, 2.0), (1.0, 1.5)], Some(1.5), Some(true)),
            (Bar::Ratio(2.0), &[(1.0, 2.0), (1.0, 3.0)], Some(2.5), Some(false)),
            (Bar::Seconds(0.05), &[(1.0, 0.25)], Some(0.25), Some(false)),
            (Bar::None, &[(1.0, 3.0)], Some(3.0), None),
        ];
        for (bar, rounds, ratio, met) in cases {
            let measured = of(bar, rounds);
            assert_eq!((measured.ratio(), measured.is_met()), (ratio, met), "{bar:?} {rounds:?}");
        }
    }

    #[test]
    fn what_is_written_as_json_is_read_again() {
        let row = super::super::COURSES[0].rows[0];
        let measured = of(row.bar, &[(1.0, 2.5), (0.25, 4.0)]);
        let read = Measured::from_json(&measured.json()).unwrap();
        assert_eq!((read.row.name, read.rounds), (row.name, measured.rounds));
        assert!(Measured::from_json(&json!({"row": "none"})).is_none());
    }
}
