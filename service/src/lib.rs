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
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use crate::clock::{Clock, Rng};
use crate::reload::{Core, Work};
use crate::state::{SharedState, State};
use crate::tasks::Task;

pub use error::{Chain, ServiceError};
pub use reload::{Prepared, ServiceHandle};

/// The authentication service of one homeserver: opened, then bound, then serving.
#[derive(Debug)]
pub struct Service {
    core: Arc<Core>,
    work: mpsc::UnboundedReceiver<Work>,
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
        let (core, work) = Core::new(state).await?;
        Ok(Self { core, work, first: None })
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
        let Self { core, mut work, first } = self;
        let (mut lines, mut behind) = (Tasks::default(), Tasks::default());
        if let Some(first) = first {
            core.begin(&first.current().behind);
            core.greet(&first.current().state);
            first.commit();
        }
        let mut stopping = false;
        let served = loop {
            tokio::select! {
                _ = stop.wait_for(|stop| *stop), if !stopping => {
                    stopping = true;
                    core.drain();
                }
                Some(begun) = work.recv() => match begun {
                    Work::Line(task) => lines.begin(task),
                    Work::Behind(task) => behind.begin(task),
                },
                ended = lines.next(), if !lines.is_empty() => if ended.is_err() { break ended },
                ended = behind.next(), if !behind.is_empty() => if ended.is_err() { break ended },
            }
            if stopping && lines.is_empty() {
                break Ok(());
            }
        };
        core.drain();
        // The outbox goes on until the last request is done, which may have written something into it.
        while !lines.is_empty() {
            let _ = lines.next().await;
        }
        core.end();
        // All end by themselves within their own deadlines.
        while !behind.is_empty() {
            let _ = behind.next().await;
        }
        served
    }
}

/// Tasks under way.
#[derive(Debug, Default)]
struct Tasks(JoinSet<Result<(), ServiceError>>);

impl Tasks {
    fn begin(&mut self, task: Task) {
        self.0.spawn(task.run());
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Waits for one to end.
    async fn next(&mut self) -> Result<(), ServiceError> {
        match self.0.join_next().await {
            None => Ok(()),
            Some(Ok(ended)) => ended,
            Some(Err(_)) => Err(ServiceError::Crashed { what: "a task" }),
        }
    }
}
