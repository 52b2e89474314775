//! Reading of header fields: those of a fixed answer, and those that every answer of a route has.

use http::{HeaderMap, HeaderName, HeaderValue};

use super::Action;
use crate::reader::Item;

/// Fields of one answer.
pub(super) fn read_headers(item: &Item<'_>) -> Option<HeaderMap> {
    let mut headers = HeaderMap::new();
    let mut complete = true;
    for (name, item) in item.section()?.entries() {
        match read_field(name, &item) {
            Some((name, value)) => {
                headers.append(name, value);
            }
            None => complete = false,
        }
    }
    complete.then_some(headers)
}

/// `headers` of a route: fields of every answer that it gives itself.
pub(super) fn of_route(item: &Item<'_>, action: Option<&Action>) -> Option<HeaderMap> {
    if matches!(action, Some(Action::Upstream(_))) {
        item.error("changing the headers of an upstream's answers is not supported yet by this version");
        return None;
    }
    let mut headers = HeaderMap::new();
    let mut complete = true;
    for (name, item) in item.section()?.entries() {
        let Some((name, value)) = read_field(name, &item) else {
            complete = false;
            continue;
        };
        if OF_ONE_ANSWER.contains(&name.as_str()) {
            item.error("says something about one answer, so it cannot be the same for all of a route");
            complete = false;
        } else if headers.contains_key(&name) {
            item.error(format!("`{name}` is given twice"));
            complete = false;
        } else {
            headers.insert(name, value);
        }
    }
    complete.then_some(headers)
}

fn read_field(name: &str, item: &Item<'_>) -> Option<(HeaderName, HeaderValue)> {
    let field = HeaderName::from_bytes(name.as_bytes());
    let value = item.text().and_then(|text| {
        let value = HeaderValue::from_str(text).ok();
        if value.is_none() {
            item.error("a header value has no control characters");
        }
        value
    });
    match field {
        Ok(field) if OWN_HEADERS.contains(&field.as_str()) => {
            item.error("this header is made by the edge itself, leave it out");
            None
        }
        Ok(field) => Some((field, value?)),
        Err(_) => {
            item.error(format!("`{name}` is not the name of a header"));
            None
        }
    }
}

/// Framing and identity of an answer are ours.
const OWN_HEADERS: [&str; 5] = ["content-length", "transfer-encoding", "connection", "date", "keep-alive"];

/// What differs between a file, a redirect and an error of the same route.
const OF_ONE_ANSWER: [&str; 9] = [
    "accept-ranges",
    "allow",
    "content-encoding",
    "content-range",
    "content-type",
    "etag",
    "last-modified",
    "location",
    "vary",
];
