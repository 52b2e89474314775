//! Listening sockets: TCP, Unix and inherited ones. The only file with `unsafe`: taking over a descriptor by its number.
//! It knows nothing of what is spoken on them.

use std::fmt;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{BorrowedFd, OwnedFd, RawFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use conf::{Bind, SocketKind};
use socket2::{Domain, SockAddr, Socket, TcpKeepalive, Type};
use tokio::net::{TcpListener, UnixListener, lookup_host};
use tokio::time::timeout;

use crate::connection::{Remote, folded};
use crate::stream::Stream;

mod inherited;
mod queue;
mod unix;

use unix::SocketFile;

/// The sockets of one bind.
#[derive(Debug)]
pub struct Bound {
    /// Where they listen; the port is the actual one when 0 was asked for.
    pub address: BoundAddress,
    /// As many as asked for, at least one.
    pub sockets: Vec<BoundSocket>,
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
}

/// Opens `sockets` sockets (at least one) for one bind. TCP: each its own with `SO_REUSEPORT`, so that every thread has a
/// queue; Unix and inherited sockets: clones of one. A port that another process listens on is an error, even if
/// that process uses `SO_REUSEPORT` too.
///
/// # Errors
/// See [`BindError`].
pub async fn bind(bind: &Bind, sockets: usize) -> Result<Bound, BindError> {
    let sockets = sockets.max(1);
    match bind {
        Bind::Host { host: None, port } => bind_everywhere(*port, sockets),
        Bind::Host { host: Some(host), port } => bind_host(host, *port, sockets).await,
        Bind::Address(address) => bind_address(*address, sockets),
        Bind::Socket { path, mode } => {
            let (listener, file) = unix::listen(path, mode.unwrap_or(DEFAULT_MODE))?;
            clones(Kind::Unix(listener, Some(Arc::new(file))), sockets, &path.display().to_string())
        }
        Bind::Fd { index, kind } => {
            let socket = inherited::socket(*index, *kind)?;
            let kind = match kind {
                SocketKind::Tcp => Kind::Tcp(std::net::TcpListener::from(OwnedFd::from(socket))),
                SocketKind::Unix => Kind::Unix(OwnedFd::from(socket).into(), None),
            };
            clones(kind, sockets, &format!("inherited socket {index}"))
        }
    }
}

impl BoundSocket {
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

/// IPv6 and IPv4 in one socket where the system has IPv6, else IPv4.
fn bind_everywhere(port: u16, sockets: usize) -> Result<Bound, BindError> {
    let v6 = SocketAddr::from((Ipv6Addr::UNSPECIFIED, port));
    let v4 = SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
    open_tcp(v6, sockets).or_else(|first| open_tcp(v4, sockets).map_err(|_| tcp_error(v6, first)))
}

/// Where the system has no IPv6, `[::]` is all that is left of it: `0.0.0.0`.
fn bind_address(address: SocketAddr, sockets: usize) -> Result<Bound, BindError> {
    match open_tcp(address, sockets) {
        Err(error) if address.ip() == Ipv6Addr::UNSPECIFIED && is_missing_family(&error) => {
            tracing::info!(%address, "this system has no IPv6, binding IPv4 only");
            let v4 = SocketAddr::from((Ipv4Addr::UNSPECIFIED, address.port()));
            open_tcp(v4, sockets).map_err(|error| tcp_error(v4, error))
        }
        opened => opened.map_err(|error| tcp_error(address, error)),
    }
}

fn is_missing_family(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::AddrNotAvailable || error.raw_os_error() == Some(libc::EAFNOSUPPORT)
}

/// The first address of the name that can be bound; if none, what the first said.
async fn bind_host(host: &str, port: u16, sockets: usize) -> Result<Bound, BindError> {
    let unresolved = |source| BindError::Resolve { host: host.to_owned(), source };
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let addresses = timeout(RESOLVE_DEADLINE, lookup_host((bare, port)));
    let addresses = addresses.await.map_err(|late| unresolved(late.into()))?.map_err(unresolved)?;
    let mut first_error = None;
    for address in addresses {
        match bind_address(address, sockets) {
            Ok(bound) => return Ok(bound),
            Err(error) => first_error = first_error.or(Some(error)),
        }
    }
    Err(first_error.unwrap_or_else(|| unresolved(io::ErrorKind::NotFound.into())))
}

fn tcp_error(address: SocketAddr, error: io::Error) -> BindError {
    match error.kind() {
        io::ErrorKind::PermissionDenied => BindError::Permission { address: address.to_string() },
        _ => bind_error(address, error),
    }
}

fn bind_error(address: impl fmt::Display, error: io::Error) -> BindError {
    let address = address.to_string();
    match error.kind() {
        io::ErrorKind::AddrInUse => BindError::InUse { address },
        _ => BindError::System { address, source: error },
    }
}

/// The first socket is bound without `SO_REUSEPORT`, which fails if anybody else listens there, and joins the group of
/// the others only then. So a second Gatehouse cannot slip in silently, and there is no moment without a socket.
fn open_tcp(address: SocketAddr, sockets: usize) -> io::Result<Bound> {
    let first = tcp_socket(address)?;
    first.bind(&SockAddr::from(address))?;
    let actual = first.local_addr()?.as_socket().ok_or(io::ErrorKind::Unsupported)?;
    first.set_reuse_port(true)?;
    let mut opened = vec![first];
    while opened.len() < sockets {
        let next = tcp_socket(address)?;
        next.set_reuse_port(true)?;
        next.bind(&SockAddr::from(actual))?;
        opened.push(next);
    }
    for socket in &opened {
        socket.listen(BACKLOG)?;
    }
    let sockets = opened.into_iter().map(|socket| BoundSocket(Kind::Tcp(socket.into()))).collect();
    Ok(Bound { address: BoundAddress::Tcp(folded(actual)), sockets })
}

fn tcp_socket(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.set_reuse_address(true)?;
    if let SocketAddr::V6(v6) = address {
        socket.set_only_v6(!v6.ip().is_unspecified())?;
    }
    prepare_tcp(&socket)?;
    Ok(socket)
}

/// Options that accepted connections inherit.
fn prepare_tcp(socket: &Socket) -> io::Result<()> {
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE_AFTER))
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

/// As many descriptors of one socket as asked for.
fn clones(
    socket: Kind<std::net::TcpListener, std::os::unix::net::UnixListener>,
    sockets: usize,
    name: &str,
) -> Result<Bound, BindError> {
    let failed = |error| bind_error(name, error);
    let address = match &socket {
        Kind::Tcp(tcp) => BoundAddress::Tcp(tcp.local_addr().map_err(failed)?),
        Kind::Unix(_, Some(file)) => BoundAddress::Unix(Some(file.path().to_owned())),
        Kind::Unix(unix, None) => {
            BoundAddress::Unix(unix.local_addr().map_err(failed)?.as_pathname().map(Into::into))
        }
    };
    let mut all = Vec::with_capacity(sockets);
    while all.len() + 1 < sockets {
        all.push(BoundSocket(match &socket {
            Kind::Tcp(tcp) => Kind::Tcp(tcp.try_clone().map_err(failed)?),
            Kind::Unix(unix, file) => Kind::Unix(unix.try_clone().map_err(failed)?, file.clone()),
        }));
    }
    all.push(BoundSocket(socket));
    Ok(Bound { address, sockets: all })
}

/// Connections that wait for accept(2); the system caps it at `net.core.somaxconn`.
const BACKLOG: i32 = 4096;
/// Half of the time after which common home routers forget an idle connection (five minutes).
const KEEPALIVE_AFTER: Duration = Duration::from_secs(150);
/// Names of binds are few and usually in `/etc/hosts`.
const RESOLVE_DEADLINE: Duration = Duration::from_secs(10);
/// A Unix socket nobody but the owner may open.
const DEFAULT_MODE: u32 = 0o600;

#[cfg(test)]
mod tests;
