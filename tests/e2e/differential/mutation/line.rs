//! Request lines: their spaces, methods, targets and versions.

use super::{Aspect, Mutation};
use crate::differential::message::Message;

/// Name, and the line, all without a body.
const LINES: &[(&str, &str)] = &[
    ("two spaces before the target", "METHOD  TARGET HTTP/1.1"),
    ("two spaces behind the target", "METHOD TARGET  HTTP/1.1"),
    ("tab before the target", "METHOD\tTARGET HTTP/1.1"),
    ("tab behind the target", "METHOD TARGET\tHTTP/1.1"),
    ("space at the end", "METHOD TARGET HTTP/1.1 "),
    ("space at the start", " METHOD TARGET HTTP/1.1"),
    ("vertical tab at the end", "METHOD TARGET HTTP/1.1\u{b}"),
    ("CR at the end", "METHOD TARGET HTTP/1.1\r"),
    ("fourth word", "METHOD TARGET HTTP/1.1 HTTP/1.1"),
    ("version before the target", "METHOD HTTP/1.1 TARGET"),
    ("no version", "METHOD TARGET"),
    ("no version, space at the end", "METHOD TARGET "),
    ("no target", "METHOD HTTP/1.1"),
    ("only a word", "METHOD"),
    ("version 0.9", "METHOD TARGET HTTP/0.9"),
    ("version 1.2", "METHOD TARGET HTTP/1.2"),
    ("version 1.10", "METHOD TARGET HTTP/1.10"),
    ("version 1", "METHOD TARGET HTTP/1"),
    ("version 01.1", "METHOD TARGET HTTP/01.1"),
    ("version 2.0", "METHOD TARGET HTTP/2.0"),
    ("version 3.0", "METHOD TARGET HTTP/3.0"),
    ("version in lower case", "METHOD TARGET http/1.1"),
    ("version with a space inside", "METHOD TARGET HTTP/ 1.1"),
    ("another protocol", "METHOD TARGET ICAP/1.1"),
    ("method in lower case", "get TARGET HTTP/1.1"),
    ("method of rare characters", "!#$%&'*+-.^_`|~ TARGET HTTP/1.1"),
    ("method with a dash", "M-SEARCH TARGET HTTP/1.1"),
    ("method with a bracket", "GE(T TARGET HTTP/1.1"),
    ("method with NUL", "GE\0T TARGET HTTP/1.1"),
    ("method not ASCII", "GET\u{e9} TARGET HTTP/1.1"),
    ("method of a hundred letters", "LONG TARGET HTTP/1.1"),
    ("TRACE", "TRACE TARGET HTTP/1.1"),
    ("CONNECT to a path", "CONNECT TARGET HTTP/1.1"),
    ("CONNECT to a host", "CONNECT a.example:8443 HTTP/1.1"),
    ("OPTIONS *", "OPTIONS * HTTP/1.1"),
    ("GET *", "GET * HTTP/1.1"),
    ("target without slash", "METHOD case HTTP/1.1"),
    ("target is a host", "METHOD a.example:80 HTTP/1.1"),
    ("target is a query", "METHOD ?a=b HTTP/1.1"),
    ("target with fragment", "METHOD TARGET#fragment HTTP/1.1"),
    ("target with space", "METHOD TARGET/a b HTTP/1.1"),
    ("target with space and version", "METHOD TARGET HTTP/1.1 /smuggled/ID HTTP/1.1"),
    ("target with tab", "METHOD TARGET/a\tb HTTP/1.1"),
    ("target with NUL", "METHOD TARGET/a\0b HTTP/1.1"),
    ("target with control byte", "METHOD TARGET/a\u{1}b HTTP/1.1"),
    ("target with DEL", "METHOD TARGET/a\u{7f}b HTTP/1.1"),
    ("target with CR", "METHOD TARGET/a\rb HTTP/1.1"),
    ("target with LF", "METHOD TARGET/a\nb HTTP/1.1"),
    ("target in UTF-8", "METHOD TARGET/\u{e9} HTTP/1.1"),
    ("target with characters outside the grammar", "METHOD TARGET/a\"<>^`{|}b HTTP/1.1"),
    ("target with backslash", "METHOD TARGET/a\\b HTTP/1.1"),
    ("target with lone %", "METHOD TARGET/% HTTP/1.1"),
    ("target with %zz", "METHOD TARGET/%zz HTTP/1.1"),
    ("query with lone %", "METHOD /case/ID?a=% HTTP/1.1"),
    ("target with %00", "METHOD TARGET/%00 HTTP/1.1"),
    ("target with %0d%0a", "METHOD TARGET/%0d%0aX:%20y HTTP/1.1"),
    ("target with two slashes", "METHOD //case/ID//a HTTP/1.1"),
    ("target with dot segments", "METHOD /case/ID/a/../b/./c HTTP/1.1"),
    ("target above the root", "METHOD /../case/ID HTTP/1.1"),
    ("target with encoded dot segments", "METHOD /case/ID/a/%2e%2E/b HTTP/1.1"),
    ("target with encoded slash", "METHOD /case/ID/a%2Fb%2f HTTP/1.1"),
    ("target of 40 kB", "METHOD TARGET/HUGE HTTP/1.1"),
    ("preface of HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nMETHOD TARGET HTTP/1.1"),
];

