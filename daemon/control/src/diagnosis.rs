//! What was found when everything that Kith depends on was looked at.

use serde::{Deserialize, Serialize};

/// Answer of `GET /v1/doctor`.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct DoctorReport {
    /// What was looked at.
    pub checks: Vec<Check>,
}

/// How one check came out.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// As it should be.
    Ok,
    /// Kith works, but not as well as it could.
    Warn,
    /// Kith does not work.
    Bad,
}

/// One thing that was looked at.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Check {
    /// What, in a word or two.
    pub name: String,
    /// How it came out.
    pub outcome: Outcome,
    /// What was seen, in one line.
    pub detail: String,
    /// What to do about it, in one line; empty if nothing.
    #[serde(default)]
    pub hint: String,
}

impl Check {
    /// Something that is as it should be.
    #[must_use]
    pub fn ok(name: &str, detail: impl Into<String>) -> Self {
        Check {
            name: name.to_owned(),
            outcome: Outcome::Ok,
            detail: detail.into(),
            hint: String::new(),
        }
    }

    /// Something that could be better.
    #[must_use]
    pub fn warn(name: &str, detail: impl Into<String>, hint: impl Into<String>) -> Self {
        Check { outcome: Outcome::Warn, hint: hint.into(), ..Check::ok(name, detail) }
    }

    /// Something that keeps Kith from working.
    #[must_use]
    pub fn bad(name: &str, detail: impl Into<String>, hint: impl Into<String>) -> Self {
        Check { outcome: Outcome::Bad, hint: hint.into(), ..Check::ok(name, detail) }
    }
}
