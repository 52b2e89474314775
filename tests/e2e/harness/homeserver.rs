//! A whole deployment: edge and auth service in one process, and a real Synapse behind them. One is shared by all tests of a run.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{LazyLock, Mutex};

use serde_json::{Value, json};

use super::synapse::{Listen, SynapseSettings, start_synapse, venv};
use super::{
    Certificates, Client, Folder, Gatehouse, Process, auth_yaml_for, free_port, program, run_to_end,
};

/// A running deployment.
pub(crate) struct Homeserver {
    pub(crate) front: Front,
    pub(crate) synapse: Process,
}

/// What stands before Synapse.
pub(crate) struct Front {
    pub(crate) gatehouse: Mutex<Gatehouse>,
    pub(crate) certificates: Certificates,
    pub(crate) configuration: PathBuf,
    /// The part of user ids after the colon.
    pub(crate) server_name: String,
    /// Where clients reach it: `https://localhost:port`.
    pub(crate) base: String,
    pub(crate) edge: SocketAddr,
    listen: Listen,
    auth_port: u16,
    pub(crate) folder: Folder,
}

/// The deployment that all tests share, started by the first one that asks.
pub(crate) fn homeserver() -> &'static Homeserver {
    // One that does not start is not tried again by every test.
    static SHARED: LazyLock<Homeserver> = LazyLock::new(|| on_a_lasting_thread(start_shared));
    &SHARED
}

/// What `start` makes, made by a thread that outlives every test: the processes of a shared deployment are told to end with the
/// thread that started them (see [`tied`]).
pub(super) fn on_a_lasting_thread<T: Send + 'static>(start: impl FnOnce() -> T + Send + 'static) -> T {
    let (sender, receiver) = std::sync::mpsc::sync_channel(1);
    std::thread::spawn(move || {
        let _ = sender.send(start());
        loop {
            std::thread::park();
        }
    });
    receiver.recv().expect("it did not start, see above")
}

/// A command whose process ends with us, however we end: a static is never dropped.
pub(super) fn tied(program_path: &Path) -> Command {
    let mut command = Command::new(program("setpriv"));
    command.args(["--pdeathsig", "KILL", "--"]).arg(program_path);
    command
}

fn start_shared() -> Homeserver {
    let folder = Folder::shared();
    let certificates = Certificates::new(&folder, &["localhost"]);
    let edge = "  listeners:
    - {name: https, tls: true, binds: [{address: \"127.0.0.1:0\"}]}
  limits: {max_body_size: 100M}
";
    let preset = "host: localhost, federation_port: false";
    let mut front = Front::start(folder, certificates, "localhost", preset, edge, Listen::Port(free_port()));
    front.base = format!("https://localhost:{}", front.edge.port());
    front.with_synapse("100M", "")
}

impl Front {
    /// Starts `gatehouse run` with the preset for `server_name`, to which `preset` adds keys, and `edge` lines under `edge:`.
    pub(super) fn start(
        folder: Folder,
        certificates: Certificates,
        server_name: &str,
        preset: &str,
        edge: &str,
        listen: Listen,
    ) -> Self {
        let auth_port = free_port();
        let yaml = format!(
            "{auth}\
edge:
  matrix: {{server_name: \"{server_name}\", synapse: \"{synapse}\", auth: bundled, {preset}}}
{edge}  {tls}
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
            auth = auth_yaml_for(server_name, folder.path(), &listen.endpoint()),
            synapse = listen.upstream(),
            tls = certificates.yaml(),
            folder = folder.path().display(),
        );
        let configuration = folder.write("gatehouse.yaml", &yaml);
        let mut command = tied(Path::new(env!("CARGO_BIN_EXE_gatehouse")));
        command.arg("run").arg("-c").arg(&configuration).env_remove("GATEHOUSE_LOG");
        let process = Process::start(&format!("gatehouse ({server_name})"), &mut command);
        let mut gatehouse = Gatehouse { process, configuration: configuration.clone() };
        let edge = gatehouse.tcp("https");
        Self {
            gatehouse: Mutex::new(gatehouse),
            certificates,
            configuration,
            server_name: server_name.to_owned(),
            base: format!("https://matrix.{}", domain(server_name)),
            edge,
            listen,
            auth_port,
            folder,
        }
    }

    /// Starts Synapse, to whose configuration `more` is added, and waits until it serves.
    pub(super) fn with_synapse(self, max_upload_size: &str, more: &str) -> Homeserver {
        let settings = SynapseSettings {
            server_name: self.server_name.clone(),
            base: self.base.clone(),
            listen: self.listen.clone(),
            auth_port: self.auth_port,
            max_upload_size: max_upload_size.to_owned(),
            more: more.to_owned(),
        };
        let synapse = start_synapse(&self.folder, &settings);
        Homeserver { front: self, synapse }
    }

    /// The address of a listener.
    pub(crate) fn listener(&self, name: &str) -> SocketAddr {
        self.gatehouse.lock().unwrap().tcp(name)
    }
}

impl Homeserver {
    /// A TLS connection to the edge.
    pub(crate) fn client(&self) -> Client {
        Client::tls(&self.front.certificates, "localhost", self.front.edge)
    }

    /// What scripts of `clients/` need to know of it.
    pub(super) fn describe(&self) -> Value {
        json!({
            "name": self.front.server_name,
            "base": self.front.base,
            "gatehouse": [env!("CARGO_BIN_EXE_gatehouse"), "user", "-c", self.front.configuration],
        })
    }

    /// What its processes have said.
    pub(super) fn logs(&self) -> String {
        let gatehouse = self.front.gatehouse.lock().unwrap().process.log();
        let name = &self.front.server_name;
        format!("---- {name}: gatehouse ----\n{gatehouse}\n---- Synapse ----\n{}\n", self.synapse.log())
    }

    /// Runs a script of `clients/` with matrix-nio; it fails by an exception.
    pub(crate) fn run_client(&self, script: &str) {
        run_client(script, &json!({"servers": [self.describe()]}), &[self]);
    }
}

/// A server name without its port.
pub(super) fn domain(server_name: &str) -> &str {
    server_name.split(':').next().unwrap_or_default()
}

/// Runs a script of `clients/` that trusts the authority of `servers`; its failure shows what they said.
pub(super) fn run_client(script: &str, arguments: &Value, servers: &[&Homeserver]) {
    let mut command = Command::new(venv().join("bin/python"));
    command
        .arg("-B")
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/e2e/clients").join(script))
        .arg(arguments.to_string())
        .env("SSL_CERT_FILE", &servers[0].front.certificates.ca);
    let output = run_to_end(&mut command, "");
    if output.status.success() {
        return;
    }
    // Taken before the failure is reported, so that one test's failure is not everybody's.
    let logs: String = servers.iter().map(|server| server.logs()).collect();
    panic!(
        "{script}:\n{}{}\n{logs}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
}
