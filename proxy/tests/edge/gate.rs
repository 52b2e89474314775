//! What the gate refuses or changes, case by case, over a raw socket: what the upstream got, byte for byte, or that it got
//! nothing, and what the client was told. The table in proxy/README.md has the reasons.

use std::time::Duration;

use crate::harness::{Client, Running, Upstream, ok, to};

/// What becomes of a request.
enum Outcome {
    /// The client gets this status; the upstream gets nothing. The connection ends, but for what is well-formed and only
    /// not served.
    Refused(u16),
    /// The upstream gets a request with this line and these fields beside ours, and no body.
    Passed(&'static str, &'static str),
}

use Outcome::{Passed, Refused};

/// A head as the upstream gets it, what the client sent and who asked, with its fields sorted.
fn received(line: &str, fields: &str, host: &str) -> String {
    let quoted = if host.contains(':') { format!("\"{host}\"") } else { host.to_owned() };
    sorted(&format!(
        "{line}\r\n{fields}X-Forwarded-For: 127.0.0.1\r\nX-Forwarded-Proto: http\r\nX-Forwarded-Host: {host}\r\n\
         Forwarded: for=127.0.0.1;host={quoted};proto=http\r\n\r\n"
    ))
}

fn sorted(head: &str) -> String {
    let head = head.strip_suffix("\r\n\r\n").unwrap();
    let (line, fields) = head.split_once("\r\n").unwrap();
    let mut fields: Vec<_> = fields.split("\r\n").collect();
    fields.sort_unstable();
    format!("{line}\r\n{}\r\n\r\n", fields.join("\r\n"))
}

/// Sends each request on a connection of its own to one edge.
async fn check(cases: &[(&str, Outcome)]) {
    let upstream = Upstream::start(|_| ok("")).await;
    let edge = Running::start(to(&upstream)).await;
    for (request, outcome) in cases {
        let before = upstream.received().len();
        let mut client = edge.connect().await;
        client.send(latin1(request)).await;
        let answer = client.answer().await;
        assert!(!answer.head.contains("ingora"), "{request:?}: {}", answer.head);
        match outcome {
            Refused(status) => {
                assert_eq!(answer.status, *status, "{request:?}");
                if !matches!(status, 405 | 417) {
                    assert_eq!(answer.field("connection"), Some("close"), "{request:?}");
                    assert!(client.is_closed_within(Duration::from_secs(5)).await, "{request:?}");
                }
                assert_eq!(upstream.received().len(), before, "{request:?} reached the upstream");
            }
            Passed(line, fields) => {
                assert_eq!(answer.status, 200, "{request:?} {answer:?}");
                assert_eq!(upstream.received().len(), before + 1, "{request:?}");
                let host =
                    fields.lines().find_map(|line| Some(line.split_once(": ")?.1)).map(str::trim).unwrap();
                let got = upstream.last();
                assert_eq!(sorted(&got.head), received(line, fields, host), "{request:?}");
                assert_eq!(got.body, b"", "{request:?}");
            }
        }
    }
}

/// One byte for each character.
fn latin1(text: &str) -> Vec<u8> {
    text.chars().map(|character| u8::try_from(u32::from(character)).unwrap()).collect()
}

