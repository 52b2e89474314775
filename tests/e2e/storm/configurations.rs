//! Four configurations between which everything that may change does: listeners added, moved and removed, routes, upstreams,
//! certificates, limits, deadlines, the access log, and the listeners of the auth service.

use std::fmt;
use std::path::Path;

use crate::harness::{Certificates, Upstream, auth_yaml};

/// One of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Configuration {
    A,
    B,
    C,
    D,
}

/// What all of them are made from.
pub(super) struct Ingredients<'a> {
    pub(super) folder: &'a Path,
    pub(super) certificates: &'a [Certificates; 2],
    /// One for each configuration.
    pub(super) upstreams: &'a [Upstream; 4],
    /// Long polls, large answers and WebSockets, for all.
    pub(super) common: &'a Upstream,
    pub(super) synapse: &'a str,
    /// Where the listener that moves is, in the first and in the second.
    pub(super) places: [u16; 2],
    pub(super) drain_seconds: u64,
}

impl fmt::Display for Configuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

impl Configuration {
    pub(super) const ALL: [Self; 4] = [Self::A, Self::B, Self::C, Self::D];

    pub(super) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|configuration| configuration.to_string() == name)
    }

    fn index(self) -> usize {
        match self {
            Self::A => 0,
            Self::B => 1,
            Self::C => 2,
            Self::D => 3,
        }
    }

    /// Its access log, in the folder of the storm.
    pub(super) fn log(self) -> String {
        format!("access-{self}.log")
    }

    /// What it answers by itself: long enough to be written in several pieces.
    pub(super) fn body(self) -> String {
        self.to_string().repeat(20_000)
    }

    /// Which of the two certificates it has.
    pub(super) fn certificate(self) -> usize {
        self.index() % 2
    }

    /// Where its listener that moves is: nowhere in the last two.
    pub(super) fn place(self, places: [u16; 2]) -> Option<u16> {
        places.get(self.index()).copied()
    }

    /// The file.
    pub(super) fn yaml(self, from: &Ingredients<'_>) -> String {
        let Ingredients { folder, drain_seconds, .. } = from;
        let mut listeners = vec![
            "{name: http, binds: [{address: \"127.0.0.1:0\"}]}".to_owned(),
            "{name: https, binds: [{address: \"127.0.0.1:0\"}], tls: true}".to_owned(),
        ];
        if let Some(port) = self.place(from.places) {
            listeners.push(format!("{{name: moves, binds: [{{address: \"127.0.0.1:{port}\"}}]}}"));
        }
        if self == Self::D {
            listeners.push(format!("{{name: unix, binds: [{{socket: {:?}}}]}}", folder.join("edge.sock")));
            listeners.reverse();
        }
        let listeners: String = listeners.iter().map(|one| format!("    - {one}\n")).collect();
        let fixed = format!(
            "        - {{path: /which, respond: {{headers: {{x-configuration: {self}}}, body: \"{}\"}}}}\n",
            self.body()
        );
        let forwarded = format!(
            "        - {{path: /up, upstream: changing, replace_path: /up/{self}, max_body_size: {}M}}\n",
            { 1 + self.index() }
        );
        let common = "        - {regex: \"^/(poll|large|socket)$\", upstream: common}\n\
                              \x20       - {regex: \"^/_matrix/client/v3/(login|logout)$\", upstream: auth}\n";
        let routes = match self {
            Self::A | Self::C => format!("{fixed}{forwarded}{common}"),
            Self::B | Self::D => {
                format!("        - {{path: /only-here, deny: 451}}\n{common}{forwarded}{fixed}")
            }
        };
        let more_sites = match self {
            Self::C => {
                "    - {hosts: [only.example], routes: [{prefix: /, redirect: \"https://example.com/\"}]}\n"
            }
            _ => "",
        };
        let log = format!(
            "{{path: {:?}, format: {}}}",
            folder.join(self.log()),
            if self.index() < 2 { "json" } else { "combined" }
        );
        let more_auth = match self {
            Self::B | Self::D => {
                "    - {name: more, resources: [{name: health}], binds: [{address: \"127.0.0.1:0\"}]}\n"
            }
            _ => "",
        };
        format!(
            "\
{auth}\
http:
  public_base: https://auth.example.com/
  listeners:
    - {{name: web, resources: [{{name: compat}}], proxy_protocol: true, binds: [{{socket: {socket:?}}}]}}
    - {{name: direct, resources: [{{name: compat}}, {{name: health}}], binds: [{{address: \"127.0.0.1:0\"}}]}}
{more_auth}\
edge:
  threads: 2
  listeners:
{listeners}  {tls}
  upstreams:
    changing: {{servers: [\"{changing}\"]}}
    common: {{servers: [\"{common_upstream}\"]}}
    auth: {{servers: [\"unix:{socket_path}\"], proxy_protocol: v2}}
  sites:
    - hosts: [\"_\"]
      routes:
{routes}{more_sites}\
\x20 limits: {{max_header_size: {header}k, max_connections: {connections}, max_connections_per_ip: {per_ip}, \
max_requests_per_connection: 1000000}}
  timeouts: {{drain: {drain_seconds}s, header: {header_seconds}s, idle: {idle}s}}
  access_log: {log}
",
            auth = auth_yaml(folder, from.synapse),
            socket = folder.join("auth.sock"),
            socket_path = folder.join("auth.sock").display(),
            tls = from.certificates[self.certificate()].yaml(),
            changing = from.upstreams[self.index()].address,
            common_upstream = from.common.address,
            header = 16 + self.index(),
            connections = 5000 + self.index(),
            per_ip = 2000 + self.index(),
            header_seconds = 20 + self.index(),
            idle = 60 + self.index(),
        )
    }
}

/// A file that must change nothing.
pub(super) const FAULTY: &str = "edge: {listeners: [{name: http, bnids: []}]}\n";
