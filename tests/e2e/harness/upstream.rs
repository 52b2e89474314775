//! An HTTP/1.1 server that remembers every byte of every request and answers what the test says.

use std::io::{BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use super::PATIENCE;
use super::proxy_header::{self, ProxySeen};

/// Bytes of a body that are kept; the rest is counted.
const KEPT_BODY: usize = 1 << 20;

/// A request as it arrived.
#[derive(Debug, Clone)]
pub(crate) struct Recorded {
    /// Counts the connections of this upstream from 0.
    pub(crate) connection: usize,
    /// The PROXY header that the connection began with, when the upstream expects one.
    pub(crate) proxy: Option<ProxySeen>,
    /// Request line and fields, byte for byte, with the empty line.
    pub(crate) head: Vec<u8>,
    /// The first bytes of the body.
    pub(crate) body: Vec<u8>,
    pub(crate) body_length: u64,
    /// False when the sender went away in the middle.
    pub(crate) complete: bool,
}

impl Recorded {
    /// The request target, byte for byte.
    pub(crate) fn target(&self) -> String {
        self.line().split(' ').nth(1).unwrap_or_default().to_owned()
    }

    fn line(&self) -> String {
        self.text().lines().next().unwrap_or_default().to_owned()
    }

    /// All values of a field.
    pub(crate) fn headers(&self, name: &str) -> Vec<String> {
        self.text()
            .lines()
            .skip(1)
            .filter_map(|line| line.split_once(':'))
            .filter(|(key, _)| key.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.trim().to_owned())
            .collect()
    }

    /// The only value of a field; panics when it came twice.
    pub(crate) fn header(&self, name: &str) -> Option<String> {
        let values = self.headers(name);
        assert!(values.len() <= 1, "{name} came {} times: {values:?}", values.len());
        values.into_iter().next()
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.head).into_owned()
    }
}

/// What the upstream does with a request.
pub(crate) enum Reply {
    /// A JSON answer.
    Json(u16, String),
    /// These bytes, and the connection goes on.
    Bytes(Vec<u8>),
    /// These bytes, and the connection is closed.
    BytesThenClose(Vec<u8>),
    /// A body of this many bytes, written in pieces.
    Flood(u64),
    /// Nothing until the test ends, or the client goes.
    Silence,
    /// An answer after this long.
    Late(Duration),
    /// 101, then every byte is sent back.
    Echo,
}

type Answers = dyn Fn(&Recorded) -> Reply + Send + Sync;

/// A running upstream.
pub(crate) struct Upstream {
    pub(crate) address: UpstreamAddress,
    shared: Arc<Shared>,
}

/// Where it listens.
#[derive(Debug, Clone)]
pub(crate) enum UpstreamAddress {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

impl std::fmt::Display for UpstreamAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "{address}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

struct Shared {
    requests: Mutex<Vec<Recorded>>,
    news: Condvar,
    connections: AtomicUsize,
    /// Whether connections begin with a PROXY header.
    proxy: bool,
    /// Whether requests are remembered.
    remembers: bool,
    answers: Box<Answers>,
    stop: AtomicBool,
}

trait Socket: Read + Write + Send + Sized + 'static {
    fn pair(self) -> (Self, Self);
    fn close(&self);
}

impl Socket for TcpStream {
    fn pair(self) -> (Self, Self) {
        self.set_nodelay(true).unwrap();
        (self.try_clone().unwrap(), self)
    }
    fn close(&self) {
        let _ = self.shutdown(Shutdown::Both);
    }
}

impl Socket for UnixStream {
    fn pair(self) -> (Self, Self) {
        (self.try_clone().unwrap(), self)
    }
    fn close(&self) {
        let _ = self.shutdown(Shutdown::Both);
    }
}

impl Upstream {
    /// On TCP; answers every request with `{}`.
    pub(crate) fn start() -> Self {
        Self::answering(|_| Reply::Json(200, "{}".to_owned()))
    }

    /// On TCP, with answers.
    pub(crate) fn answering(answers: impl Fn(&Recorded) -> Reply + Send + Sync + 'static) -> Self {
        Self::tcp(false, answers)
    }

