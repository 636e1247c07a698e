//! What is forgotten by hearsay: ids of which this device heard from others that knew more than it does.
//!
//! Whoever comes back with such an object, and hears from here that it is forgotten, has to see that it
//! was removed with all in view that *they* knew. That is said of the very ids that were heard so, and of
//! no others: of those that were forgotten elsewhere it may not be true.

use super::{IdKind, Page, PageId};
use crate::codec::WRITERS_MAX;
use crate::exchange::full_knowledge;
use crate::id::Dot;
use crate::index::{Index, IndexRead};
use crate::vector::VersionVector;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;

/// How many states of others' knowledge are told apart. Of what was heard under the oldest beyond that,
/// only this device's own knowledge is told.
pub const HEARSAY_MAX: usize = 16;

/// Ids that were heard to be forgotten under one state of knowledge, which this device hasn't reached.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Hearsay {
    /// What was known to whom they were heard from, or to somebody further back.
    pub known: VersionVector,
    /// The ids. Others of the same pages may be forgotten otherwise.
    pub pages: BTreeMap<PageId, Page>,
}

impl Hearsay {
    /// Whether an id is one of these.
    #[must_use]
    pub fn contains(&self, kind: IdKind, dot: Dot) -> bool {
        self.pages.get(&PageId::of(kind, dot)).is_some_and(|page| page.contains(dot))
    }

    fn add(&mut self, page: &Page) {
        if !page.is_empty() {
            self.pages.entry(page.id).or_insert_with(|| Page::new(page.id)).join(page);
        }
    }

    /// Takes out the ids of a page, and answers them.
    fn take(&mut self, page: &Page) -> Option<Page> {
        let mine = self.pages.remove(&page.id)?;
        let taken = mine.clone().within(page);
        let left = mine.without(page);
        if !left.is_empty() {
            self.pages.insert(left.id, left);
        }
        Some(taken)
    }
}

/// Takes note of pages that were heard under some knowledge, `fresh` being those of their ids that
/// weren't forgotten here before.
pub(super) fn note<I: Index>(
    index: &mut I,
    pages: &[Page],
    fresh: &[Page],
    known: &VersionVector,
) -> Result<(), I::Error> {
    let own = full_knowledge(&index.state()?);
    let before = index.hearsay()?;
    if before.is_empty() && own.covers_all(known) {
        return Ok(());
    }
    let mut all = before.clone();
    let mut new = Hearsay { known: known.clone(), pages: BTreeMap::new() };
    fresh.iter().for_each(|page| new.add(page));
    for older in all.iter_mut().filter(|older| known.covers_all(&older.known)) {
        for page in pages {
            older.take(page).iter().for_each(|taken| new.add(taken));
        }
    }
    // What two devices together say may be more than can be passed on.
    if known.len() <= WRITERS_MAX && !sabotaged!(HearsayLost) {
        all.push(new);
    }
    keep(index, &before, all, &own)
}

/// Drops the hearsay that this device no longer needs, because it knows as much itself.
///
/// # Errors
/// The storage's.
pub(crate) fn settle<I: Index>(index: &mut I) -> Result<(), I::Error> {
    let before = index.hearsay()?;
    if before.is_empty() {
        return Ok(());
    }
    let own = full_knowledge(&index.state()?);
    let all = before.clone();
    keep(index, &before, all, &own)
}

fn keep<I: Index>(
    index: &mut I,
    before: &[Hearsay],
    mut all: Vec<Hearsay>,
    own: &VersionVector,
) -> Result<(), I::Error> {
    all.retain(|hearsay| !hearsay.pages.is_empty() && !own.covers_all(&hearsay.known));
    let over = all.len().saturating_sub(HEARSAY_MAX);
    all.drain(..over);
    if all == before { Ok(()) } else { index.put_hearsay(&all) }
}

/// What is told of pages.
#[derive(Debug, Default)]
pub(crate) struct Telling {
    /// Those ids that are hearsay, under what was known of them.
    pub(crate) heard: Vec<(VersionVector, Vec<Page>)>,
    /// The rest.
    pub(crate) own: Vec<Page>,
}

impl Telling {
    /// How these pages are told.
    ///
    /// # Errors
    /// The storage's.
    pub(crate) fn of<I: IndexRead>(index: &I, pages: Vec<Page>) -> Result<Telling, I::Error> {
        let mut telling = Telling { heard: Vec::new(), own: pages };
        if telling.own.is_empty() {
            return Ok(telling);
        }
        for Hearsay { known, pages: ids } in index.hearsay()? {
            let mut parts = Vec::new();
            for page in &mut telling.own {
                if let Some(ids) = ids.get(&page.id) {
                    parts.push(page.clone().within(ids));
                    *page = page.clone().without(ids);
                }
            }
            parts.retain(|part| !part.is_empty());
            if !parts.is_empty() {
                telling.heard.push((known, parts));
            }
        }
        telling.own.retain(|page| !page.is_empty());
        Ok(telling)
    }
}
