//! What the replica needs of storage: the registers, the view kept up from them, and the log.
//!
//! One index holds one share. [`IndexRead`] is what a snapshot offers, [`Index`] what a
//! transaction adds; whoever implements them commits a transaction as a whole or not at all, and
//! lets a transaction read what it wrote.

use crate::alarm::Loss;
use crate::clock::{Hlc, WallMs};
use crate::forget::{Hearsay, IdKind, Page, PageId};
use crate::id::{Cursor, DeviceId, Dot, EntryId, InodeId, Reached, ShareId, Tag, WriterId};
use crate::name::EntryName;
use crate::register::{Author, Entry, Inode, Removal, Version};
use crate::vector::VersionVector;
use alloc::vec::Vec;

/// What the replica remembers of itself between transactions.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ReplicaState {
    /// The share.
    pub share: ShareId,
    /// This device.
    pub device: DeviceId,
    /// Its present incarnation.
    pub writer: WriterId,
    /// The last number given out: to a change made here, or to a register that came from elsewhere.
    pub number: u64,
    /// The latest hybrid time given out or caught up with.
    pub hlc: Hlc,
    /// What is known of every writer, this one's own number excepted.
    pub knowledge: VersionVector,
    /// This device's name, for the names of conflict copies.
    pub author: Author,
}

/// An inode as this device holds it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct InodeState {
    /// The register.
    pub inode: Inode,
    /// Its place in this device's log: unique, and renewed at every change. 0 while it is withheld.
    pub logged: u64,
}

/// An entry as this device holds it, with what the view derives for it alone.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct EntryState {
    /// The register, as others may see it.
    pub entry: Entry,
    /// A removal that others don't see yet, because the file that took over the name has no
    /// version, and that file.
    pub withheld: Option<(Removal, InodeId)>,
    /// Its place in this device's log: unique, and renewed at every change. 0 while it is withheld.
    pub logged: u64,
    /// The directory it is shown in: its place's parent, or the root if it closed a cycle.
    pub shown_parent: InodeId,
    /// Whether the view has it: it lives, or something lives in the directory it names.
    pub present: bool,
}

/// What a name leads to.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub enum Node {
    /// An inode, and of a file its latest version.
    Inode(InodeId),
    /// Another version of a file, shown beside it. Once it is a file of its own, its inode's id is
    /// the version's dot, so that the node's [`key`](Node::key) stays the same.
    Copy {
        /// The file it is a version of.
        inode: InodeId,
        /// The version.
        version: Dot,
    },
}

impl Node {
    /// The id that tells nodes apart, for life.
    #[must_use]
    pub const fn key(self) -> InodeId {
        match self {
            Node::Inode(inode) => inode,
            Node::Copy { version, .. } => InodeId(version),
        }
    }

    /// The inode whose register describes the node.
    #[must_use]
    pub const fn inode(self) -> InodeId {
        match self {
            Node::Inode(inode) | Node::Copy { inode, .. } => inode,
        }
    }
}

/// One name of the view.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Shown {
    /// The directory: of several shown as one, the smallest id.
    pub parent: InodeId,
    /// The name that people see.
    pub name: EntryName,
    /// What it leads to.
    pub node: Node,
    /// The entry that names it.
    pub entry: EntryId,
    /// The entry's own name, from which `name` was made.
    pub base: EntryName,
    /// The labelled name it would have if that weren't taken, where `base` belongs to another.
    pub wanted: Option<EntryName>,
    /// Whether a repair made it look different from what its registers alone say.
    pub repaired: bool,
}

/// A register of the log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Register {
    /// An inode.
    Inode(Inode),
    /// An entry.
    Entry(Entry),
}

/// Why a version stopped being the state of its file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Retired {
    /// A version that covers it took its place.
    Superseded,
}

/// A writer that this index had before its present one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FormerWriter {
    /// The writer, and the last number that this index gave out under it.
    pub last: Dot,
    /// The latest time that this index gave out or caught up with under it.
    pub ended: WallMs,
    /// When the next writer took its place.
    pub succeeded: WallMs,
}

/// A writer that others take for one of this device's, and that this index knows nothing of: the
/// index was restored from a copy, or another machine has this device's identity.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stranger {
    /// The writer.
    pub writer: WriterId,
    /// When that was noticed.
    pub noticed: WallMs,
}

/// What another device last said of its place in this device's log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Named {
    /// Where the log ended when it had that place.
    pub head: Cursor,
    /// This device's writer when it was said.
    pub under: WriterId,
}

/// When there were signs that another machine has this device's identity.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CloneSigns {
    /// The first.
    pub first: WallMs,
    /// The latest.
    pub last: WallMs,
}

/// The most former writers that are kept; older ones' logs are walked anew for whoever comes back.
pub const FORMER_WRITERS_MAX: usize = 256;
/// The most strangers that are kept.
pub const STRANGERS_MAX: usize = 64;

/// Reads of one consistent state of the index.
pub trait IndexRead {
    /// Why the storage failed; the transaction is then given up.
    type Error;

