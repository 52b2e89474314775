//! `edge.access_log`.
//!
//! The file is opened by the edge, not here.

use std::path::PathBuf;

use crate::reader::Item;

/// Where and how requests are logged. Default: standard output, JSON.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccessLog {
    /// `path: "-"` is standard output.
    pub target: AccessLogTarget,
    /// Line format.
    pub format: AccessLogFormat,
}

/// Where access log lines go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AccessLogTarget {
    /// Standard output.
    Stdout,
    /// Appended to a file.
    File(PathBuf),
}

/// How an access log line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AccessLogFormat {
    /// One JSON object per line.
    Json,
    /// The combined format of Apache and nginx.
    Combined,
}

impl Default for AccessLog {
    fn default() -> Self {
        Self { target: AccessLogTarget::Stdout, format: AccessLogFormat::Json }
    }
}

impl AccessLog {
    /// Reads `edge.access_log`; `false` turns it off.
    pub(crate) fn read(item: &Item<'_>) -> Option<Option<Self>> {
        if item.as_truth() == Some(false) {
            return Some(None);
        }
        let mut section = item.section()?;
        let target = match section.take("path") {
            Some(path) if path.as_text() == Some("-") => Some(AccessLogTarget::Stdout),
            Some(path) => path.file_path().map(AccessLogTarget::File),
            None => Some(AccessLogTarget::Stdout),
        };
        let format = section.take("format").map_or(Some(AccessLogFormat::Json), |item| item.choice(&FORMATS));
        section.finish();
        Some(Some(Self { target: target?, format: format? }))
    }
}

/// The words for [`AccessLogFormat`].
pub(crate) const FORMATS: [(&str, AccessLogFormat); 2] =
    [("json", AccessLogFormat::Json), ("combined", AccessLogFormat::Combined)];
