//! The edge as a whole: bound once, one word to stop, and a handle by which its configuration is changed while it serves. It
//! decides nothing about requests; that is `phases`.

use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use accept::descriptors::Share;
use accept::{BindError, BoundAddress, Change, ConnectionLimits, Expiries, Reloads, Tickets};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::{Instant, timeout, timeout_at};

use crate::access_log::Logs;
use crate::admin::Admin;
use crate::maintenance::{Maintenance, StateFile, Watcher};
use crate::metrics::{Counters, Ended};
use crate::reload::{Core, PreparedEdge};
use crate::worker::{Order, Switch, Worker};

/// The HTTP edge with its sockets bound.
#[derive(Debug)]
pub struct Edge {
    core: Arc<Core>,
    first: PreparedEdge,
    workers: Vec<Worker>,
    maintenance: Arc<Maintenance>,
    state_file: Option<StateFile>,
}

/// Changes the configuration of an edge, also while it serves. Clones are the same edge.
#[derive(Debug, Clone)]
pub struct EdgeHandle(Arc<Core>);

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
    /// Binds all sockets in `change` and opens everything else that serving needs, with a `listening` line for each socket.
    /// Must be called within a runtime.
    ///
    /// # Errors
    /// [`EdgeError`] for the first that fails.
    pub async fn bind(config: Arc<conf::Edge>, change: &mut Change) -> Result<Self, EdgeError> {
        if cfg!(feature = "measure-without-gate") {
            tracing::error!(
                "built with measure-without-gate: malformed requests are not refused; for measuring only"
            );
        }
        let limits = Arc::new(ConnectionLimits::new(0, 0));
        let maintenance = Arc::new(Maintenance::default());
        let (stop, stopped) = watch::channel(false);
        let has_successor = Arc::new(AtomicBool::new(false));
        let (mut workers, mut orders, mut counters) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..config.threads.max(1) {
            let (order, taken) = mpsc::channel(1);
            let worker = Worker {
                limits: limits.clone(),
                counters: Arc::new(Counters::default()),
                maintenance: maintenance.clone(),
                now: clock(),
                orders: taken,
                stop: stopped.clone(),
                has_successor: has_successor.clone(),
            };
            counters.push(worker.counters.clone());
            orders.push(order);
            workers.push(worker);
        }
        let (logs, reloads) = (Arc::new(Logs::default()), Arc::new(Reloads::default()));
        let admin = Admin {
            counters,
            maintenance: maintenance.clone(),
            limits: limits.clone(),
            logs: logs.clone(),
            reloads: reloads.clone(),
            expiries: Expiries::default(),
            stop: stopped,
            has_successor: has_successor.clone(),
        };
        let core = Arc::new(Core {
            orders,
            limits,
            share: Share::new(DESCRIPTORS_EACH),
            logs,
            tickets: Tickets::new(),
            reloads,
            now: clock(),
            admin: Arc::new(admin),
            stop,
            has_successor,
            in_force: Arc::default(),
        });
        let first = core.prepare(config, change).await?;
        for (listener, address) in first.addresses() {
            tracing::info!(%listener, %address, "listening");
        }
        Ok(Self { core, first, workers, maintenance, state_file: None })
    }

    /// Name of the listener and actual address of every socket, in the order of the configuration; `admin` last.
    pub fn addresses(&self) -> Vec<(String, BoundAddress)> {
        self.first.addresses().to_vec()
    }

    /// Changes the configuration later.
    pub fn handle(&self) -> EdgeHandle {
        EdgeHandle(self.core.clone())
    }

    /// Lets maintenance mode be switched by this file; without it the mode is always off.
    #[must_use]
    pub fn with_maintenance(self, file: StateFile) -> Self {
        Self { state_file: Some(file), ..self }
    }

    /// Serves until `stop` is true, then lets requests in flight finish, for `timeouts.drain` at most. The [`Change`] that it was
    /// bound in has to be committed before.
    ///
    /// # Errors
    /// [`EdgeError`] when something cannot start, or a worker panics.
    pub async fn serve(self, mut stop: watch::Receiver<bool>) -> Result<(), EdgeError> {
        let Self { core, mut first, workers, maintenance, state_file } = self;
        // The engine would choose another implementation of TLS towards upstreams; if somebody has chosen, so be it.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let mut tasks = JoinSet::new();
        if let Some(file) = state_file {
            // Before the first request: a restart does not end the mode for a moment.
            let watcher = Watcher::new(file, maintenance).look().await.ok_or(EdgeError::Panic)?;
            tasks.spawn(watcher.watch());
        }
        let reminding = core.admin.clone();
        tasks.spawn(async move { reminding.expiries.remind(clock()).await });
        let mut ends = Vec::new();
        let switches = first.take_switches();
        first.conclude();
        for (number, (worker, switch)) in workers.into_iter().zip(switches).enumerate() {
            ends.push(start(number, worker, switch).map_err(EdgeError::Worker)?);
        }
        let (stopping, at_stop) = (core.clone(), Arc::new(OnceLock::new()));
        let before = at_stop.clone();
        tasks.spawn(async move {
            // An error means that nobody can tell us to stop any more: that is a word to stop too.
            let _ = stop.wait_for(|stop| *stop).await;
            // Nobody else sets it.
            let _ = before.set(stopping.ended());
            stopping.stop.send_replace(true);
            if stopping.has_successor.load(Ordering::Relaxed) {
                // Whoever asks how we are means the process that goes on, which has the same sockets.
                stopping.in_force.lock().await.leave_admin();
            }
        });
        for end in ends {
            end.await.map_err(|_| EdgeError::Panic)?.map_err(EdgeError::Worker)?;
        }
        if let Some(at_stop) = at_stop.get() {
            log_drain(core.ended() - *at_stop);
        }
        // The admin sockets end with what was in force, and the log writes what is left.
        if let Ok(mut in_force) = timeout(ENDING, core.in_force.lock()).await {
            *in_force = Default::default();
        }
        core.limits.report();
        let logs = core.logs.clone();
        let _ = spawn_blocking(move || logs.finish(ENDING)).await;
        Ok(())
    }
}

