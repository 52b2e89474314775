//! `/metrics` of both halves: what happened is counted where it happened, in a form that Prometheus and its linter take.

use std::net::Ipv4Addr;
use std::time::UNIX_EPOCH;

use rustix::process::Signal;

use super::harness::{Certificates, Client, Curl, FakeSynapse, Folder, Gatehouse, Upstream, auth_yaml};

const HOST: &str = "matrix.example.com";
const BALANCER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 9);

struct Deployment {
    gatehouse: Gatehouse,
    certificates: Certificates,
    _upstream: Upstream,
    _synapse: FakeSynapse,
    _folder: Folder,
}

/// Both halves in one process: three listeners of the edge, one of the auth service.
fn deployment() -> Deployment {
    let folder = Folder::new();
    let certificates = Certificates::new(&folder, &[HOST]);
    let (upstream, synapse) = (Upstream::start(), FakeSynapse::start());
    let yaml = format!(
        r#"
{auth}
http:
  public_base: https://{HOST}/
  listeners:
    - name: web
      binds: [{{address: "127.0.0.1:0"}}]
      resources: [{{name: health}}, {{name: prometheus}}]
    - name: secure
      binds: [{{address: "127.0.0.1:0"}}]
      resources: [{{name: health}}]
      tls: {{certificate_file: {certificate:?}, key_file: {key:?}}}
edge:
  listeners:
    - {{name: http, binds: [{{address: "127.0.0.1:0"}}]}}
    - {{name: https, binds: [{{address: "127.0.0.1:0"}}], tls: true}}
    - {{name: balanced, binds: [{{address: "127.0.0.1:0"}}], proxy_protocol: {{from: [{BALANCER}/32]}}}}
  {tls}
  upstreams: {{api: {{servers: ["{upstream}"]}}}}
  sites: [{{hosts: ["_"], routes: [{{prefix: /, upstream: api}}]}}]
  limits: {{max_body_size: 1k, max_connections_per_ip: 20}}
  admin: {{binds: [{{address: "127.0.0.1:0"}}]}}
"#,
        auth = auth_yaml(folder.path(), &synapse.url()),
        tls = certificates.yaml(),
        certificate = certificates.certificate,
        key = certificates.key,
        upstream = upstream.address,
    );
    let gatehouse = Gatehouse::start(&folder, &yaml);
    Deployment { gatehouse, certificates, _upstream: upstream, _synapse: synapse, _folder: folder }
}

