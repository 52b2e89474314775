//! The real executables: `gatehouse`, and `gatehouse-auth`.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::{Client, Curl, Folder, Metrics, PATIENCE, Process, program, run_to_end, target_folder};

/// A running `gatehouse run` or `gatehouse-auth`.
pub(crate) struct Gatehouse {
    pub(crate) process: Process,
    pub(crate) configuration: PathBuf,
}

/// `gatehouse` with nothing of the caller's environment that it would listen to.
pub(crate) fn gatehouse_command() -> Command {
    command(Path::new(env!("CARGO_BIN_EXE_gatehouse")))
}

/// `gatehouse-auth`, likewise.
pub(crate) fn auth_command() -> Command {
    command(auth_binary())
}

pub(super) fn command(program: &Path) -> Command {
    let mut command = Command::new(program);
    command
        .env_remove("GATEHOUSE_CONFIG")
        .env_remove("GATEHOUSE_LOG")
        .env_remove("NOTIFY_SOCKET")
        .env_remove("GATEHOUSE_TAKE_OVER");
    command
}

impl Gatehouse {
    /// `gatehouse run` with this configuration.
    pub(crate) fn start(folder: &Folder, yaml: &str) -> Self {
        let configuration = folder.write("gatehouse.yaml", yaml);
        Self::run(configuration)
    }

    /// `gatehouse run` with a configuration file that is there.
    pub(crate) fn run(configuration: PathBuf) -> Self {
        let mut command = gatehouse_command();
        command.arg("run").arg("-c").arg(&configuration);
        Self { process: Process::start("gatehouse", &mut command), configuration }
    }

    /// `gatehouse run` that may have no more than so many files open.
    pub(crate) fn start_with_descriptors(folder: &Folder, yaml: &str, most: u32) -> Self {
        let configuration = folder.write("gatehouse.yaml", yaml);
        let mut command = command(&program("prlimit"));
        command.arg(format!("--nofile={most}:{most}")).arg(env!("CARGO_BIN_EXE_gatehouse"));
        command.arg("run").arg("-c").arg(&configuration);
        Self { process: Process::start("gatehouse", &mut command), configuration }
    }

    /// `gatehouse run` as systemd starts it for a socket unit: with a listening TCP socket, and a Unix socket at `socket`.
    pub(crate) fn start_inheriting(folder: &Folder, yaml: &str, socket: &Path) -> Self {
        let configuration = folder.write("gatehouse.yaml", yaml);
        let mut command = command(Path::new("python3"));
        command.arg("-c").arg(HAND_OVER).arg(socket).arg(env!("CARGO_BIN_EXE_gatehouse"));
        command.arg("run").arg("-c").arg(&configuration);
        Self { process: Process::start("gatehouse", &mut command), configuration }
    }

    /// `gatehouse-auth` with this configuration.
    pub(crate) fn start_auth(folder: &Folder, yaml: &str) -> Self {
        let configuration = folder.write("auth.yaml", yaml);
        let mut command = command(auth_binary());
        command.arg("-c").arg(&configuration);
        Self { process: Process::start("gatehouse-auth", &mut command), configuration }
    }

    /// The first address of a listener as reported, such as `127.0.0.1:34567` or `unix:/path`.
    pub(crate) fn address(&mut self, listener: &str) -> String {
        self.process.wait_for(&format!("that it listens as {listener:?}"), |line| {
            let line: Value = serde_json::from_str(line).ok()?;
            (line["message"] == "listening" && line["listener"] == listener)
                .then(|| line["address"].as_str().map(str::to_owned))?
        })
    }

    /// The first address of a TCP listener, on loopback when it is bound to every address.
    pub(crate) fn tcp(&mut self, listener: &str) -> SocketAddr {
        let address: SocketAddr = self.address(listener).parse().expect("a TCP listener");
        if address.ip().is_unspecified() {
            SocketAddr::from(([127, 0, 0, 1], address.port()))
        } else {
            address
        }
    }

    /// curl that trusts the authority in `ca`, against a TCP listener.
    pub(crate) fn curl(&mut self, listener: &str, ca: &Path) -> Curl {
        Curl { ca: ca.to_owned(), edge: self.tcp(listener) }
    }

    /// SIGTERM; whether it then ended with exit code 0.
    pub(crate) fn stop_cleanly(&mut self) -> bool {
        self.process.stop().code() == Some(0)
    }

    /// What `/metrics` of this listener says.
    pub(crate) fn metrics(&mut self, listener: &str) -> Metrics {
        Metrics::of(self.client(listener))
    }

    /// Waits until `/metrics` of this listener is as wanted.
    pub(crate) fn wait_for_metrics(&mut self, listener: &str, wanted: impl Fn(&Metrics) -> bool) -> Metrics {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let metrics = self.metrics(listener);
            if wanted(&metrics) {
                return metrics;
            }
            assert!(Instant::now() < deadline, "still {metrics:#?}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// A plain connection to a TCP listener.
    pub(crate) fn client(&mut self, listener: &str) -> Client {
        Client::tcp(self.tcp(listener))
    }
}

/// sd_listen_fds(3): descriptors from 3 on, their number and the process they are meant for.
const HAND_OVER: &str = "
import os, socket, sys
path, program = sys.argv[1], sys.argv[2:]
tcp = socket.create_server(('127.0.0.1', 0))
unix = socket.socket(socket.AF_UNIX)
unix.bind(path)
unix.listen()
tcp, unix = [os.dup(one.fileno()) for one in (tcp, unix)]
for number, one in ((103, tcp), (104, unix)):
    os.dup2(one, number)
for number in (3, 4):
    os.dup2(number + 100, number)
os.closerange(5, 200)
os.environ.update(LISTEN_FDS='2', LISTEN_PID=str(os.getpid()))
os.execv(program[0], program)
";

/// `gatehouse-auth`: the one that `GATEHOUSE_AUTH` names, as `tests/run` does, else it is built here. Cargo builds for a package's
/// tests only that package's own executables.
pub(super) fn auth_binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        if let Some(built) = std::env::var_os("GATEHOUSE_AUTH") {
            return PathBuf::from(built);
        }
        let profile = Path::new(env!("CARGO_BIN_EXE_gatehouse")).parent().unwrap().file_name().unwrap();
        let mut build = Command::new(env!("CARGO"));
        build.args(["build", "--quiet", "--locked", "-p", "gatehouse-service", "--bin", "gatehouse-auth"]);
        if profile == "release" {
            build.arg("--release");
        }
        build.current_dir(env!("CARGO_MANIFEST_DIR")).env("CARGO_TARGET_DIR", target_folder());
        let output = build.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        target_folder().join(profile).join("gatehouse-auth")
    })
}

/// `gatehouse user add` while the service runs.
pub(crate) fn add_user(configuration: &Path, name: &str, password: &str, more: &[&str]) {
    let mut command = gatehouse_command();
    command.args(["user", "-c"]).arg(configuration).args(["add", name, "--password-stdin"]).args(more);
    let output = run_to_end(&mut command, &format!("{password}\n"));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
