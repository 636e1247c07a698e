//! The SQLite file of a share: how it is opened, checked, migrated and connected to.

use crate::checkpoint::Checkpointer;
use crate::handle::Handle;
use crate::{OpenError, StoreError};
use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};
use rusqlite_migration::{M, Migrations};
use rustix::fs::{FlockOperation, Mode, OFlags};
use std::fs::File;
use std::io::Read;
use std::ops::Deref;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

/// "Kith", big-endian: tells `file` and other programs whose database this is.
const APPLICATION_ID: i32 = 0x4b69_7468;

/// Forward only: a released migration is never changed, a new one is added after it.
const MIGRATIONS: &[M<'static>] = &[
    M::up(include_str!("schema.sql")),
    M::up(include_str!("schema_bytes.sql")),
    M::up(include_str!("schema_writers.sql")),
    M::up(include_str!("schema_watch.sql")),
    M::up(include_str!("schema_accessed.sql")),
    M::up(include_str!("schema_forgotten.sql")),
    M::up(include_str!("schema_reached.sql")),
    M::up(include_str!("schema_hearsay.sql")),
];

/// How many connections for reading wait for their next use. More are made when needed.
const IDLE_READERS_MAX: usize = 4;

/// Memory for pages: of the writer, and of each reader. Negative: KiB, as SQLite wants it.
const WRITER_CACHE_KIB: i64 = -8 << 10;
const READER_CACHE_KIB: i64 = -2 << 10;

/// After how many pages the writer itself moves the log into the file, because the thread that
/// does that otherwise doesn't keep up; and how large the log's file stays then.
const CHECKPOINT_PAGES: i64 = 16_000;
const LOG_KEPT_BYTES: i64 = 16 << 20;

/// An opened index: one connection that writes, and a few that read.
pub(crate) struct Database {
    writer: Arc<Slot>,
    readers: Mutex<Vec<Handle>>,
    path: PathBuf,
    log: OwnedFd,
    checkpointer: Checkpointer,
    committed: AtomicU64,
    closed: AtomicBool,
    /// Held, and with it the directory, until the end.
    _lock: OwnedFd,
}

/// The place of the connection that writes: empty while somebody has it.
pub(crate) struct Slot {
    place: Mutex<Option<Handle>>,
    freed: Condvar,
}

/// The connection that writes, for as long as this lives.
pub(crate) struct Writing {
    /// Only `drop` takes it.
    handle: Option<Handle>,
    slot: Arc<Slot>,
}

impl Slot {
    fn new(handle: Handle) -> Self {
        Slot { place: Mutex::new(Some(handle)), freed: Condvar::new() }
    }

    fn take(self: &Arc<Self>) -> Writing {
        let place = self.place.lock().unwrap_or_else(PoisonError::into_inner);
        let mut place = self
            .freed
            .wait_while(place, |place| place.is_none())
            .unwrap_or_else(PoisonError::into_inner);
        Writing { handle: place.take(), slot: Arc::clone(self) }
    }

    fn try_take(self: &Arc<Self>) -> Option<Writing> {
        let handle = self.place.lock().unwrap_or_else(PoisonError::into_inner).take();
        handle.map(|handle| Writing { handle: Some(handle), slot: Arc::clone(self) })
    }
}

impl Deref for Writing {
    type Target = Handle;

    fn deref(&self) -> &Handle {
        self.handle.as_ref().expect("the connection is there until the guard is dropped")
    }
}

impl Drop for Writing {
    fn drop(&mut self) {
        *self.slot.place.lock().unwrap_or_else(PoisonError::into_inner) = self.handle.take();
        self.slot.freed.notify_one();
    }
}

/// What was found when a database was opened.
pub(crate) struct Opened {
    pub(crate) database: Database,
    /// Whoever had it open before didn't close it.
    pub(crate) unclean: bool,
    /// What whoever had it open before closed it with.
    pub(crate) continuity: Option<u64>,
}

impl Database {
    /// Opens the index in `directory`, or makes it; the directory is made if it isn't there.
    ///
    /// What is refused stays as it is.
    pub(crate) fn open(directory: &Path) -> Result<Opened, OpenError> {
        Opening { directory }.open()
    }

