//! What other devices took away of a share: who is told of it, and what a person said of it.

use super::Share;
use kith_control::event::Happening;
use kith_control::moment::Moment;
use kith_control::status::MassChange;
use kith_core::clock::Hlc;
use kith_core::index::Index;
use kith_store::StoreError;

/// What a device is called that has never said its name.
const NAMELESS: &str = "an unnamed device";

/// A mass change as the control API tells it.
fn told(change: &kith_store::MassChange) -> MassChange {
    let moment = |at: Hlc| {
        Moment::from_unix_ms(i64::try_from(at.wall().0).expect("a wall-clock time has 48 bits"))
    };
    MassChange {
        device: change.device.clone().unwrap_or_else(|| NAMELESS.to_owned()),
        removed: change.alarm.removed,
        overwritten: change.alarm.overwritten,
        bytes: change.alarm.bytes,
        files: change.alarm.files,
        from: moment(change.alarm.begin),
        to: moment(change.alarm.end),
    }
}

impl Share {
    /// The mass changes that nobody has said were meant.
    pub(crate) fn mass_changes(&self) -> Result<Vec<MassChange>, StoreError> {
        Ok(self.store.mass_changes()?.iter().map(told).collect())
    }

    /// Notes that the mass changes of the devices called `device` were meant, or all of them, and
    /// answers those that nobody had said it of.
    pub(crate) fn mean(&self, device: Option<&str>) -> Result<Vec<MassChange>, StoreError> {
        let mut changes = self.store.mass_changes()?;
        changes.retain(|change| device.is_none_or(|device| told(change).device == device));
        if changes.is_empty() {
            return Ok(Vec::new());
        }
        self.store.write(|tx| {
            changes.iter().try_for_each(|change| tx.note_meant(change.writer, change.alarm.end))
        })?;
        self.store.sync()?;
        self.tell_guard_news();
        Ok(changes.iter().map(told).collect())
    }

    /// Tells listeners of alarms that were raised or have ended, and other devices of what was
    /// meant.
    pub(super) fn tell_guard_news(&self) {
        let news = self.store.take_guard_news();
        for change in news.raised.iter().map(told) {
            tracing::warn!(
                device = change.device,
                removed = change.removed,
                overwritten = change.overwritten,
                files = change.files,
                "a device took away a large part of the share; what it touched is held"
            );
            self.events.send(Happening::MassChange { share: self.name.clone(), change });
        }
        for change in news.ended.iter().map(told) {
            let (share, device) = (self.name.clone(), change.device);
            self.events.send(Happening::MassChangeMeant { share, device });
        }
        if news.meant {
            self.announce();
        }
    }
}
