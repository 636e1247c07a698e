//! The names of the view.
//!
//! Most names are an entry where it is, under its own name: those are rows of `entries` with
//! `seen` = 2 and take no room of their own. All others are rows of `shown`. Everything here reads
//! both, and nobody else does.

use crate::StoreError;
use crate::handle::Handle;
use crate::index::key::blob;
use crate::index::rare::{Adrift, Table};
use crate::index::record;
use kith_core::id::InodeId;
use kith_core::index::{Node, Shown};
use kith_core::name::EntryName;
use rusqlite::{Params, Row};

/// The columns that [`Handle::read_shown`] reads.
macro_rules! shown_where {
    ($condition:literal) => {
        shown_where!("", $condition)
    };
    // SQLite takes the primary key for partial indices, and reads the whole directory.
    ($index:literal, $condition:literal) => {
        concat!(
            "SELECT parent, name, key, inode, entry, base, wanted, repaired FROM shown ",
            $index,
            " WHERE ",
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

/// How many names may be adrift before they are written: they are searched one by one.
const ADRIFT_MAX: usize = 64;

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

    /// Rows of `shown`, and names that are adrift and fit.
    fn shown_rows(
        &self,
        sql: &str,
        params: impl Params,
        fits: impl Fn(&Adrift) -> bool,
    ) -> Result<Vec<Shown>, StoreError> {
        let mut rows = match self.may_have(Table::Shown) {
            true => self.all(sql, params, |row| self.read_shown(row))?,
            false => Vec::new(),
        };
        for row in self.rare.borrow().adrift.iter().filter(|row| fits(row)) {
            let name = record::name(&row.name)?;
            rows.push(Shown {
                parent: self.inode_id(row.parent)?,
                node: Node::Inode(self.inode_id(row.inode)?),
                entry: self.entry_id(row.entry)?,
                base: name.clone(),
                name,
                wanted: None,
                repaired: false,
            });
        }
        Ok(rows)
    }

    fn plain_at(&self, parent: i64, name: &EntryName) -> Result<Option<Shown>, StoreError> {
        let sql = plain_where!("shown_parent = ? AND seen = 2 AND name = ?");
        self.first(sql, (parent, name.as_bytes()), |row| self.read_plain(row))
    }

    /// A name that is not an entry where it is.
    pub(crate) fn special(
        &self,
        parent: InodeId,
        name: &EntryName,
    ) -> Result<Option<Shown>, StoreError> {
        let Some(parent) = self.key(parent.0)? else { return Ok(None) };
        let (sql, name) = (shown_where!("parent = ? AND name = ?"), name.as_bytes());
        let fits = |row: &Adrift| row.parent == parent && row.name == name;
        Ok(self.shown_rows(sql, (parent, name), fits)?.pop())
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
        let sql = shown_where!("INDEXED BY shown_base", "parent = ? AND base = ?");
        let mut shown = self.shown_rows(sql, params, |_| false)?;
        let sql = shown_where!("parent = ? AND name = ? AND base IS NULL");
        let fits = |row: &Adrift| row.parent == key && row.name == base.as_bytes();
        shown.extend(self.shown_rows(sql, params, fits)?);
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
        let sql = shown_where!("INDEXED BY shown_wanted", "parent = ? AND wanted = ?");
        let mut shown = self.shown_rows(sql, (key, wanted.as_bytes()), |_| false)?;
        shown.sort_unstable_by(|a, b| (a.node.key(), &a.name).cmp(&(b.node.key(), &b.name)));
        Ok(shown)
    }

    /// Up to `limit` names that something beside them is labelled from, after `after`, in the order
    /// of parents' keys and names.
    pub(crate) fn labelled(
        &self,
        after: Option<&(InodeId, EntryName)>,
        limit: usize,
    ) -> Result<Vec<(InodeId, EntryName)>, StoreError> {
        let parent = after.map(|(parent, _)| self.key(parent.0)).transpose()?.flatten();
        let name = after.map_or(&[][..], |(_, name)| name.as_bytes());
        let sql = "SELECT DISTINCT parent, base FROM shown INDEXED BY shown_base
                   WHERE base IS NOT NULL AND (parent, base) > (?, ?)
                   ORDER BY parent, base LIMIT ?";
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        self.all(sql, (parent.unwrap_or(i64::MIN), name, limit), |row| {
            Ok((self.inode_id(row.get(0)?)?, record::name(blob(row.get_ref(1)?)?)?))
        })
    }

    pub(crate) fn shown_of(&self, key: InodeId) -> Result<Vec<Shown>, StoreError> {
        let Some(key) = self.key(key.0)? else { return Ok(Vec::new()) };
        let sql = shown_where!("key = ?");
        let mut shown = self.shown_rows(sql, [key], |row| row.inode == key)?;
        let sql = plain_where!("inode = ? AND seen = 2");
        shown.extend(self.all(sql, [key], |row| self.read_plain(row))?);
        shown.sort_unstable_by(|a, b| (a.parent, &a.name).cmp(&(b.parent, &b.name)));
        Ok(shown)
    }

    /// The first `limit` names of a directory, and perhaps more, that are not entries where they
    /// are. In no order.
    pub(crate) fn list_special(
        &self,
        parent: i64,
        after: &[u8],
        limit: i64,
    ) -> Result<Vec<Shown>, StoreError> {
        let sql = shown_where!("parent = ? AND name > ? ORDER BY name LIMIT ?");
        let fits = |row: &Adrift| row.parent == parent && *row.name > *after;
        self.shown_rows(sql, (parent, after, limit), fits)
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

    /// Adds a name that isn't there. `copy_size` is in bytes.
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
        self.run(sql, params)?;
        self.note_rows(Table::Shown, 1);
        Ok(())
    }

    /// Takes a name out, if it is there.
    pub(crate) fn take_shown(
        &self,
        parent: InodeId,
        name: &EntryName,
    ) -> Result<Option<Taken>, StoreError> {
        let Some(parent) = self.key(parent.0)? else { return Ok(None) };
        let params = (parent, name.as_bytes());
        let sql = "SELECT id, inode FROM entries WHERE shown_parent = ? AND seen = 2 AND name = ?";
        let plain =
            self.first(sql, params, |row| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?)))?;
        if let Some((entry, key)) = plain {
            self.run("UPDATE entries SET seen = 1 WHERE id = ?", [entry])?;
            return Ok(Some(Taken { key, copy: None, labelled: false }));
        }
        let adrift = self.take_adrift(|row| row.parent == parent && row.name == name.as_bytes());
        if let Some(row) = adrift {
            return Ok(Some(Taken { key: row.inode, copy: None, labelled: false }));
        }
        if !self.may_have(Table::Shown) {
            return Ok(None);
        }
        let sql = "DELETE FROM shown WHERE parent = ? AND name = ?
                   RETURNING key, inode, size, wanted IS NOT NULL";
        let taken = self.first(sql, params, |row| {
            let copy_of: Option<i64> = row.get(1)?;
            let size = row.get(2)?;
            Ok(Taken {
                key: row.get(0)?,
                copy: copy_of.map(|inode| (inode, size)),
                labelled: row.get(3)?,
            })
        })?;
        if taken.is_some() {
            self.note_rows(Table::Shown, -1);
        }
        Ok(taken)
    }

    fn take_adrift(&self, fits: impl Fn(&Adrift) -> bool) -> Option<Adrift> {
        let adrift = &mut self.rare.borrow_mut().adrift;
        let at = adrift.iter().position(fits)?;
        Some(adrift.swap_remove(at))
    }

    /// Keeps the name that an entry's row stands for, because the entry is about to move: the view
    /// is told of that only afterwards.
    pub(crate) fn keep_shown(&self, entry: i64) -> Result<(), StoreError> {
        let sql = "SELECT shown_parent, name, inode FROM entries WHERE id = ? AND seen = 2";
        let row = self.first(sql, [entry], |row| {
            let (parent, name) = (row.get(0)?, blob(row.get_ref(1)?)?.to_vec());
            Ok(Adrift { parent, name, inode: row.get(2)?, entry })
        })?;
        self.rare.borrow_mut().adrift.extend(row);
        if self.rare.borrow().adrift.len() > ADRIFT_MAX {
            self.settle_adrift()?;
        }
        Ok(())
    }
}
