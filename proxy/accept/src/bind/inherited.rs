//! Sockets handed over by whoever started us: systemd's `LISTEN_FDS` protocol, sd_listen_fds(3).

use std::env;
use std::fmt;
use std::os::fd::RawFd;
use std::sync::Arc;

use conf::SocketKind;
use serde::{Deserialize, Serialize};
use socket2::{Domain, Socket, Type};

use super::{BindError, clone_of, tcp};

/// A clone of inherited socket `index`, checked to be a listening socket of this kind, set non-blocking.
pub(super) fn socket(index: usize, kind: SocketKind) -> Result<Socket, BindError> {
    let (pid, count) = (env::var("LISTEN_PID").ok(), env::var("LISTEN_FDS").ok());
    descriptor(index, pid.as_deref(), count.as_deref(), std::process::id())
        .and_then(|descriptor| checked(descriptor, kind))
        .map_err(|problem| BindError::Inherited { index, problem })
}

/// Which of the inherited sockets one is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Place {
    /// Counted from 0.
    pub(super) index: usize,
    /// From `LISTEN_FDNAMES`; several may have the same.
    pub(super) name: Option<Arc<str>>,
}

/// How a bind refers to one.
#[derive(Debug, Clone, Copy)]
pub(super) enum Which<'a> {
    /// By its place.
    Index(usize),
    /// By its name.
    Name(&'a str),
}

impl Which<'_> {
    /// Whether it means this one.
    pub(super) fn is(self, place: &Place) -> bool {
        match self {
            Self::Index(index) => index == place.index,
            Self::Name(name) => place.name.as_deref() == Some(name),
        }
    }

    /// What is wrong with it.
    pub(super) fn error(self, problem: String) -> BindError {
        match self {
            Self::Index(index) => BindError::Inherited { index, problem },
            Self::Name(name) => BindError::InheritedName { name: name.to_owned(), problem },
        }
    }

    /// Where it is among those of this process.
    ///
    /// # Errors
    /// There is none of this name, or there are several.
    pub(super) fn place(self) -> Result<Place, BindError> {
        let names = env::var("LISTEN_FDNAMES").ok();
        let index = match self {
            Self::Index(index) => index,
            Self::Name(name) => index_in(names.as_deref(), name).map_err(|problem| self.error(problem))?,
        };
        Ok(Place { index, name: name_at(names.as_deref(), index) })
    }
}

impl fmt::Display for Which<'_> {
    /// `inherited socket 0`, or with its name.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Index(index) => write!(f, "inherited socket {index}"),
            Self::Name(name) => write!(f, "inherited socket `{name}`"),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.name.as_deref().map_or(Which::Index(self.index), Which::Name).fmt(f)
    }
}

/// Every inherited socket that is a listening one. What is something else is left out.
pub(super) fn all() -> Vec<(Place, Socket)> {
    let names = env::var("LISTEN_FDNAMES").ok();
    let socket = |index| {
        let found = socket(index, SocketKind::Tcp).or_else(|_| socket(index, SocketKind::Unix)).ok()?;
        Some((Place { index, name: name_at(names.as_deref(), index) }, found))
    };
    let count = env::var("LISTEN_FDS").ok().and_then(|count| count.parse().ok()).unwrap_or(0);
    (0..count.min(MOST)).filter_map(socket).collect()
}

fn name_at(names: Option<&str>, index: usize) -> Option<Arc<str>> {
    names?.split(':').nth(index).filter(|name| !name.is_empty()).map(Arc::from)
}

fn index_in(names: Option<&str>, name: &str) -> Result<usize, String> {
    let Some(names) = names else {
        return Err("none was handed over with a name: LISTEN_FDNAMES is not set; \
                    start with a systemd socket unit, or bind an address"
            .into());
    };
    let mut found = names.split(':').enumerate().filter(|(_, other)| *other == name);
    let Some((index, _)) = found.next() else {
        let names = names.split(':').collect::<Vec<_>>().join("`, `");
        return Err(format!(
            "there is none of this name, only `{names}` (FileDescriptorName= in the socket unit)"
        ));
    };
    if found.next().is_some() {
        return Err(SEVERAL.into());
    }
    Ok(index)
}

/// The descriptor of inherited socket `index`, given the two variables.
fn descriptor(index: usize, pid: Option<&str>, count: Option<&str>, own_pid: u32) -> Result<RawFd, String> {
    let (Some(pid), Some(count)) = (pid, count) else {
        return Err("none was handed over: LISTEN_PID and LISTEN_FDS are not set; \
                    start with a systemd socket unit, or bind an address"
            .into());
    };
    if pid.parse() != Ok(own_pid) {
        return Err(format!("LISTEN_PID is {pid}, but this process is {own_pid}"));
    }
    let count: usize = count.parse().map_err(|_| format!("LISTEN_FDS is not a number: {count:?}"))?;
    if index >= count {
        return Err(format!("only {count} handed over (LISTEN_FDS), counted from 0"));
    }
    RawFd::try_from(index)
        .ok()
        .and_then(|index| index.checked_add(FIRST))
        .ok_or_else(|| "index is too large".into())
}

