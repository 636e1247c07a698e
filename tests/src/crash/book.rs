//! What one writer did in its directory, and whether what is found after a crash agrees with it.

use super::leaf::{Leaf, Loss};
use super::writer::DRAFT;
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// One file of a book.
pub type Id = usize;

/// What a name may lead to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Target {
    /// Nothing.
    Nothing,
    /// Nothing, because what was there got another name.
    Moved,
    /// A directory.
    Directory,
    /// A file.
    File(Id),
}

/// What a name leads to last, after what else it may lead to as long as that has no version.
type Names = BTreeMap<String, Vec<Target>>;

/// Names that change at once.
#[derive(Clone, Debug)]
struct Change(Vec<(String, Target)>);

/// The record of one directory.
#[derive(Debug, Default)]
pub struct Book {
    /// Its files.
    pub files: Vec<Leaf>,
    /// The names that can't be lost.
    durable: Names,
    /// What was changed in them since.
    changes: Vec<Change>,
    /// How many of those were acknowledged.
    acknowledged: usize,
    /// How many calls promised that it is durable what they were asked for.
    pub syncs: u64,
    /// What was done in this round, for a failure.
    pub story: Vec<String>,
}

/// What is found under a name.
#[derive(Debug)]
enum Found {
    Directory,
    /// Its bytes, and its number, by which other names of it are known.
    File(Vec<u8>, u64),
}

const RECOVERED: &str = " (recovered ";

impl Book {
    /// A book of a directory with nothing but these directories in it.
    pub fn of_directories(names: &[&str]) -> Book {
        let durable = names.iter().map(|name| ((*name).to_owned(), vec![Target::Directory]));
        Book { durable: durable.collect(), ..Book::default() }
    }

    fn names_after(&self, changes: usize) -> Names {
        let mut names = self.durable.clone();
        for Change(parts) in &self.changes[..changes] {
            for (name, target) in parts {
                let stack = names.entry(name.clone()).or_insert_with(|| vec![Target::Nothing]);
                stack.push(*target);
            }
        }
        names
    }

    /// What the names lead to as programs see them now.
    pub fn now(&self) -> BTreeMap<String, Target> {
        let mut names = BTreeMap::new();
        for (name, stack) in self.names_after(self.changes.len()) {
            match stack.last() {
                None | Some(Target::Nothing | Target::Moved) => {}
                Some(target) => {
                    names.insert(name, *target);
                }
            }
        }
        names
    }

    /// Names are about to change, all at once.
    pub fn changing(&mut self, parts: &[(&str, Target)]) {
        let parts = parts.iter().map(|(name, target)| ((*name).to_owned(), *target));
        self.changes.push(Change(parts.collect()));
    }

    /// The last change was acknowledged.
    pub fn changed(&mut self, loss: Loss) {
        if loss == Loss::Process {
            self.acknowledged = self.changes.len();
        }
    }

    /// Something was made durable, and with it every change of names before.
    pub fn was_synced(&mut self) {
        self.syncs += 1;
        self.acknowledged = self.changes.len();
    }

