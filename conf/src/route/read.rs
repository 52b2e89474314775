//! Reading of `edge.sites`.

use http::{HeaderMap, Method, StatusCode};
use regex::RegexBuilder;

use super::headers::{self, read_headers};
use super::rewrite::Given;
use super::{Action, HostPattern, Matcher, Respond, Route, Site};
use crate::StaticFiles;
use crate::edge::MAINTENANCE;
use crate::reader::{Item, Section, one_of};
use crate::source::Span;
use crate::upstream::{Upstreams, is_host_name};
use crate::value::parse_network;

/// A site with the places of its hosts, for cross-references.
#[derive(Debug)]
pub(crate) struct ReadSite {
    /// The site.
    pub(crate) site: Site,
    /// In the order of `site.hosts`.
    pub(crate) host_spans: Vec<Span>,
    /// In the order of `site.routes`.
    pub(crate) route_spans: Vec<Span>,
    /// Key path of the site.
    pub(crate) path: String,
}

/// Reads `edge.sites`; faulty sites are left out.
pub(crate) fn read_sites(
    item: &Item<'_>,
    upstreams: &Upstreams,
    listeners: &[(String, Span)],
) -> Vec<ReadSite> {
    let items = item.list().unwrap_or_default();
    items.iter().filter_map(|item| read_site(item, upstreams, listeners)).collect()
}

fn read_site(item: &Item<'_>, upstreams: &Upstreams, listeners: &[(String, Span)]) -> Option<ReadSite> {
    let mut section = item.section()?;
    let name = section.take("name").map_or(Some(None), |item| item.filled_text().map(Some));
    let hosts = section.require("hosts", "list the names it answers for, or [_] for every other name");
    let hosts = hosts.and_then(|item| read_hosts(&item));
    let served_on =
        section.take("listeners").map_or(Some(None), |item| read_listener_names(&item, listeners).map(Some));
    let routes = section.require("routes", "say what is done, such as [{prefix: /, upstream: NAME}]");
    let routes = routes.and_then(|item| {
        let items = item.filled_list()?;
        let routes: Vec<Option<Route>> = items.iter().map(|item| read_route(item, upstreams)).collect();
        let routes = routes.into_iter().collect::<Option<Vec<Route>>>()?;
        warn_of_unreachable(&items, &routes);
        Some(routes.into_iter().zip(items.iter().map(Item::span)).unzip::<Route, Span, Vec<_>, Vec<_>>())
    });
    section.elsewhere("maintenance", MAINTENANCE);
    section.later(&[
        ("hsts", "HSTS is"),
        ("security_headers", "security headers by site are"),
        ("response_headers", "changing headers is"),
        ("basic_auth", "basic authentication is"),
        ("forward_auth", "asking an outside service is"),
        ("compression", "compression is"),
        ("tls", "TLS options by site are"),
        ("limits", "limits by site are"),
    ]);
    section.finish();
    let (hosts, host_spans): (Vec<HostPattern>, Vec<Span>) = hosts?.into_iter().unzip();
    let name = name?.map_or_else(|| hosts.first().map(ToString::to_string), |name| Some(name.to_owned()))?;
    let (routes, route_spans) = routes?;
    let site = Site { name, hosts, listeners: served_on?, routes };
    Some(ReadSite { site, host_spans, route_spans, path: item.path.clone() })
}

fn read_hosts(item: &Item<'_>) -> Option<Vec<(HostPattern, Span)>> {
    let mut hosts: Vec<(HostPattern, Span)> = Vec::new();
    let mut complete = true;
    for item in item.filled_list()? {
        match item.parse(parse_host) {
            Some(host) => match hosts.iter().find(|(known, _)| *known == host) {
                Some((_, first)) => {
                    item.error_with(format!("`{host}` is listed twice"), *first, "first listed here");
                    complete = false;
                }
                None => hosts.push((host, item.span())),
            },
            None => complete = false,
        }
    }
    complete.then_some(hosts)
}

