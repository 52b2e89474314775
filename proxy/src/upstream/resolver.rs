//! Addresses of one server: fixed, or from the system's resolver and remembered for a short time. One name, one
//! lookup at a time; a name that fails keeps its last addresses.

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use pingora::protocols::l4::socket::SocketAddr;
use tokio::net::lookup_host;
use tokio::sync::Mutex;
use tokio::time::timeout;

/// In the order of preference; empty when a name does not resolve.
pub(super) type Addresses = Arc<[SocketAddr]>;

#[derive(Debug)]
pub(super) enum Resolver {
    /// An address, or a Unix socket.
    Fixed(Addresses),
    /// A name.
    Name { host: String, port: u16, known: ArcSwap<Known>, lookup: Mutex<()> },
}

#[derive(Debug)]
pub(super) struct Known {
    addresses: Addresses,
    until: Option<Instant>,
}

impl Resolver {
    /// Of a name, or of an address in text form.
    pub(super) fn new(host: &str, port: u16) -> Self {
        if let Ok(ip) = host.parse::<IpAddr>() {
            return Self::Fixed(Arc::new([SocketAddr::Inet((ip, port).into())]));
        }
        let known = ArcSwap::from_pointee(Known { addresses: Arc::new([]), until: None });
        Self::Name { host: host.to_owned(), port, known, lookup: Mutex::new(()) }
    }

    /// Of a Unix socket; `None` when its path is too long.
    pub(super) fn fixed_unix(path: &Path) -> Option<Self> {
        let address = std::os::unix::net::SocketAddr::from_pathname(path).ok()?;
        Some(Self::Fixed(Arc::new([SocketAddr::Unix(address)])))
    }

    /// The addresses, after a lookup of at most `deadline` when none is remembered.
    pub(super) async fn addresses(&self, deadline: Duration) -> Addresses {
        let (host, port, known, lookup) = match self {
            Self::Fixed(addresses) => return addresses.clone(),
            Self::Name { host, port, known, lookup } => (host, *port, known, lookup),
        };
        if let Some(fresh) = fresh(&known.load()) {
            return fresh;
        }
        let _turn = lookup.lock().await;
        if let Some(fresh) = fresh(&known.load()) {
            return fresh;
        }
        let found: Result<Vec<_>, _> = match timeout(deadline, lookup_host((host.as_str(), port))).await {
            Ok(found) => found.map(|found| found.map(SocketAddr::Inet).take(MAX_ADDRESSES).collect()),
            Err(_) => Err(std::io::ErrorKind::TimedOut.into()),
        };
        let (addresses, lifetime) = match found {
            Ok(found) if !found.is_empty() => (found.into(), REMEMBERED),
            Ok(_) => (known.load().addresses.clone(), RETRY_AFTER),
            Err(error) => {
                tracing::warn!(%host, %error, "name of an upstream server does not resolve");
                (known.load().addresses.clone(), RETRY_AFTER)
            }
        };
        known.store(Arc::new(Known {
            addresses: Addresses::clone(&addresses),
            until: Some(Instant::now() + lifetime),
        }));
        addresses
    }
}

fn fresh(known: &Known) -> Option<Addresses> {
    known.until.filter(|until| Instant::now() < *until).map(|_| known.addresses.clone())
}

/// The system's resolver does not tell a name's time to live; a moved server is found within this.
const REMEMBERED: Duration = Duration::from_secs(10);
/// After a lookup that failed.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// Of one name.
const MAX_ADDRESSES: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn addresses_and_names_are_told_apart() {
        let second = Duration::from_secs(5);
        assert_eq!(Resolver::new("::1", 80).addresses(second).await[0].to_string(), "[::1]:80");
        let resolver = Resolver::new("localhost", 80);
        let first = resolver.addresses(second).await;
        assert!(!first.is_empty());
        assert!(Arc::ptr_eq(&first, &resolver.addresses(second).await), "remembered");
    }
}
