//! The encoding of list nodes, which are chunks themselves: a header and then raw records.
//!
//! All numbers are little-endian. The header is 8 bytes: `KL`, the version (1), the height, the
//! number of records (4 bytes). Records follow without padding. At height 0 they are pieces: a
//! byte 0, length (4), chunk's id (32); or a byte 1, hole's length (8). Above they are nodes of one
//! less height: length (4), span (8), chunk's id (32). The chunk's name is its checksum.

use super::content::{Sum, chunk_len};
use super::{DecodeError, HEIGHT_MAX};
use crate::content::{CHUNK_MAX_BYTES, NodeRef, Piece};
use crate::id::ChunkId;
use alloc::vec::Vec;

const MAGIC: [u8; 2] = *b"KL";
const VERSION: u8 = 1;
const HEADER_BYTES: usize = 8;
const CHUNK: u8 = 0;
const HOLE: u8 = 1;

/// The contents of a list node.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum List {
    /// Height 0: pieces, in the file's order.
    Pieces(Vec<Piece>),
    /// Height 1 to 4: nodes of one less height, in the file's order.
    Nodes {
        /// The list's own height.
        height: u8,
        /// What it holds.
        nodes: Vec<NodeRef>,
    },
}

/// The length of the encoding of a list of height 0 whose pieces are these, in bytes.
#[must_use]
pub fn list_size_bytes(pieces: &[Piece]) -> usize {
    let record = |piece: &Piece| if matches!(piece, Piece::Chunk { .. }) { 37 } else { 9 };
    HEADER_BYTES + pieces.iter().map(record).sum::<usize>()
}

/// The bytes of a list node. They must be no more than [`CHUNK_MAX_BYTES`], which is the caller's
/// to see to: some 95,000 records.
#[must_use]
pub fn encode_list(list: &List) -> Vec<u8> {
    let (height, count) = match list {
        List::Pieces(pieces) => (0, pieces.len()),
        List::Nodes { height, nodes } => (*height, nodes.len()),
    };
    let count = u32::try_from(count).expect("a list fits a chunk");
    let mut bytes = Vec::new();
    bytes.extend_from_slice(&MAGIC);
    bytes.extend_from_slice(&[VERSION, height]);
    bytes.extend_from_slice(&count.to_le_bytes());
    match list {
        List::Pieces(pieces) => {
            for piece in pieces {
                match piece {
                    Piece::Chunk { id, len_bytes } => {
                        bytes.push(CHUNK);
                        bytes.extend_from_slice(&len_bytes.to_le_bytes());
                        bytes.extend_from_slice(&id.0);
                    }
                    Piece::Hole { len_bytes } => {
                        bytes.push(HOLE);
                        bytes.extend_from_slice(&len_bytes.to_le_bytes());
                    }
                }
            }
        }
        List::Nodes { nodes, .. } => {
            for node in nodes {
                bytes.extend_from_slice(&node.len_bytes.to_le_bytes());
                bytes.extend_from_slice(&node.span_bytes.to_le_bytes());
                bytes.extend_from_slice(&node.id.0);
            }
        }
    }
    bytes
}

/// Decodes a list node that a description says has this `height` and describes `span_bytes` of the
/// file.
///
/// # Errors
/// A [`DecodeError`] if the bytes are no such list.
pub fn decode_list(bytes: &[u8], height: u8, span_bytes: u64) -> Result<List, DecodeError> {
    if bytes.len() > CHUNK_MAX_BYTES as usize {
        return Err(DecodeError::Bounds("a list's length"));
    }
    let mut records = Records(bytes);
    if records.take::<2>()? != MAGIC {
        return Err(DecodeError::Malformed);
    }
    let [version, stated] = records.take::<2>()?;
    if version != VERSION {
        return Err(DecodeError::Unknown("version of a list"));
    }
    if stated != height || height > HEIGHT_MAX {
        return Err(DecodeError::Bounds("a list's height"));
    }
    let count = records.u32()?;
    let mut sum = Sum::default();
    let list = if height == 0 {
        let mut pieces = Vec::new();
        for _ in 0..count {
            let piece = match records.take::<1>()? {
                [CHUNK] => {
                    let len_bytes = chunk_len(records.u32()?)?;
                    Piece::Chunk { len_bytes, id: ChunkId(records.take()?) }
                }
                [HOLE] => Piece::Hole { len_bytes: records.u64()? },
                _ => return Err(DecodeError::Unknown("kind of piece")),
            };
            sum.add(piece.len_bytes())?;
            pieces.push(piece);
        }
        List::Pieces(pieces)
    } else {
        let mut nodes = Vec::new();
        for _ in 0..count {
            let len_bytes = chunk_len(records.u32()?)?;
            let span_bytes = records.u64()?;
            sum.add(span_bytes)?;
            nodes.push(NodeRef { id: ChunkId(records.take()?), len_bytes, span_bytes });
        }
        List::Nodes { height, nodes }
    };
    if sum.0 != span_bytes {
        return Err(DecodeError::Bounds("a list's span"));
    }
    if records.0.is_empty() { Ok(list) } else { Err(DecodeError::Trailing) }
}

/// Takes fixed-size numbers off the front of some bytes.
struct Records<'b>(&'b [u8]);

impl Records<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let (first, rest) = self.0.split_first_chunk::<N>().ok_or(DecodeError::Malformed)?;
        self.0 = rest;
        Ok(*first)
    }

    fn u32(&mut self) -> Result<u32, DecodeError> {
        self.take().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64, DecodeError> {
        self.take().map(u64::from_le_bytes)
    }
}
