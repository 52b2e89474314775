//! The upstream of one lane: reads HTTP/1.1 as strictly as the standard allows and remembers what came, well-formed or not.

use std::io::{BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

/// No head that is tested here is longer.
const MAX_HEAD: usize = 1 << 20;
/// How long a connection may stay in the middle of a request after the client's side is over.
const SETTLE: Duration = Duration::from_secs(10);

/// What is not well-formed, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Flaw {
    pub(crate) what: &'static str,
    pub(crate) detail: String,
}

/// A head that does not end is one whose sender went away.
pub(crate) const CUT_OFF: &str = "end of the head";

fn flaw(what: &'static str, detail: &[u8]) -> Flaw {
    Flaw { what, detail: detail.escape_ascii().to_string() }
}

/// What came on an upstream connection as one request.
#[derive(Debug, Clone, Default)]
pub(crate) struct Received {
    pub(crate) method: String,
    pub(crate) target: Vec<u8>,
    /// Names in lower case, in order.
    pub(crate) fields: Vec<(String, Vec<u8>)>,
    pub(crate) body: Vec<u8>,
    /// False when the sender went away in the middle.
    pub(crate) is_complete: bool,
    pub(crate) is_http_1_0: bool,
    /// Why it is no request that every server would read the same way.
    pub(crate) fault: Option<Flaw>,
    head: Vec<u8>,
}

impl Received {
    /// The number in the target: which case it came of. The head may be none.
    pub(crate) fn case(&self) -> Option<usize> {
        let line = self.head.split(|&byte| byte == b'\n').next().unwrap_or_default();
        let line = String::from_utf8_lossy(line).into_owned();
        let rest = ["/case/", "/smuggled/", "/second/"].iter().find_map(|word| line.split_once(word))?.1;
        rest.split(|character: char| !character.is_ascii_digit()).next()?.parse().ok()
    }

    /// Whether it is one of the honest requests that check on the others.
    pub(crate) fn is_probe(&self) -> bool {
        self.target.starts_with(b"/probe/") || self.target.starts_with(b"/victim/")
    }

    /// The values of a field.
    pub(crate) fn values(&self, name: &str) -> Vec<&[u8]> {
        self.fields.iter().filter(|(key, _)| key == name).map(|(_, value)| &value[..]).collect()
    }

    /// For messages.
    pub(crate) fn shown(&self) -> String {
        let fault =
            self.fault.as_ref().map_or(String::new(), |flaw| format!(" [{}: {}]", flaw.what, flaw.detail));
        let end = if self.is_complete { "" } else { " [cut off]" };
        format!("{}{}{end}{fault}", self.head.escape_ascii(), self.body.escape_ascii())
    }
}

/// A listening recorder.
pub(crate) struct Recorder {
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    settled: Condvar,
    stop: AtomicBool,
}

#[derive(Default)]
struct State {
    received: Vec<Received>,
    /// Connections in the middle of a request.
    busy: usize,
}

impl Recorder {
    /// Listens on a port that the system chooses.
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared::default());
        let of_thread = Arc::clone(&shared);
        std::thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                if of_thread.stop.load(Ordering::Relaxed) {
                    return;
                }
                let shared = Arc::clone(&of_thread);
                std::thread::spawn(move || serve(&shared, stream));
            }
        });
        Self { address, shared }
    }

    /// What came since the last time, once no connection is in the middle of a request.
    ///
    /// # Errors
    /// A connection stays open in the middle of a request.
    pub(crate) fn take(&self) -> Result<Vec<Received>, String> {
        let deadline = Instant::now() + SETTLE;
        let mut state = self.shared.state.lock().unwrap();
        while state.busy > 0 {
            if Instant::now() > deadline {
                return Err("an upstream connection stays open in the middle of a request".to_owned());
            }
            state = self.shared.settled.wait_timeout(state, Duration::from_millis(100)).unwrap().0;
        }
        Ok(std::mem::take(&mut state.received))
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        drop(TcpStream::connect(self.address));
    }
}

/// Counts a connection as busy from the first byte of a request to its end.
struct Busy<'a>(&'a Shared);

impl<'a> Busy<'a> {
    fn new(shared: &'a Shared) -> Self {
        shared.state.lock().unwrap().busy += 1;
        Self(shared)
    }
}

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.0.state.lock().unwrap().busy -= 1;
        self.0.settled.notify_all();
    }
}

fn serve(shared: &Shared, stream: TcpStream) {
    let _ = stream.set_nodelay(true);
    let Ok(mut writing) = stream.try_clone() else { return };
    let mut reading = BufReader::new(stream);
    loop {
        let mut first = [0];
        if reading.read_exact(&mut first).is_err() {
            return;
        }
        let busy = Busy::new(shared);
        let received = receive(first[0], &mut reading, &mut writing);
        let answer = answer_to(&received);
        let goes_on = received.is_complete && received.fault.is_none() && !received.is_http_1_0;
        shared.state.lock().unwrap().received.push(received);
        drop(busy);
        if writing.write_all(&answer).is_err() || !goes_on {
            return;
        }
    }
}

