//! The guide's last section: assets served by the edge, pre-compressed and cached for a year, while the auth listener has no
//! `assets` resource.

use std::fs;

use super::harness::{Client, FakeSynapse, Folder, Gatehouse, auth_yaml};

const HOST: &str = "Host: auth.example.com";

struct Assets {
    edge: Gatehouse,
    auth: Gatehouse,
    folder: Folder,
    _fake: FakeSynapse,
}

fn start() -> Assets {
    let folder = Folder::new();
    folder.write("share/assets/app-1a2b.js", "console.log('plain')");
    folder.write("share/assets/app-1a2b.js.br", "as brotli");
    folder.write("share/assets/app-1a2b.js.gz", "as gzip");
    folder.write("share/assets/plain.css", "body{}");
    folder.write("share/assets/.hidden", "secret");
    folder.write("share/secret.txt", "secret");
    std::os::unix::fs::symlink("../secret.txt", folder.join("share/assets/link.txt")).unwrap();
    let fake = FakeSynapse::start();
    let http = "
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
        # the edge serves them
        #- name: assets
      binds:
        - address: \"127.0.0.1:0\"
      proxy_protocol: true
";
    let mut auth =
        Gatehouse::start_auth(&folder, &format!("{}{http}", auth_yaml(folder.path(), &fake.url())));
    let yaml = format!(
        r#"
edge:
  listeners: [{{name: http, binds: [{{address: "127.0.0.1:0"}}]}}]
  upstreams:
    auth: {{servers: ["{auth}"], proxy_protocol: v2}}
  sites:
    - hosts: [auth.example.com]
      routes:
        - prefix: /assets/
          static: {{root: "{root}", precompressed: [br, zstd, gzip], expires: 365d}}
        - {{prefix: /, upstream: auth}}
"#,
        auth = auth.tcp("web"),
        root = folder.join("share/assets").display(),
    );
    let edge = Gatehouse::start(&folder, &yaml);
    Assets { edge, auth, folder, _fake: fake }
}

impl Assets {
    fn client(&mut self) -> Client {
        self.edge.client("http")
    }
}

#[test]
fn assets_are_precompressed_and_cached_for_a_year() {
    let mut assets = start();
    let mut client = assets.client();
    for (accept, encoding, body) in [
        ("Accept-Encoding: gzip, br", Some("br"), "as brotli"),
        ("Accept-Encoding: gzip", Some("gzip"), "as gzip"),
        ("Accept-Encoding: br;q=0, gzip;q=0.1", Some("gzip"), "as gzip"),
        ("Accept-Encoding: identity", None, "console.log('plain')"),
    ] {
        let answer = client.request("GET /assets/app-1a2b.js", &[HOST, accept], b"").expect(200);
        assert_eq!(answer.header("content-encoding"), encoding, "{accept}");
        assert_eq!(answer.text(), body);
        assert_eq!(answer.header("cache-control"), Some("public, max-age=31536000, immutable"));
        assert!(answer.header("vary").is_some_and(|vary| vary.eq_ignore_ascii_case("accept-encoding")));
        assert!(answer.header("content-type").is_some_and(|kind| kind.starts_with("text/javascript")));
        let etag = format!("If-None-Match: {}", answer.header("etag").unwrap());
        client.request("GET /assets/app-1a2b.js", &[HOST, accept, &etag], b"").expect(304);
    }
    let part = client.request("GET /assets/plain.css", &[HOST, "Range: bytes=0-3"], b"").expect(206);
    assert_eq!((part.text().as_str(), part.header("content-range")), ("body", Some("bytes 0-3/6")));
    client.request("GET /assets/plain.css", &[HOST, "Range: bytes=6-"], b"").expect(416);
}

#[test]
fn nothing_but_the_assets_is_served() {
    let mut assets = start();
    for target in [
        "/assets/.hidden",
        "/assets/link.txt",
        "/assets/../secret.txt",
        "/assets/%2e%2e/secret.txt",
        "/assets/..%2fsecret.txt",
        "/assets/",
        "/assets/nothing.js",
    ] {
        let answer = assets.client().get("auth.example.com", target);
        assert!(matches!(answer.status, 400 | 403 | 404), "{target}: {}", answer.status);
        assert!(!answer.text().contains("secret\n") && answer.text() != "secret", "{target}");
    }
    assert_eq!(fs::read_to_string(assets.folder.join("share/secret.txt")).unwrap(), "secret");
}

#[test]
fn the_auth_service_serves_everything_else_and_no_assets() {
    let mut assets = start();
    let discovery = assets.client().get("auth.example.com", "/.well-known/openid-configuration").expect(200);
    assert_eq!(discovery.json()["issuer"], "https://auth.example.com/");
    let mut direct = Client::tcp(assets.auth.tcp("web"));
    direct.send("PROXY UNKNOWN\r\n");
    direct.get("auth.example.com", "/assets/plain.css").expect(404);
}
