//! Listening sockets: TCP, Unix and inherited ones, and the registry of all that this process has ([`Sockets`]). The only file
//! with `unsafe`: taking over a descriptor by its number, and a socket option that no crate has. It knows nothing of what is spoken on them.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd as _, BorrowedFd, OwnedFd, RawFd};
use std::path::PathBuf;
use std::sync::Arc;

use socket2::Socket;
use tokio::net::{TcpListener, UnixListener};

use crate::connection::Remote;
use crate::stream::Stream;

mod handover;
mod inherited;
mod queue;
mod sockets;
mod tcp;
mod unix;

pub use handover::{AdoptError, Label, Passed};
pub use sockets::{Change, Changed, Sockets};

use unix::SocketFile;

/// The sockets of one bind.
#[derive(Debug)]
pub struct Bound {
    /// Where they listen; the port is the actual one when 0 was asked for.
    pub address: BoundAddress,
    /// As many as asked for, at least one; more where more were held already, each with a queue of its own: all of them have to be
    /// accepted from.
    pub sockets: Vec<BoundSocket>,
    /// Whether this process listened there before the change.
    pub held: bool,
}

/// Where a socket listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BoundAddress {
    /// TCP.
    Tcp(SocketAddr),
    /// A Unix socket; `None` for one without a path.
    Unix(Option<PathBuf>),
}

/// A listening socket that no runtime has yet.
#[derive(Debug)]
pub struct BoundSocket(Kind<std::net::TcpListener, std::os::unix::net::UnixListener>);

/// A listening socket of the current runtime. A Unix socket's file is removed with the last socket on it.
#[derive(Debug)]
pub struct Listener(Kind<TcpListener, UnixListener>);

#[derive(Debug)]
enum Kind<T, U> {
    Tcp(T),
    Unix(U, Option<Arc<SocketFile>>),
}

/// Why a bind has no socket.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Another process listens there.
    #[error("{address} is in use by another process")]
    InUse {
        /// What was to be bound.
        address: String,
    },
    /// Ports below 1024 need a privilege.
    #[error("no permission to bind {address}; ports below 1024 need CAP_NET_BIND_SERVICE")]
    Permission {
        /// What was to be bound.
        address: String,
    },
    /// Another bind of the same configuration has it.
    #[error("{address} is asked for twice: listener {listener} has {other}")]
    Twice {
        /// What was to be bound.
        address: String,
        /// Who has it.
        listener: String,
        /// What that one is bound to.
        other: String,
    },
    /// Whatever else the system says.
    #[error("cannot bind {address}")]
    System {
        /// What was to be bound.
        address: String,
        /// The system's word.
        #[source]
        source: io::Error,
    },
    /// The host's name has no address.
    #[error("cannot resolve {host}")]
    Resolve {
        /// The name.
        host: String,
        /// The resolver's word.
        #[source]
        source: io::Error,
    },
    /// The path of a Unix socket holds something that is not a socket; it is not touched.
    #[error("{} exists and is not a socket", path.display())]
    NotASocket {
        /// The path.
        path: PathBuf,
    },
    /// A Unix socket's path is limited to 107 bytes by the system.
    #[error("{} is too long for a Unix socket: at most 107 bytes", path.display())]
    PathTooLong {
        /// The path.
        path: PathBuf,
    },
    /// A bind by descriptor without such a descriptor.
    #[error("inherited socket {index}: {problem}")]
    Inherited {
        /// As configured, counted from 0.
        index: usize,
        /// What is wrong with it.
        problem: String,
    },
    /// A bind by the name of a descriptor that cannot be found by it.
    #[error("inherited socket `{name}`: {problem}")]
    InheritedName {
        /// As configured.
        name: String,
        /// Why not.
        problem: String,
    },
}

impl BoundSocket {
    /// Another descriptor of the same TCP socket.
    fn tcp(socket: &Socket) -> io::Result<Self> {
        socket.try_clone().map(|socket| Self(Kind::Tcp(socket.into())))
    }

