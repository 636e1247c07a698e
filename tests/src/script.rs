//! Small stories about a tree, written so that a person can read them: who does what apart, and
//! what everybody sees once all have heard of it.
//!
//! `desk: mv d e/d; write x 1 | lap: mv e d/e` is two devices' doing before they hear of one
//! another; what stands further right happened later. Paths with spaces stand in `'`. The commands:
//!
//! | command | does |
//! | --- | --- |
//! | `write PATH N`, `edit PATH N` | makes a file with the bytes N, or gives one those bytes |
//! | `save PATH N` | as most editors: writes `PATH~` and renames it over |
//! | `create PATH`, `finish PATH N` | makes a file that isn't complete, completes it |
//! | `open PATH`, `close PATH N` | opens a file, saves what was made from what it was then |
//! | `mkdir`, `rm`, `rmdir`, `rm -r` | as the programs |
//! | `mv`, `swap`, `ln`, `symlink PATH TARGET`, `chmod PATH MODE` | as the programs |
//! | `settle PATH` | makes what a repair shows ordinary, as opening it does |
//!
//! A tree is a list of paths, with commas between: `d/` is a directory, `a=1` a file with the bytes
//! 1, `a=1 x2` one with two names, `s->t` a symbolic link. Of the times in the names of conflict
//! copies only hours and minutes are shown. What there is to begin with is made at 11.00; the first
//! script begins at 12.00, the second at 13.00, and each command comes a minute after the one
//! before it.
#![expect(clippy::unwrap_used, reason = "a test fails where it unwraps")]

use crate::replicas::{Replica, name};
use kith_core::id::InodeId;
use kith_core::index::{IndexRead, Node, Register, Shown};
use kith_core::name::EntryName;
use kith_core::operation::{AttributeChange, Operation, RenameMode};
use kith_core::register::{Kind, Owner};
use kith_core::vector::VersionVector;
use std::collections::BTreeMap;

/// The names of the devices, as scripts call them.
pub const DEVICES: [&str; 4] = ["desk", "lap", "box", "pad"];
/// 2023-11-14 11.00.00, UTC.
const BEGIN_MS: u64 = 1_699_959_600_000;
const MINUTE_MS: u64 = 60_000;
const HOUR_MS: u64 = 60 * MINUTE_MS;

/// How what was done apart gets to everybody.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Delivery {
    /// The devices, in the order in which they speak.
    pub order: Vec<usize>,
    /// Whether each tells its neighbour what it has by then, up and down the line, or all are told
    /// what each one did, as it was before anybody heard anything.
    pub passes_on: bool,
    /// In which pieces.
    pub pieces: Pieces,
}

/// In which pieces the registers of a device arrive.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Pieces {
    /// All at once.
    Whole,
    /// One by one, in the order of the log.
    Forwards,
    /// One by one, the last first.
    Backwards,
}

impl Delivery {
    /// All ways that there are for so many devices.
    #[must_use]
    pub fn all(devices: usize) -> Vec<Delivery> {
        let mut all = Vec::new();
        for order in permutations(devices) {
            for passes_on in [false, true] {
                for pieces in [Pieces::Whole, Pieces::Forwards, Pieces::Backwards] {
                    all.push(Delivery { order: order.clone(), passes_on, pieces });
                }
            }
        }
        all
    }
}

fn permutations(count: usize) -> Vec<Vec<usize>> {
    let Some(last) = count.checked_sub(1) else { return vec![Vec::new()] };
    let mut all = Vec::new();
    for rest in permutations(last) {
        for at in 0..=rest.len() {
            let mut order = rest.clone();
            order.insert(at, last);
            all.push(order);
        }
    }
    all
}

/// Some devices that play a story.
pub struct Stage {
    /// The devices.
    pub replicas: Vec<Replica>,
    /// How many scripts were played.
    scripts: u64,
    /// What is open, by device and by the path it was opened at.
    open: BTreeMap<(usize, String), (InodeId, VersionVector)>,
}

impl Stage {
    /// So many devices that know nothing of one another yet.
    #[must_use]
    pub fn new(devices: usize) -> Stage {
        let replicas = (0..devices as u64).map(|number| Replica::new(number, BEGIN_MS));
        Stage { replicas: replicas.collect(), scripts: 0, open: BTreeMap::new() }
    }

    /// Plays what devices do apart.
    pub fn play(&mut self, script: &str) {
        let mut now = BEGIN_MS + self.scripts * HOUR_MS;
        self.scripts += 1;
        for part in script.split('|').filter(|part| !part.trim().is_empty()) {
            let (device, commands) = part.split_once(':').expect("a device and its commands");
            let at = DEVICES.iter().position(|it| *it == device.trim()).expect("a device's name");
            for command in commands.split(';') {
                self.replicas[at].now = now;
                now += MINUTE_MS;
                self.command(at, &words(command));
                self.replicas[at].check();
            }
        }
    }

