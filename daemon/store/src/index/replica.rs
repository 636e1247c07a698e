//! The replica's own row: its state, and the counters that are kept up with it. And its tags and
//! how far it has come in the logs of others.

use crate::StoreError;
use crate::handle::Handle;
use crate::index::key::blob;
use kith_core::clock::Hlc;
use kith_core::codec;
use kith_core::id::{Cursor, DeviceId, Reached, ShareId, Tag, WriterId};
use kith_core::index::ReplicaState;

/// How many transactions' tags are kept. A cursor from before them can't be checked any more.
pub(crate) const TAGS_MAX: u64 = 1_000_000;

/// How many tags are dropped at once.
const TAGS_DROPPED: u64 = 1024;

/// What is counted as it changes, so that nobody has to scan for it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Totals {
    /// The names of the view.
    pub entries: u64,
    /// Those that lead to files.
    pub files: u64,
    /// The sizes of the files that these names lead to; a file counts once for each of its names.
    pub bytes: u64,
    /// The names that show something beside what has the name that it would have.
    pub conflicts: u64,
    /// The bytes that are still to be fetched for these files.
    pub absent_bytes: u64,
}

fn id<const N: usize>(bytes: &[u8]) -> Result<[u8; N], StoreError> {
    bytes.try_into().map_err(|_| StoreError::Damaged("an id has the wrong length"))
}

impl Handle {
    /// The replica's state; none if the index was never founded.
    pub(crate) fn read_state(&self) -> Result<Option<ReplicaState>, StoreError> {
        let sql = "SELECT share, device, author, writer, number, hlc, knowledge FROM replica
                   WHERE share IS NOT NULL";
        self.first(sql, [], |row| {
            Ok(ReplicaState {
                share: ShareId(id(blob(row.get_ref(0)?)?)?),
                device: DeviceId(id(blob(row.get_ref(1)?)?)?),
                author: row.get(2)?,
                writer: WriterId(row.get::<_, i64>(3)?.cast_unsigned()),
                number: row.get::<_, i64>(4)?.cast_unsigned(),
                hlc: Hlc(row.get::<_, i64>(5)?.cast_unsigned()),
                knowledge: codec::decode_vector(blob(row.get_ref(6)?)?)?,
            })
        })
    }

    pub(crate) fn write_state(&self, state: &ReplicaState) -> Result<(), StoreError> {
        let sql = "UPDATE replica SET share = ?, device = ?, author = ?, writer = ?, number = ?,
                   hlc = ?, knowledge = ?";
        let params = (
            &state.share.0[..],
            &state.device.0[..],
            &state.author,
            state.writer.0.cast_signed(),
            state.number.cast_signed(),
            state.hlc.0.cast_signed(),
            codec::encode_vector(&state.knowledge),
        );
        self.run(sql, params).map(drop)
    }

    /// Writes what most transactions change.
    pub(crate) fn write_clock(
        &self,
        state: &ReplicaState,
        totals: &Totals,
    ) -> Result<(), StoreError> {
        let sql = "UPDATE replica SET number = ?, hlc = ?, entries = ?, bytes = ?, conflicts = ?,
                   absent = ?, files = ?";
        let params = (
            state.number.cast_signed(),
            state.hlc.0.cast_signed(),
            totals.entries.cast_signed(),
            totals.bytes.cast_signed(),
            totals.conflicts.cast_signed(),
            totals.absent_bytes.cast_signed(),
            totals.files.cast_signed(),
        );
        self.run(sql, params).map(drop)
    }

    pub(crate) fn read_totals(&self) -> Result<Totals, StoreError> {
        let read = |row: &rusqlite::Row<'_>, at| -> Result<u64, StoreError> {
            Ok(row.get::<_, i64>(at)?.cast_unsigned())
        };
        let sql = "SELECT entries, files, bytes, conflicts, absent FROM replica";
        let totals = self.first(sql, [], |row| {
            Ok(Totals {
                entries: read(row, 0)?,
                files: read(row, 1)?,
                bytes: read(row, 2)?,
                conflicts: read(row, 3)?,
                absent_bytes: read(row, 4)?,
            })
        })?;
        totals.ok_or(StoreError::Damaged("the replica's row is missing"))
    }

    /// How many tags there are, and the last number that has one.
    pub(crate) fn count_tags(&self) -> Result<(u64, u64), StoreError> {
        let sql = "SELECT count(*), coalesce(max(last), 0) FROM tags";
        let counts = self.first(sql, [], |row| {
            Ok((row.get::<_, i64>(0)?.cast_unsigned(), row.get::<_, i64>(1)?.cast_unsigned()))
        })?;
        Ok(counts.unwrap_or_default())
    }

    pub(crate) fn tag(&self, number: u64) -> Result<Option<Tag>, StoreError> {
        // Peers ask for whatever they like; numbers given out here never come near the border.
        let Ok(number) = i64::try_from(number) else { return Ok(None) };
        let sql = "SELECT tag FROM tags
                   WHERE last >= ?1 AND ?1 > (SELECT tags_from FROM replica) ORDER BY last LIMIT 1";
        self.first(sql, [number], |row| Ok(Tag(row.get::<_, i64>(0)?.cast_unsigned())))
    }

    /// Adds the tag of all numbers up to `last` that have none.
    pub(crate) fn put_tag(&self, last: u64, tag: Tag) -> Result<(), StoreError> {
        let sql = "INSERT INTO tags VALUES (?, ?)";
        self.run(sql, (last.cast_signed(), tag.0.cast_signed())).map(drop)
    }

    /// Drops the oldest tags. Says how many.
    pub(crate) fn drop_tags(&self) -> Result<u64, StoreError> {
        let sql = "SELECT last FROM tags ORDER BY last LIMIT 1 OFFSET ?";
        let cut = [TAGS_DROPPED.cast_signed() - 1];
        let Some(cut) = self.first(sql, cut, |row| Ok(row.get::<_, i64>(0)?))? else {
            return Ok(0);
        };
        self.run("UPDATE replica SET tags_from = ?", [cut])?;
        Ok(self.run("DELETE FROM tags WHERE last <= ?", [cut])? as u64)
    }

    pub(crate) fn clear_tags(&self) -> Result<(), StoreError> {
        self.run("DELETE FROM tags", [])?;
        self.run("UPDATE replica SET tags_from = -1", []).map(drop)
    }

    pub(crate) fn reached(&self, device: DeviceId) -> Result<Option<Reached>, StoreError> {
        let sql = "SELECT number, writer, head, tag FROM reached WHERE device = ?";
        self.first(sql, [&device.0[..]], |row| {
            let number = |at| Ok::<_, StoreError>(row.get::<_, i64>(at)?.cast_unsigned());
            let (writer, tag) = (WriterId(number(1)?), Tag(number(3)?));
            let head = Cursor { writer, number: number(2)?, tag };
            Ok(Reached { number: number(0)?, head })
        })
    }

    pub(crate) fn put_reached(&self, device: DeviceId, at: Reached) -> Result<(), StoreError> {
        let sql = "INSERT OR REPLACE INTO reached VALUES (?, ?, ?, ?, ?)";
        let Reached { number, head } = at;
        let [number, writer, head, tag] =
            [number, head.writer.0, head.number, head.tag.0].map(u64::cast_signed);
        let params = (&device.0[..], number, writer, head, tag);
        self.run(sql, params).map(drop)
    }
}
