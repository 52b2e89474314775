//! A real Synapse of the quickstart's own: installed from PyPI into a folder, delegated to our auth service, started and
//! stopped with the quickstart.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::time::{sleep, timeout};

use super::progress::Step;
use crate::private_file::{self, random_token};

/// The version that is installed, shared with the tests.
const REQUIREMENTS: &str = include_str!("requirements.txt");
/// Synapse 1.163 needs it.
const OLDEST_PYTHON: (u32, u32) = (3, 10);
/// About 250 MB are downloaded; a slow line needs minutes.
const INSTALL_DEADLINE: Duration = Duration::from_secs(15 * 60);
/// The first start makes the database.
const START_DEADLINE: Duration = Duration::from_secs(120);
/// Synapse closes its database within a second or two.
const STOP_DEADLINE: Duration = Duration::from_secs(15);
/// Synapse as `python -m synapse.app.homeserver`, but the kernel ends it (SIGTERM) when the quickstart is gone, even by a kill -9.
const TIED_TO_PARENT: &str = "import ctypes, runpy; ctypes.CDLL(None).prctl(1, 15); \
    runpy.run_module('synapse.app.homeserver', run_name='__main__', alter_sys=True)";
const POLL: Duration = Duration::from_millis(100);

/// What the configuration of this Synapse needs to know.
pub(super) struct Settings<'a> {
    pub(super) server_name: &'a str,
    pub(super) public_base_url: String,
    /// Loopback port of its HTTP listener.
    pub(super) port: u16,
    /// Where it asks about tokens.
    pub(super) auth_endpoint: String,
    /// File with the secret it shares with the auth service.
    pub(super) secret_file: &'a Path,
}

/// The folder that everything of this Synapse lies in.
pub(super) struct Home {
    folder: PathBuf,
    port: u16,
    configuration: PathBuf,
}

/// A Synapse that runs; ended by [`Synapse::stop`], or roughly when it is dropped.
pub(super) struct Synapse {
    child: Child,
    pid_file: PathBuf,
    log: PathBuf,
}

impl Home {
    /// Makes the folder and writes Synapse's configuration.
    pub(super) fn new(folder: PathBuf, settings: &Settings<'_>) -> Result<Self> {
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let configuration = write_configuration(&folder, settings)?;
        Ok(Self { folder, port: settings.port, configuration })
    }

    /// Makes sure that the pinned Synapse is installed.
    pub(super) async fn install(&self, step: &mut Step<'_>) -> Result<()> {
        if self.is_installed().await {
            return Ok(());
        }
        step.tick("looking for Python");
        check_python().await?;
        step.tick("making a virtual environment");
        let venv = self.folder.join("venv");
        let made = output(Command::new("python3").arg("-m").arg("venv").arg(&venv)).await?;
        if !made.status.success() {
            let said = last_lines(&[made.stdout, made.stderr].concat(), 8);
            bail!(
                "Python cannot make a virtual environment.\n{said}\nInstall what it lacks (Debian and Ubuntu: \
                 apt-get install python3-venv), or name a running Synapse with --synapse URL"
            );
        }
        let requirements = self.folder.join("requirements.txt");
        fs::write(&requirements, REQUIREMENTS)?;
        self.pip_install(&requirements, step).await
    }

    async fn pip_install(&self, requirements: &Path, step: &mut Step<'_>) -> Result<()> {
        let mut pip = Command::new(self.folder.join("venv/bin/python"))
            .args(["-m", "pip", "install", "--no-input", "--disable-pip-version-check"])
            .args(["--progress-bar", "off", "--only-binary=:all:", "-r"])
            .arg(requirements)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .context("cannot start pip")?;
        let (Some(stdout), Some(stderr)) = (pip.stdout.take(), pip.stderr.take()) else {
            bail!("pip was started without its outputs");
        };
        let errors = tokio::spawn(async move {
            let mut text = Vec::new();
            let _ = tokio::io::AsyncReadExt::read_to_end(&mut BufReader::new(stderr), &mut text).await;
            text
        });
        let mut lines = BufReader::new(stdout).lines();
        let mut doing = "asking PyPI".to_owned();
        let deadline = Instant::now() + INSTALL_DEADLINE;
        loop {
            match timeout(Duration::from_secs(1), lines.next_line()).await {
                Ok(Ok(Some(line))) => {
                    doing = doing_now(&line).unwrap_or(doing);
                }
                Ok(_) => break,
                Err(_) if Instant::now() > deadline => {
                    bail!(
                        "pip did not finish within {} minutes; try again, or name a running Synapse with --synapse URL",
                        INSTALL_DEADLINE.as_secs() / 60
                    );
                }
                Err(_) => {}
            }
            step.tick(&doing);
        }
        let status = pip.wait().await?;
        if status.success() {
            return Ok(());
        }
        let said = last_lines(&errors.await.unwrap_or_default(), 6);
        bail!(
            "Synapse could not be installed from PyPI.\n{said}\nIs there a network? pip reads HTTPS_PROXY and \
             PIP_INDEX_URL. A Synapse that runs already can be named with --synapse URL"
        )
    }

