//! What `gatehouse config show` prints.

use crate::folder::Folder;

/// Loads a text, then what was printed for it: both are the same configuration.
#[track_caller]
fn round_trip(folder: &Folder, text: &str) -> String {
    let first = folder.load(text);
    let again = folder.load(&first.effective);
    assert_eq!(format!("{:#?}", again.config), format!("{:#?}", first.config));
    assert_eq!(again.effective, first.effective);
    first.effective
}

#[test]
fn the_preset() {
    let text = r#"
data_dir: /srv/gatehouse
edge:
  matrix:
    server_name: example.com
    admin_allow: [10.0.0.0/8]
    rtc: {livekit: "unix:/run/livekit.sock", token_service: "http://localhost:8070"}
  tls: {certificates: [{certificate_file: cert.pem, key_file: key.pem}]}
"#;
    let folder = Folder::new();
    let shown = round_trip(&folder, text);
    assert!(!shown.contains("matrix:\n    server_name"), "{shown}");
    assert!(shown.contains("regex: ^/_matrix/client/(api/)?[^/]+/(login|logout|refresh)(/|$)"), "{shown}");
}

#[test]
fn every_form_of_everything() {
    let folder = Folder::new();
    folder.write_secret("matrix-secret", "s3cret");
    folder.write_secret("encryption", &"5a".repeat(32));
    folder.write_secret("pepper", "salt is elsewhere");
    let text = r#"
data_dir: data
edge:
  listeners:
    - name: https
      binds: [{address: "[::]:443"}, {host: localhost, port: 8443}, {port: 9443}]
      tls: true
      proxy_protocol: {from: [10.0.0.0/8, "::1"]}
    - name: http
      binds: [{socket: http.sock, mode: "660"}, {fd: 1, kind: unix}, {fd: 2}, {fd_name: http, kind: unix}, {fd_name: a b}]
      redirect_https: true
  tls:
    certificates: [{certificate_file: cert.pem, key_file: key.pem}]
    min_version: "1.3"
  trusted_proxies: [192.0.2.0/24]
  upstreams:
    auth: {servers: ["localhost:8080", "[::1]:8080"], proxy_protocol: v2}
    mas: {servers: ["unix:/run/mas.sock"], proxy_protocol: v1}
    nginx: {servers: ["localhost:81"], proxy_protocol: v2, proxy_tlvs: []}
    haproxy: {servers: ["localhost:82"], proxy_protocol: v2, proxy_tlvs: [crc32c, ssl]}
    synapse: {servers: ["https://synapse.example.com"], forwarded_for: append, proxy_protocol: off}
  sites:
    - hosts: [matrix.example.com, "*.example.org"]
      listeners: [https]
      routes:
        - {regex: "^/_matrix/client/(.*)/(login|logout|refresh)", upstream: auth, methods: [GET, POST]}
        - {regex: "^(/_matrix|/_synapse/client)", upstream: synapse, max_body_size: 50M}
        - {path: /hello, respond: {status: 201, headers: {Content-Type: text/plain, X-Thing: "1"}, body: "hello\nworld"}}
        - {prefix: /old/, redirect: https://example.com/new}
        - {prefix: /older/, redirect: {location: /newer, status: 302}}
        - {prefix: /secret/, deny: true}
        - {prefix: /gone/, deny: 410}
        - {prefix: /internal/, upstream: mas, allow: [10.0.0.0/8, 192.0.2.1]}
        - {prefix: /nobody/, upstream: mas, allow: []}
        - {prefix: /app/sub/, upstream: mas, strip_prefix: /app/}
        - {regex: "^/status$", upstream: mas, replace_path: /health}
    - name: everything else
      hosts: [_]
      routes:
        - prefix: /assets/
          static: {root: assets, precompressed: [br, zstd, gzip], expires: 365d}
        - prefix: /app/
          static: {root: assets, index: index.html, fallback: app/index.html}
          headers: {X-Frame-Options: SAMEORIGIN, Content-Security-Policy: "frame-ancestors 'self'"}
        - {prefix: /, static: {root: /srv/www}}
  limits:
    {max_body_size: 1G, max_header_size: 64k, max_connections: 5, max_connections_per_ip: 2, max_header_count: 100,
     max_target_length: 4k, max_trailer_size: 0, max_proxy_header_size: 1k, min_body_rate: 0, min_send_rate: 2k,
     max_requests_per_connection: 7}
  timeouts: {proxy_header: 6s, linger: 7s, handshake: 1s, header: 2s, idle: 3s, body: 4s, send: 5s, connect: 500ms, upstream_read: 1h, tunnel: 2h, drain: 2m, tunnel_drain: 3m}
  access_log: {path: access.log, format: combined}
  admin: {binds: [{address: "127.0.0.1:9090"}]}
  threads: 3
http:
  public_base: https://auth.example.com/base
  issuer: https://example.com
  trusted_proxies: []
  listeners:
    - name: web
      resources: [{name: discovery}, {name: compat}, {name: oauth}, {name: assets}, {name: prometheus}, {name: connection-info}, {name: health}]
      prefix: /auth/
      binds: [{address: "[::]:8080"}]
      proxy_protocol: true
      tls: {certificate_file: cert.pem, key_file: key.pem}
database: {uri: "postgresql://me@localhost/auth?sslmode=require", max_connections: 5, connect_timeout: 7}
matrix: {homeserver: example.com, endpoint: unix:/run/synapse.sock, secret_file: matrix-secret}
secrets: {encryption_file: encryption}
passwords:
  enabled: false
  minimum_complexity: 0
  schemes:
    - {version: 1, algorithm: bcrypt, cost: 11, unicode_normalization: true, secret_file: pepper}
    - {version: 3, algorithm: argon2id, memory_kib: 1024, iterations: 3, parallelism: 2}
    - {version: 2, algorithm: pbkdf2, iterations: 1000}
account: {login_with_email_allowed: false}
rate_limiting: {login: {per_ip: {burst: 5, per_second: 0.5}, per_account: {burst: 6, per_second: 1}}}
experimental: {compat_token_ttl: 600}
"#;
    let shown = round_trip(&folder, text);
    assert!(!shown.contains("5a5a"), "{shown}");
}

#[test]
fn secrets_are_left_out() {
    let folder = Folder::new();
    let text = format!(
        "
matrix: {{secret: hunter2}}
http: {{public_base: https://auth.example.com}}
database: {{uri: \"postgresql://me:hunter2@localhost/auth\"}}
secrets: {{encryption: {}}}
passwords: {{schemes: [{{version: 1, algorithm: argon2id, secret: hunter2}}]}}
",
        "5a".repeat(32)
    );
    let loaded = folder.load(&text);
    let shown = &loaded.effective;
    assert!(!shown.contains("hunter2") && !shown.contains("5a5a"), "{shown}");
    assert!(shown.contains("uri: postgresql://me:<redacted>@localhost/auth"), "{shown}");
    assert_eq!(shown.matches(": <redacted>\n").count(), 3, "{shown}");
    assert!(!format!("{:?}", loaded.config).contains("hunter2"));
    assert!(!format!("{:?}", loaded.config).contains("90, 90"));
}
