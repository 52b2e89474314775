//! One worker: a thread with a single-threaded runtime, its own sockets, its own HTTP engine and its own pool of
//! upstream connections. Workers share configuration, certificates and connection limits, and nothing that a request
//! writes to.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher as _;
use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, SystemTime};

use accept::{Acceptor, BoundSocket, ConnectionLimits, Terms};
use pingora::apps::{HttpServerApp as _, ServerApp as _};
use pingora::protocols::http::v2::server::{H2Options, default_h2_options};
use pingora::server::configuration::ServerConf;
use pingora_proxy::HttpProxy;
use tokio::runtime::Builder;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::access_log::{Entry, LogHandle};
use crate::error::Fault;
use crate::listener::{ClientConnection, EdgeIo, IoLimits, StreamPolicy, Upload, close, serve_streams};
use crate::maintenance::Maintenance;
use crate::metrics::Counters;
use crate::phases::Phases;
use crate::route::Router;
use crate::upstream::Upstream;

/// What a worker is made of.
pub(crate) struct Worker {
    pub(crate) config: Arc<conf::Edge>,
    /// Sockets with the index of their listener.
    pub(crate) sockets: Vec<(usize, BoundSocket)>,
    /// One per listener.
    pub(crate) acceptors: Vec<Arc<Acceptor>>,
    pub(crate) limits: Arc<ConnectionLimits>,
    pub(crate) upstreams: Vec<Upstream>,
    pub(crate) log: Option<LogHandle>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) maintenance: Arc<Maintenance>,
    pub(crate) https_port: Option<u16>,
    pub(crate) now: fn() -> SystemTime,
    pub(crate) stop: watch::Receiver<bool>,
}

impl Worker {
    /// Serves on the current thread until told to stop, and through the drain.
    ///
    /// # Errors
    /// When the runtime cannot be made, or does not take a socket.
    pub(crate) fn run(self) -> io::Result<()> {
        Builder::new_current_thread().enable_all().build()?.block_on(self.serve())
    }

    async fn serve(self) -> io::Result<()> {
        let (drain, io_limits) = (self.config.timeouts.drain, IoLimits::new(&self.config));
        let hasher = RandomState::new();
        let run = hasher.hash_one("connections of this run");
        let phases = Phases {
            router: Router::new(&self.config),
            upstreams: self.upstreams,
            log: self.log.clone(),
            counters: self.counters.clone(),
            maintenance: self.maintenance,
            // A new run of the program does not repeat the ids of the last.
            next_id: AtomicU64::new(hasher.hash_one("request id")),
            hasher,
            https_port: self.https_port,
            now: self.now,
            config: self.config.clone(),
        };
        let engine = Engine {
            proxy: Arc::new(http_engine(&self.config, phases)),
            stop: self.stop.clone(),
            io_limits,
            streams: Arc::new(StreamPolicy {
                options: h2_options(&self.config),
                idle: self.config.timeouts.idle,
                body: io_limits.body,
            }),
            counters: self.counters,
            log: self.log,
            now: self.now,
        };
        let mut listeners = JoinSet::new();
        for (index, socket) in self.sockets {
            let Some(acceptor) = self.acceptors.get(index).cloned() else { continue };
            let engine = engine.clone();
            let handle = move |io, facts| {
                let engine = engine.clone();
                let counters = engine.counters.clone();
                async move { engine.connection(io, ClientConnection::new(facts, index, run, counters)).await }
            };
            let (_, terms) = watch::channel(Terms { acceptor, drain });
            listeners.spawn(accept::serve(
                vec![socket.into_listener()?],
                terms,
                self.limits.clone(),
                self.stop.clone(),
                handle,
            ));
        }
        let mut stop = self.stop;
        // An error means that nobody can tell us to stop any more: that is a word to stop too.
        let _ = stop.wait_for(|stop| *stop).await;
        // Idle connections wait inside the engine.
        engine.proxy.http_cleanup().await;
        listeners.join_all().await;
        Ok(())
    }
}

/// What each connection needs.
#[derive(Clone)]
struct Engine {
    proxy: Arc<HttpProxy<Phases>>,
    stop: watch::Receiver<bool>,
    io_limits: IoLimits,
    streams: Arc<StreamPolicy>,
    counters: Arc<Counters>,
    log: Option<LogHandle>,
    now: fn() -> SystemTime,
}

