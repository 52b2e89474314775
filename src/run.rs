//! `gatehouse run`: load the configuration, bind the edge and the auth service, serve, drain. The only place where the two meet.

use std::path::Path;
use std::sync::Arc;

use accept::{Change, Sockets};
use anyhow::{Context, Result, bail};
use proxy::Edge;
use proxy::maintenance::StateFile;
use service::{Service, process};
use tokio::sync::watch;

use crate::cli::{self, Files};

/// Runs what the configuration asks for until SIGTERM or SIGINT.
///
/// # Errors
/// A [`conf::Report`] when the configuration is at fault, otherwise what could not be bound or went wrong while serving.
pub(crate) fn run(files: &Files) -> Result<()> {
    let loaded = cli::load(files)?;
    on_runtime(async {
        let stop = process::stop_signal()?;
        process::outlive_hangup()?;
        let servers = Servers::bind(loaded.config).await?;
        servers.serve(stop).await
    })
}

/// Runs `work` on the runtime of the auth service and of all blocking work; the edge brings its own threads.
pub(crate) fn on_runtime<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .thread_name("auth")
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    runtime.block_on(work)
}

/// The edge and the auth service, bound and about to serve.
pub(crate) struct Servers {
    sockets: Sockets,
    edge: Option<Edge>,
    service: Option<Service>,
}

impl Servers {
    /// Binds the sockets of both: of the auth service first, which the edge forwards to.
    pub(crate) async fn bind(config: conf::Config) -> Result<Self> {
        let conf::Config { data_dir, edge, auth } = config;
        if edge.is_none() && auth.is_none() {
            bail!("the configuration asks for nothing: it has neither an edge nor an auth service");
        }
        let sockets = Sockets::default();
        let mut change = sockets.change();
        let service = match auth {
            Some(auth) => Some(open_service(auth, &data_dir, &mut change).await?),
            None => None,
        };
        let edge = match edge {
            Some(edge) => {
                let edge = Edge::bind(Arc::new(edge), &mut change).await.context("edge")?;
                Some(edge.with_maintenance(StateFile::of(&data_dir)))
            }
            None => None,
        };
        change.commit();
        Ok(Self { sockets, edge, service })
    }

    /// Serves until `stop`, then drains: the edge first, whose requests in flight may still need the auth service. When one
    /// of the two fails, the other is drained too.
    pub(crate) async fn serve(self, mut stop: watch::Receiver<bool>) -> Result<()> {
        let Self { sockets, edge, service } = self;
        let (stop_edge, edge_stop) = watch::channel(false);
        let (stop_service, service_stop) = watch::channel(false);
        let edge = async {
            let outcome = match edge {
                Some(edge) => edge.serve(edge_stop).await.context("edge"),
                None => asked_to_stop(edge_stop).await,
            };
            stop_service.send_replace(true);
            outcome
        };
        let service = async {
            let outcome = match service {
                Some(service) => service.serve(service_stop).await.context("auth service"),
                None => asked_to_stop(service_stop).await,
            };
            stop_edge.send_replace(true);
            outcome
        };
        let signal = async {
            // A closed channel means that nobody can ask any more, which happens only while the process ends.
            if stop.wait_for(|stop| *stop).await.is_ok() {
                tracing::info!("stopping, requests in flight are finished first");
                process::notify_stopping();
                sockets.close();
                stop_edge.send_replace(true);
            }
            std::future::pending::<()>().await;
        };
        process::notify_ready();
        let both = async { tokio::join!(edge, service) };
        tokio::select! {
            (edge, service) = both => {
                edge.and(service)?;
                tracing::info!("stopped");
                Ok(())
            }
            () = signal => Ok(()),
        }
    }
}

async fn open_service(auth: conf::Auth, data_dir: &Path, change: &mut Change) -> Result<Service> {
    let mut service = Service::open(Arc::new(auth), data_dir).await.context("auth service")?;
    service.bind(change).await.context("auth service")?;
    Ok(service)
}

async fn asked_to_stop(mut stop: watch::Receiver<bool>) -> Result<()> {
    let _ = stop.wait_for(|stop| *stop).await;
    Ok(())
}
