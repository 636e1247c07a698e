//! The writers that this index had, and what others say of them.

use crate::StoreError;
use crate::handle::Handle;
use kith_core::clock::WallMs;
use kith_core::id::{Cursor, DeviceId, Dot, Tag, WriterId};
use kith_core::index::{
    CloneSigns, FORMER_WRITERS_MAX, FormerWriter, Named, STRANGERS_MAX, Stranger,
};
use rusqlite::Row;

fn number(row: &Row<'_>, at: usize) -> Result<u64, StoreError> {
    Ok(row.get::<_, i64>(at)?.cast_unsigned())
}

impl Handle {
    pub(crate) fn former_writers(&self) -> Result<Vec<FormerWriter>, StoreError> {
        let sql = "SELECT writer, last, ended, succeeded FROM former_writers ORDER BY place";
        self.all(sql, [], |row| {
            Ok(FormerWriter {
                last: Dot { writer: WriterId(number(row, 0)?), number: number(row, 1)? },
                ended: WallMs(number(row, 2)?),
                succeeded: WallMs(number(row, 3)?),
            })
        })
    }

    pub(crate) fn put_former_writer(&self, former: FormerWriter) -> Result<(), StoreError> {
        let sql = "INSERT INTO former_writers (writer, last, ended, succeeded) VALUES (?, ?, ?, ?)";
        let FormerWriter { last, ended, succeeded } = former;
        let values = [last.writer.0, last.number, ended.0, succeeded.0];
        self.run(sql, values.map(u64::cast_signed))?;
        let sql =
            "DELETE FROM former_writers WHERE place <= (SELECT max(place) FROM former_writers) - ?";
        self.run(sql, [FORMER_WRITERS_MAX as i64]).map(drop)
    }

    pub(crate) fn strangers(&self) -> Result<Vec<Stranger>, StoreError> {
        let sql = "SELECT writer, noticed FROM strangers ORDER BY place";
        self.all(sql, [], |row| {
            Ok(Stranger { writer: WriterId(number(row, 0)?), noticed: WallMs(number(row, 1)?) })
        })
    }

    pub(crate) fn put_stranger(&self, stranger: Stranger) -> Result<(), StoreError> {
        let sql = "INSERT INTO strangers (writer, noticed) VALUES (?, ?)";
        self.run(sql, [stranger.writer.0, stranger.noticed.0].map(u64::cast_signed))?;
        let sql = "DELETE FROM strangers WHERE place <= (SELECT max(place) FROM strangers) - ?";
        self.run(sql, [STRANGERS_MAX as i64]).map(drop)
    }

    pub(crate) fn named(&self, device: DeviceId) -> Result<Option<Named>, StoreError> {
        let sql = "SELECT writer, number, tag, under FROM named WHERE device = ?";
        self.first(sql, [&device.0[..]], |row| {
            let head = Cursor {
                writer: WriterId(number(row, 0)?),
                number: number(row, 1)?,
                tag: Tag(number(row, 2)?),
            };
            Ok(Named { head, under: WriterId(number(row, 3)?) })
        })
    }

    pub(crate) fn put_named(&self, device: DeviceId, named: Named) -> Result<(), StoreError> {
        let Named { head: Cursor { writer, number, tag }, under } = named;
        let [writer, number, tag, under] = [writer.0, number, tag.0, under.0].map(u64::cast_signed);
        let sql = "INSERT OR REPLACE INTO named VALUES (?, ?, ?, ?, ?)";
        self.run(sql, (&device.0[..], writer, number, tag, under)).map(drop)
    }

    pub(crate) fn clone_signs(&self) -> Result<Option<CloneSigns>, StoreError> {
        let sql = "SELECT clone_first, clone_last FROM replica WHERE clone_last IS NOT NULL";
        self.first(sql, [], |row| {
            Ok(CloneSigns { first: WallMs(number(row, 0)?), last: WallMs(number(row, 1)?) })
        })
    }

    pub(crate) fn put_clone_signs(&self, signs: CloneSigns) -> Result<(), StoreError> {
        let sql = "UPDATE replica SET clone_first = ?, clone_last = ?";
        self.run(sql, [signs.first.0, signs.last.0].map(u64::cast_signed)).map(drop)
    }

    pub(crate) fn forget_strangers(&self) -> Result<(), StoreError> {
        self.run("DELETE FROM strangers", [])?;
        self.run("DELETE FROM named", [])?;
        self.run("UPDATE replica SET clone_first = NULL, clone_last = NULL", []).map(drop)
    }
}
