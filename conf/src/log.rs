//! `edge.access_log`.

use std::path::PathBuf;

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
