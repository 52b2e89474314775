//! Start, admin, stop.

use std::time::{Duration, Instant};

use conf::Bind;

use crate::harness::{Client, Reply, Running, Upstream, ok, tcp, to};

#[tokio::test]
async fn requests_in_flight_are_finished() {
    let upstream = Upstream::start(|_| Reply { delay: Duration::from_millis(700), ..ok("late") }).await;
    let edge = Running::start(to(&upstream)).await;
    let address = edge.address;
    let mut idle = edge.connect().await;
    idle.send("GET /idle HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(idle.answer().await.status, 200);
    let mut fresh = edge.connect().await;
    let mut busy = edge.connect().await;
    busy.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    edge.begin_to_stop();
    assert!(idle.is_closed_within(Duration::from_millis(300)).await, "idle connections close at once");
    while tokio::net::TcpStream::connect(address).await.is_ok() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    fresh.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(busy.answer().await.text(), "late");
    let first = fresh.answer().await;
    assert_eq!((first.text(), first.field("connection")), ("late", Some("close")), "let in before the end");
    assert!(busy.is_closed_within(Duration::from_secs(1)).await);
    edge.served.await.unwrap().unwrap();
}

#[tokio::test]
async fn the_drain_has_an_end() {
    let upstream = Upstream::start(|_| Reply { delay: Duration::from_secs(60), ..ok("") }).await;
    let mut config = to(&upstream);
    config.timeouts.drain = Duration::from_millis(400);
    let edge = Running::start(config).await;
    let mut busy = edge.connect().await;
    busy.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    let begun = Instant::now();
    edge.end().await;
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn an_idle_edge_stops_at_once() {
    let upstream = Upstream::start(|_| ok("")).await;
    let mut config = to(&upstream);
    config.threads = 3;
    let edge = Running::start(config).await;
    for _ in 0..10 {
        assert_eq!(edge.get("/").await.status, 200);
    }
    let begun = Instant::now();
    edge.end().await;
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn admin_tells_how_it_goes() {
    let upstream = Upstream::start(|_| ok("")).await;
    let mut config = to(&upstream);
    config.admin = vec![Bind::Address("127.0.0.1:0".parse().unwrap())];
    let edge = Running::start(config).await;
    assert_eq!(edge.addresses[1].0, "admin");
    let admin = tcp(&edge.addresses[1].1);
    edge.get("/").await;
    let ask = async |path: &str| {
        let mut client = Client::new(tokio::net::TcpStream::connect(admin).await.unwrap());
        client.send(format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n")).await;
        client.answer().await
    };
    assert_eq!(ask("/health").await.status, 200);
    assert_eq!(ask("/ready").await.text(), "ready\n");
    // A request is counted a moment after its answer.
    while !ask("/metrics").await.text().contains("gatehouse_edge_requests_total{status=\"2xx\"} 1\n") {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
