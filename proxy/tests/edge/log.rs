//! The access log.

use conf::{AccessLog, AccessLogFormat, AccessLogTarget};

use crate::harness::{Running, Upstream, ok, to};

#[tokio::test]
async fn every_request_has_a_line() {
    let upstream = Upstream::start(|_| ok("hello")).await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("access.log");
    let mut config = to(&upstream);
    config.access_log =
        Some(AccessLog { target: AccessLogTarget::File(path.clone()), format: AccessLogFormat::Json });
    let edge = Running::start(config).await;
    edge.ask("POST /a?access_token=geheim HTTP/1.1\r\nHost: A.example\r\nContent-Length: 3\r\n\r\nabc").await;
    edge.get("/../x").await;
    edge.ask("nonsense\r\n\r\n").await;
    edge.end().await;
    let text = std::fs::read_to_string(path).unwrap();
    assert!(!text.contains("geheim"));
    let lines: Vec<serde_json::Value> =
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 3, "{text}");
    for (name, value) in [
        ("client", "127.0.0.1".into()),
        ("listener", "http".into()),
        ("protocol", "HTTP/1.1".into()),
        ("tls", serde_json::Value::Null),
        ("method", "POST".into()),
        ("host", "A.example".into()),
        ("path", "/a?access_token=<redacted>".into()),
        ("site", "_".into()),
        ("route", "/".into()),
        ("upstream", "up".into()),
        ("status", 200.into()),
        ("bytes_in", 3.into()),
        ("bytes_out", 5.into()),
        ("error", serde_json::Value::Null),
    ] {
        assert_eq!(lines[0][name], value, "{name}");
    }
    assert!(lines[0]["duration_ms"].as_f64().unwrap() >= lines[0]["upstream_ms"].as_f64().unwrap());
    assert_eq!(lines[1]["status"], 200, "the route is the same with and without the dots");
    assert_eq!(
        (&lines[2]["status"], &lines[2]["method"], &lines[2]["path"]),
        (&400.into(), &"nonsense".into(), &"-".into())
    );
    assert_eq!(lines[2]["error"], "malformed request: request line");
    let connections: std::collections::BTreeSet<_> =
        lines.iter().filter_map(|line| line["connection"].as_str()).collect();
    assert_eq!(connections.len(), 3, "each came on a connection of its own: {text}");
}
