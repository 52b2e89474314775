//! Whether a connection has been idle for too long, or is too slow with the head of a request.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::Version;
use tokio::time::Instant;

/// Between two requests. Longer than proxies keep unused connections (nginx and ours: 60 s or less), so that it is them who close.
pub(super) const IDLE: Duration = Duration::from_secs(90);
/// A connection that is to end gets a further request when it has been quiet for less than this: whoever sends one after the other has
/// sent the next one already. It is told with the answer that it was the last one.
pub(super) const LAST_CHANCE: Duration = Duration::from_secs(1);
/// From the first byte of a request's head, or from the start of the connection, to the head's end.
pub(super) const HEAD: Duration = Duration::from_secs(15);

/// What happened on a connection.
#[derive(Debug)]
pub(super) struct Activity(Mutex<Inner>);

#[derive(Debug)]
struct Inner {
    in_flight: usize,
    /// Since when there is no request in flight.
    idle_since: Instant,
    /// When the first byte after the last request came.
    head_since: Option<Instant>,
    /// HTTP/2 sends frames between requests that are no beginning of one.
    multiplexed: bool,
    /// Whether no byte has come since the last request, or since the start.
    quiet: bool,
    /// Whether the connection is to end.
    ending: bool,
}

/// What is to be done with a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nothing.
    Fine,
    /// Close it politely.
    Idle,
    /// Close it.
    HeadTooSlow,
}

/// A request in flight; ends when dropped.
#[derive(Debug)]
pub(super) struct InFlight(Arc<Activity>);

impl Activity {
    /// A connection that has just been accepted: its first request is due.
    pub(super) fn new() -> Self {
        let now = Instant::now();
        Self(Mutex::new(Inner {
            in_flight: 0,
            idle_since: now,
            head_since: Some(now),
            multiplexed: false,
            quiet: true,
            ending: false,
        }))
    }

    /// The connection is to end: politely, and as soon as nobody loses anything by it.
    pub(super) fn end(&self) {
        self.inner().ending = true;
    }

    /// Whether it is.
    pub(super) fn is_ending(&self) -> bool {
        self.inner().ending
    }

    /// Bytes came.
    pub(super) fn received(&self) {
        let mut inner = self.inner();
        inner.quiet = false;
        if inner.in_flight == 0 && inner.head_since.is_none() {
            inner.head_since = Some(Instant::now());
        }
    }

    /// The head of a request is complete.
    pub(super) fn begin(self: &Arc<Self>, version: Version) -> InFlight {
        let mut inner = self.inner();
        inner.in_flight += 1;
        inner.head_since = None;
        inner.multiplexed |= version == Version::HTTP_2;
        drop(inner);
        InFlight(self.clone())
    }

    /// What is to be done at `now`.
    pub(super) fn verdict(&self, now: Instant) -> Verdict {
        let inner = self.inner();
        if inner.ending {
            // HTTP/2 has a way to say that no stream is lost.
            let quiet = inner.quiet && now.duration_since(inner.idle_since) >= LAST_CHANCE;
            if inner.multiplexed || (inner.in_flight == 0 && quiet) {
                return Verdict::Idle;
            }
        }
        match inner.head_since {
            _ if inner.in_flight > 0 => Verdict::Fine,
            Some(since) if !inner.multiplexed && now.duration_since(since) >= HEAD => Verdict::HeadTooSlow,
            _ if now.duration_since(inner.idle_since) >= IDLE => Verdict::Idle,
            _ => Verdict::Fine,
        }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        // Nothing inside the lock can leave it half changed.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        let mut inner = self.0.inner();
        inner.in_flight -= 1;
        inner.idle_since = Instant::now();
        inner.head_since = None;
        inner.quiet = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_without_a_request_is_closed_soon() {
        let activity = Activity::new();
        let now = Instant::now();
        assert_eq!(activity.verdict(now), Verdict::Fine);
        assert_eq!(activity.verdict(now + HEAD), Verdict::HeadTooSlow);
    }

    #[test]
    fn a_request_in_flight_may_take_its_time_and_idleness_counts_from_its_end() {
        let activity = Arc::new(Activity::new());
        let request = activity.begin(Version::HTTP_11);
        activity.received();
        assert_eq!(activity.verdict(Instant::now() + IDLE * 10), Verdict::Fine);
        drop(request);
        assert_eq!(activity.verdict(Instant::now() + HEAD), Verdict::Fine);
        assert_eq!(activity.verdict(Instant::now() + IDLE), Verdict::Idle);
    }

    #[test]
    fn a_slow_second_head_is_not_idleness() {
        let activity = Arc::new(Activity::new());
        drop(activity.begin(Version::HTTP_11));
        activity.received();
        assert_eq!(activity.verdict(Instant::now() + HEAD), Verdict::HeadTooSlow);
    }

    #[test]
    fn frames_between_requests_of_http2_are_no_head() {
        let activity = Arc::new(Activity::new());
        drop(activity.begin(Version::HTTP_2));
        activity.received();
        assert_eq!(activity.verdict(Instant::now() + HEAD), Verdict::Fine);
        assert_eq!(activity.verdict(Instant::now() + IDLE), Verdict::Idle);
    }
}
