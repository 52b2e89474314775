//! The strict gate: what a request has to look like before anybody decides anything about it, so that we and the server
//! behind us cannot understand it differently. Pure, over plain HTTP types; it changes nothing and knows no routes.
//!
//! Pingora has parsed the head before: two `Host` fields, an absolute target that disagrees with `Host`, folded lines,
//! control characters and a transfer coding that does not end in `chunked` are refused there.

use http::header::{CONTENT_LENGTH, EXPECT, HOST, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderValue, Method, Version};

use crate::error::Fault;

/// A request head as received.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Head<'a> {
    pub(crate) method: &'a Method,
    pub(crate) version: Version,
    /// Target as the engine would forward it: without fragment.
    pub(crate) target: &'a [u8],
    /// `:authority` of HTTP/2.
    pub(crate) authority: Option<&'a str>,
    pub(crate) headers: &'a HeaderMap,
    /// All bytes of an HTTP/1 head; empty for HTTP/2.
    pub(crate) raw: &'a [u8],
    /// `limits.max_header_size`.
    pub(crate) max_head_size: usize,
}

/// A request that may go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Admitted<'a> {
    /// Host and port as received.
    pub(crate) authority: &'a str,
    /// Host as received, without port; IPv6 with brackets.
    pub(crate) host: &'a str,
    /// Path as received.
    pub(crate) path: &'a str,
    /// Path and query as received.
    pub(crate) path_and_query: &'a str,
    /// The target was absolute: what is forwarded has to be `path_and_query`.
    pub(crate) is_absolute: bool,
    /// Whether and how a body follows.
    pub(crate) body: Body,
}

/// How the body of a request is framed (RFC 9112 §6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Body {
    /// None follows, or, in HTTP/2, its length is not said.
    Unsaid,
    /// `Content-Length`.
    Length(u64),
    /// `Transfer-Encoding: chunked`.
    Chunked,
}

/// Checks a request head.
///
/// # Errors
/// The [`Fault`] to answer with.
pub(crate) fn admit<'a>(head: &Head<'a>) -> Result<Admitted<'a>, Fault> {
    check_size(head)?;
    check_version(head.version)?;
    check_method(head.method)?;
    let target = check_target(head)?;
    let authority = check_host(head, target.authority)?;
    let body = check_framing(head)?;
    check_expectation(head.headers)?;
    Ok(Admitted {
        authority: authority.whole,
        host: authority.host,
        path: target.path_and_query.split_once('?').map_or(target.path_and_query, |(path, _)| path),
        path_and_query: target.path_and_query,
        is_absolute: target.authority.is_some(),
        body,
    })
}

/// RFC 9110 §5.4, RFC 6585 §5.
fn check_size(head: &Head<'_>) -> Result<(), Fault> {
    if head.raw.len() <= head.max_head_size {
        return Ok(());
    }
    let line = head.raw.iter().position(|&byte| byte == b'\n').unwrap_or(head.raw.len());
    if line > head.max_head_size { Err(Fault::TargetTooLong) } else { Err(Fault::HeadTooLarge) }
}

fn check_version(version: Version) -> Result<(), Fault> {
    match version {
        Version::HTTP_10 | Version::HTTP_11 | Version::HTTP_2 => Ok(()),
        _ => Err(Fault::Malformed("HTTP version")),
    }
}

/// `TRACE` shows fields the client must not see (RFC 9110 §9.3.8); we are no tunnel for `CONNECT`.
fn check_method(method: &Method) -> Result<(), Fault> {
    if *method == Method::TRACE || *method == Method::CONNECT { Err(Fault::MethodNotAllowed) } else { Ok(()) }
}

struct Target<'a> {
    /// Of an absolute target.
    authority: Option<&'a str>,
    path_and_query: &'a str,
}

