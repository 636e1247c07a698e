//! What a person does on one device, by system calls on its mount: random operations in a small
//! tree with few names, so that they meet.

use super::hold::{Held, Witness};
use super::ledger::{Act, Ledger, Saved};
use crate::random::Random;
use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;
use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

const NAMES: [&str; 6] = ["a", "b", "c.txt", "d", "e.txt", "f"];

/// A person of one history on one device, for one operation.
#[derive(Debug)]
pub struct Person<'a> {
    /// Where the share is mounted.
    pub mount: &'a Path,
    /// What the names of this history begin with at the share's top.
    pub prefix: &'a str,
    /// The history's number in its play.
    pub history: usize,
    /// The device's number.
    pub device: usize,
    /// What the device is called.
    pub name: &'a str,
    /// Whether no news can come in from other devices.
    pub alone: bool,
    /// How many things were saved in the play so far.
    pub saves: &'a mut u64,
    /// Whose bytes were out of reach, by device: nobody tries again and again.
    pub absent: &'a mut BTreeSet<(usize, PathBuf)>,
    /// What all people hold open.
    pub held: &'a mut Vec<Held>,
    /// What was saved and ended.
    pub ledger: &'a mut Ledger,
    /// What was done, for whoever reads of a failure.
    pub story: &'a mut Vec<(usize, String)>,
}

/// What can't be, however the devices stand to one another.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Wrong(pub String);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Directory,
    File,
    Link,
}

#[derive(Clone, Debug)]
struct Found {
    path: PathBuf,
    kind: Kind,
}

type Done<T = ()> = Result<T, io::Error>;

