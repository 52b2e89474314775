//! The targets that a federation signs: 10,000 from the grammar of RFC 3986, through the preset over HTTP/1.1 and HTTP/2. Each
//! arrives byte for byte, its signature intact, or is refused with 400 for a reason that `proxy/README.md` has in a table.
//!
//! `GATEHOUSE_TARGETS_SEED` and `GATEHOUSE_TARGETS_COUNT` repeat a run and prolong it.

mod generator;
mod signature;
mod verdict;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::{ClientConnection, StreamOwned};

use crate::harness::http2::Http2;
use crate::harness::{
    Certificates, Client, Dice, Folder, Gatehouse, Recorded, Reply, Upstream, number_from_environment,
};
use signature::Signer;
use verdict::{REASONS, Reason};

const HOST: &str = "matrix.example.com";
const COUNT: u64 = 10_000;
const SEED: u64 = 0x6d61_7472;
/// Clients at once.
const CLIENTS: usize = 4;

struct Target {
    bytes: Vec<u8>,
    on_federation_port: bool,
    refusal: Option<Reason>,
}

fn targets(seed: u64, count: usize) -> Vec<Target> {
    (0..count)
        .map(|at| {
            let mut dice = Dice::of_case(seed, at);
            let (bytes, is_federation) = generator::target(&mut dice);
            let on_federation_port = is_federation && dice.once_in(2);
            let refusal = verdict::refusal(&bytes, on_federation_port);
            Target { bytes, on_federation_port, refusal }
        })
        .collect()
}

struct Deployment {
    https: SocketAddr,
    federation: SocketAddr,
    certificates: Certificates,
    signer: Signer,
    arrived: Arc<AtomicUsize>,
    _synapse: Upstream,
    auth: Upstream,
    gatehouse: Gatehouse,
    _folder: Folder,
}

/// The preset in front of a Synapse that says which target it got, if the signature is one over that.
fn deploy() -> Deployment {
    let folder = Folder::new();
    let certificates = Certificates::new(&folder, &[HOST]);
    let signer = Signer::new();
    let verifier = signer.verifier();
    let arrived = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&arrived);
    let synapse = Upstream::answering(move |request: &Recorded| {
        counter.fetch_add(1, Ordering::Relaxed);
        let target = request.target();
        let is_signed =
            request.header("authorization").is_some_and(|value| verifier.accepts(&value, &target));
        let answer = if is_signed { target } else { format!("not signed: {target}") };
        Reply::Bytes(
            format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{answer}", answer.len()).into_bytes(),
        )
    });
    let auth = Upstream::start();
    let yaml = format!(
        r#"
edge:
  access_log: false
  matrix: {{server_name: example.com, synapse: "{synapse}", auth: "{auth}"}}
  listeners:
    - {{name: https, binds: [{{address: "127.0.0.1:0"}}], tls: true}}
    - {{name: federation, binds: [{{address: "127.0.0.1:0"}}], tls: true}}
  {tls}
"#,
        synapse = synapse.url(),
        auth = auth.url(),
        tls = certificates.yaml(),
    );
    let mut gatehouse = Gatehouse::start(&folder, &yaml);
    let (https, federation) = (gatehouse.tcp("https"), gatehouse.tcp("federation"));
    Deployment {
        https,
        federation,
        certificates,
        signer,
        arrived,
        _synapse: synapse,
        auth,
        gatehouse,
        _folder: folder,
    }
}

impl Deployment {
    fn address(&self, target: &Target) -> SocketAddr {
        if target.on_federation_port { self.federation } else { self.https }
    }

    fn http2(&self, address: SocketAddr) -> Http2<StreamOwned<ClientConnection, TcpStream>> {
        let mut config = (*self.certificates.client).clone();
        config.alpn_protocols = vec![b"h2".to_vec()];
        let name = ServerName::try_from(HOST).unwrap();
        let connection = ClientConnection::new(Arc::new(config), name).unwrap();
        let stream = TcpStream::connect(address).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        Http2::new(StreamOwned::new(connection, stream))
    }
}

/// Status and body, or what is wrong with them.
fn judge(target: &Target, status: u16, body: &[u8]) -> Result<(), String> {
    match target.refusal {
        None if status == 200 && body == target.bytes => Ok(()),
        Some(_) if status == 400 => Ok(()),
        refusal => Err(format!(
            "{}: {status} {}, expected {refusal:?}",
            target.bytes.escape_ascii(),
            body.escape_ascii()
        )),
    }
}

