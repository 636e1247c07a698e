//! What a crash left behind: files that were closed or fsynced are published, others come back
//! beside the file.

use super::open_files::OpenFile;
use super::{OpenLeft, Origin, Share, WriteError, context, now, storage};
use kith_core::content::Content;
use kith_core::effect::Effect;
use kith_core::id::InodeId;
use kith_core::index::{IndexRead, Node};
use kith_core::name::EntryName;
use kith_core::operation::{self, AttributeChange, Operation};
use kith_core::register::{Attributes, Kind, Mark, Removal};
use kith_core::vector::VersionVector;
use kith_core::view::time_of_day;
use kith_store::{Base, CutError, NodeRead, Recovered, Transaction};
use std::collections::BTreeSet;

/// How many names are tried for a file that comes back beside another.
const ORDINALS_MAX: u32 = 10_000;

/// What recovery did.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Recovery {
    /// Files that were closed or fsynced, and were published.
    pub(crate) published: usize,
    /// Files that came back beside.
    pub(crate) beside: usize,
    /// Files whose changes wait for room on the disk, or for bytes of other devices.
    pub(crate) waiting: usize,
}

impl Share {
    /// Deals with what the last stop left behind, and goes on with what is still open. Called
    /// before anybody reads or writes.
    pub(crate) fn recover(&self, open: OpenLeft) -> Result<Recovery, WriteError> {
        let mut recovery = Recovery::default();
        let left = self.store.recovered()?.into_iter();
        let mut left = left.map(|it| (it.overlay.number(), it)).collect();
        let mut kept = self.take_up_open(open, &mut left)?;
        let (shown, hidden): (Vec<_>, Vec<_>) = {
            let snapshot = self.store.snapshot()?;
            let mut found = Vec::new();
            for it in left.into_values() {
                let is_shown = !snapshot.shown_of(it.owner)?.is_empty();
                found.push((is_shown, it));
            }
            found.into_iter().partition(|(is_shown, _)| *is_shown)
        };
        for (_, left) in shown {
            kept.extend(self.recover_one(&left, &mut recovery)?);
        }
        // Then names come back that were taken by files which have no version, and only then it is
        // seen which of the rest have none.
        let hidden_owners: BTreeSet<_> = hidden.iter().map(|(_, left)| left.owner).collect();
        self.withdraw(|inode| !hidden_owners.contains(&inode) && !kept.contains(&inode))?;
        for (_, left) in hidden {
            kept.extend(self.recover_one(&left, &mut recovery)?);
        }
        self.withdraw(|inode| !kept.contains(&inode))?;
        Ok(recovery)
    }

    /// Takes the names from files that have no version.
    fn withdraw(&self, which: impl Fn(InodeId) -> bool) -> Result<(), WriteError> {
        for inode in self.store.withheld()?.into_iter().filter(|inode| which(*inode)) {
            self.commit(&Origin::Elsewhere, |tx| {
                let applied = operation::apply(tx, context(), Operation::Withdraw { inode })?;
                Ok::<_, WriteError>(((), applied.effects))
            })?;
        }
        Ok(())
    }

    /// Deals with what was written to one file. Answers the file that goes on with it, if it can't
    /// be published yet.
    fn recover_one(
        &self,
        left: &Recovered,
        recovery: &mut Recovery,
    ) -> Result<Option<InodeId>, WriteError> {
        let frozen = left.overlay.freeze();
        let cut = match self.store.cut(&frozen) {
            Ok(cut) => cut,
            Err(error) => {
                if let CutError::Store(error) = error {
                    storage(&error);
                }
                let waits = self.take_up(left)?;
                recovery.waiting += usize::from(waits.is_some());
                return Ok(waits);
            }
        };
        let content = cut.content.clone();
        self.store.flush_bytes()?;
        let whole = self.commit(&Origin::Elsewhere, |tx| {
            let owner = owner_of(tx, left)?;
            let Some(named) = name_of(tx, owner)? else { return Ok((None, Vec::new())) };
            Ok::<_, WriteError>(match is_whole(left) {
                _ if is_published(tx, owner, left, &content)? => (None, Vec::new()),
                true => (Some(true), republish(tx, owner, left, content)?),
                // Nothing was written yet to a file that was emptied.
                false if content.size_bytes == 0 => (None, Vec::new()),
                false => (Some(false), put_beside(tx, &named, content)?),
            })
        })?;
        match whole {
            Some(true) => recovery.published += 1,
            Some(false) => recovery.beside += 1,
            None => {}
        }
        drop(cut);
        left.overlay.discard()?;
        Ok(None)
    }

