//! The deployments of the reverse-proxy guide, each as its YAML: the auth service has to see the real client, whatever a
//! client says about itself.

use std::net::{Ipv4Addr, SocketAddr};
use std::process::Command;

use serde_json::{Value, json};

use super::harness::{
    Answer, Certificates, Client, FakeSynapse, Folder, Gatehouse, Process, Upstream, add_user, auth_yaml,
    free_port, gatehouse_command, program, run_to_end, wait_until_listening,
};

const AUTH: &str = "auth.example.com";
const MATRIX: &str = "matrix.example.com";
/// The client's address; nobody's reverse proxy.
const CLIENT: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 9);
const PASSWORD: &str = "correct horse battery staple";

/// "Configuration example" of the guide: a local port. Which one is left to the system, and what the connection looked like
/// is served too.
const ON_A_PORT: &str = r#"
http:
  public_base: https://auth.example.com/
  listeners:
    - name: web
      resources:
        - name: discovery
        - name: human
        - name: oauth
        - name: compat
        - name: graphql
        - name: assets
        - name: connection-info
      binds:
        - host: localhost
          port: 0
"#;

/// The same with a Unix socket.
const ON_A_UNIX_SOCKET: &str = r#"
http:
  public_base: https://auth.example.com/
  listeners:
    - name: web
      resources:
        - name: discovery
        - name: human
        - name: oauth
        - name: compat
        - name: graphql
        - name: assets
        - name: connection-info
      binds:
        - socket: FOLDER/mas.sock
"#;

/// "Proxy protocol" of the guide.
const WITH_PROXY_PROTOCOL: &str = r#"
http:
  public_base: https://auth.example.com/
  listeners:
    - name: web
      resources:
        - name: discovery
        - name: human
        - name: oauth
        - name: compat
        - name: graphql
        - name: assets
        - name: connection-info
      binds:
        - address: "[::]:0"
      proxy_protocol: true
"#;

/// "X-Forwarded-For header" of the guide.
const TRUSTED_PROXIES: &str = "  trusted_proxies:
    - 192.168.0.0/16
    - 172.16.0.0/12
    - 10.0.0.0/10
    - 127.0.0.1/8
    - fd00::/8
    - ::1/128
";

struct Deployment {
    certificates: Certificates,
    edge: SocketAddr,
    synapse: Upstream,
    processes: [Gatehouse; 2],
    _fake: FakeSynapse,
    folder: Folder,
}

/// `gatehouse-auth` with `http`, and an edge whose upstream `auth` has the options given.
fn deploy(http: &str, upstream_options: &str) -> Deployment {
    let folder = Folder::new();
    let fake = FakeSynapse::start();
    let synapse = Upstream::start();
    let certificates = Certificates::new(&folder, &[AUTH, MATRIX]);
    let http = http.replace("FOLDER", &folder.path().display().to_string());
    let mut auth =
        Gatehouse::start_auth(&folder, &format!("{}{http}", auth_yaml(folder.path(), &fake.url())));
    let address = match auth.address("web") {
        address if address.starts_with("unix:") => address,
        _ => auth.tcp("web").to_string(),
    };
    add_user(&auth.configuration, "alice", PASSWORD, &[]);
    let yaml = format!(
        r#"
edge:
  listeners:
    - {{name: https, binds: [{{address: "127.0.0.1:0"}}], tls: true}}
  {tls}
  upstreams:
    auth: {{servers: ["{address}"]{upstream_options}}}
    synapse: {{servers: ["{synapse}"]}}
  sites:
    - hosts: [{MATRIX}]
      routes:
        - {{regex: "^/_matrix/client/(.*)/(login|logout|refresh)", upstream: auth}}
        - {{regex: "^(/_matrix|/_synapse/client)", upstream: synapse, max_body_size: 50M}}
    - hosts: [{AUTH}]
      routes:
        - {{prefix: /, upstream: auth}}
"#,
        tls = certificates.yaml(),
        synapse = synapse.address,
    );
    let mut edge = Gatehouse::start(&folder, &yaml);
    let address = edge.tcp("https");
    Deployment { certificates, edge: address, synapse, processes: [edge, auth], _fake: fake, folder }
}

