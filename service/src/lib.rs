#![doc = include_str!("../README.md")]

pub mod accounts;
pub mod activity;
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
mod router;
pub mod secrets;
pub mod state;
pub mod storage;
pub mod synapse;
pub mod token;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use accept::{BoundAddress, Change, ConnectionLimits};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::clock::{Clock, Rng};
use crate::http::assets::Assets;
use crate::http::metrics::Traffic;
use crate::http::refusal::Pages;
use crate::listener::Sockets;
use crate::router::Shared;
use crate::state::{SharedState, State};

pub use error::{Chain, ServiceError};

/// The authentication service of one homeserver: opened, then bound, then serving.
#[derive(Debug)]
pub struct Service {
    state: SharedState,
    sockets: Vec<Sockets>,
}

impl Service {
    /// Opens the database, brings its schema up to date, and makes the secrets that the configuration leaves to us below `data_dir`
    /// (mode 0600).
    ///
    /// # Errors
    /// Whatever keeps the service from working later on: database, secrets, password schemes, Synapse's endpoint.
    pub async fn open(config: Arc<conf::Auth>, data_dir: &Path) -> Result<Self, ServiceError> {
        let state = State::open(config, data_dir, Clock::system(), Rng::system()).await?;
        Ok(Self { state, sockets: Vec::new() })
    }

    /// Binds the sockets of all listeners in `change` and logs a line `listening` for each.
    ///
    /// # Errors
    /// The first that cannot be bound.
    pub async fn bind(&mut self, change: &mut Change) -> Result<(), ServiceError> {
        self.sockets = listener::bind(&self.state.config.http.listeners, change).await?;
        Ok(())
    }

    /// Listener and actual address of every bound socket.
    pub fn addresses(&self) -> Vec<(String, BoundAddress)> {
        self.sockets.iter().flat_map(Sockets::addresses).collect()
    }

    /// Serves until `stop`, then lets requests in flight finish (at most 30 s) and Synapse hear of what they did (at most 10 s more).
    ///
    /// # Errors
    /// When a listener cannot begin to serve (a folder of assets that cannot be read), or a part of the service crashes.
    pub async fn serve(self, stop: watch::Receiver<bool>) -> Result<(), ServiceError> {
        let Self { state, sockets } = self;
        let embedded = Arc::new(Assets::embedded().await.map_err(ServiceError::Compress)?);
        let limits = Arc::new(ConnectionLimits::new(listener::MOST_CONNECTIONS, listener::MOST_CONNECTIONS));
        let shared = Shared {
            pages: Arc::new(Pages::new(
                &state.config.matrix.homeserver,
                &state.config.http.public_base,
                &embedded,
            )),
            traffic: Arc::new(Traffic::new(limits.clone())),
            embedded,
            state: state.clone(),
        };
        // The outbox goes on until the last request is done, which may have written something into it.
        let (drained, stop_behind) = watch::channel(false);
        let mut behind = JoinSet::new();
        behind.spawn(housekeeping::run(state.clone(), stop_behind.clone()));
        behind.spawn(outbox::run(state.clone(), stop_behind));
        let greeting = tokio::spawn(greet(state.synapse.hurried()));
        let served = tokio::select! {
            served = listener::serve(sockets, &shared, &limits, &stop) => served,
            // Neither ends before it is told to.
            _ = behind.join_next() => Err(ServiceError::Crashed { what: "a background task" }),
        };
        greeting.abort();
        drained.send_replace(true);
        // Both end by themselves within their own deadlines.
        while behind.join_next().await.is_some() {}
        // SQLite folds its log into the file; nothing is lost when that takes too long.
        let _ = tokio::time::timeout(CLOSING, state.storage.close()).await;
        served
    }
}

/// How long closing the database may take.
const CLOSING: Duration = Duration::from_secs(5);

/// Says in the log whether Synapse would work with us, before the first login finds out.
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
