//! Which ids are forgotten: exact sets, kept and passed on in pages of 4,096 neighbouring numbers.
//!
//! A page only ever grows, and two of them join by union, so that order, repetition and detours do
//! not matter. Ids are never summed up as ranges: between two that are forgotten there may be one
//! of a file that its device has told nobody of yet.

use crate::codec::DecodeError;
use crate::id::{Dot, WriterId};
use alloc::boxed::Box;
use alloc::vec::Vec;

/// How many numbers a page spans.
pub const PAGE_IDS: u64 = 4096;
const WORDS: usize = 64;
/// The longest encoding of a page's ids, in bytes: a bit for each.
pub const PAGE_MAX_BYTES: usize = WORDS * 8;
/// Up to so many ids are listed, at two bytes each.
const LISTED_MAX: usize = 128;

/// Which kind of id: those of inodes and of entries are apart.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub enum IdKind {
    /// Inodes.
    Inode,
    /// Entries.
    Entry,
}

/// A page's place among all.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub struct PageId {
    /// The kind of its ids.
    pub kind: IdKind,
    /// Who made them.
    pub writer: WriterId,
    /// Its first number, divided by [`PAGE_IDS`].
    pub number: u64,
}

impl PageId {
    /// The page that an id belongs to.
    #[must_use]
    pub const fn of(kind: IdKind, dot: Dot) -> PageId {
        PageId { kind, writer: dot.writer, number: dot.number / PAGE_IDS }
    }

    /// The first number that the page spans.
    #[must_use]
    pub const fn first(self) -> u64 {
        self.number.saturating_mul(PAGE_IDS)
    }

    /// The last number that the page spans.
    #[must_use]
    pub const fn last(self) -> u64 {
        self.first().saturating_add(PAGE_IDS - 1)
    }
}

/// Forgotten ids that are close to one another.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Page {
    /// Where it belongs.
    pub id: PageId,
    bits: Box<[u64; WORDS]>,
}

impl Page {
    /// A page without ids.
    #[must_use]
    pub fn new(id: PageId) -> Page {
        Page { id, bits: Box::new([0; WORDS]) }
    }

    fn bit(&self, dot: Dot) -> Option<(usize, u64)> {
        let offset = dot.number.checked_sub(self.id.first()).filter(|offset| *offset < PAGE_IDS)?;
        let word = usize::try_from(offset / 64).expect("a page has few words");
        Some((word, 1 << (offset % 64))).filter(|_| dot.writer == self.id.writer)
    }

    /// Whether the id is forgotten.
    #[must_use]
    pub fn contains(&self, dot: Dot) -> bool {
        self.bit(dot).is_some_and(|(word, bit)| self.bits[word] & bit != 0)
    }

    /// Adds an id that belongs here, and says whether it wasn't in it.
    pub fn insert(&mut self, dot: Dot) -> bool {
        let Some((word, bit)) = self.bit(dot) else { return false };
        let is_new = self.bits[word] & bit == 0;
        self.bits[word] |= bit;
        is_new
    }

    /// Takes an id out, of a page that is not in any index yet.
    pub fn remove(&mut self, dot: Dot) {
        if let Some((word, bit)) = self.bit(dot) {
            self.bits[word] &= !bit;
        }
    }

    /// Adds all ids of another state of the page, and says whether any of them wasn't in it.
    pub fn join(&mut self, other: &Page) -> bool {
        debug_assert_eq!(self.id, other.id, "only states of one page join");
        let mut grew = false;
        for (mine, theirs) in self.bits.iter_mut().zip(other.bits.iter()) {
            grew |= theirs & !*mine != 0;
            *mine |= theirs;
        }
        grew
    }

    /// The ids that are in another state of the page too.
    #[must_use]
    pub fn within(mut self, other: &Page) -> Page {
        debug_assert_eq!(self.id, other.id, "only states of one page are compared");
        self.bits.iter_mut().zip(other.bits.iter()).for_each(|(mine, theirs)| *mine &= theirs);
        self
    }

    /// The ids that are not in another state of the page.
    #[must_use]
    pub fn without(mut self, other: &Page) -> Page {
        debug_assert_eq!(self.id, other.id, "only states of one page are compared");
        self.bits.iter_mut().zip(other.bits.iter()).for_each(|(mine, theirs)| *mine &= !theirs);
        self
    }

