//! `Transfer-Encoding` in disguise: whoever sees through it and whoever does not find different ends of the body.

use super::{Aspect, Mutation};
use crate::differential::message::Message;

/// Name and lines.
const DISGUISES: &[(&str, &[&[u8]])] = &[
    ("chunked", &[b"Transfer-Encoding: chunked"]),
    ("in mixed case", &[b"tRANSFER-eNCODING: cHUNKED"]),
    ("without space", &[b"Transfer-Encoding:chunked"]),
    ("white space around the value", &[b"Transfer-Encoding: \t chunked \t"]),
    ("xchunked", &[b"Transfer-Encoding: xchunked"]),
    ("chunked-x", &[b"Transfer-Encoding: chunked-x"]),
    ("chunk", &[b"Transfer-Encoding: chunk"]),
    ("identity", &[b"Transfer-Encoding: identity"]),
    ("chunked, identity", &[b"Transfer-Encoding: chunked, identity"]),
    ("identity, chunked", &[b"Transfer-Encoding: identity, chunked"]),
    ("gzip, chunked", &[b"Transfer-Encoding: gzip, chunked"]),
    ("chunked, chunked", &[b"Transfer-Encoding: chunked, chunked"]),
    ("comma behind", &[b"Transfer-Encoding: chunked,"]),
    ("comma before", &[b"Transfer-Encoding: , chunked"]),
    ("parameter", &[b"Transfer-Encoding: chunked;q=1"]),
    ("quoted", &[b"Transfer-Encoding: \"chunked\""]),
    ("in single quotes", &[b"Transfer-Encoding: 'chunked'"]),
    ("empty value", &[b"Transfer-Encoding:"]),
    ("second colon", &[b"Transfer-Encoding:: chunked"]),
    ("vertical tab before the value", &[b"Transfer-Encoding:\x0bchunked"]),
    ("vertical tab behind the value", &[b"Transfer-Encoding: chunked\x0b"]),
    ("form feed before the value", &[b"Transfer-Encoding:\x0cchunked"]),
    ("NUL before the value", &[b"Transfer-Encoding:\0chunked"]),
    ("NUL behind the value", &[b"Transfer-Encoding: chunked\0"]),
    ("byte 0xA0 before the value", &[b"Transfer-Encoding: \xa0chunked"]),
    ("byte 0xFF behind the value", &[b"Transfer-Encoding: chunked\xff"]),
    ("CR before the value", &[b"Transfer-Encoding:\rchunked"]),
    ("CR behind the value", &[b"Transfer-Encoding: chunked\r"]),
    ("LF before the value", &[b"Transfer-Encoding:\nchunked"]),
    ("folded", &[b"Transfer-Encoding:\r\n chunked"]),
    ("folded with a tab", &[b"Transfer-Encoding:\r\n\tchunked"]),
    ("folded, chunked first", &[b"Transfer-Encoding: chunked\r\n , identity"]),
    ("folded into the field before", &[b"X-Before: a", b" Transfer-Encoding: chunked"]),
    ("space before the colon", &[b"Transfer-Encoding : chunked"]),
    ("tab before the colon", &[b"Transfer-Encoding\t: chunked"]),
    ("vertical tab before the colon", &[b"Transfer-Encoding\x0b: chunked"]),
    ("NUL before the colon", &[b"Transfer-Encoding\0: chunked"]),
    ("CR before the colon", &[b"Transfer-Encoding\r: chunked"]),
    ("underscore", &[b"Transfer_Encoding: chunked"]),
    ("space in the name", &[b"Transfer Encoding: chunked"]),
    ("no colon", &[b"Transfer-Encoding chunked"]),
    ("byte 0xFF before the name", &[b"\xffTransfer-Encoding: chunked"]),
    ("behind a bare CR", &[b"X-Before: a\rTransfer-Encoding: chunked"]),
    ("behind a bare LF", &[b"X-Before: a\nTransfer-Encoding: chunked"]),
    ("behind NUL and LF", &[b"X-Before: a\0\nTransfer-Encoding: chunked"]),
    ("twice", &[b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"]),
    ("chunked and identity", &[b"Transfer-Encoding: chunked", b"Transfer-Encoding: identity"]),
    ("identity and chunked", &[b"Transfer-Encoding: identity", b"Transfer-Encoding: chunked"]),
    ("cow and chunked", &[b"Transfer-Encoding: cow", b"transfer-encoding: chunked"]),
];

pub(super) fn all() -> Vec<Mutation> {
    let mut all = Vec::new();
    for &(name, lines) in DISGUISES {
        all.push(mutation(format!("TE {name}, alone"), move |message| alone(message, lines)));
        all.push(mutation(format!("TE {name}, CL.TE"), move |message| length_first(message, lines)));
        // An underscored name is another field to everybody: there the inner request is an honest one behind a body of 4 bytes.
        if name != "underscore" {
            all.push(mutation(format!("TE {name}, TE.CL"), move |message| coding_first(message, lines)));
        }
    }
    let version = |message: &mut Message| message.version = b"HTTP/1.0".to_vec();
    let chunked: &[&[u8]] = &[b"Transfer-Encoding: chunked"];
    all.push(mutation("TE in HTTP/1.0, alone".to_owned(), move |message| {
        alone(message, chunked);
        version(message);
    }));
    all.push(mutation("TE in HTTP/1.0, CL.TE".to_owned(), move |message| {
        length_first(message, chunked);
        version(message);
    }));
    all.push(mutation("TE in HTTP/1.0, TE.CL".to_owned(), move |message| {
        coding_first(message, chunked);
        version(message);
    }));
    all
}

fn mutation(name: String, change: impl Fn(&mut Message) + Send + Sync + 'static) -> Mutation {
    Mutation::new(Aspect::Framing, name, move |message, _| change(message))
}

/// No length beside it.
fn alone(message: &mut Message, lines: &[&[u8]]) {
    message.set_raw(lines, b"5\r\nhello\r\n0\r\n\r\n", b"hello");
}

/// The length covers everything, the last chunk comes before the inner request.
fn length_first(message: &mut Message, lines: &[&[u8]]) {
    let body = [&b"5\r\nhello\r\n0\r\n\r\n"[..], &message.inner()].concat();
    let length = format!("Content-Length: {}", body.len());
    let framing: Vec<&[u8]> = std::iter::once(length.as_bytes()).chain(lines.iter().copied()).collect();
    message.set_raw(&framing, &body, &body);
}

/// The length ends before the inner request, which is a chunk.
fn coding_first(message: &mut Message, lines: &[&[u8]]) {
    let inner = message.inner();
    let size = format!("{:x}\r\n", inner.len());
    let body = [size.as_bytes(), &inner, b"\r\n0\r\n\r\n"].concat();
    let length = format!("Content-Length: {}", size.len());
    let framing: Vec<&[u8]> = lines.iter().copied().chain([length.as_bytes()]).collect();
    message.set_raw(&framing, &body, &inner);
}
