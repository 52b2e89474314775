//! Which route a request takes: host → site by hash, then the site's routes in order, the first match wins.
//! Pure; it neither serves nor forwards. Every worker has a router of its own, so that regular expressions don't
//! share their scratch memory between threads.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use conf::{Action, HostPattern, Route, Site};
use http::Method;
use ipnet::IpNet;

use crate::error::Fault;
use crate::path::Readings;

/// Sites and routes of all listeners.
#[derive(Debug)]
pub(crate) struct Router {
    sites: Vec<Site>,
    /// One table per listener, in the order of the configuration.
    hosts: Vec<HostTable>,
    /// Of each route of each site, the upstream as an index.
    upstreams: Vec<Vec<Option<usize>>>,
}

/// A route of a site, as indices into the router.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RouteId {
    site: usize,
    route: usize,
}

/// Hosts of one listener.
#[derive(Debug, Default)]
struct HostTable {
    exact: HashMap<String, usize>,
    wildcard: HashMap<String, usize>,
    any: Option<usize>,
}

impl Router {
    /// The router of a configuration.
    pub(crate) fn new(edge: &conf::Edge) -> Self {
        let sites = edge.sites.clone();
        let of_route = |route: &Route| match &route.action {
            Action::Upstream(upstream) => {
                edge.upstreams.iter().position(|known| Arc::ptr_eq(known, upstream) || known == upstream)
            }
            Action::Static(_) | Action::Respond(_) | Action::Redirect { .. } | Action::Deny(_) => None,
        };
        let upstreams = sites.iter().map(|site| site.routes.iter().map(of_route).collect()).collect();
        let hosts = edge.listeners.iter().map(|listener| HostTable::new(&sites, &listener.name)).collect();
        Self { sites, hosts, upstreams }
    }

    /// The site for a host as received (any case, no port), on the listener with this index.
    ///
    /// # Errors
    /// [`Fault::NoSite`].
    pub(crate) fn site(&self, listener: usize, host: &str) -> Result<usize, Fault> {
        self.hosts.get(listener).and_then(|table| table.find(host)).ok_or(Fault::NoSite)
    }

    /// The first route of a site that takes this method and path.
    ///
    /// # Errors
    /// [`Fault::NoRoute`], or [`Fault::AmbiguousPath`] when another reading of the path takes another route.
    pub(crate) fn route(&self, site: usize, method: &Method, path: &Readings<'_>) -> Result<RouteId, Fault> {
        let routes = self.sites.get(site).map_or(&[][..], |site| &site.routes);
        let first = |path: &str| routes.iter().position(|route| matches(route, method, path));
        let chosen = first(&path.normal);
        if path.others.iter().any(|other| first(other) != chosen) {
            return Err(Fault::AmbiguousPath);
        }
        chosen.map(|route| RouteId { site, route }).ok_or(Fault::NoRoute)
    }

    /// Index of the upstream a route forwards to, among `edge.upstreams`.
    pub(crate) fn upstream(&self, id: RouteId) -> Option<usize> {
        *self.upstreams.get(id.site)?.get(id.route)?
    }

    /// The route behind an id of this router.
    pub(crate) fn get(&self, id: RouteId) -> Option<&Route> {
        self.sites.get(id.site)?.routes.get(id.route)
    }

    /// Labels of a site and, if known, of its route, for logs.
    pub(crate) fn names(&self, site: Option<usize>, route: Option<RouteId>) -> (Option<&str>, Option<&str>) {
        let site = site.and_then(|site| self.sites.get(site)).map(|site| site.name.as_str());
        (site, route.and_then(|id| self.get(id)).map(|route| route.name.as_str()))
    }
}

/// Whether the client may use the route; an unknown address only where everybody may.
///
/// # Errors
/// [`Fault::NotAllowed`].
pub(crate) fn check_client(route: &Route, client: Option<IpAddr>) -> Result<(), Fault> {
    let is_allowed =
        |networks: &Vec<IpNet>| client.is_some_and(|ip| networks.iter().any(|net| net.contains(&ip)));
    match &route.allow {
        Some(networks) if !is_allowed(networks) => Err(Fault::NotAllowed),
        Some(_) | None => Ok(()),
    }
}

