//! The file in which a device keeps its circle.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use kith_core::id::{DeviceId, ShareId};
use minicbor::{Decode, Encode};

use super::CircleShare;
use super::statement::{CircleId, Signed};
use crate::identity::{PublicKey, write_private};

/// The file begins with this and the number of its format; then comes the BLAKE3 hash of the rest.
const MAGIC: &[u8; 12] = b"kith circle ";
const FORMAT: u32 = 1;
const HEAD: usize = MAGIC.len() + 4 + 32;
/// The longest file that is read.
const FILE_MAX: u64 = 4 << 20;

/// What is kept of a circle.
#[derive(Clone, Debug)]
pub(super) struct Kept {
    pub(super) circle: CircleId,
    pub(super) share: CircleShare,
    pub(super) own: PublicKey,
    pub(super) accepted: Vec<PublicKey>,
    pub(super) statements: Vec<Signed>,
    pub(super) remembered: BTreeMap<DeviceId, Vec<SocketAddr>>,
}

#[derive(Encode, Decode)]
#[cbor(map)]
struct Record {
    #[cbor(n(0), with = "minicbor::bytes")]
    circle: [u8; 16],
    #[cbor(n(1), with = "minicbor::bytes")]
    share: [u8; 16],
    #[n(2)]
    share_name: String,
    #[cbor(n(3), with = "minicbor::bytes")]
    own: [u8; 32],
    #[n(4)]
    accepted: Vec<Key>,
    #[n(5)]
    statements: Vec<Signed>,
    #[n(6)]
    remembered: Vec<Remembered>,
}

#[derive(Encode, Decode)]
#[cbor(transparent)]
struct Key(#[cbor(n(0), with = "minicbor::bytes")] [u8; 32]);

#[derive(Encode, Decode)]
#[cbor(map)]
struct Remembered {
    #[cbor(n(0), with = "minicbor::bytes")]
    device: [u8; 32],
    #[n(1)]
    addresses: Vec<String>,
}

/// Reads the file at `path`; `None` if there is none.
pub(super) fn read(path: &Path) -> Result<Option<Kept>, FileError> {
    let unreadable = |cause| FileError::Unreadable { path: path.to_owned(), cause };
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(cause) => return Err(unreadable(cause)),
    };
    let mut bytes = Vec::new();
    file.take(FILE_MAX).read_to_end(&mut bytes).map_err(unreadable)?;
    let corrupt = || FileError::Corrupt { path: path.to_owned() };
    let (head, record) = bytes.split_at_checked(HEAD).ok_or_else(corrupt)?;
    let (magic, rest) = head.split_at(MAGIC.len());
    let (format, sum) = rest.split_at(4);
    if magic != MAGIC {
        return Err(corrupt());
    }
    let format = u32::from_le_bytes(format.try_into().expect("it was split at four bytes"));
    if format > FORMAT {
        return Err(FileError::Newer { path: path.to_owned() });
    }
    if blake3::hash(record).as_bytes() != sum {
        return Err(corrupt());
    }
    let record: Record = minicbor::decode(record).map_err(|_| corrupt())?;
    let remembered = record.remembered.into_iter().map(|remembered| {
        let addresses = remembered.addresses.iter().filter_map(|text| text.parse().ok());
        (DeviceId(remembered.device), addresses.collect())
    });
    Ok(Some(Kept {
        circle: CircleId(record.circle),
        share: CircleShare { id: ShareId(record.share), name: record.share_name },
        own: PublicKey(record.own),
        accepted: record.accepted.into_iter().map(|key| PublicKey(key.0)).collect(),
        statements: record.statements,
        remembered: remembered.collect(),
    }))
}

/// Replaces the file at `path`. It is on disk when this returns.
pub(super) fn write(path: &Path, kept: &Kept) -> Result<(), FileError> {
    let record = Record {
        circle: kept.circle.0,
        share: kept.share.id.0,
        share_name: kept.share.name.clone(),
        own: kept.own.0,
        accepted: kept.accepted.iter().map(|key| Key(key.0)).collect(),
        statements: kept.statements.clone(),
        remembered: kept
            .remembered
            .iter()
            .map(|(device, addresses)| Remembered {
                device: device.0,
                addresses: addresses.iter().map(ToString::to_string).collect(),
            })
            .collect(),
    };
    let record = minicbor::to_vec(&record).expect("a vector takes every byte");
    let mut bytes = Vec::with_capacity(HEAD + record.len());
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(&FORMAT.to_le_bytes());
    bytes.extend_from_slice(blake3::hash(&record).as_bytes());
    bytes.extend_from_slice(&record);
    write_private(path, &bytes)
        .map_err(|cause| FileError::Unwritable { path: path.to_owned(), cause })
}

/// Why a circle's file is of no use.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The system didn't let it be read.
    #[error("can't read the list of devices {}: {cause}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        cause: io::Error,
    },
    /// The system didn't let it be written.
    #[error("can't write the list of devices {}: {cause}", path.display())]
    Unwritable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        cause: io::Error,
    },
    /// It isn't what was written.
    #[error(
        "the list of devices {} is damaged and was left as it is; put it back from a backup, or \
         move it away and join the circle again",
        path.display()
    )]
    Corrupt {
        /// The file.
        path: PathBuf,
    },
    /// It was written by a newer version.
    #[error("the list of devices {} is from a newer Kith; update this one", path.display())]
    Newer {
        /// The file.
        path: PathBuf,
    },
    /// It belongs to another key than this device's.
    #[error(
        "the list of devices {} belongs to another identity; put back the key it was made \
         with, or move both away to begin as a new device",
        path.display()
    )]
    OtherIdentity {
        /// The file.
        path: PathBuf,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    fn kept() -> Kept {
        Kept {
            circle: CircleId([1; 16]),
            share: CircleShare { id: ShareId([2; 16]), name: "Kith".into() },
            own: PublicKey([3; 32]),
            accepted: vec![PublicKey([3; 32])],
            statements: Vec::new(),
            remembered: BTreeMap::from([(DeviceId([4; 32]), vec!["[::1]:9".parse().unwrap()])]),
        }
    }

    #[test]
    fn what_was_written_is_read_and_private() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("circle");
        assert!(read(&path).unwrap().is_none());
        write(&path, &kept()).unwrap();
        let again = read(&path).unwrap().unwrap();
        assert_eq!(format!("{again:?}"), format!("{:?}", kept()));
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_damaged_file_is_refused_and_left() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("circle");
        write(&path, &kept()).unwrap();
        let good = fs::read(&path).unwrap();
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 0x10;
            fs::write(&path, &bad).unwrap();
            let error = read(&path).unwrap_err();
            let format = (MAGIC.len()..MAGIC.len() + 4).contains(&at);
            assert!(matches!(error, FileError::Corrupt { .. }) != format, "{at}: {error}");
            fs::write(&path, &good[..at]).unwrap();
            assert!(matches!(read(&path), Err(FileError::Corrupt { .. })));
        }
    }
}
