//! Start and end: ports that are taken, requests in flight at SIGTERM, a second signal.

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::harness::{
    ANY_PORT, Client, FakeSynapse, Folder, Gatehouse, Reply, Upstream, auth_listener_yaml, gatehouse_command,
    program, run_to_end,
};

fn yaml(bind: &str, upstream: &Upstream) -> String {
    format!(
        r#"
edge:
  listeners: [{{name: http, binds: [{{address: "{bind}"}}]}}]
  upstreams: {{api: {{servers: ["{}"]}}}}
  sites: [{{hosts: ["_"], routes: [{{prefix: /, upstream: api}}]}}]
"#,
        upstream.address
    )
}

#[test]
fn a_request_in_flight_is_finished_and_nobody_new_is_let_in() {
    let folder = Folder::new();
    let upstream = Upstream::answering(|_| Reply::Late(Duration::from_secs(2)));
    let mut gatehouse = Gatehouse::start(&folder, &yaml("127.0.0.1:0", &upstream));
    let address = gatehouse.tcp("http");
    let mut client = Client::tcp(address);
    client.send("GET /slow HTTP/1.1\r\nHost: x\r\n\r\n");
    upstream.wait_for(|request| request.target() == "/slow");
    gatehouse.process.signal(Signal::TERM);
    gatehouse.process.wait_for("that it stops", |line| line.contains("stopping").then_some(()));
    let deadline = Instant::now() + Duration::from_secs(1);
    while std::net::TcpStream::connect(address).is_ok() {
        assert!(Instant::now() < deadline, "still accepts after SIGTERM");
        std::thread::yield_now();
    }
    assert_eq!(client.receive().expect(200).json()["late"], true);
    assert_eq!(gatehouse.process.wait().code(), Some(0));
}

#[test]
fn idle_connections_do_not_hold_up_the_end() {
    let folder = Folder::new();
    let upstream = Upstream::start();
    let mut gatehouse = Gatehouse::start(&folder, &yaml("127.0.0.1:0", &upstream));
    let mut idle = gatehouse.client("http");
    idle.get("x", "/").expect(200);
    let _silent = gatehouse.client("http");
    let started = Instant::now();
    assert_eq!(gatehouse.process.stop().code(), Some(0));
    assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
}

#[test]
fn a_hangup_reloads() {
    let folder = Folder::new();
    let upstream = Upstream::start();
    let mut gatehouse = Gatehouse::start(&folder, &yaml("127.0.0.1:0", &upstream));
    let _running = gatehouse.tcp("http");
    gatehouse.process.signal(Signal::HUP);
    gatehouse
        .process
        .wait_for("what became of it", |line| line.contains("configuration reloaded").then_some(()));
    gatehouse.client("http").get("x", "/").expect(200);
    assert_eq!(gatehouse.process.stop().code(), Some(0));
}

#[test]
fn sockets_handed_over_by_a_service_manager_are_served() {
    let folder = Folder::new();
    let upstream = Upstream::start();
    let socket = folder.join("inherited.sock");
    let yaml = format!(
        r#"
edge:
  listeners:
    - {{name: tcp, binds: [{{fd: 0}}]}}
    - {{name: unix, binds: [{{fd: 1, kind: unix}}]}}
  upstreams: {{api: {{servers: ["{}"]}}}}
  sites: [{{hosts: ["_"], routes: [{{prefix: /, upstream: api}}]}}]
"#,
        upstream.address
    );
    let mut gatehouse = Gatehouse::start_inheriting(&folder, &yaml, &socket);
    for _ in 0..8 {
        // New connections: some to each of the threads that share the socket.
        gatehouse.client("tcp").get("x", "/").expect(200);
        let mut curl = Command::new(program("curl"));
        let answer = run_to_end(curl.args(["-sS", "--fail", "http://x/", "--unix-socket"]).arg(&socket), "");
        assert!(answer.status.success(), "{}", String::from_utf8_lossy(&answer.stderr));
    }
    assert_eq!(gatehouse.process.stop().code(), Some(0));
    assert!(socket.exists(), "whoever made the socket removes it");
}

#[test]
fn a_second_signal_ends_it_at_once() {
    let folder = Folder::new();
    let upstream = Upstream::answering(|_| Reply::Silence);
    let mut gatehouse = Gatehouse::start(&folder, &yaml("127.0.0.1:0", &upstream));
    let mut client = gatehouse.client("http");
    client.send("GET /never HTTP/1.1\r\nHost: x\r\n\r\n");
    upstream.wait_for(|request| request.target() == "/never");
    gatehouse.process.signal(Signal::INT);
    gatehouse.process.wait_for("that it stops", |line| line.contains("stopping").then_some(()));
    gatehouse.process.signal(Signal::INT);
    assert_eq!(gatehouse.process.wait().code(), Some(1));
}

#[test]
fn a_port_in_use_is_named() {
    let folder = Folder::new();
    let upstream = Upstream::start();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let path = folder.write("gatehouse.yaml", yaml(&address, &upstream));
    let output = run_to_end(gatehouse_command().arg("run").arg("-c").arg(path), "");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains(&address) && said.to_lowercase().contains("in use"), "{said}");
}

#[test]
fn two_gatehouses_never_share_a_port_by_accident() {
    let folder = Folder::new();
    let upstream = Upstream::start();
    let mut first = Gatehouse::start(&folder, &yaml("127.0.0.1:0", &upstream));
    let address = first.tcp("http").to_string();
    let path = folder.write("second.yaml", yaml(&address, &upstream));
    let output = run_to_end(gatehouse_command().arg("run").arg("-c").arg(path), "");
    assert_eq!(output.status.code(), Some(1), "{}", String::from_utf8_lossy(&output.stderr));
    first.client("http").get("x", "/").expect(200);
}

#[test]
fn the_auth_service_drains_too() {
    let folder = Folder::new();
    let synapse = FakeSynapse::start();
    let yaml = auth_listener_yaml(folder.path(), &synapse.url(), &["health"], ANY_PORT);
    let mut auth = Gatehouse::start_auth(&folder, &yaml);
    let mut client = auth.client("web");
    client.get("x", "/health").expect(200);
    assert!(auth.stop_cleanly());
    assert!(client.is_closed());
}

#[test]
fn whoever_reads_its_log_may_go_away() {
    let folder = Folder::new();
    let upstream = Upstream::start();
    let path = folder.write("gatehouse.yaml", yaml("127.0.0.1:0", &upstream));
    let mut command = gatehouse_command();
    command.args(["--log", "debug", "run", "-c"]).arg(path).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
    let listening = lines.find(|line| line.contains("\"listening\"")).expect("it says where it listens");
    let listening: serde_json::Value = serde_json::from_str(&listening).unwrap();
    let address = listening["address"].as_str().unwrap().parse().unwrap();
    // The other end of its standard error is closed from here on, and every line it logs is an error to it.
    drop(lines);
    for _ in 0..3 {
        Client::tcp(address).get("x", "/").expect(200);
    }
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
}
