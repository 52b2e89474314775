//! Signals that nginx knows, so that an admin's rules for it do here what they did there.

use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::harness::{Client, Folder, Gatehouse, PATIENCE, Reply, Upgradable, Upstream};

fn yaml(folder: &Folder, upstream: &Upstream) -> String {
    format!(
        r#"
data_dir: {data:?}
edge:
  listeners: [{{name: http, binds: [{{address: "127.0.0.1:0"}}]}}]
  upstreams: {{api: {{servers: ["{upstream}"]}}}}
  sites: [{{hosts: ["_"], routes: [{{prefix: /, upstream: api}}]}}]
  access_log: {{path: access.log}}
"#,
        data = folder.path(),
        upstream = upstream.address,
    )
}

/// Waits until a file has this in it.
fn wait_for(path: &std::path::Path, text: &str) {
    let deadline = Instant::now() + PATIENCE;
    while !std::fs::read_to_string(path).is_ok_and(|found| found.contains(text)) {
        assert!(Instant::now() < deadline, "{text:?} never came to {}", path.display());
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// As logrotate does it: the file is moved away, the process told, and writes to a new one.
#[test]
fn usr1_opens_the_access_log_anew() {
    let (folder, upstream) = (Folder::new(), Upstream::start());
    let mut gatehouse = Gatehouse::start(&folder, &yaml(&folder, &upstream));
    let (log, rotated) = (folder.join("access.log"), folder.join("access.log.1"));
    let mut client = gatehouse.client("http");
    client.get("x", "/before").expect(200);
    wait_for(&log, "/before");
    std::fs::rename(&log, &rotated).unwrap();
    gatehouse.process.signal(Signal::USR1);
    wait_for(&log, "");
    client.get("x", "/after").expect(200);
    wait_for(&log, "/after");
    assert!(!std::fs::read_to_string(&rotated).unwrap().contains("/after"));
    assert!(gatehouse.stop_cleanly());
}

#[test]
fn usr2_starts_a_successor() {
    let (folder, upstream) = (Folder::new(), Upstream::start());
    let mut running = Upgradable::start(&folder, &yaml(&folder, &upstream));
    let address = running.gatehouse.tcp("http");
    Client::tcp(address).get("x", "/").expect(200);
    let first = running.serving;
    running.gatehouse.process.signal(Signal::USR2);
    running.serving = running.gatehouse.process.wait_for("its successor", |line| {
        let line: serde_json::Value = serde_json::from_str(line).ok()?;
        line["successor"].as_u64()?.try_into().ok()
    });
    running.wait_until_gone(first);
    Client::tcp(address).get("x", "/").expect(200);
    running.stop();
}

#[test]
fn quit_is_gentle() {
    let (folder, upstream) = (Folder::new(), Upstream::answering(|_| Reply::Late(Duration::from_secs(1))));
    let mut gatehouse = Gatehouse::start(&folder, &yaml(&folder, &upstream));
    let mut client = gatehouse.client("http");
    client.send("GET /late HTTP/1.1\r\nHost: x\r\n\r\n");
    upstream.wait_for(|request| request.target() == "/late");
    gatehouse.process.signal(Signal::QUIT);
    client.receive().expect(200);
    assert_eq!(gatehouse.process.wait().code(), Some(0));
}
