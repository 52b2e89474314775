//! Bodies: limits that clients really hear of, and large or slow ones in flat memory.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::harness::{Certificates, Client, Curl, Folder, Gatehouse, Recorded, Reply, Upstream};

const HOST: &str = "matrix.example.com";
const HUNDRED_MB: u64 = 100 << 20;
/// More than buffers of sockets and streams need, much less than a body.
const FLAT: u64 = 32 << 20;

struct Edge {
    gatehouse: Gatehouse,
    upstream: Upstream,
    certificates: Certificates,
    address: SocketAddr,
    folder: Folder,
}

fn edge(answers: impl Fn(&Recorded) -> Reply + Send + Sync + 'static) -> Edge {
    let upstream = Upstream::answering(answers);
    let folder = Folder::new();
    let certificates = Certificates::new(&folder, &[HOST]);
    let yaml = format!(
        r#"
edge:
  listeners: [{{name: https, binds: [{{address: "127.0.0.1:0"}}], tls: true}}]
  {tls}
  upstreams: {{synapse: {{servers: ["{upstream}"]}}}}
  sites:
    - hosts: [{HOST}]
      routes:
        - {{prefix: /_matrix/media, upstream: synapse, max_body_size: 200M}}
        - {{prefix: /, upstream: synapse, max_body_size: 1M}}
"#,
        tls = certificates.yaml(),
        upstream = upstream.address,
    );
    let mut gatehouse = Gatehouse::start(&folder, &yaml);
    let address = gatehouse.tcp("https");
    Edge { gatehouse, upstream, certificates, address, folder }
}

fn plain() -> Edge {
    edge(|_| Reply::Json(200, "{}".to_owned()))
}

impl Edge {
    fn client(&self) -> Client {
        Client::tls(&self.certificates, HOST, self.address)
    }

    fn curl(&self, arguments: &[&str]) -> String {
        Curl { ca: self.certificates.ca.clone(), edge: self.address }.run(&[HOST], arguments)
    }

    /// A file of that many bytes, as `--data-binary` wants it.
    fn upload(&self, bytes: usize) -> String {
        format!("@{}", self.folder.write("upload", vec![b'x'; bytes]).display())
    }
}

#[test]
fn an_over_long_body_is_413_before_the_upstream_hears_of_it() {
    let edge = plain();
    let mut client = edge.client();
    client.send(format!(
        "POST /_matrix/x HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: {}\r\n\r\n",
        (1 << 20) + 1
    ));
    let answer = client.receive().expect(413);
    assert_eq!(answer.json()["errcode"], "M_TOO_LARGE");
    assert_eq!(answer.header("access-control-allow-origin"), Some("*"));
    assert_eq!(edge.upstream.requests().len(), 0);
}

#[test]
fn clients_that_send_it_all_receive_the_413() {
    let edge = plain();
    let body = edge.upload(20 << 20);
    for version in ["--http1.1", "--http2"] {
        let url = format!("https://{HOST}:{{edge}}/_matrix/x");
        let said =
            edge.curl(&[version, "-H", "Expect:", "--data-binary", &body, "-w", " %{http_code}", &url]);
        assert!(said.contains("M_TOO_LARGE") && said.ends_with(" 413"), "{version}: {said}");
    }
    assert_eq!(edge.upstream.requests().len(), 0);
}

#[test]
fn clients_that_take_their_time_receive_the_413_too() {
    let edge = plain();
    let body = edge.upload(6 << 20);
    let url = format!("https://{HOST}:{{edge}}/_matrix/x");
    // Six seconds, unless the client stops when it has its answer.
    let slowly = ["--limit-rate", "1M", "-H", "Expect:", "--data-binary", &body, "-w", " %{http_code}", &url];
    for framing in [&["--http1.1"][..], &["--http1.1", "-H", "Transfer-Encoding: chunked"], &["--http2"]] {
        let said = edge.curl(&[framing, &slowly].concat());
        assert!(said.contains("M_TOO_LARGE") && said.ends_with(" 413"), "{framing:?}: {said}");
    }
    assert!(edge.upstream.requests().iter().all(|request| !request.complete));
}

#[test]
fn a_body_without_a_length_is_cut_off_at_the_limit() {
    let edge = plain();
    let body = edge.upload(3 << 20);
    let url = format!("https://{HOST}:{{edge}}/_matrix/x");
    let chunked = ["--http1.1", "-H", "Expect:", "-H", "Transfer-Encoding: chunked", "--data-binary", &body];
    let said = edge.curl(&[&chunked[..], &["-w", " %{http_code}", &url]].concat());
    assert!(said.contains("M_TOO_LARGE") && said.ends_with(" 413"), "{said}");
    assert!(
        edge.upstream.requests().iter().all(|request| !request.complete),
        "the upstream took it for a whole request"
    );
    // The connection to the upstream that was left half-way is not used again.
    edge.client().get(HOST, "/_matrix/next").expect(200);
}

#[test]
fn a_body_at_the_limit_passes_with_its_length() {
    let edge = plain();
    let body = vec![b'x'; 1 << 20];
    edge.client().request("POST /_matrix/x", &[&format!("Host: {HOST}")], &body).expect(200);
    let seen = edge.upstream.only();
    assert_eq!(seen.body_length, 1 << 20);
    assert_eq!(seen.header("content-length").unwrap(), (1 << 20).to_string());
    assert_eq!(seen.header("transfer-encoding"), None);

    let file = edge.upload(1 << 20);
    let url = format!("https://{HOST}:{{edge}}/_matrix/h2");
    let said = edge.curl(&["--http2", "--data-binary", &file, "-o", "/dev/null", "-w", "%{http_code}", &url]);
    assert_eq!(said, "200");
    let seen = edge.upstream.wait_for(|request| request.target() == "/_matrix/h2");
    assert_eq!((seen.header("content-length").unwrap(), seen.body_length), ((1 << 20).to_string(), 1 << 20));
}

