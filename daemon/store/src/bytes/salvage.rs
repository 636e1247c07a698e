//! Finding chunks in a segment file without the index, should that ever be lost.

use super::record::{
    CHUNK_HEAD_BYTES, FOOT_BYTES, PACK_HEAD_BYTES, PLACE_BYTES, Place, is_pack, read_chunk_head,
    read_foot, read_places,
};
use kith_core::id::ChunkId;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// A manifest with more records than this is taken for damaged: 16 TiB of the smallest chunks.
const PLACES_MAX: u64 = 1 << 30;

/// The chunks of a segment file, with the range of the file that each should be in, as far as the
/// file's own records tell. Their bytes are not verified. Empty if the file is no segment.
///
/// # Errors
/// An input/output error if the file can't be read.
pub fn chunks_in(path: &Path) -> io::Result<Vec<(ChunkId, Range<u64>)>> {
    let file = File::open(path)?;
    let len = file.metadata()?.len();
    let places = match packed(&file, len)? {
        Some(places) => places,
        None => listed(&file, len)?.unwrap_or_default(),
    };
    let range = |place: Place| place.offset..place.offset + u64::from(place.len_bytes);
    let fits = |place: &Place| place.offset.checked_add(place.len_bytes.into()) <= Some(len);
    Ok(places.into_iter().filter(fits).map(|place| (place.id, range(place))).collect())
}

/// The chunks of a pack, up to the first head that is damaged; `None` if it is no pack.
fn packed(file: &File, len: u64) -> io::Result<Option<Vec<Place>>> {
    let mut head = [0; PACK_HEAD_BYTES as usize];
    if len < PACK_HEAD_BYTES {
        return Ok(None);
    }
    file.read_exact_at(&mut head, 0)?;
    if !is_pack(&head) {
        return Ok(None);
    }
    let mut places = Vec::new();
    let mut at = PACK_HEAD_BYTES;
    while at + CHUNK_HEAD_BYTES <= len {
        let mut head = [0; CHUNK_HEAD_BYTES as usize];
        file.read_exact_at(&mut head, at)?;
        let Some((id, len_bytes)) = read_chunk_head(&head) else { break };
        let offset = at + CHUNK_HEAD_BYTES;
        places.push(Place { id, offset, len_bytes });
        at = offset + u64::from(len_bytes);
    }
    Ok(Some(places))
}

/// The chunks that the manifest of a whole file lists; `None` if it has none.
fn listed(file: &File, len: u64) -> io::Result<Option<Vec<Place>>> {
    let Some(foot_at) = len.checked_sub(FOOT_BYTES as u64) else { return Ok(None) };
    let mut foot = [0; FOOT_BYTES];
    file.read_exact_at(&mut foot, foot_at)?;
    let Some((offset, count, hash)) = read_foot(&foot) else { return Ok(None) };
    let bytes = count.min(PLACES_MAX) * PLACE_BYTES as u64;
    if count > PLACES_MAX || offset.checked_add(bytes) != Some(foot_at) {
        return Ok(None);
    }
    let mut records = vec![0; bytes as usize];
    file.read_exact_at(&mut records, offset)?;
    Ok(read_places(&records, &hash))
}