#[test]
fn connections_are_counted_by_listener() {
    let mut deployment = deployment();
    let [http, https, balanced] =
        ["http", "https", "balanced"].map(|listener| deployment.gatehouse.tcp(listener));
    let mut held = Client::tcp(http);
    held.get(HOST, "/").expect(200);
    drop(Client::tcp(http));
    let curl = Curl { ca: deployment.certificates.ca.clone(), edge: https };
    let url = format!("https://{HOST}:{{edge}}/");
    for version in ["--tls-max=1.2", "--tlsv1.3"] {
        let arguments: Vec<&str> =
            version.split('=').chain(["-o", "/dev/null", "-w", "%{http_code}"]).collect();
        assert_eq!(curl.run(&[HOST], &[&arguments[..], &[url.as_str()]].concat()), "200");
    }
    // Not TLS, and TLS of somebody who does not trust us.
    Client::tcp(https).try_send("GET / HTTP/1.1\r\n\r\n").unwrap();
    let stranger = Certificates::new(&Folder::new(), &[HOST]);
    let mut distrustful = Client::tls(&stranger, HOST, https);
    assert!(distrustful.try_send("GET / HTTP/1.1\r\n\r\n").is_err());
    for header in ["PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n", "GET / HTTP/1.1\r\n\r\n"] {
        let mut client = Client::tcp_from(BALANCER, balanced);
        client.send(header);
        let _ = client.try_send(format!("GET / HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n"));
        while !client.is_closed() {}
    }
    let many: Vec<Client> = (0..25).map(|_| Client::tcp_from(Ipv4Addr::new(127, 0, 0, 3), http)).collect();
    held.request("POST /", &[&format!("Host: {HOST}")], &[b'x'; 2000]).expect(413);

    let metrics = deployment.gatehouse.wait_for_metrics("admin", |metrics| {
        let of =
            |name: &str, labels: &[(&str, &str)]| metrics.value(&format!("gatehouse_edge_{name}"), labels);
        let refused = |listener, reason| {
            of("listener_connections_refused_total", &[("listener", listener), ("reason", reason)])
        };
        of("listener_connections_open", &[("listener", "https")]) == 0.0
            && of("connections_over_limit_total", &[]) == 5.0
            && refused("https", "tls_failed") == 2.0
            && refused("balanced", "proxy_missing") == 1.0
    });
    let of = |name: &str, labels: &[(&str, &str)]| metrics.value(&format!("gatehouse_edge_{name}"), labels);
    assert_eq!(of("listener_connections_accepted_total", &[("listener", "http")]), 27.0);
    assert_eq!(of("listener_connections_accepted_total", &[("listener", "https")]), 4.0);
    assert_eq!(of("connections_accepted_total", &[]), 33.0);
    let over = [("listener", "http"), ("limit", "max_connections_per_ip")];
    assert_eq!(of("listener_connections_over_limit_total", &over), 5.0);
    for version in ["1.2", "1.3"] {
        let full = [("listener", "https"), ("version", version), ("session", "full")];
        assert_eq!(of("listener_tls_handshakes_total", &full), 1.0, "{version}");
    }
    for (reason, count) in [("not_tls", 1.0), ("alert", 1.0), ("deadline", 0.0), ("incompatible", 0.0)] {
        let failed = [("listener", "https"), ("reason", reason)];
        assert_eq!(of("listener_tls_handshake_failures_total", &failed), count, "{reason}");
    }
    for (version, count) in [("1", 1.0), ("2", 0.0)] {
        let headers = [("listener", "balanced"), ("version", version)];
        assert_eq!(of("listener_proxy_headers_total", &headers), count);
    }
    assert_eq!(of("limit_hits_total", &[("limit", "limits.max_body_size")]), 1.0);
    assert_eq!(of("limit_hits_total", &[("limit", "limits.max_connections_per_ip")]), 5.0);
    drop(many);
    deployment
        .gatehouse
        .wait_for_metrics("admin", |metrics| metrics.value("gatehouse_edge_connections_open", &[]) <= 1.0);

    // What an administrator sees without asking: that it begins, not each of them.
    let log = deployment.gatehouse.process.log();
    assert_eq!(log.matches("connections are refused").count(), 1, "{log}");
    assert_eq!(log.matches("PROXY headers are refused").count(), 1, "{log}");
    assert!(deployment.gatehouse.stop_cleanly());
    let log = deployment.gatehouse.process.log();
    let last =
        log.lines().find(|line| line.contains("connections since the start") && line.contains("\"http\""));
    assert!(last.is_some_and(|line| line.contains("\"accepted\":27")), "{log}");
}

#[test]
fn the_auth_service_counts_the_same() {
    let mut deployment = deployment();
    let mut web = deployment.gatehouse.client("web");
    web.get("localhost", "/health").expect(200);
    let secure = deployment.gatehouse.tcp("secure");
    Client::tls(&deployment.certificates, HOST, secure).get(HOST, "/health").expect(200);
    let metrics = deployment.gatehouse.wait_for_metrics("web", |metrics| {
        metrics.value("gatehouse_auth_listener_connections_open", &[("listener", "secure")]) == 0.0
    });
    assert!(metrics.value("gatehouse_auth_listener_connections_open", &[("listener", "web")]) >= 2.0);
    let full = [("listener", "secure"), ("version", "1.3"), ("session", "full")];
    assert_eq!(metrics.value("gatehouse_auth_listener_tls_handshakes_total", &full), 1.0);
    assert!(metrics.value("gatehouse_auth_requests_total", &[("status", "2xx")]) >= 2.0);
}

