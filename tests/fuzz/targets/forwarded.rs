//! The walk through `X-Forwarded-For`: never panics, and nothing left of the first untrusted hop has an effect.
#![no_main]

use accept::{ClientAddress, Remote, client_address};
use http::{HeaderMap, HeaderValue};
use ipnet::IpNet;
use libfuzzer_sys::fuzz_target;

// Lines of the input are lines of the field.
fuzz_target!(|bytes: &[u8]| {
    let trusted: [IpNet; 2] =
        ["10.0.0.0/8".parse().expect("a network"), "fd00::/8".parse().expect("a network")];
    let lines: Vec<HeaderValue> =
        bytes.split(|byte| *byte == b'\n').filter_map(|line| HeaderValue::from_bytes(line).ok()).collect();
    let proxy = Remote::Ip("10.0.0.1:1".parse().expect("an address"));
    let stranger = Remote::Ip("203.0.113.1:1".parse().expect("an address"));

    assert_eq!(client_address(stranger, &trusted, &headers(&lines)).ip(), stranger.ip());
    for peer in [proxy, Remote::Unix] {
        let client = client_address(peer, &trusted, &headers(&lines));
        let Some(ip) = client.ip() else {
            assert_eq!(peer, Remote::Unix);
            continue;
        };
        assert_eq!(client, ClientAddress::from(ip), "never IPv4-mapped");
        if !trusted.iter().any(|network| network.contains(&ip)) {
            let forged = [&[HeaderValue::from_static("192.0.2.66, 10.6.6.6")], lines.as_slice()].concat();
            assert_eq!(client_address(peer, &trusted, &headers(&forged)), client);
        }
    }
});

fn headers(lines: &[HeaderValue]) -> HeaderMap {
    lines.iter().map(|line| (http::HeaderName::from_static("x-forwarded-for"), line.clone())).collect()
}
