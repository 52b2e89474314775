//! What is said about the connection: nominated fields, upgrades, expectations.

use super::{Aspect, Mutation};
use crate::differential::message::Message;

/// Name, and lines that are added.
const LINES: &[(&str, &[&[u8]])] = &[
    ("close", &[b"Connection: close"]),
    ("keep-alive", &[b"Connection: keep-alive", b"Keep-Alive: timeout=5"]),
    ("close, keep-alive", &[b"Connection: close, keep-alive"]),
    ("keep-alive and close", &[b"Connection: keep-alive", b"Connection: close"]),
    ("nominates Content-Length", &[b"Connection: Content-Length"]),
    ("nominates Transfer-Encoding", &[b"Connection: Transfer-Encoding"]),
    ("nominates Host", &[b"Connection: Host"]),
    ("nominates X-Forwarded-For", &[b"Connection: X-Forwarded-For"]),
    ("nominates a field", &[b"Connection: X-Nominated", b"X-Nominated: a"]),
    ("nominates many", &[b"Connection: a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p, q, r, s, t"]),
    ("nominates nonsense", &[b"Connection: ,,(,"]),
    ("Proxy-Connection", &[b"Proxy-Connection: keep-alive"]),
    ("TE: trailers", &[b"TE: trailers"]),
    ("TE: chunked", &[b"TE: chunked"]),
    ("Trailer", &[b"Trailer: Content-Length"]),
    ("Proxy", &[b"Proxy: http://evil.example/"]),
    ("Proxy-Authorization", &[b"Proxy-Authorization: Basic eDp5"]),
    ("X-Forwarded-For", &[b"X-Forwarded-For: 192.0.2.1"]),
    ("Expect: 100-continue", &[b"Expect: 100-continue"]),
    ("Expect: 100-Continue", &[b"Expect: 100-Continue"]),
    ("Expect: nonsense", &[b"Expect: a miracle"]),
    ("Expect twice", &[b"Expect: 100-continue", b"Expect: 100-continue"]),
];

/// The same, for requests without a body.
const UPGRADES: &[(&str, &[&[u8]])] = &[
    (
        "Upgrade: h2c",
        &[b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AAMAAABkAAQAAP__"],
    ),
    ("Upgrade: h2c, not nominated", &[b"Upgrade: h2c", b"HTTP2-Settings: AAMAAABkAAQAAP__"]),
    ("Upgrade: TLS", &[b"Connection: Upgrade", b"Upgrade: TLS/1.0"]),
    ("Upgrade: nonsense", &[b"Connection: Upgrade", b"Upgrade: (,"]),
];

const WEBSOCKET: &[&[u8]] = &[
    b"Connection: Upgrade",
    b"Upgrade: websocket",
    b"Sec-WebSocket-Version: 13",
    b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
];

pub(super) fn all() -> Vec<Mutation> {
    let mut all = Vec::new();
    for &(name, lines) in LINES {
        all.push(connection(name, move |message| add(message, lines)));
    }
    for &(name, lines) in UPGRADES {
        all.push(connection(name, move |message| {
            message.set_no_body();
            message.set_method("GET");
            add(message, lines);
        }));
    }
    all.push(connection("Upgrade: websocket", |message| {
        message.set_no_body();
        message.set_method("GET");
        websocket(message);
    }));
    all.push(connection("Upgrade: websocket with a body", |message| {
        let inner = message.inner();
        message.set_length(&inner);
        message.set_method("GET");
        websocket(message);
    }));
    all.push(connection("Upgrade: websocket with a chunked body", |message| {
        message.set_raw(&[b"Transfer-Encoding: chunked"], b"5\r\nhello\r\n0\r\n\r\n", b"hello");
        websocket(message);
    }));
    all.push(connection("Expect with GET", |message| {
        message.set_no_body();
        message.set_method("GET");
        add(message, &[b"Expect: 100-continue"]);
    }));
    all.push(connection("Expect in HTTP/1.0", |message| {
        message.set_raw(&[b"Content-Length: 5"], b"hello", b"hello");
        message.version = b"HTTP/1.0".to_vec();
        add(message, &[b"Expect: 100-continue"]);
    }));
    all
}

/// An upgrade that is forwarded as one; the upstream here does not take it.
fn websocket(message: &mut Message) {
    add(message, WEBSOCKET);
    for (name, value) in [
        ("upgrade", "websocket"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", "AAAAAAAAAAAAAAAAAAAAAA=="),
    ] {
        message.meaning.fields.push((name.to_owned(), value.into()));
    }
}

/// Fields of the connection mean nothing behind the proxy: they are no part of the meaning.
fn add(message: &mut Message, lines: &[&[u8]]) {
    for line in lines {
        message.add_line(line);
    }
}

fn connection(name: &str, change: impl Fn(&mut Message) + Send + Sync + 'static) -> Mutation {
    Mutation::new(Aspect::Connection, format!("connection {name}"), move |message, _| change(message))
}
