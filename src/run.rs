//! `gatehouse run`: the edge and the auth service in one process. The only place where the two meet. How the process begins, reloads,
//! is replaced and ends is `service::process`.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use accept::{Change, Sockets};
use anyhow::{Context, Result, bail};
use clap::Args;
use proxy::maintenance::StateFile;
use proxy::{Edge, EdgeHandle, PreparedEdge};
use service::process::{Fault, Life, Options, TakeOver, Work};
use service::{Service, ServiceHandle};
use tokio::sync::watch;

use crate::cli::{self, Files};

/// What `gatehouse run` is told.
#[derive(Debug, Args)]
pub(crate) struct RunOptions {
    #[command(flatten)]
    files: Files,
    /// Takes the sockets of the process that runs with the same data_dir, or listens at CONTROL; once this one serves, that one
    /// finishes its requests and ends. `gatehouse upgrade` does the same from the other side
    #[arg(long, value_name = "CONTROL", num_args = 0..=1)]
    #[expect(clippy::option_option, reason = "how clap says that an option was given without its value")]
    take_over: Option<Option<PathBuf>>,
}

/// Runs what the configuration asks for until SIGTERM or SIGINT, or until another process has taken over.
///
/// # Errors
/// A [`Fault`] with its exit code: of the configuration, or what could not be bound or went wrong while serving.
pub(crate) fn run(options: RunOptions) -> Result<()> {
    let take_over = match options.take_over {
        None => TakeOver::No,
        Some(None) => TakeOver::Same,
        Some(Some(path)) => TakeOver::At(path),
    };
    let options = Options { files: options.files.paths(), control: cli::CONTROL, take_over };
    on_runtime(async {
        let mut life = Life::begin(options).await?;
        let servers = life
            .open(async |config, change: &mut Change| Servers::bind(config, change).await.map_err(fault))
            .await?;
        let (halves, sockets) = (servers.halves(), life.sockets());
        let serve = |stop| async move { servers.serve(stop, &sockets).await.map_err(fault) };
        Ok(life.serve(halves, serve).await?)
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
    data_dir: PathBuf,
    edge: Option<Edge>,
    service: Option<Service>,
    /// Whether another process goes on where this one stops.
    has_successor: Arc<AtomicBool>,
}

impl Servers {
    /// Binds the sockets of both in `change`, which has to be committed before they serve: of the auth service first, which the edge
    /// forwards to.
    pub(crate) async fn bind(config: conf::Config, change: &mut Change) -> Result<Self> {
        let conf::Config { data_dir, edge, auth } = config;
        if edge.is_none() && auth.is_none() {
            bail!("the configuration asks for nothing: it has neither an edge nor an auth service");
        }
        let service = match auth {
            Some(auth) => Some(open_service(auth, &data_dir, change).await?),
            None => None,
        };
        let edge = match edge {
            Some(edge) => {
                let edge = Edge::bind(Arc::new(edge), change).await.context("edge")?;
                Some(edge.with_maintenance(StateFile::of(&data_dir)))
            }
            None => None,
        };
        Ok(Self { data_dir, edge, service, has_successor: Arc::default() })
    }

    /// What changes them while they serve.
    fn halves(&self) -> Halves {
        Halves {
            data_dir: self.data_dir.clone(),
            edge: self.edge.as_ref().map(Edge::handle),
            service: self.service.as_ref().map(Service::handle),
            has_successor: self.has_successor.clone(),
        }
    }

    /// Serves until `stop`, then drains: the edge first, whose requests in flight may still need the auth service; both at a time when
    /// another process has the sockets, for that one serves them. When one of the two fails, the other is drained too, and nobody is
    /// let in any more: `sockets` are closed.
    pub(crate) async fn serve(self, mut stop: watch::Receiver<bool>, sockets: &Sockets) -> Result<()> {
        let Self { edge, service, has_successor, .. } = self;
        let (stop_edge, edge_stop) = watch::channel(false);
        let (stop_service, service_stop) = watch::channel(false);
        let edge = async {
            let outcome = match edge {
                Some(edge) => edge.serve(edge_stop).await.context("edge"),
                None => asked_to_stop(edge_stop).await,
            };
            sockets.close();
            stop_service.send_replace(true);
            outcome
        };
        let service = async {
            let outcome = match service {
                Some(service) => service.serve(service_stop).await.context("auth service"),
                None => asked_to_stop(service_stop).await,
            };
            sockets.close();
            stop_edge.send_replace(true);
            outcome
        };
        let word = async {
            // A closed channel means that nobody can ask any more, which happens only while the process ends.
            let _ = stop.wait_for(|stop| *stop).await;
            stop_edge.send_replace(true);
            if has_successor.load(Ordering::Relaxed) {
                stop_service.send_replace(true);
            }
            std::future::pending::<()>().await;
        };
        tokio::select! {
            (edge, service) = async { tokio::join!(edge, service) } => edge.and(service),
            () = word => Ok(()),
        }
    }
}

/// The handles of what serves.
struct Halves {
    data_dir: PathBuf,
    edge: Option<EdgeHandle>,
    service: Option<ServiceHandle>,
    has_successor: Arc<AtomicBool>,
}

/// A configuration of both that can be put in force.
struct Prepared {
    edge: Option<PreparedEdge>,
    service: Option<service::Prepared>,
}

impl Work for Halves {
    type Prepared = Prepared;

    async fn prepare(&self, config: conf::Config, change: &mut Change) -> Result<Prepared, Fault> {
        let conf::Config { data_dir, edge, auth } = config;
        let others = async {
            if data_dir != self.data_dir {
                // Database, secrets and sockets lie there, unless something else is said of them.
                return Err(needs_start("`data_dir` is another"));
            }
            match (&self.edge, &edge) {
                (None, Some(_)) => return Err(needs_start("there was no edge")),
                (Some(_), None) => return Err(needs_start("there is no edge any more")),
                (None, None) | (Some(_), Some(_)) => {}
            }
            match (&self.service, auth) {
                (None, None) => Ok(None),
                (Some(handle), Some(auth)) => {
                    let prepared = handle.prepare(Arc::new(auth), &data_dir, change).await;
                    Ok(Some(prepared.map_err(|error| Fault::of(&error).within("auth service"))?))
                }
                (None, Some(_)) => Err(needs_start("there was no auth service")),
                (Some(_), None) => Err(needs_start("there is no auth service any more")),
            }
        };
        // What the edge refuses it counts by itself, and so does the auth service what is dropped for it.
        let service = others.await.inspect_err(|_| self.refused())?;
        let edge = match (&self.edge, edge) {
            (Some(handle), Some(edge)) => {
                let prepared = handle.prepare(Arc::new(edge), change).await;
                Some(prepared.map_err(|error| Fault::of(&error).within("edge"))?)
            }
            (None, _) | (_, None) => None,
        };
        Ok(Prepared { edge, service })
    }

    /// The auth service first, which the edge forwards to.
    async fn commit(&self, prepared: Prepared) {
        let Prepared { edge, service } = prepared;
        if let Some(service) = service {
            service.commit();
        }
        if let Some(edge) = edge {
            edge.commit().await;
        }
    }

    fn refused(&self) {
        if let Some(edge) = &self.edge {
            edge.count_refused();
        }
        if let Some(service) = &self.service {
            service.count_refused();
        }
    }

    fn handed_over(&self) {
        self.has_successor.store(true, Ordering::Relaxed);
        if let Some(edge) = &self.edge {
            edge.has_successor();
        }
    }

    /// The runtime of the auth service answers by running this, the edge's threads one by one.
    async fn answers(&self, patience: Duration) -> Result<(), String> {
        let Some(edge) = &self.edge else { return Ok(()) };
        edge.answers(patience).await.map_err(|workers| {
            let names: Vec<_> = workers.iter().map(|number| format!("edge-{number}")).collect();
            format!("threads that do not answer: {}", names.join(", "))
        })
    }
}

fn needs_start(what: &str) -> Fault {
    Fault::new(format!("{what}: that takes `gatehouse upgrade` or a restart"))
}

/// A fault that is told with everything that led to it; the configuration's with its exit code.
#[expect(clippy::needless_pass_by_value, reason = "for `map_err`")]
fn fault(error: anyhow::Error) -> Fault {
    Fault::new(format!("{error:#}"))
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
