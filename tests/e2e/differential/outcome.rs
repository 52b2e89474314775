//! What became of a case, in a few words that can be compared; and what must not have become of it.

use super::exchange::Seen;
use super::message::Meaning;
use super::recorder::{CUT_OFF, Received};

/// Fields of the hop, or made by a proxy: no part of what a client says.
const OF_THE_PROXY: &[&str] = &[
    "host",
    "connection",
    "content-length",
    "transfer-encoding",
    "forwarded",
    "x-forwarded-for",
    "x-forwarded-proto",
    "x-forwarded-host",
];

/// In words: a status, `closed`, `forwarded` with what was changed, or `two requests`.
pub(crate) fn words(seen: &Seen, meaning: &Meaning) -> String {
    let status = seen.statuses.first().copied();
    let flaws = seen.requests.iter().filter_map(|request| request.fault.as_ref());
    if let Some(flaw) = flaws.clone().find(|flaw| flaw.what != CUT_OFF) {
        return format!("forwarded, malformed: {}", flaw.what);
    }
    // What is cut off, the upstream throws away: as if it had not come.
    let complete: Vec<&Received> = seen.requests.iter().filter(|request| request.is_complete).collect();
    if complete.iter().any(|request| request.target.starts_with(b"/smuggled/")) && complete.len() > 1 {
        return "two requests".to_owned();
    }
    if complete.len() > meaning.most {
        return "too many requests".to_owned();
    }
    let Some(first) = complete.first() else {
        let otherwise = if seen.nonsense { "no HTTP" } else { "closed" };
        return status.map_or_else(|| otherwise.to_owned(), |status| status.to_string());
    };
    let mut words = "forwarded".to_owned();
    for change in changes(first, meaning) {
        words.push_str(&change);
    }
    if complete.len() < meaning.most {
        words.push_str(", not all");
    }
    // Of a client that says nothing more some proxies think that it has left, if they notice in time.
    if status != Some(200) && !(status.is_none() && meaning.is_half_closed) {
        words.push_str(
            &status.map_or_else(|| ", not answered".to_owned(), |status| format!(", answered {status}")),
        );
    }
    words
}

fn changes(received: &Received, meaning: &Meaning) -> Vec<String> {
    let mut changes = Vec::new();
    if received.is_http_1_0 {
        changes.push(", as HTTP/1.0".to_owned());
    }
    if received.method != meaning.method {
        changes.push(format!(", method {}", received.method));
    }
    if received.target != meaning.target {
        changes.push(", other target".to_owned());
    }
    if received.values("host") != [meaning.host.as_bytes()] {
        changes.push(", other Host".to_owned());
    }
    let mut names: Vec<&String> = meaning.fields.iter().map(|(name, _)| name).collect();
    names.sort_unstable();
    names.dedup();
    let meant = |name: &str| -> Vec<&[u8]> {
        meaning.fields.iter().filter(|(key, _)| key == name).map(|(_, value)| &value[..]).collect()
    };
    let (mut missing, mut different) = (Vec::new(), Vec::new());
    for name in &names {
        let received = received.values(name);
        if received.is_empty() {
            missing.push(name.as_str());
        } else if received != meant(name) {
            different.push(name.as_str());
        }
    }
    let mut added: Vec<&str> = received.fields.iter().map(|(name, _)| name.as_str()).collect();
    added.retain(|name| !OF_THE_PROXY.contains(name) && !names.iter().any(|known| known == name));
    added.sort_unstable();
    added.dedup();
    for (what, list) in [("without", missing), ("with other", different), ("with", added)] {
        match list[..] {
            [] => {}
            [_, _, _, _, ..] => changes.push(format!(", {what} {} fields", list.len())),
            _ => changes.push(format!(", {what} {}", list.join(" and "))),
        }
    }
    if received.body != meaning.body {
        let what = if received.body.is_empty() { "without body" } else { "other body" };
        changes.push(format!(", {what}"));
    }
    changes
}

/// What must never come of a case that goes through us, however odd it is.
pub(crate) fn violations(seen: &Seen, meaning: &Meaning) -> Vec<String> {
    let mut violations = seen.mixed_up.clone();
    let complete = seen.requests.iter().filter(|request| request.is_complete).count();
    if complete > meaning.most {
        violations.push(format!("{complete} upstream requests came of {}", meaning.most));
    }
    for request in &seen.requests {
        if let Some(flaw) = request.fault.as_ref().filter(|flaw| flaw.what != CUT_OFF) {
            violations.push(format!("malformed: {} {}", flaw.what, flaw.detail));
        }
        if request.is_http_1_0 {
            violations.push("forwarded as HTTP/1.0".to_owned());
        }
        if request.target.starts_with(b"/smuggled/") {
            violations.push("the inner request reached the upstream".to_owned());
        }
    }
    if seen.nonsense {
        violations.push("the answer is no HTTP".to_owned());
    }
    violations
}
