//! SIGHUP: a running edge takes another file, whatever is under way goes on, and a faulty file changes nothing. Each kind of change
//! by itself is tested in `proxy/tests/edge/reload_*.rs`, reloads by command in `upgrade`.

use std::net::TcpStream;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::harness::{Authority, Certificates, Client, Folder, Gatehouse, PATIENCE, Reply, Upstream};
use super::upgrade::{Door, Load};

/// An edge with TLS and plain, and what a test says besides.
fn yaml(
    folder: &Folder,
    certificates: &Certificates,
    upstream: &Upstream,
    listeners: &str,
    more: &str,
) -> String {
    format!(
        r#"
data_dir: {folder}
edge:
  threads: 2
  listeners:
    - {{name: https, binds: [{{address: "127.0.0.1:0"}}], tls: true}}
    - {{name: http, binds: [{{address: "127.0.0.1:0"}}]}}
    {listeners}
  {tls}
  upstreams: {{api: {{servers: ["{address}"]}}}}
  sites:
    - hosts: ["_"]
      routes:
        {more}
        - {{prefix: /, upstream: api}}
  admin: {{binds: [{{address: "127.0.0.1:0"}}]}}
"#,
        folder = folder.path().display(),
        tls = certificates.yaml(),
        address = upstream.address,
    )
}

/// SIGHUP with this in the file; waits for the line that tells what became of it.
fn hang_up(gatehouse: &mut Gatehouse, yaml: &str, line: &str) {
    std::fs::write(&gatehouse.configuration, yaml).unwrap();
    let count = |gatehouse: &Gatehouse| gatehouse.process.log().matches(line).count();
    let before = count(gatehouse);
    gatehouse.process.signal(Signal::HUP);
    let deadline = Instant::now() + PATIENCE;
    while count(gatehouse) == before {
        assert!(Instant::now() < deadline, "no line {line:?}:\n{}", gatehouse.process.log());
        std::thread::sleep(Duration::from_millis(10));
    }
}

const DONE: &str = "configuration reloaded";
const FAILED: &str = "reload failed, the old configuration stays in force";

#[test]
fn everything_in_the_file_takes_effect_and_what_is_under_way_goes_on() {
    let folder = Folder::new();
    let ca = Authority::new();
    let (old, new) = (ca.issue(&folder, &["x.example"]), Folder::new());
    let new = ca.issue(&new, &["x.example", "y.example"]);
    let upstream = Upstream::answering(|request| match request.target().as_str() {
        "/late" => Reply::Late(Duration::from_secs(2)),
        "/socket" => Reply::Echo,
        _ => Reply::Json(200, "{}".into()),
    });
    let going = "- {name: going, binds: [{address: \"127.0.0.1:0\"}]}";
    let mut gatehouse = Gatehouse::start(&folder, &yaml(&folder, &old, &upstream, going, ""));
    let (http, https, going) = (gatehouse.tcp("http"), gatehouse.tcp("https"), gatehouse.tcp("going"));
    let mut tunnel = Client::tcp(http);
    tunnel.request("GET /socket", &["Host: x", "Connection: Upgrade", "Upgrade: websocket"], b"").expect(101);
    let mut late = Client::tcp(going);
    late.send("GET /late HTTP/1.1\r\nHost: x\r\n\r\n");
    upstream.wait_for(|request| request.target() == "/late");
    let mut kept = Client::tls(&old, "x.example", https);
    kept.get("x.example", "/").expect(200);

    let coming = "- {name: coming, binds: [{address: \"127.0.0.1:0\"}]}";
    let page = "- {path: /page, respond: {body: new}}";
    hang_up(&mut gatehouse, &yaml(&folder, &new, &upstream, coming, page), DONE);

    assert!(TcpStream::connect(going).is_err(), "closed");
    assert_eq!(late.receive().status, 200, "but who was asking gets an answer");
    tunnel.send("still here");
    assert_eq!(tunnel.receive_bytes(10), b"still here");
    assert_eq!(kept.get("x.example", "/page").expect(200).text(), "new");
    assert_eq!(gatehouse.client("coming").get("x", "/page").expect(200).text(), "new");
    let mut other = Client::tls(&new, "y.example", https);
    assert_eq!(other.get("y.example", "/page").expect(200).text(), "new", "with the new certificate");
    let metrics = gatehouse.metrics("admin");
    assert_eq!(metrics.value("gatehouse_edge_config_generation", &[]), 2.0);
    assert_eq!(metrics.value("gatehouse_edge_reloads_total", &[("outcome", "applied")]), 1.0);
    assert!(metrics.value("gatehouse_edge_config_applied_timestamp_seconds", &[]) > 1.6e9);
    drop((tunnel, kept, other, late));
    assert!(gatehouse.stop_cleanly());
}

