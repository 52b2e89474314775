//! Sizes, counts and deadlines of the edge.

use std::time::Duration;

use crate::ByteSize;

/// `edge.limits`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Largest request body. Default 50M.
    pub max_body_size: ByteSize,
    /// Largest request head (request line and fields). Default 32k.
    pub max_header_size: ByteSize,
    /// Open connections, all listeners together. Default 10000.
    pub max_connections: usize,
    /// Open connections of one address (IPv6: of one /64). Default 200.
    pub max_connections_per_ip: usize,
}

/// `edge.timeouts`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// PROXY header and TLS handshake together. Default 10s.
    pub handshake: Duration,
    /// The whole request head, from its first byte. Default 15s.
    pub header: Duration,
    /// A connection without a request. Default 75s.
    pub idle: Duration,
    /// Between two reads of a request body. Default 60s.
    pub body: Duration,
    /// Between two writes to the client. Default 60s.
    pub send: Duration,
    /// Connecting to an upstream. Default 5s.
    pub connect: Duration,
    /// Between two reads from an upstream. Default 200s.
    pub upstream_read: Duration,
    /// How long requests in flight may take after SIGTERM. Default 30s.
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_body_size: ByteSize(50 << 20),
            max_header_size: ByteSize(32 << 10),
            max_connections: 10_000,
            max_connections_per_ip: 200,
        }
    }
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            handshake: Duration::from_secs(10),
            header: Duration::from_secs(15),
            idle: Duration::from_secs(75),
            body: Duration::from_secs(60),
            send: Duration::from_secs(60),
            connect: Duration::from_secs(5),
            upstream_read: Duration::from_secs(200),
            drain: Duration::from_secs(30),
        }
    }
}
