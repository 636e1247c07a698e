//! Signs that another machine has this device's identity.
//!
//! A device whose index was restored from a copy meets writers that others take for its own and
//! that it knows nothing of: those of the time since the copy was made. They are dead. So what is
//! a sign is only what shows that such a writer lives while this index is in use.

use crate::clock::{DRIFT_MAX_MS, WallMs};
use crate::effect::Effect;
use crate::id::{Cursor, DeviceId, Dot};
use crate::index::{
    CloneSigns, FormerWriter, Index, IndexRead, Named, Register, ReplicaState, Stranger,
};
use crate::vector::VersionVector;
use alloc::vec;
use alloc::vec::Vec;

/// Signs that come so soon after another are not told of again.
const SIGNS_APART_MS: u64 = 60_000;

/// Notes a sign that another machine has this device's identity.
///
/// # Errors
/// The storage's.
pub fn note_clone<I: Index>(index: &mut I, at: WallMs) -> Result<Vec<Effect>, I::Error> {
    let signs = index.clone_signs()?;
    if signs.is_some_and(|signs| at.0 < signs.last.0.saturating_add(SIGNS_APART_MS)) {
        return Ok(Vec::new());
    }
    index.put_clone_signs(CloneSigns { first: signs.map_or(at, |signs| signs.first), last: at })?;
    Ok(vec![Effect::Cloned])
}

/// Whether a log that ended there is this index's own, at that time or now: it gave out the number,
/// under that writer or before it, with that tag. A tag that isn't kept any more is taken for the
/// right one.
pub(super) fn recognises<I: IndexRead>(
    index: &I,
    state: &ReplicaState,
    former: &[FormerWriter],
    head: Cursor,
) -> Result<bool, I::Error> {
    let last = match head.writer == state.writer {
        true => Some(state.number),
        false => former.iter().map(|it| it.last).find(|it| it.writer == head.writer).map(number),
    };
    if last.is_some() && head.writer != state.writer && sabotaged!(FormerEndless) {
        return Ok(true);
    }
    Ok(last.is_some_and(|last| head.number <= last)
        && index.tag(head.number)?.is_none_or(|tag| tag == head.tag))
}

fn number(dot: Dot) -> u64 {
    dot.number
}

/// Takes note of where this device's log ended when `device` last had some of it, as it said in its
/// greeting. Answers whether that shows that another machine has this device's identity, because
///
/// - no log of this index ended there, and under the present writer the same device named
///   another end before, and knows what came up to there: somebody else talked to it since. One
///   that doesn't know, or names an earlier place in the same log, was itself put back; or
/// - before, it named an earlier end of the same log, which isn't this index's either: whoever
///   writes it did so after this index knew of it.
pub(super) fn heed<I: Index>(
    index: &mut I,
    state: &ReplicaState,
    former: &[FormerWriter],
    device: DeviceId,
    (head, knowledge): (Cursor, &VersionVector),
    now: WallMs,
) -> Result<bool, I::Error> {
    let before = index.named(device)?;
    let named = Named { head, under: state.writer };
    if before != Some(named) {
        index.put_named(device, named)?;
    }
    if recognises(index, state, former, head)? {
        return Ok(false);
    }
    let is_own = former.iter().any(|it| it.last.writer == head.writer);
    let known = index.strangers()?.iter().any(|it| it.writer == head.writer);
    if !is_own && !known {
        index.put_stranger(Stranger { writer: head.writer, noticed: now })?;
    }
    let Some(before) = before.filter(|before| before.head != head) else {
        return Ok(sabotaged!(RestoredIsCopied));
    };
    let grew = before.head.writer == head.writer
        && before.head.number < head.number
        && !recognises(index, state, former, before.head)?;
    let Cursor { writer, number, .. } = before.head;
    // It may have heard from others of what it lost, and then still names an earlier place in that log.
    let was_put_back = writer == head.writer && head.number < number;
    let remembers = knowledge.covers(Dot { writer, number }) && !was_put_back;
    Ok(((before.under == state.writer && remembers) || grew) && !sabotaged!(CopiesUnnoticed))
}

/// When another machine made one of these values under this device's identity, if one did: the
/// writer is a stranger, or a former one beyond what it gave out here, and the value was made
/// while this index was in use under a later writer.
pub(super) fn made_elsewhere(
    registers: &[Register],
    former: &[FormerWriter],
    strangers: &[Stranger],
    now: WallMs,
) -> Option<WallMs> {
    if former.is_empty() {
        return None;
    }
    let mut signs = Vec::new();
    let mut judge = |at: WallMs, dot: Dot| {
        let own = former.iter().position(|it| it.last.writer == dot.writer);
        let after = match own {
            Some(at) if dot.number > former[at].last.number => at,
            Some(_) => return,
            None if strangers.iter().any(|it| it.writer == dot.writer) => 0,
            None => return,
        };
        // A clock may be ahead by what devices catch up with, and what is further ahead says nothing.
        let present = WallMs(now.0.saturating_add(DRIFT_MAX_MS));
        let ends = former[after + 1..].iter().map(|life| life.ended).chain([present]);
        let mut lives = former[after..].iter().map(|before| before.succeeded).zip(ends);
        if lives.any(|(begun, ended)| is_within(begun, at, ended)) {
            signs.push(at.min(now));
        }
    };
    for register in registers {
        match register {
            Register::Inode(inode) => {
                judge(inode.attributes.stamp.hlc.wall(), inode.attributes.dot);
                let versions = inode.versions.values();
                versions.for_each(|version| judge(version.stamp.hlc.wall(), version.dot));
            }
            Register::Entry(entry) => {
                judge(entry.place.stamp.hlc.wall(), entry.place.dot);
                if let Some(removal) = &entry.removal {
                    let (at, writer) = (removal.stamp.hlc.wall(), removal.stamp.writer);
                    judge(at, Dot { writer, number: removal.dots.number(writer) });
                }
            }
        }
    }
    signs.into_iter().max()
}

/// Whether a time is surely after `begun`, and not after `ended`.
fn is_within(begun: WallMs, at: WallMs, ended: WallMs) -> bool {
    at.0 > begun.0.saturating_add(DRIFT_MAX_MS) && at <= ended
}