    /// Goes on with what can't be published yet, because the disk is full or bytes are missing around what
    /// was changed: as a file that was just closed, which is read with what was written to it, and is
    /// published once that is possible. What isn't whole is so beside its file. Answers the file.
    fn take_up(&self, left: &Recovered) -> Result<Option<InodeId>, WriteError> {
        let heir = self.commit(&Origin::Elsewhere, |tx| {
            let owner = owner_of(tx, left)?;
            let Some(named) = name_of(tx, owner)? else { return Ok((None, Vec::new())) };
            let free = tx.node_of(owner)?.filter(|row| self.files.find(row.ino).is_none());
            if is_whole(left)
                && let Some(row) = free
            {
                let state = tx.inode(owner)?;
                let fresh = state.is_some_and(|state| state.inode.is_withheld());
                let heir = Heir { ino: row.ino, inode: owner, fresh, beside: false };
                return Ok((Some(heir), Vec::new()));
            }
            let (node, effects) = create_beside(tx, &named)?;
            let row = tx.node_of(node.key())?.expect("a node that was just made is shown");
            let heir = Heir { ino: row.ino, inode: node.key(), fresh: true, beside: true };
            Ok::<_, WriteError>((Some(heir), effects))
        })?;
        let overlay = &left.overlay;
        let Some(Heir { ino, inode, fresh, beside }) = heir else {
            overlay.discard()?;
            return Ok(None);
        };
        let mtime = left.closed.unwrap_or_else(|| now().1);
        if beside {
            overlay.set_apart(inode);
        } else {
            overlay.set_owner(inode);
        }
        if let Err(error) = overlay.note_closed(mtime).and_then(|()| overlay.sync()) {
            storage(&error);
        }
        let base = (*overlay.base()).clone();
        let file = OpenFile::new(ino, inode, base, mtime, fresh);
        file.writing().overlay = Some(overlay.clone());
        self.files.adopt(file);
        Ok(Some(inode))
    }
}

/// The file that goes on with what was written.
struct Heir {
    ino: u64,
    inode: InodeId,
    /// It has no version yet.
    fresh: bool,
    /// It is beside the one that it was written to.
    beside: bool,
}

/// The file that it belongs to: others may have forgotten its own while it was open here.
fn owner_of(tx: &Transaction<'_>, left: &Recovered) -> Result<InodeId, WriteError> {
    Ok(kith_core::forget::successor(tx, left.owner)?)
}

/// Whether it is the file as somebody wanted to have it.
fn is_whole(left: &Recovered) -> bool {
    left.synced || left.closed.is_some()
}

/// Whether there is a version like this already: the crash came just after its publication.
fn is_published(
    tx: &Transaction<'_>,
    owner: InodeId,
    left: &Recovered,
    content: &Content,
) -> Result<bool, WriteError> {
    let versions = tx.inode(owner)?.into_iter().flat_map(|state| state.inode.versions);
    let same_time = |mtime| left.closed.is_none_or(|closed| closed == mtime);
    let mut versions = versions.map(|(_, version)| version);
    Ok(versions.any(|it| it.content == *content && same_time(it.mtime)))
}

fn republish(
    tx: &mut Transaction<'_>,
    owner: InodeId,
    left: &Recovered,
    content: Content,
) -> Result<Vec<Effect>, WriteError> {
    let Base { context: made_from, parents, .. } = left.base.clone();
    let publish = Operation::Publish {
        inode: owner,
        context: made_from,
        parents,
        content,
        mtime: left.closed.unwrap_or_else(|| now().1),
        mark: if left.closed.is_some() { Mark::Closed } else { Mark::Synced },
    };
    Ok(operation::apply(tx, context(), publish)?.effects)
}

