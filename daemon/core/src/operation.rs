//! What a person or a program does to the tree on this device.

mod edit;
mod merge;
mod publish;
mod rename;
mod settle;

pub use publish::is_removed_here;

use crate::clock::{Hlc, Stamp, WallMs};
use crate::content::Content;
use crate::effect::Effect;
use crate::id::{DeviceId, Dot, InodeId, ShareId, Tag, WriterId};
use crate::index::{Index, InodeState, Node, ReplicaState};
use crate::name::EntryName;
use crate::register::{Attributes, Author, Inode, Kind, Mark, Owner, Parted, UnixTime, Unread};
use crate::transaction::Transaction;
use crate::vector::VersionVector;
use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;

/// Time and randomness, as the caller has them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Context {
    /// The time.
    pub now: WallMs,
    /// Random bits for the transaction.
    pub tag: Tag,
}

/// What a rename does with a name that is taken.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub enum RenameMode {
    /// Takes it over.
    Replace,
    /// Fails with [`OperationError::Exists`].
    NoReplace,
    /// The two names change places.
    Exchange,
}

/// The name or the value of an extended attribute.
pub type Bytes = Box<[u8]>;

/// A change of attributes. What is `None` or not listed stays.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct AttributeChange {
    /// The lower 12 bits of the mode.
    pub mode: Option<u16>,
    /// The owning user.
    pub user: Option<Owner>,
    /// The owning group.
    pub group: Option<Owner>,
    /// The time of modification, of what has no versions to carry one. Of a directory it is as of
    /// now: that it is said again is a change too.
    pub mtime: Option<UnixTime>,
    /// Extended attributes to set, or with `None` to remove.
    pub set_xattrs: Vec<(Bytes, Option<Bytes>)>,
}

/// One change to the tree. `parent`s are directories as look-ups answer them, and names are those
/// of the view.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Operation {
    /// Makes a node. A file is withheld from others until it is published.
    Create {
        /// The directory.
        parent: InodeId,
        /// A name that isn't taken.
        name: EntryName,
        /// What it is to be.
        kind: Kind,
        /// The lower 12 bits of its mode.
        mode: u16,
        /// Its user.
        user: Owner,
        /// Its group.
        group: Owner,
    },
    /// Gives a node that is no directory one more name.
    Link {
        /// The node.
        node: Node,
        /// The directory.
        parent: InodeId,
        /// A name that isn't taken.
        name: EntryName,
    },
    /// Removes a name.
    Remove {
        /// The directory.
        parent: InodeId,
        /// The name.
        name: EntryName,
        /// Whether an empty directory is meant, or anything but a directory.
        directory: bool,
    },
    /// Moves a name.
    Rename {
        /// The directory and the name as they are.
        from: (InodeId, EntryName),
        /// The directory and the name as they are to be.
        to: (InodeId, EntryName),
        /// What happens to a name that is taken.
        mode: RenameMode,
    },
    /// Changes attributes.
    SetAttributes {
        /// The node.
        node: Node,
        /// What is to be changed.
        change: AttributeChange,
    },
    /// Gives a file a new version. The first one ends its being withheld, and releases what
    /// waited for it.
    Publish {
        /// The file.
        inode: InodeId,
        /// All versions that went into this one.
        context: VersionVector,
        /// The versions it was directly made from.
        parents: Vec<Dot>,
        /// The bytes.
        content: Content,
        /// The time of modification.
        mtime: UnixTime,
        /// Why it is published.
        mark: Mark,
    },
    /// Makes one version of several that stand beside one another: those of one file, or of files at
    /// one name, of which the one with the latest version stays. The others are removed there.
    /// Fails with [`OperationError::Outdated`] unless the inputs are exactly what stands.
    Merge {
        /// All versions of the files, with their files; at least two.
        inputs: Vec<(InodeId, Dot)>,
        /// The bytes, which must be made of those of the inputs alone.
        content: Content,
        /// The time of modification.
        mtime: UnixTime,
    },
    /// Makes what a repair shows at a node's names ordinary. A copy becomes a file of its own.
    Settle {
        /// The node.
        node: Node,
    },
    /// Drops a file that lost its last name before it was ever published. Anything else stays.
    Abandon {
        /// The file.
        inode: InodeId,
    },
    /// Undoes a file that was never published, because its bytes were lost in a crash: its names
    /// go, and what they had taken over stands again. Anything else stays.
    Withdraw {
        /// The file.
        inode: InodeId,
    },
}

