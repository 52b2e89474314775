//! How HTTP/2 connections and their streams are treated: what the library is told to bound, what it says when it does, and what we
//! bound ourselves.

use std::time::Duration;

use memchr::memmem;
use pingora::protocols::http::v2::server::{H2Options, default_h2_options};

use super::windows;
use crate::limits::Pace;
use crate::metrics::Limit;

/// Limits of a connection and its streams.
#[derive(Debug, Clone)]
pub(crate) struct StreamPolicy {
    /// What the library bounds.
    pub(super) options: H2Options,
    /// A connection without streams is closed after this.
    pub(super) idle: Duration,
    /// How slow a request's body may be.
    pub(super) body: Pace,
    /// How long a client may take nothing of what is there for it.
    pub(super) send: Duration,
    /// Streams at a time.
    pub(super) max_streams: u32,
    /// Requests on one connection.
    pub(super) max_requests: u32,
    /// What the uploads of a connection may have under way, at most.
    pub(super) max_upload_window: u32,
}

impl StreamPolicy {
    /// That of a configuration.
    pub(crate) fn new(edge: &conf::Edge) -> Self {
        let (limits, timeouts) = (&edge.limits, &edge.timeouts);
        let max_upload_window =
            u32::try_from(limits.h2_upload_window.0).unwrap_or(u32::MAX).min(LARGEST_WINDOW);
        let (stream_window, connection_window) = windows::first(max_upload_window);
        let mut options = default_h2_options();
        options
            .max_header_list_size(u32::try_from(limits.max_header_size.0).unwrap_or(u32::MAX))
            .max_concurrent_streams(limits.max_concurrent_streams)
            .max_pending_accept_reset_streams(RESETS_UNSEEN)
            .max_send_buffer_size(SEND_BUFFER)
            .initial_window_size(stream_window)
            .initial_connection_window_size(connection_window);
        Self {
            options,
            idle: timeouts.idle,
            body: Pace { patience: timeouts.body, rate: limits.min_body_rate.0 },
            send: timeouts.send,
            max_streams: limits.max_concurrent_streams,
            max_requests: limits.max_requests_per_connection,
            max_upload_window,
        }
    }
}

/// The limit of its own for which the library ends a connection, in these bytes that it sends. It says so in the debug data of its
/// `GOAWAY` (RFC 9113 §6.8) and nowhere else.
pub(in crate::listener) fn limit_said(bytes: &[u8]) -> Option<Limit> {
    let words = [
        ("too_many_continuations", Limit::MaxHeaderSize),
        ("header_list_way_too_large", Limit::MaxHeaderSize),
        ("too_many_data_frames", Limit::Http2Control),
        ("too_many_resets", Limit::Http2Resets),
        ("too_many_internal_resets", Limit::Http2Resets),
    ];
    let said = |word: &str| memmem::find(bytes, word.as_bytes()).is_some();
    words.into_iter().find(|(word, _)| said(word)).map(|(_, limit)| limit)
}

/// Streams that come and are reset before we have looked, of which the library keeps the heads: a browser that turns to another page
/// while we are busy. How many there may be over time is `limits.h2_resets`.
const RESETS_UNSEEN: usize = 64;
/// Of an answer, what waits in the library to be written. Beyond it the engine waits, and beyond that the upstream.
const SEND_BUFFER: usize = 64 * 1024;
/// RFC 9113 §6.9.1.
const LARGEST_WINDOW: u32 = (1 << 31) - 1;
