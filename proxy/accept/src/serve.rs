//! The accept loop: one task per connection, limits before anything is read, drain at the end.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::acceptor::{Acceptor, Refused};
use crate::bind::Listener;
use crate::connection::{Connection, Remote};
use crate::limits::{ConnectionLimits, Permit, TooMany};
use crate::stream::{Io, Stream};

/// Accepts until `stop` is true (or its sender gone), then closes the listener and waits for the connections, at most
/// `drain`, and aborts those still open. `handle` gets each connection that came through the acceptor and hears of
/// `stop` by itself. A connection over the limits is closed at once. When descriptors run out, accepting pauses
/// and goes on.
pub async fn serve<H, F>(
    listener: Listener,
    acceptor: Arc<Acceptor>,
    limits: Arc<ConnectionLimits>,
    mut stop: watch::Receiver<bool>,
    drain: Duration,
    handle: H,
) where
    H: Fn(Io, Connection) -> F + Clone + Send + 'static,
    F: Future<Output = ()> + Send + 'static,
{
    let mut connections = JoinSet::new();
    tokio::select! {
        biased;
        _ = stop.wait_for(|stop| *stop) => {}
        () = accept_on(&listener, &acceptor, &limits, &handle, &mut connections) => {}
    }
    drop(listener);
    let all_ended = async {
        while let Some(ended) = connections.join_next().await {
            report_panic(ended);
        }
    };
    if timeout(drain, all_ended).await.is_err() {
        tracing::info!(listener = %acceptor.listener, open = connections.len(), "closing connections still open");
        connections.shutdown().await;
    }
}

/// Accepts for ever; dropped when it has to stop, which loses no connection.
async fn accept_on<H, F>(
    listener: &Listener,
    acceptor: &Arc<Acceptor>,
    limits: &ConnectionLimits,
    handle: &H,
    connections: &mut JoinSet<()>,
) where
    H: Fn(Io, Connection) -> F + Clone + Send + 'static,
    F: Future<Output = ()> + Send + 'static,
{
    let mut is_short = false;
    loop {
        let accepted = tokio::select! {
            biased;
            Some(ended) = connections.join_next() => {
                report_panic(ended);
                continue;
            }
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, remote)) => {
                is_short = false;
                match limits.admit() {
                    Ok(permit) => {
                        connections.spawn(one(acceptor.clone(), permit, stream, remote, handle.clone()));
                    }
                    Err(error) => log_refused(acceptor, remote, &error),
                }
            }
            Err(error) if is_of_one_connection(&error) => {}
            Err(error) => {
                // Once per shortage, not ten times a second.
                if !is_short {
                    tracing::warn!(listener = %acceptor.listener, %error, "cannot accept, trying again");
                }
                is_short = true;
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
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
            if let NotServed::Refused(refused) = &error {
                permit.count_refused(refused.reason());
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
    if let Some(ip) = connection.peer().ip() {
        permit.claim_address(ip)?;
    }
    Ok(acceptor.secure(stream, connection).await?)
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
