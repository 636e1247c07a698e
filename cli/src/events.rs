//! `kith events`: what happens, as it happens.

use crate::failure::Failure;
use crate::meant::{happened, held};
use crate::running::client;
use crate::screen::{DIM, clock, plain, say, say_json, several, short_id, size};
use kith_control::event::{Event, Happening};
use kith_daemon::paths::Paths;

/// Prints events until the daemon stops.
pub(crate) fn follow(paths: &Paths, json: bool) -> Result<(), Failure> {
    for event in client(paths).events()? {
        let event = event?;
        if json {
            say_json(&event);
        } else {
            say(&format!("{DIM}{}{DIM:#}  {}", clock(event.time), plain(&sentence(&event))));
        }
    }
    Ok(())
}

fn sentence(event: &Event) -> String {
    use crate::status::state_name;
    match &event.what {
        Happening::DeviceConnected { name, address, .. } => match address {
            Some(address) => format!("{name} is connected, at {address}"),
            None => format!("{name} is connected"),
        },
        Happening::DeviceDisconnected { name, reason, .. } => {
            format!("{name} is disconnected: {reason}")
        }
        Happening::DeviceJoined { name, .. } => format!("{name} has joined"),
        Happening::DeviceRemoved { name, .. } => format!("{name} was removed"),
        Happening::DeviceRenamed { id, name } => {
            format!("the device {} is called {name} now", short_id(id))
        }
        Happening::DeviceCloned { hint } => {
            format!("another machine has this device's identity. {hint}")
        }
        Happening::ChangesReceived { share, from, changes } => {
            format!("{share}: {} from {from}", several(*changes, "change"))
        }
        Happening::FilePublished { share, bytes } => {
            format!("{share}: a file of {} was saved here", size(*bytes))
        }
        Happening::FileFetched { share, bytes } => {
            format!("{share}: a file of {} has arrived", size(*bytes))
        }
        Happening::FileMerged { share, name, versions, .. } => {
            format!("{share}: {} of {name} were merged", several(*versions, "version"))
        }
        Happening::ConflictsChanged { share, conflicts } => {
            format!("{share}: {}", several(*conflicts, "conflict"))
        }
        Happening::ShareStateChanged { share, state, missing_bytes: 0 } => {
            format!("{share} is {}", state_name(*state))
        }
        Happening::ShareStateChanged { share, state, missing_bytes } => {
            format!("{share} is {}, {} to fetch", state_name(*state), size(*missing_bytes))
        }
        Happening::MassChange { share, change } => {
            format!("{share}: {}, and may go on. {}", happened(change, event.time), held(change))
        }
        Happening::MassChangeMeant { share, device } => {
            format!("{share}: what {device} removed or overwrote was meant")
        }
        Happening::Mounted { share, mount } => format!("{share} is mounted at {mount}"),
        Happening::Problem { error, hint } if hint.is_empty() => error.clone(),
        Happening::Problem { error, hint } => format!("{error} {hint}"),
        Happening::Lagged { missed } => {
            format!("{} came too fast to be shown", several(*missed, "event"))
        }
        Happening::Stopping => "Kith stops".into(),
        Happening::Other(fields) => {
            serde_json::to_string(fields).unwrap_or_else(|_| "something new".into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kith_control::moment::Moment;
    use kith_control::status::ShareState;

    #[test]
    fn events_are_short_sentences() {
        let share = || "Kith".to_owned();
        for (what, expected) in [
            (
                Happening::ChangesReceived { share: share(), from: "desktop".into(), changes: 1 },
                "Kith: 1 change from desktop",
            ),
            (
                Happening::ShareStateChanged {
                    share: share(),
                    state: ShareState::Syncing,
                    missing_bytes: 1536,
                },
                "Kith is syncing, 1.5 KiB to fetch",
            ),
            (Happening::Lagged { missed: 1200 }, "1,200 events came too fast to be shown"),
            (Happening::Stopping, "Kith stops"),
        ] {
            assert_eq!(sentence(&Event { time: Moment::from_unix_ms(0), what }), expected);
        }
    }
}
