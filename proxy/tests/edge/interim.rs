//! `Expect: 100-continue`, other interim answers, `HEAD`, trailers, and HTTP/1.0 clients.

use std::time::Duration;

use conf::ByteSize;

use crate::harness::{Running, Scripted, Upstream, ok, reply, to};

#[tokio::test]
async fn the_upstream_says_continue() {
    let upstream = Upstream::start(|_| ok("done")).await;
    let edge = Running::start(to(&upstream)).await;
    let mut client = edge.connect().await;
    for _ in 0..2 {
        client.send("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n").await;
        assert_eq!(client.answer().await.head, "HTTP/1.1 100 Continue\r\n\r\n");
        client.send("body").await;
        assert_eq!(client.answer().await.text(), "done");
        assert_eq!(upstream.last().field("expect").as_deref(), Some("100-continue"));
        assert_eq!(upstream.last().body, b"body");
    }
}

#[tokio::test]
async fn the_upstream_says_no() {
    let upstream = Scripted::start(|mut exchange, _| async move {
        exchange.head().await;
        exchange.send("HTTP/1.1 401 Unauthorized\r\nContent-Length: 2\r\n\r\nno").await;
        assert_eq!(exchange.closed().await, 0, "nothing of the body");
    })
    .await;
    let edge = Running::start(upstream.edge()).await;
    let mut client = edge.connect().await;
    client.send("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n").await;
    let answer = client.answer().await;
    // The body may or may not follow, so nobody knows where the next request would begin (RFC 9110 §10.1.1).
    assert_eq!((answer.status, answer.text(), answer.field("connection")), (401, "no", Some("close")));
    assert!(client.is_closed_within(Duration::from_secs(1)).await, "not held until the body's deadline");
}

#[tokio::test]
async fn too_large_an_upload_is_not_invited() {
    let upstream = Upstream::start(|_| ok("")).await;
    let mut config = to(&upstream);
    config.limits.max_body_size = ByteSize(1000);
    let edge = Running::start(config).await;
    let answer =
        edge.ask("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 1001\r\nExpect: 100-continue\r\n\r\n").await;
    assert_eq!((answer.status, answer.field("connection")), (413, Some("close")));
    assert_eq!(upstream.received().len(), 0);
}

#[tokio::test]
async fn interim_answers_are_relayed() {
    let upstream = Upstream::start(|_| {
        reply(
            "HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\
             Keep-Alive: x\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </b.css>\r\n\r\n\
             HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi",
        )
    })
    .await;
    let edge = Running::start(to(&upstream)).await;
    let mut client = edge.connect().await;
    for _ in 0..2 {
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        assert_eq!(client.answer().await.head, "HTTP/1.1 102 Processing\r\n\r\n");
        let hints = "HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\n";
        assert_eq!(client.answer().await.head, hints);
        assert_eq!(client.answer().await.head, "HTTP/1.1 103 Early Hints\r\nLink: </b.css>\r\n\r\n");
        assert_eq!(client.answer().await.text(), "hi");
    }
    assert_eq!(upstream.last().connection, 0);
}

#[tokio::test]
async fn old_clients_get_no_interim_answers() {
    let upstream = Upstream::start(|_| {
        reply(
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n\
             HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi",
        )
    })
    .await;
    let edge = Running::start(to(&upstream)).await;
    let answer =
        edge.ask("PUT / HTTP/1.0\r\nHost: a\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\nbody").await;
    assert_eq!((answer.status, answer.text()), (200, "hi"));
    assert_eq!((upstream.last().field("expect"), upstream.last().body), (None, b"body".to_vec()));
}

#[tokio::test]
async fn old_clients_get_no_chunks() {
    let upstream = Upstream::start(|_| {
        reply("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n")
    })
    .await;
    let edge = Running::start(to(&upstream)).await;
    for connection in ["close", "keep-alive"] {
        let mut client = edge.connect().await;
        client.send(format!("GET / HTTP/1.0\r\nHost: a\r\nConnection: {connection}\r\n\r\n")).await;
        let answer = client.answer().await;
        assert_eq!(answer.field("transfer-encoding"), None, "{}", answer.head);
        assert_eq!((answer.text(), answer.field("connection")), ("abcde", Some("close")));
        assert!(client.is_closed_within(Duration::from_secs(1)).await);
    }
}

