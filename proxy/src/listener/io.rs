//! The stream under Pingora's HTTP engine: reads under the deadline of the connection's phase, writes collected until
//! flushed. An HTTP/1 head that is too large is refused here, because Pingora would go on collecting it.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::os::fd::AsRawFd;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};

use accept::Io;
use async_trait::async_trait;
use http::StatusCode;
use pingora::protocols::raw_connect::ProxyDigest;
use pingora::protocols::{
    ALPN, GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl, TimingDigest,
    UniqueID, UniqueIDType,
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use super::deadline::Deadline;
use super::{ClientConnection, IoLimits, Phase};
use crate::error::refusal;

/// A client's connection as Pingora sees it.
#[derive(Debug)]
pub(crate) struct EdgeIo {
    /// `None` only while being dropped.
    io: Option<Io>,
    connection: Arc<ClientConnection>,
    digest: Option<Arc<ProxyDigest>>,
    limits: IoLimits,
    out: Out,
    /// Of the phase.
    reading: Deadline,
    /// Of a write that waits for the client.
    writing: Deadline,
    /// Of the head that is being read.
    head: Head,
    /// Nothing can be sent any more, or has to.
    is_over: bool,
}

/// What is left of a connection when Pingora is done with it.
#[derive(Debug)]
pub(super) struct Remains {
    pub(super) io: Io,
    pub(super) unsent: Vec<u8>,
}

/// Bytes to be written, `bytes[sent..]` still to go.
#[derive(Debug, Default)]
struct Out {
    bytes: Vec<u8>,
    sent: usize,
}

#[derive(Debug, Clone, Copy, Default)]
struct Head {
    is_awaited: bool,
    bytes: usize,
    has_line: bool,
    /// How it begins: method and start of the target, for the form of a refusal.
    start: [u8; START_BYTES],
}

impl EdgeIo {
    /// A connection before its first request.
    pub(crate) fn new(io: Io, connection: Arc<ClientConnection>, limits: IoLimits) -> Self {
        Self {
            digest: connection.digest(),
            io: Some(io),
            connection,
            limits,
            out: Out::default(),
            reading: Deadline::default(),
            writing: Deadline::default(),
            head: Head::default(),
            is_over: false,
        }
    }

    /// Reads while no request is served: under a deadline, and not without end.
    fn poll_head(&mut self, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        // The last head became a request that was answered without another read, as one for a file is.
        let is_next = self.head.bytes > 0 && self.connection.phase() == Phase::Idle;
        if !self.head.is_awaited || is_next {
            self.head = Head { is_awaited: true, ..Head::default() };
            self.reading.set(Instant::now() + self.limits.idle);
            self.out.give_back();
        }
        if self.head.bytes >= self.limits.max_head_size && !self.connection.is_h2 {
            return Poll::Ready(self.refuse(if self.head.has_line { 431 } else { 414 }));
        }
        let before = buffer.filled().len();
        let Some(io) = &mut self.io else { return Poll::Ready(Ok(())) };
        let Poll::Ready(read) = Pin::new(io).poll_read(context, buffer) else {
            ready!(self.reading.poll(context));
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        };
        let fresh = buffer.filled().get(before..).unwrap_or_default();
        self.is_over |= read.is_err() || fresh.is_empty();
        if !self.connection.is_h2 && !fresh.is_empty() {
            if self.head.bytes == 0 {
                self.connection.set_phase(Phase::Head);
                self.reading.set(Instant::now() + self.limits.header);
                self.head.start = start_of(fresh);
            }
            self.head.bytes += fresh.len();
            self.head.has_line |= fresh.contains(&b'\n');
        }
        Poll::Ready(read)
    }

    /// Reads a request's body, or waits for the client to leave.
    fn poll_busy(&mut self, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.head.is_awaited = false;
        self.reading.clear();
        // A part of an answer that is followed by nothing for a while does not wait for the rest.
        if !self.out.is_empty()
            && let Poll::Ready(Err(error)) = self.poll_out(context)
        {
            return Poll::Ready(Err(error));
        }
        let before = buffer.filled().len();
        let Some(io) = &mut self.io else { return Poll::Ready(Ok(())) };
        let read = ready!(Pin::new(io).poll_read(context, buffer));
        self.is_over |= read.is_err() || buffer.filled().len() == before;
        Poll::Ready(read)
    }

    /// Answers for Pingora, which has no request yet, and ends the connection.
    fn refuse(&mut self, status: u16) -> io::Result<()> {
        if self.connection.refusal.swap(status, Ordering::Relaxed) == 0 {
            let status = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_REQUEST);
            self.out.bytes.extend_from_slice(refusal(status, &self.head.start).as_bytes());
            self.connection.linger();
        }
        Err(io::Error::new(io::ErrorKind::InvalidData, "head refused"))
    }

    /// Writes out what was collected.
    fn poll_out(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.out.is_empty() {
            ready!(self.poll_write_with(context, &[]))?;
        }
        Poll::Ready(Ok(()))
    }

    /// Writes what was collected and `bytes` behind it, once: how many of `bytes` were taken.
    fn poll_write_with(&mut self, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let Some(io) = &mut self.io else { return Poll::Ready(Err(io::ErrorKind::NotConnected.into())) };
        let collected = self.out.rest();
        let written = if collected.is_empty() {
            Pin::new(io).poll_write(context, bytes)
        } else if bytes.is_empty() {
            Pin::new(io).poll_write(context, collected)
        } else {
            Pin::new(io).poll_write_vectored(context, &[IoSlice::new(collected), IoSlice::new(bytes)])
        };
        match written {
            Poll::Ready(Ok(0)) => Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
            Poll::Ready(Ok(count)) => {
                self.writing.clear();
                Poll::Ready(Ok(self.out.advance(count)))
            }
            Poll::Ready(Err(error)) => {
                self.is_over = true;
                Poll::Ready(Err(error))
            }
            Poll::Pending => self.poll_write_deadline(context).map(Err),
        }
    }

    fn poll_write_deadline(&mut self, context: &mut Context<'_>) -> Poll<io::Error> {
        if !self.writing.is_set() {
            self.writing.set(Instant::now() + self.limits.send);
        }
        ready!(self.writing.poll(context));
        self.is_over = true;
        Poll::Ready(io::ErrorKind::TimedOut.into())
    }
}

