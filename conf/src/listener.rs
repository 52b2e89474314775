//! Sockets: the bind forms of MAS, and the edge's listeners.
//!
//! Names are not resolved and nothing is bound here.

use std::net::SocketAddr;
use std::path::PathBuf;

use ipnet::IpNet;

use crate::reader::Item;
use crate::value::parse_network;

/// One socket to accept from, in any of MAS's forms.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Bind {
    /// `{host, port}`: the first address of the name that can be bound. Without a host `[::]` (dual stack), then `0.0.0.0`.
    Host {
        /// Name to resolve, or `None` for every address.
        host: Option<String>,
        /// Port; 0 lets the system choose.
        port: u16,
    },
    /// `{address: "ip:port"}`, never resolved. `[::]:port` also accepts IPv4.
    Address(SocketAddr),
    /// `{socket: path, mode: "660"}`: a Unix socket.
    Socket {
        /// Where it is bound; a stale socket there is replaced.
        path: PathBuf,
        /// Permission bits, written as octal text. `None`: 0o600.
        mode: Option<u32>,
    },
    /// `{fd: 0, kind: tcp}`: an inherited socket, counted from descriptor 3 (systemd's `LISTEN_FDS`).
    Fd {
        /// Index into the inherited sockets.
        index: usize,
        /// What kind of socket it has to be.
        kind: SocketKind,
    },
    /// `{fd_name: https, kind: tcp}`: the inherited socket that has this name (systemd's `FileDescriptorName=`), whatever its place.
    FdName {
        /// As in `LISTEN_FDNAMES`.
        name: String,
        /// What kind of socket it has to be.
        kind: SocketKind,
    },
}

/// The kind of an inherited socket. Default `tcp`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SocketKind {
    /// A listening TCP socket.
    Tcp,
    /// A listening Unix stream socket.
    Unix,
}

/// One entry of `edge.listeners`.
#[derive(Debug, Clone)]
pub struct EdgeListener {
    /// Label in logs and metrics.
    pub name: String,
    /// Sockets, at least one.
    pub binds: Vec<Bind>,
    /// Whether TLS is spoken (with the certificates of `edge.tls`).
    pub tls: bool,
    /// `proxy_protocol.from`: peers that must send a PROXY header. `None`: nobody may.
    pub proxy_protocol: Option<Vec<IpNet>>,
    /// Answer every request with a redirect to `https://` on the same host.
    pub redirect_https: bool,
}

/// Reads the entries of a `binds` key, at least one.
pub(crate) fn read_binds(item: &Item<'_>) -> Option<Vec<Bind>> {
    item.filled_list()?.iter().map(read_bind).collect::<Vec<_>>().into_iter().collect()
}

fn read_bind(item: &Item<'_>) -> Option<Bind> {
    let mut section = item.section()?;
    let host = section.take("host");
    let port = section.take("port");
    let address = section.take("address");
    let socket = section.take("socket");
    let mode = section.take("mode");
    let fd = section.take("fd");
    let fd_name = section.take("fd_name");
    let kind = section.take("kind");
    section.finish();

    let lone_kind = kind.as_ref().filter(|_| fd_name.is_none());
    let forms = [
        host.as_ref().or(port.as_ref()),
        address.as_ref(),
        socket.as_ref(),
        fd.as_ref().or(lone_kind),
        fd_name.as_ref(),
    ];
    let given: Vec<&Item<'_>> = forms.into_iter().flatten().collect();
    let [first, rest @ ..] = given.as_slice() else {
        item.error("a bind is one of {host, port}, {address}, {socket}, {fd} or {fd_name}");
        return None;
    };
    if let [second, ..] = rest {
        second.error_with(
            "a bind has one form only, make it an entry of its own",
            first.key_span(),
            "the form given first",
        );
        return None;
    }
    if let (Some(mode), None) = (&mode, &socket) {
        mode.error("only a bind with `socket` has a mode");
        return None;
    }
    if let Some(address) = address {
        return address.parse(parse_address).map(Bind::Address);
    }
    if let Some(socket) = socket {
        let mode = match mode {
            Some(mode) => Some(mode.parse(parse_mode)?),
            None => None,
        };
        return Some(Bind::Socket { path: socket.file_path()?, mode });
    }
    if fd.is_some() || fd_name.is_some() || kind.is_some() {
        let kind = kind.map_or(Some(SocketKind::Tcp), |kind| kind.choice(&SOCKET_KINDS));
        if let Some(name) = fd_name {
            let name = name.parse(parse_fd_name);
            return Some(Bind::FdName { name: name?, kind: kind? });
        }
        let index = fd.map_or(Some(0), |fd| fd.whole(0, 1023))?;
        return Some(Bind::Fd { index, kind: kind? });
    }
    let Some(port) = port else {
        item.error("`host` needs a `port` beside it");
        return None;
    };
    let host = match host {
        Some(host) => Some(host.filled_text()?.to_owned()),
        None => None,
    };
    Some(Bind::Host { host, port: port.whole(0, u16::MAX)? })
}

