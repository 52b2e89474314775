//! The edge with real sockets, in front of an upstream that records every byte it gets.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod answers;
mod clients;
mod files;
mod forward;
mod harness;
mod http2;
mod lifecycle;
mod limits;
mod log;
mod receivers;
mod rewrite;
mod upstreams;
