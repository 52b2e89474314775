//! HAProxy and nginx in front of the edge, and of the auth service: what they say of a client reaches the upstream.

use std::net::{Ipv4Addr, SocketAddr};
use std::process::Command;

use serde_json::{Value, json};

use super::HOST;
use crate::harness::{
    Certificates, Client, Curl, FakeSynapse, Folder, Gatehouse, Process, Recorded, Upstream, auth_yaml,
    free_port, program, wait_until_listening,
};

/// Where the balancer's connections come from.
const BALANCER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 9);
const CLIENT: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 5);
/// What HAProxy calls a connection: both its ends.
const UNIQUE_ID: &str = "unique-id-format %ci:%cp-%fi:%fp";

/// A balancer with one port where it speaks TLS itself and one where it passes TLS through, before an edge that demands a
/// PROXY header on either way.
struct Deployment {
    certificates: Certificates,
    upstream: Upstream,
    edge: Gatehouse,
    terminating: SocketAddr,
    passing: SocketAddr,
    _balancer: Process,
    _folder: Folder,
}

fn edge(folder: &Folder, certificates: &Certificates, upstream: &str) -> Gatehouse {
    let yaml = format!(
        r#"
edge:
  listeners:
    - {{name: http, binds: [{{address: "127.0.0.1:0"}}], proxy_protocol: {{from: [{BALANCER}/32]}}}}
    - {{name: https, binds: [{{address: "127.0.0.1:0"}}], tls: true, proxy_protocol: {{from: [{BALANCER}/32]}}}}
  {tls}
  upstreams:
    api: {{servers: ["{upstream}"], proxy_protocol: v2, proxy_tlvs: [unique_id, authority, ssl, crc32c]}}
  sites: [{{hosts: ["_"], routes: [{{prefix: /, upstream: api}}]}}]
  access_log: {{path: "-"}}
"#,
        tls = certificates.yaml(),
    );
    Gatehouse::start(folder, &yaml)
}

/// HAProxy with `options` for its servers.
fn haproxy(
    folder: &Folder,
    certificates: &Certificates,
    options: &str,
    edge: [SocketAddr; 2],
) -> (Process, [u16; 2]) {
    let read = |path| std::fs::read_to_string(path).unwrap();
    let both = folder.write_private("both.pem", read(&certificates.certificate) + &read(&certificates.key));
    let ports = [free_port(), free_port()];
    let configuration = format!(
        "defaults\n  mode tcp\n  timeout connect 5s\n  timeout client 60s\n  timeout server 60s\n\
         frontend terminating\n  bind 127.0.0.1:{} ssl crt {} ca-file {} verify optional\n  {UNIQUE_ID}\n  \
           default_backend plain\n\
         backend plain\n  option httpchk\n  http-check send meth GET uri /health ver HTTP/1.1 hdr Host {HOST}\n  server edge {} source {BALANCER} {options}\n\
         frontend passing\n  bind 127.0.0.1:{}\n  {UNIQUE_ID}\n  default_backend tls\n\
         backend tls\n  server edge {} source {BALANCER} {options}\n",
        ports[0],
        both.display(),
        certificates.ca.display(),
        edge[0],
        ports[1],
        edge[1],
    );
    let configuration = folder.write("balancer.cfg", configuration);
    let mut command = Command::new(program("haproxy"));
    (Process::start("haproxy", command.arg("-db").arg("-f").arg(configuration)), ports)
}

fn behind_haproxy(options: &str) -> Deployment {
    deploy(|folder, certificates, edge| haproxy(folder, certificates, options, edge))
}

fn deploy(
    balancer: impl FnOnce(&Folder, &Certificates, [SocketAddr; 2]) -> (Process, [u16; 2]),
) -> Deployment {
    let folder = Folder::new();
    let certificates = Certificates::new(&folder, &[HOST]);
    let upstream = Upstream::with_proxy_protocol();
    let mut edge = edge(&folder, &certificates, &upstream.address.to_string());
    let addresses = [edge.tcp("http"), edge.tcp("https")];
    let (balancer, ports) = balancer(&folder, &certificates, addresses);
    let [terminating, passing] = ports.map(wait_until_listening);
    Deployment { certificates, upstream, edge, terminating, passing, _balancer: balancer, _folder: folder }
}

