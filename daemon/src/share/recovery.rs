//! What a crash left behind: files that were closed or fsynced are published, others come back
//! beside the file.

use super::{Origin, Share, WriteError, context, kith_error_chain, now};
use kith_core::content::Content;
use kith_core::effect::Effect;
use kith_core::id::InodeId;
use kith_core::index::{IndexRead, Shown};
use kith_core::operation::{self, Operation};
use kith_core::register::{Kind, Mark};
use kith_core::vector::VersionVector;
use kith_core::view::time_of_day;
use kith_store::{Base, CutError, Recovered, Transaction};

/// How many names are tried for a file that comes back beside another.
const ORDINALS_MAX: u32 = 10_000;

/// What recovery did.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Recovery {
    /// Files that were closed or fsynced, and were published.
    pub(crate) published: usize,
    /// Files that came back beside.
    pub(crate) beside: usize,
    /// Changes that wait for bytes of other devices.
    pub(crate) waiting: usize,
}

impl Share {
    /// Deals with what the last stop left behind. Called before anybody reads or writes.
    pub(crate) fn recover(&self) -> Result<Recovery, WriteError> {
        let mut recovery = Recovery::default();
        for left in self.store.recovered()? {
            let frozen = left.overlay.freeze();
            let cut = match self.store.cut(&frozen) {
                Ok(cut) => cut,
                Err(CutError::Absent(_) | CutError::Damaged(_)) => {
                    left.overlay.keep(is_whole(&left))?;
                    recovery.waiting += 1;
                    continue;
                }
                Err(CutError::Store(error)) => {
                    tracing::error!(cause = %kith_error_chain(&error), "unpublished changes can't be read");
                    recovery.waiting += 1;
                    continue;
                }
            };
            let content = cut.content.clone();
            let whole = self.commit(&Origin::Elsewhere, |tx| {
                let names = tx.shown_of(left.owner)?;
                Ok::<_, WriteError>(match names.first() {
                    // What had lost its last name dies.
                    None => (None, Vec::new()),
                    Some(_) if is_published(tx, &left, &content)? => (None, Vec::new()),
                    Some(_) if is_whole(&left) => (Some(true), republish(tx, &left, content)?),
                    Some(name) => (Some(false), put_beside(tx, name, content)?),
                })
            })?;
            match whole {
                Some(true) => recovery.published += 1,
                Some(false) => recovery.beside += 1,
                None => {}
            }
            drop(cut);
            left.overlay.discard()?;
        }
        for inode in self.store.withheld()? {
            self.commit(&Origin::Elsewhere, |tx| {
                let applied = operation::apply(tx, context(), Operation::Withdraw { inode })?;
                Ok::<_, WriteError>(((), applied.effects))
            })?;
        }
        Ok(recovery)
    }
}

/// Whether it is the file as somebody wanted to have it.
fn is_whole(left: &Recovered) -> bool {
    left.synced || left.closed.is_some()
}

/// Whether there is a version like this already: the crash came just after its publication.
fn is_published(
    tx: &Transaction<'_>,
    left: &Recovered,
    content: &Content,
) -> Result<bool, WriteError> {
    let versions = tx.inode(left.owner)?.into_iter().flat_map(|state| state.inode.versions);
    let same_time = |mtime| left.closed.is_none_or(|closed| closed == mtime);
    let mut versions = versions.map(|(_, version)| version);
    Ok(versions.any(|it| it.content == *content && same_time(it.mtime)))
}

fn republish(
    tx: &mut Transaction<'_>,
    left: &Recovered,
    content: Content,
) -> Result<Vec<Effect>, WriteError> {
    let Base { context: made_from, parents, .. } = left.base.clone();
    let publish = Operation::Publish {
        inode: left.owner,
        context: made_from,
        parents,
        content,
        mtime: left.closed.unwrap_or_else(|| now().1),
        mark: if left.closed.is_some() { Mark::Closed } else { Mark::Synced },
    };
    Ok(operation::apply(tx, context(), publish)?.effects)
}

fn put_beside(
    tx: &mut Transaction<'_>,
    beside: &Shown,
    content: Content,
) -> Result<Vec<Effect>, WriteError> {
    let state = tx.inode(beside.node.inode())?.expect("a shown node has a register");
    let label = format!("recovered {}", time_of_day(now().0.0 / 1000));
    let mut name = beside.name.labelled(&label, 1);
    for ordinal in 2..ORDINALS_MAX {
        if tx.shown(beside.parent, &name)?.is_none() {
            break;
        }
        name = beside.name.labelled(&label, ordinal);
    }
    let attributes = state.inode.attributes;
    let create = Operation::Create {
        parent: beside.parent,
        name,
        kind: Kind::File,
        mode: attributes.mode,
        user: attributes.user,
        group: attributes.group,
    };
    let created = operation::apply(tx, context(), create)?;
    let inode: InodeId = created.node.expect("a creation names its node").key();
    let publish = Operation::Publish {
        inode,
        context: VersionVector::new(),
        parents: Vec::new(),
        content,
        mtime: now().1,
        mark: Mark::Closed,
    };
    let mut effects = created.effects;
    effects.extend(operation::apply(tx, context(), publish)?.effects);
    Ok(effects)
}
