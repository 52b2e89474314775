//! The homeserver behind the auth service: a real Synapse shared by all tests of a run, and a stand-in for tests that need to
//! decide what it answers.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{
    Certificates, Client, Folder, Gatehouse, PATIENCE, Process, Recorded, Reply, SHARED_SECRET, Upstream,
    auth_yaml, free_port, program, run_to_end, target_folder, wait_until_listening,
};

/// A running deployment in one process: edge, auth service, and a real Synapse that delegates to it.
pub(crate) struct Homeserver {
    pub(crate) gatehouse: Mutex<Gatehouse>,
    pub(crate) certificates: Certificates,
    pub(crate) configuration: PathBuf,
    /// Where clients reach it: `https://localhost:port`.
    pub(crate) base: String,
    pub(crate) edge: std::net::SocketAddr,
    _synapse: Process,
    _folder: Folder,
}

/// The deployment that all tests share, started by the first one that asks.
pub(crate) fn homeserver() -> &'static Homeserver {
    static SHARED: OnceLock<Homeserver> = OnceLock::new();
    SHARED.get_or_init(|| {
        // Its processes are told to end with the thread that started them (see `tied`): a thread that outlives every test.
        let (sender, receiver) = std::sync::mpsc::sync_channel(1);
        std::thread::spawn(move || {
            sender.send(Homeserver::start()).unwrap();
            loop {
                std::thread::park();
            }
        });
        receiver.recv().expect("the shared homeserver did not start, see above")
    })
}

/// A command whose process ends with us, however we end: a static is never dropped.
fn tied(program_path: &Path) -> Command {
    let mut command = Command::new(program("setpriv"));
    command.args(["--pdeathsig", "KILL", "--"]).arg(program_path);
    command
}

