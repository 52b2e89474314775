//! The life of a process while it serves: one supervisor owns signals, control socket and successor, and does one thing at a time.

use std::sync::Arc;
use std::time::Duration;

use accept::Change;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tracing::{error, info, warn};

use super::control::{Control, Errand, Inbox, Request, Taker};
use super::former::Former;
use super::life::Life;
use super::successor::{self, Successor};
use super::watchdog::Watchdog;
use super::wire::{Answer, Offer};
use super::{Fault, reload, signals, systemd};

/// What a process does, as its supervisor sees it.
pub trait Work: Send + Sync + 'static {
    /// A configuration that can be put in force. Dropped, nothing has happened.
    type Prepared: Send;

    /// Does everything that can fail about another configuration, and nothing that anybody could notice.
    ///
    /// # Errors
    /// The first that fails.
    fn prepare(
        &self,
        config: conf::Config,
        change: &mut Change,
    ) -> impl Future<Output = Result<Self::Prepared, Fault>> + Send;

    /// Puts it in force; the change is committed. When this returns, whoever asks is served with it.
    fn commit(&self, prepared: Self::Prepared) -> impl Future<Output = ()> + Send;

    /// A reload came to nothing before anything was prepared.
    fn refused(&self) {}

    /// Another process serves the same sockets now; the word to stop follows.
    fn handed_over(&self);

    /// Returns once everything that serves has answered.
    ///
    /// # Errors
    /// What does not answer within `patience`.
    fn answers(&self, patience: Duration) -> impl Future<Output = Result<(), String>> + Send;
}

/// What serves, and ends by itself when told to stop.
type Serving = JoinHandle<Result<(), Fault>>;

/// Why the process does not go on as it did.
enum End {
    /// Something that serves has ended unasked.
    Ended(Result<(), Fault>),
    /// A signal.
    Stopped,
    /// Another process goes on.
    HandedOver(u32, Option<oneshot::Sender<Answer>>),
}

impl Life {
    /// Serves until SIGTERM, SIGINT or a successor, then drains. Reloads, and lets itself be replaced, when asked by signal or over the
    /// control socket. `serve` begins to serve, and ends some time after the word to stop.
    ///
    /// # Errors
    /// What serving ended with.
    pub async fn serve<W, F>(
        mut self,
        work: W,
        serve: impl FnOnce(watch::Receiver<bool>) -> F,
    ) -> Result<(), Fault>
    where
        W: Work,
        F: Future<Output = Result<(), Fault>> + Send + 'static,
    {
        let work = Arc::new(work);
        let (stop, stopped) = watch::channel(false);
        let mut serving = tokio::spawn(serve(stopped));
        if let Some(former) = self.former.take() {
            self.take_over(former, &*work, &mut serving).await?;
        }
        systemd::notify_ready();
        let watchdog = Watchdog::start(&work);
        let listener = self.control_socket.take().map(accept::BoundSocket::into_listener).transpose();
        let listener = listener.map_err(|error| Fault::of(&error))?;
        let (control, mut inbox) = Control::serve(listener, self.files.absolute());

        let outcome = match self.supervise(&*work, &mut serving, &mut inbox).await {
            End::Ended(outcome) => outcome,
            End::Stopped => {
                info!("stopping, requests in flight are finished first");
                systemd::notify_stopping();
                self.sockets.close();
                stop.send_replace(true);
                self.drain(&mut serving, &mut inbox, false).await
            }
            End::HandedOver(pid, answer) => {
                info!(
                    successor = pid,
                    "another process has taken over, requests in flight are finished first"
                );
                // Whoever asks from now on asks the other.
                control.hand_over();
                drop(watchdog);
                work.handed_over();
                self.sockets.close();
                stop.send_replace(true);
                if let Some(answer) = answer {
                    let own = std::process::id();
                    let line = format!("process {pid} serves now; process {own} finishes its requests");
                    let _ = answer.send(Answer::done(vec![line]));
                }
                self.drain(&mut serving, &mut inbox, true).await
            }
        };
        drop(inbox);
        control.end().await;
        if outcome.is_ok() {
            info!("stopped");
        }
        outcome
    }

    /// Says to the former process that we serve, once we do.
    async fn take_over<W: Work>(
        &self,
        mut former: Former,
        work: &W,
        serving: &mut Serving,
    ) -> Result<(), Fault> {
        let fault = tokio::select! {
            ended = serving => match flat(ended) {
                Ok(()) => Fault::new("it ended before it was ready"),
                Err(fault) => fault,
            },
            answered = work.answers(FIRST_ANSWER) => match answered {
                Ok(()) => return former.hand_over(&self.sockets).await,
                Err(text) => Fault::new(text),
            },
        };
        former.give_up(&fault).await;
        Err(fault)
    }

