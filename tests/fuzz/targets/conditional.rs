//! Preconditions and `If-Range`: never panics, and our own tag is found wherever it is listed.
#![no_main]

use std::time::{Duration, UNIX_EPOCH};

use http::header::{IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, IF_UNMODIFIED_SINCE};
use http::{HeaderMap, HeaderName, HeaderValue};
use libfuzzer_sys::fuzz_target;

#[path = "../../../proxy/src/files/conditional.rs"]
mod conditional;

use conditional::{Precondition, Validators, evaluate, range_applies};

// The first byte of a line chooses the field, the rest is its value.
fuzz_target!(|bytes: &[u8]| {
    let validators =
        Validators { etag: "\"a\"", last_modified: Some(UNIX_EPOCH + Duration::from_secs(784_111_777)) };
    let mut headers = HeaderMap::new();
    for line in bytes.split(|byte| *byte == b'\n') {
        let [first, value @ ..] = line else { continue };
        let Ok(value) = HeaderValue::from_bytes(value) else { continue };
        headers.append(field(*first), value);
    }
    let outcome = evaluate(&headers, validators);
    let unconditional = !headers.keys().any(|name| *name != IF_RANGE);
    assert!(!unconditional || outcome == Precondition::Proceed);
    assert!(headers.contains_key(IF_RANGE) || range_applies(&headers, validators));
    // What the client sent before cannot hide a line that names our tag.
    headers.append(IF_NONE_MATCH, HeaderValue::from_static("\"b\", \"a\""));
    headers.remove(IF_MATCH);
    headers.remove(IF_UNMODIFIED_SINCE);
    assert_eq!(evaluate(&headers, validators), Precondition::NotModified);
});

fn field(byte: u8) -> HeaderName {
    match byte % 5 {
        0 => IF_MATCH,
        1 => IF_NONE_MATCH,
        2 => IF_MODIFIED_SINCE,
        3 => IF_UNMODIFIED_SINCE,
        _ => IF_RANGE,
    }
}
