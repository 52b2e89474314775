//! Deadlines of heads, and of connections without a request.

use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::time::sleep;

use crate::harness::{Client, Reply, Running, Upstream, counted, ok, to};
use crate::http2::{connect, with_tls};

const HEADER: Duration = Duration::from_secs(1);
/// Between two bytes of a client that is slow on purpose.
const PAUSE: Duration = Duration::from_millis(50);

async fn edge() -> (Upstream, Running) {
    let upstream = Upstream::start(|_| ok("")).await;
    let mut config = counted(to(&upstream));
    config.timeouts.header = HEADER;
    let edge = Running::start(config).await;
    (upstream, edge)
}

/// Sends a head of ten seconds byte by byte: it has to be refused in the middle of it, but not before its time.
async fn dribble(client: &mut Client<impl AsyncRead + AsyncWrite + Unpin>, start: &str) {
    let begun = Instant::now();
    let head = format!("{start} /_matrix/x HTTP/1.1\r\nHost: a\r\nX: {}", "x".repeat(160));
    for byte in head.bytes() {
        let is_sent =
            async { client.stream.write_all(&[byte]).await.is_ok() && client.stream.flush().await.is_ok() };
        if !is_sent.await || client.is_closed_within(PAUSE).await {
            assert!(begun.elapsed() >= HEADER.mul_f32(0.9), "closed after {:?}", begun.elapsed());
            let answer = client.answer().await;
            assert_eq!((answer.status, answer.field("connection")), (408, Some("close")));
            return;
        }
    }
    panic!("still open after {:?}", begun.elapsed());
}

#[tokio::test]
async fn the_first_head_has_one_deadline() {
    let (upstream, edge) = edge().await;
    let mut client = edge.connect().await;
    dribble(&mut client, "GET").await;
    assert_eq!(upstream.received().len(), 0);
    edge.expect_hits(&[("timeouts.header", 1)]).await;
}

#[tokio::test]
async fn the_next_head_has_one_deadline() {
    let (upstream, edge) = edge().await;
    let mut client = edge.connect().await;
    for _ in 0..2 {
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        assert_eq!(client.answer().await.status, 200);
        // Longer than a head may take: between requests it is idleness that counts.
        sleep(HEADER.mul_f32(1.2)).await;
    }
    dribble(&mut client, "GET").await;
    assert_eq!(upstream.received().len(), 2);
    edge.expect_hits(&[("timeouts.header", 1)]).await;
}

#[tokio::test]
async fn what_is_pipelined_of_a_head_has_its_deadline() {
    let (_upstream, edge) = edge().await;
    let mut client = edge.connect().await;
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\nG").await;
    assert_eq!(client.answer().await.status, 200);
    dribble(&mut client, "ET").await;
    // Without another byte, too.
    let mut client = edge.connect().await;
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\r\nHo").await;
    assert_eq!(client.answer().await.status, 200);
    assert_eq!(client.answer().await.status, 408);
    assert!(client.is_closed_within(Duration::from_secs(20)).await);
    edge.expect_hits(&[("timeouts.header", 2)]).await;
}

#[tokio::test]
async fn empty_lines_before_a_request_gain_no_time() {
    let (_upstream, edge) = edge().await;
    dribble(&mut edge.connect().await, "\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\nGET").await;
    edge.expect_hits(&[("timeouts.header", 1)]).await;
}

#[tokio::test]
async fn tls_records_of_one_byte_gain_no_time() {
    let upstream = Upstream::start(|_| ok("")).await;
    let mut config = counted(to(&upstream));
    config.timeouts.header = HEADER;
    let (config, certificate) = with_tls(config);
    let edge = Running::start(config).await;
    let mut client = Client::new(connect(&edge, &certificate, b"http/1.1").await);
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(client.answer().await.status, 200);
    dribble(&mut client, "GET").await;
    edge.expect_hits(&[("timeouts.header", 1)]).await;
}

#[tokio::test]
async fn a_tls_record_that_does_not_end_is_idleness() {
    let upstream = Upstream::start(|_| ok("")).await;
    let mut config = counted(to(&upstream));
    config.timeouts.idle = HEADER;
    let (config, certificate) = with_tls(config);
    let edge = Running::start(config).await;
    let (mut tcp, _tls) = connect(&edge, &certificate, b"http/1.1").await.into_inner();
    let begun = Instant::now();
    // The beginning of a record of application data of 16 KiB.
    for byte in [0x17, 3, 3, 0x40, 0].into_iter().chain([0; 200]) {
        if tcp.write_all(&[byte]).await.is_err() {
            edge.expect_hits(&[("timeouts.idle", 1)]).await;
            return;
        }
        sleep(PAUSE).await;
    }
    panic!("still open after {:?}", begun.elapsed());
}

#[tokio::test]
async fn idle_connections_are_closed_without_a_word() {
    let upstream = Upstream::start(|_| ok("")).await;
    let mut config = counted(to(&upstream));
    config.timeouts.idle = Duration::from_millis(1000);
    let edge = Running::start(config).await;
    let mut fresh = edge.connect().await;
    let mut used = edge.connect().await;
    used.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    used.answer().await;
    assert!(!used.is_closed_within(Duration::from_millis(200)).await);
    assert!(used.is_closed_within(Duration::from_secs(20)).await);
    assert!(fresh.is_closed_within(Duration::from_secs(20)).await);
    assert_eq!((used.unread(), fresh.unread()), (&b""[..], &b""[..]));
    edge.expect_hits(&[("timeouts.idle", 2)]).await;
}

#[tokio::test]
async fn waiting_for_an_answer_is_not_idleness() {
    let upstream = Upstream::start(|_| Reply { delay: Duration::from_millis(1500), ..ok("late") }).await;
    let mut config = counted(to(&upstream));
    let short = Duration::from_millis(300);
    config.timeouts =
        conf::Timeouts { idle: short, header: short, body: short, send: short, ..config.timeouts };
    config.limits.min_body_rate = conf::ByteSize(1 << 30);
    config.limits.min_send_rate = conf::ByteSize(1 << 30);
    let edge = Running::start(config).await;
    assert_eq!(edge.get("/sync").await.text(), "late");
    let post = "POST /keys/query HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc";
    assert_eq!(edge.ask(post).await.text(), "late");
    assert_eq!(edge.limits_hit().await.iter().filter(|(key, _)| key != "timeouts.idle").count(), 0);
}
