//! One request from its head to its answer: the steps that every request takes, in order.

use std::sync::Arc;

use accept::pace::Pace;
use accept::{Acceptor, Connection};
use axum::Router;
use axum::body::Body;
use axum::response::{IntoResponse, Response};
use conf::{HttpLimits, HttpTimeouts};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, Version, header};
use hyper::body::Incoming;
use ipnet::IpNet;
use tower_service::Service;
use tracing::{debug, warn};

use super::activity::Activity;
use super::upload::Upload;
use crate::http::metrics::Traffic;
use crate::http::refusal::{Manner, Pages};
use crate::limit::Limit;
use crate::router::manner;

/// What the requests of one listener share.
#[derive(Debug)]
pub(crate) struct Context {
    pub(super) router: Router,
    pub(super) acceptor: Arc<Acceptor>,
    pub(super) trusted: Arc<[IpNet]>,
    pub(super) prefix: String,
    pub(super) pages: Arc<Pages>,
    pub(super) traffic: Arc<Traffic>,
    pub(super) limits: HttpLimits,
    pub(super) timeouts: HttpTimeouts,
}

impl Context {
    /// Whether a connection that was accepted before would have become the same with this: then it may go on.
    pub(super) fn fits(&self, connection: &Connection) -> bool {
        let demanded = self.acceptor.proxy.demands_header(connection.remote);
        matches!(demanded, Ok(demanded) if demanded == connection.proxy_header.is_some())
            && self.acceptor.tls.is_some() == connection.tls.is_some()
    }
}

/// Answers a request.
pub(super) async fn answer(
    context: &Context,
    connection: Arc<Connection>,
    request: Request<Incoming>,
    activity: &Arc<Activity>,
) -> Response {
    let began = tokio::time::Instant::now();
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let manner = manner(&path, &context.prefix);
    let client = accept::client_address(connection.peer(), &context.trusted, request.headers());
    let limits = &context.limits;

    let result = if let Some(limit) = head_over_limit(&request, limits) {
        Err((StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, limit))
    } else if is_preflight(&method, manner) {
        Ok(preflight())
    } else if announced_length(request.headers()) > limits.max_body_size.0 {
        activity.leave_unread();
        Err((StatusCode::PAYLOAD_TOO_LARGE, Limit::MaxBodySize))
    } else {
        let pace = Pace { patience: context.timeouts.body, rate: limits.min_body_rate.0 };
        let (parts, body) = request.into_parts();
        let upload = Upload::new(body, limits.max_body_size.0, pace, activity.clone());
        let course = upload.course();
        let mut request = Request::from_parts(parts, Body::new(upload));
        request.extensions_mut().insert(client);
        request.extensions_mut().insert(connection.clone());
        // A router is always ready.
        let routed = context.router.clone().call(request);
        match (tokio::time::timeout(context.timeouts.request, routed).await, course.broken()) {
            (_, Some(Limit::MaxBodySize)) => Err((StatusCode::PAYLOAD_TOO_LARGE, Limit::MaxBodySize)),
            (_, Some(limit)) => Err((StatusCode::REQUEST_TIMEOUT, limit)),
            (Ok(Ok(answer)), None) => Ok(answer),
            (Err(_), None) if !course.is_complete() => Err((StatusCode::REQUEST_TIMEOUT, Limit::Request)),
            (Err(_), None) => {
                warn!(%method, path, %client, "a request was not answered in time");
                Err((StatusCode::SERVICE_UNAVAILABLE, Limit::Request))
            }
        }
    };
    let mut answer = match result {
        Ok(answer) => {
            if answer.status() == StatusCode::PAYLOAD_TOO_LARGE {
                context.traffic.limits.count(Limit::MaxBodySize);
            }
            answer
        }
        Err((status, limit)) => {
            context.traffic.limits.count(limit);
            context.pages.refuse(manner, status)
        }
    };
    if manner != Manner::Page {
        let origin = answer.headers_mut().entry(header::ACCESS_CONTROL_ALLOW_ORIGIN);
        origin.or_insert(HeaderValue::from_static("*"));
    }
    context.traffic.count(answer.status());
    debug!(
        connection = connection.id,
        listener = %connection.listener,
        %client,
        %method,
        path,
        status = answer.status().as_u16(),
        duration_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX),
        "request"
    );
    answer
}

/// Which limit a head is above; of HTTP/1, hyper has refused what is too large already. Sizes are counted as RFC 9113 §10.5.1 does.
fn head_over_limit<B>(request: &Request<B>, limits: &HttpLimits) -> Option<Limit> {
    let fields = request.headers().iter().map(|(name, value)| name.as_str().len() + value.len() + 32);
    let target = request.uri().path_and_query().map_or(0, |target| target.as_str().len());
    let size = fields.sum::<usize>() + target;
    if request.headers().len() > limits.max_header_count {
        return Some(Limit::MaxHeaderCount);
    }
    (request.version() == Version::HTTP_2 && size as u64 > limits.max_header_size.0)
        .then_some(Limit::MaxHeaderSize)
}

/// `OPTIONS` of an API is a browser's question (Fetch §3.2.2), whatever the path: an error is readable for the page that asked too.
fn is_preflight(method: &Method, manner: Manner) -> bool {
    *method == Method::OPTIONS && manner != Manner::Page
}

fn preflight() -> Response {
    (StatusCode::NO_CONTENT, PREFLIGHT_HEADERS.map(|(name, value)| (name, HeaderValue::from_static(value))))
        .into_response()
}

const PREFLIGHT_HEADERS: [(HeaderName, &str); 4] = [
    (header::ACCESS_CONTROL_ALLOW_ORIGIN, "*"),
    (header::ACCESS_CONTROL_ALLOW_METHODS, "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"),
    (
        header::ACCESS_CONTROL_ALLOW_HEADERS,
        "Authorization, Accept, Accept-Language, Content-Language, Content-Type, X-Requested-With, traceparent, tracestate, baggage, sentry-trace",
    ),
    (header::ACCESS_CONTROL_MAX_AGE, "3600"),
];

/// `Content-Length`; 0 for a body that does not say, which is bounded as it is read. hyper has refused everything but one number.
fn announced_length(headers: &HeaderMap) -> u64 {
    let length = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok());
    length.and_then(|length| length.parse().ok()).unwrap_or(0)
}
