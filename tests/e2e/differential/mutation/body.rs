//! Bodies where nobody expects one, requests behind requests, and requests that end too early.

use super::{Aspect, Mutation};
use crate::differential::message::Message;
use crate::harness::Dice;

pub(super) fn all() -> Vec<Mutation> {
    vec![
        framing("body with GET", |message, _| with_inner(message, "GET")),
        framing("body with HEAD", |message, _| with_inner(message, "HEAD")),
        framing("body with OPTIONS", |message, _| with_inner(message, "OPTIONS")),
        framing("body with DELETE", |message, _| with_inner(message, "DELETE")),
        framing("chunked body with GET", |message, dice| {
            let inner = message.inner();
            message.set_chunked(&inner, dice);
            message.set_method("GET");
        }),
        framing("POST without a body", |message, _| {
            message.set_no_body();
            message.set_method("POST");
        }),
        framing("POST with length 0", |message, _| {
            message.set_method("POST");
            message.set_length(b"");
        }),
        framing("requests behind it", |message, dice| {
            // Without close or upgrade nobody may stop before the last one.
            for number in 0..dice.between(1, 3) {
                let second = format!("/second/{}/{number}", message.id);
                message.behind.extend(match dice.below(3) {
                    0 => format!("GET {second} HTTP/1.1\r\nHost: a.example\r\n\r\n"),
                    1 => format!("POST {second} HTTP/1.1\r\nHost: a.example\r\nContent-Length: 2\r\n\r\nhi"),
                    _ => format!(
                        "PUT {second} HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n"
                    ),
                }.into_bytes());
                message.meaning.most += 1;
            }
        }),
        framing("CRLF behind the body", |message, _| {
            message.set_method("POST");
            message.set_length(b"hello");
            message.behind = b"\r\n".to_vec();
        }),
        framing("end in the request line", |message, _| cut(message, 0.1)),
        framing("end in the fields", |message, _| cut(message, 0.9)),
        framing("end in a body with length", |message, _| {
            message.set_raw(&[b"Content-Length: 10"], b"hello", b"hello");
            message.half_close();
        }),
        framing("end in a chunk", |message, _| {
            message.set_raw(&[b"Transfer-Encoding: chunked"], b"a\r\nhello", b"hello");
            message.half_close();
        }),
        framing("end in a chunk size", |message, _| {
            message.set_raw(&[b"Transfer-Encoding: chunked"], b"5\r\nhello\r\n0", b"hello");
            message.half_close();
        }),
        framing("end before the last chunk", |message, _| {
            message.set_raw(&[b"Transfer-Encoding: chunked"], b"5\r\nhello\r\n", b"hello");
            message.half_close();
        }),
        framing("end before the last CRLF", |message, _| {
            message.set_raw(&[b"Transfer-Encoding: chunked"], b"5\r\nhello\r\n0\r\n", b"hello");
            message.half_close();
        }),
        framing("length longer than all that comes", |message, _| {
            message.set_raw(&[b"Content-Length: 100000"], b"hello", b"hello");
        }),
        framing("chunk longer than all that comes", |message, _| {
            message.set_raw(&[b"Transfer-Encoding: chunked"], b"10000\r\nhello", b"hello");
        }),
    ]
}

fn framing(name: &str, change: impl Fn(&mut Message, &mut Dice) + Send + Sync + 'static) -> Mutation {
    Mutation::new(Aspect::Framing, name, change)
}

/// A body that is a request, honestly framed (CL.0).
fn with_inner(message: &mut Message, method: &str) {
    let inner = message.inner();
    message.set_length(&inner);
    message.set_method(method);
}

/// Only the first part of the head.
fn cut(message: &mut Message, part: f64) {
    message.set_no_body();
    message.fields = vec![b"X-Filler: 0123456789012345678901234567890123456789".to_vec()];
    let head = message.head();
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a part of a small number")]
    let kept = (head.len() as f64 * part) as usize;
    message.before = head[..kept].to_vec();
    message.line = Some(Vec::new());
    (message.host, message.fields, message.end, message.blank) = (Vec::new(), Vec::new(), b"", Vec::new());
    message.half_close();
}
