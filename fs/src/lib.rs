//! The filesystem: its semantics over one port, [`volume::Volume`], and a thin FUSE layer.
#![forbid(unsafe_code)]

mod fuse;
pub mod volume;

pub use fuse::{MountError, MountOptions, Mounted, mount};
