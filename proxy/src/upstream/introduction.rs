//! What the PROXY header to an upstream says of a client. Pure; `dial` sends it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use accept::proxy_protocol::{self, Ssl, Tlvs};
use accept::{ClientAddress, Connection, Remote};
use conf::{ProxyTlv, ProxyVersion};

/// The header for `client`, whose request came over `connection`, called `unique_id`. Nothing if the upstream wants none.
///
/// Where a trusted proxy speaks for the client (`X-Forwarded-For`), the connection is that proxy's and shared by many: it
/// says nothing of this client, and the header has its address alone.
pub(crate) fn header(
    upstream: &conf::Upstream,
    connection: &Connection,
    unique_id: &[u8],
    client: ClientAddress,
) -> Vec<u8> {
    let Some(version) = upstream.proxy_protocol else { return Vec::new() };
    let wants = |tlv| version == ProxyVersion::V2 && upstream.proxy_tlvs.contains(&tlv);
    let peer = connection.peer();
    let is_its_own = client.ip() == peer.ip();
    let mut tlvs = if is_its_own { of_connection(connection, unique_id, &wants) } else { Tlvs::default() };
    tlvs.crc32c = wants(ProxyTlv::Crc32c);
    let source = match peer {
        Remote::Ip(address) if is_its_own => Some(address),
        Remote::Ip(_) | Remote::Unix => client.ip().map(|ip| SocketAddr::new(ip, 0)),
    };
    let destination = source.map(|source| connection.peer_local().unwrap_or(unspecified(source.ip())));
    proxy_protocol::write(version, source, destination, &tlvs)
}

/// The PROXY header that came with the connection knows the client better than we do: what we see ourselves is how the
/// proxy in front connected to us. Where the header says nothing, or there is none, it is for us to say.
fn of_connection(connection: &Connection, unique_id: &[u8], wants: &impl Fn(ProxyTlv) -> bool) -> Tlvs {
    let given = connection.proxy_header.as_ref().map(|header| &header.tlvs);
    let own = connection.tls.as_ref();
    let authority = || {
        let given = given.and_then(|given| given.authority.clone());
        given.or_else(|| own.and_then(|tls| tls.server_name.clone()))
    };
    let ssl = || {
        let given = given.and_then(|given| given.ssl.clone()).filter(Ssl::is_tls);
        given.or_else(|| own.map(Ssl::from))
    };
    Tlvs {
        // Never the protocol (ALPN): whoever reads this header speaks HTTP/1.1 with us.
        unique_id: wants(ProxyTlv::UniqueId).then(|| unique_id.to_vec()),
        authority: wants(ProxyTlv::Authority).then(authority).flatten(),
        ssl: wants(ProxyTlv::Ssl).then(ssl).flatten(),
        ..Tlvs::default()
    }
}