impl EdgeHandle {
    /// Opens, binds and checks everything that another configuration needs. Nobody notices; when the result is dropped, all
    /// is as before. Waits while another change is prepared or committed.
    ///
    /// # Errors
    /// [`EdgeError`] for the first that fails.
    pub async fn prepare(
        &self,
        config: Arc<conf::Edge>,
        change: &mut Change,
    ) -> Result<PreparedEdge, EdgeError> {
        let prepared = self.0.prepare(config, change).await;
        if prepared.is_err() {
            self.count_refused();
        }
        prepared
    }

    /// Waits until every worker has answered, from within its loop. One that drains has nothing to say and is not waited for.
    ///
    /// # Errors
    /// Workers that do not answer within `patience`, by their number.
    pub async fn answers(&self, patience: Duration) -> Result<(), Vec<usize>> {
        let deadline = Instant::now() + patience;
        let mut asked = Vec::new();
        for (number, orders) in self.0.orders.iter().enumerate() {
            let (answer, answered) = oneshot::channel();
            asked.push((
                number,
                answered,
                timeout_at(deadline, orders.send(Order::Answer(answer))).await.is_err(),
            ));
        }
        let mut silent = Vec::new();
        for (number, answered, is_silent) in asked {
            if is_silent || timeout_at(deadline, answered).await.is_err() {
                silent.push(number);
            }
        }
        if silent.is_empty() { Ok(()) } else { Err(silent) }
    }

    /// Counts a reload that came to nothing before [`prepare`](Self::prepare), such as for a fault in a file.
    pub fn count_refused(&self) {
        self.0.reloads.refused();
    }

    /// Says that another process has the sockets: when this one stops, clients may send one more request on connections that
    /// wait for one, as they would on those of a listener that is gone, and the admin sockets are left to the other at once.
    pub fn has_successor(&self) {
        self.0.has_successor.store(true, Ordering::Relaxed);
    }
}

fn log_drain(drained: Ended) {
    let Ended { requests, tunnels, requests_cut_off, tunnels_cut_off, connections_closed } = drained;
    tracing::info!(requests, tunnels, requests_cut_off, tunnels_cut_off, connections_closed, "drained");
}

/// Starts a worker's thread; the receiver hears of its end, or nothing if it panics.
fn start(number: usize, worker: Worker, first: Switch) -> io::Result<oneshot::Receiver<io::Result<()>>> {
    let (sender, end) = oneshot::channel();
    std::thread::Builder::new().name(format!("edge-{number}")).spawn(move || {
        // Nobody listens any more when another worker failed.
        let _ = sender.send(worker.run(first));
    })?;
    Ok(end)
}

#[expect(
    clippy::disallowed_methods,
    reason = "the one place where the edge takes the time of day, for its access log and for metrics"
)]
fn clock() -> fn() -> SystemTime {
    SystemTime::now
}

/// For what is left to do when nothing is served any more.
const ENDING: Duration = Duration::from_secs(5);
/// The client's, the upstream's, and one more of an upstream that waits for its next request.
const DESCRIPTORS_EACH: usize = 3;
