//! `edge.matrix`: a Matrix deployment in a few lines, expanded to upstreams, listeners, sites and routes.
//!
//! What the preset makes is ordinary configuration: `gatehouse config show` prints it, and it can be written out by hand instead.

mod expand;
mod guard;
mod rtc;
mod synapse_config;
mod web_client;
mod well_known;

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::Path;
use std::sync::Arc;

use ipnet::IpNet;
use url::Url;

use crate::edge::MAINTENANCE;
use crate::reader::{Item, nearest};
use crate::source::Span;
use crate::upstream::{Upstreams, is_host_name, parse_server, split_port};
use crate::value::parse_network;
use crate::{AuthListener, Bind, ForwardedFor, ProxyTlv, ProxyVersion, Resource, Server, Upstream};

pub(crate) use expand::{expand_listeners, expand_sites};
use rtc::Rtc;
pub(crate) use synapse_config::{DEBIAN as DEBIANS_SYNAPSE, UploadLimit};
use web_client::WebClient;
use well_known::WellKnown;

/// `edge.matrix`, checked.
#[derive(Debug)]
pub(crate) struct Preset {
    /// The server name, as in Matrix ids.
    pub(crate) server_name: String,
    /// Where it is written.
    pub(crate) server_name_span: Span,
    /// Where clients find Synapse.
    pub(crate) host: Authority,
    /// Where clients find the auth service.
    pub(crate) auth_host: Authority,
    /// Synapse; `None` when it was faulty.
    pub(crate) synapse: Option<Arc<Upstream>>,
    /// Whether the auth service runs in this process.
    pub(crate) bundled: bool,
    /// Where `auth` is written, else where the preset is.
    pub(crate) auth_span: Span,
    /// The auth service; for the bundled one set by [`Preset::connect`].
    pub(crate) auth: Option<Arc<Upstream>>,
    /// Port of the federation listener.
    pub(crate) federation_port: Option<u16>,
    /// What is answered at `/.well-known/matrix/*`; `None`: nothing.
    pub(crate) well_known: Option<WellKnown>,
    /// What Synapse takes, if its configuration was found.
    pub(crate) upload_limit: Option<UploadLimit>,
    /// Files of a web client.
    pub(crate) web_client: Option<WebClient>,
    /// MatrixRTC, if there is any.
    pub(crate) rtc: Option<Rtc>,
    /// Networks that may reach `/_synapse/admin` and `/_synapse/metrics`.
    pub(crate) admin_allow: Vec<IpNet>,
}

/// A host name with the port that clients use; `None`: 443.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Authority {
    /// Lower case; IPv6 in brackets.
    pub(crate) name: String,
    /// The port, if it is not 443.
    pub(crate) port: Option<u16>,
}

impl fmt::Display for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.port {
            Some(port) => write!(f, "{}:{port}", self.name),
            None => f.write_str(&self.name),
        }
    }
}

impl Authority {
    fn parse(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is not a host name (with a port if it is not 443)");
        if text.contains("://") || text.contains('/') {
            return Err(format!("{}, leave out scheme and path", wrong()));
        }
        let (name, port) = split_port(text).ok_or_else(wrong)?;
        let address = name.strip_prefix('[').and_then(|name| name.strip_suffix(']'));
        if !(address.is_some_and(|address| address.parse::<Ipv6Addr>().is_ok()) || is_host_name(name)) {
            return Err(wrong());
        }
        let port = match port {
            Some(port) => Some(port.parse::<u16>().ok().filter(|port| *port > 0).ok_or_else(wrong)?),
            None => None,
        };
        Ok(Self { name: name.to_ascii_lowercase(), port: port.filter(|port| *port != 443) })
    }

    /// Whether names below it can exist: not for addresses and `localhost`.
    fn has_subdomains(&self) -> bool {
        self.name != "localhost" && self.name.parse::<Ipv4Addr>().is_err() && !self.name.starts_with('[')
    }
}