/// RFC 9112 §3.2: origin form, or absolute form of an HTTP URL.
fn check_target<'a>(head: &Head<'a>) -> Result<Target<'a>, Fault> {
    if raw_target(head.raw).iter().any(|&byte| byte == b'#' || !byte.is_ascii_graphic()) {
        return Err(Fault::Malformed("request target"));
    }
    if head.target.iter().any(|&byte| byte == b'#' || !byte.is_ascii_graphic()) {
        return Err(Fault::Malformed("request target"));
    }
    // Only ASCII, so this cannot fail.
    let target = str::from_utf8(head.target).map_err(|_| Fault::Malformed("request target"))?;
    if target.starts_with('/') {
        return Ok(Target { authority: None, path_and_query: target });
    }
    let Some((scheme, rest)) = target.split_once("://") else {
        return Err(Fault::Malformed("request target"));
    };
    if !scheme.eq_ignore_ascii_case("http") && !scheme.eq_ignore_ascii_case("https") {
        return Err(Fault::Malformed("scheme of the request target"));
    }
    match rest.find(['/', '?']) {
        Some(at) if rest.as_bytes().get(at) == Some(&b'/') => {
            let (authority, path_and_query) = rest.split_at(at);
            Ok(Target { authority: Some(authority), path_and_query })
        }
        Some(_) => Err(Fault::Malformed("path of the request target")),
        None => Ok(Target { authority: Some(rest), path_and_query: "/" }),
    }
}

/// The second word of the request line; empty when there is no raw head (HTTP/2).
fn raw_target(raw: &[u8]) -> &[u8] {
    let line = raw.iter().position(|&byte| byte == b'\n').and_then(|end| raw.get(..end)).unwrap_or_default();
    line.split(|&byte| byte == b' ').nth(1).unwrap_or_default()
}

struct Authority<'a> {
    whole: &'a str,
    host: &'a str,
}

/// RFC 9110 §7.2: every request says which host it means, once and well-formed.
fn check_host<'a>(head: &Head<'a>, of_target: Option<&'a str>) -> Result<Authority<'a>, Fault> {
    let mut fields = head.headers.get_all(HOST).iter();
    let field = fields.next().map(HeaderValue::to_str).transpose().map_err(|_| Fault::Malformed("Host"))?;
    if fields.next().is_some() {
        return Err(Fault::Malformed("more than one Host"));
    }
    let whole = match (head.authority.or(of_target), field) {
        (Some(authority), Some(field)) if authority != field => return Err(Fault::Malformed("two hosts")),
        (Some(authority), _) if head.version == Version::HTTP_2 => authority,
        (_, Some(field)) => field,
        (_, None) => return Err(Fault::Malformed("no Host")),
    };
    let host = host_of(whole).ok_or(Fault::Malformed("Host"))?;
    Ok(Authority { whole, host })
}

/// The host of `host[:port]` (RFC 3986 §3.2.2): a name, an IPv4 address or an IPv6 address in brackets.
fn host_of(authority: &str) -> Option<&str> {
    let (host, port) = if authority.starts_with('[') {
        let (host, port) = authority.split_at(authority.find(']')? + 1);
        host.get(1..host.len() - 1)?.parse::<std::net::Ipv6Addr>().ok()?;
        (host, port)
    } else {
        let (host, port) = authority.split_at(authority.find(':').unwrap_or(authority.len()));
        let is_name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
        if host.is_empty() || host.len() > MAX_HOST || !host.bytes().all(is_name) {
            return None;
        }
        (host, port)
    };
    match port.strip_prefix(':') {
        None if port.is_empty() => Some(host),
        Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
            digits.parse::<u16>().ok().map(|_| host)
        }
        _ => None,
    }
}

