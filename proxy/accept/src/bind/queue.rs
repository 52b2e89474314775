//! Accepting without waiting: for a task that has several sockets, and what is left in the queue of one that is closed.

use std::io;
use std::iter;
use std::task::{Context, Poll, ready};

use tokio::net::{TcpStream, UnixStream};

use super::{BACKLOG, Kind, Listener};
use crate::connection::Remote;
use crate::stream::Stream;

impl Listener {
    /// The next connection. One task at a time is woken for it.
    ///
    /// # Errors
    /// What accept(2) says.
    pub fn poll_accept(&self, context: &mut Context<'_>) -> Poll<io::Result<(Stream, Remote)>> {
        Poll::Ready(Ok(match &self.0 {
            // TCP_NODELAY and keep-alive are inherited from the listening socket.
            Kind::Tcp(tcp) => {
                let (stream, from) = ready!(tcp.poll_accept(context))?;
                (Stream::Tcp(stream), Remote::from(from))
            }
            Kind::Unix(unix, _) => (Stream::Unix(ready!(unix.poll_accept(context))?.0), Remote::Unix),
        }))
    }

    /// The connections that the system has accepted and nobody has taken; the socket is closed with the iterator. At most as
    /// many as a queue has places, for another process may have the socket too. What the runtime last heard of the socket
    /// is not believed: the system itself is asked.
    ///
    /// # Errors
    /// The runtime does not let the socket go.
    pub fn into_queue(self) -> io::Result<impl Iterator<Item = (Stream, Remote)>> {
        let listener = match self.0 {
            Kind::Tcp(tcp) => Kind::Tcp(tcp.into_std()?),
            Kind::Unix(unix, file) => Kind::Unix(unix.into_std()?, file),
        };
        let next = move || match &listener {
            Kind::Tcp(tcp) => {
                let (stream, from) = tcp.accept()?;
                stream.set_nonblocking(true)?;
                Ok((Stream::Tcp(TcpStream::from_std(stream)?), Remote::from(from)))
            }
            Kind::Unix(unix, _) => {
                let (stream, _) = unix.accept()?;
                stream.set_nonblocking(true)?;
                Ok((Stream::Unix(UnixStream::from_std(stream)?), Remote::Unix))
            }
        };
        Ok(iter::from_fn(move || next_taken(&next)).take(BACKLOG.unsigned_abs() as usize))
    }
}

/// Passes over connections that ended in the queue; ends when the queue is empty, or nothing more can be taken.
fn next_taken(next: &impl Fn() -> io::Result<(Stream, Remote)>) -> Option<(Stream, Remote)> {
    loop {
        match next() {
            Ok(taken) => return Some(taken),
            Err(error) => match error.kind() {
                io::ErrorKind::WouldBlock => return None,
                io::ErrorKind::ConnectionAborted
                | io::ErrorKind::ConnectionReset
                | io::ErrorKind::Interrupted => {}
                _ => {
                    tracing::warn!(%error, "connections that wait for accept are lost");
                    return None;
                }
            },
        }
    }
}