impl Deployment {
    /// A request over TLS: the client's own address, and what reached the upstream.
    fn ask(&self, front: SocketAddr, target: &str) -> (SocketAddr, Recorded) {
        let mut client = Client::tls_from(CLIENT, &self.certificates, HOST, front);
        client.get(HOST, target).expect(200);
        let address = client.address();
        let seen = self.upstream.wait_for(|request| request.target() == target);
        self.check_client(address, &seen);
        (address, seen)
    }

    /// Whoever connected to the balancer is the client, and nobody else.
    fn check_client(&self, address: SocketAddr, seen: &Recorded) {
        let proxy = seen.proxy.as_ref().unwrap();
        assert_eq!((proxy.version, proxy.source), (2, Some(address)));
        assert_eq!(seen.header("x-forwarded-for").unwrap(), address.ip().to_string());
    }

    /// curl to one of the balancer's ports; what reached the upstream.
    fn curl(&self, front: SocketAddr, target: &str, arguments: &[&str]) -> Recorded {
        let curl = Curl { ca: self.certificates.ca.clone(), edge: front };
        let url = format!("https://{HOST}:{{edge}}{target}");
        let said = curl.run(&[HOST], &[arguments, &["-o", "/dev/null", "-w", "%{http_code}", &url]].concat());
        assert_eq!(said, "200");
        self.upstream.wait_for(|request| request.target() == target)
    }
}

fn text(inside: &[(u8, String)], kind: u8) -> &str {
    inside.iter().find(|(found, _)| *found == kind).map_or("", |(_, text)| text)
}

const AUTHORITY: u8 = 0x02;
const CRC32C: u8 = 0x03;
const VERSION: u8 = 0x21;
const COMMON_NAME: u8 = 0x22;
const CIPHER: u8 = 0x23;
const KEY: u8 = 0x25;
const UNIQUE: u8 = 0x05;

const ALL: &str = "send-proxy-v2 proxy-v2-options \
                   ssl,cert-cn,ssl-cipher,cert-sig,cert-key,unique-id,crc32c,authority";

#[test]
fn what_haproxy_knows_of_the_clients_tls_is_passed_on() {
    let mut deployment = behind_haproxy(ALL);
    let (client, seen) = deployment.ask(deployment.terminating, "/terminated");
    let proxy = seen.proxy.as_ref().unwrap();
    let unique_id = format!("{client}-{}", deployment.terminating);
    assert_eq!(proxy.text(UNIQUE), Some(unique_id.as_str()));
    assert_eq!(proxy.text(AUTHORITY), Some(HOST));
    assert!(proxy.tlv(CRC32C).is_some());
    let (bits, _, inside) = proxy.ssl().unwrap();
    assert_eq!((bits, text(&inside, VERSION)), (1, "TLSv1.3"));
    assert!(text(&inside, CIPHER).starts_with("TLS_"), "{inside:?}");
    assert!(text(&inside, KEY).starts_with("EC"), "{inside:?}");
    // The client did speak TLS, only not with us.
    assert_eq!(seen.header("x-forwarded-proto").unwrap(), "https");
    // One name for the connection in all logs.
    deployment.edge.process.wait_for("the request", |line| {
        let line: Value = serde_json::from_str(line).ok()?;
        (line["path"] == "/terminated" && line["connection"] == unique_id).then_some(())
    });
}

#[test]
fn the_clients_certificate_is_passed_on() {
    let deployment = behind_haproxy(ALL);
    let (certificate, key) = (&deployment.certificates.certificate, &deployment.certificates.key);
    let shown = ["--cert", certificate.to_str().unwrap(), "--key", key.to_str().unwrap()];
    let seen = deployment.curl(deployment.terminating, "/certificate", &shown);
    let (bits, verify, inside) = seen.proxy.as_ref().unwrap().ssl().unwrap();
    assert_eq!((bits & 3, verify), (3, 0), "presented on this connection, and verified");
    assert_eq!(text(&inside, COMMON_NAME), "Gatehouse test");
}

