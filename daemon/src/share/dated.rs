//! The times that persons set of directories, against the changes of names in them.

use kith_core::clock::Hlc;
use kith_core::id::InodeId;
use kith_core::index::IndexRead;
use kith_core::name::EntryName;
use kith_store::{StoreError, Transaction};
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

/// Whether a name in a directory changed since a person set the directory's time.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Since {
    /// It changed before.
    Before,
    /// Nothing says when: it went elsewhere.
    Unknown,
    /// It changed after that, or nobody set the time.
    After,
}

/// When persons set the times of directories, as far as that was looked up.
#[derive(Default)]
pub(super) struct Dated(BTreeMap<InodeId, Option<Hlc>>);

impl Dated {
    /// When a name changed. It may arrive later than the time that was set after it, as that of a
    /// large file does which was copied into the directory before.
    pub(super) fn since(
        &mut self,
        tx: &Transaction<'_>,
        directory: InodeId,
        name: &EntryName,
    ) -> Result<Since, StoreError> {
        let set_at = match self.0.entry(directory) {
            Entry::Occupied(known) => *known.get(),
            Entry::Vacant(vacant) => {
                let attributes = tx.inode(directory)?.map(|state| state.inode.attributes);
                let set = attributes.filter(|attributes| attributes.mtime.is_some());
                *vacant.insert(set.map(|attributes| attributes.stamp.hlc))
            }
        };
        let Some(set_at) = set_at else { return Ok(Since::After) };
        let entries = tx.entries_at(directory, name)?;
        Ok(match entries.iter().map(|state| state.entry.latest_hlc()).max() {
            Some(latest) if latest < set_at => Since::Before,
            Some(_) => Since::After,
            None => Since::Unknown,
        })
    }
}
