//! A disk in memory that loses at a power cut what was not flushed: writes by sectors, and names.

use crate::random::Random;
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};

/// The root directory's number.
pub const ROOT: u64 = 1;
/// What a disk writes whole or not at all.
const SECTOR_BYTES: usize = 512;
/// The unit of holes.
pub const BLOCK_BYTES: usize = 4096;

/// A node of the disk.
#[derive(Clone, Debug)]
pub struct Node {
    /// Its type and permissions, as `stat` has them.
    pub mode: u32,
    /// The owning user and group.
    pub owner: (u32, u32),
    /// Its time of modification: seconds and nanoseconds.
    pub modified: (i64, u32),
    /// The names in it, for a directory.
    pub names: BTreeMap<OsString, u64>,
    /// Its bytes, for a file.
    pub bytes: Vec<u8>,
    /// Names and bytes as the disk has them for certain.
    flushed_names: BTreeMap<OsString, u64>,
    flushed: Vec<u8>,
    /// What was done with the bytes since.
    since: Vec<Change>,
}

#[derive(Clone, Debug)]
enum Change {
    Write(usize, Vec<u8>),
    Resize(usize),
}

/// A change of one or two names, which happens whole or not at all.
#[derive(Clone, Debug)]
struct Naming(Vec<(u64, OsString, Option<u64>)>);

/// The disk.
#[derive(Debug, Default)]
pub struct Forgetful {
    nodes: BTreeMap<u64, Node>,
    last: u64,
    /// Changes of names that are not flushed, in their order.
    namings: Vec<Naming>,
}

impl Node {
    fn new(mode: u32, owner: (u32, u32), modified: (i64, u32)) -> Node {
        Node {
            mode,
            owner,
            modified,
            names: BTreeMap::new(),
            bytes: Vec::new(),
            flushed_names: BTreeMap::new(),
            flushed: Vec::new(),
            since: Vec::new(),
        }
    }

    /// Whether it is a directory.
    pub fn is_directory(&self) -> bool {
        self.mode & 0o170_000 == 0o040_000
    }
}

fn apply(bytes: &mut Vec<u8>, change: &Change) {
    match change {
        Change::Write(offset, written) => {
            let end = offset + written.len();
            if bytes.len() < end {
                bytes.resize(end, 0);
            }
            bytes[*offset..end].copy_from_slice(written);
        }
        Change::Resize(len) => bytes.resize(*len, 0),
    }
}

impl Forgetful {
    /// A disk with an empty root directory.
    pub fn new(owner: (u32, u32)) -> Forgetful {
        let mut disk = Forgetful { last: ROOT, ..Forgetful::default() };
        disk.nodes.insert(ROOT, Node::new(0o040_700, owner, (0, 0)));
        disk
    }

    /// A node. Those that lost their names stay until the next cut.
    pub fn node(&self, number: u64) -> Option<&Node> {
        self.nodes.get(&number)
    }

    /// A node, to change its attributes. They are flushed at once.
    pub fn node_mut(&mut self, number: u64) -> Option<&mut Node> {
        self.nodes.get_mut(&number)
    }

    /// What a name leads to.
    pub fn find(&self, parent: u64, name: &OsStr) -> Option<u64> {
        self.nodes.get(&parent)?.names.get(name).copied()
    }

    fn rename_all(&mut self, naming: Naming) {
        for (parent, name, target) in &naming.0 {
            if let Some(parent) = self.nodes.get_mut(parent) {
                match target {
                    Some(target) => parent.names.insert(name.clone(), *target),
                    None => parent.names.remove(name),
                };
            }
        }
        self.namings.push(naming);
    }

    /// Makes a node; its number.
    pub fn make(
        &mut self,
        parent: u64,
        name: &OsStr,
        mode: u32,
        owner: (u32, u32),
        now: (i64, u32),
    ) -> u64 {
        self.last += 1;
        self.nodes.insert(self.last, Node::new(mode, owner, now));
        self.rename_all(Naming(vec![(parent, name.to_owned(), Some(self.last))]));
        self.last
    }

    /// Takes a name away.
    pub fn remove(&mut self, parent: u64, name: &OsStr) {
        self.rename_all(Naming(vec![(parent, name.to_owned(), None)]));
    }

    /// Moves a name, over whatever is there.
    pub fn rename(&mut self, from: (u64, &OsStr), to: (u64, &OsStr)) {
        let Some(node) = self.find(from.0, from.1) else { return };
        self.rename_all(Naming(vec![
            (from.0, from.1.to_owned(), None),
            (to.0, to.1.to_owned(), Some(node)),
        ]));
    }

    fn change(&mut self, number: u64, change: Change) {
        if let Some(node) = self.nodes.get_mut(&number) {
            apply(&mut node.bytes, &change);
            node.since.push(change);
        }
    }

    /// Writes to a file.
    pub fn write(&mut self, number: u64, offset: usize, bytes: &[u8]) {
        self.change(number, Change::Write(offset, bytes.to_vec()));
    }

    /// Sets a file's size.
    pub fn resize(&mut self, number: u64, len: usize) {
        self.change(number, Change::Resize(len));
    }

    /// Flushes a file's bytes, or a directory's names.
    pub fn flush(&mut self, number: u64) {
        let Some(node) = self.nodes.get_mut(&number) else { return };
        for change in std::mem::take(&mut node.since) {
            apply(&mut node.flushed, &change);
        }
        let namings = std::mem::take(&mut self.namings);
        let (flushed, left) = namings
            .into_iter()
            .partition(|naming: &Naming| naming.0.iter().any(|(parent, ..)| *parent == number));
        self.namings = left;
        for naming in flushed {
            self.name_for_certain(&naming);
        }
    }

