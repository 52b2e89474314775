//! What the preset stands for: listeners, sites and routes.
//!
//! The order of a site's routes is: what is never public, what the user added for the host, the rest of the preset. Only a user's
//! `prefix: /` comes after the preset's own paths, since before them it would take the logins.

use std::iter;
use std::net::{Ipv6Addr, SocketAddr};
use std::sync::Arc;

use http::{HeaderMap, Method, StatusCode};
use regex::Regex;

use super::rtc::Rtc;
use super::web_client::WebClient;
use super::well_known::WellKnown;
use super::{Preset, guard};
use crate::reader::Item;
use crate::route::ReadSite;
use crate::source::Span;
use crate::{
    Action, Bind, ByteSize, EdgeListener, HostPattern, Matcher, Rewrite, Route, Severity, Site, Upstream,
};

/// Adds the listeners of the preset: `https` and `http` unless the user listed some, and `federation` unless one has that name.
pub(crate) fn expand_listeners(
    edge: &Item<'_>,
    preset: &Preset,
    given: Option<Vec<EdgeListener>>,
) -> Vec<EdgeListener> {
    let mut listeners = given.unwrap_or_else(|| {
        vec![
            listener("https", 443, true),
            EdgeListener { redirect_https: true, ..listener("http", 80, false) },
        ]
    });
    if let Some(port) = preset.federation_port
        && !listeners.iter().any(|listener| listener.name == FEDERATION)
    {
        listeners.push(listener(FEDERATION, port, true));
    }
    warn_of_port_without_listener(edge, preset, &listeners);
    listeners
}

/// Other servers go to the port in the server name, and nowhere else.
fn warn_of_port_without_listener(edge: &Item<'_>, preset: &Preset, listeners: &[EdgeListener]) {
    let Some(port) = preset.port() else { return };
    let may_be = |bind: &Bind| match bind {
        Bind::Address(address) => [0, port].contains(&address.port()),
        Bind::Host { port: bound, .. } => [0, port].contains(bound),
        // What is in front of these is not known here.
        Bind::Socket { .. } | Bind::Fd { .. } | Bind::FdName { .. } => true,
    };
    if listeners.iter().flat_map(|listener| &listener.binds).any(may_be) {
        return;
    }
    let message = format!(
        "other servers will connect to port {port}, and no listener has it: write federation_port: {port}, unless something forwards it"
    );
    edge.context.find(
        Severity::Warning,
        Some(preset.server_name_span),
        "edge.matrix.server_name",
        message,
        &[],
    );
}

fn listener(name: &str, port: u16, tls: bool) -> EdgeListener {
    EdgeListener {
        name: name.to_owned(),
        binds: vec![Bind::Address(SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)))],
        tls,
        proxy_protocol: None,
        redirect_https: false,
    }
}

/// Lays the sites of the preset and those of the user together. `body_limit` is `limits.max_body_size` if it was written.
pub(crate) fn expand_sites(
    edge: &Item<'_>,
    preset: &Preset,
    listeners: &[EdgeListener],
    given: Vec<ReadSite>,
    body_limit: Option<ByteSize>,
) -> Vec<Site> {
    let (Some(synapse), Some(auth)) = (&preset.synapse, &preset.auth) else {
        // What is missing has been reported.
        return given.into_iter().map(|read| read.site).collect();
    };
    let mut hosts: Vec<HostRoutes> = Vec::new();
    let uploads = preset.upload_limit.as_ref().map(|limit| limit.within(body_limit));
    routes_of(&mut hosts, &preset.host.name).matrix(preset, synapse, auth, uploads);
    routes_of(&mut hosts, &preset.auth_host.name).auth(auth);
    routes_of(&mut hosts, &preset.domain()).domain(preset, synapse);
    if let Some(client) = &preset.web_client {
        routes_of(&mut hosts, &client.host).web_client(client, preset);
    }

    let scope = scope(listeners);
    let mut sites: Vec<Site> = Vec::new();
    let mut own: Vec<Site> = Vec::new();
    for read in given {
        match hosts.iter_mut().find(|host| read.site.hosts.contains(&HostPattern::Exact(host.name.clone()))) {
            None => {
                let site = guard::guarded(edge, read, preset, synapse, auth);
                own.push(Site { listeners: site.listeners.or_else(|| scope.clone()), ..site });
            }
            Some(host) => {
                host.never.extend(guard::of_stripped(&read.site.routes, preset, synapse));
                host.add(edge, read, preset.server_name_span);
            }
        }
    }
    sites.extend(hosts.into_iter().map(|host| host.into_site(scope.clone())));
    sites.extend(own);
    if scope.is_some() {
        sites.push(federation(preset, synapse));
    }
    sites
}

