//! What is never public where Synapse or the auth service is reached: routes that stand before all others, also on sites of the
//! user's own.

use std::sync::Arc;

use http::StatusCode;
use regex::Regex;

use super::Preset;
use super::expand::{deny, forward, route};
use crate::reader::Item;
use crate::route::{ReadSite, takes_all_of};
use crate::{Action, Matcher, Rewrite, Route, Server, Severity, Site, Upstream};

/// The paths by which the auth service governs Synapse: nobody's. Those for operators: `admin_allow`.
pub(super) fn of_synapse(preset: &Preset, synapse: &Arc<Upstream>) -> Vec<Route> {
    below("", preset, synapse)
}

/// The same for routes that take something off the path before it.
pub(super) fn of_stripped(routes: &[Route], preset: &Preset, synapse: &Arc<Upstream>) -> Vec<Route> {
    let mut starts: Vec<&str> = routes
        .iter()
        .filter(|route| leads_to(route, synapse))
        .filter_map(|route| match &route.rewrite {
            Some(Rewrite::StripPrefix(start)) => Some(start.as_str()),
            Some(Rewrite::ReplacePath(_)) | None => None,
        })
        .collect();
    starts.dedup();
    starts.into_iter().flat_map(|start| below(start, preset, synapse)).collect()
}

fn below(start: &str, preset: &Preset, synapse: &Arc<Upstream>) -> Vec<Route> {
    let mut routes = vec![deny(&format!("{start}/_synapse/mas"), StatusCode::NOT_FOUND)];
    for path in ["/_synapse/admin", "/_synapse/metrics"].map(|path| format!("{start}{path}")) {
        routes.push(match preset.admin_allow.is_empty() {
            true => deny(&path, StatusCode::FORBIDDEN),
            false => Route {
                allow: Some(preset.admin_allow.clone()),
                rewrite: (!start.is_empty()).then(|| Rewrite::StripPrefix(start.to_owned())),
                ..forward(&path, synapse)
            },
        });
    }
    routes.extend(after_more_slashes(start));
    routes
}

/// Synapse takes any number of slashes before a path for one, and we take them as they are.
fn after_more_slashes(start: &str) -> Option<Route> {
    let name = format!("^{}//+_synapse(/|$)", regex::escape(start));
    // The expression is good whatever the start is.
    let regex = Regex::new(&name).ok()?;
    Some(route(&name, Matcher::Regex(regex), Action::Deny(StatusCode::NOT_FOUND)))
}

/// Metrics of whatever is behind us; ours are at `edge.admin`.
pub(super) fn of_metrics() -> Route {
    deny("/metrics", StatusCode::NOT_FOUND)
}

/// A site of the user's own. If it leads to Synapse or the auth service, what is never public comes first.
pub(super) fn guarded(
    edge: &Item<'_>,
    read: ReadSite,
    preset: &Preset,
    synapse: &Arc<Upstream>,
    auth: &Arc<Upstream>,
) -> Site {
    let mut guards = Vec::new();
    if read.site.routes.iter().any(|route| leads_to(route, synapse)) {
        guards.extend(of_synapse(preset, synapse));
        guards.extend(of_stripped(&read.site.routes, preset, synapse));
    }
    let metrics = of_metrics();
    // Another application may well have a page of this name.
    let taker = read.site.routes.iter().find(|route| route.matcher.matches(&metrics.name));
    if taker.is_some_and(|route| leads_to(route, synapse) || leads_to(route, auth)) {
        guards.push(metrics);
    }
    warn_of_guarded(edge, &read, &guards);
    Site { routes: guards.into_iter().chain(read.site.routes).collect(), ..read.site }
}

/// Says which of the user's routes are never reached for that.
pub(super) fn warn_of_guarded(edge: &Item<'_>, read: &ReadSite, guards: &[Route]) {
    for (index, (route, span)) in read.site.routes.iter().zip(&read.route_spans).enumerate() {
        let Some(guard) = guards.iter().find(|guard| takes_all_of(guard, route)) else { continue };
        let message = match &guard.action {
            Action::Deny(StatusCode::NOT_FOUND) => {
                format!("is never reached, `{}` is not public", guard.name)
            }
            _ => format!("is never reached, `{}` is for edge.matrix.admin_allow alone", guard.name),
        };
        let path = format!("{}.routes[{index}]", read.path);
        edge.context.find(Severity::Warning, Some(*span), &path, message, &[]);
    }
}

/// Whether a route reaches one of the servers of an upstream, under whatever name.
fn leads_to(route: &Route, upstream: &Upstream) -> bool {
    let Action::Upstream(other) = &route.action else { return false };
    other.servers.iter().any(|server| upstream.servers.iter().any(|known| are_one(server, known)))
}

/// Whether two ways of writing a server mean the same one, as far as that is known without asking the DNS.
fn are_one(a: &Server, b: &Server) -> bool {
    match (a, b) {
        (Server::Tcp { port, .. }, Server::Tcp { port: other, .. }) if a.is_local() && b.is_local() => {
            port == other
        }
        _ => a == b,
    }
}