    /// Compares what is found in `root` with what may be there, and goes on from that.
    ///
    /// # Errors
    /// What is wrong, in the words of the mildest explanation.
    pub fn check(&mut self, root: &Path) -> Result<(), String> {
        let mut found = BTreeMap::new();
        let mut beside = Vec::new();
        read(root, Path::new(""), &mut found, &mut beside)?;
        let copies: Vec<Vec<u8>> = beside.iter().map(|(_, bytes)| bytes.clone()).collect();
        let mut mildest: Option<Vec<String>> = None;
        for changes in self.acknowledged..=self.changes.len() {
            let wrong = self.disagreements(&self.names_after(changes), &found, &copies);
            if mildest.as_ref().is_none_or(|mildest| wrong.len() < mildest.len()) {
                mildest = Some(wrong);
            }
        }
        let wrong = mildest.expect("there is at least one explanation");
        if !wrong.is_empty() {
            let found: Vec<String> = found.iter().map(|(name, found)| seen(name, found)).collect();
            let copies: Vec<String> =
                beside.iter().map(|(path, bytes)| seen_bytes(&path.display(), bytes)).collect();
            return Err(format!("{}\nfound: {found:?}\nbeside: {copies:?}", wrong.join("\n")));
        }
        let drafts = found.keys().filter(|name| name.contains(DRAFT)).map(|name| root.join(name));
        for path in drafts.chain(beside.into_iter().map(|(path, _)| path)) {
            fs::remove_file(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        }
        found.retain(|name, _| !name.contains(DRAFT));
        *self = Book::default();
        let mut known = BTreeMap::new();
        for (name, found) in found {
            let target = match found {
                Found::Directory => Target::Directory,
                Found::File(bytes, number) => {
                    Target::File(*known.entry(number).or_insert_with(|| {
                        self.files.push(Leaf::found(bytes));
                        self.files.len() - 1
                    }))
                }
            };
            self.durable.insert(name, vec![target]);
        }
        Ok(())
    }

    fn disagreements(
        &self,
        names: &Names,
        found: &BTreeMap<String, Found>,
        copies: &[Vec<u8>],
    ) -> Vec<String> {
        let mut wrong = Vec::new();
        for name in found.keys().filter(|name| !names.contains_key(*name)) {
            wrong.push(format!("{name} came from nowhere"));
        }
        for (name, stack) in names {
            let there = found.get(name);
            if !self.is_latest_sure(stack, there) {
                let there = there.map_or("nothing".into(), |found| seen(name, found));
                let may: Vec<String> = stack.iter().map(|target| self.told(*target)).collect();
                wrong.push(format!("{name} is {there}; it may be, the latest last, {may:?}"));
            }
            if let Some(Target::File(id)) = stack.last() {
                let bytes = match there {
                    Some(Found::File(bytes, _)) => Some(&bytes[..]),
                    _ => None,
                };
                if self.files[*id].lacks(bytes, copies) {
                    let told = self.told(Target::File(*id));
                    wrong.push(format!("what was handed over of {name} is nowhere: {told}"));
                }
            }
        }
        wrong
    }

    fn agrees(&self, target: Target, found: Option<&Found>) -> bool {
        match (target, found) {
            (Target::Nothing | Target::Moved, None)
            | (Target::Directory, Some(Found::Directory)) => true,
            (Target::File(id), Some(Found::File(bytes, _))) => self.files[id].allows(bytes),
            _ => false,
        }
    }

    /// Whether nothing that can't have been lost was passed over.
    fn is_latest_sure(&self, stack: &[Target], found: Option<&Found>) -> bool {
        let unsure =
            |target: &Target| matches!(target, Target::File(id) if !self.files[*id].is_sure());
        for (place, target) in stack.iter().enumerate().rev() {
            if self.agrees(*target, found) {
                return true;
            }
            // All names are undone of a file that got no version, also those that it gave up.
            let before = place.checked_sub(1).and_then(|place| stack.get(place));
            let undone = *target == Target::Moved && before.is_some_and(unsure);
            // A file that was just closed goes if one takes its name that gets no version
            // (docs/filesystem.md).
            let replaced = stack.get(place + 1).is_some_and(unsure)
                && matches!(target, Target::File(id) if self.files[*id].is_unsynced());
            if !unsure(target) && !undone && !replaced {
                return false;
            }
        }
        false
    }

    fn told(&self, target: Target) -> String {
        match target {
            Target::File(id) => format!("file {id}: {}", self.files[id].told()),
            other => format!("{other:?}"),
        }
    }
}

fn seen(name: &str, found: &Found) -> String {
    match found {
        Found::Directory => format!("{name}/"),
        Found::File(bytes, _) => seen_bytes(&name, bytes),
    }
}

fn seen_bytes(name: &dyn std::fmt::Display, bytes: &[u8]) -> String {
    let zeros = bytes.iter().filter(|byte| **byte == 0).count();
    format!("{name}: {} bytes, {zeros} of them zeros", bytes.len())
}

fn read(
    root: &Path,
    below: &Path,
    found: &mut BTreeMap<String, Found>,
    beside: &mut Vec<(PathBuf, Vec<u8>)>,
) -> Result<(), String> {
    let at = root.join(below);
    let told = |error: std::io::Error, path: &Path| format!("{}: {error}", path.display());
    for entry in fs::read_dir(&at).map_err(|error| told(error, &at))? {
        let entry = entry.map_err(|error| told(error, &at))?;
        let (path, name) = (entry.path(), entry.file_name());
        let below = below.join(&name);
        let key = below.to_string_lossy().into_owned();
        if entry.file_type().map_err(|error| told(error, &path))?.is_dir() {
            read(root, &below, found, beside)?;
            found.insert(key, Found::Directory);
        } else {
            let bytes = fs::read(&path).map_err(|error| told(error, &path))?;
            if key.contains(RECOVERED) {
                beside.push((path, bytes));
            } else {
                let number = entry.metadata().map_err(|error| told(error, &path))?.ino();
                found.insert(key, Found::File(bytes, number));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scratch::Scratch;

    /// A book in which `a` is durable, then renamed to `b`, over which `c` goes without a version.
    fn book() -> Book {
        let mut book = Book { files: vec![Leaf::found(b"kept".to_vec())], ..Book::default() };
        book.durable.insert("a".into(), vec![Target::File(0)]);
        book.changing(&[("a", Target::Moved), ("b", Target::File(0))]);
        book.files.push(Leaf::made());
        book.changing(&[("b", Target::File(1))]);
        book
    }

    #[test]
    fn names_are_as_after_some_change_that_may_be_the_last() {
        for (synced, name, bytes, agrees) in [
            (false, "a", "kept", true),
            (false, "b", "kept", true),
            (false, "b", "torn", false),
            (false, "c", "kept", false),
            (true, "a", "kept", false),
            (true, "b", "kept", true),
        ] {
            let scratch = Scratch::new();
            fs::write(scratch.path().join(name), bytes).unwrap();
            let mut book = book();
            if synced {
                book.was_synced();
            }
            assert_eq!(book.check(scratch.path()).is_ok(), agrees, "{name} {bytes} {synced}");
        }
    }

    #[test]
    fn a_file_that_was_fsynced_is_passed_over_by_no_crash() {
        let scratch = Scratch::new();
        fs::write(scratch.path().join("b"), "kept").unwrap();
        let mut book = book();
        book.files[1].was_synced();
        book.was_synced();
        assert!(book.check(scratch.path()).is_err());
    }
}
