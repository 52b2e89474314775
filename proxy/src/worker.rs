//! One worker: a thread with a single-threaded runtime, its own sockets, its own HTTP engine and its own pool of
//! upstream connections. All of them outlive the configuration, which reaches requests by way of the snapshot. Workers share
//! certificates and connection limits, and nothing that a request writes to.

mod places;

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher as _;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use accept::{BoundSocket, ConnectionLimits, Terms};
use pingora::apps::ServerApp as _;
use pingora::server::configuration::ServerConf;
use pingora_proxy::HttpProxy;
use tokio::runtime::Builder;
use tokio::sync::{mpsc, oneshot, watch};

use crate::access_log::Entry;
use crate::error::Fault;
use crate::listener::{ClientConnection, EdgeIo, Upload, close, serve_streams};
use crate::maintenance::Maintenance;
use crate::metrics::Counters;
use crate::phases::Phases;
use crate::snapshot::{Live, PlaceId, Snapshot};
use places::Places;

/// What a worker is made of.
#[derive(Debug)]
pub(crate) struct Worker {
    pub(crate) limits: Arc<ConnectionLimits>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) maintenance: Arc<Maintenance>,
    pub(crate) now: fn() -> SystemTime,
    pub(crate) orders: mpsc::Receiver<Order>,
    pub(crate) stop: watch::Receiver<bool>,
    /// Another process goes on where this one stops.
    pub(crate) has_successor: Arc<AtomicBool>,
}

/// What a worker is told.
#[derive(Debug)]
pub(crate) enum Order {
    /// Serve with this from now on.
    Switch(Box<Switch>),
    /// Say that you serve.
    Answer(oneshot::Sender<()>),
}

/// A configuration for one worker.
#[derive(Debug)]
pub(crate) struct Switch {
    pub(crate) snapshot: Arc<Snapshot>,
    /// Every place of the configuration.
    pub(crate) terms: Vec<(PlaceId, Terms)>,
    /// This worker's sockets of the places that are new.
    pub(crate) opened: Vec<(PlaceId, BoundSocket)>,
    /// Hears when every request that begins is served with it, and the sockets of places that are gone are closed.
    pub(crate) done: oneshot::Sender<()>,
}

impl Worker {
    /// Serves on the current thread until told to stop, and through the drain.
    ///
    /// # Errors
    /// When the runtime cannot be made, or does not take a socket of the `first` configuration.
    pub(crate) fn run(self, first: Switch) -> io::Result<()> {
        Builder::new_current_thread().enable_all().build()?.block_on(self.serve(first))
    }

    async fn serve(mut self, first: Switch) -> io::Result<()> {
        let hasher = RandomState::new();
        let run = hasher.hash_one("connections of this run");
        let live = Arc::new(Live::new(first.snapshot.clone()));
        let phases = Phases {
            live: live.clone(),
            counters: self.counters.clone(),
            maintenance: self.maintenance,
            // A new run of the program does not repeat the ids of the last.
            next_id: AtomicU64::new(hasher.hash_one("request id")),
            hasher,
            now: self.now,
        };
        let proxy = Arc::new(http_engine(phases));
        let engine = Engine { proxy, run, counters: self.counters, now: self.now };
        let mut places = Places::new(engine, live, self.limits);
        places.switch(first).await?;
        loop {
            tokio::select! {
                biased;
                // An error means that nobody can tell us to stop any more: that is a word to stop too.
                _ = self.stop.wait_for(|stop| *stop) => break,
                order = self.orders.recv() => match order {
                    None => break,
                    Some(Order::Switch(switch)) => {
                        if let Err(error) = places.switch(*switch).await {
                            tracing::error!(%error, "a socket is not served");
                        }
                    }
                    // Who asked may have lost patience.
                    Some(Order::Answer(answer)) => drop(answer.send(())),
                },
            }
        }
        drop(self.orders);
        places.end(self.has_successor.load(Ordering::Relaxed)).await;
        Ok(())
    }
}

/// What each connection needs.
#[derive(Clone)]
struct Engine {
    proxy: Arc<HttpProxy<Phases>>,
    /// A random number, one for all connections of this worker.
    run: u64,
    counters: Arc<Counters>,
    now: fn() -> SystemTime,
}

impl Engine {
    /// Speaks HTTP on a connection until its end.
    async fn connection(&self, io: accept::Io, connection: ClientConnection) {
        self.counters.connection();
        let connection = Arc::new(connection);
        let (place, limits) = (connection.place.clone(), connection.place.io_limits());
        let stream = EdgeIo::new(io, connection.clone(), limits);
        if connection.is_h2 {
            let (engine, cut_off) = (self.clone(), connection.clone());
            let cut = move |upload: &Upload, fault| engine.log_cut(&cut_off, upload, fault);
            let streams = place.snapshot().streams.clone();
            serve_streams(&self.proxy, stream, &connection, &streams, &place.stop, cut).await;
        } else {
            let mut stop = place.stop.clone();
            let mut process = self.proxy.process_new(Box::new(stream), &place.stop);
            let stopped = async { drop(stop.wait_for(|stop| *stop).await) };
            tokio::select! {
                biased;
                _ = &mut process => {}
                // Polled again now, a stream that waits for a request learns for how long.
                () = stopped => drop(process.await),
            }
        }
        if let Some(refusal) = connection.refusal() {
            self.counters.refused_head();
            self.counters.fault(refusal.fault);
            if let Some(log) = &place.snapshot().log {
                let unique_id = connection.unique_id().to_string();
                let entry = Entry {
                    method: &refusal.method,
                    path: &refusal.target,
                    status: refusal.status().as_u16(),
                    error: Some(&refusal.fault.to_string()),
                    ..unknown(&connection, &unique_id)
                };
                log.write(&entry, (self.now)());
            }
        }
        close(&connection, &limits).await;
    }

    /// Requests whose body came too slowly are dropped in the middle; they have a line in the access log all the same.
    fn log_cut(&self, connection: &ClientConnection, upload: &Upload, fault: Fault) {
        let status = upload.status().unwrap_or(REQUEST_TIMEOUT);
        self.counters.request(status, 0, 0, 0);
        self.counters.fault(fault);
        let Some(summary) = upload.summary.get() else { return };
        let Some(log) = &summary.log else { return };
        let unique_id = connection.unique_id().to_string();
        let entry = Entry {
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
            ..unknown(connection, &unique_id)
        };
        log.write(&entry, (self.now)());
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

fn http_engine(phases: Phases) -> HttpProxy<Phases> {
    let server = ServerConf {
        threads: 1,
        // More than the requests at a time, or connections are closed that the next request needs.
        upstream_keepalive_pool_size: POOL,
        max_retries: MAX_RETRIES,
        ..ServerConf::default()
    };
    pingora_proxy::http_proxy(&Arc::new(server), phases)
}

const REQUEST_TIMEOUT: u16 = 408;
/// A table of this size takes some hundred kilobytes per worker, and it cannot grow with `limits.max_connections` later.
const POOL: usize = 8192;
/// Above the number of addresses that are tried.
const MAX_RETRIES: usize = 10;
