//! What the answer of an upstream has to look like before a client gets it. Pure, over plain HTTP types.
//!
//! The engine has parsed it, refuses what is no HTTP, and joins folded lines (RFC 9112 §5.2); it chooses where an answer
//! says in two ways how long it is. A server that says two things is broken or being used against us, so its answer is not passed on, and
//! its connection is not used again.

use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{HeaderMap, Method, StatusCode, Version};

use super::head::length_of;

/// Checks the head of an upstream's answer, an interim one (1xx) too. `interim` counts those that came before, and
/// `may_switch` says whether the request asked for another protocol.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn admit(
    version: Version,
    status: StatusCode,
    headers: &HeaderMap,
    interim: u32,
    may_switch: bool,
) -> Result<(), &'static str> {
    if status == StatusCode::SWITCHING_PROTOCOLS && !may_switch {
        return Err("nobody asked for another protocol");
    }
    if status.is_informational() {
        return if interim < MAX_INTERIM { Ok(()) } else { Err("too many interim answers") };
    }
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    if let Some(coding) = codings.next() {
        if version != Version::HTTP_11 {
            return Err("Transfer-Encoding in HTTP/1.0");
        }
        if codings.next().is_some() || !coding.as_bytes().eq_ignore_ascii_case(b"chunked") {
            return Err("transfer coding");
        }
    }
    let mut lengths = headers.get_all(CONTENT_LENGTH).iter();
    if let Some(length) = lengths.next()
        && (lengths.next().is_some() || length_of(length.as_bytes()).is_err())
    {
        return Err("Content-Length");
    }
    Ok(())
}

/// Whether nothing follows the head of this final answer (RFC 9112 §6.3).
pub(crate) fn is_complete(method: &Method, status: StatusCode, headers: &HeaderMap) -> bool {
    *method == Method::HEAD
        || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
        || headers.get(CONTENT_LENGTH).is_some_and(|length| length.as_bytes() == b"0")
}

/// Interim answers before the final one: one of each kind, and some 103 with more links.
const MAX_INTERIM: u32 = 16;

#[cfg(test)]
mod tests {
    use http::header::{HeaderName, HeaderValue};

    use super::*;

    fn check(version: Version, status: u16, fields: &[(&str, &str)]) -> Result<(), &'static str> {
        let mut map = HeaderMap::new();
        for (name, value) in fields {
            let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
            map.append(name, HeaderValue::from_str(value).unwrap());
        }
        admit(version, StatusCode::from_u16(status).unwrap(), &map, 0, false)
    }

    #[test]
    fn answers_have_one_end() {
        const LENGTH: &str = "content-length";
        const CODING: &str = "transfer-encoding";
        for (fields, result) in [
            ([].as_slice(), Ok(())),
            (&[(LENGTH, "5")], Ok(())),
            (&[(CODING, "Chunked")], Ok(())),
            (&[(LENGTH, "5"), (LENGTH, "5")], Err("Content-Length")),
            (&[(LENGTH, "5, 5")], Err("Content-Length")),
            (&[(CODING, "gzip, chunked")], Err("transfer coding")),
            (&[(CODING, "gzip")], Err("transfer coding")),
            (&[(CODING, "gzip"), (CODING, "chunked")], Err("transfer coding")),
        ] {
            assert_eq!(check(Version::HTTP_11, 200, fields), result, "{fields:?}");
        }
        assert!(check(Version::HTTP_10, 200, &[(LENGTH, "5")]).is_ok());
        assert!(check(Version::HTTP_10, 200, &[(CODING, "chunked")]).is_err());
    }

    #[test]
    fn interim_answers_are_counted() {
        let interim =
            |before| admit(Version::HTTP_11, StatusCode::EARLY_HINTS, &HeaderMap::new(), before, false);
        assert_eq!(interim(0), Ok(()));
        assert_eq!(interim(MAX_INTERIM), Err("too many interim answers"));
    }

    #[test]
    fn protocols_are_switched_on_demand() {
        let switching = |asked| {
            admit(Version::HTTP_11, StatusCode::SWITCHING_PROTOCOLS, &HeaderMap::new(), 0, asked).is_ok()
        };
        assert!(switching(true) && !switching(false));
    }

    #[test]
    fn some_answers_end_with_their_head() {
        let none = HeaderMap::new();
        assert!(is_complete(&Method::HEAD, StatusCode::OK, &none));
        assert!(is_complete(&Method::GET, StatusCode::NO_CONTENT, &none));
        assert!(!is_complete(&Method::GET, StatusCode::OK, &none));
    }
}
