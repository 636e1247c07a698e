//! The filesystem: its semantics over one port, [`volume::Volume`], and a thin FUSE layer.
#![deny(unsafe_code)]

mod fuse;
pub mod volume;

pub use fuse::{
    HandOverError, KeptMount, MountError, MountOptions, Mounted, OpenListings, OpenWriter, inherit,
    mount, take_up,
};
