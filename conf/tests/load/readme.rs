//! The configurations that the README of the project shows.

use std::fs;

use crate::folder::Folder;

const README: &str = include_str!("../../../README.md");

#[test]
fn every_configuration_in_the_readme_loads() {
    let blocks: Vec<&str> =
        README.split("```yaml\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
    assert!(!blocks.is_empty());
    for block in blocks {
        let folder = Folder::new();
        fs::rename(folder.path().join("cert.pem"), folder.path().join("fullchain.pem")).unwrap();
        fs::rename(folder.path().join("key.pem"), folder.path().join("privkey.pem")).unwrap();
        folder.write_secret("matrix-secret", "a secret");
        let text = block.replace("/etc/letsencrypt/live/example.com/", "").replace("/etc/gatehouse/", "");
        let loaded = folder.load(&text);
        // Only the folder of assets is not there.
        let other: Vec<String> = loaded
            .warnings
            .diagnostics
            .iter()
            .filter(|finding| !finding.message.starts_with("there is no folder /path/to/share/assets"))
            .map(ToString::to_string)
            .collect();
        assert!(other.is_empty(), "{other:#?}\n{block}");
    }
}

#[test]
fn the_presets_in_the_readme_of_the_crate_load() {
    let blocks = include_str!("../../README.md").split("```yaml\nedge:\n").skip(1);
    let blocks: Vec<&str> = blocks.filter_map(|rest| rest.split("```").next()).collect();
    assert!(!blocks.is_empty());
    for block in blocks {
        let tls = "tls: {certificates: [{certificate_file: cert.pem, key_file: key.pem}]}";
        let folder = Folder::new();
        folder.write("index.html", "");
        let block = block.replace("/usr/share/element-web", ".");
        let loaded = folder.load(&format!("edge:\n  {tls}\n{block}"));
        assert_eq!(loaded.warnings.to_string(), "", "{block}");
    }
}

#[test]
fn both_halves_of_the_contract() {
    let folder = Folder::new();
    let loaded = folder.load(
        r#"
http:
  public_base: https://auth.example.com/
  trusted_proxies: [192.168.0.0/16, 172.16.0.0/12, 10.0.0.0/8, 127.0.0.0/8, fd00::/8, ::1/128]
  listeners:
    - name: web
      resources: [{name: discovery}, {name: human}, {name: oauth}, {name: compat}, {name: graphql}, {name: assets}]
      binds:
        - {host: localhost, port: 8080}
      proxy_protocol: true
database: {uri: "sqlite:///var/lib/gatehouse/auth.db"}
matrix: {homeserver: example.com, endpoint: "http://localhost:8008/", secret: "…"}
data_dir: /var/lib/gatehouse
edge:
  matrix:
    server_name: example.com
    host: matrix.example.com
    auth_host: auth.example.com
    synapse: synapse
    auth: auth
    federation_port: 8448
    well_known: true
    admin_allow: []
  listeners:
    - name: https
      binds: [{address: "[::]:443"}]
      tls: true
      proxy_protocol: {from: [10.0.0.0/8]}
    - name: http
      binds: [{address: "[::]:80"}]
      redirect_https: true
  tls:
    certificates: [{certificate_file: cert.pem, key_file: key.pem}]
    min_version: "1.2"
  trusted_proxies: []
  upstreams:
    auth:
      servers: ["localhost:8080"]
      proxy_protocol: v2
      forwarded_for: replace
    synapse: {servers: ["localhost:8008"]}
  sites:
    - hosts: [matrix.example.com]
      routes:
        - {regex: "^/_matrix/client/(.*)/(login|logout|refresh)", upstream: auth}
        - {regex: "^(/_matrix|/_synapse/client)", upstream: synapse, max_body_size: 50M}
    - hosts: [auth.example.com]
      routes:
        - prefix: /assets/
          static: {root: /path/to/share/assets, precompressed: [br, zstd, gzip], expires: 365d}
        - {prefix: /, upstream: auth}
  limits: {max_body_size: 50M, max_header_size: 32k, max_connections: 10000, max_connections_per_ip: 200}
  timeouts: {handshake: 10s, header: 15s, idle: 75s, connect: 5s, upstream_read: 200s, drain: 30s}
  access_log: {path: "-", format: json}
  admin: {binds: [{address: "127.0.0.1:9090"}]}
"#,
    );
    let said: Vec<&str> =
        loaded.warnings.diagnostics.iter().map(|finding| finding.key_path.as_str()).collect();
    let resource = |index| format!("http.listeners[0].resources[{index}].name");
    assert_eq!(said, [&resource(1), &resource(4), "edge.sites[1].routes[0].static.root"]);
    let edge = loaded.config.edge.unwrap();
    assert_eq!((edge.limits, edge.timeouts), Default::default());
    assert_eq!(edge.listeners.len(), 3);
}
