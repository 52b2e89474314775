//! Why a process, or what it was asked for, came to nothing: as text, for it travels between processes.

use std::error::Error;

use serde::{Deserialize, Serialize};

use super::{EXIT_CONFIG, EXIT_FAULT, EXIT_STOPPED};
use crate::error::Chain;

/// What went wrong, and the exit code that says so.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{text}")]
pub struct Fault {
    /// [`EXIT_CONFIG`] when the configuration is at fault, [`EXIT_STOPPED`] when nothing is, else [`EXIT_FAULT`].
    pub exit: u8,
    /// For a person to read; several lines when several things are wrong.
    pub text: String,
}

impl Fault {
    /// Anything but the configuration.
    pub fn new(text: impl Into<String>) -> Self {
        Self { exit: EXIT_FAULT, text: text.into() }
    }

    /// The configuration, as this text says.
    pub fn configuration(text: impl Into<String>) -> Self {
        Self { exit: EXIT_CONFIG, text: text.into() }
    }

    /// Asked to stop before it was ready.
    pub(super) fn stopped() -> Self {
        Self { exit: EXIT_STOPPED, text: "stopped before it was ready".to_owned() }
    }

    /// An error with everything that led to it.
    pub fn of(error: &(dyn Error + 'static)) -> Self {
        Self::new(Chain(error).to_string())
    }

    /// The same fault, with what it was a part of before it.
    #[must_use]
    pub fn within(self, what: &str) -> Self {
        Self { text: format!("{what}: {}", self.text), ..self }
    }
}

impl From<conf::Report> for Fault {
    fn from(report: conf::Report) -> Self {
        Self::configuration(report.to_string().trim_end())
    }
}
