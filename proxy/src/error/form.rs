//! The form of an answer that says what went wrong: Matrix's JSON with CORS where Matrix clients ask, a small page elsewhere,
//! and 204 for a preflight. Pure; what is said is decided by the caller.
//!
//! A browser asks with `OPTIONS` before it sends a request to another origin, and shows its script nothing but "CORS error" unless
//! that preflight gets a status from 200 to 299 (fetch standard, "CORS-preflight fetch"). So a preflight is answered as if all
//! were well, and the request behind it gets the error, in words that the script can read.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::time::Duration;

use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER,
};
use http::{HeaderMap, HeaderValue, Method, StatusCode};

use crate::path;

/// What is to be said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Told<'a> {
    /// Status of the answer, but for a preflight.
    pub(crate) status: StatusCode,
    /// Title of a page; `None`: the status.
    pub(crate) title: Option<&'static str>,
    /// One sentence for people, without final stop.
    pub(crate) text: Cow<'a, str>,
    /// When to ask again.
    pub(crate) retry_after: Option<Duration>,
    /// Whether a preflight is told too, instead of the request that it announces.
    pub(crate) is_for_preflights: bool,
}

/// Who is told: the request, as far as it decides the form.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asked<'a> {
    pub(crate) method: &'a Method,
    /// The request target as received.
    pub(crate) target: &'a [u8],
}

/// An answer of our own: headers without framing, and the body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FaultAnswer {
    /// Status.
    pub(crate) status: StatusCode,
    /// All but `Content-Length`.
    pub(crate) headers: HeaderMap,
    /// JSON, HTML, or nothing.
    pub(crate) body: String,
}

/// The answer that tells it.
pub(crate) fn form(told: &Told<'_>, asked: Asked<'_>) -> FaultAnswer {
    let mut headers = HeaderMap::with_capacity(8);
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    let is_matrix = speaks_matrix(asked.target);
    if is_matrix {
        allow_every_origin(&mut headers);
    }
    if is_matrix && *asked.method == Method::OPTIONS && !told.is_for_preflights {
        headers.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static(PREFLIGHT_SECS));
        return FaultAnswer { status: StatusCode::NO_CONTENT, headers, body: String::new() };
    }
    if let Some(after) = told.retry_after {
        headers.insert(RETRY_AFTER, HeaderValue::from(seconds(after)));
    }
    let body = if is_matrix {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        json(told)
    } else {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
        page(told)
    };
    FaultAnswer { status: told.status, headers, body }
}

/// Client-server API, "Web Browser Clients"; `Date` as Synapse allows it too. `Retry-After` is not readable by scripts unless it
/// is exposed.
fn allow_every_origin(headers: &mut HeaderMap) {
    headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    headers.insert(
        ACCESS_CONTROL_ALLOW_METHODS,
        HeaderValue::from_static("GET, HEAD, POST, PUT, DELETE, OPTIONS"),
    );
    headers.insert(
        ACCESS_CONTROL_ALLOW_HEADERS,
        HeaderValue::from_static("X-Requested-With, Content-Type, Authorization, Date"),
    );
    headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static("Retry-After"));
}

/// Whether the client of this target expects Matrix errors. A path that may be understood so is enough.
pub(crate) fn speaks_matrix(target: &[u8]) -> bool {
    let target = String::from_utf8_lossy(target);
    let path = target.split(['?', '#']).next().unwrap_or_default();
    // Absolute form.
    let path = match path.split_once("://") {
        Some((_, rest)) => rest.find('/').and_then(|at| rest.get(at..)).unwrap_or("/"),
        None => path,
    };
    is_matrix_path(path) || path::readings(path).is_ok_and(|readings| is_matrix_path(&readings.normal))
}

fn is_matrix_path(path: &str) -> bool {
    MATRIX_PATHS
        .iter()
        .any(|prefix| path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/')))
}

/// Client-server API, "Standard error response".
fn json(told: &Told<'_>) -> String {
    let mut members = serde_json::Map::new();
    members.insert("errcode".into(), errcode(told.status).into());
    members.insert("error".into(), told.text.as_ref().into());
    if let Some(after) = told.retry_after {
        members.insert("retry_after_ms".into(), u64::try_from(after.as_millis()).unwrap_or(u64::MAX).into());
    }
    serde_json::Value::Object(members).to_string()
}

fn errcode(status: StatusCode) -> &'static str {
    match status {
        StatusCode::BAD_REQUEST | StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED => "M_UNRECOGNIZED",
        StatusCode::FORBIDDEN => "M_FORBIDDEN",
        StatusCode::PAYLOAD_TOO_LARGE => "M_TOO_LARGE",
        StatusCode::TOO_MANY_REQUESTS => "M_LIMIT_EXCEEDED",
        _ => "M_UNKNOWN",
    }
}

/// A small page without anything to load, readable on a telephone and in the dark.
fn page(told: &Told<'_>) -> String {
    let (code, reason) = (told.status.as_u16(), told.status.canonical_reason().unwrap_or("Error"));
    let title = told.title.map_or_else(|| format!("{code} {reason}"), str::to_owned);
    let text = escape(&told.text);
    let stop = if told.text.ends_with(['.', '!', '?', '…']) { "" } else { "." };
    format!(
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content=\"width=device-width\">\
         <title>{title}</title><style>:root{{color-scheme:light dark}}body{{font:1rem/1.5 system-ui,sans-serif;\
         max-width:36rem;margin:15vh auto;padding:0 1rem;overflow-wrap:anywhere}}</style>\
         <h1>{title}</h1><p>{text}{stop}\n"
    )
}

