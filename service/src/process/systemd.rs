//! Words to systemd, sd_notify(3). Without systemd nothing happens.

use sd_notify::NotifyState;
use tracing::warn;

/// Work is taken (`READY=1`), after the start and after a reload.
pub fn notify_ready() {
    tell(&[NotifyState::Ready]);
}

/// The drain has begun (`STOPPING=1`).
pub fn notify_stopping() {
    tell(&[NotifyState::Stopping]);
}

/// Another configuration, or another process, is about to take the place of this one (`RELOADING=1`); [`notify_ready`] ends it.
pub(super) fn notify_reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        Err(error) => warn!(%error, "systemd cannot be told"),
    }
}

/// Which process is the service from now on (`MAINPID=`). Said by the one that was it, which alone is believed.
pub(super) fn notify_main_process(pid: u32) {
    tell(&[NotifyState::MainPid(pid)]);
}

/// We live (`WATCHDOG=1`).
pub(super) fn notify_alive() {
    tell(&[NotifyState::Watchdog]);
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        warn!(%error, "systemd cannot be told");
    }
}
