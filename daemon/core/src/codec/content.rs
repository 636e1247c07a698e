//! The encoding of a content's description.

use super::field::{Writer, read_array, read_tuple};
use super::{DecodeError, HEIGHT_MAX};
use crate::content::{
    CHUNK_MAX_BYTES, Content, FILE_MAX_BYTES, INLINE_PIECES_MAX, Layout, NodeRef, Piece,
};
use crate::id::ChunkId;
use alloc::vec::Vec;
use minicbor::Decoder;
use minicbor::data::Type;

/// `[size, pieces]` or `[size, height, nodes]`. A piece is `[chunk's id, length]`, or for a hole
/// its length alone; a node is `[chunk's id, length, span]`.
pub(super) fn write_content(writer: &mut Writer, content: &Content) {
    match &content.layout {
        Layout::Inline(pieces) => {
            writer.array(2);
            writer.uint(content.size_bytes);
            writer.array(pieces.len());
            for piece in pieces {
                match piece {
                    Piece::Chunk { id, len_bytes } => {
                        writer.array(2);
                        writer.bytes(&id.0);
                        writer.uint(u64::from(*len_bytes));
                    }
                    Piece::Hole { len_bytes } => writer.uint(*len_bytes),
                }
            }
        }
        Layout::Tree { height, nodes } => {
            writer.array(3);
            writer.uint(content.size_bytes);
            writer.uint(u64::from(*height));
            writer.array(nodes.len());
            for node in nodes {
                writer.array(3);
                writer.bytes(&node.id.0);
                writer.uint(u64::from(node.len_bytes));
                writer.uint(node.span_bytes);
            }
        }
    }
}

pub(super) fn read_content(decoder: &mut Decoder<'_>) -> Result<Content, DecodeError> {
    let form = read_array(decoder, "a content", 3)?;
    let size_bytes = decoder.u64()?;
    if size_bytes > FILE_MAX_BYTES {
        return Err(DecodeError::Bounds("a content's size"));
    }
    let (layout, sum) = match form {
        2 => {
            let count = read_array(decoder, "a content's pieces", INLINE_PIECES_MAX)?;
            let mut pieces = Vec::with_capacity(count);
            let mut sum = Sum::default();
            for _ in 0..count {
                let piece = read_piece(decoder)?;
                sum.add(piece.len_bytes())?;
                pieces.push(piece);
            }
            (Layout::Inline(pieces), sum)
        }
        3 => {
            let height = decoder.u8()?;
            if height > HEIGHT_MAX {
                return Err(DecodeError::Bounds("a content's height"));
            }
            let count = read_array(decoder, "a content's nodes", INLINE_PIECES_MAX)?;
            let mut nodes = Vec::with_capacity(count);
            let mut sum = Sum::default();
            for _ in 0..count {
                read_tuple(decoder, "a node", 3)?;
                let node = NodeRef {
                    id: read_chunk_id(decoder)?,
                    len_bytes: chunk_len(decoder.u32()?)?,
                    span_bytes: decoder.u64()?,
                };
                sum.add(node.span_bytes)?;
                nodes.push(node);
            }
            (Layout::Tree { height, nodes }, sum)
        }
        _ => return Err(DecodeError::Unknown("form of a content")),
    };
    if sum.0 != size_bytes {
        return Err(DecodeError::Bounds("the sum of a content's pieces"));
    }
    Ok(Content { size_bytes, layout })
}

fn read_piece(decoder: &mut Decoder<'_>) -> Result<Piece, DecodeError> {
    match decoder.datatype()? {
        Type::Array => {
            read_tuple(decoder, "a piece", 2)?;
            let id = read_chunk_id(decoder)?;
            Ok(Piece::Chunk { id, len_bytes: chunk_len(decoder.u32()?)? })
        }
        _ => Ok(Piece::Hole { len_bytes: decoder.u64()? }),
    }
}

pub(crate) fn read_chunk_id(decoder: &mut Decoder<'_>) -> Result<ChunkId, DecodeError> {
    let bytes = decoder.bytes()?.try_into().map_err(|_| DecodeError::Bounds("a chunk's id"))?;
    Ok(ChunkId(bytes))
}

/// Checks the length of a chunk.
pub(crate) fn chunk_len(len_bytes: u32) -> Result<u32, DecodeError> {
    if (1..=CHUNK_MAX_BYTES).contains(&len_bytes) {
        Ok(len_bytes)
    } else {
        Err(DecodeError::Bounds("a chunk's length"))
    }
}

/// Adds up lengths, none of which is 0, to no more than a file can have.
#[derive(Default)]
pub(super) struct Sum(pub(super) u64);

impl Sum {
    pub(super) fn add(&mut self, len_bytes: u64) -> Result<(), DecodeError> {
        let sum = self.0.checked_add(len_bytes).filter(|sum| *sum <= FILE_MAX_BYTES);
        match sum {
            Some(sum) if len_bytes > 0 => {
                self.0 = sum;
                Ok(())
            }
            _ => Err(DecodeError::Bounds("a piece's length")),
        }
    }
}
