//! The names of the view.
//!
//! Most names are an entry where it is, under its own name: those are rows of `entries` with
//! `seen` = 2 and take no room of their own. All others are rows of `shown`. Everything here reads
//! both, and nobody else does.

use crate::StoreError;
use crate::handle::Handle;
use crate::index::key::blob;
use crate::index::record;
use kith_core::id::InodeId;
use kith_core::index::{Node, Shown};
use kith_core::name::EntryName;
use rusqlite::{Params, Row};

/// The columns that [`Handle::read_shown`] reads.
macro_rules! shown_where {
    ($condition:literal) => {
        concat!(
            "SELECT parent, name, key, inode, entry, base, wanted, repaired FROM shown WHERE ",
            $condition
        )
    };
}

/// The columns that [`Handle::read_plain`] reads.
macro_rules! plain_where {
    ($condition:literal) => {
        concat!("SELECT shown_parent, name, inode, id FROM entries WHERE ", $condition)
    };
}

/// A name that was taken out of the view.
pub(crate) struct Taken {
    /// The key of its node.
    pub(crate) key: i64,
    /// Of a copy: the file that it is a version of, and the version's size.
    pub(crate) copy: Option<(i64, i64)>,
    /// It had a label.
    pub(crate) labelled: bool,
}

impl Handle {
    pub(crate) fn read_plain(&self, row: &Row<'_>) -> Result<Shown, StoreError> {
        let name = record::name(blob(row.get_ref(1)?)?)?;
        Ok(Shown {
            parent: self.inode_id(row.get(0)?)?,
            node: Node::Inode(self.inode_id(row.get(2)?)?),
            entry: self.entry_id(row.get(3)?)?,
            base: name.clone(),
            name,
            wanted: None,
            repaired: false,
        })
    }

    fn read_shown(&self, row: &Row<'_>) -> Result<Shown, StoreError> {
        let name = record::name(blob(row.get_ref(1)?)?)?;
        let column = |at| -> Result<Option<EntryName>, StoreError> {
            row.get_ref(at)?.as_blob_or_null().ok().flatten().map(record::name).transpose()
        };
        let key = self.dot(row.get(2)?)?;
        let node = match row.get(3)? {
            Some(inode) => Node::Copy { inode: self.inode_id(inode)?, version: key },
            None => Node::Inode(InodeId(key)),
        };
        Ok(Shown {
            parent: self.inode_id(row.get(0)?)?,
            node,
            entry: self.entry_id(row.get(4)?)?,
            base: column(5)?.unwrap_or_else(|| name.clone()),
            wanted: column(6)?,
            name,
            repaired: row.get(7)?,
        })
    }

    fn shown_rows(&self, sql: &str, params: impl Params) -> Result<Vec<Shown>, StoreError> {
        self.all(sql, params, |row| self.read_shown(row))
    }

    fn plain_at(&self, parent: i64, name: &EntryName) -> Result<Option<Shown>, StoreError> {
        let sql = plain_where!("shown_parent = ? AND seen = 2 AND name = ?");
        self.first(sql, (parent, name.as_bytes()), |row| self.read_plain(row))
    }

    /// A name that is a row of `shown`.
    pub(crate) fn special(
        &self,
        parent: InodeId,
        name: &EntryName,
    ) -> Result<Option<Shown>, StoreError> {
        let Some(parent) = self.key(parent.0)? else { return Ok(None) };
        let sql = shown_where!("parent = ? AND name = ?");
        self.first(sql, (parent, name.as_bytes()), |row| self.read_shown(row))
    }

    pub(crate) fn shown(
        &self,
        parent: InodeId,
        name: &EntryName,
    ) -> Result<Option<Shown>, StoreError> {
        let Some(key) = self.key(parent.0)? else { return Ok(None) };
        match self.plain_at(key, name)? {
            Some(plain) => Ok(Some(plain)),
            None => self.special(parent, name),
        }
    }

    pub(crate) fn shown_from(
        &self,
        parent: InodeId,
        base: &EntryName,
    ) -> Result<Vec<Shown>, StoreError> {
        let Some(key) = self.key(parent.0)? else { return Ok(Vec::new()) };
        let params = (key, base.as_bytes());
        let mut shown = self.shown_rows(shown_where!("parent = ? AND base = ?"), params)?;
        let sql = shown_where!("parent = ? AND name = ? AND base IS NULL");
        shown.extend(self.shown_rows(sql, params)?);
        shown.extend(self.plain_at(key, base)?);
        shown.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        Ok(shown)
    }

    pub(crate) fn shown_wanting(
        &self,
        parent: InodeId,
        wanted: &EntryName,
    ) -> Result<Vec<Shown>, StoreError> {
        let Some(key) = self.key(parent.0)? else { return Ok(Vec::new()) };
        let sql = shown_where!("parent = ? AND wanted = ?");
        let mut shown = self.shown_rows(sql, (key, wanted.as_bytes()))?;
        shown.sort_unstable_by(|a, b| (a.node.key(), &a.name).cmp(&(b.node.key(), &b.name)));
        Ok(shown)
    }

