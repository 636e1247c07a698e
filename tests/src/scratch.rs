//! Directories for tests, and what test processes that were killed left behind.

use rustix::mount::{UnmountFlags, unmount};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Once;

/// Every directory and namespace of a test process is called so, followed by its process id.
const PREFIX: &str = "kith-test-";

/// A directory that goes when it is dropped, with every filesystem mounted in it.
#[derive(Debug)]
pub struct Scratch {
    directory: Option<tempfile::TempDir>,
}

impl Scratch {
    /// A new directory with a short path, which belongs to this process.
    pub fn new() -> Scratch {
        clean_once();
        let directory = tempfile::Builder::new()
            .prefix(&format!("{PREFIX}{}-", std::process::id()))
            .tempdir()
            .expect("a temporary directory can be made");
        Scratch { directory: Some(directory) }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.directory.as_ref().expect("it is there until it is dropped").path()
    }
}

impl Default for Scratch {
    fn default() -> Scratch {
        Scratch::new()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let Some(directory) = self.directory.take() else { return };
        unmount_below(directory.path());
        if std::env::var_os("KITH_TESTS_KEEP").is_some() {
            let kept = directory.keep();
            crate::notice::say(&format!("kept {}", kept.display()));
        }
    }
}

/// The prefix of the names of this process's namespaces.
pub(crate) fn namespace_prefix() -> String {
    clean_once();
    format!("{PREFIX}{}-", std::process::id())
}

/// Whether something is mounted at exactly this path.
pub fn is_mounted(path: &Path) -> bool {
    mount_points().iter().any(|point| point == path)
}

/// Takes away every filesystem mounted at or below a directory, in use or not.
pub fn unmount_below(directory: &Path) {
    let mut points = mount_points();
    points.retain(|point| point.starts_with(directory));
    points.sort();
    for point in points.iter().rev() {
        if unmount(point, UnmountFlags::DETACH).is_err() {
            let _unprivileged = Command::new("fusermount3").arg("-uz").arg(point).output();
        }
    }
}

fn mount_points() -> Vec<PathBuf> {
    let table = std::fs::read("/proc/self/mountinfo").expect("the mount table can be read");
    table
        .split(|byte| *byte == b'\n')
        .filter_map(|line| line.split(|byte| *byte == b' ').nth(4))
        .map(|field| PathBuf::from(std::ffi::OsString::from_vec(unescaped(field))))
        .collect()
}

/// The kernel writes blanks and the like in paths as a backslash and three octal digits.
fn unescaped(field: &[u8]) -> Vec<u8> {
    let mut path = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, tail)) = rest.split_first() {
        match tail.get(..3) {
            Some(digits)
                if *first == b'\\' && digits.iter().all(|digit| (b'0'..=b'7').contains(digit)) =>
            {
                let value = digits.iter().fold(0_u32, |sum, d| sum * 8 + u32::from(d - b'0'));
                path.push(u8::try_from(value).unwrap_or(b'?'));
                rest = &tail[3..];
            }
            _ => {
                path.push(*first);
                rest = tail;
            }
        }
    }
    path
}

/// The process that a directory or namespace belongs to, if its name is one of ours.
fn owner(name: &str) -> Option<u32> {
    name.strip_prefix(PREFIX)?.split('-').next()?.parse().ok()
}

fn is_left_behind(name: &str) -> bool {
    owner(name).is_some_and(|process| !Path::new(&format!("/proc/{process}")).exists())
}

fn names(directory: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(directory) else { return Vec::new() };
    entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect()
}

/// Removes what dead test processes left: daemons in their namespaces, mounts, directories.
fn clean_once() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        for namespace in names(Path::new("/run/netns")) {
            if is_left_behind(&namespace) {
                remove_namespace(&namespace);
            }
        }
        let scratches = std::env::temp_dir();
        for name in names(&scratches) {
            if is_left_behind(&name) {
                unmount_below(&scratches.join(&name));
                let _gone_meanwhile = std::fs::remove_dir_all(scratches.join(&name));
            }
        }
    });
}

/// Ends every process in a namespace of ours, and the namespace.
pub(crate) fn remove_namespace(name: &str) {
    assert!(name.starts_with(PREFIX), "{name} is not a namespace of the tests");
    if let Ok(listed) = Command::new("ip").args(["netns", "pids", name]).output() {
        let processes = String::from_utf8_lossy(&listed.stdout);
        for process in processes.split_whitespace().filter_map(|word| word.parse().ok()) {
            if let Some(process) = rustix::process::Pid::from_raw(process) {
                let _ended_meanwhile =
                    rustix::process::kill_process(process, rustix::process::Signal::KILL);
            }
        }
    }
    let _gone_meanwhile = Command::new("ip").args(["netns", "delete", name]).output();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_dead_test_processes_are_left_behind() {
        let own = format!("{PREFIX}{}-1-h1", std::process::id());
        assert_eq!(owner(&own), Some(std::process::id()));
        assert!(!is_left_behind(&own));
        assert!(is_left_behind(&format!("{PREFIX}4294967295-1-h1")));
        for name in ["lab-h1", "kith-test-", "kith-test-x-1", "kith-tests-12"] {
            assert!(!is_left_behind(name), "{name}");
        }
    }

    #[test]
    fn paths_of_the_mount_table_are_read_as_they_are() {
        for (field, path) in [
            (&b"/a/b"[..], &b"/a/b"[..]),
            (b"/a\\040b", b"/a b"),
            (b"/a\\134b\\011", b"/a\\b\t"),
            (b"/odd\\", b"/odd\\"),
        ] {
            assert_eq!(unescaped(field), path);
        }
        assert!(is_mounted(Path::new("/")));
        assert!(!is_mounted(Path::new("/no such place")));
    }

    #[test]
    fn a_scratch_goes_with_what_is_in_it() {
        let scratch = Scratch::new();
        let path = scratch.path().to_owned();
        std::fs::write(path.join("file"), "content").unwrap();
        drop(scratch);
        assert!(std::env::var_os("KITH_TESTS_KEEP").is_some() || !path.exists());
    }
}
