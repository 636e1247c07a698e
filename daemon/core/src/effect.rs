//! What a transaction changed that somebody outside the core must hear of.

use crate::id::InodeId;
use crate::name::EntryName;

/// Something that changed for those who look at the tree. To be acted on once the transaction is
/// committed.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Effect {
    /// What a name leads to: it was added, removed, or leads to another node.
    Name {
        /// The directory, as it is shown.
        parent: InodeId,
        /// The name.
        name: EntryName,
    },
    /// A node's mode, owner, extended attributes, time of modification or number of names.
    Attributes {
        /// The node's [`key`](crate::index::Node::key).
        key: InodeId,
    },
    /// The version that a file shows.
    Content {
        /// The node's [`key`](crate::index::Node::key).
        key: InodeId,
        /// Whether this device published it.
        here: bool,
    },
    /// The device goes on under a new writer; all sessions must begin again.
    Reincarnated,
    /// There is a sign that another machine has this device's identity.
    Cloned,
}
