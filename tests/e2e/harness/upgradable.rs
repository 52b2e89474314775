//! A `gatehouse` or `gatehouse-auth` whose executable is replaced while it runs, and all processes that take over from it.

use std::fs;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};

use super::gatehouse::{auth_binary, command};
use super::{Folder, Gatehouse, PATIENCE, Process, gatehouse_command, run_to_end};

/// The first process, and whichever serves now. All of them write to one log, and are killed when this is dropped.
pub(crate) struct Upgradable {
    pub(crate) gatehouse: Gatehouse,
    /// What is started, and started again.
    pub(crate) program: PathBuf,
    is_auth: bool,
    group: Pid,
    /// Number of the process that serves.
    pub(crate) serving: u32,
}

impl Upgradable {
    /// `gatehouse run` from an executable of its own.
    pub(crate) fn start(folder: &Folder, yaml: &str) -> Self {
        Self::start_with(folder, yaml, &[])
    }

    /// The same, with variables.
    pub(crate) fn start_with(folder: &Folder, yaml: &str, variables: &[(&str, &str)]) -> Self {
        let configuration = folder.write("gatehouse.yaml", yaml);
        let program = folder.join("gatehouse");
        put(Path::new(env!("CARGO_BIN_EXE_gatehouse")), &program);
        Self::run(program, configuration, false, &["run"], variables)
    }

    /// `gatehouse-auth` from an executable of its own.
    pub(crate) fn start_auth(folder: &Folder, yaml: &str) -> Self {
        let configuration = folder.write("auth.yaml", yaml);
        let program = folder.join("gatehouse-auth");
        put(auth_binary(), &program);
        Self::run(program, configuration, true, &[], &[])
    }

    fn run(
        program: PathBuf,
        configuration: PathBuf,
        is_auth: bool,
        arguments: &[&str],
        variables: &[(&str, &str)],
    ) -> Self {
        let mut command = command(&program);
        command.args(arguments).arg("-c").arg(&configuration).envs(variables.iter().copied());
        command.process_group(0);
        let process = Process::start("gatehouse", &mut command);
        let serving = process.id();
        let group = pid(serving);
        Self { gatehouse: Gatehouse { process, configuration }, program, is_auth, group, serving }
    }

    /// Puts a script in the place of the executable.
    pub(crate) fn replace_by_script(&self, script: &str) {
        use std::os::unix::fs::PermissionsExt as _;
        let next = self.program.with_extension("next");
        fs::write(&next, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&next, fs::Permissions::from_mode(0o755)).unwrap();
        fs::rename(next, &self.program).unwrap();
    }

    /// Puts the executable there again, as an installation of a new version does: another file by the same name.
    pub(crate) fn replace(&self) {
        let binary = if self.is_auth { auth_binary() } else { Path::new(env!("CARGO_BIN_EXE_gatehouse")) };
        put(binary, &self.program);
    }

    /// `gatehouse reload`, or `upgrade`, with the configuration of the running process.
    pub(crate) fn ask(&self, what: &str) -> Asked {
        self.ask_with(what, &self.gatehouse.configuration)
    }

    pub(crate) fn ask_with(&self, what: &str, configuration: &Path) -> Asked {
        let mut command = if self.is_auth { command(auth_binary()) } else { gatehouse_command() };
        Asked::from(run_to_end(command.arg(what).arg("-c").arg(configuration), ""))
    }

    /// `gatehouse upgrade`, which has to work; the number of the process that serves now.
    pub(crate) fn upgrade(&mut self) -> u32 {
        let asked = self.ask("upgrade");
        assert_eq!(asked.code, Some(0), "{}\n{}", asked.text, self.gatehouse.process.log());
        let words: Vec<&str> = asked.text.split_whitespace().collect();
        let ["process", new, "serves", "now;", "process", old, ..] = words.as_slice() else {
            panic!("{}", asked.text)
        };
        assert_eq!(old.parse(), Ok(self.serving), "{}", asked.text);
        self.serving = new.parse().unwrap();
        self.serving
    }

    /// SIGTERM to the process that serves; waits until it is gone, having said that all went well.
    pub(crate) fn stop(&mut self) {
        kill_process(pid(self.serving), Signal::TERM).unwrap();
        self.wait_until_gone(self.serving);
    }

    /// Waits for the end of one of the processes.
    pub(crate) fn wait_until_gone(&mut self, number: u32) {
        if number == self.gatehouse.process.id() {
            assert_eq!(self.gatehouse.process.wait().code(), Some(0), "{}", self.gatehouse.process.log());
            return;
        }
        let deadline = Instant::now() + PATIENCE;
        while is_alive(number) {
            assert!(Instant::now() < deadline, "{number} does not end:\n{}", self.gatehouse.process.log());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// How many lines of the log have this in them.
    pub(crate) fn lines_with(&self, text: &str) -> usize {
        self.gatehouse.process.log().lines().filter(|line| line.contains(text)).count()
    }
}

impl Drop for Upgradable {
    fn drop(&mut self) {
        // An error means that all of them have ended.
        let _ = kill_process_group(self.group, Signal::KILL);
    }
}

/// What a command said.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) code: Option<i32>,
    /// Both outputs.
    pub(crate) text: String,
}

impl From<Output> for Asked {
    fn from(output: Output) -> Self {
        let text = [output.stdout, output.stderr].concat();
        Self { code: output.status.code(), text: String::from_utf8_lossy(&text).into_owned() }
    }
}

/// Whether a process lives; one that nobody has waited for does not.
pub(crate) fn is_alive(number: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{number}/stat")).unwrap_or_default();
    stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().next()).is_some_and(|state| state != "Z")
}

pub(crate) fn pid(number: u32) -> Pid {
    Pid::from_raw(number.try_into().unwrap()).unwrap()
}

/// The contents of `from` under the name of `to`, which was another file's or nobody's.
fn put(from: &Path, to: &Path) {
    let _ = fs::remove_file(to);
    if fs::hard_link(from, to).is_err() {
        fs::copy(from, to).unwrap();
    }
}
