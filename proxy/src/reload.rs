//! One configuration in the place of another, in two steps. *Prepare* does all that can fail, and nothing that anybody could
//! notice; *commit* cannot fail. The first configuration comes the same way. What is decided about requests is not here.

mod places;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, SystemTime};

use accept::descriptors::Share;
use accept::{Bound, BoundAddress, BoundSocket, Change, ConnectionLimits, Reloads, Tickets};
use tokio::sync::{Mutex, OwnedMutexGuard, mpsc, oneshot, watch};
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::timeout;

use crate::access_log::{AccessLog, Logs, Reopened};
use crate::admin::{self, Admin};
use crate::edge::EdgeError;
use crate::listener::StreamPolicy;
use crate::metrics::Ended;
use crate::snapshot::{Common, Snapshot, TooLong};
use crate::worker::{Order, Switch};
use places::{Key, Places};

/// What of an edge outlives its configurations.
#[derive(Debug)]
pub(crate) struct Core {
    /// One per worker.
    pub(crate) orders: Vec<mpsc::Sender<Order>>,
    pub(crate) limits: Arc<ConnectionLimits>,
    /// Of the process's file descriptors.
    pub(crate) share: Share,
    pub(crate) logs: Arc<Logs>,
    pub(crate) tickets: Tickets,
    pub(crate) reloads: Arc<Reloads>,
    pub(crate) now: fn() -> SystemTime,
    pub(crate) admin: Arc<Admin>,
    pub(crate) stop: watch::Sender<bool>,
    /// Another process goes on where this one stops.
    pub(crate) has_successor: Arc<AtomicBool>,
    /// Locked from the beginning of a change to its end: one at a time.
    pub(crate) in_force: Arc<Mutex<InForce>>,
}

/// What follows from the configuration in force.
#[derive(Debug, Default)]
pub(crate) struct InForce {
    places: Places,
    log: Option<Arc<AccessLog>>,
    /// One per worker.
    snapshots: Vec<Arc<Snapshot>>,
    /// The admin sockets, each with its accept loops.
    admin: Vec<(Key, JoinSet<()>)>,
}

/// A configuration that can be put in force. Dropped without [`commit`](Self::commit), everything stays as it is.
#[derive(Debug)]
#[must_use = "nothing changes without a commit"]
pub struct PreparedEdge {
    core: Arc<Core>,
    in_force: OwnedMutexGuard<InForce>,
    config: Arc<conf::Edge>,
    places: Places,
    /// Without sockets: served already.
    admin: Vec<(Key, Vec<BoundSocket>)>,
    addresses: Vec<(String, BoundAddress)>,
    log: Option<Arc<AccessLog>>,
    reopened: Option<Reopened>,
    snapshots: Vec<Arc<Snapshot>>,
    /// One per worker.
    switches: Vec<Switch>,
    /// Heard from each worker when it has switched.
    switched: Vec<oneshot::Receiver<()>>,
    is_committed: bool,
}

impl InForce {
    /// Closes the admin sockets.
    pub(crate) fn leave_admin(&mut self) {
        self.admin.clear();
    }
}

impl Core {
    /// What has ended so far.
    pub(crate) fn ended(&self) -> Ended {
        Ended::now(&self.admin.counters, &self.limits)
    }

    /// Everything that can fail about a configuration.
    ///
    /// # Errors
    /// [`EdgeError`] for the first that does.
    pub(crate) async fn prepare(
        self: &Arc<Self>,
        config: Arc<conf::Edge>,
        change: &mut Change,
    ) -> Result<PreparedEdge, EdgeError> {
        let in_force = self.in_force.clone().lock_owned().await;
        let count = self.orders.len();
        let (mut places, mut opened) = (Places::following(&in_force.places), Vec::new());
        for (index, listener) in config.listeners.iter().enumerate() {
            for socket in &listener.binds {
                let bound = bind(change, &listener.name, socket, count).await?;
                let of = (index, listener.name.as_str());
                opened.extend(places.add(&in_force.places, socket, bound, of));
            }
        }
        let named = |(name, address): (&str, &BoundAddress)| (name.to_owned(), address.clone());
        let mut addresses: Vec<_> = places.addresses().map(named).collect();
        let mut admin = Vec::new();
        for socket in &config.admin {
            let Bound { address, mut sockets, .. } = bind(change, ADMIN, socket, 1).await?;
            let key = Key::of(socket, &address);
            if in_force.admin.iter().any(|(known, _)| *known == key) {
                sockets.clear();
            }
            admin.push((key, sockets));
            addresses.push((ADMIN.to_owned(), address));
        }
        let (log, reopened) = self.log(&in_force, &config).await?;
        let common = Common {
            https_port: places.https_port(&config),
            streams: Arc::new(StreamPolicy::new(&config)),
            places: places.listeners(),
            config: config.clone(),
        };
        let (mut snapshots, mut switches, mut switched) = (Vec::new(), Vec::new(), Vec::new());
        let terms = places.terms(&config, &self.tickets);
        for worker in 0..count {
            let last = in_force.snapshots.get(worker).map(Arc::as_ref);
            let log = log.as_ref().map(|log| log.handle(worker));
            let snapshot = Snapshot::new(common.clone(), log, last)
                .map_err(|TooLong(upstream, path)| EdgeError::UpstreamPath { upstream, path })?;
            let snapshot = Arc::new(snapshot);
            let (done, heard) = oneshot::channel();
            snapshots.push(snapshot.clone());
            switches.push(Switch { snapshot, terms: terms.clone(), opened: Vec::new(), done });
            switched.push(heard);
        }
        for (id, sockets) in opened {
            // There may be more sockets than workers: each of them has a queue to be served.
            for (number, socket) in sockets.into_iter().enumerate() {
                if let Some(switch) = switches.get_mut(number % count) {
                    switch.opened.push((id, socket));
                }
            }
        }
        Ok(PreparedEdge {
            core: self.clone(),
            in_force,
            config,
            places,
            admin,
            addresses,
            log,
            reopened,
            snapshots,
            switches,
            switched,
            is_committed: false,
        })
    }