/// A text as text of HTML.
pub(crate) fn escape(text: &str) -> Cow<'_, str> {
    if !text.contains(['&', '<', '>', '"', '\'']) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len() + 16);
    for character in text.chars() {
        match character {
            '&' | '<' | '>' | '"' | '\'' => {
                // Writing to a String cannot fail.
                let _ = write!(escaped, "&#{};", u32::from(character));
            }
            other => escaped.push(other),
        }
    }
    Cow::Owned(escaped)
}

/// RFC 9110 §10.2.3: whole seconds; rounded up, since 0 would be "at once".
pub(crate) fn seconds(duration: Duration) -> u64 {
    duration.as_secs() + u64::from(duration.subsec_nanos() > 0)
}

/// Under which Matrix clients ask. Beside them is what only browsers open.
const MATRIX_PATHS: [&str; 3] = ["/_matrix", "/_synapse", "/.well-known/matrix"];

/// Ten minutes: what is allowed does not change, and a server that is down is not asked twice for each request.
const PREFLIGHT_SECS: &str = "600";

#[cfg(test)]
mod tests {
    use super::*;

    fn told(status: StatusCode) -> Told<'static> {
        Told {
            status,
            title: None,
            text: "Nothing <b>works</b>".into(),
            retry_after: None,
            is_for_preflights: false,
        }
    }

    fn ask(told: &Told<'_>, method: &Method, target: &str) -> FaultAnswer {
        form(told, Asked { method, target: target.as_bytes() })
    }

    #[test]
    fn matrix_clients_are_found_by_their_path() {
        for target in [
            "/_matrix",
            "/_matrix?x",
            "/_matrix/client/versions",
            "/%5Fmatrix/client/versions",
            "/_synapse/admin/v1",
            "/.well-known/matrix/client",
            "http://example.com/_matrix/x",
            "/x/../_matrix/y",
        ] {
            assert!(speaks_matrix(target.as_bytes()), "{target}");
        }
        for target in
            ["/", "", "/_matrixx", "/x/_matrix", "/?/_matrix/", "http://_matrix", "*", "/.well-known/acme"]
        {
            assert!(!speaks_matrix(target.as_bytes()), "{target}");
        }
    }

    #[test]
    fn a_browser_can_read_the_error_and_when_to_come_back() {
        let told =
            Told { retry_after: Some(Duration::from_millis(1500)), ..told(StatusCode::SERVICE_UNAVAILABLE) };
        let answer = ask(&told, &Method::GET, "/_matrix/x");
        assert_eq!(answer.status, 503);
        assert_eq!(answer.headers[RETRY_AFTER], "2");
        assert_eq!(answer.headers[ACCESS_CONTROL_ALLOW_ORIGIN], "*");
        assert_eq!(answer.headers[ACCESS_CONTROL_EXPOSE_HEADERS], "Retry-After");
        assert_eq!(answer.headers[CACHE_CONTROL], "no-store");
        let body: serde_json::Value = serde_json::from_str(&answer.body).unwrap();
        assert_eq!(
            body,
            serde_json::json!({"errcode": "M_UNKNOWN", "error": "Nothing <b>works</b>", "retry_after_ms": 1500})
        );
    }

    #[test]
    fn a_preflight_of_matrix_is_fine_and_any_other_is_not() {
        let fault = told(StatusCode::BAD_GATEWAY);
        let answer = ask(&fault, &Method::OPTIONS, "/_matrix/x");
        assert_eq!((answer.status.as_u16(), answer.body.as_str()), (204, ""));
        assert_eq!(answer.headers[ACCESS_CONTROL_ALLOW_METHODS], "GET, HEAD, POST, PUT, DELETE, OPTIONS");
        assert_eq!(answer.headers[ACCESS_CONTROL_MAX_AGE], "600");
        assert!(!answer.headers.contains_key(CONTENT_TYPE));
        assert_eq!(ask(&fault, &Method::OPTIONS, "/x").status, 502);
        let refused = Told { is_for_preflights: true, ..fault };
        assert_eq!(ask(&refused, &Method::OPTIONS, "/_matrix/x").status, 502);
    }

    #[test]
    fn a_page_cannot_be_written_into() {
        let answer = ask(&told(StatusCode::NOT_FOUND), &Method::GET, "/");
        assert!(answer.body.contains("<p>Nothing &#60;b&#62;works&#60;/b&#62;.\n"), "{}", answer.body);
        assert!(!answer.headers.contains_key(ACCESS_CONTROL_ALLOW_ORIGIN));
        let told = Told {
            title: Some("Closed"),
            text: "Back soon!".into(),
            ..told(StatusCode::SERVICE_UNAVAILABLE)
        };
        assert!(ask(&told, &Method::GET, "/").body.ends_with("<h1>Closed</h1><p>Back soon!\n"));
        assert_eq!(escape("a&b\"'"), "a&#38;b&#34;&#39;");
    }
}
