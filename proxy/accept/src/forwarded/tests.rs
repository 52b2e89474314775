//! Tables and laws of the walk through `X-Forwarded-For`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use http::{HeaderMap, HeaderValue};
use ipnet::IpNet;
use proptest::prelude::*;

use super::{address, client_address};
use crate::connection::{ClientAddress, Remote};

fn networks(list: &[&str]) -> Vec<IpNet> {
    list.iter().map(|network| network.parse().unwrap()).collect()
}

fn headers(lines: &[&str]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for line in lines {
        headers.append("x-forwarded-for", HeaderValue::from_bytes(line.as_bytes()).unwrap());
    }
    headers
}

/// With 10.0.0.0/8, 127.0.0.0/8, ::1 and fd00::/8 trusted.
fn check(peer: &str, lines: &[&str], expected: &str) {
    let trusted = networks(&["10.0.0.0/8", "127.0.0.0/8", "::1/128", "fd00::/8"]);
    let remote =
        if peer == "unix" { Remote::Unix } else { Remote::Ip(SocketAddr::new(peer.parse().unwrap(), 4711)) };
    assert_eq!(client_address(remote, &trusted, &headers(lines)).to_string(), expected, "{peer} {lines:?}");
}

#[test]
fn untrusted_remote_cannot_set_client() {
    check("203.0.113.5", &["198.51.100.7"], "203.0.113.5");
    check("203.0.113.5", &["127.0.0.1"], "203.0.113.5");
    check("2001:db8::1", &["198.51.100.7"], "2001:db8::1");
}

#[test]
fn walk_stops_at_first_untrusted_hop_from_the_right() {
    check("127.0.0.1", &["198.51.100.7, 203.0.113.5"], "203.0.113.5");
    check("127.0.0.1", &["198.51.100.7,203.0.113.5"], "203.0.113.5");
    check("127.0.0.1", &["203.0.113.5,10.200.0.1"], "203.0.113.5");
    check("127.0.0.1", &["198.51.100.7", "203.0.113.5", "10.1.1.1"], "203.0.113.5");
    check("127.0.0.1", &["203.0.113.5 , 10.1.1.1", "\t10.2.2.2 "], "203.0.113.5");
}

#[test]
fn all_trusted_gives_the_leftmost() {
    check("127.0.0.1", &["10.1.1.1, 10.2.2.2"], "10.1.1.1");
    check("127.0.0.1", &[], "127.0.0.1");
    check("fd00::1", &["fd00::2"], "fd00::2");
}

#[test]
fn unparsable_entry_stops_the_walk() {
    check("127.0.0.1", &["198.51.100.7, unknown"], "127.0.0.1");
    check("127.0.0.1", &["198.51.100.7, nonsense, 10.1.1.1"], "10.1.1.1");
    check("127.0.0.1", &["198.51.100.7, , 10.1.1.1"], "10.1.1.1");
    check("127.0.0.1", &["198.51.100.7,"], "127.0.0.1");
    check("127.0.0.1", &[""], "127.0.0.1");
    check("127.0.0.1", &["\u{661}92.0.2.1"], "127.0.0.1");
    check("127.0.0.1", &["for=198.51.100.7"], "127.0.0.1");
}

#[test]
fn unix_peer_is_trusted() {
    check("unix", &["198.51.100.7"], "198.51.100.7");
    check("unix", &["198.51.100.7, 10.1.1.1"], "198.51.100.7");
    check("unix", &["1.1.1.1, 198.51.100.7"], "198.51.100.7");
    check("unix", &[], "unknown");
    check("unix", &["unknown"], "unknown");
}

#[test]
fn mapped_addresses_are_folded_before_they_are_compared() {
    check("::ffff:127.0.0.1", &["198.51.100.7"], "198.51.100.7");
    check("::ffff:203.0.113.5", &["198.51.100.7"], "203.0.113.5");
    check("127.0.0.1", &["198.51.100.7, ::ffff:10.1.1.1"], "198.51.100.7");
    check("127.0.0.1", &["[::ffff:203.0.113.5]:80"], "203.0.113.5");
}

#[test]
fn empty_trusted_list_trusts_nobody_but_unix() {
    let forged = headers(&["198.51.100.7"]);
    let loopback = Remote::Ip("127.0.0.1:1".parse().unwrap());
    assert_eq!(client_address(loopback, &[], &forged).to_string(), "127.0.0.1");
    assert_eq!(client_address(Remote::Unix, &[], &forged).to_string(), "198.51.100.7");
}

#[test]
fn other_headers_are_not_read() {
    let mut headers = HeaderMap::new();
    headers.insert("forwarded", HeaderValue::from_static("for=198.51.100.7"));
    headers.insert("x-real-ip", HeaderValue::from_static("198.51.100.7"));
    headers.insert("x_forwarded_for", HeaderValue::from_static("198.51.100.7"));
    let peer = Remote::Ip("127.0.0.1:1".parse().unwrap());
    assert_eq!(client_address(peer, &networks(&["127.0.0.0/8"]), &headers).to_string(), "127.0.0.1");
}

