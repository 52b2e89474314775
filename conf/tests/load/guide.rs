//! Every block of YAML in the reverse-proxy guide that this project starts from, re-indented and otherwise as it stands.

use conf::{Bind, Loaded, Resource};

use crate::folder::Folder;

fn load(block: &str) -> Loaded {
    Folder::new().load(block)
}

#[test]
fn example_configuration() {
    let loaded = load(
        r#"
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
      binds:
        # Bind on a local port
        - host: localhost
          port: 8080
        # OR bind on a Unix domain socket
        #- socket: /var/run/mas.sock
        # OR bind on a systemd socket
        #- fd: 0
        #  kind: tcp # or unix
      # Optional: use the PROXY protocol
      #proxy_protocol: true
"#,
    );
    let http = &loaded.config.auth.as_ref().unwrap().http;
    assert_eq!(http.public_base.as_str(), "https://auth.example.com/");
    let listener = &http.listeners[0];
    assert_eq!((listener.name.as_str(), listener.proxy_protocol), ("web", false));
    assert_eq!(listener.binds, [Bind::Host { host: Some("localhost".to_owned()), port: 8080 }]);
    let names: Vec<&str> = listener.resources.iter().map(Resource::name).collect();
    assert_eq!(names, ["discovery", "human", "oauth", "compat", "graphql", "assets"]);
}

#[test]
fn example_configuration_with_its_alternatives() {
    let loaded = load(
        r#"
http:
  public_base: https://auth.example.com/
  listeners:
    - name: web
      resources: [{name: compat}]
      binds:
        - socket: /var/run/mas.sock
        - fd: 0
          kind: tcp # or unix
      proxy_protocol: true
"#,
    );
    let listener = &loaded.config.auth.as_ref().unwrap().http.listeners[0];
    assert!(listener.proxy_protocol);
    assert_eq!(
        listener.binds,
        [
            Bind::Socket { path: "/var/run/mas.sock".into(), mode: None },
            Bind::Fd { index: 0, kind: conf::SocketKind::Tcp }
        ]
    );
}

#[test]
fn trusted_proxies() {
    let loaded = load(
        "
http:
  trusted_proxies:
    - 192.168.0.0/16
    - 172.16.0.0/12
    - 10.0.0.0/10
    - 127.0.0.1/8
    - fd00::/8
    - ::1/128
",
    );
    let trusted: Vec<String> =
        loaded.config.auth.as_ref().unwrap().http.trusted_proxies.iter().map(ToString::to_string).collect();
    let expected = ["192.168.0.0/16", "172.16.0.0/12", "10.0.0.0/10", "127.0.0.0/8", "fd00::/8", "::1/128"];
    assert_eq!(trusted, expected);
}

#[test]
fn proxy_protocol() {
    let loaded = load(
        r#"
http:
  listeners:
    - name: web
      resources:
        - name: discovery
        - name: human
        - name: oauth
        - name: compat
        - name: graphql
        - name: assets
      binds:
        - address: "[::]:8080"
      proxy_protocol: true
"#,
    );
    let listener = &loaded.config.auth.as_ref().unwrap().http.listeners[0];
    assert!(listener.proxy_protocol);
    assert_eq!(listener.binds, [Bind::Address("[::]:8080".parse().unwrap())]);
}

#[test]
fn assets_served_elsewhere() {
    let loaded = load(
        r#"
http:
  listeners:
    - name: web
      resources:
        - name: discovery
        - name: human
        - name: oauth
        - name: compat
        - name: graphql
        # MAS doesn't need to serve the assets anymore
        #- name: assets
      binds:
        - address: "[::]:8080"
      proxy_protocol: true
"#,
    );
    let listener = &loaded.config.auth.as_ref().unwrap().http.listeners[0];
    assert!(!listener.resources.iter().any(|resource| matches!(resource, Resource::Assets { .. })));
}
