//! What asks for chunks and what answers, on a stream of its own for each request.
//!
//! The request is one frame. The answer has, for every chunk and in any order, a head of 8 bytes
//! and then, if the chunk is there, its bytes as they are.

use super::{WireError, frame_of};
use crate::codec::{
    DecodeError, chunk_len, decode_whole, read_array, read_chunk_id, read_fields, read_tuple,
};
use crate::id::ChunkId;
use crate::register::Unread;
use alloc::vec::Vec;

/// The most chunks of one request.
pub const FETCH_CHUNKS_MAX: usize = 512;
/// The longest frame of a request, without its length.
pub const FETCH_REQUEST_MAX_BYTES: usize = 32 << 10;
/// The bytes of a head.
pub const FETCH_HEAD_BYTES: usize = 8;

/// Asks for chunks.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FetchRequest {
    /// The chunks, 1 to [`FETCH_CHUNKS_MAX`], with their lengths in bytes.
    pub chunks: Vec<(ChunkId, u32)>,
    /// Whether a program waits for them: such requests are answered before others.
    pub foreground: bool,
}

impl FetchRequest {
    /// The request as a frame, its length included.
    ///
    /// # Panics
    /// If there are more than [`FETCH_CHUNKS_MAX`] chunks.
    #[must_use]
    pub fn encode_frame(&self) -> Vec<u8> {
        assert!(self.chunks.len() <= FETCH_CHUNKS_MAX, "requests are made small enough");
        frame_of(|writer| {
            let none = Unread::new();
            let mut fields = writer.fields(2, &none);
            fields.field(1, |writer| {
                writer.array(self.chunks.len());
                for (chunk, len_bytes) in &self.chunks {
                    writer.array(2);
                    writer.bytes(&chunk.0);
                    writer.uint(u64::from(*len_bytes));
                }
            });
            fields.field(2, |writer| writer.bool(self.foreground));
            fields.end();
        })
    }

    /// Reads the request of one frame, given without its length.
    ///
    /// # Errors
    /// [`WireError`] if there is no request in it.
    pub fn decode(frame: &[u8]) -> Result<Self, WireError> {
        if frame.len() > FETCH_REQUEST_MAX_BYTES {
            return Err(WireError::Length(u32::try_from(frame.len()).unwrap_or(u32::MAX)));
        }
        let mut chunks = Vec::new();
        let mut foreground = false;
        decode_whole(frame, |decoder| {
            read_fields(decoder, "a request", |number, decoder| {
                match number {
                    1 => {
                        for _ in 0..read_array(decoder, "requested chunks", FETCH_CHUNKS_MAX)? {
                            read_tuple(decoder, "a requested chunk", 2)?;
                            let chunk = read_chunk_id(decoder)?;
                            chunks.push((chunk, chunk_len(decoder.u32()?)?));
                        }
                    }
                    2 => foreground = decoder.bool()?,
                    _ => return Ok(false),
                }
                Ok(true)
            })
        })?;
        if chunks.is_empty() {
            return Err(DecodeError::Missing("requested chunks").into());
        }
        Ok(FetchRequest { chunks, foreground })
    }
}

/// What an answer says before a chunk's bytes.
///
/// 8 bytes, little-endian: the chunk's place in the request (2), 1 if it is there or 0 (1), 0
/// (1), its length (4), which is 0 if it isn't there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FetchHead {
    /// The chunk's place in the request, from 0.
    pub index: u16,
    /// Its length in bytes if it is there, and then so many bytes follow.
    pub len_bytes: Option<u32>,
}

impl FetchHead {
    /// The head's bytes.
    #[must_use]
    pub fn encode(self) -> [u8; FETCH_HEAD_BYTES] {
        let mut bytes = [0; FETCH_HEAD_BYTES];
        bytes[..2].copy_from_slice(&self.index.to_le_bytes());
        bytes[2] = u8::from(self.len_bytes.is_some());
        bytes[4..].copy_from_slice(&self.len_bytes.unwrap_or(0).to_le_bytes());
        bytes
    }

    /// Reads a head of the answer to `request`.
    ///
    /// # Errors
    /// [`DecodeError`] if it answers something that wasn't asked: no such chunk, or one of
    /// another length.
    pub fn decode(
        bytes: [u8; FETCH_HEAD_BYTES],
        request: &FetchRequest,
    ) -> Result<Self, DecodeError> {
        let [low, high, there, zero, len @ ..] = bytes;
        let index = u16::from_le_bytes([low, high]);
        let asked = request.chunks.get(usize::from(index));
        let (_, asked_bytes) = asked.ok_or(DecodeError::Bounds("an answer's index"))?;
        let len_bytes = match (there, zero, u32::from_le_bytes(len)) {
            (0, 0, 0) => None,
            (1, 0, len_bytes) if len_bytes == *asked_bytes => Some(len_bytes),
            (1, 0, _) => return Err(DecodeError::Bounds("an answer's length")),
            _ => return Err(DecodeError::Unknown("kind of answer")),
        };
        Ok(FetchHead { index, len_bytes })
    }
}
