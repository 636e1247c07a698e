//! What of this device's log a peer is sent next.
//!
//! A register lies at the place of its last change, which for a directory's name can be long after
//! everything in it. If the connection breaks in between, and the sender is never seen again, the
//! peer would keep files that it has no name or no place for. So whatever a register needs to be shown
//! is sent with it, ahead of its turn.

use super::{Peer, dots};
use crate::forget;
use crate::index::{IndexRead, Register};
use crate::register::Inode;
use crate::wire::{BATCH_REGISTERS_MAX, register_size_bytes};
use alloc::collections::BTreeSet;
use alloc::vec;
use alloc::vec::Vec;
use core::ops::Range;

/// A batch is closed once its registers have this size.
pub const BATCH_TARGET_BYTES: usize = 256 << 10;
/// An inode whose register is larger goes out in parts, each with some of its versions.
const PART_BYTES: usize = 512 << 10;
/// After so many times the registers of a batch that the peer knows, an empty one moves its cursor.
const FILTERED_BATCHES: usize = 4;
/// How many places of registers that were sent ahead are remembered; others may be sent twice.
const AHEAD_MAX: usize = 1 << 16;

/// The places in the log of registers that a peer has had ahead of their turn.
#[derive(Clone, Debug, Default)]
pub(super) struct Ahead(BTreeSet<u64>);

/// What comes next.
pub(super) enum Filled {
    /// Registers, and the place up to which the peer has had everything with them.
    Batch { at: u64, registers: Vec<Register> },
    /// The parts of a register that doesn't fit in one message, the last first, and its place.
    Parts { place: u64, parts: Vec<Register> },
}

/// Takes from the log what comes in `range` (after its start, up to its end), a batch of about
/// `batch_max` registers.
pub(super) fn fill<I: IndexRead>(
    index: &I,
    peer: &Peer,
    ahead: &mut Ahead,
    range: Range<u64>,
    batch_max: usize,
) -> Result<Filled, I::Error> {
    let mut batch = Batch { index, peer, ahead, registers: Vec::new(), size_bytes: 0 };
    let (mut at, mut seen, mut taken) = (range.start, 0, 0);
    let filtered_max = FILTERED_BATCHES * batch_max;
    while at < range.end && seen < filtered_max && taken < batch_max {
        let limit = batch_max - taken;
        let changes = index.changes_after(at, limit)?;
        let is_all = changes.len() < limit;
        for (place, register) in changes {
            seen += 1;
            if !batch.ahead.0.contains(&place) && batch.is_news(&register)? {
                let bytes = register_size_bytes(&register);
                let is_full = batch.size_bytes + bytes > BATCH_TARGET_BYTES
                    || batch.registers.len() >= BATCH_REGISTERS_MAX;
                if is_full && !batch.registers.is_empty() {
                    return Ok(batch.filled(at));
                }
                if bytes > PART_BYTES {
                    let mut parts = parts(register);
                    parts.reverse();
                    return Ok(Filled::Parts { place, parts });
                }
                taken += 1;
                batch.take(place, register, bytes)?;
            }
            at = place;
        }
        if is_all {
            at = range.end;
        }
    }
    Ok(batch.filled(at))
}

struct Batch<'a, I> {
    index: &'a I,
    peer: &'a Peer,
    ahead: &'a mut Ahead,
    registers: Vec<Register>,
    size_bytes: usize,
}

impl<I: IndexRead> Batch<'_, I> {
    /// Whether the peer is to have a register: it doesn't know all of it, and it isn't over.
    fn is_news(&self, register: &Register) -> Result<bool, I::Error> {
        let mut made = dots(register).into_iter();
        let any = sabotaged!(AnyDotCounts) && made.clone().any(|dot| self.peer.has(dot));
        let is_known = any || made.all(|dot| self.peer.has(dot));
        Ok(!is_known && !forget::is_over(self.index, register)?)
    }

    /// Adds a register whose turn it is, and what it needs to be shown.
    fn take(&mut self, turn: u64, register: Register, bytes: usize) -> Result<(), I::Error> {
        self.size_bytes += bytes;
        let mut needed = self.needs(turn, &register)?;
        self.registers.push(register);
        while let Some((place, register)) = needed.pop() {
            if self.ahead.0.contains(&place) || !self.is_news(&register)? {
                continue;
            }
            let bytes = register_size_bytes(&register);
            let is_full = self.size_bytes + bytes > BATCH_TARGET_BYTES + PART_BYTES
                || self.registers.len() >= BATCH_REGISTERS_MAX
                || self.ahead.0.len() >= AHEAD_MAX;
            if is_full {
                break;
            }
            self.ahead.0.insert(place);
            self.size_bytes += bytes;
            needed.extend(self.needs(turn, &register)?);
            self.registers.push(register);
        }
        Ok(())
    }

    /// What a register needs to be shown and lies after `turn` in the log, with its places there:
    /// an object's names, a name's object, and those of the directory that it is in.
    fn needs(&self, turn: u64, register: &Register) -> Result<Vec<(u64, Register)>, I::Error> {
        let mut needed = Vec::new();
        let named = match register {
            Register::Inode(inode) => inode.id,
            Register::Entry(entry) => {
                let inode = self.index.inode(entry.inode)?.filter(|it| it.logged > turn);
                needed.extend(inode.map(|it| (it.logged, Register::Inode(it.inode))));
                entry.place.parent
            }
        };
        let names = self.index.entries_of(named)?;
        let names = names.into_iter().filter(|it| it.logged > turn);
        needed.extend(names.map(|it| (it.logged, Register::Entry(it.entry))));
        Ok(needed)
    }

    fn filled(self, at: u64) -> Filled {
        let Batch { ahead, registers, .. } = self;
        ahead.0 = ahead.0.split_off(&(at + 1));
        Filled::Batch { at, registers }
    }
}

/// The register, or if it is too large for a message, several that merge to it.
fn parts(register: Register) -> Vec<Register> {
    match register {
        Register::Inode(mut inode)
            if inode.versions.len() > 1
                && register_size_bytes(&Register::Inode(inode.clone())) > PART_BYTES =>
        {
            let middle = inode.versions.keys().nth(inode.versions.len() / 2).copied();
            let middle = middle.expect("half of a length is below it");
            let rest = inode.versions.split_off(&middle);
            let rest = Inode { versions: rest, ..inode.clone() };
            let mut all = parts(Register::Inode(inode));
            all.extend(parts(Register::Inode(rest)));
            all
        }
        register => vec![register],
    }
}
