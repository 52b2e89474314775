//! Diagnostics: the only way to make and print a configuration error.

use std::fmt;
use std::path::PathBuf;

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// Nothing runs with it.
    Error,
    /// Worth reading; runs all the same.
    Warning,
}

/// One finding with its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// How bad it is.
    pub severity: Severity,
    /// File as given, line and column counted from 1.
    pub place: Option<(PathBuf, usize, usize)>,
    /// `edge.sites[0].routes[1].upstream`; empty for the file itself.
    pub key_path: String,
    /// What is wrong and what to do.
    pub message: String,
    /// The line of the file, for underlining.
    pub source_line: Option<String>,
}

/// Everything that is wrong with a configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// In the order of files and lines.
    pub diagnostics: Vec<Diagnostic>,
}

impl fmt::Display for Report {
    fn fmt(&self, _f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Ok(())
    }
}

impl std::error::Error for Report {}
