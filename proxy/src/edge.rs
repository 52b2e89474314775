//! The edge as a whole: sockets bound once, workers that serve them, one word to stop. It decides nothing about
//! requests; that is `phases`.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use accept::{Acceptor, BindError, Bound, BoundAddress, Change, ConnectionLimits, ProxyPolicy, Tickets};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;

use crate::access_log::AccessLog;
use crate::admin::{self, Admin};
use crate::maintenance::{Maintenance, StateFile, Watcher};
use crate::metrics::Counters;
use crate::upstream::Upstream;
use crate::worker::Worker;

/// The HTTP edge with its sockets bound.
#[derive(Debug)]
pub struct Edge {
    config: Arc<conf::Edge>,
    /// Sockets of each bind of each listener, with the listener's index.
    bound: Vec<(usize, Bound)>,
    admin: Vec<Bound>,
    state_file: Option<StateFile>,
}

/// Why the edge does not start, or ends.
#[derive(Debug, thiserror::Error)]
pub enum EdgeError {
    /// A listener has no socket.
    #[error("listener {listener} cannot be bound")]
    Bind {
        /// The listener's name.
        listener: String,
        /// Why.
        #[source]
        source: BindError,
    },
    /// The path of an upstream's Unix socket is longer than the system allows.
    #[error("upstream {upstream}: path {} is too long for a Unix socket", path.display())]
    UpstreamPath {
        /// The upstream's name.
        upstream: String,
        /// The path.
        path: PathBuf,
    },
    /// The access log cannot be opened.
    #[error("access log cannot be opened")]
    AccessLog(#[source] io::Error),
    /// A socket cannot be used, or a worker cannot be started.
    #[error("worker cannot start")]
    Worker(#[source] io::Error),
    /// A worker panicked.
    #[error("worker panicked")]
    Panic,
}

impl Edge {
    /// Binds all sockets in `change` and logs a `listening` line for each. Must be called within a runtime.
    ///
    /// # Errors
    /// [`EdgeError::Bind`] for the first listener that cannot be bound.
    pub async fn bind(config: Arc<conf::Edge>, change: &mut Change) -> Result<Self, EdgeError> {
        if cfg!(feature = "measure-without-gate") {
            tracing::error!(
                "built with measure-without-gate: malformed requests are not refused; for measuring only"
            );
        }
        let mut bound = Vec::new();
        for (index, listener) in config.listeners.iter().enumerate() {
            for socket in &listener.binds {
                bound.push((index, bind(change, &listener.name, socket, workers(&config)).await?));
            }
        }
        let mut admin = Vec::new();
        for socket in &config.admin {
            admin.push(bind(change, ADMIN, socket, 1).await?);
        }
        Ok(Self { config, bound, admin, state_file: None })
    }

    /// Name of the listener and actual address of every socket, in the order of the configuration; `admin` last.
    pub fn addresses(&self) -> Vec<(String, BoundAddress)> {
        let name =
            |index: usize| self.config.listeners.get(index).map_or("", |listener| &listener.name).to_owned();
        let public = self.bound.iter().map(|(index, bound)| (name(*index), bound.address.clone()));
        public.chain(self.admin.iter().map(|bound| (ADMIN.to_owned(), bound.address.clone()))).collect()
    }

    /// Lets maintenance mode be switched by this file; without it the mode is always off.
    #[must_use]
    pub fn with_maintenance(self, file: StateFile) -> Self {
        Self { state_file: Some(file), ..self }
    }

    /// Serves until `stop` is true, then lets requests in flight finish, for `timeouts.drain` at most.
    ///
    /// # Errors
    /// [`EdgeError`] when something cannot start, or a worker panics.
    pub async fn serve(self, stop: watch::Receiver<bool>) -> Result<(), EdgeError> {
        // The engine would choose another implementation of TLS towards upstreams; if somebody has chosen, so be it.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let count = workers(&self.config);
        let log = self.config.access_log.as_ref().map(|log| AccessLog::open(log, count)).transpose();
        let log = log.map_err(EdgeError::AccessLog)?;
        let (total, per_ip) = (self.config.limits.max_connections, self.config.limits.max_connections_per_ip);
        // A trusted proxy speaks for many clients.
        let limits =
            Arc::new(ConnectionLimits::exempting(total, per_ip, self.config.trusted_proxies.clone()));
        let counters: Vec<Arc<Counters>> = (0..count).map(|_| Arc::default()).collect();
        let maintenance = Arc::new(Maintenance::default());
        let mut tasks = JoinSet::new();
        if let Some(file) = self.state_file {
            // Before the first request: a restart does not end the mode for a moment.
            let watcher = Watcher::new(file, maintenance.clone()).look().await.ok_or(EdgeError::Panic)?;
            tasks.spawn(watcher.watch());
        }
        let admin = Arc::new(Admin {
            counters: counters.clone(),
            maintenance: maintenance.clone(),
            limits: limits.clone(),
            log: log.as_ref().map(|log| log.handle(0)),
            stop: stop.clone(),
        });
        for socket in self.admin.into_iter().flat_map(|bound| bound.sockets) {
            tasks.spawn(admin::serve(socket.into_listener().map_err(EdgeError::Worker)?, admin.clone()));
        }
        let acceptors = acceptors(&self.config);
        let https_port = https_port(&self.config, &self.bound);
        let mut sockets: Vec<Vec<_>> = (0..count).map(|_| Vec::new()).collect();
        for (index, bound) in self.bound {
            // There are more sockets than workers when a former process had more workers: each has a queue to be served.
            for (number, socket) in bound.sockets.into_iter().enumerate() {
                if let Some(sockets) = sockets.get_mut(number % count) {
                    sockets.push((index, socket));
                }
            }
        }
        let mut ends = Vec::new();
        for (number, sockets) in sockets.into_iter().enumerate() {
            let worker = Worker {
                upstreams: upstreams(&self.config)?,
                config: self.config.clone(),
                sockets,
                acceptors: acceptors.clone(),
                limits: limits.clone(),
                log: log.as_ref().map(|log| log.handle(number)),
                counters: counters.get(number).cloned().unwrap_or_default(),
                maintenance: maintenance.clone(),
                https_port,
                now: clock(),
                stop: stop.clone(),
            };
            ends.push(start(number, worker).map_err(EdgeError::Worker)?);
        }
        for end in ends {
            end.await.map_err(|_| EdgeError::Panic)?.map_err(EdgeError::Worker)?;
        }
        // Writes what is left; waiting for that must not hold up the runtime.
        let _ = tokio::task::spawn_blocking(move || drop(log)).await;
        Ok(())
    }
}

async fn bind(
    change: &mut Change,
    listener: &str,
    bind: &conf::Bind,
    sockets: usize,
) -> Result<Bound, EdgeError> {
    let failed = |source| EdgeError::Bind { listener: listener.to_owned(), source };
    let bound = change.bind(&format!("edge {listener}"), bind, sockets).await.map_err(failed)?;
    tracing::info!(%listener, address = %bound.address, "listening");
    Ok(bound)
}

fn workers(config: &conf::Edge) -> usize {
    config.threads.max(1)
}

/// One per listener, in order.
fn acceptors(config: &conf::Edge) -> Vec<Arc<Acceptor>> {
    // Clients of HTTP/1.0 may offer nothing else, and who agrees on nothing is sent away (RFC 7301 §3.2).
    let protocols: &[&[u8]] = &[b"h2", b"http/1.1", b"http/1.0"];
    let tls = config.tls.as_ref().map(|tls| accept::server_config(tls, protocols, &Tickets::new()).0);
    let acceptor = |listener: &conf::EdgeListener| Acceptor {
        listener: listener.name.as_str().into(),
        proxy: listener.proxy_protocol.clone().map_or(ProxyPolicy::Off, ProxyPolicy::From),
        tls: tls.clone().filter(|_| listener.tls),
        header: accept::HeaderBounds {
            deadline: config.timeouts.proxy_header,
            size: usize::try_from(config.limits.max_proxy_header_size.0).unwrap_or(usize::MAX),
        },
        handshake: config.timeouts.handshake,
    };
    config.listeners.iter().map(acceptor).map(Arc::new).collect()
}

fn upstreams(config: &conf::Edge) -> Result<Vec<Upstream>, EdgeError> {
    let upstream = |upstream: &Arc<conf::Upstream>| {
        let failed = |path| EdgeError::UpstreamPath { upstream: upstream.name.clone(), path };
        Upstream::new(upstream.clone(), config.timeouts).map_err(failed)
    };
    config.upstreams.iter().map(upstream).collect()
}

fn https_port(config: &conf::Edge, bound: &[(usize, Bound)]) -> Option<u16> {
    bound.iter().find_map(|(index, bound)| match (&bound.address, config.listeners.get(*index)?.tls) {
        (BoundAddress::Tcp(address), true) => Some(address.port()),
        (BoundAddress::Tcp(_) | BoundAddress::Unix(_), _) => None,
    })
}

/// Starts a worker's thread; the receiver hears of its end, or nothing if it panics.
fn start(number: usize, worker: Worker) -> io::Result<oneshot::Receiver<io::Result<()>>> {
    let (sender, end) = oneshot::channel();
    std::thread::Builder::new().name(format!("edge-{number}")).spawn(move || {
        // Nobody listens any more when another worker failed.
        let _ = sender.send(worker.run());
    })?;
    Ok(end)
}

#[expect(
    clippy::disallowed_methods,
    reason = "the one place where the edge takes the time of day, for its access log"
)]
fn clock() -> fn() -> SystemTime {
    SystemTime::now
}

/// Name of the admin sockets in logs.
const ADMIN: &str = "admin";
