//! Where the herald shows the kernel something that is not so, and nobody else sees it.
//!
//! The kernel tells those who watch of what programs do, and of nothing else. So the herald, a
//! thread of this process, does what another device did once more, as a program would, and gets the
//! answers that make the kernel believe it: about names that it says beforehand, and with feigned
//! nodes. These are believed for no time at all, so that any other program that comes by a feigned
//! name makes the kernel ask again, and gets the truth.

use super::attributes::Ownership;
use crate::volume::Ino;
use fuser::{FileAttr, FileType, INodeNo};
use std::ffi::{OsStr, OsString};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

/// How long the kernel believes in what is feigned.
pub(super) const DISBELIEVED: Duration = Duration::ZERO;
/// Numbers from here on are feigned nodes; a volume never comes so far.
const FEIGNED: u64 = 1 << 63;
/// Of a feigned node's number: it is a directory.
const DIRECTORY: u64 = 1 << 62;
/// The feigned directory in the root in which real nodes are shown, so that whoever watches them
/// hears of it, and nobody who watches their directories.
const WINGS: u64 = FEIGNED | DIRECTORY;
/// Its name.
pub(super) const WINGS_NAME: &str = ".kith wings";

/// What a name leads to, for the herald.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Shown {
    /// Nothing.
    Absent,
    /// A feigned node.
    Feigned(Ino),
    /// A node that is real and has no name any more.
    Real(Ino),
}

struct Act {
    parent: u64,
    name: OsString,
    shown: Shown,
}

/// What the herald and those who answer the kernel share.
#[derive(Default)]
pub(super) struct Stage {
    /// The herald's thread, as the kernel numbers it; 0 while there is none.
    herald: AtomicU32,
    act: Mutex<Option<Act>>,
    last: AtomicU64,
}

/// Whether a node is feigned.
pub(super) fn is_feigned(node: INodeNo) -> bool {
    node.0 >= FEIGNED
}

impl Stage {
    /// Makes the calling thread the herald.
    pub(super) fn enter(&self) {
        let thread = rustix::thread::gettid().as_raw_nonzero().get();
        self.herald.store(thread.unsigned_abs(), Ordering::Release);
    }

    /// A feigned node that the kernel hasn't seen.
    pub(super) fn feign(&self, directory: bool) -> Ino {
        let number = 1 + self.last.fetch_add(1, Ordering::Relaxed);
        Ino(FEIGNED | number | if directory { DIRECTORY } else { 0 })
    }

    /// From now on, the herald finds this under the name.
    pub(super) fn set(&self, parent: Ino, name: &OsStr, shown: Shown) {
        let act = Act { parent: parent.0, name: name.to_owned(), shown };
        *self.act.lock().unwrap_or_else(PoisonError::into_inner) = Some(act);
    }

    /// From now on, the herald finds a real node in the wings.
    pub(super) fn set_in_wings(&self, name: &str, node: Ino) {
        self.set(Ino(WINGS), OsStr::new(name), Shown::Real(node));
    }

    /// From now on, the herald finds what everybody finds.
    pub(super) fn clear(&self) {
        *self.act.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Whether a thread is the herald.
    pub(super) fn is_herald(&self, thread: u32) -> bool {
        thread != 0 && thread == self.herald.load(Ordering::Acquire)
    }

    /// What a thread is to find under a name, if it is the herald and the name is on the stage.
    pub(super) fn shown(&self, thread: u32, parent: INodeNo, name: &OsStr) -> Option<Shown> {
        if !self.is_herald(thread) {
            return None;
        }
        let act = self.act.lock().unwrap_or_else(PoisonError::into_inner);
        let act = act.as_ref()?;
        if act.parent == parent.0 && act.name == name {
            return Some(act.shown);
        }
        let wings = act.parent == WINGS && parent.0 == Ino::ROOT.0 && name == WINGS_NAME;
        wings.then_some(Shown::Feigned(Ino(WINGS)))
    }
}

/// What a feigned node looks like.
pub(super) fn attributes(node: Ino, ownership: Ownership) -> FileAttr {
    let now = SystemTime::now();
    let directory = node.0 & DIRECTORY != 0;
    FileAttr {
        ino: INodeNo(node.0),
        size: 0,
        blocks: 0,
        atime: now,
        mtime: now,
        ctime: now,
        crtime: now,
        kind: if directory { FileType::Directory } else { FileType::RegularFile },
        perm: 0o700,
        nlink: 1,
        uid: ownership.user,
        gid: ownership.group,
        rdev: 0,
        blksize: 4096,
        flags: 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_herald_sees_what_is_on_the_stage() {
        let stage = Stage::default();
        let (parent, name) = (INodeNo(7), OsStr::new("name"));
        let shown = Shown::Feigned(stage.feign(true));
        stage.set(Ino(7), name, shown);
        let me = rustix::thread::gettid().as_raw_nonzero().get().unsigned_abs();
        assert_eq!(stage.shown(me, parent, name), None, "there is no herald yet");
        assert_eq!(stage.shown(0, parent, name), None, "nor a thread of another namespace");
        stage.enter();
        assert_eq!(stage.shown(me, parent, name), Some(shown));
        assert_eq!(stage.shown(me + 1, parent, name), None);
        assert_eq!(stage.shown(me, INodeNo(8), name), None);
        assert_eq!(stage.shown(me, parent, OsStr::new("other")), None);
        let wings = (INodeNo(Ino::ROOT.0), OsStr::new(WINGS_NAME));
        assert_eq!(stage.shown(me, wings.0, wings.1), None);
        stage.set_in_wings("node", Ino(9));
        let Some(Shown::Feigned(directory)) = stage.shown(me, wings.0, wings.1) else {
            panic!("there are no wings");
        };
        let inside = stage.shown(me, INodeNo(directory.0), OsStr::new("node"));
        assert_eq!(inside, Some(Shown::Real(Ino(9))));
        stage.clear();
        assert_eq!(stage.shown(me, parent, name), None);
    }

    #[test]
    fn feigned_nodes_are_no_nodes_of_a_volume_and_each_is_new() {
        let stage = Stage::default();
        let nodes = [stage.feign(false), stage.feign(true), stage.feign(false)];
        assert!(nodes.iter().all(|node| is_feigned(INodeNo(node.0)) && node.0 != WINGS));
        assert!(nodes[0] != nodes[2] && !is_feigned(INodeNo(1)));
        let ownership = Ownership { user: 1, group: 2 };
        let kinds = nodes.map(|node| attributes(node, ownership).kind);
        assert_eq!(kinds, [FileType::RegularFile, FileType::Directory, FileType::RegularFile]);
    }
}
