//! Version 2: binary (HAProxy PROXY protocol §2.2).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use conf::ProxyVersion;
use crc::{CRC_32_ISCSI, Crc};

use super::{Addresses, Command, MAX_HEADER_BYTES, ProxyHeader, ProxyHeaderError, Tlv};

/// `bytes` holds at least the fixed part.
pub(super) fn parse(bytes: &[u8]) -> Result<Option<(ProxyHeader, usize)>, ProxyHeaderError> {
    use ProxyHeaderError::{Malformed, TooLong};
    let [version_and_command, family, high, low] = [bytes[12], bytes[13], bytes[14], bytes[15]];
    let command = match version_and_command {
        0x20 => Command::Local,
        0x21 => Command::Proxy,
        _ => return Err(Malformed("unknown version or command")),
    };
    let length = FIXED_BYTES + usize::from(u16::from_be_bytes([high, low]));
    if length > MAX_HEADER_BYTES {
        return Err(TooLong);
    }
    if bytes.len() < length {
        return Ok(None);
    }
    let header = &bytes[..length];
    let body = &header[FIXED_BYTES..];
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
        3 => body.get(UNIX_BYTES..).ok_or(Malformed("address block is cut off"))?,
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

pub(super) fn write(addresses: Option<Addresses>) -> Vec<u8> {
    let mut header = Vec::with_capacity(FIXED_BYTES + 36);
    header.extend_from_slice(SIGNATURE);
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

/// What a header begins with.
pub(super) const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// Signature, version and command, family, length.
pub(super) const FIXED_BYTES: usize = 16;
/// Two paths of 108 bytes.
const UNIX_BYTES: usize = 216;
pub(super) const TLV_CRC32C: u8 = 0x03;
pub(super) const TLV_NOOP: u8 = 0x04;
/// Castagnoli's polynomial, as in iSCSI.
static CRC32C: Crc<u32> = Crc::<u32>::new(&CRC_32_ISCSI);
