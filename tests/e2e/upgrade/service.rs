//! The auth service replaced while it serves: alone, and behind the edge of the same process.

use super::super::harness::{
    ANY_PORT, Client, FakeSynapse, Folder, Reply, Upgradable, Upstream, auth_listener_yaml, auth_yaml,
};
use super::{Door, Load, exists};

#[test]
fn the_auth_service_is_replaced_too() {
    let folder = Folder::new();
    let synapse = FakeSynapse::start();
    let binds = format!("{ANY_PORT}, {{socket: {}/web.sock}}", folder.path().display());
    let yaml = auth_listener_yaml(folder.path(), &synapse.url(), &["health"], &binds);
    let mut running = Upgradable::start_auth(&folder, &yaml);
    let address = running.gatehouse.tcp("web");
    Client::tcp(address).get("x", "/health").expect(200);
    let load = Load::start_at("/health", &[Door::Tcp(address), Door::Unix(folder.join("web.sock"))]);
    load.wait_for(20);
    for _ in 0..3 {
        let old = running.serving;
        running.replace();
        running.upgrade();
        running.wait_until_gone(old);
        load.wait_for(20);
    }
    running.replace_by_script("exit 3");
    let asked = running.ask("upgrade");
    assert_eq!(asked.code, Some(1), "{}", asked.text);
    load.wait_for(20);
    load.end();
    running.stop();
    assert!(!exists(&folder.join("web.sock")));
}

#[test]
fn both_halves_are_replaced_and_reloaded_together() {
    let folder = Folder::new();
    let synapse = FakeSynapse::start();
    let yaml = format!(
        "{auth}\
http:
  public_base: https://auth.example.com/
  listeners:
    - name: web
      resources: [{{name: health}}]
      binds: [{{socket: {folder}/auth.sock}}]
      proxy_protocol: true
edge:
  access_log: false
  listeners: [{{name: http, binds: [{{address: \"127.0.0.1:0\"}}]}}]
  upstreams: {{auth: {{servers: [\"unix:{folder}/auth.sock\"], proxy_protocol: v2}}}}
  sites: [{{hosts: [_], routes: [{{prefix: /, upstream: auth}}]}}]
",
        auth = auth_yaml(folder.path(), &synapse.url()),
        folder = folder.path().display()
    );
    let mut running = Upgradable::start(&folder, &yaml);
    let address = running.gatehouse.tcp("http");
    let load = Load::start_at("/health", &[Door::Tcp(address), Door::Tcp(address)]);
    load.wait_for(20);
    for _ in 0..3 {
        let old = running.serving;
        running.upgrade();
        load.wait_for(20);
        let asked = running.ask("reload");
        assert_eq!(asked.code, Some(0), "{}", asked.text);
        load.wait_for(20);
        running.wait_until_gone(old);
    }
    load.end();
    running.stop();
    assert!(!exists(&folder.join("auth.sock")) && !exists(&folder.join("control.sock")));
}

#[test]
fn while_a_tunnel_drains_the_auth_service_is_the_next_one_s() {
    let folder = Folder::new();
    let (synapse, upstream) = (FakeSynapse::start(), Upstream::answering(|_| Reply::Echo));
    let yaml = format!(
        "{auth}\
http:
  public_base: https://auth.example.com/
  listeners:
    - name: web
      resources: [{{name: health}}]
      binds: [{{address: \"127.0.0.1:0\"}}]
edge:
  listeners: [{{name: http, binds: [{{address: \"127.0.0.1:0\"}}]}}]
  upstreams: {{echo: {{servers: [\"{upstream}\"]}}}}
  sites: [{{hosts: [_], routes: [{{prefix: /, upstream: echo}}]}}]
",
        auth = auth_yaml(folder.path(), &synapse.url()),
        upstream = upstream.address
    );
    let mut running = Upgradable::start(&folder, &yaml);
    let mut tunnel = Client::tcp(running.gatehouse.tcp("http"));
    tunnel.request("GET /", &["Host: x", "Connection: Upgrade", "Upgrade: websocket"], b"").expect(101);
    let auth = running.gatehouse.tcp("web");
    Client::tcp(auth).get("x", "/.well-known/openid-configuration").expect(404);
    folder.write("gatehouse.yaml", yaml.replace("{name: health}", "{name: health}, {name: discovery}"));
    let old = running.serving;
    running.upgrade();
    super::until("the old one lets go of the auth listener", || {
        Client::tcp(auth).get("x", "/.well-known/openid-configuration").status == 200
    });
    for _ in 0..40 {
        Client::tcp(auth).get("x", "/.well-known/openid-configuration").expect(200);
    }
    tunnel.send("still here");
    assert_eq!(tunnel.receive_bytes(10), b"still here");
    drop(tunnel);
    running.wait_until_gone(old);
    running.stop();
}
