//! An index in memory that counts the rows that are read from it and written to it: what an
//! operation costs, without a clock.

use crate::memory_index::MemoryIndex;
use kith_core::clock::WallMs;
use kith_core::forget::{Hearsay, Page, PageId};
use kith_core::id::{DeviceId, EntryId, InodeId, Reached, Tag};
use kith_core::index::{
    CloneSigns, EntryState, FormerWriter, Index, IndexRead, InodeState, Named, Register,
    ReplicaState, Retired, Shown, Stranger,
};
use kith_core::name::EntryName;
use kith_core::register::Version;
use kith_core::vector::VersionVector;
use std::cell::Cell;
use std::convert::Infallible;

/// The index, and how many rows were read and written.
#[derive(Clone, Debug, Default)]
pub struct CountedIndex {
    /// The index.
    pub index: MemoryIndex,
    rows: Cell<u64>,
}

impl CountedIndex {
    /// Counts what is done with an index from now on.
    #[must_use]
    pub fn new(index: MemoryIndex) -> Self {
        CountedIndex { index, rows: Cell::new(0) }
    }

    /// How many rows were read and written. A look-up that finds nothing counts as one.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.rows.get()
    }

    fn add(&self, rows: usize) {
        self.rows.set(self.rows.get() + rows.max(1) as u64);
    }
}

macro_rules! one {
    ($($name:ident($($arg:ident: $type:ty),*) -> $out:ty;)*) => {$(
        fn $name(&self, $($arg: $type),*) -> Result<$out, Infallible> {
            self.add(1);
            self.index.$name($($arg),*)
        }
    )*};
}

macro_rules! many {
    ($($name:ident($($arg:ident: $type:ty),*) -> $out:ty;)*) => {$(
        fn $name(&self, $($arg: $type),*) -> Result<Vec<$out>, Infallible> {
            let Ok(rows) = self.index.$name($($arg),*);
            self.add(rows.len());
            Ok(rows)
        }
    )*};
}

macro_rules! writes {
    ($($name:ident($($arg:ident: $type:ty),*);)*) => {$(
        fn $name(&mut self, $($arg: $type),*) -> Result<(), Infallible> {
            self.add(1);
            self.index.$name($($arg),*)
        }
    )*};
}

impl IndexRead for CountedIndex {
    type Error = Infallible;

    /// Whoever writes knows how many there are.
    fn forgets(&self) -> Result<bool, Infallible> {
        self.index.forgets()
    }

    one! {
        state() -> ReplicaState;
        tag(number: u64) -> Option<Tag>;
        reached(device: DeviceId) -> Option<Reached>;
        inode(id: InodeId) -> Option<InodeState>;
        entry(id: EntryId) -> Option<EntryState>;
        any_present_in(shown_parent: InodeId) -> bool;
        representative(directory: InodeId) -> InodeId;
        shown(parent: InodeId, name: &EntryName) -> Option<Shown>;
        forgotten(id: PageId) -> Option<Page>;
        stated(device: DeviceId) -> Option<VersionVector>;
        named(device: DeviceId) -> Option<Named>;
        clone_signs() -> Option<CloneSigns>;
    }
    many! {
        former_writers() -> FormerWriter;
        strangers() -> Stranger;
        changes_after(after: u64, limit: usize) -> (u64, Register);
        entries_of(inode: InodeId) -> EntryState;
        entries_at(shown_parent: InodeId, name: &EntryName) -> EntryState;
        entries_in(shown_parent: InodeId) -> EntryState;
        removed_after(after: Option<EntryId>, limit: usize) -> EntryState;
        forgotten_after(after: u64, limit: usize) -> (u64, Page);
        hearsay() -> Hearsay;
        inodes_on(page: PageId) -> InodeId;
        entries_on(page: PageId) -> EntryId;
        names_present_in(shown_parent: InodeId) -> EntryName;
        waiting_for(file: InodeId) -> EntryState;
        members(representative: InodeId) -> InodeId;
        shown_from(parent: InodeId, base: &EntryName) -> Shown;
        shown_wanting(parent: InodeId, wanted: &EntryName) -> Shown;
        shown_of(key: InodeId) -> Shown;
        list(parent: InodeId, after: Option<&EntryName>, limit: usize) -> Shown;
    }
}

impl Index for CountedIndex {
    writes! {
        put_state(state: &ReplicaState);
        put_tag(last: u64, tag: Tag);
        clear_tags();
        put_reached(device: DeviceId, reached: Reached);
        put_inode(state: &InodeState);
        put_entry(state: &EntryState);
        forget_inode(id: InodeId);
        forget_entry(id: EntryId);
        put_forgotten(page: &Page, logged: u64);
        put_stated(device: DeviceId, knowledge: Option<&VersionVector>);
        put_hearsay(hearsay: &[Hearsay]);
        retire(inode: InodeId, version: &Version, why: Retired, at: WallMs);
        put_representative(directory: InodeId, representative: InodeId);
        put_shown(shown: &Shown);
        remove_shown(parent: InodeId, name: &EntryName);
        put_former_writer(former: FormerWriter);
        put_stranger(stranger: Stranger);
        put_named(device: DeviceId, named: Named);
        put_clone_signs(signs: CloneSigns);
        forget_strangers();
    }
}
