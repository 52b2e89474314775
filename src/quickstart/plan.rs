//! What one start of the quickstart settles before anything runs: folder, ports, names, certificate, configuration file.

use std::fs::{self, File, TryLockError};
use std::net::{Ipv4Addr, Ipv6Addr, TcpListener};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use tokio::time::sleep;
use url::Url;

use super::certificate::{self, Certificate};
use super::progress::Step;
use super::synapse::{quote, text};
use super::{Options, private_file, random_token};
use crate::quickstart::messages;

/// How long a Synapse named with `--synapse` may take to be reconfigured and restarted.
const DELEGATION_DEADLINE: Duration = Duration::from_secs(15 * 60);
/// What Synapse's `matrix_authentication_service.endpoint` says when nobody changed it.
const DEFAULT_AUTH_PORT: u16 = 8080;
/// Longest path of a Unix socket on Linux (`sockaddr_un`), without the final NUL.
const LONGEST_SOCKET_PATH: usize = 107;

/// Everything about one start that does not change any more.
pub(super) struct Plan {
    /// Holds everything that the quickstart makes.
    pub(super) folder: PathBuf,
    /// The part of user ids after the colon.
    pub(super) server_name: String,
    /// Port of the edge on localhost.
    port: u16,
    /// Loopback port where Synapse finds the auth service.
    auth_port: u16,
    /// Where Synapse listens.
    pub(super) synapse: Url,
    /// The configuration of a Synapse of our own.
    pub(super) synapse_config: Option<PathBuf>,
    /// The secret that Synapse and the auth service share.
    pub(super) secret_file: PathBuf,
    /// What the edge shows and what clients have to trust.
    pub(super) certificate: Certificate,
}

/// The folder for everything, made when absent and open to its owner only.
pub(super) fn folder(given: Option<&Path>) -> Result<PathBuf> {
    let folder = match given {
        Some(folder) => folder.to_owned(),
        None => default_folder(std::env::var_os("XDG_DATA_HOME"), std::env::var_os("HOME"))
            .context("neither HOME nor XDG_DATA_HOME is set; name a folder with --dir")?,
    };
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&folder)
        .with_context(|| format!("cannot make the folder {}; name another with --dir", folder.display()))?;
    let folder = folder.canonicalize()?;
    let socket = folder.join("data/auth.sock");
    if socket.as_os_str().len() > LONGEST_SOCKET_PATH {
        bail!(
            "the path of {} is too long for a Unix socket; name a shorter folder with --dir",
            folder.display()
        );
    }
    Ok(folder)
}

fn default_folder(
    data_home: Option<std::ffi::OsString>,
    home: Option<std::ffi::OsString>,
) -> Option<PathBuf> {
    let given =
        |value: Option<std::ffi::OsString>| value.map(PathBuf::from).filter(|path| path.is_absolute());
    let data = given(data_home).or_else(|| Some(given(home)?.join(".local/share")))?;
    Some(data.join("gatehouse-quickstart"))
}

/// Keeps a second quickstart out of the folder while the returned file lives.
pub(super) fn lock(folder: &Path) -> Result<File> {
    let path = folder.join("lock");
    let file = File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => {
            bail!(
                "another quickstart runs in {}: stop it, or name another folder with --dir",
                folder.display()
            )
        }
        Err(TryLockError::Error(error)) => {
            Err(error).with_context(|| format!("cannot lock {}", path.display()))
        }
    }
}

impl Plan {
    /// Looks for free ports, makes certificate and secret when absent, and asks a Synapse that was named for its name.
    pub(super) async fn new(options: &Options, folder: PathBuf) -> Result<Self> {
        if !is_free(options.port) {
            bail!("port {} of localhost is in use; choose another with --port", options.port);
        }
        let auth_port = match (options.auth_port, &options.synapse) {
            (Some(port), _) => port,
            (None, Some(_)) => DEFAULT_AUTH_PORT,
            (None, None) => free_port()?,
        };
        if !is_free(auth_port) {
            bail!(
                "port {auth_port} of localhost is in use; choose another for the auth service with --auth-port"
            );
        }
        let (synapse, server_name) = match &options.synapse {
            Some(url) => (url.clone(), server_name_of(url).await?),
            None => (Url::parse(&format!("http://127.0.0.1:{}/", free_port()?))?, "localhost".to_owned()),
        };
        let secret_file = folder.join("matrix-secret");
        private_file::read_or_create(&secret_file, random_token)?;
        let certificate = certificate::ensure(&folder, &["localhost"], now())?;
        let synapse_config = options.synapse.is_none().then(|| folder.join("synapse/homeserver.yaml"));
        let port = options.port;
        Ok(Self { server_name, port, auth_port, synapse, synapse_config, secret_file, certificate, folder })
    }

