//! The nodes of the mount: what a number stands for, and when it changed.

use crate::StoreError;
use crate::handle::Handle;
use crate::index::key::ROOT;
use crate::index::replica::Totals;
use kith_core::id::InodeId;
use kith_core::index::{InodeState, Node, Shown};
use kith_core::name::EntryName;
use kith_core::register::UnixTime;
use rusqlite::Row;

/// The root's number.
pub const ROOT_INO: u64 = 1;

/// How many superseded numbers are remembered, so that an open handle of theirs can be told.
const SUPERSEDED_MAX: i64 = 100_000;

/// A node of the mount, as the index keeps it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NodeRow {
    /// Its number: never used again for anything else.
    pub ino: u64,
    /// What it is.
    pub node: Node,
    /// When anything about it last changed here.
    pub changed: UnixTime,
    /// Of a directory, when its names last changed; of a file the same as `changed`; of anything
    /// else when it was made.
    pub modified: UnixTime,
    /// When it was last read, where somebody said so.
    pub accessed: Option<UnixTime>,
    /// Whether it is what names lead to now; otherwise a newer number has taken its place, or
    /// it was dropped before anybody else knew of it.
    pub current: bool,
}

/// Reads of nodes, in a transaction or a snapshot.
pub trait NodeRead {
    /// A node by its number, also a superseded one. The latest 100,000 superseded are known.
    ///
    /// # Errors
    /// A [`StoreError`] if the index fails; so it is with all methods.
    fn node(&self, ino: u64) -> Result<Option<NodeRow>, StoreError>;
    /// The present node of a key, also of one that no name leads to any more.
    fn node_of(&self, key: InodeId) -> Result<Option<NodeRow>, StoreError>;
    /// What a name of the view leads to, with its node and the inode that describes it.
    fn look_up(
        &self,
        parent: InodeId,
        name: &EntryName,
    ) -> Result<Option<(Shown, NodeRow, InodeState)>, StoreError>;
    /// Up to `limit` names of a directory after `after`, in the names' byte order, each with its
    /// node and the inode that describes it.
    fn list_nodes(
        &self,
        parent: InodeId,
        after: Option<&EntryName>,
        limit: usize,
    ) -> Result<Vec<(Shown, NodeRow, InodeState)>, StoreError>;
    /// How many names of the view lead to the node with this key.
    fn links(&self, key: InodeId) -> Result<u32, StoreError>;
    /// The number of links of a directory: one in its parent, its own, and one of each directory
    /// that it shows; 0 if no name leads to it. `key` is a representative.
    ///
    /// # Errors
    /// A [`StoreError`] if the index fails.
    fn directory_links(&self, key: InodeId) -> Result<u32, StoreError>;
    /// How many directories a directory shows. `parent` is a representative.
    fn subdirectories(&self, parent: InodeId) -> Result<u32, StoreError>;
    /// What the share holds in all.
    fn totals(&self) -> Result<Totals, StoreError>;
}

/// The columns that [`Handle::read_node`] reads.
macro_rules! select_node {
    ($before:literal, $rest:literal) => {
        concat!(
            "SELECT ",
            $before,
            "n.ino, n.key, n.inode, n.current, n.changed, n.changed_ns, n.modified, \
             n.modified_ns, n.accessed, n.accessed_ns ",
            $rest
        )
    };
}

impl Handle {
    fn read_node(&self, row: &Row<'_>, at: usize) -> Result<NodeRow, StoreError> {
        let key = self.dot(row.get(at + 1)?)?;
        let node = match row.get(at + 2)? {
            Some(inode) => Node::Copy { inode: self.inode_id(inode)?, version: key },
            None => Node::Inode(InodeId(key)),
        };
        let changed = UnixTime { seconds: row.get(at + 4)?, nanoseconds: row.get(at + 5)? };
        let modified = match row.get(at + 6)? {
            Some(seconds) => UnixTime { seconds, nanoseconds: row.get(at + 7)? },
            None => changed,
        };
        let accessed = match row.get(at + 8)? {
            Some(seconds) => Some(UnixTime { seconds, nanoseconds: row.get(at + 9)? }),
            None => None,
        };
        Ok(NodeRow {
            accessed,
            ino: row.get::<_, i64>(at)?.cast_unsigned(),
            node,
            changed,
            modified,
            current: row.get(at + 3)?,
        })
    }

    pub(crate) fn node(&self, ino: u64) -> Result<Option<NodeRow>, StoreError> {
        let Ok(ino) = i64::try_from(ino) else { return Ok(None) };
        let sql = select_node!("", "FROM nodes n WHERE n.ino = ?");
        self.first(sql, [ino], |row| self.read_node(row, 0))
    }

