//! Tells programs that watch (`inotify`) of what other devices did, by doing it once more on the
//! [stage](super::stage).

use super::home::Home;
use super::stage::{Shown, Stage, WINGS_NAME};
use super::watched;
use crate::volume::{Ino, LookupError, Outdated, Volume};
use fuser::INodeNo;
use kith_core::name::EntryName;
use kith_core::register::Kind;
use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags, Timespec, Timestamps};
use rustix::fs::{UTIME_NOW, UTIME_OMIT};
use rustix::io::Errno;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

/// How long nothing is heard before it is asked whether to go on.
const PATIENCE: Duration = Duration::from_millis(200);
/// How far apart looks at who watches are: one takes milliseconds.
const LOOKS_APART: Duration = Duration::from_millis(200);
/// How many names wait to be told of. The kernel's own queues of events hold no more.
const NAMES_MAX: usize = 16_384;
/// How often somebody else may come between, who looks at the name in the same moment.
const TRIES: usize = 100;
/// The longest path that is followed.
const PATH_MAX_BYTES: usize = 4095;

/// Tells whoever watches a mount.
pub(super) struct Herald {
    /// The volume, and the way to call the kernel. The herald itself has no descriptors but its own.
    pub(super) home: Home,
    pub(super) stage: Arc<Stage>,
    pub(super) point: PathBuf,
    pub(super) device: (u32, u32),
}

/// The names that changed since the last look, and whether they lead to the same files with other
/// bytes.
type News = BTreeMap<(Ino, EntryName), bool>;

impl Herald {
    /// Tells until nobody has news any more or `go_on` says no. This thread becomes the herald.
    pub(super) fn tell(self, news: &Receiver<Vec<Outdated>>, mut go_on: impl FnMut() -> bool) {
        self.stage.enter();
        let mut gone = BTreeSet::new();
        let mut looked: Option<Instant> = None;
        let mut names = News::new();
        while go_on() {
            let next = looked.map_or(Duration::ZERO, |at| LOOKS_APART.saturating_sub(at.elapsed()));
            let wait = if names.is_empty() { PATIENCE } else { next };
            match news.recv_timeout(wait) {
                Ok(outdated) => {
                    collect(&mut names, outdated);
                    if !next.is_zero() {
                        continue;
                    }
                }
                Err(RecvTimeoutError::Timeout) if names.is_empty() => continue,
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            let watched = watched::nodes(self.device);
            looked = Some(Instant::now());
            gone.retain(|node| watched.contains(node));
            let names = std::mem::take(&mut names);
            if !watched.is_empty()
                && let Err(error) = self.tell_of(names, &watched, &mut gone)
            {
                tracing::debug!(%error, "those who watch could not be told");
            }
            self.stage.clear();
        }
    }

    fn tell_of(
        &self,
        names: News,
        watched: &BTreeSet<u64>,
        gone: &mut BTreeSet<u64>,
    ) -> Result<(), Errno> {
        let root = self.root()?;
        let mut directories = BTreeMap::new();
        for ((parent, name), replaced) in names {
            if !watched.contains(&parent.0) {
                continue;
            }
            let directory =
                directories.entry(parent).or_insert_with(|| self.directory(&root, parent).ok());
            let Some(directory) = directory else { continue };
            if let Err(error) = self.tell_of_name(directory, parent, &name, replaced) {
                tracing::debug!(%error, "those who watch a directory could not be told");
            }
        }
        for node in watched {
            if !gone.contains(node) && self.is_gone(Ino(*node)) {
                gone.insert(*node);
                self.stage.set_in_wings("node", Ino(*node));
                let path = format!("{WINGS_NAME}/node");
                rustix::fs::unlinkat(&root, path, AtFlags::empty())?;
            }
        }
        Ok(())
    }

    /// Whether no name leads to a file any more. Directories are left alone: the kernel takes one
    /// that was removed for dead, also if it comes back.
    fn is_gone(&self, node: Ino) -> bool {
        let is_gone = self.home.ask(move |volume, _| match volume.info(node) {
            Ok(info) => info.links == 0 && info.kind == Kind::File,
            // Replaced by another version, as only files are.
            Err(LookupError::Stale) => volume.place(node) == Err(LookupError::NotDirectory),
            Err(_) => false,
        });
        is_gone.unwrap_or(false)
    }

    /// The root of the mount, and of no other: nobody else knows the name that is asked for.
    fn root(&self) -> Result<OwnedFd, Errno> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(&self.point, flags, Mode::empty())?;
        let (name, node) = (OsStr::new(WINGS_NAME), self.stage.feign(false));
        self.stage.set(Ino::ROOT, name, Shown::Feigned(node));
        let found = rustix::fs::statat(&root, name, AtFlags::SYMLINK_NOFOLLOW)?;
        if found.st_ino == node.0 { Ok(root) } else { Err(Errno::XDEV) }
    }

