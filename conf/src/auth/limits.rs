//! `http.limits` and `http.timeouts`: what a connection to the auth service may take. MAS has no such keys; the names are those of
//! `edge.limits` and `edge.timeouts`.

use std::time::Duration;

use crate::ByteSize;
use crate::limits::{RATE, count, size};
use crate::reader::Item;

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
    /// Frames of HTTP/2 without content that one connection may send at once, and again in each minute; answers pay for some.
    /// Default 6000.
    pub h2_control_frames: u32,
    /// Streams of HTTP/2 that one connection may reset, likewise. Default 300.
    pub h2_resets: u32,
    /// Slowest request body, in bytes per second; 0 for no bound. Default 512.
    pub min_body_rate: ByteSize,
    /// Slowest answer that waits for its client, in bytes per second; 0 for no bound. Default 512.
    pub min_send_rate: ByteSize,
}

/// `http.timeouts`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HttpTimeouts {
    /// The PROXY header, from the connection's beginning. Default 5s.
    pub proxy_header: Duration,
    /// The TLS handshake. Default 10s.
    pub handshake: Duration,
    /// The whole request head, from its first byte, or from the start of the connection. Default 15s.
    pub header: Duration,
    /// A connection without a request. Default 90s.
    pub idle: Duration,
    /// As long as a request's body may pause; what `min_body_rate` measures with. Default 20s.
    pub body: Duration,
    /// As long as a client may take nothing of its answer; what `min_send_rate` measures with. Default 30s.
    pub send: Duration,
    /// As long as a client that goes on sending after the last answer is listened to. Default 10s.
    pub linger: Duration,
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
            h2_control_frames: 6000,
            h2_resets: 300,
            min_body_rate: ByteSize(512),
            min_send_rate: ByteSize(512),
        }
    }
}

impl Default for HttpTimeouts {
    fn default() -> Self {
        Self {
            proxy_header: Duration::from_secs(5),
            handshake: Duration::from_secs(10),
            header: Duration::from_secs(15),
            idle: Duration::from_secs(90),
            body: Duration::from_secs(20),
            send: Duration::from_secs(30),
            linger: Duration::from_secs(10),
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
            max_header_size: size(&mut section, "max_header_size", HEADER).unwrap_or(default.max_header_size),
            max_header_count: section
                .take("max_header_count")
                .and_then(|item| item.whole(16, 1000))
                .unwrap_or(default.max_header_count),
            max_body_size: size(&mut section, "max_body_size", BODY).unwrap_or(default.max_body_size),
            max_requests_per_connection: count(&mut section, "max_requests_per_connection")
                .unwrap_or(default.max_requests_per_connection),
            max_concurrent_streams: section
                .take("max_concurrent_streams")
                .and_then(|item| item.whole(1, 1000))
                .unwrap_or(default.max_concurrent_streams),
            h2_control_frames: section
                .take("h2_control_frames")
                .and_then(|item| item.whole(100, 1_000_000))
                .unwrap_or(default.h2_control_frames),
            h2_resets: section
                .take("h2_resets")
                .and_then(|item| item.whole(10, 1_000_000))
                .unwrap_or(default.h2_resets),
            min_body_rate: size(&mut section, "min_body_rate", RATE).unwrap_or(default.min_body_rate),
            min_send_rate: size(&mut section, "min_send_rate", RATE).unwrap_or(default.min_send_rate),
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
            proxy_header: read("proxy_header", default.proxy_header),
            handshake: read("handshake", default.handshake),
            header: read("header", default.header),
            idle: read("idle", default.idle),
            body: read("body", default.body),
            send: read("send", default.send),
            linger: read("linger", default.linger),
            request: read("request", default.request),
            drain: read("drain", default.drain),
        };
        section.finish();
        Some(timeouts)
    }
}

/// A proxy's request head has to fit; held in memory for each connection. hyper's buffer has 8 KiB at least.
const HEADER: (u64, u64) = (8 << 10, 1 << 20);
/// A login is some hundred bytes; held in memory for each request.
const BODY: (u64, u64) = (4 << 10, 64 << 20);
