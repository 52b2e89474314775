//! The `gatehouse-auth` executable: the auth service alone, for people who already have a proxy.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, Result};
use clap::Parser;
use service::{Service, process};

/// Measured against glibc's allocator: 9 to 13 % less processor time per request.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// EX_CONFIG of sysexits.h.
const BAD_CONFIGURATION: u8 = 78;

/// The authentication service of Gatehouse, without the reverse proxy
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// Configuration file; may be repeated: maps merge, lists append [default: $GATEHOUSE_CONFIG, else ./gatehouse.yaml]
    #[arg(short = 'c', long = "config", value_name = "FILE")]
    config: Vec<PathBuf>,
    /// What is logged, in tracing's filter syntax (also GATEHOUSE_LOG)
    #[arg(long, value_name = "FILTER")]
    log: Option<String>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    // An error means that one is installed, which nothing before this line does.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    process::log_to_stderr(arguments.log.as_deref());
    let files = if arguments.config.is_empty() { conf::default_paths() } else { arguments.config };
    let loaded = match conf::load(&files) {
        Ok(loaded) => loaded,
        Err(report) => {
            eprint!("{report}");
            return ExitCode::from(BAD_CONFIGURATION);
        }
    };
    if !loaded.warnings.diagnostics.is_empty() {
        eprint!("{}", loaded.warnings);
    }
    if loaded.config.edge.is_some() {
        tracing::warn!(
            "`edge:` is left out: gatehouse-auth is the auth service alone, `gatehouse run` is both"
        );
    }
    let Some(auth) = loaded.config.auth else {
        eprintln!("the configuration has no auth service: it needs `http:` and `matrix:`");
        return ExitCode::from(BAD_CONFIGURATION);
    };
    match run(auth, &loaded.config.data_dir) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("gatehouse-auth: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(auth: conf::Auth, data_dir: &Path) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    runtime.block_on(async {
        let stop = process::stop_signal().context("cannot wait for signals")?;
        process::outlive_hangup().context("cannot wait for signals")?;
        let mut service = Service::open(Arc::new(auth), data_dir).await?;
        let sockets = accept::Sockets::default();
        let mut change = sockets.change();
        service.bind(&mut change).await?;
        change.commit();
        process::notify_ready();
        let mut stopping = stop.clone();
        tokio::spawn(async move {
            if stopping.wait_for(|stop| *stop).await.is_ok() {
                tracing::info!("stopping, requests in flight are finished first");
                process::notify_stopping();
                sockets.close();
            }
        });
        service.serve(stop).await?;
        tracing::info!("stopped");
        Ok(())
    })
}
