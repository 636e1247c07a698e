//! What the tests of the whole share: the simulator and stand-ins for disks and networks.

pub mod memory_index;
