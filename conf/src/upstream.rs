//! Upstreams: named groups of servers.
//!
//! Names of hosts are resolved when used, never here.

mod proxy_protocol;

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::reader::{Item, nearest, quoted};
use crate::source::Span;
pub(crate) use proxy_protocol::{PROXY_TLVS, PROXY_VERSIONS};
pub use proxy_protocol::{ProxyTlv, ProxyVersion};

/// One entry of `edge.upstreams`, or one made from an address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upstream {
    /// Name in routes, logs and metrics.
    pub name: String,
    /// At least one; used in turn.
    pub servers: Vec<Server>,
    /// PROXY header to write first on each connection. `None`: none.
    pub proxy_protocol: Option<ProxyVersion>,
    /// What version 2 says beside the addresses, as far as it is known; empty for version 1.
    pub proxy_tlvs: Vec<ProxyTlv>,
    /// How `X-Forwarded-For` is written.
    pub forwarded_for: ForwardedFor,
}

/// Where one server of an upstream listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Server {
    /// `host:port` or `https://host:port`; the name is resolved when used, never at load.
    Tcp {
        /// Name or address, IPv6 without brackets.
        host: String,
        /// Port.
        port: u16,
        /// Speak TLS, verified for `host`.
        tls: bool,
    },
    /// `unix:/path`.
    Unix(PathBuf),
}

/// How `X-Forwarded-For` is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ForwardedFor {
    /// Exactly one bare address: the client's.
    #[default]
    Replace,
    /// What the client sent, then the remote address, as nginx's `$proxy_add_x_forwarded_for`.
    Append,
}

impl Server {
    /// Whether it is on this machine for sure.
    pub(crate) fn is_local(&self) -> bool {
        match self {
            Self::Unix(_) => true,
            Self::Tcp { host, .. } => {
                host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
            }
        }
    }
}

/// As it is written in `servers`.
impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port, tls } => {
                let scheme = if *tls { "https://" } else { "" };
                if host.contains(':') {
                    write!(f, "{scheme}[{host}]:{port}")
                } else {
                    write!(f, "{scheme}{host}:{port}")
                }
            }
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// `edge.upstreams` while it is being referred to.
#[derive(Debug, Default)]
pub(crate) struct Upstreams {
    /// Name, place, and the upstream unless it is faulty.
    entries: Vec<(String, Span, Option<Arc<Upstream>>)>,
    section: Option<Span>,
    used: RefCell<BTreeSet<String>>,
}

impl Upstreams {
    /// Reads `edge.upstreams`.
    pub(crate) fn read(item: &Item<'_>) -> Option<Self> {
        let section = item.section()?;
        let entries = section
            .entries()
            .map(|(name, item)| {
                if name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
                {
                    item.error("the name of an upstream is made of letters, digits, `-`, `_` and `.`");
                }
                (name.to_owned(), item.key_span(), read_upstream(name, &item).map(Arc::new))
            })
            .collect();
        Some(Self { entries, section: Some(item.key_span()), used: RefCell::default() })
    }

    /// Where an upstream of this name is defined.
    pub(crate) fn defined(&self, name: &str) -> Option<Span> {
        self.entries.iter().find(|(known, _, _)| known == name).map(|(_, span, _)| *span)
    }

    /// The upstream that the item names.
    pub(crate) fn find(&self, item: &Item<'_>) -> Option<Arc<Upstream>> {
        let name = item.filled_text()?;
        if let Some((_, _, upstream)) = self.entries.iter().find(|(known, _, _)| known == name) {
            self.used.borrow_mut().insert(name.to_owned());
            return upstream.clone();
        }
        let names = || self.entries.iter().map(|(name, _, _)| name.as_str());
        let message = match nearest(name, names()) {
            Some(near) => format!("there is no upstream `{name}`, did you mean \"{near}\"?"),
            None if self.entries.is_empty() => {
                format!(
                    "there is no upstream `{name}`, define it: edge.upstreams.{name}: {{servers: [\"host:port\"]}}"
                )
            }
            None => format!("there is no upstream `{name}`, defined are {}", quoted(names())),
        };
        let place = nearest(name, names()).and_then(|near| self.defined(near)).or(self.section);
        match place {
            Some(span) => item.error_with(message, span, "upstreams are defined here"),
            None => item.error(message),
        }
        None
    }

    /// Uses an upstream without a name being written, if it is defined.
    pub(crate) fn by_default(&self, name: &str) -> Option<Arc<Upstream>> {
        let (_, _, upstream) = self.entries.iter().find(|(known, _, _)| known == name)?;
        self.used.borrow_mut().insert(name.to_owned());
        upstream.clone()
    }

    /// Adds one that was made from an address.
    pub(crate) fn add(&mut self, upstream: Arc<Upstream>, span: Span) {
        self.used.borrow_mut().insert(upstream.name.clone());
        self.entries.push((upstream.name.clone(), span, Some(upstream)));
    }

    /// Warns of those nobody uses, and hands over all.
    pub(crate) fn finish(self, edge: &Item<'_>) -> Vec<Arc<Upstream>> {
        let used = self.used.into_inner();
        let unused = |(name, _, upstream): &&(String, Span, Option<Arc<Upstream>>)| {
            upstream.is_some() && !used.contains(name)
        };
        for (name, span, _) in self.entries.iter().filter(unused) {
            let path = format!("edge.upstreams.{name}");
            let message = "is not used by any route".to_owned();
            edge.context.find(crate::Severity::Warning, Some(*span), &path, message, &[]);
        }
        self.entries.into_iter().filter_map(|(_, _, upstream)| upstream).collect()
    }
}

