//! What reaches the upstream, and what comes back.

use std::time::Duration;

use conf::ForwardedFor;

use crate::harness::{Running, Upstream, ok, reply, to};

#[tokio::test]
async fn target_is_forwarded_byte_for_byte() {
    let upstream = Upstream::start(|_| ok("hi")).await;
    let edge = Running::start(to(&upstream)).await;
    for target in [
        "/_matrix/federation/v1/send/%2Fa%2fB%23%C3%a9/x?y=%zz&&=;?#"[..].trim_end_matches('#'),
        "/_matrix/client/v3/directory/room/%23a%2Fb:example.com",
        "/a//b/./c?..%2f",
        "/%7e%7E~",
        "/?a=b%20c+d|e^f\"g".trim_end_matches("\"g"),
        "/!$&'()*+,;=:@",
    ] {
        let answer = edge.get(target).await;
        assert_eq!((answer.status, answer.text()), (200, "hi"), "{target}");
        assert_eq!(upstream.last().line(), format!("GET {target} HTTP/1.1"));
    }
}

#[tokio::test]
async fn absolute_targets_are_forwarded_as_paths() {
    let upstream = Upstream::start(|_| ok("")).await;
    let edge = Running::start(to(&upstream)).await;
    edge.ask("GET http://a.example:80/x%2Fy?z HTTP/1.1\r\nHost: a.example:80\r\n\r\n").await;
    assert_eq!(upstream.last().line(), "GET /x%2Fy?z HTTP/1.1");
    assert_eq!(upstream.last().field("host").as_deref(), Some("a.example:80"));
}

#[tokio::test]
async fn upstream_hears_who_asked_from_us_alone() {
    let upstream = Upstream::start(|_| ok("")).await;
    let edge = Running::start(to(&upstream)).await;
    edge.ask(
        "GET / HTTP/1.1\r\nHost: a.example:8448\r\nX-Forwarded-For: 6.6.6.6\r\nX-Forwarded-Proto: https\r\n\
         Forwarded: for=6.6.6.6\r\nX-Real-IP: 6.6.6.6\r\nX_Forwarded_For: 6.6.6.6\r\nConnection: X-Private\r\n\
         X-Private: 1\r\nProxy-Authorization: x\r\nTE: trailers\r\nAuthorization: Bearer t\r\n\r\n",
    )
    .await;
    let received = upstream.last();
    let expected = [
        ("host", Some("a.example:8448")),
        ("x-forwarded-for", Some("127.0.0.1")),
        ("x-forwarded-proto", Some("http")),
        ("x-forwarded-host", Some("a.example:8448")),
        ("forwarded", Some("for=127.0.0.1;host=\"a.example:8448\";proto=http")),
        ("authorization", Some("Bearer t")),
        ("x-real-ip", None),
        ("x_forwarded_for", None),
        ("connection", None),
        ("x-private", None),
        ("proxy-authorization", None),
        ("te", None),
    ];
    for (name, value) in expected {
        assert_eq!(received.field(name).as_deref(), value, "{name}\n{}", received.head);
    }
}

#[tokio::test]
async fn trusted_proxies_are_believed() {
    let upstream = Upstream::start(|_| ok("")).await;
    let mut config = to(&upstream);
    config.trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()];
    let edge = Running::start(config).await;
    edge.ask("GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 6.6.6.6, 203.0.113.7\r\n\r\n").await;
    assert_eq!(upstream.last().field("x-forwarded-for").as_deref(), Some("203.0.113.7"));
}

#[tokio::test]
async fn chain_is_appended_on_demand() {
    let upstream = Upstream::start(|_| ok("")).await;
    let mut config = to(&upstream);
    let mut appending = (*config.upstreams[0]).clone();
    appending.forwarded_for = ForwardedFor::Append;
    config.upstreams = vec![appending.into()];
    config.sites[0].routes[0].action = conf::Action::Upstream(config.upstreams[0].clone());
    let edge = Running::start(config).await;
    edge.ask("GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 6.6.6.6\r\n\r\n").await;
    assert_eq!(upstream.last().field("x-forwarded-for").as_deref(), Some("6.6.6.6, 127.0.0.1"));
}

#[tokio::test]
async fn answers_lose_their_hop_by_hop_fields() {
    let upstream = Upstream::start(|_| {
        reply(
            "HTTP/1.1 200 OK\r\nConnection: X-Foo\r\nX-Foo: 1\r\nKeep-Alive: timeout=5\r\n\
             Proxy-Authenticate: Basic\r\nX-Bar: 2\r\nSet-Cookie: a\r\nSet-Cookie: b\r\nContent-Length: 0\r\n\r\n",
        )
    })
    .await;
    let edge = Running::start(to(&upstream)).await;
    let answer = edge.get("/").await;
    for name in ["x-foo", "keep-alive", "proxy-authenticate"] {
        assert_eq!(answer.field(name), None, "{}", answer.head);
    }
    assert_eq!(answer.field("x-bar"), Some("2"));
    assert_eq!(answer.head.matches("Set-Cookie").count(), 2);
}

