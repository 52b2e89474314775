//! HTTP/2 connections: accepts streams and runs the engine on each. Pingora has such a loop too, but reads bodies
//! without any deadline (a client could hold a stream, and an upstream's connection, for ever), and its tasks outlive
//! an aborted drain.

use std::sync::Arc;
use std::time::Duration;

use pingora::apps::HttpServerApp;
use pingora::protocols::Digest;
use pingora::protocols::GetProxyDigest as _;
use pingora::protocols::http::ServerSession;
use pingora::protocols::http::v2::server::{self, H2Accept, H2Options, HttpSession};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use super::EdgeIo;
use super::upload::Upload;
use crate::error::Fault;
use crate::limits::Pace;

/// How streams are treated.
#[derive(Debug, Clone)]
pub(crate) struct StreamPolicy {
    pub(crate) options: H2Options,
    /// A connection without streams is closed after this.
    pub(crate) idle: Duration,
    /// How slow a request's body may be.
    pub(crate) body: Pace,
}

/// Speaks HTTP/2 until the connection ends. `cut` hears of uploads that came too slowly.
pub(crate) async fn serve<A>(
    engine: &Arc<A>,
    io: EdgeIo,
    policy: &StreamPolicy,
    stop: &watch::Receiver<bool>,
    cut: impl Fn(&Upload, Fault) + Clone + Send + 'static,
) where
    A: HttpServerApp + Send + Sync + 'static,
{
    let digest = Arc::new(Digest { proxy_digest: io.get_proxy_digest(), ..Digest::default() });
    let mut connection = match server::handshake(Box::new(io), Some(policy.options.clone())).await {
        Ok(connection) => connection,
        Err(error) => return tracing::debug!(%error, "HTTP/2 handshake failed"),
    };
    let mut streams = JoinSet::new();
    let mut stopping = stop.clone();
    let (mut is_stopping, mut rejected) = (false, 0);
    let mut idle_since = Instant::now();
    loop {
        let stopped = async { stopping.wait_for(|stop| *stop).await.map(drop) };
        tokio::select! {
            biased;
            _ = stopped, if !is_stopping => {
                connection.graceful_shutdown();
                is_stopping = true;
            }
            accepted = HttpSession::from_h2_conn(&mut connection, digest.clone()) => match accepted {
                Ok(Some(H2Accept::Session(session))) => {
                    let (engine, stop, cut, body) = (engine.clone(), stop.clone(), cut.clone(), policy.body);
                    streams.spawn(async move { one(&engine, session, &stop, body, cut).await });
                }
                Ok(Some(H2Accept::Rejected)) if rejected < MAX_REJECTED => rejected += 1,
                Ok(Some(H2Accept::Rejected) | None) => return,
                Err(error) => return tracing::debug!(%error, "HTTP/2 connection ended"),
            },
            Some(ended) = streams.join_next() => {
                if let Err(error) = ended {
                    tracing::error!(%error, "a request's task panicked");
                }
                idle_since = Instant::now();
            }
            () = sleep_until(idle_since + policy.idle), if streams.is_empty() => return,
        }
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

/// As Pingora: a client that sends so many malformed requests has no good ones.
const MAX_REJECTED: usize = 32;