    /// Where clients reach everything.
    pub(super) fn public_base_url(&self) -> String {
        format!("https://localhost:{}/", self.port)
    }

    /// Where Synapse reaches the auth service.
    pub(super) fn auth_endpoint(&self) -> String {
        format!("http://127.0.0.1:{}/", self.auth_port)
    }

    /// Writes the configuration that this start runs with.
    pub(super) fn write_configuration(&self) -> Result<PathBuf> {
        let data = self.folder.join("data");
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&data)?;
        let path = self.folder.join("gatehouse.yaml");
        private_file::write(&path, &self.configuration(&data, has_ipv6()))?;
        Ok(path)
    }

    /// The preset, on loopback: what is said here is only what differs from a server on the internet.
    fn configuration(&self, data: &Path, ipv6: bool) -> String {
        let Self { server_name, port, auth_port, .. } = self;
        let synapse_config = self
            .synapse_config
            .as_ref()
            .map_or_else(String::new, |path| format!("    synapse_config: {}\n", text(path)));
        let ipv6 = if ipv6 { format!(", {{address: \"[::1]:{port}\"}}") } else { String::new() };
        format!(
            "# Written by `gatehouse quickstart` at each start.\n\
             data_dir: {data}\n\
             edge:\n  \
               matrix:\n    \
                 server_name: {server_name}\n    \
                 host: \"localhost:{port}\"\n    \
                 auth_host: \"localhost:{port}\"\n    \
                 synapse: {synapse}\n\
                 {synapse_config}    \
                 auth: bundled\n    \
                 federation_port: false\n  \
               listeners:\n    \
                 - {{name: https, tls: true, binds: [{{address: \"127.0.0.1:{port}\"}}{ipv6}]}}\n  \
               tls:\n    \
                 certificates: [{{certificate_file: {certificate}, key_file: {key}}}]\n  \
               access_log: {{path: {access_log}, format: json}}\n\
             http:\n  \
               listeners:\n    \
                 - name: web\n      \
                   resources: [{{name: discovery}}, {{name: oauth}}, {{name: compat}}, {{name: assets}}]\n      \
                   binds: [{{socket: {socket}, mode: \"600\"}}]\n      \
                   proxy_protocol: true\n    \
                 - name: internal\n      \
                   resources: [{{name: discovery}}, {{name: oauth}}, {{name: health}}]\n      \
                   binds: [{{address: \"127.0.0.1:{auth_port}\"}}]\n\
             matrix:\n  \
               homeserver: {server_name}\n  \
               endpoint: {synapse}\n  \
               secret_file: {secret}\n",
            data = text(data),
            server_name = quote(server_name),
            synapse = quote(self.synapse.as_str()),
            certificate = text(&self.certificate.certificate),
            key = text(&self.certificate.key),
            access_log = text(&self.folder.join("access.log")),
            socket = text(&data.join("auth.sock")),
            secret = text(&self.secret_file),
        )
    }

    /// Says what a Synapse that runs already needs in its configuration, and waits until it has it.
    pub(super) async fn wait_for_delegation(&self, step: &mut Step<'_>) -> Result<()> {
        let secret = private_file::read_or_create(&self.secret_file, random_token)?;
        let url = self.synapse.join("_synapse/mas/is_localpart_available?localpart=quickstart")?;
        let client = client()?;
        let deadline = Instant::now() + DELEGATION_DEADLINE;
        let mut said = false;
        loop {
            let answer = client.get(url.clone()).bearer_auth(&secret).send().await;
            // 200: the name is free. 400: it is taken. Both come only when the secret is right.
            if answer.is_ok_and(|answer| matches!(answer.status().as_u16(), 200 | 400)) {
                return Ok(());
            }
            if !said {
                step.say(&messages::how_to_delegate(&self.auth_endpoint(), &secret));
                said = true;
            }
            if Instant::now() > deadline {
                bail!(
                    "{} did not delegate to the auth service within {} minutes",
                    self.synapse,
                    DELEGATION_DEADLINE.as_secs() / 60
                );
            }
            step.tick("waiting until it delegates to the auth service");
            sleep(Duration::from_secs(1)).await;
        }
    }
}