impl Deployment {
    fn client(&self, host: &str) -> Client {
        Client::tls_from(CLIENT, &self.certificates, host, self.edge)
    }

    /// What the auth service saw of a request with these fields.
    fn seen(&self, more: &[&str]) -> Value {
        let host = format!("Host: {AUTH}");
        let headers: Vec<&str> = std::iter::once(host.as_str()).chain(more.iter().copied()).collect();
        self.client(AUTH).request("GET /connection-info", &headers, b"").expect(200).json()
    }

    fn login(&self) -> Answer {
        let body = json!({
            "type": "m.login.password",
            "identifier": {"type": "m.id.user", "user": "alice"},
            "password": PASSWORD,
        });
        self.client(MATRIX).post(MATRIX, "/_matrix/client/v3/login", None, &body)
    }

    /// What every deployment has to do.
    fn check(&self) -> Value {
        let honest = self.seen(&[]);
        assert_eq!(honest["client"], CLIENT.to_string(), "{honest}");
        for forged in [
            &["X-Forwarded-For: 198.51.100.1"][..],
            &["X-Forwarded-For: 198.51.100.1, 127.0.0.1", "X-Forwarded-For: 198.51.100.2"],
            &["Forwarded: for=198.51.100.1;proto=http;host=evil.example"],
            &["X_Forwarded_For: 198.51.100.1", "X_Forwarded-For: 198.51.100.2"],
            &["X-Real-IP: 198.51.100.1", "X-Client-IP: 198.51.100.1", "True-Client-IP: 198.51.100.1"],
        ] {
            let seen = self.seen(forged);
            assert_eq!(seen["client"], CLIENT.to_string(), "{forged:?} changed it: {seen}");
        }
        // Asking us to drop our own word on the way is refused altogether.
        let drop = ["Host: auth.example.com", "Connection: X-Forwarded-For, Forwarded"];
        self.client(AUTH).request("GET /connection-info", &drop, b"").expect(400);
        let login = self.login().expect(200).json();
        assert_eq!(login["user_id"], "@alice:localhost");
        self.client(MATRIX).get(MATRIX, "/_matrix/client/versions").expect(200);
        // Pingora shouts when it cannot use a connection again, for which the auth service's socket once gave it reason.
        for process in &self.processes {
            let log = process.process.log();
            assert!(!log.contains("\"level\":\"ERROR\""), "{log}");
        }
        let seen = self.synapse.wait_for(|request| request.target() == "/_matrix/client/versions");
        assert_eq!(seen.header("x-forwarded-for").unwrap(), CLIENT.to_string());
        honest
    }
}

#[test]
fn on_a_port_with_x_forwarded_for() {
    let seen = deploy(&format!("{ON_A_PORT}{TRUSTED_PROXIES}"), "").check();
    assert_eq!(seen["proxy_protocol"], Value::Null, "{seen}");
}

#[test]
fn on_a_port_with_the_address_appended_as_nginx_does() {
    // Only the edge is a trusted hop: with the guide's 127.0.0.1/8 the client of this test would be one, too.
    let trusted = "  trusted_proxies: [127.0.0.1/32, \"::1/128\"]\n";
    deploy(&format!("{ON_A_PORT}{trusted}"), ", forwarded_for: append").check();
}

#[test]
fn on_a_unix_socket_with_x_forwarded_for() {
    deploy(ON_A_UNIX_SOCKET, "").check();
}

#[test]
fn with_proxy_protocol_v1() {
    let seen = deploy(WITH_PROXY_PROTOCOL, ", proxy_protocol: v1").check();
    assert_eq!(seen["proxy_protocol"]["version"], 1, "{seen}");
}

#[test]
fn with_proxy_protocol_v2() {
    let seen = deploy(WITH_PROXY_PROTOCOL, ", proxy_protocol: v2").check();
    assert_eq!(seen["proxy_protocol"]["version"], 2, "{seen}");
}

#[test]
fn with_proxy_protocol_v2_on_a_unix_socket() {
    let http = format!("{}      proxy_protocol: true\n", ON_A_UNIX_SOCKET.trim_end_matches(' '));
    let seen = deploy(&http, ", proxy_protocol: v2").check();
    assert_eq!(seen["proxy_protocol"]["version"], 2, "{seen}");
}

