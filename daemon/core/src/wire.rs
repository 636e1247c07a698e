//! What devices say to each other about a share: messages, frames, and the heads of fetches.
//!
//! A frame is a length (4 bytes, little-endian) and that many bytes of CBOR, at most
//! [`FRAME_MAX_BYTES`]: `[kind, {fields}]`. Kinds and fields that this version doesn't know are
//! skipped. Bulk bytes never travel in frames, but raw after a [`FetchHead`].

mod fetch;

use crate::clock::Hlc;
use crate::codec::{
    DecodeError, WRITERS_MAX, Writer, decode_whole, read_array, read_author, read_chunk_id,
    read_cursor, read_entry, read_fields, read_inode, read_map, read_reached, read_tuple,
    read_vector, write_cursor, write_entry, write_inode, write_reached, write_vector,
};
use crate::forget::{IdKind, PAGE_MAX_BYTES, Page, PageId};
use crate::id::{ChunkId, Cursor, Reached, ShareId, WriterId};
use crate::index::Register;
use crate::register::{Author, Unread};
use crate::vector::VersionVector;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use minicbor::Decoder;

pub use fetch::{
    FETCH_CHUNKS_MAX, FETCH_HEAD_BYTES, FETCH_REQUEST_MAX_BYTES, FetchHead, FetchRequest,
};

/// The longest frame, without its length.
pub const FRAME_MAX_BYTES: usize = 1 << 20;
/// The bytes of a frame's length.
pub const FRAME_HEAD_BYTES: usize = 4;
/// The version of the protocol that this is.
pub const PROTOCOL_VERSION: u32 = 2;
/// The most registers of one [`Message::Batch`].
pub const BATCH_REGISTERS_MAX: usize = 512;
/// The most chunks of one [`Message::Announce`].
pub const ANNOUNCE_CHUNKS_MAX: usize = 2048;

/// The most pages of one [`Message::Forgotten`].
pub const FORGOTTEN_PAGES_MAX: usize = 1024;

/// The versions of the protocol that a device speaks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Versions {
    /// The oldest.
    pub oldest: u32,
    /// The newest.
    pub newest: u32,
}

impl Versions {
    /// What this code speaks.
    pub const OURS: Versions = Versions { oldest: PROTOCOL_VERSION, newest: PROTOCOL_VERSION };

    /// The newest version that both speak.
    #[must_use]
    pub fn common(self, other: Versions) -> Option<u32> {
        let newest = self.newest.min(other.newest);
        (newest >= self.oldest && newest >= other.oldest).then_some(newest)
    }
}

/// One message of the stream that a share has on each connection.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Message {
    /// The first message of either side, and only the first.
    Hello {
        /// The versions of the protocol that the sender speaks.
        versions: Versions,
        /// The share that the stream is about.
        share: ShareId,
        /// The end of the sender's own log.
        head: Cursor,
        /// What the sender knows, its own changes included.
        knowledge: VersionVector,
        /// How far the sender has come in the receiver's log.
        reached: Option<Reached>,
        /// The sender's name.
        author: Author,
    },
    /// What comes next in the sender's log, without what the receiver knows already.
    Batch {
        /// The place in the sender's log up to which the receiver has had everything before this.
        after: u64,
        /// The registers, at most [`BATCH_REGISTERS_MAX`].
        registers: Vec<Register>,
        /// How far it has come with this.
        upto: Reached,
    },
    /// What the sender knew when its log ended at `at`. Whoever has had all of the log up to there
    /// knows it too.
    Knowledge {
        /// The place in the sender's log up to which the receiver has had everything before this.
        after: u64,
        /// The end of the log.
        at: Cursor,
        /// What the sender knows, its own changes included.
        knowledge: VersionVector,
    },
    /// What the sender has forgotten. Each side tells the other all of that before either sends a
    /// register, and then whatever is added.
    Forgotten {
        /// Pages of ids, at most [`FORGOTTEN_PAGES_MAX`].
        pages: Vec<Page>,
        /// Whether that was all for now.
        last: bool,
        /// What the sender knows, its own changes included.
        knowledge: VersionVector,
        /// What was known to whom the sender heard of these very pages from, if it doesn't know all of
        /// that yet.
        heard: Option<VersionVector>,
    },
    /// How the sender is doing. It needs no answer.
    Status {
        /// How many bytes the sender still wants.
        absent_bytes: u64,
        /// How many bytes it has room for.
        free_bytes: u64,
        /// What it knows, its own changes included.
        knowledge: VersionVector,
        /// Up to when a person has said that all changes of a writer were meant, at most
        /// [`WRITERS_MAX`].
        meant: BTreeMap<WriterId, Hlc>,
    },
    /// Chunks that the sender has now, at most [`ANNOUNCE_CHUNKS_MAX`].
    Announce {
        /// Their names.
        chunks: Vec<ChunkId>,
    },
}