#[tokio::test]
async fn request_lines() {
    check(&[
        ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", Passed("GET / HTTP/1.1", "Host: a\r\n")),
        ("\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", Passed("GET / HTTP/1.1", "Host: a\r\n")),
        ("PROPFIND /x HTTP/1.1\r\nHost: a\r\n\r\n", Passed("PROPFIND /x HTTP/1.1", "Host: a\r\n")),
        ("get / HTTP/1.1\r\nHost: a\r\n\r\n", Passed("get / HTTP/1.1", "Host: a\r\n")),
        ("\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", Refused(400)),
        (" GET / HTTP/1.1\r\nHost: a\r\n\r\n", Refused(400)),
        ("GET  / HTTP/1.1\r\nHost: a\r\n\r\n", Refused(400)),
        ("GET /  HTTP/1.1\r\nHost: a\r\n\r\n", Refused(400)),
        ("GET / HTTP/1.1 \r\nHost: a\r\n\r\n", Refused(400)),
        ("GET\t/\tHTTP/1.1\r\nHost: a\r\n\r\n", Refused(400)),
        ("GET / x HTTP/1.1\r\nHost: a\r\n\r\n", Refused(400)),
        ("GET / HTTP/1.1 HTTP/1.1\r\nHost: a\r\n\r\n", Refused(400)),
        ("GET /\r\n\r\n", Refused(400)),
        ("GET / HTTP/0.9\r\nHost: a\r\n\r\n", Refused(400)),
        ("GET / HTTP/1.2\r\nHost: a\r\n\r\n", Refused(400)),
        ("GET / HTTP/2.0\r\nHost: a\r\n\r\n", Refused(400)),
        ("GET / HTTP/1.10\r\nHost: a\r\n\r\n", Refused(400)),
        ("GET / http/1.1\r\nHost: a\r\n\r\n", Refused(400)),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Refused(400)),
        ("G@T / HTTP/1.1\r\nHost: a\r\n\r\n", Refused(400)),
        ("nonsense\r\n\r\n", Refused(400)),
        ("\u{16}\u{3}\u{1}\u{2}\0\u{1}", Refused(400)),
    ])
    .await;
}

#[tokio::test]
async fn methods() {
    check(&[
        ("TRACE / HTTP/1.1\r\nHost: a\r\n\r\n", Refused(405)),
        ("CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n", Refused(405)),
        ("CONNECT / HTTP/1.1\r\nHost: a\r\n\r\n", Refused(405)),
        ("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", Refused(400)),
        ("GET * HTTP/1.1\r\nHost: a\r\n\r\n", Refused(400)),
        ("OPTIONS /x HTTP/1.1\r\nHost: a\r\n\r\n", Passed("OPTIONS /x HTTP/1.1", "Host: a\r\n")),
    ])
    .await;
}

#[tokio::test]
async fn targets() {
    check(&[
        ("GET /a b HTTP/1.1\r\nHost: a\r\n\r\n", Refused(400)),
        ("GET /%20\u{1} HTTP/1.1\r\nHost: a\r\n\r\n", Refused(400)),
        ("GET /a\u{7f} HTTP/1.1\r\nHost: a\r\n\r\n", Refused(400)),
        ("GET /a\0 HTTP/1.1\r\nHost: a\r\n\r\n", Refused(400)),
        ("GET /#x HTTP/1.1\r\nHost: a\r\n\r\n", Refused(400)),
        ("GET /?q#x HTTP/1.1\r\nHost: a\r\n\r\n", Refused(400)),
        ("GET /\u{c3}\u{a9} HTTP/1.1\r\nHost: a\r\n\r\n", Refused(400)),
        ("GET /?\u{ff} HTTP/1.1\r\nHost: a\r\n\r\n", Refused(400)),
        ("GET a HTTP/1.1\r\nHost: a\r\n\r\n", Refused(400)),
        ("GET ?a HTTP/1.1\r\nHost: a\r\n\r\n", Refused(400)),
        ("GET a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n", Refused(400)),
        ("GET /%zz HTTP/1.1\r\nHost: a\r\n\r\n", Refused(400)),
        ("GET /%2 HTTP/1.1\r\nHost: a\r\n\r\n", Refused(400)),
        ("GET /< HTTP/1.1\r\nHost: a\r\n\r\n", Refused(400)),
        ("GET /?> HTTP/1.1\r\nHost: a\r\n\r\n", Refused(400)),
        ("GET /` HTTP/1.1\r\nHost: a\r\n\r\n", Refused(400)),
        ("GET /?\" HTTP/1.1\r\nHost: a\r\n\r\n", Refused(400)),
        (
            "GET /\"\\^{|}%20[]/%2F/./.x//%7e?\\^`{|}?%zz HTTP/1.1\r\nHost: a\r\n\r\n",
            Passed("GET /\"\\^{|}%20[]/%2F/./.x//%7e?\\^`{|}?%zz HTTP/1.1", "Host: a\r\n"),
        ),
    ])
    .await;
}

