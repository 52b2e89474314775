//! The end of a connection whose client is still sending: it reads its answer, and does not go on for ever.

use std::time::Duration;

use conf::ByteSize;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::time::{Instant, sleep};

use crate::harness::{Client, Running, Upstream, counted, ok, to};
use crate::http2::{connect, with_tls};

const LINGER: Duration = Duration::from_millis(1500);

async fn edge(change: impl FnOnce(&mut conf::Edge)) -> (Upstream, conf::Edge) {
    let upstream = Upstream::start(|_| ok("")).await;
    let mut config = counted(to(&upstream));
    config.limits.max_body_size = ByteSize(1000);
    change(&mut config);
    (upstream, config)
}

/// A client that looks for an answer when it has sent all it has to say, for about a second.
async fn upload(client: &mut Client<impl AsyncRead + AsyncWrite + Unpin>, head: &str) {
    client.send(head).await;
    for _ in 0..20 {
        client.send([b'x'; 50_000]).await;
        sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn a_client_that_sends_it_all_reads_its_answer() {
    let (upstream, config) = edge(|_| {}).await;
    let plain = Running::start(config.clone()).await;
    let (config, certificate) = with_tls(config);
    let under_tls = Running::start(config).await;
    let declared = "POST /_matrix/x HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n";
    let chunked = "POST /_matrix/x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nf4240\r\n";
    let malformed = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +1\r\n\r\n";
    for (head, status) in [(declared, 413), (chunked, 413), (malformed, 400)] {
        let mut client = plain.connect().await;
        upload(&mut client, head).await;
        assert_eq!(client.answer().await.status, status, "{head}");
        let mut client = Client::new(connect(&under_tls, &certificate, b"http/1.1").await);
        upload(&mut client, head).await;
        assert_eq!(client.answer().await.status, status, "{head}");
    }
    assert!(upstream.received().iter().all(|request| request.body.is_empty()));
}

#[tokio::test]
async fn nobody_is_listened_to_for_ever() {
    let (_upstream, config) = edge(|config| config.timeouts.linger = LINGER).await;
    let edge = Running::start(config).await;
    let mut client = edge.connect().await;
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000000\r\n\r\n").await;
    let begun = Instant::now();
    assert_eq!(client.answer().await.status, 413);
    while client.stream.write_all(&[b'x'; 1000]).await.is_ok() {
        assert!(begun.elapsed() < Duration::from_secs(20), "still open");
        sleep(Duration::from_millis(20)).await;
    }
    assert!(begun.elapsed() >= LINGER.mul_f32(0.9), "closed after {:?}", begun.elapsed());
    edge.expect_hits(&[("limits.max_body_size", 1), ("timeouts.linger", 1)]).await;
}

#[tokio::test]
async fn whoever_is_listened_to_has_a_place_among_the_connections() {
    let (_upstream, config) = edge(|config| config.limits.max_connections = 1).await;
    let edge = Running::start(config).await;
    let mut client = edge.connect().await;
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000000\r\n\r\n").await;
    assert_eq!(client.answer().await.status, 413);
    client.send([b'x'; 1000]).await;
    assert!(edge.connect().await.is_closed_within(Duration::from_secs(20)).await);
    edge.expect_hits(&[("limits.max_body_size", 1), ("limits.max_connections", 1)]).await;
    // Once it stops, the place is free, without waiting for the end of the linger.
    drop(client);
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let mut next = edge.connect().await;
        let is_sent = next.stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.is_ok();
        if is_sent && !next.is_closed_within(Duration::from_millis(100)).await {
            assert_eq!(next.answer().await.status, 200);
            return;
        }
        assert!(Instant::now() < deadline, "no place in time");
    }
}
