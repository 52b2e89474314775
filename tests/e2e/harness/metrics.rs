//! What `/metrics` says, read strictly: whatever Prometheus would refuse, or its linter (`promtool check metrics`) would complain of,
//! is a panic.

use std::collections::{BTreeMap, BTreeSet};

use super::Client;

/// Numbers by name and labels.
#[derive(Debug)]
pub(crate) struct Metrics(BTreeMap<(String, BTreeMap<String, String>), f64>);

impl Metrics {
    /// Asks for them.
    pub(crate) fn of(mut client: Client) -> Self {
        let answer = client.get("localhost", "/metrics").expect(200);
        assert_eq!(answer.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
        Self::read(&answer.text())
    }

    /// Reads the text form, version 0.0.4.
    pub(crate) fn read(text: &str) -> Self {
        assert!(text.ends_with('\n'), "the last line has no end");
        let mut metrics = BTreeMap::new();
        let mut known = BTreeSet::new();
        let mut lines = text.lines().peekable();
        while let Some(line) = lines.next() {
            let help =
                line.strip_prefix("# HELP ").unwrap_or_else(|| panic!("no HELP where one begins: {line}"));
            let (name, help) = help.split_once(' ').unwrap();
            assert!(is_name(name) && !help.is_empty(), "{line}");
            assert!(known.insert(name.to_owned()), "{name} comes twice");
            let kind =
                lines.next().unwrap().strip_prefix(&format!("# TYPE {name} ")).expect("its TYPE follows");
            assert_eq!(kind == "counter", name.ends_with("_total"), "{name} is a {kind}");
            assert!(matches!(kind, "counter" | "gauge"), "{kind}");
            let mut samples = 0;
            while let Some(line) = lines.next_if(|line| !line.starts_with('#')) {
                let (labels, value) = sample(line, name);
                assert!(value >= 0.0 && value.is_finite(), "{line}");
                assert!(metrics.insert((name.to_owned(), labels), value).is_none(), "{line} comes twice");
                samples += 1;
            }
            assert!(samples > 0, "{name} has no sample");
        }
        Self(metrics)
    }

    /// The number with exactly these labels.
    #[track_caller]
    pub(crate) fn value(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let labels = labels.iter().map(|(label, value)| ((*label).to_owned(), (*value).to_owned())).collect();
        let key = (name.to_owned(), labels);
        *self.0.get(&key).unwrap_or_else(|| panic!("there is no {key:?} in {:#?}", self.names()))
    }

    /// Every name.
    pub(crate) fn names(&self) -> BTreeSet<&str> {
        self.0.keys().map(|(name, _)| name.as_str()).collect()
    }
}

fn sample(line: &str, name: &str) -> (BTreeMap<String, String>, f64) {
    let rest = line.strip_prefix(name).unwrap_or_else(|| panic!("{line} is not of {name}"));
    let mut labels = BTreeMap::new();
    let Some(mut rest) = rest.strip_prefix('{') else { return (labels, number(rest)) };
    loop {
        let (label, value) = rest.split_once("=\"").unwrap_or_else(|| panic!("{line}"));
        assert!(is_name(label) && !label.contains(':'), "{line}");
        let (value, after) = quoted(value);
        assert!(labels.insert(label.to_owned(), value).is_none(), "{line}");
        match after.strip_prefix(',') {
            Some(next) => rest = next,
            None => return (labels, number(after.strip_prefix('}').unwrap_or_else(|| panic!("{line}")))),
        }
    }
}

/// The text up to the closing quote, and what follows.
fn quoted(text: &str) -> (String, &str) {
    let (mut value, mut characters) = (String::new(), text.char_indices());
    loop {
        match characters.next().expect("a closing quote") {
            (end, '"') => return (value, &text[end + 1..]),
            (_, '\\') => match characters.next().expect("something escaped").1 {
                'n' => value.push('\n'),
                escaped @ ('\\' | '"') => value.push(escaped),
                other => panic!("\\{other} is no escape"),
            },
            (_, other) => value.push(other),
        }
    }
}

fn number(text: &str) -> f64 {
    text.strip_prefix(' ').and_then(|text| text.parse().ok()).unwrap_or_else(|| panic!("no number: {text:?}"))
}

fn is_name(text: &str) -> bool {
    let is_part = |character: char| character.is_ascii_alphanumeric() || "_:".contains(character);
    text.starts_with(|first: char| is_part(first) && !first.is_ascii_digit()) && text.chars().all(is_part)
}
