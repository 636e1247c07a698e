//! New versions of files, and the end of what was withheld until the first.

use super::OperationError;
use super::settle::Copies;
use crate::content::Content;
use crate::id::{Dot, InodeId, WriterId};
use crate::index::{EntryState, Index, IndexRead, Node};
use crate::register::{Inode, Kind, Mark, Removal, UnixTime, Unread, Version};
use crate::transaction::{Heard, Transaction};
use crate::vector::VersionVector;
use crate::view::{conflict_label, outlives};
use alloc::vec::Vec;

/// A version, as the operation describes it.
pub(super) struct Made {
    pub(super) context: VersionVector,
    pub(super) parents: Vec<Dot>,
    pub(super) content: Content,
    pub(super) mtime: UnixTime,
    pub(super) mark: Mark,
}

/// Whether this device has taken the last name of an inode since its present writer began: then a
/// version of it comes too late. Under the next writer that can't be told any more, and whoever has
/// the file open has to remember.
///
/// # Errors
/// The storage's.
pub fn is_removed_here<I: IndexRead>(index: &I, id: InodeId) -> Result<bool, I::Error> {
    let writer = index.state()?.writer;
    let entries = index.entries_of(id)?;
    let is_shown = entries.iter().any(|entry| entry.present);
    Ok(!is_shown && entries.iter().any(|entry| took_last_name(entry, writer)))
}

/// Whether this device took the last name of a file when it removed this entry.
fn took_last_name(state: &EntryState, writer: WriterId) -> bool {
    let own = |removal: &&Removal| removal.dots.number(writer) > 0;
    let heard = state.entry.removal.as_ref().filter(own);
    let waiting = state.withheld.as_ref().map(|(removal, _)| removal);
    heard.into_iter().chain(waiting).any(|removal| removal.last_link)
}