/// Where the sites for people are served: everywhere but on the federation listener.
fn scope(listeners: &[EdgeListener]) -> Option<Vec<String>> {
    let names = || listeners.iter().map(|listener| listener.name.clone());
    names().any(|name| name == FEDERATION).then(|| names().filter(|name| name != FEDERATION).collect())
}

/// Routes for one host, in three parts.
struct HostRoutes {
    name: String,
    never: Vec<Route>,
    own: Vec<Route>,
    rest: Vec<Route>,
    own_rest: Vec<Route>,
    catch_all: Vec<Route>,
}

fn routes_of<'a>(hosts: &'a mut Vec<HostRoutes>, name: &str) -> &'a mut HostRoutes {
    let at = hosts.iter().position(|host| host.name == name).unwrap_or(hosts.len());
    if at == hosts.len() {
        let name = name.to_owned();
        hosts.push(HostRoutes {
            name,
            never: Vec::new(),
            own: Vec::new(),
            rest: Vec::new(),
            own_rest: Vec::new(),
            catch_all: Vec::new(),
        });
    }
    &mut hosts[at]
}

impl HostRoutes {
    fn matrix(
        &mut self,
        preset: &Preset,
        synapse: &Arc<Upstream>,
        auth: &Arc<Upstream>,
        uploads: Option<ByteSize>,
    ) {
        self.never.extend(guard::of_synapse(preset, synapse));
        self.never.push(guard::of_metrics());
        self.well_known(preset);
        self.rest.extend(preset.rtc.iter().flat_map(Rtc::routes));
        self.rest.extend(METADATA.map(|path| metadata(path, auth)));
        if let Ok(regex) = Regex::new(LOGIN) {
            let action = Action::Upstream(Arc::clone(auth));
            self.rest.push(route(LOGIN, Matcher::Regex(regex), action));
        }
        // Beyond its limit Synapse breaks off the connection, which no client understands.
        if let (Some(size), Ok(regex)) = (uploads, Regex::new(UPLOAD)) {
            let action = Action::Upstream(Arc::clone(synapse));
            let upload = route(UPLOAD, Matcher::Regex(regex), action);
            self.rest.push(Route { max_body_size: Some(size), ..upload });
        }
        self.rest.push(forward("/_matrix/", synapse));
        self.rest.push(forward("/_synapse/client/", synapse));
        // On a host shared with the auth service nothing else of Synapse's may fall through to it.
        self.rest.push(deny("/_synapse/", StatusCode::NOT_FOUND));
    }

    fn auth(&mut self, auth: &Arc<Upstream>) {
        if !self.never.iter().any(|route| route.name == "/metrics") {
            self.never.push(guard::of_metrics());
        }
        self.catch_all.push(forward("/", auth));
    }

    fn well_known(&mut self, preset: &Preset) {
        let Some(well_known) = &preset.well_known else { return };
        self.rest.extend(well_known.routes(preset));
    }

    /// The bare server name, unless it is served as one of the other hosts already.
    fn domain(&mut self, preset: &Preset, synapse: &Arc<Upstream>) {
        if self.name == preset.host.name {
            return;
        }
        self.well_known(preset);
        if !preset.is_delegated() {
            self.rest.extend(federation_routes(synapse));
        }
    }

    fn web_client(&mut self, client: &WebClient, preset: &Preset) {
        self.rest.extend(client.routes(preset));
        self.catch_all.push(client.rest());
    }

