//! Arguments. Each subcommand is one function elsewhere; here stand their names, options and exit codes.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use service::process::remote::Errand;
use service::process::{EXIT_CONFIG, Fault};

use crate::{init, maintenance, quickstart, remote, run, user};

/// Name of the control socket in `data_dir`.
pub(crate) const CONTROL: &str = "control.sock";

/// A reverse proxy and an authentication service for a Matrix homeserver, in one program.
#[derive(Debug, Parser)]
#[command(name = "gatehouse", version, arg_required_else_help = true)]
struct Arguments {
    /// What is logged, in tracing's filter syntax (also GATEHOUSE_LOG)
    #[arg(long, global = true, value_name = "FILTER")]
    log: Option<String>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs the edge, and the auth service when it is configured, in the foreground
    Run(run::RunOptions),
    /// Lets the running process read its configuration again: everything may change, nothing is dropped; a faulty one changes nothing
    Reload(remote::Options),
    /// Lets the executable that lies now where the running process was started take over, without a refused connection
    Upgrade(remote::Options),
    /// Reports every fault of a configuration; binds and resolves nothing
    Check(Files),
    /// Looks at the configuration
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Writes a commented starter configuration and fresh secrets; never overwrites
    Init(init::Options),
    /// A working Matrix server on loopback with nothing prepared: certificate, database, first user, a real Synapse
    Quickstart(quickstart::Options),
    /// Answers every request for an upstream with 503 and a message while you work behind the edge; the edge notices within about a second
    #[command(subcommand)]
    Maintenance(maintenance::Command),
    /// Works on the accounts of the bundled auth service, also while it runs
    User(user::Options),
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Prints the effective configuration: presets expanded, defaults filled in, secrets left out
    Show(Files),
}

/// The configuration files of a command.
#[derive(Debug, Clone, Args)]
pub(crate) struct Files {
    /// Configuration file; may be repeated: maps merge, lists append
    /// [default: $GATEHOUSE_CONFIG, else ./gatehouse.yaml]
    #[arg(short, long = "config", value_name = "FILE")]
    config: Vec<PathBuf>,
}

impl Files {
    /// The files to load.
    pub(crate) fn paths(&self) -> Vec<PathBuf> {
        if self.config.is_empty() { conf::default_paths() } else { self.config.clone() }
    }
}

/// Runs the program.
pub(crate) fn main() -> ExitCode {
    let arguments = Arguments::parse();
    install_crypto();
    service::process::log_to_stderr(arguments.filter().as_deref());
    let outcome = match arguments.command {
        Command::Run(options) => run::run(options),
        Command::Reload(options) => remote::run(Errand::Reload, &options),
        Command::Upgrade(options) => remote::run(Errand::Upgrade, &options),
        Command::Check(files) => check(&files),
        Command::Config(ConfigCommand::Show(files)) => show(&files),
        Command::Init(options) => init::init(&options),
        Command::Quickstart(options) => quickstart::quickstart(&options),
        Command::Maintenance(command) => maintenance::maintenance(command),
        Command::User(options) => user::user(options),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => say(&error),
    }
}

/// Prints why it failed: what the configuration is at fault for as it is, anything else with our name.
fn say(error: &anyhow::Error) -> ExitCode {
    if let Some(report) = error.downcast_ref::<conf::Report>() {
        eprint!("{report}");
        return ExitCode::from(EXIT_CONFIG);
    }
    let exit = error.downcast_ref::<Fault>().map_or(1, |fault| fault.exit);
    if exit == EXIT_CONFIG {
        eprintln!("{error:#}");
    } else {
        eprintln!("gatehouse: {error:#}");
    }
    ExitCode::from(exit)
}

impl Arguments {
    /// What is logged: as asked; by default the quickstart, which talks to people, logs warnings only.
    fn filter(&self) -> Option<String> {
        let quiet =
            matches!(self.command, Command::Quickstart(_)) && std::env::var_os("GATEHOUSE_LOG").is_none();
        self.log.clone().or_else(|| quiet.then(|| "warn".to_owned()))
    }
}

/// Makes aws-lc-rs the process's cryptography, before anything asks for a default.
fn install_crypto() {
    // An error means that one is installed, which nothing before this line does.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
}

/// Loads the configuration and prints its warnings.
///
/// # Errors
/// A [`conf::Report`] with every fault.
pub(crate) fn load(files: &Files) -> anyhow::Result<conf::Loaded> {
    let loaded = conf::load(&files.paths())?;
    if !loaded.warnings.diagnostics.is_empty() {
        eprint!("{}", loaded.warnings);
    }
    Ok(loaded)
}

fn check(files: &Files) -> anyhow::Result<()> {
    let loaded = load(files)?;
    println!("{}", summary(&loaded));
    Ok(())
}

fn show(files: &Files) -> anyhow::Result<()> {
    print!("{}", load(files)?.effective);
    Ok(())
}

/// One line that says what a configuration makes of the program.
fn summary(loaded: &conf::Loaded) -> String {
    let mut parts = Vec::new();
    if let Some(edge) = &loaded.config.edge {
        parts.push(format!(
            "edge with {}, {}, {}",
            count(edge.listeners.len(), "listener"),
            count(edge.sites.len(), "site"),
            count(edge.upstreams.len(), "upstream")
        ));
    }
    if let Some(auth) = &loaded.config.auth {
        parts.push(format!(
            "auth service for {} with {}",
            auth.matrix.homeserver,
            count(auth.http.listeners.len(), "listener")
        ));
    }
    let warnings = loaded.warnings.diagnostics.len();
    format!("ok: {}; {}", parts.join(", "), count(warnings, "warning"))
}

fn count(number: usize, what: &str) -> String {
    if number == 1 { format!("1 {what}") } else { format!("{number} {what}s") }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_arguments_are_consistent() {
        Arguments::command().debug_assert();
    }
}