    fn directory(&self, root: &OwnedFd, node: Ino) -> Result<OwnedFd, Errno> {
        let path = self.home.ask(move |volume, _| path_to(volume, node));
        let path = path.ok_or(Errno::NOTCONN)??;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
        let directory = rustix::fs::openat2(root, path, flags, Mode::empty(), resolve)?;
        let found = rustix::fs::fstat(&directory)?;
        if found.st_ino == node.0 { Ok(directory) } else { Err(Errno::STALE) }
    }

    fn tell_of_name(
        &self,
        directory: &OwnedFd,
        parent: Ino,
        name: &EntryName,
        replaced: bool,
    ) -> Result<(), Errno> {
        let looked_up = name.clone();
        let found = self.home.ask(move |volume, _| volume.lookup(parent, &looked_up).ok());
        let found = found.ok_or(Errno::NOTCONN)?;
        let name = OsStr::from_bytes(name.as_bytes());
        let kind = match found {
            None => {
                return self.play(parent, name, false, || {
                    rustix::fs::unlinkat(directory, name, AtFlags::empty())
                });
            }
            Some(info) => info.kind,
        };
        if kind == Kind::Directory {
            return self
                .play(parent, name, true, || rustix::fs::mkdirat(directory, name, Mode::RWXU));
        }
        if !replaced {
            self.play(parent, name, true, || {
                let mode = Mode::RUSR | Mode::WUSR;
                rustix::fs::mknodat(directory, name, FileType::RegularFile, mode, 0)
            })?;
        }
        if kind != Kind::File {
            return Ok(());
        }
        let mut file = None;
        self.play(parent, name, false, || {
            let flags = OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            file = Some(rustix::fs::openat(directory, name, flags, Mode::empty())?);
            Ok(())
        })?;
        let Some(file) = file else { return Ok(()) };
        if replaced {
            let time = |tv_nsec| Timespec { tv_sec: 0, tv_nsec };
            let times =
                Timestamps { last_access: time(UTIME_OMIT), last_modification: time(UTIME_NOW) };
            rustix::fs::futimens(&file, &times)?;
        }
        Ok(())
    }

    /// Does something to a name, which is feigned to be there or to be absent; again if somebody
    /// else looked at it in between, and the kernel believes that.
    fn play(
        &self,
        parent: Ino,
        name: &OsStr,
        absent: bool,
        mut act: impl FnMut() -> Result<(), Errno>,
    ) -> Result<(), Errno> {
        let shown = if absent { Shown::Absent } else { Shown::Feigned(self.stage.feign(false)) };
        let mut played = Ok(());
        for _ in 0..TRIES {
            self.put(parent, name, shown);
            played = act();
            if !matches!(played, Err(Errno::EXIST | Errno::NOENT | Errno::STALE)) {
                break;
            }
        }
        played
    }

    /// Puts a name on the stage, and makes the kernel look.
    fn put(&self, parent: Ino, name: &OsStr, shown: Shown) {
        self.stage.set(parent, name, shown);
        let name = name.to_owned();
        let called =
            self.home.ask(move |_, notifier| notifier.inval_entry(INodeNo(parent.0), &name));
        if let Some(Err(error)) = called {
            tracing::debug!(%error, "the kernel took no call");
        }
    }
}

/// The path from the root to a directory.
fn path_to(volume: &dyn Volume, node: Ino) -> Result<PathBuf, Errno> {
    let mut names = Vec::new();
    let (mut at, mut bytes) = (node, 0);
    while at != Ino::ROOT {
        let place = volume.place(at).ok().flatten();
        let (parent, name) = place.ok_or(Errno::NOENT)?;
        bytes += name.as_bytes().len() + 1;
        if bytes > PATH_MAX_BYTES {
            return Err(Errno::NAMETOOLONG);
        }
        names.push(name);
        at = parent;
    }
    let mut path = PathBuf::from(".");
    path.extend(names.iter().rev().map(|name| OsStr::from_bytes(name.as_bytes())));
    Ok(path)
}

fn collect(names: &mut News, outdated: Vec<Outdated>) {
    for what in outdated {
        let Outdated::Name { parent, name, replaced } = what else { continue };
        if names.len() < NAMES_MAX {
            let known = names.entry((parent, name)).or_insert(replaced);
            *known &= replaced;
        }
    }
}
