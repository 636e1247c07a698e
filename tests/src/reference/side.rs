//! One of the two filesystems: does what it is told, and says what came of it.

use super::mapping::Mapper;
use super::operation::{Lock, Move, Opening, Operation, Ranged, Renaming, SLOTS};
use crate::random::Random;
use rustix::fs::{
    AtFlags, CWD, FallocateFlags, FileType, FlockOperation, Gid, Mode, OFlags, RenameFlags,
    SeekFrom, Timespec, Timestamps, Uid, XattrFlags,
};
use rustix::io::Errno;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::File;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// A directory of a filesystem, and the files that are open in it.
#[derive(Debug)]
pub struct Side {
    root: PathBuf,
    slots: [Option<File>; SLOTS],
    mapper: Mapper,
}

/// What came of an operation.
pub type Outcome = Result<Answer, Errno>;

/// What an operation answered.
#[derive(Clone, PartialEq, Eq)]
pub enum Answer {
    /// Nothing but that it was done.
    Done,
    /// The slot has no open file.
    Empty,
    /// This many bytes.
    Count(u64),
    /// These bytes.
    Bytes(Vec<u8>),
    /// These names, with what they are.
    Names(BTreeMap<OsString, String>),
}

impl std::fmt::Debug for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Answer::Done => write!(f, "done"),
            Answer::Empty => write!(f, "nothing is open"),
            Answer::Count(count) => write!(f, "{count} bytes"),
            Answer::Bytes(bytes) => {
                let hash = blake3::hash(bytes);
                write!(f, "{} bytes #{}", bytes.len(), &hash.to_hex()[..8])
            }
            Answer::Names(names) => write!(f, "{names:?}"),
        }
    }
}

/// What `stat` says of a node: all that both filesystems have to agree on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Stat {
    /// Its mode, with the kind.
    pub mode: u32,
    /// Its size in bytes; 0 for directories.
    pub size: u64,
    /// How many names it has; 0 for directories.
    pub links: u64,
    /// Its owner and its group.
    pub owner: (u32, u32),
    /// For a node with several names: the first of them.
    pub same_as: Option<PathBuf>,
}

impl Side {
    /// A side that works in a directory.
    pub fn new(root: &Path) -> Side {
        Side { root: root.to_owned(), slots: Default::default(), mapper: Mapper::default() }
    }

    /// Its directory.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Closes everything.
    pub fn close(&mut self) {
        self.slots = Default::default();
    }

