//! The files of the data directory: their paths, a pool made ahead, and a few open descriptors.

use crate::StoreError;
use crate::bytes::table;
use crate::database::Database;
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// How many files are made at once, so that one sync of a directory serves them all.
const POOL_BATCH: usize = 64;
/// How many directories there are under the data directory.
const DIRECTORIES: u64 = 256;
/// How many descriptors are kept open.
const OPEN_MAX: usize = 128;

/// Gives errors for want of room their own kind.
pub(crate) fn failed(cause: io::Error) -> StoreError {
    match rustix::io::Errno::from_io_error(&cause) {
        Some(errno) => errno.into(),
        None => StoreError::Io(cause),
    }
}

/// The files of the data directory.
pub(crate) struct Files {
    directory: PathBuf,
    open: Mutex<Open>,
    /// Segments that are free, their files empty and their names durable.
    pool: Mutex<Vec<u64>>,
}

#[derive(Default)]
struct Open {
    files: BTreeMap<u64, (Arc<File>, u64)>,
    uses: u64,
}

impl Files {
    /// The files in `directory`, which is made with its subdirectories if it isn't there.
    pub(crate) fn open(directory: &Path) -> Result<Files, StoreError> {
        let files = Files {
            directory: directory.join("data"),
            open: Mutex::default(),
            pool: Mutex::default(),
        };
        if !files.directory.join("ff").is_dir() {
            for number in 0..DIRECTORIES {
                std::fs::create_dir_all(files.subdirectory(number)).map_err(failed)?;
            }
            sync_directory(&files.directory)?;
            sync_directory(directory)?;
        }
        Ok(files)
    }

    fn subdirectory(&self, number: u64) -> PathBuf {
        self.directory.join(format!("{number:02x}"))
    }

    /// The directory of a segment: the same for those of one batch.
    fn directory_of(segment: u64) -> u64 {
        segment / POOL_BATCH as u64 % DIRECTORIES
    }

    /// Where a segment is.
    pub(crate) fn path(&self, segment: u64) -> PathBuf {
        self.subdirectory(Self::directory_of(segment)).join(format!("{segment:x}"))
    }

    /// The segment's file, open for reading and writing.
    pub(crate) fn get(&self, segment: u64) -> io::Result<Arc<File>> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.uses += 1;
        let uses = open.uses;
        if let Some((file, used)) = open.files.get_mut(&segment) {
            *used = uses;
            return Ok(Arc::clone(file));
        }
        let file = OpenOptions::new().read(true).write(true).open(self.path(segment))?;
        let file = Arc::new(file);
        if open.files.len() >= OPEN_MAX {
            let oldest = open.files.iter().min_by_key(|(_, (_, used))| *used);
            let oldest = oldest.map(|(segment, _)| *segment);
            oldest.and_then(|segment| open.files.remove(&segment));
        }
        open.files.insert(segment, (Arc::clone(&file), uses));
        Ok(file)
    }

    /// Removes a segment's file. One that is gone already is no error.
    pub(crate) fn unlink(&self, segment: u64) -> Result<(), StoreError> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).files.remove(&segment);
        match std::fs::remove_file(self.path(segment)) {
            Err(cause) if cause.kind() != io::ErrorKind::NotFound => Err(failed(cause)),
            _ => Ok(()),
        }
    }

    /// A free segment with an empty file. Not to be called within a transaction.
    pub(crate) fn take(&self, database: &Database) -> Result<u64, StoreError> {
        let mut pool = self.pool.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(segment) = pool.pop() {
            return Ok(segment);
        }
        let segments = database.write(|handle| {
            (0..POOL_BATCH)
                .map(|_| table::insert_segment(handle.sql()))
                .collect::<Result<Vec<_>, _>>()
        })?;
        self.make(&segments)?;
        // Handed out from the first on.
        pool.extend(segments.into_iter().rev());
        Ok(pool.pop().expect("a batch was just made"))
    }

    /// Gives back what was taken and not used. What may have been written to it is dropped.
    pub(crate) fn give_back(&self, segment: u64) {
        if let Err(cause) = self.get(segment).and_then(|file| file.set_len(0)) {
            tracing::warn!(%cause, segment, "a file that wasn't used could not be emptied");
            return;
        }
        self.pool.lock().unwrap_or_else(PoisonError::into_inner).push(segment);
    }

    /// Takes over the free segments that a former process left: all are emptied.
    pub(crate) fn adopt(&self, segments: Vec<u64>) -> Result<(), StoreError> {
        self.make(&segments)?;
        self.pool.lock().unwrap_or_else(PoisonError::into_inner).extend(segments.into_iter().rev());
        Ok(())
    }

    fn make(&self, segments: &[u64]) -> Result<(), StoreError> {
        for segment in segments {
            let mut options = OpenOptions::new();
            options.write(true).create(true).truncate(true);
            options.open(self.path(*segment)).map_err(failed)?;
        }
        let mut directories: Vec<u64> = segments.iter().map(|id| Self::directory_of(*id)).collect();
        directories.dedup();
        directories.into_iter().try_for_each(|number| sync_directory(&self.subdirectory(number)))
    }

    /// Removes files that no segment has: what a crash leaves between forgetting and unlinking.
    pub(crate) fn sweep(&self, known: impl Fn(u64) -> bool) -> Result<(), StoreError> {
        for number in 0..DIRECTORIES {
            for entry in std::fs::read_dir(self.subdirectory(number)).map_err(failed)? {
                let entry = entry.map_err(failed)?;
                let name = entry.file_name();
                let segment = name.to_str().and_then(|name| u64::from_str_radix(name, 16).ok());
                // Whatever else somebody put here isn't ours to remove.
                if let Some(segment) = segment
                    && !known(segment)
                {
                    std::fs::remove_file(entry.path()).map_err(failed)?;
                }
            }
        }
        Ok(())
    }

    /// Makes a segment's bytes durable.
    pub(crate) fn sync(&self, segment: u64) -> Result<(), StoreError> {
        // Never `Full`: whatever failed to be written then is lost.
        self.get(segment).and_then(|file| file.sync_data()).map_err(StoreError::Io)
    }

    /// The directory that holds all of this, for `statvfs`.
    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }
}

fn sync_directory(directory: &Path) -> Result<(), StoreError> {
    File::open(directory).and_then(|directory| directory.sync_all()).map_err(failed)
}
