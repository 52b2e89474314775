//! What HTTP/2 connections may have and hold, and for how long.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rustls::pki_types::CertificateDer;
use tokio::time::sleep;

use crate::frames::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, End, GOAWAY, HEADERS, INITIAL_WINDOW_SIZE, NO_ERROR,
    PATIENCE, PING, REFUSED_STREAM, RST_STREAM, Raw, SETTINGS, block, frame, get, post, request, setting,
    window_update,
};
use crate::harness::{Reply, Running, Scripted, Upstream, counted, ok, reply, to};
use crate::http2::{self, h2, with_tls};

async fn edge(
    upstream: &Upstream,
    change: impl FnOnce(&mut conf::Edge),
) -> (Running, CertificateDer<'static>) {
    let (mut config, certificate) = with_tls(counted(to(upstream)));
    change(&mut config);
    (Running::start(config).await, certificate)
}

const SHORT: Duration = Duration::from_secs(1);

fn settings() -> Vec<u8> {
    frame(SETTINGS, 0, 0, &[])
}

#[tokio::test]
async fn streams_above_the_limit_are_refused() {
    let upstream = Upstream::start(|_| Reply { delay: Duration::from_millis(500), ..ok("late") }).await;
    let (edge, certificate) = edge(&upstream, |config| config.limits.max_concurrent_streams = 10).await;
    let mut raw = Raw::open(&edge, &certificate, &settings()).await;
    let announced = raw.wait_for(|frame| frame.kind == SETTINGS && frame.flags == 0).await.payload;
    assert!(announced.chunks(6).any(|setting| setting == [0, 3, 0, 0, 0, 10]), "{announced:?}");
    let all: Vec<u8> = (0..15).flat_map(|number| get(2 * number + 1, "/")).collect();
    raw.send(&all).await;
    let (mut answered, mut refused) = (Vec::new(), Vec::new());
    while answered.len() + refused.len() < 15 {
        let frame = raw.wait_for(|frame| frame.ends_stream()).await;
        match frame.code() {
            Some(code) => {
                assert_eq!(code, REFUSED_STREAM);
                refused.push(frame.stream);
            }
            None => answered.push(frame.stream),
        }
    }
    answered.sort_unstable();
    assert_eq!(answered, (0..10).map(|number| 2 * number + 1).collect::<Vec<_>>());
    assert_eq!(upstream.received().len(), 10);
    // What was refused may be asked again (RFC 9113 §8.7).
    raw.send(&get(31, "/")).await;
    assert!(raw.is_answered(31).await);
    edge.expect_hits(&[("limits.max_concurrent_streams", 5)]).await;
}

#[tokio::test]
async fn a_connection_has_so_many_requests_and_ends_gently() {
    let upstream = Upstream::start(|_| Reply { delay: Duration::from_millis(300), ..ok("yes") }).await;
    let (edge, certificate) = edge(&upstream, |config| config.limits.max_requests_per_connection = 5).await;
    let mut raw = Raw::open(&edge, &certificate, &settings()).await;
    // Two more than allowed are on their way when the client hears of it.
    let all: Vec<u8> = (0..7).flat_map(|number| get(2 * number + 1, "/")).collect();
    raw.send(&all).await;
    let (mut answered, mut goodbyes) = (0, Vec::new());
    while let Some(frame) = raw.next().await {
        if frame.kind == PING && frame.flags == 0 {
            raw.send(&crate::frames::frame(PING, 1, 0, &frame.payload)).await;
        }
        if let (GOAWAY, Some(code)) = (frame.kind, frame.code()) {
            goodbyes.push((code, u32::from_be_bytes(frame.payload[..4].try_into().unwrap())));
        }
        answered += usize::from(frame.ends_stream() && frame.kind != RST_STREAM);
    }
    assert_eq!(answered, 7);
    // First that there will be an end, then where it is (RFC 9113 §6.8).
    assert_eq!(goodbyes, [(NO_ERROR, 0x7fff_ffff), (NO_ERROR, 13)]);
    edge.expect_hits(&[("limits.max_requests_per_connection", 1)]).await;
    // A client with a library opens another connection by itself.
    let mut client = h2(&edge, &certificate).await;
    for _ in 0..5 {
        assert_eq!(http2::get(&mut client, "/").await.1, "yes");
    }
}

#[tokio::test]
async fn a_client_that_hears_no_goodbye_is_closed() {
    let upstream = Upstream::start(|_| ok("yes")).await;
    let (edge, certificate) = edge(&upstream, |config| {
        config.limits.max_requests_per_connection = 5;
        config.limits.max_concurrent_streams = 5;
    })
    .await;
    let raw = Raw::open(&edge, &certificate, &settings()).await;
    let (_, sent) = raw.flood(100_000, |number| get(2 * number + 1, "/")).await;
    assert!(sent < 100_000);
    assert!(upstream.received().len() <= 11, "{}", upstream.received().len());
}

