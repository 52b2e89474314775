//! `http.limits` and `http.timeouts`: what a connection to the auth service may take. MAS has no such keys; the names are those of
//! `edge.limits` and `edge.timeouts`.

use std::time::Duration;

use crate::ByteSize;
use crate::reader::{Item, Section};

/// `http.limits`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HttpLimits {
    /// Open connections, all listeners together. Default 10000.
    pub max_connections: usize,
    /// Open connections of one address (IPv6: of one /64), unless it is in `http.trusted_proxies`. Default 200.
    pub max_connections_per_ip: usize,
    /// Largest request head (request line and fields), 1k to 1M. Default 32k.
    pub max_header_size: ByteSize,
    /// Fields of a request, 16 to 1000. Default 100.
    pub max_header_count: usize,
    /// Largest request body. Default 1M.
    pub max_body_size: ByteSize,
    /// Requests on one connection, which is then closed politely. Default 10000.
    pub max_requests_per_connection: usize,
    /// Requests at a time on one HTTP/2 connection. Default 100.
    pub max_concurrent_streams: u32,
    /// Bytes per second that a request's body has to come with, and an answer has to be taken with, on the average of all of it; looked at
    /// once `timeouts.body` or `timeouts.send` have passed. Zero: none. Default 100.
    pub min_body_rate: ByteSize,
}

/// `http.timeouts`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HttpTimeouts {
    /// PROXY header and TLS handshake together. Default 10s.
    pub handshake: Duration,
    /// The whole request head, from its first byte, or from the start of the connection. Default 15s.
    pub header: Duration,
    /// A connection without a request. Default 90s.
    pub idle: Duration,
    /// Between two pieces of a request's body. Default 20s.
    pub body: Duration,
    /// Between two moments at which the client takes something of an answer. Default 30s.
    pub send: Duration,
    /// From a request's head to its answer's head. Default 45s.
    pub request: Duration,
    /// How long requests in flight may take when the service, or a listener, is to end. Default 30s.
    pub drain: Duration,
}

impl Default for HttpLimits {
    fn default() -> Self {
        Self {
            max_connections: 10_000,
            max_connections_per_ip: 200,
            max_header_size: ByteSize(32 << 10),
            max_header_count: 100,
            max_body_size: ByteSize(1 << 20),
            max_requests_per_connection: 10_000,
            max_concurrent_streams: 100,
            min_body_rate: ByteSize(100),
        }
    }
}

impl Default for HttpTimeouts {
    fn default() -> Self {
        Self {
            handshake: Duration::from_secs(10),
            header: Duration::from_secs(15),
            idle: Duration::from_secs(90),
            body: Duration::from_secs(20),
            send: Duration::from_secs(30),
            request: Duration::from_secs(45),
            drain: Duration::from_secs(30),
        }
    }
}

impl HttpLimits {
    /// Reads `http.limits`. `None` is a fault.
    pub(crate) fn read(item: &Item<'_>) -> Option<Self> {
        let mut section = item.section()?;
        let default = Self::default();
        let read = Self {
            max_connections: count(&mut section, "max_connections").unwrap_or(default.max_connections),
            max_connections_per_ip: count(&mut section, "max_connections_per_ip")
                .unwrap_or(default.max_connections_per_ip),
            max_header_size: size(&mut section, "max_header_size", HEADER_SIZES)
                .unwrap_or(default.max_header_size),
            max_header_count: section
                .take("max_header_count")
                .and_then(|item| item.whole(16, 1000))
                .unwrap_or(default.max_header_count),
            max_body_size: size(&mut section, "max_body_size", BODY_SIZES).unwrap_or(default.max_body_size),
            max_requests_per_connection: count(&mut section, "max_requests_per_connection")
                .unwrap_or(default.max_requests_per_connection),
            max_concurrent_streams: section
                .take("max_concurrent_streams")
                .and_then(|item| item.whole(1, 1000))
                .unwrap_or(default.max_concurrent_streams),
            min_body_rate: section
                .take("min_body_rate")
                .and_then(|item| item.size())
                .unwrap_or(default.min_body_rate),
        };
        section.finish();
        Some(read)
    }
}

impl HttpTimeouts {
    /// Reads `http.timeouts`. `None` is a fault.
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
            request: read("request", default.request),
            drain: read("drain", default.drain),
        };
        section.finish();
        Some(timeouts)
    }
}

fn count(section: &mut Section<'_>, key: &'static str) -> Option<usize> {
    section.take(key)?.whole(1, 10_000_000)
}

fn size(
    section: &mut Section<'_>,
    key: &'static str,
    (least, most): (ByteSize, ByteSize),
) -> Option<ByteSize> {
    let item = section.take(key)?;
    let size = item.size()?;
    if !(least..=most).contains(&size) {
        item.error(format!("has to be between {least} and {most}"));
    }
    Some(size)
}

/// A proxy's request head has to fit; held in memory for each connection. hyper's buffer has 8 KiB at least.
const HEADER_SIZES: (ByteSize, ByteSize) = (ByteSize(8 << 10), ByteSize(1 << 20));
/// A login is some hundred bytes; held in memory for each request.
const BODY_SIZES: (ByteSize, ByteSize) = (ByteSize(4 << 10), ByteSize(64 << 20));
