//! Tells whoever started the daemon, systemd or `kith up`, how it goes.

use sd_notify::{NotifyState, notify};
use std::time::Duration;

/// The name under which a failure to start is told, as JSON. systemd passes over what begins with
/// `X_`.
pub const FAILURE_VARIABLE: &str = "X_KITH_FAILURE";

/// Speaks systemd's notification protocol. Without anybody to tell, it does nothing.
#[derive(Clone, Debug)]
pub struct Notifier {
    watchdog: Option<Duration>,
}

impl Notifier {
    /// From the environment in which the daemon was started.
    #[must_use]
    pub fn from_environment() -> Self {
        Self::from_variables(|name| std::env::var(name).ok(), std::process::id())
    }

    fn from_variables(variable: impl Fn(&str) -> Option<String>, process: u32) -> Self {
        let number = |name| variable(name).and_then(|text| text.parse::<u64>().ok());
        let for_us = number("WATCHDOG_PID").is_none_or(|id| id == u64::from(process));
        let limit = number("WATCHDOG_USEC").filter(|&limit| limit > 0 && for_us);
        Notifier { watchdog: limit.map(Duration::from_micros) }
    }

    /// How often [`Notifier::alive`] is to be called: twice in the time after which the daemon
    /// would be taken for dead. Nothing if nobody watches.
    #[must_use]
    pub fn watchdog_interval(&self) -> Option<Duration> {
        self.watchdog.map(|limit| limit / 2)
    }

    /// The daemon does its work: mounted, listening, and answering on its control socket.
    pub fn ready(&self, status: &str) {
        tell(&[NotifyState::Ready, NotifyState::Status(&one_line(status))]);
    }

    /// What the daemon is doing, for a person to read.
    pub fn status(&self, status: &str) {
        tell(&[NotifyState::Status(&one_line(status))]);
    }

    /// The daemon is not stuck.
    pub fn alive(&self) {
        tell(&[NotifyState::Watchdog]);
    }

    /// The daemon has begun to stop.
    pub fn stopping(&self) {
        tell(&[NotifyState::Stopping]);
    }

    /// The daemon can't go on.
    pub fn failed(&self, sentence: &str, hint: &str) {
        let failure = serde_json::json!({ "error": sentence, "hint": hint });
        tell(&[
            NotifyState::Status(&one_line(&format!("{sentence} {hint}"))),
            NotifyState::Custom(&format!("{FAILURE_VARIABLE}={failure}")),
        ]);
    }
}

fn one_line(text: &str) -> String {
    text.replace(['\n', '\r'], " ").trim_end().to_owned()
}

fn tell(states: &[NotifyState<'_>]) {
    // `kith up` stops listening once the daemon is ready.
    if let Err(error) = notify(states) {
        tracing::trace!(%error, "nobody hears how the daemon goes");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_watchdog_is_fed_twice_in_its_time() {
        let with = |pairs: &[(&str, &str)]| {
            Notifier::from_variables(
                |name| {
                    let pair = pairs.iter().find(|(known, _)| *known == name);
                    pair.map(|(_, value)| (*value).to_owned())
                },
                7,
            )
            .watchdog_interval()
        };
        let half = Some(Duration::from_secs(15));
        assert_eq!(with(&[]), None);
        assert_eq!(with(&[("WATCHDOG_USEC", "30000000")]), half);
        assert_eq!(with(&[("WATCHDOG_USEC", "30000000"), ("WATCHDOG_PID", "7")]), half);
        assert_eq!(with(&[("WATCHDOG_USEC", "30000000"), ("WATCHDOG_PID", "8")]), None);
        assert_eq!(with(&[("WATCHDOG_USEC", "soon")]), None);
        assert_eq!(with(&[("WATCHDOG_USEC", "0")]), None);
    }
}
