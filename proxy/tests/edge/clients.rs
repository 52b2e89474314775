//! Kinds of clients: old ones, those behind a load balancer, those that ask for files, and several at a time.

use std::time::Duration;

use conf::{Action, Encoding, HostPattern, StaticFiles};

use crate::harness::{Client, Reply, Running, Upstream, config, ok, prefix, reply, to, upstream_of};

#[tokio::test]
async fn http_1_0_is_answered_and_closed() {
    let upstream = Upstream::start(|_| ok("hi")).await;
    let edge = Running::start(to(&upstream)).await;
    let mut client = edge.connect().await;
    client.send("GET / HTTP/1.0\r\nHost: a\r\n\r\n").await;
    let answer = client.answer().await;
    assert_eq!((answer.text(), answer.field("connection")), ("hi", Some("close")));
    assert!(client.is_closed_within(Duration::from_secs(1)).await);
    assert_eq!(upstream.last().line(), "GET / HTTP/1.1");
}

#[tokio::test]
async fn answers_without_body_have_none() {
    let upstream = Upstream::start(|request| {
        let method = request.line().split(' ').next().unwrap().to_owned();
        match method.as_str() {
            "HEAD" => reply("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n"),
            "GET" => reply("HTTP/1.1 304 Not Modified\r\nETag: \"x\"\r\n\r\n"),
            _ => reply("HTTP/1.1 204 No Content\r\n\r\n"),
        }
    })
    .await;
    let edge = Running::start(to(&upstream)).await;
    let mut client = edge.connect().await;
    for (method, status) in [("HEAD", 200), ("GET", 304), ("DELETE", 204), ("HEAD", 200)] {
        client.send(format!("{method} / HTTP/1.1\r\nHost: a\r\n\r\n")).await;
        let answer = client.answer_to(method).await;
        assert_eq!((answer.status, answer.field("transfer-encoding")), (status, None), "{method}");
    }
}

