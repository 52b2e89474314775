//! Hands accepted connections to Pingora: the only bridge to its stream types. What Pingora does not do for a
//! connection is done here: one deadline for a whole head, an idle deadline, a limit on the head's size, a deadline
//! for writes, and a close that lets the client read the last answer. It decides nothing about requests.

mod close;
mod deadline;
mod held;
mod intake;
mod io;
mod out;
mod refusal;
mod silence;
mod streams;
mod unique_id;
mod upload;

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use accept::Connection;
use accept::http2::FloodLimits;
use pingora::protocols::raw_connect::ProxyDigest;
use pingora_http::ResponseHeader;
use tokio::sync::Notify;

use crate::error::Fault;
use crate::gate::HeadLimits;
use crate::limits::Pace;
use crate::metrics::{Counters, Limit};
use crate::snapshot::Place;
pub(crate) use close::close;
pub(crate) use held::Waiting;
use intake::IntakeLimits;
pub(crate) use io::EdgeIo;
use io::Remains;
pub(crate) use refusal::Refusal;
use silence::TunnelPatience;
pub(crate) use streams::{Grown, StreamPolicy, serve as serve_streams};
use unique_id::UniqueId;
pub(crate) use upload::{Summary, Upload};

/// Deadlines and sizes of a connection.
#[derive(Debug, Clone, Copy)]
pub(crate) struct IoLimits {
    /// Without a request.
    idle: Duration,
    /// A whole head, from its first byte.
    header: Duration,
    /// How slow a request's body may be.
    pub(crate) body: Pace,
    /// How slow a client may take its answers.
    pub(crate) send: Pace,
    /// For a client that goes on sending behind its last answer.
    linger: Duration,
    tunnel: TunnelPatience,
    intake: IntakeLimits,
    /// Over HTTP/2.
    floods: FloodLimits,
    /// Of one worker, over HTTP/2.
    buffer: u64,
}

impl IoLimits {
    /// Those of a configuration.
    pub(crate) fn new(edge: &conf::Edge) -> Self {
        let (limits, timeouts) = (&edge.limits, &edge.timeouts);
        Self {
            idle: timeouts.idle,
            header: timeouts.header,
            body: Pace { patience: timeouts.body, rate: limits.min_body_rate.0 },
            send: Pace { patience: timeouts.send, rate: limits.min_send_rate.0 },
            linger: timeouts.linger,
            tunnel: TunnelPatience { answer: timeouts.upstream_read, tunnel: timeouts.tunnel },
            intake: IntakeLimits {
                head_size: usize::try_from(limits.max_header_size.0).unwrap_or(usize::MAX),
                head: HeadLimits::of(limits),
                beside: u32::try_from(limits.max_trailer_size.0).unwrap_or(u32::MAX),
            },
            floods: FloodLimits { control_frames: limits.h2_control_frames, resets: limits.h2_resets },
            buffer: limits.h2_buffer.0 / u64::try_from(edge.threads.max(1)).unwrap_or(1),
        }
    }
}

/// A client's connection: the facts, and what its stream and its requests tell each other.
pub(crate) struct ClientConnection {
    /// What `accept` found out.
    pub(crate) facts: Connection,
    /// Where it was accepted.
    pub(crate) place: Arc<Place>,
    /// HTTP/2 was agreed on.
    pub(crate) is_h2: bool,
    /// A random number, for a name that no connection of another run has.
    run: u64,
    counters: Arc<Counters>,
    phase: AtomicU8,
    /// Bytes of the client are still under way: discard them before the socket is closed.
    lingers: AtomicBool,
    /// Whether the client and an upstream speak something else than HTTP from now on.
    switch: AtomicU8,
    /// The upstream's answer to the current request is complete.
    is_answered: AtomicBool,
    /// A request that the stream itself refused.
    refusal: OnceLock<Refusal>,
    /// Why the stream ended in the middle of a request.
    stream_fault: OnceLock<Fault>,
    /// Bytes of request bodies that have come, over HTTP/2.
    uploaded: AtomicU64,
    uploading: Notify,
    /// Bytes of answers that have not been written yet, over HTTP/2.
    held: AtomicU64,
    /// How many there may be of all connections of this worker.
    buffer: u64,
    /// Pieces of answers that have been written, over HTTP/2.
    taken: AtomicU64,
    /// The limit for which the connection has to end, over HTTP/2.
    breach: OnceLock<Limit>,
    breached: Notify,
    /// Requests so far.
    requests: AtomicU32,
    /// The stream when Pingora is done with it.
    remains: Mutex<Option<Remains>>,
}

