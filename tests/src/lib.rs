//! What the tests of the whole share: the simulator, and real devices on a network of namespaces.

#[path = "../../fs/tests/access_list/mod.rs"]
pub mod access_list;
pub mod bench;
pub mod binary;
pub mod circle;
pub mod conversation;
pub mod counted_index;
pub mod device;
pub mod exhaustive;
pub mod folder;
pub mod grove;
pub mod histories;
pub mod lab;
pub mod memory_index;
pub mod notice;
pub mod pulse;
pub mod random;
pub mod reference;
pub mod replicas;
pub mod scale;
pub mod scratch;
pub mod script;
pub mod simulator;
pub mod source;
pub mod tree;
pub mod village;