    /// On TCP, with answers, remembering nothing: for more requests than there is memory for.
    pub(crate) fn forgetful(answers: impl Fn(&Recorded) -> Reply + Send + Sync + 'static) -> Self {
        let shared = Shared { remembers: false, ..Shared::new(false, answers) };
        Self::listen(TcpListener::bind("127.0.0.1:0").unwrap(), shared)
    }

    /// On TCP, each connection beginning with a PROXY header.
    pub(crate) fn with_proxy_protocol() -> Self {
        Self::tcp(true, |_| Reply::Json(200, "{}".to_owned()))
    }

    /// On a Unix socket.
    pub(crate) fn unix(path: &Path, proxy: bool) -> Self {
        let listener = UnixListener::bind(path).unwrap();
        let shared = Arc::new(Shared::new(proxy, |_| Reply::Json(200, "{}".to_owned())));
        let for_thread = Arc::clone(&shared);
        std::thread::spawn(move || accept(&for_thread, || listener.accept().map(|(stream, _)| stream)));
        Self { address: UpstreamAddress::Unix(path.to_owned()), shared }
    }

    fn tcp(proxy: bool, answers: impl Fn(&Recorded) -> Reply + Send + Sync + 'static) -> Self {
        Self::on(TcpListener::bind("127.0.0.1:0").unwrap(), proxy, answers)
    }

    /// On a listener that is bound already.
    pub(crate) fn on(
        listener: TcpListener,
        proxy: bool,
        answers: impl Fn(&Recorded) -> Reply + Send + Sync + 'static,
    ) -> Self {
        Self::listen(listener, Shared::new(proxy, answers))
    }

    fn listen(listener: TcpListener, shared: Shared) -> Self {
        let address = UpstreamAddress::Tcp(listener.local_addr().unwrap());
        let shared = Arc::new(shared);
        let for_thread = Arc::clone(&shared);
        std::thread::spawn(move || accept(&for_thread, || listener.accept().map(|(stream, _)| stream)));
        Self { address, shared }
    }

    /// `http://127.0.0.1:port`
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// All requests so far.
    pub(crate) fn requests(&self) -> Vec<Recorded> {
        self.shared.requests.lock().unwrap().clone()
    }

    /// Waits for the first request that `wanted` takes.
    pub(crate) fn wait_for(&self, wanted: impl Fn(&Recorded) -> bool) -> Recorded {
        let deadline = Instant::now() + PATIENCE;
        let mut requests = self.shared.requests.lock().unwrap();
        loop {
            if let Some(found) = requests.iter().find(|request| wanted(request)) {
                return found.clone();
            }
            assert!(Instant::now() < deadline, "no such request; there were {requests:?}");
            requests = self.shared.news.wait_timeout(requests, Duration::from_millis(200)).unwrap().0;
        }
    }

    /// The only request so far.
    pub(crate) fn only(&self) -> Recorded {
        let mut requests = self.requests();
        assert_eq!(requests.len(), 1, "{requests:?}");
        requests.remove(0)
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        // Wakes the accepting thread, which then closes its socket.
        match &self.address {
            UpstreamAddress::Tcp(address) => drop(TcpStream::connect(address)),
            UpstreamAddress::Unix(path) => drop(UnixStream::connect(path)),
        }
    }
}

impl Shared {
    fn new(proxy: bool, answers: impl Fn(&Recorded) -> Reply + Send + Sync + 'static) -> Self {
        Self {
            requests: Mutex::new(Vec::new()),
            news: Condvar::new(),
            connections: AtomicUsize::new(0),
            proxy,
            remembers: true,
            answers: Box::new(answers),
            stop: AtomicBool::new(false),
        }
    }

    fn record(&self, request: Recorded) {
        if !self.remembers {
            return;
        }
        self.requests.lock().unwrap().push(request);
        self.news.notify_all();
    }
}

fn accept<S: Socket>(shared: &Arc<Shared>, mut next: impl FnMut() -> std::io::Result<S>) {
    while let Ok(stream) = next() {
        if shared.stop.load(Ordering::Relaxed) {
            return;
        }
        let shared = Arc::clone(shared);
        let connection = shared.connections.fetch_add(1, Ordering::Relaxed);
        std::thread::spawn(move || serve(&shared, connection, stream));
    }
}