    pub(crate) fn shown_of(&self, key: InodeId) -> Result<Vec<Shown>, StoreError> {
        let Some(key) = self.key(key.0)? else { return Ok(Vec::new()) };
        let mut shown = self.shown_rows(shown_where!("key = ?"), [key])?;
        let sql = plain_where!("inode = ? AND seen = 2");
        shown.extend(self.all(sql, [key], |row| self.read_plain(row))?);
        shown.sort_unstable_by(|a, b| (a.parent, &a.name).cmp(&(b.parent, &b.name)));
        Ok(shown)
    }

    /// Up to `limit` rows of `shown` in a directory, in the names' order.
    pub(crate) fn list_special(
        &self,
        parent: i64,
        after: &[u8],
        limit: i64,
    ) -> Result<Vec<Shown>, StoreError> {
        let sql = shown_where!("parent = ? AND name > ? ORDER BY name LIMIT ?");
        self.shown_rows(sql, (parent, after, limit))
    }

    pub(crate) fn list(
        &self,
        parent: InodeId,
        after: Option<&EntryName>,
        limit: usize,
    ) -> Result<Vec<Shown>, StoreError> {
        let Some(key) = self.key(parent.0)? else { return Ok(Vec::new()) };
        let after = after.map_or(&b""[..], EntryName::as_bytes);
        let most = i64::try_from(limit).unwrap_or(i64::MAX);
        let special = self.list_special(key, after, most)?;
        let sql = plain_where!("shown_parent = ? AND seen = 2 AND name > ? ORDER BY name LIMIT ?");
        let mut plain = self.all(sql, (key, after, most), |row| self.read_plain(row))?;
        if !special.is_empty() {
            plain.extend(special);
            plain.sort_unstable_by(|a, b| a.name.cmp(&b.name));
            plain.truncate(limit);
        }
        Ok(plain)
    }

    /// Adds a name that isn't there. Returns whether it is a label. `copy_size` is in bytes.
    pub(crate) fn add_shown(&self, shown: &Shown, copy_size: i64) -> Result<(), StoreError> {
        let parent = self.make_key(shown.parent.0)?;
        let entry = self.make_key(shown.entry.0)?;
        let key = self.make_key(shown.node.key().0)?;
        let name = shown.name.as_bytes();
        let ordinary = shown.wanted.is_none() && !shown.repaired && shown.base == shown.name;
        if ordinary && matches!(shown.node, Node::Inode(_)) {
            let sql = "UPDATE entries SET seen = 2 WHERE id = ? AND seen = 1 AND shown_parent = ?
                       AND name = ? AND inode = ?";
            if self.run(sql, (entry, parent, name, key))? > 0 {
                return Ok(());
            }
        }
        let copy_of = match shown.node {
            Node::Copy { inode, .. } => Some(self.make_key(inode.0)?),
            Node::Inode(_) => None,
        };
        let base = Some(shown.base.as_bytes()).filter(|base| *base != name);
        let wanted = shown.wanted.as_ref().map(EntryName::as_bytes);
        let sql = "INSERT INTO shown (parent, name, key, inode, size, entry, base, wanted,
                   repaired) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)";
        let params = (parent, name, key, copy_of, copy_size, entry, base, wanted, shown.repaired);
        self.run(sql, params).map(drop)
    }

    /// Takes a name out, if it is there.
    pub(crate) fn take_shown(
        &self,
        parent: InodeId,
        name: &EntryName,
    ) -> Result<Option<Taken>, StoreError> {
        let Some(parent) = self.key(parent.0)? else { return Ok(None) };
        let params = (parent, name.as_bytes());
        let sql = "UPDATE entries SET seen = 1 WHERE shown_parent = ? AND seen = 2 AND name = ?
                   RETURNING inode";
        let plain = self.first(sql, params, |row| {
            Ok(Taken { key: row.get(0)?, copy: None, labelled: false })
        })?;
        if plain.is_some() {
            return Ok(plain);
        }
        let sql = "DELETE FROM shown WHERE parent = ? AND name = ?
                   RETURNING key, inode, size, wanted IS NOT NULL";
        self.first(sql, params, |row| {
            let copy_of: Option<i64> = row.get(1)?;
            let size = row.get(2)?;
            Ok(Taken {
                key: row.get(0)?,
                copy: copy_of.map(|inode| (inode, size)),
                labelled: row.get(3)?,
            })
        })
    }

    /// Keeps the name that an entry's row stands for as a row of its own, because the entry is
    /// about to move. The view is only told of that afterwards.
    pub(crate) fn keep_shown(&self, entry: i64) -> Result<(), StoreError> {
        let sql = "INSERT INTO shown (parent, name, key, size, entry, repaired)
                   SELECT shown_parent, name, inode, 0, id, 0 FROM entries
                   WHERE id = ? AND seen = 2";
        self.run(sql, [entry]).map(drop)
    }
}
