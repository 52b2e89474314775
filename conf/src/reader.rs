//! Walking a tree of [`Node`]s section by section, collecting every fault on the way.
//!
//! A reader of a section takes the keys it knows; what is left over is an unknown key, and the keys it asked for are what the nearest
//! name is chosen from. So the list of known keys cannot differ from the keys that are read. No reader stops at the first fault:
//! each returns `None` for what it could not make, and goes on with the rest.

use std::cell::RefCell;
use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::{Duration, SystemTime};

use crate::ByteSize;
use crate::report::{Diagnostic, Related, Report, Severity};
use crate::source::{Entry, Fault, Node, Sources, Span, Value};
use crate::value::{parse_duration, parse_size};

/// Where findings are collected.
#[derive(Debug)]
pub(crate) struct Context {
    /// The files.
    pub(crate) sources: Sources,
    /// The time by which certificates are judged.
    pub(crate) now: SystemTime,
    findings: RefCell<Vec<(Option<Span>, Diagnostic)>>,
    /// Key paths that were asked for, indices left out: what has to be documented.
    #[cfg(test)]
    pub(crate) known: RefCell<std::collections::BTreeSet<String>>,
}

impl Context {
    /// Nothing found yet.
    pub(crate) fn new(sources: Sources, now: SystemTime) -> Self {
        Self {
            sources,
            now,
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
            Value::Map(entries) => {
                Some(Section { item: self.clone(), entries, known: Vec::new(), without_effect: Vec::new() })
            }
            Value::Null => Some(Section {
                item: self.clone(),
                entries: &[],
                known: Vec::new(),
                without_effect: Vec::new(),
            }),
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
        let found = match &self.node.value {
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

/// The keys of one mapping, taken one by one.
#[derive(Debug)]
pub(crate) struct Section<'a> {
    /// The mapping itself.
    pub(crate) item: Item<'a>,
    entries: &'a [Entry],
    known: Vec<&'static str>,
    /// Keys that are recognised without effect: of features to come, or MAS's.
    without_effect: Vec<&'static str>,
}

impl<'a> Section<'a> {
    /// The value of a key; an empty value counts as not given.
    pub(crate) fn take(&mut self, key: &'static str) -> Option<Item<'a>> {
        self.take_even_empty(key).filter(|item| !matches!(item.node.value, Value::Null))
    }

    /// The value of a key, also when it is empty.
    pub(crate) fn take_even_empty(&mut self, key: &'static str) -> Option<Item<'a>> {
        if !self.known.contains(&key) {
            self.known.push(key);
        }
        self.entries.iter().find(|entry| entry.key == key).map(|entry| self.entry(entry))
    }

    /// The value of a key that has to be there.
    pub(crate) fn require(&mut self, key: &'static str, hint: &str) -> Option<Item<'a>> {
        let item = self.take(key);
        if item.is_none() {
            self.missing(key, hint);
        }
        item
    }

    /// Reports a key that is not there.
    pub(crate) fn missing(&self, key: &str, hint: &str) {
        let path = self.path_of(key);
        self.item.context.find(
            Severity::Error,
            Some(self.item.span()),
            &path,
            format!("is missing, {hint}"),
            &[],
        );
    }

    /// Keys of features that come later: an error if one is given, since ignoring it would betray whoever wrote it.
    pub(crate) fn later(&mut self, keys: &[(&'static str, &str)]) {
        for (key, what) in keys {
            self.without_effect.push(key);
            if let Some(entry) = self.entries.iter().find(|entry| entry.key == *key) {
                let message = format!("{what} not supported yet by this version, remove the key");
                self.at_key(&self.entry(entry), Severity::Error, message);
            }
        }
    }

    /// Keys of MAS that mean nothing to us (yet): a warning for each.
    pub(crate) fn unused(&mut self, keys: &[&'static str]) {
        for key in keys {
            self.without_effect.push(key);
            let given = |entry: &&Entry| entry.key == *key && !matches!(entry.node.value, Value::Null);
            if let Some(entry) = self.entries.iter().find(given) {
                let message = "is not used yet by this version".to_owned();
                self.at_key(&self.entry(entry), Severity::Warning, message);
            }
        }
    }

    /// Reports at the key of an item of this section.
    pub(crate) fn at_key(&self, item: &Item<'_>, severity: Severity, message: String) {
        item.context.find(severity, Some(item.key_span()), &item.path, message, &[]);
    }

    /// Whether one of these keys is probably meant by a key that is not among them.
    pub(crate) fn misspells(&self, keys: &[&'static str]) -> bool {
        let near =
            |entry: &Entry| nearest(&entry.key, keys.iter().copied()).is_some_and(|key| key != entry.key);
        self.entries.iter().any(near)
    }

    /// Every key with its value, for mappings whose keys are names.
    pub(crate) fn entries(&self) -> impl Iterator<Item = (&'a str, Item<'a>)> + use<'a, '_> {
        self.entries.iter().map(|entry| (entry.key.as_str(), self.entry(entry)))
    }

    /// Reports every key that nobody took.
    pub(crate) fn finish(self) {
        #[cfg(test)]
        for key in &self.known {
            let steps = self.path_of(key);
            let steps: Vec<&str> =
                steps.split('.').map(|step| step.split('[').next().unwrap_or("")).collect();
            self.item.context.known.borrow_mut().insert(steps.join("."));
        }
        let foreign = |entry: &&Entry| {
            let key = entry.key.as_str();
            !self.known.contains(&key) && !self.without_effect.contains(&key)
        };
        for entry in self.entries.iter().filter(foreign) {
            let hint = match nearest(&entry.key, self.known.iter().chain(&self.without_effect).copied()) {
                Some(name) => format!("did you mean \"{name}\"?"),
                None => format!("known here: {}", quoted(self.known.iter().copied())),
            };
            let path = self.path_of(&entry.key);
            self.item.context.find(
                Severity::Error,
                Some(entry.span),
                &path,
                format!("unknown key, {hint}"),
                &[],
            );
        }
    }

    fn entry(&self, entry: &'a Entry) -> Item<'a> {
        Item {
            context: self.item.context,
            node: &entry.node,
            path: self.path_of(&entry.key),
            key: Some(entry.span),
        }
    }

    fn path_of(&self, key: &str) -> String {
        if self.item.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.item.path) }
    }
}

/// The name most like a misspelt one, if any is like it.
pub(crate) fn nearest<'n>(wrong: &str, names: impl Iterator<Item = &'n str>) -> Option<&'n str> {
    let like = |name: &str| strsim::jaro_winkler(wrong, name);
    let close = |name: &&str| {
        strsim::damerau_levenshtein(wrong, name) <= 1 + wrong.chars().count() / 4 || like(name) > 0.9
    };
    names.filter(close).max_by(|a, b| like(a).total_cmp(&like(b)))
}

/// `"a", "b", "c"`
pub(crate) fn quoted<'n>(names: impl Iterator<Item = &'n str>) -> String {
    names.map(|name| format!("\"{name}\"")).collect::<Vec<_>>().join(", ")
}

/// `"a", "b" or "c"`
pub(crate) fn one_of<'n>(names: impl Iterator<Item = &'n str>) -> String {
    let names: Vec<String> = names.map(|name| format!("\"{name}\"")).collect();
    match names.split_last() {
        Some((last, [])) => last.clone(),
        Some((last, rest)) => format!("{} or {last}", rest.join(", ")),
        None => String::new(),
    }
}

/// A file that is wrong from top to bottom is told so in a few screens.
const MOST_FINDINGS: usize = 200;
