//! How many connections may be open: in total, and of one address. Memory is bounded by the total: an address without
//! an open connection is not remembered. It does not limit rates.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;
use ipnet::IpNet;

use crate::acceptor::REFUSAL_REASONS;
use crate::forwarded::contains;

/// Counts open connections, of all listeners that share it.
#[derive(Debug)]
pub struct ConnectionLimits {
    shared: Arc<Shared>,
}

/// The right to have one connection open; given back when dropped.
#[derive(Debug)]
#[must_use = "dropping it gives the place back"]
pub struct Permit {
    shared: Arc<Shared>,
    claimed: Option<Network>,
}

/// Why a connection is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TooMany {
    /// `limits.max_connections` are open.
    #[error("too many connections")]
    Total,
    /// `limits.max_connections_per_ip` of this address are open.
    #[error("too many connections of one address")]
    Address,
}

/// What became of connections since the start, for metrics.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Open now.
    pub open: usize,
    /// Admitted, including those refused afterwards.
    pub admitted: u64,
    /// Closed because of a limit.
    pub over_limit: u64,
    /// Closed because of their PROXY header or TLS handshake, in the order of [`REFUSAL_REASONS`].
    pub refused: [u64; REFUSAL_REASONS.len()],
}

#[derive(Debug)]
struct Shared {
    bounds: ArcSwap<Bounds>,
    open: AtomicUsize,
    admitted: AtomicU64,
    over_limit: AtomicU64,
    refused: [AtomicU64; REFUSAL_REASONS.len()],
    by_network: Mutex<HashMap<Network, usize>>,
}

#[derive(Debug)]
struct Bounds {
    total: usize,
    per_address: usize,
    exempt: Vec<IpNet>,
}

/// What counts as one address: an IPv4 address, or an IPv6 /64, which is what one subscriber gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Network {
    V4(Ipv4Addr),
    V6([u8; 8]),
}

impl ConnectionLimits {
    /// At most `total` connections, and at most `per_address` of one address (IPv6: of one /64). Zero admits nobody.
    pub fn new(total: usize, per_address: usize) -> Self {
        Self::exempting(total, per_address, Vec::new())
    }

    /// As [`new`](Self::new), but addresses in `exempt` (one's own proxies, which speak for many clients) count
    /// towards the total only.
    pub fn exempting(total: usize, per_address: usize, exempt: Vec<IpNet>) -> Self {
        Self {
            shared: Arc::new(Shared {
                bounds: ArcSwap::from_pointee(Bounds { total, per_address, exempt }),
                open: AtomicUsize::new(0),
                admitted: AtomicU64::new(0),
                over_limit: AtomicU64::new(0),
                refused: Default::default(),
                by_network: Mutex::default(),
            }),
        }
    }

    /// Other bounds, for connections to come: those that are open count on, and stay even if they are too many now.
    pub fn change(&self, total: usize, per_address: usize, exempt: Vec<IpNet>) {
        self.shared.bounds.store(Arc::new(Bounds { total, per_address, exempt }));
    }

    /// Takes one of the places in total. Its address is claimed when it is known.
    ///
    /// # Errors
    /// [`TooMany::Total`] when none is left.
    pub fn admit(&self) -> Result<Permit, TooMany> {
        let total = self.shared.bounds.load().total;
        let one_more = |open| (open < total).then_some(open + 1);
        if self.shared.open.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).is_err() {
            self.shared.over_limit.fetch_add(1, Ordering::Relaxed);
            return Err(TooMany::Total);
        }
        self.shared.admitted.fetch_add(1, Ordering::Relaxed);
        Ok(Permit { shared: self.shared.clone(), claimed: None })
    }

    /// What became of connections so far.
    pub fn counts(&self) -> Counts {
        Counts {
            open: self.open(),
            admitted: self.shared.admitted.load(Ordering::Relaxed),
            over_limit: self.shared.over_limit.load(Ordering::Relaxed),
            refused: self.shared.refused.each_ref().map(|count| count.load(Ordering::Relaxed)),
        }
    }

    /// Connections open now.
    pub fn open(&self) -> usize {
        self.shared.open.load(Ordering::Relaxed)
    }
}

impl Permit {
    /// Takes one of the places of `ip`, giving back the one claimed before, if any.
    ///
    /// # Errors
    /// [`TooMany::Address`] when the address has none left.
    pub fn claim_address(&mut self, ip: IpAddr) -> Result<(), TooMany> {
        self.release_address();
        let ip = ip.to_canonical();
        let bounds = self.shared.bounds.load();
        if contains(&bounds.exempt, ip) {
            return Ok(());
        }
        let network = Network::of(ip);
        let mut counts = self.shared.by_network();
        let count = counts.get(&network).copied().unwrap_or(0);
        if count >= bounds.per_address {
            self.shared.over_limit.fetch_add(1, Ordering::Relaxed);
            return Err(TooMany::Address);
        }
        counts.insert(network, count + 1);
        self.claimed = Some(network);
        Ok(())
    }

