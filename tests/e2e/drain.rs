//! The end of the edge: what is in flight has its time, tunnels have theirs, and what is cut off is told, logged and counted. Tunnels
//! that nobody uses end earlier.

use std::path::PathBuf;

use rustix::process::Signal;
use serde_json::Value;

use super::harness::{Answer, Client, Folder, Gatehouse, Reply, Upstream};

const TUNNEL: &str = "GET /tunnel HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";

/// An upstream that never answers, answers late, echoes, or answers at once.
fn upstream(late: std::time::Duration) -> Upstream {
    Upstream::answering(move |request| match request.target().as_str() {
        "/tunnel" => Reply::Echo,
        "/never" => Reply::Silence,
        "/late" => Reply::Late(late),
        _ => Reply::Json(200, "{}".to_owned()),
    })
}

fn start(folder: &Folder, upstream: &Upstream, timeouts: &str) -> (Gatehouse, PathBuf) {
    let log = folder.join("access.log");
    let yaml = format!(
        r#"
data_dir: {data:?}
edge:
  listeners: [{{name: http, binds: [{{address: "127.0.0.1:0"}}]}}]
  upstreams: {{api: {{servers: ["{upstream}"]}}}}
  sites: [{{hosts: ["_"], routes: [{{prefix: /, upstream: api}}]}}]
  timeouts: {{{timeouts}}}
  access_log: {{path: {log:?}}}
  admin: {{binds: [{{address: "127.0.0.1:0"}}]}}
"#,
        data = folder.path(),
        upstream = upstream.address,
    );
    (Gatehouse::start(folder, &yaml), log)
}

fn ask(gatehouse: &mut Gatehouse, upstream: &Upstream, target: &str) -> Client {
    let mut client = gatehouse.client("http");
    client.send(format!("GET {target} HTTP/1.1\r\nHost: x\r\n\r\n"));
    upstream.wait_for(|request| request.target() == target);
    client
}

fn open_tunnel(gatehouse: &mut Gatehouse) -> Client {
    let mut client = gatehouse.client("http");
    client.send(TUNNEL);
    client.receive().expect(101);
    assert!(echoes(&mut client));
    client
}

fn echoes(tunnel: &mut Client) -> bool {
    tunnel.try_send("ping").is_ok() && tunnel.receive_bytes(4) == b"ping"
}

/// Lines of the access log, by path, with status and error.
fn outcomes(log: &PathBuf) -> Vec<(String, u64, Option<String>)> {
    let log = std::fs::read_to_string(log).unwrap();
    let lines = log.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let mut outcomes: Vec<_> = lines
        .map(|line| (text(&line["path"]).unwrap(), line["status"].as_u64().unwrap(), text(&line["error"])))
        .collect();
    outcomes.sort();
    outcomes
}

fn line(path: &str, status: u64, error: Option<&str>) -> (String, u64, Option<String>) {
    (path.to_owned(), status, error.map(str::to_owned))
}

#[test]
fn requests_and_tunnels_have_their_time_and_are_then_cut_off() {
    let folder = Folder::new();
    let upstream = upstream(std::time::Duration::from_secs(1));
    let (mut gatehouse, log) = start(&folder, &upstream, "drain: 4s, tunnel_drain: 8s");
    let mut never = ask(&mut gatehouse, &upstream, "/never");
    let (mut leaving, mut staying) = (open_tunnel(&mut gatehouse), open_tunnel(&mut gatehouse));
    let mut admin = gatehouse.client("admin");
    admin.get("x", "/ready").expect(200);
    let mut late = ask(&mut gatehouse, &upstream, "/late");

    gatehouse.process.signal(Signal::TERM);
    gatehouse.process.wait_for("that it stops", |line| line.contains("stopping").then_some(()));
    let is_ready = |gatehouse: &mut Gatehouse| gatehouse.client("admin").get("x", "/ready").status == 200;
    while is_ready(&mut gatehouse) {
        std::thread::yield_now();
    }
    let answer = late.receive().expect(200);
    assert_eq!(answer.header("connection"), Some("close"));
    assert!(echoes(&mut leaving) && echoes(&mut staying));
    drop(leaving);
    let told: Answer = never.receive().expect(503);
    assert!(told.header("retry-after").is_some(), "{told:?}");
    assert!(never.is_closed());
    assert!(echoes(&mut staying), "a tunnel lives longer than requests");
    assert!(staying.is_closed());

    assert_eq!(gatehouse.process.wait().code(), Some(0));
    let drained = gatehouse.process.wait_for("how it went", |line| {
        let line: Value = serde_json::from_str(line).ok()?;
        (line["message"] == "drained").then_some(line)
    });
    let count = |name: &str| drained[name].as_u64().unwrap();
    assert_eq!((count("requests"), count("tunnels")), (1, 1), "{drained}");
    assert_eq!((count("requests_cut_off"), count("tunnels_cut_off")), (1, 1), "{drained}");
    assert_eq!(count("connections_closed"), 0, "{drained}");
    let expected = [
        line("/late", 200, None),
        line("/never", 503, Some("cut off at the end of the drain")),
        line("/tunnel", 101, None),
        line("/tunnel", 101, Some("tunnel cut off at the end of the drain")),
    ];
    assert_eq!(outcomes(&log), expected);
}

#[test]
fn without_a_time_of_their_own_tunnels_have_that_of_requests() {
    let folder = Folder::new();
    let upstream = upstream(std::time::Duration::ZERO);
    let (mut gatehouse, log) = start(&folder, &upstream, "drain: 1s");
    let mut tunnel = open_tunnel(&mut gatehouse);
    assert_eq!(gatehouse.process.stop().code(), Some(0));
    assert!(tunnel.is_closed());
    assert_eq!(outcomes(&log), [line("/tunnel", 101, Some("tunnel cut off at the end of the drain"))]);
}

#[test]
fn a_silent_tunnel_is_closed_and_counted() {
    let folder = Folder::new();
    let upstream = upstream(std::time::Duration::ZERO);
    let (mut gatehouse, log) = start(&folder, &upstream, "tunnel: 1s, upstream_read: 100ms");
    let mut tunnel = open_tunnel(&mut gatehouse);
    assert!(tunnel.is_closed());
    let metrics = gatehouse.client("admin").get("x", "/metrics").expect(200).text();
    let hits = "gatehouse_edge_limit_hits_total{limit=\"timeouts.tunnel\"} 1";
    assert!(metrics.lines().any(|line| line == hits), "{metrics}");
    assert!(gatehouse.stop_cleanly());
    assert_eq!(outcomes(&log), [line("/tunnel", 101, Some("tunnel was silent for too long"))]);
}

#[test]
fn a_second_signal_waits_for_nobody() {
    for (first, second) in [(Signal::TERM, Signal::TERM), (Signal::INT, Signal::TERM)] {
        let folder = Folder::new();
        let upstream = upstream(std::time::Duration::ZERO);
        let (mut gatehouse, _) = start(&folder, &upstream, "drain: 1h, tunnel_drain: 1h");
        let mut never = ask(&mut gatehouse, &upstream, "/never");
        let mut tunnel = open_tunnel(&mut gatehouse);
        gatehouse.process.signal(first);
        gatehouse.process.wait_for("that it stops", |line| line.contains("stopping").then_some(()));
        assert!(echoes(&mut tunnel));
        gatehouse.process.signal(second);
        assert_eq!(gatehouse.process.wait().code(), Some(1));
        assert!(never.is_closed() && tunnel.is_closed());
    }
}
