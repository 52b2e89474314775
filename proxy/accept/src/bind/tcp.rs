//! Opening TCP sockets: which addresses a bind may mean, and how a group of sockets comes to share one.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use conf::Bind;
use socket2::{Domain, SockAddr, Socket, TcpKeepalive, Type};
use tokio::net::lookup_host;
use tokio::time::timeout;

use super::{BACKLOG, BindError, bind_error};
use crate::connection::folded;

/// One address that a bind may mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Candidate {
    pub(super) address: SocketAddr,
    /// Only meant where the address before it cannot be bound for want of IPv6.
    pub(super) without_v6: bool,
}

/// What a bind may mean, best first: the addresses of a name; `[::]`, which takes IPv4 too, then `0.0.0.0`.
///
/// # Errors
/// [`BindError::Resolve`] when a name has no address, or nobody says within 10 s.
pub(super) async fn candidates(host: Option<&str>, port: u16) -> Result<Vec<Candidate>, BindError> {
    let Some(host) = host else {
        let [v6, v4] = everywhere(port);
        return Ok([v6, v4].map(|address| Candidate { address, without_v6: false }).into());
    };
    let unresolved = |source| BindError::Resolve { host: host.to_owned(), source };
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let addresses = timeout(RESOLVE_DEADLINE, lookup_host((bare, port)));
    let addresses = addresses.await.map_err(|late| unresolved(late.into()))?.map_err(unresolved)?;
    let candidates: Vec<_> = addresses.flat_map(candidates_of).collect();
    if candidates.is_empty() { Err(unresolved(io::ErrorKind::NotFound.into())) } else { Ok(candidates) }
}

/// The address itself. Where the system has no IPv6, `0.0.0.0` is all that is left of `[::]`.
pub(super) fn candidates_of(address: SocketAddr) -> Vec<Candidate> {
    let mut all = vec![Candidate { address, without_v6: false }];
    if address.ip() == Ipv6Addr::UNSPECIFIED {
        let [_, v4] = everywhere(address.port());
        all.push(Candidate { address: v4, without_v6: true });
    }
    all
}

fn everywhere(port: u16) -> [SocketAddr; 2] {
    [(Ipv6Addr::UNSPECIFIED, port).into(), (Ipv4Addr::UNSPECIFIED, port).into()]
}

/// The addresses of a bind that is neither a Unix socket nor inherited.
pub(super) async fn candidates_for(bind: &Bind) -> Result<Vec<Candidate>, BindError> {
    match bind {
        Bind::Host { host, port } => candidates(host.as_deref(), *port).await,
        Bind::Address(address) => Ok(candidates_of(*address)),
        Bind::Socket { .. } | Bind::Fd { .. } | Bind::FdName { .. } => Ok(Vec::new()),
    }
}

pub(super) fn is_missing_family(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::AddrNotAvailable || error.raw_os_error() == Some(libc::EAFNOSUPPORT)
}

pub(super) fn error(address: SocketAddr, error: io::Error) -> BindError {
    match error.kind() {
        io::ErrorKind::PermissionDenied => BindError::Permission { address: address.to_string() },
        _ => bind_error(address, error),
    }
}

/// Whether two sockets would compete for connections: the same port, and the same address or one that means every address of
/// its family. `[::]` means IPv4 too. Port 0 competes with nothing.
pub(super) fn overlap(a: SocketAddr, b: SocketAddr) -> bool {
    let (a, b) = (folded(a), folded(b));
    let covers = |wide: SocketAddr, narrow: SocketAddr| {
        wide.ip().is_unspecified() && (wide.is_ipv6() || narrow.is_ipv4())
    };
    a.port() != 0 && a.port() == b.port() && (a.ip() == b.ip() || covers(a, b) || covers(b, a))
}

/// Opens `count` listening sockets that share an address. The first is bound without `SO_REUSEPORT`, which fails if anybody else
/// listens there, and joins the group of the others only then. So a second Gatehouse cannot slip in silently, and there
/// is no moment without a socket.
pub(super) fn open(address: SocketAddr, count: usize) -> io::Result<(SocketAddr, Vec<Socket>)> {
    let first = unbound(address)?;
    first.bind(&SockAddr::from(address))?;
    let actual = local(&first)?;
    first.set_reuse_port(true)?;
    let mut all = vec![first];
    while all.len() < count {
        all.push(join(actual)?);
    }
    for socket in &all {
        socket.listen(BACKLOG)?;
    }
    Ok((actual, all))
}

/// One more socket for an address at which, or at part of which, this process listens already. It is bound, but takes no connection
/// before it listens: nothing is lost when it is closed again.
pub(super) fn join(address: SocketAddr) -> io::Result<Socket> {
    let socket = unbound(address)?;
    socket.set_reuse_port(true)?;
    socket.bind(&SockAddr::from(address))?;
    Ok(socket)
}

/// Where a socket is bound.
pub(super) fn local(socket: &Socket) -> io::Result<SocketAddr> {
    socket.local_addr()?.as_socket().ok_or_else(|| io::ErrorKind::Unsupported.into())
}

fn unbound(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.set_reuse_address(true)?;
    if let SocketAddr::V6(v6) = address {
        socket.set_only_v6(!v6.ip().is_unspecified())?;
    }
    prepare(&socket)?;
    Ok(socket)
}

/// Options that accepted connections inherit.
pub(super) fn prepare(socket: &Socket) -> io::Result<()> {
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE_AFTER))?;
    super::limit_unsent(socket)
}

/// Half of the time after which common home routers forget an idle connection (five minutes).
const KEEPALIVE_AFTER: Duration = Duration::from_secs(150);
/// Names of binds are few and usually in `/etc/hosts`.
const RESOLVE_DEADLINE: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    fn check(a: &str, b: &str, expected: bool) {
        let (a, b): (SocketAddr, SocketAddr) = (a.parse().unwrap(), b.parse().unwrap());
        assert_eq!((overlap(a, b), overlap(b, a)), (expected, expected), "{a} {b}");
    }

    #[test]
    fn an_unspecified_address_competes_with_all_of_its_port() {
        check("127.0.0.1:80", "127.0.0.1:80", true);
        check("127.0.0.1:80", "127.0.0.1:81", false);
        check("127.0.0.1:80", "127.0.0.2:80", false);
        check("0.0.0.0:80", "127.0.0.1:80", true);
        check("0.0.0.0:80", "[::1]:80", false);
        check("[::]:80", "127.0.0.1:80", true);
        check("[::]:80", "[::1]:80", true);
        check("[::]:80", "0.0.0.0:80", true);
        check("[::ffff:127.0.0.1]:80", "127.0.0.1:80", true);
        check("0.0.0.0:0", "0.0.0.0:0", false);
    }
}
