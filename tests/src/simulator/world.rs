//! Replicas and the connections between them.

use super::clones::Clones;
use super::forgetting::{Oblivion, Slice};
use super::history::{Back, History, Step};
use super::replica::Replica;
use super::rules::Repairs;
use super::timeline::Heard;
use super::{Outcome, person, story, watch};
use crate::memory_index::Mark;
use kith_core::clock::WallMs;
use kith_core::effect::Effect;
use kith_core::exchange::{ProtocolError, ReceiveError, Session};
use kith_core::id::{DeviceId, InodeId};
use kith_core::index::Node;
use kith_core::operation::{AttributeChange, Operation};
use kith_core::wire::{self, Message};
use std::collections::{BTreeSet, VecDeque};

/// After so many rounds of everybody talking to everybody there must be nothing left to say.
const ROUNDS_MAX: usize = 60;
/// How many connections a pair has at once, at most.
const CONNECTIONS_MAX: usize = 3;
/// How many replicas there are at most, copies included.
const REPLICAS_MAX: usize = 7;

/// A frame under way, and what its sender had heard of.
struct Frame {
    bytes: Vec<u8>,
    heard: Heard,
}

/// One way of a connection: the session that sends, unless its side is gone, and the frames under
/// way.
struct Way {
    session: Option<Session>,
    frames: VecDeque<Frame>,
}

/// A connection, and both ways of it: from the first of the pair, and from the second.
struct Connection {
    ways: [Way; 2],
}

/// A pair of replicas that can talk.
struct Link {
    ends: [usize; 2],
    connections: Vec<Connection>,
}

/// How much of a change a replica has had.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Had {
    All,
    /// Perhaps not what comes with it in the next batch: what parted from a file may be gone from
    /// that before it is there as another.
    Part,
}

/// A replica, and its place in the world.
pub(super) struct Place {
    pub(super) replica: Replica,
    pub(super) watch: watch::Watch,
    /// Whether it is a device of the circle now.
    member: bool,
    /// Whether it was ever one.
    joined: bool,
    /// A copy that doesn't take part in the healing.
    stray: bool,
}

/// Everything there is in a simulation.
pub(super) struct World {
    pub(super) places: Vec<Place>,
    links: Vec<Link>,
    /// Which links the network lets through.
    through: u32,
    now: WallMs,
    careful: bool,
    steps: u64,
    operations: u64,
    messages: u64,
    repairs: Repairs,
    pub(super) oblivion: Oblivion,
    forgets: bool,
    /// Which identities were ever on two machines, and on which machines there was a sign of it.
    pub(super) clones: Clones,
    identities: u8,
}

impl World {
    pub(super) fn new(history: &History) -> Self {
        let now = WallMs(1_700_000_000_000);
        let forgets = history.forgets();
        let place = |number: usize| {
            let member = number + history.late < history.replicas;
            let number = u8::try_from(number).expect("there are few replicas");
            let mut replica = Replica::new(number, !member, now);
            replica.keeps_touches = forgets;
            let watch = watch::Watch::default();
            Place { replica, watch, member, joined: member, stray: false }
        };
        let link = |(a, b): (usize, usize)| Link { ends: [a, b], connections: Vec::new() };
        World {
            places: (0..history.replicas).map(place).collect(),
            links: history.links().into_iter().map(link).collect(),
            through: u32::MAX,
            now,
            careful: history.careful,
            steps: history.seed,
            operations: 0,
            messages: 0,
            repairs: Repairs::default(),
            oblivion: Oblivion::default(),
            forgets,
            clones: Clones::new(history.keeps_time()),
            identities: 0,
        }
    }

    pub(super) fn outcome(self) -> Outcome {
        Outcome {
            operations: self.operations,
            messages: self.messages,
            repairs: self.repairs.counts(),
            forgotten: self.oblivion.registers(),
            violation: None,
        }
    }

    /// The replicas that take part in the healing.
    pub(super) fn healed(&self) -> impl Iterator<Item = &Replica> {
        self.places.iter().filter(|place| !place.stray).map(|place| &place.replica)
    }

