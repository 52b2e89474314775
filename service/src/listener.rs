//! One accepted connection → HTTP → the listener's router.
//!
//! What the sockets are and who sends PROXY headers is `accept`'s business; which URL is what, `router`'s. Here are the bounds in between:
//! how long a connection may be idle, a request may take, how large both parts of it may be, and how all of it ends.

mod activity;
mod request;
mod stalled;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use accept::{
    Acceptor, Bound, BoundAddress, Change, Connection, ConnectionLimits, Io, ProxyPolicy, Terms, Tickets,
};
use conf::AuthListener;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tracing::{debug, info};

use crate::error::ServiceError;
use crate::router::{self, Shared};
use activity::{Activity, Verdict};
use request::Context;
use stalled::Stalled;

/// The TLS handshake; MAS allows 5 s, mobile networks need more.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// A client that takes nothing of an answer for this long is gone.
const WRITE_STALL: Duration = Duration::from_secs(30);
/// How often a connection is looked at for having been idle.
const LOOK: Duration = Duration::from_secs(5);
/// How long requests in flight may take after the signal to stop.
const DRAIN: Duration = Duration::from_secs(30);
/// Request line and fields, in HTTP/1 and HTTP/2 alike. Ours are below one kilobyte; proxies add some.
const LARGEST_HEAD_BYTES: u32 = 32 * 1024;
/// Requests at a time on one HTTP/2 connection.
const MOST_STREAMS: u32 = 100;
/// Open connections, all listeners together. The edge or another proxy in front opens one or more for each of its clients.
pub(crate) const MOST_CONNECTIONS: usize = 10_000;

/// The sockets of one listener.
#[derive(Debug)]
pub(crate) struct Sockets {
    listener: AuthListener,
    bound: Vec<Bound>,
}

/// Binds all sockets of all listeners in `change` and logs each.
///
/// # Errors
/// The first that cannot be bound.
pub(crate) async fn bind(
    listeners: &[AuthListener],
    change: &mut Change,
) -> Result<Vec<Sockets>, ServiceError> {
    let mut all = Vec::with_capacity(listeners.len());
    for listener in listeners {
        let mut bound = Vec::with_capacity(listener.binds.len());
        for bind in &listener.binds {
            let one = change
                .bind(&format!("auth {}", listener.name), bind, 1)
                .await
                .map_err(|source| ServiceError::Bind { listener: listener.name.clone(), source })?;
            info!(listener = listener.name, address = %one.address, "listening");
            bound.push(one);
        }
        all.push(Sockets { listener: listener.clone(), bound });
    }
    Ok(all)
}

impl Sockets {
    /// Name and address of each socket.
    pub(crate) fn addresses(&self) -> impl Iterator<Item = (String, BoundAddress)> + '_ {
        self.bound.iter().map(|bound| (self.listener.name.clone(), bound.address.clone()))
    }
}

/// Serves until `stop`, then drains: at most 30 s.
///
/// # Errors
/// When a folder of assets cannot be read or a socket cannot be used: nothing is served then. When a listener ends unasked.
pub(crate) async fn serve(
    all: Vec<Sockets>,
    shared: &Shared,
    limits: &Arc<ConnectionLimits>,
    stop: &watch::Receiver<bool>,
) -> Result<(), ServiceError> {
    let trusted: Arc<[_]> = shared.state.config.http.trusted_proxies.clone().into();
    let mut loops = JoinSet::new();
    for Sockets { listener, bound } in all {
        let name = listener.name.clone();
        let router = router::build(&listener, shared)
            .await
            .map_err(|source| ServiceError::Assets { listener: name.clone(), source })?;
        let acceptor = Acceptor {
            listener: name.as_str().into(),
            proxy: if listener.proxy_protocol {
                ProxyPolicy::Always(trusted.to_vec())
            } else {
                ProxyPolicy::Off
            },
            tls: listener.tls.as_ref().map(|certificate| {
                accept::server_config_for(certificate, &[b"h2", b"http/1.1", b"http/1.0"], &Tickets::new())
            }),
            header: accept::HeaderBounds::default(),
            handshake: HANDSHAKE,
        };
        let (_, terms) = watch::channel(Terms { acceptor: Arc::new(acceptor), drain: DRAIN });
        let context = Arc::new(Context {
            router,
            trusted: trusted.clone(),
            prefix: listener.prefix.clone(),
            pages: shared.pages.clone(),
            traffic: shared.traffic.clone(),
        });
        for socket in bound.into_iter().flat_map(|bound| bound.sockets) {
            let socket = socket
                .into_listener()
                .map_err(|source| ServiceError::Socket { listener: name.clone(), source })?;
            let (context, stopping) = (context.clone(), stop.clone());
            let handle = move |io, connection| one(io, connection, context.clone(), stopping.clone());
            loops.spawn(accept::serve(vec![socket], terms.clone(), limits.clone(), stop.clone(), handle));
        }
    }
    while let Some(ended) = loops.join_next().await {
        // Nobody left who could ask is asking, too.
        let asked = *stop.borrow() || stop.has_changed().is_err();
        if ended.is_err() || !asked {
            return Err(ServiceError::Crashed { what: "a listener" });
        }
    }
    Ok(())
}

/// Serves one connection to its end.
async fn one(io: Io, connection: Connection, context: Arc<Context>, mut stop: watch::Receiver<bool>) {
    let connection = Arc::new(connection);
    let activity = Arc::new(Activity::new());
    let io = TokioIo::new(Stalled::new(io, WRITE_STALL, activity.clone()));

    let service = {
        let (connection, activity) = (connection.clone(), activity.clone());
        service_fn(move |request: http::Request<hyper::body::Incoming>| {
            let (context, connection) = (context.clone(), connection.clone());
            let in_flight = activity.begin(request.version());
            async move {
                let answer = request::answer(&context, connection, request).await;
                drop(in_flight);
                Ok::<_, Infallible>(answer)
            }
        })
    };
    let mut builder = auto::Builder::new(TokioExecutor::new());
    // Deadlines of heads and of idleness are `Activity`'s, for both versions alike.
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(None)
        .max_buf_size(LARGEST_HEAD_BYTES as usize);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(Duration::from_secs(30))
        .keep_alive_timeout(Duration::from_secs(20))
        .max_concurrent_streams(MOST_STREAMS)
        .max_header_list_size(LARGEST_HEAD_BYTES)
        .max_pending_accept_reset_streams(20);

    let mut served = std::pin::pin!(builder.serve_connection(io, service));
    let mut look = tokio::time::interval(LOOK);
    let (mut stopping, mut told) = (false, false);
    loop {
        tokio::select! {
            ended = served.as_mut() => {
                if let Err(error) = ended {
                    debug!(connection = connection.id, listener = %connection.listener, error, "connection ended");
                }
                return;
            }
            _ = stop.wait_for(|stop| *stop), if !stopping => {
                stopping = true;
                served.as_mut().graceful_shutdown();
            }
            _ = look.tick() => match activity.verdict(tokio::time::Instant::now()) {
                Verdict::Fine => {}
                Verdict::Idle if !told => {
                    told = true;
                    served.as_mut().graceful_shutdown();
                }
                Verdict::Idle | Verdict::HeadTooSlow => return,
            }
        }
    }
}

#[cfg(test)]
mod tests;
