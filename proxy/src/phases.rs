//! The way of a request through the edge, as the phases of Pingora's proxy: one short method each. The order of the
//! decisions is the list in [`Phases::plan`].

use std::borrow::Cow;
use std::collections::hash_map::RandomState;
use std::future::poll_fn;
use std::hash::BuildHasher as _;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;
use std::time::{Duration, Instant, SystemTime};

use async_trait::async_trait;
use bytes::Bytes;
use conf::Action;
use http::header::{EXPECT, HOST, REFERER, TRANSFER_ENCODING, USER_AGENT};
use http::{HeaderValue, StatusCode, Version};
use pingora::modules::http::HttpModules;
use pingora::protocols::http::ServerSession;
use pingora::upstreams::peer::HttpPeer;
use pingora::{Error, ErrorSource, ErrorType, Result};
use pingora_http::{RequestHeader, ResponseHeader};
use pingora_proxy::{FailToProxy, ProxyHttp, ProxyWarnLogContext, Session};

use crate::access_log::Entry;
use crate::context::Context;
use crate::error::{Fault, Side};
use crate::files::FileRequest;
use crate::gate::{self, Admitted, Head, HeadLimits};
use crate::headers::{self, Origin};
use crate::limits::BodyMeter;
use crate::listener::{ClientConnection, Summary, Upload};
use crate::maintenance::{Maintenance, Notice};
use crate::metrics::{Counters, Limit};
use crate::route::{self, RouteId};
use crate::snapshot::Live;
use crate::upstream::{self, Identity, Upstream};
use crate::{answer, files, path, rewrite};

/// What a worker needs for its requests.
#[derive(Debug)]
pub(crate) struct Phases {
    /// What a request takes once, when its context is made.
    pub(crate) live: Arc<Live>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) maintenance: Arc<Maintenance>,
    /// The next request's id.
    pub(crate) next_id: AtomicU64,
    /// Makes pool keys that a client cannot guess.
    pub(crate) hasher: RandomState,
    /// The time of day.
    pub(crate) now: fn() -> SystemTime,
}

/// What is done with a request.
enum Plan {
    /// Ask the route's upstream.
    Forward,
    /// Answer with the route's action; for files with the path in normal form.
    Answer(RouteId, String),
    /// The same place over `https`.
    Redirect(String),
    /// Say why no upstream is asked.
    Maintenance(Arc<Notice>),
}

impl Phases {
    /// Everything that is decided about a request before anybody else sees it.
    fn plan(&self, session: &mut Session, context: &mut Context) -> Result<Plan, Fault> {
        let connection = context.connection.clone().ok_or(Fault::Internal)?;
        let snapshot = context.snapshot.clone();
        let (config, router) = (&snapshot.config, &snapshot.router);
        let request = session.req_header();
        let head = Head {
            method: &request.method,
            version: request.version,
            target: request.raw_path(),
            scheme: request.uri.scheme_str(),
            authority: request.uri.authority().map(|authority| authority.as_str()),
            headers: &request.headers,
        };
        let admitted = gate::admit(&head, HeadLimits::of(&config.limits))?;
        context.client =
            accept::client_address(connection.facts.peer(), &config.trusted_proxies, &request.headers);
        let listener = context.listener.ok_or(Fault::Internal)?;
        let redirects = config.listeners.get(listener).is_some_and(|listener| listener.redirect_https);
        // A client that speaks TLS to the balancer in front is where it would be sent already.
        if redirects && !connection.facts.is_tls() {
            return Ok(Plan::Redirect(https_location(snapshot.https_port, &admitted)));
        }
        let site = router.site(listener, admitted.host)?;
        context.site = Some(site);
        let readings = path::readings(admitted.path).map_err(|_| Fault::Malformed("path"))?;
        let id = router.route(site, &request.method, &readings)?;
        context.route = Some(id);
        let route = router.get(id).ok_or(Fault::Internal)?;
        route::check_client(route, context.client.ip())?;
        if matches!(route.action, Action::Upstream(_))
            && let Some(notice) = self.maintenance.notice(context.client.ip())
        {
            return Ok(Plan::Maintenance(notice));
        }
        let limit = route.max_body_size.unwrap_or(config.limits.max_body_size);
        context.meter = BodyMeter::new(limit.0);
        context.meter.check_declared(admitted.body)?;
        match &route.action {
            Action::Upstream(_) => {
                context.upstream = router.upstream(id);
                let rewrite = route.rewrite.as_ref();
                context.target =
                    rewrite.map(|rewrite| rewrite::target(rewrite, admitted.path_and_query)).transpose()?;
                let origin_form = admitted.is_absolute.then(|| admitted.path_and_query.to_owned());
                if let Some(target) = origin_form {
                    let replaced = session.req_header_mut().set_raw_path(target.as_bytes());
                    replaced.map_err(|_| Fault::Malformed("request target"))?;
                }
                Ok(Plan::Forward)
            }
            Action::Static(_) => Ok(Plan::Answer(id, readings.normal.into_owned())),
            Action::Deny(status) => Err(Fault::Denied(*status)),
            Action::Respond(_) | Action::Redirect { .. } => Ok(Plan::Answer(id, String::new())),
        }
    }

