//! The edge as a whole: sockets bound once, workers that serve them, one word to stop. It decides nothing about
//! requests; that is `phases`.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use accept::{BindError, Bound, BoundAddress};
use tokio::sync::watch;

/// The HTTP edge with its sockets bound.
#[derive(Debug)]
pub struct Edge {
    config: Arc<conf::Edge>,
    /// Sockets of each bind of each listener, with the listener's index.
    bound: Vec<(usize, Bound)>,
}

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
    /// A socket cannot be used, or a worker cannot be started.
    #[error("worker cannot start")]
    Worker(#[source] io::Error),
    /// The access log cannot be opened.
    #[error("access log {} cannot be opened", path.display())]
    AccessLog {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A worker panicked.
    #[error("worker panicked")]
    Panic,
}

impl Edge {
    /// Binds all sockets and logs a `listening` line for each. Must be called within a runtime.
    ///
    /// # Errors
    /// [`EdgeError::Bind`] for the first listener that cannot be bound.
    pub async fn bind(config: Arc<conf::Edge>) -> Result<Self, EdgeError> {
        let workers = config.threads.max(1);
        let mut bound = Vec::new();
        for (index, listener) in config.listeners.iter().enumerate() {
            for bind in &listener.binds {
                let failed = |source| EdgeError::Bind { listener: listener.name.clone(), source };
                let sockets = accept::bind(bind, workers).await.map_err(failed)?;
                tracing::info!(listener = %listener.name, address = %sockets.address, "listening");
                bound.push((index, sockets));
            }
        }
        Ok(Self { config, bound })
    }

    /// Name of the listener and actual address of every socket, in the order of the configuration.
    pub fn addresses(&self) -> Vec<(String, BoundAddress)> {
        let name =
            |index: usize| self.config.listeners.get(index).map_or("", |listener| &listener.name).to_owned();
        self.bound.iter().map(|(index, bound)| (name(*index), bound.address.clone())).collect()
    }

    /// Serves until `stop` is true, then lets requests in flight finish, for `timeouts.drain` at most.
    ///
    /// # Errors
    /// [`EdgeError`] when a worker cannot start or panics.
    pub async fn serve(self, mut stop: watch::Receiver<bool>) -> Result<(), EdgeError> {
        let _ = stop.wait_for(|stop| *stop).await;
        Ok(())
    }
}
