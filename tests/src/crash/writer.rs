//! A program that writes in a directory of its own, and keeps a book of what was acknowledged.

use super::book::{Book, Id, Target};
use super::leaf::Loss;
use crate::random::Random;
use rustix::fs::FallocateFlags;
use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

/// The directories below the writer's own, which are always there.
pub const BRANCHES: [&str; 2] = ["left", "right"];
/// How many names for files there are in each.
const NAMES: u64 = 6;
/// What the names of files begin with that are to take another's.
pub(super) const DRAFT: &str = "draft ";
/// How many files are open at once.
const OPEN_MAX: usize = 3;
/// Most writes have less bytes than this.
const SMALL_MAX: u64 = 6000;
/// A few have up to this many: more than the daemon keeps in memory.
const LARGE: (u64, u64) = (140_000, 400_000);

/// What a writer is told and asked by whoever ends the daemon.
pub trait Fate: Sync {
    /// Something was acknowledged.
    fn acknowledged(&self);
    /// Whether the end has begun: what returns from now on may not have been done.
    fn has_come(&self) -> bool;
}

/// A file that is open for writing.
#[derive(Debug)]
struct Session {
    id: Id,
    file: File,
}

/// A writer, in one round.
pub struct Writer<'a> {
    random: Random,
    root: PathBuf,
    book: &'a mut Book,
    sessions: Vec<Session>,
    fate: &'a dyn Fate,
    loss: Loss,
}

/// Why a writer stops: something failed.
type Step = io::Result<()>;

