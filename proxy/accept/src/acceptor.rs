//! From an accepted socket to a connection with facts: PROXY header, then TLS, each under its deadline. Who may send a PROXY
//! header is decided here and nowhere else.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ipnet::IpNet;
use rustls::server::{NoServerSessionStorage, ProducesTickets, ResolvesServerCert};
use rustls::{ProtocolVersion, ServerConfig};
use tokio::io::AsyncReadExt as _;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use crate::connection::{Connection, Remote, TlsFacts};
use crate::forwarded::contains;
use crate::proxy_protocol::{self, MAX_HEADER_BYTES, ProxyHeader, ProxyHeaderError};
use crate::resolver::Resolver;
use crate::stream::{Io, Replay, Stream};

/// Who sends a PROXY header. A header from anybody else is never parsed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProxyPolicy {
    /// Nobody.
    Off,
    /// Peers in these networks, and Unix peers, must send one; the others speak for themselves.
    From(Vec<IpNet>),
    /// Every connection must begin with one; only these networks and Unix peers are believed, others are refused.
    Always(Vec<IpNet>),
}

/// Performs what comes before HTTP on the connections of one listener.
#[derive(Debug, Clone)]
pub struct Acceptor {
    /// The listener's name.
    pub listener: Arc<str>,
    /// Who sends a PROXY header.
    pub proxy: ProxyPolicy,
    /// TLS, if spoken.
    pub tls: Option<Arc<ServerConfig>>,
    /// How PROXY headers are bounded.
    pub header: HeaderBounds,
    /// Deadline of the TLS handshake, which begins behind the PROXY header.
    pub handshake: Duration,
}

/// Bounds of a PROXY header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeaderBounds {
    /// From accept to its last byte. Default 5 s: the sender is a machine that writes it first of all, in one piece.
    pub deadline: Duration,
    /// Bytes of one of version 2. Default [`MAX_HEADER_BYTES`]. Those of version 1 have 107 at most.
    pub size: usize,
}

impl Default for HeaderBounds {
    fn default() -> Self {
        Self { deadline: Duration::from_secs(5), size: MAX_HEADER_BYTES }
    }
}

/// Why a connection never came to HTTP. The caller closes it and logs at debug level: clients cause these at will.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// A PROXY header is demanded and this peer is not believed.
    #[error("peer may not send a PROXY header")]
    Untrusted,
    /// The PROXY header is missing or malformed.
    #[error(transparent)]
    Header(#[from] ProxyHeaderError),
    /// Closed by the peer before its PROXY header was complete, as TCP health checks do.
    #[error("closed before the PROXY header was complete")]
    Closed,
    /// Reading the PROXY header failed.
    #[error("reading the PROXY header failed")]
    Read(#[source] io::Error),
    /// The PROXY header was not complete in time.
    #[error("deadline passed before the PROXY header was complete")]
    HeaderDeadline,
    /// The TLS handshake failed.
    #[error("TLS handshake failed")]
    Tls(#[source] io::Error),
    /// The TLS handshake was not complete in time.
    #[error("deadline passed before the TLS handshake was complete")]
    TlsDeadline,
}

impl Refused {
    /// For metrics: one of [`REFUSAL_REASONS`].
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Untrusted => "proxy_untrusted",
            Self::Header(ProxyHeaderError::Missing) => "proxy_missing",
            Self::Header(ProxyHeaderError::TooLong) => "proxy_too_long",
            Self::Header(ProxyHeaderError::Malformed(_)) => "proxy_malformed",
            Self::Header(ProxyHeaderError::Checksum) => "proxy_checksum",
            Self::Closed => "proxy_closed",
            Self::Read(_) => "proxy_read",
            Self::HeaderDeadline => "proxy_deadline",
            Self::Tls(_) => "tls_failed",
            Self::TlsDeadline => "tls_deadline",
        }
    }
}

/// Every reason for which a connection is refused before HTTP.
pub const REFUSAL_REASONS: [&str; 10] = [
    "proxy_untrusted",
    "proxy_missing",
    "proxy_too_long",
    "proxy_malformed",
    "proxy_checksum",
    "proxy_closed",
    "proxy_read",
    "proxy_deadline",
    "tls_failed",
    "tls_deadline",
];

impl Acceptor {
    /// Reads the PROXY header when the peer has to send one, and performs the TLS handshake.
    ///
    /// # Errors
    /// The connection is not to be served; it is closed by dropping it.
    pub async fn establish(&self, stream: Stream, remote: Remote) -> Result<(Io, Connection), Refused> {
        let (stream, connection) = self.identify(stream, remote).await?;
        self.secure(stream, connection).await
    }

    /// The first half: the PROXY header. Where nothing has to be waited for there is no timer either.
    pub(crate) async fn identify(
        &self,
        mut stream: Stream,
        remote: Remote,
    ) -> Result<(Replay, Connection), Refused> {
        let local = stream.local();
        if !self.proxy.demands_header(remote)? {
            return Ok((Replay::new(stream), self.connection(remote, local, None)));
        }
        let reading = timeout(self.header.deadline, read_header(&mut stream, self.header.size));
        let (header, read, consumed) = reading.await.map_err(|_| Refused::HeaderDeadline)??;
        let stream = Replay::with_pending(stream, read, consumed);
        Ok((stream, self.connection(remote, local, Some(header))))
    }

