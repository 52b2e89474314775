//! Chunked request bodies: what the upstream gets of them, and which are none.

use std::time::Duration;

use crate::harness::{Running, Upstream, ok, to};

const HEAD: &str = "POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";

#[tokio::test]
async fn bodies_are_framed_anew() {
    let upstream = Upstream::start(|_| ok("")).await;
    let edge = Running::start(to(&upstream)).await;
    for (body, data) in [
        ("0\r\n\r\n", ""),
        ("3\r\nabc\r\n0\r\n\r\n", "abc"),
        ("003;a=b;c=\"d e\"\r\nabc\r\n2\r\nde\r\n0;last\r\n\r\n", "abcde"),
        ("3\r\nabc\r\n0\r\nX-Trailer: 1\r\nContent-Length: 5\r\nHost: b\r\n\r\n", "abc"),
        ("A\r\n0\r\n\r\nGET /\r\n0\r\n\r\n", "0\r\n\r\nGET /"),
    ] {
        // In one piece, and byte by byte.
        for size in [usize::MAX, 1] {
            let mut client = edge.connect().await;
            client.send(HEAD).await;
            for piece in body.as_bytes().chunks(size.min(body.len())) {
                client.send(piece).await;
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            // The connection goes on where the body ended.
            client.send("GET /next HTTP/1.1\r\nHost: a\r\n\r\n").await;
            assert_eq!(client.answer().await.status, 200, "{body:?}");
            assert_eq!(client.answer().await.status, 200, "{body:?}");
            let received = upstream.received();
            let [.., first, second] = received.as_slice() else { panic!() };
            assert_eq!(second.line(), "GET /next HTTP/1.1");
            assert_eq!(first.field("transfer-encoding").as_deref(), Some("chunked"), "{}", first.head);
            for absent in ["content-length", "trailer", "x-trailer"] {
                assert_eq!(first.field(absent), None, "{body:?}");
            }
            assert_eq!(joined(&first.body), data, "{body:?}");
        }
    }
}

/// The data of chunks that have neither extensions nor trailers.
fn joined(mut body: &[u8]) -> String {
    let mut data = String::new();
    loop {
        let end = body.windows(2).position(|pair| pair == b"\r\n").expect("a size");
        let size = usize::from_str_radix(str::from_utf8(&body[..end]).unwrap(), 16).expect("a plain size");
        let chunk = &body[end + 2..end + 2 + size];
        data.push_str(str::from_utf8(chunk).unwrap());
        body = &body[end + 2 + size..];
        assert!(body.starts_with(b"\r\n"));
        body = &body[2..];
        if size == 0 {
            assert_eq!(body, b"", "nothing behind the last chunk");
            return data;
        }
    }
}

#[tokio::test]
async fn what_is_no_chunk_is_refused() {
    let upstream = Upstream::start(|_| ok("")).await;
    let edge = Running::start(to(&upstream)).await;
    for body in [
        "3\nabc\n0\n\n",
        "3\r\nabc\n0\r\n\r\n",
        "3;a\nabc\r\n0\r\n\r\n",
        "3\r\nabcd\r\n0\r\n\r\n",
        "3 \r\nabc\r\n0\r\n\r\n",
        "0x3\r\nabc\r\n0\r\n\r\n",
        "+3\r\nabc\r\n0\r\n\r\n",
        "-1\r\n\r\n",
        "\r\n\r\n",
        "ffffffffffffffff\r\nabc",
        "10000000000000003\r\nabc\r\n0\r\n\r\n",
        "0\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n",
        "0\r\nX : y\r\n\r\n",
        "0\r\nX: y\n\r\n",
        "0\r\n x\r\n\r\n",
    ] {
        // With the head, and after the upstream has been connected.
        for pause in [Duration::ZERO, Duration::from_millis(50)] {
            let mut client = edge.connect().await;
            client.send(HEAD).await;
            tokio::time::sleep(pause).await;
            client.send(format!("{body}GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n")).await;
            let answer = client.answer().await;
            assert_eq!((answer.status, answer.field("connection")), (400, Some("close")), "{body:?}");
            assert!(client.is_closed_within(Duration::from_secs(5)).await);
            assert_eq!(client.unread(), b"");
        }
    }
    // What arrived is the beginning of a request whose end never came; the harness keeps those without their body.
    tokio::time::sleep(Duration::from_millis(100)).await;
    for request in upstream.received() {
        assert_eq!((request.line(), request.body.as_slice()), ("POST /x HTTP/1.1", b"".as_slice()));
    }
}

#[tokio::test]
async fn refusals_of_bodies_are_in_matrix_form() {
    let upstream = Upstream::start(|_| ok("")).await;
    let edge = Running::start(to(&upstream)).await;
    let mut client = edge.connect().await;
    client.send(HEAD.replace("/x", "/_matrix/x")).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    client.send("x\r\n").await;
    let answer = client.answer().await;
    assert_eq!(answer.text(), r#"{"errcode":"M_UNRECOGNIZED","error":"Malformed request: size of a chunk"}"#);
    assert_eq!(answer.field("access-control-allow-origin"), Some("*"));
}
