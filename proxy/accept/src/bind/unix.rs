//! Binding a Unix socket without a moment in which the path is missing or the mode is wrong.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use socket2::{Domain, SockAddr, Socket, Type};

use super::{BACKLOG, BindError, bind_error};

/// The file of a bound socket; removed when dropped, unless another socket has taken the path by then.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    device_and_inode: (u64, u64),
}

/// A listening socket at `path` with permission bits `mode`. It is made under another name beside it and renamed over
/// the path, so that clients meet the old socket or the new one, never none, and never one with another mode.
/// A socket nobody listens on is replaced; one that answers, or a file that is no socket, is an error.
pub(super) fn listen(path: &Path, mode: u32) -> Result<(UnixListener, SocketFile), BindError> {
    let name = path.display();
    if path.as_os_str().as_bytes().len() > MAX_PATH_BYTES {
        return Err(BindError::PathTooLong { path: path.to_owned() });
    }
    refuse_if_taken(path)?;
    let temporary = temporary_name(path);
    let opened = open(&temporary, path, mode);
    if opened.is_err() {
        // Fails when there is nothing to remove, which is as good.
        let _ = fs::remove_file(&temporary);
    }
    opened.map_err(|error| bind_error(format_args!("unix:{name}"), error))
}

impl SocketFile {
    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let ours =
            fs::symlink_metadata(&self.path).is_ok_and(|file| identity(&file) == self.device_and_inode);
        if ours && let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "cannot remove the socket");
        }
    }
}

fn open(temporary: &Path, path: &Path, mode: u32) -> io::Result<(UnixListener, SocketFile)> {
    // Left over by a process with our id that was killed, as in a container where it is always the same.
    if fs::symlink_metadata(temporary).is_ok_and(|file| file.file_type().is_socket()) {
        fs::remove_file(temporary)?;
    }
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.bind(&SockAddr::unix(temporary)?)?;
    // Nobody can connect before listen, so the mode is in force from the first moment.
    fs::set_permissions(temporary, fs::Permissions::from_mode(mode))?;
    socket.listen(BACKLOG)?;
    let device_and_inode = identity(&fs::symlink_metadata(temporary)?);
    fs::rename(temporary, path)?;
    Ok((OwnedFd::from(socket).into(), SocketFile { path: path.to_owned(), device_and_inode }))
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

/// In the same folder, so that rename works, and short enough whenever `path` is about as long as a name needs to be.
fn temporary_name(path: &Path) -> PathBuf {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let suffix = format!(".{}.{number}.tmp", std::process::id());
    let mut long = path.as_os_str().to_owned();
    long.push(&suffix);
    if long.as_bytes().len() > MAX_PATH_BYTES { path.with_file_name(suffix) } else { long.into() }
}

fn identity(file: &fs::Metadata) -> (u64, u64) {
    (file.dev(), file.ino())
}

/// `sun_path` without its final NUL.
const MAX_PATH_BYTES: usize = 107;
