//! The forgetful disk as a filesystem that a daemon keeps its data on.

use super::forgetful::{BLOCK_BYTES, Forgetful, Node, ROOT};
use crate::random::Random;
use fuser::{
    BackgroundSession, Config, CopyFileRangeFlags, Errno, FileAttr, FileHandle, FileType,
    Filesystem, FopenFlags, Generation, INodeNo, LockOwner, OpenFlags, RenameFlags, ReplyAttr,
    ReplyCreate, ReplyData, ReplyDirectory, ReplyEmpty, ReplyEntry, ReplyLseek, ReplyOpen,
    ReplyStatfs, ReplyWrite, Request, Session, TimeOrNow, WriteFlags,
};
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Nobody else changes anything.
const BELIEVED: Duration = Duration::from_secs(3600);
const PUNCH_KEEP: i32 = 0x03;
const SEEK_DATA: i32 = 3;
const SEEK_HOLE: i32 = 4;
/// The room that it says it has, in blocks.
const ROOM_BLOCKS: u64 = 64 << 20;

/// The disk, and until when it works.
#[derive(Debug)]
struct Powered {
    disk: Forgetful,
    /// How many changes it still makes before the power is cut.
    left: Option<u64>,
    /// How many it was asked for.
    asked: u64,
}

type Shared = Arc<Mutex<Powered>>;

/// A mounted forgetful disk. It is unmounted when it is dropped.
#[derive(Debug)]
pub struct Disk {
    shared: Shared,
    point: PathBuf,
    session: Option<BackgroundSession>,
}

struct Layer {
    shared: Shared,
    on_cut: Arc<dyn Fn() + Send + Sync>,
}

fn lock(shared: &Shared) -> MutexGuard<'_, Powered> {
    shared.lock().expect("nothing panics while it holds the disk")
}

impl Disk {
    /// An empty disk, mounted at a directory. `on_cut` is called when its power is cut.
    ///
    /// # Errors
    /// What keeps it from being mounted.
    pub fn mount(point: &Path, on_cut: Arc<dyn Fn() + Send + Sync>) -> std::io::Result<Disk> {
        let owner = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
        let powered = Powered { disk: Forgetful::new(owner), left: None, asked: 0 };
        let mut disk =
            Disk { shared: Arc::new(Mutex::new(powered)), point: point.into(), session: None };
        disk.attach(on_cut)?;
        Ok(disk)
    }

    fn attach(&mut self, on_cut: Arc<dyn Fn() + Send + Sync>) -> std::io::Result<()> {
        let layer = Layer { shared: Arc::clone(&self.shared), on_cut };
        let mut config = Config::default();
        config.n_threads = Some(2);
        config.mount_options = vec![fuser::MountOption::FSName("forgetful".into())];
        self.session = Some(Session::new(layer, &self.point, &config)?.spawn()?);
        Ok(())
    }

    /// How many changes it was asked for since it was last started.
    pub fn asked(&self) -> u64 {
        lock(&self.shared).asked
    }

    /// Cuts the power after so many changes more; all else then fails.
    pub fn cut_after(&self, changes: u64) {
        lock(&self.shared).left = Some(changes);
    }

    /// All that is on it is flushed.
    pub fn flush_all(&self) {
        lock(&self.shared).disk.flush_all();
    }

    /// Cuts the power now if it isn't yet, loses what it loses, and starts it again. Nobody may
    /// have anything open on it.
    ///
    /// # Errors
    /// What keeps it from being mounted again.
    pub fn restart(
        &mut self,
        random: &mut Random,
        on_cut: Arc<dyn Fn() + Send + Sync>,
    ) -> std::io::Result<()> {
        lock(&self.shared).left = Some(0);
        match self.session.take().map_or(Ok(()), BackgroundSession::umount_and_join) {
            // The kernel says so to a thread that was just taking a request, such as the release of a
            // file that the dead daemon had open, when the mount ended.
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionAborted => {}
            ended => ended?,
        }
        {
            let mut powered = lock(&self.shared);
            powered.disk.cut(random);
            (powered.left, powered.asked) = (None, 0);
        }
        self.attach(on_cut)
    }

