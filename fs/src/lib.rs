//! The filesystem: its semantics over one port, [`volume::Volume`], and a thin FUSE layer.
#![forbid(unsafe_code)]

pub mod volume;