/// Asks a homeserver for the name it signs with.
async fn server_name_of(synapse: &Url) -> Result<String> {
    let url = synapse.join("_matrix/key/v2/server").context("not a base URL")?;
    let answer =
        client()?.get(url.clone()).send().await.and_then(reqwest::Response::error_for_status).with_context(
            || format!("no Synapse answers at {url}; is it running, with the federation resource?"),
        )?;
    let keys: serde_json::Value =
        answer.json().await.with_context(|| format!("{url} is not a homeserver's"))?;
    let name = keys.get("server_name").and_then(|name| name.as_str());
    name.map(str::to_owned).ok_or_else(|| anyhow!("{url} does not say a server name"))
}

fn client() -> Result<reqwest::Client> {
    Ok(reqwest::Client::builder().timeout(Duration::from_secs(5)).no_proxy().build()?)
}

fn is_free(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
        && (!has_ipv6() || TcpListener::bind((Ipv6Addr::LOCALHOST, port)).is_ok())
}

fn has_ipv6() -> bool {
    TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_ok()
}

/// A port that nobody uses. It is given back before it is used, so another program could take it in between; the system
/// hands ports out in turn, which makes that unlikely, and then the start fails with a clear word.
fn free_port() -> Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("no free port")?;
    Ok(listener.local_addr()?.port())
}

#[expect(
    clippy::disallowed_methods,
    reason = "the quickstart is the outermost place, where the clock comes from"
)]
fn now() -> std::time::SystemTime {
    std::time::SystemTime::now()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(data_home: Option<&str>, home: Option<&str>, expected: Option<&str>) {
        let found = default_folder(data_home.map(Into::into), home.map(Into::into));
        assert_eq!(found, expected.map(PathBuf::from));
    }

    #[test]
    fn the_folder_is_where_data_of_programs_belongs() {
        check(Some("/data"), Some("/home/a"), Some("/data/gatehouse-quickstart"));
        check(None, Some("/home/a"), Some("/home/a/.local/share/gatehouse-quickstart"));
        check(Some("relative"), Some("/home/a"), Some("/home/a/.local/share/gatehouse-quickstart"));
        check(None, None, None);
    }

    #[test]
    fn a_second_quickstart_is_kept_out_of_the_folder() {
        let folder = tempfile::tempdir().unwrap();
        let first = lock(folder.path()).unwrap();
        let error = lock(folder.path()).unwrap_err().to_string();
        assert!(error.contains("another quickstart"), "{error}");
        drop(first);
        lock(folder.path()).unwrap();
    }

    #[test]
    fn the_configuration_loads_without_a_warning() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().canonicalize().unwrap();
        let secret_file = folder.join("matrix-secret");
        private_file::read_or_create(&secret_file, random_token).unwrap();
        let synapse_config = folder.join("homeserver.yaml");
        fs::write(&synapse_config, "server_name: localhost\nmax_upload_size: 70M\n").unwrap();
        let plan = Plan {
            server_name: "localhost".to_owned(),
            port: 8443,
            auth_port: 18080,
            synapse: "http://127.0.0.1:18008/".parse().unwrap(),
            synapse_config: Some(synapse_config),
            secret_file,
            certificate: certificate::ensure(&folder, &["localhost"], now()).unwrap(),
            folder,
        };
        let path = plan.write_configuration().unwrap();
        let loaded = conf::load(&[path]).unwrap();
        assert_eq!(loaded.warnings.to_string(), "");
        assert!(loaded.effective.contains("max_body_size: 70M"), "{}", loaded.effective);
        assert_eq!(loaded.config.edge.unwrap().listeners.len(), 1);
        assert_eq!(loaded.config.auth.unwrap().http.listeners.len(), 2);
    }
}