/// `matrix.example.com`, `*.example.com`, `[::1]` or `_`.
pub(crate) fn parse_host(text: &str) -> Result<HostPattern, String> {
    if text == "_" {
        return Ok(HostPattern::Any);
    }
    if text == "*" {
        return Err("write `_` for every other name".to_owned());
    }
    if !text.is_ascii() {
        return Err(format!(
            "`{text}` has letters outside ASCII, write the name as browsers send it (xn--…)"
        ));
    }
    let lower = text.to_ascii_lowercase();
    if lower.contains("://") || lower.contains('/') {
        return Err(format!("`{text}` is not a host name, leave out scheme and path"));
    }
    if let Some(parent) = lower.strip_prefix("*.") {
        return if is_host_name(parent) && !parent.contains('*') {
            Ok(HostPattern::Wildcard(parent.to_owned()))
        } else {
            Err(format!("`{text}` is not a wildcard, write *.example.com"))
        };
    }
    if lower.contains('*') {
        return Err(format!("`{text}`: a `*` stands only for the whole first label, write *.example.com"));
    }
    let address = lower.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    if address.is_some_and(|address| address.parse::<std::net::Ipv6Addr>().is_ok()) || is_host_name(&lower) {
        return Ok(HostPattern::Exact(lower));
    }
    if lower.contains(':') {
        return Err(format!("`{text}`: leave out the port, a site answers on every port of its listeners"));
    }
    Err(format!("`{text}` is not a host name"))
}

fn read_listener_names(item: &Item<'_>, listeners: &[(String, Span)]) -> Option<Vec<String>> {
    let mut names = Vec::new();
    let mut complete = true;
    for item in item.filled_list()? {
        let Some(name) = item.filled_text() else {
            complete = false;
            continue;
        };
        if listeners.iter().any(|(known, _)| known == name) {
            names.push(name.to_owned());
            continue;
        }
        complete = false;
        let message = format!(
            "there is no listener `{name}`, write {}",
            one_of(listeners.iter().map(|(name, _)| name.as_str()))
        );
        match listeners.first() {
            Some((_, span)) => item.error_with(message, *span, "listeners are defined here"),
            None => item.error(message),
        }
    }
    complete.then_some(names)
}

fn read_route(item: &Item<'_>, upstreams: &Upstreams) -> Option<Route> {
    let mut section = item.section()?;
    let matcher = exactly_one(&mut section, &["path", "prefix", "regex"], "a matcher");
    let action =
        exactly_one(&mut section, &["upstream", "static", "respond", "redirect", "deny"], "an action");
    let methods = section.take("methods").map_or(Some(None), |item| read_methods(&item).map(Some));
    let allow = section.take("allow").map_or(Some(None), |item| item.parse_each(parse_network).map(Some));
    let max_body_size = section.take("max_body_size").map_or(Some(None), |item| item.size().map(Some));
    let rewrite = Given::take(&mut section);
    let headers = section.take("headers");
    section.later(&[
        ("rate_limit", "rate limits are"),
        ("rate_limits", "rate limits are"),
        ("compression", "compression is"),
        ("basic_auth", "basic authentication is"),
        ("forward_auth", "asking an outside service is"),
        ("request_headers", "changing headers is"),
        ("response_headers", "changing headers is"),
        ("rewrite", "rewriting paths other than by strip_prefix and replace_path is"),
        ("cache", "caching is"),
        ("timeouts", "deadlines by route are"),
        ("balance", "load balancing by route is"),
    ]);
    section.finish();

    let matcher = matcher.and_then(|(kind, item)| Some((read_matcher(kind, &item)?, item)));
    let strip = match &matcher {
        Some((Matcher::Prefix(prefix), _)) => prefix.as_str(),
        Some((Matcher::Path(_) | Matcher::Regex(_), _)) | None => "/",
    };
    let action = action.and_then(|(kind, item)| Some((read_action(kind, &item, upstreams, strip)?, item)));
    let rewrite = rewrite.read(matcher.as_ref(), action.as_ref());
    let headers = headers
        .map_or(Some(HeaderMap::new()), |item| headers::of_route(&item, action.as_ref().map(|(a, _)| a)));
    let (matcher, item) = matcher?;
    let (action, _) = action?;
    Some(Route {
        name: item.as_text()?.to_owned(),
        matcher,
        methods: methods?,
        allow: allow?,
        action,
        rewrite: rewrite?,
        max_body_size: max_body_size?,
        headers: headers?,
    })
}