#[test]
fn our_own_tls_is_told_where_haproxy_passes_it_through() {
    let deployment = behind_haproxy("send-proxy-v2 proxy-v2-options ssl,unique-id,crc32c");
    let (client, seen) = deployment.ask(deployment.passing, "/passed");
    let proxy = seen.proxy.as_ref().unwrap();
    assert_eq!(proxy.text(UNIQUE), Some(format!("{client}-{}", deployment.passing).as_str()));
    assert_eq!(proxy.text(AUTHORITY), Some(HOST));
    let (bits, verify, inside) = proxy.ssl().unwrap();
    assert_eq!((bits, text(&inside, VERSION)), (1, "TLSv1.3"));
    assert_ne!(verify, 0, "there is no certificate that could have been verified");
    assert!(text(&inside, CIPHER).starts_with("TLS_"), "{inside:?}");

    let seen = deployment.curl(deployment.passing, "/older", &["--tls-max", "1.2"]);
    let (_, _, inside) = seen.proxy.as_ref().unwrap().ssl().unwrap();
    assert_eq!(text(&inside, VERSION), "TLSv1.2");
    assert!(text(&inside, CIPHER).starts_with("ECDHE-ECDSA-"), "{inside:?}");

    // Over HTTP/2 as well, of which the upstream hears nothing: with it we speak HTTP/1.1.
    let seen = deployment.curl(deployment.passing, "/h2", &["--http2"]);
    assert_eq!(seen.proxy.as_ref().unwrap().tlv(0x01), None);
}

#[test]
fn version_1_of_haproxy_works_before_tls_and_on_plain_listeners() {
    let deployment = behind_haproxy("send-proxy");
    let (_, seen) = deployment.ask(deployment.terminating, "/terminated");
    let proxy = seen.proxy.as_ref().unwrap();
    assert_eq!((proxy.ssl(), proxy.tlv(AUTHORITY)), (None, None), "nobody said that it was TLS");
    assert_eq!(seen.header("x-forwarded-proto").unwrap(), "http");
    let (_, seen) = deployment.ask(deployment.passing, "/passed");
    assert!(seen.proxy.as_ref().unwrap().ssl().is_some());
    assert_eq!(seen.header("x-forwarded-proto").unwrap(), "https");
}

#[test]
fn health_checks_of_haproxy_speak_for_haproxy_itself() {
    let deployment = behind_haproxy(&format!("check inter 200ms check-send-proxy {ALL}"));
    let seen = deployment.upstream.wait_for(|request| request.target() == "/health");
    assert_eq!(seen.proxy.as_ref().unwrap().source.unwrap().ip(), BALANCER);
    assert_eq!(seen.header("x-forwarded-for").unwrap(), BALANCER.to_string());
    // It is content with the answers: clients are let through.
    deployment.ask(deployment.terminating, "/client");
}

#[test]
fn nginx_in_front_works_before_tls_and_on_plain_listeners() {
    let deployment = deploy(|folder, certificates, edge| {
        let ports = [free_port(), free_port()];
        let configuration = format!(
            "load_module /usr/lib/nginx/modules/ngx_stream_module.so;\n\
             daemon off; master_process off; pid {folder}/nginx.pid; error_log stderr;\nevents {{}}\n\
             stream {{\n  proxy_protocol on; proxy_bind {BALANCER};\n  \
               server {{\n    listen 127.0.0.1:{} ssl; ssl_certificate {}; ssl_certificate_key {};\n    \
                 proxy_pass {};\n  }}\n  \
               server {{ listen 127.0.0.1:{}; proxy_pass {}; }}\n}}\n",
            ports[0],
            certificates.certificate.display(),
            certificates.key.display(),
            edge[0],
            ports[1],
            edge[1],
            folder = folder.path().display(),
        );
        let configuration = folder.write("nginx.conf", configuration);
        let mut command = Command::new(program("nginx"));
        command.arg("-p").arg(folder.path()).arg("-c").arg(configuration);
        (Process::start("nginx", &mut command), ports)
    });
    let (_, first) = deployment.ask(deployment.terminating, "/terminated");
    let (_, second) = deployment.ask(deployment.passing, "/passed");
    let ids = [&first, &second].map(|seen| seen.proxy.as_ref().unwrap().text(UNIQUE).unwrap().to_owned());
    // nginx gives no names, so we do.
    assert_ne!(ids[0], ids[1]);
    let (bits, _, inside) = second.proxy.as_ref().unwrap().ssl().unwrap();
    assert_eq!((bits, text(&inside, VERSION)), (1, "TLSv1.3"));
}

