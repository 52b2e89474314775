//! Tables and laws of the PROXY protocol.

use std::net::SocketAddr;

use conf::ProxyVersion;
use proptest::option::of;
use proptest::prelude::*;

use super::tlv::{CRC32C, NOOP};
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
fn v2_has_a_limit_of_usually_2_kib() {
    let padded = |length: usize| {
        let padding = u16::try_from(length - 16 - 12 - 3).unwrap().to_be_bytes();
        let noop = [&[NOOP], padding.as_slice(), &vec![0; length - 16 - 12 - 3]].concat();
        binary(0x21, 0x11, &[V4_BLOCK.as_slice(), &noop].concat())
    };
    check(&padded(MAX_HEADER_BYTES), Some(("203.0.113.7:4660", "10.0.0.1:443")));
    check_error(&padded(MAX_HEADER_BYTES + 1), ProxyHeaderError::TooLong);
    check_error(&padded(MAX_HEADER_BYTES + 1)[..16], ProxyHeaderError::TooLong);
    // Unless somebody wants it otherwise.
    let large = padded(60_000);
    assert_eq!(parse_within(&large, 60_000).unwrap().unwrap().1, 60_000);
    assert_eq!(parse_within(&large[..59_999], 60_000), Ok(None));
    assert_eq!(parse_within(&large[..16], 59_999), Err(ProxyHeaderError::TooLong));
    assert_eq!(parse_within(&padded(537)[..16], 536), Err(ProxyHeaderError::TooLong));
}

/// A TCP over IPv4 header with these fields.
fn with_fields(fields: &[&[u8]]) -> Vec<u8> {
    binary(0x21, 0x11, &[V4_BLOCK.as_slice(), &fields.concat()].concat())
}

fn field(kind: u8, value: &[u8]) -> Vec<u8> {
    [&[kind], u16::try_from(value.len()).unwrap().to_be_bytes().as_slice(), value].concat()
}

fn tlvs_of(bytes: &[u8]) -> Tlvs {
    parse(bytes).unwrap().unwrap().0.tlvs
}

#[test]
fn v2_fields_are_read() {
    let ssl = [
        &[0x07, 0, 0, 0, 0][..],
        &field(0x21, b"TLSv1.3"),
        &field(0x22, b"alice"),
        &field(0x23, b"TLS_AES_128_GCM_SHA256"),
        &field(0x24, b"SHA256"),
        &field(0x25, b"RSA2048"),
        &field(0x2f, b"later"),
    ]
    .concat();
    let tlvs = tlvs_of(&with_fields(&[
        &field(0x01, b"h2"),
        &field(NOOP, &[0; 3]),
        &field(0xea, b"\x01vpce-1"),
        &field(0x02, "b\u{fc}cher.example".as_bytes()),
        &field(0x05, &[0xff; 128]),
        &field(0x20, &ssl),
        &field(0x30, b"blue"),
        &field(0xea, b""),
    ]));
    let text = |text: &str| Some(text.to_owned());
    assert_eq!(tlvs.alpn.as_deref(), Some(b"h2".as_slice()));
    assert_eq!(tlvs.authority, text("b\u{fc}cher.example"));
    assert_eq!(tlvs.unique_id.as_deref(), Some([0xff; 128].as_slice()));
    assert_eq!(tlvs.netns, text("blue"));
    assert!(!tlvs.crc32c);
    // Padding is not kept; types that are nobody's may repeat.
    let others: Vec<_> = tlvs.others.iter().collect();
    assert_eq!(others, [(0xea, b"\x01vpce-1".as_slice()), (0xea, b"")]);
    let expected = Ssl {
        client: 7,
        verify: 0,
        version: text("TLSv1.3"),
        common_name: text("alice"),
        cipher: text("TLS_AES_128_GCM_SHA256"),
        signature_algorithm: text("SHA256"),
        key_algorithm: text("RSA2048"),
    };
    assert!(expected.is_tls() && expected.has_certificate() && expected.is_verified());
    assert_eq!(tlvs.ssl, Some(expected));
    // Also behind the addresses of a Unix socket.
    let unix = binary(0x21, 0x31, &[[0; 216].as_slice(), &field(0x05, b"id")].concat());
    assert_eq!(tlvs_of(&unix).unique_id.as_deref(), Some(b"id".as_slice()));
}

#[test]
fn v2_fields_that_do_not_fit_are_malformed() {
    let authority = field(0x02, b"a.example");
    for cut in 1..authority.len() {
        malformed(&with_fields(&[&authority[..cut]]));
    }
    malformed(&with_fields(&[&authority, &[0xea, 0xff, 0xff]]));
    for ssl in [
        &b""[..],
        &[1, 0, 0, 0],
        &[1, 0, 0, 0, 0, 0x21],
        &[1, 0, 0, 0, 0, 0x21, 0, 8, b'T'],
        &[1, 0, 0, 0, 0, 0x21, 0, 0, 0x21, 0, 0],
    ] {
        malformed(&with_fields(&[&field(0x20, ssl)]));
    }
    assert_eq!(tlvs_of(&with_fields(&[&field(0x20, &[0; 5])])).ssl, Some(Ssl::default()));
}

