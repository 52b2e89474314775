//! Binding, with real sockets.

use std::fs;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::path::Path;
use std::time::Duration;

use conf::{Bind, SocketKind};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

use super::*;
use crate::fixtures::bind;

fn tcp(address: &str) -> Bind {
    Bind::Address(address.parse().unwrap())
}

fn unix(path: &Path) -> Bind {
    Bind::Socket { path: path.to_owned(), mode: None }
}

fn port(bound: &Bound) -> u16 {
    match bound.address {
        BoundAddress::Tcp(address) => address.port(),
        BoundAddress::Unix(_) => panic!("not TCP"),
    }
}

fn listeners(bound: Bound) -> Vec<Listener> {
    bound.sockets.into_iter().map(|socket| socket.into_listener().unwrap()).collect()
}

/// Whoever accepts next, of all listeners.
async fn accept_any(listeners: &[Listener]) -> (usize, Stream, Remote) {
    let (index, accepted) = std::future::poll_fn(|context| {
        for (index, listener) in listeners.iter().enumerate() {
            let accepting = std::pin::pin!(listener.accept());
            if let std::task::Poll::Ready(accepted) = accepting.poll(context) {
                return std::task::Poll::Ready((index, accepted.unwrap()));
            }
        }
        std::task::Poll::Pending
    })
    .await;
    (index, accepted.0, accepted.1)
}

#[tokio::test]
async fn port_zero_is_reported_and_accepts() {
    let bound = bind(&tcp("127.0.0.1:0"), 1).await.unwrap();
    assert_eq!(bound.address.to_string(), format!("127.0.0.1:{}", port(&bound)));
    let address = ("127.0.0.1", port(&bound));
    let listener = listeners(bound).remove(0);
    let mut client = TcpStream::connect(address).await.unwrap();
    let (mut stream, remote) = listener.accept().await.unwrap();
    assert_eq!(remote, Remote::Ip(client.local_addr().unwrap()));
    assert_eq!(stream.local(), Some(client.peer_addr().unwrap()));
    let Stream::Tcp(socket) = &stream else { panic!("not TCP") };
    assert!(socket.nodelay().unwrap(), "inherited from the listening socket");
    assert!(socket2::SockRef::from(socket).keepalive().unwrap());
    client.write_all(b"hello").await.unwrap();
    let mut read = [0; 5];
    stream.read_exact(&mut read).await.unwrap();
    assert_eq!(&read, b"hello");
}

#[tokio::test]
async fn the_system_takes_little_for_a_client_that_takes_nothing() {
    let bound = bind(&tcp("127.0.0.1:0"), 1).await.unwrap();
    let address = ("127.0.0.1", port(&bound));
    let listener = listeners(bound).remove(0);
    let client = tokio::net::TcpSocket::new_v4().unwrap();
    client.set_recv_buffer_size(4096).unwrap();
    let client = client.connect(SocketAddr::from(([127, 0, 0, 1], address.1))).await.unwrap();
    let (mut stream, _) = listener.accept().await.unwrap();
    let mut written = 0;
    while let Ok(count) = timeout(Duration::from_secs(1), stream.write(&[b'x'; 1 << 14])).await {
        written += count.unwrap();
        assert!(written < 400 << 10, "{written} bytes");
    }
    assert!(written >= 64 << 10, "only {written} bytes");
    drop(client);
}

#[tokio::test]
async fn every_socket_of_a_bind_takes_connections() {
    let bound = bind(&tcp("127.0.0.1:0"), 3).await.unwrap();
    let address = ("127.0.0.1", port(&bound));
    let listeners = listeners(bound);
    let mut taken = [0; 3];
    let mut clients = Vec::new();
    for _ in 0..120 {
        clients.push(TcpStream::connect(address).await.unwrap());
        taken[accept_any(&listeners).await.0] += 1;
    }
    // The kernel spreads by a hash of the addresses: each gets 40 on average.
    assert!(taken.iter().all(|count| *count > 5), "{taken:?}");
}

#[tokio::test]
async fn port_in_use_is_an_error_in_spite_of_reuseport() {
    let first = bind(&tcp("127.0.0.1:0"), 2).await.unwrap();
    let taken = tcp(&format!("127.0.0.1:{}", port(&first)));
    let error = bind(&taken, 2).await.unwrap_err();
    assert_eq!(error.to_string(), format!("127.0.0.1:{} is in use by another process", port(&first)));
    let everywhere = Bind::Host { host: None, port: port(&first) };
    assert!(matches!(bind(&everywhere, 2).await, Err(BindError::InUse { .. })));
    drop(first);
    bind(&taken, 2).await.unwrap();
}

