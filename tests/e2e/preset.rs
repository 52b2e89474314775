//! What the preset serves and what it keeps closed, with upstreams that remember what reached them.

use std::net::Ipv4Addr;
use std::path::Path;

use serde_json::json;

use super::harness::{Answer, Certificates, Client, Folder, Gatehouse, Recorded, Reply, Upstream};

const MATRIX: &str = "matrix.example.com";
const AUTH: &str = "auth.example.com";
const DOMAIN: &str = "example.com";
/// A site of the user's own that leads to Synapse.
const OWN: &str = "own.example.com";
/// The only one in `admin_allow`.
const OPERATOR: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
const STRANGER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 3);

struct Deployment {
    gatehouse: Gatehouse,
    synapse: Upstream,
    auth: Upstream,
    certificates: Certificates,
    _folder: Folder,
}

/// Listeners on ports of the system's choice; `preset` are more keys of `edge.matrix`.
fn deploy(preset: &str) -> Deployment {
    deploy_before(answering("auth"), preset, None)
}

fn answering(who: &'static str) -> Upstream {
    Upstream::answering(move |_| Reply::Json(200, json!({"by": who}).to_string()))
}

/// The same before an auth service, which may listen somewhere else than it should.
fn deploy_before(auth: Upstream, preset: &str, auth_address: Option<&str>) -> Deployment {
    let folder = Folder::new();
    let certificates = Certificates::new(&folder, &[MATRIX, AUTH, DOMAIN, OWN]);
    let synapse = answering("synapse");
    let auth_address = auth_address.map_or_else(|| auth.address.to_string(), str::to_owned);
    let yaml = format!(
        r#"
data_dir: {data:?}
edge:
  matrix:
    server_name: {DOMAIN}
    synapse: synapse
    auth: auth
    admin_allow: [{OPERATOR}]
{preset}
  listeners:
    - {{name: https, binds: [{{address: "127.0.0.1:0"}}], tls: true}}
    - {{name: federation, binds: [{{address: "127.0.0.1:0"}}], tls: true}}
  {tls}
  upstreams:
    synapse: {{servers: ["{synapse}"]}}
    auth: {{servers: ["{auth_address}"]}}
  sites:
    - hosts: [{OWN}]
      routes: [{{prefix: /, upstream: synapse}}]
"#,
        data = folder.path(),
        tls = certificates.yaml(),
        synapse = synapse.address,
    );
    let gatehouse = Gatehouse::start(&folder, &yaml);
    Deployment { gatehouse, synapse, auth, certificates, _folder: folder }
}

impl Deployment {
    fn client(&mut self, listener: &str, host: &str) -> Client {
        self.client_from(STRANGER, listener, host)
    }

    fn client_from(&mut self, source: Ipv4Addr, listener: &str, host: &str) -> Client {
        let address = self.gatehouse.tcp(listener);
        Client::tls_from(source, &self.certificates, host, address)
    }

    fn ask(&mut self, host: &str, line: &str) -> Answer {
        self.client("https", host).request(line, &[&format!("Host: {host}")], b"")
    }
}

/// What every answer needs so that the script of another site may read it.
#[track_caller]
fn is_readable_everywhere(answer: &Answer, what: &str) {
    let values: Vec<&str> = answer
        .headers
        .iter()
        .filter(|(name, _)| name.eq_ignore_ascii_case("access-control-allow-origin"))
        .map(|(_, value)| value.as_str())
        .collect();
    assert_eq!(values, ["*"], "{what}: {:?}", answer.headers);
}

