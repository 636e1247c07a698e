//! The port that the filesystem stands on: one share, as this device holds it.

use kith_core::clock::WallMs;
use kith_core::name::EntryName;
use kith_core::register::{Kind, Owner, UnixTime};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// A node's number in the mount: persisted, and never used again for another node.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct Ino(pub u64);

impl Ino {
    /// The root directory.
    pub const ROOT: Ino = Ino(1);
}

/// One opening of a file.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct Handle(pub u64);

/// A node, as `stat` shows it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NodeInfo {
    /// Its number.
    pub ino: Ino,
    /// What it is.
    pub kind: Kind,
    /// The lower 12 bits of its mode.
    pub mode: u16,
    /// The owning user.
    pub user: Owner,
    /// The owning group.
    pub group: Owner,
    /// How many names it has; for directories 2 plus the directories in it, or 0 if it was removed.
    pub links: u32,
    /// Its size in bytes.
    pub size_bytes: u64,
    /// The bytes that its data takes, holes left out.
    pub stored_bytes: u64,
    /// When its bytes, or a directory's names, last changed.
    pub modified: UnixTime,
    /// When anything about it last changed here.
    pub changed: UnixTime,
    /// When it was last read, where somebody said so.
    pub accessed: Option<UnixTime>,
    /// Whether it has access control lists, that is, attributes of the name space `system.`.
    pub has_lists: bool,
}

/// One name of a directory.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Listed {
    /// The name.
    pub name: EntryName,
    /// What it leads to.
    pub info: NodeInfo,
}

/// The name or the value of an extended attribute.
pub type Bytes = Box<[u8]>;

/// What a new node is to be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NewNode {
    /// What it is.
    pub kind: Kind,
    /// The lower 12 bits of its mode, with what the umask takes away taken away.
    pub mode: u16,
    /// The owning user.
    pub user: Owner,
    /// The owning group.
    pub group: Owner,
    /// The extended attributes that it begins with.
    pub xattrs: Vec<(Bytes, Bytes)>,
}

/// What `chmod`, `chown`, `utimens` and `truncate` change at once. What is `None` stays.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct NodeChange {
    /// The lower 12 bits of the mode.
    pub mode: Option<u16>,
    /// The owning user.
    pub user: Option<Owner>,
    /// The owning group.
    pub group: Option<Owner>,
    /// The size, for files.
    pub size_bytes: Option<u64>,
    /// The time of modification.
    pub modified: Option<UnixTime>,
    /// The time of the last access.
    pub accessed: Option<UnixTime>,
    /// When the change is made, or the last one before it was, where the kernel says so. It shows
    /// programs its own time as long as it remembers the node, and theirs must not differ after that.
    pub changed: Option<UnixTime>,
    /// Extended attributes to set, or with `None` to remove.
    pub xattrs: Vec<(Bytes, Option<Bytes>)>,
}

/// How a file is opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Access {
    /// Its bytes can be read.
    pub read: bool,
    /// Its bytes can be changed.
    pub write: bool,
    /// It is emptied first; needs `write`.
    pub truncate: bool,
}

/// What a rename does with a name that is taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Renaming {
    /// Takes it over.
    Replace,
    /// Fails with [`ChangeError::Exists`].
    NoReplace,
    /// The two names change places.
    Exchange,
}

/// How an extended attribute is set.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum XattrMode {
    /// Whether it is there or not.
    Either,
    /// Only if it isn't there.
    Create,
    /// Only if it is there.
    Replace,
}

/// What `fallocate` does to a range.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Allocation {
    /// Makes room; the file grows to the range's end if `grow`.
    Reserve {
        /// Whether the size may change.
        grow: bool,
    },
    /// Turns the range into a hole; the size stays.
    Punch,
    /// Turns the range into zeros; the file grows to the range's end if `grow`.
    Zero {
        /// Whether the size may change.
        grow: bool,
    },
}

/// What `lseek` looks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Sought {
    /// The next byte of data.
    Data,
    /// The next hole, or the end.
    Hole,
}

/// The room on the disk under the share, in bytes, and in nodes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Room {
    /// In all.
    pub total_bytes: u64,
    /// Free, the reserve left out.
    pub free_bytes: u64,
    /// Nodes that could still be made.
    pub free_nodes: u64,
    /// Nodes in all.
    pub total_nodes: u64,
}

