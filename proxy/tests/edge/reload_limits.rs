//! Reloads that change limits and deadlines: each holds for the next request, or the next connection.

use std::time::Duration;

use conf::{ByteSize, Limits, Timeouts};
use tokio::net::TcpStream;

use crate::harness::{Client, Reply, Running, Upstream, counted, ok, to};
use crate::http2::with_tls;
use crate::reload_listeners::{ask, saying};

const SHORT: Duration = Duration::from_millis(300);
/// Far longer than any deadline under test, and far shorter than the usual ones.
const SOON: Duration = Duration::from_secs(10);

/// A request is served, and with the other limits the same request on the same connection is not.
async fn check_request(change: fn(&mut Limits), request: &str, expected: u16) {
    let upstream = Upstream::start(|_| ok("")).await;
    let mut edge = Running::start(to(&upstream)).await;
    let mut client = edge.connect().await;
    for _ in 0..2 {
        client.send(request).await;
        assert_eq!(client.answer().await.status, 200);
    }
    let mut config = to(&upstream);
    change(&mut config.limits);
    edge.reload(config).await;
    client.send(request).await;
    assert_eq!(client.answer().await.status, expected);
    edge.reload(to(&upstream)).await;
    assert_eq!(edge.ask(request).await.status, 200);
}

#[tokio::test]
async fn sizes_hold_for_the_next_request_on_an_open_connection() {
    let get = format!("GET /{} HTTP/1.1\r\nHost: a\r\nX-A: 1\r\nX-B: 2\r\n\r\n", "x".repeat(300));
    check_request(|limits| limits.max_header_size = ByteSize(200), &get, 414).await;
    check_request(|limits| limits.max_target_length = ByteSize(200), &get, 414).await;
    check_request(|limits| limits.max_header_count = 2, &get, 431).await;
    let long = format!("GET / HTTP/1.1\r\nHost: a\r\nX-A: {}\r\n\r\n", "x".repeat(300));
    check_request(|limits| limits.max_header_size = ByteSize(200), &long, 431).await;
    let post = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n0123456789";
    check_request(|limits| limits.max_body_size = ByteSize(9), post, 413).await;
    let chunked = format!(
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1;{}\r\nx\r\n0\r\n\r\n",
        "e".repeat(100)
    );
    check_request(|limits| limits.max_trailer_size = ByteSize(50), &chunked, 431).await;
}

#[tokio::test]
async fn requests_per_connection_are_counted_from_its_beginning() {
    let mut edge = Running::start(saying("x")).await;
    let mut client = edge.connect().await;
    for _ in 0..5 {
        assert_eq!(ask(&mut client).await.field("connection"), Some("keep-alive"));
    }
    let mut fewer = saying("x");
    fewer.limits.max_requests_per_connection = 3;
    edge.reload(fewer).await;
    assert_eq!(ask(&mut client).await.field("connection"), Some("close"));
    assert!(client.is_closed_within(SOON).await);
}

#[tokio::test]
async fn connection_limits_count_what_is_open_already() {
    let limited = |total, per_ip| {
        let mut config = counted(saying("x"));
        (config.limits.max_connections, config.limits.max_connections_per_ip) = (total, per_ip);
        config
    };
    for (total, per_ip) in [(3, 100), (100, 3)] {
        let mut edge = Running::start(limited(100, 100)).await;
        let mut open = Vec::new();
        for _ in 0..3 {
            let mut client = edge.connect().await;
            assert_eq!(ask(&mut client).await.status, 200);
            open.push(client);
        }
        edge.reload(limited(total, per_ip)).await;
        let mut one_more = edge.connect().await;
        assert!(one_more.is_closed_within(SOON).await);
        for client in &mut open {
            assert_eq!(ask(client).await.status, 200, "those that are open stay");
        }
        assert_eq!(edge.metric("gatehouse_edge_connections_open").await.as_deref(), Some("3"));
        edge.reload(limited(4, 4)).await;
        assert_eq!(edge.get("/").await.status, 200);
        // Own proxies are exempt from the second, and who they are changes too.
        let mut exempt = limited(4, 0);
        exempt.trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()];
        edge.reload(exempt).await;
        assert_eq!(edge.get("/").await.status, 200);
    }
}

