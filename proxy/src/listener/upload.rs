//! The body of one HTTP/2 request: whether it is still awaited, and whether anything moves.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering};

use accept::ClientAddress;
use tokio::sync::Notify;

/// Shared by the request and whoever watches it.
#[derive(Debug, Default)]
pub(crate) struct Upload {
    moves: AtomicU64,
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
    /// A piece of the request's body came, or of the answer's.
    pub(crate) fn moved(&self) {
        self.moves.fetch_add(1, Ordering::Relaxed);
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
            self.answered.notify_one();
        }
    }

    pub(super) fn progress(&self) -> u64 {
        self.moves.load(Ordering::Relaxed)
    }

    pub(super) fn is_awaited(&self) -> bool {
        !self.is_complete.load(Ordering::Relaxed)
    }

    pub(super) fn is_answered(&self) -> bool {
        self.is_answered.load(Ordering::Relaxed)
    }

    /// Waits until the upstream's answer is complete; once.
    pub(super) async fn answered(&self) {
        self.answered.notified().await;
    }
}
