//! Files as programs hold them open on a mount, and what they certainly saw in them.

use super::ledger::{Saved, of_file, of_link};
use rustix::fs::{AtFlags, StatxFlags, statx};
use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

/// A file that is open for reading and writing.
#[derive(Debug)]
pub struct Held {
    /// The file.
    pub file: File,
    /// Of which history.
    pub history: usize,
    /// On which device.
    pub device: usize,
    /// Its number in the mount.
    pub ino: u64,
    /// What it was opened as.
    pub path: String,
    /// What was replaced through it, or is to be when it is published.
    pub ended: BTreeSet<Saved>,
    /// Whether something was written through it.
    pub dirty: bool,
    /// Whether it is new and was never published.
    pub fresh: bool,
    /// Whether somebody on this device took its last name.
    pub taken: bool,
}

impl Held {
    /// Opens a file that is there.
    ///
    /// # Errors
    /// What opening or reading it gives.
    pub fn open(path: &Path, history: usize, device: usize) -> io::Result<Held> {
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        let mut held = Held::new(file, path, history, device)?;
        held.ended.extend(held.content()?);
        Ok(held)
    }

    /// Makes a file.
    ///
    /// # Errors
    /// What making it gives.
    pub fn create(path: &Path, history: usize, device: usize) -> io::Result<Held> {
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create_new(true).mode(0o644).open(path)?;
        let mut held = Held::new(file, path, history, device)?;
        (held.dirty, held.fresh) = (true, true);
        Ok(held)
    }

    /// Opens a file, emptying it; what it had is to be witnessed before.
    ///
    /// # Errors
    /// What opening it gives.
    pub fn truncate(path: &Path, history: usize, device: usize) -> io::Result<Held> {
        let file = OpenOptions::new().read(true).write(true).truncate(true).open(path)?;
        let mut held = Held::new(file, path, history, device)?;
        held.dirty = true;
        Ok(held)
    }

    fn new(file: File, path: &Path, history: usize, device: usize) -> io::Result<Held> {
        let ino = file.metadata()?.ino();
        let path = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Ok(Held {
            file,
            history,
            device,
            ino,
            path,
            ended: BTreeSet::new(),
            dirty: false,
            fresh: false,
            taken: false,
        })
    }

    /// What reading it gives; `None` if it is empty.
    ///
    /// # Errors
    /// What reading it gives.
    pub fn content(&self) -> io::Result<Option<Saved>> {
        Ok(Some(whole(&self.file)?).filter(|bytes| !bytes.is_empty()).map(|bytes| of_file(&bytes)))
    }

    /// How many names it has.
    ///
    /// # Errors
    /// What asking gives.
    pub fn links(&self) -> io::Result<u64> {
        links(&self.file)
    }
}

/// What a name led to just before somebody took it.
#[derive(Debug)]
pub struct Witness {
    file: Option<File>,
    /// What it showed; `None` if it is empty, or has no content.
    pub saved: Option<Saved>,
    /// How many names it had.
    pub links: u64,
    /// Its number in the mount.
    pub ino: u64,
}

impl Witness {
    /// Looks at a name.
    ///
    /// # Errors
    /// What looking or reading gives.
    pub fn of(path: &Path) -> io::Result<Witness> {
        let metadata = std::fs::symlink_metadata(path)?;
        if metadata.is_symlink() {
            let target = std::fs::read_link(path)?;
            let saved = Some(of_link(target.as_os_str().as_encoded_bytes()));
            let (links, ino) = (metadata.nlink(), metadata.ino());
            return Ok(Witness { file: None, saved, links, ino });
        }
        if !metadata.is_file() {
            let (links, ino) = (metadata.nlink(), metadata.ino());
            return Ok(Witness { file: None, saved: None, links, ino });
        }
        let file = File::open(path)?;
        let bytes = whole(&file)?;
        let saved = Some(&bytes).filter(|bytes| !bytes.is_empty()).map(|bytes| of_file(bytes));
        let (links, ino) = (links(&file)?, file.metadata()?.ino());
        Ok(Witness { file: Some(file), saved, links, ino })
    }

    /// Whether, after a name was taken, it is not certain that it was one of this.
    pub fn is_unclear(&self) -> bool {
        match &self.file {
            Some(file) => links(file).map_or(true, |links| links >= self.links),
            None => false,
        }
    }
}

/// All bytes of an open file.
fn whole(file: &File) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; 64 * 1024];
    let mut end = 0;
    loop {
        match file.read_at(&mut bytes[end..], end as u64)? {
            0 => break,
            read => end += read,
        }
        if end == bytes.len() {
            bytes.resize(end * 4, 0);
        }
    }
    bytes.truncate(end);
    Ok(bytes)
}

/// How many names an open file has, as the daemon knows it.
fn links(file: &File) -> io::Result<u64> {
    let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_FORCE_SYNC;
    let found = statx(file, "", flags, StatxFlags::NLINK)?;
    Ok(u64::from(found.stx_nlink))
}
