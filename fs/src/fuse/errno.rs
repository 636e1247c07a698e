//! The one mapping from the volume's errors to the kernel's numbers.

use crate::volume::{ChangeError, FileError, LookupError, StorageError, XattrError};
use fuser::Errno;
use kith_core::name::NameError;

impl From<StorageError> for Errno {
    fn from(error: StorageError) -> Errno {
        match error {
            StorageError::Full => Errno::ENOSPC,
            StorageError::Failed => Errno::EIO,
        }
    }
}

impl From<LookupError> for Errno {
    fn from(error: LookupError) -> Errno {
        match error {
            LookupError::NotFound => Errno::ENOENT,
            LookupError::Stale => Errno::ESTALE,
            LookupError::NotDirectory => Errno::ENOTDIR,
            LookupError::NotSymlink => Errno::EINVAL,
            LookupError::Storage(storage) => storage.into(),
        }
    }
}

impl From<ChangeError> for Errno {
    fn from(error: ChangeError) -> Errno {
        match error {
            ChangeError::NotFound => Errno::ENOENT,
            ChangeError::Stale => Errno::ESTALE,
            ChangeError::Exists => Errno::EEXIST,
            ChangeError::NotDirectory => Errno::ENOTDIR,
            ChangeError::IsDirectory => Errno::EISDIR,
            ChangeError::NotEmpty => Errno::ENOTEMPTY,
            ChangeError::IntoItself => Errno::EINVAL,
            ChangeError::NotPermitted => Errno::EPERM,
            ChangeError::TooLarge => Errno::EFBIG,
            ChangeError::Unreachable => Errno::ETIMEDOUT,
            ChangeError::Storage(storage) => storage.into(),
        }
    }
}

impl From<XattrError> for Errno {
    fn from(error: XattrError) -> Errno {
        match error {
            XattrError::Stale => Errno::ESTALE,
            XattrError::NoAttribute => Errno::ENODATA,
            XattrError::Exists => Errno::EEXIST,
            XattrError::TooLarge => Errno::ENOSPC,
            XattrError::Storage(storage) => storage.into(),
        }
    }
}

impl From<FileError> for Errno {
    fn from(error: FileError) -> Errno {
        match error {
            FileError::Stale => Errno::ESTALE,
            FileError::IsDirectory => Errno::EISDIR,
            FileError::NotFile | FileError::BadHandle => Errno::EBADF,
            // What NFS answers too when a server is away: programs say "timed out" and go on.
            FileError::Unreachable => Errno::ETIMEDOUT,
            FileError::TooLarge => Errno::EFBIG,
            FileError::NothingSought => Errno::ENXIO,
            FileError::Storage(storage) => storage.into(),
        }
    }
}

/// What a name that no directory can hold gets.
pub(super) fn name_errno(error: NameError) -> Errno {
    match error {
        NameError::Empty => Errno::ENOENT,
        NameError::TooLong => Errno::ENAMETOOLONG,
        NameError::Reserved => Errno::EINVAL,
    }
}