/// Why some bytes are not a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// The frame is longer than [`FRAME_MAX_BYTES`], or empty.
    #[error("a frame of {0} bytes is out of bounds")]
    Length(u32),
    /// The frame holds no message.
    #[error("a message can't be read: {0}")]
    Decode(#[from] DecodeError),
}

/// The length of the frame that begins with `head`, in bytes and without the head.
///
/// # Errors
/// [`WireError::Length`] if no frame has this length.
pub fn frame_len(head: [u8; FRAME_HEAD_BYTES]) -> Result<usize, WireError> {
    let len = u32::from_le_bytes(head);
    match usize::try_from(len) {
        Ok(bytes) if (1..=FRAME_MAX_BYTES).contains(&bytes) => Ok(bytes),
        _ => Err(WireError::Length(len)),
    }
}

/// The message as a frame, its length included.
///
/// # Panics
/// If the message is longer than [`FRAME_MAX_BYTES`]. [`crate::exchange::Session`] makes none.
#[must_use]
pub fn encode_frame(message: &Message) -> Vec<u8> {
    frame_of(|writer| write_message(writer, message))
}

/// Reads the message of one frame, given without its length. `None`: a kind of message that this
/// version doesn't know, to be skipped.
///
/// # Errors
/// [`WireError`] if there is no message in it.
pub fn decode(frame: &[u8]) -> Result<Option<Message>, WireError> {
    if frame.is_empty() || frame.len() > FRAME_MAX_BYTES {
        return Err(WireError::Length(u32::try_from(frame.len()).unwrap_or(u32::MAX)));
    }
    Ok(decode_whole(frame, read_message)?)
}

/// The bytes that a register takes in a batch.
#[must_use]
pub fn register_size_bytes(register: &Register) -> usize {
    let mut writer = Writer::new();
    write_register(&mut writer, register);
    writer.into_bytes().len()
}

fn frame_of(write: impl FnOnce(&mut Writer)) -> Vec<u8> {
    let mut writer = Writer::after(alloc::vec![0; FRAME_HEAD_BYTES]);
    write(&mut writer);
    let mut bytes = writer.into_bytes();
    let len = bytes.len() - FRAME_HEAD_BYTES;
    assert!(len <= FRAME_MAX_BYTES, "messages are made small enough for a frame");
    let len = u32::try_from(len).expect("a frame is at most 1 MiB");
    bytes[..FRAME_HEAD_BYTES].copy_from_slice(&len.to_le_bytes());
    bytes
}

const HELLO: u64 = 1;
const BATCH: u64 = 2;
const KNOWLEDGE: u64 = 3;
const STATUS: u64 = 4;
const ANNOUNCE: u64 = 5;
const FORGOTTEN: u64 = 6;

fn write_message(writer: &mut Writer, message: &Message) {
    let none = Unread::new();
    writer.array(2);
    match message {
        Message::Hello { versions, share, head, knowledge, reached, author } => {
            writer.uint(HELLO);
            let mut fields = writer.fields(5 + usize::from(reached.is_some()), &none);
            fields.field(1, |writer| {
                writer.array(2);
                writer.uint(u64::from(versions.oldest));
                writer.uint(u64::from(versions.newest));
            });
            fields.field(2, |writer| writer.bytes(&share.0));
            fields.field(3, |writer| write_cursor(writer, *head));
            fields.field(4, |writer| write_vector(writer, knowledge));
            fields.optional(5, *reached, write_reached);
            fields.field(6, |writer| writer.text(author));
            fields.end();
        }
        Message::Batch { after, registers, upto } => {
            writer.uint(BATCH);
            let mut fields = writer.fields(3, &none);
            fields.field(1, |writer| {
                writer.array(registers.len());
                registers.iter().for_each(|register| write_register(writer, register));
            });
            fields.field(2, |writer| write_reached(writer, *upto));
            fields.field(3, |writer| writer.uint(*after));
            fields.end();
        }
        Message::Knowledge { after, at, knowledge } => {
            writer.uint(KNOWLEDGE);
            let mut fields = writer.fields(3, &none);
            fields.field(1, |writer| write_vector(writer, knowledge));
            fields.field(2, |writer| write_cursor(writer, *at));
            fields.field(3, |writer| writer.uint(*after));
            fields.end();
        }
        Message::Status { absent_bytes, free_bytes, knowledge, meant } => {
            writer.uint(STATUS);
            let meant = Some(meant).filter(|meant| !meant.is_empty());
            let mut fields = writer.fields(3 + usize::from(meant.is_some()), &none);
            fields.field(1, |writer| writer.uint(*absent_bytes));
            fields.field(2, |writer| writer.uint(*free_bytes));
            fields.field(3, |writer| write_vector(writer, knowledge));
            fields.optional(4, meant, |writer, meant| {
                writer.map(meant.len());
                for (by, upto) in meant {
                    writer.uint(by.0);
                    writer.uint(upto.0);
                }
            });
            fields.end();
        }
        Message::Forgotten { pages, last, knowledge, heard } => {
            writer.uint(FORGOTTEN);
            let mut fields = writer.fields(3 + usize::from(heard.is_some()), &none);
            fields.field(1, |writer| {
                writer.array(pages.len());
                pages.iter().for_each(|page| write_page(writer, page));
            });
            fields.field(2, |writer| writer.bool(*last));
            fields.field(3, |writer| write_vector(writer, knowledge));
            fields.optional(4, heard.as_ref(), write_vector);
            fields.end();
        }
        Message::Announce { chunks } => {
            writer.uint(ANNOUNCE);
            let mut fields = writer.fields(1, &none);
            fields.field(1, |writer| {
                writer.array(chunks.len());
                chunks.iter().for_each(|chunk| writer.bytes(&chunk.0));
            });
            fields.end();
        }
    }
}