/// The answer names the request in a field and in its body, so that a client knows whose answer it got.
fn answer_to(received: &Received) -> Vec<u8> {
    if received.fault.is_some() || !received.is_complete {
        return b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".to_vec();
    }
    let name = received.target.escape_ascii().to_string();
    let body = if received.method == "HEAD" { "" } else { &name };
    format!("HTTP/1.1 200 OK\r\nX-Answer-To: {name}\r\nContent-Length: {}\r\n\r\n{body}", name.len())
        .into_bytes()
}

fn receive(first: u8, reading: &mut impl Read, writing: &mut impl Write) -> Received {
    let mut received = Received { head: vec![first], ..Received::default() };
    while !received.head.ends_with(b"\r\n\r\n") {
        match byte(reading) {
            Some(byte) if received.head.len() < MAX_HEAD => received.head.push(byte),
            _ => {
                received.fault = Some(flaw(CUT_OFF, b""));
                return received;
            }
        }
    }
    match parse_head(&received.head) {
        Ok(head) => received = Received { head: received.head, ..head },
        Err(fault) => {
            received.fault = Some(fault);
            return received;
        }
    }
    if !received.values("expect").is_empty() {
        let _ = writing.write_all(b"HTTP/1.1 100 Continue\r\n\r\n");
    }
    let body = match framing(&received) {
        Ok(Framing::Length(length)) => read_bytes(reading, length),
        Ok(Framing::Chunked) => read_chunks(reading),
        Err(fault) => Body { bytes: Vec::new(), is_complete: true, fault: Some(fault) },
    };
    (received.body, received.is_complete, received.fault) = (body.bytes, body.is_complete, body.fault);
    received
}

/// RFC 9112 §3 and §5, without any leniency: one space, CRLF, tokens, no control byte, one valid Host.
fn parse_head(head: &[u8]) -> Result<Received, Flaw> {
    let mut lines = Vec::new();
    let mut rest = head.strip_suffix(b"\r\n\r\n").unwrap_or(head);
    while let Some(at) = rest.windows(2).position(|pair| pair == b"\r\n") {
        lines.push(&rest[..at]);
        rest = &rest[at + 2..];
    }
    lines.push(rest);
    let words: Vec<&[u8]> = lines[0].split(|&byte| byte == b' ').collect();
    let [method, target, version @ (b"HTTP/1.1" | b"HTTP/1.0")] = words[..] else {
        return Err(flaw("request line", lines[0]));
    };
    if method.is_empty() || !method.iter().all(|&byte| is_token(byte)) {
        return Err(flaw("method", method));
    }
    if target.is_empty() || !target.iter().all(u8::is_ascii_graphic) || target.contains(&b'#') {
        return Err(flaw("target", target));
    }
    let mut fields = Vec::new();
    for line in &lines[1..] {
        let at =
            line.iter().position(|&byte| byte == b':').ok_or_else(|| flaw("field without colon", line))?;
        let (name, value) = (&line[..at], line[at + 1..].trim_ascii());
        if name.is_empty() || !name.iter().all(|&byte| is_token(byte)) {
            return Err(flaw("field name", name));
        }
        if value.iter().any(|&byte| byte < 0x20 && byte != b'\t' || byte == 0x7f) {
            return Err(flaw("control byte in a value", line));
        }
        fields.push((String::from_utf8_lossy(name).to_ascii_lowercase(), value.to_vec()));
    }
    let is_http_1_0 = version == b"HTTP/1.0";
    let hosts: Vec<&[u8]> =
        fields.iter().filter(|(name, _)| name == "host").map(|(_, value)| &value[..]).collect();
    match hosts[..] {
        [host] if is_host(host) => {}
        [host] => return Err(flaw("Host", host)),
        [] if is_http_1_0 => {}
        [] => return Err(flaw("no Host", b"")),
        _ => return Err(flaw("more than one Host", b"")),
    }
    let method = String::from_utf8_lossy(method).into_owned();
    Ok(Received { method, target: target.to_vec(), fields, is_http_1_0, ..Received::default() })
}

enum Framing {
    Length(usize),
    Chunked,
}

/// RFC 9112 §6: one of the two, once.
fn framing(received: &Received) -> Result<Framing, Flaw> {
    let (lengths, codings) = (received.values("content-length"), received.values("transfer-encoding"));
    match (&lengths[..], &codings[..]) {
        ([], []) => Ok(Framing::Length(0)),
        ([length], []) if length.iter().all(u8::is_ascii_digit) => {
            let parsed = String::from_utf8_lossy(length).parse();
            parsed.map(Framing::Length).map_err(|_| flaw("Content-Length", length))
        }
        ([], [coding]) if coding.eq_ignore_ascii_case(b"chunked") && !received.is_http_1_0 => {
            Ok(Framing::Chunked)
        }
        ([], _) => Err(flaw("Transfer-Encoding", &codings.join(&b" and "[..]))),
        (_, []) => Err(flaw("Content-Length", &lengths.join(&b" and "[..]))),
        _ => Err(flaw("Content-Length and Transfer-Encoding", &codings.join(&b" and "[..]))),
    }
}