    /// Answers with a route's own action.
    async fn answer(
        &self,
        session: &mut Session,
        context: &mut Context,
        id: RouteId,
        path: &str,
    ) -> Result<()> {
        let snapshot = context.snapshot.clone();
        let extra = snapshot.extra_headers(context.route);
        match snapshot.router.get(id).map(|route| &route.action) {
            Some(Action::Respond(respond)) => {
                let body = Bytes::copy_from_slice(respond.body.as_bytes());
                let mut headers = respond.headers.clone();
                answer::replace(&mut headers, extra);
                answer::whole(session, respond.status, &headers, body).await
            }
            Some(Action::Redirect { location, status }) => {
                answer::redirect(session, *status, location, extra).await
            }
            Some(Action::Static(files)) => {
                let request = session.req_header();
                let target = str::from_utf8(request.raw_path()).unwrap_or_default();
                let asked = FileRequest {
                    method: &request.method,
                    normal_path: path,
                    query: target.split_once('?').map(|(_, query)| query),
                    headers: &request.headers,
                };
                let file = files::answer(files, asked).await;
                let is_error = file.status.is_client_error() || file.status.is_server_error();
                context.fault = is_error.then_some(Fault::File(file.status));
                answer::file(session, file, extra).await
            }
            Some(Action::Upstream(_) | Action::Deny(_)) | None => {
                Err(answer::failed("route without an answer"))
            }
        }
    }

    /// Who owns the connections to an upstream that wants a PROXY header: the client, on its connection. A trusted
    /// proxy sends requests of many clients over one connection; each has upstream connections of its own.
    fn identity(&self, upstream: &Upstream, context: &Context) -> Option<Identity> {
        upstream.config.proxy_protocol?;
        let (connection, client) = (context.connection.clone()?, context.client);
        // Never 0, which stands for connections that anybody may use.
        let key = self.hasher.hash_one((connection.facts.id, client, upstream.introduces)) | 1;
        let config = upstream.config.clone();
        let header = move || {
            upstream::introduction(&config, &connection.facts, connection.unique_id().as_bytes(), client)
        };
        Some(Identity {
            key,
            introduction: upstream::introducing(header, context.snapshot.config.timeouts.connect),
        })
    }

    /// What remains of a request whose task is dropped.
    fn summary(&self, session: &Session, context: &Context) -> Summary {
        let (site, route) = context.snapshot.router.names(context.site, context.route);
        let request = session.req_header();
        Summary {
            log: context.snapshot.log.clone(),
            id: context.id,
            client: context.client,
            method: request.method.to_string(),
            host: host_of(request).into_owned(),
            path: String::from_utf8_lossy(request.raw_path()).into_owned(),
            site: site.map(str::to_owned),
            route: route.map(str::to_owned),
            upstream: context.upstream().map(|upstream| upstream.config.name.clone()),
        }
    }

    fn write_log(&self, session: &Session, context: &Context, status: u16) {
        let Some(log) = &context.snapshot.log else { return };
        let Some(connection) = &context.connection else { return };
        let request = session.req_header();
        let text = |name| request.headers.get(name).map(HeaderValue::as_bytes).map(String::from_utf8_lossy);
        let (site, route) = context.snapshot.router.names(context.site, context.route);
        let error = context.fault.map(|fault| fault.to_string());
        let (referer, user_agent) = (text(REFERER), text(USER_AGENT));
        let unique_id = connection.unique_id().to_string();
        let entry = Entry {
            id: context.id,
            client: context.client,
            listener: context.listener_name().unwrap_or(&connection.facts.listener),
            protocol: request.version,
            tls: connection.facts.tls.as_ref().map(|tls| tls.version),
            method: request.method.as_str(),
            host: &host_of(request),
            path: &String::from_utf8_lossy(request.raw_path()),
            site,
            route,
            upstream: context.upstream().map(|upstream| upstream.config.name.as_str()),
            status,
            bytes_in: session.body_bytes_read(),
            bytes_out: session.body_bytes_sent(),
            duration: context.started.elapsed(),
            upstream_time: context.upstream_time,
            error: error.as_deref(),
            connection: &unique_id,
            referer: referer.as_deref().unwrap_or_default(),
            user_agent: user_agent.as_deref().unwrap_or_default(),
        };
        log.write(&entry, (self.now)());
    }
}

