//! An edge built by hand, a recording upstream, and clients that write bytes.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use accept::BoundAddress;
use conf::{Action, ByteSize, HostPattern, Matcher, Route, Site};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixListener};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// A request as the upstream got it.
#[derive(Debug, Clone)]
pub(crate) struct Received {
    /// Counted from 0 in the order of acceptance.
    pub(crate) connection: usize,
    /// What came before the request: a PROXY header, or nothing.
    pub(crate) preface: Vec<u8>,
    /// Request line and fields, as sent.
    pub(crate) head: String,
    /// Body as sent, chunks and all.
    pub(crate) body: Vec<u8>,
}

impl Received {
    pub(crate) fn line(&self) -> &str {
        self.head.lines().next().unwrap_or_default()
    }

    /// All values of a field, joined by `|`.
    pub(crate) fn field(&self, name: &str) -> Option<String> {
        let values = self.head.lines().skip(1).filter_map(|line| {
            let (field, value) = line.split_once(':')?;
            field.eq_ignore_ascii_case(name).then(|| value.trim().to_owned())
        });
        let values: Vec<_> = values.collect();
        (!values.is_empty()).then(|| values.join("|"))
    }
}

/// What the upstream does with a request.
pub(crate) type Behaviour = Arc<dyn Fn(&Received) -> Reply + Send + Sync>;

/// An answer of the upstream, as bytes.
#[derive(Debug, Clone)]
pub(crate) struct Reply {
    pub(crate) bytes: Vec<u8>,
    pub(crate) delay: Duration,
    pub(crate) close: bool,
}

pub(crate) fn reply(bytes: impl Into<Vec<u8>>) -> Reply {
    Reply { bytes: bytes.into(), delay: Duration::ZERO, close: false }
}

pub(crate) fn ok(body: &str) -> Reply {
    reply(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()))
}

/// A server that records.
#[derive(Clone)]
pub(crate) struct Upstream {
    pub(crate) server: conf::Server,
    received: Arc<Mutex<Vec<Received>>>,
}

impl Upstream {
    pub(crate) async fn start(behaviour: impl Fn(&Received) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let upstream = Self {
            server: conf::Server::Tcp { host: "127.0.0.1".into(), port, tls: false },
            received: Arc::default(),
        };
        let (received, behaviour): (_, Behaviour) = (upstream.received.clone(), Arc::new(behaviour));
        tokio::spawn(async move {
            for connection in 0.. {
                let (stream, _) = listener.accept().await.unwrap();
                tokio::spawn(converse(stream, connection, received.clone(), behaviour.clone()));
            }
        });
        upstream
    }

    pub(crate) async fn start_unix(
        path: &std::path::Path,
        behaviour: impl Fn(&Received) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let listener = UnixListener::bind(path).unwrap();
        let upstream = Self { server: conf::Server::Unix(path.to_owned()), received: Arc::default() };
        let (received, behaviour): (_, Behaviour) = (upstream.received.clone(), Arc::new(behaviour));
        tokio::spawn(async move {
            for connection in 0.. {
                let (stream, _) = listener.accept().await.unwrap();
                tokio::spawn(converse(stream, connection, received.clone(), behaviour.clone()));
            }
        });
        upstream
    }

    pub(crate) fn received(&self) -> Vec<Received> {
        self.received.lock().unwrap().clone()
    }

    pub(crate) fn last(&self) -> Received {
        self.received().pop().expect("nothing received")
    }
}

