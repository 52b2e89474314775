//! Requests that are refused before the engine has made a request of them: what their client is told, and what the access
//! log may know of them.

use http::{Method, StatusCode};

use crate::error::{self, Asked, Fault, FaultAnswer};
use crate::gate::head;

/// A request that was refused, as far as it is known.
#[derive(Debug)]
pub(crate) struct Refusal {
    /// Why.
    pub(crate) fault: Fault,
    /// Its method; `-` when that is none.
    pub(crate) method: String,
    /// The beginning of its target; `-` when that is none.
    pub(crate) target: String,
}

impl Refusal {
    /// Of a head that may be malformed, and incomplete.
    pub(super) fn new(fault: Fault, head: &[u8]) -> Self {
        let (method, target) = head::request_of(head);
        Self { fault, method: shown(method), target: shown(target) }
    }

    /// Of a request that the engine answers with `answer`, before our code has seen it.
    pub(super) fn by_engine(answer: &[u8], target: &[u8], is_head: bool) -> Self {
        let fault = match answer.get(9..12) {
            Some(b"405") => Fault::MethodNotAllowed,
            Some(_) | None => Fault::Malformed("request"),
        };
        let end = target.iter().position(|&byte| byte == 0).unwrap_or(target.len());
        let method = if is_head { b"HEAD".as_slice() } else { b"" };
        Self { fault, method: shown(method), target: shown(target.get(..end).unwrap_or_default()) }
    }

    /// The status that its client gets.
    pub(crate) fn status(&self) -> StatusCode {
        self.told().map_or(StatusCode::BAD_REQUEST, |answer| answer.status)
    }

    fn told(&self) -> Option<FaultAnswer> {
        // The fault decides whether a preflight is told: of one that is too long, not of one that is no request.
        let method = if self.method == "OPTIONS" { Method::OPTIONS } else { Method::GET };
        error::answer(self.fault, Asked { method: &method, target: self.target.as_bytes() })
    }

    /// A whole answer, after which the connection ends.
    pub(super) fn answer(&self) -> Vec<u8> {
        let Some(answer) = self.told() else { return Vec::new() };
        let reason = answer.status.canonical_reason().unwrap_or("Error");
        let mut bytes = format!("HTTP/1.1 {} {reason}\r\n", answer.status.as_u16()).into_bytes();
        for (name, value) in &answer.headers {
            bytes.extend_from_slice(name.as_str().as_bytes());
            bytes.extend_from_slice(b": ");
            bytes.extend_from_slice(value.as_bytes());
            bytes.extend_from_slice(b"\r\n");
        }
        if answer.status != StatusCode::NO_CONTENT {
            bytes.extend_from_slice(format!("content-length: {}\r\n", answer.body.len()).as_bytes());
        }
        bytes.extend_from_slice(b"connection: close\r\n\r\n");
        if self.method != "HEAD" {
            bytes.extend_from_slice(answer.body.as_bytes());
        }
        bytes
    }
}

/// A word of a request line that can be shown: cut, and nothing but visible ASCII.
fn shown(word: &[u8]) -> String {
    let word = word.get(..word.len().min(MAX_SHOWN)).unwrap_or_default();
    let is_shown = !word.is_empty() && word.iter().all(u8::is_ascii_graphic);
    if is_shown { String::from_utf8_lossy(word).into_owned() } else { "-".to_owned() }
}

/// Enough to find the mistake.
const MAX_SHOWN: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn check(head: &[u8], method: &str, target: &str, content_type: &str) {
        let refusal = Refusal::new(Fault::Malformed("request line"), head);
        assert_eq!((refusal.method.as_str(), refusal.target.as_str()), (method, target));
        let answer = String::from_utf8(refusal.answer()).unwrap();
        assert!(answer.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{answer}");
        assert!(answer.contains(&format!("content-type: {content_type}")), "{answer}");
    }

    #[test]
    fn answers_speak_the_language_of_the_target() {
        check(b"GET /_matrix/client/x y HTTP/1.1\r\n", "GET", "/_matrix/client/x", "application/json");
        check(b"GET /_synapse", "GET", "/_synapse", "application/json");
        check(b"GET /x y", "GET", "/x", "text/html");
        check(b"\x16\x03\x01\0 \x01", "-", "-", "text/html");
        check(b"", "-", "-", "text/html");
    }

    #[test]
    fn a_head_request_gets_no_body() {
        let answer = Refusal::new(Fault::Malformed("request line"), b"HEAD / x HTTP/1.1\r\n").answer();
        assert!(answer.ends_with(b"\r\n\r\n"));
    }

    #[test]
    fn long_targets_are_cut() {
        let head = format!("GET /{} HTTP/1.1\r\n", "x".repeat(5000));
        assert_eq!(Refusal::new(Fault::TargetTooLong, head.as_bytes()).target.len(), 1024);
    }
}
