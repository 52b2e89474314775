//! Byte streams: an accepted socket, the same with bytes to be read again, and the same under TLS.
//! No HTTP buffering and no deadlines; those belong to whoever speaks HTTP on top.

use std::io::{self, IoSlice};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

/// An accepted socket.
#[derive(Debug)]
pub enum Stream {
    /// TCP, with `TCP_NODELAY`.
    Tcp(TcpStream),
    /// A Unix stream socket.
    Unix(UnixStream),
}

/// A socket whose first bytes may have been read already: they are read again before the socket is.
/// Without such bytes, reads and writes go straight to the socket.
#[derive(Debug)]
pub struct Replay {
    stream: Stream,
    /// Bytes read from the socket, `pending[at..]` of them not handed out yet.
    pending: Vec<u8>,
    at: usize,
    ahead: ReadAhead,
    /// Bytes that the socket has taken.
    written: u64,
}

/// Whether more is read from the socket than was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ReadAhead {
    Never,
    /// The last read did not fill the buffer it was given: the next one asks for as much as wanted.
    Idle,
    /// The last read filled its buffer, so there is likely more: the next one takes [`AHEAD_BYTES`].
    Busy,
}

/// A connection ready for HTTP: plain, or under TLS.
#[derive(Debug)]
pub enum Io {
    /// Without TLS.
    Plain(Replay),
    /// Under TLS; boxed, because rustls keeps over a kilobyte of state in place.
    Tls(Box<tokio_rustls::server::TlsStream<Replay>>),
}

impl Stream {
    /// The socket's own address, IPv4-mapped addresses as IPv4; `None` for a Unix socket.
    pub fn local(&self) -> Option<std::net::SocketAddr> {
        match self {
            Self::Tcp(tcp) => tcp.local_addr().ok().map(crate::connection::folded),
            Self::Unix(_) => None,
        }
    }

    /// When it is closed, what has not reached the peer yet is thrown away, and the peer hears of it. By default the
    /// system goes on trying to deliver it, and keeps it in memory for as long.
    pub fn reset_on_close(&self) {
        if let Self::Tcp(tcp) = self {
            // Closed it will be, in one way or the other.
            let _ = socket2::SockRef::from(tcp).set_linger(Some(std::time::Duration::ZERO));
        }
    }
}

impl Replay {
    /// A socket of which nothing has been read.
    pub fn new(stream: Stream) -> Self {
        Self::with_pending(stream, Vec::new(), 0)
    }

    /// A socket from which `read` came; all but its first `consumed` bytes are read again.
    pub(crate) fn with_pending(stream: Stream, read: Vec<u8>, consumed: usize) -> Self {
        let pending = if consumed < read.len() { read } else { Vec::new() };
        let at = if pending.is_empty() { 0 } else { consumed };
        Self { stream, pending, at, ahead: ReadAhead::Never, written: 0 }
    }

    /// For a reader that asks for little at a time: rustls reads 4 KiB per call, a quarter of a full record.
    /// While data keeps coming, sockets are then read in larger pieces and copied; single short messages are not.
    pub(crate) fn reading_ahead(mut self) -> Self {
        self.ahead = ReadAhead::Idle;
        self
    }

    /// The socket underneath.
    pub fn stream(&self) -> &Stream {
        &self.stream
    }

    /// Gives out bytes read earlier; there are some.
    fn hand_out(&mut self, buffer: &mut ReadBuf<'_>) {
        let rest = self.pending.get(self.at..).unwrap_or_default();
        let taken = rest.len().min(buffer.remaining());
        buffer.put_slice(&rest[..taken]);
        self.at += taken;
        if self.at >= self.pending.len() {
            self.at = 0;
            if self.ahead == ReadAhead::Busy {
                self.pending.clear();
            } else {
                self.pending = Vec::new();
            }
        }
    }

    /// Reads from the socket; no bytes are pending.
    fn poll_socket(&mut self, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let wanted = buffer.remaining();
        if self.ahead == ReadAhead::Busy && wanted < AHEAD_BYTES {
            self.pending.reserve_exact(AHEAD_BYTES);
            let read = pin!(self.stream.read_buf(&mut self.pending)).poll(context);
            if read.is_pending() {
                // Memory is held only while data keeps coming.
                self.pending = Vec::new();
                self.ahead = ReadAhead::Idle;
            }
            ready!(read)?;
            self.hand_out(buffer);
            return Poll::Ready(Ok(()));
        }
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(context, buffer))?;
        if buffer.filled().len() - before == wanted && self.ahead == ReadAhead::Idle {
            self.ahead = ReadAhead::Busy;
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for Replay {
    #[inline]
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.pending.is_empty() {
            this.hand_out(buffer);
            return Poll::Ready(Ok(()));
        }
        match this.ahead {
            ReadAhead::Never => Pin::new(&mut this.stream).poll_read(context, buffer),
            ReadAhead::Idle | ReadAhead::Busy => this.poll_socket(context, buffer),
        }
    }
}

/// Calls the same method on whatever an enum of streams holds.
macro_rules! each {
    ($enum:ident { $($variant:ident),+ }, $self:expr, $stream:ident => $call:expr) => {
        match $self { $($enum::$variant($stream) => $call),+ }
    };
}

impl AsyncRead for Stream {
    #[inline]
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        each!(Self { Tcp, Unix }, self.get_mut(), stream => Pin::new(stream).poll_read(context, buffer))
    }
}

