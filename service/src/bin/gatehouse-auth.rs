//! The `gatehouse-auth` executable: the auth service alone, for people who already have a proxy.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use accept::Change;
use clap::{Parser, Subcommand};
use service::process::remote::{Errand, ask};
use service::process::{self, EXIT_CONFIG, EXIT_FAULT, Fault, Life, Options, TakeOver, Work};
use service::{Service, ServiceHandle};

/// Measured against glibc's allocator: 9 to 13 % less processor time per request.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Name of the control socket in `data_dir`: another than that of `gatehouse`, which may run with the same.
const CONTROL: &str = "auth-control.sock";

/// The authentication service of Gatehouse, without the reverse proxy
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// Configuration file; may be repeated: maps merge, lists append [default: $GATEHOUSE_CONFIG, else ./gatehouse.yaml]
    #[arg(short = 'c', long = "config", value_name = "FILE", global = true)]
    config: Vec<PathBuf>,
    /// What is logged, in tracing's filter syntax (also GATEHOUSE_LOG)
    #[arg(long, value_name = "FILTER", global = true)]
    log: Option<String>,
    /// Takes the sockets of the process that runs with the same data_dir, or listens at CONTROL; once this one serves, that one
    /// finishes its requests and ends
    #[arg(long, value_name = "CONTROL", num_args = 0..=1)]
    #[expect(clippy::option_option, reason = "how clap says that an option was given without its value")]
    take_over: Option<Option<PathBuf>>,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Clone, Copy, Subcommand)]
enum Command {
    /// Lets the running process read its configuration again; a faulty one changes nothing
    Reload,
    /// Lets the executable that lies now where the running process was started take over
    Upgrade,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    // An error means that one is installed, which nothing before this line does.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    process::log_to_stderr(arguments.log.as_deref());
    let files = if arguments.config.is_empty() { conf::default_paths() } else { arguments.config };
    let outcome = match arguments.command {
        None => {
            let take_over = match arguments.take_over {
                None => TakeOver::No,
                Some(None) => TakeOver::Same,
                Some(Some(path)) => TakeOver::At(path),
            };
            run(Options { files, control: CONTROL, take_over })
        }
        Some(Command::Reload) => remote(Errand::Reload, &files),
        Some(Command::Upgrade) => remote(Errand::Upgrade, &files),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(fault) if fault.exit == EXIT_CONFIG => {
            eprintln!("{fault}");
            ExitCode::from(EXIT_CONFIG)
        }
        Err(fault) => {
            eprintln!("gatehouse-auth: {fault}");
            ExitCode::from(fault.exit)
        }
    }
}

fn run(options: Options) -> Result<(), Fault> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    block_on(&mut builder, async {
        let mut life = Life::begin(options).await?;
        let (alone, service) = life.open(open).await?;
        life.serve(alone, |stop| async move { service.serve(stop).await.map_err(|error| Fault::of(&error)) })
            .await
    })
}

fn remote(errand: Errand, files: &[PathBuf]) -> Result<(), Fault> {
    let loaded = conf::load(files)?;
    if !loaded.warnings.diagnostics.is_empty() {
        eprint!("{}", loaded.warnings);
    }
    let control = loaded.config.data_dir.join(CONTROL);
    let answer = block_on(&mut tokio::runtime::Builder::new_current_thread(), async {
        ask(&control, errand, files).await.map_err(|error| Fault::of(&error))
    })?;
    let text = answer.lines.join("\n");
    if answer.exit == 0 {
        println!("{text}");
        return Ok(());
    }
    Err(Fault { exit: answer.exit.max(EXIT_FAULT), text })
}

fn block_on<T>(
    builder: &mut tokio::runtime::Builder,
    work: impl Future<Output = Result<T, Fault>>,
) -> Result<T, Fault> {
    let runtime = builder.enable_all().build();
    runtime.map_err(|error| Fault::of(&error).within("cannot start the runtime"))?.block_on(work)
}

async fn open(config: conf::Config, change: &mut Change) -> Result<(Alone, Service), Fault> {
    let data_dir = config.data_dir.clone();
    let auth = auth_of(config)?;
    let opened = async {
        let mut service = Service::open(Arc::new(auth), &data_dir).await?;
        service.bind(change).await?;
        Ok::<_, service::ServiceError>(service)
    };
    let service = opened.await.map_err(|error| Fault::of(&error))?;
    Ok((Alone { data_dir, service: service.handle() }, service))
}

/// The half of the configuration that is run here.
fn auth_of(config: conf::Config) -> Result<conf::Auth, Fault> {
    if config.edge.is_some() {
        tracing::warn!(
            "`edge:` is left out: gatehouse-auth is the auth service alone, `gatehouse run` is both"
        );
    }
    config.auth.ok_or_else(|| {
        Fault::configuration("the configuration has no auth service: it needs `http:` and `matrix:`")
    })
}

/// The auth service, as it is changed while it serves.
struct Alone {
    data_dir: PathBuf,
    service: ServiceHandle,
}

impl Work for Alone {
    type Prepared = service::Prepared;

    async fn prepare(&self, config: conf::Config, change: &mut Change) -> Result<service::Prepared, Fault> {
        self.try_prepare(config, change).await.inspect_err(|_| self.refused())
    }

    async fn commit(&self, prepared: service::Prepared) {
        prepared.commit();
    }

    fn refused(&self) {
        self.service.count_refused();
    }

    fn handed_over(&self) {}

    /// Its runtime answers by running this.
    async fn answers(&self, _: Duration) -> Result<(), String> {
        Ok(())
    }
}

impl Alone {
    async fn try_prepare(
        &self,
        config: conf::Config,
        change: &mut Change,
    ) -> Result<service::Prepared, Fault> {
        if self.data_dir != config.data_dir {
            // Database, secrets and sockets lie there, unless something else is said of them.
            return Err(Fault::new("`data_dir` is another: that takes an upgrade or a restart"));
        }
        let auth = auth_of(config)?;
        let prepared = self.service.prepare(Arc::new(auth), &self.data_dir, change).await;
        prepared.map_err(|error| Fault::of(&error))
    }
}
