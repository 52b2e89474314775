//! Pieces of answers that are ours until the client takes them: over HTTP/2 nobody else can see that a client leaves them with us, and
//! one connection may have many answers that it leaves. When all of a worker's clients leave too much, those who leave most go.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;

use super::ClientConnection;
use crate::error::Fault;
use crate::metrics::Limit;

/// What the clients of a worker have waiting, over HTTP/2.
#[derive(Debug, Default)]
pub(crate) struct Waiting {
    bytes: AtomicU64,
    /// Connections with anything waiting.
    connections: AtomicU64,
}

/// A piece of an answer, counted as long as it lives.
struct Held {
    piece: Bytes,
    connection: Arc<ClientConnection>,
}

impl Waiting {
    /// Bytes of all connections.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Counts bytes that are there for a connection now, which had `before` of them.
    fn add(&self, before: u64, bytes: u64) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        if before == 0 {
            self.connections.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// They are gone, and so many are `left`.
    fn take(&self, left: u64, bytes: u64) {
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
        if left == 0 {
            self.connections.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Whether there is more than `limit` in all, and a connection that has `held` has more than its share of that.
    fn is_too_much(&self, held: u64, limit: u64) -> bool {
        let connections = self.connections.load(Ordering::Relaxed);
        held > ALWAYS_BYTES && self.bytes() > limit && held.saturating_mul(connections) > limit
    }
}

impl ClientConnection {
    /// The same piece, counted until it has been written or thrown away.
    ///
    /// # Errors
    /// When there is too much of it, and the connection ends for that.
    pub(crate) fn holding(self: &Arc<Self>, piece: Bytes) -> Result<Bytes, Fault> {
        if piece.is_empty() {
            return Ok(piece);
        }
        let bytes = piece.len() as u64;
        let before = self.held.fetch_add(bytes, Ordering::Relaxed);
        let waiting = self.counters.waiting();
        waiting.add(before, bytes);
        let held = Held { piece, connection: self.clone() };
        if waiting.is_too_much(before + bytes, self.buffer) {
            self.breaches(Limit::Http2Buffer);
        }
        match self.breach() {
            Some(_) => Err(Fault::ClientNotTaking),
            None => Ok(Bytes::from_owner(held)),
        }
    }
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.piece
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let bytes = self.piece.len() as u64;
        let before = self.connection.held.fetch_sub(bytes, Ordering::Relaxed);
        self.connection.counters.waiting().take(before.saturating_sub(bytes), bytes);
    }
}

/// What a connection may always have waiting: a few answers under way.
const ALWAYS_BYTES: u64 = 512 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_who_leave_most_go_when_there_is_too_much() {
        const MIB: u64 = 1 << 20;
        let waiting = Waiting::default();
        waiting.add(0, 2 * MIB);
        waiting.add(0, 10 * MIB);
        waiting.add(10 * MIB, 4 * MIB);
        assert!(!waiting.is_too_much(14 * MIB, 16 * MIB), "there is room");
        assert!(waiting.is_too_much(14 * MIB, 15 * MIB));
        assert!(!waiting.is_too_much(2 * MIB, 15 * MIB), "less than its share");
        waiting.take(0, 14 * MIB);
        assert!(!waiting.is_too_much(2 * MIB, 2 * MIB));
        assert!(waiting.is_too_much(2 * MIB, MIB), "all have the same");
        waiting.take(0, 2 * MIB);
        assert_eq!((waiting.bytes(), waiting.connections.load(Ordering::Relaxed)), (0, 0));
        for _ in 0..100 {
            waiting.add(0, ALWAYS_BYTES);
        }
        assert!(!waiting.is_too_much(ALWAYS_BYTES, MIB), "as every honest client");
    }
}
