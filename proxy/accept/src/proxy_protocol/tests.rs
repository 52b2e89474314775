//! Tables and laws of the PROXY protocol.

use std::net::SocketAddr;

use conf::ProxyVersion;
use proptest::prelude::*;

use super::*;

fn socket(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// Source and destination of a complete header, and that all of it was taken.
fn check(bytes: &[u8], expected: Option<(&str, &str)>) {
    let (header, taken) = parse(bytes).unwrap().unwrap();
    assert_eq!(taken, bytes.len());
    assert_eq!(header.source.zip(header.destination), expected.map(|(from, to)| (socket(from), socket(to))));
}

fn check_error(bytes: &[u8], expected: ProxyHeaderError) {
    assert_eq!(parse(bytes), Err(expected), "{:?}", String::from_utf8_lossy(bytes));
}

fn malformed(bytes: &[u8]) {
    assert!(
        matches!(parse(bytes), Err(ProxyHeaderError::Malformed(_))),
        "{:?}: {:?}",
        String::from_utf8_lossy(bytes),
        parse(bytes)
    );
}

/// A version 2 header: version and command, family and transport, what follows the length.
fn binary(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
    let length = u16::try_from(body.len()).unwrap();
    [v2::SIGNATURE, &[command, family], &length.to_be_bytes(), body].concat()
}

const V4_BLOCK: [u8; 12] = [203, 0, 113, 7, 10, 0, 0, 1, 0x12, 0x34, 0x01, 0xbb];

#[test]
fn v1_carries_addresses() {
    check(b"PROXY TCP4 203.0.113.7 10.0.0.1 4660 443\r\n", Some(("203.0.113.7:4660", "10.0.0.1:443")));
    check(b"PROXY TCP6 2001:db8::7 ::1 65535 0\r\n", Some(("[2001:db8::7]:65535", "[::1]:0")));
    check(b"PROXY TCP6 2001:DB8::7 ::1 1 2\r\n", Some(("[2001:db8::7]:1", "[::1]:2")));
    check(b"PROXY TCP6 ::ffff:203.0.113.7 ::ffff:10.0.0.1 1 2\r\n", Some(("203.0.113.7:1", "10.0.0.1:2")));
}

#[test]
fn v1_unknown_ignores_the_rest_of_the_line() {
    check(b"PROXY UNKNOWN\r\n", None);
    check(b"PROXY UNKNOWN whatever \xff\r\n", None);
    let longest = b"PROXY UNKNOWN ffff:f...f:ffff ffff:f...f:ffff 65535 65535\r\n";
    check(longest, None);
    malformed(b"PROXY UNKNOWNX\r\n");
}

#[test]
fn v1_is_read_strictly() {
    for line in [
        "PROXY TCP4 203.0.113.7 10.0.0.1 4660\r\n",
        "PROXY TCP4 203.0.113.7 10.0.0.1 4660 443 1\r\n",
        "PROXY TCP4 203.0.113.7 10.0.0.1 4660 443 \r\n",
        "PROXY TCP4  203.0.113.7 10.0.0.1 4660 443\r\n",
        "PROXY TCP4 203.0.113.07 10.0.0.1 4660 443\r\n",
        "PROXY TCP4 203.0.113.7 10.0.0.1 04660 443\r\n",
        "PROXY TCP4 203.0.113.7 10.0.0.1 +4660 443\r\n",
        "PROXY TCP4 203.0.113.7 10.0.0.1 65536 443\r\n",
        "PROXY TCP4 203.0.113.7 10.0.0.1 -1 443\r\n",
        "PROXY TCP4 2001:db8::7 ::1 4660 443\r\n",
        "PROXY TCP6 203.0.113.7 10.0.0.1 4660 443\r\n",
        "PROXY UDP4 203.0.113.7 10.0.0.1 4660 443\r\n",
        "PROXY tcp4 203.0.113.7 10.0.0.1 4660 443\r\n",
        "PROXY TCP4\t203.0.113.7 10.0.0.1 4660 443\r\n",
        "PROXY TCP4 203.0.113.7 10.0.0.1 4660 443\n\r\n",
        "PROXY TCP6 fe80::1%1 ::1 4660 443\r\n",
        "PROXY \r\n",
    ] {
        malformed(line.as_bytes());
    }
}

#[test]
fn v1_is_at_most_107_bytes() {
    let line = |length: usize| format!("PROXY UNKNOWN {}\r\n", "x".repeat(length - 16)).into_bytes();
    check(&line(107), None);
    check_error(&line(108), ProxyHeaderError::TooLong);
    check_error(&[b"PROXY ".as_slice(), &[b'x'; 101]].concat(), ProxyHeaderError::TooLong);
    assert_eq!(parse(&[b"PROXY ".as_slice(), &[b'x'; 100]].concat()), Ok(None));
}

#[test]
fn anything_else_is_no_header() {
    for bytes in ["GET / HTTP/1.1\r\n", "proxy TCP4", "PROXX", "\x16\x03\x01", "\r\n\r\nGET", "\n"] {
        check_error(bytes.as_bytes(), ProxyHeaderError::Missing);
    }
    assert_eq!(parse(b""), Ok(None));
    assert_eq!(parse(b"PRO"), Ok(None));
    assert_eq!(parse(b"\r\n\r\n"), Ok(None));
}

#[test]
fn v2_carries_addresses() {
    check(&binary(0x21, 0x11, &V4_BLOCK), Some(("203.0.113.7:4660", "10.0.0.1:443")));
    check(&binary(0x21, 0x12, &V4_BLOCK), Some(("203.0.113.7:4660", "10.0.0.1:443")));
    let mut v6 = [0; 36];
    v6[..2].copy_from_slice(&[0x20, 0x01]);
    v6[15] = 7;
    v6[31] = 1;
    v6[33] = 80;
    check(&binary(0x21, 0x21, &v6), Some(("[2001::7]:80", "[::1]:0")));
}

#[test]
fn v2_local_unspecified_and_unix_carry_none() {
    check(&binary(0x20, 0x00, &[]), None);
    // The whole block of LOCAL is discarded, whatever it says.
    check(&binary(0x20, 0x11, &V4_BLOCK), None);
    check(&binary(0x20, 0xff, &[1, 2, 3]), None);
    check(&binary(0x21, 0x00, &[]), None);
    check(&binary(0x21, 0x00, &[9; 20]), None);
    check(&binary(0x21, 0x31, &[0; 216]), None);
    assert_eq!(parse(&binary(0x20, 0, &[])).unwrap().unwrap().0.command, Command::Local);
    assert_eq!(parse(&binary(0x21, 0, &[])).unwrap().unwrap().0.command, Command::Proxy);
}

#[test]
fn v2_unassigned_values_and_short_blocks_are_malformed() {
    malformed(&binary(0x11, 0x11, &V4_BLOCK));
    malformed(&binary(0x22, 0x11, &V4_BLOCK));
    malformed(&binary(0x21, 0x13, &V4_BLOCK));
    malformed(&binary(0x21, 0x41, &V4_BLOCK));
    malformed(&binary(0x21, 0x11, &V4_BLOCK[..11]));
    malformed(&binary(0x21, 0x21, &[0; 35]));
    malformed(&binary(0x21, 0x31, &[0; 215]));
}

#[test]
fn v2_is_at_most_2_kib() {
    let padded = |length: usize| {
        let padding = u16::try_from(length - 16 - 12 - 3).unwrap().to_be_bytes();
        let noop = [&[v2::TLV_NOOP], padding.as_slice(), &vec![0; length - 16 - 12 - 3]].concat();
        binary(0x21, 0x11, &[V4_BLOCK.as_slice(), &noop].concat())
    };
    check(&padded(MAX_HEADER_BYTES), Some(("203.0.113.7:4660", "10.0.0.1:443")));
    check_error(&padded(MAX_HEADER_BYTES + 1), ProxyHeaderError::TooLong);
    check_error(&padded(MAX_HEADER_BYTES + 1)[..16], ProxyHeaderError::TooLong);
}

#[test]
fn v2_fields_are_kept_and_padding_is_not() {
    let fields = [0x01, 0, 2, b'h', b'2', v2::TLV_NOOP, 0, 3, 0, 0, 0, 0xea, 0, 0];
    let (header, _) = parse(&binary(0x21, 0x11, &[V4_BLOCK.as_slice(), &fields].concat())).unwrap().unwrap();
    let expected = [Tlv { kind: 0x01, value: b"h2".to_vec() }, Tlv { kind: 0xea, value: Vec::new() }];
    assert_eq!(header.tlvs, expected);
    for cut in [1, 2, 4] {
        malformed(&binary(0x21, 0x11, &[V4_BLOCK.as_slice(), &fields[..cut]].concat()));
    }
}

#[test]
fn v2_checksum_is_verified() {
    // Computed by an independent bitwise implementation below.
    let mut bytes = binary(
        0x21,
        0x11,
        &[V4_BLOCK.as_slice(), &[v2::TLV_CRC32C, 0, 4, 0, 0, 0, 0, 0x01, 0, 1, b'x']].concat(),
    );
    let sum = bitwise_crc32c(&bytes);
    let place = 16 + 12 + 3;
    bytes[place..place + 4].copy_from_slice(&sum.to_be_bytes());
    check(&bytes, Some(("203.0.113.7:4660", "10.0.0.1:443")));
    for changed in [17, place, bytes.len() - 1] {
        let mut wrong = bytes.clone();
        wrong[changed] ^= 1;
        check_error(&wrong, ProxyHeaderError::Checksum);
    }
    malformed(&binary(0x21, 0x11, &[V4_BLOCK.as_slice(), &[v2::TLV_CRC32C, 0, 3, 0, 0, 0]].concat()));
    malformed(&binary(
        0x21,
        0x11,
        &[V4_BLOCK.as_slice(), &[v2::TLV_CRC32C, 0, 4, 0, 0, 0, 0].repeat(2)].concat(),
    ));
}

#[test]
fn bitwise_crc_is_castagnoli() {
    // The check value of CRC-32C.
    assert_eq!(bitwise_crc32c(b"123456789"), 0xe306_9283);
}

fn bitwise_crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |sum, byte| {
        (0..8).fold(
            sum ^ u32::from(*byte),
            |sum, _| if sum & 1 == 1 { (sum >> 1) ^ 0x82f6_3b78 } else { sum >> 1 },
        )
    })
}

