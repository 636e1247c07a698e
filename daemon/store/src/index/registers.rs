//! The registers and the log of them.

use crate::StoreError;
use crate::handle::Handle;
use crate::index::key::blob;
use crate::index::rare::Table;
use crate::index::record::{self, EntryColumns};
use kith_core::clock::WallMs;
use kith_core::codec;
use kith_core::id::{EntryId, InodeId};
use kith_core::index::{EntryState, InodeState, Register, Retired};
use kith_core::name::EntryName;
use kith_core::register::{Kind, Version};
use rusqlite::{Params, Row};

/// The columns that [`Handle::read_entry`] reads.
macro_rules! entry_where {
    ($condition:literal) => {
        concat!(
            "SELECT id, logged, inode, shown_parent, seen, name, parent, register, withheld, \
             waits_for FROM entries WHERE ",
            $condition
        )
    };
}

/// What a row of `inodes` says beside its register.
#[derive(Clone, Copy)]
pub(crate) struct InodeRow {
    pub(crate) logged: i64,
    pub(crate) size: i64,
    pub(crate) names: i64,
}

/// The kinds that the index tells apart.
pub(crate) const DIRECTORY: i64 = 0;
pub(crate) const FILE: i64 = 1;
const OTHER: i64 = 2;

impl Handle {
    pub(crate) fn inode(&self, id: InodeId) -> Result<Option<InodeState>, StoreError> {
        let Some(key) = self.key(id.0)? else { return Ok(None) };
        self.first("SELECT logged, register FROM inodes WHERE id = ?", [key], |row| {
            self.read_inode(id, row, 0)
        })
    }

    /// The files that have never been published.
    pub(crate) fn withheld(&self) -> Result<Vec<InodeId>, StoreError> {
        let keys = self.all("SELECT id FROM inodes WHERE logged = 0", [], |row| Ok(row.get(0)?))?;
        keys.into_iter().map(|key| self.inode_id(key)).collect()
    }

    /// An inode of a row that has `logged` and `register` from column `at` on.
    pub(crate) fn read_inode(
        &self,
        id: InodeId,
        row: &Row<'_>,
        at: usize,
    ) -> Result<InodeState, StoreError> {
        let logged = row.get::<_, i64>(at)?.cast_unsigned();
        let inode = record::read_inode(id, blob(row.get_ref(at + 1)?)?)?;
        Ok(InodeState { inode, logged })
    }

    /// Adds or replaces an inode. Returns by how much its latest version grew, in bytes and over
    /// all names that lead to it.
    pub(crate) fn put_inode(&self, state: &InodeState) -> Result<i64, StoreError> {
        let key = self.make_key(state.inode.id.0)?;
        let logged = state.logged.cast_signed();
        let size = state.inode.latest().map_or(0, |version| version.content.size_bytes);
        let size = size.cast_signed();
        let register = record::write_inode(&state.inode);
        let sql = "SELECT logged, size, names FROM inodes WHERE id = ?";
        let old = self.first(sql, [key], |row| {
            Ok(InodeRow { logged: row.get(0)?, size: row.get(1)?, names: row.get(2)? })
        })?;
        let Some(old) = old else {
            let kind = match state.inode.kind {
                Kind::Directory => DIRECTORY,
                Kind::File => FILE,
                _ => OTHER,
            };
            let sql = "INSERT INTO inodes (id, logged, kind, size, names, register)
                       VALUES (?, ?, ?, ?, 0, ?)";
            self.run(sql, (key, logged, kind, size, register))?;
            self.log(0, logged, key, false)?;
            return Ok(0);
        };
        let sql = "UPDATE inodes SET logged = ?, size = ?, register = ? WHERE id = ?";
        self.run(sql, (logged, size, register, key))?;
        self.log(old.logged, logged, key, false)?;
        Ok((size - old.size) * old.names)
    }

