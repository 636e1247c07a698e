//! How two devices bring each other up to date: one session for each connection and share.
//!
//! Each side says Hello, and then sends what comes in its own log after the place that the other
//! has reached, leaving out what the other knows already. Once the other has had all of the log,
//! it is told what the sender knew, and takes that over. So the work is proportional to what
//! changed, goes on where it broke off, and passes through third devices.
//!
//! A session is plain memory, lost with its connection. What must last is in the index: the
//! place reached in each device's log, put there in the transaction that brings what precedes it.

mod forgetting;
mod outgoing;
mod reincarnation;
mod stranger;

use crate::codec::WRITERS_MAX;
use crate::effect::Effect;
use crate::forget::{entry_dots, inode_dots};
use crate::id::{Cursor, DeviceId, Dot, Reached, ShareId, Tag, WriterId};
use crate::index::{FormerWriter, Index, IndexRead, Register, ReplicaState};
use crate::operation::Context;
use crate::receive;
use crate::register::Author;
use crate::vector::VersionVector;
use crate::wire::{BATCH_REGISTERS_MAX, Message, Versions};
use alloc::collections::BTreeSet;
use alloc::vec;
use alloc::vec::Vec;
use forgetting::Forgetting;
use outgoing::{Ahead, Filled};

pub use outgoing::BATCH_TARGET_BYTES;
pub use reincarnation::reincarnate;
pub use stranger::note_clone;

/// How many changes that the peer itself sent are remembered, so as not to be sent back to it
/// before it says what it knows.
const HEARD_MAX: usize = 1 << 17;

/// Why a peer's message can't be taken. The connection is closed with this reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ProtocolError {
    /// The peer speaks other versions of the protocol.
    #[error("the other device speaks versions {oldest} to {newest} of the protocol: update Kith")]
    Versions {
        /// The oldest that it speaks.
        oldest: u32,
        /// The newest that it speaks.
        newest: u32,
    },
    /// The stream is about another share.
    #[error("the other device means another share")]
    Share,
    /// Something else came before a Hello.
    #[error("a message came before the greeting")]
    NotGreeted,
    /// Something came before all was told that the peer has forgotten.
    #[error("a message came before what is forgotten was told")]
    Untold,
    /// A change came of what this device has forgotten: the peer is to hear of that first, so that the
    /// session must begin again.
    #[error("a change came of what is forgotten here")]
    Forgotten,
    /// A second Hello came.
    #[error("the greeting came twice")]
    GreetedTwice,
    /// A message doesn't begin where the last one ended.
    #[error("a message about {after} came where {reached} was reached")]
    Gap {
        /// Where it begins.
        after: u64,
        /// What was reached.
        reached: u64,
    },
    /// A message ends before it begins, or in another writer's log.
    #[error("a message's end is not in the log it is about")]
    End,
    /// More writers than a share can have.
    #[error("more than {WRITERS_MAX} writers")]
    Writers,
    /// This device's index goes on under a new writer, so that the session must begin again.
    #[error("this device goes on under a new writer")]
    Reincarnated,
}

/// Why a message wasn't taken; the transaction is to be rolled back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ReceiveError<E> {
    /// The peer broke the protocol.
    #[error("the other device broke the protocol: {0}")]
    Protocol(ProtocolError),
    /// The storage failed.
    #[error(transparent)]
    Storage(#[from] E),
}

/// What the peer said of itself.
#[derive(Clone, Debug)]
struct Peer {
    /// Its writer.
    writer: WriterId,
    /// Its name.
    author: Author,
    /// What it is known to know.
    knowledge: VersionVector,
    /// The place in its log up to which everything came, in this session. Before its first
    /// message that is either where the index says, or 0.
    reached: Option<u64>,
    /// Changes that it sent and hasn't said that it knows: it does.
    heard: BTreeSet<Dot>,
}

/// The exchange of one share over one connection.
#[derive(Clone, Debug)]
pub struct Session {
    device: DeviceId,
    share: ShareId,
    writer: WriterId,
    /// Where this device had come in the peer's log when the session began: what it says in its
    /// greeting.
    known: Option<Reached>,
    /// The writers that this device had before.
    former: Vec<FormerWriter>,
    peer: Option<Peer>,
    /// The place in this device's log up to which the peer has had everything.
    sent: u64,
    /// Parts of a large register that come next, the last one first, and the register's place.
    parts: (u64, Vec<Register>),
    /// What the peer has had before its turn.
    ahead: Ahead,
    /// What was last said to be known, and where.
    stated: Option<(u64, VersionVector)>,
    /// How many registers a batch has at most, if none come ahead of their turn.
    batch_max: usize,
    forgetting: Forgetting,
}