/// `[0, inode]` or `[1, entry]`.
fn write_register(writer: &mut Writer, register: &Register) {
    writer.array(2);
    match register {
        Register::Inode(inode) => {
            writer.uint(0);
            write_inode(writer, inode);
        }
        Register::Entry(entry) => {
            writer.uint(1);
            write_entry(writer, entry);
        }
    }
}

fn read_register(decoder: &mut Decoder<'_>) -> Result<Register, DecodeError> {
    read_tuple(decoder, "a register", 2)?;
    match decoder.u64()? {
        0 => read_inode(decoder).map(Register::Inode),
        1 => read_entry(decoder).map(Register::Entry),
        _ => Err(DecodeError::Unknown("kind of register")),
    }
}

fn read_message(decoder: &mut Decoder<'_>) -> Result<Option<Message>, DecodeError> {
    read_tuple(decoder, "a message", 2)?;
    match decoder.u64()? {
        HELLO => read_hello(decoder).map(Some),
        BATCH => read_batch(decoder).map(Some),
        KNOWLEDGE => read_knowledge(decoder).map(Some),
        STATUS => read_status(decoder).map(Some),
        ANNOUNCE => read_announce(decoder).map(Some),
        FORGOTTEN => read_forgotten(decoder).map(Some),
        _ => {
            decoder.skip()?;
            Ok(None)
        }
    }
}

fn need<T>(field: Option<T>, what: &'static str) -> Result<T, DecodeError> {
    field.ok_or(DecodeError::Missing(what))
}

