//! Pieces of answers that are ours until the client takes them: over HTTP/2 nobody else can see that a client leaves them with us.

use std::sync::Arc;

use bytes::Bytes;

use super::ClientConnection;

/// A piece of an answer, counted as long as it lives.
struct Held {
    piece: Bytes,
    connection: Arc<ClientConnection>,
}

impl ClientConnection {
    /// The same piece, counted until it has been written or thrown away.
    pub(crate) fn holding(self: &Arc<Self>, piece: Bytes) -> Bytes {
        if piece.is_empty() {
            return piece;
        }
        self.held.fetch_add(piece.len() as u64, std::sync::atomic::Ordering::Relaxed);
        Bytes::from_owner(Held { piece, connection: self.clone() })
    }
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.piece
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.connection.held.fetch_sub(self.piece.len() as u64, std::sync::atomic::Ordering::Relaxed);
    }
}
