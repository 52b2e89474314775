//! The places at which a worker accepts connections: opened, changed and closed while it runs. Of a place that is gone the
//! connections end as they do when the program ends, and nobody else notices.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use accept::{ConnectionLimits, Listener, Terms};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use super::{Engine, Switch};
use crate::listener::ClientConnection;
use crate::snapshot::{Live, Place, PlaceId};

/// All places of a worker.
pub(super) struct Places {
    engine: Engine,
    live: Arc<Live>,
    limits: Arc<ConnectionLimits>,
    open: HashMap<PlaceId, Open>,
    /// Accept loops and what they leave behind, of places that are gone too.
    tasks: JoinSet<()>,
}

/// A place that is accepted at.
struct Open {
    place: Arc<Place>,
    stop: watch::Sender<bool>,
    terms: watch::Sender<Terms>,
    /// Hears when its sockets are closed.
    closed: oneshot::Receiver<()>,
}

impl Places {
    pub(super) fn new(engine: Engine, live: Arc<Live>, limits: Arc<ConnectionLimits>) -> Self {
        Self { engine, live, limits, open: HashMap::new(), tasks: JoinSet::new() }
    }

    /// Serves another configuration: in one step for whoever looks, for nothing is waited for before it is done.
    ///
    /// # Errors
    /// The last socket that the runtime did not take. The others are served.
    pub(super) async fn switch(&mut self, switch: Switch) -> io::Result<()> {
        // Of loops that ended long ago.
        while self.tasks.try_join_next().is_some() {}
        let Switch { snapshot, terms, mut opened, done } = switch;
        let before = self.live.replace(snapshot);
        let is_gone = |id: &PlaceId| !terms.iter().any(|(kept, _)| kept == id);
        let gone: Vec<_> = self.open.extract_if(|id, _| is_gone(id)).collect();
        let mut closed = Vec::new();
        for (_, open) in gone {
            open.place.is_gone(before.clone());
            open.place.end(Instant::now(), LAST_REQUEST);
            open.stop.send_replace(true);
            closed.push(open.closed);
        }
        drop(before);
        let mut outcome = Ok(());
        for (id, terms) in terms {
            match self.open.get(&id) {
                Some(open) => drop(open.terms.send_replace(terms)),
                None => {
                    let sockets = opened.extract_if(.., |(of, _)| *of == id);
                    let sockets: io::Result<Vec<_>> =
                        sockets.map(|(_, socket)| socket.into_listener()).collect();
                    outcome = sockets.map(|sockets| self.open(id, sockets, terms)).and(outcome);
                }
            }
        }
        let all_closed = async {
            for closed in closed {
                let _ = closed.await;
            }
        };
        if timeout(CLOSING, all_closed).await.is_err() {
            tracing::warn!("a socket of a listener that is gone is not closed yet");
        }
        // Who asked may have stopped waiting.
        let _ = done.send(());
        outcome
    }

    /// Ends all places, and returns when the last connection has ended or is cut off. With a `successor` the clients
    /// can go on, so that nobody is hurried away who might be asking just now.
    pub(super) async fn end(mut self, has_successor: bool) {
        let idle = if has_successor { LAST_REQUEST } else { Duration::ZERO };
        for open in self.open.values() {
            open.place.end(Instant::now(), idle);
            open.stop.send_replace(true);
        }
        while let Some(ended) = self.tasks.join_next().await {
            if let Err(error) = ended {
                tracing::error!(%error, "an accept loop panicked");
            }
        }
    }

    fn open(&mut self, id: PlaceId, sockets: Vec<Listener>, terms: Terms) {
        let (stop, stopped) = watch::channel(false);
        let (terms, agreed) = watch::channel(terms);
        let (closing, closed) = oneshot::channel();
        let place = Arc::new(Place::new(id, stopped.clone(), self.live.clone()));
        let (engine, accepted_at) = (self.engine.clone(), place.clone());
        let handle = move |io, facts| {
            let (engine, place) = (engine.clone(), accepted_at.clone());
            let connection = ClientConnection::new(facts, place, engine.run, engine.counters.clone());
            async move { engine.connection(io, connection).await }
        };
        let limits = self.limits.clone();
        self.tasks.spawn(async move {
            let draining = accept::accept(sockets, agreed, limits, stopped, handle).await;
            let _ = closing.send(());
            draining.finish().await;
        });
        self.open.insert(id, Open { place, stop, terms, closed });
    }
}

/// A client that has a connection open may be sending a request while we close it, and not every client sends it again. So
/// a connection is left open for one more request, which is answered with `Connection: close`. HTTP/2 has a word for it.
const LAST_REQUEST: Duration = Duration::from_secs(5);
/// Far more than it takes to accept what waits in a queue.
const CLOSING: Duration = Duration::from_secs(5);
