#![doc = include_str!("../README.md")]

mod auth;
pub mod difference;
mod edge;
mod effective;
mod files;
mod limits;
mod listener;
mod load;
mod log;
mod preset;
mod reader;
mod report;
mod route;
mod secret;
mod source;
mod starter;
mod tls;
mod upstream;
mod value;

use std::path::PathBuf;
use std::sync::Arc;

pub use auth::{
    Account, Auth, Database, HashAlgorithm, Hasher, Http, HttpLimits, HttpTimeouts, Listener as AuthListener,
    Matrix, Passwords, RateLimit, RateLimiting, Resource,
};
pub use difference::{Difference, differences};
pub use files::{Encoding, StaticFiles};
pub use limits::{Limits, Timeouts};
pub use listener::{Bind, EdgeListener, SocketKind};
pub use load::{Loaded, default_paths, load, load_at};
pub use log::{AccessLog, AccessLogFormat, AccessLogTarget};
pub use report::{Diagnostic, Related, Report, Severity};
pub use route::{Action, HostPattern, Matcher, Respond, Rewrite, Route, Site};
pub use starter::{starter, synapse_snippet};
pub use tls::{Certificate, Dates, EdgeTls, TlsVersion, Validity};
pub use upstream::{ForwardedFor, ProxyTlv, ProxyVersion, Server, Upstream};
pub use value::{ByteSize, Secret, parse_duration, parse_network};

/// A whole configuration: after loading, nothing in it can fail for configuration reasons.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where Gatehouse keeps what it makes itself (database, sockets, secrets). Default `/var/lib/gatehouse`.
    pub data_dir: PathBuf,
    /// The reverse proxy, if configured.
    pub edge: Option<Edge>,
    /// The bundled authentication service, if configured.
    pub auth: Option<Auth>,
}

/// The edge half (`edge:`), presets expanded.
#[derive(Debug, Clone)]
pub struct Edge {
    /// Sockets to accept from, at least one.
    pub listeners: Vec<EdgeListener>,
    /// Certificates; `Some` whenever a listener has `tls`.
    pub tls: Option<EdgeTls>,
    /// Whose `X-Forwarded-For` is believed. Empty: nobody's.
    pub trusted_proxies: Vec<ipnet::IpNet>,
    /// Named groups of servers; routes hold the same `Arc`s.
    pub upstreams: Vec<Arc<Upstream>>,
    /// What is served, by host.
    pub sites: Vec<Site>,
    /// Sizes and counts.
    pub limits: Limits,
    /// Deadlines.
    pub timeouts: Timeouts,
    /// One line per request, or none.
    pub access_log: Option<AccessLog>,
    /// Where `/health`, `/ready` and `/metrics` are served (`edge.admin.binds`). Empty: nowhere.
    pub admin: Vec<Bind>,
    /// Worker threads, each with its own listener sockets. Default: the number of processors.
    pub threads: usize,
}
