//! Limits and deadlines of `http` that bite: one list, and the names under which they are counted. A new limit is one line here.

use std::sync::atomic::{AtomicU64, Ordering};

accept::limits! {
    /// A limit or a deadline below `http` that a client has come up against.
    pub enum Limit {
        /// A PROXY header that was not complete in time.
        ProxyHeader = "timeouts.proxy_header",
        /// A TLS handshake that was not complete in time.
        Handshake = "timeouts.handshake",
        /// A request's head that was not complete in time.
        Header = "timeouts.header",
        /// A connection without a request.
        Idle = "timeouts.idle",
        /// A request's body that stopped coming.
        Body = "timeouts.body",
        /// A client that took nothing of its answer.
        Send = "timeouts.send",
        /// A request that was not answered in time.
        Request = "timeouts.request",
        /// A connection that was still open at the end of a drain.
        Drain = "timeouts.drain",
        /// A request body that is too large.
        MaxBodySize = "limits.max_body_size",
        /// A request head of too many bytes.
        MaxHeaderSize = "limits.max_header_size",
        /// A request head of too many fields.
        MaxHeaderCount = "limits.max_header_count",
        /// A connection that has had as many requests as it may.
        MaxRequestsPerConnection = "limits.max_requests_per_connection",
        /// A request body that came too slowly.
        MinBodyRate = "limits.min_body_rate",
        /// An answer that was taken too slowly.
        MinSendRate = "limits.min_send_rate",
        /// A connection that found no place among all.
        MaxConnections = "limits.max_connections",
        /// A connection that found no place among those of its address.
        MaxConnectionsPerIp = "limits.max_connections_per_ip",
        /// HTTP/2 streams that are reset as fast as they are opened.
        H2Resets = "limits.h2_resets",
        /// HTTP/2 frames that carry nothing.
        H2ControlFrames = "limits.h2_control_frames",
    }
}

/// How often each has bitten.
#[derive(Debug)]
pub struct LimitHits([AtomicU64; Limit::ALL.len()]);

impl Default for LimitHits {
    fn default() -> Self {
        Self(std::array::from_fn(|_| AtomicU64::new(0)))
    }
}

impl LimitHits {
    /// Once more.
    pub fn count(&self, limit: Limit) {
        self.0[limit as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// How often so far.
    pub fn total(&self, limit: Limit) -> u64 {
        self.0[limit as usize].load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_limit_is_counted_at_its_own_place_under_its_own_name() {
        for (index, limit) in Limit::ALL.iter().enumerate() {
            assert_eq!(*limit as usize, index);
            assert_eq!(Limit::ALL.iter().filter(|other| other.key() == limit.key()).count(), 1);
        }
    }
}
