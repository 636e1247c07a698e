//! The same random operations on two filesystems: one is tested, the other is the reference.

pub mod mapping;
pub mod operation;
pub mod side;

use crate::random::Random;
use crate::tree::Tree;
use operation::{Operation, SLOTS};
use side::Side;
use std::collections::VecDeque;
use std::path::{Path, PathBuf};

/// How many operations lie between two comparisons of all bytes.
const WHOLE: usize = 20;
/// How many operations are shown when something differs.
const SHOWN: usize = 25;

/// A run of random operations on a tested directory and on a reference.
#[derive(Debug)]
pub struct Run {
    seed: u64,
    random: Random,
    tested: Side,
    reference: Side,
    done: usize,
    recent: VecDeque<String>,
}

impl Run {
    /// A run on two empty directories.
    pub fn new(seed: u64, tested: &Path, reference: &Path) -> Run {
        Run {
            seed,
            random: Random::new(seed),
            tested: Side::new(tested),
            reference: Side::new(reference),
            done: 0,
            recent: VecDeque::new(),
        }
    }

    /// Does as many operations more, and compares what they answer and what is there after each.
    ///
    /// # Panics
    /// At the first difference; the message has the seed and the last operations.
    pub fn go(&mut self, operations: usize) {
        let privileged = rustix::process::geteuid().is_root();
        for _ in 0..operations {
            let paths: Vec<PathBuf> = match self.reference.stats() {
                Ok(stats) => stats.into_keys().collect(),
                Err(error) => self.fail(&format!("the reference can't be read: {error}")),
            };
            let operation = Operation::draw(&mut self.random, &paths, privileged);
            self.recent.push_back(format!("{}: {operation:?}", self.done));
            if self.recent.len() > SHOWN {
                self.recent.pop_front();
            }
            let expected = self.reference.apply(&operation);
            let answered = self.tested.apply(&operation);
            if answered != expected {
                self.fail(&format!("answered {answered:?}, the reference {expected:?}"));
            }
            self.done += 1;
            self.compare_names();
            self.compare_open();
            if self.done.is_multiple_of(WHOLE) {
                self.compare();
            }
        }
        self.compare();
    }

    /// Closes all files on both sides.
    pub fn close(&mut self) {
        self.tested.close();
        self.reference.close();
        self.recent.push_back("all files are closed".into());
    }

    /// Compares everything, all bytes too.
    ///
    /// # Panics
    /// If something differs.
    pub fn compare(&self) {
        self.compare_names();
        match (Tree::read(self.tested.root()), Tree::read(self.reference.root())) {
            (Ok(tested), Ok(reference)) => {
                let differences = tested.differences(&reference, 10);
                if !differences.is_empty() {
                    self.fail(&format!("<> the reference:\n  {}", differences.join("\n  ")));
                }
            }
            (tested, reference) => self.fail(&format!(
                "can't be read: {:?}, the reference: {:?}",
                tested.err(),
                reference.err()
            )),
        }
    }

    fn compare_names(&self) {
        let (tested, reference) = (self.tested.stats(), self.reference.stats());
        if tested == reference {
            return;
        }
        let (Ok(tested), Ok(reference)) = (&tested, &reference) else {
            self.fail(&format!("{:?}, the reference {:?}", tested.err(), reference.err()));
        };
        let mut differences = String::new();
        let more = reference.keys().filter(|path| !tested.contains_key(*path));
        for path in tested.keys().chain(more) {
            let (one, other) = (tested.get(path), reference.get(path));
            if one != other {
                let path = path.display();
                differences += &format!("{path}: {one:?}\n    the reference: {other:?}\n  ");
            }
        }
        self.fail(&differences);
    }

    fn compare_open(&self) {
        for slot in 0..SLOTS {
            let (tested, reference) = (self.tested.opened(slot), self.reference.opened(slot));
            if tested != reference {
                self.fail(&format!("slot {slot} is {tested:?}, the reference {reference:?}"));
            }
        }
    }

    fn fail(&self, difference: &str) -> ! {
        let recent = self.recent.iter().fold(String::new(), |text, line| text + "\n  " + line);
        panic!(
            "seed {} differs after {} operations, the last of which are{recent}\n  {difference}\n\
             Again: KITH_REFERENCE_SEEDS={} cargo test -p kith-tests --test reference_mount",
            self.seed, self.done, self.seed
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scratch::Scratch;

    #[test]
    fn a_filesystem_agrees_with_itself() {
        for seed in 0..3 {
            let (one, other) = (Scratch::new(), Scratch::new());
            let mut run = Run::new(seed, one.path(), other.path());
            run.go(400);
            run.close();
            run.compare();
        }
    }

    #[test]
    #[should_panic(expected = "differs after 300 operations")]
    fn a_lost_byte_is_found() {
        let (one, other) = (Scratch::new(), Scratch::new());
        let mut run = Run::new(1, one.path(), other.path());
        run.go(300);
        let tree = Tree::read(one.path()).unwrap();
        let is_file =
            |node: &crate::tree::Node| matches!(node.kind, crate::tree::Kind::File(1.., _));
        let (path, _) = tree.nodes.iter().find(|(_, node)| is_file(node)).unwrap();
        std::fs::write(one.path().join(path), "").unwrap();
        run.compare();
    }
}
