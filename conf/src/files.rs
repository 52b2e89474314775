//! `static:` routes.
//!
//! Which file answers a request is decided by the edge.

use std::path::PathBuf;
use std::time::Duration;

use crate::reader::Item;

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
    /// Name of the file that is served for a folder. `None`: folders are not found.
    pub index: Option<String>,
    /// File, relative to `root`, for paths of pages that have no file: the start of a single-page application. Never cached
    /// without asking, whatever `expires` says. `None`: 404.
    pub fallback: Option<String>,
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

impl StaticFiles {
    /// Reads the value of `static`; `strip_prefix` is what the route's matcher says.
    pub(crate) fn read(item: &Item<'_>, strip_prefix: &str) -> Option<Self> {
        let mut section = item.section()?;
        let root = section.require("root", "name the folder to serve");
        let precompressed = match section.take("precompressed") {
            Some(list) => read_encodings(&list),
            None => Some(Vec::new()),
        };
        let expires = match section.take("expires") {
            Some(item) => item.duration().map(Some),
            None => Some(None),
        };
        let index = section.take("index").map_or(Some(None), |item| item.parse(parse_index).map(Some));
        let fallback_item = section.take("fallback");
        let fallback = fallback_item.as_ref().map_or(Some(None), |item| item.parse(parse_fallback).map(Some));
        section.later(&[
            ("try_files", "fall-backs for missing files other than by `fallback` are"),
            ("autoindex", "directory listings are"),
        ]);
        section.finish();
        let root = root?;
        let folder = root.file_path()?;
        if !folder.is_dir() {
            root.warn(format!(
                "there is no folder {}, so every request for a file in it is answered with 404",
                folder.display()
            ));
        } else if let (Some(item), Some(Some(name))) = (&fallback_item, &fallback)
            && !folder.join(name).is_file()
        {
            item.warn(format!("there is no file {}", folder.join(name).display()));
        }
        Some(Self {
            root: folder,
            strip_prefix: strip_prefix.to_owned(),
            precompressed: precompressed?,
            expires: expires?,
            index: index?,
            fallback: fallback?,
        })
    }
}

fn parse_index(text: &str) -> Result<String, String> {
    if text.contains('/') {
        return Err(format!("`{text}` is not the name of a file, leave out the folders"));
    }
    parse_fallback(text)
}

/// A name that a request could ask for too.
fn parse_fallback(text: &str) -> Result<String, String> {
    if text.starts_with('/') {
        return Err(format!("`{text}`: the name begins at root, leave out the first `/`"));
    }
    let is_plain = |segment: &str| !segment.is_empty() && !segment.starts_with('.');
    if !text.split('/').all(is_plain) || text.contains(char::is_control) {
        return Err(format!("`{text}` is not the name of a file that is served, such as index.html"));
    }
    Ok(text.to_owned())
}

fn read_encodings(list: &Item<'_>) -> Option<Vec<Encoding>> {
    let mut encodings = Vec::new();
    let mut complete = true;
    for item in list.list()? {
        match item.choice(&ENCODINGS) {
            Some(encoding) if encodings.contains(&encoding) => {
                item.error("is listed twice");
                complete = false;
            }
            Some(encoding) => encodings.push(encoding),
            None => complete = false,
        }
    }
    complete.then_some(encodings)
}

/// The words for [`Encoding`].
pub(crate) const ENCODINGS: [(&str, Encoding); 3] =
    [("br", Encoding::Brotli), ("zstd", Encoding::Zstd), ("gzip", Encoding::Gzip)];
