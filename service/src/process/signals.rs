//! Signals: the first to stop drains, the second ends the process at once.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tracing::{debug, warn};

/// Becomes true at the first SIGTERM, SIGINT or SIGQUIT; the second one ends the process at once with exit code 1.
///
/// To be called inside a runtime, which has to live as long as the process.
///
/// # Errors
/// When the system refuses to register a handler.
pub fn stop_signal() -> io::Result<watch::Receiver<bool>> {
    let mut stops = Stops {
        terminate: signal(SignalKind::terminate())?,
        interrupt: signal(SignalKind::interrupt())?,
        quit: signal(SignalKind::quit())?,
    };
    let (sender, receiver) = watch::channel(false);
    tokio::spawn(async move {
        let first = stops.next().await;
        debug!(signal = first, "asked to stop");
        sender.send_replace(true);
        let second = stops.next().await;
        warn!(signal = second, "second signal: ended at once");
        std::process::exit(1);
    });
    Ok(receiver)
}

/// The signals to stop.
struct Stops {
    terminate: Signal,
    interrupt: Signal,
    /// With which nginx is stopped gently.
    quit: Signal,
}

impl Stops {
    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
            _ = self.quit.recv() => "SIGQUIT",
        }
    }
}

/// What else is asked by signals, with the meaning that they have for nginx, so that rules written for it do no harm here.
#[derive(Debug)]
pub(super) struct Wishes {
    hangup: Signal,
    reopen: Signal,
    upgrade: Signal,
}

/// What a signal asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wish {
    /// SIGHUP; and SIGUSR1, since a reload opens the access log anew.
    Reload,
    /// SIGUSR2.
    Upgrade,
}

impl Wishes {
    /// From now on these signals do not end the process.
    ///
    /// # Errors
    /// When the system refuses to register a handler.
    pub(super) fn listen() -> io::Result<Self> {
        Ok(Self {
            hangup: signal(SignalKind::hangup())?,
            reopen: signal(SignalKind::user_defined1())?,
            upgrade: signal(SignalKind::user_defined2())?,
        })
    }

    /// The next one. Cancel safe.
    pub(super) async fn next(&mut self) -> Wish {
        tokio::select! {
            _ = self.hangup.recv() => Wish::Reload,
            _ = self.reopen.recv() => Wish::Reload,
            _ = self.upgrade.recv() => Wish::Upgrade,
        }
    }
}
