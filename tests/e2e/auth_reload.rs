//! The auth service while its configuration changes, while the next process takes over, and while it ends: what its clients and Synapse
//! notice of it, which is nothing.

use std::collections::HashMap;
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::process::{Signal, kill_process};
use serde_json::{Value, json};

use super::harness::{
    Answer, Client, FakeSynapse, Folder, Metrics, PATIENCE, SHARED_SECRET, Upgradable, Upstream, add_user,
    auth_yaml, http2, pid,
};

const LOGIN: &str = "/_matrix/client/v3/login";
const LOGOUT: &str = "/_matrix/client/v3/logout";

fn yaml(folder: &Folder, synapse: &str) -> String {
    format!(
        "{}\
http:
  public_base: https://auth.example.com/
  listeners:
    - name: web
      resources: [{{name: health}}, {{name: oauth}}, {{name: compat}}, {{name: prometheus}}]
      binds: [{{address: \"127.0.0.1:0\"}}]
rate_limiting: {{login: {{per_ip: {{burst: 100000, per_second: 1000}}, per_account: {{burst: 100000, per_second: 1000}}}}}}
",
        auth_yaml(folder.path(), synapse)
    )
}

/// One connection with keep-alive, replaced when the server has said that it ends. That it ends without a word is a fault.
struct Session {
    address: SocketAddr,
    client: Client,
}

impl Session {
    fn new(address: SocketAddr) -> Self {
        Self { address, client: Client::tcp(address) }
    }

    fn ask(&mut self, method: &str, path: &str, fields: &[&str], body: &str) -> Answer {
        let answer = self.client.request(&format!("{method} {path}"), fields, body.as_bytes());
        if answer.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close")) {
            self.client = Client::tcp(self.address);
        }
        answer
    }

    fn login(&mut self) -> (String, String) {
        let body = json!({
            "type": "m.login.password",
            "identifier": {"type": "m.id.user", "user": "alice"},
            "password": "correct horse battery",
        });
        let answer = self.ask("POST", LOGIN, &["Host: x"], &body.to_string()).expect(200).json();
        let text = |name: &str| answer[name].as_str().unwrap().to_owned();
        (text("access_token"), text("device_id"))
    }

    fn logout(&mut self, token: &str) {
        self.ask("POST", LOGOUT, &["Host: x", &format!("Authorization: Bearer {token}")], "{}").expect(200);
    }

    fn is_active(&mut self, token: &str) -> bool {
        let fields = [
            "Host: x",
            &format!("Authorization: Bearer {SHARED_SECRET}"),
            "Content-Type: application/x-www-form-urlencoded",
        ];
        let answer = self.ask("POST", "/oauth2/introspect", &fields, &format!("token={token}"));
        answer.expect(200).json()["active"].as_bool().unwrap()
    }
}

/// Clients that log in and out without a pause.
struct Clients {
    stop: Arc<AtomicBool>,
    rounds: Arc<AtomicUsize>,
    all: Vec<JoinHandle<Vec<String>>>,
}

impl Clients {
    fn start(count: usize, address: SocketAddr) -> Self {
        let (stop, rounds) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let one = || {
            let (stop, rounds) = (stop.clone(), rounds.clone());
            std::thread::spawn(move || {
                let mut session = Session::new(address);
                let mut devices = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    let (token, device) = session.login();
                    devices.push(device);
                    assert!(session.is_active(&token));
                    session.logout(&token);
                    assert!(!session.is_active(&token));
                    rounds.fetch_add(1, Ordering::Relaxed);
                }
                devices
            })
        };
        let all = (0..count).map(|_| one()).collect();
        Self { stop, rounds, all }
    }

    fn wait_for(&self, more: usize) {
        let goal = self.rounds.load(Ordering::Relaxed) + more;
        while self.rounds.load(Ordering::Relaxed) < goal {
            assert!(!self.all.iter().any(JoinHandle::is_finished), "a client has failed");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// All devices there have been.
    fn end(self) -> Vec<String> {
        self.stop.store(true, Ordering::Relaxed);
        self.all.into_iter().flat_map(|client| client.join().unwrap()).collect()
    }
}

/// How often Synapse has heard what of which device.
fn counted(synapse: &Upstream) -> HashMap<(String, String), usize> {
    let mut counts = HashMap::new();
    for request in synapse.requests() {
        let body: Value = serde_json::from_slice(&request.body).unwrap_or_default();
        if let Some(device) = body["device_id"].as_str() {
            *counts.entry((request.target(), device.to_owned())).or_default() += 1;
        }
    }
    counts
}

fn until(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn nobody_is_logged_out_and_synapse_hears_of_everything_once() {
    let folder = Folder::new();
    let synapse = FakeSynapse::start();
    let first = yaml(&folder, &synapse.url());
    let mut running = Upgradable::start_auth(&folder, &first);
    let address = running.gatehouse.tcp("web");
    add_user(&running.gatehouse.configuration, "alice", "correct horse battery", &[]);
    let kept = Session::new(address).login().0;
    let clients = Clients::start(3, address);
    for round in 0..12 {
        clients.wait_for(4);
        folder.write(
            "auth.yaml",
            format!("{first}experimental: {{compat_token_ttl: {}}}\n", 60 + round)
                .replace("auth.db\"}", &format!("auth.db\", max_connections: {}}}", 3 + round % 3)),
        );
        if round % 4 == 3 {
            let old = running.serving;
            running.replace();
            running.upgrade();
            clients.wait_for(4);
            running.wait_until_gone(old);
        } else {
            let asked = running.ask("reload");
            assert_eq!(asked.code, Some(0), "{}", asked.text);
        }
    }
    clients.wait_for(4);
    let devices = clients.end();
    assert!(Session::new(address).is_active(&kept));
    let told = |endpoint: &str, device: &str| (format!("/_synapse/mas/{endpoint}"), device.to_owned());
    until("Synapse hears of every logout", || {
        let counts = counted(&synapse.upstream);
        devices.iter().all(|device| counts.contains_key(&told("delete_device", device)))
    });
    running.stop();
    let counts = counted(&synapse.upstream);
    for device in &devices {
        for endpoint in ["upsert_device", "delete_device"] {
            assert_eq!(counts.get(&told(endpoint, device)), Some(&1), "{endpoint} {device}");
        }
    }
    assert_eq!(counts.len(), 2 * devices.len() + 1);
}

#[test]
fn what_synapse_has_not_heard_is_told_by_the_next_process() {
    let folder = Folder::new();
    let works = Arc::new(AtomicBool::new(true));
    let synapse = {
        let works = works.clone();
        FakeSynapse::start_failing(move || !works.load(Ordering::Relaxed))
    };
    let mut running = Upgradable::start_auth(&folder, &yaml(&folder, &synapse.url()));
    let address = running.gatehouse.tcp("web");
    add_user(&running.gatehouse.configuration, "alice", "correct horse battery", &[]);
    let (token, device) = Session::new(address).login();
    works.store(false, Ordering::Relaxed);
    Session::new(address).logout(&token);
    let old = running.serving;
    running.replace();
    running.upgrade();
    running.wait_until_gone(old);
    let heard = ("/_synapse/mas/delete_device".to_owned(), device);
    let failed = counted(&synapse.upstream)[&heard];
    assert!(failed >= 1);
    works.store(true, Ordering::Relaxed);
    until("the next process tells it", || counted(&synapse.upstream)[&heard] > failed);
    std::thread::sleep(Duration::from_secs(2));
    let asked = counted(&synapse.upstream)[&heard];
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(counted(&synapse.upstream)[&heard], asked, "and then it is done");
    running.stop();
}

#[test]
fn a_hangup_reloads_and_what_is_faulty_changes_nothing() {
    let folder = Folder::new();
    let synapse = FakeSynapse::start();
    let first = yaml(&folder, &synapse.url());
    let mut running = Upgradable::start_auth(&folder, &first);
    let address = running.gatehouse.tcp("web");
    let mut client = Client::tcp(address);
    client.get("x", "/health").expect(200);
    let reloaded = |running: &Upgradable| running.lines_with("\"configuration reloaded");
    let hangup = |running: &Upgradable| kill_process(pid(running.serving), Signal::HUP).unwrap();

    folder.write("auth.yaml", first.replace("- name: web", "- name: web\n      prefix: /auth"));
    hangup(&running);
    until("the first reload", || reloaded(&running) == 1);
    client.get("x", "/auth/health").expect(200);
    client.get("x", "/health").expect(404);

    let elsewhere =
        first.replace("auth.db", "other.db").replace("- name: web", "- name: web\n      prefix: /other");
    folder.write("auth.yaml", elsewhere.replace("127.0.0.1:0", "203.0.113.1:0"));
    hangup(&running);
    until("the fault", || running.lines_with("203.0.113.1") > 0);
    assert_eq!(reloaded(&running), 1);
    client.get("x", "/auth/health").expect(200);
    let metrics = Metrics::read(&client.get("x", "/auth/metrics").expect(200).text());
    let of = |outcome| metrics.value("gatehouse_auth_reloads_total", &[("outcome", outcome)]);
    assert_eq!((of("applied"), of("refused")), (1.0, 1.0));
    assert_eq!(metrics.value("gatehouse_auth_config_generation", &[]), 2.0);
    running.stop();
}

#[test]
fn a_drain_has_a_deadline_and_says_that_it_takes_no_new_work() {
    let folder = Folder::new();
    let synapse = FakeSynapse::start();
    let yaml = yaml(&folder, &synapse.url()).replace("  listeners:", "  timeouts: {drain: 3s}\n  listeners:");
    let mut running = Upgradable::start_auth(&folder, &yaml);
    let address = running.gatehouse.tcp("web");
    Client::tcp(address).get("x", "/ready").expect(200);
    let mut asking = Client::tcp(address);
    // The rest comes during the drain.
    asking.send("GET /ready HTTP/1.1\r\n");
    let mut waiting = Client::tcp(address);
    waiting.send(format!("POST {LOGIN} HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n"));
    Client::tcp(address).get("x", "/health").expect(200);
    kill_process(pid(running.serving), Signal::TERM).unwrap();
    let began = Instant::now();
    until("nobody is let in", || TcpStream::connect(address).is_err());
    asking.send("Host: x\r\n\r\n");
    let answer = asking.receive().expect(503);
    assert_eq!((answer.text().as_str(), answer.header("connection")), ("draining\n", Some("close")));
    running.wait_until_gone(running.serving);
    assert!((3..20).contains(&began.elapsed().as_secs()), "{:?}", began.elapsed());
}

#[test]
fn a_second_signal_ends_it_at_once() {
    let folder = Folder::new();
    let synapse = FakeSynapse::start();
    let mut running = Upgradable::start_auth(&folder, &yaml(&folder, &synapse.url()));
    let address = running.gatehouse.tcp("web");
    let mut waiting = Client::tcp(address);
    waiting.send(format!("POST {LOGIN} HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n"));
    Client::tcp(address).get("x", "/health").expect(200);
    running.gatehouse.process.signal(Signal::TERM);
    until("the drain", || running.lines_with("requests in flight are finished first") == 1);
    assert!(running.gatehouse.process.is_running());
    running.gatehouse.process.signal(Signal::TERM);
    assert_eq!(running.gatehouse.process.wait().code(), Some(1));
}

#[test]
fn a_hundred_thousand_abusive_streams_leave_nothing_behind() {
    let folder = Folder::new();
    let synapse = FakeSynapse::start();
    let yaml = yaml(&folder, &synapse.url())
        .replace("  listeners:", "  limits: {h2_resets: 1000000, h2_control_frames: 1000000}\n  listeners:");
    let mut running = Upgradable::start_auth(&folder, &yaml);
    let address = running.gatehouse.tcp("web");
    let open_and_reset = |stream: u32| {
        let reset = http2::frame(3, 0, stream, &8_u32.to_be_bytes());
        [http2::get(stream, "x", b"/health", &[]), reset].concat()
    };
    let abuse = |streams: u32| {
        let mut left = streams;
        while left > 0 {
            let stream = TcpStream::connect(address).unwrap();
            let (mut answers, closing) = (stream.try_clone().unwrap(), stream.try_clone().unwrap());
            let reader = std::thread::spawn(move || std::io::copy(&mut answers, &mut std::io::sink()));
            let mut connection = http2::Http2::new(stream);
            let mut stream = 1;
            while left > 0 && !connection.is_over {
                let batch: Vec<u8> = (0..50).flat_map(|more| open_and_reset(stream + 2 * more)).collect();
                connection.send(&batch);
                (stream, left) = (stream + 100, left.saturating_sub(50));
            }
            let _ = closing.shutdown(Shutdown::Both);
            let _ = reader.join();
        }
    };
    abuse(20_000);
    let before = running.gatehouse.process.resident_bytes();
    abuse(100_000);
    let after = running.gatehouse.process.resident_bytes();
    assert!(after < before + (16 << 20), "{before} bytes before, {after} after");
    let metrics = running
        .gatehouse
        .wait_for_metrics("web", |metrics| metrics.value("gatehouse_auth_connections", &[]) <= 1.0);
    assert!(metrics.value("gatehouse_auth_limit_hits_total", &[("limit", "limits.h2_resets")]) >= 1.0);
    Client::tcp(address).get("x", "/health").expect(200);
    println!("100,000 streams: {before} bytes before, {after} after");
    running.stop();
}