    /// Changes each file whose name begins so, while nobody looks.
    pub fn each_called(&self, prefix: &str, change: impl FnMut(&mut Vec<u8>)) {
        lock(&self.shared).disk.each_called(prefix, change);
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        crate::scratch::unmount_below(&self.point);
    }
}

fn now() -> (i64, u32) {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    (since.as_secs().cast_signed(), since.subsec_nanos())
}

fn time((seconds, nanoseconds): (i64, u32)) -> SystemTime {
    UNIX_EPOCH + Duration::new(seconds.unsigned_abs(), nanoseconds)
}

fn kind(mode: u32) -> FileType {
    match mode & 0o170_000 {
        0o040_000 => FileType::Directory,
        0o120_000 => FileType::Symlink,
        0o140_000 => FileType::Socket,
        0o010_000 => FileType::NamedPipe,
        _ => FileType::RegularFile,
    }
}

fn attributes(number: u64, node: &Node) -> FileAttr {
    let at = time(node.modified);
    FileAttr {
        ino: INodeNo(number),
        size: node.bytes.len() as u64,
        blocks: node.bytes.len().div_ceil(512) as u64,
        atime: at,
        mtime: at,
        ctime: at,
        crtime: at,
        kind: kind(node.mode),
        perm: (node.mode & 0o7777) as u16,
        nlink: 1,
        uid: node.owner.0,
        gid: node.owner.1,
        rdev: 0,
        blksize: 4096,
        flags: 0,
    }
}

fn at(offset: u64) -> usize {
    usize::try_from(offset).expect("this machine's memory holds the whole disk")
}

impl Layer {
    /// Looks at the disk, if it has power.
    fn look<T>(&self, look: impl FnOnce(&mut Forgetful) -> Result<T, Errno>) -> Result<T, Errno> {
        let mut powered = lock(&self.shared);
        if powered.left == Some(0) {
            return Err(Errno::EIO);
        }
        look(&mut powered.disk)
    }

    /// Changes it, which counts.
    fn change<T>(
        &self,
        change: impl FnOnce(&mut Forgetful) -> Result<T, Errno>,
    ) -> Result<T, Errno> {
        let mut powered = lock(&self.shared);
        powered.asked += 1;
        match powered.left {
            Some(0) => return Err(Errno::EIO),
            Some(1) => {
                powered.left = Some(0);
                drop(powered);
                (self.on_cut)();
                return Err(Errno::EIO);
            }
            Some(left) => powered.left = Some(left - 1),
            None => {}
        }
        change(&mut powered.disk)
    }

    fn made(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
    ) -> Result<FileAttr, Errno> {
        self.change(|disk| {
            if disk.find(parent.0, name).is_some() {
                return Err(Errno::EEXIST);
            }
            let owner = (request.uid(), request.gid());
            let number = disk.make(parent.0, name, mode, owner, now());
            Ok(attributes(number, disk.node(number).expect("it was just made")))
        })
    }

    fn removed(&self, parent: INodeNo, name: &OsStr, directory: bool) -> Result<(), Errno> {
        self.change(|disk| {
            let number = disk.find(parent.0, name).ok_or(Errno::ENOENT)?;
            if directory && disk.node(number).is_some_and(|node| !node.names.is_empty()) {
                return Err(Errno::ENOTEMPTY);
            }
            disk.remove(parent.0, name);
            Ok(())
        })
    }

    fn flushed(&self, node: INodeNo) -> Result<(), Errno> {
        self.change(|disk| {
            disk.flush(node.0);
            Ok(())
        })
    }
}

fn entry(made: Result<FileAttr, Errno>, reply: ReplyEntry) {
    match made {
        Ok(attributes) => reply.entry(&BELIEVED, &attributes, Generation(0)),
        Err(error) => reply.error(error),
    }
}

fn empty(done: Result<(), Errno>, reply: ReplyEmpty) {
    match done {
        Ok(()) => reply.ok(),
        Err(error) => reply.error(error),
    }
}

impl Filesystem for Layer {
    fn lookup(&self, _request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let found = self.look(|disk| {
            let number = disk.find(parent.0, name).ok_or(Errno::ENOENT)?;
            Ok(attributes(number, disk.node(number).ok_or(Errno::ENOENT)?))
        });
        entry(found, reply);
    }

