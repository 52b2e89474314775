//! Sizes, counts and deadlines.

use std::time::{Duration, Instant};

use conf::ByteSize;

use crate::harness::{Running, Upstream, ok, to};

#[tokio::test]
async fn declared_bodies_are_refused_before_the_upstream_sees_them() {
    let upstream = Upstream::start(|_| ok("")).await;
    let mut config = to(&upstream);
    config.limits.max_body_size = ByteSize(1000);
    let edge = Running::start(config).await;
    let mut client = edge.connect().await;
    client.send("POST /_matrix/media/v3/upload HTTP/1.1\r\nHost: a\r\nContent-Length: 500000\r\n\r\n").await;
    // Still sending while the answer comes, as real clients do.
    client.send(vec![b'x'; 500_000]).await;
    let answer = client.answer().await;
    assert_eq!((answer.status, answer.field("connection")), (413, Some("close")));
    assert!(answer.text().contains("M_TOO_LARGE"));
    assert!(client.is_closed_within(Duration::from_secs(3)).await);
    assert_eq!(upstream.received().len(), 0);
}

#[tokio::test]
async fn route_limit_replaces_the_general_one() {
    let upstream = Upstream::start(|_| ok("")).await;
    let mut config = to(&upstream);
    config.sites[0].routes[0].max_body_size = Some(ByteSize(3));
    let edge = Running::start(config).await;
    assert_eq!(edge.ask("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc").await.status, 200);
    assert_eq!(edge.ask("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nabcd").await.status, 413);
}

#[tokio::test]
async fn chunked_bodies_are_counted() {
    let upstream = Upstream::start(|_| ok("")).await;
    let mut config = to(&upstream);
    config.limits.max_body_size = ByteSize(10);
    let edge = Running::start(config).await;
    let mut client = edge.connect().await;
    client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n").await;
    for _ in 0..3 {
        client.send("5\r\nabcde\r\n").await;
    }
    client.send("0\r\n\r\n").await;
    assert_eq!(client.answer().await.status, 413);
}

#[tokio::test]
async fn heads_are_measured() {
    let upstream = Upstream::start(|_| ok("")).await;
    let mut config = to(&upstream);
    config.limits.max_header_size = ByteSize(8192);
    let edge = Running::start(config).await;
    let field = |length: usize| format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "x".repeat(length));
    assert_eq!(edge.ask(&field(8000)).await.status, 200);
    for length in [8192, 12_000, 100_000, 2_000_000] {
        let mut client = edge.connect().await;
        // The server stops reading at some point.
        let _ = tokio::io::AsyncWriteExt::write_all(&mut client.stream, field(length).as_bytes()).await;
        let answer = client.answer().await;
        assert_eq!((answer.status, answer.field("connection")), (431, Some("close")), "{length}");
    }
    let mut client = edge.connect().await;
    client.send(format!("GET /{} HTTP/1.1\r\n", "x".repeat(100_000))).await;
    assert_eq!(client.answer().await.status, 414);
}

#[tokio::test]
async fn a_head_has_one_deadline() {
    let upstream = Upstream::start(|_| ok("")).await;
    let mut config = to(&upstream);
    config.timeouts.header = Duration::from_millis(600);
    let edge = Running::start(config).await;
    let mut client = edge.connect().await;
    // A second request on the connection is bound by it just the same.
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    client.answer().await;
    let begun = Instant::now();
    for byte in "GET / HTTP/1.1\r\nHost: aaaaaaaaaa".chars() {
        let sent = tokio::io::AsyncWriteExt::write_all(&mut client.stream, byte.to_string().as_bytes()).await;
        if sent.is_err() || client.is_closed_within(Duration::from_millis(100)).await {
            assert!(begun.elapsed() >= Duration::from_millis(500));
            return;
        }
    }
    panic!("still open after {:?}", begun.elapsed());
}

#[tokio::test]
async fn idle_connections_are_closed() {
    let upstream = Upstream::start(|_| ok("")).await;
    let mut config = to(&upstream);
    config.timeouts.idle = Duration::from_millis(500);
    let edge = Running::start(config).await;
    let mut fresh = edge.connect().await;
    let mut used = edge.connect().await;
    used.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    used.answer().await;
    assert!(!used.is_closed_within(Duration::from_millis(200)).await);
    assert!(used.is_closed_within(Duration::from_secs(2)).await);
    assert!(fresh.is_closed_within(Duration::from_secs(2)).await);
}

#[tokio::test]
async fn waiting_for_an_answer_is_not_idleness() {
    let upstream =
        Upstream::start(|_| crate::harness::Reply { delay: Duration::from_millis(1500), ..ok("late") }).await;
    let mut config = to(&upstream);
    config.timeouts.idle = Duration::from_millis(300);
    config.timeouts.header = Duration::from_millis(300);
    config.timeouts.body = Duration::from_millis(300);
    let edge = Running::start(config).await;
    assert_eq!(edge.get("/sync").await.text(), "late");
}

#[tokio::test]
async fn bodies_that_stop_coming_are_408() {
    let upstream = Upstream::start(|_| ok("")).await;
    let mut config = to(&upstream);
    config.timeouts.body = Duration::from_millis(300);
    let edge = Running::start(config).await;
    let mut client = edge.connect().await;
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc").await;
    assert_eq!(client.answer().await.status, 408);
}

#[tokio::test]
async fn clients_that_do_not_read_are_given_up() {
    let upstream = Upstream::start(|_| ok(&"x".repeat(64 << 20))).await;
    let mut config = to(&upstream);
    config.timeouts.send = Duration::from_millis(500);
    let edge = Running::start(config).await;
    let mut client = edge.connect().await;
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let answer = client.answer().await;
    assert!(answer.is_cut, "{} bytes came", answer.body.len());
}

#[tokio::test]
async fn connections_of_one_address_are_limited() {
    let upstream = Upstream::start(|_| ok("")).await;
    let mut config = to(&upstream);
    config.limits.max_connections_per_ip = 2;
    let edge = Running::start(config).await;
    let mut first = edge.connect().await;
    let _second = edge.connect().await;
    first.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(first.answer().await.status, 200);
    let mut third = edge.connect().await;
    assert!(third.is_closed_within(Duration::from_secs(2)).await);
    drop(first);
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(edge.get("/").await.status, 200);
}
