//! Reloads that add, remove, move and change listeners, over real sockets.

use std::time::Duration;

use conf::{AccessLog, AccessLogFormat, AccessLogTarget, Action, Bind, EdgeListener, Respond};
use tokio::net::{TcpStream, UnixStream};

use crate::harness::{Client, Reply, Running, Upstream, config, counted, ok, prefix, tcp, to};
use crate::http2::{connect, h2, with_tls};

/// A configuration that answers everything with a text.
pub(crate) fn saying(text: &str) -> conf::Edge {
    let respond =
        Respond { status: http::StatusCode::OK, headers: http::HeaderMap::new(), body: text.into() };
    config(Vec::new(), |_| vec![prefix("/", Action::Respond(respond))])
}

/// Another listener, at a port that the system chooses.
pub(crate) fn listener(name: &str, address: &str) -> EdgeListener {
    EdgeListener {
        name: name.into(),
        binds: vec![Bind::Address(address.parse().unwrap())],
        ..saying("").listeners.remove(0)
    }
}

/// The answer to one request on an open connection.
pub(crate) async fn ask<S>(client: &mut Client<S>) -> crate::harness::Answer
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    client.send("GET / HTTP/1.1\r\nHost: a.example\r\n\r\n").await;
    client.answer().await
}

#[tokio::test]
async fn an_added_listener_accepts_when_the_reload_is_done() {
    let mut edge = Running::start(saying("one")).await;
    let mut open = edge.connect().await;
    assert_eq!(ask(&mut open).await.text(), "one");
    let mut config = saying("two");
    config.listeners.push(listener("more", "127.0.0.1:0"));
    let before = edge.address;
    edge.reload(config).await;
    assert_eq!(edge.address, before, "the other one is where it was");
    assert_eq!(edge.addresses[1].0, "more");
    let mut added = Client::new(TcpStream::connect(tcp(&edge.addresses[1].1)).await.unwrap());
    assert_eq!(ask(&mut added).await.text(), "two");
    assert_eq!(ask(&mut open).await.text(), "two", "on a connection from before");
    assert_eq!(edge.get("/").await.text(), "two");
}

#[tokio::test]
async fn a_removed_listener_ends_gently_and_the_others_notice_nothing() {
    let upstream = Upstream::start(|_| Reply { delay: Duration::from_millis(800), ..ok("late") }).await;
    let mut both = to(&upstream);
    both.threads = 2;
    both.listeners.push(listener("more", "127.0.0.1:0"));
    let mut edge = Running::start(both).await;
    let removed = tcp(&edge.addresses[1].1);
    let connect = async || Client::new(TcpStream::connect(removed).await.unwrap());
    let (mut busy, mut fresh) = (connect().await, connect().await);
    let mut kept = edge.connect().await;
    for client in [&mut busy, &mut kept] {
        client.send("GET / HTTP/1.1\r\nHost: a.example\r\n\r\n").await;
    }
    while upstream.received().len() < 2 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    edge.reload(saying("new")).await;
    assert!(TcpStream::connect(removed).await.is_err(), "closed when the reload is done");
    assert_eq!(busy.answer().await.text(), "late", "what was in flight is finished");
    let last = ask(&mut fresh).await;
    assert_eq!(last.text(), "late", "one more request, and with the configuration that had this listener");
    assert_eq!(last.field("connection"), Some("close"));
    assert!(fresh.is_closed_within(Duration::from_secs(5)).await);
    assert!(busy.is_closed_within(Duration::from_secs(15)).await, "who asks nothing is not waited for");
    assert_eq!(kept.answer().await.text(), "late");
    assert_eq!(ask(&mut kept).await.text(), "new", "connections of the other listener stay open");
}

