//! What `stat` shows of a node: from the index, and from the open file where there is one.

use super::{Share, storage};
use kith_core::content::{Content, Layout, Piece};
use kith_core::id::InodeId;
use kith_core::index::{IndexRead, InodeState, Node};
use kith_core::register::{Kind, UnixTime, Version};
use kith_fs::volume::{Ino, LookupError, NodeInfo};
use kith_store::{NodeRead, NodeRow, Snapshot, StoreError};

/// The version that a node shows, if it is a file that has one.
pub(crate) fn version_of(node: Node, state: &InodeState) -> Option<&Version> {
    match node {
        Node::Inode(_) => state.inode.latest(),
        Node::Copy { version, .. } => state.inode.versions.get(&version),
    }
}

/// A node as the index has it.
pub(super) fn describe<R: NodeRead>(
    reader: &R,
    row: &NodeRow,
    state: &InodeState,
) -> Result<NodeInfo, StoreError> {
    let inode = &state.inode;
    let version = version_of(row.node, state);
    let (size_bytes, stored_bytes) = match (&inode.kind, version) {
        (Kind::Symlink(target), _) => (target.len() as u64, 0),
        (Kind::Directory, _) => (4096, 4096),
        (_, Some(version)) => (version.content.size_bytes, stored_bytes(&version.content)),
        (_, None) => (0, 0),
    };
    let links = match inode.kind {
        Kind::Directory => reader.directory_links(row.node.key())?,
        _ => reader.links(row.node.key())?,
    };
    Ok(NodeInfo {
        ino: Ino(row.ino),
        kind: inode.kind.clone(),
        mode: inode.attributes.mode,
        user: inode.attributes.user,
        group: inode.attributes.group,
        links,
        size_bytes,
        stored_bytes,
        modified: modified(row, state, version),
        changed: row.changed,
        accessed: row.accessed,
        has_lists: inode.attributes.xattrs.keys().any(|name| name.starts_with(b"system.")),
    })
}

fn modified(row: &NodeRow, state: &InodeState, version: Option<&Version>) -> UnixTime {
    match (&state.inode.kind, version) {
        (Kind::File, Some(version)) => version.mtime,
        (Kind::File | Kind::Directory, _) => row.modified,
        _ => state.inode.attributes.mtime.unwrap_or(row.modified),
    }
}

fn stored_bytes(content: &Content) -> u64 {
    match &content.layout {
        Layout::Inline(pieces) => pieces
            .iter()
            .map(|piece| match piece {
                Piece::Chunk { len_bytes, .. } => u64::from(*len_bytes),
                Piece::Hole { .. } => 0,
            })
            .sum(),
        Layout::Tree { .. } => content.size_bytes,
    }
}

impl Share {
    /// Reads from a snapshot, and again if a file's version was published and the file closed in
    /// between, so that what is answered is never older than the request.
    pub(super) fn looking<T>(
        &self,
        mut look: impl FnMut(&Snapshot) -> Result<T, LookupError>,
    ) -> Result<T, LookupError> {
        loop {
            let epoch = self.files.epoch();
            let snapshot = self.store.snapshot().map_err(|error| storage(&error))?;
            let seen = look(&snapshot);
            if self.files.epoch() == epoch {
                return seen;
            }
        }
    }

    /// The same for one node, described by a glance at the index. What the open file knows better
    /// is added after it: whoever writes to a file may wait for the index.
    pub(super) fn glancing(
        &self,
        mut look: impl FnMut(&Snapshot) -> Result<NodeInfo, LookupError>,
    ) -> Result<NodeInfo, LookupError> {
        loop {
            let epoch = self.files.epoch();
            let glance = self.store.glance().map_err(|error| storage(&error))?;
            let mut seen = look(&glance);
            drop(glance);
            if let Ok(info) = &mut seen {
                self.lay_open_over(info);
            }
            if self.files.epoch() == epoch {
                return seen;
            }
        }
    }

    /// A node of a snapshot as `stat` shows it.
    pub(super) fn shown_info(
        &self,
        snapshot: &Snapshot,
        row: &NodeRow,
        state: &InodeState,
    ) -> Result<NodeInfo, LookupError> {
        let mut info = describe(snapshot, row, state).map_err(|error| storage(&error))?;
        self.lay_open_over(&mut info);
        Ok(info)
    }

    /// What an open file knows better than the index.
    pub(super) fn lay_open_over(&self, info: &mut NodeInfo) {
        if info.kind == Kind::File
            && let Some(file) = self.files.find(info.ino.0)
        {
            let shape = file.shape();
            info.size_bytes = shape.size_bytes;
            info.stored_bytes = shape.published.as_ref().map_or(shape.size_bytes, stored_bytes);
            info.modified = shape.modified;
            info.changed = shape.changed.unwrap_or(info.changed);
        }
    }

    /// A node by its number: one that a name leads to, or one that was removed. Who holds a
    /// removed one, as a pipe that is open, or by `O_PATH`, asks for it, and no path leads to it.
    /// But a file that got another number, while nobody had it open, must be looked up again.
    pub(super) fn info_of(&self, ino: Ino) -> Result<NodeInfo, LookupError> {
        self.glancing(|glance| {
            let (row, state) = self.present(glance, ino)?;
            numbered(glance, &row, &state)
        })
    }

    /// What is found under a number, but for a file that got another one while nobody had it open.
    pub(super) fn present<R>(
        &self,
        reader: &R,
        ino: Ino,
    ) -> Result<(NodeRow, InodeState), LookupError>
    where
        R: NodeRead + IndexRead<Error = StoreError>,
    {
        let (row, state) = find(reader, ino)?;
        if is_replaced(&row, &state.inode.kind) && self.files.find(ino.0).is_none() {
            return Err(LookupError::Stale);
        }
        Ok((row, state))
    }
}

/// A node as the index has it under a number that may be an earlier one of its.
pub(super) fn numbered<R: NodeRead>(
    reader: &R,
    row: &NodeRow,
    state: &InodeState,
) -> Result<NodeInfo, LookupError> {
    let mut info = describe(reader, row, state).map_err(|error| storage(&error))?;
    if is_replaced(row, &state.inode.kind) {
        // The names lead to the node that took its place.
        info.links = 0;
    }
    Ok(info)
}

/// Whether the names lead to another node that took this one's place.
fn is_replaced(row: &NodeRow, kind: &Kind) -> bool {
    // Of a directory that was removed here the number is superseded at once.
    !row.current && *kind != Kind::Directory
}

/// A node's row and register.
pub(super) fn find<R>(reader: &R, ino: Ino) -> Result<(NodeRow, InodeState), LookupError>
where
    R: NodeRead + IndexRead<Error = StoreError>,
{
    let row = reader.node(ino.0).map_err(|error| storage(&error))?.ok_or(LookupError::Stale)?;
    let state = reader.inode(row.node.inode()).map_err(|error| storage(&error))?;
    Ok((row, state.ok_or(LookupError::Stale)?))
}

/// The directory that a number stands for: of several shown as one, their representative.
pub(super) fn directory<R>(reader: &R, ino: Ino) -> Result<InodeId, LookupError>
where
    R: NodeRead + IndexRead<Error = StoreError>,
{
    let (row, state) = find(reader, ino)?;
    if state.inode.kind != Kind::Directory {
        return Err(LookupError::NotDirectory);
    }
    Ok(reader.representative(row.node.inode()).map_err(|error| storage(&error))?)
}