/// What an operation did.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Applied {
    /// The node that was made, linked, moved or changed, as it is now.
    pub node: Option<Node>,
    /// What changed for those who look.
    pub effects: Vec<Effect>,
}

/// Why an operation can't be done. Nothing was changed, or the transaction is to be rolled back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OperationError<E> {
    /// The name, the node or the directory isn't there.
    #[error("no such name")]
    NotFound,
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
    /// Not with a node of this kind.
    #[error("not with a node of this kind")]
    NotPermitted,
    /// What was to be merged is no longer what stands.
    #[error("not what stands now")]
    Outdated,
    /// The storage failed.
    #[error(transparent)]
    Storage(#[from] E),
}

/// Founds a share in an empty index: this device's state, and the root directory, which is the same
/// in every share.
///
/// # Errors
/// The storage's.
pub fn found<I: Index>(
    index: &mut I,
    share: ShareId,
    device: DeviceId,
    writer: WriterId,
    author: Author,
    now: WallMs,
    tag: Tag,
) -> Result<(), I::Error> {
    let state = ReplicaState {
        share,
        device,
        writer,
        number: 1,
        hlc: Hlc::at(now),
        knowledge: VersionVector::new(),
        author,
    };
    let attributes = Attributes {
        stamp: Stamp { hlc: Hlc(0), writer: WriterId(0) },
        dot: InodeId::ROOT.0,
        mode: 0o755,
        user: Owner::Person,
        group: Owner::Person,
        mtime: None,
        xattrs: BTreeMap::new(),
        unread: Unread::new(),
    };
    let inode = Inode {
        id: InodeId::ROOT,
        kind: Kind::Directory,
        attributes,
        versions: BTreeMap::new(),
        parted: Parted::default(),
        unread: Unread::new(),
    };
    index.put_state(&state)?;
    index.put_inode(&InodeState { inode, logged: state.number })?;
    index.put_tag(state.number, tag)
}

/// Does one operation, in the transaction that `index` is.
///
/// # Errors
/// An [`OperationError`] that says which rule the operation breaks.
pub fn apply<I: Index>(
    index: &mut I,
    context: Context,
    operation: Operation,
) -> Result<Applied, OperationError<I::Error>> {
    let mut transaction = Transaction::begin(index, context)?;
    let operation = transaction.take_up_operands(operation)?;
    let node = match operation {
        Operation::Create { parent, name, kind, mode, user, group } => {
            Some(transaction.create((parent, name), kind, mode, user, group)?)
        }
        Operation::Link { node, parent, name } => Some(transaction.link(node, (parent, name))?),
        Operation::Remove { parent, name, directory } => {
            transaction.remove((parent, name), directory)?;
            None
        }
        Operation::Rename { from, to, mode } => Some(transaction.rename(from, to, mode)?),
        Operation::SetAttributes { node, change } => {
            Some(transaction.set_attributes(node, change)?)
        }
        Operation::Publish { inode, context, parents, content, mtime, mark } => {
            let made = publish::Made { context, parents, content, mtime, mark };
            Some(transaction.publish(inode, made)?)
        }
        Operation::Merge { inputs, content, mtime } => {
            Some(transaction.merge_versions(&inputs, content, mtime)?)
        }
        Operation::Settle { node } => Some(transaction.settle_node(node)?),
        Operation::Abandon { inode } => {
            transaction.abandon(inode)?;
            None
        }
        Operation::Withdraw { inode } => {
            transaction.withdraw(inode)?;
            None
        }
    };
    Ok(Applied { node, effects: transaction.finish()? })
}
