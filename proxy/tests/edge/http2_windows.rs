//! How much of its uploads a client may have under way over HTTP/2.

use tokio::io::AsyncReadExt as _;

use crate::frames::{
    DATA, END_STREAM, INITIAL_WINDOW_SIZE, PING, RST_STREAM, Raw, SETTINGS, WINDOW_UPDATE, frame, post,
};
use crate::harness::{Running, Scripted, counted};
use crate::http2::with_tls;

/// An upstream that takes whatever comes.
async fn hungry() -> Scripted {
    Scripted::start(|mut exchange, _| async move {
        exchange.head().await;
        let mut piece = vec![0; 1 << 16];
        let (mut last, end) = (Vec::new(), b"0\r\n\r\n");
        while let Ok(count @ 1..) = exchange.stream.read(&mut piece).await {
            last.extend_from_slice(&piece[..count]);
            if last.ends_with(end) {
                exchange.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
            }
            last.drain(..last.len().saturating_sub(end.len()));
        }
    })
    .await
}

/// The number that a `WINDOW_UPDATE` carries.
fn number(payload: &[u8]) -> u32 {
    u32::from_be_bytes(payload[payload.len() - 4..].try_into().unwrap())
}

/// `SETTINGS_INITIAL_WINDOW_SIZE`, if it is among these settings.
fn window_of(payload: &[u8]) -> Option<u32> {
    let id = INITIAL_WINDOW_SIZE.to_be_bytes();
    payload.chunks(6).find(|setting| setting[..2] == id).map(number)
}

/// A client in the middle of an upload: what it may send, and what it was told.
struct Uploading {
    raw: Raw,
    /// Of the stream, and of the connection.
    windows: [i64; 2],
    ping: Option<Vec<u8>>,
    settings: Vec<u32>,
}

impl Uploading {
    async fn start(edge: &Running, certificate: &rustls::pki_types::CertificateDer<'static>) -> Self {
        let raw = Raw::open(edge, certificate, &[frame(SETTINGS, 0, 0, &[]), post(1, "/")].concat()).await;
        // RFC 9113 §6.9.2
        Self { raw, windows: [65_535; 2], ping: None, settings: Vec::new() }
    }

    /// Takes the next frame.
    async fn hear(&mut self) {
        let heard = self.raw.next().await.expect("closed");
        match heard.kind {
            SETTINGS if heard.flags == 0 => {
                if let Some(window) = window_of(&heard.payload) {
                    let before = self.settings.last().copied().unwrap_or(65_535);
                    self.windows[0] += i64::from(window) - i64::from(before);
                    self.settings.push(window);
                }
                self.raw.send(&frame(SETTINGS, 1, 0, &[])).await;
            }
            WINDOW_UPDATE => {
                self.windows[usize::from(heard.stream == 0)] += i64::from(number(&heard.payload));
            }
            PING if heard.flags == 0 => self.ping = Some(heard.payload),
            RST_STREAM => panic!("the stream is reset: {:?}", heard.code()),
            _ => {}
        }
    }

    /// Sends so many bytes as soon as it may.
    async fn send(&mut self, mut bytes: i64) {
        while bytes > 0 {
            let piece = bytes.min(16_384);
            while self.windows.iter().any(|window| *window < piece) {
                self.hear().await;
            }
            self.raw.send(&frame(DATA, 0, 1, &vec![b'x'; usize::try_from(piece).unwrap()])).await;
            self.windows.iter_mut().for_each(|window| *window -= piece);
            bytes -= piece;
        }
    }

    /// Uploads, and fills its window in each round trip, until the window is this.
    async fn fill_until(&mut self, window: u32) {
        while self.settings.last() != Some(&window) {
            // Something has to come before anybody wants to know how fast.
            self.send(16_384).await;
            while self.windows[0] < 150_000 && self.ping.is_none() {
                // The upstream takes it, so it comes back.
                self.hear().await;
            }
            if let Some(ping) = self.ping.take() {
                self.send(self.settings.last().map_or(0, |size| i64::from(*size))).await;
                self.raw.send(&frame(PING, 1, 0, &ping)).await;
            }
        }
    }
}

#[tokio::test]
async fn windows_begin_small() {
    let (config, certificate) = with_tls(hungry().await.edge());
    let edge = Running::start(config).await;
    let mut client = Uploading::start(&edge, &certificate).await;
    while client.windows[1] == 65_535 || client.settings.is_empty() {
        client.hear().await;
    }
    assert_eq!(client.windows, [256 << 10, 512 << 10]);
}

#[tokio::test]
async fn windows_that_are_waited_for_grow_up_to_the_limit() {
    let (mut config, certificate) = with_tls(hungry().await.edge());
    config.limits.h2_upload_window = conf::ByteSize(1 << 20);
    config.limits.max_body_size = conf::ByteSize(1 << 30);
    let edge = Running::start(config).await;
    let mut client = Uploading::start(&edge, &certificate).await;
    for window in [512 << 10, 1 << 20] {
        client.fill_until(window).await;
    }
    // There it ends.
    client.send(8 << 20).await;
    client.raw.send(&frame(DATA, END_STREAM, 1, &[])).await;
    assert!(client.raw.is_answered(1).await);
    assert_eq!(client.settings, [256 << 10, 512 << 10, 1 << 20]);
}

/// What an upstream does not take stays within the window that there is, and the client waits.
#[tokio::test]
async fn what_nobody_takes_is_bounded_by_the_window() {
    let upstream = Scripted::start(|mut exchange, _| async move {
        exchange.head().await;
        tokio::time::sleep(crate::frames::PATIENCE).await;
    })
    .await;
    let (mut config, certificate) = with_tls(counted(upstream.edge()));
    config.limits.max_body_size = conf::ByteSize(1 << 30);
    config.timeouts.body = std::time::Duration::from_secs(3);
    let edge = Running::start(config).await;
    let mut client = Uploading::start(&edge, &certificate).await;
    let (mut sent, mut is_over) = (0_i64, false);
    while !is_over {
        let piece = client.windows[0].min(client.windows[1]).min(16_384);
        if piece > 0 {
            client.raw.send(&frame(DATA, 0, 1, &vec![b'x'; usize::try_from(piece).unwrap()])).await;
            client.windows.iter_mut().for_each(|window| *window -= piece);
            sent += piece;
            continue;
        }
        let heard = client.raw.next().await.expect("closed");
        match heard.kind {
            SETTINGS if heard.flags == 0 => {
                client.windows[0] += i64::from(window_of(&heard.payload).unwrap_or(65_535)) - 65_535;
                client.raw.send(&frame(SETTINGS, 1, 0, &[])).await;
            }
            WINDOW_UPDATE => {
                client.windows[usize::from(heard.stream == 0)] += i64::from(number(&heard.payload))
            }
            _ => is_over = heard.ends_stream(),
        }
    }
    // The window, a few pieces in the engine, and what the systems hold between us and the upstream.
    assert!(sent < 12 << 20, "{sent}");
}