#[derive(Default)]
struct Body {
    bytes: Vec<u8>,
    is_complete: bool,
    fault: Option<Flaw>,
}

fn read_bytes(reading: &mut impl Read, length: usize) -> Body {
    let mut bytes = Vec::new();
    let read = reading.take(length as u64).read_to_end(&mut bytes);
    Body { is_complete: read.is_ok() && bytes.len() == length, bytes, fault: None }
}

/// RFC 9112 §7.1; trailer fields are read and have to be well-formed.
fn read_chunks(reading: &mut impl Read) -> Body {
    let mut body = Body::default();
    loop {
        let Some(line) = line(reading) else { return body };
        let text = String::from_utf8_lossy(&line).into_owned();
        let size = text.split(';').next().unwrap_or_default();
        let is_size = (1..=8).contains(&size.len()) && size.bytes().all(|byte| byte.is_ascii_hexdigit());
        if !is_size {
            body.fault = Some(flaw("chunk size", &line));
            return body;
        }
        let size = usize::from_str_radix(size, 16).unwrap();
        if size == 0 {
            break;
        }
        let chunk = read_bytes(reading, size);
        body.bytes.extend(chunk.bytes);
        match (chunk.is_complete, byte(reading), byte(reading)) {
            (true, Some(b'\r'), Some(b'\n')) => {}
            (true, Some(_), Some(_)) => {
                body.fault = Some(flaw("CRLF behind a chunk", b""));
                return body;
            }
            _ => return body,
        }
    }
    loop {
        match line(reading) {
            None => return body,
            Some(line) if line.is_empty() => break,
            Some(line) => {
                let name = line.split(|&byte| byte == b':').next().unwrap_or_default();
                if name.is_empty() || name.len() == line.len() || !name.iter().all(|&byte| is_token(byte)) {
                    body.fault = Some(flaw("trailer field", &line));
                }
            }
        }
    }
    body.is_complete = true;
    body
}

/// Up to CRLF, without it.
fn line(reading: &mut impl Read) -> Option<Vec<u8>> {
    let mut line = Vec::new();
    while !line.ends_with(b"\r\n") {
        line.push(byte(reading).filter(|_| line.len() < MAX_HEAD)?);
    }
    line.truncate(line.len() - 2);
    Some(line)
}

fn byte(reading: &mut impl Read) -> Option<u8> {
    let mut byte = [0];
    reading.read_exact(&mut byte).ok().map(|()| byte[0])
}

/// RFC 9110 §5.6.2.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// RFC 9110 §7.2 and RFC 3986 §3.2.2, as far as it can be seen from the bytes.
fn is_host(host: &[u8]) -> bool {
    let text = String::from_utf8_lossy(host).into_owned();
    let (name, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, port)) if address.parse::<std::net::Ipv6Addr>().is_ok() => ("v6", port),
        Some(_) => return false,
        None => text.split_at(text.find(':').unwrap_or(text.len())),
    };
    let is_port = |port: &str| port.bytes().all(|byte| byte.is_ascii_digit());
    !name.is_empty()
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte))
        && (port.is_empty() || port.strip_prefix(':').is_some_and(is_port))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8]) -> Received {
        receive(bytes[0], &mut &bytes[1..], &mut Vec::new())
    }

    #[test]
    fn a_strict_reader_takes_what_is_right() {
        let read = read(b"POST /a HTTP/1.1\r\nHost: a:1\r\nTransfer-Encoding: chunked\r\n\r\n2;x\r\nab\r\n0\r\nx: y\r\n\r\n");
        assert_eq!((read.fault, read.is_complete, read.body), (None, true, b"ab".to_vec()));
    }

    #[test]
    fn a_strict_reader_refuses_what_is_not() {
        for wrong in [
            &b"GET /a b HTTP/1.1\r\nHost: a\r\n\r\n"[..],
            b"GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n",
            b"GET /a HTTP/1.2\r\nHost: a\r\n\r\n",
            b"GET /a HTTP/1.1\nHost: a\r\n\r\n",
            b"GET /a HTTP/1.1\r\n\r\n",
            b"GET /a HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
            b"GET /a HTTP/1.1\r\nHost: u@a\r\n\r\n",
            b"GET /a HTTP/1.1\r\nHost: a\r\nX : y\r\n\r\n",
            b"GET /a HTTP/1.1\r\nHost: a\r\nX: y\rz\r\n\r\n",
            b"GET /a HTTP/1.1\r\nHost: a\r\n X: y\r\n\r\n",
            b"GET /a HTTP/1.1\r\nHost: a\r\nContent-Length: 2, 2\r\n\r\nab",
            b"GET /a HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\nab",
            b"GET /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
            b"GET /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0x0\r\n\r\n",
            b"GET /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nabc\r\n0\r\n\r\n",
        ] {
            assert!(read(wrong).fault.is_some(), "{}", wrong.escape_ascii());
        }
    }
}