    pub(crate) fn node_of(&self, key: InodeId) -> Result<Option<NodeRow>, StoreError> {
        let Some(key) = self.key(key.0)? else { return Ok(None) };
        let sql = select_node!(
            "",
            "FROM nodes n WHERE n.ino = coalesce((SELECT ino FROM inodes WHERE id = ?1), \
             (SELECT ino FROM copies WHERE key = ?1))"
        );
        self.first(sql, [key], |row| self.read_node(row, 0))
    }

    fn read_looked_up(&self, row: &Row<'_>) -> Result<(Shown, NodeRow, InodeState), StoreError> {
        let shown = self.read_plain(row)?;
        let state = self.read_inode(shown.node.inode(), row, 4)?;
        Ok((shown, self.read_node(row, 6)?, state))
    }

    /// A name that is a row of `shown`, with what it leads to.
    fn follow(&self, shown: Shown) -> Result<(Shown, NodeRow, InodeState), StoreError> {
        let node = self.node_of(shown.node.key())?;
        let node = node.ok_or(StoreError::Damaged("a name leads to no node"))?;
        let state = self.inode(shown.node.inode())?;
        let state = state.ok_or(StoreError::Damaged("a name leads to no inode"))?;
        Ok((shown, node, state))
    }

    pub(crate) fn look_up(
        &self,
        parent: InodeId,
        name: &EntryName,
    ) -> Result<Option<(Shown, NodeRow, InodeState)>, StoreError> {
        let Some(key) = self.key(parent.0)? else { return Ok(None) };
        let sql = select_node!(
            "e.shown_parent, e.name, e.inode, e.id, i.logged, i.register, ",
            "FROM entries e JOIN inodes i ON i.id = e.inode JOIN nodes n ON n.ino = i.ino \
             WHERE e.shown_parent = ? AND e.seen = 2 AND e.name = ?"
        );
        let plain = self.first(sql, (key, name.as_bytes()), |row| self.read_looked_up(row))?;
        if plain.is_some() {
            return Ok(plain);
        }
        self.special(parent, name)?.map(|shown| self.follow(shown)).transpose()
    }

    pub(crate) fn list_nodes(
        &self,
        parent: InodeId,
        after: Option<&EntryName>,
        limit: usize,
    ) -> Result<Vec<(Shown, NodeRow, InodeState)>, StoreError> {
        let Some(key) = self.key(parent.0)? else { return Ok(Vec::new()) };
        let after = after.map_or(&b""[..], EntryName::as_bytes);
        let most = i64::try_from(limit).unwrap_or(i64::MAX);
        let special = self.list_special(key, after, most)?;
        let sql = select_node!(
            "e.shown_parent, e.name, e.inode, e.id, i.logged, i.register, ",
            "FROM entries e JOIN inodes i ON i.id = e.inode JOIN nodes n ON n.ino = i.ino \
             WHERE e.shown_parent = ? AND e.seen = 2 AND e.name > ? ORDER BY e.name LIMIT ?"
        );
        let mut listed = self.all(sql, (key, after, most), |row| self.read_looked_up(row))?;
        if !special.is_empty() {
            for shown in special {
                listed.push(self.follow(shown)?);
            }
            listed.sort_unstable_by(|(a, ..), (b, ..)| a.name.cmp(&b.name));
            listed.truncate(limit);
        }
        Ok(listed)
    }

    pub(crate) fn links(&self, key: InodeId) -> Result<u32, StoreError> {
        let Some(key) = self.key(key.0)? else { return Ok(0) };
        let sql = "SELECT coalesce((SELECT names FROM inodes WHERE id = ?1), 0)
                   + (SELECT count(*) FROM shown WHERE key = ?1 AND inode IS NOT NULL)";
        Ok(self.first(sql, [key], |row| Ok(row.get(0)?))?.unwrap_or(0))
    }

    pub(crate) fn directory_links(&self, key: InodeId) -> Result<u32, StoreError> {
        let Some(key) = self.key(key.0)? else { return Ok(0) };
        let sql = "SELECT CASE WHEN ?1 = ?2 OR names > 0
                   THEN 2 + coalesce((SELECT subdirectories FROM directories WHERE key = ?1), 0)
                   ELSE 0 END FROM inodes WHERE id = ?1";
        Ok(self.first(sql, (key, ROOT), |row| Ok(row.get(0)?))?.unwrap_or(0))
    }

    pub(crate) fn subdirectories(&self, parent: InodeId) -> Result<u32, StoreError> {
        let Some(key) = self.key(parent.0)? else { return Ok(0) };
        let sql = "SELECT subdirectories FROM directories WHERE key = ?";
        Ok(self.first(sql, [key], |row| Ok(row.get(0)?))?.unwrap_or(0))
    }

