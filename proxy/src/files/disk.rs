//! The disk: finding a file below a root without leaving it, and reading it without holding up the runtime.
//!
//! Everything here is tried first with what the kernel has in memory ([`Wait::Never`]), and only when that is not
//! enough again on a thread that may wait ([`off_thread`]). A file is looked at through a descriptor that cannot be read
//! (`O_PATH`: no device or pipe notices), and that very file is opened for reading afterwards: whatever happens to the
//! names meanwhile, status, header fields and body belong to one file.

use std::ffi::OsStr;
use std::fs::File;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io::{self, IoSliceMut};
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::{Errno, ReadWriteFlags};
use tokio::sync::Semaphore;

use super::encoding::Coding;

/// Whether a call may wait for the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wait {
    /// What would wait fails with [`io::ErrorKind::WouldBlock`].
    Never,
    /// On a thread of its own.
    Allowed,
}

/// A regular file below the root.
#[derive(Debug)]
pub(crate) struct Found {
    /// Which of the candidates it is.
    pub(crate) coding: Coding,
    /// In bytes.
    pub(crate) size: u64,
    /// In whole seconds, never later than the time the file came to be; `None` outside the years 1970 to 9999.
    pub(crate) last_modified: Option<SystemTime>,
    /// Changes whenever the file does.
    pub(crate) fingerprint: u64,
    handle: OwnedFd,
}

impl Found {
    fn new(coding: Coding, handle: OwnedFd, stat: &Stat) -> Self {
        // The time of modification can be set, also to one value for a whole release; the time of change cannot.
        // Fixed keys: the same file has the same fingerprint after a restart.
        let mut hasher = DefaultHasher::new();
        (stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime, stat.st_mtime_nsec).hash(&mut hasher);
        (stat.st_ctime, stat.st_ctime_nsec).hash(&mut hasher);
        Self {
            coding,
            size: u64::try_from(stat.st_size).unwrap_or(0),
            last_modified: u64::try_from(stat.st_mtime.min(stat.st_ctime))
                .ok()
                .filter(|secs| *secs < YEAR_10000_SECS)
                .map(|secs| UNIX_EPOCH + Duration::from_secs(secs)),
            fingerprint: hasher.finish(),
            handle,
        }
    }

    /// Opens this very file for reading.
    pub(crate) fn open(&self) -> io::Result<File> {
        let path = format!("/proc/self/fd/{}", self.handle.as_raw_fd());
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOCTTY | OFlags::NONBLOCK;
        Ok(File::from(rustix::fs::open(path, flags, Mode::empty())?))
    }
}

/// The first of `candidates` that is a regular file: `relative`, which must have only plain segments, with the
/// candidate's suffix. Symbolic links are followed as long as they stay below `root`.
///
/// # Errors
/// Faults of the system, a missing root, and with [`Wait::Never`] `WouldBlock`. A file that is not there, not readable
/// by name or outside the root is `None`.
pub(crate) fn find(
    root: &Path,
    relative: &Path,
    candidates: &[Coding],
    wait: Wait,
) -> io::Result<Option<Found>> {
    let directory = open_root(root, wait)?;
    let mut name = relative.as_os_str().as_bytes().to_vec();
    for coding in candidates {
        name.truncate(relative.as_os_str().len());
        name.extend_from_slice(coding.suffix().as_bytes());
        if let Some(handle) = open_beneath(root, &directory, Path::new(OsStr::from_bytes(&name)), wait)? {
            let stat = rustix::fs::fstat(&handle)?;
            if FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile {
                return Ok(Some(Found::new(*coding, handle, &stat)));
            }
        }
    }
    Ok(None)
}

fn open_root(root: &Path, wait: Wait) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    match wait {
        Wait::Never => rustix::fs::openat2(CWD, root, flags, Mode::empty(), ResolveFlags::CACHED)
            .map_err(|_| would_block()),
        Wait::Allowed => Ok(rustix::fs::open(root, flags, Mode::empty())?),
    }
}

