//! Sizes and counts of what is in a request.

use std::time::Duration;

use conf::{Action, ByteSize};

use crate::harness::{Client, Running, Upstream, counted, ok, prefix, to};
use crate::http2::{connect, get, h2, with_tls};

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
async fn targets_have_a_length() {
    let upstream = Upstream::start(|_| ok("")).await;
    let mut config = counted(to(&upstream));
    config.limits.max_target_length = ByteSize(300);
    let (config, certificate) = with_tls(config);
    let edge = Running::start(config).await;
    let target = |length: usize| format!("/_matrix/{}", "x".repeat(length - 9));
    let mut client = Client::new(connect(&edge, &certificate, b"http/1.1").await);
    client.send(format!("GET {} HTTP/1.1\r\nHost: a.example\r\n\r\n", target(300))).await;
    assert_eq!(client.answer().await.status, 200);
    client.send(format!("GET {} HTTP/1.1\r\nHost: a.example\r\n\r\n", target(301))).await;
    let answer = client.answer().await;
    assert_eq!((answer.status, answer.field("connection")), (414, Some("close")));
    assert!(answer.text().contains("\"errcode\""), "{}", answer.text());
    let mut http2 = h2(&edge, &certificate).await;
    assert_eq!(get(&mut http2, &target(300)).await.0, 200);
    assert_eq!(get(&mut http2, &target(301)).await.0, 414);
    assert_eq!(upstream.received().len(), 2);
    edge.expect_hits(&[("limits.max_target_length", 2)]).await;
}

#[tokio::test]
async fn fields_are_counted() {
    let upstream = Upstream::start(|_| ok("")).await;
    let mut config = counted(to(&upstream));
    config.limits.max_header_count = 10;
    let (config, certificate) = with_tls(config);
    let edge = Running::start(config).await;
    let head = |fields: usize| format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "A: b\r\n".repeat(fields - 1));
    let mut client = Client::new(connect(&edge, &certificate, b"http/1.1").await);
    client.send(head(10)).await;
    assert_eq!(client.answer().await.status, 200);
    client.send(head(11)).await;
    let answer = client.answer().await;
    assert_eq!((answer.status, answer.field("connection")), (431, Some("close")));
    for (fields, status) in [(10, 200), (11, 431)] {
        let mut request = http::Request::builder().uri("https://a.example/");
        for _ in 0..fields {
            request = request.header("a", "b");
        }
        let mut http2 = h2(&edge, &certificate).await;
        let (response, _) = http2.send_request(request.body(()).unwrap(), true).unwrap();
        assert_eq!(response.await.unwrap().status(), status, "{fields}");
    }
    assert_eq!(upstream.received().len(), 2);
    edge.expect_hits(&[("limits.max_header_count", 2)]).await;
}

#[tokio::test]
async fn trailers_and_extensions_have_a_size() {
    let upstream = Upstream::start(|_| ok("")).await;
    let mut config = counted(to(&upstream));
    config.limits.max_trailer_size = ByteSize(100);
    let edge = Running::start(config).await;
    let head = "POST /_matrix/x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    let trailers = |count: usize| format!("{head}1\r\na\r\n0\r\n{}\r\n", "A: b\r\n".repeat(count));
    assert_eq!(edge.ask(&trailers(20)).await.status, 200);
    let endless = format!("{head}1\r\na\r\n0\r\n{}", "A: b\r\n".repeat(100_000));
    let long = format!("{head}1;{}", "x".repeat(100_000));
    let many = format!("{head}{}", "1;xxx\r\na\r\n".repeat(100_000));
    for request in [&trailers(21), &endless, &long, &many] {
        let mut client = edge.connect().await;
        // The server stops reading at some point.
        let _ = tokio::io::AsyncWriteExt::write_all(&mut client.stream, request.as_bytes()).await;
        let answer = client.answer().await;
        assert_eq!((answer.status, answer.field("connection")), (431, Some("close")));
        assert!(answer.text().contains("Request trailers too large"), "{}", answer.text());
    }
    edge.expect_hits(&[("limits.max_trailer_size", 4)]).await;
}

#[tokio::test]
async fn a_connection_has_so_many_requests() {
    let upstream = Upstream::start(|_| ok("")).await;
    let mut config = counted(to(&upstream));
    config.limits.max_requests_per_connection = 3;
    let edge = Running::start(config).await;
    let mut client = edge.connect().await;
    // The fourth is in the connection when the third is answered.
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n".repeat(4)).await;
    for connection in ["keep-alive", "keep-alive", "close"] {
        let answer = client.answer().await;
        assert_eq!((answer.status, answer.field("connection")), (200, Some(connection)));
    }
    assert!(client.is_closed_within(Duration::from_secs(20)).await);
    assert_eq!((client.unread(), upstream.received().len()), (&b""[..], 3));
    edge.expect_hits(&[("limits.max_requests_per_connection", 1)]).await;
}

#[tokio::test]
async fn answers_of_our_own_count_too() {
    let upstream = Upstream::start(|_| ok("")).await;
    let mut config = to(&upstream);
    config.limits.max_requests_per_connection = 2;
    config.sites[0].routes = vec![prefix("/a", Action::Deny(http::StatusCode::FORBIDDEN))];
    let edge = Running::start(config).await;
    let mut client = edge.connect().await;
    for (target, status, connection) in [("/a", 403, "keep-alive"), ("/b", 404, "close")] {
        client.send(format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n")).await;
        let answer = client.answer().await;
        assert_eq!((answer.status, answer.field("connection")), (status, Some(connection)));
    }
    assert!(client.is_closed_within(Duration::from_secs(20)).await);
}
