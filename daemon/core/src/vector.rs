//! Version vectors: which changes of which writer are covered.

use crate::id::{Dot, WriterId};
use alloc::collections::BTreeMap;

/// For each writer, the number up to which all its changes are covered.
///
/// The vectors of one share form a lattice under [`join`](VersionVector::join)
/// (Parker et al., 1983).
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct VersionVector(BTreeMap<WriterId, u64>);

impl VersionVector {
    /// The vector that covers nothing.
    #[must_use]
    pub const fn new() -> Self {
        VersionVector(BTreeMap::new())
    }

    /// Whether the change is covered.
    #[must_use]
    pub fn covers(&self, dot: Dot) -> bool {
        self.number(dot.writer) >= dot.number
    }

    /// The number up to which the writer's changes are covered; 0 if none are.
    #[must_use]
    pub fn number(&self, writer: WriterId) -> u64 {
        self.0.get(&writer).copied().unwrap_or(0)
    }

    /// Covers the change too, and with it all earlier ones of its writer.
    pub fn include(&mut self, dot: Dot) {
        if dot.number > self.number(dot.writer) {
            self.0.insert(dot.writer, dot.number);
        }
    }

    /// Covers everything that `other` covers.
    pub fn join(&mut self, other: &VersionVector) {
        for dot in other.dots() {
            self.include(dot);
        }
    }

    /// What is covered here and not by `other`. Joined to that it gives all that either covers.
    #[must_use]
    pub fn beyond(&self, other: &VersionVector) -> VersionVector {
        self.dots().filter(|dot| !other.covers(*dot)).collect()
    }

    /// Whether everything that `other` covers is covered.
    #[must_use]
    pub fn covers_all(&self, other: &VersionVector) -> bool {
        other.dots().all(|dot| self.covers(dot))
    }

    /// The last covered change of each writer, in the writers' order.
    pub fn dots(&self) -> impl Iterator<Item = Dot> + '_ {
        self.0.iter().map(|(writer, number)| Dot { writer: *writer, number: *number })
    }

    /// How many writers have changes here.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether nothing is covered.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromIterator<Dot> for VersionVector {
    fn from_iter<I: IntoIterator<Item = Dot>>(dots: I) -> Self {
        let mut vector = VersionVector::new();
        dots.into_iter().for_each(|dot| vector.include(dot));
        vector
    }
}
