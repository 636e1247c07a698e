//! Guarding a share against mass changes: what other devices take away is counted, and once one
//! has taken a large part, nothing that it touched is let go until a person has said that it
//! was meant.

use crate::{Store, StoreError, Transaction};
use kith_core::alarm::{Alarm, Extent, Watch};
use kith_core::clock::{Hlc, WallMs};
use kith_core::codec::WRITERS_MAX;
use kith_core::id::WriterId;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::PoisonError;

/// A large part of a share that another device removed or overwrote.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MassChange {
    /// Who did it.
    pub writer: WriterId,
    /// The device's name at that time; none if it has never said one.
    pub device: Option<String>,
    /// What it did.
    pub alarm: Alarm,
}

/// What has come up since somebody last asked.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct GuardNews {
    /// Alarms that are new.
    pub raised: Vec<MassChange>,
    /// Alarms that ended, because a person said on another device that they were meant.
    pub ended: Vec<MassChange>,
    /// Whether something was meant that other devices may not have heard of.
    pub meant: bool,
}

impl GuardNews {
    fn add(&mut self, mut other: GuardNews) {
        self.raised.append(&mut other.raised);
        self.ended.append(&mut other.ended);
        self.meant |= other.meant;
    }
}

impl Store {
    /// The mass changes that nobody has said were meant, the earliest of each writer first.
    ///
    /// # Errors
    /// A [`StoreError`] if the index fails.
    pub fn mass_changes(&self) -> Result<Vec<MassChange>, StoreError> {
        let watches = self.snapshot()?.handle().watches()?;
        Ok(watches.iter().flat_map(|(writer, watch)| of(*writer, watch)).collect())
    }

    /// Since when nothing that was replaced or removed may be let go, and no trace of it be
    /// forgotten: what happened at this time or later is held, whatever the room and the retention.
    /// `None`: nothing is held.
    ///
    /// A removal happened at its stamp, a replacement when this device heard of it.
    ///
    /// # Errors
    /// A [`StoreError`] if the index fails.
    pub fn held_since(&self, now: WallMs) -> Result<Option<WallMs>, StoreError> {
        let watches = self.snapshot()?.handle().watches()?;
        Ok(watches.iter().filter_map(|(_, watch)| watch.held_since(now)).min())
    }

    /// Up to when a person has said that all changes of a writer were meant.
    ///
    /// # Errors
    /// A [`StoreError`] if the index fails.
    pub fn meant(&self) -> Result<BTreeMap<WriterId, Hlc>, StoreError> {
        self.snapshot()?.handle().meant()
    }

    /// What has come up since the last call.
    #[must_use]
    pub fn take_guard_news(&self) -> GuardNews {
        std::mem::take(&mut *self.inner.news.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn tell_guard_news(&self, news: GuardNews) {
        if news != GuardNews::default() {
            self.inner.news.lock().unwrap_or_else(PoisonError::into_inner).add(news);
        }
    }
}

fn of(writer: WriterId, watch: &Watch) -> impl Iterator<Item = MassChange> + '_ {
    let device = &watch.device;
    let change = move |alarm: &Alarm| MassChange { writer, device: device.clone(), alarm: *alarm };
    watch.alarms().iter().map(change)
}

impl Transaction<'_> {
    /// Counts what was taken away in this transaction, and notes what was meant.
    pub(crate) fn watch(&mut self) -> Result<GuardNews, StoreError> {
        let mut news = GuardNews::default();
        let (losses, meant) = (std::mem::take(&mut self.losses), std::mem::take(&mut self.meant));
        let (before, now) = (extent(&self.committed_totals()), extent(&self.own_totals()?));
        let mut watches = BTreeMap::new();
        for loss in losses {
            let watch: &mut Watch = match watches.entry(loss.writer) {
                Entry::Occupied(known) => known.into_mut(),
                Entry::Vacant(new) => new.insert(self.handle().watch(loss.writer)?),
            };
            watch.count(&loss, before);
        }
        for (writer, watch) in &mut watches {
            for alarm in watch.review(now) {
                let device = watch.device.clone();
                news.raised.push(MassChange { writer: *writer, device, alarm });
            }
            self.handle().put_watch(*writer, watch)?;
        }
        let known = if meant.is_empty() { BTreeMap::new() } else { self.handle().meant()? };
        for (writer, upto) in meant {
            let before = known.get(&writer);
            // Others may claim what they like, but not without end.
            if before >= Some(&upto) || (before.is_none() && known.len() >= WRITERS_MAX) {
                continue;
            }
            let mut watch = self.handle().watch(writer)?;
            let standing: Vec<MassChange> = of(writer, &watch).collect();
            news.meant |= watch.mean(upto);
            let ended = |change: &MassChange| !watch.alarms().contains(&change.alarm);
            news.ended.extend(standing.into_iter().filter(ended));
            self.handle().put_watch(writer, &watch)?;
        }
        Ok(news)
    }
}

fn extent(totals: &crate::Totals) -> Extent {
    Extent { files: totals.files, bytes: totals.bytes }
}
