//! Signals: the first to stop drains, the second ends the process at once.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tracing::{debug, warn};

/// Becomes true at the first SIGTERM or SIGINT; the second one ends the process at once with exit code 1.
///
/// To be called inside a runtime, which has to live as long as the process.
///
/// # Errors
/// When the system refuses to register a handler.
pub fn stop_signal() -> io::Result<watch::Receiver<bool>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let (sender, receiver) = watch::channel(false);
    tokio::spawn(async move {
        let first = either(&mut terminate, &mut interrupt).await;
        debug!(signal = first, "asked to stop");
        sender.send_replace(true);
        let second = either(&mut terminate, &mut interrupt).await;
        warn!(signal = second, "second signal: ended at once");
        std::process::exit(1);
    });
    Ok(receiver)
}

/// SIGHUP does not end the program from now on: it is said that this version has to be restarted to read its configuration again.
///
/// # Errors
/// When the system refuses to register a handler.
pub fn outlive_hangup() -> io::Result<()> {
    let mut hangup = signal(SignalKind::hangup())?;
    tokio::spawn(async move {
        while hangup.recv().await.is_some() {
            warn!("SIGHUP: this version does not reload its configuration, restart it instead");
        }
    });
    Ok(())
}

async fn either(terminate: &mut Signal, interrupt: &mut Signal) -> &'static str {
    tokio::select! {
        _ = terminate.recv() => "SIGTERM",
        _ = interrupt.recv() => "SIGINT",
    }
}
