//! What happens while a daemon runs, as it tells those who listen.

use crate::moment::Moment;
use crate::status::{MassChange, ShareState};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// One thing that happened. As JSON: one object with `type`, `time` and the fields of its type.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Event {
    /// When it happened.
    pub time: Moment,
    /// What happened.
    #[serde(flatten)]
    pub what: Happening,
}

impl Event {
    /// Something that happens now.
    #[must_use]
    pub fn now(what: Happening) -> Self {
        Event { time: Moment::now(), what }
    }
}

/// What happened; its name is the event's `type`.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Happening {
    /// A connection to a device is up.
    DeviceConnected {
        /// Its id.
        id: String,
        /// Its name.
        name: String,
        /// `HOST:PORT` where it is.
        address: Option<String>,
    },
    /// The connection to a device ended.
    DeviceDisconnected {
        /// Its id.
        id: String,
        /// Its name.
        name: String,
        /// Why, in one line.
        reason: String,
    },
    /// A device joined the circle.
    DeviceJoined {
        /// Its id.
        id: String,
        /// Its name.
        name: String,
    },
    /// A device was removed from the circle.
    DeviceRemoved {
        /// Its id.
        id: String,
        /// Its name.
        name: String,
    },
    /// A device has another name.
    DeviceRenamed {
        /// Its id.
        id: String,
        /// The new name.
        name: String,
    },
    /// There is a new sign that another machine has this device's identity.
    DeviceCloned {
        /// What to do about it, in one line.
        hint: String,
    },
    /// Changes from another device were taken in.
    ChangesReceived {
        /// The share's name.
        share: String,
        /// The device that sent them.
        from: String,
        /// How many registers changed.
        changes: u64,
    },
    /// A version of a file was made on this device and is given to the others.
    FilePublished {
        /// The share's name.
        share: String,
        /// The file's size.
        bytes: u64,
    },
    /// All bytes of a file have arrived.
    FileFetched {
        /// The share's name.
        share: String,
        /// The file's size.
        bytes: u64,
    },
    /// Versions of a text were merged on this device.
    FileMerged {
        /// The share's name.
        share: String,
        /// The name of the file, without its directory.
        name: String,
        /// How many versions were merged.
        versions: u64,
        /// The size of the result.
        bytes: u64,
    },
    /// The number of files that are kept in several versions changed.
    ConflictsChanged {
        /// The share's name.
        share: String,
        /// How many there are now.
        conflicts: u64,
    },
    /// A share's state changed.
    ShareStateChanged {
        /// The share's name.
        share: String,
        /// The state now.
        state: ShareState,
        /// How many bytes this device still wants to fetch.
        missing_bytes: u64,
    },
    /// Another device removed or overwrote a large part of a share within a short time. What it
    /// touched is held here until a person says that it was meant.
    MassChange {
        /// The share's name.
        share: String,
        /// What was done until now. `status` tells how it goes on.
        #[serde(flatten)]
        change: MassChange,
    },
    /// A person said, here or on another device, that a mass change was meant.
    MassChangeMeant {
        /// The share's name.
        share: String,
        /// The device that had made it.
        device: String,
    },
    /// A share was mounted.
    Mounted {
        /// The share's name.
        share: String,
        /// Where.
        mount: String,
    },
    /// Somebody's mistake or damage that a person should know of.
    Problem {
        /// What happened, in one line.
        error: String,
        /// What to do about it, in one line.
        hint: String,
    },
    /// The listener was too slow: events were dropped before the next one.
    Lagged {
        /// How many.
        missed: u64,
    },
    /// The daemon stops; nothing follows.
    Stopping,
    /// Something that this version of Kith has no name for.
    #[serde(untagged)]
    Other(Map<String, Value>),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_one_flat_object() {
        let event = Event {
            time: Moment::from_unix_ms(0),
            what: Happening::ShareStateChanged {
                share: "Kith".into(),
                state: ShareState::Syncing,
                missing_bytes: 7,
            },
        };
        let text = serde_json::to_string(&event).unwrap();
        assert_eq!(
            text,
            r#"{"time":"1970-01-01T00:00:00.000Z","type":"share_state_changed","share":"Kith","state":"syncing","missing_bytes":7}"#
        );
        assert_eq!(serde_json::from_str::<Event>(&text).unwrap(), event);
    }

    #[test]
    fn an_event_of_a_newer_kith_is_kept_whole() {
        let text = r#"{"time":"1970-01-01T00:00:00.000Z","moon":"full","type":"tide"}"#;
        let event: Event = serde_json::from_str(text).unwrap();
        let Happening::Other(fields) = &event.what else { panic!("read as {event:?}") };
        assert_eq!(fields["type"], "tide");
        assert_eq!(serde_json::to_string(&event).unwrap(), text);
    }

    #[test]
    fn an_event_without_fields_is_read_back() {
        let event = Event { time: Moment::from_unix_ms(5), what: Happening::Stopping };
        let text = serde_json::to_string(&event).unwrap();
        assert_eq!(text, r#"{"time":"1970-01-01T00:00:00.005Z","type":"stopping"}"#);
        assert_eq!(serde_json::from_str::<Event>(&text).unwrap(), event);
    }
}
