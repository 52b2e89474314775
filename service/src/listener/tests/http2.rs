//! Every limit and deadline of a connection over HTTP/2, frame by frame (RFC 9113): what bites, and that it is counted.

use conf::ByteSize;

use super::limits::{LOGIN, SHORT, has_bitten, hits, start};
use super::*;
use crate::reload::tests::{PATIENCE, Running};

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;

const ACK: u8 = 1;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// A setting: the least that a stream may be sent before it asks for more.
const INITIAL_WINDOW_SIZE: [u8; 6] = [0, 4, 0, 0, 0, 0];

struct Http2 {
    stream: TcpStream,
}

/// What came on a connection, in order, without what answers our own frames.
type Frame = (u8, u8, u32, Vec<u8>);

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a length").to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// RFC 7541 §6.2.2, without Huffman codes; names and values below 127 bytes, or exactly as long as two bytes say.
fn field(name: &str, value: &str) -> Vec<u8> {
    let mut block = vec![0];
    for text in [name, value] {
        match u8::try_from(text.len()) {
            Ok(length @ ..127) => block.push(length),
            _ => {
                let (mut rest, mut more) = (text.len() - 127, vec![127]);
                while rest >= 128 {
                    more.push(u8::try_from(rest % 128).expect("seven bits") | 128);
                    rest /= 128;
                }
                more.push(u8::try_from(rest).expect("seven bits"));
                block.extend(more);
            }
        }
        block.extend_from_slice(text.as_bytes());
    }
    block
}

fn head(method: &str, path: &str) -> Vec<u8> {
    let fields = [(":method", method), (":scheme", "http"), (":authority", "x"), (":path", path)];
    fields.iter().flat_map(|(name, value)| field(name, value)).collect()
}

