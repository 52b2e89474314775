//! One line per request, written by a thread of its own: a request only appends to its worker's buffer, which is
//! bounded; what does not fit is dropped and counted. Rotation needs no signal: a file that was moved away is noticed.

mod line;
mod redact;

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use conf::{AccessLogFormat, AccessLogTarget};

pub(crate) use line::Entry;

/// The log of all workers. Dropped last, it writes what is left.
#[derive(Debug)]
pub(crate) struct AccessLog {
    shared: Arc<Shared>,
    writer: Option<JoinHandle<()>>,
}

/// One worker's way to the log.
#[derive(Debug, Clone)]
pub(crate) struct LogHandle {
    shared: Arc<Shared>,
    worker: usize,
}

#[derive(Debug)]
struct Shared {
    format: AccessLogFormat,
    /// One per worker, so that nobody waits for another.
    buffers: Vec<Mutex<Vec<u8>>>,
    has_lines: Mutex<bool>,
    wakes: Condvar,
    stops: AtomicBool,
    dropped: AtomicU64,
}

impl AccessLog {
    /// Opens the target and starts the writer.
    ///
    /// # Errors
    /// When the file cannot be opened or the thread cannot be started.
    pub(crate) fn open(config: &conf::AccessLog, workers: usize) -> io::Result<Self> {
        let target = Target::open(&config.target)?;
        let shared = Arc::new(Shared {
            format: config.format,
            buffers: (0..workers).map(|_| Mutex::default()).collect(),
            has_lines: Mutex::new(false),
            wakes: Condvar::new(),
            stops: AtomicBool::new(false),
            dropped: AtomicU64::new(0),
        });
        let writing = shared.clone();
        let writer =
            std::thread::Builder::new().name("access-log".into()).spawn(move || writing.run(target))?;
        Ok(Self { shared, writer: Some(writer) })
    }

    /// The handle of a worker.
    pub(crate) fn handle(&self, worker: usize) -> LogHandle {
        LogHandle { shared: self.shared.clone(), worker }
    }
}

impl Drop for AccessLog {
    fn drop(&mut self) {
        self.shared.stops.store(true, Ordering::Release);
        self.shared.wake();
        if let Some(writer) = self.writer.take() {
            // A writer that panicked has nothing left to write.
            let _ = writer.join();
        }
    }
}

impl LogHandle {
    /// Appends a line. Never blocks on input or output.
    pub(crate) fn write(&self, entry: &Entry<'_>, time: SystemTime) {
        let Some(buffer) = self.shared.buffers.get(self.worker) else { return };
        let was_empty = {
            let mut buffer = buffer.lock().unwrap_or_else(PoisonError::into_inner);
            if buffer.len() >= BUFFER_BYTES {
                self.shared.dropped.fetch_add(1, Ordering::Relaxed);
                return;
            }
            let was_empty = buffer.is_empty();
            match self.shared.format {
                AccessLogFormat::Json => line::json(entry, time, &mut buffer),
                AccessLogFormat::Combined => line::combined(entry, time, &mut buffer),
            }
            was_empty
        };
        if was_empty {
            self.shared.wake();
        }
    }

    /// Lines that found no room, of all workers.
    pub(crate) fn dropped(&self) -> u64 {
        self.shared.dropped.load(Ordering::Relaxed)
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
/// Kept between two writes.
const KEPT_BYTES: usize = 64 * 1024;
/// Lines of this time are written together: a reader hardly notices, a wakeup per request would cost as much as the line.
const COLLECT: Duration = Duration::from_millis(50);

#[cfg(test)]
mod tests {
    use super::*;

    fn log(path: &Path) -> AccessLog {
        let config =
            conf::AccessLog { target: AccessLogTarget::File(path.to_owned()), format: AccessLogFormat::Json };
        AccessLog::open(&config, 2).unwrap()
    }

    #[test]
    fn nothing_is_lost_at_the_end() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("access.log");
        let log = log(&path);
        for worker in 0..2 {
            log.handle(worker).write(&Entry::example(), SystemTime::UNIX_EPOCH);
        }
        drop(log);
        let text = std::fs::read_to_string(path).unwrap();
        assert_eq!(text.lines().count(), 2);
        assert!(text.ends_with('\n'));
    }

    #[test]
    fn a_moved_file_is_made_anew() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("access.log");
        let log = log(&path);
        std::fs::rename(&path, folder.path().join("access.log.1")).unwrap();
        log.handle(0).write(&Entry::example(), SystemTime::UNIX_EPOCH);
        drop(log);
        assert_eq!(std::fs::read_to_string(path).unwrap().lines().count(), 1);
    }

    #[test]
    fn a_full_buffer_drops_and_counts() {
        let folder = tempfile::tempdir().unwrap();
        let log = log(&folder.path().join("access.log"));
        *log.shared.buffers[0].lock().unwrap() = vec![b'\n'; BUFFER_BYTES];
        log.handle(0).write(&Entry::example(), SystemTime::UNIX_EPOCH);
        assert_eq!(log.handle(1).dropped(), 1);
    }
}
