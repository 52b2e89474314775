//! Where the three differ, and why; the same as a document.

mod http1;
mod http2;

use std::collections::BTreeMap;

pub(crate) use http1::HTTP_1;
pub(crate) use http2::HTTP_2;

/// Mutations that the three treat differently, all in the same way.
#[derive(Debug)]
pub(crate) struct Difference {
    /// Names; `*` at the end stands for each of [`MODES`].
    pub(crate) mutations: &'static [&'static str],
    /// Ours, nginx's, HAProxy's; ` or ` between those that depend on what comes first.
    pub(crate) outcomes: [&'static str; 3],
    pub(crate) why: &'static str,
}

/// What a family of mutations is made in.
const MODES: &[&str] = &["alone", "CL.TE", "TE.CL", "short", "whole"];

/// What the three made of one case.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) mutations: Vec<String>,
    pub(crate) words: [String; 3],
    /// The request, to show it.
    pub(crate) sent: String,
}

impl Difference {
    fn is_about(&self, mutation: &str) -> bool {
        self.mutations.iter().any(|name| is_named(name, mutation))
    }

    fn shows_in(&self, words: &[String; 3]) -> bool {
        let mut both = self.outcomes.iter().zip(words);
        both.all(|(expected, words)| expected.split(" or ").any(|one| one == words))
    }
}

fn is_named(name: &str, mutation: &str) -> bool {
    let mode = name.strip_suffix('*').and_then(|family| mutation.strip_prefix(family));
    name == mutation || mode.is_some_and(|mode| MODES.contains(&mode))
}

impl Outcome {
    /// How many cases each of the three has forwarded.
    pub(crate) fn count_per_proxy(outcomes: &[Self]) -> [usize; 3] {
        [0, 1, 2]
            .map(|at| outcomes.iter().filter(|outcome| outcome.words[at].starts_with("forwarded")).count())
    }

    /// With two mutations it does not matter which of them a proxy refuses first.
    fn is_difference(&self) -> bool {
        let is_refusal =
            |words: &String| words.starts_with(|first: char| first.is_ascii_digit()) || words == "closed";
        let are_refusals = self.mutations.len() > 1 && self.words.iter().all(is_refusal);
        !are_refusals && self.words.iter().any(|words| *words != self.words[0])
    }
}

/// Differences that the table does not have. A case of two mutations may differ where one of them alone does.
pub(crate) fn unexplained(outcomes: &[Outcome], table: &[Difference]) -> BTreeMap<[String; 3], Vec<String>> {
    let mut unexplained: BTreeMap<[String; 3], Vec<String>> = BTreeMap::new();
    for outcome in outcomes.iter().filter(|outcome| outcome.is_difference()) {
        let is_explained = match &outcome.mutations[..] {
            [name] => table.iter().any(|row| row.is_about(name) && row.shows_in(&outcome.words)),
            names => names.iter().any(|name| table.iter().any(|row| row.is_about(name))),
        };
        let known = unexplained.entry(outcome.words.clone()).or_default();
        let names = outcome.mutations.join(" + ");
        if !is_explained && !known.iter().any(|shown| shown.starts_with(&names)) {
            known.push(format!("{names}\n        {}", outcome.sent));
        }
    }
    unexplained.retain(|_, names| !names.is_empty());
    unexplained
}

/// What the table says and no case shows, or not all of a family.
pub(crate) fn stale(outcomes: &[Outcome], table: &[Difference]) -> Vec<String> {
    let mut stale = Vec::new();
    for row in table {
        for name in row.mutations {
            let of_name =
                |outcome: &&Outcome| outcome.mutations.len() == 1 && is_named(name, &outcome.mutations[0]);
            let shows = |outcome: &Outcome| row.shows_in(&outcome.words);
            let mut cases = outcomes.iter().filter(of_name).peekable();
            if cases.peek().is_none() || !cases.all(shows) {
                stale.push(format!("{name}: {:?}", row.outcomes));
            }
        }
    }
    stale
}

/// The document.
pub(crate) fn render() -> String {
    let mut text = HEAD.to_owned();
    for (title, table) in [("HTTP/1.1", HTTP_1), ("HTTP/2", HTTP_2)] {
        text.push_str(&format!("\n## {title}\n\n| what is sent | Gatehouse | nginx | HAProxy | why |\n| --- | --- | --- | --- | --- |\n"));
        for row in table {
            let [ours, nginx, haproxy] = row.outcomes;
            let mutations = row.mutations.join("; ").replace('|', "\\|");
            text.push_str(&format!("| {mutations} | {ours} | {nginx} | {haproxy} | {} |\n", row.why));
        }
    }
    text
}

const HEAD: &str = "# Where nginx, HAProxy and Gatehouse differ

Made from `tests/e2e/differential/table.rs` by `UPDATE=1 cargo e2e differential`; the test fails when a difference is missing here, or
one that is here does not show. nginx 1.22 and HAProxy 2.6, as Debian 12 has them, with upstream connections that are kept; the exact
bytes of each request stand under its name in `tests/e2e/differential/mutation.rs` and beside it.

A number is the status of an answer that the upstream was not asked for; *closed* is none, or a stream that was reset. *Forwarded* is
as it was meant; *other body* is another one than the length says, *without body* none; *malformed* is what a strict reader behind the
proxy refuses. *Two requests*: the upstream got the request that was hidden in a body. That never happens through Gatehouse, nor
anything malformed, with these requests or with two mutations in one.
";
