//! Inviting a device and joining one.

use crate::moment::Moment;
use crate::status::DeviceRef;
use serde::{Deserialize, Serialize};

/// The first line of the answer of `POST /v1/invite`.
///
/// The invitation holds while the answer is being read: whoever closes it withdraws the code.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Invitation {
    /// The code that the other device is told.
    pub code: String,
    /// `HOST:PORT` where this device can be reached, the best first.
    #[serde(default)]
    pub addresses: Vec<String>,
    /// When the code ends by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<Moment>,
}

/// One line of the answer of `POST /v1/invite`. The last one is `Joined` or `Failed`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(untagged)]
pub enum InviteLine {
    /// The code; always the first line.
    Code(Invitation),
    /// A device has joined the circle.
    Joined {
        /// Who.
        joined: DeviceRef,
    },
    /// Somebody tried a wrong code.
    WrongGuess {
        /// How many more wrong ones are let through before the code is burned.
        guesses_left: u32,
    },
    /// Nobody joined, and nobody can with this code any more.
    Failed {
        /// Why.
        error: String,
        /// What to try next.
        #[serde(default)]
        hint: String,
    },
}

/// Body of `POST /v1/join`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Join {
    /// The code that the inviting device shows.
    pub code: String,
    /// `HOST:PORT` where that device may be; if empty, it is looked for on the local network.
    #[serde(default)]
    pub addresses: Vec<String>,
}

/// Answer of `POST /v1/join`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Joined {
    /// The device that invited.
    pub device: DeviceRef,
    /// Where the circle's folder is mounted here; nothing if it isn't.
    #[serde(default)]
    pub mount: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_line_is_read_as_what_it_was_written_as() {
        let device = DeviceRef { id: "ab".repeat(32), name: "desktop".into() };
        for (line, text) in [
            (
                InviteLine::Code(Invitation {
                    code: "7-mango-elephant".into(),
                    addresses: vec!["192.0.2.1:5484".into()],
                    expires: Some(Moment::from_unix_ms(0)),
                }),
                r#"{"code":"7-mango-elephant","addresses":["192.0.2.1:5484"],"expires":"1970-01-01T00:00:00.000Z"}"#.to_owned(),
            ),
            (
                InviteLine::Joined { joined: device.clone() },
                format!(r#"{{"joined":{{"id":"{}","name":"desktop"}}}}"#, device.id),
            ),
            (InviteLine::WrongGuess { guesses_left: 2 }, r#"{"guesses_left":2}"#.to_owned()),
            (
                InviteLine::Failed { error: "The code has expired.".into(), hint: String::new() },
                r#"{"error":"The code has expired.","hint":""}"#.to_owned(),
            ),
        ] {
            assert_eq!(serde_json::to_string(&line).unwrap(), text);
            assert_eq!(serde_json::from_str::<InviteLine>(&text).unwrap(), line);
        }
    }
}
