//! What the kernel's requests mean to a volume, beyond one call for one request.

use super::acl::{self, List};
use super::attributes::{Ownership, absence};
use super::errno::name_errno;
use super::gate::{Gate, Passing};
use super::listing::{AFTER_DOT, AFTER_DOT_DOT, Listings, Position};
use super::lookout::{Lookout, Watch};
use super::sentry::Sentry;
use super::stage::{self, DISBELIEVED, Shown, Stage};
use super::waiting::WaitingRoom;
use super::writers::Writers;
use crate::volume::{
    Access, ChangeError, Handle, Ino, NewNode, NodeChange, NodeInfo, Renaming, Volume, XattrError,
};
use fuser::{
    Errno, FileAttr, FileHandle, Generation, INodeNo, InitFlags, Notifier, OpenAccMode, OpenFlags,
    RenameFlags, ReplyEntry, Request,
};
use kith_core::name::EntryName;
use kith_core::register::{Kind, UnixTime};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::sync::{Arc, OnceLock, PoisonError, RwLock, RwLockReadGuard};
use std::time::Duration;

/// How long the kernel believes what it was told. What changes elsewhere is called back at once,
/// so this only bounds what a lost call would cost.
pub(super) const BELIEVED: Duration = Duration::from_secs(60 * 60);
/// How many reads wait for absent bytes at once.
const FETCHES_MAX: usize = 32;
/// How many requests wait for the disk at once.
const SYNCS_MAX: usize = 8;
/// How many names are listed at a time. What no longer fits an answer is thrown away, because by
/// the next request it may not be true any more; so pages are much smaller than answers.
pub(super) const NAMES_PAGE: usize = 256;
/// How many names are listed at a time with their attributes.
pub(super) const NODES_PAGE: usize = 64;
const O_TRUNC: i32 = 0o1000;
const SET_IDS: u16 = 0o6000;
const SET_GROUP_ID: u16 = 0o2000;
pub(super) const GENERATION: Generation = Generation(0);

/// The mode that a program asks for, and what it wants taken away from it.
#[derive(Clone, Copy)]
pub(super) struct Mode {
    pub(super) mode: u32,
    pub(super) umask: u32,
}

/// What is open in a mount, as far as the layer keeps count of it.
#[derive(Default)]
pub(super) struct Openings {
    pub(super) listings: Listings,
    pub(super) writers: Writers,
}

/// What was agreed with the kernel when it was mounted, and holds as long as the mount.
#[derive(Clone, Copy, Debug)]
pub(super) struct Agreed {
    /// What both sides can do, of what this layer asks for.
    pub(super) capabilities: InitFlags,
    /// The kernel's minor version of the protocol.
    pub(super) minor: u32,
    /// Whether the kernel gives what was read and not answered to the next process.
    pub(super) resends: bool,
}

/// Answers the kernel for one mounted volume.
pub(super) struct Layer {
    pub(super) volume: Arc<dyn Volume>,
    pub(super) ownership: Ownership,
    pub(super) listings: Arc<Listings>,
    pub(super) writers: Arc<Writers>,
    pub(super) fetching: WaitingRoom,
    pub(super) syncing: WaitingRoom,
    pub(super) gate: Arc<Gate>,
    pub(super) lookout: Lookout,
    pub(super) answering: Arc<Answering>,
    pub(super) notifier: Arc<OnceLock<Notifier>>,
    pub(super) stage: Arc<Stage>,
    pub(super) agreed: Arc<OnceLock<Agreed>>,
}

/// Held while an answer that the kernel will believe is made and given. The thread that calls
/// back what changed elsewhere passes through it once before it does, so that no answer made
/// before the change reaches the kernel after the call.
#[derive(Default)]
pub(super) struct Answering {
    answers: RwLock<()>,
    /// Stood by the threads that answer.
    pub(super) sentry: Sentry,
}

