//! Floods over HTTP/2, one test for each: the connection ends, the limit is counted, and an honest client on another connection
//! notices nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use tokio::time::sleep;

use crate::frames::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, ENHANCE_YOUR_CALM, End, HEADERS, INITIAL_WINDOW_SIZE,
    PATIENCE, PING, PRIORITY, Raw, SETTINGS, frame, get, post, request, reset, setting, window_update,
};
use crate::harness::{Running, Scripted, Upstream, counted, ok, to};
use crate::http2::{self, h2, with_tls};

const CONTROL: &str = "limits.h2_control_frames";
const RESETS: &str = "limits.h2_resets";
const HEAD: &str = "limits.max_header_size";

/// An edge on which this limit is soon reached.
async fn edge(limit: &str, upstream: &Upstream) -> (Running, CertificateDer<'static>) {
    let (mut config, certificate) = with_tls(counted(to(upstream)));
    match limit {
        CONTROL => config.limits.h2_control_frames = 200,
        RESETS => config.limits.h2_resets = 20,
        _ => {}
    }
    config.limits.max_requests_per_connection = 1_000_000;
    (Running::start(config).await, certificate)
}

/// Sends pieces as long as it can, after `start`; the connection has to end for `limit`.
async fn check(limit: &str, start: &[u8], piece: impl FnMut(u32) -> Vec<u8>) {
    let upstream = Upstream::start(|_| ok("honest")).await;
    let (edge, certificate) = edge(limit, &upstream).await;
    let mut honest = h2(&edge, &certificate).await;
    let raw = Raw::open(&edge, &certificate, &[frame(SETTINGS, 0, 0, &[]), start.to_vec()].concat()).await;
    let (end, sent) = raw.flood(2000, piece).await;
    // Closed: what was still on its way when the connection ended may have made the client's system drop the last word.
    assert!(matches!(end, End::GoAway(ENHANCE_YOUR_CALM) | End::Closed), "{end:?} after {sent}");
    assert_eq!(http2::get(&mut honest, "/").await.1, "honest");
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        // Streams may also have been too many at a time.
        let mut hits = edge.limits_hit().await;
        hits.retain(|(key, _)| key != "limits.max_concurrent_streams");
        if hits == [(limit.to_owned(), 1)] {
            return;
        }
        assert!(tokio::time::Instant::now() < deadline, "{hits:?} and not {limit}");
        sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn pings() {
    check(CONTROL, &[], |_| frame(PING, 0, 0, &[0; 8])).await;
}

#[tokio::test]
async fn acknowledgements_of_what_was_never_sent() {
    check(CONTROL, &[], |_| frame(PING, 1, 0, &[0; 8])).await;
}

#[tokio::test]
async fn settings() {
    check(CONTROL, &[], |_| frame(SETTINGS, 0, 0, &[])).await;
}

#[tokio::test]
async fn windows_that_change_all_the_time() {
    // On many open streams, so that each change is work.
    let open: Vec<u8> = (0..100).flat_map(|number| post(2 * number + 1, "/")).collect();
    check(CONTROL, &open, |number| setting(INITIAL_WINDOW_SIZE, number % 2 * 1000)).await;
}

#[tokio::test]
async fn priorities() {
    check(CONTROL, &[], |number| frame(PRIORITY, 0, 2 * number + 1, &[0, 0, 0, 0, 16])).await;
}

#[tokio::test]
async fn tiny_window_updates() {
    check(CONTROL, &get(1, "/"), |_| window_update(0, 1)).await;
}

#[tokio::test]
async fn unknown_frames() {
    check(CONTROL, &[], |_| frame(0xbe, 0, 0, &[0; 100])).await;
}

#[tokio::test]
async fn empty_data() {
    check(CONTROL, &post(1, "/"), |_| frame(DATA, 0, 1, &[])).await;
}

#[tokio::test]
async fn data_of_one_byte() {
    check(CONTROL, &post(1, "/"), |_| frame(DATA, 0, 1, b"x")).await;
}

#[tokio::test]
async fn padding_alone() {
    // The library's own bound: it alone knows what is padding.
    // PADDED: one byte says that the other 200 are padding.
    check(CONTROL, &post(1, "/"), |_| frame(DATA, 8, 1, &[&[200][..], &[0; 200]].concat())).await;
}

#[tokio::test]
async fn continuations() {
    let start = frame(HEADERS, END_STREAM, 1, &request("GET", "/"));
    for more in [&b""[..], b"\0\x01x\x01y"] {
        check(HEAD, &start, |_| frame(CONTINUATION, 0, 1, more)).await;
    }
}

#[tokio::test]
async fn streams_reset_as_fast_as_they_are_opened() {
    check(RESETS, &[], |number| [get(2 * number + 1, "/"), reset(2 * number + 1)].concat()).await;
}

#[tokio::test]
async fn streams_that_make_the_server_reset() {
    // A window above 2^31-1 (RFC 9113 §6.9.1), a priority that depends on itself, more body than was announced.
    check(RESETS, &[], |number| {
        [post(2 * number + 1, "/"), window_update(2 * number + 1, 0x7fff_ffff)].concat()
    })
    .await;
    let myself = |stream: u32| frame(PRIORITY, 0, stream, &[&stream.to_be_bytes()[..], &[16]].concat());
    check(RESETS, &[], |number| [post(2 * number + 1, "/"), myself(2 * number + 1)].concat()).await;
    let mut short = request("POST", "/");
    short.extend(crate::frames::block(&[("content-length", "1")]));
    let too_much =
        |stream| [frame(HEADERS, END_HEADERS, stream, &short), frame(DATA, 0, stream, &[0; 100])].concat();
    check(RESETS, &[], |number| too_much(2 * number + 1)).await;
}

/// A header block of a few hundred bytes that means megabytes: a long field, put into the table once and named again and again.
#[tokio::test]
async fn header_blocks_that_unfold() {
    let upstream = Upstream::start(|_| ok("honest")).await;
    let (edge, certificate) = edge(CONTROL, &upstream).await;
    // Literal with incremental indexing (RFC 7541 §6.2.1), then the first entry of the dynamic table.
    let mut bomb = request("GET", "/");
    bomb.extend([0x40, 1, b'x', 0x7f, 0xa1, 0x1e]);
    bomb.extend([b'y'; 4000]);
    bomb.extend([0xbe; 10_000]);
    let mut raw = Raw::open(&edge, &certificate, &frame(SETTINGS, 0, 0, &[])).await;
    raw.send(&frame(HEADERS, END_STREAM | END_HEADERS, 1, &bomb)).await;
    let first = raw.wait_for(|frame| frame.kind == HEADERS || frame.kind == crate::frames::GOAWAY).await;
    assert!(first.kind == HEADERS || first.code() == Some(ENHANCE_YOUR_CALM), "{first:?}");
    assert_eq!(upstream.received().len(), 0);
    // One that is only a little too large is answered, and the connection goes on (RFC 6585 §5).
    let mut large = request("GET", "/");
    large.extend(crate::frames::block(&[("x", &"y".repeat(15_000)), ("x", &"y".repeat(1000))]));
    large.extend([0x40, 1, b'x', 0x7f, 0xa1, 0x1e]);
    large.extend([b'y'; 4000]);
    large.extend([0xbe; 8]);
    let mut raw = Raw::open(&edge, &certificate, &frame(SETTINGS, 0, 0, &[])).await;
    let (start, rest) = large.split_at(16_000);
    raw.send(&[frame(HEADERS, END_STREAM, 1, start), frame(CONTINUATION, END_HEADERS, 1, rest)].concat())
        .await;
    let answer = raw.wait_for(|frame| frame.kind == HEADERS).await;
    assert!(answer.payload.windows(3).any(|text| text == b"431") || answer.payload.len() < 10, "{answer:?}");
    raw.send(&get(3, "/")).await;
    assert!(raw.is_answered(3).await);
    assert_eq!(upstream.received().len(), 1);
}

/// Changes of the table's size in each block (RFC 7541 §6.3) are no more work than other bytes.
#[tokio::test]
async fn tables_that_change_their_size() {
    let upstream = Upstream::start(|_| ok("honest")).await;
    let (edge, certificate) = edge(CONTROL, &upstream).await;
    let mut raw = Raw::open(&edge, &certificate, &frame(SETTINGS, 0, 0, &[])).await;
    for number in 0..50 {
        let block = [[0x20, 0x3f, 0xe1, 0x1f].repeat(100), request("GET", "/")].concat();
        raw.send(&frame(HEADERS, END_STREAM | END_HEADERS, 2 * number + 1, &block)).await;
        assert!(raw.is_answered(2 * number + 1).await);
    }
    // Above what we have announced: the connection ends (RFC 7541 §6.3).
    let block = [&[0x3f, 0xe1, 0x7f][..], &request("GET", "/")].concat();
    raw.send(&frame(HEADERS, END_STREAM | END_HEADERS, 101, &block)).await;
    assert!(matches!(raw.end().await, End::GoAway(1 | 9)));
}

/// Streams that are reset before their upstream has answered, slowly enough to be accepted: none of their requests remains.
#[tokio::test]
async fn upstream_requests_end_with_their_streams() {
    let open = Arc::new(AtomicUsize::new(0));
    let counted_open = open.clone();
    let upstream = Scripted::start(move |mut exchange, _| {
        let open = counted_open.clone();
        async move {
            open.fetch_add(1, Ordering::SeqCst);
            exchange.head().await;
            exchange.closed().await;
            open.fetch_sub(1, Ordering::SeqCst);
        }
    })
    .await;
    let (config, certificate) = with_tls(upstream.edge());
    let edge = Running::start(config).await;
    let mut raw = Raw::open(&edge, &certificate, &frame(SETTINGS, 0, 0, &[])).await;
    for number in 0..100 {
        raw.send(&get(2 * number + 1, "/")).await;
        if number % 10 == 0 {
            // Some reach the upstream, some are reset while it is being connected.
            while upstream.connections() <= usize::try_from(number).unwrap() / 10 {
                sleep(Duration::from_millis(5)).await;
            }
        }
        raw.send(&[reset(2 * number + 1), frame(PING, 0, 0, b"still up")].concat()).await;
        raw.wait_for(|frame| frame.kind == PING && frame.payload == b"still up").await;
    }
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while open.load(Ordering::SeqCst) > 0 {
        assert!(
            tokio::time::Instant::now() < deadline,
            "{} requests are still open",
            open.load(Ordering::SeqCst)
        );
        sleep(Duration::from_millis(10)).await;
    }
}

/// An honest client that does much of everything, but for its work, stays.
#[tokio::test]
async fn work_pays_for_what_comes_with_it() {
    let upstream = Upstream::start(|_| ok(&"x".repeat(1000))).await;
    let (edge, certificate) = edge(CONTROL, &upstream).await;
    let mut raw = Raw::open(&edge, &certificate, &frame(SETTINGS, 0, 0, &[])).await;
    for number in 0..300 {
        let stream = 2 * number + 1;
        raw.send(&[frame(PRIORITY, 0, stream, &[0, 0, 0, 0, 16]), get(stream, "/")].concat()).await;
        assert!(raw.is_answered(stream).await);
        // It has what it wanted, and says so in four ways.
        raw.send(
            &[window_update(0, 1000), window_update(stream, 1000), frame(PING, 0, 0, &[0; 8]), reset(stream)]
                .concat(),
        )
        .await;
    }
    assert_eq!(upstream.received().len(), 300);
    edge.expect_hits(&[]).await;
}
