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
    /// Most fields of a request. Default 256.
    pub max_header_count: usize,
    /// Longest request target. Default 16k.
    pub max_target_length: ByteSize,
    /// Most bytes of the trailers and the chunk extensions of a request body, together. Default 8k.
    pub max_trailer_size: ByteSize,
    /// Longest PROXY header of version 2. Default 2k.
    pub max_proxy_header_size: ByteSize,
    /// Slowest request body, in bytes per second; 0 for no bound. Default 512.
    pub min_body_rate: ByteSize,
    /// Slowest answer that waits for its client, in bytes per second; 0 for no bound. Default 512.
    pub min_send_rate: ByteSize,
    /// Requests on one connection. Default 1000.
    pub max_requests_per_connection: u32,
    /// Open connections, all listeners together. Default 10000.
    pub max_connections: usize,
    /// Open connections of one address (IPv6: of one /64). Default 200.
    pub max_connections_per_ip: usize,
    /// Requests at a time on one HTTP/2 connection. Default 128.
    pub max_concurrent_streams: u32,
    /// HTTP/2 frames without content on one connection: at once, and again in each minute. Default 6000.
    pub h2_control_frames: u32,
    /// HTTP/2 streams that end by force on one connection: at once, and again in each minute. Default 300.
    pub h2_resets: u32,
    /// Answers that wait for HTTP/2 clients to take them, of all connections. Default 256M.
    pub h2_buffer: ByteSize,
    /// What the uploads of one HTTP/2 connection may have under way. Default 8M.
    pub h2_upload_window: ByteSize,
}

/// `edge.timeouts`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// The PROXY header, from the connection's beginning. Default 5s.
    pub proxy_header: Duration,
    /// The TLS handshake. Default 10s.
    pub handshake: Duration,
    /// The whole request head, from its first byte. Default 15s.
    pub header: Duration,
    /// A connection without a request. Default 75s.
    pub idle: Duration,
    /// As long as a request body may pause; what `min_body_rate` measures with. Default 60s.
    pub body: Duration,
    /// As long as a client may take nothing of its answer; what `min_send_rate` measures with. Default 60s.
    pub send: Duration,
    /// As long as a client that goes on sending after its answer is listened to. Default 10s.
    pub linger: Duration,
    /// Connecting to an upstream. Default 5s.
    pub connect: Duration,
    /// Between two reads from an upstream. Default 200s.
    pub upstream_read: Duration,
    /// A tunnel (WebSocket) in which neither side says anything. Default 1h.
    pub tunnel: Duration,
    /// How long requests in flight may take after SIGTERM. Default 30s.
    pub drain: Duration,
    /// How long tunnels may go on after SIGTERM. Default: `drain`.
    pub tunnel_drain: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_body_size: ByteSize(50 << 20),
            max_header_size: ByteSize(32 << 10),
            max_header_count: MOST_FIELDS,
            max_target_length: ByteSize(16 << 10),
            max_trailer_size: ByteSize(8 << 10),
            max_proxy_header_size: ByteSize(2 << 10),
            min_body_rate: ByteSize(512),
            min_send_rate: ByteSize(512),
            max_requests_per_connection: 1000,
            max_connections: 10_000,
            max_connections_per_ip: 200,
            max_concurrent_streams: 128,
            h2_control_frames: 6000,
            h2_resets: 300,
            h2_buffer: ByteSize(256 << 20),
            h2_upload_window: ByteSize(8 << 20),
        }
    }
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            proxy_header: Duration::from_secs(5),
            handshake: Duration::from_secs(10),
            header: Duration::from_secs(15),
            idle: Duration::from_secs(75),
            body: Duration::from_secs(60),
            send: Duration::from_secs(60),
            linger: Duration::from_secs(10),
            connect: Duration::from_secs(5),
            upstream_read: Duration::from_secs(200),
            tunnel: Duration::from_secs(3600),
            drain: Duration::from_secs(30),
            tunnel_drain: Duration::from_secs(30),
        }
    }
}

