//! The preset before a real Synapse and an auth service that is restarted with other metadata.

use serde_json::{Value, json};

use super::harness::{
    Certificates, Client, Folder, Gatehouse, Listen, Process, SHARED_SECRET, SynapseSettings, add_user,
    auth_yaml, free_port, start_synapse,
};

const PASSWORD: &str = "correct horse battery staple";
const NAMES: [&str; 2] =
    ["/_matrix/client/v1/auth_metadata", "/_matrix/client/unstable/org.matrix.msc2965/auth_metadata"];
/// A site of the user's own that leads to Synapse with every path.
const OWN: &str = "own.localhost";

struct Deployment {
    edge: Gatehouse,
    auth: Option<Gatehouse>,
    synapse: Process,
    synapse_port: u16,
    auth_port: u16,
    certificates: Certificates,
    folder: Folder,
}

/// `gatehouse-auth`, Synapse and the edge as three processes, so that each can be restarted alone.
fn deploy(max_upload_size: &str) -> Deployment {
    let folder = Folder::new();
    let certificates = Certificates::new(&folder, &["localhost", "auth.localhost", OWN]);
    let [synapse_port, auth_port] = [(); 2].map(|()| free_port());
    let settings = SynapseSettings {
        server_name: "localhost".to_owned(),
        base: "https://localhost".to_owned(),
        listen: Listen::Port(synapse_port),
        auth_port,
        max_upload_size: max_upload_size.to_owned(),
        more: String::new(),
    };
    let synapse = start_synapse(&folder, &settings);
    let yaml = format!(
        r#"
data_dir: {data:?}
edge:
  matrix:
    server_name: localhost
    auth_host: auth.localhost
    federation_port: false
    synapse: synapse
    synapse_config: synapse/homeserver.yaml
    auth: "http://127.0.0.1:{auth_port}"
  upstreams: {{synapse: {{servers: ["127.0.0.1:{synapse_port}"]}}}}
  listeners: [{{name: https, binds: [{{address: "127.0.0.1:0"}}], tls: true}}]
  {tls}
  sites: [{{hosts: [{OWN}], routes: [{{prefix: /, upstream: synapse}}]}}]
"#,
        data = folder.path(),
        tls = certificates.yaml(),
    );
    let mut edge = Gatehouse::start(&folder, &yaml);
    edge.address("https");
    Deployment { edge, auth: None, synapse, synapse_port, auth_port, certificates, folder }
}

