//! The stream under Pingora's HTTP engine: reads under the deadline of what is awaited, writes collected until flushed.
//! Over HTTP/1 the engine gets one request at a time, and none that the gate refuses (`intake`); the end of what a client
//! sends is not the end of its connection.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::AsRawFd;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use accept::Io;
use accept::http2::{Flood, Watch};
use async_trait::async_trait;
use pingora::protocols::raw_connect::ProxyDigest;
use pingora::protocols::{
    ALPN, GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl, TimingDigest,
    UniqueID, UniqueIDType,
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use super::deadline::Deadline;
use super::intake::Intake;
use super::out::Out;
use super::refusal::Refusal;
use super::silence::{Silence, Speaker};
use super::streams::limit_said;
use super::{ClientConnection, IoLimits, Phase, Switch};
use crate::error::Fault;
use crate::gate::head;
use crate::limits::{PaceMeter, Slow};
use crate::metrics::Limit;

/// A client's connection as Pingora sees it.
#[derive(Debug)]
pub(crate) struct EdgeIo {
    /// `None` only while being dropped.
    io: Option<Io>,
    connection: Arc<ClientConnection>,
    digest: Option<Arc<ProxyDigest>>,
    limits: IoLimits,
    out: Out,
    /// What comes in, over HTTP/1.
    intake: Intake,
    /// What comes and goes, over HTTP/2.
    watch: Option<Box<Watch>>,
    /// Of what is awaited.
    reading: Deadline,
    /// How fast the body of the current request comes, over HTTP/1.
    upload: PaceMeter,
    /// Of a write that waits for the client.
    writing: Deadline,
    /// How fast the client takes what it is sent.
    download: PaceMeter,
    /// Bytes that had been written in all when `download` last heard of it.
    written: u64,
    /// Of a tunnel.
    silence: Silence,
    /// Of what is in flight, once it has to end.
    drain: Deadline,
    end: End,
    /// Method and the beginning of the target of the request in the engine's hands, should the engine refuse it.
    start: Start,
}

/// How far the end of a connection has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Open,
    /// The client sends no more, and waits for no answer.
    Closed,
    /// The client sends no more, and may wait for an answer (RFC 9112 §9.6).
    HalfClosed,
    /// Nothing can be sent or received any more.
    Broken,
}

/// What is left of a connection when Pingora is done with it.
#[derive(Debug)]
pub(super) struct Remains {
    pub(super) io: Io,
    pub(super) unsent: Vec<u8>,
}

/// What an answer of our own has to know of a request: where its target begins, and whether it is a `HEAD`.
#[derive(Debug, Clone, Copy, Default)]
struct Start {
    target: [u8; START_BYTES],
    is_head: bool,
}

impl EdgeIo {
    /// A connection before its first request.
    pub(crate) fn new(io: Io, connection: Arc<ClientConnection>, limits: IoLimits) -> Self {
        let now = Instant::now();
        let mut reading = Deadline::default();
        // Over HTTP/2 the client begins at once (RFC 9113 §3.4).
        reading.set(now + if connection.is_h2 { limits.header } else { limits.idle });
        Self {
            watch: connection.is_h2.then(|| Box::new(Watch::new(limits.floods, now.into_std()))),
            digest: connection.digest(),
            io: Some(io),
            connection,
            limits,
            out: Out::default(),
            intake: Intake::new(limits.intake),
            reading,
            upload: PaceMeter::new(limits.body),
            writing: Deadline::default(),
            download: PaceMeter::new(limits.send),
            written: 0,
            silence: Silence::new(limits.tunnel),
            drain: Deadline::default(),
            end: End::Open,
            start: Start::default(),
        }
    }

    /// HTTP/2: every byte, as it comes, until there are too many that carry nothing. A header block has a deadline, the
    /// connection's preface too; streams have theirs elsewhere, and the connection without any.
    fn poll_http2(&mut self, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.poll_collected(context)?;
        if self.connection.breach().is_some() {
            return Poll::Pending;
        }
        let before = buffer.filled().len();
        let Poll::Ready(read) = self.poll_io(context, buffer) else {
            ready!(self.reading.poll(context));
            self.connection.breaches(Limit::Header);
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        };
        let received = buffer.filled().get(before..).unwrap_or_default();
        if read.is_ok() && received.is_empty() {
            self.end = End::Closed;
        }
        let now = Instant::now();
        let Some(watch) = &mut self.watch else { return Poll::Ready(read) };
        let seen = watch.received(received, now.into_std());
        self.connection.uploads(watch.body_bytes());
        if !watch.awaits_head() {
            self.reading.clear();
        } else if !self.reading.is_set() {
            self.reading.set(now + self.limits.header);
        }
        if let Err(flood) = seen {
            // Nothing of it goes to the library; whoever drives that is told.
            buffer.set_filled(before);
            self.connection.breaches(limit_of(flood));
            return Poll::Pending;
        }
        Poll::Ready(read)
    }

