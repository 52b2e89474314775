//! What differs between two configurations, as a person would say it: by key path, with old and new value where they are short. It
//! compares what is printed, so a secret that has changed is not seen, nor shown.

use std::fmt;

use serde_yaml::{Mapping, Value};

/// One key that differs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// `edge.timeouts.idle`, or `edge.sites[matrix.example.com]`.
    pub key: String,
    /// How.
    pub kind: Kind,
}

/// How something differs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// Not there before.
    Added,
    /// Not there any more.
    Removed,
    /// Another value.
    Changed {
        /// Before.
        from: String,
        /// After.
        to: String,
    },
    /// Other parts.
    ChangedWithin,
}

impl fmt::Display for Difference {
    /// `edge.timeouts.idle: 75s → 1m`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            Kind::Added => write!(f, "{}: added", self.key),
            Kind::Removed => write!(f, "{}: removed", self.key),
            Kind::Changed { from, to } => write!(f, "{}: {from} → {to}", self.key),
            Kind::ChangedWithin => write!(f, "{}: changed", self.key),
        }
    }
}

/// Compares two configurations as [`Loaded::effective`](crate::Loaded::effective) has them, in the order of the old one; what is new
/// comes last. At most some hundred: whoever changes more knows it. Text that is no YAML is an empty configuration.
pub fn differences(old: &str, new: &str) -> Vec<Difference> {
    let parse = |text: &str| serde_yaml::from_str(text).unwrap_or(Value::Null);
    let mut all = Vec::new();
    compare("", &parse(old), &parse(new), &mut all);
    all.truncate(MOST);
    all
}

fn compare(key: &str, old: &Value, new: &Value, all: &mut Vec<Difference>) {
    if old == new {
        return;
    }
    let before = all.len();
    let mut add = |key: String, kind| all.push(Difference { key, kind });
    match (old, new) {
        (Value::Mapping(old), Value::Mapping(new)) => {
            for (name, value) in old {
                let key = below(key, &shown(name));
                match new.get(name) {
                    Some(new) => compare(&key, value, new, all),
                    None => all.push(Difference { key, kind: Kind::Removed }),
                }
            }
            for name in new.keys().filter(|name| !old.contains_key(*name)) {
                all.push(Difference { key: below(key, &shown(name)), kind: Kind::Added });
            }
        }
        (Value::Sequence(old), Value::Sequence(new)) => match (named(old), named(new)) {
            (Some(old), Some(new)) => {
                for (name, value) in &old {
                    let key = format!("{key}[{name}]");
                    match new.iter().find(|(other, _)| other == name) {
                        Some((_, new)) if value == new => {}
                        Some(_) => add(key, Kind::ChangedWithin),
                        None => add(key, Kind::Removed),
                    }
                }
                let is_new = |name: &String| !old.iter().any(|(other, _)| other == name);
                for (name, _) in new.iter().filter(|(name, _)| is_new(name)) {
                    add(format!("{key}[{name}]"), Kind::Added);
                }
                // The same ones in another order, which may decide.
                if all.len() == before {
                    all.push(Difference { key: key.to_owned(), kind: Kind::ChangedWithin });
                }
            }
            _ => add(key.to_owned(), Kind::ChangedWithin),
        },
        (Value::Mapping(_) | Value::Sequence(_), _) | (_, Value::Mapping(_) | Value::Sequence(_)) => {
            add(key.to_owned(), Kind::ChangedWithin);
        }
        _ => add(key.to_owned(), Kind::Changed { from: shown(old), to: shown(new) }),
    }
}

/// The entries of a list by what a person calls them, if each has a name of its own.
fn named(list: &[Value]) -> Option<Vec<(String, &Mapping)>> {
    let mut all: Vec<(String, &Mapping)> = Vec::new();
    for entry in list {
        let entry = entry.as_mapping()?;
        let name = shown(entry.get("name").or_else(|| entry.get("hosts"))?);
        if all.iter().any(|(other, _)| *other == name) {
            return None;
        }
        all.push((name, entry));
    }
    Some(all)
}

fn below(key: &str, name: &str) -> String {
    if key.is_empty() { name.to_owned() } else { format!("{key}.{name}") }
}

fn shown(value: &Value) -> String {
    match value {
        Value::Null => "nothing".to_owned(),
        Value::Bool(truth) => truth.to_string(),
        Value::Number(number) => number.to_string(),
        Value::String(text) => text.clone(),
        Value::Sequence(list) => list.iter().map(shown).collect::<Vec<_>>().join(" "),
        Value::Mapping(_) | Value::Tagged(_) => "…".to_owned(),
    }
}

const MOST: usize = 200;

#[cfg(test)]
mod tests {
    use super::*;

    fn check(old: &str, new: &str, expected: &[&str]) {
        let found: Vec<String> = differences(old, new).iter().map(ToString::to_string).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn values_are_told_by_their_key() {
        check("a: {b: 1, c: x}", "a: {b: 1, c: x}", &[]);
        check("a: {b: 1, c: x}", "a: {b: 2, d: y}", &["a.b: 1 → 2", "a.c: removed", "a.d: added"]);
        check("a: [1, 2]", "a: [2, 1]", &["a: changed"]);
        check("a: 1", "a: {b: 1}", &["a: changed"]);
        check("", "a: 1", &[": changed"]);
    }

    #[test]
    fn entries_are_told_by_their_name() {
        check(
            "sites: [{hosts: [a, b], x: 1}, {hosts: [c], x: 1}, {hosts: [d], x: 1}]",
            "sites: [{hosts: [c], x: 2}, {hosts: [e], x: 1}, {hosts: [a, b], x: 1}]",
            &["sites[c]: changed", "sites[d]: removed", "sites[e]: added"],
        );
        check("l: [{name: a}, {name: b}]", "l: [{name: b}, {name: a}]", &["l: changed"]);
        check("l: [{name: a, x: 1}, {name: a}]", "l: [{name: a, x: 2}, {name: a}]", &["l: changed"]);
    }

    #[test]
    fn the_effective_configuration_is_compared_and_secrets_are_not() {
        let loaded = |name: &str| crate::load(&[std::path::Path::new(name).to_owned()]).unwrap().effective;
        let example = loaded("example.yaml");
        assert_eq!(differences(&example, &example), []);
        let other = example.replace("max_target_length: 16k", "max_target_length: 8k");
        check(&example, &other, &["edge.limits.max_target_length: 16k → 8k"]);
    }
}
