//! Whole listeners on real sockets: who the client is, which URLs there are, how connections end.

use std::net::SocketAddr;
use std::path::PathBuf;

use conf::{Bind, Resource};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};

use std::sync::Arc;
use std::time::Duration;

use accept::BoundAddress;
use conf::AuthListener;
use tokio::sync::watch;

use crate::Service;
use crate::error::ServiceError;
use crate::fixture::Fixture;

mod client;
mod http2;
mod life;
mod limits;
mod tls;
mod urls;

/// A service that serves.
struct Running {
    fixture: Fixture,
    addresses: Vec<BoundAddress>,
    stop: watch::Sender<bool>,
    served: tokio::task::JoinHandle<Result<(), ServiceError>>,
}

/// One listener on a port of its own with these resources.
fn tcp(resources: &[Resource]) -> AuthListener {
    AuthListener {
        name: "web".into(),
        resources: resources.to_vec(),
        prefix: String::new(),
        binds: vec![Bind::Address("127.0.0.1:0".parse().expect("an address"))],
        proxy_protocol: false,
        tls: None,
    }
}

impl Running {
    async fn start(listener: AuthListener) -> Self {
        Self::trusting(&["127.0.0.0/8"], listener).await
    }

    async fn trusting(proxies: &[&str], listener: AuthListener) -> Self {
        let nowhere = "http://127.0.0.1:1/".parse().expect("a URL");
        let fixture = Fixture::with(&nowhere, "secret", |config| {
            config.http.trusted_proxies =
                proxies.iter().map(|text| text.parse().expect("a network")).collect();
            config.http.listeners = vec![listener];
        })
        .await;
        let mut service = Service::of(fixture.state.clone()).await.expect("a service");
        let mut change = accept::Sockets::default().change();
        service.bind(&mut change).await.expect("bound");
        change.commit();
        let addresses = service.addresses().into_iter().map(|(_, address)| address).collect();
        let (stop, stopping) = watch::channel(false);
        let served = tokio::spawn(service.serve(stopping));
        Self { fixture, addresses, stop, served }
    }

    fn address(&self) -> SocketAddr {
        match &self.addresses[0] {
            BoundAddress::Tcp(address) => *address,
            BoundAddress::Unix(_) => panic!("a Unix socket has no port"),
        }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address()).await.expect("a connection")
    }

    /// One request with these further lines on a connection of its own.
    async fn get(&self, path: &str, lines: &str) -> Answer {
        ask(self.connect().await, "GET", path, lines).await
    }

    async fn request(&self, method: &str, path: &str) -> Answer {
        ask(self.connect().await, method, path, "").await
    }
}

/// An answer as read.
#[derive(Debug)]
struct Answer {
    status: u16,
    /// In lower case.
    head: String,
    body: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }
}

/// Writes a request that asks for the connection to be closed, and reads to its end.
async fn ask(
    mut stream: impl AsyncReadExt + AsyncWrite + Unpin,
    method: &str,
    path: &str,
    lines: &str,
) -> Answer {
    let request =
        format!("{method} {path} HTTP/1.1\r\nHost: auth.example.com\r\nConnection: close\r\n{lines}\r\n");
    stream.write_all(request.as_bytes()).await.expect("written");
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).await.expect("read");
    let text = String::from_utf8(bytes).expect("text");
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {text:?}"));
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
    Answer { status, head: head.to_lowercase(), body: body.to_owned() }
}

fn socket_of(folder: &tempfile::TempDir) -> PathBuf {
    folder.path().join("auth.sock")
}
