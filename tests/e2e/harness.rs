//! What the tests are written with: processes, an HTTP/1.1 client that shows every byte, upstreams that remember every byte,
//! certificates, and Synapse, both a real one and a stand-in.
//!
//! Blocking on purpose: a test reads from top to bottom. Every wait has a deadline and ends with the process's log.

mod auth;
mod certificate;
mod client;
mod dice;
mod fake_synapse;
mod federation;
mod gatehouse;
mod homeserver;
pub(crate) mod http2;
mod metrics;
mod process;
mod proxy_header;
mod relay;
mod synapse;
mod upgradable;
mod upstream;

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

pub(crate) use auth::{ANY_PORT, SHARED_SECRET, auth_listener_yaml, auth_yaml, auth_yaml_for};
pub(crate) use certificate::{Authority, Certificates};
pub(crate) use client::{Answer, Client, Curl};
pub(crate) use dice::{Dice, number_from_environment};
pub(crate) use fake_synapse::FakeSynapse;
pub(crate) use federation::{MISLEADING, PASSWORD, Peer, federation, password_login};
pub(crate) use gatehouse::{Gatehouse, add_user, auth_command, gatehouse_command};
pub(crate) use homeserver::{Homeserver, homeserver};
pub(crate) use metrics::Metrics;
pub(crate) use process::{Process, run_to_end};
pub(crate) use synapse::{Listen, SynapseSettings, start_synapse, venv};
pub(crate) use upgradable::{Upgradable, is_alive, pid};
pub(crate) use upstream::{Recorded, Reply, Upstream};

/// Long enough for a loaded machine with two cores; nothing waits this long when it works.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// How the names of [`Folder::shared`] begin; the process id follows.
const SHARED: &str = "gh-shared-";

/// A folder that goes away with the test.
pub(crate) struct Folder(tempfile::TempDir);

impl Folder {
    /// A new folder with a short path, so that Unix sockets fit.
    pub(crate) fn new() -> Self {
        let made = tempfile::Builder::new().prefix("gh-").tempdir_in("/tmp");
        Self(made.expect("cannot make a folder in /tmp"))
    }

    /// A folder for what all tests of a run share. A static is never dropped, so those of earlier runs are removed first.
    pub(crate) fn shared() -> Self {
        for entry in std::fs::read_dir("/tmp").unwrap().map_while(Result::ok) {
            let name = entry.file_name().to_string_lossy().into_owned();
            let run = name.strip_prefix(SHARED).and_then(|rest| rest.split('-').next()).map(str::to_owned);
            if run.is_some_and(|run| !Path::new("/proc").join(run).exists()) {
                let _ = std::fs::remove_dir_all(entry.path());
            }
        }
        let name = format!("{SHARED}{}-", std::process::id());
        Self(tempfile::Builder::new().prefix(&name).tempdir_in("/tmp").unwrap())
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    /// The path of something in it.
    pub(crate) fn join(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Writes a file and returns its path.
    pub(crate) fn write(&self, name: &str, contents: impl AsRef<[u8]>) -> PathBuf {
        let path = self.join(name);
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).unwrap();
        }
        std::fs::write(&path, contents).unwrap();
        path
    }

    /// The same, readable by its owner only.
    pub(crate) fn write_private(&self, name: &str, contents: impl AsRef<[u8]>) -> PathBuf {
        let path = self.write(name, "");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        self.write(name, contents)
    }
}

/// Where the build puts things: the parent of `debug`.
pub(crate) fn target_folder() -> PathBuf {
    let binary = Path::new(env!("CARGO_BIN_EXE_gatehouse"));
    binary.ancestors().nth(2).expect("the binary lies in target/<profile>").to_owned()
}

/// Whether a program is installed; `tests/run` installs those that the tests use.
pub(crate) fn program(name: &str) -> PathBuf {
    ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"]
        .iter()
        .map(|folder| Path::new(folder).join(name))
        .find(|path| path.exists())
        .unwrap_or_else(|| panic!("{name} is not installed; tests/run installs what the tests need"))
}

/// A port for a program that cannot choose one itself. No two calls get the same, and the system gives it to nobody who asks for
/// port 0: it lies below the range for those. A port of that range could go to another test before the program binds it, and
/// HAProxy, which sets `SO_REUSEPORT`, would then share it silently.
pub(crate) fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Another process of tests beside this one begins elsewhere.
    let begin = std::process::id().wrapping_mul(101) % PORTS;
    for _ in 0..PORTS {
        let offset = (begin + u32::from(NEXT.fetch_add(1, Ordering::Relaxed))) % PORTS;
        let port = FIRST_PORT + u16::try_from(offset).unwrap();
        if std::net::TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
    panic!("all ports from {FIRST_PORT} on are taken");
}

/// [`free_port`] chooses from here on; Linux begins with the ports that it gives itself at 32768.
const FIRST_PORT: u16 = 20_000;
const PORTS: u32 = 12_000;

/// Waits until something listens on a loopback port, for programs that do not say when they are ready.
pub(crate) fn wait_until_listening(port: u16) -> std::net::SocketAddr {
    let address = std::net::SocketAddr::from(([127, 0, 0, 1], port));
    let deadline = std::time::Instant::now() + PATIENCE;
    while std::net::TcpStream::connect(address).is_err() {
        assert!(std::time::Instant::now() < deadline, "nothing listens on {address}");
        std::thread::sleep(Duration::from_millis(20));
    }
    address
}
