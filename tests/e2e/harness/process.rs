//! A child process whose output can be waited for.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::PATIENCE;

/// How often an exit is looked for; the system offers no wait with a deadline.
const POLL: Duration = Duration::from_millis(10);

/// Lines that were printed so far.
#[derive(Default)]
struct Lines {
    lines: Mutex<(Vec<String>, bool)>,
    news: Condvar,
}

/// A running child; killed when dropped.
pub(crate) struct Process {
    name: String,
    child: Child,
    output: Arc<Lines>,
}

impl Process {
    /// Starts `command` and collects the lines of its standard error and standard output.
    pub(crate) fn start(name: &str, command: &mut Command) -> Self {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {name}: {error}"));
        let output = Arc::new(Lines::default());
        collect(child.stderr.take().unwrap(), Arc::clone(&output));
        collect(child.stdout.take().unwrap(), Arc::clone(&output));
        Self { name: name.to_owned(), child, output }
    }

    /// Waits for a line that `found` makes something of.
    pub(crate) fn wait_for<T>(&mut self, what: &str, found: impl Fn(&str) -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let state = self.output.lines.lock().unwrap();
            if let Some(value) = state.0.iter().find_map(|line| found(line)) {
                return value;
            }
            let ended = state.1;
            let _ = self.output.news.wait_timeout(state, Duration::from_millis(200)).unwrap();
            if ended || Instant::now() > deadline {
                panic!("{} never printed {what}; its output:\n{}", self.name, self.log());
            }
        }
    }

    /// Everything printed so far.
    pub(crate) fn log(&self) -> String {
        self.output.lines.lock().unwrap().0.join("\n")
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Resident memory in bytes, from `/proc`.
    pub(crate) fn resident_bytes(&self) -> u64 {
        self.memory("VmRSS:")
    }

    /// The most memory that was ever resident, in bytes.
    pub(crate) fn peak_bytes(&self) -> u64 {
        self.memory("VmHWM:")
    }

    fn memory(&self, name: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("Linux always says");
        line.split_whitespace().next().unwrap().parse::<u64>().unwrap() * 1024
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.id().try_into().unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Waits for the end.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < deadline, "{} does not end; its output:\n{}", self.name, self.log());
            std::thread::sleep(POLL);
        }
    }

    /// SIGTERM, then the end.
    pub(crate) fn stop(&mut self) -> ExitStatus {
        self.signal(Signal::TERM);
        self.wait()
    }

    /// SIGKILL, then the end.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("---- {} ----\n{}", self.name, self.log());
        }
    }
}

fn collect(from: impl Read + Send + 'static, into: Arc<Lines>) {
    std::thread::spawn(move || {
        for line in BufReader::new(from).split(b'\n').map_while(Result::ok) {
            into.lines.lock().unwrap().0.push(String::from_utf8_lossy(&line).into_owned());
            into.news.notify_all();
        }
        into.lines.lock().unwrap().1 = true;
        into.news.notify_all();
    });
}

/// Runs a command that ends by itself, with `input` on its standard input.
pub(crate) fn run_to_end(command: &mut Command, input: &str) -> Output {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"));
    // A program that does not read its input is allowed to close it.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    let (sender, receiver) = sync_channel(1);
    let id = child.id();
    std::thread::spawn(move || sender.send(child.wait_with_output()));
    match receiver.recv_timeout(PATIENCE * 5) {
        Ok(output) => output.unwrap(),
        Err(_) => {
            let pid = Pid::from_raw(id.try_into().unwrap()).unwrap();
            let _ = kill_process(pid, Signal::KILL);
            panic!("{command:?} does not end");
        }
    }
}