#[test]
fn an_upload_of_100_mb_passes_in_flat_memory() {
    let edge = plain();
    edge.client().get(HOST, "/_matrix/warm").expect(200);
    let before = edge.gatehouse.process.resident_bytes();
    let mut client = edge.client();
    client.send(format!(
        "POST /_matrix/media/v3/upload HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: {HUNDRED_MB}\r\n\r\n"
    ));
    let piece = vec![b'x'; 1 << 20];
    let mut peak = 0;
    for _ in 0..HUNDRED_MB >> 20 {
        client.send(&piece);
        peak = peak.max(edge.gatehouse.process.resident_bytes());
    }
    client.receive().expect(200);
    assert!(peak < before + FLAT, "from {before} to {peak} bytes");
    let seen = edge.upstream.wait_for(|request| request.target() == "/_matrix/media/v3/upload");
    assert_eq!((seen.body_length, seen.complete), (HUNDRED_MB, true));
}

#[test]
fn a_download_of_100_mb_passes_in_flat_memory_however_slow_the_client_is() {
    let edge = edge(|request| match request.target().as_str() {
        "/_matrix/media/big" => Reply::Flood(HUNDRED_MB),
        _ => Reply::Json(200, "{}".to_owned()),
    });
    edge.client().get(HOST, "/_matrix/warm").expect(200);
    let before = edge.gatehouse.process.resident_bytes();
    let mut client = edge.client();
    client.send(format!("GET /_matrix/media/big HTTP/1.1\r\nHost: {HOST}\r\n\r\n"));
    client.receive_head();
    // Nothing is read while others are served: what the upstream has ready must not pile up in the edge.
    for _ in 0..50 {
        edge.client().get(HOST, "/_matrix/other").expect(200);
    }
    let peak = edge.gatehouse.process.resident_bytes();
    assert_eq!(client.count_body(HUNDRED_MB), HUNDRED_MB);
    let peak = peak.max(edge.gatehouse.process.resident_bytes());
    assert!(peak < before + FLAT, "from {before} to {peak} bytes");
}

#[test]
fn http_2_carries_100_mb_both_ways_in_flat_memory() {
    let edge = edge(|request| match request.target().as_str() {
        "/_matrix/media/big" => Reply::Flood(HUNDRED_MB),
        _ => Reply::Json(200, "{}".to_owned()),
    });
    edge.client().get(HOST, "/_matrix/warm").expect(200);
    let before = edge.gatehouse.process.resident_bytes();

    let body = edge.upload(usize::try_from(HUNDRED_MB).unwrap());
    let url = format!("https://{HOST}:{{edge}}/_matrix/media/v3/upload");
    let quiet = ["--http2", "-o", "/dev/null"];
    let sent =
        edge.curl(&[&quiet[..], &["-T", &body[1..], "-w", "%{http_code} %{http_version}", &url]].concat());
    assert_eq!(sent, "200 2");
    let seen = edge.upstream.wait_for(|request| request.target() == "/_matrix/media/v3/upload");
    assert_eq!((seen.body_length, seen.complete), (HUNDRED_MB, true));
    assert_eq!(seen.header("content-length").unwrap(), HUNDRED_MB.to_string());

    // Slower than the upstream: what it has ready must not pile up in the edge.
    let url = format!("https://{HOST}:{{edge}}/_matrix/media/big");
    let slow = ["--limit-rate", "30M", "-w", "%{http_code} %{size_download}", &url];
    assert_eq!(edge.curl(&[&quiet[..], &slow].concat()), format!("200 {HUNDRED_MB}"));

    let peak = edge.gatehouse.process.peak_bytes();
    assert!(peak < before + FLAT, "from {before} to {peak} bytes");
}

#[test]
fn a_websocket_passes() {
    let edge = edge(|_| Reply::Echo);
    let mut client = edge.client();
    client.send(format!(
        "GET /socket HTTP/1.1\r\nHost: {HOST}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    ));
    let answer = client.receive().expect(101);
    assert!(answer.header("upgrade").is_some_and(|value| value.eq_ignore_ascii_case("websocket")));
    for message in ["\x00one\x7f", "two"] {
        client.send(message);
        assert_eq!(client.receive_bytes(message.len()), message.as_bytes());
    }
    let seen = edge.upstream.wait_for(|request| request.target() == "/socket");
    assert!(seen.header("upgrade").is_some_and(|value| value.eq_ignore_ascii_case("websocket")));
}

#[test]
fn a_long_poll_of_more_than_a_minute_passes() {
    let edge = edge(|request| match request.target().as_str() {
        "/_matrix/client/v3/sync" => Reply::Late(Duration::from_secs(65)),
        _ => Reply::Json(200, "{}".to_owned()),
    });
    let started = Instant::now();
    let mut client = edge.client();
    client.wait_at_most(Duration::from_secs(120));
    let answer = client.get(HOST, "/_matrix/client/v3/sync").expect(200);
    assert_eq!(answer.json()["late"], true);
    assert!(started.elapsed() >= Duration::from_secs(65));
}