    async fn supervise<W: Work>(&mut self, work: &W, serving: &mut Serving, inbox: &mut Inbox) -> End {
        loop {
            let mut stop = self.stop.clone();
            let next = tokio::select! {
                ended = &mut *serving => return End::Ended(flat(ended)),
                _ = stop.wait_for(|stop| *stop) => return End::Stopped,
                wish = self.wishes.next() => match wish {
                    signals::Wish::Reload => Next::Reload,
                    signals::Wish::Upgrade => Next::Upgrade,
                },
                Some(request) = inbox.requests.recv() => Next::Request(request),
                Some(taker) = inbox.takers.recv() => Next::Taker(taker),
            };
            let done = tokio::select! {
                ended = &mut *serving => return End::Ended(flat(ended)),
                _ = stop.wait_for(|stop| *stop) => return End::Stopped,
                done = self.go(next, work, inbox) => done,
            };
            let (successor, answer) = match done {
                Done::Nothing => continue,
                Done::Ready(successor, answer) => (*successor, answer),
            };
            // Nothing may come between: it is a matter of moments, and has a deadline.
            match successor.let_go(&self.sockets).await {
                Ok(pid) => return End::HandedOver(pid, answer),
                Err(fault) => not_replaced(&fault, answer),
            }
        }
    }

    async fn go<W: Work>(&mut self, next: Next, work: &W, inbox: &mut Inbox) -> Done {
        match next {
            Next::Reload => {
                reload::reload(work, &self.files, &self.sockets, &mut self.in_force).await;
            }
            Next::Request(Request { wish: Errand::Reload, answer }) => {
                let came = reload::reload(work, &self.files, &self.sockets, &mut self.in_force).await;
                // Nobody listens: whoever asked has given up.
                let _ = answer.send(came);
            }
            Next::Request(Request { wish: Errand::Upgrade, answer }) => {
                systemd::notify_reloading();
                match self.start_successor(inbox).await {
                    Ok(successor) => return Done::Ready(Box::new(successor), Some(answer)),
                    Err(fault) => not_replaced(&fault, Some(answer)),
                }
            }
            Next::Upgrade => {
                systemd::notify_reloading();
                match self.start_successor(inbox).await {
                    Ok(successor) => return Done::Ready(Box::new(successor), None),
                    Err(fault) => not_replaced(&fault, None),
                }
            }
            Next::Taker(taker) => {
                systemd::notify_reloading();
                info!(pid = taker.pid, "another process wants to take over");
                let deadline = Instant::now() + successor::DEADLINE;
                match successor::offer(taker, &self.sockets, deadline).await {
                    Ok(successor) => return Done::Ready(Box::new(successor), None),
                    Err(fault) => not_replaced(&fault, None),
                }
            }
        }
        Done::Nothing
    }

    async fn start_successor(&self, inbox: &mut Inbox) -> Result<Successor, Fault> {
        if std::process::id() == 1 {
            return Err(Fault::new(
                "this is the first process of its container, which ends with it: start another container instead",
            ));
        }
        let program = self.program.as_ref().ok_or_else(|| Fault::new("it is not known what was started"))?;
        let Some(conf::Bind::Socket { path, .. }) = &self.in_force.control else {
            return Err(Fault::new("there is no control socket for the next process"));
        };
        let control = std::path::absolute(path).map_err(|error| Fault::of(&error))?;
        successor::start(program, &control, &self.sockets, &mut inbox.takers).await
    }

    /// Waits for the end of the drain; whatever else is asked for is refused.
    async fn drain(
        &mut self,
        serving: &mut Serving,
        inbox: &mut Inbox,
        elsewhere: bool,
    ) -> Result<(), Fault> {
        const ENDS: &str = "this process finishes its last requests, it does nothing new";
        loop {
            tokio::select! {
                ended = &mut *serving => return flat(ended),
                Some(request) = inbox.requests.recv() => {
                    let answer = Answer { elsewhere, ..Answer::failed(&Fault::new(ENDS), None) };
                    let _ = request.answer.send(answer);
                }
                Some(mut taker) = inbox.takers.recv() => {
                    let _ = taker.wire.send(&Offer::Refused(ENDS.to_owned())).await;
                }
                _ = self.wishes.next() => warn!("signal: {ENDS}"),
            }
        }
    }
}

/// Something to do.
enum Next {
    Reload,
    Upgrade,
    Request(Request),
    Taker(Taker),
}

/// What came of it.
enum Done {
    Nothing,
    Ready(Box<Successor>, Option<oneshot::Sender<Answer>>),
}

/// Goes on as if nothing had happened, but for what is said.
fn not_replaced(fault: &Fault, answer: Option<oneshot::Sender<Answer>>) {
    systemd::notify_ready();
    error!(error = fault.text, "not replaced, this process goes on");
    if let Some(answer) = answer {
        let _ = answer.send(Answer::failed(fault, Some("not upgraded, the running process goes on")));
    }
}

/// How long all that serves may take to begin.
const FIRST_ANSWER: Duration = Duration::from_secs(30);

fn flat(ended: Result<Result<(), Fault>, tokio::task::JoinError>) -> Result<(), Fault> {
    ended.unwrap_or_else(|error| Err(Fault::of(&error)))
}