    pub(crate) fn forget_inode(&self, id: InodeId) -> Result<(), StoreError> {
        let Some(key) = self.key(id.0)? else { return Ok(()) };
        let sql = "DELETE FROM inodes WHERE id = ? RETURNING logged, ino";
        let old = self
            .first(sql, [key], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, Option<i64>>(1)?)))?;
        let Some((logged, ino)) = old else { return Ok(()) };
        if let Some(ino) = ino {
            self.run("UPDATE nodes SET current = 0 WHERE ino = ?", [ino])?;
        }
        self.run("DELETE FROM directories WHERE key = ?", [key])?;
        self.log(logged, 0, key, false)
    }

    fn log(&self, old: i64, new: i64, key: i64, entry: bool) -> Result<(), StoreError> {
        if old == new {
            return Ok(());
        }
        if old != 0 {
            self.run("DELETE FROM log WHERE logged = ?", [old])?;
        }
        if new != 0 {
            self.run("INSERT INTO log VALUES (?, ?, ?)", (new, key, entry))?;
        }
        Ok(())
    }

    pub(crate) fn entry(&self, id: EntryId) -> Result<Option<EntryState>, StoreError> {
        let Some(key) = self.key(id.0)? else { return Ok(None) };
        self.first(entry_where!("id = ?"), [key], |row| self.read_entry(row))
    }

    fn read_entry(&self, row: &Row<'_>) -> Result<EntryState, StoreError> {
        let shown_parent = self.inode_id(row.get(3)?)?;
        let parent = match row.get(6)? {
            Some(parent) => self.inode_id(parent)?,
            None => shown_parent,
        };
        let columns = EntryColumns {
            id: self.entry_id(row.get(0)?)?,
            inode: self.inode_id(row.get(2)?)?,
            parent,
            name: record::name(blob(row.get_ref(5)?)?)?,
        };
        let entry = record::read_entry(columns, blob(row.get_ref(7)?)?)?;
        let withheld = match row.get(9)? {
            Some(file) => {
                let removal = codec::decode_removal(blob(row.get_ref(8)?)?)?;
                Some((removal, self.inode_id(file)?))
            }
            None => None,
        };
        Ok(EntryState {
            entry,
            withheld,
            logged: row.get::<_, i64>(1)?.cast_unsigned(),
            shown_parent,
            present: row.get::<_, i64>(4)? != 0,
        })
    }

    /// Entries in the order of their ids.
    fn entries(&self, sql: &str, params: impl Params) -> Result<Vec<EntryState>, StoreError> {
        let mut entries = self.all(sql, params, |row| self.read_entry(row))?;
        entries.sort_by_key(|state| state.entry.id);
        Ok(entries)
    }

    pub(crate) fn entries_of(&self, inode: InodeId) -> Result<Vec<EntryState>, StoreError> {
        let Some(key) = self.key(inode.0)? else { return Ok(Vec::new()) };
        self.entries(entry_where!("inode = ?"), [key])
    }

    pub(crate) fn entries_at(
        &self,
        shown_parent: InodeId,
        name: &EntryName,
    ) -> Result<Vec<EntryState>, StoreError> {
        let Some(key) = self.key(shown_parent.0)? else { return Ok(Vec::new()) };
        let sql = entry_where!("shown_parent = ? AND seen IN (0, 1, 2) AND name = ?");
        self.entries(sql, (key, name.as_bytes()))
    }

    pub(crate) fn entries_in(&self, shown_parent: InodeId) -> Result<Vec<EntryState>, StoreError> {
        let Some(key) = self.key(shown_parent.0)? else { return Ok(Vec::new()) };
        self.entries(entry_where!("shown_parent = ?"), [key])
    }

    /// Entries that are not present, in the order of their keys.
    pub(crate) fn removed_after(
        &self,
        after: Option<EntryId>,
        limit: usize,
    ) -> Result<Vec<EntryState>, StoreError> {
        let after = match after {
            Some(id) => self.key(id.0)?.unwrap_or(i64::MAX),
            None => -1,
        };
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let sql = entry_where!("seen = 0 AND id > ? ORDER BY id LIMIT ?");
        self.all(sql, (after, limit), |row| self.read_entry(row))
    }

    pub(crate) fn any_present_in(&self, shown_parent: InodeId) -> Result<bool, StoreError> {
        let Some(key) = self.key(shown_parent.0)? else { return Ok(false) };
        let sql = "SELECT 1 FROM entries WHERE shown_parent = ? AND seen >= 1 LIMIT 1";
        Ok(self.first(sql, [key], |_| Ok(()))?.is_some())
    }

    pub(crate) fn names_present_in(
        &self,
        shown_parent: InodeId,
    ) -> Result<Vec<EntryName>, StoreError> {
        let Some(key) = self.key(shown_parent.0)? else { return Ok(Vec::new()) };
        let sql = "SELECT name FROM entries WHERE shown_parent = ? AND seen >= 1";
        let mut names = self.all(sql, [key], |row| record::name(blob(row.get_ref(0)?)?))?;
        names.sort_unstable();
        names.dedup();
        Ok(names)
    }

    pub(crate) fn waiting_for(&self, file: InodeId) -> Result<Vec<EntryState>, StoreError> {
        let Some(key) = self.key(file.0)? else { return Ok(Vec::new()) };
        self.entries(entry_where!("waits_for = ?"), [key])
    }

    pub(crate) fn put_entry(&self, state: &EntryState) -> Result<(), StoreError> {
        let entry = &state.entry;
        let key = self.make_key(entry.id.0)?;
        let inode = self.make_key(entry.inode.0)?;
        let shown_parent = self.make_key(state.shown_parent.0)?;
        let name = entry.place.name.as_bytes();
        let parent = if entry.place.parent == state.shown_parent {
            None
        } else {
            Some(self.make_key(entry.place.parent.0)?)
        };
        let (withheld, waits_for) = match &state.withheld {
            Some((removal, file)) => {
                (Some(codec::encode_removal(removal)), Some(self.make_key(file.0)?))
            }
            None => (None, None),
        };
        let logged = state.logged.cast_signed();
        let register = record::write_entry(entry);
        let sql = "SELECT shown_parent, seen, name, logged FROM entries WHERE id = ?";
        let old = self.first(sql, [key], |row| {
            let same = row.get::<_, i64>(0)? == shown_parent && blob(row.get_ref(2)?)? == name;
            Ok((same, row.get::<_, i64>(1)?, row.get::<_, i64>(3)?))
        })?;
        let Some((same_place, old_seen, old_logged)) = old else {
            let sql = "INSERT INTO entries (id, logged, inode, shown_parent, seen, name, parent,
                       register, withheld, waits_for) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)";
            let seen = i64::from(state.present);
            self.run(
                sql,
                rusqlite::params![
                    key,
                    logged,
                    inode,
                    shown_parent,
                    seen,
                    name,
                    parent,
                    register,
                    withheld,
                    waits_for
                ],
            )?;
            return self.log(0, logged, key, true);
        };
        if same_place && state.present == (old_seen != 0) {
            // Leaves the columns of the indices alone.
            let sql = "UPDATE entries SET logged = ?, parent = ?, register = ?, withheld = ?,
                       waits_for = ? WHERE id = ?";
            self.run(sql, (logged, parent, register, withheld, waits_for, key))?;
        } else {
            self.keep_shown(key)?;
            let sql = "UPDATE entries SET logged = ?, shown_parent = ?, seen = ?, name = ?,
                       parent = ?, register = ?, withheld = ?, waits_for = ? WHERE id = ?";
            let seen = i64::from(state.present);
            let params =
                (logged, shown_parent, seen, name, parent, register, withheld, waits_for, key);
            self.run(sql, params)?;
        }
        self.log(old_logged, logged, key, true)
    }

    pub(crate) fn forget_entry(&self, id: EntryId) -> Result<(), StoreError> {
        let Some(key) = self.key(id.0)? else { return Ok(()) };
        self.keep_shown(key)?;
        let sql = "DELETE FROM entries WHERE id = ? RETURNING logged";
        match self.first(sql, [key], |row| Ok(row.get::<_, i64>(0)?))? {
            Some(logged) => self.log(logged, 0, key, true),
            None => Ok(()),
        }
    }

    pub(crate) fn retire(
        &self,
        inode: InodeId,
        version: &Version,
        why: Retired,
        at: WallMs,
    ) -> Result<(), StoreError> {
        let Retired::Superseded = why;
        let params = (
            self.make_key(inode.0)?,
            self.make_key(version.dot)?,
            at.0.cast_signed(),
            0,
            codec::encode_version(version),
        );
        self.run("INSERT OR REPLACE INTO history VALUES (?, ?, ?, ?, ?)", params).map(drop)
    }

    /// The versions of an inode in history, in the order in which they came into it.
    pub(crate) fn history_of(&self, inode: InodeId) -> Result<Vec<(WallMs, Version)>, StoreError> {
        let Some(key) = self.key(inode.0)? else { return Ok(Vec::new()) };
        let sql = "SELECT retired, version FROM history WHERE inode = ? ORDER BY retired, rowid";
        self.all(sql, [key], |row| {
            let at = WallMs(row.get::<_, i64>(0)?.cast_unsigned());
            Ok((at, codec::decode_version(blob(row.get_ref(1)?)?)?))
        })
    }

    pub(crate) fn changes_after(
        &self,
        after: u64,
        limit: usize,
    ) -> Result<Vec<(u64, Register)>, StoreError> {
        let Ok(after) = i64::try_from(after) else { return Ok(Vec::new()) };
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let sql = "SELECT logged, key, entry FROM log WHERE logged > ? ORDER BY logged LIMIT ?";
        self.all(sql, (after, limit), |row| {
            let (logged, key) = (row.get::<_, i64>(0)?, row.get::<_, i64>(1)?);
            let register = if row.get(2)? {
                let entry =
                    self.first(entry_where!("id = ?"), [key], |row| self.read_entry(row))?;
                entry.map(|state| Register::Entry(state.entry))
            } else {
                let id = self.inode_id(key)?;
                self.inode(id)?.map(|state| Register::Inode(state.inode))
            };
            let register = register.ok_or(StoreError::Damaged("the log names no register"))?;
            Ok((logged.cast_unsigned(), register))
        })
    }

    pub(crate) fn representative(&self, directory: InodeId) -> Result<InodeId, StoreError> {
        if !self.may_have(Table::Unions) {
            return Ok(directory);
        }
        let Some(key) = self.key(directory.0)? else { return Ok(directory) };
        let sql = "SELECT representative FROM unions WHERE directory = ?";
        let found = self.first(sql, [key], |row| self.inode_id(row.get(0)?))?;
        Ok(found.unwrap_or(directory))
    }

    pub(crate) fn members(&self, representative: InodeId) -> Result<Vec<InodeId>, StoreError> {
        if !self.may_have(Table::Unions) {
            return Ok(vec![representative]);
        }
        let Some(key) = self.key(representative.0)? else { return Ok(vec![representative]) };
        let sql = "SELECT directory FROM unions WHERE representative = ?";
        let mut members = self.all(sql, [key], |row| self.inode_id(row.get(0)?))?;
        if self.representative(representative)? == representative {
            members.push(representative);
        }
        members.sort_unstable();
        Ok(members)
    }

    pub(crate) fn put_representative(
        &self,
        directory: InodeId,
        representative: InodeId,
    ) -> Result<(), StoreError> {
        let key = self.make_key(directory.0)?;
        let sql = "DELETE FROM unions WHERE directory = ?";
        self.remove_rows(Table::Unions, sql, [key])?;
        if directory != representative {
            let representative = self.make_key(representative.0)?;
            self.run("INSERT INTO unions VALUES (?, ?)", (key, representative))?;
            self.note_rows(Table::Unions, 1);
        }
        Ok(())
    }
}
