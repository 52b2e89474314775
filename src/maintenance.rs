//! `gatehouse maintenance …`: switches maintenance mode by a file in `data_dir`, which a running edge watches.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand};
use ipnet::IpNet;
use proxy::maintenance::{Notice, StateFile};
use serde_json::json;

use crate::cli::{self, Files};

/// What `gatehouse maintenance` is told.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Switches it on, or changes what is said
    On(On),
    /// Switches it off
    Off {
        #[command(flatten)]
        files: Files,
    },
    /// Says whether it is on
    Status {
        #[command(flatten)]
        files: Files,
        /// Prints JSON
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, Args)]
pub(crate) struct On {
    #[command(flatten)]
    files: Files,
    /// What people and clients are told, one line [default: "This server is down for maintenance and will be back soon"]
    #[arg(long, value_name = "TEXT")]
    message: Option<String>,
    /// When clients are told to ask again, 1s to 30d
    #[arg(long, value_name = "DURATION", default_value = "10m", value_parser = conf::parse_duration)]
    retry_after: Duration,
    /// Clients that are served as ever, by network or address; may be repeated
    #[arg(long, value_name = "NETWORK", value_parser = conf::parse_network)]
    allow: Vec<IpNet>,
}

/// Runs one of the commands.
///
/// # Errors
/// Configuration without an edge, a message that cannot be shown, a `data_dir` that is missing or not writable.
pub(crate) fn maintenance(command: Command) -> Result<()> {
    match command {
        Command::On(on) => switch_on(on),
        Command::Off { files } => {
            let was_on = state_file(&files)?.remove().context("maintenance mode cannot be switched off")?;
            println!("maintenance mode is off{}", if was_on { "" } else { ", and was before" });
            Ok(())
        }
        Command::Status { files, json } => {
            let notice = state_file(&files)?.read()?;
            if json {
                println!("{:#}", as_json(notice.as_ref()));
            } else {
                print_status(notice.as_ref());
            }
            Ok(())
        }
    }
}

fn switch_on(on: On) -> Result<()> {
    let notice = Notice::new(on.message.as_deref(), on.retry_after, on.allow, now())?;
    let file = state_file(&on.files)?;
    file.write(&notice).context("maintenance mode cannot be switched on")?;
    println!(
        "maintenance mode is on; a running edge notices within about a second, `gatehouse maintenance off` ends it"
    );
    Ok(())
}

/// The file that the edge of this configuration watches.
fn state_file(files: &Files) -> Result<StateFile> {
    let config = cli::load(files)?.config;
    if config.edge.is_none() {
        bail!(
            "the configuration has no edge, and maintenance mode is the edge's: switch it in the proxy before the auth service"
        );
    }
    Ok(StateFile::of(&config.data_dir))
}

fn print_status(notice: Option<&Notice>) {
    let Some(notice) = notice else { return println!("maintenance mode is off") };
    println!("maintenance mode is on");
    println!("since:       {}", httpdate::fmt_http_date(notice.since()));
    println!("message:     {}", notice.message());
    println!("retry after: {} s", notice.retry_after().as_secs());
    println!(
        "allowed:     {}",
        match notice.allow() {
            [] => "nobody".to_owned(),
            networks => networks.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
        }
    );
}

fn as_json(notice: Option<&Notice>) -> serde_json::Value {
    let Some(notice) = notice else { return json!({ "maintenance": false }) };
    json!({
        "maintenance": true,
        "since": notice.since().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs(),
        "message": notice.message(),
        "retry_after_secs": notice.retry_after().as_secs(),
        "allow": notice.allow().iter().map(ToString::to_string).collect::<Vec<_>>(),
    })
}

#[expect(
    clippy::disallowed_methods,
    reason = "a command of its own is the outermost place, where the clock comes from"
)]
fn now() -> SystemTime {
    SystemTime::now()
}
