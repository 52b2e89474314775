//! PROXY headers that are refused, each for its reason, and counted.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use super::HOST;
use crate::harness::{Certificates, Client, Folder, Gatehouse, Upstream};

const BALANCER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 9);
/// `timeouts.proxy_header` and `timeouts.handshake` of these tests.
const DEADLINE: Duration = Duration::from_secs(1);

struct Edge {
    gatehouse: Gatehouse,
    upstream: Upstream,
    certificates: Certificates,
    _folder: Folder,
}

fn edge() -> Edge {
    let folder = Folder::new();
    let certificates = Certificates::new(&folder, &[HOST]);
    let upstream = Upstream::start();
    let yaml = format!(
        r#"
edge:
  listeners:
    - {{name: http, binds: [{{address: "127.0.0.1:0"}}], proxy_protocol: {{from: [{BALANCER}/32]}}}}
    - {{name: https, binds: [{{address: "127.0.0.1:0"}}], tls: true, proxy_protocol: {{from: [{BALANCER}/32]}}}}
  {tls}
  upstreams: {{api: {{servers: ["{upstream}"]}}}}
  sites: [{{hosts: ["_"], routes: [{{prefix: /, upstream: api}}]}}]
  timeouts: {{proxy_header: {deadline}s, handshake: {deadline}s}}
  admin: {{binds: [{{address: "127.0.0.1:0"}}]}}
"#,
        tls = certificates.yaml(),
        upstream = upstream.address,
        deadline = DEADLINE.as_secs(),
    );
    Edge { gatehouse: Gatehouse::start(&folder, &yaml), upstream, certificates, _folder: folder }
}

impl Edge {
    /// How many connections were refused for this reason.
    fn refused(&mut self, reason: &str) -> u64 {
        let text = self.gatehouse.client("admin").get("localhost", "/metrics").expect(200).text();
        let name = format!("gatehouse_edge_connections_refused_total{{reason=\"{reason}\"}} ");
        let line = text.lines().find_map(|line| line.strip_prefix(&name));
        line.unwrap_or_else(|| panic!("{reason} is not counted:\n{text}")).parse().unwrap()
    }