#[tokio::test]
async fn absolute_targets() {
    check(&[
        ("GET http://a/x%2Fy?z HTTP/1.1\r\nHost: a\r\n\r\n", Passed("GET /x%2Fy?z HTTP/1.1", "Host: a\r\n")),
        ("GET http://a HTTP/1.1\r\nHost: a\r\n\r\n", Passed("GET / HTTP/1.1", "Host: a\r\n")),
        ("GET https://a:1/x HTTP/1.1\r\nHost: a:1\r\n\r\n", Passed("GET /x HTTP/1.1", "Host: a:1\r\n")),
        ("GET HTTP://a/x HTTP/1.0\r\nHost: a\r\n\r\n", Passed("GET /x HTTP/1.1", "Host: a\r\n")),
        ("GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n", Refused(400)),
        ("GET http://a:80/ HTTP/1.1\r\nHost: a\r\n\r\n", Refused(400)),
        ("GET http://a/ HTTP/1.1\r\n\r\n", Refused(400)),
        ("GET http://u@a/ HTTP/1.1\r\nHost: a\r\n\r\n", Refused(400)),
        ("GET http://u@a/ HTTP/1.1\r\nHost: u@a\r\n\r\n", Refused(400)),
        ("GET http://a?x HTTP/1.1\r\nHost: a\r\n\r\n", Refused(400)),
        ("GET http:/a/ HTTP/1.1\r\nHost: a\r\n\r\n", Refused(400)),
        ("GET http:///x HTTP/1.1\r\nHost: a\r\n\r\n", Refused(400)),
        ("GET http:\\\\a\\x HTTP/1.1\r\nHost: a\r\n\r\n", Refused(400)),
        ("GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n", Refused(400)),
        ("GET file:///etc/passwd HTTP/1.1\r\nHost: a\r\n\r\n", Refused(400)),
    ])
    .await;
}

#[tokio::test]
async fn hosts() {
    check(&[
        (
            "GET / HTTP/1.1\r\nhOST:A.Example:8448 \r\n\r\n",
            Passed("GET / HTTP/1.1", "hOST: A.Example:8448\r\n"),
        ),
        ("GET / HTTP/1.1\r\nHost: [::1]:1\r\n\r\n", Passed("GET / HTTP/1.1", "Host: [::1]:1\r\n")),
        ("GET / HTTP/1.1\r\n\r\n", Refused(400)),
        ("GET / HTTP/1.1\r\nHost:\r\n\r\n", Refused(400)),
        ("GET / HTTP/1.1\r\nHost: a b\r\n\r\n", Refused(400)),
        ("GET / HTTP/1.1\r\nHost: a, b\r\n\r\n", Refused(400)),
        ("GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", Refused(400)),
        ("GET / HTTP/1.1\r\nHost: u@a\r\n\r\n", Refused(400)),
        ("GET / HTTP/1.1\r\nHost: a:b\r\n\r\n", Refused(400)),
        ("GET / HTTP/1.1\r\nHost: a:99999\r\n\r\n", Refused(400)),
        ("GET / HTTP/1.1\r\nHost: \u{e9}\r\n\r\n", Refused(400)),
        ("GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", Refused(400)),
        ("GET / HTTP/1.1\r\nHost: a\r\nhost: b\r\n\r\n", Refused(400)),
        ("GET / HTTP/1.1\r\nHost: a\r\nHost:\r\n\r\n", Refused(400)),
    ])
    .await;
}