    fn name_for_certain(&mut self, naming: &Naming) {
        for (parent, name, target) in &naming.0 {
            if let Some(parent) = self.nodes.get_mut(parent) {
                match target {
                    Some(target) => parent.flushed_names.insert(name.clone(), *target),
                    None => parent.flushed_names.remove(name),
                };
            }
        }
    }

    /// Flushes all.
    pub fn flush_all(&mut self) {
        let numbers: Vec<u64> = self.nodes.keys().copied().collect();
        numbers.into_iter().for_each(|number| self.flush(number));
    }

    /// The power is cut: of what was not flushed some remains, by sectors and by names.
    pub fn cut(&mut self, random: &mut Random) {
        let kept = *random.pick(&[0, 10, 50, 90, 100]);
        let namings = std::mem::take(&mut self.namings);
        // A journal loses the end; other disks lose any of it.
        let journal = random.chance(50);
        let first = random.below(namings.len() as u64 + 1);
        for (place, naming) in (0..).zip(&namings) {
            if if journal { place < first } else { random.chance(kept) } {
                self.name_for_certain(naming);
            }
        }
        for node in self.nodes.values_mut() {
            for change in std::mem::take(&mut node.since) {
                match change {
                    Change::Resize(_) => {
                        if random.chance(kept) {
                            apply(&mut node.flushed, &change);
                        }
                    }
                    Change::Write(offset, bytes) => {
                        for (offset, sector) in sectors(offset, &bytes) {
                            if random.chance(kept) {
                                apply(&mut node.flushed, &Change::Write(offset, sector.to_vec()));
                            }
                        }
                    }
                }
            }
            node.bytes.clone_from(&node.flushed);
            node.names.clone_from(&node.flushed_names);
        }
        self.forget_nameless();
    }

    fn forget_nameless(&mut self) {
        let (mut reached, mut waiting) = (BTreeMap::new(), vec![ROOT]);
        while let Some(number) = waiting.pop() {
            let Some(node) = self.nodes.remove(&number) else { continue };
            waiting.extend(node.names.values());
            reached.insert(number, node);
        }
        // A name may have been kept of what was never there; none is kept of what is gone.
        let numbers: Vec<u64> = reached.keys().copied().collect();
        for node in reached.values_mut() {
            node.names.retain(|_, number| numbers.binary_search(number).is_ok());
            node.flushed_names.clone_from(&node.names);
        }
        self.nodes = reached;
    }

    /// Calls `change` with each file of the root's tree whose name begins so.
    pub fn each_called(&mut self, prefix: &str, mut change: impl FnMut(&mut Vec<u8>)) {
        let named: Vec<u64> = self
            .nodes
            .values()
            .flat_map(|node| &node.names)
            .filter(|(name, _)| name.to_string_lossy().starts_with(prefix))
            .map(|(_, number)| *number)
            .collect();
        for number in named {
            if let Some(node) = self.nodes.get_mut(&number) {
                change(&mut node.bytes);
                node.flushed.clone_from(&node.bytes);
            }
        }
    }
}

/// The parts of a write that a disk writes whole.
fn sectors(offset: usize, bytes: &[u8]) -> impl Iterator<Item = (usize, &[u8])> {
    let first = SECTOR_BYTES - offset % SECTOR_BYTES;
    let (head, tail) = bytes.split_at(first.min(bytes.len()));
    std::iter::once(head).chain(tail.chunks(SECTOR_BYTES)).scan(offset, |at, sector| {
        let begin = *at;
        *at += sector.len();
        Some((begin, sector))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disk() -> (Forgetful, u64) {
        let mut disk = Forgetful::new((0, 0));
        let file = disk.make(ROOT, OsStr::new("file"), 0o100_600, (0, 0), (0, 0));
        disk.write(file, 100, &[1; 2000]);
        (disk, file)
    }

    #[test]
    fn what_is_flushed_stays() {
        for seed in 0..50 {
            let (mut disk, file) = disk();
            disk.flush(file);
            disk.flush(ROOT);
            disk.write(file, 0, &[2; 4096]);
            disk.remove(ROOT, OsStr::new("file"));
            disk.flush(ROOT);
            disk.rename((ROOT, OsStr::new("none")), (ROOT, OsStr::new("other")));
            let other = disk.make(ROOT, OsStr::new("file"), 0o100_600, (0, 0), (0, 0));
            disk.write(other, 0, b"other");
            disk.flush(other);
            disk.flush(ROOT);
            disk.cut(&mut Random::new(seed));
            assert_eq!(disk.find(ROOT, OsStr::new("file")), Some(other));
            assert_eq!(disk.node(other).unwrap().bytes, b"other");
            assert!(disk.node(file).is_none(), "nothing leads to it");
        }
    }

    #[test]
    fn what_is_not_flushed_may_go_by_sectors_and_the_name_alone() {
        let (mut torn, mut nameless, mut whole, mut empty) = (false, false, false, false);
        for seed in 0..500 {
            let (mut disk, file) = disk();
            disk.cut(&mut Random::new(seed));
            let Some(node) = disk.node(file) else {
                nameless = true;
                continue;
            };
            match node.bytes.iter().filter(|byte| **byte == 1).count() {
                0 => empty = true,
                2000 => whole = true,
                _ => torn = true,
            }
        }
        assert!(torn && nameless && whole && empty);
    }
}
