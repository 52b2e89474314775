//! Reads the PROXY headers that reach an upstream, written apart from the product's parser so that the two check each other.

use std::io::Read;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// A PROXY header as it arrived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ProxySeen {
    pub(crate) version: u8,
    pub(crate) source: Option<SocketAddr>,
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
    Ok(ProxySeen { version: 1, source })
}

fn read_v2(stream: &mut impl Read) -> std::io::Result<ProxySeen> {
    let mut fixed = [0; 4];
    stream.read_exact(&mut fixed)?;
    let mut rest = vec![0; usize::from(u16::from_be_bytes([fixed[2], fixed[3]]))];
    stream.read_exact(&mut rest)?;
    let source = match (fixed[0], fixed[1]) {
        (0x20, _) => None,
        (0x21, 0x11) => {
            let ip: [u8; 4] = rest[..4].try_into().unwrap();
            Some(SocketAddr::new(IpAddr::V4(Ipv4Addr::from(ip)), u16::from_be_bytes([rest[8], rest[9]])))
        }
        (0x21, 0x21) => {
            let ip: [u8; 16] = rest[..16].try_into().unwrap();
            Some(SocketAddr::new(IpAddr::V6(Ipv6Addr::from(ip)), u16::from_be_bytes([rest[32], rest[33]])))
        }
        other => panic!("v2 command and family {other:x?}"),
    };
    Ok(ProxySeen { version: 2, source })
}
