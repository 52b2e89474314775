//! The PROXY protocol, versions 1 and 2 (HAProxy PROXY protocol §2.1, §2.2): bytes to header and back. Pure.
//! Who may send such a header is decided in `acceptor`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use conf::ProxyVersion;
use crc::{CRC_32_ISCSI, Crc};

use crate::connection::folded;

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
    /// Additional fields of version 2, checked against their CRC-32C if that is among them.
    pub tlvs: Vec<Tlv>,
}

/// Why the connection was made (§2.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    /// By the sender itself, for a health check: the header says nothing of a client.
    Local,
    /// For a client.
    Proxy,
}

/// An additional field of version 2 (§2.2.1 to §2.2.7).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tlv {
    /// `PP2_TYPE_…`
    pub kind: u8,
    /// At most 2 KiB.
    pub value: Vec<u8>,
}

/// Why bytes are no PROXY header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ProxyHeaderError {
    /// The bytes start otherwise.
    #[error("no PROXY header")]
    Missing,
    /// Over 107 bytes (version 1) or 2 KiB (version 2).
    #[error("PROXY header is too long")]
    TooLong,
    /// Does not follow the specification.
    #[error("malformed PROXY header: {0}")]
    Malformed(&'static str),
    /// The CRC-32C field does not fit the header.
    #[error("PROXY header with a wrong checksum")]
    Checksum,
}

/// Reads a header at the start of `bytes`: the header and how many bytes it takes, or `None` when more bytes are needed.
/// At most [`MAX_HEADER_BYTES`] are ever needed. IPv4-mapped IPv6 addresses become IPv4.
///
/// # Errors
/// The header is missing or not valid. More bytes do not change that.
pub fn parse(bytes: &[u8]) -> Result<Option<(ProxyHeader, usize)>, ProxyHeaderError> {
    if starts_alike(bytes, V1_START) {
        return if bytes.len() < V1_START.len() { Ok(None) } else { parse_v1(bytes) };
    }
    if starts_alike(bytes, V2_SIGNATURE) {
        return if bytes.len() < V2_FIXED_BYTES { Ok(None) } else { parse_v2(bytes) };
    }
    Err(ProxyHeaderError::Missing)
}

/// A header to send. Without a source or destination it is `UNKNOWN` (version 1) or `LOCAL` (version 2). If only one of
/// the two is IPv4, it is written IPv4-mapped (`::ffff:192.0.2.1`), so that the client is not lost.
pub fn write(version: ProxyVersion, source: Option<SocketAddr>, destination: Option<SocketAddr>) -> Vec<u8> {
    let addresses = source.zip(destination).map(|(source, destination)| one_family(source, destination));
    match version {
        ProxyVersion::V1 => write_v1(addresses),
        ProxyVersion::V2 => write_v2(addresses),
    }
}

/// The most bytes [`parse`] needs to come to a result.
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

