//! The gate over HTTP/2, frame by frame: what the upstream got, or that it got nothing and how the stream ended.

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::harness::{Running, Upstream, ok, to};
use crate::http2::{connect, with_tls};

/// How a request ended for its client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// An answer with this status; 0 for one that takes more than a table to decode.
    Status(u16),
    /// `RST_STREAM`, or `GOAWAY`, with this code.
    Error(u32),
    /// The connection was closed.
    Closed,
}

type Field<'a> = (&'a [u8], &'a [u8]);

/// A header list without compression (RFC 7541 §6.2.2).
fn list(fields: &[Field<'_>]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for text in fields {
        bytes.push(0);
        for part in [text.0, text.1] {
            let length = u8::try_from(part.len()).unwrap();
            assert!(length < 127);
            bytes.push(length);
            bytes.extend_from_slice(part);
        }
    }
    bytes
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut bytes = vec![length[1], length[2], length[3], kind, flags];
    bytes.extend_from_slice(&stream.to_be_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

/// One request with this header list and body, on a connection of its own.
async fn ask(
    edge: &Running,
    certificate: &rustls::pki_types::CertificateDer<'static>,
    fields: &[Field<'_>],
    body: Option<&[u8]>,
) -> End {
    let mut stream = connect(edge, certificate, b"h2").await;
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    bytes.extend(frame(4, 0, 0, b""));
    bytes.extend(frame(1, if body.is_some() { 4 } else { 5 }, 1, &list(fields)));
    if let Some(body) = body {
        bytes.extend(frame(0, 1, 1, body));
    }
    stream.write_all(&bytes).await.unwrap();
    let ended = async {
        loop {
            let mut head = [0; 9];
            if stream.read_exact(&mut head).await.is_err() {
                return End::Closed;
            }
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
            let mut payload = vec![0; usize::try_from(length).unwrap()];
            stream.read_exact(&mut payload).await.unwrap();
            match head[3] {
                1 => return End::Status(status(payload[0])),
                3 => return End::Error(u32::from_be_bytes(payload[..4].try_into().unwrap())),
                7 => return End::Error(u32::from_be_bytes(payload[4..8].try_into().unwrap())),
                _ => {}
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(10), ended).await.expect("no end")
}

/// RFC 7541 appendix A.
fn status(indexed: u8) -> u16 {
    match indexed {
        0x88 => 200,
        0x8c => 400,
        0x8d => 404,
        _ => 0,
    }
}

const METHOD: Field<'_> = (b":method", b"GET");
const SCHEME: Field<'_> = (b":scheme", b"https");
const AUTHORITY: Field<'_> = (b":authority", b"a.example");
const PATH: Field<'_> = (b":path", b"/x");
const HEAD: [Field<'_>; 4] = [METHOD, SCHEME, AUTHORITY, PATH];

/// Those of an ordinary request, one of them replaced by `with`, or `with` at the end.
fn but<'a>(with: Field<'a>) -> Vec<Field<'a>> {
    let mut fields: Vec<Field<'a>> = HEAD.to_vec();
    match fields.iter_mut().find(|field| field.0 == with.0) {
        Some(field) => *field = with,
        None => fields.push(with),
    }
    fields
}

/// Requests that the upstream must not see, and how each ends.
async fn refused(cases: Vec<(Vec<Field<'_>>, Option<&[u8]>)>, ends: &[End]) {
    let upstream = Upstream::start(|_| ok("")).await;
    let (config, certificate) = with_tls(to(&upstream));
    let edge = Running::start(config).await;
    for (fields, body) in cases {
        let shown: Vec<_> =
            fields.iter().map(|(name, value)| (name.escape_ascii(), value.escape_ascii())).collect();
        let shown =
            shown.iter().map(|(name, value)| format!("{name}: {value}")).collect::<Vec<_>>().join("; ");
        let end = ask(&edge, &certificate, &fields, body).await;
        assert!(ends.contains(&end), "{shown} {body:?}: {end:?}");
        // What has begun before the fault was seen never looks whole.
        for request in upstream.received() {
            assert!(
                request.field("content-length").is_some() && request.body.is_empty(),
                "{shown}: {request:?}"
            );
        }
    }
}

/// RFC 9113 §7.
const PROTOCOL_ERROR: End = End::Error(1);

#[tokio::test]
async fn fields_of_a_connection_have_no_place_here() {
    let fields: [Field<'_>; 9] = [
        (b"connection", b"close"),
        (b"transfer-encoding", b"chunked"),
        (b"keep-alive", b"x"),
        (b"proxy-connection", b"x"),
        (b"upgrade", b"websocket"),
        (b"te", b"gzip"),
        (b"X-Upper", b"1"),
        (b"host:", b"a.example"),
        (b"a b", b"1"),
    ];
    refused(fields.into_iter().map(|field| (but(field), None)).collect(), &[PROTOCOL_ERROR]).await;
}

#[tokio::test]
async fn values_are_one_line() {
    let fields: [Field<'_>; 4] =
        [(b"x", b"a\r\nb: c"), (b"x", b"a\nb"), (b"x", b"a\0"), (b":path", b"/ HTTP/1.1\r\nx: ")];
    refused(
        fields.into_iter().map(|field| (but(field), None)).collect(),
        &[PROTOCOL_ERROR, End::Status(400)],
    )
    .await;
}

#[tokio::test]
async fn lengths_are_those_of_the_body() {
    let length = |value: &'static [u8]| but((b"content-length", value));
    let mut two = length(b"3");
    two.push((b"content-length", b"3"));
    let cases: Vec<(Vec<Field<'_>>, Option<&[u8]>)> = vec![
        (length(b"5"), None),
        (length(b"5"), Some(b"abc")),
        (length(b"2"), Some(b"abc")),
        (length(b"0"), Some(b"abc")),
        (length(b"3, 3"), Some(b"abc")),
        (length(b"+3"), Some(b"abc")),
        (length(b""), Some(b"abc")),
        (two, Some(b"abc")),
    ];
    refused(cases, &[PROTOCOL_ERROR, End::Status(400)]).await;
}

#[tokio::test]
async fn a_request_is_for_one_host() {
    let without_authority: Vec<Field<'_>> = vec![METHOD, SCHEME, PATH];
    let cases = [
        but((b"host", b"b.example")),
        but((b"host", b"")),
        [&HEAD[..], &[(b"host", b"a.example"), (b"host", b"a.example")]].concat(),
        without_authority.clone(),
        [&without_authority[..], &[(b"host", b"a b")]].concat(),
        but((b":authority", b"")),
        but((b":authority", b"a b")),
        but((b":authority", b"u@a.example")),
        but((b":authority", b"a.example:x")),
        but((b":authority", b"a.example/x")),
        [&HEAD[..], &[AUTHORITY]].concat(),
    ];
    refused(cases.into_iter().map(|fields| (fields, None)).collect(), &[PROTOCOL_ERROR, End::Status(400)])
        .await;
}

#[tokio::test]
async fn pseudo_fields_say_what_a_request_line_says() {
    let cases = [
        but((b":path", b"")),
        but((b":path", b"*")),
        but((b":path", b"x")),
        but((b":path", b"https://a.example/x")),
        but((b":path", b"/a b")),
        but((b":path", b"/\xc3\xa9")),
        but((b":path", b"/\xff")),
        but((b":path", b"/%zz")),
        but((b":scheme", b"ftp")),
        but((b":scheme", b"")),
        but((b":method", b"")),
        but((b":method", b"G T")),
        but((b":unknown", b"x")),
        but((b":status", b"200")),
        vec![METHOD, SCHEME, AUTHORITY],
        vec![METHOD, AUTHORITY, PATH],
        vec![SCHEME, AUTHORITY, PATH],
        vec![METHOD, SCHEME, AUTHORITY, (b"x", b"y"), PATH],
        [&HEAD[..], &[PATH]].concat(),
        [&HEAD[..], &[METHOD]].concat(),
    ];
    refused(cases.into_iter().map(|fields| (fields, None)).collect(), &[PROTOCOL_ERROR, End::Status(400)])
        .await;
    let methods =
        [but((b":method", b"TRACE")), vec![(b":method", b"CONNECT"), (b":authority", b"a.example:443")]];
    // 405 is not in the table.
    refused(methods.map(|fields| (fields, None)).into(), &[End::Status(0)]).await;
}

/// What is sent, and head and body as the upstream gets them.
type Passed<'a> = (Vec<Field<'a>>, Option<&'a [u8]>, String, &'a [u8]);

#[tokio::test]
async fn what_passes_is_written_anew() {
    let upstream = Upstream::start(|_| ok("")).await;
    let (config, certificate) = with_tls(to(&upstream));
    let edge = Running::start(config).await;
    let head = |line: &str, fields: &str| {
        format!(
            "{line}\r\n{fields}x-forwarded-for: 127.0.0.1\r\nx-forwarded-proto: https\r\n\
             x-forwarded-host: a.example\r\nforwarded: for=127.0.0.1;host=a.example;proto=https\r\n\r\n"
        )
    };
    let host = "host: a.example\r\n";
    let cases: Vec<Passed<'_>> = vec![
        (HEAD.to_vec(), None, head("GET /x HTTP/1.1", host), b""),
        (but((b"host", b"a.example")), None, head("GET /x HTTP/1.1", host), b""),
        (vec![METHOD, SCHEME, PATH, (b"host", b"a.example")], None, head("GET /x HTTP/1.1", host), b""),
        (but((b":scheme", b"http")), None, head("GET /x HTTP/1.1", host), b""),
        // The fragment is gone before we see the target.
        (but((b":path", b"/x?y#z")), None, head("GET /x?y HTTP/1.1", host), b""),
        (but((b":path", b"/a%2Fb//./?%zz")), None, head("GET /a%2Fb//./?%zz HTTP/1.1", host), b""),
        (but((b"x_under", b"1")), None, head("GET /x HTTP/1.1", host), b""),
        (but((b"te", b"trailers")), None, head("GET /x HTTP/1.1", host), b""),
        (but((b"x-forwarded-for", b"6.6.6.6")), None, head("GET /x HTTP/1.1", host), b""),
        (
            [&HEAD[..], &[(b"cookie", b"a=b"), (b"cookie", b"c=d")]].concat(),
            None,
            head("GET /x HTTP/1.1", &format!("cookie: a=b; c=d\r\n{host}")),
            b"",
        ),
        (
            but((b"content-length", b"3")),
            Some(b"abc"),
            head("GET /x HTTP/1.1", &format!("content-length: 3\r\n{host}")),
            b"abc",
        ),
        (
            HEAD.to_vec(),
            Some(b"abc"),
            head("GET /x HTTP/1.1", &format!("transfer-encoding: chunked\r\n{host}")),
            b"3\r\nabc\r\n0\r\n\r\n",
        ),
    ];
    for (fields, body, expected, expected_body) in cases {
        let before = upstream.received().len();
        assert_eq!(ask(&edge, &certificate, &fields, body).await, End::Status(200), "{expected}");
        assert_eq!(upstream.received().len(), before + 1);
        let got = upstream.last();
        assert_eq!(sorted(&got.head.to_ascii_lowercase()), sorted(&expected.to_ascii_lowercase()));
        assert_eq!(got.line(), expected.lines().next().unwrap());
        assert_eq!(got.body, expected_body);
    }
}

fn sorted(head: &str) -> Vec<&str> {
    let mut lines: Vec<_> = head.split("\r\n").collect();
    lines.sort_unstable();
    lines
}

#[tokio::test]
async fn a_stream_that_is_refused_leaves_the_others_alone() {
    let upstream = Upstream::start(|_| ok("")).await;
    let (config, certificate) = with_tls(to(&upstream));
    let edge = Running::start(config).await;
    let mut stream = connect(&edge, &certificate, b"h2").await;
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    bytes.extend(frame(4, 0, 0, b""));
    bytes.extend(frame(1, 5, 1, &list(&but((b"connection", b"close")))));
    bytes.extend(frame(1, 5, 3, &list(&HEAD)));
    stream.write_all(&bytes).await.unwrap();
    let mut answered = false;
    while !answered {
        let mut head = [0; 9];
        tokio::time::timeout(Duration::from_secs(10), stream.read_exact(&mut head)).await.unwrap().unwrap();
        let mut payload = vec![0; usize::from(u16::from_be_bytes([head[1], head[2]]))];
        stream.read_exact(&mut payload).await.unwrap();
        answered = head[3] == 1 && head[8] == 3 && status(payload[0]) == 200;
        assert_ne!(head[3], 7, "GOAWAY");
    }
}