async fn converse(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    connection: usize,
    received: Arc<Mutex<Vec<Received>>>,
    behaviour: Behaviour,
) {
    let mut buffer = Vec::new();
    let preface = read_preface(&mut stream, &mut buffer).await;
    while let Some(head) = read_until(&mut stream, &mut buffer, b"\r\n\r\n").await {
        let head = String::from_utf8(head).unwrap();
        let mut request = Received { connection, preface: preface.clone(), head, body: Vec::new() };
        if request.field("expect").is_some() {
            stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await.unwrap();
        }
        if let Some(length) = request.field("content-length") {
            let length: usize = length.parse().unwrap();
            while buffer.len() < length {
                if stream.read_buf(&mut buffer).await.unwrap_or(0) == 0 {
                    received.lock().unwrap().push(request);
                    return;
                }
            }
            request.body = buffer.drain(..length).collect();
        } else if request.field("transfer-encoding").is_some() {
            match read_raw_chunks(&mut stream, &mut buffer).await {
                Some(body) => request.body = body,
                None => {
                    received.lock().unwrap().push(request);
                    return;
                }
            }
        }
        let reply = behaviour(&request);
        received.lock().unwrap().push(request);
        tokio::time::sleep(reply.delay).await;
        if stream.write_all(&reply.bytes).await.is_err() || reply.close {
            return;
        }
        if reply.bytes.starts_with(b"HTTP/1.1 101") {
            echo(stream, buffer).await;
            return;
        }
    }
}

/// A chunked body as sent; it must have no trailers. `None` at the end of the stream.
async fn read_raw_chunks(stream: &mut (impl AsyncRead + Unpin), buffer: &mut Vec<u8>) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let line = read_until(stream, buffer, b"\r\n").await?;
        let size =
            usize::from_str_radix(str::from_utf8(&line).unwrap().trim_end(), 16).expect("a plain size");
        body.extend(line);
        while buffer.len() < size + 2 {
            if stream.read_buf(buffer).await.unwrap_or(0) == 0 {
                return None;
            }
        }
        body.extend(buffer.drain(..size + 2));
        assert!(body.ends_with(b"\r\n"), "chunks end");
        if size == 0 {
            return Some(body);
        }
    }
}

/// A PROXY header of either version.
async fn read_preface(stream: &mut (impl AsyncRead + Unpin), buffer: &mut Vec<u8>) -> Vec<u8> {
    while buffer.len() < 16 {
        if stream.read_buf(buffer).await.unwrap_or(0) == 0 {
            return Vec::new();
        }
    }
    if buffer.starts_with(b"PROXY ") {
        return read_until(stream, buffer, b"\r\n").await.unwrap_or_default();
    }
    if buffer.starts_with(b"\r\n\r\n\0\r\nQUIT\n") {
        let length = 16 + usize::from(u16::from_be_bytes([buffer[14], buffer[15]]));
        while buffer.len() < length {
            stream.read_buf(buffer).await.unwrap();
        }
        return buffer.drain(..length).collect();
    }
    Vec::new()
}

async fn echo(mut stream: impl AsyncRead + AsyncWrite + Unpin, mut buffer: Vec<u8>) {
    loop {
        if stream.write_all(&buffer).await.is_err() {
            return;
        }
        buffer.clear();
        if stream.read_buf(&mut buffer).await.unwrap_or(0) == 0 {
            return;
        }
    }
}

/// A server for one test: what it does with each connection is written there. Counts the connections.
pub(crate) struct Scripted {
    pub(crate) server: conf::Server,
    connections: Arc<Mutex<usize>>,
}

impl Scripted {
    /// `script` gets each connection with its number, from 0.
    pub(crate) async fn start<S, F>(script: S) -> Self
    where
        S: Fn(Exchange, usize) -> F + Send + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = conf::Server::Tcp { host: "127.0.0.1".into(), port, tls: false };
        let connections: Arc<Mutex<usize>> = Arc::default();
        let counted = connections.clone();
        tokio::spawn(async move {
            for number in 0.. {
                let (stream, _) = listener.accept().await.unwrap();
                *counted.lock().unwrap() = number + 1;
                tokio::spawn(script(Exchange { stream, buffer: Vec::new() }, number));
            }
        });
        Self { server, connections }
    }

    pub(crate) fn connections(&self) -> usize {
        *self.connections.lock().unwrap()
    }

    /// Everything to it.
    pub(crate) fn edge(&self) -> conf::Edge {
        config(vec![upstream_of("up", vec![self.server.clone()])], |upstreams| {
            vec![prefix("/", Action::Upstream(upstreams[0].clone()))]
        })
    }
}