#[tokio::test]
async fn content_length_stays_what_it_was() {
    let upstream = Upstream::start(|_| ok("done")).await;
    let edge = Running::start(to(&upstream)).await;
    let body = "x".repeat(300_000);
    let answer =
        edge.ask(&format!("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 300000\r\n\r\n{body}")).await;
    assert_eq!(answer.text(), "done");
    let received = upstream.last();
    assert_eq!(received.field("content-length").as_deref(), Some("300000"));
    assert_eq!(received.field("transfer-encoding"), None);
    assert_eq!(received.body, body.as_bytes());
}

#[tokio::test]
async fn chunked_bodies_pass_both_ways() {
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n";
    let upstream = Upstream::start(move |_| reply(chunked)).await;
    let edge = Running::start(to(&upstream)).await;
    let request = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
    let answer = edge.ask(request).await;
    assert_eq!((answer.status, answer.text(), answer.is_cut), (200, "abcde", false));
    assert_eq!(upstream.last().body, b"3\r\nabc\r\n0\r\n\r\n");
}

#[tokio::test]
async fn connections_are_kept_on_both_sides() {
    let upstream = Upstream::start(|_| ok("hi")).await;
    let edge = Running::start(to(&upstream)).await;
    let mut client = edge.connect().await;
    for _ in 0..3 {
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        let answer = client.answer().await;
        assert_eq!((answer.text(), answer.field("connection")), ("hi", Some("keep-alive")));
    }
    assert_eq!(edge.get("/").await.status, 200);
    assert_eq!(upstream.last().connection, 0, "all over one upstream connection");
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let upstream = Upstream::start(|request| ok(request.line())).await;
    let edge = Running::start(to(&upstream)).await;
    let mut client = edge.connect().await;
    client.send("GET /1 HTTP/1.1\r\nHost: a\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\n").await;
    client.send("GET /3 HTTP/1.1\r\nHost: a\r\n\r\n").await;
    for number in 1..=3 {
        assert_eq!(client.answer().await.text(), format!("GET /{number} HTTP/1.1"));
    }
}

#[tokio::test]
async fn websockets_are_tunnels() {
    let switching = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    let upstream = Upstream::start(move |_| reply(switching)).await;
    let mut config = to(&upstream);
    config.limits.max_body_size = conf::ByteSize(10);
    let edge = Running::start(config).await;
    let mut client = edge.connect().await;
    client.send("GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n").await;
    let answer = client.answer().await;
    assert_eq!((answer.status, answer.field("upgrade")), (101, Some("websocket")));
    for _ in 0..3 {
        client.send("more than ten bytes").await;
        let mut echoed = [0; 19];
        tokio::io::AsyncReadExt::read_exact(&mut client.stream, &mut echoed).await.unwrap();
        assert_eq!(&echoed, b"more than ten bytes");
    }
}

#[tokio::test]
async fn part_of_an_answer_does_not_wait_for_the_rest() {
    let upstream = Upstream::start(|_| reply("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf!")).await;
    let edge = Running::start(to(&upstream)).await;
    let mut client = edge.connect().await;
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let mut text = Vec::new();
    while !text.ends_with(b"half!") {
        let read = tokio::io::AsyncReadExt::read_buf(&mut client.stream, &mut text);
        assert!(tokio::time::timeout(Duration::from_secs(5), read).await.unwrap().unwrap() > 0);
    }
}

#[tokio::test]
async fn large_answers_are_whole() {
    let body = "0123456789abcdef".repeat(1 << 18);
    let upstream = Upstream::start(move |_| ok(&body)).await;
    let edge = Running::start(to(&upstream)).await;
    let answer = edge.get("/").await;
    assert_eq!((answer.body.len(), answer.is_cut), (1 << 22, false));
    assert!(answer.body.chunks(16).all(|chunk| chunk == b"0123456789abcdef"));
}

#[tokio::test]
async fn a_websocket_client_may_be_early() {
    let switching = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    let upstream = Upstream::start(move |_| crate::harness::Reply {
        delay: Duration::from_millis(200),
        ..reply(switching)
    })
    .await;
    let edge = Running::start(to(&upstream)).await;
    let mut client = edge.connect().await;
    client
        .send(
            "GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nGET / not HTTP",
        )
        .await;
    assert_eq!(client.answer().await.status, 101);
    let mut echoed = [0; 14];
    tokio::io::AsyncReadExt::read_exact(&mut client.stream, &mut echoed).await.unwrap();
    assert_eq!(&echoed, b"GET / not HTTP");
    assert_eq!(upstream.received().len(), 1);
}

#[tokio::test]
async fn a_websocket_that_is_refused_was_an_ordinary_request() {
    let upstream = Upstream::start(|_| ok("no")).await;
    let edge = Running::start(to(&upstream)).await;
    let mut client = edge.connect().await;
    for _ in 0..2 {
        client.send("GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n").await;
        let answer = client.answer().await;
        assert_eq!(
            (answer.status, answer.text(), answer.field("connection")),
            (200, "no", Some("keep-alive"))
        );
    }
    // What looks like a tunnel to a client of ours is none to us.
    client.send("GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nGET /a b\r\n\r\n").await;
    assert_eq!(client.answer().await.status, 200);
    assert_eq!(client.answer().await.status, 400);
}
