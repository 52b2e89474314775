//! `gatehouse reload` and `gatehouse upgrade`: the configuration is checked here, where its faults are read; the rest is asked of the
//! process that runs.

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Args;
use service::process::remote::{Errand, ask};
use service::process::{EXIT_FAULT, Fault};

use crate::cli::{self, Files};

/// What both are told.
#[derive(Debug, Args)]
pub(crate) struct Options {
    #[command(flatten)]
    files: Files,
    /// Where the running process listens for this [default: control.sock in data_dir]
    #[arg(long, value_name = "CONTROL")]
    control: Option<PathBuf>,
}

/// Checks the configuration, then asks, and prints what came of it.
///
/// # Errors
/// A [`conf::Report`]; a [`Fault`] with the exit code that the running process says.
pub(crate) fn run(errand: Errand, options: &Options) -> Result<()> {
    let loaded = cli::load(&options.files)?;
    let control = options.control.clone().unwrap_or_else(|| loaded.config.data_dir.join(cli::CONTROL));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let answer =
        runtime.context("cannot start a runtime")?.block_on(ask(&control, errand, &options.files.paths()))?;
    let text = answer.lines.join("\n");
    if answer.exit == 0 {
        println!("{text}");
        return Ok(());
    }
    Err(Fault { exit: answer.exit.max(EXIT_FAULT), text }.into())
}
