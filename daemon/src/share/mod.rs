//! One share on this device: its store, its open files, and every change made to either.

mod aftermath;
mod ancestry;
mod backlog;
mod dated;
mod describe;
mod fetches;
mod file_io;
mod forgetting;
mod guard;
mod handover;
mod merging;
mod names;
mod open_files;
mod outdated;
mod publisher;
mod recovery;
mod text_merge;
mod volume;

pub(crate) use aftermath::Origin;
pub(crate) use fetches::{Fetches, Planned};
pub(crate) use handover::OpenLeft;
pub(crate) use publisher::Size;
pub(crate) use recovery::Recovery;

use crate::config::Config;
use crate::events::Events;
use aftermath::Aftermath;
use backlog::Backlog;
use kith_control::event::Happening;
use kith_core::clock::WallMs;
use kith_core::effect::Effect;
use kith_core::exchange::note_clone;
use kith_core::id::{DeviceId, InodeId, ShareId, Tag, WriterId};
use kith_core::index::{Index, IndexRead, ReplicaState};
use kith_core::name::EntryName;
use kith_core::operation::{self, Applied, Context, Operation, OperationError};
use kith_core::register::UnixTime;
use kith_core::succession::{change_identity, succeed};
use kith_fs::volume::StorageError;
use kith_store::{DiskRoom, Store, StoreError, Transaction};
use merging::MergeQueue;
use open_files::{OpenFile, OpenFiles};
use outdated::OutdatedQueue;
use publisher::PublishQueue;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::watch;

/// One share on this device.
pub(crate) struct Share {
    pub(crate) store: Store,
    pub(crate) fetches: Fetches,
    files: OpenFiles,
    outdated: OutdatedQueue,
    queue: PublishQueue,
    backlog: Backlog,
    /// The names at which versions may be merged; none where that is switched off.
    merges: Option<MergeQueue>,
    /// Grows with every committed change, and wakes the sessions with other devices.
    changed: watch::Sender<u64>,
    /// How long a read waits for bytes from other devices.
    read_deadline: Duration,
    /// Whoever listens to what happens, and the name under which the share is told of.
    events: Events,
    name: String,
}

/// What to do where two machines have one identity.
pub(crate) const CLONE_HINT: &str = "On one of the two run 'kith down', move `identity` and \
`circle` out of Kith's data directory, run 'kith up', and join again with a code from another \
device. No file is lost by that.";

