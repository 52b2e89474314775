//! PROXY headers to upstreams: before the first byte, the client's own address, never one connection for two clients; and
//! from proxies in front of us.

mod balancers;
mod redirects;
mod refusals;
mod tlvs;

use std::net::Ipv4Addr;
use std::path::Path;
use std::process::Command;
use std::sync::Barrier;

use super::harness::{
    Certificates, Client, Folder, Gatehouse, Process, Recorded, Upstream, free_port, program,
    wait_until_listening,
};

const HOST: &str = "matrix.example.com";
/// Requests that each connection sends.
const ROUNDS: usize = 5;

struct Edge {
    gatehouse: Gatehouse,
    certificates: Certificates,
    _folder: Folder,
}

/// An edge that speaks to one server. `version` may go on with other options of the upstream.
fn edge(server: &str, version: &str) -> Edge {
    let folder = Folder::new();
    let certificates = Certificates::new(&folder, &[HOST]);
    let yaml = format!(
        r#"
edge:
  listeners: [{{name: https, binds: [{{address: "127.0.0.1:0"}}], tls: true}}]
  {tls}
  upstreams: {{api: {{servers: ["{server}"], proxy_protocol: {version}}}}}
  sites: [{{hosts: [{HOST}], routes: [{{prefix: /, upstream: api}}]}}]
  access_log: {{path: "-"}}
"#,
        tls = certificates.yaml(),
    );
    Edge { gatehouse: Gatehouse::start(&folder, &yaml), certificates, _folder: folder }
}

fn clients() -> Vec<Ipv4Addr> {
    // The second address has two connections: an address alone is not who may share a connection.
    [2, 3, 3, 4].map(|last| Ipv4Addr::new(127, 0, 0, last)).to_vec()
}

impl Edge {
    /// Keep-alive connections of several clients whose requests take turns.
    fn interleave_http_1(&mut self) {
        let address = self.gatehouse.tcp("https");
        let mut connections: Vec<Client> = clients()
            .into_iter()
            .map(|source| Client::tls_from(source, &self.certificates, HOST, address))
            .collect();
        for round in 0..ROUNDS {
            for (index, client) in connections.iter_mut().enumerate() {
                client.get(HOST, &format!("/{index}/{round}")).expect(200);
            }
        }
    }

    /// The same over HTTP/2, all clients at once, each with several streams on one connection.
    fn interleave_http_2(&mut self) {
        let address = self.gatehouse.tcp("https");
        let together = Barrier::new(clients().len());
        std::thread::scope(|scope| {
            for (index, source) in clients().into_iter().enumerate() {
                let (certificates, together) = (&self.certificates, &together);
                scope.spawn(move || {
                    let mut curl = Command::new(program("curl"));
                    curl.args([
                        "-sS",
                        "--noproxy",
                        "*",
                        "--http2",
                        "--parallel",
                        "--max-time",
                        "60",
                        "--cacert",
                    ])
                    .arg(&certificates.ca)
                    .args(["--interface", &source.to_string()])
                    .args(["--resolve", &format!("{HOST}:{}:127.0.0.1", address.port())])
                    .args(["-w", "%{http_code}\n"]);
                    for round in 0..ROUNDS {
                        curl.args(["-o", "/dev/null"])
                            .arg(format!("https://{HOST}:{}/{index}/{round}", address.port()));
                    }
                    together.wait();
                    let output = curl.output().unwrap();
                    let said = String::from_utf8_lossy(&output.stdout).into_owned();
                    assert_eq!(said, "200\n".repeat(ROUNDS), "{}", String::from_utf8_lossy(&output.stderr));
                });
            }
        });
    }
}

/// Every request came on a connection that was opened for its client.
fn check(requests: &[Recorded], version: u8) {
    assert_eq!(requests.len(), clients().len() * ROUNDS);
    for request in requests {
        let target = request.target();
        let index: usize = target.split('/').nth(1).unwrap().parse().unwrap();
        let seen = request.proxy.as_ref().unwrap();
        assert_eq!(seen.version, version);
        assert_eq!(seen.source.unwrap().ip(), clients()[index], "{target}");
        assert_eq!(request.header("x-forwarded-for").unwrap(), clients()[index].to_string());
        let strangers = requests.iter().filter(|other| {
            other.connection == request.connection
                && other.proxy.as_ref().unwrap().source != request.proxy.as_ref().unwrap().source
        });
        assert_eq!(strangers.count(), 0);
    }
}

/// The upstream connections that the requests of one client connection used.
fn connections_of(requests: &[Recorded], index: usize) -> usize {
    let prefix = format!("/{index}/");
    let mut used: Vec<usize> = requests
        .iter()
        .filter(|request| request.target().starts_with(&prefix))
        .map(|request| request.connection)
        .collect();
    used.sort_unstable();
    used.dedup();
    used.len()
}

#[test]
fn interleaved_http_1_clients_never_share_a_connection_and_reuse_their_own() {
    for (version, number) in [("v1", 1), ("v2", 2)] {
        let upstream = Upstream::with_proxy_protocol();
        edge(&upstream.address.to_string(), version).interleave_http_1();
        let requests = upstream.requests();
        check(&requests, number);
        for index in 0..clients().len() {
            assert_eq!(connections_of(&requests, index), 1, "client {index} did not reuse its connection");
        }
    }
}

#[test]
fn interleaved_http_2_clients_never_share_a_connection() {
    for (version, number) in [("v1", 1), ("v2", 2)] {
        let upstream = Upstream::with_proxy_protocol();
        edge(&upstream.address.to_string(), version).interleave_http_2();
        check(&upstream.requests(), number);
    }
}

