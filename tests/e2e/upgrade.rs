//! A process that is replaced by the next one while it serves: nobody is refused, what has begun is finished, and a next one that
//! fails changes nothing.

mod failures;
mod handover;
mod notify;
mod service;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use super::harness::{Folder, Upstream};

/// An edge on TCP and on a Unix socket.
fn yaml(folder: &Folder, upstream: &Upstream) -> String {
    format!(
        r#"
data_dir: {folder}
edge:
  threads: 2
  access_log: false
  listeners:
    - {{name: http, binds: [{{address: "127.0.0.1:0"}}, {{socket: {folder}/edge.sock}}]}}
  upstreams: {{api: {{servers: ["{address}"]}}}}
  sites: [{{hosts: ["_"], routes: [{{prefix: /, upstream: api}}]}}]
"#,
        folder = folder.path().display(),
        address = upstream.address
    )
}

/// Where clients connect.
#[derive(Debug, Clone)]
pub(super) enum Door {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

trait Connection: Read + Write {}
impl<T: Read + Write> Connection for T {}

impl Door {
    fn connect(&self) -> std::io::Result<Box<dyn Connection>> {
        const ANSWER: Duration = Duration::from_secs(30);
        Ok(match self {
            Self::Tcp(address) => {
                let stream = TcpStream::connect(address)?;
                stream.set_read_timeout(Some(ANSWER))?;
                Box::new(stream)
            }
            Self::Unix(path) => {
                let stream = UnixStream::connect(path)?;
                stream.set_read_timeout(Some(ANSWER))?;
                Box::new(stream)
            }
        })
    }
}

/// Clients that ask without a pause, each request on its own connection or as many on one as the server lets them.
pub(super) struct Load {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicUsize>,
    clients: Vec<JoinHandle<Result<(), String>>>,
}

impl Load {
    pub(super) fn start(doors: &[Door]) -> Self {
        Self::start_at("/load", doors)
    }

    fn start_at(target: &'static str, doors: &[Door]) -> Self {
        let (stop, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let mut clients = Vec::new();
        for door in doors {
            for keeps_alive in [true, false] {
                let (door, stop, answered) = (door.clone(), stop.clone(), answered.clone());
                clients
                    .push(std::thread::spawn(move || ask_on(&door, target, keeps_alive, &stop, &answered)));
            }
        }
        Self { stop, answered, clients }
    }

    /// Waits until this many more requests were answered.
    pub(super) fn wait_for(&self, more: usize) {
        let goal = self.answered.load(Ordering::Relaxed) + more;
        while self.answered.load(Ordering::Relaxed) < goal {
            if let Some(client) = self.clients.iter().position(JoinHandle::is_finished) {
                panic!("client {client} has given up");
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// How many requests were answered; panics if one failed.
    pub(super) fn end(self) -> usize {
        self.stop.store(true, Ordering::Relaxed);
        let ends: Vec<_> = self.clients.into_iter().map(|client| client.join().unwrap()).collect();
        assert!(ends.iter().all(Result::is_ok), "{ends:?}");
        self.answered.load(Ordering::Relaxed)
    }
}

fn ask_on(
    door: &Door,
    target: &str,
    keeps_alive: bool,
    stop: &AtomicBool,
    answered: &AtomicUsize,
) -> Result<(), String> {
    let failed =
        |what: &str, error: std::io::Error| format!("{door:?}, kept alive {keeps_alive}: {what}: {error}");
    let mut open: Option<Box<dyn Connection>> = None;
    while !stop.load(Ordering::Relaxed) {
        let mut connection = match open.take() {
            Some(connection) => connection,
            None => door.connect().map_err(|error| failed("connect", error))?,
        };
        let close = if keeps_alive { "" } else { "Connection: close\r\n" };
        let request = format!("GET {target} HTTP/1.1\r\nHost: x\r\n{close}\r\n");
        connection.write_all(request.as_bytes()).map_err(|error| failed("request", error))?;
        let answer = read_answer(&mut connection).map_err(|error| failed("answer", error))?;
        if !answer.starts_with("HTTP/1.1 200") {
            return Err(answer);
        }
        answered.fetch_add(1, Ordering::Relaxed);
        if !answer.to_lowercase().contains("connection: close") {
            open = Some(connection);
        }
    }
    Ok(())
}

/// The head of an answer; its body, whose length is said, is read too.
fn read_answer(connection: &mut impl Read) -> std::io::Result<String> {
    let (mut read, mut piece) = (Vec::new(), [0; 4096]);
    loop {
        let text = String::from_utf8_lossy(&read).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head
                .to_lowercase()
                .lines()
                .find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok());
            if body.len() >= length.unwrap_or(0) {
                return Ok(head.to_owned());
            }
        }
        match connection.read(&mut piece)? {
            0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
            count => read.extend_from_slice(&piece[..count]),
        }
    }
}

/// Waits until something is so.
fn until(what: &str, condition: impl Fn() -> bool) {
    let deadline = std::time::Instant::now() + super::harness::PATIENCE;
    while !condition() {
        assert!(std::time::Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn control(folder: &Folder) -> PathBuf {
    folder.join("control.sock")
}

fn exists(path: &Path) -> bool {
    std::fs::symlink_metadata(path).is_ok()
}

/// How many descriptors a process has open.
fn descriptors(number: u32) -> usize {
    std::fs::read_dir(format!("/proc/{number}/fd")).unwrap().count()
}

/// What is so for half a second.
fn until_quiet<T: PartialEq>(look: impl Fn() -> T) -> T {
    let mut seen = (look(), std::time::Instant::now());
    let deadline = seen.1 + super::harness::PATIENCE;
    while seen.1.elapsed() < Duration::from_millis(500) && std::time::Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(20));
        let now = look();
        if now != seen.0 {
            seen = (now, std::time::Instant::now());
        }
    }
    seen.0
}
