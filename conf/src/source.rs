//! Reading and merging of YAML files; remembers file, line and column of every key and value.
//!
//! It knows nothing of what the keys mean. `saphyr-parser` gives the places; `serde_yaml` prints ([`print`]) and, in the tests,
//! confirms that both understand a file alike.

mod tree;

use std::fs;
use std::io::{self, Read};
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde_yaml::Value as Yaml;

/// A part of one line of one file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Span {
    /// Index into [`Sources::files`].
    pub(crate) file: usize,
    /// From 1.
    pub(crate) line: usize,
    /// From 1, in characters.
    pub(crate) column: usize,
    /// In characters; the rest of a value that goes on in further lines does not count.
    pub(crate) width: usize,
}

/// A value with its place.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    /// What it is.
    pub(crate) value: Value,
    /// Where it begins.
    pub(crate) span: Span,
    /// Number of nodes in it, itself included: bounds what aliases may multiply.
    weight: usize,
}

/// The shapes of YAML.
#[derive(Debug, Clone)]
pub(crate) enum Value {
    /// `null`, `~` or nothing.
    Null,
    /// Text as written, escapes resolved.
    Scalar {
        /// The text.
        text: String,
        /// Written without quotes: may stand for a number or a truth value.
        plain: bool,
    },
    /// A sequence.
    List(Vec<Node>),
    /// A mapping, in the order of the file.
    Map(Vec<Entry>),
}

/// One key of a mapping.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    /// The key.
    pub(crate) key: String,
    /// Where the key stands.
    pub(crate) span: Span,
    /// Its value.
    pub(crate) node: Node,
}

/// A fault of YAML itself, or of reading it.
#[derive(Debug)]
pub(crate) struct Fault {
    /// Where; `None`: the file as a whole.
    pub(crate) span: Option<Span>,
    /// What.
    pub(crate) message: String,
    /// The other place, for duplicates.
    pub(crate) related: Option<(Span, String)>,
}

/// The files that were read.
#[derive(Debug, Default)]
pub(crate) struct Sources {
    files: Vec<(PathBuf, Vec<String>)>,
}

impl Sources {
    /// Path as given.
    pub(crate) fn path(&self, file: usize) -> &Path {
        self.files.get(file).map_or(Path::new(""), |(path, _)| path)
    }

    /// The line at a place, secrets taken out, and which characters of it are meant.
    pub(crate) fn line(&self, span: Span) -> (String, Range<usize>) {
        let lines = self.files.get(span.file).map(|(_, lines)| lines);
        let Some(line) = lines.and_then(|lines| lines.get(span.line.saturating_sub(1))) else {
            return (String::new(), 0..0);
        };
        let position = |column: usize| line.char_indices().nth(column).map_or(line.len(), |(at, _)| at);
        let start = position(span.column.saturating_sub(1));
        let end = position(span.column.saturating_sub(1).saturating_add(span.width));
        // What was taken out before the place moves it.
        let start = conceal(line, start).chars().count();
        let end = conceal(line, end).chars().count();
        (conceal(line, line.len()), start..end.max(start + 1))
    }

    /// Reads a file into a tree. The file is known from then on, whether it parses or not.
    pub(crate) fn read(&mut self, path: &Path) -> Result<Node, Fault> {
        let file = self.files.len();
        self.files.push((path.to_owned(), Vec::new()));
        let whole = |message| Fault { span: None, message, related: None };
        let text =
            read_bounded(path, LARGEST_FILE).map_err(|error| whole(format!("cannot be read: {error}")))?;
        let text = String::from_utf8(text).map_err(|_| whole("is not UTF-8 text".to_owned()))?;
        let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
        self.files[file].1 = text.lines().map(str::to_owned).collect();
        tree::parse(file, text)
    }
}

/// Reads a file that is not larger than `most` bytes.
pub(crate) fn read_bounded(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    fs::File::open(path)?.take(most + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > most {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("larger than {} KiB", most / 1024)));
    }
    Ok(bytes)
}

/// Lays a later file over an earlier one: maps merge, lists append, anything else is replaced.
pub(crate) fn merge(base: &mut Node, over: Node) {
    match (&mut base.value, over.value) {
        (Value::Map(entries), Value::Map(later)) => {
            for entry in later {
                match entries.iter_mut().find(|known| known.key == entry.key) {
                    Some(known) => {
                        merge(&mut known.node, entry.node);
                        // Findings about the key as a whole point at the file that spoke last.
                        known.span = entry.span;
                    }
                    None => entries.push(entry),
                }
            }
        }
        (Value::List(items), Value::List(later)) => items.extend(later),
        (Value::Map(_) | Value::List(_), Value::Null) => {}
        (_, value) => *base = Node { value, span: over.span, weight: over.weight },
    }
}

/// YAML text of a value made by us.
pub(crate) fn print(value: &Yaml) -> String {
    // Fails only for values that we never make (tags, keys that are not text).
    serde_yaml::to_string(value).unwrap_or_default()
}

/// The part of a line before `end`, with what looks like a secret taken out.
fn conceal(line: &str, end: usize) -> String {
    let mut shown = String::with_capacity(end);
    let mut at = 0;
    while let Some(colon) = line[at..].find(": ").map(|colon| at + colon) {
        let key =
            line[at..colon].rsplit([' ', '{', ',', '"', '\'']).find(|word| !word.is_empty()).unwrap_or("");
        let value = colon + 2;
        if value >= end {
            break;
        }
        shown.push_str(&line[at..value]);
        at = value;
        let value_end = line[value..].find([',', '}']).map_or(line.len(), |length| value + length);
        if is_secret_key(key) && is_secret_value(line[value..value_end].trim()) {
            shown.push_str("<redacted>");
            at = value_end;
        }
    }
    shown.push_str(line.get(at..end).unwrap_or(""));
    conceal_password_in_uri(&shown)
}

/// Truth values and collections are shown.
fn is_secret_value(value: &str) -> bool {
    !value.is_empty()
        && !value.starts_with(['{', '[', '|', '>', '*', '&', '#'])
        && !["true", "false", "~", "null"].contains(&value)
}

/// Whether the value of a key, perhaps a misspelt one, is not for everybody's eyes.
pub(crate) fn is_secret_key(key: &str) -> bool {
    let key = key.to_ascii_lowercase();
    let names_a_place = ["_file", "_path", "_dir"].iter().any(|end| key.ends_with(end));
    !names_a_place
        && (["secr", "passw", "pasw", "encrypt", "private_key", "dsn"].iter().any(|part| key.contains(part))
            || key == "key")
}

/// `scheme://user:password@` → `scheme://user:<redacted>@`
pub(crate) fn conceal_password_in_uri(line: &str) -> String {
    let Some(scheme) = line.find("://") else { return line.to_owned() };
    let start = scheme + 3;
    let authority = line[start..].find(['/', ' ', '"', '\'']).map_or(line.len(), |end| start + end);
    let (Some(colon), Some(at)) = (line[start..authority].find(':'), line[start..authority].rfind('@'))
    else {
        return line.to_owned();
    };
    if colon >= at {
        return line.to_owned();
    }
    format!("{}<redacted>{}", &line[..start + colon + 1], &line[start + at..])
}

/// Far more than any configuration needs; bounds what a wrong path (a log, a disk image) costs.
const LARGEST_FILE: u64 = 1 << 20;

#[cfg(test)]
mod tests;
