//! All histories of two devices over a tiny tree, up to some number of operations each: every
//! interleaving in time, with every way in which what one did can reach the other in between.
//!
//! It runs the real operations, merge and view. After every step the view that was kept up must be
//! the one that the registers make; and wherever a history could end, both devices finish what is
//! open, hear of everything, and must then hold the same registers, show the same tree, and show
//! every version that was saved and that nobody who had seen it replaced or removed.
//!
//! A message is what a device held at some moment, in the order of its log, and arrives at any
//! later one, also after others have crossed it; newer ones never arrive before older ones, but may
//! replace them. Where a plan cuts them, each may arrive up to any register only.
//!
//! Histories that come to the same joint state are followed once: the same up to the names of dots
//! and the distances of stamps ([`canon`]).

mod canon;
mod deed;
mod explore;

pub use deed::Sort;
pub use explore::{Plan, Report, Violation, explore};

/// What there is to begin with, in the plans: a file and a directory, two directories, a file with
/// two names, two files, and a file in a directory.
pub const BEGINNINGS: [&str; 5] = [
    "write a, mkdir d",
    "mkdir d, mkdir b",
    "write a, ln a b",
    "write a, write b",
    "mkdir d, write d/a",
];

/// Every kind of operation, from one beginning.
#[must_use]
pub fn every_kind(given: &'static str, most: [usize; 2], cuts: bool) -> Plan {
    let sorts = Sort::ALL.to_vec();
    Plan { given, sorts, most, crossing: true, cuts, limit: u64::MAX }
}

/// Each pair of kinds of operations, and each kind by itself.
#[must_use]
pub fn pairs() -> Vec<Vec<Sort>> {
    let mut pairs = Vec::new();
    for (at, one) in Sort::ALL.into_iter().enumerate() {
        pairs.push(vec![one]);
        pairs.extend(Sort::ALL[at + 1..].iter().map(|other| vec![one, *other]));
    }
    pairs
}
