//! Whether copies of a device are noticed, and only where there are any.

use kith_core::id::DeviceId;
use std::collections::BTreeSet;

/// Whether any identity was ever on two machines at a time, and of which there was a sign of it.
pub(super) struct Clones {
    /// Clocks that leap may make a lost life look like one that goes on.
    keeps_time: bool,
    is_any_copied: bool,
    /// Devices of a life of which something was still under way after its end, and those that took
    /// such a greeting.
    rests: BTreeSet<DeviceId>,
    signs: BTreeSet<DeviceId>,
}

impl Clones {
    pub(super) fn new(keeps_time: bool) -> Self {
        Clones { keeps_time, is_any_copied: false, rests: BTreeSet::new(), signs: BTreeSet::new() }
    }

    pub(super) fn note_copy(&mut self) {
        self.is_any_copied = true;
    }

    pub(super) fn note_rest(&mut self, device: DeviceId) {
        self.rests.insert(device);
    }

    /// A device counts as being on two machines.
    pub(super) fn note_sign(&mut self, device: DeviceId, at: usize) -> Result<(), String> {
        self.signs.insert(device);
        // Of two machines with one identity others may take what they say for what one said twice.
        if self.keeps_time && !self.is_any_copied && !self.rests.contains(&device) {
            return Err(format!("{device:?} counts as copied, and was not: place {at}"));
        }
        Ok(())
    }

    /// Whether there was a sign that a device is on two machines.
    pub(super) fn is_noticed(&self, device: DeviceId) -> bool {
        self.signs.contains(&device)
    }
}
