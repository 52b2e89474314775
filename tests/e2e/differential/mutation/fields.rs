//! Header fields: names, values, folds and line ends.

use super::{Aspect, Mutation};
use crate::differential::message::Message;

/// Name, and lines that are added.
const LINES: &[(&str, &[u8])] = &[
    ("empty name", b": a"),
    ("no colon", b"X-Odd"),
    ("only space", b" "),
    ("folded", b"X-Odd: a\r\n b"),
    ("folded with a tab", b"X-Odd: a\r\n\tb"),
    ("folded to nothing", b"X-Odd: a\r\n "),
    ("space before the colon", b"X-Odd : a"),
    ("tab before the colon", b"X-Odd\t: a"),
    ("vertical tab before the colon", b"X-Odd\x0b: a"),
    ("space in the name", b"X Odd: a"),
    ("bracket in the name", b"X(Odd: a"),
    ("@ in the name", b"X@Odd: a"),
    ("quote in the name", b"X\"Odd: a"),
    ("slash in the name", b"X/Odd: a"),
    ("NUL in the name", b"X\0Odd: a"),
    ("control byte in the name", b"X\x01Odd: a"),
    ("DEL in the name", b"X\x7fOdd: a"),
    ("name not ASCII", b"X-\xc3\xa9: a"),
    ("NUL in the value", b"X-Odd: a\0b"),
    ("control byte in the value", b"X-Odd: a\x01b"),
    ("DEL in the value", b"X-Odd: a\x7fb"),
    ("vertical tab in the value", b"X-Odd: a\x0bb"),
    ("CR in the value", b"X-Odd: a\rb"),
    ("CR at the end of the value", b"X-Odd: a\r"),
    ("CR and a field in the value", b"X-Odd: a\rX-Injected: b"),
    ("LF behind the value", b"X-Odd: a\nX-Other: b"),
    ("LF in the name", b"X-\nOdd: a"),
    ("LF CR behind the value", b"X-Odd: a\n\rX-Other: b"),
    ("CR CR LF behind the value", b"X-Odd: a\r\r\nX-Other: b"),
    ("LF LF and a request", b"X-Odd: a\n\nGET /smuggled/ID HTTP/1.1\r\nHost: a.example\r\n"),
    ("CR CR and a request", b"X-Odd: a\r\rGET /smuggled/ID HTTP/1.1\r\rHost: a.example\r\r"),
];

/// Name, and a field that is legitimate and means what it says.
const LEGITIMATE: &[(&str, &str, &[u8])] = &[
    ("rare characters in the name", "X!#$%&'*+-.^`|~0", b"a"),
    ("underscore in the name", "X_Odd", b"a"),
    ("digit first", "1X", b"a"),
    ("empty value", "X-Odd", b""),
    ("tab in the value", "X-Odd", b"a\tb"),
    ("value in UTF-8", "X-Odd", b"\xc3\xa9"),
    ("value in Latin-1", "X-Odd", b"\xe9\xff"),
    ("colon in the value", "X-Odd", b": a: b"),
    ("quoted string", "X-Odd", b"\"a\\\"b\""),
    ("Max-Forwards", "Max-Forwards", b"0"),
    ("X-HTTP-Method-Override", "X-HTTP-Method-Override", b"DELETE"),
    ("looks like a request", "X-Odd", b"GET /smuggled/ID HTTP/1.1"),
];

pub(super) fn all() -> Vec<Mutation> {
    let mut all = Vec::new();
    for &(name, line) in LINES {
        all.push(field(name, move |message| {
            if line.ends_with(b"\n") || line.ends_with(b"\r") {
                // Nothing but the inner request comes behind an end of the head.
                message.set_no_body();
            }
            let id = message.id.to_string();
            message.add_line(&replace(line, b"ID", id.as_bytes()));
        }));
    }
    for &(name, key, value) in LEGITIMATE {
        all.push(field(name, move |message| {
            message.add_line(&[key.as_bytes(), b": ", value].concat());
            message.meaning.fields.push((key.to_ascii_lowercase(), value.to_vec()));
        }));
    }
    all.push(field("first line folded", |message| message.host.insert(0, b" X-Odd: a".to_vec())));
    all.push(field("same name twice", |message| {
        for value in ["a", "b"] {
            message.add_line(format!("X-Twice: {value}").as_bytes());
            message.meaning.fields.push(("x-twice".to_owned(), value.into()));
        }
    }));
    all.push(field("eighty of them", |message| {
        for number in 0..80 {
            message.add_line(format!("X-Many-{number}: a").as_bytes());
            message.meaning.fields.push((format!("x-many-{number}"), b"a".to_vec()));
        }
    }));
    all.push(field("three hundred of them", |message| {
        for number in 0..300 {
            message.add_line(format!("X-Many-{number}: a").as_bytes());
            message.meaning.fields.push((format!("x-many-{number}"), b"a".to_vec()));
        }
    }));
    all.push(field("of 40 kB", |message| {
        message.add_line(format!("X-Long: {}", "a".repeat(40_000)).as_bytes());
        message.meaning.fields.push(("x-long".to_owned(), vec![b'a'; 40_000]));
    }));
    all.push(field("every line ends with LF", |message| {
        message.end = b"\n";
        message.blank = b"\n".to_vec();
    }));
    all.push(field("lines end with LF, the head with CRLF", |message| message.end = b"\n"));
    all.push(field("the head ends with LF", |message| message.blank = b"\n".to_vec()));
    all.push(field("the head ends with CR", |message| message.blank = b"\r".to_vec()));
    all.push(field("the head ends with space and CRLF", |message| message.blank = b" \r\n".to_vec()));
    all.push(field("the head ends with CR CR LF", |message| message.blank = b"\r\r\n".to_vec()));
    all.push(field("every line ends with CR", |message| {
        message.end = b"\r";
        message.blank = b"\r".to_vec();
    }));
    all.push(field("every line ends with CR CR LF", |message| message.end = b"\r\r\n"));
    all
}

/// As `str::replace`, once.
fn replace(text: &[u8], what: &[u8], with: &[u8]) -> Vec<u8> {
    match text.windows(what.len()).position(|window| window == what) {
        Some(at) => [&text[..at], with, &text[at + what.len()..]].concat(),
        None => text.to_vec(),
    }
}

fn field(name: &str, change: impl Fn(&mut Message) + Send + Sync + 'static) -> Mutation {
    Mutation::new(Aspect::Fields, format!("field {name}"), move |message, _| change(message))
}