/// RFC 9112 §6.1 and §6.3: one way to find the end of the body, and everybody finds the same.
fn check_framing(head: &Head<'_>) -> Result<Body, Fault> {
    let mut codings = head.headers.get_all(TRANSFER_ENCODING).iter();
    let mut lengths = head.headers.get_all(CONTENT_LENGTH).iter();
    match (codings.next(), lengths.next()) {
        (None, None) => Ok(Body::Unsaid),
        (None, Some(length)) => {
            if lengths.next().is_some() {
                return Err(Fault::Malformed("more than one Content-Length"));
            }
            length_of(length.as_bytes()).map(Body::Length)
        }
        (Some(coding), length) => {
            if head.version != Version::HTTP_11 {
                return Err(Fault::Malformed("Transfer-Encoding"));
            }
            // The engine drops a Content-Length beside a Transfer-Encoding; the raw head still has it.
            if length.is_some() || has_field(head.raw, b"content-length") {
                return Err(Fault::Malformed("Content-Length and Transfer-Encoding"));
            }
            if codings.next().is_some() || !coding.as_bytes().eq_ignore_ascii_case(b"chunked") {
                return Err(Fault::TransferCoding);
            }
            Ok(Body::Chunked)
        }
    }
}

/// Digits only: no list, no sign, no space (RFC 9110 §8.6).
fn length_of(value: &[u8]) -> Result<u64, Fault> {
    let fault = Fault::Malformed("Content-Length");
    if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return Err(fault);
    }
    str::from_utf8(value).ok().and_then(|digits| digits.parse().ok()).ok_or(fault)
}

/// Whether a line of the raw head begins with `name:`, in any case.
fn has_field(raw: &[u8], name: &[u8]) -> bool {
    raw.split(|&byte| byte == b'\n').any(|line| {
        line.get(name.len()) == Some(&b':')
            && line.get(..name.len()).is_some_and(|n| n.eq_ignore_ascii_case(name))
    })
}

/// RFC 9110 §10.1.1.
fn check_expectation(headers: &HeaderMap) -> Result<(), Fault> {
    match headers.get(EXPECT) {
        Some(value) if !value.as_bytes().eq_ignore_ascii_case(b"100-continue") => Err(Fault::Expectation),
        Some(_) | None => Ok(()),
    }
}

/// Longest name of the DNS in text form (RFC 1035 §2.3.4).
const MAX_HOST: usize = 255;

#[cfg(test)]
mod tests {
    use http::header::HeaderName;
    use proptest::prelude::*;

    use super::*;

