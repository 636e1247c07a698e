//! Giving back the room of bytes that nothing names any more.

use super::ReadError;
use super::list::visit;
use super::table::{self, Kind, Located, SegmentRow};
use crate::handle::Handle;
use crate::index::key::blob;
use crate::index::record;
use crate::{Store, StoreError};
use kith_core::clock::WallMs;
use kith_core::codec::decode_version;
use kith_core::content::Content;
use kith_core::id::{ChunkId, InodeId, WriterId};
use kith_core::index::EntryState;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::PoisonError;

/// How many inodes, versions or log entries are looked at in one go.
const SLICE: usize = 256;
/// How many chunks are.
const CHUNKS: usize = 2048;
/// A segment with less than one part in this many alive is rewritten.
const LIVE_DIVISOR: u64 = 4;
/// How much one collection moves at most.
const MOVED_MAX_BYTES: u64 = 1 << 30;
/// How many bytes of chunks are moved in one go.
const MOVE_BYTES: u64 = 4 << 20;

/// What a collection gave back.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Collected {
    /// Chunks that nothing named.
    pub chunks: u64,
    /// Their bytes. They take room until all of their segment is gone.
    pub chunk_bytes: u64,
    /// Segments that were removed.
    pub segments: u64,
    /// The bytes of these.
    pub freed_bytes: u64,
}

/// A set of chunks that may hold a few more than were put in (Bloom, 1970): those stay until the
/// next collection, which errs elsewhere. Bounded, at 12 bits a chunk, while a share may have any
/// number of chunks.
struct Marks {
    bits: Vec<u64>,
    salt: u64,
}

const MARKS_MAX_BYTES: u64 = 64 << 20;

impl Marks {
    fn new(chunks: u64, salt: u64) -> Self {
        let words = (chunks.saturating_mul(12) / 64).clamp(1024, MARKS_MAX_BYTES / 8);
        Marks { bits: vec![0; words as usize], salt }
    }

    fn positions(&self, id: &ChunkId) -> [(usize, u64); 6] {
        let word = |at: usize| {
            let mut word = [0; 8];
            word.copy_from_slice(&id.0[at..at + 8]);
            u64::from_le_bytes(word)
        };
        let first = (word(0) ^ self.salt).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let step = word(8).wrapping_add(self.salt) | 1;
        let count = self.bits.len() as u64 * 64;
        std::array::from_fn(|number| {
            let bit = first.wrapping_add(step.wrapping_mul(number as u64)) % count;
            ((bit / 64) as usize, 1 << (bit % 64))
        })
    }

    fn insert(&mut self, id: &ChunkId) {
        for (word, bit) in self.positions(id) {
            self.bits[word] |= bit;
        }
    }

    fn contains(&self, id: &ChunkId) -> bool {
        self.positions(id).iter().all(|(word, bit)| self.bits[*word] & bit != 0)
    }
}

/// One collection.
struct Collection<'a> {
    store: &'a Store,
    marks: Marks,
    /// The writer, and how far in its log changes have been taken into account.
    writer: WriterId,
    marked: u64,
    /// Segments that existed, with nothing more to come, when the collection began.
    segments: Vec<SegmentRow>,
    live_bytes: BTreeMap<u64, u64>,
    collected: Collected,
    /// Files that were removed before this, in milliseconds since 1970, are let go.
    oldest_ms: u64,
}

/// Why a collection ends early.
enum Stop {
    /// Not all that is named can be known now; nothing more is collected.
    Unsure,
    Failed(StoreError),
}

impl From<StoreError> for Stop {
    fn from(cause: StoreError) -> Self {
        Stop::Failed(cause)
    }
}

impl Store {
    /// Gives back the room of chunks that no version names: neither one of a file, nor one that was
    /// superseded or removed less than `retention_ms` ago, nor an overlay. Older superseded versions
    /// are forgotten; of older removed ones the bytes are. What [`held_since`](Store::held_since)
    /// answers stays, however old; and so does what this device has of a file as long as it lacks
    /// bytes of the version that took its place, or of the file that took its name.
    ///
    /// Works in slices, between which everything else goes on. One collection at a time. It waits
    /// for those who hold a [`Cut`](super::Cut): never call it while you hold one.
    ///
    /// # Errors
    /// A [`StoreError`] if the disk or the index fails. What was collected until then is.
    pub fn collect(&self, now: WallMs, retention_ms: u64) -> Result<Collected, StoreError> {
        let oldest = now.0.saturating_sub(retention_ms);
        let oldest = self.held_since(now)?.map_or(oldest, |held| oldest.min(held.0));
        while self.inner.database.write(|handle| forget_history(handle, oldest))? > 0 {}
        let mut collection = Collection::begin(self, now, oldest)?;
        match collection.run() {
            Ok(()) | Err(Stop::Unsure) => Ok(collection.collected),
            Err(Stop::Failed(cause)) => Err(cause),
        }
    }
}