    fn wait_for_refused(&mut self, reason: &str, count: u64) {
        let deadline = Instant::now() + crate::harness::PATIENCE;
        while self.refused(reason) != count {
            assert!(Instant::now() < deadline, "{reason}: {} and not {count}", self.refused(reason));
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// A header of version 2 for TCP over IPv4 with these fields.
fn v2(fields: &[u8]) -> Vec<u8> {
    let length = u16::try_from(12 + fields.len()).unwrap().to_be_bytes();
    let addresses = [203, 0, 113, 7, 127, 0, 0, 1, 0x12, 0x34, 0, 80];
    [b"\r\n\r\n\0\r\nQUIT\n\x21\x11", length.as_slice(), &addresses, fields].concat()
}

#[test]
fn a_wrong_header_ends_the_connection_and_is_counted() {
    let mut edge = edge();
    let request = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".as_slice();
    let id = b"\x05\0\x02id".as_slice();
    let cases: [(&str, &[&[u8]]); 5] = [
        ("proxy_missing", &[b"", b"PROXI TCP4 1.2.3.4 1.2.3.4 1 2\r\n", b"\r\n\r\n\0\r\nQUIT\r"]),
        (
            "proxy_malformed",
            &[
                b"PROXY TCP4 203.0.113.7 127.0.0.1 01234 80\r\n",
                b"\r\n\r\n\0\r\nQUIT\n\x22\x11\0\x0c",
                &v2(b"\x02\0\x09short"),
                &v2(b"\x05\xff\xff"),
                &v2(&[id, id].concat()),
                &v2(b"\x20\0\x04\x01\0\0\0"),
                &v2(b"\x02\0\x04a\nb\0"),
            ],
        ),
        ("proxy_checksum", &[&v2(b"\x03\0\x04\x01\x02\x03\x04")]),
        // Refused as soon as it is known, not when all of it is there.
        (
            "proxy_too_long",
            &[
                b"\r\n\r\n\0\r\nQUIT\n\x21\x11\xff\xff",
                &[b"PROXY UNKNOWN ".as_slice(), &[b'x'; 200]].concat(),
            ],
        ),
        ("proxy_closed", &[]),
    ];
    for listener in ["http", "https"] {
        let address = edge.gatehouse.tcp(listener);
        for (reason, headers) in cases {
            let before = edge.refused(reason);
            for header in headers {
                let mut client = Client::tcp_from(BALANCER, address);
                let _ = client.try_send([header, request].concat());
                assert!(client.try_receive().is_none(), "{}", String::from_utf8_lossy(header));
            }
            edge.wait_for_refused(reason, before + headers.len() as u64);
        }
        // A health check that only connects.
        let before = edge.refused("proxy_closed");
        drop(Client::tcp_from(BALANCER, address));
        edge.wait_for_refused("proxy_closed", before + 1);
    }
    assert!(edge.upstream.requests().is_empty(), "{:?}", edge.upstream.requests());

    // And those that may be there are let through.
    let http = edge.gatehouse.tcp("http");
    for (number, header) in [
        b"PROXY TCP4 203.0.113.7 127.0.0.1 1234 80\r\n".to_vec(),
        v2(&[id, b"\x04\0\x01x", b"\xea\0\x01x", b"\xea\0\0"].concat()),
    ]
    .iter()
    .enumerate()
    {
        let mut client = Client::tcp_from(BALANCER, http);
        client.send(header);
        client.get(HOST, &format!("/{number}")).expect(200);
        let seen = edge.upstream.wait_for(|request| request.target() == format!("/{number}"));
        assert_eq!(seen.header("x-forwarded-for").unwrap(), "203.0.113.7");
    }
    // Of these nobody says who the client is: whoever connected is.
    for (number, header) in [
        b"PROXY UNKNOWN\r\n".to_vec(),
        b"PROXY UNKNOWN 203.0.113.7 127.0.0.1 1 2\r\n".to_vec(),
        b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0".to_vec(),
        b"\r\n\r\n\0\r\nQUIT\n\x20\x11\0\x0c\xcb\0\x71\x07\x7f\0\0\x01\x12\x34\0\x50".to_vec(),
        b"\r\n\r\n\0\r\nQUIT\n\x21\0\0\x03\xcb\0\x71".to_vec(),
    ]
    .iter()
    .enumerate()
    {
        let mut client = Client::tcp_from(BALANCER, http);
        client.send(header);
        client.get(HOST, &format!("/self/{number}")).expect(200);
        let seen = edge.upstream.wait_for(|request| request.target() == format!("/self/{number}"));
        assert_eq!(seen.header("x-forwarded-for").unwrap(), BALANCER.to_string(), "{number}");
    }
}

/// Sends a byte now and then, and waits until the edge has had enough; how long that took.
fn dribble(address: SocketAddr, bytes: &[u8]) -> Duration {
    let started = Instant::now();
    let mut client = Client::tcp_from(BALANCER, address);
    for byte in bytes {
        // A slow sender is what is tested: there is nothing to wait for but time.
        std::thread::sleep(DEADLINE / 10);
        if client.try_send([*byte]).is_err() || started.elapsed() > DEADLINE * 4 {
            break;
        }
    }
    assert!(client.is_closed());
    started.elapsed()
}

#[test]
fn a_header_that_does_not_end_meets_the_deadline() {
    let mut edge = edge();
    let header = v2(&[b"\x05\0\x70".as_slice(), &[b'x'; 0x70]].concat());
    let mut before = 0;
    for listener in ["http", "https"] {
        let address = edge.gatehouse.tcp(listener);
        for bytes in [&b""[..], b"PROXY TCP4 203.0.113.7 127.0.0.1 1234 80 and no end of it", &header[..100]]
        {
            let took = dribble(address, bytes);
            assert!(took >= DEADLINE * 9 / 10 && took < DEADLINE * 4, "{took:?}");
            before += 1;
            edge.wait_for_refused("proxy_deadline", before);
        }
    }
    // The handshake that follows has its own.
    let address = edge.gatehouse.tcp("https");
    let mut client = Client::tcp_from(BALANCER, address);
    client.send("PROXY TCP4 203.0.113.7 127.0.0.1 1234 443\r\n");
    assert!(client.is_closed());
    edge.wait_for_refused("tls_deadline", 1);
    // Nobody else is held up by any of this.
    let mut honest = Client::tls(&edge.certificates, HOST, address);
    honest.get(HOST, "/honest").expect(200);
}