    /// Another descriptor of the same Unix socket.
    fn unix(socket: &Socket, file: Option<Arc<SocketFile>>) -> io::Result<Self> {
        socket.try_clone().map(|socket| Self(Kind::Unix(OwnedFd::from(socket).into(), file)))
    }

    /// Hands the socket to the current runtime.
    ///
    /// # Errors
    /// The runtime's poller refuses it.
    pub fn into_listener(self) -> io::Result<Listener> {
        Ok(Listener(match self.0 {
            Kind::Tcp(tcp) => Kind::Tcp(TcpListener::from_std(tcp)?),
            Kind::Unix(unix, file) => Kind::Unix(UnixListener::from_std(unix)?, file),
        }))
    }
}

impl Listener {
    /// The next connection. Cancel safe.
    ///
    /// # Errors
    /// What accept(2) says.
    pub async fn accept(&self) -> io::Result<(Stream, Remote)> {
        match &self.0 {
            // TCP_NODELAY and keep-alive are inherited from the listening socket.
            Kind::Tcp(tcp) => {
                tcp.accept().await.map(|(stream, from)| (Stream::Tcp(stream), Remote::from(from)))
            }
            Kind::Unix(unix, _) => {
                unix.accept().await.map(|(stream, _)| (Stream::Unix(stream), Remote::Unix))
            }
        }
    }
}

impl fmt::Display for BoundAddress {
    /// `127.0.0.1:8080`, `[::]:443` or `unix:/path`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(Some(path)) => write!(f, "unix:{}", path.display()),
            Self::Unix(None) => f.write_str("unix:(unnamed)"),
        }
    }
}

fn bind_error(address: impl fmt::Display, error: io::Error) -> BindError {
    let address = address.to_string();
    match error.kind() {
        io::ErrorKind::AddrInUse => BindError::InUse { address },
        _ => BindError::System { address, source: error },
    }
}

/// A clone of a descriptor that is known by its number only, closed on exec. The original is marked so too: what we
/// start ourselves has no business with it.
fn clone_of(descriptor: RawFd) -> io::Result<OwnedFd> {
    #[expect(unsafe_code, reason = "a descriptor by number has no owner to borrow from")]
    // SAFETY: fcntl takes any number and fails with EBADF on one that is not open.
    if unsafe { libc::fcntl(descriptor, libc::F_SETFD, libc::FD_CLOEXEC) } == -1 {
        return Err(io::Error::last_os_error());
    }
    #[expect(unsafe_code, reason = "a descriptor by number has no owner to borrow from")]
    // SAFETY: it was open a moment ago, inherited descriptors are closed by nobody in this process, and the borrow
    // ends with the clone.
    unsafe { BorrowedFd::borrow_raw(descriptor) }.try_clone_to_owned()
}

/// Bytes of an answer that the system takes from us while the client takes none of them: at most about this many, on every connection
/// of this listening socket. Otherwise it is as many as fit into the send buffer, up to 4 MiB: an answer of 1 MiB would be gone for us at
/// once, no deadline would see how slowly the client takes it, and some thousand such clients would use up the memory that the
/// system has for all of TCP (`net.ipv4.tcp_mem`), and stop everybody. What is under way to the client does not count, so
/// long fast ways stay fast.
fn limit_unsent(socket: &Socket) -> io::Result<()> {
    let most: libc::c_uint = UNSENT_BYTES;
    let size = libc::socklen_t::try_from(size_of_val(&most)).map_err(|_| io::ErrorKind::InvalidInput)?;
    #[expect(unsafe_code, reason = "neither socket2 nor rustix has this option")]
    // SAFETY: the descriptor is open, since `socket` is borrowed, and the option is read from an integer of the size that is given.
    let outcome = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_NOTSENT_LOWAT,
            (&raw const most).cast(),
            size,
        )
    };
    if outcome == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// As much as two reads from an upstream: more is fetched before a fast client has taken it all.
const UNSENT_BYTES: u32 = 128 << 10;

/// Connections that wait for accept(2); the system caps it at `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

#[cfg(test)]
mod tests;