pub(super) fn all() -> Vec<Mutation> {
    let mut all: Vec<Mutation> = LINES.iter().map(of_line).collect();
    let before =
        |name: &str, bytes: &'static [u8]| line(name, move |message| message.before = bytes.to_vec());
    all.push(before("CRLF before", b"\r\n"));
    all.push(before("three CRLF before", b"\r\n\r\n\r\n"));
    all.push(before("LF before", b"\n"));
    all.push(before("CR before", b"\r"));
    all.push(before("NUL before", b"\0"));
    all.push(before("BOM before", b"\xef\xbb\xbf"));
    all.push(line("HTTP/1.0", old));
    all.push(line("HTTP/1.0, kept alive", |message| {
        old(message);
        message.add_line(b"Connection: keep-alive");
    }));
    all.push(line("HTTP/1.0 without Host", |message| {
        old(message);
        message.host.clear();
    }));
    all.push(line("HTTP/0.9", |message| {
        message.set_no_body();
        message.line = Some(format!("GET /case/{}", message.id).into_bytes());
        (message.host, message.fields, message.blank) = (Vec::new(), Vec::new(), Vec::new());
    }));
    all
}

fn line(name: &str, change: impl Fn(&mut Message) + Send + Sync + 'static) -> Mutation {
    Mutation::new(Aspect::Line, format!("line {name}"), move |message, _| change(message))
}

/// A chunked body would not be honest there.
fn old(message: &mut Message) {
    message.set_no_body();
    message.set_method("GET");
    message.version = b"HTTP/1.0".to_vec();
}

fn of_line(&(name, text): &(&'static str, &'static str)) -> Mutation {
    line(name, move |message| {
        message.set_no_body();
        message.set_method("GET");
        message.meaning.target = format!("/case/{}", message.id).into_bytes();
        let text = text
            .replace("METHOD", "GET")
            .replace("TARGET", "/case/ID")
            .replace("HUGE", &"x".repeat(40_000))
            .replace("LONG", &"M".repeat(100))
            .replace("ID", &message.id.to_string());
        // What the words say, when each is taken as it is.
        let words: Vec<&str> = text.split(' ').collect();
        if let [method, target, "HTTP/1.1"] = words[..] {
            message.meaning.method = method.to_owned();
            message.meaning.target = target.as_bytes().to_vec();
        }
        message.line = Some(text.into_bytes());
        if name == "CONNECT to a host" {
            message.host = vec![b"Host: a.example:8443".to_vec()];
            message.meaning.host = "a.example:8443".to_owned();
        }
    })
}
