//! End to end: the real `gatehouse`, ports chosen by the system, temporary folders, real counterparts. One module per feature.
//!
//! `cargo e2e NAME` runs one of them. What they need besides Cargo is installed by `tests/run`.

#![expect(
    clippy::unwrap_used,
    reason = "a test panics when it cannot go on; the lint's own exception ends at helper functions"
)]

mod activation;
mod assets;
mod auth_reload;
mod bodies;
mod calls;
mod command_line;
mod deployments;
mod differential;
mod downloads;
mod drain;
mod errands;
mod exit_codes;
mod faults;
mod federation;
mod forwarding;
mod harness;
mod homeserver;
mod http2_abuse;
mod lifecycle;
mod maintenance;
mod metadata;
mod metrics;
mod mistakes;
mod preset;
mod proxy_protocol;
mod reload;
mod shortage;
mod signals;
mod storm;
mod systemd;
mod targets;
mod upgrade;
mod web_client;