    pub(super) fn step(&mut self, step: &Step) -> Result<(), String> {
        story::tell(|| format!("{step:?}"));
        self.steps += 1;
        let (count, links) = (self.places.len(), self.links.len());
        match *step {
            Step::Operate { replica, doing, chance } => {
                let at = replica % count;
                let (now, (replica, before)) = (self.now, self.begin(at));
                let done = person::operate(replica, now, doing, chance);
                self.operations += u64::from(done);
                self.look(at, before, Had::All)?;
            }
            Step::Connect { link, beside } => self.connect(link % links, beside),
            Step::Cut { link, which } => {
                let connections = &mut self.links[link % links].connections;
                if !connections.is_empty() {
                    connections.remove(which % connections.len());
                }
            }
            Step::Fade { link, which, back } => {
                let connections = &mut self.links[link % links].connections;
                let which = which % connections.len().max(1);
                if let Some(connection) = connections.get_mut(which) {
                    connection.end(usize::from(back));
                }
            }
            Step::Send { link, which, back, most } => {
                for _ in 0..most {
                    self.send(link % links, which, usize::from(back))?;
                }
            }
            Step::Deliver { link, which, back, most } => {
                for _ in 0..most {
                    self.deliver(link % links, which, usize::from(!back))?;
                }
            }
            Step::Meet { link, most } => {
                self.connect(link % links, false);
                self.talk(link % links, most)?;
            }
            Step::Part { links } => {
                self.through = links;
                for (at, link) in self.links.iter_mut().enumerate() {
                    if links >> (at % 32) & 1 == 0 {
                        link.connections.clear();
                    }
                }
            }
            Step::Sync { replica } => self.places[replica % count].replica.sync(),
            Step::Crash { replica, chance } => {
                let now = self.now;
                self.stop(replica % count, |replica| replica.crash(now, chance))?;
            }
            Step::RollBack { replica, chance } => {
                let now = self.now;
                self.stop(replica % count, |replica| replica.roll_back(now, chance))?;
            }
            Step::Lose { replica } => {
                let now = self.now;
                self.stop(replica % count, |replica| replica.lose(now))?;
            }
            Step::Clone { replica, stray } => self.copy(replica % count, stray)?,
            Step::Leave { replica } => self.leave(replica % count)?,
            Step::Rejoin { replica, back } => self.rejoin(replica % count, back)?,
            Step::Sweep { replica, kept_ms, limit, most } => {
                self.sweep(replica % count, kept_ms, limit, most)?;
            }
            Step::SetClock { replica, off_ms } => {
                self.places[replica % count].replica.off_ms = off_ms;
            }
            Step::Wait { ms } => self.now.0 += ms,
        }
        Ok(())
    }

    fn begin(&mut self, at: usize) -> (&mut Replica, Mark) {
        let replica = &mut self.places[at].replica;
        let mark = replica.index.mark();
        (replica, mark)
    }

    /// Looks at a replica that changed since `before`.
    fn look(&mut self, at: usize, before: Mark, had: Had) -> Result<(), String> {
        let place = &self.places[at];
        if place.replica.index.mark() == before {
            return Ok(());
        }
        let closely = self.looks_closely();
        watch::no_version_vanishes(&place.replica, before)?;
        let seen = watch::see(&place.replica, closely)?;
        let acts = self.places.iter().flat_map(|place| &place.replica.acts);
        if had == Had::All {
            self.places[at].watch.nothing_disappears(&self.places[at].replica, &seen, &acts)?;
        }
        let place = &mut self.places[at];
        self.repairs.note(&place.replica, &seen, &mut place.watch);
        place.watch.keep(seen);
        Ok(())
    }

    /// Whether the view is computed anew at this step.
    fn looks_closely(&self) -> bool {
        self.careful || (self.steps.wrapping_mul(0x9e37_79b9) >> 16).is_multiple_of(32)
    }

    /// Something happens to a replica by which its process ends.
    fn stop(&mut self, at: usize, what: impl FnOnce(&mut Replica)) -> Result<(), String> {
        for link in &mut self.links {
            let Some(side) = link.ends.iter().position(|end| *end == at) else { continue };
            link.connections.iter_mut().for_each(|connection| connection.end(side));
            // What it had sent may still arrive, and is another's to whoever hears of it only then.
            let mut sent = link.connections.iter().map(|it| &it.ways[side].frames);
            if sent.any(|frames| !frames.is_empty()) {
                self.clones.note_rest(self.places[at].replica.device);
            }
        }
        let closely = self.looks_closely();
        if self.forgets {
            self.oblivion.note_knowledge(&self.places[at].replica);
        }
        let place = &mut self.places[at];
        what(&mut place.replica);
        self.oblivion.cut(at, place.replica.kept_commits());
        if place.joined {
            // An old disk may be from before.
            place.replica.join();
        }
        place.watch = watch::Watch::default();
        place.watch.keep(watch::see(&place.replica, closely)?);
        Ok(())
    }

