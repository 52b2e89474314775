//! The accept loop: one task per connection, limits before anything is read, drain at the end. What it serves with may be
//! replaced while it runs.

use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::acceptor::{Acceptor, Refused};
use crate::bind::Listener;
use crate::connection::{Connection, Remote};
use crate::limits::{ConnectionLimits, Permit, TooMany};
use crate::stream::{Io, Stream};
use crate::tally::Tally;

/// What the connections of a listener are served with. A connection keeps what it was accepted with.
#[derive(Debug, Clone)]
pub struct Terms {
    /// PROXY header and TLS.
    pub acceptor: Arc<Acceptor>,
    /// How long connections may go on when the listener is closed.
    pub drain: Duration,
}

/// Connections of a listener that accepts no more.
#[derive(Debug)]
#[must_use = "dropping it closes the connections"]
pub struct Draining {
    connections: JoinSet<()>,
    terms: watch::Receiver<Terms>,
    limits: Arc<ConnectionLimits>,
}

/// [`accept`] until `stop`, then [`Draining::finish`].
pub async fn serve<H, F>(
    listeners: Vec<Listener>,
    terms: watch::Receiver<Terms>,
    limits: Arc<ConnectionLimits>,
    stop: watch::Receiver<bool>,
    handle: H,
) where
    H: Fn(Io, Connection) -> F + Clone + Send + 'static,
    F: Future<Output = ()> + Send + 'static,
{
    accept(listeners, terms, limits, stop, handle).await.finish().await;
}

/// Accepts on all sockets of a listener until `stop` is true (or its sender gone), then takes the connections that the system
/// has accepted already, and closes the sockets. `handle` gets each connection that came through the acceptor and hears
/// of `stop` by itself. The `terms` of each connection are those of the moment it is accepted. A connection
/// over the limits is closed at once. When descriptors run out, accepting pauses and goes on.
pub async fn accept<H, F>(
    listeners: Vec<Listener>,
    terms: watch::Receiver<Terms>,
    limits: Arc<ConnectionLimits>,
    mut stop: watch::Receiver<bool>,
    handle: H,
) -> Draining
where
    H: Fn(Io, Connection) -> F + Clone + Send + 'static,
    F: Future<Output = ()> + Send + 'static,
{
    // It is counted from now on, if with nothing.
    let listener = terms.borrow().acceptor.listener.clone();
    limits.count(&listener, |_| ());
    let mut accepting = Accepting { connections: JoinSet::new(), terms, limits, handle };
    tokio::select! {
        biased;
        _ = stop.wait_for(|stop| *stop) => {}
        () = accepting.accept_on(&listeners) => {}
    }
    for listener in listeners {
        match listener.into_queue() {
            Ok(queue) => queue.for_each(|(stream, remote)| accepting.take(stream, remote)),
            Err(error) => tracing::warn!(%error, "connections that wait for accept are lost"),
        }
    }
    Draining { connections: accepting.connections, terms: accepting.terms, limits: accepting.limits }
}

impl Draining {
    /// Waits for the connections, at most `drain` of the terms, and aborts those still open.
    pub async fn finish(mut self) {
        let (drain, acceptor) = {
            let terms = self.terms.borrow();
            (terms.drain, terms.acceptor.clone())
        };
        let all_ended = async {
            while let Some(ended) = self.connections.join_next().await {
                report_panic(ended);
            }
        };
        if timeout(drain, all_ended).await.is_err() {
            let open = self.connections.len();
            tracing::info!(listener = %acceptor.listener, open, "closing connections still open");
            self.limits.count(&acceptor.listener, |tally| tally.cut_off(open as u64));
            self.connections.shutdown().await;
        }
    }
}

/// A listener at work.
struct Accepting<H> {
    connections: JoinSet<()>,
    terms: watch::Receiver<Terms>,
    limits: Arc<ConnectionLimits>,
    handle: H,
}

