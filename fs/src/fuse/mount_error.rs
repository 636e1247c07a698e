//! Why a folder can't be mounted, in one line each, with the next thing to try.

use std::io;
use std::path::PathBuf;

/// Why a volume can't be mounted.
#[derive(Debug, thiserror::Error)]
pub enum MountError {
    /// The point could not be looked at or made.
    #[error("the folder {} can't be used: {cause}", point.display())]
    Point {
        /// Where.
        point: PathBuf,
        /// Why.
        #[source]
        cause: io::Error,
    },
    /// The point is no directory.
    #[error("{} is not a folder", point.display())]
    NotDirectory {
        /// Where.
        point: PathBuf,
    },
    /// The point holds files, which the mount would hide.
    #[error("the folder {} is not empty", point.display())]
    NotEmpty {
        /// Where.
        point: PathBuf,
    },
    /// A living Kith is mounted there.
    #[error("another Kith is mounted at {}", point.display())]
    InUse {
        /// Where.
        point: PathBuf,
    },
    /// Something else is mounted there.
    #[error("something else ({kind}) is mounted at {}", point.display())]
    Foreign {
        /// Where.
        point: PathBuf,
        /// The filesystem's type.
        kind: String,
    },
    /// The mount that a dead Kith left there can't be taken away.
    #[error("the mount that an earlier Kith left at {} can't be removed: {reason}", point.display())]
    Stale {
        /// Where.
        point: PathBuf,
        /// Why.
        reason: String,
    },
    /// The kernel has no FUSE, or hides it.
    #[error("this system has no /dev/fuse")]
    NoDevice,
    /// Only root may open the device.
    #[error("this user may not open /dev/fuse")]
    DeviceClosed,
    /// `fusermount3`, which mounts for ordinary users, isn't installed.
    #[error("fusermount3 is not installed, and only root can mount without it")]
    NoHelper,
    /// The system forbids it.
    #[error("mounting at {} is not permitted: {reason}", point.display())]
    NotPermitted {
        /// Where.
        point: PathBuf,
        /// What the system said.
        reason: String,
    },
    /// The kernel lacks what Kith needs of it.
    #[error("this kernel's FUSE can't be used: {0}")]
    Kernel(#[source] io::Error),
    /// Anything else.
    #[error("mounting failed: {0}")]
    Failed(#[source] io::Error),
}

impl MountError {
    /// The next thing to try, as a sentence.
    #[must_use]
    pub fn hint(&self) -> &'static str {
        match self {
            MountError::Point { .. } => "Check its permissions, or choose another with --mount.",
            MountError::NotDirectory { .. } => "Move it away, or choose another with --mount.",
            MountError::NotEmpty { .. } => {
                "Move its files away and copy them in once it is mounted, or choose another with \
                 --mount."
            }
            MountError::InUse { .. } => "Stop that one first, or choose another with --mount.",
            MountError::Foreign { .. } => "Unmount it first, or choose another with --mount.",
            MountError::Stale { .. } => "Leave the folder, then try `fusermount3 -u -z` on it.",
            MountError::NoDevice => {
                "Load it with `modprobe fuse`; in a container, pass /dev/fuse in."
            }
            MountError::DeviceClosed => {
                "Give it the mode that every distribution does: `sudo chmod 666 /dev/fuse`."
            }
            MountError::NoHelper => "Install the package `fuse3`.",
            MountError::NotPermitted { .. } => {
                "Check that the folder is yours, and that /etc/fuse.conf allows what was asked."
            }
            MountError::Kernel(_) => "Linux 5.4 or newer is needed.",
            MountError::Failed(_) => "The log says more; `kith doctor` looks for the usual causes.",
        }
    }
}