#[test]
fn the_same_over_a_unix_socket() {
    let folder = Folder::new();
    for (version, number) in [("v1", 1), ("v2", 2)] {
        let upstream = Upstream::unix(&folder.join(&format!("{version}.sock")), true);
        let mut edge = edge(&upstream.address.to_string(), version);
        edge.interleave_http_1();
        check(&upstream.requests(), number);
        for index in 0..clients().len() {
            assert_eq!(connections_of(&upstream.requests(), index), 1);
        }
    }
}

/// Several clients take turns against a real receiver that answers with the address it took from the PROXY header.
fn check_receiver(server: &str, version: &str) {
    let mut edge = edge(server, version);
    let address = edge.gatehouse.tcp("https");
    let sources = clients();
    let mut connections: Vec<Client> =
        sources.iter().map(|source| Client::tls_from(*source, &edge.certificates, HOST, address)).collect();
    for _ in 0..ROUNDS {
        for (source, client) in sources.iter().zip(&mut connections) {
            assert_eq!(client.get(HOST, "/").expect(200).text().trim(), source.to_string(), "{version}");
        }
    }
    for source in &sources {
        let mut curl = Command::new(program("curl"));
        curl.args(["-sS", "--noproxy", "*", "--http2", "--cacert"])
            .arg(&edge.certificates.ca)
            .args(["--interface", &source.to_string()])
            .args(["--resolve", &format!("{HOST}:{}:127.0.0.1", address.port())])
            .arg(format!("https://{HOST}:{}/", address.port()));
        let output = curl.output().unwrap();
        assert_eq!(
            String::from_utf8_lossy(&output.stdout).trim(),
            source.to_string(),
            "{version} over HTTP/2"
        );
    }
}

#[test]
fn haproxy_as_the_receiver_sees_each_client() {
    let folder = Folder::new();
    let port = free_port();
    let configuration = folder.write(
        "haproxy.cfg",
        format!(
            "defaults\n  mode http\n  timeout connect 5s\n  timeout client 60s\n  timeout server 60s\n\
             frontend api\n  bind 127.0.0.1:{port} accept-proxy\n  \
             http-request return status 200 content-type text/plain lf-string \"%[src]\"\n"
        ),
    );
    let mut command = Command::new(program("haproxy"));
    let haproxy = Process::start("haproxy", command.arg("-db").arg("-f").arg(configuration));
    let address = wait_until_listening(port);
    check_receiver(&address.to_string(), "v1");
    check_receiver(&address.to_string(), "v2");
    drop(haproxy);
}

#[test]
fn nginx_as_the_receiver_sees_each_client() {
    let folder = Folder::new();
    let port = free_port();
    let socket = folder.join("nginx.sock");
    let configuration = folder.write("nginx.conf", nginx(folder.path(), port, &socket));
    let mut command = Command::new(program("nginx"));
    let nginx = Process::start("nginx", command.arg("-p").arg(folder.path()).arg("-c").arg(configuration));
    let address = wait_until_listening(port);
    check_receiver(&address.to_string(), "v1");
    check_receiver(&address.to_string(), "v2");
    check_receiver(&address.to_string(), "v2, proxy_tlvs: []");
    check_receiver(&format!("unix:{}", socket.display()), "v2");
    drop(nginx);
}

fn nginx(folder: &Path, port: u16, socket: &Path) -> String {
    format!(
        "daemon off; master_process off; pid {folder}/nginx.pid; error_log stderr;\n\
         events {{}}\n\
         http {{\n  access_log off; client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;\n  \
           fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;\n  \
           server {{\n    listen 127.0.0.1:{port} proxy_protocol;\n    listen unix:{socket} proxy_protocol;\n    \
             default_type text/plain;\n    return 200 $proxy_protocol_addr;\n  }}\n}}\n",
        folder = folder.display(),
        socket = socket.display(),
    )
}

#[test]
fn a_proxy_in_front_of_the_edge_must_send_a_header_and_nobody_else_may() {
    let folder = Folder::new();
    let upstream = Upstream::start();
    let yaml = format!(
        r#"
edge:
  listeners: [{{name: http, binds: [{{address: "127.0.0.1:0"}}], proxy_protocol: {{from: [127.0.0.2/32]}}}}]
  upstreams: {{api: {{servers: ["{}"]}}}}
  sites: [{{hosts: ["_"], routes: [{{prefix: /, upstream: api}}]}}]
"#,
        upstream.address
    );
    let mut gatehouse = Gatehouse::start(&folder, &yaml);
    let address = gatehouse.tcp("http");
    let proxy = Ipv4Addr::new(127, 0, 0, 2);
    let header = "PROXY TCP4 203.0.113.7 127.0.0.1 1234 80\r\n";

    let mut from_proxy = Client::tcp_from(proxy, address);
    from_proxy.send(header);
    from_proxy.get(HOST, "/from-proxy").expect(200);
    let seen = upstream.wait_for(|request| request.target() == "/from-proxy");
    assert_eq!(seen.header("x-forwarded-for").unwrap(), "203.0.113.7");

    let mut without = Client::tcp_from(proxy, address);
    let _ = without.try_send("GET /without HTTP/1.1\r\nHost: x\r\n\r\n");
    assert!(without.try_receive().is_none(), "a proxy that sends no header is let in");

    let mut stranger = Client::tcp_from(Ipv4Addr::new(127, 0, 0, 3), address);
    let _ = stranger.try_send(format!("{header}GET /stranger HTTP/1.1\r\nHost: x\r\n\r\n"));
    assert!(stranger.try_receive().is_none_or(|answer| answer.status == 400));
    assert!(upstream.requests().iter().all(|request| request.target() == "/from-proxy"));
}
