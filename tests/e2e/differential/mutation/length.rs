//! `Content-Length` that can be read in more than one way.

use super::{Aspect, Mutation};
use crate::differential::message::Message;

/// Name, and the lines for a length, which stands at each `{}`.
const FORMS: &[(&str, &[&str])] = &[
    ("plus sign", &["Content-Length: +{}"]),
    ("minus sign", &["Content-Length: -{}"]),
    ("hexadecimal", &["Content-Length: 0x{}"]),
    ("fraction", &["Content-Length: {}.0"]),
    ("exponent", &["Content-Length: {}e0"]),
    ("letter behind", &["Content-Length: {}a"]),
    ("semicolon behind", &["Content-Length: {};"]),
    ("quoted", &["Content-Length: \"{}\""]),
    ("space inside", &["Content-Length: {} 0"]),
    ("list of equals", &["Content-Length: {}, {}"]),
    ("list of different", &["Content-Length: {}, 1"]),
    ("comma behind", &["Content-Length: {},"]),
    ("comma before", &["Content-Length: ,{}"]),
    ("twice", &["Content-Length: {}", "Content-Length: {}"]),
    ("twice, in mixed case", &["Content-Length: {}", "cONTENT-lENGTH: {}"]),
    ("twice, 0 behind", &["Content-Length: {}", "Content-Length: 0"]),
    ("twice, 0 first", &["Content-Length: 0", "Content-Length: {}"]),
    ("twice, empty first", &["Content-Length:", "Content-Length: {}"]),
    ("vertical tab before the value", &["Content-Length:\u{b}{}"]),
    ("vertical tab behind the value", &["Content-Length: {}\u{b}"]),
    ("NUL behind the value", &["Content-Length: {}\0"]),
    ("CR behind the value", &["Content-Length: {}\r"]),
    ("CR and 0 behind the value", &["Content-Length: {}\r0"]),
    ("LF before the value", &["Content-Length:\n{}"]),
    ("folded", &["Content-Length:\r\n {}"]),
    ("folded behind a digit", &["Content-Length: 1\r\n {}"]),
    ("folded into the field before", &["X-Before: a", " Content-Length: {}"]),
    ("space before the colon", &["Content-Length : {}"]),
    ("tab before the colon", &["Content-Length\t: {}"]),
    ("vertical tab before the colon", &["Content-Length\u{b}: {}"]),
    ("NUL before the colon", &["Content-Length\0: {}"]),
    ("CR before the colon", &["Content-Length\r: {}"]),
    ("no colon", &["Content-Length {}"]),
    ("space in the name", &["Content Length: {}"]),
    ("behind a bare CR", &["X-Before: a\rContent-Length: {}"]),
    ("behind a bare LF", &["X-Before: a\nContent-Length: {}"]),
    ("beyond 64 bits", &["Content-Length: 18446744073709551616{}"]),
    ("beyond 63 bits", &["Content-Length: 9223372036854775808"]),
    ("wrapped around", &["Content-Length: 18446744073709551621"]),
    ("digits of another script", &["Content-Length: \u{665}{}"]),
];

pub(super) fn all() -> Vec<Mutation> {
    let mut all = Vec::new();
    for &(name, lines) in FORMS {
        all.push(framing(format!("CL {name}, short"), move |message| {
            let body = [&b"hello"[..], &message.inner()].concat();
            set(message, lines, 5, &body);
        }));
        all.push(framing(format!("CL {name}, whole"), move |message| {
            let body = message.inner();
            set(message, lines, body.len(), &body);
        }));
    }
    all.push(framing("CL empty".to_owned(), |message| {
        let body = message.inner();
        set(message, &["Content-Length:"], 0, &body);
    }));
    all.push(framing("CL underscore".to_owned(), |message| {
        message.set_raw(&[b"Content_Length: 5"], b"", b"");
    }));
    all.push(framing("CL leading zeros".to_owned(), |message| {
        set(message, &["Content-Length: 000{}"], 5, b"hello")
    }));
    all.push(framing("CL white space around".to_owned(), |message| {
        set(message, &["Content-Length:\t {} \t"], 5, b"hello");
    }));
    all.push(framing("CL in HTTP/1.0".to_owned(), |message| {
        set(message, &["Content-Length: {}"], 5, b"hello");
        message.version = b"HTTP/1.0".to_vec();
    }));
    all.push(framing("CL in HTTP/1.0, kept alive".to_owned(), |message| {
        set(message, &["Content-Length: {}", "Connection: keep-alive"], 5, b"hello");
        message.version = b"HTTP/1.0".to_vec();
    }));
    all
}

fn framing(name: String, change: impl Fn(&mut Message) + Send + Sync + 'static) -> Mutation {
    Mutation::new(Aspect::Framing, name, move |message, _| change(message))
}

fn set(message: &mut Message, lines: &[&str], length: usize, body: &[u8]) {
    let lines: Vec<String> = lines.iter().map(|line| line.replace("{}", &length.to_string())).collect();
    let lines: Vec<&[u8]> = lines.iter().map(String::as_bytes).collect();
    let meant = body[..length.min(body.len())].to_vec();
    message.set_raw(&lines, body, &meant);
}
