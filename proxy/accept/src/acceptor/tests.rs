//! PROXY headers and TLS over real sockets.

use std::time::Instant;

use conf::{EdgeTls, TlsVersion};
use rustls::HandshakeKind;
use rustls::version::{TLS12, TLS13};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};

use super::*;
use crate::fixtures::{certificate, client_config, leaf, tcp_pair, tls_connect};
use crate::proxy_protocol::{Ssl, Tlvs};

const REMOTE: &str = "192.0.2.1:4711";

fn remote() -> Remote {
    Remote::Ip(REMOTE.parse().unwrap())
}

fn acceptor(proxy: ProxyPolicy, tls: Option<Arc<ServerConfig>>) -> Acceptor {
    Acceptor {
        listener: "test".into(),
        proxy,
        tls,
        header: HeaderBounds::default(),
        handshake: Duration::from_secs(5),
    }
}

fn trusting(network: &str) -> Vec<IpNet> {
    vec![network.parse().unwrap()]
}

fn edge_tls(certificates: &[&conf::Certificate], min_version: TlsVersion) -> EdgeTls {
    EdgeTls {
        certificates: certificates.iter().map(|&certificate| certificate.clone()).collect(),
        min_version,
    }
}

/// What the acceptor makes of a connection on which the client sends `bytes` and closes its side.
async fn check(policy: ProxyPolicy, from: Remote, bytes: &[u8]) -> Result<(Connection, Vec<u8>), Refused> {
    let (mut client, stream) = tcp_pair().await;
    client.write_all(bytes).await.unwrap();
    client.shutdown().await.unwrap();
    let (mut io, connection) = acceptor(policy, None).establish(stream, from).await?;
    let mut rest = Vec::new();
    io.read_to_end(&mut rest).await.unwrap();
    Ok((connection, rest))
}

const HEADER: &[u8] = b"PROXY TCP4 203.0.113.7 10.0.0.1 4660 443\r\nGET / HTTP/1.1\r\n";

#[tokio::test]
async fn without_policy_nothing_is_parsed() {
    let (connection, rest) = check(ProxyPolicy::Off, remote(), HEADER).await.unwrap();
    assert_eq!(rest, HEADER);
    assert_eq!((connection.peer(), connection.proxy_header), (remote(), None));
}

#[tokio::test]
async fn header_from_an_allowed_peer_says_who_connected() {
    for policy in [ProxyPolicy::From(trusting("192.0.2.0/24")), ProxyPolicy::Always(trusting("192.0.2.0/24"))]
    {
        let (connection, rest) = check(policy, remote(), HEADER).await.unwrap();
        assert_eq!(rest, b"GET / HTTP/1.1\r\n");
        assert_eq!(connection.peer().to_string(), "203.0.113.7:4660");
        assert_eq!(connection.peer_local().unwrap().to_string(), "10.0.0.1:443");
        assert_eq!(connection.remote, remote());
    }
}

#[tokio::test]
async fn header_from_another_peer_is_not_parsed_or_refused() {
    let (connection, rest) =
        check(ProxyPolicy::From(trusting("10.0.0.0/8")), remote(), HEADER).await.unwrap();
    assert_eq!((connection.peer(), rest.as_slice()), (remote(), HEADER));
    let refused = check(ProxyPolicy::Always(trusting("10.0.0.0/8")), remote(), HEADER).await;
    assert!(matches!(refused, Err(Refused::Untrusted)));
    let nobody = check(ProxyPolicy::Always(Vec::new()), remote(), HEADER).await;
    assert!(matches!(nobody, Err(Refused::Untrusted)));
}

#[tokio::test]
async fn header_is_mandatory_for_an_allowed_peer() {
    let policy = ProxyPolicy::From(trusting("192.0.2.0/24"));
    let refused = check(policy, remote(), b"GET / HTTP/1.1\r\n\r\n").await;
    assert!(matches!(refused, Err(Refused::Header(ProxyHeaderError::Missing))));
}