    /// The log, and when it is the one that is written to already, its target opened again.
    async fn log(
        &self,
        in_force: &InForce,
        config: &conf::Edge,
    ) -> Result<(Option<Arc<AccessLog>>, Option<Reopened>), EdgeError> {
        let Some(wanted) = config.access_log.clone() else { return Ok((None, None)) };
        let (current, logs, count) = (in_force.log.clone(), self.logs.clone(), self.orders.len());
        // A disk may let us wait.
        let opening = spawn_blocking(move || match current.filter(|current| current.is_for(&wanted)) {
            Some(current) => current.reopen().map(|reopened| (Some(current), Some(reopened))),
            None => logs.open(&wanted, count).map(|log| (Some(Arc::new(log)), None)),
        });
        opening.await.map_err(|_| EdgeError::Panic)?.map_err(EdgeError::AccessLog)
    }
}

impl PreparedEdge {
    /// Name of the listener and actual address of every socket, in the order of the configuration; `admin` last.
    pub fn addresses(&self) -> &[(String, BoundAddress)] {
        &self.addresses
    }

    /// Puts the configuration in force: when this returns, every request that begins is served with it, new listeners accept, and
    /// those that are gone don't. The [`Change`] that the sockets are from has to be committed before. A worker
    /// that does not answer for 10 s is not waited for.
    pub async fn commit(mut self) {
        let (switches, switched) = (std::mem::take(&mut self.switches), std::mem::take(&mut self.switched));
        let orders = self.core.orders.clone();
        let switching = async {
            for (order, switch) in orders.iter().zip(switches) {
                // A worker that has ended serves nobody with anything.
                let _ = order.send(Order::Switch(Box::new(switch))).await;
            }
            for switched in switched {
                let _ = switched.await;
            }
        };
        if timeout(SWITCHING, switching).await.is_err() {
            tracing::error!("a worker does not take the new configuration in time");
        }
        for (listener, address) in self.places.without(&self.in_force.places) {
            tracing::info!(%listener, %address, "listening");
        }
        for (listener, address) in self.in_force.places.without(&self.places) {
            tracing::info!(%listener, %address, "not listening any more");
        }
        if self.config.threads.max(1) != self.core.orders.len() {
            tracing::warn!(
                threads = self.core.orders.len(),
                configured = self.config.threads,
                "the number of threads cannot be changed by a reload: use `gatehouse upgrade`, or restart"
            );
        }
        self.core.reloads.applied();
        self.conclude();
    }

    /// What each worker begins with.
    pub(crate) fn take_switches(&mut self) -> Vec<Switch> {
        std::mem::take(&mut self.switches)
    }

    /// What is left to do when the workers have their part.
    pub(crate) fn conclude(mut self) {
        let (limits, core) = (self.config.limits, self.core.clone());
        // A trusted proxy speaks for many clients.
        let exempt = self.config.trusted_proxies.clone();
        let total = core.share.affordable("edge.limits.max_connections", limits.max_connections);
        core.limits.change(total, limits.max_connections_per_ip, exempt);
        core.admin.expiries.replace(self.config.tls.iter().flat_map(|tls| &tls.certificates));
        if let (Some(log), Some(reopened)) = (&self.log, self.reopened.take()) {
            log.switch(reopened);
        }
        let mut before = std::mem::take(&mut self.in_force.admin);
        for (key, sockets) in std::mem::take(&mut self.admin) {
            let known = before.iter().position(|(known, _)| *known == key);
            let mut loops = known.map(|known| before.swap_remove(known).1).unwrap_or_default();
            for socket in sockets {
                match socket.into_listener() {
                    Ok(listener) => drop(loops.spawn(admin::serve(listener, core.admin.clone()))),
                    Err(error) => tracing::error!(%error, "an admin socket is not served"),
                }
            }
            self.in_force.admin.push((key, loops));
        }
        self.in_force.places = std::mem::take(&mut self.places);
        self.in_force.log = self.log.take();
        self.in_force.snapshots = std::mem::take(&mut self.snapshots);
        core.reloads.in_force((core.now)());
        self.is_committed = true;
    }
}

impl Drop for PreparedEdge {
    fn drop(&mut self) {
        if !self.is_committed {
            self.core.reloads.refused();
        }
    }
}

async fn bind(
    change: &mut Change,
    listener: &str,
    bind: &conf::Bind,
    sockets: usize,
) -> Result<Bound, EdgeError> {
    let failed = |source| EdgeError::Bind { listener: listener.to_owned(), source };
    change.bind(&format!("edge {listener}"), bind, sockets).await.map_err(failed)
}

/// Name of the admin sockets in logs.
const ADMIN: &str = "admin";
/// Workers wait for nothing but what is asked of them here.
const SWITCHING: Duration = Duration::from_secs(10);