/// Everything that a replica knows: what it knows of others, and all of its own changes.
#[must_use]
pub fn full_knowledge(state: &ReplicaState) -> VersionVector {
    let mut knowledge = state.knowledge.clone();
    knowledge.include(Dot { writer: state.writer, number: state.number });
    knowledge
}

/// The end of the log, as a cursor.
fn cursor_at<I: IndexRead>(index: &I, writer: WriterId, number: u64) -> Result<Cursor, I::Error> {
    let tag = index.tag(number)?.unwrap_or(Tag(0));
    Ok(Cursor { writer, number, tag })
}

/// The changes that made a register's values what they are.
fn dots(register: &Register) -> Vec<Dot> {
    match register {
        Register::Inode(inode) => inode_dots(inode),
        Register::Entry(entry) => entry_dots(entry),
    }
}

impl Session {
    /// Begins a session with `peer`, and answers the greeting to send first.
    ///
    /// # Errors
    /// The storage's.
    pub fn open<I: IndexRead>(index: &I, peer: DeviceId) -> Result<(Session, Message), I::Error> {
        let state = index.state()?;
        let known = index.reached(peer)?;
        let hello = Message::Hello {
            versions: Versions::OURS,
            share: state.share,
            head: cursor_at(index, state.writer, state.number)?,
            knowledge: full_knowledge(&state),
            reached: known,
            author: state.author.clone(),
        };
        let session = Session {
            device: peer,
            share: state.share,
            writer: state.writer,
            known,
            former: index.former_writers()?,
            peer: None,
            sent: 0,
            parts: (0, Vec::new()),
            ahead: Ahead::default(),
            stated: None,
            batch_max: BATCH_REGISTERS_MAX,
            forgetting: Forgetting::default(),
        };
        Ok((session, hello))
    }

    /// Makes batches of at most this many registers, 1 to [`BATCH_REGISTERS_MAX`], which is also what
    /// they have at first, and what those need that are shown with them: for slow links, and for tests.
    pub fn limit_batches(&mut self, registers: usize) {
        self.batch_max = registers.clamp(1, BATCH_REGISTERS_MAX);
    }

    /// What the peer is known to know, once it has said Hello.
    #[must_use]
    pub fn peer_knowledge(&self) -> Option<&VersionVector> {
        self.peer.as_ref().map(|peer| &peer.knowledge)
    }

    /// Whether it is over, because this device goes on under a new writer.
    ///
    /// # Errors
    /// The storage's.
    pub fn is_over<I: IndexRead>(&self, index: &I) -> Result<bool, I::Error> {
        Ok(index.state()?.writer != self.writer)
    }

    /// The peer's name, once it has said Hello.
    #[must_use]
    pub fn peer_author(&self) -> Option<&str> {
        self.peer.as_ref().map(|peer| peer.author.as_str())
    }

