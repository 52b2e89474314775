//! Secrets: the value itself, or a file that holds it.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::Secret;
use crate::reader::{Item, Section};
use crate::source::read_bounded;

/// Reads `<key>` or `<key>_file`; `None` when neither is given, or with a finding.
pub(crate) fn secret(section: &mut Section<'_>, key: &'static str, file_key: &'static str) -> Option<Secret> {
    let (item, is_file) = value_or_file(section, key, file_key)?;
    if is_file {
        let path = item.file_path()?;
        let bytes = read_secret_file(&item, &path)?;
        let Ok(text) = String::from_utf8(bytes) else {
            item.error(format!("{} is not text", path.display()));
            return None;
        };
        let text = text.trim();
        if text.is_empty() {
            item.error(format!("{} is empty", path.display()));
            return None;
        }
        return Some(Secret::from_file(text.to_owned(), path));
    }
    item.filled_text().map(Secret::new)
}

/// Exactly one of a key and its `_file` twin: the item, and whether it names a file.
pub(crate) fn value_or_file<'a>(
    section: &mut Section<'a>,
    key: &'static str,
    file_key: &'static str,
) -> Option<(Item<'a>, bool)> {
    match (section.take(key), section.take(file_key)) {
        (Some(value), None) => Some((value, false)),
        (None, Some(file)) => Some((file, true)),
        (Some(value), Some(file)) => {
            file.error_with(
                format!("`{key}` is given too, keep one of them"),
                value.key_span(),
                "given here",
            );
            None
        }
        (None, None) => None,
    }
}

/// The bytes of a secret file; one that everybody on the machine can read is a warning.
pub(crate) fn read_secret_file(item: &Item<'_>, path: &Path) -> Option<Vec<u8>> {
    match read_bounded(path, LARGEST_SECRET) {
        Ok(bytes) => {
            warn_if_world_readable(item, path);
            Some(bytes)
        }
        Err(error) => {
            item.error(format!("{} cannot be read: {error}", path.display()));
            None
        }
    }
}

fn warn_if_world_readable(item: &Item<'_>, path: &Path) {
    let mode = std::fs::metadata(path).map(|metadata| metadata.permissions().mode()).unwrap_or(0);
    if mode & 0o004 != 0 {
        item.warn(format!("everybody on this machine can read {0}, run: chmod 600 {0}", path.display()));
    }
}

/// A chain of certificates with all its intermediates is a few KiB.
const LARGEST_SECRET: u64 = 256 << 10;
