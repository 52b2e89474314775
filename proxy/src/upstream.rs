//! Picks a server of an upstream for a request: in turn, those that failed lately last, and each address of a name
//! until one can be connected. Names are resolved when used, never at start. No active health checks yet.

mod dial;
mod introduction;
mod peer;
mod resolver;

use std::hash::{BuildHasher as _, BuildHasherDefault, DefaultHasher};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use conf::Timeouts;
use pingora::protocols::l4::socket::SocketAddr;
use pingora::upstreams::peer::HttpPeer;

use crate::error::Fault;
pub(crate) use dial::introducing;
pub(crate) use introduction::header as introduction;
pub(crate) use peer::Identity;
use resolver::{Addresses, Resolver};

/// An upstream of one worker.
#[derive(Debug)]
pub(crate) struct Upstream {
    pub(crate) config: Arc<conf::Upstream>,
    /// Differs for upstreams that want different PROXY headers; the address and TLS are in Pingora's pool key.
    pub(crate) introduces: u64,
    servers: Vec<Server>,
    next: AtomicUsize,
    timeouts: Timeouts,
}

#[derive(Debug)]
struct Server {
    resolver: Resolver,
    /// The name to verify, with TLS.
    tls_name: Option<String>,
    /// The address that worked last, as an index.
    preferred: AtomicUsize,
    /// Until when other servers are asked first.
    avoided_until: Mutex<Option<Instant>>,
}

/// How far a request has come in trying servers.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Tries {
    first: Option<usize>,
    server: usize,
    start: usize,
    address: usize,
    count: usize,
}

impl Upstream {
    /// The worker's view of a configured upstream.
    ///
    /// # Errors
    /// The path of a Unix socket that is too long for the system.
    pub(crate) fn new(config: Arc<conf::Upstream>, timeouts: Timeouts) -> Result<Self, PathBuf> {
        let servers = config.servers.iter().map(Server::new).collect::<Result<_, _>>()?;
        Ok(Self { introduces: introduces(&config), config, servers, next: AtomicUsize::new(0), timeouts })
    }

    /// Whether this is the upstream that a configuration asks for.
    pub(crate) fn is_for(&self, config: &conf::Upstream, timeouts: &Timeouts) -> bool {
        *self.config == *config && self.timeouts == *timeouts
    }

    /// The server to try for a request, as a Pingora peer; the same one until [`failed`](Self::failed) is called.
    /// `identity` is given when the upstream wants a PROXY header.
    ///
    /// # Errors
    /// [`Fault::UpstreamUnreachable`] when all have been tried.
    pub(crate) async fn peer(
        &self,
        tries: &mut Tries,
        identity: Option<Identity>,
    ) -> Result<HttpPeer, Fault> {
        let (server, address) = self.candidate(tries).await.ok_or(Fault::UpstreamUnreachable)?;
        Ok(peer::make_peer(address, server.tls_name.as_deref(), &self.timeouts, identity))
    }

    /// The server could not be connected: this request tries the next address, and others ask it last for a while.
    pub(crate) fn failed(&self, tries: &mut Tries, now: Instant) {
        if let Some(server) = self.server(tries) {
            server.preferred.store(tries.start + tries.address + 1, Ordering::Relaxed);
            *server.avoided_until.lock().unwrap_or_else(PoisonError::into_inner) = Some(now + AVOIDED);
        }
        tries.address += 1;
        tries.count += 1;
    }

    fn server(&self, tries: &Tries) -> Option<&Server> {
        self.servers.get((tries.first? + tries.server) % self.servers.len().max(1))
    }

    async fn candidate(&self, tries: &mut Tries) -> Option<(&Server, SocketAddr)> {
        tries.first.get_or_insert_with(|| self.first());
        while tries.server < self.servers.len() && tries.count < MAX_TRIES {
            let server = self.server(tries)?;
            let addresses: Addresses = server.resolver.addresses(self.timeouts.connect).await;
            if tries.address == 0 {
                // Later tries count from here, whatever other requests find out meanwhile.
                tries.start = server.preferred.load(Ordering::Relaxed);
            }
            if tries.address < addresses.len() {
                let chosen = (tries.start + tries.address) % addresses.len();
                return addresses.get(chosen).cloned().map(|address| (server, address));
            }
            tries.server += 1;
            tries.address = 0;
        }
        None
    }

    /// In turn, but for those that failed lately.
    fn first(&self) -> usize {
        if self.servers.len() == 1 {
            return 0;
        }
        let start = self.next.fetch_add(1, Ordering::Relaxed) % self.servers.len().max(1);
        let now = Instant::now();
        let in_turn = (0..self.servers.len()).map(|step| (start + step) % self.servers.len());
        in_turn
            .into_iter()
            .find(|index| self.servers.get(*index).is_some_and(|s| !s.is_avoided(now)))
            .unwrap_or(start)
    }
}

