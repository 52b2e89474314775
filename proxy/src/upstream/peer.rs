//! The one place where a Pingora peer is made: where to connect, how long each step may take, and who may share the
//! connection afterwards.

use std::sync::Arc;
use std::time::Duration;

use conf::Timeouts;
use pingora::connectors::l4::Connect;
use pingora::protocols::ALPN;
use pingora::protocols::l4::socket::SocketAddr;
use pingora::upstreams::peer::{HttpPeer, PeerOptions, Scheme};

/// The client that an upstream connection belongs to.
#[derive(Debug, Clone)]
pub(crate) struct Identity {
    /// Different for any two clients.
    pub(crate) key: u64,
    /// Connects and writes the PROXY header.
    pub(crate) introduction: Arc<dyn Connect + Send + Sync>,
}

/// A peer. `tls_name` asks for TLS, verified for that name. With an `identity` only requests with the same key share
/// its connections: `custom_l4` alone is not part of Pingora's pool key, so both are set here or neither.
pub(super) fn make_peer(
    address: SocketAddr,
    tls_name: Option<&str>,
    timeouts: &Timeouts,
    identity: Option<Identity>,
) -> HttpPeer {
    let mut options = PeerOptions::new();
    options.alpn = ALPN::H1;
    options.connection_timeout = Some(timeouts.connect);
    options.total_connection_timeout = Some(timeouts.connect);
    options.read_timeout = Some(timeouts.upstream_read);
    // What is written is a request's body: it pauses no longer for one side than for the other.
    options.write_timeout = Some(timeouts.body);
    options.idle_timeout = Some(if identity.is_some() { OWN_IDLE } else { SHARED_IDLE });
    let group_key = match identity {
        None => 0,
        Some(Identity { key, introduction }) => {
            options.custom_l4 = Some(introduction);
            key
        }
    };
    HttpPeer {
        _address: address,
        scheme: Scheme::from_tls_bool(tls_name.is_some()),
        sni: tls_name.unwrap_or_default().to_owned(),
        proxy: None,
        client_cert_key: None,
        group_key,
        options,
    }
}

/// Below the 60 s after which Twisted closes: a connection that the server is about to close is not used again.
const SHARED_IDLE: Duration = Duration::from_secs(30);
/// Of one client only: not worth much once the client has left, and nobody tells.
const OWN_IDLE: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use pingora::upstreams::peer::Peer as _;

    use super::*;
    use crate::upstream::dial::introducing;

    fn peer(key: Option<u64>) -> HttpPeer {
        let address = SocketAddr::Inet("127.0.0.1:80".parse().unwrap());
        let introduction = introducing(Vec::new, Duration::from_secs(1));
        make_peer(address, None, &Timeouts::default(), key.map(|key| Identity { key, introduction }))
    }

    #[test]
    fn two_clients_never_share_a_connection() {
        assert_ne!(peer(Some(1)).reuse_hash(), peer(Some(2)).reuse_hash());
        assert_ne!(peer(Some(1)).reuse_hash(), peer(None).reuse_hash());
        assert_eq!(peer(Some(1)).reuse_hash(), peer(Some(1)).reuse_hash());
    }

    #[test]
    fn every_step_has_a_deadline() {
        for peer in [peer(None), peer(Some(1))] {
            assert!(peer.connection_timeout().is_some() && peer.total_connection_timeout().is_some());
            assert!(peer.options.read_timeout.is_some() && peer.options.write_timeout.is_some());
            assert!(peer.idle_timeout().is_some());
            assert_eq!(peer.options.custom_l4.is_some(), peer.group_key != 0);
        }
    }
}
