//! The strict gate: what a request has to look like before anybody decides anything about it, so that we and the server
//! behind us cannot understand it differently. Pure, over bytes and plain HTTP types; it changes nothing and knows no
//! routes.
//!
//! [`head`] reads the bytes of an HTTP/1 head before the engine does, [`body`] finds the end of what follows it, [`admit`]
//! judges the meaning of a head of any HTTP version, and [`answer`] judges what an upstream says. The README has a table
//! of every case.

pub(crate) mod answer;
pub(crate) mod body;
pub(crate) mod head;

use http::header::{CONNECTION, CONTENT_LENGTH, EXPECT, HOST, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderValue, Method, Version};

use crate::error::Fault;
use body::BodyFault;
use head::HeadFault;
pub(crate) use head::{Body, HeadLimits};

/// A request head as received.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Head<'a> {
    pub(crate) method: &'a Method,
    pub(crate) version: Version,
    /// Target as the engine would forward it.
    pub(crate) target: &'a [u8],
    /// `:scheme` of HTTP/2.
    pub(crate) scheme: Option<&'a str>,
    /// `:authority` of HTTP/2.
    pub(crate) authority: Option<&'a str>,
    pub(crate) headers: &'a HeaderMap,
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

/// Checks a request head.
///
/// # Errors
/// The [`Fault`] to answer with.
pub(crate) fn admit<'a>(head: &Head<'a>, limits: HeadLimits) -> Result<Admitted<'a>, Fault> {
    if cfg!(feature = "measure-without-gate") {
        return unchecked(head);
    }
    check_size(head, limits)?;
    check_version(head.version)?;
    check_method(head.method)?;
    let target = check_target(head)?;
    let authority = check_host(head, target.authority)?;
    let body = check_framing(head)?;
    check_connection(head)?;
    check_expectation(head.headers)?;
    Ok(Admitted {
        authority: authority.whole,
        host: authority.host,
        path: path_of(target.path_and_query),
        path_and_query: target.path_and_query,
        is_absolute: target.authority.is_some(),
        body,
    })
}

/// What routing needs and nothing else: the other side of the measure of what the gate costs.
fn unchecked<'a>(head: &Head<'a>) -> Result<Admitted<'a>, Fault> {
    let host = head.headers.get(HOST).and_then(|host| host.to_str().ok());
    let authority = head.authority.or(host).unwrap_or_default();
    let path_and_query = str::from_utf8(head.target).map_err(|_| Fault::Malformed("request target"))?;
    let length = head.headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    Ok(Admitted {
        authority,
        host: authority.split_once(':').map_or(authority, |(host, _)| host),
        path: path_of(path_and_query),
        path_and_query,
        is_absolute: false,
        body: length.map_or(Body::Unsaid, Body::Length),
    })
}

fn path_of(path_and_query: &str) -> &str {
    path_and_query.split_once('?').map_or(path_and_query, |(path, _)| path)
}

impl From<HeadFault> for Fault {
    fn from(fault: HeadFault) -> Self {
        match fault {
            HeadFault::Malformed(part) => Self::Malformed(part),
            HeadFault::TransferCoding => Self::TransferCoding,
            HeadFault::TargetTooLong => Self::TargetTooLong,
            HeadFault::TooManyFields => Self::TooManyFields,
        }
    }
}

impl From<BodyFault> for Fault {
    fn from(fault: BodyFault) -> Self {
        match fault {
            BodyFault::Malformed(part) => Self::Malformed(part),
            BodyFault::TooMuchBeside => Self::TrailersTooLarge,
        }
    }
}

impl HeadLimits {
    /// Those of a configuration, and what the engine takes at most.
    pub(crate) fn of(limits: &conf::Limits) -> Self {
        let target = usize::try_from(limits.max_target_length.0).unwrap_or(usize::MAX);
        Self {
            target: target.min(Self::ENGINE.target),
            fields: limits.max_header_count.min(Self::ENGINE.fields),
        }
    }
}