    /// Copies a replica to another machine.
    fn copy(&mut self, at: usize, stray: bool) -> Result<(), String> {
        if self.places.len() == REPLICAS_MAX {
            return Ok(());
        }
        let number = u8::try_from(self.places.len()).expect("there are few replicas");
        let (now, place) = (self.now, &mut self.places[at]);
        let replica = place.replica.fork(number, now);
        let mut watch = watch::Watch::default();
        watch.keep(watch::see(&replica, true)?);
        let stray = stray || place.stray;
        let (member, joined) = (place.member, place.joined);
        self.clones.note_copy();
        let copy = self.places.len();
        self.places.push(Place { replica, watch, member, joined, stray });
        let others = self.links.iter().filter_map(|link| {
            let side = link.ends.iter().position(|end| *end == at)?;
            let mut ends = link.ends;
            ends[side] = copy;
            Some(Link { ends, connections: Vec::new() })
        });
        let others: Vec<Link> = others.collect();
        self.links.extend(others);
        Ok(())
    }

    /// A replica leaves the circle; one that isn't in it joins it.
    pub(super) fn leave(&mut self, at: usize) -> Result<(), String> {
        if !self.places[at].member {
            return self.rejoin(at, Back::AsItWas);
        }
        self.places[at].member = false;
        self.cut_off(at);
        Ok(())
    }

    /// A replica joins the circle: under another identity, if it was ever in it.
    fn rejoin(&mut self, at: usize, back: Back) -> Result<(), String> {
        self.cut_off(at);
        if self.places[at].joined {
            let now = self.now;
            self.identities += 1;
            let mut device = [0xee; 32];
            device[0] = self.identities;
            self.stop(at, |replica| replica.become_another(DeviceId(device), now, back))?;
        }
        let place = &mut self.places[at];
        place.replica.join();
        (place.member, place.joined) = (true, true);
        Ok(())
    }

    fn cut_off(&mut self, at: usize) {
        for link in self.links.iter_mut().filter(|link| link.ends.contains(&at)) {
            link.connections.clear();
        }
    }

    /// The other devices of the circle, as a replica knows them: one that is alone knows nobody.
    fn others(&self, at: usize) -> Vec<DeviceId> {
        if !self.places[at].member {
            return Vec::new();
        }
        let own = self.places[at].replica.device;
        let members = self.places.iter().filter(|place| place.member);
        let others = members.map(|place| place.replica.device).filter(|device| *device != own);
        others.collect::<BTreeSet<_>>().into_iter().collect()
    }

    /// A replica forgets what it can, in slices. Says whether anything went.
    pub(super) fn sweep(
        &mut self,
        at: usize,
        kept_ms: u64,
        limit: usize,
        most: usize,
    ) -> Result<bool, String> {
        let members = self.others(at);
        let (mut any, mut after) = (false, None);
        for _ in 0..most {
            let slice = Slice { members: &members, kept_ms, after, limit };
            let (now, (replica, mark)) = (self.now, self.begin(at));
            let (swept, before) = replica.sweep(now, slice);
            story::tell(|| format!("{:?} forgets {swept:?}", replica.device));
            any |= swept.forgotten > 0;
            after = swept.after;
            if self.places[at].replica.index.mark() != mark {
                let replicas: Vec<&Replica> =
                    self.places.iter().map(|place| &place.replica).collect();
                let acts = replicas.iter().flat_map(|replica| &replica.acts);
                self.oblivion.look(&replicas, at, (slice, before, mark), &acts)?;
                if self.looks_closely() {
                    watch::view_is_kept_up(&self.places[at].replica)?;
                }
            }
            if after.is_none() {
                break;
            }
        }
        Ok(any)
    }

