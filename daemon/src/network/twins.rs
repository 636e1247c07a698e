//! Devices of which two machines have the identity.

use std::collections::BTreeMap;

use kith_core::id::DeviceId;

/// The most starts of a device that are kept in mind.
const STARTS_MAX: usize = 8;

/// Which starts of which device were seen, and which of them live at once.
#[derive(Debug, Default)]
pub(super) struct Twins {
    /// The starts, in the order in which they were first seen.
    starts: BTreeMap<DeviceId, Vec<u64>>,
    proven: BTreeMap<DeviceId, [u64; 2]>,
}

impl Twins {
    /// Takes note of a start that a device said hello from. A start that is seen again after a later
    /// one is still going on, and so there are two.
    pub(super) fn note(&mut self, device: DeviceId, start: u64) {
        let starts = self.starts.entry(device).or_default();
        match starts.iter().position(|known| *known == start) {
            None => {
                starts.push(start);
                let beyond = starts.len().saturating_sub(STARTS_MAX);
                starts.drain(..beyond);
            }
            Some(at) => {
                if let Some(later) = starts[at + 1..].last() {
                    self.proven.insert(device, [start, *later]);
                }
            }
        }
    }

    /// The other start that goes on at once with this one.
    pub(super) fn of(&self, device: DeviceId, start: u64) -> Option<u64> {
        let pair = self.proven.get(&device).filter(|pair| pair.contains(&start))?;
        pair.iter().copied().find(|other| *other != start)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_start_that_comes_back_after_a_later_one_proves_that_there_are_two() {
        let device = DeviceId([1; 32]);
        let cases: [(&[u64], Option<u64>); 6] = [
            (&[1], None),
            (&[1, 1, 1], None),
            (&[1, 2, 3, 2 + 1], None),
            (&[1, 2, 1], Some(2)),
            (&[1, 2, 3, 1], Some(3)),
            (&[1, 2, 1, 2, 3], Some(2)),
        ];
        for (starts, twin) in cases {
            let mut twins = Twins::default();
            starts.iter().for_each(|start| twins.note(device, *start));
            assert_eq!(twins.of(device, 1), twin, "{starts:?}");
            assert_eq!(twins.of(DeviceId([2; 32]), 1), None);
            if let Some(twin) = twin {
                assert_eq!(twins.of(device, twin), Some(1), "both are told of each other");
            }
        }
    }
}