#[test]
fn a_proxy_header_of_the_clients_own_ends_the_connection() {
    let deployment = deploy(WITH_PROXY_PROTOCOL, ", proxy_protocol: v2");
    let mut client = Client::tcp_from(CLIENT, deployment.edge);
    client.send(
        "PROXY TCP4 198.51.100.1 127.0.0.1 1234 443\r\nGET /connection-info HTTP/1.1\r\nHost: x\r\n\r\n",
    );
    let answer = client.try_receive();
    assert!(answer.as_ref().is_none_or(|answer| answer.status == 400), "{answer:?}");
    assert!(client.is_closed());
    drop(deployment.folder);
}

#[test]
fn a_proxy_header_is_demanded_and_believed_from_trusted_proxies_only() {
    let folder = Folder::new();
    let fake = FakeSynapse::start();
    let trusted = "  trusted_proxies: [127.0.0.1/32]\n";
    let http = WITH_PROXY_PROTOCOL.replace("[::]:0", "127.0.0.1:0");
    let yaml = format!("{}{http}{trusted}", auth_yaml(folder.path(), &fake.url()));
    let mut auth = Gatehouse::start_auth(&folder, &yaml);
    let address = auth.tcp("web");
    let header = "PROXY TCP4 198.51.100.1 127.0.0.1 1234 443\r\n";
    let request = "GET /connection-info HTTP/1.1\r\nHost: auth.example.com\r\n\r\n";

    let mut trusted = Client::tcp(address);
    trusted.send(format!("{header}{request}"));
    assert_eq!(trusted.receive().expect(200).json()["client"], "198.51.100.1");

    for (source, bytes) in [(CLIENT, format!("{header}{request}")), (Ipv4Addr::LOCALHOST, request.to_owned())]
    {
        let mut refused = Client::tcp_from(source, address);
        let _ = refused.try_send(bytes);
        assert!(refused.try_receive().is_none(), "{source}");
    }
}

/// The guide's nginx in front of `gatehouse-auth`: the auth half works without the edge.
#[test]
fn behind_nginx_with_x_forwarded_for() {
    let folder = Folder::new();
    let fake = FakeSynapse::start();
    let trusted = "  trusted_proxies: [127.0.0.1/32, \"::1/128\"]\n";
    let yaml = format!("{}{ON_A_PORT}{trusted}", auth_yaml(folder.path(), &fake.url()));
    let mut auth = Gatehouse::start_auth(&folder, &yaml);
    let port = free_port();
    let configuration = folder.write(
        "nginx.conf",
        format!(
            "daemon off; master_process off; pid {folder}/nginx.pid; error_log stderr;\n\
             events {{}}\n\
             http {{\n  access_log off; client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;\n  \
               fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;\n  \
               server {{\n    listen 127.0.0.1:{port};\n    location / {{\n      proxy_http_version 1.1;\n      \
                 proxy_pass http://{auth};\n      proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;\n    \
               }}\n  }}\n}}\n",
            folder = folder.path().display(),
            auth = auth.tcp("web"),
        ),
    );
    let mut command = Command::new(program("nginx"));
    command.arg("-c").arg(&configuration).arg("-p").arg(folder.path());
    let nginx = Process::start("nginx", &mut command);
    let address = wait_until_listening(port);
    for forged in [&["Host: x"][..], &["Host: x", "X-Forwarded-For: 198.51.100.1"]] {
        let answer =
            Client::tcp_from(CLIENT, address).request("GET /connection-info", forged, b"").expect(200);
        assert_eq!(answer.json()["client"], CLIENT.to_string(), "{}", answer.text());
    }
    drop(nginx);
}

#[test]
fn the_guides_blocks_are_valid_as_they_stand() {
    let folder = Folder::new();
    for block in [ON_A_PORT, ON_A_UNIX_SOCKET, WITH_PROXY_PROTOCOL] {
        let yaml = format!("{}{block}{TRUSTED_PROXIES}", auth_yaml(folder.path(), "http://localhost:8008/"));
        let path = folder.write("guide.yaml", yaml);
        let output = run_to_end(gatehouse_command().arg("check").arg("-c").arg(path), "");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}
