//! The accept loop with real connections.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::*;
use crate::acceptor::{HeaderBounds, ProxyPolicy};
use crate::bind::BoundAddress;
use crate::fixtures::bind;

struct Served {
    address: SocketAddr,
    stop: watch::Sender<bool>,
    terms: watch::Sender<Terms>,
    limits: Arc<ConnectionLimits>,
    served: JoinHandle<()>,
}

/// Sockets on one port.
async fn bound(count: usize) -> (SocketAddr, Vec<Listener>) {
    let bound = bind(&conf::Bind::Address("127.0.0.1:0".parse().unwrap()), count).await.unwrap();
    let BoundAddress::Tcp(address) = bound.address else { panic!("not TCP") };
    (address, bound.sockets.into_iter().map(|socket| socket.into_listener().unwrap()).collect())
}

fn plain(proxy: ProxyPolicy) -> Acceptor {
    Acceptor {
        listener: "test".into(),
        proxy,
        tls: None,
        header: HeaderBounds::default(),
        handshake: Duration::from_secs(5),
    }
}

/// A server that echoes until the client is done.
async fn echo(limits: ConnectionLimits, proxy: ProxyPolicy, drain: Duration) -> Served {
    let (address, listeners) = bound(1).await;
    let acceptor = plain(proxy);
    let (stop, stopped) = watch::channel(false);
    let limits = Arc::new(limits);
    let handle = |io, _connection| async move {
        let (mut reader, mut writer) = tokio::io::split(io);
        let _ = tokio::io::copy(&mut reader, &mut writer).await;
    };
    let (terms, agreed) = watch::channel(Terms { acceptor: Arc::new(acceptor), drain });
    let served = tokio::spawn(serve(listeners, agreed, limits.clone(), stopped, handle));
    Served { address, stop, terms, limits, served }
}

async fn ping(client: &mut TcpStream) -> io::Result<()> {
    client.write_all(b"ping").await?;
    let mut pong = [0; 4];
    client.read_exact(&mut pong).await.map(drop)
}