#[tokio::test]
async fn lines_and_fields() {
    check(&[
        ("GET / HTTP/1.1\nHost: a\n\n", Refused(400)),
        ("GET / HTTP/1.1\r\nHost: a\n\r\n", Refused(400)),
        ("GET / HTTP/1.1\r\nHost: a\r\n\n", Refused(400)),
        ("GET / HTTP/1.1\r\nHost: a\r\nX: y\rZ: w\r\n\r\n", Refused(400)),
        ("GET / HTTP/1.1\r\nHost: a\r\r\n\r\n", Refused(400)),
        ("GET / HTTP/1.1\r\nHost: a\r\nX: y\r\n z\r\n\r\n", Refused(400)),
        ("GET / HTTP/1.1\r\n Host: a\r\n\r\n", Refused(400)),
        ("GET / HTTP/1.1\r\nHost : a\r\n\r\n", Refused(400)),
        ("GET / HTTP/1.1\r\nHost: a\r\nX\t: y\r\n\r\n", Refused(400)),
        ("GET / HTTP/1.1\r\nHost: a\r\nX\r\n\r\n", Refused(400)),
        ("GET / HTTP/1.1\r\nHost: a\r\n: y\r\n\r\n", Refused(400)),
        ("GET / HTTP/1.1\r\nHost: a\r\nX(: y\r\n\r\n", Refused(400)),
        ("GET / HTTP/1.1\r\nHost: a\r\n\u{e9}: y\r\n\r\n", Refused(400)),
        ("GET / HTTP/1.1\r\nHost: a\r\nX: \0\r\n\r\n", Refused(400)),
        ("GET / HTTP/1.1\r\nHost: a\r\nX: \u{8}\r\n\r\n", Refused(400)),
        ("GET / HTTP/1.1\r\nHost: a\r\nX: \u{7f}\r\n\r\n", Refused(400)),
        (
            "GET / HTTP/1.1\r\nHost: a\r\nX:\ty  z \t\r\nEmpty:\r\n~!: ;\r\n\r\n",
            Passed("GET / HTTP/1.1", "Host: a\r\nX: y  z\r\nEmpty: \r\n~!: ;\r\n"),
        ),
    ])
    .await;
}

#[tokio::test]
async fn bytes_beyond_ascii_in_values_pass() {
    let upstream = Upstream::start(|_| ok("")).await;
    let edge = Running::start(to(&upstream)).await;
    assert_eq!(edge.ask("GET / HTTP/1.1\r\nHost: a\r\nX: \u{e9}\r\n\r\n").await.status, 200);
    assert_eq!(upstream.last().field("x").as_deref(), Some("\u{e9}"));
}

#[tokio::test]
async fn framing() {
    const BOTH: &str =
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
    check(&[
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\nx", Refused(400)),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nx", Refused(400)),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1, 1\r\n\r\nx", Refused(400)),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +1\r\n\r\nx", Refused(400)),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\nx", Refused(400)),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0x1\r\n\r\nx", Refused(400)),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1 0\r\n\r\nx", Refused(400)),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length:\r\n\r\nx", Refused(400)),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 18446744073709551616\r\n\r\n", Refused(400)),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9223372036854775807\r\n\r\n", Refused(413)),
        (BOTH, Refused(400)),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", Refused(501)),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n", Refused(501)),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n", Refused(501)),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n", Refused(501)),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \"chunked\"\r\n\r\n0\r\n\r\n", Refused(501)),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", Refused(501)),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked;q=1\r\n\r\n0\r\n\r\n", Refused(501)),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\r\n\r\n0\r\n\r\n", Refused(501)),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            Refused(501),
        ),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\u{b}chunked\r\n\r\n0\r\n\r\n", Refused(400)),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n", Refused(400)),
        ("POST / HTTP/1.1\r\nHost: a\r\nX: y\r\n\tTransfer-Encoding: chunked\r\n\r\n", Refused(400)),
        ("POST / HTTP/1.1\r\nHost: a\r\nExpect: a miracle\r\n\r\n", Refused(417)),
        ("POST / HTTP/1.1\r\nHost: a\r\n\r\n", Passed("POST / HTTP/1.1", "Host: a\r\n")),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n",
            Passed("POST / HTTP/1.1", "Host: a\r\nContent-Length: 0\r\n"),
        ),
    ])
    .await;
}

