//! File descriptors run out: those who are served go on, others wait or are refused, and all is well again without anybody's help.

use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::time::{Duration, Instant};

use super::harness::{
    ANY_PORT, Client, FakeSynapse, Folder, Gatehouse, PATIENCE, Process, Upstream, auth_listener_yaml,
    program, run_to_end,
};

/// Connections that say nothing. Those that are refused are closed, which they don't notice.
fn silent(address: SocketAddr, count: usize) -> Vec<TcpStream> {
    (0..count).map(|_| TcpStream::connect(address).unwrap()).collect()
}

/// Asks with fresh connections until one is served.
fn until_served(address: SocketAddr, target: &str) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let mut client = Client::tcp(address);
        let line = format!("GET {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        if client.try_send(line).is_ok() && client.try_receive().is_some_and(|answer| answer.status == 200) {
            return;
        }
        assert!(Instant::now() < deadline, "nobody is served");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// As many files as the running process may have open from now on; the hard limit stays.
fn allow(process: &Process, descriptors: &str) {
    let mut command = Command::new(program("prlimit"));
    command.args(["--pid", &process.id().to_string(), &format!("--nofile={descriptors}:")]);
    assert!(run_to_end(&mut command, "").status.success());
}

#[test]
fn whoever_holds_every_place_of_the_edge_leaves_room_for_those_in_service() {
    let folder = Folder::new();
    folder.write("files/page.txt", "here");
    let (known, fresh) = (Upstream::start(), Upstream::start());
    let yaml = format!(
        r#"
edge:
  listeners: [{{name: http, binds: [{{address: "127.0.0.1:0"}}]}}]
  upstreams:
    known: {{servers: ["{}"]}}
    fresh: {{servers: ["{}"]}}
  sites:
    - hosts: ["_"]
      routes:
        - {{prefix: /fresh, upstream: fresh}}
        - {{prefix: /files/, static: {{root: {:?}}}}}
        - {{prefix: /, upstream: known}}
  limits: {{max_connections: 10000, max_connections_per_ip: 10000}}
  admin: {{binds: [{{address: "127.0.0.1:0"}}]}}
"#,
        known.address,
        fresh.address,
        folder.join("files"),
    );
    let mut gatehouse = Gatehouse::start_with_descriptors(&folder, &yaml, 256);
    let address = gatehouse.tcp("http");
    gatehouse.process.wait_for("that there are too few descriptors", |line| {
        (line.contains("fewer connections than configured") && line.contains("\"admitted\":42")).then_some(())
    });
    let mut honest = Client::tcp(address);
    honest.get("x", "/").expect(200);

    let attackers = silent(address, 400);
    let over = |count: f64| {
        move |metrics: &super::harness::Metrics| {
            metrics.value("gatehouse_edge_connections_over_limit_total", &[]) >= count
        }
    };
    let metrics = gatehouse.wait_for_metrics("admin", over(400.0 - 41.0));
    assert_eq!(metrics.value("gatehouse_edge_connections_open", &[]), 42.0);
    assert_eq!(metrics.value("gatehouse_edge_accept_errors_total", &[]), 0.0);
    assert!(metrics.value("process_open_fds", &[]) < metrics.value("process_max_fds", &[]));
    for target in ["/again", "/fresh", "/files/page.txt"] {
        honest.get("x", target).expect(200);
    }
    assert_eq!((known.requests().len(), fresh.requests().len()), (2, 1));
    let log = gatehouse.process.log();
    assert_eq!(log.matches("\"message\":\"connections are refused\"").count(), 1, "{log}");
    assert!(log.contains("limits.max_connections"), "{log}");

    drop(attackers);
    until_served(address, "/after");
    honest.get("x", "/after").expect(200);
    assert!(gatehouse.stop_cleanly());
}

