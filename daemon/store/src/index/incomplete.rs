//! Which shown versions lack bytes: what is still to be fetched.

use crate::StoreError;
use crate::bytes::has_chunk;
use crate::handle::Handle;
use crate::index::key::blob;
use crate::index::rare::Table;
use crate::index::record;
use crate::index::replica::Totals;
use kith_core::content::{Content, Layout, Piece};
use kith_core::id::{Dot, InodeId};
use kith_core::index::EntryState;
use std::collections::{BTreeMap, BTreeSet};

/// A version that a name of the view leads to, and that lacks bytes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Incomplete {
    /// Its place in the order in which versions came to lack bytes; never used again.
    pub order: u64,
    /// The file.
    pub inode: InodeId,
    /// The version.
    pub version: Dot,
    /// What it consists of.
    pub content: Content,
    /// How many of its bytes are known to be absent. Until the lists of a long file are here,
    /// this is its whole size.
    pub absent_bytes: u64,
}

/// A version that was found to be whole, or not.
enum Found {
    Whole,
    /// With the absent bytes.
    Lacks(i64),
    /// A long list, of which nobody has said that it is whole.
    Unknown(i64),
}

impl Handle {
    fn look_for(&self, content: &Content) -> Result<Found, StoreError> {
        let Layout::Inline(pieces) = &content.layout else {
            return Ok(Found::Unknown(content.size_bytes.cast_signed()));
        };
        let mut absent = 0;
        for piece in pieces {
            if let Piece::Chunk { id, len_bytes } = piece
                && !has_chunk(self.sql(), *id)?
            {
                absent += i64::from(*len_bytes);
            }
        }
        Ok(if absent == 0 { Found::Whole } else { Found::Lacks(absent) })
    }

    /// Brings what is recorded of an inode's versions up to what is shown and stored now.
    pub(crate) fn review(
        &self,
        id: InodeId,
        completed: &BTreeSet<(InodeId, Dot)>,
        totals: &mut Totals,
    ) -> Result<(), StoreError> {
        let key = self.make_key(id.0)?;
        let sql = "SELECT register, names, whole FROM inodes WHERE id = ?";
        let inode = self.first(sql, [key], |row| {
            let inode = record::read_inode(id, blob(row.get_ref(0)?)?)?;
            Ok((inode, row.get::<_, i64>(1)? > 0, row.get::<_, Option<i64>>(2)?))
        })?;
        let sql = "SELECT dot, absent FROM incomplete WHERE inode = ?";
        let before = match self.may_have(Table::Incomplete) {
            true => self.all(sql, [key], |row| Ok((row.get(0)?, row.get(1)?)))?,
            false => Vec::new(),
        };
        let before: BTreeMap<i64, i64> = before.into_iter().collect();
        let mut after = BTreeMap::new();
        if let Some((inode, named, whole)) = inode {
            let latest = inode.latest().map(|version| version.dot);
            for (dot, version) in &inode.versions {
                let version_key = self.make_key(*dot)?;
                let is_latest = latest == Some(*dot);
                let known = if is_latest {
                    named.then_some(whole == Some(version_key))
                } else {
                    self.shown_copy(version_key, key)?
                };
                if known != Some(false) {
                    // Nobody sees it, or it is known to be whole.
                    continue;
                }
                let found = match completed.contains(&(id, *dot)) {
                    true => Found::Whole,
                    false => self.look_for(&version.content)?,
                };
                match found {
                    Found::Whole => {
                        let sql = match is_latest {
                            true => "UPDATE inodes SET whole = ?1 WHERE id = ?2",
                            false => "UPDATE copies SET whole = 1 WHERE key = ?1 AND ?2 NOT NULL",
                        };
                        self.run(sql, (version_key, key))?;
                    }
                    Found::Lacks(absent) => {
                        after.insert(version_key, absent);
                    }
                    Found::Unknown(size) => {
                        after
                            .insert(version_key, before.get(&version_key).copied().unwrap_or(size));
                    }
                }
            }
        }
        for (dot, absent) in &before {
            if !after.contains_key(dot) {
                let sql = "DELETE FROM incomplete WHERE inode = ? AND dot = ?";
                self.remove_rows(Table::Incomplete, sql, (key, dot))?;
                totals.absent_bytes = totals.absent_bytes.saturating_sub(absent.cast_unsigned());
            }
        }
        for (dot, absent) in after {
            match before.get(&dot) {
                Some(_) => self.set_absent(key, dot, absent, totals)?,
                None => {
                    let sql = "INSERT INTO incomplete (inode, dot, absent) VALUES (?, ?, ?)";
                    self.run(sql, (key, dot, absent))?;
                    self.note_rows(Table::Incomplete, 1);
                    totals.absent_bytes =
                        totals.absent_bytes.saturating_add(absent.cast_unsigned());
                }
            }
        }
        Ok(())
    }

