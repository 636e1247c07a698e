//! How two states of a register become one: a join, so that order, repetition and detours do not
//! matter.
//!
//! Of two values the later stamp wins; values of equal stamps are ordered by the rest of them.
//! A version leaves its file when another's context covers it, and two removals join. What a
//! newer version of Kith added stays with the value that it came with.
//!
//! The ids, kinds and targets of registers never change. Two states that disagree about them come
//! from a device that is broken or lies: the smaller is taken everywhere, so that even then
//! all devices agree.

use crate::register::{Entry, Inode, Place, Removal, Version};
use alloc::collections::BTreeMap;
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
    /// Whether it was made from `other`, directly or not.
    ///
    /// Whoever makes a version from others stamps it later than all of them; a context that
    /// claims otherwise doesn't count, so that no two versions can cover one another.
    #[must_use]
    pub fn covers(&self, other: &Version) -> bool {
        self.dot != other.dot
            && (self.context.covers(other.dot) || sabotaged!(LatestVersionWins))
            && (self.stamp, self.dot) > (other.stamp, other.dot)
    }
}

impl Inode {
    /// Takes in another state of the same inode.
    pub fn merge(&mut self, other: Inode) -> Merged {
        debug_assert_eq!(self.id, other.id, "only states of one register merge");
        let before: BTreeMap<_, _> = core::mem::take(&mut self.versions);
        let mut changed = settled(&mut self.kind, other.kind);
        changed |= later(&mut self.attributes, other.attributes);
        changed |= later(&mut self.unread, other.unread);
        self.versions.clone_from(&before);
        for (dot, version) in other.versions {
            match self.versions.get_mut(&dot) {
                Some(mine) => drop(later(mine, version)),
                None => drop(self.versions.insert(dot, version)),
            }
        }
        let superseded = self.drop_covered();
        changed |= self.versions != before;
        let stood = |version: &Version| before.contains_key(&version.dot);
        Merged { changed, superseded: superseded.into_iter().filter(stood).collect() }
    }

    /// Takes out the versions that others cover, and answers them in the order of their dots.
    pub fn drop_covered(&mut self) -> Vec<Version> {
        if self.versions.len() < 2 || sabotaged!(CoveredStays) {
            return Vec::new();
        }
        let is_covered = |version: &Version| self.versions.values().any(|by| by.covers(version));
        let covered = self.versions.values().filter(|version| is_covered(version));
        let covered: Vec<Version> = covered.cloned().collect();
        for version in &covered {
            self.versions.remove(&version.dot);
        }
        covered
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
        self.stamp = self.stamp.max(other.stamp);
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
