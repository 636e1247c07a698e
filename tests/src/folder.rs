//! One mounted folder of a device of its own, for tests of what programs see in it.

use crate::device::Device;
use crate::lab::{self, Lab};
use crate::scratch::Scratch;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

/// A device with its folder mounted. The device goes before what it stands on.
#[derive(Debug)]
pub struct Folder {
    /// The device.
    pub device: Device,
    /// Where its files are, with room for more.
    pub scratch: Scratch,
    _lab: Lab,
}

impl Folder {
    /// A folder, or `None` with a visible notice where this machine can't mount one.
    pub fn or_skip() -> Option<Folder> {
        let lab = lab::or_skip(1)?;
        let scratch = Scratch::new();
        // Other users are to get through to the mount.
        let open = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(scratch.path(), open).expect("it is ours");
        let device = Device::start(&scratch, &lab, 1, "laptop");
        Some(Folder { device, scratch, _lab: lab })
    }

    /// Where it is mounted.
    pub fn mount(&self) -> &Path {
        self.device.mount()
    }

    /// A path in it.
    pub fn path(&self, path: impl AsRef<Path>) -> PathBuf {
        self.device.path(path)
    }
}
