//! Choosing servers, and PROXY headers to them.

use std::time::Duration;

use conf::{Action, ProxyVersion};

use crate::harness::{Running, Upstream, config, ok, prefix, upstream_of};

fn edge_to(servers: Vec<conf::Server>, proxy_protocol: Option<ProxyVersion>) -> conf::Edge {
    let upstream = conf::Upstream { proxy_protocol, ..upstream_of("up", servers) };
    config(vec![upstream], |upstreams| vec![prefix("/", Action::Upstream(upstreams[0].clone()))])
}

#[tokio::test]
async fn servers_take_turns_and_dead_ones_are_skipped() {
    let first = Upstream::start(|_| ok("first")).await;
    let second = Upstream::start(|_| ok("second")).await;
    let dead = conf::Server::Tcp { host: "127.0.0.1".into(), port: 1, tls: false };
    let edge = Running::start(edge_to(vec![dead, first.server.clone(), second.server.clone()], None)).await;
    for _ in 0..9 {
        assert_eq!(edge.get("/").await.status, 200);
    }
    assert!(first.received().len() >= 3 && second.received().len() >= 3);
}

#[tokio::test]
async fn names_are_resolved_and_all_addresses_tried() {
    // `localhost` is often ::1 first, where nobody listens.
    let upstream = Upstream::start(|_| ok("hi")).await;
    let conf::Server::Tcp { port, .. } = upstream.server else { panic!() };
    let server = conf::Server::Tcp { host: "localhost".into(), port, tls: false };
    let edge = Running::start(edge_to(vec![server], None)).await;
    for _ in 0..3 {
        assert_eq!(edge.get("/").await.text(), "hi");
    }
}

#[tokio::test]
async fn unix_sockets_are_upstreams() {
    let folder = tempfile::tempdir().unwrap();
    let upstream = Upstream::start_unix(&folder.path().join("up.sock"), |_| ok("hi")).await;
    let edge = Running::start(edge_to(vec![upstream.server.clone()], None)).await;
    for _ in 0..3 {
        assert_eq!(edge.get("/").await.text(), "hi");
    }
    assert_eq!(upstream.last().connection, 0);
}

/// Two clients, interleaved: each has its own connection, keeps it, and is announced as itself.
async fn interleave(upstream: &Upstream, edge: &Running, source: impl Fn(&[u8]) -> Option<String>) {
    let mut clients = [edge.connect().await, edge.connect().await];
    for _ in 0..3 {
        for client in &mut clients {
            let port = client.stream.local_addr().unwrap().port();
            client.send(format!("GET /{port} HTTP/1.1\r\nHost: a\r\n\r\n")).await;
            assert_eq!(client.answer().await.status, 200);
        }
    }
    let received = upstream.received();
    let mut connections: Vec<_> = received.iter().map(|request| request.connection).collect();
    connections.sort_unstable();
    connections.dedup();
    assert_eq!(connections.len(), 2, "one connection for each client");
    for request in received {
        let port = request.line()[5..].split(' ').next().unwrap().to_owned();
        assert_eq!(source(&request.preface), Some(format!("127.0.0.1:{port}")), "{:?}", request.preface);
    }
}

fn source_of(preface: &[u8]) -> Option<String> {
    let (header, length) = accept::proxy_protocol::parse(preface).unwrap()?;
    assert_eq!(length, preface.len());
    header.source.map(|source| source.to_string())
}

#[tokio::test]
async fn proxy_headers_over_tcp() {
    for version in [ProxyVersion::V1, ProxyVersion::V2] {
        let upstream = Upstream::start(|_| ok("hi")).await;
        let edge = Running::start(edge_to(vec![upstream.server.clone()], Some(version))).await;
        interleave(&upstream, &edge, source_of).await;
    }
}

#[tokio::test]
async fn proxy_headers_over_unix_sockets() {
    for version in [ProxyVersion::V1, ProxyVersion::V2] {
        let folder = tempfile::tempdir().unwrap();
        let upstream = Upstream::start_unix(&folder.path().join("up.sock"), |_| ok("hi")).await;
        let edge = Running::start(edge_to(vec![upstream.server.clone()], Some(version))).await;
        interleave(&upstream, &edge, source_of).await;
    }
}

#[tokio::test]
async fn clients_behind_one_trusted_proxy_do_not_share_either() {
    let upstream = Upstream::start(|_| ok("hi")).await;
    let mut config = edge_to(vec![upstream.server.clone()], Some(ProxyVersion::V2));
    config.trusted_proxies = vec!["127.0.0.1/32".parse().unwrap()];
    let edge = Running::start(config).await;
    let mut proxy = edge.connect().await;
    for _ in 0..3 {
        for client in ["203.0.113.7", "2001:db8::7"] {
            proxy.send(format!("GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: {client}\r\n\r\n")).await;
            assert_eq!(proxy.answer().await.status, 200);
            let received = upstream.last();
            let source: std::net::SocketAddr = source_of(&received.preface).unwrap().parse().unwrap();
            assert_eq!(source.ip().to_string(), client);
            assert_eq!(received.field("x-forwarded-for").as_deref(), Some(client));
        }
    }
    assert_eq!(upstream.received().iter().map(|request| request.connection).max(), Some(1));
}

#[tokio::test]
async fn a_connection_that_the_server_closed_is_not_an_error() {
    let upstream = Upstream::start(|_| crate::harness::Reply { close: true, ..ok("hi") }).await;
    let edge = Running::start(edge_to(vec![upstream.server.clone()], None)).await;
    for _ in 0..5 {
        assert_eq!(edge.get("/").await.text(), "hi");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn certificates_of_upstreams_are_verified() {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let provider = std::sync::Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder =
        rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = builder.with_no_client_auth().with_single_cert(vec![made.cert.der().clone()], key).unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(std::sync::Arc::new(config));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let handshake = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        acceptor.accept(stream).await.map(drop)
    });
    let server = conf::Server::Tcp { host: "localhost".into(), port, tls: true };
    let edge = Running::start(edge_to(vec![server], None)).await;
    assert_eq!(edge.get("/").await.status, 502);
    let error = handshake.await.unwrap().unwrap_err().to_string();
    assert!(error.contains("UnknownCA") || error.contains("UnknownIssuer"), "{error}");
}