impl Answering {
    pub(super) fn begin(&self) -> RwLockReadGuard<'_, ()> {
        self.sentry.post();
        self.answers.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns when every answer that was begun before is given.
    pub(super) fn let_finish(&self) {
        drop(self.answers.write().unwrap_or_else(PoisonError::into_inner));
    }
}

pub(super) fn ino(number: INodeNo) -> Ino {
    Ino(number.0)
}

pub(super) fn handle(number: FileHandle) -> Handle {
    Handle(number.0)
}

pub(super) fn decode(name: &OsStr) -> Result<EntryName, Errno> {
    EntryName::new(name.as_bytes()).map_err(name_errno)
}

pub(super) fn access_of(flags: OpenFlags) -> Access {
    let truncate = flags.0 & O_TRUNC != 0;
    // The kernel reads whole pages before it changes parts of them, and any handle will do.
    let write = truncate || flags.acc_mode() != OpenAccMode::O_RDONLY;
    Access { read: true, write, truncate }
}

impl Layer {
    /// A layer over a volume, for who mounts it, that goes on with what was open.
    pub(super) fn new(
        volume: Arc<dyn Volume>,
        ownership: Ownership,
        open: Openings,
        lookout: Lookout,
    ) -> Self {
        Layer {
            volume,
            ownership,
            listings: Arc::new(open.listings),
            writers: Arc::new(open.writers),
            fetching: WaitingRoom::new("kith-fetch", FETCHES_MAX),
            syncing: WaitingRoom::new("kith-sync", SYNCS_MAX),
            gate: Arc::default(),
            lookout,
            answering: Arc::default(),
            notifier: Arc::default(),
            stage: Arc::default(),
            agreed: Arc::default(),
        }
    }

    /// Begins with a request. Once it is answered, the thread looks out for the next.
    pub(super) fn enter(&self) -> (Passing<'_>, Watch<'_>) {
        (self.gate.pass(), self.lookout.after())
    }

    pub(super) fn attributes(&self, info: &NodeInfo) -> FileAttr {
        self.ownership.attributes(info)
    }

    /// Answers the herald, if it asks for a name that is on the stage, as it wants to be answered.
    pub(super) fn on_stage(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        reply: ReplyEntry,
    ) -> Option<ReplyEntry> {
        let attributes = match self.stage.shown(request.pid(), parent, name) {
            None => return Some(reply),
            Some(Shown::Absent) => absence(),
            Some(Shown::Feigned(node)) => stage::attributes(node, self.ownership),
            Some(Shown::Real(node)) => match self.volume.info(node) {
                // It is about to lose what the kernel takes for its last name.
                Ok(info) => FileAttr { nlink: 1, ..self.attributes(&info) },
                Err(_) => stage::attributes(node, self.ownership),
            },
        };
        reply.entry(&DISBELIEVED, &attributes, GENERATION);
        None
    }

    /// Whether it is the herald who asks, for a name that is on the stage.
    pub(super) fn is_on_stage(&self, request: &Request, parent: INodeNo, name: &OsStr) -> bool {
        self.stage.shown(request.pid(), parent, name).is_some()
    }

    /// Makes a feigned node for the herald.
    pub(super) fn feign(&self, directory: bool, reply: ReplyEntry) {
        let attributes = stage::attributes(self.stage.feign(directory), self.ownership);
        reply.entry(&DISBELIEVED, &attributes, GENERATION);
    }

    /// Answers with a node that a name now leads to.
    pub(super) fn entry(&self, made: Result<NodeInfo, Errno>, reply: ReplyEntry) {
        match made {
            Ok(info) => reply.entry(&BELIEVED, &self.attributes(&info), GENERATION),
            Err(error) => reply.error(error),
        }
    }