    /// The replica's own state.
    fn state(&self) -> Result<ReplicaState, Self::Error>;
    /// The tag of the transaction that gave out `number`, under the present writer or a former one,
    /// if it is kept.
    fn tag(&self, number: u64) -> Result<Option<Tag>, Self::Error>;
    /// How far this device has come in the log of `device`.
    fn reached(&self, device: DeviceId) -> Result<Option<Reached>, Self::Error>;
    /// The writers that this index had before its present one, the latest
    /// [`FORMER_WRITERS_MAX`], the oldest first.
    fn former_writers(&self) -> Result<Vec<FormerWriter>, Self::Error>;
    /// The strangers that were noticed, the latest [`STRANGERS_MAX`], the first noticed first.
    fn strangers(&self) -> Result<Vec<Stranger>, Self::Error>;
    /// What `device` last said of its place in this device's log.
    fn named(&self, device: DeviceId) -> Result<Option<Named>, Self::Error>;
    /// When there were signs that another machine has this device's identity, if ever.
    fn clone_signs(&self) -> Result<Option<CloneSigns>, Self::Error>;
    /// Up to `limit` registers whose place in the log is above `after`, in the log's order, each
    /// with its place. Withheld ones are left out, and so are withheld removals.
    fn changes_after(&self, after: u64, limit: usize) -> Result<Vec<(u64, Register)>, Self::Error>;

    /// An inode, also a removed one.
    fn inode(&self, id: InodeId) -> Result<Option<InodeState>, Self::Error>;
    /// An entry, also a removed one.
    fn entry(&self, id: EntryId) -> Result<Option<EntryState>, Self::Error>;
    /// All entries of an inode, also removed ones, in the ids' order.
    fn entries_of(&self, inode: InodeId) -> Result<Vec<EntryState>, Self::Error>;
    /// All entries whose `shown_parent` and own name are these, present or not, in the ids' order.
    fn entries_at(
        &self,
        shown_parent: InodeId,
        name: &EntryName,
    ) -> Result<Vec<EntryState>, Self::Error>;
    /// All entries with this `shown_parent`, present or not, in the ids' order.
    fn entries_in(&self, shown_parent: InodeId) -> Result<Vec<EntryState>, Self::Error>;
    /// Whether any present entry has this `shown_parent`.
    fn any_present_in(&self, shown_parent: InodeId) -> Result<bool, Self::Error>;
    /// The own names of all present entries with this `shown_parent`, each once, in order.
    fn names_present_in(&self, shown_parent: InodeId) -> Result<Vec<EntryName>, Self::Error>;
    /// The entries with a removal withheld for this file.
    fn waiting_for(&self, file: InodeId) -> Result<Vec<EntryState>, Self::Error>;
    /// Up to `limit` entries that are not present, in an order of the index's own, after `after`.
    fn removed_after(
        &self,
        after: Option<EntryId>,
        limit: usize,
    ) -> Result<Vec<EntryState>, Self::Error>;

    /// Whether any id is forgotten.
    fn forgets(&self) -> Result<bool, Self::Error>;
    /// The forgotten ids of a page, if it has any.
    fn forgotten(&self, id: PageId) -> Result<Option<Page>, Self::Error>;
    /// Up to `limit` pages of forgotten ids whose place in the log is above `after`, in the log's
    /// order, each with its place.
    fn forgotten_after(&self, after: u64, limit: usize) -> Result<Vec<(u64, Page)>, Self::Error>;
    /// The inodes whose ids a page spans, in their order.
    fn inodes_on(&self, page: PageId) -> Result<Vec<InodeId>, Self::Error>;
    /// The entries whose ids a page spans, in their order.
    fn entries_on(&self, page: PageId) -> Result<Vec<EntryId>, Self::Error>;
    /// What a device has said that it knows, when this one knew all of that too.
    fn stated(&self, device: DeviceId) -> Result<Option<VersionVector>, Self::Error>;

    /// The forgotten ids of which only those knew enough that this device heard of them from.
    fn hearsay(&self) -> Result<Vec<Hearsay>, Self::Error>;

    /// Whether an inode's id is forgotten.
    fn is_forgotten_inode(&self, id: InodeId) -> Result<bool, Self::Error> {
        if id == InodeId::ROOT || !self.forgets()? {
            return Ok(false);
        }
        let page = self.forgotten(PageId::of(IdKind::Inode, id.0))?;
        Ok(page.is_some_and(|page| page.contains(id.0)))
    }
    /// Whether an entry's id is forgotten.
    fn is_forgotten_entry(&self, id: EntryId) -> Result<bool, Self::Error> {
        if !self.forgets()? {
            return Ok(false);
        }
        let page = self.forgotten(PageId::of(IdKind::Entry, id.0))?;
        Ok(page.is_some_and(|page| page.contains(id.0)))
    }

