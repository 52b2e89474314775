//! `redirect_https` behind a balancer that ends TLS: whoever speaks TLS to the balancer is served, all others are redirected to it.

use std::net::Ipv4Addr;
use std::process::Command;

use super::HOST;
use crate::harness::{
    Answer, Certificates, Client, Folder, Gatehouse, Process, Upstream, free_port, program,
    wait_until_listening,
};

/// Where the balancer's connections come from.
const BALANCER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 9);

/// HAProxy with a TLS port and a plain one, both leading to one plain listener of the edge, `options` on the way.
fn haproxy(folder: &Folder, certificates: &Certificates, edge: &str, options: &str) -> (Process, [u16; 2]) {
    let read = |path| std::fs::read_to_string(path).unwrap();
    let both = folder.write_private("both.pem", read(&certificates.certificate) + &read(&certificates.key));
    let ports = [free_port(), free_port()];
    let configuration = format!(
        "defaults\n  mode tcp\n  timeout connect 5s\n  timeout client 60s\n  timeout server 60s\n\
         frontend tls\n  bind 127.0.0.1:{} ssl crt {}\n  default_backend edge\n\
         frontend plain\n  bind 127.0.0.1:{}\n  default_backend edge\n\
         backend edge\n  server edge {edge} source {BALANCER} {options}\n",
        ports[0],
        both.display(),
        ports[1],
    );
    let configuration = folder.write("balancer.cfg", configuration);
    let mut command = Command::new(program("haproxy"));
    (Process::start("haproxy", command.arg("-db").arg("-f").arg(configuration)), ports)
}

fn check_redirect(answer: &Answer, target: &str) {
    let location = answer.header("location");
    assert_eq!((answer.status, location), (308, Some(format!("https://{HOST}{target}").as_str())));
}

#[test]
fn clients_that_speak_tls_to_the_balancer_are_not_sent_round_in_circles() {
    let folder = Folder::new();
    let certificates = Certificates::new(&folder, &[HOST]);
    let upstream = Upstream::with_proxy_protocol();
    let yaml = format!(
        r#"
edge:
  listeners:
    - name: http
      binds: [{{address: "127.0.0.1:0"}}]
      redirect_https: true
      proxy_protocol: {{from: [{BALANCER}/32]}}
  upstreams: {{api: {{servers: ["{}"], proxy_protocol: v2}}}}
  sites: [{{hosts: [{HOST}], routes: [{{prefix: /, upstream: api}}]}}]
"#,
        upstream.address
    );
    let mut edge = Gatehouse::start(&folder, &yaml);
    let address = edge.tcp("http");

    let (_balancer, ports) =
        haproxy(&folder, &certificates, &address.to_string(), "send-proxy-v2 proxy-v2-options ssl");
    let [tls, plain] = ports.map(wait_until_listening);
    let mut client = Client::tls(&certificates, HOST, tls);
    for target in ["/secure", "/again"] {
        client.get(HOST, target).expect(200);
        let seen = upstream.wait_for(|request| request.target() == target);
        assert_eq!(seen.header("x-forwarded-proto").as_deref(), Some("https"));
    }
    check_redirect(&Client::tcp(plain).get(HOST, "/plain?x"), "/plain?x");

    // A header that does not speak of TLS says nothing about it; nor does anything the client says.
    let (_balancer, ports) = haproxy(&folder, &certificates, &address.to_string(), "send-proxy-v2");
    let [tls, _plain] = ports.map(wait_until_listening);
    check_redirect(&Client::tls(&certificates, HOST, tls).get(HOST, "/unsaid"), "/unsaid");
    let mut stranger = Client::tcp(address);
    let host = format!("Host: {HOST}");
    let lines = [host.as_str(), "X-Forwarded-Proto: https", "Forwarded: proto=https"];
    check_redirect(&stranger.request("GET /claimed", &lines, b""), "/claimed");
    assert_eq!(upstream.requests().len(), 2);
}