/// What an HTTP/1 connection is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Waiting for a request.
    Idle,
    /// In the middle of a head.
    Head,
    /// A request is served; its body and its answer have deadlines elsewhere.
    Busy,
}

/// How far a connection has come in becoming a tunnel (RFC 9110 §7.8), over HTTP/1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Switch {
    /// HTTP it is.
    #[default]
    None,
    /// The client wants it, and the upstream may too.
    Asked,
    /// The upstream agreed.
    Done,
}

impl ClientConnection {
    /// A connection that was accepted at this place. `run` is random, and one for all connections of a worker.
    pub(crate) fn new(facts: Connection, place: Arc<Place>, run: u64, counters: Arc<Counters>) -> Self {
        let is_h2 = facts.tls.as_ref().is_some_and(|tls| tls.alpn.as_deref() == Some(b"h2"));
        let buffer = place.io_limits().buffer;
        Self {
            facts,
            place,
            is_h2,
            run,
            counters,
            phase: AtomicU8::new(Phase::Idle as u8),
            lingers: AtomicBool::new(false),
            switch: AtomicU8::new(Switch::None as u8),
            is_answered: AtomicBool::new(false),
            refusal: OnceLock::new(),
            stream_fault: OnceLock::new(),
            uploaded: AtomicU64::new(0),
            uploading: Notify::new(),
            held: AtomicU64::new(0),
            buffer,
            taken: AtomicU64::new(0),
            breach: OnceLock::new(),
            breached: Notify::new(),
            requests: AtomicU32::new(0),
            remains: Mutex::new(None),
        }
    }

    /// The connection behind a Pingora session.
    pub(crate) fn of(session: &pingora_proxy::Session) -> Option<&Arc<Self>> {
        session.digest()?.proxy_digest.as_ref()?.user_data.as_ref()?.downcast_ref::<Arc<Self>>()
    }

    /// Counts that this connection has come up against a limit or a deadline.
    pub(crate) fn limit_hit(&self, limit: Limit) {
        self.counters.limit_hit(limit);
    }

