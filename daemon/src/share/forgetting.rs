//! Forgetting what was removed, once all devices know.

use super::{Share, context};
use kith_core::clock::WallMs;
use kith_core::forget::{Sweep, sweep};
use kith_core::id::{DeviceId, InodeId};
use kith_store::{NodeRead, StoreError};
use std::collections::BTreeSet;

/// How many removed names one transaction looks at: it takes a few milliseconds.
const SLICE: usize = 128;

impl Share {
    /// Forgets what was removed longer ago than `retention_ms` before `now`, what is held because of
    /// a mass change excepted, once the `members`, all other devices of the circle, are known to know.
    /// Answers how many registers went.
    pub(crate) fn forget(
        &self,
        members: &[DeviceId],
        now: WallMs,
        retention_ms: u64,
    ) -> Result<usize, StoreError> {
        let before = now.0.saturating_sub(retention_ms);
        let before = self.store.held_since(now)?.map_or(before, |held| before.min(held.0));
        // What has no name can't be opened, so nothing is added to these meanwhile.
        let open: BTreeSet<InodeId> =
            self.files.all().into_iter().map(|(_, inode)| inode).collect();
        let snapshot = self.store.snapshot()?;
        // By this device's own clock too: a slow one elsewhere doesn't shorten what is kept here.
        let is_recent = |inode| -> Result<bool, StoreError> {
            let changed = snapshot.node_of(inode)?.map(|row| row.changed.seconds);
            let changed_ms = changed.map_or(0, |seconds| seconds.saturating_mul(1000));
            let is_recent = i64::try_from(before).is_ok_and(|before| changed_ms >= before);
            Ok(is_recent || snapshot.links(inode)? > 0 || snapshot.stands_in(inode)?)
        };
        let in_use = |inode| open.contains(&inode) || is_recent(inode).unwrap_or(true);
        let (mut forgotten, mut after) = (0, None);
        loop {
            let before = WallMs(before);
            let slice = Sweep { members, before, in_use: &in_use, after, limit: SLICE };
            let swept = self.store.write(|tx| sweep(tx, context(), &slice))?;
            forgotten += swept.forgotten;
            after = swept.after;
            if after.is_none() {
                break;
            }
        }
        if forgotten > 0 {
            self.announce();
        }
        Ok(forgotten)
    }
}
