//! Replicas in memory that talk through sessions, forget, leave the circle and come back.
#![expect(clippy::unwrap_used, reason = "a test fails where it unwraps")]

use crate::random::Random;
use crate::replicas::{Replica, name};
use kith_core::clock::WallMs;
use kith_core::content::{Content, Layout, Piece};
use kith_core::effect::Effect;
use kith_core::exchange::{ProtocolError, ReceiveError, Session};
use kith_core::forget::{Sweep, sweep};
use kith_core::id::{ChunkId, DeviceId, InodeId, WriterId};
use kith_core::index::{Index, IndexRead, Node, Shown};
use kith_core::operation::{Operation, RenameMode};
use kith_core::register::{Kind, Mark, UnixTime};
use kith_core::wire::{FRAME_HEAD_BYTES, Message, decode, encode_frame};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// The device that a replica is at present.
pub fn device(replica: &Replica) -> DeviceId {
    replica.index.state().unwrap().device
}

/// A connection between two replicas: their sessions, and what is on its way to each.
struct Connection {
    sessions: [Session; 2],
    under_way: [VecDeque<Message>; 2],
}

impl Connection {
    fn open(ends: [&Replica; 2]) -> Connection {
        let (one, to_other) = Session::open(&ends[0].index, device(ends[1])).unwrap();
        let (other, to_one) = Session::open(&ends[1].index, device(ends[0])).unwrap();
        let mut sessions = [one, other];
        sessions.iter_mut().for_each(|session| session.limit_batches(3));
        Connection { sessions, under_way: [[to_one].into(), [to_other].into()] }
    }

    /// One side sends. Says whether it had anything to say.
    fn send(&mut self, ends: [&Replica; 2], from: usize) -> bool {
        let Some(message) = self.sessions[from].next(&ends[from].index).unwrap() else {
            return false;
        };
        let frame = encode_frame(&message);
        assert_eq!(decode(&frame[FRAME_HEAD_BYTES..]).unwrap().as_ref(), Some(&message));
        self.under_way[1 - from].push_back(message);
        true
    }

    /// One side takes what came. Says whether anything did; an error ends the connection.
    fn take(&mut self, replica: &mut Replica, to: usize) -> Result<bool, ProtocolError> {
        let Some(message) = self.under_way[to].pop_front() else { return Ok(false) };
        let before = replica.index.clone();
        let context = replica.context();
        let writer = WriterId(context.tag.0 ^ 0xbeef_0000_0000);
        let session = &mut self.sessions[to];
        match session.receive(&mut replica.index, context, writer, message) {
            Ok(effects) if effects.contains(&Effect::Reincarnated) => {
                Err(ProtocolError::Reincarnated)
            }
            Ok(_) => {
                replica.check();
                Ok(true)
            }
            Err(ReceiveError::Protocol(error)) => {
                replica.index = before;
                Err(error)
            }
            Err(ReceiveError::Storage(never)) => match never {},
        }
    }
}

/// How often a conversation may begin again, because something forgotten came or an index turned out
/// to be an old one.
const RESTARTS_MAX: usize = 8;

/// Two replicas talk until neither has anything to say. Answers how often they had to begin again.
pub fn talk(one: &mut Replica, other: &mut Replica) -> usize {
    for restarts in 0..RESTARTS_MAX {
        let mut connection = Connection::open([one, other]);
        let mut ended = false;
        loop {
            let mut quiet = true;
            for to in [0, 1] {
                quiet &= !connection.send([one, other], to);
            }
            for to in [1, 0] {
                let replica = if to == 0 { &mut *one } else { &mut *other };
                match connection.take(replica, to) {
                    Ok(taken) => quiet &= !taken,
                    Err(ProtocolError::Forgotten | ProtocolError::Reincarnated) => ended = true,
                    Err(error) => panic!("a conversation ended: {error}"),
                }
            }
            if ended || quiet {
                break;
            }
        }
        if !ended {
            return restarts;
        }
    }
    panic!("two devices begin again and again")
}

/// Some of what two replicas have to say, with sweeps between by chance.
pub fn begin_to_talk(
    ends: [&mut Replica; 2],
    random: &mut Random,
    mut between: impl FnMut(&mut Replica, &mut Random),
) {
    let [one, other] = ends;
    let mut connection = Connection::open([one, other]);
    for _ in 0..random.between(1, 40) {
        let at = random.index(2);
        if random.chance(50) {
            connection.send([one, other], at);
        } else {
            let replica = if at == 0 { &mut *one } else { &mut *other };
            if connection.take(replica, at).is_err() {
                return;
            }
            if random.chance(10) {
                between(replica, random);
            }
        }
    }
}

/// A replica is told what another has forgotten, and then the connection breaks.
pub fn hear_only(one: &mut Replica, other: &mut Replica) {
    let mut connection = Connection::open([one, other]);
    connection.take(other, 1).unwrap();
    connection.send([one, other], 1);
    while connection.take(one, 0).unwrap() {}
}

/// A replica forgets what it can, in small slices. Answers how many registers went.
pub fn forget(replica: &mut Replica, members: &[DeviceId]) -> usize {
    let before = WallMs(replica.now + 1_000_000);
    forget_before(replica, members, before)
}

/// The same, of what was removed before some time.
pub fn forget_before(replica: &mut Replica, members: &[DeviceId], before: WallMs) -> usize {
    let mut forgotten = 0;
    let mut after = None;
    loop {
        let context = replica.context();
        let slice = Sweep { members, before, in_use: &|_| false, after, limit: 3 };
        let swept = sweep(&mut replica.index, context, &slice).unwrap();
        replica.check();
        forgotten += swept.forgotten;
        after = swept.after;
        if after.is_none() {
            return forgotten;
        }
    }
}

