//! What the versions at a name have in common: which of them belong together, and what they were all
//! made from.

use kith_core::content::Content;
use kith_core::id::{Dot, InodeId};
use kith_core::register::Version;
use kith_core::vector::VersionVector;
use std::collections::{BTreeMap, BTreeSet};

/// What is known of some files: all their versions that are here, and what they took over.
#[derive(Default)]
pub(crate) struct Ancestry {
    versions: BTreeMap<Dot, (InodeId, Version)>,
    /// The version that a file's name had before, where it took it over.
    replaced: BTreeMap<InodeId, BTreeSet<Dot>>,
}

/// Versions that have an ancestor in common.
pub(crate) struct Related {
    /// The versions, the earliest first.
    pub(crate) versions: Vec<(InodeId, Version)>,
    /// Of their bytes, those that count: not those of a version that a device made of what others
    /// are made from as well.
    pub(crate) texts: Vec<Content>,
    /// The latest version that all of them were made from; `None` if there are several that
    /// differ, and nobody can say against which of them changes are to be told.
    pub(crate) base: Option<Version>,
    /// All versions that all of them were made from.
    pub(crate) common: BTreeMap<Dot, InodeId>,
}

impl Ancestry {
    /// Adds a version of a file, standing or in history.
    pub(crate) fn add(&mut self, inode: InodeId, version: Version) {
        self.versions.insert(version.dot, (inode, version));
    }

    /// Adds that a file took a name over from ones that had these versions then.
    pub(crate) fn add_replaced(&mut self, inode: InodeId, versions: impl IntoIterator<Item = Dot>) {
        self.replaced.entry(inode).or_default().extend(versions);
    }

    /// The version itself and all that it was made from, as far as they are here.
    fn ancestors(&self, version: Dot) -> BTreeSet<Dot> {
        let (mut found, mut open) = (BTreeSet::new(), vec![version]);
        while let Some(dot) = open.pop() {
            let Some((inode, version)) = self.versions.get(&dot) else { continue };
            if !found.insert(dot) {
                continue;
            }
            open.extend(&version.parents);
            let known = version.parents.iter().all(|parent| self.versions.contains_key(parent));
            if !known || version.parents.is_empty() {
                open.extend(self.replaced.get(inode).into_iter().flatten());
            }
            if !known {
                // Of what lies between, others had the only copy.
                let seen = &version.context;
                let covered =
                    self.versions.values().filter(|(of, it)| of == inode && it.is_within(seen));
                open.extend(covered.map(|(_, it)| it.dot));
            }
            let twins = self.versions.values().filter(|(_, it)| it.is_twin_of(version));
            open.extend(twins.map(|(_, it)| it.dot));
        }
        found
    }

    /// Sorts versions into those that have an ancestor in common. What stands alone is left out.
    pub(crate) fn related(&self, standing: &[Dot]) -> Vec<Related> {
        let mut sets: Vec<(Vec<Dot>, BTreeSet<Dot>)> = Vec::new();
        for dot in standing {
            let ancestors = self.ancestors(*dot);
            let (mut together, mut all) = (vec![*dot], ancestors);
            let mut apart = Vec::new();
            for (dots, known) in sets {
                if known.is_disjoint(&all) {
                    apart.push((dots, known));
                } else {
                    together.extend(dots);
                    all.extend(known);
                }
            }
            apart.push((together, all));
            sets = apart;
        }
        let several = sets.into_iter().map(|(dots, _)| dots).filter(|dots| dots.len() > 1);
        several.map(|dots| self.relate(&dots)).collect()
    }

