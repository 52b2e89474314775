//! How much of its uploads a client may have under way (RFC 9113 §6.9). A connection begins with little, which bounds what clients whose
//! upstream takes nothing can leave with us. One that fills its window within a round trip, so that it has to wait for the next although
//! everything was passed on, gets twice as much, up to a limit for the connection and one for all of a worker's.

use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use h2::{Ping, PingPong};
use pingora::protocols::Stream;
use tokio::time::Instant;

use crate::listener::ClientConnection;

/// What the windows of a worker's connections have grown by, over HTTP/2.
#[derive(Debug, Default)]
pub(crate) struct Grown(AtomicU64);

/// The windows of one connection.
pub(super) struct Windows<'a> {
    client: &'a ClientConnection,
    size: Size,
    most: u32,
    /// Bytes that are this connection's of [`Grown`].
    grown: u64,
    /// Not while a round trip is measured.
    ping: Option<PingPong>,
    trip: Option<Trip>,
    last_trip: Option<Instant>,
}

/// Bytes that may be under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Size {
    /// Of one stream.
    stream: u32,
    /// Of all.
    connection: u32,
}

/// A `PING` that is not answered yet.
struct Trip {
    answer: Pin<Box<dyn Future<Output = Option<PingPong>> + Send>>,
    /// What had been uploaded when it was sent.
    uploaded: u64,
}

impl Size {
    /// That of a new connection which may come to `most`.
    fn first(most: u32) -> Self {
        Self { stream: FIRST_STREAM.min(most), connection: FIRST_CONNECTION.min(most) }
    }

    /// What follows when so many bytes came within a round trip; `None` when the window was not what they waited for.
    fn after(self, uploaded: u64, most: u32) -> Option<Self> {
        let is_full = uploaded.saturating_mul(3) >= u64::from(self.stream) * 2;
        let doubled = |size: u32| size.saturating_mul(2).min(most);
        let next = Self { stream: doubled(self.stream), connection: doubled(self.connection) };
        (is_full && next != self).then_some(next)
    }
}

impl Grown {
    /// Takes so many bytes if they are there.
    fn take(&self, bytes: u64) -> bool {
        let taken = self.0.fetch_add(bytes, Ordering::Relaxed) + bytes;
        if taken > MOST_GROWN {
            self.give_back(bytes);
        }
        taken <= MOST_GROWN
    }

    fn give_back(&self, bytes: u64) {
        self.0.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// With what `most` a connection begins: for a stream, and for all of them.
pub(super) fn first(most: u32) -> (u32, u32) {
    let size = Size::first(most);
    (size.stream, size.connection)
}

impl<'a> Windows<'a> {
    /// Those of a new connection that may come to `most`.
    pub(super) fn new(client: &'a ClientConnection, ping: Option<PingPong>, most: u32) -> Self {
        Self { client, size: Size::first(most), most, grown: 0, ping, trip: None, last_trip: None }
    }

    /// A piece of an upload has come: time to see how much comes within a round trip, unless that was just done.
    pub(super) fn measure(&mut self) {
        let now = Instant::now();
        let is_too_soon = self.last_trip.is_some_and(|last| now < last + BETWEEN_TRIPS);
        if is_too_soon || self.size.stream >= self.most {
            return;
        }
        let Some(mut ping) = self.ping.take() else { return };
        self.last_trip = Some(now);
        let answer = Box::pin(async move { ping.ping(Ping::opaque()).await.is_ok().then_some(ping) });
        self.trip = Some(Trip { answer, uploaded: self.client.uploaded() });
    }

    /// Waits for the end of a round trip: what was uploaded meanwhile.
    pub(super) async fn measured(&mut self) -> u64 {
        let Some(trip) = &mut self.trip else { return std::future::pending().await };
        self.ping = trip.answer.as_mut().await;
        let before = trip.uploaded;
        self.trip = None;
        self.client.uploaded().saturating_sub(before)
    }

    /// Opens the windows further if they were what an upload waited for.
    pub(super) fn grow(&mut self, library: &mut h2::server::Connection<Stream, Bytes>, uploaded: u64) {
        let Some(next) = self.size.after(uploaded, self.most) else { return };
        let more = u64::from(next.connection - self.size.connection);
        let all = self.client.counters.grown();
        if !all.take(more) {
            return;
        }
        if library.set_initial_window_size(next.stream).is_err() {
            // The client has not acknowledged the last change: there is another time.
            return all.give_back(more);
        }
        library.set_target_window_size(next.connection);
        self.grown += more;
        self.size = next;
    }

    /// As at the beginning: the connection has no streams.
    pub(super) fn shrink(&mut self, library: &mut h2::server::Connection<Stream, Bytes>) {
        let first = Size::first(self.most);
        if self.size == first || library.set_initial_window_size(first.stream).is_err() {
            return;
        }
        library.set_target_window_size(first.connection);
        self.client.counters.grown().give_back(std::mem::take(&mut self.grown));
        self.size = first;
    }
}

impl Drop for Windows<'_> {
    fn drop(&mut self) {
        self.client.counters.grown().give_back(self.grown);
    }
}

/// As a new connection has it for one stream: 40 Mbit/s over 50 ms.
const FIRST_STREAM: u32 = 256 * 1024;
/// For all streams: what a client may leave with us when nothing is passed on.
const FIRST_CONNECTION: u32 = 512 * 1024;
/// Eight connections at the default limit, or more that have not grown as far, for each worker.
const MOST_GROWN: u64 = 64 << 20;
/// Each is a `PING`, and an answer of the client.
const BETWEEN_TRIPS: Duration = Duration::from_millis(20);

#[cfg(test)]
mod tests {
    use super::*;

    const KIB: u32 = 1024;
    const MIB: u32 = 1024 * KIB;

    #[test]
    fn a_full_window_is_doubled_up_to_the_limit() {
        let mut size = Size::first(8 * MIB);
        let mut steps = Vec::new();
        while let Some(next) = size.after(u64::from(size.stream), 8 * MIB) {
            steps.push((next.stream / KIB, next.connection / KIB));
            size = next;
        }
        assert_eq!(steps, [(512, 1024), (1024, 2048), (2048, 4096), (4096, 8192), (8192, 8192)]);
    }

    #[test]
    fn a_window_that_is_not_filled_is_large_enough() {
        let size = Size::first(8 * MIB);
        assert_eq!(size.after(u64::from(size.stream) / 2, 8 * MIB), None);
        assert!(size.after(u64::from(size.stream) / 3 * 2 + 1, 8 * MIB).is_some());
        assert_eq!(size.after(0, 8 * MIB), None);
    }

    #[test]
    fn a_small_limit_is_kept_from_the_beginning() {
        let size = Size::first(100 * KIB);
        assert_eq!(size, Size { stream: 100 * KIB, connection: 100 * KIB });
        assert_eq!(size.after(u64::MAX, 100 * KIB), None);
    }

    #[test]
    fn all_together_grow_so_far() {
        let grown = Grown::default();
        assert!(grown.take(MOST_GROWN - 1) && !grown.take(2) && grown.take(1));
        assert!(!grown.take(1));
        grown.give_back(MOST_GROWN);
        assert!(grown.take(MOST_GROWN));
    }
}
