//! WebSockets that stay open for long: a call's, with a sign of life every few seconds and nothing else; and the end of those that
//! nobody uses.

use std::time::Duration;

use conf::Action;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, sleep, timeout};

use crate::harness::{Client, Running, config, prefix, upstream_of};

/// Between two signs of life.
const PAUSE: Duration = Duration::from_millis(250);
/// For what is read from an upstream; the tunnels live several times as long.
const UPSTREAM_READ: Duration = Duration::from_millis(700);
/// Several signs of life, and less than the life of a tunnel that has them.
const SILENCE: Duration = Duration::from_millis(1200);
const LIFE: Duration = Duration::from_millis(2500);

/// An edge with short deadlines, and the two ends of a tunnel through it.
async fn tunnel() -> (Running, Client<TcpStream>, TcpStream) {
    let (edge, mut client, mut upstream) = request().await;
    let switching = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    upstream.write_all(switching).await.unwrap();
    assert_eq!(client.answer().await.status, 101);
    (edge, client, upstream)
}

/// The same, up to the request for a tunnel.
async fn request() -> (Running, Client<TcpStream>, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = conf::Server::Tcp { host: "127.0.0.1".into(), port, tls: false };
    let mut config = config(vec![upstream_of("up", vec![server])], |upstreams| {
        vec![prefix("/", Action::Upstream(upstreams[0].clone()))]
    });
    let short = Duration::from_millis(200);
    config.timeouts = conf::Timeouts {
        handshake: short,
        header: short,
        idle: short,
        body: short,
        send: short,
        upstream_read: UPSTREAM_READ,
        tunnel: SILENCE,
        ..config.timeouts
    };
    let edge = Running::start(config).await;
    let mut client = edge.connect().await;
    client.send("GET /rtc HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n").await;
    let (mut upstream, _) = listener.accept().await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        upstream.read_buf(&mut head).await.unwrap();
    }
    (edge, client, upstream)
}

/// Says something; whether it arrived.
async fn reaches(from: &mut TcpStream, to: &mut TcpStream) -> bool {
    let mut heard = [0; 4];
    from.write_all(b"ping").await.is_ok()
        && matches!(timeout(Duration::from_secs(5), to.read_exact(&mut heard)).await, Ok(Ok(4)))
        && &heard == b"ping"
}

#[tokio::test]
async fn a_tunnel_with_signs_of_life_stays_open() {
    let (_edge, mut client, mut upstream) = tunnel().await;
    let end = Instant::now() + LIFE;
    while Instant::now() < end {
        sleep(PAUSE).await;
        assert!(reaches(&mut client.stream, &mut upstream).await);
        assert!(reaches(&mut upstream, &mut client.stream).await);
    }
}

#[tokio::test]
async fn a_client_that_only_listens_stays_connected() {
    let (_edge, mut client, mut upstream) = tunnel().await;
    let end = Instant::now() + LIFE;
    while Instant::now() < end {
        sleep(PAUSE).await;
        assert!(reaches(&mut upstream, &mut client.stream).await);
    }
    assert!(reaches(&mut client.stream, &mut upstream).await);
}

#[tokio::test]
async fn a_client_that_only_speaks_stays_connected() {
    let (_edge, mut client, mut upstream) = tunnel().await;
    let end = Instant::now() + LIFE;
    while Instant::now() < end {
        sleep(PAUSE).await;
        assert!(reaches(&mut client.stream, &mut upstream).await);
    }
    assert!(reaches(&mut upstream, &mut client.stream).await);
}

#[tokio::test]
async fn a_tunnel_without_a_sign_of_life_ends() {
    let (_edge, mut client, mut upstream) = tunnel().await;
    let begun = Instant::now();
    assert!(client.is_closed_within(PATIENCE).await);
    assert!(begun.elapsed() >= SILENCE - PAUSE, "{:?}", begun.elapsed());
    let mut rest = Vec::new();
    assert!(timeout(PATIENCE, upstream.read_to_end(&mut rest)).await.is_ok());
    assert!(rest.is_empty());
}

#[tokio::test]
async fn a_request_for_a_tunnel_is_answered_in_time() {
    let (_edge, mut client, _upstream) = request().await;
    // Nothing of what it says now gives it more time.
    client.send("early").await;
    assert_eq!(client.answer().await.status, 504);
    assert!(client.is_closed_within(PATIENCE).await);
}

#[tokio::test]
async fn a_refusal_of_a_tunnel_has_the_deadlines_of_an_answer() {
    let (_edge, mut client, mut upstream) = request().await;
    let refusal = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 10\r\n\r\n12345";
    upstream.write_all(refusal).await.unwrap();
    // The rest never comes.
    assert!(client.is_closed_within(PATIENCE).await);
}

/// Long enough for a loaded machine.
const PATIENCE: Duration = Duration::from_secs(20);
