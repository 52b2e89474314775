//! Sizes, counts and deadlines of the edge.

use std::time::Duration;

use crate::ByteSize;
use crate::reader::{Item, Section};

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

impl Limits {
    /// Reads `edge.limits`.
    pub(crate) fn read(item: &Item<'_>) -> Option<Self> {
        let mut section = item.section()?;
        let default = Self::default();
        let read = Self {
            max_body_size: section
                .take("max_body_size")
                .and_then(|item| item.size())
                .unwrap_or(default.max_body_size),
            max_header_size: section
                .take("max_header_size")
                .and_then(|item| {
                    let size = item.size()?;
                    if !(SMALLEST_HEADER..=LARGEST_HEADER).contains(&size) {
                        item.error(format!("has to be between {SMALLEST_HEADER} and {LARGEST_HEADER}"));
                    }
                    Some(size)
                })
                .unwrap_or(default.max_header_size),
            max_connections: count(&mut section, "max_connections").unwrap_or(default.max_connections),
            max_connections_per_ip: count(&mut section, "max_connections_per_ip")
                .unwrap_or(default.max_connections_per_ip),
        };
        section.later(&[
            ("max_requests_per_connection", "this limit is"),
            ("max_concurrent_streams", "this limit is"),
            ("max_header_count", "this limit is"),
            ("max_target_length", "this limit is"),
            ("min_body_rate", "this limit is"),
            ("rate", "rate limits are"),
        ]);
        section.finish();
        Some(read)
    }
}

impl Timeouts {
    /// Reads `edge.timeouts`.
    pub(crate) fn read(item: &Item<'_>) -> Option<Self> {
        let mut section = item.section()?;
        let mut read = |key, default| section.take(key).and_then(|item| item.duration()).unwrap_or(default);
        let default = Self::default();
        let timeouts = Self {
            handshake: read("handshake", default.handshake),
            header: read("header", default.header),
            idle: read("idle", default.idle),
            body: read("body", default.body),
            send: read("send", default.send),
            connect: read("connect", default.connect),
            upstream_read: read("upstream_read", default.upstream_read),
            drain: read("drain", default.drain),
        };
        section.later(&[("tunnel", "a deadline for tunnels is")]);
        section.finish();
        Some(timeouts)
    }
}

fn count(section: &mut Section<'_>, key: &'static str) -> Option<usize> {
    section.take(key)?.whole(1, 10_000_000)
}

/// A browser's request head with a few cookies has to fit.
const SMALLEST_HEADER: ByteSize = ByteSize(1 << 10);
/// Held in memory for each connection.
const LARGEST_HEADER: ByteSize = ByteSize(1 << 20);