#[async_trait]
impl ProxyHttp for Phases {
    type CTX = Context;

    fn new_ctx(&self) -> Context {
        Context::new(self.live.take(), self.next_id.fetch_add(1, Ordering::Relaxed))
    }

    /// None: nothing is compressed on the way.
    fn init_downstream_modules(&self, _modules: &mut HttpModules) {}

    async fn early_request_filter(&self, session: &mut Session, context: &mut Context) -> Result<()> {
        if let Some(connection) = ClientConnection::of(session) {
            context.belongs_to(connection);
            let most = context.snapshot.config.limits.max_requests_per_connection;
            if connection.request_begins() >= most && !connection.is_h2 {
                connection.limit_hit(Limit::MaxRequestsPerConnection);
                session.set_keepalive(None);
            }
        }
        let timeouts = &context.snapshot.config.timeouts;
        // Over HTTP/1 the stream itself knows how slow a body or a tunnel may be, over HTTP/2 who watches a body does.
        session.set_read_timeout(None);
        if session.is_upgrade_req()
            && headers::is_websocket(&session.req_header().headers)
            && let Some(connection) = &context.connection
        {
            connection.asks_for_tunnel();
        }
        session.set_total_drain_timeout(Some(timeouts.body));
        if session.is_http2() {
            session.set_write_timeout(Some(
                context.snapshot.io_limits.send.time_for(answer::PIECE_BYTES as u64),
            ));
            context.upload = session.req_header().extensions.get::<Arc<Upload>>().cloned();
        } else if session.req_header().version == Version::HTTP_10 {
            // Such a client does not know interim answers (RFC 9110 §15.2).
            session.set_ignore_info_resp(true);
        }
        Ok(())
    }

    async fn request_filter(&self, session: &mut Session, context: &mut Context) -> Result<bool> {
        let plan = self.plan(session, context);
        if let Some(upload) = &context.upload {
            let _ = upload.summary.set(self.summary(session, context));
        }
        match plan {
            Ok(Plan::Forward) => return Ok(false),
            Ok(Plan::Answer(id, path)) => self.answer(session, context, id, &path).await?,
            Ok(Plan::Redirect(location)) => {
                answer::redirect(session, StatusCode::PERMANENT_REDIRECT, &location, None).await?;
            }
            Ok(Plan::Maintenance(notice)) => {
                context.fault = Some(Fault::Maintenance);
                answer::maintenance(session, &notice).await?;
            }
            Err(fault) => {
                context.fault = Some(fault);
                if matches!(fault, Fault::Malformed(_) | Fault::AmbiguousPath) {
                    // Nothing is believed of a client that speaks HTTP like this.
                    session.set_keepalive(None);
                }
                answer::fault(session, fault, context.snapshot.extra_headers(context.route)).await?;
            }
        }
        Ok(true)
    }

    async fn upstream_peer(&self, _session: &mut Session, context: &mut Context) -> Result<Box<HttpPeer>> {
        let Some(upstream) = context.upstream().cloned() else {
            return Err(answer::failed("route without an upstream"));
        };
        context.upstream_started.get_or_insert_with(Instant::now);
        context.meter.restart();
        let identity = self.identity(&upstream, context);
        match upstream.peer(&mut context.tries, identity).await {
            Ok(mut peer) => {
                if context.connection.as_ref().is_some_and(|connection| connection.may_be_tunnel()) {
                    peer.options.read_timeout = None;
                }
                Ok(Box::new(peer))
            }
            Err(fault) => {
                context.fault.get_or_insert(fault);
                Err(Error::explain(ErrorType::ConnectError, "no server left to try").into_up())
            }
        }
    }

    /// Nothing has been sent: the next server, or address, may do.
    fn fail_to_connect(
        &self,
        _session: &mut Session,
        _peer: &HttpPeer,
        context: &mut Context,
        mut error: Box<Error>,
    ) -> Box<Error> {
        self.counters.upstream_error();
        if let Some(upstream) = context.upstream().cloned() {
            upstream.failed(&mut context.tries, Instant::now());
            tracing::warn!(upstream = %upstream.config.name, %error, "upstream server cannot be connected");
        }
        let fault = Fault::from_engine(&error);
        if let Some(limit) = fault.limit() {
            self.counters.limit_hit(limit);
        }
        context.fault = Some(fault);
        error.set_retry(true);
        error
    }

