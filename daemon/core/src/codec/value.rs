//! The encoding of dots, stamps, times and version vectors.

use super::field::{Writer, read_array, read_map, read_tuple};
use super::{DecodeError, WRITERS_MAX};
use crate::clock::{Hlc, Stamp};
use crate::id::{Cursor, Dot, Reached, Tag, WriterId};
use crate::register::{AUTHOR_MAX_BYTES, Author, UnixTime};
use crate::vector::VersionVector;
use minicbor::Decoder;

/// `[writer, number]`.
pub(super) fn write_dot(writer: &mut Writer, dot: Dot) {
    writer.array(2);
    writer.uint(dot.writer.0);
    writer.uint(dot.number);
}

pub(super) fn read_dot(decoder: &mut Decoder<'_>) -> Result<Dot, DecodeError> {
    read_tuple(decoder, "a dot", 2)?;
    Ok(Dot { writer: WriterId(decoder.u64()?), number: decoder.u64()? })
}

/// `[hlc, writer]`.
pub(super) fn write_stamp(writer: &mut Writer, stamp: Stamp) {
    writer.array(2);
    writer.uint(stamp.hlc.0);
    writer.uint(stamp.writer.0);
}

pub(super) fn read_stamp(decoder: &mut Decoder<'_>) -> Result<Stamp, DecodeError> {
    read_tuple(decoder, "a stamp", 2)?;
    Ok(Stamp { hlc: Hlc(decoder.u64()?), writer: WriterId(decoder.u64()?) })
}

/// A stamp and a dot together: `[hlc, writer, number]`, or `[hlc, stamp's writer, dot's writer,
/// number]` if the writers differ.
pub(super) fn write_origin(writer: &mut Writer, stamp: Stamp, dot: Dot) {
    let same = stamp.writer == dot.writer;
    writer.array(if same { 3 } else { 4 });
    writer.uint(stamp.hlc.0);
    writer.uint(stamp.writer.0);
    if !same {
        writer.uint(dot.writer.0);
    }
    writer.uint(dot.number);
}

pub(super) fn read_origin(decoder: &mut Decoder<'_>) -> Result<(Stamp, Dot), DecodeError> {
    let count = read_array(decoder, "an origin", 4)?;
    if count < 3 {
        return Err(DecodeError::Bounds("an origin"));
    }
    let stamp = Stamp { hlc: Hlc(decoder.u64()?), writer: WriterId(decoder.u64()?) };
    let writer = if count == 4 { WriterId(decoder.u64()?) } else { stamp.writer };
    Ok((stamp, Dot { writer, number: decoder.u64()? }))
}

/// `[seconds, nanoseconds]`.
pub(super) fn write_time(writer: &mut Writer, time: UnixTime) {
    writer.array(2);
    writer.int(time.seconds);
    writer.uint(u64::from(time.nanoseconds));
}

pub(super) fn read_time(decoder: &mut Decoder<'_>) -> Result<UnixTime, DecodeError> {
    read_tuple(decoder, "a time", 2)?;
    let time = UnixTime { seconds: decoder.i64()?, nanoseconds: decoder.u32()? };
    if time.nanoseconds < 1_000_000_000 {
        Ok(time)
    } else {
        Err(DecodeError::Bounds("a time's nanoseconds"))
    }
}

/// `[writer, number, tag]`.
pub(crate) fn write_cursor(writer: &mut Writer, cursor: Cursor) {
    writer.array(3);
    writer.uint(cursor.writer.0);
    writer.uint(cursor.number);
    writer.uint(cursor.tag.0);
}

pub(crate) fn read_cursor(decoder: &mut Decoder<'_>) -> Result<Cursor, DecodeError> {
    read_tuple(decoder, "a cursor", 3)?;
    let writer = WriterId(decoder.u64()?);
    Ok(Cursor { writer, number: decoder.u64()?, tag: Tag(decoder.u64()?) })
}

/// `[number, head]`.
pub(crate) fn write_reached(writer: &mut Writer, reached: Reached) {
    writer.array(2);
    writer.uint(reached.number);
    write_cursor(writer, reached.head);
}

pub(crate) fn read_reached(decoder: &mut Decoder<'_>) -> Result<Reached, DecodeError> {
    read_tuple(decoder, "how far a device has come", 2)?;
    let number = decoder.u64()?;
    let head = read_cursor(decoder)?;
    if number > head.number {
        return Err(DecodeError::Bounds("a place beyond a log's end"));
    }
    Ok(Reached { number, head })
}

/// A map from writers to numbers, in the writers' order.
pub(crate) fn write_vector(writer: &mut Writer, vector: &VersionVector) {
    writer.map(vector.len());
    for dot in vector.dots() {
        writer.uint(dot.writer.0);
        writer.uint(dot.number);
    }
}

pub(crate) fn read_vector(decoder: &mut Decoder<'_>) -> Result<VersionVector, DecodeError> {
    const WHAT: &str = "a version vector";
    let count = read_map(decoder, WHAT, WRITERS_MAX)?;
    let mut vector = VersionVector::new();
    let mut last = None;
    for _ in 0..count {
        let dot = Dot { writer: WriterId(decoder.u64()?), number: decoder.u64()? };
        if last.is_some_and(|last| last >= dot.writer) {
            return Err(DecodeError::Order(WHAT));
        }
        if dot.number == 0 {
            return Err(DecodeError::Bounds(WHAT));
        }
        last = Some(dot.writer);
        vector.include(dot);
    }
    Ok(vector)
}

pub(crate) fn read_author(decoder: &mut Decoder<'_>) -> Result<Author, DecodeError> {
    let author = decoder.str()?;
    if author.len() <= AUTHOR_MAX_BYTES {
        Ok(author.into())
    } else {
        Err(DecodeError::Bounds("an author"))
    }
}