impl Http2 {
    async fn open(running: &Running, settings: &[u8]) -> Self {
        let stream = TcpStream::connect(running.address()).await.expect("a connection");
        let mut this = Self { stream };
        let start =
            [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", frame(SETTINGS, 0, 0, settings).as_slice()].concat();
        assert!(this.send(&start).await);
        this
    }

    /// Whether it could be sent.
    async fn send(&mut self, bytes: &[u8]) -> bool {
        let sent = tokio::time::timeout(PATIENCE, self.stream.write_all(bytes)).await;
        sent.expect("it is read, or closed").is_ok()
    }

    async fn get(&mut self, stream: u32, path: &str) -> u16 {
        self.send(&frame(HEADERS, END_HEADERS | END_STREAM, stream, &head("GET", path))).await;
        self.status(stream).await
    }

    /// The next frame; `None` when the connection is closed. Answers the server's questions.
    async fn next(&mut self) -> Option<Frame> {
        let mut head = [0; 9];
        let read = tokio::time::timeout(PATIENCE, self.stream.read_exact(&mut head)).await;
        read.expect("a frame, or the end").ok()?;
        let [a, b, c, kind, flags, d, e, f, g] = head;
        let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
        self.stream.read_exact(&mut payload).await.ok()?;
        match kind {
            SETTINGS if flags == 0 => self.send(&frame(SETTINGS, ACK, 0, &[])).await,
            PING if flags == 0 => self.send(&frame(PING, ACK, 0, &payload)).await,
            _ => true,
        };
        Some((kind, flags, u32::from_be_bytes([d, e, f, g]), payload))
    }

    /// The status of a stream's answer; 0 when it is reset, and the connection must not end before.
    async fn status(&mut self, stream: u32) -> u16 {
        loop {
            let (kind, _, of, payload) = self.next().await.expect("an answer before the end");
            match kind {
                HEADERS if of == stream => return status(&payload),
                RST_STREAM if of == stream => return 0,
                _ => {}
            }
        }
    }

    /// Waits for the end of the connection, and says whether it was announced.
    async fn ends(&mut self) -> bool {
        let mut announced = false;
        while let Some((kind, ..)) = self.next().await {
            announced |= kind == GOAWAY;
        }
        announced
    }
}

/// RFC 7541 appendix A, or a literal that names `:status` by its index: the first of its kind on a connection.
fn status(block: &[u8]) -> u16 {
    // Updates of the table's size come first.
    let block = &block[block.iter().take_while(|byte| **byte & 0xe0 == 0x20).count()..];
    match *block {
        [indexed @ 0x88..=0x8e, ..] => [200, 204, 206, 304, 400, 404, 500][usize::from(indexed - 0x88)],
        [0x48, 0x03, a, b, c, ..] => {
            [a, b, c].iter().fold(0, |sum, digit| sum * 10 + u16::from(digit - b'0'))
        }
        // Huffman codes of three digits (RFC 7541 appendix B): five bits for 0, 1 and 2, six for the others.
        [0x48, length, ref rest @ ..] if length & 0x80 != 0 => huffman(&rest[..usize::from(length & 0x7f)]),
        _ => panic!("no status in {block:x?}"),
    }
}

fn huffman(bytes: &[u8]) -> u16 {
    let bits: Vec<u8> =
        bytes.iter().flat_map(|byte| (0..8).rev().map(move |bit| (byte >> bit) & 1)).collect();
    let value = |bits: &[u8]| bits.iter().fold(0_u16, |sum, bit| sum * 2 + u16::from(*bit));
    let (mut at, mut number) = (0, 0);
    for _ in 0..3 {
        let short = value(&bits[at..at + 5]);
        let digit = if short < 3 { short } else { value(&bits[at..at + 6]) - 0x19 + 3 };
        at += if short < 3 { 5 } else { 6 };
        number = number * 10 + digit;
    }
    number
}

#[test]
fn statuses_are_read() {
    assert_eq!(status(&[0x88]), 200);
    assert_eq!(status(&[0x3f, 0x88][1..]), 200);
    assert_eq!(status(b"\x48\x03431"), 431);
    // `302` in RFC 7541 appendix C.6.1.
    assert_eq!(status(&[0x48, 0x82, 0x64, 0x02]), 302);
}

#[tokio::test]
async fn a_head_in_crumbs_does_not_hold_a_connection() {
    let (running, _folder) = start(|_, timeouts| timeouts.header = SHORT).await;
    for reused in [false, true] {
        let mut client = Http2::open(&running, &[]).await;
        if reused {
            assert_eq!(client.get(1, "/health").await, 200);
            tokio::time::sleep(SHORT * 2).await;
            assert_eq!(client.get(3, "/health").await, 200, "being idle is something else");
        }
        let more = frame(CONTINUATION, END_HEADERS, 5, &field("x-a", &"a".repeat(5000)));
        client
            .send(&[frame(HEADERS, END_STREAM, 5, &head("GET", "/health")), more[..9].to_vec()].concat())
            .await;
        for byte in &more[9..] {
            if !client.send(&[*byte]).await {
                break;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        has_bitten(&running, "timeouts.header", 1 + u64::from(reused)).await;
    }
    // Not even a preface.
    let mut stream = TcpStream::connect(running.address()).await.expect("a connection");
    for byte in b"PRI * HTTP/2.0\r\n\r\nSM\r\n".iter().cycle().take(300) {
        if stream.write_all(&[*byte]).await.is_err() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    has_bitten(&running, "timeouts.header", 3).await;
    running.end().await;
}

#[tokio::test]
async fn a_body_that_stops_is_408_and_the_others_go_on() {
    let (running, _folder) = start(|_, timeouts| timeouts.body = SHORT).await;
    let mut client = Http2::open(&running, &[]).await;
    client.send(&frame(HEADERS, END_HEADERS, 1, &head("POST", LOGIN))).await;
    client.send(&frame(DATA, 0, 1, b"{")).await;
    assert_eq!(client.status(1).await, 408);
    has_bitten(&running, "timeouts.body", 1).await;
    assert_eq!(client.get(3, "/health").await, 200);
    running.end().await;
}

#[tokio::test]
async fn who_opens_no_window_for_an_answer_is_given_up() {
    let (running, _folder) = start(|_, timeouts| timeouts.send = SHORT).await;
    let mut client = Http2::open(&running, &INITIAL_WINDOW_SIZE).await;
    client.send(&frame(HEADERS, END_HEADERS | END_STREAM, 1, &head("GET", "/assets/large.bin"))).await;
    assert_eq!(client.status(1).await, 200);
    client.ends().await;
    has_bitten(&running, "timeouts.send", 1).await;

    // A window byte by byte is a crumb at a time.
    let mut client = Http2::open(&running, &INITIAL_WINDOW_SIZE).await;
    client.send(&frame(HEADERS, END_HEADERS | END_STREAM, 1, &head("GET", "/assets/large.bin"))).await;
    while client.send(&frame(WINDOW_UPDATE, 0, 1, &[0, 0, 0, 1])).await {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let both = async {
        while hits(&running, "timeouts.send").await + hits(&running, "limits.min_send_rate").await < 2 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, both).await.expect("it is counted");
    running.end().await;
}

#[tokio::test]
async fn an_idle_connection_is_ended_politely() {
    let (running, _folder) = start(|_, timeouts| timeouts.idle = SHORT).await;
    let mut client = Http2::open(&running, &[]).await;
    assert_eq!(client.get(1, "/health").await, 200);
    assert!(client.ends().await, "it says goodbye");
    has_bitten(&running, "timeouts.idle", 1).await;
    running.end().await;
}

#[tokio::test]
async fn a_head_of_too_many_bytes_or_fields_is_431() {
    let (running, _folder) = start(|limits, _| {
        limits.max_header_size = ByteSize(8 << 10);
        limits.max_header_count = 16;
    })
    .await;
    let mut client = Http2::open(&running, &[]).await;
    let ask = |fields: Vec<u8>| [head("GET", "/health"), fields].concat();
    let flags = END_HEADERS | END_STREAM;
    client.send(&frame(HEADERS, flags, 1, &ask(field("x-a", "a").repeat(16)))).await;
    assert_eq!(client.status(1).await, 200);
    client.send(&frame(HEADERS, flags, 3, &ask(field("x-a", "a").repeat(17)))).await;
    assert_eq!(client.status(3).await, 431);
    has_bitten(&running, "limits.max_header_count", 1).await;
    assert_eq!(client.get(5, "/health").await, 200, "the connection goes on");
    let mut client = Http2::open(&running, &[]).await;
    client.send(&frame(HEADERS, flags, 5, &ask(field("x-a", &"a".repeat(9000))))).await;
    assert_eq!(client.status(5).await, 431);
    has_bitten(&running, "limits.max_header_size", 1).await;
    running.end().await;
}

#[tokio::test]
async fn the_last_request_of_a_connection_is_followed_by_goodbye() {
    let (running, _folder) = start(|limits, timeouts| {
        limits.max_requests_per_connection = 2;
        timeouts.header = SHORT;
    })
    .await;
    let mut client = Http2::open(&running, &[]).await;
    assert_eq!((client.get(1, "/health").await, client.get(3, "/health").await), (200, 200));
    assert!(client.ends().await);
    has_bitten(&running, "limits.max_requests_per_connection", 1).await;
    running.end().await;
}

#[tokio::test]
async fn more_streams_than_agreed_on_are_refused() {
    let (running, _folder) = start(|limits, _| limits.max_concurrent_streams = 2).await;
    let mut client = Http2::open(&running, &[]).await;
    let (_, _, _, settings) = client.next().await.expect("settings");
    assert!(settings.chunks(6).any(|setting| setting == [0, 3, 0, 0, 0, 2]), "{settings:?}");
    for stream in [1, 3, 5] {
        client.send(&frame(HEADERS, END_HEADERS, stream, &head("POST", LOGIN))).await;
    }
    assert_eq!(client.status(5).await, 0);
    client.send(&frame(DATA, END_STREAM, 1, b"{}")).await;
    assert_eq!(client.status(1).await, 400);
    running.end().await;
}

#[tokio::test]
async fn streams_that_are_reset_at_once_are_a_flood() {
    let (running, _folder) = start(|limits, _| limits.h2_resets = 50).await;
    let mut client = Http2::open(&running, &[]).await;
    let mut stream = 1;
    loop {
        let open = frame(HEADERS, END_HEADERS | END_STREAM, stream, &head("GET", "/health"));
        let reset = frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes());
        if stream > 20_000 || !client.send(&[open, reset].concat()).await {
            break;
        }
        stream += 2;
    }
    assert!(stream < 20_000, "it goes on and on");
    has_bitten(&running, "limits.h2_resets", 1).await;
    running.end().await;
}

#[tokio::test]
async fn frames_without_content_are_a_flood() {
    let (running, _folder) = start(|limits, _| limits.h2_control_frames = 200).await;
    let pieces = [
        ("PING", frame(PING, 0, 0, &[0; 8])),
        ("SETTINGS", frame(SETTINGS, 0, 0, &[])),
        ("WINDOW_UPDATE", frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1])),
        ("unknown", frame(0x42, 0, 0, &[])),
    ];
    for (number, (what, piece)) in (1..).zip(pieces) {
        let mut client = Http2::open(&running, &[]).await;
        let mut sent = 0;
        while sent < 100_000 && client.send(&piece).await {
            sent += 1;
        }
        assert!(sent < 100_000, "{what} goes on and on");
        has_bitten(&running, "limits.h2_control_frames", number).await;
    }
    running.end().await;
}

#[tokio::test]
async fn a_head_in_endless_pieces_is_a_flood() {
    let (running, _folder) = start(|limits, _| limits.h2_control_frames = 200).await;
    for block in [field("x-a", "a"), Vec::new()] {
        let mut client = Http2::open(&running, &[]).await;
        client.send(&frame(HEADERS, END_STREAM, 1, &head("GET", "/health"))).await;
        let mut sent = 0;
        while sent < 100_000 && client.send(&frame(CONTINUATION, 0, 1, &block)).await {
            sent += 1;
        }
        assert!(sent < 100_000, "it goes on and on");
    }
    has_bitten(&running, "limits.h2_control_frames", 2).await;
    running.end().await;
}