impl AsyncWrite for Stream {
    #[inline]
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        each!(Self { Tcp, Unix }, self.get_mut(), stream => Pin::new(stream).poll_write(context, bytes))
    }

    #[inline]
    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        each!(Self { Tcp, Unix }, self.get_mut(), stream => Pin::new(stream).poll_write_vectored(context, pieces))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(Self { Tcp, Unix }, self.get_mut(), stream => Pin::new(stream).poll_flush(context))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(Self { Tcp, Unix }, self.get_mut(), stream => Pin::new(stream).poll_shutdown(context))
    }
}

impl AsyncWrite for Replay {
    #[inline]
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = ready!(Pin::new(&mut this.stream).poll_write(context, bytes))?;
        this.written += written as u64;
        Poll::Ready(Ok(written))
    }

    #[inline]
    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = ready!(Pin::new(&mut this.stream).poll_write_vectored(context, pieces))?;
        this.written += written as u64;
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(context)
    }
}

impl AsyncRead for Io {
    #[inline]
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        each!(Self { Plain, Tls }, self.get_mut(), stream => Pin::new(stream).poll_read(context, buffer))
    }
}

impl AsyncWrite for Io {
    #[inline]
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        each!(Self { Plain, Tls }, self.get_mut(), stream => Pin::new(stream).poll_write(context, bytes))
    }

    #[inline]
    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        each!(Self { Plain, Tls }, self.get_mut(), stream => Pin::new(stream).poll_write_vectored(context, pieces))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(Self { Plain, Tls }, self.get_mut(), stream => Pin::new(stream).poll_flush(context))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(Self { Plain, Tls }, self.get_mut(), stream => Pin::new(stream).poll_shutdown(context))
    }
}

impl Io {
    /// The socket underneath.
    pub fn stream(&self) -> &Stream {
        match self {
            Self::Plain(plain) => plain.stream(),
            Self::Tls(tls) => tls.get_ref().0.stream(),
        }
    }
}

impl Io {
    /// Bytes that the socket has taken so far; under TLS those of its records.
    pub fn written(&self) -> u64 {
        match self {
            Self::Plain(plain) => plain.written,
            Self::Tls(tls) => tls.get_ref().0.written,
        }
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        each!(Self { Tcp, Unix }, self, stream => stream.as_fd())
    }
}

impl AsFd for Io {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream().as_fd()
    }
}

impl AsRawFd for Stream {
    fn as_raw_fd(&self) -> RawFd {
        self.as_fd().as_raw_fd()
    }
}

impl AsRawFd for Io {
    fn as_raw_fd(&self) -> RawFd {
        self.as_fd().as_raw_fd()
    }
}

/// Two full TLS records (RFC 8446 §5.2) with their headers.
const AHEAD_BYTES: usize = 2 * (16 * 1024 + 256 + 5);

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt as _;

    use super::*;
    use crate::fixtures::tcp_pair;

    #[tokio::test]
    async fn bytes_after_the_header_come_first() {
        let (mut client, stream) = tcp_pair().await;
        client.write_all(b" world").await.unwrap();
        client.shutdown().await.unwrap();
        let mut replay = Replay::with_pending(stream, b"header hello".to_vec(), 7);
        let mut read = vec![0; 3];
        replay.read_exact(&mut read).await.unwrap();
        assert_eq!(read, b"hel");
        replay.read_to_end(&mut read).await.unwrap();
        assert_eq!(read, b"hello world");
        assert_eq!(replay.pending.capacity(), 0, "memory is given back");
    }

    #[tokio::test]
    async fn reading_ahead_holds_memory_only_while_data_keeps_coming() {
        let (mut client, stream) = tcp_pair().await;
        let mut replay = Replay::new(stream).reading_ahead();
        let mut small = [0; 4096];
        client.write_all(b"short").await.unwrap();
        assert_eq!(replay.read(&mut small).await.unwrap(), 5);
        assert_eq!((replay.ahead, replay.pending.capacity()), (ReadAhead::Idle, 0));

        let data: Vec<u8> = (0..200_000u32).map(|number| number.to_le_bytes()[0]).collect();
        client.write_all(&data).await.unwrap();
        let mut received = Vec::new();
        let mut most_ahead = 0;
        while received.len() < data.len() {
            let count = replay.read(&mut small).await.unwrap();
            received.extend_from_slice(&small[..count]);
            most_ahead = most_ahead.max(replay.pending.len());
        }
        assert!(received == data);
        assert_eq!(most_ahead, AHEAD_BYTES);
        let none = std::future::poll_fn(|context| {
            Poll::Ready(Pin::new(&mut replay).poll_read(context, &mut ReadBuf::new(&mut small)).is_pending())
        });
        assert!(none.await);
        assert_eq!((replay.ahead, replay.pending.capacity()), (ReadAhead::Idle, 0));
        drop(client);
        assert_eq!(replay.read(&mut small).await.unwrap(), 0);
    }
}