    fn connect(&mut self, link: usize, beside: bool) {
        let Link { ends, connections } = &mut self.links[link];
        let live = connections.iter().any(|it| it.ways.iter().all(|way| way.session.is_some()));
        let reach = self.through >> (link % 32) & 1 == 1;
        let members = ends.iter().all(|end| self.places[*end].member);
        if (live && !beside) || !reach || !members || connections.len() == CONNECTIONS_MAX {
            return;
        }
        let [a, b] = *ends;
        let mut open = |from: usize, to: usize| {
            let peer = self.places[to].replica.device;
            let replica = &mut self.places[from].replica;
            // Nothing leaves that isn't on disk.
            replica.sync();
            let Ok((mut session, hello)) = Session::open(&replica.index, peer);
            // Small enough that a history has several.
            session.limit_batches(6);
            let hello = Frame::new(wire::encode_frame(&hello), replica);
            Way { session: Some(session), frames: [hello].into() }
        };
        let ways = [open(a, b), open(b, a)];
        connections.push(Connection { ways });
    }

    /// One side sends its next message, if there is one. Says so.
    fn send(&mut self, link: usize, which: usize, way: usize) -> Result<bool, String> {
        let Link { ends, connections } = &mut self.links[link];
        let which = which % connections.len().max(1);
        let Some(connection) = connections.get_mut(which) else { return Ok(false) };
        let replica = &mut self.places[ends[way]].replica;
        let way = &mut connection.ways[way];
        let Some(session) = &mut way.session else { return Ok(false) };
        replica.sync();
        let Ok(message) = session.next(&replica.index);
        let Some(message) = message else { return Ok(false) };
        story::tell(|| format!("{:?} sends {message:?}", replica.device));
        let frame = wire::encode_frame(&message);
        let (head, body) = frame.split_first_chunk().ok_or("a frame without a head")?;
        if wire::frame_len(*head) != Ok(body.len()) {
            return Err(format!("a frame of {} bytes says another length", body.len()));
        }
        way.frames.push_back(Frame::new(frame, replica));
        Ok(true)
    }

    /// One message arrives that went one way, if one is under way. Says so.
    fn deliver(&mut self, link: usize, which: usize, way: usize) -> Result<bool, String> {
        let Link { ends, connections } = &mut self.links[link];
        let which = which % connections.len().max(1);
        let Some(connection) = connections.get_mut(which) else { return Ok(false) };
        let Some(frame) = connection.ways[way].frames.pop_front() else { return Ok(false) };
        let at = ends[1 - way];
        let is_of_a_former_life = connection.ways[way].session.is_none();
        let Some(session) = &mut connection.ways[1 - way].session else { return Ok(true) };
        let decode = || wire::decode(&frame.bytes[wire::FRAME_HEAD_BYTES..]);
        let message = decode().map_err(|error| format!("an unreadable message: {error}"))?;
        let message = message.ok_or("a message of an unknown kind")?;
        let place = &mut self.places[at];
        let context = place.replica.context(self.now);
        let writer = place.replica.writer();
        let before = place.replica.index.mark();
        story::tell(|| format!("{:?} receives {message:?}", place.replica.device));
        if is_of_a_former_life && matches!(message, Message::Hello { .. }) {
            // It may say more of this device than the sender's next life knew, and come after that.
            self.clones.note_rest(place.replica.device);
        }
        let taken =
            place.replica.transact(|index| session.receive(index, context, writer, message));
        if let Err(ReceiveError::Protocol(ProtocolError::Forgotten)) = taken {
            // The sender is to hear first, in the next one.
            connections.remove(which);
            return Ok(true);
        }
        let taken =
            taken.map_err(|error| format!("a message was refused: {error}: {:?}", decode()));
        place.replica.heard.join(&frame.heard);
        self.messages += 1;
        let effects = taken?;
        if effects.contains(&Effect::Cloned) {
            self.clones.note_sign(place.replica.device, at)?;
        }
        if effects.contains(&Effect::Reincarnated) {
            return Err(format!("an index counts as another's that isn't, after {:?}", decode()));
        }
        self.look(at, before, Had::Part)?;
        Ok(true)
    }

