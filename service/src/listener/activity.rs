//! What happens on a connection, and what is to be done about it: whether it has been idle for too long, is too slow with the head of a
//! request or in taking an answer, sends frames that nobody needs, or is to end anyway. Time is an argument.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use accept::http2::{Flood, FloodLimits, Watch};
use accept::pace::{Pace, PaceMeter, Slow};
use conf::{HttpLimits, HttpTimeouts};
use http::Version;
use tokio::time::Instant;

use crate::limit::Limit;

/// A connection that is to end gets a further request when it has been quiet for less than this: whoever sends one after the other has
/// sent the next one already. It is told with the answer that it was the last one.
pub(super) const LAST_CHANCE: Duration = Duration::from_secs(1);

/// What happened on a connection.
#[derive(Debug)]
pub(super) struct Activity(Mutex<Inner>);

#[derive(Debug)]
struct Inner {
    limits: HttpLimits,
    timeouts: HttpTimeouts,
    speaks: Speaks,
    /// How many there have been.
    requests: usize,
    /// Requests that are not answered yet, and how their clients take the answer.
    in_flight: BTreeMap<usize, Option<PaceMeter>>,
    /// Since when there is no request in flight.
    idle_since: Instant,
    /// When the first byte of a head came that is not complete yet. That of the first request is due from the start.
    head_since: Option<Instant>,
    /// Bytes since the last head was complete.
    head_bytes: u64,
    /// Whether the client may still be sending what nobody will read.
    unread: bool,
    /// Whether the connection is to end.
    ending: bool,
}

/// What a client speaks, told from its first bytes.
#[derive(Debug)]
enum Speaks {
    /// So many bytes of the preface of HTTP/2 have come.
    Perhaps(usize, Box<Watch>),
    Http1,
    Http2(Box<Watch>),
}

/// What is to be done with a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nothing.
    Fine,
    /// Close it politely; for a limit, or because it is to end.
    End(Option<Limit>),
    /// Close it.
    Cut(Limit),
}

/// A request in flight; ends when dropped.
#[derive(Debug)]
pub(super) struct InFlight {
    activity: Arc<Activity>,
    number: usize,
}

impl Activity {
    /// A connection that has just been accepted: its first request is due.
    pub(super) fn new(limits: HttpLimits, timeouts: HttpTimeouts, now: Instant) -> Self {
        let floods = FloodLimits { control_frames: limits.h2_control_frames, resets: limits.h2_resets };
        Self(Mutex::new(Inner {
            limits,
            timeouts,
            speaks: Speaks::Perhaps(0, Box::new(Watch::new(floods, now.into_std()))),
            requests: 0,
            in_flight: BTreeMap::new(),
            idle_since: now,
            head_since: Some(now),
            head_bytes: 0,
            unread: false,
            ending: false,
        }))
    }

    /// Other limits from now on.
    pub(super) fn change(&self, limits: HttpLimits, timeouts: HttpTimeouts) {
        let mut inner = self.inner();
        (inner.limits, inner.timeouts) = (limits, timeouts);
    }

    /// How often a verdict is worth asking for.
    pub(super) fn look_every(&self) -> Duration {
        let HttpTimeouts { header, idle, send, .. } = self.inner().timeouts;
        (header.min(idle).min(send) / 4).clamp(SHORTEST_LOOK, LONGEST_LOOK)
    }

    /// The connection is to end: politely, and as soon as nobody loses anything by it.
    pub(super) fn end(&self) {
        self.inner().ending = true;
    }

    /// Whether it is.
    pub(super) fn is_ending(&self) -> bool {
        self.inner().ending
    }

    /// Whether a request is not answered yet.
    pub(super) fn is_busy(&self) -> bool {
        !self.inner().in_flight.is_empty()
    }

    /// Bytes came.
    ///
    /// # Errors
    /// When they are a flood of frames that carry nothing.
    pub(super) fn received(&self, bytes: &[u8], now: Instant) -> Result<(), Limit> {
        let mut inner = self.inner();
        let inner = &mut *inner;
        inner.head_bytes = inner.head_bytes.saturating_add(bytes.len() as u64);
        inner.speaks.learn(bytes);
        match &mut inner.speaks {
            Speaks::Http1 => {
                if inner.in_flight.is_empty() {
                    inner.head_since.get_or_insert(now);
                }
                Ok(())
            }
            Speaks::Perhaps(_, watch) | Speaks::Http2(watch) => {
                let flood = watch.received(bytes, now.into_std());
                if !watch.awaits_head() {
                    inner.head_since = None;
                } else if inner.head_since.is_none() {
                    inner.head_since = Some(now);
                }
                flood.map_err(limit_of)
            }
        }
    }

    /// Bytes went.
    ///
    /// # Errors
    /// When the client makes us reset too many streams.
    pub(super) fn sent(&self, bytes: &[u8], now: Instant) -> Result<(), Limit> {
        match &mut self.inner().speaks {
            Speaks::Http2(watch) => watch.sent(bytes, now.into_std()).map_err(limit_of),
            Speaks::Http1 | Speaks::Perhaps(..) => Ok(()),
        }
    }