    /// Does an operation.
    pub fn apply(&mut self, operation: &Operation) -> Outcome {
        let at = |path: &PathBuf| self.root.join(path);
        match operation {
            Operation::Open { slot, path, opening } => {
                self.slots[*slot] = None;
                let file = open(&at(path), *opening)?;
                let kind = FileType::from_raw_mode(rustix::fs::fstat(&file)?.st_mode);
                // Fifos are the kernel's own: no filesystem hears that one is held open, so that
                // nobody can promise how it looks once it has no name any more.
                self.slots[*slot] = (kind != FileType::Fifo).then_some(file);
                Ok(Answer::Done)
            }
            Operation::Close { slot } => {
                self.slots[*slot] = None;
                Ok(Answer::Done)
            }
            Operation::Range { slot, what, offset, len } => match &self.slots[*slot] {
                None => Ok(Answer::Empty),
                Some(file) => range(file, *what, *offset, *len),
            },
            Operation::SetLen { slot, len } => match &self.slots[*slot] {
                None => Ok(Answer::Empty),
                Some(file) => rustix::fs::ftruncate(file, *len).map(|()| Answer::Done),
            },
            Operation::Sync { slot } => match &self.slots[*slot] {
                None => Ok(Answer::Empty),
                Some(file) => rustix::fs::fsync(file).map(|()| Answer::Done),
            },
            Operation::Segments { slot } => match &self.slots[*slot] {
                None => Ok(Answer::Empty),
                Some(file) => {
                    let position = rustix::fs::tell(file)?;
                    let found = segments(file);
                    rustix::fs::seek(file, SeekFrom::Start(position))?;
                    found
                }
            },
            Operation::Lock { slot, lock } => match &self.slots[*slot] {
                None => Ok(Answer::Empty),
                Some(file) => rustix::fs::flock(file, flock(*lock)).map(|()| Answer::Done),
            },
            Operation::LockRecords { slot, lock } => match &self.slots[*slot] {
                None => Ok(Answer::Empty),
                Some(file) => rustix::fs::fcntl_lock(file, flock(*lock)).map(|()| Answer::Done),
            },
            Operation::TryRecords { path, offset, len, shared } => {
                let path = self.root.join(path);
                self.mapper.lock(&path, *offset, *len, *shared)
            }
            Operation::ReadOn { slot, len } => match &self.slots[*slot] {
                None => Ok(Answer::Empty),
                Some(file) => {
                    let mut bytes = vec![0; usize::try_from(*len).expect("lengths are small")];
                    let read = rustix::io::read(file, &mut bytes[..])?;
                    bytes.truncate(read);
                    Ok(Answer::Bytes(bytes))
                }
            },
            Operation::WriteOn { slot, seed, len } => match &self.slots[*slot] {
                None => Ok(Answer::Empty),
                Some(file) => {
                    let len = usize::try_from(*len).expect("lengths are small");
                    let bytes = Random::new(*seed).bytes(len);
                    rustix::io::write(file, &bytes).map(|count| Answer::Count(count as u64))
                }
            },
            Operation::Move { slot, to } => match &self.slots[*slot] {
                None => Ok(Answer::Empty),
                // Positions in directories are each filesystem's own.
                Some(file) if is_directory(file)? => Ok(Answer::Empty),
                Some(file) => {
                    let to = match *to {
                        Move::To(offset) => SeekFrom::Start(offset),
                        Move::By(step) => SeekFrom::Current(step),
                        Move::FromEnd(step) => SeekFrom::End(step),
                    };
                    rustix::fs::seek(file, to).map(Answer::Count)
                }
            },
            Operation::ReadDirectly { path, block, blocks } => {
                direct(&at(path), *block, *blocks, None)
            }
            Operation::WriteDirectly { path, block, blocks, seed } => {
                direct(&at(path), *block, *blocks, Some(*seed))
            }
            Operation::Map { path, offset, len, byte } => {
                let path = self.root.join(path);
                self.mapper.fill(&path, *offset, *len, *byte)
            }
            Operation::CopyRange { from, at, to, offset, len } => {
                match (&self.slots[*from], &self.slots[*to]) {
                    (Some(from), Some(to)) => copy_range(from, *at, to, *offset, *len),
                    _ => Ok(Answer::Empty),
                }
            }
            Operation::Save { path, seed, len } => {
                let opening = Opening {
                    read: false,
                    write: true,
                    append: false,
                    truncate: true,
                    create: Some(0o644),
                    exclusive: false,
                };
                let file = open(&at(path), opening)?;
                range(&file, Ranged::Write(*seed), 0, *len)
            }
            Operation::List { path } => list(&at(path)),
            named => self.apply_to_names(named),
        }
    }

