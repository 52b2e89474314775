//! How slow a client may send a body and take an answer. What is slow here is slow on purpose: there is nothing to wait for
//! but time.

use std::time::Duration;

use bytes::Bytes;
use conf::ByteSize;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::{Instant, sleep, timeout};

use crate::harness::{Running, Scripted, Upstream, counted, ok, reply, to};
use crate::http2::{connect, h2, with_tls};

const PATIENCE: Duration = Duration::from_secs(1);
const UPLOAD: &str = "POST /_matrix/x HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n";
const SOON: Duration = Duration::from_secs(20);

/// An edge that waits a second for bodies, and wants so many bytes in one.
fn uploads(config: conf::Edge, rate: u64) -> conf::Edge {
    let mut config = counted(config);
    config.timeouts.body = PATIENCE;
    config.limits.min_body_rate = ByteSize(rate);
    config
}

/// An edge that waits a second for clients to take answers.
fn downloads(config: conf::Edge, rate: u64) -> conf::Edge {
    let mut config = counted(config);
    config.timeouts.send = PATIENCE;
    config.limits.min_send_rate = ByteSize(rate);
    config
}

/// An upstream that waits for a body which does not come, and is let go.
async fn waiting_upstream() -> (Scripted, tokio::sync::mpsc::Receiver<usize>) {
    let (sender, receiver) = tokio::sync::mpsc::channel(1);
    let upstream = Scripted::start(move |mut exchange, _| {
        let sender = sender.clone();
        async move {
            exchange.head().await;
            let _ = sender.send(exchange.closed().await).await;
        }
    });
    (upstream.await, receiver)
}

