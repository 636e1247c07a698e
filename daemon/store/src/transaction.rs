//! A transaction that changes the index.

use crate::StoreError;
use crate::guard::GuardNews;
use crate::handle::Handle;
use crate::index::replica::{TAGS_MAX, Totals};
use kith_core::alarm::Loss;
use kith_core::clock::{Hlc, WallMs};
use kith_core::forget::{Hearsay, Page};
use kith_core::id::{DeviceId, Dot, EntryId, InodeId, Reached, Tag, WriterId};
use kith_core::index::{
    CloneSigns, EntryState, FormerWriter, Index, InodeState, Named, ReplicaState, Retired, Shown,
    Stranger,
};
use kith_core::name::EntryName;
use kith_core::register::{UnixTime, Version};
use kith_core::vector::VersionVector;
use rusqlite::Connection;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{SystemTime, UNIX_EPOCH};

/// What the one writer knows without reading, as of the last commit.
#[derive(Clone, Default)]
pub(crate) struct Memory {
    /// None until the index is founded.
    state: Option<ReplicaState>,
    totals: Totals,
    tags: Tags,
}

/// How many tags there are, and the last number that has one.
#[derive(Clone, Copy, Default)]
struct Tags {
    count: u64,
    last: u64,
}

impl Memory {
    pub(crate) fn load(handle: &Handle) -> Result<Self, StoreError> {
        handle.count_rare()?;
        let (count, last) = handle.count_tags()?;
        let (state, totals) = (handle.read_state()?, handle.read_totals()?);
        Ok(Memory { state, totals, tags: Tags { count, last } })
    }

    /// The replica's state, if the index has been founded.
    pub(crate) fn state(&self) -> Option<&ReplicaState> {
        self.state.as_ref()
    }
}

/// A transaction of [`Store::write`](crate::Store::write). It reads what it wrote.
pub struct Transaction<'a> {
    handle: &'a Handle,
    committed: &'a mut Memory,
    state: Option<ReplicaState>,
    totals: Totals,
    tags: Tags,
    /// Inodes whose versions are to be reviewed, and whether they may have any.
    touched: BTreeMap<InodeId, bool>,
    completed: BTreeSet<(InodeId, Dot)>,
    /// What other devices took away.
    pub(crate) losses: Vec<Loss>,
    /// What a person said was meant.
    pub(crate) meant: Vec<(WriterId, Hlc)>,
    now: UnixTime,
    open: bool,
}

impl<'a> Transaction<'a> {
    pub(crate) fn begin(handle: &'a Handle, committed: &'a mut Memory) -> Result<Self, StoreError> {
        handle.begin()?;
        Ok(Transaction {
            handle,
            state: committed.state.clone(),
            totals: committed.totals,
            tags: committed.tags,
            committed,
            touched: BTreeMap::new(),
            completed: BTreeSet::new(),
            losses: Vec::new(),
            meant: Vec::new(),
            now: now(),
            open: true,
        })
    }

    /// Answers what has come up for those who guard the share.
    pub(crate) fn commit(mut self) -> Result<GuardNews, StoreError> {
        let touched = std::mem::take(&mut self.touched);
        for (inode, _) in touched.into_iter().filter(|(_, may_have_versions)| *may_have_versions) {
            self.handle.review(inode, &self.completed, &mut self.totals)?;
        }
        self.handle.settle_adrift()?;
        let news = match self.losses.is_empty() && self.meant.is_empty() {
            true => GuardNews::default(),
            false => self.watch()?,
        };
        if let Some(state) = &self.state {
            let before = self.committed.state.as_ref();
            if before.is_none_or(|before| !only_clock_differs(before, state)) {
                self.handle.write_state(state)?;
            }
            if before != Some(state) || self.totals != self.committed.totals {
                self.handle.write_clock(state, &self.totals)?;
            }
        }
        self.handle.commit()?;
        self.open = false;
        self.committed.state = self.state.take();
        self.committed.totals = self.totals;
        self.committed.tags = self.tags;
        Ok(news)
    }

    /// The totals as the transaction found them.
    pub(crate) fn committed_totals(&self) -> Totals {
        self.committed.totals
    }