/// A handle (`O_PATH`) of what `name` stands for, if that is below the root.
fn open_beneath(root: &Path, directory: &OwnedFd, name: &Path, wait: Wait) -> io::Result<Option<OwnedFd>> {
    let contained = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    if wait == Wait::Never {
        return match rustix::fs::openat2(
            directory,
            name,
            flags,
            Mode::empty(),
            contained | ResolveFlags::CACHED,
        ) {
            Ok(handle) => Ok(Some(handle)),
            Err(Errno::NOENT | Errno::NOTDIR | Errno::NAMETOOLONG) => Ok(None),
            Err(_) => Err(would_block()), // not in memory, not for this kernel, or a matter for the careful way below
        };
    }
    for _ in 0..RENAME_RETRIES {
        match rustix::fs::openat2(directory, name, flags, Mode::empty(), contained) {
            Ok(handle) => return Ok(Some(handle)),
            Err(Errno::AGAIN | Errno::INTR) => {} // somebody renames directories under our feet
            Err(Errno::XDEV) => return open_link_inside(root, directory, name),
            Err(Errno::NOSYS | Errno::PERM) => return walk(directory, name), // before Linux 5.6, or forbidden by a sandbox
            Err(errno) => return absent_or_fault(errno),
        }
    }
    Err(io::ErrorKind::ResourceBusy.into())
}

/// The kernel refuses every absolute link; one that points below the root is fine all the same.
fn open_link_inside(root: &Path, directory: &OwnedFd, name: &Path) -> io::Result<Option<OwnedFd>> {
    let inside = || -> io::Result<Option<PathBuf>> {
        let target = root.join(name).canonicalize()?;
        Ok(target.strip_prefix(root.canonicalize()?).ok().map(Path::to_owned))
    };
    let Ok(Some(target)) = inside() else { return Ok(None) };
    let contained = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_SYMLINKS;
    match rustix::fs::openat2(directory, &target, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), contained) {
        Ok(handle) => Ok(Some(handle)),
        Err(Errno::XDEV) => Ok(None),
        Err(errno) => absent_or_fault(errno),
    }
}

/// Segment by segment where `openat2` is missing; follows no symbolic link at all.
fn walk(directory: &OwnedFd, name: &Path) -> io::Result<Option<OwnedFd>> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut here = directory.try_clone()?;
    for segment in name.components() {
        let std::path::Component::Normal(segment) = segment else { return Ok(None) };
        here = match rustix::fs::openat(&here, segment, flags, Mode::empty()) {
            Ok(next) => next,
            Err(errno) => return absent_or_fault(errno),
        };
    }
    Ok(Some(here))
}

/// What a client may know nothing of is not there; what the operator has to hear of is a fault.
fn absent_or_fault(errno: Errno) -> io::Result<Option<OwnedFd>> {
    match errno {
        Errno::NOENT | Errno::NOTDIR | Errno::NAMETOOLONG | Errno::LOOP | Errno::ACCESS | Errno::INVAL => {
            Ok(None)
        }
        errno => Err(errno.into()),
    }
}

/// Fills `buffer` from `offset` on.
///
/// # Errors
/// `UnexpectedEof` when the file ends before; with [`Wait::Never`] `WouldBlock` when a part is not in memory.
pub(crate) fn read_exact_at(file: &File, buffer: &mut [u8], offset: u64, wait: Wait) -> io::Result<()> {
    if wait == Wait::Allowed {
        return std::os::unix::fs::FileExt::read_exact_at(file, buffer, offset);
    }
    let mut done = 0;
    while let Some(rest) = buffer.get_mut(done..).filter(|rest| !rest.is_empty()) {
        let position = offset.saturating_add(done as u64);
        match rustix::io::preadv2(
            file.as_fd(),
            &mut [IoSliceMut::new(rest)],
            position,
            ReadWriteFlags::NOWAIT,
        ) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => done += count,
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN | Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => return Err(would_block()),
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(())
}

/// Runs `job` where it may wait for the disk; at most [`MAX_JOBS`] of them at a time in the whole process.
///
/// # Errors
/// Those of the job, and `TimedOut` when there is no turn or no answer within [`DEADLINE`] (a job that hangs keeps its turn).
pub(crate) async fn off_thread<T: Send + 'static>(
    job: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let in_turn = async {
        let turn = JOBS.acquire().await.map_err(io::Error::other)?;
        let task = tokio::task::spawn_blocking(move || {
            let result = job();
            drop(turn);
            result
        });
        task.await.map_err(io::Error::other)?
    };
    tokio::time::timeout(DEADLINE, in_turn).await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
}

fn would_block() -> io::Error {
    io::ErrorKind::WouldBlock.into()
}

/// Disks serve a few requests at a time; more threads would only wait in another place.
const MAX_JOBS: usize = 32;

static JOBS: Semaphore = Semaphore::const_new(MAX_JOBS);

/// A client that waited longer has left.
const DEADLINE: Duration = Duration::from_secs(30);

/// `openat2` gives up when a directory is renamed while it looks; so often in a row, somebody tries.
const RENAME_RETRIES: usize = 8;

