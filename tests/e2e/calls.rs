//! MatrixRTC of the preset: a client finds the token service, gets a token and talks to LiveKit over a WebSocket.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use super::harness::{Certificates, Folder, Gatehouse, Upstream, free_port, run_to_end, venv};

#[test]
fn a_call_is_set_up_and_lasts() {
    let folder = Folder::new();
    let certificates = Certificates::new(&folder, &["localhost", "auth.localhost"]);
    let upstream = Upstream::start();
    let [edge, livekit, token_service] = [(); 3].map(|()| free_port());
    let log = folder.join("access.log");
    let yaml = format!(
        r#"
data_dir: {data:?}
edge:
  matrix:
    server_name: localhost
    host: "localhost:{edge}"
    auth_host: auth.localhost
    federation_port: false
    synapse: "{upstream}"
    auth: "{upstream}"
    rtc: {{livekit: "http://127.0.0.1:{livekit}", token_service: "http://127.0.0.1:{token_service}"}}
  listeners: [{{name: https, binds: [{{address: "127.0.0.1:{edge}"}}], tls: true}}]
  {tls}
  limits: {{max_body_size: 1M}}
  timeouts: {{handshake: 1s, header: 1s, idle: 1s, body: 1s, send: 1s, upstream_read: 2s}}
  access_log: {{path: {log:?}}}
"#,
        data = folder.path(),
        upstream = upstream.url(),
        tls = certificates.yaml(),
    );
    let mut gatehouse = Gatehouse::start(&folder, &yaml);
    gatehouse.address("https");
    let arguments = json!({
        "base": format!("https://localhost:{edge}"),
        "livekit": livekit,
        "token_service": token_service,
        "heartbeat": 0.5,
        "silence": 5,
    });
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/e2e/clients/calls.py");
    let mut command = Command::new(venv().join("bin/python"));
    command.arg("-B").arg(script).arg(arguments.to_string()).env("SSL_CERT_FILE", &certificates.ca);
    let output = run_to_end(&mut command, "");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}\n{}", gatehouse.process.log());
    assert!(upstream.requests().is_empty());

    assert!(gatehouse.stop_cleanly());
    let log = std::fs::read_to_string(log).unwrap();
    assert!(!log.contains("signature"), "{log}");
    let lines: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let socket = lines.iter().find(|line| line["status"] == 101).expect("a line for the WebSocket");
    assert_eq!(socket["path"], "/livekit/sfu/rtc?access_token=<redacted>&auto_subscribe=1&sdk=js%2F2");
    assert_eq!(socket["upstream"], "livekit");
    assert!(socket["duration_ms"].as_f64().unwrap() > 5000.0, "{socket}");
}
