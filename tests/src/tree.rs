//! What a directory holds, described so that two of them can be compared to the byte.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::io::Read as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

/// Every node below a directory by its relative path. Equal trees show the same names, kinds,
/// modes, link targets, sizes, bytes, extended attributes and hard links; times and owners
/// are not looked at.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Tree {
    /// The nodes, in the order of their paths.
    pub nodes: BTreeMap<PathBuf, Node>,
}

/// One node of a tree.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Node {
    /// What it is, and what it holds.
    pub kind: Kind,
    /// The lower 12 bits of its mode; 0 for a symlink, which has none.
    pub mode: u32,
    /// The names and values of its `user.` attributes.
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    /// For a file with several names in the tree: the first of them.
    pub same_as: Option<PathBuf>,
}

/// What a node is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Kind {
    /// A directory.
    Directory,
    /// A file: its size in bytes, and the hash of its bytes.
    File(u64, [u8; 32]),
    /// A symbolic link with its target.
    Symlink(PathBuf),
    /// A fifo.
    Fifo,
    /// A socket.
    Socket,
    /// A block or character device.
    Device,
}

impl Tree {
    /// Reads everything below a directory.
    ///
    /// # Errors
    /// The first failure, and what it was of. Something that vanishes meanwhile is one too.
    pub fn read(root: &Path) -> Result<Tree, String> {
        let mut tree = Tree::default();
        let mut first_names = BTreeMap::new();
        let mut waiting = vec![PathBuf::new()];
        while let Some(directory) = waiting.pop() {
            let at = |error: io::Error| format!("{}: {error}", root.join(&directory).display());
            for entry in std::fs::read_dir(root.join(&directory)).map_err(at)? {
                let path = directory.join(entry.map_err(at)?.file_name());
                let (node, inode) = Node::read(&root.join(&path))
                    .map_err(|error| format!("{}: {error}", root.join(&path).display()))?;
                if node.kind == Kind::Directory {
                    waiting.push(path.clone());
                } else if let Some(inode) = inode {
                    first_names.entry(inode).or_insert_with(Vec::new).push(path.clone());
                }
                tree.nodes.insert(path, node);
            }
        }
        for names in first_names.values_mut().filter(|names| names.len() > 1) {
            names.sort();
            for name in names.iter() {
                if let Some(node) = tree.nodes.get_mut(name) {
                    node.same_as = Some(names[0].clone());
                }
            }
        }
        Ok(tree)
    }

    /// How many files it has, names of one file counted one by one.
    pub fn files(&self) -> usize {
        self.nodes.values().filter(|node| matches!(node.kind, Kind::File(..))).count()
    }

    /// Up to `limit` differences from another tree, one a line; empty if they are equal.
    pub fn differences(&self, other: &Tree, limit: usize) -> Vec<String> {
        let paths = self.nodes.keys().chain(other.nodes.keys().filter(|path| !self.has(path)));
        paths
            .filter_map(|path| {
                let (one, two) = (self.nodes.get(path), other.nodes.get(path));
                (one != two).then(|| {
                    let show = |node: Option<&Node>| node.map_or("absent".into(), Node::to_string);
                    format!("{}: {} <> {}", path.display(), show(one), show(two))
                })
            })
            .take(limit)
            .collect()
    }

    /// Whether it has a node at a path.
    pub fn has(&self, path: &Path) -> bool {
        self.nodes.contains_key(path)
    }
}

