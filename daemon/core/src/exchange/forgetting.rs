//! What two devices tell each other of what they have forgotten.
//!
//! It comes before all registers, and later additions before all that follows them in the log: so a
//! device never sends what it was told is over. A register that crosses such news on its way, and
//! holds a change that the receiver doesn't know, ends the session: in the next one its sender
//! hears first.

use super::{ProtocolError, ReceiveError, dots, full_knowledge};
use crate::effect::Effect;
use crate::forget::{self, Page, Telling};
use crate::id::{DeviceId, InodeId};
use crate::index::{Index, IndexRead, Register, ReplicaState};
use crate::operation::Context;
use crate::vector::VersionVector;
use crate::wire::{FORGOTTEN_PAGES_MAX, Message};
use alloc::collections::{BTreeSet, VecDeque};
use alloc::vec::Vec;

/// How far the two are with telling.
#[derive(Clone, Debug, Default)]
pub(super) struct Forgetting {
    /// The place in this device's log up to which the peer was told of all pages.
    told: u64,
    /// Whether it was told so.
    is_all_told: bool,
    /// Whether the peer has told all that it had forgotten when the session began.
    is_all_heard: bool,
    /// What comes before anything else.
    first: VecDeque<Message>,
    /// What was left shown here, because the peer's registers may move it.
    waiting: BTreeSet<InodeId>,
}

impl Forgetting {
    /// The peer has had this device's log up to `sent`, and with it the pages that have their
    /// places there.
    pub(super) fn begin(&mut self, sent: u64) {
        self.told = sent;
    }

    /// Whether registers can be sent.
    pub(super) fn is_told(&self) -> bool {
        self.is_all_heard
    }

    /// Whether registers can be received.
    pub(super) fn check_told<E>(&self) -> Result<(), ReceiveError<E>> {
        match self.is_all_heard {
            true => Ok(()),
            false => Err(ReceiveError::Protocol(ProtocolError::Untold)),
        }
    }

    /// What is to be told next, if anything.
    pub(super) fn next<I: IndexRead>(
        &mut self,
        index: &I,
        state: &ReplicaState,
    ) -> Result<Option<Message>, I::Error> {
        if let Some(message) = self.first.pop_front() {
            return Ok(Some(message));
        }
        if self.is_all_told && self.told >= state.number {
            return Ok(None);
        }
        let pages = index.forgotten_after(self.told, FORGOTTEN_PAGES_MAX)?;
        let last = pages.len() < FORGOTTEN_PAGES_MAX;
        self.told = match pages.last() {
            Some((place, _)) if !last => *place,
            _ => state.number.max(self.told),
        };
        if pages.is_empty() && self.is_all_told {
            return Ok(None);
        }
        self.is_all_told |= last;
        let pages = if sabotaged!(ForgottenNotTold) { Vec::new() } else { pages };
        let pages = pages.into_iter().map(|(_, page)| page).collect();
        let knowledge = full_knowledge(state);
        let Telling { heard, own: pages } = Telling::of(index, pages)?;
        self.first.extend(heard.into_iter().map(|(known, pages)| {
            let (knowledge, heard) = (knowledge.clone(), Some(known));
            Message::Forgotten { pages, last: false, knowledge, heard }
        }));
        self.first.push_back(Message::Forgotten { pages, last, knowledge, heard: None });
        Ok(self.first.pop_front())
    }

    /// Takes in what the peer has told, which itself or others knew what `known` covers.
    pub(super) fn hear<I: Index>(
        &mut self,
        index: &mut I,
        context: Context,
        pages: Vec<Page>,
        last: bool,
        known: &VersionVector,
    ) -> Result<Vec<Effect>, I::Error> {
        self.is_all_heard |= last;
        if pages.is_empty() {
            return Ok(Vec::new());
        }
        let heard = forget::hear(index, context, pages, known)?;
        self.waiting.extend(heard.waiting);
        Ok(heard.effects)
    }

    /// Looks for what registers brought back to where something forgotten shows it: a file that was
    /// removed in a forgotten directory and has a version that its remover didn't see.
    pub(super) fn watch<I: Index>(
        &mut self,
        index: &I,
        effects: &[Effect],
    ) -> Result<(), I::Error> {
        if !index.forgets()? {
            return Ok(());
        }
        for effect in effects {
            let Effect::Name { parent, name } = effect else { continue };
            let Some(row) = index.shown(*parent, name)? else { continue };
            if index.is_forgotten_inode(*parent)?
                || index.is_forgotten_inode(row.node.inode())?
                || index.is_forgotten_entry(row.entry)?
            {
                self.waiting.insert(row.node.inode());
            }
        }
        Ok(())
    }

    /// The peer has told all that it knows: what was left for it to move goes on as new.
    pub(super) fn heard_rest<I: Index>(
        &mut self,
        index: &mut I,
        context: Context,
    ) -> Result<Vec<Effect>, I::Error> {
        forget::settle(index)?;
        let waiting = core::mem::take(&mut self.waiting);
        if waiting.is_empty() || sabotaged!(WaitingStays) {
            return Ok(Vec::new());
        }
        forget::take_up(index, context, waiting)
    }
}

/// What is left of a batch without registers of which this device knows everything, and that it
/// has forgotten.
pub(super) fn leave_out<I: Index>(
    index: &I,
    state: &ReplicaState,
    mut registers: Vec<Register>,
) -> Result<Vec<Register>, ReceiveError<I::Error>> {
    if !index.forgets()? {
        return Ok(registers);
    }
    let known = full_knowledge(state);
    let mut left = Vec::with_capacity(registers.len());
    for register in registers.drain(..) {
        if forget::is_over(index, &register)? {
            if !dots(&register).into_iter().all(|dot| known.covers(dot)) {
                return Err(ReceiveError::Protocol(ProtocolError::Forgotten));
            }
            continue;
        }
        // Something living in a directory that is forgotten: its sender makes that a new one.
        if let Register::Entry(entry) = &register
            && entry.outlives_removal()
            && !known.covers(entry.place.dot)
            && index.is_forgotten_inode(entry.place.parent)?
        {
            return Err(ReceiveError::Protocol(ProtocolError::Forgotten));
        }
        left.push(register);
    }
    Ok(left)
}

/// Remembers what a device has said that it knows, if this device knows all of that: only then can
/// nothing be on its way from there that would change what is forgotten. A device that greets with
/// less than it had said was rolled back.
pub(super) fn note_statement<I: Index>(
    index: &mut I,
    device: DeviceId,
    knowledge: &VersionVector,
    is_greeting: bool,
) -> Result<(), I::Error> {
    let before = index.stated(device)?;
    if full_knowledge(&index.state()?).covers_all(knowledge) {
        if before.as_ref() != Some(knowledge) {
            index.put_stated(device, Some(knowledge))?;
        }
    } else if is_greeting && before.is_some_and(|before| !knowledge.covers_all(&before)) {
        index.put_stated(device, None)?;
    }
    Ok(())
}
