//! A deadline that is cheap to move: its timer is registered once and only moved when it would fire wrongly.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::time::{Instant, Sleep, sleep_until};

/// A moment that may or may not come before something else.
#[derive(Debug, Default)]
pub(super) struct Deadline {
    at: Option<Instant>,
    /// Set for some moment not after `at`, or not at all.
    timer: Option<Pin<Box<Sleep>>>,
}

impl Deadline {
    /// Moves the deadline.
    pub(super) fn set(&mut self, at: Instant) {
        self.at = Some(at);
        if let Some(timer) = &mut self.timer
            && at < timer.deadline()
        {
            timer.as_mut().reset(at);
        }
    }

    /// Moves the deadline only if that makes it earlier.
    pub(super) fn no_later_than(&mut self, at: Instant) {
        if self.at.is_some_and(|set| at < set) {
            self.set(at);
        }
    }

    /// There is no deadline.
    pub(super) fn clear(&mut self) {
        self.at = None;
    }

    /// Whether there is one.
    pub(super) fn is_set(&self) -> bool {
        self.at.is_some()
    }

    /// Ready when the deadline has passed; wakes the task when it does.
    pub(super) fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let Some(at) = self.at else { return Poll::Pending };
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(at)));
        loop {
            ready!(timer.as_mut().poll(context));
            if timer.deadline() >= at {
                return Poll::Ready(());
            }
            timer.as_mut().reset(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_can_be_moved_both_ways() {
        let start = Instant::now();
        let mut deadline = Deadline::default();
        deadline.set(start + Duration::from_secs(75));
        assert!(poll_fn(|context| Poll::Ready(deadline.poll(context))).await.is_pending());
        deadline.set(start + Duration::from_secs(15));
        poll_fn(|context| deadline.poll(context)).await;
        assert_eq!(start.elapsed().as_secs(), 15);
        deadline.set(start + Duration::from_secs(100));
        poll_fn(|context| deadline.poll(context)).await;
        assert_eq!(start.elapsed().as_secs(), 100);
        deadline.clear();
        assert!(poll_fn(|context| Poll::Ready(deadline.poll(context))).await.is_pending());
    }
}