/// A route that an earlier one leaves nothing for.
fn warn_of_unreachable(items: &[Item<'_>], routes: &[Route]) {
    for (index, (item, route)) in items.iter().zip(routes).enumerate() {
        if let Some(earlier) = routes.iter().take(index).find(|earlier| takes_all_of(earlier, route)) {
            item.warn(format!("is never reached, `{}` before it takes every request", earlier.name));
        }
    }
}

/// Whether nothing is left for the later one.
pub(crate) fn takes_all_of(earlier: &Route, later: &Route) -> bool {
    let covers = match (&earlier.matcher, &later.matcher) {
        (Matcher::Prefix(prefix), Matcher::Path(path) | Matcher::Prefix(path)) => {
            path.starts_with(prefix.as_str())
        }
        (Matcher::Path(a), Matcher::Path(b)) => a == b,
        (Matcher::Prefix(prefix), Matcher::Regex(_)) => prefix == "/",
        (Matcher::Regex(a), Matcher::Regex(b)) => a.as_str() == b.as_str(),
        (Matcher::Path(_) | Matcher::Regex(_), _) => false,
    };
    let methods = match (&earlier.methods, &later.methods) {
        (None, _) => true,
        (Some(_), None) => false,
        (Some(earlier), Some(later)) => later.iter().all(|method| earlier.contains(method)),
    };
    covers && methods
}

/// The only one of several keys that is given.
fn exactly_one<'a>(
    section: &mut Section<'a>,
    keys: &[&'static str],
    what: &str,
) -> Option<(&'static str, Item<'a>)> {
    let given: Vec<(&'static str, Item<'a>)> =
        keys.iter().filter_map(|key| section.take(key).map(|item| (*key, item))).collect();
    match given.as_slice() {
        [only] => Some(only.clone()),
        // The unknown key says it better.
        [] if section.misspells(keys) => None,
        [] => {
            section.item.error(format!("a route needs {what}: {}", one_of(keys.iter().copied())));
            None
        }
        [(first, first_item), (second, second_item), ..] => {
            second_item.error_with(
                format!(
                    "a route has only one of these, here are `{first}` and `{second}`: make it two routes"
                ),
                first_item.key_span(),
                "given here",
            );
            None
        }
    }
}

fn read_matcher(kind: &str, item: &Item<'_>) -> Option<Matcher> {
    match kind {
        "path" => item.parse(parse_path).map(Matcher::Path),
        "prefix" => item.parse(parse_path).map(Matcher::Prefix),
        _ => item.parse(parse_regex).map(Matcher::Regex),
    }
}

/// A path in the normal form that requests are compared in (RFC 3986 §6.2.2); another would never match.
pub(super) fn parse_path(text: &str) -> Result<String, String> {
    if !text.starts_with('/') {
        return Err(format!("`{text}` has to begin with `/`"));
    }
    if text.contains(['?', '#']) {
        return Err(format!("`{text}`: only the path is compared, leave out `?` and `#`"));
    }
    if !text.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(format!("`{text}`: write spaces and letters outside ASCII as requests send them (%20)"));
    }
    if text.split('/').any(|segment| segment == "." || segment == "..") {
        return Err(format!("`{text}`: requests are compared without `.` and `..`, this would never match"));
    }
    let bytes = text.as_bytes();
    for (at, _) in bytes.iter().enumerate().filter(|(_, b)| **b == b'%') {
        let digits = text.get(at + 1..at + 3).filter(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()));
        let Some(digits) = digits else {
            return Err(format!("`{text}`: a `%` is followed by two hexadecimal digits"));
        };
        let byte = u8::from_str_radix(digits, 16).unwrap_or(0);
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            return Err(format!(
                "`{text}`: requests are compared with `%{digits}` decoded, write `{}`",
                char::from(byte)
            ));
        }
        if digits.bytes().any(|b| b.is_ascii_lowercase()) {
            return Err(format!(
                "`{text}`: requests are compared with `%{}`, in capitals",
                digits.to_ascii_uppercase()
            ));
        }
    }
    Ok(text.to_owned())
}

fn parse_regex(text: &str) -> Result<regex::Regex, String> {
    RegexBuilder::new(text).size_limit(LARGEST_REGEX).build().map_err(|error| {
        let message = error.to_string();
        let short = message.rsplit("error: ").next().unwrap_or(&message).trim().to_owned();
        format!("is not a regular expression: {short}")
    })
}

fn read_methods(item: &Item<'_>) -> Option<Vec<Method>> {
    let methods: Vec<Option<Method>> = item
        .filled_list()?
        .iter()
        .map(|item| {
            item.parse(|text| {
                let method =
                    Method::from_bytes(text.as_bytes()).map_err(|_| format!("`{text}` is not a method"))?;
                if text.bytes().any(|b| b.is_ascii_lowercase()) {
                    return Err(format!(
                        "`{text}`: methods are written in capitals, {}",
                        text.to_ascii_uppercase()
                    ));
                }
                Ok(method)
            })
        })
        .collect();
    methods.into_iter().collect()
}

