//! Reloads while requests are under way: each sees one configuration, and none is lost.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use conf::{AccessLog, AccessLogFormat, AccessLogTarget, ByteSize};
use http::HeaderValue;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::harness::{Client, Reply, Running, Scripted, Upstream, ok, reply, to};
use crate::http2::{get, h2, with_tls};
use crate::reload_listeners::{ask, saying};

/// Requests over HTTP/1 and HTTP/2 during hundreds of reloads between two configurations that differ in all that can be seen: the
/// upstream and the path it is asked for, the text and the field of an answer of our own, the log and what it calls the
/// site. Never is something of the other one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_sees_two_configurations() {
    let folder = tempfile::tempdir().unwrap();
    let (plain, certificate) = with_tls(saying(""));
    let mut configs = Vec::new();
    for name in ["A", "B"] {
        let upstream = Upstream::start(move |request| ok(&format!("{name} {}", request.line()))).await;
        let mut config = conf::Edge { tls: plain.tls.clone(), threads: 2, ..to(&upstream) };
        config.listeners.push(conf::EdgeListener { name: "https".into(), ..plain.listeners[0].clone() });
        config.limits.max_requests_per_connection = u32::MAX;
        config.sites[0].name = name.into();
        config.sites[0].routes[0].rewrite = Some(conf::Rewrite::ReplacePath(format!("/{name}")));
        let mut own = saying(name).sites.remove(0).routes.remove(0);
        own.matcher = conf::Matcher::Path("/own".into());
        own.headers.insert("x-config", HeaderValue::from_static(name));
        config.sites[0].routes.insert(0, own);
        let target = AccessLogTarget::File(folder.path().join(name));
        config.access_log = Some(AccessLog { target, format: AccessLogFormat::Json });
        configs.push(config);
    }
    let mut edge = Running::start(configs[0].clone()).await;
    let (stop, asked) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let mut clients = tokio::task::JoinSet::new();
    for _ in 0..3 {
        let (mut client, stop, asked) = (edge.connect().await, stop.clone(), asked.clone());
        clients.spawn(async move {
            while !stop.load(Ordering::Relaxed) {
                let answer = ask(&mut client).await;
                assert!(FORWARDED.contains(&answer.text()), "{answer:?}");
                client.send("GET /own HTTP/1.1\r\nHost: a.example\r\n\r\n").await;
                let answer = client.answer().await;
                assert_eq!(answer.field("x-config"), Some(answer.text()), "{answer:?}");
                asked.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    edge.address = crate::harness::tcp(&edge.addresses[1].1);
    let mut client = h2(&edge, &certificate).await;
    let over_h2 = tokio::spawn({
        let (stop, asked) = (stop.clone(), asked.clone());
        async move {
            while !stop.load(Ordering::Relaxed) {
                assert!(FORWARDED.contains(&get(&mut client, "/").await.1.as_str()));
                let request = http::Request::get("https://a.example/own").body(()).unwrap();
                let answer = client.send_request(request, true).unwrap().0.await.unwrap();
                let config = answer.headers()["x-config"].to_str().unwrap().to_owned();
                let mut body = answer.into_body();
                let mut text = Vec::new();
                while let Some(chunk) = body.data().await {
                    text.extend_from_slice(&chunk.unwrap());
                }
                assert_eq!(config.as_bytes(), text);
                asked.fetch_add(1, Ordering::Relaxed);
            }
        }
    });
    let mut reloads = 0;
    while reloads < 300 || asked.load(Ordering::Relaxed) < 2000 {
        assert!(clients.try_join_next().is_none() && !over_h2.is_finished(), "a client has ended");
        reloads += 1;
        edge.reload(configs[reloads % 2].clone()).await;
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    stop.store(true, Ordering::Relaxed);
    while let Some(ended) = clients.join_next().await {
        ended.unwrap();
    }
    over_h2.await.unwrap();
    edge.end().await;
    let mut lines = 0;
    for name in ["A", "B"] {
        let text = std::fs::read_to_string(folder.path().join(name)).unwrap();
        assert!(text.lines().count() > 500, "{name} was in force too");
        for line in text.lines() {
            let line: serde_json::Value = serde_json::from_str(line).unwrap();
            assert_eq!((&line["site"], &line["status"]), (&name.into(), &200.into()));
            lines += 1;
        }
    }
    assert!(lines >= asked.load(Ordering::Relaxed), "every request has its line");
}

/// What one configuration makes of a request.
const FORWARDED: [&str; 2] = ["A GET /A HTTP/1.1", "B GET /B HTTP/1.1"];

#[tokio::test]
async fn when_the_reload_is_done_no_request_sees_the_old_configuration() {
    let mut edge = Running::start(conf::Edge { threads: 2, ..saying("0") }).await;
    let mut open = Vec::new();
    for _ in 0..8 {
        open.push(edge.connect().await);
    }
    for round in 1..30 {
        let text = round.to_string();
        edge.reload(conf::Edge { threads: 2, ..saying(&text) }).await;
        for client in &mut open {
            assert_eq!(ask(client).await.text(), text);
        }
        assert_eq!(edge.get("/").await.text(), text);
    }
}

#[tokio::test]
async fn a_long_poll_goes_on_when_its_upstream_is_removed() {
    let upstream = Upstream::start(|_| Reply { delay: Duration::from_millis(1200), ..ok("news") }).await;
    let mut edge = Running::start(to(&upstream)).await;
    let mut client = edge.connect().await;
    client.send("GET /sync HTTP/1.1\r\nHost: a.example\r\n\r\n").await;
    while upstream.received().is_empty() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    for _ in 0..10 {
        edge.reload(saying("new")).await;
    }
    assert_eq!(client.answer().await.text(), "news");
    assert_eq!(ask(&mut client).await.text(), "new", "the connection stays open");
}

#[tokio::test]
async fn an_upload_is_measured_by_the_limits_it_began_with() {
    let begun = Arc::new(tokio::sync::Notify::new());
    let begins = begun.clone();
    let upstream = Scripted::start(move |mut exchange, _| {
        let begins = begins.clone();
        async move {
            exchange.head().await;
            begins.notify_one();
            let body = exchange.body(b"5\r\nfirst\r\n6\r\nsecond\r\n0\r\n\r\n".len()).await;
            exchange.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len())).await;
            exchange.send(body).await;
            exchange.closed().await;
        }
    })
    .await;
    let mut edge = Running::start(upstream.edge()).await;
    let mut client = edge.connect().await;
    client.send("POST / HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: chunked\r\n\r\n").await;
    client.send("5\r\nfirst\r\n").await;
    begun.notified().await;
    let mut smaller = upstream.edge();
    smaller.limits.max_body_size = ByteSize(4);
    edge.reload(smaller).await;
    client.send("6\r\nsecond\r\n0\r\n\r\n").await;
    assert_eq!(client.answer().await.text(), "5\r\nfirst\r\n6\r\nsecond\r\n0\r\n\r\n");
    client.send("POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 5\r\n\r\nfirst").await;
    assert_eq!(client.answer().await.status, 413);
}

#[tokio::test]
async fn a_download_comes_to_its_end() {
    let upstream = Scripted::start(|mut exchange, _| async move {
        exchange.head().await;
        exchange.send("HTTP/1.1 200 OK\r\nContent-Length: 2000000\r\n\r\n").await;
        for _ in 0..20 {
            exchange.send(vec![b'x'; 100_000]).await;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    let mut edge = Running::start(upstream.edge()).await;
    let mut client = edge.connect().await;
    client.send("GET / HTTP/1.1\r\nHost: a.example\r\n\r\n").await;
    while upstream.connections() == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let reading = tokio::spawn(async move { client.answer().await });
    while !reading.is_finished() {
        edge.reload(saying("new")).await;
    }
    let answer = reading.await.unwrap();
    assert_eq!((answer.status, answer.body.len(), answer.is_cut), (200, 2_000_000, false));
}

#[tokio::test]
async fn a_websocket_stays_open_when_its_upstream_is_removed() {
    let upstream = Upstream::start(|_| {
        reply("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
    })
    .await;
    let mut edge = Running::start(to(&upstream)).await;
    let mut client = edge.connect().await;
    client.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n").await;
    assert_eq!(client.answer().await.status, 101);
    for round in 0..20u8 {
        edge.reload(saying("new")).await;
        client.stream.write_all(&[round; 4]).await.unwrap();
        let mut echo = [0; 4];
        client.stream.read_exact(&mut echo).await.unwrap();
        assert_eq!(echo, [round; 4]);
    }
}

#[tokio::test]
async fn http2_streams_in_flight_are_finished_and_the_connection_goes_on() {
    let upstream = Upstream::start(|_| Reply { delay: Duration::from_millis(700), ..ok("late") }).await;
    let (config, certificate) = with_tls(to(&upstream));
    let mut edge = Running::start(config.clone()).await;
    let mut client = h2(&edge, &certificate).await;
    let ask = |client: &mut h2::client::SendRequest<Bytes>, body: bool| {
        let request = http::Request::post("https://a.example/").body(()).unwrap();
        client.send_request(request, !body).unwrap()
    };
    let (waiting, _) = ask(&mut client, false);
    let (uploading, mut upload) = ask(&mut client, true);
    upload.send_data("first".into(), false).unwrap();
    while upstream.received().is_empty() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    edge.reload(conf::Edge { listeners: config.listeners, tls: config.tls, ..saying("new") }).await;
    assert_eq!(get(&mut client, "/").await.1, "new");
    upload.send_data("second".into(), true).unwrap();
    for answer in [waiting, uploading] {
        let mut body = answer.await.unwrap().into_body();
        assert_eq!(&body.data().await.unwrap().unwrap()[..], b"late");
    }
    assert_eq!(get(&mut client, "/").await.1, "new");
}

/// What is left of a configuration when nobody uses it any more.
#[tokio::test]
async fn old_configurations_are_freed_with_their_last_request() {
    let upstream = Upstream::start(|_| Reply { delay: Duration::from_millis(1500), ..ok("late") }).await;
    let mut edge = Running::start(conf::Edge { threads: 2, ..saying("first") }).await;
    let slow = Arc::new(conf::Edge { threads: 2, ..to(&upstream) });
    let held = Arc::downgrade(&slow);
    edge.try_reload(slow).await.unwrap();
    let (mut idle, mut busy) = (edge.connect().await, edge.connect().await);
    busy.send("GET / HTTP/1.1\r\nHost: a.example\r\n\r\n").await;
    while upstream.received().is_empty() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let mut old = Vec::new();
    for round in 0..1000 {
        let config = Arc::new(conf::Edge { threads: 2, ..saying(&round.to_string()) });
        old.push(Arc::downgrade(&config));
        edge.try_reload(config).await.unwrap();
        if round == 0 {
            assert!(held.upgrade().is_some(), "a request is under way");
        }
    }
    assert_eq!(busy.answer().await.text(), "late");
    assert_eq!(ask(&mut idle).await.text(), "999");
    assert_eq!(ask(&mut busy).await.text(), "999");
    let until = tokio::time::Instant::now() + Duration::from_secs(20);
    while old.iter().filter(|old| old.upgrade().is_some()).count() > 1 || held.upgrade().is_some() {
        assert!(tokio::time::Instant::now() < until, "old configurations are held");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Connections that come while the configuration changes, one after the other.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_connection_is_refused_or_reset() {
    let mut edge = Running::start(conf::Edge { threads: 2, ..saying("x") }).await;
    let address = edge.address;
    let (stop, served) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let asking = tokio::spawn({
        let (stop, served) = (stop.clone(), served.clone());
        async move {
            while !stop.load(Ordering::Relaxed) {
                let mut client = Client::new(TcpStream::connect(address).await.unwrap());
                assert_eq!(ask(&mut client).await.status, 200);
                served.fetch_add(1, Ordering::Relaxed);
            }
        }
    });
    let (with, _) = with_tls(saying("y"));
    let mut reloads = 0;
    while reloads < 200 || served.load(Ordering::Relaxed) < 500 {
        reloads += 1;
        let mut config = conf::Edge { threads: 2, ..saying("y") };
        if reloads % 2 == 0 {
            config.tls = with.tls.clone();
            config.listeners.push(conf::EdgeListener { name: "https".into(), ..with.listeners[0].clone() });
        }
        edge.reload(config).await;
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    stop.store(true, Ordering::Relaxed);
    asking.await.unwrap();
}