#[test]
fn processes_and_certificates_are_told_as_everywhere() {
    let mut deployment = deployment();
    // A file that has just been written knows what time it is.
    let written = std::fs::metadata(&deployment.certificates.certificate).unwrap().modified().unwrap();
    let now = written.duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
    let file = deployment.certificates.certificate.display().to_string();
    for (listener, prefix) in [("admin", "edge"), ("web", "auth")] {
        let metrics = deployment.gatehouse.metrics(listener);
        let ends = metrics.value(
            &format!("gatehouse_{prefix}_certificate_not_after_seconds"),
            &[("name", HOST), ("file", &file)],
        );
        // What rcgen makes ends at the end of the year 4095.
        assert!((67e9..68e9).contains(&ends), "{ends}");
        assert_eq!(metrics.value("gatehouse_build_info", &[("version", env!("CARGO_PKG_VERSION"))]), 1.0);
        let started = metrics.value("process_start_time_seconds", &[]);
        assert!((now - 5.0..now + 120.0).contains(&started), "{started}, and before it was {now}");
        let (open, most) = (metrics.value("process_open_fds", &[]), metrics.value("process_max_fds", &[]));
        assert!(open > 10.0 && open < most, "{open} of {most}");
        assert!(metrics.value("process_resident_memory_bytes", &[]) > 1e6);
        let readme = if prefix == "edge" { "proxy/README.md" } else { "service/README.md" };
        let readme = std::fs::read_to_string(readme).unwrap();
        for name in metrics.names() {
            let name = name.trim_start_matches(&format!("gatehouse_{prefix}_"));
            let (alone, labelled) = (format!("`{name}`"), format!("`{name}{{"));
            assert!(
                readme.contains(&alone) || readme.contains(&labelled),
                "{name} is in no table of metrics"
            );
        }
        // Nothing else is without the prefix.
        let others = metrics.names().into_iter().filter(|name| {
            !name.starts_with(&format!("gatehouse_{prefix}_")) && !name.starts_with("process_")
        });
        assert_eq!(others.collect::<Vec<_>>(), ["gatehouse_build_info"]);
    }
}

#[test]
fn both_halves_count_reloads() {
    let mut deployment = deployment();
    let text = std::fs::read_to_string(&deployment.gatehouse.configuration).unwrap();
    let counts = |applied: f64, refused: f64, prefix: &'static str| {
        move |metrics: &super::harness::Metrics| {
            let of = |name: &str, labels: &[(&str, &str)]| {
                metrics.value(&format!("gatehouse_{prefix}_{name}"), labels)
            };
            of("reloads_total", &[("outcome", "applied")]) == applied
                && of("reloads_total", &[("outcome", "refused")]) == refused
                && of("config_generation", &[]) == applied + 1.0
        }
    };
    let refused_by_the_edge = text.replace("prefix: /, upstream", "prefix: /, upstrem");
    let moved = text.replace("data_dir: ", "data_dir: /nowhere # ");
    deployment.gatehouse.wait_for_metrics("admin", counts(0.0, 0.0, "edge"));
    // A refused configuration is refused for both.
    for (reloads, (yaml, applied, refused)) in
        [(text.clone(), 1.0, 0.0), (refused_by_the_edge, 1.0, 1.0), (moved, 1.0, 2.0), (text, 2.0, 2.0)]
            .into_iter()
            .enumerate()
    {
        std::fs::write(&deployment.gatehouse.configuration, yaml).unwrap();
        deployment.gatehouse.process.signal(Signal::HUP);
        for (listener, prefix) in [("admin", "edge"), ("web", "auth")] {
            let metrics = deployment.gatehouse.wait_for_metrics(listener, counts(applied, refused, prefix));
            assert!(
                metrics.value(&format!("gatehouse_{prefix}_config_applied_timestamp_seconds"), &[]) > 1.7e9,
                "{reloads}"
            );
        }
    }
}