/// The upstream's side of a connection.
pub(crate) struct Exchange {
    pub(crate) stream: TcpStream,
    buffer: Vec<u8>,
}

impl Exchange {
    /// The next request's head; empty at the end.
    pub(crate) async fn head(&mut self) -> String {
        let head = read_until(&mut self.stream, &mut self.buffer, b"\r\n\r\n").await.unwrap_or_default();
        String::from_utf8(head).unwrap()
    }

    /// So many bytes of a body; fewer at the end.
    pub(crate) async fn body(&mut self, length: usize) -> Vec<u8> {
        while self.buffer.len() < length && self.stream.read_buf(&mut self.buffer).await.unwrap_or(0) > 0 {}
        self.buffer.drain(..length.min(self.buffer.len())).collect()
    }

    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        // The edge may have closed: what matters is what its client sees.
        let _ = self.stream.write_all(bytes.as_ref()).await;
    }

    /// Waits until the edge closes; how many bytes came before.
    pub(crate) async fn closed(&mut self) -> usize {
        while self.stream.read_buf(&mut self.buffer).await.unwrap_or(0) > 0 {}
        self.buffer.len()
    }
}

/// Everything up to and including `end`; `None` at the end of the stream.
async fn read_until(
    stream: &mut (impl AsyncRead + Unpin),
    buffer: &mut Vec<u8>,
    end: &[u8],
) -> Option<Vec<u8>> {
    loop {
        if let Some(at) = buffer.windows(end.len()).position(|window| window == end) {
            return Some(buffer.drain(..at + end.len()).collect());
        }
        if stream.read_buf(buffer).await.ok()? == 0 {
            return None;
        }
    }
}

pub(crate) fn route(name: &str, matcher: Matcher, action: Action) -> Route {
    Route {
        name: name.into(),
        matcher,
        methods: None,
        allow: None,
        action,
        rewrite: None,
        max_body_size: None,
        headers: http::HeaderMap::new(),
    }
}

pub(crate) fn prefix(prefix: &str, action: Action) -> Route {
    route(prefix, Matcher::Prefix(prefix.into()), action)
}

pub(crate) fn upstream_of(name: &str, servers: Vec<conf::Server>) -> conf::Upstream {
    let forwarded_for = conf::ForwardedFor::Replace;
    conf::Upstream {
        name: name.into(),
        servers,
        proxy_protocol: None,
        proxy_tlvs: conf::ProxyTlv::DEFAULT.to_vec(),
        forwarded_for,
    }
}

/// A configuration with one plain listener and one site for every host.
pub(crate) fn config(
    upstreams: Vec<conf::Upstream>,
    routes: impl FnOnce(&[Arc<conf::Upstream>]) -> Vec<Route>,
) -> conf::Edge {
    let upstreams: Vec<_> = upstreams.into_iter().map(Arc::new).collect();
    let routes = routes(&upstreams);
    conf::Edge {
        listeners: vec![conf::EdgeListener {
            name: "http".into(),
            binds: vec![conf::Bind::Address("127.0.0.1:0".parse().unwrap())],
            tls: false,
            proxy_protocol: None,
            redirect_https: false,
        }],
        tls: None,
        trusted_proxies: Vec::new(),
        upstreams,
        sites: vec![Site { name: "_".into(), hosts: vec![HostPattern::Any], listeners: None, routes }],
        limits: conf::Limits { max_body_size: ByteSize(1 << 20), ..conf::Limits::default() },
        timeouts: conf::Timeouts { drain: Duration::from_secs(5), ..conf::Timeouts::default() },
        access_log: None,
        admin: Vec::new(),
        threads: 1,
    }
}