fn read_upstream(name: &str, item: &Item<'_>) -> Option<Upstream> {
    let mut section = item.section()?;
    let servers = section.require("servers", "list at least one, such as [\"localhost:8080\"]");
    let servers = servers.and_then(|servers| {
        let read: Vec<Option<Server>> = servers.filled_list()?.iter().map(read_server).collect();
        read.into_iter().collect::<Option<Vec<_>>>()
    });
    let proxy = proxy_protocol::read(&mut section);
    let forwarded_for =
        section.take("forwarded_for").map_or(Some(ForwardedFor::Replace), |item| item.choice(&FORWARDED_FOR));
    section.later(&[
        ("balance", "load balancing other than in turn is"),
        ("weights", "load balancing other than in turn is"),
        ("health_check", "health checks are"),
        ("max_connections", "a bound on connections to upstreams is"),
        ("max_fails", "health checks are"),
        ("retries", "retries are"),
        ("resolve", "choosing how names are resolved is"),
        ("ca_file", "an authority of your own for upstreams is"),
        ("tls", "TLS options for upstreams (beyond https://) are"),
        ("http2", "HTTP/2 to upstreams is"),
    ]);
    section.finish();
    let (proxy_protocol, proxy_tlvs) = proxy?;
    Some(Upstream {
        name: name.to_owned(),
        servers: servers?,
        proxy_protocol,
        proxy_tlvs,
        forwarded_for: forwarded_for?,
    })
}

fn read_server(item: &Item<'_>) -> Option<Server> {
    if item.is_section() {
        item.error("options of one server (weight and the like) are not supported yet by this version, write its address");
        return None;
    }
    let server = item.parse(parse_server)?;
    Some(match server {
        Server::Unix(path) => Server::Unix(item.beside(&path)),
        Server::Tcp { .. } => server,
    })
}

/// `host:port`, `http://host[:port]`, `https://host[:port]` or `unix:/path`.
pub(crate) fn parse_server(text: &str) -> Result<Server, String> {
    if let Some(path) = text.strip_prefix("unix:") {
        let path = path.strip_prefix("//").unwrap_or(path);
        return if path.is_empty() {
            Err(format!("`{text}` lacks the path of the socket"))
        } else {
            Ok(Server::Unix(Path::new(path).to_owned()))
        };
    }
    let (tls, rest, default_port) = if let Some(rest) = text.strip_prefix("https://") {
        (true, rest, Some(443))
    } else if let Some(rest) = text.strip_prefix("http://") {
        (false, rest, Some(80))
    } else {
        (false, text, None)
    };
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    if rest.contains(['/', '?', '#', '@']) {
        return Err(format!(
            "`{text}` has more than a host and a port: requests are forwarded with the path they came with"
        ));
    }
    let wrong = || {
        format!("`{text}` is not an address of a server, write host:port, https://host:port or unix:/path")
    };
    let (host, port) = split_port(rest).ok_or_else(wrong)?;
    let port = match port {
        Some(port) => port.parse::<u16>().ok().filter(|port| *port > 0).ok_or_else(wrong)?,
        None => default_port.ok_or_else(|| format!("`{text}` lacks a port, write {rest}:8080"))?,
    };
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let host = match bare {
        Some(address) => address.parse::<Ipv6Addr>().map_err(|_| wrong())?.to_string(),
        None if is_host_name(host) => host.to_ascii_lowercase(),
        None => return Err(wrong()),
    };
    Ok(Server::Tcp { host, port, tls })
}

/// `host:port`, `[v6]:port` or without port.
pub(crate) fn split_port(text: &str) -> Option<(&str, Option<&str>)> {
    if text.starts_with('[') {
        let end = text.find(']')?;
        let (host, rest) = text.split_at(end + 1);
        return match rest.strip_prefix(':') {
            Some(port) => Some((host, Some(port))),
            None if rest.is_empty() => Some((host, None)),
            None => None,
        };
    }
    match text.split_once(':') {
        Some((_, port)) if port.contains(':') => None,
        Some((host, port)) => Some((host, Some(port))),
        None => Some((text, None)),
    }
}

/// A DNS name or an IPv4 address; underscores are tolerated, as container networks use them.
pub(crate) fn is_host_name(text: &str) -> bool {
    let label = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    !text.is_empty() && text.len() <= 253 && text.split('.').all(label)
}

/// The words for [`ForwardedFor`].
pub(crate) const FORWARDED_FOR: [(&str, ForwardedFor); 2] =
    [("replace", ForwardedFor::Replace), ("append", ForwardedFor::Append)];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_written_in_four_ways() {
        let tcp = |host: &str, port, tls| Ok(Server::Tcp { host: host.to_owned(), port, tls });
        assert_eq!(parse_server("localhost:8080"), tcp("localhost", 8080, false));
        assert_eq!(parse_server("[::1]:8080"), tcp("::1", 8080, false));
        assert_eq!(parse_server("http://localhost:8008/"), tcp("localhost", 8008, false));
        assert_eq!(parse_server("http://synapse"), tcp("synapse", 80, false));
        assert_eq!(parse_server("https://Auth.Example.com"), tcp("auth.example.com", 443, true));
        assert_eq!(parse_server("unix:/run/auth.sock"), Ok(Server::Unix("/run/auth.sock".into())));
        assert_eq!(parse_server("unix:///run/auth.sock"), Ok(Server::Unix("/run/auth.sock".into())));
        for wrong in [
            "",
            "localhost",
            "localhost:0",
            "localhost:99999",
            "::1:80",
            "http://h/path",
            "http://u@h",
            "a b:1",
            "unix:",
            "ftp://h:1",
        ] {
            assert!(parse_server(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_is_printed_parses_back() {
        for text in ["localhost:8080", "[::1]:8080", "https://auth.example.com:443", "unix:/run/auth.sock"] {
            assert_eq!(parse_server(text).unwrap().to_string(), text);
        }
    }
}