    fn relate(&self, dots: &[Dot]) -> Related {
        let mut versions: Vec<(InodeId, Version)> =
            dots.iter().filter_map(|dot| self.versions.get(dot).cloned()).collect();
        versions.sort_by_key(|(_, version)| (version.stamp, version.dot));
        let own = essential(versions.iter().map(|(_, version)| version).collect());
        let mut texts: Vec<Content> = own.iter().map(|version| version.content.clone()).collect();
        texts.dedup();
        let mut sets = own.iter().map(|version| self.ancestors(version.dot));
        let mut common = sets.next().unwrap_or_default();
        for set in sets {
            common.retain(|dot| set.contains(dot));
        }
        let ancestors: BTreeMap<Dot, BTreeSet<Dot>> =
            common.iter().map(|dot| (*dot, self.ancestors(*dot))).collect();
        let is_latest = |dot: &&Dot| {
            let later = |other: &Dot| {
                other != *dot && ancestors[other].contains(*dot) && !ancestors[*dot].contains(other)
            };
            !common.iter().any(later)
        };
        let mut latest = common.iter().filter(is_latest).map(|dot| &self.versions[dot].1);
        let base = latest.next().cloned();
        let base = base.filter(|base| latest.all(|other| other.content == base.content));
        let common = common.iter().map(|dot| (*dot, self.versions[dot].0)).collect();
        Related { versions, texts, base, common }
    }
}

/// Versions without those that devices made of nothing but what went into the others.
fn essential(mut versions: Vec<&Version>) -> Vec<&Version> {
    let mut at = 0;
    while let Some(version) = versions.get(at) {
        let mut seen = VersionVector::new();
        for other in versions.iter().filter(|other| other.dot != version.dot) {
            seen.join(&other.context);
            seen.include(other.dot);
        }
        if version.is_merged() && version.is_within(&seen) {
            versions.remove(at);
        } else {
            at += 1;
        }
    }
    versions
}

#[cfg(test)]
mod tests {
    use super::*;
    use kith_core::clock::{Hlc, Stamp};
    use kith_core::id::WriterId;
    use kith_core::register::{Mark, UnixTime, Unread};

    const FILE: InodeId = InodeId(Dot { writer: WriterId(1), number: 1 });
    const OTHER: InodeId = InodeId(Dot { writer: WriterId(2), number: 1 });

    fn dot(writer: u64, number: u64) -> Dot {
        Dot { writer: WriterId(writer), number }
    }

    /// A version made from `parents`, which knew of `seen` too. Bytes are told apart by their size.
    fn version(own: Dot, parents: &[Dot], seen: &[Dot], mark: Mark) -> Version {
        Version {
            stamp: Stamp { hlc: Hlc(own.number), writer: own.writer },
            dot: own,
            context: parents.iter().chain(seen).copied().collect(),
            parents: parents.to_vec(),
            author: String::new(),
            mtime: UnixTime::default(),
            content: Content { size_bytes: own.writer.0 * 1000 + own.number, ..Content::empty() },
            mark,
            unread: Unread::new(),
        }
    }

    /// The base of the only versions that are related.
    fn base_of(ancestry: &Ancestry, standing: &[Dot]) -> Option<Dot> {
        let related = ancestry.related(standing);
        assert!(related.len() < 2, "all of them are related");
        related.into_iter().next()?.base.map(|base| base.dot)
    }

    fn saved(own: Dot, parents: &[Dot], seen: &[Dot]) -> Version {
        version(own, parents, seen, Mark::Closed)
    }

    #[test]
    fn the_base_is_the_latest_that_all_were_made_from() {
        let mut ancestry = Ancestry::default();
        ancestry.add(FILE, saved(dot(1, 1), &[], &[]));
        ancestry.add(FILE, saved(dot(1, 2), &[dot(1, 1)], &[]));
        ancestry.add(FILE, saved(dot(1, 3), &[dot(1, 2)], &[]));
        ancestry.add(FILE, saved(dot(2, 3), &[dot(1, 2)], &[]));
        assert_eq!(base_of(&ancestry, &[dot(1, 3), dot(2, 3)]), Some(dot(1, 2)));
        // What lies between is known to others only.
        ancestry.add(FILE, saved(dot(3, 9), &[dot(3, 8)], &[dot(1, 1)]));
        assert_eq!(base_of(&ancestry, &[dot(1, 3), dot(3, 9)]), Some(dot(1, 1)));
        // Nothing in common.
        ancestry.add(FILE, saved(dot(4, 1), &[], &[]));
        assert_eq!(base_of(&ancestry, &[dot(1, 3), dot(4, 1)]), None);
    }