    /// What goes to the client over HTTP/2.
    fn count_sent(&mut self, bytes: &[u8]) {
        let Some(watch) = &mut self.watch else { return };
        let seen = watch.sent(bytes, Instant::now().into_std());
        self.connection.taken.store(watch.pieces_sent(), Ordering::Relaxed);
        for _ in 0..watch.take_refused() {
            self.connection.limit_hit(Limit::MaxConcurrentStreams);
        }
        let is_goodbye = watch.take_goodbye();
        let limit = seen.err().map(limit_of).or_else(|| if is_goodbye { limit_said(bytes) } else { None });
        if let Some(limit) = limit {
            self.connection.breaches(limit);
        }
    }

    /// HTTP/1: what belongs to the request that is being read; the end of a tunnel in which nobody speaks, and of everything
    /// when a drain is over.
    fn poll_http1(&mut self, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let read = self.poll_request(context, buffer);
        if read.is_ready() {
            self.silence.ends(Speaker::Client);
            return read;
        }
        let fault = match self.silence.poll(context, self.connection.switch()) {
            Poll::Ready(fault) => fault,
            Poll::Pending => ready!(self.poll_drain(context)),
        };
        self.connection.end_with(fault);
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }

    /// Ready when what is in flight has had its time after the word to stop. Whoever sees to that word polls us then.
    fn poll_drain(&mut self, context: &mut Context<'_>) -> Poll<Fault> {
        let (Phase::Busy, Some(ending)) = (self.connection.phase(), self.connection.place.ending()) else {
            return Poll::Pending;
        };
        let (end, fault) = match self.connection.switch() {
            Switch::Done => (ending.tunnels, Fault::TunnelDrained),
            Switch::None | Switch::Asked => (ending.requests, Fault::Drained),
        };
        self.drain.set(end);
        ready!(self.drain.poll(context));
        Poll::Ready(fault)
    }

    fn poll_request(&mut self, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.connection.phase() == Phase::Idle && self.intake.is_at_rest() {
            self.intake.begin();
            self.renew_limits();
            let patience = if self.intake.held().is_empty() { self.limits.idle } else { self.limits.header };
            self.reading.set(Instant::now() + patience);
            self.out.give_back();
            let given = self.intake.give(buffer);
            if self.handed_out(given, buffer, 0)? {
                return Poll::Ready(Ok(()));
            }
        }
        if self.intake.is_at_head() {
            return self.poll_head(context, buffer);
        }
        if self.connection.switch() == Switch::Done {
            self.intake.become_tunnel();
        }
        // A part of an answer that is followed by nothing for a while does not wait for the rest.
        self.poll_collected(context)?;
        if self.intake.is_at_rest() {
            return self.poll_rest(context);
        }
        self.poll_body(context, buffer)
    }

    /// Deadlines and sizes as they are now, for the request that comes next: the last one may have been long ago.
    fn renew_limits(&mut self) {
        self.limits = self.connection.place.io_limits();
        self.intake.renew_limits(self.limits.intake);
        self.upload = PaceMeter::new(self.limits.body);
        self.download.renew(self.limits.send);
    }