fn write_v1(addresses: Option<Addresses>) -> Vec<u8> {
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

fn write_v2(addresses: Option<Addresses>) -> Vec<u8> {
    let mut header = Vec::with_capacity(V2_FIXED_BYTES + 36);
    header.extend_from_slice(V2_SIGNATURE);
    match addresses {
        None => header.extend_from_slice(&[0x20, 0x00, 0, 0]),
        Some(Addresses::V4 { source, destination }) => {
            header.extend_from_slice(&[0x21, 0x11, 0, 12]);
            header.extend_from_slice(&source.0.octets());
            header.extend_from_slice(&destination.0.octets());
            header.extend_from_slice(&source.1.to_be_bytes());
            header.extend_from_slice(&destination.1.to_be_bytes());
        }
        Some(Addresses::V6 { source, destination }) => {
            header.extend_from_slice(&[0x21, 0x21, 0, 36]);
            header.extend_from_slice(&source.0.octets());
            header.extend_from_slice(&destination.0.octets());
            header.extend_from_slice(&source.1.to_be_bytes());
            header.extend_from_slice(&destination.1.to_be_bytes());
        }
    }
    header
}

/// Whether what there is of `bytes` is the start of `start`, or `start` and more.
fn starts_alike(bytes: &[u8], start: &[u8]) -> bool {
    bytes.iter().zip(start).all(|(byte, expected)| byte == expected)
}

fn parse_v1(bytes: &[u8]) -> Result<Option<(ProxyHeader, usize)>, ProxyHeaderError> {
    let within = &bytes[..bytes.len().min(V1_MAX_BYTES)];
    let Some(end) = within.windows(2).position(|pair| pair == b"\r\n") else {
        return if bytes.len() >= V1_MAX_BYTES { Err(ProxyHeaderError::TooLong) } else { Ok(None) };
    };
    let addresses = v1_addresses(&within[V1_START.len()..end])?;
    let (source, destination) = addresses.unzip();
    let header = ProxyHeader {
        version: ProxyVersion::V1,
        command: Command::Proxy,
        source,
        destination,
        tlvs: Vec::new(),
    };
    Ok(Some((header, end + 2)))
}

/// What stands between `PROXY ` and the end of the line.
fn v1_addresses(line: &[u8]) -> Result<Option<(SocketAddr, SocketAddr)>, ProxyHeaderError> {
    use ProxyHeaderError::Malformed;
    // "The receiver must ignore anything presented before the CRLF" of an UNKNOWN line.
    if line == b"UNKNOWN" || line.starts_with(b"UNKNOWN ") {
        return Ok(None);
    }
    let line = str::from_utf8(line).map_err(|_| Malformed("not ASCII"))?;
    let mut fields = line.split(' ');
    let mut next = || fields.next().ok_or(Malformed("too few fields"));
    let (family, source, destination) = (next()?, next()?, next()?);
    let (source_port, destination_port) = (v1_port(next()?)?, v1_port(next()?)?);
    if fields.next().is_some() {
        return Err(Malformed("too many fields"));
    }
    let (source, destination) = match family {
        "TCP4" => (v1_ip::<Ipv4Addr>(source)?, v1_ip::<Ipv4Addr>(destination)?),
        "TCP6" => (v1_ip::<Ipv6Addr>(source)?, v1_ip::<Ipv6Addr>(destination)?),
        _ => return Err(Malformed("unknown family")),
    };
    Ok(Some((SocketAddr::new(source, source_port), SocketAddr::new(destination, destination_port))))
}

fn v1_ip<T: std::str::FromStr + Into<IpAddr>>(text: &str) -> Result<IpAddr, ProxyHeaderError> {
    let ip: T = text.parse().map_err(|_| ProxyHeaderError::Malformed("bad address"))?;
    Ok(ip.into().to_canonical())
}

/// Decimal, no sign, no leading zeros.
fn v1_port(text: &str) -> Result<u16, ProxyHeaderError> {
    let plain =
        text == "0" || (text.starts_with(|first: char| first.is_ascii_digit()) && !text.starts_with('0'));
    let port = text.parse().ok().filter(|_| plain);
    port.ok_or(ProxyHeaderError::Malformed("bad port"))
}

/// `bytes` holds at least the fixed part.
fn parse_v2(bytes: &[u8]) -> Result<Option<(ProxyHeader, usize)>, ProxyHeaderError> {
    use ProxyHeaderError::{Malformed, TooLong};
    let [version_and_command, family, high, low] = [bytes[12], bytes[13], bytes[14], bytes[15]];
    let command = match version_and_command {
        0x20 => Command::Local,
        0x21 => Command::Proxy,
        _ => return Err(Malformed("unknown version or command")),
    };
    let length = V2_FIXED_BYTES + usize::from(u16::from_be_bytes([high, low]));
    if length > MAX_HEADER_BYTES {
        return Err(TooLong);
    }
    if bytes.len() < length {
        return Ok(None);
    }
    let header = &bytes[..length];
    let body = &header[V2_FIXED_BYTES..];
    let mut parsed =
        ProxyHeader { version: ProxyVersion::V2, command, source: None, destination: None, tlvs: Vec::new() };
    // The block of a LOCAL header is discarded, family included.
    if command == Command::Local {
        return Ok(Some((parsed, length)));
    }
    let (family, transport) = (family >> 4, family & 0x0f);
    if transport > 2 {
        return Err(Malformed("unknown transport"));
    }
    let rest = match family {
        // Unspecified: there is no address block whose length would be known, so nothing in it is looked at.
        0 => return Ok(Some((parsed, length))),
        1 => {
            let (block, rest) =
                body.split_first_chunk::<12>().ok_or(Malformed("address block is cut off"))?;
            let [a, b, c, d, e, f, g, h, ports @ ..] = *block;
            (parsed.source, parsed.destination) =
                endpoints(Ipv4Addr::new(a, b, c, d).into(), Ipv4Addr::new(e, f, g, h).into(), ports);
            rest
        }
        2 => {
            let cut_off = Malformed("address block is cut off");
            let (source, rest) = body.split_first_chunk::<16>().ok_or(cut_off)?;
            let (destination, rest) = rest.split_first_chunk::<16>().ok_or(cut_off)?;
            let (ports, rest) = rest.split_first_chunk::<4>().ok_or(cut_off)?;
            (parsed.source, parsed.destination) =
                endpoints(Ipv6Addr::from(*source).into(), Ipv6Addr::from(*destination).into(), *ports);
            rest
        }
        3 => body.get(V2_UNIX_BYTES..).ok_or(Malformed("address block is cut off"))?,
        _ => return Err(Malformed("unknown family")),
    };
    parsed.tlvs = tlvs(rest)?;
    check_crc(header, length - rest.len())?;
    Ok(Some((parsed, length)))
}

fn endpoints(
    source: IpAddr,
    destination: IpAddr,
    ports: [u8; 4],
) -> (Option<SocketAddr>, Option<SocketAddr>) {
    let [a, b, c, d] = ports;
    (
        Some(SocketAddr::new(source.to_canonical(), u16::from_be_bytes([a, b]))),
        Some(SocketAddr::new(destination.to_canonical(), u16::from_be_bytes([c, d]))),
    )
}

/// The fields after the addresses, padding (`PP2_TYPE_NOOP`) left out.
fn tlvs(mut bytes: &[u8]) -> Result<Vec<Tlv>, ProxyHeaderError> {
    let mut tlvs = Vec::new();
    while let Some((kind, value, rest)) = next_tlv(bytes)? {
        if kind != TLV_NOOP {
            tlvs.push(Tlv { kind, value: value.to_vec() });
        }
        bytes = rest;
    }
    Ok(tlvs)
}

type RawTlv<'a> = (u8, &'a [u8], &'a [u8]);

/// The first field: type, value, and what follows; `None` at the end.
fn next_tlv(bytes: &[u8]) -> Result<Option<RawTlv<'_>>, ProxyHeaderError> {
    if bytes.is_empty() {
        return Ok(None);
    }
    let cut_off = ProxyHeaderError::Malformed("field is cut off");
    let ([kind, high, low], rest) = bytes.split_first_chunk::<3>().ok_or(cut_off)?;
    let length = usize::from(u16::from_be_bytes([*high, *low]));
    let (value, rest) = rest.split_at_checked(length).ok_or(cut_off)?;
    Ok(Some((*kind, value, rest)))
}

