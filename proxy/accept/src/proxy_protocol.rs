//! The PROXY protocol, versions 1 and 2 (HAProxy PROXY protocol §2.1, §2.2): bytes to header and back. Pure.
//! Who may send such a header is decided in `acceptor`.

mod ssl;
mod tlv;
mod v1;
mod v2;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use conf::ProxyVersion;

use crate::connection::folded;
pub use ssl::Ssl;
pub use tlv::{Others, Tlvs};

/// A PROXY header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProxyHeader {
    /// Text or binary.
    pub version: ProxyVersion,
    /// Whether the connection is made for somebody else.
    pub command: Command,
    /// Who connected to the sender; `None` for `LOCAL`, `UNKNOWN`, an unspecified family or a Unix socket.
    pub source: Option<SocketAddr>,
    /// What they connected to; present when `source` is.
    pub destination: Option<SocketAddr>,
    /// What version 2 says beside that; nothing for `LOCAL` and an unspecified family.
    pub tlvs: Tlvs,
}

/// Why the connection was made (§2.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    /// By the sender itself, for a health check: the header says nothing of a client.
    Local,
    /// For a client.
    Proxy,
}

/// Why bytes are no PROXY header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ProxyHeaderError {
    /// The bytes start otherwise.
    #[error("no PROXY header")]
    Missing,
    /// Over 107 bytes (version 1) or the limit (version 2).
    #[error("PROXY header is too long")]
    TooLong,
    /// Does not follow the specification.
    #[error("malformed PROXY header: {0}")]
    Malformed(&'static str),
    /// The CRC-32C field does not fit the header.
    #[error("PROXY header with a wrong checksum")]
    Checksum,
}

/// [`parse_within`] the usual limit, [`MAX_HEADER_BYTES`].
///
/// # Errors
/// The header is missing or not valid. More bytes do not change that.
pub fn parse(bytes: &[u8]) -> Result<Option<(ProxyHeader, usize)>, ProxyHeaderError> {
    parse_within(bytes, MAX_HEADER_BYTES)
}

/// Reads a header at the start of `bytes`: the header and how many bytes it takes, or `None` when more bytes are needed.
/// At most `max_size` are ever needed, or 107, which is what version 1 has. IPv4-mapped IPv6 addresses become IPv4.
///
/// # Errors
/// The header is missing or not valid. More bytes do not change that.
pub fn parse_within(bytes: &[u8], max_size: usize) -> Result<Option<(ProxyHeader, usize)>, ProxyHeaderError> {
    if starts_alike(bytes, v1::START) {
        return if bytes.len() < v1::START.len() { Ok(None) } else { v1::parse(bytes) };
    }
    if starts_alike(bytes, v2::SIGNATURE) {
        return if bytes.len() < v2::FIXED_BYTES { Ok(None) } else { v2::parse(bytes, max_size) };
    }
    Err(ProxyHeaderError::Missing)
}

/// A header to send. Without a source or destination it is `UNKNOWN` (version 1) or `LOCAL` (version 2), and has nothing
/// else in it. If only one of the two is IPv4, it is written IPv4-mapped (`::ffff:192.0.2.1`), so that the client is not
/// lost. Version 1 has no additional fields; of version 2 those are left out that would make it longer than
/// [`MAX_HEADER_BYTES`].
pub fn write(
    version: ProxyVersion,
    source: Option<SocketAddr>,
    destination: Option<SocketAddr>,
    tlvs: &Tlvs,
) -> Vec<u8> {
    let addresses = source.zip(destination).map(|(source, destination)| one_family(source, destination));
    match version {
        ProxyVersion::V1 => v1::write(addresses),
        ProxyVersion::V2 => v2::write(addresses, tlvs),
    }
}

/// The most bytes that [`write()`] makes, and the usual limit for [`parse`].
pub const MAX_HEADER_BYTES: usize = 2048;

/// Two endpoints of one family.
#[derive(Clone, Copy)]
enum Addresses {
    V4 { source: (Ipv4Addr, u16), destination: (Ipv4Addr, u16) },
    V6 { source: (Ipv6Addr, u16), destination: (Ipv6Addr, u16) },
}

fn one_family(source: SocketAddr, destination: SocketAddr) -> Addresses {
    let (source, destination) = (folded(source), folded(destination));
    match (source.ip(), destination.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            Addresses::V4 { source: (from, source.port()), destination: (to, destination.port()) }
        }
        (from, to) => Addresses::V6 {
            source: (as_v6(from), source.port()),
            destination: (as_v6(to), destination.port()),
        },
    }
}

fn as_v6(ip: IpAddr) -> Ipv6Addr {
    match ip {
        IpAddr::V4(v4) => v4.to_ipv6_mapped(),
        IpAddr::V6(v6) => v6,
    }
}

/// Whether what there is of `bytes` is the start of `start`, or `start` and more.
fn starts_alike(bytes: &[u8], start: &[u8]) -> bool {
    bytes.iter().zip(start).all(|(byte, expected)| byte == expected)
}

#[cfg(test)]
mod tests;
