//! The description of a version's bytes: chunks and holes, and for long files a tree of lists.

use crate::id::ChunkId;
use alloc::vec::Vec;

/// Holes begin and end at multiples of this, except for one that ends a file.
pub const HOLE_ALIGN_BYTES: u64 = 4096;

/// The largest chunk that any profile cuts, and the largest list node.
pub const CHUNK_MAX_BYTES: u32 = 4 << 20;

/// The largest file: what a signed 64-bit offset can address.
pub const FILE_MAX_BYTES: u64 = i64::MAX as u64;

/// The most pieces that a description holds itself; a longer list is cut into nodes.
pub const INLINE_PIECES_MAX: usize = 64;

/// A run of a file's bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub enum Piece {
    /// Bytes that are stored under their hash.
    Chunk {
        /// The bytes' name.
        id: ChunkId,
        /// How many they are: 1 to [`CHUNK_MAX_BYTES`].
        len_bytes: u32,
    },
    /// Zeros that take no room.
    Hole {
        /// How many, at least 1.
        len_bytes: u64,
    },
}

/// A stored list of pieces, or of further nodes: itself a chunk, of encoded records.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub struct NodeRef {
    /// The encoded list's name.
    pub id: ChunkId,
    /// The encoded list's length: 1 to [`CHUNK_MAX_BYTES`].
    pub len_bytes: u32,
    /// How many bytes of the file the list describes.
    pub span_bytes: u64,
}

/// Where the pieces of a description are.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub enum Layout {
    /// In the description itself, in the file's order.
    Inline(Vec<Piece>),
    /// In a tree of lists. Nodes of height 0 hold pieces, those of height n hold nodes of n - 1.
    Tree {
        /// The height of the nodes named here, 0 to 4.
        height: u8,
        /// The topmost nodes, in the file's order; at most [`INLINE_PIECES_MAX`].
        nodes: Vec<NodeRef>,
    },
}

/// The bytes of one version, described.
///
/// The description is canonical: a function of the bytes alone. Equal bytes have equal
/// descriptions on every device, however they came to be written.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub struct Content {
    /// The file's size.
    pub size_bytes: u64,
    /// Its pieces, which together have exactly that size.
    pub layout: Layout,
}

impl Content {
    /// The content of an empty file.
    #[must_use]
    pub const fn empty() -> Self {
        Content { size_bytes: 0, layout: Layout::Inline(Vec::new()) }
    }
}

impl Piece {
    /// How many bytes of the file the piece stands for.
    #[must_use]
    pub const fn len_bytes(&self) -> u64 {
        match self {
            Piece::Chunk { len_bytes, .. } => *len_bytes as u64,
            Piece::Hole { len_bytes } => *len_bytes,
        }
    }
}

/// How a file of some size is cut: FastCDC (Xia et al., 2020), normalization level 2.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Profile {
    /// No chunk but a file's or a data run's last is smaller.
    pub min_bytes: u32,
    /// What most chunks are close to.
    pub average_bytes: u32,
    /// No chunk is larger.
    pub max_bytes: u32,
}

impl Profile {
    /// The profile for a file of `size_bytes`. It is a function of the size alone, so that equal
    /// bytes are cut alike on every device, and its average grows with the file, so that the index
    /// stays small against the data of large files.
    #[must_use]
    pub const fn for_size(size_bytes: u64) -> Profile {
        let average_bytes: u32 = match size_bytes {
            0..0x0400_0000 => 32 << 10,               // below 64 MiB
            0x0400_0000..0x2000_0000 => 64 << 10,     // below 512 MiB
            0x2000_0000..0x10_0000_0000 => 256 << 10, // below 64 GiB
            _ => 1 << 20,
        };
        Profile { min_bytes: average_bytes / 2, average_bytes, max_bytes: average_bytes * 4 }
    }
}
