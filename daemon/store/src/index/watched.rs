//! The rows of writers that have taken files away.

use crate::StoreError;
use crate::handle::Handle;
use crate::index::key::blob;
use kith_core::alarm::Watch;
use kith_core::clock::Hlc;
use kith_core::id::WriterId;
use std::collections::BTreeMap;

fn writer(row: &rusqlite::Row<'_>) -> Result<WriterId, StoreError> {
    Ok(WriterId(row.get::<_, i64>(0)?.cast_unsigned()))
}

impl Handle {
    /// What is known of one writer's losses.
    pub(crate) fn watch(&self, writer: WriterId) -> Result<Watch, StoreError> {
        let sql = "SELECT state FROM watched WHERE writer = ?";
        let state = self.first(sql, [writer.0.cast_signed()], |row| {
            Ok(Watch::decode(blob(row.get_ref(0)?)?)?)
        })?;
        Ok(state.unwrap_or_default())
    }

    pub(crate) fn put_watch(&self, writer: WriterId, watch: &Watch) -> Result<(), StoreError> {
        let sql = "INSERT OR REPLACE INTO watched VALUES (?, ?, ?)";
        let meant = watch.meant.0.cast_signed();
        self.run(sql, (writer.0.cast_signed(), meant, watch.encode())).map(drop)
    }

    /// All of them, in the order of their writers.
    pub(crate) fn watches(&self) -> Result<Vec<(WriterId, Watch)>, StoreError> {
        self.all("SELECT writer, state FROM watched ORDER BY writer", [], |row| {
            Ok((writer(row)?, Watch::decode(blob(row.get_ref(1)?)?)?))
        })
    }

    /// Up to when all changes of writers were meant.
    pub(crate) fn meant(&self) -> Result<BTreeMap<WriterId, Hlc>, StoreError> {
        let rows = self.all("SELECT writer, meant FROM watched WHERE meant <> 0", [], |row| {
            Ok((writer(row)?, Hlc(row.get::<_, i64>(1)?.cast_unsigned())))
        })?;
        Ok(rows.into_iter().collect())
    }
}