    /// The connection's name in the logs of all proxies on its way.
    pub(crate) fn unique_id(&self) -> UniqueId<'_> {
        UniqueId::of(&self.facts, self.run)
    }

    /// A head is complete: its deadline ends. How many requests there have been, with this one.
    pub(crate) fn request_begins(&self) -> u32 {
        self.is_answered.store(false, Ordering::Relaxed);
        self.switch.store(Switch::None as u8, Ordering::Relaxed);
        self.set_phase(Phase::Busy);
        self.requests.fetch_add(1, Ordering::Relaxed).saturating_add(1)
    }

    /// The current request asks for a tunnel: its deadlines are the stream's from now on, not the engine's.
    pub(crate) fn asks_for_tunnel(&self) {
        self.switch.store(Switch::Asked as u8, Ordering::Relaxed);
    }

    /// Whether the current request asks for a tunnel, or has one.
    pub(crate) fn may_be_tunnel(&self) -> bool {
        self.switch() != Switch::None
    }

    /// The answer is complete: the next request is waited for. Over HTTP/2 there may be others, and Pingora counts.
    pub(crate) fn request_ends(&self) {
        if !self.is_h2 {
            self.set_phase(Phase::Idle);
        }
    }

    /// The client is sending what nobody will read: take it anyway for a while when closing, or its system may throw
    /// our answer away (RFC 9112 §9.6).
    pub(crate) fn linger(&self) {
        self.lingers.store(true, Ordering::Relaxed);
    }

    /// The protocol was switched (RFC 9110 §15.2.2): what comes is no HTTP any more.
    pub(crate) fn becomes_tunnel(&self) {
        self.switch.store(Switch::Done as u8, Ordering::Relaxed);
    }

    /// The upstream has said all it will say to the current request: what is still coming of the body interests nobody.
    /// Over HTTP/1 the connection ends then.
    pub(crate) fn answer_is_complete(&self) {
        if !self.is_h2 {
            self.is_answered.store(true, Ordering::Relaxed);
        }
    }

    /// Whether the current request's answer is complete.
    pub(crate) fn is_answered(&self) -> bool {
        self.is_answered.load(Ordering::Relaxed)
    }

    /// The request that the stream refused before the engine knew it.
    pub(crate) fn refusal(&self) -> Option<&Refusal> {
        self.refusal.get()
    }

    /// Why the stream ended in the middle of a request: what was wrong with its body or its tunnel, over HTTP/1, or that the
    /// client does not take what it is sent.
    pub(crate) fn stream_fault(&self) -> Option<Fault> {
        self.stream_fault.get().copied()
    }

    fn end_with(&self, fault: Fault) {
        // The first word on it stands.
        let _ = self.stream_fault.set(fault);
    }

    /// So many bytes of request bodies have come in all, over HTTP/2.
    fn uploads(&self, bytes: u64) {
        let before = self.uploaded.swap(bytes, Ordering::Relaxed);
        if before / UPLOAD_STEP != bytes / UPLOAD_STEP {
            self.uploading.notify_one();
        }
    }

    /// Bytes of request bodies that have come.
    fn uploaded(&self) -> u64 {
        self.uploaded.load(Ordering::Relaxed)
    }

    /// Waits until a good piece of a body has come.
    async fn uploading(&self) {
        self.uploading.notified().await;
    }

    /// Waits for a limit that the client does not keep to, over HTTP/2.
    async fn breached(&self) {
        self.breached.notified().await;
    }

    /// The limit that the client does not keep to, over HTTP/2.
    fn breach(&self) -> Option<Limit> {
        self.breach.get().copied()
    }

    /// Ends the connection, for the first limit that is broken.
    fn breaches(&self, limit: Limit) {
        let _ = self.breach.set(limit);
        self.breached.notify_one();
    }

    fn phase(&self) -> Phase {
        match self.phase.load(Ordering::Relaxed) {
            0 => Phase::Idle,
            1 => Phase::Head,
            _ => Phase::Busy,
        }
    }

    fn switch(&self) -> Switch {
        match self.switch.load(Ordering::Relaxed) {
            0 => Switch::None,
            1 => Switch::Asked,
            _ => Switch::Done,
        }
    }

    fn set_phase(&self, phase: Phase) {
        self.phase.store(phase as u8, Ordering::Relaxed);
    }

    fn leave(&self, remains: Remains) {
        *self.remains.lock().unwrap_or_else(PoisonError::into_inner) = Some(remains);
    }

    fn take_remains(&self) -> Option<Remains> {
        self.remains.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Pingora's place for facts about a connection that came through a proxy; ours has room for all of them.
    fn digest(self: &Arc<Self>) -> Option<Arc<ProxyDigest>> {
        let response = ResponseHeader::build_no_case(200, Some(0)).ok()?;
        Some(Arc::new(ProxyDigest::new(Box::new(response), Some(Box::new(self.clone())))))
    }
}

impl fmt::Debug for ClientConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientConnection").field("facts", &self.facts).finish_non_exhaustive()
    }
}

/// As much of an upload as is worth a look at how it goes.
const UPLOAD_STEP: u64 = 64 * 1024;