    #[test]
    fn what_a_context_covers_by_number_alone_is_no_ancestor_of_what_is_known() {
        let mut ancestry = Ancestry::default();
        ancestry.add(FILE, saved(dot(1, 1), &[], &[]));
        ancestry.add(FILE, saved(dot(2, 2), &[dot(1, 1)], &[]));
        ancestry.add(FILE, saved(dot(1, 3), &[dot(2, 2)], &[]));
        // The second writer saves from what it had opened before its own version.
        ancestry.add(FILE, saved(dot(2, 4), &[dot(1, 1)], &[dot(2, 2)]));
        assert_eq!(base_of(&ancestry, &[dot(1, 3), dot(2, 4)]), Some(dot(1, 1)));
    }

    #[test]
    fn two_latest_ancestors_that_differ_are_no_base() {
        let mut ancestry = Ancestry::default();
        ancestry.add(FILE, saved(dot(1, 1), &[], &[]));
        ancestry.add(FILE, saved(dot(1, 2), &[dot(1, 1)], &[]));
        ancestry.add(FILE, saved(dot(2, 2), &[dot(1, 1)], &[]));
        let both = [dot(1, 2), dot(2, 2)];
        ancestry.add(FILE, saved(dot(1, 3), &both, &[]));
        ancestry.add(FILE, saved(dot(2, 3), &both, &[]));
        let related = ancestry.related(&[dot(1, 3), dot(2, 3)]);
        assert!(related.len() == 1 && related[0].base.is_none());
    }

    #[test]
    fn versions_that_went_on_from_two_results_of_one_merge_have_it_as_their_base() {
        let mut ancestry = Ancestry::default();
        let merged = |own: Dot| {
            let both = [dot(1, 2), dot(2, 2)];
            let content = Content { size_bytes: 77, ..Content::empty() };
            Version { content, ..version(own, &both, &[], Mark::Merged) }
        };
        for own in both_saved() {
            ancestry.add(FILE, own);
        }
        ancestry.add(FILE, merged(dot(1, 3)));
        ancestry.add(FILE, merged(dot(2, 3)));
        let seen = [dot(1, 2), dot(2, 2)];
        ancestry.add(FILE, saved(dot(1, 4), &[dot(1, 3)], &seen));
        ancestry.add(FILE, saved(dot(2, 4), &[dot(2, 3)], &seen));
        let related = ancestry.related(&[dot(1, 4), dot(2, 4)]);
        assert_eq!(related[0].base.as_ref().map(|base| base.content.size_bytes), Some(77));
        // And one that is left over beside what went on from the other counts for nothing.
        let related = ancestry.related(&[dot(1, 4), dot(2, 3)]);
        assert_eq!(related[0].texts.len(), 1);
        assert_eq!(related[0].texts[0].size_bytes, 1004);
    }

    fn both_saved() -> [Version; 3] {
        [
            saved(dot(1, 1), &[], &[]),
            saved(dot(1, 2), &[dot(1, 1)], &[]),
            saved(dot(2, 2), &[dot(1, 1)], &[]),
        ]
    }

    #[test]
    fn a_file_that_took_a_name_over_was_made_from_what_had_it() {
        let mut ancestry = Ancestry::default();
        ancestry.add(FILE, saved(dot(1, 1), &[], &[]));
        ancestry.add(FILE, saved(dot(1, 2), &[dot(1, 1)], &[]));
        ancestry.add(OTHER, saved(dot(2, 5), &[], &[]));
        ancestry.add(OTHER, saved(dot(2, 6), &[dot(2, 5)], &[]));
        assert_eq!(base_of(&ancestry, &[dot(1, 2), dot(2, 6)]), None);
        ancestry.add_replaced(OTHER, [dot(1, 1)]);
        assert_eq!(base_of(&ancestry, &[dot(1, 2), dot(2, 6)]), Some(dot(1, 1)));
    }
}