    /// Counts this connection among those refused for this reason.
    pub(crate) fn count_refused(&self, reason: &str) {
        let counts = REFUSAL_REASONS.iter().zip(&self.shared.refused);
        if let Some((_, count)) = counts.into_iter().find(|(known, _)| **known == reason) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn release_address(&mut self) {
        let Some(network) = self.claimed.take() else { return };
        let mut counts = self.shared.by_network();
        match counts.get_mut(&network) {
            Some(count) if *count > 1 => *count -= 1,
            Some(_) | None => {
                counts.remove(&network);
            }
        }
        // After a flood the table gives its memory back.
        if counts.is_empty() && counts.capacity() > KEPT_CAPACITY {
            counts.shrink_to(KEPT_CAPACITY);
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.release_address();
        self.shared.open.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Shared {
    fn by_network(&self) -> MutexGuard<'_, HashMap<Network, usize>> {
        // Nothing inside the lock can leave the table half changed.
        self.by_network.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Network {
    fn of(ip: IpAddr) -> Self {
        match ip {
            IpAddr::V4(v4) => Self::V4(v4),
            IpAddr::V6(v6) => {
                let [a, b, c, d, e, f, g, h, ..] = v6.octets();
                Self::V6([a, b, c, d, e, f, g, h])
            }
        }
    }
}

/// Entries the table of addresses keeps room for: about 40 KiB.
const KEPT_CAPACITY: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(limits: &ConnectionLimits, ip: &str) -> Result<Permit, TooMany> {
        let mut permit = limits.admit()?;
        permit.claim_address(ip.parse().unwrap())?;
        Ok(permit)
    }

    #[test]
    fn total_is_kept_and_given_back() {
        let limits = ConnectionLimits::new(2, 10);
        let first = limits.admit().unwrap();
        let second = limits.admit().unwrap();
        assert_eq!(limits.admit().unwrap_err(), TooMany::Total);
        drop(first);
        let third = limits.admit().unwrap();
        assert_eq!(limits.open(), 2);
        drop((second, third));
        assert_eq!(limits.counts(), Counts { open: 0, admitted: 3, over_limit: 1, ..Counts::default() });
    }

    #[test]
    fn each_address_has_its_own_places() {
        let limits = ConnectionLimits::new(10, 1);
        let first = claim(&limits, "192.0.2.1").unwrap();
        assert_eq!(claim(&limits, "192.0.2.1").unwrap_err(), TooMany::Address);
        assert_eq!(claim(&limits, "::ffff:192.0.2.1").unwrap_err(), TooMany::Address);
        let other = claim(&limits, "192.0.2.2").unwrap();
        assert_eq!(limits.open(), 2, "a refused connection holds no place");
        drop(first);
        drop((claim(&limits, "192.0.2.1").unwrap(), other));
        assert!(limits.shared.by_network().is_empty());
    }

    #[test]
    fn an_ipv6_network_of_64_bits_is_one_address() {
        let limits = ConnectionLimits::new(10, 1);
        let _first = claim(&limits, "2001:db8::1").unwrap();
        assert_eq!(claim(&limits, "2001:db8::ffff:1").unwrap_err(), TooMany::Address);
        assert!(claim(&limits, "2001:db8:0:1::1").is_ok());
    }

    #[test]
    fn claiming_again_moves_the_claim() {
        let limits = ConnectionLimits::new(10, 1);
        let mut permit = claim(&limits, "192.0.2.1").unwrap();
        permit.claim_address("192.0.2.2".parse().unwrap()).unwrap();
        assert!(claim(&limits, "192.0.2.1").is_ok());
        assert!(claim(&limits, "192.0.2.2").is_err());
    }

    #[test]
    fn own_proxies_count_in_total_only() {
        let limits = ConnectionLimits::exempting(3, 1, vec!["127.0.0.0/8".parse().unwrap()]);
        let held: Vec<_> = (0..3).map(|_| claim(&limits, "127.0.0.1").unwrap()).collect();
        assert_eq!(claim(&limits, "127.0.0.1").unwrap_err(), TooMany::Total);
        drop(held);
    }

    #[test]
    fn other_bounds_keep_the_counts() {
        let limits = ConnectionLimits::new(10, 10);
        let mut held: Vec<_> = (0..3).map(|_| claim(&limits, "192.0.2.1").unwrap()).collect();
        limits.change(4, 3, Vec::new());
        assert_eq!(limits.open(), 3);
        assert_eq!(claim(&limits, "192.0.2.1").unwrap_err(), TooMany::Address);
        held.push(claim(&limits, "192.0.2.2").unwrap());
        assert_eq!(limits.admit().unwrap_err(), TooMany::Total);
        limits.change(10, 3, vec!["192.0.2.0/24".parse().unwrap()]);
        held.extend((0..5).map(|_| claim(&limits, "192.0.2.1").unwrap()));
        limits.change(1, 1, Vec::new());
        assert_eq!(limits.admit().unwrap_err(), TooMany::Total, "fewer than there are");
        drop(held);
        assert_eq!(limits.open(), 0);
        assert!(claim(&limits, "192.0.2.1").is_ok());
    }

    #[test]
    fn zero_admits_nobody() {
        assert!(ConnectionLimits::new(0, 1).admit().is_err());
        assert!(claim(&ConnectionLimits::new(1, 0), "192.0.2.1").is_err());
    }
}