/// Serves one connection until either side closes it. An error ends the connection, as it would a server's.
fn serve<S: Socket>(shared: &Shared, connection: usize, stream: S) {
    let (reading, mut writing) = stream.pair();
    let mut reading = BufReader::new(reading);
    let proxy = match shared.proxy {
        true => match proxy_header::read(&mut reading) {
            Ok(header) => Some(header),
            Err(_) => return,
        },
        false => None,
    };
    while let Some(head) = read_head(&mut reading) {
        let mut request = Recorded {
            connection,
            proxy: proxy.clone(),
            head,
            body: Vec::new(),
            body_length: 0,
            complete: false,
        };
        request.complete = read_body(&mut reading, &mut request);
        let complete = request.complete;
        let reply = (shared.answers)(&request);
        // Before the answer, so that a test can wait for a request that is in flight.
        shared.record(request);
        if !complete {
            return;
        }
        if !answer(&reply, &mut reading, &mut writing) {
            writing.close();
            return;
        }
    }
}

/// False when the connection is to be closed.
fn answer(reply: &Reply, reading: &mut impl Read, writing: &mut impl Write) -> bool {
    match reply {
        Reply::Json(status, body) => writing.write_all(&json(*status, body)).is_ok(),
        Reply::Bytes(bytes) => writing.write_all(bytes).is_ok(),
        Reply::BytesThenClose(bytes) => {
            let _ = writing.write_all(bytes);
            false
        }
        Reply::Flood(length) => flood(*length, writing).is_ok(),
        Reply::Silence => {
            let _ = std::io::copy(reading, &mut std::io::sink());
            false
        }
        Reply::Late(after) => {
            // A late answer is what is tested: there is nothing to wait for but time.
            std::thread::sleep(*after);
            writing.write_all(&json(200, "{\"late\":true}")).is_ok()
        }
        Reply::Echo => {
            let upgraded =
                b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
            if writing.write_all(upgraded).is_ok() {
                let mut buffer = [0; 4096];
                while let Ok(count @ 1..) = reading.read(&mut buffer) {
                    if writing.write_all(&buffer[..count]).is_err() {
                        break;
                    }
                }
            }
            false
        }
    }
}

fn json(status: u16, body: &str) -> Vec<u8> {
    format!(
        "HTTP/1.1 {status} Whatever\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

fn flood(length: u64, writing: &mut impl Write) -> std::io::Result<()> {
    write!(writing, "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n")?;
    let piece = [b'x'; 1 << 16];
    let mut left = length;
    while left > 0 {
        let count = usize::try_from(left).unwrap_or(usize::MAX).min(piece.len());
        writing.write_all(&piece[..count])?;
        left -= count as u64;
    }
    Ok(())
}

fn read_head(reading: &mut impl Read) -> Option<Vec<u8>> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        reading.read_exact(&mut byte).ok()?;
        head.push(byte[0]);
    }
    Some(head)
}

/// Reads the body; false when it ended early.
fn read_body(reading: &mut impl Read, request: &mut Recorded) -> bool {
    if request.header("transfer-encoding").is_some_and(|value| value.eq_ignore_ascii_case("chunked")) {
        return read_chunks(reading, request);
    }
    let length = request.header("content-length").and_then(|value| value.parse().ok()).unwrap_or(0);
    read_piece(reading, request, length)
}

fn read_chunks(reading: &mut impl Read, request: &mut Recorded) -> bool {
    loop {
        let mut line = Vec::new();
        let mut byte = [0];
        while !line.ends_with(b"\r\n") {
            if reading.read_exact(&mut byte).is_err() {
                return false;
            }
            line.push(byte[0]);
        }
        let size = String::from_utf8_lossy(&line).trim().to_owned();
        let Ok(size) = u64::from_str_radix(&size, 16) else { return false };
        if !read_piece(reading, request, size) || reading.read_exact(&mut [0; 2]).is_err() {
            return false;
        }
        if size == 0 {
            return true;
        }
    }
}

fn read_piece(reading: &mut impl Read, request: &mut Recorded, length: u64) -> bool {
    let mut buffer = vec![0; 1 << 16];
    let mut left = length;
    while left > 0 {
        let most = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        match reading.read(&mut buffer[..most]) {
            Ok(count @ 1..) => {
                let kept = count.min(KEPT_BODY - request.body.len());
                request.body.extend_from_slice(&buffer[..kept]);
                request.body_length += count as u64;
                left -= count as u64;
            }
            _ => return false,
        }
    }
    true
}