#[tokio::test]
async fn http2_on_a_removed_listener_is_told_to_go_and_finishes() {
    let upstream = Upstream::start(|_| Reply { delay: Duration::from_millis(800), ..ok("late") }).await;
    let (mut both, certificate) = with_tls(to(&upstream));
    both.listeners.push(listener("more", "127.0.0.1:0"));
    let mut edge = Running::start(both.clone()).await;
    let mut client = h2(&edge, &certificate).await;
    let request = http::Request::get("https://a.example/").body(()).unwrap();
    let (response, _) = client.send_request(request, true).unwrap();
    while upstream.received().is_empty() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    both.listeners.remove(0);
    edge.reload(both).await;
    let mut body = response.await.unwrap().into_body();
    assert_eq!(&body.data().await.unwrap().unwrap()[..], b"late");
    while client.clone().ready().await.is_ok() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn a_moved_listener_is_served_at_the_new_place_alone() {
    let mut edge = Running::start(saying("one")).await;
    let before = edge.address;
    let mut moved = saying("two");
    moved.listeners = vec![listener("http", "127.0.0.2:0")];
    edge.reload(moved).await;
    assert!(edge.address.ip().to_string() == "127.0.0.2");
    assert_eq!(edge.get("/").await.text(), "two");
    assert!(TcpStream::connect(before).await.is_err());
}

#[tokio::test]
async fn a_unix_socket_comes_and_goes() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("edge.sock");
    let mut edge = Running::start(saying("one")).await;
    let mut with_socket = saying("two");
    with_socket.listeners.push(EdgeListener {
        binds: vec![Bind::Socket { path: path.clone(), mode: None }],
        ..listener("unix", "127.0.0.1:0")
    });
    edge.reload(with_socket.clone()).await;
    let mut client = Client::new(UnixStream::connect(&path).await.unwrap());
    assert_eq!(ask(&mut client).await.text(), "two");
    edge.reload(with_socket).await;
    assert_eq!(ask(&mut client).await.text(), "two");
    edge.reload(saying("three")).await;
    assert!(UnixStream::connect(&path).await.is_err());
    assert!(!path.exists(), "the file goes with the socket");
}

#[tokio::test]
async fn tls_is_switched_on_and_off_with_the_socket_kept() {
    let mut edge = Running::start(saying("plain")).await;
    let (with, certificate) = with_tls(saying("secret"));
    let address = edge.address;
    let mut before = edge.connect().await;
    assert_eq!(ask(&mut before).await.text(), "plain");
    edge.reload(with).await;
    assert_eq!(edge.address, address);
    let mut secure = Client::new(connect(&edge, &certificate, b"http/1.1").await);
    assert_eq!(ask(&mut secure).await.text(), "secret");
    let mut plain = edge.connect().await;
    plain.send("GET / HTTP/1.1\r\nHost: a.example\r\n\r\n").await;
    assert!(plain.is_closed_within(Duration::from_secs(10)).await && !plain.unread().starts_with(b"HTTP"));
    assert_eq!(ask(&mut before).await.text(), "secret", "a connection stays what it was");
    edge.reload(saying("plain again")).await;
    assert_eq!(edge.get("/").await.text(), "plain again");
    assert_eq!(ask(&mut secure).await.text(), "plain again");
}

#[tokio::test]
async fn a_proxy_header_is_demanded_from_the_next_connection_on() {
    let mut edge = Running::start(saying("one")).await;
    let mut before = edge.connect().await;
    assert_eq!(ask(&mut before).await.status, 200);
    let mut demanding = saying("two");
    demanding.listeners[0].proxy_protocol = Some(vec!["127.0.0.0/8".parse().unwrap()]);
    edge.reload(demanding).await;
    let mut without = edge.connect().await;
    without.send("GET / HTTP/1.1\r\nHost: a.example\r\n\r\n").await;
    assert!(without.is_closed_within(Duration::from_secs(10)).await && without.unread().is_empty());
    let header = "PROXY TCP4 203.0.113.7 10.0.0.1 4660 80\r\n";
    let answer = edge.ask(&format!("{header}GET / HTTP/1.1\r\nHost: a.example\r\n\r\n")).await;
    assert_eq!(answer.text(), "two");
    assert_eq!(ask(&mut before).await.text(), "two");
}