/// An edge that is reloaded with other deadlines, and a connection to it from before that has made a request.
async fn with_deadlines(config: conf::Edge, change: fn(&mut Timeouts)) -> (Running, Client<TcpStream>) {
    let mut edge = Running::start(config.clone()).await;
    let mut client = edge.connect().await;
    if !config.listeners[0].tls {
        assert_eq!(ask(&mut client).await.status, 200);
    }
    let mut config = config;
    change(&mut config.timeouts);
    edge.reload(config).await;
    (edge, client)
}

#[tokio::test]
async fn the_deadline_of_a_head_holds_for_the_next_one() {
    let (_edge, mut client) = with_deadlines(saying("x"), |timeouts| timeouts.header = SHORT).await;
    client.send("GET / HTTP/1.1\r\nHo").await;
    assert_eq!(client.answer().await.status, 408);
}

#[tokio::test]
async fn the_idle_deadline_holds_after_the_next_request() {
    let (edge, mut client) = with_deadlines(saying("x"), |timeouts| timeouts.idle = SHORT).await;
    assert!(edge.connect().await.is_closed_within(SOON).await, "a new connection");
    assert_eq!(ask(&mut client).await.status, 200);
    assert!(client.is_closed_within(SOON).await, "an old one");
}

#[tokio::test]
async fn the_deadline_of_a_body_holds_for_the_next_one() {
    let upstream = Upstream::start(|_| ok("")).await;
    let (_edge, mut client) = with_deadlines(to(&upstream), |timeouts| timeouts.body = SHORT).await;
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n0123").await;
    assert_eq!(client.answer().await.status, 408);
}

#[tokio::test]
async fn the_deadline_for_an_answer_holds_for_the_next_request() {
    let upstream = Upstream::start(|request| match request.line() {
        "GET /slow HTTP/1.1" => Reply { delay: Duration::from_secs(60), ..ok("") },
        _ => ok(""),
    })
    .await;
    let (_edge, mut client) = with_deadlines(to(&upstream), |timeouts| timeouts.upstream_read = SHORT).await;
    client.send("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(client.answer().await.status, 504);
}

#[tokio::test]
async fn deadlines_before_http_hold_for_the_next_connection() {
    let (config, _) = with_tls(saying("x"));
    let (edge, _) = with_deadlines(config, |timeouts| timeouts.handshake = SHORT).await;
    assert!(edge.connect().await.is_closed_within(SOON).await);
    let mut config = saying("x");
    config.listeners[0].proxy_protocol = Some(vec!["127.0.0.0/8".parse().unwrap()]);
    let mut edge = Running::start(config.clone()).await;
    config.timeouts.proxy_header = SHORT;
    edge.reload(config).await;
    assert!(edge.connect().await.is_closed_within(SOON).await);
}

#[tokio::test]
async fn the_drain_is_as_long_as_the_last_configuration_says() {
    let upstream = Upstream::start(|_| Reply { delay: Duration::from_secs(60), ..ok("") }).await;
    let mut long = to(&upstream);
    long.timeouts.drain = Duration::from_secs(50);
    let mut edge = Running::start(long.clone()).await;
    let mut busy = edge.connect().await;
    busy.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    while upstream.received().is_empty() {
        tokio::time::sleep(Duration::from_millis(5)).await;
        if TcpStream::connect(edge.address).await.is_err() {
            panic!("gone");
        }
    }
    long.timeouts.drain = SHORT;
    edge.reload(long).await;
    tokio::time::timeout(Duration::from_secs(20), edge.end()).await.expect("cut off");
}
