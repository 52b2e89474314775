//! `http`: listeners, resources, and the public address.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;

use ipnet::IpNet;
use url::{Host, Url};

use super::{Http, HttpLimits, HttpTimeouts, Listener, Resource};
use crate::edge::read_trusted;
use crate::listener::read_binds;
use crate::preset::{Preset, auth_socket};
use crate::reader::Item;
use crate::value::parse_network;
use crate::{Bind, Certificate, Severity};

/// Reads `http`, or makes it from the preset and the defaults.
pub(crate) fn read(item: Option<&Item<'_>>, preset: Option<&Preset>, data_dir: &Path) -> Option<Http> {
    let default_base = match preset {
        Some(preset) => preset.public_base(),
        None => Url::parse("http://[::]:8080/").ok(),
    };
    let Some(item) = item else {
        let public_base = default_base?;
        return Some(Http {
            issuer: public_base.clone(),
            public_base,
            trusted_proxies: default_trusted(),
            listeners: default_listeners(preset, data_dir),
            limits: HttpLimits::default(),
            timeouts: HttpTimeouts::default(),
        });
    };
    let mut section = item.section()?;
    let base_item = section.take("public_base");
    let public_base = match &base_item {
        Some(item) => item.parse(parse_base),
        None => default_base,
    };
    let issuer = section.take("issuer").map(|item| item.parse(parse_base));
    let trusted_proxies =
        section.take("trusted_proxies").map_or_else(|| Some(default_trusted()), |item| read_trusted(&item));
    let listeners = match section.take("listeners") {
        Some(item) => read_listeners(&item),
        None => Some(default_listeners(preset, data_dir)),
    };
    let limits = section.take("limits").map_or(Some(HttpLimits::default()), |item| HttpLimits::read(&item));
    let timeouts =
        section.take("timeouts").map_or(Some(HttpTimeouts::default()), |item| HttpTimeouts::read(&item));
    section.finish();
    let public_base = public_base?;
    let local_server = preset.is_some_and(|preset| is_local_name(&preset.domain()));
    if !local_server && unreachable(&public_base) {
        let message = format!(
            "{public_base} is where clients would be sent, and they cannot reach it: write https://auth.example.com/"
        );
        let place = base_item.as_ref().unwrap_or(item);
        let path =
            if base_item.is_some() { place.path.clone() } else { format!("{}.public_base", place.path) };
        place.context.find(Severity::Warning, Some(place.span()), &path, message, &[]);
    }
    let issuer = match issuer {
        Some(issuer) => issuer?,
        None => public_base.clone(),
    };
    Some(Http {
        issuer,
        public_base,
        trusted_proxies: trusted_proxies?,
        listeners: listeners?,
        limits: limits?,
        timeouts: timeouts?,
    })
}

/// An http(s) URL that paths can be appended to.
pub(crate) fn parse_base(text: &str) -> Result<Url, String> {
    let mut url = Url::parse(text)
        .map_err(|error| format!("`{text}` is not a URL ({error}), write https://auth.example.com/"))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(format!("`{text}` has to begin with https:// or http://"));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err("a URL that others are made from has no query and no fragment".to_owned());
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("credentials do not belong into this URL".to_owned());
    }
    if !url.path().ends_with('/') {
        let path = format!("{}/", url.path());
        url.set_path(&path);
    }
    Ok(url)
}

fn is_local_name(name: &str) -> bool {
    name == "localhost"
        || name.ends_with(".localhost")
        || name.parse::<IpAddr>().is_ok()
        || name.starts_with('[')
}

/// Addresses that mean another machine, or none, on the client's side.
fn unreachable(base: &Url) -> bool {
    match base.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => address.is_unspecified() || address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_unspecified() || address.is_loopback(),
        None => true,
    }
}

/// The private ranges: what the guide meant by `10.0.0.0/10`, too.
fn default_trusted() -> Vec<IpNet> {
    ["192.168.0.0/16", "172.16.0.0/12", "10.0.0.0/8", "127.0.0.0/8", "fd00::/8", "::1/128"]
        .iter()
        .filter_map(|network| parse_network(network).ok())
        .collect()
}

fn public_resources() -> Vec<Resource> {
    let assets = Resource::Assets { path: None };
    vec![Resource::Discovery, Resource::Human, Resource::Oauth, Resource::Compat, Resource::Graphql, assets]
}

/// With the bundled service of the preset, one socket for the edge and one port for Synapse; else MAS's two.
fn default_listeners(preset: Option<&Preset>, data_dir: &Path) -> Vec<Listener> {
    let plain = |name: &str, resources, bind, proxy_protocol| Listener {
        name: name.to_owned(),
        resources,
        prefix: String::new(),
        binds: vec![bind],
        proxy_protocol,
        tls: None,
    };
    if preset.is_some_and(|preset| preset.bundled) {
        let socket = Bind::Socket { path: auth_socket(data_dir), mode: Some(0o600) };
        let loopback = Bind::Address(SocketAddr::from((Ipv4Addr::LOCALHOST, 8080)));
        let internal = vec![Resource::Discovery, Resource::Oauth, Resource::Health];
        return vec![
            plain("web", public_resources(), socket, true),
            plain("internal", internal, loopback, false),
        ];
    }
    let everywhere = Bind::Address(SocketAddr::from((Ipv6Addr::UNSPECIFIED, 8080)));
    let local = Bind::Host { host: Some("localhost".to_owned()), port: 8081 };
    vec![
        plain("web", public_resources(), everywhere, false),
        plain("internal", vec![Resource::Health], local, false),
    ]
}