    /// The connection, for the tables of bytes.
    pub(crate) fn sql(&self) -> &Connection {
        self.handle.sql()
    }

    pub(crate) fn handle(&self) -> &Handle {
        self.handle
    }

    pub(crate) fn own_state(&self) -> Result<ReplicaState, StoreError> {
        self.state.clone().ok_or(StoreError::Damaged("the replica has no state"))
    }

    pub(crate) fn own_totals(&self) -> Result<Totals, StoreError> {
        Ok(self.totals)
    }

    /// Gives a node a new number: what its names lead to is from now on another file for the
    /// kernel. Returns the old and the new number.
    ///
    /// # Errors
    /// A [`StoreError`] if the index fails, or if there is no such node.
    pub fn renew_node(&mut self, key: InodeId, at: UnixTime) -> Result<(u64, u64), StoreError> {
        self.handle.renew_node(key, at)
    }

    /// Records when anything about a node changed, and for directories also when their names did.
    ///
    /// # Errors
    /// A [`StoreError`] if the index fails.
    pub fn touch_node(
        &mut self,
        key: InodeId,
        changed: UnixTime,
        modified: Option<UnixTime>,
    ) -> Result<(), StoreError> {
        self.handle.touch_node(key, changed, modified)
    }

    /// Records when anything about a node changed, by its number.
    ///
    /// # Errors
    /// A [`StoreError`] if the index fails.
    pub fn set_changed(&mut self, ino: u64, changed: UnixTime) -> Result<(), StoreError> {
        self.handle.set_changed(ino, changed)
    }

    /// Records when a node was last read, and that this was said at `changed`.
    ///
    /// # Errors
    /// A [`StoreError`] if the index fails.
    pub fn set_accessed(
        &mut self,
        ino: u64,
        accessed: UnixTime,
        changed: UnixTime,
    ) -> Result<(), StoreError> {
        self.handle.set_accessed(ino, accessed, changed)
    }

    /// Says that all bytes of a version are here.
    ///
    /// # Errors
    /// A [`StoreError`] if the index fails.
    pub fn mark_complete(&mut self, inode: InodeId, version: Dot) -> Result<(), StoreError> {
        self.touched.insert(inode, true);
        self.completed.insert((inode, version));
        Ok(())
    }

    /// Says that a version may lack bytes that were here: what is known of it is found out anew.
    ///
    /// # Errors
    /// A [`StoreError`] if the index fails.
    pub fn mark_doubtful(&mut self, inode: InodeId, version: Dot) -> Result<(), StoreError> {
        self.touched.insert(inode, true);
        self.completed.remove(&(inode, version));
        self.handle.doubt(inode, version)
    }

    /// Records how many bytes a version that lacks some still lacks.
    ///
    /// # Errors
    /// A [`StoreError`] if the index fails.
    pub fn recount(
        &mut self,
        inode: InodeId,
        version: Dot,
        absent_bytes: u64,
    ) -> Result<(), StoreError> {
        self.handle.recount(inode, version, absent_bytes, &mut self.totals)
    }

    /// Gives the root its node, in the transaction that founds the index.
    pub(crate) fn found_root(&mut self) -> Result<(), StoreError> {
        self.handle.found_root(self.now)
    }

    /// Has an inode's versions reviewed at the end, unless it was written without any.
    fn touch(&mut self, inode: InodeId) {
        self.touched.entry(inode).or_insert(true);
    }
}

impl Drop for Transaction<'_> {
    fn drop(&mut self) {
        if self.open {
            self.handle.rollback();
        }
    }
}

fn only_clock_differs(old: &ReplicaState, new: &ReplicaState) -> bool {
    let clock = (new.number, new.hlc);
    let same = ReplicaState { number: clock.0, hlc: clock.1, ..old.clone() };
    same == *new
}

fn now() -> UnixTime {
    // A clock before 1970 is a clock that was never set.
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    UnixTime { seconds: since.as_secs().cast_signed(), nanoseconds: since.subsec_nanos() }
}

