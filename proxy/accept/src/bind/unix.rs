//! Binding a Unix socket at its path, with no moment in which somebody could connect under the wrong mode.

use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use socket2::{Domain, SockAddr, Socket, Type};

use super::{BACKLOG, BindError, bind_error};

/// The file of a bound socket; removed when dropped, unless another socket has taken the path by then or it belongs to another process.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    device_and_inode: (u64, u64),
    ours: AtomicBool,
}

/// A listening socket at `path` with permission bits `mode`. A socket nobody listens on is replaced; one that answers, or
/// a file that is no socket, is an error.
pub(super) fn listen(path: &Path, mode: u32) -> Result<(Socket, SocketFile), BindError> {
    let name = path.display();
    if path.as_os_str().as_bytes().len() > MAX_PATH_BYTES {
        return Err(BindError::PathTooLong { path: path.to_owned() });
    }
    refuse_if_taken(path)?;
    open(path, mode).map_err(|error| bind_error(format_args!("unix:{name}"), error))
}

impl SocketFile {
    /// The file of a socket that another process bound, and still owns.
    pub(super) fn of_another(path: PathBuf, device_and_inode: (u64, u64)) -> Self {
        Self { path, device_and_inode, ours: AtomicBool::new(false) }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// What tells it from another file at the same path.
    pub(super) fn device_and_inode(&self) -> (u64, u64) {
        self.device_and_inode
    }

    /// Whether it is what lies at this path, by whatever name it was bound.
    pub(super) fn is_at(&self, path: &Path) -> bool {
        fs::symlink_metadata(path).is_ok_and(|file| identity(&file) == self.device_and_inode)
    }

    /// Makes its removal our business, or another process's.
    pub(super) fn set_ours(&self, ours: bool) {
        self.ours.store(ours, Ordering::Release);
    }

    /// Changes the permission bits.
    ///
    /// # Errors
    /// What the system says. Nothing is changed, and nothing said, when another file has taken the path.
    pub(super) fn set_mode(&self, mode: u32) -> io::Result<()> {
        if self.is_at(&self.path) {
            fs::set_permissions(&self.path, fs::Permissions::from_mode(mode))
        } else {
            Ok(())
        }
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if self.ours.load(Ordering::Acquire)
            && self.is_at(&self.path)
            && let Err(error) = fs::remove_file(&self.path)
        {
            tracing::warn!(path = %self.path.display(), %error, "cannot remove the socket");
        }
    }
}

fn open(path: &Path, mode: u32) -> io::Result<(Socket, SocketFile)> {
    // Stale: whoever listened on it is gone.
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    // Never renamed afterwards: the other end sees the name of the moment of `bind`, and a proxy that compares it with
    // where it meant to connect, as Pingora does, would not use a connection twice.
    socket.bind(&SockAddr::unix(path)?)?;
    let device_and_inode = identity(&fs::symlink_metadata(path)?);
    // Absolute, for a process that takes it over and may have been started elsewhere.
    let file = SocketFile { path: std::path::absolute(path)?, device_and_inode, ours: AtomicBool::new(true) };
    // Nobody can connect before listen, so the mode is in force from the first moment.
    fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
    socket.listen(BACKLOG)?;
    Ok((socket, file))
}

/// Refuses a path that holds something we must not replace.
fn refuse_if_taken(path: &Path) -> Result<(), BindError> {
    let name = || format!("unix:{}", path.display());
    match fs::symlink_metadata(path) {
        Ok(file) if file.file_type().is_socket() => {}
        Ok(_) => return Err(BindError::NotASocket { path: path.to_owned() }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(bind_error(name(), error)),
    }
    match connect(path) {
        // A full queue is somebody's queue.
        Ok(()) => Err(BindError::InUse { address: name() }),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(BindError::InUse { address: name() }),
        Err(error) if matches!(error.kind(), io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound) => {
            Ok(())
        }
        Err(error) => Err(bind_error(name(), error)),
    }
}

fn connect(path: &Path) -> io::Result<()> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.connect(&SockAddr::unix(path)?)
}

fn identity(file: &fs::Metadata) -> (u64, u64) {
    (file.dev(), file.ino())
}

/// `sun_path` without its final NUL.
const MAX_PATH_BYTES: usize = 107;
