//! What has ended so far, for the log: how a drain went is the difference between its end and its beginning.

use std::ops::Sub;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use accept::ConnectionLimits;

use super::{Counters, Limit, sum_at};

/// How many have ended since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Ended {
    /// By themselves.
    pub(crate) requests: u64,
    /// By themselves: one of their two ends has closed them, or they were silent for too long.
    pub(crate) tunnels: u64,
    /// Cut off at the end of a drain.
    pub(crate) requests_cut_off: u64,
    /// Cut off at the end of their drain.
    pub(crate) tunnels_cut_off: u64,
    /// Closed without a word at the end of a drain, whatever they were at.
    pub(crate) connections_closed: u64,
}

impl Ended {
    /// As it is now.
    pub(crate) fn now(workers: &[Arc<Counters>], connections: &ConnectionLimits) -> Self {
        let hits = |limit: Limit| sum_at(workers, |worker| worker.limits.get(limit as usize));
        let of_class = |class: usize| sum_at(workers, |worker| worker.requests.get(class));
        let (requests_cut_off, tunnels_cut_off) = (hits(Limit::Drain), hits(Limit::TunnelDrain));
        // The last answer to whoever has a tunnel is 101.
        let tunnels = of_class(1);
        let all: u64 = workers
            .iter()
            .flat_map(|worker| &worker.requests)
            .map(|count| count.load(Ordering::Relaxed))
            .sum();
        Self {
            requests: all.saturating_sub(tunnels + requests_cut_off),
            tunnels: tunnels.saturating_sub(tunnels_cut_off),
            requests_cut_off,
            tunnels_cut_off,
            connections_closed: connections.counts().cut_off,
        }
    }
}

impl Sub for Ended {
    type Output = Self;

    fn sub(self, earlier: Self) -> Self {
        Self {
            requests: self.requests.saturating_sub(earlier.requests),
            tunnels: self.tunnels.saturating_sub(earlier.tunnels),
            requests_cut_off: self.requests_cut_off.saturating_sub(earlier.requests_cut_off),
            tunnels_cut_off: self.tunnels_cut_off.saturating_sub(earlier.tunnels_cut_off),
            connections_closed: self.connections_closed.saturating_sub(earlier.connections_closed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drain_is_the_difference() {
        let workers = [Arc::new(Counters::default()), Arc::default()];
        let limits = ConnectionLimits::new(10, 10);
        workers[0].request(200, 0, 0, 0);
        workers[0].request(101, 0, 0, 0);
        let before = Ended::now(&workers, &limits);
        assert_eq!((before.requests, before.tunnels), (1, 1));
        for (status, limit) in
            [(200, None), (0, None), (101, None), (503, Some(Limit::Drain)), (101, Some(Limit::TunnelDrain))]
        {
            workers[1].request(status, 0, 0, 0);
            limit.into_iter().for_each(|limit| workers[1].limit_hit(limit));
        }
        let drained = Ended::now(&workers, &limits) - before;
        let expected =
            Ended { requests: 2, tunnels: 1, requests_cut_off: 1, tunnels_cut_off: 1, connections_closed: 0 };
        assert_eq!(drained, expected);
    }
}