impl Engine {
    /// Speaks HTTP on a connection until its end.
    async fn connection(&self, io: accept::Io, connection: ClientConnection) {
        self.counters.connection();
        let connection = Arc::new(connection);
        let stream = EdgeIo::new(io, connection.clone(), self.io_limits);
        if connection.is_h2 {
            let (engine, cut_off) = (self.clone(), connection.clone());
            let cut = move |upload: &Upload, fault| engine.log_cut(&cut_off, upload, fault);
            serve_streams(&self.proxy, stream, &self.streams, &self.stop, cut).await;
        } else {
            self.proxy.process_new(Box::new(stream), &self.stop).await;
        }
        if let Some(refusal) = connection.refusal() {
            self.counters.refused_head();
            self.counters.fault(refusal.fault);
            self.log(&Entry {
                method: &refusal.method,
                path: &refusal.target,
                status: refusal.status().as_u16(),
                error: Some(&refusal.fault.to_string()),
                ..unknown(&connection, &connection.unique_id().to_string())
            });
        }
        close(&connection, &self.io_limits).await;
    }

    /// Requests whose body came too slowly are dropped in the middle; they have a line in the access log all the same.
    fn log_cut(&self, connection: &ClientConnection, upload: &Upload, fault: Fault) {
        let status = upload.status().unwrap_or(REQUEST_TIMEOUT);
        self.counters.request(status, 0, 0, 0);
        self.counters.fault(fault);
        let Some(summary) = upload.summary.get() else { return };
        self.log(&Entry {
            id: summary.id,
            client: summary.client,
            protocol: http::Version::HTTP_2,
            method: &summary.method,
            host: &summary.host,
            path: &summary.path,
            site: summary.site.as_deref(),
            route: summary.route.as_deref(),
            upstream: summary.upstream.as_deref(),
            status,
            error: Some(&fault.to_string()),
            ..unknown(connection, &connection.unique_id().to_string())
        });
    }

    fn log(&self, entry: &Entry<'_>) {
        if let Some(log) = &self.log {
            log.write(entry, (self.now)());
        }
    }
}

/// A line about a connection of whose request nothing is known.
fn unknown<'a>(connection: &'a ClientConnection, unique_id: &'a str) -> Entry<'a> {
    let facts = &connection.facts;
    Entry {
        id: 0,
        client: facts.peer().ip().map_or(accept::ClientAddress::UNKNOWN, Into::into),
        listener: &facts.listener,
        protocol: http::Version::HTTP_11,
        tls: facts.tls.as_ref().map(|tls| tls.version),
        method: "-",
        host: "",
        path: "-",
        site: None,
        route: None,
        upstream: None,
        status: 0,
        bytes_in: 0,
        bytes_out: 0,
        duration: Duration::ZERO,
        upstream_time: None,
        error: None,
        connection: unique_id,
        referer: "",
        user_agent: "",
    }
}

fn http_engine(config: &conf::Edge, phases: Phases) -> HttpProxy<Phases> {
    let server = ServerConf {
        threads: 1,
        // More than the requests at a time, or connections are closed that the next request needs.
        upstream_keepalive_pool_size: config.limits.max_connections.clamp(MIN_POOL, MAX_POOL),
        max_retries: MAX_RETRIES,
        ..ServerConf::default()
    };
    pingora_proxy::http_proxy(&Arc::new(server), phases)
}

fn h2_options(config: &conf::Edge) -> H2Options {
    let mut options = default_h2_options();
    options
        .max_header_list_size(u32::try_from(config.limits.max_header_size.0).unwrap_or(u32::MAX))
        .max_concurrent_streams(H2_STREAMS)
        .initial_window_size(H2_STREAM_WINDOW)
        .initial_connection_window_size(H2_CONNECTION_WINDOW);
    options
}

const REQUEST_TIMEOUT: u16 = 408;
const MIN_POOL: usize = 128;
/// A table of this size takes some hundred kilobytes per worker.
const MAX_POOL: usize = 8192;
/// Above the number of addresses that are tried.
const MAX_RETRIES: usize = 10;
/// As nginx's `http2_max_concurrent_streams`.
const H2_STREAMS: u32 = 128;
/// What one upload may have under way: fast enough over long distances.
const H2_STREAM_WINDOW: u32 = 512 * 1024;
/// What all uploads of a connection may have under way; bounds the memory of a connection.
const H2_CONNECTION_WINDOW: u32 = 1024 * 1024;
