//! Changes of the view, with everything that is kept up with it: nodes and counters.

use crate::StoreError;
use crate::handle::Handle;
use crate::index::rare::Table;
use crate::index::registers::{DIRECTORY, FILE};
use crate::index::replica::Totals;
use kith_core::id::InodeId;
use kith_core::index::{Node, Shown};
use kith_core::name::EntryName;
use kith_core::register::UnixTime;

/// What the index knows of an inode that a name leads to.
struct Target {
    kind: i64,
    size: i64,
    ino: Option<i64>,
}

impl Handle {
    /// Adds or replaces a name of the view. Returns the inode whose name was replaced, if any.
    pub(crate) fn put_shown(
        &self,
        shown: &Shown,
        totals: &mut Totals,
        now: UnixTime,
    ) -> Result<Option<InodeId>, StoreError> {
        let replaced = self.remove_shown(shown.parent, &shown.name, totals)?;
        let key = self.make_key(shown.node.key().0)?;
        let (kind, size) = match shown.node {
            Node::Inode(_) => {
                let target = self.lead_to(key, now)?;
                if target.kind == DIRECTORY {
                    self.count_subdirectory(self.make_key(shown.parent.0)?, 1)?;
                }
                (target.kind, target.size)
            }
            Node::Copy { inode, .. } => (FILE, self.lead_to_copy(shown.node, key, inode, now)?),
        };
        self.add_shown(shown, size)?;
        totals.entries = totals.entries.saturating_add(1);
        totals.files = totals.files.saturating_add(u64::from(kind == FILE));
        totals.conflicts = totals.conflicts.saturating_add(u64::from(shown.wanted.is_some()));
        totals.bytes = totals.bytes.saturating_add(size.cast_unsigned());
        Ok(replaced)
    }

    /// Takes a name out of the view. Returns the inode that it led to, if it was there.
    pub(crate) fn remove_shown(
        &self,
        parent: InodeId,
        name: &EntryName,
        totals: &mut Totals,
    ) -> Result<Option<InodeId>, StoreError> {
        let Some(taken) = self.take_shown(parent, name)? else { return Ok(None) };
        let (inode, kind, size) = match taken.copy {
            Some((inode, size)) => (inode, FILE, size),
            None => {
                let sql = "SELECT kind, size FROM inodes WHERE id = ?";
                let target = self.first(sql, [taken.key], |row| {
                    Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?))
                })?;
                self.run("UPDATE inodes SET names = names - 1 WHERE id = ?", [taken.key])?;
                // An inode that was forgotten is a file that never had a version.
                let (kind, size) = target.unwrap_or((FILE, 0));
                if kind == DIRECTORY {
                    self.count_subdirectory(self.make_key(parent.0)?, -1)?;
                }
                (taken.key, kind, size)
            }
        };
        totals.entries = totals.entries.saturating_sub(1);
        totals.files = totals.files.saturating_sub(u64::from(kind == FILE));
        totals.conflicts = totals.conflicts.saturating_sub(u64::from(taken.labelled));
        totals.bytes = totals.bytes.saturating_sub(size.cast_unsigned());
        self.inode_id(inode).map(Some)
    }

    /// Counts one more name of an inode, and gives it a node if it has none yet.
    fn lead_to(&self, key: i64, now: UnixTime) -> Result<Target, StoreError> {
        let sql = "SELECT kind, size, ino FROM inodes WHERE id = ?";
        let target = self.first(sql, [key], |row| {
            Ok(Target { kind: row.get(0)?, size: row.get(1)?, ino: row.get(2)? })
        })?;
        let target = target.ok_or(StoreError::Damaged("a name is to lead to no inode"))?;
        if target.ino.is_some() {
            self.run("UPDATE inodes SET names = names + 1 WHERE id = ?", [key])?;
            return Ok(target);
        }
        // What was a copy until now stays the same node.
        let copy = match self.may_have(Table::Copies) {
            true => self.first("SELECT ino FROM copies WHERE key = ?", [key], |row| {
                Ok(row.get::<_, i64>(0)?)
            })?,
            false => None,
        };
        let ino = match copy {
            Some(ino) => {
                self.run("UPDATE nodes SET inode = NULL WHERE ino = ?", [ino])?;
                self.remove_rows(Table::Copies, "DELETE FROM copies WHERE key = ?", [key])?;
                ino
            }
            None => self.make_node(key, None, now, self.made_modified(key, target.kind, now)?)?,
        };
        self.run("UPDATE inodes SET names = names + 1, ino = ? WHERE id = ?", (ino, key))?;
        Ok(target)
    }

    /// When a node that is being made was modified. A person may have set that before the node came
    /// here.
    fn made_modified(
        &self,
        key: i64,
        kind: i64,
        now: UnixTime,
    ) -> Result<Option<UnixTime>, StoreError> {
        if kind == FILE {
            return Ok(None);
        }
        let state = self.inode(self.inode_id(key)?)?;
        Ok(Some(state.and_then(|state| state.inode.attributes.mtime).unwrap_or(now)))
    }

    /// Gives a copy a node if it has none yet. Returns the version's size in bytes.
    fn lead_to_copy(
        &self,
        node: Node,
        key: i64,
        inode: InodeId,
        now: UnixTime,
    ) -> Result<i64, StoreError> {
        const GONE: StoreError = StoreError::Damaged("a name is to lead to no version");
        let of = self.make_key(inode.0)?;
        let state = self.inode(inode)?;
        let version = state.as_ref().and_then(|state| state.inode.versions.get(&node.key().0));
        let size = version.ok_or(GONE)?.content.size_bytes.cast_signed();
        let there = "SELECT 1 FROM copies WHERE key = ?";
        if self.first(there, [key], |_| Ok(()))?.is_none() {
            let ino = self.make_node(key, Some(of), now, None)?;
            self.run("INSERT INTO copies VALUES (?, ?, 0)", (key, ino))?;
            self.note_rows(Table::Copies, 1);
        }
        Ok(size)
    }
}