fn parse_address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| {
        format!("`{text}` is not an address with a port, write it as \"[::]:8080\" or \"127.0.0.1:8080\"; a name goes into `host` and `port`")
    })
}

/// What systemd takes: up to 255 printable characters of ASCII, of which none is a colon.
fn parse_fd_name(text: &str) -> Result<String, String> {
    let is_fit = |byte: u8| (b' '..=b'~').contains(&byte) && byte != b':';
    if text.is_empty() || text.len() > 255 || !text.bytes().all(is_fit) {
        return Err("has to be a name as in a socket unit's FileDescriptorName=: \
                    up to 255 printable characters of ASCII, and no colon"
            .to_owned());
    }
    Ok(text.to_owned())
}

/// `660`, `0660` or `0o660`.
fn parse_mode(text: &str) -> Result<u32, String> {
    match u32::from_str_radix(text.strip_prefix("0o").unwrap_or(text), 8) {
        Ok(mode) if mode <= 0o777 => Ok(mode),
        Ok(_) | Err(_) => Err(format!("`{text}` is not a file mode, write octal digits such as \"660\"")),
    }
}

/// The words for [`SocketKind`].
pub(crate) const SOCKET_KINDS: [(&str, SocketKind); 2] =
    [("tcp", SocketKind::Tcp), ("unix", SocketKind::Unix)];

/// Reads one entry of `edge.listeners`.
pub(crate) fn read_edge_listener(item: &Item<'_>) -> Option<EdgeListener> {
    let mut section = item.section()?;
    let name = section
        .require("name", "give the listener a name for logs and metrics")
        .and_then(|item| item.filled_text());
    let binds = section.require("binds", "say where to listen, such as [{address: \"[::]:443\"}]");
    let binds = binds.and_then(|item| read_binds(&item));
    let tls = section.take("tls").map_or(Some(false), |item| item.truth());
    let redirect_https = section.take("redirect_https").map_or(Some(false), |item| item.truth());
    let proxy_protocol = section.take("proxy_protocol").map_or(Some(None), |item| read_proxy_protocol(&item));
    section.later(&[
        ("client_ca_file", "client certificates are"),
        ("alpn", "choosing protocols is"),
        ("http2", "choosing protocols is"),
    ]);
    section.finish();
    let (tls, redirect_https) = (tls?, redirect_https?);
    if tls && redirect_https {
        item.error("a listener with `tls` has nothing to redirect, remove `redirect_https`");
        return None;
    }
    Some(EdgeListener {
        name: name?.to_owned(),
        binds: binds?,
        tls,
        proxy_protocol: proxy_protocol?,
        redirect_https,
    })
}

/// `{from: [networks]}`, or `false`.
fn read_proxy_protocol(item: &Item<'_>) -> Option<Option<Vec<IpNet>>> {
    match item.as_truth() {
        Some(false) => return Some(None),
        Some(true) => {
            item.error("say from whom: {from: [10.0.0.0/8]}; a PROXY header that anybody may send lets anybody choose an address");
            return None;
        }
        None => {}
    }
    let mut section = item.section()?;
    let from = section.require("from", "list the load balancers, such as [10.0.0.0/8]");
    section.finish();
    from?.parse_each(parse_network).map(Some)
}

/// Two sockets that cannot both be bound.
pub(crate) fn same_socket(a: &Bind, b: &Bind) -> bool {
    match (a, b) {
        (Bind::Address(a), Bind::Address(b)) => a == b && a.port() != 0,
        (Bind::Host { host: a, port: p }, Bind::Host { host: b, port: q }) => a == b && p == q && *p != 0,
        (Bind::Socket { path: a, .. }, Bind::Socket { path: b, .. }) => a == b,
        (Bind::Fd { index: a, .. }, Bind::Fd { index: b, .. }) => a == b,
        (Bind::FdName { name: a, .. }, Bind::FdName { name: b, .. }) => a == b,
        _ => false,
    }
}
