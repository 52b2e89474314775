//! Sites and routes: which request goes where.
//!
//! Reading them is in `route/read.rs`; matching is the edge's.

mod headers;
mod read;
mod rewrite;

use std::fmt;
use std::sync::Arc;

use http::{HeaderMap, Method, StatusCode};
use ipnet::IpNet;
use regex::Regex;

use crate::{ByteSize, StaticFiles, Upstream};

pub(crate) use read::{ReadSite, read_sites, takes_all_of};

/// One entry of `edge.sites`.
#[derive(Debug, Clone)]
pub struct Site {
    /// Label in logs; by default the first host.
    pub name: String,
    /// Hosts it answers for, at least one.
    pub hosts: Vec<HostPattern>,
    /// Listeners it is served on, by name. `None`: all.
    pub listeners: Option<Vec<String>>,
    /// Tried in this order, the first match wins.
    pub routes: Vec<Route>,
}

/// Which `Host` values a site answers for; compared in lower case, without port.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum HostPattern {
    /// `matrix.example.com`
    Exact(String),
    /// `*.example.com`, kept as `example.com`: any name with at least one more label.
    Wildcard(String),
    /// `_`: everything else.
    Any,
}

/// One entry of a site's `routes`: one matcher, one action, options.
#[derive(Debug, Clone)]
pub struct Route {
    /// Label in logs: the matcher as written.
    pub name: String,
    /// Which paths.
    pub matcher: Matcher,
    /// Which methods; `None`: all. A route that does not take the method does not match.
    pub methods: Option<Vec<Method>>,
    /// Networks that may use it; others get 403. `None`: everybody. Empty: nobody.
    pub allow: Option<Vec<IpNet>>,
    /// What is done.
    pub action: Action,
    /// What an upstream gets in place of the path; `None`: the target byte for byte. Only with [`Action::Upstream`].
    pub rewrite: Option<Rewrite>,
    /// Largest request body; `None`: `limits.max_body_size`.
    pub max_body_size: Option<ByteSize>,
    /// Fields that every answer of the route has, also 304 and errors; they replace those of the same name. Empty with
    /// [`Action::Upstream`].
    pub headers: HeaderMap,
}

/// A test on the normal form of the path.
#[derive(Debug, Clone)]
pub enum Matcher {
    /// The whole path.
    Path(String),
    /// The start of the path, byte for byte (`/assets/` does not match `/assets`).
    Prefix(String),
    /// Searched, not anchored, as in nginx.
    Regex(Regex),
}

impl Matcher {
    /// Whether a path in normal form is meant.
    pub fn matches(&self, path: &str) -> bool {
        match self {
            Self::Path(whole) => path == whole,
            Self::Prefix(prefix) => path.starts_with(prefix.as_str()),
            Self::Regex(regex) => regex.is_match(path),
        }
    }
}

/// What is done with a matched request.
#[derive(Debug, Clone)]
pub enum Action {
    /// Forward to an upstream.
    Upstream(Arc<Upstream>),
    /// Serve files.
    Static(StaticFiles),
    /// A fixed answer.
    Respond(Respond),
    /// `Location` and a 3xx status (default 308).
    Redirect {
        /// Where to; `{host}`, `{path}` and `{query}` are not replaced: a fixed URL.
        location: String,
        /// 301, 302, 303, 307 or 308.
        status: StatusCode,
    },
    /// Refuse with a status (default 403).
    Deny(StatusCode),
}

/// What an upstream gets in place of the path; the query stays as received.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rewrite {
    /// `strip_prefix`: the path without this start, what remains byte for byte. The start has no `/` at its end, and the route's
    /// [`Matcher::Prefix`] goes on with one, so at least `/` remains.
    StripPrefix(String),
    /// `replace_path`: this path, as it is written.
    ReplacePath(String),
}

/// `respond: {status, headers, body}`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Respond {
    /// Default 200.
    pub status: StatusCode,
    /// Header fields.
    pub headers: HeaderMap,
    /// Body, empty by default.
    pub body: String,
}

/// As it is written in `hosts`.
impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(name) => f.write_str(name),
            Self::Wildcard(parent) => write!(f, "*.{parent}"),
            Self::Any => f.write_str("_"),
        }
    }
}
