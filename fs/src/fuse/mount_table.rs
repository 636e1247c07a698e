//! The kernel's table of mounts, as far as a mount point's own are concerned.

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// The type that a Kith's mount has in the table.
pub(super) const KIND: &str = "fuse.kith";

/// One mount.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Mount {
    /// Where.
    pub(super) point: PathBuf,
    /// Its filesystem's device numbers.
    pub(super) device: (u32, u32),
    /// Its filesystem's type.
    pub(super) kind: String,
}

/// The mount that one sees at `point`, the last of several.
pub(super) fn topmost(point: &Path) -> io::Result<Option<Mount>> {
    let table = std::fs::read("/proc/self/mountinfo")?;
    Ok(parse(&table).filter(|mount| mount.point == point).last())
}

/// Lines that can't be read are left out: new kernels may add what is unknown here.
fn parse(table: &[u8]) -> impl Iterator<Item = Mount> {
    table.split(|byte| *byte == b'\n').filter_map(|line| {
        let mut fields = line.split(|byte| *byte == b' ');
        let device = std::str::from_utf8(fields.nth(2)?).ok()?;
        let (major, minor) = device.split_once(':')?;
        let point = unescape(fields.nth(1)?);
        let kind = fields.skip_while(|field| *field != b"-").nth(1)?;
        Some(Mount {
            point: PathBuf::from(OsString::from_vec(point)),
            device: (major.parse().ok()?, minor.parse().ok()?),
            kind: String::from_utf8_lossy(kind).into_owned(),
        })
    })
}

/// Blanks, line ends and backslashes stand in the table as a backslash and three octal digits.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, after)) = rest.split_first() {
        let octal = match after {
            [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', ..] if *first == b'\\' => {
                Some((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'))
            }
            _ => None,
        };
        bytes.push(octal.unwrap_or(*first));
        rest = if octal.is_some() { &after[3..] } else { after };
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_of_mounts_is_read_with_odd_names() {
        let table = b"22 1 0:21 / /proc rw,nosuid shared:5 - proc proc rw\n\
            99 1 0:52 / /home/a\\040b\\134c rw,nosuid,nodev - fuse.kith kith rw,user_id=0\n\
            garbage\n\
            100 99 8:1 /x /home/a\\040b\\134c rw master:1 propagate_from:2 - ext4 /dev/sda1 rw\n";
        let mounts: Vec<Mount> = parse(table).collect();
        let of = |at: usize| (mounts[at].point.to_str().unwrap(), mounts[at].kind.as_str());
        assert_eq!(mounts.len(), 3);
        assert_eq!(of(1), ("/home/a b\\c", KIND));
        assert_eq!(mounts[1].device, (0, 52));
        assert_eq!(of(2), ("/home/a b\\c", "ext4"));
    }
}