fn matches(route: &Route, method: &Method, path: &str) -> bool {
    route.matcher.matches(path) && route.methods.as_ref().is_none_or(|methods| methods.contains(method))
}

impl HostTable {
    fn new(sites: &[Site], listener: &str) -> Self {
        let mut table = Self::default();
        for (index, site) in sites.iter().enumerate() {
            if site.listeners.as_ref().is_some_and(|names| !names.iter().any(|name| name == listener)) {
                continue;
            }
            for host in &site.hosts {
                // The first site that names a host has it.
                match host {
                    HostPattern::Exact(name) => {
                        table.exact.entry(name.to_ascii_lowercase()).or_insert(index);
                    }
                    HostPattern::Wildcard(suffix) => {
                        table.wildcard.entry(suffix.to_ascii_lowercase()).or_insert(index);
                    }
                    HostPattern::Any => {
                        table.any.get_or_insert(index);
                    }
                }
            }
        }
        table
    }

    /// Exact name, then the longest wildcard, then the site for everything else. No allocation.
    fn find(&self, host: &str) -> Option<usize> {
        let host = host.strip_suffix('.').unwrap_or(host);
        let mut lowered = [0_u8; MAX_HOST];
        let name = match lowered.get_mut(..host.len()) {
            Some(buffer) if host.bytes().any(|byte| byte.is_ascii_uppercase()) => {
                buffer.copy_from_slice(host.as_bytes());
                buffer.make_ascii_lowercase();
                str::from_utf8(buffer).unwrap_or(host)
            }
            Some(_) | None => host,
        };
        self.exact.get(name).or_else(|| self.find_wildcard(name)).or(self.any.as_ref()).copied()
    }

    fn find_wildcard(&self, name: &str) -> Option<&usize> {
        if self.wildcard.is_empty() {
            return None;
        }
        name.match_indices('.')
            .filter(|(at, _)| *at > 0)
            .find_map(|(at, _)| self.wildcard.get(name.get(at + 1..)?))
    }
}

/// Longest host that is folded to lower case; the gate lets nothing longer pass.
const MAX_HOST: usize = 256;

#[cfg(test)]
mod tests {
    use conf::{Matcher, Respond};
    use http::{HeaderMap, StatusCode};
    use regex::Regex;

    use super::*;
    use crate::path::readings;

    fn route(name: &str, matcher: Matcher) -> Route {
        let respond = Respond { status: StatusCode::OK, headers: HeaderMap::new(), body: String::new() };
        Route {
            name: name.into(),
            matcher,
            methods: None,
            allow: None,
            action: Action::Respond(respond),
            rewrite: None,
            max_body_size: None,
            headers: HeaderMap::new(),
        }
    }

    fn site(hosts: &[HostPattern], routes: Vec<Route>) -> Site {
        Site { name: format!("{hosts:?}"), hosts: hosts.to_vec(), listeners: None, routes }
    }

    fn router(sites: Vec<Site>) -> Router {
        Router {
            hosts: vec![HostTable::new(&sites, "https"), HostTable::new(&sites, "http")],
            upstreams: Vec::new(),
            sites,
        }
    }

    fn matrix() -> Router {
        let login = r"^/_matrix/client/(api/)?[^/]+/(login|logout|refresh)(/|$)";
        router(vec![site(
            &[HostPattern::Any],
            vec![
                route("mas", Matcher::Prefix("/_synapse/mas".into())),
                route("login", Matcher::Regex(Regex::new(login).unwrap())),
                Route { methods: Some(vec![Method::POST]), ..route("post", Matcher::Path("/only".into())) },
                route("synapse", Matcher::Regex(Regex::new("^(/_matrix|/_synapse/client)").unwrap())),
            ],
        )])
    }

    fn check(method: &Method, path: &str, expected: Result<&str, Fault>) {
        let router = matrix();
        let found = router.route(0, method, &readings(path).unwrap());
        let name = found.map(|id| router.get(id).unwrap().name.clone());
        assert_eq!(name.as_deref().map_err(|fault| *fault), expected, "{path}");
    }

