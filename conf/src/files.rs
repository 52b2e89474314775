//! `static:` routes.

use std::path::PathBuf;
use std::time::Duration;

/// Files below a folder. With the matcher `prefix: /assets/`, `/assets/x.js` is `<root>/x.js` (nginx's `alias`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StaticFiles {
    /// The folder.
    pub root: PathBuf,
    /// Part of the path that is removed before the file is looked up: the matcher's prefix, or `/`.
    pub strip_prefix: String,
    /// Encodings looked for beside the file, in the order of preference. Default none.
    pub precompressed: Vec<Encoding>,
    /// `Cache-Control: public, max-age=…`, with `immutable` from 365 days on. `None`: `no-cache`.
    pub expires: Option<Duration>,
}

/// A content coding with pre-compressed files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// `br`, files `*.br` (RFC 7932).
    Brotli,
    /// `zstd`, files `*.zst` (RFC 8878).
    Zstd,
    /// `gzip`, files `*.gz` (RFC 1952).
    Gzip,
}