    /// Runs `write` in a transaction of its own, with nothing but the connection.
    pub(crate) fn write<T>(
        &self,
        write: impl FnOnce(&Handle) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let handle = self.writer()?;
        handle.begin()?;
        let done = write(&handle).and_then(|done| handle.commit().map(|()| done));
        match &done {
            Ok(_) => self.note_commit(),
            Err(_) => handle.rollback(),
        }
        done
    }

    /// The connection that writes, for as long as the guard lives.
    pub(crate) fn writer(&self) -> Result<Writing, StoreError> {
        // A panic inside of a transaction leaves it open; the next one to begin undoes it.
        let handle = self.writer.take();
        if self.closed.load(Ordering::Acquire) { Err(StoreError::Closed) } else { Ok(handle) }
    }

    /// The connection that writes, for a short look at what is committed, if nobody has it. Its
    /// pages are in memory, while every other connection's are out of date after each commit.
    pub(crate) fn idle_writer(&self) -> Result<Option<Writing>, StoreError> {
        let Some(handle) = self.writer.try_take() else { return Ok(None) };
        if self.closed.load(Ordering::Acquire) {
            return Err(StoreError::Closed);
        }
        if !handle.sql().is_autocommit() {
            // A panic left its transaction open.
            handle.rollback();
        }
        handle.run("BEGIN", [])?;
        Ok(Some(handle))
    }

    /// Counts a commit. Called while the writer is still held.
    pub(crate) fn note_commit(&self) {
        self.committed.fetch_add(1, Ordering::AcqRel);
        if let Ok(log) = rustix::fs::fstat(&self.log) {
            self.checkpointer.note_commit(log.st_size.cast_unsigned());
        }
    }

    /// How many transactions have been committed since the index was opened.
    pub(crate) fn committed(&self) -> u64 {
        self.committed.load(Ordering::Acquire)
    }

    /// Makes everything that is committed durable. Checkpoints need no care: SQLite syncs the log
    /// before it moves pages out of it, and the file before it overwrites the log.
    pub(crate) fn sync_log(&self) -> Result<(), StoreError> {
        // Never `Full`: whatever failed to be written then is lost.
        rustix::fs::fdatasync(&self.log).map_err(|errno| StoreError::Io(errno.into()))
    }

    /// A connection whose read transaction has begun.
    pub(crate) fn reader(&self) -> Result<Handle, StoreError> {
        if self.closed.load(Ordering::Acquire) {
            return Err(StoreError::Closed);
        }
        let idle = self.readers.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let handle = match idle {
            Some(handle) => handle,
            None => Handle::new(connect(&self.path, READER_CACHE_KIB)?),
        };
        handle.run("BEGIN", [])?;
        // A transaction begins with its first read.
        handle.first("SELECT 1 FROM replica", [], |_| Ok(()))?;
        Ok(handle)
    }

    /// Ends a reader's transaction, and keeps the connection if there are few.
    pub(crate) fn put_back(&self, handle: Handle) {
        if let Err(cause) = handle.run("COMMIT", []) {
            tracing::warn!(%cause, "a read transaction of the index could not be ended");
            return;
        }
        let mut readers = self.readers.lock().unwrap_or_else(PoisonError::into_inner);
        if readers.len() < IDLE_READERS_MAX && !self.closed.load(Ordering::Acquire) {
            readers.push(handle);
        }
    }

    /// Marks that everything has ended in order. Nothing can be written or read afterwards.
    pub(crate) fn close(&self, continuity: Option<u64>) -> Result<(), StoreError> {
        let handle = self.writer()?;
        let continuity = continuity.map(u64::cast_signed);
        handle.run("UPDATE replica SET clean = 1, continuity = ?", [continuity])?;
        self.closed.store(true, Ordering::Release);
        self.readers.lock().unwrap_or_else(PoisonError::into_inner).clear();
        self.sync_log()?;
        // Busy if a snapshot still reads: then the next start moves the log.
        handle.first("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?;
        Ok(())
    }
}

/// A connection with its settings, which are those of the connection and not of the file.
fn connect(path: &Path, cache_kib: i64) -> Result<Connection, rusqlite::Error> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
        | OpenFlags::SQLITE_OPEN_CREATE
        | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let sql = Connection::open_with_flags(path, flags)?;
    sql.busy_timeout(Duration::from_secs(10))?;
    sql.pragma_update(None, "cache_size", cache_kib)?;
    sql.pragma_update(None, "temp_store", "memory")?;
    // No memory map: an error of the disk would then be a signal, and not an error.
    sql.pragma_update(None, "mmap_size", 0)?;
    Ok(sql)
}

