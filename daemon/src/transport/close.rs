//! The codes with which connections and streams are closed, and what they mean to people.

use quinn::{Connection, ConnectionError, VarInt};

/// Why a connection was closed on purpose. The numbers are part of the protocol.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Close {
    /// All is done.
    Done,
    /// The daemon stops.
    Stopping,
    /// The other device isn't a member of the circle.
    Stranger,
    /// The other device was removed from the circle.
    Removed,
    /// There is another connection between the two devices.
    Duplicate,
    /// A newer connection took this one's place.
    Replaced,
    /// The other device broke the protocol.
    Protocol,
    /// No invitation is open.
    NoInvitation,
    /// Too many others are being served.
    Busy,
    /// It took too long.
    Slow,
    /// The invitation has expired.
    Expired,
    /// The invitation was burned by wrong guesses.
    Burned,
}

const ALL: [(Close, u32, &str); 12] = [
    (Close::Done, 0, "done"),
    (Close::Stopping, 1, "the device stops"),
    (Close::Stranger, 2, "not a device of that circle"),
    (Close::Removed, 3, "removed from the circle"),
    (Close::Duplicate, 4, "there is another connection"),
    (Close::Replaced, 5, "a newer connection took its place"),
    (Close::Protocol, 6, "the protocol was broken"),
    (Close::NoInvitation, 7, "no invitation is open"),
    (Close::Busy, 8, "busy"),
    (Close::Slow, 9, "no answer in time"),
    (Close::Expired, 10, "the invitation has expired"),
    (Close::Burned, 11, "the invitation was burned by wrong guesses"),
];

/// The code with which a stream of unknown purpose is refused.
pub const UNKNOWN_STREAM: VarInt = VarInt::from_u32(1);

/// The longest reason that is taken from another device into a log, in characters.
const REASON_MAX: usize = 200;

impl Close {
    /// The code on the wire.
    #[must_use]
    pub fn code(self) -> VarInt {
        let found = ALL.iter().find(|(close, _, _)| *close == self);
        VarInt::from_u32(found.expect("every reason is in the table").1)
    }

    /// The reason that `code` stands for.
    #[must_use]
    pub fn from_code(code: VarInt) -> Option<Close> {
        let found = ALL.iter().find(|(_, number, _)| u64::from(*number) == code.into_inner());
        found.map(|(close, _, _)| *close)
    }

    /// The reason, for people.
    #[must_use]
    pub fn text(self) -> &'static str {
        let found = ALL.iter().find(|(close, _, _)| *close == self);
        found.expect("every reason is in the table").2
    }

    /// Closes a connection for this reason.
    pub fn close(self, connection: &Connection) {
        connection.close(self.code(), self.text().as_bytes());
    }

    /// Why the other side closed, if it said so with a code of this protocol.
    #[must_use]
    pub fn by_peer(error: &ConnectionError) -> Option<Close> {
        match error {
            ConnectionError::ApplicationClosed(closed) => Close::from_code(closed.error_code),
            _ => None,
        }
    }
}

/// Why a connection ended or didn't come to be, in one line.
#[must_use]
pub fn explain(error: &ConnectionError) -> String {
    match error {
        ConnectionError::TimedOut => "no answer".to_owned(),
        ConnectionError::LocallyClosed => "closed here".to_owned(),
        ConnectionError::Reset => "the other device was restarted".to_owned(),
        ConnectionError::ApplicationClosed(closed) => {
            let reason: String = String::from_utf8_lossy(&closed.reason)
                .chars()
                .filter(|c| !c.is_control())
                .take(REASON_MAX)
                .collect();
            match Close::from_code(closed.error_code) {
                Some(Close::Protocol) if !reason.is_empty() => {
                    format!("closed by the other device: {reason}")
                }
                Some(close) => format!("closed by the other device: {}", close.text()),
                None => format!("closed by the other device: {} {reason}", closed.error_code),
            }
        }
        other => other.to_string().lines().next().unwrap_or_default().to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_and_reasons_are_one_to_one() {
        for (close, number, text) in ALL {
            assert_eq!(close.code(), VarInt::from_u32(number));
            assert_eq!(Close::from_code(VarInt::from_u32(number)), Some(close));
            assert_eq!(close.text(), text);
        }
        assert_eq!(Close::from_code(VarInt::from_u32(999)), None);
    }
}