    /// Has everybody hear of everything.
    pub fn deliver(&mut self, way: &Delivery) {
        if way.passes_on {
            let up = way.order.windows(2).map(|pair| (pair[0], pair[1]));
            let down = way.order.windows(2).rev().map(|pair| (pair[1], pair[0]));
            for (from, to) in up.chain(down).collect::<Vec<_>>() {
                let registers = self.replicas[from].index.registers();
                self.tell(to, registers, way.pieces);
            }
            return;
        }
        let said = self.replicas.iter().map(|replica| replica.index.registers());
        let said: Vec<Vec<Register>> = said.collect();
        for from in &way.order {
            for to in (0..self.replicas.len()).filter(|to| to != from) {
                self.tell(to, said[*from].clone(), way.pieces);
            }
        }
    }

    fn tell(&mut self, to: usize, mut registers: Vec<Register>, pieces: Pieces) {
        match pieces {
            Pieces::Whole => self.replicas[to].receive(registers),
            Pieces::Forwards | Pieces::Backwards => {
                if pieces == Pieces::Backwards {
                    registers.reverse();
                }
                for register in registers {
                    self.replicas[to].receive(vec![register]);
                }
            }
        }
        self.replicas[to].check();
    }

    fn command(&mut self, at: usize, words: &[&str]) {
        let replica = &mut self.replicas[at];
        match *words {
            ["write", path, bytes] => {
                let (parent, name) = resolve(replica, path);
                replica.write(parent, &name, number(bytes));
            }
            ["edit", path, bytes] => {
                let file = settle(replica, path).key();
                replica.edit(file, number(bytes));
            }
            ["save", path, bytes] => {
                let (parent, name) = resolve(replica, path);
                let beside = format!("{name}~");
                replica.write(parent, &beside, number(bytes));
                replica.rename((parent, &beside), (parent, &name));
            }
            ["create", path] => {
                let (parent, name) = resolve(replica, path);
                let file = replica.create(parent, &name, Kind::File);
                self.open.insert((at, path.to_owned()), (file, VersionVector::new()));
            }
            ["open", path] => {
                let file = settle(replica, path).key();
                let base = replica.shown_context(file);
                self.open.insert((at, path.to_owned()), (file, base));
            }
            ["finish" | "close", path, bytes] => {
                let opened = self.open.get_mut(&(at, path.to_owned()));
                let (file, base) = opened.expect("it was opened at this path");
                replica.publish(*file, base.clone(), number(bytes)).unwrap();
                let state = replica.index.inode(*file).unwrap().unwrap();
                base.include(state.inode.latest().unwrap().dot);
            }
            ["mkdir", path] => {
                let (parent, name) = resolve(replica, path);
                replica.create(parent, &name, Kind::Directory);
            }
            ["symlink", path, target] => {
                let (parent, name) = resolve(replica, path);
                replica.create(parent, &name, Kind::Symlink(target.as_bytes().into()));
            }
            ["rm" | "rmdir", path] => {
                let (parent, name) = resolve(replica, path);
                replica.remove(parent, &name);
            }
            ["rm", "-r", path] => {
                let (parent, name) = resolve(replica, path);
                remove_all(replica, parent, &name);
            }
            ["mv", from, to] => rename(replica, from, to, RenameMode::Replace),
            ["swap", from, to] => rename(replica, from, to, RenameMode::Exchange),
            ["ln", from, to] => {
                let node = row(replica, from).node;
                let (parent, to) = resolve(replica, to);
                replica.apply(Operation::Link { node, parent, name: name(&to) }).unwrap();
            }
            ["chmod", path, mode] => {
                let node = row(replica, path).node;
                let mode = Some(u16::from_str_radix(mode, 8).unwrap());
                let change = AttributeChange { mode, ..AttributeChange::default() };
                replica.apply(Operation::SetAttributes { node, change }).unwrap();
            }
            ["settle", path] => drop(settle(replica, path)),
            _ => panic!("no such command: {words:?}"),
        }
    }
}

/// Splits a command at its spaces; what stands in `'` stays together.
fn words(command: &str) -> Vec<&str> {
    let mut words = Vec::new();
    for (at, part) in command.split('\'').enumerate() {
        if at % 2 == 1 {
            words.push(part);
        } else {
            words.extend(part.split_whitespace());
        }
    }
    words
}

fn number(text: &str) -> u8 {
    text.parse().unwrap()
}

/// Times in paths are written short; a path that has one is looked for among what is shown.
fn resolve(replica: &Replica, path: &str) -> (InodeId, String) {
    let (parent, last) = match path.rsplit_once('/') {
        Some((parent, last)) => (row(replica, parent).node.key(), last),
        None => (InodeId::ROOT, path),
    };
    let rows = replica.index.list(parent, None, usize::MAX).unwrap();
    let known = rows.iter().find(|row| short(&row.name) == last);
    (parent, known.map_or_else(|| last.to_owned(), |row| row.name.to_string()))
}

fn row(replica: &Replica, path: &str) -> Shown {
    let (parent, at) = resolve(replica, path);
    let row = replica.index.shown(parent, &name(&at)).unwrap();
    row.unwrap_or_else(|| panic!("{path} is not there, but {:?}", tree(replica)))
}