#[tokio::test]
async fn a_client_that_says_nothing_is_closed() {
    let upstream = Upstream::start(|_| ok("")).await;
    let (edge, certificate) = edge(&upstream, |config| config.timeouts.header = SHORT).await;
    for beginning in [
        &b""[..],
        b"PRI * HT",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\x06\x04\0\0",
    ] {
        let begun = Instant::now();
        let mut raw = Raw::silent(&edge, &certificate).await;
        raw.send(beginning).await;
        raw.end().await;
        assert!(begun.elapsed() >= SHORT.mul_f32(0.9), "{:?}", begun.elapsed());
    }
    edge.expect_hits(&[("timeouts.header", 4)]).await;
}

#[tokio::test]
async fn a_connection_without_streams_is_told_and_closed() {
    let upstream = Upstream::start(|_| ok("")).await;
    let (edge, certificate) = edge(&upstream, |config| config.timeouts.idle = SHORT).await;
    // Before the first request, and after one.
    for requests in [&[][..], &get(1, "/")] {
        let mut raw = Raw::open(&edge, &certificate, &[settings(), requests.to_vec()].concat()).await;
        // A client that keeps up the connection alone is idle all the same.
        let goodbye = raw.wait_for(|frame| frame.kind == GOAWAY).await;
        assert_eq!(goodbye.code(), Some(NO_ERROR));
        let ping = raw.wait_for(|frame| frame.kind == PING).await;
        raw.send(&frame(PING, 1, 0, &ping.payload)).await;
        assert_eq!(raw.end().await, End::GoAway(NO_ERROR));
    }
    // One that does not answer.
    let mut raw = Raw::open(&edge, &certificate, &settings()).await;
    assert_eq!(raw.end().await, End::GoAway(NO_ERROR));
    edge.expect_hits(&[("timeouts.idle", 3)]).await;
}

#[tokio::test]
async fn a_head_has_one_deadline_while_other_streams_go_on() {
    let upstream = Upstream::start(|_| Reply { delay: Duration::from_secs(30), ..ok("late") }).await;
    let (edge, certificate) = edge(&upstream, |config| config.timeouts.header = SHORT).await;
    let whole = [
        frame(HEADERS, END_STREAM, 3, &request("GET", "/")),
        frame(CONTINUATION, 0, 3, &block(&[("a", "b")])),
    ]
    .concat();
    for length in [12, 40, whole.len() - 1, whole.len()] {
        let begun = Instant::now();
        let mut raw = Raw::open(&edge, &certificate, &[settings(), get(1, "/")].concat()).await;
        for byte in &whole[..length] {
            raw.send(&[*byte]).await;
        }
        raw.end().await;
        assert!(begun.elapsed() >= SHORT.mul_f32(0.9), "{:?}", begun.elapsed());
    }
    edge.expect_hits(&[("timeouts.header", 4)]).await;
}

#[tokio::test]
async fn fields_are_counted() {
    let upstream = Upstream::start(|_| ok("")).await;
    let (edge, certificate) = edge(&upstream, |config| config.limits.max_header_count = 20).await;
    let mut raw = Raw::open(&edge, &certificate, &settings()).await;
    let with = |stream: u32, fields: usize| {
        let block = [request("GET", "/"), block(&[("x", "y")]).repeat(fields)].concat();
        frame(HEADERS, END_STREAM | END_HEADERS, stream, &block)
    };
    raw.send(&with(1, 15)).await;
    assert!(raw.is_answered(1).await);
    raw.send(&with(3, 30)).await;
    assert!(raw.is_answered(3).await);
    assert_eq!(upstream.received().len(), 1);
    edge.expect_hits(&[("limits.max_header_count", 1)]).await;
}

/// Trailers are dropped, however many there are of them, as long as they are bounded.
#[tokio::test]
async fn trailers_are_bounded() {
    let upstream = Upstream::start(|_| ok("")).await;
    let (edge, certificate) = edge(&upstream, |_| {}).await;
    let mut raw = Raw::open(&edge, &certificate, &settings()).await;
    let trailers = |bytes: usize| block(&[("x", &"y".repeat(bytes))]);
    raw.send(
        &[
            post(1, "/"),
            frame(DATA, 0, 1, b"abc"),
            frame(HEADERS, END_STREAM | END_HEADERS, 1, &trailers(100)),
        ]
        .concat(),
    )
    .await;
    assert!(raw.is_answered(1).await);
    assert!(!upstream.last().head.contains("x: y"));
    // Above the limit of a head, in as many frames as there may be.
    raw.send(
        &[post(3, "/"), frame(DATA, 0, 3, b"abc"), frame(HEADERS, END_STREAM, 3, &trailers(15_000))].concat(),
    )
    .await;
    for _ in 0..3 {
        raw.send(&frame(CONTINUATION, 0, 3, &trailers(15_000))).await;
    }
    raw.send(&frame(CONTINUATION, END_HEADERS, 3, &trailers(10))).await;
    raw.wait_for(|frame| frame.stream == 3 && frame.ends_stream() || frame.kind == GOAWAY).await;
}

