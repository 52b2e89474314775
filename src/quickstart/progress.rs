//! What the quickstart says while it prepares: one line a step, kept alive on a terminal.

use std::io::{IsTerminal, Write, stderr};
use std::time::{Duration, Instant};

/// On a pipe a running step says so again after this long.
const REMINDER: Duration = Duration::from_secs(15);

/// The steps of one start, counted.
pub(super) struct Progress {
    total: usize,
    current: usize,
    terminal: bool,
}

/// One step under way; finish it with [`Step::done`].
pub(super) struct Step<'a> {
    progress: &'a mut Progress,
    name: String,
    started: Instant,
    reminded: Instant,
}

impl Progress {
    pub(super) fn new(total: usize) -> Self {
        Self { total, current: 0, terminal: stderr().is_terminal() }
    }

    /// Begins the next step.
    pub(super) fn step(&mut self, name: impl Into<String>) -> Step<'_> {
        self.current += 1;
        let now = Instant::now();
        let step = Step { progress: self, name: name.into(), started: now, reminded: now };
        if step.progress.terminal {
            step.print("…", false);
        }
        step
    }
}

impl Step<'_> {
    /// Says that the step goes on, and with what.
    pub(super) fn tick(&mut self, detail: &str) {
        if self.progress.terminal {
            self.print(&format!("{detail} ({} s)", self.started.elapsed().as_secs()), false);
        } else if self.reminded.elapsed() >= REMINDER {
            self.reminded = Instant::now();
            self.print(&format!("{detail} ({} s)", self.started.elapsed().as_secs()), true);
        }
    }

    /// Prints a text of several lines in between.
    pub(super) fn say(&mut self, text: &str) {
        if self.progress.terminal {
            self.print("", true);
        }
        let _ = writeln!(stderr(), "\n{text}");
    }

    /// Ends the step with what came of it.
    pub(super) fn done(self, outcome: &str) {
        let elapsed = self.started.elapsed();
        if elapsed >= Duration::from_secs(1) {
            self.print(&format!("{outcome} ({:.1} s)", elapsed.as_secs_f64()), true);
        } else {
            self.print(outcome, true);
        }
    }

    fn print(&self, text: &str, end: bool) {
        let mut out = stderr().lock();
        let (start, end) = match (self.progress.terminal, end) {
            (true, true) => ("\r\x1b[2K", "\n"),
            (true, false) => ("\r\x1b[2K", ""),
            (false, _) => ("", "\n"),
        };
        // Losing a progress line (a closed terminal) is no reason to stop.
        let _ = write!(
            out,
            "{start}[{}/{}] {:<13} {text}{end}",
            self.progress.current, self.progress.total, self.name
        );
        let _ = out.flush();
    }
}