#[tokio::test]
async fn old_clients_may_keep_their_connection() {
    let upstream = Upstream::start(|_| ok("hi")).await;
    let edge = Running::start(to(&upstream)).await;
    let mut client = edge.connect().await;
    for _ in 0..3 {
        client.send("GET / HTTP/1.0\r\nHost: a\r\nConnection: Keep-Alive\r\n\r\n").await;
        let answer = client.answer().await;
        assert_eq!((answer.text(), answer.field("connection")), ("hi", Some("keep-alive")));
    }
    client.send("GET / HTTP/1.0\r\nHost: a\r\n\r\n").await;
    assert_eq!(client.answer().await.field("connection"), Some("close"));
    assert!(client.is_closed_within(Duration::from_secs(1)).await);
}

#[tokio::test]
async fn either_side_may_close() {
    let upstream =
        Upstream::start(|_| reply("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nhi"))
            .await;
    let edge = Running::start(to(&upstream)).await;
    let mut client = edge.connect().await;
    for number in 0..2 {
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        let answer = client.answer().await;
        // The upstream's `close` is about its own connection.
        assert_eq!((answer.text(), answer.field("connection")), ("hi", Some("keep-alive")));
        assert_eq!(upstream.last().connection, number);
    }
    client.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: foo, CLOSE\r\n\r\n").await;
    assert_eq!(client.answer().await.field("connection"), Some("close"));
    assert!(client.is_closed_within(Duration::from_secs(1)).await);
    assert_eq!(upstream.last().field("connection"), None);
}

#[tokio::test]
async fn head_has_no_body_whatever_the_upstream_says() {
    for (fields, name, value) in [
        ("Content-Length: 100\r\n", "content-length", Some("100")),
        ("Transfer-Encoding: chunked\r\n", "transfer-encoding", Some("chunked")),
        ("", "content-length", None),
    ] {
        let upstream = Upstream::start(move |request| {
            if request.line().starts_with("HEAD") {
                reply(format!("HTTP/1.1 200 OK\r\nETag: x\r\n{fields}\r\n"))
            } else {
                ok("next")
            }
        })
        .await;
        let edge = Running::start(to(&upstream)).await;
        let mut client = edge.connect().await;
        client.send("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        let answer = client.answer_to("HEAD").await;
        assert_eq!((answer.status, answer.field(name)), (200, value), "{}", answer.head);
        assert_eq!(answer.field("etag"), Some("x"));
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        assert_eq!(client.answer().await.text(), "next", "{fields:?}");
        assert_eq!(upstream.last().connection, 0, "{fields:?}: the upstream's connection is kept");
    }
}

#[tokio::test]
async fn trailers_stop_here_both_ways() {
    let upstream = Upstream::start(|request| {
        if request.line().contains("next") {
            return ok("next");
        }
        reply(
            "HTTP/1.1 200 OK\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nX-Sum: 1\r\n\
             Content-Length: 7\r\n\r\n",
        )
    })
    .await;
    let edge = Running::start(to(&upstream)).await;
    let mut client = edge.connect().await;
    client
        .send(
            "POST / HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n\
             2\r\nyo\r\n0\r\nX-Sum: 1\r\nX-Forwarded-For: 6.6.6.6\r\n\r\n",
        )
        .await;
    let answer = client.answer().await;
    assert_eq!((answer.text(), answer.field("trailer")), ("hi", None));
    let received = upstream.last();
    assert_eq!(received.body, b"2\r\nyo\r\n0\r\n\r\n");
    assert_eq!((received.field("te"), received.field("trailer")), (None, None));
    client.send("GET /next HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(client.answer().await.text(), "next");
    assert_eq!(upstream.last().connection, 0);
}
