//! What the clients saw, and whether the access logs agree with them.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use regex::Regex;

use super::configurations::Configuration;

/// Shared by all clients.
pub(super) struct Ledger {
    next: AtomicU64,
    inner: Mutex<Inner>,
    stops: AtomicBool,
    /// Of each upgrade, when it was asked for and when it was done.
    upgrades: Mutex<Vec<(Instant, Instant)>>,
    began: Instant,
    /// How long a process that hands over goes on serving what is open.
    pub(super) drain: Duration,
}

#[derive(Default)]
struct Inner {
    /// By kind of client.
    kinds: BTreeMap<&'static str, Counts>,
    failures: Vec<String>,
    /// Numbers of the requests that were answered, with the configuration that answered when the answer tells.
    answered: HashMap<u64, Option<Configuration>>,
}

/// What became of the requests of one kind of client.
#[derive(Debug, Default, Clone)]
pub(super) struct Counts {
    pub(super) done: u64,
    pub(super) failed: u64,
    /// The server had closed the connection while it was idle, before the client wanted to send: no harm.
    pub(super) closed_idle: u64,
    /// Sent on a connection that was open, and closed without a byte of an answer: a race that HTTP/1.1 allows for
    /// (RFC 9112 §9.3.1), and that a client has to repair.
    pub(super) repeated: u64,
    /// The longest that one took, in milliseconds.
    pub(super) slowest: u64,
}

impl Ledger {
    pub(super) fn new(drain: Duration) -> Self {
        Self {
            next: AtomicU64::new(1),
            inner: Mutex::default(),
            stops: AtomicBool::new(false),
            upgrades: Mutex::default(),
            began: Instant::now(),
            drain,
        }
    }

    /// A number for a request that has not been sent before.
    pub(super) fn number(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    pub(super) fn done(&self, kind: &'static str, number: u64, by: Option<Configuration>, took: Duration) {
        let mut inner = self.inner.lock().unwrap();
        let took = u64::try_from(took.as_millis()).unwrap();
        let counts = inner.kinds.entry(kind).or_default();
        counts.done += 1;
        counts.slowest = counts.slowest.max(took);
        inner.answered.insert(number, by);
    }

    /// A message of a connection that is not HTTP any more.
    pub(super) fn message(&self, kind: &'static str, took: Duration) {
        let mut inner = self.inner.lock().unwrap();
        let counts = inner.kinds.entry(kind).or_default();
        counts.done += 1;
        counts.slowest = counts.slowest.max(u64::try_from(took.as_millis()).unwrap());
    }

    pub(super) fn failed(&self, kind: &'static str, number: u64, why: &str) {
        let mut inner = self.inner.lock().unwrap();
        inner.kinds.entry(kind).or_default().failed += 1;
        let at = self.began.elapsed().as_secs_f32();
        inner.failures.push(format!("{at:.2} s, {kind}, request {number}: {why}"));
    }

    /// Something that is wrong without being one client's.
    pub(super) fn wrong(&self, why: &str) {
        let at = self.began.elapsed().as_secs_f32();
        self.inner.lock().unwrap().failures.push(format!("{at:.2} s: {why}"));
    }

    pub(super) fn closed_idle(&self, kind: &'static str) {
        self.inner.lock().unwrap().kinds.entry(kind).or_default().closed_idle += 1;
    }

    pub(super) fn repeated(&self, kind: &'static str) {
        self.inner.lock().unwrap().kinds.entry(kind).or_default().repeated += 1;
    }

    pub(super) fn stop(&self) {
        self.stops.store(true, Ordering::Relaxed);
    }

    pub(super) fn stops(&self) -> bool {
        self.stops.load(Ordering::Relaxed)
    }

    pub(super) fn note_upgrade(&self, asked: Instant, done: Instant) {
        self.upgrades.lock().unwrap().push((asked, done));
    }

    /// Whether a connection made at `since` may be cut off: its process has handed over, and the drain is at its end.
    pub(super) fn may_be_cut(&self, since: Instant) -> bool {
        // The old process still accepts while the new one gets ready, and then its deadline begins.
        let upgrades = self.upgrades.lock().unwrap();
        upgrades.iter().any(|(asked, done)| *done >= since && asked.elapsed() >= self.drain)
    }

    /// The counts and the failures.
    pub(super) fn take(&self) -> (BTreeMap<&'static str, Counts>, Vec<String>) {
        let mut inner = self.inner.lock().unwrap();
        (std::mem::take(&mut inner.kinds), std::mem::take(&mut inner.failures))
    }

    /// Holds the access logs of all configurations against what the clients got: one line for each request, in the log of
    /// the configuration that answered. How many lines there were.
    pub(super) fn check_logs(&self, folder: &Path) -> usize {
        let number = Regex::new(r"[?&]n=(\d+)").unwrap();
        let mut logged: HashMap<u64, Vec<Configuration>> = HashMap::new();
        let mut lines = 0;
        for configuration in Configuration::ALL {
            let log = std::fs::read_to_string(folder.join(configuration.log())).unwrap_or_default();
            for line in log.lines() {
                let Some(found) = number.captures(line) else { continue };
                lines += 1;
                logged.entry(found[1].parse().unwrap()).or_default().push(configuration);
            }
        }
        let mut inner = self.inner.lock().unwrap();
        let mut wrong = Vec::new();
        for (number, by) in &inner.answered {
            match (logged.get(number).map(Vec::as_slice), by) {
                (Some([log]), Some(by)) if log == by => {}
                (Some([_]), None) => {}
                (found, by) => wrong.push(format!(
                    "request {number} was answered by {by:?} and is in the logs of {:?}",
                    found.unwrap_or_default()
                )),
            }
        }
        inner.failures.extend(wrong);
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::harness::Folder;

    /// What is found wrong when the first request was answered by A, the second by nobody who says so, and the logs are these.
    fn check(log_of_a: &str, log_of_b: &str, wrong: usize) {
        let folder = Folder::new();
        folder.write(&Configuration::A.log(), log_of_a);
        folder.write(&Configuration::B.log(), log_of_b);
        let ledger = Ledger::new(Duration::ZERO);
        ledger.done("kept", 1, Some(Configuration::A), Duration::ZERO);
        ledger.done("kept", 2, None, Duration::ZERO);
        ledger.check_logs(folder.path());
        assert_eq!(ledger.take().1.len(), wrong, "{log_of_a:?} {log_of_b:?}");
    }

    #[test]
    fn each_request_has_one_line_in_the_right_log() {
        check("\"/which?n=1\"\n", "\"/poll?ms=5&n=2\"\n", 0);
        check("\"/which?n=1\"\n\"/poll?n=2\"\n", "", 0);
        check("", "\"/which?n=1\"\n\"/poll?n=2\"\n", 1);
        check("\"/which?n=1\"\n", "\"/which?n=1\"\n\"/poll?n=2\"\n", 1);
        check("\"/which?n=11\"\n", "\"/poll?n=22\"\n", 2);
    }
}
