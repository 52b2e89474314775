//! The background work of one database: the outbox and the housekeeping, once each, however often the configuration changes.
//!
//! As long as the database stays the same, both go on and work with the newest generation of the state. When another database takes its
//! place, what belongs to the old one goes on until the last request that uses it is done, and ends then.

use std::time::Duration;

use tokio::sync::watch;

use crate::error::Chain;
use crate::state::{SharedState, State};
use crate::storage::outbox as table;
use crate::tasks::Task;
use crate::{housekeeping, outbox};

/// The background work of one database, begun or about to be.
#[derive(Debug)]
pub(crate) struct Behind {
    current: watch::Sender<SharedState>,
    /// Generations that requests use hold a receiver.
    in_use: watch::Sender<()>,
    stop: watch::Sender<bool>,
}

impl Behind {
    /// Nothing is done yet.
    pub(crate) fn new(state: &State) -> Self {
        Self {
            current: watch::channel(SharedState::new(state.clone())).0,
            in_use: watch::channel(()).0,
            stop: watch::channel(false).0,
        }
    }

    /// The generation for those who answer requests: as long as it is used, the background work goes on.
    pub(crate) fn watched(&self, state: &State) -> SharedState {
        SharedState::new(state.used_by(self.in_use.subscribe()))
    }

    /// Goes on with this generation, of the same database.
    pub(crate) fn renew(&self, state: &State) {
        self.current.send_replace(SharedState::new(state.clone()));
    }

    /// The work, which ends when everything is `over` or when the database is retired, and the connections to the database with it.
    pub(crate) fn work(&self, mut over: watch::Receiver<bool>) -> Task {
        let (current, stop, sender) = (self.current.subscribe(), self.stop.subscribe(), self.stop.clone());
        let stopping = stop.clone();
        Task::until("a background task", stopping, async move {
            let works = async {
                tokio::join!(
                    housekeeping::run(current.clone(), stop.clone()),
                    outbox::run(current.clone(), stop)
                )
            };
            let stops = async {
                let _ = over.wait_for(|over| *over).await;
                sender.send_replace(true);
                std::future::pending::<()>().await;
            };
            tokio::select! {
                _ = works => {}
                () = stops => {}
            }
            let storage = current.borrow().storage.clone();
            // SQLite folds its log into the file; nothing is lost when that takes too long.
            let _ = tokio::time::timeout(CLOSING, storage.close()).await;
        })
    }

    /// Ends when nobody uses this database any more, or when everything is over: another one has taken its place.
    pub(crate) fn retire(self, mut over: watch::Receiver<bool>) -> Task {
        Task::whenever(async move {
            tokio::select! {
                // Whatever a request does is bounded by a deadline.
                _ = tokio::time::timeout(LONGEST_USE, self.in_use.closed()) => {}
                _ = over.wait_for(|over| *over) => {}
            }
            let state = self.current.borrow().clone();
            report_what_is_left(&state).await;
            self.stop.send_replace(true);
        })
    }
}

/// What the old database still has to tell Synapse is told by nobody as long as no service uses that database.
async fn report_what_is_left(state: &State) {
    let left = async { table::count(&mut *state.storage.read().await?).await };
    match tokio::time::timeout(CLOSING, left).await {
        Ok(Ok(0)) => {}
        Ok(Ok(jobs)) => tracing::warn!(
            jobs,
            "the database that was used before still has something to tell Synapse, and nobody does that any more"
        ),
        Ok(Err(error)) => {
            tracing::warn!(error = %Chain(&error), "whether the database used before has something left to tell Synapse is not known");
        }
        Err(_) => tracing::warn!(
            "the database used before does not say whether it has something left to tell Synapse"
        ),
    }
}

/// How long closing a database, and a last look into it, may take.
const CLOSING: Duration = Duration::from_secs(5);
/// Longer than any request may take, with what it leaves behind.
const LONGEST_USE: Duration = Duration::from_secs(90);
