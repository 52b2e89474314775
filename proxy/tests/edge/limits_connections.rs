//! How many connections there may be, and what becomes of the others.

use std::time::Duration;

use conf::ProxyVersion;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;

use crate::harness::{Client, Running, Upstream, counted, ok, to};
use crate::http2::with_tls;

const SOON: Duration = Duration::from_secs(20);

async fn is_served(client: &mut Client<TcpStream>) -> bool {
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    !client.is_closed_within(Duration::from_millis(200)).await && client.answer().await.status == 200
}

/// Whether a connection that says nothing is closed without a word.
async fn is_refused(edge: &Running) -> bool {
    let mut client = edge.connect().await;
    client.is_closed_within(SOON).await && client.unread().is_empty()
}

/// A place is given back a moment after its connection has ended.
async fn until_served(edge: &Running) {
    let deadline = tokio::time::Instant::now() + SOON;
    loop {
        let mut client = edge.connect().await;
        let sent = tokio::io::AsyncWriteExt::write_all(
            &mut client.stream,
            b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
        );
        if sent.await.is_ok() && client.is_closed_within(SOON).await && !client.unread().is_empty() {
            assert_eq!(client.answer().await.status, 200);
            return;
        }
        assert!(tokio::time::Instant::now() < deadline, "no place in time");
    }
}

#[tokio::test]
async fn there_are_so_many_in_all() {
    let upstream = Upstream::start(|_| ok("")).await;
    let mut config = counted(to(&upstream));
    config.limits.max_connections = 2;
    let edge = Running::start(config).await;
    let (mut first, mut second) = (edge.connect().await, edge.connect().await);
    assert!(is_served(&mut first).await && is_served(&mut second).await);
    assert!(is_refused(&edge).await);
    assert!(is_served(&mut first).await, "those in service go on");
    edge.expect_hits(&[("limits.max_connections", 1)]).await;
    drop(first);
    until_served(&edge).await;
}

#[tokio::test]
async fn there_are_so_many_of_one_address_and_the_others_are_closed_before_tls() {
    let upstream = Upstream::start(|_| ok("")).await;
    let mut config = counted(to(&upstream));
    config.limits.max_connections_per_ip = 2;
    let edge = Running::start(config.clone()).await;
    let (mut first, mut second) = (edge.connect().await, edge.connect().await);
    assert!(is_served(&mut first).await && is_served(&mut second).await);
    assert!(is_refused(&edge).await);
    drop(first);
    until_served(&edge).await;

    let (config, _) = with_tls(config);
    let under_tls = Running::start(config).await;
    // They have places, though they have not begun their handshakes.
    let _held = (under_tls.connect().await, under_tls.connect().await);
    // Nor has this one, which is refused all the same.
    assert!(is_refused(&under_tls).await);
    under_tls.expect_hits(&[("limits.max_connections_per_ip", 1)]).await;
}

#[tokio::test]
async fn the_address_is_that_of_the_proxy_header_and_of_ipv6_its_first_half() {
    let upstream = Upstream::start(|_| ok("")).await;
    let mut config = counted(to(&upstream));
    config.limits.max_connections_per_ip = 1;
    config.listeners[0].proxy_protocol = Some(vec!["127.0.0.0/8".parse().unwrap()]);
    let edge = Running::start(config).await;
    let mut held = Vec::new();
    for (source, is_admitted) in [
        ("[2001:db8:1:2::1]:1000", true),
        ("[2001:db8:1:2:ffff::2]:1001", false),
        ("[2001:db8:1:3::1]:1002", true),
        ("203.0.113.7:1003", true),
        ("[::ffff:203.0.113.7]:1004", false),
        ("203.0.113.8:1005", true),
    ] {
        let source = source.parse().unwrap();
        let destination = Some("[2001:db8::]:443".parse().unwrap());
        let tlvs = accept::proxy_protocol::Tlvs::default();
        let header = accept::proxy_protocol::write(ProxyVersion::V2, Some(source), destination, &tlvs);
        let mut client = edge.connect().await;
        client.send(header).await;
        if is_admitted {
            assert!(is_served(&mut client).await, "{source}");
        } else {
            assert!(client.is_closed_within(SOON).await && client.unread().is_empty(), "{source}");
        }
        held.push(client);
    }
    edge.expect_hits(&[("limits.max_connections_per_ip", 2)]).await;
}

#[tokio::test]
async fn proxy_headers_have_a_deadline_and_a_size() {
    let upstream = Upstream::start(|_| ok("")).await;
    let mut config = counted(to(&upstream));
    config.timeouts.proxy_header = Duration::from_millis(500);
    // A handshake would have more.
    config.timeouts.handshake = Duration::from_secs(600);
    config.limits.max_proxy_header_size = conf::ByteSize(600);
    config.listeners[0].proxy_protocol = Some(vec!["127.0.0.0/8".parse().unwrap()]);
    let edge = Running::start(config).await;
    let header = |length: u16| [b"\r\n\r\n\0\r\nQUIT\n\x20\0".as_slice(), &length.to_be_bytes()].concat();
    let mut whole = edge.connect().await;
    whole.send([header(584), vec![0; 584]].concat()).await;
    assert!(is_served(&mut whole).await);
    let mut long = edge.connect().await;
    // Refused for what it says, not for what comes.
    long.send(header(585)).await;
    assert!(long.is_closed_within(SOON).await);
    let mut slow = edge.connect().await;
    slow.send(&header(584)[..10]).await;
    let mut read = Vec::new();
    let _ = tokio::time::timeout(SOON, slow.stream.read_to_end(&mut read)).await.expect("closed in time");
    assert_eq!(read, b"");
    edge.expect_hits(&[("limits.max_proxy_header_size", 1), ("timeouts.proxy_header", 1)]).await;
}