impl Limits {
    /// Reads `edge.limits`.
    pub(crate) fn read(item: &Item<'_>) -> Option<Self> {
        let mut section = item.section()?;
        let default = Self::default();
        let read = Self {
            max_body_size: size(&mut section, "max_body_size", ANY).unwrap_or(default.max_body_size),
            max_header_size: size(&mut section, "max_header_size", HEADER).unwrap_or(default.max_header_size),
            max_header_count: section
                .take("max_header_count")
                .and_then(|item| item.whole(1, MOST_FIELDS))
                .unwrap_or(default.max_header_count),
            max_target_length: size(&mut section, "max_target_length", TARGET)
                .unwrap_or(default.max_target_length),
            max_trailer_size: size(&mut section, "max_trailer_size", TRAILERS)
                .unwrap_or(default.max_trailer_size),
            max_proxy_header_size: size(&mut section, "max_proxy_header_size", PROXY_HEADER)
                .unwrap_or(default.max_proxy_header_size),
            min_body_rate: size(&mut section, "min_body_rate", RATE).unwrap_or(default.min_body_rate),
            min_send_rate: size(&mut section, "min_send_rate", RATE).unwrap_or(default.min_send_rate),
            max_requests_per_connection: count(&mut section, "max_requests_per_connection")
                .and_then(|count| u32::try_from(count).ok())
                .unwrap_or(default.max_requests_per_connection),
            max_connections: count(&mut section, "max_connections").unwrap_or(default.max_connections),
            max_connections_per_ip: count(&mut section, "max_connections_per_ip")
                .unwrap_or(default.max_connections_per_ip),
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
            h2_buffer: size(&mut section, "h2_buffer", BUFFER).unwrap_or(default.h2_buffer),
            h2_upload_window: size(&mut section, "h2_upload_window", WINDOW)
                .unwrap_or(default.h2_upload_window),
        };
        section.later(&[("rate", "rate limits are")]);
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
        let drain = read("drain", default.drain);
        let timeouts = Self {
            proxy_header: read("proxy_header", default.proxy_header),
            handshake: read("handshake", default.handshake),
            header: read("header", default.header),
            idle: read("idle", default.idle),
            body: read("body", default.body),
            send: read("send", default.send),
            linger: read("linger", default.linger),
            connect: read("connect", default.connect),
            upstream_read: read("upstream_read", default.upstream_read),
            tunnel: read("tunnel", default.tunnel),
            drain,
            tunnel_drain: read("tunnel_drain", drain),
        };
        section.finish();
        Some(timeouts)
    }
}

/// A number of things, at least one.
pub(crate) fn count(section: &mut Section<'_>, key: &'static str) -> Option<usize> {
    section.take(key)?.whole(1, 10_000_000)
}

/// A size within its bounds, both included.
pub(crate) fn size(
    section: &mut Section<'_>,
    key: &'static str,
    (least, most): (u64, u64),
) -> Option<ByteSize> {
    let item = section.take(key)?;
    let size = item.size()?;
    if !(least..=most).contains(&size.0) {
        item.error(format!("has to be between {} and {}", ByteSize(least), ByteSize(most)));
    }
    Some(size)
}

const ANY: (u64, u64) = (0, u64::MAX);
/// A browser's request head with a few cookies has to fit; held in memory for each connection.
const HEADER: (u64, u64) = (1 << 10, 1 << 20);
/// A login's redirect has to fit; 65534 bytes are the most that the type for URIs takes.
const TARGET: (u64, u64) = (256, 65_534);
/// None at all is a choice; read and dropped, so never in memory.
const TRAILERS: (u64, u64) = (0, 1 << 20);
/// The specification's own recommendation for readers, and the most that the length field can say.
const PROXY_HEADER: (u64, u64) = (536, 16 + 65_535);
/// Above a megabyte a second nobody is slow.
pub(crate) const RATE: (u64, u64) = (0, 1 << 20);
/// The HTTP engine reads no more (`httparse`'s array of fields).
const MOST_FIELDS: usize = 256;
/// A few answers under way for each worker, and more than anybody has.
const BUFFER: (u64, u64) = (16 << 20, 1 << 40);
/// What HTTP/2 has without being asked (RFC 9113 §6.9.2), and 10 Gbit/s around the world.
const WINDOW: (u64, u64) = (64 << 10, 256 << 20);