/// What SQLite finds wrong with a database first, if anything is.
pub(crate) fn damage(sql: &Connection) -> Result<Option<String>, rusqlite::Error> {
    let verdict: String = sql.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
    Ok((verdict != "ok").then_some(verdict))
}

/// The steps from a directory to a database that can be trusted.
struct Opening<'a> {
    directory: &'a Path,
}

impl Opening<'_> {
    fn open(&self) -> Result<Opened, OpenError> {
        std::fs::create_dir_all(self.directory).map_err(|cause| self.failed(cause))?;
        let lock = self.lock()?;
        let path = self.directory.join("index.db");
        self.look_at_header(&path)?;
        let mut sql = connect(&path, WRITER_CACHE_KIB).map_err(|cause| self.refused(cause))?;
        let found = self.prepare(&mut sql);
        let (unclean, continuity) = match found {
            Ok(found) => found,
            Err(refusal) => {
                // Closing would move the log into the file, which is to stay as it is.
                sql.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)
                    .map_err(|cause| self.refused(cause))?;
                return Err(refusal);
            }
        };
        let log = self.open_log()?;
        let other = connect(&path, READER_CACHE_KIB).map_err(|cause| self.refused(cause))?;
        let checkpointer = Checkpointer::start(other).map_err(|cause| self.failed(cause))?;
        let database = Database {
            writer: Arc::new(Slot::new(Handle::new(sql))),
            readers: Mutex::default(),
            path,
            log,
            checkpointer,
            committed: AtomicU64::new(0),
            closed: AtomicBool::new(false),
            _lock: lock,
        };
        database.sync_log().map_err(|cause| self.store(cause))?;
        self.sync_directory()?;
        Ok(Opened { database, unclean, continuity })
    }

    fn lock(&self) -> Result<OwnedFd, OpenError> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC;
        let mode = Mode::RUSR | Mode::WUSR;
        let lock = rustix::fs::open(self.directory.join("lock"), flags, mode)
            .map_err(|errno| self.store(errno.into()))?;
        match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(lock),
            Err(rustix::io::Errno::WOULDBLOCK) => {
                Err(OpenError::InUse { directory: self.directory.into() })
            }
            Err(errno) => Err(self.store(errno.into())),
        }
    }

    /// Refuses by the file's first bytes, before SQLite touches anything.
    fn look_at_header(&self, path: &Path) -> Result<(), OpenError> {
        let mut header = Vec::new();
        match File::open(path) {
            Ok(file) => file.take(100).read_to_end(&mut header).map_err(|e| self.failed(e))?,
            Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(cause) => return Err(self.failed(cause)),
        };
        if header.is_empty() {
            // What a power cut just after the file was made leaves.
            return Ok(());
        }
        if header.len() < 100 || !header.starts_with(b"SQLite format 3\0") {
            return Err(self.corrupt("it is not an SQLite database"));
        }
        let field = |at: usize| {
            i32::from_be_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
        };
        let (version, application) = (field(60), field(68));
        if application != APPLICATION_ID && (application != 0 || version != 0) {
            return Err(self.corrupt("it is the database of another program"));
        }
        self.compare_version(version)
    }

    fn compare_version(&self, version: i32) -> Result<(), OpenError> {
        match usize::try_from(version) {
            Ok(version) if version <= MIGRATIONS.len() => Ok(()),
            Ok(_) => Err(OpenError::Newer { directory: self.directory.into() }),
            Err(_) => Err(self.corrupt("its version is below zero")),
        }
    }

    /// Checks and migrates. Says whether the last stop was unclean, and what it left.
    fn prepare(&self, sql: &mut Connection) -> Result<(bool, Option<u64>), OpenError> {
        let refused = |cause: rusqlite::Error| self.refused(cause);
        let version = pragma(sql, "user_version").map_err(refused)?;
        let new = version == 0;
        if new {
            let tables = "SELECT count(*) FROM sqlite_schema";
            let tables: i64 = sql.query_row(tables, [], |row| row.get(0)).map_err(refused)?;
            if tables > 0 {
                return Err(self.corrupt("it is the database of another program"));
            }
            sql.pragma_update(None, "page_size", 4096).map_err(refused)?;
            sql.pragma_update(None, "application_id", APPLICATION_ID).map_err(refused)?;
        } else if pragma(sql, "application_id").map_err(refused)? != APPLICATION_ID {
            return Err(self.corrupt("it is the database of another program"));
        }
        self.compare_version(version)?;
        let clean = "SELECT clean FROM replica";
        let unclean =
            !new && !sql.query_row(clean, [], |row| row.get::<_, bool>(0)).map_err(refused)?;
        if unclean {
            self.check(sql)?;
        }
        sql.pragma_update(None, "journal_mode", "wal").map_err(refused)?;
        sql.pragma_update(None, "synchronous", "normal").map_err(refused)?;
        sql.pragma_update(None, "wal_autocheckpoint", CHECKPOINT_PAGES).map_err(refused)?;
        sql.pragma_update(None, "journal_size_limit", LOG_KEPT_BYTES).map_err(refused)?;
        self.migrate(sql, version)?;
        let continuity: Option<i64> = sql
            .query_row("SELECT continuity FROM replica", [], |row| row.get(0))
            .map_err(refused)?;
        // Good for one start: whoever copies the file from now on copies none.
        sql.execute("UPDATE replica SET clean = 0, continuity = NULL", []).map_err(refused)?;
        Ok((unclean, continuity.map(i64::cast_unsigned)))
    }

    fn check(&self, sql: &Connection) -> Result<(), OpenError> {
        match damage(sql).map_err(|cause| self.refused(cause))? {
            None => Ok(()),
            Some(damage) => Err(self.corrupt(&damage)),
        }
    }

    /// Brings the tables to this program's version, after a copy of what is there.
    fn migrate(&self, sql: &mut Connection, version: i32) -> Result<(), OpenError> {
        let migrations = Migrations::from_slice(MIGRATIONS);
        if usize::try_from(version).is_ok_and(|version| version == MIGRATIONS.len()) {
            return Ok(());
        }
        if version > 0 {
            let copy = self.directory.join(format!("index-before-{}.db", MIGRATIONS.len()));
            sql.backup("main", &copy, None).map_err(|cause| self.refused(cause))?;
            File::open(&copy).and_then(|file| file.sync_all()).map_err(|e| self.failed(e))?;
            self.sync_directory()?;
        }
        migrations.to_latest(sql).map_err(|cause| match cause {
            rusqlite_migration::Error::RusqliteError { err, .. } => self.refused(err),
            other => self.corrupt(&other.to_string()),
        })?;
        // An older program judges by the file's header, so the new version has to be in it.
        sql.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
            .map_err(|cause| self.refused(cause))
    }

    /// A descriptor of our own for the log, to sync it. SQLite locks other files only, so that
    /// closing this one gives up no lock of its.
    fn open_log(&self) -> Result<OwnedFd, OpenError> {
        let flags = OFlags::RDWR | OFlags::CLOEXEC;
        rustix::fs::open(self.directory.join("index.db-wal"), flags, Mode::empty())
            .map_err(|errno| self.store(errno.into()))
    }

    fn sync_directory(&self) -> Result<(), OpenError> {
        File::open(self.directory)
            .and_then(|directory| directory.sync_all())
            .map_err(|cause| self.failed(cause))
    }

    fn refused(&self, cause: rusqlite::Error) -> OpenError {
        use rusqlite::ErrorCode::{DatabaseCorrupt, NotADatabase};
        match cause.sqlite_error_code() {
            Some(DatabaseCorrupt | NotADatabase) => self.corrupt(&cause.to_string()),
            _ => self.store(cause.into()),
        }
    }

    fn corrupt(&self, reason: &str) -> OpenError {
        OpenError::Corrupt { directory: self.directory.into(), reason: reason.into() }
    }

    fn failed(&self, cause: std::io::Error) -> OpenError {
        self.store(cause.into())
    }

    fn store(&self, cause: StoreError) -> OpenError {
        OpenError::Store { directory: self.directory.into(), cause }
    }
}

fn pragma(sql: &Connection, name: &str) -> Result<i32, rusqlite::Error> {
    sql.pragma_query_value(None, name, |row| row.get(0))
}

#[cfg(test)]
mod tests;