    fn apply_to_names(&self, operation: &Operation) -> Outcome {
        let at = |path: &PathBuf| self.root.join(path);
        match operation {
            Operation::Truncate { path, len } => {
                // Not open and ftruncate: a fifo would have somebody wait for it.
                let kind = rustix::fs::stat(at(path))?.st_mode;
                if FileType::from_raw_mode(kind) == FileType::Fifo {
                    return Ok(Answer::Empty);
                }
                let file = rustix::fs::open(at(path), OFlags::WRONLY, Mode::empty())?;
                rustix::fs::ftruncate(file, *len)
            }
            Operation::Rename { from, to, renaming } => {
                let flags = match renaming {
                    Renaming::Replace => RenameFlags::empty(),
                    Renaming::NoReplace => RenameFlags::NOREPLACE,
                    Renaming::Exchange => RenameFlags::EXCHANGE,
                };
                rustix::fs::renameat_with(CWD, at(from), CWD, at(to), flags)
            }
            Operation::Link { from, to } => rustix::fs::link(at(from), at(to)),
            Operation::Unlink { path } => rustix::fs::unlink(at(path)),
            Operation::MakeDirectory { path, mode } => {
                rustix::fs::mkdir(at(path), Mode::from_raw_mode(*mode))
            }
            Operation::RemoveDirectory { path } => rustix::fs::rmdir(at(path)),
            Operation::Symlink { target, path } => rustix::fs::symlink(target, at(path)),
            Operation::Fifo { path } => {
                let mode = Mode::from_raw_mode(0o644);
                rustix::fs::mknodat(CWD, at(path), FileType::Fifo, mode, 0)
            }
            Operation::SetMode { path, mode } => {
                rustix::fs::chmod(at(path), Mode::from_raw_mode(*mode))
            }
            Operation::SetOwner { path, user, group } => {
                let (user, group) = (Some(Uid::from_raw(*user)), Some(Gid::from_raw(*group)));
                rustix::fs::chownat(CWD, at(path), user, group, AtFlags::SYMLINK_NOFOLLOW)
            }
            Operation::SetTime { path, seconds, nanoseconds } => {
                let time = Timespec { tv_sec: *seconds, tv_nsec: *nanoseconds };
                let read = Timespec { tv_sec: seconds / 2, tv_nsec: 999_999_999 - nanoseconds };
                let times = Timestamps { last_access: read, last_modification: time };
                rustix::fs::utimensat(CWD, at(path), &times, AtFlags::empty())?;
                let metadata = rustix::fs::stat(at(path))?;
                let kept = (metadata.st_mtime, i64::try_from(metadata.st_mtime_nsec));
                assert_eq!(kept, (*seconds, Ok(*nanoseconds)), "the time of {}", path.display());
                let kept = (metadata.st_atime, i64::try_from(metadata.st_atime_nsec));
                let read = (read.tv_sec, Ok(read.tv_nsec));
                assert_eq!(kept, read, "the time of access of {}", path.display());
                Ok(())
            }
            Operation::SetXattr { path, name, value, create, replace } => {
                let mut flags = XattrFlags::empty();
                flags.set(XattrFlags::CREATE, *create);
                flags.set(XattrFlags::REPLACE, *replace);
                rustix::fs::lsetxattr(at(path), *name, value, flags)
            }
            Operation::RemoveXattr { path, name } => rustix::fs::lremovexattr(at(path), *name),
            other => panic!("{other:?} is not about names"),
        }
        .map(|()| Answer::Done)
    }

    /// What `stat` says of everything that is there.
    ///
    /// # Errors
    /// The first failure, and of what.
    pub fn stats(&self) -> Result<BTreeMap<PathBuf, Stat>, String> {
        let mut stats = BTreeMap::new();
        let mut inodes: BTreeMap<u64, PathBuf> = BTreeMap::new();
        let mut waiting = vec![PathBuf::new()];
        while let Some(directory) = waiting.pop() {
            let failed = |error: std::io::Error| format!("{}: {error}", directory.display());
            let entries = std::fs::read_dir(self.root.join(&directory)).map_err(failed)?;
            for entry in entries {
                let entry = entry.map_err(failed)?;
                let path = directory.join(entry.file_name());
                let metadata = std::fs::symlink_metadata(self.root.join(&path))
                    .map_err(|error| format!("{}: {error}", path.display()))?;
                let listed = entry.file_type().map_err(failed)?;
                if listed != metadata.file_type() {
                    return Err(format!("{}: listed as {listed:?}", path.display()));
                }
                let mut stat = Stat {
                    mode: metadata.mode(),
                    size: metadata.len(),
                    links: metadata.nlink(),
                    owner: (metadata.uid(), metadata.gid()),
                    same_as: None,
                };
                if metadata.is_dir() {
                    (stat.size, stat.links) = (0, 0);
                    waiting.push(path.clone());
                } else if stat.links > 1 {
                    let first = inodes.entry(metadata.ino()).or_insert_with(|| path.clone());
                    *first = path.clone().min(first.clone());
                    // The inode's number until all its names are known.
                    stat.same_as = Some(PathBuf::from(metadata.ino().to_string()));
                }
                stats.insert(path, stat);
            }
        }
        for stat in stats.values_mut() {
            let inode = stat.same_as.as_ref().and_then(|inode| inode.to_str()?.parse().ok());
            stat.same_as = inode.map(|inode: u64| inodes[&inode].clone());
        }
        Ok(stats)
    }