/// The auth service behind a PROXY header that is demanded from these peers.
fn auth(folder: &Folder, trusted: Ipv4Addr) -> (Gatehouse, FakeSynapse) {
    let fake = FakeSynapse::start();
    let http = format!(
        r#"
http:
  public_base: https://{HOST}/
  trusted_proxies: ["{trusted}/32"]
  listeners:
    - {{name: web, resources: [{{name: connection-info}}], binds: [{{address: "127.0.0.1:0"}}], proxy_protocol: true}}
"#
    );
    (Gatehouse::start_auth(folder, &format!("{}{http}", auth_yaml(folder.path(), &fake.url()))), fake)
}

fn check_connection_info(seen: &Value, client: SocketAddr, front: SocketAddr, ssl: &Value) {
    let header = &seen["proxy_protocol"];
    assert_eq!(seen["client"], client.ip().to_string(), "{seen}");
    assert_eq!((&header["version"], &header["source"]), (&json!(2), &json!(client.to_string())), "{seen}");
    let tlvs = &header["tlvs"];
    assert_eq!(tlvs["unique_id"], format!("{client}-{front}"), "{seen}");
    assert_eq!((&tlvs["authority"], &tlvs["crc32c"]), (&json!(HOST), &json!("verified")), "{seen}");
    for (name, expected) in ssl.as_object().unwrap() {
        assert_eq!(&tlvs["ssl"][name], expected, "{seen}");
    }
}

#[test]
fn the_auth_service_shows_what_reached_it_through_both() {
    let folder = Folder::new();
    let certificates = Certificates::new(&folder, &[HOST]);
    let (mut auth, _synapse) = auth(&folder, Ipv4Addr::LOCALHOST);
    let mut edge = edge(&folder, &certificates, &auth.tcp("web").to_string());
    let addresses = [edge.tcp("http"), edge.tcp("https")];
    let (_balancer, ports) = haproxy(&folder, &certificates, ALL, addresses);
    for (port, state) in
        ports.into_iter().zip([json!({"key_algorithm": "EC256"}), json!({"key_algorithm": null})])
    {
        let front = wait_until_listening(port);
        let mut client = Client::tls_from(CLIENT, &certificates, HOST, front);
        let seen = client.get(HOST, "/connection-info").expect(200).json();
        let mut ssl = json!({"tls": true, "version": "TLSv1.3", "client_certificate": "none"});
        ssl.as_object_mut().unwrap().extend(state.as_object().unwrap().clone());
        check_connection_info(&seen, client.address(), front, &ssl);
    }
}

#[test]
fn the_auth_service_understands_haproxy_itself() {
    let folder = Folder::new();
    let certificates = Certificates::new(&folder, &[HOST]);
    let (mut auth, _synapse) = auth(&folder, BALANCER);
    let address = auth.tcp("web");
    let (_balancer, ports) = haproxy(&folder, &certificates, ALL, [address, address]);
    let front = wait_until_listening(ports[0]);
    let mut client = Client::tls_from(CLIENT, &certificates, HOST, front);
    let seen = client.get(HOST, "/connection-info").expect(200).json();
    let ssl = json!({"tls": true, "version": "TLSv1.3", "client_certificate": "none"});
    check_connection_info(&seen, client.address(), front, &ssl);
}