    /// Waits for a whole head: under a deadline, and not without end.
    fn poll_head(&mut self, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        while self.end == End::Open {
            let before = buffer.filled().len();
            let Poll::Ready(read) = self.poll_io(context, buffer) else {
                let is_begun = !self.intake.held().is_empty();
                let ends = self.connection.place.ending().filter(|_| !is_begun);
                if let Some(ending) = ends {
                    let is_first = self.connection.requests.load(Ordering::Relaxed) == 0;
                    self.reading.no_later_than(if is_first { ending.first } else { ending.idle });
                }
                ready!(self.reading.poll(context));
                if ends.is_some() {
                    self.end = End::Closed;
                    break;
                }
                if is_begun {
                    self.refuse(Refusal::new(Fault::HeadTimeout, self.intake.held()));
                } else {
                    self.connection.limit_hit(Limit::Idle);
                }
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            };
            read?;
            if buffer.filled().len() == before {
                self.end = End::Closed;
                break;
            }
            if self.intake.held().is_empty() {
                self.renew_limits();
                self.reading.set(Instant::now() + self.limits.header);
            }
            let taken = self.intake.take(buffer, before);
            if self.handed_out(taken, buffer, before)? {
                return Poll::Ready(Ok(()));
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Whether the head of a request went to the engine.
    fn handed_out(
        &mut self,
        given: Result<bool, Fault>,
        buffer: &ReadBuf<'_>,
        before: usize,
    ) -> io::Result<bool> {
        match given {
            Ok(false) => Ok(false),
            Ok(true) => {
                self.reading.clear();
                self.start = Start::of(buffer.filled().get(before..).unwrap_or_default());
                self.connection.set_phase(Phase::Head);
                Ok(true)
            }
            Err(fault) => {
                self.refuse(Refusal::new(fault, self.intake.held()));
                Err(io::Error::new(io::ErrorKind::InvalidData, "request refused"))
            }
        }
    }

    /// Reads a request's body, the rest of a large head, or a tunnel.
    fn poll_body(&mut self, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.intake.is_in_body() && self.connection.is_answered() {
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::ConnectionAborted, "answered already")));
        }
        let before = buffer.filled().len();
        let given = match self.intake.give(buffer) {
            Ok(false) if self.end == End::Open => {
                let Poll::Ready(read) = self.poll_io(context, buffer) else {
                    return self.poll_patience(context).map(Err);
                };
                read?;
                let count = buffer.filled().len() - before;
                if self.upload.is_waiting() {
                    self.upload.pause(Instant::now());
                    self.reading.clear();
                }
                self.upload.earn(count as u64);
                if count == 0 {
                    self.end = End::Closed;
                }
                self.intake.take(buffer, before)
            }
            given => given,
        };
        given.map(drop).map_err(|fault| {
            self.connection.end_with(fault);
            io::Error::new(io::ErrorKind::InvalidData, "malformed body")
        })?;
        Poll::Ready(Ok(()))
    }

    /// A piece of a request's body is waited for. Tunnels have their deadline elsewhere.
    fn poll_patience(&mut self, context: &mut Context<'_>) -> Poll<io::Error> {
        if !self.intake.is_in_body() {
            return Poll::Pending;
        }
        self.reading.set(self.upload.wait(Instant::now()));
        ready!(self.reading.poll(context));
        self.connection.end_with(match self.upload.verdict(Instant::now()) {
            Some(Slow::Trickling) => Fault::BodySlow,
            Some(Slow::Silent) | None => Fault::BodyTimeout,
        });
        Poll::Ready(io::ErrorKind::TimedOut.into())
    }

    /// Waits for the client to leave while its request is served. What it sends meanwhile is the next request's. When it
    /// only says that it sends no more, it may be waiting for the answer, or it may be gone, and nobody can know: it is
    /// believed for a while.
    fn poll_rest(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.connection.phase() == Phase::Head {
            return Poll::Ready(Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "the engine reads past a head",
            )));
        }
        while self.end == End::Open && self.intake.held().len() < AHEAD_BYTES {
            let mut space = [const { MaybeUninit::uninit() }; PIECE_BYTES];
            let mut ahead = ReadBuf::uninit(&mut space);
            ready!(self.poll_io(context, &mut ahead))?;
            if ahead.filled().is_empty() {
                self.end = End::HalfClosed;
                self.reading.set(Instant::now() + HALF_CLOSED);
            }
            self.intake.hold(ahead.filled());
        }
        if self.end == End::HalfClosed {
            ready!(self.reading.poll(context));
            self.end = End::Closed;
        }
        if self.end == End::Open { Poll::Pending } else { Poll::Ready(Ok(())) }
    }

    fn poll_io(&mut self, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Some(io) = &mut self.io else { return Poll::Ready(Ok(())) };
        let read = ready!(Pin::new(io).poll_read(context, buffer));
        if read.is_err() {
            self.end = End::Broken;
        }
        Poll::Ready(read)
    }

    /// Answers for the engine, which has no request yet, and ends the connection.
    fn refuse(&mut self, refusal: Refusal) {
        if self.connection.refusal().is_none() {
            self.out.collect(&refusal.answer());
            if refusal.fault != Fault::HeadTimeout {
                // One that was too slow sends nothing that would be in the way of the answer.
                self.connection.linger();
            }
            // Nobody else has set it: there is one stream for a connection.
            let _ = self.connection.refusal.set(refusal);
        }
    }

    /// Begins to write out what was collected, without waiting.
    fn poll_collected(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        if !self.out.is_empty()
            && let Poll::Ready(Err(error)) = self.poll_out(context)
        {
            return Err(error);
        }
        Ok(())
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
                self.stop_waiting();
                self.silence.ends(Speaker::Upstream);
                if self.end == End::HalfClosed {
                    // It takes what it is sent, so it is there.
                    self.reading.set(Instant::now() + HALF_CLOSED);
                }
                Poll::Ready(Ok(self.out.advance(count)))
            }
            Poll::Ready(Err(error)) => {
                self.end = End::Broken;
                Poll::Ready(Err(error))
            }
            Poll::Pending => self.poll_write_deadline(context).map(Err),
        }
    }

    /// The client has to take something before more can be written: under a deadline that what it has taken moves.
    fn poll_write_deadline(&mut self, context: &mut Context<'_>) -> Poll<io::Error> {
        let now = Instant::now();
        // Meanwhile nobody reads.
        self.upload.pause(now);
        if self.count_taken(now) {
            self.writing.clear();
        }
        if let Poll::Ready(fault) = self.poll_drain(context) {
            self.connection.end_with(fault);
            self.end = End::Broken;
            return Poll::Ready(io::ErrorKind::TimedOut.into());
        }
        self.writing.set(self.download.wait(now));
        ready!(self.writing.poll(context));
        self.connection.limit_hit(match self.download.verdict(Instant::now()) {
            Some(Slow::Trickling) => Limit::MinSendRate,
            Some(Slow::Silent) | None => Limit::Send,
        });
        self.connection.end_with(Fault::ClientNotTaking);
        self.end = End::Broken;
        if let Some(io) = &self.io {
            // What is still in the system's buffers would wait there for this client.
            io.stream().reset_on_close();
        }
        Poll::Ready(io::ErrorKind::TimedOut.into())
    }

    /// Something could be written.
    fn stop_waiting(&mut self) {
        if self.download.is_waiting() {
            let now = Instant::now();
            self.count_taken(now);
            self.download.pause(now);
            self.writing.clear();
        }
    }

    /// Puts to the client's account what its system has taken since the last look; whether that was anything.
    fn count_taken(&mut self, now: Instant) -> bool {
        let written = self.io.as_ref().map_or(0, Io::written);
        let count = written - std::mem::replace(&mut self.written, written);
        if count == 0 {
            return false;
        }
        self.download.pause(now);
        if self.connection.switch() == Switch::Done {
            self.download.refill();
        } else {
            self.download.earn(count);
        }
        true
    }
}

