//! Chunked bodies that are not, or not quite; behind each comes a request that must not become one.

use super::{Aspect, Mutation};

/// Name, and the body behind an honest head; `INNER` is the inner request, `SIZE` its length in hexadecimal.
const BODIES: &[(&str, &str)] = &[
    ("leading zeros", "0005\r\nhello\r\n0\r\n\r\n"),
    ("a hundred leading zeros", "ZEROS5\r\nhello\r\n0\r\n\r\n"),
    ("extension", "5;a=b\r\nhello\r\n0;c\r\n\r\n"),
    ("extension, quoted", "5;a=\"b;c\"\r\nhello\r\n0\r\n\r\n"),
    ("extension behind a space", "5 ;a=b\r\nhello\r\n0\r\n\r\n"),
    ("extension of a kilobyte", "5;LONG\r\nhello\r\n0\r\n\r\n"),
    ("extension with LF", "5;a\nb\r\nhello\r\n0\r\n\r\n"),
    ("extension with LF and a request", "5;\nhello\r\n0\r\n\r\nINNER"),
    ("extension with CR", "5;a\rb\r\nhello\r\n0\r\n\r\n"),
    ("extension with CRLF in quotes", "5;a=\"\r\nhello\r\n0\r\n\r\n\"\r\nINNER"),
    ("extension with NUL", "5;a\0b\r\nhello\r\n0\r\n\r\n"),
    ("0x", "0x5\r\nhello\r\n0\r\n\r\nINNER"),
    ("plus sign", "+5\r\nhello\r\n0\r\n\r\nINNER"),
    ("minus sign", "-5\r\nhello\r\n0\r\n\r\nINNER"),
    ("space before", " 5\r\nhello\r\n0\r\n\r\nINNER"),
    ("space behind", "5 \r\nhello\r\n0\r\n\r\n"),
    ("tab behind", "5\t\r\nhello\r\n0\r\n\r\n"),
    ("vertical tab behind", "5\u{b}\r\nhello\r\n0\r\n\r\nINNER"),
    ("letter behind", "5g\r\nhello\r\n0\r\n\r\nINNER"),
    ("no size", "\r\nhello\r\n0\r\n\r\nINNER"),
    ("no hexadecimal digit", "g\r\nhello\r\n0\r\n\r\nINNER"),
    ("underscore", "0_5\r\nhello\r\n0\r\n\r\nINNER"),
    ("beyond 64 bits", "10000000000000005\r\nhello\r\n0\r\n\r\nINNER"),
    ("beyond 32 bits", "100000005\r\nhello\r\n0\r\n\r\nINNER"),
    ("beyond 63 bits", "fffffffffffffff5\r\nhello\r\n0\r\n\r\nINNER"),
    ("LF behind the size", "5\nhello\r\n0\r\n\r\nINNER"),
    ("CR behind the size", "5\rhello\r\n0\r\n\r\nINNER"),
    ("CR and another byte behind the size", "5\rXhello\r\n0\r\n\r\nINNER"),
    ("LF CR behind the size", "5\n\rhello\r\n0\r\n\r\nINNER"),
    ("LF behind the data", "5\r\nhello\n0\r\n\r\nINNER"),
    ("CR behind the data", "5\r\nhello\r0\r\n\r\nINNER"),
    ("nothing behind the data", "5\r\nhello0\r\n\r\nINNER"),
    ("two other bytes behind the data", "5\r\nhelloXX0\r\n\r\nINNER"),
    ("size too small", "3\r\nhello\r\n0\r\n\r\nINNER"),
    ("size too large", "a\r\nhello\r\n0\r\n\r\nINNER"),
    ("size covers the last chunk", "SIZE\r\nINNER\r\n0\r\n\r\n"),
    ("only LF", "5\nhello\n0\n\nINNER"),
    ("LF behind the last size", "5\r\nhello\r\n0\n\r\nINNER"),
    ("LF at the end", "5\r\nhello\r\n0\r\n\nINNER"),
    ("CR at the end", "5\r\nhello\r\n0\r\n\rINNER"),
    ("no end", "5\r\nhello\r\n0\r\nINNER"),
    ("last chunk of many zeros", "5\r\nhello\r\n00000000000000000000\r\n\r\n"),
    ("last chunk with minus sign", "5\r\nhello\r\n-0\r\n\r\nINNER"),
    ("trailer", "5\r\nhello\r\n0\r\nX-Trailer: a\r\n\r\n"),
    ("trailer Content-Length", "5\r\nhello\r\n0\r\nContent-Length: 100\r\n\r\n"),
    ("trailer Transfer-Encoding", "5\r\nhello\r\n0\r\nTransfer-Encoding: chunked\r\n\r\n"),
    ("trailer Host", "5\r\nhello\r\n0\r\nHost: evil.example\r\n\r\n"),
    ("trailer X-Forwarded-For", "5\r\nhello\r\n0\r\nX-Forwarded-For: 192.0.2.1\r\n\r\n"),
    ("trailer without colon", "5\r\nhello\r\n0\r\nX-Trailer\r\n\r\nINNER"),
    ("trailer folded", "5\r\nhello\r\n0\r\nX-Trailer: a\r\n b\r\n\r\n"),
    ("trailer with LF", "5\r\nhello\r\n0\r\nX-Trailer: a\n\r\nINNER"),
    ("trailer with CR", "5\r\nhello\r\n0\r\nX-Trailer: a\rb\r\n\r\nINNER"),
    ("trailer with NUL", "5\r\nhello\r\n0\r\nX-Trailer: \0\r\n\r\nINNER"),
    ("trailer with space before the colon", "5\r\nhello\r\n0\r\nX-Trailer : a\r\n\r\nINNER"),
    ("trailer that is a request line", "5\r\nhello\r\n0\r\nGET /smuggled/ID HTTP/1.1\r\nHost: a\r\n\r\n"),
];

pub(super) fn all() -> Vec<Mutation> {
    let one = |&(name, body): &(&str, &'static str)| {
        Mutation::new(Aspect::Framing, format!("chunk {name}"), move |message, _| {
            let inner = String::from_utf8(message.inner()).unwrap();
            let bytes = body
                .replace("SIZE", &format!("{:x}", inner.len()))
                .replace("INNER", &inner)
                .replace("ZEROS", &"0".repeat(100))
                .replace("LONG", &"x".repeat(1024))
                .replace("ID", &message.id.to_string());
            let meant = if body.starts_with("SIZE") { inner.as_bytes() } else { b"hello" };
            message.set_raw(&[b"Transfer-Encoding: chunked"], bytes.as_bytes(), meant);
        })
    };
    BODIES.iter().map(one).collect()
}