/// Everything to one upstream.
pub(crate) fn to(upstream: &Upstream) -> conf::Edge {
    config(vec![upstream_of("up", vec![upstream.server.clone()])], |upstreams| {
        vec![prefix("/", Action::Upstream(upstreams[0].clone()))]
    })
}

/// The same with a place for `/metrics`.
pub(crate) fn counted(config: conf::Edge) -> conf::Edge {
    conf::Edge { admin: vec![conf::Bind::Address("127.0.0.1:0".parse().unwrap())], ..config }
}

/// A running edge.
pub(crate) struct Running {
    pub(crate) address: SocketAddr,
    pub(crate) addresses: Vec<(String, BoundAddress)>,
    pub(crate) stop: watch::Sender<bool>,
    pub(crate) served: JoinHandle<Result<(), proxy::EdgeError>>,
    pub(crate) sockets: accept::Sockets,
    pub(crate) handle: proxy::EdgeHandle,
}

impl Running {
    pub(crate) async fn start(config: conf::Edge) -> Self {
        Self::start_with(accept::Sockets::default(), config).await
    }

    /// With sockets that are there already.
    pub(crate) async fn start_with(sockets: accept::Sockets, config: conf::Edge) -> Self {
        let mut change = sockets.change();
        let edge = proxy::Edge::bind(Arc::new(config), &mut change).await.unwrap();
        change.commit();
        let (addresses, handle) = (edge.addresses(), edge.handle());
        let (stop, stopped) = watch::channel(false);
        let served = tokio::spawn(edge.serve(stopped));
        let address = tcp(&addresses[0].1);
        Self { address, addresses, stop, served, sockets, handle }
    }

    /// Another configuration, while it serves.
    pub(crate) async fn reload(&mut self, config: conf::Edge) {
        self.try_reload(config).await.unwrap();
    }

    pub(crate) async fn try_reload(
        &mut self,
        config: impl Into<Arc<conf::Edge>>,
    ) -> Result<(), proxy::EdgeError> {
        let mut change = self.sockets.change();
        let prepared = self.handle.prepare(config.into(), &mut change).await?;
        self.addresses = prepared.addresses().to_vec();
        self.address = tcp(&self.addresses[0].1);
        change.commit();
        prepared.commit().await;
        Ok(())
    }

    /// The line of `/metrics` that begins so, without that; of an edge that is [`counted`].
    pub(crate) async fn metric(&self, name: &str) -> Option<String> {
        let answer = self.admin("/metrics").await;
        let mut values = answer.text().lines().filter_map(|line| line.strip_prefix(name));
        values.next().map(|value| value.trim().to_owned())
    }

    pub(crate) async fn admin(&self, path: &str) -> Answer {
        let admin = tcp(&self.addresses.last().unwrap().1);
        let mut client = Client::new(TcpStream::connect(admin).await.unwrap());
        client.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")).await;
        client.answer().await
    }

    /// Tells it to stop, as the process does: its own descriptors of the sockets are closed too.
    pub(crate) fn begin_to_stop(&self) {
        self.sockets.close();
        self.stop.send(true).unwrap();
    }

    /// Stops and waits for the drain.
    pub(crate) async fn end(self) {
        self.begin_to_stop();
        self.served.await.unwrap().unwrap();
    }

    pub(crate) async fn connect(&self) -> Client<TcpStream> {
        Client::new(TcpStream::connect(self.address).await.unwrap())
    }

    /// One request on a connection of its own.
    pub(crate) async fn ask(&self, request: &str) -> Answer {
        let mut client = self.connect().await;
        client.send(request).await;
        client.answer().await
    }

    pub(crate) async fn get(&self, target: &str) -> Answer {
        self.ask(&format!("GET {target} HTTP/1.1\r\nHost: a.example\r\n\r\n")).await
    }

    /// The limits that were reached so far, each with how often; of an edge that is [`counted`].
    pub(crate) async fn limits_hit(&self) -> Vec<(String, u64)> {
        let metrics = self.admin("/metrics").await;
        let hits = metrics.text().lines().filter_map(|line| {
            let rest = line.strip_prefix("gatehouse_edge_limit_hits_total{limit=\"")?;
            let (key, count) = rest.split_once("\"} ")?;
            Some((key.to_owned(), count.parse().unwrap())).filter(|(_, count)| *count > 0)
        });
        hits.collect()
    }