impl Preset {
    /// Reads `edge.matrix`; upstreams that it makes from addresses are added.
    pub(crate) fn read(item: &Item<'_>, upstreams: &mut Upstreams) -> Option<Self> {
        let mut section = item.section()?;
        let server_name_item =
            section.require("server_name", "name the server, the part after the colon of user ids");
        let server_name = server_name_item.as_ref().and_then(|item| item.parse(parse_server_name));
        let host = section.take("host").map_or(Some(None), |item| item.parse(Authority::parse).map(Some));
        let auth_host =
            section.take("auth_host").map_or(Some(None), |item| item.parse(Authority::parse).map(Some));
        let synapse = match section.take("synapse") {
            Some(item) => read_upstream(&item, "synapse", upstreams),
            None => Some(default_synapse(item, upstreams)),
        };
        let synapse_config = section.take("synapse_config");
        let auth_item = section.take("auth");
        let bundled = auth_item.as_ref().is_none_or(|item| item.as_text() == Some("bundled"));
        let auth = match &auth_item {
            Some(item) if !bundled => read_upstream(item, "auth", upstreams),
            Some(_) | None => None,
        };
        let auth_span = auth_item.as_ref().map_or(item.key_span(), Item::span);
        let federation_port =
            section.take("federation_port").map_or(Some(Some(8448)), |item| match item.as_truth() {
                Some(false) => Some(None),
                Some(true) | None => match item.as_text().and_then(|text| text.parse::<u16>().ok()) {
                    Some(port) if port > 0 => Some(Some(port)),
                    Some(_) | None => item.wrong("a port or false"),
                },
            });
        let well_known = section
            .take("well_known")
            .map_or_else(|| Some(Some(WellKnown::default())), |item| WellKnown::read(&item));
        let rtc = section.take("rtc").map_or(Some(None), |item| match item.as_truth() {
            Some(false) => Some(None),
            Some(true) | None => Rtc::read(&item, upstreams).map(Some),
        });
        let admin_allow =
            section.take("admin_allow").map_or(Some(Vec::new()), |item| item.parse_each(parse_network));
        let web_client = section.take("web_client").map_or(Some(None), |item| {
            // `false` stands for none, as for the other parts of the preset.
            if item.as_truth() == Some(false) { Some(None) } else { web_client::Given::read(item).map(Some) }
        });
        section.elsewhere("maintenance", MAINTENANCE);
        section.later(&[("workers", "distributing requests to Synapse workers is")]);
        section.finish();

        let server_name = server_name?;
        let upload_limit =
            synapse_config::read(synapse_config.as_ref(), item, &server_name, synapse.as_deref());
        let domain = Authority::parse(&server_name).ok()?;
        let default = |label: &str| match domain.has_subdomains() {
            true => Authority { name: format!("{label}.{}", domain.name), port: None },
            false => domain.clone(),
        };
        let host = host?.unwrap_or_else(|| default("matrix"));
        let auth_host = auth_host?.unwrap_or_else(|| default("auth"));
        let web_client = match web_client? {
            Some(given) => Some(given.settle(default("chat"), &host, &auth_host)?),
            None => None,
        };
        Some(Self {
            host,
            auth_host,
            web_client,
            server_name,
            server_name_span: server_name_item?.span(),
            synapse,
            bundled,
            auth_span,
            auth,
            federation_port: federation_port?,
            well_known: well_known?,
            upload_limit,
            rtc: rtc?,
            admin_allow: admin_allow?,
        })
    }

    /// Whether other servers are told to look at `host`. They don't ask for a server name with a port (Matrix server-server API,
    /// "Server discovery").
    pub(crate) fn is_delegated(&self) -> bool {
        self.well_known.is_some() && self.port().is_none()
    }

    /// The port in the server name.
    pub(crate) fn port(&self) -> Option<u16> {
        split_port(&self.server_name)?.1?.parse().ok()
    }

    /// Host name of the server name, without port.
    pub(crate) fn domain(&self) -> String {
        Authority::parse(&self.server_name).map(|authority| authority.name).unwrap_or_default()
    }

    /// `https://<auth_host>/`
    pub(crate) fn public_base(&self) -> Option<Url> {
        Url::parse(&format!("https://{}/", self.auth_host)).ok()
    }

    /// Where the auth service finds Synapse: the first server of the upstream.
    pub(crate) fn endpoint(&self) -> Option<Url> {
        let url = match self.synapse.as_ref()?.servers.first()? {
            Server::Tcp { tls: true, .. } => self.synapse.as_ref()?.servers.first()?.to_string(),
            server @ Server::Tcp { .. } => format!("http://{server}"),
            Server::Unix(path) => format!("unix://{}", path.display()),
        };
        Url::parse(&url).ok()
    }