#[test]
fn forms_of_an_entry() {
    let good = [
        ("192.0.2.1", "192.0.2.1"),
        ("192.0.2.1:80", "192.0.2.1"),
        ("2001:db8::1", "2001:db8::1"),
        ("[2001:db8::1]", "2001:db8::1"),
        ("[2001:DB8::1]:65535", "2001:db8::1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
    ];
    for (entry, expected) in good {
        assert_eq!(address(entry.as_bytes()), Some(expected.parse().unwrap()), "{entry}");
    }
    let bad = [
        "",
        "192.0.2",
        "192.0.2.1:",
        "192.0.2.1:65536",
        "192.0.2.1:+80",
        "192.0.2.1:80:80",
        "192.0.02.1",
        "192.0.2.256",
        "[192.0.2.1]:80",
        "[2001:db8::1]80",
        "[2001:db8::1]:",
        "[2001:db8::1",
        "2001:db8::1]",
        "fe80::1%eth0",
        "[fe80::1%2]:80",
        "\"192.0.2.1\"",
        "example.com",
        "_hidden",
        "192.0.2.1 192.0.2.2",
        "0xc0.0.2.1",
    ];
    for entry in bad {
        assert_eq!(address(entry.as_bytes()), None, "{entry}");
    }
}

fn any_ip() -> impl Strategy<Value = IpAddr> {
    prop_oneof![
        // Half of these are in 10.0.0.0/8.
        (any::<bool>(), any::<[u8; 4]>()).prop_map(|(inside, [a, b, c, d])| {
            IpAddr::V4(Ipv4Addr::new(if inside { 10 } else { a }, b, c, d))
        }),
        any::<u128>().prop_map(|bits| IpAddr::V6(Ipv6Addr::from_bits(bits)).to_canonical()),
    ]
}

fn written(ip: IpAddr, port: Option<u16>) -> String {
    match (ip, port) {
        (ip, None) => ip.to_string(),
        (ip, Some(port)) => SocketAddr::new(ip, port).to_string(),
    }
}

proptest! {
    #[test]
    fn every_written_address_is_read_again(ip in any_ip(), port in any::<Option<u16>>()) {
        prop_assert_eq!(address(written(ip, port).as_bytes()), Some(ip));
    }

    /// Whatever a client writes to the left of the proxies' own entries changes nothing once a hop is untrusted.
    #[test]
    fn trusted_suffix_never_grows(
        forged in "[ -~]{0,60}", client in any_ip(), hops in proptest::collection::vec(any::<[u8; 3]>(), 0..4)
    ) {
        prop_assume!(!matches!(client, IpAddr::V4(ip) if ip.octets()[0] == 10));
        let trusted = networks(&["10.0.0.0/8"]);
        let mut chain = client.to_string();
        for [a, b, c] in hops {
            chain += &format!(", 10.{a}.{b}.{c}");
        }
        let peer = Remote::Ip("10.0.0.1:1".parse().unwrap());
        let honest = client_address(peer, &trusted, &headers(&[&chain]));
        prop_assert_eq!(honest, ClientAddress::from(client));
        let one_line = client_address(peer, &trusted, &headers(&[&format!("{forged}, {chain}")]));
        prop_assert_eq!(one_line, honest);
        let two_lines = client_address(peer, &trusted, &headers(&[&forged, &chain]));
        prop_assert_eq!(two_lines, honest);
    }

    /// Trusting fewer networks never moves the answer further away from the peer.
    #[test]
    fn fewer_trusted_means_a_shorter_walk(chain in proptest::collection::vec(any_ip(), 0..6), peer in any_ip()) {
        let line = chain.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
        let hops: Vec<IpAddr> = std::iter::once(peer).chain(chain.iter().rev().copied()).collect();
        let remote = Remote::Ip(SocketAddr::new(peer, 1));
        let reached = |trusted: &[&str]| {
            let answer = client_address(remote, &networks(trusted), &headers(&[&line])).ip().unwrap();
            hops.iter().position(|hop| *hop == answer)
        };
        prop_assert!(reached(&["10.0.0.0/9"]) <= reached(&["10.0.0.0/8"]));
        prop_assert!(reached(&["10.0.0.0/8"]) <= reached(&["0.0.0.0/0", "::/0"]));
        prop_assert_eq!(reached(&[]), Some(0));
    }

    #[test]
    fn any_bytes_give_an_answer(line in proptest::collection::vec(any::<u8>(), 0..200)) {
        if let Ok(value) = HeaderValue::from_bytes(&line) {
            let mut headers = HeaderMap::new();
            headers.append("x-forwarded-for", value);
            let _ = client_address(Remote::Unix, &networks(&["10.0.0.0/8"]), &headers);
        }
    }
}