fn read_hello(decoder: &mut Decoder<'_>) -> Result<Message, DecodeError> {
    let (mut versions, mut share, mut head) = (None, None, None);
    let (mut knowledge, mut reached, mut author) = (None, None, None);
    read_fields(decoder, "a hello", |number, decoder| {
        match number {
            1 => {
                read_tuple(decoder, "protocol versions", 2)?;
                versions = Some(Versions { oldest: decoder.u32()?, newest: decoder.u32()? });
            }
            2 => {
                let bytes = decoder.bytes()?;
                let bytes = bytes.try_into().map_err(|_| DecodeError::Bounds("a share's id"))?;
                share = Some(ShareId(bytes));
            }
            3 => head = Some(read_cursor(decoder)?),
            4 => knowledge = Some(read_vector(decoder)?),
            5 => reached = Some(read_reached(decoder)?),
            6 => author = Some(read_author(decoder)?),
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    Ok(Message::Hello {
        versions: need(versions, "protocol versions")?,
        share: need(share, "a share's id")?,
        head: need(head, "a log's head")?,
        knowledge: need(knowledge, "knowledge")?,
        reached,
        author: need(author, "an author")?,
    })
}

fn read_batch(decoder: &mut Decoder<'_>) -> Result<Message, DecodeError> {
    let (mut upto, mut after) = (None, None);
    let mut registers = Vec::new();
    read_fields(decoder, "a batch", |number, decoder| {
        match number {
            1 => {
                for _ in 0..read_array(decoder, "a batch's registers", BATCH_REGISTERS_MAX)? {
                    registers.push(read_register(decoder)?);
                }
            }
            2 => upto = Some(read_reached(decoder)?),
            3 => after = Some(decoder.u64()?),
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    Ok(Message::Batch {
        after: need(after, "a batch's beginning")?,
        registers,
        upto: need(upto, "a batch's end")?,
    })
}

fn read_knowledge(decoder: &mut Decoder<'_>) -> Result<Message, DecodeError> {
    let (mut knowledge, mut at, mut after) = (None, None, None);
    read_fields(decoder, "knowledge", |number, decoder| {
        match number {
            1 => knowledge = Some(read_vector(decoder)?),
            2 => at = Some(read_cursor(decoder)?),
            3 => after = Some(decoder.u64()?),
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    Ok(Message::Knowledge {
        after: need(after, "knowledge's beginning")?,
        at: need(at, "knowledge's place")?,
        knowledge: need(knowledge, "knowledge")?,
    })
}

fn read_status(decoder: &mut Decoder<'_>) -> Result<Message, DecodeError> {
    let (mut absent_bytes, mut free_bytes, mut knowledge) = (None, None, None);
    let mut meant = BTreeMap::new();
    read_fields(decoder, "a status", |number, decoder| {
        match number {
            1 => absent_bytes = Some(decoder.u64()?),
            2 => free_bytes = Some(decoder.u64()?),
            3 => knowledge = Some(read_vector(decoder)?),
            4 => {
                const WHAT: &str = "what was meant";
                for _ in 0..read_map(decoder, WHAT, WRITERS_MAX)? {
                    let writer = WriterId(decoder.u64()?);
                    if meant.last_key_value().is_some_and(|(last, _)| *last >= writer) {
                        return Err(DecodeError::Order(WHAT));
                    }
                    meant.insert(writer, Hlc(decoder.u64()?));
                }
            }
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    Ok(Message::Status {
        absent_bytes: need(absent_bytes, "absent bytes")?,
        free_bytes: need(free_bytes, "free bytes")?,
        knowledge: need(knowledge, "knowledge")?,
        meant,
    })
}

/// `[kind, writer, number, ids]`, with kind 0 for inodes and 1 for entries.
fn write_page(writer: &mut Writer, page: &Page) {
    writer.array(4);
    writer.uint(match page.id.kind {
        IdKind::Inode => 0,
        IdKind::Entry => 1,
    });
    writer.uint(page.id.writer.0);
    writer.uint(page.id.number);
    writer.bytes(&page.to_bytes());
}

fn read_page(decoder: &mut Decoder<'_>) -> Result<Page, DecodeError> {
    read_tuple(decoder, "a page of ids", 4)?;
    let kind = match decoder.u64()? {
        0 => IdKind::Inode,
        1 => IdKind::Entry,
        _ => return Err(DecodeError::Unknown("kind of ids")),
    };
    let (writer, number) = (WriterId(decoder.u64()?), decoder.u64()?);
    Page::from_bytes(PageId { kind, writer, number }, decoder.bytes()?)
}

fn read_forgotten(decoder: &mut Decoder<'_>) -> Result<Message, DecodeError> {
    let (mut last, mut knowledge, mut heard) = (None, None, None);
    let mut pages = Vec::new();
    read_fields(decoder, "forgotten ids", |number, decoder| {
        match number {
            1 => {
                for _ in 0..read_array(decoder, "pages of ids", FORGOTTEN_PAGES_MAX)? {
                    pages.push(read_page(decoder)?);
                }
            }
            2 => last = Some(decoder.bool()?),
            3 => knowledge = Some(read_vector(decoder)?),
            4 => heard = Some(read_vector(decoder)?),
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    Ok(Message::Forgotten {
        pages,
        last: need(last, "whether more ids follow")?,
        knowledge: need(knowledge, "knowledge")?,
        heard,
    })
}

fn read_announce(decoder: &mut Decoder<'_>) -> Result<Message, DecodeError> {
    let mut chunks = Vec::new();
    read_fields(decoder, "an announcement", |number, decoder| {
        match number {
            1 => {
                for _ in 0..read_array(decoder, "announced chunks", ANNOUNCE_CHUNKS_MAX)? {
                    chunks.push(read_chunk_id(decoder)?);
                }
            }
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    Ok(Message::Announce { chunks })
}

// A vector of the most writers takes at most 19 bytes each: no message but a batch comes near the
// limit of a frame.
const _: () = assert!(2 * WRITERS_MAX * 19 + 1024 < FRAME_MAX_BYTES);
// A vector of the most writers takes at most 19 bytes each, a page at most its ids and 32.
const _: () = assert!(WRITERS_MAX * 19 + 1024 < FRAME_MAX_BYTES);
const _: () = assert!(
    FORGOTTEN_PAGES_MAX * (PAGE_MAX_BYTES + 32) + WRITERS_MAX * 19 + 1024 < FRAME_MAX_BYTES
);
const _: () = assert!(ANNOUNCE_CHUNKS_MAX * 34 + 1024 < FRAME_MAX_BYTES);

#[cfg(test)]
mod tests;
