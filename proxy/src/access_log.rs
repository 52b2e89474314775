//! One line per request, written by a thread of its own: a request only appends to its worker's buffer, which is
//! bounded; what does not fit is dropped and counted. Rotation needs no signal: a file that was moved away is noticed, and a
//! reload opens it again in any case.

mod line;
mod redact;

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use conf::{AccessLogFormat, AccessLogTarget};

pub(crate) use line::Entry;

/// An open log. What was written to it is in its target some time after the last of its handles is gone; [`Logs::finish`]
/// waits for that.
#[derive(Debug)]
pub(crate) struct AccessLog {
    config: conf::AccessLog,
    lifeline: Arc<Lifeline>,
}

/// One worker's way to a log.
#[derive(Debug, Clone)]
pub(crate) struct LogHandle {
    lifeline: Arc<Lifeline>,
    worker: usize,
}

/// The access logs of an edge, one after the other; those of old configurations end with their last request.
#[derive(Debug, Default)]
pub(crate) struct Logs {
    dropped: Arc<AtomicU64>,
    writers: Mutex<Vec<JoinHandle<()>>>,
}

/// A target that was opened for a log that is at work.
#[derive(Debug)]
pub(crate) struct Reopened(Target);

/// Lets the writer end when nobody can write any more.
#[derive(Debug)]
struct Lifeline(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    format: AccessLogFormat,
    /// One per worker, so that nobody waits for another.
    buffers: Vec<Mutex<Vec<u8>>>,
    /// To be written to from now on.
    next: Mutex<Option<Target>>,
    has_lines: Mutex<bool>,
    wakes: Condvar,
    stops: AtomicBool,
    dropped: Arc<AtomicU64>,
}

impl Logs {
    /// Opens the target and starts a writer.
    ///
    /// # Errors
    /// When the file cannot be opened or the thread cannot be started.
    pub(crate) fn open(&self, config: &conf::AccessLog, workers: usize) -> io::Result<AccessLog> {
        let target = Target::open(&config.target)?;
        let shared = Arc::new(Shared {
            format: config.format,
            buffers: (0..workers).map(|_| Mutex::default()).collect(),
            next: Mutex::default(),
            has_lines: Mutex::new(false),
            wakes: Condvar::new(),
            stops: AtomicBool::new(false),
            dropped: self.dropped.clone(),
        });
        let writing = shared.clone();
        let writer =
            std::thread::Builder::new().name("access-log".into()).spawn(move || writing.run(target))?;
        let mut writers = self.writers.lock().unwrap_or_else(PoisonError::into_inner);
        writers.retain(|writer| !writer.is_finished());
        writers.push(writer);
        Ok(AccessLog { config: config.clone(), lifeline: Arc::new(Lifeline(shared)) })
    }

    /// Lines that found no room, or could not be written.
    pub(crate) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Blocks until everything is written, for which all handles have to be gone; at most so long.
    pub(crate) fn finish(&self, deadline: Duration) {
        let until = Instant::now() + deadline;
        let writers = std::mem::take(&mut *self.writers.lock().unwrap_or_else(PoisonError::into_inner));
        while !writers.iter().all(JoinHandle::is_finished) && Instant::now() < until {
            std::thread::sleep(STEP);
        }
    }
}

impl AccessLog {
    /// The handle of a worker.
    pub(crate) fn handle(&self, worker: usize) -> LogHandle {
        LogHandle { lifeline: self.lifeline.clone(), worker }
    }

    /// Whether this log is what a configuration asks for.
    pub(crate) fn is_for(&self, config: &conf::AccessLog) -> bool {
        self.config == *config
    }

    /// Opens the target again, which finds out whether that can be done; nothing is written to it yet.
    ///
    /// # Errors
    /// When the file cannot be opened.
    pub(crate) fn reopen(&self) -> io::Result<Reopened> {
        Target::open(&self.config.target).map(Reopened)
    }

    /// Writes to the target that was opened again.
    pub(crate) fn switch(&self, Reopened(target): Reopened) {
        *self.lifeline.0.next.lock().unwrap_or_else(PoisonError::into_inner) = Some(target);
        self.lifeline.0.wake();
    }
}

impl Drop for Lifeline {
    fn drop(&mut self) {
        self.0.stops.store(true, Ordering::Release);
        self.0.wake();
    }
}

impl LogHandle {
    /// Appends a line. Never blocks on input or output.
    pub(crate) fn write(&self, entry: &Entry<'_>, time: SystemTime) {
        let shared = &*self.lifeline.0;
        let Some(buffer) = shared.buffers.get(self.worker) else { return };
        let was_empty = {
            let mut buffer = buffer.lock().unwrap_or_else(PoisonError::into_inner);
            if buffer.len() >= BUFFER_BYTES {
                shared.dropped.fetch_add(1, Ordering::Relaxed);
                return;
            }
            let was_empty = buffer.is_empty();
            match shared.format {
                AccessLogFormat::Json => line::json(entry, time, &mut buffer),
                AccessLogFormat::Combined => line::combined(entry, time, &mut buffer),
            }
            was_empty
        };
        if was_empty {
            shared.wake();
        }
    }
}

impl Shared {
    fn wake(&self) {
        *self.has_lines.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.wakes.notify_one();
    }

