//! The FUSE layer: mounts a volume, decodes what the kernel asks, calls the volume, and replies.

mod acl;
mod attributes;
mod errno;
mod gate;
mod handover;
mod herald;
mod home;
mod layer;
mod listing;
mod lookout;
mod mount_error;
mod mount_table;
mod mounted;
mod outdated;
mod requests;
mod route;
mod sentry;
mod stage;
mod unsafe_calls;
mod waiting;
mod watched;
mod writers;

pub use handover::{HandOverError, KeptMount};
pub use listing::OpenListings;
pub use mount_error::MountError;
pub use mounted::{MountOptions, Mounted, mount, take_up};
pub use unsafe_calls::inherit;
pub use writers::OpenWriter;
