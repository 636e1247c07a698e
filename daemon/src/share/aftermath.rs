//! What a transaction's effects mean for the mount's nodes, and whom to tell after the commit.

use super::dated::{Dated, Since};
use kith_core::effect::Effect;
use kith_core::id::InodeId;
use kith_core::index::IndexRead;
use kith_core::name::EntryName;
use kith_core::register::{Kind, UnixTime};
use kith_fs::volume::{Ino, Outdated};
use kith_store::{NodeRead, StoreError, Transaction};
use std::collections::{BTreeMap, BTreeSet};

/// Who a transaction's changes come from.
pub(crate) enum Origin<'a> {
    /// The mount: the kernel knows these names, and the attributes, by itself.
    Mount(&'a [(InodeId, EntryName)]),
    /// The publisher, for files that are open under these numbers, and when each last changed.
    Publishers(&'a [(u64, UnixTime)]),
    /// Another device, or a command.
    Elsewhere,
}

impl Origin<'_> {
    /// When a file last changed that is being published.
    fn published(&self, ino: u64) -> Option<UnixTime> {
        let Origin::Publishers(files) = self else { return None };
        files.iter().find(|(published, _)| *published == ino).map(|(_, at)| *at)
    }
}

/// What is to be done once the transaction is committed.
#[derive(Default)]
pub(crate) struct Aftermath {
    /// What the kernel must forget.
    pub(crate) outdated: Vec<Outdated>,
    /// Names that something is shown beside since then, or one of whose files has another version.
    pub(crate) conflicts: BTreeSet<(InodeId, EntryName)>,
    /// Whether the device goes on under a new writer.
    pub(crate) reincarnated: bool,
    /// Whether there is a new sign that another machine has its identity.
    pub(crate) cloned: bool,
}

/// Brings the mount's nodes up to date with a transaction's effects, within that transaction.
pub(crate) fn settle_nodes(
    tx: &mut Transaction<'_>,
    effects: &[Effect],
    origin: &Origin<'_>,
    now: UnixTime,
) -> Result<Aftermath, StoreError> {
    let mut aftermath = Aftermath::default();
    let renamed = settle_directories(tx, effects, origin, now, &mut aftermath)?;
    for effect in effects {
        match effect {
            Effect::Name { .. } => {}
            Effect::Attributes { key } => {
                let Some(row) = tx.node_of(*key)? else { continue };
                if origin.published(row.ino).is_some() {
                    // They only got a new dot, so that others hear of them.
                    continue;
                }
                let modified = match tx.inode(row.node.inode())? {
                    Some(state) if state.inode.kind != Kind::File => state.inode.attributes.mtime,
                    _ => None,
                };
                let elsewhere = matches!(origin, Origin::Elsewhere) && !renamed.contains(key);
                tx.touch_node(*key, now, if elsewhere { modified } else { None })?;
                if !matches!(origin, Origin::Mount(_)) {
                    aftermath.outdated.push(Outdated::Attributes(Ino(row.ino)));
                }
            }
            Effect::Content { key, here } => {
                let Some(row) = tx.node_of(*key)? else { continue };
                let own = match origin {
                    Origin::Publishers(_) => origin.published(row.ino),
                    Origin::Mount(_) => Some(now),
                    Origin::Elsewhere => None,
                };
                match own.filter(|_| *here) {
                    Some(at) => tx.touch_node(*key, at, None)?,
                    None => supersede(tx, *key, now, &mut aftermath)?,
                }
            }
            Effect::Reincarnated => aftermath.reincarnated = true,
            Effect::Cloned => aftermath.cloned = true,
        }
    }
    if tx.totals()?.conflicts > 0 {
        aftermath.conflicts = conflicts(tx, effects)?;
    }
    Ok(aftermath)
}

/// Brings the directories up to date whose names changed. Answers those in which a name has changed
/// since a person set their time, of all that others have changed.
fn settle_directories(
    tx: &mut Transaction<'_>,
    effects: &[Effect],
    origin: &Origin<'_>,
    now: UnixTime,
    aftermath: &mut Aftermath,
) -> Result<BTreeSet<InodeId>, StoreError> {
    let mut changed: BTreeMap<InodeId, Since> = BTreeMap::new();
    let mut dated = Dated::default();
    for effect in effects {
        let Effect::Name { parent, name } = effect else { continue };
        let Some(row) = tx.node_of(*parent)? else { continue };
        let since = match origin {
            Origin::Mount(_) => Since::After,
            Origin::Publishers(_) | Origin::Elsewhere => dated.since(tx, *parent, name)?,
        };
        if !changed.contains_key(parent) && !matches!(origin, Origin::Mount(_)) {
            aftermath.outdated.push(Outdated::Attributes(Ino(row.ino)));
        }
        let latest = changed.entry(*parent).or_insert(since);
        *latest = since.max(*latest);
        let known = matches!(origin, Origin::Mount(own) if own.iter().any(|(p, n)| p == parent && n == name));
        if !known {
            aftermath.outdated.push(Outdated::Name {
                parent: Ino(row.ino),
                name: name.clone(),
                replaced: false,
            });
        }
    }
    for (directory, since) in &changed {
        tx.touch_node(*directory, now, (*since > Since::Before).then_some(now))?;
    }
    changed.retain(|_, since| *since == Since::After);
    Ok(changed.into_keys().collect())
}

/// The names beside which something is shown, of those that a transaction changed.
fn conflicts(
    tx: &Transaction<'_>,
    effects: &[Effect],
) -> Result<BTreeSet<(InodeId, EntryName)>, StoreError> {
    let mut found = BTreeSet::new();
    for effect in effects {
        let rows = match effect {
            Effect::Name { parent, name } => tx.shown(*parent, name)?.into_iter().collect(),
            Effect::Content { key, .. } => tx.shown_of(*key)?,
            Effect::Attributes { .. } | Effect::Reincarnated | Effect::Cloned => Vec::new(),
        };
        found.extend(rows.into_iter().filter(|row| row.repaired).map(|row| (row.parent, row.base)));
    }
    Ok(found)
}

/// Gives a node a new number, because in writeback mode the kernel owns the size and times of what
/// it caches under the old one: the names lead to a new node, as after a rename over the file.
fn supersede(
    tx: &mut Transaction<'_>,
    key: InodeId,
    now: UnixTime,
    aftermath: &mut Aftermath,
) -> Result<(), StoreError> {
    let (old, _) = tx.renew_node(key, now)?;
    for shown in tx.shown_of(key)? {
        if let Some(parent) = tx.node_of(shown.parent)? {
            aftermath.outdated.push(Outdated::Name {
                parent: Ino(parent.ino),
                name: shown.name,
                replaced: true,
            });
        }
    }
    aftermath.outdated.push(Outdated::Attributes(Ino(old)));
    Ok(())
}