impl Person<'_> {
    /// Does something; what is drawn from `chance` and from what is there.
    ///
    /// # Errors
    /// If the mount answers what it never may.
    pub fn operate(&mut self, chance: u64) -> Result<(), Wrong> {
        let random = &mut Random::new(chance);
        let done = self.try_to(random);
        let told = match &done {
            Ok(what) => what.clone(),
            Err((what, error)) => format!("{what}: {error}"),
        };
        self.tell(&told);
        match done {
            Err((what, error)) if !self.may_be(&error) => {
                Err(Wrong(format!("{} may not answer {error} to: {what}", self.name)))
            }
            _ => Ok(()),
        }
    }

    /// Notes an act, in the story too.
    fn note(&mut self, act: Act) {
        let mut told = act.effect();
        if act.unclear {
            told += ", and perhaps others";
        }
        self.tell(&format!("    {told}"));
        self.ledger.note(act);
    }

    fn tell(&mut self, what: &str) {
        let how = if self.alone { " (alone)" } else { "" };
        self.story.push((self.history, format!("{}{how}: {what}", self.name)));
    }

    /// Whether a healthy mount may answer so.
    fn may_be(&self, error: &io::Error) -> bool {
        const ALWAYS: [Errno; 6] = [
            Errno::EXIST,
            Errno::NOTEMPTY,
            Errno::ISDIR,
            Errno::NOTDIR,
            Errno::INVAL,
            // Bytes that are nowhere in reach.
            Errno::TIMEDOUT,
        ];
        // What was listed may be gone by the time it is used.
        const WITH_OTHERS: [Errno; 2] = [Errno::NOENT, Errno::STALE];
        Errno::from_io_error(error).is_some_and(|errno| {
            ALWAYS.contains(&errno) || (!self.alone && WITH_OTHERS.contains(&errno))
        })
    }

    fn try_to(&mut self, random: &mut Random) -> Result<String, (String, io::Error)> {
        let begin = |error| (String::from("look around"), error);
        let home = PathBuf::from(format!("{}home", self.prefix));
        match fs::create_dir(self.mount.join(&home)) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(begin(error)),
            _ => {}
        }
        let found = self.look(&home).map_err(begin)?;
        let mut directories = vec![home];
        directories
            .extend(of(&found, |kind| kind == Kind::Directory).into_iter().map(|it| it.path));
        let parent = random.pick(&directories).clone();
        let fresh = parent.join(format!("{}{}", self.prefix, random.pick(&NAMES)));
        let file = pick(random, &of(&found, |kind| kind == Kind::File));
        let any = pick(random, &found);
        let other = pick(random, &found);
        let directory = pick(random, &of(&found, |kind| kind == Kind::Directory));
        let leaf = pick(random, &of(&found, |kind| kind != Kind::Directory));
        let what = random.below(44);
        let tried: Vec<PathBuf> =
            [&file, &any, &other, &leaf].into_iter().flatten().map(|it| it.path.clone()).collect();
        let (told, done) = match (what, file, any, other, directory, leaf) {
            (0..=5, ..) => (format!("save {}", show(&fresh)), self.create(&fresh, random)),
            (6..=9, Some(file), ..) => self.edit(&file.path, random),
            (10 | 11, Some(file), ..) => {
                (format!("overwrite {}", show(&file.path)), self.overwrite(&file.path, random))
            }
            (12..=15, Some(file), ..) => self.save_over(&file.path, random),
            (16..=18, ..) => {
                (format!("mkdir {}", show(&fresh)), fs::create_dir(self.mount.join(&fresh)))
            }
            (19..=22, _, Some(any), other, ..) => {
                let to = match other {
                    Some(other) if random.chance(50) => other.path,
                    _ => fresh,
                };
                let told = format!("rename {} to {}", show(&any.path), show(&to));
                (told, self.rename(&any.path, &to))
            }
            (23..=26, _, _, _, Some(directory), _) => {
                let told = format!("rename {} to {}", show(&directory.path), show(&fresh));
                (told, self.rename(&directory.path, &fresh))
            }
            (27 | 28, _, Some(any), Some(other), ..) => {
                let told = format!("exchange {} and {}", show(&any.path), show(&other.path));
                (told, self.renamed(&any.path, &other.path, RenameFlags::EXCHANGE))
            }
            (29, _, _, _, _, Some(leaf)) => {
                let told = format!("link {} as {}", show(&leaf.path), show(&fresh));
                (told, fs::hard_link(self.mount.join(&leaf.path), self.mount.join(&fresh)))
            }
            (30, ..) => (format!("symlink {}", show(&fresh)), self.symlink(&fresh)),
            (31..=33, _, _, _, _, Some(leaf)) => {
                (format!("unlink {}", show(&leaf.path)), self.unlink(&leaf.path))
            }
            (34 | 35, _, _, _, Some(directory), _) if random.chance(70) => {
                (format!("rm -r {}", show(&directory.path)), self.remove_all(&directory.path))
            }
            (34 | 35, _, _, _, Some(directory), _) => {
                let removed = fs::remove_dir(self.mount.join(&directory.path));
                (format!("rmdir {}", show(&directory.path)), removed)
            }
            (36 | 37, _, Some(any), ..) if any.kind != Kind::Link => {
                self.set_attributes(&any.path, random)
            }
            (38, Some(file), ..) => {
                let told = format!("set the time of {}", show(&file.path));
                (told, self.set_time(&file.path, random))
            }
            (39 | 40, Some(file), ..) => self.hold(&file.path, random),
            (41, Some(file), ..) => {
                let told = format!("copy {} to {}", show(&file.path), show(&fresh));
                (told, self.copy(&file.path, &fresh))
            }
            _ => return self.go_on(random),
        };
        if let Err(error) = &done
            && error.kind() == io::ErrorKind::TimedOut
        {
            self.absent.extend(tried.into_iter().map(|path| (self.device, path)));
        }
        done.map(|()| told.clone()).map_err(|error| (told, error))
    }

    /// Everything of this history, as far as it can be listed.
    fn look(&self, home: &Path) -> Done<Vec<Found>> {
        let mut found = Vec::new();
        let mut waiting = vec![PathBuf::new()];
        while let Some(directory) = waiting.pop() {
            let listed = fs::read_dir(self.mount.join(&directory));
            let listed = match listed {
                Err(error) if self.may_be(&error) && directory != Path::new("") => continue,
                listed => listed?,
            };
            for entry in listed {
                let entry = entry?;
                let kind = entry.file_type()?;
                let name = entry.file_name();
                if !name.to_string_lossy().starts_with(self.prefix) {
                    continue;
                }
                let kind = match kind {
                    kind if kind.is_dir() => Kind::Directory,
                    kind if kind.is_symlink() => Kind::Link,
                    _ => Kind::File,
                };
                let path = directory.join(name);
                if kind == Kind::Directory {
                    waiting.push(path.clone());
                }
                if path != home && !self.absent.contains(&(self.device, path.clone())) {
                    found.push(Found { path, kind });
                }
            }
        }
        found.sort_by(|one, other| one.path.cmp(&other.path));
        Ok(found)
    }

    /// Bytes that nobody ever saved: of no text, so that nothing is ever merged with them.
    fn bytes(&mut self, random: &mut Random) -> Vec<u8> {
        *self.saves += 1;
        let mut bytes = format!("\0{}{}:{}\0", self.prefix, self.name, self.saves).into_bytes();
        let more = match random.below(100) {
            0..=69 => random.index(2000),
            70..=92 => random.index(70_000),
            93..=98 => random.index(400_000),
            _ => 4_500_000,
        };
        bytes.extend(random.bytes(more));
        bytes
    }

    fn act(&mut self, what: &str, saved: Option<Saved>, ended: BTreeSet<Saved>) -> Act {
        let what = format!("{}: {what}", self.name);
        let (history, device, alone) = (self.history, self.device, self.alone);
        Act { what, history, device, saved, ended, alone, ..Act::default() }
    }

    fn create(&mut self, path: &Path, random: &mut Random) -> Done {
        let held = Held::create(&self.mount.join(path), self.history, self.device)?;
        let bytes = self.bytes(random);
        if !random.chance(4) {
            held.file.write_all_at(&bytes, 0)?;
        }
        if random.chance(12) {
            self.held.push(held);
            return Ok(());
        }
        self.close(held)
    }

    fn open(&mut self, path: &Path) -> Done<Held> {
        let mut held = Held::open(&self.mount.join(path), self.history, self.device)?;
        self.share(&mut held);
        Ok(held)
    }

    /// A file that others are writing to is being written to through this handle too.
    fn share(&mut self, held: &mut Held) {
        for other in &*self.held {
            if (other.device, other.ino) == (held.device, held.ino) {
                held.dirty |= other.dirty;
            }
        }
    }

    /// A file changed: whoever holds it open will be asked to publish it.
    fn spoil(&mut self, ino: u64) {
        for other in self.held.iter_mut() {
            other.dirty |= (other.device, other.ino) == (self.device, ino);
        }
    }

    /// Changes a file through a handle. Says how.
    fn write(&mut self, held: &mut Held, random: &mut Random) -> Done<&'static str> {
        held.ended.extend(held.content()?);
        let len = held.file.metadata()?.len();
        let bytes = self.bytes(random);
        held.dirty = true;
        self.spoil(held.ino);
        match random.below(10) {
            0..=2 => {
                held.file.write_all_at(&bytes, len)?;
                Ok("append to")
            }
            3 => {
                held.file.set_len(random.below(len + 1))?;
                Ok("truncate")
            }
            4 => {
                held.file.set_len(0)?;
                held.file.write_all_at(&bytes, 0)?;
                Ok("rewrite")
            }
            _ => {
                held.file.write_all_at(&bytes, random.below(len + 1))?;
                Ok("write in")
            }
        }
    }

    /// Closes a file that was written.
    fn close(&mut self, held: Held) -> Done {
        if !held.dirty {
            return Ok(());
        }
        let own = |other: &&mut Held| (other.device, other.ino) == (held.device, held.ino);
        if let Some(other) = self.held.iter_mut().find(own) {
            // It is a version once nobody writes to it any more.
            other.ended.extend(held.ended);
            other.dirty = true;
            return Ok(());
        }
        let saved = held.content()?;
        // What is written to a file without a name goes with it.
        let saved = saved.filter(|_| !held.taken);
        let mut ended = held.ended;
        if let Some(saved) = saved {
            ended.remove(&saved);
        }
        let act = self.act(&format!("save {}", held.path), saved, ended);
        self.note(act);
        Ok(())
    }

    fn edit(&mut self, path: &Path, random: &mut Random) -> (String, Done) {
        let mut how = "edit";
        let mut change = || {
            let mut held = self.open(path)?;
            how = self.write(&mut held, random)?;
            self.close(held)
        };
        let done = change();
        (format!("{how} {}", show(path)), done)
    }

    /// As a shell's `>` does.
    fn overwrite(&mut self, path: &Path, random: &mut Random) -> Done {
        let witness = Witness::of(&self.mount.join(path))?;
        let mut held = Held::truncate(&self.mount.join(path), self.history, self.device)?;
        self.share(&mut held);
        self.spoil(held.ino);
        held.ended.extend(witness.saved);
        let unclear = held.ino != witness.ino;
        let bytes = self.bytes(random);
        held.file.write_all_at(&bytes, 0)?;
        if unclear {
            let mut act = self.act("overwrite what had changed", None, BTreeSet::new());
            act.unclear = true;
            self.note(act);
        }
        self.close(held)
    }

    /// As editors save: a new file is renamed over the old one, before or after it is closed.
    fn save_over(&mut self, path: &Path, random: &mut Random) -> (String, Done) {
        let early = random.chance(60);
        let order = if early { "closed before" } else { "closed after" };
        let told = format!("save over {} ({order})", show(path));
        (told, self.saved_over(path, early, random))
    }

    fn saved_over(&mut self, path: &Path, early: bool, random: &mut Random) -> Done {
        let temporary = path.with_file_name(format!("{}tmp", self.prefix));
        let mut held = Held::create(&self.mount.join(&temporary), self.history, self.device)?;
        let bytes = self.bytes(random);
        held.file.write_all_at(&bytes, 0)?;
        if random.chance(20) {
            self.sync(&mut held)?;
        }
        if early {
            self.close(held)?;
            return self.rename(&temporary, path);
        }
        self.held.push(held);
        self.rename(&temporary, path)?;
        if random.chance(60) {
            let held = self.held.pop().expect("it was pushed just above");
            self.close(held)?;
        }
        Ok(())
    }

    fn sync(&mut self, held: &mut Held) -> Done {
        held.file.sync_all()?;
        if held.dirty {
            let saved = held.content()?.filter(|_| !held.taken);
            let act = self.act(&format!("sync {}", held.path), saved, held.ended.clone());
            self.note(act);
        }
        held.fresh = false;
        Ok(())
    }

    /// Renames, over what is there. Where others may put something there in between, only what was
    /// seen is replaced.
    fn rename(&mut self, from: &Path, to: &Path) -> Done {
        let moved = Witness::of(&self.mount.join(from))?;
        let witness = match Witness::of(&self.mount.join(to)) {
            Ok(witness) => Some(witness),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        let Some(witness) = witness else {
            let only_new = if self.alone { RenameFlags::empty() } else { RenameFlags::NOREPLACE };
            return self.renamed(from, to, only_new);
        };
        self.renamed(from, to, RenameFlags::empty())?;
        if moved.ino == witness.ino {
            return Ok(());
        }
        let (ended, unclear) = self.ends(&witness);
        let own = |held: &&mut Held| held.device == self.device && held.ino == moved.ino;
        let fresh = self.held.iter_mut().filter(own).find(|held| held.fresh);
        match fresh {
            // What it replaces goes once it has a version.
            Some(held) if !unclear => held.ended.extend(ended),
            _ => {
                let told = format!("rename {} over {}", show(from), show(to));
                let mut act = self.act(&told, moved.saved, ended);
                (act.takes_name, act.unclear) = (true, unclear);
                self.note(act);
            }
        }
        Ok(())
    }

    fn renamed(&mut self, from: &Path, to: &Path, flags: RenameFlags) -> Done {
        Ok(renameat_with(CWD, self.mount.join(from), CWD, self.mount.join(to), flags)?)
    }

    /// What ended when a name of this was taken, and whether that isn't certain.
    fn ends(&mut self, witness: &Witness) -> (BTreeSet<Saved>, bool) {
        let mut ended = BTreeSet::new();
        if witness.links <= 1 || !self.alone {
            ended.extend(witness.saved);
        }
        for held in self.held.iter_mut().filter(|held| held.device == self.device) {
            held.taken |= held.links().map_or(true, |links| links == 0);
        }
        // What a new file replaces goes also if nobody ever sees that file.
        let open = self.held.iter().filter(|held| held.device == self.device);
        for held in open.filter(|held| held.ino == witness.ino) {
            ended.extend(&held.ended);
        }
        (ended, !self.alone && witness.is_unclear())
    }

    fn unlink(&mut self, path: &Path) -> Done {
        let witness = Witness::of(&self.mount.join(path))?;
        fs::remove_file(self.mount.join(path))?;
        let (ended, unclear) = self.ends(&witness);
        let told = format!("unlink {}", show(path));
        let mut act = self.act(&told, None, ended);
        (act.takes_name, act.unclear) = (true, unclear);
        self.note(act);
        Ok(())
    }

    /// As `rm -r` does: each directory is listed once.
    fn remove_all(&mut self, path: &Path) -> Done {
        let mut emptied = true;
        for entry in fs::read_dir(self.mount.join(path))? {
            let entry = entry?;
            let inside = path.join(entry.file_name());
            let removed = match entry.file_type()?.is_dir() {
                true => self.remove_all(&inside),
                false => self.unlink(&inside),
            };
            match removed {
                Ok(()) => {}
                Err(error) if self.may_be(&error) => emptied = false,
                Err(error) => return Err(error),
            }
        }
        match fs::remove_dir(self.mount.join(path)) {
            Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => {
                if emptied && self.alone {
                    let left = fs::read_dir(self.mount.join(path))?
                        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
                        .collect::<Done<Vec<String>>>()?;
                    let left = format!("it was emptied and still has {}", left.join(", "));
                    return Err(io::Error::other(left));
                }
                Ok(())
            }
            removed => removed,
        }
    }

    fn symlink(&mut self, path: &Path) -> Done {
        *self.saves += 1;
        let target = format!("{}{}-{}", self.prefix, self.name, self.saves);
        symlink(&target, self.mount.join(path))?;
        let saved = super::ledger::of_link(target.as_bytes());
        let act = self.act(&format!("symlink {}", show(path)), Some(saved), BTreeSet::new());
        self.note(act);
        Ok(())
    }

    fn set_attributes(&mut self, path: &Path, random: &mut Random) -> (String, Done) {
        let at = self.mount.join(path);
        if random.chance(50) {
            let mode = *random.pick(&[0o600, 0o640, 0o755, 0o711]);
            let told = format!("chmod {mode:o} {}", show(path));
            return (told, fs::set_permissions(at, fs::Permissions::from_mode(mode)));
        }
        let len = random.index(40);
        let value = random.bytes(len);
        (format!("set an attribute of {}", show(path)), xattr::set(at, "user.tag", &value))
    }

    fn set_time(&mut self, path: &Path, random: &mut Random) -> Done {
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(random.below(2_000_000_000));
        let file = fs::File::open(self.mount.join(path))?;
        self.spoil(file.metadata()?.ino());
        file.set_modified(time)
    }

    /// Opens a file, perhaps writes to it, and leaves it open.
    fn hold(&mut self, path: &Path, random: &mut Random) -> (String, Done) {
        let mut hold = || {
            let mut held = self.open(path)?;
            if random.chance(60) {
                self.write(&mut held, random)?;
            }
            self.held.push(held);
            Ok(())
        };
        let done = hold();
        (format!("open {} and hold it", show(path)), done)
    }

    /// Copies a file, which shares its bytes, and adds something.
    fn copy(&mut self, from: &Path, to: &Path) -> Done {
        let source = fs::File::open(self.mount.join(from))?;
        let len = source.metadata()?.len();
        let held = Held::create(&self.mount.join(to), self.history, self.device)?;
        let mut left = usize::try_from(len).expect("files of a history are small");
        let (mut at, mut to) = (0, 0);
        while left > 0 {
            match rustix::fs::copy_file_range(
                &source,
                Some(&mut at),
                &held.file,
                Some(&mut to),
                left,
            )? {
                0 => break,
                copied => left -= copied,
            }
        }
        *self.saves += 1;
        let mark = format!("\0{}{}:{}\0", self.prefix, self.name, self.saves);
        held.file.write_all_at(mark.as_bytes(), to)?;
        self.close(held)
    }

    /// Goes on with a file that is held open on this device.
    fn go_on(&mut self, random: &mut Random) -> Result<String, (String, io::Error)> {
        let own = |held: &Held| (held.device, held.history) == (self.device, self.history);
        let open: Vec<usize> =
            (0..self.held.len()).filter(|index| own(&self.held[*index])).collect();
        if open.is_empty() {
            return Ok("nothing".into());
        }
        let mut held = self.held.swap_remove(*random.pick(&open));
        let path = held.path.clone();
        match random.below(3) {
            0 => {
                let told = format!("write to the open {path}");
                let done = self.write(&mut held, random);
                self.held.push(held);
                done.map(|_| told.clone()).map_err(|error| (told, error))
            }
            1 => {
                let told = format!("sync the open {path}");
                let done = self.sync(&mut held);
                self.held.push(held);
                done.map(|()| told.clone()).map_err(|error| (told, error))
            }
            _ => {
                let told = format!("close {path}");
                self.close(held).map(|()| told.clone()).map_err(|error| (told, error))
            }
        }
    }

    /// Closes a file that was held open on this device.
    ///
    /// # Errors
    /// If the mount answers what it never may.
    pub fn finish(&mut self, held: Held) -> Result<(), Wrong> {
        let told = format!("close {}", held.path);
        match self.close(held) {
            Err(error) if !self.may_be(&error) => {
                Err(Wrong(format!("{} may not answer {error} to: {told}", self.name)))
            }
            _ => Ok(()),
        }
    }
}

fn of(found: &[Found], want: impl Fn(Kind) -> bool) -> Vec<Found> {
    found.iter().filter(|found| want(found.kind)).cloned().collect()
}

/// One of them; what a repair shows is rare and interesting.
fn pick(random: &mut Random, found: &[Found]) -> Option<Found> {
    let is_repaired = |found: &&Found| found.path.to_string_lossy().contains(" (");
    let repaired: Vec<Found> = found.iter().filter(is_repaired).cloned().collect();
    let from = if !repaired.is_empty() && random.chance(40) { &repaired } else { found };
    (!from.is_empty()).then(|| random.pick(from).clone())
}

fn show(path: &Path) -> String {
    path.display().to_string()
}
