//! All generations of the process: which there are, and what each holds.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// Looks at the processes whose executable lies in a folder, a few times a second.
pub(super) struct Generations {
    folder: PathBuf,
    seen: Arc<Mutex<BTreeMap<u64, Generation>>>,
    stop: Arc<AtomicBool>,
    watching: Option<JoinHandle<()>>,
}

/// One process.
#[derive(Debug, Clone)]
pub(super) struct Generation {
    pub(super) pid: i32,
    /// When it was first seen, and last.
    pub(super) first: Instant,
    pub(super) last: Instant,
    pub(super) looks: Vec<Look>,
}

/// What a process held at a moment.
#[derive(Debug, Clone, Copy)]
pub(super) struct Look {
    pub(super) descriptors: usize,
    pub(super) resident_bytes: u64,
    pub(super) threads: usize,
    /// Whether it was the last that had been started.
    pub(super) is_newest: bool,
}

impl Generations {
    pub(super) fn watch(folder: &Path) -> Self {
        let seen: Arc<Mutex<BTreeMap<u64, Generation>>> = Arc::default();
        let stop = Arc::new(AtomicBool::new(false));
        let watching = std::thread::spawn({
            let (seen, stop, folder) = (seen.clone(), stop.clone(), folder.to_owned());
            move || {
                while !stop.load(Ordering::Relaxed) {
                    look(&folder, &seen);
                    std::thread::sleep(Duration::from_millis(250));
                }
            }
        });
        Self { folder: folder.to_owned(), seen, stop, watching: Some(watching) }
    }

    /// The process that was started last, if any runs.
    pub(super) fn newest(&self) -> Option<i32> {
        running(&self.folder).last_key_value().map(|(_, pid)| *pid)
    }

    /// How many descriptors the process that was started last has.
    pub(super) fn descriptors(&self) -> usize {
        self.newest().and_then(|pid| held(pid, true)).map_or(0, |look| look.descriptors)
    }

    /// Waits until there are hardly more than `before`: connections to upstreams are kept for 30 s. How many there are.
    pub(super) fn settle(&self, before: usize) -> usize {
        let deadline = Instant::now() + Duration::from_secs(60);
        while self.descriptors() > before + 2 && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(200));
        }
        self.descriptors()
    }

    /// How many run.
    pub(super) fn running(&self) -> usize {
        running(&self.folder).len()
    }

    /// A signal to the process that was started last.
    pub(super) fn signal(&self, signal: Signal) {
        if let Some(pid) = self.newest().and_then(Pid::from_raw) {
            let _ = kill_process(pid, signal);
        }
    }

    /// Waits until all have ended; how many have not.
    pub(super) fn wait_for_end(&self, patience: Duration) -> usize {
        let deadline = Instant::now() + patience;
        while self.running() > 0 && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(50));
        }
        self.running()
    }

    /// What was seen, oldest first.
    pub(super) fn all(&self) -> Vec<Generation> {
        self.seen.lock().unwrap().values().cloned().collect()
    }
}

impl Drop for Generations {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for pid in running(&self.folder).into_values().filter_map(Pid::from_raw) {
            let _ = kill_process(pid, Signal::KILL);
        }
        if let Some(watching) = self.watching.take() {
            let _ = watching.join();
        }
    }
}

impl Generation {
    /// The most that it had while it was the newest, by `what`.
    pub(super) fn most<T: Ord + Copy + Default>(&self, what: impl Fn(&Look) -> T) -> T {
        self.looks.iter().filter(|look| look.is_newest).map(what).max().unwrap_or_default()
    }
}

fn look(folder: &Path, seen: &Mutex<BTreeMap<u64, Generation>>) {
    let running = running(folder);
    let newest = running.keys().next_back().copied();
    for (started, pid) in &running {
        let Some(held) = held(*pid, newest == Some(*started)) else { continue };
        let now = Instant::now();
        let mut seen = seen.lock().unwrap();
        let generation = seen.entry(*started).or_insert_with(|| Generation {
            pid: *pid,
            first: now,
            last: now,
            looks: Vec::new(),
        });
        generation.last = now;
        generation.looks.push(held);
    }
}

/// When each was started, in the system's ticks, and its id. A process that has ended has no executable any more.
fn running(folder: &Path) -> BTreeMap<u64, i32> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir("/proc").unwrap().map_while(Result::ok) {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else {
            continue;
        };
        let is_ours = std::fs::read_link(entry.path().join("exe")).is_ok_and(|exe| exe.starts_with(folder));
        let arguments = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        // Not `gatehouse reload` and `gatehouse upgrade`.
        let serves = arguments.split(|byte| *byte == 0).nth(1) == Some(b"run");
        if is_ours
            && serves
            && let Some(started) = started(pid)
        {
            found.insert(started, pid);
        }
    }
    found
}

fn started(pid: i32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // After the name: field 3 is the first, and the start is field 22.
    let ticks: u64 = stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()?;
    // Two of one tick are told apart by their ids.
    Some(ticks << 22 | u64::try_from(pid).ok()?)
}

fn held(pid: i32, is_newest: bool) -> Option<Look> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let number = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        line.split_whitespace().next()?.parse::<u64>().ok()
    };
    Some(Look {
        descriptors: std::fs::read_dir(format!("/proc/{pid}/fd")).ok()?.count(),
        resident_bytes: number("VmRSS:")? * 1024,
        threads: usize::try_from(number("Threads:")?).ok()?,
        is_newest,
    })
}