    /// Makes the upstream of the bundled auth service from the listener that serves logins.
    pub(crate) fn connect(&mut self, edge: &Item<'_>, listeners: &[AuthListener], upstreams: &mut Upstreams) {
        if !self.bundled {
            return;
        }
        let report = |message: &str| {
            edge.context.find(
                crate::Severity::Error,
                Some(self.auth_span),
                "edge.matrix.auth",
                message.to_owned(),
                &[],
            );
        };
        if let Some(defined) = upstreams.defined("auth") {
            let message = "the bundled auth service is the upstream `auth`, but one of this name is defined: write `auth: auth` to use that one, or rename it";
            let note = (defined, "defined here".to_owned());
            upstreams.by_default("auth");
            edge.context.find(
                crate::Severity::Error,
                Some(self.auth_span),
                "edge.matrix.auth",
                message.to_owned(),
                &[note],
            );
            return;
        }
        let Some(listener) = listeners.iter().find(|listener| listener.resources.contains(&Resource::Compat))
        else {
            report("no listener of http.listeners has the resource `compat`, so logins would find nobody");
            return;
        };
        if !listener.resources.contains(&Resource::Discovery) {
            edge.context.find(
                crate::Severity::Warning,
                Some(self.auth_span),
                "edge.matrix.auth",
                "the listener with `compat` lacks `discovery`, so clients that ask for the metadata of the auth service (auth_metadata) get 404".to_owned(),
                &[],
            );
        }
        let server = listener
            .binds
            .iter()
            .find_map(reachable)
            .filter(|_| listener.tls.is_none() && listener.prefix.is_empty());
        let Some(server) = server else {
            report(
                "the edge cannot see how to reach the listener with `compat` (it needs a path or a fixed port, no TLS and no prefix): define an upstream and name it here",
            );
            return;
        };
        let upstream = Arc::new(Upstream {
            name: "auth".to_owned(),
            servers: vec![server],
            proxy_protocol: listener.proxy_protocol.then_some(ProxyVersion::V2),
            proxy_tlvs: if listener.proxy_protocol { ProxyTlv::DEFAULT.to_vec() } else { Vec::new() },
            forwarded_for: ForwardedFor::Replace,
        });
        upstreams.add(Arc::clone(&upstream), self.auth_span);
        self.auth = Some(upstream);
    }
}

/// The path of the socket between edge and bundled auth service.
pub(crate) fn auth_socket(data_dir: &Path) -> std::path::PathBuf {
    data_dir.join("auth.sock")
}

/// How a process on this machine reaches a bind.
fn reachable(bind: &Bind) -> Option<Server> {
    let tcp = |host: String, port| (port > 0).then_some(Server::Tcp { host, port, tls: false });
    match bind {
        Bind::Host { host, port } => tcp(host.clone().unwrap_or_else(|| "localhost".to_owned()), *port),
        Bind::Address(address) if address.ip().is_unspecified() => {
            tcp(if address.is_ipv4() { "127.0.0.1" } else { "::1" }.to_owned(), address.port())
        }
        Bind::Address(address) => tcp(address.ip().to_string(), address.port()),
        Bind::Socket { path, .. } => Some(Server::Unix(path.clone())),
        Bind::Fd { .. } | Bind::FdName { .. } => None,
    }
}

/// An address, of which an upstream is made, or the name of an upstream.
fn read_upstream(item: &Item<'_>, name: &str, upstreams: &mut Upstreams) -> Option<Arc<Upstream>> {
    let text = item.filled_text()?;
    if name == "auth" && upstreams.defined(text).is_none() && nearest(text, ["bundled"].into_iter()).is_some()
    {
        item.error(format!("`{text}` means nothing here, did you mean \"bundled\"?"));
        return None;
    }
    if !text.contains(':') {
        return upstreams.find(item);
    }
    let server = match item.parse(parse_server)? {
        Server::Unix(path) => Server::Unix(item.beside(&path)),
        server @ Server::Tcp { .. } => server,
    };
    if let Some(defined) = upstreams.defined(name) {
        let message = format!(
            "an address here makes the upstream `{name}`, but one of this name is defined: write `{name}: {name}` to use that one, or rename it"
        );
        item.error_with(message, defined, "defined here");
        return upstreams.by_default(name);
    }
    let upstream = Arc::new(made_from(name, server));
    upstreams.add(Arc::clone(&upstream), item.span());
    Some(upstream)
}

fn default_synapse(item: &Item<'_>, upstreams: &mut Upstreams) -> Arc<Upstream> {
    if let Some(defined) = upstreams.by_default("synapse") {
        return defined;
    }
    let server = Server::Tcp { host: "localhost".to_owned(), port: 8008, tls: false };
    let upstream = Arc::new(made_from("synapse", server));
    upstreams.add(Arc::clone(&upstream), item.key_span());
    upstream
}

fn made_from(name: &str, server: Server) -> Upstream {
    Upstream {
        name: name.to_owned(),
        servers: vec![server],
        proxy_protocol: None,
        proxy_tlvs: Vec::new(),
        forwarded_for: ForwardedFor::Replace,
    }
}

/// A Matrix server name: a host name or address, with a port if it is not found by delegation.
pub(crate) fn parse_server_name(text: &str) -> Result<String, String> {
    if text.starts_with('@') {
        return Err(format!("`{text}` is a user, the server name is the part after the colon"));
    }
    Authority::parse(text)
        .map_err(|_| format!("`{text}` is not a server name, write it as in user ids: example.com"))?;
    if text.bytes().any(|b| b.is_ascii_uppercase()) {
        return Err(format!(
            "`{text}`: a server name is written in lower case, {}",
            text.to_ascii_lowercase()
        ));
    }
    Ok(text.to_owned())
}
