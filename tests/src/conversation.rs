//! Devices without disks and networks that talk message by message, for tests of the exchange.
#![expect(clippy::unwrap_used, reason = "a test fails where it unwraps")]

use crate::memory_index::MemoryIndex;
use kith_core::clock::WallMs;
use kith_core::content::Content;
use kith_core::effect::Effect;
use kith_core::exchange::{ReceiveError, Session};
use kith_core::id::{DeviceId, InodeId, ShareId, Tag, WriterId};
use kith_core::index::{IndexRead, Node};
use kith_core::name::EntryName;
use kith_core::operation::{Context, Operation, apply, found};
use kith_core::register::{Kind, Mark, Owner, UnixTime};
use kith_core::succession::succeed;
use kith_core::vector::VersionVector;
use kith_core::wire::Message;

/// A device without a disk.
#[derive(Clone)]
pub struct Device {
    /// What it holds.
    pub index: MemoryIndex,
    /// Its id.
    pub id: DeviceId,
    /// The tag of its last transaction.
    pub tags: u64,
    /// Its clock.
    pub now: WallMs,
}

/// When everything happens at first.
pub const NOW: WallMs = WallMs(1_700_000_000_000);

impl Device {
    /// A device with an empty share, under the writer of its number.
    pub fn new(number: u8) -> Self {
        let mut index = MemoryIndex::new();
        let id = DeviceId([number; 32]);
        let writer = WriterId(u64::from(number));
        let share = ShareId([7; 16]);
        let author = format!("device {number}");
        found(&mut index, share, id, writer, author, NOW, Tag(u64::from(number))).unwrap();
        Device { index, id, tags: u64::from(number) << 32, now: NOW }
    }

    /// Time and randomness of its next transaction.
    pub fn context(&mut self) -> Context {
        self.tags += 1;
        Context { now: self.now, tag: Tag(self.tags) }
    }

    /// Does an operation, and answers the node it made.
    pub fn apply(&mut self, operation: Operation) -> InodeId {
        let context = self.context();
        apply(&mut self.index, context, operation).unwrap().node.map_or(InodeId::ROOT, Node::key)
    }

    /// Makes something in the root.
    pub fn make(&mut self, name: &str, kind: Kind) -> InodeId {
        let name = EntryName::new(name.as_bytes()).unwrap();
        let (user, group) = (Owner::Person, Owner::Person);
        self.apply(Operation::Create {
            parent: InodeId::ROOT,
            name,
            kind,
            mode: 0o755,
            user,
            group,
        })
    }

    /// Makes numbered directories in the root.
    pub fn directories(&mut self, prefix: &str, count: usize) {
        for n in 0..count {
            self.make(&format!("{prefix}{n}"), Kind::Directory);
        }
    }

    /// Gives a file a version.
    pub fn publish(&mut self, inode: InodeId, context: VersionVector, content: Content) {
        self.apply(Operation::Publish {
            inode,
            context,
            parents: Vec::new(),
            content,
            mtime: UnixTime::default(),
            mark: Mark::Closed,
        });
    }

    /// Starts again, and it isn't certain that nothing else went on from the same index.
    pub fn restart(&mut self) {
        let context = self.context();
        let writer = WriterId(0xdead_0000_0000 + context.tag.0);
        assert_eq!(succeed(&mut self.index, context, writer).unwrap(), [Effect::Reincarnated]);
    }

    /// Another machine with a copy of what this one has, which starts there.
    #[must_use]
    pub fn copied(&self) -> Device {
        let mut copy = Device { tags: self.tags + (1 << 24), ..self.clone() };
        copy.restart();
        copy
    }

    /// The names in the root.
    pub fn names(&self) -> Vec<String> {
        let shown = self.index.list(InodeId::ROOT, None, usize::MAX).unwrap();
        shown.iter().map(|shown| shown.name.to_string()).collect()
    }

    /// The replica's state.
    pub fn state(&self) -> kith_core::index::ReplicaState {
        self.index.state().unwrap()
    }
}

/// Why a message wasn't taken.
pub type Refused = ReceiveError<std::convert::Infallible>;

/// One end of a connection.
pub struct End {
    /// The session.
    pub session: Session,
    /// Its greeting.
    pub hello: Message,
}

impl End {
    /// Opens a session of a device with another.
    pub fn open(device: &Device, peer: &Device) -> Self {
        let (session, hello) = Session::open(&device.index, peer.id).unwrap();
        End { session, hello }
    }

    /// Takes a message, all of it or nothing.
    pub fn take(&mut self, device: &mut Device, message: Message) -> Result<Vec<Effect>, Refused> {
        let before = device.index.clone();
        let context = device.context();
        let writer = WriterId(0xabcd + context.tag.0);
        let taken = self.session.receive(&mut device.index, context, writer, message);
        if taken.is_err() {
            device.index = before;
        }
        taken
    }
}

/// A connection on which both have said Hello.
pub fn greet(one: &mut Device, other: &mut Device) -> (End, End) {
    let (mut here, mut there) = (End::open(one, other), End::open(other, one));
    for effects in [
        here.take(one, there.hello.clone()).unwrap(),
        there.take(other, here.hello.clone()).unwrap(),
    ] {
        assert!(effects.iter().all(|effect| *effect == Effect::Cloned), "{effects:?}");
    }
    let told = |end: &mut End, device: &Device| end.session.next(&device.index).unwrap().unwrap();
    let (ours, theirs) = (told(&mut here, one), told(&mut there, other));
    assert!(matches!(ours, Message::Forgotten { last: true, .. }), "that comes first: {ours:?}");
    assert_eq!(there.take(other, ours).unwrap(), []);
    assert_eq!(here.take(one, theirs).unwrap(), []);
    (here, there)
}

/// All that one has to say, taken by the other.
pub fn pass(from: &mut (&mut Device, &mut End), to: &mut (&mut Device, &mut End)) -> Vec<Message> {
    let mut said = Vec::new();
    while let Some(message) = from.1.session.next(&from.0.index).unwrap() {
        to.1.take(to.0, message.clone()).unwrap();
        said.push(message);
    }
    said
}

/// Both say all they have, until there is nothing more. Answers what was said.
pub fn talk(one: &mut Device, other: &mut Device) -> Vec<Message> {
    let (mut here, mut there) = greet(one, other);
    let mut all = Vec::new();
    loop {
        let (mut one, mut other) = ((&mut *one, &mut here), (&mut *other, &mut there));
        let mut said = pass(&mut one, &mut other);
        said.extend(pass(&mut other, &mut one));
        if said.is_empty() {
            return all;
        }
        all.extend(said);
    }
}

/// How many registers were sent.
pub fn registers(said: &[Message]) -> usize {
    let count = |message: &Message| match message {
        Message::Batch { registers, .. } => registers.len(),
        _ => 0,
    };
    said.iter().map(count).sum()
}