#[test]
fn written_headers_are_what_the_specification_shows() {
    let addresses = (Some(socket("203.0.113.7:4660")), Some(socket("10.0.0.1:443")));
    assert_eq!(
        write(ProxyVersion::V1, addresses.0, addresses.1),
        b"PROXY TCP4 203.0.113.7 10.0.0.1 4660 443\r\n"
    );
    assert_eq!(write(ProxyVersion::V2, addresses.0, addresses.1), binary(0x21, 0x11, &V4_BLOCK));
    assert_eq!(write(ProxyVersion::V1, None, addresses.1), b"PROXY UNKNOWN\r\n");
    assert_eq!(write(ProxyVersion::V2, addresses.0, None), binary(0x20, 0, &[]));
}

#[test]
fn mixed_families_keep_the_client() {
    let (source, destination) = (Some(socket("203.0.113.7:1")), Some(socket("[2001:db8::1]:2")));
    assert_eq!(
        write(ProxyVersion::V1, source, destination),
        b"PROXY TCP6 ::ffff:203.0.113.7 2001:db8::1 1 2\r\n"
    );
    check(&write(ProxyVersion::V2, source, destination), Some(("203.0.113.7:1", "[2001:db8::1]:2")));
}

fn any_socket() -> impl Strategy<Value = SocketAddr> {
    prop_oneof![
        any::<([u8; 4], u16)>().prop_map(SocketAddr::from),
        any::<([u16; 8], u16)>().prop_map(SocketAddr::from),
    ]
}

