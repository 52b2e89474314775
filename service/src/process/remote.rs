//! The other end of the control socket: asking a process that runs.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::net::UnixStream;
use tokio::time::timeout;

pub use super::wire::{Answer, WireError};
use super::wire::{Ask, Hello, PROMPT, PROTOCOL, Wire, Wish};
use super::{control, former};

/// What a process can be asked for from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Errand {
    /// Read the configuration again.
    Reload,
    /// Let the executable at its path take over.
    Upgrade,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum RemoteError {
    /// Nobody listens.
    #[error(
        "nothing runs with this data_dir: nobody listens at {}; a process whose log says that it has no control socket reloads on SIGHUP",
        path.display()
    )]
    Nobody {
        /// Where it would.
        path: PathBuf,
    },
    /// The socket is somebody else's.
    #[error("no permission to talk to the running process at {}: be its user, or root", path.display())]
    Permission {
        /// Where it listens.
        path: PathBuf,
    },
    /// The connection cannot be made.
    #[error("cannot connect to {}", path.display())]
    Connect {
        /// Where to.
        path: PathBuf,
        /// The system's word.
        #[source]
        source: io::Error,
    },
    /// The connection broke, or what is said on it is not what is spoken here.
    #[error("the running process does not answer")]
    Wire(#[from] WireError),
    /// Another version.
    #[error(
        "process {pid}, version {version}, speaks version {protocol} of the control protocol, this program {PROTOCOL}"
    )]
    Protocol {
        /// Its number.
        pid: u32,
        /// Its version.
        version: String,
        /// Its protocol.
        protocol: u32,
    },
    /// What was checked is not what it would read.
    #[error("process {pid} runs with {theirs}, not with {ours}: name the files that it was started with")]
    OtherFiles {
        /// Its number.
        pid: u32,
        /// Its files.
        theirs: String,
        /// The files of the command.
        ours: String,
    },
}

/// Asks the process that listens at `control`, and waits for the end, 150 s at most. It has to run with these files. When another
/// process takes over meanwhile, that one is asked.
///
/// # Errors
/// [`RemoteError`]. Of an errand that failed the answer tells.
pub async fn ask(control: &Path, errand: Errand, files: &[PathBuf]) -> Result<Answer, RemoteError> {
    let mut tries = 0;
    loop {
        let answer = ask_once(control, errand, files).await?;
        tries += 1;
        if !answer.elsewhere || tries == MOST_TRIES {
            return Ok(answer);
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn ask_once(control: &Path, errand: Errand, files: &[PathBuf]) -> Result<Answer, RemoteError> {
    let (mut wire, hello) = connect(control).await?;
    if !same_files(&hello.files, files) {
        let names = |files: &[PathBuf]| {
            files.iter().map(|file| file.display().to_string()).collect::<Vec<_>>().join(", ")
        };
        return Err(RemoteError::OtherFiles {
            pid: hello.pid,
            theirs: names(&hello.files),
            ours: names(files),
        });
    }
    let ask = match errand {
        Errand::Reload => Wish::Reload,
        Errand::Upgrade => Wish::Upgrade,
    };
    wire.send(&Ask { protocol: PROTOCOL, ask }).await?;
    Ok(wire.receive(control::LONGEST + PROMPT).await?)
}

/// Connects, and hears who listens.
pub(super) async fn connect(control: &Path) -> Result<(Wire, Hello), RemoteError> {
    let path = || control.to_owned();
    let connected = timeout(PROMPT, UnixStream::connect(control)).await;
    let stream = match connected.unwrap_or_else(|late| Err(late.into())) {
        Ok(stream) => stream,
        Err(error) => {
            return Err(match error.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
                    RemoteError::Nobody { path: path() }
                }
                io::ErrorKind::PermissionDenied => RemoteError::Permission { path: path() },
                _ => RemoteError::Connect { path: path(), source: error },
            });
        }
    };
    let mut wire = Wire::new(stream);
    let hello: Hello = wire.receive(PROMPT).await?;
    if hello.protocol != PROTOCOL {
        return Err(RemoteError::Protocol {
            pid: hello.pid,
            version: hello.gatehouse,
            protocol: hello.protocol,
        });
    }
    Ok((wire, hello))
}

/// Whether they are the same files in the same order, by whatever names.
fn same_files(one: &[PathBuf], two: &[PathBuf]) -> bool {
    let real = |path: &PathBuf| fs::canonicalize(path).unwrap_or_else(|_| path.clone());
    one.iter().map(real).eq(two.iter().map(real))
}

/// Processes that take over from each other while one is asked.
const MOST_TRIES: u32 = 100;
/// The next process has the same socket, and is there as soon as the other says so.
const PAUSE: Duration = Duration::from_millis(5);

/// Why nothing is taken over.
pub(super) fn taking(error: &RemoteError) -> super::Fault {
    super::Fault::of(error).within(former::CANNOT)
}
