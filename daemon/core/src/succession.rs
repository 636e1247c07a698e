//! Going on under a new writer, before anything new is numbered.
//!
//! A number names a change only as long as nobody else can give it out under the same writer. An
//! index that was lost to a crash, put back from a copy, or copied to another machine can't be told
//! from one that wasn't by looking at it. So a writer lasts only as long as it is certain that no
//! other process goes on with it, and is followed by a random one wherever that isn't certain.

use crate::effect::Effect;
use crate::id::{DeviceId, Dot, WriterId};
use crate::index::{FormerWriter, Index};
use crate::operation::Context;
use alloc::vec;
use alloc::vec::Vec;

/// Goes on under `new_writer`, which is random, in the transaction that `index` is.
///
/// To be called at each start at which it isn't proven that this index is where the process that
/// last had it left it: after a crash, a restart of the machine, a restore, or in a copy; before
/// the first operation, and before the first session is opened. A simulation calls it when a
/// replica starts again after a crash, and when its disk was rolled back or copied. Also while it
/// runs, if the process may have become two; then all sessions are to be opened again.
///
/// Nothing is renamed: what was made until now was made before any copy could go another way, or
/// is what the copy has too. The numbers and the log go on, and so do the places of others in it.
///
/// # Errors
/// The storage's.
pub fn succeed<I: Index>(
    index: &mut I,
    context: Context,
    new_writer: WriterId,
) -> Result<Vec<Effect>, I::Error> {
    let mut state = index.state()?;
    let last = Dot { writer: state.writer, number: state.number };
    let (ended, succeeded) = (state.hlc.wall(), context.now);
    index.put_former_writer(FormerWriter { last, ended, succeeded })?;
    state.knowledge.include(last);
    if !sabotaged!(WriterGoesOn) {
        state.writer = new_writer;
    }
    // A number of its own for the new writer's beginning, so that it is in no cursor by mistake.
    state.number += 1;
    index.put_state(&state)?;
    index.put_tag(state.number, context.tag)?;
    Ok(vec![Effect::Reincarnated])
}

/// The same for an index whose device has got another identity, `device`.
///
/// # Errors
/// The storage's.
pub fn change_identity<I: Index>(
    index: &mut I,
    context: Context,
    new_writer: WriterId,
    device: DeviceId,
) -> Result<Vec<Effect>, I::Error> {
    let mut state = index.state()?;
    state.device = device;
    index.put_state(&state)?;
    index.forget_strangers()?;
    let new_writer = if sabotaged!(IdentityKeepsWriter) { state.writer } else { new_writer };
    succeed(index, context, new_writer)
}
