//! Limits and deadlines that bite: one list, and the names under which they are counted. A new limit is one line here.

accept::limits! {
    /// A limit or a deadline below `edge` that a client or an upstream has come up against.
    pub(crate) enum Limit {
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
        /// An idle tunnel.
        Tunnel = "timeouts.tunnel",
        /// A request, or a connection, that was still open at the end of a drain.
        Drain = "timeouts.drain",
        /// A tunnel that was still open at the end of its drain.
        TunnelDrain = "timeouts.tunnel_drain",
        /// An upstream that could not be connected in time.
        Connect = "timeouts.connect",
        /// An upstream that did not answer in time.
        UpstreamRead = "timeouts.upstream_read",
        /// A request body that is too large; also by a route's own limit.
        MaxBodySize = "limits.max_body_size",
        /// An answer that ended its connection while the client went on sending for all the time that it is listened to.
        Linger = "timeouts.linger",
        /// A request head of too many bytes.
        MaxHeaderSize = "limits.max_header_size",
        /// A request head of too many fields.
        MaxHeaderCount = "limits.max_header_count",
        /// A request target that is too long.
        MaxTargetLength = "limits.max_target_length",
        /// Trailers and chunk extensions of too many bytes.
        MaxTrailerSize = "limits.max_trailer_size",
        /// A PROXY header of too many bytes.
        MaxProxyHeaderSize = "limits.max_proxy_header_size",
        /// A connection that has had as many requests as it may.
        MaxRequestsPerConnection = "limits.max_requests_per_connection",
        /// An HTTP/2 stream above those that may be open at a time.
        MaxConcurrentStreams = "limits.max_concurrent_streams",
        /// A request body that came too slowly.
        MinBodyRate = "limits.min_body_rate",
        /// An answer that was taken too slowly.
        MinSendRate = "limits.min_send_rate",
        /// A connection that found no place among all.
        MaxConnections = "limits.max_connections",
        /// A connection that found no place among those of its address.
        MaxConnectionsPerIp = "limits.max_connections_per_ip",
        /// HTTP/2 streams that are reset as fast as they are opened.
        Http2Resets = "limits.h2_resets",
        /// An HTTP/2 client with the most of too many answers that nobody takes.
        Http2Buffer = "limits.h2_buffer",
        /// HTTP/2 frames that carry nothing: `PING`, `SETTINGS`, `PRIORITY`, empty `DATA` and the like.
        Http2Control = "limits.h2_control_frames",
    }
}

impl Limit {
    /// How many there are.
    pub(crate) const COUNT: usize = Self::ALL.len();
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
