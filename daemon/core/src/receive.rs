//! What arrives from other devices.
//!
//! Nothing here trusts what arrives beyond its form: what no honest device would send is left out
//! or cut down alike on every device.

use crate::effect::Effect;
use crate::id::InodeId;
use crate::index::{EntryState, Index, InodeState, Register};
use crate::operation::Context;
use crate::register::{Entry, Inode, Kind, Parted};
use crate::transaction::{Heard, Transaction};
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
    let mut transaction = Transaction::begin(index, context)?;
    for register in registers {
        match register {
            Register::Inode(inode) => transaction.receive_inode(inode)?,
            Register::Entry(entry) => transaction.receive_entry(entry)?,
        }
    }
    transaction.finish()
}

impl<I: Index> Transaction<'_, I> {
    fn receive_inode(&mut self, mut inode: Inode) -> Result<(), I::Error> {
        let id = inode.id;
        let is_rootless = id == InodeId::ROOT && inode.kind != Kind::Directory;
        // A file leaves its device with a version, or not at all.
        if is_rootless || inode.is_withheld() {
            return Ok(());
        }
        if inode.kind != Kind::File {
            inode.versions.clear();
            inode.parted = Parted::default();
        }
        inode.drop_covered();
        self.catch_up(inode.latest_hlc());
        let Some(mine) = self.inode(id)? else {
            return self.write_inode(InodeState { inode, logged: 0 });
        };
        if mine.inode.is_withheld() {
            return Ok(());
        }
        let mut merged = (*mine).clone();
        let change = merged.inode.merge(inode);
        if merged.inode.kind != Kind::File {
            merged.inode.versions.clear();
            merged.inode.parted = Parted::default();
        }
        if merged.inode != mine.inode {
            self.retire(id, &change.superseded)?;
            self.write_inode(merged)?;
        }
        Ok(())
    }

    fn receive_entry(&mut self, entry: Entry) -> Result<(), I::Error> {
        if entry.inode == InodeId::ROOT {
            return Ok(());
        }
        self.catch_up(entry.latest_hlc());
        let Some(mine) = self.entry(entry.id)? else {
            let shown_parent = entry.place.parent;
            let state =
                EntryState { entry, withheld: None, logged: 0, shown_parent, present: false };
            return self.write_entry(None, state, Heard::ByAll);
        };
        if mine.logged == 0 {
            return Ok(());
        }
        let mut merged = mine.clone();
        if merged.entry.merge(entry) {
            self.write_entry(Some(mine), merged, Heard::ByAll)?;
        }
        Ok(())
    }
}
