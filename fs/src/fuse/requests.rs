//! The kernel's requests, one method each: decode, call, reply.

use super::acl;
use super::attributes::{absence, file_type, kind_of_mode, unix_time};
use super::gate::Gate;
use super::layer::{
    Agreed, BELIEVED, GENERATION, Layer, Mode, NAMES_PAGE, NODES_PAGE, access_of, decode, handle,
    ino,
};
use super::stage::{self, DISBELIEVED, is_feigned};
use crate::volume::{Allocation, FileError, LookupError, NodeChange, Sought, Volume, XattrMode};
use fuser::{
    AccessFlags, BsdFileFlags, CopyFileRangeFlags, Errno, FileHandle, Filesystem, FopenFlags,
    INodeNo, InitFlags, IoctlFlags, KernelConfig, LockOwner, OpenFlags, PollEvents, PollFlags,
    PollNotifier, RenameFlags, ReplyAttr, ReplyBmap, ReplyCreate, ReplyData, ReplyDirectory,
    ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyIoctl, ReplyLseek, ReplyOpen, ReplyPoll,
    ReplyStatfs, ReplyWrite, ReplyXattr, Request, TimeOrNow, WriteFlags,
};
use kith_core::register::Kind;
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

/// The most bytes that one read or write carries.
const TRANSFER_MAX_BYTES: u32 = 1 << 20;
/// How many reads ahead and writes back may be under way. Reads of absent bytes wait among them,
/// and must leave room for the others.
const BACKGROUND_MAX: u16 = 128;
/// What `copy_file_range` copies at a time; the kernel asks for the rest.
const COPY_MAX_BYTES: u64 = 1 << 30;
/// The unit that `statfs` counts in.
const BLOCK_BYTES: u32 = 4096;
/// Longer targets of symbolic links can't be followed.
const TARGET_MAX_BYTES: usize = 4095;
const KEEP_SIZE: i32 = 0x01;
const PUNCH_HOLE: i32 = 0x02;
const ZERO_RANGE: i32 = 0x10;
const SEEK_DATA: i32 = 3;
const SEEK_HOLE: i32 = 4;
const XATTR_CREATE: i32 = 1;
const XATTR_REPLACE: i32 = 2;

/// Only these attributes are kept, and access control lists. The kernel, security modules and
/// overlays have others, which mean nothing on another device.
fn is_kept(name: &OsStr) -> bool {
    name.as_bytes().strip_prefix(b"user.").is_some_and(|rest| !rest.is_empty())
}

fn empty(result: Result<(), impl Into<Errno>>, reply: ReplyEmpty) {
    match result {
        Ok(()) => reply.ok(),
        Err(error) => reply.error(error.into()),
    }
}

fn sized(value: &[u8], room: u32, reply: ReplyXattr) {
    match (u32::try_from(value.len()), room) {
        (Ok(len), 0) => reply.size(len),
        (Ok(len), room) if len <= room => reply.data(value),
        _ => reply.error(Errno::ERANGE),
    }
}

/// The range that a request names, if a file can have it.
fn within_a_file(offset: u64, len: u64) -> Result<(), Errno> {
    match offset.checked_add(len) {
        Some(end) if i64::try_from(end).is_ok() => Ok(()),
        _ => Err(Errno::EFBIG),
    }
}

