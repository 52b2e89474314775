//! The body of one HTTP/2 request: whether it is still awaited, and how fast it comes.

use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use accept::ClientAddress;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use crate::error::Fault;
use crate::limits::{Pace, PaceMeter, Slow};

use crate::access_log::LogHandle;

/// Shared by the request and whoever watches it.
#[derive(Debug)]
pub(crate) struct Upload {
    /// How fast the body comes. From outside nobody can see whether the engine waits for the client or for the upstream, so all
    /// time between two pieces is the client's. An upstream that takes nothing of a body has the shorter deadline.
    pace: Mutex<PaceMeter>,
    is_complete: AtomicBool,
    /// Of the upstream's answer; 0 before.
    status: AtomicU16,
    is_answered: AtomicBool,
    answered: Notify,
    /// For the access log, should the request be cut off.
    pub(crate) summary: OnceLock<Summary>,
}

/// What the access log says about a request that was cut off.
#[derive(Debug)]
pub(crate) struct Summary {
    /// Where the line goes.
    pub(crate) log: Option<LogHandle>,
    pub(crate) id: u64,
    pub(crate) client: ClientAddress,
    pub(crate) method: String,
    pub(crate) host: String,
    pub(crate) path: String,
    pub(crate) site: Option<String>,
    pub(crate) route: Option<String>,
    pub(crate) upstream: Option<String>,
}

impl Upload {
    /// A body that is awaited from now on.
    pub(super) fn new(pace: Pace) -> Self {
        let patience = pace.patience.saturating_add(ADVANTAGE);
        let mut meter = PaceMeter::new(Pace { patience, ..pace });
        meter.wait(Instant::now());
        Self {
            pace: Mutex::new(meter),
            is_complete: AtomicBool::new(false),
            status: AtomicU16::new(0),
            is_answered: AtomicBool::new(false),
            answered: Notify::new(),
            summary: OnceLock::new(),
        }
    }

    /// A piece of the request's body came.
    pub(crate) fn moved(&self, bytes: usize) {
        let now = Instant::now();
        let mut pace = self.pace();
        pace.pause(now);
        pace.earn(bytes as u64);
        pace.wait(now);
    }

    /// The body is complete.
    pub(crate) fn complete(&self) {
        self.is_complete.store(true, Ordering::Relaxed);
    }

    /// The upstream's answer has begun.
    pub(crate) fn begin_answer(&self, status: u16) {
        self.status.store(status, Ordering::Relaxed);
    }

    /// Status of the upstream's answer, if it has begun.
    pub(crate) fn status(&self) -> Option<u16> {
        Some(self.status.load(Ordering::Relaxed)).filter(|status| *status != 0)
    }

    /// The upstream's answer is complete.
    pub(crate) fn answer(&self) {
        if !self.is_answered.swap(true, Ordering::Relaxed) {
            let now = Instant::now();
            let mut pace = self.pace();
            pace.pause(now);
            pace.shorten(REST);
            pace.refill();
            pace.wait(now);
            self.answered.notify_one();
        }
    }

    /// Waits until the body has come too slowly, and says how; for ever once it is complete.
    pub(super) async fn too_slow(&self) -> Fault {
        loop {
            let empty = self.pace().wait(Instant::now());
            tokio::select! {
                () = sleep_until(empty) => {}
                // Now it ends sooner.
                () = self.answered.notified() => {}
            }
            if self.is_complete.load(Ordering::Relaxed) {
                return std::future::pending().await;
            }
            match self.pace().verdict(Instant::now()) {
                Some(Slow::Trickling) => return Fault::BodySlow,
                Some(Slow::Silent) => return Fault::BodyTimeout,
                None => {}
            }
        }
    }

    fn pace(&self) -> MutexGuard<'_, PaceMeter> {
        self.pace.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A body that nobody waits for any more, because the answer is complete, has this long to go on.
const REST: Duration = Duration::from_secs(10);
/// What a client has above an upstream, whose deadline (`upstream::peer`) is the same and cannot be seen to begin.
const ADVANTAGE: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use tokio::time::timeout;

    use super::*;

    const PACE: Pace = Pace { patience: Duration::from_secs(60), rate: 512 };

    /// A body of which `bytes` come every `seconds`, for ten minutes: what it is cut off for, and when.
    async fn check(bytes: usize, seconds: u64) -> Option<(Fault, u64)> {
        let (start, upload) = (Instant::now(), Upload::new(PACE));
        let come = async {
            while start.elapsed() < Duration::from_secs(600) {
                sleep_until(Instant::now() + Duration::from_secs(seconds)).await;
                upload.moved(bytes);
            }
        };
        tokio::select! {
            fault = upload.too_slow() => Some((fault, start.elapsed().as_secs())),
            () = come => None,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn trickles_are_cut_off() {
        assert_eq!(check(1, 59).await, Some((Fault::BodySlow, 61)));
        assert_eq!(check(1000, 1000).await, Some((Fault::BodyTimeout, 61)));
        assert_eq!(check(1024, 1).await, None);
        assert_eq!(check(1 << 20, 50).await, None);
    }

    #[tokio::test(start_paused = true)]
    async fn the_rest_of_a_body_has_less_time() {
        let upload = Upload::new(PACE);
        let cut = timeout(Duration::from_secs(50), upload.too_slow());
        let answered = async {
            sleep_until(Instant::now() + Duration::from_secs(20)).await;
            upload.answer();
            sleep_until(Instant::now() + Duration::from_secs(5)).await;
            upload.moved(100_000);
        };
        let start = Instant::now();
        let (cut, ()) = tokio::join!(cut, answered);
        assert_eq!((cut, start.elapsed().as_secs()), (Ok(Fault::BodyTimeout), 35));
    }

    #[tokio::test(start_paused = true)]
    async fn a_complete_body_is_never_too_slow() {
        let upload = Upload::new(PACE);
        upload.complete();
        assert!(timeout(Duration::from_secs(1000), upload.too_slow()).await.is_err());
    }
}