/// An upstream that sends so many bytes to each request, and how many of its connections are open.
async fn generous(bytes: usize) -> (Scripted, Arc<AtomicUsize>) {
    let open = Arc::new(AtomicUsize::new(0));
    let counter = open.clone();
    let upstream = Scripted::start(move |mut exchange, _| {
        let open = counter.clone();
        async move {
            open.fetch_add(1, Ordering::SeqCst);
            while !exchange.head().await.is_empty() {
                exchange.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {bytes}\r\n\r\n")).await;
                exchange.send(vec![b'x'; bytes]).await;
            }
            open.fetch_sub(1, Ordering::SeqCst);
        }
    })
    .await;
    (upstream, open)
}

async fn all_closed(open: &AtomicUsize) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while open.load(Ordering::SeqCst) > 0 {
        assert!(tokio::time::Instant::now() < deadline, "{} are open", open.load(Ordering::SeqCst));
        sleep(Duration::from_millis(10)).await;
    }
}

/// 128 answers of 10 MB, and no window for any: their requests end, and so do the upstream's connections.
#[tokio::test]
async fn windows_that_are_never_opened_end_the_connection() {
    let (upstream, open) = generous(10 << 20).await;
    let (mut config, certificate) = with_tls(counted(upstream.edge()));
    config.timeouts.send = Duration::from_secs(2);
    let edge = Running::start(config).await;
    let all: Vec<u8> = (0..128).flat_map(|number| get(2 * number + 1, "/")).collect();
    let begun = Instant::now();
    let mut raw = Raw::open(&edge, &certificate, &[setting(INITIAL_WINDOW_SIZE, 0), all].concat()).await;
    // Something that keeps the connection from being silent.
    let mut end = None;
    while let Some(frame) = raw.next().await {
        if frame.kind == GOAWAY {
            end = frame.code();
        }
    }
    assert!(end.is_some());
    assert!(begun.elapsed() >= Duration::from_secs(2), "{:?}", begun.elapsed());
    all_closed(&open).await;
    edge.expect_hits(&[("timeouts.send", 1)]).await;
}

/// A window that was promised and is taken back (RFC 9113 §6.9.2) makes no difference.
#[tokio::test]
async fn windows_that_are_taken_back_end_the_connection() {
    let (upstream, open) = generous(10 << 20).await;
    let (mut config, certificate) = with_tls(counted(upstream.edge()));
    config.timeouts.send = Duration::from_secs(2);
    let edge = Running::start(config).await;
    let all: Vec<u8> = (0..20).flat_map(|number| get(2 * number + 1, "/")).collect();
    let mut raw = Raw::open(&edge, &certificate, &[setting(INITIAL_WINDOW_SIZE, 1000), all].concat()).await;
    raw.wait_for(|frame| frame.kind == DATA).await;
    raw.send(&setting(INITIAL_WINDOW_SIZE, 0)).await;
    assert!(matches!(raw.end().await, End::GoAway(_)));
    all_closed(&open).await;
    edge.expect_hits(&[("timeouts.send", 1)]).await;
}

/// A stream that takes a byte now and then ends by the deadline of its piece; the other streams of the connection do not.
#[tokio::test]
async fn a_stream_that_is_hardly_taken_ends_alone() {
    let (upstream, open) = generous(1 << 20).await;
    let (mut config, certificate) = with_tls(counted(upstream.edge()));
    config.timeouts.send = SHORT;
    // The time of a piece is this second and another.
    config.limits.min_send_rate = conf::ByteSize(64 * 1024);
    let edge = Running::start(config).await;
    let start = [setting(INITIAL_WINDOW_SIZE, 0), window_update(0, 1 << 30), get(1, "/")].concat();
    let mut raw = Raw::open(&edge, &certificate, &start).await;
    let reset = async {
        loop {
            raw.send(&window_update(1, 10)).await;
            let frame = raw.next().await.expect("the connection is closed");
            if frame.kind == RST_STREAM {
                return frame.stream;
            }
            sleep(Duration::from_millis(50)).await;
        }
    };
    assert_eq!(tokio::time::timeout(PATIENCE, reset).await.expect("the stream does not end"), 1);
    all_closed(&open).await;
    raw.send(&[get(3, "/"), window_update(3, 1 << 30)].concat()).await;
    assert!(raw.is_answered(3).await);
    edge.expect_hits(&[("timeouts.send", 1)]).await;
}

/// Bodies that never end have their deadline, on as many streams as there may be.
#[tokio::test]
async fn bodies_that_never_end_are_cut_off() {
    let upstream = Upstream::start(|_| reply("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")).await;
    let (edge, certificate) = edge(&upstream, |config| config.timeouts.body = SHORT).await;
    let mut raw = Raw::open(&edge, &certificate, &settings()).await;
    let all: Vec<u8> = (0..128)
        .flat_map(|number| [post(2 * number + 1, "/"), frame(DATA, 0, 2 * number + 1, &[0; 100])].concat())
        .collect();
    raw.send(&all).await;
    for _ in 0..128 {
        raw.wait_for(|frame| frame.ends_stream()).await;
    }
    raw.send(&get(257, "/")).await;
    assert!(raw.is_answered(257).await);
}
