//! The raw records of segment files, by which every chunk's place can be found without the index.
//!
//! All numbers are little-endian. A pack begins with a head of 32 bytes and holds chunks one after
//! the other, each behind a head of 56 bytes. A whole file has its bytes where they belong, and
//! after them a manifest: records of 44 bytes and then a foot of 56 bytes, which ends the file.

use kith_core::content::CHUNK_MAX_BYTES;
use kith_core::id::ChunkId;

const PACK_MAGIC: [u8; 8] = *b"KITHPACK";
const CHUNK_MAGIC: [u8; 4] = *b"KCHK";
const FOOT_MAGIC: [u8; 8] = *b"KITHFOOT";
const VERSION: u32 = 1;

/// The length of a pack's head.
pub(crate) const PACK_HEAD_BYTES: u64 = 32;
/// The length of the head before each chunk of a pack.
pub(crate) const CHUNK_HEAD_BYTES: u64 = 56;
/// The length of one record of a manifest.
pub(crate) const PLACE_BYTES: usize = 44;
/// The length of the foot after a manifest.
pub(crate) const FOOT_BYTES: usize = 56;

/// Where a chunk lies in its segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Place {
    /// Its name.
    pub(crate) id: ChunkId,
    /// The offset of its first byte.
    pub(crate) offset: u64,
    /// Its length: 1 to [`CHUNK_MAX_BYTES`].
    pub(crate) len_bytes: u32,
}

fn check(bytes: &[u8]) -> [u8; 8] {
    let mut check = [0; 8];
    check.copy_from_slice(&blake3::hash(bytes).as_bytes()[..8]);
    check
}

/// The head of the pack that is segment `segment`: magic (8), version (4), zero (4), segment (8),
/// checksum (8).
pub(crate) fn pack_head(segment: u64) -> [u8; PACK_HEAD_BYTES as usize] {
    let mut head = [0; PACK_HEAD_BYTES as usize];
    head[..8].copy_from_slice(&PACK_MAGIC);
    head[8..12].copy_from_slice(&VERSION.to_le_bytes());
    head[16..24].copy_from_slice(&segment.to_le_bytes());
    let check = check(&head[..24]);
    head[24..].copy_from_slice(&check);
    head
}

/// Whether these bytes are the head of a pack.
pub(crate) fn is_pack(head: &[u8; PACK_HEAD_BYTES as usize]) -> bool {
    let (head, sum) = head.split_at(24);
    head[..8] == PACK_MAGIC && head[8..12] == VERSION.to_le_bytes() && sum == check(head)
}

/// The head before a chunk: magic (4), version (4), length (4), zero (4), id (32), checksum (8).
pub(crate) fn chunk_head(id: &ChunkId, len_bytes: u32) -> [u8; CHUNK_HEAD_BYTES as usize] {
    let mut head = [0; CHUNK_HEAD_BYTES as usize];
    head[..4].copy_from_slice(&CHUNK_MAGIC);
    head[4..8].copy_from_slice(&VERSION.to_le_bytes());
    head[8..12].copy_from_slice(&len_bytes.to_le_bytes());
    head[16..48].copy_from_slice(&id.0);
    let check = check(&head[..48]);
    head[48..].copy_from_slice(&check);
    head
}

/// Reads the head before a chunk; `None` if the bytes are none.
pub(crate) fn read_chunk_head(head: &[u8]) -> Option<(ChunkId, u32)> {
    let (head, sum) = head.get(..CHUNK_HEAD_BYTES as usize)?.split_at(48);
    if head[..4] != CHUNK_MAGIC || head[4..8] != VERSION.to_le_bytes() || sum != check(head) {
        return None;
    }
    let len_bytes = u32::from_le_bytes(head[8..12].try_into().ok()?);
    let id = ChunkId(head[16..48].try_into().ok()?);
    (1..=CHUNK_MAX_BYTES).contains(&len_bytes).then_some((id, len_bytes))
}

