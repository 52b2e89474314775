//! The control socket: what other processes of the same user ask of this one. It understands and hands on; what is asked for is done
//! by the supervisor, one thing at a time.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use accept::{Listener, Stream};
use tokio::net::UnixStream;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::timeout;
use tracing::{debug, warn};

use super::Fault;
use super::wire::{Answer, Ask, Hello, Offer, PROMPT, PROTOCOL, Wire, WireError, Wish};

/// Something to do, and where its end is waited for.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) wish: Errand,
    pub(super) answer: oneshot::Sender<Answer>,
}

/// What somebody waits for the end of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Errand {
    Reload,
    Upgrade,
}

/// A process that wants to take over.
#[derive(Debug)]
pub(super) struct Taker {
    pub(super) wire: Wire,
    pub(super) pid: u32,
}

/// What comes in.
#[derive(Debug)]
pub(super) struct Inbox {
    pub(super) requests: mpsc::Receiver<Request>,
    pub(super) takers: mpsc::Receiver<Taker>,
}

/// The accept loop.
#[derive(Debug)]
pub(super) struct Control {
    stop: watch::Sender<bool>,
    has_successor: Arc<AtomicBool>,
    task: JoinHandle<()>,
}

impl Control {
    /// Begins to serve the socket, if there is one; without it nothing ever comes in.
    pub(super) fn serve(listener: Option<Listener>, files: Vec<PathBuf>) -> (Self, Inbox) {
        let hello = Hello {
            gatehouse: env!("CARGO_PKG_VERSION").to_owned(),
            protocol: PROTOCOL,
            pid: std::process::id(),
            files,
        };
        let (requests, asked) = mpsc::channel(MOST_WAITING);
        let (takers, taking) = mpsc::channel(1);
        let (stop, stopped) = watch::channel(false);
        let has_successor = Arc::new(AtomicBool::new(false));
        let desk = Desk { hello, requests, takers, has_successor: has_successor.clone() };
        let task = tokio::spawn(async move {
            match listener {
                Some(listener) => accept(listener, desk, stopped).await,
                // The channels stay open.
                None => wait(stopped).await,
            }
        });
        (Self { stop, has_successor, task }, Inbox { requests: asked, takers: taking })
    }

    /// Closes the socket, which another process has too: those who are connected are sent to that one.
    pub(super) fn hand_over(&self) {
        self.has_successor.store(true, Ordering::Relaxed);
        self.stop.send_replace(true);
    }

    /// Closes the socket, and waits until everybody who is connected has heard an answer, a few seconds at most.
    pub(super) async fn end(self) {
        self.stop.send_replace(true);
        let mut task = self.task;
        if timeout(GOODBYE, &mut task).await.is_err() {
            task.abort();
        }
    }
}

/// What every connection needs.
#[derive(Debug, Clone)]
struct Desk {
    hello: Hello,
    requests: mpsc::Sender<Request>,
    takers: mpsc::Sender<Taker>,
    /// Whether another process has the socket.
    has_successor: Arc<AtomicBool>,
}

async fn wait(mut stop: watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}

async fn accept(listener: Listener, desk: Desk, mut stop: watch::Receiver<bool>) {
    let mut open = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            _ = stop.wait_for(|stop| *stop) => break,
            Some(_) = open.join_next() => continue,
            accepted = listener.accept(), if open.len() < MOST_OPEN => accepted,
        };
        match accepted {
            Ok((Stream::Unix(stream), _)) => {
                let desk = desk.clone();
                open.spawn(async move {
                    if let Err(error) = connection(stream, desk).await {
                        debug!(%error, "control connection");
                    }
                });
            }
            Ok((Stream::Tcp(_), _)) => {}
            Err(error) => {
                warn!(%error, "the control socket cannot accept, trying again");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
    drop((listener, desk));
    open.join_all().await;
}

async fn connection(stream: UnixStream, desk: Desk) -> Result<(), WireError> {
    let peer = stream.peer_cred()?;
    let own = rustix::process::geteuid().as_raw();
    // The superuser could signal us, and do everything else.
    let is_root = peer.uid() == 0;
    if peer.uid() != own && !is_root {
        warn!(uid = peer.uid(), "somebody else's process is not answered");
        return Ok(());
    }
    let mut wire = Wire::new(stream);
    wire.send(&desk.hello).await?;
    let Ask { protocol, ask } = wire.receive(PROMPT).await?;
    if protocol != PROTOCOL {
        let text = format!("this process speaks version {PROTOCOL} of the control protocol, not {protocol}");
        return refuse(&mut wire, ask, text).await;
    }
    let errand = match ask {
        Wish::Reload => Errand::Reload,
        Wish::Upgrade => Errand::Upgrade,
        Wish::TakeOver => {
            if peer.uid() != own {
                let text = format!("the process runs as user {own}; start the next one as the same user");
                return refuse(&mut wire, ask, text).await;
            }
            let pid = peer.pid().and_then(|pid| u32::try_from(pid).ok()).unwrap_or_default();
            let taker = Taker { wire, pid };
            return match desk.takers.try_send(taker) {
                Ok(()) => Ok(()),
                Err(error) => refuse(&mut error.into_inner().wire, ask, BUSY.to_owned()).await,
            };
        }
    };
    let (answer, answered) = oneshot::channel();
    if desk.requests.try_send(Request { wish: errand, answer }).is_err() {
        return refuse(&mut wire, ask, BUSY.to_owned()).await;
    }
    let answer = match timeout(LONGEST, answered).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(_)) => {
            let elsewhere = desk.has_successor.load(Ordering::Relaxed);
            Answer { elsewhere, ..failed("the process is about to end".to_owned()) }
        }
        Err(_) => failed(format!("nothing came of it within {} s", LONGEST.as_secs())),
    };
    wire.send(&answer).await
}

async fn refuse(wire: &mut Wire, ask: Wish, text: String) -> Result<(), WireError> {
    match ask {
        Wish::Reload | Wish::Upgrade => wire.send(&failed(text)).await,
        Wish::TakeOver => wire.send(&Offer::Refused(text)).await,
    }
}

fn failed(text: String) -> Answer {
    Answer::failed(&Fault::new(text), None)
}

/// Errands that wait for the one before them.
const MOST_WAITING: usize = 16;
/// Connections that are served; others wait in the queue of the socket.
const MOST_OPEN: usize = 32;
/// Longer than an upgrade may take while another is under way.
pub(super) const LONGEST: Duration = Duration::from_secs(150);
/// For the last answers of a process that ends.
const GOODBYE: Duration = Duration::from_secs(5);
/// When descriptors are short.
const PAUSE: Duration = Duration::from_millis(200);
const BUSY: &str = "too much is waiting already; try again";
