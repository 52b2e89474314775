//! One request from its head to its answer: the steps that every request takes, in order.

use std::sync::Arc;

use accept::{Acceptor, Connection};
use axum::Router;
use axum::body::Body;
use axum::response::{IntoResponse, Response};
use conf::{HttpLimits, HttpTimeouts};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, header};
use http_body_util::Limited;
use hyper::body::Incoming;
use ipnet::IpNet;
use tower_service::Service;
use tracing::{debug, warn};

use crate::http::metrics::Traffic;
use crate::http::refusal::{Manner, Pages};
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
) -> Response {
    let began = tokio::time::Instant::now();
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let manner = manner(&path, &context.prefix);
    let client = accept::client_address(connection.peer(), &context.trusted, request.headers());

    let mut answer = if is_preflight(&method, manner) {
        preflight()
    } else if announced_length(request.headers()) > context.limits.max_body_size.0 {
        context.pages.refuse(manner, StatusCode::PAYLOAD_TOO_LARGE)
    } else {
        let limit = usize::try_from(context.limits.max_body_size.0).unwrap_or(usize::MAX);
        let mut request = request.map(|body| Body::new(Limited::new(body, limit)));
        request.extensions_mut().insert(client);
        request.extensions_mut().insert(connection.clone());
        // A router is always ready.
        let routed = context.router.clone().call(request);
        match tokio::time::timeout(context.timeouts.request, routed).await {
            Ok(Ok(answer)) => answer,
            Err(_) => {
                warn!(%method, path, %client, "a request was not answered in time");
                context.pages.refuse(manner, StatusCode::SERVICE_UNAVAILABLE)
            }
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