    /// Takes the routes that the user gave for this host.
    fn add(&mut self, edge: &Item<'_>, read: ReadSite, preset: Span) {
        if read.site.hosts.len() > 1 || read.site.listeners.is_some() {
            let span = read.host_spans.first().copied();
            let message = format!(
                "the preset serves `{}` too: give this host a site of its own, without `listeners`, and the routes of both are joined",
                self.name
            );
            let related = [(preset, "the preset".to_owned())];
            edge.context.find(Severity::Error, span, &format!("{}.hosts", read.path), message, &related);
            return;
        }
        guard::warn_of_guarded(edge, &read, &self.never);
        let everything = |route: &Route| matches!(&route.matcher, Matcher::Prefix(prefix) if prefix == "/");
        let (rest, own): (Vec<Route>, Vec<Route>) = read.site.routes.into_iter().partition(everything);
        let hides = |route: &Route| {
            route.methods.is_none() && !self.catch_all.iter().any(|auth| same_upstream(auth, route))
        };
        if !self.catch_all.is_empty() && rest.iter().any(hides) {
            let span = read.host_spans.first().copied();
            let hidden = match self.catch_all.iter().any(|route| matches!(route.action, Action::Static(_))) {
                true => "the web client",
                false => "the auth service",
            };
            let message =
                format!("`prefix: /` on `{}` takes every request that {hidden} should get", self.name);
            let related = [(preset, "the preset".to_owned())];
            edge.context.find(Severity::Warning, span, &read.path, message, &related);
        }
        self.own.extend(own);
        self.own_rest.extend(rest);
    }

    fn into_site(self, listeners: Option<Vec<String>>) -> Site {
        let routes =
            [self.never, self.own, self.rest, self.own_rest, self.catch_all].into_iter().flatten().collect();
        Site { name: self.name.clone(), hosts: vec![HostPattern::Exact(self.name)], listeners, routes }
    }
}

fn same_upstream(a: &Route, b: &Route) -> bool {
    matches!((&a.action, &b.action), (Action::Upstream(a), Action::Upstream(b)) if a.name == b.name)
}

/// The federation port serves other servers, and nothing that only people need.
fn federation(preset: &Preset, synapse: &Arc<Upstream>) -> Site {
    let mut hosts = vec![HostPattern::Exact(preset.domain())];
    let told = preset.well_known.as_ref().and_then(WellKnown::server_name);
    for name in iter::once(preset.host.name.clone()).chain(told) {
        let host = HostPattern::Exact(name);
        if !hosts.contains(&host) {
            hosts.push(host);
        }
    }
    let routes = federation_routes(synapse).into();
    Site { name: FEDERATION.to_owned(), hosts, listeners: Some(vec![FEDERATION.to_owned()]), routes }
}

/// What servers ask for.
fn federation_routes(synapse: &Arc<Upstream>) -> [Route; 2] {
    [forward("/_matrix/federation/", synapse), forward("/_matrix/key/", synapse)]
}

pub(super) fn route(name: &str, matcher: Matcher, action: Action) -> Route {
    Route {
        name: name.to_owned(),
        matcher,
        methods: None,
        allow: None,
        action,
        rewrite: None,
        max_body_size: None,
        headers: HeaderMap::new(),
    }
}

/// Clients ask Synapse what the auth service offers, which keeps the answer until it is restarted; the service itself knows better.
fn metadata(path: &str, auth: &Arc<Upstream>) -> Route {
    Route {
        methods: Some(vec![Method::GET, Method::HEAD, Method::OPTIONS]),
        rewrite: Some(Rewrite::ReplacePath("/.well-known/openid-configuration".to_owned())),
        ..route(path, Matcher::Path(path.to_owned()), Action::Upstream(Arc::clone(auth)))
    }
}

pub(super) fn forward(prefix: &str, upstream: &Arc<Upstream>) -> Route {
    route(prefix, Matcher::Prefix(prefix.to_owned()), Action::Upstream(Arc::clone(upstream)))
}

pub(super) fn deny(prefix: &str, status: StatusCode) -> Route {
    route(prefix, Matcher::Prefix(prefix.to_owned()), Action::Deny(status))
}

/// Exact where the guide's expression is loose: a media file `login.png`, a room or a state key `login` is not a login.
const LOGIN: &str = "^/_matrix/client/(api/)?[^/]+/(login|logout|refresh)(/|$)";
/// `POST` of a file, and `PUT` of one whose id was made before.
const UPLOAD: &str = "^/_matrix/(media/[^/]+|client/v1/media)/upload(/|$)";
/// The name of the specification, and the one from before it was in it.
const METADATA: [&str; 2] =
    ["/_matrix/client/v1/auth_metadata", "/_matrix/client/unstable/org.matrix.msc2965/auth_metadata"];
const FEDERATION: &str = "federation";
