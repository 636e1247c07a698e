//! The SQL of segments, chunks and overlays.

use crate::StoreError;
use kith_core::id::ChunkId;
use rusqlite::{Connection, OptionalExtension, Params, Row};

/// What a file of the data directory is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    /// Empty, and waits to be used.
    Free,
    /// What is being written to a file of the share.
    Staging,
    /// The pack that chunks are appended to.
    OpenPack,
    /// A pack that nothing is appended to any more.
    Pack,
    /// A file of the share as it was written, and a manifest of its chunks.
    Whole,
}

impl Kind {
    fn number(self) -> i64 {
        match self {
            Kind::Free => 0,
            Kind::Staging => 1,
            Kind::OpenPack => 2,
            Kind::Pack => 3,
            Kind::Whole => 4,
        }
    }

    fn of(number: i64) -> Result<Self, StoreError> {
        match number {
            0 => Ok(Kind::Free),
            1 => Ok(Kind::Staging),
            2 => Ok(Kind::OpenPack),
            3 => Ok(Kind::Pack),
            4 => Ok(Kind::Whole),
            _ => Err(StoreError::Damaged("a segment of an unknown kind")),
        }
    }
}

/// A row of the segments.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct SegmentRow {
    pub(crate) id: u64,
    pub(crate) kind: Kind,
    /// The bytes from the start that an fdatasync has covered.
    pub(crate) durable_bytes: u64,
}

/// Where a chunk is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Location {
    pub(crate) segment: u64,
    pub(crate) offset: u64,
    pub(crate) len_bytes: u32,
}

/// A chunk and where it is.
pub(crate) type Located = (ChunkId, Location);

fn run(sql: &Connection, statement: &str, params: impl Params) -> Result<usize, StoreError> {
    Ok(sql.prepare_cached(statement)?.execute(params)?)
}