impl<I: Index> Transaction<'_, I> {
    pub(super) fn publish(
        &mut self,
        id: InodeId,
        mut made: Made,
    ) -> Result<Node, OperationError<I::Error>> {
        let state = self.inode(id)?.ok_or(OperationError::NotFound)?;
        if state.inode.kind != Kind::File {
            return Err(OperationError::NotPermitted);
        }
        let mut entries = self.entries_of(id)?;
        let is_shown = entries.iter().any(|entry| entry.present);
        if is_shown {
            entries.retain(|entry| entry.present);
        } else if entries.iter().any(|entry| took_last_name(entry, self.state.writer)) {
            // A version of a file that was removed here would bring it back. Of one that was removed
            // elsewhere it does: whoever did that didn't know of it.
            return Err(OperationError::NotFound);
        }
        let Some(first) = entries.first() else { return Err(OperationError::NotFound) };
        let is_first = state.inode.is_withheld();
        made.context.join(&made.parents.iter().copied().collect());
        let versions = &state.inode.versions;
        for parent in made.parents.iter().filter_map(|parent| versions.get(parent)) {
            let twins = versions.values().filter(|version| version.is_twin_of(parent));
            twins.for_each(|twin| made.context.include(twin.dot));
        }
        let ordinary = self.settle_names(Node::Inode(id), Copies::Leave)?;
        let context = closed(&state.inode, self.state.writer, made.context.clone());
        let parted = self.part_from(&state.inode, &made, &context, first)?;
        let mut now = (*state).clone();
        let latest = now.inode.latest_hlc();
        let version = Version {
            stamp: self.stamp_after(latest),
            dot: self.dot(),
            context,
            parents: made.parents,
            author: self.state.author.clone(),
            mtime: made.mtime,
            content: made.content,
            mark: made.mark,
            unread: Unread::new(),
        };
        now.inode.versions.insert(version.dot, version);
        let covered = now.inode.drop_covered();
        self.retire(id, &covered)?;
        if is_first {
            // Others may have been told that all older numbers of this writer are known to them.
            now.inode.attributes.dot = self.dot();
        }
        let stays =
            is_shown && !parted && ordinary == entries.len() && now.inode.versions.len() == 1;
        self.write_inode(now)?;
        if is_first {
            self.show_others(id, false)?;
            self.release(id)?;
        }
        if stays {
            // It stood alone at all its names, and still does.
            self.derive_presence()?;
            self.dirty.clear();
        }
        self.take_up(id).map(Node::Inode).map_err(OperationError::from)
    }

    /// A writer's version covers its earlier ones of the file, also one that went another way, by
    /// itself or into a merged version: that one becomes a file of its own before the version of
    /// that `context` is there. Says whether there was one.
    fn part_from(
        &mut self,
        inode: &Inode,
        made: &Made,
        context: &VersionVector,
        first: &EntryState,
    ) -> Result<bool, I::Error> {
        let apart = inode.versions.values().filter(|version| {
            let goes = version.dot.writer == self.state.writer || version.is_within(context);
            goes && !version.is_within(&made.context) && version.content != made.content
        });
        let apart: Vec<&Version> = apart.collect();
        for version in &apart {
            let parent = self.representative(first.shown_parent)?;
            let shown = self.index.shown_of(InodeId(version.dot))?;
            let name = match shown.into_iter().next() {
                Some(row) => row.name,
                None => {
                    let label = conflict_label(version);
                    let mut ordinal = 1;
                    loop {
                        let name = first.entry.place.name.labelled(&label, ordinal);
                        if self.index.shown(parent, &name)?.is_none() {
                            break name;
                        }
                        ordinal += 1;
                    }
                }
            };
            self.found_copy(inode, version, (parent, name))?;
        }
        Ok(!apart.is_empty())
    }

    /// Lets the others see the names of a file that was withheld. Those that are gone are forgotten,
    /// unless the others may have them all the same.
    pub(crate) fn show_others(&mut self, id: InodeId, known: bool) -> Result<(), I::Error> {
        // Others have those that are in the log already.
        for entry in self.entries_of(id)?.into_iter().filter(|entry| entry.logged == 0) {
            if !known && !outlives(&entry) {
                self.index.forget_entry(entry.entry.id)?;
                continue;
            }
            let mut now = entry.clone();
            if !sabotaged!(PublishKeepsDots) {
                now.entry.place.dot = self.dot();
            }
            if now.entry.removal.is_some() {
                let dot = self.dot();
                now.entry.removal = now.entry.removal.map(|removal| again(removal, dot));
            }
            self.write_entry(Some(entry), now, Heard::ByAll)?;
        }
        Ok(())
    }

    /// Makes the removals that waited for a file real.
    pub(crate) fn release(&mut self, file: InodeId) -> Result<(), I::Error> {
        for waiting in self.index.waiting_for(file)? {
            let Some(state) = self.entry(waiting.entry.id)? else { continue };
            let mut now = state.clone();
            let Some((removal, _)) = now.withheld.take_if(|(_, of)| *of == file) else { continue };
            let renewed = again(removal.clone(), self.dot());
            let removal = if sabotaged!(ReleaseKeepsDots) { removal } else { renewed };
            Removal::merge_into(&mut now.entry.removal, Some(removal));
            self.write_entry(Some(state), now, Heard::ByAll)?;
        }
        Ok(())
    }

    /// Drops a file that was never published and has no name left.
    pub(super) fn abandon(&mut self, id: InodeId) -> Result<(), I::Error> {
        let entries = self.entries_of(id)?;
        let withheld = self.inode(id)?.is_some_and(|state| state.inode.is_withheld());
        // What others have a name of arrives from them.
        if !withheld || entries.iter().any(|entry| entry.present || entry.logged != 0) {
            return Ok(());
        }
        self.release(id)?;
        for entry in entries {
            self.index.forget_entry(entry.entry.id)?;
        }
        self.forget_inode(id)
    }

    /// Undoes a file that was never published. What its names had taken over was never gone for
    /// others, and stands again here.
    pub(super) fn withdraw(&mut self, id: InodeId) -> Result<(), I::Error> {
        let is_known = self.entries_of(id)?.iter().any(|entry| entry.logged != 0);
        if is_known || !self.inode(id)?.is_some_and(|state| state.inode.is_withheld()) {
            return Ok(());
        }
        let mut stands_again = Vec::new();
        for waiting in self.index.waiting_for(id)? {
            let now = EntryState { withheld: None, ..waiting.clone() };
            stands_again.push(now.entry.inode);
            self.write_entry(Some(waiting), now, Heard::Here)?;
        }
        for entry in self.entries_of(id)?.into_iter().filter(|entry| entry.present) {
            let removal = self.removal_of(&entry)?;
            let mut now = entry.clone();
            Removal::merge_into(&mut now.entry.removal, Some(removal));
            self.write_entry(Some(entry), now, Heard::Here)?;
        }
        self.refresh()?;
        self.abandon(id)?;
        stands_again.into_iter().try_for_each(|inode| self.take_up(inode).map(drop))
    }
}

/// A removal under a new name: its stamps stay.
fn again(removal: Removal, dot: Dot) -> Removal {
    Removal { dots: VersionVector::from_iter([dot]), ..removal }
}

/// The context of a new version of `writer` that was made from what `context` covers: with all
/// that those versions were made from, and with the writer's own earlier ones.
fn closed(inode: &Inode, writer: crate::id::WriterId, mut context: VersionVector) -> VersionVector {
    let given = context.number(writer);
    context.include(Dot { writer, number: inode.known_versions().number(writer) });
    loop {
        let before = context.clone();
        for version in inode.versions.values() {
            // Where it followed an earlier version of this writer that was not given, that one is
            // covered now, and with it what it was made from: its context has that, and nothing
            // that still stands, unless it was merged: see `part_from`.
            let followed = version.context.number(writer) > given;
            if context.covers(version.dot) || followed {
                context.join(&version.context);
            }
        }
        if context == before {
            return context;
        }
    }
}
