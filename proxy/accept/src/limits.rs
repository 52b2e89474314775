//! How many connections may be open: in total, and of one address. Memory is bounded by the total: an address without
//! an open connection is not remembered. It does not limit rates.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;
use ipnet::IpNet;

use crate::alarm::Alarms;
use crate::exposition::Exposition;
use crate::forwarded::contains;
use crate::tally::{self, Counts, Tallies, Tally};

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
    /// Of its listener.
    tally: Arc<Tally>,
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

#[derive(Debug)]
struct Shared {
    bounds: ArcSwap<Bounds>,
    open: AtomicUsize,
    /// All listeners together.
    all: Tally,
    tallies: Tallies,
    alarms: Alarms,
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
                all: Tally::default(),
                tallies: Tallies::default(),
                alarms: Alarms::default(),
                by_network: Mutex::default(),
            }),
        }
    }

    /// Other bounds, for connections to come: those that are open count on, and stay even if they are too many now.
    pub fn change(&self, total: usize, per_address: usize, exempt: Vec<IpNet>) {
        self.shared.bounds.store(Arc::new(Bounds { total, per_address, exempt }));
    }

    /// Takes one of the places in total for a connection of this listener. Its address is claimed when it is known.
    ///
    /// # Errors
    /// [`TooMany::Total`] when none is left.
    pub fn admit(&self, listener: &Arc<str>) -> Result<Permit, TooMany> {
        let tally = self.shared.tallies.of(listener);
        let total = self.shared.bounds.load().total;
        let one_more = |open| (open < total).then_some(open + 1);
        if self.shared.open.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).is_err() {
            self.shared.count(&tally, |tally| tally.over_limit(TooMany::Total));
            return Err(TooMany::Total);
        }
        self.shared.count(&tally, Tally::open);
        Ok(Permit { shared: self.shared.clone(), tally, claimed: None })
    }

    /// What became of connections so far.
    pub fn counts(&self) -> Counts {
        self.shared.all.counts()
    }

    /// The same of each listener that there is or was, by name.
    pub fn counts_by_listener(&self) -> Vec<(Arc<str>, Counts)> {
        self.shared.tallies.each()
    }

    /// Writes everything that is known about connections, of all listeners together and of each.
    pub fn write(&self, out: &mut Exposition) {
        tally::write(out, &self.shared.all, &self.shared.tallies);
    }

    /// Logs what became of the connections of each listener; to be called once, at the end.
    pub fn report(&self) {
        for (listener, counts) in self.counts_by_listener() {
            tracing::info!(
                %listener,
                accepted = counts.accepted,
                over_limit = counts.over_total + counts.over_per_address,
                refused = counts.refused.iter().sum::<u64>(),
                cut_off = counts.cut_off,
                "connections since the start"
            );
        }
    }

    /// Counts what concerns a listener and none of its connections.
    pub(crate) fn count(&self, listener: &Arc<str>, count: impl Fn(&Tally)) {
        self.shared.count(&self.shared.tallies.of(listener), count);
    }

    /// What is told to the administrator.
    pub(crate) fn alarms(&self) -> &Alarms {
        &self.shared.alarms
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
            self.count(|tally| tally.over_limit(TooMany::Address));
            return Err(TooMany::Address);
        }
        counts.insert(network, count + 1);
        self.claimed = Some(network);
        Ok(())
    }

    /// Counts something about this connection.
    pub(crate) fn count(&self, count: impl Fn(&Tally)) {
        self.shared.count(&self.tally, count);
    }

    /// What is told to the administrator.
    pub(crate) fn alarms(&self) -> &Alarms {
        &self.shared.alarms
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
        self.count(Tally::close);
    }
}

impl Shared {
    /// Counts something of a listener.
    fn count(&self, tally: &Tally, count: impl Fn(&Tally)) {
        count(&self.all);
        count(tally);
    }

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

    fn admit(limits: &ConnectionLimits) -> Result<Permit, TooMany> {
        limits.admit(&"test".into())
    }

    fn claim(limits: &ConnectionLimits, ip: &str) -> Result<Permit, TooMany> {
        let mut permit = admit(limits)?;
        permit.claim_address(ip.parse().unwrap())?;
        Ok(permit)
    }

    #[test]
    fn total_is_kept_and_given_back() {
        let limits = ConnectionLimits::new(2, 10);
        let first = admit(&limits).unwrap();
        let second = admit(&limits).unwrap();
        assert_eq!(admit(&limits).unwrap_err(), TooMany::Total);
        drop(first);
        let third = admit(&limits).unwrap();
        assert_eq!(limits.open(), 2);
        drop((second, third));
        assert_eq!(limits.counts(), Counts { accepted: 3, over_total: 1, ..Counts::default() });
    }

    #[test]
    fn every_listener_has_numbers_of_its_own() {
        let limits = ConnectionLimits::new(2, 1);
        let (a, b) = ("a".into(), "b".into());
        let held = [limits.admit(&a).unwrap(), limits.admit(&b).unwrap()];
        limits.admit(&b).unwrap_err();
        let [first, second] = limits.counts_by_listener().try_into().unwrap();
        assert_eq!((&*first.0, first.1.open, first.1.over_total), ("a", 1, 0));
        assert_eq!((&*second.0, second.1.open, second.1.over_total), ("b", 1, 1));
        drop(held);
        assert!(
            limits.counts_by_listener().iter().all(|(_, counts)| (counts.open, counts.accepted) == (0, 1))
        );
        assert_eq!(limits.counts().accepted, 2);
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
        assert_eq!(admit(&limits).unwrap_err(), TooMany::Total);
        limits.change(10, 3, vec!["192.0.2.0/24".parse().unwrap()]);
        held.extend((0..5).map(|_| claim(&limits, "192.0.2.1").unwrap()));
        limits.change(1, 1, Vec::new());
        assert_eq!(admit(&limits).unwrap_err(), TooMany::Total, "fewer than there are");
        drop(held);
        assert_eq!(limits.open(), 0);
        assert!(claim(&limits, "192.0.2.1").is_ok());
    }

    #[test]
    fn zero_admits_nobody() {
        assert!(admit(&ConnectionLimits::new(0, 1)).is_err());
        assert!(claim(&ConnectionLimits::new(1, 0), "192.0.2.1").is_err());
    }
}