impl Homeserver {
    fn start() -> Self {
        let folder = Folder::shared();
        let certificates = Certificates::new(&folder, &["localhost"]);
        let (synapse_port, auth_port) = (free_port(), free_port());
        let yaml = format!(
            "{auth}\
edge:
  matrix:
    server_name: localhost
    host: localhost
    synapse: http://127.0.0.1:{synapse_port}
    auth: bundled
    federation_port: false
  listeners:
    - {{name: https, tls: true, binds: [{{address: \"127.0.0.1:0\"}}]}}
  limits: {{max_body_size: 100M}}
  {tls}
http:
  listeners:
    - name: web
      resources: [{{name: discovery}}, {{name: oauth}}, {{name: compat}}, {{name: assets}}]
      binds: [{{socket: \"{folder}/auth.sock\"}}]
      proxy_protocol: true
    - name: internal
      resources: [{{name: discovery}}, {{name: oauth}}, {{name: health}}]
      binds: [{{address: \"127.0.0.1:{auth_port}\"}}]
rate_limiting:
  login:
    per_ip: {{burst: 1000, per_second: 100}}
    per_account: {{burst: 1000, per_second: 100}}
",
            auth = auth_yaml(folder.path(), &format!("http://127.0.0.1:{synapse_port}/")),
            tls = certificates.yaml(),
            folder = folder.path().display(),
        );
        let configuration = folder.write("gatehouse.yaml", &yaml);
        let mut command = tied(Path::new(env!("CARGO_BIN_EXE_gatehouse")));
        command.arg("run").arg("-c").arg(&configuration).env_remove("GATEHOUSE_LOG");
        let process = Process::start("gatehouse (shared)", &mut command);
        let mut gatehouse = Gatehouse { process, configuration: configuration.clone() };
        let edge = gatehouse.tcp("https");
        let base = format!("https://localhost:{}", edge.port());
        let synapse = start_synapse(&folder, synapse_port, auth_port, &base);
        Self {
            gatehouse: Mutex::new(gatehouse),
            certificates,
            configuration,
            base,
            edge,
            _synapse: synapse,
            _folder: folder,
        }
    }

    /// A TLS connection to the edge.
    pub(crate) fn client(&self) -> Client {
        Client::tls(&self.certificates, "localhost", self.edge)
    }

    /// Runs a script of `clients/` with matrix-nio; it fails by an exception.
    pub(crate) fn run_client(&self, script: &str, arguments: &Value) {
        let mut arguments = arguments.clone();
        arguments["base"] = self.base.clone().into();
        arguments["gatehouse"] = json!([env!("CARGO_BIN_EXE_gatehouse"), "user", "-c", self.configuration]);
        let mut command = Command::new(venv().join("bin/python"));
        command
            .arg("-B")
            .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/e2e/clients").join(script))
            .arg(arguments.to_string())
            .env("SSL_CERT_FILE", &self.certificates.ca);
        let output = run_to_end(&mut command, "");
        // Taken before a failure is reported, so that one test's failure is not everybody's.
        let log = self.gatehouse.lock().unwrap().process.log();
        assert!(
            output.status.success(),
            "{script}:\n{}{}\n---- gatehouse ----\n{log}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr),
        );
    }
}

/// The virtual environment that `tests/run` makes.
pub(crate) fn venv() -> PathBuf {
    let venv = std::env::var_os("GATEHOUSE_TEST_VENV")
        .map_or_else(|| target_folder().join("tests/venv"), PathBuf::from);
    assert!(
        venv.join("bin/python").exists(),
        "no Python environment with Synapse and matrix-nio in {}; tests/run makes it",
        venv.display()
    );
    venv
}

fn start_synapse(folder: &Folder, port: u16, auth_port: u16, base: &str) -> Process {
    let home = folder.join("synapse");
    std::fs::create_dir(&home).unwrap();
    let generous = "{per_second: 100000, burst_count: 100000}";
    let path = |name: &str| format!("{:?}", home.join(name));
    let yaml = format!(
        "\
server_name: localhost
public_baseurl: {base}/
report_stats: false
listeners:
- {{port: {port}, bind_addresses: [127.0.0.1], type: http, x_forwarded: true, resources: [{{names: [client, federation]}}]}}
database: {{name: sqlite3, args: {{database: {database}}}}}
log_config: {log}
media_store_path: {media}
signing_key_path: {key}
macaroon_secret_key: only for tests
form_secret: only for tests
trusted_key_servers: []
suppress_key_server_warning: true
max_upload_size: 100M
rc_message: {generous}
rc_room_creation: {generous}
rc_joins: {{local: {generous}, remote: {generous}}}
rc_joins_per_room: {generous}
rc_invites: {{per_room: {generous}, per_user: {generous}, per_issuer: {generous}}}
matrix_authentication_service: {{enabled: true, endpoint: \"http://127.0.0.1:{auth_port}/\", secret: \"{SHARED_SECRET}\"}}
",
        database = path("homeserver.db"),
        log = path("log.yaml"),
        media = path("media"),
        key = path("signing.key"),
    );
    let configuration = folder.write("synapse/homeserver.yaml", yaml);
    folder.write(
        "synapse/log.yaml",
        "version: 1\nhandlers: {console: {class: logging.StreamHandler}}\nroot: {level: INFO, handlers: [console]}\n",
    );
    let python = venv().join("bin/python");
    let synapse = ["-m", "synapse.app.homeserver", "-c"];
    let mut keys = Command::new(&python);
    keys.args(synapse).arg(&configuration).arg("--generate-keys").current_dir(&home);
    let made = run_to_end(&mut keys, "");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let mut command = tied(&python);
    command.args(synapse).arg(&configuration).current_dir(&home).env("MALLOC_ARENA_MAX", "2");
    let process = Process::start("synapse", &mut command);
    let address = wait_until_listening(port);
    let deadline = Instant::now() + PATIENCE;
    while Client::tcp(address).get("localhost", "/health").status != 200 {
        assert!(Instant::now() < deadline, "Synapse is not healthy:\n{}", process.log());
        std::thread::sleep(Duration::from_millis(100));
    }
    process
}

/// Answers the auth service as Synapse would, and remembers what it was told.
pub(crate) struct FakeSynapse {
    pub(crate) upstream: Upstream,
}

impl FakeSynapse {
    pub(crate) fn start() -> Self {
        let users = Mutex::new(BTreeSet::new());
        Self { upstream: Upstream::answering(move |request| answer(&users, request)) }
    }

    pub(crate) fn url(&self) -> String {
        format!("{}/", self.upstream.url())
    }
}

/// Facts of Synapse 1.163's `/_synapse/mas/*`; everything else is `{}`.
fn answer(users: &Mutex<BTreeSet<String>>, request: &Recorded) -> Reply {
    let target = request.target();
    let (path, query) = target.split_once('?').unwrap_or((&target, ""));
    let body: Value = serde_json::from_slice(&request.body).unwrap_or(Value::Null);
    let localpart = body["localpart"].as_str().unwrap_or_default().to_owned();
    let mut users = users.lock().unwrap();
    let asked = query.strip_prefix("localpart=").unwrap_or_default();
    match path.strip_prefix("/_synapse/mas/") {
        Some("query_user") if !users.contains(asked) => {
            Reply::Json(404, json!({"errcode": "M_NOT_FOUND", "error": "no such user"}).to_string())
        }
        Some("query_user") => Reply::Json(
            200,
            json!({
                "user_id": format!("@{asked}:localhost"), "display_name": null, "avatar_url": null,
                "is_suspended": false, "is_deactivated": false,
            })
            .to_string(),
        ),
        Some("provision_user") => {
            let status = if users.insert(localpart) { 201 } else { 200 };
            Reply::Json(status, "{}".to_owned())
        }
        Some("delete_device") => Reply::Bytes(b"HTTP/1.1 204 No Content\r\n\r\n".to_vec()),
        _ => Reply::Json(200, "{}".to_owned()),
    }
}