    /// Takes one message, in the transaction that `index` is. `new_writer` is random, and used
    /// if the message proves that this device's index was rolled back or cloned: then the answer
    /// is [`Effect::Reincarnated`], and this session and all others are to be opened again.
    ///
    /// # Errors
    /// [`ReceiveError`]; the transaction is to be rolled back and the connection to be closed.
    pub fn receive<I: Index>(
        &mut self,
        index: &mut I,
        context: Context,
        new_writer: WriterId,
        message: Message,
    ) -> Result<Vec<Effect>, ReceiveError<I::Error>> {
        let state = index.state()?;
        if state.writer != self.writer {
            return Err(ReceiveError::Protocol(ProtocolError::Reincarnated));
        }
        if let Some(below) = self.proof_of_rollback(index, &state, &message)? {
            let confirmed =
                index.reached(state.device)?.filter(|own| own.head.writer == state.writer);
            let confirmed = confirmed.map_or(0, |own| own.number).min(below - 1);
            reincarnate(index, context, new_writer, confirmed)?;
            return Ok(vec![Effect::Reincarnated]);
        }
        let stored = self.known;
        match message {
            Message::Hello { versions, share, head, knowledge, reached, author } => {
                self.check_greeting(versions, share)?;
                let mut effects = Vec::new();
                if let Some(reached) = reached {
                    let known = stranger::recognises(index, &state, &self.former, reached.head)?;
                    if known || sabotaged!(AnyCursorCounts) {
                        self.sent = reached.number;
                        confirm(index, &state, reached)?;
                    }
                    let (former, device, now) = (&self.former, self.device, context.now);
                    if stranger::heed(
                        index,
                        &state,
                        former,
                        device,
                        (reached.head, &knowledge),
                        now,
                    )? {
                        effects = note_clone(index, now)?;
                    }
                }
                self.forgetting.begin(self.sent);
                forgetting::note_statement(index, self.device, &knowledge, true)?;
                if sabotaged!(KnowledgeTooEarly) {
                    let mut state = state;
                    state.knowledge.join(&knowledge);
                    index.put_state(&state)?;
                }
                let (writer, heard) = (head.writer, BTreeSet::new());
                self.peer = Some(Peer { writer, author, knowledge, reached: None, heard });
                Ok(effects)
            }
            Message::Batch { after, registers, upto } => {
                self.greeted()?;
                self.forgetting.check_told()?;
                let registers = forgetting::leave_out(index, &state, registers)?;
                let former = &self.former;
                let peer = self.peer.as_mut();
                let peer = peer.ok_or(ReceiveError::Protocol(ProtocolError::NotGreeted))?;
                let device = self.device;
                let reached = advance(peer, stored, after, upto)?;
                let made = registers.iter().flat_map(dots);
                let made: Vec<Dot> = made.filter(|dot| !peer.knowledge.covers(*dot)).collect();
                let strangers = index.strangers()?;
                let sign = stranger::made_elsewhere(&registers, former, &strangers, context.now);
                let mut effects = if sabotaged!(CrashSplits) && context.tag.0.is_multiple_of(8) {
                    Vec::new()
                } else {
                    receive::receive(index, context, registers)?
                };
                self.forgetting.watch(index, &effects)?;
                if let Some(at) = sign {
                    effects.extend(note_clone(index, at)?);
                }
                index.put_reached(device, upto)?;
                peer.reached = Some(reached);
                if peer.heard.len() + made.len() <= HEARD_MAX {
                    peer.heard.extend(made);
                }
                Ok(effects)
            }
            Message::Knowledge { after, at, knowledge } => {
                self.greeted()?;
                self.forgetting.check_told()?;
                let (device, peer) = self.greeted()?;
                let reached = advance(peer, stored, after, Reached::all(at))?;
                let mut state = state;
                let theirs = knowledge.dots().filter(|dot| dot.writer != state.writer);
                theirs.for_each(|dot| state.knowledge.include(dot));
                if state.knowledge.len() >= WRITERS_MAX {
                    return Err(ReceiveError::Protocol(ProtocolError::Writers));
                }
                index.put_state(&state)?;
                index.put_reached(device, Reached::all(at))?;
                peer.reached = Some(reached);
                peer.learn(&knowledge)?;
                forgetting::note_statement(index, device, &knowledge, false)?;
                Ok(self.forgetting.heard_rest(index, context)?)
            }
            Message::Status { knowledge, meant, .. } => {
                let (device, peer) = self.greeted()?;
                peer.learn(&knowledge)?;
                forgetting::note_statement(index, device, &knowledge, false)?;
                // Nobody vouches for what he did himself.
                let others = meant.into_iter().filter(|(writer, _)| *writer != peer.writer);
                for (writer, upto) in others {
                    index.note_meant(writer, upto)?;
                }
                Ok(Vec::new())
            }
            Message::Forgotten { pages, last, knowledge, heard } => {
                let (device, peer) = self.greeted()?;
                peer.learn(&knowledge)?;
                forgetting::note_statement(index, device, &knowledge, false)?;
                let mut known = knowledge;
                heard.into_iter().for_each(|heard| known.join(&heard));
                Ok(self.forgetting.hear(index, context, pages, last, &known)?)
            }
            Message::Announce { .. } => {
                self.greeted()?;
                Ok(Vec::new())
            }
        }
    }

    /// The next message to send, from a snapshot that the caller makes durable before it sends.
    /// `None`: there is nothing new, or the peer hasn't said Hello.
    ///
    /// # Errors
    /// The storage's.
    pub fn next<I: IndexRead>(&mut self, index: &I) -> Result<Option<Message>, I::Error> {
        let state = index.state()?;
        let Some(peer) = self.peer.as_ref().filter(|_| state.writer == self.writer) else {
            return Ok(None);
        };
        if let Some(message) = self.forgetting.next(index, &state)? {
            return Ok(Some(message));
        }
        if !self.forgetting.is_told() {
            return Ok(None);
        }
        let after = self.sent;
        let head = cursor_at(index, state.writer, state.number)?;
        if let Some(part) = self.parts.1.pop() {
            if self.parts.1.is_empty() {
                self.sent = self.parts.0;
            }
            let upto = Reached { number: self.sent, head };
            return Ok(Some(Message::Batch { after, registers: vec![part], upto }));
        }
        let filled =
            outgoing::fill(index, peer, &mut self.ahead, after..state.number, self.batch_max)?;
        let (mut at, registers) = match filled {
            Filled::Batch { at, registers } => (at, registers),
            Filled::Parts { place, parts } => {
                self.parts = (place, parts);
                return self.next(index);
            }
        };
        if registers.is_empty() && at == state.number {
            let knowledge = full_knowledge(&state);
            if self.stated.as_ref() == Some(&(at, knowledge.clone())) {
                return Ok(None);
            }
            self.sent = at;
            self.stated = Some((at, knowledge.clone()));
            return Ok(Some(Message::Knowledge { after, at: head, knowledge }));
        }
        if sabotaged!(CursorTooFar) {
            at = state.number;
        }
        self.sent = at;
        let upto = Reached { number: at, head };
        Ok(Some(Message::Batch { after, registers, upto }))
    }

