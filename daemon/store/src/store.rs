//! The store of one share: its transactions, snapshots and syncs.

use crate::bytes::Bytes;
use crate::database::Database;
use crate::guard::GuardNews;
use crate::round::Rounds;
use crate::transaction::Memory;
use crate::{Incomplete, NodeRead, OpenError, Snapshot, StoreError, Transaction};
use kith_core::clock::WallMs;
use kith_core::id::{DeviceId, Dot, InodeId, ShareId, Tag, WriterId};
use kith_core::name::EntryName;
use kith_core::operation;
use kith_core::register::Version;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

/// This device's disk for one share. Clones are the same store.
#[derive(Clone)]
pub struct Store {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) database: Arc<Database>,
    pub(crate) bytes: Bytes,
    /// What the one writer knows without reading. Locked only together with the writer, after it.
    memory: Mutex<Memory>,
    rounds: Rounds,
    /// What nobody has asked for yet. Locked alone.
    pub(crate) news: Mutex<GuardNews>,
    unclean: bool,
    continuity: Option<u64>,
    new: bool,
}

/// What a new index is founded with. An existing one stays what it is.
#[derive(Clone, Debug)]
pub struct Founding {
    /// The share.
    pub share: ShareId,
    /// This device.
    pub device: DeviceId,
    /// Its incarnation: random.
    pub writer: WriterId,
    /// Its name.
    pub author: String,
    /// The time.
    pub now: WallMs,
    /// The first transaction's tag: random.
    pub tag: Tag,
}

impl Store {
    /// Opens the store in `directory`, or founds one. The directory is made if it isn't there.
    ///
    /// # Errors
    /// An [`OpenError`]; what is in the directory then stays as it is.
    pub fn open(directory: &Path, founding: &Founding) -> Result<Store, OpenError> {
        let opened = Database::open(directory)?;
        let failed = |cause| OpenError::Store { directory: directory.into(), cause };
        let memory = opened.database.writer().and_then(|handle| Memory::load(&handle));
        let memory = memory.map_err(failed)?;
        let bytes = Bytes::open(directory, &opened.database, opened.unclean).map_err(failed)?;
        let new = memory.state().is_none();
        let inner = Inner {
            database: Arc::new(opened.database),
            bytes,
            memory: Mutex::new(memory),
            rounds: Rounds::default(),
            news: Mutex::default(),
            unclean: opened.unclean,
            continuity: opened.continuity.filter(|_| !opened.unclean),
            new,
        };
        let store = Store { inner: Arc::new(inner) };
        if new {
            store.found(founding).map_err(failed)?;
        }
        store.doubt_lost().map_err(failed)?;
        Ok(store)
    }

    fn found(&self, founding: &Founding) -> Result<(), StoreError> {
        let Founding { share, device, writer, author, now, tag } = founding;
        self.write(|transaction| {
            let author = author.clone();
            operation::found(transaction, *share, *device, *writer, author, *now, *tag)?;
            transaction.found_root()
        })?;
        self.sync()
    }

    /// Whether the process that had the store open before ended without closing it.
    #[must_use]
    pub fn was_unclean(&self) -> bool {
        self.inner.unclean
    }

    /// What the store was last closed with ([`close_with`](Store::close_with)), if it was closed in
    /// order and not opened since.
    #[must_use]
    pub fn continuity(&self) -> Option<u64> {
        self.inner.continuity
    }

    /// Whether this opening founded the index.
    #[must_use]
    pub fn is_new(&self) -> bool {
        self.inner.new
    }