    /// What a new node is to be. In a directory with the set-group-id bit it gets the directory's
    /// group, and in one with a default list that list in place of the umask, as on every Linux
    /// filesystem.
    fn new_node(
        &self,
        request: &Request,
        parent: INodeNo,
        kind: Kind,
        Mode { mode, umask }: Mode,
    ) -> Result<NewNode, Errno> {
        let mut new = NewNode {
            kind,
            mode: (mode & 0o7777) as u16,
            user: self.ownership.user(request.uid()),
            group: self.ownership.group(request.gid()),
            xattrs: Vec::new(),
        };
        let parent = self.volume.info(ino(parent))?;
        match self.list_of(&parent, acl::DEFAULT)? {
            // A symbolic link is no more than its target.
            _ if matches!(new.kind, Kind::Symlink(_)) => {}
            None => new.mode &= !(umask & 0o777) as u16,
            Some(list) => {
                let own = list.inherited(new.mode);
                new.mode = (new.mode & !0o777) | own.mode();
                if !own.is_plain() {
                    new.xattrs.push((acl::ACCESS.as_bytes().into(), own.encode()));
                }
                if new.kind == Kind::Directory {
                    new.xattrs.push((acl::DEFAULT.as_bytes().into(), list.encode()));
                }
            }
        }
        if parent.mode & SET_GROUP_ID != 0 {
            new.group = parent.group;
            if new.kind == Kind::Directory {
                new.mode |= SET_GROUP_ID;
            }
        }
        Ok(new)
    }

    pub(super) fn make(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        kind: Kind,
        mode: Mode,
    ) -> Result<NodeInfo, Errno> {
        let name = decode(name)?;
        let new = self.new_node(request, parent, kind, mode)?;
        Ok(self.volume.make(ino(parent), &name, new)?)
    }

    pub(super) fn change(
        &self,
        request: &Request,
        node: Ino,
        mut change: NodeChange,
    ) -> Result<NodeInfo, Errno> {
        if change == NodeChange::default() {
            return Ok(self.volume.info(node)?);
        }
        if let Some(mode) = change.mode
            && let Some(list) = self.list_of(&self.volume.info(node)?, acl::ACCESS)?
        {
            let list = list.with_mode(mode).encode();
            change.xattrs.push((acl::ACCESS.as_bytes().into(), Some(list)));
        }
        // Whoever changes a program's owner or bytes must not keep what the program may do. The
        // kernel leaves this to filesystems that it needn't ask for capabilities at each write.
        let gives_away = change.user.is_some() || change.group.is_some();
        let cuts = change.size_bytes.is_some() && request.uid() != 0;
        let (keeps_mode, changed) = (change.mode.is_none(), change.changed);
        let info = self.volume.change(node, change)?;
        if keeps_mode && (gives_away || cuts) {
            self.without_set_ids(info, changed)
        } else {
            Ok(info)
        }
    }

    /// Takes the set-id bits from whatever has some and is no directory: as of `changed`, or now.
    pub(super) fn without_set_ids(
        &self,
        info: NodeInfo,
        changed: Option<UnixTime>,
    ) -> Result<NodeInfo, Errno> {
        // Without execution by the group, set-group-id means mandatory locks, and stays.
        let group = if info.mode & 0o010 != 0 { SET_GROUP_ID } else { 0 };
        let mode = info.mode & !((SET_IDS & !SET_GROUP_ID) | group);
        if info.kind == Kind::Directory || mode == info.mode {
            return Ok(info);
        }
        let change = NodeChange { mode: Some(mode), changed, ..NodeChange::default() };
        Ok(self.volume.change(info.ino, change)?)
    }