/// A server whose descriptors are gone from one moment to the next, and come back.
fn check_without_descriptors(
    gatehouse: &mut Gatehouse,
    [served, metrics]: [&str; 2],
    prefix: &str,
    target: &str,
) {
    let address = gatehouse.tcp(served);
    let mut honest = Client::tcp(address);
    honest.get("x", target).expect(200);
    let mut waiting: Vec<Client> = Vec::new();
    allow(&gatehouse.process, "8");
    for _ in 0..3 {
        let mut client = Client::tcp(address);
        client.send(format!("GET {target} HTTP/1.1\r\nHost: x\r\n\r\n"));
        waiting.push(client);
    }
    gatehouse.process.wait_for("that it cannot accept", |line| {
        (line.contains("connections have to wait") && line.contains(served)).then_some(())
    });
    for _ in 0..10 {
        honest.get("x", target).expect(200);
        std::thread::sleep(Duration::from_millis(50));
    }
    allow(&gatehouse.process, "256");
    // Nobody who waited has to come again.
    for client in &mut waiting {
        client.receive().expect(200);
    }
    honest.get("x", target).expect(200);
    until_served(address, target);
    let numbers = gatehouse.metrics(metrics);
    let errors =
        numbers.value(&format!("gatehouse_{prefix}_listener_accept_errors_total"), &[("listener", served)]);
    // Once in 100 ms and for each socket, not as fast as the processor goes.
    assert!((1.0..200.0).contains(&errors), "{errors}");
    let log = gatehouse.process.log();
    assert_eq!(log.matches("connections have to wait").count(), 1, "{log}");
    assert!(gatehouse.stop_cleanly());
}

#[test]
fn the_edge_outlives_a_shortage_of_descriptors() {
    let folder = Folder::new();
    let upstream = Upstream::start();
    let yaml = format!(
        r#"
edge:
  threads: 1
  listeners: [{{name: http, binds: [{{address: "127.0.0.1:0"}}]}}]
  upstreams: {{api: {{servers: ["{}"]}}}}
  sites: [{{hosts: ["_"], routes: [{{prefix: /, upstream: api}}]}}]
  limits: {{max_connections: 30}}
  admin: {{binds: [{{address: "127.0.0.1:0"}}]}}
"#,
        upstream.address
    );
    let mut gatehouse = Gatehouse::start_with_descriptors(&folder, &yaml, 256);
    check_without_descriptors(&mut gatehouse, ["http", "admin"], "edge", "/");
}

#[test]
fn the_auth_service_outlives_a_shortage_of_descriptors() {
    let folder = Folder::new();
    let synapse = FakeSynapse::start();
    let resources = ["health", "discovery", "prometheus"];
    let yaml = auth_listener_yaml(folder.path(), &synapse.url(), &resources, ANY_PORT);
    let mut gatehouse = Gatehouse::start_with_descriptors(&folder, &yaml, 256);
    check_without_descriptors(&mut gatehouse, ["web", "web"], "auth", "/.well-known/openid-configuration");
}

#[test]
fn whoever_holds_every_place_of_the_auth_service_leaves_room_for_those_in_service() {
    let folder = Folder::new();
    let synapse = FakeSynapse::start();
    let resources = ["health", "compat", "prometheus"];
    let yaml = auth_listener_yaml(folder.path(), &synapse.url(), &resources, ANY_PORT);
    let mut gatehouse = Gatehouse::start_with_descriptors(&folder, &yaml, 160);
    let address = gatehouse.tcp("web");
    gatehouse.process.wait_for("that there are too few descriptors", |line| {
        (line.contains("fewer connections than configured") && line.contains("\"admitted\":32")).then_some(())
    });
    let mut honest = Client::tcp(address);
    honest.get("x", "/health").expect(200);
    let attackers = silent(address, 300);
    // The database, and a refused login that needs it, go on.
    let login = serde_json::json!({
        "type": "m.login.password", "password": "wrong",
        "identifier": {"type": "m.id.user", "user": "nobody"},
    });
    let deadline = Instant::now() + PATIENCE;
    loop {
        honest.get("x", "/health").expect(200);
        let metrics = super::harness::Metrics::read(&honest.get("x", "/metrics").expect(200).text());
        if metrics.value("gatehouse_auth_connections_over_limit_total", &[]) >= 300.0 - 31.0 {
            assert_eq!(metrics.value("gatehouse_auth_connections_open", &[]), 32.0);
            break;
        }
        assert!(Instant::now() < deadline, "{metrics:#?}");
        std::thread::sleep(Duration::from_millis(20));
    }
    honest.post("x", "/_matrix/client/v3/login", None, &login).expect(403);
    drop(attackers);
    until_served(address, "/health");
    assert!(gatehouse.stop_cleanly());
}
