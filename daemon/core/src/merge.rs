//! How two states of a register become one: a join, so that order, repetition and detours do not
//! matter.
//!
//! Of two values the later stamp wins; values of equal stamps are ordered by the rest of them.
//! A version leaves its file when something that was ever known of the file covers it, and two
//! removals join. What a
//! newer version of Kith added stays with the value that it came with.
//!
//! The ids, kinds and targets of registers never change. Two states that disagree about them come
//! from a device that is broken or lies: the smaller is taken everywhere, so that even then
//! all devices agree.

use crate::clock::Hlc;
use crate::id::{Dot, WriterId};
use crate::register::{Entry, Inode, Mark, Parted, Place, Removal, Version};
use crate::vector::VersionVector;
use alloc::vec::Vec;

/// What a merge did to a register.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Merged {
    /// Whether the register is another than before.
    pub changed: bool,
    /// The versions that were the state of the file until now and are covered by another.
    pub superseded: Vec<Version>,
}

/// The larger of two values, which is the later one.
fn later<T: Ord>(mine: &mut T, theirs: T) -> bool {
    let wins = theirs > *mine || (sabotaged!(LastToArriveWins) && theirs != *mine);
    if wins {
        *mine = theirs;
    }
    wins
}

/// The smaller of two values that should be the same.
fn settled<T: Ord>(mine: &mut T, theirs: T) -> bool {
    let wins = theirs < *mine;
    if wins {
        *mine = theirs;
    }
    wins
}

impl Version {
    /// Whether whoever knows of the versions in `seen` knows of all that went into this one: of
    /// itself, or, if devices made it of others alone, of these.
    #[must_use]
    pub fn is_within(&self, seen: &VersionVector) -> bool {
        let is_made_of_seen = seen.covers_all(&self.context) || sabotaged!(MergedGoesUnseen);
        seen.covers(self.dot) || (self.is_merged() && is_made_of_seen)
    }

    /// Whether a device made it of others of the same file, with nothing of a person's own in it.
    #[must_use]
    pub fn is_merged(&self) -> bool {
        self.mark == Mark::Merged
    }

    /// Whether two devices made the same of the same: it is one version in all but its name.
    #[must_use]
    pub fn is_twin_of(&self, other: &Version) -> bool {
        matches!(self.mark, Mark::Merged | Mark::Gathered)
            && (self.mark, &self.parents, &self.content)
                == (other.mark, &other.parents, &other.content)
    }

    /// A total order in which a version comes after all that it may take the place of. At equal
    /// times a merged one comes before those that people made, and after merged ones of less.
    fn order(&self) -> (Hlc, bool, u128, WriterId, Dot) {
        let numbers = || self.context.dots().map(|dot| u128::from(dot.number));
        let weight = if self.is_merged() { numbers().sum() } else { 0 };
        (self.stamp.hlc, !self.is_merged(), weight, self.stamp.writer, self.dot)
    }
}

impl Parted {
    fn join(&mut self, other: &Parted) {
        self.dots.join(&other.dots);
        self.versions.join(&other.versions);
    }
}

impl Inode {
    /// Takes in another state of the same inode.
    pub fn merge(&mut self, other: Inode) -> Merged {
        debug_assert_eq!(self.id, other.id, "only states of one register merge");
        let before = (self.versions.clone(), self.parted.clone());
        let mut changed = settled(&mut self.kind, other.kind);
        changed |= later(&mut self.attributes, other.attributes);
        changed |= later(&mut self.unread, other.unread);
        // Also of a version that gives way to another under its name.
        let mut covered = self.covered_versions();
        self.parted.join(&other.parted);
        for (dot, version) in other.versions {
            covered.join(&version.context);
            match self.versions.get_mut(&dot) {
                Some(mine) => drop(later(mine, version)),
                None => drop(self.versions.insert(dot, version)),
            }
        }
        self.parted.versions.join(&covered);
        let superseded = self.drop_covered();
        changed |= (&self.versions, &self.parted) != (&before.0, &before.1);
        let stood = |version: &Version| before.0.contains_key(&version.dot);
        Merged { changed, superseded: superseded.into_iter().filter(stood).collect() }
    }