impl Filesystem for Layer {
    fn init(&mut self, _request: &Request, config: &mut KernelConfig) -> io::Result<()> {
        // Sizes and times of what it caches are the kernel's with it, and the volume's without.
        let mut capabilities = InitFlags::FUSE_WRITEBACK_CACHE;
        if config.add_capabilities(capabilities).is_err() {
            return Err(io::Error::from(io::ErrorKind::Unsupported));
        }
        for wish in [
            InitFlags::FUSE_ASYNC_DIO,
            InitFlags::FUSE_ATOMIC_O_TRUNC,
            InitFlags::FUSE_CACHE_SYMLINKS,
            InitFlags::FUSE_DO_READDIRPLUS,
            // Whether a umask counts depends on the directory's default list.
            InitFlags::FUSE_DONT_MASK,
            InitFlags::FUSE_POSIX_ACL,
            // The layer takes set-id bits away where the kernel otherwise would. In return the
            // kernel doesn't ask for `security.capability` at every single write.
            InitFlags::FUSE_HANDLE_KILLPRIV_V2,
            InitFlags::FUSE_PARALLEL_DIROPS,
            InitFlags::FUSE_READDIRPLUS_AUTO,
        ] {
            match config.add_capabilities(wish) {
                Ok(()) => capabilities |= wish,
                Err(unknown) => tracing::debug!(?unknown, "the kernel is too old for this"),
            }
        }
        // Each answers the nearest value that is possible.
        if let Err(nearest) = config.set_max_write(TRANSFER_MAX_BYTES) {
            let _ = config.set_max_write(nearest);
        }
        if let Err(nearest) = config.set_max_readahead(TRANSFER_MAX_BYTES) {
            let _ = config.set_max_readahead(nearest);
        }
        let _ = config.set_max_background(BACKGROUND_MAX);
        // The kernel says so without being asked, and takes the notification unasked too.
        let resends = config.capabilities().contains(InitFlags::FUSE_HAS_RESEND);
        let minor = config.kernel_abi().1;
        // The kernel initialises a connection once.
        let _ = self.agreed.set(Agreed { capabilities, minor, resends });
        Ok(())
    }

    fn lookup(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let _answered = self.enter();
        let Some(reply) = self.on_stage(request, parent, name, reply) else { return };
        let _answering = self.answering.begin();
        let found = match decode(name) {
            Ok(name) => self.volume.lookup(ino(parent), &name),
            Err(error) => return reply.error(error),
        };
        match found {
            Err(LookupError::NotFound) => reply.entry(&BELIEVED, &absence(), GENERATION),
            found => self.entry(found.map_err(Errno::from), reply),
        }
    }

    fn forget(&self, _request: &Request, _node: INodeNo, _lookups: u64) {}

    fn getattr(&self, _r: &Request, node: INodeNo, _fh: Option<FileHandle>, reply: ReplyAttr) {
        let _answered = self.enter();
        if is_feigned(node) {
            return reply.attr(&DISBELIEVED, &stage::attributes(ino(node), self.ownership));
        }
        let _answering = self.answering.begin();
        match self.volume.info(ino(node)) {
            Ok(info) => reply.attr(&BELIEVED, &self.attributes(&info)),
            Err(error) => reply.error(error.into()),
        }
    }

    fn setattr(
        &self,
        request: &Request,
        node: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        accessed: Option<TimeOrNow>,
        modified: Option<TimeOrNow>,
        changed: Option<SystemTime>,
        _fh: Option<FileHandle>,
        _created: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _backup: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let _answered = self.enter();
        if is_feigned(node) {
            return reply.attr(&DISBELIEVED, &stage::attributes(ino(node), self.ownership));
        }
        if self.stage.is_herald(request.pid()) {
            return reply.error(Errno::EPERM);
        }
        let _answering = self.answering.begin();
        let time = |time| match time {
            TimeOrNow::SpecificTime(time) => unix_time(time),
            TimeOrNow::Now => self.volume.now().1,
        };
        let change = NodeChange {
            mode: mode.map(|mode| (mode & 0o7777) as u16),
            user: uid.map(|number| self.ownership.user(number)),
            group: gid.map(|number| self.ownership.group(number)),
            size_bytes: size,
            modified: modified.map(time),
            accessed: accessed.map(time),
            changed: changed.map(unix_time),
            xattrs: Vec::new(),
        };
        match self.change(request, ino(node), change) {
            Ok(info) => reply.attr(&BELIEVED, &self.attributes(&info)),
            Err(error) => reply.error(error),
        }
    }

    fn readlink(&self, _request: &Request, node: INodeNo, reply: ReplyData) {
        let _answered = self.enter();
        match self.volume.read_link(ino(node)) {
            Ok(target) => reply.data(&target),
            Err(error) => reply.error(error.into()),
        }
    }