/// Of HTTP/1, [`head::read`] has done it before.
fn check_size(head: &Head<'_>, limits: HeadLimits) -> Result<(), Fault> {
    if head.target.len() > limits.target {
        Err(Fault::TargetTooLong)
    } else if head.headers.len() > limits.fields {
        Err(Fault::TooManyFields)
    } else {
        Ok(())
    }
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
    if head.target.iter().any(|&byte| byte == b'#' || !byte.is_ascii_graphic()) {
        return Err(Fault::Malformed("request target"));
    }
    // Only ASCII, so this cannot fail.
    let target = str::from_utf8(head.target).map_err(|_| Fault::Malformed("request target"))?;
    if head.scheme.is_some_and(|scheme| !is_http(scheme)) {
        return Err(Fault::Malformed("scheme of the request target"));
    }
    if target.starts_with('/') {
        return Ok(Target { authority: None, path_and_query: target });
    }
    let Some((scheme, rest)) = target.split_once("://") else {
        return Err(Fault::Malformed("request target"));
    };
    if !is_http(scheme) {
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

/// Which of the two makes no difference: whether the connection is under TLS is what upstreams are told.
fn is_http(scheme: &str) -> bool {
    scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("https")
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

/// RFC 9112 §6.1 and §6.3: one way to find the end of the body, and everybody finds the same. Of HTTP/1, [`head::read`] has
/// said so before; the engine must have read the same.
fn check_framing(head: &Head<'_>) -> Result<Body, Fault> {
    let mut codings = head.headers.get_all(TRANSFER_ENCODING).iter();
    let mut lengths = head.headers.get_all(CONTENT_LENGTH).iter();
    let body = match (codings.next(), lengths.next()) {
        (None, None) => Body::Unsaid,
        (None, Some(length)) => Body::Length(head::length_of(length.as_bytes())?),
        (Some(_), Some(_)) => return Err(Fault::Malformed("Content-Length and Transfer-Encoding")),
        (Some(_), None) if head.version != Version::HTTP_11 => {
            return Err(Fault::Malformed("Transfer-Encoding"));
        }
        (Some(coding), None) if coding.as_bytes().eq_ignore_ascii_case(b"chunked") => Body::Chunked,
        (Some(_), None) => return Err(Fault::TransferCoding),
    };
    match (lengths.next(), codings.next()) {
        (None, None) => Ok(body),
        (Some(_), _) => Err(Fault::Malformed("more than one Content-Length")),
        (None, Some(_)) => Err(Fault::TransferCoding),
    }
}

/// RFC 9110 §7.6.1: options are tokens, and none may take away what a message means or who sent it.
fn check_connection(head: &Head<'_>) -> Result<(), Fault> {
    let mut count = 0;
    let values = head.headers.get_all(CONNECTION).iter();
    for option in values.flat_map(|value| value.as_bytes().split(|&byte| byte == b',')) {
        let option = option.trim_ascii();
        let is_named = |name: &&[u8]| option.eq_ignore_ascii_case(name);
        let is_forwarded = option.get(..11).is_some_and(|start| start.eq_ignore_ascii_case(b"x-forwarded"));
        count += usize::from(!option.is_empty());
        if count > MAX_OPTIONS
            || is_forwarded
            || PROTECTED.iter().any(is_named)
            || !option.iter().copied().all(head::is_token)
        {
            return Err(Fault::Malformed("connection fields"));
        }
    }
    Ok(())
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
/// Fields that no client may have removed by naming them in `Connection`.
const PROTECTED: [&[u8]; 4] = [b"host", b"content-length", b"transfer-encoding", b"forwarded"];
/// Options in all `Connection` fields together: as many as the engine takes.
const MAX_OPTIONS: usize = 9;

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
        let map = headers(fields);
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        let head = Head {
            method: &method,
            version: Version::HTTP_11,
            target: target.as_bytes(),
            scheme: None,
            authority: None,
            headers: &map,
        };
        admit(&head, LIMITS)
            .map(|admitted| (admitted.host.to_owned(), admitted.path_and_query.to_owned(), admitted.body))
    }

    fn check(target: &str, fields: &[(&str, &str)]) -> Result<(String, String, Body), Fault> {
        check_with("GET", target, fields)
    }

    const HOST_FIELD: (&str, &str) = ("Host", "example.com:8448");
    const LIMITS: HeadLimits = HeadLimits { target: 100, fields: 5 };

    #[test]
    fn targets_and_fields_have_limits_in_every_version() {
        let of_length = |length: usize| check(&format!("/{}", "x".repeat(length - 1)), &[HOST_FIELD]).is_ok();
        assert!(of_length(100));
        assert_eq!(check(&format!("/{}", "x".repeat(100)), &[HOST_FIELD]), Err(Fault::TargetTooLong));
        let of_count = |count| check("/", &[&[HOST_FIELD], vec![("a", "b"); count].as_slice()].concat());
        assert!(of_count(4).is_ok());
        assert_eq!(of_count(5), Err(Fault::TooManyFields));
    }

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
    fn connection_takes_nothing_away_that_counts() {
        let connection = |value: &str| check("/", &[HOST_FIELD, ("Connection", value)]).map(drop);
        for value in ["close", "keep-alive, Upgrade", "X-Mine,,TE , close", "", "a,b,c,d,e,f,g,h,i"] {
            assert_eq!(connection(value), Ok(()), "{value}");
        }
        for value in [
            "Host",
            "close, x-forwarded-for",
            "X-FORWARDED-ANYTHING",
            "Forwarded",
            "content-length",
            "Transfer-Encoding",
            ":authority",
            "\"Host\"",
            "a b",
            "a,b,c,d,e,f,g,h,i,j",
        ] {
            assert_eq!(connection(value), Err(Fault::Malformed("connection fields")), "{value}");
        }
    }

    #[test]
    fn http2_takes_the_authority() {
        let map = HeaderMap::new();
        let head = Head {
            method: &Method::GET,
            version: Version::HTTP_2,
            target: b"/a",
            scheme: Some("https"),
            authority: Some("example.com:8448"),
            headers: &map,
        };
        assert_eq!(admit(&head, LIMITS).unwrap().authority, "example.com:8448");
        let nobody = Head { authority: None, ..head };
        assert_eq!(admit(&nobody, LIMITS), Err(Fault::Malformed("no Host")));
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
