//! The places of a configuration, and which of them were there before. Pure; sockets only pass through.

use std::sync::Arc;
use std::time::Duration;

use accept::{Acceptor, Bound, BoundAddress, BoundSocket, ProxyPolicy, Terms, Tickets};
use conf::Bind;

use crate::snapshot::PlaceId;

/// Where a configuration is served, in its order.
#[derive(Debug, Clone, Default)]
pub(super) struct Places {
    all: Vec<Known>,
    /// Ids below are taken.
    next_id: u64,
}

#[derive(Debug, Clone)]
struct Known {
    id: PlaceId,
    key: Key,
    /// Index of the listener.
    listener: usize,
    name: String,
    address: BoundAddress,
}

/// By what a socket is known again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Key {
    At(BoundAddress),
    /// An inherited socket without an address.
    Inherited(usize),
}

impl Key {
    pub(super) fn of(bind: &Bind, address: &BoundAddress) -> Self {
        match (bind, address) {
            (Bind::Fd { index, .. }, BoundAddress::Unix(None)) => Self::Inherited(*index),
            (_, address) => Self::At(address.clone()),
        }
    }
}

impl Places {
    /// None yet, in a configuration that follows one with these.
    pub(super) fn following(before: &Self) -> Self {
        Self { all: Vec::new(), next_id: before.next_id }
    }

    /// Adds the place of a listener's socket; returns the sockets if it was not there `before`.
    pub(super) fn add(
        &mut self,
        before: &Self,
        bind: &Bind,
        bound: Bound,
        (listener, name): (usize, &str),
    ) -> Option<(PlaceId, Vec<BoundSocket>)> {
        let key = Key::of(bind, &bound.address);
        let same = before.all.iter().find(|known| known.key == key);
        let id = same.map_or(PlaceId(self.next_id), |known| known.id);
        self.all.push(Known { id, key, listener, name: name.to_owned(), address: bound.address });
        if same.is_some() {
            return None;
        }
        self.next_id += 1;
        Some((id, bound.sockets))
    }

    /// Listener and address of each.
    pub(super) fn addresses(&self) -> impl Iterator<Item = (&str, &BoundAddress)> {
        self.all.iter().map(|known| (known.name.as_str(), &known.address))
    }

    /// Listener and address of each that is not among the `other`.
    pub(super) fn without<'a>(
        &'a self,
        other: &'a Self,
    ) -> impl Iterator<Item = (&'a str, &'a BoundAddress)> + 'a {
        let is_other = |known: &&Known| !other.all.iter().any(|other| other.id == known.id);
        self.all.iter().filter(is_other).map(|known| (known.name.as_str(), &known.address))
    }

    /// The listener of each, in the order of the places' ids.
    pub(super) fn listeners(&self) -> Arc<[(PlaceId, usize)]> {
        let mut listeners: Vec<_> = self.all.iter().map(|known| (known.id, known.listener)).collect();
        listeners.sort_unstable();
        listeners.into()
    }

    /// Port of the first place where TLS is spoken.
    pub(super) fn https_port(&self, config: &conf::Edge) -> Option<u16> {
        self.all.iter().find_map(|known| match (&known.address, config.listeners.get(known.listener)?.tls) {
            (BoundAddress::Tcp(address), true) => Some(address.port()),
            (BoundAddress::Tcp(_) | BoundAddress::Unix(_), _) => None,
        })
    }

    /// What is agreed on at each.
    pub(super) fn terms(&self, config: &conf::Edge, tickets: &Tickets) -> Vec<(PlaceId, Terms)> {
        let acceptors = acceptors(config, tickets);
        let terms = |known: &Known| {
            let acceptor = acceptors.get(known.listener)?.clone();
            Some((known.id, Terms { acceptor, drain: drain(&config.timeouts) }))
        };
        self.all.iter().filter_map(terms).collect()
    }
}

/// After which connections are closed without a word. Requests and tunnels have ended before, each at its own time, and said so in
/// the log.
fn drain(timeouts: &conf::Timeouts) -> Duration {
    timeouts.drain.max(timeouts.tunnel_drain) + LAST_WORDS
}

/// For the end of what is cut off: an answer, a line in the log.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// One per listener, in order.
fn acceptors(config: &conf::Edge, tickets: &Tickets) -> Vec<Arc<Acceptor>> {
    // Clients of HTTP/1.0 may offer nothing else, and who agrees on nothing is sent away (RFC 7301 §3.2).
    let protocols: &[&[u8]] = &[b"h2", b"http/1.1", b"http/1.0"];
    let tls = config.tls.as_ref().map(|tls| accept::server_config(tls, protocols, tickets).0);
    let acceptor = |listener: &conf::EdgeListener| Acceptor {
        listener: listener.name.as_str().into(),
        proxy: listener.proxy_protocol.clone().map_or(ProxyPolicy::Off, ProxyPolicy::From),
        tls: tls.clone().filter(|_| listener.tls),
        header: accept::HeaderBounds {
            deadline: config.timeouts.proxy_header,
            size: usize::try_from(config.limits.max_proxy_header_size.0).unwrap_or(usize::MAX),
        },
        handshake: config.timeouts.handshake,
    };
    config.listeners.iter().map(acceptor).map(Arc::new).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(before: &Places, addresses: &[(&str, usize)]) -> (Places, Vec<PlaceId>) {
        let mut places = Places::following(before);
        let mut new = Vec::new();
        for (address, listener) in addresses {
            let address = address.parse().unwrap();
            let bound = Bound { address: BoundAddress::Tcp(address), sockets: Vec::new(), held: false };
            let added = places.add(before, &Bind::Address(address), bound, (*listener, "name"));
            new.extend(added.map(|(id, _)| id));
        }
        (places, new)
    }

    #[test]
    fn a_place_stays_the_same_as_long_as_its_address_is_served() {
        let (first, new) = places(&Places::default(), &[("127.0.0.1:1", 0), ("127.0.0.1:2", 1)]);
        assert_eq!(new, [PlaceId(0), PlaceId(1)]);
        let (second, new) = places(&first, &[("127.0.0.1:3", 0), ("127.0.0.1:2", 0)]);
        assert_eq!(new, [PlaceId(2)]);
        assert_eq!(*second.listeners(), [(PlaceId(1), 0), (PlaceId(2), 0)]);
        let gone: Vec<_> = first.without(&second).map(|(_, address)| address.to_string()).collect();
        assert_eq!(gone, ["127.0.0.1:1"]);
        let (_, new) = places(&second, &[("127.0.0.1:1", 0)]);
        assert_eq!(new, [PlaceId(3)], "never the same again");
    }

    #[test]
    fn nameless_inherited_sockets_are_told_apart() {
        let key =
            |index| Key::of(&Bind::Fd { index, kind: conf::SocketKind::Unix }, &BoundAddress::Unix(None));
        assert_eq!(key(1), key(1));
        assert_ne!(key(1), key(2));
    }
}