impl Node {
    /// Reads one node, and the inode number if it is no directory and has several names.
    fn read(path: &Path) -> io::Result<(Node, Option<u64>)> {
        let metadata = std::fs::symlink_metadata(path)?;
        let kind = metadata.file_type();
        let kind = if kind.is_dir() {
            Kind::Directory
        } else if kind.is_symlink() {
            Kind::Symlink(std::fs::read_link(path)?)
        } else if kind.is_file() {
            let (size, hash) = hash(path)?;
            if size != metadata.len() {
                return Err(io::Error::other(format!(
                    "it has {size} bytes, but stat says {}",
                    metadata.len()
                )));
            }
            Kind::File(size, hash)
        } else if kind.is_fifo() {
            Kind::Fifo
        } else if kind.is_socket() {
            Kind::Socket
        } else {
            Kind::Device
        };
        let mode = if matches!(kind, Kind::Symlink(_)) { 0 } else { metadata.mode() & 0o7777 };
        let mut xattrs = BTreeMap::new();
        if matches!(kind, Kind::Directory | Kind::File(..)) {
            for name in xattr::list(path)?.filter(|name| name.as_bytes().starts_with(b"user.")) {
                let value = xattr::get(path, &name)?.unwrap_or_default();
                xattrs.insert(name.as_bytes().to_vec(), value);
            }
        }
        let shared = metadata.nlink() > 1 && kind != Kind::Directory;
        Ok((Node { kind, mode, xattrs, same_as: None }, shared.then(|| metadata.ino())))
    }
}

/// The size and the hash of a file's bytes, as reading them gives.
///
/// # Errors
/// What opening or reading it gives.
pub fn hash(path: &Path) -> io::Result<(u64, [u8; 32])> {
    let mut file = std::fs::File::open(path)?;
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; 256 * 1024];
    let mut size = 0;
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok((size, *hasher.finalize().as_bytes())),
            len => {
                hasher.update(&buffer[..len]);
                size += len as u64;
            }
        }
    }
}

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            Kind::File(size, hash) => {
                write!(f, "file of {size} bytes #{:02x}{:02x}", hash[0], hash[1])?;
            }
            Kind::Symlink(target) => write!(f, "symlink to {}", target.display())?,
            other => write!(f, "{other:?}")?,
        }
        write!(f, " mode {:o}", self.mode)?;
        for (name, value) in &self.xattrs {
            write!(f, " {}={}", name.escape_ascii(), value.escape_ascii())?;
        }
        match &self.same_as {
            Some(first) => write!(f, " linked with {}", first.display()),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scratch::Scratch;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    fn build(root: &Path) {
        std::fs::create_dir_all(root.join("a/b")).unwrap();
        std::fs::write(root.join("a/file"), "bytes").unwrap();
        std::fs::hard_link(root.join("a/file"), root.join("a/b/linked")).unwrap();
        symlink("file", root.join("a/link")).unwrap();
    }

    type Change = fn(&Path);

    #[test]
    fn every_difference_is_seen() {
        let changes: [(&str, Change); 7] = [
            ("bytes", |root| std::fs::write(root.join("a/file"), "Bytes").unwrap()),
            ("a name", |root| std::fs::rename(root.join("a/b"), root.join("a/c")).unwrap()),
            ("a mode", |root| {
                let executable = std::fs::Permissions::from_mode(0o755);
                std::fs::set_permissions(root.join("a/file"), executable).unwrap();
            }),
            ("a target", |root| {
                std::fs::remove_file(root.join("a/link")).unwrap();
                symlink("b", root.join("a/link")).unwrap();
            }),
            ("a hard link that became a copy", |root| {
                std::fs::remove_file(root.join("a/b/linked")).unwrap();
                std::fs::copy(root.join("a/file"), root.join("a/b/linked")).unwrap();
            }),
            ("a directory more", |root| std::fs::create_dir(root.join("d")).unwrap()),
            ("a file less", |root| std::fs::remove_file(root.join("a/b/linked")).unwrap()),
        ];
        for (what, change) in changes {
            let (one, other) = (Scratch::new(), Scratch::new());
            build(one.path());
            build(other.path());
            let before = Tree::read(one.path()).unwrap();
            assert_eq!(before, Tree::read(other.path()).unwrap());
            change(other.path());
            let after = Tree::read(other.path()).unwrap();
            assert_ne!(before, after, "{what}");
            assert!(!before.differences(&after, 9).is_empty(), "{what}");
        }
    }
}
