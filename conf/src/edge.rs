//! Reading of `edge:`: puts the sections together and checks what concerns several of them.

use std::thread::available_parallelism;

use crate::listener::{read_binds, read_edge_listener, same_socket};
use crate::preset::{Preset, expand_listeners, expand_sites};
use crate::reader::{Item, Section};
use crate::route::ReadSite;
use crate::route::read_sites;
use crate::source::Span;
use crate::upstream::Upstreams;
use crate::value::parse_network;
use crate::{
    AccessLog, AuthListener, Bind, Edge, EdgeListener, EdgeTls, HostPattern, Limits, Severity, Site, Timeouts,
};

/// `edge:` while the auth half is being read: the preset is needed there, and that half's listeners here.
pub(crate) struct OpenEdge<'a> {
    section: Section<'a>,
    upstreams: Upstreams,
    /// `edge.matrix`, if given and readable.
    pub(crate) preset: Option<Preset>,
    preset_item: Option<Item<'a>>,
}

impl<'a> OpenEdge<'a> {
    /// Reads the upstreams and the preset.
    pub(crate) fn open(item: &Item<'a>) -> Option<Self> {
        let mut section = item.section()?;
        let upstreams = section.take("upstreams").and_then(|item| Upstreams::read(&item));
        let mut upstreams = upstreams.unwrap_or_default();
        let preset_item = section.take_even_empty("matrix");
        let preset = preset_item.as_ref().and_then(|item| Preset::read(item, &mut upstreams));
        Some(Self { section, upstreams, preset, preset_item })
    }

    /// Whether the preset is given, readable or not.
    pub(crate) fn has_preset(&self) -> bool {
        self.preset_item.is_some()
    }

    /// Reads the rest. `auth` is what the bundled service listens on, if it could be read.
    pub(crate) fn finish(mut self, auth: Option<&[AuthListener]>) -> Option<Edge> {
        let edge = self.section.item.clone();
        let section = &mut self.section;
        if let (Some(preset), Some(listeners)) = (&mut self.preset, auth) {
            preset.connect(&edge, listeners, &mut self.upstreams);
        }
        let trusted_proxies =
            section.take("trusted_proxies").map_or(Some(Vec::new()), |item| read_trusted(&item));
        let limits_item = section.take("limits");
        let limits = limits_item.as_ref().map_or(Some(Limits::default()), Limits::read);
        let written = limits_item.and_then(|item| item.section()?.take("max_body_size"));
        let body_limit = written.as_ref().zip(limits.as_ref()).map(|(_, limits)| limits.max_body_size);
        if let (Some(preset), Some(item), Some(size)) = (&self.preset, &written, body_limit) {
            preset.warn_of_lower_limit(item, size);
        }
        let timeouts =
            section.take("timeouts").map_or(Some(Timeouts::default()), |item| Timeouts::read(&item));
        let access_log = section
            .take("access_log")
            .map_or(Some(Some(AccessLog::default())), |item| AccessLog::read(&item));
        let admin = section.take("admin").map_or(Some(Vec::new()), |item| read_admin(&item));
        let threads = section
            .take("threads")
            .map_or_else(|| Some(available_parallelism().map_or(1, usize::from)), |item| item.whole(1, 1024));
        let tls_item = section.take("tls");
        let tls = tls_item.as_ref().map_or(Some(None), |item| EdgeTls::read(item).map(Some));

        let listeners_item = section.take("listeners");
        let (given_listeners, spans) = match &listeners_item {
            Some(item) => read_listeners(item),
            None => (None, Vec::new()),
        };
        let listeners = match &self.preset {
            Some(preset) if listeners_item.is_none() || given_listeners.is_some() => {
                Some(expand_listeners(&edge, preset, given_listeners))
            }
            Some(_) | None => given_listeners,
        };
        if listeners_item.is_none() && !self.has_preset() {
            self.section.missing("listeners", "say where to accept connections, such as [{name: https, binds: [{address: \"[::]:443\"}], tls: true}]");
        }
        let names: Vec<(String, Span)> = match &listeners {
            Some(listeners) => {
                let place = |name: &str| {
                    spans.iter().find(|(known, _)| known == name).map_or(edge.key_span(), |(_, span)| *span)
                };
                listeners.iter().map(|listener| (listener.name.clone(), place(&listener.name))).collect()
            }
            None => spans,
        };

        let sites_item = self.section.take("sites");
        let read =
            sites_item.as_ref().map(|item| read_sites(item, &self.upstreams, &names)).unwrap_or_default();
        if sites_item.is_none() && !self.has_preset() {
            self.section.missing(
                "sites",
                "say what is served, such as [{hosts: [example.com], routes: [{prefix: /, upstream: NAME}]}]",
            );
        }
        check_hosts(&edge, &read);
        let sites = match (&self.preset, &listeners) {
            (Some(preset), Some(listeners)) => expand_sites(&edge, preset, listeners, read, body_limit),
            (Some(_), None) | (None, _) => read.into_iter().map(|read| read.site).collect(),
        };
        self.section.elsewhere("maintenance", MAINTENANCE);
        self.section.later(&[
            ("acme", "certificates from an ACME authority are"),
            ("rate_limits", "rate limits are"),
            ("compression", "compression is"),
            ("cache", "caching is"),
            ("http3", "HTTP/3 is"),
        ]);
        self.section.finish();

        let (listeners, tls) = (listeners?, tls?);
        check_tls(&edge, &listeners, tls.as_ref(), tls_item.as_ref(), &sites, self.preset.as_ref());
        Some(Edge {
            listeners,
            tls,
            trusted_proxies: trusted_proxies?,
            upstreams: self.upstreams.finish(&edge),
            sites,
            limits: limits?,
            timeouts: timeouts?,
            access_log: access_log?,
            admin: admin?,
            threads: threads?,
        })
    }
}