#[tokio::test]
async fn connections_of_a_former_process_do_not_keep_the_port() {
    let bound = bind(&tcp("127.0.0.1:0"), 2).await.unwrap();
    let address = format!("127.0.0.1:{}", port(&bound));
    let listeners = listeners(bound);
    let client = TcpStream::connect(&address).await.unwrap();
    let (_, open, _) = accept_any(&listeners).await;
    drop(listeners);
    bind(&tcp(&address), 2).await.unwrap();
    drop((open, client));
}

#[tokio::test]
async fn unspecified_v6_accepts_v4_too() {
    for form in [tcp("[::]:0"), Bind::Host { host: None, port: 0 }] {
        let bound = bind(&form, 1).await.unwrap();
        let port = port(&bound);
        let listener = listeners(bound).remove(0);
        let client = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        let (stream, remote) = listener.accept().await.unwrap();
        assert_eq!(remote, Remote::Ip(client.local_addr().unwrap()), "as IPv4, not mapped");
        assert_eq!(stream.local(), Some(client.peer_addr().unwrap()));
    }
}

#[tokio::test]
async fn host_is_resolved_to_the_first_address_that_binds() {
    let localhost = Bind::Host { host: Some("localhost".into()), port: 0 };
    let bound = bind(&localhost, 2).await.unwrap();
    let BoundAddress::Tcp(address) = bound.address else { panic!("not TCP") };
    assert!(address.ip().is_loopback());
    let bracketed = Bind::Host { host: Some("127.0.0.1".into()), port: 0 };
    assert!(bind(&bracketed, 1).await.is_ok());
    let nowhere = Bind::Host { host: Some("does-not-exist.invalid".into()), port: 1 };
    assert!(matches!(bind(&nowhere, 1).await, Err(BindError::Resolve { .. })));
    let foreign = bind(&tcp("192.0.2.1:0"), 1).await.unwrap_err();
    assert_eq!(foreign.to_string(), "cannot bind 192.0.2.1:0");
}

#[tokio::test]
async fn unix_socket_has_its_mode_and_is_removed_with_the_last_listener() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    let bound = bind(&Bind::Socket { path: path.clone(), mode: Some(0o660) }, 2).await.unwrap();
    assert_eq!(bound.address.to_string(), format!("unix:{}", path.display()));
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o660);
    let mut listeners = listeners(bound);
    let client = UnixStream::connect(&path).await.unwrap();
    // Pingora uses a connection again only when it leads where it meant to go.
    assert_eq!(client.peer_addr().unwrap().as_pathname(), Some(path.as_path()));
    let (_, stream, remote) = accept_any(&listeners).await;
    assert_eq!((remote, stream.local()), (Remote::Unix, None));
    drop((client, listeners.pop()));
    assert!(path.exists());
    drop(listeners);
    assert!(!path.exists());
}

#[tokio::test]
async fn default_mode_is_for_the_owner_only() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    let _bound = bind(&unix(&path), 1).await.unwrap();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
}

#[tokio::test]
async fn stale_unix_socket_is_replaced_and_a_live_one_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    assert!(path.exists(), "stale");
    let live = bind(&unix(&path), 1).await.unwrap();
    let error = bind(&unix(&path), 1).await.unwrap_err();
    assert_eq!(error.to_string(), format!("unix:{} is in use by another process", path.display()));
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    drop(live);
    assert!(!path.exists());
}

#[tokio::test]
async fn a_file_at_the_path_is_not_touched() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    fs::write(&path, "precious").unwrap();
    assert!(matches!(bind(&unix(&path), 1).await, Err(BindError::NotASocket { .. })));
    assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
    let missing = folder.path().join("missing/socket");
    assert!(matches!(bind(&unix(&missing), 1).await, Err(BindError::System { .. })));
    let long = folder.path().join("x".repeat(108));
    assert!(matches!(bind(&unix(&long), 1).await, Err(BindError::PathTooLong { .. })));
}

#[tokio::test]
async fn a_path_as_long_as_allowed_binds() {
    let folder = tempfile::tempdir().unwrap();
    let room = 107 - folder.path().as_os_str().len() - 1;
    let path = folder.path().join("x".repeat(room));
    let _bound = bind(&unix(&path), 1).await.unwrap();
    assert!(fs::symlink_metadata(&path).unwrap().file_type().is_socket());
}

#[tokio::test]
async fn socket_that_took_the_path_later_is_not_removed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    let first = bind(&unix(&path), 1).await.unwrap();
    fs::remove_file(&path).unwrap();
    let _second = bind(&unix(&path), 1).await.unwrap();
    drop(first);
    assert!(path.exists());
}

#[tokio::test]
async fn missing_inherited_socket_is_explained() {
    let error = bind(&Bind::Fd { index: 0, kind: SocketKind::Tcp }, 1).await.unwrap_err();
    assert!(error.to_string().starts_with("inherited socket 0: none was handed over"), "{error}");
}
