//! The view: the tree that people see, a pure function of the registers.
//!
//! It is kept up incrementally, in two steps. First [`presence`]: which entries are there, and in
//! which directory; it depends on the registers alone. Then [`naming`]: what stands at one name is
//! arranged as a [`group`], and labelled names are given out. [`compute`](whole::compute) does the
//! same anew, by other means, so that tests can demand that both agree.

mod group;
mod label;
mod naming;
mod presence;
mod whole;

pub use label::time_of_day;
pub use whole::{Whole, compute};

use crate::id::InodeId;
use crate::index::Index;
use crate::operation::Context;
use crate::transaction::Transaction;

pub(crate) use group::{Member, arrange};
pub(crate) use label::conflict as conflict_label;
pub(crate) use naming::At;
pub(crate) use presence::{lives, outlives};

impl<I: Index> Transaction<'_, I> {
    /// Brings the view up to date with all registers written so far.
    pub(crate) fn refresh(&mut self) -> Result<(), I::Error> {
        self.derive_presence()?;
        self.derive_names()
    }
}

/// Brings the view up to date with inodes, and entries of them, whose registers were rewritten by
/// other means than an operation or a merge.
///
/// # Errors
/// The storage's.
pub(crate) fn renew<I: Index>(
    index: &mut I,
    context: Context,
    inodes: impl IntoIterator<Item = InodeId>,
) -> Result<(), I::Error> {
    let mut transaction = Transaction::begin(index, context)?;
    transaction.touched.extend(inodes);
    transaction.revised.clone_from(&transaction.touched);
    transaction.finish().map(drop)
}
