//! Answers that come before the end of an upload.

use std::time::{Duration, Instant};

use tokio::io::AsyncWriteExt as _;

use crate::harness::{Running, Scripted};

/// Answers 413 after so many bytes of a body; what more comes is read, or the connection is closed on it.
async fn refusing(after: usize, reads_on: bool) -> Scripted {
    Scripted::start(move |mut exchange, number| async move {
        let head = exchange.head().await;
        if number > 0 && head.starts_with("GET") {
            exchange.send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nnext").await;
            exchange.closed().await;
            return;
        }
        exchange.body(after).await;
        exchange.send("HTTP/1.1 413 Content Too Large\r\nContent-Length: 3\r\n\r\nbig").await;
        if reads_on {
            exchange.closed().await;
        }
    })
    .await
}

#[tokio::test]
async fn the_client_gets_the_answer_while_it_sends() {
    for reads_on in [true, false] {
        let upstream = refusing(1000, reads_on).await;
        let edge = Running::start(upstream.edge()).await;
        let client = tokio::net::TcpStream::connect(edge.address).await.unwrap();
        let (read, mut write) = client.into_split();
        write.write_all(b"PUT /x HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n").await.unwrap();
        // Sends until it is done, or the server takes no more.
        let sending = tokio::spawn(async move {
            for _ in 0..100 {
                if write.write_all(&[b'x'; 10_000]).await.is_err() {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            write
        });
        let mut client = crate::harness::Client::new(tokio::io::join(read, tokio::io::sink()));
        let answer = client.answer().await;
        assert_eq!((answer.status, answer.text()), (413, "big"), "reads on: {reads_on}");
        // Where the next request would begin is not known.
        assert_eq!(answer.field("connection"), Some("close"));
        assert!(client.is_closed_within(Duration::from_secs(5)).await);
        assert_eq!(client.unread(), b"");
        drop(sending.await.unwrap());
        assert_eq!(edge.get("/").await.text(), "next");
        assert_eq!(upstream.connections(), 2, "a connection in the middle of a request is not used again");
    }
}

#[tokio::test]
async fn a_client_that_waits_is_let_go() {
    let upstream = refusing(1, true).await;
    let edge = Running::start(upstream.edge()).await;
    let mut client = edge.connect().await;
    client.send("PUT /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n").await;
    let begun = Instant::now();
    assert_eq!(client.answer().await.status, 413);
    assert!(client.is_closed_within(Duration::from_secs(2)).await);
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn an_answer_that_is_not_complete_takes_the_rest_of_the_body() {
    // An upstream may begin to answer, and read on: an echo.
    let upstream = Scripted::start(|mut exchange, _| async move {
        exchange.head().await;
        exchange.body(4).await;
        exchange.send("HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nhalf").await;
        assert_eq!(exchange.body(4).await, b"more");
        exchange.send("full").await;
        exchange.closed().await;
    })
    .await;
    let edge = Running::start(upstream.edge()).await;
    let mut client = edge.connect().await;
    client.send("PUT /x HTTP/1.1\r\nHost: a\r\nContent-Length: 8\r\n\r\nsome").await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    client.send("more").await;
    assert_eq!(client.answer().await.text(), "halffull");
}

#[tokio::test]
async fn the_log_has_the_answer_and_no_fault() {
    let upstream = refusing(1, true).await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("access.log");
    let mut config = upstream.edge();
    config.access_log = Some(conf::AccessLog {
        target: conf::AccessLogTarget::File(path.clone()),
        format: conf::AccessLogFormat::Json,
    });
    let edge = Running::start(config).await;
    assert_eq!(edge.ask("PUT /x HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nx").await.status, 413);
    edge.end().await;
    let line: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    assert_eq!((&line["status"], &line["error"]), (&413.into(), &serde_json::Value::Null), "{line}");
}