    /// What a slot's open file is: its mode, its size, and whether it has a name.
    ///
    /// # Errors
    /// What the filesystem answers.
    pub fn opened(&self, slot: usize) -> Result<Option<(u32, u64, u64)>, Errno> {
        let Some(file) = &self.slots[slot] else { return Ok(None) };
        let stat = rustix::fs::fstat(file)?;
        if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            return Ok(Some((stat.st_mode, 0, 0)));
        }
        let size = u64::try_from(stat.st_size).expect("a size is not negative");
        Ok(Some((stat.st_mode, size, u64::from(stat.st_nlink != 0))))
    }
}

fn open(path: &Path, opening: Opening) -> Result<File, Errno> {
    let mut flags = match (opening.read, opening.write) {
        (true, true) => OFlags::RDWR,
        (false, true) => OFlags::WRONLY,
        _ => OFlags::RDONLY,
    };
    // A fifo would have us wait for its other end.
    flags |= OFlags::CLOEXEC | OFlags::NONBLOCK;
    flags.set(OFlags::APPEND, opening.append);
    flags.set(OFlags::TRUNC, opening.truncate);
    flags.set(OFlags::CREATE, opening.create.is_some());
    flags.set(OFlags::EXCL, opening.exclusive && opening.create.is_some());
    let mode = Mode::from_raw_mode(opening.create.unwrap_or(0));
    rustix::fs::open(path, flags, mode).map(File::from)
}

fn range(file: &File, what: Ranged, offset: u64, len: u64) -> Outcome {
    let fallocate = |flags| rustix::fs::fallocate(file, flags, offset, len).map(|()| Answer::Done);
    match what {
        Ranged::Read => {
            let mut bytes = vec![0; usize::try_from(len).expect("lengths are small")];
            let mut read = 0;
            while read < bytes.len() {
                match rustix::io::pread(file, &mut bytes[read..], offset + read as u64)? {
                    0 => break,
                    more => read += more,
                }
            }
            bytes.truncate(read);
            Ok(Answer::Bytes(bytes))
        }
        Ranged::Write(seed) => {
            let len = usize::try_from(len).expect("lengths are small");
            let bytes = if seed == 0 { vec![0; len] } else { Random::new(seed).bytes(len) };
            let mut written = 0;
            while written < len {
                written += rustix::io::pwrite(file, &bytes[written..], offset + written as u64)?;
            }
            Ok(Answer::Count(len as u64))
        }
        Ranged::Reserve => fallocate(FallocateFlags::empty()),
        Ranged::ReserveKeeping => fallocate(FallocateFlags::KEEP_SIZE),
        Ranged::Punch => fallocate(FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE),
        Ranged::Zero => fallocate(FallocateFlags::ZERO_RANGE),
    }
}

