//! `synapse_config`: what Synapse's own configuration says about uploads, so that the edge refuses what Synapse would.
//!
//! Only `max_upload_size` and `server_name` are looked at. Nothing in those files can make our configuration wrong: what cannot be
//! read or understood is at most a warning.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::Preset;
use crate::reader::Item;
use crate::source::{Node, Sources, Value};
use crate::{ByteSize, Server, Severity, Upstream};

/// `max_upload_size` of a Synapse.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct UploadLimit {
    /// The largest upload that Synapse takes.
    pub(crate) size: ByteSize,
    /// The file that says so; without one it is Synapse's default.
    pub(crate) file: Option<PathBuf>,
}

impl UploadLimit {
    /// What uploads may have at most: `explicit` is `limits.max_body_size` if it was written, and wins where it is less.
    pub(crate) fn within(&self, explicit: Option<ByteSize>) -> ByteSize {
        explicit.map_or(self.size, |most| most.min(self.size))
    }
}

/// The limit of the Synapse behind the preset. `item` is `synapse_config`; without it the files of Debian's package are looked for,
/// if Synapse is on this machine.
pub(super) fn read(
    item: Option<&Item<'_>>,
    preset: &Item<'_>,
    server_name: &str,
    synapse: Option<&Upstream>,
) -> Option<UploadLimit> {
    let Some(item) = item else {
        return synapse.filter(|synapse| is_local(synapse)).and_then(|_| installed(preset, server_name));
    };
    let paths = match item.as_text() {
        Some(_) => vec![item.file_path()?],
        None if item.is_section() => return item.wrong("a path or a list of paths"),
        None => item.list()?.iter().map(Item::file_path).collect::<Option<Vec<PathBuf>>>()?,
    };
    if paths.is_empty() {
        return None;
    }
    match look_into(&paths) {
        Ok(found) => {
            if found.server_name.as_ref().is_some_and(|name| name != server_name) {
                let other = found.server_name.unwrap_or_default();
                item.warn(format!("is the configuration of another server, {other}"));
            }
            Some(found.limit)
        }
        Err(trouble) => {
            item.warn(format!("{trouble}: uploads are limited by edge.limits.max_body_size instead"));
            None
        }
    }
}

/// The limit of the Synapse that is installed on this machine, if it is the one of the preset.
fn installed(preset: &Item<'_>, server_name: &str) -> Option<UploadLimit> {
    let readable = |path: &&PathBuf| match path.is_dir() {
        true => fs::read_dir(path).is_ok(),
        false => check_readable(path).is_ok(),
    };
    let paths: Vec<PathBuf> = preset.context.synapse_files.iter().filter(readable).cloned().collect();
    // Without its main file nothing can be said.
    if paths.first() != preset.context.synapse_files.first() || paths.is_empty() {
        return None;
    }
    match look_into(&paths) {
        Ok(found) => (found.server_name.as_deref() == Some(server_name)).then_some(found.limit),
        Err(trouble) => {
            let message = format!(
                "{trouble}: uploads are limited by edge.limits.max_body_size; write synapse_config: [] if this is not the Synapse behind this edge"
            );
            let span = Some(preset.key_span());
            preset.context.find(
                Severity::Warning,
                span,
                &format!("{}.synapse_config", preset.path),
                message,
                &[],
            );
            None
        }
    }
}

fn is_local(synapse: &Upstream) -> bool {
    synapse.servers.iter().all(Server::is_local)
}

/// What was found in all files together; as in Synapse, a later one wins.
#[derive(Debug)]
struct Found {
    limit: UploadLimit,
    server_name: Option<String>,
}

#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error("{} cannot be read ({source})", file.display())]
    Unreadable { file: PathBuf, source: io::Error },
    #[error("{} {what}", file.display())]
    NotYaml { file: PathBuf, what: String },
    #[error("max_upload_size of {} is not a size as Synapse writes it", file.display())]
    NotASize { file: PathBuf },
}

fn look_into(paths: &[PathBuf]) -> Result<Found, Trouble> {
    let mut found = Found { limit: UploadLimit { size: SYNAPSES_DEFAULT, file: None }, server_name: None };
    for path in paths {
        for file in files_of(path)? {
            let node = parse(&file)?;
            if let Some(value) = member(&node, "max_upload_size") {
                let size = as_text(value)
                    .and_then(parse_size)
                    .ok_or_else(|| Trouble::NotASize { file: file.clone() })?;
                found.limit = UploadLimit { size, file: Some(file.clone()) };
            }
            if let Some(name) = member(&node, "server_name").and_then(as_text) {
                found.server_name = Some(name.to_owned());
            }
        }
    }
    Ok(found)
}