/// The manifest of a whole file, to be put after its bytes, at `offset`.
///
/// The foot is: magic (8), version (4), zero (4), the manifest's offset (8), number of records (8),
/// the records' BLAKE3 hash cut to 16 bytes, checksum of the foot (8). A record is: id (32), offset (8),
/// length (4).
pub(crate) fn manifest(places: &[Place], offset: u64) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(places.len() * PLACE_BYTES + FOOT_BYTES);
    for place in places {
        bytes.extend_from_slice(&place.id.0);
        bytes.extend_from_slice(&place.offset.to_le_bytes());
        bytes.extend_from_slice(&place.len_bytes.to_le_bytes());
    }
    let hash = blake3::hash(&bytes);
    let begin = bytes.len();
    bytes.extend_from_slice(&FOOT_MAGIC);
    bytes.extend_from_slice(&VERSION.to_le_bytes());
    bytes.extend_from_slice(&[0; 4]);
    bytes.extend_from_slice(&offset.to_le_bytes());
    bytes.extend_from_slice(&(places.len() as u64).to_le_bytes());
    bytes.extend_from_slice(&hash.as_bytes()[..16]);
    let check = check(&bytes[begin..]);
    bytes.extend_from_slice(&check);
    bytes
}

/// Reads the foot that ends a whole file: the manifest's offset, the number of its records, and
/// their hash. `None` if the bytes are no foot.
pub(crate) fn read_foot(foot: &[u8]) -> Option<(u64, u64, [u8; 16])> {
    let foot: &[u8; FOOT_BYTES] = foot.try_into().ok()?;
    let (foot, sum) = foot.split_at(48);
    if foot[..8] != FOOT_MAGIC || foot[8..12] != VERSION.to_le_bytes() || sum != check(foot) {
        return None;
    }
    let number = |at: usize| foot[at..at + 8].try_into().ok().map(u64::from_le_bytes);
    Some((number(16)?, number(24)?, foot[32..48].try_into().ok()?))
}

/// Reads the records of a manifest; `None` unless they have that hash and are well formed.
pub(crate) fn read_places(records: &[u8], hash: &[u8; 16]) -> Option<Vec<Place>> {
    if blake3::hash(records).as_bytes()[..16] != *hash || !records.len().is_multiple_of(PLACE_BYTES)
    {
        return None;
    }
    let place = |record: &[u8]| {
        let len_bytes = u32::from_le_bytes(record[40..44].try_into().ok()?);
        let place = Place {
            id: ChunkId(record[..32].try_into().ok()?),
            offset: u64::from_le_bytes(record[32..40].try_into().ok()?),
            len_bytes,
        };
        (1..=CHUNK_MAX_BYTES).contains(&len_bytes).then_some(place)
    };
    records.chunks(PLACE_BYTES).map(place).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_damaged_head_is_no_head() {
        let id = ChunkId::of(b"bytes");
        let head = chunk_head(&id, 5);
        assert_eq!(read_chunk_head(&head), Some((id, 5)));
        for at in 0..head.len() {
            let mut damaged = head;
            damaged[at] ^= 1;
            assert_eq!(read_chunk_head(&damaged), None, "{at}");
        }
        assert_eq!(read_chunk_head(&head[..55]), None);
        assert_eq!(read_chunk_head(&chunk_head(&id, 0)), None);
        assert_eq!(read_chunk_head(&chunk_head(&id, CHUNK_MAX_BYTES + 1)), None);
    }

    #[test]
    fn a_manifest_is_found_from_the_end_of_its_file() {
        let places: Vec<Place> = (0..5_u32)
            .map(|n| Place {
                id: ChunkId::of(&n.to_le_bytes()),
                offset: u64::from(n) << 20,
                len_bytes: n + 1,
            })
            .collect();
        let bytes = manifest(&places, 77);
        let (records, foot) = bytes.split_at(bytes.len() - FOOT_BYTES);
        let (offset, count, hash) = read_foot(foot).unwrap();
        assert_eq!((offset, count), (77, 5));
        assert_eq!(read_places(records, &hash).unwrap(), places);
        assert_eq!(read_places(&records[1..], &hash), None);
        for at in 0..foot.len() {
            let mut damaged = foot.to_vec();
            damaged[at] ^= 1;
            assert_eq!(read_foot(&damaged), None, "{at}");
        }
    }
}
