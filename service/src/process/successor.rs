//! The process that replaces this one, from this one's side. Until it says that it serves, it may fail in any way without anybody
//! noticing; then there is a moment in which neither may, and it is short.

use std::path::Path;
use std::time::Duration;

use accept::Sockets;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout};
use tracing::info;

use super::control::Taker;
use super::program::{Program, Started};
use super::wire::{Offer, PROMPT, Verdict, WireError, Word};
use super::{Fault, descriptors, systemd};

/// How long the next process may take from its start until it serves.
pub(super) const DEADLINE: Duration = Duration::from_secs(60);

/// A process that serves beside this one.
#[derive(Debug)]
pub(super) struct Successor {
    taker: Taker,
    started: Option<Started>,
}

/// Starts the executable at our path, and gives the sockets to whoever asks for them then. Dropped, it kills what it started.
///
/// # Errors
/// Why it does not serve, in its own words if it has some.
pub(super) async fn start(
    program: &Program,
    control: &Path,
    sockets: &Sockets,
    takers: &mut mpsc::Receiver<Taker>,
) -> Result<Successor, Fault> {
    let deadline = Instant::now() + DEADLINE;
    let path = program.path().display();
    let started = program.start(control);
    let mut started =
        started.map_err(|error| Fault::of(&error).within(&format!("{path} cannot be started")))?;
    info!(program = %path, pid = started.id(), "the next process is started");
    tokio::select! {
        // Who has said why it fails and ended is heard first.
        biased;
        Some(taker) = takers.recv() => match offer(taker, sockets, deadline).await {
            Ok(Successor { taker, .. }) => Ok(Successor { taker, started: Some(started) }),
            Err(fault) => Err(with_end(fault, &mut started).await),
        },
        ended = started.ended() => Err(match ended {
            Ok(status) if status.code() == Some(super::EXIT_CONFIG.into()) => {
                Fault::configuration("the new process refuses its configuration; its log says why")
            }
            Ok(status) => Fault::new(format!("the new process ended before it was ready, {status}; its log says why")),
            Err(error) => Fault::of(&error),
        }),
        () = sleep_until(deadline) => Err(late()),
    }
}

/// Gives the sockets to a process, and waits until it serves.
///
/// # Errors
/// Why it does not.
pub(super) async fn offer(
    mut taker: Taker,
    sockets: &Sockets,
    deadline: Instant,
) -> Result<Successor, Fault> {
    let passed =
        sockets.offer().map_err(|error| Fault::of(&error).within("the sockets cannot be passed on"))?;
    let (labels, all): (Vec<_>, Vec<_>) =
        passed.into_iter().map(|passed| (passed.label, passed.descriptor)).unzip();
    taker.wire.send(&Offer::Sockets(labels)).await.map_err(gone)?;
    match taker.wire.receive(PROMPT).await.map_err(gone)? {
        Word::Send => {}
        Word::Failed(fault) => return Err(fault),
        Word::Ready | Word::Owned => return Err(out_of_turn()),
    }
    let sent = timeout(PROMPT, descriptors::send(taker.wire.stream(), &all)).await;
    sent.unwrap_or_else(|late| Err(late.into()))
        .map_err(|error| Fault::of(&error).within("the sockets cannot be passed on"))?;
    drop(all);
    let patience = deadline.saturating_duration_since(Instant::now());
    match taker.wire.receive(patience).await {
        Ok(Word::Ready) => Ok(Successor { taker, started: None }),
        Ok(Word::Failed(fault)) => Err(fault),
        Ok(Word::Send | Word::Owned) => Err(out_of_turn()),
        Err(WireError::Late(_)) => Err(late()),
        Err(error) => Err(gone(error)),
    }
}

