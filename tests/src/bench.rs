//! The benchmark: the same work on a directory of the disk under the store and on a mount, in turn.

mod report;
mod stage;
mod work;

pub use report::{Measured, table};
pub use stage::{Caches, Stage, Subject};
pub use work::COURSES;

use std::path::Path;

/// Where a piece of work is done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Side {
    /// A directory of the disk under the store.
    Disk,
    /// A directory of the mount.
    Mount,
}

/// What a figure may be at most.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Bar {
    /// Nobody has said.
    None,
    /// The mount's time, of the disk's.
    Ratio(f64),
    /// The mount's time by itself.
    Seconds(f64),
}

/// One line of the table.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// What `--only` calls it.
    pub name: &'static str,
    /// What is done, in words.
    pub what: &'static str,
    /// What it is measured by.
    pub bar: Bar,
}

/// Work of which one or several rows are measured.
#[derive(Debug)]
pub struct Course {
    /// What is measured, in the order in which `run` answers it.
    pub rows: &'static [Row],
    /// What has to be there: done once on each side.
    pub prepare: fn(&Stage, &Path),
    /// Whether it can also be done on a volume in memory, and what FUSE itself takes weighs in it.
    pub floor: bool,
    /// Done in turn on each side. Answers seconds for each row; nothing where it can't be told.
    pub run: fn(&Stage, Turn<'_>) -> Vec<Option<f64>>,
}

/// One turn of a course.
#[derive(Clone, Copy, Debug)]
pub struct Turn<'a> {
    /// Where it is done.
    pub side: Side,
    /// The directory to do it in, as `prepare` left it.
    pub at: &'a Path,
    /// Which turn it is, from 0.
    pub number: u64,
}

/// Runs a course: once for each side in every round, the disk first in one, the mount in the next.
pub fn measure(course: &Course, stage: &Stage, rounds: usize) -> Vec<Measured> {
    for side in [Side::Disk, Side::Mount] {
        (course.prepare)(stage, stage.at(side));
    }
    let mut measured: Vec<_> = course.rows.iter().map(Measured::new).collect();
    for round in 0..rounds {
        let order = if round % 2 == 0 { [0, 1] } else { [1, 0] };
        let mut pair = [const { Vec::new() }; 2];
        let mut processor = 0.0;
        for which in order {
            stage.settle();
            let side = [Side::Disk, Side::Mount][which];
            let number = round as u64 * 2 + which as u64;
            let before = stage.processor_seconds();
            pair[which] = (course.run)(stage, Turn { side, at: stage.at(side), number });
            if side == Side::Mount {
                // With what is left to be done after the program has gone on.
                stage.settle();
                processor = stage.processor_seconds() - before;
            }
        }
        for (at, measured) in measured.iter_mut().enumerate() {
            if let (Some(disk), Some(mount)) = (pair[0][at], pair[1][at]) {
                measured.add(disk, mount, processor);
            }
        }
    }
    measured
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn rows_have_names_of_their_own() {
        let rows = || COURSES.iter().flat_map(|course| course.rows);
        let names: BTreeSet<_> = rows().map(|row| row.name).collect();
        assert_eq!(names.len(), rows().count());
        assert!(names.iter().all(|name| !name.contains([',', ' '])));
    }
}
