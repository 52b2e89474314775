#![doc = include_str!("../README.md")]

pub mod accounts;
pub mod activity;
mod behind;
pub mod clock;
pub mod domain;
pub mod error;
#[cfg(test)]
pub(crate) mod fixture;
pub mod housekeeping;
pub mod http;
pub mod limit;
mod listener;
pub mod metrics;
pub mod outbox;
pub mod password;
pub mod process;
mod reload;
mod router;
pub mod secrets;
pub mod state;
pub mod storage;
pub mod synapse;
mod tasks;
pub mod token;

use std::path::Path;
use std::sync::Arc;

use accept::{BoundAddress, Change};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::clock::{Clock, Rng};
use crate::reload::{Core, Work};
use crate::state::{SharedState, State};

pub use error::{Chain, ServiceError};
pub use reload::{Prepared, ServiceHandle};

/// The authentication service of one homeserver: opened, then bound, then serving.
#[derive(Debug)]
pub struct Service {
    core: Arc<Core>,
    first: Option<Prepared>,
}

impl Service {
    /// Opens the database, brings its schema up to date, and makes the secrets that the configuration leaves to us below `data_dir`
    /// (mode 0600).
    ///
    /// # Errors
    /// Whatever keeps the service from working later on: database, secrets, password schemes, Synapse's endpoint.
    pub async fn open(config: Arc<conf::Auth>, data_dir: &Path) -> Result<Self, ServiceError> {
        Self::of(State::open(config, data_dir, Clock::system(), Rng::system()).await?).await
    }

    async fn of(state: SharedState) -> Result<Self, ServiceError> {
        Ok(Self { core: Core::new(state).await?, first: None })
    }

    /// Binds the sockets of all listeners in `change`, and makes everything else that they need.
    ///
    /// # Errors
    /// The first that cannot be bound, or whose folder of assets cannot be read.
    pub async fn bind(&mut self, change: &mut Change) -> Result<(), ServiceError> {
        // Of two changes at a time, one waits for the other.
        self.first = None;
        let current = self.core.current().await;
        let state = current.state.clone();
        self.first = Some(reload::prepare(self.core.clone(), current, state, change).await?);
        Ok(())
    }

    /// Listener and actual address of every bound socket.
    pub fn addresses(&self) -> Vec<(String, BoundAddress)> {
        self.first.as_ref().map(Prepared::addresses).unwrap_or_default()
    }

    /// What changes its configuration while it serves.
    pub fn handle(&self) -> ServiceHandle {
        ServiceHandle(self.core.clone())
    }

    /// Serves until `stop`, then lets requests in flight finish (at most `http.timeouts.drain`) and Synapse hear of what they did (at most
    /// 10 s more). Logs a line `listening` for each socket.
    ///
    /// # Errors
    /// When a part of the service crashes.
    pub async fn serve(self, mut stop: watch::Receiver<bool>) -> Result<(), ServiceError> {
        let Self { core, first } = self;
        if let Some(first) = first {
            core.begin(&first.current().behind);
            core.greet(&first.current().state);
            core.remind(&first.current().state);
            first.commit();
        }
        let mut tasks = Tasks::default();
        let served = loop {
            tokio::select! {
                _ = stop.wait_for(|stop| *stop) => break Ok(()),
                work = core.work() => tasks.begin(work),
                ended = tasks.next(), if !tasks.is_empty() => if ended.is_err() { break ended },
            }
        };
        core.drain();
        tasks.begin(core.take_work());
        // The outbox goes on until the last request is done, which may have written something into it.
        let drained = tasks.lines_end().await;
        core.end();
        served.and(drained).and(tasks.end().await)
    }
}

/// Tasks under way.
#[derive(Debug, Default)]
struct Tasks {
    lines: JoinSet<Result<(), ServiceError>>,
    behind: JoinSet<Result<(), ServiceError>>,
}

impl Tasks {
    fn begin(&mut self, work: Vec<Work>) {
        for work in work {
            match work {
                Work::Line(task) => self.lines.spawn(task.run()),
                Work::Behind(task) => self.behind.spawn(task.run()),
            };
        }
    }

    fn is_empty(&self) -> bool {
        self.lines.is_empty() && self.behind.is_empty()
    }

    /// Waits for one to end.
    async fn next(&mut self) -> Result<(), ServiceError> {
        tokio::select! {
            Some(ended) = self.lines.join_next() => outcome(ended),
            Some(ended) = self.behind.join_next() => outcome(ended),
            else => Ok(()),
        }
    }

    /// Waits for all listeners, which end within their own deadlines.
    ///
    /// # Errors
    /// When the background work does not last that long.
    async fn lines_end(&mut self) -> Result<(), ServiceError> {
        let mut result = Ok(());
        while !self.lines.is_empty() {
            result = result.and(self.next().await);
        }
        result
    }

    /// Waits for the rest, which ends within its own deadlines.
    async fn end(mut self) -> Result<(), ServiceError> {
        let mut result = Ok(());
        while let Some(ended) = self.behind.join_next().await {
            result = result.and(outcome(ended));
        }
        result
    }
}

fn outcome(ended: Result<Result<(), ServiceError>, tokio::task::JoinError>) -> Result<(), ServiceError> {
    ended.unwrap_or(Err(ServiceError::Crashed { what: "a task" }))
}