fn all<T>(
    sql: &Connection,
    statement: &str,
    params: impl Params,
    mut read: impl FnMut(&Row<'_>) -> Result<T, StoreError>,
) -> Result<Vec<T>, StoreError> {
    let mut statement = sql.prepare_cached(statement)?;
    let mut rows = statement.query(params)?;
    let mut all = Vec::new();
    while let Some(row) = rows.next()? {
        all.push(read(row)?);
    }
    Ok(all)
}

fn location(row: &Row<'_>, from: usize) -> Result<Location, rusqlite::Error> {
    Ok(Location {
        segment: row.get::<_, i64>(from)?.cast_unsigned(),
        offset: row.get::<_, i64>(from + 1)?.cast_unsigned(),
        len_bytes: row.get(from + 2)?,
    })
}

fn located(row: &Row<'_>) -> Result<Located, StoreError> {
    Ok((ChunkId(row.get(0)?), location(row, 1)?))
}

/// Where the chunk is, if it is here.
pub(crate) fn find_chunk(sql: &Connection, id: &ChunkId) -> Result<Option<Location>, StoreError> {
    let mut statement =
        sql.prepare_cached("SELECT segment, start, len FROM chunks WHERE id = ?")?;
    Ok(statement.query_row([&id.0], |row| location(row, 0)).optional()?)
}

/// Notes where a chunk is, unless it is here already.
pub(crate) fn insert_chunk(sql: &Connection, (id, at): &Located) -> Result<(), StoreError> {
    let row = (&id.0, at.segment.cast_signed(), at.offset.cast_signed(), at.len_bytes);
    run(sql, "INSERT OR IGNORE INTO chunks VALUES (?, ?, ?, ?)", row)?;
    Ok(())
}

/// Notes that a chunk is elsewhere now, if it is still where it was.
pub(crate) fn move_chunk(
    sql: &Connection,
    id: &ChunkId,
    from: &Location,
    to: &Location,
) -> Result<(), StoreError> {
    run(
        sql,
        "UPDATE chunks SET segment = ?, start = ? WHERE id = ? AND segment = ? AND start = ?",
        (
            to.segment.cast_signed(),
            to.offset.cast_signed(),
            &id.0,
            from.segment.cast_signed(),
            from.offset.cast_signed(),
        ),
    )?;
    Ok(())
}

/// Forgets a chunk, if it is still there.
pub(crate) fn delete_chunk(sql: &Connection, (id, at): &Located) -> Result<bool, StoreError> {
    let key = (&id.0, at.segment.cast_signed(), at.offset.cast_signed());
    let deleted = "DELETE FROM chunks WHERE id = ? AND segment = ? AND start = ?";
    Ok(run(sql, deleted, key)? > 0)
}

/// Up to `limit` chunks after `after`, in the ids' order.
pub(crate) fn chunks_after(
    sql: &Connection,
    after: &ChunkId,
    limit: usize,
) -> Result<Vec<Located>, StoreError> {
    let query = "SELECT id, segment, start, len FROM chunks WHERE id > ? ORDER BY id LIMIT ?";
    all(sql, query, (&after.0, limit as i64), located)
}

/// How many chunks are here, at most `limit`.
pub(crate) fn count_chunks(sql: &Connection) -> Result<u64, StoreError> {
    let count: i64 =
        sql.prepare_cached("SELECT count(*) FROM chunks")?.query_row([], |row| row.get(0))?;
    Ok(count.cast_unsigned())
}

/// All segments, in the ids' order.
pub(crate) fn segments(sql: &Connection) -> Result<Vec<SegmentRow>, StoreError> {
    all(sql, "SELECT id, kind, durable FROM segments ORDER BY id", [], |row| {
        Ok(SegmentRow {
            id: row.get::<_, i64>(0)?.cast_unsigned(),
            kind: Kind::of(row.get(1)?)?,
            durable_bytes: row.get::<_, i64>(2)?.cast_unsigned(),
        })
    })
}

/// Makes a segment of kind [`Kind::Free`]; its id has never been used.
pub(crate) fn insert_segment(sql: &Connection) -> Result<u64, StoreError> {
    run(sql, "INSERT INTO segments (kind, durable) VALUES (0, 0)", [])?;
    Ok(sql.last_insert_rowid().cast_unsigned())
}

/// Says what a segment is from now on.
pub(crate) fn set_kind(sql: &Connection, id: u64, kind: Kind) -> Result<(), StoreError> {
    let update = "UPDATE segments SET kind = ? WHERE id = ?";
    match run(sql, update, (kind.number(), id.cast_signed()))? {
        1 => Ok(()),
        _ => Err(StoreError::Damaged("a segment in use is unknown")),
    }
}

/// Notes that a segment's bytes up to `durable_bytes` were synced.
pub(crate) fn set_durable(sql: &Connection, id: u64, durable_bytes: u64) -> Result<(), StoreError> {
    let update = "UPDATE segments SET durable = ? WHERE id = ?";
    run(sql, update, (durable_bytes.cast_signed(), id.cast_signed()))?;
    Ok(())
}

/// Forgets a segment.
pub(crate) fn delete_segment(sql: &Connection, id: u64) -> Result<(), StoreError> {
    run(sql, "DELETE FROM segments WHERE id = ?", [id.cast_signed()])?;
    Ok(())
}

/// All overlays: id, whether it is as of an fsync, state.
pub(crate) fn overlays(sql: &Connection) -> Result<Vec<(u64, bool, Vec<u8>)>, StoreError> {
    all(sql, "SELECT id, synced, state FROM overlays ORDER BY id", [], |row| {
        Ok((row.get::<_, i64>(0)?.cast_unsigned(), row.get(1)?, row.get(2)?))
    })
}

/// Keeps an overlay's state. One that isn't as of an fsync never replaces one that is.
pub(crate) fn put_overlay(
    sql: &Connection,
    id: u64,
    synced: bool,
    state: &[u8],
) -> Result<(), StoreError> {
    run(
        sql,
        "INSERT INTO overlays VALUES (?1, ?2, ?3)
         ON CONFLICT (id) DO UPDATE SET synced = ?2, state = ?3 WHERE synced <= ?2",
        (id.cast_signed(), synced, state),
    )?;
    Ok(())
}

/// Changes the state of an overlay that is kept, if it is.
pub(crate) fn update_overlay(sql: &Connection, id: u64, state: &[u8]) -> Result<(), StoreError> {
    run(sql, "UPDATE overlays SET state = ? WHERE id = ?", (state, id.cast_signed()))?;
    Ok(())
}

/// Forgets an overlay.
pub(crate) fn delete_overlay(sql: &Connection, id: u64) -> Result<(), StoreError> {
    run(sql, "DELETE FROM overlays WHERE id = ?", [id.cast_signed()])?;
    Ok(())
}
