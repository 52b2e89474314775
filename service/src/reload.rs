//! Another configuration while the service runs, in two steps: everything that can fail is prepared, and dropped if something does;
//! then it is put in force, which cannot fail. The start is the first of these changes.
//!
//! A request takes one generation of everything with it when its head is complete, and uses no other until it is answered.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use accept::descriptors::Share;
use accept::{BoundAddress, Change, ConnectionLimits, Tickets};
use tokio::sync::{Notify, OwnedMutexGuard, watch};

use crate::behind::Behind;
use crate::error::{Chain, ServiceError};
use crate::http::assets::Assets;
use crate::http::metrics::Traffic;
use crate::http::refusal::Pages;
use crate::listener;
use crate::listener::lines::Lines;
use crate::router::Shared;
use crate::state::{SharedState, State};
use crate::synapse;
use crate::tasks::Task;

/// Changes the configuration of a running service. Clones are the same service.
#[derive(Debug, Clone)]
pub struct ServiceHandle(pub(crate) Arc<Core>);

/// A new configuration that would work. Dropped without [`commit`](Self::commit), nothing has happened.
#[derive(Debug)]
#[must_use = "dropping it undoes everything"]
pub struct Prepared {
    core: Arc<Core>,
    current: OwnedMutexGuard<Generation>,
    state: SharedState,
    /// The work of a database that was not used before.
    behind: Option<Behind>,
    lines: Vec<listener::Prepared>,
    pending: Pending,
}

/// Counts a reload as refused when it is dropped, unless that is the first change: then there is nothing to go on with.
#[derive(Debug)]
struct Pending(Option<Arc<Traffic>>);

/// What outlives every configuration.
#[derive(Debug)]
pub(crate) struct Core {
    embedded: Arc<Assets>,
    traffic: Arc<Traffic>,
    limits: Arc<ConnectionLimits>,
    share: Share,
    tickets: Tickets,
    draining: Arc<AtomicBool>,
    current: Arc<tokio::sync::Mutex<Generation>>,
    lines: Mutex<Lines>,
    /// What whoever serves has to begin with; taken as soon as `begun` says so.
    work: Mutex<Vec<Work>>,
    begun: Notify,
    /// True when the last listener has drained.
    over: watch::Sender<bool>,
}

/// What whoever serves has to keep going.
#[derive(Debug)]
pub(crate) enum Work {
    /// Ends with the drain.
    Line(Task),
    /// Goes on until the last line has ended.
    Behind(Task),
}

/// What belongs to the configuration in force.
#[derive(Debug)]
pub(crate) struct Generation {
    pub(crate) state: SharedState,
    pub(crate) behind: Behind,
}

impl ServiceHandle {
    /// Makes everything that `config` asks for, without anybody noticing: opens and migrates a database that is not in use yet, reads or
    /// makes secrets below `data_dir`, binds in `change`, reads folders of assets. One at a time: a second one waits until the first is committed or
    /// dropped.
    ///
    /// # Errors
    /// Whatever would keep the service from working with it. Nothing has changed then, except that a database or a secret file that was
    /// not there may have been made.
    pub async fn prepare(
        &self,
        config: Arc<conf::Auth>,
        data_dir: &Path,
        change: &mut Change,
    ) -> Result<Prepared, ServiceError> {
        let current = self.0.current.clone().lock_owned().await;
        let state = current.state.next(config, data_dir).await?;
        prepare(self.0.clone(), current, state, change).await
    }

    /// Counts a reload that came to nothing before it was prepared, such as for a fault in a file.
    pub fn count_refused(&self) {
        self.0.traffic.reloads.refused();
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        if let Some(traffic) = &self.0 {
            traffic.reloads.refused();
        }
    }
}

/// Prepares the listeners for this state.
pub(crate) async fn prepare(
    core: Arc<Core>,
    current: OwnedMutexGuard<Generation>,
    state: SharedState,
    change: &mut Change,
) -> Result<Prepared, ServiceError> {
    let same_database = state.storage.is_same_database(&current.state.storage);
    let behind = (!same_database).then(|| Behind::new(&state));
    let watched = behind.as_ref().unwrap_or(&current.behind).watched(&state);
    let http = &state.config.http;
    let shared = Shared {
        pages: Arc::new(Pages::new(&state.config.matrix.homeserver, &http.public_base, &core.embedded)),
        traffic: core.traffic.clone(),
        embedded: core.embedded.clone(),
        draining: core.draining.clone(),
        state: watched,
    };
    let lines = listener::prepare(&shared, &core.tickets, change).await?;
    let pending = Pending((!core.traffic.reloads.is_first()).then(|| core.traffic.clone()));
    Ok(Prepared { core, current, state, behind, lines, pending })
}

impl Prepared {
    /// Name of the listener and actual address of every socket.
    pub fn addresses(&self) -> Vec<(String, BoundAddress)> {
        self.lines.iter().map(listener::Prepared::name).collect()
    }

    pub(crate) fn current(&self) -> &Generation {
        &self.current
    }