    async fn upstream_request_filter(
        &self,
        session: &mut Session,
        request: &mut RequestHeader,
        context: &mut Context,
    ) -> Result<()> {
        // Connected: what failed before does not matter any more.
        context.fault = None;
        if has_left(session).await {
            // Nothing has been sent to the upstream, and nobody would take what it says.
            context.fault = Some(Fault::ClientGone);
            return Err(
                Error::explain(ErrorType::ConnectionClosed, "reset before it was sent on").into_down()
            );
        }
        let Some(connection) = &context.connection else { return Err(answer::failed("no connection")) };
        if let Some(target) = &context.target {
            request.set_raw_path(target.as_bytes())?;
        }
        let forwarded_for = context.upstream().map(|upstream| upstream.config.forwarded_for);
        let host = request.headers.get(HOST).cloned();
        let origin = Origin {
            client: context.client,
            remote: connection.facts.peer(),
            is_tls: connection.facts.is_tls(),
            host: host.as_ref(),
            forwarded_for: forwarded_for.unwrap_or_default(),
        };
        headers::to_upstream(request, &origin);
        match session.req_header().version {
            // To be ignored (RFC 9110 §10.1.1); the upstream would take it from us, who speak HTTP/1.1.
            Version::HTTP_10 => drop(request.remove_header(&EXPECT)),
            Version::HTTP_2 => headers::join_cookies(request),
            _ => {}
        }
        Ok(())
    }

    async fn request_body_filter(
        &self,
        session: &mut Session,
        body: &mut Option<Bytes>,
        end_of_stream: bool,
        context: &mut Context,
    ) -> Result<()> {
        if let Some(upload) = &context.upload {
            upload.moved(body.as_ref().map_or(0, Bytes::len));
            if end_of_stream {
                upload.complete();
            }
        }
        if let Some(body) = body
            && !session.was_upgraded()
            && let Err(fault) = context.meter.count(body.len())
        {
            context.fault = Some(fault);
            return Err(Error::new_down(ErrorType::HTTPStatus(413)));
        }
        Ok(())
    }

    async fn upstream_response_filter(
        &self,
        session: &mut Session,
        response: &mut ResponseHeader,
        context: &mut Context,
    ) -> Result<()> {
        let request = session.req_header();
        let may_switch = request.version == Version::HTTP_11 && headers::is_websocket(&request.headers);
        let (version, status) = (response.version, response.status);
        let admitted = gate::answer::admit(version, status, &response.headers, context.interim, may_switch);
        if let Err(reason) = admitted {
            context.fault = Some(Fault::UpstreamBroken);
            return Err(Error::explain(ErrorType::InvalidHTTPHeader, reason).into_up());
        }
        if status.is_informational() {
            context.interim += 1;
        } else {
            context.upstream_time = context.upstream_started.map(|started| started.elapsed());
            if let Some(upload) = &context.upload {
                upload.begin_answer(status.as_u16());
            }
            if gate::answer::is_complete(&request.method, status, &response.headers) {
                context.answer_is_complete();
            }
        }
        headers::from_upstream(response, status);
        Ok(())
    }

    /// The answer as it leaves us, framed for the client by the engine.
    async fn response_filter(
        &self,
        session: &mut Session,
        response: &mut ResponseHeader,
        context: &mut Context,
    ) -> Result<()> {
        // Ours, not that of the server behind us (RFC 9110 §2.5).
        response.set_version(Version::HTTP_11);
        // The engine ends the connection when an answer comes before the end of the body; an interim one is none.
        session.set_close_on_response_before_downstream_finish(!response.status.is_informational());
        if context.connection.as_ref().is_some_and(|connection| connection.place.ending().is_some()) {
            // The request was on its way when the end began: nothing may come after it.
            session.set_keepalive(None);
        }
        if response.status == StatusCode::SWITCHING_PROTOCOLS {
            if let Some(connection) = &context.connection {
                connection.becomes_tunnel();
            }
        } else if session.req_header().version == Version::HTTP_10
            && response.headers.contains_key(TRANSFER_ENCODING)
        {
            // Such a client knows no chunks: the answer ends with the connection (RFC 9112 §6.1, §6.3).
            response.remove_header(&TRANSFER_ENCODING);
            session.set_keepalive(None);
        }
        Ok(())
    }