    /// One of a node's access control lists as it is kept, if it has it.
    fn list_of(&self, info: &NodeInfo, name: &str) -> Result<Option<List>, Errno> {
        if !info.has_lists {
            return Ok(None);
        }
        match self.volume.xattr(info.ino, name.as_bytes()) {
            Ok(value) => List::decode(&value).map(Some),
            Err(XattrError::NoAttribute) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// One of a node's access control lists as programs see it.
    pub(super) fn list_shown(&self, node: Ino, name: &OsStr) -> Result<Box<[u8]>, Errno> {
        let kept = self.volume.xattr(node, name.as_bytes())?;
        Ok(List::decode(&kept)?.shown(self.ownership).encode())
    }

    /// Sets or removes an access control list. The list of a node itself is also its mode, and
    /// one that says no more than that isn't kept.
    pub(super) fn set_list(
        &self,
        request: &Request,
        node: Ino,
        name: &OsStr,
        value: Option<&[u8]>,
    ) -> Result<(), Errno> {
        let info = self.volume.info(node)?;
        let mut change = NodeChange::default();
        let list = value.map(List::decode).transpose()?.map(|list| list.recorded(self.ownership));
        let kept = match list {
            Some(list) if name == acl::ACCESS => {
                let mut mode = (info.mode & !0o777) | list.mode();
                if !acl::is_member(request, self.ownership.shown_group(info.group)) {
                    mode &= !SET_GROUP_ID;
                }
                change.mode = Some(mode);
                if list.is_plain() { None } else { Some(list.encode()) }
            }
            list => list.map(|list| list.encode()),
        };
        if kept.is_some() || info.has_lists {
            change.xattrs.push((name.as_bytes().into(), kept));
        }
        if change != NodeChange::default() {
            self.volume.change(node, change)?;
        }
        Ok(())
    }

    pub(super) fn rename(
        &self,
        from: (INodeNo, &OsStr),
        to: (INodeNo, &OsStr),
        flags: RenameFlags,
    ) -> Result<(), Errno> {
        let renaming = match flags {
            flags if flags.is_empty() => Renaming::Replace,
            RenameFlags::RENAME_NOREPLACE => Renaming::NoReplace,
            RenameFlags::RENAME_EXCHANGE => Renaming::Exchange,
            _ => return Err(Errno::EINVAL),
        };
        let (from, from_name) = (ino(from.0), decode(from.1)?);
        let (to, to_name) = (ino(to.0), decode(to.1)?);
        Ok(self.volume.rename((from, &from_name), (to, &to_name), renaming)?)
    }

    pub(super) fn create(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: Mode,
        flags: i32,
    ) -> Result<(NodeInfo, Handle, Access), Errno> {
        let access = Access { truncate: false, ..access_of(OpenFlags(flags)) };
        let name = decode(name)?;
        let new = self.new_node(request, parent, Kind::File, mode)?;
        match self.volume.create(ino(parent), &name, new, access) {
            Ok((info, handle)) => Ok((info, handle, access)),
            // Somebody made it since the kernel looked: it looks again, and opens that, or fails
            // if it was to be new.
            Err(ChangeError::Exists) => Err(Errno::ESTALE),
            Err(error) => Err(error.into()),
        }
    }

    /// Lists a directory from `offset` until `add` says that an entry no longer fits.
    pub(super) fn list(
        &self,
        directory: Ino,
        fh: u64,
        offset: u64,
        page_names: usize,
        mut add: impl FnMut(u64, &OsStr, &NodeInfo) -> bool,
    ) -> Result<(), Errno> {
        let volume = self.volume.as_ref();
        let mut position = self.listings.position(volume, directory, fh, offset)?;
        if position == Position::Dot {
            if add(AFTER_DOT, OsStr::new("."), &volume.info(directory)?) {
                return Ok(());
            }
            position = Position::DotDot;
        }
        if position == Position::DotDot {
            let parent = volume.parent(directory)?;
            if add(AFTER_DOT_DOT, OsStr::new(".."), &volume.info(parent)?) {
                return Ok(());
            }
            position = Position::After(None);
        }
        let Position::After(mut after) = position else { return Ok(()) };
        loop {
            let page = volume.list(directory, after.as_ref(), page_names)?;
            let ends = page.len() < page_names;
            for listed in page {
                let offset = self.listings.offset_after(&listed.name);
                if add(offset, OsStr::from_bytes(listed.name.as_bytes()), &listed.info) {
                    return Ok(());
                }
                self.listings.listed(fh, offset, listed.name.clone());
                after = Some(listed.name);
            }
            if ends {
                return Ok(());
            }
        }
    }
}
