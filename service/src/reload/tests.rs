//! A running service whose configuration changes, on real sockets with a stand-in for Synapse: what goes on, what changes, and what a
//! faulty configuration does (nothing).

use std::net::SocketAddr;
use std::time::Duration;

use accept::Sockets;
use conf::{Auth, AuthListener, Bind, Resource};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::sync::watch;

use super::*;
use crate::Service;
use crate::domain::account::{self, NewUser};
use crate::fixture::{self, Fixture};
use crate::storage::Storage;
use crate::synapse::stand_in::{Call, SECRET, StandIn};

mod databases;
mod listeners;
mod processes;

/// Deadlines of tests: a loaded machine is slow.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// A service that serves, with a user `alice` whose password is `secret`.
pub(crate) struct Running {
    pub(crate) fixture: Fixture,
    synapse: StandIn,
    sockets: Sockets,
    handle: ServiceHandle,
    addresses: Vec<SocketAddr>,
    stop: watch::Sender<bool>,
    served: tokio::task::JoinHandle<Result<(), ServiceError>>,
}

pub(crate) fn listener(name: &str, resources: &[Resource], address: &str) -> AuthListener {
    AuthListener {
        name: name.into(),
        resources: resources.to_vec(),
        prefix: String::new(),
        binds: vec![Bind::Address(address.parse().expect("an address"))],
        proxy_protocol: false,
        tls: None,
    }
}

/// Everything that is served, on a port of its own.
pub(crate) fn web() -> AuthListener {
    let all =
        [Resource::Health, Resource::Compat, Resource::Oauth, Resource::ConnectionInfo, Resource::Prometheus];
    listener("web", &all, "127.0.0.1:0")
}

async fn add_user(state: &State, username: &str) {
    let password = Some(state.passwords.hash("secret".into()).await.expect("a hash"));
    let new = NewUser { username: username.into(), password, ..NewUser::default() };
    let made = account::create(&state.storage, "example.com", &new, state.clock.now(), &state.rng).await;
    made.expect("a user");
}

impl Running {
    pub(crate) async fn start() -> Self {
        Self::with(|config| config.http.listeners = vec![web()]).await
    }

    pub(crate) async fn with(change: impl FnOnce(&mut Auth)) -> Self {
        let synapse = StandIn::tcp().await;
        let fixture = Fixture::with(&synapse.endpoint, SECRET, change).await;
        add_user(&fixture.state, "alice").await;
        let mut service = Service::of(fixture.state.clone()).await.expect("a service");
        let sockets = Sockets::default();
        let mut change = sockets.change();
        service.bind(&mut change).await.expect("bound");
        let addresses = tcp(&service.addresses());
        change.commit();
        let handle = service.handle();
        let (stop, stopping) = watch::channel(false);
        let served = tokio::spawn(service.serve(stopping));
        Self { fixture, synapse, sockets, handle, addresses, stop, served }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.addresses[0]
    }

    /// Puts a changed configuration in force, as the whole program does; the addresses that are served then.
    pub(crate) async fn reload(
        &self,
        change: impl FnOnce(&mut Auth),
    ) -> Result<Vec<SocketAddr>, ServiceError> {
        let mut config = (*self.handle.state().await.config).clone();
        change(&mut config);
        let mut change = self.sockets.change();
        let folder = self.fixture.folder();
        let prepared = self.handle.prepare(Arc::new(config), folder, &mut change).await?;
        let addresses = tcp(&prepared.addresses());
        prepared.commit();
        change.commit();
        Ok(addresses)
    }

    pub(crate) async fn connect(&self) -> Client {
        Client::to(self.address()).await
    }

    /// Stops, and waits for the end.
    pub(crate) async fn end(self) {
        self.sockets.close();
        self.stop.send_replace(true);
        let served = tokio::time::timeout(PATIENCE, self.served).await.expect("it ends");
        served.expect("no panic").expect("no fault");
    }
}