fn forget_history(handle: &Handle, oldest: u64) -> Result<usize, StoreError> {
    let sql = "DELETE FROM history WHERE rowid IN
               (SELECT rowid FROM history WHERE retired < ?
                AND inode NOT IN (SELECT inode FROM incomplete) LIMIT ?)";
    handle.run(sql, (i64::try_from(oldest).unwrap_or(i64::MAX), SLICE as i64))
}

impl<'a> Collection<'a> {
    fn begin(store: &'a Store, now: WallMs, oldest_ms: u64) -> Result<Self, StoreError> {
        // Whoever is storing chunks now has finished, so that each segment's rows are complete.
        let collecting = store.inner.bytes.gate.collect();
        let snapshot = store.snapshot()?;
        let mut segments = table::segments(snapshot.sql())?;
        segments.retain(|row| matches!(row.kind, Kind::Pack | Kind::Whole));
        let marks = Marks::new(table::count_chunks(snapshot.sql())?, now.0);
        let (writer, marked) = log_end(snapshot.handle())?;
        drop(collecting);
        Ok(Collection {
            store,
            marks,
            writer,
            marked,
            segments,
            live_bytes: BTreeMap::new(),
            collected: Collected::default(),
            oldest_ms,
        })
    }

    fn run(&mut self) -> Result<(), Stop> {
        self.mark_inodes()?;
        // After the inodes, whose versions may have become history meanwhile.
        self.mark_history()?;
        self.mark_overlays()?;
        self.sweep()?;
        let sparse = self.sparse_segments()?;
        if !sparse.is_empty() {
            self.move_chunks(&sparse)?;
        }
        self.remove_segments(&sparse)?;
        Ok(())
    }

    fn mark_inodes(&mut self) -> Result<(), Stop> {
        let mut after = i64::MIN;
        loop {
            let snapshot = self.store.snapshot()?;
            let sql = "SELECT id, register, names FROM inodes
                       WHERE kind = 1 AND id > ? ORDER BY id LIMIT ?";
            let rows = snapshot.handle().all(sql, (after, SLICE as i64), |row| {
                Ok((row.get(0)?, contents_of(blob(row.get_ref(1)?)?)?, row.get::<_, i64>(2)?))
            })?;
            let Some((last, _, _)) = rows.last() else { return Ok(()) };
            after = *last;
            for (key, contents, names) in rows {
                if names == 0 && is_removed_before(snapshot.handle(), key, self.oldest_ms)? {
                    continue;
                }
                mark(self.store, &mut self.marks, snapshot.handle(), &contents)?;
            }
        }
    }

    fn mark_history(&mut self) -> Result<(), Stop> {
        let mut after = i64::MIN;
        loop {
            let snapshot = self.store.snapshot()?;
            let sql = "SELECT rowid, version FROM history WHERE rowid > ? ORDER BY rowid LIMIT ?";
            let rows = snapshot.handle().all(sql, (after, SLICE as i64), |row| {
                Ok((row.get(0)?, decode_version(blob(row.get_ref(1)?)?)?.content))
            })?;
            let Some((last, _)) = rows.last() else { return Ok(()) };
            after = *last;
            for (_, content) in rows {
                mark(self.store, &mut self.marks, snapshot.handle(), &[content])?;
            }
        }
    }

    /// Marks what overlays refer to: those in use, and those that a crash left.
    fn mark_overlays(&mut self) -> Result<(), Stop> {
        let overlays = &self.store.inner.bytes.overlays;
        let overlays: Vec<_> = overlays
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .values()
            .filter_map(std::sync::Weak::upgrade)
            .collect();
        let mut contents = Vec::new();
        for overlay in overlays {
            contents.extend(overlay.state().contents());
        }
        let left = &self.store.inner.bytes.left;
        for left in left.lock().unwrap_or_else(PoisonError::into_inner).values() {
            contents.extend(left.entry.contents());
        }
        let snapshot = self.store.snapshot()?;
        for (_, _, state) in table::overlays(snapshot.sql())? {
            contents.extend(super::journal::Entry::decode(&state, |_| false)?.contents());
        }
        mark(self.store, &mut self.marks, snapshot.handle(), &contents)
    }