fn limit_of(flood: Flood) -> Limit {
    match flood {
        Flood::ControlFrames => Limit::Http2Control,
        Flood::Resets => Limit::Http2Resets,
    }
}

impl Start {
    fn of(head: &[u8]) -> Self {
        let (method, target) = head::request_of(head);
        let mut start = Self { is_head: method == b"HEAD", ..Self::default() };
        for (kept, byte) in start.target.iter_mut().zip(target) {
            *kept = *byte;
        }
        start
    }
}

impl AsyncRead for EdgeIo {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.connection.is_h2 {
            this.poll_http2(context, buffer)
        } else {
            this.poll_http1(context, buffer)
        }
    }
}

impl AsyncWrite for EdgeIo {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.connection.phase() == Phase::Head {
            // The engine refuses a request by itself; the words are ours.
            let Start { target, is_head } = this.start;
            this.refuse(Refusal::by_engine(bytes, &target, is_head));
            return Poll::Ready(Ok(bytes.len()));
        }
        let taken = if this.out.len() + bytes.len() <= COLLECTED_BYTES {
            this.out.collect(bytes);
            bytes.len()
        } else {
            loop {
                let taken = ready!(this.poll_write_with(context, bytes))?;
                if taken > 0 {
                    break taken;
                }
            }
        };
        this.count_sent(bytes.get(..taken).unwrap_or_default());
        Poll::Ready(Ok(taken))
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_out(context))?;
        let Some(io) = &mut this.io else { return Poll::Ready(Ok(())) };
        match Pin::new(io).poll_flush(context) {
            Poll::Pending => this.poll_write_deadline(context).map(Err),
            Poll::Ready(flushed) => {
                this.stop_waiting();
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
        let has_answer = !self.out.is_empty() || self.connection.refusal().is_some();
        let is_over = match self.end {
            End::Open | End::HalfClosed => false,
            End::Closed => !has_answer,
            End::Broken => true,
        };
        if is_over {
            return;
        }
        if self.intake.is_in_body() || !self.intake.held().is_empty() {
            self.connection.linger();
        }
        if let Some(io) = self.io.take() {
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

/// Enough for `/.well-known/matrix/`.
const START_BYTES: usize = 32;
/// One TLS record: head and small body leave together, larger pieces are not copied.
const COLLECTED_BYTES: usize = 16 * 1024;
/// What is read of the next requests while one is served; more waits in the system's buffers.
const AHEAD_BYTES: usize = 16 * 1024;
/// One read of those.
const PIECE_BYTES: usize = 2048;
/// As long as a client that sends no more is taken for one that waits for its answer, since the last byte it took. Such
/// clients are scripts (`printf … | nc`), whose requests are short; one that has left holds its upstream for as long.
const HALF_CLOSED: Duration = Duration::from_secs(10);