    fn upstream_response_body_filter(
        &self,
        session: &mut Session,
        body: &mut Option<Bytes>,
        end_of_stream: bool,
        context: &mut Context,
    ) -> Result<Option<Duration>> {
        if session.is_http2()
            && let Some(connection) = &context.connection
        {
            *body = body.take().map(|piece| connection.holding(piece)).transpose().map_err(|fault| {
                context.fault = Some(fault);
                answer::given_up()
            })?;
        }
        if end_of_stream {
            context.answer_is_complete();
        }
        Ok(None)
    }

    async fn fail_to_proxy(
        &self,
        session: &mut Session,
        error: &Error,
        context: &mut Context,
    ) -> FailToProxy {
        let of_stream = context.connection.as_ref().and_then(|connection| connection.stream_fault());
        if of_stream.is_none() && *error.esource() == ErrorSource::Downstream && context.is_answered() {
            // The answer came before the end of the body, and nothing else is wrong.
            return FailToProxy { error_code: 0, can_reuse_downstream: false };
        }
        let fault = context.fault.or(of_stream).unwrap_or_else(|| Fault::from_engine(error));
        context.fault = Some(fault);
        match fault.side() {
            Side::Upstream => {
                self.counters.upstream_error();
                let upstream = context.upstream().map_or("", |upstream| &upstream.config.name);
                tracing::warn!(%upstream, %fault, %error, "upstream failed");
            }
            Side::Internal => tracing::error!(%fault, %error, "request failed"),
            Side::Downstream => tracing::debug!(%fault, %error, "request ended early"),
        }
        // The engine ends the connection after any error, and the client should know.
        session.set_keepalive(None);
        // An answer that broke off must not look complete: then the stream is dropped, not finished.
        match answer::fault(session, fault, context.snapshot.extra_headers(context.route)).await {
            Ok(Some(status)) => FailToProxy { error_code: status.as_u16(), can_reuse_downstream: true },
            Ok(None) | Err(_) => FailToProxy { error_code: 0, can_reuse_downstream: false },
        }
    }

    async fn logging(&self, session: &mut Session, _error: Option<&Error>, context: &mut Context) {
        // Of answers of our own nobody else tells.
        let of_stream = context.connection.as_ref().and_then(|connection| connection.stream_fault());
        context.fault = context.fault.or(of_stream);
        let status = match (session.response_written(), context.fault) {
            (Some(header), _) => header.status.as_u16(),
            (None, Some(Fault::ClientGone | Fault::ClientNotTaking | Fault::StreamNotTaken)) => CLIENT_GONE,
            (None, _) => 0,
        };
        let microseconds = u64::try_from(context.started.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.counters.request(status, session.body_bytes_read(), session.body_bytes_sent(), microseconds);
        if let Some(fault) = context.fault {
            self.counters.fault(fault);
        }
        self.write_log(session, context, status);
        if let Some(connection) = &context.connection {
            connection.request_ends();
        }
    }

    /// We log ourselves, once, and not what a client can cause at will.
    fn suppress_error_log(&self, _session: &Session, _context: &Context, _error: &Error) -> bool {
        true
    }

    fn suppress_proxy_warn_log(
        &self,
        _session: &Session,
        _context: &Context,
        _error: &Error,
        _cause: ProxyWarnLogContext,
    ) -> bool {
        true
    }
}

/// `https://` and what was asked for. A host without port is asked on the usual port there too.
fn https_location(https_port: Option<u16>, admitted: &Admitted<'_>) -> String {
    let (host, path) = (admitted.host, admitted.path_and_query);
    match https_port {
        Some(port) if port != 443 && admitted.authority.len() > host.len() => {
            format!("https://{host}:{port}{path}")
        }
        Some(_) | None => format!("https://{host}{path}"),
    }
}

/// Whether the stream of an HTTP/2 request has been reset. While an upstream is connected the engine does not look.
async fn has_left(session: &mut Session) -> bool {
    let ServerSession::H2(stream) = session.as_downstream_mut() else { return false };
    poll_fn(|context| Poll::Ready(pin!(stream.idle()).poll(context).is_ready())).await
}

/// Host and port as received.
fn host_of(request: &RequestHeader) -> Cow<'_, str> {
    match request.uri.authority() {
        Some(authority) => authority.as_str().into(),
        None => request
            .headers
            .get(HOST)
            .map(HeaderValue::as_bytes)
            .map(String::from_utf8_lossy)
            .unwrap_or_default(),
    }
}

/// As nginx logs it.
const CLIENT_GONE: u16 = 499;
