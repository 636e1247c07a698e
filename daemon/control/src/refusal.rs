//! What the daemon answers when it can't do what it was asked.

use serde::{Deserialize, Serialize};

/// Why something was not done, and what to try next. The body of every answer that is not 2xx.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ErrorBody {
    /// What happened, in one line.
    pub error: String,
    /// What to try next, in one line; empty if there is nothing to add.
    #[serde(default)]
    pub hint: String,
}