fn tcp(addresses: &[(String, BoundAddress)]) -> Vec<SocketAddr> {
    let of = |(_, address): &(String, BoundAddress)| match address {
        BoundAddress::Tcp(address) => *address,
        BoundAddress::Unix(path) => panic!("{path:?} is no port"),
    };
    addresses.iter().map(of).collect()
}

/// One connection with keep-alive.
pub(crate) struct Client(pub(crate) BufReader<TcpStream>);

/// What came back.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// In lower case.
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    pub(crate) fn says_close(&self) -> bool {
        self.head.contains("connection: close")
    }
}

impl Client {
    pub(crate) async fn to(address: SocketAddr) -> Self {
        Self(BufReader::new(TcpStream::connect(address).await.expect("a connection")))
    }

    /// The answer of a connection of its own, if there is one.
    pub(crate) async fn try_get(address: SocketAddr, path: &str) -> Option<String> {
        let mut stream = TcpStream::connect(address).await.ok()?;
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.ok()?;
        let mut text = String::new();
        stream.read_to_string(&mut text).await.ok().filter(|read| *read > 0).map(|_| text)
    }

    pub(crate) async fn write(&mut self, text: &str) {
        self.0.get_mut().write_all(text.as_bytes()).await.expect("written");
    }

    pub(crate) async fn get(&mut self, path: &str) -> Answer {
        self.write(&format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n")).await;
        self.answer().await
    }

    pub(crate) async fn post(&mut self, path: &str, lines: &str, body: &str) -> Answer {
        self.write(&posting(path, lines, body)).await;
        self.answer().await
    }

    pub(crate) async fn login(&mut self, user: &str) -> Answer {
        self.post("/_matrix/client/v3/login", "", &login_of(user)).await
    }

    pub(crate) async fn logout(&mut self, token: &str) -> Answer {
        self.post("/_matrix/client/v3/logout", &format!("Authorization: Bearer {token}\r\n"), "{}").await
    }

    /// Whether Synapse would be told that the token is good.
    pub(crate) async fn is_active(&mut self, token: &str) -> bool {
        let lines =
            format!("Authorization: Bearer {SECRET}\r\nContent-Type: application/x-www-form-urlencoded\r\n");
        let answer = self.post("/oauth2/introspect", &lines, &format!("token={token}")).await;
        answer.json()["active"].as_bool().unwrap_or_else(|| panic!("{answer:?}"))
    }

    pub(crate) async fn answer(&mut self) -> Answer {
        tokio::time::timeout(PATIENCE, self.read()).await.expect("an answer in time")
    }

    pub(crate) async fn read(&mut self) -> Answer {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            let read = self.0.read_line(&mut head).await.expect("a line");
            assert!(read > 0, "closed after {head:?}");
        }
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
        let head = head.to_lowercase();
        if status == 100 || head.contains("transfer-encoding") {
            panic!("an answer of a known length: {head}");
        }
        let length = head.split("content-length: ").nth(1).and_then(|rest| rest.lines().next());
        let length = length.map_or(0, |length| length.parse().expect("a number"));
        let mut body = vec![0; length];
        self.0.read_exact(&mut body).await.expect("a body");
        Answer { status, head, body: String::from_utf8_lossy(&body).into_owned() }
    }

    /// Waits for the other end to close, with nothing before it.
    pub(crate) async fn closes(&mut self) {
        let mut rest = Vec::new();
        let end = tokio::time::timeout(PATIENCE, self.0.read_to_end(&mut rest)).await.expect("it is closed");
        assert!(rest.is_empty() || end.is_err(), "{:?}", String::from_utf8_lossy(&rest));
    }
}

pub(crate) fn posting(path: &str, lines: &str, body: &str) -> String {
    let length = body.len();
    format!("POST {path} HTTP/1.1\r\nHost: x\r\n{lines}Content-Length: {length}\r\n\r\n{body}")
}

pub(crate) fn login_of(user: &str) -> String {
    let identifier = json!({"type": "m.id.user", "user": user});
    json!({"type": "m.login.password", "identifier": identifier, "password": "secret"}).to_string()
}

fn token_of(answer: &Answer) -> String {
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()["access_token"].as_str().expect("a token").to_owned()
}
