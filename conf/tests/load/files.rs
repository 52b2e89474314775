//! Several files, and texts that the crate itself gives out.

use std::path::Path;

use conf::{default_paths, load_at, starter, synapse_snippet};

use crate::folder::{Folder, now};

#[test]
fn several_files_merge() {
    let folder = Folder::new();
    let base = folder.write(
        "base.yaml",
        "
edge:
  listeners: [{name: http, binds: [{port: 80}]}]
  upstreams: {a: {servers: [\"a:80\"]}}
  sites: [{hosts: [a.example.com], routes: [{prefix: /, upstream: a}]}]
  limits: {max_body_size: 1M, max_connections: 7}
",
    );
    let more = folder.write(
        "more.yaml",
        "
edge:
  upstreams: {b: {servers: [\"b:80\"]}}
  sites: [{hosts: [b.example.com], routes: [{prefix: /, upstream: b}]}]
  limits: {max_body_size: 2M}
",
    );
    let loaded = load_at(&[base, more], now()).unwrap();
    let edge = loaded.config.edge.unwrap();
    let names: Vec<&str> = edge.sites.iter().map(|site| site.name.as_str()).collect();
    assert_eq!(names, ["a.example.com", "b.example.com"]);
    assert_eq!((edge.limits.max_body_size.0, edge.limits.max_connections), (2 << 20, 7));
}

#[test]
fn paths_begin_at_the_file_they_are_written_in() {
    let folder = Folder::new();
    std::fs::create_dir(folder.path().join("sub")).unwrap();
    folder.certificate("sub/c.pem", "sub/k.pem", &["a.example.com"], (2026, 2028));
    let file = folder
        .write("sub/tls.yaml", "edge: {tls: {certificates: [{certificate_file: c.pem, key_file: k.pem}]}}\n");
    let main = folder.write("gatehouse.yaml", "data_dir: state\nedge: {matrix: {server_name: example.com, host: a.example.com, auth_host: a.example.com}}\n");
    let loaded = load_at(&[main, file], now()).unwrap();
    assert_eq!(loaded.config.data_dir, folder.path().join("state"));
    let certificate = &loaded.config.edge.unwrap().tls.unwrap().certificates[0];
    assert_eq!(certificate.certificate_file, Some(folder.path().join("sub/c.pem")));
}

#[test]
fn anchors_and_aliases() {
    let loaded = Folder::new().load(
        "
edge:
  listeners: [{name: http, binds: [{port: 80}]}]
  upstreams: {a: {servers: &servers [\"a:80\"]}, b: {servers: *servers, proxy_protocol: v2}}
  sites:
    - hosts: [a.example.com]
      routes: &routes
        - {prefix: /a, upstream: a}
        - {prefix: /b, upstream: b}
    - hosts: [b.example.com]
      routes: *routes
",
    );
    let edge = loaded.config.edge.unwrap();
    assert_eq!(edge.sites[1].routes.len(), 2);
    assert_eq!(edge.upstreams[1].servers, edge.upstreams[0].servers);
}

#[test]
fn the_starter_works_once_there_are_certificates() {
    let folder = Folder::new();
    folder.write_secret("matrix-secret", &"ab".repeat(32));
    folder.write_secret("encryption-secret", &"cd".repeat(32));
    let text = starter("example.com").unwrap();
    let text = text
        .replace("/etc/letsencrypt/live/example.com/fullchain.pem", "cert.pem")
        .replace("/etc/letsencrypt/live/example.com/privkey.pem", "key.pem");
    let loaded = folder.load(&text);
    assert_eq!(loaded.warnings.to_string(), "");
    let auth = loaded.config.auth.unwrap();
    assert_eq!(auth.encryption, Some([0xcd; 32]));
    assert_eq!(auth.matrix.homeserver, "example.com");
    // What is commented out there are keys that exist.
    folder.load(
        &text
            .replace("    # host:", "    host:")
            .replace("    # auth_host:", "    auth_host:")
            .replace("    # admin_allow:", "    admin_allow:"),
    );
    assert_eq!(
        starter("@alice:example.com").unwrap_err(),
        "`@alice:example.com` is a user, the server name is the part after the colon"
    );
}

#[test]
fn the_snippet_names_the_secret() {
    let snippet = synapse_snippet(Path::new("/etc/gatehouse/matrix-secret"));
    assert_eq!(
        snippet,
        "matrix_authentication_service:
  enabled: true
  endpoint: http://127.0.0.1:8080/
  secret_path: /etc/gatehouse/matrix-secret
"
    );
}

#[test]
fn without_arguments_the_file_is_in_the_current_folder() {
    if std::env::var_os("GATEHOUSE_CONFIG").is_none() {
        assert_eq!(default_paths(), [Path::new("gatehouse.yaml")]);
    }
}

#[test]
fn files_that_cannot_be_read_are_named() {
    let folder = Folder::new();
    let report = load_at(&[folder.path().join("none.yaml")], now()).unwrap_err();
    assert!(
        report.to_string().ends_with("none.yaml: cannot be read: No such file or directory (os error 2)\n"),
        "{report}"
    );
    let report = folder.try_load(&"#".repeat((1 << 20) + 1)).unwrap_err();
    assert!(
        report.to_string().ends_with("gatehouse.yaml: cannot be read: larger than 1024 KiB\n"),
        "{report}"
    );
    let report = load_at(&[], now()).unwrap_err();
    assert_eq!(report.to_string(), "no configuration file is given\n");
}