#[tokio::test]
async fn a_redirect_is_for_the_next_request_also_on_open_connections() {
    let mut edge = Running::start(saying("one")).await;
    let mut client = edge.connect().await;
    assert_eq!(ask(&mut client).await.status, 200);
    let (mut redirecting, _) = with_tls(saying("two"));
    redirecting.listeners[0].tls = false;
    redirecting.listeners[0].redirect_https = true;
    edge.reload(redirecting).await;
    assert_eq!(ask(&mut client).await.status, 308);
}

#[tokio::test]
async fn a_renamed_listener_keeps_its_socket_and_is_logged_by_its_new_name() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("access.log");
    let log = AccessLog { target: AccessLogTarget::File(path.clone()), format: AccessLogFormat::Json };
    let mut edge = Running::start(conf::Edge { access_log: Some(log.clone()), ..saying("one") }).await;
    let address = edge.address;
    let mut client = edge.connect().await;
    assert_eq!(ask(&mut client).await.text(), "one");
    let mut renamed = conf::Edge { access_log: Some(log), ..saying("two") };
    renamed.listeners = vec![listener("other", &address.to_string())];
    renamed.sites[0].listeners = Some(vec!["other".into()]);
    edge.reload(renamed).await;
    assert_eq!(edge.address, address);
    assert_eq!(ask(&mut client).await.text(), "two");
    assert_eq!(edge.get("/").await.text(), "two");
    edge.end().await;
    let text = std::fs::read_to_string(path).unwrap();
    let names: Vec<_> = text
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["listener"].clone())
        .collect();
    assert_eq!(names, ["http", "other", "other"]);
}

#[tokio::test]
async fn a_worker_serves_several_sockets_of_a_group() {
    let sockets = accept::Sockets::default();
    let bind = Bind::Address("127.0.0.1:0".parse().unwrap());
    let mut former = sockets.change();
    former.bind("edge http", &bind, 5).await.unwrap();
    former.commit();
    let mut edge = Running::start_with(sockets, conf::Edge { threads: 2, ..saying("one") }).await;
    for text in ["one", "two"] {
        // The kernel spreads them over all five queues.
        for _ in 0..60 {
            assert_eq!(edge.get("/").await.text(), text);
        }
        edge.reload(conf::Edge { threads: 2, ..saying("two") }).await;
    }
}

#[tokio::test]
async fn admin_sockets_move_too_and_counting_goes_on() {
    let mut edge = Running::start(counted(saying("one"))).await;
    let before = tcp(&edge.addresses[1].1);
    edge.get("/").await;
    assert_eq!(edge.metric("gatehouse_edge_config_generation").await.as_deref(), Some("1"));
    edge.reload(counted(saying("two"))).await;
    assert_eq!(tcp(&edge.addresses[1].1), before);
    edge.get("/").await;
    let mut moved = saying("three");
    moved.admin = vec![Bind::Address("127.0.0.2:0".parse().unwrap())];
    edge.reload(moved).await;
    assert_ne!(tcp(&edge.addresses[1].1), before);
    assert!(TcpStream::connect(before).await.is_err());
    assert_eq!(edge.admin("/ready").await.status, 200);
    for (name, value) in [
        ("gatehouse_edge_requests_total{status=\"2xx\"}", "2"),
        ("gatehouse_edge_reloads_total{outcome=\"applied\"}", "2"),
        ("gatehouse_edge_reloads_total{outcome=\"refused\"}", "0"),
        ("gatehouse_edge_config_generation", "3"),
    ] {
        assert_eq!(edge.metric(name).await.as_deref(), Some(value), "{name}");
    }
    edge.reload(saying("without")).await;
    assert_eq!(edge.addresses.len(), 1);
}
