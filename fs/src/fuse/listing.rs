//! Open directories: where in a listing the kernel goes on.
//!
//! The kernel caches listings over openings and goes on at an offset that another opening was
//! given. So the offset after a name is derived from the name alone, and a listing goes on after
//! that name, whatever came and went meanwhile.

use crate::volume::{Ino, LookupError, Volume};
use kith_core::name::EntryName;
use serde::{Deserialize, Serialize};
use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, DefaultHasher, Hasher, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The offset after `.`; after nothing it is 0.
pub(super) const AFTER_DOT: u64 = 1;
/// The offset after `..`.
pub(super) const AFTER_DOT_DOT: u64 = 2;

/// Names whose offsets an open directory remembers. One reply has at most 1 MiB of them, and the
/// kernel goes on within the last.
const REMEMBERED: usize = 8192;
/// How many names are looked through at a time for one that was forgotten.
const PAGE: usize = 1024;

/// Where a listing goes on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Position {
    /// At `.`, the beginning.
    Dot,
    /// At `..`.
    DotDot,
    /// After a name, or at the first.
    After(Option<EntryName>),
}

/// What open directories remember.
pub(super) struct Listings {
    /// What makes the offsets of this mount its own: whoever knew them could choose names that
    /// share one.
    secret: u64,
    open: Mutex<Open>,
}

/// What is known of open directories, to go on with in another process.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct OpenListings {
    /// What makes the mount's offsets its own.
    pub secret: u64,
    /// The last handle that was given to anybody.
    pub last_handle: u64,
    /// The handles that are open.
    pub handles: Vec<u64>,
}

#[derive(Default)]
struct Open {
    last_handle: u64,
    recent: HashMap<u64, Arc<Mutex<Recent>>>,
}

/// The names that were listed last, with the offset after each.
#[derive(Default)]
pub(super) struct Recent(VecDeque<(u64, EntryName)>);

impl Recent {
    fn add(&mut self, offset: u64, name: EntryName) {
        if self.0.len() >= REMEMBERED {
            self.0.pop_front();
        }
        self.0.push_back((offset, name));
    }
}

impl Default for Listings {
    /// Nothing is open yet.
    fn default() -> Self {
        // As random as the state of every map is.
        Listings { secret: RandomState::new().hash_one(0_u64), open: Mutex::default() }
    }
}

impl From<OpenListings> for Listings {
    fn from(left: OpenListings) -> Self {
        let recent = left.handles.into_iter().map(|handle| (handle, Arc::default())).collect();
        let open = Open { last_handle: left.last_handle, recent };
        Listings { secret: left.secret, open: Mutex::new(open) }
    }
}

impl Listings {
    fn locked(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What another process needs to go on.
    pub(super) fn left(&self) -> OpenListings {
        let open = self.locked();
        let handles = open.recent.keys().copied().collect();
        OpenListings { secret: self.secret, last_handle: open.last_handle, handles }
    }

    /// Opens a directory; answers the handle.
    pub(super) fn open(&self) -> u64 {
        let mut open = self.locked();
        open.last_handle += 1;
        let handle = open.last_handle;
        open.recent.insert(handle, Arc::default());
        handle
    }

    /// Ends an opening.
    pub(super) fn close(&self, handle: u64) {
        self.locked().recent.remove(&handle);
    }

    /// The offset after a name: 3 or more, and positive as a signed number.
    pub(super) fn offset_after(&self, name: &EntryName) -> u64 {
        let mut hasher = DefaultHasher::new();
        hasher.write_u64(self.secret);
        hasher.write(name.as_bytes());
        (hasher.finish() >> 1).max(AFTER_DOT_DOT + 1)
    }

    /// Remembers a name that was listed.
    pub(super) fn listed(&self, handle: u64, offset: u64, name: EntryName) {
        if let Some(recent) = self.recent(handle) {
            recent.lock().unwrap_or_else(PoisonError::into_inner).add(offset, name);
        }
    }

    fn recent(&self, handle: u64) -> Option<Arc<Mutex<Recent>>> {
        self.locked().recent.get(&handle).cloned()
    }

    /// Where the listing of a directory goes on after `offset`.
    ///
    /// A name that this opening doesn't remember is looked for in the directory. If it is gone,
    /// the listing begins anew: a name listed twice does less harm than one never listed.
    pub(super) fn position(
        &self,
        volume: &dyn Volume,
        directory: Ino,
        handle: u64,
        offset: u64,
    ) -> Result<Position, LookupError> {
        match offset {
            0 => return Ok(Position::Dot),
            AFTER_DOT => return Ok(Position::DotDot),
            AFTER_DOT_DOT => return Ok(Position::After(None)),
            _ => {}
        }
        if let Some(recent) = self.recent(handle) {
            let recent = recent.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some((_, name)) = recent.0.iter().rev().find(|(after, _)| *after == offset) {
                return Ok(Position::After(Some(name.clone())));
            }
        }
        let mut after: Option<EntryName> = None;
        loop {
            let page = volume.list(directory, after.as_ref(), PAGE)?;
            let Some(last) = page.last() else { return Ok(Position::After(None)) };
            if let Some(found) = page.iter().find(|entry| self.offset_after(&entry.name) == offset)
            {
                return Ok(Position::After(Some(found.name.clone())));
            }
            after = Some(last.name.clone());
        }
    }
}