/// The storage under the share failed. It has been logged with its cause.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum StorageError {
    /// The disk is full, or only its reserve is left.
    #[error("no room is left on the disk")]
    Full,
    /// The disk or the index failed.
    #[error("the disk or the index failed")]
    Failed,
}

/// Why a node can't be found or shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LookupError {
    /// There is no such name.
    #[error("there is no such name")]
    NotFound,
    /// The node is no longer what its name leads to; look the name up again.
    #[error("the node was superseded")]
    Stale,
    /// It isn't a directory.
    #[error("not a directory")]
    NotDirectory,
    /// It isn't a symbolic link.
    #[error("not a symbolic link")]
    NotSymlink,
    /// The storage failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// Why names or attributes can't be changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ChangeError {
    /// There is no such name.
    #[error("there is no such name")]
    NotFound,
    /// The node is no longer what its name leads to; look the name up again.
    #[error("the node was superseded")]
    Stale,
    /// The name is taken.
    #[error("the name is taken")]
    Exists,
    /// It isn't a directory.
    #[error("not a directory")]
    NotDirectory,
    /// It is a directory.
    #[error("is a directory")]
    IsDirectory,
    /// The directory isn't empty.
    #[error("the directory is not empty")]
    NotEmpty,
    /// A directory can't be moved into itself.
    #[error("a directory can't be moved into itself")]
    IntoItself,
    /// Not with a node of this kind: a link to a directory, for example.
    #[error("not with a node of this kind")]
    NotPermitted,
    /// The size is beyond what a file can have.
    #[error("the file would be too large")]
    TooLarge,
    /// Bytes that the change needs are on no device that can be reached.
    #[error("the bytes are on no device that can be reached")]
    Unreachable,
    /// The storage failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// Why extended attributes can't be read or changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum XattrError {
    /// The node is no longer what its name leads to.
    #[error("the node was superseded")]
    Stale,
    /// There is no such attribute.
    #[error("there is no such attribute")]
    NoAttribute,
    /// The attribute is there already.
    #[error("the attribute is there already")]
    Exists,
    /// The value, or all attributes of the node together, would be too large.
    #[error("the attributes would be too large")]
    TooLarge,
    /// The storage failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// Why a file can't be opened, read or written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FileError {
    /// The node is no longer what its name leads to; look the name up again.
    #[error("the node was superseded")]
    Stale,
    /// It is a directory.
    #[error("is a directory")]
    IsDirectory,
    /// It isn't a file, or the handle wasn't opened so.
    #[error("not a file, or not opened for this")]
    NotFile,
    /// The handle is unknown.
    #[error("no such handle")]
    BadHandle,
    /// The bytes are on no device that can be reached, or didn't arrive in time.
    #[error("the bytes did not arrive in time from any device")]
    Unreachable,
    /// The offset or the size is beyond what a file can have.
    #[error("the file would be too large")]
    TooLarge,
    /// There is nothing of the kind sought after the offset.
    #[error("nothing of the kind is after the offset")]
    NothingSought,
    /// The storage failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// What the kernel must forget because another device changed it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Outdated {
    /// What a name leads to, or whether it is there, and with it the directory's listing.
    Name {
        /// The directory.
        parent: Ino,
        /// The name.
        name: EntryName,
        /// Whether it leads to the same file as before, with other bytes.
        replaced: bool,
    },
    /// A node's attributes (and a directory's listing), but not its pages.
    Attributes(Ino),
}