    fn mknod(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        device: u32,
        reply: ReplyEntry,
    ) {
        let _answered = self.enter();
        if self.is_on_stage(request, parent, name) {
            return self.feign(false, reply);
        }
        let _answering = self.answering.begin();
        let made = match kind_of_mode(mode, device) {
            Some(kind) => self.make(request, parent, name, kind, Mode { mode, umask }),
            None => Err(Errno::EINVAL),
        };
        self.entry(made, reply);
    }

    fn mkdir(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        reply: ReplyEntry,
    ) {
        let _answered = self.enter();
        if self.is_on_stage(request, parent, name) {
            return self.feign(true, reply);
        }
        let _answering = self.answering.begin();
        let made = self.make(request, parent, name, Kind::Directory, Mode { mode, umask });
        self.entry(made, reply);
    }

    fn symlink(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        target: &Path,
        reply: ReplyEntry,
    ) {
        let _answered = self.enter();
        let _answering = self.answering.begin();
        let target = target.as_os_str().as_bytes();
        let made = match target.len() {
            0 => Err(Errno::ENOENT),
            len if len > TARGET_MAX_BYTES => Err(Errno::ENAMETOOLONG),
            _ => {
                let mode = Mode { mode: 0o777, umask: 0 };
                self.make(request, parent, name, Kind::Symlink(target.into()), mode)
            }
        };
        self.entry(made, reply);
    }

    fn link(
        &self,
        _request: &Request,
        node: INodeNo,
        parent: INodeNo,
        name: &OsStr,
        reply: ReplyEntry,
    ) {
        let _answered = self.enter();
        let _answering = self.answering.begin();
        let linked =
            decode(name).and_then(|name| Ok(self.volume.link(ino(node), ino(parent), &name)?));
        self.entry(linked, reply);
    }

    fn unlink(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let _answered = self.enter();
        if self.is_on_stage(request, parent, name) {
            return reply.ok();
        }
        empty(decode(name).and_then(|name| Ok(self.volume.unlink(ino(parent), &name)?)), reply);
    }

    fn rmdir(&self, _request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let _answered = self.enter();
        let removed =
            decode(name).and_then(|name| Ok(self.volume.remove_directory(ino(parent), &name)?));
        empty(removed, reply);
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
        let _answered = self.enter();
        empty(self.rename((parent, name), (new_parent, new_name), flags), reply);
    }

    fn create(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        let _answered = self.enter();
        let _answering = self.answering.begin();
        match self.create(request, parent, name, Mode { mode, umask }, flags) {
            Ok((info, opened, access)) => {
                if access.write {
                    self.writers.opened(opened, info.ino, request.pid());
                }
                let attributes = self.attributes(&info);
                let flags = FopenFlags::FOPEN_KEEP_CACHE;
                reply.created(&BELIEVED, &attributes, GENERATION, FileHandle(opened.0), flags);
            }
            Err(error) => reply.error(error),
        }
    }

    fn open(&self, request: &Request, node: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        let _answered = self.enter();
        if is_feigned(node) {
            return reply.opened(FileHandle(0), FopenFlags::empty());
        }
        if self.stage.is_herald(request.pid()) {
            // Somebody came between, so that it found the real one. The kernel looks again.
            return reply.error(Errno::ESTALE);
        }
        let access = access_of(flags);
        let opened = match self.volume.open(ino(node), access) {
            Ok(opened) => opened,
            Err(error) => return reply.error(error.into()),
        };
        if access.truncate && request.uid() != 0 {
            let cut = self.volume.info(ino(node)).map_err(Errno::from);
            if let Err(error) = cut.and_then(|info| self.without_set_ids(info, None)) {
                self.volume.release(opened);
                return reply.error(error);
            }
        }
        if access.write {
            self.writers.opened(opened, ino(node), request.pid());
        }
        // The pages of a node are changed through this mount only: a version from elsewhere is
        // another node.
        reply.opened(FileHandle(opened.0), FopenFlags::FOPEN_KEEP_CACHE);
    }