/// A file, or the `*.yaml` of a folder in the order of their names.
fn files_of(path: &Path) -> Result<Vec<PathBuf>, Trouble> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let unreadable = |source| Trouble::Unreadable { file: path.to_owned(), source };
    let entries =
        fs::read_dir(path).map_err(unreadable)?.collect::<io::Result<Vec<_>>>().map_err(unreadable)?;
    let mut files: Vec<PathBuf> = entries
        .into_iter()
        .map(|entry| entry.path())
        .filter(|path| path.is_file() && path.extension().is_some_and(|extension| extension == "yaml"))
        .collect();
    files.sort();
    Ok(files)
}

/// A pipe would be waited for.
fn check_readable(path: &Path) -> io::Result<()> {
    match fs::metadata(path)?.is_file() {
        true => fs::File::open(path).map(drop),
        false => Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a file")),
    }
}

fn parse(file: &Path) -> Result<Node, Trouble> {
    // Before it is read: this error is better than a text.
    check_readable(file).map_err(|source| Trouble::Unreadable { file: file.to_owned(), source })?;
    Sources::default().read(file).map_err(|fault| {
        let line = fault.span.map_or_else(String::new, |span| format!(" (line {})", span.line));
        Trouble::NotYaml { file: file.to_owned(), what: format!("{}{line}", fault.message) }
    })
}

fn member<'a>(node: &'a Node, key: &str) -> Option<&'a Node> {
    let Value::Map(entries) = &node.value else { return None };
    let found = entries.iter().find(|entry| entry.key == key).map(|entry| &entry.node);
    found.filter(|node| !matches!(node.value, Value::Null))
}

fn as_text(node: &Node) -> Option<&str> {
    match &node.value {
        Value::Scalar { text, .. } => Some(text),
        Value::Null | Value::List(_) | Value::Map(_) => None,
    }
}

/// A whole number, with `K`, `M`, `G` or `T` (powers of 1024) or without; `_` may stand between digits, as in Python.
fn parse_size(text: &str) -> Option<ByteSize> {
    let units = [('K', 1 << 10), ('M', 1 << 20), ('G', 1 << 30), ('T', 1_u64 << 40)];
    let (number, factor) = match units.iter().find(|(unit, _)| text.ends_with(*unit)) {
        Some((unit, factor)) => (text.strip_suffix(*unit)?, *factor),
        None => (text, 1),
    };
    let digits = number.trim().replace('_', "");
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    digits.parse::<u64>().ok()?.checked_mul(factor).map(ByteSize)
}

impl Preset {
    /// Warns when a limit that was written keeps uploads out that Synapse would take.
    pub(crate) fn warn_of_lower_limit(&self, written: &Item<'_>, size: ByteSize) {
        let Some(limit) = self.upload_limit.as_ref().filter(|limit| size < limit.size) else { return };
        let source = match &limit.file {
            Some(file) => format!("max_upload_size of {}", file.display()),
            None => "Synapse's default".to_owned(),
        };
        written.warn(format!(
            "uploads beyond {size} are refused, though Synapse takes up to {} ({source})",
            limit.size
        ));
    }
}

/// `max_upload_size` when it is not written.
const SYNAPSES_DEFAULT: ByteSize = ByteSize(50 << 20);

/// Where Debian's package keeps Synapse's configuration, in the order in which its service reads it.
pub(crate) const DEBIAN: [&str; 2] = ["/etc/matrix-synapse/homeserver.yaml", "/etc/matrix-synapse/conf.d"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_synapse_reads_them() {
        let check = |text: &str, expected: Option<u64>| {
            assert_eq!(parse_size(text), expected.map(ByteSize), "{text}")
        };
        check("50M", Some(50 << 20));
        check("1024K", Some(1 << 20));
        check("2G", Some(2 << 30));
        check("1T", Some(1 << 40));
        check("52428800", Some(50 << 20));
        check("50_000_000", Some(50_000_000));
        check("100 M", Some(100 << 20));
        for wrong in ["", "M", "50m", "50MB", "1.5M", "-1", "99999999999999999T", "fifty"] {
            check(wrong, None);
        }
    }
}