impl Successor {
    /// Lets go of everything in its favour; its number. Not to be dropped half-way: it ends by itself within some seconds.
    ///
    /// # Errors
    /// When it is gone after all. Everything is ours again then.
    pub(super) async fn let_go(mut self, sockets: &Sockets) -> Result<u32, Fault> {
        let pid = self.taker.pid;
        // Before it says that it is ready, which systemd believes the main process only.
        systemd::notify_main_process(pid);
        sockets.release();
        let wire = &mut self.taker.wire;
        let owned = async {
            wire.send(&Verdict::Go).await?;
            wire.receive(PROMPT).await
        };
        let fault = match owned.await {
            Ok(Word::Owned) => {
                if let Some(started) = self.started.take() {
                    started.keep();
                }
                return Ok(pid);
            }
            Ok(Word::Send | Word::Ready | Word::Failed(_)) => out_of_turn(),
            Err(error) => gone(error),
        };
        sockets.own();
        systemd::notify_main_process(std::process::id());
        match &mut self.started {
            Some(started) => Err(with_end(fault, started).await),
            None => Err(fault),
        }
    }
}

/// What became of the process that was started, if it ends now.
async fn with_end(fault: Fault, started: &mut Started) -> Fault {
    match timeout(LAST_BREATH, started.ended()).await {
        // Its own words say it better.
        Ok(Ok(status)) if fault.text == GONE => Fault {
            text: format!("the new process ended before it was ready, {status}; its log says why"),
            ..fault
        },
        Ok(_) | Err(_) => fault,
    }
}

fn gone(error: WireError) -> Fault {
    match error {
        WireError::Closed => Fault::new(GONE),
        error => Fault::of(&error).within("the new process"),
    }
}

fn late() -> Fault {
    Fault::new(format!("the new process was not ready within {} s", DEADLINE.as_secs()))
}

fn out_of_turn() -> Fault {
    Fault::new("the new process speaks out of turn")
}

const GONE: &str = "the new process went away before it was ready";
/// For a process that has said its last word.
const LAST_BREATH: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileTypeExt as _;

    use tokio::net::UnixStream;

    use super::super::wire::Wire;
    use super::*;

    /// Time flies while nothing happens.
    #[tokio::test(start_paused = true)]
    async fn who_never_comes_is_killed_at_the_deadline() {
        let (_sender, mut takers) = mpsc::channel(1);
        let program = Program::of("/bin/sleep", &["12345"]);
        let began = Instant::now();
        let started = start(&program, Path::new("/nowhere"), &Sockets::default(), &mut takers).await;
        assert_eq!(started.unwrap_err().text, "the new process was not ready within 60 s");
        assert_eq!(began.elapsed(), DEADLINE);
        let is_left = || {
            let processes = std::fs::read_dir("/proc").unwrap().map_while(Result::ok);
            let mut lines =
                processes.filter_map(|process| std::fs::read(process.path().join("cmdline")).ok());
            lines.any(|line| line == b"/bin/sleep\x0012345\0")
        };
        while is_left() {
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_has_the_sockets_and_never_serves_is_given_up_at_the_deadline() {
        let (one, two) = UnixStream::pair().unwrap();
        let mut silent = Wire::new(two);
        let deadline = Instant::now() + DEADLINE;
        let takes = async {
            let Offer::Sockets(labels) = silent.receive(PROMPT).await.unwrap() else { panic!("refused") };
            silent.send(&Word::Send).await.unwrap();
            descriptors::receive(silent.stream(), labels.len()).await.unwrap()
        };
        let sockets = Sockets::default();
        let mut change = sockets.change();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        change.bind("web", &conf::Bind::Socket { path: path.clone(), mode: None }, 1).await.unwrap();
        change.commit();
        let taker = Taker { wire: Wire::new(one), pid: 1 };
        let (offered, taken) = tokio::join!(offer(taker, &sockets, deadline), takes);
        assert_eq!(offered.unwrap_err().text, "the new process was not ready within 60 s");
        drop(taken);
        assert!(std::fs::metadata(path).unwrap().file_type().is_socket(), "it is ours as before");
    }
}