    async fn is_installed(&self) -> bool {
        let Some((package, version)) = pinned() else { return false };
        let script =
            format!("import importlib.metadata as m, sys; sys.exit(m.version({package:?}) != {version:?})");
        let python = self.folder.join("venv/bin/python");
        output(Command::new(python).arg("-c").arg(script)).await.is_ok_and(|output| output.status.success())
    }

    /// Starts Synapse and waits until it is healthy.
    pub(super) async fn start(&self, step: &mut Step<'_>) -> Result<Synapse> {
        self.stop_left_over(step).await?;
        let log = self.folder.join("stdout.log");
        let python = self.folder.join("venv/bin/python");
        if !self.folder.join("signing.key").exists() {
            step.tick("making its signing key");
            let made = output(self.command(&python).arg("--generate-keys")).await?;
            if !made.status.success() {
                bail!("Synapse refuses its configuration:\n{}", last_lines(&made.stderr, 10));
            }
        }
        let out = fs::File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
        let child = self
            .command(&python)
            .stdout(out.try_clone()?)
            .stderr(out)
            // Its own process group: Ctrl-C goes to us, and we stop Synapse after the requests in flight.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .context("cannot start Synapse")?;
        let pid_file = self.pid_file();
        if let Some(pid) = child.id() {
            fs::write(&pid_file, format!("{pid}\n"))?;
        }
        let mut synapse = Synapse { child, pid_file, log };
        synapse.wait_until_healthy(self.port, step).await?;
        Ok(synapse)
    }

    fn command(&self, python: &Path) -> Command {
        let mut command = Command::new(python);
        command
            .args(["-c", TIED_TO_PARENT, "-c"])
            .arg(&self.configuration)
            .current_dir(&self.folder)
            // One arena: half the memory for a process that is mostly idle.
            .env("MALLOC_ARENA_MAX", "2")
            .stdin(Stdio::null());
        command
    }

    fn pid_file(&self) -> PathBuf {
        self.folder.join("synapse.pid")
    }

    /// Ends the Synapse of a quickstart that was killed before it could stop it.
    async fn stop_left_over(&self, step: &mut Step<'_>) -> Result<()> {
        let Ok(text) = fs::read_to_string(self.pid_file()) else { return Ok(()) };
        let Some(pid) = text.trim().parse().ok().and_then(Pid::from_raw) else { return Ok(()) };
        let ours = &self.configuration;
        let is_ours = || {
            fs::read(format!("/proc/{}/cmdline", pid.as_raw_nonzero()))
                .is_ok_and(|line| contains(&line, ours.as_os_str().as_encoded_bytes()))
        };
        let deadline = Instant::now() + STOP_DEADLINE;
        if is_ours() {
            step.tick("stopping one that was left over");
            let _ = kill_process(pid, Signal::TERM);
        }
        while is_ours() {
            if Instant::now() > deadline {
                let _ = kill_process(pid, Signal::KILL);
            }
            sleep(POLL).await;
        }
        remove(&self.pid_file());
        Ok(())
    }
}

impl Synapse {
    async fn wait_until_healthy(&mut self, port: u16, step: &mut Step<'_>) -> Result<()> {
        let client = reqwest::Client::builder().timeout(Duration::from_secs(2)).no_proxy().build()?;
        let url = format!("http://127.0.0.1:{port}/health");
        let deadline = Instant::now() + START_DEADLINE;
        loop {
            if let Some(status) = self.child.try_wait()? {
                bail!("Synapse ended at once ({status}):\n{}", self.last_words());
            }
            if client.get(&url).send().await.is_ok_and(|answer| answer.status().is_success()) {
                return Ok(());
            }
            if Instant::now() > deadline {
                bail!(
                    "Synapse was not healthy within {} s, see {}:\n{}",
                    START_DEADLINE.as_secs(),
                    self.log.display(),
                    self.last_words()
                );
            }
            step.tick("waiting for its health check");
            sleep(POLL).await;
        }
    }

    /// Ends when Synapse does, with what it said last.
    pub(super) async fn ended(&mut self) -> anyhow::Error {
        match self.child.wait().await {
            Ok(status) => anyhow!("Synapse ended ({status}):\n{}", self.last_words()),
            Err(error) => anyhow!(error).context("cannot wait for Synapse"),
        }
    }

    /// Asks Synapse to stop and waits; kills it when it takes too long.
    pub(super) async fn stop(mut self) {
        if let Some(pid) = self.child.id().and_then(|pid| Pid::from_raw(pid.try_into().ok()?)) {
            let _ = kill_process(pid, Signal::TERM);
        }
        if timeout(STOP_DEADLINE, self.child.wait()).await.is_err() {
            let _ = self.child.kill().await;
        }
        remove(&self.pid_file);
    }

    fn last_words(&self) -> String {
        last_lines(&fs::read(&self.log).unwrap_or_default(), 12)
    }
}

