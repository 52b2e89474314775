//! What one request has learnt so far. Every trust decision is in here once; nobody reads a header for it again.

use std::sync::Arc;
use std::time::{Duration, Instant};

use accept::ClientAddress;

use crate::error::Fault;
use crate::limits::BodyMeter;
use crate::listener::{ClientConnection, Upload};
use crate::route::RouteId;
use crate::snapshot::Snapshot;
use crate::upstream::{Tries, Upstream};

/// State of a request, from its head to its line in the access log.
#[derive(Debug)]
pub(crate) struct Context {
    /// All that is known of the configuration: taken once.
    pub(crate) snapshot: Arc<Snapshot>,
    /// Index of the listener in it.
    pub(crate) listener: Option<usize>,
    /// Unique within the process, and unlikely to come again.
    pub(crate) id: u64,
    pub(crate) started: Instant,
    /// Set first; `None` only if Pingora lost it.
    pub(crate) connection: Option<Arc<ClientConnection>>,
    /// The body of an HTTP/2 request that has one.
    pub(crate) upload: Option<Arc<Upload>>,
    /// Who asked, after all trust rules.
    pub(crate) client: ClientAddress,
    pub(crate) site: Option<usize>,
    pub(crate) route: Option<RouteId>,
    /// Index among `edge.upstreams`.
    pub(crate) upstream: Option<usize>,
    /// What the upstream gets in place of the target as received.
    pub(crate) target: Option<String>,
    pub(crate) tries: Tries,
    pub(crate) meter: BodyMeter,
    pub(crate) upstream_started: Option<Instant>,
    /// Interim answers (1xx) of the upstream.
    pub(crate) interim: u32,
    /// Until the head of the upstream's answer.
    pub(crate) upstream_time: Option<Duration>,
    /// What went wrong; the last word on it.
    pub(crate) fault: Option<Fault>,
}

impl Context {
    /// A request of which nothing is known.
    pub(crate) fn new(snapshot: Arc<Snapshot>, id: u64) -> Self {
        Self {
            snapshot,
            listener: None,
            id,
            started: Instant::now(),
            connection: None,
            upload: None,
            client: ClientAddress::UNKNOWN,
            site: None,
            route: None,
            upstream: None,
            target: None,
            tries: Tries::default(),
            meter: BodyMeter::new(0),
            upstream_started: None,
            interim: 0,
            upstream_time: None,
            fault: None,
        }
    }

    /// On which connection the request came, and with that on which listener.
    pub(crate) fn belongs_to(&mut self, connection: &Arc<ClientConnection>) {
        self.client = connection.facts.peer().ip().map_or(self.client, Into::into);
        if let Some(last) = connection.place.last() {
            self.snapshot = last.clone();
        }
        self.listener = self.snapshot.listener(connection.place.id);
        self.connection = Some(connection.clone());
    }

    /// The upstream that is asked, once it is known.
    pub(crate) fn upstream(&self) -> Option<&Arc<Upstream>> {
        self.snapshot.upstreams.get(self.upstream?)
    }

    /// The listener's name in the configuration.
    pub(crate) fn listener_name(&self) -> Option<&str> {
        Some(&self.snapshot.config.listeners.get(self.listener?)?.name)
    }

    /// The upstream's answer is complete.
    pub(crate) fn answer_is_complete(&self) {
        if let Some(connection) = &self.connection {
            connection.answer_is_complete();
        }
        if let Some(upload) = &self.upload {
            upload.answer();
        }
    }

    /// Whether the upstream's answer is complete, over HTTP/1.
    pub(crate) fn is_answered(&self) -> bool {
        self.connection.as_ref().is_some_and(|connection| connection.is_answered())
    }
}
