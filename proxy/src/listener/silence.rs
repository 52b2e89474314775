//! The deadlines of a tunnel: of the upstream's answer to the request for it, then of its silence, in both directions together. They are
//! the stream's and not the engine's, whose deadlines are for one direction each: whoever only listens would be cut off.

use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::Instant;

use super::Switch;
use super::deadline::Deadline;
use crate::error::Fault;

/// Nothing is sent or received, over HTTP/1.
#[derive(Debug)]
pub(super) struct Silence {
    stage: Switch,
    patience: TunnelPatience,
    deadline: Deadline,
}

/// How long a silence may be.
#[derive(Debug, Clone, Copy)]
pub(super) struct TunnelPatience {
    /// Until an upstream answers a request for a tunnel, and between two pieces of an answer that is none.
    pub(super) answer: Duration,
    /// In a tunnel.
    pub(super) tunnel: Duration,
}

/// Whose bytes ended a silence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Speaker {
    Client,
    Upstream,
}

impl Silence {
    /// Of a connection that is no tunnel.
    pub(super) fn new(patience: TunnelPatience) -> Self {
        Self { stage: Switch::None, patience, deadline: Deadline::default() }
    }

    /// Somebody spoke. A client that waits for its tunnel does not gain time by talking.
    pub(super) fn ends(&mut self, speaker: Speaker) {
        let counts = match self.stage {
            Switch::None => false,
            Switch::Asked => speaker == Speaker::Upstream,
            Switch::Done => true,
        };
        if counts {
            self.begins();
        }
    }

    /// Ready with what is wrong when it has lasted too long; wakes the task then.
    pub(super) fn poll(&mut self, context: &mut Context<'_>, stage: Switch) -> Poll<Fault> {
        if stage != self.stage {
            self.stage = stage;
            self.begins();
        }
        ready!(self.deadline.poll(context));
        Poll::Ready(if stage == Switch::Done { Fault::TunnelSilent } else { Fault::UpstreamTimeout })
    }

    fn begins(&mut self) {
        match self.stage {
            Switch::None => self.deadline.clear(),
            Switch::Asked => self.deadline.set(Instant::now() + self.patience.answer),
            Switch::Done => self.deadline.set(Instant::now() + self.patience.tunnel),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    const PATIENCE: TunnelPatience =
        TunnelPatience { answer: Duration::from_secs(200), tunnel: Duration::from_secs(3600) };

    async fn is_over(silence: &mut Silence, stage: Switch) -> bool {
        poll_fn(|context| Poll::Ready(silence.poll(context, stage).is_ready())).await
    }

    async fn lasts(silence: &mut Silence, stage: Switch) -> (Fault, u64) {
        let start = Instant::now();
        let fault = poll_fn(|context| silence.poll(context, stage)).await;
        (fault, start.elapsed().as_secs())
    }

    #[tokio::test(start_paused = true)]
    async fn either_side_keeps_a_tunnel_open() {
        let mut silence = Silence::new(PATIENCE);
        for speaker in [Speaker::Client, Speaker::Upstream, Speaker::Client] {
            assert!(!is_over(&mut silence, Switch::Done).await);
            tokio::time::advance(Duration::from_secs(3599)).await;
            silence.ends(speaker);
        }
        assert_eq!(lasts(&mut silence, Switch::Done).await, (Fault::TunnelSilent, 3600));
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_to_the_request_for_a_tunnel_comes_in_time_whatever_the_client_sends() {
        let mut silence = Silence::new(PATIENCE);
        assert!(!is_over(&mut silence, Switch::Asked).await);
        tokio::time::advance(Duration::from_secs(150)).await;
        silence.ends(Speaker::Client);
        assert_eq!(lasts(&mut silence, Switch::Asked).await, (Fault::UpstreamTimeout, 50));
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_that_got_no_tunnel_leaves_no_deadline_behind() {
        let mut silence = Silence::new(PATIENCE);
        assert!(!is_over(&mut silence, Switch::Asked).await);
        assert!(!is_over(&mut silence, Switch::None).await);
        tokio::time::advance(Duration::from_secs(100_000)).await;
        silence.ends(Speaker::Upstream);
        assert!(!is_over(&mut silence, Switch::None).await);
    }
}
