//! `/.well-known/matrix/{client,server,support}`: documents made from the configuration, with what the user adds to them.
//!
//! A member that the user gives wins over ours; objects are laid together one level deep, and a member without a value is left out.

mod support;

use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use regex::Regex;
use serde_json::{Map, Value as Json, json};
use url::Url;

use super::expand::route;
use super::{Authority, Preset};
use crate::reader::Item;
use crate::{Action, Matcher, Respond, Route, Severity};

/// `edge.matrix.well_known` unless it is `false`: what the user adds.
#[derive(Debug, Default)]
pub(crate) struct WellKnown {
    client: Map<String, Json>,
    server: Map<String, Json>,
    /// Served only when there is something to say.
    support: Option<Map<String, Json>>,
}

impl WellKnown {
    /// Reads `true`, `false` (`Some(None)`) or the additions.
    pub(super) fn read(item: &Item<'_>) -> Option<Option<Self>> {
        if !item.is_section() {
            return match item.as_truth() {
                Some(true) => Some(Some(Self::default())),
                Some(false) => Some(None),
                None => item.wrong("true, false or documents to add to"),
            };
        }
        let mut section = item.section()?;
        let client = section.take("client").map_or(Some(Map::new()), |item| read_client(&item));
        let server = section.take("server").map_or(Some(Map::new()), |item| read_server(&item));
        let support = section.take("support").map_or(Some(None), |item| support::read(&item).map(Some));
        section.finish();
        Some(Some(Self { client: client?, server: server?, support: support? }))
    }

    /// The host that other servers are told, if the user says which.
    pub(super) fn server_name(&self) -> Option<String> {
        let told = self.server.get("m.server")?.as_str()?;
        Authority::parse(told).ok().map(|authority| authority.name)
    }

    /// The routes, for each host that serves them.
    pub(super) fn routes(&self, preset: &Preset) -> Vec<Route> {
        let mut documents = vec![
            ("/.well-known/matrix/client", laid_over(self.client_document(preset), &self.client)),
            ("/.well-known/matrix/server", laid_over(server_document(&preset.host), &self.server)),
        ];
        if let Some(support) = &self.support {
            documents.push(("/.well-known/matrix/support", support.clone()));
        }
        let names: Vec<&str> = documents.iter().filter_map(|(path, _)| path.rsplit('/').next()).collect();
        let all = format!("^/\\.well-known/matrix/({})$", names.join("|"));
        let mut routes: Vec<Route> = documents
            .into_iter()
            .map(|(path, document)| Route {
                methods: Some(vec![Method::GET, Method::HEAD]),
                ..route(path, Matcher::Path(path.to_owned()), answer(&document))
            })
            .collect();
        // The expression is made of the names above.
        if let Ok(regex) = Regex::new(&all) {
            let matcher = Matcher::Regex(regex);
            routes.push(Route {
                methods: Some(vec![Method::OPTIONS]),
                ..route(&all, matcher.clone(), preflight())
            });
            routes.push(route(&all, matcher, wrong_method()));
        }
        routes
    }

    /// What a client needs to know (Matrix client-server API, "Server discovery").
    fn client_document(&self, preset: &Preset) -> Map<String, Json> {
        let mut document = Map::new();
        let base_url = format!("https://{}", preset.host);
        document.insert("m.homeserver".to_owned(), json!({ "base_url": base_url }));
        // For clients from before auth_metadata, as Synapse tells them. The bundled service has nothing to offer there until it
        // speaks OAuth.
        if !preset.bundled {
            let issuer = format!("https://{}/", preset.auth_host);
            let account = format!("{issuer}account/");
            document.insert(
                "org.matrix.msc2965.authentication".to_owned(),
                json!({ "issuer": issuer, "account": account }),
            );
        }
        if let Some(rtc) = &preset.rtc {
            document.insert("org.matrix.msc4143.rtc_foci".to_owned(), rtc.foci(&preset.host));
        }
        document
    }
}

/// Where other servers find this one (Matrix server-server API, "Server discovery"): the port for clients serves them too.
fn server_document(host: &Authority) -> Map<String, Json> {
    let mut document = Map::new();
    let server = format!("{}:{}", host.name, host.port.unwrap_or(443));
    document.insert("m.server".to_owned(), Json::String(server));
    document
}

