//! HTTP/2 connections: accepts streams and runs the engine on each. Pingora has such a loop too, but reads bodies
//! without any deadline (a client could hold a stream, and an upstream's connection, for ever), and its tasks outlive
//! an aborted drain. What a client may do to a connection as a whole is bounded here and, frame by frame, in
//! `accept::http2` beneath the library.

mod policy;
mod windows;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use h2::Reason;
use pingora::apps::HttpServerApp;
use pingora::protocols::http::ServerSession;
use pingora::protocols::http::v2::server::{self, H2Accept, HttpSession};
use pingora::protocols::{Digest, GetProxyDigest as _, Stream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until, timeout};

use super::upload::Upload;
use super::{ClientConnection, EdgeIo};
use crate::error::Fault;
use crate::limits::Pace;
use crate::metrics::Limit;
pub(crate) use policy::StreamPolicy;
pub(super) use policy::limit_said;
pub(crate) use windows::Grown;
use windows::Windows;

/// One connection in the library's hands.
struct Served<'a> {
    client: &'a ClientConnection,
    policy: &'a StreamPolicy,
    library: h2::server::Connection<Stream, Bytes>,
    windows: Windows<'a>,
    digest: Arc<Digest>,
    streams: JoinSet<()>,
    /// Requests so far.
    requests: u32,
    /// Requests that the engine did not take.
    rejected: u32,
    /// Since when there have been no streams.
    idle_since: Instant,
    /// Pieces of answers that had been written at the last look.
    taken: u64,
    /// Looks since then at which there was something to be written and nothing was.
    untaken: u32,
    /// The client has been told to open no more streams (RFC 9113 §6.8).
    is_leaving: bool,
}

/// Speaks HTTP/2 until the connection ends. `cut` hears of uploads that came too slowly.
pub(crate) async fn serve<A>(
    engine: &Arc<A>,
    io: EdgeIo,
    client: &ClientConnection,
    policy: &StreamPolicy,
    stop: &watch::Receiver<bool>,
    cut: impl Fn(&Upload, Fault) + Clone + Send + 'static,
) where
    A: HttpServerApp + Send + Sync + 'static,
{
    let digest = Arc::new(Digest { proxy_digest: io.get_proxy_digest(), ..Digest::default() });
    let mut library = match server::handshake(Box::new(io), Some(policy.options.clone())).await {
        Ok(library) => library,
        Err(error) => {
            if let Some(limit) = client.breach() {
                client.limit_hit(limit);
            }
            return tracing::debug!(%error, "HTTP/2 handshake failed");
        }
    };
    let mut served = Served {
        client,
        policy,
        windows: Windows::new(client, library.ping_pong(), policy.max_upload_window),
        library,
        digest,
        streams: JoinSet::new(),
        requests: 0,
        rejected: 0,
        idle_since: Instant::now(),
        taken: 0,
        untaken: 0,
        is_leaving: false,
    };
    let body = policy.body;
    let begin = |session| {
        let (engine, stop, cut) = (engine.clone(), stop.clone(), cut.clone());
        async move { one(&engine, session, &stop, body, cut).await }
    };
    served.run(stop.clone(), begin).await;
    if let Some(limit) = client.breach() {
        served.dismiss(limit).await;
    }
    let Served { library, streams, .. } = served;
    // Whoever is still at work for this client learns that it is gone, and says so in the log.
    drop(library);
    let _ = timeout(GOODBYE, all_ended(streams)).await;
}