    fn headers(fields: &[(&str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in fields {
            let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
            map.append(name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        map
    }

    fn check_with(
        method: &str,
        target: &str,
        fields: &[(&str, &str)],
    ) -> Result<(String, String, Body), Fault> {
        let lines: String = fields.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        let raw = format!("{method} {target} HTTP/1.1\r\n{lines}\r\n");
        let mut map = headers(fields);
        if map.contains_key(TRANSFER_ENCODING) {
            map.remove(CONTENT_LENGTH); // as the engine does
        }
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        let target = target.split('#').next().unwrap();
        let head = Head {
            method: &method,
            version: Version::HTTP_11,
            target: target.as_bytes(),
            authority: None,
            headers: &map,
            raw: raw.as_bytes(),
            max_head_size: 1024,
        };
        admit(&head)
            .map(|admitted| (admitted.host.to_owned(), admitted.path_and_query.to_owned(), admitted.body))
    }

    fn check(target: &str, fields: &[(&str, &str)]) -> Result<(String, String, Body), Fault> {
        check_with("GET", target, fields)
    }

    const HOST_FIELD: (&str, &str) = ("Host", "example.com:8448");

    #[test]
    fn ordinary_requests_pass() {
        let passed = |body| Ok(("example.com".to_owned(), "/a%2Fb?x=%zz".to_owned(), body));
        assert_eq!(check("/a%2Fb?x=%zz", &[HOST_FIELD]), passed(Body::Unsaid));
        assert_eq!(check("/a%2Fb?x=%zz", &[HOST_FIELD, ("content-length", "007")]), passed(Body::Length(7)));
        assert_eq!(
            check("/a%2Fb?x=%zz", &[HOST_FIELD, ("transfer-encoding", "Chunked")]),
            passed(Body::Chunked)
        );
        assert_eq!(check("/a%2Fb?x=%zz", &[HOST_FIELD, ("Expect", "100-Continue")]), passed(Body::Unsaid));
    }

    #[test]
    fn absolute_targets_become_paths() {
        let path = |target: &str| check(target, &[HOST_FIELD]).map(|(_, path, _)| path);
        assert_eq!(path("http://example.com:8448/a?b").as_deref(), Ok("/a?b"));
        assert_eq!(path("HTTPS://example.com:8448").as_deref(), Ok("/"));
        assert!(path("http://other/a").is_err());
        assert!(path("http://example.com:8448?b").is_err());
        assert!(path("ftp://example.com:8448/a").is_err());
    }

    #[test]
    fn ambiguous_framing_is_refused() {
        for fields in [
            [("Content-Length", "2"), ("Content-Length", "2")].as_slice(),
            &[("Content-Length", "2, 2")],
            &[("Content-Length", "+2")],
            &[("Content-Length", "")],
            &[("Content-Length", "99999999999999999999")],
            &[("cOnTent-length", "2"), ("Transfer-Encoding", "chunked")],
        ] {
            let fields: Vec<_> = [HOST_FIELD].into_iter().chain(fields.iter().copied()).collect();
            assert!(matches!(check("/", &fields), Err(Fault::Malformed(_))), "{fields:?}");
        }
        for fields in [
            [("Transfer-Encoding", "gzip, chunked")].as_slice(),
            &[("Transfer-Encoding", "gzip"), ("Transfer-Encoding", "chunked")],
            &[("Transfer-Encoding", "chunked ;x")],
        ] {
            let fields: Vec<_> = [HOST_FIELD].into_iter().chain(fields.iter().copied()).collect();
            assert_eq!(check("/", &fields), Err(Fault::TransferCoding), "{fields:?}");
        }
    }

    #[test]
    fn hosts_are_checked() {
        for host in ["a b", "", ":80", "a:", "a:port", "a:70000", "[::1", "[x]", "a/b", "user@a", "[::1]x"] {
            assert!(check("/", &[("Host", host)]).is_err(), "{host}");
        }
        for host in ["a", "A.Example", "127.0.0.1:1", "[::1]:8448", "x_y"] {
            assert!(check("/", &[("Host", host)]).is_ok(), "{host}");
        }
        assert_eq!(check("/", &[]), Err(Fault::Malformed("no Host")));
    }

    #[test]
    fn targets_are_checked() {
        for target in ["*", "/a#b", "/\u{e9}", "a", ""] {
            assert!(check(target, &[HOST_FIELD]).is_err(), "{target}");
        }
    }

    #[test]
    fn methods_that_reflect_or_tunnel_are_refused() {
        for method in ["TRACE", "CONNECT"] {
            assert_eq!(check_with(method, "/", &[HOST_FIELD]), Err(Fault::MethodNotAllowed));
        }
        assert!(check_with("PROPFIND", "/", &[HOST_FIELD]).is_ok());
        assert_eq!(check("/", &[HOST_FIELD, ("Expect", "a miracle")]), Err(Fault::Expectation));
    }

    #[test]
    fn size_of_the_head_is_limited() {
        let long = "x".repeat(1024);
        assert_eq!(check(&format!("/{long}"), &[HOST_FIELD]), Err(Fault::TargetTooLong));
        assert_eq!(check("/", &[HOST_FIELD, ("x", &long)]), Err(Fault::HeadTooLarge));
    }

    #[test]
    fn http2_takes_the_authority() {
        let map = HeaderMap::new();
        let head = Head {
            method: &Method::GET,
            version: Version::HTTP_2,
            target: b"/a",
            authority: Some("example.com:8448"),
            headers: &map,
            raw: b"",
            max_head_size: 1024,
        };
        assert_eq!(admit(&head).unwrap().authority, "example.com:8448");
        assert_eq!(admit(&Head { authority: None, ..head }), Err(Fault::Malformed("no Host")));
    }

    proptest! {
        #[test]
        fn host_never_contains_the_port(authority in "[a-z0-9.:\\[\\]@ -]{0,40}") {
            if let Some(host) = host_of(&authority) {
                prop_assert!(authority.starts_with(host));
                prop_assert!(host.starts_with('[') || !host.contains(':'));
            }
        }
    }
}
