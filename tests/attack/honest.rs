//! Honest clients at a steady rate, and what their requests took: the measuring half of `tests/attack/run`.
//!
//! Half of them keep their connection, half make a new one for each request, with a full TLS handshake. Each client has a
//! timetable and takes the time from when a request was due, not from when it could be sent: a server that stalls is not
//! spared the requests that had to wait for it. A failed request is a failed request; nothing is tried again, but for a
//! connection whose end the server had announced.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use clap::Parser;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_rustls::TlsConnector;

/// Sends requests at a steady rate; one line of JSON at the end.
#[derive(Parser, Clone)]
struct Options {
    /// The server.
    #[arg(long)]
    server: SocketAddr,
    /// `Host`, and the server name of TLS.
    #[arg(long)]
    host: String,
    /// Target of every request.
    #[arg(long)]
    path: String,
    /// Trust this authority, and speak TLS.
    #[arg(long)]
    ca: Option<std::path::PathBuf>,
    /// Where the connections come from.
    #[arg(long, default_value = "127.0.0.2")]
    source: IpAddr,
    /// Clients that keep their connection.
    #[arg(long, default_value_t = 25)]
    kept: u32,
    /// Clients that make a new connection for each request.
    #[arg(long, default_value_t = 25)]
    fresh: u32,
    /// Requests of each client in a second.
    #[arg(long, default_value_t = 10.0)]
    rate: f64,
    /// How long.
    #[arg(long, default_value_t = 10.0)]
    seconds: f64,
    /// Bytes of every answer.
    #[arg(long)]
    size: usize,
}

/// A request without an answer after this long has failed, in seconds.
const PATIENCE: u64 = 20;

trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}
type Connection = Box<dyn Duplex>;

/// What one kind of client saw.
#[derive(Default)]
struct Seen {
    /// Microseconds from when a request was due to its last byte.
    took: Vec<u64>,
    failures: BTreeMap<String, u32>,
    connections: u32,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let options = Arc::new(Options::parse());
    let tls = options.ca.as_deref().map(connector).transpose()?;
    let mut clients = tokio::task::JoinSet::new();
    let begin = Instant::now() + Duration::from_millis(100);
    let count = options.kept + options.fresh;
    for number in 0..count {
        // Spread over one period, kept and fresh ones in turn.
        let first = begin + Duration::from_secs_f64(f64::from(number) / f64::from(count) / options.rate);
        let keeps = number * options.kept / count != (number + 1) * options.kept / count;
        clients.spawn(client(options.clone(), tls.clone(), keeps, first));
    }
    let (mut kept, mut fresh) = (Seen::default(), Seen::default());
    while let Some(ended) = clients.join_next().await {
        let (keeps, seen) = ended?;
        let sum = if keeps { &mut kept } else { &mut fresh };
        sum.took.extend(seen.took);
        sum.connections += seen.connections;
        for (what, times) in seen.failures {
            *sum.failures.entry(what).or_default() += times;
        }
    }
    println!("{}", json!({"kept": kept.summary(), "fresh": fresh.summary()}));
    Ok(())
}

/// One client's requests, one after the other.
async fn client(
    options: Arc<Options>,
    tls: Option<TlsConnector>,
    keeps: bool,
    first: Instant,
) -> (bool, Seen) {
    let mut seen = Seen::default();
    let period = Duration::from_secs_f64(1.0 / options.rate);
    let end = first + Duration::from_secs_f64(options.seconds);
    let mut connection = None;
    let mut due = first;
    while due < end {
        let is_late = Instant::now() > due;
        sleep_until(due).await;
        // A timer of this program that rings late is not the server's fault.
        let begun = if is_late { due } else { Instant::now() };
        let exchange = request(&options, tls.as_ref(), keeps, &mut connection, &mut seen.connections);
        let outcome = timeout(Duration::from_secs(PATIENCE), exchange).await;
        match outcome.unwrap_or_else(|_| Err(anyhow::anyhow!("no answer after {PATIENCE} s"))) {
            Ok(()) => seen.took.push(u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX)),
            Err(error) => {
                connection = None;
                *seen.failures.entry(format!("{error:#}")).or_default() += 1;
            }
        }
        due += period;
    }
    (keeps, seen)
}

/// One request and its whole answer.
async fn request(
    options: &Options,
    tls: Option<&TlsConnector>,
    keeps: bool,
    kept: &mut Option<Connection>,
    connections: &mut u32,
) -> Result<()> {
    let mut connection = match kept.take() {
        Some(connection) => connection,
        None => {
            *connections += 1;
            connect(options, tls).await?
        }
    };
    let wish = if keeps { "keep-alive" } else { "close" };
    let head = format!(
        "GET {} HTTP/1.1\r\nHost: {}\r\nConnection: {wish}\r\nAccept: application/json\r\n\r\n",
        options.path, options.host
    );
    connection.write_all(head.as_bytes()).await.context("sending")?;
    connection.flush().await.context("sending")?;
    let is_last = answer(&mut connection, options.size).await?;
    if keeps && !is_last {
        *kept = Some(connection);
    } else {
        // An end without a goodbye would count as a fault of TLS with the server.
        let _ = connection.shutdown().await;
    }
    Ok(())
}

async fn connect(options: &Options, tls: Option<&TlsConnector>) -> Result<Connection> {
    let socket = if options.server.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.bind(SocketAddr::new(options.source, 0))?;
    let stream: TcpStream = socket.connect(options.server).await.context("connecting")?;
    stream.set_nodelay(true)?;
    match tls {
        None => Ok(Box::new(stream)),
        Some(tls) => {
            let name = ServerName::try_from(options.host.clone())?;
            Ok(Box::new(tls.connect(name, stream).await.context("TLS handshake")?))
        }
    }
}

/// Reads an answer; whether the server has announced the end of the connection.
async fn answer(connection: &mut Connection, size: usize) -> Result<bool> {
    let mut read = Vec::with_capacity(size + 2048);
    let (head, length) = loop {
        ensure!(connection.read_buf(&mut read).await.context("reading")? > 0, "closed without an answer");
        if let Some(end) = read.windows(4).position(|window| window == b"\r\n\r\n") {
            break (String::from_utf8_lossy(&read[..end]).to_ascii_lowercase(), end + 4);
        }
    };
    let status = head.split(' ').nth(1).unwrap_or("?");
    ensure!(status == "200", "status {status}");
    ensure!(head.contains(&format!("\r\ncontent-length: {size}")), "another length than {size}");
    while read.len() < length + size {
        if connection.read_buf(&mut read).await.context("reading")? == 0 {
            bail!("closed within the answer");
        }
    }
    Ok(head.contains("\r\nconnection: close"))
}

fn connector(ca: &std::path::Path) -> Result<TlsConnector> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(ca)? {
        roots.add(certificate?)?;
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    // A full handshake for each connection, as from a client never seen before.
    config.resumption = rustls::client::Resumption::disabled();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsConnector::from(Arc::new(config)))
}

impl Seen {
    fn summary(mut self) -> Value {
        self.took.sort_unstable();
        let count = self.took.len();
        // The smallest value that at least this share of the requests did not exceed.
        let at = |share: f64| {
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                clippy::cast_precision_loss,
                reason = "a share of a number of requests is a number of requests"
            )]
            let index = ((count as f64 * share).ceil() as usize).saturating_sub(1);
            self.took.get(index).copied()
        };
        json!({
            "requests": count, "connections": self.connections, "failures": self.failures,
            "p50": at(0.5), "p90": at(0.9), "p99": at(0.99), "p999": at(0.999), "max": at(1.0),
        })
    }
}