    /// The ids, in order.
    pub fn dots(&self) -> impl Iterator<Item = Dot> + '_ {
        let at = self.id;
        let words = self.bits.iter().zip(0u64..).filter(|(word, _)| **word != 0);
        let bits = words.flat_map(|(word, nth)| {
            let set = (0..64).filter(move |bit| word >> bit & 1 == 1);
            set.map(move |bit| nth * 64 + bit)
        });
        bits.map(move |bit| Dot { writer: at.writer, number: at.first().saturating_add(bit) })
    }

    /// How many ids it has.
    #[must_use]
    pub fn len(&self) -> usize {
        self.bits.iter().map(|word| word.count_ones() as usize).sum()
    }

    /// Whether it has none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bits.iter().all(|word| *word == 0)
    }

    /// The ids, encoded: up to 128 as their offsets in ascending order, two bytes each; more as a
    /// bit each. All little-endian.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        if self.len() > LISTED_MAX {
            return self.bits.iter().flat_map(|word| word.to_le_bytes()).collect();
        }
        let offsets = self.dots().map(|dot| dot.number - self.id.first());
        let offset = |offset| u16::try_from(offset).expect("a page spans 4,096 numbers");
        offsets.flat_map(|number| offset(number).to_le_bytes()).collect()
    }

    /// The page whose ids are encoded so.
    ///
    /// # Errors
    /// A [`DecodeError`] if the bytes are anything else.
    pub fn from_bytes(id: PageId, bytes: &[u8]) -> Result<Page, DecodeError> {
        const WHAT: &str = "a page of ids";
        let mut page = Page::new(id);
        if id.number > u64::MAX / PAGE_IDS {
            return Err(DecodeError::Bounds(WHAT));
        }
        if bytes.len() == PAGE_MAX_BYTES {
            for (word, bytes) in page.bits.iter_mut().zip(bytes.as_chunks::<8>().0) {
                *word = u64::from_le_bytes(*bytes);
            }
            let is_long = page.len() > LISTED_MAX;
            return if is_long { Ok(page) } else { Err(DecodeError::Bounds(WHAT)) };
        }
        let (offsets, []) = bytes.as_chunks::<2>() else { return Err(DecodeError::Bounds(WHAT)) };
        if offsets.len() > LISTED_MAX {
            return Err(DecodeError::Bounds(WHAT));
        }
        let mut next = 0;
        for offset in offsets {
            let offset = u64::from(u16::from_le_bytes(*offset));
            if offset < next || offset >= PAGE_IDS {
                return Err(DecodeError::Order(WHAT));
            }
            next = offset + 1;
            page.insert(Dot { writer: id.writer, number: id.first() + offset });
        }
        Ok(page)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dot(number: u64) -> Dot {
        Dot { writer: WriterId(9), number }
    }

    fn page(numbers: impl Iterator<Item = u64>) -> Page {
        let mut page = Page::new(PageId::of(IdKind::Entry, dot(2 * PAGE_IDS)));
        numbers.for_each(|number| assert!(page.insert(dot(2 * PAGE_IDS + number))));
        page
    }

    #[test]
    fn what_was_encoded_is_decoded() {
        for page in [
            page(0..0),
            page(4095..4096),
            page((0..128).map(|n| 7 * n)),
            page((0..129).map(|n| 7 * n)),
            page(0..4096),
        ] {
            assert_eq!(Page::from_bytes(page.id, &page.to_bytes()), Ok(page));
        }
    }

    #[test]
    fn nothing_else_is_decoded() {
        let id = page(0..0).id;
        let short = [0; PAGE_MAX_BYTES];
        for bytes in [&[1][..], &[1, 0, 1, 0], &[0, 16], &[2, 0, 1, 0], &short, &[0; 258]] {
            assert!(Page::from_bytes(id, bytes).is_err(), "{bytes:?}");
        }
    }

    #[test]
    fn an_id_of_another_page_is_not_in_it() {
        let mut page = page(0..4096);
        assert!(!page.contains(dot(2 * PAGE_IDS - 1)));
        assert!(!page.contains(dot(3 * PAGE_IDS)));
        assert!(!page.insert(dot(3 * PAGE_IDS)));
        assert!(!page.contains(Dot { writer: WriterId(8), number: 2 * PAGE_IDS }));
        assert_eq!(page.dots().count(), 4096);
    }

    #[test]
    fn a_join_has_what_either_has() {
        let (mut one, other) = (page([1, 3].into_iter()), page([3, 4].into_iter()));
        assert!(one.join(&other));
        assert!(!one.join(&other));
        let offsets: Vec<u64> = one.dots().map(|dot| dot.number - one.id.first()).collect();
        assert_eq!(offsets, [1, 3, 4]);
        let three = page(core::iter::once(3));
        assert_eq!(one.clone().within(&page([2, 3].into_iter())), three);
        assert_eq!(one.without(&page([1, 2, 4].into_iter())), three);
    }
}
