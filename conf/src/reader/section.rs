//! The keys of one mapping, and the words for what is wrong with them.

use super::Item;
use crate::report::Severity;
use crate::source::{Entry, Value};

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
    /// Nothing taken yet.
    pub(super) fn new(item: Item<'a>, entries: &'a [Entry]) -> Self {
        Self { item, entries, known: Vec::new(), without_effect: Vec::new() }
    }

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

    /// A key of something that is not configured here: an error that says where it is.
    pub(crate) fn elsewhere(&mut self, key: &'static str, message: &str) {
        self.without_effect.push(key);
        if let Some(entry) = self.entries.iter().find(|entry| entry.key == key) {
            self.at_key(&self.entry(entry), Severity::Error, message.to_owned());
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

    /// Lets keys that nobody took be: they are somebody else's.
    pub(crate) fn finish_open(self) {
        #[cfg(test)]
        self.remember();
    }

    /// Notes which keys were asked for, for the tests of what is documented.
    #[cfg(test)]
    fn remember(&self) {
        for key in &self.known {
            let steps = self.path_of(key);
            let steps: Vec<&str> =
                steps.split('.').map(|step| step.split('[').next().unwrap_or("")).collect();
            self.item.context.known.borrow_mut().insert(steps.join("."));
        }
    }

    /// Reports every key that nobody took.
    pub(crate) fn finish(self) {
        #[cfg(test)]
        self.remember();
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
