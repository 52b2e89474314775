//! HTTP/2 frame by frame (RFC 9113): what no well-behaved library would send.

use std::time::Duration;

use rustls::pki_types::CertificateDer;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, ReadHalf, WriteHalf};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::client::TlsStream;

use crate::harness::Running;
use crate::http2::connect;

/// Frame types (RFC 9113 §6).
pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const PRIORITY: u8 = 2;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const WINDOW_UPDATE: u8 = 8;
pub(crate) const CONTINUATION: u8 = 9;

/// Flags.
pub(crate) const END_STREAM: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;

/// Error codes (RFC 9113 §7).
pub(crate) const NO_ERROR: u32 = 0;
pub(crate) const REFUSED_STREAM: u32 = 7;
pub(crate) const ENHANCE_YOUR_CALM: u32 = 11;

/// Longer than anything takes on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// One frame.
pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// A header block without compression (RFC 7541 §6.2.2).
pub(crate) fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        string(&mut block, name);
        string(&mut block, value);
    }
    block
}

/// RFC 7541 §5.1 and §5.2.
fn string(block: &mut Vec<u8>, text: &str) {
    match u8::try_from(text.len()) {
        Ok(length @ ..127) => block.push(length),
        _ => {
            block.push(127);
            let mut rest = text.len() - 127;
            while rest >= 128 {
                block.push(u8::try_from(rest % 128).unwrap() | 128);
                rest /= 128;
            }
            block.push(u8::try_from(rest).unwrap());
        }
    }
    block.extend_from_slice(text.as_bytes());
}

/// The header block of a request.
pub(crate) fn request(method: &str, path: &str) -> Vec<u8> {
    block(&[(":method", method), (":scheme", "https"), (":authority", "a.example"), (":path", path)])
}

/// A whole `GET`.
pub(crate) fn get(stream: u32, path: &str) -> Vec<u8> {
    frame(HEADERS, END_STREAM | END_HEADERS, stream, &request("GET", path))
}

/// The head of a `POST`.
pub(crate) fn post(stream: u32, path: &str) -> Vec<u8> {
    frame(HEADERS, END_HEADERS, stream, &request("POST", path))
}

pub(crate) fn reset(stream: u32) -> Vec<u8> {
    // CANCEL
    frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes())
}

pub(crate) fn window_update(stream: u32, increment: u32) -> Vec<u8> {
    frame(WINDOW_UPDATE, 0, stream, &increment.to_be_bytes())
}

/// `SETTINGS` with one of them (RFC 9113 §6.5.2).
pub(crate) fn setting(id: u16, value: u32) -> Vec<u8> {
    frame(SETTINGS, 0, 0, &[&id.to_be_bytes()[..], &value.to_be_bytes()].concat())
}

/// SETTINGS_INITIAL_WINDOW_SIZE
pub(crate) const INITIAL_WINDOW_SIZE: u16 = 4;

/// A frame that came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
    pub(crate) payload: Vec<u8>,
}

impl Frame {
    /// The error code of `RST_STREAM` and `GOAWAY`.
    pub(crate) fn code(&self) -> Option<u32> {
        let at = match self.kind {
            RST_STREAM => 0,
            GOAWAY => 4,
            _ => return None,
        };
        Some(u32::from_be_bytes(self.payload.get(at..at + 4)?.try_into().unwrap()))
    }

    pub(crate) fn ends_stream(&self) -> bool {
        self.kind == RST_STREAM || matches!(self.kind, DATA | HEADERS) && self.flags & END_STREAM != 0
    }
}

/// How a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// With this error code.
    GoAway(u32),
    /// Without a word.
    Closed,
}

/// One connection.
pub(crate) struct Raw {
    reader: ReadHalf<TlsStream<TcpStream>>,
    writer: WriteHalf<TlsStream<TcpStream>>,
}

impl Raw {
    /// A connection on which nothing has been said.
    pub(crate) async fn silent(edge: &Running, certificate: &CertificateDer<'static>) -> Self {
        let (reader, writer) = tokio::io::split(connect(edge, certificate, b"h2").await);
        Self { reader, writer }
    }

    /// A connection with these frames after the preface.
    pub(crate) async fn open(edge: &Running, certificate: &CertificateDer<'static>, frames: &[u8]) -> Self {
        let mut raw = Self::silent(edge, certificate).await;
        assert!(raw.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await);
        assert!(raw.send(frames).await);
        raw
    }

    /// Whether it could be sent, to a server that reads.
    pub(crate) async fn send(&mut self, bytes: &[u8]) -> bool {
        let sent = async { self.writer.write_all(bytes).await.is_ok() && self.writer.flush().await.is_ok() };
        timeout(PATIENCE, sent).await.expect("the server does not read")
    }

    /// The next frame; `None` at the end.
    pub(crate) async fn next(&mut self) -> Option<Frame> {
        timeout(PATIENCE, read_frame(&mut self.reader)).await.expect("the server neither answers nor closes")
    }

    /// Reads until `wanted` holds for a frame.
    pub(crate) async fn wait_for(&mut self, wanted: impl Fn(&Frame) -> bool) -> Frame {
        loop {
            let frame = self.next().await.expect("closed");
            if wanted(&frame) {
                return frame;
            }
        }
    }

    /// Waits for the end of a stream: whether its answer is complete.
    pub(crate) async fn is_answered(&mut self, stream: u32) -> bool {
        self.wait_for(|frame| frame.stream == stream && frame.ends_stream()).await.kind != RST_STREAM
    }

    /// Reads to the end.
    pub(crate) async fn end(&mut self) -> End {
        let mut end = End::Closed;
        while let Some(frame) = self.next().await {
            if let (GOAWAY, Some(code)) = (frame.kind, frame.code()) {
                end = End::GoAway(code);
            }
        }
        end
    }

    /// Sends the pieces that `piece` makes, `count` of them, as long as the server takes them: how the connection ended, and
    /// how many were sent.
    pub(crate) async fn flood(self, count: u32, mut piece: impl FnMut(u32) -> Vec<u8>) -> (End, u32) {
        let Self { mut reader, mut writer } = self;
        let read = tokio::spawn(async move {
            let mut end = End::Closed;
            while let Some(frame) = read_frame(&mut reader).await {
                if let (GOAWAY, Some(code)) = (frame.kind, frame.code()) {
                    end = End::GoAway(code);
                }
            }
            end
        });
        let mut sent = 0;
        while sent < count && !read.is_finished() {
            let together: Vec<u8> = (sent..count.min(sent + 20)).flat_map(&mut piece).collect();
            let is_sent = async { writer.write_all(&together).await.is_ok() && writer.flush().await.is_ok() };
            if !timeout(PATIENCE, is_sent).await.expect("the server does not read") {
                break;
            }
            sent = count.min(sent + 20);
            tokio::task::yield_now().await;
        }
        let end = timeout(PATIENCE, read).await.expect("the server does not end the connection").unwrap();
        (end, sent)
    }
}

async fn read_frame(reader: &mut ReadHalf<TlsStream<TcpStream>>) -> Option<Frame> {
    let mut head = [0; 9];
    reader.read_exact(&mut head).await.ok()?;
    let [l1, l2, l3, kind, flags, s1, s2, s3, s4] = head;
    let mut payload = vec![0; usize::try_from(u32::from_be_bytes([0, l1, l2, l3])).unwrap()];
    reader.read_exact(&mut payload).await.ok()?;
    Some(Frame { kind, flags, stream: u32::from_be_bytes([s1, s2, s3, s4]), payload })
}
