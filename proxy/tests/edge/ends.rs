//! Clients that stop sending: those that wait for their answer get it, and those that have left do not hold an upstream.

use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::mpsc;

use crate::harness::{Reply, Running, Scripted, Upstream, ok, to};
use crate::http2::{connect, with_tls};

const REQUEST: &[u8] = b"GET /sync HTTP/1.1\r\nHost: a.example\r\n\r\n";

#[tokio::test]
async fn a_client_that_only_sends_no_more_gets_its_answer() {
    let upstream = Upstream::start(|_| Reply { delay: Duration::from_millis(800), ..ok("late") }).await;
    let edge = Running::start(to(&upstream)).await;
    let posted = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc".as_slice();
    let old = b"GET / HTTP/1.0\r\nHost: a\r\n\r\n".as_slice();
    for request in [REQUEST, posted, old] {
        let mut stream = tokio::net::TcpStream::connect(edge.address).await.unwrap();
        stream.write_all(request).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut text = String::new();
        // To the end: the connection is closed behind the answer.
        stream.read_to_string(&mut text).await.unwrap();
        assert!(text.starts_with("HTTP/1.1 200 OK\r\n") && text.ends_with("\r\n\r\nlate"), "{text:?}");
    }
}

#[tokio::test]
async fn so_do_pipelined_requests() {
    let upstream = Upstream::start(|request| ok(request.line())).await;
    let edge = Running::start(to(&upstream)).await;
    let mut client = edge.connect().await;
    client.send("GET /1 HTTP/1.1\r\nHost: a\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\n").await;
    client.stream.shutdown().await.unwrap();
    assert_eq!(client.answer().await.text(), "GET /1 HTTP/1.1");
    assert_eq!(client.answer().await.text(), "GET /2 HTTP/1.1");
    assert!(client.is_closed_within(Duration::from_secs(1)).await);
}

#[tokio::test]
async fn so_do_clients_under_tls() {
    let upstream = Upstream::start(|_| Reply { delay: Duration::from_millis(800), ..ok("late") }).await;
    let (config, certificate) = with_tls(to(&upstream));
    let edge = Running::start(config).await;
    let mut stream = connect(&edge, &certificate, b"http/1.1").await;
    stream.write_all(REQUEST).await.unwrap();
    // close_notify, and nothing else.
    stream.shutdown().await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.expect("the answer, and a close_notify in return");
    assert!(text.ends_with("\r\n\r\nlate"), "{text:?}");
}

/// An upstream that never answers, and tells how long each connection lasted from its first request on.
async fn patient() -> (Scripted, mpsc::Receiver<Duration>) {
    let (ended, ends) = mpsc::channel(8);
    let upstream = Scripted::start(move |mut exchange, _| {
        let ended = ended.clone();
        async move {
            exchange.head().await;
            let begun = Instant::now();
            exchange.closed().await;
            let _ = ended.send(begun.elapsed()).await;
        }
    })
    .await;
    (upstream, ends)
}

async fn ended(ends: &mut mpsc::Receiver<Duration>) -> Duration {
    tokio::time::timeout(Duration::from_secs(30), ends.recv()).await.expect("still held").unwrap()
}

#[tokio::test]
async fn a_client_that_has_left_is_waited_for_a_little() {
    let (upstream, mut ends) = patient().await;
    let edge = Running::start(upstream.edge()).await;
    let mut client = edge.connect().await;
    client.send(REQUEST).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    // A long poll is not held for its minutes: the connection may be half closed, so for ten seconds.
    drop(client);
    let held = ended(&mut ends).await;
    assert!((Duration::from_secs(9)..Duration::from_secs(15)).contains(&held), "{held:?}");
}

#[tokio::test]
async fn a_connection_that_was_reset_ends_its_request_at_once() {
    let (upstream, mut ends) = patient().await;
    let edge = Running::start(upstream.edge()).await;
    let mut client = edge.connect().await;
    client.send(REQUEST).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    client.stream.set_zero_linger().unwrap();
    drop(client);
    let held = ended(&mut ends).await;
    assert!(held < Duration::from_secs(3), "{held:?}");
}

#[tokio::test]
async fn a_tls_connection_without_close_notify_ends_its_request_at_once() {
    let (upstream, mut ends) = patient().await;
    let (config, certificate) = with_tls(upstream.edge());
    let edge = Running::start(config).await;
    let mut stream = connect(&edge, &certificate, b"http/1.1").await;
    stream.write_all(REQUEST).await.unwrap();
    tokio::time::sleep(Duration::from_millis(200)).await;
    let (mut tcp, _) = stream.into_inner();
    tcp.shutdown().await.unwrap();
    let held = ended(&mut ends).await;
    assert!(held < Duration::from_secs(3), "{held:?}");
}

#[tokio::test]
async fn a_body_that_breaks_off_is_no_request() {
    let (upstream, mut ends) = patient().await;
    let edge = Running::start(upstream.edge()).await;
    let mut client = edge.connect().await;
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc").await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    client.stream.shutdown().await.unwrap();
    let held = ended(&mut ends).await;
    assert!(held < Duration::from_secs(3), "{held:?}");
}

#[tokio::test]
async fn a_half_closed_client_may_take_its_time() {
    // More than fits into buffers, read slowly for longer than a client that may have left is waited for.
    let body = "0123456789abcdef".repeat(1 << 20);
    let upstream = Upstream::start(move |_| ok(&body)).await;
    let edge = Running::start(to(&upstream)).await;
    let mut stream = tokio::net::TcpStream::connect(edge.address).await.unwrap();
    stream.write_all(REQUEST).await.unwrap();
    stream.shutdown().await.unwrap();
    let (begun, mut total, mut piece) = (Instant::now(), 0, vec![0; 1 << 20]);
    loop {
        let count = stream.read(&mut piece).await.unwrap();
        if count == 0 {
            break;
        }
        total += count;
        if begun.elapsed() < Duration::from_secs(12) {
            tokio::time::sleep(Duration::from_millis(700)).await;
        }
    }
    assert!(total > 16 << 20, "{total}");
    assert!(begun.elapsed() > Duration::from_secs(11));
}