    /// Whether a copy is known to be whole; none if no name leads to it.
    fn shown_copy(&self, key: i64, inode: i64) -> Result<Option<bool>, StoreError> {
        let sql = "SELECT whole FROM copies
                   WHERE key = ?1 AND EXISTS (SELECT 1 FROM shown WHERE key = ?1 AND inode = ?2)";
        self.first(sql, (key, inode), |row| Ok(row.get(0)?))
    }

    fn set_absent(
        &self,
        inode: i64,
        dot: i64,
        absent: i64,
        totals: &mut Totals,
    ) -> Result<(), StoreError> {
        let sql = "SELECT absent FROM incomplete WHERE inode = ? AND dot = ?";
        let Some(before) = self.first(sql, (inode, dot), |row| Ok(row.get::<_, i64>(0)?))? else {
            return Ok(());
        };
        if before != absent {
            let sql = "UPDATE incomplete SET absent = ? WHERE inode = ? AND dot = ?";
            self.run(sql, (absent, inode, dot))?;
            let rest = totals.absent_bytes.saturating_sub(before.cast_unsigned());
            totals.absent_bytes = rest.saturating_add(absent.cast_unsigned());
        }
        Ok(())
    }

    /// Records how many bytes of a version are absent, if it is known to lack any.
    pub(crate) fn recount(
        &self,
        inode: InodeId,
        version: Dot,
        absent_bytes: u64,
        totals: &mut Totals,
    ) -> Result<(), StoreError> {
        let (inode, version) = (self.make_key(inode.0)?, self.make_key(version)?);
        let absent = i64::try_from(absent_bytes).unwrap_or(i64::MAX);
        self.set_absent(inode, version, absent, totals)
    }

    /// Forgets that a version is known to be whole.
    pub(crate) fn doubt(&self, inode: InodeId, version: Dot) -> Result<(), StoreError> {
        let (inode, version) = (self.make_key(inode.0)?, self.make_key(version)?);
        self.run("UPDATE inodes SET whole = NULL WHERE id = ? AND whole = ?", (inode, version))?;
        self.run("UPDATE copies SET whole = 0 WHERE key = ?", [version]).map(drop)
    }

    /// Whether a removed file with these entries is what this device has in the place of another: of
    /// one that has its name now, and lacks bytes.
    pub(crate) fn stands_in(&self, entries: &[EntryState]) -> Result<bool, StoreError> {
        if self.first("SELECT 1 FROM incomplete LIMIT 1", [], |_| Ok(()))?.is_none() {
            return Ok(false);
        }
        for EntryState { shown_parent, entry, .. } in entries {
            if let Some(now) = self.shown(*shown_parent, &entry.place.name)?
                && let Some(key) = self.key(now.node.inode().0)?
            {
                let sql = "SELECT 1 FROM incomplete WHERE inode = ?";
                if self.first(sql, [key], |_| Ok(()))?.is_some() {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    pub(crate) fn incomplete(
        &self,
        after: u64,
        limit: usize,
    ) -> Result<Vec<Incomplete>, StoreError> {
        let Ok(after) = i64::try_from(after) else { return Ok(Vec::new()) };
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let sql = "SELECT n.place, n.inode, n.dot, n.absent, i.register FROM incomplete n
                   JOIN inodes i ON i.id = n.inode WHERE n.place > ? ORDER BY n.place LIMIT ?";
        self.all(sql, (after, limit), |row| {
            let inode = self.inode_id(row.get(1)?)?;
            let version = self.dot(row.get(2)?)?;
            let mut register = record::read_inode(inode, blob(row.get_ref(4)?)?)?;
            let state = register.versions.remove(&version);
            let state = state.ok_or(StoreError::Damaged("an incomplete version is unknown"))?;
            Ok(Incomplete {
                order: row.get::<_, i64>(0)?.cast_unsigned(),
                inode,
                version,
                content: state.content,
                absent_bytes: row.get::<_, i64>(3)?.cast_unsigned(),
            })
        })
    }
}
