//! One connection, from its first request to its end: its deadlines, and how it is ended politely.
//!
//! It is accepted with one generation of the configuration and goes on with the next ones, as long as they would have made the same of
//! it; otherwise it ends after the requests that are under way, with what it had.

use std::convert::Infallible;
use std::error::Error;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use accept::{Connection, Io};
use http::{HeaderValue, Request, Response, Version, header};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::debug;

use super::activity::{Activity, Verdict};
use super::answer::Answer;
use super::request::{self, Context};
use super::wire::Wire;
use crate::limit::Limit;

/// What the requests of a connection share.
#[derive(Debug)]
struct Serving {
    connection: Arc<Connection>,
    activity: Arc<Activity>,
    newest: watch::Receiver<Arc<Context>>,
    /// The newest generation that fits the connection.
    fitting: Mutex<Arc<Context>>,
}

/// Serves one connection to its end. It is to end soon when `stop` is true, or its sender gone.
pub(super) async fn serve(
    io: Io,
    connection: Connection,
    mut contexts: watch::Receiver<Arc<Context>>,
    mut stop: watch::Receiver<bool>,
) {
    let context = contexts.borrow_and_update().clone();
    let activity = Arc::new(Activity::new(context.limits, context.timeouts, Instant::now()));
    let hits = context.traffic.limits.clone();
    let wire = Wire::new(io, activity.clone(), hits.clone(), context.timeouts.linger);
    let builder = builder(&context.limits);
    let serving = Arc::new(Serving {
        connection: Arc::new(connection),
        activity: activity.clone(),
        newest: contexts.clone(),
        fitting: Mutex::new(context),
    });
    let service = {
        let serving = serving.clone();
        service_fn(move |request| serving.clone().answer(request))
    };
    let mut served = std::pin::pin!(builder.serve_connection(TokioIo::new(wire), service));
    let mut look = tokio::time::interval(activity.look_every());
    let mut follows = true;
    let mut told: Option<Instant> = None;
    loop {
        tokio::select! {
            ended = served.as_mut() => {
                if let Err(error) = ended {
                    if let Some(limit) = limit_of(error.as_ref(), &activity) {
                        hits.count(limit);
                    }
                    let Connection { id, listener, .. } = &*serving.connection;
                    debug!(connection = id, %listener, error, "connection ended");
                }
                return;
            }
            _ = stop.wait_for(|stop| *stop), if !activity.is_ending() => {
                activity.end();
                look = tokio::time::interval(LOOK_AT_END);
            }
            changed = contexts.changed(), if follows => {
                follows = changed.is_ok();
                let newest = contexts.borrow_and_update().clone();
                activity.change(newest.limits, newest.timeouts);
                look = tokio::time::interval(activity.look_every());
                // The generation that is not used any more is let go, even if no further request comes.
                serving.context();
                if !newest.fits(&serving.connection) {
                    activity.end();
                    look = tokio::time::interval(LOOK_AT_END);
                }
            }
            _ = look.tick() => match activity.verdict(Instant::now()) {
                Verdict::Fine => {}
                Verdict::End(limit) => match told {
                    None => {
                        told = Some(Instant::now());
                        if let Some(limit) = limit {
                            hits.count(limit);
                        }
                        served.as_mut().graceful_shutdown();
                    }
                    // Requests that have begun are finished, within their own deadlines. HTTP/2 waits for a word of the client, too.
                    Some(when) if when.elapsed() >= GOODBYE && !activity.is_busy() => return,
                    Some(_) => {}
                },
                Verdict::Cut(limit) => {
                    hits.count(limit);
                    return;
                }
            }
        }
    }
}

fn builder(limits: &conf::HttpLimits) -> auto::Builder<TokioExecutor> {
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
        // What is above ours and below this gets an answer that can be counted: `request`.
        .max_header_list_size(head_bytes.saturating_mul(2))
        .max_pending_accept_reset_streams(20);
    builder
}

impl Serving {
    /// For a request that begins now.
    fn context(&self) -> Arc<Context> {
        let newest = self.newest.borrow().clone();
        let mut fitting = self.fitting.lock().unwrap_or_else(PoisonError::into_inner);
        if newest.fits(&self.connection) {
            *fitting = newest;
        }
        fitting.clone()
    }

    async fn answer(self: Arc<Self>, request: Request<Incoming>) -> Result<Response<Answer>, Infallible> {
        // Once, for the whole request.
        let context = self.context();
        let version = request.version();
        let (in_flight, last) = self.activity.begin(version);
        if let Some(limit) = last {
            context.traffic.limits.count(limit);
        }
        let mut answer = request::answer(&context, self.connection.clone(), request, &self.activity).await;
        if version < Version::HTTP_2 && self.activity.is_ending() {
            answer.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        Ok(answer.map(|body| Answer::new(body, in_flight)))
    }
}

/// Which of our limits the library has kept: it has answered with 431, or said goodbye, by itself.
fn limit_of(error: &(dyn Error + Send + Sync + 'static), activity: &Activity) -> Option<Limit> {
    let error = error.downcast_ref::<hyper::Error>()?;
    if error.is_parse_too_large() {
        return Some(activity.head_too_large());
    }
    let mut cause: Option<&(dyn Error + 'static)> = error.source();
    while let Some(inner) = cause {
        if let Some(http2) = inner.downcast_ref::<h2::Error>() {
            return (http2.reason() == Some(h2::Reason::ENHANCE_YOUR_CALM)).then(|| activity.flood());
        }
        cause = inner.source();
    }
    None
}

/// How long a client may take to hear that the connection ends.
const GOODBYE: Duration = Duration::from_secs(5);
/// How often a connection that is to end is looked at.
const LOOK_AT_END: Duration = Duration::from_millis(100);
