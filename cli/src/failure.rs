//! Why a command did not do what it was asked, as a person is told.

use crate::screen::plain;
use kith_control::client::ClientError;
use kith_control::refusal::ErrorBody;
use kith_daemon::RunError;
use kith_daemon::config::ConfigError;
use kith_daemon::paths::PathsError;

/// What happened, and what to try next; each one line.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Failure {
    pub(crate) sentence: String,
    pub(crate) hint: String,
}

impl Failure {
    pub(crate) fn new(sentence: impl Into<String>, hint: impl Into<String>) -> Self {
        Failure { sentence: sentence_of(&sentence.into()), hint: sentence_of(&hint.into()) }
    }

    /// Says it on stderr: as JSON, or in words.
    pub(crate) fn tell(&self, json: bool) {
        if json {
            let body = ErrorBody { error: self.sentence.clone(), hint: self.hint.clone() };
            let text = serde_json::to_string(&body).unwrap_or_else(|_| self.sentence.clone());
            crate::screen::complain(&text);
            return;
        }
        let (red, dim) = (crate::screen::BAD, crate::screen::DIM);
        crate::screen::complain(&format!("{red}error:{red:#} {}", plain(&self.sentence)));
        if !self.hint.is_empty() {
            crate::screen::complain(&format!("{dim} hint:{dim:#} {}", plain(&self.hint)));
        }
    }
}

/// One line that begins with a capital and ends with a full stop.
pub(crate) fn sentence_of(text: &str) -> String {
    let text = text.trim().replace(['\n', '\r'], " ");
    let mut letters = text.chars();
    let Some(first) = letters.next() else { return String::new() };
    let mut sentence: String = first.to_uppercase().chain(letters).collect();
    if !sentence.ends_with(['.', '?', '!']) {
        sentence.push('.');
    }
    sentence
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        Failure::new(error.to_string(), error.hint())
    }
}

impl From<RunError> for Failure {
    fn from(error: RunError) -> Self {
        Failure::new(error.sentence, error.hint)
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        let hint = match &error {
            ConfigError::Unreadable { .. } => "Make the file readable, or move it away.",
            ConfigError::Wrong { .. } => {
                "Correct the file, or move it away: all is optional in it."
            }
        };
        Failure::new(error.to_string(), hint)
    }
}

impl From<PathsError> for Failure {
    fn from(error: PathsError) -> Self {
        let hint = match &error {
            PathsError::Homeless => "Set HOME, or name a directory with --home.",
            PathsError::Unusable { .. } => "Name another one.",
            PathsError::Directory { .. } | PathsError::File { .. } => {
                "See who owns it and whether the disk is full or read-only."
            }
            PathsError::NotPrivate { .. } => "Move it away, or name another place with --home.",
            PathsError::Running { .. } => "`kith status` shows it, `kith down` stops it.",
        };
        Failure::new(error.to_string(), hint)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sentence_is_one_line_from_a_capital_to_a_stop() {
        for (text, sentence) in [
            ("", ""),
            ("the disk is full", "The disk is full."),
            ("Already good.", "Already good."),
            ("two\nlines", "Two lines."),
            ("`kith up` starts it", "`kith up` starts it."),
            ("über", "Über."),
        ] {
            assert_eq!(sentence_of(text), sentence);
        }
    }
}
