//! Walking a tree of [`Node`]s section by section, collecting every fault on the way.
//!
//! A reader of a section takes the keys it knows; what is left over is an unknown key, and the keys it asked for are what the nearest
//! name is chosen from. So the list of known keys cannot differ from the keys that are read. No reader stops at the first fault:
//! each returns `None` for what it could not make, and goes on with the rest.

mod json;
mod section;

use std::cell::RefCell;
use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::{Duration, SystemTime};

use crate::ByteSize;
use crate::report::{Diagnostic, Related, Report, Severity};
use crate::source::{Fault, Node, Sources, Span, Value, is_secret_key};
use crate::value::{parse_duration, parse_size};

pub(crate) use section::{Section, nearest, one_of, quoted};

/// Where findings are collected.
#[derive(Debug)]
pub(crate) struct Context {
    /// The files.
    pub(crate) sources: Sources,
    /// The time by which certificates are judged.
    pub(crate) now: SystemTime,
    /// Where a Synapse that is installed on this machine keeps its configuration.
    pub(crate) synapse_files: Vec<PathBuf>,
    findings: RefCell<Vec<(Option<Span>, Diagnostic)>>,
    /// Key paths that were asked for, indices left out: what has to be documented.
    #[cfg(test)]
    pub(crate) known: RefCell<std::collections::BTreeSet<String>>,
}

impl Context {
    /// Nothing found yet.
    pub(crate) fn new(sources: Sources, now: SystemTime, synapse_files: Vec<PathBuf>) -> Self {
        Self {
            sources,
            now,
            synapse_files,
            findings: RefCell::default(),
            #[cfg(test)]
            known: RefCell::default(),
        }
    }

    /// Adds a finding; one that is there already is not repeated (two keys may share a node by an alias).
    pub(crate) fn find(
        &self,
        severity: Severity,
        span: Option<Span>,
        path: &str,
        message: String,
        related: &[(Span, String)],
    ) {
        let place = |span: Span| (self.sources.path(span.file).to_owned(), span.line, span.column);
        // A span without width means the file as a whole.
        let (source_line, mark) = match span.filter(|span| span.width > 0) {
            Some(span) => {
                let (line, mark) = self.sources.line(span);
                (Some(line), mark)
            }
            None => (None, 0..0),
        };
        let relate = |(span, message): &(Span, String)| {
            let (source_line, mark) = self.sources.line(*span);
            Related { place: place(*span), message: message.clone(), source_line, mark }
        };
        let related = related.iter().map(relate).collect();
        let key_path = path.to_owned();
        let finding =
            Diagnostic { severity, place: span.map(place), key_path, message, source_line, mark, related };
        let mut findings = self.findings.borrow_mut();
        if findings.len() < MOST_FINDINGS && !findings.iter().any(|(_, known)| *known == finding) {
            findings.push((span, finding));
        }
    }

    /// Adds a fault of YAML itself.
    pub(crate) fn fault(&self, path: &Path, fault: Fault) {
        match fault.span {
            Some(_) => {
                let related: Vec<_> = fault.related.into_iter().collect();
                self.find(Severity::Error, fault.span, "", fault.message, &related);
            }
            None => {
                self.find(Severity::Error, None, "", format!("{}: {}", path.display(), fault.message), &[])
            }
        }
    }

    /// The findings so far, in the order of files and lines.
    pub(crate) fn report(&self) -> Report {
        let mut findings = self.findings.borrow().clone();
        findings.sort_by_key(|(span, _)| *span);
        Report { diagnostics: findings.into_iter().map(|(_, finding)| finding).collect() }
    }
}

/// A value with its key path.
#[derive(Debug, Clone)]
pub(crate) struct Item<'a> {
    /// Where findings go.
    pub(crate) context: &'a Context,
    node: &'a Node,
    /// `edge.sites[0].hosts`
    pub(crate) path: String,
    key: Option<Span>,
}

impl<'a> Item<'a> {
    /// The whole document.
    pub(crate) fn root(context: &'a Context, node: &'a Node) -> Self {
        Self { context, node, path: String::new(), key: None }
    }

