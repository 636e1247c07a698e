//! One version made of several that stand beside one another, by a device and without a person.

use super::OperationError;
use crate::clock::{Hlc, Stamp};
use crate::content::Content;
use crate::id::{Dot, InodeId};
use crate::index::{EntryState, Index, InodeState, Node};
use crate::register::{Kind, Mark, UnixTime, Unread, Version};
use crate::transaction::Transaction;
use crate::vector::VersionVector;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::rc::Rc;
use alloc::vec::Vec;

impl<I: Index> Transaction<'_, I> {
    pub(super) fn merge_versions(
        &mut self,
        inputs: &[(InodeId, Dot)],
        content: Content,
        mtime: UnixTime,
    ) -> Result<Node, OperationError<I::Error>> {
        let files = self.exactly(inputs)?;
        let versions = || files.iter().flat_map(|file| file.inode.versions.values());
        if versions().count() < 2 {
            return Err(OperationError::Outdated);
        }
        // Just after the latest that went into it, so that whatever a person makes of the same
        // versions or of this one is later, whoever made which first.
        let latest = versions().map(|version| version.stamp.hlc).max().unwrap_or_default();
        let parents: Vec<Dot> = versions().map(|version| version.dot).collect();
        let changed = |file: &&Rc<InodeState>| {
            file.inode.latest().map(|version| (version.stamp, version.dot, file.inode.id))
        };
        let keeper = files.iter().max_by_key(changed).ok_or(OperationError::Outdated)?;
        let keeper = keeper.inode.id;
        if files.len() > 1 {
            for entry in self.one_place(&files)? {
                if entry.entry.inode != keeper {
                    self.remove_entry(entry)?;
                }
            }
            self.refresh()?;
        } else if !self.entries_of(keeper)?.iter().any(|entry| entry.present) {
            return Err(OperationError::NotFound);
        }
        // Its names stay as they are, repaired or not: a place written now would outlive the removal by
        // somebody who has seen all that is merged.
        let mut now = (*self.inode(keeper)?.ok_or(OperationError::NotFound)?).clone();
        // Of other files' versions it must say nothing: numbers of this file's would be covered unseen.
        let mut context = VersionVector::new();
        for version in now.inode.versions.values() {
            context.join(&version.context);
            context.include(version.dot);
        }
        let version = Version {
            stamp: Stamp { hlc: Hlc(latest.0.saturating_add(1)), writer: self.state.writer },
            dot: self.dot(),
            context,
            parents,
            author: self.state.author.clone(),
            mtime,
            content,
            mark: if files.len() > 1 { Mark::Gathered } else { Mark::Merged },
            unread: Unread::new(),
        };
        self.catch_up(version.stamp.hlc);
        now.inode.versions.insert(version.dot, version);
        let covered = now.inode.drop_covered();
        if now.inode.versions.len() != 1 {
            return Err(OperationError::Outdated);
        }
        self.retire(keeper, &covered)?;
        self.write_inode(now)?;
        Ok(Node::Inode(keeper))
    }

    /// The files of which the inputs are all versions that stand.
    fn exactly(
        &mut self,
        inputs: &[(InodeId, Dot)],
    ) -> Result<Vec<Rc<InodeState>>, OperationError<I::Error>> {
        let mut files: BTreeMap<InodeId, BTreeSet<Dot>> = BTreeMap::new();
        for (inode, version) in inputs {
            files.entry(*inode).or_default().insert(*version);
        }
        let mut states = Vec::new();
        for (id, versions) in files {
            let state = self.inode(id)?.ok_or(OperationError::NotFound)?;
            if state.inode.kind != Kind::File {
                return Err(OperationError::NotPermitted);
            }
            if !state.inode.versions.keys().eq(versions.iter()) {
                return Err(OperationError::Outdated);
            }
            states.push(state);
        }
        Ok(states)
    }

    /// The entries of files that have one name each, all at the same place.
    fn one_place(
        &mut self,
        files: &[Rc<InodeState>],
    ) -> Result<Vec<EntryState>, OperationError<I::Error>> {
        let mut places = BTreeSet::new();
        let mut found = Vec::new();
        for file in files {
            let mut entries = self.entries_of(file.inode.id)?;
            entries.retain(|entry| entry.present);
            let Some(entry) = entries.pop().filter(|_| entries.is_empty()) else {
                return Err(OperationError::Outdated);
            };
            let parent = self.representative(entry.shown_parent)?;
            places.insert((parent, entry.entry.place.name.clone()));
            found.push(entry);
        }
        if places.len() == 1 { Ok(found) } else { Err(OperationError::Outdated) }
    }
}
