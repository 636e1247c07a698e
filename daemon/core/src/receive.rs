//! What arrives from other devices.

use crate::effect::Effect;
use crate::index::{Index, Register};
use crate::operation::Context;
use alloc::vec::Vec;

/// Merges registers of other devices, in the transaction that `index` is.
///
/// # Errors
/// The storage's.
pub fn receive<I: Index>(
    index: &mut I,
    context: Context,
    registers: Vec<Register>,
) -> Result<Vec<Effect>, I::Error> {
    let _ = (index, context, registers);
    Ok(Vec::new())
}