fn write_configuration(folder: &Path, settings: &Settings<'_>) -> Result<PathBuf> {
    let secret = |name: &str| private_file::read_or_create(&folder.join(name), random_token);
    let path = |name: &str| text(&folder.join(name));
    let (macaroon, form) = (secret("macaroon-secret")?, secret("form-secret")?);
    let yaml = format!(
        "# Written by `gatehouse quickstart` at each start.\n\
         server_name: {server_name}\n\
         public_baseurl: {public}\n\
         report_stats: false\n\
         serve_server_wellknown: false\n\
         listeners:\n\
         - port: {port}\n  \
           bind_addresses: [\"127.0.0.1\"]\n  \
           type: http\n  \
           tls: false\n  \
           x_forwarded: true\n  \
           resources: [{{names: [client, federation, health], compress: false}}]\n\
         database: {{name: sqlite3, args: {{database: {database}}}}}\n\
         log_config: {log}\n\
         media_store_path: {media}\n\
         max_upload_size: 100M\n\
         signing_key_path: {signing_key}\n\
         macaroon_secret_key: {macaroon}\n\
         form_secret: {form}\n\
         trusted_key_servers: []\n\
         suppress_key_server_warning: true\n\
         matrix_authentication_service:\n  \
           enabled: true\n  \
           endpoint: {endpoint}\n  \
           secret_path: {secret_path}\n",
        server_name = quote(settings.server_name),
        public = quote(&settings.public_base_url),
        port = settings.port,
        database = path("homeserver.db"),
        log = path("log.yaml"),
        media = path("media_store"),
        signing_key = path("signing.key"),
        macaroon = quote(&macaroon),
        form = quote(&form),
        endpoint = quote(&settings.auth_endpoint),
        secret_path = text(settings.secret_file),
    );
    let log = format!(
        "version: 1\n\
         formatters: {{line: {{format: '%(asctime)s %(levelname)s %(name)s %(request)s %(message)s'}}}}\n\
         handlers:\n  \
           file: {{class: logging.handlers.RotatingFileHandler, formatter: line, filename: {}, maxBytes: 10485760, backupCount: 2}}\n\
         root: {{level: INFO, handlers: [file]}}\n\
         disable_existing_loggers: false\n",
        path("homeserver.log")
    );
    fs::write(folder.join("log.yaml"), log)?;
    let configuration = folder.join("homeserver.yaml");
    private_file::write(&configuration, &yaml)?;
    Ok(configuration)
}

async fn check_python() -> Result<()> {
    let advice = "Install it (Debian and Ubuntu: apt-get install python3-venv), or name a running Synapse with --synapse URL";
    let script = "import sys; print(*sys.version_info[:2])";
    let found = match output(Command::new("python3").arg("-c").arg(script)).await {
        Ok(found) if found.status.success() => found,
        Ok(_) => bail!("python3 does not work. {advice}"),
        Err(_) => bail!("there is no python3. {advice}"),
    };
    let text = String::from_utf8_lossy(&found.stdout);
    let mut numbers = text.split_whitespace().map(str::parse::<u32>);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) if (major, minor) >= OLDEST_PYTHON => Ok(()),
        _ => bail!(
            "python3 is version {}, Synapse needs {}.{} or newer. {advice}",
            text.trim().replace(' ', "."),
            OLDEST_PYTHON.0,
            OLDEST_PYTHON.1
        ),
    }
}

/// What a line of pip's says it does.
fn doing_now(line: &str) -> Option<String> {
    let mut words = line.split_whitespace();
    match (words.next()?, words.next()?) {
        ("Collecting" | "Downloading", what) => Some(format!("downloading, {what}")),
        ("Installing", "collected") => Some("unpacking".to_owned()),
        _ => None,
    }
}

async fn output(command: &mut Command) -> Result<Output> {
    let run = command.stdin(Stdio::null()).kill_on_drop(true).output();
    Ok(timeout(START_DEADLINE, run).await.context("no answer in time")??)
}

/// `matrix-synapse` and its version.
fn pinned() -> Option<(&'static str, &'static str)> {
    REQUIREMENTS.lines().find_map(|line| line.split_once("=="))
}

/// A YAML string: every JSON string is one.
pub(super) fn quote(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// A path as a YAML string.
pub(super) fn text(path: &Path) -> String {
    quote(&path.to_string_lossy())
}

fn last_lines(bytes: &[u8], count: usize) -> String {
    let text = String::from_utf8_lossy(bytes);
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    lines[lines.len().saturating_sub(count)..]
        .iter()
        .map(|line| format!("  {line}"))
        .collect::<Vec<_>>()
        .join("\n")
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle)
}

fn remove(path: &Path) {
    if let Err(error) = fs::remove_file(path)
        && error.kind() != ErrorKind::NotFound
    {
        tracing::warn!(path = %path.display(), %error, "cannot remove");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_requirements_pin_synapse() {
        let (package, version) = pinned().unwrap();
        assert_eq!(package, "matrix-synapse");
        assert!(version.split('.').all(|part| part.parse::<u32>().is_ok()), "{version}");
    }

    #[test]
    fn quoted_text_stays_one_yaml_string() {
        for text in ["plain", "it's", "a: b", "\"quoted\"", "line\nbreak", "#x"] {
            let parsed: String = serde_yaml::from_str(&quote(text)).unwrap();
            assert_eq!(parsed, text);
        }
    }
}