/// The last second that an HTTP date can say, plus one.
const YEAR_10000_SECS: u64 = 253_402_300_800;

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// The folder, and the root in it.
    fn folder() -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let root = folder.path().join("root");
        std::fs::create_dir_all(root.join("sub")).expect("new folders");
        std::fs::write(root.join("sub/a.txt"), "0123456789").expect("room");
        std::fs::write(folder.path().join("secret"), "secret").expect("room");
        (folder, root)
    }

    fn find_plain(root: &Path, name: &str) -> Option<Found> {
        find(root, Path::new(name), &[Coding::Identity], Wait::Allowed).expect("no fault")
    }

    #[test]
    fn without_openat2_no_link_is_followed() {
        let (_folder, root) = folder();
        symlink("a.txt", root.join("sub/link")).expect("a link");
        symlink("sub", root.join("linked")).expect("a link");
        symlink("../secret", root.join("out")).expect("a link");
        let directory = open_root(&root, Wait::Allowed).expect("the root");
        let is_file = |name: &str| {
            walk(&directory, Path::new(name)).expect("no fault").is_some_and(|handle| {
                let stat = rustix::fs::fstat(handle).expect("a handle");
                FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile
            })
        };
        assert!(is_file("sub/a.txt"));
        for name in [
            "sub",
            "sub/link",
            "linked/a.txt",
            "out",
            "../secret",
            "sub/../../secret",
            "/etc/passwd",
            "missing",
        ] {
            assert!(!is_file(name), "{name}");
        }
    }

    #[test]
    fn even_a_name_that_climbs_stays_inside() {
        let (_folder, root) = folder();
        for name in ["../secret", "sub/../../secret", "/etc/passwd"] {
            assert!(find_plain(&root, name).is_none(), "{name}");
        }
    }

    #[test]
    fn the_fingerprint_changes_with_the_file_even_at_one_time_of_modification() {
        let (_folder, root) = folder();
        let path = root.join("sub/a.txt");
        let set_time =
            |time| File::options().write(true).open(&path).and_then(|file| file.set_modified(time));
        let time = UNIX_EPOCH + Duration::from_secs(1);
        set_time(time).expect("ours");
        let before = find_plain(&root, "sub/a.txt").expect("there");
        assert_eq!(find_plain(&root, "sub/a.txt").expect("there").fingerprint, before.fingerprint);
        std::fs::write(root.join("next"), "9876543210").expect("room");
        std::fs::rename(root.join("next"), &path).expect("replaced");
        set_time(time).expect("ours");
        let after = find_plain(&root, "sub/a.txt").expect("there");
        assert_eq!((after.size, after.last_modified), (before.size, before.last_modified));
        assert_ne!(after.fingerprint, before.fingerprint);
    }

    #[test]
    fn a_time_in_the_future_is_not_told() {
        let (_folder, root) = folder();
        let file = File::options().write(true).open(root.join("sub/a.txt")).expect("ours");
        let future = UNIX_EPOCH + Duration::from_secs(YEAR_10000_SECS - 1);
        file.set_modified(future).expect("ours");
        assert!(
            find_plain(&root, "sub/a.txt").expect("there").last_modified.is_some_and(|time| time < future)
        );
    }

    #[test]
    fn the_opened_file_is_the_one_that_was_looked_at() {
        let (_folder, root) = folder();
        let found = find_plain(&root, "sub/a.txt").expect("there");
        std::fs::remove_file(root.join("sub/a.txt")).expect("ours");
        symlink("../../secret", root.join("sub/a.txt")).expect("a link");
        let mut buffer = [0; 10];
        read_exact_at(&found.open().expect("readable"), &mut buffer, 0, Wait::Allowed).expect("ten bytes");
        assert_eq!(&buffer, b"0123456789");
    }

    #[tokio::test]
    async fn the_number_of_jobs_is_bounded() {
        use std::sync::atomic::{AtomicUsize, Ordering};
        static RUNNING: AtomicUsize = AtomicUsize::new(0);
        let jobs: Vec<_> = (0..MAX_JOBS * 3)
            .map(|_| {
                tokio::spawn(off_thread(|| {
                    let running = RUNNING.fetch_add(1, Ordering::SeqCst);
                    std::thread::sleep(Duration::from_millis(2));
                    RUNNING.fetch_sub(1, Ordering::SeqCst);
                    Ok(running)
                }))
            })
            .collect();
        for job in jobs {
            assert!(job.await.expect("no panic").expect("a turn") < MAX_JOBS);
        }
    }
}
