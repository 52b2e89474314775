//! `gatehouse quickstart`: a working Matrix server on loopback with nothing prepared. Everything it makes lies in one folder,
//! and everything it starts ends with it.

mod certificate;
mod messages;
mod plan;
mod progress;
mod synapse;

use std::path::PathBuf;
use std::sync::Arc;

use accept::Sockets;
use anyhow::{Context, Result, bail};
use clap::Args;
use service::process;
use tokio::sync::watch;

use crate::private_file::{self, random_token};
use crate::run::{Servers, on_runtime};
use crate::user;
use plan::Plan;
use progress::Progress;
use synapse::{Home, Settings, Synapse};

/// The first user's name.
const FIRST_USER: &str = "alice";

/// What `gatehouse quickstart` is told.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Folder for all that it makes [default: $XDG_DATA_HOME/gatehouse-quickstart]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Port of the edge on localhost
    #[arg(long, default_value_t = 8443)]
    port: u16,
    /// A Synapse that runs already; without it one is installed from PyPI and started
    #[arg(long, value_name = "URL")]
    synapse: Option<url::Url>,
    /// Loopback port of the auth service, for Synapse [default: a free one; 8080 with --synapse]
    #[arg(long, value_name = "PORT")]
    auth_port: Option<u16>,
}

/// Prepares, serves, and says what to try; ends on Ctrl-C or SIGTERM.
pub(crate) fn quickstart(options: &Options) -> Result<()> {
    let folder = plan::folder(options.dir.as_deref())?;
    let _lock = plan::lock(&folder)?;
    on_runtime(async {
        let mut stop = process::stop_signal()?;
        let ready = tokio::select! {
            ready = prepare(options, folder) => ready?,
            _ = stop.changed() => bail!("stopped before everything was ready"),
        };
        ready.serve(stop).await
    })
}

/// All that was bound and started, about to serve.
struct Ready {
    plan: Plan,
    servers: Servers,
    synapse: Option<Synapse>,
    password: String,
}

async fn prepare(options: &Options, folder: PathBuf) -> Result<Ready> {
    let mut progress = Progress::new(4);

    let step = progress.step("configuration");
    let plan = Plan::new(options, folder).await?;
    let own_synapse = match plan.synapse_config.is_some() {
        true => Some(Home::new(plan.folder.join("synapse"), &settings(&plan)?)?),
        false => None,
    };
    let path = plan.write_configuration()?;
    let loaded =
        conf::load(std::slice::from_ref(&path)).context("the quickstart's own configuration is refused")?;
    let auth =
        loaded.config.auth.clone().context("the quickstart's own configuration has no auth service")?;
    step.done(&path.display().to_string());

    let step = progress.step("sockets");
    let data_dir = loaded.config.data_dir.clone();
    // Nobody but those who accept has the sockets: there is no reload and no successor here.
    let mut change = Sockets::default().change();
    let servers = Servers::bind(loaded.config, &mut change)
        .await
        .context("not everything could be bound; --port and --auth-port choose other ports")?;
    change.commit();
    step.done(&format!("{}, auth service for Synapse on {}", plan.public_base_url(), plan.auth_endpoint()));

    let mut step = progress.step("Synapse");
    let synapse = match own_synapse {
        None => {
            plan.wait_for_delegation(&mut step).await?;
            step.done(&format!("{} delegates to the auth service", plan.synapse));
            None
        }
        Some(home) => {
            home.install(&mut step).await?;
            let synapse = home.start(&mut step).await?;
            step.done(&format!("running on {}", plan.synapse));
            Some(synapse)
        }
    };

    let step = progress.step("first user");
    let password = first_user(&plan, Arc::new(auth), &data_dir).await?;
    step.done(&format!("@{FIRST_USER}:{}", plan.server_name));
    Ok(Ready { plan, servers, synapse, password })
}

/// What the configuration of our own Synapse has to know.
fn settings(plan: &Plan) -> Result<Settings<'_>> {
    Ok(Settings {
        server_name: &plan.server_name,
        public_base_url: plan.public_base_url(),
        port: plan.synapse.port().context("the address of Synapse has no port")?,
        auth_endpoint: plan.auth_endpoint(),
        secret_file: &plan.secret_file,
    })
}

/// Makes the first user with a password of its own, both only once.
async fn first_user(plan: &Plan, auth: Arc<conf::Auth>, data_dir: &std::path::Path) -> Result<String> {
    let file = plan.folder.join("first-user-password");
    let password = private_file::read_or_create(&file, user::made_up_password)?;
    user::ensure(auth, data_dir, FIRST_USER, &password).await.context("cannot make the first user")?;
    Ok(password)
}

impl Ready {
    async fn serve(self, stop: watch::Receiver<bool>) -> Result<()> {
        let Self { plan, servers, synapse, password } = self;
        // The sockets are bound, so what is printed now works at once: requests wait in the backlog for a moment.
        messages::print(&messages::what_to_try(&plan, FIRST_USER, &password));
        let (stop_servers, servers_stop) = watch::channel(false);
        let sockets = Sockets::default();
        let serving = servers.serve(servers_stop, &sockets);
        tokio::pin!(serving);
        let outcome = match synapse {
            None => {
                tokio::select! {
                    outcome = &mut serving => outcome,
                    () = stopped(stop) => {
                        stop_servers.send_replace(true);
                        serving.await
                    }
                }
            }
            Some(mut synapse) => {
                let outcome = tokio::select! {
                    outcome = &mut serving => outcome,
                    error = synapse.ended() => {
                        stop_servers.send_replace(true);
                        serving.await.and(Err(error))
                    }
                    () = stopped(stop) => {
                        messages::note("stopping");
                        stop_servers.send_replace(true);
                        serving.await
                    }
                };
                synapse.stop().await;
                outcome
            }
        };
        if outcome.is_ok() {
            messages::note(&format!("stopped; everything it made is in {}", plan.folder.display()));
        }
        outcome
    }
}

async fn stopped(mut stop: watch::Receiver<bool>) {
    if stop.wait_for(|stop| *stop).await.is_err() {
        std::future::pending::<()>().await;
    }
}
