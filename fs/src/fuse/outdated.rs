//! Calls back what the kernel believes and another device has changed.

use super::layer::Answering;
use crate::volume::{Outdated, Volume};
use fuser::{INodeNo, Notifier};
use kith_core::register::Kind;
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::sync::mpsc::SyncSender;
use std::time::Duration;

/// How long the volume is asked to wait at a time; ending takes no longer.
const PATIENCE: Duration = Duration::from_millis(200);

/// Calls back until the volume closes or `go_on`, which is asked every round, says no. What was
/// called back is handed on to whoever tells those who watch, unless that one is far behind.
pub(super) fn call_back(
    volume: &dyn Volume,
    answering: &Answering,
    notifier: &Notifier,
    told: &SyncSender<Vec<Outdated>>,
    mut go_on: impl FnMut() -> bool,
) {
    while go_on() {
        let Some(outdated) = volume.outdated(PATIENCE) else { return };
        if outdated.is_empty() {
            continue;
        }
        answering.let_finish();
        call_back_all(volume, notifier, &outdated);
        let _behind_or_gone = told.try_send(outdated);
    }
}

fn call_back_all(volume: &dyn Volume, notifier: &Notifier, outdated: &[Outdated]) {
    let mut listings = BTreeSet::new();
    let mut attributes = BTreeSet::new();
    for what in outdated {
        match what {
            Outdated::Name { parent, name, .. } => {
                let name = OsStr::from_bytes(name.as_bytes());
                called(notifier.inval_entry(INodeNo(parent.0), name));
                listings.insert(*parent);
            }
            Outdated::Attributes(node) => {
                attributes.insert(*node);
            }
        }
    }
    for node in attributes {
        if listings.contains(&node) {
            continue;
        }
        if volume.info(node).is_ok_and(|info| info.kind == Kind::Directory) {
            listings.insert(node);
        } else {
            // A negative offset leaves the pages, which are this device's own.
            called(notifier.inval_inode(INodeNo(node.0), -1, 0));
        }
    }
    for directory in listings {
        // The pages of a directory are its cached listing.
        called(notifier.inval_inode(INodeNo(directory.0), 0, 0));
    }
}

/// What the kernel doesn't know is no error; anything else comes when the mount is gone.
fn called(result: io::Result<()>) {
    if let Err(error) = result {
        tracing::debug!(%error, "the kernel took no call");
    }
}