impl Served<'_> {
    /// Until the connection ends, or has to.
    async fn run<F>(&mut self, mut stop: watch::Receiver<bool>, begin: impl Fn(HttpSession) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let mut is_stopping = false;
        let mut look = interval((self.policy.send / LOOKS).max(Duration::from_millis(1)));
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let stopped = async { stop.wait_for(|stop| *stop).await.map(drop) };
            let client = self.client;
            let drained = client.place.ending().filter(|_| is_stopping && !self.streams.is_empty());
            let patience = if self.is_leaving { LEAVE } else { self.policy.idle };
            tokio::select! {
                biased;
                () = client.breached() => return,
                _ = stopped, if !is_stopping => {
                    is_stopping = true;
                    self.leave();
                }
                accepted = HttpSession::from_h2_conn(&mut self.library, self.digest.clone()) => match accepted {
                    Ok(Some(H2Accept::Session(session))) => {
                        self.streams.spawn(begin(session));
                        self.count_request();
                    }
                    // As Pingora: a client that sends so many malformed requests has no good ones.
                    Ok(Some(H2Accept::Rejected)) if self.rejected < MAX_REJECTED => self.rejected += 1,
                    Ok(Some(H2Accept::Rejected) | None) => return,
                    Err(error) => return tracing::debug!(%error, "HTTP/2 connection ended"),
                },
                () = sleep_until(drained.map_or(self.idle_since, |ending| ending.requests)), if drained.is_some() => {
                    // Each of them says so in the log.
                    return self.client.end_with(Fault::Drained);
                }
                Some(ended) = self.streams.join_next() => {
                    report_panic(ended);
                    self.idle_since = Instant::now();
                    if self.streams.is_empty() {
                        self.windows.shrink(&mut self.library);
                    }
                }
                () = client.uploading() => self.windows.measure(),
                uploaded = self.windows.measured() => self.windows.grow(&mut self.library, uploaded),
                _ = look.tick(), if !self.streams.is_empty() => self.look(),
                () = sleep_until(self.idle_since + patience), if self.streams.is_empty() => {
                    if self.is_leaving {
                        return;
                    }
                    self.client.limit_hit(Limit::Idle);
                    self.leave();
                }
            }
        }
    }

    /// One more request: the last ones are announced, and those that go on after that, or that cannot be got rid of, are too many.
    fn count_request(&mut self) {
        self.requests = self.requests.saturating_add(1);
        if self.requests == self.policy.max_requests {
            self.client.limit_hit(Limit::MaxRequestsPerConnection);
            self.leave();
        }
        // Others are on their way when the client hears of it, but not more than may be open at a time.
        if self.requests > self.policy.max_requests.saturating_add(self.policy.max_streams) {
            self.client.breaches(Limit::MaxRequestsPerConnection);
        }
        // The library knows only of streams that the client has not reset; their requests may take a moment to end.
        if self.streams.len() > 2 * self.policy.max_streams as usize {
            self.client.breaches(Limit::Http2Resets);
        }
    }

    /// Whether the client takes anything of its answers. When it opens no window nothing else tells; a client that does, but not for
    /// some of them, is left to the deadline that each piece of an answer has.
    fn look(&mut self) {
        let (held, taken) =
            (self.client.held.load(Ordering::Relaxed), self.client.taken.load(Ordering::Relaxed));
        if held == 0 || taken != self.taken {
            (self.taken, self.untaken) = (taken, 0);
            return;
        }
        self.untaken += 1;
        if self.untaken > LOOKS {
            self.client.end_with(Fault::ClientNotTaking);
            self.client.breaches(Limit::Send);
        }
    }

    /// What is in flight is served, and then the connection ends.
    fn leave(&mut self) {
        self.library.graceful_shutdown();
        self.is_leaving = true;
        self.idle_since = Instant::now();
    }

    /// Ends the connection for a limit: whatever is in flight ends, and is logged as such.
    async fn dismiss(&mut self, limit: Limit) {
        let peer = self.client.facts.peer();
        tracing::info!(client = %peer, listener = %self.client.facts.listener, limit = limit.key(), "HTTP/2 connection closed for a limit");
        self.client.limit_hit(limit);
        self.library.abrupt_shutdown(Reason::ENHANCE_YOUR_CALM);
        let goodbye = async { while self.library.accept().await.is_some_and(|accepted| accepted.is_ok()) {} };
        // Past it nothing more is owed to such a client.
        let _ = timeout(GOODBYE, goodbye).await;
    }
}

/// One request, and an eye on its body.
async fn one<A>(
    engine: &Arc<A>,
    mut session: HttpSession,
    stop: &watch::Receiver<bool>,
    body: Pace,
    cut: impl Fn(&Upload, Fault),
) where
    A: HttpServerApp + Send + Sync + 'static,
{
    if session.is_body_done() {
        engine.process_new_http(ServerSession::new_http2(session), stop).await;
        return;
    }
    let upload = Arc::new(Upload::new(body));
    session.req_header_mut().extensions_mut().insert(upload.clone());
    let process = engine.process_new_http(ServerSession::new_http2(session), stop);
    tokio::select! {
        biased;
        _ = process => {}
        // The request is dropped, which resets its stream.
        fault = upload.too_slow() => cut(&upload, fault),
    }
}

async fn all_ended(mut streams: JoinSet<()>) {
    while let Some(ended) = streams.join_next().await {
        report_panic(ended);
    }
}

fn report_panic(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        tracing::error!(%error, "a request's task panicked");
    }
}

/// In the time that a client may take nothing.
const LOOKS: u32 = 4;
/// Requests that the engine does not take, on one connection.
const MAX_REJECTED: u32 = 32;
/// A client that has been told to leave, and has nothing in flight, acknowledges that within a round trip.
const LEAVE: Duration = Duration::from_secs(5);
/// For the last words to a client that is sent away.
const GOODBYE: Duration = Duration::from_secs(1);