    /// The writer: sleeps without work, and collects for a moment before it writes.
    fn run(&self, mut target: Target) {
        let mut lines = Vec::new();
        loop {
            let mut has_lines = self.has_lines.lock().unwrap_or_else(PoisonError::into_inner);
            while !*has_lines {
                has_lines = self.wakes.wait(has_lines).unwrap_or_else(PoisonError::into_inner);
            }
            *has_lines = false;
            drop(has_lines);
            let stops = self.stops.load(Ordering::Acquire);
            if !stops {
                std::thread::sleep(COLLECT);
            }
            if let Some(next) = self.next.lock().unwrap_or_else(PoisonError::into_inner).take() {
                target = next;
            }
            for buffer in &self.buffers {
                let mut taken = buffer.lock().unwrap_or_else(PoisonError::into_inner);
                std::mem::swap(&mut *taken, &mut lines);
                drop(taken);
                if let Err(error) = target.write(&lines) {
                    self.dropped.fetch_add(
                        lines.iter().filter(|byte| **byte == b'\n').count() as u64,
                        Ordering::Relaxed,
                    );
                    tracing::warn!(%error, "access log cannot be written");
                }
                lines.clear();
                lines.shrink_to(KEPT_BYTES);
            }
            if stops {
                return;
            }
        }
    }
}

/// Where lines go.
#[derive(Debug)]
enum Target {
    Stdout,
    File { path: PathBuf, file: File },
}

impl Target {
    fn open(target: &AccessLogTarget) -> io::Result<Self> {
        match target {
            AccessLogTarget::Stdout => Ok(Self::Stdout),
            AccessLogTarget::File(path) => Ok(Self::File { path: path.clone(), file: open(path)? }),
        }
    }

    fn write(&mut self, lines: &[u8]) -> io::Result<()> {
        if lines.is_empty() {
            return Ok(());
        }
        match self {
            Self::Stdout => {
                let mut stdout = io::stdout().lock();
                stdout.write_all(lines)?;
                stdout.flush()
            }
            Self::File { path, file } => {
                if is_moved(path, file) {
                    *file = open(path)?;
                }
                file.write_all(lines)
            }
        }
    }
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).open(path)
}

/// Whether the path leads to another file than the one that is open.
fn is_moved(path: &Path, file: &File) -> bool {
    match (std::fs::metadata(path), file.metadata()) {
        (Ok(now), Ok(open)) => now.ino() != open.ino() || now.dev() != open.dev(),
        (Err(_), _) | (_, Err(_)) => true,
    }
}

/// Of one worker: some thousand lines, a second or so under full load.
const BUFFER_BYTES: usize = 1024 * 1024;
/// Between two looks at writers that are about to end.
const STEP: Duration = Duration::from_millis(5);
/// Kept between two writes.
const KEPT_BYTES: usize = 64 * 1024;
/// Lines of this time are written together: a reader hardly notices, a wakeup per request would cost as much as the line.
const COLLECT: Duration = Duration::from_millis(50);

#[cfg(test)]
mod tests {
    use super::*;

    fn log(path: &Path) -> (Logs, AccessLog) {
        let config =
            conf::AccessLog { target: AccessLogTarget::File(path.to_owned()), format: AccessLogFormat::Json };
        let logs = Logs::default();
        let log = logs.open(&config, 2).unwrap();
        (logs, log)
    }

    fn lines(path: &Path) -> usize {
        let text = std::fs::read_to_string(path).unwrap();
        assert!(text.is_empty() || text.ends_with('\n'));
        text.lines().count()
    }

    #[test]
    fn nothing_is_lost_at_the_end() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("access.log");
        let (logs, log) = log(&path);
        for worker in 0..2 {
            log.handle(worker).write(&Entry::example(), SystemTime::UNIX_EPOCH);
        }
        drop(log);
        logs.finish(Duration::from_secs(60));
        assert_eq!(lines(&path), 2);
    }

    #[test]
    fn a_log_ends_with_its_last_handle() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("access.log");
        let (logs, log) = log(&path);
        let last = log.handle(0);
        drop(log);
        last.write(&Entry::example(), SystemTime::UNIX_EPOCH);
        drop(last);
        logs.finish(Duration::from_secs(60));
        assert_eq!(lines(&path), 1);
    }

    #[test]
    fn a_moved_file_is_made_anew() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("access.log");
        let (logs, log) = log(&path);
        std::fs::rename(&path, folder.path().join("access.log.1")).unwrap();
        log.handle(0).write(&Entry::example(), SystemTime::UNIX_EPOCH);
        drop(log);
        logs.finish(Duration::from_secs(60));
        assert_eq!(lines(&path), 1);
    }

    #[test]
    fn what_is_opened_again_gets_the_next_lines() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("access.log");
        let (logs, log) = log(&path);
        let moved = folder.path().join("access.log.1");
        std::fs::rename(&path, &moved).unwrap();
        let reopened = log.reopen().unwrap();
        log.switch(reopened);
        log.handle(0).write(&Entry::example(), SystemTime::UNIX_EPOCH);
        drop(log);
        logs.finish(Duration::from_secs(60));
        assert_eq!((lines(&path), lines(&moved)), (1, 0));
    }

    #[test]
    fn a_full_buffer_drops_and_counts() {
        let folder = tempfile::tempdir().unwrap();
        let (logs, log) = log(&folder.path().join("access.log"));
        *log.lifeline.0.buffers[0].lock().unwrap() = vec![b'\n'; BUFFER_BYTES];
        log.handle(0).write(&Entry::example(), SystemTime::UNIX_EPOCH);
        assert_eq!(logs.dropped(), 1);
    }
}