#[tokio::test]
async fn unix_peer_must_send_a_header_and_is_believed() {
    for policy in [ProxyPolicy::From(Vec::new()), ProxyPolicy::Always(Vec::new())] {
        let (mut client, stream) = UnixStream::pair().unwrap();
        client.write_all(HEADER).await.unwrap();
        let established = acceptor(policy.clone(), None).establish(Stream::Unix(stream), Remote::Unix).await;
        let (_, connection) = established.unwrap();
        assert_eq!(connection.peer().to_string(), "203.0.113.7:4660");
        assert_eq!(connection.local, None);
        assert!(matches!(check(policy, Remote::Unix, b"GET /").await, Err(Refused::Header(_))));
    }
}

#[tokio::test]
async fn local_header_leaves_the_socket_to_speak_for_itself() {
    let local = proxy_protocol::write(conf::ProxyVersion::V2, None, None, &Tlvs::default());
    let (connection, _) =
        check(ProxyPolicy::Always(trusting("192.0.2.0/24")), remote(), &local).await.unwrap();
    assert_eq!(connection.peer(), remote());
    assert_eq!(connection.peer_local(), connection.local);
    assert_eq!(connection.proxy_header.unwrap().command, proxy_protocol::Command::Local);
}

#[tokio::test]
async fn end_in_the_middle_of_a_header_ends_at_once() {
    let binary = proxy_protocol::write(
        conf::ProxyVersion::V2,
        Some("203.0.113.7:1".parse().unwrap()),
        Some("10.0.0.1:2".parse().unwrap()),
        &Tlvs::default(),
    );
    for part in [&b""[..], b"PROXY TCP4 203.0", b"\r\n\r\n", &binary[..20]] {
        let started = Instant::now();
        let refused = check(ProxyPolicy::From(trusting("192.0.2.0/24")), remote(), part).await;
        assert!(matches!(refused, Err(Refused::Closed)), "{refused:?}");
        assert!(started.elapsed() < Duration::from_secs(1));
    }
}

#[tokio::test]
async fn header_may_come_byte_by_byte() {
    let (mut client, stream) = tcp_pair().await;
    let sending = tokio::spawn(async move {
        for byte in HEADER {
            client.write_all(&[*byte]).await.unwrap();
            tokio::task::yield_now().await;
        }
        client
    });
    let acceptor = acceptor(ProxyPolicy::Always(trusting("192.0.2.0/24")), None);
    let (mut io, connection) = acceptor.establish(stream, remote()).await.unwrap();
    assert_eq!(connection.peer().to_string(), "203.0.113.7:4660");
    drop(sending.await.unwrap());
    let mut rest = String::new();
    io.read_to_string(&mut rest).await.unwrap();
    assert_eq!(rest, "GET / HTTP/1.1\r\n");
}

#[tokio::test]
async fn header_and_handshake_have_a_deadline_each() {
    let cert = certificate(&["a.example"]);
    let tls = || Some(server_config_for(&cert, &[], &Tickets::new()));
    let from = || ProxyPolicy::From(trusting("192.0.2.0/24"));
    let cases: [(_, _, &[u8], &str); 5] = [
        (from(), None, b"", "proxy_deadline"),
        (from(), None, b"PROXY TCP4 203.0.113.7", "proxy_deadline"),
        (from(), tls(), b"\r\n\r\n", "proxy_deadline"),
        (from(), tls(), b"PROXY UNKNOWN\r\n\x16\x03", "tls_deadline"),
        (ProxyPolicy::Off, tls(), b"\x16\x03\x01", "tls_deadline"),
    ];
    for (policy, tls, bytes, reason) in cases {
        let (mut client, stream) = tcp_pair().await;
        client.write_all(bytes).await.unwrap();
        let (short, long) = (Duration::from_millis(20), Duration::from_secs(600));
        let (of_header, handshake) = if reason == "proxy_deadline" { (short, long) } else { (long, short) };
        let header = HeaderBounds { deadline: of_header, ..HeaderBounds::default() };
        let acceptor = Acceptor { header, handshake, ..acceptor(policy, tls) };
        let refused = acceptor.establish(stream, remote()).await.unwrap_err();
        assert_eq!(refused.reason(), reason, "{bytes:?}");
    }
}

