//! The hybrid logical clock, and the stamps that order concurrent changes.

use crate::id::WriterId;

/// Wall-clock time as the caller read it: milliseconds since 1970, UTC.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct WallMs(pub u64);

/// A hybrid logical time: the milliseconds since 1970 in the upper 48 bits, a counter in the
/// lower 16 (Kulkarni et al., 2014).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default, Hash)]
pub struct Hlc(pub u64);

/// Orders concurrent changes: by hybrid time, then by writer.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub struct Stamp {
    /// When.
    pub hlc: Hlc,
    /// By whom.
    pub writer: WriterId,
}

/// How far ahead of this device's own clock a stamp from elsewhere may carry it: ten minutes.
///
/// A stamp from further in the future still orders what it stamps; it only isn't caught up with
/// beyond its own value, so one device with a wrong clock doesn't set everybody's.
pub const DRIFT_MAX_MS: u64 = 10 * 60 * 1000;

impl Hlc {
    /// The wall-clock part, in milliseconds since 1970.
    #[must_use]
    pub const fn wall(self) -> WallMs {
        WallMs(self.0 >> 16)
    }

    /// The last hybrid time that is taken from another device. No honest one comes near it.
    pub const LAST: Hlc = Hlc(3 << 62);

    /// The first hybrid time of a millisecond. Times past the year 6,429 are held there, so that
    /// there always is a later one for whoever replaces what a wrong clock stamped.
    #[must_use]
    pub const fn at(wall: WallMs) -> Hlc {
        let most = (1 << 47) - 1;
        Hlc((if wall.0 > most { most } else { wall.0 }) << 16)
    }

    /// The next time that a device gives out at `now`, having given out or seen `self` before.
    #[must_use]
    pub const fn next(self, now: WallMs) -> Hlc {
        let wall = Hlc::at(now);
        if wall.0 > self.0 { wall } else { Hlc(self.0.saturating_add(1)) }
    }
}
