//! What can go wrong with a request, and what its client is told: one table from [`Fault`] to status and text.
//! It sends nothing; see `answer`. How it looks is in [`form`].

mod form;

use std::time::Duration;

use http::header::ALLOW;
use http::{HeaderValue, StatusCode};
use pingora::{Error, ErrorSource, ErrorType};

use crate::maintenance::{DEFAULT_MESSAGE, Notice};
use crate::metrics::Limit;

pub(crate) use form::{Asked, FaultAnswer};

use form::{Told, form};

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
    /// A request target beyond `limits.max_target_length`, or a request line beyond `limits.max_header_size`.
    #[error("request target too long")]
    TargetTooLong,
    /// A request head beyond `limits.max_header_size`.
    #[error("request head too large")]
    HeadTooLarge,
    /// More fields than `limits.max_header_count`.
    #[error("too many request fields")]
    TooManyFields,
    /// Trailers and chunk extensions beyond `limits.max_trailer_size`.
    #[error("request trailers too large")]
    TrailersTooLarge,
    /// A request head that was not complete within `timeouts.header`.
    #[error("request head timed out")]
    HeadTimeout,
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
    /// Nothing came of the request body for `timeouts.body`.
    #[error("request body timed out")]
    BodyTimeout,
    /// The request body came slower than `limits.min_body_rate`.
    #[error("request body too slow")]
    BodySlow,
    /// The client took its answer slower than `limits.min_send_rate`, or nothing of it for `timeouts.send`.
    #[error("client did not take the answer")]
    ClientNotTaking,
    /// As that, but on one HTTP/2 stream while others go on.
    #[error("client did not take the answer")]
    StreamNotTaken,
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
    /// Neither side of a tunnel said anything for too long.
    #[error("tunnel was silent for too long")]
    TunnelSilent,
    /// The request was not complete at the end of the drain.
    #[error("cut off at the end of the drain")]
    Drained,
    /// The tunnel was still open at the end of its drain.
    #[error("tunnel cut off at the end of the drain")]
    TunnelDrained,
    /// Maintenance mode is on; its notice says more.
    #[error("maintenance")]
    Maintenance,
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
            Self::HeadTooLarge | Self::TooManyFields | Self::TrailersTooLarge => {
                StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE
            }
            Self::NoSite | Self::NoRoute => StatusCode::NOT_FOUND,
            Self::NotAllowed => StatusCode::FORBIDDEN,
            Self::Denied(status) | Self::File(status) => status,
            Self::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::HeadTimeout | Self::BodyTimeout | Self::BodySlow => StatusCode::REQUEST_TIMEOUT,
            Self::ClientNotTaking
            | Self::StreamNotTaken
            | Self::ClientGone
            | Self::TunnelSilent
            | Self::TunnelDrained => {
                return None;
            }
            Self::UpstreamUnreachable | Self::UpstreamBroken => StatusCode::BAD_GATEWAY,
            Self::UpstreamConnectTimeout | Self::UpstreamTimeout => StatusCode::GATEWAY_TIMEOUT,
            Self::Drained | Self::Maintenance => StatusCode::SERVICE_UNAVAILABLE,
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
            | Self::TooManyFields
            | Self::TrailersTooLarge
            | Self::HeadTimeout
            | Self::NoSite
            | Self::NoRoute
            | Self::NotAllowed
            | Self::Denied(_)
            | Self::BodyTooLarge
            | Self::File(_)
            | Self::BodyTimeout
            | Self::BodySlow
            | Self::ClientNotTaking
            | Self::StreamNotTaken
            | Self::ClientGone
            | Self::TunnelSilent
            | Self::Drained
            | Self::TunnelDrained => Side::Downstream,
            Self::UpstreamUnreachable
            | Self::UpstreamConnectTimeout
            | Self::UpstreamBroken
            | Self::UpstreamTimeout => Side::Upstream,
            Self::Maintenance | Self::Internal => Side::Internal,
        }
    }

    /// The limit or deadline that it means.
    pub(crate) fn limit(self) -> Option<Limit> {
        match self {
            Self::TargetTooLong => Some(Limit::MaxTargetLength),
            Self::HeadTooLarge => Some(Limit::MaxHeaderSize),
            Self::TooManyFields => Some(Limit::MaxHeaderCount),
            Self::TrailersTooLarge => Some(Limit::MaxTrailerSize),
            Self::HeadTimeout => Some(Limit::Header),
            Self::BodyTooLarge => Some(Limit::MaxBodySize),
            Self::BodyTimeout => Some(Limit::Body),
            Self::BodySlow => Some(Limit::MinBodyRate),
            Self::UpstreamConnectTimeout => Some(Limit::Connect),
            Self::UpstreamTimeout => Some(Limit::UpstreamRead),
            Self::TunnelSilent => Some(Limit::Tunnel),
            Self::StreamNotTaken => Some(Limit::Send),
            Self::Drained => Some(Limit::Drain),
            Self::TunnelDrained => Some(Limit::TunnelDrain),
            Self::Malformed(_)
            | Self::AmbiguousPath
            | Self::MethodNotAllowed
            | Self::TransferCoding
            | Self::Expectation
            | Self::NoSite
            | Self::NoRoute
            | Self::NotAllowed
            | Self::Denied(_)
            | Self::File(_)
            // The connection has counted it, once for all its requests.
            | Self::ClientNotTaking
            | Self::ClientGone
            | Self::UpstreamUnreachable
            | Self::UpstreamBroken
            | Self::Maintenance
            | Self::Internal => None,
        }
    }

    /// Whether the request itself is no request that could be answered; a preflight is then refused as any other.
    fn is_no_request(self) -> bool {
        match self {
            Self::Malformed(_)
            | Self::AmbiguousPath
            | Self::MethodNotAllowed
            | Self::TransferCoding
            | Self::Expectation
            | Self::HeadTimeout
            | Self::BodyTimeout
            | Self::BodySlow
            | Self::ClientNotTaking
            | Self::StreamNotTaken
            | Self::ClientGone
            | Self::TunnelSilent
            | Self::TunnelDrained => true,
            // Well-formed as far as anybody looked: the request that follows is as long, and told so.
            Self::TargetTooLong
            | Self::HeadTooLarge
            | Self::TooManyFields
            | Self::TrailersTooLarge
            | Self::NoSite
            | Self::NoRoute
            | Self::NotAllowed
            | Self::Denied(_)
            | Self::BodyTooLarge
            | Self::File(_)
            | Self::UpstreamUnreachable
            | Self::UpstreamConnectTimeout
            | Self::UpstreamBroken
            | Self::UpstreamTimeout
            | Self::Drained
            | Self::Maintenance
            | Self::Internal => false,
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
                ErrorType::ReadTimedout => Self::BodyTimeout,
                // Over HTTP/1 the connection knows.
                ErrorType::WriteTimedout => Self::StreamNotTaken,
                ErrorType::InvalidHTTPHeader => Self::Malformed("connection fields"),
                ErrorType::ReadError
                | ErrorType::WriteError
                | ErrorType::ConnectionClosed
                | ErrorType::H2Error => Self::ClientGone,
                _ => Self::Malformed("framing"),
            },
            ErrorSource::Internal | ErrorSource::Unset => Self::Internal,
        }
    }
}