#[test]
fn a_faulty_file_changes_nothing() {
    let folder = Folder::new();
    let certificates = Certificates::new(&folder, &["x.example"]);
    let upstream = Upstream::start();
    let good = |more: &str| yaml(&folder, &certificates, &upstream, "", more);
    let mut gatehouse = Gatehouse::start(&folder, &good("- {path: /page, respond: {body: old}}"));
    let mut kept = gatehouse.client("http");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = format!("- {{name: taken, binds: [{{address: \"{}\"}}]}}", taken.local_addr().unwrap());
    let next = "- {path: /page, respond: {body: new}}";
    let gone = Certificates::new(&Folder::new(), &["x.example"]);
    let faulty = [
        ("no YAML".to_owned(), "gatehouse.yaml:1"),
        (good("- {path: /page, respnd: {body: new}}"), "did you mean \\\"respond\\\"?"),
        (yaml(&folder, &gone, &upstream, "", next), "certificate_file"),
        (yaml(&folder, &certificates, &upstream, &port, next), "is in use by another process"),
        (
            good(next).replace("  admin:", "  access_log: {path: /nowhere/access.log}\n  admin:"),
            "access log cannot be opened",
        ),
    ];
    for (count, (yaml, words)) in faulty.iter().enumerate() {
        hang_up(&mut gatehouse, yaml, FAILED);
        let log = gatehouse.process.log();
        assert!(log.contains(words), "{words:?}\n{log}");
        assert_eq!(kept.get("x", "/page").expect(200).text(), "old");
        assert_eq!(gatehouse.client("http").get("x", "/page").expect(200).text(), "old");
        let metrics = gatehouse.metrics("admin");
        let refused = metrics.value("gatehouse_edge_reloads_total", &[("outcome", "refused")]);
        assert_eq!(refused, count as f64 + 1.0, "{words}");
        assert_eq!(metrics.value("gatehouse_edge_config_generation", &[]), 1.0);
    }
    hang_up(&mut gatehouse, &good(next), DONE);
    assert_eq!(kept.get("x", "/page").expect(200).text(), "new");
    drop(kept);
    assert!(gatehouse.stop_cleanly());
}

#[test]
fn nobody_notices_a_hundred_reloads() {
    let folder = Folder::new();
    let certificates = Certificates::new(&folder, &["x.example"]);
    let upstream = Upstream::start();
    let mut gatehouse = Gatehouse::start(&folder, &yaml(&folder, &certificates, &upstream, "", ""));
    let load = Load::start(&[Door::Tcp(gatehouse.tcp("http"))]);
    let more = "- {name: more, binds: [{address: \"127.0.0.1:0\"}]}";
    for round in 0..100 {
        let more = if round % 2 == 0 { more } else { "" };
        let page = format!("- {{path: /page, respond: {{body: \"{round}\"}}}}");
        hang_up(&mut gatehouse, &yaml(&folder, &certificates, &upstream, more, &page), DONE);
        assert_eq!(gatehouse.client("http").get("x", "/page").expect(200).text(), round.to_string());
    }
    load.wait_for(20);
    assert!(load.end() > 200);
    assert!(gatehouse.stop_cleanly());
}

/// A thousand reloads, with listeners that come and go, a log that moves and a connection that stays: neither descriptors nor
/// threads nor memory are kept.
#[test]
fn a_thousand_reloads_leave_nothing_behind() {
    let folder = Folder::new();
    let certificates = Certificates::new(&folder, &["x.example"]);
    let upstream = Upstream::start();
    let with = |round: usize| {
        let more =
            if round.is_multiple_of(2) { "- {name: more, binds: [{address: \"127.0.0.1:0\"}]}" } else { "" };
        let log = folder.join(if round.is_multiple_of(3) { "a.log" } else { "b.log" });
        let yaml = yaml(&folder, &certificates, &upstream, more, "");
        yaml.replace(
            "  admin:",
            &format!(
                "  limits: {{max_requests_per_connection: 100000}}\n  access_log: {{path: {log:?}}}\n  admin:"
            ),
        )
    };
    let mut gatehouse = Gatehouse::start(&folder, &with(0));
    let (http, admin) = (gatehouse.tcp("http"), gatehouse.tcp("admin"));
    let mut kept = Client::tcp(http);
    let process = format!("/proc/{}", gatehouse.process.id());
    let entries = |name: &str| std::fs::read_dir(format!("{process}/{name}")).unwrap().count();
    let measure =
        |gatehouse: &Gatehouse| (entries("fd"), entries("task"), gatehouse.process.resident_bytes());
    let mut measured = Vec::new();
    let mut generation = 1;
    for round in 1..=1200 {
        std::fs::write(&gatehouse.configuration, with(round)).unwrap();
        gatehouse.process.signal(Signal::HUP);
        generation += 1;
        let deadline = Instant::now() + PATIENCE;
        loop {
            let metrics = super::harness::Metrics::of(Client::tcp(admin));
            if metrics.value("gatehouse_edge_config_generation", &[]) == f64::from(generation) {
                break;
            }
            assert!(Instant::now() < deadline, "{}", gatehouse.process.log());
            std::thread::sleep(Duration::from_millis(2));
        }
        kept.get("x", "/").expect(200);
        if round % 200 == 0 {
            // Listeners that are gone keep connections for a few seconds, and logs are written out after a moment.
            std::thread::sleep(Duration::from_secs(1));
            measured.push(measure(&gatehouse));
        }
    }
    eprintln!("descriptors, threads, resident bytes after each 200 reloads: {measured:?}");
    let (first, last) = (measured[0], measured[5]);
    assert!(last.0 <= first.0 + 2, "descriptors: {measured:?}");
    assert!(last.1 <= first.1 + 2, "threads: {measured:?}");
    assert!(last.2 <= first.2 + (8 << 20), "memory: {measured:?}");
    drop(kept);
    assert!(gatehouse.stop_cleanly());
}