#[tokio::test]
async fn the_size_of_a_header_has_a_limit() {
    let large = [b"\r\n\r\n\0\r\nQUIT\n\x20\0".as_slice(), &3000u16.to_be_bytes(), &[0; 3000]].concat();
    for (size, is_served) in [(2048, false), (3015, false), (3016, true)] {
        let (mut client, stream) = tcp_pair().await;
        client.write_all(&large).await.unwrap();
        client.write_all(b"hello").await.unwrap();
        let header = HeaderBounds { size, ..HeaderBounds::default() };
        let policy = ProxyPolicy::From(trusting("192.0.2.0/24"));
        let acceptor = Acceptor { header, ..acceptor(policy, None) };
        match acceptor.establish(stream, remote()).await {
            Ok((mut io, _)) => {
                let mut read = [0; 5];
                io.read_exact(&mut read).await.unwrap();
                assert!(is_served && &read == b"hello", "{size}");
            }
            Err(refused) => assert_eq!((refused.reason(), is_served), ("proxy_too_long", false), "{size}"),
        }
    }
}

#[test]
fn every_refusal_is_counted_somewhere() {
    let io = || io::Error::other("test");
    let refusals = [
        Refused::Untrusted,
        ProxyHeaderError::Missing.into(),
        ProxyHeaderError::TooLong.into(),
        ProxyHeaderError::Malformed("test").into(),
        ProxyHeaderError::Checksum.into(),
        Refused::Closed,
        Refused::Read(io()),
        Refused::HeaderDeadline,
        Refused::Tls(io()),
        Refused::TlsDeadline,
    ];
    assert_eq!(refusals.map(|refused| refused.reason()), REFUSAL_REASONS);
}

#[tokio::test]
async fn state_of_the_clients_certificate_is_known() {
    let (cert, own) = (certificate(&["a.example"]), certificate(&["client.example"]));
    let mut roots = rustls::RootCertStore::empty();
    roots.add(leaf(&own)).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier =
        rustls::server::WebPkiClientVerifier::builder_with_provider(roots.into(), provider.clone())
            .allow_unauthenticated()
            .build()
            .unwrap();
    let config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(rustls::ALL_VERSIONS)
        .unwrap()
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(Arc::new(Resolver::new(std::slice::from_ref(&cert))));
    let config = Arc::new(config);
    let without = client_config(&[&cert], &[&TLS13], &[]);
    let mut with = (*without).clone();
    with.client_auth_cert_resolver = Arc::new(rustls::sign::SingleCertAndKey::from(own.key.clone()));
    for (client, shows) in [(without, false), (Arc::new(with), true)] {
        let (facts, _) = handshake(&config, &client, "a.example").await.unwrap();
        assert_eq!(facts.has_client_certificate, shows);
        assert_eq!(Ssl::from(&facts).is_verified(), shows);
    }
}

/// A handshake over a fresh connection: what the server and what the client know afterwards.
async fn handshake(
    config: &Arc<ServerConfig>,
    client: &Arc<rustls::ClientConfig>,
    name: &str,
) -> Result<(TlsFacts, tokio_rustls::client::TlsStream<TcpStream>), Refused> {
    let (socket, stream) = tcp_pair().await;
    let (client, name) = (client.clone(), name.to_owned());
    let connecting = tokio::spawn(async move {
        let mut tls = tls_connect(&client, &name, socket).await?;
        // The tickets of TLS 1.3 come with the first data.
        tls.write_all(b"ping").await?;
        let mut pong = [0; 4];
        tls.read_exact(&mut pong).await.map(|_| tls)
    });
    let (mut io, connection) =
        acceptor(ProxyPolicy::Off, Some(config.clone())).establish(stream, remote()).await?;
    let mut ping = [0; 4];
    io.read_exact(&mut ping).await.unwrap();
    io.write_all(b"pong").await.unwrap();
    Ok((connection.tls.unwrap(), connecting.await.unwrap().unwrap()))
}

