//! The ids of what is forgotten, what may be, and what other devices have said that they know.

use crate::StoreError;
use crate::handle::Handle;
use crate::index::key::blob;
use crate::index::rare::Table;
use kith_core::codec;
use kith_core::forget::{Hearsay, IdKind, PAGE_IDS, Page, PageId};
use kith_core::id::{DeviceId, Dot, EntryId, InodeId, WriterId};
use kith_core::vector::VersionVector;
use rusqlite::Row;

const fn kind(kind: IdKind) -> i64 {
    match kind {
        IdKind::Inode => 0,
        IdKind::Entry => 1,
    }
}

/// A page, of four columns.
fn page_from(row: &Row<'_>, first: usize) -> Result<Page, StoreError> {
    let number = |at| Ok::<_, StoreError>(row.get::<_, i64>(first + at)?.cast_unsigned());
    let kind = if number(0)? == 0 { IdKind::Inode } else { IdKind::Entry };
    let id = PageId { kind, writer: WriterId(number(1)?), number: number(2)? };
    Ok(Page::from_bytes(id, blob(row.get_ref(first + 3)?)?)?)
}

impl Handle {
    pub(crate) fn forgets(&self) -> Result<bool, StoreError> {
        if !self.may_have(Table::Forgotten) {
            return Ok(false);
        }
        Ok(self.first("SELECT 1 FROM forgotten LIMIT 1", [], |_| Ok(()))?.is_some())
    }

    pub(crate) fn forgotten(&self, id: PageId) -> Result<Option<Page>, StoreError> {
        if !self.may_have(Table::Forgotten) {
            return Ok(None);
        }
        let sql = "SELECT ids FROM forgotten WHERE kind = ? AND writer = ? AND page = ?";
        let params = (kind(id.kind), id.writer.0.cast_signed(), id.number.cast_signed());
        self.first(sql, params, |row| Ok(Page::from_bytes(id, blob(row.get_ref(0)?)?)?))
    }

    pub(crate) fn forgotten_after(
        &self,
        after: u64,
        limit: usize,
    ) -> Result<Vec<(u64, Page)>, StoreError> {
        let Ok(after) = i64::try_from(after) else { return Ok(Vec::new()) };
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let sql = "SELECT logged, kind, writer, page, ids FROM forgotten WHERE logged > ?
                   ORDER BY logged LIMIT ?";
        self.all(sql, (after, limit), |row| {
            let logged: i64 = row.get(0)?;
            Ok((logged.cast_unsigned(), page_from(row, 1)?))
        })
    }

    pub(crate) fn put_forgotten(&self, page: &Page, logged: u64) -> Result<(), StoreError> {
        let is_new = self.forgotten(page.id)?.is_none();
        let sql = "INSERT OR REPLACE INTO forgotten VALUES (?, ?, ?, ?, ?)";
        let params = (
            kind(page.id.kind),
            page.id.writer.0.cast_signed(),
            page.id.number.cast_signed(),
            logged.cast_signed(),
            page.to_bytes(),
        );
        self.run(sql, params)?;
        self.note_rows(Table::Forgotten, i64::from(is_new));
        Ok(())
    }

    /// The keys that a page spans, if there may be any rows with them.
    fn keys_on(&self, page: PageId) -> Result<Option<(i64, i64)>, StoreError> {
        // No page spans two rows of `writers`: 2^32 is a multiple of its size.
        let first = self.key(Dot { writer: page.writer, number: page.first() })?;
        Ok(first.map(|key| (key, key + PAGE_IDS.cast_signed() - 1)))
    }

    pub(crate) fn inodes_on(&self, page: PageId) -> Result<Vec<InodeId>, StoreError> {
        let Some(keys) = self.keys_on(page)? else { return Ok(Vec::new()) };
        let sql = "SELECT id FROM inodes WHERE id BETWEEN ? AND ? ORDER BY id";
        self.all(sql, keys, |row| self.inode_id(row.get(0)?))
    }

    pub(crate) fn entries_on(&self, page: PageId) -> Result<Vec<EntryId>, StoreError> {
        let Some(keys) = self.keys_on(page)? else { return Ok(Vec::new()) };
        let sql = "SELECT id FROM entries WHERE id BETWEEN ? AND ? ORDER BY id";
        self.all(sql, keys, |row| self.entry_id(row.get(0)?))
    }

    pub(crate) fn stated(&self, device: DeviceId) -> Result<Option<VersionVector>, StoreError> {
        let sql = "SELECT knowledge FROM stated WHERE device = ?";
        self.first(sql, [&device.0[..]], |row| Ok(codec::decode_vector(blob(row.get_ref(0)?)?)?))
    }

    pub(crate) fn put_stated(
        &self,
        device: DeviceId,
        knowledge: Option<&VersionVector>,
    ) -> Result<(), StoreError> {
        match knowledge {
            Some(knowledge) => {
                let params = (&device.0[..], codec::encode_vector(knowledge));
                self.run("INSERT OR REPLACE INTO stated VALUES (?, ?)", params).map(drop)
            }
            None => self.run("DELETE FROM stated WHERE device = ?", [&device.0[..]]).map(drop),
        }
    }

    pub(crate) fn hearsay(&self) -> Result<Vec<Hearsay>, StoreError> {
        if !self.may_have(Table::Hearsay) {
            return Ok(Vec::new());
        }
        let sql = "SELECT number, known FROM hearsay ORDER BY number";
        let numbered = self.all(sql, [], |row| {
            let number: i64 = row.get(0)?;
            Ok((number, codec::decode_vector(blob(row.get_ref(1)?)?)?))
        })?;
        let hearsay = numbered.into_iter().map(|(number, known)| {
            let sql = "SELECT kind, writer, page, ids FROM hearsay_ids WHERE number = ?";
            let pages = self.all(sql, [number], |row| page_from(row, 0))?;
            let pages = pages.into_iter().map(|page| (page.id, page)).collect();
            Ok(Hearsay { known, pages })
        });
        hearsay.collect()
    }

    pub(crate) fn put_hearsay(&self, hearsay: &[Hearsay]) -> Result<(), StoreError> {
        self.run("DELETE FROM hearsay_ids", [])?;
        self.remove_rows(Table::Hearsay, "DELETE FROM hearsay", [])?;
        for (number, it) in (0_i64..).zip(hearsay) {
            let known = codec::encode_vector(&it.known);
            self.run("INSERT INTO hearsay VALUES (?, ?)", (number, known))?;
            self.note_rows(Table::Hearsay, 1);
            for page in it.pages.values() {
                let params = (
                    number,
                    kind(page.id.kind),
                    page.id.writer.0.cast_signed(),
                    page.id.number.cast_signed(),
                    page.to_bytes(),
                );
                self.run("INSERT INTO hearsay_ids VALUES (?, ?, ?, ?, ?)", params)?;
            }
        }
        Ok(())
    }
}