    /// Runs `change` in a transaction: all of it is committed, or nothing if it fails.
    ///
    /// One transaction at a time: others wait. What is committed is seen by every snapshot that
    /// begins afterwards, and is durable after the next [`sync`](Store::sync).
    ///
    /// # Errors
    /// Those of `change`, and a [`StoreError`] if the commit fails.
    pub fn write<T, E: From<StoreError>>(
        &self,
        change: impl FnOnce(&mut Transaction<'_>) -> Result<T, E>,
    ) -> Result<T, E> {
        let handle = self.inner.database.writer()?;
        let mut memory = self.inner.memory.lock().unwrap_or_else(PoisonError::into_inner);
        let mut transaction = Transaction::begin(&handle, &mut memory)?;
        let done = change(&mut transaction)?;
        let news = transaction.commit()?;
        self.inner.database.note_commit();
        self.tell_guard_news(news);
        Ok(done)
    }

    /// A consistent state of the index: what is committed now.
    ///
    /// # Errors
    /// A [`StoreError`] if the index fails.
    pub fn snapshot(&self) -> Result<Snapshot, StoreError> {
        Snapshot::begin(&self.inner.database)
    }

    /// The same for a short look, which costs less: through the connection that writes, unless
    /// somebody is writing. Until it is dropped nobody can write, so it is for a few rows; whoever
    /// has it must not write himself, and wait for nothing.
    ///
    /// # Errors
    /// A [`StoreError`] if the index fails.
    pub fn glance(&self) -> Result<Snapshot, StoreError> {
        Snapshot::glance(&self.inner.database)
    }

    /// Returns once everything that was committed before the call is on the disk: the bytes first,
    /// then the index that names them. Callers at the same time share one sync.
    ///
    /// # Errors
    /// [`StoreError::SyncFailed`] from the first failure on: what it covered may be lost.
    pub fn sync(&self) -> Result<(), StoreError> {
        let database = &self.inner.database;
        self.inner.rounds.reach(
            database.committed(),
            || database.committed(),
            || {
                self.inner.bytes.sync_segments(database)?;
                database.sync_log()
            },
        )
    }

    /// Returns once all bytes are on the disk that were stored before the call, though nothing of
    /// the index is. What then names them names nothing that a power cut may take, however
    /// much of the index it leaves.
    ///
    /// # Errors
    /// As [`sync`](Self::sync).
    pub fn flush_bytes(&self) -> Result<(), StoreError> {
        self.inner.rounds.part(|| self.inner.bytes.flush_segments())
    }

    /// Up to `limit` shown versions that lack bytes, of those whose order is above `after`.
    ///
    /// # Errors
    /// A [`StoreError`] if the index fails.
    pub fn incomplete(&self, after: u64, limit: usize) -> Result<Vec<Incomplete>, StoreError> {
        self.snapshot()?.handle().incomplete(after, limit)
    }

    /// How many bytes all shown versions together lack.
    ///
    /// # Errors
    /// A [`StoreError`] if the index fails.
    pub fn absent_bytes(&self) -> Result<u64, StoreError> {
        Ok(self.snapshot()?.totals()?.absent_bytes)
    }

    /// Records how many bytes a version still lacks, in a transaction of its own. Does nothing if
    /// it isn't known to lack any.
    ///
    /// # Errors
    /// A [`StoreError`] if the index fails.
    pub fn recount(
        &self,
        inode: InodeId,
        version: Dot,
        absent_bytes: u64,
    ) -> Result<(), StoreError> {
        self.write(|transaction| transaction.recount(inode, version, absent_bytes))
    }

    /// Records that all bytes of a version are here, in a transaction of its own.
    ///
    /// # Errors
    /// A [`StoreError`] if the index fails.
    pub fn complete(&self, inode: InodeId, version: Dot) -> Result<(), StoreError> {
        self.write(|transaction| transaction.mark_complete(inode, version))
    }

    /// The files that have never been published, in the order of their keys.
    ///
    /// # Errors
    /// A [`StoreError`] if the index fails.
    pub fn withheld(&self) -> Result<Vec<InodeId>, StoreError> {
        self.snapshot()?.handle().withheld()
    }

    /// Up to `limit` names after `after` that something shown beside them is labelled from, each with
    /// its directory. In an order of its own.
    ///
    /// # Errors
    /// A [`StoreError`] if the index fails.
    pub fn labelled(
        &self,
        after: Option<&(InodeId, EntryName)>,
        limit: usize,
    ) -> Result<Vec<(InodeId, EntryName)>, StoreError> {
        self.snapshot()?.handle().labelled(after, limit)
    }

    /// Looks through the whole index, which takes about a second for a million names. Answers what is
    /// wrong with it, if anything is.
    ///
    /// # Errors
    /// A [`StoreError`] if the index can't be read, which is an answer too.
    pub fn damage(&self) -> Result<Option<String>, StoreError> {
        let snapshot = self.snapshot()?;
        Ok(crate::database::damage(snapshot.sql())?)
    }

    /// The versions of a file in this device's history, the earliest first, each with the time at
    /// which another took its place.
    ///
    /// # Errors
    /// A [`StoreError`] if the index fails.
    pub fn history_of(&self, inode: InodeId) -> Result<Vec<(WallMs, Version)>, StoreError> {
        self.snapshot()?.handle().history_of(inode)
    }

    /// Makes everything durable and marks that the store was closed in order. Later calls, also
    /// of clones, fail with [`StoreError::Closed`]. An error is logged, also if there are overlays that
    /// could not be [synced](crate::Overlay::sync): the next opening then treats the stop as unclean.
    pub fn close(&self) {
        self.close_with(None);
    }

    /// The same, and leaves a random number in the index, which the next opening finds. Says whether
    /// the store is closed in order.
    pub fn close_with(&self, continuity: Option<u64>) -> bool {
        if !self.inner.bytes.is_kept() {
            // As after a kill, the spill log still has it.
            tracing::error!(
                "changes to files could not be kept; Kith stops without closing its data"
            );
            return false;
        }
        let closed = self.sync().and_then(|()| self.inner.database.close(continuity));
        if closed.is_ok() {
            self.inner.bytes.spill.clear();
        }
        if let Err(cause) = &closed
            && !matches!(cause, StoreError::Closed)
        {
            tracing::warn!(%cause, "the store could not be closed in order");
        }
        closed.is_ok()
    }
}

#[cfg(test)]
mod tests;