    /// Whether a message proves that this device's index was rolled back or cloned; and if so, the
    /// least number of which that is certain.
    fn proof_of_rollback<I: IndexRead>(
        &self,
        index: &I,
        state: &ReplicaState,
        message: &Message,
    ) -> Result<Option<u64>, I::Error> {
        let beyond = |knowledge: &VersionVector| {
            Some(state.number + 1).filter(|_| knowledge.number(state.writer) > state.number)
        };
        Ok(match message {
            Message::Hello { share, .. } if *share != self.share => None,
            Message::Hello { head, .. } if head.writer == state.writer => {
                Some(head.number.min(state.number) + 1)
            }
            Message::Hello { reached: Some(Reached { head, .. }), knowledge, .. }
                if head.writer == state.writer && head.number > 0 =>
            {
                // Without a tag it is so long ago that none is kept: no proof of anything.
                let is_known = head.number <= state.number
                    && index.tag(head.number)?.is_none_or(|tag| tag == head.tag);
                if is_known { beyond(knowledge) } else { Some(head.number) }
            }
            Message::Hello { knowledge, .. }
            | Message::Forgotten { knowledge, .. }
            | Message::Knowledge { knowledge, .. }
            | Message::Status { knowledge, .. } => beyond(knowledge),
            Message::Batch { registers, .. } => {
                let own = registers.iter().flat_map(dots).filter(|dot| dot.writer == state.writer);
                let is_beyond = own.map(|dot| dot.number).any(|number| number > state.number);
                is_beyond.then_some(state.number + 1)
            }
            Message::Announce { .. } => None,
        })
    }

    fn check_greeting<E>(&self, versions: Versions, share: ShareId) -> Result<(), ReceiveError<E>> {
        let error = if self.peer.is_some() {
            ProtocolError::GreetedTwice
        } else if Versions::OURS.common(versions).is_none() {
            ProtocolError::Versions { oldest: versions.oldest, newest: versions.newest }
        } else if share != self.share {
            ProtocolError::Share
        } else {
            return Ok(());
        };
        Err(ReceiveError::Protocol(error))
    }

    fn greeted<E>(&mut self) -> Result<(DeviceId, &mut Peer), ReceiveError<E>> {
        let peer = self.peer.as_mut().ok_or(ReceiveError::Protocol(ProtocolError::NotGreeted))?;
        Ok((self.device, peer))
    }
}

impl Peer {
    /// Whether it has what the change made.
    fn has(&self, dot: Dot) -> bool {
        self.knowledge.covers(dot) || self.heard.contains(&dot)
    }

    fn learn<E>(&mut self, knowledge: &VersionVector) -> Result<(), ReceiveError<E>> {
        self.knowledge.join(knowledge);
        if self.knowledge.len() > WRITERS_MAX {
            return Err(ReceiveError::Protocol(ProtocolError::Writers));
        }
        let known = &self.knowledge;
        self.heard.retain(|dot| !known.covers(*dot));
        Ok(())
    }
}

/// Checks that a message goes on where the last one ended, and answers where it ends itself.
fn advance<E>(
    peer: &Peer,
    known: Option<Reached>,
    after: u64,
    upto: Reached,
) -> Result<u64, ReceiveError<E>> {
    // The peer's first message begins where this device's greeting said, and so tells that the
    // peer knows that place in its log, whichever of its writers it names; or else at 0.
    let reached = match peer.reached {
        Some(reached) => reached,
        None if after == 0 => 0,
        None => known.map_or(0, |known| known.number),
    };
    if after != reached {
        return Err(ReceiveError::Protocol(ProtocolError::Gap { after, reached }));
    }
    if upto.head.writer != peer.writer || upto.number < after {
        return Err(ReceiveError::Protocol(ProtocolError::End));
    }
    Ok(upto.number)
}

/// Remembers that a peer holds this device's log as far as it says. What a device has
/// reached in its own log is what others have confirmed of it.
fn confirm<I: Index>(
    index: &mut I,
    state: &ReplicaState,
    reached: Reached,
) -> Result<(), I::Error> {
    if reached.head.writer != state.writer {
        return Ok(());
    }
    let before = index.reached(state.device)?.filter(|own| own.head.writer == state.writer);
    if before.is_some_and(|own| own.number >= reached.number) {
        return Ok(());
    }
    index.put_reached(state.device, reached)
}