    fn read(
        &self,
        _request: &Request,
        _node: INodeNo,
        fh: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let _answered = self.enter();
        let (fh, len) = (handle(fh), size as usize);
        match self.volume.read_here(fh, offset, len) {
            Ok(Some(bytes)) => reply.data(&bytes),
            Ok(None) => {
                let (volume, gate) = (Arc::clone(&self.volume), Arc::clone(&self.gate));
                self.fetching.enter(move || {
                    let read = volume.read(fh, offset, len);
                    let _passing = gate.pass();
                    match read {
                        Ok(bytes) => reply.data(&bytes),
                        Err(error) => reply.error(error.into()),
                    }
                });
            }
            Err(error) => reply.error(error.into()),
        }
    }

    fn write(
        &self,
        _request: &Request,
        node: INodeNo,
        fh: FileHandle,
        offset: u64,
        bytes: &[u8],
        write_flags: WriteFlags,
        _flags: OpenFlags,
        _owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let _answered = self.enter();
        let written = within_a_file(offset, bytes.len() as u64)
            .and_then(|()| Ok(self.volume.write(handle(fh), offset, bytes)?))
            .and_then(|()| {
                if write_flags.contains(WriteFlags::FUSE_WRITE_KILL_SUIDGID) {
                    self.without_set_ids(self.volume.info(ino(node))?, None)?;
                }
                Ok(())
            });
        match written {
            // At most `TRANSFER_MAX_BYTES` came.
            Ok(()) => reply.written(bytes.len() as u32),
            Err(error) => reply.error(error),
        }
    }

    fn flush(
        &self,
        request: &Request,
        _node: INodeNo,
        fh: FileHandle,
        _owner: LockOwner,
        reply: ReplyEmpty,
    ) {
        let _answered = self.enter();
        // The kernel has written back what it held. It could be made to stop asking, which would
        // save a request at each close; but nothing else tells a close, while the program still waits
        // for it, from another's reading or a syncfs.
        if self.writers.is_closed_by_opener(handle(fh), request.pid()) {
            self.volume.closing(handle(fh));
        }
        reply.ok();
    }

    fn release(
        &self,
        _request: &Request,
        node: INodeNo,
        fh: FileHandle,
        _flags: OpenFlags,
        _owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        let _answered = self.enter();
        if is_feigned(node) {
            return reply.ok();
        }
        self.writers.released(handle(fh));
        self.volume.release(handle(fh));
        reply.ok();
    }

    fn fsync(
        &self,
        _request: &Request,
        _node: INodeNo,
        fh: FileHandle,
        _data_only: bool,
        reply: ReplyEmpty,
    ) {
        let (volume, gate) = (Arc::clone(&self.volume), Arc::clone(&self.gate));
        self.syncing.enter(move || {
            let _passing = gate.pass();
            empty(volume.fsync(handle(fh)), reply);
        });
    }

    fn opendir(&self, _request: &Request, _node: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        let _answered = self.enter();
        let kept = FopenFlags::FOPEN_CACHE_DIR | FopenFlags::FOPEN_KEEP_CACHE;
        reply.opened(FileHandle(self.listings.open()), kept);
    }

    fn readdir(
        &self,
        _request: &Request,
        node: INodeNo,
        fh: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        let _answered = self.enter();
        let _answering = self.answering.begin();
        let listed = self.list(ino(node), fh.0, offset, NAMES_PAGE, |offset, name, info| {
            reply.add(INodeNo(info.ino.0), offset, file_type(&info.kind), name)
        });
        match listed {
            Ok(()) => reply.ok(),
            Err(error) => reply.error(error),
        }
    }

    fn readdirplus(
        &self,
        _request: &Request,
        node: INodeNo,
        fh: FileHandle,
        offset: u64,
        mut reply: ReplyDirectoryPlus,
    ) {
        let _answered = self.enter();
        let _answering = self.answering.begin();
        let listed = self.list(ino(node), fh.0, offset, NODES_PAGE, |offset, name, info| {
            let attributes = self.attributes(info);
            reply.add(attributes.ino, offset, name, &BELIEVED, &attributes, GENERATION)
        });
        match listed {
            Ok(()) => reply.ok(),
            Err(error) => reply.error(error),
        }
    }

    fn releasedir(
        &self,
        _request: &Request,
        _node: INodeNo,
        fh: FileHandle,
        _flags: OpenFlags,
        reply: ReplyEmpty,
    ) {
        let _answered = self.enter();
        self.listings.close(fh.0);
        reply.ok();
    }