impl Deployment {
    /// Starts the auth service, or starts it again, with an issuer.
    fn start_auth(&mut self, issuer: &str) {
        if let Some(mut running) = self.auth.take() {
            assert!(running.stop_cleanly());
        }
        let http = format!(
            "http:
  public_base: {issuer}
  listeners:
    - name: web
      resources: [{{name: discovery}}, {{name: oauth}}, {{name: compat}}]
      binds: [{{address: \"127.0.0.1:{}\"}}]
",
            self.auth_port
        );
        let synapse = format!("http://127.0.0.1:{}/", self.synapse_port);
        let yaml = format!("{}{http}", auth_yaml(self.folder.path(), &synapse));
        let mut auth = Gatehouse::start_auth(&self.folder, &yaml);
        auth.address("web");
        self.auth = Some(auth);
    }

    fn client(&mut self, host: &str) -> Client {
        let address = self.edge.tcp("https");
        Client::tls(&self.certificates, host, address)
    }

    /// What the edge says, under both names.
    fn metadata(&mut self) -> Value {
        let [metadata, older] =
            NAMES.map(|name| self.client("localhost").get("localhost", name).expect(200).json());
        assert_eq!(metadata, older);
        metadata
    }

    /// What Synapse itself says.
    fn cached(&self) -> Value {
        self.synapse().get("localhost", NAMES[0]).expect(200).json()
    }

    fn synapse(&self) -> Client {
        Client::tcp(([127, 0, 0, 1], self.synapse_port).into())
    }

    fn auth(&self) -> Client {
        Client::tcp(([127, 0, 0, 1], self.auth_port).into())
    }
}

#[test]
fn a_restarted_auth_service_is_believed_at_once() {
    let mut deployment = deploy("2M");
    deployment.start_auth("https://auth.localhost/");
    let first = deployment.metadata();
    assert_eq!(first["issuer"], "https://auth.localhost/");
    let own = deployment.auth().get("auth.localhost", "/.well-known/openid-configuration").expect(200);
    assert_eq!(first, own.json());
    assert_eq!(deployment.cached(), first);

    deployment.start_auth("https://login.example.com/");
    let second = deployment.metadata();
    assert_eq!(second["issuer"], "https://login.example.com/");
    assert_ne!(second, first);
    // The one without the other: Synapse was not restarted and still believes the old.
    assert!(deployment.synapse.is_running());
    assert_eq!(deployment.cached(), first);
    for name in NAMES {
        let preflight = deployment.client("localhost").request(
            &format!("OPTIONS {name}"),
            &["Host: localhost", "Origin: https://a.example", "Access-Control-Request-Method: GET"],
            b"",
        );
        let preflight = preflight.expect(204);
        assert_eq!(preflight.header("access-control-allow-origin"), Some("*"));
    }
    let readable = deployment.client("localhost").get("localhost", NAMES[0]);
    assert_eq!(readable.header("access-control-allow-origin"), Some("*"));

    assert!(deployment.auth.take().unwrap().stop_cleanly());
    let down = deployment.client("localhost").get("localhost", NAMES[0]).expect(502);
    assert_eq!(down.json()["errcode"], "M_UNKNOWN");
    assert_eq!(down.header("access-control-allow-origin"), Some("*"));
}

#[test]
fn uploads_end_where_synapse_ends_them_and_its_inner_paths_stay_closed() {
    let mut deployment = deploy("2M");
    deployment.start_auth("https://auth.localhost/");
    let auth = deployment.auth.as_ref().unwrap().configuration.clone();
    add_user(&auth, "alice", PASSWORD, &[]);
    let login = json!({
        "type": "m.login.password", "password": PASSWORD, "identifier": {"type": "m.id.user", "user": "alice"},
    });
    let answer = deployment
        .client("localhost")
        .post("localhost", "/_matrix/client/v3/login", None, &login)
        .expect(200);
    let token = format!("Authorization: Bearer {}", answer.json()["access_token"].as_str().unwrap());
    let fields = ["Host: localhost", token.as_str(), "Content-Type: application/octet-stream"];
    let limit = 2 << 20;
    let mut upload = |bytes: usize| {
        let line = "POST /_matrix/media/v3/upload?filename=a";
        deployment.client("localhost").request(line, &fields, &vec![b'x'; bytes])
    };
    let stored = upload(limit).expect(200);
    assert!(stored.json()["content_uri"].as_str().unwrap().starts_with("mxc://localhost/"));
    let refused = upload(limit + 1).expect(413);
    assert_eq!(refused.json()["errcode"], "M_TOO_LARGE");
    assert_eq!(refused.header("access-control-allow-origin"), Some("*"));

    // With the secret that opens them, on every host, and in every spelling that Synapse might understand.
    let secret = format!("Authorization: Bearer {SHARED_SECRET}");
    let ask = |mut client: Client, host: &str, target: &str| {
        client.request(&format!("GET {target}"), &[&format!("Host: {host}"), &secret], b"")
    };
    let target = "/_synapse/mas/query_user?localpart=alice";
    let direct = ask(deployment.synapse(), "localhost", target).expect(200);
    assert_eq!(direct.json()["user_id"], "@alice:localhost");
    for host in ["localhost", "auth.localhost", OWN] {
        for target in super::preset::disguises(target) {
            let answer = ask(deployment.client(host), host, &target);
            assert!(matches!(answer.status, 400 | 404), "{host} {target}: {}", answer.status);
            assert!(!answer.text().contains("@alice"), "{host} {target}");
        }
    }
}