impl Out {
    fn rest(&self) -> &[u8] {
        self.bytes.get(self.sent..).unwrap_or_default()
    }

    fn is_empty(&self) -> bool {
        self.sent >= self.bytes.len()
    }

    fn collect(&mut self, bytes: &[u8]) {
        if self.bytes.capacity() == 0 {
            self.bytes.reserve(KEPT_BYTES.max(bytes.len()));
        }
        self.bytes.extend_from_slice(bytes);
    }

    /// Counts written bytes; how many went beyond what was collected.
    fn advance(&mut self, count: usize) -> usize {
        let collected = self.bytes.len() - self.sent;
        if count < collected {
            self.sent += count;
            return 0;
        }
        self.bytes.clear();
        self.sent = 0;
        count - collected
    }

    /// Keeps little memory while nothing is to be written.
    fn give_back(&mut self) {
        if self.is_empty() && self.bytes.capacity() > KEPT_BYTES {
            self.bytes = Vec::new();
            self.sent = 0;
        }
    }
}

impl AsyncRead for EdgeIo {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        match this.connection.phase() {
            Phase::Busy => this.poll_busy(context, buffer),
            Phase::Idle | Phase::Head => this.poll_head(context, buffer),
        }
    }
}

impl AsyncWrite for EdgeIo {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.connection.phase() == Phase::Head {
            // Pingora refuses a head that it cannot parse; the words are ours.
            let _ = this.refuse(status_of(bytes).unwrap_or(400));
            return Poll::Ready(Ok(bytes.len()));
        }
        if this.out.bytes.len() + bytes.len() <= COLLECTED_BYTES {
            this.out.collect(bytes);
            return Poll::Ready(Ok(bytes.len()));
        }
        loop {
            let taken = ready!(this.poll_write_with(context, bytes))?;
            if taken > 0 {
                return Poll::Ready(Ok(taken));
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_out(context))?;
        let Some(io) = &mut this.io else { return Poll::Ready(Ok(())) };
        match Pin::new(io).poll_flush(context) {
            Poll::Pending => this.poll_write_deadline(context).map(Err),
            Poll::Ready(flushed) => {
                this.writing.clear();
                Poll::Ready(flushed)
            }
        }
    }

    /// Closing is done by `close`, when Pingora has let go of the stream.
    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_flush(context)
    }
}

impl Drop for EdgeIo {
    fn drop(&mut self) {
        if let Some(io) = self.io.take()
            && (!self.is_over || self.connection.refusal().is_some())
        {
            self.connection.leave(Remains { io, unsent: self.out.rest().to_vec() });
        }
    }
}

#[async_trait]
impl Shutdown for EdgeIo {
    async fn shutdown(&mut self) {
        // What cannot be flushed now is flushed by `close`.
        let _ = poll_fn(|context| Pin::new(&mut *self).poll_flush(context)).await;
    }
}

impl UniqueID for EdgeIo {
    fn id(&self) -> UniqueIDType {
        self.io.as_ref().map_or(-1, AsRawFd::as_raw_fd)
    }
}

impl Ssl for EdgeIo {
    fn selected_alpn_proto(&self) -> Option<ALPN> {
        self.connection.is_h2.then_some(ALPN::H2)
    }
}

impl GetTimingDigest for EdgeIo {
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        Vec::new()
    }
}

impl GetProxyDigest for EdgeIo {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        self.digest.clone()
    }
}

impl GetSocketDigest for EdgeIo {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        None
    }
}

#[async_trait]
impl Peek for EdgeIo {}

/// The status in `HTTP/1.1 400 …`.
fn status_of(line: &[u8]) -> Option<u16> {
    str::from_utf8(line.get(9..12)?).ok()?.parse().ok()
}

fn start_of(bytes: &[u8]) -> [u8; START_BYTES] {
    let mut start = [0; START_BYTES];
    for (kept, byte) in start.iter_mut().zip(bytes) {
        *kept = *byte;
    }
    start
}

/// Enough for a long method and `/.well-known/matrix/`.
const START_BYTES: usize = 32;
/// One TLS record: head and small body leave together, larger pieces are not copied.
const COLLECTED_BYTES: usize = 16 * 1024;
/// An idle connection keeps this much at most.
const KEPT_BYTES: usize = 1024;
