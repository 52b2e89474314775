//! The sockets that are served, each with its own accept loop, and with what: what is replaced when another configuration is put in
//! force.
//!
//! A socket is known by its address. Its connections stay whatever is served on it next, and whatever its listener is called then.

use std::sync::Arc;

use accept::{BoundAddress, ConnectionLimits, Terms};
use tokio::sync::watch;
use tracing::info;

use super::{Prepared, connection, request::Context};
use crate::tasks::Task;

/// All sockets that are served.
#[derive(Debug)]
pub(crate) struct Lines {
    limits: Arc<ConnectionLimits>,
    served: Vec<Line>,
    stopped: bool,
}

/// One of them.
#[derive(Debug)]
struct Line {
    address: BoundAddress,
    terms: watch::Sender<Terms>,
    context: watch::Sender<Arc<Context>>,
    stop: watch::Sender<bool>,
}

impl Lines {
    /// None yet.
    pub(crate) fn new(limits: Arc<ConnectionLimits>) -> Self {
        Self { limits, served: Vec::new(), stopped: false }
    }

    /// Serves `next` from now on, and nothing else: sockets that are served already go on with what is new, those that are not among
    /// them accept no more, and their connections drain. Returns the work of new sockets. After [`Lines::stop`] nothing happens.
    pub(crate) fn serve(&mut self, next: Vec<Prepared>) -> Vec<Task> {
        if self.stopped {
            return Vec::new();
        }
        let mut before = std::mem::take(&mut self.served);
        let mut tasks = Vec::new();
        for prepared in next {
            match before.iter().position(|line| line.address == prepared.address) {
                Some(position) => {
                    let line = before.swap_remove(position);
                    line.terms.send_replace(prepared.terms);
                    line.context.send_replace(prepared.context);
                    self.served.push(line);
                }
                None => {
                    let (line, task) = self.begin(prepared);
                    self.served.push(line);
                    tasks.push(task);
                }
            }
        }
        for line in before {
            info!(listener = %line.terms.borrow().acceptor.listener, address = %line.address, "not listening any more");
            line.stop.send_replace(true);
        }
        tasks
    }

    /// Accepts no more, and drains; for good.
    pub(crate) fn stop(&mut self) {
        self.stopped = true;
        for line in self.served.drain(..) {
            line.stop.send_replace(true);
        }
    }

    fn begin(&self, prepared: Prepared) -> (Line, Task) {
        let Prepared { address, sockets, terms, context } = prepared;
        info!(listener = %terms.acceptor.listener, %address, "listening");
        let (terms, terms_now) = watch::channel(terms);
        let (context, context_now) = watch::channel(context);
        let (stop, stopping) = watch::channel(false);
        let handle = {
            let stopping = stopping.clone();
            move |io, accepted| connection::serve(io, accepted, context_now.clone(), stopping.clone())
        };
        let limits = self.limits.clone();
        let serving = accept::serve(sockets, terms_now, limits, stopping.clone(), handle);
        let task = Task::until("a listener", stopping, serving);
        (Line { address, terms, context, stop }, task)
    }
}
