//! Clients: one that sends exactly the bytes it is told to, and curl.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::{ClientConnection, StreamOwned};
use socket2::{Domain, SockRef, Socket, Type};

use super::{Certificates, PATIENCE, program};

/// How long an answer may take on a busy machine.
const ANSWER: Duration = Duration::from_secs(30);

/// What came back.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    /// The first field of that name.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    /// Panics unless the status is `status`.
    #[track_caller]
    pub(crate) fn expect(self, status: u16) -> Self {
        self.expect_or(status, String::new)
    }

    /// The same, with more to read when it panics.
    #[track_caller]
    pub(crate) fn expect_or(self, status: u16, more: impl FnOnce() -> String) -> Self {
        assert!(
            self.status == status,
            "{} instead of {status}: {:?}\n{}\n{}",
            self.status,
            self.headers,
            self.text(),
            more()
        );
        self
    }
}

trait Duplex: Read + Write + Send {}
impl<T: Read + Write + Send> Duplex for T {}

/// One connection that speaks HTTP/1.1.
pub(crate) struct Client {
    stream: Box<dyn Duplex>,
    socket: TcpStream,
    read: Vec<u8>,
}

impl Client {
    /// Plain TCP.
    pub(crate) fn tcp(address: SocketAddr) -> Self {
        Self::tcp_from(Ipv4Addr::LOCALHOST, address)
    }

    /// Plain TCP from one of the addresses of 127.0.0.0/8, so that clients can be told apart.
    pub(crate) fn tcp_from(source: Ipv4Addr, address: SocketAddr) -> Self {
        let stream = connect(source, address);
        let socket = stream.try_clone().unwrap();
        Self { stream: Box::new(stream), socket, read: Vec::new() }
    }

    /// TLS.
    pub(crate) fn tls(certificates: &Certificates, name: &str, address: SocketAddr) -> Self {
        Self::tls_from(Ipv4Addr::LOCALHOST, certificates, name, address)
    }

    /// TLS from one of the addresses of 127.0.0.0/8.
    pub(crate) fn tls_from(
        source: Ipv4Addr,
        certificates: &Certificates,
        name: &str,
        address: SocketAddr,
    ) -> Self {
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let connection = ClientConnection::new(Arc::clone(&certificates.client), name).unwrap();
        let stream = connect(source, address);
        let socket = stream.try_clone().unwrap();
        Self { stream: Box::new(StreamOwned::new(connection, stream)), socket, read: Vec::new() }
    }

    /// Where the connection comes from.
    pub(crate) fn address(&self) -> SocketAddr {
        self.socket.local_addr().unwrap()
    }

