//! Diagnostics: the only way to make and print a configuration error.
//!
//! Nothing here decides what is wrong; it only says it, always in the same shape.

use std::fmt;
use std::ops::Range;
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
    /// The line of the file, for underlining; secrets are taken out of it.
    pub source_line: Option<String>,
    /// Which characters of `source_line` are meant.
    pub mark: Range<usize>,
    /// The other places that belong to it, such as the definition a name refers to.
    pub related: Vec<Related>,
}

/// Another place that belongs to a finding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Related {
    /// File as given, line and column counted from 1.
    pub place: (PathBuf, usize, usize),
    /// What is to be seen there.
    pub message: String,
    /// The line of the file, for underlining; secrets are taken out of it.
    pub source_line: String,
    /// Which characters of `source_line` are meant.
    pub mark: Range<usize>,
}

/// Everything that is wrong with a configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// In the order of files and lines.
    pub diagnostics: Vec<Diagnostic>,
}

impl Report {
    /// Whether anything in it forbids to run.
    pub fn has_errors(&self) -> bool {
        self.errors() > 0
    }

    /// Number of errors.
    pub fn errors(&self) -> usize {
        self.diagnostics.iter().filter(|d| d.severity == Severity::Error).count()
    }

    /// Number of warnings.
    pub fn warnings(&self) -> usize {
        self.diagnostics.len() - self.errors()
    }
}

/// Every finding in full, separated by line ends; ends with a line end unless empty.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.diagnostics.iter().try_for_each(|diagnostic| writeln!(f, "{diagnostic}"))
    }
}

impl std::error::Error for Report {}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some((file, line, column)) = &self.place {
            write!(f, "{}:{line}:{column}: ", file.display())?;
        }
        if self.severity == Severity::Warning {
            f.write_str("warning: ")?;
        }
        if !self.key_path.is_empty() {
            write!(f, "{}: ", self.key_path)?;
        }
        f.write_str(&self.message)?;
        if let Some(text) = &self.source_line {
            underline(f, text, &self.mark)?;
        }
        for related in &self.related {
            let (file, line, column) = &related.place;
            write!(f, "\n  {}:{line}:{column}: {}", file.display(), related.message)?;
            underline(f, &related.source_line, &related.mark)?;
        }
        Ok(())
    }
}

/// The line and, below it, `^^^` under the part that is meant. Nothing for an empty line.
fn underline(f: &mut fmt::Formatter<'_>, text: &str, mark: &Range<usize>) -> fmt::Result {
    if text.trim().is_empty() {
        return Ok(());
    }
    let shown: String = text.chars().take(WIDEST_LINE).collect();
    write!(f, "\n    {shown}")?;
    if mark.start >= WIDEST_LINE {
        return Ok(());
    }
    let room = shown.chars().count().saturating_sub(mark.start).max(1);
    // Tabs are kept, so that the marks stand right whatever a tab's width is.
    let indent: String = text.chars().take(mark.start).map(|c| if c == '\t' { '\t' } else { ' ' }).collect();
    write!(f, "\n    {indent}{}", "^".repeat(mark.len().clamp(1, room)))
}

/// Longer lines are cut: nobody reads further, and a terminal would wrap the marks away from their place.
const WIDEST_LINE: usize = 160;