    /// The directory that `directory` is shown as: itself, unless it is one of several at one name.
    fn representative(&self, directory: InodeId) -> Result<InodeId, Self::Error>;
    /// All directories shown as `representative`, itself included, in the ids' order.
    fn members(&self, representative: InodeId) -> Result<Vec<InodeId>, Self::Error>;
    /// What a name of the view leads to. `parent` is a representative.
    fn shown(&self, parent: InodeId, name: &EntryName) -> Result<Option<Shown>, Self::Error>;
    /// The names made from entries called `base`, in the shown names' order.
    fn shown_from(&self, parent: InodeId, base: &EntryName) -> Result<Vec<Shown>, Self::Error>;
    /// The names in `parent` that would be `wanted` if they could, in the order of their nodes' keys.
    fn shown_wanting(&self, parent: InodeId, wanted: &EntryName)
    -> Result<Vec<Shown>, Self::Error>;
    /// All names of the node with this [`key`](Node::key), in the order of parent and name.
    fn shown_of(&self, key: InodeId) -> Result<Vec<Shown>, Self::Error>;
    /// Up to `limit` names of a directory after `after`, in the names' byte order.
    fn list(
        &self,
        parent: InodeId,
        after: Option<&EntryName>,
        limit: usize,
    ) -> Result<Vec<Shown>, Self::Error>;
}

/// Changes to the index, within one transaction.
pub trait Index: IndexRead {
    /// Keeps the replica's own state.
    fn put_state(&mut self, state: &ReplicaState) -> Result<(), Self::Error>;
    /// Ends the transaction's numbers: all up to `last` that have no tag yet get this one.
    fn put_tag(&mut self, last: u64, tag: Tag) -> Result<(), Self::Error>;
    /// Forgets all tags; called when numbers may have been given out twice.
    fn clear_tags(&mut self) -> Result<(), Self::Error>;
    /// Remembers how far this device has come in the log of `device`.
    fn put_reached(&mut self, device: DeviceId, reached: Reached) -> Result<(), Self::Error>;
    /// Adds a former writer, and drops the oldest beyond [`FORMER_WRITERS_MAX`].
    fn put_former_writer(&mut self, former: FormerWriter) -> Result<(), Self::Error>;
    /// Adds a stranger, and drops the first noticed beyond [`STRANGERS_MAX`].
    fn put_stranger(&mut self, stranger: Stranger) -> Result<(), Self::Error>;
    /// Remembers what `device` said of its place in this device's log.
    fn put_named(&mut self, device: DeviceId, named: Named) -> Result<(), Self::Error>;
    /// Remembers when there were signs that another machine has this device's identity.
    fn put_clone_signs(&mut self, signs: CloneSigns) -> Result<(), Self::Error>;
    /// Forgets strangers, what others said of their places, and signs of another machine: the
    /// device has another identity.
    fn forget_strangers(&mut self) -> Result<(), Self::Error>;

    /// Adds or replaces an inode.
    fn put_inode(&mut self, state: &InodeState) -> Result<(), Self::Error>;
    /// Adds or replaces an entry.
    fn put_entry(&mut self, state: &EntryState) -> Result<(), Self::Error>;
    /// Drops an inode that never left this device, or that is forgotten.
    fn forget_inode(&mut self, id: InodeId) -> Result<(), Self::Error>;
    /// Drops an entry that never left this device, or that is forgotten.
    fn forget_entry(&mut self, id: EntryId) -> Result<(), Self::Error>;
    /// Adds or replaces a page of forgotten ids, at a place in the log that was just given out.
    fn put_forgotten(&mut self, page: &Page, logged: u64) -> Result<(), Self::Error>;
    /// Remembers what a device has said that it knows, or that nothing it said counts any more.
    fn put_stated(
        &mut self,
        device: DeviceId,
        knowledge: Option<&VersionVector>,
    ) -> Result<(), Self::Error>;
    /// Replaces all hearsay: up to [`HEARSAY_MAX`](crate::forget::HEARSAY_MAX) items.
    fn put_hearsay(&mut self, hearsay: &[Hearsay]) -> Result<(), Self::Error>;
    /// Puts a version that is no longer the state of its file into history.
    fn retire(
        &mut self,
        inode: InodeId,
        version: &Version,
        why: Retired,
        at: WallMs,
    ) -> Result<(), Self::Error>;

    /// Hears that another device took a file away, for an [alarm](crate::alarm). Storage that raises
    /// none has nothing to do.
    fn note_loss(&mut self, loss: &Loss) -> Result<(), Self::Error> {
        let _ = loss;
        Ok(())
    }
    /// Hears that a person meant everything that `writer` did up to a time.
    fn note_meant(&mut self, writer: WriterId, upto: Hlc) -> Result<(), Self::Error> {
        let _ = (writer, upto);
        Ok(())
    }

    /// Shows `directory` as `representative`, or as itself if they are the same.
    fn put_representative(
        &mut self,
        directory: InodeId,
        representative: InodeId,
    ) -> Result<(), Self::Error>;
    /// Adds or replaces a name of the view.
    fn put_shown(&mut self, shown: &Shown) -> Result<(), Self::Error>;
    /// Takes a name out of the view.
    fn remove_shown(&mut self, parent: InodeId, name: &EntryName) -> Result<(), Self::Error>;
}