#[test]
fn v2_fields_are_bounded() {
    malformed(&with_fields(&[&field(0x05, &[0; 129])]));
    for kind in [0x02, 0x30] {
        assert!(parse(&with_fields(&[&field(kind, &[b'a'; 255])])).is_ok());
        for wrong in [&[b'a'; 256][..], b"a\nb", b"a\0", b"\xff"] {
            malformed(&with_fields(&[&field(kind, wrong)]));
        }
    }
    malformed(&with_fields(&[&field(0x20, &[&[1, 0, 0, 0, 0][..], &field(0x22, b"a\x1bb")].concat())]));
}

#[test]
fn v2_assigned_fields_come_once() {
    for kind in [0x01, 0x02, 0x05, 0x20, 0x30] {
        let field = field(kind, b"12345");
        assert!(parse(&with_fields(&[&field])).is_ok());
        malformed(&with_fields(&[&field, &field]));
        malformed(&with_fields(&[&field, &self::field(0xea, b"x"), &field]));
    }
}

#[test]
fn v2_unspecified_says_nothing() {
    // Neither addresses nor fields: nobody says where one ends and the other begins.
    for (command, family) in
        [(0x20, 0x00), (0x20, 0x11), (0x21, 0x00), (0x21, 0x10), (0x21, 0x02), (0x21, 0x30)]
    {
        let bytes = binary(command, family, &[V4_BLOCK.as_slice(), &field(0x02, b"a.example")].concat());
        check(&bytes, None);
        assert_eq!(tlvs_of(&bytes), Tlvs::default(), "{command:x} {family:x}");
    }
}

#[test]
fn v2_checksum_is_verified() {
    // Computed by an independent bitwise implementation below.
    let mut bytes =
        binary(0x21, 0x11, &[V4_BLOCK.as_slice(), &[CRC32C, 0, 4, 0, 0, 0, 0, 0x01, 0, 1, b'x']].concat());
    let sum = bitwise_crc32c(&bytes);
    let place = 16 + 12 + 3;
    bytes[place..place + 4].copy_from_slice(&sum.to_be_bytes());
    check(&bytes, Some(("203.0.113.7:4660", "10.0.0.1:443")));
    for changed in [17, place, bytes.len() - 1] {
        let mut wrong = bytes.clone();
        wrong[changed] ^= 1;
        check_error(&wrong, ProxyHeaderError::Checksum);
    }
    malformed(&binary(0x21, 0x11, &[V4_BLOCK.as_slice(), &[CRC32C, 0, 3, 0, 0, 0]].concat()));
    malformed(&binary(0x21, 0x11, &[V4_BLOCK.as_slice(), &[CRC32C, 0, 4, 0, 0, 0, 0].repeat(2)].concat()));
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
        write(ProxyVersion::V1, addresses.0, addresses.1, none()),
        b"PROXY TCP4 203.0.113.7 10.0.0.1 4660 443\r\n"
    );
    assert_eq!(write(ProxyVersion::V2, addresses.0, addresses.1, none()), binary(0x21, 0x11, &V4_BLOCK));
    assert_eq!(write(ProxyVersion::V1, None, addresses.1, none()), b"PROXY UNKNOWN\r\n");
    assert_eq!(write(ProxyVersion::V2, addresses.0, None, none()), binary(0x20, 0, &[]));
}

#[test]
fn written_fields_are_what_the_specification_shows() {
    let tlvs = Tlvs {
        authority: Some("a.example".to_owned()),
        unique_id: Some(b"id".to_vec()),
        ssl: Some(Ssl { client: 1, verify: 1, version: Some("TLSv1.3".to_owned()), ..Ssl::default() }),
        crc32c: true,
        ..Tlvs::default()
    };
    let written =
        write(ProxyVersion::V2, Some(socket("203.0.113.7:4660")), Some(socket("10.0.0.1:443")), &tlvs);
    let mut expected = with_fields(&[
        b"\x02\0\x09a.example",
        b"\x05\0\x02id",
        b"\x20\0\x0f\x01\0\0\0\x01\x21\0\x07TLSv1.3",
        b"\x03\0\x04\0\0\0\0",
    ]);
    let (place, sum) = (expected.len() - 4, bitwise_crc32c(&expected));
    expected[place..].copy_from_slice(&sum.to_be_bytes());
    assert_eq!(written, expected);
}