fn read_listeners(item: &Item<'_>) -> Option<Vec<Listener>> {
    let listeners: Vec<Option<Listener>> =
        item.filled_list()?.iter().enumerate().map(|(index, item)| read_listener(index, item)).collect();
    listeners.into_iter().collect()
}

fn read_listener(index: usize, item: &Item<'_>) -> Option<Listener> {
    let mut section = item.section()?;
    let name = section
        .take("name")
        .map_or_else(|| Some(format!("http[{index}]")), |item| item.filled_text().map(str::to_owned));
    let resources =
        section.require("resources", "say what is served, such as [{name: discovery}, {name: compat}]");
    let resources = resources.and_then(|item| {
        let read: Vec<Option<Resource>> = item.filled_list()?.iter().map(read_resource).collect();
        read.into_iter().collect::<Option<Vec<_>>>()
    });
    let prefix = section.take("prefix").map_or(Some(String::new()), |item| item.parse(parse_prefix));
    let binds = section.require("binds", "say where to listen, such as [{host: localhost, port: 8080}]");
    let binds = binds.and_then(|item| read_binds(&item));
    let proxy_protocol = section.take("proxy_protocol").map_or(Some(false), |item| item.truth());
    let tls = section.take("tls").map_or(Some(None), |item| {
        let mut section = item.section()?;
        let certificate = Certificate::take(&mut section);
        section.finish();
        certificate.map(Some)
    });
    section.finish();
    Some(Listener {
        name: name?,
        resources: resources?,
        prefix: prefix?,
        binds: binds?,
        proxy_protocol: proxy_protocol?,
        tls: tls?,
    })
}

fn read_resource(item: &Item<'_>) -> Option<Resource> {
    if let Some(name) = item.as_text() {
        item.error(format!("a resource is written {{name: {name}}}"));
        return None;
    }
    let mut section = item.section()?;
    let name = section.require("name", "say which resource, such as discovery or compat");
    let resource = name.as_ref().and_then(|name| name.choice(&NAMES));
    let mut path = None;
    match resource {
        Some(Name::Assets) => path = section.take("path").map(|item| (item.file_path(), item)),
        Some(Name::Graphql) => section.unused(&["playground", "undocumented_oauth2_access"]),
        _ => {}
    }
    section.finish();
    let (resource, name) = (resource?, name?);
    if matches!(resource, Name::Human | Name::Graphql | Name::AdminApi) {
        name.warn("this resource is not served yet by this version, its paths are answered with 404");
    }
    Some(match resource {
        Name::Discovery => Resource::Discovery,
        Name::Human => Resource::Human,
        Name::Oauth => Resource::Oauth,
        Name::Compat => Resource::Compat,
        Name::Graphql => Resource::Graphql,
        Name::AdminApi => Resource::AdminApi,
        Name::Health => Resource::Health,
        Name::Prometheus => Resource::Prometheus,
        Name::ConnectionInfo => Resource::ConnectionInfo,
        Name::Assets => Resource::Assets { path: read_assets(path)? },
    })
}

/// The outer `None` is a fault. A folder that is not there is one of another distribution: the embedded files serve as well.
fn read_assets(path: Option<(Option<std::path::PathBuf>, Item<'_>)>) -> Option<Option<std::path::PathBuf>> {
    let Some((path, item)) = path else { return Some(None) };
    let path = path?;
    if path.is_dir() {
        return Some(Some(path));
    }
    item.warn(format!("there is no folder {}, the embedded assets are served", path.display()));
    Some(None)
}

/// A path without trailing slash.
fn parse_prefix(text: &str) -> Result<String, String> {
    let prefix = text.trim_end_matches('/');
    let plain = prefix.bytes().all(|b| b.is_ascii_alphanumeric() || b"/-._~".contains(&b));
    if !prefix.is_empty() && (!prefix.starts_with('/') || !plain || prefix.contains("//")) {
        return Err(format!("`{text}` is not a path, write it as /auth"));
    }
    Ok(prefix.to_owned())
}

#[derive(Clone, Copy)]
enum Name {
    Discovery,
    Human,
    Oauth,
    Compat,
    Graphql,
    Assets,
    AdminApi,
    Health,
    Prometheus,
    ConnectionInfo,
}

const NAMES: [(&str, Name); 10] = [
    ("discovery", Name::Discovery),
    ("human", Name::Human),
    ("oauth", Name::Oauth),
    ("compat", Name::Compat),
    ("graphql", Name::Graphql),
    ("assets", Name::Assets),
    ("adminapi", Name::AdminApi),
    ("health", Name::Health),
    ("prometheus", Name::Prometheus),
    ("connection-info", Name::ConnectionInfo),
];

impl Resource {
    /// The word for it in `resources`.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Discovery => "discovery",
            Self::Human => "human",
            Self::Oauth => "oauth",
            Self::Compat => "compat",
            Self::Graphql => "graphql",
            Self::Assets { .. } => "assets",
            Self::AdminApi => "adminapi",
            Self::Health => "health",
            Self::Prometheus => "prometheus",
            Self::ConnectionInfo => "connection-info",
        }
    }
}