#[tokio::test]
async fn http_1_0() {
    check(&[
        ("GET / HTTP/1.0\r\nHost: a\r\n\r\n", Passed("GET / HTTP/1.1", "Host: a\r\n")),
        (
            "GET / HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n",
            Passed("GET / HTTP/1.1", "Host: a\r\n"),
        ),
        (
            "GET / HTTP/1.0\r\nHost: a\r\nExpect: 100-continue\r\n\r\n",
            Passed("GET / HTTP/1.1", "Host: a\r\n"),
        ),
        ("GET / HTTP/1.0\r\n\r\n", Refused(400)),
        ("GET /\r\n\r\n", Refused(400)),
        ("POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", Refused(400)),
    ])
    .await;
}

#[tokio::test]
async fn fields_that_stop_here() {
    check(&[
        (
            "GET / HTTP/1.1\r\nHost: a\r\nX_Real_IP: 6.6.6.6\r\nContent_Length: 5\r\nTransfer_Encoding: chunked\r\n\
             X_Forwarded_Host: b\r\nOK: 1\r\n\r\n",
            Passed("GET / HTTP/1.1", "Host: a\r\nOK: 1\r\n"),
        ),
        (
            "GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 6.6.6.6\r\nX-Forwarded-Proto: https\r\n\
             X-Forwarded-Host: b\r\nX-Forwarded-Anything: x\r\nForwarded: for=6.6.6.6\r\nX-Real-IP: 6.6.6.6\r\n\
             X-Original-URL: /admin\r\nX-Rewrite-URL: /admin\r\nProxy: b\r\nTrue-Client-IP: 6.6.6.6\r\n\r\n",
            Passed("GET / HTTP/1.1", "Host: a\r\n"),
        ),
        (
            "GET / HTTP/1.1\r\nHost: a\r\nConnection: close, X-Mine\r\nX-Mine: 1\r\nKeep-Alive: timeout=5\r\n\
             Proxy-Connection: keep-alive\r\nProxy-Authorization: x\r\nTE: trailers, gzip\r\nTrailer: x\r\n\
             Upgrade: h2c\r\nHTTP2-Settings: x\r\nOK: 1\r\n\r\n",
            Passed("GET / HTTP/1.1", "Host: a\r\nOK: 1\r\n"),
        ),
        ("GET / HTTP/1.1\r\nHost: a\r\nConnection: Host\r\n\r\n", Refused(400)),
        ("GET / HTTP/1.1\r\nHost: a\r\nConnection: close, X-Forwarded-For\r\n\r\n", Refused(400)),
        ("GET / HTTP/1.1\r\nHost: a\r\nConnection: X-Forwarded-Prefix\r\n\r\n", Refused(400)),
        ("GET / HTTP/1.1\r\nHost: a\r\nConnection: Forwarded\r\n\r\n", Refused(400)),
        ("POST / HTTP/1.1\r\nHost: a\r\nConnection: Content-Length\r\nContent-Length: 1\r\n\r\nx", Refused(400)),
        ("GET / HTTP/1.1\r\nHost: a\r\nConnection: Transfer-Encoding\r\n\r\n", Refused(400)),
        ("GET / HTTP/1.1\r\nHost: a\r\nConnection: :path\r\n\r\n", Refused(400)),
        ("GET / HTTP/1.1\r\nHost: a\r\nConnection: \"Host\"\r\n\r\n", Refused(400)),
        ("GET / HTTP/1.1\r\nHost: a\r\nConnection: a,b,c,d,e,f,g,h,i,j\r\n\r\n", Refused(400)),
    ])
    .await;
}