/// Stands for a destination that nobody knows.
fn unspecified(source: IpAddr) -> SocketAddr {
    let ip = match source.to_canonical() {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    SocketAddr::new(ip, 0)
}

#[cfg(test)]
mod tests {
    use accept::TlsFacts;
    use accept::proxy_protocol::{Command, ProxyHeader};

    use super::*;

    const UNIQUE_ID: &[u8] = b"0000-1";

    fn upstream(version: ProxyVersion, tlvs: &[ProxyTlv]) -> conf::Upstream {
        conf::Upstream {
            name: "test".into(),
            servers: Vec::new(),
            proxy_protocol: Some(version),
            proxy_tlvs: tlvs.to_vec(),
            forwarded_for: conf::ForwardedFor::Replace,
        }
    }

    fn connection(remote: &str, tlvs: Option<Tlvs>, server_name: Option<&str>) -> Connection {
        let address = |text: &str| text.parse::<SocketAddr>().ok();
        let header = |tlvs| ProxyHeader {
            version: ProxyVersion::V2,
            command: Command::Proxy,
            source: address("203.0.113.7:7"),
            destination: address("192.0.2.80:443"),
            tlvs,
        };
        Connection {
            id: 1,
            listener: "test".into(),
            remote: address(remote).map_or(Remote::Unix, Remote::Ip),
            local: address("192.0.2.80:80").filter(|_| !remote.is_empty()),
            proxy_header: tlvs.map(header).map(Box::new),
            tls: server_name.map(|name| TlsFacts {
                version: "1.3",
                cipher: "TLS_AES_256_GCM_SHA384".to_owned(),
                server_name: Some(name.to_owned()),
                alpn: Some(b"h2".to_vec()),
                is_resumed: false,
                has_client_certificate: false,
            }),
        }
    }

    fn own_ssl() -> Ssl {
        Ssl {
            client: 1,
            verify: 1,
            version: Some("TLSv1.3".to_owned()),
            cipher: Some("TLS_AES_256_GCM_SHA384".to_owned()),
            ..Ssl::default()
        }
    }

    fn read(upstream: &conf::Upstream, connection: &Connection, client: Option<&str>) -> ProxyHeader {
        let client = client.map_or(ClientAddress::UNKNOWN, |ip| ip.parse::<IpAddr>().unwrap().into());
        let written = header(upstream, connection, UNIQUE_ID, client);
        proxy_protocol::parse(&written).unwrap().unwrap().0
    }

    fn addresses(connection: &Connection, client: Option<&str>) -> Option<(String, String)> {
        let [first, second] = [ProxyVersion::V1, ProxyVersion::V2].map(|version| {
            let read = read(&upstream(version, &[]), connection, client);
            read.source.zip(read.destination).map(|(from, to)| (from.to_string(), to.to_string()))
        });
        assert_eq!(first, second);
        first
    }

    #[test]
    fn addresses_are_the_clients() {
        let check = |connection: &Connection, client, expected: Option<(&str, &str)>| {
            let expected = expected.map(|(from, to)| (from.to_owned(), to.to_owned()));
            assert_eq!(addresses(connection, client), expected);
        };
        let direct = connection("198.51.100.1:1", None, None);
        check(&direct, Some("198.51.100.1"), Some(("198.51.100.1:1", "192.0.2.80:80")));
        check(&direct, Some("203.0.113.9"), Some(("203.0.113.9:0", "192.0.2.80:80")));
        check(&direct, Some("2001:db8::1"), Some(("[2001:db8::1]:0", "192.0.2.80:80")));
        let balanced = connection("198.51.100.1:1", Some(Tlvs::default()), None);
        check(&balanced, Some("203.0.113.7"), Some(("203.0.113.7:7", "192.0.2.80:443")));
        let unix = connection("", None, None);
        check(&unix, None, None);
        check(&unix, Some("203.0.113.9"), Some(("203.0.113.9:0", "0.0.0.0:0")));
        check(&unix, Some("2001:db8::1"), Some(("[2001:db8::1]:0", "[::]:0")));
    }

    #[test]
    fn own_facts_are_told_where_nobody_in_front_knows_better() {
        let upstream = upstream(ProxyVersion::V2, &ProxyTlv::DEFAULT);
        let tlvs =
            read(&upstream, &connection("198.51.100.1:1", None, Some("a.example")), Some("198.51.100.1"))
                .tlvs;
        let expected = Tlvs {
            unique_id: Some(UNIQUE_ID.to_vec()),
            authority: Some("a.example".to_owned()),
            ssl: Some(own_ssl()),
            ..Tlvs::default()
        };
        assert_eq!(tlvs, expected);
        // A balancer that passes TLS through says that it spoke none itself.
        let passed = Tlvs { ssl: Some(Ssl::default()), ..Tlvs::default() };
        let connection = connection("198.51.100.1:1", Some(passed), Some("a.example"));
        assert_eq!(read(&upstream, &connection, Some("203.0.113.7")).tlvs, expected);
    }

    #[test]
    fn facts_from_the_front_are_passed_on() {
        let given = Tlvs {
            authority: Some("front.example".to_owned()),
            ssl: Some(Ssl { client: 3, common_name: Some("alice".to_owned()), ..Ssl::default() }),
            ..Tlvs::default()
        };
        let upstream = upstream(ProxyVersion::V2, &ProxyTlv::DEFAULT);
        for server_name in [None, Some("inner.example")] {
            let in_front = Tlvs { alpn: Some(b"h2".to_vec()), crc32c: true, ..given.clone() };
            let connection = connection("198.51.100.1:1", Some(in_front), server_name);
            let tlvs = read(&upstream, &connection, Some("203.0.113.7")).tlvs;
            assert_eq!(tlvs, Tlvs { unique_id: Some(UNIQUE_ID.to_vec()), ..given.clone() });
        }
    }

    #[test]
    fn nothing_is_said_that_was_not_asked_for() {
        let connection = connection("198.51.100.1:1", None, Some("a.example"));
        for version in [ProxyVersion::V1, ProxyVersion::V2] {
            assert_eq!(
                read(&upstream(version, &[]), &connection, Some("198.51.100.1")).tlvs,
                Tlvs::default()
            );
        }
        let tlvs =
            read(&upstream(ProxyVersion::V2, &[ProxyTlv::Crc32c]), &connection, Some("198.51.100.1")).tlvs;
        assert_eq!(tlvs, Tlvs { crc32c: true, ..Tlvs::default() });
        let none = conf::Upstream { proxy_protocol: None, ..upstream(ProxyVersion::V2, &ProxyTlv::DEFAULT) };
        assert!(header(&none, &connection, UNIQUE_ID, ClientAddress::UNKNOWN).is_empty());
    }

    #[test]
    fn the_connection_of_a_proxy_says_nothing_of_its_clients() {
        let all = [ProxyTlv::UniqueId, ProxyTlv::Authority, ProxyTlv::Ssl, ProxyTlv::Crc32c];
        let connection = connection("198.51.100.1:1", None, Some("a.example"));
        let tlvs = read(&upstream(ProxyVersion::V2, &all), &connection, Some("203.0.113.9")).tlvs;
        assert_eq!(tlvs, Tlvs { crc32c: true, ..Tlvs::default() });
    }
}