/// A name that a file has, or had last, and its attributes.
struct Named {
    attributes: Attributes,
    parent: InodeId,
    name: EntryName,
}

/// A name of a file. If it lost the last one elsewhere, that name, in the nearest directory that
/// still stands: who removed it there didn't know of what was written here, which brings it back.
/// `None` if it was here that it lost it: then what was written dies with it.
fn name_of(tx: &Transaction<'_>, owner: InodeId) -> Result<Option<Named>, WriteError> {
    if let Some(row) = tx.shown_of(owner)?.into_iter().next() {
        let state = tx.inode(row.node.inode())?.expect("what a name leads to has a register");
        let attributes = state.inode.attributes;
        return Ok(Some(Named { attributes, parent: row.parent, name: row.name }));
    }
    let mut own: Vec<_> = tx.former_writers()?.iter().map(|former| former.last.writer).collect();
    own.push(tx.state()?.writer);
    let here = |removal: &Removal| {
        removal.last_link && own.iter().any(|writer| removal.dots.number(*writer) > 0)
    };
    let entries = tx.entries_of(owner)?;
    let mut removals = entries.iter().flat_map(|state| {
        let waiting = state.withheld.as_ref().map(|(removal, _)| removal);
        state.entry.removal.as_ref().into_iter().chain(waiting)
    });
    if removals.any(here) {
        return Ok(None);
    }
    let last = entries.iter().max_by_key(|state| state.entry.place.stamp);
    let (Some(last), Some(state)) = (last, tx.inode(owner)?) else { return Ok(None) };
    let attributes = state.inode.attributes;
    let parent = standing(tx, last.shown_parent)?;
    Ok(Some(Named { attributes, parent, name: last.entry.place.name.clone() }))
}

/// `directory`, or the nearest above it that is there.
fn standing(tx: &Transaction<'_>, mut directory: InodeId) -> Result<InodeId, WriteError> {
    let mut seen = BTreeSet::new();
    while directory != InodeId::ROOT && seen.insert(directory) {
        match tx.entries_of(directory)?.first() {
            Some(entry) if entry.present => return Ok(tx.representative(directory)?),
            Some(entry) => directory = entry.shown_parent,
            None => break,
        }
    }
    Ok(InodeId::ROOT)
}

/// Makes a file of what was written, beside the one that it was written to.
fn put_beside(
    tx: &mut Transaction<'_>,
    beside: &Named,
    content: Content,
) -> Result<Vec<Effect>, WriteError> {
    let (node, mut effects) = create_beside(tx, beside)?;
    let publish = Operation::Publish {
        inode: node.key(),
        context: VersionVector::new(),
        parents: Vec::new(),
        content,
        mtime: now().1,
        mark: Mark::Closed,
    };
    effects.extend(operation::apply(tx, context(), publish)?.effects);
    Ok(effects)
}

/// Makes a file without a version beside another one, with that one's attributes.
fn create_beside(
    tx: &mut Transaction<'_>,
    beside: &Named,
) -> Result<(Node, Vec<Effect>), WriteError> {
    let label = format!("recovered {}", time_of_day(now().0.0 / 1000));
    let mut name = beside.name.labelled(&label, 1);
    for ordinal in 2..ORDINALS_MAX {
        if tx.shown(beside.parent, &name)?.is_none() {
            break;
        }
        name = beside.name.labelled(&label, ordinal);
    }
    let create = Operation::Create {
        parent: beside.parent,
        name,
        kind: Kind::File,
        mode: beside.attributes.mode,
        user: beside.attributes.user,
        group: beside.attributes.group,
    };
    let created = operation::apply(tx, context(), create)?;
    let node = created.node.expect("a creation names its node");
    let mut effects = created.effects;
    let xattrs = beside.attributes.xattrs.iter();
    // Access control lists are among them, without which others could read it.
    let set_xattrs = xattrs.map(|(name, value)| (name.clone(), Some(value.clone()))).collect();
    let change = AttributeChange { set_xattrs, ..AttributeChange::default() };
    let set = Operation::SetAttributes { node, change };
    effects.extend(operation::apply(tx, context(), set)?.effects);
    Ok((node, effects))
}
