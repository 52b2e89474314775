//! Reads the PROXY headers that reach an upstream, written apart from the product's parser so that the two check each other.

use std::io::Read;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// A PROXY header as it arrived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ProxySeen {
    pub(crate) version: u8,
    pub(crate) source: Option<SocketAddr>,
    /// Type and value of what version 2 says beside the addresses.
    pub(crate) tlvs: Vec<(u8, Vec<u8>)>,
}

/// Type and text of fields.
pub(crate) type Texts = Vec<(u8, String)>;

impl ProxySeen {
    /// The value of the only field of this type.
    pub(crate) fn tlv(&self, kind: u8) -> Option<&[u8]> {
        let mut values = self.tlvs.iter().filter(|(found, _)| *found == kind);
        let value = values.next().map(|(_, value)| value.as_slice());
        assert!(values.next().is_none(), "{kind:#x} came twice: {:?}", self.tlvs);
        value
    }

    /// The text of the only field of this type.
    pub(crate) fn text(&self, kind: u8) -> Option<&str> {
        self.tlv(kind).map(|value| std::str::from_utf8(value).expect("text"))
    }

    /// What `PP2_TYPE_SSL` says: its bits, the result of the verification, and the fields inside.
    pub(crate) fn ssl(&self) -> Option<(u8, u32, Texts)> {
        let value = self.tlv(0x20)?;
        let text = |(kind, value): (u8, Vec<u8>)| (kind, String::from_utf8(value).unwrap());
        let inside = read_tlvs(&value[5..]).into_iter().map(text).collect();
        Some((value[0], u32::from_be_bytes(value[1..5].try_into().unwrap()), inside))
    }
}

fn read_tlvs(mut bytes: &[u8]) -> Vec<(u8, Vec<u8>)> {
    let mut tlvs = Vec::new();
    while !bytes.is_empty() {
        let end = 3 + usize::from(u16::from_be_bytes([bytes[1], bytes[2]]));
        tlvs.push((bytes[0], bytes[3..end].to_vec()));
        bytes = &bytes[end..];
    }
    tlvs
}

const V2_SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";

/// Reads exactly one header; panics on anything else.
pub(crate) fn read(stream: &mut impl Read) -> std::io::Result<ProxySeen> {
    let mut start = [0; 12];
    stream.read_exact(&mut start)?;
    if &start == V2_SIGNATURE { read_v2(stream) } else { read_v1(stream, &start) }
}

fn read_v1(stream: &mut impl Read, start: &[u8]) -> std::io::Result<ProxySeen> {
    let mut line = start.to_vec();
    while !line.ends_with(b"\r\n") {
        assert!(line.len() < 107, "longer than a v1 header may be: {line:?}");
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        line.push(byte[0]);
    }
    let line = String::from_utf8(line).expect("v1 is text");
    let words: Vec<&str> = line.trim_end().split(' ').collect();
    assert_eq!(words[0], "PROXY", "{line:?}");
    let source = match words[1] {
        "TCP4" | "TCP6" => {
            assert_eq!(words.len(), 6, "{line:?}");
            Some(SocketAddr::new(words[2].parse().unwrap(), words[4].parse().unwrap()))
        }
        "UNKNOWN" => None,
        other => panic!("{other} in {line:?}"),
    };
    Ok(ProxySeen { version: 1, source, tlvs: Vec::new() })
}

fn read_v2(stream: &mut impl Read) -> std::io::Result<ProxySeen> {
    let mut fixed = [0; 4];
    stream.read_exact(&mut fixed)?;
    let mut rest = vec![0; usize::from(u16::from_be_bytes([fixed[2], fixed[3]]))];
    stream.read_exact(&mut rest)?;
    let (source, addresses) = match (fixed[0], fixed[1]) {
        (0x20, _) => (None, rest.len()),
        (0x21, 0x11) => {
            let ip: [u8; 4] = rest[..4].try_into().unwrap();
            let port = u16::from_be_bytes([rest[8], rest[9]]);
            (Some(SocketAddr::new(IpAddr::V4(Ipv4Addr::from(ip)), port)), 12)
        }
        (0x21, 0x21) => {
            let ip: [u8; 16] = rest[..16].try_into().unwrap();
            let port = u16::from_be_bytes([rest[32], rest[33]]);
            (Some(SocketAddr::new(IpAddr::V6(Ipv6Addr::from(ip)), port)), 36)
        }
        other => panic!("v2 command and family {other:x?}"),
    };
    Ok(ProxySeen { version: 2, source, tlvs: read_tlvs(&rest[addresses..]) })
}
