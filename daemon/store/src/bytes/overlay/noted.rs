//! How an overlay's changes get into the spill log.

use super::{Base, Overlay, Shared, State};
use crate::bytes::Frozen;
use crate::bytes::journal::Entry;
use crate::bytes::spill_record::{self, Publishing, Record};
use crate::bytes::table;
use crate::{StoreError, Transaction};
use kith_core::id::InodeId;
use kith_core::register::UnixTime;
use kith_core::vector::VersionVector;
use std::sync::Arc;

impl State {
    /// All of it, as the spill log has it.
    pub(super) fn record(&self) -> Record {
        let publishing = self.publishing.as_ref().zip(self.frozen);
        let publishing = publishing.map(|(base, generation)| self.becoming(base, generation));
        Record::State(Box::new(spill_record::State {
            entry: self.entry(),
            least_bytes: self.least_bytes,
            closed: self.closed,
            publishing,
        }))
    }

    pub(super) fn becoming(&self, base: &Arc<Base>, generation: u32) -> Publishing {
        let version = Entry { base: Arc::clone(base), ..self.entry().without_extents() };
        Publishing { generation, least_bytes: self.least_bytes, version }
    }
}

impl Shared {
    /// Notes a change that was made in the spill log, or all of the state.
    pub(crate) fn note(&self, state: &mut State, change: Option<Record>) -> Result<(), StoreError> {
        let mut in_log = state.in_log;
        let noted =
            self.store.inner.bytes.spill.append(self.id, &mut in_log, change, || state.record());
        state.in_log = in_log;
        noted
    }

    /// Says in the spill log that the overlay is no more.
    pub(super) fn note_end(&self, state: &mut State) {
        self.store.inner.bytes.spill.end(self.id, &mut state.in_log);
    }
}

impl Overlay {
    /// Says that it belongs to another file from now on: one that its own has become, or a copy.
    pub fn set_owner(&self, owner: InodeId) {
        let mut state = self.shared.state();
        if state.owner != owner {
            self.belong(&mut state, owner);
        }
    }

    /// Says that it belongs to another file from now on, which is made from no version.
    pub fn set_apart(&self, owner: InodeId) {
        let mut state = self.shared.state();
        let content = state.base.content.clone();
        state.base = Arc::new(Base { content, context: VersionVector::new(), parents: Vec::new() });
        self.belong(&mut state, owner);
    }

    fn belong(&self, state: &mut State, owner: InodeId) {
        let closed = state.closed;
        state.owner = owner;
        state.epoch += 1;
        state.edited();
        state.closed = closed;
        if state.in_log.is_some()
            && let Err(cause) = self.shared.note(state, None)
        {
            tracing::warn!(%cause, "whose a file's changes are could not be noted");
        }
    }

    /// Notes that nobody writes to the file any more, and its time of modification: it is whole.
    /// That holds until it is changed again. After a crash it comes back as
    /// [closed](crate::bytes::Recovered::closed).
    ///
    /// # Errors
    /// A [`StoreError`] if the disk fails or is full.
    pub fn note_closed(&self, mtime: UnixTime) -> Result<(), StoreError> {
        let mut state = self.shared.state();
        if state.closed == Some(mtime) && state.in_log.is_some() {
            return Ok(());
        }
        state.closed = Some(mtime);
        self.shared.note(&mut state, Some(Record::Closed(mtime)))
    }

    /// Whether nothing was changed since it was noted that nobody writes to the file.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.shared.state().closed.is_some()
    }
}

impl Transaction<'_> {
    /// Notes that `frozen` is published as the content of `base` in this transaction: after a
    /// crash only what was written since comes back. [`Overlay::rebase`] is to follow the commit,
    /// and no [`Overlay::sync`] may come in between.
    ///
    /// # Errors
    /// A [`StoreError`] if the index fails.
    pub fn overlay_published(&mut self, frozen: &Frozen, base: &Base) -> Result<(), StoreError> {
        let mut state = frozen.overlay.state();
        state.epoch += 1;
        let newer = state.extents.newer_than(frozen.generation);
        if state.in_log.is_some() {
            let version = Arc::new(base.clone());
            let publishing = state.becoming(&version, frozen.generation);
            state.publishing = Some(version);
            frozen.overlay.note(&mut state, Some(Record::Publishing(publishing)))?;
        }
        let base_bytes = base.content.size_bytes.min(state.least_bytes);
        let whole = state.size_bytes == base_bytes && base_bytes == base.content.size_bytes;
        if newer.is_empty() && state.staging.is_none() && whole {
            return table::delete_overlay(self.sql(), frozen.overlay.id);
        }
        let entry =
            Entry { base: Arc::new(base.clone()), base_bytes, extents: newer, ..state.entry() };
        table::update_overlay(self.sql(), frozen.overlay.id, &entry.encode())
    }
}