    pub(crate) fn count_subdirectory(&self, parent: i64, by: i64) -> Result<(), StoreError> {
        let sql = "INSERT INTO directories VALUES (?1, ?2)
                   ON CONFLICT DO UPDATE SET subdirectories = subdirectories + ?2";
        self.run(sql, (parent, by)).map(drop)
    }

    /// Makes a node, of a file without a time of modification of its own here: its versions have one.
    pub(crate) fn make_node(
        &self,
        key: i64,
        copy_of: Option<i64>,
        at: UnixTime,
        modified: Option<UnixTime>,
    ) -> Result<i64, StoreError> {
        let sql = "INSERT INTO nodes (key, inode, current, changed, changed_ns, modified,
                   modified_ns) VALUES (?, ?, 1, ?, ?, ?, ?)";
        let params = (
            key,
            copy_of,
            at.seconds,
            at.nanoseconds,
            modified.map(|at| at.seconds),
            modified.map(|at| at.nanoseconds),
        );
        self.run(sql, params)?;
        Ok(self.sql().last_insert_rowid())
    }

    /// Makes the root's node, the first of all: no name leads to it that would.
    pub(crate) fn found_root(&self, at: UnixTime) -> Result<(), StoreError> {
        let ino = self.make_node(ROOT, None, at, Some(at))?;
        if ino.cast_unsigned() != ROOT_INO {
            return Err(StoreError::Damaged("the root is not the first node"));
        }
        self.run("UPDATE inodes SET ino = ? WHERE id = ?", (ino, ROOT)).map(drop)
    }

    /// Gives a node a new number, and returns the old and the new one.
    pub(crate) fn renew_node(&self, key: InodeId, at: UnixTime) -> Result<(u64, u64), StoreError> {
        let old = self.node_of(key)?.ok_or(StoreError::Damaged("no node to renew"))?;
        let key = self.make_key(key.0)?;
        let sql = "INSERT INTO nodes (key, inode, current, changed, changed_ns, modified,
                   modified_ns) SELECT key, inode, 1, ?, ?, modified, modified_ns FROM nodes
                   WHERE ino = ?";
        self.run(sql, (at.seconds, at.nanoseconds, old.ino.cast_signed()))?;
        let new = self.sql().last_insert_rowid();
        self.run("UPDATE nodes SET current = 0 WHERE ino = ?", [old.ino.cast_signed()])?;
        let table = match old.node {
            Node::Inode(_) => "UPDATE inodes SET ino = ? WHERE id = ?",
            Node::Copy { .. } => "UPDATE copies SET ino = ? WHERE key = ?",
        };
        self.run(table, (new, key))?;
        if new % 1024 == 0 {
            // The newest row stays, so its number is not given out again.
            let sql = "DELETE FROM nodes WHERE current = 0 AND ino <= (SELECT ino FROM nodes
                       WHERE current = 0 ORDER BY ino DESC LIMIT 1 OFFSET ?)";
            self.run(sql, [SUPERSEDED_MAX])?;
        }
        Ok((old.ino, new.cast_unsigned()))
    }

    pub(crate) fn set_accessed(
        &self,
        ino: u64,
        accessed: UnixTime,
        changed: UnixTime,
    ) -> Result<(), StoreError> {
        let sql = "UPDATE nodes SET accessed = ?, accessed_ns = ?, changed = ?, changed_ns = ?
                   WHERE ino = ?";
        let times = (accessed.seconds, accessed.nanoseconds, changed.seconds, changed.nanoseconds);
        self.run(sql, (times.0, times.1, times.2, times.3, ino.cast_signed())).map(drop)
    }

    pub(crate) fn set_changed(&self, ino: u64, changed: UnixTime) -> Result<(), StoreError> {
        let sql = "UPDATE nodes SET changed = ?2, changed_ns = ?3
                   WHERE ino = ?1 AND (changed <> ?2 OR changed_ns <> ?3)";
        let params = (ino.cast_signed(), changed.seconds, changed.nanoseconds);
        self.run(sql, params).map(drop)
    }

    pub(crate) fn touch_node(
        &self,
        key: InodeId,
        changed: UnixTime,
        modified: Option<UnixTime>,
    ) -> Result<(), StoreError> {
        let Some(key) = self.key(key.0)? else { return Ok(()) };
        let sql = "UPDATE nodes SET changed = ?2, changed_ns = ?3,
                   modified = coalesce(?4, modified), modified_ns = coalesce(?5, modified_ns)
                   WHERE ino = coalesce((SELECT ino FROM inodes WHERE id = ?1),
                                        (SELECT ino FROM copies WHERE key = ?1))";
        let params = (
            key,
            changed.seconds,
            changed.nanoseconds,
            modified.map(|at| at.seconds),
            modified.map(|at| at.nanoseconds),
        );
        self.run(sql, params).map(drop)
    }
}
