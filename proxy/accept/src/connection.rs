//! What is known about an accepted connection. Facts only: who is believed is decided in `acceptor` and `forwarded`.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use crate::proxy_protocol::{ProxyHeader, Ssl};

/// A socket's other end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Remote {
    /// A TCP connection from this address.
    Ip(SocketAddr),
    /// A Unix socket; whoever could open it.
    Unix,
}

impl Remote {
    /// The address without port, IPv4-mapped IPv6 (`::ffff:192.0.2.1`) as IPv4; `None` for a Unix socket.
    pub fn ip(&self) -> Option<IpAddr> {
        match self {
            Self::Ip(address) => Some(address.ip().to_canonical()),
            Self::Unix => None,
        }
    }
}

impl From<SocketAddr> for Remote {
    fn from(address: SocketAddr) -> Self {
        Self::Ip(folded(address))
    }
}

impl fmt::Display for Remote {
    /// `192.0.2.1:4711`, `[2001:db8::1]:4711` or `unix`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(address) => folded(*address).fmt(f),
            Self::Unix => f.write_str("unix"),
        }
    }
}

/// Who asked, after all trust rules. Made once per request by [`crate::client_address`]; nobody reads the headers again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ClientAddress(Option<IpAddr>);

impl ClientAddress {
    /// Nobody knows: a Unix socket without any word about the client.
    pub const UNKNOWN: Self = Self(None);

    /// The address, never IPv4-mapped; `None` when unknown.
    pub fn ip(&self) -> Option<IpAddr> {
        self.0
    }
}

impl From<IpAddr> for ClientAddress {
    fn from(ip: IpAddr) -> Self {
        Self(Some(ip.to_canonical()))
    }
}

impl fmt::Display for ClientAddress {
    /// `203.0.113.7`, `2001:db8::1` or `unknown`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(ip) => ip.fmt(f),
            None => f.write_str("unknown"),
        }
    }
}

/// What a finished TLS handshake agreed on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFacts {
    /// `1.2` or `1.3`.
    pub version: &'static str,
    /// IANA name of the cipher suite: `TLS_AES_128_GCM_SHA256`.
    pub cipher: String,
    /// The name the client asked for (SNI, RFC 6066 §3), lower case.
    pub server_name: Option<String>,
    /// The protocol agreed on (ALPN, RFC 7301): `h2`, `http/1.1`, `http/1.0`.
    pub alpn: Option<Vec<u8>>,
    /// Whether an earlier session goes on (RFC 8446 §2.2, RFC 5077).
    pub is_resumed: bool,
    /// Whether the client showed a certificate, which is verified then. No listener asks for one yet.
    pub has_client_certificate: bool,
}

/// An accepted connection and what is known about it.
#[derive(Debug, Clone)]
pub struct Connection {
    /// Unique within the process; never reused.
    pub id: u64,
    /// The listener's name.
    pub listener: Arc<str>,
    /// The socket's other end.
    pub remote: Remote,
    /// The socket's own address; `None` for a Unix socket.
    pub local: Option<SocketAddr>,
    /// The PROXY header, if one was demanded; it came from a peer that is believed.
    pub proxy_header: Option<Box<ProxyHeader>>,
    /// What TLS agreed on; `None` on a plain connection.
    pub tls: Option<TlsFacts>,
}

impl Connection {
    /// Who opened the connection: the PROXY header's source when it has one, else the socket's other end.
    pub fn peer(&self) -> Remote {
        self.proxy_header.as_ref().and_then(|header| header.source).map_or(self.remote, Remote::from)
    }

    /// Whether whoever opened the connection spoke TLS: to us, or to the proxy in front, as its PROXY header says.
    pub fn is_tls(&self) -> bool {
        let tls_in_front = || self.proxy_header.as_ref()?.tlvs.ssl.as_ref().map(Ssl::is_tls);
        self.tls.is_some() || tls_in_front() == Some(true)
    }

    /// Where the connection was opened to: the PROXY header's destination when it has one, else the socket's own address.
    pub fn peer_local(&self) -> Option<SocketAddr> {
        self.proxy_header.as_ref().and_then(|header| header.destination).or(self.local)
    }
}

/// The address with an IPv4-mapped IPv6 part written as the IPv4 address it is.
pub(crate) fn folded(address: SocketAddr) -> SocketAddr {
    match address {
        SocketAddr::V4(_) => address,
        SocketAddr::V6(v6) => match v6.ip().to_ipv4_mapped() {
            Some(v4) => SocketAddr::new(v4.into(), v6.port()),
            None => address,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mapped_addresses_are_ipv4() {
        let mapped: SocketAddr = "[::ffff:192.0.2.1]:80".parse().unwrap();
        assert_eq!(Remote::Ip(mapped).ip(), Some("192.0.2.1".parse().unwrap()));
        assert_eq!(Remote::from(mapped), Remote::Ip("192.0.2.1:80".parse().unwrap()));
        assert_eq!(Remote::Ip(mapped).to_string(), "192.0.2.1:80");
        assert_eq!(ClientAddress::from(mapped.ip()).to_string(), "192.0.2.1");
    }

    #[test]
    fn nobody_is_shown_as_unknown() {
        assert_eq!(ClientAddress::UNKNOWN.to_string(), "unknown");
        assert_eq!(Remote::Unix.to_string(), "unix");
        assert_eq!(Remote::Unix.ip(), None);
    }
}