/// A clone: the original stays open, so that a second bind or a reload finds it again.
fn checked(descriptor: RawFd, kind: SocketKind) -> Result<Socket, String> {
    let system = |error: std::io::Error| format!("descriptor {descriptor}: {error}");
    let socket = Socket::from(clone_of(descriptor).map_err(system)?);
    let domain =
        socket.domain().map_err(|error| format!("descriptor {descriptor} is not a socket: {error}"))?;
    let (fits, expected) = match kind {
        SocketKind::Tcp => (domain == Domain::IPV4 || domain == Domain::IPV6, "TCP"),
        SocketKind::Unix => (domain == Domain::UNIX, "Unix"),
    };
    if !fits || socket.r#type().map_err(system)? != Type::STREAM {
        return Err(format!("descriptor {descriptor} is not a {expected} stream socket; see `kind`"));
    }
    if !socket.is_listener().map_err(system)? {
        return Err(format!(
            "descriptor {descriptor} does not listen; in a systemd socket unit, Accept= must be no"
        ));
    }
    socket.set_nonblocking(true).map_err(system)?;
    if kind == SocketKind::Tcp {
        tcp::prepare(&socket).map_err(system)?;
    }
    Ok(socket)
}

/// What is wrong with a name that several have.
pub(super) const SEVERAL: &str = "several have this name; give each a socket unit with a FileDescriptorName= of its own, \
                                  or refer to them by their place, as `fd`";
/// As many as `fd` in a bind can name.
const MOST: usize = 1024;
/// SD_LISTEN_FDS_START
const FIRST: RawFd = 3;

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsRawFd as _;
    use std::os::unix::net::UnixListener;

    use super::*;

    fn check(index: usize, pid: Option<&str>, count: Option<&str>, expected: Result<RawFd, &str>) {
        let found = descriptor(index, pid, count, 42);
        match expected {
            Ok(descriptor) => assert_eq!(found, Ok(descriptor)),
            Err(part) => assert!(found.as_ref().is_err_and(|problem| problem.contains(part)), "{found:?}"),
        }
    }

    #[test]
    fn descriptors_count_from_three() {
        check(0, Some("42"), Some("2"), Ok(3));
        check(1, Some("42"), Some("2"), Ok(4));
        check(2, Some("42"), Some("2"), Err("only 2 handed over"));
        check(0, Some("42"), Some("0"), Err("only 0 handed over"));
        check(usize::MAX - 1, Some("42"), Some("18446744073709551615"), Err("too large"));
    }

    #[test]
    fn names_are_found_whatever_their_place() {
        let names = Some("http:https:two:two:a b");
        assert_eq!(index_in(names, "https"), Ok(1));
        assert_eq!(index_in(names, "a b"), Ok(4));
        assert_eq!(name_at(names, 4).as_deref(), Some("a b"));
        assert_eq!((name_at(names, 5), name_at(None, 0), name_at(Some(":b"), 0)), (None, None, None));
        let problem = |names, name| index_in(names, name).unwrap_err();
        assert!(
            problem(names, "HTTPS").contains("only `http`, `https`, `two`"),
            "{}",
            problem(names, "HTTPS")
        );
        assert!(problem(names, "two").contains("several have this name"));
        assert!(problem(None, "http").contains("LISTEN_FDNAMES is not set"));
    }

    #[test]
    fn variables_of_another_process_are_not_ours() {
        check(0, Some("41"), Some("1"), Err("LISTEN_PID is 41"));
        check(0, None, Some("1"), Err("not set"));
        check(0, Some("42"), None, Err("not set"));
        check(0, Some("42"), Some("x"), Err("not a number"));
    }

    #[test]
    fn kind_is_checked() {
        let folder = tempfile::tempdir().unwrap();
        let unix = UnixListener::bind(folder.path().join("socket")).unwrap();
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let connected = TcpStream::connect(tcp.local_addr().unwrap()).unwrap();
        let file = tempfile::tempfile().unwrap();

        assert!(checked(tcp.as_raw_fd(), SocketKind::Tcp).is_ok());
        assert!(checked(tcp.as_raw_fd(), SocketKind::Tcp).is_ok(), "the original stays open");
        assert!(checked(unix.as_raw_fd(), SocketKind::Unix).is_ok());
        let problem = |descriptor, kind| checked(descriptor, kind).unwrap_err();
        assert!(problem(tcp.as_raw_fd(), SocketKind::Unix).contains("not a Unix stream socket"));
        assert!(problem(unix.as_raw_fd(), SocketKind::Tcp).contains("not a TCP stream socket"));
        assert!(problem(connected.as_raw_fd(), SocketKind::Tcp).contains("does not listen"));
        assert!(problem(file.as_raw_fd(), SocketKind::Tcp).contains("not a socket"));
        assert!(problem(9999, SocketKind::Tcp).contains("Bad file descriptor"));
    }
}