    /// The head of a request is complete. Also whether it is the last that is taken.
    pub(super) fn begin(self: &Arc<Self>, version: Version) -> (InFlight, Option<Limit>) {
        let mut inner = self.inner();
        inner.requests += 1;
        let number = inner.requests;
        inner.in_flight.insert(number, None);
        if version < Version::HTTP_2 {
            inner.head_since = None;
        }
        inner.head_bytes = 0;
        let last = number == inner.limits.max_requests_per_connection;
        inner.ending |= number >= inner.limits.max_requests_per_connection;
        drop(inner);
        (InFlight { activity: self.clone(), number }, last.then_some(Limit::MaxRequestsPerConnection))
    }

    /// The connection ends because a head is too large: for which limit.
    pub(super) fn head_too_large(&self) -> Limit {
        let mut inner = self.inner();
        inner.unread = true;
        if inner.head_bytes >= inner.limits.max_header_size.0 {
            Limit::MaxHeaderSize
        } else {
            Limit::MaxHeaderCount
        }
    }

    /// What HTTP/2 has too much of, when the library says so.
    pub(super) fn flood(&self) -> Limit {
        match &self.inner().speaks {
            Speaks::Http2(watch) if watch.awaits_head() => Limit::H2ControlFrames,
            Speaks::Http2(_) | Speaks::Http1 | Speaks::Perhaps(..) => Limit::H2Resets,
        }
    }

    /// Nobody will read the rest of a body.
    pub(super) fn leave_unread(&self) {
        self.inner().unread = true;
    }

    /// Whether the client may still be sending what nobody will read: then an answer only reaches it if its bytes are thrown away.
    pub(super) fn is_unread(&self) -> bool {
        let inner = self.inner();
        let in_a_head = inner.head_bytes > 0 && matches!(inner.speaks, Speaks::Http1);
        inner.unread || in_a_head
    }

    /// What is to be done at `now`.
    pub(super) fn verdict(&self, now: Instant) -> Verdict {
        let inner = self.inner();
        if let Some(slow) = inner.in_flight.values().flatten().find_map(|meter| meter.verdict(now)) {
            return Verdict::Cut(slow_reader(slow));
        }
        let multiplexed = matches!(inner.speaks, Speaks::Http2(_));
        let may_be_in_head = multiplexed || inner.in_flight.is_empty();
        if let Some(since) = inner.head_since.filter(|_| may_be_in_head)
            && now.duration_since(since) >= inner.timeouts.header
        {
            return Verdict::Cut(Limit::Header);
        }
        let idle = inner.in_flight.is_empty().then(|| now.duration_since(inner.idle_since));
        match idle {
            // HTTP/2 has a way to say that no stream is lost.
            _ if inner.ending && multiplexed => Verdict::End(None),
            Some(idle) if inner.ending && inner.head_bytes == 0 && idle >= LAST_CHANCE => Verdict::End(None),
            Some(idle) if idle >= inner.timeouts.idle => Verdict::End(Some(Limit::Idle)),
            _ => Verdict::Fine,
        }
    }

    /// How slow a client may be in taking something.
    pub(super) fn send_pace(&self) -> Pace {
        let inner = self.inner();
        Pace { patience: inner.timeouts.send, rate: inner.limits.min_send_rate.0 }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        // Nothing inside the lock can leave it half changed.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl InFlight {
    /// The next piece of the answer is there for the client to take, or it has taken the one before, of so many bytes.
    pub(super) fn offers(&self, taken: u64, now: Instant) {
        let mut inner = self.activity.inner();
        let pace = Pace { patience: inner.timeouts.send, rate: inner.limits.min_send_rate.0 };
        if let Some(meter) = inner.in_flight.get_mut(&self.number) {
            let meter = meter.get_or_insert_with(|| PaceMeter::new(pace));
            meter.pause(now);
            meter.earn(taken);
            meter.wait(now);
        }
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        let mut inner = self.activity.inner();
        inner.in_flight.remove(&self.number);
        inner.idle_since = Instant::now();
        if matches!(inner.speaks, Speaks::Http1) {
            // What has come since was its body.
            (inner.head_since, inner.head_bytes) = (None, 0);
        }
    }
}

impl Speaks {
    fn learn(&mut self, bytes: &[u8]) {
        let Self::Perhaps(known, _) = self else { return };
        let rest = &PREFACE[*known..];
        let common = rest.len().min(bytes.len());
        if rest[..common] != bytes[..common] {
            *self = Self::Http1;
            return;
        }
        *known += common;
        if *known == PREFACE.len()
            && let Self::Perhaps(_, watch) = std::mem::replace(self, Self::Http1)
        {
            *self = Self::Http2(watch);
        }
    }
}

/// Of an answer.
pub(super) fn slow_reader(slow: Slow) -> Limit {
    match slow {
        Slow::Silent => Limit::Send,
        Slow::Trickling => Limit::MinSendRate,
    }
}

fn limit_of(flood: Flood) -> Limit {
    match flood {
        Flood::ControlFrames => Limit::H2ControlFrames,
        Flood::Resets => Limit::H2Resets,
    }
}

/// RFC 9113 §3.4.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// A deadline may be missed by a quarter, and by so much at least.
const SHORTEST_LOOK: Duration = Duration::from_millis(100);
/// Deadlines are missed by so much at most.
const LONGEST_LOOK: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests;