/// What the client is told; `None` when it has left.
pub(crate) fn answer(fault: Fault, asked: Asked<'_>) -> Option<FaultAnswer> {
    let status = fault.status()?;
    let may_come_back = matches!(status, StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS);
    let told = Told {
        status,
        title: None,
        text: text(fault).into(),
        retry_after: may_come_back.then_some(RETRY_AFTER),
        is_for_preflights: fault.is_no_request(),
    };
    let mut answer = form(&told, asked);
    if fault == Fault::MethodNotAllowed {
        answer
            .headers
            .insert(ALLOW, HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"));
    }
    Some(answer)
}

/// What the client is told in maintenance mode.
pub(crate) fn maintenance(notice: &Notice, asked: Asked<'_>) -> FaultAnswer {
    let told = Told {
        status: StatusCode::SERVICE_UNAVAILABLE,
        title: Some("Down for maintenance"),
        text: notice.message().into(),
        retry_after: Some(notice.retry_after()),
        is_for_preflights: false,
    };
    form(&told, asked)
}

/// One sentence for people; of the servers behind us it names the side, never an address.
fn text(fault: Fault) -> String {
    match fault {
        Fault::UpstreamUnreachable => "The server behind this proxy cannot be reached".into(),
        Fault::UpstreamConnectTimeout => "The server behind this proxy cannot be reached in time".into(),
        Fault::UpstreamBroken => "The server behind this proxy did not complete its answer".into(),
        Fault::UpstreamTimeout => "The server behind this proxy did not answer in time".into(),
        Fault::Maintenance => DEFAULT_MESSAGE.into(),
        Fault::Internal => "This proxy failed".into(),
        Fault::Drained => "This proxy is being restarted".into(),
        Fault::File(status) if status.is_server_error() => "This proxy cannot read the file".into(),
        // A route that denies with 404 does not want to be known.
        Fault::Denied(StatusCode::NOT_FOUND) => text(Fault::NoRoute),
        Fault::Malformed(_)
        | Fault::AmbiguousPath
        | Fault::MethodNotAllowed
        | Fault::TransferCoding
        | Fault::Expectation
        | Fault::TargetTooLong
        | Fault::HeadTooLarge
        | Fault::TooManyFields
        | Fault::TrailersTooLarge
        | Fault::HeadTimeout
        | Fault::NoSite
        | Fault::NoRoute
        | Fault::NotAllowed
        | Fault::Denied(_)
        | Fault::BodyTooLarge
        | Fault::File(_)
        | Fault::BodyTimeout
        | Fault::BodySlow
        | Fault::ClientNotTaking
        | Fault::StreamNotTaken
        | Fault::ClientGone
        | Fault::TunnelSilent
        | Fault::TunnelDrained => {
            let mut text = fault.to_string();
            if let Some(first) = text.get_mut(..1) {
                first.make_ascii_uppercase();
            }
            text
        }
    }
}

/// When nobody said how long it takes.
const RETRY_AFTER: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use http::Method;
    use http::header::{ACCESS_CONTROL_ALLOW_ORIGIN, RETRY_AFTER};

    use super::*;

    fn ask(fault: Fault, target: &str) -> Option<FaultAnswer> {
        answer(fault, Asked { method: &Method::GET, target: target.as_bytes() })
    }

    fn check(fault: Fault, path: &str, status: u16, body: &str) {
        let answer = ask(fault, path).unwrap();
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
        check(Fault::NotAllowed, "/_synapse/admin", 403, r#""errcode":"M_FORBIDDEN""#);
        check(Fault::MethodNotAllowed, "/_matrix", 405, r#""errcode":"M_UNRECOGNIZED""#);
        check(Fault::Internal, "/_matrix", 500, r#"{"errcode":"M_UNKNOWN","error":"This proxy failed"}"#);
    }

    #[test]
    fn other_paths_get_a_page() {
        check(Fault::NoRoute, "/", 404, "<h1>404 Not Found</h1><p>No such route.");
        check(Fault::NoSite, "/_matrixx", 404, "<!doctype html>");
        check(Fault::Denied(StatusCode::FORBIDDEN), "/admin", 403, "Denied by the route");
        check(Fault::Denied(StatusCode::NOT_FOUND), "/admin", 404, "No such route");
    }

    #[test]
    fn who_may_come_back_is_told_when() {
        let busy = Fault::Denied(StatusCode::TOO_MANY_REQUESTS);
        check(busy, "/_matrix/x", 429, r#"{"errcode":"M_LIMIT_EXCEEDED""#);
        check(busy, "/_matrix/x", 429, r#""retry_after_ms":30000}"#);
        let full = Fault::File(StatusCode::SERVICE_UNAVAILABLE);
        check(full, "/x", 503, "This proxy cannot read the file");
        for fault in [busy, full] {
            assert_eq!(ask(fault, "/x").unwrap().headers[RETRY_AFTER], "30");
        }
        assert!(!ask(Fault::UpstreamBroken, "/x").unwrap().headers.contains_key(RETRY_AFTER));
    }

    #[test]
    fn a_preflight_is_told_only_what_makes_it_no_request() {
        let status = |fault| {
            answer(fault, Asked { method: &Method::OPTIONS, target: b"/_matrix/x" }).unwrap().status.as_u16()
        };
        for fault in [
            Fault::TargetTooLong,
            Fault::HeadTooLarge,
            Fault::TooManyFields,
            Fault::TrailersTooLarge,
            Fault::NoSite,
            Fault::NoRoute,
            Fault::NotAllowed,
            Fault::Denied(StatusCode::NOT_FOUND),
            Fault::BodyTooLarge,
            Fault::File(StatusCode::METHOD_NOT_ALLOWED),
            Fault::UpstreamUnreachable,
            Fault::UpstreamConnectTimeout,
            Fault::UpstreamBroken,
            Fault::UpstreamTimeout,
            Fault::Drained,
            Fault::Maintenance,
            Fault::Internal,
        ] {
            assert_eq!(status(fault), 204, "{fault}");
        }
        assert_eq!(status(Fault::Malformed("Host")), 400);
        assert_eq!(status(Fault::AmbiguousPath), 400);
        assert_eq!(status(Fault::TransferCoding), 501);
    }

    #[test]
    fn nobody_answers_a_client_that_left() {
        assert_eq!(ask(Fault::ClientGone, "/"), None);
        assert_eq!(ask(Fault::TunnelSilent, "/"), None);
        assert_eq!(ask(Fault::TunnelDrained, "/"), None);
        assert_eq!(Fault::ClientGone.side(), Side::Downstream);
        assert_eq!(Fault::UpstreamBroken.side(), Side::Upstream);
    }
}