#[tokio::test]
async fn refusals_speak_matrix_where_it_is_spoken() {
    let upstream = Upstream::start(|_| ok("")).await;
    let mut config = to(&upstream);
    config.limits.max_header_size = conf::ByteSize(8192);
    let edge = Running::start(config).await;
    let long = format!("GET /_matrix/x HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "x".repeat(9000));
    let longer = format!("GET /_synapse/{} HTTP/1.1\r\n", "x".repeat(9000));
    let many = format!("GET /_matrix/x HTTP/1.1\r\nHost: a\r\n{}\r\n", "a: b\r\n".repeat(300));
    for (request, status, errcode) in [
        ("GET /_matrix/client/a b HTTP/1.1\r\nHost: a\r\n\r\n", 400, "M_UNRECOGNIZED"),
        ("GET /_matrix/client/versions HTTP/1.1\nHost: a\n\n", 400, "M_UNRECOGNIZED"),
        ("GET /_synapse/x HTTP/1.1\r\nHost: a\r\n folded\r\n\r\n", 400, "M_UNRECOGNIZED"),
        ("GET /_matrix/x HTTP/1.1\r\n\r\n", 400, "M_UNRECOGNIZED"),
        ("CONNECT /_matrix/x HTTP/1.1\r\nHost: a\r\n\r\n", 405, "M_UNRECOGNIZED"),
        ("PUT /_matrix/x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n", 501, "M_UNKNOWN"),
        (&long, 431, "M_UNKNOWN"),
        (&longer, 414, "M_UNKNOWN"),
        (&many, 431, "M_UNKNOWN"),
    ] {
        let answer = edge.ask(request).await;
        assert_eq!(answer.status, status, "{request:?}");
        assert_eq!(answer.field("access-control-allow-origin"), Some("*"), "{request:?}");
        assert_eq!(answer.field("content-type"), Some("application/json"));
        let body: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
        assert_eq!(body["errcode"], errcode, "{request:?}");
        assert!(body["error"].as_str().is_some_and(|text| !text.is_empty()));
    }
    let answer = edge.ask("GET /a b HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert!(answer.text().starts_with("<!doctype html>"), "{}", answer.text());
    assert_eq!(answer.field("access-control-allow-origin"), None);
    let mut client = edge.connect().await;
    client.send("HEAD /a b HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(client.answer_to("HEAD").await.status, 400);
    assert!(client.is_closed_within(Duration::from_secs(5)).await);
    assert_eq!(client.unread(), b"", "an answer to HEAD has no body");
    assert_eq!(upstream.received().len(), 0);
}

#[tokio::test]
async fn what_follows_a_refused_request_is_no_request() {
    let upstream = Upstream::start(|_| ok("")).await;
    let edge = Running::start(to(&upstream)).await;
    for refused in [
        "GET /a b HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999\r\n\r\n",
    ] {
        let mut client = edge.connect().await;
        client.send(format!("{refused}GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n")).await;
        let answer = client.answer().await;
        assert!(answer.status >= 400, "{refused:?}");
        assert!(client.is_closed_within(Duration::from_secs(5)).await, "{refused:?}");
        assert_eq!(client.unread(), b"", "{refused:?}");
        assert!(upstream.received().iter().all(|request| !request.head.contains("smuggled")), "{refused:?}");
    }
}

#[tokio::test]
async fn pipelined_heads_are_judged_like_others() {
    let upstream = Upstream::start(|_| ok("")).await;
    let edge = Running::start(to(&upstream)).await;
    for second in
        ["GET /a%20b c HTTP/1.1\r\nHost: a\r\n\r\n", "GET / HTTP/1.1\nHost: a\n\n", "GET / HTTP/1.1\r\n\r\n"]
    {
        for pause in [Duration::ZERO, Duration::from_millis(50)] {
            let before = upstream.received().len();
            let mut client: Client<_> = edge.connect().await;
            client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nab").await;
            tokio::time::sleep(pause).await;
            client.send(format!("c{second}")).await;
            assert_eq!(client.answer().await.status, 200);
            assert_eq!(client.answer().await.status, 400, "{second:?}");
            assert_eq!(upstream.received().len(), before + 1);
            assert_eq!(upstream.last().body, b"abc");
        }
    }
}

#[tokio::test]
async fn a_head_may_come_in_pieces() {
    let upstream = Upstream::start(|_| ok("")).await;
    let edge = Running::start(to(&upstream)).await;
    let large = format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "x".repeat(20_000));
    for (request, size) in [("\r\nGET /x HTTP/1.1\r\nHost: a\r\n\r\n", 1), (&*large, 3000)] {
        let mut client = edge.connect().await;
        for piece in request.as_bytes().chunks(size) {
            client.send(piece).await;
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        assert_eq!(client.answer().await.status, 200);
    }
    assert_eq!(upstream.last().field("x").unwrap().len(), 20_000);
}
