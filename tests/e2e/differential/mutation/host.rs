//! Who is asked: `Host`, and targets that name a host.

use super::{Aspect, Mutation};
use crate::differential::message::Message;

/// Name, and the lines instead of `Host`.
const HOSTS: &[(&str, &[&[u8]])] = &[
    ("missing", &[]),
    ("empty", &[b"Host:"]),
    ("twice", &[b"Host: a.example", b"Host: a.example"]),
    ("two", &[b"Host: a.example", b"host: b.example"]),
    ("empty and one", &[b"Host:", b"Host: a.example"]),
    ("list", &[b"Host: a.example, b.example"]),
    ("with space", &[b"Host: a.example b.example"]),
    ("with tab", &[b"Host: a.example\tb.example"]),
    ("with NUL", &[b"Host: a.example\0b"]),
    ("with CR", &[b"Host: a.example\rX-Injected: b"]),
    ("with LF", &[b"Host: a.example\nX-Injected: b"]),
    ("with user", &[b"Host: user@a.example"]),
    ("with path", &[b"Host: a.example/b"]),
    ("with query", &[b"Host: a.example?b"]),
    ("with fragment", &[b"Host: a.example#b"]),
    ("with scheme", &[b"Host: http://a.example"]),
    ("with backslash", &[b"Host: a.example\\b"]),
    ("with %", &[b"Host: a%2eexample"]),
    ("with comma", &[b"Host: a,b"]),
    ("with semicolon", &[b"Host: a;b"]),
    ("with bracket", &[b"Host: a(b"]),
    ("with underscore", &[b"Host: a_b.example"]),
    ("not ASCII", &[b"Host: \xc3\xa9.example"]),
    ("with final dot", &[b"Host: a.example."]),
    ("only a dot", &[b"Host: ."]),
    ("two dots", &[b"Host: a..example"]),
    ("empty port", &[b"Host: a.example:"]),
    ("port 0", &[b"Host: a.example:0"]),
    ("port 65536", &[b"Host: a.example:65536"]),
    ("port of letters", &[b"Host: a.example:http"]),
    ("negative port", &[b"Host: a.example:-1"]),
    ("two ports", &[b"Host: a.example:80:81"]),
    ("only a port", &[b"Host: :80"]),
    ("IPv6 without bracket", &[b"Host: ::1"]),
    ("IPv6 without end", &[b"Host: [::1"]),
    ("IPv6 wrong", &[b"Host: [::1::2]"]),
    ("IPv6 with zone", &[b"Host: [fe80::1%25eth0]"]),
    ("IPv6 with a name behind", &[b"Host: [::1]a"]),
    ("IPvFuture", &[b"Host: [v1.a]"]),
    ("folded", &[b"Host:\r\n a.example"]),
    ("folded behind a name", &[b"Host: a.example\r\n b.example"]),
    ("space before the name", &[b" Host: a.example"]),
    ("space before the colon", &[b"Host : a.example"]),
    ("space before the colon, twice", &[b"Host: a.example", b"Host : b.example"]),
    ("and X-Forwarded-Host", &[b"Host: a.example", b"X-Forwarded-Host: evil.example"]),
];

/// Name, target and `Host`; `PATH` is the honest target.
const ABSOLUTE: &[(&str, &str, &str)] = &[
    ("same host", "http://a.example/PATH", "a.example"),
    ("same host, https", "https://a.example/PATH", "a.example"),
    ("scheme in upper case", "HTTP://a.example/PATH", "a.example"),
    ("same host in another case", "http://A.example/PATH", "a.example"),
    ("another host", "http://b.example/PATH", "a.example"),
    ("another port", "http://a.example:81/PATH", "a.example"),
    ("standard port", "http://a.example:80/PATH", "a.example"),
    ("with user", "http://user@a.example/PATH", "a.example"),
    ("no path", "http://a.example", "a.example"),
    ("query without path", "http://a.example?b", "a.example"),
    ("no host", "http:///PATH", "a.example"),
    ("one slash", "http:/PATH", "a.example"),
    ("another scheme", "ftp://a.example/PATH", "a.example"),
    ("no scheme", "//a.example/PATH", "a.example"),
    ("space in the host", "http://a.example b/PATH", "a.example"),
];

pub(super) fn all() -> Vec<Mutation> {
    let mut all = Vec::new();
    for &(name, lines) in HOSTS {
        all.push(host(name, move |message| {
            message.host = lines.iter().map(|line| line.to_vec()).collect();
            if let Some(value) = lines.iter().find_map(|line| line.strip_prefix(b"Host: ")) {
                message.meaning.host = String::from_utf8_lossy(value).into_owned();
            } else if name == "folded" {
                message.meaning.host = "a.example".to_owned();
            }
        }));
    }
    for &(name, target, value) in ABSOLUTE {
        all.push(host(&format!("absolute target, {name}"), move |message| {
            let path = format!("case/{}", message.id);
            let target = target.replace("PATH", &path);
            message.target = target.into_bytes();
            message.meaning.target = format!("/{path}").into_bytes();
            message.host = vec![format!("Host: {value}").into_bytes()];
            message.meaning.host = value.to_owned();
        }));
    }
    all.push(host("of a kilobyte", |message| {
        message.meaning.host = "a".repeat(1024);
        message.host = vec![format!("Host: {}", message.meaning.host).into_bytes()];
    }));
    all.push(host("absolute target without Host", |message| {
        message.target = format!("http://a.example/case/{}", message.id).into_bytes();
        message.meaning.target = format!("/case/{}", message.id).into_bytes();
        message.host.clear();
        message.meaning.host = "a.example".to_owned();
    }));
    all
}

fn host(name: &str, change: impl Fn(&mut Message) + Send + Sync + 'static) -> Mutation {
    Mutation::new(Aspect::Host, format!("Host {name}"), move |message, _| change(message))
}
