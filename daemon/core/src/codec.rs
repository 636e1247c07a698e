//! The encoding of registers and values: CBOR with numbered fields, one encoding for each value.
//!
//! Peers exchange registers in this form and the store keeps them in it. Structures are maps from
//! field numbers to values; numbers that this version doesn't know are kept as
//! [`Unread`](crate::register::Unread) and written back in their place. Encoding is canonical:
//! fields and keys ascend, what is absent or empty is left out, and equal values have equal bytes.
//!
//! Decoding trusts nothing: every count and length has a bound that is named here, no allocation
//! is larger than the input that asks for it, and what a type can't hold is an error.

mod content;
mod field;
mod list;
mod register;
mod value;

use crate::content::Content;
use crate::register::{Attributes, Entry, Inode, Place, Removal, Version};
use crate::vector::VersionVector;
use alloc::vec::Vec;
use minicbor::Decoder;

pub use list::{List, decode_list, encode_list, list_size_bytes};

pub(crate) use content::{chunk_len, read_chunk_id};
pub(crate) use field::{Writer, read_array, read_fields, read_map, read_tuple};
pub(crate) use register::{read_entry, read_inode, write_entry, write_inode};
pub(crate) use value::{
    read_author, read_cursor, read_reached, read_vector, write_cursor, write_reached, write_vector,
};

/// The most fields of one structure, known and unread ones together.
pub const FIELDS_MAX: usize = 64;
/// The most bytes that the unread fields of one structure take.
pub const UNREAD_MAX_BYTES: usize = 16 << 10;
/// The most writers in one version vector.
pub const WRITERS_MAX: usize = 16_384;
/// The most concurrent versions of one file.
pub const VERSIONS_MAX: usize = 4096;
/// The most versions that one version was directly made from.
pub const PARENTS_MAX: usize = 4096;
/// The most bytes that an inode's extended attributes take, names and values together.
pub const XATTRS_MAX_BYTES: usize = 256 << 10;
/// The longest value of an extended attribute, in bytes.
pub const XATTR_VALUE_MAX_BYTES: usize = 64 << 10;
/// The longest name of an extended attribute, in bytes.
pub const XATTR_NAME_MAX_BYTES: usize = 255;
/// The longest target of a symbolic link, in bytes.
pub const TARGET_MAX_BYTES: usize = 4095;
/// The greatest height of a content's list nodes.
pub const HEIGHT_MAX: u8 = 4;

/// Why some bytes are not what they should encode. Each names the field at fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The bytes are no CBOR, end too early, or hold another type than is due there.
    #[error("malformed encoding")]
    Malformed,
    /// A field that every such structure has isn't there.
    #[error("{0} is missing")]
    Missing(&'static str),
    /// A number, count or length is outside of its bounds.
    #[error("{0} is out of bounds")]
    Bounds(&'static str),
    /// Keys don't ascend, or one is repeated.
    #[error("{0} is out of order or repeated")]
    Order(&'static str),
    /// A kind that this version doesn't know.
    #[error("unknown {0}")]
    Unknown(&'static str),
    /// More bytes follow the value.
    #[error("bytes follow the value")]
    Trailing,
}

impl From<minicbor::decode::Error> for DecodeError {
    fn from(_: minicbor::decode::Error) -> Self {
        DecodeError::Malformed
    }
}

/// Decodes with `read`, which must use up all of `bytes`.
pub(crate) fn decode_whole<'b, T>(
    bytes: &'b [u8],
    read: impl FnOnce(&mut Decoder<'b>) -> Result<T, DecodeError>,
) -> Result<T, DecodeError> {
    let mut decoder = Decoder::new(bytes);
    let value = read(&mut decoder)?;
    if decoder.position() == bytes.len() { Ok(value) } else { Err(DecodeError::Trailing) }
}

fn encode_whole(write: impl FnOnce(&mut Writer)) -> Vec<u8> {
    let mut writer = Writer::new();
    write(&mut writer);
    writer.into_bytes()
}

macro_rules! codecs {
    ($($type:ident: $what:literal, $encode:ident, $decode:ident, $module:ident::$write:ident,
       $read:ident;)*) => {$(
        #[doc = concat!("The canonical encoding of ", $what, ".")]
        #[must_use]
        pub fn $encode(value: &$type) -> Vec<u8> {
            encode_whole(|writer| $module::$write(writer, value))
        }

        #[doc = concat!("Decodes ", $what, ".")]
        ///
        /// # Errors
        /// A [`DecodeError`] if the bytes are anything else.
        pub fn $decode(bytes: &[u8]) -> Result<$type, DecodeError> {
            decode_whole(bytes, $module::$read)
        }
    )*};
}

codecs! {
    Inode: "an inode", encode_inode, decode_inode, register::write_inode, read_inode;
    Entry: "an entry", encode_entry, decode_entry, register::write_entry, read_entry;
    Version: "a version", encode_version, decode_version, register::write_version, read_version;
    Attributes: "attributes", encode_attributes, decode_attributes,
        register::write_attributes, read_attributes;
    Place: "a place", encode_place, decode_place, register::write_place, read_place;
    Removal: "a removal", encode_removal, decode_removal, register::write_removal, read_removal;
    Content: "a content's description", encode_content, decode_content,
        content::write_content, read_content;
    VersionVector: "a version vector", encode_vector, decode_vector,
        value::write_vector, read_vector;
}

#[cfg(test)]
mod tests;