    /// Takes out the versions that are covered, and answers them in the order of their dots.
    ///
    /// The latest stays whatever is said of it, so that a file never is without one. No honest
    /// device covers it: what is made from others is stamped later than all of them.
    pub fn drop_covered(&mut self) -> Vec<Version> {
        if self.versions.len() < 2 && self.parted.versions.is_empty() {
            return Vec::new();
        }
        let known = self.covered_versions();
        let latest = self.latest().map(|version| version.dot);
        let is_covered = |version: &Version| {
            let covered = known.covers(version.dot) || sabotaged!(LatestVersionWins);
            covered && Some(version.dot) != latest && !sabotaged!(CoveredStays)
        };
        let covered = self.versions.values().filter(|version| is_covered(version));
        let covered: Vec<Version> = covered.cloned().collect();
        for version in &covered {
            self.versions.remove(&version.dot);
        }
        let (mut covered, mut known) = (covered, known);
        for twin in self.redundant() {
            known.include(twin);
            covered.extend(self.versions.remove(&twin));
        }
        covered.sort_by_key(|version| version.dot);
        // What the contexts of those that stand say is said once.
        self.parted.versions = VersionVector::new();
        self.parted.versions = known.beyond(&self.covered_versions());
        covered
    }
}

impl Inode {
    /// The merged versions of which all that went into them is in later ones too: several devices
    /// may merge the same at once, and somebody may have gone on from one of the results.
    fn redundant(&self) -> Vec<Dot> {
        if self.versions.len() < 2 || !self.versions.values().any(Version::is_merged) {
            return Vec::new();
        }
        let latest = self.latest().map(|version| version.dot);
        let mut versions: Vec<&Version> = self.versions.values().collect();
        versions.sort_by_key(|version| core::cmp::Reverse(version.order()));
        let (mut seen, mut redundant) = (VersionVector::new(), Vec::new());
        for version in versions {
            if Some(version.dot) != latest && version.is_merged() && version.is_within(&seen) {
                redundant.push(version.dot);
            }
            seen.join(&version.context);
            seen.include(version.dot);
        }
        redundant
    }
}

impl Removal {
    /// Takes in another removal of the same entry: what either saw was seen.
    pub fn merge(&mut self, other: Removal) -> bool {
        let before = self.clone();
        if sabotaged!(RemovalsReplace) {
            *self = other;
            return *self != before;
        }
        let (stamp, author) = (other.stamp, other.author);
        if (stamp, &author) > (self.stamp, &self.author) {
            (self.stamp, self.author) = (stamp, author);
        }
        self.dots.join(&other.dots);
        self.saw_place = self.saw_place.max(other.saw_place);
        self.saw_content.join(&other.saw_content);
        self.last_link |= other.last_link;
        later(&mut self.unread, other.unread);
        *self != before
    }

    /// Takes `other` into what may be no removal yet.
    pub fn merge_into(removal: &mut Option<Removal>, other: Option<Removal>) -> bool {
        match (removal.as_mut(), other) {
            (_, None) => false,
            (Some(mine), Some(other)) => mine.merge(other),
            (None, other) => {
                *removal = other;
                true
            }
        }
    }
}

impl Entry {
    /// Takes in another state of the same entry, and says whether that changed it.
    pub fn merge(&mut self, other: Entry) -> bool {
        debug_assert_eq!(self.id, other.id, "only states of one register merge");
        let mut changed = settled(&mut self.inode, other.inode);
        changed |= later::<Place>(&mut self.place, other.place);
        changed |= Removal::merge_into(&mut self.removal, other.removal);
        changed | later(&mut self.unread, other.unread)
    }
}