/// A connection that began with one PROXY header is of no use to who wants another.
fn introduces(config: &conf::Upstream) -> u64 {
    BuildHasherDefault::<DefaultHasher>::default().hash_one((config.proxy_protocol, &config.proxy_tlvs))
}

impl Server {
    fn new(server: &conf::Server) -> Result<Self, PathBuf> {
        let (resolver, tls_name) = match server {
            conf::Server::Tcp { host, port, tls } => (Resolver::new(host, *port), tls.then(|| host.clone())),
            conf::Server::Unix(path) => (Resolver::fixed_unix(path).ok_or_else(|| path.clone())?, None),
        };
        Ok(Self { resolver, tls_name, preferred: AtomicUsize::new(0), avoided_until: Mutex::new(None) })
    }

    fn is_avoided(&self, now: Instant) -> bool {
        self.avoided_until.lock().unwrap_or_else(PoisonError::into_inner).is_some_and(|until| now < until)
    }
}

/// As nginx's `fail_timeout`.
const AVOIDED: Duration = Duration::from_secs(10);
/// Addresses tried for one request.
const MAX_TRIES: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    fn upstream(servers: &[&str]) -> Upstream {
        let server = |address: &&str| {
            let (host, port) = address.rsplit_once(':').unwrap();
            conf::Server::Tcp { host: host.into(), port: port.parse().unwrap(), tls: false }
        };
        let config = conf::Upstream {
            name: "test".into(),
            servers: servers.iter().map(server).collect(),
            proxy_protocol: None,
            proxy_tlvs: Vec::new(),
            forwarded_for: conf::ForwardedFor::Replace,
        };
        Upstream::new(Arc::new(config), Timeouts::default()).unwrap()
    }

    #[test]
    fn only_what_is_said_in_the_proxy_header_makes_another_introduction() {
        let with = |change: fn(&mut conf::Upstream)| {
            let mut config = conf::Upstream::clone(&upstream(&["127.0.0.1:1"]).config);
            config.proxy_protocol = Some(conf::ProxyVersion::V2);
            change(&mut config);
            introduces(&config)
        };
        assert_eq!(with(|_| {}), with(|config| config.name = "other".into()));
        assert_ne!(with(|_| {}), with(|config| config.proxy_protocol = Some(conf::ProxyVersion::V1)));
        assert_ne!(with(|_| {}), with(|config| config.proxy_tlvs = conf::ProxyTlv::DEFAULT.to_vec()));
    }

    async fn next(upstream: &Upstream, tries: &mut Tries) -> Option<String> {
        upstream.candidate(tries).await.map(|(_, address)| address.to_string())
    }

    #[tokio::test]
    async fn servers_take_turns() {
        let upstream = upstream(&["127.0.0.1:1", "127.0.0.1:2"]);
        for expected in ["127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:1"] {
            assert_eq!(next(&upstream, &mut Tries::default()).await.as_deref(), Some(expected));
        }
    }

    #[tokio::test]
    async fn every_server_is_tried_once() {
        let upstream = upstream(&["127.0.0.1:1", "127.0.0.1:2"]);
        let mut tries = Tries::default();
        for expected in [Some("127.0.0.1:1"), Some("127.0.0.1:2"), None] {
            assert_eq!(next(&upstream, &mut tries).await.as_deref(), expected);
            assert_eq!(next(&upstream, &mut tries).await.as_deref(), expected, "the same until it fails");
            upstream.failed(&mut tries, Instant::now());
        }
    }

    #[tokio::test]
    async fn a_failed_server_is_asked_last() {
        let upstream = upstream(&["127.0.0.1:1", "127.0.0.1:2"]);
        let mut tries = Tries::default();
        next(&upstream, &mut tries).await;
        upstream.failed(&mut tries, Instant::now());
        for _ in 0..3 {
            assert_eq!(next(&upstream, &mut Tries::default()).await.as_deref(), Some("127.0.0.1:2"));
        }
    }

    #[tokio::test]
    async fn a_name_that_does_not_resolve_is_no_candidate() {
        let upstream = upstream(&["does-not-exist.invalid:1"]);
        assert_eq!(next(&upstream, &mut Tries::default()).await, None);
    }

    #[test]
    fn a_unix_path_that_is_too_long_is_reported() {
        assert!(Server::new(&conf::Server::Unix("x".repeat(200).into())).is_err());
    }
}
