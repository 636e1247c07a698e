//! Maps with numbered fields: written in order, read with unknown fields kept.

use super::{DecodeError, FIELDS_MAX, UNREAD_MAX_BYTES};
use crate::register::Unread;
use alloc::vec::Vec;
use core::convert::Infallible;
use minicbor::{Decoder, Encoder};

const INFALLIBLE: &str = "a Vec takes every byte";

/// Writes CBOR to memory, which can't fail.
pub(crate) struct Writer(Encoder<Vec<u8>>);

impl Writer {
    pub(crate) fn new() -> Self {
        Writer(Encoder::new(Vec::new()))
    }

    /// Goes on after what `bytes` hold.
    pub(crate) fn after(bytes: Vec<u8>) -> Self {
        Writer(Encoder::new(bytes))
    }

    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.0.into_writer()
    }

    fn put(
        &mut self,
        write: impl FnOnce(
            &mut Encoder<Vec<u8>>,
        )
            -> Result<&mut Encoder<Vec<u8>>, minicbor::encode::Error<Infallible>>,
    ) {
        write(&mut self.0).expect(INFALLIBLE);
    }

    pub(crate) fn uint(&mut self, value: u64) {
        self.put(|encoder| encoder.u64(value));
    }

    pub(crate) fn int(&mut self, value: i64) {
        self.put(|encoder| encoder.i64(value));
    }

    pub(crate) fn bool(&mut self, value: bool) {
        self.put(|encoder| encoder.bool(value));
    }

    pub(crate) fn bytes(&mut self, value: &[u8]) {
        self.put(|encoder| encoder.bytes(value));
    }

    pub(crate) fn text(&mut self, value: &str) {
        self.put(|encoder| encoder.str(value));
    }

    pub(crate) fn array(&mut self, len: usize) {
        self.put(|encoder| encoder.array(len as u64));
    }

    pub(crate) fn map(&mut self, len: usize) {
        self.put(|encoder| encoder.map(len as u64));
    }

    /// Adds items that are encoded already.
    pub(crate) fn raw(&mut self, encoded: &[u8]) {
        self.0.writer_mut().extend_from_slice(encoded);
    }

    /// Begins a structure of `known` fields and those that are unread.
    pub(crate) fn fields<'a>(&'a mut self, known: usize, unread: &'a Unread) -> FieldWriter<'a> {
        self.map(known + unread.len());
        FieldWriter { writer: self, missing: known, unread: unread.iter() }
    }
}

/// Writes the fields of one structure, unread ones in their places.
pub(crate) struct FieldWriter<'a> {
    writer: &'a mut Writer,
    missing: usize,
    unread: alloc::collections::btree_map::Iter<'a, u32, alloc::boxed::Box<[u8]>>,
}

impl FieldWriter<'_> {
    /// Writes a field. Numbers must ascend from call to call.
    pub(crate) fn field(&mut self, number: u32, write: impl FnOnce(&mut Writer)) {
        let mut ahead = self.unread.clone();
        while let Some((unread, encoded)) = ahead.next().filter(|(unread, _)| **unread < number) {
            self.writer.uint(u64::from(*unread));
            self.writer.raw(encoded);
            self.unread = ahead.clone();
        }
        self.writer.uint(u64::from(number));
        write(self.writer);
        self.missing =
            self.missing.checked_sub(1).expect("a structure has as many fields as it announced");
    }

    /// Writes a field if there is a value.
    pub(crate) fn optional<T>(
        &mut self,
        number: u32,
        value: Option<T>,
        write: impl FnOnce(&mut Writer, T),
    ) {
        if let Some(value) = value {
            self.field(number, |writer| write(writer, value));
        }
    }

    /// Writes the unread fields that are left.
    pub(crate) fn end(self) {
        assert_eq!(self.missing, 0, "a structure has as many fields as it announced");
        for (unread, encoded) in self.unread {
            self.writer.uint(u64::from(*unread));
            self.writer.raw(encoded);
        }
    }
}

/// Reads a structure: gives each field's number to `read`, which answers whether it knows it and
/// has read its value. Returns the fields it didn't know.
pub(crate) fn read_fields<'b>(
    decoder: &mut Decoder<'b>,
    what: &'static str,
    mut read: impl FnMut(u32, &mut Decoder<'b>) -> Result<bool, DecodeError>,
) -> Result<Unread, DecodeError> {
    let count = read_map(decoder, what, FIELDS_MAX)?;
    let mut unread = Unread::new();
    let mut unread_bytes = 0;
    let mut last = None;
    for _ in 0..count {
        let number = decoder.u32()?;
        if last.is_some_and(|last| last >= number) {
            return Err(DecodeError::Order(what));
        }
        last = Some(number);
        if read(number, decoder)? {
            continue;
        }
        let begin = decoder.position();
        decoder.skip()?;
        let encoded = &decoder.input()[begin..decoder.position()];
        unread_bytes += encoded.len();
        if unread_bytes > UNREAD_MAX_BYTES {
            return Err(DecodeError::Bounds(what));
        }
        unread.insert(number, encoded.into());
    }
    Ok(unread)
}

/// Reads the head of a map of at most `most` pairs, whose number is stated.
pub(crate) fn read_map(
    decoder: &mut Decoder<'_>,
    what: &'static str,
    most: usize,
) -> Result<usize, DecodeError> {
    bounded(decoder.map()?, what, most)
}

/// Reads the head of an array of at most `most` items, whose number is stated.
pub(crate) fn read_array(
    decoder: &mut Decoder<'_>,
    what: &'static str,
    most: usize,
) -> Result<usize, DecodeError> {
    bounded(decoder.array()?, what, most)
}

/// Reads the head of an array of exactly `len` items.
pub(crate) fn read_tuple(
    decoder: &mut Decoder<'_>,
    what: &'static str,
    len: usize,
) -> Result<(), DecodeError> {
    if read_array(decoder, what, len)? == len { Ok(()) } else { Err(DecodeError::Bounds(what)) }
}

fn bounded(count: Option<u64>, what: &'static str, most: usize) -> Result<usize, DecodeError> {
    let count = count.ok_or(DecodeError::Malformed)?;
    usize::try_from(count).ok().filter(|count| *count <= most).ok_or(DecodeError::Bounds(what))
}
