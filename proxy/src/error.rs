//! What can go wrong with a request, and what its client is told: one table from [`Fault`] to status, code and text.
//! It sends nothing; see `answer`.

use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN, ALLOW,
};
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, StatusCode};
use pingora::{Error, ErrorSource, ErrorType};

/// Why a request did not get what it asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Fault {
    /// Not HTTP as the gate wants it, with the reason.
    #[error("malformed request: {0}")]
    Malformed(&'static str),
    /// The path means different things to different servers.
    #[error("ambiguous path")]
    AmbiguousPath,
    /// `TRACE` or `CONNECT`.
    #[error("method not allowed")]
    MethodNotAllowed,
    /// A transfer coding other than `chunked`.
    #[error("transfer coding not supported")]
    TransferCoding,
    /// An expectation other than `100-continue`.
    #[error("expectation not supported")]
    Expectation,
    /// A request line beyond `limits.max_header_size`.
    #[error("request target too long")]
    TargetTooLong,
    /// A request head beyond `limits.max_header_size`.
    #[error("request head too large")]
    HeadTooLarge,
    /// No site answers for the host.
    #[error("no such site")]
    NoSite,
    /// No route of the site matches.
    #[error("no such route")]
    NoRoute,
    /// The client is not in the route's `allow`.
    #[error("client not allowed")]
    NotAllowed,
    /// The route is `deny`, with its status.
    #[error("denied by the route")]
    Denied(StatusCode),
    /// A request body beyond the route's limit.
    #[error("request body too large")]
    BodyTooLarge,
    /// No file, a method files don't take, or a range outside the file; with the status.
    #[error("no file for the request")]
    File(StatusCode),
    /// The request body came too slowly.
    #[error("request body timed out")]
    ClientSlow,
    /// The client left before the answer was complete.
    #[error("client went away")]
    ClientGone,
    /// No server of the upstream could be resolved or connected.
    #[error("upstream cannot be reached")]
    UpstreamUnreachable,
    /// No server of the upstream could be connected in time.
    #[error("upstream cannot be reached in time")]
    UpstreamConnectTimeout,
    /// The upstream closed early or sent what is not HTTP.
    #[error("upstream broke the connection or the protocol")]
    UpstreamBroken,
    /// The upstream did not answer in time.
    #[error("upstream did not answer in time")]
    UpstreamTimeout,
    /// A mistake of ours.
    #[error("internal error")]
    Internal,
}

/// Who has to do something about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    /// The client.
    Downstream,
    /// A server behind us.
    Upstream,
    /// We.
    Internal,
}

impl Fault {
    /// The status to answer with; `None` when nobody is left to answer to.
    pub(crate) fn status(self) -> Option<StatusCode> {
        Some(match self {
            Self::Malformed(_) | Self::AmbiguousPath => StatusCode::BAD_REQUEST,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::TransferCoding => StatusCode::NOT_IMPLEMENTED,
            Self::Expectation => StatusCode::EXPECTATION_FAILED,
            Self::TargetTooLong => StatusCode::URI_TOO_LONG,
            Self::HeadTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::NoSite | Self::NoRoute => StatusCode::NOT_FOUND,
            Self::NotAllowed => StatusCode::FORBIDDEN,
            Self::Denied(status) | Self::File(status) => status,
            Self::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::ClientSlow => StatusCode::REQUEST_TIMEOUT,
            Self::ClientGone => return None,
            Self::UpstreamUnreachable | Self::UpstreamBroken => StatusCode::BAD_GATEWAY,
            Self::UpstreamConnectTimeout | Self::UpstreamTimeout => StatusCode::GATEWAY_TIMEOUT,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        })
    }

    /// Whose fault it is.
    pub(crate) fn side(self) -> Side {
        match self {
            Self::Malformed(_)
            | Self::AmbiguousPath
            | Self::MethodNotAllowed
            | Self::TransferCoding
            | Self::Expectation
            | Self::TargetTooLong
            | Self::HeadTooLarge
            | Self::NoSite
            | Self::NoRoute
            | Self::NotAllowed
            | Self::Denied(_)
            | Self::BodyTooLarge
            | Self::File(_)
            | Self::ClientSlow
            | Self::ClientGone => Side::Downstream,
            Self::UpstreamUnreachable
            | Self::UpstreamConnectTimeout
            | Self::UpstreamBroken
            | Self::UpstreamTimeout => Side::Upstream,
            Self::Internal => Side::Internal,
        }
    }

    /// What Pingora's error means. Errors that our own code raised have set their fault before.
    pub(crate) fn from_engine(error: &Error) -> Self {
        match error.esource() {
            ErrorSource::Upstream => match error.etype() {
                ErrorType::ConnectTimedout | ErrorType::TLSHandshakeTimedout => Self::UpstreamConnectTimeout,
                ErrorType::ReadTimedout | ErrorType::WriteTimedout => Self::UpstreamTimeout,
                ErrorType::ConnectRefused
                | ErrorType::ConnectNoRoute
                | ErrorType::ConnectError
                | ErrorType::BindError
                | ErrorType::SocketError
                | ErrorType::TLSHandshakeFailure
                | ErrorType::InvalidCert
                | ErrorType::HandshakeError => Self::UpstreamUnreachable,
                _ => Self::UpstreamBroken,
            },
            ErrorSource::Downstream => match error.etype() {
                ErrorType::ReadTimedout => Self::ClientSlow,
                ErrorType::InvalidHTTPHeader => Self::Malformed("connection fields"),
                ErrorType::ReadError
                | ErrorType::WriteError
                | ErrorType::WriteTimedout
                | ErrorType::ConnectionClosed
                | ErrorType::H2Error => Self::ClientGone,
                _ => Self::Malformed("framing"),
            },
            ErrorSource::Internal | ErrorSource::Unset => Self::Internal,
        }
    }
}