    /// Waits until these limits were reached, and finds that no others were.
    pub(crate) async fn expect_hits(&self, expected: &[(&str, u64)]) {
        let expected: Vec<_> = expected.iter().map(|(key, count)| ((*key).to_owned(), *count)).collect();
        let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
        loop {
            let mut hits = self.limits_hit().await;
            hits.sort();
            if hits == expected {
                return;
            }
            assert!(tokio::time::Instant::now() < deadline, "{hits:?} and not {expected:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

pub(crate) fn tcp(address: &BoundAddress) -> SocketAddr {
    match address {
        BoundAddress::Tcp(address) => *address,
        BoundAddress::Unix(_) => panic!("not TCP"),
    }
}

/// A client over HTTP/1.
pub(crate) struct Client<S> {
    pub(crate) stream: S,
    buffer: Vec<u8>,
}

/// An answer as the client got it; chunks are joined.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
    /// The connection ended before the answer was complete.
    pub(crate) is_cut: bool,
}

impl Answer {
    pub(crate) fn text(&self) -> &str {
        str::from_utf8(&self.body).unwrap()
    }

    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (field, value) = line.split_once(':')?;
            field.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Client<S> {
    pub(crate) fn new(stream: S) -> Self {
        Self { stream, buffer: Vec::new() }
    }

    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).await.unwrap();
    }

    pub(crate) async fn answer(&mut self) -> Answer {
        self.answer_to("GET").await
    }

    pub(crate) async fn answer_to(&mut self, method: &str) -> Answer {
        let head = tokio::time::timeout(
            Duration::from_secs(20),
            read_until(&mut self.stream, &mut self.buffer, b"\r\n\r\n"),
        );
        let head =
            String::from_utf8(head.await.expect("no answer in time").expect("closed without an answer"))
                .unwrap();
        let status = head[9..12].parse().unwrap();
        let mut answer = Answer { status, head, body: Vec::new(), is_cut: false };
        if method == "HEAD" || status < 200 || status == 204 || status == 304 {
            return answer;
        }
        if answer.field("transfer-encoding") == Some("chunked") {
            self.read_chunks(&mut answer).await;
            return answer;
        }
        let length = answer.field("content-length").map_or(usize::MAX, |length| length.parse().unwrap());
        while self.buffer.len() < length {
            if self.stream.read_buf(&mut self.buffer).await.unwrap_or(0) == 0 {
                answer.is_cut = length != usize::MAX;
                break;
            }
        }
        answer.body = self.buffer.drain(..length.min(self.buffer.len())).collect();
        answer
    }

    async fn read_chunks(&mut self, answer: &mut Answer) {
        loop {
            let Some(line) = read_until(&mut self.stream, &mut self.buffer, b"\r\n").await else {
                answer.is_cut = true;
                return;
            };
            let length = usize::from_str_radix(str::from_utf8(&line).unwrap().trim(), 16).unwrap();
            while self.buffer.len() < length + 2 {
                if self.stream.read_buf(&mut self.buffer).await.unwrap_or(0) == 0 {
                    answer.is_cut = true;
                    return;
                }
            }
            answer.body.extend(self.buffer.drain(..length));
            self.buffer.drain(..2);
            if length == 0 {
                return;
            }
        }
    }

    /// What was received and is part of no answer.
    pub(crate) fn unread(&self) -> &[u8] {
        &self.buffer
    }

    /// Whether the server closes within a time.
    pub(crate) async fn is_closed_within(&mut self, time: Duration) -> bool {
        let closed = async { while self.stream.read_buf(&mut self.buffer).await.unwrap_or(0) > 0 {} };
        tokio::time::timeout(time, closed).await.is_ok()
    }
}