    /// The second half: TLS.
    pub(crate) async fn secure(
        &self,
        stream: Replay,
        mut connection: Connection,
    ) -> Result<(Io, Connection), Refused> {
        let Some(config) = &self.tls else { return Ok((Io::Plain(stream), connection)) };
        let handshake = TlsAcceptor::from(config.clone()).accept(stream.reading_ahead());
        let tls = timeout(self.handshake, handshake).await.map_err(|_| Refused::TlsDeadline)?;
        let tls = tls.map_err(Refused::Tls)?;
        connection.tls = Some(facts(tls.get_ref().1));
        Ok((Io::Tls(Box::new(tls)), connection))
    }

    fn connection(
        &self,
        remote: Remote,
        local: Option<SocketAddr>,
        proxy_header: Option<ProxyHeader>,
    ) -> Connection {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        let proxy_header = proxy_header.map(Box::new);
        Connection { id, listener: self.listener.clone(), remote, local, proxy_header, tls: None }
    }
}

impl ProxyPolicy {
    /// Whether this peer has to begin with a PROXY header.
    ///
    /// # Errors
    /// [`Refused::Untrusted`]: every connection has to, and this peer would not be believed.
    pub fn demands_header(&self, remote: Remote) -> Result<bool, Refused> {
        let believed = |networks: &[IpNet]| remote.ip().is_none_or(|ip| contains(networks, ip));
        match self {
            Self::Off => Ok(false),
            Self::From(networks) => Ok(believed(networks)),
            Self::Always(networks) if believed(networks) => Ok(true),
            Self::Always(_) => Err(Refused::Untrusted),
        }
    }
}

/// Reads until the header is complete: the header, all bytes read, and how many of them are the header.
async fn read_header(stream: &mut Stream, max_size: usize) -> Result<(ProxyHeader, Vec<u8>, usize), Refused> {
    let mut read = Vec::with_capacity(max_size.min(MAX_HEADER_BYTES));
    loop {
        // The parser needs no more than `max_size` to come to a result, so `read` does not grow much beyond it.
        if stream.read_buf(&mut read).await.map_err(Refused::Read)? == 0 {
            return Err(Refused::Closed);
        }
        if let Some((header, consumed)) = proxy_protocol::parse_within(&read, max_size)? {
            return Ok((header, read, consumed));
        }
    }
}

fn facts(tls: &rustls::ServerConnection) -> TlsFacts {
    let version = if tls.protocol_version() == Some(ProtocolVersion::TLSv1_2) { "1.2" } else { "1.3" };
    let suite = tls.negotiated_cipher_suite().and_then(|suite| suite.suite().as_str());
    TlsFacts {
        version,
        // rustls marks the suites of TLS 1.3, IANA does not.
        cipher: suite.unwrap_or_default().replacen("TLS13_", "TLS_", 1),
        server_name: tls.server_name().map(str::to_ascii_lowercase),
        alpn: tls.alpn_protocol().map(<[u8]>::to_vec),
        is_resumed: tls.handshake_kind() == Some(rustls::HandshakeKind::Resumed),
        has_client_certificate: tls.peer_certificates().is_some(),
    }
}

/// The keys of session tickets: whoever keeps them over a change of the configuration lets clients resume their sessions.
#[derive(Debug, Clone)]
pub struct Tickets(Option<Arc<dyn ProducesTickets>>);

impl Tickets {
    /// Fresh keys, replaced every few hours.
    pub fn new() -> Self {
        match rustls::crypto::aws_lc_rs::Ticketer::new() {
            Ok(ticketer) => Self(Some(ticketer)),
            Err(error) => {
                tracing::warn!(%error, "no TLS session tickets; sessions are kept in memory instead");
                Self(None)
            }
        }
    }
}

impl Default for Tickets {
    fn default() -> Self {
        Self::new()
    }
}

/// TLS for the edge: certificates by name, oldest version, protocols in the order of preference. The resolver is the
/// handle to replace certificates later.
pub fn server_config(
    tls: &conf::EdgeTls,
    alpn: &[&[u8]],
    tickets: &Tickets,
) -> (Arc<ServerConfig>, Arc<Resolver>) {
    let resolver = Arc::new(Resolver::new(&tls.certificates));
    let versions: &[&rustls::SupportedProtocolVersion] = match tls.min_version {
        conf::TlsVersion::V1_2 => &[&rustls::version::TLS13, &rustls::version::TLS12],
        conf::TlsVersion::V1_3 => &[&rustls::version::TLS13],
    };
    (build(versions, resolver.clone(), alpn, tickets), resolver)
}

/// TLS 1.2 and 1.3 with one certificate, whatever name is asked for.
pub fn server_config_for(
    certificate: &conf::Certificate,
    alpn: &[&[u8]],
    tickets: &Tickets,
) -> Arc<ServerConfig> {
    let resolver = Arc::new(Resolver::new(std::slice::from_ref(certificate)));
    build(rustls::ALL_VERSIONS, resolver, alpn, tickets)
}

fn build(
    versions: &[&'static rustls::SupportedProtocolVersion],
    resolver: Arc<dyn ResolvesServerCert>,
    alpn: &[&[u8]],
    tickets: &Tickets,
) -> Arc<ServerConfig> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .expect("the provider has cipher suites for TLS 1.2 and 1.3")
        .with_no_client_auth()
        .with_cert_resolver(resolver);
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
    if let Tickets(Some(ticketer)) = tickets {
        config.ticketer = ticketer.clone();
        // Sessions live in the tickets: no table in memory, no lock between the threads.
        config.session_storage = Arc::new(NoServerSessionStorage {});
    }
    Arc::new(config)
}

#[cfg(test)]
mod tests;
