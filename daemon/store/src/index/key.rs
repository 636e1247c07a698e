//! Dots as keys: one integer, small for the writers that this index knows.
//!
//! A key is the row of (writer, upper half of the number) in the table `writers`, shifted left by
//! 32 bits, and the lower half of the number. The order of keys means nothing.

use crate::StoreError;
use crate::handle::Handle;
use kith_core::id::{Dot, EntryId, InodeId, WriterId};
use rusqlite::types::ValueRef;
use std::collections::BTreeMap;

/// The most writers kept in memory for one connection; other devices decide how many there are.
const KEPT: usize = 4096;

/// The writers that a connection has met.
#[derive(Default)]
pub(crate) struct Writers {
    rows: BTreeMap<(u64, u32), i64>,
    writers: BTreeMap<i64, (u64, u32)>,
}

impl Writers {
    /// Forgets all.
    pub(crate) fn clear(&mut self) {
        self.rows.clear();
        self.writers.clear();
    }

    fn keep(&mut self, row: i64, writer: (u64, u32)) {
        if self.rows.len() >= KEPT {
            self.clear();
        }
        self.rows.insert(writer, row);
        self.writers.insert(row, writer);
    }
}

/// The key of the share's root.
pub(crate) const ROOT: i64 = 0;

fn split(dot: Dot) -> ((u64, u32), i64) {
    let (high, low) = (dot.number >> 32, dot.number & 0xffff_ffff);
    ((dot.writer.0, high as u32), low as i64)
}

impl Handle {
    /// The key of a dot, if anything of its writer is here at all.
    pub(crate) fn key(&self, dot: Dot) -> Result<Option<i64>, StoreError> {
        let (writer, low) = split(dot);
        if writer == (0, 0) {
            return Ok(Some(low));
        }
        if let Some(row) = self.writers.borrow().rows.get(&writer) {
            return Ok(Some(row << 32 | low));
        }
        let row = self.first(
            "SELECT row FROM writers WHERE writer = ? AND high = ?",
            (writer.0.cast_signed(), writer.1),
            |found| Ok(found.get(0)?),
        )?;
        if let Some(row) = row {
            self.writers.borrow_mut().keep(row, writer);
        }
        Ok(row.map(|row: i64| row << 32 | low))
    }

    /// The key of a dot whose row is about to be written.
    pub(crate) fn make_key(&self, dot: Dot) -> Result<i64, StoreError> {
        if let Some(key) = self.key(dot)? {
            return Ok(key);
        }
        let (writer, low) = split(dot);
        self.run(
            "INSERT INTO writers (writer, high) VALUES (?, ?)",
            (writer.0.cast_signed(), writer.1),
        )?;
        let row = self.sql().last_insert_rowid();
        if row >= 1 << 31 {
            return Err(StoreError::Damaged("more writers than keys have room for"));
        }
        self.writers.borrow_mut().keep(row, writer);
        Ok(row << 32 | low)
    }

    /// The dot of a key.
    pub(crate) fn dot(&self, key: i64) -> Result<Dot, StoreError> {
        let (row, low) = (key >> 32, (key & 0xffff_ffff).cast_unsigned());
        let dot = |(writer, high): (u64, u32)| Dot {
            writer: WriterId(writer),
            number: u64::from(high) << 32 | low,
        };
        if row == 0 {
            return Ok(dot((0, 0)));
        }
        if let Some(writer) = self.writers.borrow().writers.get(&row) {
            return Ok(dot(*writer));
        }
        let writer =
            self.first("SELECT writer, high FROM writers WHERE row = ?", [row], |found| {
                Ok((found.get::<_, i64>(0)?.cast_unsigned(), found.get(1)?))
            })?;
        let writer = writer.ok_or(StoreError::Damaged("a key of an unknown writer"))?;
        self.writers.borrow_mut().keep(row, writer);
        Ok(dot(writer))
    }

    /// The inode of a key.
    pub(crate) fn inode_id(&self, key: i64) -> Result<InodeId, StoreError> {
        self.dot(key).map(InodeId)
    }

    /// The entry of a key.
    pub(crate) fn entry_id(&self, key: i64) -> Result<EntryId, StoreError> {
        self.dot(key).map(EntryId)
    }
}

/// The bytes of a blob column.
pub(crate) fn blob(value: ValueRef<'_>) -> Result<&[u8], StoreError> {
    value.as_blob().map_err(|_| StoreError::Damaged("a column holds another type than it should"))
}