    fn fsyncdir(
        &self,
        _request: &Request,
        _node: INodeNo,
        _fh: FileHandle,
        _data_only: bool,
        reply: ReplyEmpty,
    ) {
        let (volume, gate) = (Arc::clone(&self.volume), Arc::clone(&self.gate));
        self.syncing.enter(move || {
            let _passing = gate.pass();
            empty(volume.sync_names(), reply);
        });
    }

    fn statfs(&self, _request: &Request, _node: INodeNo, reply: ReplyStatfs) {
        let _answered = self.enter();
        match self.volume.room() {
            Ok(room) => {
                let free = room.free_bytes / u64::from(BLOCK_BYTES);
                reply.statfs(
                    room.total_bytes / u64::from(BLOCK_BYTES),
                    free,
                    free,
                    room.total_nodes,
                    room.free_nodes,
                    BLOCK_BYTES,
                    255,
                    BLOCK_BYTES,
                );
            }
            Err(error) => reply.error(error.into()),
        }
    }

    fn setxattr(
        &self,
        request: &Request,
        node: INodeNo,
        name: &OsStr,
        value: &[u8],
        flags: i32,
        _position: u32,
        reply: ReplyEmpty,
    ) {
        let _answered = self.enter();
        if acl::is_list(name) {
            return empty(self.set_list(request, ino(node), name, Some(value)), reply);
        }
        if !is_kept(name) {
            return reply.error(Errno::EOPNOTSUPP);
        }
        let mode = match flags {
            0 => XattrMode::Either,
            XATTR_CREATE => XattrMode::Create,
            XATTR_REPLACE => XattrMode::Replace,
            _ => return reply.error(Errno::EINVAL),
        };
        empty(self.volume.set_xattr(ino(node), name.as_bytes(), value, mode), reply);
    }

    fn getxattr(
        &self,
        _request: &Request,
        node: INodeNo,
        name: &OsStr,
        room: u32,
        reply: ReplyXattr,
    ) {
        let _answered = self.enter();
        if acl::is_list(name) {
            return match self.list_shown(ino(node), name) {
                Ok(value) => sized(&value, room, reply),
                Err(error) => reply.error(error),
            };
        }
        if !is_kept(name) {
            return reply.error(Errno::EOPNOTSUPP);
        }
        match self.volume.xattr(ino(node), name.as_bytes()) {
            Ok(value) => sized(&value, room, reply),
            Err(error) => reply.error(error.into()),
        }
    }

    fn listxattr(&self, _request: &Request, node: INodeNo, room: u32, reply: ReplyXattr) {
        let _answered = self.enter();
        match self.volume.xattrs(ino(node)) {
            Ok(names) => {
                let mut list = Vec::new();
                for name in names {
                    let shown = OsStr::from_bytes(&name);
                    if !is_kept(shown) && !acl::is_list(shown) {
                        continue;
                    }
                    list.extend_from_slice(&name);
                    list.push(0);
                }
                sized(&list, room, reply);
            }
            Err(error) => reply.error(error.into()),
        }
    }

    fn removexattr(&self, request: &Request, node: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let _answered = self.enter();
        if acl::is_list(name) {
            return empty(self.set_list(request, ino(node), name, None), reply);
        }
        if !is_kept(name) {
            return reply.error(Errno::EOPNOTSUPP);
        }
        empty(self.volume.remove_xattr(ino(node), name.as_bytes()), reply);
    }

    fn access(&self, _request: &Request, _node: INodeNo, _mask: AccessFlags, reply: ReplyEmpty) {
        // The kernel checks permissions by itself, and stops asking at this answer.
        reply.error(Errno::ENOSYS);
    }

    fn bmap(&self, _request: &Request, _node: INodeNo, _size: u32, _at: u64, reply: ReplyBmap) {
        reply.error(Errno::ENOSYS);
    }

    fn ioctl(
        &self,
        _request: &Request,
        _node: INodeNo,
        _fh: FileHandle,
        _flags: IoctlFlags,
        _command: u32,
        _input: &[u8],
        _output_room: u32,
        reply: ReplyIoctl,
    ) {
        reply.error(Errno::ENOTTY);
    }