#[tokio::test]
async fn a_body_in_single_bytes_is_408() {
    let (upstream, mut let_go) = waiting_upstream().await;
    let edge = Running::start(uploads(upstream.edge(), 1000)).await;
    let mut client = edge.connect().await;
    client.send(UPLOAD).await;
    let begun = Instant::now();
    while !client.is_closed_within(Duration::from_millis(200)).await {
        // By and by it is refused.
        let _ = client.stream.write_all(b"x").await;
        assert!(begun.elapsed() < SOON, "still open");
    }
    assert!(begun.elapsed() >= PATIENCE.mul_f32(0.9));
    let answer = client.answer().await;
    assert_eq!((answer.status, answer.field("connection")), (408, Some("close")));
    assert_eq!(answer.text(), r#"{"errcode":"M_UNKNOWN","error":"Request body too slow"}"#);
    assert!(timeout(SOON, let_go.recv()).await.unwrap().unwrap() < 100, "the upstream is free again");
    edge.expect_hits(&[("limits.min_body_rate", 1)]).await;
}

#[tokio::test]
async fn a_body_that_stops_is_408() {
    let upstream = Upstream::start(|_| ok("")).await;
    let edge = Running::start(uploads(to(&upstream), 1000)).await;
    let mut client = edge.connect().await;
    client.send(UPLOAD).await;
    client.send([b'x'; 50_000]).await;
    let answer = client.answer().await;
    assert_eq!((answer.status, answer.field("connection")), (408, Some("close")));
    assert_eq!(answer.text(), r#"{"errcode":"M_UNKNOWN","error":"Request body timed out"}"#);
    edge.expect_hits(&[("timeouts.body", 1)]).await;
}

#[tokio::test]
async fn chunk_sizes_and_trailers_that_trickle_are_408() {
    let upstream = Upstream::start(|_| ok("")).await;
    let edge = Running::start(uploads(to(&upstream), 1000)).await;
    for start in ["", "3\r\nabc\r\n0\r\n"] {
        let mut client = edge.connect().await;
        client.send(format!("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{start}")).await;
        let begun = Instant::now();
        for byte in if start.is_empty() {
            "0000000000001;aaaaaaaaaaaaaaaaaaaaaaaa"
        } else {
            "Aaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
        }
        .bytes()
        {
            if client.is_closed_within(Duration::from_millis(200)).await {
                break;
            }
            let _ = client.stream.write_all(&[byte]).await;
        }
        assert!(begun.elapsed() < SOON);
        assert_eq!(client.answer().await.status, 408, "{start}");
    }
    edge.expect_hits(&[("limits.min_body_rate", 2)]).await;
}

#[tokio::test]
async fn a_body_above_the_least_rate_goes_on_for_as_long_as_it_takes() {
    let upstream = Upstream::start(|_| ok("thanks")).await;
    let edge = Running::start(uploads(to(&upstream), 1000)).await;
    let mut client = edge.connect().await;
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 30000\r\n\r\n").await;
    for _ in 0..30 {
        client.send([b'x'; 1000]).await;
        sleep(PATIENCE / 10).await;
    }
    assert_eq!(client.answer().await.text(), "thanks");
    edge.expect_hits(&[]).await;
}

#[tokio::test]
async fn without_a_rate_only_silence_ends_a_body() {
    let upstream = Upstream::start(|_| ok("thanks")).await;
    let edge = Running::start(uploads(to(&upstream), 0)).await;
    let mut client = edge.connect().await;
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 20\r\n\r\n").await;
    for _ in 0..20 {
        client.send("x").await;
        sleep(PATIENCE / 10).await;
    }
    assert_eq!(client.answer().await.text(), "thanks");
    edge.expect_hits(&[]).await;
}

#[tokio::test]
async fn a_slow_upstream_is_not_the_clients_fault() {
    const PIECE: usize = 1 << 20;
    let upstream = Scripted::start(|mut exchange, _| async move {
        exchange.head().await;
        for _ in 0..12 {
            sleep(PATIENCE / 4).await;
            assert_eq!(exchange.body(PIECE).await.len(), PIECE);
        }
        exchange.send("HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nthanks").await;
    })
    .await;
    // A piece gives a sixteenth of a second back, a quarter of what the upstream takes for it.
    let mut config = uploads(upstream.edge(), 16 << 20);
    config.limits.max_body_size = ByteSize(1 << 30);
    let edge = Running::start(config).await;
    let mut client = edge.connect().await;
    client.send(format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", 12 * PIECE)).await;
    client.send(vec![b'x'; 12 * PIECE]).await;
    assert_eq!(client.answer().await.text(), "thanks");
    edge.expect_hits(&[]).await;
}

/// What the client of an HTTP/2 request sees when its body comes in pieces of `bytes` every fifth of a second.
async fn over_http2(bytes: usize) -> (Running, Option<u16>) {
    let upstream = Upstream::start(|_| ok("")).await;
    let (config, certificate) = with_tls(uploads(to(&upstream), 1000));
    let edge = Running::start(config).await;
    let mut client = h2(&edge, &certificate).await;
    let request = http::Request::post("https://a.example/_matrix/x").header("content-length", 30 * bytes);
    let (response, mut body) = client.send_request(request.body(()).unwrap(), false).unwrap();
    let send = async {
        for number in 1..=30 {
            if body.send_data(Bytes::from(vec![b'x'; bytes]), number == 30).is_err() {
                break;
            }
            sleep(PATIENCE / 5).await;
        }
    };
    let (response, ()) = tokio::join!(response, send);
    (edge, response.ok().map(|response| response.status().as_u16()))
}

#[tokio::test]
async fn the_same_holds_over_http2() {
    let (edge, status) = over_http2(1).await;
    assert_eq!(status, None, "the stream is reset");
    edge.expect_hits(&[("limits.min_body_rate", 1)]).await;
    let (edge, status) = over_http2(2000).await;
    assert_eq!(status, Some(200));
    edge.expect_hits(&[]).await;
}

/// More than all buffers between an upstream and a client on one machine.
const LARGE: usize = 64 << 20;

async fn large_answers() -> Upstream {
    Upstream::start(|_| ok(&"x".repeat(LARGE))).await
}

/// Reads a megabyte a fifth of a second; how much there was.
async fn read_slowly(stream: &mut (impl tokio::io::AsyncRead + Unpin), most: usize) -> usize {
    let mut total = 0;
    let mut piece = vec![0; 1 << 20];
    loop {
        let Ok(count @ 1..) = stream.read(&mut piece).await else { return total };
        total += count;
        if total / piece.len() != (total - count) / piece.len() {
            if total >= most {
                return total;
            }
            sleep(PATIENCE / 5).await;
        }
    }
}

#[tokio::test]
async fn an_answer_that_is_taken_slowly_is_cut_off() {
    let upstream = large_answers().await;
    let config = downloads(to(&upstream), 1 << 30);
    let plain = Running::start(config.clone()).await;
    let mut client = plain.connect().await;
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert!(read_slowly(&mut client.stream, LARGE).await < LARGE);
    plain.expect_hits(&[("limits.min_send_rate", 1)]).await;
    let (config, certificate) = with_tls(config);
    let under_tls = Running::start(config).await;
    let mut stream = connect(&under_tls, &certificate, b"http/1.1").await;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    assert!(read_slowly(&mut stream, LARGE).await < LARGE);
    under_tls.expect_hits(&[("limits.min_send_rate", 1)]).await;
}

#[tokio::test]
async fn a_client_that_takes_nothing_is_given_up_and_its_upstream_let_go() {
    let (sender, mut let_go) = tokio::sync::mpsc::channel(1);
    let upstream = Scripted::start(move |mut exchange, _| {
        let sender = sender.clone();
        async move {
            exchange.head().await;
            exchange.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {LARGE}\r\n\r\n")).await;
            while exchange.stream.write_all(&[b'x'; 1 << 16]).await.is_ok() {}
            let _ = sender.send(()).await;
        }
    })
    .await;
    let edge = Running::start(downloads(upstream.edge(), 1000)).await;
    let mut client = edge.connect().await;
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    timeout(SOON, let_go.recv()).await.expect("let go in time").unwrap();
    edge.expect_hits(&[("timeouts.send", 1)]).await;
    // The connection was reset: what was on its way is gone.
    let mut read = Vec::new();
    assert!(client.stream.read_to_end(&mut read).await.is_err());
}

#[tokio::test]
async fn an_answer_that_is_taken_fast_enough_is_not_cut_off() {
    let upstream = large_answers().await;
    let edge = Running::start(downloads(to(&upstream), 100_000)).await;
    let mut client = edge.connect().await;
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    // For four seconds a twentieth of it, then the rest.
    assert!(read_slowly(&mut client.stream, 20 << 20).await >= 20 << 20);
    let mut rest = vec![0; 40 << 20];
    client.stream.read_exact(&mut rest).await.unwrap();
    edge.expect_hits(&[]).await;
}

#[tokio::test]
async fn an_answer_that_comes_slowly_is_not_taken_slowly() {
    let upstream = Scripted::start(|mut exchange, _| async move {
        exchange.head().await;
        exchange.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n").await;
        for _ in 0..10 {
            sleep(PATIENCE / 4).await;
            exchange.send("x").await;
        }
    })
    .await;
    let edge = Running::start(downloads(upstream.edge(), 1 << 30)).await;
    assert_eq!(edge.get("/").await.text(), "xxxxxxxxxx");
    edge.expect_hits(&[]).await;
}

#[tokio::test]
async fn a_tunnel_has_no_least_rate() {
    let switching = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    let upstream = Upstream::start(move |_| reply(switching)).await;
    let mut config = downloads(uploads(to(&upstream), 1 << 30), 1 << 30);
    config.timeouts.upstream_read = SOON;
    let edge = Running::start(config).await;
    let mut client = edge.connect().await;
    client.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n").await;
    assert_eq!(client.answer().await.status, 101);
    let mut echoed = [0; 1];
    for _ in 0..3 {
        sleep(PATIENCE).await;
        client.send("x").await;
        timeout(SOON, client.stream.read_exact(&mut echoed)).await.unwrap().unwrap();
    }
    edge.expect_hits(&[]).await;
}