/// Networks whose word about addresses is believed.
pub(crate) fn read_trusted(item: &Item<'_>) -> Option<Vec<ipnet::IpNet>> {
    let networks = item.parse_each(parse_network)?;
    if networks.iter().any(|network| network.prefix_len() == 0) {
        item.warn("everybody is trusted, so any client can choose the address it appears with");
    }
    Some(networks)
}

fn read_admin(item: &Item<'_>) -> Option<Vec<Bind>> {
    let mut section = item.section()?;
    let binds = section
        .require("binds", "say where, such as [{address: \"127.0.0.1:9090\"}]")
        .map(|item| (read_binds(&item), item));
    section.finish();
    let (binds, item) = binds?;
    let binds = binds?;
    let public = |bind: &Bind| {
        matches!(bind, Bind::Address(address) if address.ip().is_unspecified())
            || matches!(bind, Bind::Host { host: None, .. })
    };
    if binds.iter().any(public) {
        item.warn("metrics are for you, not for everybody: bind a loopback or an internal address");
    }
    Some(binds)
}

/// The listeners, if all are right, and the names of those that have one.
fn read_listeners(item: &Item<'_>) -> (Option<Vec<EdgeListener>>, Vec<(String, Span)>) {
    let mut spans: Vec<(String, Span)> = Vec::new();
    let mut listeners: Vec<EdgeListener> = Vec::new();
    let mut complete = true;
    for item in item.filled_list().unwrap_or_default() {
        let name = item.section().and_then(|mut section| section.take("name"));
        if let Some((name, text)) = name.and_then(|name| name.as_text().map(|text| (name, text))) {
            match spans.iter().find(|(known, _)| known == text) {
                Some((_, first)) => {
                    name.error_with(format!("two listeners are called `{text}`"), *first, "the first one")
                }
                None => spans.push((text.to_owned(), name.span())),
            }
        }
        let Some(listener) = read_edge_listener(&item) else {
            complete = false;
            continue;
        };
        let clash = |bind: &Bind| {
            listeners.iter().find(|earlier| earlier.binds.iter().any(|other| same_socket(bind, other)))
        };
        if let Some(earlier) = listener.binds.iter().find_map(clash) {
            item.error(format!("the listener `{}` has this socket already", earlier.name));
        }
        listeners.push(listener);
    }
    ((complete && !listeners.is_empty()).then_some(listeners), spans)
}

/// A host belongs to one site on each listener.
fn check_hosts(edge: &Item<'_>, sites: &[ReadSite]) {
    for (index, later) in sites.iter().enumerate() {
        for (host, span) in later.site.hosts.iter().zip(&later.host_spans) {
            let same = |earlier: &&ReadSite| {
                earlier.site.hosts.contains(host) && overlap(&earlier.site, &later.site)
            };
            let Some(earlier) = sites.iter().take(index).find(same) else { continue };
            let first = earlier
                .site
                .hosts
                .iter()
                .position(|known| known == host)
                .and_then(|at| earlier.host_spans.get(at));
            let message = format!("`{host}` belongs to two sites, join their routes");
            let related: Vec<_> =
                first.map(|span| (*span, "the other site".to_owned())).into_iter().collect();
            edge.context.find(
                Severity::Error,
                Some(*span),
                &format!("{}.hosts", later.path),
                message,
                &related,
            );
        }
    }
}

fn overlap(a: &Site, b: &Site) -> bool {
    match (&a.listeners, &b.listeners) {
        (Some(a), Some(b)) => a.iter().any(|name| b.contains(name)),
        (None, _) | (_, None) => true,
    }
}

/// A listener with TLS needs a certificate, and a host one that covers it.
fn check_tls(
    edge: &Item<'_>,
    listeners: &[EdgeListener],
    tls: Option<&EdgeTls>,
    tls_item: Option<&Item<'_>>,
    sites: &[Site],
    preset: Option<&Preset>,
) {
    if !listeners.iter().any(|listener| listener.tls) {
        return;
    }
    let (Some(tls), Some(item)) = (tls, tls_item) else {
        let hint = "is missing, a listener speaks TLS: give certificates: [{certificate_file: fullchain.pem, key_file: privkey.pem}]";
        edge.context.find(Severity::Error, Some(edge.span()), "edge.tls", hint.to_owned(), &[]);
        return;
    };
    let served_elsewhere = |name: &String| {
        preset.is_some_and(|preset| {
            preset.domain() == *name && ![&preset.host.name, &preset.auth_host.name].contains(&name)
        })
    };
    for host in sites.iter().flat_map(|site| &site.hosts) {
        let HostPattern::Exact(name) = host else { continue };
        // The bare domain is often served elsewhere, and addresses are not names.
        let address = name.starts_with('[') || name.parse::<std::net::Ipv4Addr>().is_ok();
        if address
            || served_elsewhere(name)
            || tls.certificates.iter().any(|certificate| certificate.covers(name))
        {
            continue;
        }
        item.warn(format!(
            "no certificate is valid for `{name}`, browsers and clients will refuse the connection"
        ));
    }
}

/// Maintenance is a state, not a configuration: it is switched without a restart and without write access to this file.
pub(crate) const MAINTENANCE: &str = "is not configured in the file: the command `gatehouse maintenance on --message TEXT` switches it, remove the key";
