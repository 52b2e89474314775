//! Sockets: the bind forms of MAS, and the edge's listeners.

use std::net::SocketAddr;
use std::path::PathBuf;

use ipnet::IpNet;

/// One socket to accept from, in any of MAS's forms.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Bind {
    /// `{host, port}`: the first address of the name that can be bound. Without a host `[::]` (dual stack), then `0.0.0.0`.
    Host {
        /// Name to resolve, or `None` for every address.
        host: Option<String>,
        /// Port; 0 lets the system choose.
        port: u16,
    },
    /// `{address: "ip:port"}`, never resolved. `[::]:port` also accepts IPv4.
    Address(SocketAddr),
    /// `{socket: path, mode: "660"}`: a Unix socket.
    Socket {
        /// Where it is bound; a stale socket there is replaced.
        path: PathBuf,
        /// Permission bits, written as octal text. `None`: 0o600.
        mode: Option<u32>,
    },
    /// `{fd: 0, kind: tcp}`: an inherited socket, counted from descriptor 3 (systemd's `LISTEN_FDS`).
    Fd {
        /// Index into the inherited sockets.
        index: usize,
        /// What kind of socket it has to be.
        kind: SocketKind,
    },
}

/// The kind of an inherited socket. Default `tcp`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SocketKind {
    /// A listening TCP socket.
    Tcp,
    /// A listening Unix stream socket.
    Unix,
}

/// One entry of `edge.listeners`.
#[derive(Debug, Clone)]
pub struct EdgeListener {
    /// Label in logs and metrics.
    pub name: String,
    /// Sockets, at least one.
    pub binds: Vec<Bind>,
    /// Whether TLS is spoken (with the certificates of `edge.tls`).
    pub tls: bool,
    /// `proxy_protocol.from`: peers that must send a PROXY header. `None`: nobody may.
    pub proxy_protocol: Option<Vec<IpNet>>,
    /// Answer every request with a redirect to `https://` on the same host.
    pub redirect_https: bool,
}
