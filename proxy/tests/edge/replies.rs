//! Malformed answers of upstreams: the client gets 502 or a well-formed answer, never a second one, and the connection
//! they came over is not used again.

use std::time::Duration;

use crate::harness::{Running, Scripted};

const GOOD: &str = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ngood";

/// An upstream whose first connection answers `first` (and more, a moment later) to everything, and whose others are
/// good.
async fn spoiled(first: impl Into<Vec<u8>>, later: &'static str, closes: bool) -> Scripted {
    let first = first.into();
    Scripted::start(move |mut exchange, number| {
        let first = first.clone();
        async move {
            while !exchange.head().await.is_empty() {
                if number > 0 {
                    exchange.send(GOOD).await;
                    continue;
                }
                exchange.send(&first).await;
                if !later.is_empty() {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    exchange.send(later).await;
                }
                if closes {
                    return;
                }
            }
        }
    })
    .await
}

#[tokio::test]
async fn malformed_answers_are_502() {
    let large = format!("HTTP/1.1 200 OK\r\nX: {}\r\nContent-Length: 0\r\n\r\n", "x".repeat(1_200_000));
    let many = format!("HTTP/1.1 200 OK\r\n{}Content-Length: 0\r\n\r\n", "X: y\r\n".repeat(300));
    let flood = "HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n".repeat(100);
    for bytes in [
        "HTTP/1.1 200 OK\r\nContent-Length: 4\r\nContent-Length: 5\r\n\r\nbad!!",
        "HTTP/1.1 200 OK\r\nContent-Length: 4\r\nContent-Length: 4\r\n\r\nbad!",
        "HTTP/1.1 200 OK\r\nContent-Length: 4, 4\r\n\r\nbad!",
        "HTTP/1.1 200 OK\r\nContent-Length: 4, 5\r\n\r\nbad!",
        "HTTP/1.1 200 OK\r\nContent-Length: +4\r\n\r\nbad!",
        "HTTP/1.1 200 OK\r\nContent-Length: -4\r\n\r\nbad!",
        "HTTP/1.1 200 OK\r\nContent-Length: \r\n\r\nbad!",
        "HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\nbad!",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nbad!",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX: a\rB: c\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX: a\0\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX(: a\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 20 OK\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 2000 OK\r\nContent-Length: 0\r\n\r\n",
        "HTTP/2 200 OK\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
        "<html>HTTP/0.9</html>\r\n\r\n",
        "\0\0\0\0",
        &large,
        &many,
        &flood,
    ] {
        let shown = &bytes[..bytes.len().min(80)];
        let upstream = spoiled(bytes, "", false).await;
        let edge = Running::start(upstream.edge()).await;
        let mut client = edge.connect().await;
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        let mut answer = client.answer().await;
        while answer.status < 200 {
            answer = client.answer().await;
        }
        assert_eq!(answer.status, 502, "{shown:?}");
        assert!(client.is_closed_within(Duration::from_secs(5)).await, "{shown:?}");
        assert_eq!(client.unread(), b"", "{shown:?}");
        assert_eq!(edge.get("/").await.text(), "good", "{shown:?}");
        assert_eq!(upstream.connections(), 2, "{shown:?}: not used again");
    }
}

#[tokio::test]
async fn what_comes_beyond_an_answer_is_never_another_one() {
    let second = "HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nsmuggled";
    for (method, status, answer, text) in [
        ("GET", 200, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", "hi"),
        ("GET", 200, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n", "hi"),
        ("GET", 204, "HTTP/1.1 204 No Content\r\n\r\n", ""),
        ("GET", 304, "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", ""),
        ("HEAD", 200, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", ""),
        ("HEAD", 200, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", ""),
    ] {
        // In the same packet, and when the connection is idle already.
        for (first, later) in [(format!("{answer}{second}"), ""), (answer.to_owned(), second)] {
            let upstream = spoiled(first, later, false).await;
            let edge = Running::start(upstream.edge()).await;
            let mut client = edge.connect().await;
            client.send(format!("{method} / HTTP/1.1\r\nHost: a\r\n\r\n")).await;
            let got = client.answer_to(method).await;
            assert_eq!((got.status, got.text()), (status, text), "{answer:?}");
            tokio::time::sleep(Duration::from_millis(250)).await;
            for _ in 0..2 {
                client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
                assert_eq!(client.answer().await.text(), "good", "{answer:?} {later:?}");
            }
            assert_eq!(upstream.connections(), 2, "{answer:?} {later:?}");
        }
    }
}

/// RFC 9112 §6.3: the transfer coding counts. The engine drops the length before anybody sees it, so this one is passed
/// on, framed anew.
#[tokio::test]
async fn a_length_beside_a_transfer_coding_is_dropped() {
    let both =
        "HTTP/1.1 200 OK\r\nContent-Length: 99\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n";
    let upstream = spoiled(both, "", false).await;
    let edge = Running::start(upstream.edge()).await;
    let answer = edge.get("/").await;
    assert_eq!((answer.status, answer.text(), answer.is_cut), (200, "hi", false));
    assert_eq!(answer.field("content-length"), None);
    assert_eq!(answer.field("transfer-encoding"), Some("chunked"));
}

#[tokio::test]
async fn broken_chunks_end_the_answer() {
    for chunks in ["x\r\n", "2\r\nhiGET", "2\r\nhi\n", "ffffffffffffffff\r\nhi"] {
        let bytes = format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n{chunks}");
        let upstream = spoiled(bytes, "", true).await;
        let edge = Running::start(upstream.edge()).await;
        let mut client = edge.connect().await;
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        let answer = client.answer().await;
        assert!(answer.status == 502 || answer.is_cut, "{chunks:?}: {answer:?}");
        assert!(client.is_closed_within(Duration::from_secs(5)).await);
        assert_eq!(edge.get("/").await.text(), "good");
    }
}

#[tokio::test]
async fn an_answer_that_ends_with_the_connection_is_chunked_for_the_client() {
    for version in ["1.0", "1.1"] {
        let upstream = spoiled(format!("HTTP/{version} 200 OK\r\n\r\nuntil the end"), "", true).await;
        let edge = Running::start(upstream.edge()).await;
        let mut client = edge.connect().await;
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        let answer = client.answer().await;
        assert_eq!((answer.text(), answer.is_cut), ("until the end", false));
        assert!(answer.head.starts_with("HTTP/1.1 200 OK\r\n"), "{}", answer.head);
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        assert_eq!(client.answer().await.text(), "good");
    }
}

#[tokio::test]
async fn the_version_is_ours() {
    let upstream = spoiled("HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nhi", "", true).await;
    let edge = Running::start(upstream.edge()).await;
    let answer = edge.get("/").await;
    assert!(answer.head.starts_with("HTTP/1.1 200 OK\r\n"), "{}", answer.head);
    assert_eq!(answer.field("connection"), Some("keep-alive"));
}

#[tokio::test]
async fn what_is_only_old_is_made_new() {
    let bytes = "HTTP/1.1 200 OK\nX: a\r\n\tb\r\nSpaced : c\r\nContent-Length: 2\n\nhi";
    let upstream = spoiled(bytes, "", false).await;
    let edge = Running::start(upstream.edge()).await;
    let answer = edge.get("/").await;
    assert_eq!((answer.text(), answer.field("x"), answer.field("spaced")), ("hi", Some("a b"), Some("c")));
    assert!(!answer.head.replace("\r\n", "").contains('\n'), "{:?}", answer.head);
}
