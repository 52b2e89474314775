//! Certificates, keys and secrets in files.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use crate::folder::Folder;

fn edge(listener: &str) -> String {
    format!(
        "edge:
  listeners: [{{name: https, binds: [{{address: \"[::]:443\"}}], tls: true}}]
  tls: {{certificates: [{listener}]}}
  sites: [{{hosts: [www.example.com], routes: [{{prefix: /, deny: true}}]}}]
"
    )
}

#[test]
fn dates_are_judged_by_the_time_given() {
    let folder = Folder::new();
    let check = |years, expected: &str| {
        folder.certificate("cert.pem", "key.pem", &["www.example.com"], years);
        let loaded = folder.load(&edge("{certificate_file: cert.pem, key_file: key.pem}"));
        let messages: Vec<String> =
            loaded.warnings.diagnostics.into_iter().map(|finding| finding.message).collect();
        assert_eq!(messages.join("; "), expected);
    };
    check((2026, 2028), "");
    check((2025, 2026), "this certificate expired on 2026-01-01, clients will refuse it: renew it");
    check((2028, 2029), "this certificate is valid from 2028-01-01 on, clients will refuse it until then");
}

#[test]
fn hosts_without_certificate_are_named() {
    let folder = Folder::new();
    folder.certificate("cert.pem", "key.pem", &["*.www.example.com", "example.com"], (2026, 2028));
    let loaded = folder.load(&edge("{certificate_file: cert.pem, key_file: key.pem}"));
    assert_eq!(
        loaded.warnings.diagnostics[0].message,
        "no certificate is valid for `www.example.com`, browsers and clients will refuse the connection"
    );
}

#[test]
fn certificates_may_be_written_inline() {
    let folder = Folder::new();
    let block = |name| {
        let text = fs::read_to_string(folder.path().join(name)).unwrap();
        text.lines().map(|line| format!("          {line}\n")).collect::<String>()
    };
    let text = format!(
        "http:
  public_base: https://auth.example.com/
  listeners:
    - resources: [{{name: compat}}]
      binds: [{{port: 443}}]
      tls:
        certificate: |
{}        key: |
{}",
        block("cert.pem"),
        block("key.pem")
    );
    let loaded = folder.load(&text);
    let listener = &loaded.config.auth.as_ref().unwrap().http.listeners[0];
    assert_eq!(listener.tls.as_ref().unwrap().names, ["localhost", "example.com", "*.example.com"]);
    assert!(!format!("{:?}", loaded.config).contains("PRIVATE"));
}

#[test]
fn world_readable_secrets_are_a_warning() {
    let folder = Folder::new();
    let secret = folder.write("secret", "hunter2\n");
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o644)).unwrap();
    let loaded = folder.load("matrix: {homeserver: example.com, secret_file: secret}\nhttp: {public_base: https://a.example.com}\n");
    let auth = loaded.config.auth.as_ref().unwrap();
    assert_eq!(auth.matrix.secret.as_ref().unwrap().expose(), "hunter2");
    assert_eq!(loaded.warnings.diagnostics.len(), 1);
    let finding = &loaded.warnings.diagnostics[0];
    assert_eq!(finding.key_path, "matrix.secret_file");
    assert!(finding.message.contains("everybody on this machine can read"), "{}", finding.message);
}

#[test]
fn a_key_has_to_belong_to_its_certificate() {
    let folder = Folder::new();
    folder.certificate("other.pem", "other-key.pem", &["www.example.com"], (2026, 2028));
    let report = folder.try_load(&edge("{certificate_file: cert.pem, key_file: other-key.pem}")).unwrap_err();
    assert_eq!(report.diagnostics[0].message, "this key does not belong to the certificate");
    assert_eq!(report.diagnostics[0].related[0].message, "the certificate");
}
