//! Version 1: one line of text (HAProxy PROXY protocol §2.1).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use conf::ProxyVersion;

use super::{Addresses, Command, ProxyHeader, ProxyHeaderError, Tlvs};

/// `bytes` begins with [`START`].
pub(super) fn parse(bytes: &[u8]) -> Result<Option<(ProxyHeader, usize)>, ProxyHeaderError> {
    let within = &bytes[..bytes.len().min(MAX_BYTES)];
    let Some(end) = within.windows(2).position(|pair| pair == b"\r\n") else {
        return if bytes.len() >= MAX_BYTES { Err(ProxyHeaderError::TooLong) } else { Ok(None) };
    };
    let addresses = addresses_of(&within[START.len()..end])?;
    let (source, destination) = addresses.unzip();
    let header = ProxyHeader {
        version: ProxyVersion::V1,
        command: Command::Proxy,
        source,
        destination,
        tlvs: Tlvs::default(),
    };
    Ok(Some((header, end + 2)))
}

/// What stands between `PROXY ` and the end of the line.
fn addresses_of(line: &[u8]) -> Result<Option<(SocketAddr, SocketAddr)>, ProxyHeaderError> {
    use ProxyHeaderError::Malformed;
    // "The receiver must ignore anything presented before the CRLF" of an UNKNOWN line.
    if line == b"UNKNOWN" || line.starts_with(b"UNKNOWN ") {
        return Ok(None);
    }
    let line = str::from_utf8(line).map_err(|_| Malformed("not ASCII"))?;
    let mut fields = line.split(' ');
    let mut next = || fields.next().ok_or(Malformed("too few fields"));
    let (family, source, destination) = (next()?, next()?, next()?);
    let (source_port, destination_port) = (port(next()?)?, port(next()?)?);
    if fields.next().is_some() {
        return Err(Malformed("too many fields"));
    }
    let (source, destination) = match family {
        "TCP4" => (ip::<Ipv4Addr>(source)?, ip::<Ipv4Addr>(destination)?),
        "TCP6" => (ip::<Ipv6Addr>(source)?, ip::<Ipv6Addr>(destination)?),
        _ => return Err(Malformed("unknown family")),
    };
    Ok(Some((SocketAddr::new(source, source_port), SocketAddr::new(destination, destination_port))))
}

fn ip<T: std::str::FromStr + Into<IpAddr>>(text: &str) -> Result<IpAddr, ProxyHeaderError> {
    let ip: T = text.parse().map_err(|_| ProxyHeaderError::Malformed("bad address"))?;
    Ok(ip.into().to_canonical())
}

/// Decimal, no sign, no leading zeros.
fn port(text: &str) -> Result<u16, ProxyHeaderError> {
    let plain =
        text == "0" || (text.starts_with(|first: char| first.is_ascii_digit()) && !text.starts_with('0'));
    let port = text.parse().ok().filter(|_| plain);
    port.ok_or(ProxyHeaderError::Malformed("bad port"))
}

pub(super) fn write(addresses: Option<Addresses>) -> Vec<u8> {
    match addresses {
        None => b"PROXY UNKNOWN\r\n".to_vec(),
        Some(Addresses::V4 { source: (from, from_port), destination: (to, to_port) }) => {
            format!("PROXY TCP4 {from} {to} {from_port} {to_port}\r\n").into_bytes()
        }
        Some(Addresses::V6 { source: (from, from_port), destination: (to, to_port) }) => {
            format!("PROXY TCP6 {from} {to} {from_port} {to_port}\r\n").into_bytes()
        }
    }
}

/// How a line begins.
pub(super) const START: &[u8] = b"PROXY ";
/// The longest line, two IPv6 addresses and `UNKNOWN`, with its CRLF.
const MAX_BYTES: usize = 107;