async fn until(condition: impl Fn() -> bool) {
    while !condition() {
        sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test]
async fn stop_closes_the_listener_and_lets_connections_finish() {
    let server = echo(ConnectionLimits::new(10, 10), ProxyPolicy::Off, Duration::from_secs(30)).await;
    let mut client = TcpStream::connect(server.address).await.unwrap();
    ping(&mut client).await.unwrap();
    server.stop.send(true).unwrap();
    while TcpStream::connect(server.address).await.is_ok() {}
    ping(&mut client).await.unwrap();
    assert!(!server.served.is_finished());
    drop(client);
    server.served.await.unwrap();
    assert_eq!(server.limits.open(), 0);
}

#[tokio::test]
async fn drain_has_a_deadline() {
    let server = echo(ConnectionLimits::new(10, 10), ProxyPolicy::Off, Duration::from_millis(50)).await;
    let mut client = TcpStream::connect(server.address).await.unwrap();
    ping(&mut client).await.unwrap();
    let started = Instant::now();
    server.stop.send(true).unwrap();
    server.served.await.unwrap();
    assert!(started.elapsed() < Duration::from_secs(5));
    assert!(ping(&mut client).await.is_err());
    assert_eq!(server.limits.open(), 0);
}

#[tokio::test]
async fn losing_whoever_could_stop_it_stops_it() {
    let server = echo(ConnectionLimits::new(10, 10), ProxyPolicy::Off, Duration::from_secs(30)).await;
    drop(server.stop);
    server.served.await.unwrap();
}

#[tokio::test]
async fn connections_over_the_limits_are_closed() {
    for limits in [ConnectionLimits::new(2, 10), ConnectionLimits::new(10, 2)] {
        let server = echo(limits, ProxyPolicy::Off, Duration::ZERO).await;
        let mut open = Vec::new();
        for _ in 0..2 {
            let mut client = TcpStream::connect(server.address).await.unwrap();
            ping(&mut client).await.unwrap();
            open.push(client);
        }
        let mut third = TcpStream::connect(server.address).await.unwrap();
        assert!(ping(&mut third).await.is_err());
        open.pop();
        until(|| server.limits.open() < 2).await;
        let mut fourth = TcpStream::connect(server.address).await.unwrap();
        ping(&mut fourth).await.unwrap();
    }
}

#[tokio::test]
async fn address_of_the_proxy_header_is_the_one_that_counts() {
    let policy = ProxyPolicy::Always(vec!["127.0.0.0/8".parse().unwrap()]);
    let server = echo(ConnectionLimits::new(10, 1), policy, Duration::ZERO).await;
    let mut open = Vec::new();
    for (source, served) in [("203.0.113.7", true), ("203.0.113.8", true), ("203.0.113.7", false)] {
        let mut client = TcpStream::connect(server.address).await.unwrap();
        client.write_all(format!("PROXY TCP4 {source} 10.0.0.1 1 2\r\n").as_bytes()).await.unwrap();
        assert_eq!(ping(&mut client).await.is_ok(), served, "{source}");
        open.push(client);
    }
}

#[tokio::test]
async fn panic_in_one_connection_leaves_the_others() {
    let (address, listeners) = bound(1).await;
    let acceptor = plain(ProxyPolicy::Off);
    let (_stop, stopped) = watch::channel(false);
    let limits = Arc::new(ConnectionLimits::new(1, 1));
    let calls = Arc::new(AtomicUsize::new(0));
    let handle = move |mut io: Io, _| {
        let first = calls.fetch_add(1, Ordering::Relaxed) == 0;
        async move {
            assert!(!first, "on purpose");
            io.write_all(b"fine").await.unwrap();
        }
    };
    let (_terms, agreed) = watch::channel(Terms { acceptor: Arc::new(acceptor), drain: Duration::ZERO });
    tokio::spawn(serve(listeners, agreed, limits.clone(), stopped, handle));
    let mut read = Vec::new();
    let mut client = TcpStream::connect(address).await.unwrap();
    let _ = client.read_to_end(&mut read).await;
    until(|| limits.open() == 0).await;
    let mut client = TcpStream::connect(address).await.unwrap();
    client.read_to_end(&mut read).await.unwrap();
    assert_eq!(read, b"fine");
}

#[tokio::test]
async fn what_waits_in_the_queue_is_served_before_the_socket_is_closed() {
    let (address, listeners) = bound(3).await;
    let mut clients = Vec::new();
    for _ in 0..50 {
        clients.push(TcpStream::connect(address).await.unwrap());
    }
    let acceptor = plain(ProxyPolicy::Off);
    let (_stop, stopped) = watch::channel(true);
    let (_terms, agreed) =
        watch::channel(Terms { acceptor: Arc::new(acceptor), drain: Duration::from_secs(30) });
    let handle = |mut io: Io, _| async move {
        let _ = io.write_all(b"fine").await;
    };
    let draining =
        accept(listeners, agreed, Arc::new(ConnectionLimits::new(100, 100)), stopped, handle).await;
    assert!(TcpStream::connect(address).await.is_err(), "closed");
    draining.finish().await;
    for mut client in clients {
        let mut read = Vec::new();
        client.read_to_end(&mut read).await.unwrap();
        assert_eq!(read, b"fine");
    }
}

#[tokio::test]
async fn all_sockets_of_a_listener_are_served() {
    let (address, listeners) = bound(4).await;
    let acceptor = plain(ProxyPolicy::Off);
    let (_stop, stopped) = watch::channel(false);
    let (_terms, agreed) = watch::channel(Terms { acceptor: Arc::new(acceptor), drain: Duration::ZERO });
    let handle = |mut io: Io, _| async move {
        let _ = io.write_all(b"fine").await;
    };
    tokio::spawn(serve(listeners, agreed, Arc::new(ConnectionLimits::new(1000, 1000)), stopped, handle));
    // The kernel spreads them over the sockets by hash.
    for _ in 0..100 {
        let mut read = Vec::new();
        TcpStream::connect(address).await.unwrap().read_to_end(&mut read).await.unwrap();
        assert_eq!(read, b"fine");
    }
}

#[tokio::test]
async fn new_terms_are_for_new_connections() {
    let server = echo(ConnectionLimits::new(10, 10), ProxyPolicy::Off, Duration::ZERO).await;
    let mut before = TcpStream::connect(server.address).await.unwrap();
    ping(&mut before).await.unwrap();
    server.terms.send_modify(|terms| {
        let demanding = ProxyPolicy::Always(vec!["127.0.0.0/8".parse().unwrap()]);
        terms.acceptor = Arc::new(Acceptor { proxy: demanding, ..Acceptor::clone(&terms.acceptor) });
    });
    let mut after = TcpStream::connect(server.address).await.unwrap();
    assert!(ping(&mut after).await.is_err(), "a PROXY header is missing");
    ping(&mut before).await.unwrap();
}
