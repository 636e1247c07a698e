//! Devices on a lab that trust one another: where most stories begin.

use crate::device::{Device, settled};
use crate::lab::{self, Lab};
use crate::scratch::Scratch;
use crate::tree::Tree;
use std::ops::{Index, IndexMut};
use std::time::Duration;

/// How long devices may take to agree, on a busy machine and in a debug build.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// Devices on hosts 1, 2, … of a lab. Indexed from 0: `circle[0]` is on host 1.
#[derive(Debug)]
pub struct Circle {
    /// The devices. They go first, then their network, then their files.
    pub devices: Vec<Device>,
    /// Their network.
    pub lab: Lab,
    /// Where their files are, with room for more.
    pub scratch: Scratch,
}

impl Circle {
    /// Running devices with these names that don't know one another yet; `None` with a visible
    /// notice where this machine can't have them.
    pub fn strangers_or_skip(names: &[&str]) -> Option<Circle> {
        let lab = lab::or_skip(names.len())?;
        let scratch = Scratch::new();
        let numbered = names.iter().zip(1..);
        let devices =
            numbered.map(|(name, host)| Device::start(&scratch, &lab, host, name)).collect();
        Some(Circle { devices, lab, scratch })
    }

    /// Running devices with these names, each of which was paired with the first.
    pub fn or_skip(names: &[&str]) -> Option<Circle> {
        let circle = Circle::strangers_or_skip(names)?;
        for device in &circle.devices[1..] {
            device.pair(&circle.devices[0]);
        }
        Some(circle)
    }

    /// Waits until all devices are connected to all, and show the same tree.
    ///
    /// # Panics
    /// If they don't within [`PATIENCE`].
    pub fn settle(&self) -> Tree {
        let peers = self.devices.len() - 1;
        let devices: Vec<_> = self.devices.iter().map(|device| (device, peers)).collect();
        settled(&devices, PATIENCE)
    }
}

impl Index<usize> for Circle {
    type Output = Device;

    fn index(&self, index: usize) -> &Device {
        &self.devices[index]
    }
}

impl IndexMut<usize> for Circle {
    fn index_mut(&mut self, index: usize) -> &mut Device {
        &mut self.devices[index]
    }
}
