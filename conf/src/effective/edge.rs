//! `edge:`

use http::HeaderMap;
use serde_yaml::Value;

use super::{Keys, bind, list, path, texts, word};
use crate::ProxyVersion;
use crate::files::ENCODINGS;
use crate::log::FORMATS;
use crate::tls::VERSIONS;
use crate::upstream::{FORWARDED_FOR, PROXY_TLVS, PROXY_VERSIONS};
use crate::value::print_duration;
use crate::{
    AccessLog, AccessLogTarget, Action, Edge, EdgeListener, EdgeTls, Limits, Matcher, Rewrite, Route, Site,
    StaticFiles, Timeouts, Upstream,
};

pub(super) fn print(edge: &Edge) -> Value {
    let mut keys = Keys::default();
    keys.put("listeners", list(&edge.listeners, listener));
    if let Some(config) = &edge.tls {
        keys.put("tls", tls(config));
    }
    keys.put("trusted_proxies", texts(&edge.trusted_proxies));
    let mut upstreams = Keys::default();
    for item in &edge.upstreams {
        upstreams.put(&item.name, upstream(item));
    }
    keys.put("upstreams", upstreams);
    keys.put("sites", list(&edge.sites, site));
    keys.put("limits", limits(&edge.limits));
    keys.put("timeouts", timeouts(&edge.timeouts));
    keys.put("access_log", edge.access_log.as_ref().map_or(Value::Bool(false), access_log));
    if !edge.admin.is_empty() {
        let mut admin = Keys::default();
        admin.put("binds", list(&edge.admin, bind));
        keys.put("admin", admin);
    }
    keys.put("threads", edge.threads as u64);
    keys.into()
}

fn listener(listener: &EdgeListener) -> Value {
    let mut keys = Keys::default();
    keys.put("name", listener.name.as_str());
    keys.put("binds", list(&listener.binds, bind));
    keys.put("tls", listener.tls);
    match &listener.proxy_protocol {
        Some(from) => {
            let mut policy = Keys::default();
            policy.put("from", texts(from));
            keys.put("proxy_protocol", policy);
        }
        None => keys.put("proxy_protocol", false),
    }
    keys.put("redirect_https", listener.redirect_https);
    keys.into()
}

fn tls(tls: &EdgeTls) -> Value {
    let mut keys = Keys::default();
    let certificate = |certificate: &crate::Certificate| {
        let mut keys = Keys::default();
        keys.put_certificate(certificate);
        keys.into()
    };
    keys.put("certificates", list(&tls.certificates, certificate));
    keys.put("min_version", word(&VERSIONS, &tls.min_version));
    keys.into()
}

fn upstream(upstream: &Upstream) -> Keys {
    let mut keys = Keys::default();
    keys.put("servers", texts(&upstream.servers));
    keys.put("proxy_protocol", word(&PROXY_VERSIONS, &upstream.proxy_protocol));
    if upstream.proxy_protocol == Some(ProxyVersion::V2) {
        keys.put("proxy_tlvs", list(&upstream.proxy_tlvs, |tlv| word(&PROXY_TLVS, tlv).into()));
    }
    keys.put("forwarded_for", word(&FORWARDED_FOR, &upstream.forwarded_for));
    keys
}

fn site(site: &Site) -> Value {
    let mut keys = Keys::default();
    keys.put("name", site.name.as_str());
    keys.put("hosts", texts(&site.hosts));
    if let Some(listeners) = &site.listeners {
        keys.put("listeners", texts(listeners));
    }
    keys.put("routes", list(&site.routes, route));
    keys.into()
}