#[tokio::test]
async fn load_balancers_speak_for_their_clients() {
    let upstream = Upstream::start(|_| ok("")).await;
    let mut config = to(&upstream);
    config.listeners[0].proxy_protocol = Some(vec!["127.0.0.0/8".parse().unwrap()]);
    let edge = Running::start(config).await;
    let mut client = edge.connect().await;
    client.send("PROXY TCP4 203.0.113.7 198.51.100.1 4711 443\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(client.answer().await.status, 200);
    assert_eq!(upstream.last().field("x-forwarded-for").as_deref(), Some("203.0.113.7"));
    let mut client = edge.connect().await;
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert!(client.is_closed_within(Duration::from_secs(1)).await, "the header is mandatory then");
}

#[tokio::test]
async fn strangers_cannot_send_a_proxy_header() {
    let upstream = Upstream::start(|_| ok("")).await;
    let mut config = to(&upstream);
    config.listeners[0].proxy_protocol = Some(vec!["10.0.0.0/8".parse().unwrap()]);
    let edge = Running::start(config).await;
    let answer =
        edge.ask("PROXY TCP4 203.0.113.7 198.51.100.1 4711 443\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(answer.status, 400);
    assert_eq!(upstream.received().len(), 0);
}

#[tokio::test]
async fn files_are_served() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("app.js"), "plain").unwrap();
    std::fs::write(folder.path().join("app.js.br"), "small").unwrap();
    let files = StaticFiles {
        root: folder.path().to_owned(),
        strip_prefix: "/assets/".into(),
        precompressed: vec![Encoding::Brotli],
        expires: Some(Duration::from_secs(365 * 86_400)),
        index: None,
        fallback: None,
    };
    let edge = Running::start(config(vec![], |_| vec![prefix("/assets/", Action::Static(files))])).await;
    let mut client = edge.connect().await;
    client.send("GET /assets/app.js HTTP/1.1\r\nHost: a\r\nAccept-Encoding: br\r\n\r\n").await;
    let answer = client.answer().await;
    assert_eq!((answer.text(), answer.field("content-encoding")), ("small", Some("br")));
    assert_eq!(answer.field("cache-control"), Some("public, max-age=31536000, immutable"));
    let tag = answer.field("etag").unwrap();
    client
        .send(format!(
            "GET /assets/app.js HTTP/1.1\r\nHost: a\r\nAccept-Encoding: br\r\nIf-None-Match: {tag}\r\n\r\n"
        ))
        .await;
    assert_eq!(client.answer().await.status, 304);
    client.send("HEAD /assets/app.js HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(client.answer_to("HEAD").await.field("content-length"), Some("5"));
    client.send("GET /assets/app.js HTTP/1.1\r\nHost: a\r\nRange: bytes=1-2\r\n\r\n").await;
    let answer = client.answer().await;
    assert_eq!((answer.status, answer.text()), (206, "la"));
    client.send("GET /assets/app.js HTTP/1.1\r\nHost: a\r\nRange: bytes=9-\r\n\r\n").await;
    let answer = client.answer().await;
    assert_eq!((answer.status, answer.field("content-range")), (416, Some("bytes */5")));
    client.send("GET /assets/none HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(client.answer().await.status, 404);
    client.send("DELETE /assets/app.js HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let answer = client.answer().await;
    assert_eq!((answer.status, answer.field("allow")), (405, Some("GET, HEAD")));
}

#[tokio::test]
async fn sites_are_chosen_by_host() {
    let matrix = Upstream::start(|_| ok("matrix")).await;
    let other = Upstream::start(|_| ok("other")).await;
    let upstreams = vec![
        upstream_of("matrix", vec![matrix.server.clone()]),
        upstream_of("other", vec![other.server.clone()]),
    ];
    let mut config = config(upstreams, |upstreams| vec![prefix("/", Action::Upstream(upstreams[0].clone()))]);
    config.sites[0].hosts = vec![HostPattern::Exact("matrix.example.com".into())];
    let mut wildcard = config.sites[0].clone();
    wildcard.hosts = vec![HostPattern::Wildcard("example.com".into())];
    wildcard.routes = vec![prefix("/", Action::Upstream(config.upstreams[1].clone()))];
    config.sites.push(wildcard);
    let edge = Running::start(config).await;
    for (host, body) in [
        ("matrix.example.com", "matrix"),
        ("Matrix.Example.com:8448", "matrix"),
        ("x.y.example.com", "other"),
    ] {
        let answer = edge.ask(&format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n")).await;
        assert_eq!(answer.text(), body, "{host}");
    }
    assert_eq!(edge.ask("GET / HTTP/1.1\r\nHost: elsewhere\r\n\r\n").await.status, 404);
}

#[tokio::test]
async fn many_clients_at_a_time() {
    let upstream =
        Upstream::start(|request| Reply { delay: Duration::from_millis(5), ..ok(request.line()) }).await;
    let mut config = to(&upstream);
    config.threads = 2;
    let edge = Running::start(config).await;
    let address = edge.address;
    let clients = (0..50).map(|number| {
        tokio::spawn(async move {
            let mut client = Client::new(tokio::net::TcpStream::connect(address).await.unwrap());
            for step in 0..20 {
                client.send(format!("GET /{number}/{step} HTTP/1.1\r\nHost: a\r\n\r\n")).await;
                assert_eq!(client.answer().await.text(), format!("GET /{number}/{step} HTTP/1.1"));
            }
        })
    });
    for client in clients.collect::<Vec<_>>() {
        client.await.unwrap();
    }
    assert_eq!(upstream.received().len(), 1000);
    let connections = upstream.received().iter().map(|request| request.connection).max().unwrap() + 1;
    assert!(connections <= 60, "{connections} upstream connections for 50 clients");
}

#[tokio::test]
async fn a_client_that_vanishes_in_an_upload_takes_its_request_along() {
    let upstream = Upstream::start(|_| ok("")).await;
    let edge = Running::start(to(&upstream)).await;
    let mut client = edge.connect().await;
    client.send("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\nabc").await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    drop(client);
    // The upstream sees its connection end, and nothing that looks like a whole request.
    for _ in 0..100 {
        if let [request] = upstream.received().as_slice() {
            assert!(request.body.is_empty());
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("the upstream still waits");
}