const SUPPORT: &str = "    well_known:
      client: {m.identity_server: {base_url: https://id.example.com}, org.example.list: [1, yes, true]}
      support: {contacts: [{role: m.role.admin, matrix_id: \"@admin:example.com\"}]}
";

#[test]
fn well_known_documents_on_the_host_and_on_the_bare_domain() {
    let mut deployment = deploy(SUPPORT);
    let documents = [
        (
            "client",
            json!({
                "m.homeserver": {"base_url": "https://matrix.example.com"},
                "m.identity_server": {"base_url": "https://id.example.com"},
                "org.example.list": [1, "yes", true],
                "org.matrix.msc2965.authentication":
                    {"issuer": "https://auth.example.com/", "account": "https://auth.example.com/account/"},
            }),
        ),
        ("server", json!({"m.server": "matrix.example.com:443"})),
        ("support", json!({"contacts": [{"role": "m.role.admin", "matrix_id": "@admin:example.com"}]})),
    ];
    for host in [MATRIX, DOMAIN] {
        for (name, expected) in &documents {
            let target = format!("/.well-known/matrix/{name}");
            let answer = deployment.ask(host, &format!("GET {target}")).expect(200);
            is_readable_everywhere(&answer, &target);
            assert_eq!(answer.header("content-type"), Some("application/json"));
            assert_eq!(answer.header("cache-control"), Some("public, max-age=600"));
            assert_eq!(&answer.json(), expected, "{host} {name}");

            let mut client = deployment.client("https", host);
            client.send(format!("HEAD {target} HTTP/1.1\r\nHost: {host}\r\n\r\n"));
            let head = client.receive_head().to_ascii_lowercase();
            assert!(head.starts_with("http/1.1 200 "), "{head}");
            assert!(head.contains(&format!("content-length: {}\r\n", answer.body.len())), "{head}");
            assert!(head.contains("access-control-allow-origin: *\r\n"), "{head}");
            // Nothing of a body follows: the next answer begins at once.
            client.get(host, &target).expect(200);

            let preflight = deployment.client("https", host).request(
                &format!("OPTIONS {target}"),
                &[
                    &format!("Host: {host}"),
                    "Origin: https://app.example.org",
                    "Access-Control-Request-Method: GET",
                    "Access-Control-Request-Headers: authorization",
                ],
                b"",
            );
            let preflight = preflight.expect(204);
            is_readable_everywhere(&preflight, &target);
            assert!(preflight.header("access-control-allow-methods").unwrap().contains("GET"));
            assert!(preflight.header("access-control-allow-headers").unwrap().contains("Authorization"));

            for method in ["POST", "PUT", "DELETE", "PATCH", "PROPFIND"] {
                let host_field = format!("Host: {host}");
                let mut client = deployment.client("https", host);
                let refused =
                    client.request(&format!("{method} {target}"), &[&host_field], b"{}").expect(405);
                is_readable_everywhere(&refused, method);
                assert_eq!(refused.header("allow"), Some("GET, HEAD, OPTIONS"));
                assert_eq!(refused.json()["errcode"], "M_UNRECOGNIZED");
            }
        }
        for target in
            ["/.well-known/matrix/other", "/.well-known/matrix/client/", "/.well-known/matrix/Client"]
        {
            let missing = deployment.ask(host, &format!("GET {target}")).expect(404);
            is_readable_everywhere(&missing, target);
            assert_eq!(missing.json()["errcode"], "M_UNRECOGNIZED");
        }
    }
    assert!(deployment.synapse.requests().is_empty());
    assert!(deployment.auth.requests().is_empty());
}

#[test]
fn without_support_there_is_no_such_document() {
    let mut deployment = deploy("");
    for host in [MATRIX, DOMAIN] {
        let missing = deployment.ask(host, "GET /.well-known/matrix/support").expect(404);
        is_readable_everywhere(&missing, host);
    }
}

#[test]
fn the_federation_port_serves_federation_and_keys_and_the_host_serves_them_too() {
    let mut deployment = deploy("");
    for host in [MATRIX, DOMAIN] {
        for target in [
            "/_matrix/federation/v1/version",
            "/_matrix/federation/v1/media/download/x",
            "/_matrix/key/v2/server",
        ] {
            deployment.client("federation", host).get(&format!("{host}:8448"), target).expect(200);
            assert_eq!(deployment.synapse.requests().last().unwrap().target(), target);
        }
        let seen = deployment.synapse.requests().len();
        for target in [
            "/",
            "/_matrix/client/versions",
            "/_matrix/client/v3/login",
            "/_matrix/media/v3/upload",
            "/_matrix/federationx",
            "/_synapse/admin/v1/server_version",
            "/_synapse/mas/query_user",
            "/metrics",
            "/.well-known/matrix/server",
        ] {
            deployment.client_from(OPERATOR, "federation", host).get(host, target).expect(404);
        }
        assert_eq!(deployment.synapse.requests().len(), seen);
    }
    for target in ["/_matrix/federation/v1/version", "/_matrix/key/v2/server"] {
        deployment.ask(MATRIX, &format!("GET {target}")).expect(200);
        // Others are sent to the host by delegation; without it they come here.
        deployment.ask(DOMAIN, &format!("GET {target}")).expect(404);
    }
    let mut undelegated = deploy("    well_known: false\n");
    undelegated.ask(DOMAIN, "GET /_matrix/federation/v1/version").expect(200);
    undelegated.ask(DOMAIN, "GET /_matrix/key/v2/server").expect(200);
    undelegated.ask(DOMAIN, "GET /_matrix/client/versions").expect(404);
}

/// A target as the most lenient server would understand it.
fn understood(target: &str) -> String {
    let path = target.split('?').next().unwrap_or_default();
    let mut decoded = String::new();
    let mut rest = path;
    while let Some(at) = rest.find('%') {
        decoded.push_str(&rest[..at]);
        match u8::from_str_radix(rest.get(at + 1..at + 3).unwrap_or_default(), 16) {
            Ok(byte) => {
                decoded.push(char::from(byte));
                rest = &rest[at + 3..];
            }
            Err(_) => {
                decoded.push('%');
                rest = &rest[at + 1..];
            }
        }
    }
    decoded.push_str(rest);
    let mut segments: Vec<&str> = Vec::new();
    // Synapse takes several slashes at the start for one.
    for segment in decoded.split(['/', '\\']).skip_while(|segment| segment.is_empty()) {
        match segment {
            "." => {}
            ".." => {
                segments.pop();
            }
            segment => segments.push(segment),
        }
    }
    format!("/{}", segments.join("/"))
}

/// Ways to write `path`, which is `/_synapse/…`, so that somebody might take it for something else.
pub(crate) fn disguises(path: &str) -> Vec<String> {
    let rest = path.strip_prefix("/_synapse/").unwrap();
    let (first, others) = rest.split_at(1);
    let escaped = format!("%{:02x}{others}", first.as_bytes()[0]);
    vec![
        path.to_owned(),
        format!("/%5Fsynapse/{rest}"),
        format!("/%5fsynapse/{escaped}"),
        format!("/_synapse/{escaped}"),
        format!("/_synapse%2F{rest}"),
        format!("/_synapse%2f{rest}"),
        format!("/_synapse%5c{rest}"),
        format!("/_synapse\\{rest}"),
        format!("/_synapse/./{rest}"),
        format!("/_synapse/%2e/{rest}"),
        format!("/_synapse/client/../{rest}"),
        format!("/_synapse/client/%2E%2e/{rest}"),
        format!("/_matrix/../_synapse/{rest}"),
        format!("/_matrix/client/..%2f..%2f_synapse/{rest}"),
        format!("/_matrix/client/%2e%2e%2f%2e%2e/_synapse/{rest}"),
        format!("/_matrix\\..\\_synapse\\{rest}"),
        format!("/.well-known/matrix/../../_synapse/{rest}"),
        format!("/x/..//../_synapse/{rest}"),
        format!("{path}%3f"),
        format!("/%255Fsynapse/{rest}"),
        // Synapse takes leading slashes for one.
        format!("//_synapse/{rest}"),
        format!("///%5fsynapse/{rest}"),
    ]
}

#[test]
fn what_governs_synapse_is_nobodys() {
    let mut deployment = deploy("");
    for target in disguises("/_synapse/mas/query_user?localpart=alice") {
        for (listener, host) in [
            ("https", MATRIX),
            ("https", DOMAIN),
            ("https", OWN),
            ("https", AUTH),
            ("federation", MATRIX),
            ("federation", OWN),
        ] {
            let mut client = deployment.client_from(OPERATOR, listener, host);
            let answer = client.get(host, &target);
            let served = answer.status == 200;
            assert!(served || matches!(answer.status, 400 | 404), "{host} {target}: {}", answer.status);
            // What is passed on is something else, or is asked of the auth service.
            let passes = host == AUTH || target.contains("%255F");
            assert!(!served || passes, "{host} {target}");
        }
    }
    let reached: Vec<String> = deployment.synapse.requests().iter().map(Recorded::target).collect();
    assert!(reached.iter().all(|target| !understood(target).starts_with("/_synapse")), "{reached:?}");
    let mut client = deployment.client_from(OPERATOR, "https", MATRIX);
    let target = format!("GET https://{MATRIX}/_synapse/mas/query_user");
    client.request(&target, &[&format!("Host: {MATRIX}")], b"").expect(404);
    // Synapse knows these by case, so another case is no disguise; a stranger to the preset's host all the same.
    deployment.ask(MATRIX, "GET /_SYNAPSE/mas/query_user").expect(404);
    deployment.ask(MATRIX, "GET /_synapse//mas/query_user").expect(404);
}

#[test]
fn what_operators_need_is_for_admin_allow_alone() {
    let mut deployment = deploy("");
    for path in ["/_synapse/admin/v1/server_version", "/_synapse/metrics"] {
        for host in [MATRIX, OWN] {
            deployment.client_from(OPERATOR, "https", host).get(host, path).expect(200);
            assert_eq!(deployment.synapse.requests().last().unwrap().target(), path);
            let seen = deployment.synapse.requests().len();
            for target in disguises(path).iter().filter(|target| !target.contains("%255F")) {
                let fields =
                    [&format!("Host: {host}"), "X-Forwarded-For: 127.0.0.2", "Forwarded: for=127.0.0.2"];
                let line = format!("GET {target}");
                let refused = deployment.client_from(STRANGER, "https", host).request(&line, &fields, b"");
                assert!(matches!(refused.status, 400 | 403 | 404), "{host} {target}: {}", refused.status);
            }
            assert_eq!(
                deployment.synapse.requests().len(),
                seen,
                "{:?}",
                deployment.synapse.requests().last()
            );
            let refused = deployment.client_from(STRANGER, "https", host).get(host, path).expect(403);
            assert_eq!(refused.json()["errcode"], "M_FORBIDDEN");
            is_readable_everywhere(&refused, path);
        }
        deployment.client_from(OPERATOR, "https", DOMAIN).get(DOMAIN, path).expect(404);
    }
    for host in [MATRIX, OWN, AUTH, DOMAIN] {
        deployment.client_from(OPERATOR, "https", host).get(host, "/metrics").expect(404);
    }
}

#[test]
fn the_metadata_of_the_auth_service_comes_from_there() {
    let mut deployment = deploy("");
    let names =
        ["/_matrix/client/v1/auth_metadata", "/_matrix/client/unstable/org.matrix.msc2965/auth_metadata"];
    for name in names {
        for (method, query) in [("GET", ""), ("GET", "?a=%2F&b"), ("OPTIONS", "")] {
            let answer = deployment.ask(MATRIX, &format!("{method} {name}{query}")).expect(200);
            assert_eq!(answer.json()["by"], "auth");
            let asked = deployment.auth.requests().pop().unwrap();
            let line = format!("{method} /.well-known/openid-configuration{query} HTTP/1.1\r\n");
            assert!(asked.text().starts_with(&line), "{}", asked.text());
            assert_eq!(asked.header("host").as_deref(), Some(MATRIX));
        }
    }
    assert!(deployment.synapse.requests().is_empty());

    // Nobody listens on port 1.
    let mut deployment = deploy_before(answering("auth"), "", Some("127.0.0.1:1"));
    for name in names {
        let down = deployment.ask(MATRIX, &format!("GET {name}")).expect(502);
        is_readable_everywhere(&down, name);
        assert_eq!(down.json()["errcode"], "M_UNKNOWN");
        is_readable_everywhere(&deployment.ask(MATRIX, &format!("OPTIONS {name}")).expect(204), name);
    }
    assert!(deployment.synapse.requests().is_empty());
}

/// Sends a body of so many bytes, and the whole of it even if the answer comes early.
fn upload(deployment: &mut Deployment, line: &str, bytes: usize) -> Answer {
    let host = format!("Host: {MATRIX}");
    deployment.client("https", MATRIX).request(line, &[&host, "Content-Type: image/png"], &vec![b'x'; bytes])
}

#[test]
fn uploads_may_be_as_large_as_synapse_says() {
    let other = Folder::new();
    let file = |name: &str, text: &str| other.write(name, text).display().to_string();
    let main = file(
        "homeserver.yaml",
        "server_name: example.com\nmax_upload_size: 50M\nlisteners: [{port: 8008, tls: no}]\n",
    );
    let more = file("conf.d/uploads.yaml", "max_upload_size: 300K\n");
    let folder = Path::new(&more).parent().unwrap().display().to_string();
    let mut deployment = deploy(&format!("    synapse_config: [\"{main}\", \"{folder}\"]\n"));
    let limit = 300 << 10;
    for line in [
        "POST /_matrix/media/v3/upload?filename=a",
        "PUT /_matrix/media/v3/upload/example.com/abc",
        "POST /_matrix/client/v1/media/upload",
    ] {
        upload(&mut deployment, line, limit).expect(200);
        assert_eq!(deployment.synapse.requests().last().unwrap().body_length, limit as u64);
        let refused = upload(&mut deployment, line, limit + 1).expect(413);
        assert_eq!(refused.json()["errcode"], "M_TOO_LARGE");
        is_readable_everywhere(&refused, line);
    }
    upload(&mut deployment, "PUT /_matrix/client/v3/rooms/!a:b/send/m.room.message/1", limit + 1).expect(200);
}
