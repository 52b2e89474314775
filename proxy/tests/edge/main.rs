//! The edge with real sockets, in front of an upstream that records every byte it gets.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod answers;
mod chunks;
mod clients;
mod early;
mod ends;
mod files;
mod forward;
mod frames;
mod gate;
mod harness;
mod http2;
mod http2_abuse;
mod http2_bounds;
mod http2_gate;
mod http2_windows;
mod interim;
mod lifecycle;
mod limits;
mod limits_connections;
mod limits_linger;
mod limits_pace;
mod limits_time;
mod liveness;
mod log;
mod receivers;
mod reload_faults;
mod reload_limits;
mod reload_listeners;
mod reload_requests;
mod reload_upstreams;
mod replies;
mod rewrite;
mod tunnels;
mod upstreams;
