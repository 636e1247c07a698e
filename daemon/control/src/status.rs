//! The state of a device, its shares, and the other devices as it sees them.

use crate::moment::Moment;
use serde::{Deserialize, Serialize};

/// A device, as answers refer to it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct DeviceRef {
    /// Its id, 64 hexadecimal digits.
    pub id: String,
    /// The name that its owner gave it.
    pub name: String,
}

/// Answer of `GET /v1/status`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Status {
    /// The device that answers.
    pub device: ThisDevice,
    /// Its shares.
    pub shares: Vec<ShareStatus>,
    /// The other devices of its circle.
    pub devices: Vec<DeviceStatus>,
}

/// The device that answers.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ThisDevice {
    /// Its id, 64 hexadecimal digits.
    pub id: String,
    /// Its name.
    pub name: String,
    /// The version of Kith that runs.
    #[serde(default)]
    pub version: String,
    /// The UDP port that it listens on.
    #[serde(default)]
    pub port: Option<u16>,
    /// Where other devices may find it: `HOST:PORT`, the best first.
    #[serde(default)]
    pub addresses: Vec<String>,
    /// When there last was a sign that another machine has this device's identity; nothing if that
    /// is longer ago than a day, or never was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cloned: Option<Moment>,
    /// Seconds since the daemon started.
    #[serde(default)]
    pub uptime_seconds: u64,
    /// What tells this run of the daemon from every other.
    #[serde(default)]
    pub run: String,
    /// Whether this run went on with the mount of the one before: what was open in it stayed open.
    #[serde(default)]
    pub went_on: bool,
}

/// How a share stands between the devices.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ShareState {
    /// Every connected device and this one hold the same tree, and all bytes this device keeps.
    Synced,
    /// Changes or bytes are still on their way.
    Syncing,
    /// There are other devices in the circle, but none is connected.
    Offline,
}

/// One share, as this device holds it. Answer of `GET /v1/shares` is a list of them.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ShareStatus {
    /// Its name.
    pub name: String,
    /// Its id, 32 hexadecimal digits.
    #[serde(default)]
    pub id: String,
    /// Where it is mounted; nothing while it isn't.
    pub mount: Option<String>,
    /// How it stands.
    pub state: ShareState,
    /// Names in it: of files, directories and whatever else a folder holds.
    pub entries: u64,
    /// The size of its files together.
    pub bytes: u64,
    /// How many bytes this device still wants to fetch.
    pub missing_bytes: u64,
    /// How many files are kept in several versions that nobody has put together yet.
    pub conflicts: u64,
    /// What keeps it from working as it should, in one line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    /// Where another device removed or overwrote a large part of it, and nobody has said yet that
    /// it was meant. Until then nothing that was touched is let go here.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mass_changes: Vec<MassChange>,
}

/// A large part of a share that one device removed or overwrote within a short time.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct MassChange {
    /// The device's name when it did that.
    pub device: String,
    /// How many files it removed.
    pub removed: u64,
    /// How many it overwrote.
    pub overwritten: u64,
    /// The sizes of these files before, in bytes.
    pub bytes: u64,
    /// How many files there were.
    pub files: u64,
    /// When the first of it was done, by that device's clock.
    pub from: Moment,
    /// When the last of it was.
    pub to: Moment,
}

/// Body of `POST /v1/meant`.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mean {
    /// The device whose mass changes were meant: a name, an id, or the beginning of one. Nothing:
    /// those of all devices.
    #[serde(default)]
    pub device: Option<String>,
}

/// Answer of `POST /v1/meant`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Meant {
    /// What was waiting for somebody to say so.
    pub meant: Vec<MassChange>,
}

/// Another device of the circle.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct DeviceStatus {
    /// Its id, 64 hexadecimal digits.
    pub id: String,
    /// Its name.
    pub name: String,
    /// There is a live connection to it.
    pub connected: bool,
    /// `HOST:PORT` where it is, or where it was last seen.
    pub address: Option<String>,
    /// How many bytes it said it still wants; nothing if it hasn't said.
    pub missing_bytes: Option<u64>,
    /// When it was last heard of; nothing if never.
    pub last_seen: Option<Moment>,
}

/// Answer of `GET /v1/devices`: every device of the circle, this one first.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct DeviceList {
    /// The devices.
    pub devices: Vec<Member>,
}

/// One device of the circle.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Member {
    /// Its id, 64 hexadecimal digits.
    pub id: String,
    /// Its name.
    pub name: String,
    /// It is the device that answers.
    pub this: bool,
    /// There is a live connection to it; always for the device that answers.
    pub connected: bool,
    /// `HOST:PORT` where it is, or where it was last seen.
    pub address: Option<String>,
    /// When it was last heard of; nothing if never.
    pub last_seen: Option<Moment>,
}

/// Answer of `GET /v1/shares`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ShareList {
    /// The shares.
    pub shares: Vec<ShareStatus>,
}

/// Body of `PATCH /v1/devices/DEVICE`, where `DEVICE` is a name, an id, or the beginning of one.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rename {
    /// The new name.
    pub name: String,
}
