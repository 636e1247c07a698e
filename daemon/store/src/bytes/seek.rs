//! Finding data and holes without reading them.

use super::ReadError;
use super::extent::{Data, Part};
use super::list::Pieces;
use super::overlay::Overlay;
use crate::{Store, StoreError};
use kith_core::content::{Content, Piece};
use std::ops::Range;
use std::sync::Arc;

/// The end of the hole of `content` that `offset` is in; `offset` if it is in none, or the list
/// that would tell isn't here.
pub(crate) fn hole_end(store: &Store, content: &Content, offset: u64) -> Result<u64, StoreError> {
    let snapshot = store.snapshot()?;
    let mut pieces = Pieces::new(content, store.inner.bytes.reader(snapshot.sql()));
    match pieces.seek(offset).and_then(|()| pieces.next()) {
        Ok(Some((begin, Piece::Hole { len_bytes }))) => Ok(begin + len_bytes),
        Ok(_) | Err(ReadError::Absent(_) | ReadError::Damaged(_)) => Ok(offset),
        Err(ReadError::Store(cause)) => Err(cause),
    }
}

/// The end of the zeros at the beginning of a part that are known without reading it; its own
/// beginning if none are.
pub(crate) fn zeros_of(
    store: &Store,
    base: &Content,
    base_bytes: u64,
    (range, data): &Part,
) -> Result<u64, StoreError> {
    let end = match data {
        Some((Data::Memory(_) | Data::File(_), _)) => range.start,
        Some((Data::Zero, _)) => range.end,
        Some((Data::Content(content, from), skip)) => {
            hole_end(store, content, from + skip)? - from - skip + range.start
        }
        None if range.start >= base_bytes => range.end,
        None => match hole_end(store, base, range.start)? {
            end if end >= base_bytes => range.end,
            end => end,
        },
    };
    Ok(end.min(range.end))
}

impl Overlay {
    /// The next byte of data at or after `offset`; `None` if there is none.
    ///
    /// # Errors
    /// A [`StoreError`] if the disk or the index fails.
    pub fn next_data(&self, offset: u64) -> Result<Option<u64>, StoreError> {
        self.seek(offset, true)
    }

    /// The next hole at or after `offset`, or the file's end; `None` from the end on.
    ///
    /// # Errors
    /// A [`StoreError`] if the disk or the index fails.
    pub fn next_hole(&self, offset: u64) -> Result<Option<u64>, StoreError> {
        self.seek(offset, false)
    }

    fn seek(&self, offset: u64, data: bool) -> Result<Option<u64>, StoreError> {
        let state = self.shared.state();
        let size = state.size_bytes;
        if offset >= size {
            return Ok(None);
        }
        let parts = state.extents.parts(offset..size);
        let (base, base_bytes) = (Arc::clone(&state.base), state.base_bytes);
        drop(state);
        let store = &self.shared.store;
        for (range, source) in parts {
            let mut at = range.start;
            while at < range.end {
                let part = rest_of(&range, source.as_ref(), at);
                let zeros = zeros_of(store, &base.content, base_bytes, &part)?;
                if (zeros == at) == data {
                    return Ok(Some(at));
                }
                at = match zeros > at {
                    true => zeros,
                    false => self.data_end(&base.content, &part)?,
                };
            }
        }
        Ok(if data { None } else { Some(size) })
    }

    /// The end of the data, without holes, at the beginning of a part.
    fn data_end(&self, base: &Content, part: &Part) -> Result<u64, StoreError> {
        let (range, source) = part;
        let (content, from) = match source {
            None => (base, range.start),
            Some((Data::Content(content, from), skip)) => (&**content, from + skip),
            Some(_) => return Ok(range.end),
        };
        let store = &self.shared.store;
        let snapshot = store.snapshot()?;
        let mut pieces = Pieces::new(content, store.inner.bytes.reader(snapshot.sql()));
        let mut at = from;
        while at - from < range.end - range.start {
            match pieces.seek(at).and_then(|()| pieces.next()) {
                Ok(Some((begin, Piece::Chunk { len_bytes, .. }))) => {
                    at = begin + u64::from(len_bytes);
                }
                Err(ReadError::Store(cause)) => return Err(cause),
                Err(ReadError::Absent(_) | ReadError::Damaged(_)) => {
                    pieces.skip_list();
                    at = pieces.at();
                }
                Ok(_) => break,
            }
        }
        Ok((range.start + (at - from)).min(range.end))
    }
}

/// A part from `at` on.
fn rest_of(range: &Range<u64>, source: Option<&(Data, u64)>, at: u64) -> Part {
    let rest = source.map(|(data, skip)| (data.clone(), skip + at - range.start));
    (at..range.end, rest)
}
