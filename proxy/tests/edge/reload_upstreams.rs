//! Reloads that change upstreams, routes, sites, certificates and the log.

use std::sync::Arc;
use std::time::Duration;

use conf::{AccessLog, AccessLogFormat, AccessLogTarget, Action, HostPattern, ProxyVersion};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, HandshakeKind, RootCertStore};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::harness::{Reply, Running, Upstream, config, ok, prefix, to, upstream_of};
use crate::http2::with_tls;
use crate::reload_listeners::{ask, saying};

#[tokio::test]
async fn connections_to_an_unchanged_upstream_stay_warm() {
    let upstream = Upstream::start(|_| ok("hi")).await;
    let mut edge = Running::start(to(&upstream)).await;
    for _ in 0..5 {
        assert_eq!(edge.get("/").await.text(), "hi");
        // Until the connection is back in the pool.
        tokio::time::sleep(Duration::from_millis(50)).await;
        let mut changed = to(&upstream);
        changed.sites[0].routes[0].max_body_size = Some(conf::ByteSize(7));
        edge.reload(changed).await;
    }
    assert_eq!(upstream.last().connection, 0, "one for all");
}

#[tokio::test]
async fn another_server_gets_the_next_request() {
    let (first, second) = (Upstream::start(|_| ok("first")).await, Upstream::start(|_| ok("second")).await);
    let mut edge = Running::start(to(&first)).await;
    let mut client = edge.connect().await;
    assert_eq!(ask(&mut client).await.text(), "first");
    edge.reload(to(&second)).await;
    assert_eq!(ask(&mut client).await.text(), "second");
    assert_eq!(first.received().len(), 1);
}

