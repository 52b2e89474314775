//! Notices that somebody switched maintenance mode: one look at the file each second, in one task of the process.

use std::fs::{self, Metadata};
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt as _;
use std::sync::Arc;
use std::time::Duration;

use super::{Maintenance, Notice, StateError, StateFile};

/// Keeps [`Maintenance`] as the file says.
#[derive(Debug)]
pub(crate) struct Watcher {
    file: StateFile,
    maintenance: Arc<Maintenance>,
    /// The file that was read last.
    seen: Option<Stamp>,
    /// What was said about it, so that it is said once.
    fault: Option<String>,
}

/// What changes whenever a file is replaced, written, or made readable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    inode: (u64, u64),
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    fn of(metadata: &Metadata) -> Self {
        Self {
            inode: (metadata.dev(), metadata.ino()),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

impl Watcher {
    /// Has looked at nothing yet.
    pub(crate) fn new(file: StateFile, maintenance: Arc<Maintenance>) -> Self {
        Self { file, maintenance, seen: None, fault: None }
    }

    /// Looks once, where waiting for the disk does no harm.
    pub(crate) async fn look(mut self) -> Option<Self> {
        tokio::task::spawn_blocking(move || {
            self.look_now();
            self
        })
        .await
        .ok()
    }

    /// Looks each second, until dropped.
    pub(crate) async fn watch(self) {
        let mut watcher = self;
        loop {
            tokio::time::sleep(INTERVAL).await;
            // `None` only when the look panicked or the runtime ends.
            let Some(looked) = watcher.look().await else { return };
            watcher = looked;
        }
    }

    /// A file that cannot be read or is faulty changes nothing.
    fn look_now(&mut self) {
        let stamp = match fs::metadata(self.file.path()) {
            Ok(metadata) => Some(Stamp::of(&metadata)),
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => {
                return self.report(format!("cannot look at {}: {error}", self.file.path().display()));
            }
        };
        if stamp.is_some() && stamp == self.seen {
            return;
        }
        // Taken before it is read: what is written meanwhile is another stamp.
        self.seen = stamp;
        match self.file.read() {
            Ok(notice) => {
                self.fault = None;
                self.switch(notice);
            }
            Err(error) => {
                if matches!(error, StateError::Read { .. }) {
                    // Perhaps no file could be opened just then, and the next look can.
                    self.seen = None;
                }
                self.report(match std::error::Error::source(&error) {
                    Some(source) => format!("{error}: {source}"),
                    None => error.to_string(),
                });
            }
        }
    }

    fn switch(&self, notice: Option<Notice>) {
        let before = self.maintenance.notice.load_full();
        if before.as_deref() == notice.as_ref() {
            return;
        }
        match &notice {
            Some(notice) => tracing::info!(
                notice = notice.message,
                retry_after_secs = notice.retry_after.as_secs(),
                allow = ?notice.allow.iter().map(ToString::to_string).collect::<Vec<_>>(),
                "maintenance mode is on, requests for upstreams are answered with 503"
            ),
            None => tracing::info!("maintenance mode is off"),
        }
        self.maintenance.notice.store(notice.map(Arc::new));
    }

    fn report(&mut self, fault: String) {
        if self.fault.as_ref() != Some(&fault) {
            let state = if self.maintenance.is_on() { "on" } else { "off" };
            tracing::error!(%fault, "the state of maintenance mode cannot be read, it stays {state}");
            self.fault = Some(fault);
        }
    }
}

/// Soon enough for whoever types a command and looks; one system call.
const INTERVAL: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    fn notice(message: &str) -> Notice {
        Notice::new(Some(message), Duration::from_secs(60), Vec::new(), UNIX_EPOCH).unwrap()
    }

    struct Watched {
        _folder: tempfile::TempDir,
        file: StateFile,
        maintenance: Arc<Maintenance>,
        watcher: Watcher,
    }

    impl Watched {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let file = StateFile::of(folder.path());
            let maintenance = Arc::new(Maintenance::default());
            let watcher = Watcher::new(file.clone(), maintenance.clone());
            Self { _folder: folder, file, maintenance, watcher }
        }

        #[track_caller]
        fn check(&mut self, expected: Option<&str>) {
            self.watcher.look_now();
            let notice = self.maintenance.notice(None);
            assert_eq!(notice.as_ref().map(|notice| notice.message()), expected);
        }
    }

    #[test]
    fn the_mode_follows_the_file() {
        let mut watched = Watched::new();
        watched.check(None);
        watched.file.write(&notice("one")).unwrap();
        watched.check(Some("one"));
        watched.check(Some("one"));
        watched.file.write(&notice("two")).unwrap();
        watched.check(Some("two"));
        watched.file.remove().unwrap();
        watched.check(None);
    }

    #[test]
    fn a_faulty_file_changes_nothing_and_is_reported_once() {
        let mut watched = Watched::new();
        let path = watched.file.path().to_owned();
        fs::write(&path, "nonsense").unwrap();
        watched.check(None);
        let fault = watched.watcher.fault.clone().expect("reported");
        assert!(fault.contains("is faulty: expected ident at line 1"), "{fault}");
        watched.file.write(&notice("one")).unwrap();
        watched.check(Some("one"));
        assert_eq!(watched.watcher.fault, None);
        fs::write(&path, "").unwrap();
        watched.check(Some("one"));
        assert!(watched.watcher.fault.is_some());
        let seen = watched.watcher.seen;
        watched.check(Some("one"));
        assert_eq!(watched.watcher.seen, seen, "not even read again");
        fs::remove_file(&path).unwrap();
        watched.check(None);
        assert_eq!(watched.watcher.fault, None);
    }

    #[test]
    fn what_could_not_be_read_is_read_again() {
        let mut watched = Watched::new();
        // A file that can be opened, and whose first byte cannot be read.
        std::os::unix::fs::symlink("/proc/self/mem", watched.file.path()).unwrap();
        watched.check(None);
        assert!(watched.watcher.fault.as_ref().is_some_and(|fault| fault.starts_with("cannot read")));
        assert_eq!(watched.watcher.seen, None);
    }

    #[test]
    fn a_folder_that_cannot_be_searched_changes_nothing() {
        let mut watched = Watched::new();
        watched.file.write(&notice("one")).unwrap();
        watched.check(Some("one"));
        // A name below a file is neither there nor "not found".
        watched.watcher.file = StateFile::of(watched.file.path());
        watched.check(Some("one"));
        assert!(watched.watcher.fault.as_ref().is_some_and(|fault| fault.starts_with("cannot look at")));
    }
}