fn read_action(kind: &str, item: &Item<'_>, upstreams: &Upstreams, strip: &str) -> Option<Action> {
    match kind {
        "upstream" => upstreams.find(item).map(Action::Upstream),
        "static" => StaticFiles::read(item, strip).map(Action::Static),
        "respond" => read_respond(item).map(Action::Respond),
        "redirect" => read_redirect(item),
        _ => read_deny(item).map(Action::Deny),
    }
}

fn read_status(item: &Item<'_>, least: u16, most: u16) -> Option<StatusCode> {
    StatusCode::from_u16(item.whole(least, most)?).ok()
}

fn read_respond(item: &Item<'_>) -> Option<Respond> {
    let mut section = item.section()?;
    let status = section.take("status").map_or(Some(StatusCode::OK), |item| read_status(&item, 200, 599));
    let headers = section.take("headers").map_or(Some(HeaderMap::new()), |item| read_headers(&item));
    let body = section.take("body").map_or(Some(""), |item| item.text());
    section.finish();
    Some(Respond { status: status?, headers: headers?, body: body?.to_owned() })
}

/// A URL, or `{location, status}`.
fn read_redirect(item: &Item<'_>) -> Option<Action> {
    if !item.is_section() {
        return Some(Action::Redirect {
            location: item.parse(parse_location)?,
            status: StatusCode::PERMANENT_REDIRECT,
        });
    }
    let mut section = item.section()?;
    let location =
        section.require("location", "say where to, as a URL").and_then(|item| item.parse(parse_location));
    let status = section.take("status").map_or(Some(StatusCode::PERMANENT_REDIRECT), |item| {
        let status = read_status(&item, 300, 399)?;
        if !matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308) {
            return item.wrong("301, 302, 303, 307 or 308");
        }
        Some(status)
    });
    section.finish();
    Some(Action::Redirect { location: location?, status: status? })
}

fn parse_location(text: &str) -> Result<String, String> {
    let complete =
        (text.starts_with('/') || text.contains("://")) && text.bytes().all(|b| b.is_ascii_graphic());
    if !complete {
        return Err(format!(
            "`{text}` is not a URL, write https://host/path, or a path that begins with `/`"
        ));
    }
    if text.contains(['{', '}', '$']) {
        return Err(format!("`{text}`: variables are not replaced, a redirect goes to one fixed URL"));
    }
    Ok(text.to_owned())
}

/// `true` for 403, or a status.
fn read_deny(item: &Item<'_>) -> Option<StatusCode> {
    match item.as_truth() {
        Some(true) => Some(StatusCode::FORBIDDEN),
        Some(false) => item.wrong("true or a status from 400 to 599"),
        None => read_status(item, 400, 599),
    }
}

/// Bytes of a compiled expression; the guide's need a few KiB.
const LARGEST_REGEX: usize = 4 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_compared_in_lower_case_without_port() {
        let exact = |name: &str| Ok(HostPattern::Exact(name.to_owned()));
        assert_eq!(parse_host("Matrix.Example.com"), exact("matrix.example.com"));
        assert_eq!(parse_host("[::1]"), exact("[::1]"));
        assert_eq!(parse_host("192.0.2.1"), exact("192.0.2.1"));
        assert_eq!(parse_host("*.example.com"), Ok(HostPattern::Wildcard("example.com".to_owned())));
        assert_eq!(parse_host("_"), Ok(HostPattern::Any));
        for wrong in
            ["", "*", "a.*", "*a.example", "a:80", "https://a", "a/b", "grün.example", "-a", "a..b", "*.*.a"]
        {
            assert!(parse_host(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn paths_that_would_never_match_are_refused() {
        for good in ["/", "/_matrix/", "/a%2Fb", "/a//b", "/a%20b"] {
            assert!(parse_path(good).is_ok(), "{good}");
        }
        for wrong in
            ["", "a", "/a?b", "/a#b", "/a b", "/./a", "/a/..", "/%41", "/%2f", "/%7E", "/%", "/%zz", "/ü"]
        {
            assert!(parse_path(wrong).is_err(), "{wrong}");
        }
    }
}