    /// A pair talks over its last connection.
    fn talk(&mut self, link: usize, most: usize) -> Result<bool, String> {
        let mut quiet = true;
        let Some(which) = self.links[link].connections.len().checked_sub(1) else {
            return Ok(quiet);
        };
        for _ in 0..most {
            let mut said = false;
            for way in [0, 1] {
                said |= self.send(link, which, way)?;
                while self.deliver(link, which, way)? {
                    said = true;
                }
            }
            if !said {
                break;
            }
            quiet = false;
        }
        Ok(quiet)
    }

    /// Everything is healed: files are closed, all connections stand, until nobody has anything
    /// to say.
    pub(super) fn heal(&mut self) -> Result<(), String> {
        story::tell(|| "everything heals".to_owned());
        self.through = u32::MAX;
        let stray: Vec<bool> = self.places.iter().map(|place| place.stray).collect();
        self.links.retain(|link| !link.ends.iter().any(|end| stray[*end]));
        for at in 0..self.places.len() {
            let (now, (replica, before)) = (self.now, self.begin(at));
            for handle in core::mem::take(&mut replica.handles) {
                let content = replica.fresh_content();
                let _ = replica.publish(now, &handle, content);
            }
            replica.recover(now);
            self.look(at, before, Had::All)?;
            // Nobody waits for a copy that is seen no more.
            if self.places[at].stray {
                self.places[at].member = false;
            } else if !self.places[at].member {
                self.leave(at)?;
            }
        }
        self.talk_out()
    }

    /// All connections stand, until nobody has anything to say.
    pub(super) fn talk_out(&mut self) -> Result<(), String> {
        for link in 0..self.links.len() {
            self.links[link].connections.clear();
        }
        for _ in 0..ROUNDS_MAX {
            let mut quiet = true;
            for link in 0..self.links.len() {
                self.connect(link, false);
                quiet &= self.talk(link, 1000)?;
            }
            if quiet {
                return Ok(());
            }
        }
        Err(format!("after {ROUNDS_MAX} rounds somebody still has something to say"))
    }
}

impl World {
    /// Everybody forgets all that can be, in a history in which somebody forgot something. Says
    /// whether it is one.
    pub(super) fn forget_all(&mut self) -> Result<bool, String> {
        if self.oblivion.registers() == 0 {
            return Ok(false);
        }
        story::tell(|| "everybody forgets".to_owned());
        // Later than all clocks that were ever wrong.
        self.now.0 += 1000;
        for at in 0..self.places.len() {
            self.places[at].replica.off_ms = 0;
            while !self.places[at].stray && self.sweep(at, 0, 1000, 1)? {}
        }
        self.talk_out()?;
        Ok(true)
    }

    /// Of a device that is on two machines, which talk to one other in turns, one notices.
    pub(super) fn copies_are_noticed(&mut self) -> Result<(), String> {
        for at in 0..self.links.len() {
            for other in at + 1..self.links.len() {
                let (one, two) = (self.links[at].ends, self.links[other].ends);
                let Some(peer) = one.into_iter().find(|end| two.contains(end)) else { continue };
                let far = |ends: [usize; 2]| ends[usize::from(ends[0] == peer)];
                let devices = [far(one), far(two), peer].map(|end| self.places[end].replica.device);
                if devices[0] != devices[1] || devices[0] == devices[2] {
                    continue;
                }
                for (round, link) in (0..).zip([at, other, at, other]) {
                    for end in [far(one), far(two)] {
                        let mode = Some(0o700 + round);
                        let change = AttributeChange { mode, ..AttributeChange::default() };
                        let node = Node::Inode(InodeId::ROOT);
                        let operation = Operation::SetAttributes { node, change };
                        let _ = self.places[end].replica.apply(self.now, operation);
                    }
                    self.links[link].connections.clear();
                    self.connect(link, false);
                    self.talk(link, 1000)?;
                }
                if !self.clones.is_noticed(devices[0]) {
                    return Err(format!("nobody notices that {:?} is on two machines", devices[0]));
                }
            }
        }
        Ok(())
    }
}

impl Frame {
    fn new(bytes: Vec<u8>, sender: &Replica) -> Frame {
        let mut heard = sender.heard.clone();
        heard.hear(sender.present());
        Frame { bytes, heard }
    }
}

impl Connection {
    /// One side is gone, and with it what is under way to it.
    fn end(&mut self, side: usize) {
        self.ways[side].session = None;
        self.ways[1 - side].frames.clear();
    }
}