fn shown(client: &tokio_rustls::client::TlsStream<TcpStream>) -> &[u8] {
    client.get_ref().1.peer_certificates().unwrap()[0].as_ref()
}

#[tokio::test]
async fn facts_of_both_versions() {
    let cert = certificate(&["a.example"]);
    let (config, _) =
        server_config(&edge_tls(&[&cert], TlsVersion::V1_2), &[b"h2", b"http/1.1"], &Tickets::new());
    let (facts, client) =
        handshake(&config, &client_config(&[&cert], &[&TLS13], &[b"h2"]), "a.example").await.unwrap();
    assert_eq!((facts.version, facts.server_name.as_deref()), ("1.3", Some("a.example")));
    assert_eq!(facts.alpn.as_deref(), Some(&b"h2"[..]));
    assert!(facts.cipher.starts_with("TLS_AES_"), "{}", facts.cipher);
    let group = client.get_ref().1.negotiated_key_exchange_group().unwrap();
    assert_eq!(group.name(), rustls::NamedGroup::X25519MLKEM768);

    let (facts, _) =
        handshake(&config, &client_config(&[&cert], &[&TLS12], &[b"http/1.1"]), "a.example").await.unwrap();
    assert_eq!((facts.version, facts.alpn.as_deref()), ("1.2", Some(&b"http/1.1"[..])));
    assert!(facts.cipher.starts_with("TLS_ECDHE_"), "{}", facts.cipher);

    let (facts, _) = handshake(&config, &client_config(&[&cert], &[&TLS13], &[]), "a.example").await.unwrap();
    assert_eq!(facts.alpn, None);
}

#[tokio::test]
async fn older_versions_than_allowed_are_refused() {
    let cert = certificate(&["a.example"]);
    let (config, _) = server_config(&edge_tls(&[&cert], TlsVersion::V1_3), &[], &Tickets::new());
    let refused = handshake(&config, &client_config(&[&cert], &[&TLS12], &[]), "a.example").await;
    assert!(matches!(refused, Err(Refused::Tls(_))));
    assert!(handshake(&config, &client_config(&[&cert], &[&TLS13], &[]), "a.example").await.is_ok());
}

#[tokio::test]
async fn sessions_resume_in_both_versions_without_server_memory() {
    let cert = certificate(&["a.example"]);
    let (config, _) = server_config(&edge_tls(&[&cert], TlsVersion::V1_2), &[], &Tickets::new());
    assert!(!config.session_storage.can_cache());
    for version in [&TLS12, &TLS13] {
        let client = client_config(&[&cert], &[version], &[]);
        let (_, first) = handshake(&config, &client, "a.example").await.unwrap();
        assert_eq!(first.get_ref().1.handshake_kind(), Some(HandshakeKind::Full));
        let (facts, second) = handshake(&config, &client, "a.example").await.unwrap();
        assert_eq!(second.get_ref().1.handshake_kind(), Some(HandshakeKind::Resumed));
        assert_eq!(facts.server_name.as_deref(), Some("a.example"));
    }
}

#[tokio::test]
async fn sessions_resume_with_another_configuration_that_has_the_same_keys() {
    let (cert, renewed) = (certificate(&["a.example"]), certificate(&["a.example"]));
    let tickets = Tickets::new();
    let config = |cert: &conf::Certificate, tickets: &Tickets| {
        server_config(&edge_tls(&[cert], TlsVersion::V1_2), &[], tickets).0
    };
    for version in [&TLS12, &TLS13] {
        let client = client_config(&[&cert, &renewed], &[version], &[]);
        handshake(&config(&cert, &tickets), &client, "a.example").await.unwrap();
        let (_, second) = handshake(&config(&renewed, &tickets), &client, "a.example").await.unwrap();
        assert_eq!(second.get_ref().1.handshake_kind(), Some(HandshakeKind::Resumed));
        let (_, other) = handshake(&config(&renewed, &Tickets::new()), &client, "a.example").await.unwrap();
        assert_eq!(other.get_ref().1.handshake_kind(), Some(HandshakeKind::Full));
        assert_eq!(shown(&other), leaf(&renewed).as_ref());
    }
}