/// Verifies the CRC-32C field (§2.2.3), if there is one: the sum over the whole header with the field's value as zeros.
fn check_crc(header: &[u8], first_tlv: usize) -> Result<(), ProxyHeaderError> {
    let mut rest = &header[first_tlv..];
    let mut found = None;
    while let Some((kind, value, after)) = next_tlv(rest)? {
        if kind == TLV_CRC32C {
            let sum: [u8; 4] =
                value.try_into().map_err(|_| ProxyHeaderError::Malformed("checksum is not 4 bytes"))?;
            let place = header.len() - after.len() - 4;
            if found.replace((place, u32::from_be_bytes(sum))).is_some() {
                return Err(ProxyHeaderError::Malformed("two checksums"));
            }
        }
        rest = after;
    }
    let Some((place, expected)) = found else { return Ok(()) };
    let mut digest = CRC32C.digest();
    digest.update(&header[..place]);
    digest.update(&[0; 4]);
    digest.update(&header[place + 4..]);
    if digest.finalize() == expected { Ok(()) } else { Err(ProxyHeaderError::Checksum) }
}

const V1_START: &[u8] = b"PROXY ";
/// §2.1: the longest line, two IPv6 addresses and `UNKNOWN`, with its CRLF.
const V1_MAX_BYTES: usize = 107;
const V2_SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// Signature, version and command, family, length.
const V2_FIXED_BYTES: usize = 16;
/// Two paths of 108 bytes.
const V2_UNIX_BYTES: usize = 216;
const TLV_CRC32C: u8 = 0x03;
const TLV_NOOP: u8 = 0x04;
/// Castagnoli's polynomial, as in iSCSI.
static CRC32C: Crc<u32> = Crc::<u32>::new(&CRC_32_ISCSI);

#[cfg(test)]
mod tests;
