//! What is collected before it is written: the small pieces that the engine hands over leave as one.

/// Bytes to be written, `bytes[sent..]` still to go.
#[derive(Debug, Default)]
pub(super) struct Out {
    bytes: Vec<u8>,
    sent: usize,
}

impl Out {
    /// What is still to be written.
    pub(super) fn rest(&self) -> &[u8] {
        self.bytes.get(self.sent..).unwrap_or_default()
    }

    /// Whether that is nothing.
    pub(super) fn is_empty(&self) -> bool {
        self.sent >= self.bytes.len()
    }

    /// Keeps bytes for later.
    pub(super) fn collect(&mut self, bytes: &[u8]) {
        if self.bytes.capacity() == 0 {
            self.bytes.reserve(KEPT_BYTES.max(bytes.len()));
        }
        self.bytes.extend_from_slice(bytes);
    }

    /// Counts written bytes; how many went beyond what was collected.
    pub(super) fn advance(&mut self, count: usize) -> usize {
        let collected = self.bytes.len() - self.sent;
        if count < collected {
            self.sent += count;
            return 0;
        }
        self.bytes.clear();
        self.sent = 0;
        count - collected
    }

    /// Keeps little memory while nothing is to be written.
    pub(super) fn give_back(&mut self) {
        if self.is_empty() && self.bytes.capacity() > KEPT_BYTES {
            self.bytes = Vec::new();
            self.sent = 0;
        }
    }

    /// How many bytes are kept.
    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }
}

/// An idle connection keeps this much at most.
const KEPT_BYTES: usize = 1024;
