//! Version 2: binary (HAProxy PROXY protocol §2.2).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use conf::ProxyVersion;
use crc::{CRC_32_ISCSI, Crc};

use super::ProxyHeaderError::{Malformed, TooLong};
use super::tlv::{self, Tlvs};
use super::{Addresses, Command, MAX_HEADER_BYTES, ProxyHeader, ProxyHeaderError};

/// `bytes` holds at least the fixed part.
pub(super) fn parse(bytes: &[u8], max_size: usize) -> Result<Option<(ProxyHeader, usize)>, ProxyHeaderError> {
    let [version_and_command, family, high, low] = [bytes[12], bytes[13], bytes[14], bytes[15]];
    let command = match version_and_command {
        LOCAL => Command::Local,
        PROXY => Command::Proxy,
        _ => return Err(Malformed("unknown version or command")),
    };
    let length = FIXED_BYTES + usize::from(u16::from_be_bytes([high, low]));
    if length > max_size {
        return Err(TooLong);
    }
    if bytes.len() < length {
        return Ok(None);
    }
    let header = &bytes[..length];
    let body = &header[FIXED_BYTES..];
    let mut parsed = ProxyHeader {
        version: ProxyVersion::V2,
        command,
        source: None,
        destination: None,
        tlvs: Tlvs::default(),
    };
    // The block of a LOCAL header is discarded, family included.
    if command == Command::Local {
        return Ok(Some((parsed, length)));
    }
    let (family, transport) = (family >> 4, family & 0x0f);
    let rest = match family {
        _ if transport > 2 => return Err(Malformed("unknown transport")),
        4.. => return Err(Malformed("unknown family")),
        // Unspecified: there is no address block whose length would be known, so nothing in it is looked at.
        0 => return Ok(Some((parsed, length))),
        _ if transport == 0 => return Ok(Some((parsed, length))),
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
        3 => body.get(UNIX_BYTES..).ok_or(Malformed("address block is cut off"))?,
    };
    check_crc(header, length - rest.len())?;
    parsed.tlvs = Tlvs::read(rest)?;
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

/// Verifies the CRC-32C field (§2.2.3), if there is one: the sum over the whole header with the field's value as zeros.
fn check_crc(header: &[u8], first_tlv: usize) -> Result<(), ProxyHeaderError> {
    let mut found = None;
    for field in tlv::fields(&header[first_tlv..]) {
        let (kind, value, end) = field?;
        if kind == tlv::CRC32C {
            let sum: [u8; 4] = value.try_into().map_err(|_| Malformed("checksum is not 4 bytes"))?;
            tlv::once(&mut found, (first_tlv + end - sum.len(), u32::from_be_bytes(sum)))?;
        }
    }
    let Some((place, expected)) = found else { return Ok(()) };
    if crc(header, place) == expected { Ok(()) } else { Err(ProxyHeaderError::Checksum) }
}

/// The sum over a header whose own sum stands at `place`.
fn crc(header: &[u8], place: usize) -> u32 {
    let mut digest = CRC32C.digest();
    digest.update(&header[..place]);
    digest.update(&[0; CRC_BYTES]);
    digest.update(&header[place + CRC_BYTES..]);
    digest.finalize()
}

/// Without addresses a `LOCAL` header, which has nothing else in it either.
pub(super) fn write(addresses: Option<Addresses>, tlvs: &Tlvs) -> Vec<u8> {
    let mut header = Vec::with_capacity(TYPICAL_BYTES);
    header.extend_from_slice(SIGNATURE);
    let Some(addresses) = addresses else {
        header.extend_from_slice(&[LOCAL, 0x00, 0, 0]);
        return header;
    };
    let ports = match addresses {
        Addresses::V4 { source, destination } => {
            header.extend_from_slice(&[PROXY, 0x11, 0, 0]);
            header.extend_from_slice(&source.0.octets());
            header.extend_from_slice(&destination.0.octets());
            [source.1, destination.1]
        }
        Addresses::V6 { source, destination } => {
            header.extend_from_slice(&[PROXY, 0x21, 0, 0]);
            header.extend_from_slice(&source.0.octets());
            header.extend_from_slice(&destination.0.octets());
            [source.1, destination.1]
        }
    };
    for port in ports {
        header.extend_from_slice(&port.to_be_bytes());
    }
    let reserved = if tlvs.crc32c { tlv::FIELD_BYTES + CRC_BYTES } else { 0 };
    tlvs.write(&mut header, MAX_HEADER_BYTES - reserved);
    if tlvs.crc32c {
        tlv::push(&mut header, MAX_HEADER_BYTES, tlv::CRC32C, &[0; CRC_BYTES]);
    }
    let length = u16::try_from(header.len() - FIXED_BYTES).expect("a header has at most 2 KiB");
    header[14..FIXED_BYTES].copy_from_slice(&length.to_be_bytes());
    if tlvs.crc32c {
        let place = header.len() - CRC_BYTES;
        let sum = crc(&header, place);
        header[place..].copy_from_slice(&sum.to_be_bytes());
    }
    header
}

/// What a header begins with.
pub(super) const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// Signature, version and command, family, length.
pub(super) const FIXED_BYTES: usize = 16;
/// Two paths of 108 bytes.
const UNIX_BYTES: usize = 216;
/// Version and command.
const LOCAL: u8 = 0x20;
const PROXY: u8 = 0x21;
const CRC_BYTES: usize = 4;
/// IPv6 addresses, a server name, TLS and a unique id.
const TYPICAL_BYTES: usize = 192;
/// Castagnoli's polynomial, as in iSCSI.
static CRC32C: Crc<u32> = Crc::<u32>::new(&CRC_32_ISCSI);