/// Walks over data and holes. Where they are is each filesystem's own business; that holes read
/// as zeros, that they alternate, and that the last ends with the file, is not.
fn segments(file: &File) -> Outcome {
    let stat = rustix::fs::fstat(file)?;
    let size = u64::try_from(stat.st_size).expect("a size is not negative");
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Ok(Answer::Empty);
    }
    for past in [SeekFrom::Data(size), SeekFrom::Hole(size), SeekFrom::Data(size + 9)] {
        assert_eq!(rustix::fs::seek(file, past), Err(Errno::NXIO), "{past:?} of {size}");
    }
    let mut at = 0;
    while at < size {
        let data = match rustix::fs::seek(file, SeekFrom::Data(at)) {
            Ok(data) => data,
            Err(Errno::NXIO) => size,
            Err(error) => return Err(error),
        };
        assert!(at <= data && data <= size, "data at {data}, sought from {at} of {size}");
        let hole = range(file, Ranged::Read, at, data - at);
        match hole {
            Ok(Answer::Bytes(bytes)) => {
                assert!(bytes.len() as u64 == data - at, "a hole ends early");
                assert!(bytes.iter().all(|byte| *byte == 0), "a hole at {at} has bytes in it");
            }
            // Not opened for reading.
            other => assert_eq!(other, Err(Errno::BADF)),
        }
        if data == size {
            break;
        }
        at = rustix::fs::seek(file, SeekFrom::Hole(data))?;
        assert!(data < at && at <= size, "a hole at {at}, sought from {data} of {size}");
    }
    Ok(Answer::Count(size))
}

fn flock(lock: Lock) -> FlockOperation {
    match lock {
        Lock::Shared => FlockOperation::NonBlockingLockShared,
        Lock::Exclusive => FlockOperation::NonBlockingLockExclusive,
        Lock::Unlock => FlockOperation::NonBlockingUnlock,
    }
}

fn is_directory(file: &File) -> Result<bool, Errno> {
    let stat = rustix::fs::fstat(file)?;
    Ok(FileType::from_raw_mode(stat.st_mode) == FileType::Directory)
}

/// Reads or writes whole blocks of a file past the cache, from memory that lies as disks want it.
fn direct(path: &Path, block: u64, blocks: u64, seed: Option<u64>) -> Outcome {
    const BLOCK: usize = 4096;
    if FileType::from_raw_mode(rustix::fs::stat(path)?.st_mode) != FileType::RegularFile {
        return Ok(Answer::Empty);
    }
    let file = rustix::fs::open(path, OFlags::RDWR | OFlags::DIRECT, Mode::empty())?;
    let len = usize::try_from(blocks).expect("it is small") * BLOCK;
    let mut room = vec![0; len + BLOCK];
    let skipped = room.as_ptr().align_offset(BLOCK);
    let whole = &mut room[skipped..skipped + len];
    if let Some(seed) = seed {
        whole.copy_from_slice(&Random::new(seed).bytes(len));
    }
    let at = block * BLOCK as u64;
    match seed {
        None => {
            let read = rustix::io::pread(&file, &mut *whole, at)?;
            Ok(Answer::Bytes(whole[..read].to_vec()))
        }
        Some(_) => rustix::io::pwrite(&file, whole, at).map(|count| Answer::Count(count as u64)),
    }
}

fn copy_range(from: &File, at: u64, to: &File, offset: u64, len: u64) -> Outcome {
    let (mut at, mut offset) = (at, offset);
    let mut copied = 0;
    while copied < len {
        let left = usize::try_from(len - copied).expect("lengths are small");
        match rustix::fs::copy_file_range(from, Some(&mut at), to, Some(&mut offset), left)? {
            0 => break,
            more => copied += more as u64,
        }
    }
    Ok(Answer::Count(copied))
}

fn list(path: &Path) -> Outcome {
    let errno = |error: &std::io::Error| Errno::from_io_error(error).unwrap_or(Errno::IO);
    let mut names = BTreeMap::new();
    for entry in std::fs::read_dir(path).map_err(|error| errno(&error))? {
        let entry = entry.map_err(|error| errno(&error))?;
        let kind = entry.file_type().map_err(|error| errno(&error))?;
        let twice = names.insert(entry.file_name(), format!("{kind:?}"));
        assert!(twice.is_none(), "{} is listed twice", entry.file_name().as_bytes().escape_ascii());
    }
    Ok(Answer::Names(names))
}
