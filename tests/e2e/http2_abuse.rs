//! HTTP/2 clients that mean no good, a hundred thousand streams of each kind: afterwards nothing of them is left, and meanwhile an
//! honest client is served. And clients that take nothing of what they asked for: how much memory they can make us hold.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use rustls::pki_types::ServerName;
use rustls::{ClientConnection, StreamOwned};

use super::harness::http2::{
    END_HEADERS, HEADERS, PING, RST_STREAM, SETTINGS, WINDOW_UPDATE, block, frame, get,
};
use super::harness::{Certificates, Client, Folder, Gatehouse, Metrics, PATIENCE};

const HOST: &str = "a.example";
/// Streams of each kind.
const STREAMS: u32 = 100_000;
/// As many as are sent before the server has to show that it has dealt with them.
const TOGETHER: u32 = 20;
/// What a hundred thousand streams may leave in the allocator's hands.
const LEFT_BYTES: u64 = 24 << 20;

/// A server that counts the connections that are open.
struct Counting {
    address: SocketAddr,
    open: Arc<AtomicUsize>,
}

impl Counting {
    /// `serve` gets each connection.
    fn start(serve: impl Fn(&mut TcpStream) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (address, open) = (listener.local_addr().unwrap(), Arc::new(AtomicUsize::new(0)));
        let (counter, serve) = (open.clone(), Arc::new(serve));
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (mut stream, open, serve) = (stream.unwrap(), counter.clone(), serve.clone());
                open.fetch_add(1, Ordering::SeqCst);
                thread::spawn(move || {
                    serve(&mut stream);
                    open.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        Self { address, open }
    }

    fn wait_until_empty(&self) {
        let deadline = Instant::now() + PATIENCE;
        while self.open.load(Ordering::SeqCst) > 0 {
            assert!(Instant::now() < deadline, "{} are open", self.open.load(Ordering::SeqCst));
            sleep(Duration::from_millis(20));
        }
    }
}

struct Deployment {
    https: SocketAddr,
    certificates: Certificates,
    upstream: Counting,
    gatehouse: Gatehouse,
    _folder: Folder,
}

fn deploy(upstream: Counting, more: &str) -> Deployment {
    let folder = Folder::new();
    let certificates = Certificates::new(&folder, &[HOST]);
    let yaml = format!(
        r#"
edge:
  access_log: false
  listeners: [{{name: https, binds: [{{address: "127.0.0.1:0"}}], tls: true}}]
  upstreams: {{up: {{servers: ["{address}"]}}}}
  sites:
    - hosts: ["_"]
      routes:
        - {{path: /honest, respond: {{body: honest}}}}
        - {{prefix: /, upstream: up}}
  admin: {{binds: [{{address: "127.0.0.1:0"}}]}}
  {more}
  {tls}
"#,
        address = upstream.address,
        tls = certificates.yaml(),
    );
    let mut gatehouse = Gatehouse::start(&folder, &yaml);
    let https = gatehouse.tcp("https");
    Deployment { https, certificates, upstream, gatehouse, _folder: folder }
}

type Raw = StreamOwned<ClientConnection, TcpStream>;

impl Deployment {
    fn raw(&self, start: &[u8]) -> Raw {
        let mut config = (*self.certificates.client).clone();
        config.alpn_protocols = vec![b"h2".to_vec()];
        let connection =
            ClientConnection::new(Arc::new(config), ServerName::try_from(HOST).unwrap()).unwrap();
        let stream = TcpStream::connect(self.https).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        let mut raw = StreamOwned::new(connection, stream);
        raw.write_all(&[b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", start].concat()).unwrap();
        raw
    }

    /// So many streams as `piece` makes them, over as many connections as that takes; how many there were. A stream counts when the
    /// server has said that it has dealt with it, by its answer to a `PING` that came behind.
    fn abuse(&self, count: u32, piece: &dyn Fn(u32) -> Vec<u8>) -> u32 {
        let (mut done, mut connections) = (0, 0);
        while done < count {
            connections += 1;
            let mut raw = self.raw(&frame(SETTINGS, 0, 0, &[]));
            let mut stream = 1;
            while done < count {
                let streams = (0..TOGETHER).map(|number| stream + 2 * number);
                let pieces: Vec<u8> = streams.flat_map(piece).chain(frame(PING, 0, 0, &[0; 8])).collect();
                if raw.write_all(&pieces).and_then(|()| raw.flush()).is_err() || !is_acknowledged(&mut raw) {
                    break;
                }
                stream += 2 * TOGETHER;
                done += TOGETHER;
            }
        }
        connections
    }

    /// Memory and descriptors, once everything is closed and no more than `most` descriptors are open. The upstream knows of a
    /// connection only when it has accepted it, so what it counts is not enough.
    fn rest(&mut self, most: f64) -> (u64, f64) {
        self.upstream.wait_until_empty();
        let is_quiet = |metrics: &Metrics| {
            // The honest client stays.
            metrics.value("gatehouse_edge_connections_open", &[]) <= 1.0 && descriptors(metrics) <= most
        };
        let metrics = self.gatehouse.wait_for_metrics("admin", is_quiet);
        (self.gatehouse.process.resident_bytes(), descriptors(&metrics))
    }
}

fn descriptors(metrics: &Metrics) -> f64 {
    metrics.value("process_open_fds", &[])
}

/// Reads until a `PING` is acknowledged; false at the end of the connection.
fn is_acknowledged(raw: &mut Raw) -> bool {
    let mut head = [0; 9];
    while raw.read_exact(&mut head).is_ok() {
        let mut payload =
            vec![0; usize::try_from(u32::from_be_bytes([0, head[0], head[1], head[2]])).unwrap()];
        if raw.read_exact(&mut payload).is_err() {
            return false;
        }
        if (head[3], head[4]) == (PING, 1) {
            return true;
        }
    }
    false
}

/// A client over HTTP/1 that asks as long as it lives; every answer has to come.
struct Honest {
    stop: Arc<AtomicBool>,
    thread: thread::JoinHandle<(u32, Duration)>,
}

impl Honest {
    fn start(deployment: &Deployment) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let mut client = Client::tls(&deployment.certificates, HOST, deployment.https);
        let stopped = stop.clone();
        let thread = thread::spawn(move || {
            let (mut served, mut slowest) = (0, Duration::ZERO);
            while !stopped.load(Ordering::SeqCst) {
                let begun = Instant::now();
                assert_eq!(client.get(HOST, "/honest").expect(200).text(), "honest");
                slowest = slowest.max(begun.elapsed());
                served += 1;
                sleep(Duration::from_millis(20));
                if served % 500 == 0 {
                    // As any connection it has so many requests.
                    return (served, slowest);
                }
            }
            (served, slowest)
        });
        Self { stop, thread }
    }

    fn end(self) -> (u32, Duration) {
        self.stop.store(true, Ordering::SeqCst);
        self.thread.join().unwrap()
    }
}

fn post(stream: u32, more: &[(&str, &str)]) -> Vec<u8> {
    let mut fields = vec![(":method", "POST"), (":scheme", "https"), (":authority", HOST), (":path", "/")];
    fields.extend(more);
    frame(HEADERS, END_HEADERS, stream, &block(&fields))
}

/// What is sent on a stream.
type Abuse<'a> = &'a dyn Fn(u32) -> Vec<u8>;

#[test]
fn a_hundred_thousand_streams_of_each_kind_leave_nothing_behind() {
    // Never answers, so that each request is one more that waits.
    let upstream =
        Counting::start(|stream| while stream.read(&mut [0; 4096]).is_ok_and(|count| count > 0) {});
    let mut deployment = deploy(upstream, "limits: {max_connections_per_ip: 1000}");
    let reset = |stream| frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes());
    let kinds: [(&str, Abuse<'_>); 6] = [
        ("reset at once", &|stream| [get(stream, HOST, b"/", &[]), reset(stream)].concat()),
        ("reset in its body", &|stream| {
            [post(stream, &[]), frame(0, 0, stream, &[b'x'; 500]), reset(stream)].concat()
        }),
        ("reset by us", &|stream| {
            [post(stream, &[]), frame(WINDOW_UPDATE, 0, stream, &0x7fff_ffff_u32.to_be_bytes())].concat()
        }),
        ("malformed", &|stream| get(stream, HOST, b"/", &[("connection", "close")])),
        ("left open", &|stream| post(stream, &[("content-length", "1000")])),
        ("too large", &|stream| {
            let field = ("x", "y".repeat(4000));
            let head = get(stream, HOST, b"/", &[(field.0, &field.1)]);
            let large =
                [&head[9..], &block(&[(field.0, &field.1)])[..], &block(&[(field.0, &field.1)])].concat();
            frame(HEADERS, 5, stream, &large)
        }),
    ];
    // A few more than at the start: the honest client, and whoever asks for the number.
    let most = descriptors(&deployment.gatehouse.metrics("admin")) + 8.0;
    for (name, piece) in kinds {
        // What the first ones make the allocator ask for stays with it.
        deployment.abuse(STREAMS / 10, piece);
        let before = deployment.rest(most);
        let honest = Honest::start(&deployment);
        let begun = Instant::now();
        let connections = deployment.abuse(STREAMS, piece);
        let took = begun.elapsed();
        let (served, slowest) = honest.end();
        let after = deployment.rest(most);
        let grown = after.0.saturating_sub(before.0);
        println!(
            "{name}: {STREAMS} streams over {connections} connections in {took:.1?}; memory {} -> {} KiB, descriptors {} -> {}; \
             meanwhile {served} honest requests, the slowest {slowest:.1?}",
            before.0 >> 10,
            after.0 >> 10,
            before.1,
            after.1,
        );
        assert!(grown < LEFT_BYTES, "{name}: {grown} bytes");
        assert!(served > 0);
    }
    let metrics = deployment.gatehouse.metrics("admin");
    assert!(metrics.value("gatehouse_edge_limit_hits_total", &[("limit", "limits.h2_resets")]) > 100.0);
    assert!(deployment.gatehouse.stop_cleanly());
}

/// Answers of 10 MB, as fast as they are taken.
fn generous() -> Counting {
    Counting::start(|stream| {
        let mut request = [0; 4096];
        while stream.read(&mut request).is_ok_and(|count| count > 0) {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 10485760\r\n\r\n");
            let piece = [b'x'; 64 << 10];
            for _ in 0..160 {
                if stream.write_all(&piece).is_err() {
                    return;
                }
            }
        }
    })
}

/// `SETTINGS_INITIAL_WINDOW_SIZE`, and requests on as many streams as there may be.
fn greedy(window: u32) -> Vec<u8> {
    let mut frames = frame(SETTINGS, 0, 0, &[&[0, 4][..], &window.to_be_bytes()].concat());
    frames.extend(frame(WINDOW_UPDATE, 0, 0, &(1_u32 << 30).to_be_bytes()));
    frames.extend((0..128).flat_map(|number| get(2 * number + 1, HOST, b"/", &[])));
    frames
}

/// What one connection may make us hold: proxy/README.md says so.
const HELD_BYTES: u64 = 112 << 20;

#[test]
fn clients_that_take_nothing_hold_bounded_memory_and_not_for_long() {
    for (name, window) in [("no window", 0), ("every window, and nothing is read", 0x7fff_ffff)] {
        let mut deployment = deploy(generous(), "timeouts: {send: 4s}");
        let before = deployment.gatehouse.process.resident_bytes();
        let clients: Vec<Raw> = (0..2).map(|_| deployment.raw(&greedy(window))).collect();
        let deadline = Instant::now() + PATIENCE;
        let mut held = 0;
        while deployment.upstream.open.load(Ordering::SeqCst) == 0 {
            assert!(Instant::now() < deadline);
            sleep(Duration::from_millis(20));
        }
        while deployment.upstream.open.load(Ordering::SeqCst) > 0 {
            held = held.max(deployment.gatehouse.process.resident_bytes().saturating_sub(before) / 2);
            assert!(Instant::now() < deadline, "the upstream's connections stay open");
            sleep(Duration::from_millis(20));
        }
        println!("{name}: {} MiB for each connection with 128 streams of 10 MiB", held >> 20);
        assert!(held < HELD_BYTES, "{name}: {held}");
        let hits = |metrics: &Metrics| {
            metrics.value("gatehouse_edge_limit_hits_total", &[("limit", "timeouts.send")])
                + metrics.value("gatehouse_edge_limit_hits_total", &[("limit", "limits.min_send_rate")])
        };
        deployment.gatehouse.wait_for_metrics("admin", |metrics| hits(metrics) >= 2.0);
        drop(clients);
    }
}

/// Thirty such clients, and room for what two of them would take: most are sent away at once, the honest one is served.
#[test]
fn what_all_clients_together_leave_is_bounded() {
    let mut deployment = deploy(generous(), "limits: {h2_buffer: 32M}");
    let before = deployment.gatehouse.process.resident_bytes();
    let honest = Honest::start(&deployment);
    let clients: Vec<Raw> = (0..30).map(|_| deployment.raw(&greedy(0))).collect();
    let hits = |metrics: &Metrics| {
        metrics.value("gatehouse_edge_limit_hits_total", &[("limit", "limits.h2_buffer")])
    };
    let metrics = deployment.gatehouse.wait_for_metrics("admin", |metrics| hits(metrics) >= 20.0);
    let buffered = metrics.value("gatehouse_edge_buffered_bytes", &[]);
    // The limit, and what each may always have.
    assert!(buffered < f64::from((32 + 30 / 2 + 8) << 20), "{buffered}");
    let grown = deployment.gatehouse.process.peak_bytes().saturating_sub(before);
    println!("30 clients: {} MiB at most", grown >> 20);
    assert!(grown < 8 * HELD_BYTES, "{grown}");
    drop(clients);
    let empty = |metrics: &Metrics| metrics.value("gatehouse_edge_buffered_bytes", &[]);
    deployment.gatehouse.wait_for_metrics("admin", |metrics| empty(metrics) == 0.0);
    assert!(honest.end().0 > 0);
}