/// Every `CLIENTS`-th target over connections that are kept.
fn over_http_1(deployment: &Deployment, targets: &[&Target]) -> Vec<String> {
    let mut clients: BTreeMap<SocketAddr, Client> = BTreeMap::new();
    let mut wrong = Vec::new();
    for target in targets {
        let address = deployment.address(target);
        let mut client =
            clients.remove(&address).unwrap_or_else(|| Client::tls(&deployment.certificates, HOST, address));
        let text = String::from_utf8_lossy(&target.bytes);
        let authorization = deployment.signer.authorization(&text);
        let head = format!(" HTTP/1.1\r\nHost: {HOST}\r\nAuthorization: {authorization}\r\n\r\n");
        client.send([b"GET ", &target.bytes[..], head.as_bytes()].concat());
        let answer = client.receive();
        wrong.extend(judge(target, answer.status, &answer.body).err());
        if answer.header("connection").is_none_or(|value| !value.eq_ignore_ascii_case("close")) {
            clients.insert(address, client);
        }
    }
    wrong
}

/// The same over HTTP/2, but for what HTTP/2 itself does not take: that ends a stream, and `differential` is about it.
fn over_http_2(deployment: &Deployment, targets: &[&Target]) -> Vec<String> {
    let mut connections = BTreeMap::new();
    let mut wrong = Vec::new();
    for target in targets {
        if matches!(target.refusal, Some(Reason::Byte | Reason::Fragment)) {
            continue;
        }
        let address = deployment.address(target);
        let (mut connection, stream) =
            connections.remove(&address).unwrap_or_else(|| (deployment.http2(address), 1));
        let authorization = deployment.signer.authorization(&String::from_utf8_lossy(&target.bytes));
        let answer = connection.get(stream, HOST, &target.bytes, &[("authorization", &authorization)]);
        wrong.extend(judge(target, answer.status.unwrap_or_default(), &answer.body).err());
        if !connection.is_over {
            connections.insert(address, (connection, stream + 2));
        }
    }
    wrong
}

#[test]
fn targets_arrive_byte_for_byte_or_are_refused_for_a_reason() {
    let seed = number_from_environment("GATEHOUSE_TARGETS_SEED", SEED);
    let count = usize::try_from(number_from_environment("GATEHOUSE_TARGETS_COUNT", COUNT)).unwrap();
    println!("GATEHOUSE_TARGETS_SEED={seed} GATEHOUSE_TARGETS_COUNT={count}");
    let targets = targets(seed, count);
    let mut deployment = deploy();
    let wrong: Vec<String> = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|client| {
                let (deployment, targets) = (&deployment, &targets);
                scope.spawn(move || {
                    let own: Vec<&Target> = targets.iter().skip(client).step_by(CLIENTS).collect();
                    [over_http_1(deployment, &own), over_http_2(deployment, &own)].concat()
                })
            })
            .collect();
        clients.into_iter().flat_map(|client| client.join().unwrap()).collect()
    });
    assert!(
        wrong.is_empty(),
        "{} of {count} targets:\n{}",
        wrong.len(),
        wrong[..wrong.len().min(30)].join("\n")
    );

    let mut refused: BTreeMap<Reason, usize> = BTreeMap::new();
    for target in &targets {
        if let Some(reason) = target.refusal {
            *refused.entry(reason).or_default() += 1;
        }
    }
    let all: usize = refused.values().sum();
    println!("{} arrived over each protocol; refused: {refused:?}", count - all);
    assert_eq!(
        deployment.arrived.load(Ordering::Relaxed),
        2 * (count - all),
        "more requests arrived than were sent"
    );
    assert!(deployment.auth.requests().is_empty(), "a target of Synapse's went to the auth service");
    assert!(deployment.gatehouse.process.is_running());
    let named: BTreeSet<Reason> = REASONS.iter().map(|(reason, _)| *reason).collect();
    assert!(
        count < 1000 || refused.keys().copied().collect::<BTreeSet<_>>() == named,
        "a reason that never occurs"
    );
}

#[test]
fn every_reason_stands_in_the_table() {
    let readme = Path::new(env!("CARGO_MANIFEST_DIR")).join("proxy/README.md");
    let readme = std::fs::read_to_string(readme).unwrap();
    let table =
        readme.split("## Refused targets").nth(1).and_then(|rest| rest.split("\n## ").next()).unwrap();
    for (_, words) in REASONS {
        assert!(table.contains(&format!("| {words} |")), "proxy/README.md lacks: {words}");
    }
    assert_eq!(table.matches("\n| ").count(), REASONS.len() + 2, "a reason that this test does not know");
}

/// The generator's targets are seeds for the parser of paths too: `UPDATE=1` writes some.
#[test]
fn the_fuzzers_start_from_such_targets() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus/path");
    for (at, target) in targets(SEED, 12).iter().enumerate() {
        let path = target.bytes.split(|&byte| byte == b'?').next().unwrap_or_default();
        let file = corpus.join(format!("generated-{at}"));
        if std::env::var_os("UPDATE").is_some() {
            std::fs::write(&file, path).unwrap();
        }
        assert_eq!(std::fs::read(&file).unwrap_or_default(), path, "{} is old: UPDATE=1", file.display());
    }
}