/// RFC 7396, one level deep.
pub(super) fn laid_over(mut ours: Map<String, Json>, theirs: &Map<String, Json>) -> Map<String, Json> {
    for (name, value) in theirs {
        match (ours.get_mut(name), value) {
            (Some(Json::Object(members)), Json::Object(added)) => {
                for (member, value) in added {
                    put(members, member, value);
                }
            }
            (_, value) => put(&mut ours, name, value),
        }
    }
    ours
}

fn put(members: &mut Map<String, Json>, name: &str, value: &Json) {
    if value.is_null() {
        members.remove(name);
    } else {
        members.insert(name.to_owned(), value.clone());
    }
}

fn read_client(item: &Item<'_>) -> Option<Map<String, Json>> {
    let section = item.section()?;
    for (name, item) in section.entries() {
        match name {
            "m.homeserver" => check_base_url(&item, false),
            "m.identity_server" if !item.is_empty() => check_base_url(&item, true),
            _ if !name.contains('.') => {
                let message = format!(
                    "no client looks for `{name}`, names of members have a namespace, as in org.matrix.msc4143.rtc_foci"
                );
                section.at_key(&item, Severity::Warning, message);
            }
            _ => {}
        }
    }
    section.json()
}

fn read_server(item: &Item<'_>) -> Option<Map<String, Json>> {
    let section = item.section()?;
    if let Some((_, item)) = section.entries().find(|(name, _)| *name == "m.server") {
        item.parse(|text| match Authority::parse(text) {
            Ok(_) => Ok(()),
            Err(_) => Err(format!("`{text}` is not where a server is found, write host or host:port")),
        })?;
    }
    section.json()
}

/// A member such as `{base_url: https://…}`, which clients refuse in any other form.
fn check_base_url(item: &Item<'_>, required: bool) {
    if item.is_empty() {
        item.error("clients need this member, write {base_url: https://…} or leave the key out");
        return;
    }
    let Some(section) = item.section() else { return };
    match section.entries().find(|(name, _)| *name == "base_url") {
        Some((_, item)) => {
            item.parse(parse_web_url);
        }
        None if required => section.missing("base_url", "write a URL, https://…"),
        None => {}
    }
}

/// A URL that people or clients can open.
fn parse_web_url(text: &str) -> Result<(), String> {
    match Url::parse(text) {
        Ok(url) if matches!(url.scheme(), "https" | "http") && url.has_host() => Ok(()),
        Ok(_) | Err(_) => Err(format!("`{text}` is not the URL of a web server, write https://…")),
    }
}

fn answer(document: &Map<String, Json>) -> Action {
    let body = serde_json::to_string(document).unwrap_or_default();
    respond(StatusCode::OK, &[(header::CACHE_CONTROL, "public, max-age=600")], body)
}

fn preflight() -> Action {
    respond(StatusCode::NO_CONTENT, &[(header::ACCESS_CONTROL_MAX_AGE, "86400")], String::new())
}

fn wrong_method() -> Action {
    let body = json!({ "errcode": "M_UNRECOGNIZED", "error": format!("This document takes {METHODS}") });
    let headers = [(header::ALLOW, METHODS), (header::CACHE_CONTROL, "no-store")];
    respond(StatusCode::METHOD_NOT_ALLOWED, &headers, body.to_string())
}

/// An answer that scripts of every page may read (Matrix client-server API, "Web browser clients").
fn respond(status: StatusCode, more: &[(HeaderName, &'static str)], body: String) -> Action {
    let mut headers = HeaderMap::new();
    if !body.is_empty() {
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    }
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static(METHODS));
    headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static(REQUEST_HEADERS));
    headers.extend(more.iter().map(|(name, value)| (name.clone(), HeaderValue::from_static(value))));
    Action::Respond(Respond { status, headers, body })
}

const METHODS: &str = "GET, HEAD, OPTIONS";
/// As the specification recommends for every endpoint.
const REQUEST_HEADERS: &str = "X-Requested-With, Content-Type, Authorization, Date";