    /// Forgets the chunks that nothing names.
    fn sweep(&mut self) -> Result<(), Stop> {
        let mut after = ChunkId([0; 32]);
        loop {
            let snapshot = self.store.snapshot()?;
            let chunks = table::chunks_after(snapshot.sql(), &after, CHUNKS)?;
            drop(snapshot);
            let Some((last, _)) = chunks.last() else { return Ok(()) };
            after = *last;
            let (live, mut dead): (Vec<Located>, Vec<Located>) =
                chunks.into_iter().partition(|(id, _)| self.marks.contains(id));
            if !dead.is_empty() {
                dead = self.forget(dead)?;
            }
            for (_, at) in &live {
                *self.live_bytes.entry(at.segment).or_default() += u64::from(at.len_bytes);
            }
            for (_, at) in &dead {
                self.collected.chunks += 1;
                self.collected.chunk_bytes += u64::from(at.len_bytes);
            }
        }
    }

    /// Forgets chunks, unless they have been named since they were looked at. Those that nobody
    /// can find any more are answered; the others count as alive.
    fn forget(&mut self, dead: Vec<Located>) -> Result<Vec<Located>, Stop> {
        // Nobody is between finding one of them and naming it.
        let _collecting = self.store.inner.bytes.gate.collect();
        let mut stop = None;
        let mut named = Vec::new();
        let forgotten = self.store.inner.database.write(|handle| {
            if let Err(cause) = self.mark_changes(handle) {
                stop = Some(cause);
                return Ok(Vec::new());
            }
            let (kept, dead): (Vec<_>, Vec<_>) =
                dead.into_iter().partition(|(id, _)| self.marks.contains(id));
            named = kept;
            for located in &dead {
                table::delete_chunk(handle.sql(), located)?;
            }
            Ok(dead)
        })?;
        for (_, at) in &named {
            *self.live_bytes.entry(at.segment).or_default() += u64::from(at.len_bytes);
        }
        stop.map_or(Ok(forgotten), Err)
    }

    /// Marks what the log says has changed since it was last looked at.
    fn mark_changes(&mut self, handle: &Handle) -> Result<(), Stop> {
        let (writer, end) = log_end(handle)?;
        if writer != self.writer {
            // The log's numbers mean something else now.
            return Err(Stop::Unsure);
        }
        // A name that comes back may lead to a file whose removal was long ago.
        let sql = "SELECT i.register FROM log l JOIN inodes i ON i.id = l.key
                   WHERE l.logged > ?1 AND l.entry = 0 AND i.kind = 1
                   UNION ALL
                   SELECT i.register FROM log l JOIN entries e ON e.id = l.key
                   JOIN inodes i ON i.id = e.inode
                   WHERE l.logged > ?1 AND l.entry = 1 AND i.kind = 1";
        let changed = handle
            .all(sql, [self.marked.cast_signed()], |row| contents_of(blob(row.get_ref(0)?)?))?;
        for contents in changed {
            mark(self.store, &mut self.marks, handle, &contents)?;
        }
        self.marked = end;
        Ok(())
    }

    /// Segments of which so little is alive that moving it is worth the room.
    fn sparse_segments(&self) -> Result<BTreeSet<u64>, StoreError> {
        let mut sparse = BTreeSet::new();
        let mut moved = 0;
        for row in &self.segments {
            let live = self.live_bytes.get(&row.id).copied().unwrap_or(0);
            if live > 0 && live < self.segment_bytes(row.id)? / LIVE_DIVISOR {
                moved += live;
                if moved > MOVED_MAX_BYTES {
                    break;
                }
                sparse.insert(row.id);
            }
        }
        Ok(sparse)
    }

    /// The room that a segment takes; holes in it don't count.
    fn segment_bytes(&self, segment: u64) -> Result<u64, StoreError> {
        use std::os::unix::fs::MetadataExt;
        match std::fs::metadata(self.store.inner.bytes.files.path(segment)) {
            Ok(data) => Ok(data.blocks() * 512),
            Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => Ok(0),
            Err(cause) => Err(super::file::failed(cause)),
        }
    }

    /// Moves what is alive in these segments to a pack.
    fn move_chunks(&self, sparse: &BTreeSet<u64>) -> Result<(), StoreError> {
        let mut after = ChunkId([0; 32]);
        loop {
            let snapshot = self.store.snapshot()?;
            let mut chunks = table::chunks_after(snapshot.sql(), &after, CHUNKS)?;
            drop(snapshot);
            let Some((last, _)) = chunks.last() else { return Ok(()) };
            after = *last;
            chunks.retain(|(_, at)| sparse.contains(&at.segment));
            let mut rest = &chunks[..];
            while !rest.is_empty() {
                let mut bytes = 0;
                let count = rest.iter().take_while(|(_, at)| {
                    bytes += u64::from(at.len_bytes);
                    bytes <= MOVE_BYTES
                });
                let (batch, later) = rest.split_at(count.count().max(1));
                self.store.move_to_pack(batch)?;
                rest = later;
            }
        }
    }