/// A replica gets another identity, as who left the circle and joins again does.
pub fn rename_device(replica: &mut Replica, number: u8) {
    let mut state = replica.index.state().unwrap();
    state.device = DeviceId([number; 32]);
    replica.index.put_state(&state).unwrap();
}

/// What a replica shows: paths with what is there, in order, and nodes by path.
pub fn walk(replica: &Replica) -> BTreeMap<String, Shown> {
    let mut rows = BTreeMap::new();
    let mut directories = vec![(InodeId::ROOT, String::new())];
    while let Some((directory, prefix)) = directories.pop() {
        for row in replica.index.list(directory, None, usize::MAX).unwrap() {
            let path = format!("{prefix}{}", row.name);
            if replica.kind(row.node) == Kind::Directory {
                directories.push((row.node.key(), format!("{path}/")));
            }
            rows.insert(path, row);
        }
    }
    rows
}

/// Bytes that nobody else saves.
pub fn unique(number: u32) -> Content {
    let id = ChunkId::of(&number.to_le_bytes());
    let pieces = vec![Piece::Chunk { id, len_bytes: number + 1 }];
    Content { size_bytes: u64::from(number) + 1, layout: Layout::Inline(pieces) }
}

/// What a row shows, if it has bytes.
pub fn shows(replica: &Replica, row: &Shown) -> Option<u32> {
    let inode = replica.index.inode(row.node.inode()).unwrap().unwrap().inode;
    let version = match row.node {
        Node::Inode(_) => inode.latest(),
        Node::Copy { version, .. } => inode.versions.get(&version),
    };
    version.map(|version| u32::try_from(version.content.size_bytes - 1).unwrap())
}

/// What people did.
#[derive(Clone, Debug, Default)]
pub struct Acts {
    /// What was saved.
    pub saved: BTreeSet<u32>,
    /// What a person saw and replaced or removed.
    pub ended: BTreeSet<u32>,
    next: u32,
}

/// A person at a replica does something, chosen by chance among what the paths allow: so that it is
/// the same wherever the trees look the same.
pub fn act(replica: &mut Replica, acts: &mut Acts, random: &mut Random) {
    let rows = walk(replica);
    let paths: Vec<&String> = rows.keys().collect();
    let mut directories = vec![InodeId::ROOT];
    let kind = |row: &Shown| replica.kind(row.node);
    let inner = rows.values().filter(|row| kind(row) == Kind::Directory);
    directories.extend(inner.map(|row| row.node.key()));
    let names = ["a", "b", "c", "d", "e", "f"];
    let (what, which) = (random.below(100), random.draw());
    let parent = *random.pick(&directories);
    let other = *random.pick(&names);
    let row =
        (!paths.is_empty()).then(|| rows[paths[(which % paths.len() as u64) as usize]].clone());
    let (user, group) = (kith_core::register::Owner::Person, kith_core::register::Owner::Person);
    match (what, row) {
        (0..30, _) | (_, None) => {
            let kind = if what % 3 == 0 { Kind::Directory } else { Kind::File };
            let is_file = kind == Kind::File;
            let create =
                Operation::Create { parent, name: name(other), kind, mode: 0o644, user, group };
            let Ok(made) = replica.apply(create) else { return };
            if is_file {
                save(replica, acts, made.node.unwrap().key(), false);
            }
        }
        (30..50, Some(row)) if kind(&row) == Kind::File => {
            acts.ended.extend(shows(replica, &row));
            let settled = replica.apply(Operation::Settle { node: row.node }).unwrap();
            save(replica, acts, settled.node.unwrap().key(), true);
        }
        (50..75, Some(row)) => {
            let seen = shows(replica, &row);
            let directory = kind(&row) == Kind::Directory;
            let remove = Operation::Remove { parent: row.parent, name: row.name, directory };
            if replica.apply(remove).is_ok() {
                acts.ended.extend(seen);
            }
        }
        (75..90, Some(row)) => {
            let over = replica.index.shown(parent, &name(other)).unwrap();
            let seen = over.and_then(|over| shows(replica, &over));
            let from = (row.parent, row.name);
            let (to, mode) = ((parent, name(other)), RenameMode::Replace);
            if replica.apply(Operation::Rename { from, to, mode }).is_ok() {
                acts.ended.extend(seen);
            }
        }
        (90..96, Some(row)) => {
            let _ = replica.apply(Operation::Link { node: row.node, parent, name: name(other) });
        }
        (_, Some(row)) => {
            let change = kith_core::operation::AttributeChange {
                mode: Some(0o600 + (which % 64) as u16),
                ..Default::default()
            };
            replica.apply(Operation::SetAttributes { node: row.node, change }).unwrap();
        }
    }
    replica.check();
}

fn save(replica: &mut Replica, acts: &mut Acts, inode: InodeId, is_edit: bool) {
    let context = if is_edit { replica.shown_context(inode) } else { Default::default() };
    acts.next += 1;
    let publish = Operation::Publish {
        inode,
        parents: context.dots().collect(),
        context,
        content: unique(acts.next),
        mtime: UnixTime::default(),
        mark: Mark::Closed,
    };
    replica.apply(publish).unwrap();
    acts.saved.insert(acts.next);
}

/// Everybody talks to everybody, until nothing changes.
pub fn settle(replicas: &mut [Replica]) {
    for _ in 0..4 {
        for from in 0..replicas.len() {
            for to in from + 1..replicas.len() {
                let (left, right) = replicas.split_at_mut(to);
                talk(&mut left[from], &mut right[0]);
            }
        }
    }
}