fn settle(replica: &mut Replica, path: &str) -> Node {
    let before = tree(replica);
    let node = row(replica, path).node;
    let settled = replica.apply(Operation::Settle { node }).unwrap().node.unwrap();
    assert_eq!(tree(replica), before, "settling changes nothing that is seen");
    settled
}

fn rename(replica: &mut Replica, from: &str, to: &str, mode: RenameMode) {
    let (from, to) = (resolve(replica, from), resolve(replica, to));
    let (from, to) = ((from.0, name(&from.1)), (to.0, name(&to.1)));
    replica.apply(Operation::Rename { from, to, mode }).unwrap();
}

fn remove_all(replica: &mut Replica, parent: InodeId, at: &str) {
    let row = replica.index.shown(parent, &name(at)).unwrap().expect("the name is shown");
    if replica.kind(row.node) == Kind::Directory {
        let directory = row.node.key();
        for inside in replica.index.list(directory, None, usize::MAX).unwrap() {
            remove_all(replica, directory, &inside.name.to_string());
        }
    }
    replica.remove(parent, at);
}

/// A name, with only hours and minutes of the time that it may have.
fn short(name: &EntryName) -> String {
    let name = name.to_string();
    let mut parts = name.split("2023-11-14 ");
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |name, rest| name + &rest[..5] + &rest[8..])
}

/// What a device shows, sorted.
#[must_use]
pub fn tree(replica: &Replica) -> Vec<String> {
    let mut lines = Vec::new();
    list(replica, InodeId::ROOT, "", &mut lines);
    lines.sort();
    lines
}

/// A tree as a story tells it, sorted. What only some device sees stands after its name, and with
/// a `|` before what all others see.
#[must_use]
pub fn told(tree: &str, device: usize) -> Vec<String> {
    let own = format!("{}:", DEVICES[device]);
    let parts: Vec<&str> = tree.split('|').map(str::trim).collect();
    let own = parts.iter().find_map(|part| part.strip_prefix(&own));
    let tree = own.unwrap_or(parts[parts.len() - 1]);
    let mut lines: Vec<String> =
        tree.split(',').map(|line| line.trim().to_owned()).filter(|it| !it.is_empty()).collect();
    lines.sort();
    lines
}

fn list(replica: &Replica, directory: InodeId, prefix: &str, lines: &mut Vec<String>) {
    for row in replica.index.list(directory, None, usize::MAX).unwrap() {
        let path = format!("{prefix}{}", short(&row.name));
        let inode = replica.index.inode(row.node.inode()).unwrap().unwrap().inode;
        let mut line = match &inode.kind {
            Kind::Directory => format!("{path}/"),
            Kind::Symlink(target) => format!("{path}->{}", String::from_utf8_lossy(target)),
            _ => {
                let version = match row.node {
                    Node::Inode(_) => inode.latest(),
                    Node::Copy { version, .. } => inode.versions.get(&version),
                };
                let size = version.map(|version| version.content.size_bytes);
                format!("{path}={}", size.map_or_else(|| "?".to_owned(), |it| it.to_string()))
            }
        };
        let names = replica.index.shown_of(row.node.key()).unwrap().len();
        if names > 1 {
            line += &format!(" x{names}");
        }
        if inode.attributes.mode != 0o644 {
            line += &format!(" {:o}", inode.attributes.mode);
        }
        if inode.attributes.user != Owner::Person {
            line += &format!(" {:?}", inode.attributes.user);
        }
        lines.push(line);
        if inode.kind == Kind::Directory {
            list(replica, row.node.key(), &format!("{path}/"), lines);
        }
    }
}

/// What it is about, what everybody has to begin with, and what is done apart and seen after that.
pub type Row = (&'static str, &'static str, &'static [(&'static str, &'static str)]);

/// Plays rows, with every way for what was done apart to get to everybody, and demands that every
/// device sees what the rows say.
pub fn plays(rows: &[Row]) {
    let mut wrong = Vec::new();
    for (what, given, rounds) in rows {
        let spoken = |at: &usize| {
            rounds.iter().any(|(script, _)| script.contains(&format!("{}:", DEVICES[*at])))
        };
        let devices = (0..DEVICES.len()).filter(spoken).max().map_or(2, |last| last + 1).max(2);
        'ways: for way in Delivery::all(devices) {
            let mut stage = Stage::new(devices);
            stage.play(&if given.is_empty() { String::new() } else { format!("desk: {given}") });
            stage.deliver(&Delivery::all(devices)[0]);
            for (script, then) in *rounds {
                stage.play(script);
                stage.deliver(&way);
                for (at, replica) in stage.replicas.iter().enumerate() {
                    let seen = tree(replica);
                    if seen != told(then, at) {
                        let (on, then) = (DEVICES[at], told(then, at));
                        wrong.push(format!(
                            "{what}, {way:?}\n  {script}\n  {on} {seen:?}\n  not {then:?}"
                        ));
                        break 'ways;
                    }
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