/// Headers of which many are valid, with bytes changed in some and more bytes after.
fn nearly_a_header() -> impl Strategy<Value = Vec<u8>> {
    let version = prop_oneof![Just(ProxyVersion::V1), Just(ProxyVersion::V2)];
    let written = (version, any::<Option<(SocketAddr, SocketAddr)>>())
        .prop_map(|(version, pair)| write(version, pair.map(|pair| pair.0), pair.map(|pair| pair.1)));
    let built =
        (0x20..0x23u8, prop_oneof![Just(0x11u8), Just(0x21), Just(0x31), any::<u8>()], any::<[u8; 40]>())
            .prop_map(|(command, family, body)| binary(command, family, &body));
    let changes = proptest::collection::vec(any::<(prop::sample::Index, u8)>(), 0..3);
    let more = proptest::collection::vec(any::<u8>(), 0..40);
    (prop_oneof![written, built], changes, more).prop_map(|(mut bytes, changes, more)| {
        for (index, byte) in changes {
            let place = index.index(bytes.len());
            bytes[place] = byte;
        }
        bytes.extend(more);
        bytes
    })
}

proptest! {
    #[test]
    fn what_is_written_is_read(source in any_socket(), destination in any_socket(), rest in any::<[u8; 5]>()) {
        for version in [ProxyVersion::V1, ProxyVersion::V2] {
            let written = write(version, Some(source), Some(destination));
            let (header, taken) = parse(&[written.as_slice(), &rest].concat()).unwrap().unwrap();
            prop_assert_eq!(taken, written.len());
            prop_assert_eq!(header.version, version);
            prop_assert_eq!(header.source, Some(folded(source)));
            prop_assert_eq!(header.destination, Some(folded(destination)));
        }
    }

    /// Reading byte by byte comes to the same result as reading all at once, and keeps it.
    #[test]
    fn pieces_are_read_as_the_whole(bytes in nearly_a_header()) {
        let whole = parse(&bytes);
        let first = (0..=bytes.len()).map(|end| parse(&bytes[..end])).find(|result| *result != Ok(None));
        prop_assert_eq!(first.unwrap_or(Ok(None)), whole);
    }

    #[test]
    fn any_bytes_have_a_result(bytes in proptest::collection::vec(any::<u8>(), 0..2100)) {
        if let Ok(Some((_, taken))) = parse(&bytes) {
            prop_assert!(taken <= bytes.len());
        }
    }

    #[test]
    fn enough_bytes_always_decide(mut bytes in nearly_a_header()) {
        bytes.resize(MAX_HEADER_BYTES, b' ');
        prop_assert_ne!(parse(&bytes), Ok(None));
    }
}