/// Why a transaction was given up.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WriteError {
    /// The operation isn't possible.
    #[error(transparent)]
    Operation(#[from] OperationError<StoreError>),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Share {
    /// A share over its opened store, called `name` when listeners are told of it.
    pub(crate) fn new(store: Store, config: &Config, events: Events, name: &str) -> Self {
        Share {
            store,
            fetches: Fetches::default(),
            files: OpenFiles::default(),
            outdated: OutdatedQueue::default(),
            queue: PublishQueue::default(),
            backlog: Backlog::default(),
            changed: watch::Sender::new(0),
            merges: config.share(name).merge_text.then(MergeQueue::default),
            read_deadline: config.read_deadline(),
            events,
            name: name.to_owned(),
        }
    }

    /// Tells of every committed change.
    pub(crate) fn watch(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// How many files have changes that no version holds yet.
    pub(crate) fn unpublished(&self) -> usize {
        self.files.pending()
    }

    /// Runs one transaction, brings the mount's nodes up to date in it, and tells whoever must
    /// know once it is committed.
    pub(crate) fn commit<T, E: From<StoreError>>(
        &self,
        origin: &Origin<'_>,
        change: impl FnOnce(&mut Transaction<'_>) -> Result<(T, Vec<Effect>), E>,
    ) -> Result<T, E> {
        self.commit_and_look(origin, now().1, change, |_, value| value)
    }

    /// The same for changes that are shown to be made `at` a time, and looks at what came of it before
    /// it is committed.
    fn commit_and_look<T, U, E: From<StoreError>>(
        &self,
        origin: &Origin<'_>,
        at: UnixTime,
        change: impl FnOnce(&mut Transaction<'_>) -> Result<(T, Vec<Effect>), E>,
        look: impl FnOnce(&Transaction<'_>, T) -> U,
    ) -> Result<U, E> {
        let (value, aftermath, changes) = self.store.write(|tx| -> Result<_, E> {
            let (value, effects) = change(tx)?;
            let aftermath = aftermath::settle_nodes(tx, &effects, origin, at)?;
            Ok((look(tx, value), aftermath, !effects.is_empty()))
        })?;
        self.deliver(aftermath);
        if matches!(origin, Origin::Elsewhere) {
            self.fetches.look_again();
        }
        if changes {
            self.announce();
        }
        self.tell_guard_news();
        Ok(value)
    }

    /// Wakes the sessions, which look for what other devices haven't been told.
    pub(crate) fn announce(&self) {
        self.changed.send_modify(|count| *count += 1);
    }

    fn deliver(&self, aftermath: Aftermath) {
        self.outdated.push(aftermath.outdated);
        self.look_at_conflicts(aftermath.conflicts);
        if aftermath.reincarnated {
            tracing::info!("this device goes on under a new writer");
        }
        if aftermath.cloned {
            tracing::warn!("another machine has this device's identity");
            self.events.send(Happening::DeviceCloned { hint: CLONE_HINT.to_owned() });
        }
    }

    /// Goes on from the last stop, before anything else: under a new writer, unless it is proven
    /// that nothing else went on from there, and as `device`.
    pub(crate) fn begin(&self, device: DeviceId, proven: bool) -> Result<(), StoreError> {
        let state = self.store.snapshot()?.state()?;
        if state.device != device {
            tracing::warn!("this device has another identity than the index was made under");
            return self.commit(&Origin::Elsewhere, |tx| {
                let effects = change_identity(tx, context(), new_writer(), device)?;
                Ok(((), effects))
            });
        }
        if proven || self.store.is_new() { Ok(()) } else { self.succeed() }
    }

    /// Goes on under a new writer; all sessions begin again.
    pub(crate) fn succeed(&self) -> Result<(), StoreError> {
        let open = self.files.all();
        self.commit(&Origin::Elsewhere, |tx| {
            note_removed(tx, &open)?;
            Ok(((), succeed(tx, context(), new_writer())?))
        })
    }

    /// Keeps that there is a sign that another machine has this device's identity.
    pub(crate) fn note_clone(&self) -> Result<(), StoreError> {
        self.commit(&Origin::Elsewhere, |tx| Ok(((), note_clone(tx, now().0)?)))
    }

    /// Makes this the replica of another share: what is in it stays, and is merged with what the
    /// share's devices have.
    pub(crate) fn adopt(&self, share: ShareId) -> Result<(), StoreError> {
        self.restate(|state| state.share = share)
    }

    /// Gives this device another name in what it writes from now on.
    pub(crate) fn set_author(&self, name: &str) -> Result<(), StoreError> {
        self.restate(|state| name.clone_into(&mut state.author))
    }

    fn restate(&self, change: impl FnOnce(&mut ReplicaState)) -> Result<(), StoreError> {
        self.store.write(|tx| {
            let before = tx.state()?;
            let mut state = before.clone();
            change(&mut state);
            if state == before { Ok(()) } else { tx.put_state(&state) }
        })
    }

    /// Applies one operation of the mount. `own` are the names that the kernel changes by itself;
    /// `then` looks at the result within the transaction.
    fn operate<T>(
        &self,
        operation: Operation,
        own: &[(InodeId, EntryName)],
        then: impl FnOnce(&mut Transaction<'_>, &Applied) -> Result<T, StoreError>,
    ) -> Result<T, WriteError> {
        self.commit(&Origin::Mount(own), |tx| {
            let applied = operation::apply(tx, context(), operation)?;
            let value = then(tx, &applied)?;
            Ok((value, applied.effects))
        })
    }

    /// The room on the disk.
    fn disk_room(&self) -> Result<DiskRoom, StorageError> {
        self.store.room().map_err(|error| storage(&error))
    }
}

/// Notes which of the open files were removed here: under another writer that can't be told any more.
fn note_removed<E>(
    index: &impl IndexRead<Error = E>,
    open: &[(Arc<OpenFile>, InodeId)],
) -> Result<(), E> {
    for (file, inode) in open {
        if operation::is_removed_here(index, *inode)? {
            file.set_removed(true);
        }
    }
    Ok(())
}

/// The time now, as the core and as `stat` count it.
pub(crate) fn now() -> (WallMs, UnixTime) {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let wall = WallMs(u64::try_from(since.as_millis()).unwrap_or(u64::MAX));
    let seconds = i64::try_from(since.as_secs()).unwrap_or(i64::MAX);
    (wall, UnixTime { seconds, nanoseconds: since.subsec_nanos() })
}

/// The time and the randomness that one transaction takes.
pub(crate) fn context() -> Context {
    Context { now: now().0, tag: Tag(random()) }
}

/// A writer that nobody else has drawn.
pub(crate) fn new_writer() -> WriterId {
    // 0 is the root directory's.
    WriterId(random().max(1))
}

fn random() -> u64 {
    getrandom::u64().expect("the kernel's random numbers are there once it has booted")
}

/// Logs a failure of the store with its cause, and says what a program is told of it.
pub(crate) fn storage(error: &StoreError) -> StorageError {
    match error {
        StoreError::Full => StorageError::Full,
        other => {
            tracing::error!(cause = %kith_error_chain(other), "the store failed");
            StorageError::Failed
        }
    }
}

/// An error and its causes on one line.
pub(crate) fn kith_error_chain(error: &dyn std::error::Error) -> String {
    let mut line = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        line.push_str(": ");
        line.push_str(&cause.to_string());
        next = cause.source();
    }
    line
}