impl<'a> Writer<'a> {
    /// A writer in `root`, whose state is that of `book`.
    pub fn new(
        seed: u64,
        root: &Path,
        book: &'a mut Book,
        fate: &'a dyn Fate,
        loss: Loss,
    ) -> Writer<'a> {
        let (random, root) = (Random::new(seed), root.to_owned());
        Writer { random, root, book, sessions: Vec::new(), fate, loss }
    }

    /// Writes until something fails. Answers the files that are still open, and why it failed.
    pub fn go(mut self) -> (Vec<File>, io::Error) {
        loop {
            if let Err(error) = self.step() {
                self.book.story.push(format!("  which failed: {error}"));
                return (self.sessions.into_iter().map(|session| session.file).collect(), error);
            }
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    fn tell(&mut self, deed: String) {
        self.book.story.push(deed);
    }

    /// A call came back. If the end had begun by then, it counts as unanswered.
    fn acknowledge(&self) -> Step {
        if self.fate.has_come() {
            return Err(io::Error::other("the end came first"));
        }
        self.fate.acknowledged();
        Ok(())
    }

    fn name(&mut self) -> String {
        let branch = *self.random.pick(&BRANCHES);
        format!("{branch}/{}", self.random.below(NAMES))
    }

    /// A name of a file, or one that is free.
    fn name_of_file(&mut self) -> (String, Option<Id>) {
        let name = self.name();
        let id = match self.book.now().get(&name) {
            Some(Target::File(id)) => Some(*id),
            _ => None,
        };
        (name, id)
    }

    fn is_open(&self, id: Id) -> bool {
        self.sessions.iter().any(|session| session.id == id)
    }

    fn step(&mut self) -> Step {
        match self.random.below(100) {
            0..22 => self.save(),
            22..34 if self.sessions.len() < OPEN_MAX => self.open(),
            22..52 => self.write(),
            52..58 => self.sync(),
            58..66 => self.close(),
            66..70 => self.resize(),
            70..73 => self.zero(),
            73..80 => self.rename(),
            80..85 => self.remove(),
            85..88 => self.link(),
            88..91 => self.directory(),
            91..93 => self.truncate_by_name(),
            93..96 => self.read(),
            96..98 => self.sync_directory(),
            _ => self.sync_all(),
        }
    }

    fn bytes(&mut self) -> Vec<u8> {
        let len = match self.random.below(30) {
            0 => self.random.between(LARGE.0, LARGE.1),
            _ => self.random.between(1, SMALL_MAX),
        };
        self.random.bytes(usize::try_from(len).expect("it is small"))
    }

    /// Opens a file anew, or one that is there, with or without emptying it.
    fn open(&mut self) -> Step {
        let (name, id) = self.name_of_file();
        if id.is_some_and(|id| self.is_open(id)) {
            return Ok(());
        }
        let mut options = OpenOptions::new();
        options.write(true);
        let id = match id {
            Some(id) => {
                let cut = self.random.chance(40);
                self.tell(format!("open {name}{}", if cut { ", emptied" } else { "" }));
                options.truncate(cut);
                if cut {
                    self.book.files[id].resize(0);
                }
                id
            }
            None => {
                self.tell(format!("make {name}"));
                self.book.files.push(super::leaf::Leaf::made());
                let id = self.book.files.len() - 1;
                self.book.changing(&[(&name, Target::File(id))]);
                options.create_new(true);
                id
            }
        };
        let file = options.open(self.path(&name))?;
        self.book.changed(self.loss);
        self.sessions.push(Session { id, file });
        self.acknowledge()
    }

    fn any_session(&mut self) -> Option<usize> {
        if self.sessions.is_empty() { None } else { Some(self.random.index(self.sessions.len())) }
    }

    fn write(&mut self) -> Step {
        let Some(at) = self.any_session() else { return self.save() };
        self.write_to(at)
    }

    fn write_to(&mut self, at: usize) -> Step {
        let bytes = self.bytes();
        let id = self.sessions[at].id;
        let len = self.book.files[id].now.len() as u64;
        let offset = match self.random.below(10) {
            0..6 => len,
            6..9 => self.random.below(len + 1),
            _ => len + self.random.below(10_000),
        };
        self.tell(format!("write {} bytes at {offset} of file {id}", bytes.len()));
        let from = usize::try_from(offset).expect("it is small");
        self.book.files[id].write(from, &bytes);
        self.sessions[at].file.write_all_at(&bytes, offset)?;
        self.acknowledge()
    }

    fn sync(&mut self) -> Step {
        let Some(at) = self.any_session() else { return Ok(()) };
        self.sync_session(at)
    }

    fn sync_session(&mut self, at: usize) -> Step {
        let id = self.sessions[at].id;
        self.tell(format!("fsync file {id}"));
        self.book.files[id].syncing();
        if self.random.chance(50) {
            self.sessions[at].file.sync_all()?;
        } else {
            self.sessions[at].file.sync_data()?;
        }
        // It was answered, whatever happens at the same time.
        self.book.files[id].was_synced();
        self.book.was_synced();
        self.tell(format!("  done, file {id}"));
        self.acknowledge()
    }

    fn close(&mut self) -> Step {
        let Some(at) = self.any_session() else { return Ok(()) };
        self.close_session(at)
    }

    fn close_session(&mut self, at: usize) -> Step {
        let Session { id, file } = self.sessions.swap_remove(at);
        self.tell(format!("close file {id}"));
        self.book.files[id].closing();
        drop(file);
        self.acknowledge()?;
        self.book.files[id].was_closed(self.loss);
        Ok(())
    }

    /// As editors save: to a new file, which then takes the old one's name.
    fn save(&mut self) -> Step {
        let name = self.name();
        let old = self.book.now().get(&name).copied();
        if matches!(old, Some(Target::File(id)) if self.is_open(id))
            || self.sessions.len() >= OPEN_MAX
        {
            return Ok(());
        }
        let branch = name.split('/').next().expect("a name has a branch").to_owned();
        let draft = format!("{branch}/{DRAFT}{:x}", self.random.draw());
        self.tell(format!("make {draft}, to be {name}"));
        self.book.files.push(super::leaf::Leaf::made());
        let id = self.book.files.len() - 1;
        self.book.changing(&[(&draft, Target::File(id))]);
        let file = OpenOptions::new().write(true).create_new(true).open(self.path(&draft))?;
        self.book.changed(self.loss);
        self.sessions.push(Session { id, file });
        self.acknowledge()?;
        let at = self.sessions.len() - 1;
        for _ in 0..self.random.between(1, 3) {
            self.write_to(at)?;
        }
        let synced = self.random.chance(50);
        if synced {
            self.sync_session(at)?;
        }
        let closed_first = self.random.chance(80);
        if closed_first {
            self.close_session(at)?;
        }
        self.rename_to(&draft, &name)?;
        if synced && self.random.chance(60) {
            self.sync_branch(&branch)?;
        }
        if closed_first { Ok(()) } else { self.close_session(at) }
    }

    fn rename_to(&mut self, from: &str, to: &str) -> Step {
        let target = self.book.now()[from];
        self.tell(format!("rename {from} to {to}"));
        self.book.changing(&[(from, Target::Moved), (to, target)]);
        fs::rename(self.path(from), self.path(to))?;
        self.book.changed(self.loss);
        self.acknowledge()
    }

    fn rename(&mut self) -> Step {
        let ((from, source), (to, target)) = (self.name_of_file(), self.name_of_file());
        // Two names of one file stay what they are.
        if source.is_none() || source == target || from == to {
            return Ok(());
        }
        self.rename_to(&from, &to)
    }

    fn remove(&mut self) -> Step {
        let (name, Some(_)) = self.name_of_file() else { return Ok(()) };
        self.tell(format!("remove {name}"));
        self.book.changing(&[(&name, Target::Nothing)]);
        fs::remove_file(self.path(&name))?;
        self.book.changed(self.loss);
        self.acknowledge()
    }

    fn link(&mut self) -> Step {
        let (from, Some(id)) = self.name_of_file() else { return Ok(()) };
        let (to, None) = self.name_of_file() else { return Ok(()) };
        self.tell(format!("link {from} as {to}"));
        self.book.changing(&[(&to, Target::File(id))]);
        fs::hard_link(self.path(&from), self.path(&to))?;
        self.book.changed(self.loss);
        self.acknowledge()
    }

    fn directory(&mut self) -> Step {
        let name = format!("{}/directory {}", BRANCHES[0], self.random.below(2));
        let path = self.path(&name);
        if self.book.now().contains_key(&name) {
            self.tell(format!("remove {name}"));
            self.book.changing(&[(&name, Target::Nothing)]);
            fs::remove_dir(path)?;
        } else {
            self.tell(format!("make {name}"));
            self.book.changing(&[(&name, Target::Directory)]);
            fs::create_dir(path)?;
        }
        self.book.changed(self.loss);
        self.acknowledge()
    }

    fn resize(&mut self) -> Step {
        let Some(at) = self.any_session() else { return Ok(()) };
        let id = self.sessions[at].id;
        let len = self.random.below(self.book.files[id].now.len() as u64 + 2000);
        self.tell(format!("cut file {id} to {len}"));
        self.book.files[id].resize(usize::try_from(len).expect("it is small"));
        self.sessions[at].file.set_len(len)?;
        self.acknowledge()
    }

    /// `truncate`, which opens, cuts and closes in one.
    fn truncate_by_name(&mut self) -> Step {
        let (name, Some(id)) = self.name_of_file() else { return Ok(()) };
        let len = self.random.below(self.book.files[id].now.len() as u64 + 2000);
        let whole = !self.is_open(id);
        self.tell(format!("cut {name} to {len}"));
        let leaf = &mut self.book.files[id];
        leaf.resize(usize::try_from(len).expect("it is small"));
        if whole {
            leaf.closing();
        }
        let path = self.path(&name);
        let file = OpenOptions::new().write(true).open(path)?;
        file.set_len(len)?;
        drop(file);
        self.acknowledge()?;
        if whole {
            self.book.files[id].was_closed(self.loss);
        }
        Ok(())
    }

    fn zero(&mut self) -> Step {
        let Some(at) = self.any_session() else { return Ok(()) };
        let id = self.sessions[at].id;
        let len = self.book.files[id].now.len() as u64;
        if len < 2 {
            return Ok(());
        }
        let offset = self.random.below(len - 1);
        let count = self.random.between(1, len - offset);
        self.tell(format!("punch {count} at {offset} of file {id}"));
        let from = usize::try_from(offset).expect("it is small");
        self.book.files[id].zero(from, usize::try_from(count).expect("it is small"));
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        rustix::fs::fallocate(&self.sessions[at].file, flags, offset, count)?;
        self.acknowledge()
    }

    /// Reading changes nothing, also not what counts as saved.
    fn read(&mut self) -> Step {
        let (name, Some(id)) = self.name_of_file() else { return Ok(()) };
        self.tell(format!("read {name}"));
        let bytes = fs::read(self.path(&name))?;
        if bytes != self.book.files[id].now && !self.fate.has_come() {
            panic!("{name} reads as {} bytes that were not written", bytes.len());
        }
        self.acknowledge()
    }

    fn sync_directory(&mut self) -> Step {
        let branch = *self.random.pick(&BRANCHES);
        self.sync_branch(branch)
    }

    fn sync_branch(&mut self, branch: &str) -> Step {
        self.tell(format!("fsync {branch}"));
        File::open(self.path(branch))?.sync_all()?;
        self.book.was_synced();
        self.tell(format!("  done, {branch}"));
        self.acknowledge()
    }

    /// `syncfs`: all that was written is handed to the daemon.
    fn sync_all(&mut self) -> Step {
        self.tell("syncfs".into());
        rustix::fs::syncfs(File::open(&self.root)?)?;
        self.acknowledge()?;
        self.tell("  done".into());
        let open: BTreeSet<Id> = self.sessions.iter().map(|session| session.id).collect();
        for id in open {
            self.book.files[id].was_handed(self.loss);
        }
        Ok(())
    }
}
