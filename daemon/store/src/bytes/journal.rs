//! How the state of an overlay is kept in the index, so that a crash doesn't lose it.
//!
//! CBOR: `[1, owner's writer, owner's number, size, visible base, base's content, context, parents,
//! staging, extents]`. A content is a byte string in core's encoding, context and parents are
//! arrays of writers and numbers in turn, staging is a segment or null, and an extent is `[start,
//! length, kind, ...]`: 0 with its bytes, 1 with its segment, 2 for zeros, 3 with a content and an
//! offset of it.

use super::extent::{Data, Extent, Extents, Staging};
use super::overlay::Base;
use crate::StoreError;
use kith_core::codec::{DecodeError, decode_content, encode_content};
use kith_core::content::{Content, FILE_MAX_BYTES};
use kith_core::id::{Dot, InodeId, WriterId};
use kith_core::vector::VersionVector;
use minicbor::{Decoder, Encoder};
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;

const VERSION: u8 = 1;

/// What of an overlay is kept.
#[derive(Clone)]
pub(crate) struct Entry {
    pub(crate) owner: InodeId,
    pub(crate) base: Arc<Base>,
    pub(crate) size_bytes: u64,
    /// How much of the base, from its start, shows where nothing was changed.
    pub(crate) base_bytes: u64,
    pub(crate) extents: Extents,
    /// A staging file that has been given to the overlay, whether it holds anything yet or not.
    pub(crate) staging: Option<u64>,
}

impl Entry {
    /// The same, as if nothing was changed.
    pub(crate) fn without_extents(&self) -> Entry {
        Entry { base: Arc::clone(&self.base), extents: Extents::default(), ..*self }
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let encoded: Result<(), minicbor::encode::Error<Infallible>> = self.write(&mut bytes);
        encoded.expect("writing to memory can't fail");
        bytes
    }

    fn write(&self, bytes: &mut Vec<u8>) -> Result<(), minicbor::encode::Error<Infallible>> {
        let mut out = Encoder::new(bytes);
        out.array(10)?.u8(VERSION)?;
        out.u64(self.owner.0.writer.0)?.u64(self.owner.0.number)?;
        out.u64(self.size_bytes)?.u64(self.base_bytes)?;
        out.bytes(&encode_content(&self.base.content))?;
        write_dots(&mut out, self.base.context.dots())?;
        write_dots(&mut out, self.base.parents.iter().copied())?;
        match self.staging {
            Some(segment) => out.u64(segment)?,
            None => out.null()?,
        };
        out.array(self.extents.iter().count() as u64)?;
        for (start, extent) in self.extents.iter() {
            match &extent.data {
                Data::Memory(held) => {
                    out.array(4)?.u64(start)?.u64(extent.len_bytes)?.u8(0)?.bytes(held)?;
                }
                Data::File(staging) => {
                    out.array(4)?.u64(start)?.u64(extent.len_bytes)?.u8(1)?.u64(staging.segment)?;
                }
                Data::Zero => {
                    out.array(3)?.u64(start)?.u64(extent.len_bytes)?.u8(2)?;
                }
                Data::Content(content, from) => {
                    out.array(5)?.u64(start)?.u64(extent.len_bytes)?.u8(3)?;
                    out.bytes(&encode_content(content))?.u64(*from)?;
                }
            }
        }
        Ok(())
    }

    /// The versions that it refers to.
    pub(crate) fn contents(&self) -> Vec<Content> {
        let referred = self.extents.iter().filter_map(|(_, extent)| match &extent.data {
            Data::Content(content, _) => Some((**content).clone()),
            _ => None,
        });
        std::iter::once(self.base.content.clone()).chain(referred).collect()
    }

    /// Decodes what [`encode`](Self::encode) made. `sealed` says whether a segment is a whole file.
    pub(crate) fn decode(bytes: &[u8], sealed: impl Fn(u64) -> bool) -> Result<Entry, StoreError> {
        let mut files = BTreeMap::new();
        Ok(read(&mut Decoder::new(bytes), &mut |segment| {
            let made = files.entry(segment);
            Arc::clone(made.or_insert_with(|| Staging::new(segment, sealed(segment))))
        })?)
    }
}

impl Base {
    /// The base in the form in which the index keeps it.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let size_bytes = self.content.size_bytes;
        let entry = Entry {
            owner: InodeId::ROOT,
            base: Arc::new(self.clone()),
            size_bytes,
            base_bytes: size_bytes,
            extents: Extents::default(),
            staging: None,
        };
        entry.encode()
    }

    /// Decodes what [`encode`](Self::encode) made.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] if it is nothing of that kind.
    pub fn decode(bytes: &[u8]) -> Result<Base, StoreError> {
        let entry = Entry::decode(bytes, |_| false)?;
        Ok((*entry.base).clone())
    }
}

fn write_dots(
    out: &mut Encoder<&mut Vec<u8>>,
    dots: impl Iterator<Item = Dot>,
) -> Result<(), minicbor::encode::Error<Infallible>> {
    let dots: Vec<Dot> = dots.collect();
    out.array(2 * dots.len() as u64)?;
    for dot in dots {
        out.u64(dot.writer.0)?.u64(dot.number)?;
    }
    Ok(())
}

fn count(decoder: &mut Decoder<'_>) -> Result<u64, DecodeError> {
    decoder.array()?.ok_or(DecodeError::Malformed)
}

fn read_dots(decoder: &mut Decoder<'_>) -> Result<Vec<Dot>, DecodeError> {
    let mut dots = Vec::new();
    for _ in 0..count(decoder)? / 2 {
        dots.push(Dot { writer: WriterId(decoder.u64()?), number: decoder.u64()? });
    }
    Ok(dots)
}

fn read(
    decoder: &mut Decoder<'_>,
    file: &mut impl FnMut(u64) -> Arc<Staging>,
) -> Result<Entry, DecodeError> {
    if count(decoder)? != 10 || decoder.u8()? != VERSION {
        return Err(DecodeError::Unknown("form of an overlay"));
    }
    let owner = InodeId(Dot { writer: WriterId(decoder.u64()?), number: decoder.u64()? });
    let (size_bytes, base_bytes) = (decoder.u64()?, decoder.u64()?);
    let content = decode_content(decoder.bytes()?)?;
    let context: VersionVector = read_dots(decoder)?.into_iter().collect();
    let parents = read_dots(decoder)?;
    let staging = match decoder.datatype()? {
        minicbor::data::Type::Null => {
            decoder.null()?;
            None
        }
        _ => Some(decoder.u64()?),
    };
    let mut extents = Extents::default();
    for _ in 0..count(decoder)? {
        count(decoder)?;
        let (start, len_bytes) = (decoder.u64()?, decoder.u64()?);
        if start.checked_add(len_bytes).is_none_or(|end| end > FILE_MAX_BYTES) {
            return Err(DecodeError::Bounds("an extent"));
        }
        let data = match decoder.u8()? {
            0 => {
                let held = decoder.bytes()?.to_vec();
                if held.len() as u64 != len_bytes {
                    return Err(DecodeError::Bounds("an extent"));
                }
                Data::Memory(Arc::new(held))
            }
            1 => Data::File(file(decoder.u64()?)),
            2 => Data::Zero,
            3 => Data::Content(Arc::new(decode_content(decoder.bytes()?)?), decoder.u64()?),
            _ => return Err(DecodeError::Unknown("kind of extent")),
        };
        extents.insert(start, Extent { len_bytes, generation: 0, data });
    }
    let base = Arc::new(Base { content, context, parents });
    Ok(Entry { owner, base, size_bytes, base_bytes, extents, staging })
}