#[tokio::test]
async fn a_connection_that_began_with_another_proxy_header_is_not_used_again() {
    let upstream = Upstream::start(|_| ok("hi")).await;
    let with = |proxy_protocol, proxy_tlvs: &[conf::ProxyTlv]| {
        let up = conf::Upstream {
            proxy_protocol,
            proxy_tlvs: proxy_tlvs.to_vec(),
            ..upstream_of("up", vec![upstream.server.clone()])
        };
        config(vec![up], |upstreams| vec![prefix("/", Action::Upstream(upstreams[0].clone()))])
    };
    let all = &conf::ProxyTlv::DEFAULT[..];
    let mut edge = Running::start(with(Some(ProxyVersion::V1), all)).await;
    let mut client = edge.connect().await;
    let mut connections = Vec::new();
    for next in [
        with(Some(ProxyVersion::V1), all),
        with(Some(ProxyVersion::V2), all),
        with(Some(ProxyVersion::V2), &[]),
        with(None, all),
        with(None, all),
    ] {
        edge.reload(next).await;
        for _ in 0..2 {
            assert_eq!(ask(&mut client).await.text(), "hi");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let received = upstream.received();
        let [.., one, two] = &received[..] else { panic!() };
        assert_eq!(one.connection, two.connection, "kept while nothing changes");
        connections.push((two.connection, two.preface.first().copied(), two.preface.len()));
    }
    let numbers: Vec<_> = connections.iter().map(|(number, ..)| *number).collect();
    assert_eq!(numbers, [0, 1, 2, 3, 3]);
    let [v1, v2, bare, none, _] = connections[..] else { panic!() };
    assert_eq!((v1.1, v2.1, bare.1, none.1), (Some(b'P'), Some(b'\r'), Some(b'\r'), None));
    assert!(bare.2 < v2.2, "without fields it is shorter");
}

#[tokio::test]
async fn an_upstream_can_be_removed_while_it_is_connected_to() {
    // Takes connections, and says nothing for a while: the request is between connecting and its answer.
    let upstream = Upstream::start(|_| Reply { delay: Duration::from_millis(600), ..ok("slow") }).await;
    let mut edge = Running::start(to(&upstream)).await;
    let mut client = edge.connect().await;
    client.send("GET / HTTP/1.1\r\nHost: a.example\r\n\r\n").await;
    edge.reload(saying("without")).await;
    let answer = client.answer().await;
    assert!(["slow", "without"].contains(&answer.text()), "as it was when the request began: {answer:?}");
    assert_eq!(ask(&mut client).await.text(), "without");
}

#[tokio::test]
async fn which_servers_failed_is_remembered_where_nothing_changed() {
    let alive = Upstream::start(|_| ok("hi")).await;
    let dead = conf::Server::Tcp { host: "127.0.0.1".into(), port: 1, tls: false };
    let both = config(vec![upstream_of("up", vec![dead, alive.server.clone()])], |upstreams| {
        vec![prefix("/", Action::Upstream(upstreams[0].clone()))]
    });
    let mut edge = Running::start(both.clone()).await;
    for _ in 0..6 {
        assert_eq!(edge.get("/").await.text(), "hi");
        edge.reload(both.clone()).await;
    }
}

#[tokio::test]
async fn sites_and_routes_change_for_the_next_request() {
    let mut edge = Running::start(saying("one")).await;
    let mut client = edge.connect().await;
    assert_eq!(ask(&mut client).await.text(), "one");
    let mut other_site = saying("two");
    other_site.sites[0].hosts = vec![HostPattern::Exact("b.example".into())];
    edge.reload(other_site).await;
    assert_eq!(ask(&mut client).await.status, 404, "a.example is nobody's now");
    let mut other_route = saying("three");
    other_route.sites[0].routes[0].matcher = conf::Matcher::Prefix("/x".into());
    edge.reload(other_route).await;
    assert_eq!(ask(&mut client).await.status, 404);
    client.send("GET /x HTTP/1.1\r\nHost: a.example\r\n\r\n").await;
    assert_eq!(client.answer().await.text(), "three");
    let mut denying = saying("four");
    denying.sites[0].routes[0].allow = Some(Vec::new());
    edge.reload(denying).await;
    assert_eq!(ask(&mut client).await.status, 403);
}

#[tokio::test]
async fn trusted_proxies_change_for_the_next_request() {
    let upstream = Upstream::start(|_| ok("hi")).await;
    let mut edge = Running::start(to(&upstream)).await;
    let mut client = edge.connect().await;
    let request = "GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 203.0.113.7\r\n\r\n";
    client.send(request).await;
    client.answer().await;
    assert_eq!(upstream.last().field("x-forwarded-for").as_deref(), Some("127.0.0.1"));
    let trusting = conf::Edge { trusted_proxies: vec!["127.0.0.0/8".parse().unwrap()], ..to(&upstream) };
    edge.reload(trusting).await;
    client.send(request).await;
    client.answer().await;
    assert_eq!(upstream.last().field("x-forwarded-for").as_deref(), Some("203.0.113.7"));
}

#[tokio::test]
async fn a_certificate_is_replaced_and_sessions_resume_all_the_same() {
    let (first, first_certificate) = with_tls(saying("one"));
    let (second, second_certificate) = with_tls(saying("two"));
    let mut edge = Running::start(first.clone()).await;
    // Remembers its sessions.
    let client = client(&[&first_certificate, &second_certificate]);
    let (kind, shown) = handshake(&edge, &client).await;
    assert_eq!((kind, &shown), (HandshakeKind::Full, &first_certificate));
    edge.reload(first).await;
    let (kind, _) = handshake(&edge, &client).await;
    assert_eq!(kind, HandshakeKind::Resumed, "the keys of tickets outlive a reload");
    edge.reload(second).await;
    let (kind, _) = handshake(&edge, &client).await;
    assert_eq!(kind, HandshakeKind::Resumed);
    let fresh = self::client(&[&first_certificate, &second_certificate]);
    let (kind, shown) = handshake(&edge, &fresh).await;
    assert_eq!((kind, &shown), (HandshakeKind::Full, &second_certificate));
}

#[tokio::test]
async fn the_access_log_moves_and_changes_its_form() {
    let folder = tempfile::tempdir().unwrap();
    let log = |name: &str, format| {
        Some(AccessLog { target: AccessLogTarget::File(folder.path().join(name)), format })
    };
    let with = |access_log| conf::Edge { access_log, ..saying("x") };
    let mut edge = Running::start(with(log("a", AccessLogFormat::Json))).await;
    let mut client = edge.connect().await;
    ask(&mut client).await;
    // As logrotate does it: the file is moved, then the reload opens a new one.
    std::fs::rename(folder.path().join("a"), folder.path().join("a.1")).unwrap();
    edge.reload(with(log("a", AccessLogFormat::Json))).await;
    assert!(folder.path().join("a").exists(), "opened by the reload itself");
    ask(&mut client).await;
    edge.reload(with(log("b", AccessLogFormat::Combined))).await;
    ask(&mut client).await;
    edge.reload(with(None)).await;
    ask(&mut client).await;
    edge.end().await;
    let lines = |name: &str| std::fs::read_to_string(folder.path().join(name)).unwrap();
    // The first line was written before or after the file was moved.
    let (rotated, a, b) = (lines("a.1"), lines("a"), lines("b"));
    assert_eq!(rotated.lines().count() + a.lines().count(), 2, "{rotated}{a}");
    assert!(!a.is_empty() && a.lines().all(|line| line.starts_with('{')));
    assert!(b.lines().count() == 1 && b.contains("\"GET / HTTP/1.1\" 200"), "{b}");
}

fn client(trusted: &[&CertificateDer<'static>]) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    for certificate in trusted {
        roots.add((*certificate).clone()).unwrap();
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder =
        ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    Arc::new(builder.with_root_certificates(roots).with_no_client_auth())
}

/// One request over TLS: how the handshake went, and which certificate the session is of.
async fn handshake(edge: &Running, client: &Arc<ClientConfig>) -> (HandshakeKind, CertificateDer<'static>) {
    let stream = TcpStream::connect(edge.address).await.unwrap();
    let name = ServerName::try_from("a.example").unwrap();
    let mut tls = tokio_rustls::TlsConnector::from(client.clone()).connect(name, stream).await.unwrap();
    // The tickets of TLS 1.3 come with the answer.
    tls.write_all(b"GET / HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    tls.read_to_end(&mut answer).await.unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 200"));
    let session = tls.get_ref().1;
    (session.handshake_kind().unwrap(), session.peer_certificates().unwrap()[0].clone())
}