    #[test]
    fn first_match_wins() {
        check(&Method::GET, "/_matrix/client/v3/login", Ok("login"));
        check(&Method::GET, "/_matrix/client/v3/%6Cogin/sso", Ok("login"));
        check(&Method::GET, "/_matrix/client/v3/rooms/!r/state/login", Ok("synapse"));
        check(&Method::GET, "/_matrix/media/v3/download/example.com/login.png", Ok("synapse"));
        check(&Method::GET, "/_synapse/mas/provision_user", Ok("mas"));
        check(&Method::GET, "/other", Err(Fault::NoRoute));
    }

    #[test]
    fn method_is_part_of_the_match() {
        check(&Method::POST, "/only", Ok("post"));
        check(&Method::GET, "/only", Err(Fault::NoRoute));
    }

    #[test]
    fn paths_that_could_change_the_route_are_refused() {
        check(&Method::GET, "/_matrix/../_synapse/mas/x", Err(Fault::AmbiguousPath));
        check(&Method::GET, "/_matrix/%2e%2e/_synapse/mas/x", Err(Fault::AmbiguousPath));
        check(&Method::GET, "/_synapse/mas/../../_matrix/x", Err(Fault::AmbiguousPath));
        check(&Method::GET, "/_synapse%2Fmas/x", Err(Fault::AmbiguousPath));
        check(&Method::GET, "/_matrix/client/v3%2flogin", Err(Fault::AmbiguousPath));
        check(&Method::GET, "/_matrix/client/v3/x%2F..%2F..%2Fv3/login", Err(Fault::AmbiguousPath));
    }

    #[test]
    fn encoded_separators_that_change_nothing_pass() {
        check(&Method::GET, "/_matrix/client/v3/directory/room/%23a%2Fb:example.com", Ok("synapse"));
        check(&Method::GET, "/_matrix/client/v3/./versions", Ok("synapse"));
        check(&Method::GET, "/_matrix/federation/v1/x/%5Cy", Ok("synapse"));
    }

    #[test]
    fn exact_hosts_win_over_wildcards() {
        let exact = |name: &str| HostPattern::Exact(name.into());
        let wildcard = |name: &str| HostPattern::Wildcard(name.into());
        let router = router(vec![
            site(&[HostPattern::Any], vec![]),
            site(&[wildcard("example.com")], vec![]),
            site(&[wildcard("a.example.com"), exact("example.com")], vec![]),
            site(&[exact("b.example.com"), exact("[::1]")], vec![]),
            site(&[exact("b.example.com")], vec![]),
        ]);
        for (host, expected) in [
            ("other", 0),
            ("x.example.com", 1),
            ("x.y.EXAMPLE.com", 1),
            ("x.a.example.com", 2),
            ("a.example.com", 1),
            ("Example.Com.", 2),
            ("b.example.com", 3),
            ("[::1]", 3),
            (".example.com", 0),
            ("xexample.com", 0),
        ] {
            assert_eq!(router.site(0, host), Ok(expected), "{host}");
        }
    }

    #[test]
    fn sites_belong_to_their_listeners() {
        let mut site = site(&[HostPattern::Any], vec![]);
        site.listeners = Some(vec!["https".into()]);
        let router = router(vec![site]);
        assert_eq!(router.site(0, "a"), Ok(0));
        assert_eq!(router.site(1, "a"), Err(Fault::NoSite));
        assert_eq!(router.site(9, "a"), Err(Fault::NoSite));
    }

    #[test]
    fn an_empty_allow_list_allows_nobody() {
        let allow = |networks: &[&str]| Route {
            allow: Some(networks.iter().map(|net| net.parse().unwrap()).collect()),
            ..route("r", Matcher::Prefix("/".into()))
        };
        let ip = Some("192.0.2.7".parse().unwrap());
        assert_eq!(check_client(&allow(&[]), ip), Err(Fault::NotAllowed));
        assert_eq!(check_client(&allow(&["192.0.2.0/24"]), ip), Ok(()));
        assert_eq!(check_client(&allow(&["0.0.0.0/0", "::/0"]), None), Err(Fault::NotAllowed));
        assert_eq!(check_client(&route("r", Matcher::Prefix("/".into())), None), Ok(()));
    }
}
