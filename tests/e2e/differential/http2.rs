//! Requests over HTTP/2, spoiled where HTTP/1.1 behind the proxy could be misled.

use super::exchange::{Seen, Victim};
use super::message::Meaning;
use super::proxies::Lane;
use crate::harness::http2::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, HEADERS, Http2, PADDED, block, frame, get,
};

type Fields = Vec<(Vec<u8>, Vec<u8>)>;

/// One request as frames on stream 1.
pub(crate) struct Request {
    pub(crate) fields: Fields,
    pub(crate) body: Option<Vec<u8>>,
    trailers: Option<Fields>,
    /// Instead of HEADERS and DATA.
    frames: Option<Vec<u8>>,
    pub(crate) meaning: Meaning,
}

/// A name, and what is done to an honest request.
type Mutation = (&'static str, fn(&mut Request));

impl Request {
    /// An honest `GET`.
    pub(crate) fn honest(id: usize) -> Self {
        let path = format!("/case/{id}");
        let fields =
            [(":method", "GET"), (":scheme", "https"), (":authority", "a.example"), (":path", &path)];
        let meaning = Meaning {
            id,
            most: 1,
            method: "GET".to_owned(),
            target: path.clone().into_bytes(),
            host: "a.example".to_owned(),
            ..Meaning::default()
        };
        let fields = fields.iter().map(|(name, value)| (name.as_bytes().to_vec(), value.as_bytes().to_vec()));
        Self { fields: fields.collect(), body: None, trailers: None, frames: None, meaning }
    }

    fn inner(&self) -> Vec<u8> {
        format!("GET /smuggled/{} HTTP/1.1\r\nHost: inner.example\r\n\r\n", self.meaning.id).into_bytes()
    }

    fn smuggled(&self) -> Vec<u8> {
        format!("/smuggled/{}", self.meaning.id).into_bytes()
    }

    fn add(&mut self, name: &[u8], value: &[u8]) {
        self.fields.push((name.to_vec(), value.to_vec()));
    }

    /// Adds a field that means what it says.
    fn say(&mut self, name: &str, value: &[u8]) {
        self.add(name.as_bytes(), value);
        self.meaning.fields.push((name.to_owned(), value.to_vec()));
    }

    fn set(&mut self, name: &str, value: &[u8]) {
        for field in self.fields.iter_mut().filter(|field| field.0 == name.as_bytes()) {
            field.1 = value.to_vec();
        }
    }

    fn set_path(&mut self, behind: &str) {
        let path = format!("/case/{}{behind}", self.meaning.id).into_bytes();
        self.set(":path", &path);
        self.meaning.target = path;
    }

    fn set_authority(&mut self, authority: &str) {
        self.set(":authority", authority.as_bytes());
        self.meaning.host = authority.to_owned();
    }

    fn remove(&mut self, name: &str) {
        self.fields.retain(|field| field.0 != name.as_bytes());
    }

    fn post(&mut self, body: &[u8]) {
        self.set(":method", b"POST");
        self.meaning.method = "POST".to_owned();
        self.body = Some(body.to_vec());
        self.meaning.body = body.to_vec();
    }

    /// A length that may disagree with the body.
    fn post_with_length(&mut self, length: &str, body: &[u8]) {
        self.post(body);
        self.add(b"content-length", length.as_bytes());
    }

    /// A field that makes HTTP/1.1 see a chunked body which ends before the inner request.
    fn post_chunked(&mut self, name: &[u8], value: &[u8]) {
        let body = [&b"0\r\n\r\n"[..], &self.inner()].concat();
        self.post(&body);
        self.add(name, value);
    }

    fn bytes(&self) -> Vec<u8> {
        if let Some(frames) = &self.frames {
            return frames.clone();
        }
        let ends = |is_last: bool| if is_last { END_STREAM } else { 0 };
        let (body, trailers) = (self.body.as_ref(), self.trailers.as_ref());
        let flags = END_HEADERS | ends(body.is_none() && trailers.is_none());
        let mut bytes = frame(HEADERS, flags, 1, &block(&self.fields));
        if let Some(body) = body {
            bytes.extend(frame(DATA, ends(trailers.is_none()), 1, body));
        }
        if let Some(trailers) = trailers {
            bytes.extend(frame(HEADERS, END_HEADERS | END_STREAM, 1, &block(trailers)));
        }
        bytes
    }
}

/// Sends a request and an honest one behind it on one connection, then another client's.
pub(crate) fn run(lane: &Lane, victim: &mut Victim, request: &Request) -> Seen {
    let mut seen = Seen::default();
    let probe = format!("/probe/{}", request.meaning.id);
    let mut connection = Http2::new(lane.connect_h2());
    let frames = [request.bytes(), get(3, "probe.example", probe.as_bytes(), &[])].concat();
    connection.send(&frames);
    let [answer, probed] = connection.answers([1, 3]);
    seen.mixed_up.extend(victim.ask(lane, request.meaning.id));
    seen.take(lane, request.meaning.id);
    seen.statuses.extend(answer.status);
    let own = seen.requests.iter().map(|request| request.target.escape_ascii().to_string().into_bytes());
    if answer.status == Some(200) && answer.is_over && !own.clone().any(|target| target == answer.body) {
        seen.mixed_up.push(format!("an answer belongs to {}", answer.body.escape_ascii()));
    }
    if probed.status == Some(200) && probed.is_over && probed.body != probe.as_bytes() {
        seen.mixed_up.push(format!("the probe was answered with {}", probed.body.escape_ascii()));
    }
    seen
}

/// All of them, in an order that does not change.
pub(crate) const MUTATIONS: &[Mutation] = &[
    ("honest", |_| {}),
    ("honest with a body", |request| request.post(b"hello")),
    ("honest with a length", |request| request.post_with_length("5", b"hello")),
    ("honest with a body that is a request", |request| request.post(&request.inner())),
    ("body with GET", |request| {
        let inner = request.inner();
        request.body = Some(inner.clone());
        request.meaning.body = inner;
    }),
    ("padded", |request| {
        request.post(b"hello");
        let data = frame(DATA, END_STREAM | PADDED, 1, b"\x05hello\0\0\0\0\0");
        request.frames = Some([frame(HEADERS, END_HEADERS, 1, &block(&request.fields)), data].concat());
    }),
    ("head in three frames", |request| {
        let block = block(&request.fields);
        let mut frames = frame(HEADERS, END_STREAM, 1, &block[..1]);
        frames.extend(frame(CONTINUATION, 0, 1, &block[1..10]));
        frames.extend(frame(CONTINUATION, END_HEADERS, 1, &block[10..]));
        request.frames = Some(frames);
    }),
    ("head in a frame for each byte", |request| {
        let block = block(&request.fields);
        let mut frames = frame(HEADERS, END_STREAM, 1, &block[..1]);
        for byte in &block[1..block.len() - 1] {
            frames.extend(frame(CONTINUATION, 0, 1, &[*byte]));
        }
        frames.extend(frame(CONTINUATION, END_HEADERS, 1, &block[block.len() - 1..]));
        request.frames = Some(frames);
    }),
    ("trailers", |request| {
        request.post(b"hello");
        request.trailers = Some(vec![(b"x-trailer".to_vec(), b"a".to_vec())]);
    }),
    ("trailer content-length", |request| {
        request.post(b"hello");
        request.trailers = Some(vec![(b"content-length".to_vec(), b"100".to_vec())]);
    }),
    ("trailer transfer-encoding", |request| {
        request.post(b"hello");
        request.trailers = Some(vec![(b"transfer-encoding".to_vec(), b"chunked".to_vec())]);
    }),
    ("trailer :path", |request| {
        request.post(b"hello");
        request.trailers = Some(vec![(b":path".to_vec(), request.smuggled())]);
    }),
    ("trailer with CRLF", |request| {
        request.post(b"hello");
        request.trailers = Some(vec![(b"x-trailer".to_vec(), [b"a\r\n\r\n", &request.inner()[..]].concat())]);
    }),
    ("trailers without end", |request| {
        request.post(b"hello");
        let mut frames = frame(HEADERS, END_HEADERS, 1, &block(&request.fields));
        frames.extend(frame(HEADERS, END_HEADERS, 1, &block(&[("x-trailer", "a")])));
        request.frames = Some(frames);
    }),
    ("body behind the end", |request| {
        let mut frames = request.bytes();
        frames.extend(frame(DATA, END_STREAM, 1, &request.inner()));
        request.frames = Some(frames);
    }),
    ("index outside the tables", |request| {
        request.frames = Some(frame(HEADERS, END_HEADERS | END_STREAM, 1, &[0x82, 0x87, 0xff, 0x7f]));
    }),
    ("length shorter than the body", |request| {
        request.post_with_length("5", &[&b"hello"[..], &request.inner()].concat());
    }),
    ("length longer than the body", |request| request.post_with_length("100", b"hello")),
    ("length 0 and a body", |request| request.post_with_length("0", &request.inner())),
    ("length without a body", |request| {
        request.post_with_length("5", b"");
        request.body = None;
    }),
    ("length twice", |request| {
        request.post_with_length("5", b"hello");
        request.add(b"content-length", b"5");
    }),
    ("length twice, different", |request| {
        request.post_with_length("5", b"hello");
        request.add(b"content-length", b"0");
    }),
    ("length with plus sign", |request| request.post_with_length("+5", b"hello")),
    ("length as a list", |request| request.post_with_length("5, 5", b"hello")),
    ("length with a space", |request| request.post_with_length(" 5", b"hello")),
    ("length empty", |request| request.post_with_length("", b"hello")),
    ("length beyond 64 bits", |request| request.post_with_length("18446744073709551621", b"hello")),
    ("length with CRLF", |request| {
        request.post_with_length("5\r\nTransfer-Encoding: chunked", b"0\r\n\r\n");
    }),
    ("transfer-encoding: chunked", |request| request.post_chunked(b"transfer-encoding", b"chunked")),
    ("transfer-encoding: identity", |request| request.post_chunked(b"transfer-encoding", b"identity")),
    ("Transfer-Encoding in upper case", |request| request.post_chunked(b"Transfer-Encoding", b"chunked")),
    ("transfer-encoding and a space", |request| request.post_chunked(b"transfer-encoding ", b"chunked")),
    ("transfer-encoding and a colon", |request| request.post_chunked(b"transfer-encoding:", b"chunked")),
    ("transfer-encoding with vertical tab", |request| {
        request.post_chunked(b"transfer-encoding", b"\x0bchunked")
    }),
    ("transfer_encoding", |request| request.post_chunked(b"transfer_encoding", b"chunked")),
    ("value with CRLF and a field", |request| {
        request.post_chunked(b"x-odd", b"a\r\nTransfer-Encoding: chunked")
    }),
    ("value with LF and a field", |request| request.post_chunked(b"x-odd", b"a\nTransfer-Encoding: chunked")),
    ("value with CR and a field", |request| request.post_chunked(b"x-odd", b"a\rTransfer-Encoding: chunked")),
    ("value with a request", |request| {
        request.add(b"x-odd", &[b"a\r\n\r\n", &request.inner()[..]].concat());
    }),
    ("value with NUL", |request| request.add(b"x-odd", b"a\0b")),
    ("value with control byte", |request| request.add(b"x-odd", b"a\x01b")),
    ("value with DEL", |request| request.add(b"x-odd", b"a\x7fb")),
    ("value with spaces around", |request| request.add(b"x-odd", b" a ")),
    ("value not ASCII", |request| request.say("x-odd", b"\xc3\xa9\xff")),
    ("value with tab", |request| request.say("x-odd", b"a\tb")),
    ("name with CRLF and a field", |request| {
        request.post_chunked(b"x-odd: a\r\ntransfer-encoding: chunked\r\nx", b"b");
    }),
    ("name with a request", |request| {
        request.add(&[b"x: a\r\n\r\n", &request.inner()[..]].concat(), b"b");
    }),
    ("name in upper case", |request| request.add(b"X-Odd", b"a")),
    ("name with colon", |request| request.add(b"x:odd", b"a")),
    ("name with space", |request| request.add(b"x odd", b"a")),
    ("name with NUL", |request| request.add(b"x\0odd", b"a")),
    ("name not ASCII", |request| request.add(b"x-\xc3\xa9", b"a")),
    ("name empty", |request| request.add(b"", b"a")),
    ("name with underscore", |request| request.say("x_odd", b"a")),
    ("unknown pseudo field", |request| request.fields.insert(0, (b":odd".to_vec(), b"a".to_vec()))),
    (":status", |request| request.fields.insert(0, (b":status".to_vec(), b"200".to_vec()))),
    ("pseudo field behind a field", |request| request.fields.insert(0, (b"x-odd".to_vec(), b"a".to_vec()))),
    ("connection: close", |request| request.add(b"connection", b"close")),
    ("connection nominates content-length", |request| {
        request.post_with_length("5", b"hello");
        request.add(b"connection", b"content-length");
    }),
    ("keep-alive", |request| request.add(b"keep-alive", b"timeout=5")),
    ("proxy-connection", |request| request.add(b"proxy-connection", b"keep-alive")),
    ("upgrade", |request| request.add(b"upgrade", b"h2c")),
    ("http2-settings", |request| request.add(b"http2-settings", b"AAMAAABkAAQAAP__")),
    ("te: trailers", |request| request.add(b"te", b"trailers")),
    ("te: chunked", |request| request.add(b"te", b"chunked")),
    ("expect: 100-continue", |request| {
        request.post(b"hello");
        request.add(b"expect", b"100-continue");
    }),
    ("expect: nonsense", |request| request.add(b"expect", b"a miracle")),
    ("x-forwarded-for", |request| request.add(b"x-forwarded-for", b"192.0.2.1")),
    ("cookies", |request| {
        request.add(b"cookie", b"a=b");
        request.add(b"cookie", b"c=d");
        request.meaning.fields.push(("cookie".to_owned(), b"a=b; c=d".to_vec()));
    }),
    ("host as :authority", |request| request.add(b"host", b"a.example")),
    ("host other than :authority", |request| request.add(b"host", b"b.example")),
    ("host twice", |request| {
        request.add(b"host", b"a.example");
        request.add(b"host", b"a.example");
    }),
    ("host instead of :authority", |request| {
        request.remove(":authority");
        request.add(b"host", b"a.example");
    }),
    ("host with CRLF", |request| {
        request.remove(":authority");
        request.add(b"host", b"a.example\r\nX-Injected: b");
    }),
    ("neither host nor :authority", |request| request.remove(":authority")),
    (":authority empty", |request| request.set_authority("")),
    (":authority with user", |request| request.set_authority("user@a.example")),
    (":authority with path", |request| request.set_authority("a.example/b")),
    (":authority with space", |request| request.set_authority("a.example b")),
    (":authority with CRLF", |request| request.set_authority("a.example\r\nX-Injected: b")),
    (":authority with port", |request| request.set_authority("a.example:8448")),
    (":authority with port of letters", |request| request.set_authority("a.example:http")),
    (":authority with comma", |request| request.set_authority("a,b")),
    (":authority twice", |request| request.fields.insert(0, (b":authority".to_vec(), b"a.example".to_vec()))),
    (":path empty", |request| request.set(":path", b"")),
    (":path without slash", |request| request.set(":path", b"case")),
    (":path *", |request| request.set(":path", b"*")),
    (":path * with OPTIONS", |request| {
        request.set(":method", b"OPTIONS");
        request.set(":path", b"*");
        request.meaning.method = "OPTIONS".to_owned();
        request.meaning.target = b"*".to_vec();
    }),
    (":path absolute", |request| {
        request.set(":path", format!("http://b.example/case/{}", request.meaning.id).as_bytes());
    }),
    (":path with two slashes first", |request| {
        let path = format!("//b.example/case/{}", request.meaning.id);
        request.set(":path", path.as_bytes());
        request.meaning.target = path.into_bytes();
    }),
    (":path with fragment", |request| request.set_path("#b")),
    (":path with space", |request| request.set_path("/a b")),
    (":path with a request", |request| {
        let behind = format!(" HTTP/1.1\r\nHost: a.example\r\n\r\nGET /smuggled/{}", request.meaning.id);
        request.set_path(&behind);
    }),
    (":path with version", |request| request.set_path(" HTTP/1.1")),
    (":path with CR", |request| request.set_path("/a\rb")),
    (":path with LF", |request| request.set_path("/a\nb")),
    (":path with tab", |request| request.set_path("/a\tb")),
    (":path with NUL", |request| request.set_path("/a\0b")),
    (":path with DEL", |request| request.set_path("/a\u{7f}b")),
    (":path in UTF-8", |request| request.set_path("/\u{e9}")),
    (":path with characters outside the grammar", |request| request.set_path("/a\"<>^`{|}b")),
    (":path with backslash", |request| request.set_path("/a\\b")),
    (":path with lone %", |request| request.set_path("/%")),
    (":path missing", |request| request.remove(":path")),
    (":path twice", |request| request.fields.insert(0, (b":path".to_vec(), request.smuggled()))),
    (":method empty", |request| request.set(":method", b"")),
    (":method with space", |request| request.set(":method", &[b"GET ", &request.smuggled()[..]].concat())),
    (":method with a request", |request| {
        let method = format!("GET /smuggled/{} HTTP/1.1\r\nHost: a.example\r\n\r\nGET", request.meaning.id);
        request.set(":method", method.as_bytes());
    }),
    (":method in lower case", |request| {
        request.set(":method", b"get");
        request.meaning.method = "get".to_owned();
    }),
    (":method with NUL", |request| request.set(":method", b"GE\0T")),
    (":method missing", |request| request.remove(":method")),
    (":method twice", |request| request.fields.insert(0, (b":method".to_vec(), b"POST".to_vec()))),
    ("TRACE", |request| {
        request.set(":method", b"TRACE");
        request.meaning.method = "TRACE".to_owned();
    }),
    ("CONNECT", |request| {
        request.fields = vec![
            (b":method".to_vec(), b"CONNECT".to_vec()),
            (b":authority".to_vec(), b"a.example:443".to_vec()),
        ];
    }),
    ("CONNECT with path", |request| request.set(":method", b"CONNECT")),
    ("CONNECT for a WebSocket", |request| {
        request.set(":method", b"CONNECT");
        request.fields.insert(0, (b":protocol".to_vec(), b"websocket".to_vec()));
    }),
    (":scheme http", |request| request.set(":scheme", b"http")),
    (":scheme ftp", |request| request.set(":scheme", b"ftp")),
    (":scheme empty", |request| request.set(":scheme", b"")),
    (":scheme with a host", |request| request.set(":scheme", b"https://b.example/?")),
    (":scheme with CRLF", |request| request.set(":scheme", b"https\r\nX-Injected: b")),
    (":scheme missing", |request| request.remove(":scheme")),
    (":scheme twice", |request| request.fields.insert(0, (b":scheme".to_vec(), b"https".to_vec()))),
];
