//! What a worker serves requests with: everything that follows from one configuration. It is never changed, only replaced,
//! and a request takes it once: so no request sees two configurations, and an old one goes with its last request.

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use arc_swap::ArcSwap;
use http::HeaderMap;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::access_log::LogHandle;
use crate::listener::{IoLimits, StreamPolicy};
use crate::route::{RouteId, Router};
use crate::upstream::Upstream;

/// One configuration, as one worker needs it.
#[derive(Debug)]
pub(crate) struct Snapshot {
    pub(crate) config: Arc<conf::Edge>,
    pub(crate) router: Router,
    /// In the order of `edge.upstreams`.
    pub(crate) upstreams: Vec<Arc<Upstream>>,
    pub(crate) log: Option<LogHandle>,
    /// Port of the first TLS listener, for redirects from an unusual port.
    pub(crate) https_port: Option<u16>,
    pub(crate) io_limits: IoLimits,
    pub(crate) streams: Arc<StreamPolicy>,
    /// Of each place, in order, the index of its listener.
    places: Arc<[(PlaceId, usize)]>,
}

/// What all workers' snapshots of a configuration have in common.
#[derive(Debug, Clone)]
pub(crate) struct Common {
    pub(crate) config: Arc<conf::Edge>,
    pub(crate) https_port: Option<u16>,
    pub(crate) streams: Arc<StreamPolicy>,
    /// In order.
    pub(crate) places: Arc<[(PlaceId, usize)]>,
}

/// Name and path of an upstream whose Unix socket's path is too long for the system.
#[derive(Debug)]
pub(crate) struct TooLong(pub(crate) String, pub(crate) PathBuf);

impl Snapshot {
    /// With the upstreams of the `last` snapshot of the same worker where nothing changed: they know which servers failed,
    /// and what their names mean.
    ///
    /// # Errors
    /// An upstream cannot be used.
    pub(crate) fn new(common: Common, log: Option<LogHandle>, last: Option<&Self>) -> Result<Self, TooLong> {
        let Common { config, https_port, streams, places } = common;
        let upstream = |wanted: &Arc<conf::Upstream>| {
            let same = |known: &&Arc<Upstream>| known.is_for(wanted, &config.timeouts);
            match last.and_then(|last| last.upstreams.iter().find(same)) {
                Some(known) => Ok(known.clone()),
                None => Upstream::new(wanted.clone(), config.timeouts)
                    .map(Arc::new)
                    .map_err(|path| TooLong(wanted.name.clone(), path)),
            }
        };
        Ok(Self {
            upstreams: config.upstreams.iter().map(upstream).collect::<Result<_, _>>()?,
            router: Router::new(&config),
            io_limits: IoLimits::new(&config),
            config,
            log,
            https_port,
            streams,
            places,
        })
    }

    /// Fields of every answer that a route gives itself.
    pub(crate) fn extra_headers(&self, route: Option<RouteId>) -> Option<&HeaderMap> {
        self.router.get(route?).map(|route| &route.headers).filter(|headers| !headers.is_empty())
    }

    /// The index of the listener that a place belongs to; `None` when it belongs to none any more.
    pub(crate) fn listener(&self, place: PlaceId) -> Option<usize> {
        let at = self.places.binary_search_by_key(&place, |(id, _)| *id).ok()?;
        self.places.get(at).map(|(_, listener)| *listener)
    }
}

/// Where a worker's snapshot lies, for all of its connections.
#[derive(Debug)]
pub(crate) struct Live(ArcSwap<Snapshot>);

impl Live {
    pub(crate) fn new(snapshot: Arc<Snapshot>) -> Self {
        Self(ArcSwap::new(snapshot))
    }

    /// The snapshot in force.
    pub(crate) fn take(&self) -> Arc<Snapshot> {
        self.0.load_full()
    }

    /// Deadlines and sizes in force.
    pub(crate) fn io_limits(&self) -> IoLimits {
        self.0.load().io_limits
    }

    /// Puts another snapshot in force; returns the one before.
    pub(crate) fn replace(&self, snapshot: Arc<Snapshot>) -> Arc<Snapshot> {
        self.0.swap(snapshot)
    }
}

/// A socket, or a group of sockets, that is accepted from: the same one as long as its address stays in the configuration,
/// whatever its listener is called and does. Never given twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct PlaceId(pub(crate) u64);

/// A place on one worker, as its connections know it.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) id: PlaceId,
    /// True when connections have to end.
    pub(crate) stop: watch::Receiver<bool>,
    /// What may go on after `stop`.
    ending: OnceLock<Ending>,
    /// The last snapshot that knew this place, once it is gone.
    last: OnceLock<Arc<Snapshot>>,
    live: Arc<Live>,
}

/// A client that has just been let in is about to ask. Where the socket stays open, as systemd's do over a restart, it would not have
/// been refused a moment later either.
const FIRST_REQUEST: Duration = Duration::from_secs(2);

/// Until when connections may go on that have to end.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ending {
    /// Those that wait for another request.
    pub(crate) idle: Instant,
    /// Those that wait for their first.
    pub(crate) first: Instant,
    /// Requests in flight.
    pub(crate) requests: Instant,
    /// Tunnels.
    pub(crate) tunnels: Instant,
}

impl Place {
    pub(crate) fn new(id: PlaceId, stop: watch::Receiver<bool>, live: Arc<Live>) -> Self {
        Self { id, stop, ending: OnceLock::new(), last: OnceLock::new(), live }
    }

    /// What requests are served with once this place is gone: what still comes on its connections was meant for the
    /// configuration that it was part of.
    pub(crate) fn last(&self) -> Option<&Arc<Snapshot>> {
        self.last.get()
    }

    /// What a request that begins now is served with.
    pub(crate) fn snapshot(&self) -> Arc<Snapshot> {
        self.last().cloned().unwrap_or_else(|| self.live.take())
    }

    /// Deadlines and sizes for what begins now.
    pub(crate) fn io_limits(&self) -> IoLimits {
        self.last().map_or_else(|| self.live.io_limits(), |last| last.io_limits)
    }

    /// The configuration does not know this place any more.
    pub(crate) fn is_gone(&self, last: Arc<Snapshot>) {
        // Told once; a second word would say the same.
        let _ = self.last.set(last);
    }

    /// Everything ends: connections without a request after `idle`, the others as the configuration says. To be said before `stop`.
    pub(crate) fn end(&self, now: Instant, idle: Duration) {
        let timeouts = self.snapshot().config.timeouts;
        let ending = Ending {
            idle: now + idle.min(timeouts.drain),
            first: now + idle.max(FIRST_REQUEST).min(timeouts.drain),
            requests: now + timeouts.drain,
            tunnels: now + timeouts.tunnel_drain,
        };
        // Told once; a second word would come too late for those who have heard the first.
        let _ = self.ending.set(ending);
    }

    /// What may still go on; `None` while nothing ends.
    pub(crate) fn ending(&self) -> Option<Ending> {
        self.ending.get().copied()
    }
}
