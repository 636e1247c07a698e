//! Rows that are rare, and what spares asking for them.
//!
//! Most shares have no unions, no copies and no labelled names most of the time, and still every
//! operation has to ask. The one writer knows how many such rows there are; readers ask.

use crate::StoreError;
use crate::handle::Handle;

/// A table of rare rows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Table {
    Unions,
    Copies,
    Shown,
    Incomplete,
    Forgotten,
    Hearsay,
}

/// A row that would be in `shown`, if the transaction ended here: a name of which the entry has
/// moved, and which the view is about to give up.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Adrift {
    pub(crate) parent: i64,
    pub(crate) name: Vec<u8>,
    pub(crate) inode: i64,
    pub(crate) entry: i64,
}

/// What a connection knows of rare rows.
#[derive(Default)]
pub(crate) struct Rare {
    /// How many rows each table has; none if nobody counts them here.
    rows: Option<[i64; 6]>,
    committed: [i64; 6],
    pub(crate) adrift: Vec<Adrift>,
}

impl Rare {
    pub(crate) fn commit(&mut self) {
        self.committed = self.rows.unwrap_or_default();
    }

    pub(crate) fn rollback(&mut self) {
        self.adrift.clear();
        self.rows = self.rows.map(|_| self.committed);
    }
}

impl Handle {
    /// Counts rare rows from now on. All changes to them must come through this connection.
    pub(crate) fn count_rare(&self) -> Result<(), StoreError> {
        let sql = "SELECT (SELECT count(*) FROM unions), (SELECT count(*) FROM copies),
                   (SELECT count(*) FROM shown), (SELECT count(*) FROM incomplete),
                   (SELECT count(*) FROM forgotten), (SELECT count(*) FROM hearsay)";
        let rows = self.first(sql, [], |row| {
            Ok([row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?, row.get(5)?])
        })?;
        let mut rare = self.rare.borrow_mut();
        rare.rows = rows;
        rare.commit();
        Ok(())
    }

    /// Whether a table may have rows.
    pub(crate) fn may_have(&self, table: Table) -> bool {
        self.rare.borrow().rows.is_none_or(|rows| rows[table as usize] != 0)
    }

    /// Notes that a statement added rows to a table, or removed some.
    pub(crate) fn note_rows(&self, table: Table, added: i64) {
        if let Some(rows) = &mut self.rare.borrow_mut().rows {
            rows[table as usize] += added;
        }
    }

    /// Runs a statement that removes rows from a table.
    pub(crate) fn remove_rows(
        &self,
        table: Table,
        sql: &str,
        params: impl rusqlite::Params,
    ) -> Result<usize, StoreError> {
        if !self.may_have(table) {
            return Ok(0);
        }
        let removed = self.run(sql, params)?;
        self.note_rows(table, -i64::try_from(removed).unwrap_or(i64::MAX));
        Ok(removed)
    }

    /// Writes the names that are still adrift at the end of a transaction.
    pub(crate) fn settle_adrift(&self) -> Result<(), StoreError> {
        let adrift = std::mem::take(&mut self.rare.borrow_mut().adrift);
        let sql = "INSERT INTO shown (parent, name, key, size, entry, repaired)
                   VALUES (?, ?, ?, 0, ?, 0)";
        for row in adrift {
            self.run(sql, (row.parent, row.name, row.inode, row.entry))?;
            self.note_rows(Table::Shown, 1);
        }
        Ok(())
    }
}