/// An answer of our own to a fault: headers without framing, and the body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FaultAnswer {
    /// Status.
    pub(crate) status: StatusCode,
    /// All but `Content-Length`.
    pub(crate) headers: HeaderMap,
    /// JSON or HTML.
    pub(crate) body: String,
}

/// What the client of `path` (the request target as received) is told; `None` when it has left.
pub(crate) fn answer(fault: Fault, path: &[u8]) -> Option<FaultAnswer> {
    let status = fault.status()?;
    let mut headers = HeaderMap::with_capacity(5);
    let body = if speaks_matrix(path) {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
        headers.insert(
            ACCESS_CONTROL_ALLOW_METHODS,
            HeaderValue::from_static("GET, HEAD, POST, PUT, DELETE, OPTIONS"),
        );
        headers.insert(
            ACCESS_CONTROL_ALLOW_HEADERS,
            HeaderValue::from_static("X-Requested-With, Content-Type, Authorization, Date"),
        );
        serde_json::json!({ "errcode": errcode(status), "error": text(fault) }).to_string()
    } else {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
        page(status, &text(fault))
    };
    if fault == Fault::MethodNotAllowed {
        headers.insert(ALLOW, HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"));
    }
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Some(FaultAnswer { status, headers, body })
}

/// Whether the client of this path expects Matrix errors (client-server API §"Standard error response").
fn speaks_matrix(path: &[u8]) -> bool {
    [b"/_matrix".as_slice(), b"/_synapse"].iter().any(|prefix| {
        path.strip_prefix(*prefix).is_some_and(|rest| matches!(rest.first(), None | Some(b'/' | b'?')))
    })
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

/// One sentence for people; of the servers behind us it names the side, never an address.
fn text(fault: Fault) -> String {
    match fault {
        Fault::UpstreamUnreachable => "The server behind this proxy cannot be reached".into(),
        Fault::UpstreamConnectTimeout => "The server behind this proxy cannot be reached in time".into(),
        Fault::UpstreamBroken => "The server behind this proxy did not complete its answer".into(),
        Fault::UpstreamTimeout => "The server behind this proxy did not answer in time".into(),
        Fault::Internal => "This proxy failed".into(),
        // A route that denies with 404 does not want to be known.
        Fault::Denied(StatusCode::NOT_FOUND) => text(Fault::NoRoute),
        Fault::Malformed(_)
        | Fault::AmbiguousPath
        | Fault::MethodNotAllowed
        | Fault::TransferCoding
        | Fault::Expectation
        | Fault::TargetTooLong
        | Fault::HeadTooLarge
        | Fault::NoSite
        | Fault::NoRoute
        | Fault::NotAllowed
        | Fault::Denied(_)
        | Fault::BodyTooLarge
        | Fault::File(_)
        | Fault::ClientSlow
        | Fault::ClientGone => {
            let mut text = fault.to_string();
            if let Some(first) = text.get_mut(..1) {
                first.make_ascii_uppercase();
            }
            text
        }
    }
}

/// A small page without anything to load.
fn page(status: StatusCode, text: &str) -> String {
    let (code, reason) = (status.as_u16(), status.canonical_reason().unwrap_or("Error"));
    format!(
        "<!doctype html><html lang=en><meta charset=utf-8><title>{code} {reason}</title>\
         <h1>{code} {reason}</h1><p>{text}.\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(fault: Fault, path: &str, status: u16, body: &str) {
        let answer = answer(fault, path.as_bytes()).unwrap();
        assert_eq!(answer.status.as_u16(), status);
        assert!(answer.body.contains(body), "{}", answer.body);
        let cors = answer.headers.get(ACCESS_CONTROL_ALLOW_ORIGIN);
        assert_eq!(cors.is_some(), answer.body.starts_with('{'));
    }

    #[test]
    fn matrix_paths_get_matrix_errors() {
        check(Fault::NoRoute, "/_matrix/nothing", 404, r#""errcode":"M_UNRECOGNIZED""#);
        check(Fault::AmbiguousPath, "/_synapse/x", 400, r#""errcode":"M_UNRECOGNIZED""#);
        check(Fault::BodyTooLarge, "/_matrix/media/v3/upload?x", 413, r#""errcode":"M_TOO_LARGE""#);
        check(
            Fault::UpstreamUnreachable,
            "/_matrix?x",
            502,
            r#"{"errcode":"M_UNKNOWN","error":"The server behind"#,
        );
        check(Fault::UpstreamTimeout, "/_matrix/client", 504, "did not answer in time");
    }

    #[test]
    fn other_paths_get_a_page() {
        check(Fault::NoRoute, "/", 404, "<h1>404 Not Found</h1><p>No such route.");
        check(Fault::NoSite, "/_matrixx", 404, "<!doctype html>");
        check(Fault::Denied(StatusCode::FORBIDDEN), "/admin", 403, "Denied by the route");
        check(Fault::Denied(StatusCode::NOT_FOUND), "/admin", 404, "No such route");
    }

    #[test]
    fn nobody_answers_a_client_that_left() {
        assert_eq!(answer(Fault::ClientGone, b"/"), None);
        assert_eq!(Fault::ClientGone.side(), Side::Downstream);
        assert_eq!(Fault::UpstreamBroken.side(), Side::Upstream);
    }
}