    fn getattr(&self, _r: &Request, node: INodeNo, _fh: Option<FileHandle>, reply: ReplyAttr) {
        match self.look(|disk| Ok(attributes(node.0, disk.node(node.0).ok_or(Errno::ENOENT)?))) {
            Ok(attributes) => reply.attr(&BELIEVED, &attributes),
            Err(error) => reply.error(error),
        }
    }

    fn setattr(
        &self,
        _request: &Request,
        node: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        _accessed: Option<TimeOrNow>,
        modified: Option<TimeOrNow>,
        _changed: Option<SystemTime>,
        _fh: Option<FileHandle>,
        _created: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _backup: Option<SystemTime>,
        _flags: Option<fuser::BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let changed = self.change(|disk| {
            if let Some(size) = size {
                disk.resize(node.0, at(size));
            }
            let found = disk.node_mut(node.0).ok_or(Errno::ENOENT)?;
            if let Some(mode) = mode {
                found.mode = (found.mode & 0o170_000) | (mode & 0o7777);
            }
            found.owner = (uid.unwrap_or(found.owner.0), gid.unwrap_or(found.owner.1));
            if modified.is_some() || size.is_some() {
                found.modified = now();
            }
            Ok(attributes(node.0, found))
        });
        match changed {
            Ok(attributes) => reply.attr(&BELIEVED, &attributes),
            Err(error) => reply.error(error),
        }
    }

    fn mknod(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _umask: u32,
        _device: u32,
        reply: ReplyEntry,
    ) {
        entry(self.made(request, parent, name, mode), reply);
    }

    fn mkdir(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _umask: u32,
        reply: ReplyEntry,
    ) {
        entry(self.made(request, parent, name, 0o040_000 | (mode & 0o7777)), reply);
    }

    fn unlink(&self, _request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        empty(self.removed(parent, name, false), reply);
    }

    fn rmdir(&self, _request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        empty(self.removed(parent, name, true), reply);
    }

    fn rename(
        &self,
        _request: &Request,
        parent: INodeNo,
        name: &OsStr,
        new_parent: INodeNo,
        new_name: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let renamed = self.change(|disk| {
            if !flags.is_empty() {
                return Err(Errno::EINVAL);
            }
            disk.rename((parent.0, name), (new_parent.0, new_name));
            Ok(())
        });
        empty(renamed, reply);
    }

    fn create(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _umask: u32,
        _flags: i32,
        reply: ReplyCreate,
    ) {
        match self.made(request, parent, name, 0o100_000 | (mode & 0o7777)) {
            Ok(attributes) => {
                let flags = FopenFlags::FOPEN_KEEP_CACHE;
                reply.created(&BELIEVED, &attributes, Generation(0), FileHandle(0), flags);
            }
            Err(error) => reply.error(error),
        }
    }

    fn open(&self, _request: &Request, _node: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        match self.look(|_| Ok(())) {
            Ok(()) => reply.opened(FileHandle(0), FopenFlags::FOPEN_KEEP_CACHE),
            Err(error) => reply.error(error),
        }
    }

    fn read(
        &self,
        _request: &Request,
        node: INodeNo,
        _fh: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let read = self.look(|disk| {
            let bytes = &disk.node(node.0).ok_or(Errno::ENOENT)?.bytes;
            let from = at(offset).min(bytes.len());
            let to = (from + size as usize).min(bytes.len());
            Ok(bytes[from..to].to_vec())
        });
        match read {
            Ok(bytes) => reply.data(&bytes),
            Err(error) => reply.error(error),
        }
    }

    fn write(
        &self,
        _request: &Request,
        node: INodeNo,
        _fh: FileHandle,
        offset: u64,
        bytes: &[u8],
        _write_flags: WriteFlags,
        _flags: OpenFlags,
        _owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let written = self.change(|disk| {
            disk.write(node.0, at(offset), bytes);
            Ok(())
        });
        match written {
            Ok(()) => reply.written(u32::try_from(bytes.len()).expect("a request is short")),
            Err(error) => reply.error(error),
        }
    }