/// One share, as this device holds it. All calls may come from several threads at once; none
/// waits for the network but those that need bytes that are not here, and those not beyond
/// the volume's own deadline.
///
/// Permissions are the kernel's business; a volume doesn't check them.
pub trait Volume: Send + Sync + 'static {
    /// The node that a name leads to.
    fn lookup(&self, parent: Ino, name: &EntryName) -> Result<NodeInfo, LookupError>;
    /// The parent of a directory; the root's is itself.
    fn parent(&self, directory: Ino) -> Result<Ino, LookupError>;
    /// The directory that a directory is in, and its name there. `None` for the root, and for one
    /// that was removed.
    fn place(&self, directory: Ino) -> Result<Option<(Ino, EntryName)>, LookupError>;
    /// A node by its number. An open file that lost its last name, or was superseded, is still shown.
    fn info(&self, node: Ino) -> Result<NodeInfo, LookupError>;
    /// Up to `limit` names of a directory after `after`, in the names' byte order.
    fn list(
        &self,
        directory: Ino,
        after: Option<&EntryName>,
        limit: usize,
    ) -> Result<Vec<Listed>, LookupError>;
    /// The target of a symbolic link.
    fn read_link(&self, node: Ino) -> Result<Box<[u8]>, LookupError>;

    /// Makes a node that is not a file, or an empty file that is at once complete.
    fn make(&self, parent: Ino, name: &EntryName, new: NewNode) -> Result<NodeInfo, ChangeError>;
    /// Makes a file and opens it.
    fn create(
        &self,
        parent: Ino,
        name: &EntryName,
        new: NewNode,
        access: Access,
    ) -> Result<(NodeInfo, Handle), ChangeError>;
    /// Gives a node one more name.
    fn link(&self, node: Ino, parent: Ino, name: &EntryName) -> Result<NodeInfo, ChangeError>;
    /// Removes a name of anything but a directory.
    fn unlink(&self, parent: Ino, name: &EntryName) -> Result<(), ChangeError>;
    /// Removes an empty directory.
    fn remove_directory(&self, parent: Ino, name: &EntryName) -> Result<(), ChangeError>;
    /// Moves a name.
    fn rename(
        &self,
        from: (Ino, &EntryName),
        to: (Ino, &EntryName),
        renaming: Renaming,
    ) -> Result<(), ChangeError>;
    /// Changes attributes, and a file's size.
    fn change(&self, node: Ino, change: NodeChange) -> Result<NodeInfo, ChangeError>;

    /// The value of an extended attribute.
    fn xattr(&self, node: Ino, name: &[u8]) -> Result<Box<[u8]>, XattrError>;
    /// The names of all extended attributes, in order.
    fn xattrs(&self, node: Ino) -> Result<Vec<Box<[u8]>>, XattrError>;
    /// Sets an extended attribute.
    fn set_xattr(
        &self,
        node: Ino,
        name: &[u8],
        value: &[u8],
        mode: XattrMode,
    ) -> Result<(), XattrError>;
    /// Removes an extended attribute.
    fn remove_xattr(&self, node: Ino, name: &[u8]) -> Result<(), XattrError>;

    /// Opens a file.
    fn open(&self, node: Ino, access: Access) -> Result<Handle, FileError>;
    /// As [`Volume::read`], from what is on this device alone: `None` if bytes of the range are
    /// absent. The caller then calls `read` from a thread that may wait.
    fn read_here(
        &self,
        handle: Handle,
        offset: u64,
        len: usize,
    ) -> Result<Option<Vec<u8>>, FileError>;
    /// Up to `len` bytes from `offset`; fewer only at the file's end. May wait for the network.
    fn read(&self, handle: Handle, offset: u64, len: usize) -> Result<Vec<u8>, FileError>;
    /// Writes all of `bytes` at `offset`. Doesn't set the time of modification.
    fn write(&self, handle: Handle, offset: u64, bytes: &[u8]) -> Result<(), FileError>;
    /// Makes everything written to the file durable on this device, and publishes it.
    fn fsync(&self, handle: Handle) -> Result<(), FileError>;
    /// Makes every change of names and attributes so far durable on this device.
    fn sync_names(&self) -> Result<(), StorageError>;
    /// A program is closing a descriptor of an opening, and waits for the answer. Others may have
    /// one of the same opening; if not, [`Volume::release`] follows.
    fn closing(&self, handle: Handle);
    /// Ends an opening. The last writable one publishes the file's new version.
    fn release(&self, handle: Handle);
    /// Reserves, punches or zeroes a range of a file.
    fn allocate(
        &self,
        handle: Handle,
        offset: u64,
        len: u64,
        allocation: Allocation,
    ) -> Result<(), FileError>;
    /// The offset of the next data or hole at or after `offset`.
    fn seek(&self, handle: Handle, offset: u64, sought: Sought) -> Result<u64, FileError>;
    /// Copies a range, by description where it can; answers how many bytes.
    fn copy_range(
        &self,
        from: (Handle, u64),
        to: (Handle, u64),
        len: u64,
    ) -> Result<u64, FileError>;

    /// The room on the disk.
    fn room(&self) -> Result<Room, StorageError>;
    /// Waits up to `patience` for something that the kernel must forget. Called by one thread that
    /// holds no lock; answers an empty list when nothing came, `None` when the volume is closing.
    fn outdated(&self, patience: Duration) -> Option<Vec<Outdated>>;
    /// The present time, which the kernel's own requests for "now" are answered with.
    fn now(&self) -> (WallMs, UnixTime);
}
