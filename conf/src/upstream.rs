//! Upstreams: named groups of servers.

use std::path::PathBuf;

/// One entry of `edge.upstreams`, or one made from an address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upstream {
    /// Name in routes, logs and metrics.
    pub name: String,
    /// At least one; used in turn.
    pub servers: Vec<Server>,
    /// PROXY header to write first on each connection. `None`: none.
    pub proxy_protocol: Option<ProxyVersion>,
    /// How `X-Forwarded-For` is written.
    pub forwarded_for: ForwardedFor,
}

/// Where one server of an upstream listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Server {
    /// `host:port` or `https://host:port`; the name is resolved when used, never at load.
    Tcp {
        /// Name or address, IPv6 without brackets.
        host: String,
        /// Port.
        port: u16,
        /// Speak TLS, verified for `host`.
        tls: bool,
    },
    /// `unix:/path`.
    Unix(PathBuf),
}

/// Version of the PROXY header to write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProxyVersion {
    /// Text, HAProxy PROXY protocol §2.1.
    V1,
    /// Binary, HAProxy PROXY protocol §2.2.
    V2,
}

/// How `X-Forwarded-For` is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ForwardedFor {
    /// Exactly one bare address: the client's.
    #[default]
    Replace,
    /// What the client sent, then the remote address, as nginx's `$proxy_add_x_forwarded_for`.
    Append,
}
