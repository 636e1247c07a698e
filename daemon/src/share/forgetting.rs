//! Forgetting what was removed, once all devices know.

use super::{Share, context};
use kith_core::clock::WallMs;
use kith_core::forget::{Sweep, sweep};
use kith_core::id::{DeviceId, InodeId};
use kith_store::StoreError;
use std::collections::BTreeSet;

/// How many removed names one transaction looks at: it takes a few milliseconds.
const SLICE: usize = 128;

impl Share {
    /// Forgets what was removed longer ago than `retention_ms`, what is held because of a mass
    /// change excepted, once the `members`, all other devices of the circle, are known to know.
    /// Answers how many registers went.
    pub(crate) fn forget(
        &self,
        members: &[DeviceId],
        retention_ms: u64,
    ) -> Result<usize, StoreError> {
        let now = context().now;
        let before = now.0.saturating_sub(retention_ms);
        let before = self.store.held_since(now)?.map_or(before, |held| before.min(held.0));
        // What has no name can't be opened, so nothing is added to these meanwhile.
        let open: BTreeSet<InodeId> = self.files.inodes();
        let in_use = |inode| open.contains(&inode);
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