#[tokio::test]
async fn certificate_is_chosen_by_name_and_swapped_without_restart() {
    let (first, second) = (certificate(&["a.example"]), certificate(&["b.example", "*.c.example"]));
    let (config, resolver) =
        server_config(&edge_tls(&[&first, &second], TlsVersion::V1_2), &[], &Tickets::new());
    for (name, expected) in [("a.example", &first), ("b.example", &second), ("x.c.example", &second)] {
        let client = client_config(&[&first, &second], &[&TLS13], &[]);
        let (_, tls) = handshake(&config, &client, name).await.unwrap();
        assert_eq!(shown(&tls), leaf(expected).as_ref(), "{name}");
    }
    let renewed = certificate(&["a.example"]);
    resolver.replace(std::slice::from_ref(&renewed));
    let (_, tls) =
        handshake(&config, &client_config(&[&renewed], &[&TLS13], &[]), "a.example").await.unwrap();
    assert_eq!(shown(&tls), leaf(&renewed).as_ref());
}

#[tokio::test]
async fn tls_follows_the_proxy_header_in_the_same_packet() {
    let cert = certificate(&["a.example"]);
    let (mut client, stream) = tcp_pair().await;
    let config = client_config(&[&cert], &[&TLS13], &[]);
    let policy = ProxyPolicy::Always(trusting("192.0.2.0/24"));
    let accepting = tokio::spawn(async move {
        acceptor(policy, Some(server_config_for(&cert, &[], &Tickets::new())))
            .establish(stream, remote())
            .await
    });
    // The header and the client hello leave in one write.
    let name = rustls::pki_types::ServerName::try_from("a.example").unwrap();
    let mut tls = rustls::ClientConnection::new(config, name).unwrap();
    let mut first_flight = b"PROXY TCP4 203.0.113.7 10.0.0.1 4660 443\r\n".to_vec();
    tls.write_tls(&mut first_flight).unwrap();
    client.write_all(&first_flight).await.unwrap();
    let mut client = client.into_std().unwrap();
    client.set_nonblocking(false).unwrap();
    tokio::task::spawn_blocking(move || tls.complete_io(&mut client).map(|_| (tls, client)))
        .await
        .unwrap()
        .unwrap();
    let (_, connection) = accepting.await.unwrap().unwrap();
    assert_eq!(connection.peer().to_string(), "203.0.113.7:4660");
    assert_eq!(connection.tls.unwrap().version, "1.3");
}

#[tokio::test]
async fn bulk_data_passes_both_ways_unchanged() {
    let cert = certificate(&["a.example"]);
    let (socket, stream) = tcp_pair().await;
    let client = client_config(&[&cert], &[&TLS13], &[]);
    let data: Vec<u8> = (0..3_000_000u32).map(|number| number.to_le_bytes()[(number % 3) as usize]).collect();
    let echo = tokio::spawn(async move {
        let acceptor = acceptor(ProxyPolicy::Off, Some(server_config_for(&cert, &[], &Tickets::new())));
        let (io, _) = acceptor.establish(stream, remote()).await.unwrap();
        let (mut reader, mut writer) = tokio::io::split(io);
        tokio::io::copy(&mut reader, &mut writer).await.unwrap();
        writer.shutdown().await.unwrap();
    });
    let (mut reader, mut writer) = tokio::io::split(tls_connect(&client, "a.example", socket).await.unwrap());
    let sent = data.clone();
    tokio::spawn(async move {
        writer.write_all(&sent).await.unwrap();
        writer.shutdown().await.unwrap();
    });
    let mut received = Vec::new();
    reader.read_to_end(&mut received).await.unwrap();
    assert!(received == data);
    echo.await.unwrap();
}