    fn flush(
        &self,
        _request: &Request,
        _node: INodeNo,
        _fh: FileHandle,
        _owner: LockOwner,
        reply: ReplyEmpty,
    ) {
        reply.error(Errno::ENOSYS);
    }

    fn fsync(
        &self,
        _request: &Request,
        node: INodeNo,
        _fh: FileHandle,
        _data_only: bool,
        reply: ReplyEmpty,
    ) {
        empty(self.flushed(node), reply);
    }

    fn fsyncdir(
        &self,
        _request: &Request,
        node: INodeNo,
        _fh: FileHandle,
        _data_only: bool,
        reply: ReplyEmpty,
    ) {
        empty(self.flushed(node), reply);
    }

    fn readdir(
        &self,
        _request: &Request,
        node: INodeNo,
        _fh: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        let listed = self.look(|disk| {
            let names = &disk.node(node.0).ok_or(Errno::ENOENT)?.names;
            let dots = [(OsString::from("."), node.0), (OsString::from(".."), ROOT)];
            let all =
                dots.into_iter().chain(names.iter().map(|(name, node)| (name.clone(), *node)));
            let kinded = all.map(|(name, number)| {
                let mode = disk.node(number).map_or(0o040_000, |node| node.mode);
                (name, number, kind(mode))
            });
            Ok(kinded.collect::<Vec<_>>())
        });
        match listed {
            Ok(all) => {
                for (place, (name, number, kind)) in (1..).zip(all).skip(at(offset)) {
                    if reply.add(INodeNo(number), place, kind, name) {
                        break;
                    }
                }
                reply.ok();
            }
            Err(error) => reply.error(error),
        }
    }

    fn statfs(&self, _request: &Request, _node: INodeNo, reply: ReplyStatfs) {
        reply.statfs(ROOM_BLOCKS, ROOM_BLOCKS, ROOM_BLOCKS, 1 << 20, 1 << 20, 4096, 255, 4096);
    }

    fn fallocate(
        &self,
        _request: &Request,
        node: INodeNo,
        _fh: FileHandle,
        offset: u64,
        len: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        if mode != PUNCH_KEEP {
            return reply.error(Errno::EOPNOTSUPP);
        }
        let punched = self.change(|disk| {
            let end = disk.node(node.0).ok_or(Errno::ENOENT)?.bytes.len().min(at(offset + len));
            if at(offset) < end {
                disk.write(node.0, at(offset), &vec![0; end - at(offset)]);
            }
            Ok(())
        });
        empty(punched, reply);
    }

    fn lseek(
        &self,
        _request: &Request,
        node: INodeNo,
        _fh: FileHandle,
        offset: i64,
        whence: i32,
        reply: ReplyLseek,
    ) {
        let found = self.look(|disk| {
            let bytes = &disk.node(node.0).ok_or(Errno::ENOENT)?.bytes;
            let from = usize::try_from(offset).map_err(|_| Errno::ENXIO)?;
            if from >= bytes.len() {
                return Err(Errno::ENXIO);
            }
            let wanted = match whence {
                SEEK_DATA => true,
                SEEK_HOLE => false,
                _ => return Err(Errno::EINVAL),
            };
            let mut place = from;
            while place < bytes.len() {
                let end = (place + BLOCK_BYTES - place % BLOCK_BYTES).min(bytes.len());
                let block = place - place % BLOCK_BYTES;
                if bytes[block..end].iter().any(|byte| *byte != 0) == wanted {
                    return Ok(place);
                }
                place = end;
            }
            if wanted { Err(Errno::ENXIO) } else { Ok(bytes.len()) }
        });
        match found {
            Ok(place) => reply.offset(place as i64),
            Err(error) => reply.error(error),
        }
    }

    fn copy_file_range(
        &self,
        _request: &Request,
        _from: INodeNo,
        _from_handle: FileHandle,
        _from_offset: u64,
        _to: INodeNo,
        _to_handle: FileHandle,
        _to_offset: u64,
        _len: u64,
        _flags: CopyFileRangeFlags,
        reply: ReplyWrite,
    ) {
        reply.error(Errno::EOPNOTSUPP);
    }
}
