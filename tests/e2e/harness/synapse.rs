//! A real Synapse that delegates to the auth service. It listens on loopback or a Unix socket only: the edge is the way to it.

use std::path::{Path, PathBuf};

use super::homeserver::tied;
use super::{Folder, Process, SHARED_SECRET, target_folder};

/// Where Synapse listens.
#[derive(Clone)]
pub(crate) enum Listen {
    /// A port of 127.0.0.1.
    Port(u16),
    /// A Unix socket.
    Socket(PathBuf),
}

impl Listen {
    /// As `edge.matrix.synapse` has it.
    pub(crate) fn upstream(&self) -> String {
        match self {
            Self::Port(port) => format!("http://127.0.0.1:{port}"),
            Self::Socket(path) => format!("unix:{}", path.display()),
        }
    }

    /// As `matrix.endpoint` has it.
    pub(crate) fn endpoint(&self) -> String {
        match self {
            Self::Port(port) => format!("http://127.0.0.1:{port}/"),
            Self::Socket(path) => format!("unix://{}", path.display()),
        }
    }

    fn yaml(&self) -> String {
        match self {
            Self::Port(port) => format!("port: {port}, bind_addresses: [127.0.0.1], x_forwarded: true"),
            Self::Socket(path) => format!("path: {path:?}"),
        }
    }
}

/// What the configuration of one Synapse needs to know.
pub(crate) struct SynapseSettings {
    pub(crate) server_name: String,
    /// Where clients reach it: `https://localhost:port`.
    pub(crate) base: String,
    pub(crate) listen: Listen,
    /// Loopback port where it asks about tokens.
    pub(crate) auth_port: u16,
    /// As Synapse writes it, such as `100M`.
    pub(crate) max_upload_size: String,
    /// More lines of `homeserver.yaml`.
    pub(crate) more: String,
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

/// Starts it in `folder` and waits until it serves.
pub(crate) fn start_synapse(folder: &Folder, settings: &SynapseSettings) -> Process {
    let home = folder.join("synapse");
    std::fs::create_dir(&home).unwrap();
    folder.write_private("synapse/signing.key", signing_key(&settings.server_name));
    folder.write(
        "synapse/log.yaml",
        "version: 1\ndisable_existing_loggers: false\nformatters: {plain: {format: '%(message)s'}}\n\
         handlers: {console: {class: logging.StreamHandler, formatter: plain}}\nroot: {level: INFO, handlers: [console]}\n",
    );
    let configuration = folder.write("synapse/homeserver.yaml", configuration(&home, settings));
    let mut command = tied(&venv().join("bin/python"));
    command.args(["-m", "synapse.app.homeserver", "-c"]).arg(&configuration);
    command.current_dir(&home).env("MALLOC_ARENA_MAX", "2");
    let mut process = Process::start("synapse", &mut command);
    process.wait_for("that it listens", |line| line.contains("Synapse now listening").then_some(()));
    process
}

fn configuration(home: &Path, settings: &SynapseSettings) -> String {
    let generous = "{per_second: 100000, burst_count: 100000}";
    let path = |name: &str| format!("{:?}", home.join(name));
    format!(
        "\
server_name: {server_name:?}
public_baseurl: {base}/
report_stats: false
listeners:
- {{{listen}, type: http, resources: [{{names: [client, federation]}}]}}
database: {{name: sqlite3, args: {{database: {database}}}}}
log_config: {log}
media_store_path: {media}
signing_key_path: {key}
macaroon_secret_key: only for tests
form_secret: only for tests
trusted_key_servers: []
suppress_key_server_warning: true
max_upload_size: {uploads}
rc_message: {generous}
rc_room_creation: {generous}
rc_joins: {{local: {generous}, remote: {generous}}}
rc_joins_per_room: {generous}
rc_invites: {{per_room: {generous}, per_user: {generous}, per_issuer: {generous}}}
matrix_authentication_service: {{enabled: true, endpoint: \"http://127.0.0.1:{auth_port}/\", secret: \"{SHARED_SECRET}\"}}
{more}",
        server_name = settings.server_name,
        base = settings.base,
        listen = settings.listen.yaml(),
        database = path("homeserver.db"),
        log = path("log.yaml"),
        media = path("media"),
        key = path("signing.key"),
        uploads = settings.max_upload_size,
        auth_port = settings.auth_port,
        more = settings.more,
    )
}

/// A key as Synapse keeps it: 32 bytes in base64. Another one for each name, and no secret; making one with Synapse takes seconds.
fn signing_key(server_name: &str) -> String {
    let letters: String = server_name.chars().filter(char::is_ascii_alphanumeric).take(42).collect();
    format!("ed25519 test {letters:A<43}\n")
}
