//! One connection, from its first request to its end: its deadlines, and how it is ended politely.
//!
//! It is accepted with one generation of the configuration and goes on with the next ones, as long as they would have made the same of
//! it; otherwise it ends after the requests that are under way, with what it had.

use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use accept::{Connection, Io};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::sync::watch;
use tracing::debug;

use super::activity::{Activity, Verdict};
use super::request::{self, Context};
use super::stalled::Stalled;

/// A client that takes nothing of an answer for this long is gone.
const WRITE_STALL: Duration = Duration::from_secs(30);
/// How often a connection is looked at for having been idle.
const LOOK: Duration = Duration::from_secs(5);
/// The same, once it is to end.
const LOOK_AT_END: Duration = Duration::from_millis(100);

/// What a connection is served with now: the newest generation that fits it.
#[derive(Debug)]
struct Serving {
    newest: watch::Receiver<Arc<Context>>,
    fitting: Mutex<Arc<Context>>,
}

impl Serving {
    fn new(newest: watch::Receiver<Arc<Context>>) -> Self {
        let fitting = Mutex::new(newest.borrow().clone());
        Self { newest, fitting }
    }

    /// For a request that begins now.
    fn context(&self, connection: &Connection) -> Arc<Context> {
        let newest = self.newest.borrow().clone();
        let mut fitting = self.fitting.lock().unwrap_or_else(PoisonError::into_inner);
        if newest.fits(connection) {
            *fitting = newest;
        }
        fitting.clone()
    }
}

/// Serves one connection to its end. It is to end soon when `stop` is true, or its sender gone.
pub(super) async fn serve(
    io: Io,
    connection: Connection,
    mut contexts: watch::Receiver<Arc<Context>>,
    mut stop: watch::Receiver<bool>,
) {
    let connection = Arc::new(connection);
    let serving = Arc::new(Serving::new(contexts.clone()));
    let context = contexts.borrow_and_update().clone();
    let limits = context.limits;
    let activity = Arc::new(Activity::new());
    let io = TokioIo::new(Stalled::new(io, WRITE_STALL, activity.clone()));
    drop(context);

    let service = {
        let (connection, activity, serving) = (connection.clone(), activity.clone(), serving.clone());
        service_fn(move |request: http::Request<hyper::body::Incoming>| {
            // Once, for the whole request.
            let context = serving.context(&connection);
            let (connection, activity) = (connection.clone(), activity.clone());
            let in_flight = activity.begin(request.version());
            async move {
                let version = request.version();
                let mut answer = request::answer(&context, connection, request).await;
                if activity.is_ending() && version <= http::Version::HTTP_11 {
                    answer.headers_mut().insert(http::header::CONNECTION, CLOSE);
                }
                drop(in_flight);
                Ok::<_, Infallible>(answer)
            }
        })
    };
    let head_bytes = u32::try_from(limits.max_header_size.0).unwrap_or(u32::MAX);
    let mut builder = auto::Builder::new(TokioExecutor::new());
    // Deadlines of heads and of idleness are `Activity`'s, for both versions alike.
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(None)
        .max_headers(limits.max_header_count)
        .max_buf_size(head_bytes as usize);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(Duration::from_secs(30))
        .keep_alive_timeout(Duration::from_secs(20))
        .max_concurrent_streams(limits.max_concurrent_streams)
        .max_header_list_size(head_bytes)
        .max_pending_accept_reset_streams(20);

    let mut served = std::pin::pin!(builder.serve_connection(io, service));
    let mut look = tokio::time::interval(LOOK);
    let (mut follows, mut told) = (true, false);
    loop {
        tokio::select! {
            ended = served.as_mut() => {
                if let Err(error) = ended {
                    debug!(connection = connection.id, listener = %connection.listener, error, "connection ended");
                }
                return;
            }
            _ = stop.wait_for(|stop| *stop), if !activity.is_ending() => {
                activity.end();
                look = tokio::time::interval(LOOK_AT_END);
            }
            changed = contexts.changed(), if follows => {
                // The generation that is not used any more is let go, even if no further request comes.
                serving.context(&connection);
                follows = changed.is_ok();
                if follows && !contexts.borrow_and_update().fits(&connection) {
                    activity.end();
                    look = tokio::time::interval(LOOK_AT_END);
                }
            }
            _ = look.tick() => match activity.verdict(tokio::time::Instant::now()) {
                Verdict::Fine => {}
                Verdict::Idle if !told => {
                    told = true;
                    served.as_mut().graceful_shutdown();
                }
                // Streams of HTTP/2 that have begun are finished; so are answers.
                Verdict::Idle if activity.is_ending() => {}
                Verdict::Idle | Verdict::HeadTooSlow => return,
            }
        }
    }
}

const CLOSE: http::HeaderValue = http::HeaderValue::from_static("close");