    fn poll(
        &self,
        _request: &Request,
        _node: INodeNo,
        _fh: FileHandle,
        _notifier: PollNotifier,
        _events: PollEvents,
        _flags: PollFlags,
        reply: ReplyPoll,
    ) {
        // The kernel then takes files for always ready, as they are, and stops asking.
        reply.error(Errno::ENOSYS);
    }

    fn fallocate(
        &self,
        _request: &Request,
        _node: INodeNo,
        fh: FileHandle,
        offset: u64,
        len: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        let _answered = self.enter();
        const PUNCH_KEEP: i32 = PUNCH_HOLE | KEEP_SIZE;
        const ZERO_KEEP: i32 = ZERO_RANGE | KEEP_SIZE;
        let allocation = match mode {
            0 => Allocation::Reserve { grow: true },
            KEEP_SIZE => Allocation::Reserve { grow: false },
            PUNCH_KEEP => Allocation::Punch,
            ZERO_RANGE => Allocation::Zero { grow: true },
            ZERO_KEEP => Allocation::Zero { grow: false },
            _ => return reply.error(Errno::EOPNOTSUPP),
        };
        let done = within_a_file(offset, len)
            .and_then(|()| Ok(self.volume.allocate(handle(fh), offset, len, allocation)?));
        empty(done, reply);
    }

    fn lseek(
        &self,
        _request: &Request,
        node: INodeNo,
        fh: FileHandle,
        offset: i64,
        whence: i32,
        reply: ReplyLseek,
    ) {
        let sought = match whence {
            SEEK_DATA => Sought::Data,
            SEEK_HOLE => Sought::Hole,
            _ => return reply.error(Errno::EINVAL),
        };
        let Ok(offset) = u64::try_from(offset) else { return reply.error(Errno::ENXIO) };
        let answer = move |volume: &dyn Volume, gate: &Gate, reply: ReplyLseek| {
            let _passing = gate.pass();
            let found = volume.seek(handle(fh), offset, sought);
            match found.map(|at| i64::try_from(at).map_err(|_| FileError::TooLarge)) {
                Ok(Ok(at)) => reply.offset(at),
                Ok(Err(error)) | Err(error) => reply.error(error.into()),
            }
        };
        if !self.writers.are_on(ino(node)) {
            return answer(self.volume.as_ref(), &self.gate, reply);
        }
        // The kernel asks without writing back first, and holes that it has filled would be taken
        // for holes. It is made to, from a thread of its own, for its writes come in meanwhile.
        let (volume, gate) = (Arc::clone(&self.volume), Arc::clone(&self.gate));
        let notifier = Arc::clone(&self.notifier);
        self.syncing.enter(move || {
            let call = gate.call();
            if let Some(Err(error)) =
                notifier.get().map(|notifier| notifier.inval_inode(node, 0, 0))
            {
                tracing::debug!(%error, "the kernel kept what it had not written");
            }
            drop(call);
            answer(volume.as_ref(), &gate, reply);
        });
    }

    fn copy_file_range(
        &self,
        _request: &Request,
        _from: INodeNo,
        from_handle: FileHandle,
        from_offset: u64,
        _to: INodeNo,
        to_handle: FileHandle,
        to_offset: u64,
        len: u64,
        flags: CopyFileRangeFlags,
        reply: ReplyWrite,
    ) {
        if !flags.is_empty() {
            return reply.error(Errno::EINVAL);
        }
        let len = len.min(COPY_MAX_BYTES);
        if let Err(error) = within_a_file(to_offset, len) {
            return reply.error(error);
        }
        let (volume, gate) = (Arc::clone(&self.volume), Arc::clone(&self.gate));
        // What can't be copied by its description may have to be fetched.
        self.fetching.enter(move || {
            let from = (handle(from_handle), from_offset);
            let copied = volume.copy_range(from, (handle(to_handle), to_offset), len);
            let _passing = gate.pass();
            match copied {
                Ok(copied) => reply.written(u32::try_from(copied).unwrap_or(u32::MAX)),
                Err(error) => reply.error(error.into()),
            }
        });
    }
}
