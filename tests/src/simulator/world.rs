//! Replicas and the connections between them.

use super::history::{History, Step};
use super::person;
use super::replica::Replica;
use super::{Outcome, check, story};
use kith_core::clock::WallMs;
use kith_core::effect::Effect;
use kith_core::exchange::Session;
use kith_core::id::WriterId;
use kith_core::wire;
use std::collections::VecDeque;

/// After so many rounds of everybody talking to everybody there must be nothing left to say.
const ROUNDS_MAX: usize = 400;

/// One way of a connection: the session that sends, and the frames under way.
struct Way {
    session: Session,
    frames: VecDeque<Vec<u8>>,
}

/// A connection, and both ways of it: from the first of the pair, and from the second.
struct Connection {
    ways: [Way; 2],
}

/// A pair of replicas that can talk.
struct Link {
    ends: [usize; 2],
    connection: Option<Connection>,
}

/// Everything there is in a simulation.
pub(super) struct World {
    pub(super) replicas: Vec<Replica>,
    links: Vec<Link>,
    now: WallMs,
    operations: u64,
    messages: u64,
}

impl World {
    pub(super) fn new(history: &History) -> Self {
        let now = WallMs(1_700_000_000_000);
        let numbers = 0..u8::try_from(history.replicas).expect("there are few replicas");
        let link = |(a, b): (usize, usize)| Link { ends: [a, b], connection: None };
        World {
            replicas: numbers.map(|number| Replica::new(number, now)).collect(),
            links: history.links().into_iter().map(link).collect(),
            now,
            operations: 0,
            messages: 0,
        }
    }

    pub(super) fn outcome(&self) -> Outcome {
        Outcome {
            operations: self.operations,
            messages: self.messages,
            repairs: check::repairs(&self.replicas[0]),
            violation: None,
        }
    }

    pub(super) fn step(&mut self, step: &Step) -> Result<(), String> {
        story::tell(|| format!("{step:?}"));
        let count = self.replicas.len();
        match *step {
            Step::Operate { replica, chance } => {
                let replica = &mut self.replicas[replica % count];
                self.operations += u64::from(person::operate(replica, self.now, chance));
            }
            Step::Connect { link } => self.connect(link % self.links.len()),
            Step::Cut { link } => {
                let at = link % self.links.len();
                self.links[at].connection = None;
            }
            Step::Send { link, back, most } => {
                for _ in 0..most {
                    self.send(link % self.links.len(), usize::from(back))?;
                }
            }
            Step::Deliver { link, back, most } => {
                for _ in 0..most {
                    self.deliver(link % self.links.len(), usize::from(!back))?;
                }
            }
            Step::Sync { replica } => self.replicas[replica % count].sync(),
            Step::Crash { replica } => {
                self.cut_all(replica % count);
                self.replicas[replica % count].crash(self.now);
            }
            Step::SetClock { replica, off_ms } => self.replicas[replica % count].off_ms = off_ms,
            Step::Wait { ms } => self.now.0 += ms,
        }
        Ok(())
    }

    fn cut_all(&mut self, replica: usize) {
        for link in self.links.iter_mut().filter(|link| link.ends.contains(&replica)) {
            link.connection = None;
        }
    }

    fn connect(&mut self, link: usize) {
        if self.links[link].connection.is_some() {
            return;
        }
        let [a, b] = self.links[link].ends;
        let open = |replicas: &mut [Replica], from: usize, to: usize| {
            let peer = replicas[to].device;
            // Nothing leaves that isn't on disk.
            replicas[from].sync();
            let Ok((mut session, hello)) = Session::open(&replicas[from].index, peer);
            // Small enough that a history has several.
            session.limit_batches(6);
            Way { session, frames: [wire::encode_frame(&hello)].into() }
        };
        let ways = [open(&mut self.replicas, a, b), open(&mut self.replicas, b, a)];
        self.links[link].connection = Some(Connection { ways });
    }

    /// One side sends its next message, if there is one. Says so.
    fn send(&mut self, link: usize, way: usize) -> Result<bool, String> {
        let Link { ends, connection: Some(connection) } = &mut self.links[link] else {
            return Ok(false);
        };
        let replica = &mut self.replicas[ends[way]];
        replica.sync();
        let way = &mut connection.ways[way];
        let Ok(message) = way.session.next(&replica.index);
        let Some(message) = message else { return Ok(false) };
        let frame = wire::encode_frame(&message);
        let (head, body) = frame.split_first_chunk().ok_or("a frame without a head")?;
        if wire::frame_len(*head) != Ok(body.len()) {
            return Err(format!("a frame of {} bytes says another length", body.len()));
        }
        way.frames.push_back(frame);
        Ok(true)
    }

    /// One message arrives that went one way, if one is under way. Says so.
    fn deliver(&mut self, link: usize, way: usize) -> Result<bool, String> {
        let Link { ends, connection: Some(connection) } = &mut self.links[link] else {
            return Ok(false);
        };
        let Some(frame) = connection.ways[way].frames.pop_front() else { return Ok(false) };
        let message = wire::decode(&frame[wire::FRAME_HEAD_BYTES..]);
        let message = message.map_err(|error| format!("an unreadable message: {error}"))?;
        let message = message.ok_or("a message of an unknown kind")?;
        let receiver = &mut self.replicas[ends[1 - way]];
        let context = receiver.context(self.now);
        let writer = WriterId(context.tag.0 ^ 0xffff);
        let session = &mut connection.ways[1 - way].session;
        let text = format!("{message:?}");
        story::tell(|| format!("{:?} receives {text}", receiver.device));
        let taken = receiver
            .transact(|index| session.receive(index, context, writer, message))
            .map_err(|error| format!("a message was refused: {error}: {text}"))?;
        self.messages += 1;
        if taken.contains(&Effect::Reincarnated) {
            return Err(format!("an index counts as rolled back that wasn't, after {text}"));
        }
        Ok(true)
    }

    /// Everything is healed: files are closed, all connections stand, until nobody has anything
    /// to say.
    pub(super) fn heal(&mut self) -> Result<(), String> {
        for replica in &mut self.replicas {
            for handle in core::mem::take(&mut replica.handles) {
                let content = replica.fresh_content();
                let _ = replica.publish(self.now, &handle, content);
            }
            replica.recover(self.now);
        }
        for link in 0..self.links.len() {
            self.connect(link);
        }
        for _ in 0..ROUNDS_MAX {
            let mut quiet = true;
            for link in 0..self.links.len() {
                for way in [0, 1] {
                    while self.send(link, way)? {
                        quiet = false;
                        // What goes on without end is found out by the rounds.
                        if !self.deliver(link, way)? {
                            break;
                        }
                    }
                    while self.deliver(link, way)? {
                        quiet = false;
                    }
                }
            }
            if quiet {
                return Ok(());
            }
        }
        Err(format!("after {ROUNDS_MAX} rounds somebody still has something to say"))
    }
}