    /// Puts it in force. Requests that are being answered keep what they have begun with; connections go on, and use this with their next
    /// request; those of sockets that are not served any more drain. To be called inside the runtime of the service.
    pub fn commit(self) {
        let Self { core, mut current, state, behind, lines, mut pending } = self;
        if core.draining.load(Ordering::Relaxed) {
            tracing::warn!("the service is about to end, its configuration is not changed any more");
            return;
        }
        if pending.0.take().is_some() {
            core.traffic.reloads.applied();
        }
        core.traffic.reloads.in_force(state.clock.now().into());
        let http = &state.config.http;
        core.limits.change(
            core.share.affordable("http.limits.max_connections", http.limits.max_connections),
            http.limits.max_connections_per_ip,
            http.trusted_proxies.clone(),
        );
        core.traffic.expiries.replace(http.listeners.iter().filter_map(|listener| listener.tls.as_ref()));
        for line in core.lines().serve(lines) {
            core.keep_going(Work::Line(line));
        }
        match behind {
            None => current.behind.renew(&state),
            Some(behind) => {
                core.begin(&behind);
                let old = std::mem::replace(&mut current.behind, behind);
                core.keep_going(Work::Behind(old.retire(core.over.subscribe())));
            }
        }
        if !state.synapse.is_same(&current.state.synapse) {
            core.greet(&state);
        }
        current.state = state;
    }
}

impl Core {
    /// For a service that begins with this state.
    pub(crate) async fn new(state: SharedState) -> Result<Arc<Self>, ServiceError> {
        let embedded = Arc::new(Assets::embedded().await.map_err(ServiceError::Compress)?);
        // The bounds come with the first commit.
        let limits = Arc::new(ConnectionLimits::new(0, 0));
        let behind = Behind::new(&state);
        let core = Self {
            embedded,
            traffic: Arc::new(Traffic::new(limits.clone())),
            lines: Mutex::new(Lines::new(limits.clone())),
            limits,
            // Connections to the database and to Synapse are few, and kept.
            share: Share::new(1),
            tickets: Tickets::new(),
            draining: Arc::default(),
            current: Arc::new(tokio::sync::Mutex::new(Generation { state, behind })),
            work: Mutex::default(),
            begun: Notify::new(),
            over: watch::channel(false).0,
        };
        Ok(Arc::new(core))
    }

    /// What is in force, once no change is being prepared.
    pub(crate) async fn current(&self) -> OwnedMutexGuard<Generation> {
        self.current.clone().lock_owned().await
    }

    /// Begins the background work of a database.
    pub(crate) fn begin(&self, behind: &Behind) {
        self.keep_going(Work::Behind(behind.work(self.over.subscribe())));
    }

    /// Says in the log whether Synapse would work with us, before the first login finds out.
    pub(crate) fn greet(&self, state: &State) {
        let (synapse, mut over) = (state.synapse.hurried(), self.over.subscribe());
        self.keep_going(Work::Behind(Task::whenever(async move {
            tokio::select! {
                () = greet(synapse) => {}
                _ = over.wait_for(|over| *over) => {}
            }
        })));
    }

    /// Says every day, until everything is over, which certificates should have been renewed.
    pub(crate) fn remind(&self, state: &State) {
        let (traffic, clock, mut over) = (self.traffic.clone(), state.clock.clone(), self.over.subscribe());
        self.keep_going(Work::Behind(Task::whenever(async move {
            tokio::select! {
                () = traffic.expiries.remind(|| clock.now().into()) => {}
                _ = over.wait_for(|over| *over) => {}
            }
        })));
    }

    /// Accepts no more, and lets requests in flight finish. No change has an effect any more.
    pub(crate) fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
        self.lines().stop();
    }

    /// The last line has ended: ends the background work.
    pub(crate) fn end(&self) {
        self.limits.report();
        self.over.send_replace(true);
    }

    /// Waits for work that has to be begun with.
    pub(crate) async fn work(&self) -> Vec<Work> {
        self.begun.notified().await;
        self.take_work()
    }

    /// What has to be begun with now.
    pub(crate) fn take_work(&self) -> Vec<Work> {
        std::mem::take(&mut *self.work.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn keep_going(&self, work: Work) {
        self.work.lock().unwrap_or_else(PoisonError::into_inner).push(work);
        self.begun.notify_one();
    }

    fn lines(&self) -> MutexGuard<'_, Lines> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The state, as tests look at it.
#[cfg(test)]
impl ServiceHandle {
    pub(crate) async fn state(&self) -> SharedState {
        self.0.current().await.state.clone()
    }
}

async fn greet(synapse: synapse::Client) {
    match synapse.is_localpart_available("gatehouse").await {
        Ok(_) => tracing::info!("Synapse takes our secret"),
        // It may be started after us.
        Err(error @ synapse::Error::Unreachable(_)) => {
            tracing::info!(error = %Chain(&error), "Synapse does not answer yet; logins need it");
        }
        Err(error) => {
            tracing::error!(error = %Chain(&error), "Synapse does not work with us; logins will fail")
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
