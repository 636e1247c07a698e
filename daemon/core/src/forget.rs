//! Forgetting what was removed, once every device of the circle is known to know.
//!
//! Of a removed object only its ids stay, for ever: so that whoever comes back with it, after years
//! or after having left the circle, is told first that it is over. `docs/sync.md` says why
//! nothing comes back by that and nothing gets lost.
//!
//! [`sweep`] forgets here; [`hear`](hear::hear) takes in that another device has forgotten.

mod hear;
mod hearsay;
mod page;
mod renew;
mod sweep;

use crate::id::{Dot, EntryId, InodeId, WriterId};
use crate::index::{EntryState, Index, IndexRead, Register};
use crate::register::{Entry, Inode};
use crate::transaction::Transaction;
use crate::view::outlives;
use alloc::collections::BTreeMap;
use alloc::vec;
use alloc::vec::Vec;

pub use hearsay::{HEARSAY_MAX, Hearsay};
pub use page::{IdKind, PAGE_IDS, PAGE_MAX_BYTES, Page, PageId};
pub use sweep::{Sweep, Swept, sweep};

pub(crate) use hear::{hear, take_up};
pub(crate) use hearsay::{Telling, settle};

/// The id that an object goes on under, if it is changed where others have forgotten it: the same
/// on whichever device that happens, and the number of no change.
#[must_use]
pub const fn renewed(id: Dot) -> Dot {
    // A permutation (Steele et al., 2014), so that no two objects become one.
    let mut mixed = id.writer.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    Dot { writer: WriterId(mixed ^ (mixed >> 31)), number: id.number }
}

/// The inode that goes on for one that others have forgotten while it was in use here; the inode
/// itself, unless there is one. Whoever has it open goes on with that.
///
/// # Errors
/// The storage's.
pub fn successor<I: IndexRead>(index: &I, id: InodeId) -> Result<InodeId, I::Error> {
    if !index.is_forgotten_inode(id)? || index.entries_of(id)?.iter().any(|it| it.present) {
        return Ok(id);
    }
    let mut next = id;
    while index.is_forgotten_inode(next)? {
        next = InodeId(renewed(next.0));
    }
    Ok(if index.inode(next)?.is_some() { next } else { id })
}

/// Whether a register is one of which nobody is told any more.
///
/// # Errors
/// The storage's.
pub(crate) fn is_over<I: IndexRead>(index: &I, register: &Register) -> Result<bool, I::Error> {
    match register {
        Register::Inode(inode) => index.is_forgotten_inode(inode.id),
        Register::Entry(entry) => {
            Ok(index.is_forgotten_entry(entry.id)? || index.is_forgotten_inode(entry.inode)?)
        }
    }
}

/// The changes that made an inode's values what they are.
pub(crate) fn inode_dots(inode: &Inode) -> Vec<Dot> {
    let mut dots = vec![inode.attributes.dot];
    dots.extend(inode.versions.keys());
    dots.extend(inode.parted.dots.dots());
    // A version that went for one made of the same is told of by those who had it.
    dots.extend(inode.parted.versions.dots());
    dots
}

/// The changes that made an entry's values what they are.
pub(crate) fn entry_dots(entry: &Entry) -> Vec<Dot> {
    let mut dots = vec![entry.place.dot];
    dots.extend(entry.removal.iter().flat_map(|removal| removal.dots.dots()));
    dots
}

/// Ids to be added to the forgotten ones.
#[derive(Default)]
struct Over(BTreeMap<PageId, Page>);

impl Over {
    fn add(&mut self, kind: IdKind, dot: Dot) {
        let id = PageId::of(kind, dot);
        self.0.entry(id).or_insert_with(|| Page::new(id)).insert(dot);
    }

    fn add_object(&mut self, id: InodeId, entries: &[EntryState]) {
        self.add(IdKind::Inode, id.0);
        entries.iter().for_each(|state| self.add(IdKind::Entry, state.entry.id.0));
    }
}

impl<I: Index> Transaction<'_, I> {
    /// Remembers ids as forgotten, for others to hear of.
    fn remember(&mut self, over: Over) -> Result<(), I::Error> {
        for (id, page) in over.0 {
            let mut all = self.index.forgotten(id)?.unwrap_or_else(|| Page::new(id));
            if all.join(&page) {
                let logged = self.number();
                self.index.put_forgotten(&all, logged)?;
            }
        }
        Ok(())
    }

    /// The id that a forgotten inode goes on under: one that isn't forgotten itself.
    fn renewed_inode(&self, id: InodeId) -> Result<InodeId, I::Error> {
        let mut id = InodeId(renewed(id.0));
        while self.index.is_forgotten_inode(id)? {
            id = InodeId(renewed(id.0));
        }
        Ok(id)
    }

    /// The id that an entry goes on under, which is forgotten or of a forgotten inode.
    fn renewed_entry(&self, id: EntryId) -> Result<EntryId, I::Error> {
        let mut id = EntryId(renewed(id.0));
        while self.index.is_forgotten_entry(id)? {
            id = EntryId(renewed(id.0));
        }
        Ok(id)
    }

    /// The id for the inode and the entry of a copy that becomes a file of its own.
    pub(crate) fn copy_id(&self, version: Dot) -> Result<Dot, I::Error> {
        let mut id = version;
        while self.index.is_forgotten_inode(InodeId(id))?
            || self.index.is_forgotten_entry(EntryId(id))?
        {
            id = renewed(id);
        }
        Ok(id)
    }

    /// Drops forgotten entries of an inode that isn't forgotten itself: what they said counts no
    /// more, here as elsewhere. Those that are all it could be shown by stay; and unless the inode is
    /// `is_changing`, so do last names, with which the inode itself may be about to be forgotten.
    pub(crate) fn purge(&mut self, inode: InodeId, is_changing: bool) -> Result<(), I::Error> {
        if !self.index.forgets()? || self.index.is_forgotten_inode(inode)? {
            return Ok(());
        }
        let (mut over, mut is_kept) = (Vec::new(), false);
        let (mut in_want, mut has_other) = (Vec::new(), false);
        for state in self.entries_of(inode)? {
            if self.index.is_forgotten_entry(state.entry.id)? {
                let was_last =
                    state.entry.removal.as_ref().is_some_and(|removal| removal.last_link);
                let name = (state.entry.id, was_last);
                over.extend(Some(name).filter(|_| !state.present));
                if state.present && !outlives(&state) && !self.is_directory(inode)? {
                    in_want.push((name, state));
                }
            } else {
                is_kept |= state.present;
                has_other = true;
            }
        }
        // What is shown by a removed name for want of another one is shown by one that isn't forgotten.
        for (name, state) in in_want.into_iter().filter(|_| has_other) {
            self.mark(&state)?;
            // What it was in may have been kept for it alone.
            self.touched.extend([state.shown_parent, state.entry.place.parent]);
            over.push(name);
        }
        over.retain(|(_, was_last)| is_kept || is_changing || !was_last);
        for (id, _) in over {
            self.unstage(id);
            self.index.forget_entry(id)?;
            self.touched.insert(inode);
        }
        Ok(())
    }
}