impl<H, F> Accepting<H>
where
    H: Fn(Io, Connection) -> F + Clone + Send + 'static,
    F: Future<Output = ()> + Send + 'static,
{
    /// Accepts for ever; dropped when it has to stop, which loses no connection.
    async fn accept_on(&mut self, listeners: &[Listener]) {
        let mut turn = 0;
        loop {
            let accepted = tokio::select! {
                biased;
                Some(ended) = self.connections.join_next() => {
                    report_panic(ended);
                    continue;
                }
                accepted = any(listeners, &mut turn) => accepted,
            };
            match accepted {
                Ok((stream, remote)) => self.take(stream, remote),
                Err(error) if is_of_one_connection(&error) => {}
                Err(error) => {
                    let listener = self.terms.borrow().acceptor.listener.clone();
                    self.limits.count(&listener, Tally::shortage);
                    self.limits.alarms().shortage(&error, &listener);
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    /// Begins with a connection, or closes it.
    fn take(&mut self, stream: Stream, remote: Remote) {
        let acceptor = self.terms.borrow().acceptor.clone();
        match self.limits.admit(&acceptor.listener) {
            Ok(permit) => {
                self.connections.spawn(one(acceptor, permit, stream, remote, self.handle.clone()));
            }
            Err(error) => {
                self.limits.alarms().too_many(error, &acceptor.listener, remote);
                log_refused(&acceptor, remote, &error);
            }
        }
    }
}

/// The next connection of any of these sockets; each gets its turn. Cancel safe.
async fn any(listeners: &[Listener], turn: &mut usize) -> io::Result<(Stream, Remote)> {
    poll_fn(|context| {
        for step in 0..listeners.len() {
            let index = (*turn + step) % listeners.len();
            if let Some(listener) = listeners.get(index)
                && let Poll::Ready(accepted) = listener.poll_accept(context)
            {
                *turn = index + 1;
                return Poll::Ready(accepted);
            }
        }
        Poll::Pending
    })
    .await
}

/// One connection from accept to end.
async fn one<H, F>(acceptor: Arc<Acceptor>, mut permit: Permit, stream: Stream, remote: Remote, handle: H)
where
    H: Fn(Io, Connection) -> F,
    F: Future<Output = ()>,
{
    match admitted(&acceptor, &mut permit, stream, remote).await {
        Ok((io, connection)) => handle(io, connection).await,
        Err(error) => {
            match &error {
                NotServed::Refused(refused) => {
                    permit.count(|tally| tally.refuse(refused));
                    permit.alarms().refused(refused, &acceptor.listener, remote);
                }
                NotServed::TooMany(limit) => permit.alarms().too_many(*limit, &acceptor.listener, remote),
            }
            log_refused(&acceptor, remote, &error);
        }
    }
}

/// As [`Acceptor::establish`], with the address claimed as soon as it is known: before the costly TLS handshake.
async fn admitted(
    acceptor: &Acceptor,
    permit: &mut Permit,
    stream: Stream,
    remote: Remote,
) -> Result<(Io, Connection), NotServed> {
    let (stream, connection) = acceptor.identify(stream, remote).await?;
    permit.count(|tally| tally.proxy_header(&connection));
    if let Some(ip) = connection.peer().ip() {
        permit.claim_address(ip)?;
    }
    let (io, connection) = acceptor.secure(stream, connection).await?;
    if let Some(tls) = &connection.tls {
        permit.count(|tally| tally.handshake(tls));
    }
    Ok((io, connection))
}

/// Why a connection was closed before it was handed on.
#[derive(Debug, thiserror::Error)]
enum NotServed {
    #[error(transparent)]
    Refused(#[from] Refused),
    #[error(transparent)]
    TooMany(#[from] TooMany),
}

/// At debug level: clients cause these at will.
fn log_refused(acceptor: &Acceptor, remote: Remote, error: &dyn std::error::Error) {
    let cause = error.source().map(tracing::field::display);
    tracing::debug!(listener = %acceptor.listener, %remote, %error, cause, "connection closed");
}

fn report_panic(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        tracing::error!(%error, "a connection's task panicked");
    }
}

/// Errors of accept(2) that concern the connection it would have returned and nothing else: the next call is fine.
fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::Interrupted
    ) || error.raw_os_error() == Some(libc::EPROTO)
}

/// Long enough to leave the processor alone, short enough for a client not to notice when descriptors are free again.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests;