fn route(route: &Route) -> Value {
    let mut keys = Keys::default();
    match &route.matcher {
        Matcher::Path(path) => keys.put("path", path.as_str()),
        Matcher::Prefix(prefix) => keys.put("prefix", prefix.as_str()),
        Matcher::Regex(regex) => keys.put("regex", regex.as_str()),
    }
    if let Some(methods) = &route.methods {
        keys.put("methods", texts(methods));
    }
    if let Some(allow) = &route.allow {
        keys.put("allow", texts(allow));
    }
    match &route.action {
        Action::Upstream(upstream) => keys.put("upstream", upstream.name.as_str()),
        Action::Static(files) => keys.put("static", static_files(files)),
        Action::Respond(respond) => {
            let mut answer = Keys::default();
            answer.put("status", respond.status.as_u16());
            answer.put("headers", headers(&respond.headers));
            answer.put("body", respond.body.as_str());
            keys.put("respond", answer);
        }
        Action::Redirect { location, status } => {
            let mut answer = Keys::default();
            answer.put("location", location.as_str());
            answer.put("status", status.as_u16());
            keys.put("redirect", answer);
        }
        Action::Deny(status) => keys.put("deny", status.as_u16()),
    }
    match &route.rewrite {
        Some(Rewrite::StripPrefix(start)) => keys.put("strip_prefix", start.as_str()),
        Some(Rewrite::ReplacePath(path)) => keys.put("replace_path", path.as_str()),
        None => {}
    }
    if let Some(size) = route.max_body_size {
        keys.put("max_body_size", size.to_string());
    }
    if !route.headers.is_empty() {
        keys.put("headers", headers(&route.headers));
    }
    keys.into()
}

fn headers(headers: &HeaderMap) -> Keys {
    let mut keys = Keys::default();
    for (name, value) in headers {
        keys.put(name.as_str(), value.to_str().unwrap_or_default());
    }
    keys
}

fn static_files(files: &StaticFiles) -> Keys {
    let mut keys = Keys::default();
    keys.put("root", path(&files.root));
    keys.put("precompressed", list(&files.precompressed, |encoding| word(&ENCODINGS, encoding).into()));
    if let Some(expires) = files.expires {
        keys.put("expires", print_duration(expires));
    }
    if let Some(index) = &files.index {
        keys.put("index", index.as_str());
    }
    if let Some(fallback) = &files.fallback {
        keys.put("fallback", fallback.as_str());
    }
    keys
}

fn limits(limits: &Limits) -> Keys {
    let mut keys = Keys::default();
    keys.put("max_body_size", limits.max_body_size.to_string());
    keys.put("max_header_size", limits.max_header_size.to_string());
    keys.put("max_header_count", limits.max_header_count as u64);
    keys.put("max_target_length", limits.max_target_length.to_string());
    keys.put("max_trailer_size", limits.max_trailer_size.to_string());
    keys.put("max_proxy_header_size", limits.max_proxy_header_size.to_string());
    keys.put("min_body_rate", limits.min_body_rate.to_string());
    keys.put("min_send_rate", limits.min_send_rate.to_string());
    keys.put("max_requests_per_connection", u64::from(limits.max_requests_per_connection));
    keys.put("max_connections", limits.max_connections as u64);
    keys.put("max_connections_per_ip", limits.max_connections_per_ip as u64);
    keys.put("max_concurrent_streams", u64::from(limits.max_concurrent_streams));
    keys.put("h2_control_frames", u64::from(limits.h2_control_frames));
    keys.put("h2_resets", u64::from(limits.h2_resets));
    keys.put("h2_buffer", limits.h2_buffer.to_string());
    keys.put("h2_upload_window", limits.h2_upload_window.to_string());
    keys
}

fn timeouts(timeouts: &Timeouts) -> Keys {
    let mut keys = Keys::default();
    let all = [
        ("proxy_header", timeouts.proxy_header),
        ("handshake", timeouts.handshake),
        ("header", timeouts.header),
        ("idle", timeouts.idle),
        ("body", timeouts.body),
        ("send", timeouts.send),
        ("linger", timeouts.linger),
        ("connect", timeouts.connect),
        ("upstream_read", timeouts.upstream_read),
        ("tunnel", timeouts.tunnel),
        ("drain", timeouts.drain),
        ("tunnel_drain", timeouts.tunnel_drain),
    ];
    for (key, duration) in all {
        keys.put(key, print_duration(duration));
    }
    keys
}

fn access_log(log: &AccessLog) -> Value {
    let mut keys = Keys::default();
    match &log.target {
        AccessLogTarget::Stdout => keys.put("path", "-"),
        AccessLogTarget::File(file) => keys.put("path", path(file)),
    }
    keys.put("format", word(&FORMATS, &log.format));
    keys.into()
}
