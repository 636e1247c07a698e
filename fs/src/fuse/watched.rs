//! Who watches what: the marks of `inotify` and `fanotify`, as `/proc` shows them.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// The numbers of the nodes of one filesystem that programs watch, as far as this process may know:
/// those of its own user's programs, and all of them for root.
pub(super) fn nodes((major, minor): (u32, u32)) -> BTreeSet<u64> {
    let device = u64::from(major) << 20 | u64::from(minor);
    let mut nodes = BTreeSet::new();
    // Processes come and go meanwhile, and many are nobody else's business.
    let Ok(processes) = fs::read_dir("/proc") else { return nodes };
    for process in processes.flatten() {
        let is_process = process.file_name().as_bytes().first().is_some_and(u8::is_ascii_digit);
        if !is_process {
            continue;
        }
        let Ok(descriptors) = fs::read_dir(process.path().join("fd")) else { continue };
        for descriptor in descriptors.flatten() {
            let is_watch = fs::read_link(descriptor.path()).is_ok_and(|to| watches(&to));
            if !is_watch {
                continue;
            }
            let about = process.path().join("fdinfo").join(descriptor.file_name());
            if let Ok(text) = fs::read_to_string(about) {
                nodes.extend(marks(&text, device));
            }
        }
    }
    nodes
}

fn watches(link: &Path) -> bool {
    let kind = link.as_os_str().as_bytes().strip_prefix(b"anon_inode:");
    kind.is_some_and(|kind| matches!(kind, b"inotify" | b"[inotify]" | b"[fanotify]"))
}

/// The nodes of the marks on a device. The kernel writes all numbers in hexadecimal digits.
fn marks(text: &str, device: u64) -> impl Iterator<Item = u64> {
    text.lines().filter_map(move |line| {
        let field = |name: &str| {
            let value = line.split(' ').find_map(|field| field.strip_prefix(name))?;
            u64::from_str_radix(value, 16).ok()
        };
        (field("sdev:")? == device).then(|| field("ino:")).flatten()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_read_as_the_kernel_writes_them() {
        let text = "pos:\t0\nflags:\t02000000\nmnt_id:\t15\nino:\t1057\n\
            inotify wd:2 ino:9e7e sdev:80001 mask:800afce ignored_mask:0 fhandle-bytes:8\n\
            inotify wd:1 ino:8000000000000001 sdev:3a mask:2 ignored_mask:0\n\
            fanotify ino:11 sdev:3a mflags:0 mask:3b ignored_mask:40000000\n\
            fanotify mnt_id:12 mflags:0 mask:3b\n";
        assert_eq!(marks(text, 0x3a).collect::<Vec<_>>(), [1 << 63 | 1, 0x11]);
        assert_eq!(marks(text, 8 << 16 | 1).collect::<Vec<_>>(), [0x9e7e]);
    }

    #[test]
    fn a_watch_of_this_process_is_found() {
        use rustix::fs::inotify;
        use std::os::unix::fs::MetadataExt;
        let directory = tempfile::tempdir().unwrap();
        let metadata = fs::metadata(directory.path()).unwrap();
        let device = (rustix::fs::major(metadata.dev()), rustix::fs::minor(metadata.dev()));
        assert!(!nodes(device).contains(&metadata.ino()));
        let watch = inotify::init(inotify::CreateFlags::CLOEXEC).unwrap();
        inotify::add_watch(&watch, directory.path(), inotify::WatchFlags::CREATE).unwrap();
        assert!(nodes(device).contains(&metadata.ino()));
    }
}