    /// Where findings about the value point: a short value itself, else its key.
    pub(crate) fn span(&self) -> Span {
        match (&self.node.value, self.key) {
            (Value::Scalar { .. }, _) | (_, None) => self.node.span,
            (_, Some(key)) => key,
        }
    }

    /// Where its key stands; for an item of a list, where it begins.
    pub(crate) fn key_span(&self) -> Span {
        self.key.unwrap_or(self.node.span)
    }

    /// Reports an error here.
    pub(crate) fn error(&self, message: impl Into<String>) {
        self.context.find(Severity::Error, Some(self.span()), &self.path, message.into(), &[]);
    }

    /// Reports an error here that another place belongs to.
    pub(crate) fn error_with(&self, message: impl Into<String>, related: Span, note: impl Into<String>) {
        self.context.find(
            Severity::Error,
            Some(self.span()),
            &self.path,
            message.into(),
            &[(related, note.into())],
        );
    }

    /// Reports a warning here.
    pub(crate) fn warn(&self, message: impl Into<String>) {
        self.context.find(Severity::Warning, Some(self.span()), &self.path, message.into(), &[]);
    }

    /// Its keys.
    pub(crate) fn section(&self) -> Option<Section<'a>> {
        match &self.node.value {
            Value::Map(entries) => Some(Section::new(self.clone(), entries)),
            Value::Null => Some(Section::new(self.clone(), &[])),
            Value::Scalar { .. } | Value::List(_) => self.wrong("keys with values"),
        }
    }

    /// Its items. A single value is not taken for a list of one.
    pub(crate) fn list(&self) -> Option<Vec<Item<'a>>> {
        match &self.node.value {
            Value::List(nodes) => Some(
                nodes
                    .iter()
                    .enumerate()
                    .map(|(index, node)| Item {
                        context: self.context,
                        node,
                        path: format!("{}[{index}]", self.path),
                        key: None,
                    })
                    .collect(),
            ),
            Value::Null | Value::Scalar { .. } | Value::Map(_) => self.wrong("a list"),
        }
    }

    /// A list that may not be empty.
    pub(crate) fn filled_list(&self) -> Option<Vec<Item<'a>>> {
        let items = self.list()?;
        if items.is_empty() {
            self.error("needs at least one entry");
            return None;
        }
        Some(items)
    }

    /// Text.
    pub(crate) fn text(&self) -> Option<&'a str> {
        match &self.node.value {
            Value::Scalar { text, .. } => Some(text),
            Value::Null | Value::List(_) | Value::Map(_) => self.wrong("text"),
        }
    }

    /// Text that is not empty.
    pub(crate) fn filled_text(&self) -> Option<&'a str> {
        let text = self.text()?;
        if text.is_empty() {
            self.error("is empty");
            return None;
        }
        Some(text)
    }

    /// `true` or `false`.
    pub(crate) fn truth(&self) -> Option<bool> {
        match self.as_truth() {
            Some(truth) => Some(truth),
            None => self.wrong("true or false"),
        }
    }

    /// `true` or `false`, if it is one of them.
    pub(crate) fn as_truth(&self) -> Option<bool> {
        match &self.node.value {
            Value::Scalar { text, plain: true } => match text.as_str() {
                "true" | "True" | "TRUE" => Some(true),
                "false" | "False" | "FALSE" => Some(false),
                _ => None,
            },
            Value::Null | Value::Scalar { .. } | Value::List(_) | Value::Map(_) => None,
        }
    }

    /// The text of a single value, if it is one.
    pub(crate) fn as_text(&self) -> Option<&'a str> {
        match &self.node.value {
            Value::Scalar { text, .. } => Some(text),
            Value::Null | Value::List(_) | Value::Map(_) => None,
        }
    }

    /// Whether it has keys.
    pub(crate) fn is_section(&self) -> bool {
        matches!(self.node.value, Value::Map(_))
    }

    /// Whether nothing is given: `null`, `~` or no text at all.
    pub(crate) fn is_empty(&self) -> bool {
        matches!(self.node.value, Value::Null)
    }

    /// A whole number within bounds.
    pub(crate) fn whole<T>(&self, least: T, most: T) -> Option<T>
    where
        T: FromStr + PartialOrd + Display + Copy,
    {
        let wanted = format!("a whole number from {least} to {most}");
        let Some(text) = self.as_text() else { return self.wrong(&wanted) };
        match text.parse::<T>() {
            Ok(number) if number >= least && number <= most => Some(number),
            Ok(_) | Err(_) => self.wrong(&wanted),
        }
    }

    /// A number that is not negative.
    pub(crate) fn number(&self) -> Option<f64> {
        let number =
            self.as_text().and_then(|text| text.parse::<f64>().ok()).filter(|n| n.is_finite() && *n >= 0.0);
        number.or_else(|| self.wrong("a number that is not negative"))
    }

    /// Text given to a parser that explains itself.
    pub(crate) fn parse<T>(&self, parser: impl FnOnce(&str) -> Result<T, String>) -> Option<T> {
        match parser(self.text()?) {
            Ok(value) => Some(value),
            Err(message) => {
                self.error(message);
                None
            }
        }
    }

    /// Each item of a list given to a parser; `None` when one of them was wrong.
    pub(crate) fn parse_each<T>(&self, parser: impl Fn(&str) -> Result<T, String>) -> Option<Vec<T>> {
        let parsed: Vec<Option<T>> = self.list()?.iter().map(|item| item.parse(&parser)).collect();
        parsed.into_iter().collect()
    }

    /// A size such as `50M`.
    pub(crate) fn size(&self) -> Option<ByteSize> {
        self.parse(parse_size)
    }

    /// A duration such as `30s`, longer than nothing.
    pub(crate) fn duration(&self) -> Option<Duration> {
        let duration = self.parse(parse_duration)?;
        if duration.is_zero() {
            self.error("has to be longer than zero");
            return None;
        }
        Some(duration)
    }

    /// A duration, or seconds as a plain number as MAS writes them.
    pub(crate) fn seconds(&self) -> Option<Duration> {
        match self.as_text().map(str::parse::<u32>) {
            Some(Ok(seconds)) if seconds > 0 => Some(Duration::from_secs(seconds.into())),
            _ => self.duration(),
        }
    }

    /// A path; a relative one begins at the folder of the file it is written in.
    pub(crate) fn file_path(&self) -> Option<PathBuf> {
        let text = self.filled_text()?;
        Some(self.beside(Path::new(text)))
    }

    /// The path seen from the folder of the file this is written in.
    pub(crate) fn beside(&self, path: &Path) -> PathBuf {
        let folder = self.context.sources.path(self.node.span.file).parent().unwrap_or(Path::new(""));
        folder.join(path)
    }

    /// One of a few words.
    pub(crate) fn choice<T: Copy>(&self, choices: &[(&str, T)]) -> Option<T> {
        let names = choices.iter().map(|(name, _)| *name);
        let Some(text) = self.as_text() else { return self.wrong(&one_of(names)) };
        match choices.iter().find(|(name, _)| *name == text) {
            Some((_, value)) => Some(*value),
            None => {
                let hint = match nearest(text, names.clone()) {
                    Some(name) if choices.len() > 3 => format!("did you mean \"{name}\"?"),
                    Some(_) | None => format!("write {}", one_of(names)),
                };
                self.error(format!("`{text}` means nothing here, {hint}"));
                None
            }
        }
    }

    /// Reports what was expected and what is there.
    pub(crate) fn wrong<T>(&self, expected: &str) -> Option<T> {
        let key = self.path.rsplit('.').next().unwrap_or("");
        let found = match &self.node.value {
            Value::Scalar { .. } if is_secret_key(key) => "this is something else".to_owned(),
            Value::Null => "nothing is given".to_owned(),
            Value::Scalar { text, .. } if text.chars().count() > 40 => "this is a longer text".to_owned(),
            Value::Scalar { text, .. } => format!("`{}` is not", text.escape_debug()),
            Value::List(_) => "this is a list".to_owned(),
            Value::Map(_) => "this has keys of its own".to_owned(),
        };
        self.error(format!("expected {expected}, {found}"));
        None
    }
}

/// A file that is wrong from top to bottom is told so in a few screens.
const MOST_FINDINGS: usize = 200;