    /// Sends bytes as they are.
    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.try_send(bytes).unwrap();
    }

    /// Sends bytes as they are; the other side may have closed.
    pub(crate) fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> std::io::Result<()> {
        self.stream.write_all(bytes.as_ref())?;
        self.stream.flush()
    }

    /// A request with the given lines after the request line, and a body.
    pub(crate) fn request(&mut self, line: &str, headers: &[&str], body: &[u8]) -> Answer {
        let mut head = format!("{line} HTTP/1.1\r\n");
        for header in headers {
            head.push_str(header);
            head.push_str("\r\n");
        }
        if !body.is_empty() {
            head.push_str(&format!("Content-Length: {}\r\n", body.len()));
        }
        head.push_str("\r\n");
        self.send([head.as_bytes(), body].concat());
        self.receive()
    }

    /// `GET` with a Host.
    pub(crate) fn get(&mut self, host: &str, target: &str) -> Answer {
        self.request(&format!("GET {target}"), &[&format!("Host: {host}")], b"")
    }

    /// `POST` of JSON, with a bearer token when there is one.
    pub(crate) fn post(
        &mut self,
        host: &str,
        target: &str,
        token: Option<&str>,
        body: &serde_json::Value,
    ) -> Answer {
        let host = format!("Host: {host}");
        let token = token.map(|token| format!("Authorization: Bearer {token}"));
        let mut headers = vec![host.as_str(), "Content-Type: application/json"];
        headers.extend(token.as_deref());
        self.request(&format!("POST {target}"), &headers, body.to_string().as_bytes())
    }

    /// The next answer, interim ones left out.
    pub(crate) fn receive(&mut self) -> Answer {
        self.try_receive().expect("the connection was closed without an answer")
    }

    /// The next answer, or `None` when the connection was closed before one.
    pub(crate) fn try_receive(&mut self) -> Option<Answer> {
        loop {
            let head = self.head()?;
            let mut lines = head.split("\r\n");
            let status: u16 = lines.next()?.split(' ').nth(1)?.parse().ok()?;
            let headers: Vec<(String, String)> = lines
                .filter_map(|line| line.split_once(':'))
                .map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
                .collect();
            let mut answer = Answer { status, headers, body: Vec::new() };
            if status == 101 {
                return Some(answer);
            }
            if (100..200).contains(&status) {
                continue;
            }
            answer.body = self.body(&answer)?;
            return Some(answer);
        }
    }

    /// The next `length` bytes after an upgrade.
    pub(crate) fn receive_bytes(&mut self, length: usize) -> Vec<u8> {
        while self.read.len() < length {
            assert!(self.fill(), "closed after {} of {length} bytes", self.read.len());
        }
        self.read.drain(..length).collect()
    }

    /// Head only, so that a test can read the body as slowly as it likes.
    pub(crate) fn receive_head(&mut self) -> String {
        self.head().expect("the connection was closed without an answer")
    }

    /// Reads until the connection ends and counts; nothing is kept.
    pub(crate) fn count_body(&mut self, length: u64) -> u64 {
        let mut seen = self.read.len() as u64;
        self.read.clear();
        let mut buffer = vec![0; 1 << 16];
        while seen < length {
            match self.stream.read(&mut buffer) {
                Ok(0) | Err(_) => break,
                Ok(count) => seen += count as u64,
            }
        }
        seen
    }

    /// Waits this long for an answer instead of the usual time.
    pub(crate) fn wait_at_most(&mut self, time: Duration) {
        self.socket.set_read_timeout(Some(time)).unwrap();
    }

    /// Whether the other side has closed: an end, or a reset.
    pub(crate) fn is_closed(&mut self) -> bool {
        !self.fill()
    }

    /// Goes away without a goodbye.
    pub(crate) fn vanish(self) {
        SockRef::from(&self.socket).set_linger(Some(Duration::ZERO)).unwrap();
    }

    fn head(&mut self) -> Option<String> {
        loop {
            if let Some(end) = find(&self.read, b"\r\n\r\n") {
                let head = String::from_utf8_lossy(&self.read[..end]).into_owned();
                self.read.drain(..end + 4);
                return Some(head);
            }
            if !self.fill() {
                return None;
            }
        }
    }

    fn body(&mut self, answer: &Answer) -> Option<Vec<u8>> {
        if answer.status == 204 || answer.status == 304 {
            return Some(Vec::new());
        }
        if answer.header("transfer-encoding").is_some_and(|value| value.eq_ignore_ascii_case("chunked")) {
            return self.chunks();
        }
        match answer.header("content-length") {
            Some(length) => {
                let length: usize = length.parse().ok()?;
                while self.read.len() < length {
                    if !self.fill() {
                        return None;
                    }
                }
                Some(self.read.drain(..length).collect())
            }
            None => {
                while self.fill() {}
                Some(std::mem::take(&mut self.read))
            }
        }
    }

    fn chunks(&mut self) -> Option<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let end = loop {
                match find(&self.read, b"\r\n") {
                    Some(end) => break end,
                    None if self.fill() => {}
                    None => return None,
                }
            };
            let size = String::from_utf8_lossy(&self.read[..end]).into_owned();
            let size = usize::from_str_radix(size.split(';').next()?.trim(), 16).ok()?;
            self.read.drain(..end + 2);
            while self.read.len() < size + 2 {
                if !self.fill() {
                    return None;
                }
            }
            body.extend(self.read.drain(..size));
            self.read.drain(..2);
            if size == 0 {
                return Some(body);
            }
        }
    }

    /// False at the end of the stream.
    fn fill(&mut self) -> bool {
        let mut buffer = [0; 1 << 14];
        loop {
            match self.stream.read(&mut buffer) {
                Ok(0) => return false,
                Ok(count) => {
                    self.read.extend_from_slice(&buffer[..count]);
                    return true;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    panic!("no answer in time")
                }
                Err(_) => return false,
            }
        }
    }
}

pub(super) fn connect(source: Ipv4Addr, address: SocketAddr) -> TcpStream {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).unwrap();
    if address.is_ipv4() {
        socket.bind(&SocketAddr::new(IpAddr::V4(source), 0).into()).unwrap();
    }
    socket.connect_timeout(&address.into(), PATIENCE).unwrap_or_else(|error| panic!("{address}: {error}"));
    let stream = TcpStream::from(socket);
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(ANSWER)).unwrap();
    stream.set_write_timeout(Some(ANSWER)).unwrap();
    stream
}

pub(crate) fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}

/// curl against one edge, whose names it resolves itself.
pub(crate) struct Curl {
    pub(crate) ca: PathBuf,
    pub(crate) edge: SocketAddr,
}

impl Curl {
    /// Runs curl; `{edge}` in an argument stands for the port of the edge.
    pub(crate) fn run(&self, names: &[&str], arguments: &[&str]) -> String {
        let port = self.edge.port();
        let mut command = Command::new(program("curl"));
        command.args(["-sS", "--noproxy", "*", "--max-time", "60", "--cacert"]).arg(&self.ca);
        for name in names {
            command.arg("--resolve").arg(format!("{name}:{port}:127.0.0.1"));
        }
        command.args(arguments.iter().map(|argument| argument.replace("{edge}", &port.to_string())));
        let output = command.output().unwrap();
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
    }
}