impl Index for Transaction<'_> {
    fn put_state(&mut self, state: &ReplicaState) -> Result<(), StoreError> {
        self.state = Some(state.clone());
        Ok(())
    }

    fn put_tag(&mut self, last: u64, tag: Tag) -> Result<(), StoreError> {
        if last <= self.tags.last {
            return Ok(());
        }
        self.handle.put_tag(last, tag)?;
        self.tags = Tags { count: self.tags.count + 1, last };
        if self.tags.count > TAGS_MAX {
            self.tags.count = self.tags.count.saturating_sub(self.handle.drop_tags()?);
        }
        Ok(())
    }

    fn clear_tags(&mut self) -> Result<(), StoreError> {
        self.tags = Tags::default();
        self.handle.clear_tags()
    }

    fn put_reached(&mut self, device: DeviceId, reached: Reached) -> Result<(), StoreError> {
        self.handle.put_reached(device, reached)
    }

    fn put_former_writer(&mut self, former: FormerWriter) -> Result<(), StoreError> {
        self.handle.put_former_writer(former)
    }

    fn put_stranger(&mut self, stranger: Stranger) -> Result<(), StoreError> {
        self.handle.put_stranger(stranger)
    }

    fn put_named(&mut self, device: DeviceId, named: Named) -> Result<(), StoreError> {
        self.handle.put_named(device, named)
    }

    fn put_clone_signs(&mut self, signs: CloneSigns) -> Result<(), StoreError> {
        self.handle.put_clone_signs(signs)
    }

    fn forget_strangers(&mut self) -> Result<(), StoreError> {
        self.handle.forget_strangers()
    }

    fn put_inode(&mut self, state: &InodeState) -> Result<(), StoreError> {
        let grown = self.handle.put_inode(state)?;
        self.totals.bytes = self.totals.bytes.saturating_add_signed(grown);
        self.touched.insert(state.inode.id, !state.inode.versions.is_empty());
        Ok(())
    }

    fn put_entry(&mut self, state: &EntryState) -> Result<(), StoreError> {
        self.handle.put_entry(state)
    }

    fn forget_inode(&mut self, id: InodeId) -> Result<(), StoreError> {
        self.handle.forget_inode(id)?;
        self.touched.insert(id, false);
        Ok(())
    }

    fn forget_entry(&mut self, id: EntryId) -> Result<(), StoreError> {
        self.handle.forget_entry(id)
    }

    fn put_forgotten(&mut self, page: &Page, logged: u64) -> Result<(), StoreError> {
        self.handle.put_forgotten(page, logged)
    }

    fn put_stated(
        &mut self,
        device: DeviceId,
        knowledge: Option<&VersionVector>,
    ) -> Result<(), StoreError> {
        self.handle.put_stated(device, knowledge)
    }

    fn put_hearsay(&mut self, hearsay: &[Hearsay]) -> Result<(), StoreError> {
        self.handle.put_hearsay(hearsay)
    }

    fn retire(
        &mut self,
        inode: InodeId,
        version: &Version,
        why: Retired,
        at: WallMs,
    ) -> Result<(), StoreError> {
        self.handle.retire(inode, version, why, at)
    }

    fn note_loss(&mut self, loss: &Loss) -> Result<(), StoreError> {
        self.losses.push(loss.clone());
        Ok(())
    }

    fn note_meant(&mut self, writer: WriterId, upto: Hlc) -> Result<(), StoreError> {
        self.meant.push((writer, upto));
        Ok(())
    }

    fn put_representative(
        &mut self,
        directory: InodeId,
        representative: InodeId,
    ) -> Result<(), StoreError> {
        self.handle.put_representative(directory, representative)
    }

    fn put_shown(&mut self, shown: &Shown) -> Result<(), StoreError> {
        let replaced = self.handle.put_shown(shown, &mut self.totals, self.now)?;
        if let Some(replaced) = replaced {
            self.touch(replaced);
        }
        self.touch(shown.node.inode());
        Ok(())
    }

    fn remove_shown(&mut self, parent: InodeId, name: &EntryName) -> Result<(), StoreError> {
        if let Some(inode) = self.handle.remove_shown(parent, name, &mut self.totals)? {
            self.touch(inode);
        }
        Ok(())
    }
}