    /// Removes segments in which nothing is alive, once that is durable.
    fn remove_segments(&mut self, moved: &BTreeSet<u64>) -> Result<(), StoreError> {
        let empty =
            |row: &&SegmentRow| moved.contains(&row.id) || !self.live_bytes.contains_key(&row.id);
        let empty: Vec<u64> = self.segments.iter().filter(empty).map(|row| row.id).collect();
        if empty.is_empty() {
            return Ok(());
        }
        self.store.inner.database.write(|handle| {
            empty.iter().try_for_each(|segment| table::delete_segment(handle.sql(), *segment))
        })?;
        self.store.sync()?;
        for segment in empty {
            self.collected.freed_bytes += self.segment_bytes(segment)?;
            self.collected.segments += 1;
            self.store.inner.bytes.files.unlink(segment)?;
        }
        Ok(())
    }
}

/// The writer, and the last number in its log.
fn log_end(handle: &Handle) -> Result<(WriterId, u64), StoreError> {
    let sql = "SELECT writer, (SELECT coalesce(max(logged), 0) FROM log) FROM replica";
    let end = handle.first(sql, [], |row| {
        let writer: Option<i64> = row.get(0)?;
        Ok((WriterId(writer.unwrap_or(0).cast_unsigned()), row.get::<_, i64>(1)?.cast_unsigned()))
    })?;
    end.ok_or(StoreError::Damaged("the replica's own row is missing"))
}

/// Whether a file that no name leads to was removed for good before a time, in milliseconds since
/// 1970: all its names went before that, by the clocks of those who removed them and by this
/// device's own, as nobody else's clock can shorten what is kept here. One whose names were not all
/// removed, as far as others know, is only out of sight; and one that stands in for what is not
/// here stays.
fn is_removed_before(handle: &Handle, inode: i64, oldest_ms: u64) -> Result<bool, StoreError> {
    let sql = "SELECT n.changed FROM inodes i JOIN nodes n ON n.ino = i.ino WHERE i.id = ?";
    let changed: Option<i64> = handle.first(sql, [inode], |row| Ok(row.get(0)?))?;
    let changed_ms = changed.map_or(0, |seconds| seconds.saturating_mul(1000));
    if i64::try_from(oldest_ms).is_ok_and(|oldest_ms| changed_ms >= oldest_ms) {
        return Ok(false);
    }
    let entries = handle.entries_of(handle.inode_id(inode)?)?;
    let removed = |state: &EntryState| {
        let removal = state.entry.removal.as_ref();
        state.withheld.is_none() && removal.is_some_and(|it| it.stamp.hlc.wall().0 < oldest_ms)
    };
    Ok(!entries.is_empty() && entries.iter().all(removed) && !handle.stands_in(&entries)?)
}

fn contents_of(register: &[u8]) -> Result<Vec<Content>, StoreError> {
    let inode = record::read_inode(InodeId::ROOT, register)?;
    Ok(inode.versions.into_values().map(|version| version.content).collect())
}

fn mark(
    store: &Store,
    marks: &mut Marks,
    handle: &Handle,
    contents: &[Content],
) -> Result<(), Stop> {
    let reader = store.inner.bytes.reader(handle.sql());
    for content in contents {
        match visit(content, &reader, &mut |id| marks.insert(id)) {
            Ok(()) => {}
            Err(ReadError::Store(cause)) => return Err(cause.into()),
            Err(ReadError::Damaged(id)) => {
                tracing::warn!(chunk = %id, "a list is damaged; nothing is collected before it is mended");
                return Err(Stop::Unsure);
            }
            Err(ReadError::Absent(_)) => unreachable!("absent lists are passed over"),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_keep_all_and_hardly_more() {
        let id = |n: u64| ChunkId::of(&n.to_le_bytes());
        let mut marks = Marks::new(10_000, 7);
        (0..10_000).for_each(|n| marks.insert(&id(n)));
        assert!((0..10_000).all(|n| marks.contains(&id(n))));
        let wrong = (10_000..20_000).filter(|n| marks.contains(&id(*n))).count();
        assert!(wrong < 200, "{wrong}");
    }
}