#[test]
fn nothing_too_long_is_written() {
    let tlvs = Tlvs {
        alpn: Some(vec![b'x'; 70_000]),
        authority: Some("x".repeat(1900)),
        unique_id: Some(vec![b'x'; 200]),
        netns: Some("blue".to_owned()),
        crc32c: true,
        ..Tlvs::default()
    };
    let written = write(ProxyVersion::V2, Some(socket("[::1]:1")), Some(socket("[::1]:2")), &tlvs);
    assert!(written.len() <= MAX_HEADER_BYTES);
    // What still fits is there, and so is the checksum.
    assert_eq!(written[52], 0x02);
    assert_eq!(&written[written.len() - 14..written.len() - 4], b"\x30\0\x04blue\x03\0\x04");
    // Without addresses nothing is said at all.
    assert_eq!(write(ProxyVersion::V2, None, None, &tlvs), binary(0x20, 0, &[]));
}

#[test]
fn the_most_that_can_be_read_can_be_written_again() {
    let text = || Some("x".repeat(255));
    let ssl = Ssl {
        version: text(),
        common_name: text(),
        cipher: text(),
        signature_algorithm: text(),
        key_algorithm: text(),
        ..Ssl::default()
    };
    // What the edge passes on.
    let tlvs = Tlvs {
        authority: text(),
        unique_id: Some(vec![0; 128]),
        ssl: Some(ssl),
        crc32c: true,
        ..Tlvs::default()
    };
    let written = write(ProxyVersion::V2, Some(socket("[2001:db8::1]:1")), Some(socket("[::1]:2")), &tlvs);
    assert_eq!(tlvs_of(&written), tlvs);
}

#[test]
fn mixed_families_keep_the_client() {
    let (source, destination) = (Some(socket("203.0.113.7:1")), Some(socket("[2001:db8::1]:2")));
    assert_eq!(
        write(ProxyVersion::V1, source, destination, none()),
        b"PROXY TCP6 ::ffff:203.0.113.7 2001:db8::1 1 2\r\n"
    );
    check(&write(ProxyVersion::V2, source, destination, none()), Some(("203.0.113.7:1", "[2001:db8::1]:2")));
}

fn any_socket() -> impl Strategy<Value = SocketAddr> {
    prop_oneof![
        any::<([u8; 4], u16)>().prop_map(SocketAddr::from),
        any::<([u16; 8], u16)>().prop_map(SocketAddr::from),
    ]
}

fn none() -> &'static Tlvs {
    static NONE: std::sync::LazyLock<Tlvs> = std::sync::LazyLock::new(Tlvs::default);
    &NONE
}

/// Fields that fit in a header.
fn any_tlvs() -> impl Strategy<Value = Tlvs> {
    let text = || of("[ -~\u{a1}-\u{ff}]{0,60}");
    let bytes = |most| proptest::collection::vec(any::<u8>(), 0..most);
    let certificates = (text(), text(), text(), text(), text());
    let ssl = (any::<(u8, u32)>(), certificates).prop_map(|((client, verify), texts)| Ssl {
        client,
        verify,
        version: texts.0,
        common_name: texts.1,
        cipher: texts.2,
        signature_algorithm: texts.3,
        key_algorithm: texts.4,
    });
    let others = proptest::collection::vec((0xe0..0xf0u8, bytes(9)), 0..4)
        .prop_map(|others| others.iter().flat_map(|(kind, value)| field(*kind, value)).collect::<Vec<_>>());

    (of(bytes(20)), text(), of(bytes(129)), of(ssl), text(), any::<bool>(), others).prop_map(
        |(alpn, authority, unique_id, ssl, netns, crc32c, others)| {
            // The only way to have such fields is to have read them.
            let others = tlvs_of(&with_fields(&[&others])).others;
            Tlvs { alpn, authority, unique_id, ssl, netns, crc32c, others }
        },
    )
}

/// Headers of which many are valid, with bytes changed in some and more bytes after.
fn nearly_a_header() -> impl Strategy<Value = Vec<u8>> {
    let version = prop_oneof![Just(ProxyVersion::V1), Just(ProxyVersion::V2)];
    let written =
        (version, any::<Option<(SocketAddr, SocketAddr)>>(), any_tlvs()).prop_map(|(version, pair, tlvs)| {
            write(version, pair.map(|pair| pair.0), pair.map(|pair| pair.1), &tlvs)
        });
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
    fn what_is_written_is_read(
        source in any_socket(),
        destination in any_socket(),
        tlvs in any_tlvs(),
        rest in any::<[u8; 5]>(),
    ) {
        for version in [ProxyVersion::V1, ProxyVersion::V2] {
            let written = write(version, Some(source), Some(destination), &tlvs);
            let (header, taken) = parse(&[written.as_slice(), &rest].concat()).unwrap().unwrap();
            prop_assert_eq!(taken, written.len());
            prop_assert_eq!(header.version, version);
            prop_assert_eq!(header.source, Some(folded(source)));
            prop_assert_eq!(header.destination, Some(folded(destination)));
            prop_assert_eq!(&header.tlvs, if version == ProxyVersion::V2 { &tlvs } else { none() });
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
