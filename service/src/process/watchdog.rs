//! The watchdog of a unit with `WatchdogSec=`: it hears of us only while everything that serves answers.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};
use tracing::{info, warn};

use super::supervisor::Work;
use super::systemd;

/// Ends the words to the watchdog when dropped.
#[derive(Debug)]
pub(super) struct Watchdog(Option<JoinHandle<()>>);

impl Watchdog {
    /// Begins, when systemd asks for it: for this process, or for whichever is the service (after a takeover `WATCHDOG_PID`, the
    /// number of the first one, is not set).
    pub(super) fn start<W: Work>(work: &Arc<W>) -> Self {
        Self(sd_notify::watchdog_enabled().map(|period| {
            let work = work.clone();
            tokio::spawn(async move { watch(&*work, period, systemd::notify_alive).await })
        }))
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        if let Some(task) = &self.0 {
            task.abort();
        }
    }
}

/// Twice per period: asks everything, and says `alive` if all of it answers in that time.
async fn watch<W: Work>(work: &W, period: Duration, alive: impl Fn()) {
    let half = (period / 2).max(SHORTEST);
    let mut is_fine = true;
    loop {
        let next = Instant::now() + half;
        match work.answers(half).await {
            Ok(()) => {
                if !is_fine {
                    info!("everything answers again");
                }
                is_fine = true;
                alive();
            }
            Err(fault) => {
                // Once, and not as often as it is asked.
                if is_fine {
                    warn!(error = fault, "the watchdog is not told that we live");
                }
                is_fine = false;
            }
        }
        sleep_until(next).await;
    }
}

/// A unit that asks for less gets no more.
const SHORTEST: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::super::Fault;
    use super::*;

    /// Answers five times.
    struct Moody(AtomicU32);

    impl Work for Moody {
        type Prepared = ();

        async fn prepare(&self, _: conf::Config, _: &mut accept::Change) -> Result<(), Fault> {
            Ok(())
        }

        async fn commit(&self, (): ()) {}

        fn handed_over(&self) {}

        async fn answers(&self, patience: Duration) -> Result<(), String> {
            if self.0.fetch_add(1, Ordering::Relaxed) < 5 {
                return Ok(());
            }
            tokio::time::sleep(patience).await;
            Err("edge-0 does not answer".into())
        }
    }

    #[tokio::test(start_paused = true)]
    async fn only_who_answers_is_alive() {
        let (work, words) = (Moody(AtomicU32::new(0)), AtomicU32::new(0));
        let watching = watch(&work, Duration::from_secs(20), || {
            words.fetch_add(1, Ordering::Relaxed);
        });
        let _ = tokio::time::timeout(Duration::from_secs(151), watching).await;
        assert_eq!(words.into_inner(), 5, "at once, then every 10 s");
        assert_eq!(work.0.into_inner(), 16, "asked all the time");
    }
}
